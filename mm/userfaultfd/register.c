// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: VMAs in and out.
 *
 * A registered VMA has a context and at least one of __VM_UFFD_FLAGS; one that
 * is not has neither.  Both change together, with mmap_lock and the VMA's lock
 * held for writing.  VMAs are split at the ends of the range, and merged with
 * their neighbours where registration made the difference.
 *
 * An orphan is a VMA that its context has left registered: see
 * fs/userfaultfd/orphan.c.  It may be unregistered by any context of the mm, and
 * registered by any, with what modes it has at least: so who adopts it knows what
 * will be told, and all its protection stays.
 */

#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/shmem_fs.h>
#include <linux/userfaultfd_k.h>
#include "../internal.h"
#include "../vma.h"
#include "fill.h"

/* Modes whose protection is in the page tables, in the same bit. */
#define UFFD_PROTECTING	(VM_UFFD_WP | VM_UFFD_RWP)

/* Can memory of this type be filled as these modes want it? */
static bool uffd_is_memory(struct vm_area_struct *vma, vm_flags_t modes)
{
	const struct vm_uffd_ops *ops = uffd_ops_of(vma);

	/* Not asked for its operations: those of SysV segments are ipc's. */
	if (vma_is_anonymous(vma) || is_vm_hugetlb_page(vma))
		return true;
	return ops && ops->can_userfault(vma, modes);
}

/* Can this VMA be registered for these modes? */
static bool uffd_supports(struct vm_area_struct *vma, vm_flags_t modes,
			  bool wp_async)
{
	modes &= __VM_UFFD_FLAGS;
	/* Reclaim drops these without a word: nobody could tell what is missing. */
	if (vma->vm_flags & (VM_SHADOW_STACK | VM_DROPPABLE))
		return false;
	if ((vma->vm_flags & VM_SPECIAL) && !is_vm_hugetlb_page(vma))
		return false;
	if ((modes & VM_UFFD_MINOR) && vma_is_anonymous(vma))
		return false;
	/* Protection that nobody is ever told of needs nothing from the memory. */
	if (modes == VM_UFFD_WP && wp_async)
		return true;
	if ((modes & VM_UFFD_WP) && !uffd_supports_wp_marker() &&
	    !vma_is_anonymous(vma))
		return false;
	return uffd_is_memory(vma, modes);
}

static bool uffd_huge_aligned(struct vm_area_struct *vma, unsigned long addr)
{
	return !is_vm_hugetlb_page(vma) ||
	       IS_ALIGNED(addr, vma_kernel_pagesize(vma));
}

static int uffd_check_vma(struct vm_area_struct *vma,
			  struct userfaultfd_ctx *ctx, unsigned long end,
			  vm_flags_t modes, bool wp_async)
{
	if (!uffd_supports(vma, modes, wp_async))
		return -EINVAL;
	/* Where nothing may be accessed, an access is not told from a mistake. */
	if ((modes & VM_UFFD_RWP) && !vma_is_accessible(vma))
		return -EINVAL;
	/*
	 * Filling a hole writes to the file, PROT_WRITE or not.  VM_MAYWRITE
	 * says that the process may, and keeps seals against it away.
	 */
	if (!(vma->vm_flags & VM_MAYWRITE))
		return -EPERM;
	if (end <= vma->vm_end && !uffd_huge_aligned(vma, end))
		return -EINVAL;
	/* Who adopts it is going to be told of all that it is registered for. */
	if (userfaultfd_orphaned(vma))
		return userfaultfd_modes(vma, __VM_UFFD_FLAGS & ~modes) ?
		       -EBUSY : 0;
	/* Two handlers could not tell whose turn it is. */
	if (vma->vm_userfaultfd_ctx.ctx && vma->vm_userfaultfd_ctx.ctx != ctx)
		return -EBUSY;
	/* One mode's protection would be taken for the other's. */
	if (vma->vm_userfaultfd_ctx.ctx &&
	    (vma->vm_flags & UFFD_PROTECTING & ~modes))
		return -EBUSY;
	return 0;
}

/* Looks at all of the range before any of it is changed. */
static int uffd_check_vmas(struct userfaultfd_ctx *ctx, struct mm_struct *mm,
			   unsigned long start, unsigned long end,
			   vm_flags_t modes, bool wp_async, bool *hugetlb)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma;
	bool first = true;
	int ret;

	for_each_vma_range(vmi, vma, end) {
		if (first && !uffd_huge_aligned(vma, start))
			return -EINVAL;
		first = false;
		ret = uffd_check_vma(vma, ctx, end, modes, wp_async);
		if (ret)
			return ret;
		if (is_vm_hugetlb_page(vma))
			*hugetlb = true;
		cond_resched();
	}
	return first ? -EINVAL : 0;
}

