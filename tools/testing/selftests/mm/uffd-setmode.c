// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: WP_ASYNC, switched on and off while the descriptor is in use.
 *
 * With UFFD_FEATURE_WP_SET_MODE, UFFDIO_SET_MODE decides whether a write to a
 * protected page is noted or told. What each of the two is like is in uffd-protect;
 * here is what happens when it changes: to pages, to threads that sleep on a fault
 * or are on their way to, to PAGEMAP_SCAN, children and other descriptors. And that
 * without the feature all of it is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <linux/fs.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		6
#define ALL		((1 << UNITS) - 1)
#define LIMIT		60

#define WP		UFFDIO_REGISTER_MODE_WP
#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define PROTECT		UFFDIO_WRITEPROTECT_MODE_WP

#define SWITCH		UFFD_FEATURE_WP_SET_MODE
#define ASYNC		UFFD_FEATURE_WP_ASYNC

/* What a fault says that is due to protection. */
#define WP_FAULT	(UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE)

static int note(int fd)
{
	return uk_set_mode(fd, ASYNC, 0);
}

static int tell(int fd)
{
	return uk_set_mode(fd, 0, ASYNC);
}

/* 1 if writes are noted, 0 if they are told, as fdinfo has it; or -errno. */
static int is_noting(int fd)
{
	struct uk_info info;
	int err = uk_fdinfo(fd, &info);

	return err ? err : !!(info.features & ASYNC);
}

/* FIXTURE_DATA(setmode), by a name that reads well in a prototype. */
#define setmode_test _test_data_setmode

FIXTURE(setmode)
{
	struct uk_mem m;
	size_t unit;
	int fd;
	int pagemap;
};

FIXTURE_VARIANT(setmode)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(setmode, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(setmode, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(setmode, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(setmode, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(setmode, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(setmode, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

static char *at(struct setmode_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

/* Of what nobody has written to. */
static bool holds(struct setmode_test *self, unsigned int unit)
{
	return uk_painted(at(self, unit), self->unit, unit);
}

/* Another descriptor for the same memory; the old one takes all it did along. */
static int refit(struct setmode_test *self, int flags, __u64 features, __u64 mode)
{
	if (self->fd >= 0)
		close(self->fd);
	self->fd = uk_new(flags | O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register_mode(self->fd, self->m.area, self->m.len, mode, NULL);
}

/*
 * Units 0 to UNITS - 1 are there, painted with their numbers, not protected; writes
 * are told.
 */
FIXTURE_SETUP(setmode)
{
	const char *why;
	unsigned int i;
	int err;

	self->fd = -1;
	if (!(uk_offered() & SWITCH))
		SKIP(return, "no WP_SET_MODE on this kernel");
	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	for (i = 0; i < UNITS; i++)
		uk_paint(at(self, i), self->unit, i);
	err = refit(self, 0, SWITCH, WP);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
	self->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->pagemap);
}

FIXTURE_TEARDOWN(setmode)
{
	close(self->fd);
	close(self->pagemap);
	uk_swap_off();
}

static int wp(struct setmode_test *self, unsigned int unit, unsigned int count)
{
	return uk_protect(self->fd, at(self, unit), count * self->unit, PROTECT);
}

static int unwp(struct setmode_test *self, unsigned int unit, unsigned int count)
{
	return uk_protect(self->fd, at(self, unit), count * self->unit, 0);
}

/*
 * Bit i of the result says that some of unit i is not protected; with @flags of
 * PM_SCAN_WP_MATCHING it is by that.
 */
static long written(struct setmode_test *self, __u64 flags)
{
	struct page_region out[UNITS * 2];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.flags = flags,
		.start = (unsigned long)at(self, 0),
		.end = (unsigned long)at(self, UNITS),
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
			set |= 1 << (q - self->m.area) / self->unit;
	}
	return set;
}

/* A write, and what was told of it before it was over, or if it waits. */
static __u64 write_to(struct setmode_test *self, struct uk_thread *t, char *addr)
{
	if (uk_start(t, uk_poke, addr))
		return UK_STRANGE;
	return uk_fault_flags(self->fd, &self->m, t, addr);
}

/* One that goes through. */
static bool writes(struct setmode_test *self, char *addr)
{
	struct uk_thread t;

	return write_to(self, &t, addr) == UK_NO_FAULT && uk_join(&t, UK_SOON) &&
	       (unsigned char)*addr == 0xa5;
}

/* One that waits until the unit is not protected any more. */
static bool is_told(struct setmode_test *self, unsigned int unit)
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

/* Arguments. */

TEST_F_TIMEOUT(setmode, arguments, LIMIT)
{
	int noting, bit;

	for (noting = 0; noting < 2; noting++) {
		EXPECT_EQ(0, noting ? note(self->fd) : tell(self->fd));
		EXPECT_EQ(0, noting ? note(self->fd) : tell(self->fd));
		EXPECT_EQ(0, uk_set_mode(self->fd, 0, 0));
		EXPECT_EQ(noting, is_noting(self->fd));
		/* What is wrong switches nothing. */
		EXPECT_EQ(-EINVAL, uk_set_mode(self->fd, ASYNC, ASYNC));
		for (bit = 0; bit < 64; bit++) {
			__u64 on = noting ? 0 : ASYNC, off = noting ? ASYNC : 0;

			if (UK_BIT(bit) == ASYNC)
				continue;
			EXPECT_EQ(-EINVAL,
				  uk_set_mode(self->fd, UK_BIT(bit) | on, off));
			if (UK_BIT(bit) == UFFD_FEATURE_RWP_ASYNC)
				continue;
			EXPECT_EQ(-EINVAL,
				  uk_set_mode(self->fd, on, UK_BIT(bit) | off));
		}
		EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_SET_MODE, NULL));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_SET_MODE, UK_KERNEL_SPACE));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(noting, is_noting(self->fd));
	}
}

/* The argument is read, not written, and may lie at the end of what is mapped. */
TEST_F_TIMEOUT(setmode, argument_is_read_only, LIMIT)
{
	size_t page = getpagesize();
	char *p = uk_buffer(2 * page);
	struct uffdio_set_mode *arg = (void *)(p + page - sizeof(*arg));

	ASSERT_NE(NULL, p);
	arg->enable = ASYNC;
	ASSERT_EQ(0, mprotect(p, page, PROT_READ));
	ASSERT_EQ(0, munmap(p + page, page));
	EXPECT_EQ(0, ioctl(self->fd, UFFDIO_SET_MODE, arg));
	EXPECT_EQ(1, is_noting(self->fd));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_SET_MODE, (char *)arg + 1));
	EXPECT_EQ(EFAULT, errno);
}

