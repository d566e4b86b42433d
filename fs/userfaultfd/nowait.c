// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: events that nobody waits for, and how many of them there may be.
 *
 * How it works
 * ------------
 * An event has its place in the queue before its change can be seen.  So a handler
 * that reads in order needs no thread to wait for it: what the change leads to stands
 * behind the event, and until that has been read the gate keeps fills away.  With
 * UFFD_FEATURE_EVENT_NOWAIT the thread that causes a REMOVE, UNMAP or REMAP leaves
 * the event to the queue and goes on.  A FORK is waited for all the same: a child
 * that ran would fault before anybody could serve it.
 *
 * Who does not wait is not slowed down by a handler that does not read, so there
 * is a bound.  An event is admitted in the hold of the queue's lock that gives it
 * its place:
 *
 * - nobody waits for it if the feature was asked for and fewer than
 *   UFFD_MAX_UNREAD events are unread;
 * - else its thread waits.  That thread may be killed, and leave the event behind.
 *   So those that are waited for, and those that were, are counted together, and
 *   when there are UFFD_MAX_UNREAD of them what would cause one more fails, before
 *   it changes anything.  Whom a handler keeps waiting cannot leave more behind
 *   than that, be it killed or not, and with or without the feature.
 *
 * A balloon drops page after page.  A REMOVE that touches the one before it is
 * added to that, if that is the newest message there has ever been: then nothing
 * stands between the two, and nothing can be read between them.  No memory is
 * needed and no reader woken.
 */

#include <linux/lockdep.h>
#include <trace/events/userfaultfd.h>
#include "uffd.h"

/**
 * uffd_events_full() - must no more events be caused?
 * @ctx: the context that they would be told to
 * @room: how many the operation may cause
 *
 * With mmap_lock held for writing the answer is good until that is dropped: events
 * may be read meanwhile, but only the holder causes any.
 *
 * Return: true if the operation is to fail before it changes anything.
 */
bool uffd_events_full(const struct userfaultfd_ctx *ctx, unsigned int room)
{
	return READ_ONCE(ctx->events.waited) + room > UFFD_MAX_UNREAD;
}

/**
 * __uffd_event_admit() - is there room for an event, and must its thread wait?
 * @event: an event that is about to be given its place; whether somebody waits for
 *	it is noted there
 *
 * A REMAP is admitted whatever there is: mremap_userfaultfd_may_move() has asked
 * while it was not too late.
 *
 * Context: the queue is locked.
 *
 * Return: false if there is no room.
 */
bool __uffd_event_admit(struct uffd_event *event)
{
	struct userfaultfd_ctx *ctx = event->ctx;
	struct uffd_events *events = &ctx->events;

	lockdep_assert_held(&ctx->queue.lock);
	/* If its thread is killed it goes with it, so it does not count. */
	if (uffd_event_is_fork(event))
		return true;
	if (uffd_has(ctx, UFFD_FEATURE_EVENT_NOWAIT) &&
	    events->nr_unread < UFFD_MAX_UNREAD) {
		event->nowait = true;
		return true;
	}
	if (uffd_events_full(ctx, 1) &&
	    event->item.msg.event != UFFD_EVENT_REMAP)
		return false;
	event->counted = true;
	WRITE_ONCE(events->waited, events->waited + 1);
	return true;
}

/**
 * uffd_remove_merge() - add a REMOVE to the one before it, if they touch
 * @ctx: the context, with UFFD_FEATURE_EVENT_NOWAIT
 * @start: first byte that is about to be dropped
 * @end: byte after the last
 *
 * Message and gate grow in one hold of the lock: whoever reads the message is told
 * all that it has refused.
 *
 * Return: true if that has been done, and the pages may be dropped.
 */
bool uffd_remove_merge(struct userfaultfd_ctx *ctx, unsigned long start,
		       unsigned long end)
{
	struct uffd_queue *q = &ctx->queue;
	struct uffd_item *item;

	spin_lock(&q->lock);
	item = __uffd_queue_newest(q, UFFD_EVENT_REMOVE, start, end);
	if (item)
		__uffd_gate_widen(container_of(item, struct uffd_event, item),
				  start, end);
	spin_unlock(&q->lock);
	if (item && trace_uffd_event_enabled()) {
		const struct uffd_msg msg = {
			.event = UFFD_EVENT_REMOVE,
			.arg.remove = { start, end },
		};

		trace_uffd_event(ctx->id, &msg);
	}
	return item;
}
