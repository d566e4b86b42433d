// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: memory whose handler is gone, UFFD_FEATURE_ORPHAN_SIGBUS.
 *
 * - What an access meets when the descriptor has been closed: what is there can be
 *   used, what would have been told raises SIGBUS, or fails a system call.
 * - Who may adopt an orphan, how, and that it is as it was left.
 * - What ends it, and what fork(), mremap() and others make of it.
 * - A handler is killed in the middle of a restore, time and again, and the memory
 *   is complete in the end.
 *
 * Units 0 and 1 are there in most tests, the others are missing.
 */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/fs.h>
#include <linux/io_uring.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		8
#define LIMIT		60

#define ORPHAN		UK_BIT(34)
#define FORK		UFFD_FEATURE_EVENT_FORK
#define REMAP		UFFD_FEATURE_EVENT_REMAP
#define EVENTS		(REMAP | UFFD_FEATURE_EVENT_REMOVE | \
			 UFFD_FEATURE_EVENT_UNMAP)
#define WP_ASYNC	UFFD_FEATURE_WP_ASYNC

#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define WP		UFFDIO_REGISTER_MODE_WP
#define MINOR		UFFDIO_REGISTER_MODE_MINOR
#define RWP		UFFDIO_REGISTER_MODE_RWP
#define WP_ON		UFFDIO_WRITEPROTECT_MODE_WP

/*
 * Accesses.  The first bytes of a unit are never all zero: so zeroes are none of ours.
 */

static __thread sigjmp_buf *landing;
static __thread siginfo_t told;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!landing) {
		signal(sig, SIG_DFL);
		return;		/* to the access, which is made again */
	}
	told = *info;
	siglongjmp(*landing, 1);
}

static void catch_bus(void)
{
	struct sigaction act = {
		.sa_sigaction = on_bus,
		.sa_flags = SA_SIGINFO,
	};

	sigaction(SIGBUS, &act, NULL);
}

/* Makes an access: 0; SIGBUS, of the kind that it ought to be; or -1, of another. */
static long touch(long (*fn)(void *addr), void *addr)
{
	sigjmp_buf here;

	if (sigsetjmp(here, 1)) {
		landing = NULL;
		return told.si_code == BUS_ADRERR && told.si_addr == addr ?
		       SIGBUS : -1;
	}
	landing = &here;
	fn(addr);
	landing = NULL;
	return 0;
}

static long peeks(void *addr)
{
	return touch(uk_peek, addr);
}

static long pokes(void *addr)
{
	return touch(uk_poke, addr);
}

FIXTURE(orphan)
{
	struct uk_mem m;
	size_t unit;
	char *src;
	int fd;
};

/* FIXTURE_DATA(orphan), by a name that reads well in a prototype. */
#define orphan_test _test_data_orphan