/* As for any descriptor of mainline's; what is refused changes nothing. */
TEST_F_TIMEOUT(setmode, not_without_the_feature, LIMIT)
{
	static const __u64 features[] = {
		0, ASYNC, UFFD_FEATURE_WP_UNPOPULATED,
		UFFD_FEATURE_RWP, UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC,
		UFFD_FEATURE_EXCHANGE,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(features); i++) {
		bool noting = features[i] & ASYNC;

		if (features[i] & ~uk_offered())
			continue;
		ASSERT_EQ(0, refit(self, 0, features[i], WP));
		EXPECT_EQ(-EINVAL, note(self->fd));
		EXPECT_EQ(-EINVAL, tell(self->fd));
		EXPECT_EQ(-EINVAL, uk_set_mode(self->fd, 0, ASYNC |
					       UFFD_FEATURE_RWP_ASYNC));
		EXPECT_EQ(0, uk_set_mode(self->fd, 0, 0));
		EXPECT_EQ(noting, is_noting(self->fd));
		ASSERT_EQ(0, wp(self, 1, 1));
		EXPECT_TRUE(noting ? writes(self, at(self, 1)) :
				     is_told(self, 1));
	}
}

TEST_F_TIMEOUT(setmode, as_it_begins, LIMIT)
{
	struct uk_info info;

	EXPECT_EQ(0, is_noting(self->fd));
	ASSERT_EQ(0, wp(self, 0, UNITS));
	EXPECT_TRUE(is_told(self, 1));

	ASSERT_EQ(0, refit(self, 0, SWITCH | ASYNC, WP));
	EXPECT_EQ(1, is_noting(self->fd));
	ASSERT_EQ(0, wp(self, 0, UNITS));
	EXPECT_TRUE(writes(self, at(self, 1)));

	/* In either mode, and it is nobody's to take away. */
	ASSERT_EQ(0, tell(self->fd));
	ASSERT_EQ(0, uk_fdinfo(self->fd, &info));
	EXPECT_TRUE(info.features & UFFD_FEATURE_WP_UNPOPULATED);
	EXPECT_EQ(-EINVAL, uk_set_mode(self->fd, 0, UFFD_FEATURE_WP_UNPOPULATED));
}

/* With what is about the other mode, in one call. */
TEST_F_TIMEOUT(setmode, with_rwp, LIMIT)
{
	const __u64 both = ASYNC | UFFD_FEATURE_RWP_ASYNC;
	struct uk_info info;

	if (!(uk_offered() & UFFD_FEATURE_RWP))
		SKIP(return, "no tracking of accesses on this kernel");
	ASSERT_EQ(0, refit(self, 0, SWITCH | UFFD_FEATURE_RWP, WP));
	ASSERT_EQ(0, uk_set_mode(self->fd, both, 0));
	ASSERT_EQ(0, uk_fdinfo(self->fd, &info));
	EXPECT_EQ(both, info.features & both);
	ASSERT_EQ(0, uk_set_mode(self->fd, ASYNC, UFFD_FEATURE_RWP_ASYNC));
	ASSERT_EQ(0, uk_fdinfo(self->fd, &info));
	EXPECT_EQ(ASYNC, info.features & both);
	ASSERT_EQ(0, uk_set_mode(self->fd, UFFD_FEATURE_RWP_ASYNC, ASYNC));
	ASSERT_EQ(0, uk_fdinfo(self->fd, &info));
	EXPECT_EQ(UFFD_FEATURE_RWP_ASYNC, info.features & both);
	ASSERT_EQ(0, wp(self, 1, 1));
	EXPECT_TRUE(is_told(self, 1));
}

/* Pages. */

TEST_F_TIMEOUT(setmode, back_and_forth, LIMIT)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, note(self->fd));
		ASSERT_EQ(0, wp(self, 0, UNITS));
		EXPECT_TRUE(writes(self, at(self, 1) + i));
		EXPECT_EQ(1 << 1, written(self, 0));
		/* What has been protected before is told of from here on. */
		ASSERT_EQ(0, tell(self->fd));
		EXPECT_EQ(1 << 1, written(self, 0));
		EXPECT_TRUE(writes(self, at(self, 1) + i));
		EXPECT_TRUE(is_told(self, 2));
		EXPECT_TRUE(is_told(self, 5));
		EXPECT_EQ(1 << 1 | 1 << 2 | 1 << 5, written(self, 0));
		/* And the other way round. */
		ASSERT_EQ(0, note(self->fd));
		EXPECT_TRUE(writes(self, at(self, 4) + i));
		EXPECT_EQ(1 << 1 | 1 << 2 | 1 << 4 | 1 << 5, written(self, 0));
	}
	EXPECT_TRUE(holds(self, 0));
	EXPECT_TRUE(holds(self, 3));
}

