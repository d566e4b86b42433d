// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: filling mappings of shmem files.
 *
 * In a shared mapping a page is put into the file, locked, and then mapped;
 * whoever finds it in the file meanwhile waits for its lock.  If it cannot be
 * mapped it is taken out of the file again.  In a private mapping a page is the
 * mapping's own, as in anonymous memory; but UFFDIO_CONTINUE maps the file's, for
 * reading.
 */

#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/shmem_fs.h>
#include <linux/swap.h>
#include "../internal.h"
#include "fill.h"

/* The PTE that maps a page of the file. */
static pte_t uffd_shmem_entry(struct uffd_fill *fill, struct page *page)
{
	struct vm_area_struct *vma = fill->vma;
	pte_t entry = pte_mkdirty(mk_pte(page, vma->vm_page_prot));

	if ((vma->vm_flags & (VM_WRITE | VM_SHARED)) == (VM_WRITE | VM_SHARED))
		entry = pte_mkwrite(entry, vma);
	return fill->req->wp ? pte_mkuffd_wp(entry) : entry;
}

/* Maps a page of a folio that is in the file and locked. */
static int uffd_shmem_map(struct uffd_fill *fill, struct folio *folio,
			  struct page *page)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);
	spinlock_t *ptl;
	pmd_t *pmd;
	pte_t *pte;
	int ret;

	ret = uffd_fill_table(fill, &pmd);
	if (ret)
		return ret;
	pte = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!pte)
		return UFFD_CHANGED;
	if (userfaultfd_gate_moved(&fill->gate)) {
		ret = UFFD_CHANGED;
	} else if (uffd_fill_beyond_file(fill, addr)) {
		ret = -EFAULT;
	} else if (!pte_none_mostly(ptep_get(pte))) {
		ret = -EEXIST;
	} else {
		folio_add_file_rmap_pte(folio, page, vma);
		inc_mm_counter(vma->vm_mm, mm_counter_file(folio));
		set_pte_at(vma->vm_mm, addr, pte, uffd_shmem_entry(fill, page));
		update_mmu_cache(vma, addr, pte);
		fill->done += PAGE_SIZE;
	}
	pte_unmap_unlock(pte, ptl);
	return ret;
}

/* Puts a folio that holds its contents into file and page table; consumes it. */
static int uffd_shmem_insert(struct uffd_fill *fill, struct folio *folio)
{
	struct vm_area_struct *vma = fill->vma;
	struct inode *inode = file_inode(vma->vm_file);
	int ret;

	ret = shmem_insert_folio(inode, folio,
				 linear_page_index(vma, uffd_fill_dst(fill)),
				 vma->vm_mm);
	if (ret) {
		folio_put(folio);
		return ret;
	}
	ret = uffd_shmem_map(fill, folio, &folio->page);
	if (ret)
		shmem_undo_insert_folio(inode, folio);
	else
		folio_add_lru(folio);
	folio_unlock(folio);
	if (ret)
		folio_put(folio);
	return ret;
}

static struct folio *uffd_shmem_folio(struct uffd_fill *fill)
{
	struct vm_area_struct *vma = fill->vma;
	struct address_space *mapping = vma->vm_file->f_mapping;

	/* The VMA's policy is the file's. */
	return vma_alloc_folio(mapping_gfp_mask(mapping), 0, vma,
			       uffd_fill_dst(fill), false);
}

static int uffd_shmem_copy(struct uffd_fill *fill, unsigned long end)
{
	struct folio *folio = uffd_fill_take_kept(fill);

	if (!folio) {
		folio = uffd_shmem_folio(fill);
		if (!folio)
			return -ENOMEM;
		if (!uffd_fill_read(fill, folio, uffd_fill_src(fill)))
			return uffd_fill_keep(fill, folio, false);
	}
	return uffd_shmem_insert(fill, folio);
}

static int uffd_shmem_zeropage(struct uffd_fill *fill, unsigned long end)
{
	struct folio *folio = uffd_shmem_folio(fill);

	if (!folio)
		return -ENOMEM;
	clear_user_highpage(&folio->page, uffd_fill_dst(fill));
	return uffd_shmem_insert(fill, folio);
}

static int uffd_shmem_continue(struct uffd_fill *fill, unsigned long end)
{
	struct inode *inode = file_inode(fill->vma->vm_file);
	pgoff_t index = linear_page_index(fill->vma, uffd_fill_dst(fill));
	struct folio *folio;
	struct page *page;
	int ret;

	/* Brings it back from swap, but does not make one. */
	ret = shmem_get_folio(inode, index, 0, &folio, SGP_NOALLOC);
	if (ret)
		return ret == -ENOENT ? -EFAULT : ret;
	if (!folio)
		return -EFAULT;
	page = folio_file_page(folio, index);
	ret = PageHWPoison(page) ? -EIO : uffd_shmem_map(fill, folio, page);
	folio_unlock(folio);
	if (ret)
		folio_put(folio);
	return ret;
}

const struct uffd_memory uffd_shmem = {
	.span = {
		[UFFD_FILL_COPY]	= uffd_shmem_copy,
		[UFFD_FILL_ZEROPAGE]	= uffd_shmem_zeropage,
		[UFFD_FILL_CONTINUE]	= uffd_shmem_continue,
		[UFFD_FILL_POISON]	= uffd_pte_poison,
	},
};

const struct uffd_memory uffd_shmem_private = {
	.span = {
		[UFFD_FILL_COPY]	= uffd_pte_copy_private,
		[UFFD_FILL_ZEROPAGE]	= uffd_pte_zeropage,
		[UFFD_FILL_CONTINUE]	= uffd_shmem_continue,
		[UFFD_FILL_POISON]	= uffd_pte_poison,
	},
};
