// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: one order for faults and events, and what -EAGAIN means.
 *
 * - Messages are read in the order of their causes, faults and events alike.
 * - A fill is refused with -EAGAIN while an event that concerns it is unread:
 *   REMOVE and UNMAP concern their own range, FORK and REMAP any range. Once
 *   the event has been read, the refusal is over.
 * - A message that could not be delivered keeps its place, and so does the
 *   event of a thread that is killed.
 *
 * So a handler needs one thread, no timer and no luck, which is the last test:
 * UFFD_SECONDS=n makes it run longer, UFFD_SEED=n makes it run alike.
 *
 * Kernels up to 6.12 hand out all faults before any event and refuse all fills
 * for as long as any event is under way. Most of this fails on them.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/falloc.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		16
#define LIMIT		60

#define FORK		UFFD_FEATURE_EVENT_FORK
#define REMAP		UFFD_FEATURE_EVENT_REMAP
#define REMOVE		UFFD_FEATURE_EVENT_REMOVE
#define UNMAP		UFFD_FEATURE_EVENT_UNMAP

static unsigned int next_random(unsigned long *state)
{
	unsigned long x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x >> 11;
}

static unsigned long new_seed(void)
{
	const char *text = getenv("UFFD_SEED");
	struct timespec ts;

	if (text)
		return strtoul(text, NULL, 0);
	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec ^ ts.tv_nsec;
}

/* FIXTURE_DATA(order), by a name that reads well in a prototype. */
#define order_test _test_data_order

FIXTURE(order)
{
	struct uk_mem m;
	size_t unit;
	char *src;
	int fd;
	struct uk_thread t[UNITS];
	struct uk_call call[UNITS];
};

FIXTURE_SETUP(order)
{
	const char *why;

	why = uk_map(&self->m, UK_ANON_SMALL, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK,
			  (geteuid() ? 0 : FORK) | REMAP | REMOVE | UNMAP);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	self->src = uk_buffer(UNITS * self->unit);
	ASSERT_NE(NULL, self->src);
	uk_paint(self->src, UNITS * self->unit, 1);
}

FIXTURE_TEARDOWN(order)
{
	close(self->fd);
}

static char *at(struct order_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static struct uk_fill copy(struct order_test *self, unsigned int unit)
{
	return uk_copy(self->fd, at(self, unit), self->src, self->unit, 0);
}

/* Thread i does something to unit i and sleeps because of it. */

static bool faults(struct order_test *self, unsigned int i)
{
	return !uk_start(&self->t[i], uk_peek, at(self, i)) &&
	       uk_asleep(self->t[i].tid);
}

static bool calls(struct order_test *self, unsigned int i,
		  struct uk_call call)
{
	self->call[i] = call;
	return !uk_start(&self->t[i], uk_call, &self->call[i]) &&
	       uk_asleep(self->t[i].tid);
}

static bool removes(struct order_test *self, unsigned int i)
{
	return calls(self, i, (struct uk_call){
		.nr = __NR_madvise,
		.arg = { (unsigned long)at(self, i), self->unit,
			 MADV_DONTNEED } });
}

static bool unmaps(struct order_test *self, unsigned int i)
{
	return calls(self, i, (struct uk_call){
		.nr = __NR_munmap,
		.arg = { (unsigned long)at(self, i), self->unit } });
}

static bool remaps(struct order_test *self, unsigned int i, char *to)
{
	return calls(self, i, (struct uk_call){
		.nr = __NR_mremap,
		.arg = { (unsigned long)at(self, i), self->unit, self->unit,
			 MREMAP_MAYMOVE | MREMAP_FIXED, (unsigned long)to } });
}

static int nothing(void *arg)
{
	return 0;
}

static long do_fork(void *arg)
{
	return uk_spawn_by_thread(nothing, NULL, 0);
}

static bool forks(struct order_test *self, unsigned int i)
{
	return !uk_start(&self->t[i], do_fork, NULL) &&
	       uk_asleep(self->t[i].tid);
}

static bool done(struct order_test *self, unsigned int i)
{
	return uk_join(&self->t[i], UK_SOON);
}

static bool all_done(struct order_test *self, unsigned int n)
{
	return uk_join_all(self->t, n);
}

static bool is_remove(struct order_test *self, struct uffd_msg *msg,
		      unsigned int i)
{
	return uk_is_span(msg, UFFD_EVENT_REMOVE, at(self, i), at(self, i + 1));
}

static bool is_unmap(struct order_test *self, struct uffd_msg *msg,
		     unsigned int i)
{
	return uk_is_span(msg, UFFD_EVENT_UNMAP, at(self, i), at(self, i + 1));
}

/* One order. */

TEST_F_TIMEOUT(order, faults_in_order, LIMIT)
{
	struct uffd_msg msg[8];
	int i, order[8] = { 3, 1, 7, 0, 6, 2, 5, 4 };

	for (i = 0; i < 8; i++) {
		ASSERT_TRUE(faults(self, order[i]));
		ASSERT_TRUE(uk_parked(self->fd, i + 1, i + 1));
	}
	ASSERT_EQ(8, uk_read(self->fd, msg, 8));
	for (i = 0; i < 8; i++) {
		EXPECT_TRUE(uk_is_fault(&msg[i], at(self, order[i])));
		UK_EXPECT_FILL(0, self->unit, copy(self, i));
	}
	EXPECT_TRUE(all_done(self, 8));
}

TEST_F_TIMEOUT(order, unmap_between_faults, LIMIT)
{
	struct uffd_msg msg[4];

	ASSERT_TRUE(faults(self, 0));
	ASSERT_TRUE(unmaps(self, 2));
	ASSERT_TRUE(faults(self, 4));
	/* All that is there, by one read. */
	ASSERT_EQ(3, uk_read(self->fd, msg, 4));
	EXPECT_TRUE(uk_is_fault(&msg[0], at(self, 0)));
	EXPECT_TRUE(is_unmap(self, &msg[1], 2));
	EXPECT_TRUE(uk_is_fault(&msg[2], at(self, 4)));
	UK_EXPECT_FILL(0, self->unit, copy(self, 0));
	UK_EXPECT_FILL(0, self->unit, copy(self, 4));
	EXPECT_TRUE(done(self, 0));
	EXPECT_TRUE(done(self, 2));
	EXPECT_TRUE(done(self, 4));
}

TEST_F_TIMEOUT(order, remove_between_faults, LIMIT)
{
	struct uffd_msg msg;

	ASSERT_TRUE(faults(self, 0));
	ASSERT_TRUE(removes(self, 2));
	ASSERT_TRUE(faults(self, 4));
	/* One by one is no different. */
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 0)));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(is_remove(self, &msg, 2));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 4)));
}

