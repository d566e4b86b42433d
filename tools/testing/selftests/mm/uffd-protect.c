// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: write protection.
 *
 * UFFDIO_WRITEPROTECT, fills that leave pages protected, what a write to a
 * protected page reports, and what becomes of the protection when memory is
 * forked, moved, swapped, split, merged or unregistered. Then WP_ASYNC, where
 * writes do not wait and PAGEMAP_SCAN tells afterwards where they went.
 *
 * Whether a page is protected is seen in two ways: by bit 57 of its entry in
 * /proc/self/pagemap, and by writing to it.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/fs.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		6
#define LIMIT		60

#define WP		UFFDIO_REGISTER_MODE_WP
#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define MINOR		UFFDIO_REGISTER_MODE_MINOR

#define PROTECT		UFFDIO_WRITEPROTECT_MODE_WP
#define DONTWAKE	UFFDIO_WRITEPROTECT_MODE_DONTWAKE

/* What a fault says that is due to protection. */
#define WP_FAULT	(UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif

/* FIXTURE_DATA(protect), by a name that reads well in a prototype. */
#define protect_test _test_data_protect

FIXTURE(protect)
{
	struct uk_mem m;
	size_t unit;
	int fd;
	char *src;		/* of from() */
};

FIXTURE_VARIANT(protect)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(protect, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(protect, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(protect, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(protect, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(protect, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(protect, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

static char *at(struct protect_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

/* Something to copy: unit i is painted with seed i + 10. */
static char *from(struct protect_test *self, unsigned int unit)
{
	unsigned int i;

	if (!self->src) {
		self->src = uk_buffer(UNITS * self->unit);
		if (!self->src)
			return NULL;
		for (i = 0; i < UNITS; i++)
			uk_paint(self->src + i * self->unit, self->unit,
				 i + 10);
	}
	return self->src + unit * self->unit;
}

static bool holds(struct protect_test *self, unsigned int unit,
		  unsigned long seed)
{
	return uk_painted(at(self, unit), self->unit, seed);
}

/* Another descriptor for the same memory; the old one takes all it did along. */
static int refit(struct protect_test *self, int flags, __u64 features,
		 __u64 mode)
{
	if (self->fd >= 0)
		close(self->fd);
	self->fd = uk_new(flags | O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register_mode(self->fd, self->m.area, self->m.len, mode, NULL);
}

/* Units 0 to UNITS - 1 are there, painted with their numbers, not protected. */
FIXTURE_SETUP(protect)
{
	const char *why;
	unsigned int i;
	int err;

	self->fd = -1;
	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	if (!(uk_offered() & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		SKIP(return, "no write protection on this kernel");
	if (!uk_is_anon(&self->m) &&
	    !(uk_offered() & UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		SKIP(return, "no write protection of files on this kernel");
	for (i = 0; i < UNITS; i++)
		uk_paint(at(self, i), self->unit, i);
	err = refit(self, 0, 0, WP);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(protect)
{
	close(self->fd);
	uk_swap_off();
}

static int wp(struct protect_test *self, unsigned int unit, unsigned int count)
{
	return uk_protect(self->fd, at(self, unit), count * self->unit,
			  PROTECT);
}

static int unwp(struct protect_test *self, unsigned int unit,
		unsigned int count)
{
	return uk_protect(self->fd, at(self, unit), count * self->unit, 0);
}

/* How many units have the bit: -1 if a part of one has it, or on an error. */
static long bits(struct protect_test *self, unsigned int unit,
		 unsigned int count)
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

/* Nothing of the whole area, also not outside the units that we play with. */
static bool no_bits(struct protect_test *self)
{
	return !uk_pages(self->m.area, self->m.len, UK_PM_WP);
}

/* No page table entry that is neither empty nor a page. */
static bool no_markers(struct protect_test *self)
{
	return !uk_pages(self->m.area, self->m.len, UK_PM_SWAP);
}

static __u64 fault_of(struct protect_test *self, struct uk_thread *t,
		      const char *addr)
{
	return uk_fault_flags(self->fd, &self->m, t, addr);
}

static __u64 write_to(struct protect_test *self, struct uk_thread *t,
		      char *addr)
{
	if (uk_start(t, uk_poke, addr))
		return UK_STRANGE;
	return fault_of(self, t, addr);
}

/* A write that is nobody's concern. */
static bool writes(struct protect_test *self, char *addr)
{
	struct uk_thread t;

	return write_to(self, &t, addr) == UK_NO_FAULT && uk_join(&t, UK_SOON) &&
	       (unsigned char)*addr == 0xa5;
}

/* A write that waits until the unit is not protected any more. */
static bool is_protected(struct protect_test *self, unsigned int unit)
{
	struct uk_thread t;
	char *addr = at(self, unit) + 11;
	char old = *addr;
	bool ok;

	ok = write_to(self, &t, addr) == WP_FAULT && !uk_finished(&t) &&
	     *addr == old;
	return !unwp(self, unit, 1) && uk_join(&t, UK_SOON) && ok &&
	       (unsigned char)*addr == 0xa5;
}

/* What the faults say. */

TEST_F_TIMEOUT(protect, message_of_a_write, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, wp(self, 1, 1));
	ASSERT_EQ(0, uk_start(&t, uk_poke, at(self, 1) + 123));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(UFFD_EVENT_PAGEFAULT, msg.event);
	EXPECT_EQ(WP_FAULT, msg.arg.pagefault.flags);
	EXPECT_EQ((unsigned long)at(self, 1), msg.arg.pagefault.address);
	EXPECT_EQ(0, msg.arg.reserved.reserved3);

	/* It came once, the thread waits, others may read. */
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(holds(self, 1, 1));

	EXPECT_EQ(0, unwp(self, 1, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0xa5, uk_peek(at(self, 1) + 123));
	EXPECT_TRUE(uk_painted(at(self, 1), 120, 1));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
}

TEST_F_TIMEOUT(protect, exact_address_and_thread_id, LIMIT)
{
	char *addr = at(self, 2) + self->unit - 5;
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_EXACT_ADDRESS |
			   UFFD_FEATURE_THREAD_ID, WP));
	ASSERT_EQ(0, wp(self, 2, 1));
	ASSERT_EQ(0, uk_start(&t, uk_poke, addr));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, addr));
	EXPECT_EQ(WP_FAULT, msg.arg.pagefault.flags);
	EXPECT_EQ(t.tid, msg.arg.pagefault.feat.ptid);
	EXPECT_EQ(0, unwp(self, 2, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

TEST_F_TIMEOUT(protect, reading_is_free, LIMIT)
{
	int i;

	ASSERT_EQ(0, wp(self, 0, UNITS));
	for (i = 0; i < UNITS; i++) {
		struct uk_thread t;

		ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, i) + 40));
		EXPECT_EQ(UK_NO_FAULT, fault_of(self, &t, at(self, i)));
		EXPECT_TRUE(uk_join(&t, UK_SOON));
		EXPECT_TRUE(holds(self, i, i));
	}
	EXPECT_EQ(UNITS, bits(self, 0, UNITS));
}

TEST_F_TIMEOUT(protect, registering_says_what_is_possible, LIMIT)
{
	__u64 ioctls;

	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      MISSING, &ioctls));
	EXPECT_EQ(0, ioctls & UK_BIT(_UFFDIO_WRITEPROTECT));
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len, WP,
				      &ioctls));
	EXPECT_NE(0, ioctls & UK_BIT(_UFFDIO_WRITEPROTECT));
	EXPECT_EQ(0, ioctls & UK_BIT(_UFFDIO_CONTINUE));
	/* To register is not to protect. */
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(writes(self, at(self, 0)));
}

/* Protecting. */

TEST_F_TIMEOUT(protect, each_alone, LIMIT)
{
	int i;

	for (i = 0; i < UNITS; i += 2)
		ASSERT_EQ(0, wp(self, i, 1));
	EXPECT_EQ(UNITS / 2, bits(self, 0, UNITS));
	for (i = 0; i < UNITS; i++) {
		EXPECT_EQ(!(i & 1), bits(self, i, 1));
		EXPECT_TRUE(i & 1 ? writes(self, at(self, i)) :
				    is_protected(self, i));
		EXPECT_TRUE(writes(self, at(self, i) + 99));
	}
	EXPECT_TRUE(no_bits(self));
}

TEST_F_TIMEOUT(protect, again_and_again, LIMIT)
{
	int i;

	/* Twice is once, both ways. */
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, unwp(self, 0, UNITS));
		EXPECT_TRUE(no_bits(self));
		ASSERT_EQ(0, wp(self, 1, 3));
		ASSERT_EQ(0, wp(self, 2, 1));
		EXPECT_EQ(3, bits(self, 0, UNITS));
		ASSERT_EQ(0, unwp(self, 1, 3));
		ASSERT_EQ(0, unwp(self, 2, 1));
		EXPECT_TRUE(no_bits(self));
		ASSERT_EQ(0, wp(self, 2, 1));
		EXPECT_TRUE(is_protected(self, 2));
		EXPECT_TRUE(writes(self, at(self, 3)));
	}
}

TEST_F_TIMEOUT(protect, everything, LIMIT)
{
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->m.len, PROTECT));
	EXPECT_EQ(UNITS, bits(self, 0, UNITS));
	EXPECT_TRUE(is_protected(self, 0));
	EXPECT_TRUE(is_protected(self, UNITS - 1));
	EXPECT_EQ(UNITS - 2, bits(self, 0, UNITS));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->m.len, 0));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(writes(self, at(self, 2)));
}

