// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: what is no access to a page whose accesses are tracked.
 *
 * uffd-rwp has the calls and what becomes of tracked pages.  Here is what the
 * kernel does to them by itself, and what a program does that has to do with
 * something else: the bit in the page table must outlive it, nobody may be asked,
 * and what is in the page must be what was.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/fs.h>
#include <linux/memfd.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS	6
#define LIMIT	60
#define LONG	120
#define ALL	((1 << UNITS) - 1)

#define RWP	UFFDIO_REGISTER_MODE_RWP
#define WP	UFFDIO_REGISTER_MODE_WP
#define MISSING	UFFDIO_REGISTER_MODE_MISSING
#define ASYNC	(UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC)

#define TRACK	UFFDIO_RWPROTECT_MODE_RWP

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/* FIXTURE_DATA(track), by a name that reads well in a prototype. */
#define track_test _test_data_track

FIXTURE(track)
{
	struct uk_mem m;
	size_t unit;
	int fd;
	int pagemap;
};

FIXTURE_VARIANT(track)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(track, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(track, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(track, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(track, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(track, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(track, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

static char *at(struct track_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static bool holds(struct track_test *self, unsigned int unit)
{
	return uk_painted(at(self, unit), self->unit, unit);
}

/* Another descriptor for the same memory; the old one takes all it did along. */
static int refit(struct track_test *self, __u64 features, __u64 mode)
{
	if (self->fd >= 0)
		close(self->fd);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register_mode(self->fd, self->m.area, self->m.len, mode, NULL);
}

/* Units 0 to UNITS - 1 are there, painted with their numbers, not tracked. */
FIXTURE_SETUP(track)
{
	const char *why;
	unsigned int i;
	int err;

	self->fd = -1;
	if ((uk_offered() & ASYNC) != ASYNC)
		SKIP(return, "no RWP_ASYNC on this kernel");
	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	for (i = 0; i < UNITS; i++)
		uk_paint(at(self, i), self->unit, i);
	err = refit(self, ASYNC, RWP);
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
	self->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->pagemap);
}

FIXTURE_TEARDOWN(track)
{
	close(self->fd);
	close(self->pagemap);
	uk_swap_off();
}

static int rwprotect(struct track_test *self, char *addr, size_t len, __u64 mode)
{
	struct uffdio_rwprotect arg = {
		.range = { (unsigned long)addr, len },
		.mode = mode,
	};

	return ioctl(self->fd, UFFDIO_RWPROTECT, &arg) ? -errno : 0;
}

static int track(struct track_test *self, unsigned int unit, unsigned int count)
{
	return rwprotect(self, at(self, unit), count * self->unit, TRACK);
}

/*
 * Bit i of the result says that all pages of unit i are in this category, or
 * that some are and others not: then bit i + UNITS is set too.
 */
static long scan(struct track_test *self, __u64 category)
{
	size_t pages = self->unit / getpagesize();
	struct page_region out[UNITS * 2];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (unsigned long)at(self, 0),
		.end = (unsigned long)at(self, UNITS),
		.vec = (unsigned long)out,
		.vec_len = UNITS * 2,
		.category_mask = category,
		.return_mask = category,
	};
	size_t seen[UNITS] = {};
	long set = 0;
	int i, n;

	n = ioctl(self->pagemap, PAGEMAP_SCAN, &arg);
	if (n < 0)
		return -errno;
	for (i = 0; i < n; i++) {
		char *end = (char *)(unsigned long)out[i].end;
		char *p = (char *)(unsigned long)out[i].start;

		for (; p < end; p += getpagesize())
			seen[(p - self->m.area) / self->unit]++;
	}
	for (i = 0; i < UNITS; i++)
		if (seen[i])
			set |= (seen[i] == pages ? 1 : 1 + (1 << UNITS)) << i;
	return set;
}

static long accessed(struct track_test *self)
{
	return scan(self, PAGE_IS_ACCESSED);
}

/* How many units have the bit; -1 if one has it in part. */
static long bits(struct track_test *self)
{
	size_t pages = self->unit / getpagesize();
	long n = uk_pages(self->m.area, UNITS * self->unit, UK_PM_WP);

	return n % pages ? -1 : n / (long)pages;
}

TEST_F_TIMEOUT(track, smaps_says_so, LIMIT)
{
	char line[256], start[32];
	FILE *smaps = fopen("/proc/self/smaps", "r");
	bool here = false, found = false;

	ASSERT_NE(NULL, smaps);
	snprintf(start, sizeof(start), "%lx-", (unsigned long)self->m.area);
	while (fgets(line, sizeof(line), smaps)) {
		if (!strncmp(line, start, strlen(start))) {
			here = true;
		} else if (here && !strncmp(line, "VmFlags:", 8)) {
			found = strstr(line, " ur");
			break;
		}
	}
	fclose(smaps);
	EXPECT_TRUE(found);
}

TEST_F_TIMEOUT(track, registered_again, LIMIT)
{
	ASSERT_EQ(0, track(self, 0, UNITS));
	EXPECT_EQ(-EBUSY, uk_register_mode(self->fd, self->m.area, self->m.len,
					   MISSING, NULL));
	EXPECT_EQ(-EBUSY, uk_register_mode(self->fd, self->m.area, self->m.len,
					   WP, NULL));
	/* What is added takes nothing away. */
	EXPECT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      RWP | MISSING, NULL));
	EXPECT_EQ(UNITS, bits(self));
	EXPECT_EQ(0, accessed(self));
	ASSERT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_EQ(0, bits(self));

	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len, WP,
				      NULL));
	EXPECT_EQ(-EBUSY, uk_register_mode(self->fd, self->m.area, self->m.len,
					   RWP, NULL));
}

TEST_F_TIMEOUT(track, mprotect_is_no_access, LIMIT)
{
	size_t len = UNITS * self->unit;

	ASSERT_EQ(0, track(self, 0, UNITS));
	ASSERT_EQ(0, mprotect(self->m.area, len, PROT_NONE));
	ASSERT_EQ(0, mprotect(self->m.area, len, PROT_READ));
	EXPECT_EQ(UNITS, bits(self));
	/* It can be read, and then may not be written. */
	EXPECT_TRUE(holds(self, 1));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, 1), NULL, NULL));
	EXPECT_EQ(2, accessed(self));
	ASSERT_EQ(0, mprotect(self->m.area, len, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, uk_catch(uk_poke, at(self, 2), NULL, NULL));
	EXPECT_EQ(2, accessed(self) & 2);
}

