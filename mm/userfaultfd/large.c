// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: filling anonymous memory with large folios.
 *
 * How it works
 * ------------
 * A copy gets a large folio where a fault in ordinary memory would get one: the
 * system's policy, the VMA and the alignment allow it, all the entries are empty,
 * and there is memory that may be charged.  Unlike a fault it never gets one
 * that is larger than what is left of the caller's range.  The largest such folio
 * is taken.  One of PMD size goes into an empty PMD, with a page table deposited
 * for the day when it is split; a smaller one into consecutive PTEs.
 *
 * Whatever stands in the way of a large folio is left to small ones to meet again:
 * an entry that is taken, a source that ends, a limit that is reached.  They come
 * as far as they can and say why they stopped.  So progress and errors do not
 * depend on the policy.
 */

#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pgalloc.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/vmstat.h>
#include "../internal.h"
#include "fill.h"

/*
 * A source that is partly what the same call brings is copied page by page, as
 * each page has to be there before the next one can be read.
 */
static bool uffd_source_overlaps(const struct uffd_fill *fill)
{
	const struct uffd_fill_request *req = fill->req;

	return req->mm == current->mm && req->src < req->dst + req->len &&
	       req->dst < req->src + req->len;
}

/* Orders that fit between the next address and @end, and that policy allows. */
static unsigned long uffd_large_orders(const struct uffd_fill *fill,
				       unsigned long end)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long dst = uffd_fill_dst(fill);
	unsigned long orders;

	/* A private mapping of /dev/zero is anonymous, and ends with its file. */
	if (dst < fill->small_end || vma->vm_file || uffd_source_overlaps(fill))
		return 0;
	/* What fits ends where the range does; what is aligned, here. */
	orders = BIT(ilog2((end - dst) >> PAGE_SHIFT) + 1) - 1;
	if (dst)
		orders &= BIT(__ffs(dst >> PAGE_SHIFT) + 1) - 1;
	orders &= THP_ORDERS_ALL_ANON;
	if (!orders)
		return 0;
	return thp_vma_allowable_orders(vma, vma->vm_flags, TVA_PAGEFAULT,
					orders);
}

static bool uffd_ptes_none(pte_t *pte, unsigned int nr)
{
	while (nr--)
		if (!pte_none(ptep_get_lockless(pte++)))
			return false;
	return true;
}

/* Of these orders, those over empty entries.  The answer may not last. */
static unsigned long uffd_large_room(const struct uffd_fill *fill, pmd_t *pmd,
				     unsigned long orders)
{
	pmd_t val = pmdp_get_lockless(pmd);
	int order;
	pte_t *pte;

	if (pmd_none(val))
		return orders;
	orders &= ~BIT(HPAGE_PMD_ORDER);
	if (!orders || !pmd_present(val) || pmd_leaf(val))
		return 0;
	pte = pte_offset_map(pmd, uffd_fill_dst(fill));
	if (!pte)
		return 0;
	for (order = highest_order(orders); orders;
	     order = next_order(&orders, order))
		if (uffd_ptes_none(pte, 1U << order))
			break;
	pte_unmap(pte);
	return orders;
}

static void uffd_large_count_failure(int order, bool charge)
{
	count_mthp_stat(order, MTHP_STAT_ANON_FAULT_FALLBACK);
	if (charge)
		count_mthp_stat(order, MTHP_STAT_ANON_FAULT_FALLBACK_CHARGE);
	if (order != HPAGE_PMD_ORDER)
		return;
	count_vm_event(THP_FAULT_FALLBACK);
	if (charge)
		count_vm_event(THP_FAULT_FALLBACK_CHARGE);
}

static struct folio *uffd_large_alloc_order(struct uffd_fill *fill, int order)
{
	struct vm_area_struct *vma = fill->vma;
	gfp_t gfp = vma_thp_gfp_mask(vma);
	struct folio *folio;
	bool charged;

	folio = vma_alloc_folio(gfp, order, vma, uffd_fill_dst(fill));
	if (!folio) {
		uffd_large_count_failure(order, false);
		return NULL;
	}
	charged = !mem_cgroup_charge(folio, vma->vm_mm, gfp);
	/* Its memcg needs the list that it may be put on, when only some of it is in use. */
	if (!charged || folio_memcg_alloc_deferred(folio)) {
		uffd_large_count_failure(order, !charged);
		folio_put(folio);
		return NULL;
	}
	folio_throttle_swaprate(folio, gfp);
	return folio;
}

static struct folio *uffd_large_alloc(struct uffd_fill *fill,
				      unsigned long orders)
{
	struct folio *folio;
	int order;

	for (order = highest_order(orders); orders;
	     order = next_order(&orders, order)) {
		folio = uffd_large_alloc_order(fill, order);
		if (folio)
			return folio;
	}
	return NULL;
}

static void uffd_large_set_pmd(struct uffd_fill *fill, struct folio *folio,
			       pmd_t *pmd)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);
	pmd_t entry = pmd_mkdirty(folio_mk_pmd(folio, vma->vm_page_prot));

	if (vma->vm_flags & VM_WRITE)
		entry = pmd_mkwrite(entry, vma);
	if (fill->req->wp)
		entry = pmd_mkuffd(entry);
	folio_add_new_anon_rmap(folio, vma, addr, RMAP_EXCLUSIVE);
	folio_add_lru_vma(folio, vma);
	set_pmd_at(vma->vm_mm, addr, pmd, entry);
	update_mmu_cache_pmd(vma, addr, pmd);
	add_mm_counter(vma->vm_mm, MM_ANONPAGES, HPAGE_PMD_NR);
	mm_inc_nr_ptes(vma->vm_mm);
	deferred_split_folio(folio, false);
}

