// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: the write log, UFFD_FEATURE_WP_LOG and UFFDIO_LOG.
 *
 * - The first write to a protected page of any kind is told, and the writer does not
 *   wait; neighbours are one message; messages keep their place among others.
 * - Readers are woken when there are enough of them, or for something else; those in
 *   UFFDIO_EXCHANGE, too.
 * - The memory is its owner's, and there may be too little of it.
 * - A full log says so once, and loses nothing that PAGEMAP_SCAN does not know.
 * - Who reads the log, protects again and then copies ends with a true copy.
 *
 * UFFD_SECONDS=n makes the last ones run longer.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/fs.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		16
#define LIMIT		60

#define WP		UFFDIO_REGISTER_MODE_WP
#define MODE_WP		UFFDIO_WRITEPROTECT_MODE_WP
#define ASYNC		UFFD_FEATURE_WP_ASYNC
#define LOG		UFFD_FEATURE_WP_LOG
#define NOWAIT		UFFD_FEATURE_EVENT_NOWAIT
#define EXCHANGE	UFFD_FEATURE_EXCHANGE
#define REMOVE		UFFD_FEATURE_EVENT_REMOVE

/* FIXTURE_DATA(wplog), by a name that reads well in a prototype. */
#define wplog_test _test_data_wplog

FIXTURE(wplog)
{
	struct uk_mem m;
	size_t unit;
	int fd;
	struct uk_thread t[UNITS];
};

FIXTURE_VARIANT(wplog)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(wplog, anon)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(wplog, thp)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(wplog, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(wplog, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(wplog, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(wplog, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

static int set_log(int fd, __u64 size, __u64 watermark)
{
	struct uffdio_log log = { .size = size, .watermark = watermark };

	return ioctl(fd, UFFDIO_LOG, &log) ? -errno : 0;
}

FIXTURE_SETUP(wplog)
{
	const char *why;

	if (!(uk_offered() & LOG))
		SKIP(return, "this kernel has no UFFD_FEATURE_WP_LOG");
	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, REMOVE | NOWAIT | ASYNC | LOG |
			  EXCHANGE | (geteuid() ? 0 : UFFD_FEATURE_EVENT_FORK));
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len, WP,
				      NULL));
}

FIXTURE_TEARDOWN(wplog)
{
	close(self->fd);
}

static char *at(struct wplog_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

/* Writes somewhere into a unit. */
static void poke(struct wplog_test *self, unsigned int unit)
{
	uk_poke(at(self, unit) + self->unit / 2);
}

/* The whole of it, so that all pages are there. */
static void fill_all(struct wplog_test *self)
{
	size_t i;

	for (i = 0; i < self->m.len; i += 4096)
		uk_poke(self->m.area + i);
}

static int protect_all(struct wplog_test *self)
{
	return uk_protect(self->fd, self->m.area, self->m.len, MODE_WP);
}

static bool is_write(struct wplog_test *self, const struct uffd_msg *msg,
		     unsigned int first, unsigned int end)
{
	return uk_is_span(msg, UFFD_EVENT_WRITE, at(self, first), at(self, end));
}

static bool is_lost(const struct uffd_msg *msg)
{
	return uk_is_span(msg, UFFD_EVENT_WRITE_LOST, NULL, NULL);
}

static int read_all(int fd, struct uffd_msg *msg, int max)
{
	int got, n = 0;

	while (n < max && (got = uk_read(fd, msg + n, max - n)) > 0)
		n += got;
	return n;
}

TEST(handshake)
{
	struct uffdio_api api = { .api = UFFD_API, .features = ASYNC | LOG };
	struct uffdio_log log = {};
	int fd;

	if (!(uk_offered() & LOG))
		SKIP(return, "this kernel has no UFFD_FEATURE_WP_LOG");
	EXPECT_EQ(-EINVAL, uk_new(UFFD_USER_MODE_ONLY, LOG));
	fd = uk_open(UFFD_USER_MODE_ONLY);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EINVAL, set_log(fd, 0, 0));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_API, &api));
	EXPECT_TRUE(api.ioctls & UK_BIT(0x31));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_LOG, &log));
	EXPECT_EQ(4096, log.size);
	EXPECT_EQ(64, log.watermark);
	EXPECT_EQ(0, set_log(fd, 65536, 65536));
	EXPECT_EQ(-EINVAL, set_log(fd, 65537, 0));
	EXPECT_EQ(-EINVAL, set_log(fd, 0, 65537));
	/* A watermark that would be above the size goes down with it. */
	log = (struct uffdio_log){ .size = 10 };
	ASSERT_EQ(0, ioctl(fd, UFFDIO_LOG, &log));
	EXPECT_EQ(10, log.size);
	EXPECT_EQ(10, log.watermark);
	EXPECT_EQ(-EINVAL, set_log(fd, 10, 11));
	EXPECT_EQ(-1, ioctl(fd, UFFDIO_LOG, UK_KERNEL_SPACE));
	EXPECT_EQ(EFAULT, errno);
	close(fd);

	fd = uk_new(UFFD_USER_MODE_ONLY, ASYNC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EINVAL, set_log(fd, 0, 0));
	close(fd);
}