TEST_F_TIMEOUT(order, remap_between_faults, LIMIT)
{
	char *to = uk_reserve(self->unit, self->unit);
	struct uffd_msg msg[8];

	ASSERT_NE(NULL, to);
	ASSERT_TRUE(faults(self, 0));
	ASSERT_TRUE(remaps(self, 2, to));
	ASSERT_TRUE(faults(self, 4));
	/* mremap() unmaps what it has moved, and says so. */
	ASSERT_EQ(4, uk_read(self->fd, msg, 8));
	EXPECT_TRUE(uk_is_fault(&msg[0], at(self, 0)));
	EXPECT_TRUE(uk_is_remap(&msg[1], at(self, 2), to, self->unit));
	EXPECT_TRUE(is_unmap(self, &msg[2], 2));
	EXPECT_TRUE(uk_is_fault(&msg[3], at(self, 4)));
	EXPECT_TRUE(done(self, 2));
}

TEST_F_TIMEOUT(order, fork_between_faults, LIMIT)
{
	struct uffd_msg msg[4];
	int n = 0, ret;

	if (geteuid())
		SKIP(return, "needs root, for fork events");
	ASSERT_TRUE(faults(self, 0));
	ASSERT_TRUE(forks(self, 2));
	ASSERT_TRUE(faults(self, 4));
	/* A fork may be the last message of a read. */
	while (n < 3) {
		ret = uk_read(self->fd, msg + n, 4 - n);
		ASSERT_LT(0, ret);
		n += ret;
	}
	EXPECT_EQ(3, n);
	EXPECT_TRUE(uk_is_fault(&msg[0], at(self, 0)));
	ASSERT_EQ(UFFD_EVENT_FORK, msg[1].event);
	EXPECT_TRUE(uk_is_fault(&msg[2], at(self, 4)));
	close(msg[1].arg.fork.ufd);
	ASSERT_TRUE(done(self, 2));
	EXPECT_EQ(0, uk_reap(self->t[2].ret, UK_SOON));
}

enum cause { FAULTS, REMOVES, UNMAPS, CAUSES };

TEST_F_TIMEOUT(order, any_sequence, LIMIT)
{
	unsigned long seed = new_seed(), state = seed | 1;
	enum cause cause[UNITS];
	struct uffd_msg msg[UNITS];
	int i, n = 0, ret;

	TH_LOG("UFFD_SEED=%lu", seed);
	for (i = 0; i < UNITS; i++) {
		cause[i] = next_random(&state) % CAUSES;
		switch (cause[i]) {
		case FAULTS:
			ASSERT_TRUE(faults(self, i));
			break;
		case REMOVES:
			ASSERT_TRUE(removes(self, i));
			break;
		default:
			ASSERT_TRUE(unmaps(self, i));
			break;
		}
	}
	while (n < UNITS) {
		ret = 1 + next_random(&state) % 4;
		ret = uk_read(self->fd, msg + n, ret < UNITS - n ? ret :
			      UNITS - n);
		ASSERT_LT(0, ret);
		n += ret;
	}
	for (i = 0; i < UNITS; i++) {
		if (cause[i] == FAULTS) {
			EXPECT_TRUE(uk_is_fault(&msg[i], at(self, i)));
			UK_EXPECT_FILL(0, self->unit, copy(self, i));
		} else if (cause[i] == REMOVES) {
			EXPECT_TRUE(is_remove(self, &msg[i], i));
		} else {
			EXPECT_TRUE(is_unmap(self, &msg[i], i));
		}
	}
	EXPECT_TRUE(all_done(self, UNITS));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, msg, 1));
}

/* What is refused. */

TEST_F_TIMEOUT(order, remove_refuses_its_range, LIMIT)
{
	struct uffd_msg msg;
	struct uk_fill fill;

	ASSERT_TRUE(removes(self, 3));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 3));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 4));
	UK_EXPECT_FILL(0, self->unit,
		       uk_zero(self->fd, at(self, 5), self->unit, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN,
		       uk_zero(self->fd, at(self, 3), self->unit, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 2));

	/* Part of it is enough. */
	ASSERT_TRUE(removes(self, 8));
	fill = uk_copy(self->fd, at(self, 6), self->src, 4 * self->unit, 0);
	EXPECT_EQ(-EAGAIN, fill.err);
	EXPECT_TRUE(fill.out == -EAGAIN || fill.out == 2 * (__s64)self->unit);
	UK_EXPECT_FILL(0, self->unit, copy(self, 10));

	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 3));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 8));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(is_remove(self, &msg, 8));
	UK_EXPECT_FILL(0, self->unit, copy(self, 8));
	EXPECT_TRUE(done(self, 3));
	EXPECT_TRUE(done(self, 8));
}

TEST_F_TIMEOUT(order, unmap_refuses_its_range, LIMIT)
{
	struct uffd_msg msg;

	ASSERT_TRUE(unmaps(self, 3));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 3));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 4));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(is_unmap(self, &msg, 3));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, copy(self, 3));
	UK_EXPECT_FILL(0, self->unit, copy(self, 5));
	EXPECT_TRUE(done(self, 3));
}

TEST_F_TIMEOUT(order, remap_and_fork_refuse_everything, LIMIT)
{
	char *to = uk_reserve(self->unit, self->unit);
	struct uffd_msg msg;

	ASSERT_NE(NULL, to);
	ASSERT_TRUE(remaps(self, 3, to));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 8));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(uk_is_remap(&msg, at(self, 3), to, self->unit));
	/* The UNMAP that follows is about the old place. */
	UK_EXPECT_FILL(0, self->unit, copy(self, 8));
	UK_EXPECT_FILL(0, self->unit,
		       uk_copy(self->fd, to, self->src, self->unit, 0));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(is_unmap(self, &msg, 3));
	EXPECT_TRUE(done(self, 3));
	if (geteuid())
		return;

	ASSERT_TRUE(forks(self, 4));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 9));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
	UK_EXPECT_FILL(0, self->unit, copy(self, 9));
	close(msg.arg.fork.ufd);
	ASSERT_TRUE(done(self, 4));
	EXPECT_EQ(0, uk_reap(self->t[4].ret, UK_SOON));
}

/* The one who reads may fill, whether or not the caller has run since. */

#define ROUNDS 1000

static int turn;

static long remove_often(void *arg)
{
	struct order_test *self = arg;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		/* No other event before the fill has been tried. */
		while (uk_get(&turn) <= i)
			sched_yield();
		if (madvise(at(self, 1), self->unit, MADV_DONTNEED))
			return -errno;
	}
	return 0;
}