/* The flags of a VMA with other modes. */
static vma_flags_t uffd_new_flags(const struct vm_area_struct *vma,
				  vm_flags_t modes)
{
	vma_flags_t flags = vma->flags;

	vma_flags_clear_mask(&flags, legacy_to_vma_flags(__VM_UFFD_FLAGS));
	vma_flags_set_mask(&flags, legacy_to_vma_flags(modes));
	return flags;
}

/* Makes a VMA's registration what it is to be.  The VMA is all of it. */
static void uffd_set_ctx(struct vm_area_struct *vma,
			 struct userfaultfd_ctx *ctx, vm_flags_t modes)
{
	vm_flags_t flags = (vma->vm_flags & ~__VM_UFFD_FLAGS) | modes;
	bool wp_changes = (vma->vm_flags ^ flags) & VM_UFFD_WP;

	if (vma->vm_file && (modes & VM_UFFD_MISSING))
		WRITE_ONCE(userfaultfd_awaits_files, true);
	vma_start_write(vma);
	vma->vm_userfaultfd_ctx = (struct vm_userfaultfd_ctx){ ctx };
	vm_flags_reset(vma, flags);
	/* Whether new PTEs of a shared mapping are writable hangs on it. */
	if (wp_changes && (vma->vm_flags & VM_SHARED))
		vma_set_page_prot(vma);
}

bool userfaultfd_awaits_files __read_mostly;

/**
 * userfaultfd_reset_ctx() - end the registration of a VMA
 * @vma: a VMA
 *
 * Context: mmap_lock held for writing.
 */
void userfaultfd_reset_ctx(struct vm_area_struct *vma)
{
	uffd_set_ctx(vma, NULL, 0);
}

/*
 * Gives [start, end) of a VMA to a context, or with NULL to nobody.  Returns the
 * VMA that has the range then, and maybe more: its neighbours' too.
 */
static struct vm_area_struct *uffd_modify(struct vma_iterator *vmi,
					  struct vm_area_struct *prev,
					  struct vm_area_struct *vma,
					  unsigned long start,
					  unsigned long end,
					  struct userfaultfd_ctx *ctx,
					  vm_flags_t modes)
{
	vma_flags_t flags = uffd_new_flags(vma, modes);
	/* What needs no split needs no memory, but for an optional merge. */
	bool whole = start == vma->vm_start && end == vma->vm_end;

	vma = vma_modify_flags_uffd(vmi, prev, vma, start, end, &flags,
				    (struct vm_userfaultfd_ctx){ ctx }, whole);
	if (!IS_ERR(vma))
		uffd_set_ctx(vma, ctx, modes);
	return vma;
}

/*
 * Lifts the protection of [start, end) of a VMA, if it is registered for that and
 * about to be no more.  Returns the VMA that has the range, with *prev before it.
 *
 * Protection that nobody is asked about must not stay in the page tables.  hugetlb
 * would wait for it to be lifted; others would make the entry writable, and it
 * would look protected to whoever registers the range for protection later, with
 * writes going through.
 *
 * It goes before the registration does: a hugetlb page table that is not
 * registered may be shared with another process.  And after all that can fail: a
 * registration that stays keeps its protection.
 */
static struct vm_area_struct *uffd_lift(struct vma_iterator *vmi,
					struct vm_area_struct **prev,
					struct vm_area_struct *vma,
					unsigned long start, unsigned long end)
{
	int ret;

	if (!userfaultfd_protected(vma))
		return vma;
	/* Only that: a merge might have to be undone, which can fail. */
	if (start > vma->vm_start) {
		ret = split_vma(vmi, vma, start, 1);
		if (ret)
			return ERR_PTR(ret);
		find_vma_prev(vma->vm_mm, start, prev);
	}
	if (end < vma->vm_end) {
		ret = split_vma(vmi, vma, end, 0);
		if (ret)
			return ERR_PTR(ret);
	}
	vma_start_write(vma);
	uffd_lift_protection(vma, start, end - start);
	return vma;
}

