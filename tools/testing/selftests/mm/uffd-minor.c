// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: minor faults, and UFFDIO_CONTINUE.
 *
 * The page is in the page cache, put there through another mapping of the
 * file; it is only not mapped. Shmem and hugetlb have that, shared and, read
 * only until it is copied, private.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		6
#define LIMIT		60

#define WP		UFFDIO_REGISTER_MODE_WP
#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define MINOR		UFFDIO_REGISTER_MODE_MINOR

#define FLAG_MINOR	UFFD_PAGEFAULT_FLAG_MINOR
#define FLAG_WRITE	UFFD_PAGEFAULT_FLAG_WRITE

/* FIXTURE_DATA(minor), by a name that reads well in a prototype. */
#define minor_test _test_data_minor

FIXTURE(minor)
{
	struct uk_mem m;
	size_t unit;
	int fd;
	char *alias;
};

FIXTURE_VARIANT(minor)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(minor, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(minor, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(minor, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(minor, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

static char *at(struct minor_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static char *other(struct minor_test *self, unsigned int unit)
{
	return self->alias + unit * self->unit;
}

static bool holds(struct minor_test *self, unsigned int unit,
		  unsigned long seed)
{
	return uk_painted(at(self, unit), self->unit, seed);
}

static int refit(struct minor_test *self, int flags, __u64 features,
		 __u64 mode)
{
	if (self->fd >= 0)
		close(self->fd);
	self->fd = uk_new(flags | O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register_mode(self->fd, self->m.area, self->m.len, mode, NULL);
}

/* The file has all units, painted with their numbers, except for the last. */
FIXTURE_SETUP(minor)
{
	const char *why;
	unsigned int i;
	int err;

	self->fd = -1;
	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	if (!(uk_offered() & (uk_is_hugetlb(&self->m) ?
			      UFFD_FEATURE_MINOR_HUGETLBFS :
			      UFFD_FEATURE_MINOR_SHMEM)))
		SKIP(return, "no minor faults on this kernel");
	self->alias = uk_alias(&self->m);
	ASSERT_NE(NULL, self->alias);
	for (i = 0; i < UNITS - 1; i++)
		uk_paint(other(self, i), self->unit, i);
	err = refit(self, 0, 0, MINOR);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(minor)
{
	close(self->fd);
}

static struct uk_fill cont(struct minor_test *self, unsigned int unit,
			   unsigned int count)
{
	return uk_continue(self->fd, at(self, unit), count * self->unit, 0);
}

/* What the message says. */

TEST_F_TIMEOUT(minor, message_of_a_read, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1) + 123));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(UFFD_EVENT_PAGEFAULT, msg.event);
	EXPECT_EQ(FLAG_MINOR, msg.arg.pagefault.flags);
	EXPECT_EQ((unsigned long)at(self, 1), msg.arg.pagefault.address);
	EXPECT_EQ(0, msg.arg.reserved.reserved3);
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));

	/* The file may change until it is mapped, and after. */
	uk_paint(other(self, 1), self->unit, 71);
	UK_EXPECT_FILL(0, self->unit, cont(self, 1, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ((unsigned char)other(self, 1)[123], t.ret);
	EXPECT_TRUE(holds(self, 1, 71));
	uk_paint(other(self, 1), self->unit, 72);
	EXPECT_TRUE(holds(self, 1, 72));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
}

TEST_F_TIMEOUT(minor, message_of_a_write, LIMIT)
{
	char *last = at(self, 3) - 1;
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, uk_start(&t, uk_poke, last));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 2)));
	EXPECT_EQ(FLAG_MINOR | FLAG_WRITE, msg.arg.pagefault.flags);
	UK_EXPECT_FILL(0, self->unit, cont(self, 2, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(0xa5, uk_peek(last));
	EXPECT_TRUE(uk_painted(at(self, 2), self->unit - 8, 2));
	/* The file's page, or from now on one's own. */
	EXPECT_EQ(!uk_is_shared(&self->m),
		  uk_painted(other(self, 2), self->unit, 2));
	uk_poke(other(self, 2));
	EXPECT_EQ(uk_is_shared(&self->m), uk_peek(at(self, 2)) == 0xa5);
}

TEST_F_TIMEOUT(minor, exact_address_and_thread_id, LIMIT)
{
	char *addr = at(self, 2) + self->unit - 7;
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_EXACT_ADDRESS |
			   UFFD_FEATURE_THREAD_ID, MINOR));
	ASSERT_EQ(0, uk_start(&t, uk_peek, addr));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, addr));
	EXPECT_EQ(FLAG_MINOR, msg.arg.pagefault.flags);
	EXPECT_EQ(t.tid, msg.arg.pagefault.feat.ptid);
	UK_EXPECT_FILL(0, self->unit, cont(self, 2, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

TEST_F_TIMEOUT(minor, registering_says_what_is_possible, LIMIT)
{
	__u64 ioctls;

	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      MISSING, &ioctls));
	EXPECT_EQ(0, ioctls & UK_BIT(_UFFDIO_CONTINUE));
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      MINOR, &ioctls));
	EXPECT_NE(0, ioctls & UK_BIT(_UFFDIO_CONTINUE));
	EXPECT_EQ(0, ioctls & UK_BIT(_UFFDIO_WRITEPROTECT));
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      MINOR | MISSING | WP, &ioctls));
	EXPECT_NE(0, ioctls & UK_BIT(_UFFDIO_CONTINUE));
	EXPECT_NE(0, ioctls & UK_BIT(_UFFDIO_WRITEPROTECT));
}

