// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: events that nobody waits for, UFFD_FEATURE_EVENT_NOWAIT.
 *
 * - A thread that drops, unmaps or moves memory goes on; its message has its place
 *   before whatever comes of that, and calls that it concerns are refused until it
 *   has been read.
 * - REMOVEs that touch are one message, if nothing has come in between.
 * - When 4,096 are unread the thread waits; and no more than 4,096 are left behind
 *   by threads that wait and are killed, with the feature or without.
 *
 * Most tests have no thread but this one: if anything waited that must not, they
 * would run into their time limit. UFFD_SECONDS=n makes the last one run longer.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		16
#define LIMIT		60
#define BOUND		4096

#define FORK		UFFD_FEATURE_EVENT_FORK
#define REMAP		UFFD_FEATURE_EVENT_REMAP
#define REMOVE		UFFD_FEATURE_EVENT_REMOVE
#define UNMAP		UFFD_FEATURE_EVENT_UNMAP
#define NOWAIT		UK_BIT(35)

/* FIXTURE_DATA(nowait), by a name that reads well in a prototype. */
#define nowait_test _test_data_nowait

FIXTURE(nowait)
{
	struct uk_mem m;
	size_t unit;
	char *src;
	int fd;
	struct uk_thread t[UNITS];
	struct uk_call call[UNITS];
};

