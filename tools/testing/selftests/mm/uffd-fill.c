// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: faults on missing pages and the calls that resolve them.
 *
 * What a fault says about itself, what UFFDIO_COPY, UFFDIO_ZEROPAGE and
 * UFFDIO_WAKE do, refuse and report, and who is woken, for every memory type.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		6
#define LIMIT		60

/* FIXTURE_DATA(fill), by a name that reads well in a prototype. */
#define fill_test _test_data_fill

FIXTURE(fill)
{
	struct uk_mem m;
	size_t unit;
	int fd;
	char *src;		/* unit i is painted with seed i */
};

FIXTURE_VARIANT(fill)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(fill, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(fill, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(fill, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(fill, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(fill, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(fill, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

FIXTURE_SETUP(fill)
{
	const char *why;
	unsigned int i;

	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	self->src = uk_buffer(UNITS * self->unit);
	ASSERT_NE(NULL, self->src);
	for (i = 0; i < UNITS; i++)
		uk_paint(self->src + i * self->unit, self->unit, i);
}

FIXTURE_TEARDOWN(fill)
{
	close(self->fd);
}

static char *at(struct fill_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static char *from(struct fill_test *self, unsigned int unit)
{
	return self->src + unit * self->unit;
}

static bool holds(struct fill_test *self, unsigned int unit,
		  unsigned long seed)
{
	return uk_painted(at(self, unit), self->unit, seed);
}

static bool each_holds_its_own(struct fill_test *self)
{
	unsigned int i;

	for (i = 0; i < UNITS; i++) {
		if (!holds(self, i, i))
			return false;
	}
	return true;
}

static struct uk_fill copy(struct fill_test *self, unsigned int unit,
			   unsigned int seed, unsigned int count)
{
	return uk_copy(self->fd, at(self, unit), from(self, seed),
		       count * self->unit, 0);
}

/* The same memory, registered with another descriptor. */
static int refit(struct fill_test *self, int flags, __u64 features)
{
	close(self->fd);
	self->fd = uk_new(flags | O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register(self->fd, self->m.area, self->m.len);
}

/* What the message says. */

TEST_F_TIMEOUT(fill, message_of_a_read, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1) + 123));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(UFFD_EVENT_PAGEFAULT, msg.event);
	EXPECT_EQ(0, msg.reserved1);
	EXPECT_EQ(0, msg.reserved2);
	EXPECT_EQ(0, msg.reserved3);
	EXPECT_EQ(0, msg.arg.pagefault.flags);
	EXPECT_EQ((unsigned long)at(self, 1), msg.arg.pagefault.address);
	EXPECT_EQ(0, msg.arg.reserved.reserved3);

	/* It came once, and the thread waits. */
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));

	UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ((unsigned char)from(self, 1)[123], t.ret);
	EXPECT_TRUE(holds(self, 1, 1));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
}

TEST_F_TIMEOUT(fill, message_of_a_write, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;
	char *last = at(self, 3) - 1;

	ASSERT_EQ(0, uk_start(&t, uk_poke, last));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 2)));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_WRITE, msg.arg.pagefault.flags);
	EXPECT_EQ(0, msg.arg.reserved.reserved3);

	UK_EXPECT_FILL(0, self->unit, copy(self, 2, 2, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0xa5, uk_peek(last));
	EXPECT_TRUE(uk_painted(at(self, 2), self->unit - 8, 2));
}

TEST_F_TIMEOUT(fill, exact_address_and_thread_id, LIMIT)
{
	struct uk_thread t[2];
	struct uffd_msg msg;
	int i;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_EXACT_ADDRESS |
			   UFFD_FEATURE_THREAD_ID));
	for (i = 0; i < 2; i++) {
		char *addr = at(self, i) + self->unit - 7 - i;

		ASSERT_EQ(0, uk_start(&t[i], i ? uk_peek : uk_poke, addr));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_fault(&msg, addr));
		EXPECT_EQ(t[i].tid, msg.arg.pagefault.feat.ptid);
		EXPECT_EQ(i ? 0 : UFFD_PAGEFAULT_FLAG_WRITE,
			  msg.arg.pagefault.flags);
	}
	UK_EXPECT_FILL(0, 2 * self->unit, copy(self, 0, 0, 2));
	EXPECT_TRUE(uk_join(&t[0], UK_SOON));
	EXPECT_TRUE(uk_join(&t[1], UK_SOON));
}

TEST_F_TIMEOUT(fill, thread_id_alone, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_THREAD_ID));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 0) + 77));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 0)));
	EXPECT_EQ(t.tid, msg.arg.pagefault.feat.ptid);
	UK_EXPECT_FILL(0, self->unit, copy(self, 0, 0, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

/* Copying. */

TEST_F_TIMEOUT(fill, copy_each_page, LIMIT)
{
	int i;

	for (i = UNITS - 1; i >= 0; i--)
		UK_EXPECT_FILL(0, self->unit, copy(self, i, i, 1));
	EXPECT_TRUE(each_holds_its_own(self));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
}

TEST_F_TIMEOUT(fill, copy_many_pages_at_once, LIMIT)
{
	UK_EXPECT_FILL(0, UNITS * self->unit, copy(self, 0, 0, UNITS));
	EXPECT_TRUE(each_holds_its_own(self));

	/* They are this process's to write. */
	uk_paint(at(self, 1), 2 * self->unit, 99);
	EXPECT_TRUE(uk_painted(at(self, 1), 2 * self->unit, 99));
	EXPECT_TRUE(holds(self, 0, 0));
	EXPECT_TRUE(holds(self, 3, 3));
	EXPECT_TRUE(uk_painted(from(self, 1), self->unit, 1));
}

/* The whole area, which for THP means huge pages or what stands in for them. */
TEST_F_TIMEOUT(fill, copy_everything, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;
	size_t mid = self->m.units / 2;
	char *src = uk_buffer(self->m.len);

	ASSERT_NE(NULL, src);
	uk_paint(src, self->m.len, 7);
	UK_ASSERT_FILL(0, self->m.len, uk_copy(self->fd, self->m.area, src,
					       self->m.len, 0));
	ASSERT_TRUE(uk_painted(self->m.area, self->m.len, 7));

	/* One page of it can go, and be filled again, alone. */
	ASSERT_EQ(0, uk_drop(&self->m, at(self, mid), self->unit));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, mid)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, mid)));
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, at(self, mid),
					      src + mid * self->unit,
					      self->unit, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(uk_painted(self->m.area, self->m.len, 7));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
}

