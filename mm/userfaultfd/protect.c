// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: write protection.
 */

#include <linux/mm.h>
#include <linux/userfaultfd_k.h>
#include <asm/tlb.h>
#include "../internal.h"

/**
 * uffd_wp_range() - protect or unprotect part of a VMA
 * @vma: a VMA registered for write protection
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