TEST_F_TIMEOUT(order, refusal_ends_with_the_read, LIMIT)
{
	int i, refused = 0, other = 0;
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	ASSERT_EQ(0, uk_start(&t, remove_often, self));
	for (i = 0; i < ROUNDS; i++) {
		struct uk_fill fill;

		uk_set(&turn, i + 1);
		ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
		/* It may be there still: the drop comes after the event. */
		fill = copy(self, 1);
		if (fill.err == -EAGAIN)
			refused++;
		else if (fill.err && fill.err != -EEXIST)
			other++;
		ASSERT_TRUE(is_remove(self, &msg, 1));
	}
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
	EXPECT_EQ(0, refused);
	EXPECT_EQ(0, other);
}

static long remap_often(void *arg)
{
	struct order_test *self = arg;
	int i, flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	for (i = 0; i < ROUNDS; i++) {
		char *from = at(self, i & 1 ? 3 : 1);
		char *to = at(self, i & 1 ? 1 : 3);

		if (mremap(from, self->unit, self->unit, flags, to) != to)
			return -errno;
	}
	return 0;
}

TEST_F_TIMEOUT(order, refusal_ends_with_the_read_of_a_remap, LIMIT)
{
	int i, refused = 0, other = 0;
	struct uk_thread t;
	struct uffd_msg msg;

	/* One place is free, the page goes to and fro. */
	ASSERT_TRUE(unmaps(self, 3));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	ASSERT_TRUE(done(self, 3));
	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	ASSERT_EQ(0, uk_start(&t, remap_often, self));
	for (i = 0; i < ROUNDS; i++) {
		struct uk_fill fill;

		ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
		ASSERT_EQ(UFFD_EVENT_REMAP, msg.event);
		fill = copy(self, 8);
		if (fill.err == -EAGAIN)
			refused++;
		else if (fill.err && fill.err != -EEXIST)
			other++;
		ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
		ASSERT_EQ(UFFD_EVENT_UNMAP, msg.event);
	}
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
	EXPECT_EQ(0, refused);
	EXPECT_EQ(0, other);
}

/* Growing, a locked mapping is populated: after the event, not before. */
TEST_F_TIMEOUT(order, remap_of_locked_memory_that_grows, LIMIT)
{
	size_t old = 2 * self->unit, new = 4 * self->unit;
	char *to = uk_reserve(new, self->unit);
	struct uffd_msg msg;
	int i;

	ASSERT_NE(NULL, to);
	UK_ASSERT_FILL(0, self->unit, copy(self, 0));
	UK_ASSERT_FILL(0, self->unit, copy(self, 1));
	if (mlock(self->m.area, old))
		SKIP(return, "mlock: %s", strerror(errno));
	self->call[0] = (struct uk_call){
		.nr = __NR_mremap,
		.arg = { (unsigned long)self->m.area, old, new,
			 MREMAP_MAYMOVE | MREMAP_FIXED, (unsigned long)to },
	};
	ASSERT_EQ(0, uk_start(&self->t[0], uk_call, &self->call[0]));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_TRUE(uk_is_remap(&msg, self->m.area, to, old));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, self->m.area,
			       self->m.area + old));
	for (i = 2; i < 4; i++) {
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_fault(&msg, to + i * self->unit));
		UK_ASSERT_FILL(0, self->unit,
			       uk_copy(self->fd, to + i * self->unit,
				       self->src, self->unit, 0));
	}
	ASSERT_TRUE(done(self, 0));
	EXPECT_EQ((long)to, self->t[0].ret);
}

/* An munmap() that fails has not happened: the handler does not hear of it. */
TEST_F_TIMEOUT(order, failed_unmap_is_not_told, LIMIT)
{
	struct uffd_msg msg;

	if (syscall(__NR_mseal, at(self, 8), self->unit, 0UL))
		SKIP(return, "mseal: %s", strerror(errno));
	self->call[0] = (struct uk_call){
		.nr = __NR_munmap,
		.arg = { (unsigned long)at(self, 7), 3 * self->unit },
	};
	ASSERT_EQ(0, uk_start(&self->t[0], uk_call, &self->call[0]));
	ASSERT_TRUE(done(self, 0));
	EXPECT_EQ(-EPERM, self->t[0].ret);
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 7));
	UK_EXPECT_FILL(0, self->unit, copy(self, 9));
}

/* What could not be delivered. */

TEST_F_TIMEOUT(order, failed_read_loses_nothing, LIMIT)
{
	size_t page = getpagesize();
	struct uffd_msg msg[4], *edge;
	char *p = uk_buffer(2 * page);

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, mprotect(p + page, page, PROT_NONE));
	edge = (void *)(p + page - sizeof(*edge));

	ASSERT_TRUE(faults(self, 0));
	ASSERT_TRUE(removes(self, 1));
	ASSERT_TRUE(faults(self, 2));
	ASSERT_TRUE(faults(self, 3));

	EXPECT_EQ(-EFAULT, uk_read(self->fd, (void *)(p + page), 1));
	EXPECT_EQ(-EFAULT, uk_read(self->fd, (void *)(p + page), 4));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	EXPECT_TRUE(uk_parked(self->fd, 3, 3));

	/* Half a message is none. */
	EXPECT_EQ(-1, read(self->fd, (char *)edge + 8, sizeof(*edge)));
	EXPECT_EQ(EFAULT, errno);

	/* Room for one of several: the others are not read. */
	ASSERT_EQ(1, uk_read(self->fd, edge, 4));
	EXPECT_TRUE(uk_is_fault(edge, at(self, 0)));
	EXPECT_TRUE(uk_parked(self->fd, 2, 3));
	EXPECT_TRUE(uk_stays(&self->t[1]));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 1));

	ASSERT_EQ(3, uk_read(self->fd, msg, 4));
	EXPECT_TRUE(is_remove(self, &msg[0], 1));
	EXPECT_TRUE(uk_is_fault(&msg[1], at(self, 2)));
	EXPECT_TRUE(uk_is_fault(&msg[2], at(self, 3)));
	UK_EXPECT_FILL(0, self->unit, copy(self, 1));
	EXPECT_TRUE(done(self, 1));
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	if (!dir)
		return -1;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

TEST_F_TIMEOUT(order, failed_read_of_a_fork, LIMIT)
{
	struct uffd_msg msg[2];
	int fds;

	if (geteuid())
		SKIP(return, "needs root, for fork events");
	fds = count_fds();
	ASSERT_TRUE(forks(self, 0));
	EXPECT_EQ(-EFAULT, uk_read(self->fd, (void *)8, 1));
	EXPECT_EQ(-EFAULT, uk_read(self->fd, (void *)8, 2));
	EXPECT_EQ(fds, count_fds());
	EXPECT_TRUE(uk_stays(&self->t[0]));
	ASSERT_EQ(1, uk_read(self->fd, msg, 2));
	ASSERT_EQ(UFFD_EVENT_FORK, msg[0].event);
	EXPECT_EQ(fds + 1, count_fds());
	close(msg[0].arg.fork.ufd);
	ASSERT_TRUE(done(self, 0));
	EXPECT_EQ(0, uk_reap(self->t[0].ret, UK_SOON));
}