/* A page that is there already ends a large request where it stands. */
TEST_F_TIMEOUT(fill, copy_everything_around_a_page, LIMIT)
{
	size_t mid = self->m.units / 2 + 1, len = self->m.len;
	char *src = uk_buffer(len);

	ASSERT_NE(NULL, src);
	uk_paint(src, len, 8);
	UK_ASSERT_FILL(0, self->unit, copy(self, mid, 1, 1));
	UK_EXPECT_FILL(-EAGAIN, mid * self->unit,
		       uk_copy(self->fd, self->m.area, src, len, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_copy(self->fd, at(self, mid),
			       src + mid * self->unit, self->unit, 0));
	mid++;
	UK_EXPECT_FILL(0, len - mid * self->unit,
		       uk_copy(self->fd, at(self, mid),
			       src + mid * self->unit, len - mid * self->unit,
			       0));
	mid--;
	EXPECT_TRUE(holds(self, mid, 1));
	memcpy(src + mid * self->unit, at(self, mid), self->unit);
	EXPECT_EQ(0, memcmp(src, self->m.area, len));
}

TEST_F_TIMEOUT(fill, copy_from_an_odd_address, LIMIT)
{
	size_t len = 2 * self->unit;
	char *src = uk_buffer(len + 4096);

	ASSERT_NE(NULL, src);
	uk_paint(src + 3, len, 5);
	UK_EXPECT_FILL(0, len, uk_copy(self->fd, at(self, 1), src + 3, len, 0));
	EXPECT_TRUE(uk_painted(at(self, 1), len, 5));
}

TEST_F_TIMEOUT(fill, copy_into_protected_memory, LIMIT)
{
	struct uffd_msg msg;

	ASSERT_EQ(0, mprotect(self->m.area, self->m.len, PROT_NONE));
	UK_EXPECT_FILL(0, self->unit, copy(self, 0, 0, 1));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_peek, at(self, 0), NULL, NULL));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_peek, at(self, 1), NULL, NULL));

	ASSERT_EQ(0, mprotect(self->m.area, self->m.len, PROT_READ));
	UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
	EXPECT_TRUE(holds(self, 0, 0));
	EXPECT_TRUE(holds(self, 1, 1));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, 1), NULL, NULL));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, 2), NULL, NULL));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));

	ASSERT_EQ(0, mprotect(self->m.area, self->m.len,
			      PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, uk_catch(uk_poke, at(self, 0), NULL, NULL));
	EXPECT_EQ(0xa5, uk_peek(at(self, 0)));
}

/* The file gets shared pages and nothing of private ones. */
TEST_F_TIMEOUT(fill, copy_reaches_the_file, LIMIT)
{
	struct stat st;
	char *alias;

	if (uk_is_anon(&self->m))
		SKIP(return, "no file behind this memory");
	UK_ASSERT_FILL(0, 2 * self->unit, copy(self, 1, 1, 2));
	/* Neither of these leaves anything behind. */
	UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 1, 1, 1));
	UK_EXPECT_FILL(-EFAULT, -EFAULT, uk_copy(self->fd, at(self, 4), NULL,
						 self->unit, 0));
	ASSERT_EQ(0, fstat(self->m.fd, &st));
	alias = uk_alias(&self->m);
	ASSERT_NE(NULL, alias);
	if (uk_is_shared(&self->m)) {
		EXPECT_EQ(2 * self->unit, st.st_blocks * 512);
		EXPECT_TRUE(uk_painted(alias + self->unit, self->unit, 1));
		EXPECT_TRUE(uk_painted(alias + 2 * self->unit, self->unit, 2));
		uk_poke(alias + self->unit);
		EXPECT_EQ(0xa5, uk_peek(at(self, 1)));
	} else {
		EXPECT_EQ(0, st.st_blocks);
		/* Reading an alias of huge pages would add them. */
		EXPECT_TRUE(uk_is_hugetlb(&self->m) ||
			    uk_all_zero(alias, self->m.len));
	}
}

/* A page that the file has but that is not mapped here. */
TEST_F_TIMEOUT(fill, page_in_the_file, LIMIT)
{
	struct uffd_msg msg;
	char *alias;

	if (uk_is_anon(&self->m))
		SKIP(return, "no file behind this memory");
	alias = uk_alias(&self->m);
	ASSERT_NE(NULL, alias);
	uk_paint(alias, 2 * self->unit, 50);

	/* A shared mapping has that page; a private one can get its own. */
	if (uk_is_shared(&self->m)) {
		UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 1, 1, 1));
		EXPECT_TRUE(uk_painted(at(self, 0), 2 * self->unit, 50));
	} else {
		UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
		EXPECT_TRUE(holds(self, 1, 1));
		EXPECT_TRUE(uk_painted(alias, 2 * self->unit, 50));
	}

	/* It is not missing. */
	EXPECT_EQ(uk_peek(alias), uk_peek(at(self, 0)));
	EXPECT_EQ(0, memcmp(alias, at(self, 0), self->unit));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 0, 0, 1));
}

/* Zero pages. */

TEST_F_TIMEOUT(fill, zeropage, LIMIT)
{
	struct uk_thread t;

	if (uk_is_hugetlb(&self->m)) {
		UK_EXPECT_FILL(-EINVAL, -EINVAL,
			       uk_zero(self->fd, at(self, 0), self->unit, 0));
		return;
	}
	ASSERT_EQ(0, uk_start(&t, uk_poke, at(self, 2) + 9));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	UK_EXPECT_FILL(0, 3 * self->unit,
		       uk_zero(self->fd, at(self, 1), 3 * self->unit, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0xa5, uk_peek(at(self, 2) + 9));
	EXPECT_TRUE(uk_all_zero(at(self, 1), self->unit + 9));
	EXPECT_TRUE(uk_all_zero(at(self, 2) + 10, 2 * self->unit - 10));

	/* Zero is content like any other. */
	uk_paint(at(self, 1), self->unit, 3);
	EXPECT_TRUE(holds(self, 1, 3));
	EXPECT_TRUE(uk_all_zero(at(self, 3), self->unit));
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_zero(self->fd, at(self, 1), self->unit, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 3, 3, 1));
	UK_EXPECT_FILL(-EAGAIN, self->unit,
		       uk_zero(self->fd, at(self, 0), 2 * self->unit, 0));
	EXPECT_TRUE(uk_all_zero(at(self, 0), self->unit));
}

TEST_F_TIMEOUT(fill, zeropage_everything, LIMIT)
{
	if (uk_is_hugetlb(&self->m))
		SKIP(return, "no zero pages in hugetlb");
	UK_EXPECT_FILL(0, self->m.len, uk_zero(self->fd, self->m.area,
					       self->m.len, 0));
	EXPECT_TRUE(uk_all_zero(self->m.area, self->m.len));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
}

/* Pages that are there, ranges that are not. */

TEST_F_TIMEOUT(fill, present_page_is_kept, LIMIT)
{
	UK_ASSERT_FILL(0, self->unit, copy(self, 2, 2, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 2, 0, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 2, 0, 2));
	EXPECT_TRUE(holds(self, 2, 2));
	/* The failed one did not touch what follows. */
	UK_EXPECT_FILL(0, self->unit, copy(self, 3, 3, 1));
}

TEST_F_TIMEOUT(fill, partial_progress, LIMIT)
{
	struct uk_thread t;

	UK_ASSERT_FILL(0, self->unit, copy(self, 2, 5, 1));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));

	UK_EXPECT_FILL(-EAGAIN, 2 * self->unit, copy(self, 0, 0, 4));
	/* What was done counts: whoever waited for it runs. */
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 2, 2, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 3, 3, 1));
	EXPECT_TRUE(holds(self, 0, 0));
	EXPECT_TRUE(holds(self, 1, 1));
	EXPECT_TRUE(holds(self, 2, 5));
	EXPECT_TRUE(holds(self, 3, 3));
}

