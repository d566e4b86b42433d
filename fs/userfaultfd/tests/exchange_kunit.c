// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for UFFDIO_EXCHANGE: in what portions operations are run, when those are
 * woken who were waiting for them, and what poll() is left to tell.
 *
 * What resolves and delivers is made up, and does what no program can time.
 */

#include <kunit/test.h>
#include <linux/fs.h>
#include <linux/mman.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include "../uffd.h"

#define NR_OPS		6
#define PAGE(n)		(0x100000UL + (n) * PAGE_SIZE)

/* What a portion is made of. */
struct portion {
	u32 op;
	unsigned int nr;
};

struct exchange_fixture {
	struct userfaultfd_ctx ctx;
	struct file file;
	struct uffd_waiter waiter[NR_OPS];
	struct uffdio_op op[NR_OPS];
	struct uffdio_exchange arg;
	/* In user memory. */
	struct uffdio_exchange __user *user;
	struct uffdio_op __user *user_op;
	/* What has been asked for. */
	struct portion portion[NR_OPS];
	unsigned int nr_portions;
	/* What to do: at most so many at once, and wait at this one. */
	unsigned int most;
	unsigned long waits;
	bool woken[NR_OPS];
};

/* The test that is running: there is no other way to the functions below. */
static struct exchange_fixture *this;

static int exchange_test_init(struct kunit *test)
{
	struct exchange_fixture *f;
	unsigned long addr;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(addr));
	f->user = (void __user *)addr;
	f->user_op = (void __user *)(addr + sizeof(*f->user));
	f->ctx.mm = current->mm;
	f->ctx.initialized = true;
	uffd_ctx_init(&f->ctx);
	f->most = NR_OPS;
	f->waits = -1;
	test->priv = f;
	this = f;
	return 0;
}

static void add(struct exchange_fixture *f, u32 op, s64 result)
{
	f->op[f->arg.nr_ops] = (struct uffdio_op) {
		.op = op,
		.dst = PAGE(f->arg.nr_ops),
		.len = PAGE_SIZE,
		/* What it is going to be; the kernel does not look at it. */
		.result = result,
	};
	f->arg.nr_ops++;
}

/* Operations end as the test has said, and one of them waits before that. */
static unsigned int resolve(struct userfaultfd_ctx *ctx, struct uffdio_op *op,
			    unsigned int nr, struct uffd_cursor *cursor,
			    bool nowait)
{
	struct exchange_fixture *f = this;
	unsigned int i, done = 0;

	f->portion[f->nr_portions++] = (struct portion) { op->op, nr };
	if (op->dst == f->waits) {
		cursor->wake(cursor);
		for (i = 0; i < NR_OPS; i++)
			f->woken[i] = !f->waiter[i].parked;
	}
	while (done < nr && done < f->most)
		if (op[done++].result != PAGE_SIZE)
			break;
	return done;
}

static ssize_t deliver(struct userfaultfd_ctx *ctx, struct file *file,
		       struct uffd_batch *batch, struct iov_iter *to)
{
	return copy_to_iter(batch->msg, batch->nr * sizeof(batch->msg[0]), to);
}

static const struct uffd_exchange_calls calls = {
	.known = 1ULL << _UFFDIO_ZEROPAGE | 1ULL << _UFFDIO_WRITEPROTECT |
		 1ULL << _UFFDIO_WAKE,
	.resolve = resolve,
	.deliver = deliver,
};

/* Returns what the call does, or -ENXIO if the test itself has failed. */
static int run(struct exchange_fixture *f)
{
	int ret;

	f->nr_portions = 0;
	f->arg.ops = (unsigned long)f->user_op;
	f->arg.msgs = (unsigned long)(f->user_op + NR_OPS);
	if (copy_to_user(f->user_op, f->op, sizeof(f->op)) ||
	    copy_to_user(f->user, &f->arg, sizeof(f->arg)))
		return -ENXIO;
	ret = uffd_exchange_run(&f->ctx, &f->file, f->user, &calls);
	if (copy_from_user(&f->arg, f->user, sizeof(f->arg)))
		return -ENXIO;
	return ret;
}

static void expect_portion(struct kunit *test, unsigned int i, u32 op,
			   unsigned int nr)
{
	struct exchange_fixture *f = test->priv;

	KUNIT_ASSERT_LT(test, i, f->nr_portions);
	KUNIT_EXPECT_EQ(test, f->portion[i].op, op);
	KUNIT_EXPECT_EQ(test, f->portion[i].nr, nr);
}

/* What is alike is handed over together, and the rest of it once more. */
static void exchange_portions(struct kunit *test)
{
	struct exchange_fixture *f = test->priv;

	add(f, _UFFDIO_ZEROPAGE, PAGE_SIZE);
	add(f, _UFFDIO_WRITEPROTECT, PAGE_SIZE);
	add(f, _UFFDIO_WRITEPROTECT, PAGE_SIZE);
	add(f, _UFFDIO_WRITEPROTECT, PAGE_SIZE);
	add(f, _UFFDIO_ZEROPAGE, PAGE_SIZE);
	f->most = 2;
	KUNIT_ASSERT_EQ(test, run(f), 0);
	KUNIT_EXPECT_EQ(test, f->arg.done, 5);
	KUNIT_EXPECT_EQ(test, f->nr_portions, 4);
	expect_portion(test, 0, _UFFDIO_ZEROPAGE, 1);
	expect_portion(test, 1, _UFFDIO_WRITEPROTECT, 3);
	expect_portion(test, 2, _UFFDIO_WRITEPROTECT, 1);
	expect_portion(test, 3, _UFFDIO_ZEROPAGE, 1);
}

