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
 *		so its FORK is withdrawn.
 * deliver	it has been copied to a reader's memory.  It stops being unread.
 *
 * An operation that causes several events publishes all of them before it waits
 * for the first.
 *
 * The gate
 * --------
 * A handler that fills a page while an event is unread acts on stale knowledge:
 * what it puts there may have been dropped, moved, or be missing in a child.
 * Such a call gets -EAGAIN, which means: read on.  REMOVE and UNMAP concern
 * calls on their own range, FORK and REMAP every call.
 *
 * Calls that are under way when an event comes are caught too, without a lock
 * shared with those who cause events: each event advances a generation.  A call
 * notes it when it begins and looks at it again under each page-table lock
 * before it maps anything (userfaultfd_gate_moved()).  After it has advanced the
 * generation the change takes the same page-table lock, or else it has the VMA
 * locked for writing all along.  So either the call comes first, and what it has
 * mapped is subject to the change; or it sees the new generation, and finds out
 * if the event concerns it: among the unread ones, or in a short history of those
 * that have been read since the call began.  If so it maps nothing, drops its
 * locks and comes back to userfaultfd_gate_pass().
 *
 * Zapping passes by an empty PMD without its lock, so for the sake of those who
 * are about to set one, userfaultfd_remove() takes each such lock once.
 *
 * Calls that meet an event not yet published wait for it when there is nothing
 * the handler could read instead: it will be soon, and -EAGAIN would make the
 * handler spin.
 */

#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include "uffd.h"

/**
 * uffd_events_init() - nothing has happened yet
 * @events: zeroed memory
 */
void uffd_events_init(struct uffd_events *events)
{
	INIT_LIST_HEAD(&events->unread);
	init_waitqueue_head(&events->gate);
}

/**
 * uffd_event_is_fork() - is it a FORK?
 * @event: an event
 *
 * Return: true if it is.
 */
bool uffd_event_is_fork(const struct uffd_event *event)
{
	return event->item.msg.event == UFFD_EVENT_FORK;
}

/*
 * Nobody will ever serve the child of a FORK: its faults are its own again.
 *
 * The child's context is the forking thread's until a reader has taken the event,
 * and the reader's then.  Nobody else touches it: not release of the file, which
 * could find the child's VMAs half made, or the child running already.
 */
