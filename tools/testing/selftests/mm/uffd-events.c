// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: events.
 *
 * Which calls cause UFFD_EVENT_FORK, _REMAP, _REMOVE and _UNMAP, what the
 * messages say, how long the caller waits, and which fills are refused
 * meanwhile.
 *
 * A thread stands for the program, the test itself is the handler. What is
 * tested here is what a handler can rely on with any kernel that has this ABI;
 * see uffd-order.c for more.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		6
#define LIMIT		60

#define FORK		UFFD_FEATURE_EVENT_FORK
#define REMAP		UFFD_FEATURE_EVENT_REMAP
#define REMOVE		UFFD_FEATURE_EVENT_REMOVE
#define UNMAP		UFFD_FEATURE_EVENT_UNMAP

/* FIXTURE_DATA(event), by a name that reads well in a prototype. */
#define event_test _test_data_event

FIXTURE(event)
{
	struct uk_mem m;
	size_t unit;
	char *src;		/* unit i is painted with seed i */
	int fd;
	struct uk_thread t;
	struct uk_call call;
	int (*child)(void *arg);
	int clone_flags;
};

FIXTURE_VARIANT(event)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(event, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(event, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(event, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(event, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(event, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(event, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

FIXTURE_SETUP(event)
{
	const char *why;
	unsigned int i;

	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	self->fd = -1;
	if (geteuid())
		SKIP(return, "needs root, for fork events");
	self->src = uk_buffer(UNITS * self->unit);
	ASSERT_NE(NULL, self->src);
	for (i = 0; i < UNITS; i++)
		uk_paint(self->src + i * self->unit, self->unit, i);
}

FIXTURE_TEARDOWN(event)
{
	close(self->fd);
}

static char *at(struct event_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static bool holds(struct event_test *self, void *addr, unsigned long seed)
{
	return uk_painted(addr, self->unit, seed);
}

static struct uk_fill copy_to(struct event_test *self, int fd, void *addr,
			      unsigned int seed)
{
	return uk_copy(fd, addr, self->src + seed * self->unit, self->unit, 0);
}

static struct uk_fill copy(struct event_test *self, unsigned int unit,
			   unsigned int seed)
{
	return copy_to(self, self->fd, at(self, unit), seed);
}

/* A descriptor with these features, for all of the memory. */
static int arm(struct event_test *self, __u64 features)
{
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register(self->fd, self->m.area, self->m.len);
}

/* A thread makes a system call ... */
static bool begin(struct event_test *self, long nr, unsigned long a,
		  unsigned long b, unsigned long c, unsigned long d,
		  unsigned long e)
{
	self->call = (struct uk_call){ .nr = nr, .arg = { a, b, c, d, e } };
	return !uk_start(&self->t, uk_call, &self->call);
}

#define BEGIN(nr, a, b, c, d, e)					\
	begin(self, nr, (unsigned long)(a), (unsigned long)(b),		\
	      (unsigned long)(c), (unsigned long)(d), (unsigned long)(e))

#define BEGIN_MADVISE(addr, len, how)					\
	BEGIN(__NR_madvise, addr, len, how, 0, 0)
#define BEGIN_MUNMAP(addr, len)						\
	BEGIN(__NR_munmap, addr, len, 0, 0, 0)
#define BEGIN_MREMAP(addr, old, new, flags, to)				\
	BEGIN(__NR_mremap, addr, old, new, flags, to)

/* ... which ends, with this result. */
static bool ends(struct event_test *self, long ret)
{
	return uk_join(&self->t, UK_SOON) && self->t.ret == ret;
}

static bool quiet(int fd)
{
	struct uffd_msg msg;

	return !uk_poll(fd, 0) && uk_read(fd, &msg, 1) == -EAGAIN;
}

/* Touch a page; it is asked for; fill it with a seed. */
static bool served(struct event_test *self, int fd, char *addr,
		   unsigned int seed)
{
	struct uk_thread t;
	struct uffd_msg msg;

	return !uk_start(&t, uk_peek, addr) &&
	       uk_next(fd, &msg) == 1 &&
	       uk_is_fault(&msg, addr) &&
	       !copy_to(self, fd, addr, seed).err &&
	       uk_join(&t, UK_SOON) &&
	       holds(self, addr, seed);
}

/* REMOVE */

TEST_F_TIMEOUT(event, remove_by_dontneed, LIMIT)
{
	struct uffd_msg msg;
	char *start = at(self, 1), *end = at(self, 3);
	int i;

	ASSERT_EQ(0, arm(self, REMOVE));
	for (i = 0; i < 4; i++)
		UK_ASSERT_FILL(0, self->unit, copy(self, i, i));

	ASSERT_TRUE(BEGIN_MADVISE(start, end - start, MADV_DONTNEED));
	ASSERT_EQ(POLLIN, uk_poll(self->fd, UK_SOON));
	EXPECT_TRUE(uk_stays(&self->t));
	/* Nothing is dropped before the handler knows. */
	EXPECT_TRUE(holds(self, start, 1));
	/* As long as it does not, it may not fill. */
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 1, 1));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 2, 2));
	if (!uk_is_hugetlb(&self->m)) {
		UK_EXPECT_FILL(-EAGAIN, -EAGAIN,
			       uk_zero(self->fd, start, self->unit, 0));
	}
	EXPECT_EQ(0, uk_wake(self->fd, start, self->unit));
	EXPECT_TRUE(uk_stays(&self->t));

	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, start, end));
	EXPECT_EQ(0, msg.arg.reserved.reserved3);
	ASSERT_TRUE(ends(self, 0));
	EXPECT_TRUE(quiet(self->fd));

	EXPECT_TRUE(holds(self, at(self, 0), 0));
	EXPECT_TRUE(holds(self, at(self, 3), 3));
	if (uk_is_shared(&self->m)) {
		/* The file still has it. */
		EXPECT_TRUE(holds(self, at(self, 1), 1));
		EXPECT_TRUE(quiet(self->fd));
	} else {
		EXPECT_TRUE(served(self, self->fd, at(self, 1), 4));
		EXPECT_TRUE(served(self, self->fd, at(self, 2), 5));
	}
}

/* However large it is, if it is empty it is done at once. */
TEST_F_TIMEOUT(event, remove_from_a_sparse_mapping, LIMIT)
{
	size_t len = 32UL << 40;
	struct uffd_msg msg;
	char *p;

	if (variant->kind != UK_ANON)
		SKIP(return, "for anonymous memory");
	ASSERT_EQ(0, arm(self, REMOVE));
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		 MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		SKIP(return, "no address space");
	ASSERT_EQ(0, uk_register(self->fd, p, len));
	ASSERT_TRUE(BEGIN_MADVISE(p, len, MADV_DONTNEED));
	/* Less than a walk through it in steps of 2 MiB takes. */
	ASSERT_EQ(POLLIN, uk_poll(self->fd, 500));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, p, p + len));
	ASSERT_TRUE(ends(self, 0));
	ASSERT_EQ(0, munmap(p, len));
}

