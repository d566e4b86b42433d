// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: filling mappings of files.
 *
 * That is shmem, and whatever else says with struct vm_uffd_ops how it makes
 * pages.  In a shared mapping a page is put into the file, locked, and then mapped;
 * whoever finds it in the file meanwhile waits for its lock.  If it cannot be
 * mapped it is taken out of the file again.  In a private mapping a page is the
 * mapping's own, as in anonymous memory; but UFFDIO_CONTINUE maps the file's, for
 * reading.
 *
 * UFFDIO_CONTINUE maps neighbouring pages in one hold of the page-table lock, and
 * all pages of a large folio at once, but never with a huge PMD: splitting that
 * one, for an munmap() of some of it say, would drop what the handler has mapped,
 * and it would be asked for it again.
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
static pte_t uffd_file_entry(struct uffd_fill *fill, struct page *page)
{
	struct vm_area_struct *vma = fill->vma;
	pte_t entry = pte_mkdirty(mk_pte(page, vma->vm_page_prot));

	if ((vma->vm_flags & (VM_WRITE | VM_SHARED)) == (VM_WRITE | VM_SHARED))
		entry = pte_mkwrite(entry, vma);
	return fill->req->wp ? pte_mkuffd(entry) : entry;
}

/*
 * Maps up to *@nr pages of a folio, from that of @index on, and sets *@nr to how
 * many it were.  Under the page-table lock.
 */
static int uffd_file_map_folio(struct uffd_fill *fill, struct folio *folio,
			       pgoff_t index, pte_t *pte, unsigned int *nr)
{
	struct page *page = folio_file_page(folio, index);
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = vma->vm_start +
			     ((index - vma->vm_pgoff) << PAGE_SHIFT);
	unsigned int first = folio_page_idx(folio, page);
	unsigned int max = *nr, i;
	int ret = 0;

	for (i = 0; i < max && !ret; i++) {
		if (PageHWPoison(folio_page(folio, first + i)))
			ret = -EIO;
		else if (!uffd_pte_free(ptep_get(pte + i)))
			ret = -EEXIST;
	}
	*nr = ret ? i - 1 : i;
	if (!*nr)
		return ret;
	folio_ref_add(folio, *nr);
	folio_add_file_rmap_ptes(folio, page, *nr, vma);
	set_ptes(vma->vm_mm, addr, pte, uffd_file_entry(fill, page), *nr);
	update_mmu_cache_range(NULL, vma, addr, pte, *nr);
	return ret;
}

/* Maps what one hold of the page-table lock can.  The gate has been asked. */
static int uffd_file_map_folios(struct uffd_fill *fill,
				struct folio_batch *folios, pte_t *pte,
				unsigned long end)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);
	pgoff_t index = linear_page_index(vma, addr), first = index;
	pgoff_t last = index + ((end - addr) >> PAGE_SHIFT);
	/* Truncation unmaps under our lock after it has changed the size. */
	pgoff_t size = DIV_ROUND_UP(i_size_read(file_inode(vma->vm_file)),
				    PAGE_SIZE);
	unsigned int i, nr;
	int ret = 0;

	for (i = 0; i < folio_batch_count(folios) && !ret; i++) {
		struct folio *folio = folios->folios[i];

		if (index >= size) {
			ret = -EFAULT;
			break;
		}
		nr = min3(folio_next_index(folio), last, size) - index;
		ret = uffd_file_map_folio(fill, folio, index,
					  pte + (index - first), &nr);
		index += nr;
	}
	if (index == first)
		return ret;
	add_mm_counter(vma->vm_mm, mm_counter_file(folios->folios[0]),
		       index - first);
	fill->done += (index - first) * PAGE_SIZE;
	return ret;
}

/*
 * Maps folios that follow each other in the file, from the next address up to
 * @end in the same table.  They are locked, and the caller keeps its references.
 */
static int uffd_file_map(struct uffd_fill *fill, struct folio_batch *folios,
			 pmd_t *pmd, unsigned long end)
{
	spinlock_t *ptl;
	pte_t *pte;
	int ret;

	pte = pte_offset_map_lock(fill->vma->vm_mm, pmd, uffd_fill_dst(fill),
				  &ptl);
	if (!pte)
		return UFFD_CHANGED;
	if (userfaultfd_gate_moved(&fill->gate))
		ret = UFFD_CHANGED;
	else
		ret = uffd_file_map_folios(fill, folios, pte, end);
	pte_unmap_unlock(pte, ptl);
	return ret;
}

/* Puts a folio that holds its contents into file and page table; consumes it. */
static int uffd_file_insert(struct uffd_fill *fill, struct folio *folio,
			    pmd_t *pmd)
{
	struct vm_area_struct *vma = fill->vma;
	const struct vm_uffd_ops *ops = uffd_ops_of(vma);
	unsigned long addr = uffd_fill_dst(fill);
	struct folio_batch folios __uninitialized;	/* large; see ->nr */
	int ret;

	/* Includes the barrier between contents and PTE. */
	__folio_mark_uptodate(folio);
	ret = ops->filemap_add(folio, vma, addr);
	if (ret) {
		folio_put(folio);
		return ret;
	}
	folio_batch_init(&folios);
	folio_batch_add(&folios, folio);
	ret = uffd_file_map(fill, &folios, pmd, addr + PAGE_SIZE);
	if (ret)
		ops->filemap_remove(folio, vma);
	else
		folio_unlock(folio);
	folio_put(folio);
	return ret;
}