FIXTURE_VARIANT(orphan)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(orphan, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(orphan, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(orphan, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(orphan, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(orphan, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(orphan, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

static char *at(struct orphan_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static int fill(struct orphan_test *self, int fd, unsigned int unit, __u64 mode)
{
	return uk_copy(fd, at(self, unit), self->src + unit * self->unit,
		       self->unit, mode).err;
}

static bool holds(struct orphan_test *self, unsigned int unit)
{
	return uk_painted(at(self, unit), self->unit, unit);
}

/* A new descriptor, with all of the memory. */
static int adopt(struct orphan_test *self, __u64 features, __u64 mode)
{
	int err;

	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	err = uk_register_mode(self->fd, self->m.area, self->m.len, mode, NULL);
	if (err) {
		close(self->fd);
		self->fd = -1;
	}
	return err;
}

static void leave(struct orphan_test *self)
{
	close(self->fd);
	self->fd = -1;
}

/* Begins anew, as if nothing had ever been there. */
static int refit(struct orphan_test *self, __u64 features, __u64 mode)
{
	int err = 0;

	if (self->fd < 0)
		self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	uk_unregister(self->fd, self->m.area, self->m.len);
	leave(self);
	err = uk_vacate(&self->m, self->m.area, self->m.len);
	return err ? err : adopt(self, features, mode);
}

/* As refit(), with units 0 and 1 in place. */
static int refill(struct orphan_test *self, __u64 features, __u64 mode)
{
	int err = refit(self, features, mode);

	if (!err)
		err = fill(self, self->fd, 0, 0);
	return err ? err : fill(self, self->fd, 1, 0);
}

static int orphans(struct orphan_test *self)
{
	return uk_census(self->m.area, self->m.len).orphans;
}

static const char *set_up(struct orphan_test *self, enum uk_kind kind)
{
	const char *why;
	unsigned int i;
	int err;

	self->fd = -1;
	if (!(uk_offered() & ORPHAN))
		return "this kernel has no UFFD_FEATURE_ORPHAN_SIGBUS";
	why = uk_map(&self->m, kind, UNITS);
	if (why)
		return why;
	self->unit = self->m.unit;
	self->src = uk_buffer(self->m.len);
	if (!self->src)
		return "no memory";
	for (i = 0; i < self->m.units; i++)
		uk_paint(self->src + i * self->unit, self->unit, i);
	catch_bus();
	err = refill(self, ORPHAN, MISSING);
	if (err == -EPERM)
		return UK_NEEDS_ROOT;
	return err ? "cannot register and fill" : NULL;
}

FIXTURE_SETUP(orphan)
{
	const char *why = set_up(self, variant->kind);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(orphan)
{
	close(self->fd);
}

/* Asking for it. */

TEST(is_offered)
{
	struct uk_info info;
	int fd;

	if (!(uk_offered() & ORPHAN))
		SKIP(return, "this kernel has no UFFD_FEATURE_ORPHAN_SIGBUS");
	EXPECT_EQ(ORPHAN, UFFD_FEATURE_ORPHAN_SIGBUS);
	/* Whatever else is asked for, and who asks. */
	fd = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY,
		    ORPHAN | UFFD_FEATURE_SIGBUS | EVENTS);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, uk_fdinfo(fd, &info));
	EXPECT_NE(0, info.features & ORPHAN);
	close(fd);
}

TEST_F_TIMEOUT(orphan, not_asked_for, LIMIT)
{
	ASSERT_EQ(0, refill(self, EVENTS, MISSING));
	leave(self);
	EXPECT_EQ(0, uk_census(self->m.area, self->m.len).armed);
	EXPECT_EQ(0, orphans(self));
	EXPECT_EQ(0, peeks(at(self, 2)));
	EXPECT_TRUE(uk_all_zero(at(self, 2), self->unit));
}

/* What an access meets. */

TEST_F_TIMEOUT(orphan, access, LIMIT)
{
	struct uk_census c;
	unsigned int i;

	EXPECT_EQ(0, orphans(self));
	leave(self);
	c = uk_census(self->m.area, self->m.len);
	EXPECT_EQ(1, c.vmas);
	EXPECT_EQ(1, c.armed);
	EXPECT_EQ(1, c.orphans);

	EXPECT_TRUE(holds(self, 0));
	EXPECT_EQ(0, pokes(at(self, 1) + 5));
	/* As often as one likes, to whatever byte. */
	for (i = 2; i < UNITS; i++) {
		EXPECT_EQ(SIGBUS, peeks(at(self, i) + 17 * i));
		EXPECT_EQ(SIGBUS, pokes(at(self, i)));
		EXPECT_EQ(SIGBUS, pokes(at(self, i + 1) - 1));
	}
	EXPECT_EQ(0, uk_pages(at(self, 2), self->m.len - 2 * self->unit,
			      UK_PM_PRESENT));
}

/* Threads that sleep, their message read or not, for a user's or the kernel's access. */
TEST_F_TIMEOUT(orphan, sleepers, LIMIT)
{
	struct uk_access a = { .addr = at(self, 6) };
	struct uk_thread t[5];
	struct uffd_msg msg;
	unsigned int i;

	ASSERT_EQ(0, pipe2(a.pipe, O_CLOEXEC));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, uk_start(&t[i], i & 1 ? pokes : peeks,
				      at(self, 2 + i)));
	ASSERT_EQ(0, uk_start(&t[4], uk_by_write, &a));
	ASSERT_TRUE(uk_parked(self->fd, 5, 5));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	leave(self);
	ASSERT_TRUE(uk_join_all(t, 5));
	for (i = 0; i < 4; i++)
		EXPECT_EQ(SIGBUS, t[i].ret);
	EXPECT_EQ(-EFAULT, t[4].ret);
	close(a.pipe[0]);
	close(a.pipe[1]);
}

/* An access of 8 bytes; those that write find something to write. */
static long by_kernel(long (*fn)(void *access), char *addr)
{
	char out[8] = "kernel!!";
	struct uk_access a = { .addr = addr, .len = getpagesize(), .out = out };
	long ret;

	if (pipe2(a.pipe, O_CLOEXEC))
		return -errno;
	ret = write(a.pipe[1], out, 8) == 8 ? fn(&a) : -EIO;
	close(a.pipe[0]);
	close(a.pipe[1]);
	return ret;
}

TEST_F_TIMEOUT(orphan, access_by_the_kernel, LIMIT)
{
	long (*const accesses[])(void *) = {
		uk_by_read, uk_by_write, uk_by_vmsplice, uk_by_vm_readv,
		uk_by_vm_writev, uk_by_populate,
	};
	unsigned int i;

	leave(self);
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		EXPECT_EQ(-EFAULT, by_kernel(accesses[i], at(self, 2) + (i < 5) * 8)) {
			TH_LOG("access %u", i);
		}
		EXPECT_LE(0, by_kernel(accesses[i], at(self, 0) + (i < 5) * 8)) {
			TH_LOG("access %u", i);
		}
	}
	EXPECT_EQ(0, uk_pages(at(self, 2), self->unit, UK_PM_PRESENT));
}

/* What is there comes, what is not does not. */
TEST_F_TIMEOUT(orphan, access_in_part, LIMIT)
{
	int null = open("/dev/zero", O_RDWR | O_CLOEXEC), sv[2];
	struct iovec there = { at(self, 1), 2 * self->unit };
	struct iovec here = { uk_buffer(2 * self->unit), 2 * self->unit };

	ASSERT_LE(0, null);
	ASSERT_NE(NULL, here.iov_base);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, sv));
	leave(self);
	EXPECT_EQ(self->unit, process_vm_readv(getpid(), &here, 1, &there, 1, 0));
	EXPECT_TRUE(uk_painted(here.iov_base, self->unit, 1));
	EXPECT_EQ(self->unit, process_vm_writev(getpid(), &here, 1, &there, 1, 0));
	EXPECT_EQ(self->unit, read(null, at(self, 1), 2 * self->unit));
	/* All or nothing. */
	EXPECT_EQ(-1, send(sv[0], at(self, 2) - 8, 16, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));
	close(null);
	close(sv[0]);
	close(sv[1]);
}

static int pin(void *addr, size_t len)
{
	struct io_uring_params params = {};
	struct iovec iov = { .iov_base = addr, .iov_len = len };
	int ring = syscall(__NR_io_uring_setup, 1, &params), err = 0;

	if (ring < 0)
		return -EOPNOTSUPP;
	if (syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS,
		    &iov, 1))
		err = -errno;
	close(ring);
	return err;
}

/* Those who take the pages themselves: GUP, as KVM's. */
TEST_F_TIMEOUT(orphan, pages_for_io, LIMIT)
{
	int disk = uk_direct(2 * self->unit);

	leave(self);
	if (disk >= 0) {
		EXPECT_EQ(self->unit, pwrite(disk, at(self, 0), self->unit, 0));
		EXPECT_EQ(-1, pwrite(disk, at(self, 2), self->unit, 0));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, pread(disk, at(self, 3), self->unit, 0));
		EXPECT_EQ(EFAULT, errno);
		close(disk);
	}
	if (pin(at(self, 0), self->unit) != -EOPNOTSUPP) {
		EXPECT_EQ(0, pin(at(self, 0), 2 * self->unit));
		EXPECT_EQ(-EFAULT, pin(at(self, 1), 2 * self->unit));
		EXPECT_EQ(-EFAULT, pin(at(self, 4), self->unit));
	}
	EXPECT_EQ(SIGBUS, pokes(at(self, 3)));
	EXPECT_TRUE(holds(self, 0));
}

TEST_F_TIMEOUT(orphan, looked_at_by_others, LIMIT)
{
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	char byte = 0;

	ASSERT_LE(0, mem);
	leave(self);
	EXPECT_EQ(1, pread(mem, &byte, 1, (unsigned long)at(self, 1)));
	EXPECT_EQ(self->src[self->unit], byte);
	EXPECT_EQ(-1, pread(mem, &byte, 1, (unsigned long)at(self, 2)));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, pwrite(mem, &byte, 1, (unsigned long)at(self, 2)));
	EXPECT_EQ(EIO, errno);
	close(mem);
}

TEST_F_TIMEOUT(orphan, locked_memory, LIMIT)
{
	struct rlimit limit;
	int ret;

	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (geteuid() && limit.rlim_cur < self->m.len)
		SKIP(return, "may not lock memory");
	leave(self);
	ret = mlock(at(self, 0), 2 * self->unit);
	EXPECT_EQ(0, ret);
	ret = mlock(self->m.area, self->m.len);
	EXPECT_EQ(-1, ret);
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));
	munlock(self->m.area, self->m.len);
}

/* Pages that are dropped are missing. */
TEST_F_TIMEOUT(orphan, dropped_pages, LIMIT)
{
	leave(self);
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), self->unit));
	EXPECT_EQ(SIGBUS, peeks(at(self, 1)));
	EXPECT_TRUE(holds(self, 0));
}

TEST_F_TIMEOUT(orphan, mprotect_and_back, LIMIT)
{
	leave(self);
	ASSERT_EQ(0, mprotect(self->m.area, self->m.len, PROT_READ));
	EXPECT_TRUE(holds(self, 0));
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));
	ASSERT_EQ(0, mprotect(self->m.area, self->m.len, PROT_READ | PROT_WRITE));
	EXPECT_EQ(SIGBUS, pokes(at(self, 2)));
	EXPECT_EQ(0, pokes(at(self, 1)));
	EXPECT_EQ(1, orphans(self));
}

/* It is the last close that counts. */
TEST_F_TIMEOUT(orphan, last_close, LIMIT)
{
	int copy = dup(self->fd);
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_LE(0, copy);
	close(self->fd);
	self->fd = copy;
	EXPECT_EQ(0, orphans(self));
	ASSERT_EQ(0, uk_start(&t, peeks, at(self, 2)));
	ASSERT_EQ(1, uk_next(copy, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 2)));
	leave(self);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(SIGBUS, t.ret);
	EXPECT_EQ(1, orphans(self));
}

