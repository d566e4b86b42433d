// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: UFFDIO_POISON, places where every access fails, as if the
 * memory there had been lost.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		6
#define LIMIT		60

#define WP		UFFDIO_REGISTER_MODE_WP
#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define MINOR		UFFDIO_REGISTER_MODE_MINOR

/* FIXTURE_DATA(poison), by a name that reads well in a prototype. */
#define poison_test _test_data_poison

FIXTURE(poison)
{
	struct uk_mem m;
	size_t unit;
	int fd;
	char *src;		/* painted with 1 */
};

FIXTURE_VARIANT(poison)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(poison, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(poison, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(poison, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(poison, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(poison, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(poison, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

static char *at(struct poison_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static int refit(struct poison_test *self, int flags, __u64 features,
		 __u64 mode)
{
	if (self->fd >= 0)
		close(self->fd);
	self->fd = uk_new(flags | O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register_mode(self->fd, self->m.area, self->m.len, mode, NULL);
}

FIXTURE_SETUP(poison)
{
	const char *why;
	int err;

	self->fd = -1;
	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	if (!(uk_offered() & UFFD_FEATURE_POISON))
		SKIP(return, "no UFFDIO_POISON on this kernel");
	err = refit(self, 0, 0, MISSING);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
	self->src = uk_buffer(self->unit);
	ASSERT_NE(NULL, self->src);
	uk_paint(self->src, self->unit, 1);
}

FIXTURE_TEARDOWN(poison)
{
	close(self->fd);
}

static struct uk_fill poison(struct poison_test *self, unsigned int unit,
			     unsigned int count)
{
	return uk_poison(self->fd, at(self, unit), count * self->unit, 0);
}

static struct uk_fill copy(struct poison_test *self, unsigned int unit)
{
	return uk_copy(self->fd, at(self, unit), self->src, self->unit, 0);
}

/* What SIGBUS says of lost memory; kernels that cannot lose any say less. */
static int lost(void)
{
	return access("/proc/sys/vm/memory_failure_recovery", F_OK) ?
	       BUS_ADRERR : BUS_MCEERR_AR;
}

/* An access fails in the way that it must, and reports nothing. */
static bool lethal(struct poison_test *self, char *addr, long (*fn)(void *arg))
{
	struct uffd_msg msg;
	void *where = NULL;
	int code = 0;

	return uk_catch(fn, addr, &where, &code) == SIGBUS &&
	       code == lost() && where == addr &&
	       uk_read(self->fd, &msg, 1) == -EAGAIN;
}

static bool poisoned(struct poison_test *self, unsigned int unit)
{
	char *p = at(self, unit);

	return lethal(self, p, uk_peek) && lethal(self, p, uk_poke) &&
	       lethal(self, p + self->unit - 1, uk_peek) &&
	       lethal(self, p + self->unit / 2 + 3, uk_poke);
}

/* Touching it is safe in every way, once it has been filled. */
static bool healthy(struct poison_test *self, unsigned int unit)
{
	return !uk_catch(uk_peek, at(self, unit), NULL, NULL) &&
	       uk_painted(at(self, unit), self->unit, 1);
}

TEST_F_TIMEOUT(poison, sigbus_on_access, LIMIT)
{
	UK_ASSERT_FILL(0, self->unit, poison(self, 1, 1));
	EXPECT_TRUE(poisoned(self, 1));
	/* As often as one likes. */
	EXPECT_TRUE(poisoned(self, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 0));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
	EXPECT_TRUE(healthy(self, 0));
	EXPECT_TRUE(healthy(self, 2));
}

TEST_F_TIMEOUT(poison, many_at_once, LIMIT)
{
	unsigned int i;

	UK_ASSERT_FILL(0, UNITS * self->unit, poison(self, 0, UNITS));
	for (i = 0; i < UNITS; i++)
		EXPECT_TRUE(poisoned(self, i));
}

/* All of the area, however large. */
TEST_F_TIMEOUT(poison, everything, LIMIT)
{
	UK_ASSERT_FILL(0, self->m.len,
		       uk_poison(self->fd, self->m.area, self->m.len, 0));
	EXPECT_TRUE(poisoned(self, 0));
	EXPECT_TRUE(poisoned(self, self->m.units / 2));
	EXPECT_TRUE(poisoned(self, self->m.units - 1));
	EXPECT_EQ(0, uk_pages(self->m.area, self->m.len, UK_PM_PRESENT));
}

/* Whoever waits for the page is woken, and dies of it. */

struct sufferer {
	char *addr;
	int sig;
	int code;
};

static long suffer(void *arg)
{
	struct sufferer *s = arg;

	s->sig = uk_catch(uk_peek, s->addr, NULL, &s->code);
	return 0;
}

TEST_F_TIMEOUT(poison, whoever_waits, LIMIT)
{
	struct sufferer s = { .addr = at(self, 1) + 55 };
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, suffer, &s));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
	UK_EXPECT_FILL(0, self->unit, poison(self, 1, 1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(SIGBUS, s.sig);
	EXPECT_EQ(lost(), s.code);
}

TEST_F_TIMEOUT(poison, dontwake_then_wake, LIMIT)
{
	struct sufferer s = { .addr = at(self, 1) };
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, suffer, &s));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	UK_EXPECT_FILL(0, self->unit,
		       uk_poison(self->fd, at(self, 1), self->unit,
				 UFFDIO_POISON_MODE_DONTWAKE));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 1), self->unit));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(lost(), s.code);
}

/* Nothing but a hole can be poisoned; a page cures it. */

TEST_F_TIMEOUT(poison, present_page_is_kept, LIMIT)
{
	UK_ASSERT_FILL(0, self->unit, copy(self, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, poison(self, 1, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, poison(self, 1, 3));
	EXPECT_TRUE(healthy(self, 1));
	UK_EXPECT_FILL(0, self->unit, copy(self, 2));
	if (!uk_is_hugetlb(&self->m)) {
		UK_EXPECT_FILL(0, self->unit,
			       uk_zero(self->fd, at(self, 3), self->unit, 0));
		UK_EXPECT_FILL(-EEXIST, -EEXIST, poison(self, 3, 1));
		EXPECT_EQ(0, uk_peek(at(self, 3)));
	}
}

TEST_F_TIMEOUT(poison, poison_twice_then_a_page, LIMIT)
{
	UK_ASSERT_FILL(0, 2 * self->unit, poison(self, 1, 2));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, poison(self, 1, 1));
	UK_EXPECT_FILL(-EAGAIN, self->unit, poison(self, 0, 3));
	UK_EXPECT_FILL(0, self->unit, copy(self, 1));
	EXPECT_TRUE(healthy(self, 1));
	EXPECT_TRUE(poisoned(self, 2));
}

TEST_F_TIMEOUT(poison, zero_page_for_poison, LIMIT)
{
	struct uk_fill zero;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "no zero pages in hugetlb");
	UK_ASSERT_FILL(0, self->unit, poison(self, 1, 1));
	zero = uk_zero(self->fd, at(self, 1), self->unit, 0);
	/* Private memory gets the zero page, and that only into holes. */
	if (uk_is_shared(&self->m)) {
		UK_EXPECT_FILL(0, self->unit, zero);
		EXPECT_EQ(0, uk_catch(uk_peek, at(self, 1), NULL, NULL));
	} else {
		UK_EXPECT_FILL(-EEXIST, -EEXIST, zero);
		EXPECT_TRUE(poisoned(self, 1));
	}
}

TEST_F_TIMEOUT(poison, partial_progress, LIMIT)
{
	struct sufferer s = { .addr = at(self, 1) };
	struct uk_thread t;

	UK_ASSERT_FILL(0, self->unit, copy(self, 2));
	ASSERT_EQ(0, uk_start(&t, suffer, &s));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	UK_EXPECT_FILL(-EAGAIN, 2 * self->unit, poison(self, 0, 5));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(SIGBUS, s.sig);
	EXPECT_TRUE(poisoned(self, 0));
	EXPECT_TRUE(healthy(self, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 3));
}

/* Arguments. */

TEST_F_TIMEOUT(poison, arguments, LIMIT)
{
	char *p = at(self, 1), *end = self->m.area + self->m.len;
	size_t u = self->unit;
	int bit;

	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_poison(self->fd, p + 1, u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_poison(self->fd, p, u - 1, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_poison(self->fd, p, 0, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_poison(self->fd, p, -u, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_poison(self->fd, UK_KERNEL_SPACE, u, 0));
	for (bit = 1; bit < 64; bit++)
		UK_EXPECT_FILL(-EINVAL, UK_UNSET,
			       uk_poison(self->fd, p, u, UK_BIT(bit)));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_POISON, NULL));
	EXPECT_EQ(EFAULT, errno);
	if (uk_is_hugetlb(&self->m)) {
		size_t small = getpagesize();

		UK_EXPECT_FILL(-EINVAL, -EINVAL,
			       uk_poison(self->fd, p + small, u, 0));
		UK_EXPECT_FILL(-EINVAL, -EINVAL,
			       uk_poison(self->fd, p, small, 0));
	}

	UK_EXPECT_FILL(-ENOENT, -ENOENT, uk_poison(self->fd, end, u, 0));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_poison(self->fd, end - u, 2 * u, 0));
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 3), u));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, poison(self, 3, 1));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, poison(self, 2, 2));
	/* None of them left anything. */
	UK_EXPECT_FILL(0, u, copy(self, 1));
	UK_EXPECT_FILL(0, u, copy(self, 2));
}

