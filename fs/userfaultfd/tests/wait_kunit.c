// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the address index of userfaultfd: who is found by a wake-up
 * of a range, who is not, and what becomes of their messages.
 */

#include <kunit/test.h>
#include <linux/hash.h>
#include <linux/prandom.h>
#include "../uffd.h"

static unsigned long sleepers(struct uffd_index *index)
{
	unsigned long age;

	return uffd_index_count(index, &age);
}

#define NR_WAITERS	512
#define STRIPE		(1UL << UFFD_STRIPE_SHIFT)

struct wait_fixture {
	struct uffd_index index;
	struct uffd_queue queue;
	struct uffd_batch batch;
	struct uffd_waiter waiter[NR_WAITERS];
};

static int wait_test_init(struct kunit *test)
{
	struct wait_fixture *f;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	uffd_index_init(&f->index);
	uffd_queue_init(&f->queue);
	test->priv = f;
	return 0;
}

/* Parks, as if the test itself slept on @address; waking it does no harm. */
static struct uffd_waiter *park(struct wait_fixture *f, unsigned int i,
				unsigned long address)
{
	struct uffd_waiter *waiter = &f->waiter[i];

	waiter->task = current;
	waiter->address = address;
	waiter->item.msg.event = UFFD_EVENT_PAGEFAULT;
	waiter->item.msg.arg.pagefault.address = address;
	uffd_index_park(&f->index, waiter);
	return waiter;
}

static struct uffd_waiter *park_and_tell(struct wait_fixture *f,
					 unsigned int i, unsigned long address)
{
	struct uffd_waiter *waiter = park(f, i, address);

	uffd_queue_add(&f->queue, &waiter->item);
	return waiter;
}

static unsigned int wake(struct wait_fixture *f, unsigned long first,
			 unsigned long last)
{
	return uffd_index_wake(&f->index, &f->queue, first, last);
}

static void wait_park(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	struct uffd_waiter *a, *b;

	KUNIT_EXPECT_EQ(test, sleepers(&f->index), 0);
	a = park(f, 0, 0x1000);
	b = park(f, 1, 0x2000);
	KUNIT_EXPECT_EQ(test, sleepers(&f->index), 2);
	uffd_index_unpark(&f->index, &f->queue, a);
	KUNIT_EXPECT_FALSE(test, a->parked);
	KUNIT_EXPECT_TRUE(test, b->parked);
	/* A second time it does nothing: a waker may have been faster. */
	uffd_index_unpark(&f->index, &f->queue, a);
	KUNIT_EXPECT_EQ(test, sleepers(&f->index), 1);
	uffd_index_unpark(&f->index, &f->queue, b);
	KUNIT_EXPECT_EQ(test, sleepers(&f->index), 0);
}

static void wait_oldest(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	unsigned long age = 1;

	KUNIT_EXPECT_EQ(test, uffd_index_count(&f->index, &age), 0);
	KUNIT_EXPECT_EQ(test, age, 0);
	park(f, 0, 0x1000)->since -= 10 * HZ;
	park(f, 1, 0x2000)->since -= 30 * HZ;
	park(f, 2, STRIPE)->since -= 20 * HZ;
	KUNIT_EXPECT_EQ(test, uffd_index_count(&f->index, &age), 3);
	KUNIT_EXPECT_GE(test, age, 30 * HZ);
	KUNIT_EXPECT_LT(test, age, 40 * HZ);
	KUNIT_EXPECT_EQ(test, wake(f, 0x2000, 0x2fff), 1);
	KUNIT_EXPECT_EQ(test, uffd_index_count(&f->index, &age), 2);
	KUNIT_EXPECT_GE(test, age, 20 * HZ);
	KUNIT_EXPECT_LT(test, age, 30 * HZ);
}

static void wait_range(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	struct uffd_waiter *below, *first, *last, *above;

	below = park(f, 0, 0x10000 - 1);
	first = park(f, 1, 0x10000);
	last = park(f, 2, 0x12fff);
	above = park(f, 3, 0x13000);
	KUNIT_EXPECT_EQ(test, wake(f, 0x14000, 0x14fff), 0);
	KUNIT_EXPECT_EQ(test, wake(f, 0x10000, 0x12fff), 2);
	KUNIT_EXPECT_FALSE(test, first->parked);
	KUNIT_EXPECT_FALSE(test, last->parked);
	KUNIT_EXPECT_TRUE(test, below->parked);
	KUNIT_EXPECT_TRUE(test, above->parked);
	KUNIT_EXPECT_EQ(test, wake(f, 0x10000, 0x12fff), 0);
	KUNIT_EXPECT_EQ(test, sleepers(&f->index), 2);
}

