// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: resolving faults.
 *
 * How it works
 * ------------
 * A fill finds and locks the VMA, and works through the range in spans: what
 * one page-table lock can serve.  How a span is filled depends on the type of
 * memory (anon.c, file.c, hugetlb.c in mm/userfaultfd/).
 *
 * Nothing sleeps on the caller's memory while the VMA is locked: the source of
 * a copy may be registered too, in this process or another, and whoever is to
 * bring it in may be waiting for the very lock.  So sources are copied with
 * page faults disabled.  If that fails, the new folio is kept, the locks are
 * dropped, the source is copied with faults allowed, and the fill starts over
 * from the gate: the VMA may have gone, changed its type, or moved.  Since the
 * folio is kept with its contents, a source that is evicted again and again
 * cannot make the fill run for ever; only events can make it go back.
 */

#include <linux/file.h>
#include <linux/hugetlb.h>
#include <linux/leafops.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/pagewalk.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>
#include "internal.h"
#include "userfaultfd/fill.h"

/*
 * Finding and locking the VMA
 */

/* Private memory may be about to get anonymous pages. */
static bool uffd_needs_anon_vma(const struct vm_area_struct *vma)
{
	return !(vma->vm_flags & VM_SHARED) && !vma->anon_vma;
}

/* With mmap_lock held for reading, which anon_vma_prepare() needs. */
static struct vm_area_struct *uffd_find_vma(struct mm_struct *mm,
					    unsigned long addr)
{
	struct vm_area_struct *vma = vma_lookup(mm, addr);

	if (!vma)
		return ERR_PTR(-ENOENT);
	if (uffd_needs_anon_vma(vma) && anon_vma_prepare(vma))
		return ERR_PTR(-ENOMEM);
	return vma;
}

/* Two VMAs that may be one; only the first is about to get new pages. */
static int uffd_find_vmas(struct mm_struct *mm, unsigned long dst,
			  unsigned long src, struct vm_area_struct **dst_vma,
			  struct vm_area_struct **src_vma)
{
	*dst_vma = uffd_find_vma(mm, dst);
	if (IS_ERR(*dst_vma))
		return PTR_ERR(*dst_vma);
	*src_vma = vma_lookup(mm, src);
	return *src_vma ? 0 : -ENOENT;
}

#ifdef CONFIG_PER_VMA_LOCK
/*
 * With mmap_lock held for reading.  Not vma_start_read(), which may fail for no
 * reason.  mmap_lock keeps writers of the VMA's lock away: this does not wait, and
 * fails only as long as it has more readers than can be counted.
 */
static bool uffd_lock_found(struct vm_area_struct *vma, int subclass)
{
	return vma_start_read_locked_nested(vma, subclass);
}

/* Offers the CPU to those who hold it up.  Returns false if killed. */
static bool uffd_may_retry(void)
{
	cond_resched();
	return !fatal_signal_pending(current);
}

static struct vm_area_struct *uffd_lock_vma(struct mm_struct *mm,
					    unsigned long addr)
{
	struct vm_area_struct *vma;
	bool done;

	vma = lock_vma_under_rcu(mm, addr);
	if (vma && !uffd_needs_anon_vma(vma))
		return vma;
	if (vma)
		vma_end_read(vma);

	do {
		mmap_read_lock(mm);
		vma = uffd_find_vma(mm, addr);
		done = IS_ERR(vma) || uffd_lock_found(vma, 0);
		mmap_read_unlock(mm);
	} while (!done && uffd_may_retry());
	return done ? vma : ERR_PTR(-EINTR);
}

static void uffd_unlock_vma(struct vm_area_struct *vma)
{
	vma_end_read(vma);
}

/*
 * Locks two VMAs that may be one, with mmap_lock held for reading: all of them, or
 * none.
 */
static bool uffd_lock_found_both(struct vm_area_struct *dst_vma,
				 struct vm_area_struct *src_vma)
{
	if (!uffd_lock_found(dst_vma, 0))
		return false;
	if (src_vma == dst_vma ||
	    uffd_lock_found(src_vma, SINGLE_DEPTH_NESTING))
		return true;
	vma_end_read(dst_vma);
	return false;
}