/* A memory cgroup, and a process in it that has made the descriptor. */

#define CGROUPS		"/sys/fs/cgroup/"
#define GROUP		CGROUPS "uffd-wplog/"
#define MAX_SIZE	65536
#define MIB		(1L << 20)

static const char *make_group(void)
{
	char text[256];

	if (uk_read_text(CGROUPS "cgroup.controllers", text, sizeof(text)) <= 0 ||
	    !strstr(text, "memory"))
		return "no cgroup2 with a memory controller";
	if (!uk_write_file(CGROUPS "cgroup.subtree_control", "+memory"))
		return "cgroups are not ours to use";
	if (mkdir(GROUP, 0700) && errno != EEXIST)
		return "cannot make a cgroup";
	return NULL;
}

static int owner(void *arg)
{
	int *sock = arg, fd;
	char pid[16], c;

	close(sock[0]);
	snprintf(pid, sizeof(pid), "%d", getpid());
	UK_CHECK(uk_write_file(GROUP "cgroup.procs", pid));
	fd = uk_new(O_CLOEXEC, ASYNC | LOG);
	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_send_fd(sock[1], fd));
	close(fd);
	/* Until the other end is closed. */
	return read(sock[1], &c, 1) ? 1 : 0;
}

static long charged(void)
{
	return uk_read_number(GROUP "memory.current");
}

static int caller(void *arg)
{
	int *fd = arg;
	char pid[16];
	long before;

	snprintf(pid, sizeof(pid), "%d", getpid());
	UK_CHECK(uk_write_file(GROUP "cgroup.procs", pid));
	before = charged();
	UK_CHECK(!set_log(*fd, MAX_SIZE, 0));
	UK_CHECK(charged() - before >= MAX_SIZE * 64L);
	UK_CHECK(!set_log(*fd, 16, 0));
	return 0;
}

TEST(charged_to_its_owner)
{
	int sock[2], fd;
	const char *why;
	char text[32];
	long before;
	pid_t pid;

	if (!(uk_offered() & LOG))
		SKIP(return, "this kernel has no UFFD_FEATURE_WP_LOG");
	why = make_group();
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock));
	pid = uk_spawn(owner, sock);
	ASSERT_LT(0, pid);
	close(sock[1]);
	fd = uk_recv_fd(sock[0]);
	ASSERT_LE(0, fd);

	/* 64 bytes each. */
	before = charged();
	ASSERT_EQ(0, set_log(fd, MAX_SIZE, 0));
	EXPECT_LE(MAX_SIZE * 64L, charged() - before);
	ASSERT_EQ(0, set_log(fd, 16, 0));
	EXPECT_GT(MAX_SIZE * 32L, charged() - before);

	/* No room for more: nothing changes. */
	snprintf(text, sizeof(text), "%ld", charged() + MIB);
	ASSERT_TRUE(uk_write_file(GROUP "memory.max", text));
	EXPECT_EQ(-ENOMEM, set_log(fd, MAX_SIZE, 1));
	EXPECT_TRUE(uk_write_file(GROUP "memory.max", "max"));
	EXPECT_EQ(-EINVAL, set_log(fd, 0, 17));
	EXPECT_EQ(0, set_log(fd, 0, 16));

	/* When the owner has gone it is the caller who pays, if that one is in a group. */
	close(sock[0]);
	EXPECT_EQ(0, uk_reap(pid, UK_SOON));
	EXPECT_EQ(0, uk_in_child(caller, &fd));
	close(fd);
	rmdir(GROUP);
}

TEST_F_TIMEOUT(wplog, first_write_is_told, LIMIT)
{
	struct uffd_msg msg[4];

	fill_all(self);
	EXPECT_EQ(0, read_all(self->fd, msg, 4));
	ASSERT_EQ(0, protect_all(self));
	uk_peek(at(self, 5));
	EXPECT_EQ(0, read_all(self->fd, msg, 4));
	poke(self, 3);
	poke(self, 3);
	ASSERT_EQ(1, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_write(self, &msg[0], 3, 4));
	poke(self, 3);
	EXPECT_EQ(0, read_all(self->fd, msg, 4));

	ASSERT_EQ(0, uk_protect(self->fd, at(self, 3), self->unit, MODE_WP));
	poke(self, 3);
	ASSERT_EQ(1, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_write(self, &msg[0], 3, 4));
	/* Unprotected by hand is not written. */
	ASSERT_EQ(0, uk_protect(self->fd, at(self, 7), self->unit, 0));
	poke(self, 7);
	EXPECT_EQ(0, read_all(self->fd, msg, 4));
}