/* Killed callers. */

struct caller {
	struct order_test *self;
	int sock;
};

static int unmap_and_wait(void *arg)
{
	struct caller *c = arg;
	int fd = uk_new(O_CLOEXEC | O_NONBLOCK, UNMAP);

	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_register(fd, c->self->m.area, c->self->m.len));
	UK_CHECK(!uk_send_fd(c->sock, fd));
	munmap(at(c->self, 2), c->self->unit);
	return 0;
}

TEST_F_TIMEOUT(order, killed_process_leaves_its_event, LIMIT)
{
	struct caller c = { .self = self };
	struct uffd_msg msg;
	int sv[2], fd;
	pid_t pid;

	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	c.sock = sv[1];
	pid = uk_spawn(unmap_and_wait, &c);
	ASSERT_LT(0, pid);
	fd = uk_recv_fd(sv[0]);
	ASSERT_LE(0, fd);
	ASSERT_EQ(POLLIN, uk_poll(fd, UK_SOON));
	uk_sleep(5);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(128 + SIGKILL, uk_reap(pid, UK_SOON));

	EXPECT_EQ(POLLIN, uk_poll(fd, 0));
	ASSERT_EQ(1, uk_read(fd, &msg, 1));
	EXPECT_TRUE(is_unmap(self, &msg, 2));
	EXPECT_EQ(-EAGAIN, uk_read(fd, &msg, 1));
	close(fd);
}

static int remove_and_wait(void *arg)
{
	struct order_test *self = arg;

	madvise(at(self, 2), self->unit, MADV_DONTNEED);
	return 0;
}

/* The same when the memory lives on, in another process. */
TEST_F_TIMEOUT(order, killed_sharer_leaves_its_event, LIMIT)
{
	char *stack = uk_buffer(65536);
	struct uffd_msg msg;
	pid_t pid;

	ASSERT_NE(NULL, stack);
	ASSERT_TRUE(faults(self, 0));
	pid = clone(remove_and_wait, stack + 65536, CLONE_VM | SIGCHLD, self);
	ASSERT_LT(0, pid);
	/* Until it waits, as far as can be told from outside. */
	uk_sleep(10 * UK_PAUSE);
	ASSERT_TRUE(faults(self, 4));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(128 + SIGKILL, uk_reap(pid, UK_SOON));

	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 6));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 0)));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(is_remove(self, &msg, 2));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 4)));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
}

struct crowd {
	struct order_test *self;
	unsigned int threads;
	unsigned int begun;
};

static int remove_once(void *arg)
{
	struct crowd *c = arg;

	uk_add(&c->begun, 1);
	return madvise(at(c->self, 2), c->self->unit, MADV_DONTNEED);
}

/* A process of many threads, all of which wait for the same event to be read. */
static int remove_by_many(void *arg)
{
	struct crowd *c = arg;
	char *stack = uk_reserve(c->threads * 16384UL, 4096);
	unsigned int i;

	if (!stack || mprotect(stack, c->threads * 16384UL,
			       PROT_READ | PROT_WRITE))
		return 1;
	for (i = 1; i <= c->threads; i++)
		if (clone(remove_once, stack + i * 16384UL,
			  CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, c) < 0)
			return 1;
	for (;;)
		pause();
}

/* Kills them all while they wait; each leaves its event behind. */
static bool abandon(struct order_test *self, unsigned int threads)
{
	struct crowd c = { .self = self, .threads = threads };
	char *stack = uk_buffer(65536);
	long long until = uk_now() + UK_SOON;
	pid_t pid;

	pid = clone(remove_by_many, stack + 65536, CLONE_VM | SIGCHLD, &c);
	if (pid < 0)
		return false;
	while (uk_get(&c.begun) < threads && uk_now() < until)
		uk_sleep(1);
	/* The last ones are about to make the call. */
	uk_sleep(2 * UK_PAUSE);
	kill(pid, SIGKILL);
	munmap(stack, 65536);
	return uk_reap(pid, UK_SOON) == 128 + SIGKILL &&
	       uk_get(&c.begun) == threads;
}

/*
 * Events that nobody waits for are bounded: what would cause another one fails,
 * before it changes anything, until some have been read.
 */
TEST_F_TIMEOUT(order, abandoned_events_are_bounded, 6 * LIMIT)
{
	char *there = uk_reserve(self->unit, self->unit);
	struct uffd_msg msg[64];
	unsigned char in_core;
	unsigned int i;
	int got;

	ASSERT_NE(NULL, there);
	for (i = 0; i < 16; i++)
		ASSERT_TRUE(abandon(self, 256));
	UK_EXPECT_FILL(0, self->unit, copy(self, 0));

	EXPECT_EQ(-1, madvise(at(self, 0), self->unit, MADV_DONTNEED));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, munmap(at(self, 0), self->unit));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(MAP_FAILED, mremap(at(self, 0), self->unit, self->unit,
				     MREMAP_MAYMOVE | MREMAP_FIXED, there));
	EXPECT_EQ(ENOMEM, errno);
	/* Nor has the destination been unmapped. */
	EXPECT_EQ(0, mincore(there, 1, &in_core));
	if (!geteuid())
		EXPECT_EQ(-ENOMEM, uk_spawn_by_thread(nothing, NULL, 0));
	/* Nothing has changed, and what concerns nobody goes on. */
	EXPECT_TRUE(uk_painted(at(self, 0), self->unit, 1));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 4));

	/* One that is read makes room for one. */
	ASSERT_EQ(1, uk_read(self->fd, msg, 1));
	EXPECT_TRUE(is_remove(self, &msg[0], 2));
	ASSERT_TRUE(removes(self, 5));
	for (i = 1; i <= 16 * 256; i += got) {
		got = uk_read(self->fd, msg, 64);
		ASSERT_LT(0, got);
		EXPECT_TRUE(is_remove(self, &msg[0], i < 16 * 256 ? 2 : 5));
	}
	EXPECT_TRUE(done(self, 5));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
}

/* Arguments that cannot be, while an event is unread: read on, all the same. */
TEST_F_TIMEOUT(order, bad_arguments_and_an_unread_event, LIMIT)
{
	struct uffdio_writeprotect wp = {};
	struct uffd_msg msg;
	size_t unit = self->unit;
	char *p = at(self, 4);

	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_copy(self->fd, p, p, 0, 0));
	ASSERT_TRUE(removes(self, 1));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, uk_copy(self->fd, NULL, NULL, 0, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, uk_zero(self->fd, NULL, 0, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, uk_continue(self->fd, NULL, 0, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, uk_poison(self->fd, NULL, 0, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, uk_move(self->fd, NULL, NULL, 0, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN,
		       uk_copy(self->fd, p, self->src, unit, ~0ULL));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN,
		       uk_zero(self->fd, p + 1, unit, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN,
		       uk_poison(self->fd, UK_KERNEL_SPACE, unit, 0));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_WRITEPROTECT, &wp));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_WRITEPROTECT, UK_KERNEL_SPACE));
	EXPECT_EQ(EAGAIN, errno);
	/* The other calls have nothing to do with events. */
	EXPECT_EQ(-EINVAL, uk_wake(self->fd, p, 0));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, 0));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, p, 0));
	/* Nor has an answer that cannot be written. */
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_COPY, UK_KERNEL_SPACE));
	EXPECT_EQ(EFAULT, errno);

	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(done(self, 1));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_copy(self->fd, NULL, NULL, 0, 0));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_WRITEPROTECT, &wp));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_WRITEPROTECT, UK_KERNEL_SPACE));
	EXPECT_EQ(EFAULT, errno);
}

