// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: UFFDIO_EXCHANGE, which resolves faults and waits for the next.
 *
 * - Which calls are refused, and that nothing has been run then.
 * - What each operation returns, and where a row of them ends.
 * - Who is woken, and when.
 * - Which messages come, what is waited for, and what ends the wait.
 * - That arrays in memory that a handler serves are an error, not a deadlock.
 * - Other processes, other callers, and others that are in the way.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		64
#define LIMIT		60

#define FORK		UFFD_FEATURE_EVENT_FORK
#define REMOVE		UFFD_FEATURE_EVENT_REMOVE
#define UNMAP		UFFD_FEATURE_EVENT_UNMAP

#define WP_ON		UFFDIO_WRITEPROTECT_MODE_WP
#define GO_ON		UFFDIO_EXCHANGE_MODE_GO_ON
#define FOR_EVER	(-1LL)
#define NOT_RUN		0x7e57

/* Nobody has memory there. */
#define NOWHERE		((void *)(16UL << 20))

static int exchange_on(int fd, void *call)
{
	int ret = ioctl(fd, UFFDIO_EXCHANGE, call);

	return ret < 0 ? -errno : ret;
}

/* FIXTURE_DATA(exchange), by a name that reads well in a prototype. */
#define exchange_test _test_data_exchange

FIXTURE(exchange)
{
	struct uk_mem m;
	size_t unit;
	char *src;
	int fd;
	struct uk_thread t[UNITS];
	struct uffdio_op ops[UNITS];
	struct uffd_msg msgs[UNITS];
	struct uffdio_exchange call;
};

FIXTURE_SETUP(exchange)
{
	const char *why;

	why = uk_map(&self->m, UK_ANON_SMALL, UNITS);
	if (why)
		SKIP(return, "%s", why);
	if (!(uk_offered() & UFFD_FEATURE_EXCHANGE))
		SKIP(return, "no UFFDIO_EXCHANGE");
	self->unit = self->m.unit;
	self->fd = uk_new(O_CLOEXEC, UFFD_FEATURE_EXCHANGE | REMOVE | UNMAP |
				     (geteuid() ? 0 : FORK));
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      UFFDIO_REGISTER_MODE_MISSING |
				      UFFDIO_REGISTER_MODE_WP, NULL));
	self->src = uk_buffer(self->m.len);
	ASSERT_NE(NULL, self->src);
	uk_paint(self->src, self->m.len, 1);
}

FIXTURE_TEARDOWN(exchange)
{
	close(self->fd);
}

static char *at(struct exchange_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static bool present(struct exchange_test *self, unsigned int unit)
{
	return uk_pages(at(self, unit), self->unit, UK_PM_PRESENT) > 0;
}

/* The next operation of the call. */
static struct uffdio_op *add(struct exchange_test *self, __u32 op, void *dst,
			     size_t len, __u64 mode)
{
	struct uffdio_op *o = &self->ops[self->call.nr_ops++];

	*o = (struct uffdio_op){
		.op = op,
		.mode = mode,
		.dst = (unsigned long)dst,
		.len = len,
		.result = NOT_RUN,
	};
	return o;
}

static struct uffdio_op *add_copy(struct exchange_test *self, unsigned int unit)
{
	struct uffdio_op *o = add(self, _UFFDIO_COPY, at(self, unit),
				  self->unit, 0);

	o->src = (unsigned long)self->src;
	return o;
}

static void begin(struct exchange_test *self, unsigned int nr_msgs,
		  long long deadline)
{
	self->call = (struct uffdio_exchange){
		.ops = (unsigned long)self->ops,
		.msgs = (unsigned long)self->msgs,
		.nr_msgs = nr_msgs,
		.deadline = deadline,
		.done = NOT_RUN,
	};
}

static int run(struct exchange_test *self)
{
	return exchange_on(self->fd, &self->call);
}

/* Fills some units, with a call that does nothing else. */
static int copy_in(struct exchange_test *self, unsigned int unit,
		   unsigned int count)
{
	begin(self, 0, 0);
	while (count--)
		add_copy(self, unit++);
	return run(self);
}

static long run_job(void *test)
{
	return run(test);
}

static bool fault_at(struct exchange_test *self, unsigned int i)
{
	return !uk_start(&self->t[i], uk_peek, at(self, i)) &&
	       uk_asleep(self->t[i].tid);
}

static bool got_fault(struct exchange_test *self, unsigned int msg,
		      unsigned int unit)
{
	return uk_is_fault(&self->msgs[msg], at(self, unit));
}

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* The ABI is the same for programs of 32 bits. */

TEST(layout)
{
	EXPECT_EQ(48, sizeof(struct uffdio_op));
	EXPECT_EQ(48, sizeof(struct uffdio_exchange));
	EXPECT_EQ(8, offsetof(struct uffdio_op, mode));
	EXPECT_EQ(40, offsetof(struct uffdio_op, result));
	EXPECT_EQ(24, offsetof(struct uffdio_exchange, deadline));
	EXPECT_EQ(44, offsetof(struct uffdio_exchange, done));
}

/* What is refused before anything is run. */

TEST(not_asked_for)
{
	struct uffdio_exchange call = { .done = NOT_RUN };
	int fd;

	if (!(uk_offered() & UFFD_FEATURE_EXCHANGE))
		SKIP(return, "no UFFDIO_EXCHANGE");
	fd = uk_open(O_CLOEXEC | UFFD_USER_MODE_ONLY);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EINVAL, exchange_on(fd, &call));
	ASSERT_EQ(0, uk_api(fd, 0));
	EXPECT_EQ(-EINVAL, exchange_on(fd, &call));
	EXPECT_EQ(NOT_RUN, call.done);
	close(fd);

	fd = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY, UFFD_FEATURE_EXCHANGE);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, exchange_on(fd, &call));
	EXPECT_EQ(0, call.done);
	close(fd);
}

TEST(is_announced)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uk_info info;
	int fd;

	if (!(uk_offered() & UFFD_FEATURE_EXCHANGE))
		SKIP(return, "no UFFDIO_EXCHANGE");
	fd = uk_open(O_CLOEXEC | UFFD_USER_MODE_ONLY);
	ASSERT_LE(0, fd);
	api.features = UFFD_FEATURE_EXCHANGE;
	ASSERT_EQ(0, ioctl(fd, UFFDIO_API, &api));
	EXPECT_NE(0, api.ioctls & UK_BIT(_UFFDIO_EXCHANGE));
	ASSERT_EQ(0, uk_fdinfo(fd, &info));
	EXPECT_NE(0, info.features & UFFD_FEATURE_EXCHANGE);
	close(fd);
}

static void expect_nothing_run(struct __test_metadata *_metadata,
			       struct exchange_test *self, int err)
{
	int ret;

	self->call.done = NOT_RUN;
	ret = run(self);
	EXPECT_EQ(err, ret);
	EXPECT_EQ(0, self->call.done);
	EXPECT_FALSE(present(self, 0));
	EXPECT_EQ(NOT_RUN, self->ops[0].result);
}

TEST_F_TIMEOUT(exchange, bad_arguments, LIMIT)
{
	begin(self, 1, 0);
	add_copy(self, 0);
	self->call.reserved = 1;
	expect_nothing_run(_metadata, self, -EINVAL);
	self->call.reserved = 0;
	self->call.mode = 2;
	expect_nothing_run(_metadata, self, -EINVAL);
	self->call.mode = 0;
	self->call.nr_ops = UFFDIO_EXCHANGE_MAX + 1;
	expect_nothing_run(_metadata, self, -EINVAL);
	self->call.nr_ops = 1;
	self->call.nr_msgs = UFFDIO_EXCHANGE_MAX + 1;
	expect_nothing_run(_metadata, self, -EINVAL);
	self->call.nr_msgs = 0xffffffff;
	expect_nothing_run(_metadata, self, -EINVAL);
	self->call.nr_msgs = 1;
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(1, self->call.done);
	EXPECT_EQ(self->unit, self->ops[0].result);
}