TEST_F_TIMEOUT(protect, dontwake_then_wake, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, wp(self, 1, 1));
	ASSERT_EQ(WP_FAULT, write_to(self, &t, at(self, 1)));
	EXPECT_EQ(0, uk_protect(self->fd, at(self, 1), self->unit, DONTWAKE));
	EXPECT_EQ(0, bits(self, 1, 1));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 0), self->unit));
	EXPECT_EQ(0, unwp(self, 2, 1));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 1), self->unit));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(writes(self, at(self, 1) + 8));
}

/* Woken for nothing, a writer faults again; protecting wakes nobody. */
TEST_F_TIMEOUT(protect, wake_while_protected, LIMIT)
{
	struct uk_thread t;
	int i;

	ASSERT_EQ(0, wp(self, 1, 1));
	ASSERT_EQ(WP_FAULT, write_to(self, &t, at(self, 1)));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, wp(self, 0, 3));
		EXPECT_TRUE(uk_stays(&t));
		EXPECT_EQ(0, uk_poll(self->fd, 0));
		EXPECT_EQ(0, uk_wake(self->fd, at(self, 1), self->unit));
		EXPECT_EQ(WP_FAULT, fault_of(self, &t, at(self, 1)));
	}
	EXPECT_EQ(0, unwp(self, 1, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

TEST_F_TIMEOUT(protect, only_the_range_is_woken, LIMIT)
{
	struct uk_thread t[UNITS];
	int i;

	ASSERT_EQ(0, wp(self, 0, UNITS));
	for (i = 0; i < UNITS; i++)
		ASSERT_EQ(WP_FAULT, write_to(self, &t[i], at(self, i) + 8 * i));
	EXPECT_EQ(0, unwp(self, 2, 2));
	EXPECT_TRUE(uk_join(&t[2], UK_SOON));
	EXPECT_TRUE(uk_join(&t[3], UK_SOON));
	EXPECT_TRUE(uk_stays(&t[1]));
	EXPECT_FALSE(uk_finished(&t[0]));
	EXPECT_FALSE(uk_finished(&t[4]));
	EXPECT_FALSE(uk_finished(&t[5]));
	EXPECT_EQ(0, unwp(self, 0, UNITS));
	EXPECT_TRUE(uk_join_all(t, UNITS));
}

TEST_F_TIMEOUT(protect, unregistering_wakes_writers, LIMIT)
{
	struct uk_thread t;

	/* It is the mode MISSING that makes unregistering wake. */
	ASSERT_EQ(0, refit(self, 0, 0, MISSING | WP));
	ASSERT_EQ(0, wp(self, 1, 1));
	ASSERT_EQ(WP_FAULT, write_to(self, &t, at(self, 1)));
	EXPECT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0xa5, uk_peek(at(self, 1)));
}

TEST_F_TIMEOUT(protect, closing_wakes_writers, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, wp(self, 1, 1));
	ASSERT_EQ(WP_FAULT, write_to(self, &t, at(self, 1)));
	close(self->fd);
	self->fd = -1;
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0xa5, uk_peek(at(self, 1)));
	EXPECT_TRUE(no_bits(self));
}

/* Arguments. */

TEST_F_TIMEOUT(protect, arguments, LIMIT)
{
	char *p = at(self, 1);
	size_t u = self->unit;
	int bit;

	EXPECT_EQ(-EINVAL, uk_protect(self->fd, p + 1, u, PROTECT));
	EXPECT_EQ(-EINVAL, uk_protect(self->fd, p, u - 1, PROTECT));
	EXPECT_EQ(-EINVAL, uk_protect(self->fd, p, 0, PROTECT));
	EXPECT_EQ(-EINVAL, uk_protect(self->fd, p, -u, PROTECT));
	EXPECT_EQ(-EINVAL, uk_protect(self->fd, UK_KERNEL_SPACE, u, PROTECT));
	EXPECT_EQ(-EINVAL, uk_protect(self->fd, (void *)-u, u, PROTECT));
	EXPECT_EQ(-EINVAL, uk_protect(self->fd, p, u, PROTECT | DONTWAKE));
	for (bit = 2; bit < 64; bit++)
		EXPECT_EQ(-EINVAL, uk_protect(self->fd, p, u, UK_BIT(bit)));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_WRITEPROTECT, NULL));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(no_bits(self));
}

TEST_F_TIMEOUT(protect, outside_registered_memory, LIMIT)
{
	char *end = self->m.area + self->m.len, *hole;
	char *other = uk_buffer(getpagesize());

	/* Nothing there, something there that is not registered. */
	EXPECT_EQ(-ENOENT, uk_protect(self->fd, end, self->unit, PROTECT));
	EXPECT_EQ(-ENOENT, uk_protect(self->fd, other, getpagesize(),
				      PROTECT));
	EXPECT_EQ(-ENOENT, uk_protect(self->fd, other, getpagesize(), 0));
	ASSERT_EQ(0, munmap(end, self->unit));
	EXPECT_EQ(-ENOENT, uk_protect(self->fd, end, self->unit, PROTECT));

	/* Registered, but not for this. */
	ASSERT_EQ(0, refit(self, 0, 0, MISSING));
	EXPECT_EQ(-ENOENT, wp(self, 0, 1));
	EXPECT_EQ(-ENOENT, unwp(self, 0, 1));

	/* Not all of it: what comes before the end of it is done. */
	ASSERT_EQ(0, refit(self, 0, 0, WP));
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 3), self->unit));
	EXPECT_EQ(-ENOENT, wp(self, 1, 4));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	EXPECT_EQ(2, bits(self, 1, 2));

	/* Address space without memory does not count. */
	hole = at(self, 1);
	ASSERT_EQ(0, munmap(hole, self->unit));
	EXPECT_EQ(0, unwp(self, 0, 3));
	EXPECT_EQ(0, bits(self, 2, 1));
	EXPECT_EQ(0, wp(self, 1, 2));
	EXPECT_EQ(1, bits(self, 2, 1));
	EXPECT_EQ(-ENOENT, uk_protect(self->fd, hole, self->unit, PROTECT));
}

/* An event about the same range that nobody has read. */
TEST_F_TIMEOUT(protect, unread_event, LIMIT)
{
	struct uk_call call = {
		.nr = __NR_madvise,
		.arg = { (long)at(self, 1), self->unit, MADV_DONTNEED },
	};
	long long end = uk_now() + UK_SOON;
	struct uffd_msg msg;
	struct uk_thread t;
	int err;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_EVENT_REMOVE, WP));
	ASSERT_EQ(0, uk_start(&t, uk_call, &call));
	ASSERT_TRUE(uk_asleep(t.tid));
	EXPECT_EQ(-EAGAIN, wp(self, 0, 3));
	EXPECT_EQ(-EAGAIN, unwp(self, 0, 3));
	EXPECT_EQ(0, bits(self, 0, 1));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, 1),
			       at(self, 2)));
	/* Before the series, it must also have been dealt with. */
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	do {
		err = wp(self, 0, 3);
	} while (err == -EAGAIN && uk_now() < end);
	EXPECT_EQ(0, err);
	EXPECT_EQ(1, bits(self, 0, 1));
}

/* More than one mapping in one call. */
TEST_F_TIMEOUT(protect, several_mappings, LIMIT)
{
	ASSERT_EQ(0, mprotect(at(self, 2), self->unit, PROT_READ));
	EXPECT_LE(3, uk_census(self->m.area, self->m.len).vmas);
	EXPECT_EQ(0, wp(self, 1, 3));
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, 2), NULL, NULL));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(is_protected(self, 3));
	EXPECT_EQ(0, unwp(self, 1, 3));
	EXPECT_TRUE(no_bits(self));
}

TEST_F_TIMEOUT(protect, hugetlb_alignment, LIMIT)
{
	size_t small = getpagesize();

	if (!uk_is_hugetlb(&self->m))
		SKIP(return, "hugetlb only");
	EXPECT_EQ(-EINVAL, uk_protect(self->fd, at(self, 1) + small,
				      self->unit, PROTECT));
	EXPECT_EQ(-EINVAL, uk_protect(self->fd, at(self, 1), small, PROTECT));
	EXPECT_EQ(-EINVAL, uk_protect(self->fd, at(self, 1),
				      self->unit + small, 0));
	EXPECT_TRUE(no_bits(self));
	ASSERT_EQ(0, wp(self, 1, 2));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, at(self, 1),
					 self->unit + small));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(is_protected(self, 2));
}