/* Of the argument nothing can be read, but the answer can be written. */
TEST_F_TIMEOUT(order, unreadable_arguments_and_an_unread_event, LIMIT)
{
	static const struct {
		unsigned long cmd;
		size_t answer;
	} calls[] = {
		{ UFFDIO_COPY, offsetof(struct uffdio_copy, copy) },
		{ UFFDIO_ZEROPAGE, offsetof(struct uffdio_zeropage, zeropage) },
		{ UFFDIO_CONTINUE, offsetof(struct uffdio_continue, mapped) },
		{ UFFDIO_POISON, offsetof(struct uffdio_poison, updated) },
		{ UFFDIO_MOVE, offsetof(struct uffdio_move, move) },
	};
	size_t page = getpagesize(), i;
	struct uffd_msg msg;
	__s64 *answer;
	char *p;

	p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, mprotect(p, page, PROT_NONE));
	answer = (__s64 *)(p + page);
	ASSERT_TRUE(removes(self, 1));
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		*answer = UK_UNSET;
		EXPECT_EQ(-1, ioctl(self->fd, calls[i].cmd,
				    p + page - calls[i].answer));
		EXPECT_EQ(EAGAIN, errno);
		EXPECT_EQ(-EAGAIN, *answer);
	}
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(done(self, 1));
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		*answer = UK_UNSET;
		EXPECT_EQ(-1, ioctl(self->fd, calls[i].cmd,
				    p + page - calls[i].answer));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(UK_UNSET, *answer);
	}
}

/*
 * What a thread has been refused for is read by another, with room for more: poll()
 * tells the one that was refused, once, and the read must not take that for its own.
 */
static long read_several(void *arg)
{
	struct order_test *self = arg;
	struct uffd_msg msg[4];

	return uk_read(self->fd, msg, 4);
}

TEST_F_TIMEOUT(order, told_to_go_on_by_the_read_of_another, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_TRUE(removes(self, 1));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 1));
	ASSERT_EQ(0, uk_start(&t, read_several, self));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	ASSERT_EQ(1, t.ret);
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	EXPECT_TRUE(done(self, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 1));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
}

/* Calls that do not wait. */

#define MANY_PAGES	(768UL << 20)

static int fork_much(void *arg)
{
	return uk_spawn_by_thread(nothing, NULL, 0) < 0;
}

/*
 * fork() of much memory takes its time, and its event holds the messages up
 * meanwhile. A call on a descriptor that does not block is refused at once, and
 * poll() tells when to try again: because of the message, or because there will
 * be none, if the one who forks is killed.
 *
 * Calls meet the held event only if they come between its first moment and the
 * last of fork(). One that comes just before has to wait for a lock of the
 * mapping: so there is a pause between two of them, and several attempts.
 */
static bool meets_held_event(struct order_test *self, char *page)
{
	struct uk_fill fill;
	long long began;

	do {
		uk_sleep(2);
		began = uk_now();
		fill = uk_copy(self->fd, page, self->src, self->unit, 0);
	} while (!fill.err || fill.err == -EEXIST);
	return fill.err == -EAGAIN && !uk_poll(self->fd, 0) &&
	       uk_now() - began <= UK_PAUSE;
}

static bool refused_during_fork(struct order_test *self, char *page,
				bool kill_it)
{
	char *stack = uk_buffer(65536);
	long long until = uk_now() + 6 * UK_SOON;
	struct uffd_msg msg;
	struct uk_fill fill;
	bool seen = false;
	pid_t pid;

	while (!seen && uk_now() < until) {
		pid = clone(fork_much, stack + 65536, CLONE_VM | SIGCHLD, NULL);
		if (pid < 0)
			return false;
		seen = meets_held_event(self, page);
		if (kill_it && seen)
			kill(pid, SIGKILL);
		if (uk_poll(self->fd, 6 * UK_SOON) != POLLIN) {
			printf("# poll() does not say when to go on\n");
			return false;
		}
		if (uk_read(self->fd, &msg, 1) == 1) {
			close(msg.arg.fork.ufd);
		} else if (!kill_it) {
			printf("# poll() told of a message that is not there\n");
			return false;
		}
		uk_reap(pid, 6 * UK_SOON);
		fill = uk_copy(self->fd, page, self->src, self->unit, 0);
		if (fill.err && fill.err != -EEXIST) {
			printf("# refused when it is over: %d\n", fill.err);
			return false;
		}
	}
	munmap(stack, 65536);
	if (!seen)
		printf("# no call has met a held event\n");
	return seen;
}

TEST_F_TIMEOUT(order, fill_does_not_wait_for_a_fork, 4 * LIMIT)
{
	char *much, *page;

	if (geteuid())
		SKIP(return, "needs root, for fork events");
	much = mmap(NULL, MANY_PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		    MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, much);
	ASSERT_EQ(0, madvise(much, MANY_PAGES, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, madvise(much, MANY_PAGES, MADV_POPULATE_WRITE));
	/* At a lower address, so that fork() comes by there first. */
	page = mmap((void *)(1UL << 32), self->unit, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ASSERT_NE(MAP_FAILED, page);
	ASSERT_LT(page, much);
	/* Dropping the page is to cause no event. */
	close(self->fd);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, FORK);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, page, self->unit));
	EXPECT_TRUE(refused_during_fork(self, page, false));
	EXPECT_TRUE(refused_during_fork(self, page, true));
	munmap(much, MANY_PAGES);
}

/*
 * The second half of a range is dropped while a long fill of it lasts. The fill does
 * not know, even when the event has been read by somebody else: what it would put
 * there after the drop would stay.
 */

#define LONG_FILL	(32UL << 20)

/* Drops a range, and reads of it. */
static bool drops(struct order_test *self, char *p, size_t len)
{
	struct uk_call drop = {
		.nr = __NR_madvise,
		.arg = { (unsigned long)p, len, MADV_DONTNEED } };
	struct uffd_msg msg;
	struct uk_thread t;

	return !uk_start(&t, uk_call, &drop) && uk_next(self->fd, &msg) == 1 &&
	       uk_is_span(&msg, UFFD_EVENT_REMOVE, p, p + len) &&
	       uk_join(&t, UK_SOON);
}