static void wait_duplicates(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	unsigned int i;

	for (i = 0; i < 32; i++)
		park(f, i, 0x5000 + (i % 2) * 0x1000);
	KUNIT_EXPECT_EQ(test, wake(f, 0x5000, 0x5fff), 16);
	for (i = 0; i < 32; i++)
		KUNIT_EXPECT_EQ(test, f->waiter[i].parked, i % 2);
	KUNIT_EXPECT_EQ(test, wake(f, 0x6000, 0x6fff), 16);
}

/* Neighbours in a shard may be far away in memory. */
static void wait_shard_edge(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	struct uffd_waiter *near, *far;
	unsigned long stripe = 1 + UFFD_SHARDS;

	while (hash_long(stripe, UFFD_SHARD_BITS) !=
	       hash_long(1, UFFD_SHARD_BITS))
		stripe++;
	near = park(f, 0, STRIPE);
	far = park(f, 1, stripe * STRIPE);
	KUNIT_EXPECT_EQ(test, wake(f, STRIPE, 2 * STRIPE - 1), 1);
	KUNIT_EXPECT_FALSE(test, near->parked);
	KUNIT_EXPECT_TRUE(test, far->parked);
	/* From the middle of one stripe to the middle of its neighbour. */
	park(f, 0, 3 * STRIPE - 1);
	park(f, 2, 3 * STRIPE);
	KUNIT_EXPECT_EQ(test, wake(f, 3 * STRIPE - 1, 3 * STRIPE), 2);
	KUNIT_EXPECT_TRUE(test, far->parked);
	/* A range of exactly as many stripes as there are shards, and less. */
	KUNIT_EXPECT_EQ(test, wake(f, far->address - UFFD_SHARDS * STRIPE,
				   far->address - 1), 0);
	KUNIT_EXPECT_EQ(test, wake(f, far->address - UFFD_SHARDS * STRIPE,
				   far->address), 1);
}

/* Threads that walk equal parts of memory in step must not meet in one shard. */
static void wait_shard_spread(struct kunit *test)
{
	static const unsigned int shift[] = { 21, 24, 27, 28, 30, 33 };
	unsigned long stripe;
	unsigned int i, j;
	u64 seen;

	for (i = 0; i < ARRAY_SIZE(shift) && shift[i] + 5 < BITS_PER_LONG; i++) {
		seen = 0;
		for (j = 0; j < 32; j++) {
			stripe = (unsigned long)j << (shift[i] - 21);
			seen |= BIT_ULL(hash_long(stripe, UFFD_SHARD_BITS));
		}
		KUNIT_EXPECT_GE_MSG(test, hweight64(seen), 16,
				    "1 << %u bytes each", shift[i]);
	}
}

static void wait_stripe_edge(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	unsigned int i;

	/* Both ends of each of many stripes, more than there are shards. */
	for (i = 0; i < 200; i += 2) {
		park(f, i, i * STRIPE);
		park(f, i + 1, (i + 1) * STRIPE - 1);
	}
	KUNIT_EXPECT_EQ(test, wake(f, 10 * STRIPE, 11 * STRIPE - 1), 2);
	KUNIT_EXPECT_EQ(test, wake(f, 12 * STRIPE + 1, 14 * STRIPE), 2);
	KUNIT_EXPECT_EQ(test, wake(f, 0, ULONG_MAX), 196);
	KUNIT_EXPECT_EQ(test, sleepers(&f->index), 0);
}

static void wait_top_of_memory(struct kunit *test)
{
	struct wait_fixture *f = test->priv;

	park(f, 0, ULONG_MAX);
	park(f, 1, 0);
	KUNIT_EXPECT_EQ(test, wake(f, ULONG_MAX - 4095, ULONG_MAX), 1);
	KUNIT_EXPECT_EQ(test, wake(f, 0, 4095), 1);
}