/* An event about the same range that nobody has read. */
TEST_F_TIMEOUT(poison, unread_event, LIMIT)
{
	struct uk_call call = {
		.nr = __NR_madvise,
		.arg = { (long)at(self, 1), self->unit, MADV_DONTNEED },
	};
	long long end = uk_now() + UK_SOON;
	struct uffd_msg msg;
	struct uk_thread t;
	struct uk_fill res;

	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_EVENT_REMOVE, MISSING));
	ASSERT_EQ(0, uk_start(&t, uk_call, &call));
	ASSERT_TRUE(uk_asleep(t.tid));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, poison(self, 0, 3));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, 1),
			       at(self, 2)));
	/* Before the series, it must also have been dealt with. */
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	do {
		res = poison(self, 0, 3);
	} while (res.err == -EAGAIN && res.out < 0 && uk_now() < end);
	UK_EXPECT_FILL(0, 3 * self->unit, res);
}

TEST_F_TIMEOUT(poison, output_field_cannot_be_written, LIMIT)
{
	size_t page = getpagesize();
	struct uffdio_poison *c;
	char *p = uk_buffer(2 * page);

	ASSERT_NE(NULL, p);
	c = (void *)(p + page - offsetof(struct uffdio_poison, updated));
	c->range.start = (unsigned long)at(self, 1);
	c->range.len = self->unit;
	c->mode = 0;
	ASSERT_EQ(0, mprotect(p + page, page, PROT_READ));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_POISON, c));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(poisoned(self, 1));
}