/* Pages that are not there have been protected as well. */
TEST_F_TIMEOUT(wplog, absent_pages, LIMIT)
{
	struct uffd_msg msg[4];

	ASSERT_EQ(0, protect_all(self));
	EXPECT_EQ(0, uk_peek(at(self, 5)));
	EXPECT_EQ(0, read_all(self->fd, msg, 4));
	poke(self, 3);
	poke(self, 5);
	ASSERT_EQ(2, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_write(self, &msg[0], 3, 4));
	EXPECT_TRUE(is_write(self, &msg[1], 5, 6));
}

TEST_F_TIMEOUT(wplog, neighbours_are_one, LIMIT)
{
	struct uffd_msg msg[8];

	ASSERT_EQ(0, protect_all(self));
	poke(self, 4);
	poke(self, 5);
	poke(self, 6);
	poke(self, 3);
	poke(self, 9);
	poke(self, 7);
	poke(self, 8);
	ASSERT_EQ(3, read_all(self->fd, msg, 8));
	EXPECT_TRUE(is_write(self, &msg[0], 3, 7));
	EXPECT_TRUE(is_write(self, &msg[1], 9, 10));
	EXPECT_TRUE(is_write(self, &msg[2], 7, 9));
	/* Not with one that has been read. */
	poke(self, 10);
	ASSERT_EQ(1, read_all(self->fd, msg, 8));
	EXPECT_TRUE(is_write(self, &msg[0], 10, 11));
}

TEST_F_TIMEOUT(wplog, among_others, LIMIT)
{
	struct uffd_msg msg[8];

	ASSERT_EQ(0, protect_all(self));
	poke(self, 2);
	ASSERT_EQ(0, madvise(at(self, 8), self->unit, MADV_DONTNEED));
	poke(self, 3);
	/* What is logged refuses nothing; the REMOVE does, what is its. */
	EXPECT_EQ(0, uk_protect(self->fd, at(self, 2), self->unit, MODE_WP));
	EXPECT_EQ(-EAGAIN, uk_protect(self->fd, at(self, 8), self->unit, MODE_WP));
	ASSERT_EQ(3, read_all(self->fd, msg, 8));
	EXPECT_TRUE(is_write(self, &msg[0], 2, 3));
	EXPECT_TRUE(uk_is_span(&msg[1], UFFD_EVENT_REMOVE, at(self, 8),
			       at(self, 9)));
	EXPECT_TRUE(is_write(self, &msg[2], 3, 4));
}

/* By another process, too. */
TEST_F_TIMEOUT(wplog, written_from_outside, LIMIT)
{
	char byte = 1;
	struct iovec from = { &byte, 1 }, to = { at(self, 3), 1 };
	struct uffd_msg msg[4];
	pid_t parent = getpid(), pid;
	int status;

	ASSERT_EQ(0, protect_all(self));
	pid = syscall(__NR_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		syscall(__NR_exit, syscall(__NR_process_vm_writev, parent, &from,
					   1, &to, 1, 0) != 1);
	ASSERT_LT(0, pid);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	if (status)
		SKIP(return, "no process_vm_writev()");
	ASSERT_EQ(1, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_write(self, &msg[0], 3, 4));
}

TEST_F_TIMEOUT(wplog, watermark, LIMIT)
{
	struct uffd_msg msg[8];

	ASSERT_EQ(0, set_log(self->fd, 0, 3));
	ASSERT_EQ(0, protect_all(self));
	poke(self, 0);
	poke(self, 2);
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	/* Who comes gets what there is. */
	ASSERT_EQ(1, uk_read(self->fd, msg, 1));
	EXPECT_TRUE(is_write(self, &msg[0], 0, 1));
	poke(self, 4);
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	poke(self, 6);
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	ASSERT_EQ(1, uk_read(self->fd, msg, 1));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	/* One that is lower, or something else. */
	ASSERT_EQ(0, set_log(self->fd, 0, 2));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	ASSERT_EQ(0, set_log(self->fd, 0, 3));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	ASSERT_EQ(0, madvise(at(self, 8), self->unit, MADV_DONTNEED));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	EXPECT_EQ(3, read_all(self->fd, msg, 8));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
}

static long read_one(void *arg)
{
	struct uffd_msg msg;
	int *fd = arg;

	return uk_read(*fd, &msg, 1) == 1 ? msg.event : -1;
}

/* The same, by the other call that waits for messages. */
static long exchange_one(void *arg)
{
	struct uffd_msg msg;
	struct uffdio_exchange call = {
		.msgs = (unsigned long)&msg,
		.nr_msgs = 1,
		.deadline = -1,
	};
	int *fd = arg;

	return ioctl(*fd, UFFDIO_EXCHANGE, &call) == 1 ? msg.event : -1;
}

static void check_sleepers(struct __test_metadata *_metadata,
			   struct wplog_test *self, long (*wait_one)(void *fd))
{
	unsigned int i;

	ASSERT_EQ(0, set_log(self->fd, 0, 3));
	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	ASSERT_EQ(0, protect_all(self));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, uk_start(&self->t[i], wait_one, &self->fd));
		ASSERT_TRUE(uk_asleep(self->t[i].tid));
	}
	poke(self, 0);
	poke(self, 2);
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(uk_stays(&self->t[i]));
	/* It wakes one, who has room for a WRITE only, and passes it on. */
	ASSERT_EQ(0, madvise(at(self, 8), self->unit, MADV_DONTNEED));
	EXPECT_TRUE(uk_join_all(self->t, 3));
	EXPECT_EQ(2 * UFFD_EVENT_WRITE + UFFD_EVENT_REMOVE,
		  self->t[0].ret + self->t[1].ret + self->t[2].ret);

	ASSERT_EQ(0, uk_start(&self->t[0], wait_one, &self->fd));
	ASSERT_TRUE(uk_asleep(self->t[0].tid));
	poke(self, 4);
	poke(self, 6);
	EXPECT_TRUE(uk_stays(&self->t[0]));
	poke(self, 10);
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
	/* A lower watermark is a reason too. */
	ASSERT_EQ(0, set_log(self->fd, 0, 4));
	ASSERT_EQ(0, uk_start(&self->t[0], wait_one, &self->fd));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
}

