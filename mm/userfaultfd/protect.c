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
static long uffd_change(struct vm_area_struct *vma, unsigned long start,
			unsigned long len, unsigned long flags)
{
	const unsigned long lifting = MM_CP_UFFD_WP_RESOLVE |
				      MM_CP_UFFD_RWP_RESOLVE;
	struct mmu_gather tlb;
	long changed;

	/*
	 * The VMA's protection makes new PTEs read-only: what is unprotected
	 * here must be made writable page by page.
	 */
	if ((flags & lifting) && vma_wants_manual_pte_write_upgrade(vma))
		flags |= MM_CP_TRY_CHANGE_WRITABLE;
	tlb_gather_mmu(&tlb, vma->vm_mm);
	changed = change_protection(&tlb, vma, start, start + len, flags);
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

static int uffd_protect_vmas(struct mm_struct *mm, unsigned long start,
			     unsigned long len, vm_flags_t mode, bool enable)
{
	unsigned long flags = enable ? MM_CP_UFFD_WP : MM_CP_UFFD_WP_RESOLVE;
	VMA_ITERATOR(vmi, mm, start);
	unsigned long end = start + len;
	struct vm_area_struct *vma;
	int ret = -ENOENT;

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
		changed = uffd_change(vma, from, min(end, vma->vm_end) - from,
				      flags);
		if (changed < 0)
			return changed;
	}
	return ret;
}

/**
 * userfaultfd_protect() - protect or unprotect a range
 * @ctx: the context that the call came in on
 * @mm: its mm, which the caller keeps in use
 * @start: first byte, page aligned
 * @len: bytes, a multiple of the page size, not zero, not wrapping
 * @mode: VM_UFFD_WP or VM_UFFD_RWP: against writes, or any access
 * @enable: protect, rather than unprotect
 * @nowait: do not wait for an event to be published
 *
 * With VM_UFFD_WP it stops at the first VMA that cannot be; those before it are
 * done then.  With VM_UFFD_RWP nothing is done if there is such a one.
 *
 * Context: process context, no locks held.  Sleeps.
 *
 * Return: 0; -EAGAIN if an event that the caller has not read concerns the
 * range; -ENOENT if there is nothing, or something that is not registered for
 * @mode; -EINVAL if it is part of a huge page; -ENOMEM; -EINTR.
 */
int userfaultfd_protect(struct userfaultfd_ctx *ctx, struct mm_struct *mm,
			unsigned long start, unsigned long len, vm_flags_t mode,
			bool enable, bool nowait)
{
	struct uffd_gate gate;
	int ret;

	userfaultfd_gate_init(&gate, ctx, start, len, nowait);
	for (;;) {
		ret = userfaultfd_gate_pass(&gate);
		if (ret)
			return ret;
		mmap_read_lock(mm);
		/*
		 * From here on only pages can be dropped, and it is all the same
		 * if their protection changes before or after.
		 */
		if (!userfaultfd_gate_moved(&gate))
			break;
		mmap_read_unlock(mm);
	}
	ret = uffd_protect_vmas(mm, start, len, mode, enable);
	mmap_read_unlock(mm);
	return ret;
}
