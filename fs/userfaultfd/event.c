// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: changes of the address space, and the gate they close.
 *
 * How it works
 * ------------
 * fork(), mremap(), madvise() and munmap() tell the handler what they do to
 * registered memory.  An event goes through these steps:
 *
 * prepare	under the lock that makes the change atomic, the event gets its
 *		place in the queue, HELD: faults that come after the change stand
 *		behind it, and nobody reads past it.  From here on it is unread.
 * publish	the change is made and the lock dropped: it can be read.
 * wait		the thread that caused it sleeps until it has been read, or the
 *		file is gone, or it is killed.  A killed thread leaves its event
 *		behind, since the change has happened; but a killed fork() fails,
 *		so its FORK is withdrawn.  Who need not wait leaves its event at
 *		once: see nowait.c, and there how many may be left.
 * deliver	it has been copied to a reader's memory.  It stops being unread.
 *
 * An operation that causes several events publishes all of them before it waits
 * for the first.
 *
 * What an unread event refuses is decided in gate.c.
 */

#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <trace/events/userfaultfd.h>
#include "uffd.h"

/*
 * Nobody will ever serve the child of a FORK: its faults are its own again, or raise
 * SIGBUS if that was asked for.
 *
 * The child's context is the forking thread's until a reader has taken the event,
 * and the reader's then.  Nobody else touches it: not release of the file, which
 * could find the child's VMAs half made, or the child running already.
 */
static void uffd_event_disown(struct uffd_event *event)
{
	if (!event->child)
		return;
	userfaultfd_release_mm(event->child, uffd_heir(event->child),
			       event->child->mm);
	uffd_ctx_put(event->child);
	event->child = NULL;
}

static void uffd_event_put(struct uffd_event *event)
{
	if (!refcount_dec_and_test(&event->refs))
		return;
	uffd_event_disown(event);
	uffd_ctx_put(event->ctx);
	kfree(event);
}

static struct uffd_event *uffd_event_alloc(struct userfaultfd_ctx *ctx,
					   u8 type, gfp_t gfp)
{
	struct uffd_event *event;

	event = kzalloc(sizeof(*event), gfp | GFP_KERNEL_ACCOUNT);
	if (!event)
		return NULL;
	event->item.msg.event = type;
	refcount_set(&event->refs, 2);
	init_completion(&event->done);
	uffd_ctx_get(ctx);
	event->ctx = ctx;
	return event;
}

/* It has never been queued. */
static void uffd_event_discard(struct uffd_event *event)
{
	uffd_ctx_put(event->ctx);
	kfree(event);
}

/* Gives the event its place, if there is one.  The gate is closed from here on. */
static bool uffd_event_prepare(struct uffd_event *event)
{
	struct uffd_queue *q = &event->ctx->queue;
	bool admitted;

	spin_lock(&q->lock);
	admitted = __uffd_event_admit(event);
	if (admitted) {
		__uffd_queue_append(q, &event->item, UFFD_ITEM_HELD);
		__uffd_gate_close(event);
	}
	spin_unlock(&q->lock);
	return admitted;
}

/*
 * May be called again.  Only the thread that has prepared an event publishes it, and
 * else nobody but release of the file changes its state from HELD.
 */
static void uffd_event_publish(struct uffd_event *event)
{
	struct uffd_queue *q = &event->ctx->queue;
	unsigned int readers = 0;

	spin_lock(&q->lock);
	if (event->item.state == UFFD_ITEM_HELD) {
		trace_uffd_event(event->ctx->id, &event->item.msg);
		readers = __uffd_queue_publish(q, &event->item);
	}
	spin_unlock(&q->lock);
	uffd_queue_announce(q, readers, false);
	wake_up_all(&event->ctx->events.gate);
}

/*
 * Makes as if it had never been.  If a reader carries it, it is left to that reader,
 * who does not give it back to the queue if it cannot be delivered.
 */