/* Those who are told SIGBUS while it is open are told the same afterwards. */
TEST_F_TIMEOUT(orphan, sigbus_before_and_after, LIMIT)
{
	ASSERT_EQ(0, refill(self, ORPHAN | UFFD_FEATURE_SIGBUS, MISSING));
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));
	leave(self);
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));
	EXPECT_TRUE(holds(self, 1));
	/* Alone it is as ever. */
	ASSERT_EQ(0, refill(self, UFFD_FEATURE_SIGBUS, MISSING));
	leave(self);
	EXPECT_EQ(0, peeks(at(self, 2)));
}

/* Nobody waits for an event that nobody is going to read. */
TEST_F_TIMEOUT(orphan, events, LIMIT)
{
	struct uk_call drop = {
		.nr = __NR_madvise,
		.arg = { (unsigned long)at(self, 4), self->unit, MADV_DONTNEED },
	};
	struct uk_thread t;

	ASSERT_EQ(0, refill(self, ORPHAN | EVENTS, MISSING));
	ASSERT_EQ(0, uk_start(&t, uk_call, &drop));
	ASSERT_TRUE(uk_asleep(t.tid));
	leave(self);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
	EXPECT_EQ(0, madvise(at(self, 1), self->unit, MADV_DONTNEED));
	EXPECT_EQ(0, munmap(at(self, 4), self->unit));
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 5)));
}

/* Signals */

static int ignore_and_touch(void *arg)
{
	struct orphan_test *self = arg;
	sigset_t all;

	UK_CHECK(adopt(self, ORPHAN, MISSING) == 0);
	leave(self);
	signal(SIGBUS, SIG_IGN);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	uk_peek(at(self, 2));
	return 0;
}

TEST_F_TIMEOUT(orphan, signal_blocked_and_ignored, LIMIT)
{
	EXPECT_EQ(128 + SIGBUS, uk_in_child(ignore_and_touch, self));
}

static struct {
	int pipe[2];
	unsigned int seen;
} shelter;

static void wait_for_adoption(int sig)
{
	char byte;

	(void)sig;
	uk_add(&shelter.seen, 1);
	if (read(shelter.pipe[0], &byte, 1) != 1)
		_exit(1);
}

/* A thread waits in its signal handler, and then goes on as if nothing had been. */
TEST_F_TIMEOUT(orphan, handler_waits_for_adoption, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, pipe2(shelter.pipe, O_CLOEXEC));
	signal(SIGBUS, wait_for_adoption);
	leave(self);
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 3)));
	ASSERT_TRUE(uk_asleep(t.tid));
	EXPECT_EQ(1, uk_get(&shelter.seen));
	ASSERT_EQ(0, adopt(self, 0, MISSING));
	ASSERT_EQ(1, write(shelter.pipe[1], "x", 1));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 3)));
	ASSERT_EQ(0, fill(self, self->fd, 3, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ((unsigned char)self->src[3 * self->unit], t.ret);
	EXPECT_EQ(1, uk_get(&shelter.seen));
}

/* Adoption */

static bool is_served(struct orphan_test *self, unsigned int unit)
{
	struct uk_thread t;

	if (uk_start(&t, peeks, at(self, unit)) ||
	    uk_fault_flags(self->fd, &self->m, &t, at(self, unit)) ||
	    fill(self, self->fd, unit, 0))
		return false;
	return uk_join(&t, UK_SOON) && !t.ret && holds(self, unit);
}

TEST_F_TIMEOUT(orphan, adopted, LIMIT)
{
	leave(self);
	ASSERT_EQ(0, adopt(self, ORPHAN, MISSING));
	EXPECT_EQ(0, orphans(self));
	EXPECT_EQ(1, uk_census(self->m.area, self->m.len).armed);
	EXPECT_TRUE(is_served(self, 2));
	EXPECT_EQ(-EEXIST, fill(self, self->fd, 1, 0));
	EXPECT_TRUE(holds(self, 1));
	/* Again and again; the last one has not asked for anything. */
	leave(self);
	EXPECT_EQ(1, orphans(self));
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));
	ASSERT_EQ(0, adopt(self, EVENTS, MISSING));
	EXPECT_TRUE(is_served(self, 3));
	leave(self);
	EXPECT_EQ(0, orphans(self));
	EXPECT_EQ(0, peeks(at(self, 4)));
	EXPECT_TRUE(uk_all_zero(at(self, 4), self->unit));
	EXPECT_TRUE(holds(self, 3));
}

/* One that has other memory already, and one that does not own the process's. */
static int adopt_for_parent(void *arg)
{
	struct orphan_test *self = arg;

	/* The child has no orphan: it is the parent's that this is about. */
	UK_CHECK(!uk_register(self->fd, self->m.area, self->m.len));
	UK_CHECK(fill(self, self->fd, 4, 0) == 0);
	return 0;
}

TEST_F_TIMEOUT(orphan, adopted_by_a_descriptor_in_use, LIMIT)
{
	size_t page = getpagesize();
	char *p = uk_buffer(page);
	int other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);

	ASSERT_LE(0, other);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, uk_register(other, p, page));
	leave(self);
	self->fd = other;
	EXPECT_EQ(0, uk_in_child(adopt_for_parent, self));
	EXPECT_EQ(0, orphans(self));
	EXPECT_TRUE(holds(self, 4));
	EXPECT_TRUE(is_served(self, 5));
}

/* Neighbours are one mapping: those that are left, and those that are adopted. */
TEST_F_TIMEOUT(orphan, split_and_merge, LIMIT)
{
	bool joins = !uk_is_hugetlb(&self->m);
	size_t u = self->unit;
	struct uk_census c;
	int other;

	leave(self);
	other = uk_new(O_CLOEXEC | O_NONBLOCK, ORPHAN);
	ASSERT_LE(0, other);
	ASSERT_EQ(0, uk_register(other, at(self, 2), 2 * u));
	c = uk_census(self->m.area, self->m.len);
	EXPECT_EQ(3, c.vmas);
	EXPECT_EQ(3, c.armed);
	EXPECT_EQ(2, c.orphans);
	EXPECT_EQ(SIGBUS, peeks(at(self, 4)));
	EXPECT_EQ(0, fill(self, other, 2, 0));
	EXPECT_TRUE(holds(self, 2));
	close(other);
	c = uk_census(self->m.area, self->m.len);
	EXPECT_EQ(joins ? 1 : 3, c.vmas);
	EXPECT_EQ(c.vmas, c.orphans);
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));

	other = uk_new(O_CLOEXEC | O_NONBLOCK, ORPHAN);
	ASSERT_LE(0, other);
	ASSERT_EQ(0, uk_register(other, at(self, 0), 2 * u));
	ASSERT_EQ(0, uk_register(other, at(self, 2), self->m.len - 2 * u));
	c = uk_census(self->m.area, self->m.len);
	EXPECT_EQ(joins ? 1 : 3, c.vmas);
	EXPECT_EQ(0, c.orphans);
	close(other);
}

