// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: what a userfaultfd is made of, and how long it lives.
 *
 * A context belongs to its file, and to each event that is under way.  VMAs and
 * sleepers point to it without a reference: release of the file takes it out of
 * every VMA and wakes every sleeper first, and it is freed a grace period after
 * the last reference has gone.
 */

#include <linux/init.h>
#include <linux/mmdebug.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "uffd.h"

#define CREATE_TRACE_POINTS
#include <trace/events/userfaultfd.h>

static struct kmem_cache *uffd_ctx_cache __ro_after_init;

/**
 * uffd_ctx_init() - bring the parts of a context into being
 * @ctx: a context that is all zeroes
 */
void uffd_ctx_init(struct userfaultfd_ctx *ctx)
{
	uffd_events_init(&ctx->events);
	uffd_queue_init(&ctx->queue);
	uffd_index_init(&ctx->index);
}

/**
 * uffd_ctx_alloc() - make a context
 * @mm: whose memory it will serve
 * @flags: of userfaultfd(2)
 * @features: all of them, if it is a child's and they are known already; else 0
 *
 * Return: the context, with one reference, or NULL.
 */
struct userfaultfd_ctx *uffd_ctx_alloc(struct mm_struct *mm,
				       unsigned int flags, u64 features)
{
	struct userfaultfd_ctx *ctx;

	ctx = kmem_cache_zalloc(uffd_ctx_cache, GFP_KERNEL);
	if (!ctx)
		return NULL;
	refcount_set(&ctx->refs, 1);
	ctx->flags = flags;
	ctx->features = features;
	ctx->initialized = features != 0;
	uffd_ctx_init(ctx);
	mmgrab(mm);
	ctx->mm = mm;
	return ctx;
}

/**
 * uffd_ctx_get() - one more reference
 * @ctx: a context; the caller has a reference, or the lock of a VMA that
 *	points to it, or of its mm
 */
void uffd_ctx_get(struct userfaultfd_ctx *ctx)
{
	VM_WARN_ON_ONCE(ctx->orphan);
	refcount_inc(&ctx->refs);
}

/**
 * uffd_ctx_put() - drop a reference
 * @ctx: a context
 *
 * It is freed after a grace period: see fs/userfaultfd/wait.c.
 */
void uffd_ctx_put(struct userfaultfd_ctx *ctx)
{
	if (!refcount_dec_and_test(&ctx->refs))
		return;
	uffd_log_free(ctx);
	mmdrop(ctx->mm);
	kfree_rcu(ctx, rcu);
}

/**
 * uffd_ctx_init_cache() - once, before the first context is made
 */
void __init uffd_ctx_init_cache(void)
{
	uffd_ctx_cache = KMEM_CACHE(userfaultfd_ctx,
				    SLAB_HWCACHE_ALIGN | SLAB_PANIC |
				    SLAB_ACCOUNT);
}
