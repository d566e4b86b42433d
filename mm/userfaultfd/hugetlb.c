// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: filling hugetlb memory, shared and private.
 *
 * A huge page is allocated against the reservation of the mapping, which may
 * not be there any more once the VMA's lock has been dropped.  So the folio that
 * is kept while a source is brought in is a temporary one, which does not draw
 * on the reservation; its contents are copied once more when the real one has
 * been allocated.
 */

#include <linux/hugetlb.h>
#include <linux/leafops.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/swapops.h>
#include "../internal.h"
#include "fill.h"

/*
 * The page of the file, or the place of the private page, is ours to fill: no
 * fault works on it, and its page table stays.  A truncation waits for the mutex
 * where it finds a page in the file; it passes over a private mapping whose VMA
 * lock somebody has, so that what is filled here may lie beyond the file's end.
 */
static pte_t *uffd_hugetlb_lock(struct uffd_fill *fill, u32 *hash)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);
	pte_t *pte;

	*hash = hugetlb_fault_mutex_hash(vma->vm_file->f_mapping,
					 hugetlb_linear_page_index(vma, addr));
	mutex_lock(&hugetlb_fault_mutex_table[*hash]);
	hugetlb_vma_lock_read(vma);
	pte = huge_pte_alloc(vma->vm_mm, vma, addr, vma_kernel_pagesize(vma));
	if (!pte) {
		hugetlb_vma_unlock_read(vma);
		mutex_unlock(&hugetlb_fault_mutex_table[*hash]);
	}
	return pte;
}

static void uffd_hugetlb_unlock(struct uffd_fill *fill, u32 hash)
{
	hugetlb_vma_unlock_read(fill->vma);
	mutex_unlock(&hugetlb_fault_mutex_table[hash]);
}

/* As uffd_pte_free(). */
static bool uffd_hugetlb_free(pte_t pte)
{
	return huge_pte_none(pte) || pte_is_uffd_marker(pte);
}

/* Is there a page already, in the page table or in the file? */
static bool uffd_hugetlb_taken(struct uffd_fill *fill, pte_t *pte)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);

	if (!uffd_hugetlb_free(huge_ptep_get(vma->vm_mm, addr, pte)))
		return true;
	return (vma->vm_flags & VM_SHARED) &&
	       hugetlbfs_pagecache_present(hstate_vma(vma), vma, addr);
}

/* Gives back a folio that has not been put anywhere, and its reservation. */
static void uffd_hugetlb_discard(struct uffd_fill *fill, struct folio *folio)
{
	restore_reserve_on_error(hstate_vma(fill->vma), fill->vma,
				 uffd_fill_dst(fill), folio);
	folio_put(folio);
}

/* A folio to hold the source while no lock is held. */
static int uffd_hugetlb_keep(struct uffd_fill *fill)
{
	struct hstate *h = hstate_vma(fill->vma);
	gfp_t gfp = htlb_alloc_mask(h);
	struct mempolicy *policy;
	struct folio *folio;
	nodemask_t *nodes;
	int nid;

	nid = huge_node(fill->vma, uffd_fill_dst(fill), gfp, &policy, &nodes);
	/* If the node has none, one from elsewhere is not worth a node's pool. */
	folio = alloc_hugetlb_folio_nodemask(h, nid, nodes, gfp, false);
	mpol_cond_put(policy);
	return folio ? uffd_fill_keep(fill, folio, false) : -ENOMEM;
}

/* Makes a folio with the source in it.  Consumes @kept. */
static int uffd_hugetlb_make(struct uffd_fill *fill, struct folio *kept,
			     struct folio **foliop)
{
	unsigned long addr = uffd_fill_dst(fill);
	struct folio *folio;
	int ret = 0;

	folio = alloc_hugetlb_folio(fill->vma, addr, false);
	if (IS_ERR(folio))
		ret = -ENOMEM;
	else if (kept)
		ret = copy_user_large_folio(folio, kept, addr, fill->vma);
	else if (!uffd_fill_read(fill, folio, uffd_fill_src(fill)))
		ret = UFFD_BRING_IN;
	if (kept)
		folio_put(kept);
	if (!ret) {
		/* Includes the barrier between contents and the PTE. */
		__folio_mark_uptodate(folio);
		*foliop = folio;
		return 0;
	}
	if (!IS_ERR(folio))
		uffd_hugetlb_discard(fill, folio);
	return ret == UFFD_BRING_IN ? uffd_hugetlb_keep(fill) : ret;
}

