// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: UFFDIO_MOVE.
 *
 * Pages of anonymous memory go from one place to another, without a copy. What
 * is moved is painted and compared in full, and what is not moved as well.
 * Ranges are long, and what is odd about them is in the middle: a kernel that
 * moves pages by the dozen must end up as if it moved them one by one.
 *
 * UFFD_SECONDS=n makes the last test of each kind run longer.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/io_uring.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define PAGES		300
#define LIMIT		60

#define WP		UFFDIO_REGISTER_MODE_WP
#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define HOLES		UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES
#define DONTWAKE	UFFDIO_MOVE_MODE_DONTWAKE

/* FIXTURE_DATA(move), by a name that reads well in a prototype. */
#define move_test _test_data_move

FIXTURE(move)
{
	size_t page;
	size_t len;		/* of each side */
	char *src;
	char *dst;
	char *buf;		/* what the source had in the beginning */
	int fd;
	bool one;		/* both sides in one mapping */
};

FIXTURE_VARIANT(move)
{
	bool one;
	int src_skew;		/* in pages, from the edge of a page table */
	int dst_skew;
};

FIXTURE_VARIANT_ADD(move, apart)
{
	.one = false,
};

FIXTURE_VARIANT_ADD(move, across_page_tables)
{
	.src_skew = -37,
	.dst_skew = -90,
};

FIXTURE_VARIANT_ADD(move, one_mapping)
{
	.one = true,
	.src_skew = -50,
};

static char *src(struct move_test *self, unsigned int i)
{
	return self->src + i * self->page;
}

static char *dst(struct move_test *self, unsigned int i)
{
	return self->dst + i * self->page;
}

/* Page i of the source holds what page i of the buffer holds, nothing else. */
static int restore(struct move_test *self)
{
	if (madvise(self->src, self->len, MADV_DONTNEED) ||
	    madvise(self->dst, self->len, MADV_DONTNEED))
		return -errno;
	if (self->one)
		return uk_copy(self->fd, self->src, self->buf, self->len, 0).err;
	memcpy(self->src, self->buf, self->len);
	return 0;
}

