// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: tracking of any access.
 *
 * UFFDIO_RWPROTECT makes pages that are there inaccessible, and an access to one of
 * them, be it only to read, is told of. Then RWP_ASYNC, where accesses do not wait
 * and PAGEMAP_SCAN tells afterwards where they went, and UFFDIO_SET_MODE, which
 * switches between the two.
 *
 * A page that must not be looked at is looked at through another mapping of its
 * file, or not at all: whether it is tracked is seen by bit 57 of its entry in
 * /proc/self/pagemap, and by touching it.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/fs.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		6
#define LIMIT		60

#define RWP		UFFDIO_REGISTER_MODE_RWP
#define WP		UFFDIO_REGISTER_MODE_WP
#define MISSING		UFFDIO_REGISTER_MODE_MISSING

#define TRACK		UFFDIO_RWPROTECT_MODE_RWP
#define DONTWAKE	UFFDIO_RWPROTECT_MODE_DONTWAKE

/* The features that this is about. */
#define SYNC		UFFD_FEATURE_RWP
#define ASYNC		UFFD_FEATURE_RWP_ASYNC

/* What a fault says that is due to tracking. */
#define READ_FAULT	UFFD_PAGEFAULT_FLAG_RWP
#define WRITE_FAULT	(UFFD_PAGEFAULT_FLAG_RWP | UFFD_PAGEFAULT_FLAG_WRITE)

#ifndef PAGE_IS_ACCESSED
#define PAGE_IS_ACCESSED	(1 << 9)
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif

/* The calls that the kit does not have. */

static int rwprotect(int fd, const void *addr, size_t len, __u64 mode)
{
	struct uffdio_rwprotect rwp = {
		.range.start = (unsigned long)addr,
		.range.len = len,
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_RWPROTECT, &rwp) ? -errno : 0;
}

/* FIXTURE_DATA(rwp), by a name that reads well in a prototype. */
#define rwp_test _test_data_rwp

FIXTURE(rwp)
{
	struct uk_mem m;
	size_t unit;
	int fd;
	int pagemap;
};