TEST_F_TIMEOUT(fill, outside_registered_memory, LIMIT)
{
	char *end = self->m.area + self->m.len;
	char *hole = end;

	/* Across the end, nothing is done. */
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_copy(self->fd, end - self->unit, self->src,
			       2 * self->unit, 0));
	/* A mapping that is not registered. */
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_copy(self->fd, end, self->src, self->unit, 0));
	/* No mapping at all. */
	ASSERT_EQ(0, munmap(hole, self->unit));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_copy(self->fd, hole, self->src, self->unit, 0));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_copy(self->fd, hole - self->unit, self->src,
			       2 * self->unit, 0));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_zero(self->fd, hole, self->unit, 0));

	/* Two registered mappings side by side are still two. */
	ASSERT_EQ(0, mprotect(at(self, 2), self->m.len - 2 * self->unit,
			      PROT_READ));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, copy(self, 1, 1, 2));

	/* Once registered is not for ever. */
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 0), self->unit));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, copy(self, 0, 0, 1));

	/* None of the failures left a page behind. */
	UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, end - self->unit,
					      self->src, self->unit, 0));
}

/* Arguments. */

TEST_F_TIMEOUT(fill, copy_arguments, LIMIT)
{
	char *p = at(self, 1);
	size_t u = self->unit;
	int bit;

	/* What can be seen to be wrong leaves the output field alone. */
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_copy(self->fd, p + 1, self->src, u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_copy(self->fd, p, self->src, u - 1, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_copy(self->fd, p, self->src, 0, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_copy(self->fd, p, self->src, -u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_copy(self->fd, UK_KERNEL_SPACE, self->src, u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_copy(self->fd, (void *)-u, self->src, u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_copy(self->fd, p, UK_KERNEL_SPACE, u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_copy(self->fd, p, (void *)-1UL, u, 0));
	for (bit = 2; bit < 64; bit++)
		UK_EXPECT_FILL(-EINVAL, UK_UNSET,
			       uk_copy(self->fd, p, self->src, u, UK_BIT(bit)));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_COPY, NULL));
	EXPECT_EQ(EFAULT, errno);

	/* Not registered for write protection. */
	EXPECT_EQ(-EINVAL, uk_copy(self->fd, p, self->src, u,
				   UFFDIO_COPY_MODE_WP).err);
	UK_EXPECT_FILL(0, u, uk_copy(self->fd, p, self->src, u, 0));
}

TEST_F_TIMEOUT(fill, zeropage_arguments, LIMIT)
{
	char *p = at(self, 1);
	size_t u = self->unit;
	int bit;

	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_zero(self->fd, p + 1, u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_zero(self->fd, p, u + 1, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_zero(self->fd, p, 0, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_zero(self->fd, p, -u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_zero(self->fd, UK_KERNEL_SPACE, u, 0));
	for (bit = 1; bit < 64; bit++)
		UK_EXPECT_FILL(-EINVAL, UK_UNSET,
			       uk_zero(self->fd, p, u, UK_BIT(bit)));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_ZEROPAGE, NULL));
	EXPECT_EQ(EFAULT, errno);
	UK_EXPECT_FILL(0, u, copy(self, 1, 1, 1));
}

TEST_F_TIMEOUT(fill, hugetlb_alignment, LIMIT)
{
	size_t small = getpagesize();

	if (!uk_is_hugetlb(&self->m))
		SKIP(return, "hugetlb only");
	UK_EXPECT_FILL(-EINVAL, -EINVAL,
		       uk_copy(self->fd, at(self, 1) + small, self->src,
			       self->unit, 0));
	UK_EXPECT_FILL(-EINVAL, -EINVAL,
		       uk_copy(self->fd, at(self, 1), self->src, small, 0));
	UK_EXPECT_FILL(-EINVAL, -EINVAL,
		       uk_copy(self->fd, at(self, 1), self->src,
			       self->unit + small, 0));
	UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
}

/* The page is there even if the kernel cannot say so. */
TEST_F_TIMEOUT(fill, output_field_cannot_be_written, LIMIT)
{
	size_t page = getpagesize();
	struct uffdio_copy *c;
	struct uffd_msg msg;
	struct uk_thread t;
	char *p = uk_buffer(2 * page);

	ASSERT_NE(NULL, p);
	c = (struct uffdio_copy *)(p + page - offsetof(struct uffdio_copy,
						       copy));
	c->dst = (unsigned long)at(self, 1);
	c->src = (unsigned long)from(self, 1);
	c->len = self->unit;
	c->mode = 0;
	ASSERT_EQ(0, mprotect(p + page, page, PROT_READ));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_COPY, c));
	EXPECT_EQ(EFAULT, errno);
	/* Kernels before this series leave it asleep before a page that is there. */
	if (!getenv("UFFD_LARGE"))
		uk_wake(self->fd, at(self, 1), self->unit);
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, copy(self, 1, 0, 1));
	EXPECT_TRUE(holds(self, 1, 1));
}

/* The source. */

TEST_F_TIMEOUT(fill, source_is_not_there, LIMIT)
{
	size_t small = getpagesize();
	char *none = uk_reserve(4 * self->unit, self->unit);
	char *src = none + self->unit;

	ASSERT_NE(NULL, none);
	UK_EXPECT_FILL(-EFAULT, -EFAULT,
		       uk_copy(self->fd, at(self, 0), none, self->unit, 0));
	UK_EXPECT_FILL(-EFAULT, -EFAULT,
		       uk_copy(self->fd, at(self, 0), NULL, self->unit, 0));

	/* The first pages are good, the next is not. */
	ASSERT_NE(MAP_FAILED, mmap(src, 2 * self->unit, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				   -1, 0));
	uk_paint(src, 2 * self->unit, 40);
	UK_EXPECT_FILL(-EAGAIN, 2 * self->unit,
		       uk_copy(self->fd, at(self, 0), src, 3 * self->unit, 0));
	UK_EXPECT_FILL(-EFAULT, -EFAULT,
		       uk_copy(self->fd, at(self, 2), src + 2 * self->unit,
			       self->unit, 0));
	EXPECT_TRUE(uk_painted(self->m.area, 2 * self->unit, 40));

	/* Good but for its very end: no page comes of that. */
	UK_EXPECT_FILL(-EFAULT, -EFAULT,
		       uk_copy(self->fd, at(self, 3), src + self->unit + small,
			       self->unit, 0));
	UK_EXPECT_FILL(0, self->unit, copy(self, 3, 3, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2, 2, 1));
}

/* Sources that must be brought in while the copy is made. */
TEST_F_TIMEOUT(fill, source_is_not_resident, LIMIT)
{
	size_t len = 2 * self->unit;
	char *file, *src;
	int fd;

	fd = syscall(__NR_memfd_create, "source", MFD_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, len));
	file = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, file);
	uk_paint(file, len, 30);

	/* In the page cache, never touched through this mapping. */
	src = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, src);
	UK_EXPECT_FILL(0, len, uk_copy(self->fd, at(self, 0), src, len, 0));
	EXPECT_TRUE(uk_painted(at(self, 0), len, 30));

	/* Forgotten by this process, and again half of it. */
	ASSERT_EQ(0, madvise(src, len, MADV_DONTNEED));
	uk_peek(src);
	UK_EXPECT_FILL(0, len, uk_copy(self->fd, at(self, 2), src, len, 0));
	EXPECT_TRUE(uk_painted(at(self, 2), len, 30));

	/* Never written: zeros, of a page or of none. */
	src = mmap(NULL, len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, src);
	UK_EXPECT_FILL(0, len, uk_copy(self->fd, at(self, 4), src, len, 0));
	EXPECT_TRUE(uk_all_zero(at(self, 4), len));
	close(fd);
}

