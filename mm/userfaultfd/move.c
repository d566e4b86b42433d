// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: UFFDIO_MOVE.
 *
 * How it works
 * ------------
 * Anonymous pages that belong to nobody else are taken from one place in the page
 * tables and put into another.  Nothing is copied, and no VMA changes.
 *
 * Small pages are moved a batch at a time.  Under both page-table locks, entries are
 * taken out of the source as long as they are alike enough to go together, each
 * folio locked with a trylock; only the first may be waited for.  Then the TLB is
 * flushed once for all of them, each folio is tested for a pin that GUP may have
 * taken before it could see the entry gone, and the destinations are set.  The
 * folios need no references: but for that moment the page tables hold them.
 *
 * What does not fit a batch is dealt with alone when it comes first: huge PMDs are
 * moved whole or split, large folios are split, swap entries are moved as they
 * are, migration is waited for.
 *
 * Source and destination may overlap.  A batch is never longer than their
 * distance, so it moves what page after page would have moved.
 *
 * Lock order: both VMAs' locks, a folio that is waited for, the source's anon_vma
 * where rmap walkers may hold that alone (see lts.h), both page-table locks.
 */

#include <linux/hugetlb.h>
#include <linux/leafops.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <asm/tlbflush.h>
#include "../internal.h"
#include "../swap.h"
#include "fill.h"

/* Small pages that go together; x86 flushes so many one by one, not the whole TLB. */
#define UFFD_MOVE_PAGES		32

/* Steps without progress: after so many, give up the locks and the CPU, ... */
#define UFFD_MOVE_PAUSE		8
/* ... and after so many, a folio that cannot be split never will be. */
#define UFFD_MOVE_PATIENCE	64

struct uffd_move {
	const struct uffd_move_request *req;
	struct uffd_gate gate;
	struct vm_area_struct *dst_vma;
	struct vm_area_struct *src_vma;	/* may be the same */
	unsigned long done;
	unsigned int idle;		/* steps since the last progress */
};

/* An entry that has been taken out of the source. */
struct uffd_move_entry {
	pte_t pte;		/* none: a hole that may be skipped */
	struct folio *folio;	/* locked; NULL: zero page */
};

struct uffd_move_batch {
	unsigned int nr;
	struct uffd_move_entry entry[UFFD_MOVE_PAGES];
};

/* Both sides of a span of small pages. */
struct uffd_move_tables {
	pte_t *dst;
	pte_t *src;
	spinlock_t *dst_ptl;
	spinlock_t *src_ptl;
	struct anon_vma *anon_vma;	/* locked, see uffd_lock_rmap() */
};

#ifndef uffd_lock_rmap
/* Whoever looks up where a folio is mapped has it locked, and so have we. */
static struct anon_vma *uffd_lock_rmap(struct vm_area_struct *vma)
{
	return NULL;
}

static bool uffd_rmap_is_locked(struct vm_area_struct *vma,
				struct anon_vma *locked)
{
	return true;
}

static void uffd_unlock_rmap(struct anon_vma *locked)
{
}
#endif

static unsigned long uffd_move_dst(const struct uffd_move *move)
{
	return move->req->dst + move->done;
}

static unsigned long uffd_move_src(const struct uffd_move *move)
{
	return move->req->src + move->done;
}

/*
 * Two locks that may be one.  No order will do for them: mremap() takes those of two
 * page tables in the order from old to new, and relies on mmap_lock being held for
 * writing.  That keeps nobody away who has locked other VMAs that the tables serve.
 * So wait for one only, and with none held.
 */
static void uffd_lock_both(spinlock_t *a, spinlock_t *b)
	__acquires(a)
	__acquires(b)
{
	spin_lock(a);
	while (a != b && !spin_trylock(b)) {
		spin_unlock(a);
		swap(a, b);
		spin_lock(a);
	}
}

static void uffd_unlock_both(spinlock_t *a, spinlock_t *b)
	__releases(a)
	__releases(b)
{
	spin_unlock(a);
	if (a != b)
		spin_unlock(b);
	else
		__release(b);
}

/*
 * Small pages
 */

static void uffd_unmap_tables(struct uffd_move_tables *t)
{
	uffd_unlock_both(t->dst_ptl, t->src_ptl);
	/* Last in, first out, as kmap_local wants it. */
	pte_unmap(t->src);
	pte_unmap(t->dst);
	uffd_unlock_rmap(t->anon_vma);
}