/* How much of what was dropped is there when all is over, or -errno. */
static long left_by_fill(struct order_test *self, char *p, bool *met)
{
	struct uk_job fill = { .fd = self->fd, .dst = p, .len = LONG_FILL,
			       .src = p - LONG_FILL };
	size_t half = LONG_FILL / 2;
	struct uk_thread filler;
	bool dropped;

	if (uk_start(&filler, uk_copy_job, &fill))
		return -EAGAIN;
	while (!uk_finished(&filler) && !uk_pages(p, self->unit, UK_PM_PRESENT))
		;
	dropped = drops(self, p + half, half);
	if (!uk_join(&filler, UK_SOON) || !dropped)
		return -ETIMEDOUT;
	*met = fill.res.err == -EAGAIN;
	return uk_pages(p + half, half, UK_PM_PRESENT);
}

static long fill_behind(struct order_test *self, int advice)
{
	long long until = uk_now() + 2 * UK_SOON;
	unsigned int rounds, nr_met = 0;
	long left = 0;
	char *p;

	/* The source, then what is filled. */
	p = uk_reserve(2 * LONG_FILL, uk_huge_size());
	if (!p || mprotect(p, 2 * LONG_FILL, PROT_READ | PROT_WRITE) ||
	    madvise(p, LONG_FILL, MADV_POPULATE_WRITE))
		return -ENOMEM;
	p += LONG_FILL;
	if (madvise(p, LONG_FILL, advice) ||
	    uk_register(self->fd, p, LONG_FILL))
		return -EINVAL;
	for (rounds = 0; !left && nr_met < 5 && uk_now() < until; rounds++) {
		bool met = false;

		left = left_by_fill(self, p, &met);
		nr_met += met;
		if (!drops(self, p, LONG_FILL))
			return -ETIMEDOUT;
	}
	printf("# %u of %u fills have met the event\n", nr_met, rounds);
	uk_unregister(self->fd, p, LONG_FILL);
	munmap(p - LONG_FILL, 2 * LONG_FILL);
	return left;
}

TEST_F_TIMEOUT(order, fill_behind_a_remove, 2 * LIMIT)
{
	EXPECT_EQ(0, fill_behind(self, MADV_NOHUGEPAGE));
}

TEST_F_TIMEOUT(order, huge_fill_behind_a_remove, 2 * LIMIT)
{
	if (access("/sys/kernel/mm/transparent_hugepage", F_OK))
		SKIP(return, "no huge pages in this kernel");
	EXPECT_EQ(0, fill_behind(self, MADV_HUGEPAGE));
}

/*
 * The handler that needs nothing but read().
 *
 * It knows which page is where and how often it was thrown away, by what the
 * messages say and nothing else. It fills a page with that knowledge: which
 * page, which generation. The others throw pages away, unmap them, move them,
 * fork, and look at what they get: it must never be older than they know it to
 * be, or than anybody can be who has seen their last call return.
 */

#define DROPPERS	2
#define LOOKERS		2
#define DROP_UNITS	3		/* to each dropper */

/* Where things are, in units. */
enum {
	AT_DROP = 0,
	AT_UNMAP = AT_DROP + DROPPERS * DROP_UNITS,
	AT_HERE = AT_UNMAP + 2,
	AT_THERE = AT_HERE + 2,
	AT_END = AT_THERE + 2,
	ALL_UNITS,
};

struct place {
	bool known;
	unsigned int id;		/* which page is here */
	unsigned int gen;		/* how often it was thrown away */
};

struct pending {
	unsigned int unit;
	bool wanted;			/* by a thread, not only by us */
	bool refused;
	long events;			/* seen when it was refused */
};

/* What the handler is about, for whoever finds it stuck. */
struct handler {
	struct place place[ALL_UNITS];
	struct pending queue[256];
	unsigned int head, tail;
	unsigned long rnd;
	unsigned int batch;
	bool ending;
	long messages, events, fills, refusals;
	/* What must not happen. */
	long unknown;			/* a fault before its event */
	long unfounded;			/* a refusal without an event */
	long strange;			/* any other result */
	long overflow;
	char *page;
};

/* FIXTURE_DATA(handler), by a name that reads well in a prototype. */
#define handler_test _test_data_handler

FIXTURE(handler)
{
	struct uk_mem m;
	size_t unit;
	int fd;
	bool forks;
	struct handler h;
	bool stop;
	long ops;			/* of those who throw away and move */
	/* For each page: calls begun and calls returned. */
	unsigned int begun[ALL_UNITS];
	unsigned int returned[ALL_UNITS];
};