static int refit(struct move_test *self, int flags, __u64 features, __u64 mode)
{
	if (self->fd >= 0)
		close(self->fd);
	self->fd = uk_new(flags | O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register_mode(self->fd, self->one ? self->src : self->dst,
				self->one ? 2 * self->len : self->len, mode,
				NULL);
}

FIXTURE_SETUP(move)
{
	size_t huge = uk_huge_size();
	unsigned int i;
	char *base;
	int err;

	self->fd = -1;
	if (!(uk_offered() & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	self->page = getpagesize();
	self->len = PAGES * self->page;
	self->one = variant->one;
	base = uk_reserve(6 * huge, huge);
	ASSERT_NE(NULL, base);
	self->src = base + 2 * huge + variant->src_skew * (long)self->page;
	self->dst = self->one ? self->src + self->len :
		    base + 4 * huge + variant->dst_skew * (long)self->page;
	ASSERT_EQ(0, mprotect(self->src, self->len, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, mprotect(self->dst, self->len, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, madvise(self->src, self->len, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, madvise(self->dst, self->len, MADV_NOHUGEPAGE));
	self->buf = uk_buffer(self->len);
	ASSERT_NE(NULL, self->buf);
	for (i = 0; i < PAGES; i++)
		uk_paint(self->buf + i * self->page, self->page, i);
	memcpy(self->src, self->buf, self->len);
	err = refit(self, 0, 0, MISSING);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(move)
{
	close(self->fd);
	uk_swap_off();
}

static struct uk_fill move(struct move_test *self, unsigned int from,
			   unsigned int count, __u64 mode)
{
	return uk_move(self->fd, dst(self, from), src(self, from),
		       count * self->page, mode);
}

/* What a call that got as far as page n of a range reports. */
#define EXPECT_MOVED(_n, _fill)						\
	UK_EXPECT_FILL(-EAGAIN, (_n) * self->page, _fill)

/* Nothing is mapped there, in memory or in swap space. */
static bool gone(struct move_test *self, char *addr, unsigned int count)
{
	return !uk_pages(addr, count * self->page, UK_PM_PRESENT) &&
	       !uk_pages(addr, count * self->page, UK_PM_SWAP);
}

static bool same(struct move_test *self, char *addr, unsigned int from,
		 unsigned int count)
{
	return !memcmp(addr, self->buf + from * self->page, count * self->page);
}

/* Pages from..from+count have arrived, whole, and left nothing. */
static bool moved(struct move_test *self, unsigned int from, unsigned int count)
{
	return uk_pages(dst(self, from), count * self->page, UK_PM_PRESENT) ==
	       count && same(self, dst(self, from), from, count) &&
	       gone(self, src(self, from), count);
}

/* They are where they were. */
static bool stayed(struct move_test *self, unsigned int from,
		   unsigned int count)
{
	return same(self, src(self, from), from, count) &&
	       gone(self, dst(self, from), count);
}

static int make_zero_page(struct move_test *self, unsigned int i)
{
	if (madvise(src(self, i), self->page, MADV_DONTNEED))
		return -errno;
	if (self->one)
		return uk_zero(self->fd, src(self, i), self->page, 0).err;
	return uk_peek(src(self, i));
}

/* Moving. */

TEST_F_TIMEOUT(move, one_page, LIMIT)
{
	UK_EXPECT_FILL(0, self->page, move(self, 1, 1, 0));
	EXPECT_TRUE(moved(self, 1, 1));
	EXPECT_TRUE(stayed(self, 0, 1));
	EXPECT_TRUE(stayed(self, 2, PAGES - 2));

	/* It is memory like any other. */
	uk_paint(dst(self, 1), self->page, 77);
	EXPECT_TRUE(uk_painted(dst(self, 1), self->page, 77));
	ASSERT_EQ(0, madvise(dst(self, 1), self->page, MADV_DONTNEED));
	EXPECT_TRUE(gone(self, dst(self, 1), 1));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
}

TEST_F_TIMEOUT(move, all_pages, LIMIT)
{
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, 0));
	EXPECT_TRUE(moved(self, 0, PAGES));
	memset(self->dst, 1, self->len);
}

TEST_F_TIMEOUT(move, from_the_last_to_the_first, LIMIT)
{
	int i;

	for (i = PAGES - 1; i >= 0; i--)
		UK_ASSERT_FILL(0, self->page, move(self, i, 1, 0));
	EXPECT_TRUE(moved(self, 0, PAGES));
}

TEST_F_TIMEOUT(move, in_pieces, LIMIT)
{
	static const unsigned int steps[] = { 1, 15, 16, 17, 2, 31, 33, 13 };
	unsigned int i, n = 0;

	for (i = 0; n < PAGES; i++) {
		unsigned int step = steps[i % ARRAY_SIZE(steps)];

		if (step > PAGES - n)
			step = PAGES - n;
		UK_ASSERT_FILL(0, step * self->page, move(self, n, step, 0));
		n += step;
		ASSERT_TRUE(moved(self, 0, n));
		ASSERT_TRUE(n == PAGES || stayed(self, n, PAGES - n));
	}
}

/* Any page to any place. */
TEST_F_TIMEOUT(move, to_other_places, LIMIT)
{
	unsigned int i;

	UK_ASSERT_FILL(0, 40 * self->page,
		       uk_move(self->fd, dst(self, 3), src(self, 50),
			       40 * self->page, 0));
	EXPECT_TRUE(same(self, dst(self, 3), 50, 40));
	for (i = 0; i < 8; i++)
		UK_ASSERT_FILL(0, self->page,
			       uk_move(self->fd, dst(self, 67 - i),
				       src(self, i), self->page, 0));
	for (i = 0; i < 8; i++)
		EXPECT_TRUE(same(self, dst(self, 67 - i), i, 1));
	EXPECT_TRUE(gone(self, src(self, 0), 8));
	EXPECT_TRUE(gone(self, src(self, 50), 40));
	EXPECT_TRUE(same(self, src(self, 8), 8, 42));
}

/* Who waits. */

TEST_F_TIMEOUT(move, resolves_faults, LIMIT)
{
	struct uk_thread t[3];
	struct uffd_msg msg;
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, uk_start(&t[i], i == 1 ? uk_poke : uk_peek,
				      dst(self, 30 * i) + 100));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_fault(&msg, dst(self, 30 * i)));
	}
	UK_EXPECT_FILL(0, 31 * self->page, move(self, 0, 31, 0));
	EXPECT_TRUE(uk_join(&t[0], UK_SOON));
	EXPECT_TRUE(uk_join(&t[1], UK_SOON));
	EXPECT_EQ((unsigned char)self->buf[100], t[0].ret);
	EXPECT_EQ(0xa5, uk_peek(dst(self, 30) + 100));
	EXPECT_TRUE(uk_stays(&t[2]));
	UK_EXPECT_FILL(0, self->page, move(self, 60, 1, 0));
	EXPECT_TRUE(uk_join(&t[2], UK_SOON));
}

TEST_F_TIMEOUT(move, dontwake_then_wake, LIMIT)
{
	struct uk_thread t;

	ASSERT_EQ(0, uk_start(&t, uk_peek, dst(self, 1)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	UK_EXPECT_FILL(0, 3 * self->page, move(self, 0, 3, DONTWAKE));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(0, uk_wake(self->fd, dst(self, 1), self->page));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ((unsigned char)self->buf[self->page], t.ret);
}

/* What was done counts: whoever waited for it runs. */
TEST_F_TIMEOUT(move, wakes_after_partial_progress, LIMIT)
{
	struct uk_thread t[2];

	ASSERT_EQ(0, madvise(src(self, 40), self->page, MADV_DONTNEED));
	ASSERT_EQ(0, uk_start(&t[0], uk_peek, dst(self, 39)));
	ASSERT_EQ(0, uk_start(&t[1], uk_peek, dst(self, 41)));
	ASSERT_TRUE(uk_parked(self->fd, 2, 2));
	EXPECT_MOVED(40, move(self, 0, PAGES, 0));
	EXPECT_TRUE(uk_join(&t[0], UK_SOON));
	EXPECT_TRUE(uk_stays(&t[1]));
	UK_EXPECT_FILL(0, 88 * self->page, move(self, 40, 88, HOLES));
	EXPECT_TRUE(uk_join(&t[1], UK_SOON));
}

/* Something is in the way. */

static const unsigned int places[] = { 0, 1, 15, 16, 17, 36, 37, 64, 127 };

TEST_F_TIMEOUT(move, page_at_the_destination, LIMIT)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		unsigned int n = places[i];

		ASSERT_EQ(0, restore(self));
		UK_ASSERT_FILL(0, self->page,
			       uk_copy(self->fd, dst(self, n), self->buf,
				       self->page, 0));
		if (n) {
			EXPECT_MOVED(n, move(self, 0, PAGES, 0));
			EXPECT_TRUE(moved(self, 0, n));
		}
		UK_EXPECT_FILL(-EEXIST, -EEXIST, move(self, n, PAGES - n, 0));
		UK_EXPECT_FILL(-EEXIST, -EEXIST, move(self, n, 1, HOLES));
		EXPECT_TRUE(same(self, dst(self, n), 0, 1));
		EXPECT_TRUE(same(self, src(self, n), n, PAGES - n));
	}
}

/* What is not a page is in the way as well. */
TEST_F_TIMEOUT(move, marks_at_the_destination, LIMIT)
{
	ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_WP_UNPOPULATED, MISSING | WP));
	ASSERT_EQ(0, uk_protect(self->fd, dst(self, 20), self->page,
				UFFDIO_WRITEPROTECT_MODE_WP));
	UK_ASSERT_FILL(0, self->page, uk_poison(self->fd, dst(self, 40),
						self->page, 0));
	UK_ASSERT_FILL(0, self->page, uk_zero(self->fd, dst(self, 60),
					      self->page, 0));
	EXPECT_MOVED(20, move(self, 0, PAGES, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, move(self, 20, 1, 0));
	EXPECT_MOVED(19, move(self, 21, PAGES - 21, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, move(self, 40, 2, 0));
	EXPECT_MOVED(19, move(self, 41, PAGES - 41, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, move(self, 60, 2, 0));
	UK_EXPECT_FILL(0, 67 * self->page, move(self, 61, 67, 0));
}

TEST_F_TIMEOUT(move, hole_in_the_source, LIMIT)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		unsigned int n = places[i];

		ASSERT_EQ(0, restore(self));
		ASSERT_EQ(0, madvise(src(self, n), self->page, MADV_DONTNEED));
		if (n)
			EXPECT_MOVED(n, move(self, 0, PAGES, 0));
		UK_EXPECT_FILL(-ENOENT, -ENOENT, move(self, n, PAGES - n, 0));
		EXPECT_TRUE(n == PAGES - 1 ||
			    stayed(self, n + 1, PAGES - n - 1));

		/* A hole is nothing to move, and counts as moved. */
		UK_EXPECT_FILL(0, (PAGES - n) * self->page,
			       move(self, n, PAGES - n, HOLES));
		EXPECT_TRUE(gone(self, dst(self, n), 1));
		EXPECT_TRUE(gone(self, self->src, PAGES));
		EXPECT_TRUE(same(self, self->dst, 0, n));
		EXPECT_TRUE(n == PAGES - 1 || moved(self, n + 1, PAGES - n - 1));
	}
}

TEST_F_TIMEOUT(move, more_holes_than_pages, LIMIT)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++) {
		if (i % 19 && i % 20)
			ASSERT_EQ(0, madvise(src(self, i), self->page,
					     MADV_DONTNEED));
	}
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, HOLES));
	for (i = 0; i < PAGES; i++) {
		EXPECT_TRUE(i % 19 && i % 20 ? gone(self, dst(self, i), 1) :
					       moved(self, i, 1));
	}
}

TEST_F_TIMEOUT(move, nothing_but_holes, LIMIT)
{
	ASSERT_EQ(0, madvise(self->src, self->len, MADV_DONTNEED));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, move(self, 0, PAGES, 0));
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, HOLES));
	EXPECT_TRUE(gone(self, self->dst, PAGES));
}