/* Of what is absent both modes know the same, whichever it was protected in. */
TEST_F_TIMEOUT(setmode, holes, LIMIT)
{
	int noting;

	for (noting = 0; noting < 2; noting++) {
		ASSERT_EQ(0, noting ? note(self->fd) : tell(self->fd));
		ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), 4 * self->unit));
		ASSERT_EQ(0, wp(self, 0, UNITS));
		EXPECT_EQ(0, written(self, 0));
		ASSERT_EQ(0, tell(self->fd));
		EXPECT_TRUE(is_told(self, 1));
		EXPECT_EQ(0, uk_peek(at(self, 2)));
		ASSERT_EQ(0, note(self->fd));
		EXPECT_TRUE(writes(self, at(self, 2)));
		EXPECT_TRUE(writes(self, at(self, 3)));
		EXPECT_EQ(1 << 1 | 1 << 2 | 1 << 3, written(self, 0));
		ASSERT_EQ(0, tell(self->fd));
		EXPECT_TRUE(is_told(self, 4));
		EXPECT_TRUE(uk_all_zero(at(self, 4) + 12, self->unit - 12));
	}
}

/* PAGEMAP_SCAN protects only what it may, and what it has protected is. */
TEST_F_TIMEOUT(setmode, scanning, LIMIT)
{
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 3), self->unit));
	EXPECT_EQ(-EPERM, written(self, PM_SCAN_CHECK_WPASYNC));
	EXPECT_EQ(-EPERM, written(self, PM_SCAN_WP_MATCHING |
				  PM_SCAN_CHECK_WPASYNC));
	EXPECT_EQ(0, written(self, PM_SCAN_WP_MATCHING));
	EXPECT_EQ(ALL, written(self, 0) | 1 << 3);
	EXPECT_EQ(0, uk_pages(self->m.area, self->m.len, UK_PM_WP));

	ASSERT_EQ(0, note(self->fd));
	EXPECT_EQ(ALL, written(self, PM_SCAN_WP_MATCHING |
			       PM_SCAN_CHECK_WPASYNC) | 1 << 3);
	EXPECT_EQ(0, written(self, 0));
	EXPECT_TRUE(writes(self, at(self, 0)));

	/* The last round. */
	ASSERT_EQ(0, tell(self->fd));
	EXPECT_EQ(-EPERM, written(self, PM_SCAN_CHECK_WPASYNC));
	EXPECT_EQ(1 << 0, written(self, 0));
	ASSERT_EQ(0, wp(self, 0, 1));
	EXPECT_EQ(0, written(self, 0));
	EXPECT_TRUE(is_told(self, 0));
	EXPECT_TRUE(is_told(self, 1));
	/* Of hugetlb it does not see what is absent. */
	if (!uk_is_hugetlb(&self->m))
		EXPECT_TRUE(is_told(self, 3));
}

TEST_F_TIMEOUT(setmode, swapped, LIMIT)
{
	const char *why;

	if (uk_is_hugetlb(&self->m))
		SKIP(return, "hugetlb is not swapped");
	why = uk_swap_on(2 * self->m.len);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, note(self->fd));
	EXPECT_EQ(ALL, written(self, PM_SCAN_WP_MATCHING));
	ASSERT_TRUE(uk_swap_out(at(self, 0), UNITS * self->unit));
	ASSERT_EQ(0, tell(self->fd));
	EXPECT_TRUE(is_told(self, 1));
	ASSERT_TRUE(uk_swap_out(at(self, 0), UNITS * self->unit));
	ASSERT_EQ(0, note(self->fd));
	EXPECT_TRUE(writes(self, at(self, 3)));
	EXPECT_EQ(1 << 1 | 1 << 3, written(self, 0));
	EXPECT_TRUE(holds(self, 2));
}

/* One page of a huge page is what is noted, all of it what is told. */
TEST_F_TIMEOUT(setmode, huge_page, LIMIT)
{
	size_t huge = uk_huge_size();
	long pages = huge / self->unit;
	struct uk_thread t;

	if (variant->kind != UK_ANON)
		SKIP(return, "memory that may have huge pages only");
	if (uk_huge(self->m.area, huge) != pages)
		SKIP(return, "no huge page was to be had");
	ASSERT_EQ(0, note(self->fd));
	ASSERT_EQ(0, uk_protect(self->fd, self->m.area, self->m.len, PROTECT));
	ASSERT_EQ(0, tell(self->fd));
	EXPECT_EQ(WP_FAULT, write_to(self, &t, at(self, 3)));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(pages, uk_huge(self->m.area, huge));
	EXPECT_EQ(0, written(self, 0));

	/* Who sleeps before a huge page goes on with a small one. */
	ASSERT_EQ(0, note(self->fd));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(1 << 3, written(self, 0));
	EXPECT_EQ(pages - 1, uk_pages(self->m.area, huge, UK_PM_WP));
	ASSERT_EQ(0, tell(self->fd));
	EXPECT_TRUE(is_told(self, 2));
	EXPECT_TRUE(writes(self, at(self, 3)));
	EXPECT_EQ(pages - 2, uk_pages(self->m.area, huge, UK_PM_WP));
}