static void exchange_stops(struct kunit *test)
{
	struct exchange_fixture *f = test->priv;

	add(f, _UFFDIO_ZEROPAGE, PAGE_SIZE);
	add(f, _UFFDIO_ZEROPAGE, -EAGAIN);
	add(f, _UFFDIO_ZEROPAGE, -EEXIST);
	add(f, _UFFDIO_ZEROPAGE, PAGE_SIZE);
	KUNIT_ASSERT_EQ(test, run(f), 0);
	KUNIT_EXPECT_EQ(test, f->arg.done, 3);
	f->arg.mode = UFFDIO_EXCHANGE_MODE_GO_ON;
	KUNIT_ASSERT_EQ(test, run(f), 0);
	KUNIT_EXPECT_EQ(test, f->arg.done, 4);
	/* A portion ends behind what is not whole. */
	expect_portion(test, 0, _UFFDIO_ZEROPAGE, 4);
	expect_portion(test, 1, _UFFDIO_ZEROPAGE, 2);
	expect_portion(test, 2, _UFFDIO_ZEROPAGE, 1);
}

static void park(struct exchange_fixture *f, unsigned int i)
{
	f->waiter[i].task = current;
	f->waiter[i].address = PAGE(i);
	f->waiter[i].item.msg.event = UFFD_EVENT_PAGEFAULT;
	uffd_index_park(&f->ctx.index, &f->waiter[i]);
}

/* An operation that waits has those woken who were resolved before it, no others. */
static void exchange_wakes(struct kunit *test)
{
	struct exchange_fixture *f = test->priv;
	unsigned int i;

	for (i = 0; i < NR_OPS; i++) {
		add(f, _UFFDIO_ZEROPAGE, PAGE_SIZE);
		park(f, i);
	}
	f->op[1].mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE;
	f->op[5].result = -EEXIST;
	f->waits = PAGE(3);
	f->most = 1;
	KUNIT_ASSERT_EQ(test, run(f), 0);
	for (i = 0; i < NR_OPS; i++) {
		KUNIT_EXPECT_EQ(test, f->woken[i], i == 0 || i == 2);
		KUNIT_EXPECT_EQ(test, f->waiter[i].parked, i == 1 || i == 5);
		uffd_index_unpark(&f->ctx.index, &f->ctx.queue, &f->waiter[i]);
	}
}

/* Who was refused, and finds nothing to read, is still to be told when to go on. */
static void exchange_resume(struct kunit *test)
{
	struct exchange_fixture *f = test->priv;

	f->file.f_flags = O_NONBLOCK;
	f->arg.nr_msgs = 1;
	add(f, _UFFDIO_ZEROPAGE, -EAGAIN);
	f->ctx.queue.resume = true;
	KUNIT_ASSERT_EQ(test, run(f), 0);
	KUNIT_EXPECT_TRUE(test, f->ctx.queue.resume);
	/* It has gone on. */
	f->op[0].result = PAGE_SIZE;
	KUNIT_ASSERT_EQ(test, run(f), 0);
	KUNIT_EXPECT_FALSE(test, f->ctx.queue.resume);
}

/* A message that is there ends no operation, and is all that there is to wait for. */
static void exchange_message(struct kunit *test)
{
	struct exchange_fixture *f = test->priv;
	struct uffd_msg msg;

	park(f, 2);
	KUNIT_ASSERT_EQ(test, 1, uffd_queue_add(&f->ctx.queue,
						&f->waiter[2].item));
	add(f, _UFFDIO_ZEROPAGE, PAGE_SIZE);
	f->arg.nr_msgs = 2;
	f->arg.deadline = -1;
	KUNIT_ASSERT_EQ(test, run(f), 1);
	KUNIT_EXPECT_EQ(test, f->arg.done, 1);
	KUNIT_ASSERT_EQ(test, 0, copy_from_user(&msg, f->user_op + NR_OPS,
						sizeof(msg)));
	KUNIT_EXPECT_EQ(test, msg.event, UFFD_EVENT_PAGEFAULT);
	uffd_index_unpark(&f->ctx.index, &f->ctx.queue, &f->waiter[2]);
}

static struct kunit_case exchange_cases[] = {
	KUNIT_CASE(exchange_portions),
	KUNIT_CASE(exchange_stops),
	KUNIT_CASE(exchange_wakes),
	KUNIT_CASE(exchange_resume),
	KUNIT_CASE(exchange_message),
	{}
};

static struct kunit_suite exchange_suite = {
	.name = "userfaultfd_exchange",
	.init = exchange_test_init,
	.test_cases = exchange_cases,
};
kunit_test_suite(exchange_suite);