/*
 * Maps and locks both tables.  False if one of them has just gone: to be tried
 * again.
 */
static bool uffd_map_tables(struct uffd_move *move, pmd_t *dst_pmd,
			    pmd_t *src_pmd, struct uffd_move_tables *t)
{
	struct mm_struct *mm = move->req->mm;
	pmd_t dst_val, src_val;

	t->anon_vma = uffd_lock_rmap(move->src_vma);
	t->dst = pte_offset_map_rw_nolock(mm, dst_pmd, uffd_move_dst(move),
					  &dst_val, &t->dst_ptl);
	if (!t->dst)
		goto unlock;
	t->src = pte_offset_map_rw_nolock(mm, src_pmd, uffd_move_src(move),
					  &src_val, &t->src_ptl);
	if (!t->src) {
		pte_unmap(t->dst);
		goto unlock;
	}
	uffd_lock_both(t->dst_ptl, t->src_ptl);
	/* Empty ones may have been taken away before they were locked. */
	if (likely(pmd_same(dst_val, pmdp_get_lockless(dst_pmd)) &&
		   pmd_same(src_val, pmdp_get_lockless(src_pmd)) &&
		   uffd_rmap_is_locked(move->src_vma, t->anon_vma)))
		return true;
	uffd_unmap_tables(t);
	return false;
unlock:
	uffd_unlock_rmap(t->anon_vma);
	return false;
}

/* A page may move if this mapping is its only user. */
static bool uffd_may_move(struct folio *folio, struct page *page)
{
	return folio_test_anon(folio) && PageAnonExclusive(page) &&
	       !folio_maybe_dma_pinned(folio);
}

/*
 * Takes one entry out of the source, under the page-table locks.  @held is a folio
 * that has been locked already.
 */
static int uffd_move_take(struct uffd_move *move, struct uffd_move_entry *entry,
			  pte_t *dst, pte_t *src, unsigned long addr,
			  struct folio *held)
{
	pte_t pte = ptep_get(src);
	struct folio *folio = NULL;

	if (!pte_none(ptep_get(dst)))
		return -EEXIST;
	entry->pte = pte;
	if (pte_none(pte))
		return move->req->allow_holes ? 0 : -ENOENT;
	if (!pte_present(pte))
		return UFFD_SPECIAL;
	if (!is_zero_pfn(pte_pfn(pte))) {
		folio = vm_normal_folio(move->src_vma, addr, pte);
		if (!folio || !uffd_may_move(folio, pte_page(pte)))
			return -EBUSY;
		if (folio_test_large(folio))
			return UFFD_SPECIAL;
		if (folio != held && !folio_trylock(folio))
			return UFFD_SPECIAL;
	}
	entry->pte = ptep_get_and_clear(move->req->mm, addr, src);
	entry->folio = folio;
	return 0;
}

/* How many pages a batch may have. */
static unsigned int uffd_move_span(const struct uffd_move *move)
{
	unsigned long dst = uffd_move_dst(move), src = uffd_move_src(move);
	unsigned long left = move->req->len - move->done;
	unsigned long len;

	len = min(pmd_addr_end(dst, dst + left) - dst,
		  pmd_addr_end(src, src + left) - src);
	if (dst != src)
		len = min(len, dst > src ? dst - src : src - dst);
	return min_t(unsigned long, len >> PAGE_SHIFT, UFFD_MOVE_PAGES);
}

/* What is moved to where accesses are tracked has not been accessed there yet. */
static pte_t uffd_move_track(struct vm_area_struct *vma, pte_t pte)
{
	if (!userfaultfd_rwp(vma))
		return pte;
	return pte_mkuffd(pte_modify(pte, PAGE_NONE));
}

