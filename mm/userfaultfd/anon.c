// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: filling anonymous memory.
 *
 * That is memory of anonymous VMAs, and the private copies that a private
 * mapping of a shmem file gets.  The file itself is not looked at: a fault that
 * filled its hole would at once copy the page, and the hole would stay.
 *
 * Entries that stand for no page of their own, the zero page and poison, are the
 * same in every memory that is mapped with small pages, and are set here too.
 *
 * Small folios are made a batch at a time: allocated, charged and copied with
 * no page-table lock held, then mapped in one hold of it.  Where large folios
 * will do, large.c is asked first.
 */

#include <linux/leafops.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include "../internal.h"
#include "fill.h"

struct uffd_anon_batch {
	unsigned int nr;
	struct folio *folio[UFFD_SPAN_PAGES];
};

/* Pages that have been allocated, but are nobody's yet. */
struct uffd_anon_stock {
	unsigned int next;
	unsigned int nr;
	struct page *page[UFFD_SPAN_PAGES];
};

/*
 * How many pages go into a batch: up to the end of the range or the table, or to
 * where a large folio may begin.
 */
static unsigned int uffd_anon_span(const struct uffd_fill *fill,
				   unsigned long end)
{
	unsigned long dst = uffd_fill_dst(fill);
	unsigned int next = UFFD_SPAN_PAGES -
			    (dst >> PAGE_SHIFT) % UFFD_SPAN_PAGES;

	return min_t(unsigned long, (end - dst) >> PAGE_SHIFT, next);
}

/* Is each page to come from where the caller runs, for want of a policy? */
static bool uffd_from_here(struct vm_area_struct *vma)
{
#ifdef CONFIG_NUMA
	return vma_is_anonymous(vma) && !vma->vm_policy && !current->mempolicy;
#else
	return true;
#endif
}

/*
 * The allocator gives several pages for little more than the price of one.  It may
 * give less than that; what is missing is allocated page by page.
 */
static void uffd_anon_stock_up(struct uffd_fill *fill,
			       struct uffd_anon_stock *stock, unsigned int nr)
{
	if (nr < 2 || !uffd_from_here(fill->vma))
		return;
	memset(stock->page, 0, nr * sizeof(stock->page[0]));
	stock->nr = alloc_pages_bulk_node(GFP_HIGHUSER_MOVABLE,
						numa_node_id(), nr,
						stock->page);
}

static void uffd_anon_stock_free(struct uffd_anon_stock *stock)
{
	while (stock->next < stock->nr)
		__free_page(stock->page[stock->next++]);
}

static struct folio *uffd_anon_folio(struct uffd_fill *fill,
				     struct uffd_anon_stock *stock,
				     unsigned long addr)
{
	struct folio *folio;

	if (stock->next < stock->nr)
		folio = page_folio(stock->page[stock->next++]);
	else if (uffd_from_here(fill->vma))
		folio = __folio_alloc_node(GFP_HIGHUSER_MOVABLE, 0,
					   numa_node_id());
	else
		folio = vma_alloc_folio(GFP_HIGHUSER_MOVABLE, 0, fill->vma,
					addr);
	if (folio && mem_cgroup_charge(folio, fill->req->mm, GFP_KERNEL)) {
		folio_put(folio);
		folio = NULL;
	}
	return folio;
}

static int uffd_anon_make_from(struct uffd_fill *fill,
			       struct uffd_anon_batch *batch,
			       struct uffd_anon_stock *stock, unsigned int nr,
			       struct folio **waiting)
{
	unsigned long dst = uffd_fill_dst(fill);
	const void __user *src = uffd_fill_src(fill);
	struct folio *folio = uffd_fill_take_kept(fill);

	for (batch->nr = 0; batch->nr < nr; batch->nr++) {
		unsigned long offset = batch->nr * PAGE_SIZE;

		/* Not before the source has proved to be there. */
		if (batch->nr == 1)
			uffd_anon_stock_up(fill, stock, nr - 1);
		if (!folio) {
			folio = uffd_anon_folio(fill, stock, dst + offset);
			if (!folio)
				return -ENOMEM;
			if (!uffd_fill_read(fill, folio, src + offset)) {
				*waiting = folio;
				return UFFD_BRING_IN;
			}
		}
		/* Includes the barrier between contents and set_pte_at(). */
		__folio_mark_uptodate(folio);
		batch->folio[batch->nr] = folio;
		folio = NULL;
	}
	return 0;
}

