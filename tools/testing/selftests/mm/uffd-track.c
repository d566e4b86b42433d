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
#include <linux/fs.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS	6
#define LIMIT	60
#define ALL	((1 << UNITS) - 1)

#define RWP	UFFDIO_REGISTER_MODE_RWP
#define WP	UFFDIO_REGISTER_MODE_WP
#define MISSING	UFFDIO_REGISTER_MODE_MISSING
#define ASYNC	(UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC)

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
	return rwprotect(self, at(self, unit), count * self->unit,
			 UFFDIO_RWPROTECT_MODE_RWP);
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

/* A core dump cannot wait for a handler, and is not to have holes. */

static int aborts(void *arg)
{
	struct track_test *self = arg;
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };

	/* Registered in this process, with a handler who does not answer. */
	self->fd = -1;
	UK_CHECK(!refit(self, UFFD_FEATURE_RWP, RWP));
	UK_CHECK(!track(self, 0, UNITS));
	UK_CHECK(!setrlimit(RLIMIT_CORE, &all));
	abort();
}

/* Does the file have that unit of ours in it? */
static bool has_unit(struct track_test *self, const char *path,
		     unsigned int unit)
{
	size_t page = getpagesize(), i;
	char *want = uk_buffer(self->unit);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	bool has = false;
	char *core;

	if (!want || fd < 0 || fstat(fd, &st))
		return false;
	uk_paint(want, self->unit, unit);
	core = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	for (i = 0; core != MAP_FAILED && !has &&
	     i + self->unit <= (size_t)st.st_size; i += page)
		has = !memcmp(core + i, want, self->unit);
	if (core != MAP_FAILED)
		munmap(core, st.st_size);
	close(fd);
	return has;
}

TEST_F_TIMEOUT(track, core_dump, LIMIT)
{
	const char *pattern = "/proc/sys/kernel/core_pattern";
	char was[256], dir[] = "/tmp/uffd-track-XXXXXX", path[64];

	if (uk_is_hugetlb(&self->m) || uk_is_shared(&self->m))
		SKIP(return, "memory that is in a core dump by default");
	if (uk_read_text(pattern, was, sizeof(was)) < 0 || !mkdtemp(dir))
		SKIP(return, "no core dumps");
	snprintf(path, sizeof(path), "%s/core", dir);
	if (!uk_write_file(pattern, path)) {
		rmdir(dir);
		SKIP(return, "only root says where core dumps go");
	}
	EXPECT_EQ(128 + SIGABRT, uk_in_child(aborts, self));
	uk_write_file(pattern, was);
	/* With its pid, if the machine is set to that. */
	if (access(path, F_OK))
		SKIP(return, "core dumps do not go where they are to go");
	EXPECT_TRUE(has_unit(self, path, 0));
	EXPECT_TRUE(has_unit(self, path, UNITS - 1));
	unlink(path);
	rmdir(dir);
}

TEST_HARNESS_MAIN