struct late {
	struct track_test *self;
	int go[2];
};

static int child_looks_late(void *arg)
{
	struct late *late = arg;
	char c;

	if (read(late->go[0], &c, 1) != 1)
		return 1;
	return holds(late->self, 0) && holds(late->self, 1) ? 0 : 2;
}

/* What the parent has accessed may be writable, and must not remain so. */
TEST_F_TIMEOUT(track, fork_copies, LIMIT)
{
	struct late late = { .self = self };
	pid_t child;

	if (uk_is_shared(&self->m) || uk_is_hugetlb(&self->m))
		SKIP(return, "private memory, and enough of it");
	ASSERT_EQ(0, track(self, 0, UNITS));
	uk_paint(at(self, 0), self->unit, 0);
	ASSERT_EQ(0, pipe(late.go));
	child = uk_spawn(child_looks_late, &late);
	ASSERT_LT(0, child);
	uk_paint(at(self, 0), self->unit, 50);
	uk_paint(at(self, 1), self->unit, 51);
	ASSERT_EQ(1, write(late.go[1], "", 1));
	EXPECT_EQ(0, uk_reap(child, UK_SOON));
	EXPECT_EQ(3, accessed(self));
}

TEST_F_TIMEOUT(track, swap_is_no_access, LIMIT)
{
	size_t len = UNITS * self->unit;
	const char *why;

	if (uk_is_hugetlb(&self->m) || uk_is_shared(&self->m))
		SKIP(return, "memory that is swapped, not dropped");
	why = uk_swap_on(2 * self->m.len);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, track(self, 0, 4));
	ASSERT_TRUE(uk_swap_out(self->m.area, len));
	EXPECT_EQ(4, bits(self));
	EXPECT_EQ(16 | 32, accessed(self));
	/* That can change meanwhile. */
	ASSERT_EQ(0, rwprotect(self, at(self, 3), self->unit, 0));
	ASSERT_EQ(0, track(self, 4, 1));
	EXPECT_EQ(8 | 32, accessed(self));
	EXPECT_TRUE(holds(self, 0));
	EXPECT_EQ(0, uk_poke(at(self, 1)));
	EXPECT_EQ(1 | 2 | 8 | 32, accessed(self));
	/* The rest comes back by itself, unless the machine has other swap. */
	uk_swap_off();
	EXPECT_EQ(1 | 2 | 8 | 32, accessed(self));
	EXPECT_TRUE(holds(self, 2));
	EXPECT_TRUE(holds(self, 4));
	EXPECT_EQ(ALL, accessed(self));
}