/* Memory that is not there. */

/* Protect pages 1 to 4 of which 2 and 3 are holes; was the hole marked? */
static bool marks_holes(struct __test_metadata *_metadata,
			struct protect_test *self)
{
	long n;

	EXPECT_EQ(0, uk_vacate(&self->m, at(self, 2), 2 * self->unit));
	EXPECT_EQ(0, wp(self, 1, 4));
	EXPECT_EQ(1, bits(self, 1, 1));
	EXPECT_EQ(1, bits(self, 4, 1));
	n = bits(self, 2, 2);
	EXPECT_TRUE(n == 0 || n == 2);
	return n == 2;
}

/* Holes of files are always marked: a page may be in the cache. */
TEST_F_TIMEOUT(protect, holes, LIMIT)
{
	if (marks_holes(_metadata, self)) {
		EXPECT_FALSE(uk_is_anon(&self->m));
		EXPECT_TRUE(is_protected(self, 2));
	} else {
		EXPECT_TRUE(uk_is_anon(&self->m));
		EXPECT_TRUE(writes(self, at(self, 2)));
	}
	EXPECT_TRUE(uk_all_zero(at(self, 2) + 16, 2 * self->unit - 16));
	EXPECT_EQ(0, unwp(self, 0, UNITS));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(no_markers(self));
}

TEST_F_TIMEOUT(protect, holes_with_wp_unpopulated, LIMIT)
{
	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_WP_UNPOPULATED, WP));
	ASSERT_TRUE(marks_holes(_metadata, self));
	/* For small pages the mark looks like a swapped page. */
	EXPECT_EQ(uk_is_hugetlb(&self->m) ? 0 : 2,
		  uk_pages(at(self, 2), 2 * self->unit, UK_PM_SWAP));

	/* A page that reading brings is protected as the hole was. */
	EXPECT_EQ(0, uk_peek(at(self, 3)));
	EXPECT_EQ(2, bits(self, 2, 2));
	EXPECT_TRUE(is_protected(self, 3));
	/* And one that writing brings, as soon as it is there. */
	EXPECT_TRUE(is_protected(self, 2));
	EXPECT_TRUE(writes(self, at(self, 2) + 100));
	EXPECT_TRUE(uk_all_zero(at(self, 2) + 16, 80));

	/* To lift the protection of a hole leaves a hole. */
	ASSERT_TRUE(marks_holes(_metadata, self));
	EXPECT_EQ(0, unwp(self, 2, 2));
	EXPECT_TRUE(no_markers(self));
	EXPECT_TRUE(writes(self, at(self, 2)));
}

/* All of the area, of which most was never touched. */
TEST_F_TIMEOUT(protect, everything_with_wp_unpopulated, LIMIT)
{
	size_t pages = self->m.len / getpagesize();

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_WP_UNPOPULATED, WP));
	ASSERT_EQ(0, uk_vacate(&self->m, self->m.area, self->m.len));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->m.len, PROTECT));
	EXPECT_EQ(pages, uk_pages(self->m.area, self->m.len, UK_PM_WP));
	EXPECT_TRUE(is_protected(self, 0));
	EXPECT_TRUE(is_protected(self, self->m.units - 1));
	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(no_markers(self));
	EXPECT_TRUE(uk_all_zero(at(self, 1), self->unit));
	EXPECT_TRUE(writes(self, at(self, 1)));
}

/* The zero page is a page. */
TEST_F_TIMEOUT(protect, zero_page, LIMIT)
{
	if (uk_is_hugetlb(&self->m))
		SKIP(return, "no zero pages in hugetlb");
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), 3 * self->unit));
	EXPECT_EQ(0, uk_peek(at(self, 1)));
	EXPECT_EQ(0, uk_peek(at(self, 2)));
	ASSERT_EQ(0, wp(self, 1, 2));
	EXPECT_EQ(2, bits(self, 1, 2));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_EQ(0, uk_peek(at(self, 2)));

	ASSERT_EQ(0, refit(self, 0, 0, MISSING | WP));
	UK_ASSERT_FILL(0, self->unit,
		       uk_zero(self->fd, at(self, 3), self->unit, 0));
	EXPECT_EQ(0, bits(self, 3, 1));
	ASSERT_EQ(0, wp(self, 3, 1));
	EXPECT_TRUE(is_protected(self, 3));
	EXPECT_TRUE(uk_all_zero(at(self, 3) + 16, self->unit - 16));
}

/* Filling. */

TEST_F_TIMEOUT(protect, copy_leaves_it_protected, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, refit(self, 0, 0, MISSING | WP));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 0), UNITS * self->unit));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	EXPECT_EQ(0, fault_of(self, &t, at(self, 1)));
	UK_EXPECT_FILL(0, 3 * self->unit,
		       uk_copy(self->fd, at(self, 1), from(self, 1),
			       3 * self->unit, UFFDIO_COPY_MODE_WP));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_TRUE(holds(self, 1, 11));
	EXPECT_TRUE(is_protected(self, 2));
	EXPECT_EQ(2, bits(self, 0, UNITS));

	/* A write is first one to missing memory, then to a protected page. */
	ASSERT_EQ(UFFD_PAGEFAULT_FLAG_WRITE, write_to(self, &t, at(self, 4)));
	UK_EXPECT_FILL(0, self->unit,
		       uk_copy(self->fd, at(self, 4), from(self, 4), self->unit,
			       UFFDIO_COPY_MODE_WP));
	EXPECT_EQ(WP_FAULT, fault_of(self, &t, at(self, 4)));
	EXPECT_EQ(0, unwp(self, 4, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));

	/* Both flags. */
	ASSERT_EQ(UFFD_PAGEFAULT_FLAG_WRITE, write_to(self, &t, at(self, 5)));
	UK_EXPECT_FILL(0, self->unit,
		       uk_copy(self->fd, at(self, 5), from(self, 5), self->unit,
			       UFFDIO_COPY_MODE_WP |
			       UFFDIO_COPY_MODE_DONTWAKE));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, unwp(self, 5, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, memcmp(at(self, 5) + 8, from(self, 5) + 8,
			    self->unit - 8));
}

/* The whole area, which for THP means huge pages or what stands in for them. */
TEST_F_TIMEOUT(protect, copy_everything_protected, LIMIT)
{
	char *src = uk_buffer(self->m.len);
	size_t mid = self->m.units / 2;

	ASSERT_NE(NULL, src);
	uk_paint(src, self->m.len, 70);
	ASSERT_EQ(0, refit(self, 0, 0, MISSING | WP));
	ASSERT_EQ(0, uk_vacate(&self->m, self->m.area, self->m.len));
	UK_ASSERT_FILL(0, self->m.len,
		       uk_copy(self->fd, self->m.area, src, self->m.len,
			       UFFDIO_COPY_MODE_WP));
	EXPECT_EQ(self->m.len / getpagesize(),
		  uk_pages(self->m.area, self->m.len, UK_PM_WP));
	EXPECT_TRUE(uk_painted(self->m.area, self->m.len, 70));
	EXPECT_TRUE(is_protected(self, mid));
	EXPECT_EQ((self->m.len - self->unit) / getpagesize(),
		  uk_pages(self->m.area, self->m.len, UK_PM_WP));
}

/* What the protection of a hole means for those that fill it. */
TEST_F_TIMEOUT(protect, filling_a_protected_hole, LIMIT)
{
	struct uk_fill zero;
	struct uk_thread t;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_WP_UNPOPULATED, MISSING | WP));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 0), UNITS * self->unit));
	ASSERT_EQ(0, wp(self, 0, UNITS));
	EXPECT_EQ(UNITS, bits(self, 0, UNITS));

	/* It is missing before all else; the fill decides on its protection. */
	ASSERT_EQ(UFFD_PAGEFAULT_FLAG_WRITE, write_to(self, &t, at(self, 1)));
	UK_EXPECT_FILL(0, self->unit,
		       uk_copy(self->fd, at(self, 1), from(self, 1), self->unit,
			       0));
	EXPECT_EQ(UK_NO_FAULT, fault_of(self, &t, at(self, 1)));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, bits(self, 1, 1));
	UK_EXPECT_FILL(0, self->unit,
		       uk_copy(self->fd, at(self, 2), from(self, 2), self->unit,
			       UFFDIO_COPY_MODE_WP));
	EXPECT_TRUE(is_protected(self, 2));

	/* Only pages overwrite the mark of a hole. */
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_poison(self->fd, at(self, 3), self->unit, 0));
	zero = uk_zero(self->fd, at(self, 3), self->unit, 0);
	if (uk_is_hugetlb(&self->m)) {
		UK_EXPECT_FILL(-EINVAL, -EINVAL, zero);
	} else if (uk_is_shared(&self->m)) {
		UK_EXPECT_FILL(0, self->unit, zero);
		EXPECT_EQ(0, bits(self, 3, 1));
	} else {
		UK_EXPECT_FILL(-EEXIST, -EEXIST, zero);
		EXPECT_EQ(1, bits(self, 3, 1));
	}
}

