// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the write log of userfaultfd: what is one message, what a full log
 * says and how often, what becomes of messages that cannot be delivered, and when
 * somebody is woken.
 */

#include <kunit/test.h>
#include <linux/mm.h>
#include "../uffd.h"

#define SIZE		4U
#define WATERMARK	3U

struct log_poller {
	struct wait_queue_entry entry;
	unsigned int woken;
};

struct log_fixture {
	struct userfaultfd_ctx ctx;
	struct vm_area_struct vma;
	struct uffd_batch batch;
	struct uffd_item fault;
	struct log_poller poller;
};

static int log_poller_wake(struct wait_queue_entry *entry, unsigned int mode,
			   int flags, void *key)
{
	struct log_poller *poller = container_of(entry, struct log_poller, entry);

	poller->woken++;
	return 1;
}

static int set_log(struct log_fixture *f, u64 size, u64 watermark)
{
	return uffd_log_set(&f->ctx, &size, &watermark);
}

static int log_test_init(struct kunit *test)
{
	struct log_fixture *f;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	uffd_ctx_init(&f->ctx);
	f->ctx.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_LOG;
	f->vma.vm_userfaultfd_ctx.ctx = &f->ctx;
	vm_flags_init(&f->vma, VM_UFFD_WP);
	f->vma.vm_end = 64 * PAGE_SIZE;
	f->fault.msg.event = UFFD_EVENT_PAGEFAULT;
	init_waitqueue_func_entry(&f->poller.entry, log_poller_wake);
	add_wait_queue(&f->ctx.queue.pollers, &f->poller.entry);
	test->priv = f;
	KUNIT_ASSERT_EQ(test, uffd_log_init(&f->ctx), 0);
	KUNIT_ASSERT_EQ(test, set_log(f, SIZE, WATERMARK), 0);
	return 0;
}

static void log_test_exit(struct kunit *test)
{
	struct log_fixture *f = test->priv;

	if (f)
		uffd_log_free(&f->ctx);
}

static void write_page(struct log_fixture *f, unsigned int page)
{
	userfaultfd_log_write(&f->vma, page * PAGE_SIZE + 8, PAGE_SIZE);
}

static void add_fault(struct log_fixture *f)
{
	unsigned int nr = uffd_queue_add(&f->ctx.queue, &f->fault);

	uffd_queue_announce(&f->ctx.queue, nr, false);
}

static unsigned int take(struct log_fixture *f, unsigned int max)
{
	uffd_queue_take(&f->ctx.queue, &f->batch, max);
	return f->batch.nr;
}

static void deliver(struct log_fixture *f)
{
	uffd_log_delivered(&f->ctx, &f->batch, f->batch.nr);
	f->batch.nr = 0;
}

static void give_back(struct log_fixture *f)
{
	LIST_HEAD(returning);
	unsigned int i;

	for (i = 0; i < f->batch.nr; i++)
		uffd_log_collect(&f->ctx, f->batch.item[i].write, &returning);
	f->batch.nr = 0;
	uffd_queue_announce(&f->ctx.queue,
			    uffd_queue_putback(&f->ctx.queue, &returning), false);
}

static void expect_write(struct kunit *test, unsigned int at, unsigned int first,
			 unsigned int end)
{
	struct log_fixture *f = test->priv;

	KUNIT_ASSERT_LT(test, at, f->batch.nr);
	KUNIT_EXPECT_EQ(test, f->batch.msg[at].event, UFFD_EVENT_WRITE);
	KUNIT_EXPECT_EQ(test, f->batch.msg[at].arg.remove.start,
			first * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, f->batch.msg[at].arg.remove.end, end * PAGE_SIZE);
}

static void expect_lost(struct kunit *test, unsigned int at)
{
	struct log_fixture *f = test->priv;

	KUNIT_ASSERT_LT(test, at, f->batch.nr);
	KUNIT_EXPECT_EQ(test, f->batch.msg[at].event, UFFD_EVENT_WRITE_LOST);
}