/* The source is registered and missing too: the caller faults like anyone. */
TEST_F_TIMEOUT(fill, source_is_registered, LIMIT)
{
	struct uk_job j = {
		.fd = self->fd,
		.dst = at(self, 0),
		.src = at(self, 2),
		.len = 2 * self->unit,
	};
	struct uffd_msg msg;
	struct uk_thread t;
	int i;

	ASSERT_EQ(0, uk_start(&t, uk_copy_job, &j));
	for (i = 2; i < 4; i++) {
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_fault(&msg, at(self, i)));
		EXPECT_FALSE(uk_finished(&t));
		UK_EXPECT_FILL(0, self->unit, copy(self, i, i, 1));
	}
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	UK_EXPECT_FILL(0, j.len, j.res);
	EXPECT_TRUE(holds(self, 0, 2));
	EXPECT_TRUE(holds(self, 1, 3));
}

TEST_F_TIMEOUT(fill, source_is_the_destination, LIMIT)
{
	struct uk_job j = {
		.fd = self->fd,
		.dst = at(self, 0),
		.src = at(self, 0),
		.len = self->unit,
	};
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, uk_copy_job, &j));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 0)));
	UK_EXPECT_FILL(0, self->unit, copy(self, 0, 1, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, j.res);
	EXPECT_TRUE(holds(self, 0, 1));
}

/* While a copy waits for its source, its destination goes away. */
TEST_F_TIMEOUT(fill, destination_vanishes_during_the_copy, LIMIT)
{
	struct uk_job j = {
		.fd = self->fd,
		.dst = at(self, 0),
		.src = at(self, 2),
		.len = self->unit,
	};
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, uk_copy_job, &j));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_EQ(0, munmap(at(self, 0), self->unit));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2, 2, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, j.res);
}

/*
 * The same, and something else has taken its place, registered like the first: the
 * page was not meant for that.
 */
static bool replace_first(struct _test_data_fill *self, bool same_file)
{
	int fd = self->m.fd, flags = MAP_FIXED;
	off_t offset = self->unit;
	char *p = at(self, 0);

	flags |= uk_is_shared(&self->m) ? MAP_SHARED : MAP_PRIVATE;
	if (!same_file) {
		offset = 0;
		fd = syscall(__NR_memfd_create, "uffd-fill", MFD_CLOEXEC |
			     (uk_is_hugetlb(&self->m) ? MFD_HUGETLB : 0));
		if (fd < 0 || ftruncate(fd, self->unit))
			return false;
	}
	if (mmap(p, self->unit, PROT_READ | PROT_WRITE, flags, fd, offset) != p)
		return false;
	if (!same_file)
		close(fd);
	return !uk_register(self->fd, p, self->unit);
}

TEST_F_TIMEOUT(fill, destination_is_replaced_during_the_copy, LIMIT)
{
	struct uk_job j = {
		.fd = self->fd,
		.dst = at(self, 0),
		.src = at(self, 2),
		.len = self->unit,
	};
	struct uffd_msg msg;
	struct uk_thread t;
	int same_file;

	if (!getenv("UFFD_LARGE"))
		SKIP(return, "kernels up to 6.12 fill what has come there");
	if (uk_is_anon(&self->m))
		SKIP(return, "no file behind this memory");
	for (same_file = 1; same_file >= 0; same_file--) {
		ASSERT_EQ(0, uk_start(&t, uk_copy_job, &j));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		ASSERT_TRUE(replace_first(self, same_file));
		UK_EXPECT_FILL(0, self->unit, copy(self, 2, 2, 1));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		UK_EXPECT_FILL(-EAGAIN, -EAGAIN, j.res);
		ASSERT_EQ(0, uk_vacate(&self->m, at(self, 2), self->unit));
	}
	/* Nothing has come there. */
	UK_EXPECT_FILL(0, self->unit, copy(self, 0, 5, 1));
}

/* A mapping that is cut in two, or made read-only, is the same mapping. */
TEST_F_TIMEOUT(fill, destination_is_cut_during_the_copy, LIMIT)
{
	struct uk_job j = {
		.fd = self->fd,
		.dst = at(self, 1),
		.src = at(self, 3),
		.len = self->unit,
	};
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, uk_copy_job, &j));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_EQ(0, mprotect(at(self, 0), self->unit, PROT_READ));
	UK_EXPECT_FILL(0, self->unit, copy(self, 3, 3, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	UK_EXPECT_FILL(0, self->unit, j.res);
	EXPECT_TRUE(holds(self, 1, 3));
}

/* The same, and another page has come meanwhile. */
TEST_F_TIMEOUT(fill, destination_is_filled_during_the_copy, LIMIT)
{
	struct uk_job j = {
		.fd = self->fd,
		.dst = at(self, 0),
		.src = at(self, 2),
		.len = self->unit,
	};
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, uk_copy_job, &j));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	UK_EXPECT_FILL(0, self->unit, copy(self, 0, 5, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2, 2, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, j.res);
	EXPECT_TRUE(holds(self, 0, 5));
}

/* The end of the file. */

TEST_F_TIMEOUT(fill, beyond_the_end_of_the_file, LIMIT)
{
	int err = variant->kind == UK_SHMEM ? UK_COPY_BEYOND_SHMEM : -EFAULT;
	struct uffd_msg msg;

	if (uk_is_anon(&self->m))
		SKIP(return, "no file behind this memory");
	ASSERT_EQ(0, ftruncate(self->m.fd, 2 * self->unit));

	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, at(self, 3), NULL, NULL));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));

	if (variant->kind == UK_HUGETLB_PRIVATE) {
		/* Private huge pages are not asked for the size. */
		UK_EXPECT_FILL(0, self->unit, copy(self, 3, 3, 1));
	} else {
		UK_EXPECT_FILL(err, err, copy(self, 3, 3, 1));
		UK_EXPECT_FILL(-EAGAIN, self->unit, copy(self, 1, 1, 2));
		EXPECT_TRUE(holds(self, 1, 1));
	}
	if (!uk_is_hugetlb(&self->m))
		UK_EXPECT_FILL(err, err,
			       uk_zero(self->fd, at(self, 4), self->unit, 0));
	UK_EXPECT_FILL(0, self->unit, copy(self, 0, 0, 1));
}

/* Waking. */

TEST_F_TIMEOUT(fill, dontwake_then_wake, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	UK_EXPECT_FILL(0, self->unit,
		       uk_copy(self->fd, at(self, 1), from(self, 1),
			       self->unit, UFFDIO_COPY_MODE_DONTWAKE));
	EXPECT_TRUE(uk_stays(&t));
	/* It is somewhere else that is woken. */
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 0), self->unit));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 2), self->unit));
	EXPECT_TRUE(uk_stays(&t));

	EXPECT_EQ(0, uk_wake(self->fd, at(self, 1), self->unit));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 1), self->unit));
}