/* Orphans, what is one's own, and what has never been registered: all at once. */
TEST_F_TIMEOUT(orphan, adopted_with_others, LIMIT)
{
	size_t u = self->unit;

	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 4), 2 * u));
	leave(self);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, ORPHAN);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, at(self, 2), u));
	EXPECT_LE(2, orphans(self));
	ASSERT_EQ(0, munmap(at(self, 3), u));
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	EXPECT_EQ(0, orphans(self));
	EXPECT_TRUE(is_served(self, 4));
	EXPECT_TRUE(is_served(self, 6));
}

/* Who adopts it must be ready for all that may be told. */
TEST_F_TIMEOUT(orphan, modes, LIMIT)
{
	__u64 ioctls = 0;
	struct uk_census c;

	ASSERT_EQ(0, refill(self, ORPHAN, MISSING));
	/* What follows the part that is refused does not change either. */
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 0), self->unit));
	ASSERT_EQ(0, uk_register_mode(self->fd, at(self, 4), 2 * self->unit,
				      MISSING | WP, NULL));
	leave(self);
	c = uk_census(self->m.area, self->m.len);
	EXPECT_EQ(-EBUSY, adopt(self, ORPHAN, MISSING));
	EXPECT_EQ(-EBUSY, adopt(self, ORPHAN, WP));
	EXPECT_EQ(c.vmas, uk_census(self->m.area, self->m.len).vmas);
	EXPECT_EQ(c.armed, uk_census(self->m.area, self->m.len).armed);
	EXPECT_EQ(c.orphans, orphans(self));
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));

	/* More is not too much; protection is not for free, either. */
	ASSERT_EQ(0, adopt(self, ORPHAN, MISSING | WP));
	EXPECT_EQ(0, orphans(self));
	EXPECT_TRUE(is_served(self, 2));
	EXPECT_EQ(0, uk_protect(self->fd, at(self, 2), self->unit, WP_ON));
	leave(self);
	EXPECT_EQ(SIGBUS, pokes(at(self, 2)));
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      MISSING | WP, &ioctls));
	EXPECT_NE(0, ioctls & UK_BIT(_UFFDIO_WRITEPROTECT));
}

/* All other errors are as ever. */
TEST_F_TIMEOUT(orphan, adoption_that_cannot_be, LIMIT)
{
	int other;

	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 6), self->unit));
	other = uk_new(O_CLOEXEC | O_NONBLOCK, ORPHAN);
	ASSERT_LE(0, other);
	ASSERT_EQ(0, uk_register(other, at(self, 6), self->unit));
	leave(self);
	/* The first part could be had. */
	EXPECT_EQ(-EBUSY, adopt(self, 0, MISSING));
	EXPECT_LE(1, orphans(self));
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));
	EXPECT_EQ(-EINVAL, adopt(self, 0, 0));
	EXPECT_EQ(-EINVAL, adopt(self, 0, MISSING | UK_BIT(60)));
	if (uk_is_anon(&self->m))
		EXPECT_EQ(-EINVAL, adopt(self, 0, MISSING | MINOR));
	if (self->unit != (size_t)getpagesize())
		EXPECT_EQ(-EINVAL, uk_register(other, at(self, 2), getpagesize()));
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));
	close(other);
}

/* What does not need a handler goes on without: fills by whom it does not belong to. */
TEST_F_TIMEOUT(orphan, filled_by_another, LIMIT)
{
	int other;

	leave(self);
	other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, other);
	EXPECT_EQ(0, fill(self, other, 2, 0));
	EXPECT_TRUE(holds(self, 2));
	EXPECT_EQ(-EEXIST, fill(self, other, 1, 0));
	EXPECT_EQ(0, uk_wake(other, self->m.area, self->m.len));
	if (uk_is_anon(&self->m)) {
		char *from = uk_buffer(self->unit);

		ASSERT_NE(NULL, from);
		EXPECT_EQ(-EINVAL, uk_move(other, at(self, 3), from, self->unit,
					   0).err);
	}
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));
	EXPECT_EQ(1, orphans(self));
	close(other);
}

/* The end */

TEST_F_TIMEOUT(orphan, unregistered, LIMIT)
{
	bool joins = !uk_is_hugetlb(&self->m);
	struct uk_census c;
	int other;

	ASSERT_EQ(0, refill(self, ORPHAN, MISSING | WP));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, 2 * self->unit, WP_ON));
	leave(self);
	other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, other);
	if (self->unit != (size_t)getpagesize())
		EXPECT_EQ(-EINVAL, uk_unregister(other, at(self, 1) + getpagesize(),
						 self->unit));
	ASSERT_EQ(0, uk_unregister(other, at(self, 1), 2 * self->unit));
	c = uk_census(self->m.area, self->m.len);
	EXPECT_EQ(3, c.vmas);
	EXPECT_EQ(2, c.orphans);
	EXPECT_EQ(0, pokes(at(self, 1)));
	EXPECT_EQ(0, uk_pages(at(self, 1), 2 * self->unit, UK_PM_WP));
	EXPECT_EQ(0, peeks(at(self, 2)));
	EXPECT_TRUE(uk_all_zero(at(self, 2), self->unit));
	EXPECT_EQ(SIGBUS, pokes(at(self, 0)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));

	ASSERT_EQ(0, uk_unregister(other, self->m.area, self->m.len));
	c = uk_census(self->m.area, self->m.len);
	EXPECT_EQ(joins ? 1 : 3, c.vmas);
	EXPECT_EQ(0, c.armed);
	EXPECT_EQ(0, c.orphans);
	EXPECT_EQ(0, pokes(at(self, 0)));
	EXPECT_EQ(0, pokes(at(self, 7)));
	close(other);
}

TEST_F_TIMEOUT(orphan, mapped_over, LIMIT)
{
	int how = self->m.fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS :
		  uk_is_shared(&self->m) ? MAP_SHARED : MAP_PRIVATE;

	leave(self);
	ASSERT_EQ(at(self, 2), mmap(at(self, 2), self->unit,
				    PROT_READ | PROT_WRITE, MAP_FIXED | how,
				    self->m.fd, self->m.fd < 0 ? 0 :
				    2 * self->unit));
	EXPECT_EQ(0, pokes(at(self, 2)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));
	EXPECT_EQ(2, orphans(self));
	ASSERT_EQ(0, munmap(self->m.area, self->m.len));
	EXPECT_EQ(0, uk_census(self->m.area, self->m.len).vmas);
}

enum ending { BY_EXIT, BY_EXEC, BY_SIGBUS, ENDINGS };

struct ender {
	struct orphan_test *self;
	enum ending how;
};

static int end_with_orphans(void *arg)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct ender *e = arg;

	UK_CHECK(!refill(e->self, ORPHAN, MISSING));
	leave(e->self);
	switch (e->how) {
	case BY_EXEC:
		execl("/bin/true", "true", NULL);
		return 1;
	case BY_SIGBUS:
		/* Its core leaves out what is missing. */
		UK_CHECK(!chdir("/tmp"));
		UK_CHECK(!setrlimit(RLIMIT_CORE, &unlimited));
		uk_peek(at(e->self, 2));
		return 1;
	default:
		return 0;
	}
}

TEST_F_TIMEOUT(orphan, end_of_the_process, LIMIT)
{
	struct ender e = { .self = self };
	char name[32];
	pid_t pid;

	for (e.how = 0; e.how < ENDINGS; e.how++) {
		if (e.how == BY_EXEC && access("/bin/true", X_OK))
			continue;
		pid = uk_spawn(end_with_orphans, &e);
		ASSERT_LT(0, pid);
		EXPECT_EQ(e.how == BY_SIGBUS ? 128 + SIGBUS : 0,
			  uk_reap(pid, UK_SOON));
		kill(pid, SIGKILL);
		snprintf(name, sizeof(name), "/tmp/core.%d", pid);
		unlink(name);
		unlink("/tmp/core");
	}
}