TEST_F_TIMEOUT(event, remove_by_punching_a_hole, LIMIT)
{
	struct uffd_msg msg;

	if (!uk_is_shared(&self->m))
		SKIP(return, "no file to punch a hole into");
	ASSERT_EQ(0, arm(self, REMOVE));
	UK_ASSERT_FILL(0, self->unit, copy(self, 1, 1));
	UK_ASSERT_FILL(0, self->unit, copy(self, 2, 2));
	ASSERT_TRUE(BEGIN_MADVISE(at(self, 1), self->unit, MADV_REMOVE));
	ASSERT_EQ(POLLIN, uk_poll(self->fd, UK_SOON));
	EXPECT_TRUE(uk_stays(&self->t));
	EXPECT_TRUE(holds(self, at(self, 1), 1));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, 1),
			       at(self, 2)));
	ASSERT_TRUE(ends(self, 0));
	EXPECT_TRUE(served(self, self->fd, at(self, 1), 5));
	EXPECT_TRUE(holds(self, at(self, 2), 2));

	/* The file's owner needs no madvise() and causes no event. */
	ASSERT_EQ(0, uk_drop(&self->m, at(self, 2), self->unit));
	EXPECT_TRUE(quiet(self->fd));
	EXPECT_TRUE(served(self, self->fd, at(self, 2), 3));
}

TEST_F_TIMEOUT(event, remove_by_free, LIMIT)
{
	struct uffd_msg msg;

	if (!uk_is_anon(&self->m))
		SKIP(return, "anonymous memory only");
	ASSERT_EQ(0, arm(self, REMOVE));
	UK_ASSERT_FILL(0, self->unit, copy(self, 1, 1));
	ASSERT_TRUE(BEGIN_MADVISE(at(self, 1), 2 * self->unit, MADV_FREE));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, 1),
			       at(self, 3)));
	ASSERT_TRUE(ends(self, 0));
}

TEST_F_TIMEOUT(event, remove_is_told_once_a_mapping, LIMIT)
{
	struct uffd_msg msg;
	int i;

	ASSERT_EQ(0, arm(self, REMOVE));
	/* Registered, not registered, registered and of another protection. */
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 1), self->unit));
	ASSERT_EQ(0, mprotect(at(self, 3), self->unit, PROT_READ));
	ASSERT_TRUE(BEGIN_MADVISE(self->m.area, 4 * self->unit,
				  MADV_DONTNEED));
	for (i = 0; i < 4; i++) {
		if (i == 1)
			continue;
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, i),
				       at(self, i + 1)));
	}
	ASSERT_TRUE(ends(self, 0));
	EXPECT_TRUE(quiet(self->fd));
}

TEST_F_TIMEOUT(event, remove_that_fails_is_none, LIMIT)
{
	ASSERT_EQ(0, arm(self, REMOVE));
	EXPECT_EQ(-1, madvise(at(self, 1) + 1, self->unit, MADV_DONTNEED));
	EXPECT_EQ(0, madvise(at(self, 1), 0, MADV_DONTNEED));
	if (uk_is_hugetlb(&self->m)) {
		EXPECT_EQ(-1, madvise(at(self, 1) + getpagesize(), self->unit,
				      MADV_DONTNEED));
		/* Rounded down to nothing. */
		EXPECT_EQ(0, madvise(at(self, 1), getpagesize(),
				     MADV_DONTNEED));
	}
	if (!uk_is_shared(&self->m)) {
		EXPECT_EQ(-1, madvise(at(self, 1), self->unit, MADV_REMOVE));
		EXPECT_EQ(uk_is_anon(&self->m) ? EINVAL : EACCES, errno);
	}
	EXPECT_TRUE(quiet(self->fd));
}

