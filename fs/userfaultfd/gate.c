// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: what an unread event refuses.
 *
 * How it works
 * ------------
 * A handler that fills a page while an event is unread acts on stale knowledge:
 * what it puts there may have been dropped, moved, or be missing in a child.
 * Such a call gets -EAGAIN, which means: read on.  REMOVE and UNMAP concern
 * calls on their own range, FORK and REMAP every call.  Unread events with a range
 * stand in an interval tree, the others are counted: so the answer does not take
 * longer when there are many.
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
 * A call may meet an event that is not published yet, with nothing before it that
 * the handler could read instead.  -EAGAIN would make the handler spin.  So the
 * call waits until the change is complete; on a descriptor with O_NONBLOCK it does
 * not, but poll() reports the descriptor readable when the call may be tried again,
 * whether a message has come by then or not.
 */

#include <linux/interval_tree_generic.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <trace/events/userfaultfd.h>
#include "uffd.h"

#define uffd_event_first(event)	((unsigned long)(event)->item.msg.arg.remove.start)
#define uffd_event_last(event)	((unsigned long)(event)->item.msg.arg.remove.end - 1)

INTERVAL_TREE_DEFINE(struct uffd_event, node, unsigned long, subtree_last,
		     uffd_event_first, uffd_event_last, static __maybe_unused,
		     uffd_range)

static bool uffd_msg_has_range(const struct uffd_msg *msg)
{
	return msg->event == UFFD_EVENT_REMOVE || msg->event == UFFD_EVENT_UNMAP;
}

/**
 * uffd_events_init() - nothing has happened yet
 * @events: zeroed memory
 */
void uffd_events_init(struct uffd_events *events)
{
	events->ranges = RB_ROOT_CACHED;
	init_waitqueue_head(&events->gate);
}

/**
 * __uffd_gate_close() - from here on an event refuses what it concerns
 * @event: an event that has just been given its place in the queue
 *
 * Context: the queue is locked.
 */
void __uffd_gate_close(struct uffd_event *event)
{
	struct uffd_events *events = &event->ctx->events;

	lockdep_assert_held(&event->ctx->queue.lock);
	if (uffd_msg_has_range(&event->item.msg))
		uffd_range_insert(event, &events->ranges);
	else
		events->everywhere++;
	event->unread = true;
	WRITE_ONCE(events->nr_unread, events->nr_unread + 1);
	/* Who sees the generation sees the count: userfaultfd_gate_init(). */
	smp_store_release(&events->generation, events->generation + 1);
}

/**
 * __uffd_gate_widen() - an event is about more than it was
 * @event: an unread event with a range, in the queue
 * @start: first byte of what is added to it, which touches its range
 * @end: byte after the last
 *
 * For a call under way this is as good as another event: it advances the
 * generation.
 *
 * Context: the queue is locked.
 */
void __uffd_gate_widen(struct uffd_event *event, unsigned long start,
		       unsigned long end)
{
	struct uffd_events *events = &event->ctx->events;
	struct uffd_msg *msg = &event->item.msg;

	lockdep_assert_held(&event->ctx->queue.lock);
	uffd_range_remove(event, &events->ranges);
	msg->arg.remove.start = min_t(u64, msg->arg.remove.start, start);
	msg->arg.remove.end = max_t(u64, msg->arg.remove.end, end);
	uffd_range_insert(event, &events->ranges);
	/* As in __uffd_gate_close(); that it is unread has been seen or will be. */
	smp_store_release(&events->generation, events->generation + 1);
}

/**
 * __uffd_gate_open() - an event refuses nothing any more
 * @event: an unread event
 * @delivered: it has been read, so calls that began before are still measured
 *	against it; else it has not happened
 *
 * Context: the queue is locked.
 */