/* It is possible wherever something is registered. */
TEST_F_TIMEOUT(poison, registered_for_another_mode, LIMIT)
{
	if (refit(self, 0, 0, WP) == 0) {
		UK_EXPECT_FILL(0, self->unit, poison(self, 1, 1));
		EXPECT_TRUE(poisoned(self, 1));
	}
	if (!uk_is_anon(&self->m)) {
		ASSERT_EQ(0, refit(self, 0, 0, MINOR));
		UK_EXPECT_FILL(0, self->unit, poison(self, 2, 1));
		EXPECT_TRUE(poisoned(self, 2));
		UK_EXPECT_FILL(-EFAULT, -EFAULT,
			       uk_continue(self->fd, at(self, 2), self->unit,
					   0));
	}
}

/* Files. */

/* It is the mapping that is poisoned; the file has, or gets, what it gets. */
TEST_F_TIMEOUT(poison, the_file_is_not_touched, LIMIT)
{
	char *alias;

	if (uk_is_anon(&self->m))
		SKIP(return, "no file behind this memory");
	alias = uk_alias(&self->m);
	ASSERT_NE(NULL, alias);
	uk_paint(alias, 2 * self->unit, 9);
	/* Also where the file has a page. */
	UK_EXPECT_FILL(0, 3 * self->unit, poison(self, 0, 3));
	EXPECT_TRUE(poisoned(self, 0));
	EXPECT_TRUE(poisoned(self, 2));
	EXPECT_TRUE(uk_painted(alias, 2 * self->unit, 9));
	EXPECT_TRUE(uk_all_zero(alias + 2 * self->unit, self->unit));
	/* To map the page cures it as well. */
	UK_EXPECT_FILL(0, self->unit,
		       uk_continue(self->fd, at(self, 0), self->unit, 0));
	EXPECT_TRUE(uk_painted(at(self, 0), self->unit, 9));
	EXPECT_TRUE(poisoned(self, 1));
}

