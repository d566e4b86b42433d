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
 * copies them to userland with no lock held.  What could not be copied is first
 * collected (RETURNING), then sorted in again by sequence number in one hold of
 * the lock: so it keeps its place, and no other reader sees a part of it.
 *
 * One message wakes one reader.  Readers are exclusive waiters of an ordinary
 * wait queue: a reader is taken off it by whoever wakes it, under the wait
 * queue's lock and together with the wake-up, so that no reader is ever out of
 * reach for others because the thread that chose it has been preempted.  The
 * last reader to come is the first to be woken, since its cache is the warmest.
 * A reader that leaves because of a signal passes the wake-up on.  A thread that
 * goes to sleep on a fault offers the reader its own CPU, if nobody else wants
 * it.
 *
 * Pollers wait in another wait queue, so that an exclusive poller cannot swallow
 * the wake-up of a reader.  No wake-up of either is lost, because
 *
 *	reader or poller		thread that queues a message
 *	----------------		----------------------------
 *	enter the wait queue		set ->readable
 *	smp_mb()			smp_mb()
 *	read ->readable			read the wait queue's list
 *
 * at least one of the two sees what the other has written.
 */

#include <linux/hrtimer.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/topology.h>
#include "uffd.h"

/**
 * uffd_queue_init() - make an empty queue
 * @q: zeroed memory
 */
void uffd_queue_init(struct uffd_queue *q)
{
	spin_lock_init(&q->lock);
	INIT_LIST_HEAD(&q->items);
	init_waitqueue_head(&q->readers);
	init_waitqueue_head(&q->pollers);
}

static bool uffd_item_queued(const struct uffd_item *item)
{
	return item->state == UFFD_ITEM_HELD || item->state == UFFD_ITEM_READY;
}

static void uffd_queue_update(struct uffd_queue *q)
{
	struct uffd_item *first;
	bool readable;

	first = list_first_entry_or_null(&q->items, struct uffd_item, link);
	readable = first && first->state == UFFD_ITEM_READY;
	/*
	 * Paired with the unlocked reads of readers and poll(), whose caches keep it
	 * while it stays as it is.
	 */
	if (q->readable != readable)
		WRITE_ONCE(q->readable, readable);
}

static void uffd_queue_link(struct uffd_queue *q, struct uffd_item *item,
			    struct list_head *next, enum uffd_item_state state)
{
	bool first = next->prev == &q->items;

	list_add_tail(&item->link, next);
	WRITE_ONCE(item->state, state);
	q->nr++;
	if (uffd_item_is_fault(item))
		q->faults++;
	else if (item->msg.event == UFFD_EVENT_WRITE)
		WRITE_ONCE(q->writes, q->writes + 1);
	if (state == UFFD_ITEM_HELD)
		q->held++;
	if (first)
		uffd_queue_update(q);
}

static void uffd_queue_unlink(struct uffd_queue *q, struct uffd_item *item)
{
	list_del(&item->link);
	q->nr--;
	if (uffd_item_is_fault(item))
		q->faults--;
	else if (item->msg.event == UFFD_EVENT_WRITE)
		WRITE_ONCE(q->writes, q->writes - 1);
	if (item->state == UFFD_ITEM_HELD)
		q->held--;
}

/* Something that held others back is out of the way: a reader for each. */
static unsigned int uffd_queue_released(struct uffd_queue *q)
{
	uffd_queue_update(q);
	if (!q->readable)
		return 0;
	/* All WRITEs together are work for one, if they are worth it. */
	return q->nr - q->writes + (q->writes && q->writes >= q->watermark);
}

/**
 * __uffd_queue_append() - give a message its place
 * @q: the queue, locked
 * @item: a NEW message, filled in
 * @state: UFFD_ITEM_HELD or UFFD_ITEM_READY
 *
 * Return: how many readers there is work for, for uffd_queue_announce().
 */
unsigned int __uffd_queue_append(struct uffd_queue *q, struct uffd_item *item,
				 enum uffd_item_state state)
{
	lockdep_assert_held(&q->lock);
	item->seq = ++q->seq;
	uffd_queue_link(q, item, &q->items, state);
	return q->held ? 0 : 1;
}