/* Pages of other kinds. */

TEST_F_TIMEOUT(move, zero_pages, LIMIT)
{
	static const unsigned int zero[] = { 0, 5, 6, 7, 20, 64, 65, 127 };
	unsigned int i, k = 0;

	for (i = 0; i < ARRAY_SIZE(zero); i++)
		ASSERT_EQ(0, make_zero_page(self, zero[i]));
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, 0));
	EXPECT_TRUE(gone(self, self->src, PAGES));
	for (i = 0; i < PAGES; i++) {
		if (k < ARRAY_SIZE(zero) && zero[k] == i) {
			k++;
			EXPECT_TRUE(uk_all_zero(dst(self, i), self->page));
			uk_poke(dst(self, i));
		} else {
			EXPECT_TRUE(same(self, dst(self, i), i, 1));
		}
	}
	/* The zero page itself has not been written. */
	ASSERT_EQ(0, make_zero_page(self, 9));
	EXPECT_TRUE(uk_all_zero(src(self, 9), self->page));
}

TEST_F_TIMEOUT(move, swapped_pages, LIMIT)
{
	const char *why = uk_swap_on(4 * self->len);

	if (why)
		SKIP(return, "%s", why);
	ASSERT_TRUE(uk_swap_out(src(self, 10), 30 * self->page));
	ASSERT_TRUE(uk_swap_out(src(self, 63), 1 * self->page));
	/* In again: it may still be in the swap cache. */
	EXPECT_TRUE(same(self, src(self, 20), 20, 1));
	EXPECT_TRUE(same(self, src(self, 39), 39, 1));
	EXPECT_LT(0, uk_pages(self->src, self->len, UK_PM_SWAP));
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, 0));
	EXPECT_TRUE(gone(self, self->src, PAGES));
	EXPECT_TRUE(same(self, self->dst, 0, PAGES));
	EXPECT_TRUE(moved(self, 0, PAGES));

	/* All of them, and the other way round. */
	ASSERT_EQ(0, restore(self));
	ASSERT_TRUE(uk_swap_out(self->src, self->len));
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, 0));
	EXPECT_EQ(PAGES, uk_pages(self->dst, self->len, UK_PM_SWAP));
	EXPECT_TRUE(gone(self, self->src, PAGES));
	uk_poke(dst(self, 3));
	EXPECT_TRUE(same(self, dst(self, 4), 4, PAGES - 4));
}

/* A moved page leaves its protection behind. */
TEST_F_TIMEOUT(move, protected_pages, LIMIT)
{
	ASSERT_EQ(0, refit(self, 0, 0, MISSING | WP));
	if (!self->one)
		ASSERT_EQ(0, uk_register_mode(self->fd, self->src, self->len,
					      WP, NULL));
	ASSERT_EQ(0, uk_protect(self->fd, src(self, 20), 20 * self->page,
				UFFDIO_WRITEPROTECT_MODE_WP));
	EXPECT_EQ(20, uk_pages(self->src, self->len, UK_PM_WP));
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, 0));
	EXPECT_TRUE(moved(self, 0, PAGES));
	EXPECT_EQ(0, uk_pages(self->src, self->len, UK_PM_WP));
	EXPECT_EQ(0, uk_pages(self->dst, self->len, UK_PM_WP));
	uk_poke(dst(self, 20));
	EXPECT_EQ(0xa5, uk_peek(dst(self, 20)));
}

TEST_F_TIMEOUT(move, poisoned_page, LIMIT)
{
	if (!self->one)
		ASSERT_EQ(0, uk_register(self->fd, self->src, self->len));
	ASSERT_EQ(0, madvise(src(self, 20), self->page, MADV_DONTNEED));
	UK_ASSERT_FILL(0, self->page, uk_poison(self->fd, src(self, 20),
						self->page, 0));
	EXPECT_MOVED(20, move(self, 0, PAGES, HOLES));
	UK_EXPECT_FILL(-EFAULT, -EFAULT, move(self, 20, 1, HOLES));
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, src(self, 20), NULL, NULL));
	EXPECT_TRUE(gone(self, dst(self, 20), 1));
}

/* Pages with another user. */

static int linger(void *arg)
{
	(void)arg;
	uk_sleep(UK_SOON * 2);
	return 0;
}

TEST_F_TIMEOUT(move, pages_shared_with_a_child, LIMIT)
{
	pid_t pid = uk_spawn(linger, NULL);
	unsigned int i;

	ASSERT_LT(0, pid);
	UK_EXPECT_FILL(-EBUSY, -EBUSY, move(self, 0, PAGES, 0));
	EXPECT_TRUE(stayed(self, 0, PAGES));
	/* A page that is written becomes its own again. */
	for (i = 0; i < 21; i++)
		self->src[i * self->page] = self->buf[i * self->page];
	EXPECT_MOVED(21, move(self, 0, PAGES, 0));
	UK_EXPECT_FILL(-EBUSY, -EBUSY, move(self, 21, PAGES - 21, 0));
	EXPECT_TRUE(moved(self, 0, 21));
	EXPECT_TRUE(stayed(self, 21, PAGES - 21));

	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, uk_reap(pid, UK_SOON));
	for (; i < PAGES; i++)
		self->src[i * self->page] = self->buf[i * self->page];
	UK_EXPECT_FILL(0, (PAGES - 21) * self->page,
		       move(self, 21, PAGES - 21, 0));
	EXPECT_TRUE(moved(self, 0, PAGES));
}

TEST_F_TIMEOUT(move, pages_kept_from_children, LIMIT)
{
	pid_t pid;

	ASSERT_EQ(0, madvise(self->src, self->len, MADV_DONTFORK));
	if (self->one)
		ASSERT_EQ(0, madvise(self->dst, self->len, MADV_DONTFORK));
	pid = uk_spawn(linger, NULL);
	ASSERT_LT(0, pid);
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, 0));
	EXPECT_TRUE(moved(self, 0, PAGES));
	kill(pid, SIGKILL);
	uk_reap(pid, UK_SOON);
}

/* A page pinned for I/O: registered as a buffer of io_uring. */

static int pin(void *addr, size_t len)
{
	struct io_uring_params params = {};
	struct iovec iov = { .iov_base = addr, .iov_len = len };
	int ring = syscall(__NR_io_uring_setup, 1, &params);

	if (ring < 0)
		return -errno;
	if (syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS,
		    &iov, 1)) {
		close(ring);
		return -errno;
	}
	return ring;
}

static void unpin(int ring)
{
	syscall(__NR_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL,
		0);
	close(ring);
}