TEST_F_TIMEOUT(fill, zeropage_dontwake, LIMIT)
{
	struct uk_thread t;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "no zero pages in hugetlb");
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	UK_EXPECT_FILL(0, self->unit,
		       uk_zero(self->fd, at(self, 1), self->unit,
			       UFFDIO_ZEROPAGE_MODE_DONTWAKE));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 0), 4 * self->unit));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
}

/* Woken for nothing, a thread faults again and says so again. */
TEST_F_TIMEOUT(fill, wake_without_a_page, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;
	int i;

	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
		EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
		EXPECT_EQ(0, uk_wake(self->fd, self->m.area, self->m.len));
	}
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	/* Resolved before it was read: not a message any more. */
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
}

TEST_F_TIMEOUT(fill, wake_arguments, LIMIT)
{
	char *p = at(self, 1);

	EXPECT_EQ(-EINVAL, uk_wake(self->fd, p + 1, self->unit));
	EXPECT_EQ(-EINVAL, uk_wake(self->fd, p, self->unit + 1));
	EXPECT_EQ(-EINVAL, uk_wake(self->fd, p, 0));
	EXPECT_EQ(-EINVAL, uk_wake(self->fd, p, -self->unit));
	EXPECT_EQ(-EINVAL, uk_wake(self->fd, UK_KERNEL_SPACE, self->unit));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_WAKE, NULL));
	EXPECT_EQ(EFAULT, errno);
	/* Neither registered nor mapped is asked for. */
	EXPECT_EQ(0, uk_wake(self->fd, NULL, self->unit));
	EXPECT_EQ(0, uk_wake(self->fd, self->src, self->unit));
}

#define CROWD 12

TEST_F_TIMEOUT(fill, a_crowd_on_one_page, LIMIT)
{
	struct uk_thread t[CROWD];
	struct uffd_msg msg[CROWD + 1];
	int i;

	for (i = 0; i < CROWD; i++) {
		ASSERT_EQ(0, uk_start(&t[i], uk_peek, at(self, 1) + i * 8));
		ASSERT_TRUE(uk_parked(self->fd, i + 1, i + 1));
	}
	EXPECT_EQ(CROWD / 2, uk_read(self->fd, msg, CROWD / 2));
	ASSERT_TRUE(uk_parked(self->fd, CROWD - CROWD / 2, CROWD));
	EXPECT_TRUE(uk_is_fault(&msg[0], at(self, 1)));
	EXPECT_TRUE(uk_is_fault(&msg[CROWD / 2 - 1], at(self, 1)));

	/* The read and the unread alike. */
	UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
	for (i = 0; i < CROWD; i++) {
		EXPECT_TRUE(uk_join(&t[i], UK_SOON));
		EXPECT_EQ((unsigned char)from(self, 1)[i * 8], t[i].ret);
	}
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, msg, 1));
	EXPECT_TRUE(uk_parked(self->fd, 0, 0));
}

TEST_F_TIMEOUT(fill, only_the_range_is_woken, LIMIT)
{
	struct uk_thread t[UNITS];
	int i;

	for (i = 0; i < UNITS; i++) {
		ASSERT_EQ(0, uk_start(&t[i], i & 1 ? uk_peek : uk_poke,
				      at(self, i) + 8 * i));
	}
	ASSERT_TRUE(uk_parked(self->fd, UNITS, UNITS));

	UK_EXPECT_FILL(0, 2 * self->unit, copy(self, 2, 2, 2));
	EXPECT_TRUE(uk_join(&t[2], UK_SOON));
	EXPECT_TRUE(uk_join(&t[3], UK_SOON));
	EXPECT_TRUE(uk_parked(self->fd, UNITS - 2, UNITS - 2));
	EXPECT_TRUE(uk_stays(&t[1]));
	EXPECT_FALSE(uk_finished(&t[0]));
	EXPECT_FALSE(uk_finished(&t[4]));
	EXPECT_FALSE(uk_finished(&t[5]));

	UK_EXPECT_FILL(0, 2 * self->unit, copy(self, 0, 0, 2));
	UK_EXPECT_FILL(0, 2 * self->unit, copy(self, 4, 4, 2));
	EXPECT_TRUE(uk_join_all(t, UNITS));
}

/* The kernel's own accesses. */

static const struct {
	const char *name;
	long (*fn)(void *arg);
	long ret;
	bool stores;		/* "kernel!!" ends up in memory */
	bool shows;		/* the content ends up in the pipe */
} accesses[] = {
	{ "read", uk_by_read, 8, true, false },
	{ "write", uk_by_write, 8, false, true },
	{ "vmsplice", uk_by_vmsplice, 8, false, true },
	{ "process_vm_readv", uk_by_vm_readv, 8, false, false },
	{ "process_vm_writev", uk_by_vm_writev, 8, true, false },
	{ "MADV_POPULATE_WRITE", uk_by_populate, 0, false, false },
};

static int access_prepare(struct uk_access *a, struct fill_test *self,
			  unsigned int i, char *out)
{
	memcpy(out, "kernel!!", 8);
	a->addr = at(self, 1);
	a->len = self->unit;
	a->out = out;
	if (pipe2(a->pipe, O_CLOEXEC))
		return -errno;
	if (accesses[i].fn == uk_by_read && write(a->pipe[1], out, 8) != 8)
		return -EIO;
	return uk_drop(&self->m, at(self, 1), self->unit);
}

static void access_done(struct uk_access *a)
{
	close(a->pipe[0]);
	close(a->pipe[1]);
}

TEST_F_TIMEOUT(fill, the_kernel_waits_too, LIMIT)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		char out[8], seen[8] = "";
		struct uffd_msg msg;
		struct uk_thread t;
		struct uk_access a;

		ASSERT_EQ(0, access_prepare(&a, self, i, out));
		ASSERT_EQ(0, uk_start(&t, accesses[i].fn, &a));
		ASSERT_EQ(1, uk_next(self->fd, &msg)) {
			TH_LOG("no fault by %s", accesses[i].name);
		}
		EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
		EXPECT_FALSE(uk_finished(&t));
		UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		EXPECT_EQ(accesses[i].ret, t.ret) {
			TH_LOG("result of %s", accesses[i].name);
		}
		if (accesses[i].shows) {
			EXPECT_EQ(8, read(a.pipe[0], seen, 8));
			EXPECT_EQ(0, memcmp(seen, from(self, 1), 8));
		}
		EXPECT_EQ(0, memcmp(out, accesses[i].fn == uk_by_vm_readv ?
				    from(self, 1) : "kernel!!", 8));
		EXPECT_EQ(0, memcmp(at(self, 1), accesses[i].stores ?
				    "kernel!!" : from(self, 1), 8));
		EXPECT_EQ(0, memcmp(at(self, 1) + 8, from(self, 1) + 8,
				    self->unit - 8));
		EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
		access_done(&a);
	}
}