/* Continuing. */

TEST_F_TIMEOUT(minor, many_at_once, LIMIT)
{
	int i;

	UK_EXPECT_FILL(0, (UNITS - 1) * self->unit, cont(self, 0, UNITS - 1));
	for (i = 0; i < UNITS - 1; i++)
		EXPECT_TRUE(holds(self, i, i));
	EXPECT_EQ(0, uk_poll(self->fd, 0));

	/* These may be written, by whoever maps them. */
	uk_paint(at(self, 1), 2 * self->unit, 99);
	EXPECT_TRUE(uk_painted(at(self, 1), 2 * self->unit, 99));
	EXPECT_EQ(uk_is_shared(&self->m),
		  uk_painted(other(self, 1), 2 * self->unit, 99));
	EXPECT_EQ(!uk_is_shared(&self->m),
		  uk_painted(other(self, 1), self->unit, 1));
	EXPECT_TRUE(uk_painted(other(self, 3), self->unit, 3));
}

/* Unmapped, it is the same again; nothing is lost but one's own copy. */
TEST_F_TIMEOUT(minor, again_after_dontneed, LIMIT)
{
	struct uffd_msg msg;
	struct uk_thread t;
	int i;

	for (i = 0; i < 3; i++) {
		UK_EXPECT_FILL(0, 2 * self->unit, cont(self, 1, 2));
		uk_poke(at(self, 2));
		ASSERT_EQ(0, madvise(at(self, 1), 2 * self->unit,
				     MADV_DONTNEED));
	}
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 2)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(FLAG_MINOR, msg.arg.pagefault.flags);
	UK_EXPECT_FILL(0, self->unit, cont(self, 2, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(uk_is_shared(&self->m), t.ret == 0xa5);
}

TEST_F_TIMEOUT(minor, missing_from_the_file, LIMIT)
{
	struct uk_thread t;
	int err;

	UK_EXPECT_FILL(-EFAULT, -EFAULT, cont(self, UNITS - 1, 1));
	/* Nothing came into being, and what comes before is done. */
	UK_EXPECT_FILL(-EAGAIN, 2 * self->unit, cont(self, UNITS - 3, 3));
	UK_EXPECT_FILL(-EFAULT, -EFAULT, cont(self, UNITS - 1, 1));
	/* Its fault is nobody's concern. */
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, UNITS - 1)));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	EXPECT_TRUE(uk_all_zero(at(self, UNITS - 1), self->unit));
	/* Only a private huge page came without one of the file. */
	err = variant->kind == UK_HUGETLB_PRIVATE ? -EFAULT : -EEXIST;
	UK_EXPECT_FILL(err, err, cont(self, UNITS - 1, 1));

	/* And if it had been there, and is not now. */
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), self->unit));
	UK_EXPECT_FILL(-EAGAIN, self->unit, cont(self, 0, 2));
	UK_EXPECT_FILL(-EFAULT, -EFAULT, cont(self, 1, 1));
}