FIXTURE_VARIANT(nowait)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(nowait, anon)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(nowait, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(nowait, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_SETUP(nowait)
{
	const char *why;

	if (!(uk_offered() & NOWAIT))
		SKIP(return, "this kernel has no UFFD_FEATURE_EVENT_NOWAIT");
	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, (geteuid() ? 0 : FORK) |
			  REMAP | REMOVE | UNMAP | NOWAIT);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	self->src = uk_buffer(self->unit);
	ASSERT_NE(NULL, self->src);
	uk_paint(self->src, self->unit, 1);
}

FIXTURE_TEARDOWN(nowait)
{
	close(self->fd);
}

static char *at(struct nowait_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static struct uk_fill copy(struct nowait_test *self, unsigned int unit)
{
	return uk_copy(self->fd, at(self, unit), self->src, self->unit, 0);
}

/* Drops units [first, end), whatever they are made of. */
static int drop(struct nowait_test *self, unsigned int first, unsigned int end)
{
	int advice = uk_is_anon(&self->m) ? MADV_DONTNEED : MADV_REMOVE;

	return madvise(at(self, first), (end - first) * self->unit, advice);
}

static bool is_remove(struct nowait_test *self, const struct uffd_msg *msg,
		      unsigned int first, unsigned int end)
{
	return uk_is_span(msg, UFFD_EVENT_REMOVE, at(self, first), at(self, end));
}

static bool is_unmap(struct nowait_test *self, const struct uffd_msg *msg,
		     unsigned int first, unsigned int end)
{
	return uk_is_span(msg, UFFD_EVENT_UNMAP, at(self, first), at(self, end));
}

static bool faults(struct nowait_test *self, unsigned int i)
{
	return !uk_start(&self->t[i], uk_peek, at(self, i)) &&
	       uk_asleep(self->t[i].tid);
}

/* Thread i makes a call; does it wait? */
static bool waits(struct nowait_test *self, unsigned int i, struct uk_call call)
{
	self->call[i] = call;
	return !uk_start(&self->t[i], uk_call, &self->call[i]) &&
	       uk_asleep(self->t[i].tid) && uk_stays(&self->t[i]);
}

static bool drop_waits(struct nowait_test *self, unsigned int i)
{
	return waits(self, i, (struct uk_call){
		.nr = __NR_madvise,
		.arg = { (unsigned long)at(self, i), self->unit,
			 MADV_DONTNEED } });
}

/* Reads until there is nothing; returns how many, the first @max in @msg. */
static int read_all(int fd, struct uffd_msg *msg, int max)
{
	struct uffd_msg some[64];
	int got, i, n = 0;

	while ((got = uk_read(fd, some, 64)) > 0)
		for (i = 0; i < got; i++, n++)
			if (n < max)
				msg[n] = some[i];
	return got == -EAGAIN ? n : -1;
}

TEST(offered_and_harmless_alone)
{
	char *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffd_msg msg;
	int fd;

	if (!(uk_offered() & NOWAIT))
		SKIP(return, "this kernel has no UFFD_FEATURE_EVENT_NOWAIT");
	fd = uk_new(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY, NOWAIT);
	ASSERT_LE(0, fd);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_EQ(0, uk_register(fd, area, 4096));
	EXPECT_EQ(0, madvise(area, 4096, MADV_DONTNEED));
	EXPECT_EQ(0, munmap(area, 4096));
	EXPECT_EQ(-EAGAIN, uk_read(fd, &msg, 1));
	close(fd);
}

/* One thread causes them all and reads them, in their order. */
TEST_F_TIMEOUT(nowait, goes_on, LIMIT)
{
	char *to = uk_reserve(self->unit, self->unit);
	struct uffd_msg msg[8];

	ASSERT_NE(NULL, to);
	ASSERT_EQ(0, drop(self, 2, 3));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	ASSERT_EQ(0, munmap(at(self, 4), self->unit));
	ASSERT_EQ(to, mremap(at(self, 6), self->unit, self->unit,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	ASSERT_EQ(0, drop(self, 8, 9));

	ASSERT_EQ(5, read_all(self->fd, msg, 8));
	EXPECT_TRUE(is_remove(self, &msg[0], 2, 3));
	EXPECT_TRUE(is_unmap(self, &msg[1], 4, 5));
	EXPECT_TRUE(uk_is_remap(&msg[2], at(self, 6), to, self->unit));
	EXPECT_TRUE(is_unmap(self, &msg[3], 6, 7));
	EXPECT_TRUE(is_remove(self, &msg[4], 8, 9));
	/* What has moved is registered there. */
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, to, self->src,
					      self->unit, 0));
}

static long read_one(void *arg)
{
	struct uffd_msg msg;
	int *fd = arg;

	return uk_read(*fd, &msg, 1) == 1 ? msg.event : -1;
}

TEST_F_TIMEOUT(nowait, wakes_a_reader, LIMIT)
{
	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	ASSERT_EQ(0, uk_start(&self->t[0], read_one, &self->fd));
	ASSERT_TRUE(uk_asleep(self->t[0].tid));
	ASSERT_EQ(0, drop(self, 2, 3));
	ASSERT_TRUE(uk_join(&self->t[0], UK_SOON));
	EXPECT_EQ(UFFD_EVENT_REMOVE, self->t[0].ret);
}

/* A fault that a change leads to is read after it. */
TEST_F_TIMEOUT(nowait, faults_come_after, LIMIT)
{
	int file = uk_is_shared(&self->m) ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	/* Of a file, what nobody has touched. */
	off_t offset = uk_is_shared(&self->m) ? 10 * self->unit : 0;
	struct uffd_msg msg[8];

	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 6));
	ASSERT_TRUE(faults(self, 0));
	ASSERT_EQ(0, drop(self, 2, 3));
	ASSERT_TRUE(faults(self, 2));
	ASSERT_EQ(0, munmap(at(self, 6), self->unit));
	ASSERT_EQ(at(self, 6), mmap(at(self, 6), self->unit,
				    PROT_READ | PROT_WRITE, MAP_FIXED | file,
				    self->m.fd, offset));
	ASSERT_EQ(0, uk_register(self->fd, at(self, 6), self->unit));
	ASSERT_TRUE(faults(self, 6));

	ASSERT_EQ(5, read_all(self->fd, msg, 8));
	EXPECT_TRUE(uk_is_fault(&msg[0], at(self, 0)));
	EXPECT_TRUE(is_remove(self, &msg[1], 2, 3));
	EXPECT_TRUE(uk_is_fault(&msg[2], at(self, 2)));
	EXPECT_TRUE(is_unmap(self, &msg[3], 6, 7));
	EXPECT_TRUE(uk_is_fault(&msg[4], at(self, 6)));
	UK_EXPECT_FILL(0, self->unit, copy(self, 0));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 6));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
	EXPECT_TRUE(uk_join(&self->t[2], UK_SOON));
	EXPECT_TRUE(uk_join(&self->t[6], UK_SOON));
}