static void no_kernel_access(struct __test_metadata *_metadata,
			     struct fill_test *self)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		struct uffd_msg msg;
		struct uk_access a;
		char out[8];

		ASSERT_EQ(0, access_prepare(&a, self, i, out));
		EXPECT_EQ(-EFAULT, accesses[i].fn(&a)) {
			TH_LOG("%s", accesses[i].name);
		}
		EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
		access_done(&a);

		/* With the page there, all is as usual. */
		ASSERT_EQ(0, access_prepare(&a, self, i, out));
		UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
		EXPECT_EQ(accesses[i].ret, accesses[i].fn(&a));
		access_done(&a);
	}
}

TEST_F_TIMEOUT(fill, user_mode_only, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, refit(self, UFFD_USER_MODE_ONLY, 0));
	no_kernel_access(_metadata, self);

	ASSERT_EQ(0, uk_start(&t, uk_poke, at(self, 2)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 2)));
	/* A copy from missing memory is the kernel's access as well. */
	UK_EXPECT_FILL(-EFAULT, -EFAULT, uk_copy(self->fd, at(self, 2),
						 at(self, 3), self->unit, 0));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2, 2, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

TEST_F_TIMEOUT(fill, sigbus, LIMIT)
{
	struct uffd_msg msg;
	void *where = NULL;
	int code = 0;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_SIGBUS));
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, at(self, 2) + 5, &where, &code));
	EXPECT_EQ(at(self, 2) + 5, (char *)where);
	EXPECT_EQ(BUS_ADRERR, code);
	EXPECT_EQ(SIGBUS, uk_catch(uk_poke, at(self, 2) + 5, NULL, NULL));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	no_kernel_access(_metadata, self);

	UK_EXPECT_FILL(0, self->unit, copy(self, 2, 2, 1));
	EXPECT_EQ(0, uk_catch(uk_poke, at(self, 2) + 5, NULL, NULL));
	/* And once more, when the page is gone. */
	EXPECT_EQ(0, uk_drop(&self->m, at(self, 2), self->unit));
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, at(self, 2), NULL, NULL));
}

/* Who cannot wait, as a debugger that looks at memory, is refused. */
TEST_F_TIMEOUT(fill, access_that_cannot_wait, LIMIT)
{
	struct uffd_msg msg;
	char buf[8];
	int mem;

	mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, mem);
	EXPECT_EQ(-1, pread(mem, buf, 8, (unsigned long)at(self, 1)));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
	EXPECT_EQ(8, pread(mem, buf, 8, (unsigned long)at(self, 1)));
	EXPECT_EQ(0, memcmp(buf, from(self, 1), 8));
	close(mem);
}

/* Signals. */

static int hits;

static void on_usr1(int sig)
{
	(void)sig;
	uk_add(&hits, 1);
}

static bool wait_hits(int n)
{
	long long end = uk_now() + UK_SOON;

	while (uk_get(&hits) < n) {
		if (uk_now() > end)
			return false;
		uk_sleep(1);
	}
	return true;
}

TEST_F_TIMEOUT(fill, signal_handler_runs_during_a_fault, LIMIT)
{
	struct sigaction act = { .sa_handler = on_usr1 };
	struct uffd_msg msg;
	struct uk_thread t;
	int i;

	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	for (i = 1; i <= 3; i++) {
		/* A new park, a new message, and only one. */
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
		EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
		ASSERT_TRUE(uk_asleep(t.tid));
		ASSERT_EQ(0, pthread_kill(t.id, SIGUSR1));
		ASSERT_TRUE(wait_hits(i));
	}
	/* Not read before the next signal: the old message is no more. */
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	ASSERT_TRUE(uk_asleep(t.tid));
	ASSERT_EQ(0, pthread_kill(t.id, SIGUSR1));
	ASSERT_TRUE(wait_hits(4));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));

	UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1, 1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(4, hits);
}

struct victim {
	struct uk_mem *m;
	int sock;
};

/* Registers its own copy of the memory, hands out the fd and gets stuck. */
static int get_stuck(void *arg)
{
	struct victim *v = arg;
	struct uk_thread t[2];
	int fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);

	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_register(fd, v->m->area, v->m->len));
	UK_CHECK(!uk_send_fd(v->sock, fd));
	close(fd);
	UK_CHECK(!uk_start(&t[0], uk_peek, uk_at(v->m, 0)));
	UK_CHECK(!uk_start(&t[1], uk_poke, uk_at(v->m, 1)));
	uk_peek(uk_at(v->m, 1));
	return 0;
}

TEST_F_TIMEOUT(fill, fatal_signal_kills_who_waits, LIMIT)
{
	struct victim v = { .m = &self->m };
	struct uffd_msg msg;
	int sv[2], fd, i;
	pid_t pid;

	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	for (i = 0; i < 2; i++) {
		v.sock = sv[1];
		pid = uk_spawn(get_stuck, &v);
		ASSERT_LT(0, pid);
		fd = uk_recv_fd(sv[0]);
		ASSERT_LE(0, fd);
		ASSERT_TRUE(uk_parked(fd, 3, 3));
		ASSERT_EQ(1, uk_next(fd, &msg));
		ASSERT_EQ(0, kill(pid, i ? SIGKILL : SIGTERM));
		EXPECT_EQ(128 + (i ? SIGKILL : SIGTERM), uk_reap(pid, UK_SOON));
		/* Their messages died with them. */
		EXPECT_EQ(-EAGAIN, uk_read(fd, &msg, 1));
		EXPECT_TRUE(uk_parked(fd, 0, 0));
		close(fd);
	}
}

/* Races. */

struct racer {
	struct fill_test *self;
	unsigned int seed;
	struct uk_fill res[UNITS];
	int *gate;
};

static long race(void *arg)
{
	struct racer *r = arg;
	int i;

	uk_add(r->gate, 1);
	for (i = 0; uk_get(r->gate) < 2; i++) {
		if (i > 10000)
			sched_yield();
	}
	for (i = 0; i < UNITS; i++)
		r->res[i] = copy(r->self, i, r->seed, 1);
	return 0;
}

TEST_F_TIMEOUT(fill, one_of_two_fills_wins, LIMIT)
{
	int rounds = uk_is_hugetlb(&self->m) ? 5 : 60;
	int i, u, n, won[2] = {};

	for (i = 0; i < rounds; i++) {
		int gate = 0;
		struct racer r[2] = {
			{ .self = self, .seed = 0, .gate = &gate },
			{ .self = self, .seed = 1, .gate = &gate },
		};
		struct uk_thread t;

		ASSERT_EQ(0, uk_drop(&self->m, at(self, 0),
				     UNITS * self->unit));
		ASSERT_EQ(0, uk_start(&t, race, &r[1]));
		race(&r[0]);
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		for (u = 0; u < UNITS; u++) {
			n = r[0].res[u].err ? 1 : 0;
			UK_ASSERT_FILL(0, self->unit, r[n].res[u]);
			UK_ASSERT_FILL(-EEXIST, -EEXIST, r[!n].res[u]);
			ASSERT_TRUE(holds(self, u, n));
			won[n]++;
		}
	}
	TH_LOG("%d to %d", won[0], won[1]);
}

struct toucher {
	struct fill_test *self;
	int rounds;
};

/* Each page is dropped by the one who has seen that its content was right. */
static long touch_and_drop(void *arg)
{
	struct toucher *c = arg;
	int i;

	for (i = 0; i < c->rounds; i++) {
		int u = i % UNITS;

		if (!holds(c->self, u, u))
			return i + 1;
		if (uk_drop(&c->self->m, at(c->self, u), c->self->unit))
			return -errno;
	}
	return 0;
}