TEST_F_TIMEOUT(minor, partial_progress, LIMIT)
{
	struct uk_thread t[2];

	UK_ASSERT_FILL(0, self->unit, cont(self, 2, 1));
	ASSERT_EQ(0, uk_start(&t[0], uk_peek, at(self, 1)));
	ASSERT_EQ(0, uk_start(&t[1], uk_peek, at(self, 3)));
	ASSERT_TRUE(uk_parked(self->fd, 2, 2));

	UK_EXPECT_FILL(-EAGAIN, 2 * self->unit, cont(self, 0, 4));
	EXPECT_TRUE(uk_join(&t[0], UK_SOON));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, cont(self, 2, 2));
	EXPECT_TRUE(uk_stays(&t[1]));
	UK_EXPECT_FILL(0, self->unit, cont(self, 3, 1));
	EXPECT_TRUE(uk_join(&t[1], UK_SOON));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, cont(self, 0, 1));
}

TEST_F_TIMEOUT(minor, dontwake_then_wake, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	UK_EXPECT_FILL(0, self->unit,
		       uk_continue(self->fd, at(self, 1), self->unit,
				   UFFDIO_CONTINUE_MODE_DONTWAKE));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 2), self->unit));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 1), self->unit));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ((unsigned char)*other(self, 1), t.ret);
	EXPECT_EQ(0, uk_poll(self->fd, 0));
}

TEST_F_TIMEOUT(minor, only_the_range_is_woken, LIMIT)
{
	struct uk_thread t[UNITS - 1];
	int i;

	for (i = 0; i < UNITS - 1; i++)
		ASSERT_EQ(0, uk_start(&t[i], i & 1 ? uk_peek : uk_poke,
				      at(self, i) + 8 * i));
	ASSERT_TRUE(uk_parked(self->fd, UNITS - 1, UNITS - 1));
	UK_EXPECT_FILL(0, 2 * self->unit, cont(self, 1, 2));
	EXPECT_TRUE(uk_join(&t[1], UK_SOON));
	EXPECT_TRUE(uk_join(&t[2], UK_SOON));
	EXPECT_TRUE(uk_stays(&t[0]));
	EXPECT_FALSE(uk_finished(&t[3]));
	UK_EXPECT_FILL(0, self->unit, cont(self, 0, 1));
	UK_EXPECT_FILL(0, 2 * self->unit, cont(self, 3, 2));
	EXPECT_TRUE(uk_join_all(t, UNITS - 1));
}