TEST_F_TIMEOUT(wplog, sleepers, LIMIT)
{
	check_sleepers(_metadata, self, read_one);
}

TEST_F_TIMEOUT(wplog, sleepers_in_exchange, LIMIT)
{
	check_sleepers(_metadata, self, exchange_one);
}

static int exchange_protect(struct wplog_test *self, unsigned int one,
			    unsigned int other, struct uffd_msg *msg, int max,
			    long long deadline)
{
	struct uffdio_op ops[2] = {};
	struct uffdio_exchange call = {
		.ops = (unsigned long)ops,
		.nr_ops = 2,
		.msgs = (unsigned long)msg,
		.nr_msgs = max,
		.deadline = deadline,
	};
	int i, n;

	for (i = 0; i < 2; i++) {
		ops[i].op = _UFFDIO_WRITEPROTECT;
		ops[i].mode = MODE_WP;
		ops[i].dst = (unsigned long)at(self, i ? other : one);
		ops[i].len = self->unit;
	}
	n = ioctl(self->fd, UFFDIO_EXCHANGE, &call);
	if (ops[0].result != (__s64)self->unit ||
	    ops[1].result != (__s64)self->unit)
		return -1;
	return n;
}

/* What has been read is protected again, and what was written meanwhile comes. */
TEST_F_TIMEOUT(wplog, exchange, LIMIT)
{
	struct uffd_msg msg[4];

	fill_all(self);
	ASSERT_EQ(0, protect_all(self));
	poke(self, 3);
	poke(self, 6);
	ASSERT_EQ(2, read_all(self->fd, msg, 4));
	poke(self, 9);
	ASSERT_EQ(1, exchange_protect(self, 3, 6, msg, 4, 0));
	EXPECT_TRUE(is_write(self, &msg[0], 9, 10));
	poke(self, 6);
	poke(self, 3);
	poke(self, 9);
	ASSERT_EQ(2, exchange_protect(self, 3, 6, msg, 4, 0));
	EXPECT_TRUE(is_write(self, &msg[0], 6, 7));
	EXPECT_TRUE(is_write(self, &msg[1], 3, 4));
	EXPECT_EQ(0, exchange_protect(self, 3, 6, msg, 4, 0));
}

struct late {
	struct wplog_test *self;
	struct uffd_msg msg[4];
};

static long exchange_late(void *arg)
{
	struct late *late = arg;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return exchange_protect(late->self, 3, 6, late->msg, 4,
				(now.tv_sec + 2) * 1000000000LL + now.tv_nsec);
}

/* Too few to wake anybody are told when the time is up. */
TEST_F_TIMEOUT(wplog, exchange_in_time, LIMIT)
{
	struct late late = { .self = self };

	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	ASSERT_EQ(0, protect_all(self));
	ASSERT_EQ(0, uk_start(&self->t[0], exchange_late, &late));
	ASSERT_TRUE(uk_asleep(self->t[0].tid));
	poke(self, 2);
	poke(self, 4);
	EXPECT_TRUE(uk_stays(&self->t[0]));
	ASSERT_TRUE(uk_join(&self->t[0], UK_SOON));
	EXPECT_EQ(2, self->t[0].ret);
	EXPECT_TRUE(is_write(self, &late.msg[0], 2, 3));
	EXPECT_TRUE(is_write(self, &late.msg[1], 4, 5));
}

/* Which units does the page table call written? */
static unsigned int scan(struct wplog_test *self, unsigned int unit)
{
	struct page_region region;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (unsigned long)at(self, unit),
		.end = (unsigned long)at(self, unit + 1),
		.vec = (unsigned long)&region,
		.vec_len = 1,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	long n = ioctl(pagemap, PAGEMAP_SCAN, &arg);

	close(pagemap);
	return n == 1;
}