/**
 * uffd_queue_add() - queue the message of a fault
 * @q: the queue
 * @item: the message; left alone if a waker has called it GONE
 *
 * Context: the caller holds the fault lock, which gives the message its place
 * among the events.  Takes and releases the queue's lock.
 *
 * Return: how many readers there is work for, for uffd_queue_announce().
 */
unsigned int uffd_queue_add(struct uffd_queue *q, struct uffd_item *item)
{
	unsigned int nr = 0;

	spin_lock(&q->lock);
	if (item->state == UFFD_ITEM_NEW)
		nr = __uffd_queue_append(q, item, UFFD_ITEM_READY);
	spin_unlock(&q->lock);
	return nr;
}

/**
 * __uffd_queue_publish() - let a held message, and those behind it, be read
 * @q: the queue, locked
 * @item: a HELD message
 *
 * Return: how many readers there is work for, for uffd_queue_announce().
 */
unsigned int __uffd_queue_publish(struct uffd_queue *q, struct uffd_item *item)
{
	lockdep_assert_held(&q->lock);
	WRITE_ONCE(item->state, UFFD_ITEM_READY);
	q->held--;
	return uffd_queue_released(q);
}

/**
 * __uffd_queue_remove() - see to it that a message is never read
 * @q: the queue, locked
 * @item: a message that no reader has TAKEN
 *
 * Return: how many readers there is work for that it has held back, for
 * uffd_queue_announce().
 */
unsigned int __uffd_queue_remove(struct uffd_queue *q, struct uffd_item *item)
{
	bool was_held = item->state == UFFD_ITEM_HELD;
	bool was_first = false;

	lockdep_assert_held(&q->lock);
	if (uffd_item_queued(item)) {
		was_first = item->link.prev == &q->items;
		uffd_queue_unlink(q, item);
	} else if (item->state == UFFD_ITEM_RETURNING) {
		list_del(&item->link);
		if (uffd_item_is_event(item))
			q->carried--;
	}
	WRITE_ONCE(item->state, UFFD_ITEM_GONE);
	if (was_held)
		return uffd_queue_released(q);
	if (was_first)
		uffd_queue_update(q);
	return 0;
}

/**
 * __uffd_queue_newest() - may a message about a range be added to the newest one?
 * @q: the queue, locked
 * @type: UFFD_EVENT_REMOVE or UFFD_EVENT_WRITE
 * @start: first byte of the range
 * @end: byte after the last
 *
 * Being the last in the queue is not enough for that: a younger one may be on its
 * way to a reader, and come back.
 *
 * Return: the newest message there has ever been, if it is of this type, can be read
 * but has not been, and its range touches the other one; else NULL.
 */
struct uffd_item *__uffd_queue_newest(struct uffd_queue *q, u8 type,
				      unsigned long start, unsigned long end)
{
	const struct uffd_msg *msg;
	struct uffd_item *item;

	lockdep_assert_held(&q->lock);
	if (list_empty(&q->items))
		return NULL;
	item = list_last_entry(&q->items, struct uffd_item, link);
	msg = &item->msg;
	if (item->seq != q->seq || item->state != UFFD_ITEM_READY ||
	    msg->event != type ||
	    start > msg->arg.remove.end || end < msg->arg.remove.start)
		return NULL;
	return item;
}

/**
 * __uffd_queue_collect() - a message could not be delivered
 * @q: the queue, locked
 * @item: a TAKEN message
 * @returning: messages on their way back, oldest first; it becomes the last one
 *
 * It can still be removed.  Whoever collects gives all of them back with
 * uffd_queue_putback().
 */
void __uffd_queue_collect(struct uffd_queue *q, struct uffd_item *item,
			  struct list_head *returning)
{
	lockdep_assert_held(&q->lock);
	list_add_tail(&item->link, returning);
	WRITE_ONCE(item->state, UFFD_ITEM_RETURNING);
}