FIXTURE_VARIANT(rwp)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(rwp, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(rwp, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(rwp, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(rwp, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(rwp, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(rwp, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

static char *at(struct rwp_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

/* Another descriptor for the same memory; the old one takes all it did along. */
static int refit(struct rwp_test *self, int flags, __u64 features, __u64 mode)
{
	if (self->fd >= 0)
		close(self->fd);
	self->fd = uk_new(flags | O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register_mode(self->fd, self->m.area, self->m.len, mode, NULL);
}

static bool offered(void)
{
	return uk_offered() & SYNC;
}

/* Units 0 to UNITS - 1 are there, painted with their numbers, not tracked. */
FIXTURE_SETUP(rwp)
{
	const char *why;
	unsigned int i;
	int err;

	self->fd = -1;
	self->pagemap = -1;
	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	if (!offered())
		SKIP(return, "no tracking of accesses on this kernel");
	for (i = 0; i < UNITS; i++)
		uk_paint(at(self, i), self->unit, i);
	err = refit(self, 0, SYNC, RWP);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
	self->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->pagemap);
}

FIXTURE_TEARDOWN(rwp)
{
	close(self->fd);
	close(self->pagemap);
	uk_swap_off();
}

static int track(struct rwp_test *self, unsigned int unit, unsigned int count)
{
	return rwprotect(self->fd, at(self, unit), count * self->unit, TRACK);
}

static int untrack(struct rwp_test *self, unsigned int unit,
		   unsigned int count)
{
	return rwprotect(self->fd, at(self, unit), count * self->unit, 0);
}

/* How many units have the bit: -1 if a part of one has it, or on an error. */
static long bits(struct rwp_test *self, unsigned int unit, unsigned int count)
{
	long pages = self->unit / getpagesize(), sum = 0;
	unsigned int i;

	for (i = unit; i < unit + count; i++) {
		long n = uk_pages(at(self, i), self->unit, UK_PM_WP);

		if (n && n != pages)
			return -1;
		sum += n / pages;
	}
	return sum;
}

static bool no_bits(struct rwp_test *self)
{
	return !uk_pages(self->m.area, self->m.len, UK_PM_WP);
}

/* Of a unit that is not tracked. */
static bool holds(struct rwp_test *self, unsigned int unit)
{
	return uk_painted(at(self, unit), self->unit, unit);
}

static __u64 fault_of(struct rwp_test *self, struct uk_thread *t,
		      const char *addr)
{
	return uk_fault_flags(self->fd, &self->m, t, addr);
}

/* An access that is nobody's concern, and what it reads, or -1. */
static long peeks(struct rwp_test *self, char *addr)
{
	struct uk_thread t;

	if (uk_start(&t, uk_peek, addr) || fault_of(self, &t, addr) != UK_NO_FAULT ||
	    !uk_join(&t, UK_SOON))
		return -1;
	return t.ret;
}

static bool writes(struct rwp_test *self, char *addr)
{
	struct uk_thread t;

	return !uk_start(&t, uk_poke, addr) &&
	       fault_of(self, &t, addr) == UK_NO_FAULT && uk_join(&t, UK_SOON) &&
	       peeks(self, addr) == 0xa5;
}

/* Accesses that wait until the unit is not tracked any more: one of each kind. */
static bool is_tracked(struct rwp_test *self, unsigned int unit)
{
	char *addr = at(self, unit) + 11;
	struct uk_thread t;
	bool ok;

	if (uk_start(&t, uk_peek, addr))
		return false;
	ok = fault_of(self, &t, addr) == READ_FAULT && !uk_finished(&t);
	ok = !untrack(self, unit, 1) && uk_join(&t, UK_SOON) && ok;
	if (!ok || track(self, unit, 1) || uk_start(&t, uk_poke, addr))
		return false;
	ok = fault_of(self, &t, addr) == WRITE_FAULT && !uk_finished(&t);
	return !untrack(self, unit, 1) && uk_join(&t, UK_SOON) && ok &&
	       peeks(self, addr) == 0xa5;
}

/* What the faults say. */

TEST_F_TIMEOUT(rwp, message_of_a_read, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, track(self, 1, 1));
	EXPECT_EQ(1, bits(self, 0, UNITS));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1) + 123));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(UFFD_EVENT_PAGEFAULT, msg.event);
	EXPECT_EQ(READ_FAULT, msg.arg.pagefault.flags);
	EXPECT_EQ((unsigned long)at(self, 1), msg.arg.pagefault.address);

	/* It came once, the thread waits, neighbours are of no concern. */
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(holds(self, 0));
	EXPECT_TRUE(holds(self, 2));

	EXPECT_EQ(0, untrack(self, 1, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(holds(self, 1));
	EXPECT_TRUE(no_bits(self));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
}

TEST_F_TIMEOUT(rwp, message_of_a_write, LIMIT)
{
	struct uk_thread t;
	char *addr = at(self, 1) + 123;

	ASSERT_EQ(0, track(self, 1, 1));
	ASSERT_EQ(0, uk_start(&t, uk_poke, addr));
	EXPECT_EQ(WRITE_FAULT, fault_of(self, &t, addr));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, untrack(self, 1, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0xa5, uk_peek(addr));
	EXPECT_TRUE(uk_painted(at(self, 1), 120, 1));
	/* It can be written right away: lifting has given that back as well. */
	EXPECT_TRUE(writes(self, at(self, 1) + 7));
}

TEST_F_TIMEOUT(rwp, exact_address_and_thread_id, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;
	char *addr = at(self, 2) + 77;

	ASSERT_EQ(0, refit(self, 0, SYNC | UFFD_FEATURE_THREAD_ID |
			   UFFD_FEATURE_EXACT_ADDRESS, RWP));
	ASSERT_EQ(0, track(self, 2, 1));
	ASSERT_EQ(0, uk_start(&t, uk_peek, addr));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ((unsigned long)addr, msg.arg.pagefault.address);
	EXPECT_EQ(t.tid, msg.arg.pagefault.feat.ptid);
	EXPECT_EQ(0, untrack(self, 2, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

/* Tracking, lifting, waking. */

TEST_F_TIMEOUT(rwp, again_and_again, LIMIT)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, track(self, 0, 3));
		EXPECT_EQ(0, track(self, 2, 2));
		EXPECT_EQ(4, bits(self, 0, UNITS));
		EXPECT_EQ(0, untrack(self, 1, 1));
		EXPECT_EQ(0, untrack(self, 0, UNITS));
		EXPECT_EQ(0, untrack(self, 0, UNITS));
		EXPECT_TRUE(no_bits(self));
		EXPECT_TRUE(holds(self, i));
	}
	ASSERT_EQ(0, rwprotect(self->fd, self->m.area, self->m.len, TRACK));
	EXPECT_EQ(UNITS, bits(self, 0, UNITS));
	for (i = 0; i < UNITS; i++)
		EXPECT_TRUE(is_tracked(self, i));
}

TEST_F_TIMEOUT(rwp, dontwake_then_wake, LIMIT)
{
	struct uk_thread t;
	char *addr = at(self, 1);

	ASSERT_EQ(0, track(self, 1, 1));
	ASSERT_EQ(0, uk_start(&t, uk_peek, addr));
	EXPECT_EQ(READ_FAULT, fault_of(self, &t, addr));
	EXPECT_EQ(0, rwprotect(self->fd, addr, self->unit, DONTWAKE));
	EXPECT_EQ(0, bits(self, 1, 1));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, uk_wake(self->fd, addr, self->unit));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

/* Who is woken too early comes again, with a message. */
TEST_F_TIMEOUT(rwp, wake_while_tracked, LIMIT)
{
	struct uk_thread t;
	char *addr = at(self, 1);

	ASSERT_EQ(0, track(self, 1, 1));
	ASSERT_EQ(0, uk_start(&t, uk_peek, addr));
	EXPECT_EQ(READ_FAULT, fault_of(self, &t, addr));
	EXPECT_EQ(0, uk_wake(self->fd, addr, self->unit));
	EXPECT_EQ(READ_FAULT, fault_of(self, &t, addr));
	EXPECT_FALSE(uk_finished(&t));
	EXPECT_EQ(0, untrack(self, 0, 3));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

TEST_F_TIMEOUT(rwp, unregistering_and_closing_wake, LIMIT)
{
	struct uk_thread t;
	char *addr = at(self, 1);

	ASSERT_EQ(0, track(self, 0, 3));
	ASSERT_EQ(0, uk_start(&t, uk_peek, addr));
	EXPECT_EQ(READ_FAULT, fault_of(self, &t, addr));
	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	/* It need not be woken by that, as with other protection. */
	EXPECT_EQ(0, uk_wake(self->fd, self->m.area, self->m.len));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(holds(self, 0));
	EXPECT_TRUE(holds(self, 2));

	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len, RWP,
				      NULL));
	ASSERT_EQ(0, track(self, 0, 3));
	ASSERT_EQ(0, uk_start(&t, uk_poke, addr));
	EXPECT_EQ(WRITE_FAULT, fault_of(self, &t, addr));
	close(self->fd);
	self->fd = -1;
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(holds(self, 0));
	EXPECT_TRUE(holds(self, 2));
}

/* Arguments. */

TEST_F_TIMEOUT(rwp, arguments, LIMIT)
{
	char *p = at(self, 1);
	size_t u = self->unit;
	int bit;

	EXPECT_EQ(-EINVAL, rwprotect(self->fd, p + 1, u, TRACK));
	EXPECT_EQ(-EINVAL, rwprotect(self->fd, p, u - 1, TRACK));
	EXPECT_EQ(-EINVAL, rwprotect(self->fd, p, 0, TRACK));
	EXPECT_EQ(-EINVAL, rwprotect(self->fd, p, -u, TRACK));
	EXPECT_EQ(-EINVAL, rwprotect(self->fd, UK_KERNEL_SPACE, u, TRACK));
	EXPECT_EQ(-EINVAL, rwprotect(self->fd, (void *)-u, u, TRACK));
	EXPECT_EQ(-EINVAL, rwprotect(self->fd, p, u, TRACK | DONTWAKE));
	for (bit = 2; bit < 64; bit++)
		EXPECT_EQ(-EINVAL, rwprotect(self->fd, p, u, UK_BIT(bit)));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_RWPROTECT, NULL));
	EXPECT_EQ(EFAULT, errno);
	if (uk_is_hugetlb(&self->m)) {
		EXPECT_EQ(-EINVAL, rwprotect(self->fd, p + getpagesize(), u,
					     TRACK));
		EXPECT_EQ(-EINVAL, rwprotect(self->fd, p, u - getpagesize(),
					     TRACK));
	}
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(holds(self, 1));
}

TEST_F_TIMEOUT(rwp, outside_registered_memory, LIMIT)
{
	char *end = self->m.area + self->m.len, *hole;
	char *other = uk_buffer(getpagesize());

	EXPECT_EQ(-ENOENT, rwprotect(self->fd, end, self->unit, TRACK));
	EXPECT_EQ(-ENOENT, rwprotect(self->fd, other, getpagesize(), TRACK));
	EXPECT_EQ(-ENOENT, rwprotect(self->fd, other, getpagesize(), 0));
	ASSERT_EQ(0, munmap(end, self->unit));
	EXPECT_EQ(-ENOENT, rwprotect(self->fd, end, self->unit, TRACK));

	/* Registered, but not for this. */
	ASSERT_EQ(0, refit(self, 0, SYNC, MISSING));
	EXPECT_EQ(-ENOENT, track(self, 0, 1));
	EXPECT_EQ(-ENOENT, untrack(self, 0, 1));

	/* All of it or nothing, other than with write protection. */
	ASSERT_EQ(0, refit(self, 0, SYNC, RWP));
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 3), self->unit));
	EXPECT_EQ(-ENOENT, track(self, 1, 4));
	EXPECT_EQ(0, bits(self, 0, UNITS));
	ASSERT_EQ(0, track(self, 0, 3));
	EXPECT_EQ(-ENOENT, untrack(self, 1, 4));
	EXPECT_EQ(3, bits(self, 0, UNITS));

	/* Address space without memory does not count. */
	hole = at(self, 1);
	ASSERT_EQ(0, munmap(hole, self->unit));
	EXPECT_EQ(0, untrack(self, 0, 3));
	EXPECT_EQ(0, bits(self, 2, 1));
	EXPECT_EQ(0, track(self, 1, 2));
	EXPECT_EQ(1, bits(self, 2, 1));
	EXPECT_EQ(-ENOENT, rwprotect(self->fd, hole, self->unit, TRACK));
}