/* What has been resolved is not read. */
static void wait_withdraws(struct kunit *test)
{
	struct wait_fixture *f = test->priv;

	park_and_tell(f, 0, 0x1000);
	park_and_tell(f, 1, 0x2000);
	KUNIT_EXPECT_EQ(test, f->queue.faults, 2);
	KUNIT_EXPECT_EQ(test, wake(f, 0x1000, 0x1fff), 1);
	KUNIT_EXPECT_EQ(test, f->queue.faults, 1);
	uffd_queue_take(&f->queue, &f->batch, UFFD_BATCH);
	KUNIT_ASSERT_EQ(test, f->batch.nr, 1);
	KUNIT_EXPECT_EQ(test, f->batch.msg[0].arg.pagefault.address, 0x2000);
	KUNIT_EXPECT_EQ(test, wake(f, 0x2000, 0x2fff), 1);
}

/* Several ranges, and one wake-up for all. */
static void wait_release(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	DEFINE_WAKE_Q(wake_q);
	unsigned int i;

	for (i = 0; i < 4; i++)
		park_and_tell(f, i, i * STRIPE);
	for (i = 0; i < 3; i++)
		KUNIT_EXPECT_EQ(test,
				uffd_index_release(&f->index, &f->queue,
						   i * STRIPE,
						   i * STRIPE + 0xfff, &wake_q),
				1);
	KUNIT_EXPECT_FALSE(test, wake_q_empty(&wake_q));
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, f->waiter[i].parked, i == 3);
	KUNIT_EXPECT_EQ(test, f->queue.faults, 1);
	/* It is this thread, which does not sleep. */
	uffd_wake_here(&wake_q);
	wake_up_q(&wake_q);
	KUNIT_EXPECT_EQ(test, wake(f, 3 * STRIPE, 3 * STRIPE), 1);
}

/*
 * Somebody else is about to wake the thread: it cannot be in two queues, so there is
 * one to let go, and none to wake.
 */
static void wait_release_twice(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	DEFINE_WAKE_Q(others);
	DEFINE_WAKE_Q(wake_q);

	park(f, 0, 0x1000);
	wake_q_add(&others, current);
	KUNIT_EXPECT_EQ(test,
			uffd_index_release(&f->index, &f->queue, 0x1000, 0x1fff,
					   &wake_q),
			1);
	KUNIT_EXPECT_TRUE(test, wake_q_empty(&wake_q));
	uffd_wake_here(&wake_q);
	wake_up_q(&others);
}

/* Neither if it is resolved before its message is queued. */
static void wait_before_message(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	struct uffd_waiter *waiter = park(f, 0, 0x1000);

	KUNIT_EXPECT_EQ(test, wake(f, 0x1000, 0x1fff), 1);
	KUNIT_EXPECT_EQ(test, uffd_queue_add(&f->queue, &waiter->item), 0);
	KUNIT_EXPECT_FALSE(test, f->queue.readable);
}

/* Gives back the message of a fault; true if its thread sleeps, and it is read. */
static bool put_back(struct wait_fixture *f, unsigned long address,
		     unsigned long seq)
{
	LIST_HEAD(returning);
	bool found;

	uffd_index_collect(&f->index, &f->queue, address, seq, &returning);
	found = !list_empty(&returning);
	uffd_queue_putback(&f->queue, &returning);
	return found;
}

/* A waker meets a message on its way back. */
static void wait_returning(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	LIST_HEAD(returning);
	unsigned int i;

	for (i = 0; i < 2; i++)
		park_and_tell(f, i, 0x1000 * i);
	uffd_queue_take(&f->queue, &f->batch, UFFD_BATCH);
	KUNIT_ASSERT_EQ(test, f->batch.nr, 2);
	for (i = 0; i < 2; i++)
		uffd_index_collect(&f->index, &f->queue, 0x1000 * i,
				   f->batch.item[i].seq, &returning);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&returning), 2);
	KUNIT_EXPECT_EQ(test, wake(f, 0, 0xfff), 1);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&returning), 1);
	KUNIT_EXPECT_EQ(test, uffd_queue_putback(&f->queue, &returning), 1);
	uffd_queue_take(&f->queue, &f->batch, UFFD_BATCH);
	KUNIT_ASSERT_EQ(test, f->batch.nr, 1);
	KUNIT_EXPECT_EQ(test, f->batch.msg[0].arg.pagefault.address, 0x1000);
	KUNIT_EXPECT_EQ(test, wake(f, 0, ULONG_MAX), 1);
}