TEST_F_TIMEOUT(wplog, full, LIMIT)
{
	struct uffd_msg msg[16];
	unsigned int i, round;

	ASSERT_EQ(0, set_log(self->fd, 4, 4));
	for (round = 0; round < 2; round++) {
		ASSERT_EQ(0, protect_all(self));
		for (i = 0; i < 3; i++)
			poke(self, 2 * i);
		EXPECT_EQ(0, uk_poll(self->fd, 0));
		for (; i < 7; i++)
			poke(self, 2 * i);
		EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
		/* Nor may anything be added to what came before that. */
		poke(self, 7);
		EXPECT_EQ(5, read_all(self->fd, msg, 16));
		for (i = 0; i < 4; i++)
			EXPECT_TRUE(is_write(self, &msg[i], 2 * i, 2 * i + 1));
		EXPECT_TRUE(is_lost(&msg[4]));
		for (i = 4; i < 7; i++)
			EXPECT_EQ(1, scan(self, 2 * i));
		EXPECT_EQ(0, scan(self, 1));
		/* Once read there is room again. */
		poke(self, 14);
		ASSERT_EQ(1, read_all(self->fd, msg, 16));
		EXPECT_TRUE(is_write(self, &msg[0], 14, 15));
	}
}

/* LOST alone wakes, whatever the watermark, and keeps its place. */
TEST_F_TIMEOUT(wplog, lost_wakes, LIMIT)
{
	struct uffd_msg msg[8];

	ASSERT_EQ(0, set_log(self->fd, 1, 1));
	ASSERT_EQ(0, protect_all(self));
	poke(self, 0);
	poke(self, 2);
	ASSERT_EQ(1, uk_read(self->fd, msg, 1));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	EXPECT_EQ(-EFAULT, uk_read(self->fd, UK_KERNEL_SPACE, 1));
	/* While it is unread no other one is needed. */
	poke(self, 4);
	poke(self, 6);
	EXPECT_EQ(-EFAULT, uk_read(self->fd, UK_KERNEL_SPACE, 4));
	ASSERT_EQ(2, read_all(self->fd, msg, 8));
	EXPECT_TRUE(is_lost(&msg[0]));
	EXPECT_TRUE(is_write(self, &msg[1], 4, 5));
	EXPECT_EQ(1, scan(self, 6));
}

TEST_F_TIMEOUT(wplog, bad_buffer, LIMIT)
{
	char *page = uk_reserve(8192, 4096);
	struct uffd_msg msg[8], *half;

	ASSERT_NE(NULL, page);
	ASSERT_EQ(0, mprotect(page, 4096, PROT_READ | PROT_WRITE));
	half = (struct uffd_msg *)(page + 4096 - sizeof(*half) * 3 / 2);
	ASSERT_EQ(0, set_log(self->fd, 8, 3));
	ASSERT_EQ(0, protect_all(self));
	poke(self, 0);
	poke(self, 2);
	poke(self, 4);
	EXPECT_EQ(-EFAULT, uk_read(self->fd, UK_KERNEL_SPACE, 4));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	/* Somebody's they are still. */
	EXPECT_EQ(-EBUSY, set_log(self->fd, 16, 0));
	ASSERT_EQ(1, uk_read(self->fd, half, 3));
	EXPECT_TRUE(is_write(self, half, 0, 1));
	poke(self, 5);
	ASSERT_EQ(2, read_all(self->fd, msg, 8));
	EXPECT_TRUE(is_write(self, &msg[0], 2, 3));
	EXPECT_TRUE(is_write(self, &msg[1], 4, 6));
	EXPECT_EQ(0, set_log(self->fd, 16, 0));
}

struct slow_read {
	int fd;
	struct uffd_msg *msg;
};

static long read_slowly(void *arg)
{
	struct slow_read *r = arg;

	return uk_read(r->fd, r->msg, 2);
}

