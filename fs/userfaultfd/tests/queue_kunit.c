// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the message queue of userfaultfd: the order of messages, what
 * holds them back, how they are given back, and which readers are woken.
 */

#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/sched/signal.h>
#include "../uffd.h"

#define NR_ITEMS	40

struct queue_fixture {
	struct uffd_queue queue;
	struct uffd_batch batch;
	struct uffd_item fault[NR_ITEMS];
	struct uffd_event event[4];
};

static int queue_test_init(struct kunit *test)
{
	struct queue_fixture *f;
	unsigned int i;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	uffd_queue_init(&f->queue);
	for (i = 0; i < NR_ITEMS; i++) {
		f->fault[i].msg.event = UFFD_EVENT_PAGEFAULT;
		f->fault[i].msg.arg.pagefault.address = i;
	}
	for (i = 0; i < ARRAY_SIZE(f->event); i++)
		f->event[i].item.msg.event = UFFD_EVENT_UNMAP;
	test->priv = f;
	return 0;
}

static void add_fault(struct queue_fixture *f, unsigned int i)
{
	unsigned int nr = uffd_queue_add(&f->queue, &f->fault[i]);

	uffd_queue_announce(&f->queue, nr, false);
}

static void add_event(struct queue_fixture *f, unsigned int i,
		      enum uffd_item_state state)
{
	unsigned int nr;

	spin_lock(&f->queue.lock);
	nr = __uffd_queue_append(&f->queue, &f->event[i].item, state);
	spin_unlock(&f->queue.lock);
	uffd_queue_announce(&f->queue, nr, false);
}

static void publish_event(struct queue_fixture *f, unsigned int i)
{
	unsigned int nr;

	spin_lock(&f->queue.lock);
	nr = __uffd_queue_publish(&f->queue, &f->event[i].item);
	spin_unlock(&f->queue.lock);
	uffd_queue_announce(&f->queue, nr, false);
}

static void remove_item(struct queue_fixture *f, struct uffd_item *item)
{
	unsigned int nr;

	spin_lock(&f->queue.lock);
	nr = __uffd_queue_remove(&f->queue, item);
	spin_unlock(&f->queue.lock);
	uffd_queue_announce(&f->queue, nr, false);
}

static void collect(struct queue_fixture *f, struct uffd_item *item,
		    struct list_head *returning)
{
	spin_lock(&f->queue.lock);
	__uffd_queue_collect(&f->queue, item, returning);
	spin_unlock(&f->queue.lock);
}

static void put_back_all(struct queue_fixture *f, struct list_head *returning)
{
	unsigned int nr = uffd_queue_putback(&f->queue, returning);

	uffd_queue_announce(&f->queue, nr, false);
}

static void put_back(struct queue_fixture *f, struct uffd_item *item)
{
	LIST_HEAD(returning);

	collect(f, item, &returning);
	put_back_all(f, &returning);
}

static unsigned int take(struct queue_fixture *f, unsigned int max)
{
	uffd_queue_take(&f->queue, &f->batch, max);
	return f->batch.nr;
}

static void expect_fault(struct kunit *test, unsigned int at, unsigned int i)
{
	struct queue_fixture *f = test->priv;

	KUNIT_ASSERT_LT(test, at, f->batch.nr);
	KUNIT_EXPECT_PTR_EQ(test, f->batch.item[at].event, NULL);
	KUNIT_EXPECT_EQ(test, f->batch.msg[at].arg.pagefault.address, i);
}

static void expect_event(struct kunit *test, unsigned int at, unsigned int i)
{
	struct queue_fixture *f = test->priv;

	KUNIT_ASSERT_LT(test, at, f->batch.nr);
	KUNIT_EXPECT_PTR_EQ(test, f->batch.item[at].event, &f->event[i]);
}

static void queue_empty(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	KUNIT_EXPECT_FALSE(test, f->queue.readable);
	KUNIT_EXPECT_EQ(test, take(f, UFFD_BATCH), 0);
}