/* Puts what the source had into the destination; @folio is NULL for a zero page. */
static void uffd_move_set(struct vm_area_struct *vma, unsigned long addr,
			  pte_t *dst, pte_t old, struct folio *folio)
{
	pte_t pte;

	if (folio) {
		folio_move_anon_rmap(folio, vma);
		folio->index = linear_anon_page_index(vma, addr);
		pte = folio_mk_pte(folio, vma->vm_page_prot);
		/* As after mremap(): who watches sees that it has changed. */
		pte = pte_mksoft_dirty(pte);
		if (pte_dirty(old))
			pte = pte_mkdirty(pte);
		pte = pte_mkwrite(pte, vma);
	} else {
		pte = pte_mkspecial(pfn_pte(zero_pfn(addr),
					    vma->vm_page_prot));
		/* KSM's mark, by which it counts its own. */
		if (pte_dirty(old))
			pte = pte_mkdirty(pte);
	}
	set_pte_at(vma->vm_mm, addr, dst, uffd_move_track(vma, pte));
}

/* Nobody reaches any longer what has been taken, but for who has a pin. */
static void uffd_move_flush(struct uffd_move *move,
			    const struct uffd_move_batch *batch)
{
	unsigned long src = uffd_move_src(move);
	unsigned int from = 0, to = batch->nr;

	while (from < to && pte_none(batch->entry[from].pte))
		from++;
	while (from < to && pte_none(batch->entry[to - 1].pte))
		to--;
	if (from == to)
		return;
	flush_tlb_range(move->src_vma, src + from * PAGE_SIZE,
			src + to * PAGE_SIZE);
	/*
	 * Paired with GUP-fast, which takes its pin before it looks at the entry
	 * once more: either it finds the entry gone or we find the pin.
	 */
	smp_mb();
}

/*
 * Puts entries into the destination up to the first page that is pinned, and that
 * and the rest back to where they were.  Returns how many have moved.
 */
static unsigned int uffd_move_put(struct uffd_move *move,
				  struct uffd_move_batch *batch,
				  struct uffd_move_tables *t, struct folio *held)
{
	unsigned long dst = uffd_move_dst(move), src = uffd_move_src(move);
	unsigned int i, nr = batch->nr, moved = nr;

	for (i = 0; i < nr; i++) {
		struct folio *folio = batch->entry[i].folio;
		pte_t pte = batch->entry[i].pte;

		if (pte_none(pte))
			continue;
		if (moved > i && folio && folio_maybe_dma_pinned(folio))
			moved = i;
		if (moved > i)
			uffd_move_set(move->dst_vma, dst + i * PAGE_SIZE,
				      t->dst + i, pte, folio);
		else
			set_pte_at(move->req->mm, src + i * PAGE_SIZE,
				   t->src + i, pte);
		if (folio && folio != held)
			folio_unlock(folio);
	}
	return moved;
}

/*
 * Moves what goes together, under all locks.  UFFD_SPECIAL: nothing does, and
 * entry[0] has what is in the way.
 */
static int uffd_move_batch(struct uffd_move *move,
			   struct uffd_move_batch *batch,
			   struct uffd_move_tables *t, struct folio *held)
{
	unsigned int max = uffd_move_span(move), moved;
	unsigned long src = uffd_move_src(move);
	int ret = 0;

	if (userfaultfd_gate_moved(&move->gate))
		return UFFD_CHANGED;
	for (batch->nr = 0; batch->nr < max; batch->nr++) {
		unsigned int i = batch->nr;

		ret = uffd_move_take(move, &batch->entry[i], t->dst + i,
				     t->src + i, src + i * PAGE_SIZE, held);
		if (ret)
			break;
	}
	if (!batch->nr)
		return ret;
	uffd_move_flush(move, batch);
	moved = uffd_move_put(move, batch, t, held);
	move->done += moved * PAGE_SIZE;
	return moved < batch->nr ? -EBUSY : 0;
}

/*
 * Entries that need a way of their own
 */

/* Under the page-table locks, and the lock of the swap cache's folio, if any. */
static int uffd_move_swap_locked(struct uffd_move *move, pte_t pte,
				 struct folio *folio,
				 struct uffd_move_tables *t)
{
	unsigned long dst = uffd_move_dst(move), src = uffd_move_src(move);
	softleaf_t entry = softleaf_from_pte(pte);
	struct mm_struct *mm = move->req->mm;