TEST_F_TIMEOUT(fill, faults_and_fills_in_turn, LIMIT)
{
	struct toucher c = {
		.self = self,
		.rounds = uk_is_hugetlb(&self->m) ? 40 : 2000,
	};
	struct uk_thread t;
	struct uffd_msg msg;
	int faults = 0;

	ASSERT_EQ(0, uk_start(&t, touch_and_drop, &c));
	while (faults < c.rounds) {
		int u = faults % UNITS;

		ASSERT_EQ(1, uk_next(self->fd, &msg));
		ASSERT_TRUE(uk_is_fault(&msg, at(self, u)));
		UK_ASSERT_FILL(0, self->unit, copy(self, u, u, 1));
		faults++;
	}
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
}

/* Another descriptor of the same process may fill; the owner wakes. */
TEST_F_TIMEOUT(fill, fill_by_another_descriptor, LIMIT)
{
	int other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(-EAGAIN, uk_read(other, &msg, 1));
	UK_EXPECT_FILL(0, self->unit, uk_copy(other, at(self, 1), from(self, 1),
					      self->unit, 0));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 1), self->unit));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(holds(self, 1, 1));
	close(other);
}

/* Running out. */

/* A file system with room for this many pages. */
#define ROOM 4

/*
 * It has no memory but anonymous pages, and yet a file, which is empty.  So the
 * copy ends before it begins, whatever pages there might be.
 */
TEST(private_mapping_of_dev_zero)
{
	size_t huge = 2 << 20, page = sysconf(_SC_PAGESIZE);
	char *at = uk_reserve(2 * huge, huge), *src = uk_buffer(huge);
	int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	int fd = uk_new(0, 0);

	ASSERT_LE(0, zero);
	ASSERT_NE(NULL, at);
	ASSERT_EQ(at, mmap(at, huge, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_FIXED, zero, 0));
	madvise(at, huge, MADV_HUGEPAGE);
	ASSERT_EQ(0, uk_register(fd, at, huge));
	UK_EXPECT_FILL(-EFAULT, -EFAULT, uk_copy(fd, at, src, huge, 0));
	UK_EXPECT_FILL(-EFAULT, -EFAULT, uk_copy(fd, at, src, page, 0));
	EXPECT_EQ(0, uk_pages(at, huge, UK_PM_PRESENT));
}

#define WINDOWS		2048

struct glance {
	char *mem;
	size_t page;
	unsigned int at;
	bool over;
};

static long keep_reading(void *arg)
{
	struct glance *g = arg;
	unsigned int i, first;

	while (!uk_get(&g->over)) {
		first = uk_get(&g->at);
		for (i = first; i < first + 4 && i < WINDOWS; i++)
			uk_peek(g->mem + i * g->page);
	}
	return 0;
}

/* All pages are there all the time; a SIGBUS ends the child. */
static int replace_and_read(void *arg)
{
	struct glance g = { .page = sysconf(_SC_PAGESIZE) };
	long long end = uk_now() + 1500;
	struct uk_thread t[2] = {};
	unsigned int i;
	size_t len = WINDOWS * g.page;
	int fd = uk_new(0, UFFD_FEATURE_SIGBUS);

	(void)arg;
	do {
		g.mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (fd < 0 || g.mem == MAP_FAILED ||
		    madvise(g.mem, len, MADV_NOHUGEPAGE) ||
		    uk_register(fd, g.mem, len) ||
		    uk_zero(fd, g.mem, len, 0).err)
			return 2;
		uk_set(&g.at, 0);
		uk_set(&g.over, false);
		if (uk_start(&t[0], keep_reading, &g) ||
		    uk_start(&t[1], keep_reading, &g))
			return 2;
		for (i = 0; i < WINDOWS && uk_now() < end; i++) {
			uk_set(&g.at, i);
			uk_poke(g.mem + i * g.page);
		}
		uk_set(&g.over, true);
		if (!uk_join_all(t, 2))
			return 2;
		munmap(g.mem, len);
	} while (uk_now() < end);
	return 0;
}

/*
 * Who replaces a page, as a write does to the zero page, clears the entry for a
 * moment.  That is not a missing page, and there is nobody who would wake a
 * thread that was put to sleep for it.
 */
TEST(a_page_that_is_replaced_is_not_missing)
{
	EXPECT_EQ(0, uk_in_child(replace_and_read, NULL));
}

static int small_tmpfs(void)
{
	char path[] = "/tmp/uffd-fill-XXXXXX", file[64], opts[32];
	int fd;

	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	if (!mkdtemp(path))
		return -errno;
	snprintf(opts, sizeof(opts), "size=%d", ROOM * getpagesize());
	if (mount("none", path, "tmpfs", 0, opts))
		return -errno;
	snprintf(file, sizeof(file), "%s/file", path);
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		unlink(file);
	umount2(path, MNT_DETACH);
	rmdir(path);
	return fd < 0 ? -errno : fd;
}

TEST_F_TIMEOUT(fill, no_room_in_tmpfs, LIMIT)
{
	size_t len = UNITS * self->unit;
	struct stat st;
	char *p;
	int fd;

	if (variant->kind != UK_SHMEM)
		SKIP(return, "shmem only");
	fd = small_tmpfs();
	if (fd < 0)
		SKIP(return, "cannot mount a tmpfs: %s", strerror(-fd));
	ASSERT_EQ(0, ftruncate(fd, len));
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, uk_register(self->fd, p, len));
	UK_EXPECT_FILL(-EAGAIN, ROOM * self->unit,
		       uk_copy(self->fd, p, self->src, len, 0));
	UK_EXPECT_FILL(-ENOMEM, -ENOMEM,
		       uk_copy(self->fd, p + ROOM * self->unit, self->src,
			       self->unit, 0));
	UK_EXPECT_FILL(-ENOMEM, -ENOMEM,
		       uk_zero(self->fd, p + ROOM * self->unit, self->unit, 0));
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(ROOM * self->unit, st.st_blocks * 512);
	/* What was refused was not taken. */
	ASSERT_EQ(0, madvise(p, self->unit, MADV_REMOVE));
	UK_EXPECT_FILL(0, self->unit,
		       uk_copy(self->fd, p + ROOM * self->unit, self->src,
			       self->unit, 0));
	EXPECT_TRUE(uk_painted(p + ROOM * self->unit, self->unit, 0));
}

/* Huge pages of this size that nobody has reserved. */
static long huge_pages_left(size_t size)
{
	char path[96];
	long left;

	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/hugepages/hugepages-%zukB/free_hugepages",
		 size >> 10);
	left = uk_read_number(path);
	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/hugepages/hugepages-%zukB/resv_hugepages",
		 size >> 10);
	return left - uk_read_number(path);
}