/* Threads that sleep. */

/* Whether their message has been read or not. */
TEST_F_TIMEOUT(setmode, wakes_those_who_wait, LIMIT)
{
	struct uk_thread t[3];
	struct uffd_msg msg;
	unsigned int i;

	ASSERT_EQ(0, wp(self, 0, UNITS));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, uk_start(&t[i], uk_poke, at(self, i)));
	ASSERT_TRUE(uk_parked(self->fd, 3, 3));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(uk_stays(&t[i]));
	/* What was so already wakes nobody. */
	ASSERT_EQ(0, tell(self->fd));
	ASSERT_EQ(0, uk_set_mode(self->fd, 0, 0));
	EXPECT_TRUE(uk_parked(self->fd, 2, 3));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	ASSERT_EQ(0, note(self->fd));
	EXPECT_TRUE(uk_join_all(t, 3));
	EXPECT_TRUE(uk_parked(self->fd, 0, 0));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(1 << 0 | 1 << 1 | 1 << 2, written(self, 0));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0xa5, uk_peek(at(self, i)));
	/* An answer that comes late finds nothing to do. */
	EXPECT_EQ(0, unwp(self, 0, 1));
	EXPECT_TRUE(holds(self, 3));
}

/* A missing page is not found by that. */
TEST_F_TIMEOUT(setmode, who_waits_for_something_else, LIMIT)
{
	char *src = uk_buffer(self->unit);
	struct uk_thread t;

	ASSERT_NE(NULL, src);
	ASSERT_EQ(0, refit(self, 0, SWITCH, WP | MISSING));
	ASSERT_EQ(0, uk_vacate(&self->m, at(self, 1), self->unit));
	ASSERT_EQ(0, wp(self, 0, UNITS));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_WRITE, write_to(self, &t, at(self, 1)));
	ASSERT_EQ(0, note(self->fd));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_WRITE,
		  uk_fault_flags(self->fd, &self->m, &t, at(self, 1)));
	EXPECT_TRUE(uk_stays(&t));
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, at(self, 1), src,
					      self->unit,
					      UFFDIO_COPY_MODE_WP));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(1 << 1, written(self, 0));
	ASSERT_EQ(0, tell(self->fd));
	EXPECT_TRUE(is_told(self, 2));
}

/* The kernel's own writes, on the same terms. */
TEST_F_TIMEOUT(setmode, writes_of_the_kernel, LIMIT)
{
	static long (*const fn[])(void *) = { uk_by_read, uk_by_vm_writev };
	struct uk_thread t;
	struct uk_access a;
	char out[8];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fn); i++) {
		ASSERT_EQ(0, tell(self->fd));
		ASSERT_EQ(0, wp(self, 0, UNITS));
		memcpy(out, "kernel!!", 8);
		a = (struct uk_access){ .addr = at(self, 1) + 64, .out = out };
		ASSERT_EQ(0, pipe(a.pipe));
		ASSERT_EQ(8, write(a.pipe[1], out, 8));
		ASSERT_EQ(0, uk_start(&t, fn[i], &a));
		EXPECT_EQ(WP_FAULT, uk_fault_flags(self->fd, &self->m, &t,
						   a.addr));
		EXPECT_TRUE(uk_stays(&t));
		ASSERT_EQ(0, note(self->fd));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		EXPECT_EQ(8, t.ret);
		EXPECT_EQ(0, memcmp(a.addr, "kernel!!", 8));
		EXPECT_EQ(1 << 1, written(self, 0));
		close(a.pipe[0]);
		close(a.pipe[1]);
	}
}

TEST_F_TIMEOUT(setmode, sigbus, LIMIT)
{
	void *where = NULL;
	int code = 0;

	ASSERT_EQ(0, refit(self, 0, SWITCH | ASYNC | UFFD_FEATURE_SIGBUS, WP));
	ASSERT_EQ(0, wp(self, 0, UNITS));
	EXPECT_EQ(0, uk_catch(uk_poke, at(self, 1), NULL, NULL));
	ASSERT_EQ(0, tell(self->fd));
	EXPECT_EQ(SIGBUS, uk_catch(uk_poke, at(self, 2), &where, &code));
	EXPECT_EQ(at(self, 2), (char *)where);
	EXPECT_EQ(BUS_ADRERR, code);
	EXPECT_EQ(1 << 1, written(self, 0));
	ASSERT_EQ(0, note(self->fd));
	EXPECT_EQ(0, uk_catch(uk_poke, at(self, 2), NULL, NULL));
	EXPECT_EQ(1 << 1 | 1 << 2, written(self, 0));
}

/* Signals. */

static int switched_by_signal = -1;
static int result_of_signal;

static void on_signal(int sig)
{
	(void)sig;
	result_of_signal = note(switched_by_signal);
}