	if (userfaultfd_gate_moved(&move->gate))
		return UFFD_CHANGED;
	if (!pte_same(ptep_get(t->src), pte) || !pte_none(ptep_get(t->dst)))
		return 0;
	if (folio) {
		/* It may have been dropped from the cache, and reused. */
		if (!folio_test_swapcache(folio) ||
		    folio->swap.val != entry.val)
			return 0;
		folio_move_anon_rmap(folio, move->dst_vma);
		folio->index = linear_anon_page_index(move->dst_vma, dst);
	} else if (swap_cache_has_folio(entry)) {
		/* One has come meanwhile, and would keep the old index. */
		return 0;
	}
	/* Whoever swapped it out may not have flushed yet: no write may follow. */
	flush_tlb_batched_pending(mm);
	pte = pte_swp_mksoft_dirty(ptep_get_and_clear(mm, src, t->src));
	/* Like a present page, it leaves its protection behind. */
	pte = pte_swp_clear_uffd(pte);
	if (userfaultfd_rwp(move->dst_vma))
		pte = pte_swp_mkuffd(pte);
	set_pte_at(mm, dst, t->dst, pte);
	move->done += PAGE_SIZE;
	return 0;
}

static int uffd_move_swap(struct uffd_move *move, pmd_t *dst_pmd,
			  pmd_t *src_pmd, pte_t pte)
{
	softleaf_t entry = softleaf_from_pte(pte);
	struct swap_info_struct *si;
	struct uffd_move_tables t;
	struct folio *folio;
	int ret = 0;

	if (!pte_swp_exclusive(pte))
		return -EBUSY;
	si = get_swap_device(entry);
	if (!si)
		return 0;
	folio = swap_cache_get_folio(entry);
	if (folio && folio_test_large(folio)) {
		/* Unmapped in the swap cache, it cannot be split. */
		folio_put(folio);
		ret = -EBUSY;
		goto put_device;
	}
	if (folio)
		folio_lock(folio);
	if (uffd_map_tables(move, dst_pmd, src_pmd, &t)) {
		ret = uffd_move_swap_locked(move, pte, folio, &t);
		uffd_unmap_tables(&t);
	}
	if (folio) {
		folio_unlock(folio);
		folio_put(folio);
	}
put_device:
	put_swap_device(si);
	return ret;
}

/*
 * A present page that could not be taken: its folio is large, or somebody has it
 * locked.  Called with the page-table locks held, and drops them.
 */
static int uffd_move_page(struct uffd_move *move, pte_t pte,
			  struct uffd_move_tables *t, struct folio **held)
{
	struct folio *folio;
	bool locked;
	int ret;

	folio = vm_normal_folio(move->src_vma, uffd_move_src(move), pte);
	locked = folio_trylock(folio);
	/*
	 * No waiting for a large one: our reference would keep whoever has it
	 * locked from splitting it, and that might be another move.
	 */
	if (!locked && folio_test_large(folio)) {
		uffd_unmap_tables(t);
		return 0;
	}
	folio_get(folio);
	uffd_unmap_tables(t);
	if (!locked)
		folio_lock(folio);
	if (!folio_test_large(folio)) {
		*held = folio;
		return 0;
	}
	ret = split_folio(folio);
	folio_unlock(folio);
	folio_put(folio);
	/* Others have references, for a moment or for as long as they like. */
	if (ret == -EAGAIN)
		ret = move->idle < UFFD_MOVE_PATIENCE ? 0 : -EBUSY;
	return ret;
}

/* The first entry is special.  Called with the locks held, and drops them. */
static int uffd_move_special(struct uffd_move *move, pmd_t *dst_pmd,
			     pmd_t *src_pmd, pte_t pte,
			     struct uffd_move_tables *t, struct folio **held)
{
	softleaf_t entry;

	if (pte_present(pte))
		return uffd_move_page(move, pte, t, held);
	uffd_unmap_tables(t);
	entry = softleaf_from_pte(pte);
	if (softleaf_is_swap(entry))
		return uffd_move_swap(move, dst_pmd, src_pmd, pte);
	if (!softleaf_is_migration(entry))
		return -EFAULT;
	migration_entry_wait(move->req->mm, src_pmd, uffd_move_src(move));
	return 0;
}

/*
 * @held: a folio whose lock had to be waited for, with a reference; NULL before, and
 * may be set then, which means: once more.
 */
