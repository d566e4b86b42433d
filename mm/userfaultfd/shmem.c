// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: filling shared mappings of shmem files.
 *
 * A page is put into the file, locked, and then mapped; whoever finds it in the
 * file meanwhile waits for its lock.  If it cannot be mapped it is taken out of
 * the file again.
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

static int uffd_shmem_map(struct uffd_fill *fill, struct folio *folio)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);
	spinlock_t *ptl;
	pte_t *pte, entry;
	pmd_t *pmd;
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
		entry = pte_mkdirty(mk_pte(&folio->page, vma->vm_page_prot));
		if (vma->vm_flags & VM_WRITE)
			entry = pte_mkwrite(entry, vma);
		folio_add_lru(folio);
		folio_add_file_rmap_pte(folio, &folio->page, vma);
		inc_mm_counter(vma->vm_mm, mm_counter_file(folio));
		set_pte_at(vma->vm_mm, addr, pte, entry);
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
	ret = uffd_shmem_map(fill, folio);
	if (ret)
		shmem_undo_insert_folio(inode, folio);
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

const struct uffd_memory uffd_shmem = {
	.span = {
		[UFFD_FILL_COPY]	= uffd_shmem_copy,
		[UFFD_FILL_ZEROPAGE]	= uffd_shmem_zeropage,
	},
};