static void wait_putback(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	unsigned long seq[3];
	unsigned int i;

	/* Three on one page: each message belongs to one of them. */
	for (i = 0; i < 3; i++)
		park_and_tell(f, i, 0x1000);
	uffd_queue_take(&f->queue, &f->batch, UFFD_BATCH);
	KUNIT_ASSERT_EQ(test, f->batch.nr, 3);
	for (i = 0; i < 3; i++)
		seq[i] = f->batch.item[i].seq;

	KUNIT_EXPECT_TRUE(test, put_back(f, 0x1000, seq[1]));
	KUNIT_EXPECT_EQ(test, f->queue.faults, 1);
	/* It is there already. */
	KUNIT_EXPECT_FALSE(test, put_back(f, 0x1000, seq[1]));
	uffd_queue_take(&f->queue, &f->batch, UFFD_BATCH);
	KUNIT_ASSERT_EQ(test, f->batch.nr, 1);
	KUNIT_EXPECT_EQ(test, f->batch.item[0].seq, seq[1]);

	/* Its thread has gone. */
	uffd_index_unpark(&f->index, &f->queue, &f->waiter[0]);
	KUNIT_EXPECT_FALSE(test, put_back(f, 0x1000, seq[0]));
	KUNIT_EXPECT_FALSE(test, put_back(f, 0x3000, seq[2]));
	KUNIT_EXPECT_EQ(test, wake(f, 0x1000, 0x1fff), 2);
	KUNIT_EXPECT_FALSE(test, put_back(f, 0x1000, seq[2]));
	KUNIT_EXPECT_FALSE(test, f->queue.readable);
}

/* Against a model that looks at everybody. */
static void wait_random(struct kunit *test)
{
	struct wait_fixture *f = test->priv;
	const unsigned long span = 3 * UFFD_SHARDS * STRIPE;
	unsigned int i, round, expected;
	unsigned long first, last;
	struct rnd_state rnd;

	prandom_seed_state(&rnd, 0x75666664);
	for (i = 0; i < NR_WAITERS; i++)
		park_and_tell(f, i, prandom_u32_state(&rnd) % span);

	for (round = 0; round < 400; round++) {
		first = prandom_u32_state(&rnd) % span;
		last = first + (prandom_u32_state(&rnd) % span) /
			       (1 + round % 64);
		expected = 0;
		for (i = 0; i < NR_WAITERS; i++)
			expected += f->waiter[i].parked &&
				    f->waiter[i].address >= first &&
				    f->waiter[i].address <= last;
		KUNIT_ASSERT_EQ(test, wake(f, first, last), expected);
		/* Half of those awake fault again, some elsewhere. */
		for (i = 0; i < NR_WAITERS; i++)
			if (!f->waiter[i].parked &&
			    prandom_u32_state(&rnd) % 2)
				park_and_tell(f, i, prandom_u32_state(&rnd) %
						    span);
		KUNIT_ASSERT_EQ(test, f->queue.faults,
				sleepers(&f->index));
	}
}

static struct kunit_case wait_cases[] = {
	KUNIT_CASE(wait_park),
	KUNIT_CASE(wait_oldest),
	KUNIT_CASE(wait_range),
	KUNIT_CASE(wait_duplicates),
	KUNIT_CASE(wait_shard_edge),
	KUNIT_CASE(wait_shard_spread),
	KUNIT_CASE(wait_stripe_edge),
	KUNIT_CASE(wait_top_of_memory),
	KUNIT_CASE(wait_withdraws),
	KUNIT_CASE(wait_release),
	KUNIT_CASE(wait_release_twice),
	KUNIT_CASE(wait_before_message),
	KUNIT_CASE(wait_putback),
	KUNIT_CASE(wait_returning),
	KUNIT_CASE(wait_random),
	{}
};

static struct kunit_suite wait_suite = {
	.name = "userfaultfd_wait",
	.init = wait_test_init,
	.test_cases = wait_cases,
};
kunit_test_suite(wait_suite);