TEST_F_TIMEOUT(poison, beyond_the_end_of_the_file, LIMIT)
{
	int code = 0;

	if (uk_is_anon(&self->m))
		SKIP(return, "no file behind this memory");
	ASSERT_EQ(0, ftruncate(self->m.fd, 2 * self->unit));
	if (uk_is_hugetlb(&self->m)) {
		/* Huge pages are not asked for the size. */
		UK_EXPECT_FILL(0, self->unit, poison(self, 3, 1));
	} else {
		UK_EXPECT_FILL(-EFAULT, -EFAULT, poison(self, 3, 1));
		UK_EXPECT_FILL(-EAGAIN, self->unit, poison(self, 1, 2));
		EXPECT_TRUE(poisoned(self, 1));
		EXPECT_EQ(SIGBUS, uk_catch(uk_peek, at(self, 2), NULL, &code));
		EXPECT_EQ(BUS_ADRERR, code);
	}
}

/* Protection and poison. */
TEST_F_TIMEOUT(poison, protection_goes_around_it, LIMIT)
{
	if (refit(self, 0, UFFD_FEATURE_WP_UNPOPULATED, MISSING | WP))
		SKIP(return, "no write protection of this memory");
	UK_ASSERT_FILL(0, self->unit, poison(self, 1, 1));
	EXPECT_EQ(0, uk_protect(self->fd, at(self, 0), 3 * self->unit,
				UFFDIO_WRITEPROTECT_MODE_WP));
	EXPECT_EQ(0, uk_pages(at(self, 1), self->unit, UK_PM_WP));
	EXPECT_EQ(2 * (self->unit / getpagesize()),
		  uk_pages(at(self, 0), 3 * self->unit, UK_PM_WP));
	EXPECT_TRUE(poisoned(self, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, poison(self, 2, 1));
	EXPECT_EQ(0, uk_protect(self->fd, at(self, 0), 3 * self->unit, 0));
	EXPECT_TRUE(poisoned(self, 1));
}

/* How long it lasts. */

TEST_F_TIMEOUT(poison, until_dontneed, LIMIT)
{
	UK_ASSERT_FILL(0, 2 * self->unit, poison(self, 1, 2));
	ASSERT_EQ(0, madvise(at(self, 1), self->unit, MADV_DONTNEED));
	EXPECT_TRUE(poisoned(self, 2));
	UK_EXPECT_FILL(0, self->unit, copy(self, 1));
	EXPECT_TRUE(healthy(self, 1));
}

TEST_F_TIMEOUT(poison, survives_the_registration, LIMIT)
{
	UK_ASSERT_FILL(0, 2 * self->unit, poison(self, 1, 2));
	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(poisoned(self, 1));
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(poisoned(self, 1));
	ASSERT_EQ(0, refit(self, 0, 0, MISSING));
	EXPECT_TRUE(poisoned(self, 2));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, poison(self, 2, 1));
}