/* The first one is good, and is not run for the sake of what follows. */
TEST_F_TIMEOUT(exchange, bad_operation, LIMIT)
{
	const __u32 unknown[] = {
		_UFFDIO_REGISTER, _UFFDIO_UNREGISTER, _UFFDIO_SET_MODE,
		_UFFDIO_EXCHANGE, _UFFDIO_API, 0x0b, 0x3e, 0x40, 0x103,
		0xffffffff,
	};
	struct uffdio_op *bad;
	unsigned int i;

	begin(self, 0, 0);
	add_copy(self, 0);
	bad = add_copy(self, 1);
	add_copy(self, 2);
	for (i = 0; i < ARRAY_SIZE(unknown); i++) {
		bad->op = unknown[i];
		expect_nothing_run(_metadata, self, -EINVAL);
	}
	bad->op = _UFFDIO_COPY;
	bad->reserved = 1;
	expect_nothing_run(_metadata, self, -EINVAL);
	bad->reserved = 0;
	bad->op = _UFFDIO_CONTINUE;	/* with a source */
	expect_nothing_run(_metadata, self, -EINVAL);
	bad->op = _UFFDIO_WAKE;
	bad->src = 0;
	bad->mode = 1;
	expect_nothing_run(_metadata, self, -EINVAL);
	/* Whatever its place: there is more than fits into the kernel's stack. */
	while (self->call.nr_ops < UNITS)
		add_copy(self, 3);
	expect_nothing_run(_metadata, self, -EINVAL);
	bad->mode = 0;
	EXPECT_EQ(0, run(self));
}