/**
 * userfaultfd_register_range() - take a range under a context's care
 * @ctx: the context
 * @mm: its mm
 * @start: first byte, page aligned
 * @end: byte after the last, page aligned
 * @modes: of __VM_UFFD_FLAGS, at least one
 * @wp_async: the context resolves write-protect faults itself, always
 * @hugetlb: is set to true if there is hugetlb memory in the range
 *
 * What is registered with @ctx already gets the new modes, unless it has them
 * all and maybe more, and may not lose one that protects it.  Holes in the range
 * are passed over.
 *
 * An orphan becomes @ctx's as it is, with the new modes beside those that it has.  If
 * it has one that is not among them, that is -EBUSY.
 *
 * Context: the caller keeps the mm in use.  Takes mmap_lock for writing.
 *
 * Return: 0; -EINVAL if there is nothing in the range, something that cannot be
 * registered, or part of a huge page; -EPERM if the file behind a mapping may
 * not be written; -EBUSY if another context has some of it, or if it would lose
 * a mode that protects; -ENOMEM.
 */
int userfaultfd_register_range(struct userfaultfd_ctx *ctx,
			       struct mm_struct *mm, unsigned long start,
			       unsigned long end, vm_flags_t modes,
			       bool wp_async, bool *hugetlb)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma, *prev;
	int ret;

	mmap_write_lock(mm);
	ret = uffd_check_vmas(ctx, mm, start, end, modes, wp_async, hugetlb);
	if (ret)
		goto unlock;

	prev = vma_prev(&vmi);
	for_each_vma_range(vmi, vma, end) {
		start = max(start, vma->vm_start);
		if (start > vma->vm_start)
			prev = vma;
		if (vma->vm_userfaultfd_ctx.ctx != ctx ||
		    (vma->vm_flags & modes) != modes) {
			vma = uffd_modify(&vmi, prev, vma, start,
					  min(end, vma->vm_end), ctx, modes);
			if (IS_ERR(vma)) {
				ret = PTR_ERR(vma);
				break;
			}
			if (is_vm_hugetlb_page(vma) &&
			    uffd_disable_huge_pmd_share(vma))
				hugetlb_unshare_all_pmds(vma);
		}
		prev = vma;
		start = vma->vm_end;
		cond_resched();
	}
unlock:
	mmap_write_unlock(mm);
	return ret;
}

/*
 * Takes [start, end) of a VMA from its context, and leaves no trace in the page
 * tables.  The VMA is locked, so nobody can park on it any more.
 */
static struct vm_area_struct *uffd_forget(struct vm_area_struct *vma,
					  unsigned long start,
					  unsigned long end,
					  struct vm_area_struct *prev,
					  struct vma_iterator *vmi)
{
	vma = uffd_lift(vmi, &prev, vma, start, end);
	if (IS_ERR(vma))
		return vma;
	return uffd_modify(vmi, prev, vma, start, end, NULL, 0);
}

static int uffd_check_unregister(struct userfaultfd_ctx *ctx,
				 struct mm_struct *mm, unsigned long start,
				 unsigned long end, bool wp_async)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma;
	bool first = true;

	for_each_vma_range(vmi, vma, end) {
		if (first && !uffd_huge_aligned(vma, start))
			return -EINVAL;
		first = false;
		/* Another handler's memory is none of the caller's business. */
		if (vma->vm_userfaultfd_ctx.ctx &&
		    vma->vm_userfaultfd_ctx.ctx != ctx &&
		    !userfaultfd_orphaned(vma))
			return -EINVAL;
		/* It cannot be registered: the caller is mistaken. */
		if (!userfaultfd_orphaned(vma) &&
		    !uffd_supports(vma, vma->vm_flags, wp_async))
			return -EINVAL;
		/* Where it ends in what is registered, that is to be split. */
		if (vma->vm_userfaultfd_ctx.ctx && end <= vma->vm_end &&
		    !uffd_huge_aligned(vma, end))
			return -EINVAL;
		cond_resched();
	}
	return first ? -EINVAL : 0;
}

/**
 * userfaultfd_unregister_range() - end the care for a range
 * @ctx: the context that it is registered with
 * @mm: the mm
 * @start: first byte, page aligned
 * @end: byte after the last, page aligned
 * @wp_async: as of the calling context
 *
 * Whoever waits for a missing page there is woken, to find that its fault is
 * its own again.
 *
 * Context: the caller keeps the mm in use.  Takes mmap_lock for writing.
 *
 * Return: 0; -EINVAL if there is nothing in the range, something that can never
 * have been registered or is another context's, or part of a huge page; -ENOMEM.
 */
