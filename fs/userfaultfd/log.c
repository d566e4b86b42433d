// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: first writes to protected pages, told without a wait.
 *
 * How it works
 * ------------
 * With UFFD_FEATURE_WP_ASYNC the first write to a protected page takes the
 * protection off and goes on.  With UFFD_FEATURE_WP_LOG it leaves a message as well,
 * in the same hold of the page-table lock.  So whoever looks at the page table
 * finds the page unprotected only if the message is in the queue, or was.
 *
 * Nothing can be allocated there, so the messages are made beforehand, as many as
 * the log is to hold, and are used over and over.  A page that touches the newest
 * message there has ever been, if that is a WRITE, unread and of the same VMA, is
 * added to it.  The others are read in their place among faults and events.
 *
 * A WRITE concerns nobody's fill, so the gate does not know of it; nor is it urgent.
 * It wakes a reader only when so many are unread that it is worth a wake-up.  Who
 * comes to read gets what there is.
 *
 * If there is no message left, WRITE_LOST is queued, for which there is always
 * room, and counts as urgent.  Its reader has to ask the page table.  While it is
 * unread more may be lost without a message of their own: who lost them held the
 * page-table lock before the reader could know that it had to look.
 */

#include <linux/align.h>
#include <linux/memcontrol.h>
#include <linux/overflow.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include "uffd.h"

/**
 * struct uffd_log - messages about writes
 * @size: how many there are of @item
 * @fresh: how many of these have ever been used
 * @used: how many messages are in the queue or on their way to a reader
 * @free: others that have been used
 * @lost: the one for what could not be told
 * @item: the messages
 *
 * All but @size is guarded by the queue's lock.
 */
struct uffd_log {
	unsigned int size;
	unsigned int fresh;
	unsigned int used;
	struct list_head free;
	struct uffd_item lost;
	struct uffd_item item[] __counted_by(size);
};

/*
 * Who pays: whom the memory belongs to, whoever makes the call.  A process that has
 * exited or called exec() belongs to nobody any more, and then the caller does.
 */
static struct mem_cgroup *uffd_log_payer(struct mm_struct *mm)
{
	struct mem_cgroup *memcg = get_mem_cgroup_from_mm(mm);

	if (!memcg || !mem_cgroup_is_root(memcg))
		return memcg;
	mem_cgroup_put(memcg);
	return NULL;
}

static struct uffd_log *uffd_log_alloc(struct mm_struct *mm, unsigned int size)
{
	struct mem_cgroup *memcg = uffd_log_payer(mm);
	struct mem_cgroup *old = set_active_memcg(memcg);
	struct uffd_log *log;

	/*
	 * How much it is the caller says, and is told if there is no more: nobody is
	 * killed to make room for it.
	 */
	log = kvzalloc(struct_size(log, item, size),
		       GFP_KERNEL_ACCOUNT | __GFP_NOWARN | __GFP_RETRY_MAYFAIL);
	set_active_memcg(old);
	mem_cgroup_put(memcg);
	if (!log)
		return NULL;
	log->size = size;
	INIT_LIST_HEAD(&log->free);
	log->lost.msg.event = UFFD_EVENT_WRITE_LOST;
	return log;
}

/*
 * Takes the new log, if there is one, and leaves the old one in its place: or the new
 * one, if that cannot be.  The queue is locked.
 */
static int __uffd_log_set(struct userfaultfd_ctx *ctx, struct uffd_log **new,
			  u64 watermark)
{
	struct uffd_queue *q = &ctx->queue;
	unsigned int size = *new ? (*new)->size : ctx->log->size;

	if (!watermark)
		watermark = min(q->watermark, size);
	if (watermark > size)
		return -EINVAL;
	if (size != ctx->log->size) {
		/* A reader has yet to see, or to give back, a part of it. */
		if (ctx->log->used)
			return -EBUSY;
		swap(ctx->log, *new);
	}
	/* Paired with uffd_queue_due(), which may look with no lock. */
	WRITE_ONCE(q->watermark, watermark);
	return 0;
}