TEST_F_TIMEOUT(move, pinned_page, LIMIT)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		long long end = uk_now() + UK_SOON;
		unsigned int n = places[i];
		struct uk_fill res;
		int ring;

		ASSERT_EQ(0, restore(self));
		ring = pin(src(self, n), self->page);
		if (ring < 0)
			SKIP(return, "no io_uring to pin a page with");
		if (n) {
			EXPECT_MOVED(n, move(self, 0, PAGES, 0));
			EXPECT_TRUE(moved(self, 0, n));
		}
		UK_EXPECT_FILL(-EBUSY, -EBUSY, move(self, n, PAGES - n, 0));
		EXPECT_TRUE(stayed(self, n, PAGES - n));
		unpin(ring);
		/* The pin may be dropped a moment later. */
		do {
			res = move(self, n, PAGES - n, 0);
		} while (res.err == -EBUSY && uk_now() < end);
		UK_EXPECT_FILL(0, (PAGES - n) * self->page, res);
		EXPECT_TRUE(moved(self, 0, PAGES));
	}
}

/* A page that a pipe refers to is not pinned; the pipe keeps its content. */
TEST_F_TIMEOUT(move, page_in_a_pipe, LIMIT)
{
	struct iovec iov = { .iov_base = src(self, 20), .iov_len = 64 };
	char buf[64];
	int p[2];

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(64, vmsplice(p[1], &iov, 1, 0));
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, 0));
	EXPECT_TRUE(moved(self, 0, PAGES));
	EXPECT_EQ(64, read(p[0], buf, 64));
	EXPECT_EQ(0, memcmp(buf, dst(self, 20), 64));
	close(p[0]);
	close(p[1]);
}

/* Of this process. */
static long merged_pages(void)
{
	return uk_read_number("/proc/self/ksm_merging_pages");
}

TEST_F_TIMEOUT(move, pages_shared_by_ksm, LIMIT)
{
	long long end = uk_now() + UK_SOON;
	long was;

	was = uk_read_number("/sys/kernel/mm/ksm/run");
	if (was < 0 || !uk_write_file("/sys/kernel/mm/ksm/run", "1"))
		SKIP(return, "no KSM, or not ours to switch on");
	memcpy(src(self, 25), src(self, 20), self->page);
	ASSERT_EQ(0, madvise(src(self, 20), 6 * self->page, MADV_MERGEABLE));
	while (merged_pages() < 2 && uk_now() < end)
		uk_sleep(10);
	EXPECT_LE(2, merged_pages());
	uk_write_file("/sys/kernel/mm/ksm/run", was ? "1" : "0");

	/* A mapping of its own, now. */
	UK_EXPECT_FILL(-EBUSY, -EBUSY, move(self, 20, 6, 0));
	EXPECT_MOVED(4, move(self, 21, 5, 0));
	UK_EXPECT_FILL(-EBUSY, -EBUSY, move(self, 25, 1, 0));
	EXPECT_TRUE(same(self, src(self, 20), 20, 1));
	EXPECT_TRUE(same(self, src(self, 25), 20, 1));
	EXPECT_TRUE(moved(self, 21, 4));
}

/* All of it in one range. */
TEST_F_TIMEOUT(move, a_mixed_range, LIMIT)
{
	bool swap = !uk_swap_on(4 * self->len);
	unsigned int i;

	for (i = 0; i < PAGES; i++) {
		switch (i % 7) {
		case 2:
			ASSERT_EQ(0, make_zero_page(self, i));
			break;
		case 4:
			ASSERT_EQ(0, madvise(src(self, i), self->page,
					     MADV_DONTNEED));
			break;
		case 5:
			if (swap)
				ASSERT_TRUE(uk_swap_out(src(self, i),
							self->page));
			break;
		}
	}
	UK_EXPECT_FILL(0, self->len, move(self, 0, PAGES, HOLES));
	EXPECT_TRUE(gone(self, self->src, PAGES));
	for (i = 0; i < PAGES; i++) {
		switch (i % 7) {
		case 2:
			EXPECT_TRUE(uk_all_zero(dst(self, i), self->page));
			break;
		case 4:
			EXPECT_TRUE(gone(self, dst(self, i), 1));
			break;
		default:
			EXPECT_TRUE(same(self, dst(self, i), i, 1));
		}
	}
}

/* Arguments. */