int userfaultfd_unregister_range(struct userfaultfd_ctx *ctx,
				 struct mm_struct *mm, unsigned long start,
				 unsigned long end, bool wp_async)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma, *prev;
	unsigned long vma_end;
	int ret;

	mmap_write_lock(mm);
	ret = uffd_check_unregister(ctx, mm, start, end, wp_async);
	if (ret)
		goto unlock;

	prev = vma_prev(&vmi);
	for_each_vma_range(vmi, vma, end) {
		start = max(start, vma->vm_start);
		if (start > vma->vm_start)
			prev = vma;
		if (vma->vm_userfaultfd_ctx.ctx) {
			vma_end = min(end, vma->vm_end);
			/*
			 * First the lock, then the wake-up: whoever faults under
			 * the VMA's lock has parked by now and is found.
			 */
			vma_start_write(vma);
			if (userfaultfd_missing(vma) &&
			    !userfaultfd_orphaned(vma))
				userfaultfd_wake_range(vma->vm_userfaultfd_ctx.ctx,
						       start, vma_end - start);
			vma = uffd_forget(vma, start, vma_end, prev, &vmi);
			if (IS_ERR(vma)) {
				ret = PTR_ERR(vma);
				break;
			}
		}
		prev = vma;
		start = vma->vm_end;
		cond_resched();
	}
unlock:
	mmap_write_unlock(mm);
	return ret;
}

/* Leaves all of a VMA to an orphan, as it is, or with NULL to nobody. */
static struct vm_area_struct *uffd_leave(struct vm_area_struct *vma,
					 struct userfaultfd_ctx *heir,
					 struct vm_area_struct *prev,
					 struct vma_iterator *vmi)
{
	if (!heir)
		return uffd_forget(vma, vma->vm_start, vma->vm_end, prev, vmi);
	return uffd_modify(vmi, prev, vma, vma->vm_start, vma->vm_end, heir,
			   userfaultfd_modes(vma, __VM_UFFD_FLAGS));
}

/**
 * userfaultfd_release_mm() - end the care of a context altogether
 * @ctx: a context that is going away
 * @heir: the orphan to leave its VMAs to, or NULL if they are to be unregistered
 * @mm: its mm, which may be gone already
 *
 * When it returns no VMA points to the context, and nobody is on the way to
 * park there.
 *
 * Context: process context, no locks held.
 */
void userfaultfd_release_mm(struct userfaultfd_ctx *ctx,
			    struct userfaultfd_ctx *heir, struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma, *prev = NULL;

	/* An mm that is being torn down is of no interest to its VMAs. */
	if (!mmget_not_zero(mm))
		return;
	mmap_write_lock(mm);
	for_each_vma(vmi, vma) {
		if (vma->vm_userfaultfd_ctx.ctx == ctx) {
			vma_start_write(vma);
			/* It needs no split, so it does not fail. */
			vma = uffd_leave(vma, heir, prev, &vmi);
		}
		prev = vma;
		cond_resched();
	}
	mmap_write_unlock(mm);
	mmput(mm);
}

/**
 * userfaultfd_lock_vmas() - wait for faults of a context, and hold up what comes
 * @ctx: the context
 * @mm: its mm
 *
 * Context: process context; mmap_lock held for writing.  The VMAs stay locked until it
 * is released.
 */
void userfaultfd_lock_vmas(struct userfaultfd_ctx *ctx, struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;

	mmap_assert_write_locked(mm);
	for_each_vma(vmi, vma) {
		if (vma->vm_userfaultfd_ctx.ctx == ctx)
			vma_start_write(vma);
		cond_resched();
	}
}

/**
 * userfaultfd_exclude_faults() - keep faults of a context out
 * @ctx: the context
 * @mm: its mm
 *
 * When it returns, nobody who has seen what the caller is about to change in the
 * context is still on the way to park, and nobody looks at it before
 * userfaultfd_admit_faults().
 *
 * Context: process context, no locks held; the caller keeps the mm in use.  Takes
 * mmap_lock for writing, and keeps it.
 */
void userfaultfd_exclude_faults(struct userfaultfd_ctx *ctx,
				struct mm_struct *mm)
	__acquires(&mm->mmap_lock)
{
	mmap_write_lock(mm);
	userfaultfd_lock_vmas(ctx, mm);
}

/**
 * userfaultfd_admit_faults() - undo userfaultfd_exclude_faults()
 * @mm: the mm
 */
void userfaultfd_admit_faults(struct mm_struct *mm)
	__releases(&mm->mmap_lock)
{
	mmap_write_unlock(mm);
}