TEST_F_TIMEOUT(protect, continue_leaves_it_protected, LIMIT)
{
	char *alias;

	if (!uk_is_shared(&self->m))
		SKIP(return, "shared memory only");
	alias = uk_alias(&self->m);
	ASSERT_NE(NULL, alias);
	ASSERT_EQ(0, refit(self, 0, 0, MINOR | WP));
	ASSERT_EQ(0, madvise(self->m.area, self->m.len, MADV_DONTNEED));
	UK_EXPECT_FILL(0, 2 * self->unit,
		       uk_continue(self->fd, at(self, 1), 2 * self->unit,
				   UFFDIO_CONTINUE_MODE_WP));
	UK_EXPECT_FILL(0, self->unit,
		       uk_continue(self->fd, at(self, 3), self->unit, 0));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(writes(self, at(self, 3)));
	/* Others are not concerned. */
	EXPECT_EQ(1, bits(self, 2, 1));
	uk_poke(alias + 2 * self->unit);
	EXPECT_EQ(0xa5, uk_peek(at(self, 2)));
	EXPECT_TRUE(is_protected(self, 2));

	ASSERT_EQ(0, refit(self, 0, 0, MINOR));
	ASSERT_EQ(0, madvise(self->m.area, self->m.len, MADV_DONTNEED));
	UK_EXPECT_FILL(-EINVAL, -EINVAL,
		       uk_continue(self->fd, at(self, 1), self->unit,
				   UFFDIO_CONTINUE_MODE_WP));
}

/* A page that is of the file still, and protected here. */
TEST_F_TIMEOUT(protect, page_of_the_file, LIMIT)
{
	char *alias;

	if (uk_is_anon(&self->m))
		SKIP(return, "no file behind this memory");
	alias = uk_alias(&self->m);
	ASSERT_NE(NULL, alias);
	uk_paint(alias, UNITS * self->unit, 60);
	ASSERT_EQ(0, madvise(self->m.area, self->m.len, MADV_DONTNEED));
	uk_peek(at(self, 0));
	ASSERT_EQ(0, wp(self, 0, 2));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	uk_peek(at(self, 1));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	EXPECT_EQ(0, memcmp(at(self, 0), alias, 2 * self->unit));
	EXPECT_TRUE(is_protected(self, 0));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(uk_is_shared(&self->m) ? uk_peek(alias + 11) == 0xa5 :
		    uk_painted(alias, UNITS * self->unit, 60));
}

/* Forgetting memory. */

TEST_F_TIMEOUT(protect, dontneed, LIMIT)
{
	int keeps = variant->kind != UK_ANON && variant->kind != UK_ANON_SMALL;

	ASSERT_EQ(0, wp(self, 0, 4));
	ASSERT_EQ(0, madvise(at(self, 1), 2 * self->unit, MADV_DONTNEED));
	/* File mappings keep the protection of a page that is unmapped. */
	EXPECT_EQ(keeps ? 4 : 2, bits(self, 0, UNITS));
	EXPECT_TRUE(keeps ? is_protected(self, 1) :
			    writes(self, at(self, 1)));
	EXPECT_TRUE(is_protected(self, 0));

	/* Also where the file has a hole from now on. */
	if (uk_is_shared(&self->m)) {
		ASSERT_EQ(0, uk_vacate(&self->m, at(self, 2), self->unit));
		ASSERT_EQ(0, uk_vacate(&self->m, at(self, 3), self->unit));
		EXPECT_EQ(2, bits(self, 2, 2));
		EXPECT_TRUE(is_protected(self, 3));
	}
}

TEST_F_TIMEOUT(protect, unmapped_and_mapped_again, LIMIT)
{
	int flags = MAP_FIXED | (uk_is_shared(&self->m) ? MAP_SHARED :
				 MAP_PRIVATE);

	if (uk_is_anon(&self->m))
		flags |= MAP_ANONYMOUS;
	ASSERT_EQ(0, wp(self, 0, UNITS));
	ASSERT_EQ(at(self, 1), mmap(at(self, 1), 2 * self->unit,
				    PROT_READ | PROT_WRITE, flags, self->m.fd,
				    uk_is_anon(&self->m) ? 0 : self->unit));
	EXPECT_EQ(0, bits(self, 1, 2));
	EXPECT_TRUE(writes(self, at(self, 1)));
	EXPECT_TRUE(is_protected(self, 0));
	EXPECT_TRUE(is_protected(self, 3));
}

/* Leaving nothing behind. */

TEST_F_TIMEOUT(protect, unregister_drops_it, LIMIT)
{
	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_WP_UNPOPULATED, WP));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 4), self->unit));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->m.len, PROTECT));
	/* Of a part, and the rest stays. */
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 1), self->unit));
	EXPECT_EQ(UNITS - 1, bits(self, 0, UNITS));
	EXPECT_EQ(0, bits(self, 1, 1));
	EXPECT_TRUE(writes(self, at(self, 1)));
	EXPECT_TRUE(is_protected(self, 0));
	EXPECT_TRUE(is_protected(self, 2));

	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(no_markers(self));
	EXPECT_TRUE(writes(self, at(self, 3)));
	EXPECT_TRUE(writes(self, at(self, 4)));
	EXPECT_TRUE(uk_all_zero(at(self, 4) + 8, self->unit - 8));
	EXPECT_TRUE(holds(self, 5, 5));
}

TEST_F_TIMEOUT(protect, close_drops_it, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_WP_UNPOPULATED, WP));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 4), self->unit));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->m.len, PROTECT));
	close(self->fd);
	self->fd = -1;
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(no_markers(self));
	ASSERT_EQ(0, uk_start(&t, uk_poke, at(self, 4)));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(uk_all_zero(at(self, 4) + 8, self->unit - 8));
	EXPECT_TRUE(holds(self, 5, 5));

	/* Who comes next begins with a clean slate. */
	ASSERT_EQ(0, refit(self, 0, 0, MISSING | WP));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(writes(self, at(self, 5)));
}

/*
 * Registering without WP what has been registered with it.  Before the series a
 * write to such a huge page of hugetlb tried for ever.
 */
TEST_F_TIMEOUT(protect, registered_again_without, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, wp(self, 0, 2));
	if (UK_KEEPS_PROTECTION) {
		EXPECT_EQ(-EBUSY, uk_register_mode(self->fd, self->m.area,
						   self->m.len, MISSING, NULL));
		EXPECT_EQ(2, bits(self, 0, UNITS));
		EXPECT_TRUE(is_protected(self, 1));
		return;
	}
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      MISSING, NULL));
	EXPECT_EQ(-ENOENT, wp(self, 2, 1));
	EXPECT_EQ(-ENOENT, unwp(self, 0, 1));
	if (!getenv("UFFD_LARGE"))
		return;		/* kernels up to 6.12 leave the bits behind */
	/* No fault that nobody could resolve. */
	EXPECT_EQ(UK_NO_FAULT, write_to(self, &t, at(self, 0)));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(no_markers(self));
	/* Nothing looks protected that is not. */
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      MISSING | WP, NULL));
	EXPECT_EQ(0, bits(self, 0, UNITS));
	EXPECT_TRUE(writes(self, at(self, 1)));
	ASSERT_EQ(0, wp(self, 0, 2));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	EXPECT_TRUE(is_protected(self, 1));
}

/* Changes of the mapping. */

TEST_F_TIMEOUT(protect, mprotect_and_back, LIMIT)
{
	static const int prots[] = { PROT_READ, PROT_NONE, PROT_READ };
	unsigned int i;

	ASSERT_EQ(0, wp(self, 1, 2));
	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		ASSERT_EQ(0, mprotect(self->m.area, self->m.len, prots[i]));
		EXPECT_EQ(2, bits(self, 0, UNITS));
		EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, 1), NULL, NULL));
	}
	/* It can be had without the right to write, and does not give it. */
	ASSERT_EQ(0, wp(self, 4, 1));
	ASSERT_EQ(0, unwp(self, 2, 1));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, 2), NULL, NULL));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	ASSERT_EQ(0, mprotect(self->m.area, self->m.len,
			      PROT_READ | PROT_WRITE));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(is_protected(self, 4));
	EXPECT_TRUE(writes(self, at(self, 2)));
}