void __uffd_gate_open(struct uffd_event *event, bool delivered)
{
	struct uffd_events *events = &event->ctx->events;

	lockdep_assert_held(&event->ctx->queue.lock);
	if (uffd_msg_has_range(&event->item.msg))
		uffd_range_remove(event, &events->ranges);
	else
		events->everywhere--;
	event->unread = false;
	if (event->counted)
		WRITE_ONCE(events->waited, events->waited - 1);
	if (delivered) {
		WRITE_ONCE(events->delivered, events->delivered + 1);
		events->history[events->delivered % UFFD_HISTORY] =
			event->item.msg;
	}
	/* Who sees this count sees the other: userfaultfd_gate_pass(). */
	smp_store_release(&events->nr_unread, events->nr_unread - 1);
}

static bool uffd_msg_concerns(const struct uffd_msg *msg,
			      const struct uffd_gate *gate)
{
	unsigned int i;

	if (!uffd_msg_has_range(msg))
		return true;
	for (i = 0; i < ARRAY_SIZE(gate->range); i++)
		if (msg->arg.remove.start < gate->range[i].end &&
		    msg->arg.remove.end > gate->range[i].start)
			return true;
	return false;
}

/* Which event a call is refused for, as far as that is known, and why. */
struct uffd_obstacle {
	unsigned int why;
	const struct uffd_msg *event;
};

/* Does an unread event concern the call?  The queue is locked. */
static bool uffd_gate_closed(const struct uffd_gate *gate,
			     struct uffd_obstacle *obstacle)
{
	struct uffd_events *events = &gate->ctx->events;
	struct uffd_event *event;
	unsigned int i;

	if (events->everywhere) {
		*obstacle = (struct uffd_obstacle){ UFFD_REFUSED_ALL };
		return true;
	}
	for (i = 0; i < ARRAY_SIZE(gate->range); i++) {
		if (!gate->range[i].end)
			continue;
		event = uffd_range_iter_first(&events->ranges,
					      gate->range[i].start,
					      gate->range[i].end - 1);
		if (event) {
			*obstacle = (struct uffd_obstacle){ UFFD_REFUSED_UNREAD,
							    &event->item.msg };
			return true;
		}
	}
	return false;
}

/*
 * Has an event that concerns the call been read since it began?  Whether it came
 * before or after that: the caller did not know of it.  The queue is locked.
 */
static bool uffd_gate_overtaken(const struct uffd_gate *gate,
				struct uffd_obstacle *obstacle)
{
	const struct uffd_events *events = &gate->ctx->events;
	const struct uffd_msg *msg;
	unsigned long n;

	/* What is not remembered must be assumed to concern it. */
	if (events->delivered - gate->delivered > UFFD_HISTORY) {
		*obstacle = (struct uffd_obstacle){ UFFD_REFUSED_FORGOTTEN };
		return true;
	}
	for (n = gate->delivered; n != events->delivered; n++) {
		msg = &events->history[(n + 1) % UFFD_HISTORY];
		if (uffd_msg_concerns(msg, gate)) {
			*obstacle = (struct uffd_obstacle){ UFFD_REFUSED_READ,
							    msg };
			return true;
		}
	}
	return false;
}

enum uffd_verdict { UFFD_PASS, UFFD_REFUSE, UFFD_WAIT };

/* @tell: a refusal is to be traced.  The same one may be found again and again. */
static enum uffd_verdict uffd_gate_judge(struct uffd_gate *gate, bool tell)
{
	struct userfaultfd_ctx *ctx = gate->ctx;
	struct uffd_queue *q = &ctx->queue;
	enum uffd_verdict verdict = UFFD_REFUSE;
	struct uffd_obstacle obstacle;
	bool closed;