/* KSM: to merge pages and to part them again. */

/* Bit of pagemap: nobody else maps it. */
#define EXCLUSIVE	UK_BIT(56)

static long merged_pages(void)
{
	return uk_read_number("/proc/self/ksm_merging_pages");
}

TEST_F_TIMEOUT(track, merged_pages, LIMIT)
{
	const char *run = "/sys/kernel/mm/ksm/run";
	long long end = uk_now() + UK_SOON;
	long was = uk_read_number(run);

	if (variant->kind != UK_ANON_SMALL)
		SKIP(return, "small anonymous pages only");
	memcpy(at(self, 2), at(self, 1), self->unit);
	if (was < 0 || !uk_write_file(run, "1"))
		SKIP(return, "no KSM, or not ours to switch on");
	ASSERT_EQ(0, madvise(self->m.area, self->m.len, MADV_MERGEABLE));
	while (merged_pages() < 2 && uk_now() < end)
		uk_sleep(10);
	uk_write_file(run, was ? "1" : "0");
	ASSERT_LE(2, merged_pages());
	EXPECT_EQ(0, uk_pages(at(self, 1), 2 * self->unit, EXCLUSIVE));
	/* The handler is nobody whom that could wait for. */
	ASSERT_EQ(0, refit(self, UFFD_FEATURE_RWP, RWP));
	ASSERT_EQ(0, track(self, 0, UNITS));
	ASSERT_EQ(0, madvise(self->m.area, self->m.len, MADV_UNMERGEABLE));
	EXPECT_EQ(2, uk_pages(at(self, 1), 2 * self->unit, EXCLUSIVE));
	EXPECT_EQ(UNITS, bits(self));
	ASSERT_EQ(0, rwprotect(self, self->m.area, UNITS * self->unit, 0));
	EXPECT_TRUE(holds(self, 1));
	EXPECT_TRUE(uk_painted(at(self, 2), self->unit, 1));
}

/* Huge pages of files. */

#define SHMEM_ENABLED	"/sys/kernel/mm/transparent_hugepage/shmem_enabled"

/* One of shmem, painted, and mapped as that; or why there is none. */
static const char *map_huge(struct uk_mem *m, enum uk_kind kind)
{
	size_t huge = uk_huge_size(), page = getpagesize();
	const char *why;
	char was[32];

	if (!uk_choice(SHMEM_ENABLED, was, sizeof(was)) ||
	    !uk_write_file(SHMEM_ENABLED, "always"))
		return "no huge pages of shmem, or not ours to ask for";
	why = uk_map(m, kind, 2 * huge / page);
	if (!why) {
		char *alias = uk_alias(m);

		m->area += -(unsigned long)m->area & (huge - 1);
		uk_paint(alias, m->len, 7);
		uk_painted(m->area, huge, 7);
		munmap(alias, m->len);
	}
	uk_write_file(SHMEM_ENABLED, was);
	if (!why && uk_huge(m->area, huge) != (long)(huge / page))
		why = "no huge page was to be had";
	return why;
}