TEST_F_TIMEOUT(nowait, refused_until_read, LIMIT)
{
	char *to = uk_reserve(self->unit, self->unit);
	struct uffd_msg msg[2];

	ASSERT_NE(NULL, to);
	ASSERT_EQ(0, drop(self, 2, 3));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 2));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 4));
	ASSERT_EQ(1, uk_read(self->fd, msg, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));

	ASSERT_EQ(0, munmap(at(self, 6), self->unit));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 6));
	ASSERT_EQ(1, uk_read(self->fd, msg, 1));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, copy(self, 6));

	ASSERT_EQ(to, mremap(at(self, 8), self->unit, self->unit,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 0));
	ASSERT_EQ(1, uk_read(self->fd, msg, 1));
	EXPECT_EQ(UFFD_EVENT_REMAP, msg[0].event);
	UK_EXPECT_FILL(0, self->unit, copy(self, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 8));
	ASSERT_EQ(1, uk_read(self->fd, msg, 1));
	EXPECT_EQ(UFFD_EVENT_UNMAP, msg[0].event);
	UK_EXPECT_FILL(-ENOENT, -ENOENT, copy(self, 8));
}

/* Page by page, upwards, downwards, and over what is in it already. */
TEST_F_TIMEOUT(nowait, removes_that_touch_are_one, LIMIT)
{
	struct uffd_msg msg[4];

	ASSERT_EQ(0, drop(self, 5, 6));
	UK_EXPECT_FILL(0, self->unit, copy(self, 6));
	ASSERT_EQ(0, drop(self, 6, 7));
	/* What has been added is refused as well. */
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 6));
	ASSERT_EQ(0, drop(self, 4, 5));
	ASSERT_EQ(0, drop(self, 5, 9));
	ASSERT_EQ(0, drop(self, 5, 6));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 4));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 8));
	UK_EXPECT_FILL(0, self->unit, copy(self, 3));
	UK_EXPECT_FILL(0, self->unit, copy(self, 9));
	ASSERT_EQ(1, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_remove(self, &msg[0], 4, 9));
	UK_EXPECT_FILL(0, self->unit, copy(self, 4));
	UK_EXPECT_FILL(0, self->unit, copy(self, 8));

	/* Not to one that has been read. */
	ASSERT_EQ(0, drop(self, 9, 10));
	ASSERT_EQ(1, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_remove(self, &msg[0], 9, 10));
}

TEST_F_TIMEOUT(nowait, removes_that_are_not_one, LIMIT)
{
	struct uffd_msg msg[8];

	/* There is something in between, of memory or of time. */
	ASSERT_EQ(0, drop(self, 1, 2));
	ASSERT_EQ(0, drop(self, 3, 4));
	ASSERT_TRUE(faults(self, 4));
	ASSERT_EQ(0, drop(self, 4, 5));
	ASSERT_EQ(0, munmap(at(self, 9), self->unit));
	ASSERT_EQ(0, drop(self, 5, 6));
	ASSERT_EQ(0, drop(self, 6, 7));
	ASSERT_EQ(6, read_all(self->fd, msg, 8));
	EXPECT_TRUE(is_remove(self, &msg[0], 1, 2));
	EXPECT_TRUE(is_remove(self, &msg[1], 3, 4));
	EXPECT_TRUE(uk_is_fault(&msg[2], at(self, 4)));
	EXPECT_TRUE(is_remove(self, &msg[3], 4, 5));
	EXPECT_TRUE(is_unmap(self, &msg[4], 9, 10));
	EXPECT_TRUE(is_remove(self, &msg[5], 5, 7));

	/* A fault that has been called off has come in between, too. */
	ASSERT_EQ(0, drop(self, 10, 11));
	ASSERT_TRUE(faults(self, 12));
	UK_EXPECT_FILL(0, self->unit, copy(self, 12));
	ASSERT_TRUE(uk_join(&self->t[12], UK_SOON));
	ASSERT_EQ(0, drop(self, 11, 12));
	ASSERT_EQ(2, read_all(self->fd, msg, 8));
	UK_EXPECT_FILL(0, self->unit, copy(self, 4));
	EXPECT_TRUE(uk_join(&self->t[4], UK_SOON));
}

/* Two mappings, one call: one message; and what comes before a hole is told. */
TEST_F_TIMEOUT(nowait, several_mappings, LIMIT)
{
	struct uffd_msg msg[4];

	ASSERT_EQ(0, mprotect(at(self, 4), 2 * self->unit, PROT_READ));
	ASSERT_EQ(0, madvise(at(self, 2), 6 * self->unit, MADV_DONTNEED));
	ASSERT_EQ(1, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_remove(self, &msg[0], 2, 8));

	ASSERT_EQ(0, munmap(at(self, 10), self->unit));
	ASSERT_EQ(1, read_all(self->fd, msg, 4));
	EXPECT_EQ(-1, madvise(at(self, 9), 3 * self->unit, MADV_DONTNEED));
	EXPECT_EQ(ENOMEM, errno);
	ASSERT_EQ(2, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_remove(self, &msg[0], 9, 10));
	EXPECT_TRUE(is_remove(self, &msg[1], 11, 12));
}