static long move_away(void *arg)
{
	struct protect_test *self = arg;
	char *to = uk_reserve(self->m.len, self->unit > uk_huge_size() ?
			      self->unit : uk_huge_size());

	if (mremap(self->m.area, self->m.len, self->m.len,
		   MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return -errno;
	return (long)to;
}

TEST_F_TIMEOUT(protect, mremap_with_event_keeps_it, LIMIT)
{
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_EVENT_REMAP |
			   UFFD_FEATURE_WP_UNPOPULATED, WP));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 3), self->unit));
	ASSERT_EQ(0, wp(self, 1, 3));
	ASSERT_EQ(0, uk_start(&t, move_away, self));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(UFFD_EVENT_REMAP, msg.event);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	ASSERT_LT(0, t.ret);
	self->m.area = (char *)t.ret;
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_EQ(3, bits(self, 1, 3));
	EXPECT_TRUE(holds(self, 1, 1));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(is_protected(self, 3));
	EXPECT_TRUE(writes(self, at(self, 4)));
}

TEST_F_TIMEOUT(protect, mremap_without_event_drops_it, LIMIT)
{
	long to;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_WP_UNPOPULATED, WP));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 3), self->unit));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->m.len, PROTECT));
	to = move_away(self);
	ASSERT_LT(0, to);
	self->m.area = (char *)to;
	EXPECT_EQ(0, uk_census(self->m.area, self->m.len).armed);
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(no_markers(self));
	EXPECT_TRUE(writes(self, at(self, 1)));
	EXPECT_TRUE(writes(self, at(self, 3)));
	EXPECT_EQ(-ENOENT, wp(self, 1, 1));
}

/* Fork. */

struct forker {
	struct protect_test *self;
	int expect;		/* bits that the child should see */
	bool write;		/* it may write */
	int sock[2];
};

static int forked(void *arg)
{
	struct forker *f = arg;
	int n = bits(f->self, 0, UNITS);

	if (n != f->expect)
		return 100 + n;
	if (!f->write)
		return 0;
	uk_poke(at(f->self, 1));
	return uk_peek(at(f->self, 1)) == 0xa5 ? 0 : 99;
}

TEST_F_TIMEOUT(protect, fork_without_event_drops_it, LIMIT)
{
	struct forker f = { .self = self, .write = true };

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_WP_UNPOPULATED, WP));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 3), self->unit));
	ASSERT_EQ(0, wp(self, 1, 3));
	EXPECT_EQ(0, uk_in_child(forked, &f));
	/* Here, it goes on. */
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_EQ(uk_is_shared(&self->m), uk_peek(at(self, 1)) == 0xa5);
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(is_protected(self, 2));
	EXPECT_TRUE(is_protected(self, 3));
}

static long fork_it(void *arg)
{
	return uk_spawn_by_thread(forked, arg, 0);
}

TEST_F_TIMEOUT(protect, fork_with_event_keeps_it, LIMIT)
{
	struct forker f = { .self = self, .expect = 3, .write = true };
	struct uffd_msg msg;
	struct uk_thread t;
	int child;

	if (refit(self, 0, UFFD_FEATURE_EVENT_FORK |
		  UFFD_FEATURE_WP_UNPOPULATED, WP) == -EPERM)
		SKIP(return, "fork events need root");
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 3), self->unit));
	ASSERT_EQ(0, wp(self, 1, 3));
	ASSERT_EQ(0, uk_start(&t, fork_it, &f));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
	child = msg.arg.fork.ufd;
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	ASSERT_LT(0, t.ret);

	ASSERT_EQ(1, uk_next(child, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
	EXPECT_EQ(WP_FAULT, msg.arg.pagefault.flags);
	/* Two address spaces, two protections. */
	EXPECT_EQ(0, unwp(self, 1, 1));
	EXPECT_EQ(-1, uk_reap(t.ret, UK_PAUSE));
	EXPECT_TRUE(writes(self, at(self, 1) + 64));
	EXPECT_EQ(0, uk_protect(child, at(self, 1), self->unit, 0));
	EXPECT_EQ(0, uk_reap(t.ret, UK_SOON));
	EXPECT_EQ(uk_is_shared(&self->m), uk_peek(at(self, 1)) == 0xa5);
	EXPECT_TRUE(is_protected(self, 2));
	EXPECT_TRUE(is_protected(self, 3));
	close(child);
}

/* Swap. */

TEST_F_TIMEOUT(protect, swapped_page_keeps_it, LIMIT)
{
	const char *why;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "hugetlb is not swapped");
	why = uk_swap_on(2 * self->m.len);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, wp(self, 0, 3));
	ASSERT_TRUE(uk_swap_out(at(self, 0), UNITS * self->unit));
	EXPECT_EQ(3, bits(self, 0, UNITS));

	/* It can change while the page is away. */
	ASSERT_EQ(0, unwp(self, 2, 1));
	ASSERT_EQ(0, wp(self, 3, 1));
	EXPECT_EQ(0, bits(self, 2, 1));
	EXPECT_EQ(1, bits(self, 3, 1));

	/* In by reading, by writing, and both the page and its bit. */
	EXPECT_TRUE(holds(self, 0, 0));
	EXPECT_EQ(1, bits(self, 0, 1));
	EXPECT_TRUE(is_protected(self, 0));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(writes(self, at(self, 2)));
	EXPECT_TRUE(is_protected(self, 3));
	EXPECT_TRUE(writes(self, at(self, 4)));
	EXPECT_TRUE(holds(self, 5, 5));

	/* Nothing of it is left with swapped pages either. */
	ASSERT_EQ(0, wp(self, 0, UNITS));
	ASSERT_TRUE(uk_swap_out(at(self, 0), UNITS * self->unit));
	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(no_bits(self));
	EXPECT_TRUE(writes(self, at(self, 5)));
}

/* Migration. */

TEST_F_TIMEOUT(protect, migrated_page_keeps_it, LIMIT)
{
	if (uk_is_hugetlb(&self->m))
		SKIP(return, "small pages only");
	ASSERT_EQ(0, wp(self, 0, 3));
	/* Its page goes out of use, and it gets another. */
	if (madvise(at(self, 1), self->unit, MADV_SOFT_OFFLINE))
		SKIP(return, "no way to have a page replaced: %s",
		     strerror(errno));
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_TRUE(holds(self, 1, 1));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(is_protected(self, 0));
	if (madvise(at(self, 4), self->unit, MADV_SOFT_OFFLINE) == 0)
		EXPECT_TRUE(writes(self, at(self, 4)));
}

/* Huge pages. */

/* Of anonymous memory that begins with a huge page. */
FIXTURE(thp)
{
	struct protect_test p;
};