/**
 * uffd_log_set() - how large is it, and when is a reader woken?
 * @ctx: a context that has a log, or is to have one
 * @size: messages it can hold, or 0; replaced by what holds now
 * @watermark: unread messages that wake a reader, or 0; the same
 *
 * What is 0 stays as it is.
 *
 * Return: 0; -EINVAL if one of them is out of bounds; -EBUSY if another size is asked
 * for while messages of the log are unread; -ENOMEM.
 */
int uffd_log_set(struct userfaultfd_ctx *ctx, u64 *size, u64 *watermark)
{
	struct uffd_queue *q = &ctx->queue;
	struct uffd_log *new = NULL;
	unsigned int readers = 0;
	int ret;

	if (*size > UFFD_LOG_MAX || (*size && *watermark > *size))
		return -EINVAL;
	if (*size) {
		new = uffd_log_alloc(ctx->mm, *size);
		if (!new)
			return -ENOMEM;
	}

	spin_lock(&q->lock);
	ret = __uffd_log_set(ctx, &new, *watermark);
	if (!ret && uffd_queue_due(q))
		readers = 1;
	*size = ctx->log->size;
	*watermark = q->watermark;
	spin_unlock(&q->lock);
	kvfree(new);
	uffd_queue_announce(q, readers, false);
	return ret;
}

/* Gives the context a log of its own; @mm pays. */
static int uffd_log_install(struct userfaultfd_ctx *ctx, struct mm_struct *mm,
			    unsigned int size, unsigned int watermark)
{
	struct uffd_log *log = uffd_log_alloc(mm, size);

	if (!log)
		return -ENOMEM;
	spin_lock(&ctx->queue.lock);
	/* Two may be in UFFDIO_API at once, and the first be using its log already. */
	if (!ctx->log) {
		swap(ctx->log, log);
		WRITE_ONCE(ctx->queue.watermark, watermark);
	}
	spin_unlock(&ctx->queue.lock);
	kvfree(log);
	return 0;
}

/**
 * uffd_log_init() - a context is to have a log
 * @ctx: a context that is not initialized yet
 *
 * Return: 0 or -ENOMEM.
 */
int uffd_log_init(struct userfaultfd_ctx *ctx)
{
	return uffd_log_install(ctx, ctx->mm, UFFD_LOG_SIZE, UFFD_LOG_WATERMARK);
}

/**
 * uffd_log_inherit() - a child's context is to have a log if its parent's has
 * @ctx: the child's context, not in use yet
 * @parent: its parent's
 *
 * It is charged as the parent's is: the child belongs to no cgroup yet.
 *
 * Return: 0 or -ENOMEM.
 */
int uffd_log_inherit(struct userfaultfd_ctx *ctx,
		     struct userfaultfd_ctx *parent)
{
	unsigned int size, watermark;

	if (!uffd_has(parent, UFFD_FEATURE_WP_LOG))
		return 0;
	spin_lock(&parent->queue.lock);
	size = parent->log->size;
	watermark = parent->queue.watermark;
	spin_unlock(&parent->queue.lock);
	return uffd_log_install(ctx, parent->mm, size, watermark);
}

/**
 * uffd_log_free() - the context is going away
 * @ctx: a context that no VMA and no file points to
 */
void uffd_log_free(struct userfaultfd_ctx *ctx)
{
	kvfree(ctx->log);
}

/* The queue is locked. */
static struct uffd_item *uffd_log_get(struct uffd_log *log)
{
	struct uffd_item *item;

	item = list_first_entry_or_null(&log->free, struct uffd_item, link);
	if (item)
		list_del(&item->link);
	else if (log->fresh < log->size)
		item = &log->item[log->fresh++];
	return item;
}

/*
 * Adds it to the newest message, if it touches that.  Not across the bounds of the VMA:
 * the range of a message is to be one that can be protected, and another VMA may have
 * larger pages.  The queue is locked.
 */