TEST_F_TIMEOUT(fill, no_huge_page_left, LIMIT)
{
	int flags = MAP_NORESERVE | (variant->kind == UK_HUGETLB ? MAP_SHARED :
				     MAP_PRIVATE);
	struct uk_fill res = {};
	char *p, *others;
	size_t len;
	long left;
	int i;

	if (!uk_is_hugetlb(&self->m))
		SKIP(return, "hugetlb only");
	len = 1024 * self->unit;
	ASSERT_EQ(0, ftruncate(self->m.fd, len));
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, self->m.fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	/* All but a few are spoken for: filling hundreds takes long. */
	left = huge_pages_left(self->unit);
	if (left > 4) {
		others = mmap(NULL, (left - 4) * self->unit,
			      PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
		ASSERT_NE(MAP_FAILED, others);
	}
	ASSERT_EQ(0, uk_register(self->fd, p, len));
	for (i = 0; i < 1024; i++) {
		res = uk_copy(self->fd, p + i * self->unit, self->src,
			      self->unit, 0);
		if (res.err)
			break;
	}
	UK_EXPECT_FILL(-ENOMEM, -ENOMEM, res);
	ASSERT_LT(0, i);
	/* One goes back, one can be had. */
	ASSERT_EQ(0, madvise(p, self->unit, variant->kind == UK_HUGETLB ?
			     MADV_REMOVE : MADV_DONTNEED));
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, p + i * self->unit,
					      from(self, 3), self->unit, 0));
	EXPECT_TRUE(uk_painted(p + i * self->unit, self->unit, 3));
}

/* Waiting threads all over a large area: at both ends of each 2 MiB of it. */

#define STRIPE		(2UL << 20)
#define STRIPES		24
#define SLEEPERS	(2 * STRIPES)

/* FIXTURE_DATA(wide), by a name that reads well in a prototype. */
#define wide_test _test_data_wide

FIXTURE(wide)
{
	struct uk_thread t[SLEEPERS];
	char *area;
	char *src;
	size_t page;
	size_t len;
	int fd;
};

FIXTURE_VARIANT(wide)
{
	__u64 features;
};

FIXTURE_VARIANT_ADD(wide, by_page)
{
	.features = 0,
};

FIXTURE_VARIANT_ADD(wide, by_exact_address)
{
	.features = UFFD_FEATURE_EXACT_ADDRESS,
};

static char *bed(struct wide_test *self, unsigned int i)
{
	char *edge = self->area + (i / 2 + 1) * STRIPE;

	return i & 1 ? edge : edge - self->page;
}

FIXTURE_SETUP(wide)
{
	unsigned int i;

	self->page = getpagesize();
	self->len = (STRIPES + 2) * STRIPE;
	self->area = uk_reserve(self->len, STRIPE);
	ASSERT_NE(NULL, self->area);
	ASSERT_EQ(0, mprotect(self->area, self->len, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, madvise(self->area, self->len, MADV_NOHUGEPAGE));
	self->src = uk_buffer(self->page);
	ASSERT_NE(NULL, self->src);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, variant->features);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, self->area, self->len));
	for (i = 0; i < SLEEPERS; i++) {
		ASSERT_EQ(0, uk_start(&self->t[i], uk_peek, bed(self, i) + i));
		ASSERT_TRUE(uk_parked(self->fd, i + 1, i + 1));
	}
}

FIXTURE_TEARDOWN(wide)
{
	close(self->fd);
}

/* Those from first to last are awake, and nobody else. */
static bool awake(struct wide_test *self, unsigned int first, unsigned int last,
		  unsigned int left)
{
	unsigned int i;

	for (i = first; i <= last; i++) {
		if (!uk_join(&self->t[i], UK_SOON))
			return false;
	}
	for (i = 0; i < SLEEPERS; i++)
		left -= !uk_finished(&self->t[i]);
	return !left;
}

TEST_F_TIMEOUT(wide, one_by_one, LIMIT)
{
	unsigned int i, n = 0;

	/* 29 is prime to the number of them. */
	for (i = 0; n < SLEEPERS; i = (i + 29) % SLEEPERS) {
		UK_ASSERT_FILL(0, self->page,
			       uk_copy(self->fd, bed(self, i), self->src,
				       self->page, 0));
		n++;
		ASSERT_TRUE(awake(self, i, i, SLEEPERS - n));
		ASSERT_TRUE(uk_parked(self->fd, SLEEPERS - n, SLEEPERS - n));
	}
}

TEST_F_TIMEOUT(wide, by_ranges, LIMIT)
{
	unsigned int i;

	for (i = 0; i < SLEEPERS; i++) {
		UK_ASSERT_FILL(0, self->page,
			       uk_copy(self->fd, bed(self, i), self->src,
				       self->page, UFFDIO_COPY_MODE_DONTWAKE));
	}
	/* Between any two of them there is nobody. */
	EXPECT_EQ(0, uk_wake(self->fd, self->area, STRIPE - self->page));
	for (i = 1; i + 1 < SLEEPERS; i += 2) {
		EXPECT_EQ(0, uk_wake(self->fd, bed(self, i) + self->page,
				     STRIPE - 2 * self->page));
	}
	EXPECT_TRUE(uk_stays(&self->t[7]));
	EXPECT_TRUE(awake(self, 1, 0, SLEEPERS));

	/* The end of one stripe, the beginning of the next, both. */
	EXPECT_EQ(0, uk_wake(self->fd, bed(self, 4), self->page));
	ASSERT_TRUE(awake(self, 4, 4, SLEEPERS - 1));
	EXPECT_EQ(0, uk_wake(self->fd, bed(self, 7), self->page));
	ASSERT_TRUE(awake(self, 7, 7, SLEEPERS - 2));
	EXPECT_EQ(0, uk_wake(self->fd, bed(self, 8), 2 * self->page));
	ASSERT_TRUE(awake(self, 8, 9, SLEEPERS - 4));
	/* Exactly one stripe, three of them, and the rest. */
	EXPECT_EQ(0, uk_wake(self->fd, bed(self, 11), STRIPE));
	ASSERT_TRUE(awake(self, 11, 12, SLEEPERS - 6));
	EXPECT_EQ(0, uk_wake(self->fd, bed(self, 14), 3 * STRIPE));
	ASSERT_TRUE(awake(self, 14, 19, SLEEPERS - 12));
	EXPECT_EQ(0, uk_wake(self->fd, self->area, self->len));
	ASSERT_TRUE(awake(self, 0, SLEEPERS - 1, 0));
	EXPECT_TRUE(uk_parked(self->fd, 0, 0));
}

TEST_F_TIMEOUT(wide, by_unregistering, LIMIT)
{
	EXPECT_EQ(0, uk_unregister(self->fd, bed(self, 5), 2 * STRIPE));
	ASSERT_TRUE(awake(self, 5, 8, SLEEPERS - 4));
	EXPECT_TRUE(uk_stays(&self->t[9]));
	EXPECT_EQ(0, uk_unregister(self->fd, self->area, self->len));
	ASSERT_TRUE(awake(self, 0, SLEEPERS - 1, 0));
}

TEST_F_TIMEOUT(wide, by_closing, LIMIT)
{
	struct uffd_msg msg[SLEEPERS / 2];

	EXPECT_EQ(SLEEPERS / 2, uk_read(self->fd, msg, SLEEPERS / 2));
	close(self->fd);
	self->fd = -1;
	ASSERT_TRUE(awake(self, 0, SLEEPERS - 1, 0));
}

TEST_HARNESS_MAIN