/* The thread that waits switches itself: it is in no fault meanwhile. */
TEST_F_TIMEOUT(setmode, by_who_waits, LIMIT)
{
	struct sigaction act = { .sa_handler = on_signal };
	struct uk_thread t;

	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	ASSERT_EQ(0, wp(self, 0, UNITS));
	EXPECT_EQ(WP_FAULT, write_to(self, &t, at(self, 1)));
	EXPECT_TRUE(uk_stays(&t));
	switched_by_signal = self->fd;
	result_of_signal = 1;
	ASSERT_EQ(0, pthread_kill(t.id, SIGUSR1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, result_of_signal);
	EXPECT_EQ(1, is_noting(self->fd));
	EXPECT_EQ(1 << 1, written(self, 0));
	signal(SIGUSR1, SIG_DFL);
}

static void ignore(int sig)
{
	(void)sig;
}

TEST_F_TIMEOUT(setmode, signals_do_not_interrupt, LIMIT)
{
	struct itimerval every = { { 0, 500 }, { 0, 500 } }, never = {};
	struct sigaction act = { .sa_handler = ignore };
	long long end = uk_now() + 200;
	struct uk_thread t;
	unsigned int i;

	ASSERT_EQ(0, wp(self, 0, UNITS));
	ASSERT_EQ(WP_FAULT, write_to(self, &t, at(self, 1)));
	ASSERT_EQ(0, sigaction(SIGALRM, &act, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &every, NULL));
	for (i = 0; uk_now() < end; i++) {
		EXPECT_EQ(0, note(self->fd));
		EXPECT_EQ(1, is_noting(self->fd));
		EXPECT_EQ(0, tell(self->fd));
		EXPECT_EQ(0, is_noting(self->fd));
	}
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, NULL));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0xa5, uk_peek(at(self, 1)));
	TH_LOG("%u switches", 2 * i);
}

/* Events have no say, and nothing becomes of them. */
TEST_F_TIMEOUT(setmode, unread_event, LIMIT)
{
	struct uk_call call = {
		.nr = __NR_madvise,
		.arg = { (long)at(self, 1), self->unit, MADV_DONTNEED },
	};
	struct uffd_msg msg;
	struct uk_thread t;

	ASSERT_EQ(0, refit(self, 0, SWITCH | UFFD_FEATURE_EVENT_REMOVE, WP));
	ASSERT_EQ(0, uk_start(&t, uk_call, &call));
	ASSERT_TRUE(uk_asleep(t.tid));
	EXPECT_EQ(-EAGAIN, wp(self, 0, 3));
	EXPECT_EQ(0, note(self->fd));
	EXPECT_EQ(0, tell(self->fd));
	EXPECT_EQ(-EINVAL, uk_set_mode(self->fd, ASYNC, ASYNC));
	EXPECT_TRUE(uk_stays(&t));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, at(self, 1),
			       at(self, 2)));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
}

/* What else there is. */

struct forker {
	struct setmode_test *self;
	int sock[2];
};

/* Without a word to malloc() or stdio: see uk_spawn_by_thread(). */
static int writes_when_told(void *arg)
{
	struct forker *f = arg;
	int unit;
	char c;

	for (unit = 1; unit < 4; unit++) {
		if (read(f->sock[0], &c, 1) != 1)
			return 1;
		uk_poke(at(f->self, unit));
		if (write(f->sock[0], &c, 1) != 1)
			return 2;
	}
	return 0;
}

static long fork_it(void *arg)
{
	return uk_spawn_by_thread(writes_when_told, arg, 0);
}

/* Let the child write once more: is it told of, before it has? */
static __u64 childs_write(struct forker *f, int fd, unsigned int unit)
{
	long long end = uk_now() + UK_SOON;
	struct uffd_msg msg;
	char c = 'w';

	if (write(f->sock[1], &c, 1) != 1)
		return UK_STRANGE;
	while (uk_now() < end) {
		if (recv(f->sock[1], &c, 1, MSG_DONTWAIT) == 1)
			return UK_NO_FAULT;
		if (uk_read(fd, &msg, 1) == 1)
			return uk_is_fault(&msg, at(f->self, unit)) ?
			       msg.arg.pagefault.flags : UK_STRANGE;
		uk_sleep(1);
	}
	return UK_STRANGE;
}

/* It begins with what its parent has, and goes its own way. */
TEST_F_TIMEOUT(setmode, child_has_its_own, LIMIT)
{
	struct forker f = { .self = self };
	struct uffd_msg msg;
	struct uk_thread t;
	int child;
	char c;

	if (refit(self, 0, SWITCH | UFFD_FEATURE_EVENT_FORK, WP) == -EPERM)
		SKIP(return, "fork events need root");
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, f.sock));
	ASSERT_EQ(0, note(self->fd));
	ASSERT_EQ(0, wp(self, 0, UNITS));
	ASSERT_EQ(0, uk_start(&t, fork_it, &f));
	/* While it is under way; the child is a copy of what was. */
	ASSERT_TRUE(uk_asleep(t.tid));
	ASSERT_EQ(0, tell(self->fd));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_EQ(UFFD_EVENT_FORK, msg.event);
	child = msg.arg.fork.ufd;
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	ASSERT_LT(0, t.ret);
	EXPECT_EQ(1, is_noting(child));
	EXPECT_EQ(0, is_noting(self->fd));

	EXPECT_EQ(UK_NO_FAULT, childs_write(&f, child, 1));
	ASSERT_EQ(0, tell(child));
	ASSERT_EQ(0, note(self->fd));
	EXPECT_EQ(WP_FAULT, childs_write(&f, child, 2));
	ASSERT_EQ(0, note(child));
	ASSERT_EQ(1, recv(f.sock[1], &c, 1, 0));
	EXPECT_EQ(UK_NO_FAULT, childs_write(&f, child, 3));
	EXPECT_EQ(0, uk_reap(t.ret, UK_SOON));
	EXPECT_EQ(-ESRCH, tell(child));
	close(child);

	/* Here nothing has been written, if it is not the same memory. */
	EXPECT_EQ(0, written(self, 0));
	ASSERT_EQ(0, tell(self->fd));
	EXPECT_TRUE(is_told(self, 1));
}