static bool uffd_log_merge(struct uffd_queue *q,
			   const struct vm_area_struct *vma,
			   unsigned long start, unsigned long end)
{
	struct uffd_item *item;

	item = __uffd_queue_newest(q, UFFD_EVENT_WRITE, start, end);
	if (!item || item->msg.arg.remove.start < vma->vm_start ||
	    item->msg.arg.remove.end > vma->vm_end)
		return false;
	item->msg.arg.remove.start = min_t(u64, item->msg.arg.remove.start, start);
	item->msg.arg.remove.end = max_t(u64, item->msg.arg.remove.end, end);
	return true;
}

/* Returns how many readers there is work for.  The queue is locked. */
static unsigned int uffd_log_add(struct userfaultfd_ctx *ctx,
				 const struct vm_area_struct *vma,
				 unsigned long start, unsigned long end)
{
	struct uffd_queue *q = &ctx->queue;
	struct uffd_log *log = ctx->log;
	struct uffd_item *item;
	unsigned int readers;

	if (uffd_log_merge(q, vma, start, end))
		return 0;
	item = uffd_log_get(log);
	if (!item) {
		/* Whoever has yet to read it finds this as well. */
		if (log->lost.state != UFFD_ITEM_NEW)
			return 0;
		log->used++;
		return __uffd_queue_append(q, &log->lost, UFFD_ITEM_READY);
	}
	log->used++;
	item->msg.event = UFFD_EVENT_WRITE;
	item->msg.arg.remove.start = start;
	item->msg.arg.remove.end = end;
	readers = __uffd_queue_append(q, item, UFFD_ITEM_READY);
	return q->writes == q->watermark ? readers : 0;
}

/**
 * userfaultfd_log_write() - the first write to a protected page resolves itself
 * @vma: the VMA, locked
 * @address: an address in the page
 * @size: of the page, a power of 2
 *
 * Context: the page-table lock is held, and has been since the page was found
 * protected.
 */
void userfaultfd_log_write(struct vm_area_struct *vma, unsigned long address,
			   unsigned long size)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;
	unsigned long start = ALIGN_DOWN(address, size);
	unsigned int readers;

	/* Bits may be left over from a registration before. */
	if (!userfaultfd_wp(vma) || !uffd_has(ctx, UFFD_FEATURE_WP_LOG))
		return;
	spin_lock(&ctx->queue.lock);
	readers = uffd_log_add(ctx, vma, start, start + size);
	spin_unlock(&ctx->queue.lock);
	/* Wakes once in a while, with no lock of ours held but the page table's. */
	uffd_queue_announce(&ctx->queue, readers, false);
}

/* The queue is locked. */
static void uffd_log_put(struct uffd_log *log, struct uffd_item *item)
{
	WRITE_ONCE(item->state, UFFD_ITEM_NEW);
	log->used--;
	if (item != &log->lost)
		list_add(&item->link, &log->free);
}

/**
 * uffd_log_delivered() - messages have reached their reader
 * @ctx: the context
 * @batch: of messages that have been taken
 * @nr: how many of them; those of the log may be used again
 */
void uffd_log_delivered(struct userfaultfd_ctx *ctx,
			const struct uffd_batch *batch, unsigned int nr)
{
	unsigned int i;

	spin_lock(&ctx->queue.lock);
	for (i = 0; i < nr; i++)
		if (uffd_msg_is_logged(&batch->msg[i]))
			uffd_log_put(ctx->log, batch->item[i].write);
	spin_unlock(&ctx->queue.lock);
}

/**
 * uffd_log_collect() - a message of the log could not be copied out
 * @ctx: the context
 * @item: a TAKEN message of its log
 * @returning: messages on their way back; it becomes the last one
 *
 * To be followed by uffd_queue_putback().
 */
void uffd_log_collect(struct userfaultfd_ctx *ctx, struct uffd_item *item,
		      struct list_head *returning)
{
	spin_lock(&ctx->queue.lock);
	__uffd_queue_collect(&ctx->queue, item, returning);
	spin_unlock(&ctx->queue.lock);
}