TEST_F_TIMEOUT(move, arguments, LIMIT)
{
	char *s = src(self, 1), *d = dst(self, 1);
	size_t page = self->page;
	int bit;

	/* What can be seen to be wrong leaves the output field alone. */
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_move(self->fd, d + 1, s, page, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_move(self->fd, d, s + 1, page, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_move(self->fd, d, s, page - 1, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_move(self->fd, d, s, 0, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_move(self->fd, d, s, -page, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_move(self->fd, UK_KERNEL_SPACE, s, page, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_move(self->fd, d, UK_KERNEL_SPACE, page, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_move(self->fd, (void *)-page, s, page, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET,
		       uk_move(self->fd, d, (void *)-page, page, 0));
	for (bit = 2; bit < 64; bit++)
		UK_EXPECT_FILL(-EINVAL, UK_UNSET,
			       uk_move(self->fd, d, s, page, UK_BIT(bit)));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_MOVE, NULL));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(stayed(self, 0, PAGES));
}

TEST_F_TIMEOUT(move, output_field_cannot_be_written, LIMIT)
{
	struct uffdio_move *c;
	char *p = uk_buffer(2 * self->page);

	ASSERT_NE(NULL, p);
	c = (void *)(p + self->page - offsetof(struct uffdio_move, move));
	c->dst = (unsigned long)dst(self, 1);
	c->src = (unsigned long)src(self, 1);
	c->len = self->page;
	c->mode = 0;
	ASSERT_EQ(0, mprotect(p + self->page, self->page, PROT_READ));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_MOVE, c));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(moved(self, 1, 1));
}

#define EXPECT_REFUSED(_err, _fill) UK_EXPECT_FILL(_err, _err, _fill)

TEST_F_TIMEOUT(move, ends_of_mappings, LIMIT)
{
	char *end = (self->one ? self->dst : self->src) + self->len;

	/* Up to the very ends is fine, beyond is nothing. */
	UK_EXPECT_FILL(0, self->page, move(self, PAGES - 1, 1, 0));
	EXPECT_REFUSED(-EINVAL, uk_move(self->fd, dst(self, 0),
					end - self->page, 2 * self->page, 0));
	EXPECT_REFUSED(-EINVAL, uk_move(self->fd, dst(self, PAGES - 1),
					src(self, 0), 2 * self->page, 0));
	/* Something is mapped there, though it is not of use. */
	EXPECT_REFUSED(-EINVAL, uk_move(self->fd, dst(self, 0), end,
					self->page, 0));
	EXPECT_REFUSED(-EINVAL, uk_move(self->fd, dst(self, PAGES),
					src(self, 0), self->page, 0));
	ASSERT_EQ(0, munmap(src(self, 20), self->page));
	EXPECT_REFUSED(-ENOENT, move(self, 20, 1, 0));
	EXPECT_REFUSED(-ENOENT, move(self, 20, 1, HOLES));
	EXPECT_REFUSED(-EINVAL, move(self, 19, 2, HOLES));
	ASSERT_EQ(0, munmap(dst(self, 30), self->page));
	EXPECT_REFUSED(-ENOENT, move(self, 30, 1, 0));
	EXPECT_REFUSED(-EINVAL, move(self, 29, 2, 0));
	EXPECT_TRUE(stayed(self, 0, 20));
	UK_EXPECT_FILL(0, self->page, move(self, 19, 1, 0));
	UK_EXPECT_FILL(0, self->page, move(self, 31, 1, 0));
}

TEST_F_TIMEOUT(move, who_may_move_there, LIMIT)
{
	int other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);

	ASSERT_LE(0, other);
	/* Only the descriptor that the destination is registered with. */
	EXPECT_REFUSED(-EINVAL, uk_move(other, self->dst, self->src,
					self->page, 0));
	if (!self->one) {
		ASSERT_EQ(0, uk_register(other, self->src, self->len));
		EXPECT_REFUSED(-EINVAL, uk_move(other, self->dst, self->src,
						self->page, 0));
		/* Whose the source is does not matter. */
		UK_EXPECT_FILL(0, self->page, move(self, 0, 1, 0));
		EXPECT_REFUSED(-EINVAL, uk_move(self->fd, src(self, 0),
						dst(self, 0), self->page, 0));
	}
	ASSERT_EQ(0, uk_unregister(self->fd, dst(self, 1), self->page));
	EXPECT_REFUSED(-EINVAL, move(self, 1, 1, 0));
	close(other);
	/* For which mode, does not matter either. */
	ASSERT_EQ(0, refit(self, 0, 0, WP));
	UK_EXPECT_FILL(0, self->page, move(self, 2, 1, 0));
	EXPECT_TRUE(moved(self, 2, 1));
}

TEST_F_TIMEOUT(move, unlike_mappings, LIMIT)
{
	size_t page = self->page;

	/* Access. */
	ASSERT_EQ(0, mprotect(src(self, 10), page, PROT_READ));
	EXPECT_REFUSED(-EINVAL, move(self, 10, 1, 0));
	ASSERT_EQ(0, mprotect(dst(self, 10), page, PROT_READ));
	EXPECT_REFUSED(-EINVAL, move(self, 10, 1, 0));
	ASSERT_EQ(0, mprotect(dst(self, 20), page, PROT_READ));
	EXPECT_REFUSED(-EINVAL, move(self, 20, 1, 0));
	ASSERT_EQ(0, mprotect(src(self, 30), page, PROT_READ | PROT_WRITE |
			      PROT_EXEC));
	EXPECT_REFUSED(-EINVAL, move(self, 30, 1, 0));
	ASSERT_EQ(0, mprotect(dst(self, 30), page, PROT_READ | PROT_WRITE |
			      PROT_EXEC));
	UK_EXPECT_FILL(0, page, move(self, 30, 1, 0));
	EXPECT_TRUE(moved(self, 30, 1));

	/* Locked memory. */
	ASSERT_EQ(0, mlock(src(self, 40), page));
	EXPECT_REFUSED(-EINVAL, move(self, 40, 1, 0));
	ASSERT_EQ(0, mlock2(dst(self, 40), page, MLOCK_ONFAULT));
	UK_EXPECT_FILL(0, page, move(self, 40, 1, 0));
	EXPECT_TRUE(moved(self, 40, 1));
	ASSERT_EQ(0, mlock2(dst(self, 50), page, MLOCK_ONFAULT));
	EXPECT_REFUSED(-EINVAL, move(self, 50, 1, 0));
}

TEST_F_TIMEOUT(move, memory_of_other_types, LIMIT)
{
	static const enum uk_kind kinds[] = {
		UK_SHMEM, UK_SHMEM_PRIVATE, UK_HUGETLB, UK_HUGETLB_PRIVATE,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct uk_mem m;

		if (uk_map(&m, kinds[i], 2))
			continue;
		uk_poke(m.area);
		EXPECT_REFUSED(-EINVAL, uk_move(self->fd, self->dst, m.area,
						self->page, 0));
		ASSERT_EQ(0, uk_register(self->fd, m.area, m.len));
		EXPECT_REFUSED(-EINVAL, uk_move(self->fd, uk_at(&m, 1),
						self->src, self->page, 0));
		EXPECT_REFUSED(-EINVAL, uk_move(self->fd, uk_at(&m, 1), m.area,
						m.unit, 0));
		close(m.fd);
	}
	EXPECT_TRUE(stayed(self, 0, PAGES));
}

static int send_one(void *arg)
{
	struct move_test *self = arg;

	UK_CHECK(!refit(self, 0, 0, MISSING));
	UK_CHECK(!uk_send_fd(*(int *)self->buf, self->fd));
	return linger(NULL);
}

/* Pages do not leave the address space. */
TEST_F_TIMEOUT(move, in_another_process, LIMIT)
{
	char first[sizeof(int)];
	int sv[2], fd;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	memcpy(first, self->buf, sizeof(first));
	memcpy(self->buf, &sv[1], sizeof(int));
	pid = uk_spawn(send_one, self);
	ASSERT_LT(0, pid);
	memcpy(self->buf, first, sizeof(first));
	fd = uk_recv_fd(sv[0]);
	ASSERT_LE(0, fd);
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_move(fd, self->dst, self->src,
						  self->page, 0));
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, uk_reap(pid, UK_SOON));
	/* Nor is there anything left to fill when its process is gone. */
	UK_EXPECT_FILL(-ESRCH, UK_UNSET, uk_poison(fd, self->dst, self->page,
						   0));
	UK_EXPECT_FILL(-ESRCH, UK_UNSET, uk_continue(fd, self->dst, self->page,
						     0));
	EXPECT_EQ(-ESRCH, uk_protect(fd, self->dst, self->page, 0));
	close(fd);
}

/* Overlap. */

/* Down, each page goes where another has just left. */
TEST_F_TIMEOUT(move, overlap_downwards, LIMIT)
{
	static const unsigned int by[] = { 1, 5, 15, 16, 17, 40, 127 };
	unsigned int i;

	if (!self->one)
		SKIP(return, "one mapping only");
	for (i = 0; i < ARRAY_SIZE(by); i++) {
		unsigned int n = by[i];

		ASSERT_EQ(0, restore(self));
		/* Make room: all pages n further up than they end up. */
		UK_ASSERT_FILL(0, self->len,
			       uk_move(self->fd, self->dst, self->src,
				       self->len, 0));
		UK_ASSERT_FILL(0, self->len,
			       uk_move(self->fd, self->dst - n * self->page,
				       self->dst, self->len, 0));
		EXPECT_TRUE(same(self, self->dst - n * self->page, 0, PAGES));
		EXPECT_TRUE(gone(self, self->dst + self->len - n * self->page,
				 n));
	}
}