/* A reader has taken them, and waits for the page that its buffer is in. */
TEST_F_TIMEOUT(wplog, size_while_a_reader_has_them, LIMIT)
{
	size_t page = sysconf(_SC_PAGESIZE);
	struct slow_read r = { .fd = self->fd };
	struct uk_thread *t = &self->t[0];
	struct uffd_msg msg[4];
	int pager;

	r.msg = (struct uffd_msg *)uk_buffer(page);
	ASSERT_NE(NULL, r.msg);
	ASSERT_EQ(0, madvise(r.msg, page, MADV_DONTNEED));
	pager = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, pager);
	ASSERT_EQ(0, uk_register(pager, r.msg, page));

	ASSERT_EQ(0, set_log(self->fd, 8, 1));
	ASSERT_EQ(0, protect_all(self));
	poke(self, 0);
	poke(self, 2);
	ASSERT_EQ(0, uk_start(t, read_slowly, &r));
	ASSERT_TRUE(uk_parked(pager, 1, 1));
	/* There is nothing left to read, but the log is in use. */
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	EXPECT_EQ(-EBUSY, set_log(self->fd, 16, 0));
	EXPECT_EQ(0, set_log(self->fd, 8, 2));
	/* Nor does what comes meanwhile belong to another one. */
	poke(self, 4);
	UK_EXPECT_FILL(0, page, uk_zero(pager, r.msg, page, 0));
	ASSERT_TRUE(uk_join(t, UK_SOON));
	ASSERT_EQ(2, t->ret);
	EXPECT_TRUE(is_write(self, &r.msg[0], 0, 1));
	EXPECT_TRUE(is_write(self, &r.msg[1], 2, 3));
	EXPECT_EQ(-EBUSY, set_log(self->fd, 16, 0));
	ASSERT_EQ(1, read_all(self->fd, msg, 4));
	EXPECT_TRUE(is_write(self, &msg[0], 4, 5));
	EXPECT_EQ(0, set_log(self->fd, 16, 0));
	close(pager);
}

TEST_F_TIMEOUT(wplog, close_with_unread, LIMIT)
{
	struct uffd_msg msg[4];

	ASSERT_EQ(0, protect_all(self));
	poke(self, 0);
	ASSERT_EQ(0, madvise(at(self, 8), self->unit, MADV_DONTNEED));
	poke(self, 2);
	close(self->fd);
	poke(self, 4);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, ASYNC | LOG);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len, WP,
				      NULL));
	poke(self, 6);
	EXPECT_EQ(0, read_all(self->fd, msg, 4));
}

/* In the child: system calls and stores only. */
static int write_and_leave(void *arg)
{
	struct wplog_test *self = arg;

	poke(self, 5);
	poke(self, 7);
	return 0;
}

static long spawn(void *arg)
{
	return uk_spawn_by_thread(write_and_leave, arg, 0);
}

/* Each of the two has its own. */
TEST_F_TIMEOUT(wplog, child, LIMIT)
{
	struct uffdio_log log = {};
	struct uffd_msg msg[8];
	int fd;

	if (geteuid())
		SKIP(return, "needs root, for fork events");
	ASSERT_EQ(0, set_log(self->fd, 9, 3));
	fill_all(self);
	ASSERT_EQ(0, protect_all(self));
	poke(self, 1);
	ASSERT_EQ(0, uk_start(&self->t[0], spawn, self));
	ASSERT_TRUE(uk_asleep(self->t[0].tid));
	poke(self, 3);
	ASSERT_EQ(3, read_all(self->fd, msg, 8));
	EXPECT_TRUE(is_write(self, &msg[0], 1, 2));
	ASSERT_EQ(UFFD_EVENT_FORK, msg[1].event);
	EXPECT_TRUE(is_write(self, &msg[2], 3, 4));
	fd = msg[1].arg.fork.ufd;
	ASSERT_TRUE(uk_join(&self->t[0], UK_SOON));
	EXPECT_EQ(0, uk_reap(self->t[0].ret, UK_SOON));
	ASSERT_EQ(2, read_all(fd, msg, 8));
	EXPECT_TRUE(is_write(self, &msg[0], 5, 6));
	EXPECT_TRUE(is_write(self, &msg[1], 7, 8));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_LOG, &log));
	EXPECT_EQ(9, log.size);
	EXPECT_EQ(3, log.watermark);
	EXPECT_EQ(0, read_all(self->fd, msg, 8));
	close(fd);
}

/*
 * A fork() copies one mapping after the other. What a thread writes meanwhile into one
 * that comes late is in the child's memory, so it has to be told of before the FORK.
 */
/* They are absent, and the markers that protect them keep it busy for a while. */
#define EARLY_PAGES	131072
#define LATE_PAGES	512
#define ROUNDS		6

struct fork_race {
	char *area;
	size_t page;
	unsigned int written;
	bool over;
	int pipe[2];
};

static long late_writer(void *arg)
{
	struct fork_race *l = arg;
	unsigned int i;

	for (i = 0; i < LATE_PAGES && !uk_get(&l->over); i++) {
		uk_poke(l->area + i * l->page);
		uk_set(&l->written, i + 1);
		usleep(1);
	}
	return 0;
}

/* System calls only, as above: sends what its page tables say. */
static int late_child(void *arg)
{
	static __u64 entry[LATE_PAGES];
	struct fork_race *l = arg;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0)
		return 1;
	if (pread(fd, entry, sizeof(entry), (unsigned long)l->area / l->page * 8) !=
	    sizeof(entry))
		return 2;
	return write(l->pipe[1], entry, sizeof(entry)) != sizeof(entry);
}

static long late_fork(void *arg)
{
	return uk_spawn_by_thread(late_child, arg, 0);
}