/* What could not be copied out is unread, where it was. */
TEST_F_TIMEOUT(nowait, bad_buffer, LIMIT)
{
	char *page = uk_reserve(8192, 4096);
	struct uffd_msg msg[8], *half;

	ASSERT_NE(NULL, page);
	ASSERT_EQ(0, mprotect(page, 4096, PROT_READ | PROT_WRITE));
	/* One message and a half. */
	half = (struct uffd_msg *)(page + 4096) - 1;
	half = (struct uffd_msg *)((char *)half - sizeof(*half) / 2);

	ASSERT_EQ(0, drop(self, 2, 3));
	ASSERT_EQ(0, munmap(at(self, 4), self->unit));
	ASSERT_EQ(0, drop(self, 6, 7));
	EXPECT_EQ(-EFAULT, uk_read(self->fd, UK_KERNEL_SPACE, 4));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 2));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 6));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	/* They touch, and the last one has come back. */
	ASSERT_EQ(0, drop(self, 7, 8));

	ASSERT_EQ(1, uk_read(self->fd, half, 3));
	EXPECT_TRUE(is_remove(self, half, 2, 3));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 4));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 7));
	ASSERT_EQ(2, read_all(self->fd, msg, 8));
	EXPECT_TRUE(is_unmap(self, &msg[0], 4, 5));
	EXPECT_TRUE(is_remove(self, &msg[1], 6, 8));
	UK_EXPECT_FILL(0, self->unit, copy(self, 7));
}

/* Closing the descriptor ends it all, and what was dropped is zeroes. */
TEST_F_TIMEOUT(nowait, close_with_unread, LIMIT)
{
	unsigned int i;

	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, drop(self, i % 2 * 2, i % 2 * 2 + 1));
	ASSERT_EQ(0, munmap(at(self, 6), self->unit));
	close(self->fd);
	EXPECT_TRUE(uk_all_zero(at(self, 2), self->unit));
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, REMOVE | NOWAIT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, at(self, 0), 4 * self->unit));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 2));
}

/* In the child: system calls only. */
static int drop_and_leave(void *arg)
{
	struct nowait_test *self = arg;

	return syscall(__NR_madvise, at(self, 2), self->unit, MADV_DONTNEED) ||
	       syscall(__NR_munmap, at(self, 4), self->unit);
}

static long spawn(void *arg)
{
	struct nowait_test *self = arg;

	return uk_spawn_by_thread(drop_and_leave, self, 0);
}

/* A fork is waited for; the child has the feature, and ends with its events. */
TEST_F_TIMEOUT(nowait, fork_waits, LIMIT)
{
	struct uffd_msg msg[4];
	int child;

	if (geteuid())
		SKIP(return, "needs root, for fork events");
	ASSERT_EQ(0, drop(self, 6, 7));
	ASSERT_EQ(0, uk_start(&self->t[0], spawn, self));
	ASSERT_TRUE(uk_asleep(self->t[0].tid));
	ASSERT_TRUE(uk_stays(&self->t[0]));
	ASSERT_EQ(1, uk_read(self->fd, msg, 1));
	EXPECT_TRUE(is_remove(self, &msg[0], 6, 7));
	EXPECT_TRUE(uk_stays(&self->t[0]));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 0));
	ASSERT_EQ(1, uk_read(self->fd, msg, 4));
	ASSERT_EQ(UFFD_EVENT_FORK, msg[0].event);
	child = msg[0].arg.fork.ufd;
	ASSERT_TRUE(uk_join(&self->t[0], UK_SOON));
	EXPECT_EQ(0, uk_reap(self->t[0].ret, UK_SOON));

	EXPECT_EQ(-EAGAIN, uk_read(self->fd, msg, 4));
	ASSERT_EQ(2, uk_read(child, msg, 4));
	EXPECT_TRUE(is_remove(self, &msg[0], 2, 3));
	EXPECT_TRUE(is_unmap(self, &msg[1], 4, 5));
	close(child);
}