/* Woken for nothing, a thread faults again. */
TEST_F_TIMEOUT(minor, wake_without_a_page, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;
	int i;

	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
		EXPECT_EQ(FLAG_MINOR, msg.arg.pagefault.flags);
		EXPECT_EQ(0, uk_wake(self->fd, self->m.area, self->m.len));
	}
	UK_EXPECT_FILL(0, self->unit, cont(self, 1, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

TEST_F_TIMEOUT(minor, closing_wakes, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	close(self->fd);
	self->fd = -1;
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ((unsigned char)*other(self, 1), t.ret);
}

/* Modes together. */

TEST_F_TIMEOUT(minor, with_missing, LIMIT)
{
	char *src = uk_buffer(self->unit);
	struct uk_thread t[2];
	struct uffd_msg msg;

	ASSERT_NE(NULL, src);
	uk_paint(src, self->unit, 33);
	ASSERT_EQ(0, refit(self, 0, 0, MINOR | MISSING));
	ASSERT_EQ(0, uk_start(&t[0], uk_peek, at(self, 0)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 0)));
	EXPECT_EQ(FLAG_MINOR, msg.arg.pagefault.flags);
	ASSERT_EQ(0, uk_start(&t[1], uk_poke, at(self, UNITS - 1)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, UNITS - 1)));
	EXPECT_EQ(FLAG_WRITE, msg.arg.pagefault.flags);

	UK_EXPECT_FILL(-EFAULT, -EFAULT, cont(self, UNITS - 1, 1));
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, at(self, UNITS - 1), src,
					      self->unit, 0));
	EXPECT_TRUE(uk_join(&t[1], UK_SOON));
	UK_EXPECT_FILL(0, self->unit, cont(self, 0, 1));
	EXPECT_TRUE(uk_join(&t[0], UK_SOON));
	EXPECT_EQ(0, memcmp(at(self, UNITS - 1) + 8, src + 8, self->unit - 8));

	/* A page that the file has is not to be filled, but of private memory. */
	if (uk_is_shared(&self->m)) {
		UK_EXPECT_FILL(-EEXIST, -EEXIST,
			       uk_copy(self->fd, at(self, 1), src, self->unit,
				       0));
		UK_EXPECT_FILL(0, self->unit, cont(self, 1, 1));
		EXPECT_TRUE(holds(self, 1, 1));
	} else {
		UK_EXPECT_FILL(0, self->unit,
			       uk_copy(self->fd, at(self, 1), src, self->unit,
				       0));
		UK_EXPECT_FILL(-EEXIST, -EEXIST, cont(self, 1, 1));
		EXPECT_TRUE(holds(self, 1, 33));
		EXPECT_TRUE(uk_painted(other(self, 1), self->unit, 1));
	}
}

/* It is possible wherever something is registered. */
TEST_F_TIMEOUT(minor, registered_for_another_mode, LIMIT)
{
	ASSERT_EQ(0, refit(self, 0, 0, MISSING));
	UK_EXPECT_FILL(0, self->unit, cont(self, 1, 1));
	EXPECT_TRUE(holds(self, 1, 1));
	ASSERT_EQ(0, refit(self, 0, 0, WP));
	UK_EXPECT_FILL(0, self->unit, cont(self, 2, 1));
	EXPECT_TRUE(holds(self, 2, 2));
}

/* Arguments. */

TEST_F_TIMEOUT(minor, arguments, LIMIT)
{
	char *p = at(self, 1);
	size_t u = self->unit;
	int bit;

	/* What can be seen to be wrong leaves the output field alone. */
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_continue(self->fd, p + 1, u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_continue(self->fd, p, u - 1, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_continue(self->fd, p, 0, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_continue(self->fd, p, -u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_continue(self->fd, UK_KERNEL_SPACE, u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_continue(self->fd, (void *)-u, u, 0));
	for (bit = 2; bit < 64; bit++)
		UK_EXPECT_FILL(-EINVAL, UK_UNSET,
			       uk_continue(self->fd, p, u, UK_BIT(bit)));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_CONTINUE, NULL));
	EXPECT_EQ(EFAULT, errno);
	/* Not registered for write protection. */
	UK_EXPECT_FILL(-EINVAL, -EINVAL,
		       uk_continue(self->fd, p, u, UFFDIO_CONTINUE_MODE_WP));
	if (uk_is_hugetlb(&self->m)) {
		size_t small = getpagesize();

		UK_EXPECT_FILL(-EINVAL, -EINVAL,
			       uk_continue(self->fd, p + small, u, 0));
		UK_EXPECT_FILL(-EINVAL, -EINVAL,
			       uk_continue(self->fd, p, small, 0));
		UK_EXPECT_FILL(-EINVAL, -EINVAL,
			       uk_continue(self->fd, p, u + small, 0));
	}
	UK_EXPECT_FILL(0, u, uk_continue(self->fd, p, u, 0));
}

TEST_F_TIMEOUT(minor, outside_registered_memory, LIMIT)
{
	char *end = self->m.area + self->m.len;

	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_continue(self->fd, end, self->unit, 0));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_continue(self->fd, end - self->unit, 2 * self->unit,
				   0));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_continue(self->fd, self->alias, self->unit, 0));
	ASSERT_EQ(0, munmap(at(self, 3), self->unit));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, cont(self, 3, 1));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, cont(self, 2, 2));
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 0), self->unit));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, cont(self, 0, 1));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, cont(self, 0, 2));
	UK_EXPECT_FILL(0, self->unit, cont(self, 1, 1));
}