/* Up, the first finds its place taken. */
TEST_F_TIMEOUT(move, overlap_upwards, LIMIT)
{
	static const unsigned int by[] = { 0, 1, 5, 15, 16, 17, 40, 127 };
	unsigned int i, k;

	if (!self->one)
		SKIP(return, "one mapping only");
	for (i = 0; i < ARRAY_SIZE(by); i++) {
		unsigned int n = by[i], rounds;

		ASSERT_EQ(0, restore(self));
		EXPECT_REFUSED(-EEXIST, uk_move(self->fd, src(self, n),
						self->src, self->len, 0));
		EXPECT_REFUSED(-EEXIST, uk_move(self->fd, src(self, n),
						self->src, self->len, HOLES));
		EXPECT_TRUE(stayed(self, 0, PAGES));
		if (!n)
			continue;

		/* Unless it is a hole: then it is moved again and again. */
		rounds = PAGES / n;
		ASSERT_EQ(0, madvise(src(self, n), self->len, MADV_DONTNEED));
		UK_EXPECT_FILL(0, rounds * n * self->page,
			       uk_move(self->fd, src(self, n), self->src,
				       rounds * n * self->page, HOLES));
		for (k = 0; k < n; k++)
			EXPECT_TRUE(same(self, src(self, rounds * n + k), k,
					 1));
		EXPECT_TRUE(gone(self, self->src, rounds * n));
	}
}

/* Events. */

static long drop_pages(void *arg)
{
	return madvise(arg, 4 * getpagesize(), MADV_DONTNEED) ? -errno : 0;
}

/* An unread event about the destination, and one about the source. */
TEST_F_TIMEOUT(move, unread_event, LIMIT)
{
	int i;

	for (i = 0; i < 2; i++) {
		long long end = uk_now() + UK_SOON;
		char *p = i ? dst(self, 30) : src(self, 30);
		struct uk_fill res;
		struct uffd_msg msg;
		struct uk_thread t;

		ASSERT_EQ(0, refit(self, 0, UFFD_FEATURE_EVENT_REMOVE,
				   MISSING));
		if (!self->one)
			ASSERT_EQ(0, uk_register(self->fd, self->src,
						 self->len));
		ASSERT_EQ(0, uk_start(&t, drop_pages, p));
		ASSERT_TRUE(uk_asleep(t.tid));
		EXPECT_REFUSED(-EAGAIN, move(self, 20, 20, HOLES));
		EXPECT_TRUE(same(self, src(self, 20), 20, 10));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, p,
				       p + 4 * self->page));
		/* Before the series, it must also have been dealt with. */
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		do {
			res = move(self, 20, 20, HOLES);
		} while (res.err == -EAGAIN && uk_now() < end);
		UK_EXPECT_FILL(0, 20 * self->page, res);
		ASSERT_EQ(0, refit(self, 0, 0, MISSING));
		if (!self->one)
			uk_unregister(self->fd, self->src, self->len);
		ASSERT_EQ(0, restore(self));
	}
}

/* Under way. */

#define TOUCHERS	2
#define TOUCHED		48

struct toucher {
	struct move_test *self;
	unsigned int nr;
	bool stop;
	unsigned long count[TOUCHED];
};

/* Adds to its own word of each page, at the one place where they should be. */
static long touch(void *arg)
{
	struct toucher *c = arg;
	unsigned int i = c->nr * 7;

	while (!uk_get(&c->stop)) {
		unsigned long *p = (unsigned long *)src(c->self, i) + c->nr;

		uk_set(p, uk_get(p) + 1);
		c->count[i]++;
		i = (i + 1) % TOUCHED;
	}
	return 0;
}

/* Pages go away and come back while they are used: nothing is ever lost. */
TEST_F_TIMEOUT(move, while_others_use_the_pages, LIMIT + 600)
{
	const char *text = getenv("UFFD_SECONDS");
	long long end = uk_now() + (text ? atol(text) * 1000 : 300);
	struct toucher c[TOUCHERS] = {};
	struct uk_thread t[TOUCHERS];
	size_t len = TOUCHED * self->page;
	unsigned int i, k, rounds = 0;
	struct uffd_msg msg[16];

	if (!self->one)
		ASSERT_EQ(0, uk_register(self->fd, self->src, self->len));
	memset(self->src, 0, len);
	for (i = 0; i < TOUCHERS; i++) {
		c[i].self = self;
		c[i].nr = i;
		ASSERT_EQ(0, uk_start(&t[i], touch, &c[i]));
	}
	do {
		UK_ASSERT_FILL(0, len, uk_move(self->fd, self->dst, self->src,
					       len, 0));
		UK_ASSERT_FILL(0, len, uk_move(self->fd, self->src, self->dst,
					       len, 0));
		while (uk_read(self->fd, msg, 16) > 0)
			;
		rounds++;
		/* On one CPU, the others must get to run at times. */
		sched_yield();
	} while (uk_now() < end);
	for (i = 0; i < TOUCHERS; i++)
		uk_set(&c[i].stop, true);
	ASSERT_TRUE(uk_join_all(t, TOUCHERS));
	for (i = 0; i < TOUCHERS; i++) {
		for (k = 0; k < TOUCHED; k++)
			ASSERT_EQ(c[i].count[k],
				  ((unsigned long *)src(self, k))[i]);
	}
	TH_LOG("%u rounds, %lu touches", rounds, c[0].count[0] * TOUCHED);
}

static long write_on(void *arg)
{
	struct toucher *c = arg;
	unsigned long n = 0;
	unsigned int i;

	while (!uk_get(&c->stop)) {
		n++;
		for (i = 0; i < TOUCHED; i++)
			uk_set((unsigned long *)src(c->self, i), n);
		uk_set(&c->count[0], n);
	}
	return 0;
}

/* Who had the source at hand when it was moved does not reach the page through it. */
TEST_F_TIMEOUT(move, nobody_reaches_the_source, LIMIT)
{
	struct toucher c = { .self = self };
	size_t len = TOUCHED * self->page;
	struct uk_thread t;
	unsigned int i;
	char *was;

	if (self->one)
		SKIP(return, "the source is registered");
	was = uk_buffer(len);
	ASSERT_NE(NULL, was);
	ASSERT_EQ(0, uk_start(&t, write_on, &c));
	for (i = 0; i < 20; i++) {
		unsigned long n = uk_get(&c.count[0]);

		while (uk_get(&c.count[0]) < n + 2)
			sched_yield();
		UK_ASSERT_FILL(0, len, move(self, 0, TOUCHED, 0));
		memcpy(was, self->dst, len);
		n = uk_get(&c.count[0]);
		while (uk_get(&c.count[0]) < n + 2)
			sched_yield();
		ASSERT_EQ(0, memcmp(was, self->dst, len));
		ASSERT_EQ(0, madvise(self->dst, len, MADV_DONTNEED));
	}
	uk_set(&c.stop, true);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
}

/* Huge pages. */

/* FIXTURE_DATA(huge), by a name that reads well in a prototype. */
#define huge_test _test_data_huge

FIXTURE(huge)
{
	size_t page;
	size_t huge;
	size_t len;		/* three huge pages */
	char *src;
	char *dst;
	char *buf;
	int fd;
};