/* UNMAP */

TEST_F_TIMEOUT(event, unmap_part, LIMIT)
{
	struct uffd_msg msg;
	char *start = at(self, 1), *end = at(self, 3);

	ASSERT_EQ(0, arm(self, UNMAP));
	UK_ASSERT_FILL(0, self->unit, copy(self, 0, 0));
	UK_ASSERT_FILL(0, self->unit, copy(self, 1, 1));
	ASSERT_TRUE(BEGIN_MUNMAP(start, end - start));
	ASSERT_EQ(POLLIN, uk_poll(self->fd, UK_SOON));
	EXPECT_TRUE(uk_stays(&self->t));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 1, 1));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 2, 2));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, start, end));
	EXPECT_EQ(0, msg.arg.reserved.reserved3);
	ASSERT_TRUE(ends(self, 0));
	EXPECT_TRUE(quiet(self->fd));

	UK_EXPECT_FILL(-ENOENT, -ENOENT, copy(self, 1, 1));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_peek, at(self, 2), NULL, NULL));
	EXPECT_TRUE(holds(self, at(self, 0), 0));
	EXPECT_TRUE(served(self, self->fd, at(self, 3), 3));
}

TEST_F_TIMEOUT(event, unmap_more_than_all, LIMIT)
{
	char *start = self->m.area - self->unit;
	char *end = self->m.area + self->m.len + self->unit;
	struct uffd_msg msg;

	/* Two registered mappings, what is between them, and both guards. */
	ASSERT_EQ(0, arm(self, UNMAP));
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 2), self->unit));
	ASSERT_TRUE(BEGIN_MUNMAP(start, end - start));
	/* One call, one event, and it says what the call said. */
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, start, end));
	ASSERT_TRUE(ends(self, 0));
	EXPECT_TRUE(quiet(self->fd));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, copy(self, 0, 0));
}

TEST_F_TIMEOUT(event, unmap_for_each_owner, LIMIT)
{
	struct uffd_msg msg;
	int fd[3], i;

	for (i = 0; i < 3; i++) {
		fd[i] = uk_new(O_CLOEXEC | O_NONBLOCK, i == 1 ? 0 : UNMAP);
		ASSERT_LE(0, fd[i]);
		ASSERT_EQ(0, uk_register(fd[i], at(self, i), self->unit));
	}
	ASSERT_TRUE(BEGIN_MUNMAP(self->m.area, self->m.len));
	/* Each is told in full; who did not ask is not told. */
	for (i = 0; i < 3; i += 2) {
		ASSERT_EQ(1, uk_next(fd[i], &msg));
		EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, self->m.area,
				       self->m.area + self->m.len));
	}
	ASSERT_TRUE(ends(self, 0));
	for (i = 0; i < 3; i++) {
		EXPECT_TRUE(quiet(fd[i]));
		close(fd[i]);
	}
}

TEST_F_TIMEOUT(event, unmap_by_a_new_mapping, LIMIT)
{
	struct uffd_msg msg;
	char *start = at(self, 1);

	ASSERT_EQ(0, arm(self, UNMAP));
	UK_ASSERT_FILL(0, self->unit, copy(self, 1, 1));
	self->call = (struct uk_call){
		.nr = __NR_mmap,
		.arg = { (unsigned long)start, self->unit,
			 PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0 },
	};
	ASSERT_EQ(0, uk_start(&self->t, uk_call, &self->call));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, start,
			       start + self->unit));
	ASSERT_TRUE(ends(self, (long)start));
	/* The new memory is nobody's business. */
	EXPECT_TRUE(uk_all_zero(start, self->unit));
	EXPECT_TRUE(quiet(self->fd));
	EXPECT_EQ(0, uk_census(start, self->unit).armed);
}

TEST_F_TIMEOUT(event, unmap_by_shrinking, LIMIT)
{
	char *end = self->m.area + self->m.len;
	struct uffd_msg msg;

	ASSERT_EQ(0, arm(self, UNMAP | REMAP));
	ASSERT_TRUE(BEGIN_MREMAP(self->m.area, self->m.len, 2 * self->unit, 0,
				 0));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, at(self, 2), end));
	ASSERT_TRUE(ends(self, (long)self->m.area));
	EXPECT_TRUE(quiet(self->fd));
}

/* A thread that waits for a page of memory that is gone. */

static long trapped;

static long peek_and_tell(void *addr)
{
	trapped = uk_catch(uk_peek, addr, NULL, NULL);
	return 0;
}

TEST_F_TIMEOUT(event, unmap_under_a_waiting_thread, LIMIT)
{
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_EQ(0, arm(self, UNMAP));
	ASSERT_EQ(0, uk_start(&t, peek_and_tell, at(self, 1)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_TRUE(BEGIN_MUNMAP(at(self, 1), self->unit));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, at(self, 1),
			       at(self, 2)));
	ASSERT_TRUE(ends(self, 0));
	EXPECT_EQ(0, uk_wake(self->fd, at(self, 1), self->unit));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(SIGSEGV, trapped);
}

/* REMAP */

