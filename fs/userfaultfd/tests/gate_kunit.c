// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the gate of userfaultfd: which calls an unread event refuses,
 * from when to when, and what it tells those that do not wait.
 */

#include <kunit/test.h>
#include <linux/kthread.h>
#include <linux/delay.h>
#include <linux/slab.h>
#include "../uffd.h"

#define NR_EVENTS	64
#define PAGE(n)		((n) * 0x1000UL)

struct gate_fixture {
	struct userfaultfd_ctx ctx;
	struct uffd_event event[NR_EVENTS];
	struct uffd_gate gate;
	struct uffd_batch batch;
};

static int gate_test_init(struct kunit *test)
{
	struct gate_fixture *f;
	unsigned int i;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	uffd_ctx_init(&f->ctx);
	for (i = 0; i < NR_EVENTS; i++) {
		f->event[i].ctx = &f->ctx;
		init_completion(&f->event[i].done);
	}
	test->priv = f;
	return 0;
}

/* An event for pages [first, end), or without a range if that is empty. */
static void prepare(struct gate_fixture *f, unsigned int i, unsigned long first,
		    unsigned long end)
{
	struct uffd_event *event = &f->event[i];

	event->item.msg.event = first < end ? UFFD_EVENT_REMOVE :
					      UFFD_EVENT_REMAP;
	event->item.msg.arg.remove.start = PAGE(first);
	event->item.msg.arg.remove.end = PAGE(end);
	/* One that is never dropped: it is not on the heap. */
	refcount_set(&event->refs, 1000);
	spin_lock(&f->ctx.queue.lock);
	__uffd_queue_append(&f->ctx.queue, &event->item, UFFD_ITEM_HELD);
	__uffd_gate_close(event);
	spin_unlock(&f->ctx.queue.lock);
}

static void publish(struct gate_fixture *f, unsigned int i)
{
	spin_lock(&f->ctx.queue.lock);
	__uffd_queue_publish(&f->ctx.queue, &f->event[i].item);
	spin_unlock(&f->ctx.queue.lock);
	wake_up_all(&f->ctx.events.gate);
}

static void withdraw(struct gate_fixture *f, unsigned int i)
{
	spin_lock(&f->ctx.queue.lock);
	__uffd_queue_remove(&f->ctx.queue, &f->event[i].item);
	__uffd_gate_open(&f->event[i], false);
	__uffd_queue_go_on(&f->ctx.queue);
	spin_unlock(&f->ctx.queue.lock);
	wake_up_all(&f->ctx.events.gate);
}

static unsigned int take(struct gate_fixture *f, unsigned int max)
{
	uffd_queue_take(&f->ctx.queue, &f->batch, max);
	if (!f->batch.nr)
		uffd_queue_told(&f->ctx.queue);
	return f->batch.nr;
}

static void deliver(struct gate_fixture *f)
{
	unsigned int i;

	for (i = 0; i < f->batch.nr; i++)
		uffd_event_delivered(f->batch.item[i].event);
	f->batch.nr = 0;
}

static int call(struct gate_fixture *f, unsigned long first, unsigned long end,
		bool nowait)
{
	userfaultfd_gate_init(&f->gate, &f->ctx, PAGE(first), PAGE(end - first),
			      nowait);
	return userfaultfd_gate_pass(&f->gate);
}