static void uffd_event_disown(struct uffd_event *event)
{
	if (!event->child)
		return;
	userfaultfd_release_mm(event->child, event->child->mm);
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

/* Gives the event its place.  The gate is closed from here on. */
static void uffd_event_prepare(struct uffd_event *event)
{
	struct uffd_events *events = &event->ctx->events;
	struct uffd_queue *q = &event->ctx->queue;
	LIST_HEAD(none);	/* a held event wakes nobody */

	spin_lock(&q->lock);
	__uffd_queue_append(q, &event->item, UFFD_ITEM_HELD, &none);
	list_add_tail(&event->unread, &events->unread);
	WRITE_ONCE(events->nr_unread, events->nr_unread + 1);
	event->generation = events->generation + 1;
	/* Who sees the generation sees the count: userfaultfd_gate_init(). */
	smp_store_release(&events->generation, event->generation);
	spin_unlock(&q->lock);
}

/* Takes it from the unread ones.  The queue is locked; we own its reference. */
static void uffd_event_unlink(struct uffd_event *event)
{
	struct uffd_events *events = &event->ctx->events;

	list_del(&event->unread);
	WRITE_ONCE(events->nr_unread, events->nr_unread - 1);
}

static void uffd_event_publish(struct uffd_event *event)
{
	struct uffd_queue *q = &event->ctx->queue;
	LIST_HEAD(called);

	spin_lock(&q->lock);
	/* It is not held any more if the file has been released. */
	if (event->item.state == UFFD_ITEM_HELD)
		__uffd_queue_publish(q, &event->item, &called);
	spin_unlock(&q->lock);
	uffd_queue_announce(q, &called, false);
	wake_up_all(&event->ctx->events.gate);
}

/*
 * Makes as if it had never been.  If a reader has it in his hands it becomes an
 * orphan, which is not given back to the queue if he cannot deliver it.
 */
static void uffd_event_withdraw(struct uffd_event *event)
{
	struct uffd_queue *q = &event->ctx->queue;
	LIST_HEAD(called);
	bool queued;

	spin_lock(&q->lock);
	queued = event->item.state == UFFD_ITEM_HELD ||
		 event->item.state == UFFD_ITEM_READY;
	if (queued) {
		__uffd_queue_remove(q, &event->item, &called);
		uffd_event_unlink(event);
	} else {
		event->orphan = true;
	}
	spin_unlock(&q->lock);
	uffd_queue_announce(q, &called, false);
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

static void uffd_event_wait(struct uffd_event *event)
{
	int killed;

	/* Not from a task that can no longer be killed out of it. */
	if (current->flags & PF_EXITING)
		return;
	killed = wait_for_completion_killable(&event->done);
	if (!uffd_event_is_fork(event))
		return;
	if (killed)
		uffd_event_withdraw(event);
	/* By us, or by release of the file; before the child can run. */
	if (uffd_event_gone(event))
		uffd_event_disown(event);
}

/* Publishes all events of an operation, then waits for each. */
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
	struct uffd_events *events = &event->ctx->events;
	struct uffd_queue *q = &event->ctx->queue;
	unsigned int slot;

	spin_lock(&q->lock);
	uffd_event_unlink(event);
	slot = event->generation % UFFD_HISTORY;
	/* Two readers may deliver out of order. */
	if (events->history[slot].generation &&
	    (long)(events->history[slot].generation - events->forgotten) > 0)
		events->forgotten = events->history[slot].generation;
	events->history[slot].generation = event->generation;
	events->history[slot].msg = event->item.msg;
	spin_unlock(&q->lock);
	complete(&event->done);
	uffd_event_put(event);
}

/**
 * uffd_event_putback() - it could not be copied out: it keeps its place
 * @event: a TAKEN event
 *
 * Unless nobody must read it any more: its fork() has failed meanwhile, or the
 * file has been released.
 */
void uffd_event_putback(struct uffd_event *event)
{
	struct uffd_queue *q = &event->ctx->queue;
	LIST_HEAD(called);
	bool orphan;

	spin_lock(&q->lock);
	orphan = event->orphan;
	if (orphan)
		uffd_event_unlink(event);
	else
		__uffd_queue_putback(q, &event->item, &called);
	spin_unlock(&q->lock);
	uffd_queue_announce(q, &called, false);
	if (orphan)
		uffd_event_put(event);
}

/**
 * uffd_events_release() - the file is going away: let everybody run
 * @ctx: a context without readers, which no VMA points to any more
 */
void uffd_events_release(struct userfaultfd_ctx *ctx)
{
	struct uffd_queue *q = &ctx->queue;
	struct uffd_event *event, *next;
	LIST_HEAD(none);	/* there are no readers */
	LIST_HEAD(unread);

	spin_lock(&q->lock);
	list_for_each_entry(event, &ctx->events.unread, unread)
		__uffd_queue_remove(q, &event->item, &none);
	list_splice_init(&ctx->events.unread, &unread);
	WRITE_ONCE(ctx->events.nr_unread, 0);
	spin_unlock(&q->lock);

	list_for_each_entry_safe(event, next, &unread, unread) {
		complete(&event->done);
		uffd_event_put(event);
	}
}

/*
 * The gate
 */

static bool uffd_msg_concerns(const struct uffd_msg *msg,
			      const struct uffd_gate *gate)
{
	unsigned int i;

	if (msg->event != UFFD_EVENT_REMOVE && msg->event != UFFD_EVENT_UNMAP)
		return true;
	for (i = 0; i < ARRAY_SIZE(gate->range); i++)
		if (msg->arg.remove.start < gate->range[i].end &&
		    msg->arg.remove.end > gate->range[i].start)
			return true;
	return false;
}

/* The oldest unread event that concerns the call.  The queue is locked. */
static struct uffd_event *uffd_gate_unread(const struct uffd_gate *gate)
{
	struct uffd_event *event;

	list_for_each_entry(event, &gate->ctx->events.unread, unread)
		if (uffd_msg_concerns(&event->item.msg, gate))
			return event;
	return NULL;
}

/* Has an event that concerns the call come and been read since it began? */
static bool uffd_gate_overtaken(const struct uffd_gate *gate)
{
	const struct uffd_events *events = &gate->ctx->events;
	unsigned int i;

	/* What we do not remember we must assume to concern it. */
	if ((long)(events->forgotten - gate->generation) > 0)
		return true;
	for (i = 0; i < UFFD_HISTORY; i++)
		if (events->history[i].generation &&
		    (long)(events->history[i].generation -
			   gate->generation) > 0 &&
		    uffd_msg_concerns(&events->history[i].msg, gate))
			return true;
	return false;
}

enum uffd_verdict { UFFD_PASS, UFFD_REFUSE, UFFD_WAIT };

static enum uffd_verdict uffd_gate_judge(struct uffd_gate *gate)
{
	struct userfaultfd_ctx *ctx = gate->ctx;
	enum uffd_verdict verdict = UFFD_REFUSE;
	struct uffd_event *event;

	spin_lock(&ctx->queue.lock);
	event = uffd_gate_unread(gate);
	if (event) {
		/*
		 * It can be read, or something before it can: -EAGAIN.  Or
		 * another reader has it in his hands: no waiting for him, who
		 * may need us to fault in his buffer.  Else something is held.
		 */
		if (!ctx->queue.readable &&
		    event->item.state != UFFD_ITEM_TAKEN)
			verdict = UFFD_WAIT;
	} else if (!uffd_gate_overtaken(gate)) {
		gate->generation = ctx->events.generation;
		verdict = UFFD_PASS;
	}
	spin_unlock(&ctx->queue.lock);
	return verdict;
}

/**
 * userfaultfd_gate_init() - a call begins
 * @gate: to be initialised
 * @ctx: the context it is made on
 * @start: first byte that it touches
 * @len: bytes
 */
void userfaultfd_gate_init(struct uffd_gate *gate, struct userfaultfd_ctx *ctx,
			   unsigned long start, unsigned long len)
{
	gate->ctx = ctx;
	/*
	 * Paired with uffd_event_prepare().  An event older than this is seen
	 * by userfaultfd_gate_pass(), for its count is; a younger one changes
	 * the generation.
	 */
	gate->generation = smp_load_acquire(&ctx->events.generation);
	gate->range[0].start = start;
	gate->range[0].end = start + len;
	gate->range[1].start = 0;
	gate->range[1].end = 0;
}

/**
 * userfaultfd_gate_pass() - may the call go on?
 * @gate: of the call
 *
 * Context: no locks held; may sleep until an event has been published.
 *
 * Return: 0; -EAGAIN if the handler should read on first; -EINTR if killed.
 */
int userfaultfd_gate_pass(struct uffd_gate *gate)
{
	struct uffd_events *events = &gate->ctx->events;
	enum uffd_verdict verdict;

	if (likely(!READ_ONCE(events->nr_unread) &&
		   READ_ONCE(events->generation) == gate->generation))
		return 0;

	for (;;) {
		verdict = uffd_gate_judge(gate);
		if (verdict != UFFD_WAIT)
			return verdict == UFFD_PASS ? 0 : -EAGAIN;
		if (wait_event_killable(events->gate,
					uffd_gate_judge(gate) != UFFD_WAIT))
			return -EINTR;
	}
}

/**
 * userfaultfd_gate_moved() - has an event come that concerns the call?
 * @gate: of the call; events that do not concern it are taken note of
 *
 * Context: for an answer that holds, called under the page-table lock under
 * which the call is going to map something; the queue's lock nests inside.
 *
 * Return: true if the call must let go of its locks, without mapping anything,
 * and ask userfaultfd_gate_pass() again.
 */
bool userfaultfd_gate_moved(struct uffd_gate *gate)
{
	if (likely(READ_ONCE(gate->ctx->events.generation) ==
		   gate->generation))
		return false;
	return uffd_gate_judge(gate) != UFFD_PASS;
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
	if (!event->child) {
		uffd_ctx_put(ctx);
		kfree(event);
		return NULL;
	}
	uffd_event_prepare(event);
	return event;
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

	event = uffd_fork_find(events, ctx);
	if (!event) {
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

	if (!ctx)
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
 * Return: true if nobody wants to know; false if mmap_lock has been dropped and
 * the handler told, so that @vma must be looked up again.
 */
bool userfaultfd_remove(struct vm_area_struct *vma, unsigned long start,
			unsigned long end)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;
	struct uffd_event *event;

	if (!ctx || !uffd_has(ctx, UFFD_FEATURE_EVENT_REMOVE))
		return true;

	event = uffd_event_alloc(ctx, UFFD_EVENT_REMOVE, __GFP_NOFAIL);
	event->item.msg.arg.remove.start = start;
	event->item.msg.arg.remove.end = end;
	uffd_event_prepare(event);
	userfaultfd_settle(vma->vm_mm, start, end);
	mmap_read_unlock(vma->vm_mm);

	uffd_event_publish(event);
	uffd_event_wait(event);
	uffd_event_put(event);
	return false;
}

static bool uffd_event_is_unmap(const struct uffd_event *event,
				unsigned long start, unsigned long end)
{
	const struct uffd_msg *msg = &event->item.msg;

	return msg->event == UFFD_EVENT_UNMAP &&
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
	uffd_event_prepare(event);
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
 * Return: true if it does: the handler has not asked for REMAP events.
 */
bool userfaultfd_forgets_remap(const struct userfaultfd_ctx *ctx)
{
	return !uffd_has(ctx, UFFD_FEATURE_EVENT_REMAP);
}