/* It is mapped by small entries then, and by all of them: none has to be found anew. */
TEST_F_TIMEOUT(track, huge_page_of_a_file, LIMIT)
{
	size_t huge = uk_huge_size(), page = getpagesize();
	long pages = huge / page;
	const char *why;
	struct uk_thread t;
	struct uk_mem m;
	char was;

	if (variant->kind != UK_SHMEM && variant->kind != UK_SHMEM_PRIVATE)
		SKIP(return, "huge pages of files only");
	why = map_huge(&m, variant->kind);
	if (why)
		SKIP(return, "%s", why);
	was = m.area[3 * page];
	ASSERT_EQ(0, uk_register_mode(self->fd, m.area, huge, RWP, NULL));
	ASSERT_EQ(0, rwprotect(self, m.area, huge, TRACK));
	EXPECT_EQ(pages, uk_pages(m.area, huge, UK_PM_WP));
	EXPECT_EQ(pages, uk_pages(m.area, huge, UK_PM_PRESENT));
	EXPECT_EQ(was, (char)uk_peek(m.area + 3 * page));
	uk_poke(m.area + 4 * page);
	EXPECT_EQ(0xa5, uk_peek(m.area + 4 * page));
	EXPECT_EQ(pages - 2, uk_pages(m.area, huge, UK_PM_WP));

	/* Who is to be told is. */
	ASSERT_EQ(0, uk_set_mode(self->fd, 0, UFFD_FEATURE_RWP_ASYNC));
	ASSERT_EQ(0, uk_start(&t, uk_peek, m.area + 5 * page));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_RWP,
		  uk_fault_flags(self->fd, &m, &t, m.area + 5 * page));
	ASSERT_EQ(0, rwprotect(self, m.area, huge, 0));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, uk_pages(m.area, huge, UK_PM_WP));
	/* A part of it, of one that is mapped whole again. */
	ASSERT_EQ(0, madvise(m.area, huge, MADV_DONTNEED));
	uk_peek(m.area);
	ASSERT_EQ(0, rwprotect(self, m.area, 9 * page, TRACK));
	EXPECT_EQ(uk_pages(m.area, 9 * page, UK_PM_PRESENT),
		  uk_pages(m.area, huge, UK_PM_WP));
	ASSERT_EQ(0, rwprotect(self, m.area, huge, 0));
	EXPECT_TRUE(uk_painted(m.area + huge, huge - page, 7) ||
		    !uk_all_zero(m.area, page));
}

/* A half of a huge page, tracked by a thread of its own. */
struct half {
	struct track_test *self;
	char *addr;
	size_t len;
	pthread_barrier_t *begin;
};

static long track_half(void *arg)
{
	struct half *half = arg;

	pthread_barrier_wait(half->begin);
	return rwprotect(half->self, half->addr, half->len, TRACK);
}

/* While one gives it small entries, the other must not find nothing there. */
TEST_F_TIMEOUT(track, huge_page_of_a_file_by_two, LONG)
{
	size_t huge = uk_huge_size();
	long pages = huge / getpagesize();
	pthread_barrier_t begin;
	struct uk_thread t[2];
	struct half half[2];
	const char *why;
	struct uk_mem m;
	char *area;
	int i, k;

	if (variant->kind != UK_SHMEM)
		SKIP(return, "huge pages of files only");
	why = map_huge(&m, variant->kind);
	if (why)
		SKIP(return, "%s", why);
	area = uk_reserve(huge, huge);
	ASSERT_NE(NULL, area);
	ASSERT_EQ(0, pthread_barrier_init(&begin, NULL, 2));
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(area, mmap(area, huge, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_FIXED, m.fd, 0));
		ASSERT_EQ(0, uk_register_mode(self->fd, area, huge, RWP, NULL));
		uk_peek(area);
		ASSERT_EQ(pages, uk_huge(area, huge));
		for (k = 0; k < 2; k++) {
			half[k] = (struct half){ self, area + k * huge / 2,
						 huge / 2, &begin };
			ASSERT_EQ(0, uk_start(&t[k], track_half, &half[k]));
		}
		ASSERT_TRUE(uk_join_all(t, 2));
		ASSERT_EQ(pages, uk_pages(area, huge, UK_PM_WP));
	}
}

/* Small pages of a file that are tracked are not made a huge one. */
TEST_F_TIMEOUT(track, collapse_of_a_file, LIMIT)
{
	size_t huge = uk_huge_size(), page = getpagesize(), i;
	long pages = huge / page;
	struct uk_mem m;

	if (variant->kind != UK_SHMEM)
		SKIP(return, "huge pages of files only");
	ASSERT_EQ(NULL, uk_map(&m, variant->kind, 2 * pages));
	m.area += -(unsigned long)m.area & (huge - 1);
	for (i = 0; i < huge; i += page)
		uk_paint(m.area + i, page, i);
	if (uk_huge(m.area, huge))
		SKIP(return, "this file has huge pages from the start");
	ASSERT_EQ(0, uk_register_mode(self->fd, m.area, huge, RWP, NULL));
	ASSERT_EQ(0, rwprotect(self, m.area, huge, TRACK));
	EXPECT_EQ(-1, madvise(m.area, huge, MADV_COLLAPSE));
	EXPECT_EQ(pages, uk_pages(m.area, huge, UK_PM_WP));
	ASSERT_EQ(0, uk_unregister(self->fd, m.area, huge));
	if (madvise(m.area, huge, MADV_COLLAPSE))
		TH_LOG("nor others, here");
	for (i = 0; i < huge; i += page)
		ASSERT_TRUE(uk_painted(m.area + i, page, i));
}