static int uffd_move_try(struct uffd_move *move, pmd_t *dst_pmd,
			 pmd_t *src_pmd, struct folio **held)
{
	struct uffd_move_batch batch __uninitialized;	/* large; see ->nr */
	struct uffd_move_tables t __uninitialized;
	int ret;

	if (!uffd_map_tables(move, dst_pmd, src_pmd, &t))
		return 0;
	ret = uffd_move_batch(move, &batch, &t, *held);
	if (ret == UFFD_SPECIAL && !*held)
		return uffd_move_special(move, dst_pmd, src_pmd,
					 batch.entry[0].pte, &t, held);
	uffd_unmap_tables(&t);
	/* Another page has come there.  No waiting for it with this one locked. */
	return ret == UFFD_SPECIAL ? 0 : ret;
}

static int uffd_move_ptes(struct uffd_move *move, pmd_t *dst_pmd,
			  pmd_t *src_pmd)
{
	struct folio *held = NULL;
	int ret;

	ret = uffd_move_try(move, dst_pmd, src_pmd, &held);
	if (!held)
		return ret;
	ret = uffd_move_try(move, dst_pmd, src_pmd, &held);
	folio_unlock(held);
	folio_put(held);
	return ret;
}

/* Other users of the page tables are told of a batch before any lock is taken. */
static int uffd_move_small(struct uffd_move *move, pmd_t *dst_pmd,
			   pmd_t *src_pmd)
{
	unsigned long src = uffd_move_src(move);
	unsigned long end = src + uffd_move_span(move) * PAGE_SIZE;
	struct mmu_notifier_range range;
	int ret;

	flush_cache_range(move->src_vma, src, end);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, move->req->mm,
				src, end);
	mmu_notifier_invalidate_range_start(&range);
	ret = uffd_move_ptes(move, dst_pmd, src_pmd);
	mmu_notifier_invalidate_range_end(&range);
	return ret;
}

/*
 * Huge pages
 */

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
/* Under both page-table locks, the folio's and, where there is one, the rmap's. */
static int uffd_move_pmd_locked(struct uffd_move *move, pmd_t *dst_pmd,
				pmd_t *src_pmd, pmd_t pmd, struct folio *folio)
{
	unsigned long dst = uffd_move_dst(move), src = uffd_move_src(move);
	struct vm_area_struct *vma = move->dst_vma;
	struct mm_struct *mm = move->req->mm;
	pmd_t val;

	if (userfaultfd_gate_moved(&move->gate))
		return UFFD_CHANGED;
	if (!pmd_same(*src_pmd, pmd) || !pmd_none(*dst_pmd))
		return 0;
	if (folio && !uffd_may_move(folio, &folio->page))
		return -EBUSY;
	pmd = pmdp_huge_clear_flush(move->src_vma, src, src_pmd);
	smp_mb();	/* with GUP-fast, as in uffd_move_flush() */
	if (folio && folio_maybe_dma_pinned(folio)) {
		set_pmd_at(mm, src, src_pmd, pmd);
		return -EBUSY;
	}
	if (folio) {
		folio_move_anon_rmap(folio, vma);
		folio->index = linear_anon_page_index(vma, dst);
		val = folio_mk_pmd(folio, vma->vm_page_prot);
		/* As after mremap(). */
		val = pmd_mkwrite(pmd_mkdirty(val), vma);
	} else {
		/* The huge zero page's entry is marked as one. */
		val = pmd_clear_uffd(pmd_modify(pmd, vma->vm_page_prot));
		val = pmd_mksoft_dirty(val);
	}
	if (userfaultfd_rwp(vma))
		val = pmd_mkuffd(pmd_modify(val, PAGE_NONE));
	set_pmd_at(mm, dst, dst_pmd, val);
	pgtable_trans_huge_deposit(mm, dst_pmd,
				   pgtable_trans_huge_withdraw(mm, src_pmd));
	move->done += HPAGE_PMD_SIZE;
	return 0;
}