/*
 * Makes the folios of a batch.  What stops it short counts only if nothing
 * stops the mapping of those before.
 */
static int uffd_anon_make(struct uffd_fill *fill, struct uffd_anon_batch *batch,
			  unsigned int nr, struct folio **waiting)
{
	struct uffd_anon_stock stock __uninitialized;	/* large; see ->nr */
	int ret;

	stock.next = 0;
	stock.nr = 0;
	ret = uffd_anon_make_from(fill, batch, &stock, nr, waiting);
	uffd_anon_stock_free(&stock);
	return ret;
}

static void uffd_anon_map_one(struct uffd_fill *fill, struct folio *folio,
			      unsigned long addr, pte_t *pte)
{
	struct vm_area_struct *vma = fill->vma;
	pte_t entry = pte_mkdirty(folio_mk_pte(folio, vma->vm_page_prot));

	if (vma->vm_flags & VM_WRITE)
		entry = pte_mkwrite(entry, vma);
	if (fill->req->wp)
		entry = pte_mkuffd(entry);
	folio_add_new_anon_rmap(folio, vma, addr, RMAP_EXCLUSIVE);
	folio_add_lru_vma(folio, vma);
	set_pte_at(vma->vm_mm, addr, pte, entry);
	update_mmu_cache(vma, addr, pte);	/* nothing there to flush */
}

/*
 * Maps a batch in one hold of the page-table lock.  The folios mapped are the
 * page table's and counted in fill->done; the rest stay the caller's.
 */
static int uffd_anon_map(struct uffd_fill *fill, struct uffd_anon_batch *batch,
			 pmd_t *pmd, unsigned int *mapped)
{
	struct mm_struct *mm = fill->req->mm;
	unsigned long addr = uffd_fill_dst(fill);
	pte_t *start, *pte;
	spinlock_t *ptl;
	int ret = 0;

	*mapped = 0;
	start = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!start)
		return UFFD_CHANGED;
	if (userfaultfd_gate_moved(&fill->gate)) {
		pte_unmap_unlock(start, ptl);
		return UFFD_CHANGED;
	}

	for (pte = start; *mapped < batch->nr;
	     ++*mapped, pte++, addr += PAGE_SIZE) {
		if (uffd_fill_beyond_file(fill, addr)) {
			ret = -EFAULT;
			break;
		}
		/* A write-protect marker stands for an empty entry. */
		if (!uffd_pte_free(ptep_get(pte))) {
			ret = -EEXIST;
			break;
		}
		uffd_anon_map_one(fill, batch->folio[*mapped], addr, pte);
	}
	if (*mapped)
		add_mm_counter(mm, MM_ANONPAGES, *mapped);
	pte_unmap_unlock(start, ptl);
	fill->done += *mapped * PAGE_SIZE;
	return ret;
}

/**
 * uffd_pte_copy_private() - span function: copy into new anonymous pages
 * @fill: the fill
 * @end: where to stop
 *
 * Return: see uffd_span_fn.
 */
int uffd_pte_copy_private(struct uffd_fill *fill, unsigned long end)
{
	/* What has been kept is mapped before anything else is tried. */
	unsigned int nr = fill->kept ? 1 : uffd_anon_span(fill, end);
	struct uffd_anon_batch batch __uninitialized;	/* large; see ->nr */
	struct folio *waiting = NULL;
	unsigned int mapped = 0;
	int made, ret;
	pmd_t *pmd;

	ret = uffd_fill_table(fill, &pmd);
	if (ret)
		return ret;
	made = uffd_anon_make(fill, &batch, nr, &waiting);
	if (batch.nr)
		ret = uffd_anon_map(fill, &batch, pmd, &mapped);
	if (!ret && waiting)
		return uffd_fill_keep(fill, waiting, false);

	if (waiting)
		folio_put(waiting);
	/* Nothing was mapped: save at least what may have been hard to get. */
	if (ret == UFFD_CHANGED)
		uffd_fill_keep(fill, batch.folio[mapped++], true);
	while (mapped < batch.nr)
		folio_put(batch.folio[mapped++]);
	return ret ? ret : made;
}