/**
 * uffd_lock_vmas() - find and lock two VMAs, which may be one
 * @mm: their mm
 * @dst: an address in the one that is about to get pages
 * @src: an address in the other
 * @dst_vma: where to put the one
 * @src_vma: where to put the other
 *
 * Return: 0, -ENOENT, -ENOMEM, or -EINTR if killed.
 */
int uffd_lock_vmas(struct mm_struct *mm, unsigned long dst, unsigned long src,
		   struct vm_area_struct **dst_vma,
		   struct vm_area_struct **src_vma)
{
	bool done;
	int ret;

	*dst_vma = uffd_lock_vma(mm, dst);
	if (IS_ERR(*dst_vma))
		return PTR_ERR(*dst_vma);
	if (src >= (*dst_vma)->vm_start && src < (*dst_vma)->vm_end) {
		*src_vma = *dst_vma;
		return 0;
	}
	*src_vma = lock_vma_under_rcu(mm, src);
	if (*src_vma)
		return 0;

	/*
	 * Nobody may wait for mmap_lock with a VMA locked: a writer of mmap_lock
	 * may be waiting for that VMA.
	 */
	vma_end_read(*dst_vma);
	do {
		mmap_read_lock(mm);
		ret = uffd_find_vmas(mm, dst, src, dst_vma, src_vma);
		done = ret || uffd_lock_found_both(*dst_vma, *src_vma);
		mmap_read_unlock(mm);
	} while (!done && uffd_may_retry());
	return done ? ret : -EINTR;
}

/**
 * uffd_unlock_vmas() - undo uffd_lock_vmas()
 * @dst_vma: the one
 * @src_vma: the other
 */
void uffd_unlock_vmas(struct vm_area_struct *dst_vma,
		      struct vm_area_struct *src_vma)
{
	if (src_vma != dst_vma)
		vma_end_read(src_vma);
	vma_end_read(dst_vma);
}
#else
static struct vm_area_struct *uffd_lock_vma(struct mm_struct *mm,
					    unsigned long addr)
{
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = uffd_find_vma(mm, addr);
	if (IS_ERR(vma))
		mmap_read_unlock(mm);
	return vma;
}

static void uffd_unlock_vma(struct vm_area_struct *vma)
{
	mmap_read_unlock(vma->vm_mm);
}

int uffd_lock_vmas(struct mm_struct *mm, unsigned long dst, unsigned long src,
		   struct vm_area_struct **dst_vma,
		   struct vm_area_struct **src_vma)
{
	int ret;

	mmap_read_lock(mm);
	ret = uffd_find_vmas(mm, dst, src, dst_vma, src_vma);
	if (ret)
		mmap_read_unlock(mm);
	return ret;
}

void uffd_unlock_vmas(struct vm_area_struct *dst_vma,
		      struct vm_area_struct *src_vma)
{
	mmap_read_unlock(dst_vma->vm_mm);
}
#endif /* CONFIG_PER_VMA_LOCK */

/*
 * One call after the other
 */

/**
 * userfaultfd_cursor_release() - the next call, if any, is not like the last one
 * @cursor: of the calls
 */
void userfaultfd_cursor_release(struct uffd_cursor *cursor)
{
	if (cursor->vma)
		uffd_unlock_vma(cursor->vma);
	cursor->vma = NULL;
}

/**
 * uffd_cursor_rest() - a call is about to wait for somebody
 * @cursor: of the calls
 *
 * That must not be who waits for what the calls before have done.
 */
void uffd_cursor_rest(struct uffd_cursor *cursor)
{
	userfaultfd_cursor_release(cursor);
	cursor->wake(cursor);
}

static void uffd_fill_unlock(struct uffd_fill *fill)
{
	uffd_unlock_vma(fill->vma);
	fill->vma = NULL;
}

/* So much is filled with one hold of a VMA's lock: somebody may want to change it. */
#define UFFD_CURSOR_BYTES	SZ_2M

/* When it is through with the VMA.  The fill that follows may want the same one. */
static void uffd_fill_leave(struct uffd_fill *fill)
{
	struct uffd_cursor *cursor = fill->req->cursor;

	if (cursor && fill->req->len < UFFD_CURSOR_BYTES - cursor->filled) {
		cursor->filled += fill->req->len;
		cursor->vma = fill->vma;
	} else {
		if (cursor)
			cursor->filled = 0;
		uffd_unlock_vma(fill->vma);
	}
	fill->vma = NULL;
}