/* Several mappings in one call, one of them only to read from. */
TEST_F_TIMEOUT(rwp, several_mappings, LIMIT)
{
	ASSERT_EQ(0, mprotect(at(self, 2), self->unit, PROT_READ));
	ASSERT_EQ(0, track(self, 0, UNITS));
	EXPECT_EQ(UNITS, bits(self, 0, UNITS));
	ASSERT_EQ(0, untrack(self, 1, 4));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	EXPECT_TRUE(writes(self, at(self, 1)));
	EXPECT_TRUE(holds(self, 2));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, 2), NULL, NULL));
	EXPECT_TRUE(is_tracked(self, 0));
	EXPECT_TRUE(is_tracked(self, 5));
}

/* An event about the same range that nobody has read. */
TEST_F_TIMEOUT(rwp, unread_event, LIMIT)
{
	struct uk_call call = {
		.nr = __NR_madvise,
		.arg = { (long)at(self, 1), self->unit, MADV_DONTNEED },
	};
	long long end = uk_now() + UK_SOON;
	struct uffd_msg msg;
	struct uk_thread t;
	int err;

	ASSERT_EQ(0, refit(self, 0, SYNC | UFFD_FEATURE_EVENT_REMOVE, RWP));
	ASSERT_EQ(0, uk_start(&t, uk_call, &call));
	ASSERT_TRUE(uk_asleep(t.tid));
	EXPECT_EQ(-EAGAIN, track(self, 0, 3));
	EXPECT_EQ(-EAGAIN, untrack(self, 0, 3));
	EXPECT_EQ(0, bits(self, 0, 1));
	/* While one is unread, that comes before what is wrong with a call. */
	EXPECT_EQ(-EAGAIN, ioctl(self->fd, UFFDIO_RWPROTECT, NULL) ? -errno : 0);
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, 1),
			       at(self, 2)));
	/* Before the series, it must also have been dealt with. */
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	do {
		err = track(self, 0, 3);
	} while (err == -EAGAIN && uk_now() < end);
	EXPECT_EQ(0, err);
	EXPECT_EQ(1, bits(self, 0, 1));
}

/* Registering. */

TEST_F_TIMEOUT(rwp, registering_says_what_is_possible, LIMIT)
{
	__u64 protect = UK_BIT(_UFFDIO_WRITEPROTECT);
	__u64 rwprotect = UK_BIT(_UFFDIO_RWPROTECT);
	__u64 ioctls = 0;
	char *p = self->m.area;
	size_t len = self->m.len;

	ASSERT_EQ(0, uk_register_mode(self->fd, p, len, RWP, &ioctls));
	EXPECT_EQ(rwprotect, ioctls & (rwprotect | protect));
	ASSERT_EQ(0, uk_register_mode(self->fd, p, len, RWP | MISSING,
				      &ioctls));
	EXPECT_EQ(rwprotect, ioctls & (rwprotect | protect));
	ASSERT_EQ(0, refit(self, 0, SYNC, MISSING));
	ASSERT_EQ(0, uk_register_mode(self->fd, p, len, MISSING, &ioctls));
	EXPECT_EQ(0, ioctls & (rwprotect | protect));
}

TEST_F_TIMEOUT(rwp, modes_that_exclude_each_other, LIMIT)
{
	char *p = self->m.area;
	size_t len = self->m.len;

	/* One bit of an entry cannot mean both. */
	EXPECT_EQ(-EINVAL, uk_register_mode(self->fd, p, len, RWP | WP, NULL));

	/* Neither goes while the range is registered. */
	ASSERT_EQ(0, track(self, 0, 2));
	EXPECT_EQ(-EBUSY, uk_register_mode(self->fd, p, len, MISSING, NULL));
	EXPECT_EQ(-EBUSY, uk_register_mode(self->fd, p, len, WP, NULL));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	EXPECT_TRUE(is_tracked(self, 1));
	EXPECT_EQ(0, uk_register_mode(self->fd, p, len, RWP | MISSING, NULL));
	EXPECT_EQ(1, bits(self, 0, UNITS));
	EXPECT_TRUE(is_tracked(self, 0));

	ASSERT_EQ(0, uk_unregister(self->fd, p, len));
	ASSERT_EQ(0, uk_register_mode(self->fd, p, len, WP, NULL));
	EXPECT_EQ(-EBUSY, uk_register_mode(self->fd, p, len, RWP, NULL));
	EXPECT_EQ(-ENOENT, track(self, 0, 1));
	EXPECT_EQ(0, uk_protect(self->fd, p, len, UFFDIO_WRITEPROTECT_MODE_WP));
	ASSERT_EQ(0, uk_unregister(self->fd, p, len));
	ASSERT_EQ(0, uk_register_mode(self->fd, p, len, RWP, NULL));
	EXPECT_EQ(-ENOENT, uk_protect(self->fd, p, len, 0));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(writes(self, at(self, 1)));
}

TEST_F_TIMEOUT(rwp, not_without_the_feature, LIMIT)
{
	EXPECT_EQ(-EINVAL, refit(self, 0, 0, RWP));
	EXPECT_EQ(-EINVAL, uk_register_mode(self->fd, self->m.area, self->m.len,
					    RWP | MISSING, NULL));
	EXPECT_EQ(-ENOENT, track(self, 0, 1));
	/* Nothing can be asked of nothing, so that asking for it is no mistake. */
	EXPECT_EQ(-EINVAL, uk_set_mode(self->fd, ASYNC, 0));
	EXPECT_EQ(0, uk_set_mode(self->fd, 0, ASYNC));
	EXPECT_EQ(0, uk_set_mode(self->fd, 0, 0));
	EXPECT_EQ(-EINVAL, uk_new(O_CLOEXEC, ASYNC));
}

/* Where nothing may be accessed, no access can be told of. */
TEST_F_TIMEOUT(rwp, inaccessible_memory, LIMIT)
{
	char *p = self->m.area;
	size_t len = self->m.len;

	ASSERT_EQ(0, uk_unregister(self->fd, p, len));
	ASSERT_EQ(0, mprotect(at(self, 1), self->unit, PROT_NONE));
	EXPECT_EQ(-EINVAL, uk_register_mode(self->fd, p, len, RWP, NULL));
	EXPECT_EQ(0, uk_census(p, len).armed);
	ASSERT_EQ(0, mprotect(at(self, 1), self->unit, PROT_READ));
	ASSERT_EQ(0, uk_register_mode(self->fd, p, len, RWP, NULL));
	ASSERT_EQ(0, track(self, 0, 2));
	/* It may become so later, and still be let go of. */
	ASSERT_EQ(0, mprotect(at(self, 1), self->unit, PROT_NONE));
	EXPECT_EQ(0, uk_unregister(self->fd, p, len));
	EXPECT_TRUE(no_bits(self));
	ASSERT_EQ(0, mprotect(at(self, 1), self->unit, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(holds(self, 1));
}

/* What is not there. */

TEST_F_TIMEOUT(rwp, holes, LIMIT)
{
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), 3 * self->unit));
	ASSERT_EQ(0, track(self, 0, UNITS));
	EXPECT_EQ(UNITS - 3, bits(self, 0, UNITS));
	EXPECT_EQ(0, uk_pages(self->m.area, self->m.len, UK_PM_SWAP));
	EXPECT_EQ(0, peeks(self, at(self, 1)));
	EXPECT_TRUE(writes(self, at(self, 2)));
	EXPECT_TRUE(is_tracked(self, 0));
	EXPECT_TRUE(is_tracked(self, 4));
	/* What was read is a page now. */
	ASSERT_EQ(0, track(self, 1, 1));
	if (!uk_is_hugetlb(&self->m))
		EXPECT_EQ(1, bits(self, 1, 1));
	EXPECT_TRUE(is_tracked(self, 1));
}