/* A process that shares the memory is gone before its event is read. */
TEST_F_TIMEOUT(nowait, another_process, LIMIT)
{
	char *stack = uk_buffer(65536);
	struct uffd_msg msg[4];
	pid_t pid;

	ASSERT_NE(NULL, stack);
	pid = clone(drop_and_leave, stack + 65536, CLONE_VM | SIGCHLD, self);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, uk_reap(pid, UK_SOON));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 2));
	ASSERT_EQ(2, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_remove(self, &msg[0], 2, 3));
	EXPECT_TRUE(is_unmap(self, &msg[1], 4, 5));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
}

/* How many there may be: small pages will do. */

FIXTURE(bound)
{
	struct nowait_test n;
};

FIXTURE_SETUP(bound)
{
	struct nowait_test *n = &self->n;
	const char *why;

	if (!(uk_offered() & NOWAIT))
		SKIP(return, "this kernel has no UFFD_FEATURE_EVENT_NOWAIT");
	why = uk_map(&n->m, UK_ANON_SMALL, UNITS);
	if (why)
		SKIP(return, "%s", why);
	n->unit = n->m.unit;
	n->src = uk_buffer(n->unit);
	ASSERT_NE(NULL, n->src);
	n->fd = -1;
}

FIXTURE_TEARDOWN(bound)
{
	close(self->n.fd);
}

static int serve(struct nowait_test *self, __u64 features)
{
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register(self->fd, self->m.area, self->m.len);
}

/* So many messages that do not touch. */
static int drop_many(struct nowait_test *self, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		if (drop(self, i % 2 * 2, i % 2 * 2 + 1))
			return -errno;
	return 0;
}

TEST_F_TIMEOUT(bound, then_they_wait, LIMIT)
{
	struct nowait_test *n = &self->n;
	struct uffd_msg msg[BOUND + 8];

	ASSERT_EQ(0, serve(n, REMOVE | UNMAP | REMAP | NOWAIT));
	ASSERT_EQ(0, drop_many(n, BOUND));
	/* To be added to the newest takes no more room. */
	ASSERT_EQ(0, drop(n, 3, 4));
	ASSERT_TRUE(drop_waits(n, 6));
	ASSERT_EQ(0, drop(n, 7, 8));
	ASSERT_TRUE(waits(n, 9, (struct uk_call){
		.nr = __NR_munmap,
		.arg = { (unsigned long)at(n, 9), n->unit } }));

	/* Not before there is room. */
	ASSERT_EQ(2, uk_read(n->fd, msg, 2));
	ASSERT_TRUE(drop_waits(n, 11));
	ASSERT_EQ(4, uk_read(n->fd, msg, 4));
	ASSERT_EQ(0, drop(n, 13, 14));
	EXPECT_FALSE(uk_finished(&n->t[6]));

	ASSERT_EQ(BOUND - 6 + 4, read_all(n->fd, msg, BOUND + 8));
	EXPECT_TRUE(is_remove(n, &msg[BOUND - 7], 2, 4));
	EXPECT_TRUE(is_remove(n, &msg[BOUND - 6], 6, 8));
	EXPECT_TRUE(is_unmap(n, &msg[BOUND - 5], 9, 10));
	EXPECT_TRUE(is_remove(n, &msg[BOUND - 4], 11, 12));
	EXPECT_TRUE(is_remove(n, &msg[BOUND - 3], 13, 14));
	EXPECT_TRUE(uk_join(&n->t[6], UK_SOON));
	EXPECT_TRUE(uk_join(&n->t[9], UK_SOON));
	EXPECT_TRUE(uk_join(&n->t[11], UK_SOON));
	EXPECT_EQ(0, n->t[9].ret);
	ASSERT_EQ(0, drop_many(n, BOUND));
}

static int drop_and_stay(void *arg)
{
	drop(arg, 6, 7);
	return 0;
}

/* Beyond the bound they can be killed, and leave their message. */
TEST_F_TIMEOUT(bound, killed_beyond, LIMIT)
{
	struct nowait_test *n = &self->n;
	char *stack = uk_buffer(65536);
	struct uffd_msg msg[BOUND + 8];
	pid_t pid;

	ASSERT_NE(NULL, stack);
	ASSERT_EQ(0, serve(n, REMOVE | NOWAIT));
	ASSERT_EQ(0, drop_many(n, BOUND));
	pid = clone(drop_and_stay, stack + 65536, CLONE_VM | SIGCHLD, n);
	ASSERT_LT(0, pid);
	uk_sleep(10 * UK_PAUSE);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(128 + SIGKILL, uk_reap(pid, UK_SOON));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(n, 6));
	ASSERT_EQ(BOUND + 1, read_all(n->fd, msg, BOUND + 8));
	EXPECT_TRUE(is_remove(n, &msg[BOUND], 6, 7));
	UK_EXPECT_FILL(0, n->unit, copy(n, 6));
}