TEST_F_TIMEOUT(exchange, bad_addresses, LIMIT)
{
	char *page = uk_buffer(2 * self->unit);
	struct uffdio_exchange *call = (void *)page;

	ASSERT_NE(NULL, page);
	EXPECT_EQ(-EFAULT, exchange_on(self->fd, NULL));
	EXPECT_EQ(-EFAULT, exchange_on(self->fd, UK_KERNEL_SPACE));

	begin(self, 0, 0);
	add_copy(self, 0);
	self->call.ops = (unsigned long)NOWHERE;
	expect_nothing_run(_metadata, self, -EFAULT);
	self->call.ops = (unsigned long)UK_KERNEL_SPACE;
	expect_nothing_run(_metadata, self, -EFAULT);
	self->call.ops = -sizeof(struct uffdio_op);
	expect_nothing_run(_metadata, self, -EFAULT);

	/* Half of it is there. */
	self->call.ops = (unsigned long)page + self->unit - 72;
	memcpy((void *)(unsigned long)self->call.ops, self->ops, 48);
	self->call.nr_ops = 2;
	ASSERT_EQ(0, munmap(page + self->unit, self->unit));
	expect_nothing_run(_metadata, self, -EFAULT);

	/* What cannot be written is no place for results. */
	memcpy(page + 1024, self->ops, sizeof(self->ops[0]));
	self->call.ops = (unsigned long)page + 1024;
	self->call.nr_ops = 1;
	*call = self->call;
	call->done = NOT_RUN;
	ASSERT_EQ(0, mprotect(page, self->unit, PROT_READ));
	expect_nothing_run(_metadata, self, -EFAULT);
	EXPECT_EQ(-EFAULT, exchange_on(self->fd, call));
	EXPECT_EQ(NOT_RUN, call->done);
	EXPECT_FALSE(present(self, 0));
	ASSERT_EQ(0, mprotect(page, self->unit, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, exchange_on(self->fd, call));
	EXPECT_EQ(1, call->done);
	EXPECT_TRUE(present(self, 0));
}

/* An operation takes the page away that its result is to be written to. */
TEST_F_TIMEOUT(exchange, results_lose_their_place, LIMIT)
{
	struct uffdio_op *o;

	ASSERT_EQ(0, copy_in(self, 0, 1));
	begin(self, 0, 0);
	o = add(self, _UFFDIO_MOVE, at(self, 1), self->unit, 0);
	o->src = (unsigned long)at(self, 0);
	memcpy(at(self, 0), self->ops, sizeof(self->ops[0]));
	self->call.ops = (unsigned long)at(self, 0);
	EXPECT_EQ(-EFAULT, run(self));
	EXPECT_EQ(1, self->call.done);
	EXPECT_FALSE(present(self, 0));
	EXPECT_TRUE(present(self, 1));
}

/* Messages that cannot be written stay, and the operations have been run. */
TEST_F_TIMEOUT(exchange, bad_place_for_messages, LIMIT)
{
	char *page = uk_buffer(2 * self->unit);

	ASSERT_NE(NULL, page);
	ASSERT_EQ(0, munmap(page + self->unit, self->unit));
	ASSERT_TRUE(fault_at(self, 1));
	ASSERT_TRUE(fault_at(self, 2));
	ASSERT_TRUE(uk_parked(self->fd, 2, 2));

	begin(self, 2, 0);
	add_copy(self, 0);
	self->call.msgs = (unsigned long)NOWHERE;
	EXPECT_EQ(-EFAULT, run(self));
	EXPECT_EQ(1, self->call.done);
	EXPECT_EQ(self->unit, self->ops[0].result);
	ASSERT_TRUE(uk_parked(self->fd, 2, 2));
	self->call.nr_ops = 0;
	self->call.msgs = (unsigned long)UK_KERNEL_SPACE;
	EXPECT_EQ(-EFAULT, run(self));
	/* There is room for one and a half. */
	self->call.msgs = (unsigned long)page + self->unit - 48;
	EXPECT_EQ(1, run(self));
	EXPECT_TRUE(uk_is_fault((void *)(page + self->unit - 48), at(self, 1)));
	EXPECT_EQ(-EFAULT, (self->call.msgs += 32, run(self)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 2));
	begin(self, 2, 0);
	ASSERT_EQ(1, run(self));
	EXPECT_TRUE(got_fault(self, 0, 2));
	EXPECT_EQ(0, copy_in(self, 1, 2));
	EXPECT_TRUE(uk_join_all(&self->t[1], 2));
}

/* Results. */

TEST_F_TIMEOUT(exchange, as_its_own_ioctl, LIMIT)
{
	size_t unit = self->unit;
	char *other = uk_buffer(2 * unit);
	struct uffdio_op *o;
	unsigned int i;
	const __s64 expected[] = {
		unit, -EEXIST, unit, 2 * unit, -ENOENT, -EINVAL, -EINVAL,
		-EINVAL, -EFAULT, -EINVAL, unit, unit, unit, -EINVAL, unit,
		-EINVAL, unit,
	};

	ASSERT_NE(NULL, other);
	begin(self, 0, 0);
	self->call.mode = GO_ON;
	add_copy(self, 4);
	add_copy(self, 4);
	add(self, _UFFDIO_ZEROPAGE, at(self, 1), unit, 0);
	add(self, _UFFDIO_ZEROPAGE, at(self, 2), 3 * unit, 0);
	add(self, _UFFDIO_ZEROPAGE, other, unit, 0);
	add(self, _UFFDIO_ZEROPAGE, at(self, 9), 0, 0);
	add(self, _UFFDIO_ZEROPAGE, at(self, 9), unit, 2);
	/* A length that looks like the errno that it brings. */
	add(self, _UFFDIO_ZEROPAGE, at(self, 9), -EINVAL, 0);
	o = add_copy(self, 9);
	o->src = (unsigned long)NOWHERE;
	add(self, _UFFDIO_CONTINUE, at(self, 9), unit, 0);
	add(self, _UFFDIO_POISON, at(self, 5), unit, 0);
	o = add(self, _UFFDIO_MOVE, at(self, 6), unit, 0);
	o->src = (unsigned long)other;
	add(self, _UFFDIO_WRITEPROTECT, at(self, 4), unit, WP_ON);
	add(self, _UFFDIO_WRITEPROTECT, at(self, 4), unit, WP_ON | 2);
	add(self, _UFFDIO_WRITEPROTECT, at(self, 4), unit, 0);
	add(self, _UFFDIO_WAKE, at(self, 4) + 1, unit, 0);
	add(self, _UFFDIO_WAKE, at(self, 4), unit, 0);
	ASSERT_EQ(0, run(self));
	ASSERT_EQ(self->call.nr_ops, self->call.done);
	for (i = 0; i < self->call.nr_ops; i++) {
		EXPECT_EQ(expected[i], self->ops[i].result)
			TH_LOG("operation %u", i);
	}
	EXPECT_TRUE(uk_painted(at(self, 4), unit, 1));
	EXPECT_TRUE(uk_all_zero(at(self, 1), 3 * unit));
}

static bool stands_still(struct exchange_test *self, unsigned int from)
{
	for (; from < self->call.nr_ops; from++)
		if (self->ops[from].result != NOT_RUN)
			return false;
	return true;
}

TEST_F_TIMEOUT(exchange, stops_at_a_failure, LIMIT)
{
	begin(self, 0, 0);
	add_copy(self, 0);
	add_copy(self, 0);
	add_copy(self, 1);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(2, self->call.done);
	EXPECT_EQ(-EEXIST, self->ops[1].result);
	EXPECT_TRUE(stands_still(self, 2));
	EXPECT_FALSE(present(self, 1));

	/* Half is not all. */
	begin(self, 0, 0);
	add_copy(self, 3);
	add(self, _UFFDIO_ZEROPAGE, at(self, 2), 2 * self->unit, 0);
	add_copy(self, 4);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(2, self->call.done);
	EXPECT_EQ(self->unit, self->ops[1].result);
	EXPECT_TRUE(stands_still(self, 2));

	begin(self, 0, 0);
	self->call.mode = GO_ON;
	add_copy(self, 0);
	add(self, _UFFDIO_WRITEPROTECT, self->src, self->unit, WP_ON);
	add(self, _UFFDIO_WRITEPROTECT, at(self, 0), self->unit, WP_ON);
	add_copy(self, 5);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(4, self->call.done);
	EXPECT_EQ(-EEXIST, self->ops[0].result);
	EXPECT_EQ(-ENOENT, self->ops[1].result);
	EXPECT_EQ(self->unit, self->ops[2].result);
	EXPECT_EQ(self->unit, self->ops[3].result);
}

/* In a row of protections, too, which are run together. */
TEST_F_TIMEOUT(exchange, row_of_protections, LIMIT)
{
	unsigned int i;

	if (!(uk_offered() & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		SKIP(return, "no write protection");
	begin(self, 0, 0);
	for (i = 0; i < 8; i++)
		add_copy(self, i);
	ASSERT_EQ(0, run(self));
	begin(self, 0, 0);
	for (i = 0; i < 8; i++)
		add(self, _UFFDIO_WRITEPROTECT, at(self, i), self->unit, WP_ON);
	ASSERT_EQ(0, run(self));
	EXPECT_EQ(8, self->call.done);
	EXPECT_EQ(8, uk_pages(at(self, 0), 8 * self->unit, UK_PM_WP));

	begin(self, 0, 0);
	for (i = 0; i < 8; i++)
		add(self, _UFFDIO_WRITEPROTECT, at(self, i), self->unit, 0);
	self->ops[3].dst = (unsigned long)self->src;
	self->ops[6].len = 1;
	ASSERT_EQ(0, run(self));
	EXPECT_EQ(4, self->call.done);
	EXPECT_EQ(-ENOENT, self->ops[3].result);
	EXPECT_TRUE(stands_still(self, 4));
	EXPECT_EQ(5, uk_pages(at(self, 0), 8 * self->unit, UK_PM_WP));
	self->call.mode = GO_ON;
	ASSERT_EQ(0, run(self));
	EXPECT_EQ(8, self->call.done);
	for (i = 0; i < 8; i++)
		EXPECT_EQ(i == 3 ? -ENOENT : i == 6 ? -EINVAL :
			  (__s64)self->unit, self->ops[i].result);
	EXPECT_EQ(2, uk_pages(at(self, 0), 8 * self->unit, UK_PM_WP));
}

/* A protection that is lifted, and one that is not, as the writers see it. */
TEST_F_TIMEOUT(exchange, protections_in_order, LIMIT)
{
	if (!(uk_offered() & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		SKIP(return, "no write protection");
	begin(self, 0, 0);
	add_copy(self, 0);
	add_copy(self, 1);
	add(self, _UFFDIO_WRITEPROTECT, at(self, 0), 2 * self->unit, WP_ON);
	add(self, _UFFDIO_WRITEPROTECT, at(self, 0), self->unit, 0);
	ASSERT_EQ(0, run(self));
	ASSERT_EQ(4, self->call.done);
	uk_poke(at(self, 0));
	ASSERT_EQ(0, uk_start(&self->t[1], uk_poke, at(self, 1)));
	begin(self, 2, FOR_EVER);
	ASSERT_EQ(1, run(self));
	EXPECT_TRUE(got_fault(self, 0, 1));
	EXPECT_NE(0, self->msgs[0].arg.pagefault.flags &
		     UFFD_PAGEFAULT_FLAG_WP);
	EXPECT_TRUE(uk_stays(&self->t[1]));
	begin(self, 0, 0);
	add(self, _UFFDIO_WRITEPROTECT, at(self, 1), self->unit, 0);
	ASSERT_EQ(0, run(self));
	EXPECT_TRUE(uk_join(&self->t[1], UK_SOON));
}

/* Fills that follow each other keep the VMA locked: never for longer than that. */
TEST_F_TIMEOUT(exchange, from_mapping_to_mapping, LIMIT)
{
	unsigned int i;

	/* Three mappings, a hole, and one that is not registered. */
	ASSERT_EQ(0, mprotect(at(self, 4), 4 * self->unit, PROT_READ));
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 12), 4 * self->unit));
	begin(self, 0, 0);
	self->call.mode = GO_ON;
	for (i = 0; i < 12; i++)
		add_copy(self, 5 * i % 12);
	add_copy(self, 12);
	add_copy(self, 16);
	add(self, _UFFDIO_COPY, at(self, 7), 2 * self->unit, 0)->src =
		(unsigned long)self->src;
	add_copy(self, 17);
	ASSERT_EQ(0, run(self));
	ASSERT_EQ(16, self->call.done);
	for (i = 0; i < 16; i++)
		EXPECT_EQ(i == 12 || i == 14 ? -ENOENT : (__s64)self->unit,
			  self->ops[i].result)
			TH_LOG("operation %u", i);
	/* Whoever wants it for writing gets it. */
	EXPECT_EQ(0, mprotect(at(self, 0), 20 * self->unit,
			      PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_EQ(0, munmap(at(self, 0), 20 * self->unit));
}

struct meddler {
	struct exchange_test *test;
	bool stop;
};

static long meddle(void *arg)
{
	struct meddler *m = arg;
	char *part = at(m->test, 8);
	size_t len = 8 * m->test->unit;

	while (!uk_get(&m->stop)) {
		if (mprotect(part, len, PROT_READ) ||
		    mprotect(part, len, PROT_READ | PROT_WRITE) ||
		    uk_drop(&m->test->m, part, len))
			return 1;
	}
	return 0;
}

/*
 * Others lock the VMA for writing meanwhile, and cause events: what is done is done
 * as by single calls, and nobody is stuck.
 */
TEST_F_TIMEOUT(exchange, others_in_the_way, LIMIT)
{
	struct meddler m = { .test = self };
	long long end = uk_now() + 2000;
	unsigned int i, rounds = 0, seen[4] = {};
	struct uk_thread t;
	int fd;

	/* Without events: they would have to be read. */
	fd = uk_new(O_CLOEXEC, UFFD_FEATURE_EXCHANGE);
	ASSERT_LE(0, fd);
	close(self->fd);
	self->fd = fd;
	ASSERT_EQ(0, uk_register(fd, self->m.area, self->m.len));
	ASSERT_EQ(0, uk_start(&t, meddle, &m));
	while (uk_now() < end) {
		begin(self, 0, 0);
		self->call.mode = GO_ON;
		for (i = 0; i < 24; i++)
			add_copy(self, i);
		ASSERT_EQ(0, run(self));
		ASSERT_EQ(24, self->call.done);
		for (i = 0; i < 24; i++) {
			__s64 res = self->ops[i].result;

			ASSERT_TRUE(res == (__s64)self->unit || res == -EEXIST)
				TH_LOG("operation %u: %lld", i, res);
			seen[i / 8] += res > 0;
		}
		rounds++;
	}
	uk_set(&m.stop, true);
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
	EXPECT_EQ(8, seen[0]);
	EXPECT_LE(8, seen[1]);
	EXPECT_EQ(8, seen[2]);
	printf("# %u rounds, %u pages filled anew\n", rounds, seen[1] - 8);
}

/* Who is woken. */

TEST_F_TIMEOUT(exchange, wakes_for_all, LIMIT)
{
	unsigned int i;

	for (i = 0; i < 12; i++)
		ASSERT_TRUE(fault_at(self, i));
	begin(self, 0, 0);
	for (i = 0; i < 12; i++)
		add_copy(self, 11 - i);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(12, self->call.done);
	EXPECT_TRUE(uk_join_all(self->t, 12));
	/* What has been resolved is not read any more. */
	begin(self, 1, 0);
	EXPECT_EQ(0, run(self));
}

TEST_F_TIMEOUT(exchange, does_not_wake, LIMIT)
{
	struct uffdio_op *o;

	ASSERT_TRUE(fault_at(self, 0));
	ASSERT_TRUE(fault_at(self, 1));
	ASSERT_TRUE(fault_at(self, 2));
	begin(self, 4, 0);
	add_copy(self, 0)->mode = UFFDIO_COPY_MODE_DONTWAKE;
	o = add(self, _UFFDIO_ZEROPAGE, at(self, 1), self->unit,
		UFFDIO_ZEROPAGE_MODE_DONTWAKE);
	add_copy(self, 2);
	EXPECT_EQ(2, run(self));
	EXPECT_EQ(3, self->call.done);
	EXPECT_EQ(self->unit, o->result);
	EXPECT_TRUE(uk_join(&self->t[2], UK_SOON));
	EXPECT_TRUE(uk_stays(&self->t[0]));
	EXPECT_TRUE(uk_stays(&self->t[1]));

	begin(self, 0, 0);
	add(self, _UFFDIO_WAKE, at(self, 0), 2 * self->unit, 0);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join_all(self->t, 2));
}

/* What was done before a failure counts, and part of an operation does, too. */
TEST_F_TIMEOUT(exchange, wakes_before_a_failure, LIMIT)
{
	UK_ASSERT_FILL(0, self->unit,
		       uk_copy(self->fd, at(self, 2), self->src, self->unit, 0));
	ASSERT_TRUE(fault_at(self, 0));
	ASSERT_TRUE(fault_at(self, 1));
	ASSERT_TRUE(fault_at(self, 3));
	begin(self, 0, 0);
	add_copy(self, 0);
	add(self, _UFFDIO_ZEROPAGE, at(self, 1), 3 * self->unit, 0);
	add_copy(self, 3);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(2, self->call.done);
	EXPECT_TRUE(uk_join_all(self->t, 2));
	EXPECT_TRUE(uk_stays(&self->t[3]));
	UK_EXPECT_FILL(0, self->unit,
		       uk_copy(self->fd, at(self, 3), self->src, self->unit, 0));
	EXPECT_TRUE(uk_join(&self->t[3], UK_SOON));
}

/*
 * The source of the second operation is missing, and who is to bring it in waits for
 * the first: it must be woken before the second one waits.
 */
struct supplier {
	struct exchange_test *test;
	int fd;			/* of the source */
	char *source;
};

static long supply(void *arg)
{
	struct supplier *s = arg;
	struct uffd_msg msg;

	uk_peek(at(s->test, 0));
	if (uk_read(s->fd, &msg, 1) != 1 || !uk_is_fault(&msg, s->source))
		return 1;
	return uk_copy(s->fd, s->source, s->test->src, s->test->unit, 0).err;
}

TEST_F_TIMEOUT(exchange, wakes_before_it_waits, LIMIT)
{
	struct supplier s = { .test = self };
	struct uk_thread caller;
	struct uk_mem m;

	ASSERT_EQ(NULL, uk_map(&m, UK_ANON_SMALL, 1));
	s.source = m.area;
	s.fd = uk_new(O_CLOEXEC, 0);
	ASSERT_LE(0, s.fd);
	ASSERT_EQ(0, uk_register(s.fd, m.area, m.len));
	ASSERT_EQ(0, uk_start(&self->t[0], supply, &s));
	ASSERT_TRUE(uk_asleep(self->t[0].tid));

	begin(self, 0, 0);
	add_copy(self, 0);
	add_copy(self, 1)->src = (unsigned long)m.area;
	ASSERT_EQ(0, uk_start(&caller, run_job, self));
	ASSERT_TRUE(uk_join(&caller, UK_SOON));
	EXPECT_EQ(0, caller.ret);
	EXPECT_EQ(2, self->call.done);
	EXPECT_EQ(self->unit, self->ops[1].result);
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
	EXPECT_EQ(0, self->t[0].ret);
	close(s.fd);
}

/* Messages. */

/* More of them than are taken at a time, in order; and no more than fit. */
TEST_F_TIMEOUT(exchange, many_messages, LIMIT)
{
	unsigned int i;

	for (i = 0; i < 40; i++) {
		ASSERT_EQ(0, uk_start(&self->t[i], uk_peek, at(self, i)));
		ASSERT_TRUE(uk_parked(self->fd, i + 1, i + 1));
	}
	begin(self, 39, FOR_EVER);
	ASSERT_EQ(39, run(self));
	for (i = 0; i < 39; i++)
		EXPECT_TRUE(got_fault(self, i, i));
	ASSERT_EQ(1, run(self));
	EXPECT_TRUE(got_fault(self, 0, 39));
	begin(self, 0, FOR_EVER);
	for (i = 0; i < 40; i++)
		add_copy(self, i);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(40, self->call.done);
	EXPECT_TRUE(uk_join_all(self->t, 40));
}

/* The loop of a handler: the next message comes with the answer to the last. */
static long touch_all(void *test)
{
	unsigned int i;

	for (i = 0; i < UNITS; i++)
		uk_poke(at(test, i));
	return 0;
}

TEST_F_TIMEOUT(exchange, one_call_a_fault, LIMIT)
{
	unsigned int i;

	ASSERT_EQ(0, uk_start(&self->t[0], touch_all, self));
	begin(self, 1, FOR_EVER);
	ASSERT_EQ(1, run(self));
	for (i = 0; i < UNITS; i++) {
		ASSERT_TRUE(got_fault(self, 0, i));
		begin(self, i + 1 < UNITS ? 1 : 0, FOR_EVER);
		add_copy(self, i);
		ASSERT_EQ(i + 1 < UNITS ? 1 : 0, run(self));
		ASSERT_EQ(1, self->call.done);
	}
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
}

TEST_F_TIMEOUT(exchange, time_limit, LIMIT)
{
	const long long ms = 1000000;
	long long start, took;
	struct uk_thread caller;

	/* In the past, or not at all. */
	start = now_ns();
	begin(self, 1, 0);
	EXPECT_EQ(0, run(self));
	begin(self, 1, 1);
	EXPECT_EQ(0, run(self));
	begin(self, 1, start - 1);
	EXPECT_EQ(0, run(self));
	EXPECT_GT(UK_SOON * ms, now_ns() - start);

	start = now_ns();
	begin(self, 1, start + UK_PAUSE * ms);
	add_copy(self, 0);
	EXPECT_EQ(0, run(self));
	took = now_ns() - start;
	EXPECT_LE(UK_PAUSE * ms, took);
	EXPECT_GT(UK_SOON * ms, took);
	EXPECT_EQ(1, self->call.done);

	/* What comes before is not waited for any longer. */
	begin(self, 1, now_ns() + 6 * UK_SOON * ms);
	ASSERT_EQ(0, uk_start(&caller, run_job, self));
	ASSERT_TRUE(uk_asleep(caller.tid));
	ASSERT_TRUE(fault_at(self, 1));
	ASSERT_TRUE(uk_join(&caller, UK_SOON));
	EXPECT_EQ(1, caller.ret);
	EXPECT_TRUE(got_fault(self, 0, 1));

	/* Nor is a time that never comes. */
	begin(self, 1, 0x7fffffffffffffffLL);
	ASSERT_EQ(0, uk_start(&caller, run_job, self));
	EXPECT_TRUE(uk_stays(&caller));
	ASSERT_TRUE(fault_at(self, 2));
	ASSERT_TRUE(uk_join(&caller, UK_SOON));
	EXPECT_EQ(1, caller.ret);
	EXPECT_EQ(0, copy_in(self, 1, 2));
	EXPECT_TRUE(uk_join_all(&self->t[1], 2));
}

/* It does not wait when there is something to tell, or it must not. */
TEST_F_TIMEOUT(exchange, does_not_wait, LIMIT)
{
	begin(self, 0, FOR_EVER);
	EXPECT_EQ(0, run(self));
	begin(self, 1, FOR_EVER);
	add_copy(self, 0);
	add_copy(self, 0);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(-EEXIST, self->ops[1].result);
	self->call.mode = GO_ON;
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(2, self->call.done);

	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, O_NONBLOCK));
	begin(self, 1, FOR_EVER);
	EXPECT_EQ(0, run(self));
	add_copy(self, 1);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(1, self->call.done);
	ASSERT_TRUE(fault_at(self, 2));
	begin(self, 1, FOR_EVER);
	add_copy(self, 3);
	EXPECT_EQ(1, run(self));
	EXPECT_TRUE(got_fault(self, 0, 2));
	begin(self, 1, FOR_EVER);
	add_copy(self, 2);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join(&self->t[2], UK_SOON));
}