/* Sizes of huge pages: each is mapped in another way. */

static char *map_hugetlb(size_t size, int flags)
{
	int fd = syscall(__NR_memfd_create, "uffd-track", MFD_CLOEXEC | MFD_HUGETLB |
			 __builtin_ctzl(size) << MFD_HUGE_SHIFT);
	char *p = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, size))
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

/* Is there a page of that size to be had?  If need be, it is made. */
static bool hugetlb_has(size_t size)
{
	const char *dir = "/sys/kernel/mm/hugepages/hugepages-%zukB/%s_hugepages";
	char path[96], number[24];
	long n;

	snprintf(path, sizeof(path), dir, size / 1024, "free");
	if (uk_read_number(path) > 0)
		return true;
	snprintf(path, sizeof(path), dir, size / 1024, "nr");
	n = uk_read_number(path);
	snprintf(number, sizeof(number), "%ld", n + 1);
	if (n < 0 || size >= 1UL << 30 || !uk_write_file(path, number))
		return false;
	return uk_read_number(path) > n;
}

/* arm64 has four, mapped by PTEs, a PMD, PMDs and a PUD. */
FIXTURE(hugetlb)
{
	char *area;
};

FIXTURE_VARIANT(hugetlb)
{
	size_t size;
	int flags;
};

FIXTURE_VARIANT_ADD(hugetlb, of_64k)
{
	.size = 64UL << 10,
	.flags = MAP_PRIVATE,
};

FIXTURE_VARIANT_ADD(hugetlb, of_2m)
{
	.size = 2UL << 20,
	.flags = MAP_PRIVATE,
};

FIXTURE_VARIANT_ADD(hugetlb, of_32m)
{
	.size = 32UL << 20,
	.flags = MAP_PRIVATE,
};

FIXTURE_VARIANT_ADD(hugetlb, of_1g)
{
	.size = 1UL << 30,
	.flags = MAP_PRIVATE,
};

FIXTURE_VARIANT_ADD(hugetlb, of_1g_shared)
{
	.size = 1UL << 30,
	.flags = MAP_SHARED,
};

FIXTURE_SETUP(hugetlb)
{
	if ((uk_offered() & ASYNC) != ASYNC)
		SKIP(return, "no RWP_ASYNC on this kernel");
	if (!hugetlb_has(variant->size))
		SKIP(return, "no huge page of this size");
	self->area = map_hugetlb(variant->size, variant->flags);
	ASSERT_NE(NULL, self->area);
	uk_paint(self->area, getpagesize(), 3);
}

FIXTURE_TEARDOWN(hugetlb)
{
	if (self->area)
		munmap(self->area, variant->size);
}