static struct vm_area_struct *
uffd_fill_find(const struct uffd_fill_request *req)
{
	struct uffd_cursor *cursor = req->cursor;
	struct vm_area_struct *vma;

	if (!cursor || !cursor->vma)
		return uffd_lock_vma(req->mm, req->dst);
	vma = cursor->vma;
	if (req->dst >= vma->vm_start && req->dst < vma->vm_end) {
		cursor->vma = NULL;
		return vma;
	}
	userfaultfd_cursor_release(cursor);
	return uffd_lock_vma(req->mm, req->dst);
}

/* All of the range must be in one VMA, and that VMA registered, with anybody. */
static int uffd_fill_lock(struct uffd_fill *fill)
{
	const struct uffd_fill_request *req = fill->req;
	struct vm_area_struct *vma;

	vma = uffd_fill_find(req);
	if (IS_ERR(vma))
		return PTR_ERR(vma);
	fill->vma = vma;
	if (vma->vm_userfaultfd_ctx.ctx && req->len <= vma->vm_end - req->dst)
		return 0;
	uffd_fill_unlock(fill);
	return -ENOENT;
}

/*
 * Help for the span functions
 */

/**
 * uffd_ops_of() - the operations with which a file's memory plugs itself in
 * @vma: a VMA
 *
 * Return: the operations; NULL if it has none, as anonymous memory has not.
 */
const struct vm_uffd_ops *uffd_ops_of(struct vm_area_struct *vma)
{
	return vma->vm_ops ? vma->vm_ops->uffd_ops : NULL;
}

static const struct uffd_memory *uffd_memory_of(struct vm_area_struct *vma)
{
	if (IS_ENABLED(CONFIG_HUGETLB_PAGE) && is_vm_hugetlb_page(vma))
		return &uffd_hugetlb;
	if (vma_is_anonymous(vma))
		return &uffd_anon;
	if (!uffd_ops_of(vma))
		return NULL;
	return vma->vm_flags & VM_SHARED ? &uffd_file : &uffd_file_private;
}

/**
 * uffd_fill_take_kept() - take the folio that was kept for the next page
 * @fill: the fill, its VMA locked
 *
 * It was made for this type of memory: uffd_fill_spans() sees to that.
 *
 * Return: the folio, which holds the source and belongs to the caller, or NULL.
 */
struct folio *uffd_fill_take_kept(struct uffd_fill *fill)
{
	struct folio *folio = fill->kept;

	fill->kept = NULL;
	return folio;
}

#if defined(CONFIG_TRANSPARENT_HUGEPAGE) || defined(CONFIG_HUGETLBFS)
static bool uffd_copy_in_large(struct folio *folio, const void __user *src,
			       bool may_fault)
{
	return !copy_folio_from_user(folio, src, may_fault);
}
#else
static bool uffd_copy_in_large(struct folio *folio, const void __user *src,
			       bool may_fault)
{
	return false;	/* there are none */
}
#endif

/* Copies as many bytes as the folio holds. */
static bool uffd_copy_in(struct folio *folio, const void __user *src,
			 bool may_fault)
{
	unsigned long left;
	void *kaddr;

	if (folio_test_large(folio))
		return uffd_copy_in_large(folio, src, may_fault);

	kaddr = kmap_local_folio(folio, 0);
	if (!may_fault)
		pagefault_disable();
	left = copy_from_user(kaddr, src, PAGE_SIZE);
	if (!may_fault)
		pagefault_enable();
	kunmap_local(kaddr);
	if (left)
		return false;
	flush_dcache_folio(folio);
	return true;
}

/**
 * uffd_fill_read() - copy the source of a page into a new folio
 * @fill: the fill, its VMA locked
 * @folio: a new folio, of the VMA's page size or larger
 * @src: where the source is
 *
 * Return: true, or false if the source is not resident.
 */
bool uffd_fill_read(struct uffd_fill *fill, struct folio *folio,
		    const void __user *src)
{
	return uffd_copy_in(folio, src, false);
}

/**
 * uffd_fill_keep() - keep a folio for the next page until the next attempt
 * @fill: the fill, its VMA locked
 * @folio: a new folio, of the VMA's page size or larger; it is the fill's from
 *	here on
 * @ready: it holds the source already
 *
 * It comes back, with the source in it, from uffd_fill_take_kept().
 *
 * Return: what the span function is to return.
 */