/* mremap() */

TEST_F_TIMEOUT(orphan, moved, LIMIT)
{
	size_t u = self->unit;
	bool grows = !uk_is_hugetlb(&self->m);
	char *to = uk_reserve(self->m.len, uk_huge_size() > u ? uk_huge_size() : u);
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_NE(NULL, to);
	/* Neither before nor after it has anybody asked for REMAP. */
	ASSERT_EQ(0, refill(self, ORPHAN, MISSING | WP));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, u, WP_ON));
	leave(self);
	ASSERT_EQ(to, mremap(self->m.area, 4 * u, (4 + 2 * grows) * u,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(1, uk_census(to, 4 * u).orphans);
	EXPECT_TRUE(uk_painted(to, u, 0));
	EXPECT_LT(0, uk_pages(to, u, UK_PM_WP));
	EXPECT_EQ(SIGBUS, pokes(to));
	EXPECT_EQ(0, pokes(to + u));
	EXPECT_EQ(SIGBUS, peeks(to + 2 * u));
	if (grows)
		EXPECT_EQ(SIGBUS, peeks(to + 5 * u));
	EXPECT_EQ(SIGBUS, peeks(at(self, 4)));

	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register_mode(self->fd, to, 4 * u, MISSING | WP, NULL));
	ASSERT_EQ(0, uk_start(&t, pokes, to));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, to));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE,
		  msg.arg.pagefault.flags);
	ASSERT_EQ(0, uk_protect(self->fd, to, u, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
}

/* Beside another orphan it becomes one mapping with that, and stays what it is. */
TEST_F_TIMEOUT(orphan, moved_beside_another, LIMIT)
{
	size_t u = self->unit;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "mappings of huge pages are not merged");
	ASSERT_EQ(0, refit(self, ORPHAN, MISSING));
	leave(self);
	ASSERT_EQ(0, munmap(at(self, 4), u));
	ASSERT_EQ(at(self, 4), mremap(at(self, 6), u, u,
				      MREMAP_MAYMOVE | MREMAP_FIXED,
				      at(self, 4)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 4)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 5)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 7)));
}

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif

/* The pages have gone, and nothing has come in their place. */
TEST_F_TIMEOUT(orphan, moved_away, LIMIT)
{
	size_t u = self->unit;
	char *to = uk_reserve(u, u);

	if (!uk_is_anon(&self->m))
		SKIP(return, "not all kernels can, in files");
	ASSERT_NE(NULL, to);
	leave(self);
	ASSERT_EQ(to, mremap(at(self, 1), u, u, MREMAP_MAYMOVE | MREMAP_FIXED |
			     MREMAP_DONTUNMAP, to));
	EXPECT_TRUE(uk_painted(to, u, 1));
	EXPECT_EQ(SIGBUS, peeks(at(self, 1)));
	EXPECT_EQ(1, uk_census(to, u).orphans);
}

/* fork() */

static int without_registration(void *arg)
{
	struct orphan_test *self = arg;

	UK_CHECK(holds(self, 1));
	UK_CHECK(!orphans(self));
	UK_CHECK(!pokes(at(self, 0)));
	UK_CHECK(!peeks(at(self, 2)));
	return 0;
}

TEST_F_TIMEOUT(orphan, fork_without_event, LIMIT)
{
	ASSERT_EQ(0, refill(self, ORPHAN, MISSING | WP));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->unit, WP_ON));
	leave(self);
	EXPECT_EQ(0, uk_in_child(without_registration, self));
	EXPECT_EQ(SIGBUS, pokes(at(self, 0)));
	/* What the child has got zeroes for is in the file now, where there is one. */
	EXPECT_EQ(self->m.fd < 0 || self->m.kind == UK_HUGETLB_PRIVATE ?
		  SIGBUS : 0, peeks(at(self, 2)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));
}

/* Is the child's memory an orphan of its own, with what the parent's has? */
static int with_orphans(void *arg)
{
	struct orphan_test *self = arg;

	UK_CHECK(orphans(self) == 1);
	UK_CHECK(holds(self, 1));
	UK_CHECK(pokes(at(self, 0)) == SIGBUS);
	UK_CHECK(!pokes(at(self, 1)));
	UK_CHECK(peeks(at(self, 2)) == SIGBUS);
	UK_CHECK(!adopt(self, 0, MISSING | WP));
	UK_CHECK(!orphans(self));
	UK_CHECK(!fill(self, self->fd, 2, 0));
	UK_CHECK(holds(self, 2));
	leave(self);
	return 0;
}

TEST_F_TIMEOUT(orphan, fork_with_event, LIMIT)
{
	int err = refill(self, ORPHAN | FORK, MISSING | WP);

	if (err == -EPERM)
		SKIP(return, "needs root");
	ASSERT_EQ(0, err);
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->unit, WP_ON));
	leave(self);
	EXPECT_EQ(0, uk_in_child(with_orphans, self));
	EXPECT_EQ(1, orphans(self));
	EXPECT_EQ(SIGBUS, pokes(at(self, 0)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));
}

/* The same, when somebody else has come so far as to close its descriptor. */
static int soon_with_orphans(void *arg)
{
	long long until = uk_now() + UK_SOON;

	while (orphans(arg) != 1 && uk_now() < until)
		uk_sleep(1);
	return with_orphans(arg);
}

static long forks(void *arg)
{
	/*
	 * Without the library, whose locks would be held while it waits; and without
	 * a copy of the descriptor, which would not be closed then.
	 */
	return uk_spawn_by_thread(soon_with_orphans, arg, CLONE_FILES);
}

/*
 * The descriptor is closed while fork() waits for its message to be read: before
 * that, or after, with the child's own.
 */
TEST_F_TIMEOUT(orphan, fork_under_way, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;
	unsigned int i;

	for (i = 0; i < 2; i++) {
		int err = refill(self, ORPHAN | FORK, MISSING | WP);

		if (err == -EPERM)
			SKIP(return, "needs root");
		ASSERT_EQ(0, err);
		ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->unit,
					WP_ON));
		ASSERT_EQ(0, uk_start(&t, forks, self));
		if (i) {
			ASSERT_EQ(1, uk_next(self->fd, &msg));
			ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
			close(msg.arg.fork.ufd);
		} else {
			ASSERT_TRUE(uk_asleep(t.tid));
		}
		leave(self);
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		ASSERT_LT(0, t.ret);
		EXPECT_EQ(0, uk_reap(t.ret, UK_SOON));
		EXPECT_EQ(SIGBUS, peeks(at(self, 3)));
	}
}

/* Write protection */