static void queue_order(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	add_fault(f, 0);
	add_event(f, 0, UFFD_ITEM_READY);
	add_fault(f, 1);
	KUNIT_EXPECT_TRUE(test, f->queue.readable);
	KUNIT_EXPECT_EQ(test, f->queue.faults, 2);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 3);
	expect_fault(test, 0, 0);
	expect_event(test, 1, 0);
	expect_fault(test, 2, 1);
	KUNIT_EXPECT_LT(test, f->batch.item[0].seq, f->batch.item[1].seq);
	KUNIT_EXPECT_LT(test, f->batch.item[1].seq, f->batch.item[2].seq);
	KUNIT_EXPECT_FALSE(test, f->queue.readable);
	KUNIT_EXPECT_EQ(test, f->queue.faults, 0);
}

static void queue_batches(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	unsigned int i, at, expected = 0;
	unsigned int sizes[] = { 1, UFFD_BATCH, UFFD_BATCH, 7 };

	for (i = 0; i < NR_ITEMS; i++)
		add_fault(f, i);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		/* More than a batch can be asked for, not had. */
		unsigned int max = sizes[i] == UFFD_BATCH ? UINT_MAX : sizes[i];

		KUNIT_ASSERT_EQ(test, take(f, max), sizes[i]);
		for (at = 0; at < sizes[i]; at++)
			expect_fault(test, at, expected++);
	}
	KUNIT_EXPECT_EQ(test, expected, NR_ITEMS);
	KUNIT_EXPECT_EQ(test, take(f, UFFD_BATCH), 0);
}

static void queue_held(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	add_fault(f, 0);
	add_event(f, 0, UFFD_ITEM_HELD);
	add_fault(f, 1);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	expect_fault(test, 0, 0);
	KUNIT_EXPECT_FALSE(test, f->queue.readable);
	KUNIT_EXPECT_EQ(test, take(f, UFFD_BATCH), 0);

	publish_event(f, 0);
	KUNIT_EXPECT_TRUE(test, f->queue.readable);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 2);
	expect_event(test, 0, 0);
	expect_fault(test, 1, 1);
}

static void queue_held_twice(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	add_event(f, 0, UFFD_ITEM_HELD);
	add_fault(f, 0);
	add_event(f, 1, UFFD_ITEM_HELD);
	add_fault(f, 1);
	/* Publishing the younger one alone lets nothing through. */
	publish_event(f, 1);
	KUNIT_EXPECT_EQ(test, take(f, UFFD_BATCH), 0);
	publish_event(f, 0);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 4);
	expect_event(test, 0, 0);
	expect_fault(test, 1, 0);
	expect_event(test, 2, 1);
	expect_fault(test, 3, 1);
}

static void queue_withdrawn(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	add_event(f, 0, UFFD_ITEM_HELD);
	add_fault(f, 0);
	remove_item(f, &f->event[0].item);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	expect_fault(test, 0, 0);
}

static void queue_fork_alone(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	f->event[0].item.msg.event = UFFD_EVENT_FORK;
	add_fault(f, 0);
	add_event(f, 0, UFFD_ITEM_READY);
	add_fault(f, 1);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	expect_fault(test, 0, 0);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	expect_event(test, 0, 0);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	expect_fault(test, 0, 1);
}

static void queue_putback(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	unsigned int i;

	for (i = 0; i < 5; i++)
		add_fault(f, i);
	KUNIT_ASSERT_EQ(test, take(f, 4), 4);
	/* In any order, and with younger ones queued meanwhile. */
	add_fault(f, 5);
	put_back(f, &f->fault[2]);
	put_back(f, &f->fault[1]);
	put_back(f, &f->fault[3]);
	KUNIT_EXPECT_EQ(test, f->queue.faults, 5);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 5);
	for (i = 0; i < 5; i++)
		expect_fault(test, i, i + 1);
}