/* Signals. */

static unsigned int handled;

static void count_signal(int nr)
{
	uk_add(&handled, 1);
}

static void signal_ends_it(struct __test_metadata *_metadata,
			   struct exchange_test *self, int flags)
{
	struct sigaction act = { .sa_handler = count_signal, .sa_flags = flags };
	struct uk_thread caller;

	uk_set(&handled, 0);
	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	begin(self, 1, FOR_EVER);
	add_copy(self, 0);
	add(self, _UFFDIO_ZEROPAGE, at(self, 1), self->unit, 0);
	ASSERT_EQ(0, uk_start(&caller, run_job, self));
	ASSERT_TRUE(uk_asleep(caller.tid));
	/* It has been told already. */
	EXPECT_EQ(2, uk_get(&self->call.done));
	EXPECT_EQ(self->unit, uk_get(&self->ops[1].result));
	/* A second run would not leave this page missing. */
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 1), self->unit));
	ASSERT_EQ(0, uk_drop(&self->m, at(self, 1), self->unit));
	ASSERT_EQ(0, uk_register(self->fd, at(self, 1), self->unit));
	ASSERT_EQ(0, pthread_kill(caller.id, SIGUSR1));
	ASSERT_TRUE(uk_join(&caller, UK_SOON));
	EXPECT_EQ(0, caller.ret);
	EXPECT_EQ(1, uk_get(&handled));
	EXPECT_EQ(2, self->call.done);
	EXPECT_EQ(self->unit, self->ops[0].result);
	EXPECT_EQ(self->unit, self->ops[1].result);
	EXPECT_FALSE(present(self, 1));
	/* And nothing is out of order. */
	ASSERT_TRUE(fault_at(self, 2));
	begin(self, 1, FOR_EVER);
	ASSERT_EQ(1, run(self));
	EXPECT_TRUE(got_fault(self, 0, 2));
	begin(self, 0, 0);
	add_copy(self, 2);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join(&self->t[2], UK_SOON));
}