TEST_F_TIMEOUT(event, remap, LIMIT)
{
	size_t len = 3 * self->unit;
	char *to = uk_reserve(len, self->unit);
	char *old = at(self, 1);
	struct uffd_msg msg;

	ASSERT_NE(NULL, to);
	ASSERT_EQ(0, arm(self, REMAP));
	UK_ASSERT_FILL(0, self->unit, copy(self, 1, 1));
	ASSERT_TRUE(BEGIN_MREMAP(old, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
				 to));
	ASSERT_EQ(POLLIN, uk_poll(self->fd, UK_SOON));
	EXPECT_TRUE(uk_stays(&self->t));
	/* Here or there or anywhere. */
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy_to(self, self->fd, to, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 1, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 0, 0));
	EXPECT_EQ(0, uk_wake(self->fd, to, len));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_remap(&msg, old, to, len));
	ASSERT_TRUE(ends(self, (long)to));
	EXPECT_TRUE(quiet(self->fd));

	/* Pages and registration have moved. */
	EXPECT_TRUE(holds(self, to, 1));
	EXPECT_TRUE(served(self, self->fd, to + self->unit, 2));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, copy(self, 1, 0));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_peek, old, NULL, NULL));
	EXPECT_TRUE(served(self, self->fd, at(self, 0), 0));
}

TEST_F_TIMEOUT(event, remap_and_unmap, LIMIT)
{
	size_t len = 2 * self->unit;
	char *from = at(self, 0), *to = at(self, 3);
	struct uffd_msg msg;

	/* Onto other registered memory. */
	ASSERT_EQ(0, arm(self, REMAP | UNMAP));
	UK_ASSERT_FILL(0, self->unit, copy(self, 1, 1));
	UK_ASSERT_FILL(0, self->unit, copy(self, 4, 4));
	ASSERT_TRUE(BEGIN_MREMAP(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
				 to));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, to, to + len));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_remap(&msg, from, to, len));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, from, from + len));
	ASSERT_TRUE(ends(self, (long)to));
	EXPECT_TRUE(quiet(self->fd));
	EXPECT_TRUE(holds(self, to + self->unit, 1));
	EXPECT_TRUE(served(self, self->fd, to, 0));
}

TEST_F_TIMEOUT(event, remap_that_grows, LIMIT)
{
	size_t old = 2 * self->unit, new = 4 * self->unit;
	char *to = uk_reserve(new, self->unit);
	struct uffd_msg msg;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "hugetlb mappings do not grow");
	ASSERT_NE(NULL, to);
	ASSERT_EQ(0, arm(self, REMAP));
	UK_ASSERT_FILL(0, self->unit, copy(self, 1, 1));
	ASSERT_TRUE(BEGIN_MREMAP(self->m.area, old, new,
				 MREMAP_MAYMOVE | MREMAP_FIXED, to));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	/* What was moved; what was added needs no message ... */
	EXPECT_TRUE(uk_is_remap(&msg, self->m.area, to, old));
	ASSERT_TRUE(ends(self, (long)to));
	EXPECT_TRUE(quiet(self->fd));
	EXPECT_TRUE(holds(self, to + self->unit, 1));
	/* ... until it is touched. */
	EXPECT_TRUE(served(self, self->fd, to + 3 * self->unit, 3));
}

TEST_F_TIMEOUT(event, remap_that_grows_in_place, LIMIT)
{
	char *p = self->m.area, *end = p + self->m.len;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "hugetlb mappings do not grow");
	ASSERT_TRUE(uk_is_anon(&self->m) ||
		    !ftruncate(self->m.fd, self->m.len + self->unit));
	ASSERT_EQ(0, arm(self, REMAP | UNMAP));
	/* Make room behind it; that is not registered and no event. */
	ASSERT_EQ(0, munmap(end, 2 * self->unit));
	ASSERT_TRUE(BEGIN_MREMAP(p, self->m.len, self->m.len + self->unit, 0,
				 0));
	ASSERT_TRUE(ends(self, (long)p));
	EXPECT_TRUE(quiet(self->fd));
	EXPECT_EQ(1, uk_census(p, self->m.len + self->unit).armed);
	EXPECT_TRUE(served(self, self->fd, end, 2));
}

TEST_F_TIMEOUT(event, remap_that_leaves_the_old_mapping, LIMIT)
{
	size_t len = 2 * self->unit;
	char *to = uk_reserve(len, self->unit);
	struct uffd_msg msg;
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "not for hugetlb");
	ASSERT_NE(NULL, to);
	ASSERT_EQ(0, arm(self, REMAP | UNMAP));
	UK_ASSERT_FILL(0, self->unit, copy(self, 0, 0));
	ASSERT_TRUE(BEGIN_MREMAP(self->m.area, len, len, flags, to));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_remap(&msg, self->m.area, to, len));
	ASSERT_TRUE(ends(self, (long)to));
	EXPECT_TRUE(quiet(self->fd));

	/* Both are registered now. */
	EXPECT_TRUE(holds(self, to, 0));
	EXPECT_TRUE(served(self, self->fd, to + self->unit, 1));
	if (uk_is_shared(&self->m)) {
		EXPECT_TRUE(holds(self, self->m.area, 0));
		EXPECT_TRUE(quiet(self->fd));
	} else {
		EXPECT_TRUE(served(self, self->fd, self->m.area, 2));
		EXPECT_TRUE(served(self, self->fd, at(self, 1), 3));
	}
}