/**
 * uffd_queue_putback() - give back messages that could not be delivered
 * @q: the queue
 * @returning: RETURNING messages, oldest first; empty on return
 *
 * They are the oldest there are, or nearly: the search for the place of the
 * first starts at the front, and that for the next where the last one ended.
 *
 * Return: how many readers there is work for, for uffd_queue_announce().
 */
unsigned int uffd_queue_putback(struct uffd_queue *q,
				struct list_head *returning)
{
	struct uffd_item *item, *next, *behind;
	unsigned int nr = 0;

	spin_lock(&q->lock);
	behind = list_first_entry(&q->items, struct uffd_item, link);
	list_for_each_entry_safe(item, next, returning, link) {
		list_for_each_entry_from(behind, &q->items, link)
			if ((long)(behind->seq - item->seq) > 0)
				break;
		list_del(&item->link);
		/* Carried up to here: the gate must not wait for a moment like this. */
		if (uffd_item_is_event(item))
			q->carried--;
		/* &behind->link is the list head when none is younger. */
		uffd_queue_link(q, item, &behind->link, UFFD_ITEM_READY);
		if (item->msg.event != UFFD_EVENT_WRITE)
			nr++;
	}
	/* All WRITEs together are work for one, if they are worth it. */
	if (q->writes && q->writes >= q->watermark)
		nr++;
	/* Behind a held one they can wait for a reader until it is published. */
	if (!q->readable)
		nr = 0;
	spin_unlock(&q->lock);
	return nr;
}

static void uffd_batch_add(struct uffd_batch *batch, struct uffd_item *item)
{
	unsigned int nr = batch->nr++;

	batch->msg[nr] = item->msg;
	batch->item[nr].seq = item->seq;
	batch->item[nr].event = NULL;
	if (uffd_item_is_fault(item))
		return;
	if (uffd_item_is_logged(item))
		batch->item[nr].write = item;
	else
		batch->item[nr].event = container_of(item, struct uffd_event,
						     item);
}

/**
 * uffd_queue_told() - whoever was told to go on has been told
 * @q: the queue, in which the caller has found nothing
 */
void uffd_queue_told(struct uffd_queue *q)
{
	if (READ_ONCE(q->resume))
		WRITE_ONCE(q->resume, false);
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
		uffd_queue_unlink(q, item);
		if (uffd_item_is_event(item)) {
			q->carried++;
			/* A refused caller that reads on need not be told to. */
			if (q->refused == task_pid_nr(current))
				q->refused = 0;
		}
		uffd_batch_add(batch, item);
		/*
		 * The last look at it.  Paired with uffd_shard_release(): a waker
		 * that sees TAKEN does not ask for our lock, and lets the
		 * sleeper go, its stack with the item in it.
		 */
		smp_store_release(&item->state, UFFD_ITEM_TAKEN);
		if (fork)
			break;
	}
	uffd_queue_update(q);
	q->taken = jiffies;
	spin_unlock(&q->lock);
}

/*
 * Wakes a reader, under the wait queue's lock.  @flags may ask for it to run on
 * this CPU, which the caller is about to leave: it is the best one only if its
 * caches are those that the reader has used.
 */
static int uffd_reader_wake(struct wait_queue_entry *entry, unsigned int mode,
			    int flags, void *key)
{
	const struct task_struct *reader = entry->private;

	if (!cpus_share_cache(task_cpu(reader), raw_smp_processor_id()))
		flags = 0;
	return autoremove_wake_function(entry, mode, flags, key);
}

/* The one that came last is the first to be woken. */
static void uffd_reader_enter(struct uffd_queue *q,
			      struct wait_queue_entry *entry)
{
	unsigned long flags;

	spin_lock_irqsave(&q->readers.lock, flags);
	if (list_empty(&entry->entry))
		__add_wait_queue_exclusive(&q->readers, entry);
	/* Has the full barrier that is paired with uffd_queue_announce(). */
	set_current_state(TASK_INTERRUPTIBLE);
	spin_unlock_irqrestore(&q->readers.lock, flags);
}