FIXTURE_SETUP(thp)
{
	struct protect_test *p = &self->p;
	const char *why = uk_map(&p->m, UK_ANON, UNITS);
	unsigned int i;
	int err;

	p->fd = -1;
	if (why)
		SKIP(return, "%s", why);
	p->unit = p->m.unit;
	for (i = 0; i < UNITS; i++)
		uk_paint(at(p, i), p->unit, i);
	if (uk_huge(p->m.area, p->m.len) <= 0)
		SKIP(return, "no huge page was to be had");
	err = refit(p, 0, 0, WP);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(thp)
{
	close(self->p.fd);
}

TEST_F_TIMEOUT(thp, whole_and_split, LIMIT)
{
	struct protect_test *p = &self->p;
	size_t huge = uk_huge_size(), pages = huge / p->unit;
	char *last = at(p, pages - 1);

	/* Whole, it stays whole. */
	ASSERT_EQ(0, uk_protect(p->fd, p->m.area, huge, PROTECT));
	EXPECT_EQ(pages, uk_pages(p->m.area, p->m.len, UK_PM_WP));
	EXPECT_EQ(pages, uk_huge(p->m.area, huge));
	ASSERT_EQ(0, uk_protect(p->fd, p->m.area, huge, 0));
	EXPECT_EQ(pages, uk_huge(p->m.area, huge));
	EXPECT_TRUE(no_bits(p));

	/* To lift it from one page leaves it to the others. */
	ASSERT_EQ(0, uk_protect(p->fd, p->m.area, huge, PROTECT));
	EXPECT_TRUE(is_protected(p, 1));
	EXPECT_EQ(pages - 1, uk_pages(p->m.area, p->m.len, UK_PM_WP));
	EXPECT_EQ(0, uk_huge(p->m.area, huge));
	EXPECT_TRUE(holds(p, 0, 0));
	EXPECT_TRUE(is_protected(p, 0));
	EXPECT_TRUE(is_protected(p, pages - 1));
	EXPECT_EQ(0xa5, uk_peek(last + 11));
	EXPECT_TRUE(uk_all_zero(last + 12, p->unit - 12));
}

TEST_F_TIMEOUT(thp, split_to_protect, LIMIT)
{
	struct protect_test *p = &self->p;
	size_t huge = uk_huge_size();

	ASSERT_EQ(0, wp(p, 2, 2));
	EXPECT_EQ(0, uk_huge(p->m.area, huge));
	EXPECT_EQ(2, uk_pages(p->m.area, p->m.len, UK_PM_WP));
	EXPECT_TRUE(is_protected(p, 2));
	EXPECT_TRUE(writes(p, at(p, 1)));
	EXPECT_TRUE(writes(p, at(p, 4)));
	EXPECT_TRUE(is_protected(p, 3));
}

/* The huge page split by others than us: unmapped in part, or moved. */
TEST_F_TIMEOUT(thp, split_while_protected, LIMIT)
{
	struct protect_test *p = &self->p;
	size_t huge = uk_huge_size(), pages = huge / p->unit;

	ASSERT_EQ(0, uk_protect(p->fd, p->m.area, huge, PROTECT));
	ASSERT_EQ(0, madvise(at(p, 3), p->unit, MADV_DONTNEED));
	EXPECT_EQ(pages - 1, uk_pages(p->m.area, p->m.len, UK_PM_WP));
	ASSERT_EQ(0, mprotect(at(p, 5), p->unit, PROT_READ));
	ASSERT_EQ(0, mprotect(at(p, 5), p->unit, PROT_READ | PROT_WRITE));
	EXPECT_EQ(pages - 1, uk_pages(p->m.area, p->m.len, UK_PM_WP));
	EXPECT_TRUE(is_protected(p, 2));
	EXPECT_TRUE(is_protected(p, 5));
	EXPECT_TRUE(writes(p, at(p, 3)));
}

/* Making huge pages of small ones must not lose it. */
TEST_F_TIMEOUT(protect, collapse, LIMIT)
{
	size_t huge = uk_huge_size(), i;
	int err;

	if (variant->kind != UK_ANON && variant->kind != UK_SHMEM)
		SKIP(return, "memory that may be collapsed only");
	if (variant->kind == UK_SHMEM) {
		/* The unit's area is too small for that. */
		close(self->fd);
		self->fd = -1;
		ASSERT_EQ(NULL, uk_map(&self->m, UK_SHMEM,
				       2 * huge / self->unit));
		ASSERT_EQ(0, refit(self, 0, 0, WP));
	}
	ASSERT_EQ(0, madvise(self->m.area, huge, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, uk_vacate(&self->m, self->m.area, huge));
	for (i = 0; i < huge / self->unit; i++)
		uk_paint(at(self, i), self->unit, i);
	ASSERT_EQ(0, uk_huge(self->m.area, huge));
	ASSERT_EQ(0, wp(self, 1, 2));
	ASSERT_EQ(0, madvise(self->m.area, huge, MADV_HUGEPAGE));
	err = madvise(self->m.area, huge, MADV_COLLAPSE) ? -errno : 0;
	if (variant->kind == UK_ANON)
		EXPECT_EQ(-EINVAL, err);
	EXPECT_EQ(2, uk_pages(self->m.area, huge, UK_PM_WP));
	EXPECT_EQ(2, bits(self, 0, UNITS));
	for (i = 0; i < huge / self->unit; i++)
		ASSERT_TRUE(holds(self, i, i));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(is_protected(self, 2));
	EXPECT_TRUE(writes(self, at(self, 3)));
}

/* KSM. */

/* Of this process. */
static long merged_pages(void)
{
	return uk_read_number("/proc/self/ksm_merging_pages");
}

/* Pages 1 and 2 become one; NULL, or why they do not. */
static const char *merge_by_ksm(struct protect_test *self)
{
	const char *run = "/sys/kernel/mm/ksm/run";
	long long end = uk_now() + UK_SOON;
	long was = uk_read_number(run);

	if (was < 0 || !uk_write_file(run, "1"))
		return "no KSM, or not ours to switch on";
	if (madvise(self->m.area, self->m.len, MADV_MERGEABLE))
		return "these cannot be merged";
	while (merged_pages() < 2 && uk_now() < end)
		uk_sleep(10);
	uk_write_file(run, was ? "1" : "0");
	return NULL;
}

TEST_F_TIMEOUT(protect, page_shared_by_ksm, LIMIT)
{
	const char *why;

	if (variant->kind != UK_ANON_SMALL)
		SKIP(return, "small anonymous pages only");
	memcpy(at(self, 2), at(self, 1), self->unit);
	why = merge_by_ksm(self);
	if (why)
		SKIP(return, "%s", why);
	EXPECT_LE(2, merged_pages());

	ASSERT_EQ(0, wp(self, 0, 3));
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_TRUE(is_protected(self, 1));
	/* The page of the other is its own still, and protected. */
	EXPECT_EQ(1, bits(self, 2, 1));
	EXPECT_TRUE(holds(self, 2, 1));
	EXPECT_TRUE(is_protected(self, 2));
}

/* Kernels before this series lose it: a write is not told any more. */
TEST_F_TIMEOUT(protect, merged_by_ksm_when_protected, LIMIT)
{
	const char *why;

	if (variant->kind != UK_ANON_SMALL)
		SKIP(return, "small anonymous pages only");
	if (!getenv("UFFD_LARGE"))
		SKIP(return, "lost by kernels up to 6.12 and 7.3 (UFFD_LARGE=1)");
	memcpy(at(self, 2), at(self, 1), self->unit);
	ASSERT_EQ(0, wp(self, 0, 3));
	why = merge_by_ksm(self);
	if (why)
		SKIP(return, "%s", why);
	EXPECT_LE(2, merged_pages());
	EXPECT_EQ(3, bits(self, 0, UNITS));
	EXPECT_TRUE(is_protected(self, 1));
	EXPECT_TRUE(holds(self, 2, 1));
	EXPECT_TRUE(is_protected(self, 2));
}

/* The kernel's own accesses. */

struct access {
	char *addr;
	int pipe[2];
};

static long by_read(void *arg)
{
	struct access *a = arg;
	ssize_t n = write(a->pipe[1], "kernel!!", 8);

	n = read(a->pipe[0], a->addr, 8);
	return n < 0 ? -errno : n;
}

static long by_vm_writev(void *arg)
{
	struct access *a = arg;
	char text[] = "kernel!!";
	struct iovec there = { .iov_base = a->addr, .iov_len = 8 };
	struct iovec here = { .iov_base = text, .iov_len = 8 };
	ssize_t n = process_vm_writev(getpid(), &here, 1, &there, 1, 0);

	return n < 0 ? -errno : n;
}

static long by_populate(void *arg)
{
	struct access *a = arg;
	unsigned long page = getpagesize();
	unsigned long start = (unsigned long)a->addr & ~(page - 1);

	return madvise((void *)start, page, MADV_POPULATE_WRITE) ? -errno : 8;
}

static const struct {
	const char *name;
	long (*fn)(void *arg);
	bool stores;
} accesses[] = {
	{ "read", by_read, true },
	{ "process_vm_writev", by_vm_writev, true },
	{ "MADV_POPULATE_WRITE", by_populate, false },
};

TEST_F_TIMEOUT(protect, write_by_the_kernel, LIMIT)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		struct access a = { .addr = at(self, i + 1) + 64 };
		struct uk_thread t;

		ASSERT_EQ(0, pipe(a.pipe));
		ASSERT_EQ(0, wp(self, i, 3));
		ASSERT_EQ(0, uk_start(&t, accesses[i].fn, &a));
		EXPECT_EQ(WP_FAULT, fault_of(self, &t, a.addr)) {
			TH_LOG("%s", accesses[i].name);
		}
		EXPECT_TRUE(uk_stays(&t));
		EXPECT_TRUE(holds(self, i + 1, i + 1));
		EXPECT_EQ(0, unwp(self, i + 1, 1));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		EXPECT_EQ(8, t.ret);
		if (accesses[i].stores)
			EXPECT_EQ(0, memcmp(a.addr, "kernel!!", 8));
		EXPECT_EQ(2, bits(self, i, 3));
		EXPECT_EQ(0, unwp(self, 0, UNITS));
		close(a.pipe[0]);
		close(a.pipe[1]);
	}
}

static void refused(struct __test_metadata *_metadata,
		    struct protect_test *self)
{
	struct access a = { .addr = at(self, 1) + 64 };
	struct uffd_msg msg;
	unsigned int i;

	ASSERT_EQ(0, wp(self, 1, 1));
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		ASSERT_EQ(0, pipe(a.pipe));
		EXPECT_EQ(-EFAULT, accesses[i].fn(&a)) {
			TH_LOG("%s", accesses[i].name);
		}
		close(a.pipe[0]);
		close(a.pipe[1]);
	}
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(holds(self, 1, 1));
}

TEST_F_TIMEOUT(protect, user_mode_only, LIMIT)
{
	ASSERT_EQ(0, refit(self, UFFD_USER_MODE_ONLY, 0, WP));
	refused(_metadata, self);
	EXPECT_TRUE(is_protected(self, 1));
}