TEST_F_TIMEOUT(event, remap_that_fails_is_none, LIMIT)
{
	char *to = self->m.area + self->m.len;

	ASSERT_EQ(0, arm(self, REMAP | UNMAP));
	/* More than there is; in place where there is no place. */
	EXPECT_EQ(MAP_FAILED, mremap(self->m.area, self->m.len + self->unit,
				     self->m.len + self->unit,
				     MREMAP_MAYMOVE | MREMAP_FIXED,
				     self->m.area + 4 * self->m.len));
	EXPECT_EQ(MAP_FAILED, mremap(self->m.area, self->m.len,
				     self->m.len + self->unit, 0));
	EXPECT_EQ(MAP_FAILED, mremap(self->m.area, self->m.len, self->m.len,
				     MREMAP_MAYMOVE | MREMAP_FIXED, to + 1));
	EXPECT_TRUE(quiet(self->fd));
	UK_EXPECT_FILL(0, self->unit, copy(self, 0, 0));
}

/* FORK */

static int nothing(void *arg)
{
	return 0;
}

static long do_fork(void *arg)
{
	struct event_test *self = arg;

	return uk_spawn_by_thread(self->child, self, self->clone_flags);
}

/* A thread forks; the child runs fn with the fixture. */
static bool begin_fork(struct event_test *self, int (*fn)(void *arg))
{
	self->child = fn;
	return !uk_start(&self->t, do_fork, self);
}

/* The thread is done forking and the child ends with 0. */
static int fork_ends(struct event_test *self)
{
	if (!uk_join(&self->t, UK_SOON) || self->t.ret <= 0)
		return -1;
	return uk_reap(self->t.ret, UK_SOON);
}

static int child_looks(void *arg)
{
	struct event_test *self = arg;

	/* What the parent had, and what it has to ask for. */
	UK_CHECK(holds(self, at(self, 0), 0));
	UK_CHECK(holds(self, at(self, 1), 5));
	UK_CHECK(uk_census(self->m.area, self->m.len).armed == 1);
	return 0;
}