/* Returns true if the time is up. */
static bool uffd_reader_sleep(ktime_t *deadline)
{
	if (deadline)
		return !schedule_hrtimeout_range(deadline,
						 current->timer_slack_ns,
						 HRTIMER_MODE_ABS);
	schedule();
	return false;
}

/**
 * uffd_queue_wait() - sleep until there may be something to take
 * @q: the queue
 * @deadline: until when, in CLOCK_MONOTONIC; NULL for ever
 *
 * Return: 0; -ERESTARTSYS if a signal came first; -ETIME if the time is up.
 */
int uffd_queue_wait(struct uffd_queue *q, ktime_t *deadline)
{
	DEFINE_WAIT_FUNC(entry, uffd_reader_wake);
	bool readable, late = false;

	do {
		uffd_reader_enter(q, &entry);
		if (!READ_ONCE(q->readable) && !signal_pending(current))
			late = uffd_reader_sleep(deadline);
		readable = READ_ONCE(q->readable);
	} while (!readable && !late && !signal_pending(current));
	finish_wait(&q->readers, &entry);
	if (readable && !fatal_signal_pending(current))
		return 0;
	/* The wake-up that a message has spent on us is another reader's. */
	if (READ_ONCE(q->readable))
		wake_up_interruptible(&q->readers);
	return late ? -ETIME : -ERESTARTSYS;
}

/**
 * uffd_queue_announce() - wake those who wait for what has been queued
 * @q: the queue
 * @nr: how many readers there is work for
 * @leaving: the caller is about to sleep
 *
 * Context: no lock of ours held.  The queue must not go away meanwhile: the
 * caller has a reference to the context or is in an RCU read-side section.
 */
void uffd_queue_announce(struct uffd_queue *q, unsigned int nr, bool leaving)
{
	if (!nr)
		return;
	/*
	 * Our store to ->readable, then the look for who waits.  Paired with
	 * uffd_reader_enter() and with the barrier in userfaultfd_poll().
	 */
	smp_mb();
	/* Who enters after this look sees ->readable: the barrier above. */
	if (waitqueue_active(&q->readers)) {
		if (leaving && single_task_running())
			__wake_up_on_current_cpu(&q->readers,
						 TASK_INTERRUPTIBLE, NULL);
		else
			wake_up_interruptible_nr(&q->readers, nr);
	}
	/* As above.  One exclusive poller for each message, as for readers. */
	if (waitqueue_active(&q->pollers))
		__wake_up(&q->pollers, TASK_NORMAL, nr,
			  poll_to_key(EPOLLIN));
}

/**
 * __uffd_queue_refuse() - the current thread's call is being refused
 * @q: the queue, locked
 *
 * It does not wait, and poll() is to tell when it may be tried again.
 */
void __uffd_queue_refuse(struct uffd_queue *q)
{
	pid_t me = task_pid_nr(current);

	lockdep_assert_held(&q->lock);
	q->refused = !q->refused || q->refused == me ? me : UFFD_SEVERAL;
}

/**
 * __uffd_queue_go_on() - what a call has been refused for is out of the way
 * @q: the queue, locked
 *
 * A caller that does not wait may have been refused for the sake of an event
 * that nobody can read any more: it was withdrawn, or another reader has it.  No
 * message is going to tell that caller to try again, so poll() does.
 *
 * Return: true if the caller of this has to call uffd_queue_nudge().
 */
bool __uffd_queue_go_on(struct uffd_queue *q)
{
	lockdep_assert_held(&q->lock);
	if (!q->refused)
		return false;
	q->refused = 0;
	/* Paired with the unlocked reads of poll() and uffd_queue_told(). */
	WRITE_ONCE(q->resume, true);
	return true;
}

/**
 * uffd_queue_nudge() - wake pollers, though there may be nothing to read
 * @q: the queue
 *
 * All of them, the exclusive ones too: which one was refused is not known.
 */
void uffd_queue_nudge(struct uffd_queue *q)
{
	/* As in uffd_queue_announce(), for ->resume. */
	if (wq_has_sleeper(&q->pollers))
		__wake_up(&q->pollers, TASK_NORMAL, 0, poll_to_key(EPOLLIN));
}