static void log_neighbours(struct kunit *test)
{
	struct log_fixture *f = test->priv;

	write_page(f, 4);
	write_page(f, 5);
	write_page(f, 3);
	write_page(f, 7);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 2);
	expect_write(test, 0, 3, 6);
	expect_write(test, 1, 7, 8);
	/* What a reader has does not grow, even if it may come back. */
	write_page(f, 8);
	give_back(f);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 3);
	expect_write(test, 0, 3, 6);
	expect_write(test, 1, 7, 8);
	expect_write(test, 2, 8, 9);
}

/* Nor is anything added to a message across another one. */
static void log_in_order(struct kunit *test)
{
	struct log_fixture *f = test->priv;

	write_page(f, 1);
	add_fault(f);
	write_page(f, 2);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 3);
	expect_write(test, 0, 1, 2);
	KUNIT_EXPECT_EQ(test, f->batch.msg[1].event, UFFD_EVENT_PAGEFAULT);
	KUNIT_EXPECT_PTR_EQ(test, f->batch.item[1].event, NULL);
	expect_write(test, 2, 2, 3);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.carried, 0);
}

/* What has been of another mapping remains a message of its own. */
static void log_of_one_mapping(struct kunit *test)
{
	struct log_fixture *f = test->priv;

	write_page(f, 3);
	f->vma.vm_start = 4 * PAGE_SIZE;
	write_page(f, 4);
	write_page(f, 5);
	f->vma.vm_start = 0;
	f->vma.vm_end = 4 * PAGE_SIZE;
	write_page(f, 3);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 3);
	expect_write(test, 0, 3, 4);
	expect_write(test, 1, 4, 6);
	expect_write(test, 2, 3, 4);
}

/* Bits of a registration before, and who has not asked. */
static void log_is_asked_for(struct kunit *test)
{
	struct log_fixture *f = test->priv;

	vm_flags_init(&f->vma, VM_UFFD_MISSING);
	write_page(f, 1);
	vm_flags_init(&f->vma, VM_UFFD_WP);
	f->ctx.features = UFFD_FEATURE_WP_ASYNC;
	write_page(f, 2);
	KUNIT_EXPECT_EQ(test, take(f, UFFD_BATCH), 0);
}

static void log_is_full(struct kunit *test)
{
	struct log_fixture *f = test->priv;
	unsigned int i;

	for (i = 0; i < 2 * SIZE; i++)
		write_page(f, 2 * i);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), SIZE + 1);
	for (i = 0; i < SIZE; i++)
		expect_write(test, i, 2 * i, 2 * i + 1);
	expect_lost(test, SIZE);

	/* Somebody has yet to hear of it: that is enough. */
	write_page(f, 20);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.nr, 0);
	give_back(f);
	write_page(f, 22);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), SIZE + 1);
	expect_lost(test, SIZE);
	deliver(f);

	/* From here on it is not. */
	for (i = 0; i < SIZE + 2; i++)
		write_page(f, 2 * i);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), SIZE + 1);
	expect_write(test, 0, 0, 1);
	expect_lost(test, SIZE);
	deliver(f);
}

static void expect_woken(struct kunit *test, unsigned int times)
{
	struct log_fixture *f = test->priv;

	KUNIT_EXPECT_EQ(test, f->poller.woken, times);
	f->poller.woken = 0;
}

static void log_wakes(struct kunit *test)
{
	struct log_fixture *f = test->priv;

	write_page(f, 0);
	write_page(f, 1);
	write_page(f, 3);
	expect_woken(test, 0);
	KUNIT_EXPECT_TRUE(test, f->ctx.queue.readable);
	KUNIT_EXPECT_FALSE(test, uffd_queue_due(&f->ctx.queue));
	write_page(f, 5);
	expect_woken(test, 1);
	KUNIT_EXPECT_TRUE(test, uffd_queue_due(&f->ctx.queue));
	/* That has been said. */
	write_page(f, 7);
	expect_woken(test, 0);

	/* Whoever leaves some of them tells the next one, if there are enough. */
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	uffd_queue_pass_on(&f->ctx.queue);
	expect_woken(test, 1);
	deliver(f);
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	uffd_queue_pass_on(&f->ctx.queue);
	expect_woken(test, 0);
	deliver(f);
	write_page(f, 9);
	expect_woken(test, 1);
}

