// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: protection, against writes or any access.
 *
 * Both are in the same bit of the page table entries.  With RWP the entry is
 * inaccessible besides, as for NUMA balancing.
 */

#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/userfaultfd_k.h>
#include <asm/tlb.h>
#include "../internal.h"
#include "fill.h"

/* Changes the protection of part of a VMA.  @flags: MM_CP_UFFD_* */
static long uffd_change_part(struct mmu_gather *tlb, struct vm_area_struct *vma,
			     unsigned long start, unsigned long len,
			     unsigned long flags)
{
	const unsigned long lifting = MM_CP_UFFD_WP_RESOLVE |
				      MM_CP_UFFD_RWP_RESOLVE;

	/*
	 * The VMA's protection makes new PTEs read-only: what is unprotected
	 * here must be made writable page by page.
	 */
	if ((flags & lifting) && vma_wants_manual_pte_write_upgrade(vma))
		flags |= MM_CP_TRY_CHANGE_WRITABLE;
	return change_protection(tlb, vma, start, start + len, flags);
}

/* The same, with a TLB flush of its own. */
static long uffd_change(struct vm_area_struct *vma, unsigned long start,
			unsigned long len, unsigned long flags)
{
	struct mmu_gather tlb;
	long changed;

	tlb_gather_mmu(&tlb, vma->vm_mm);
	changed = uffd_change_part(&tlb, vma, start, len, flags);
	tlb_finish_mmu(&tlb);
	return changed;
}

/**
 * uffd_wp_range() - protect or unprotect part of a VMA
 * @vma: a VMA that is registered for write protection, or was until now
 * @start: first byte, page aligned
 * @len: bytes, all of them in the VMA
 * @enable_wp: protect, rather than unprotect
 *
 * Context: mmap_lock held.  Sleeps.
 *
 * Return: how many pages have changed, or -ENOMEM.
 */
long uffd_wp_range(struct vm_area_struct *vma, unsigned long start,
		   unsigned long len, bool enable_wp)
{
	return uffd_change(vma, start, len,
			   enable_wp ? MM_CP_UFFD_WP : MM_CP_UFFD_WP_RESOLVE);
}

/**
 * uffd_lift_protection() - leave no protection in part of a VMA
 * @vma: a registered VMA
 * @start: first byte, page aligned
 * @len: bytes, all of them in the VMA
 *
 * Context: mmap_lock held for writing.  Sleeps.
 */
void uffd_lift_protection(struct vm_area_struct *vma, unsigned long start,
			  unsigned long len)
{
	unsigned long flags = 0;

	if (userfaultfd_wp(vma))
		flags |= MM_CP_UFFD_WP_RESOLVE;
	if (userfaultfd_rwp(vma))
		flags |= MM_CP_UFFD_RWP_RESOLVE;
	if (flags)
		uffd_change(vma, start, len, flags);
}

static int uffd_check_protect(struct vm_area_struct *vma, unsigned long start,
			      unsigned long len, vm_flags_t mode)
{
	if (!userfaultfd_modes(vma, mode))
		return -ENOENT;
	if (is_vm_hugetlb_page(vma) &&
	    !IS_ALIGNED(start | len, vma_kernel_pagesize(vma)))
		return -EINVAL;
	return 0;
}

/* Looks at all of the range before any of it is changed. */
static int uffd_check_protect_all(struct mm_struct *mm, unsigned long start,
				  unsigned long len, vm_flags_t mode)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma;
	int ret = -ENOENT;

	for_each_vma_range(vmi, vma, start + len) {
		ret = uffd_check_protect(vma, start, len, mode);
		if (ret)
			break;
	}
	return ret;
}

