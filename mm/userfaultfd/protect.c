// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: write protection.
 */

#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/userfaultfd_k.h>
#include <asm/tlb.h>
#include "../internal.h"

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
	unsigned long flags = enable_wp ? MM_CP_UFFD_WP : MM_CP_UFFD_WP_RESOLVE;
	struct mmu_gather tlb;
	long changed;

	/*
	 * The VMA's protection makes new PTEs read-only: what is unprotected
	 * here must be made writable page by page.
	 */
	if (!enable_wp && vma_wants_manual_pte_write_upgrade(vma))
		flags |= MM_CP_TRY_CHANGE_WRITABLE;
	tlb_gather_mmu(&tlb, vma->vm_mm);
	changed = change_protection(&tlb, vma, start, start + len, flags);
	tlb_finish_mmu(&tlb);
	return changed;
}

static int uffd_protect_vmas(struct mm_struct *mm, unsigned long start,
			     unsigned long len, bool enable_wp)
{
	VMA_ITERATOR(vmi, mm, start);
	unsigned long end = start + len;
	struct vm_area_struct *vma;
	int ret = -ENOENT;

	for_each_vma_range(vmi, vma, end) {
		unsigned long from = max(start, vma->vm_start);
		long changed;

		if (!userfaultfd_wp(vma))
			return -ENOENT;
		if (is_vm_hugetlb_page(vma) &&
		    !IS_ALIGNED(start | len, vma_kernel_pagesize(vma)))
			return -EINVAL;
		changed = uffd_wp_range(vma, from, min(end, vma->vm_end) - from,
					enable_wp);
		if (changed < 0)
			return changed;
		ret = 0;
	}
	return ret;
}

/**
 * userfaultfd_protect() - protect or unprotect a range
 * @ctx: the context that the call came in on
 * @mm: its mm, which the caller keeps in use
 * @start: first byte, page aligned
 * @len: bytes, a multiple of the page size, not zero, not wrapping
 * @enable_wp: protect, rather than unprotect
 * @nowait: do not wait for an event to be published
 *
 * Stops at the first VMA that cannot be; those before it are done then.
 *
 * Context: process context, no locks held.  Sleeps.
 *
 * Return: 0; -EAGAIN if an event that the caller has not read concerns the
 * range; -ENOENT if there is nothing, or something that is not registered for
 * write protection; -EINVAL if it is part of a huge page; -ENOMEM; -EINTR.
 */
int userfaultfd_protect(struct userfaultfd_ctx *ctx, struct mm_struct *mm,
			unsigned long start, unsigned long len, bool enable_wp,
			bool nowait)
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
	ret = uffd_protect_vmas(mm, start, len, enable_wp);
	mmap_read_unlock(mm);
	return ret;
}