TEST_F_TIMEOUT(orphan, protection_stays, LIMIT)
{
	long bits;

	ASSERT_EQ(0, refill(self, ORPHAN, MISSING | WP));
	ASSERT_EQ(0, fill(self, self->fd, 2, UFFDIO_COPY_MODE_WP));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->unit, WP_ON));
	bits = uk_pages(self->m.area, self->m.len, UK_PM_WP);
	EXPECT_LT(0, bits);
	leave(self);

	EXPECT_EQ(bits, uk_pages(self->m.area, self->m.len, UK_PM_WP));
	EXPECT_TRUE(holds(self, 0));
	EXPECT_TRUE(holds(self, 2));
	EXPECT_EQ(SIGBUS, pokes(at(self, 0) + 9));
	EXPECT_EQ(SIGBUS, pokes(at(self, 2)));
	EXPECT_EQ(0, pokes(at(self, 1)));
	EXPECT_EQ(-EFAULT, by_kernel(uk_by_read, at(self, 0)));
	EXPECT_EQ(8, by_kernel(uk_by_write, at(self, 0)));

	ASSERT_EQ(0, adopt(self, ORPHAN, MISSING | WP));
	EXPECT_EQ(bits, uk_pages(self->m.area, self->m.len, UK_PM_WP));
}

TEST_F_TIMEOUT(orphan, protection_is_served, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, refill(self, ORPHAN, MISSING | WP));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->unit, WP_ON));
	leave(self);
	ASSERT_EQ(0, adopt(self, ORPHAN, MISSING | WP));
	ASSERT_EQ(0, uk_start(&t, pokes, at(self, 0)));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE,
		  uk_fault_flags(self->fd, &self->m, &t, at(self, 0)));
	EXPECT_EQ(0, uk_protect(self->fd, at(self, 0), self->unit, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
	/* Another descriptor may do so too, while it is nobody's. */
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->unit, WP_ON));
	leave(self);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	EXPECT_EQ(0, uk_protect(self->fd, self->m.area, self->unit, 0));
	EXPECT_EQ(0, pokes(at(self, 0)));
	EXPECT_EQ(0, uk_protect(self->fd, self->m.area, self->unit, WP_ON));
	EXPECT_EQ(SIGBUS, pokes(at(self, 0)));
	EXPECT_EQ(1, orphans(self));
}

/* Absent pages too, where the descriptor had it so. */
TEST_F_TIMEOUT(orphan, protection_of_absent_pages, LIMIT)
{
	ASSERT_EQ(0, refill(self, ORPHAN | UFFD_FEATURE_WP_UNPOPULATED, WP));
	ASSERT_EQ(0, uk_protect(self->fd, at(self, 2), 2 * self->unit, WP_ON));
	leave(self);
	EXPECT_EQ(SIGBUS, pokes(at(self, 2)));
	/* Missing pages are not told: so it is there, zeroes, and protected. */
	EXPECT_EQ(0, peeks(at(self, 3)));
	EXPECT_EQ(SIGBUS, pokes(at(self, 3)));
	EXPECT_EQ(0, pokes(at(self, 4)));
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_EQ(0, uk_protect(self->fd, at(self, 5), self->unit, WP_ON));
	EXPECT_EQ(SIGBUS, pokes(at(self, 5)));
}

/* Writes that are noted and not told go on as before. */
static long written(struct orphan_test *self)
{
	struct page_region found[64];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (unsigned long)self->m.area,
		.end = (unsigned long)self->m.area + 4 * self->unit,
		.vec = (unsigned long)found,
		.vec_len = 64,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	long bits = 0;
	int n, i;

	n = ioctl(pagemap, PAGEMAP_SCAN, &scan);
	close(pagemap);
	if (n < 0)
		return -errno;
	for (i = 0; i < n; i++) {
		unsigned long a = found[i].start - scan.start;

		for (; a < found[i].end - scan.start; a += getpagesize())
			bits |= 1L << a / self->unit;
	}
	return bits;
}

TEST_F_TIMEOUT(orphan, asynchronous_protection, LIMIT)
{
	if (refill(self, ORPHAN | WP_ASYNC, MISSING | WP) == -EINVAL)
		SKIP(return, "no UFFD_FEATURE_WP_ASYNC");
	ASSERT_LE(0, written(self));
	leave(self);
	EXPECT_EQ(0, written(self));
	EXPECT_EQ(0, pokes(at(self, 1)));
	EXPECT_EQ(2, written(self));
	EXPECT_EQ(0, written(self));
	EXPECT_EQ(SIGBUS, peeks(at(self, 3)));

	/* It is the next one's features that count. */
	ASSERT_EQ(0, adopt(self, ORPHAN, MISSING | WP));
	leave(self);
	EXPECT_EQ(SIGBUS, pokes(at(self, 1)));
	EXPECT_EQ(-EPERM, written(self));
}

/* Minor faults */

TEST_F_TIMEOUT(orphan, minor_faults, LIMIT)
{
	struct uk_thread t;
	char *alias;

	if (uk_is_anon(&self->m))
		SKIP(return, "no minor faults in this memory");
	ASSERT_EQ(0, refit(self, ORPHAN, MINOR | MISSING));
	alias = uk_alias(&self->m);
	ASSERT_NE(NULL, alias);
	memcpy(alias, self->src, 2 * self->unit);
	leave(self);
	EXPECT_EQ(SIGBUS, peeks(at(self, 0)));
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));
	ASSERT_EQ(0, adopt(self, ORPHAN, MINOR | MISSING));
	ASSERT_EQ(0, uk_start(&t, peeks, at(self, 1)));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_MINOR,
		  uk_fault_flags(self->fd, &self->m, &t, at(self, 1)));
	EXPECT_EQ(0, uk_continue(self->fd, at(self, 1), self->unit, 0).err);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(holds(self, 1));
	leave(self);
	EXPECT_TRUE(holds(self, 1));
	EXPECT_EQ(SIGBUS, peeks(at(self, 0)));
	munmap(alias, self->m.len);
}

/* Tracking of accesses */

static int track(int fd, void *addr, size_t len)
{
	struct uffdio_rwprotect rwp = {
		.range.start = (unsigned long)addr,
		.range.len = len,
		.mode = UFFDIO_RWPROTECT_MODE_RWP,
	};

	return ioctl(fd, UFFDIO_RWPROTECT, &rwp) ? -errno : 0;
}

TEST_F_TIMEOUT(orphan, tracked_accesses, LIMIT)
{
	struct uk_thread t;

	if (!(uk_offered() & UFFD_FEATURE_RWP))
		SKIP(return, "no tracking of accesses on this kernel");
	ASSERT_EQ(0, refill(self, ORPHAN | UFFD_FEATURE_RWP, MISSING | RWP));
	ASSERT_EQ(0, track(self->fd, at(self, 0), self->unit));
	leave(self);
	EXPECT_EQ(SIGBUS, peeks(at(self, 0)));
	EXPECT_EQ(-EFAULT, by_kernel(uk_by_write, at(self, 0)));
	EXPECT_TRUE(holds(self, 1));
	/* Not by one who does not know of it. */
	EXPECT_EQ(-EBUSY, adopt(self, ORPHAN, MISSING));
	EXPECT_EQ(-EBUSY, adopt(self, ORPHAN, MISSING | WP));
	EXPECT_EQ(-EINVAL, adopt(self, ORPHAN, MISSING | RWP));
	EXPECT_EQ(SIGBUS, peeks(at(self, 0)));
	ASSERT_EQ(0, adopt(self, ORPHAN | UFFD_FEATURE_RWP, MISSING | RWP));
	ASSERT_EQ(0, uk_start(&t, peeks, at(self, 0)));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_RWP,
		  uk_fault_flags(self->fd, &self->m, &t, at(self, 0)));
	leave(self);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(SIGBUS, t.ret);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(holds(self, 0));
}