TEST_F_TIMEOUT(rwp, dropped_pages, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, track(self, 0, 3));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), self->unit));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	EXPECT_EQ(0, peeks(self, at(self, 1)));
	EXPECT_TRUE(is_tracked(self, 2));

	/* Who waits for the page finds out when woken. */
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 0)));
	EXPECT_EQ(READ_FAULT, fault_of(self, &t, at(self, 0)));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 0), self->unit));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 0), self->unit));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
}

/* With both modes, each says what it is for; fills do not track. */
TEST_F_TIMEOUT(rwp, with_missing, LIMIT)
{
	char *src = uk_buffer(self->unit);
	struct uk_thread t;

	ASSERT_EQ(0, refit(self, 0, SYNC, RWP | MISSING));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), self->unit));
	ASSERT_EQ(0, track(self, 0, 3));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	EXPECT_EQ(0, fault_of(self, &t, at(self, 1)));
	uk_paint(src, self->unit, 1);
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, at(self, 1), src,
					      self->unit, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(holds(self, 1));
	EXPECT_EQ(0, bits(self, 1, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, uk_copy(self->fd, at(self, 2), src,
						 self->unit, 0));
	UK_EXPECT_FILL(-EINVAL, -EINVAL, uk_copy(self->fd, at(self, 1), src,
						 self->unit,
						 UFFDIO_COPY_MODE_WP));
	EXPECT_TRUE(is_tracked(self, 2));
	ASSERT_EQ(0, track(self, 1, 1));
	EXPECT_TRUE(is_tracked(self, 1));
}

/* What has lost its entry, though the file has the page, is told as that. */
TEST_F_TIMEOUT(rwp, with_minor, LIMIT)
{
	struct uk_thread t;

	if (!uk_is_shared(&self->m))
		SKIP(return, "shared memory only");
	if (!(uk_offered() & (uk_is_hugetlb(&self->m) ?
			      UFFD_FEATURE_MINOR_HUGETLBFS :
			      UFFD_FEATURE_MINOR_SHMEM)))
		SKIP(return, "no minor faults on this kernel");
	ASSERT_EQ(0, refit(self, 0, SYNC, RWP | UFFDIO_REGISTER_MODE_MINOR));
	ASSERT_EQ(0, track(self, 0, 3));
	ASSERT_EQ(0, madvise(at(self, 1), self->unit, MADV_DONTNEED));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_MINOR, fault_of(self, &t, at(self, 1)));
	EXPECT_TRUE(uk_stays(&t));
	UK_EXPECT_FILL(0, self->unit, uk_continue(self->fd, at(self, 1),
						  self->unit, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(holds(self, 1));
	EXPECT_TRUE(is_tracked(self, 0));
	EXPECT_TRUE(is_tracked(self, 2));
}

/* What is moved to where accesses are tracked has not been accessed there. */
TEST_F_TIMEOUT(rwp, moved_there, LIMIT)
{
	struct uk_mem m;
	unsigned int i;

	if (!uk_is_anon(&self->m))
		SKIP(return, "anonymous memory only");
	if (!(uk_offered() & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	ASSERT_EQ(NULL, uk_map(&m, variant->kind, UNITS));
	for (i = 0; i < UNITS; i++)
		uk_paint(uk_at(&m, i), self->unit, i);
	ASSERT_EQ(0, uk_vacate(&self->m, self->m.area, self->m.len));
	UK_ASSERT_FILL(0, 3 * self->unit,
		       uk_move(self->fd, at(self, 0), uk_at(&m, 0),
			       3 * self->unit, 0));
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_TRUE(is_tracked(self, 0));
	EXPECT_EQ(0, untrack(self, 1, 2));
	EXPECT_TRUE(holds(self, 1));
	EXPECT_TRUE(holds(self, 2));

	/* From here, tracked, to where nobody tracks. */
	ASSERT_EQ(0, track(self, 1, 2));
	ASSERT_EQ(0, uk_vacate(&m, m.area, m.len));
	i = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_EQ(0, uk_register(i, m.area, m.len));
	UK_ASSERT_FILL(0, self->unit, uk_move(i, uk_at(&m, 1), at(self, 1),
					      self->unit, 0));
	EXPECT_EQ(0, uk_pages(m.area, m.len, UK_PM_WP));
	EXPECT_TRUE(uk_painted(uk_at(&m, 1), self->unit, 1));
	close(i);
}

/* A huge page, and what is swapped out, are moved in ways of their own. */
TEST_F_TIMEOUT(rwp, moved_there_huge, LIMIT)
{
	size_t huge = uk_huge_size(), pages = huge / getpagesize();
	struct uk_mem m;

	if (variant->kind != UK_ANON)
		SKIP(return, "memory that may have huge pages only");
	if (!(uk_offered() & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	ASSERT_EQ(NULL, uk_map(&m, UK_ANON, UNITS));
	uk_paint(m.area, huge, 4);
	if (uk_huge(m.area, huge) <= 0)
		SKIP(return, "no huge page was to be had");
	ASSERT_EQ(0, uk_vacate(&self->m, self->m.area, self->m.len));
	UK_ASSERT_FILL(0, huge, uk_move(self->fd, self->m.area, m.area, huge, 0));
	EXPECT_EQ(pages, uk_huge(self->m.area, huge));
	EXPECT_EQ(pages, uk_pages(self->m.area, huge, UK_PM_WP));
	EXPECT_TRUE(is_tracked(self, 3));
	EXPECT_EQ(pages - 1, uk_pages(self->m.area, huge, UK_PM_WP));
	ASSERT_EQ(0, rwprotect(self->fd, self->m.area, huge, 0));
	EXPECT_TRUE(uk_painted(self->m.area, 3 * self->unit, 4));
}

TEST_F_TIMEOUT(rwp, moved_there_swapped, LIMIT)
{
	struct uk_mem m;
	const char *why;

	if (variant->kind != UK_ANON_SMALL)
		SKIP(return, "small anonymous pages only");
	if (!(uk_offered() & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	why = uk_swap_on(4 * self->m.len);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(NULL, uk_map(&m, variant->kind, UNITS));
	uk_paint(uk_at(&m, 1), self->unit, 1);
	ASSERT_TRUE(uk_swap_out(uk_at(&m, 1), self->unit));
	ASSERT_EQ(0, uk_vacate(&self->m, self->m.area, self->m.len));
	UK_ASSERT_FILL(0, self->unit, uk_move(self->fd, at(self, 1),
					      uk_at(&m, 1), self->unit, 0));
	EXPECT_EQ(1, bits(self, 1, 1));
	EXPECT_TRUE(is_tracked(self, 1));
	EXPECT_TRUE(uk_painted(at(self, 1), 11, 1));
}

/* Changes of the mapping. */

TEST_F_TIMEOUT(rwp, mprotect_and_back, LIMIT)
{
	static const int prots[] = { PROT_READ, PROT_NONE, PROT_READ };
	struct uffd_msg msg;
	unsigned int i;

	ASSERT_EQ(0, track(self, 1, 2));
	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		ASSERT_EQ(0, mprotect(self->m.area, self->m.len, prots[i]));
		EXPECT_EQ(2, bits(self, 0, UNITS));
		EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, 1), NULL, NULL));
	}
	/* It can be had without the right to write, and does not give it. */
	ASSERT_EQ(0, track(self, 4, 1));
	ASSERT_EQ(0, untrack(self, 2, 1));
	EXPECT_TRUE(holds(self, 2));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, 2), NULL, NULL));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	ASSERT_EQ(0, mprotect(self->m.area, self->m.len,
			      PROT_READ | PROT_WRITE));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	EXPECT_TRUE(is_tracked(self, 1));
	EXPECT_TRUE(is_tracked(self, 4));
	EXPECT_TRUE(writes(self, at(self, 2)));
}