/* With a reference to the folio, or NULL for the huge zero page; consumes it. */
static int uffd_move_whole_pmd(struct uffd_move *move, pmd_t *dst_pmd,
			       pmd_t *src_pmd, pmd_t pmd, struct folio *folio)
{
	unsigned long src = uffd_move_src(move);
	struct mm_struct *mm = move->req->mm;
	struct mmu_notifier_range range;
	spinlock_t *dst_ptl, *src_ptl;
	struct anon_vma *anon_vma;
	int ret;

	flush_cache_range(move->src_vma, src, src + HPAGE_PMD_SIZE);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, src,
				src + HPAGE_PMD_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	if (folio)
		folio_lock(folio);
	anon_vma = uffd_lock_rmap(move->src_vma);
	dst_ptl = pmd_lockptr(mm, dst_pmd);
	src_ptl = pmd_lockptr(mm, src_pmd);
	uffd_lock_both(dst_ptl, src_ptl);
	ret = uffd_move_pmd_locked(move, dst_pmd, src_pmd, pmd, folio);
	uffd_unlock_both(dst_ptl, src_ptl);
	uffd_unlock_rmap(anon_vma);
	if (folio)
		folio_unlock(folio);
	mmu_notifier_invalidate_range_end(&range);
	if (folio)
		folio_put(folio);
	return ret;
}

static bool uffd_fits_pmd(const struct uffd_move *move, pmd_t *dst_pmd)
{
	return IS_ALIGNED(uffd_move_dst(move) | uffd_move_src(move),
			  HPAGE_PMD_SIZE) &&
	       move->req->len - move->done >= HPAGE_PMD_SIZE &&
	       pmd_none(pmdp_get_lockless(dst_pmd));
}

/* The source is a huge PMD, or the entry of one.  Drops its lock, @ptl. */
static int uffd_move_pmd(struct uffd_move *move, pmd_t *dst_pmd,
			 pmd_t *src_pmd, spinlock_t *ptl)
	__releases(ptl)
{
	struct folio *folio = NULL;
	pmd_t pmd = *src_pmd;

	if (pmd_present(pmd) && !is_huge_zero_pmd(pmd)) {
		folio = pmd_folio(pmd);
		if (!PageAnonExclusive(&folio->page)) {
			spin_unlock(ptl);
			return -EBUSY;
		}
	}
	if (!uffd_fits_pmd(move, dst_pmd)) {
		spin_unlock(ptl);
		/* The folio is split when its pages are moved. */
		split_huge_pmd(move->src_vma, src_pmd, uffd_move_src(move));
		return 0;
	}
	if (!pmd_trans_huge(pmd)) {
		spin_unlock(ptl);
		if (!pmd_is_migration_entry(pmd))
			return -ENOENT;
		pmd_migration_entry_wait(move->req->mm, src_pmd);
		return 0;
	}
	if (folio)
		folio_get(folio);
	spin_unlock(ptl);
	return uffd_move_whole_pmd(move, dst_pmd, src_pmd, pmd, folio);
}
#else
static int uffd_move_pmd(struct uffd_move *move, pmd_t *dst_pmd,
			 pmd_t *src_pmd, spinlock_t *ptl)
{
	spin_unlock(ptl);	/* there are none */
	return -ENOENT;
}
#endif /* CONFIG_TRANSPARENT_HUGEPAGE */

/*
 * The move
 */

/* Moves what comes next.  0 without progress: to be tried again. */
static int uffd_move_step(struct uffd_move *move)
{
	struct mm_struct *mm = move->req->mm;
	unsigned long src = uffd_move_src(move);
	pmd_t *dst_pmd, *src_pmd, pmdval;
	spinlock_t *ptl;

	src_pmd = mm_find_pmd(mm, src);
	if (!src_pmd) {
		if (!move->req->allow_holes)
			return -ENOENT;
		src_pmd = uffd_alloc_pmd(mm, src);
		if (!src_pmd)
			return -ENOMEM;
	}
	dst_pmd = uffd_alloc_pmd(mm, uffd_move_dst(move));
	if (!dst_pmd)
		return -ENOMEM;
	pmdval = pmdp_get_lockless(dst_pmd);
	if (!pmd_none(pmdval) && (!pmd_present(pmdval) || pmd_leaf(pmdval)))
		return -EEXIST;

	ptl = pmd_trans_huge_lock(src_pmd, move->src_vma);
	if (ptl)
		return uffd_move_pmd(move, dst_pmd, src_pmd, ptl);
	if (pmd_none(pmdp_get_lockless(src_pmd))) {
		if (!move->req->allow_holes)
			return -ENOENT;
		if (pte_alloc(mm, src_pmd))
			return -ENOMEM;
	}
	if (pte_alloc(mm, dst_pmd))
		return -ENOMEM;
	return uffd_move_small(move, dst_pmd, src_pmd);
}