/* Closing lets go those who wait beyond it. */
TEST_F_TIMEOUT(bound, close_beyond, LIMIT)
{
	struct nowait_test *n = &self->n;

	ASSERT_EQ(0, serve(n, REMOVE | NOWAIT));
	ASSERT_EQ(0, drop_many(n, BOUND));
	ASSERT_TRUE(drop_waits(n, 6));
	close(n->fd);
	n->fd = -1;
	EXPECT_TRUE(uk_join(&n->t[6], UK_SOON));
	EXPECT_EQ(0, n->t[6].ret);
}

#define STACK		16384UL

struct crowd {
	struct nowait_test *n;
	unsigned int threads;
	unsigned int refused;
	unsigned int begun;
	bool go;
};

static int drop_once(void *arg)
{
	struct crowd *c = arg;

	uk_add(&c->begun, 1);
	while (!uk_get(&c->go))
		sched_yield();
	if (syscall(__NR_madvise, at(c->n, 2), c->n->unit, MADV_DONTNEED))
		uk_add(&c->refused, 1);
	return 0;
}

static int drop_by_many(void *arg)
{
	struct crowd *c = arg;
	char *stack = uk_reserve(c->threads * STACK, 4096);
	unsigned int i;

	if (!stack || mprotect(stack, c->threads * STACK,
			       PROT_READ | PROT_WRITE))
		return 1;
	uk_set(&c->go, true);
	for (i = 1; i <= c->threads; i++)
		if (clone(drop_once, stack + i * STACK,
			  CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, c) < 0)
			return 1;
	for (;;)
		pause();
}

/*
 * More threads than that, all at once, without the feature: those that come too
 * late are refused, and when the others are killed what they leave is no more.
 */
TEST_F_TIMEOUT(bound, killed_by_the_thousand, 6 * LIMIT)
{
	struct crowd c = { .n = &self->n, .threads = BOUND + 40 };
	char *stack = uk_buffer(65536);
	struct nowait_test *n = &self->n;
	long long until = uk_now() + 5 * LIMIT * 1000LL;
	struct uffd_msg msg[4];
	pid_t pid;

	ASSERT_NE(NULL, stack);
	ASSERT_EQ(0, serve(n, REMOVE | UNMAP));
	pid = clone(drop_by_many, stack + 65536, CLONE_VM | SIGCHLD, &c);
	ASSERT_LT(0, pid);
	while ((uk_get(&c.begun) < c.threads || uk_get(&c.refused) < 40) &&
	       uk_now() < until && uk_reap(pid, 10) < 0)
		;
	EXPECT_EQ(c.threads, uk_get(&c.begun));
	EXPECT_EQ(40, uk_get(&c.refused));
	EXPECT_EQ(-1, munmap(at(n, 4), n->unit));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(-1, madvise(at(n, 4), n->unit, MADV_DONTNEED));
	EXPECT_EQ(EAGAIN, errno);
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, uk_reap(pid, 6 * UK_SOON));
	EXPECT_EQ(-1, munmap(at(n, 4), n->unit));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(BOUND, read_all(n->fd, msg, 4));
	EXPECT_TRUE(is_remove(n, &msg[0], 2, 3));
}

/*
 * Threads drop their pages and look at them again, while one handler fills ahead of
 * them as well as on demand. How often a page has been dropped, as the handler has
 * been told, is what it fills it with: so a page that was filled behind an event's
 * back, or a fault that was read before it, shows in what the thread finds.
 */

#define DROPPERS	3
#define PAGES		64

struct race {
	struct uk_mem m;
	int fd;
	unsigned int told[DROPPERS * PAGES];
	bool over;
	unsigned long faults;
	unsigned long removes;
	unsigned long refused;
	const char *wrong;
};

struct dropper {
	struct race *r;
	unsigned int nr;
	unsigned long drops;
};