static void uffd_event_withdraw(struct uffd_event *event)
{
	struct uffd_queue *q = &event->ctx->queue;
	unsigned int readers = 0;
	bool queued, nudge;

	spin_lock(&q->lock);
	queued = uffd_item_linked(&event->item);
	if (queued) {
		readers = __uffd_queue_remove(q, &event->item);
		__uffd_gate_open(event, false);
	} else {
		event->withdrawn = true;
	}
	nudge = __uffd_queue_go_on(q);
	spin_unlock(&q->lock);
	uffd_queue_announce(q, readers, false);
	if (nudge)
		uffd_queue_nudge(q);
	wake_up_all(&event->ctx->events.gate);
	if (queued)
		uffd_event_put(event);
}

static bool uffd_event_gone(struct uffd_event *event)
{
	struct uffd_queue *q = &event->ctx->queue;
	bool gone;

	spin_lock(&q->lock);
	gone = event->item.state == UFFD_ITEM_GONE;
	spin_unlock(&q->lock);
	return gone;
}

/* Not inline: this name in wchan says what a thread waits for. */
static noinline void uffd_event_wait(struct uffd_event *event)
{
	bool killed;

	if (event->nowait)
		return;
	/* Not from a task that can no longer be killed out of it. */
	killed = (current->flags & PF_EXITING) ||
		 wait_for_completion_killable(&event->done);
	/* A killed thread leaves its event to the queue. */
	if (!uffd_event_is_fork(event))
		return;
	if (killed)
		uffd_event_withdraw(event);
	/* By us, or by release of the file; before the child can run. */
	if (uffd_event_gone(event))
		uffd_event_disown(event);
}

/* Publishes all events of an operation, then waits for each that asks for it. */
static void uffd_events_complete(struct list_head *batch)
{
	struct uffd_event *event, *next;

	list_for_each_entry(event, batch, batch)
		uffd_event_publish(event);
	list_for_each_entry_safe(event, next, batch, batch) {
		list_del(&event->batch);
		uffd_event_wait(event);
		uffd_event_put(event);
	}
}

/**
 * uffd_event_delivered() - a reader has it: the gate opens, its thread runs
 * @event: a TAKEN event that has been copied out; the queue's reference to it
 *	is dropped
 */
void uffd_event_delivered(struct uffd_event *event)
{
	struct uffd_queue *q = &event->ctx->queue;
	bool nudge;

	spin_lock(&q->lock);
	q->carried--;
	__uffd_gate_open(event, true);
	nudge = __uffd_queue_go_on(q);
	spin_unlock(&q->lock);
	if (nudge)
		uffd_queue_nudge(q);
	complete(&event->done);
	uffd_event_put(event);
}

/**
 * uffd_event_collect() - it could not be copied out: it keeps its place
 * @event: a TAKEN event
 * @returning: messages on their way back; it becomes the last one
 *
 * Unless nobody must read it any more: its fork() has failed meanwhile.
 *
 * To be followed by uffd_queue_putback().
 */
void uffd_event_collect(struct uffd_event *event, struct list_head *returning)
{
	struct uffd_queue *q = &event->ctx->queue;
	bool withdrawn, nudge = false;

	spin_lock(&q->lock);
	withdrawn = event->withdrawn;
	if (withdrawn) {
		q->carried--;
		__uffd_gate_open(event, false);
		nudge = __uffd_queue_go_on(q);
	} else {
		__uffd_queue_collect(q, &event->item, returning);
	}
	spin_unlock(&q->lock);
	if (nudge)
		uffd_queue_nudge(q);
	if (withdrawn)
		uffd_event_put(event);
}

/**
 * uffd_events_release() - the file is going away: let everybody run
 * @ctx: a context without readers and sleepers, which no VMA points to any more
 */
