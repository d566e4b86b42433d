/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What later kernels give to the rooms of userfaultfd's memory half, made of what
 * this one has.
 *
 * fill.h includes this last.  Where a function has the same name and other
 * arguments here, a macro stands before it; so its header comes first.
 */

#ifndef _MM_USERFAULTFD_LTS_H
#define _MM_USERFAULTFD_LTS_H

#include <linux/gfp.h>
#include <linux/hugetlb.h>
#include <linux/huge_mm.h>
#include <linux/pagemap.h>
#include <linux/pagevec.h>
#include <linux/pgtable.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include "../swap.h"

/*
 * Allocation
 */

/* The fifth argument, which the kernel's own macros give, has no meaning. */
#undef vma_alloc_folio
#define vma_alloc_folio(gfp, order, vma, addr, ...)			\
	alloc_hooks(vma_alloc_folio_noprof(gfp, order, vma, addr, false))

#define alloc_pages_bulk_node(gfp, nid, nr, pages)			\
	alloc_pages_bulk_array_node(gfp, nid, nr, pages)

/**
 * folio_memcg_alloc_deferred() - see to it that a memcg has a list of folios to be split
 * @folio: a large folio that has been charged to it
 *
 * Here that is part of the memcg.
 *
 * Return: 0.
 */
static inline int folio_memcg_alloc_deferred(struct folio *folio)
{
	return 0;
}

/* The orders that a fault may use. */
#define TVA_PAGEFAULT	(TVA_IN_PF | TVA_ENFORCE_SYSFS)

/*
 * Page table entries
 */

#define zero_pfn(addr)			my_zero_pfn(addr)
#define folio_mk_pte(folio, prot)	mk_pte(&(folio)->page, prot)
#define folio_mk_pmd(folio, prot)	mk_huge_pmd(&(folio)->page, prot)

/* Anonymous pages are counted like those of a file that is mapped there. */
#define linear_anon_page_index(vma, addr)	linear_page_index(vma, addr)

#define make_huge_pte(vma, folio, try_mkwrite)				\
	make_huge_pte(vma, &(folio)->page,				\
		      (try_mkwrite) && ((vma)->vm_flags & VM_WRITE))

/**
 * pte_offset_map_rw_nolock() - map a page table that is to be locked and changed
 * @mm: the mm
 * @pmd: the entry that points to the table
 * @addr: an address in it
 * @pmdvalp: where to put what @pmd holds, to compare it once the lock is held
 * @ptlp: where to put the lock
 *
 * Return: the PTE of @addr, or NULL if there is no table.
 */
static inline pte_t *pte_offset_map_rw_nolock(struct mm_struct *mm, pmd_t *pmd,
					      unsigned long addr,
					      pmd_t *pmdvalp, spinlock_t **ptlp)
{
	*pmdvalp = pmdp_get_lockless(pmd);
	return pte_offset_map_nolock(mm, pmd, addr, ptlp);
}

/*
 * Reverse mappings
 */

/**
 * uffd_lock_rmap() - keep away who looks up where an anonymous folio is mapped
 * @vma: a VMA that maps it, locked for reading
 *
 * Some of them hold the lock of the anon_vma only; in later kernels all have the
 * folio locked.  All pages of a VMA share one root, whose lock it is.
 *
 * Context: may sleep; comes after the folio's lock, if that is waited for, and before
 * page-table locks.
 *
 * Return: what uffd_unlock_rmap() is to be given.
 */
static inline struct anon_vma *uffd_lock_rmap(struct vm_area_struct *vma)
{
	struct anon_vma *anon_vma = READ_ONCE(vma->anon_vma);

	if (anon_vma)
		anon_vma_lock_write(anon_vma);
	return anon_vma;
}

#define uffd_lock_rmap	uffd_lock_rmap

/**
 * uffd_rmap_is_locked() - has no first page come meanwhile?
 * @vma: the VMA
 * @locked: what uffd_lock_rmap() returned
 *
 * Context: under the lock of the page table that was locked after that.
 *
 * Return: true if @locked is good for all pages that the table has.
 */
static inline bool uffd_rmap_is_locked(struct vm_area_struct *vma,
				       struct anon_vma *locked)
{
	return locked == READ_ONCE(vma->anon_vma);
}

/**
 * uffd_unlock_rmap() - undo uffd_lock_rmap()
 * @locked: what that returned
 */
static inline void uffd_unlock_rmap(struct anon_vma *locked)
{
	if (locked)
		anon_vma_unlock_write(locked);
}

/*
 * Swap cache
 */

/* Not the function of this name, which counts it as a hit of readahead. */
static inline struct folio *uffd_swap_cache_folio(swp_entry_t entry)
{
	struct folio *folio = filemap_get_folio(swap_address_space(entry),
						swap_cache_index(entry));

	return IS_ERR(folio) ? NULL : folio;
}

#define swap_cache_get_folio(entry)	uffd_swap_cache_folio(entry)

/**
 * swap_cache_has_folio() - is there a folio in the swap cache, or about to be?
 * @entry: a swap entry, of a device that is held
 *
 * Return: true if there is.
 */
static inline bool swap_cache_has_folio(swp_entry_t entry)
{
	return READ_ONCE(swp_swap_info(entry)->swap_map[swp_offset(entry)]) &
	       SWAP_HAS_CACHE;
}

#ifdef CONFIG_PER_VMA_LOCK
/**
 * vma_start_read_locked_nested() - lock a VMA for reading
 * @vma: the VMA, with mmap_lock held for reading
 * @subclass: for lockdep: which of several it is
 *
 * mmap_lock keeps writers of the VMA's lock away, and there may be any number of
 * readers.
 *
 * Return: true.
 */
static inline bool vma_start_read_locked_nested(struct vm_area_struct *vma,
						int subclass)
{
	down_read_nested(&vma->vm_lock->lock, subclass);
	return true;
}
#endif

#endif /* _MM_USERFAULTFD_LTS_H */