static int uffd_anon_copy(struct uffd_fill *fill, unsigned long end)
{
	int ret = UFFD_SMALL;

	/* Most calls are for a single page, and need not ask. */
	if (end - uffd_fill_dst(fill) > PAGE_SIZE || fill->kept)
		ret = uffd_large_copy(fill, end);
	return ret == UFFD_SMALL ? uffd_pte_copy_private(fill, end) : ret;
}

/* Where the zero page must not be mapped, zeroed pages are. */
static int uffd_anon_zeroed(struct uffd_fill *fill, unsigned long end)
{
	struct uffd_anon_batch batch = { .nr = 1 };
	unsigned int mapped;
	struct folio *folio;
	pmd_t *pmd;
	int ret;

	ret = uffd_fill_table(fill, &pmd);
	if (ret)
		return ret;
	folio = vma_alloc_zeroed_movable_folio(fill->vma, uffd_fill_dst(fill));
	if (!folio)
		return -ENOMEM;
	if (mem_cgroup_charge(folio, fill->req->mm, GFP_KERNEL)) {
		folio_put(folio);
		return -ENOMEM;
	}
	__folio_mark_uptodate(folio);
	batch.folio[0] = folio;
	ret = uffd_anon_map(fill, &batch, pmd, &mapped);
	if (!mapped)
		folio_put(folio);
	return ret;
}

/*
 * Sets entries that take no page, up to the end of the table.  Not even a marker
 * gives way to them.
 */
static int uffd_pte_set(struct uffd_fill *fill, unsigned long end,
			pte_t (*make)(struct vm_area_struct *vma,
				      unsigned long addr))
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);
	pte_t *start, *pte;
	spinlock_t *ptl;
	pmd_t *pmd;
	int ret;

	ret = uffd_fill_table(fill, &pmd);
	if (ret)
		return ret;
	start = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!start)
		return UFFD_CHANGED;
	if (userfaultfd_gate_moved(&fill->gate))
		ret = UFFD_CHANGED;

	end = pmd_addr_end(addr, end);
	for (pte = start; !ret && addr < end; pte++, addr += PAGE_SIZE) {
		if (uffd_fill_beyond_file(fill, addr)) {
			ret = -EFAULT;
		} else if (!pte_none(ptep_get(pte))) {
			ret = -EEXIST;
		} else {
			set_pte_at(vma->vm_mm, addr, pte, make(vma, addr));
			update_mmu_cache(vma, addr, pte);
			fill->done += PAGE_SIZE;
		}
	}
	pte_unmap_unlock(start, ptl);
	return ret;
}

static pte_t uffd_make_zero(struct vm_area_struct *vma, unsigned long addr)
{
	return pte_mkspecial(pfn_pte(zero_pfn(addr), vma->vm_page_prot));
}

/**
 * uffd_pte_zeropage() - span function: map the zero page
 * @fill: the fill
 * @end: where to stop
 *
 * Return: see uffd_span_fn.
 */
int uffd_pte_zeropage(struct uffd_fill *fill, unsigned long end)
{
	if (mm_forbids_zeropage(fill->vma->vm_mm))
		return uffd_anon_zeroed(fill, end);
	return uffd_pte_set(fill, end, uffd_make_zero);
}

static pte_t uffd_make_poison(struct vm_area_struct *vma, unsigned long addr)
{
	return make_pte_marker(PTE_MARKER_POISONED);
}

/**
 * uffd_pte_poison() - span function: let accesses raise SIGBUS
 * @fill: the fill
 * @end: where to stop
 *
 * Return: see uffd_span_fn.
 */
int uffd_pte_poison(struct uffd_fill *fill, unsigned long end)
{
	return uffd_pte_set(fill, end, uffd_make_poison);
}

const struct uffd_memory uffd_anon = {
	.span = {
		[UFFD_FILL_COPY]	= uffd_anon_copy,
		[UFFD_FILL_ZEROPAGE]	= uffd_pte_zeropage,
		[UFFD_FILL_POISON]	= uffd_pte_poison,
	},
};