/* What is not a WRITE wakes, and is not forgotten behind WRITEs. */
static void log_wakes_for_others(struct kunit *test)
{
	struct log_fixture *f = test->priv;

	write_page(f, 0);
	add_fault(f);
	expect_woken(test, 1);
	KUNIT_EXPECT_TRUE(test, uffd_queue_due(&f->ctx.queue));
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	uffd_queue_pass_on(&f->ctx.queue);
	expect_woken(test, 1);
	deliver(f);
	KUNIT_ASSERT_EQ(test, take(f, 1), 1);
	KUNIT_EXPECT_FALSE(test, uffd_queue_due(&f->ctx.queue));
}

/* Held up, nobody can read them; when that is over they count as they would have. */
static void log_behind_held(struct kunit *test)
{
	struct log_fixture *f = test->priv;
	struct uffd_queue *q = &f->ctx.queue;
	struct uffd_item *held = &f->fault;
	unsigned int i, nr;

	held->msg.event = UFFD_EVENT_UNMAP;
	spin_lock(&q->lock);
	__uffd_queue_append(q, held, UFFD_ITEM_HELD);
	spin_unlock(&q->lock);
	for (i = 0; i < WATERMARK; i++)
		write_page(f, 2 * i);
	expect_woken(test, 0);
	KUNIT_EXPECT_FALSE(test, uffd_queue_due(q));
	/* It is withdrawn: one reader for them all. */
	spin_lock(&q->lock);
	nr = __uffd_queue_remove(q, held);
	spin_unlock(&q->lock);
	KUNIT_EXPECT_EQ(test, nr, 1);
	KUNIT_EXPECT_TRUE(test, uffd_queue_due(q));

	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), WATERMARK);
	deliver(f);
	held->state = UFFD_ITEM_NEW;
	spin_lock(&q->lock);
	__uffd_queue_append(q, held, UFFD_ITEM_HELD);
	spin_unlock(&q->lock);
	write_page(f, 0);
	spin_lock(&q->lock);
	nr = __uffd_queue_remove(q, held);
	spin_unlock(&q->lock);
	KUNIT_EXPECT_EQ(test, nr, 0);
	KUNIT_EXPECT_FALSE(test, uffd_queue_due(q));
}

static void log_is_set(struct kunit *test)
{
	struct log_fixture *f = test->priv;
	u64 size = 0, watermark = 0;

	KUNIT_EXPECT_EQ(test, uffd_log_set(&f->ctx, &size, &watermark), 0);
	KUNIT_EXPECT_EQ(test, size, SIZE);
	KUNIT_EXPECT_EQ(test, watermark, WATERMARK);
	KUNIT_EXPECT_EQ(test, set_log(f, UFFD_LOG_MAX + 1, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, set_log(f, 0, SIZE + 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, set_log(f, 2, 3), -EINVAL);
	/* A watermark that is not asked for is lowered by a small size. */
	KUNIT_EXPECT_EQ(test, set_log(f, 2, 0), 0);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.watermark, 2);

	write_page(f, 0);
	KUNIT_EXPECT_EQ(test, set_log(f, 8, 0), -EBUSY);
	KUNIT_EXPECT_EQ(test, set_log(f, 2, 0), 0);
	expect_woken(test, 0);
	/* It is as many as that now. */
	KUNIT_EXPECT_EQ(test, set_log(f, 0, 1), 0);
	expect_woken(test, 1);
	KUNIT_ASSERT_EQ(test, take(f, UFFD_BATCH), 1);
	KUNIT_EXPECT_EQ(test, set_log(f, 8, 0), -EBUSY);
	deliver(f);
	KUNIT_EXPECT_EQ(test, set_log(f, 8, 0), 0);
}

static struct kunit_case log_cases[] = {
	KUNIT_CASE(log_neighbours),
	KUNIT_CASE(log_in_order),
	KUNIT_CASE(log_of_one_mapping),
	KUNIT_CASE(log_is_asked_for),
	KUNIT_CASE(log_is_full),
	KUNIT_CASE(log_wakes),
	KUNIT_CASE(log_wakes_for_others),
	KUNIT_CASE(log_behind_held),
	KUNIT_CASE(log_is_set),
	{}
};

static struct kunit_suite log_suite = {
	.name = "userfaultfd_log",
	.init = log_test_init,
	.exit = log_test_exit,
	.test_cases = log_cases,
};
kunit_test_suite(log_suite);