TEST_F_TIMEOUT(protect, sigbus, LIMIT)
{
	void *where = NULL;
	int code = 0;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_SIGBUS, WP));
	refused(_metadata, self);
	EXPECT_EQ(SIGBUS, uk_catch(uk_poke, at(self, 1) + 5, &where, &code));
	EXPECT_EQ(at(self, 1) + 5, (char *)where);
	EXPECT_EQ(BUS_ADRERR, code);
	EXPECT_EQ(0, uk_catch(uk_peek, at(self, 1) + 5, NULL, NULL));
	EXPECT_EQ(0, unwp(self, 1, 1));
	EXPECT_EQ(0, uk_catch(uk_poke, at(self, 1) + 5, NULL, NULL));
}

/* Who only reads through the kernel is not held up, nor is a page pinned so. */
TEST_F_TIMEOUT(protect, read_by_the_kernel, LIMIT)
{
	struct iovec iov = { .iov_base = at(self, 1), .iov_len = 64 };
	struct uffd_msg msg;
	char buf[64];
	int p[2];

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(0, wp(self, 0, UNITS));
	EXPECT_EQ(64, write(p[1], at(self, 1), 64));
	EXPECT_EQ(64, read(p[0], buf, 64));
	EXPECT_EQ(64, vmsplice(p[1], &iov, 1, 0));
	EXPECT_EQ(64, read(p[0], buf, 64));
	EXPECT_TRUE(uk_painted(buf, 64, 1));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(UNITS, bits(self, 0, UNITS));
	close(p[0]);
	close(p[1]);
}

/* Writers and the one who protects, in turn and at once. */

TEST_F_TIMEOUT(protect, writers_and_protection, LIMIT)
{
	struct uk_counter c = { .mem = &self->m };
	long long end = uk_now() + 300;
	struct uffd_msg msg;
	struct uk_thread t;
	unsigned int i, faults = 0;

	for (i = 0; i < UNITS; i++)
		uk_set((unsigned int *)at(self, i), 0);
	ASSERT_EQ(0, uk_start(&t, uk_count_up, &c));
	while (uk_now() < end) {
		unsigned int seen[UNITS];

		ASSERT_EQ(0, wp(self, 0, UNITS));
		/* From now on, nothing moves but what we let go. */
		for (i = 0; i < UNITS; i++)
			seen[i] = uk_get((unsigned int *)at(self, i));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		ASSERT_EQ(WP_FAULT, msg.arg.pagefault.flags);
		for (i = 0; i < UNITS; i++)
			ASSERT_EQ(seen[i], uk_get((unsigned int *)at(self, i)));
		faults++;
		ASSERT_EQ(0, unwp(self, 0, UNITS));
	}
	uk_set(&c.stop, true);
	EXPECT_EQ(0, unwp(self, 0, UNITS));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	for (i = 0; i < UNITS; i++)
		EXPECT_EQ(c.sum[i], uk_get((unsigned int *)at(self, i)));
	TH_LOG("%u faults", faults);
}

/* WP_ASYNC. */

/* FIXTURE_DATA(async), by a name that reads well in a prototype. */
#define async_test _test_data_async

FIXTURE(async)
{
	struct protect_test p;
	int pagemap;
};

