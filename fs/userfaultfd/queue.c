// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: messages on their way to a reader.
 *
 * How it works
 * ------------
 * Faults and events of a context stand in one list, in the order of their
 * causes: each is appended under the lock that made it happen, so the list
 * order is the order in which a handler must see them.
 *
 * An event is appended HELD: its place is taken, but the change it tells of is
 * not complete.  Nobody reads past it until it is published or withdrawn.
 *
 * A reader takes a batch of messages in one hold of the lock, as copies: the
 * record of a fault is on the stack of a thread that may wake any time.  It
 * copies them to userland with no lock held.  What could not be copied is given
 * back and sorted in by sequence number, so it keeps its place.
 *
 * One message wakes one reader.  A reader that finds nothing puts itself on a
 * list, under the same lock under which messages come: so none can slip in
 * between its look and its sleep, and no memory barriers are needed.  The last
 * reader to come is the first to be woken, since its cache is the warmest.  A
 * reader that was called for a message and dies before it takes it calls the next
 * one instead.  A thread that goes to sleep on a fault offers the reader its own
 * CPU, if nobody else wants it.
 *
 * Pollers wait apart, in an ordinary wait queue, so that an exclusive poller
 * cannot swallow the wake-up of a reader.
 */

#include <linux/completion.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/topology.h>
#include "uffd.h"

/*
 * A reader that sleeps, on its stack.  Guarded by the queue's lock while it is in
 * the queue's list; whoever takes it out of there, and sets @taken, owns it until
 * he has completed @call.
 */
struct uffd_reader {
	struct list_head link;
	struct task_struct *task;
	bool taken;
	struct completion call;
};

/**
 * uffd_queue_init() - make an empty queue
 * @q: uninitialised memory
 */
void uffd_queue_init(struct uffd_queue *q)
{
	spin_lock_init(&q->lock);
	q->readable = false;
	q->held = 0;
	q->faults = 0;
	q->seq = 0;
	INIT_LIST_HEAD(&q->items);
	INIT_LIST_HEAD(&q->readers);
	init_waitqueue_head(&q->pollers);
}

/* Takes a reader, if any sleeps, for uffd_queue_announce() to wake. */
static void uffd_queue_call(struct uffd_queue *q, struct list_head *called)
{
	struct uffd_reader *reader;

	reader = list_first_entry_or_null(&q->readers, struct uffd_reader, link);
	if (!reader)
		return;
	reader->taken = true;
	list_move(&reader->link, called);
}

static void uffd_queue_update(struct uffd_queue *q)
{
	struct uffd_item *first;

	first = list_first_entry_or_null(&q->items, struct uffd_item, link);
	/* Paired with the unlocked read in poll(). */
	WRITE_ONCE(q->readable, first && first->state == UFFD_ITEM_READY);
}

/* Whatever was held back has come free: a reader for each message. */
static void uffd_queue_released(struct uffd_queue *q, struct list_head *called)
{
	struct uffd_item *item;

	uffd_queue_update(q);
	list_for_each_entry(item, &q->items, link) {
		if (item->state != UFFD_ITEM_READY || list_empty(&q->readers))
			break;
		uffd_queue_call(q, called);
	}
}

static void uffd_queue_insert(struct uffd_queue *q, struct uffd_item *item,
			      struct list_head *prev,
			      enum uffd_item_state state,
			      struct list_head *called)
{
	list_add(&item->link, prev);
	item->state = state;
	if (uffd_item_is_fault(item))
		q->faults++;
	if (state == UFFD_ITEM_HELD)
		q->held++;
	if (prev == &q->items)
		uffd_queue_update(q);
	if (!q->held)
		uffd_queue_call(q, called);
}

/**
 * __uffd_queue_append() - give a message its place
 * @q: the queue, locked
 * @item: a NEW message, filled in
 * @state: UFFD_ITEM_HELD or UFFD_ITEM_READY
 * @called: collects the reader to be woken
 */
void __uffd_queue_append(struct uffd_queue *q, struct uffd_item *item,
			 enum uffd_item_state state, struct list_head *called)
{
	lockdep_assert_held(&q->lock);
	item->seq = ++q->seq;
	uffd_queue_insert(q, item, q->items.prev, state, called);
}