static long move_away(void *arg)
{
	struct rwp_test *self = arg;
	char *to = uk_reserve(self->m.len, self->unit > uk_huge_size() ?
			      self->unit : uk_huge_size());

	if (mremap(self->m.area, self->m.len, self->m.len,
		   MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return -errno;
	return (long)to;
}

TEST_F_TIMEOUT(rwp, mremap_with_event_keeps_it, LIMIT)
{
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_EQ(0, refit(self, 0, SYNC | UFFD_FEATURE_EVENT_REMAP, RWP));
	ASSERT_EQ(0, track(self, 1, 3));
	ASSERT_EQ(0, uk_start(&t, move_away, self));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(UFFD_EVENT_REMAP, msg.event);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	ASSERT_LT(0, t.ret);
	self->m.area = (char *)t.ret;
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_EQ(3, bits(self, 1, 3));
	EXPECT_TRUE(is_tracked(self, 1));
	EXPECT_TRUE(is_tracked(self, 3));
	EXPECT_TRUE(writes(self, at(self, 4)));
}

TEST_F_TIMEOUT(rwp, mremap_without_event_drops_it, LIMIT)
{
	long to;

	ASSERT_EQ(0, rwprotect(self->fd, self->m.area, self->m.len, TRACK));
	to = move_away(self);
	ASSERT_LT(0, to);
	self->m.area = (char *)to;
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(holds(self, 0));
	EXPECT_TRUE(writes(self, at(self, 1)));
	EXPECT_EQ(-ENOENT, track(self, 1, 1));
}

/* Fork. */

struct forker {
	struct rwp_test *self;
	int expect;		/* bits that the child should see */
};

static int forked(void *arg)
{
	struct forker *f = arg;
	int n = bits(f->self, 0, UNITS);

	if (n != f->expect)
		return 100 + n;
	if (!holds(f->self, 1))
		return 98;
	uk_poke(at(f->self, 1));
	return uk_peek(at(f->self, 1)) == 0xa5 ? 0 : 99;
}

TEST_F_TIMEOUT(rwp, fork_without_event_drops_it, LIMIT)
{
	struct forker f = { .self = self };

	ASSERT_EQ(0, track(self, 1, 3));
	EXPECT_EQ(0, uk_in_child(forked, &f));
	/* Here, it goes on. */
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_TRUE(is_tracked(self, 1));
	EXPECT_TRUE(is_tracked(self, 2));
	EXPECT_TRUE(is_tracked(self, 3));
	EXPECT_TRUE(writes(self, at(self, 4)));
}

static long fork_it(void *arg)
{
	return uk_spawn_by_thread(forked, arg, 0);
}

TEST_F_TIMEOUT(rwp, fork_with_event_keeps_it, LIMIT)
{
	struct forker f = { .self = self, .expect = 3 };
	struct uffd_msg msg;
	struct uk_thread t;
	int child;

	if (refit(self, 0, SYNC | UFFD_FEATURE_EVENT_FORK, RWP) == -EPERM)
		SKIP(return, "fork events need root");
	ASSERT_EQ(0, track(self, 1, 3));
	ASSERT_EQ(0, uk_start(&t, fork_it, &f));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
	child = msg.arg.fork.ufd;
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	ASSERT_LT(0, t.ret);

	ASSERT_EQ(1, uk_next(child, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
	EXPECT_EQ(READ_FAULT, msg.arg.pagefault.flags);
	/* Two address spaces, two accounts of what was accessed. */
	EXPECT_EQ(0, untrack(self, 1, 1));
	EXPECT_EQ(-1, uk_reap(t.ret, UK_PAUSE));
	EXPECT_TRUE(holds(self, 1));
	EXPECT_EQ(0, rwprotect(child, at(self, 1), self->unit, 0));
	EXPECT_EQ(0, uk_reap(t.ret, UK_SOON));
	EXPECT_EQ(uk_is_shared(&self->m), uk_peek(at(self, 1)) == 0xa5);
	EXPECT_TRUE(is_tracked(self, 2));
	EXPECT_TRUE(is_tracked(self, 3));
	close(child);
}

/* Swap and migration. */

TEST_F_TIMEOUT(rwp, swapped_page_keeps_it, LIMIT)
{
	const char *why;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "hugetlb is not swapped");
	why = uk_swap_on(2 * self->m.len);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, track(self, 0, 3));
	if (!uk_swap_out(at(self, 0), UNITS * self->unit))
		SKIP(return, "it cannot be swapped out");
	if (uk_is_shared(&self->m)) {
		/* Its entries are empty then, and remember nothing. */
		EXPECT_TRUE(no_bits(self));
		EXPECT_TRUE(holds(self, 1));
		return;
	}
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_TRUE(is_tracked(self, 0));
	EXPECT_TRUE(is_tracked(self, 1));
	/* Lifted while the page is away. */
	ASSERT_EQ(0, untrack(self, 2, 1));
	EXPECT_EQ(0, bits(self, 2, 1));
	EXPECT_TRUE(holds(self, 2));
	EXPECT_TRUE(writes(self, at(self, 4)));
	EXPECT_TRUE(holds(self, 5));

	/* Nothing of it is left with swapped pages either. */
	ASSERT_EQ(0, track(self, 0, UNITS));
	ASSERT_TRUE(uk_swap_out(at(self, 0), UNITS * self->unit));
	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(holds(self, 5));
	EXPECT_TRUE(writes(self, at(self, 5)));
}

TEST_F_TIMEOUT(rwp, migrated_page_keeps_it, LIMIT)
{
	if (uk_is_hugetlb(&self->m))
		SKIP(return, "small pages only");
	ASSERT_EQ(0, track(self, 0, 3));
	/* Its page goes out of use, and it gets another. That looks it up first. */
	ASSERT_EQ(0, untrack(self, 4, 1));
	if (madvise(at(self, 4), self->unit, MADV_SOFT_OFFLINE))
		SKIP(return, "no way to have a page replaced: %s",
		     strerror(errno));
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_TRUE(holds(self, 4));
	EXPECT_TRUE(writes(self, at(self, 4)));
	EXPECT_TRUE(is_tracked(self, 1));
	EXPECT_TRUE(is_tracked(self, 0));
}

/* Huge pages. */

TEST_F_TIMEOUT(rwp, huge_page_whole_and_split, LIMIT)
{
	size_t huge = uk_huge_size(), pages = huge / self->unit;
	char *area = self->m.area;

	if (variant->kind != UK_ANON)
		SKIP(return, "memory that may have huge pages only");
	if (uk_huge(area, self->m.len) <= 0)
		SKIP(return, "no huge page was to be had");

	/* Whole, it stays whole. */
	ASSERT_EQ(0, rwprotect(self->fd, area, huge, TRACK));
	EXPECT_EQ(pages, uk_pages(area, self->m.len, UK_PM_WP));
	EXPECT_EQ(pages, uk_huge(area, huge));
	ASSERT_EQ(0, rwprotect(self->fd, area, huge, 0));
	EXPECT_EQ(pages, uk_huge(area, huge));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(writes(self, at(self, 1)));

	/* To lift it from one page leaves it to the others. */
	ASSERT_EQ(0, rwprotect(self->fd, area, huge, TRACK));
	EXPECT_TRUE(is_tracked(self, 2));
	EXPECT_EQ(pages - 1, uk_pages(area, self->m.len, UK_PM_WP));
	EXPECT_EQ(0, uk_huge(area, huge));
	EXPECT_TRUE(is_tracked(self, 0));
	EXPECT_TRUE(is_tracked(self, pages - 1));

	/* Split by others: unmapped in part, another protection for a part. */
	ASSERT_EQ(0, madvise(at(self, 3), self->unit, MADV_DONTNEED));
	ASSERT_EQ(0, mprotect(at(self, 5), self->unit, PROT_READ));
	ASSERT_EQ(0, mprotect(at(self, 5), self->unit, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(is_tracked(self, 5));
	EXPECT_EQ(0, peeks(self, at(self, 3)));
}

TEST_F_TIMEOUT(rwp, huge_page_told_whole, LIMIT)
{
	size_t huge = uk_huge_size();
	struct uk_thread t;
	char *addr = at(self, 3);

	if (variant->kind != UK_ANON)
		SKIP(return, "memory that may have huge pages only");
	if (uk_huge(self->m.area, self->m.len) <= 0)
		SKIP(return, "no huge page was to be had");
	ASSERT_EQ(0, rwprotect(self->fd, self->m.area, huge, TRACK));
	ASSERT_EQ(0, uk_start(&t, uk_peek, addr));
	EXPECT_EQ(READ_FAULT, fault_of(self, &t, addr));
	EXPECT_TRUE(uk_stays(&t));
	ASSERT_EQ(0, rwprotect(self->fd, self->m.area, huge, 0));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(huge / self->unit, uk_huge(self->m.area, huge));
	EXPECT_TRUE(holds(self, 3));
}

/* Making huge pages of small ones must not lose it. */
TEST_F_TIMEOUT(rwp, collapse, LIMIT)
{
	size_t huge = uk_huge_size(), i;

	if (variant->kind != UK_ANON)
		SKIP(return, "anonymous memory that may be collapsed only");
	ASSERT_EQ(0, madvise(self->m.area, huge, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, uk_vacate(&self->m, self->m.area, huge));
	for (i = 0; i < huge / self->unit; i++)
		uk_paint(at(self, i), self->unit, i);
	ASSERT_EQ(0, uk_huge(self->m.area, huge));
	ASSERT_EQ(0, track(self, 1, 2));
	ASSERT_EQ(0, madvise(self->m.area, huge, MADV_HUGEPAGE));
	madvise(self->m.area, huge, MADV_COLLAPSE);
	EXPECT_EQ(2, uk_pages(self->m.area, huge, UK_PM_WP));
	EXPECT_EQ(2, bits(self, 1, 2));
	EXPECT_TRUE(is_tracked(self, 1));
	EXPECT_TRUE(is_tracked(self, 2));
	for (i = 3; i < huge / self->unit; i++)
		ASSERT_TRUE(holds(self, i));
	EXPECT_TRUE(writes(self, at(self, 3)));
}

/* Accesses by the kernel. */

static const struct {
	const char *name;
	long (*fn)(void *arg);
	__u64 flags;
} accesses[] = {
	{ "write", uk_by_write, READ_FAULT },
	{ "read", uk_by_read, WRITE_FAULT },
	{ "process_vm_readv", uk_by_vm_readv, READ_FAULT },
	{ "process_vm_writev", uk_by_vm_writev, WRITE_FAULT },
};

/* An access to 8 bytes, with "kernel!!" on its other side. */
static int access_prepare(struct uk_access *a, char *addr, char *out)
{
	memcpy(out, "kernel!!", 8);
	a->addr = addr;
	a->out = out;
	if (pipe2(a->pipe, O_CLOEXEC))
		return -errno;
	return write(a->pipe[1], out, 8) == 8 ? 0 : -EIO;
}

static void access_done(struct uk_access *a)
{
	close(a->pipe[0]);
	close(a->pipe[1]);
}

TEST_F_TIMEOUT(rwp, access_by_the_kernel, LIMIT)
{
	struct uk_access a;
	char out[8];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		struct uk_thread t;

		ASSERT_EQ(0, access_prepare(&a, at(self, 1) + 64, out));
		ASSERT_EQ(0, track(self, 0, 3));
		ASSERT_EQ(0, uk_start(&t, accesses[i].fn, &a));
		EXPECT_EQ(accesses[i].flags, fault_of(self, &t, a.addr)) {
			TH_LOG("%s", accesses[i].name);
		}
		EXPECT_TRUE(uk_stays(&t));
		EXPECT_EQ(0, untrack(self, 1, 1));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		EXPECT_EQ(8, t.ret);
		EXPECT_EQ(2, bits(self, 0, 3));
		EXPECT_EQ(0, untrack(self, 0, UNITS));
		access_done(&a);
	}
	EXPECT_EQ(0, memcmp(at(self, 1) + 64, "kernel!!", 8));
}

static void refused(struct __test_metadata *_metadata, struct rwp_test *self)
{
	struct uk_access a;
	struct uffd_msg msg;
	char out[8];
	unsigned int i;

	ASSERT_EQ(0, track(self, 1, 1));
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		ASSERT_EQ(0, access_prepare(&a, at(self, 1) + 64, out));
		EXPECT_EQ(-EFAULT, accesses[i].fn(&a)) {
			TH_LOG("%s", accesses[i].name);
		}
		access_done(&a);
	}
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(1, bits(self, 1, 1));
}

TEST_F_TIMEOUT(rwp, user_mode_only, LIMIT)
{
	ASSERT_EQ(0, refit(self, UFFD_USER_MODE_ONLY, SYNC, RWP));
	refused(_metadata, self);
	EXPECT_TRUE(is_tracked(self, 1));
}

TEST_F_TIMEOUT(rwp, sigbus, LIMIT)
{
	char *addr = at(self, 1) + 5;
	void *where = NULL;
	int code = 0;

	ASSERT_EQ(0, refit(self, 0, SYNC | UFFD_FEATURE_SIGBUS, RWP));
	refused(_metadata, self);
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, addr, &where, &code));
	EXPECT_EQ(addr, (char *)where);
	EXPECT_EQ(BUS_ADRERR, code);
	EXPECT_EQ(SIGBUS, uk_catch(uk_poke, addr, NULL, NULL));
	EXPECT_EQ(0, untrack(self, 1, 1));
	EXPECT_EQ(0, uk_catch(uk_poke, addr, NULL, NULL));
}

/* RWP_ASYNC: what has been accessed is found out afterwards. */

/*
 * Bit i of the result says that some of unit i has been accessed since it was
 * tracked last, or is as if it had.
 */
static long accessed(struct rwp_test *self)
{
	struct page_region out[UNITS * 2];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = (unsigned long)at(self, 0),
		.end = (unsigned long)at(self, UNITS),
		.vec = (unsigned long)out,
		.vec_len = UNITS * 2,
		.category_mask = PAGE_IS_ACCESSED,
		.return_mask = PAGE_IS_ACCESSED,
	};
	long set = 0;
	int i, n;

	n = ioctl(self->pagemap, PAGEMAP_SCAN, &scan);
	if (n < 0)
		return -errno;
	for (i = 0; i < n; i++) {
		char *end = (char *)(unsigned long)out[i].end;
		char *q = (char *)(unsigned long)out[i].start;

		for (; q < end; q += getpagesize())
			set |= 1 << (q - self->m.area) / self->unit;
	}
	return set;
}