static void gate_ranges(struct kunit *test)
{
	struct gate_fixture *f = test->priv;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, call(f, 0, 1000, false), 0);
	/* Every second page has an event, and one event spans pages 200 to 299. */
	for (i = 0; i < NR_EVENTS - 1; i++)
		prepare(f, i, 2 * i, 2 * i + 1);
	prepare(f, i, 200, 300);
	for (i = 0; i < NR_EVENTS; i++)
		publish(f, i);
	for (i = 0; i < NR_EVENTS - 1; i++) {
		KUNIT_EXPECT_EQ(test, call(f, 2 * i, 2 * i + 1, false), -EAGAIN);
		KUNIT_EXPECT_EQ(test, call(f, 2 * i + 1, 2 * i + 2, false), 0);
		KUNIT_EXPECT_EQ(test, call(f, 2 * i + 1, 2 * i + 3, false),
				i < NR_EVENTS - 2 ? -EAGAIN : 0);
	}
	KUNIT_EXPECT_EQ(test, call(f, 199, 200, false), 0);
	KUNIT_EXPECT_EQ(test, call(f, 250, 251, false), -EAGAIN);
	KUNIT_EXPECT_EQ(test, call(f, 0, 1000, false), -EAGAIN);
	KUNIT_EXPECT_EQ(test, call(f, 300, 1000, false), 0);
	/* The second range, of a move. */
	userfaultfd_gate_init(&f->gate, &f->ctx, PAGE(400), PAGE(1), false);
	f->gate.range[1].start = PAGE(299);
	f->gate.range[1].end = PAGE(301);
	KUNIT_EXPECT_EQ(test, userfaultfd_gate_pass(&f->gate), -EAGAIN);

	while (take(f, UFFD_BATCH)) {
		KUNIT_EXPECT_EQ(test, f->ctx.queue.carried, f->batch.nr);
		deliver(f);
	}
	KUNIT_EXPECT_EQ(test, f->ctx.queue.carried, 0);
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 0);
	KUNIT_EXPECT_TRUE(test, RB_EMPTY_ROOT(&f->ctx.events.ranges.rb_root));
	KUNIT_EXPECT_EQ(test, call(f, 0, 1000, false), 0);
}

static void gate_everywhere(struct kunit *test)
{
	struct gate_fixture *f = test->priv;

	prepare(f, 0, 0, 0);
	prepare(f, 1, 0, 0);
	publish(f, 0);
	publish(f, 1);
	KUNIT_EXPECT_EQ(test, call(f, 7, 8, false), -EAGAIN);
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	deliver(f);
	KUNIT_EXPECT_EQ(test, call(f, 7, 8, false), -EAGAIN);
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	/* Until it is delivered. */
	KUNIT_EXPECT_EQ(test, call(f, 7, 8, false), -EAGAIN);
	deliver(f);
	KUNIT_EXPECT_EQ(test, call(f, 7, 8, false), 0);
}

/* An event for pages [0, 10) comes and is read. */
static void read_one(struct kunit *test, unsigned int i)
{
	struct gate_fixture *f = test->priv;

	prepare(f, i, 0, 10);
	publish(f, i);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	deliver(f);
}

/* A call in flight: the event came, and was read, after the call began. */
static void gate_overtaken(struct kunit *test)
{
	struct gate_fixture *f = test->priv;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, call(f, 10, 20, false), 0);
	KUNIT_EXPECT_FALSE(test, userfaultfd_gate_moved(&f->gate));
	prepare(f, 0, 0, 10);
	publish(f, 0);
	/* It does not concern the call. */
	KUNIT_EXPECT_FALSE(test, userfaultfd_gate_moved(&f->gate));
	prepare(f, 1, 19, 21);
	KUNIT_EXPECT_TRUE(test, userfaultfd_gate_moved(&f->gate));
	publish(f, 1);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 2);
	deliver(f);
	KUNIT_EXPECT_TRUE(test, userfaultfd_gate_moved(&f->gate));
	KUNIT_EXPECT_EQ(test, userfaultfd_gate_pass(&f->gate), -EAGAIN);

	/* What is not remembered any more might have concerned it. */
	KUNIT_ASSERT_EQ(test, call(f, 10, 20, false), 0);
	for (i = 2; i < 2 + UFFD_HISTORY; i++)
		read_one(test, i);
	KUNIT_EXPECT_FALSE(test, userfaultfd_gate_moved(&f->gate));
	for (; i < 2 + 2 * UFFD_HISTORY + 1; i++)
		read_one(test, i);
	KUNIT_EXPECT_TRUE(test, userfaultfd_gate_moved(&f->gate));
}

/*
 * The event was unread when the call began, and another thread reads it before the
 * call comes to the gate: the caller does not know of it.
 */