/* Maps a folio of PMD size.  On success it is the page table's. */
static int uffd_large_map_pmd(struct uffd_fill *fill, struct folio *folio,
			      pmd_t *pmd)
{
	struct mm_struct *mm = fill->req->mm;
	pgtable_t table = pte_alloc_one(mm);
	spinlock_t *ptl;
	int ret = 0;

	if (!table)
		return UFFD_SMALL;
	ptl = pmd_lock(mm, pmd);
	/* Paired with userfaultfd_settle(): the table may be as new as that. */
	smp_mb__after_spinlock();
	if (userfaultfd_gate_moved(&fill->gate)) {
		ret = UFFD_CHANGED;
	} else if (!pmd_none(*pmd)) {
		ret = UFFD_SMALL;
	} else {
		pgtable_trans_huge_deposit(mm, pmd, table);
		uffd_large_set_pmd(fill, folio, pmd);
	}
	spin_unlock(ptl);
	if (ret) {
		pte_free(mm, table);
		return ret;
	}
	count_vm_event(THP_FAULT_ALLOC);
	count_memcg_event_mm(mm, THP_FAULT_ALLOC);
	return 0;
}

static void uffd_large_set_ptes(struct uffd_fill *fill, struct folio *folio,
				pte_t *pte)
{
	struct vm_area_struct *vma = fill->vma;
	unsigned long addr = uffd_fill_dst(fill);
	pte_t entry = pte_mkdirty(folio_mk_pte(folio, vma->vm_page_prot));
	unsigned int nr = folio_nr_pages(folio);

	if (vma->vm_flags & VM_WRITE)
		entry = pte_mkwrite(entry, vma);
	if (fill->req->wp)
		entry = pte_mkuffd(entry);
	folio_ref_add(folio, nr - 1);
	folio_add_new_anon_rmap(folio, vma, addr, RMAP_EXCLUSIVE);
	folio_add_lru_vma(folio, vma);
	set_ptes(vma->vm_mm, addr, pte, entry, nr);
	update_mmu_cache_range(NULL, vma, addr, pte, nr);
	add_mm_counter(vma->vm_mm, MM_ANONPAGES, nr);
}

/* Maps a smaller folio.  On success it is the page table's. */
static int uffd_large_map_ptes(struct uffd_fill *fill, struct folio *folio,
			       pmd_t *pmd)
{
	struct mm_struct *mm = fill->req->mm;
	spinlock_t *ptl;
	pte_t *pte;
	int ret = 0;

	if (pte_alloc(mm, pmd))
		return UFFD_SMALL;
	pte = pte_offset_map_lock(mm, pmd, uffd_fill_dst(fill), &ptl);
	if (!pte)
		return UFFD_CHANGED;
	if (userfaultfd_gate_moved(&fill->gate))
		ret = UFFD_CHANGED;
	else if (!uffd_ptes_none(pte, folio_nr_pages(folio)))
		ret = UFFD_SMALL;
	else
		uffd_large_set_ptes(fill, folio, pte);
	pte_unmap_unlock(pte, ptl);
	return ret;
}

static int uffd_large_map(struct uffd_fill *fill, struct folio *folio,
			  pmd_t *pmd)
{
	int order = folio_order(folio);
	int ret;

	/* Includes the barrier between contents and entry. */
	__folio_mark_uptodate(folio);
	ret = order == HPAGE_PMD_ORDER ? uffd_large_map_pmd(fill, folio, pmd) :
					 uffd_large_map_ptes(fill, folio, pmd);
	if (!ret) {
		count_mthp_stat(order, MTHP_STAT_ANON_FAULT_ALLOC);
		fill->done += PAGE_SIZE << order;
	} else if (ret == UFFD_CHANGED) {
		uffd_fill_keep(fill, folio, true);
	} else {
		uffd_fill_go_small(fill, folio);
	}
	return ret;
}

/**
 * uffd_large_copy() - copy into one large folio, if one will do
 * @fill: the fill, of an anonymous VMA
 * @end: where to stop
 *
 * Return: as a span function, or UFFD_SMALL: nothing was done, and no large folio
 * is kept.
 */
int uffd_large_copy(struct uffd_fill *fill, unsigned long end)
{
	struct folio *folio = fill->kept;
	unsigned long orders;
	pmd_t *pmd = NULL;

	/* A small folio that has been kept is to be used. */
	if (folio && !folio_test_large(folio))
		return UFFD_SMALL;

	orders = uffd_large_orders(fill, end);
	if (orders) {
		pmd = uffd_alloc_pmd(fill->req->mm, uffd_fill_dst(fill));
		if (!pmd)
			return -ENOMEM;
		orders = uffd_large_room(fill, pmd, orders);
	}
	if (folio) {
		/* It slept: what was allowed then need not be now. */
		folio = uffd_fill_take_kept(fill);
		if (orders & BIT(folio_order(folio)))
			return uffd_large_map(fill, folio, pmd);
		folio_put(folio);
	}
	if (!orders)
		return UFFD_SMALL;
	folio = uffd_large_alloc(fill, orders);
	if (!folio)
		return UFFD_SMALL;
	if (!uffd_fill_read(fill, folio, uffd_fill_src(fill)))
		return uffd_fill_keep(fill, folio, false);
	return uffd_large_map(fill, folio, pmd);
}