TEST_F_TIMEOUT(exchange, signal, LIMIT)
{
	signal_ends_it(_metadata, self, 0);
}

TEST_F_TIMEOUT(exchange, signal_that_restarts, LIMIT)
{
	signal_ends_it(_metadata, self, SA_RESTART);
}

/* With one pending from the start, what there is comes all the same. */
TEST_F_TIMEOUT(exchange, signal_pending, LIMIT)
{
	struct sigaction act = { .sa_handler = count_signal };
	struct itimerval soon = { .it_value.tv_usec = 2000,
				  .it_interval.tv_usec = 2000 };
	struct itimerval never = {};
	unsigned int i;
	sigset_t set;

	uk_set(&handled, 0);
	ASSERT_EQ(0, sigaction(SIGALRM, &act, NULL));
	/* They are for this thread, not the other. */
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
	ASSERT_EQ(0, uk_start(&self->t[0], touch_all, self));
	ASSERT_EQ(0, pthread_sigmask(SIG_UNBLOCK, &set, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &soon, NULL));
	for (i = 0; i < UNITS; i++) {
		begin(self, 1, FOR_EVER);
		if (i)
			add_copy(self, i - 1);
		while (!run(self)) {
			/* Once more, without the operation; that may end so, too. */
			if (self->call.nr_ops)
				ASSERT_EQ(self->unit, self->ops[0].result);
			ASSERT_EQ(self->call.nr_ops, self->call.done);
			begin(self, 1, FOR_EVER);
		}
		ASSERT_TRUE(got_fault(self, 0, i));
		/* Let some come while it waits. */
		if (!(i % 16))
			uk_sleep(5);
	}
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, NULL));
	begin(self, 0, 0);
	add_copy(self, UNITS - 1);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
	EXPECT_LT(0, uk_get(&handled));
}

