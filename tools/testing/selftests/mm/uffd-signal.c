// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: signals to threads that wait for a fault in the middle of a system
 * call.
 *
 * A fault of user space goes back to user space when a signal comes. The kernel's
 * own access to user memory cannot: it tries again and again until the page is
 * there, with the signal pending. The handler must get the CPU in between, even
 * if it has to share the only one there is, and the accesses must not take it all.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		4
#define LIMIT		60

static unsigned int handled;

static void count_signal(int nr)
{
	uk_add(&handled, 1);
}

static bool pin(pid_t tid)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu() < 0 ? 0 : sched_getcpu(), &set);
	return !sched_setaffinity(tid, sizeof(set), &set);
}

/* User and system time of a thread, in milliseconds. */
static long cpu_time(pid_t tid)
{
	clockid_t clock = (~(clockid_t)tid << 3) | 6;
	struct timespec ts;

	if (clock_gettime(clock, &ts))
		return -1;
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

FIXTURE(signal)
{
	struct uk_mem m;
	char *src;
	int fd;
	int pipe[2];
	struct uk_thread t;
	struct uk_call call;
};

FIXTURE_VARIANT(signal)
{
	enum uk_kind kind;
	bool one_cpu;
	int flags;
};

FIXTURE_VARIANT_ADD(signal, anon) {
	.kind = UK_ANON_SMALL, .one_cpu = false, .flags = 0,
};

FIXTURE_VARIANT_ADD(signal, anon_on_one_cpu) {
	.kind = UK_ANON_SMALL, .one_cpu = true, .flags = 0,
};

FIXTURE_VARIANT_ADD(signal, anon_on_one_cpu_restarting) {
	.kind = UK_ANON_SMALL, .one_cpu = true, .flags = SA_RESTART,
};

FIXTURE_VARIANT_ADD(signal, shmem_on_one_cpu) {
	.kind = UK_SHMEM, .one_cpu = true, .flags = 0,
};

FIXTURE_VARIANT_ADD(signal, hugetlb_on_one_cpu) {
	.kind = UK_HUGETLB, .one_cpu = true, .flags = 0,
};

FIXTURE_SETUP(signal)
{
	struct sigaction act = {
		.sa_handler = count_signal,
		.sa_flags = variant->flags,
	};
	const char *why;

	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	self->src = uk_buffer(self->m.unit);
	ASSERT_NE(NULL, self->src);
	uk_paint(self->src, self->m.unit, 1);
	ASSERT_EQ(0, pipe2(self->pipe, O_CLOEXEC));
	uk_set(&handled, 0);
	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	if (variant->one_cpu)
		ASSERT_TRUE(pin(0));
}

FIXTURE_TEARDOWN(signal)
{
	close(self->fd);
}

/* Resolve the fault of unit 0 as a handler does, by reading its message. */
static bool serve(struct _test_data_signal *self)
{
	struct uffd_msg msg;
	long long until = uk_now() + UK_SOON;
	struct uk_fill fill;

	/* The thread comes again and again; each time it is a new message. */
	while (uk_next(self->fd, &msg) == 1 && uk_now() < until) {
		if (!uk_is_fault(&msg, self->m.area))
			return false;
		fill = uk_copy(self->fd, self->m.area, self->src, self->m.unit,
			       0);
		return !fill.err;
	}
	return false;
}

static bool signalled(struct _test_data_signal *self)
{
	return !syscall(__NR_tgkill, getpid(), self->t.tid, SIGUSR1);
}

/* The thread waits in a write() of a page that is not there. */
static bool begin_write(struct _test_data_signal *self)
{
	self->call = (struct uk_call){
		.nr = __NR_write,
		.arg = { self->pipe[1], (unsigned long)self->m.area, 64 },
	};
	return !uk_start(&self->t, uk_call, &self->call) &&
	       uk_asleep(self->t.tid);
}

TEST_F_TIMEOUT(signal, write_goes_on, LIMIT)
{
	ASSERT_TRUE(begin_write(self));
	ASSERT_TRUE(signalled(self));
	uk_sleep(UK_PAUSE);
	/* The handler has its turn, and the bytes arrive. */
	ASSERT_TRUE(serve(self));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	EXPECT_EQ(64, self->t.ret);
	EXPECT_EQ(1, uk_get(&handled));
}

/* With a signal that it cannot act on, a thread does not use up the CPU. */
TEST_F_TIMEOUT(signal, write_does_not_spin, LIMIT)
{
	long before, after;

	if (!getenv("UFFD_STORM"))
		SKIP(return, "kernels up to 7.3 spin");
	ASSERT_TRUE(begin_write(self));
	ASSERT_TRUE(signalled(self));
	before = cpu_time(self->t.tid);
	ASSERT_LE(0, before);
	uk_sleep(1000);
	after = cpu_time(self->t.tid);
	EXPECT_LE(0, after);
	EXPECT_GT(500, after - before);
	ASSERT_TRUE(serve(self));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	EXPECT_EQ(64, self->t.ret);
}

/* A fatal signal ends the wait at once, served or not. */
static int write_from_nowhere(void *arg)
{
	struct _test_data_signal *self = arg;

	return syscall(__NR_write, self->pipe[1], self->m.area, 64) == 64;
}

TEST_F_TIMEOUT(signal, write_can_be_killed, LIMIT)
{
	char *stack = uk_buffer(65536);
	int i;
	pid_t pid;

	ASSERT_NE(NULL, stack);
	for (i = 0; i < 2; i++) {
		pid = clone(write_from_nowhere, stack + 65536,
			    CLONE_VM | CLONE_FILES | SIGCHLD, self);
		ASSERT_LT(0, pid);
		uk_sleep(UK_PAUSE);
		/* A second signal, the first one pending. */
		if (i)
			ASSERT_EQ(0, kill(pid, SIGUSR1));
		uk_sleep(UK_PAUSE);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		EXPECT_EQ(128 + SIGKILL, uk_reap(pid, UK_SOON));
	}
	EXPECT_TRUE(uk_parked(self->fd, 0, 0));
}

/* Many signals, one after the other, while nobody serves. */
TEST_F_TIMEOUT(signal, many_signals, LIMIT)
{
	int i;

	ASSERT_TRUE(begin_write(self));
	for (i = 0; i < 200; i++) {
		ASSERT_TRUE(signalled(self));
		sched_yield();
	}
	ASSERT_TRUE(serve(self));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	EXPECT_EQ(64, self->t.ret);
	EXPECT_LE(1, uk_get(&handled));
}

/* An access of user space: the signal is handled before the page has come. */
TEST_F_TIMEOUT(signal, user_access_is_interrupted, LIMIT)
{
	ASSERT_EQ(0, uk_start(&self->t, uk_peek, self->m.area));
	ASSERT_TRUE(uk_asleep(self->t.tid));
	ASSERT_TRUE(signalled(self));
	while (!uk_get(&handled))
		uk_sleep(1);
	ASSERT_TRUE(serve(self));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	EXPECT_EQ((unsigned char)self->src[0], (unsigned char)self->t.ret);
}

/* Somebody else's memory: process_vm_readv() returns when it is served. */
static long read_by_gup(void *arg)
{
	struct _test_data_signal *self = arg;
	char byte;
	struct iovec to = { &byte, 1 }, from = { self->m.area, 1 };

	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1 ?
	       (unsigned char)byte : -errno;
}

TEST_F_TIMEOUT(signal, gup_goes_on, LIMIT)
{
	ASSERT_EQ(0, uk_start(&self->t, read_by_gup, self));
	ASSERT_TRUE(uk_asleep(self->t.tid));
	ASSERT_TRUE(signalled(self));
	uk_sleep(UK_PAUSE);
	ASSERT_TRUE(serve(self));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	EXPECT_EQ((unsigned char)self->src[0], self->t.ret);
}

TEST_HARNESS_MAIN