FIXTURE_SETUP(huge)
{
	int err;

	self->fd = -1;
	if (!(uk_offered() & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	self->page = getpagesize();
	self->huge = uk_huge_size();
	self->len = 3 * self->huge;
	if (self->huge > 32 << 20)
		SKIP(return, "huge pages are too huge here");
	self->src = uk_reserve(8 * self->huge, self->huge);
	ASSERT_NE(NULL, self->src);
	self->dst = self->src + 4 * self->huge;
	self->buf = uk_buffer(self->len);
	ASSERT_NE(NULL, self->buf);
	uk_paint(self->buf, self->len, 3);
	ASSERT_EQ(0, mprotect(self->src, self->len, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, mprotect(self->dst, self->len, PROT_READ | PROT_WRITE));
	madvise(self->src, self->len, MADV_HUGEPAGE);
	madvise(self->dst, self->len, MADV_HUGEPAGE);
	memcpy(self->src, self->buf, self->len);
	if (uk_huge(self->src, self->len) != (long)(self->len / self->page))
		SKIP(return, "no huge page was to be had");
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	err = self->fd < 0 ? self->fd : uk_register(self->fd, self->dst,
						    self->len);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(huge)
{
	close(self->fd);
}

/* The range went from and to these offsets, and all else is as it was. */
static bool went(struct huge_test *self, size_t from, size_t to, size_t len)
{
	size_t rest = self->len - from - len;

	return !memcmp(self->dst + to, self->buf + from, len) &&
	       !memcmp(self->src, self->buf, from) &&
	       !memcmp(self->src + from + len, self->buf + from + len, rest) &&
	       !uk_pages(self->src + from, len, UK_PM_PRESENT) &&
	       uk_pages(self->dst, self->len, UK_PM_PRESENT) ==
	       (long)(len / self->page);
}

TEST_F_TIMEOUT(huge, whole, LIMIT)
{
	size_t pages = self->huge / self->page;

	UK_EXPECT_FILL(0, self->huge, uk_move(self->fd, self->dst, self->src,
					      self->huge, 0));
	EXPECT_EQ(pages, uk_huge(self->dst, self->len));
	EXPECT_EQ(2 * pages, uk_huge(self->src, self->len));
	EXPECT_TRUE(went(self, 0, 0, self->huge));
	UK_EXPECT_FILL(0, 2 * self->huge,
		       uk_move(self->fd, self->dst + self->huge,
			       self->src + self->huge, 2 * self->huge, 0));
	EXPECT_EQ(3 * pages, uk_huge(self->dst, self->len));
	EXPECT_TRUE(went(self, 0, 0, self->len));
	memset(self->dst, 1, self->len);
	EXPECT_EQ(3 * pages, uk_huge(self->dst, self->len));
}

TEST_F_TIMEOUT(huge, parts, LIMIT)
{
	size_t from = 3 * self->page, len = 100 * self->page;

	UK_EXPECT_FILL(0, len, uk_move(self->fd, self->dst + from,
				       self->src + from, len, 0));
	EXPECT_TRUE(went(self, from, from, len));
	EXPECT_EQ(2 * self->huge / self->page, uk_huge(self->src, self->len));
}

TEST_F_TIMEOUT(huge, one_page_of_each, LIMIT)
{
	size_t i;

	for (i = 0; i < 3; i++) {
		size_t at = i * self->huge + (i * 255 + 1) * self->page;

		UK_EXPECT_FILL(0, self->page,
			       uk_move(self->fd, self->dst + i * self->page,
				       self->src + at, self->page, 0));
		EXPECT_EQ(0, memcmp(self->dst + i * self->page, self->buf + at,
				    self->page));
		memset(self->buf + at, 0, self->page);
	}
	EXPECT_EQ(0, memcmp(self->src, self->buf, self->len));
}

TEST_F_TIMEOUT(huge, across_the_edge, LIMIT)
{
	size_t from = self->huge / 2;

	UK_EXPECT_FILL(0, 2 * self->huge,
		       uk_move(self->fd, self->dst + from, self->src + from,
			       2 * self->huge, 0));
	EXPECT_TRUE(went(self, from, from, 2 * self->huge));
	/* The one in the middle had no reason to be split. */
	EXPECT_EQ(self->huge / self->page, uk_huge(self->dst, self->len));
}

TEST_F_TIMEOUT(huge, to_an_odd_place, LIMIT)
{
	UK_EXPECT_FILL(0, 2 * self->huge,
		       uk_move(self->fd, self->dst + self->page, self->src,
			       2 * self->huge, 0));
	EXPECT_TRUE(went(self, 0, self->page, 2 * self->huge));
	EXPECT_EQ(0, uk_huge(self->dst, self->len));
}

/* Mapped by small entries, though it is one folio still. */
TEST_F_TIMEOUT(huge, split_mapping, LIMIT)
{
	ASSERT_EQ(0, mprotect(self->src, self->page, PROT_READ));
	ASSERT_EQ(0, mprotect(self->src, self->page, PROT_READ | PROT_WRITE));
	EXPECT_EQ(2 * self->huge / self->page, uk_huge(self->src, self->len));
	UK_EXPECT_FILL(0, self->len, uk_move(self->fd, self->dst, self->src,
					     self->len, 0));
	EXPECT_TRUE(went(self, 0, 0, self->len));
}

TEST_F_TIMEOUT(huge, hole_in_it, LIMIT)
{
	size_t at = self->huge + 7 * self->page;

	ASSERT_EQ(0, madvise(self->src + at, self->page, MADV_DONTNEED));
	UK_EXPECT_FILL(-EAGAIN, at, uk_move(self->fd, self->dst, self->src,
					    self->len, 0));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_move(self->fd, self->dst + at, self->src + at,
			       self->page, 0));
	UK_EXPECT_FILL(0, self->len - at,
		       uk_move(self->fd, self->dst + at, self->src + at,
			       self->len - at, HOLES));
	EXPECT_EQ(0, uk_pages(self->dst + at, self->page, UK_PM_PRESENT));
	EXPECT_EQ(0, memcmp(self->dst, self->buf, at));
	at += self->page;
	EXPECT_EQ(0, memcmp(self->dst + at, self->buf + at, self->len - at));
}

/* A whole huge page of nothing, and one that there is no page table for. */
TEST_F_TIMEOUT(huge, holes_of_that_size, LIMIT)
{
	ASSERT_EQ(0, madvise(self->src, 2 * self->huge, MADV_DONTNEED));
	UK_EXPECT_FILL(-ENOENT, -ENOENT, uk_move(self->fd, self->dst, self->src,
						 self->len, 0));
	UK_EXPECT_FILL(0, self->len, uk_move(self->fd, self->dst, self->src,
					     self->len, HOLES));
	EXPECT_EQ(self->huge / self->page,
		  uk_pages(self->dst, self->len, UK_PM_PRESENT));
	EXPECT_EQ(0, memcmp(self->dst + 2 * self->huge,
			    self->buf + 2 * self->huge, self->huge));
}

TEST_F_TIMEOUT(huge, page_at_the_destination, LIMIT)
{
	size_t at = self->huge + 7 * self->page;

	UK_ASSERT_FILL(0, self->page, uk_copy(self->fd, self->dst + at,
					      self->buf, self->page, 0));
	UK_EXPECT_FILL(-EAGAIN, at, uk_move(self->fd, self->dst, self->src,
					    self->len, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_move(self->fd, self->dst + at, self->src + at,
			       self->page, 0));
	EXPECT_EQ(0, memcmp(self->dst, self->buf, at));
	EXPECT_EQ(0, memcmp(self->dst + at, self->buf, self->page));
	EXPECT_EQ(0, memcmp(self->src + at, self->buf + at, self->len - at));

	/* And where that is a huge page itself. */
	UK_EXPECT_FILL(0, self->huge,
		       uk_move(self->fd, self->dst + 2 * self->huge,
			       self->src + 2 * self->huge, self->huge, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_move(self->fd, self->dst + 2 * self->huge,
			       self->src + self->huge, self->huge, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_move(self->fd, self->dst + 2 * self->huge,
			       self->src + self->huge + 8 * self->page,
			       self->page, 0));
}

TEST_F_TIMEOUT(huge, shared_with_a_child, LIMIT)
{
	pid_t pid = uk_spawn(linger, NULL);

	ASSERT_LT(0, pid);
	UK_EXPECT_FILL(-EBUSY, -EBUSY, uk_move(self->fd, self->dst, self->src,
					       self->len, 0));
	UK_EXPECT_FILL(-EBUSY, -EBUSY,
		       uk_move(self->fd, self->dst, self->src + self->page,
			       self->page, 0));
	EXPECT_EQ(0, memcmp(self->src, self->buf, self->len));
	kill(pid, SIGKILL);
	uk_reap(pid, UK_SOON);
}

/* To move a part of it, kernels before the series try for ever. */
TEST_F_TIMEOUT(huge, pinned, LIMIT)
{
	int ring = pin(self->src + self->huge + 9 * self->page, self->page);

	if (ring < 0)
		SKIP(return, "no io_uring to pin a page with");
	UK_EXPECT_FILL(-EAGAIN, self->huge,
		       uk_move(self->fd, self->dst, self->src, self->len, 0));
	UK_EXPECT_FILL(-EBUSY, -EBUSY,
		       uk_move(self->fd, self->dst + self->huge,
			       self->src + self->huge, 2 * self->huge, 0));
	EXPECT_TRUE(went(self, 0, 0, self->huge));
	unpin(ring);
}

TEST_F_TIMEOUT(huge, zero_page, LIMIT)
{
	ASSERT_EQ(0, madvise(self->src, 2 * self->huge, MADV_DONTNEED));
	EXPECT_EQ(0, uk_peek(self->src));
	EXPECT_EQ(0, uk_peek(self->src + self->huge));
	UK_EXPECT_FILL(0, self->huge, uk_move(self->fd, self->dst, self->src,
					      self->huge, HOLES));
	/* In part. */
	UK_EXPECT_FILL(0, self->huge / 2,
		       uk_move(self->fd, self->dst + self->huge,
			       self->src + self->huge, self->huge / 2, HOLES));
	if (uk_pages(self->dst, self->huge, UK_PM_PRESENT))
		EXPECT_TRUE(uk_all_zero(self->dst, self->huge));
}

/* One range after the other waited for. */
TEST_F_TIMEOUT(huge, wakes_all_of_it, LIMIT)
{
	struct uk_thread t[3];
	size_t i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, uk_start(&t[i], uk_peek, self->dst +
				      i * (self->huge / 2 - self->page)));
	ASSERT_TRUE(uk_parked(self->fd, 3, 3));
	UK_EXPECT_FILL(0, self->huge, uk_move(self->fd, self->dst, self->src,
					      self->huge, 0));
	EXPECT_TRUE(uk_join_all(t, 3));
	EXPECT_TRUE(went(self, 0, 0, self->huge));
}

/* A huge page that a pipe refers to cannot be split: that is told, in the end. */
TEST_F_TIMEOUT(huge, part_of_a_page_in_a_pipe, LIMIT)
{
	struct iovec iov = { .iov_base = self->src, .iov_len = 64 };
	struct uk_fill res;
	int p[2];

	if (!getenv("UFFD_LARGE"))
		SKIP(return, "kernels up to 7.3 try for ever");
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(64, vmsplice(p[1], &iov, 1, 0));
	res = uk_move(self->fd, self->dst, self->src, self->page, 0);
	EXPECT_EQ(-EBUSY, res.err);
	EXPECT_EQ(-EBUSY, res.out);
	/* It is all there, and can be moved when the pipe is gone. */
	EXPECT_EQ(0, memcmp(self->src, self->buf, self->len));
	close(p[0]);
	close(p[1]);
	res = uk_move(self->fd, self->dst, self->src, self->page, 0);
	EXPECT_EQ(0, res.err);
	EXPECT_EQ(0, memcmp(self->dst, self->buf, self->page));
}

/*
 * mremap() takes the locks of two page tables from old to new. Other mappings that
 * these tables serve may be moved between by UFFDIO_MOVE meanwhile: 16 pages there
 * and back, in the same two tables, both ways.
 */
#define PART		16

struct shuttle {
	char *here;
	char *there;
	size_t len;
	bool stop;
	long trips;
};

static long shuttle(void *arg)
{
	struct shuttle *s = arg;
	char *from = s->here, *to = s->there, *p;
	long n = 0;

	while (!uk_get(&s->stop)) {
		p = mremap(from, s->len, s->len, MREMAP_MAYMOVE | MREMAP_FIXED,
			   to);
		if (p != to)
			return -errno;
		to = from;
		from = p;
		uk_set(&s->trips, ++n);
	}
	return n;
}

TEST_F_TIMEOUT(huge, pages_beside_a_mapping_that_moves, LIMIT)
{
	size_t part = PART * self->page;
	char *low = self->src + part, *high = self->dst + part;
	struct shuttle s = {
		.here = self->src + 4 * part,
		.there = self->dst + 4 * part,
		.len = part,
	};
	long long until = uk_now() + 3000, last = until + 60000;
	struct uk_thread t;
	long moves = 0;

	if (!getenv("UFFD_LARGE"))
		SKIP(return, "kernels with this fault hang for good");
	/* Everything small, and room for the mapping on the other side. */
	madvise(self->src, self->len, MADV_NOHUGEPAGE);
	madvise(self->dst, self->len, MADV_NOHUGEPAGE);
	ASSERT_EQ(0, madvise(self->src, self->len, MADV_DONTNEED));
	ASSERT_EQ(0, munmap(s.there, part));
	memcpy(self->src, self->buf, 8 * part);
	ASSERT_EQ(0, uk_register(self->fd, low, part));
	UK_ASSERT_FILL(0, self->page, uk_copy(self->fd, self->dst, self->buf,
					      self->page, 0));
	ASSERT_EQ(0, uk_start(&t, shuttle, &s));
	/* Longer where that is slow. */
	while (uk_now() < until ||
	       (uk_get(&s.trips) <= 100 && uk_now() < last)) {
		UK_ASSERT_FILL(0, part, uk_move(self->fd, high, low, part, 0));
		UK_ASSERT_FILL(0, part, uk_move(self->fd, low, high, part, 0));
		moves += 2;
	}
	uk_set(&s.stop, true);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_LT(100, t.ret);
	EXPECT_EQ(0, memcmp(low, self->buf + part, part));
	TH_LOG("%ld moves, %ld mremaps", moves, t.ret);
}

TEST_HARNESS_MAIN
