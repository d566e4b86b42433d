// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: memory that is registered with nobody.
 *
 * How it works
 * ------------
 * With UFFD_FEATURE_ORPHAN_SIGBUS the last close of a descriptor leaves its VMAs
 * registered: with their modes, and with what is protected in the page tables.  The
 * context goes away as ever.  Nothing of it may stay behind, be it memory, a charge
 * or a reference to the mm: the process may lose its handlers time and again, and
 * the VMAs that they leave may be split, copied and freed by code that knows nothing
 * of references.
 *
 * So these VMAs get another context, an orphan.  It is nobody's: it has no file, no
 * mm and no references, it is there from boot on and does not change.  VMAs of all
 * processes share it, and those that lie side by side are merged.
 *
 * An orphan has UFFD_FEATURE_SIGBUS, and a fault meets what it meets where that has
 * been asked for: it is not told, and raises SIGBUS.  The fault path does not know
 * that there are orphans, and those who have none pay nothing for them.
 *
 * What else is asked of a VMA's context is whether it has certain features, of which
 * an orphan keeps what its predecessor had; so there is one for each set of them:
 *
 * WP_ASYNC, RWP_ASYNC	faults that resolve themselves have never been told, and need
 *			nobody now
 * WP_UNPOPULATED	where absent pages can be protected they still can: another
 *			descriptor may call UFFDIO_WRITEPROTECT there
 * EVENT_FORK		the child's memory is registered with nobody too; else it is
 *			not registered at all, as ever
 *
 * Each has EVENT_REMAP: a mapping that moves stays what it is.  No event is told.
 *
 * All that there is of an orphan is the head of a context.  There are no messages and
 * no sleepers, and whoever wants to look for some through a VMA has to ask first.
 */

#include <linux/bug.h>
#include <linux/build_bug.h>
#include <linux/cache.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/mm_types.h>
#include "uffd.h"

static const u64 uffd_inherited[] = {
	UFFD_FEATURE_WP_ASYNC,
	UFFD_FEATURE_RWP_ASYNC,
	UFFD_FEATURE_WP_UNPOPULATED,
	UFFD_FEATURE_EVENT_FORK,
};

/* Who finds one of these looks for the messages of the context. */
#define UFFD_ORPHANS_LACK	(UFFD_FEATURE_EVENT_REMOVE |	\
				 UFFD_FEATURE_EVENT_UNMAP |	\
				 UFFD_FEATURE_EVENT_NOWAIT |	\
				 UFFD_FEATURE_WP_LOG)

/* By the set of features that they have of the above, each a bit. */
static struct uffd_orphan {
	struct uffd_ctx_head head;
} ____cacheline_aligned_in_smp uffd_orphans[1 << ARRAY_SIZE(uffd_inherited)]
	__ro_after_init;

/**
 * uffd_heir() - with whom are the VMAs of a context to be registered when it goes?
 * @ctx: a context whose file is being released
 *
 * Return: an orphan, or NULL if with nobody at all.
 */
struct userfaultfd_ctx *uffd_heir(const struct userfaultfd_ctx *ctx)
{
	unsigned int i, set = 0;

	if (!uffd_has(ctx, UFFD_FEATURE_ORPHAN_SIGBUS))
		return NULL;
	for (i = 0; i < ARRAY_SIZE(uffd_inherited); i++)
		if (uffd_has(ctx, uffd_inherited[i]))
			set |= 1U << i;
	return container_of(&uffd_orphans[set].head, struct userfaultfd_ctx,
			    head);
}

/**
 * userfaultfd_orphaned() - is the VMA registered with nobody?
 * @vma: a VMA, locked
 *
 * Return: true if its descriptor has gone and left it registered; false too if it is
 * not registered.
 */
bool userfaultfd_orphaned(const struct vm_area_struct *vma)
{
	const struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;

	return ctx && ctx->orphan;
}

/**
 * uffd_init_orphans() - once, before the first context is made
 */
void __init uffd_init_orphans(void)
{
	struct uffd_ctx_head *head;
	unsigned int i, set;

	/* It takes the place of a whole context. */
	BUILD_BUG_ON(offsetof(struct userfaultfd_ctx, head));
	BUILD_BUG_ON(__alignof__(struct uffd_orphan) <
		     __alignof__(struct userfaultfd_ctx));

	for (set = 0; set < ARRAY_SIZE(uffd_orphans); set++) {
		head = &uffd_orphans[set].head;
		head->orphan = true;
		head->initialized = true;
		head->features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_EVENT_REMAP;
		for (i = 0; i < ARRAY_SIZE(uffd_inherited); i++)
			if (set & (1U << i))
				head->features |= uffd_inherited[i];
		WARN_ON(head->features & UFFD_ORPHANS_LACK);
	}
}