int uffd_fill_keep(struct uffd_fill *fill, struct folio *folio, bool ready)
{
	fill->kept = folio;
	return ready ? UFFD_CHANGED : UFFD_BRING_IN;
}

/**
 * uffd_fill_go_small() - a large folio is too much here
 * @fill: the fill
 * @folio: a large folio for what comes next; it is freed
 *
 * What it was for is filled with small ones, which come as far as they can.
 */
void uffd_fill_go_small(struct uffd_fill *fill, struct folio *folio)
{
	fill->small_end = uffd_fill_dst(fill) + folio_size(folio);
	folio_put(folio);
}

/* With no locks held.  The copy may itself wait for a userfault. */
static int uffd_fill_bring_in(struct uffd_fill *fill)
{
	if (fill->req->cursor)
		uffd_cursor_rest(fill->req->cursor);
	if (uffd_copy_in(fill->kept, uffd_fill_src(fill), true))
		return 0;
	if (folio_size(fill->kept) == fill->page_size)
		return -EFAULT;
	uffd_fill_go_small(fill, uffd_fill_take_kept(fill));
	return 0;
}

/**
 * uffd_alloc_pmd() - find or make the PMD entry of an address
 * @mm: the mm
 * @addr: the address
 *
 * Return: the entry, which may be of any kind, or NULL if there is no memory.
 */
pmd_t *uffd_alloc_pmd(struct mm_struct *mm, unsigned long addr)
{
	p4d_t *p4d = p4d_alloc(mm, pgd_offset(mm, addr), addr);
	pud_t *pud = p4d ? pud_alloc(mm, p4d, addr) : NULL;

	return pud ? pmd_alloc(mm, pud, addr) : NULL;
}

/**
 * uffd_fill_table() - find or make the page table of the next page
 * @fill: the fill, its VMA locked
 * @pmdp: where to put the entry that points to it
 *
 * The table may be gone again when it is to be locked: khugepaged may take it.
 *
 * Return: 0; -ENOMEM; -EEXIST if a huge page, or the entry of one, is there;
 * -EFAULT if what is there makes no sense; UFFD_CHANGED if it is gone already.
 */
int uffd_fill_table(struct uffd_fill *fill, pmd_t **pmdp)
{
	struct mm_struct *mm = fill->req->mm;
	pmd_t *pmd = uffd_alloc_pmd(mm, uffd_fill_dst(fill));
	pmd_t val;

	if (!pmd || pte_alloc(mm, pmd))
		return -ENOMEM;
	val = pmdp_get_lockless(pmd);
	if (pmd_none(val))
		return UFFD_CHANGED;
	if (!pmd_present(val) || pmd_leaf(val))
		return -EEXIST;
	if (pmd_bad(val))
		return -EFAULT;
	*pmdp = pmd;
	return 0;
}

/**
 * uffd_fill_beyond_file() - is the page past the end of the mapped file?
 * @fill: the fill, its VMA locked
 * @addr: address of the page
 *
 * Context: the page-table lock is held, as truncation unmaps under it after it
 * has changed the size.
 *
 * Return: true if it is; false too if there is no file.
 */
bool uffd_fill_beyond_file(const struct uffd_fill *fill, unsigned long addr)
{
	struct vm_area_struct *vma = fill->vma;
	struct inode *inode;

	if (!vma->vm_file)
		return false;
	inode = file_inode(vma->vm_file);
	return linear_page_index(vma, addr) >=
	       DIV_ROUND_UP(i_size_read(inode), PAGE_SIZE);
}

/*
 * The fill
 */

#define UFFD_FILL_FLAGS	(__VM_UFFD_FLAGS | VM_SHARED)

static pgoff_t uffd_fill_index(const struct uffd_fill *fill)
{
	return linear_page_index(fill->vma, fill->req->dst);
}

/* Notes what is being filled, before the VMA is let go of for the next attempt. */
static void uffd_fill_remember(struct uffd_fill *fill)
{
	struct vm_area_struct *vma = fill->vma;

	fill->memory = uffd_memory_of(vma);
	fill->ops = uffd_ops_of(vma);
	fill->page_size = vma_kernel_pagesize(vma);
	if (vma->vm_file && !fill->file)
		fill->file = get_file(vma->vm_file);
	fill->index = uffd_fill_index(fill);
	fill->flags = vma->vm_flags & UFFD_FILL_FLAGS;
}