TEST_F_TIMEOUT(poison, survives_mprotect, LIMIT)
{
	UK_ASSERT_FILL(0, 2 * self->unit, poison(self, 1, 2));
	ASSERT_EQ(0, mprotect(self->m.area, self->m.len, PROT_READ));
	ASSERT_EQ(0, mprotect(self->m.area, self->m.len,
			      PROT_READ | PROT_WRITE));
	EXPECT_TRUE(poisoned(self, 1));
	EXPECT_TRUE(poisoned(self, 2));
}

TEST_F_TIMEOUT(poison, moves_along, LIMIT)
{
	char *to = uk_reserve(self->m.len, self->unit > uk_huge_size() ?
			      self->unit : uk_huge_size());

	UK_ASSERT_FILL(0, self->unit, copy(self, 0));
	UK_ASSERT_FILL(0, self->unit, poison(self, 1, 1));
	ASSERT_EQ(to, mremap(self->m.area, self->m.len, self->m.len,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	self->m.area = to;
	EXPECT_TRUE(healthy(self, 0));
	EXPECT_TRUE(poisoned(self, 1));
	EXPECT_FALSE(uk_catch(uk_peek, at(self, 2), NULL, NULL));
}

static int child_suffers(void *arg)
{
	struct poison_test *self = arg;
	int code = 0;

	UK_CHECK(uk_catch(uk_peek, at(self, 1), NULL, &code) == SIGBUS);
	UK_CHECK(code == lost());
	UK_CHECK(!uk_catch(uk_peek, at(self, 0), NULL, NULL));
	return 0;
}

/* A child of its own memory, that is: shared memory is mapped anew. */
TEST_F_TIMEOUT(poison, is_inherited, LIMIT)
{
	if (uk_is_shared(&self->m))
		SKIP(return, "private memory only");
	UK_ASSERT_FILL(0, self->unit, copy(self, 0));
	UK_ASSERT_FILL(0, self->unit, poison(self, 1, 1));
	EXPECT_EQ(0, uk_in_child(child_suffers, self));
	EXPECT_TRUE(poisoned(self, 1));
}

/* The kernel's own accesses. */

TEST_F_TIMEOUT(poison, access_by_the_kernel, LIMIT)
{
	struct iovec there = { .iov_base = at(self, 1), .iov_len = 8 };
	char buf[8];
	struct iovec here = { .iov_base = buf, .iov_len = 8 };
	size_t page = getpagesize();
	int p[2];

	ASSERT_EQ(0, pipe(p));
	UK_ASSERT_FILL(0, self->unit, poison(self, 1, 1));
	EXPECT_EQ(-1, write(p[1], at(self, 1), 8));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(8, write(p[1], "kernel!!", 8));
	EXPECT_EQ(-1, read(p[0], at(self, 1), 8));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, vmsplice(p[1], &there, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, process_vm_readv(getpid(), &here, 1, &there, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, process_vm_writev(getpid(), &here, 1, &there, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, madvise(at(self, 1), page, MADV_POPULATE_READ));
	EXPECT_EQ(EHWPOISON, errno);
	EXPECT_EQ(-1, madvise(at(self, 1), page, MADV_POPULATE_WRITE));
	EXPECT_EQ(EHWPOISON, errno);

	/* A copy from there fails as well. */
	UK_EXPECT_FILL(-EFAULT, -EFAULT, uk_copy(self->fd, at(self, 3),
						 at(self, 1), self->unit, 0));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	close(p[0]);
	close(p[1]);
}

/* The handler does not get to see it, and SIGBUS is not for this. */
TEST_F_TIMEOUT(poison, other_features, LIMIT)
{
	int code = 0;

	ASSERT_EQ(0, refit(self, UFFD_USER_MODE_ONLY, UFFD_FEATURE_SIGBUS,
			   MISSING));
	UK_ASSERT_FILL(0, self->unit, poison(self, 1, 1));
	EXPECT_TRUE(poisoned(self, 1));
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, at(self, 2), NULL, &code));
	EXPECT_EQ(BUS_ADRERR, code);
	UK_ASSERT_FILL(0, self->unit, poison(self, 2, 1));
	EXPECT_TRUE(poisoned(self, 2));
}

TEST_HARNESS_MAIN