TEST_F_TIMEOUT(orphan, tracked_asynchronously, LIMIT)
{
	__u64 features = ORPHAN | UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC;

	if (!(uk_offered() & UFFD_FEATURE_RWP))
		SKIP(return, "no tracking of accesses on this kernel");
	ASSERT_EQ(0, refill(self, features, MISSING | RWP));
	ASSERT_EQ(0, track(self->fd, at(self, 0), 2 * self->unit));
	leave(self);
	EXPECT_EQ(0, peeks(at(self, 0)));
	EXPECT_TRUE(holds(self, 1));
	EXPECT_EQ(SIGBUS, peeks(at(self, 2)));
}

/* Races: whoever can read a page at any time reads what it must hold. */

struct race {
	struct orphan_test *self;
	unsigned int seed;
	unsigned int stop;
	unsigned int wrong;
	unsigned int signals;
	unsigned int reads;
};

struct word {
	const char *addr;
	__u64 value;
};

static long read_word(void *word)
{
	struct word *w = word;

	memcpy(&w->value, w->addr, 8);
	return 0;
}

static long read_all_the_time(void *arg)
{
	struct race *r = arg;
	unsigned int i = r->seed, unit;

	while (!uk_get(&r->stop)) {
		struct word w;

		i = i * 1103515245 + 12345;
		unit = i >> 16 & (UNITS - 1);
		w.addr = at(r->self, unit);
		if (touch(read_word, &w)) {
			uk_add(&r->signals, 1);
			continue;
		}
		uk_add(&r->reads, 1);
		if (memcmp(&w.value, r->self->src + unit * r->self->unit, 8))
			uk_add(&r->wrong, 1);
	}
	return 0;
}

/* Handlers come and go, pages too; and not once are there zeroes. */
TEST_F_TIMEOUT(orphan, never_zeroes, 2 * LIMIT)
{
	const char *seconds = getenv("UFFD_SECONDS");
	long long end = uk_now() + (seconds ? atoi(seconds) * 1000 : 2000);
	struct race r[3];
	struct uk_thread t[3];
	unsigned int i, round, signals = 0, reads = 0;

	for (i = 0; i < 3; i++) {
		r[i] = (struct race){ .self = self, .seed = i };
		ASSERT_EQ(0, uk_start(&t[i], read_all_the_time, &r[i]));
	}
	for (round = 0; uk_now() < end; round++) {
		for (i = 0; i < UNITS; i++)
			if ((round * 5 + i * 3) % 4)
				fill(self, self->fd, i, 0);
		if (round & 1)
			sched_yield();
		leave(self);
		ASSERT_EQ(0, uk_vacate(&self->m, at(self, round % UNITS),
				       self->unit));
		if (round % 8 == 3)
			uk_sleep(1);
		/* By halves now and then. */
		self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, ORPHAN);
		ASSERT_LE(0, self->fd);
		if (round & 2)
			ASSERT_EQ(0, uk_register(self->fd, at(self, 3),
						 2 * self->unit));
		ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	}
	for (i = 0; i < 3; i++)
		uk_set(&r[i].stop, 1);
	leave(self);
	ASSERT_TRUE(uk_join_all(t, 3));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, r[i].wrong);
		signals += r[i].signals;
		reads += r[i].reads;
	}
	EXPECT_LT(0, signals);
	EXPECT_LT(0, reads);
	TH_LOG("%u rounds, %u reads, %u signals", round, reads, signals);
}

/* Many of them: nothing of a descriptor is left behind. */

static long contexts(void)
{
	char line[256];
	long n = -1;
	FILE *f = fopen("/proc/slabinfo", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "userfaultfd_ctx %ld", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

#define MANY	1000

/* How many more there are when so many have come and gone, each with every other page. */
static long left_behind(char *p, __u64 features)
{
	long long end = uk_now() + UK_SOON;
	size_t page = getpagesize();
	long before = contexts();
	unsigned int i;

	for (i = 0; i < MANY; i++) {
		int fd = uk_new(O_CLOEXEC, features);

		if (fd < 0 || uk_register(fd, p + 2 * i * page, page))
			return LONG_MIN;
		close(fd);
	}
	/* They are freed when nobody can be looking at them any more. */
	while (contexts() > before + MANY / 8 && uk_now() < end)
		uk_sleep(10);
	return contexts() - before;
}

TEST(takes_no_memory)
{
	size_t page = getpagesize(), len = 2 * MANY * page;
	long usual, ours;
	char *p;

	if (!(uk_offered() & ORPHAN))
		SKIP(return, "this kernel has no UFFD_FEATURE_ORPHAN_SIGBUS");
	if (contexts() < 0)
		SKIP(return, "not told in /proc/slabinfo");
	p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	/* KASAN keeps what is freed for a while. */
	usual = left_behind(p, 0);
	ours = left_behind(p, ORPHAN);
	ASSERT_NE(LONG_MIN, usual);
	ASSERT_NE(LONG_MIN, ours);
	EXPECT_GE((usual > 0 ? usual : 0) + MANY / 8, ours);
	EXPECT_EQ(MANY, uk_census(p, len).orphans);
	catch_bus();
	EXPECT_EQ(SIGBUS, peeks(p + 2 * page));
	EXPECT_EQ(0, peeks(p + page));
	munmap(p, len);
}

/* A mapping that cannot be registered but for asynchronous protection. */
TEST(ordinary_file)
{
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fd, other;
	size_t page = getpagesize();
	char *p;

	if (!(uk_offered() & ORPHAN) || !(uk_offered() & WP_ASYNC))
		SKIP(return, "no UFFD_FEATURE_ORPHAN_SIGBUS, or no WP_ASYNC");
	ASSERT_LE(0, file);
	p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	ASSERT_NE(MAP_FAILED, p);
	fd = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY, ORPHAN | WP_ASYNC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, uk_register_mode(fd, p, 2 * page, WP, NULL));
	close(fd);
	EXPECT_EQ(1, uk_census(p, 2 * page).orphans);
	catch_bus();
	EXPECT_EQ(0, pokes(p));

	/* With the feature it can be adopted, and without it ended all the same. */
	fd = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY, ORPHAN | WP_ASYNC);
	other = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY, 0);
	ASSERT_LE(0, fd);
	ASSERT_LE(0, other);
	EXPECT_EQ(-EINVAL, uk_register_mode(other, p, page, WP, NULL));
	EXPECT_EQ(0, uk_register_mode(fd, p, page, WP, NULL));
	EXPECT_EQ(0, uk_unregister(other, p + page, page));
	EXPECT_EQ(0, uk_census(p, 2 * page).orphans);
	close(fd);
	close(other);
}

/*
 * The restore.  There are three sorts of processes: the guest, whose memory it is;
 * handlers, which fill it; and this one, which supervises.  The guest knows that
 * missing pages may take a while: its threads wait in a signal handler until they
 * can be served again.
 */

#define VCPUS		3

FIXTURE(restore)
{
	struct orphan_test o;
};

FIXTURE_VARIANT(restore)
{
	enum uk_kind kind;
	unsigned int units;
};

FIXTURE_VARIANT_ADD(restore, anon)
{
	.kind = UK_ANON,
	.units = 1024,
};

FIXTURE_VARIANT_ADD(restore, anon_small)
{
	.kind = UK_ANON_SMALL,
	.units = 256,
};