/* Reads up to the FORK, whose descriptor it returns; notes the pages named before. */
static int read_to_fork(int fd, struct fork_race *l, bool *named)
{
	struct uffd_msg msg;
	__u64 a;

	for (;;) {
		if (uk_next(fd, &msg) != 1)
			return -1;
		if (msg.event == UFFD_EVENT_FORK)
			return msg.arg.fork.ufd;
		for (a = msg.arg.remove.start; a < msg.arg.remove.end; a += l->page)
			named[(a - (uintptr_t)l->area) / l->page] = true;
	}
}

static unsigned int missed(const struct fork_race *l, const bool *named)
{
	static __u64 entry[LATE_PAGES];
	unsigned int i, n = 0;

	if (read(l->pipe[0], entry, sizeof(entry)) != sizeof(entry))
		return LATE_PAGES + 1;
	for (i = 0; i < LATE_PAGES; i++)
		n += !(entry[i] & UK_PM_WP) && !named[i];
	return n;
}

TEST_F_TIMEOUT(wplog, written_while_it_forks, LIMIT)
{
	size_t page = sysconf(_SC_PAGESIZE), early = EARLY_PAGES * page;
	struct fork_race l = { .page = page };
	struct uk_thread w, t;
	struct uffd_msg msg;
	unsigned int round;
	int fd, child;
	char *area;

	if (variant->kind != UK_ANON_SMALL)
		SKIP(return, "once is enough");
	if (geteuid())
		SKIP(return, "needs root, for fork events");
	/* A fork() would wait for its reader as well. */
	close(self->fd);
	self->fd = -1;
	fd = uk_new(O_CLOEXEC | O_NONBLOCK,
		    ASYNC | LOG | UFFD_FEATURE_EVENT_FORK);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(l.pipe));
	area = uk_reserve(early + (LATE_PAGES + 1) * page, page);
	ASSERT_NE(NULL, area);
	/* A page between them keeps them two mappings. */
	l.area = area + early + page;
	ASSERT_EQ(0, mprotect(area, early, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, mprotect(l.area, LATE_PAGES * page, PROT_READ | PROT_WRITE));
	madvise(area, early, MADV_NOHUGEPAGE);
	madvise(l.area, LATE_PAGES * page, MADV_NOHUGEPAGE);
	memset(l.area, 1, LATE_PAGES * page);
	ASSERT_EQ(0, uk_register_mode(fd, area, early, WP, NULL));
	ASSERT_EQ(0, uk_register_mode(fd, l.area, LATE_PAGES * page, WP, NULL));

	for (round = 0; round < ROUNDS; round++) {
		bool named[LATE_PAGES] = {};

		ASSERT_EQ(0, uk_protect(fd, area, early, MODE_WP));
		ASSERT_EQ(0, uk_protect(fd, l.area, LATE_PAGES * page, MODE_WP));
		uk_set(&l.over, false);
		uk_set(&l.written, 0);
		ASSERT_EQ(0, uk_start(&w, late_writer, &l));
		/* It is to be at it when the fork() begins. */
		while (!uk_get(&l.written))
			usleep(1);
		ASSERT_EQ(0, uk_start(&t, late_fork, &l));
		child = read_to_fork(fd, &l, named);
		ASSERT_LE(0, child);
		EXPECT_EQ(0, missed(&l, named));
		uk_set(&l.over, true);
		ASSERT_TRUE(uk_join(&w, UK_SOON));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		EXPECT_EQ(0, uk_reap(t.ret, UK_SOON));
		close(child);
		while (uk_read(fd, &msg, 1) == 1)
			;
	}
	close(fd);
}

/*
 * Writers write, one drains, protects and copies, one forks and drops pages. When the
 * writers have stopped the copy must be equal to the memory.
 *
 * A page that was dropped is not protected any more, and nobody is told of writes to it.
 * Whoever has dropped it says so when it is done, and it is protected and copied again.
 * That is not in the log: when REMOVE is read the page may still be there.
 */

#define WRITERS		3

struct mirror {
	struct wplog_test *self;
	char *copy;
	bool *again;		/* units to be protected and copied once more */
	bool over;
	unsigned long writes;
	unsigned long told;
	unsigned long lost;
	unsigned long removed;
	unsigned long forks;
	const char *wrong;
};

struct writer {
	struct mirror *m;
	unsigned int nr;
};

static long writer(void *arg)
{
	struct writer *w = arg;
	struct wplog_test *self = w->m->self;
	unsigned long x = 88172645463325252UL + w->nr, n = 0;
	unsigned int *p;

	while (!uk_get(&w->m->over)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		/* A word of this writer's own, in any page. */
		p = (unsigned int *)(self->m.area +
				     x % (self->m.len / 64) * 64) + w->nr;
		uk_set(p, ++n);
	}
	uk_add(&w->m->writes, n);
	return 0;
}