/* Puts the folio into the file and leaves it locked. */
static int uffd_hugetlb_add(struct uffd_fill *fill, struct folio *folio)
{
	struct address_space *mapping = fill->vma->vm_file->f_mapping;
	struct hstate *h = hstate_vma(fill->vma);
	pgoff_t index = hugetlb_linear_page_index(fill->vma,
						  uffd_fill_dst(fill));

	/*
	 * Not under the page-table lock, since the page must not enter the file
	 * in vain.  Truncation and the punching of holes take the fault mutex
	 * that we hold, and zapping takes hugetlb's VMA lock: whatever comes
	 * after this finds the page and takes it away again.
	 */
	if (userfaultfd_gate_moved(&fill->gate))
		return UFFD_CHANGED;
	if (index >= i_size_read(mapping->host) >> huge_page_shift(h))
		return -EFAULT;
	return hugetlb_add_to_page_cache(folio, mapping, index);
}

/* The PTE that maps a huge page. */
static pte_t uffd_hugetlb_entry(struct uffd_fill *fill, struct folio *folio)
{
	struct vm_area_struct *vma = fill->vma;
	bool ours = (vma->vm_flags & VM_SHARED) ||
		    fill->req->op != UFFD_FILL_CONTINUE;
	pte_t entry = make_huge_pte(vma, folio, ours && !fill->req->wp);

	/* Dirty even if read-only: its contents are nowhere else. */
	entry = huge_pte_mkdirty(entry);
	return fill->req->wp ? huge_pte_mkuffd(entry) : entry;
}

/* With the page-table lock held.  @in_file: it is a page of the file. */
static int uffd_hugetlb_set(struct uffd_fill *fill, struct folio *folio,
			    pte_t *pte, bool in_file)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);
	struct hstate *h = hstate_vma(vma);

	if (folio_test_hwpoison(folio))
		return -EIO;
	if (!uffd_hugetlb_free(huge_ptep_get(vma->vm_mm, addr, pte)))
		return -EEXIST;

	if (in_file)
		hugetlb_add_file_rmap(folio);
	else
		hugetlb_add_new_anon_rmap(folio, vma, addr);
	set_huge_pte_at(vma->vm_mm, addr, pte, uffd_hugetlb_entry(fill, folio),
			huge_page_size(h));
	hugetlb_count_add(pages_per_huge_page(h), vma->vm_mm);
	update_mmu_cache(vma, addr, pte);
	/* It has been all along if the file had it: migration may be at it. */
	if (fill->req->op != UFFD_FILL_CONTINUE)
		folio_set_hugetlb_migratable(folio);
	fill->done += huge_page_size(h);
	return 0;
}

/* Maps a new folio, which holds its contents, as a page of the file. */
static int uffd_hugetlb_insert_shared(struct uffd_fill *fill,
				      struct folio *folio, pte_t *pte)
{
	struct vm_area_struct *vma = fill->vma;
	spinlock_t *ptl;
	int ret;

	ret = uffd_hugetlb_add(fill, folio);
	if (ret) {
		uffd_hugetlb_discard(fill, folio);
		return ret;
	}
	ptl = huge_pte_lock(hstate_vma(vma), vma->vm_mm, pte);
	ret = uffd_hugetlb_set(fill, folio, pte, true);
	/* Under the lock: once mapped, the folio is the page table's. */
	folio_unlock(folio);
	spin_unlock(ptl);
	/* In the file it stays: a fault will find it. */
	if (ret)
		folio_put(folio);
	return ret;
}

/* Maps a new folio, which holds its contents, as a page of the mapping's own. */
static int uffd_hugetlb_insert_private(struct uffd_fill *fill,
				       struct folio *folio, pte_t *pte)
{
	struct vm_area_struct *vma = fill->vma;
	spinlock_t *ptl;
	int ret;

	ptl = huge_pte_lock(hstate_vma(vma), vma->vm_mm, pte);
	if (userfaultfd_gate_moved(&fill->gate))
		ret = UFFD_CHANGED;
	else
		ret = uffd_hugetlb_set(fill, folio, pte, false);
	spin_unlock(ptl);
	if (ret)
		uffd_hugetlb_discard(fill, folio);
	return ret;
}

static int uffd_hugetlb_copy(struct uffd_fill *fill, pte_t *pte)
{
	struct folio *kept = uffd_fill_take_kept(fill);
	struct folio *folio;
	int ret;

	if (uffd_hugetlb_taken(fill, pte)) {
		if (kept)
			folio_put(kept);
		return -EEXIST;
	}
	ret = uffd_hugetlb_make(fill, kept, &folio);
	if (ret)
		return ret;
	return fill->vma->vm_flags & VM_SHARED ?
	       uffd_hugetlb_insert_shared(fill, folio, pte) :
	       uffd_hugetlb_insert_private(fill, folio, pte);
}