TEST_F_TIMEOUT(event, fork, LIMIT)
{
	struct uffd_msg msg;
	struct uk_info info;
	int child;

	ASSERT_EQ(0, arm(self, FORK | REMOVE));
	UK_ASSERT_FILL(0, self->unit, copy(self, 0, 0));
	ASSERT_TRUE(begin_fork(self, child_looks));
	ASSERT_EQ(POLLIN, uk_poll(self->fd, UK_SOON));
	EXPECT_TRUE(uk_stays(&self->t));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 2, 2));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 0, 0));

	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
	EXPECT_EQ(0, msg.arg.reserved.reserved2);
	EXPECT_EQ(0, msg.arg.reserved.reserved3);
	child = msg.arg.fork.ufd;
	EXPECT_EQ(msg.arg.reserved.reserved1, child);
	ASSERT_NE(self->fd, child);

	/* It is like the one that it comes from. */
	EXPECT_EQ(FD_CLOEXEC, fcntl(child, F_GETFD));
	EXPECT_EQ(O_NONBLOCK, fcntl(child, F_GETFL) & O_NONBLOCK);
	ASSERT_EQ(0, uk_fdinfo(child, &info));
	EXPECT_EQ(FORK | REMOVE | UK_BIT(31), info.features);
	EXPECT_EQ(-EINVAL, uk_api(child, 0));

	ASSERT_EQ(1, uk_next(child, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
	EXPECT_TRUE(quiet(self->fd));
	UK_EXPECT_FILL(0, self->unit, copy_to(self, child, at(self, 1), 5));
	EXPECT_EQ(0, fork_ends(self));
	UK_EXPECT_FILL(-ESRCH, UK_UNSET,
		       copy_to(self, child, at(self, 2), 0));
	close(child);

	/* For the parent nothing has changed. */
	EXPECT_TRUE(holds(self, at(self, 0), 0));
	EXPECT_TRUE(uk_is_shared(&self->m) ?
		    holds(self, at(self, 1), 5) :
		    served(self, self->fd, at(self, 1), 1));
	EXPECT_TRUE(served(self, self->fd, at(self, 2), 2));
}

static int child_forks(void *arg)
{
	struct event_test *self = arg;
	pid_t pid = uk_spawn_by_thread(child_looks, self, 0);

	UK_CHECK(pid > 0);
	UK_CHECK(!uk_reap(pid, UK_SOON));
	UK_CHECK(holds(self, at(self, 2), 2));
	return 0;
}

TEST_F_TIMEOUT(event, fork_of_a_fork, LIMIT)
{
	struct uffd_msg msg;
	int child, grandchild;

	ASSERT_EQ(0, arm(self, FORK));
	UK_ASSERT_FILL(0, self->unit, copy(self, 0, 0));
	ASSERT_TRUE(begin_fork(self, child_forks));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
	child = msg.arg.fork.ufd;
	ASSERT_EQ(1, uk_next(child, &msg));
	ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
	grandchild = msg.arg.fork.ufd;

	ASSERT_EQ(1, uk_next(grandchild, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
	UK_EXPECT_FILL(0, self->unit,
		       copy_to(self, grandchild, at(self, 1), 5));
	ASSERT_EQ(1, uk_next(child, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 2)));
	UK_EXPECT_FILL(0, self->unit, copy_to(self, child, at(self, 2), 2));
	EXPECT_EQ(0, fork_ends(self));
	EXPECT_TRUE(quiet(self->fd));
	close(child);
	close(grandchild);
}

/* Nobody asks for the child's pages: closed, its memory is its own. */
static int child_alone(void *arg)
{
	struct event_test *self = arg;

	UK_CHECK(uk_all_zero(at(self, 3), self->unit));
	UK_CHECK(!uk_census(self->m.area, self->m.len).armed);
	return 0;
}

TEST_F_TIMEOUT(event, fork_and_close, LIMIT)
{
	struct uffd_msg msg;

	ASSERT_EQ(0, arm(self, FORK));
	ASSERT_TRUE(begin_fork(self, child_alone));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
	close(msg.arg.fork.ufd);
	EXPECT_EQ(0, fork_ends(self));
	EXPECT_EQ(1, uk_census(self->m.area, self->m.len).armed);
}

TEST_F_TIMEOUT(event, fork_without_being_asked, LIMIT)
{
	ASSERT_EQ(0, arm(self, REMOVE | REMAP | UNMAP));
	EXPECT_EQ(0, uk_in_child(child_alone, self));
	EXPECT_EQ(1, uk_census(self->m.area, self->m.len).armed);
	EXPECT_TRUE(quiet(self->fd));
}

TEST_F_TIMEOUT(event, fork_for_each_owner, LIMIT)
{
	struct uffd_msg msg;
	int fd[2], i;

	for (i = 0; i < 2; i++) {
		fd[i] = uk_new(O_CLOEXEC | O_NONBLOCK, FORK);
		ASSERT_LE(0, fd[i]);
		ASSERT_EQ(0, uk_register(fd[i], at(self, i), self->unit));
	}
	ASSERT_TRUE(begin_fork(self, nothing));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(1, uk_next(fd[i], &msg));
		ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
		close(msg.arg.fork.ufd);
	}
	EXPECT_EQ(0, fork_ends(self));
	EXPECT_TRUE(quiet(fd[0]));
	EXPECT_TRUE(quiet(fd[1]));
	close(fd[0]);
	close(fd[1]);
}

/* No descriptor to be had for the child: the event waits for one. */
TEST_F_TIMEOUT(event, fork_and_no_descriptor, LIMIT)
{
	struct rlimit old, low = {};
	struct uffd_msg msg[2];
	struct uk_thread t;
	int spare;

	ASSERT_EQ(0, arm(self, FORK));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 4)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	ASSERT_TRUE(begin_fork(self, nothing));
	ASSERT_TRUE(uk_asleep(self->t.tid));

	spare = dup(0);
	ASSERT_LE(0, spare);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	low.rlim_max = old.rlim_max;
	low.rlim_cur = spare;
	close(spare);
	/* Every number below the limit is taken. */
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &low));
	ASSERT_EQ(-1, dup(0));

	/* What is before it comes out, and then the error, any time. */
	ASSERT_EQ(1, uk_read(self->fd, msg, 2));
	EXPECT_TRUE(uk_is_fault(msg, at(self, 4)));
	EXPECT_EQ(-EMFILE, uk_read(self->fd, msg, 2));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	EXPECT_EQ(-EMFILE, uk_read(self->fd, msg, 1));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	EXPECT_FALSE(uk_finished(&self->t));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 4, 4));

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	ASSERT_EQ(1, uk_read(self->fd, msg, 2));
	EXPECT_EQ(UFFD_EVENT_FORK, msg[0].event);
	EXPECT_EQ(spare, msg[0].arg.fork.ufd);
	close(msg[0].arg.fork.ufd);
	EXPECT_EQ(0, fork_ends(self));
	UK_EXPECT_FILL(0, self->unit, copy(self, 4, 4));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

/* A child that shares the memory is no copy of it. */
TEST_F_TIMEOUT(event, clone_that_shares_memory, LIMIT)
{
	char *stack = uk_buffer(65536);
	int status;
	pid_t pid;

	ASSERT_NE(NULL, stack);
	ASSERT_EQ(0, arm(self, FORK));
	pid = clone(nothing, stack + 65536, CLONE_VM | CLONE_VFORK | SIGCHLD,
		    NULL);
	ASSERT_LT(0, pid);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(quiet(self->fd));
	EXPECT_EQ(1, uk_census(self->m.area, self->m.len).armed);
}

/* What all of them have in common. */