static bool uffd_movable(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma) &&
	       !(vma->vm_flags & (VM_SHARED | VM_PFNMAP | VM_IO | VM_HUGETLB |
				  VM_MIXEDMAP | VM_SHADOW_STACK));
}

/* With both VMAs locked. */
static int uffd_move_check(const struct uffd_move *move)
{
	struct vm_area_struct *dst = move->dst_vma, *src = move->src_vma;
	const struct uffd_move_request *req = move->req;
	const unsigned long alike = VM_ACCESS_FLAGS | VM_LOCKED;

	if (req->len > dst->vm_end - req->dst ||
	    req->len > src->vm_end - req->src)
		return -EINVAL;
	if (!uffd_movable(dst) || !uffd_movable(src))
		return -EINVAL;
	/* Pages keep their protection, and pages of mlock() their place. */
	if (((dst->vm_flags ^ src->vm_flags) & alike) ||
	    pgprot_val(dst->vm_page_prot) != pgprot_val(src->vm_page_prot))
		return -EINVAL;
	if (!(src->vm_flags & VM_WRITE))
		return -EINVAL;
	/* Nobody but the handler of the destination moves pages there. */
	return dst->vm_userfaultfd_ctx.ctx == req->ctx ? 0 : -EINVAL;
}

/* All steps that one hold of the VMAs' locks will do. */
static int uffd_move_steps(struct uffd_move *move)
{
	unsigned long len = uffd_call_len(move->req->len);
	int ret = 0;

	while (!ret && move->done < len) {
		unsigned long before = move->done;

		ret = uffd_move_step(move);
		cond_resched();
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		move->idle = move->done == before ? move->idle + 1 : 0;
		if (!ret && move->idle && !(move->idle % UFFD_MOVE_PAUSE))
			ret = UFFD_CHANGED;
	}
	return ret;
}

static int uffd_move_once(struct uffd_move *move)
{
	const struct uffd_move_request *req = move->req;
	int ret;

	ret = uffd_enter(&move->gate, req->cursor);
	if (ret)
		return ret;
	ret = uffd_lock_vmas(req->mm, req->dst, req->src, &move->dst_vma,
			     &move->src_vma);
	if (!ret) {
		ret = uffd_move_check(move) ?: uffd_move_steps(move);
		uffd_unlock_vmas(move->dst_vma, move->src_vma);
	}
	if (ret < 0 && userfaultfd_gate_moved(&move->gate))
		ret = UFFD_CHANGED;
	return ret;
}

/**
 * userfaultfd_move() - move pages to where they are missing
 * @req: which and where
 *
 * Context: process context, no locks held; the mm is current's.  Sleeps.
 *
 * Return: bytes moved, from the start of the range, if any; else
 *  -EAGAIN	an event that the caller has not read concerns one of the ranges
 *  -ENOENT	the source has a hole, or nothing is mapped at one of the places
 *  -EINVAL	the ranges are not each within one VMA, of anonymous writable
 *		memory, alike, the destination registered with the context
 *  -EEXIST	a page is at the destination already
 *  -EBUSY	a page is shared or pinned, or part of a huge page that others keep
 *		from being split
 *  -EFAULT	a page is poisoned, or otherwise not one
 *  -ENOMEM	no memory for page tables
 *  -EINTR	killed
 */
ssize_t userfaultfd_move(const struct uffd_move_request *req)
{
	struct uffd_move move __uninitialized;	/* the VMAs are set with their locks */
	int ret;

	move.req = req;
	move.done = 0;
	move.idle = 0;
	userfaultfd_gate_init(&move.gate, req->ctx, req->dst, req->len,
			      req->nowait);
	move.gate.range[1].start = req->src;
	move.gate.range[1].end = req->src + req->len;
	do {
		ret = uffd_move_once(&move);
		/* What is in the way needs the VMAs, or the CPU, to go away. */
		if (ret > 0 && move.idle >= UFFD_MOVE_PAUSE) {
			if (req->cursor)
				uffd_cursor_rest(req->cursor);
			schedule_timeout_killable(1);
		}
		if (ret > 0 && fatal_signal_pending(current))
			ret = -EINTR;
	} while (ret > 0);
	return move.done ? move.done : ret;
}