/* Events. */

static long drop_unit_1(void *test)
{
	struct exchange_test *self = test;

	return madvise(at(self, 1), self->unit, MADV_DONTNEED) ? -errno : 0;
}

/* It is refused, and what it waits for comes with the call. */
TEST_F_TIMEOUT(exchange, refused_for_an_event, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, drop_unit_1, self));
	ASSERT_TRUE(uk_asleep(t.tid));
	begin(self, 4, FOR_EVER);
	add_copy(self, 0);
	add_copy(self, 1);
	add(self, _UFFDIO_WRITEPROTECT, at(self, 1), self->unit, WP_ON);
	add(self, _UFFDIO_WAKE, at(self, 1), self->unit, 0);
	/* What cannot be is refused for any event that is unread. */
	add(self, _UFFDIO_ZEROPAGE, at(self, 3), self->unit, 4);
	add_copy(self, 2);
	ASSERT_EQ(1, run(self));
	EXPECT_TRUE(uk_is_span(&self->msgs[0], UFFD_EVENT_REMOVE, at(self, 1),
			       at(self, 2)));
	EXPECT_EQ(6, self->call.done);
	EXPECT_EQ(self->unit, self->ops[0].result);
	EXPECT_EQ(-EAGAIN, self->ops[1].result);
	EXPECT_EQ(-EAGAIN, self->ops[2].result);
	EXPECT_EQ(self->unit, self->ops[3].result);
	EXPECT_EQ(-EAGAIN, self->ops[4].result);
	EXPECT_EQ(self->unit, self->ops[5].result);
	EXPECT_TRUE(uk_join(&t, UK_SOON));

	begin(self, 0, 0);
	add_copy(self, 1);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(self->unit, self->ops[0].result);
}

/* It does not wait for more when there is no room for the event. */
TEST_F_TIMEOUT(exchange, refused_and_no_room, LIMIT)
{
	struct uk_thread t;

	ASSERT_TRUE(fault_at(self, 0));
	ASSERT_EQ(0, uk_start(&t, drop_unit_1, self));
	ASSERT_TRUE(uk_asleep(t.tid));
	begin(self, 0, FOR_EVER);
	add_copy(self, 1);
	EXPECT_EQ(0, run(self));
	EXPECT_EQ(-EAGAIN, self->ops[0].result);
	begin(self, 1, FOR_EVER);
	add_copy(self, 1);
	EXPECT_EQ(1, run(self));
	EXPECT_TRUE(got_fault(self, 0, 0));
	EXPECT_EQ(-EAGAIN, self->ops[0].result);
	EXPECT_EQ(1, run(self));
	EXPECT_EQ(UFFD_EVENT_REMOVE, self->msgs[0].event);
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	begin(self, 0, 0);
	add_copy(self, 0);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
}

static int nothing(void *arg)
{
	return 0;
}

static long do_fork(void *arg)
{
	return uk_spawn_by_thread(nothing, NULL, 0);
}

TEST_F_TIMEOUT(exchange, fork, LIMIT)
{
	struct uffdio_exchange call = {};
	struct uk_thread t;
	int child;

	if (geteuid())
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, uk_start(&t, do_fork, NULL));
	ASSERT_TRUE(uk_asleep(t.tid));
	ASSERT_TRUE(fault_at(self, 0));
	begin(self, 4, FOR_EVER);
	add_copy(self, 0);
	add(self, _UFFDIO_WAKE, at(self, 3), self->unit, 0);
	ASSERT_EQ(2, run(self));
	EXPECT_EQ(-EAGAIN, self->ops[0].result);
	EXPECT_EQ(2, self->call.done);
	ASSERT_EQ(UFFD_EVENT_FORK, self->msgs[0].event);
	EXPECT_TRUE(got_fault(self, 1, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, uk_reap(t.ret, UK_SOON));

	/* The child's descriptor has the feature. */
	child = self->msgs[0].arg.fork.ufd;
	EXPECT_EQ(0, exchange_on(child, &call));
	begin(self, 0, 0);
	add_copy(self, 5);
	EXPECT_EQ(0, exchange_on(child, &self->call));
	EXPECT_EQ(-ESRCH, self->ops[0].result);
	close(child);
	begin(self, 0, 0);
	add_copy(self, 0);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
}

TEST_F_TIMEOUT(exchange, fork_and_no_descriptor, LIMIT)
{
	struct rlimit old, low = {};
	struct uk_thread t;
	int spare;

	if (geteuid())
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_TRUE(fault_at(self, 4));
	ASSERT_EQ(0, uk_start(&t, do_fork, NULL));
	ASSERT_TRUE(uk_asleep(t.tid));
	spare = dup(0);
	ASSERT_LE(0, spare);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	low.rlim_max = old.rlim_max;
	low.rlim_cur = spare;
	close(spare);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &low));

	begin(self, 4, FOR_EVER);
	EXPECT_EQ(1, run(self));
	EXPECT_TRUE(got_fault(self, 0, 4));
	begin(self, 4, FOR_EVER);
	add(self, _UFFDIO_WAKE, at(self, 0), self->unit, 0);
	EXPECT_EQ(-EMFILE, run(self));
	EXPECT_EQ(1, self->call.done);
	EXPECT_EQ(self->unit, self->ops[0].result);

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	ASSERT_EQ(1, run(self));
	ASSERT_EQ(UFFD_EVENT_FORK, self->msgs[0].event);
	close(self->msgs[0].arg.fork.ufd);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, uk_reap(t.ret, UK_SOON));
	begin(self, 0, 0);
	add_copy(self, 4);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join(&self->t[4], UK_SOON));
}

/* Memory of the caller that a handler, the caller maybe, would have to bring in. */

static long run_at(void *arg)
{
	struct uk_call *c = arg;

	return exchange_on(c->arg[0], (void *)c->arg[1]);
}

/* By a thread, so that a deadlock fails the test instead of hanging it. */
static long try_call(struct exchange_test *self, void *call)
{
	struct uk_call c = { .arg = { self->fd, (unsigned long)call } };
	struct uk_thread t;

	if (uk_start(&t, run_at, &c) || !uk_join(&t, UK_SOON))
		return -EDEADLK;
	return t.ret;
}