/* Not asked for, nobody waits and nothing is told. */
TEST_F_TIMEOUT(event, nothing_asked_nothing_told, LIMIT)
{
	size_t len = 2 * self->unit;
	char *to = uk_reserve(len, self->unit);

	ASSERT_NE(NULL, to);
	ASSERT_EQ(0, arm(self, 0));
	UK_ASSERT_FILL(0, self->unit, copy(self, 0, 0));
	UK_ASSERT_FILL(0, self->unit, copy(self, 4, 4));
	ASSERT_EQ(0, madvise(at(self, 4), self->unit, MADV_DONTNEED));
	ASSERT_TRUE(!uk_is_shared(&self->m) ||
		    !madvise(at(self, 4), self->unit, MADV_REMOVE));
	EXPECT_TRUE(served(self, self->fd, at(self, 4), 5));

	/* Elsewhere is not registered, but pages are moved. */
	ASSERT_EQ(to, mremap(self->m.area, len, len,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_TRUE(holds(self, to, 0));
	EXPECT_EQ(0, uk_census(to, len).armed);
	EXPECT_TRUE(uk_all_zero(to + self->unit, self->unit));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, copy_to(self, self->fd, to, 0));

	ASSERT_EQ(0, munmap(at(self, 4), self->unit));
	EXPECT_TRUE(quiet(self->fd));
}

TEST_F_TIMEOUT(event, old_mapping_stays_registered, LIMIT)
{
	size_t len = 2 * self->unit;
	char *to = uk_reserve(len, self->unit);
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "not for hugetlb");
	ASSERT_NE(NULL, to);
	ASSERT_EQ(0, arm(self, 0));
	UK_ASSERT_FILL(0, self->unit, copy(self, 0, 0));
	ASSERT_EQ(to, mremap(self->m.area, len, len, flags, to));
	EXPECT_TRUE(holds(self, to, 0));
	EXPECT_EQ(0, uk_census(to, len).armed);
	EXPECT_LE(1, uk_census(self->m.area, len).armed);
	EXPECT_TRUE(uk_is_shared(&self->m) ||
		    served(self, self->fd, self->m.area, 3));
}

/* Several at once, from several threads, one after another. */
TEST_F_TIMEOUT(event, several_events, LIMIT)
{
	struct uk_call call[3];
	struct uk_thread t[3];
	struct uffd_msg msg[4];
	int i;

	ASSERT_EQ(0, arm(self, REMOVE | UNMAP));
	for (i = 0; i < 3; i++) {
		call[i] = (struct uk_call){
			.nr = i == 1 ? __NR_munmap : __NR_madvise,
			.arg = { (unsigned long)at(self, i), self->unit,
				 MADV_DONTNEED },
		};
		ASSERT_EQ(0, uk_start(&t[i], uk_call, &call[i]));
		ASSERT_TRUE(uk_asleep(t[i].tid));
	}
	ASSERT_EQ(3, uk_read(self->fd, msg, 4));
	for (i = 0; i < 3; i++) {
		EXPECT_TRUE(uk_is_span(&msg[i], i == 1 ? UFFD_EVENT_UNMAP :
				       UFFD_EVENT_REMOVE, at(self, i),
				       at(self, i + 1)));
		EXPECT_TRUE(uk_join(&t[i], UK_SOON));
		EXPECT_EQ(0, t[i].ret);
	}
	EXPECT_TRUE(quiet(self->fd));
	UK_EXPECT_FILL(0, self->unit, copy(self, 3, 3));
}

/* Only one of several is read: the rest waits on. */
TEST_F_TIMEOUT(event, one_of_several_events, LIMIT)
{
	struct uk_call call[2];
	struct uk_thread t[2];
	struct uffd_msg msg;
	int i;

	ASSERT_EQ(0, arm(self, REMOVE));
	for (i = 0; i < 2; i++) {
		call[i] = (struct uk_call){
			.nr = __NR_madvise,
			.arg = { (unsigned long)at(self, i), self->unit,
				 MADV_DONTNEED },
		};
		ASSERT_EQ(0, uk_start(&t[i], uk_call, &call[i]));
		ASSERT_TRUE(uk_asleep(t[i].tid));
	}
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, 0),
			       at(self, 1)));
	ASSERT_TRUE(uk_join(&t[0], UK_SOON));
	EXPECT_TRUE(uk_stays(&t[1]));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	UK_EXPECT_FILL(-EAGAIN, -EAGAIN, copy(self, 1, 1));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, 1),
			       at(self, 2)));
	ASSERT_TRUE(uk_join(&t[1], UK_SOON));
	UK_EXPECT_FILL(0, self->unit, copy(self, 1, 1));
}

struct reader {
	int fd;
	struct uffd_msg msg;
};

static long read_one(void *arg)
{
	struct reader *r = arg;

	return uk_read(r->fd, &r->msg, 1);
}

/* A reader that waits is woken by an event as it is by a fault. */
TEST_F_TIMEOUT(event, blocking_read, LIMIT)
{
	struct uk_thread reader;
	struct reader r;

	ASSERT_EQ(0, arm(self, REMOVE));
	r.fd = self->fd;
	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	ASSERT_EQ(0, uk_start(&reader, read_one, &r));
	ASSERT_TRUE(uk_asleep(reader.tid));
	ASSERT_TRUE(BEGIN_MADVISE(at(self, 2), self->unit, MADV_DONTNEED));
	ASSERT_TRUE(uk_join(&reader, UK_SOON));
	EXPECT_EQ(1, reader.ret);
	EXPECT_TRUE(uk_is_span(&r.msg, UFFD_EVENT_REMOVE, at(self, 2),
			       at(self, 3)));
	EXPECT_TRUE(ends(self, 0));
}

TEST_F_TIMEOUT(event, signal_does_not_end_the_wait, LIMIT)
{
	struct sigaction act = { .sa_handler = SIG_IGN };
	struct uffd_msg msg;

	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	ASSERT_EQ(0, arm(self, REMOVE));
	ASSERT_TRUE(BEGIN_MADVISE(at(self, 2), self->unit, MADV_DONTNEED));
	ASSERT_TRUE(uk_asleep(self->t.tid));
	ASSERT_EQ(0, pthread_kill(self->t.id, SIGUSR1));
	EXPECT_TRUE(uk_stays(&self->t));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(ends(self, 0));
}

