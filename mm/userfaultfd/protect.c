// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: protection, against writes or any access.
 *
 * Both are in the same bit of the page table entries.  With RWP the entry is
 * inaccessible besides, as for NUMA balancing.
 */

#include <linux/hugetlb.h>
#include <linux/mm.h>
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

static int uffd_protect_vmas(struct mmu_gather *tlb, struct mm_struct *mm,
			     unsigned long start, unsigned long len,
			     vm_flags_t mode, bool enable)
{
	unsigned long flags = enable ? MM_CP_UFFD_WP : MM_CP_UFFD_WP_RESOLVE;
	unsigned long end = start + len;
	struct vm_area_struct *vma;
	int ret = -ENOENT;
	VMA_ITERATOR(vmi, mm, start);

	if (mode != VM_UFFD_WP) {
		flags = enable ? MM_CP_UFFD_RWP : MM_CP_UFFD_RWP_RESOLVE;
		ret = uffd_check_protect_all(mm, start, len, mode);
		if (ret)
			return ret;
	}
	for_each_vma_range(vmi, vma, end) {
		unsigned long from = max(start, vma->vm_start);
		long changed;

		ret = uffd_check_protect(vma, start, len, mode);
		if (ret)
			return ret;
		changed = uffd_change_part(tlb, vma, from,
					   min(end, vma->vm_end) - from, flags);
		if (changed < 0)
			return changed;
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

static void uffd_protect_gate(const struct uffd_protect_request *req,
			      const struct uffdio_op *op, struct uffd_gate *gate)
{
	userfaultfd_gate_init(gate, req->ctx, op->dst, op->len, req->nowait);
}

/* Returns true if all of it is done. */
static bool uffd_protect_op(const struct uffd_protect_request *req,
			    struct mmu_gather *tlb, struct uffdio_op *op)
{
	int ret = uffd_protect_vmas(tlb, req->mm, op->dst, op->len, req->mode,
				    op->mode & UFFDIO_WRITEPROTECT_MODE_WP);

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
	struct uffdio_op *op = req->op;
	struct uffd_gate gate;
	struct mmu_gather tlb;
	unsigned int nr = 1;
	int ret;

	uffd_protect_gate(req, op, &gate);
	ret = uffd_protect_lock(req, &gate);
	if (ret) {
		op->result = ret;
		return 1;
	}
	tlb_gather_mmu(&tlb, req->mm);
	while (uffd_protect_op(req, &tlb, op) && nr < req->nr) {
		op = &req->op[nr];
		uffd_protect_gate(req, op, &gate);
		/* Only REMOVE can be told while the lock is held: see above. */
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