static void queue_putback_held(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	add_fault(f, 0);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	add_event(f, 0, UFFD_ITEM_HELD);
	put_back(f, &f->fault[0]);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	expect_fault(test, 0, 0);
	KUNIT_EXPECT_EQ(test, take(f, UFFD_BATCH), 0);
}

/* Several at once, to places between others: nobody sees a part of them. */
static void queue_putback_all(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	LIST_HEAD(returning);
	unsigned int i;

	for (i = 0; i < 5; i++)
		add_fault(f, i);
	KUNIT_ASSERT_EQ(test, take(f, 4), 4);
	collect(f, &f->fault[0], &returning);
	collect(f, &f->fault[1], &returning);
	collect(f, &f->fault[3], &returning);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	expect_fault(test, 0, 4);
	KUNIT_EXPECT_FALSE(test, f->queue.readable);

	/* Resolved on the way back. */
	remove_item(f, &f->fault[1]);
	put_back(f, &f->fault[4]);
	put_back_all(f, &returning);
	KUNIT_EXPECT_TRUE(test, list_empty(&returning));
	KUNIT_EXPECT_EQ(test, f->queue.faults, 3);
	KUNIT_EXPECT_EQ(test, f->queue.nr, 3);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 3);
	expect_fault(test, 0, 0);
	expect_fault(test, 1, 3);
	expect_fault(test, 2, 4);
}

static void queue_putback_last(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	add_fault(f, 0);
	add_fault(f, 1);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 2);
	put_back(f, &f->fault[0]);
	put_back(f, &f->fault[1]);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 2);
	expect_fault(test, 0, 0);
	expect_fault(test, 1, 1);
}

static void queue_resolved(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	add_fault(f, 0);
	add_fault(f, 1);
	remove_item(f, &f->fault[0]);
	KUNIT_EXPECT_EQ(test, f->queue.faults, 1);
	/* A waker may come even before the message is queued. */
	remove_item(f, &f->fault[2]);
	add_fault(f, 2);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	expect_fault(test, 0, 1);
	/* And long after it was read. */
	remove_item(f, &f->fault[1]);
	KUNIT_EXPECT_EQ(test, f->queue.faults, 0);
	KUNIT_EXPECT_EQ(test, take(f, UFFD_BATCH), 0);
}

/* The sequence numbers wrap; the order does not. */
static void queue_seq_wraps(struct kunit *test)
{
	struct queue_fixture *f = test->priv;

	f->queue.seq = ULONG_MAX - 1;
	add_fault(f, 0);
	add_fault(f, 1);
	add_fault(f, 2);
	KUNIT_ASSERT_EQ(test, take(f, 2), 2);
	put_back(f, &f->fault[1]);
	put_back(f, &f->fault[0]);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 3);
	expect_fault(test, 0, 0);
	expect_fault(test, 1, 1);
	expect_fault(test, 2, 2);
}

/*
 * Readers.  Each is a kthread that waits once.
 */

struct reader {
	struct uffd_queue *queue;
	ktime_t *deadline;
	struct task_struct *task;
	bool returned;
	int ret;
};

static int reader_fn(void *data)
{
	struct reader *reader = data;

	allow_signal(SIGKILL);
	reader->ret = uffd_queue_wait(reader->queue, reader->deadline);
	/* Paired with has_returned(). */
	smp_store_release(&reader->returned, true);
	return 0;
}

static bool has_returned(const struct reader *reader)
{
	/* Paired with reader_fn(): its result is there, too. */
	return smp_load_acquire(&reader->returned);
}

static void a_moment(void)
{
	usleep_range(1000, 2000);
}

static unsigned int nr_asleep(struct uffd_queue *queue)
{
	unsigned int nr;

	spin_lock_irq(&queue->readers.lock);
	nr = list_count_nodes(&queue->readers.head);
	spin_unlock_irq(&queue->readers.lock);
	return nr;
}