#define ALL ((1 << UNITS) - 1)

TEST_F_TIMEOUT(rwp, async, LIMIT)
{
	ASSERT_EQ(0, refit(self, 0, SYNC | ASYNC, RWP));
	EXPECT_EQ(ALL, accessed(self));
	ASSERT_EQ(0, track(self, 0, UNITS));
	EXPECT_EQ(0, accessed(self));
	EXPECT_EQ(UNITS, bits(self, 0, UNITS));
	EXPECT_LE(0, peeks(self, at(self, 1) + 9));
	EXPECT_TRUE(writes(self, at(self, 4) + 9));
	EXPECT_EQ(1 << 1 | 1 << 4, accessed(self));
	EXPECT_EQ(UNITS - 2, bits(self, 0, UNITS));
	EXPECT_TRUE(holds(self, 0));
	EXPECT_EQ(1 << 0 | 1 << 1 | 1 << 4, accessed(self));

	/* Of what is tracked anew, only what is touched anew. */
	ASSERT_EQ(0, track(self, 0, UNITS));
	EXPECT_EQ(0, accessed(self));
	EXPECT_TRUE(writes(self, at(self, 5)));
	EXPECT_EQ(1 << 5, accessed(self));
	/* Lifted by the handler it looks accessed. */
	ASSERT_EQ(0, untrack(self, 2, 1));
	EXPECT_EQ(1 << 2 | 1 << 5, accessed(self));
	EXPECT_TRUE(holds(self, 2));
	EXPECT_TRUE(holds(self, 3));
}