void uffd_events_release(struct userfaultfd_ctx *ctx)
{
	struct uffd_queue *q = &ctx->queue;
	struct uffd_item *item, *next;
	struct uffd_event *event;
	LIST_HEAD(gone);

	/* There are no faults left, and no readers to tell. */
	spin_lock(&q->lock);
	list_for_each_entry_safe(item, next, &q->items, link) {
		__uffd_queue_remove(q, item);
		/* The log is freed as a whole. */
		if (uffd_item_is_logged(item))
			continue;
		event = container_of(item, struct uffd_event, item);
		__uffd_gate_open(event, false);
		list_add_tail(&item->link, &gone);
	}
	spin_unlock(&q->lock);

	list_for_each_entry_safe(item, next, &gone, link) {
		event = container_of(item, struct uffd_event, item);
		complete(&event->done);
		uffd_event_put(event);
	}
}

/*
 * The hooks
 */

static struct uffd_event *uffd_fork_find(const struct list_head *events,
					 const struct userfaultfd_ctx *ctx)
{
	struct uffd_event *event;

	list_for_each_entry(event, events, batch)
		if (event->ctx == ctx)
			return event;
	return NULL;
}

static struct uffd_event *uffd_fork_prepare(struct userfaultfd_ctx *ctx,
					    struct mm_struct *mm)
{
	struct uffd_event *event;

	event = uffd_event_alloc(ctx, UFFD_EVENT_FORK, 0);
	if (!event)
		return NULL;
	event->child = uffd_ctx_alloc(mm, ctx->flags, ctx->features);
	if (!event->child)
		goto discard;
	if (uffd_log_inherit(event->child, ctx)) {
		uffd_ctx_put(event->child);
		goto discard;
	}
	/*
	 * A write to a VMA that is copied later is in the child's memory as well.  It
	 * is either told of before the FORK, or waits until all has been copied.
	 */
	if (uffd_has(ctx, UFFD_FEATURE_WP_LOG))
		userfaultfd_lock_vmas(ctx, ctx->mm);
	uffd_event_prepare(event);
	return event;

discard:
	uffd_event_discard(event);
	return NULL;
}

/**
 * dup_userfaultfd() - a registered VMA has been copied by fork()
 * @vma: the copy
 * @events: the events of this fork(), one for each context
 *
 * Context: both mms' mmap_lock held for writing.
 *
 * Return: 0 or -ENOMEM.
 */
int dup_userfaultfd(struct vm_area_struct *vma, struct list_head *events)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;
	struct uffd_event *event;

	if (!ctx)
		return 0;
	if (!uffd_has(ctx, UFFD_FEATURE_EVENT_FORK)) {
		userfaultfd_reset_ctx(vma);
		return 0;
	}
	/* Nor is the child's memory anybody's then. */
	if (ctx->orphan)
		return 0;

	event = uffd_fork_find(events, ctx);
	if (!event) {
		if (uffd_events_full(ctx, 1))
			return -ENOMEM;
		event = uffd_fork_prepare(ctx, vma->vm_mm);
		if (!event)
			return -ENOMEM;
		list_add_tail(&event->batch, events);
	}
	vma->vm_userfaultfd_ctx.ctx = event->child;
	return 0;
}

/**
 * dup_userfaultfd_complete() - the memory of a fork() has been copied
 * @events: its events
 *
 * Context: no locks of either mm held.  Waits, killably, for the handlers.
 */
void dup_userfaultfd_complete(struct list_head *events)
{
	uffd_events_complete(events);
}

/**
 * dup_userfaultfd_fail() - a fork() has failed: nothing has happened
 * @events: its events
 */
void dup_userfaultfd_fail(struct list_head *events)
{
	struct uffd_event *event, *next;

	list_for_each_entry_safe(event, next, events, batch) {
		list_del(&event->batch);
		/*
		 * Not uffd_event_disown(): the VMAs that point to the child's
		 * context are torn down without a look at it, and are in no
		 * state to be walked.
		 */
		uffd_ctx_put(event->child);
		event->child = NULL;
		uffd_event_withdraw(event);
		uffd_event_put(event);
	}
}