static void copy_range(struct mirror *m, __u64 start, __u64 end)
{
	struct wplog_test *self = m->self;
	char *from = (char *)(uintptr_t)start;
	size_t off = from - self->m.area, i;
	int err;

	err = uk_protect(self->fd, from, end - start, MODE_WP);
	/* A REMOVE has come meanwhile, and is to be read first. */
	if (err == -EAGAIN) {
		for (i = off / self->unit; i * self->unit < off + end - start; i++)
			uk_set(&m->again[i], true);
	} else if (err) {
		m->wrong = "protect";
	} else {
		memcpy(m->copy + off, from, end - start);
	}
}

static void drain_messages(struct mirror *m)
{
	struct wplog_test *self = m->self;
	struct uffd_msg msg[32];
	__u64 area = (uintptr_t)self->m.area;
	int i, n;

	while ((n = uk_read(self->fd, msg, 32)) > 0) {
		for (i = 0; i < n; i++) {
			__u64 start = msg[i].arg.remove.start;
			__u64 end = msg[i].arg.remove.end;

			switch (msg[i].event) {
			case UFFD_EVENT_WRITE:
				m->told++;
				copy_range(m, start, end);
				break;
			case UFFD_EVENT_WRITE_LOST:
				m->lost++;
				copy_range(m, area, area + self->m.len);
				break;
			case UFFD_EVENT_REMOVE:
				m->removed++;
				break;
			case UFFD_EVENT_FORK:
				m->forks++;
				close(msg[i].arg.fork.ufd);
				break;
			default:
				m->wrong = "message";
			}
		}
	}
}

static void drain(struct mirror *m)
{
	struct wplog_test *self = m->self;
	unsigned int i;

	drain_messages(m);
	for (i = 0; i < self->m.units; i++) {
		if (!uk_get(&m->again[i]))
			continue;
		uk_set(&m->again[i], false);
		copy_range(m, (uintptr_t)at(self, i), (uintptr_t)at(self, i + 1));
	}
}

static int leave(void *arg)
{
	return 0;
}

static long disturb(void *arg)
{
	struct mirror *m = arg;
	struct wplog_test *self = m->self;
	unsigned int i, unit;

	for (i = 0; !uk_get(&m->over); i++) {
		if (i % 4 == 0 && uk_reap(uk_spawn_by_thread(leave, NULL, 0), UK_SOON))
			return 1;
		unit = i % self->m.units;
		if (madvise(at(self, unit), self->unit, MADV_DONTNEED))
			return 2;
		uk_set(&m->again[unit], true);
		uk_sleep(10);
	}
	return 0;
}

static void mirror_memory(struct __test_metadata *_metadata,
			  struct wplog_test *self, unsigned int size)
{
	const char *seconds = getenv("UFFD_SECONDS");
	struct mirror m = { .self = self };
	struct writer w[WRITERS];
	struct uk_thread t[WRITERS + 1];
	long long until;
	size_t i;

	m.copy = uk_buffer(self->m.len);
	m.again = calloc(self->m.units, sizeof(bool));
	ASSERT_NE(NULL, m.copy);
	ASSERT_NE(NULL, m.again);
	ASSERT_EQ(0, set_log(self->fd, size, 0));
	fill_all(self);
	copy_range(&m, (uintptr_t)self->m.area,
		   (uintptr_t)self->m.area + self->m.len);
	for (i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){ .m = &m, .nr = i };
		ASSERT_EQ(0, uk_start(&t[i], writer, &w[i]));
	}
	ASSERT_EQ(0, uk_start(&t[WRITERS], disturb, &m));
	until = uk_now() + 1000 * (seconds ? atoi(seconds) : 2);
	while (uk_now() < until && !m.wrong) {
		drain(&m);
		uk_poll(self->fd, 1);
	}
	uk_set(&m.over, true);
	while (!uk_finished(&t[WRITERS]))
		drain(&m);
	ASSERT_TRUE(uk_join_all(t, WRITERS + 1));
	EXPECT_EQ(0, t[WRITERS].ret);
	/* Nobody writes any more: what is there to be read is all there is. */
	do {
		drain(&m);
	} while (!m.wrong && memchr(m.again, true, self->m.units));
	EXPECT_EQ(NULL, m.wrong);
	EXPECT_EQ(0, memcmp(m.copy, self->m.area, self->m.len));
	EXPECT_LT(0, m.told);
	EXPECT_LT(0, m.removed);
	if (!geteuid())
		EXPECT_LT(0, m.forks);
	TH_LOG("%lu writes, %lu told, %lu lost, %lu dropped, %lu forks", m.writes,
	       m.told, m.lost, m.removed, m.forks);
	free(m.again);
}

TEST_F_TIMEOUT(wplog, copy_is_true, 5 * LIMIT)
{
	mirror_memory(_metadata, self, 4096);
}

/* And if much of it is lost. */
TEST_F_TIMEOUT(wplog, copy_is_true_if_lost, 5 * LIMIT)
{
	mirror_memory(_metadata, self, 2);
}

TEST_HARNESS_MAIN