static int uffd_hugetlb_continue(struct uffd_fill *fill, pte_t *pte)
{
	struct vm_area_struct *vma = fill->vma;
	struct hstate *h = hstate_vma(vma);
	struct folio *folio;
	spinlock_t *ptl;
	int ret;

	folio = filemap_lock_hugetlb_folio(h, vma->vm_file->f_mapping,
					   hugetlb_linear_page_index(vma,
							uffd_fill_dst(fill)));
	if (IS_ERR(folio))
		return -EFAULT;
	ptl = huge_pte_lock(h, vma->vm_mm, pte);
	if (userfaultfd_gate_moved(&fill->gate))
		ret = UFFD_CHANGED;
	else
		ret = uffd_hugetlb_set(fill, folio, pte, true);
	folio_unlock(folio);
	spin_unlock(ptl);
	if (ret)
		folio_put(folio);
	return ret;
}

static int uffd_hugetlb_poison(struct uffd_fill *fill, pte_t *pte)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);
	struct hstate *h = hstate_vma(vma);
	spinlock_t *ptl;
	int ret = 0;

	ptl = huge_pte_lock(h, vma->vm_mm, pte);
	if (userfaultfd_gate_moved(&fill->gate)) {
		ret = UFFD_CHANGED;
	} else if (!huge_pte_none(huge_ptep_get(vma->vm_mm, addr, pte))) {
		ret = -EEXIST;
	} else {
		set_huge_pte_at(vma->vm_mm, addr, pte,
				make_pte_marker(PTE_MARKER_POISONED),
				huge_page_size(h));
		update_mmu_cache(vma, addr, pte);
		fill->done += huge_page_size(h);
	}
	spin_unlock(ptl);
	return ret;
}

/* Fills one huge page. */
static int uffd_hugetlb_span(struct uffd_fill *fill,
			     int (*one)(struct uffd_fill *fill, pte_t *pte))
{
	pte_t *pte;
	u32 hash;
	int ret;

	if (!IS_ALIGNED(fill->req->dst | fill->req->len,
			vma_kernel_pagesize(fill->vma)))
		return -EINVAL;
	pte = uffd_hugetlb_lock(fill, &hash);
	if (!pte)
		return -ENOMEM;
	ret = one(fill, pte);
	uffd_hugetlb_unlock(fill, hash);
	return ret;
}

static int uffd_hugetlb_copy_span(struct uffd_fill *fill, unsigned long end)
{
	return uffd_hugetlb_span(fill, uffd_hugetlb_copy);
}

static int uffd_hugetlb_continue_span(struct uffd_fill *fill,
				      unsigned long end)
{
	return uffd_hugetlb_span(fill, uffd_hugetlb_continue);
}

static int uffd_hugetlb_poison_span(struct uffd_fill *fill, unsigned long end)
{
	return uffd_hugetlb_span(fill, uffd_hugetlb_poison);
}

/* No ZEROPAGE: there is no huge zero page for every size. */
const struct uffd_memory uffd_hugetlb = {
	.span = {
		[UFFD_FILL_COPY]	= uffd_hugetlb_copy_span,
		[UFFD_FILL_CONTINUE]	= uffd_hugetlb_continue_span,
		[UFFD_FILL_POISON]	= uffd_hugetlb_poison_span,
	},
};

/**
 * uffd_hugetlb_fault_open() - userfaultfd_fault_open() of hugetlb memory
 * @vmf: the fault
 * @reason: one of __VM_UFFD_FLAGS
 *
 * Context: fault lock held.  Sleeps: hugetlb's lock keeps shared page tables.
 *
 * Return: true if the thread has to wait; false if it is to try again at once.
 */
bool uffd_hugetlb_fault_open(struct vm_fault *vmf, vm_flags_t reason)
{
	struct vm_area_struct *vma = vmf->vma;
	bool open = true;
	pte_t *ptep, pte;
	spinlock_t *ptl;

	hugetlb_vma_lock_read(vma);
	ptep = hugetlb_walk(vma, vmf->address, vma_mmu_pagesize(vma));
	if (ptep) {
		ptl = huge_pte_lock(hstate_vma(vma), vma->vm_mm, ptep);
		pte = huge_ptep_get(vma->vm_mm, vmf->address, ptep);
		spin_unlock(ptl);
		open = huge_pte_none(pte) || pte_is_uffd_wp_marker(pte);
		if (pte_present(pte))
			open = uffd_present_open(huge_pte_uffd(pte),
						 pte_protnone(pte), reason);
	}
	hugetlb_vma_unlock_read(vma);
	return open;
}