/**
 * mremap_userfaultfd_may_move() - can mremap() of a VMA be told of?
 * @vma: the VMA, before it is moved
 * @room: how many events there may be to tell from here on
 *
 * Context: mmap_lock held for writing.
 *
 * Return: false if too many events are unread.
 */
bool mremap_userfaultfd_may_move(const struct vm_area_struct *vma,
				 unsigned int room)
{
	const struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;

	return !ctx || ctx->orphan ||
	       !uffd_has(ctx, UFFD_FEATURE_EVENT_REMAP |
			      UFFD_FEATURE_EVENT_UNMAP) ||
	       !uffd_events_full(ctx, room);
}

/**
 * mremap_userfaultfd_prep() - a registered VMA has been moved
 * @vma: the VMA at the new place
 * @events: the events of this mremap()
 *
 * Context: mmap_lock held for writing.
 */
void mremap_userfaultfd_prep(struct vm_area_struct *vma,
			     struct list_head *events)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;
	struct uffd_event *event;

	/* What is nobody's stays so, and there is nobody to tell. */
	if (!ctx || ctx->orphan)
		return;
	if (userfaultfd_forgets_remap(ctx)) {
		userfaultfd_reset_ctx(vma);
		return;
	}
	/* The pages have been moved: it is too late to fail. */
	event = uffd_event_alloc(ctx, UFFD_EVENT_REMAP, __GFP_NOFAIL);
	uffd_event_prepare(event);
	list_add_tail(&event->batch, events);
}

/**
 * mremap_userfaultfd_complete() - an mremap() is over
 * @events: its events, the REMAP and any UNMAP
 * @from: first byte of the old place
 * @to: first byte of the new place, or a negative errno
 * @len: bytes at the old place
 *
 * Context: no locks of the mm held.  Waits, killably, for the handlers.
 */
void mremap_userfaultfd_complete(struct list_head *events, unsigned long from,
				 unsigned long to, unsigned long len)
{
	struct uffd_event *event;

	list_for_each_entry(event, events, batch) {
		if (event->item.msg.event != UFFD_EVENT_REMAP)
			continue;
		event->item.msg.arg.remap.from = from;
		event->item.msg.arg.remap.to = to;
		event->item.msg.arg.remap.len = len;
	}
	uffd_events_complete(events);
}

/**
 * userfaultfd_remove() - pages of a registered VMA are about to be dropped
 * @vma: the VMA
 * @start: first byte
 * @end: byte after the last
 *
 * Context: mmap_lock held for reading.
 *
 * Return: 0, with the lock held, if nobody wants to know or nobody waits for it to be
 * read; 1 if mmap_lock has been dropped and the handler told, so that @vma must be
 * looked up again; -EAGAIN, with the lock held, if too many events are unread.
 */
int userfaultfd_remove(struct vm_area_struct *vma, unsigned long start,
		       unsigned long end)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;
	struct uffd_event *event;
	bool waits;

	if (!ctx || !uffd_has(ctx, UFFD_FEATURE_EVENT_REMOVE))
		return 0;
	if (uffd_has(ctx, UFFD_FEATURE_EVENT_NOWAIT) &&
	    uffd_remove_merge(ctx, start, end)) {
		userfaultfd_settle(vma, start, end);
		return 0;
	}

	event = uffd_event_alloc(ctx, UFFD_EVENT_REMOVE, __GFP_NOFAIL);
	event->item.msg.arg.remove.start = start;
	event->item.msg.arg.remove.end = end;
	if (!uffd_event_prepare(event)) {
		uffd_event_discard(event);
		return -EAGAIN;
	}
	userfaultfd_settle(vma, start, end);
	waits = !event->nowait;
	if (waits)
		mmap_read_unlock(vma->vm_mm);
	uffd_event_publish(event);
	uffd_event_wait(event);
	uffd_event_put(event);
	return waits;
}

/*
 * Is it the UNMAP of this range, and not complete?  One operation may unmap a range
 * twice: mremap() could, if it fails after it has made room at the destination.
 */