/* As uffd_fill_table(), but -EINVAL for memory that makes no pages for us. */
static int uffd_file_table(struct uffd_fill *fill, pmd_t **pmd)
{
	const struct vm_uffd_ops *ops = uffd_ops_of(fill->vma);

	if (!ops->alloc_folio || !ops->filemap_add || !ops->filemap_remove)
		return -EINVAL;
	return uffd_fill_table(fill, pmd);
}

static struct folio *uffd_file_folio(struct uffd_fill *fill)
{
	return uffd_ops_of(fill->vma)->alloc_folio(fill->vma,
						   uffd_fill_dst(fill));
}

static int uffd_file_copy(struct uffd_fill *fill, unsigned long end)
{
	struct folio *folio;
	pmd_t *pmd;
	int ret;

	ret = uffd_file_table(fill, &pmd);
	if (ret)
		return ret;
	folio = uffd_fill_take_kept(fill);
	if (!folio) {
		folio = uffd_file_folio(fill);
		if (!folio)
			return -ENOMEM;
		if (!uffd_fill_read(fill, folio, uffd_fill_src(fill)))
			return uffd_fill_keep(fill, folio, false);
	}
	return uffd_file_insert(fill, folio, pmd);
}

static int uffd_file_zeropage(struct uffd_fill *fill, unsigned long end)
{
	struct folio *folio;
	pmd_t *pmd;
	int ret;

	ret = uffd_file_table(fill, &pmd);
	if (ret)
		return ret;
	folio = uffd_file_folio(fill);
	if (!folio)
		return -ENOMEM;
	clear_user_highpage(&folio->page, uffd_fill_dst(fill));
	return uffd_file_insert(fill, folio, pmd);
}

/*
 * Adds the folios that follow in the file, locked.  None of them is waited for:
 * whoever has it locked may wait for one that we have.
 */
static void uffd_file_find_more(struct address_space *mapping,
				struct folio_batch *folios, pgoff_t last)
{
	pgoff_t next = folio_next_index(folios->folios[0]);
	unsigned int nr = 1, i;
	struct folio *folio;

	/* Others may not have their folios in the mapping, or not want them seen. */
	if (next <= last && shmem_mapping(mapping)) {
		pgoff_t index = next;

		filemap_get_folios_contig(mapping, &index, last, folios);
	}
	for (; nr < folio_batch_count(folios); nr++) {
		folio = folios->folios[nr];
		if (!folio_trylock(folio))
			break;
		/* It may have gone from there before it was locked. */
		if (folio->mapping != mapping || folio->index != next ||
		    !folio_test_uptodate(folio)) {
			folio_unlock(folio);
			break;
		}
		next = folio_next_index(folio);
	}
	for (i = nr; i < folio_batch_count(folios); i++)
		folio_put(folios->folios[i]);
	folios->nr = nr;
}

/* The span's folios, locked, with a reference to each. */
static int uffd_file_find(struct uffd_fill *fill, struct folio_batch *folios,
			  unsigned long end)
{
	struct vm_area_struct *vma = fill->vma;
	pgoff_t index = linear_page_index(vma, uffd_fill_dst(fill));
	const struct vm_uffd_ops *ops = uffd_ops_of(vma);
	struct folio *folio;

	if (!ops->get_folio_noalloc)
		return -EINVAL;
	/* Brings it back from swap, but does not make one. */
	folio = ops->get_folio_noalloc(file_inode(vma->vm_file), index);
	if (IS_ERR_OR_NULL(folio))
		return -EFAULT;
	folio_batch_init(folios);
	folio_batch_add(folios, folio);
	uffd_file_find_more(vma->vm_file->f_mapping, folios,
			    linear_page_index(vma, end - 1));
	return 0;
}

static int uffd_file_continue(struct uffd_fill *fill, unsigned long end)
{
	struct folio_batch folios __uninitialized;
	unsigned int i;
	pmd_t *pmd;
	int ret;

	/* Its allocation may wait for reclaim: not with folios locked. */
	ret = uffd_fill_table(fill, &pmd);
	if (ret)
		return ret;
	end = pmd_addr_end(uffd_fill_dst(fill), end);
	ret = uffd_file_find(fill, &folios, end);
	if (ret)
		return ret;
	ret = uffd_file_map(fill, &folios, pmd, end);
	for (i = 0; i < folio_batch_count(&folios); i++) {
		folio_unlock(folios.folios[i]);
		folio_put(folios.folios[i]);
	}
	return ret;
}

const struct uffd_memory uffd_file = {
	.span = {
		[UFFD_FILL_COPY]	= uffd_file_copy,
		[UFFD_FILL_ZEROPAGE]	= uffd_file_zeropage,
		[UFFD_FILL_CONTINUE]	= uffd_file_continue,
		[UFFD_FILL_POISON]	= uffd_pte_poison,
	},
};

const struct uffd_memory uffd_file_private = {
	.span = {
		[UFFD_FILL_COPY]	= uffd_pte_copy_private,
		[UFFD_FILL_ZEROPAGE]	= uffd_pte_zeropage,
		[UFFD_FILL_CONTINUE]	= uffd_file_continue,
		[UFFD_FILL_POISON]	= uffd_pte_poison,
	},
};