/**
 * uffd_queue_add() - queue the message of a fault
 * @q: the queue
 * @item: the message; left alone if a waker has called it GONE
 * @called: collects the reader to be woken
 *
 * Context: the caller holds the fault lock, which gives the message its place
 * among the events.  Takes and releases the queue's lock.  To be followed by
 * uffd_queue_announce().
 */
void uffd_queue_add(struct uffd_queue *q, struct uffd_item *item,
		    struct list_head *called)
{
	spin_lock(&q->lock);
	if (item->state == UFFD_ITEM_NEW)
		__uffd_queue_append(q, item, UFFD_ITEM_READY, called);
	spin_unlock(&q->lock);
}

/**
 * __uffd_queue_publish() - let a held message, and those behind it, be read
 * @q: the queue, locked
 * @item: a HELD message
 * @called: collects the readers to be woken
 */
void __uffd_queue_publish(struct uffd_queue *q, struct uffd_item *item,
			  struct list_head *called)
{
	lockdep_assert_held(&q->lock);
	item->state = UFFD_ITEM_READY;
	q->held--;
	uffd_queue_released(q, called);
}

/**
 * __uffd_queue_remove() - see to it that a message is never read
 * @q: the queue, locked
 * @item: a message that no reader has taken
 * @called: collects the readers to be woken for messages it held back
 */
void __uffd_queue_remove(struct uffd_queue *q, struct uffd_item *item,
			 struct list_head *called)
{
	bool was_held = item->state == UFFD_ITEM_HELD;
	bool was_first = false;

	lockdep_assert_held(&q->lock);
	if (was_held || item->state == UFFD_ITEM_READY) {
		was_first = item->link.prev == &q->items;
		list_del(&item->link);
		if (uffd_item_is_fault(item))
			q->faults--;
	}
	item->state = UFFD_ITEM_GONE;
	if (was_held) {
		q->held--;
		uffd_queue_released(q, called);
	} else if (was_first) {
		uffd_queue_update(q);
	}
}

/**
 * __uffd_queue_putback() - give back a message that could not be delivered
 * @q: the queue, locked
 * @item: a TAKEN message
 * @called: collects the reader to be woken
 *
 * Given back messages are the oldest there are, or nearly: the search for the
 * place starts at the front.
 */
void __uffd_queue_putback(struct uffd_queue *q, struct uffd_item *item,
			  struct list_head *called)
{
	struct uffd_item *next;

	lockdep_assert_held(&q->lock);
	list_for_each_entry(next, &q->items, link)
		if ((long)(next->seq - item->seq) > 0)
			break;
	/* &next->link is the list head when the loop ran to its end. */
	uffd_queue_insert(q, item, next->link.prev, UFFD_ITEM_READY, called);
	if (q->held && q->readable)
		uffd_queue_call(q, called);
}

/**
 * uffd_queue_putback() - __uffd_queue_putback() for those without the lock
 * @q: the queue
 * @item: a TAKEN message
 * @called: collects the reader to be woken
 */
void uffd_queue_putback(struct uffd_queue *q, struct uffd_item *item,
			struct list_head *called)
{
	spin_lock(&q->lock);
	__uffd_queue_putback(q, item, called);
	spin_unlock(&q->lock);
}

static void uffd_batch_add(struct uffd_batch *batch, struct uffd_item *item)
{
	unsigned int nr = batch->nr++;

	batch->msg[nr] = item->msg;
	batch->item[nr].seq = item->seq;
	batch->item[nr].event = NULL;
	if (!uffd_item_is_fault(item))
		batch->item[nr].event = container_of(item, struct uffd_event,
						     item);
}

/**
 * uffd_queue_take() - take the oldest messages
 * @q: the queue
 * @batch: where to put them; may stay empty
 * @max: how many at most; not zero
 *
 * A FORK comes alone: delivering it takes more than a copy.  Events in the
 * batch stay unread, as far as the gate is concerned, until
 * uffd_event_delivered(); whoever took them owns the queue's reference.
 */