	spin_lock(&q->lock);
	closed = uffd_gate_closed(gate, &obstacle);
	if (closed) {
		/*
		 * If the event, or something before it, can be read: -EAGAIN.
		 * The same if some reader carries an event: no waiting for that
		 * reader, who may need this call to bring in its buffer.  Else
		 * the event is held, or behind a held one.
		 */
		if (!q->readable && !q->carried)
			verdict = UFFD_WAIT;
	} else if (!uffd_gate_overtaken(gate, &obstacle)) {
		gate->generation = ctx->events.generation;
		gate->delivered = ctx->events.delivered;
		verdict = UFFD_PASS;
	}
	/*
	 * poll() has to tell when to try again, or now.  That there is something to
	 * read is not enough: another may read it, or its fork() be killed.
	 */
	if (verdict != UFFD_PASS && gate->nowait) {
		if (closed)
			__uffd_queue_refuse(q);
		else
			WRITE_ONCE(q->resume, true);
	}
	/* Here, for the event is only there while the queue is locked. */
	if (tell && verdict != UFFD_PASS)
		trace_uffd_refuse(ctx->id, gate->range[0].start,
				  gate->range[0].end, obstacle.why,
				  obstacle.event,
				  verdict == UFFD_WAIT && !gate->nowait);
	spin_unlock(&q->lock);
	return verdict;
}

/**
 * userfaultfd_gate_init() - a call begins
 * @gate: to be initialised
 * @ctx: the context it is made on
 * @start: first byte that it touches
 * @len: bytes
 * @nowait: it must not wait for an event to be published
 */
void userfaultfd_gate_init(struct uffd_gate *gate, struct userfaultfd_ctx *ctx,
			   unsigned long start, unsigned long len, bool nowait)
{
	gate->ctx = ctx;
	gate->nowait = nowait;
	gate->delivered = READ_ONCE(ctx->events.delivered);
	/*
	 * Paired with __uffd_gate_close().  An event older than this is seen
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
 * userfaultfd_gate_quiet() - has nothing happened that the call could meet?
 * @gate: of the call
 *
 * Return: true if userfaultfd_gate_pass() will neither wait nor refuse.
 */
bool userfaultfd_gate_quiet(const struct uffd_gate *gate)
{
	const struct uffd_events *events = &gate->ctx->events;

	/* Paired with __uffd_gate_open(): an event that is not unread was read. */
	return !smp_load_acquire(&events->nr_unread) &&
	       READ_ONCE(events->delivered) == gate->delivered &&
	       READ_ONCE(events->generation) == gate->generation;
}

/* Something has happened: was it about the call?  Waits for what is not out yet. */
static noinline int uffd_gate_settle(struct uffd_gate *gate)
{
	struct uffd_events *events = &gate->ctx->events;
	enum uffd_verdict verdict;

	for (;;) {
		verdict = uffd_gate_judge(gate, true);
		if (verdict == UFFD_PASS)
			return 0;
		if (gate->nowait)
			uffd_queue_nudge(&gate->ctx->queue);
		if (verdict == UFFD_REFUSE || gate->nowait)
			return -EAGAIN;
		if (wait_event_killable(events->gate,
					uffd_gate_judge(gate, false) != UFFD_WAIT))
			return -EINTR;
	}
}

/**
 * userfaultfd_gate_pass() - may the call go on?
 * @gate: of the call
 *
 * Context: no locks held; unless it was told not to wait, may sleep until an event
 * has been published.
 *
 * Return: 0; -EAGAIN if the handler should read on first; -EINTR if killed.
 */
int userfaultfd_gate_pass(struct uffd_gate *gate)
{
	if (likely(userfaultfd_gate_quiet(gate)))
		return 0;
	return uffd_gate_settle(gate);
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
	/* userfaultfd_gate_pass() tells, if it finds the same. */
	return uffd_gate_judge(gate, false) != UFFD_PASS;
}

/**
 * uffd_gate_any_unread() - is any event unread?
 * @ctx: the context of a call with arguments that cannot be
 *
 * What such a call concerns cannot be told, so it is refused like one that every
 * event concerns.
 *
 * Return: true if the call is to be refused with -EAGAIN.
 */
bool uffd_gate_any_unread(const struct userfaultfd_ctx *ctx)
{
	bool unread = READ_ONCE(ctx->events.nr_unread);

	if (unread)
		trace_uffd_refuse(ctx->id, 0, 0, UFFD_REFUSED_INVALID, NULL, false);
	return unread;
}