TEST_F_TIMEOUT(event, close_ends_the_wait, LIMIT)
{
	struct uk_call call = {
		.nr = __NR_munmap,
		.arg = { (unsigned long)at(self, 4), self->unit },
	};
	struct uk_thread t;

	ASSERT_EQ(0, arm(self, REMOVE | UNMAP));
	ASSERT_TRUE(BEGIN_MADVISE(at(self, 2), self->unit, MADV_DONTNEED));
	ASSERT_EQ(0, uk_start(&t, uk_call, &call));
	ASSERT_TRUE(uk_asleep(self->t.tid));
	ASSERT_TRUE(uk_asleep(t.tid));
	close(self->fd);
	self->fd = -1;
	EXPECT_TRUE(ends(self, 0));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
	EXPECT_EQ(0, uk_census(self->m.area, self->m.len).armed);
}

TEST_F_TIMEOUT(event, close_ends_a_fork, LIMIT)
{
	ASSERT_EQ(0, arm(self, FORK));
	/* Else the child would have one open as well. */
	self->clone_flags = CLONE_FILES;
	ASSERT_TRUE(begin_fork(self, child_alone));
	ASSERT_TRUE(uk_asleep(self->t.tid));
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(0, fork_ends(self));
}

/* Killed while it waits, a process is gone at once, whatever it waits for. */

struct caller {
	struct event_test *self;
	int sock;
	int which;
};

static int call_and_wait(void *arg)
{
	struct caller *c = arg;
	struct event_test *self = c->self;

	UK_CHECK(!arm(self, FORK | REMAP | REMOVE | UNMAP));
	UK_CHECK(!uk_send_fd(c->sock, self->fd));
	switch (c->which) {
	case 0:
		madvise(at(self, 1), self->unit, MADV_DONTNEED);
		break;
	case 1:
		munmap(at(self, 1), self->unit);
		break;
	case 2:
		mremap(at(self, 1), self->unit, self->unit,
		       MREMAP_MAYMOVE | MREMAP_FIXED, at(self, 3));
		break;
	case 3:
		fork();
		break;
	}
	return 0;
}

TEST_F_TIMEOUT(event, killed_while_it_waits, LIMIT)
{
	struct caller c = { .self = self };
	int sv[2], fd;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	c.sock = sv[1];
	for (c.which = 0; c.which < 4; c.which++) {
		pid_t pid = uk_spawn(call_and_wait, &c);

		ASSERT_LT(0, pid);
		fd = uk_recv_fd(sv[0]);
		ASSERT_LE(0, fd);
		ASSERT_EQ(POLLIN, uk_poll(fd, UK_SOON));
		uk_sleep(5);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		EXPECT_EQ(128 + SIGKILL, uk_reap(pid, UK_SOON)) {
			TH_LOG("case %d", c.which);
		}
		close(fd);
	}
}

/* Events and faults from everywhere, and a patient handler. */

struct worker {
	struct event_test *self;
	unsigned int unit;
	int rounds;
};

static long drop_and_touch(void *arg)
{
	struct worker *w = arg;
	int i;

	for (i = 0; i < w->rounds; i++) {
		char *addr = at(w->self, w->unit);

		if (!holds(w->self, addr, w->unit))
			return i + 1;
		if (uk_is_shared(&w->self->m)) {
			if (madvise(addr, w->self->unit, MADV_REMOVE))
				return -errno;
		} else if (madvise(addr, w->self->unit, MADV_DONTNEED)) {
			return -errno;
		}
	}
	return 0;
}

TEST_F_TIMEOUT(event, faults_and_events, LIMIT)
{
	int rounds = uk_is_hugetlb(&self->m) ? 20 : 100;
	struct worker w[UNITS];
	struct uk_thread t[UNITS];
	int i, faults = 0, removes = 0, left = UNITS;

	ASSERT_EQ(0, arm(self, REMOVE));
	for (i = 0; i < UNITS; i++) {
		w[i] = (struct worker){
			.self = self,
			.unit = i,
			.rounds = rounds,
		};
		ASSERT_EQ(0, uk_start(&t[i], drop_and_touch, &w[i]));
	}
	while (left) {
		struct uffd_msg msg;
		struct uk_fill fill;
		int u;

		if (!(uk_poll(self->fd, 20) & POLLIN)) {
			for (left = 0, i = 0; i < UNITS; i++)
				left += !uk_finished(&t[i]);
			continue;
		}
		if (uk_read(self->fd, &msg, 1) != 1)
			continue;
		if (msg.event == UFFD_EVENT_REMOVE) {
			removes++;
			continue;
		}
		ASSERT_EQ(UFFD_EVENT_PAGEFAULT, msg.event);
		faults++;
		u = (msg.arg.pagefault.address - (unsigned long)self->m.area) /
		    self->unit;
		fill = copy(self, u, u);
		ASSERT_TRUE(!fill.err || fill.err == -EAGAIN);
		if (fill.err)
			uk_wake(self->fd, at(self, u), self->unit);
	}
	for (i = 0; i < UNITS; i++) {
		ASSERT_TRUE(uk_join(&t[i], UK_SOON));
		EXPECT_EQ(0, t[i].ret);
	}
	EXPECT_EQ(rounds * UNITS, removes);
	EXPECT_LE(rounds * UNITS, faults);
}

TEST_HARNESS_MAIN