static long dropper(void *arg)
{
	struct dropper *d = arg;
	struct race *r = d->r;
	unsigned int dropped[PAGES] = {};
	unsigned long x = 88172645463325252UL + d->nr;
	unsigned int first, i, len;
	char *p;

	while (!uk_get(&r->over)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		first = x % PAGES;
		len = 1 + (x >> 20) % 3;
		if (first + len > PAGES)
			len = PAGES - first;
		p = uk_at(&r->m, d->nr * PAGES + first);
		if (madvise(p, len * r->m.unit, MADV_DONTNEED))
			return -1;
		d->drops++;
		for (i = 0; i < len; i++, p += r->m.unit) {
			dropped[first + i]++;
			if (uk_get((unsigned int *)p) != dropped[first + i])
				return 1;
		}
	}
	return 0;
}

static void fill(struct race *r, char *src, unsigned int i)
{
	struct uk_fill res;

	*(unsigned int *)src = r->told[i];
	res = uk_copy(r->fd, uk_at(&r->m, i), src, r->m.unit, 0);
	if (res.err == -EAGAIN)
		r->refused++;
	else if (res.err == -EEXIST)
		uk_wake(r->fd, uk_at(&r->m, i), r->m.unit);
	else if (res.err)
		r->wrong = "copy";
}

static void be_told(struct race *r, char *src, const struct uffd_msg *msg)
{
	size_t unit = r->m.unit;
	__u64 area = (uintptr_t)r->m.area, p;

	if (msg->event == UFFD_EVENT_PAGEFAULT) {
		r->faults++;
		fill(r, src, (msg->arg.pagefault.address - area) / unit);
		return;
	}
	if (msg->event != UFFD_EVENT_REMOVE)
		r->wrong = "message";
	r->removes++;
	for (p = msg->arg.remove.start; p < msg->arg.remove.end; p += unit)
		r->told[(p - area) / unit]++;
}

static long handler(void *arg)
{
	struct race *r = arg;
	char *src = uk_buffer(r->m.unit);
	struct uffd_msg msg[16];
	unsigned int ahead = 0;
	int i, n;

	while (!uk_get(&r->over) && !r->wrong) {
		n = uk_read(r->fd, msg, 16);
		for (i = 0; i < n; i++)
			be_told(r, src, &msg[i]);
		/* Ahead; and what has been refused when it was asked for. */
		if (n <= 0) {
			fill(r, src, ahead++ % (DROPPERS * PAGES));
			if (ahead % 16 == 0)
				uk_poll(r->fd, 1);
		}
	}
	return 0;
}

TEST_F_TIMEOUT(bound, race, 10 * LIMIT)
{
	struct dropper d[DROPPERS];
	struct uk_thread t[DROPPERS + 1];
	const char *seconds = getenv("UFFD_SECONDS");
	struct race r = {};
	unsigned long drops = 0;
	unsigned int i;

	ASSERT_EQ(NULL, uk_map(&r.m, UK_ANON_SMALL, DROPPERS * PAGES));
	r.fd = uk_new(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY,
		      REMOVE | NOWAIT);
	ASSERT_LE(0, r.fd);
	ASSERT_EQ(0, uk_register(r.fd, r.m.area, r.m.len));
	ASSERT_EQ(0, uk_start(&t[DROPPERS], handler, &r));
	for (i = 0; i < DROPPERS; i++) {
		d[i] = (struct dropper){ .r = &r, .nr = i };
		ASSERT_EQ(0, uk_start(&t[i], dropper, &d[i]));
	}
	uk_sleep(1000 * (seconds ? atoi(seconds) : 3));
	uk_set(&r.over, true);
	ASSERT_TRUE(uk_join(&t[DROPPERS], UK_SOON));
	/* Whoever sleeps still does not have to be right. */
	for (i = 0; i < DROPPERS; i++) {
		if (uk_finished(&t[i]))
			EXPECT_EQ(0, t[i].ret);
		drops += d[i].drops;
	}
	close(r.fd);
	for (i = 0; i < DROPPERS; i++)
		EXPECT_TRUE(uk_join(&t[i], UK_SOON));
	EXPECT_EQ(NULL, r.wrong);
	EXPECT_LT(0, r.faults);
	EXPECT_LT(0, r.removes);
	TH_LOG("%lu drops, %lu removes, %lu faults, %lu refused", drops,
	       r.removes, r.faults, r.refused);
}

TEST_HARNESS_MAIN