static bool uffd_event_is_unmap(const struct uffd_event *event,
				unsigned long start, unsigned long end)
{
	const struct uffd_msg *msg = &event->item.msg;

	return msg->event == UFFD_EVENT_UNMAP && !event->unmapped &&
	       msg->arg.remove.start == start && msg->arg.remove.end == end;
}

static bool uffd_unmap_known(const struct list_head *events,
			     const struct userfaultfd_ctx *ctx,
			     unsigned long start, unsigned long end)
{
	struct uffd_event *event;

	list_for_each_entry(event, events, batch)
		if (event->ctx == ctx && uffd_event_is_unmap(event, start, end))
			return true;
	return false;
}

/**
 * userfaultfd_unmap_prep() - a range with a registered VMA is being unmapped
 * @vma: one of its VMAs
 * @start: first byte of the range, not of the VMA
 * @end: byte after its last
 * @events: the events of this operation; one for a range and context
 *
 * Context: mmap_lock held for writing.
 *
 * Return: 0 or -ENOMEM.
 */
int userfaultfd_unmap_prep(struct vm_area_struct *vma, unsigned long start,
			   unsigned long end, struct list_head *events)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;
	struct uffd_event *event;

	if (!ctx || !uffd_has(ctx, UFFD_FEATURE_EVENT_UNMAP) ||
	    uffd_unmap_known(events, ctx, start, end))
		return 0;

	event = uffd_event_alloc(ctx, UFFD_EVENT_UNMAP, 0);
	if (!event)
		return -ENOMEM;
	event->item.msg.arg.remove.start = start;
	event->item.msg.arg.remove.end = end;
	if (!uffd_event_prepare(event)) {
		uffd_event_discard(event);
		return -ENOMEM;
	}
	list_add_tail(&event->batch, events);
	return 0;
}

/**
 * userfaultfd_unmap_fail() - a range has not been unmapped after all
 * @events: the events of this operation, or NULL
 * @start: first byte of the range
 * @end: byte after its last
 *
 * Context: mmap_lock held for writing.
 */
void userfaultfd_unmap_fail(struct list_head *events, unsigned long start,
			    unsigned long end)
{
	struct uffd_event *event, *next;

	if (!events)
		return;
	list_for_each_entry_safe(event, next, events, batch) {
		if (!uffd_event_is_unmap(event, start, end))
			continue;
		list_del(&event->batch);
		uffd_event_withdraw(event);
		uffd_event_put(event);
	}
}

/**
 * userfaultfd_unmap_publish() - nothing can keep a range from being unmapped now
 * @events: the events of this operation, or NULL
 * @start: first byte of the range
 * @end: byte after its last
 *
 * The range has no VMAs any more, and whoever wants to map something there waits for
 * mmap_lock.  So the handler may know before the pages are gone, which takes long in
 * a large range, and calls that the event concerns need not wait for that.
 *
 * Context: mmap_lock held.
 */
void userfaultfd_unmap_publish(struct list_head *events, unsigned long start,
			       unsigned long end)
{
	struct uffd_event *event;

	if (!events)
		return;
	list_for_each_entry(event, events, batch) {
		if (!uffd_event_is_unmap(event, start, end))
			continue;
		event->unmapped = true;
		uffd_event_publish(event);
	}
}

/**
 * userfaultfd_unmap_complete() - what was to be unmapped is unmapped
 * @mm: the mm
 * @events: the events
 *
 * Context: no locks of the mm held.  Waits, killably, for the handlers.
 */
void userfaultfd_unmap_complete(struct mm_struct *mm, struct list_head *events)
{
	uffd_events_complete(events);
}

/**
 * userfaultfd_forgets_remap() - does mremap() end a registration?
 * @ctx: the context
 *
 * Return: true if it does: there is a handler, and it has not asked for REMAP events.
 */
bool userfaultfd_forgets_remap(const struct userfaultfd_ctx *ctx)
{
	return !uffd_has(ctx, UFFD_FEATURE_EVENT_REMAP);
}