FIXTURE_VARIANT(handler)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(handler, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(handler, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(handler, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(handler, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(handler, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(handler, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

static char *here(struct handler_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

FIXTURE_SETUP(handler)
{
	const char *why;
	unsigned int i;

	why = uk_map(&self->m, variant->kind, ALL_UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	self->forks = !geteuid();
	self->fd = uk_new(O_CLOEXEC, (self->forks ? FORK : 0) | REMAP | REMOVE |
			  UNMAP);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_NE(MAP_FAILED, mmap(here(self, AT_THERE), 2 * self->unit,
				   PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
				   MAP_FIXED | MAP_NORESERVE, -1, 0));
	ASSERT_EQ(0, uk_register(self->fd, self->m.area,
				 AT_THERE * self->unit));
	ASSERT_EQ(0, uk_register(self->fd, here(self, AT_END), self->unit));
	for (i = 0; i < ALL_UNITS; i++) {
		self->h.place[i] = (struct place){
			.known = i < AT_THERE || i == AT_END,
			.id = i,
		};
	}
	self->h.page = uk_buffer(self->unit);
	ASSERT_NE(NULL, self->h.page);
}

FIXTURE_TEARDOWN(handler)
{
	close(self->fd);
}

/* A page says at both ends what it is; between, its owner may write. */

#define GEN_BITS	(sizeof(long) * 4)

static unsigned long stamp(unsigned int id, unsigned int gen)
{
	return (unsigned long)id << GEN_BITS | gen;
}

static unsigned long *first_word(char *page)
{
	return (unsigned long *)page;
}

static unsigned long *last_word(char *page, size_t unit)
{
	return (unsigned long *)(page + unit) - 1;
}

static void want(struct handler_test *self, unsigned int unit, bool wanted)
{
	struct handler *h = &self->h;

	if (h->tail - h->head == ARRAY_SIZE(h->queue)) {
		h->overflow++;
		return;
	}
	h->queue[h->tail++ % ARRAY_SIZE(h->queue)] = (struct pending){
		.unit = unit,
		.wanted = wanted,
	};
}

static void learn(struct handler_test *self, const struct uffd_msg *msg)
{
	unsigned long area = (unsigned long)self->m.area;
	struct handler *h = &self->h;
	unsigned int i, from, to, n;

	h->messages++;
	if (msg->event != UFFD_EVENT_PAGEFAULT)
		h->events++;
	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		i = (msg->arg.pagefault.address - area) / self->unit;
		if (i == AT_END)
			h->ending = true;
		if (i >= ALL_UNITS || !h->place[i].known)
			h->unknown++;
		want(self, i, true);
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		from = (msg->arg.remove.start - area) / self->unit;
		to = (msg->arg.remove.end - area) / self->unit;
		for (i = from; i < to && i < ALL_UNITS; i++) {
			/* What has been moved away is unmapped after that. */
			if (h->place[i].known)
				h->place[i].gen++;
			else if (msg->event == UFFD_EVENT_REMOVE)
				h->unknown++;
		}
		break;
	case UFFD_EVENT_REMAP:
		from = (msg->arg.remap.from - area) / self->unit;
		to = (msg->arg.remap.to - area) / self->unit;
		n = msg->arg.remap.len / self->unit;
		for (i = 0; i < n; i++) {
			if (!h->place[from + i].known)
				h->unknown++;
			h->place[to + i] = h->place[from + i];
			h->place[from + i].known = false;
		}
		break;
	case UFFD_EVENT_FORK:
		close(msg->arg.fork.ufd);
		break;
	default:
		h->strange++;
	}
}

/* False if it is to be tried again after the next message. */
static bool act(struct handler_test *self, struct pending *p)
{
	struct handler *h = &self->h;
	struct place *place = &h->place[p->unit];
	char *addr = here(self, p->unit);
	struct uk_fill fill;

	if (!place->known) {
		/* Moved away since. Whoever waits there looks again. */
		if (p->wanted)
			uk_wake(self->fd, addr, self->unit);
		return true;
	}
	*first_word(h->page) = stamp(place->id, place->gen);
	*last_word(h->page, self->unit) = stamp(place->id, place->gen);
	fill = uk_copy(self->fd, addr, h->page, self->unit, 0);
	if (fill.err == -EAGAIN) {
		h->refusals++;
		if (fill.out != -EAGAIN)
			h->strange++;
		if (p->refused && p->events == h->events)
			return false;	/* faults come before the event */
		p->refused = true;
		p->events = h->events;
		return false;
	}
	if (p->refused && p->events == h->events)
		h->unfounded++;
	switch (fill.err) {
	case 0:
		h->fills++;
		break;
	case -EEXIST:
	case -ENOENT:
		/* Filled ahead, or unmapped, and perhaps someone waits. */
		uk_wake(self->fd, addr, self->unit);
		break;
	default:
		h->strange++;
	}
	return true;
}

static long handle(void *arg)
{
	struct handler_test *self = arg;
	struct handler *h = &self->h;
	struct uffd_msg msg[8];

	while (!h->ending || h->head != h->tail) {
		int i, n = uk_read(self->fd, msg, h->batch);

		if (n <= 0)
			return n;
		for (i = 0; i < n; i++)
			learn(self, &msg[i]);
		/* Something nobody asked for, now and then. */
		if (!h->ending && next_random(&h->rnd) % 4 == 0)
			want(self, next_random(&h->rnd) % AT_END, false);
		while (h->head != h->tail &&
		       act(self, &h->queue[h->head % ARRAY_SIZE(h->queue)]))
			h->head++;
	}
	return 0;
}

/* The others. */

struct person {
	struct handler_test *self;
	unsigned int unit;		/* where its pages begin */
	unsigned long rnd;
	long seen;			/* what was wrong with the page */
};

static int throw_away(struct handler_test *self, unsigned int unit,
		      unsigned int n)
{
	return madvise(here(self, unit), n * self->unit,
		       uk_is_shared(&self->m) ? MADV_REMOVE : MADV_DONTNEED);
}

/* Page @id is here, of exactly this generation? */
static bool is_fresh(struct handler_test *self, unsigned int unit,
		     unsigned int id, unsigned int gen)
{
	char *page = here(self, unit);

	return uk_get(first_word(page)) == stamp(id, gen) &&
	       uk_get(last_word(page, self->unit)) == stamp(id, gen);
}

/* Throws away one page or more, and looks at them. */
static long dropper(void *arg)
{
	struct person *p = arg;
	struct handler_test *self = p->self;

	while (!uk_get(&self->stop)) {
		unsigned int u = p->unit + next_random(&p->rnd) % DROP_UNITS;
		unsigned int n = 1 + next_random(&p->rnd) % DROP_UNITS;
		unsigned long mark = next_random(&p->rnd);
		unsigned int i;

		if (u + n > p->unit + DROP_UNITS)
			n = p->unit + DROP_UNITS - u;
		for (i = u; i < u + n; i++)
			uk_add(&self->begun[i], 1);
		if (throw_away(self, u, n))
			return -errno;
		for (i = u; i < u + n; i++)
			uk_add(&self->returned[i], 1);
		if (next_random(&p->rnd) % 4 == 0)
			continue;
		for (i = u; i < u + n; i++) {
			if (!is_fresh(self, i, i, self->returned[i])) {
				p->seen = *first_word(here(self, i));
				return i + 1;
			}
			uk_set(first_word(here(self, i)) + 1, mark);
		}
		/* What is written stays. */
		for (i = u; i < u + n; i++) {
			if (uk_get(first_word(here(self, i)) + 1) != mark)
				return i + 1;
		}
		uk_add(&self->ops, 1);
	}
	return 0;
}

/* Looks at what the droppers throw away. */
static long looker(void *arg)
{
	struct person *p = arg;
	struct handler_test *self = p->self;

	while (!uk_get(&self->stop)) {
		unsigned int u = next_random(&p->rnd) %
				 (DROPPERS * DROP_UNITS);
		unsigned int least = uk_get(&self->returned[u]), most;
		unsigned long a = uk_get(first_word(here(self, u)));
		unsigned long b = uk_get(last_word(here(self, u), self->unit));

		most = uk_get(&self->begun[u]);
		if (a < stamp(u, least) || b < a || b > stamp(u, most)) {
			p->seen = a;
			return u + 1;
		}
		/* There may be no more than two CPUs for all of them. */
		if (next_random(&p->rnd) % 16 == 0)
			uk_sleep(1);
	}
	return 0;
}

/* Unmaps its pages, maps new ones and registers them. */
static long unmapper(void *arg)
{
	struct person *p = arg;
	struct handler_test *self = p->self;
	int flags = uk_is_shared(&self->m) ? MAP_SHARED : MAP_PRIVATE;
	unsigned int gen = 0;

	if (uk_is_anon(&self->m))
		flags |= MAP_ANONYMOUS;
	while (!uk_get(&self->stop)) {
		char *addr = here(self, p->unit);
		size_t len = 2 * self->unit;
		unsigned int i;

		if (next_random(&p->rnd) % 2 && munmap(addr, len))
			return -errno;
		/* Otherwise the new mapping takes the place of the old. */
		if (uk_is_shared(&self->m)) {
			munmap(addr, len);
			if (fallocate(self->m.fd, FALLOC_FL_PUNCH_HOLE |
				      FALLOC_FL_KEEP_SIZE,
				      p->unit * self->unit, len))
				return -errno;
		}
		if (mmap(addr, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED,
			 self->m.fd, uk_is_anon(&self->m) ? 0 :
			 p->unit * self->unit) != addr)
			return -errno;
		gen++;
		if (uk_register(self->fd, addr, len))
			return -errno;
		if (next_random(&p->rnd) % 4 == 0)
			continue;
		for (i = p->unit; i < p->unit + 2; i++) {
			if (!is_fresh(self, i, i, gen)) {
				p->seen = *first_word(here(self, i));
				return i + 1;
			}
		}
		uk_add(&self->ops, 1);
	}
	return 0;
}

/* Moves its pages between two places, and sometimes throws one away. */
static long mover(void *arg)
{
	struct person *p = arg;
	struct handler_test *self = p->self;
	unsigned int at_unit = AT_HERE, gen[2] = { 0, 0 };
	size_t len = 2 * self->unit;

	while (!uk_get(&self->stop)) {
		unsigned int to = at_unit == AT_HERE ? AT_THERE : AT_HERE;
		unsigned int i;

		if (mremap(here(self, at_unit), len, len,
			   MREMAP_MAYMOVE | MREMAP_FIXED, here(self, to)) !=
		    here(self, to))
			return -errno;
		/* Nobody else is to settle there. */
		if (mmap(here(self, at_unit), len, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
			 MAP_FIXED, -1, 0) == MAP_FAILED)
			return -errno;
		at_unit = to;
		for (i = 0; i < 2; i++) {
			unsigned int r = next_random(&p->rnd) % 4;

			if (r == 0) {
				gen[i]++;
				if (throw_away(self, at_unit + i, 1))
					return -errno;
			}
			if (r == 1)
				continue;
			if (!is_fresh(self, at_unit + i, AT_HERE + i, gen[i])) {
				p->seen = *first_word(here(self, at_unit + i));
				return at_unit + i + 1;
			}
		}
		uk_add(&self->ops, 1);
	}
	return 0;
}

/* Forks; the child has nothing to do. */
static long forker(void *arg)
{
	struct person *p = arg;
	struct handler_test *self = p->self;

	while (self->forks && !uk_get(&self->stop)) {
		pid_t pid = uk_spawn_by_thread(nothing, NULL, 0);

		if (pid < 0)
			return pid;
		if (uk_reap(pid, UK_SOON))
			return -ECHILD;
		/* A fork refuses all fills, and a huge page takes its time. */
		uk_sleep((uk_is_hugetlb(&self->m) ? 200 : 16) +
			 next_random(&p->rnd) % 32);
	}
	return 0;
}

#define PEOPLE (DROPPERS + LOOKERS + 3)

static void say_how_it_went(struct __test_metadata *_metadata,
			    struct handler_test *self)
{
	struct handler *h = &self->h;

	TH_LOG("%ld operations, %ld messages, %ld of them events, %ld fills, %ld refusals",
	       self->ops, h->messages, h->events, h->fills, h->refusals);
}

static void live_together(struct __test_metadata *_metadata,
			  struct handler_test *self, unsigned int batch)
{
	const char *text = getenv("UFFD_SECONDS");
	unsigned long seed = new_seed();
	struct uk_thread handler, t[PEOPLE], last;
	struct person person[PEOPLE];
	struct handler *h = &self->h;
	long long end, stuck;
	long ops = -1;
	int i;

	h->batch = batch;
	h->rnd = seed * 3 + 1;
	TH_LOG("UFFD_SEED=%lu", seed);
	for (i = 0; i < PEOPLE; i++) {
		person[i] = (struct person){
			.self = self,
			.unit = i < DROPPERS ? AT_DROP + i * DROP_UNITS :
				AT_UNMAP,
			.rnd = (seed + i + 1) * 2654435761UL | 1,
		};
	}
	ASSERT_EQ(0, uk_start(&handler, handle, self));
	for (i = 0; i < PEOPLE; i++) {
		long (*fn[])(void *arg) = { dropper, dropper, looker, looker,
					    unmapper, mover, forker };

		ASSERT_EQ(0, uk_start(&t[i], fn[i], &person[i]));
	}

	end = uk_now() + (text ? atol(text) : 2) * 1000;
	stuck = uk_now() + UK_SOON;
	while (uk_now() < end) {
		uk_sleep(20);
		if (uk_get(&self->ops) != ops) {
			ops = uk_get(&self->ops);
			stuck = uk_now() + UK_SOON;
			continue;
		}
		if (uk_now() > stuck)
			break;
	}
	uk_set(&self->stop, true);
	for (i = 0; i < PEOPLE; i++) {
		ASSERT_TRUE(uk_join(&t[i], UK_SOON)) {
			say_how_it_went(_metadata, self);
			TH_LOG("stuck: %s", h->head != h->tail &&
			       h->queue[h->head % ARRAY_SIZE(h->queue)].refused ?
			       "the handler was refused and has nothing to read" :
			       "a thread was forgotten");
		}
		EXPECT_EQ(0, t[i].ret) {
			TH_LOG("thread %d saw page %ld, generation %ld", i,
			       person[i].seen >> GEN_BITS,
			       person[i].seen & ((1L << GEN_BITS) - 1));
		}
	}
	ASSERT_EQ(0, uk_start(&last, uk_peek, here(self, AT_END)));
	ASSERT_TRUE(uk_join(&last, UK_SOON));
	ASSERT_TRUE(uk_join(&handler, UK_SOON));
	EXPECT_EQ(0, handler.ret);
	say_how_it_went(_metadata, self);
	EXPECT_EQ(0, h->unknown);
	EXPECT_EQ(0, h->unfounded);
	EXPECT_EQ(0, h->strange);
	EXPECT_EQ(0, h->overflow);
	EXPECT_GE(h->messages + 1, h->refusals);
	EXPECT_LT(0, h->events);
	EXPECT_LT(0, h->fills);
}

/* Time for the default run; who asks for more gets more. */
#define LONG_LIMIT	3600

TEST_F_TIMEOUT(handler, one_message_a_read, LONG_LIMIT)
{
	live_together(_metadata, self, 1);
}

TEST_F_TIMEOUT(handler, several_messages_a_read, LONG_LIMIT)
{
	live_together(_metadata, self, 8);
}

TEST_HARNESS_MAIN