static int child_writes(void *arg)
{
	struct setmode_test *self = arg;

	uk_poke(at(self, 1));
	return 0;
}

/* Without the event a child is nobody's concern, in whichever mode. */
TEST_F_TIMEOUT(setmode, child_without_event, LIMIT)
{
	ASSERT_EQ(0, wp(self, 0, UNITS));
	EXPECT_EQ(0, uk_in_child(child_writes, self));
	ASSERT_EQ(0, note(self->fd));
	EXPECT_EQ(0, uk_in_child(child_writes, self));
	EXPECT_EQ(0, written(self, 0));
	ASSERT_EQ(0, tell(self->fd));
	EXPECT_TRUE(is_told(self, 1));
}

/* Each descriptor of a process for itself. */
TEST_F_TIMEOUT(setmode, another_descriptor, LIMIT)
{
	int other = uk_new(O_CLOEXEC | O_NONBLOCK, SWITCH | ASYNC);
	struct uk_thread t;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 3), 3 * self->unit));
	ASSERT_EQ(0, uk_register_mode(other, at(self, 3), 3 * self->unit, WP,
				      NULL));
	ASSERT_EQ(0, wp(self, 0, 3));
	ASSERT_EQ(0, uk_protect(other, at(self, 3), 3 * self->unit, PROTECT));
	ASSERT_EQ(WP_FAULT, write_to(self, &t, at(self, 1)));
	ASSERT_EQ(0, tell(other));
	ASSERT_EQ(0, note(other));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_TRUE(writes(self, at(self, 3)));
	ASSERT_EQ(0, tell(other));
	ASSERT_EQ(0, note(self->fd));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	ASSERT_EQ(0, uk_start(&t, uk_poke, at(self, 4)));
	EXPECT_EQ(WP_FAULT, uk_fault_flags(other, &self->m, &t, at(self, 4)));
	/* That ends it as well. */
	close(other);
	EXPECT_TRUE(uk_join(&t, UK_SOON));
}

/* Memory that is registered later, and memory in many pieces. */
TEST_F_TIMEOUT(setmode, mappings, LIMIT)
{
	unsigned int i;

	ASSERT_EQ(0, note(self->fd));
	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	for (i = 0; i < UNITS; i += 2)
		ASSERT_EQ(0, uk_register_mode(self->fd, at(self, i), self->unit,
					      WP, NULL));
	for (i = 0; i < UNITS; i += 2) {
		ASSERT_EQ(0, wp(self, i, 1));
		EXPECT_TRUE(writes(self, at(self, i)));
		ASSERT_EQ(0, wp(self, i, 1));
	}
	ASSERT_EQ(0, tell(self->fd));
	for (i = 0; i < UNITS; i += 2)
		EXPECT_TRUE(is_told(self, i));
	for (i = 1; i < UNITS; i += 2)
		EXPECT_TRUE(writes(self, at(self, i)));
	/* With nothing registered there is nothing to change but what will be. */
	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_EQ(0, note(self->fd));
	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len, WP,
				      NULL));
	ASSERT_EQ(0, wp(self, 0, UNITS));
	EXPECT_TRUE(writes(self, at(self, 1)));
}

#define PIECES	2000

/* Every second page of it is a mapping of its own. */
static char *many_mappings(int fd)
{
	size_t page = getpagesize(), i;
	char *p = uk_buffer(2 * PIECES * page);

	for (i = 0; p && i < PIECES; i++)
		if (uk_register_mode(fd, p + 2 * i * page, page, WP, NULL) ||
		    uk_protect(fd, p + 2 * i * page, page, PROTECT))
			return NULL;
	return p;
}

TEST_F_TIMEOUT(setmode, thousands_of_mappings, LIMIT)
{
	size_t page = getpagesize();
	struct uk_thread t;
	char *p, *last;

	if (variant->kind != UK_ANON_SMALL)
		SKIP(return, "once is enough");
	p = many_mappings(self->fd);
	ASSERT_NE(NULL, p);
	last = p + 2 * (PIECES - 1) * page;
	ASSERT_EQ(0, uk_start(&t, uk_poke, last));
	EXPECT_TRUE(uk_parked(self->fd, 1, 1));
	ASSERT_EQ(0, note(self->fd));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(PIECES - 1, uk_pages(p, 2 * PIECES * page, UK_PM_WP));
	ASSERT_EQ(0, uk_start(&t, uk_poke, p));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	ASSERT_EQ(0, tell(self->fd));
	ASSERT_EQ(0, uk_start(&t, uk_poke, p + 2 * page));
	EXPECT_TRUE(uk_parked(self->fd, 1, 1));
	EXPECT_EQ(PIECES - 2, uk_pages(p, 2 * PIECES * page, UK_PM_WP));
	ASSERT_EQ(0, note(self->fd));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	munmap(p, 2 * PIECES * page);
}

/* Races: a thread writes all the time. */

struct writer {
	struct uk_counter count;
	struct uk_thread t;
};

static int start_writer(struct setmode_test *self, struct writer *w)
{
	unsigned int i;

	for (i = 0; i < UNITS; i++)
		uk_set((unsigned int *)at(self, i), 0);
	*w = (struct writer){ .count.mem = &self->m };
	return uk_start(&w->t, uk_count_up, &w->count);
}

/* Stop it, in memory where it is not held up; none of its writes is lost. */
static bool stop_writer(struct setmode_test *self, struct writer *w)
{
	unsigned int i;

	uk_set(&w->count.stop, true);
	if (!uk_join(&w->t, UK_SOON))
		return false;
	for (i = 0; i < UNITS; i++)
		if (w->count.sum[i] != uk_get((unsigned int *)at(self, i)))
			return false;
	return true;
}