void uffd_queue_take(struct uffd_queue *q, struct uffd_batch *batch,
		     unsigned int max)
{
	struct uffd_item *item, *next;
	bool fork;

	batch->nr = 0;
	max = min_t(unsigned int, max, UFFD_BATCH);
	/* Right or wrong, the answer is as good as one of a moment ago. */
	if (!READ_ONCE(q->readable))
		return;

	spin_lock(&q->lock);
	list_for_each_entry_safe(item, next, &q->items, link) {
		if (batch->nr == max || item->state != UFFD_ITEM_READY)
			break;
		fork = item->msg.event == UFFD_EVENT_FORK;
		if (fork && batch->nr)
			break;
		list_del(&item->link);
		if (uffd_item_is_fault(item))
			q->faults--;
		uffd_batch_add(batch, item);
		/*
		 * The last look at it.  Paired with uffd_shard_wake(): a waker
		 * that sees TAKEN does not ask for our lock, and lets the
		 * sleeper go, its stack with the item in it.
		 */
		smp_store_release(&item->state, UFFD_ITEM_TAKEN);
		if (fork)
			break;
	}
	uffd_queue_update(q);
	spin_unlock(&q->lock);
}

/*
 * Is this CPU the best one for that task to run on, if we are about to leave it?
 * It is if nobody else waits for it here, and its caches are those that the task
 * has used: then the wake-up costs no interrupt of another CPU.
 */
static bool uffd_belongs_here(const struct task_struct *task)
{
	return single_task_running() &&
	       cpus_share_cache(task_cpu(task), raw_smp_processor_id());
}

static void uffd_queue_wake(struct list_head *called, bool leaving)
{
	struct uffd_reader *reader, *next;

	/* Once completed, a reader is gone, and its record. */
	list_for_each_entry_safe(reader, next, called, link) {
		if (leaving && uffd_belongs_here(reader->task))
			complete_on_current_cpu(&reader->call);
		else
			complete(&reader->call);
	}
}

/* A message that a reader was called for, and will not take, is another one's. */
static void uffd_queue_pass_on(struct uffd_queue *q)
{
	LIST_HEAD(called);

	spin_lock(&q->lock);
	if (q->readable)
		uffd_queue_call(q, &called);
	spin_unlock(&q->lock);
	uffd_queue_wake(&called, false);
}

/* Takes the reader off the list.  False if somebody else has taken it. */
static bool uffd_queue_leave(struct uffd_queue *q, struct uffd_reader *reader)
{
	bool taken;

	spin_lock(&q->lock);
	taken = reader->taken;
	if (!taken)
		list_del(&reader->link);
	spin_unlock(&q->lock);
	return !taken;
}

/**
 * uffd_queue_wait() - sleep until there may be something to take
 * @q: the queue
 *
 * Return: 0, or -ERESTARTSYS if a signal came first.
 */
int uffd_queue_wait(struct uffd_queue *q)
{
	struct uffd_reader reader = { .task = current };
	int ret;

	init_completion(&reader.call);
	spin_lock(&q->lock);
	if (q->readable) {
		spin_unlock(&q->lock);
		return 0;
	}
	list_add(&reader.link, &q->readers);
	spin_unlock(&q->lock);

	ret = wait_for_completion_interruptible(&reader.call);
	if (!ret && !fatal_signal_pending(current))
		return 0;
	if (ret && uffd_queue_leave(q, &reader))
		return ret;
	/* The call is on its way: our record is in use until it has come. */
	if (ret)
		wait_for_completion(&reader.call);
	uffd_queue_pass_on(q);
	return -ERESTARTSYS;
}

/**
 * uffd_queue_announce() - wake those who wait for what has been queued
 * @q: the queue
 * @called: the readers
 * @leaving: the caller is about to sleep
 *
 * Context: no lock of ours held.  The queue must not go away meanwhile: the
 * caller has a reference to the context or is in an RCU read-side section.
 */
void uffd_queue_announce(struct uffd_queue *q, struct list_head *called,
			 bool leaving)
{
	uffd_queue_wake(called, leaving);
	/*
	 * The full barrier in wq_has_sleeper() orders our store to ->readable
	 * before the look for pollers; the one in userfaultfd_poll() orders its
	 * queueing before its look at ->readable.
	 */
	if (wq_has_sleeper(&q->pollers))
		wake_up_poll(&q->pollers, EPOLLIN);
}