/* An event about the same range that nobody has read. */
TEST_F_TIMEOUT(minor, unread_event, LIMIT)
{
	struct uk_call call = {
		.nr = __NR_madvise,
		.arg = { (long)at(self, 1), self->unit, MADV_DONTNEED },
	};
	long long end = uk_now() + UK_SOON;
	struct uffd_msg msg;
	struct uk_thread t;
	struct uk_fill res;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_EVENT_REMOVE, MINOR));
	ASSERT_EQ(0, uk_start(&t, uk_call, &call));
	ASSERT_TRUE(uk_asleep(t.tid));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, cont(self, 0, 3));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, 1),
			       at(self, 2)));
	/* Before the series, it must also have been dealt with. */
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	do {
		res = cont(self, 0, 3);
	} while (res.err == -EAGAIN && res.out < 0 && uk_now() < end);
	UK_EXPECT_FILL(0, 3 * self->unit, res);
}

/* The page is mapped even if the kernel cannot say so. */
TEST_F_TIMEOUT(minor, output_field_cannot_be_written, LIMIT)
{
	size_t page = getpagesize();
	struct uffdio_continue *c;
	char *p = uk_buffer(2 * page);

	ASSERT_NE(NULL, p);
	c = (void *)(p + page - offsetof(struct uffdio_continue, mapped));
	c->range.start = (unsigned long)at(self, 1);
	c->range.len = self->unit;
	c->mode = 0;
	ASSERT_EQ(0, mprotect(p + page, page, PROT_READ));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_CONTINUE, c));
	EXPECT_EQ(EFAULT, errno);
	UK_EXPECT_FILL(-EEXIST, -EEXIST, cont(self, 1, 1));
}

TEST_F_TIMEOUT(minor, beyond_the_end_of_the_file, LIMIT)
{
	int err = uk_is_hugetlb(&self->m) ? -EFAULT : UK_CONTINUE_BEYOND_SHMEM;

	ASSERT_EQ(0, ftruncate(self->m.fd, 2 * self->unit));
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, at(self, 3), NULL, NULL));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	UK_EXPECT_FILL(err, err, cont(self, 3, 1));
	UK_EXPECT_FILL(-EAGAIN, self->unit, cont(self, 1, 2));
	EXPECT_TRUE(holds(self, 1, 1));
	UK_EXPECT_FILL(0, self->unit, cont(self, 0, 1));
}

/* Memory without a page cache. */
TEST(minor_of_anonymous_memory)
{
	struct uk_mem m;
	int fd;

	ASSERT_EQ(NULL, uk_map(&m, UK_ANON_SMALL, UNITS));
	fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	if (fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EINVAL, uk_register_mode(fd, m.area, m.len, MINOR, NULL));
	EXPECT_EQ(-EINVAL, uk_register_mode(fd, m.area, m.len, MINOR | MISSING,
					    NULL));
	ASSERT_EQ(0, uk_register(fd, m.area, m.len));
	UK_EXPECT_FILL(-EINVAL, -EINVAL, uk_continue(fd, m.area, m.unit, 0));
	close(fd);
}

/* The kernel's own accesses. */