static void told_of_hugetlb(struct __test_metadata *_metadata, char *p, size_t size)
{
	struct track_test test = {
		.m = { .area = p, .unit = size, .len = size },
		.fd = -1,
	};
	struct track_test *self = &test;
	size_t page = getpagesize();
	struct uk_access a = { };
	struct uk_thread t;
	char out[8];

	ASSERT_EQ(0, refit(self, UFFD_FEATURE_RWP, RWP));
	ASSERT_EQ(0, rwprotect(self, p, size, TRACK));
	EXPECT_EQ((long)(size / page), uk_pages(p, size, UK_PM_WP));
	/* By a read, by the kernel, by a write. */
	ASSERT_EQ(0, uk_start(&t, uk_peek, p + size / 2));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_RWP,
		  uk_fault_flags(self->fd, &self->m, &t, p + size / 2));
	EXPECT_TRUE(uk_stays(&t));
	ASSERT_EQ(0, rwprotect(self, p, size, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, uk_pages(p, size, UK_PM_WP));

	ASSERT_EQ(0, rwprotect(self, p, size, TRACK));
	a.addr = p;
	a.out = out;
	ASSERT_EQ(0, uk_start(&t, uk_by_vm_readv, &a));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_RWP,
		  uk_fault_flags(self->fd, &self->m, &t, p));
	ASSERT_EQ(0, rwprotect(self, p, size, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(8, t.ret);
	EXPECT_EQ(0, memcmp(out, p, 8));

	ASSERT_EQ(0, rwprotect(self, p, size, TRACK));
	ASSERT_EQ(0, mprotect(p, size, PROT_NONE));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_peek, p, NULL, NULL));
	ASSERT_EQ(0, mprotect(p, size, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, uk_start(&t, uk_poke, p + page));
	EXPECT_EQ(UFFD_PAGEFAULT_FLAG_RWP | UFFD_PAGEFAULT_FLAG_WRITE,
		  uk_fault_flags(self->fd, &self->m, &t, p + page));
	ASSERT_EQ(0, rwprotect(self, p, size, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0xa5, uk_peek(p + page));
	EXPECT_TRUE(uk_painted(p, page, 3));
	close(self->fd);
}

TEST_F_TIMEOUT(hugetlb, is_told, 2 * LONG)
{
	told_of_hugetlb(_metadata, self->area, variant->size);
}

/* A core dump cannot wait for a handler, and is not to have holes. */

struct dump {
	char *area;
	size_t len;
	size_t limit;		/* of the file */
};

static int aborts(void *arg)
{
	struct dump *d = arg;
	struct rlimit limit = { d->limit, d->limit };
	struct track_test self = { .fd = -1, .m.area = d->area, .m.len = d->len };

	/* Registered in this process, with a handler who does not answer. */
	UK_CHECK(!refit(&self, UFFD_FEATURE_RWP, RWP));
	UK_CHECK(!rwprotect(&self, d->area, d->len, TRACK));
	UK_CHECK(!setrlimit(RLIMIT_CORE, &limit));
	abort();
}

/* Does the file have in it what is painted like that? */
static bool has_painted(const char *path, size_t len, unsigned long seed)
{
	size_t page = getpagesize(), i;
	char *want = uk_buffer(len);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	bool has = false;
	char *core;

	if (!want || fd < 0 || fstat(fd, &st))
		return false;
	uk_paint(want, len, seed);
	core = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	for (i = 0; core != MAP_FAILED && !has &&
	     i + len <= (size_t)st.st_size; i += page)
		has = !memcmp(core + i, want, len);
	if (core != MAP_FAILED)
		munmap(core, st.st_size);
	munmap(want, len);
	close(fd);
	return has;
}

static char core_dir[32];
static char core_path[64];

/* Leaves it at core_path; or says why not. */
static const char *dump_core(struct dump *d)
{
	const char *pattern = "/proc/sys/kernel/core_pattern";
	char was[256];
	pid_t pid;
	int ret;

	snprintf(core_dir, sizeof(core_dir), "/tmp/uffd-track-XXXXXX");
	if (uk_read_text(pattern, was, sizeof(was)) < 0 || !mkdtemp(core_dir))
		return "no core dumps";
	snprintf(core_path, sizeof(core_path), "%s/core", core_dir);
	if (!uk_write_file(pattern, core_path)) {
		rmdir(core_dir);
		return "only root says where core dumps go";
	}
	pid = uk_spawn(aborts, d);
	ret = uk_reap(pid, LONG * 1000);
	if (ret < 0 && pid > 0)
		kill(pid, SIGKILL);
	uk_write_file(pattern, was);
	if (ret != 128 + SIGABRT)
		return "the child was not to be had";
	/* With its pid, if the machine is set to that. */
	return access(core_path, F_OK) ?
	       "core dumps do not go where they are to go" : NULL;
}

TEST_F_TIMEOUT(track, core_dump, LIMIT)
{
	struct dump d = { self->m.area, UNITS * self->unit, RLIM_INFINITY };
	const char *why;

	if (uk_is_hugetlb(&self->m) || uk_is_shared(&self->m))
		SKIP(return, "memory that is in a core dump by default");
	close(self->fd);
	self->fd = -1;
	why = dump_core(&d);
	if (why)
		SKIP(return, "%s", why);
	EXPECT_TRUE(has_painted(core_path, self->unit, 0));
	EXPECT_TRUE(has_painted(core_path, self->unit, UNITS - 1));
	unlink(core_path);
	rmdir(core_dir);
}

/* There is no need for all of it, and of shared memory for any. */
TEST_F_TIMEOUT(hugetlb, core_dump, 2 * LONG)
{
	struct dump d = { self->area, variant->size, 64UL << 20 };
	const char *why;

	if (variant->flags == MAP_SHARED)
		SKIP(return, "memory that is in a core dump by default");
	why = dump_core(&d);
	if (why)
		SKIP(return, "%s", why);
	EXPECT_TRUE(has_painted(core_path, getpagesize(), 3));
	unlink(core_path);
	rmdir(core_dir);
}

TEST_HARNESS_MAIN