/*
 * Is what the VMA maps what an earlier attempt has begun to fill?  What the caller
 * meant to fill, and what has been made for it, may have been replaced while the
 * fill waited for its source.
 */
static bool uffd_fill_unchanged(const struct uffd_fill *fill)
{
	const struct vm_area_struct *vma = fill->vma;

	if (fill->memory != uffd_memory_of(fill->vma) ||
	    fill->ops != uffd_ops_of(fill->vma) ||
	    fill->page_size != vma_kernel_pagesize(fill->vma) ||
	    fill->flags != (vma->vm_flags & UFFD_FILL_FLAGS) ||
	    fill->file != vma->vm_file)
		return false;
	return !fill->file || fill->index == uffd_fill_index(fill);
}

/* Fills what it can in one hold of the VMA's lock. */
static int uffd_fill_spans(struct uffd_fill *fill)
{
	unsigned long end = fill->req->dst + fill->req->len;
	const struct uffd_memory *memory;
	uffd_span_fn span;
	int ret;

	if (fill->memory && !uffd_fill_unchanged(fill))
		return -EAGAIN;
	memory = uffd_memory_of(fill->vma);
	span = memory ? memory->span[fill->req->op] : NULL;
	if (!span || (fill->req->wp && !userfaultfd_wp(fill->vma)))
		return -EINVAL;
	do {
		ret = span(fill, end);
		cond_resched();
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
	} while (!ret && fill->done < uffd_call_len(fill->req->len));
	return ret;
}

static int uffd_fill_once(struct uffd_fill *fill)
{
	bool again;
	int ret;

	ret = uffd_enter(&fill->gate, fill->req->cursor);
	if (ret)
		return ret;
	ret = uffd_fill_lock(fill);
	if (!ret)
		ret = uffd_fill_spans(fill);
	/* Tell of the event rather than of what it has done to the range. */
	again = ret > 0 || (ret < 0 && userfaultfd_gate_moved(&fill->gate));
	if (fill->vma) {
		/* -EAGAIN: it has been replaced already. */
		if (again && ret != -EAGAIN)
			uffd_fill_remember(fill);
		if (again)
			uffd_fill_unlock(fill);
		else
			uffd_fill_leave(fill);
	}
	if (!again)
		return ret;
	if (ret == UFFD_BRING_IN)
		return uffd_fill_bring_in(fill) ?: UFFD_CHANGED;
	return UFFD_CHANGED;
}

/* Sets no more than the first attempt reads: it is on the stack, and large. */
static void uffd_fill_begin(struct uffd_fill *fill,
			    const struct uffd_fill_request *req)
{
	fill->req = req;
	fill->vma = NULL;
	fill->done = 0;
	fill->kept = NULL;
	fill->small_end = 0;
	fill->memory = NULL;
	fill->file = NULL;
	userfaultfd_gate_init(&fill->gate, req->ctx, req->dst, req->len,
			      req->nowait);
}

/**
 * userfaultfd_fill() - put pages where they are missing
 * @req: what and where
 *
 * Context: process context, no locks held; the caller keeps the mm in use.
 * Sleeps.
 *
 * Return: bytes filled, from the start of the range, if any; else
 *  -EAGAIN	an event that the caller has not read concerns the range, or what
 *		is mapped there was replaced while the fill waited for its source
 *  -ENOENT	the range is not within one registered VMA
 *  -EINVAL	this cannot be done in this kind of memory, or not with this
 *		alignment; write protection, and the VMA is not registered for it
 *  -EEXIST	a page is there already
 *  -EFAULT	the source cannot be read, the page cache has no page, or the
 *		file ends before it
 *  -EIO	the page cache's page is poisoned by hardware
 *  -ENOMEM	no memory, or a limit of the memcg or the file system
 *  -EINTR	killed
 */
ssize_t userfaultfd_fill(const struct uffd_fill_request *req)
{
	struct uffd_fill fill __uninitialized;
	int ret;

	/* UFFDIO_CONTINUE: the page was written through another mapping. */
	if (req->op == UFFD_FILL_CONTINUE)
		smp_wmb();	/* its contents are seen by who sees the PTE */

	uffd_fill_begin(&fill, req);
	do {
		ret = uffd_fill_once(&fill);
		if (ret > 0 && fatal_signal_pending(current))
			ret = -EINTR;
	} while (ret > 0);
	if (fill.kept)
		folio_put(fill.kept);
	if (fill.file)
		fput(fill.file);
	return fill.done ? fill.done : ret;
}