static void start_readers(struct kunit *test, struct reader *reader,
			  unsigned int nr)
{
	struct queue_fixture *f = test->priv;
	unsigned int i, patience = 1000;

	for (i = 0; i < nr; i++) {
		reader[i].queue = &f->queue;
		reader[i].task = kthread_run(reader_fn, &reader[i],
					     "uffd-reader/%u", i);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, reader[i].task);
		get_task_struct(reader[i].task);
		while (nr_asleep(&f->queue) != i + 1 && --patience)
			a_moment();
		KUNIT_ASSERT_NE(test, patience, 0);
	}
}

static unsigned int nr_returned(struct reader *reader, unsigned int nr)
{
	unsigned int i, returned = 0;

	for (i = 0; i < nr; i++)
		returned += has_returned(&reader[i]);
	return returned;
}

static void expect_returned(struct kunit *test, struct reader *reader,
			    unsigned int nr, unsigned int expected)
{
	unsigned int patience = 1000;

	while (nr_returned(reader, nr) < expected && --patience)
		a_moment();
	msleep(20);	/* for one too many */
	KUNIT_EXPECT_EQ(test, nr_returned(reader, nr), expected);
}

static void stop_readers(struct reader *reader, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		send_sig(SIGKILL, reader[i].task, 1);
		while (!has_returned(&reader[i]))
			a_moment();
		put_task_struct(reader[i].task);
	}
}

static void queue_wakes_one(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	struct reader reader[3] = {};

	start_readers(test, reader, 3);
	add_fault(f, 0);
	expect_returned(test, reader, 3, 1);
	/* The last to come. */
	KUNIT_EXPECT_TRUE(test, reader[2].returned);
	KUNIT_EXPECT_EQ(test, reader[2].ret, 0);
	add_fault(f, 1);
	expect_returned(test, reader, 3, 2);
	stop_readers(reader, 3);
	KUNIT_EXPECT_EQ(test, reader[0].ret, -ERESTARTSYS);
}

static void queue_held_wakes_nobody(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	struct reader reader[4] = {};

	start_readers(test, reader, 4);
	add_event(f, 0, UFFD_ITEM_HELD);
	add_fault(f, 0);
	expect_returned(test, reader, 4, 0);
	add_fault(f, 1);
	/* A reader for each of the three. */
	publish_event(f, 0);
	expect_returned(test, reader, 4, 3);
	stop_readers(reader, 4);
}

/*
 * The reader that is woken for the message is killed on its way.  One CPU, or
 * the reader's own being this one, makes sure of it; else it may come first.
 */
static void queue_hand_over(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	struct reader reader[2] = {};
	unsigned int nr;

	start_readers(test, reader, 2);
	preempt_disable();
	nr = uffd_queue_add(&f->queue, &f->fault[0]);
	uffd_queue_announce(&f->queue, nr, false);
	send_sig(SIGKILL, reader[1].task, 1);
	preempt_enable();

	expect_returned(test, reader, 2, 2);
	KUNIT_EXPECT_EQ(test, reader[1].ret, -ERESTARTSYS);
	KUNIT_EXPECT_EQ(test, reader[0].ret, 0);
	KUNIT_EXPECT_TRUE(test, f->queue.readable);
	stop_readers(reader, 2);
}

/* A reader that was chosen and has not run yet keeps no other from being woken. */
static void queue_no_captive(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	struct reader reader[3] = {};
	unsigned int i, nr[2];

	start_readers(test, reader, 3);
	/* Two threads queue a message each, and the first one stops there. */
	for (i = 0; i < 2; i++)
		nr[i] = uffd_queue_add(&f->queue, &f->fault[i]);
	uffd_queue_announce(&f->queue, nr[1], false);
	expect_returned(test, reader, 3, 1);
	KUNIT_EXPECT_TRUE(test, f->queue.readable);
	KUNIT_EXPECT_EQ(test, take(f, UFFD_BATCH), 2);
	stop_readers(reader, 3);
}