FIXTURE_VARIANT(async)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(async, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(async, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(async, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(async, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(async, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(async, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

FIXTURE_SETUP(async)
{
	struct protect_test *p = &self->p;
	const char *why;
	unsigned int i;
	int err;

	p->fd = -1;
	why = uk_map(&p->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	p->unit = p->m.unit;
	if (!(uk_offered() & UFFD_FEATURE_WP_ASYNC))
		SKIP(return, "no WP_ASYNC on this kernel");
	for (i = 0; i < UNITS; i++)
		uk_paint(at(p, i), p->unit, i);
	err = refit(p, 0, UFFD_FEATURE_WP_ASYNC, WP);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
	self->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->pagemap);
}

FIXTURE_TEARDOWN(async)
{
	close(self->p.fd);
	close(self->pagemap);
	uk_swap_off();
}

/*
 * Bit i of the result says that some of unit i has been written since it was
 * protected last; with @flags of PM_SCAN_WP_MATCHING it is protected by that.
 */
static long written(struct async_test *self, __u64 flags)
{
	struct protect_test *p = &self->p;
	struct page_region out[UNITS * 2];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.flags = flags,
		.start = (unsigned long)at(p, 0),
		.end = (unsigned long)at(p, UNITS),
		.vec = (unsigned long)out,
		.vec_len = UNITS * 2,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
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
			set |= 1 << (q - p->m.area) / p->unit;
	}
	return set;
}

#define ALL ((1 << UNITS) - 1)

TEST_F_TIMEOUT(async, writes_are_found, LIMIT)
{
	struct protect_test *p = &self->p;

	EXPECT_EQ(ALL, written(self, 0));
	EXPECT_EQ(ALL, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_EQ(0, written(self, 0));
	EXPECT_EQ(UNITS, bits(p, 0, UNITS));
	EXPECT_TRUE(writes(p, at(p, 1) + 9));
	EXPECT_TRUE(writes(p, at(p, 4) + 9));
	EXPECT_TRUE(holds(p, 0, 0));
	EXPECT_EQ(UNITS - 2, bits(p, 0, UNITS));
	EXPECT_EQ(1 << 1 | 1 << 4, written(self, 0));
	EXPECT_EQ(1 << 1 | 1 << 4, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_EQ(0, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_TRUE(writes(p, at(p, 4)));
	EXPECT_EQ(1 << 4, written(self, PM_SCAN_WP_MATCHING |
				  PM_SCAN_CHECK_WPASYNC));
}

/* The old way to protect works as well, and to lift it. */
TEST_F_TIMEOUT(async, protect_by_ioctl, LIMIT)
{
	struct protect_test *p = &self->p;

	EXPECT_EQ(0, wp(p, 0, UNITS));
	EXPECT_EQ(0, written(self, 0));
	EXPECT_EQ(0, unwp(p, 2, 2));
	EXPECT_EQ(1 << 2 | 1 << 3, written(self, 0));
	EXPECT_TRUE(writes(p, at(p, 2)));
	EXPECT_TRUE(writes(p, at(p, 0)));
	EXPECT_EQ(1 << 0 | 1 << 2 | 1 << 3, written(self, 0));
	EXPECT_EQ(-EINVAL, uk_protect(p->fd, at(p, 0), p->unit,
				      PROTECT | DONTWAKE));
}

/* WP_UNPOPULATED comes along. */
TEST_F_TIMEOUT(async, holes, LIMIT)
{
	struct protect_test *p = &self->p;

	ASSERT_EQ(0, uk_vacate(&p->m, at(p, 1), 3 * p->unit));
	EXPECT_EQ(0, wp(p, 0, UNITS));
	EXPECT_EQ(UNITS, bits(p, 0, UNITS));
	EXPECT_EQ(0, uk_peek(at(p, 1)));
	EXPECT_EQ(0, written(self, 0));
	EXPECT_TRUE(writes(p, at(p, 1)));
	EXPECT_TRUE(writes(p, at(p, 2)));
	EXPECT_EQ(1 << 1 | 1 << 2, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_EQ(0, written(self, 0));
	EXPECT_EQ(UNITS, bits(p, 0, UNITS));
	EXPECT_TRUE(uk_all_zero(at(p, 2) + 8, 2 * p->unit - 8));
}

TEST_F_TIMEOUT(async, nothing_is_left, LIMIT)
{
	struct protect_test *p = &self->p;

	ASSERT_EQ(0, uk_vacate(&p->m, at(p, 1), p->unit));
	EXPECT_EQ(0, uk_protect(p->fd, p->m.area, p->m.len, PROTECT));
	EXPECT_EQ(0, uk_unregister(p->fd, p->m.area, p->m.len));
	EXPECT_TRUE(no_bits(p));
	EXPECT_TRUE(no_markers(p));
	/* Who asks to be told that this is not watched is told. */
	EXPECT_EQ(-EPERM, written(self, PM_SCAN_CHECK_WPASYNC));
	EXPECT_EQ(0, written(self, PM_SCAN_WP_MATCHING));
}

/* Faults of other kinds wait as ever. */
TEST_F_TIMEOUT(async, with_missing, LIMIT)
{
	struct protect_test *p = &self->p;
	char *src = uk_buffer(2 * p->unit);
	struct uk_thread t;

	ASSERT_NE(NULL, src);
	uk_paint(src, 2 * p->unit, 40);
	ASSERT_EQ(0, refit(p, 0, UFFD_FEATURE_WP_ASYNC, MISSING | WP));
	ASSERT_EQ(0, uk_vacate(&p->m, at(p, 1), 2 * p->unit));
	EXPECT_EQ(0, wp(p, 0, UNITS));
	ASSERT_EQ(UFFD_PAGEFAULT_FLAG_WRITE, write_to(p, &t, at(p, 1)));
	UK_EXPECT_FILL(0, 2 * p->unit, uk_copy(p->fd, at(p, 1), src,
					       2 * p->unit,
					       UFFDIO_COPY_MODE_WP));
	EXPECT_EQ(UK_NO_FAULT, fault_of(p, &t, at(p, 1)));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(1 << 1, written(self, 0));
	EXPECT_TRUE(writes(p, at(p, 2)));
	EXPECT_EQ(1 << 1 | 1 << 2, written(self, 0));
}

TEST_F_TIMEOUT(async, not_for_the_synchronous, LIMIT)
{
	struct protect_test *p = &self->p;

	ASSERT_EQ(0, refit(p, 0, UFFD_FEATURE_WP_UNPOPULATED, WP));
	EXPECT_EQ(-EPERM, written(self, PM_SCAN_CHECK_WPASYNC));
	/* Not watched that way, it is passed over. */
	EXPECT_EQ(0, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_TRUE(no_bits(p));
	/* To look is always allowed. */
	ASSERT_EQ(0, wp(p, 1, 1));
	EXPECT_EQ(ALL & ~(1 << 1), written(self, 0));
	EXPECT_TRUE(is_protected(p, 1));
}

TEST_F_TIMEOUT(async, swapped, LIMIT)
{
	struct protect_test *p = &self->p;
	const char *why;

	if (uk_is_hugetlb(&p->m))
		SKIP(return, "hugetlb is not swapped");
	why = uk_swap_on(2 * p->m.len);
	if (why)
		SKIP(return, "%s", why);
	EXPECT_EQ(ALL, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_TRUE(writes(p, at(p, 1) + 5));
	ASSERT_TRUE(uk_swap_out(at(p, 0), UNITS * p->unit));
	/* A page of a file that is away looks like any, if it is not marked. */
	EXPECT_EQ(1 << 1, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_TRUE(writes(p, at(p, 3) + 5));
	EXPECT_EQ(1 << 3, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_TRUE(holds(p, 2, 2));
	EXPECT_EQ(0, written(self, 0));
}

static int forked_async(void *arg)
{
	struct protect_test *p = arg;

	if (bits(p, 0, UNITS))
		return 98;
	uk_poke(at(p, 1));
	return 0;
}

TEST_F_TIMEOUT(async, forked, LIMIT)
{
	struct protect_test *p = &self->p;

	EXPECT_EQ(ALL, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_EQ(0, uk_in_child(forked_async, p));
	/* It is the writes of this process that are watched. */
	EXPECT_EQ(0, written(self, 0));
	EXPECT_TRUE(writes(p, at(p, 2)));
	EXPECT_EQ(1 << 2, written(self, 0));
}

static int collapse(struct protect_test *p)
{
	return madvise(p->m.area, uk_huge_size(), MADV_COLLAPSE) ? -errno : 0;
}

/* One page of a huge page is what one write is about. */
TEST_F_TIMEOUT(async, huge_page, LIMIT)
{
	struct protect_test *p = &self->p;
	long pages = uk_huge_size() / p->unit;

	if (variant->kind != UK_ANON)
		SKIP(return, "for transparent huge pages");
	if (uk_huge(p->m.area, uk_huge_size()) != pages)
		SKIP(return, "no huge page was to be had");
	EXPECT_EQ(0, uk_protect(p->fd, p->m.area, p->m.len, PROTECT));
	EXPECT_EQ(pages, uk_huge(p->m.area, uk_huge_size()));
	EXPECT_TRUE(writes(p, at(p, 3)));
	EXPECT_EQ(1 << 3, written(self, 0));
	EXPECT_EQ(pages - 1, uk_pages(p->m.area, uk_huge_size(), UK_PM_WP));
	/* What is left of the protection keeps it from becoming huge. */
	EXPECT_EQ(-EINVAL, collapse(p));
	EXPECT_EQ(1 << 3, written(self, 0));
}

/*
 * Nothing that was written is missed, however the two meet: in each round, a
 * few writes during scans, then a last scan, after which all must be known.
 */

struct scribbler {
	struct protect_test *p;
	unsigned int round;	/* to be done; 0 is the end */
	unsigned int done;
};

static long scribble(void *arg)
{
	unsigned long x = 88172645463325252UL;
	struct scribbler *s = arg;
	unsigned int round, i;

	while ((round = uk_get(&s->round))) {
		if (round == s->done) {
			sched_yield();
			continue;
		}
		for (i = 0; i < 3; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			uk_set((unsigned long *)at(s->p, (x >> 9) % UNITS), x);
		}
		uk_set(&s->done, round);
	}
	return 0;
}

TEST_F_TIMEOUT(async, nothing_is_missed, LIMIT)
{
	struct scribbler s = { .p = &self->p };
	long long end = uk_now() + 300;
	unsigned long known[UNITS] = {};
	unsigned int round = 0, scans = 0;
	struct uk_thread t;
	int i;

	s.round = 1;
	ASSERT_EQ(0, uk_start(&t, scribble, &s));
	do {
		bool last;

		uk_set(&s.round, ++round);
		do {
			long set;

			last = uk_get(&s.done) == round;
			set = written(self, PM_SCAN_WP_MATCHING);
			ASSERT_LE(0, set);
			for (i = 0; i < UNITS; i++) {
				if (set & 1 << i)
					known[i] = uk_get((unsigned long *)
							  at(s.p, i));
			}
			scans++;
		} while (!last);
		for (i = 0; i < UNITS; i++)
			ASSERT_EQ(known[i],
				  uk_get((unsigned long *)at(s.p, i)));
	} while (uk_now() < end);
	uk_set(&s.round, 0);
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	TH_LOG("%u rounds, %u scans", round, scans);
}

/* A private mapping of a file that is neither shmem nor hugetlb. */
static char *other_memory(int fd, size_t len)
{
	static const char * const paths[] = {
		"/proc/self/exe", "/bin/sh", "/etc/passwd", "/usr/bin/env",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(paths); i++) {
		int file = open(paths[i], O_RDONLY | O_CLOEXEC);
		char *p;

		if (file < 0 || lseek(file, 0, SEEK_END) < (off_t)len)
			continue;
		p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, file,
			 0);
		close(file);
		if (p != MAP_FAILED && uk_register(fd, p, len) == -EINVAL)
			return p;
		uk_unregister(fd, p, len);
	}
	return NULL;
}

/* Memory of any type, if nothing else is asked of it. */
TEST(async_any_memory)
{
	size_t page = getpagesize(), len = UNITS * page;
	struct async_test a = {};
	struct protect_test *p = &a.p;
	int sync;

	p->fd = uk_new(O_CLOEXEC | O_NONBLOCK, UFFD_FEATURE_WP_ASYNC);
	if (p->fd < 0)
		SKIP(return, "no WP_ASYNC here");
	sync = uk_new(O_CLOEXEC | O_NONBLOCK, UFFD_FEATURE_WP_UNPOPULATED);
	ASSERT_LE(0, sync);
	a.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, a.pagemap);
	p->m.area = other_memory(sync, len);
	if (!p->m.area)
		SKIP(return, "no file that is not shmem");
	p->m.len = len;
	p->m.unit = page;
	p->unit = page;

	EXPECT_EQ(-EINVAL, uk_register_mode(sync, p->m.area, len, WP, NULL));
	EXPECT_EQ(-EINVAL, uk_register_mode(p->fd, p->m.area, len, MISSING,
					    NULL));
	EXPECT_EQ(-EINVAL, uk_register_mode(p->fd, p->m.area, len, MISSING | WP,
					    NULL));
	EXPECT_EQ(-EINVAL, uk_register_mode(p->fd, p->m.area, len, MINOR | WP,
					    NULL));
	ASSERT_EQ(0, uk_register_mode(p->fd, p->m.area, len, WP, NULL));
	/* A fill has no business there. */
	UK_EXPECT_FILL(-EINVAL, -EINVAL,
		       uk_copy(p->fd, at(p, 0), uk_buffer(page), page, 0));

	uk_peek(at(p, 1));
	EXPECT_EQ(ALL, written(&a, PM_SCAN_WP_MATCHING));
	uk_peek(at(p, 2));
	EXPECT_EQ(0, written(&a, 0));
	EXPECT_TRUE(writes(p, at(p, 1)));
	EXPECT_TRUE(writes(p, at(p, 3)));
	EXPECT_EQ(1 << 1 | 1 << 3, written(&a, 0));
	ASSERT_EQ(0, uk_unregister(p->fd, p->m.area, len));
	EXPECT_TRUE(no_bits(p));
	EXPECT_TRUE(no_markers(p));
	close(sync);
	close(p->fd);
	close(a.pagemap);
}

TEST_HARNESS_MAIN