/*
 * Is the fault still open?
 */

/* With this page table entry: does the fault remain one? */
static bool uffd_pte_open(pte_t pte, vm_flags_t reason)
{
	if (pte_none(pte) || pte_is_uffd_wp_marker(pte))
		return true;
	/*
	 * What is neither is swapped out, migrates or is poisoned: the access
	 * will find out, and fault again if it must.
	 */
	return pte_present(pte) &&
	       uffd_present_open(pte_uffd(pte), pte_protnone(pte), reason);
}

/**
 * userfaultfd_fault_open() - would this access still fault?
 * @vmf: a fault whose thread has parked
 * @reason: one of __VM_UFFD_FLAGS
 *
 * An entry counts as none only if it is so under its lock: those who replace one
 * may clear it for a moment, and wake nobody when they put it back.  It may change
 * right after: whoever fills it then finds the parked thread.
 *
 * Context: fault lock held.  May sleep.
 *
 * Return: true if the thread has to wait; false if it is to try again at once.
 */
bool userfaultfd_fault_open(struct vm_fault *vmf, vm_flags_t reason)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	unsigned long addr = vmf->address;
	pmd_t *pmd, pmdval;
	spinlock_t *ptl;
	pte_t *pte, val;

	if (is_vm_hugetlb_page(vmf->vma))
		return uffd_hugetlb_fault_open(vmf, reason);

	do {
		/* The fault has allocated the tables, but they may be gone. */
		pmd = mm_find_pmd(mm, addr);
		if (!pmd)
			return true;
		pmdval = pmdp_get_lockless(pmd);
		if (pmd_none(pmdval)) {
			ptl = pmd_lock(mm, pmd);
			pmdval = *pmd;
			spin_unlock(ptl);
		}
		if (pmd_none(pmdval))
			return true;
		if (!pmd_present(pmdval))
			return false;
		if (pmd_leaf(pmdval))
			return uffd_present_open(pmd_uffd(pmdval),
						 pmd_protnone(pmdval), reason);
		pte = pte_offset_map_lock(mm, pmd, addr, &ptl);
	} while (!pte);

	val = ptep_get(pte);
	pte_unmap_unlock(pte, ptl);
	return uffd_pte_open(val, reason);
}

static int uffd_settle_pud(pud_t *pudp, unsigned long addr, unsigned long end,
			   struct mm_walk *walk)
{
	pud_t pud = READ_ONCE(*pudp);

	/* One lock serves all PMDs of the table. */
	if (pud_present(pud) && !pud_leaf(pud))
		spin_unlock(pmd_lock(walk->mm,
				     pmd_offset_lockless(pudp, pud, addr)));
	cond_resched();
	walk->action = ACTION_CONTINUE;
	return 0;
}

static const struct mm_walk_ops uffd_settle_ops = {
	.pud_entry = uffd_settle_pud,
	.walk_lock = PGWALK_RDLOCK,
};

/**
 * userfaultfd_settle() - wait for those who are just setting a PMD in a range
 * @vma: the VMA that all of the range is in
 * @start: first byte
 * @end: byte after the last
 *
 * Calls that have begun to set an entry before the event that the caller has
 * prepared are done with it on return; others see the event.
 *
 * Context: mmap_lock held, at least for reading.  May sleep.
 */
void userfaultfd_settle(struct vm_area_struct *vma, unsigned long start,
			unsigned long end)
{
	/*
	 * The event is out before this thread, or those who change the page
	 * tables, look at them.  Paired with the lock under which an entry is
	 * set, with smp_mb__after_spinlock() for PMDs: either the table that it
	 * is in is seen here, or the event there.
	 */
	smp_mb();	/* the event, then the page tables */
	/* hugetlb sets no PMD but under the lock that zapping takes, too. */
	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) || is_vm_hugetlb_page(vma))
		return;
	/* It refuses to look at anything else. */
	VM_WARN_ON_ONCE(start < vma->vm_start || end > vma->vm_end);
	walk_page_range_vma(vma, start, end, &uffd_settle_ops, NULL);
}