TEST_F_TIMEOUT(exchange, arrays_in_missing_memory, LIMIT)
{
	struct uffdio_exchange *call = (void *)at(self, 10);
	struct uffd_msg *msgs = (void *)at(self, 12);

	/* The argument, the operations. */
	EXPECT_EQ(-EFAULT, try_call(self, call));
	begin(self, 1, 0);
	add_copy(self, 0);
	self->call.ops = (unsigned long)at(self, 11);
	EXPECT_EQ(-EFAULT, try_call(self, &self->call));
	EXPECT_EQ(0, self->call.done);
	/* Nobody has been told. */
	ASSERT_TRUE(uk_parked(self->fd, 0, 0));

	/* The messages: only when there are some. */
	begin(self, 2, 0);
	self->call.msgs = (unsigned long)msgs;
	EXPECT_EQ(0, try_call(self, &self->call));
	ASSERT_TRUE(fault_at(self, 1));
	add_copy(self, 0);
	EXPECT_EQ(-EFAULT, try_call(self, &self->call));
	EXPECT_EQ(1, self->call.done);
	EXPECT_TRUE(present(self, 0));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	/* At the end of a page that is there, with the next one missing. */
	UK_ASSERT_FILL(0, self->unit,
		       uk_copy(self->fd, at(self, 11), self->src, self->unit, 0));
	ASSERT_TRUE(fault_at(self, 2));
	begin(self, 2, 0);
	self->call.msgs = (unsigned long)at(self, 12) - 32;
	EXPECT_EQ(1, try_call(self, &self->call));
	EXPECT_TRUE(uk_is_fault((void *)(at(self, 12) - 32), at(self, 1)));
	self->call.msgs = (unsigned long)at(self, 12) - 16;
	EXPECT_EQ(-EFAULT, try_call(self, &self->call));
	ASSERT_TRUE(uk_parked(self->fd, 1, 2));

	/* Once they are there all of them will do. */
	UK_ASSERT_FILL(0, self->unit,
		       uk_zero(self->fd, at(self, 10), self->unit, 0));
	UK_ASSERT_FILL(0, self->unit,
		       uk_zero(self->fd, at(self, 12), self->unit, 0));
	*call = (struct uffdio_exchange){
		.ops = (unsigned long)at(self, 11),
		.msgs = (unsigned long)msgs,
		.nr_ops = 1,
		.nr_msgs = 1,
	};
	begin(self, 0, 0);
	add_copy(self, 1);
	memcpy(at(self, 11), self->ops, sizeof(self->ops[0]));
	EXPECT_EQ(1, try_call(self, call));
	EXPECT_EQ(1, call->done);
	EXPECT_TRUE(uk_is_fault(msgs, at(self, 2)));
	begin(self, 0, 0);
	add_copy(self, 2);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join_all(&self->t[1], 2));
}

/* Protected is as bad as missing, where something is to be written. */
TEST_F_TIMEOUT(exchange, arrays_in_protected_memory, LIMIT)
{
	struct uffdio_exchange *call = (void *)at(self, 10);
	struct uffdio_op *op = (void *)at(self, 11);

	if (!(uk_offered() & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		SKIP(return, "no write protection");
	UK_ASSERT_FILL(0, 2 * self->unit,
		       uk_zero(self->fd, at(self, 10), 2 * self->unit, 0));
	begin(self, 0, 0);
	add_copy(self, 0);
	*op = self->ops[0];
	*call = self->call;
	call->ops = (unsigned long)op;
	ASSERT_EQ(0, uk_protect(self->fd, op, self->unit, WP_ON));
	EXPECT_EQ(-EFAULT, try_call(self, call));
	EXPECT_FALSE(present(self, 0));
	ASSERT_EQ(0, uk_protect(self->fd, call, self->unit, WP_ON));
	ASSERT_EQ(0, uk_protect(self->fd, op, self->unit, 0));
	EXPECT_EQ(-EFAULT, try_call(self, call));
	EXPECT_FALSE(present(self, 0));
	ASSERT_TRUE(uk_parked(self->fd, 0, 0));
	ASSERT_EQ(0, uk_protect(self->fd, call, self->unit, 0));
	EXPECT_EQ(0, try_call(self, call));
	EXPECT_EQ(self->unit, op->result);
}

/* What is missing otherwise is brought in: nobody has to be asked. */
TEST_F_TIMEOUT(exchange, arrays_in_fresh_memory, LIMIT)
{
	size_t len = 4 * self->unit;
	char *fresh, *stack;

	ASSERT_TRUE(fault_at(self, 1));
	ASSERT_TRUE(fault_at(self, 2));
	fresh = mmap(NULL, len, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, fresh);
	begin(self, 1, 0);
	self->call.msgs = (unsigned long)fresh + self->unit - 16;
	ASSERT_EQ(1, run(self));
	EXPECT_TRUE(uk_is_fault((void *)(fresh + self->unit - 16), at(self, 1)));
	/* Nothing in there is an operation. */
	begin(self, 0, 0);
	self->call.ops = (unsigned long)fresh + 2 * self->unit;
	self->call.nr_ops = 2;
	EXPECT_EQ(-EINVAL, run(self));

	/* A stack that has not come so far down. */
	stack = mmap(fresh + 3 * self->unit, self->unit, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN,
		     -1, 0);
	ASSERT_NE(MAP_FAILED, stack);
	ASSERT_EQ(0, munmap(fresh, 3 * self->unit));
	begin(self, 1, 0);
	self->call.msgs = (unsigned long)stack - 64;
	ASSERT_EQ(1, run(self));
	EXPECT_TRUE(uk_is_fault((void *)(stack - 64), at(self, 2)));
	EXPECT_EQ(0, copy_in(self, 1, 2));
	EXPECT_TRUE(uk_join_all(&self->t[1], 2));
}

/* Others. */

struct waiter {
	int fd;
	struct uffd_msg msg;
	struct uffdio_exchange call;
	struct uk_thread t;
};

static long wait_for_one(void *arg)
{
	struct waiter *w = arg;

	w->call = (struct uffdio_exchange){
		.msgs = (unsigned long)&w->msg,
		.nr_msgs = 1,
		.deadline = FOR_EVER,
	};
	return exchange_on(w->fd, &w->call);
}

/* Each message wakes one of them, and none is handed out twice. */
TEST_F_TIMEOUT(exchange, several_threads, LIMIT)
{
	struct waiter w[4];
	bool seen[4] = {};
	unsigned int i;

	for (i = 0; i < 4; i++) {
		w[i].fd = self->fd;
		ASSERT_EQ(0, uk_start(&w[i].t, wait_for_one, &w[i]));
		ASSERT_TRUE(uk_asleep(w[i].t.tid));
	}
	ASSERT_TRUE(fault_at(self, 0));
	uk_sleep(UK_PAUSE);
	EXPECT_EQ(1, uk_finished(&w[0].t) + uk_finished(&w[1].t) +
		     uk_finished(&w[2].t) + uk_finished(&w[3].t));
	for (i = 1; i < 4; i++)
		ASSERT_TRUE(fault_at(self, i));
	for (i = 0; i < 4; i++) {
		unsigned int unit;

		ASSERT_TRUE(uk_join(&w[i].t, UK_SOON));
		ASSERT_EQ(1, w[i].t.ret);
		unit = (w[i].msg.arg.pagefault.address -
			(unsigned long)self->m.area) / self->unit;
		ASSERT_GT(4, unit);
		EXPECT_FALSE(seen[unit]);
		seen[unit] = true;
	}
	begin(self, 0, 0);
	for (i = 0; i < 4; i++)
		add_copy(self, i);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join_all(self->t, 4));
}

/* A wake-up that is spent on one who leaves is another one's. */
TEST_F_TIMEOUT(exchange, leaves_with_a_wake_up, LIMIT)
{
	struct sigaction act = { .sa_handler = count_signal };
	unsigned int round, i, n;

	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	for (round = 0; round < 20; round++) {
		struct waiter w[2] = { { .fd = self->fd }, { .fd = self->fd } };

		for (i = 0; i < 2; i++) {
			ASSERT_EQ(0, uk_start(&w[i].t, wait_for_one, &w[i]));
			ASSERT_TRUE(uk_asleep(w[i].t.tid));
		}
		/* The last to come is the first to be woken. */
		ASSERT_EQ(0, pthread_kill(w[1].t.id, SIGUSR1));
		ASSERT_EQ(0, uk_start(&self->t[round], uk_peek, at(self, round)));
		n = 0;
		ASSERT_TRUE(uk_join(&w[1].t, UK_SOON));
		n += w[1].t.ret;
		if (!n)
			ASSERT_TRUE(uk_join(&w[0].t, UK_SOON));
		UK_ASSERT_FILL(0, self->unit,
			       uk_copy(self->fd, at(self, round), self->src,
				       self->unit, 0));
		ASSERT_TRUE(uk_join(&self->t[round], UK_SOON));
		if (n) {
			ASSERT_EQ(0, pthread_kill(w[0].t.id, SIGUSR1));
			ASSERT_TRUE(uk_join(&w[0].t, UK_SOON));
		}
		ASSERT_EQ(1, n + w[0].t.ret);
	}
}

/* A second process with the same descriptor. */
static int call_from_a_child(void *test)
{
	struct exchange_test *self = test;
	struct uffdio_op *o;

	begin(self, 2, FOR_EVER);
	UK_CHECK(run(self) == 1);
	UK_CHECK(got_fault(self, 0, 0));
	begin(self, 0, 0);
	self->call.mode = GO_ON;
	/* The child's source goes to the parent. */
	uk_paint(self->src, self->unit, 2);
	add_copy(self, 0);
	o = add(self, _UFFDIO_MOVE, at(self, 1), self->unit, 0);
	o->src = (unsigned long)self->src;
	add_copy(self, 2);
	UK_CHECK(run(self) == 0);
	UK_CHECK(self->call.done == 3);
	UK_CHECK(self->ops[0].result == (__s64)self->unit);
	UK_CHECK(self->ops[1].result == -EINVAL);
	UK_CHECK(self->ops[2].result == (__s64)self->unit);
	return 0;
}

TEST_F_TIMEOUT(exchange, another_process, LIMIT)
{
	pid_t pid;
	int fd;

	/* This one has no FORK to tell of. */
	fd = uk_new(O_CLOEXEC, UFFD_FEATURE_EXCHANGE);
	ASSERT_LE(0, fd);
	close(self->fd);
	self->fd = fd;
	ASSERT_EQ(0, uk_register(fd, self->m.area, self->m.len));
	pid = uk_spawn(call_from_a_child, self);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, uk_start(&self->t[0], uk_peek, at(self, 0)));
	EXPECT_EQ(0, uk_reap(pid, UK_SOON));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
	EXPECT_TRUE(uk_painted(at(self, 0), self->unit, 2));
	EXPECT_FALSE(present(self, 1));
	EXPECT_TRUE(present(self, 2));
}