FIXTURE_VARIANT_ADD(restore, shmem)
{
	.kind = UK_SHMEM,
	.units = 256,
};

FIXTURE_VARIANT_ADD(restore, hugetlb)
{
	.kind = UK_HUGETLB,
	.units = UNITS,
};

/* What the processes have in common. */
struct shared {
	unsigned int filled;
	unsigned int limit;		/* so many, and no more */
	unsigned int signals;
	unsigned int done;
};

struct machine {
	struct uk_mem *m;
	const char *image;
	struct shared *shared;
	int sock;		/* to the supervisor */
	int uffd;		/* of the handler */
	unsigned int vcpu;
};

static struct shared *machine_shared;

static void on_missing(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (info->si_code != BUS_ADRERR)
		_exit(2);
	uk_add(&machine_shared->signals, 1);
	uk_sleep(1);
}

/* Reads all of the memory, each in an order of its own; returns what was wrong. */
static long run_vcpu(void *machine)
{
	struct machine *v = machine;
	unsigned int i, n = v->m->units, step = 2 * v->vcpu + 3, wrong = 0;

	while (n % step == 0)
		step += 2;
	for (i = 0; i < n; i++) {
		unsigned int unit = (i * step + v->vcpu * n / VCPUS) % n;

		if (memcmp(uk_at(v->m, unit), v->image + unit * v->m->unit,
			   v->m->unit))
			wrong++;
	}
	return wrong;
}

/* Makes a userfaultfd with all of the memory, and keeps no copy. */
static int hand_over(struct machine *g)
{
	int fd = uk_new(O_CLOEXEC | O_NONBLOCK, ORPHAN), err;

	if (fd < 0)
		return fd;
	err = uk_register(fd, g->m->area, g->m->len);
	if (!err)
		err = uk_send_fd(g->sock, fd);
	close(fd);
	return err;
}

static int be_the_guest(void *machine)
{
	struct sigaction act = {
		.sa_sigaction = on_missing,
		.sa_flags = SA_SIGINFO,
	};
	struct machine *g = machine, v[VCPUS];
	struct uk_thread t[VCPUS];
	unsigned int i;
	char byte;

	machine_shared = g->shared;
	sigaction(SIGBUS, &act, NULL);
	UK_CHECK(!hand_over(g));
	for (i = 0; i < VCPUS; i++) {
		v[i] = *g;
		v[i].vcpu = i;
		UK_CHECK(!uk_start(&t[i], run_vcpu, &v[i]));
	}
	/* Whenever the supervisor asks for it. */
	while (read(g->sock, &byte, 1) == 1 && byte == 'n')
		UK_CHECK(!hand_over(g));
	for (i = 0; i < VCPUS; i++) {
		UK_CHECK(uk_join(&t[i], UK_SOON));
		UK_CHECK(!t[i].ret);
	}
	UK_CHECK(!uk_census(g->m->area, g->m->len).armed);
	UK_CHECK(!memcmp(g->m->area, g->image, g->m->len));
	return 0;
}

static void handler_fill(struct machine *h, unsigned int unit)
{
	size_t u = h->m->unit;
	struct uk_fill res = uk_copy(h->uffd, uk_at(h->m, unit),
				     h->image + unit * u, u, 0);

	/* It has come meanwhile, or had before. */
	if (res.err == -EEXIST)
		uk_wake(h->uffd, uk_at(h->m, unit), u);
	else if (res.err)
		_exit(3);
	else
		uk_add(&h->shared->filled, 1);
}

/* Faults first, the rest in order. */
static int be_the_handler(void *machine)
{
	struct machine *h = machine;
	struct uffd_msg msg;
	unsigned int unit = 0;
	long long end = uk_now() + LIMIT * 1000;

	while (unit < h->m->units) {
		UK_CHECK(uk_now() < end);
		if (uk_get(&h->shared->filled) >= uk_get(&h->shared->limit)) {
			uk_sleep(1);	/* until we are killed */
			continue;
		}
		if (uk_read(h->uffd, &msg, 1) == 1) {
			UK_CHECK(msg.event == UFFD_EVENT_PAGEFAULT);
			handler_fill(h, (msg.arg.pagefault.address -
					 (unsigned long)h->m->area) / h->m->unit);
			continue;
		}
		handler_fill(h, unit++);
	}
	/* From now on it is memory like any other. */
	UK_CHECK(!uk_unregister(h->uffd, h->m->area, h->m->len));
	uk_set(&h->shared->done, 1);
	return 0;
}

FIXTURE_SETUP(restore)
{
	const char *why;
	unsigned int i;
	int fd;

	if (!(uk_offered() & ORPHAN))
		SKIP(return, "this kernel has no UFFD_FEATURE_ORPHAN_SIGBUS");
	why = uk_map(&self->o.m, variant->kind, variant->units);
	if (why)
		SKIP(return, "%s", why);
	fd = uk_open(O_CLOEXEC);
	if (fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	close(fd);
	self->o.unit = self->o.m.unit;
	self->o.src = uk_buffer(self->o.m.len);
	ASSERT_NE(NULL, self->o.src);
	for (i = 0; i < self->o.m.units; i++)
		uk_paint(self->o.src + i * self->o.unit, self->o.unit, i);
}

FIXTURE_TEARDOWN(restore)
{
}

TEST_F_TIMEOUT(restore, handlers_are_killed, 2 * LIMIT)
{
	struct shared *shared = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct machine g = {
		.m = &self->o.m, .image = self->o.src, .shared = shared,
	};
	struct machine h = g;
	unsigned int handlers = 4, signals, i;
	pid_t guest, handler;
	int sv[2];

	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	g.sock = sv[1];
	guest = uk_spawn(be_the_guest, &g);
	ASSERT_LT(0, guest);
	for (i = 0; i < handlers; i++) {
		bool last = i + 1 == handlers;
		long long end = uk_now() + UK_SOON;
		unsigned int goal;

		goal = g.m->units * (i + 1) / (handlers + 1);
		uk_set(&shared->limit, last ? ~0U : goal);
		if (i)
			ASSERT_EQ(1, write(sv[0], "n", 1));
		h.uffd = uk_recv_fd(sv[0]);
		ASSERT_LE(0, h.uffd);
		handler = uk_spawn(be_the_handler, &h);
		ASSERT_LT(0, handler);
		close(h.uffd);
		if (last)
			break;
		while (uk_get(&shared->filled) < goal && uk_now() < end)
			uk_sleep(1);
		ASSERT_EQ(0, kill(handler, SIGKILL));
		ASSERT_EQ(128 + SIGKILL, uk_reap(handler, UK_SOON));
		/* Before the next one comes, the guest meets what is missing. */
		signals = uk_get(&shared->signals);
		while (uk_get(&shared->signals) <= signals && uk_now() < end)
			uk_sleep(1);
		EXPECT_LT(signals, uk_get(&shared->signals));
	}
	EXPECT_EQ(0, uk_reap(handler, LIMIT * 1000));
	EXPECT_EQ(1, uk_get(&shared->done));
	ASSERT_EQ(1, write(sv[0], "e", 1));
	EXPECT_EQ(0, uk_reap(guest, UK_SOON));
	kill(guest, SIGKILL);
	TH_LOG("%u units filled, %u waits for a handler", shared->filled,
	       shared->signals);
}

TEST_HARNESS_MAIN