/* The time of one is up: it is in nobody's way. */
static void queue_deadline(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	ktime_t soon = ktime_add_ms(ktime_get(), 100);
	ktime_t late = ktime_add_ms(ktime_get(), 100 * MSEC_PER_SEC);
	struct reader reader[3] = { {}, { .deadline = &late },
				    { .deadline = &soon } };

	start_readers(test, reader, 3);
	expect_returned(test, reader, 3, 1);
	KUNIT_EXPECT_EQ(test, reader[2].ret, -ETIME);
	KUNIT_EXPECT_LE(test, soon, ktime_get());
	KUNIT_EXPECT_EQ(test, nr_asleep(&f->queue), 2);
	add_fault(f, 0);
	expect_returned(test, reader, 3, 2);
	KUNIT_EXPECT_TRUE(test, reader[1].returned);
	KUNIT_EXPECT_EQ(test, reader[1].ret, 0);
	stop_readers(reader, 3);
}

static void queue_putback_wakes(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	struct reader reader[2] = {};

	add_fault(f, 0);
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	start_readers(test, reader, 2);
	put_back(f, &f->fault[0]);
	expect_returned(test, reader, 2, 1);
	stop_readers(reader, 2);
}

struct poller {
	struct wait_queue_entry entry;
	unsigned int woken;
};

static int poller_wake(struct wait_queue_entry *entry, unsigned int mode,
		       int flags, void *key)
{
	struct poller *poller = container_of(entry, struct poller, entry);

	poller->woken++;
	return 1;
}

/* Exclusive pollers, as epoll makes them: one for each message. */
static void queue_wakes_pollers(struct kunit *test)
{
	struct queue_fixture *f = test->priv;
	struct poller poller[3] = {};
	unsigned int i;

	add_event(f, 0, UFFD_ITEM_HELD);
	add_fault(f, 0);
	for (i = 0; i < 3; i++) {
		init_waitqueue_func_entry(&poller[i].entry, poller_wake);
		add_wait_queue_exclusive(&f->queue.pollers, &poller[i].entry);
	}
	publish_event(f, 0);
	for (i = 0; i < 3; i++)
		KUNIT_EXPECT_EQ(test, poller[i].woken, i < 2);
	/* It is not known which one has to try again. */
	uffd_queue_nudge(&f->queue);
	for (i = 0; i < 3; i++) {
		KUNIT_EXPECT_EQ(test, poller[i].woken, 1 + (i < 2));
		remove_wait_queue(&f->queue.pollers, &poller[i].entry);
	}
}

static struct kunit_case queue_cases[] = {
	KUNIT_CASE(queue_empty),
	KUNIT_CASE(queue_order),
	KUNIT_CASE(queue_batches),
	KUNIT_CASE(queue_held),
	KUNIT_CASE(queue_held_twice),
	KUNIT_CASE(queue_withdrawn),
	KUNIT_CASE(queue_fork_alone),
	KUNIT_CASE(queue_putback),
	KUNIT_CASE(queue_putback_held),
	KUNIT_CASE(queue_putback_all),
	KUNIT_CASE(queue_putback_last),
	KUNIT_CASE(queue_resolved),
	KUNIT_CASE(queue_seq_wraps),
	KUNIT_CASE(queue_wakes_one),
	KUNIT_CASE(queue_held_wakes_nobody),
	KUNIT_CASE(queue_hand_over),
	KUNIT_CASE(queue_no_captive),
	KUNIT_CASE(queue_deadline),
	KUNIT_CASE(queue_putback_wakes),
	KUNIT_CASE(queue_wakes_pollers),
	{}
};

static struct kunit_suite queue_suite = {
	.name = "userfaultfd_queue",
	.init = queue_test_init,
	.test_cases = queue_cases,
};
kunit_test_suite(queue_suite);