/* A moment, another one each time: faults are met wherever they are. */
static void moment(unsigned int round)
{
	unsigned int n = round % 128 * 16, i = 0;

	if (round & 1)
		sched_yield();
	while (uk_add(&i, 1) < n)
		;
}

/*
 * What a write takes the protection off when SET_MODE has returned was decided by
 * what is no more. The writer is held by its first write to a page that is still
 * protected, so that as a rule two looks at a time when it runs see the same.
 */
TEST_F_TIMEOUT(setmode, nothing_is_noted_any_more, LIMIT)
{
	long long end = uk_now() + 1000;
	unsigned int rounds = 0, i;
	struct writer w;

	ASSERT_EQ(0, start_writer(self, &w));
	do {
		long first;

		ASSERT_EQ(0, note(self->fd));
		ASSERT_EQ(0, wp(self, 0, UNITS));
		moment(rounds);
		ASSERT_EQ(0, tell(self->fd));
		first = written(self, 0);
		ASSERT_LE(0, first);
		for (i = 0; i < 5; i++)
			sched_yield();
		ASSERT_EQ(first, written(self, 0));
		rounds++;
	} while (uk_now() < end);
	ASSERT_EQ(0, note(self->fd));
	EXPECT_TRUE(stop_writer(self, &w));
	TH_LOG("%u rounds", rounds);
}

static bool is_running(const struct writer *w)
{
	unsigned int was = uk_get(&w->count.sum[0]), i;

	for (i = 0; i < UK_SOON && was == uk_get(&w->count.sum[0]); i++)
		uk_sleep(1);
	return was != uk_get(&w->count.sum[0]);
}

/* Who was told on the way is woken: nobody sleeps while writes are noted. */
TEST_F_TIMEOUT(setmode, nobody_sleeps_any_more, LIMIT)
{
	long long end = uk_now() + 1000;
	unsigned int rounds = 0, i;
	struct uffd_msg msg;
	struct writer w;

	ASSERT_EQ(0, start_writer(self, &w));
	do {
		ASSERT_EQ(0, tell(self->fd));
		ASSERT_EQ(0, wp(self, 0, UNITS));
		if (rounds % 16 == 15)
			ASSERT_EQ(1, uk_next(self->fd, &msg));
		moment(rounds);
		ASSERT_EQ(0, note(self->fd));
		/* It would have a message. */
		for (i = 0; i < 5; i++) {
			ASSERT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
			sched_yield();
		}
		if (rounds++ % 64 == 0) {
			ASSERT_TRUE(uk_parked(self->fd, 0, 0));
			ASSERT_TRUE(is_running(&w));
		}
	} while (uk_now() < end);
	EXPECT_TRUE(stop_writer(self, &w));
	TH_LOG("%u rounds", rounds);
}

struct toggler {
	int fd;
	bool stop;
	unsigned int rounds;
	int err;
};

static long toggle(void *arg)
{
	struct toggler *g = arg;

	while (!uk_get(&g->stop) && !g->err) {
		g->err = tell(g->fd);
		sched_yield();
		if (!g->err)
			g->err = note(g->fd);
		g->rounds++;
	}
	return 0;
}

/* With handler, scans and switches in threads of their own, no write is lost. */
TEST_F_TIMEOUT(setmode, all_at_once, LIMIT)
{
	struct toggler g[2] = { { .fd = self->fd }, { .fd = self->fd } };
	long long end = uk_now() + 1000;
	unsigned int told = 0, scans = 0, i;
	struct uk_thread t[2];
	struct uffd_msg msg;
	struct writer w;

	ASSERT_EQ(0, start_writer(self, &w));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, uk_start(&t[i], toggle, &g[i]));
	while (uk_now() < end) {
		ASSERT_LE(0, written(self, PM_SCAN_WP_MATCHING));
		if (scans++ & 1)
			ASSERT_EQ(0, wp(self, 0, UNITS));
		while (uk_read(self->fd, &msg, 1) == 1) {
			ASSERT_EQ(WP_FAULT, msg.arg.pagefault.flags);
			ASSERT_EQ(0, uk_protect(self->fd, (void *)(unsigned long)
						msg.arg.pagefault.address,
						self->unit, 0));
			told++;
		}
	}
	for (i = 0; i < 2; i++) {
		uk_set(&g[i].stop, true);
		ASSERT_TRUE(uk_join(&t[i], UK_SOON));
		EXPECT_EQ(0, g[i].err);
	}
	EXPECT_EQ(1, is_noting(self->fd));
	EXPECT_TRUE(stop_writer(self, &w));
	TH_LOG("%u switches, %u faults, %u scans",
	       2 * (g[0].rounds + g[1].rounds), told, scans);
}

/* What can be registered. */

/* A private mapping of a file whose faults cannot be told. */
static char *ordinary_file(size_t len)
{
	static const char * const paths[] = {
		"/proc/self/exe", "/bin/sh", "/etc/passwd", "/usr/bin/env",
	};
	int fd = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY, 0);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(paths); i++) {
		int file = open(paths[i], O_RDONLY | O_CLOEXEC);
		char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			       file, 0);

		close(file);
		if (p == MAP_FAILED)
			continue;
		if (uk_register_mode(fd, p, len, WP, NULL) == -EINVAL) {
			close(fd);
			return p;
		}
		munmap(p, len);
	}
	close(fd);
	return NULL;
}