static int make_and_leave(void *arg)
{
	struct uk_mem m;
	int fd;

	UK_CHECK(!uk_map(&m, UK_ANON_SMALL, 1));
	fd = uk_new(O_CLOEXEC, UFFD_FEATURE_EXCHANGE);
	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_register(fd, m.area, m.len));
	UK_CHECK(!uk_send_fd(*(int *)arg, fd));
	return 0;
}

TEST_F_TIMEOUT(exchange, memory_is_gone, LIMIT)
{
	int pair[2], fd;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(0, uk_in_child(make_and_leave, &pair[0]));
	fd = uk_recv_fd(pair[1]);
	ASSERT_LE(0, fd);
	begin(self, 1, FOR_EVER);
	add_copy(self, 0);
	add_copy(self, 1);
	EXPECT_EQ(0, exchange_on(fd, &self->call));
	EXPECT_EQ(1, self->call.done);
	EXPECT_EQ(-ESRCH, self->ops[0].result);
	begin(self, 1, FOR_EVER);
	self->call.mode = GO_ON;
	add(self, _UFFDIO_WRITEPROTECT, at(self, 0), self->unit, 0);
	add(self, _UFFDIO_WAKE, at(self, 0), self->unit, 0);
	EXPECT_EQ(0, exchange_on(fd, &self->call));
	EXPECT_EQ(2, self->call.done);
	EXPECT_EQ(-ESRCH, self->ops[0].result);
	/* Nobody is there, but WAKE works without. */
	EXPECT_EQ(self->unit, self->ops[1].result);
	close(fd);
}

/* Closed meanwhile: the call keeps the file, and its message comes. */
TEST_F_TIMEOUT(exchange, closed_meanwhile, LIMIT)
{
	struct waiter w = { .fd = self->fd };
	int again;

	again = dup(self->fd);
	ASSERT_LE(0, again);
	ASSERT_EQ(0, uk_start(&w.t, wait_for_one, &w));
	ASSERT_TRUE(uk_asleep(w.t.tid));
	close(self->fd);
	EXPECT_TRUE(uk_stays(&w.t));
	self->fd = again;
	ASSERT_TRUE(fault_at(self, 0));
	ASSERT_TRUE(uk_join(&w.t, UK_SOON));
	EXPECT_EQ(1, w.t.ret);
	begin(self, 0, 0);
	add_copy(self, 0);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
}

#ifdef __x86_64__
/* The way in of programs of 32 bits. */
struct old_call {
	int fd;
	void *arg;
	int ret;
};

static long call_32(void *arg)
{
	struct old_call *c = arg;
	long ret = 54;		/* ioctl there */

	__asm__ volatile("int $0x80"
			 : "+a"(ret)
			 : "b"((long)c->fd), "c"((long)(__u32)UFFDIO_EXCHANGE),
			   "d"(c->arg)
			 : "memory", "r8", "r9", "r10", "r11");
	c->ret = ret;
	return 0;
}

TEST_F_TIMEOUT(exchange, caller_of_32_bits, LIMIT)
{
	struct old_call c = { .fd = self->fd };
	struct exchange_test *low;

	/* All that is passed by address lies below 4 GiB. */
	low = mmap(NULL, sizeof(*low), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	ASSERT_NE(MAP_FAILED, low);
	memcpy(low, self, sizeof(*low));
	ASSERT_TRUE(fault_at(self, 0));
	begin(low, 2, FOR_EVER);
	add_copy(low, 1);
	c.arg = &low->call;
	if (uk_catch(call_32, &c, NULL, NULL))
		SKIP(goto out, "no programs of 32 bits");
	EXPECT_EQ(1, c.ret);
	EXPECT_EQ(1, low->call.done);
	EXPECT_EQ(self->unit, low->ops[0].result);
	EXPECT_TRUE(uk_is_fault(&low->msgs[0], at(self, 0)));
out:
	begin(self, 0, 0);
	add_copy(self, 0);
	EXPECT_EQ(0, run(self));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
}
#endif

/* A file in memory: faults on pages that are there, served by the one call. */
TEST(minor)
{
	struct exchange_test test = {}, *self = &test;
	unsigned int i;

	if (uk_map(&self->m, UK_SHMEM, UNITS) ||
	    !(uk_offered() & UFFD_FEATURE_EXCHANGE) ||
	    !(uk_offered() & UFFD_FEATURE_MINOR_SHMEM))
		SKIP(return, "no minor faults, or no UFFDIO_EXCHANGE");
	self->unit = self->m.unit;
	self->fd = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY, UFFD_FEATURE_EXCHANGE);
	ASSERT_LE(0, self->fd);
	memset(uk_alias(&self->m), 1, UNITS * self->unit);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      UFFDIO_REGISTER_MODE_MINOR, NULL));
	ASSERT_EQ(0, uk_start(&self->t[0], touch_all, self));
	begin(self, 1, FOR_EVER);
	ASSERT_EQ(1, run(self));
	for (i = 0; i < UNITS; i++) {
		ASSERT_TRUE(got_fault(self, 0, i));
		begin(self, i + 1 < UNITS ? 1 : 0, FOR_EVER);
		add(self, _UFFDIO_CONTINUE, at(self, i), self->unit, 0);
		ASSERT_EQ(i + 1 < UNITS ? 1 : 0, run(self));
		ASSERT_EQ(self->unit, self->ops[0].result);
	}
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
	close(self->fd);
}

TEST_HARNESS_MAIN