TEST_F_TIMEOUT(minor, access_by_the_kernel, LIMIT)
{
	struct iovec there = { .iov_base = at(self, 1), .iov_len = 8 };
	char text[] = "kernel!!";
	struct iovec here = { .iov_base = text, .iov_len = 8 };
	struct uk_call call = {
		.nr = __NR_process_vm_writev,
		.arg = { getpid(), (long)&here, 1, (long)&there, 1, 0 },
	};
	struct uffd_msg msg;
	struct uk_thread t;
	int p[2];

	ASSERT_EQ(0, uk_start(&t, uk_call, &call));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
	EXPECT_EQ(FLAG_MINOR | FLAG_WRITE, msg.arg.pagefault.flags);
	UK_EXPECT_FILL(0, self->unit, cont(self, 1, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(8, t.ret);
	EXPECT_EQ(0, memcmp(at(self, 1), text, 8));

	ASSERT_EQ(0, pipe(p));
	call = (struct uk_call){
		.nr = __NR_write,
		.arg = { p[1], (long)at(self, 2), 8 },
	};
	ASSERT_EQ(0, uk_start(&t, uk_call, &call));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 2)));
	EXPECT_EQ(FLAG_MINOR, msg.arg.pagefault.flags);
	UK_EXPECT_FILL(0, self->unit, cont(self, 2, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(8, t.ret);
	EXPECT_EQ(8, read(p[0], text, 8));
	EXPECT_TRUE(uk_painted(text, 8, 2));
	close(p[0]);
	close(p[1]);
}

TEST_F_TIMEOUT(minor, refusing_modes, LIMIT)
{
	struct uffd_msg msg;
	void *where = NULL;
	int p[2];

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(0, refit(self, UFFD_USER_MODE_ONLY, 0, MINOR));
	EXPECT_EQ(-1, write(p[1], at(self, 1), 8));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_SIGBUS, MINOR));
	EXPECT_EQ(-1, write(p[1], at(self, 1), 8));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, at(self, 1) + 9, &where, NULL));
	EXPECT_EQ(at(self, 1) + 9, (char *)where);
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	UK_EXPECT_FILL(0, self->unit, cont(self, 1, 1));
	EXPECT_EQ(0, uk_catch(uk_peek, at(self, 1), NULL, NULL));
	close(p[0]);
	close(p[1]);
}

/* A page that the machine has lost. */

static long lose(void *addr)
{
	/* Of the signal that comes of it, the caller knows. */
	return madvise(addr, getpagesize(), MADV_HWPOISON);
}

static long suffer(void *addr)
{
	return uk_catch(uk_peek, addr, NULL, NULL);
}