TEST(setmode_only_what_can_be_told)
{
	size_t page = getpagesize();
	int fd, noting;
	char *p;

	if (!(uk_offered() & SWITCH))
		SKIP(return, "no WP_SET_MODE on this kernel");
	p = ordinary_file(page);
	if (!p)
		SKIP(return, "no file that is not shmem");
	fd = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY, ASYNC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, uk_register_mode(fd, p, page, WP, NULL));
	EXPECT_EQ(0, uk_unregister(fd, p, page));
	close(fd);
	for (noting = 0; noting < 2; noting++) {
		fd = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY,
			    SWITCH | (noting ? ASYNC : 0));
		ASSERT_LE(0, fd);
		EXPECT_EQ(-EINVAL, uk_register_mode(fd, p, page, WP, NULL));
		EXPECT_EQ(-EINVAL, uk_unregister(fd, p, page));
		ASSERT_EQ(0, noting ? tell(fd) : note(fd));
		EXPECT_EQ(-EINVAL, uk_register_mode(fd, p, page, WP, NULL));
		EXPECT_EQ(-EINVAL, uk_unregister(fd, p, page));
		close(fd);
	}
}

/* The descriptor of a process that is gone, in the hands of another. */

static int leave_it(void *arg)
{
	int *sock = arg;
	int fd = uk_new(O_CLOEXEC | UFFD_USER_MODE_ONLY, SWITCH);

	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_send_fd(sock[1], fd));
	return 0;
}

TEST(setmode_of_a_process_that_is_gone)
{
	int sock[2], fd;

	if (!(uk_offered() & SWITCH))
		SKIP(return, "no WP_SET_MODE on this kernel");
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	ASSERT_EQ(0, uk_in_child(leave_it, sock));
	fd = uk_recv_fd(sock[0]);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-ESRCH, note(fd));
	EXPECT_EQ(-ESRCH, tell(fd));
	EXPECT_EQ(-EINVAL, uk_set_mode(fd, ASYNC, ASYNC));
	EXPECT_EQ(0, is_noting(fd));
	close(fd);
}

/*
 * Here to see what all kernels do that do not have it: nothing. Mainline's SET_MODE
 * knows RWP_ASYNC.
 */
TEST(setmode_handshake)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = uk_open(UFFD_USER_MODE_ONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	/* No feature, no mode. */
	EXPECT_EQ(-EINVAL, note(fd));
	EXPECT_EQ(-EINVAL, tell(fd));
	ASSERT_EQ(0, ioctl(fd, UFFDIO_API, &api));
	EXPECT_EQ(-EINVAL, note(fd));
	EXPECT_EQ(-EINVAL, tell(fd));
	close(fd);
	if (api.features & ASYNC) {
		fd = uk_new(UFFD_USER_MODE_ONLY | O_CLOEXEC, ASYNC);
		ASSERT_LE(0, fd);
		EXPECT_EQ(-EINVAL, note(fd));
		EXPECT_EQ(-EINVAL, tell(fd));
		EXPECT_EQ(1, is_noting(fd));
		close(fd);
	}
	if (!(api.features & SWITCH)) {
		EXPECT_EQ(-EINVAL, uk_new(UFFD_USER_MODE_ONLY, SWITCH));
		EXPECT_EQ(-EINVAL, uk_new(UFFD_USER_MODE_ONLY, SWITCH | ASYNC));
		return;
	}
	/* It says which call takes it, and brings what it depends on. */
	EXPECT_TRUE(api.ioctls & UK_BIT(_UFFDIO_SET_MODE));
	EXPECT_TRUE(api.features & ASYNC);
	fd = uk_new(UFFD_USER_MODE_ONLY | O_CLOEXEC, SWITCH);
	EXPECT_LE(0, fd);
	EXPECT_EQ(0, note(fd));
	close(fd);
}

#ifdef __x86_64__
/* The way in of programs of 32 bits. */
struct old_call {
	int fd;
	void *arg;
	long ret;
};

static long call_32(void *arg)
{
	struct old_call *c = arg;
	long ret = 54;		/* ioctl there */

	__asm__ volatile("int $0x80"
			 : "+a"(ret)
			 : "b"((long)c->fd), "c"((long)(__u32)UFFDIO_SET_MODE),
			   "d"(c->arg)
			 : "memory", "r8", "r9", "r10", "r11");
	c->ret = (int)ret;
	return 0;
}

TEST(setmode_caller_of_32_bits)
{
	struct uffdio_set_mode *low;
	struct old_call c;

	if (!(uk_offered() & SWITCH))
		SKIP(return, "no WP_SET_MODE on this kernel");
	low = mmap(NULL, sizeof(*low), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	ASSERT_NE(MAP_FAILED, low);
	c.fd = uk_new(UFFD_USER_MODE_ONLY | O_CLOEXEC, SWITCH);
	ASSERT_LE(0, c.fd);
	c.arg = low;
	low->enable = ASYNC;
	if (uk_catch(call_32, &c, NULL, NULL))
		SKIP(return, "no programs of 32 bits");
	EXPECT_EQ(0, c.ret);
	EXPECT_EQ(1, is_noting(c.fd));
	low->disable = ASYNC;
	call_32(&c);
	EXPECT_EQ(-EINVAL, c.ret);
	low->enable = 0;
	call_32(&c);
	EXPECT_EQ(0, c.ret);
	EXPECT_EQ(0, is_noting(c.fd));
	close(c.fd);
}
#endif

TEST_HARNESS_MAIN