/* The table entry that points to the PTEs of an address, or NULL. */
static pmd_t *uffd_pmd_of(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pudp, pud;

	if (!pgd_present(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (!p4d_present(*p4d))
		return NULL;
	pudp = pud_offset(p4d, addr);
	/* A leaf comes and goes with no more than its own lock. */
	pud = READ_ONCE(*pudp);
	if (!pud_present(pud) || pud_leaf(pud))
		return NULL;
	return pmd_offset_lockless(pudp, pud, addr);
}

/* Returns true if it was there, and is protected now. */
static bool uffd_protect_pte(struct mmu_gather *tlb, struct vm_area_struct *vma,
			     pmd_t *pmd, unsigned long addr)
{
	pte_t *pte, old, new;
	spinlock_t *ptl;
	bool there;

	pte = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!pte)
		return false;
	there = pte_present(ptep_get(pte));
	if (there) {
		flush_tlb_batched_pending(vma->vm_mm);
		old = ptep_modify_prot_start(vma, addr, pte);
		new = pte_mkuffd(pte_modify(old, vma->vm_page_prot));
		ptep_modify_prot_commit(vma, addr, pte, old, new);
		if (pte_needs_flush(old, new))
			tlb_flush_pte_range(tlb, addr, PAGE_SIZE);
	}
	pte_unmap_unlock(pte, ptl);
	return there;
}

/*
 * Protects a single page against writes if it is there, and no part of a huge one: the
 * most frequent of all.  For all others, and then it returns false, change_protection()
 * is needed, which takes twice as long to come to one entry as this in all.
 */
static bool uffd_protect_page(struct mmu_gather *tlb, struct vm_area_struct *vma,
			      unsigned long addr)
{
	struct mmu_notifier_range range __uninitialized;
	pmd_t *pmd;
	bool done;

	if (is_vm_hugetlb_page(vma))
		return false;
	pmd = uffd_pmd_of(vma->vm_mm, addr);
	if (!pmd)
		return false;
	mmu_notifier_range_init(&range, MMU_NOTIFY_PROTECTION_VMA, 0, vma->vm_mm,
				addr, addr + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	tlb_start_vma(tlb, vma);
	tlb_change_page_size(tlb, PAGE_SIZE);
	done = uffd_protect_pte(tlb, vma, pmd, addr);
	tlb_end_vma(tlb, vma);
	mmu_notifier_invalidate_range_end(&range);
	return done;
}

/* Protects, or unprotects, what a VMA has of a range. */
static int uffd_protect_vma(struct mmu_gather *tlb, struct vm_area_struct *vma,
			    unsigned long start, unsigned long end,
			    vm_flags_t mode, bool enable)
{
	unsigned long flags = enable ? MM_CP_UFFD_WP : MM_CP_UFFD_WP_RESOLVE;
	long changed;

	if (mode != VM_UFFD_WP)
		flags = enable ? MM_CP_UFFD_RWP : MM_CP_UFFD_RWP_RESOLVE;
	if (flags == MM_CP_UFFD_WP && end - start == PAGE_SIZE &&
	    uffd_protect_page(tlb, vma, start))
		return 0;
	changed = uffd_change_part(tlb, vma, start, end - start, flags);
	return changed < 0 ? changed : 0;
}

/* Leaves the last VMA that it has found in @last. */
static int uffd_protect_vmas(struct mmu_gather *tlb, struct mm_struct *mm,
			     struct vm_area_struct **last, unsigned long start,
			     unsigned long len, vm_flags_t mode, bool enable)
{
	VMA_ITERATOR(vmi, mm, start);
	unsigned long end = start + len;
	struct vm_area_struct *vma;
	int ret = -ENOENT;

	if (mode != VM_UFFD_WP) {
		ret = uffd_check_protect_all(mm, start, len, mode);
		if (ret)
			return ret;
	}
	for_each_vma_range(vmi, vma, end) {
		*last = vma;
		ret = uffd_check_protect(vma, start, len, mode);
		if (!ret)
			ret = uffd_protect_vma(tlb, vma, max(start, vma->vm_start),
					       min(end, vma->vm_end), mode,
					       enable);
		if (ret)
			break;
	}
	return ret;
}

/* Waits for an event to be published, if it must, and takes mmap_lock for reading. */
static int uffd_protect_lock(const struct uffd_protect_request *req,
			     struct uffd_gate *gate)
{
	int ret;

	for (;;) {
		ret = uffd_enter(gate, req->cursor);
		if (ret)
			return ret;
		mmap_read_lock(req->mm);
		/*
		 * From here on only pages can be dropped, and it is all the same
		 * if their protection changes before or after.
		 */
		if (!userfaultfd_gate_moved(gate))
			return 0;
		mmap_read_unlock(req->mm);
	}
}

/*
 * Returns true if all of it is done.  @last is the VMA in which the range before was, or
 * NULL: this one is there as well, as a rule.
 */
static bool uffd_protect_op(const struct uffd_protect_request *req,
			    struct mmu_gather *tlb, struct vm_area_struct **last,
			    struct uffdio_op *op)
{
	bool enable = op->mode & UFFDIO_WRITEPROTECT_MODE_WP;
	unsigned long start = op->dst, end = op->dst + op->len;
	struct vm_area_struct *vma = *last;
	int ret;

	if (vma && vma->vm_start <= start && end <= vma->vm_end)
		ret = uffd_check_protect(vma, start, op->len, req->mode) ?:
		      uffd_protect_vma(tlb, vma, start, end, req->mode, enable);
	else
		ret = uffd_protect_vmas(tlb, req->mm, last, start, op->len,
					req->mode, enable);
	op->result = ret ? ret : (s64)op->len;
	return !ret;
}

/**
 * userfaultfd_protect() - protect or unprotect ranges
 * @req: which, and how
 *
 * Several ranges share one hold of mmap_lock and one TLB flush.  It ends at the first
 * that fails; or before one, but the first, that would have to wait, or that others
 * wait for who want the lock.
 *
 * With VM_UFFD_WP a range is done up to the first VMA that cannot be.  With
 * VM_UFFD_RWP nothing of it is done if there is such a one.
 *
 * Context: process context, no locks held.  Sleeps.
 *
 * Return: for how many ranges there is a result now, at least one: the length, or
 * -EAGAIN if an event that the caller has not read concerns the range; -ENOENT if there
 * is nothing, or something that is not registered for @req->mode; -EINVAL if it is part
 * of a huge page; -ENOMEM; -EINTR.
 */
unsigned int userfaultfd_protect(const struct uffd_protect_request *req)
{
	struct vm_area_struct *last = NULL;
	struct uffdio_op *op = req->op;
	struct uffd_gate gate;
	struct mmu_gather tlb;
	unsigned int nr = 1;
	int ret;

	userfaultfd_gate_init(&gate, req->ctx, op->dst, op->len, req->nowait);
	ret = uffd_protect_lock(req, &gate);
	if (ret) {
		op->result = ret;
		return 1;
	}
	tlb_gather_mmu(&tlb, req->mm);
	while (uffd_protect_op(req, &tlb, &last, op) && nr < req->nr) {
		op = &req->op[nr];
		/*
		 * Only REMOVE can be told while the lock is held: see above.  If
		 * nothing at all has been since the first of them began, nothing
		 * that concerns the next has.
		 */
		if (!userfaultfd_gate_quiet(&gate) ||
		    mmap_lock_is_contended(req->mm) ||
		    fatal_signal_pending(current))
			break;
		nr++;
	}
	tlb_finish_mmu(&tlb);
	mmap_read_unlock(req->mm);
	return nr;
}