/* Holes are no part of it, neither empty nor filled. */
TEST_F_TIMEOUT(rwp, async_holes, LIMIT)
{
	ASSERT_EQ(0, refit(self, 0, SYNC | ASYNC, RWP));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), 2 * self->unit));
	ASSERT_EQ(0, track(self, 0, UNITS));
	EXPECT_EQ(0, accessed(self));
	EXPECT_TRUE(writes(self, at(self, 1)));
	EXPECT_EQ(1 << 1, accessed(self));
}

TEST_F_TIMEOUT(rwp, async_by_the_kernel, LIMIT)
{
	struct uk_access a;
	char out[8];
	unsigned int i;

	ASSERT_EQ(0, refit(self, 0, SYNC | ASYNC, RWP));
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		ASSERT_EQ(0, access_prepare(&a, at(self, 3) + 64, out));
		ASSERT_EQ(0, track(self, 0, UNITS));
		EXPECT_EQ(8, accesses[i].fn(&a));
		EXPECT_EQ(1 << 3, accessed(self)) {
			TH_LOG("%s", accesses[i].name);
		}
		access_done(&a);
	}
}

TEST_F_TIMEOUT(rwp, async_swapped, LIMIT)
{
	const char *why;

	if (uk_is_hugetlb(&self->m) || uk_is_shared(&self->m))
		SKIP(return, "private memory of small pages only");
	why = uk_swap_on(2 * self->m.len);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, refit(self, 0, SYNC | ASYNC, RWP));
	ASSERT_EQ(0, track(self, 0, UNITS));
	if (!uk_swap_out(at(self, 0), UNITS * self->unit))
		SKIP(return, "it cannot be swapped out");
	EXPECT_EQ(0, accessed(self));
	EXPECT_LE(0, peeks(self, at(self, 1)));
	EXPECT_EQ(1 << 1, accessed(self));
	EXPECT_TRUE(writes(self, at(self, 2)));
	EXPECT_EQ(1 << 1 | 1 << 2, accessed(self));
	EXPECT_TRUE(holds(self, 1));
}

TEST_F_TIMEOUT(rwp, async_huge_page, LIMIT)
{
	size_t huge = uk_huge_size();

	if (variant->kind != UK_ANON)
		SKIP(return, "memory that may have huge pages only");
	if (uk_huge(self->m.area, self->m.len) <= 0)
		SKIP(return, "no huge page was to be had");
	ASSERT_EQ(0, refit(self, 0, SYNC | ASYNC, RWP));
	ASSERT_EQ(0, rwprotect(self->fd, self->m.area, huge, TRACK));
	EXPECT_EQ(0, accessed(self));
	EXPECT_TRUE(writes(self, at(self, 3)));
	EXPECT_EQ(ALL, accessed(self));
	EXPECT_EQ(huge / self->unit, uk_huge(self->m.area, huge));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(holds(self, 2));
}

static int forked_async(void *arg)
{
	struct rwp_test *self = arg;

	if (!no_bits(self))
		return 97;
	return holds(self, 1) && holds(self, 3) ? 0 : 98;
}

TEST_F_TIMEOUT(rwp, async_forked, LIMIT)
{
	ASSERT_EQ(0, refit(self, 0, SYNC | ASYNC, RWP));
	ASSERT_EQ(0, track(self, 0, UNITS));
	EXPECT_EQ(0, uk_in_child(forked_async, self));
	EXPECT_EQ(0, accessed(self));
	EXPECT_TRUE(writes(self, at(self, 1)));
	EXPECT_EQ(1 << 1, accessed(self));
}

/* SET_MODE. */

TEST_F_TIMEOUT(rwp, set_mode_arguments, LIMIT)
{
	int bit, fd;

	EXPECT_EQ(0, uk_set_mode(self->fd, 0, 0));
	EXPECT_EQ(0, uk_set_mode(self->fd, ASYNC, 0));
	EXPECT_EQ(0, uk_set_mode(self->fd, ASYNC, 0));
	EXPECT_EQ(0, uk_set_mode(self->fd, 0, ASYNC));
	EXPECT_EQ(0, uk_set_mode(self->fd, 0, ASYNC));
	EXPECT_EQ(-EINVAL, uk_set_mode(self->fd, ASYNC, ASYNC));
	for (bit = 0; bit < 64; bit++) {
		if (UK_BIT(bit) == ASYNC)
			continue;
		EXPECT_EQ(-EINVAL, uk_set_mode(self->fd, UK_BIT(bit), 0));
		EXPECT_EQ(-EINVAL, uk_set_mode(self->fd, 0, UK_BIT(bit)));
		EXPECT_EQ(-EINVAL, uk_set_mode(self->fd, ASYNC, UK_BIT(bit)));
	}
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_SET_MODE, NULL));
	EXPECT_EQ(EFAULT, errno);

	fd = uk_open(O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EINVAL, uk_set_mode(fd, 0, 0));
	close(fd);
}