static void gate_read_in_passing(struct kunit *test)
{
	struct gate_fixture *f = test->priv;
	struct uffd_queue *q = &f->ctx.queue;

	prepare(f, 0, 10, 11);
	publish(f, 0);
	userfaultfd_gate_init(&f->gate, &f->ctx, PAGE(10), PAGE(1), true);
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	deliver(f);
	KUNIT_EXPECT_EQ(test, userfaultfd_gate_pass(&f->gate), -EAGAIN);
	/* There is nothing left to read, and poll() says so. */
	KUNIT_EXPECT_TRUE(test, q->resume);
	KUNIT_EXPECT_EQ(test, take(f, 1), 0);
	KUNIT_EXPECT_EQ(test, call(f, 10, 11, true), 0);
	/* One that does not concern it is none. */
	prepare(f, 1, 11, 12);
	publish(f, 1);
	userfaultfd_gate_init(&f->gate, &f->ctx, PAGE(10), PAGE(1), true);
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	deliver(f);
	KUNIT_EXPECT_EQ(test, userfaultfd_gate_pass(&f->gate), 0);
}

/* Who does not wait is told by poll() when to go on. */
static void gate_nowait(struct kunit *test)
{
	struct gate_fixture *f = test->priv;
	struct uffd_queue *q = &f->ctx.queue;

	prepare(f, 0, 10, 11);
	KUNIT_EXPECT_EQ(test, call(f, 10, 11, true), -EAGAIN);
	KUNIT_EXPECT_FALSE(test, q->readable || q->resume);
	/* The message tells. */
	publish(f, 0);
	KUNIT_EXPECT_TRUE(test, q->readable);
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	deliver(f);
	KUNIT_EXPECT_FALSE(test, q->resume);
	KUNIT_EXPECT_EQ(test, call(f, 10, 11, true), 0);

	/* There will be none. */
	prepare(f, 1, 0, 0);
	KUNIT_EXPECT_EQ(test, call(f, 10, 11, true), -EAGAIN);
	withdraw(f, 1);
	KUNIT_EXPECT_TRUE(test, q->resume);
	KUNIT_EXPECT_FALSE(test, q->readable);
	KUNIT_EXPECT_EQ(test, call(f, 10, 11, true), 0);
	KUNIT_EXPECT_EQ(test, take(f, 1), 0);
	KUNIT_EXPECT_FALSE(test, q->resume);

	/* Another reader has it. */
	prepare(f, 2, 10, 11);
	publish(f, 2);
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	KUNIT_EXPECT_EQ(test, call(f, 10, 11, true), -EAGAIN);
	KUNIT_EXPECT_FALSE(test, q->resume);
	deliver(f);
	KUNIT_EXPECT_TRUE(test, q->resume);

	/* Nobody was refused, so nobody is told. */
	KUNIT_EXPECT_EQ(test, take(f, 1), 0);
	prepare(f, 3, 0, 0);
	withdraw(f, 3);
	KUNIT_EXPECT_FALSE(test, q->resume);
}

struct caller {
	struct gate_fixture *f;
	int ret;
	bool returned;
};

static int caller_fn(void *arg)
{
	struct caller *caller = arg;

	caller->ret = call(caller->f, 10, 11, false);
	/* Paired with has_returned(). */
	smp_store_release(&caller->returned, true);
	return 0;
}

static bool has_returned(const struct caller *caller)
{
	/* Paired with caller_fn(): its result is there, too. */
	return smp_load_acquire(&caller->returned);
}

/* Who may wait does so until the event is published. */
static void gate_waits(struct kunit *test)
{
	struct gate_fixture *f = test->priv;
	struct caller caller = { .f = f };
	struct task_struct *task;
	unsigned int patience = 1000;

	prepare(f, 0, 10, 11);
	task = kthread_run(caller_fn, &caller, "uffd-caller");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	msleep(20);
	KUNIT_EXPECT_FALSE(test, has_returned(&caller));
	publish(f, 0);
	while (!has_returned(&caller) && --patience)
		usleep_range(1000, 2000);
	KUNIT_ASSERT_NE(test, patience, 0);
	KUNIT_EXPECT_EQ(test, caller.ret, -EAGAIN);
}

static struct kunit_case gate_cases[] = {
	KUNIT_CASE(gate_ranges),
	KUNIT_CASE(gate_everywhere),
	KUNIT_CASE(gate_overtaken),
	KUNIT_CASE(gate_read_in_passing),
	KUNIT_CASE(gate_nowait),
	KUNIT_CASE(gate_waits),
	{}
};

static struct kunit_suite gate_suite = {
	.name = "userfaultfd_gate",
	.init = gate_test_init,
	.test_cases = gate_cases,
};
kunit_test_suite(gate_suite);