TEST_F_TIMEOUT(minor, hardware_poison, LIMIT)
{
	struct uffd_msg msg;
	struct uk_thread t;

	if (variant->kind != UK_SHMEM)
		SKIP(return, "shared shmem only");
	if (uk_read_number("/proc/sys/vm/memory_failure_recovery") != 1 ||
	    geteuid())
		SKIP(return, "no memory can be lost by hand");
	uk_catch(lose, other(self, 1), NULL, NULL);
	if (!uk_catch(uk_peek, other(self, 1), NULL, NULL))
		SKIP(return, "no memory can be lost by hand");
	UK_EXPECT_FILL(-EIO, -EIO, cont(self, 1, 1));
	UK_EXPECT_FILL(-EAGAIN, self->unit, cont(self, 0, 2));
	UK_EXPECT_FILL(0, self->unit, cont(self, 2, 1));

	/* Its fault is one like any other, until the handler passes it on. */
	ASSERT_EQ(0, uk_start(&t, suffer, at(self, 1)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
	EXPECT_EQ(FLAG_MINOR, msg.arg.pagefault.flags);
	UK_EXPECT_FILL(-EIO, -EIO, cont(self, 1, 1));
	UK_EXPECT_FILL(0, self->unit, uk_poison(self->fd, at(self, 1),
						self->unit, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(SIGBUS, t.ret);
}

/* In turn. */

struct toucher {
	struct minor_test *self;
	int rounds;
};

static long touch_and_unmap(void *arg)
{
	struct toucher *c = arg;
	int i;

	for (i = 0; i < c->rounds; i++) {
		int u = i % (UNITS - 1);

		if (!holds(c->self, u, u))
			return i + 1;
		if (madvise(at(c->self, u), c->self->unit, MADV_DONTNEED))
			return -errno;
	}
	return 0;
}

TEST_F_TIMEOUT(minor, faults_and_continues_in_turn, LIMIT)
{
	struct toucher c = {
		.self = self,
		.rounds = uk_is_hugetlb(&self->m) ? 20 : 500,
	};
	struct uffd_msg msg;
	struct uk_thread t;
	int i;

	ASSERT_EQ(0, uk_start(&t, touch_and_unmap, &c));
	for (i = 0; i < c.rounds; i++) {
		int u = i % (UNITS - 1);

		ASSERT_EQ(1, uk_next(self->fd, &msg));
		ASSERT_TRUE(uk_is_fault(&msg, at(self, u)));
		UK_ASSERT_FILL(0, self->unit, cont(self, u, 1));
	}
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
}

/* Many pages, large folios. */

/* FIXTURE_DATA(large), by a name that reads well in a prototype. */
#define large_test _test_data_large

FIXTURE(large)
{
	size_t page;
	size_t huge;
	size_t len;		/* three huge pages */
	int file;
	int fd;
	char *area;
	char *alias;
};

FIXTURE_VARIANT(large)
{
	bool huge;
	bool private;
};

FIXTURE_VARIANT_ADD(large, small_pages)
{
	.huge = false,
};

FIXTURE_VARIANT_ADD(large, small_pages_private)
{
	.huge = false,
	.private = true,
};

FIXTURE_VARIANT_ADD(large, huge_pages)
{
	.huge = true,
};

FIXTURE_VARIANT_ADD(large, huge_pages_private)
{
	.huge = true,
	.private = true,
};

/* A file in a tmpfs that prefers huge pages, or does not have them. */
static int tmpfs_file(bool huge)
{
	char path[] = "/tmp/uffd-minor-XXXXXX", file[64];
	int fd;

	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	if (!mkdtemp(path))
		return -errno;
	if (mount("none", path, "tmpfs", 0, huge ? "huge=always" : "huge=never"))
		return -errno;
	snprintf(file, sizeof(file), "%s/file", path);
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		unlink(file);
	umount2(path, MNT_DETACH);
	rmdir(path);
	return fd < 0 ? -errno : fd;
}

FIXTURE_SETUP(large)
{
	self->page = getpagesize();
	self->huge = uk_huge_size();
	self->len = 3 * self->huge;
	self->fd = -1;
	if (self->huge > 32 << 20)
		SKIP(return, "huge pages are too huge here");
	self->file = tmpfs_file(variant->huge);
	if (self->file < 0)
		SKIP(return, "cannot mount a tmpfs");
	ASSERT_EQ(0, ftruncate(self->file, self->len));
	self->alias = mmap(uk_reserve(self->len, self->huge), self->len,
			   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			   self->file, 0);
	ASSERT_NE(MAP_FAILED, self->alias);
	uk_paint(self->alias, self->len, 5);
	if (variant->huge && uk_huge(self->alias, self->len) <= 0)
		SKIP(return, "no huge page was to be had");
	self->area = mmap(uk_reserve(self->len, self->huge), self->len,
			  PROT_READ | PROT_WRITE, MAP_FIXED |
			  (variant->private ? MAP_PRIVATE : MAP_SHARED),
			  self->file, 0);
	ASSERT_NE(MAP_FAILED, self->area);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->area, self->len, MINOR,
				      NULL));
}

FIXTURE_TEARDOWN(large)
{
	close(self->fd);
}

static bool same(struct large_test *self)
{
	return !memcmp(self->area, self->alias, self->len);
}

TEST_F_TIMEOUT(large, all_at_once, LIMIT)
{
	UK_ASSERT_FILL(0, self->len, uk_continue(self->fd, self->area,
						 self->len, 0));
	EXPECT_TRUE(same(self));
	EXPECT_EQ(self->len / self->page,
		  uk_pages(self->area, self->len, UK_PM_PRESENT));
	/* Written by either side. */
	uk_poke(self->alias + self->huge + 5);
	EXPECT_EQ(0xa5, uk_peek(self->area + self->huge + 5));
	uk_poke(self->area + 3 * self->page);
	EXPECT_EQ(!variant->private, same(self));
	uk_poke(self->alias + 3 * self->page);
	EXPECT_TRUE(same(self));
}

/* One page here, one there, and then the rest around them. */
TEST_F_TIMEOUT(large, around_pages_that_are_there, LIMIT)
{
	size_t at[] = { 3, 17, 511, 512, 700 }, pages = self->len / self->page;
	size_t from = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		at[i] = at[i] * (self->huge / self->page) / 512;
		UK_ASSERT_FILL(0, self->page,
			       uk_continue(self->fd, self->area +
					   at[i] * self->page, self->page, 0));
	}
	/* A fill of one page maps one page. */
	EXPECT_EQ(ARRAY_SIZE(at), uk_pages(self->area, self->len,
					   UK_PM_PRESENT));
	for (i = 0; i < ARRAY_SIZE(at); i++) {
		char *p = self->area + from * self->page;
		size_t len = (pages - from) * self->page;
		size_t some = (at[i] - from) * self->page;

		if (some) {
			UK_ASSERT_FILL(-EAGAIN, some,
				       uk_continue(self->fd, p, len, 0));
		}
		UK_ASSERT_FILL(-EEXIST, -EEXIST,
			       uk_continue(self->fd, p + some, len - some, 0));
		from = at[i] + 1;
	}
	UK_ASSERT_FILL(0, (pages - from) * self->page,
		       uk_continue(self->fd, self->area + from * self->page,
				   (pages - from) * self->page, 0));
	EXPECT_TRUE(same(self));
}

/* Ranges that begin and end anywhere. */
TEST_F_TIMEOUT(large, odd_ranges, LIMIT)
{
	static const size_t steps[] = { 1, 2, 15, 16, 17, 31, 100, 511 };
	size_t done = 0, step;
	unsigned int i;

	for (i = 0; done < self->len; i++) {
		step = steps[i % ARRAY_SIZE(steps)] * self->page;
		if (step > self->len - done)
			step = self->len - done;
		UK_ASSERT_FILL(0, step, uk_continue(self->fd, self->area + done,
						    step, 0));
		done += step;
		ASSERT_EQ(done / self->page, uk_pages(self->area, self->len,
						      UK_PM_PRESENT));
	}
	EXPECT_TRUE(same(self));
}

/* A hole in the file, of one page: what is before it gets mapped. */
TEST_F_TIMEOUT(large, up_to_a_hole, LIMIT)
{
	size_t at = self->huge + 20 * self->page;

	ASSERT_EQ(0, madvise(self->alias + at, self->page, MADV_REMOVE));
	UK_EXPECT_FILL(-EAGAIN, at, uk_continue(self->fd, self->area, self->len,
						0));
	UK_EXPECT_FILL(-EFAULT, -EFAULT,
		       uk_continue(self->fd, self->area + at, self->page, 0));
	at += self->page;
	UK_EXPECT_FILL(0, self->len - at,
		       uk_continue(self->fd, self->area + at, self->len - at,
				   0));
}

/* The file ends in the middle of a huge page. */
TEST_F_TIMEOUT(large, up_to_the_end, LIMIT)
{
	size_t at = self->huge + 20 * self->page;

	ASSERT_EQ(0, ftruncate(self->file, at - self->page / 2));
	UK_EXPECT_FILL(-EAGAIN, at, uk_continue(self->fd, self->area, self->len,
						0));
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, self->area + at, NULL, NULL));
	EXPECT_EQ(0, memcmp(self->area, self->alias, at));
}

TEST_F_TIMEOUT(large, protected, LIMIT)
{
	size_t at = 7 * self->page;
	struct uffd_msg msg;
	struct uk_thread t;

	if (!(uk_offered() & UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		SKIP(return, "no write protection of files on this kernel");
	ASSERT_EQ(0, uk_register_mode(self->fd, self->area, self->len,
				      MINOR | WP, NULL));
	UK_ASSERT_FILL(0, self->len,
		       uk_continue(self->fd, self->area, self->len,
				   UFFDIO_CONTINUE_MODE_WP));
	EXPECT_EQ(self->len / self->page,
		  uk_pages(self->area, self->len, UK_PM_WP));
	ASSERT_EQ(0, uk_start(&t, uk_poke, self->area + at));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, self->area + at));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_WP | FLAG_WRITE,
		  msg.arg.pagefault.flags);
	EXPECT_EQ(0, uk_protect(self->fd, self->area + at, self->page, 0));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0xa5, uk_peek(self->area + at));
	EXPECT_EQ(self->len / self->page - 1,
		  uk_pages(self->area, self->len, UK_PM_WP));
}

TEST_HARNESS_MAIN