TEST_F_TIMEOUT(rwp, set_mode_back_and_forth, LIMIT)
{
	struct uk_info info;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, uk_set_mode(self->fd, ASYNC, 0));
		ASSERT_EQ(0, uk_fdinfo(self->fd, &info));
		EXPECT_EQ(SYNC | ASYNC, info.features & (SYNC | ASYNC));
		ASSERT_EQ(0, track(self, 0, UNITS));
		EXPECT_LE(0, peeks(self, at(self, 1)));
		EXPECT_EQ(1 << 1, accessed(self));
		/* What has been tracked before is told of from here on. */
		ASSERT_EQ(0, uk_set_mode(self->fd, 0, ASYNC));
		ASSERT_EQ(0, uk_fdinfo(self->fd, &info));
		EXPECT_EQ(SYNC, info.features & (SYNC | ASYNC));
		EXPECT_LE(0, peeks(self, at(self, 1)));
		EXPECT_TRUE(is_tracked(self, 2));
		EXPECT_TRUE(is_tracked(self, 5));
		EXPECT_EQ(1 << 1 | 1 << 2 | 1 << 5, accessed(self));
	}
}

/* Those who wait need no longer, whether their message has been read or not. */
TEST_F_TIMEOUT(rwp, set_mode_wakes, LIMIT)
{
	struct uk_thread t[3];
	struct uffd_msg msg;
	unsigned int i;

	ASSERT_EQ(0, track(self, 0, UNITS));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, uk_start(&t[i], uk_peek, at(self, i)));
	ASSERT_TRUE(uk_parked(self->fd, 3, 3));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(uk_stays(&t[i]));
	/* To switch off what is off wakes nobody. */
	ASSERT_EQ(0, uk_set_mode(self->fd, 0, ASYNC));
	EXPECT_TRUE(uk_stays(&t[1]));
	ASSERT_EQ(0, uk_set_mode(self->fd, ASYNC, 0));
	EXPECT_TRUE(uk_join_all(t, 3));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(1 << 0 | 1 << 1 | 1 << 2, accessed(self));
	EXPECT_TRUE(holds(self, 0));
}

/* A missing page is not found by that: its thread waits on. */
TEST_F_TIMEOUT(rwp, set_mode_and_missing, LIMIT)
{
	char *src = uk_buffer(self->unit);
	struct uk_thread t;

	ASSERT_EQ(0, refit(self, 0, SYNC, RWP | MISSING));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), self->unit));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	EXPECT_EQ(0, fault_of(self, &t, at(self, 1)));
	ASSERT_EQ(0, uk_set_mode(self->fd, ASYNC, 0));
	/* It is woken, and comes again. */
	EXPECT_EQ(0, fault_of(self, &t, at(self, 1)));
	EXPECT_TRUE(uk_stays(&t));
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, at(self, 1), src,
					      self->unit, 0));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

/* Accesses, tracking and switching at once: nothing is lost, nobody is stuck. */
TEST_F_TIMEOUT(rwp, set_mode_under_way, LIMIT)
{
	struct uk_counter c = { .mem = &self->m };
	long long end = uk_now() + 500;
	struct uffd_msg msg;
	struct uk_thread t;
	unsigned int i, told = 0, switched = 0;

	for (i = 0; i < UNITS; i++)
		uk_set((unsigned int *)at(self, i), 0);
	ASSERT_EQ(0, uk_start(&t, uk_count_up, &c));
	while (uk_now() < end) {
		ASSERT_EQ(0, track(self, 0, UNITS));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		ASSERT_EQ(READ_FAULT, msg.arg.pagefault.flags & READ_FAULT);
		told++;
		/* Its thread waits; in one of two ways it goes on. */
		if (told & 1) {
			ASSERT_EQ(0, uk_set_mode(self->fd, ASYNC, 0));
			ASSERT_EQ(0, track(self, 0, UNITS));
			ASSERT_EQ(0, uk_set_mode(self->fd, 0, ASYNC));
			switched++;
		}
		ASSERT_EQ(0, untrack(self, 0, UNITS));
		while (uk_read(self->fd, &msg, 1) == 1)
			;
	}
	uk_set(&c.stop, true);
	EXPECT_EQ(0, untrack(self, 0, UNITS));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	for (i = 0; i < UNITS; i++)
		EXPECT_EQ(c.sum[i], uk_get((unsigned int *)at(self, i)));
	TH_LOG("%u faults, %u switches", told, switched);
}

/* The descriptor of a process that is gone, in the hands of another. */

static int leave_it(void *arg)
{
	int *sock = arg;
	int fd = uk_new(O_CLOEXEC, SYNC);

	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_send_fd(sock[1], fd));
	return 0;
}

TEST(rwp_of_a_process_that_is_gone)
{
	size_t page = getpagesize();
	char *area = uk_buffer(page);
	int sock[2], fd;

	if (!offered())
		SKIP(return, "no tracking of accesses on this kernel");
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	ASSERT_EQ(0, uk_in_child(leave_it, sock));
	fd = uk_recv_fd(sock[0]);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-ESRCH, rwprotect(fd, area, page, TRACK));
	EXPECT_EQ(-ESRCH, uk_set_mode(fd, ASYNC, 0));
	EXPECT_EQ(-EINVAL, uk_set_mode(fd, ASYNC, ASYNC));
	EXPECT_EQ(-ENOMEM, uk_register_mode(fd, area, page, RWP, NULL));
	close(fd);
}

/* What UFFDIO_API says. */
TEST(rwp_handshake)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = uk_open(UFFD_USER_MODE_ONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ioctl(fd, UFFDIO_API, &api));
	if (!(api.features & SYNC)) {
		EXPECT_EQ(0, api.features & ASYNC);
		EXPECT_EQ(-EINVAL, uk_new(UFFD_USER_MODE_ONLY, SYNC));
		EXPECT_EQ(-EINVAL, uk_new(UFFD_USER_MODE_ONLY, SYNC | ASYNC));
		EXPECT_EQ(-EINVAL, uk_set_mode(fd, ASYNC, 0));
		EXPECT_EQ(-EINVAL, uk_set_mode(fd, 0, ASYNC));
		close(fd);
		return;
	}
	EXPECT_EQ(ASYNC, api.features & ASYNC);
	EXPECT_EQ(UK_BIT(_UFFDIO_SET_MODE),
		  api.ioctls & UK_BIT(_UFFDIO_SET_MODE));
	close(fd);
	/* One is nothing without the other. */
	EXPECT_EQ(-EINVAL, uk_new(UFFD_USER_MODE_ONLY, ASYNC));
	fd = uk_new(UFFD_USER_MODE_ONLY, SYNC | ASYNC);
	EXPECT_LE(0, fd);
	close(fd);
}

TEST_HARNESS_MAIN
