// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: fills and moves of many pages at once.
 *
 * A kernel may serve a long range with huge pages, with large folios, or with
 * batches of small pages. Whether it does must not show in what a call reports
 * and leaves behind when something is in its way halfway: a page that is there,
 * memory that is not to be had, a source that must be fetched or that ends, an
 * edge of a mapping, or others who change all this at the same time. The same
 * is expected of kernels that go page by page.
 *
 * What shows, the huge pages, is tested where there are any. A first copy tells;
 * UFFD_LARGE=1 makes it a failure if it gets none. UFFD_SEED=n makes the random
 * tests run alike, UFFD_SECONDS=n makes them run longer.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/falloc.h>
#include <linux/mman.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define LIMIT		120
/* Pages before and after the huge pages of a range. */
#define SKEW		24
#define HUGES		2

#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define MINOR		UFFDIO_REGISTER_MODE_MINOR
#define WP		UFFDIO_REGISTER_MODE_WP
#define COPY_WP		UFFDIO_COPY_MODE_WP

/* Settings of the system; what they were comes back in the end. */

enum setting {
	THP,
	THP_PMD,
	THP_64K,
	THP_SHMEM,
	THP_DAEMON,
	THP_NONE,
	FAIL_ORDER,
	FAIL_WAIT,
	FAIL_HIGHMEM,
	FAIL_LOUD,
	FAIL_SLAB_LOUD,
	SETTINGS,
};

#define THP_DIR		"/sys/kernel/mm/transparent_hugepage/"
#define FAIL_DIR	"/sys/kernel/debug/fail_page_alloc/"

static struct {
	char path[96];
	char was[32];
} settings[SETTINGS] = {
	[THP]		= { .path = THP_DIR "enabled" },
	[THP_64K]	= { .path = THP_DIR "hugepages-64kB/enabled" },
	[THP_SHMEM]	= { .path = THP_DIR "shmem_enabled" },
	[THP_DAEMON]	= { .path = THP_DIR "khugepaged/scan_sleep_millisecs" },
	[THP_NONE]	= { .path = THP_DIR "khugepaged/max_ptes_none" },
	[FAIL_ORDER]	= { .path = FAIL_DIR "min-order" },
	[FAIL_WAIT]	= { .path = FAIL_DIR "ignore-gfp-wait" },
	[FAIL_HIGHMEM]	= { .path = FAIL_DIR "ignore-gfp-highmem" },
	[FAIL_LOUD]	= { .path = FAIL_DIR "verbose" },
	[FAIL_SLAB_LOUD] = { .path = "/sys/kernel/debug/failslab/verbose" },
};

static bool set(enum setting nr, const char *to)
{
	char now[32];

	if (!settings[nr].was[0] || !uk_choice(settings[nr].path, now, sizeof(now)))
		return false;
	return !strcmp(now, to) || uk_write_file(settings[nr].path, to);
}

/* khugepaged does as it likes when it looks, so between tests it does not. */
static void calm_down(void)
{
	set(THP_DAEMON, "3600000");
}

static void restore_settings(bool daemon)
{
	int i;

	for (i = 0; i < SETTINGS; i++)
		if (i != THP_DAEMON || daemon)
			set(i, settings[i].was);
}

/* A memory cgroup for one test at a time. */

#define CGROUPS		"/sys/fs/cgroup/"
#define GROUP		CGROUPS "uffd-large/"

static bool controls_memory;	/* before us */

static bool in_file(const char *path, const char *word)
{
	char text[256];

	return uk_read_text(path, text, sizeof(text)) > 0 && strstr(text, word);
}

/* Returns why this process cannot have the one at @path. */
static const char *join(const char *path)
{
	char pid[16], procs[64];

	if (!in_file(CGROUPS "cgroup.controllers", "memory"))
		return "no cgroup2 with a memory controller";
	if (!uk_write_file(CGROUPS "cgroup.subtree_control", "+memory"))
		return "cgroups are not ours to use";
	if (mkdir(path, 0700) && errno != EEXIST)
		return "cannot make a cgroup";
	snprintf(pid, sizeof(pid), "%d", getpid());
	snprintf(procs, sizeof(procs), "%scgroup.procs", path);
	return uk_write_file(procs, pid) ? NULL : "cannot join a cgroup";
}

static const char *join_group(void)
{
	const char *why = join(GROUP);

	if (why)
		return why;
	if (!uk_write_file(GROUP "memory.max", "max"))
		return "cannot have a cgroup without a limit";
	uk_write_file(GROUP "memory.swap.max", "0");
	return NULL;
}

static long group_stat(const char *key)
{
	return uk_number_of(GROUP "memory.stat", key);
}

/* What counters that are kept per CPU may be wrong by. */
static long group_slack(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) * 64 * getpagesize() + (256 << 10);
}

/* What is the same for all tests: the content, different everywhere. */

static pid_t owner;
static size_t page, huge, pages, block;
static char *content;
static bool has_large;	/* copies get huge pages here */

static bool needs_large(void)
{
	return has_large || getenv("UFFD_LARGE");
}

static bool try_large(void)
{
	char *p = uk_reserve(huge, huge);
	bool got;
	int fd;

	if (!p || mprotect(p, huge, PROT_READ | PROT_WRITE))
		return false;
	fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	got = fd >= 0 && set(THP, "madvise") &&
	      !madvise(p, huge, MADV_HUGEPAGE) && !uk_register(fd, p, huge) &&
	      !uk_copy(fd, p, content, huge, 0).err && uk_huge(p, huge) > 0;
	set(THP, settings[THP].was);
	close(fd);
	/*
	 * The mapping stays: khugepaged, which looks at a process as soon as there
	 * is one to look at, waits for its time when there is one already.
	 */
	return got;
}

static void on_signal(int sig)
{
	if (getpid() == owner)
		restore_settings(true);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void __attribute__((constructor)) begin(void)
{
	int i;

	owner = getpid();
	page = getpagesize();
	huge = uk_huge_size();
	block = huge / page;
	pages = HUGES * block + 2 * SKEW;
	if (huge > 32 << 20)
		return;
	snprintf(settings[THP_PMD].path, sizeof(settings[THP_PMD].path),
		 THP_DIR "hugepages-%zukB/enabled", huge / 1024);
	for (i = 0; i < SETTINGS; i++) {
		if (!uk_choice(settings[i].path, settings[i].was,
			       sizeof(settings[i].was)))
			settings[i].was[0] = 0;
	}
	controls_memory = in_file(CGROUPS "cgroup.subtree_control", "memory");
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	calm_down();
	content = uk_buffer(pages * page);
	if (content) {
		uk_paint(content, pages * page, 1);
		has_large = try_large();
	}
}

static void __attribute__((destructor)) end(void)
{
	if (getpid() != owner)
		return;
	restore_settings(true);
	if (!rmdir(GROUP) && !controls_memory)
		uk_write_file(CGROUPS "cgroup.subtree_control", "-memory");
}

/* A way to fill: the call, the memory, and the size of its pages. */

enum op {
	COPY,
	CONTINUE,
	MOVE,
};

enum size {
	SMALL,
	MIDDLE,		/* 64 KiB */
	LARGE,		/* as a PMD maps */
};

/* FIXTURE_DATA(path), by a name that reads well in a prototype. */
#define path_test _test_data_path

FIXTURE(path)
{
	enum op op;
	enum uk_kind kind;
	enum size size;
	char *area;
	char *src;		/* what the call takes: page i for page i */
	int file;
	int fd;
};

FIXTURE_VARIANT(path)
{
	enum op op;
	enum uk_kind kind;
	enum size size;
};

FIXTURE_VARIANT_ADD(path, copy_small)
{
	.op = COPY,
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(path, copy_middle)
{
	.op = COPY,
	.kind = UK_ANON,
	.size = MIDDLE,
};

FIXTURE_VARIANT_ADD(path, copy_large)
{
	.op = COPY,
	.kind = UK_ANON,
	.size = LARGE,
};

FIXTURE_VARIANT_ADD(path, copy_shmem)
{
	.op = COPY,
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(path, copy_shmem_private)
{
	.op = COPY,
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(path, continue_small)
{
	.op = CONTINUE,
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(path, continue_private)
{
	.op = CONTINUE,
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(path, continue_large)
{
	.op = CONTINUE,
	.kind = UK_SHMEM,
	.size = LARGE,
};

FIXTURE_VARIANT_ADD(path, move_small)
{
	.op = MOVE,
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(path, move_large)
{
	.op = MOVE,
	.kind = UK_ANON,
	.size = LARGE,
};

static char *at(struct path_test *self, size_t i)
{
	return self->area + i * page;
}

static char *from(struct path_test *self, size_t i)
{
	return self->src + i * page;
}

static char *want(size_t i)
{
	return content + i * page;
}

static bool is_anon(struct path_test *self)
{
	return self->kind == UK_ANON;
}

static int advice(struct path_test *self)
{
	return self->size == SMALL ? MADV_NOHUGEPAGE : MADV_HUGEPAGE;
}

/* Maps pages of the area, or maps them anew. */
static int map_area(struct path_test *self, size_t i, size_t n)
{
	int flags = MAP_FIXED | (self->kind == UK_SHMEM ? MAP_SHARED :
							  MAP_PRIVATE);
	char *p;

	p = mmap(at(self, i), n * page, PROT_READ | PROT_WRITE,
		 flags | (is_anon(self) ? MAP_ANONYMOUS : 0), self->file,
		 is_anon(self) ? 0 : i * page);
	if (p == MAP_FAILED)
		return -errno;
	if (is_anon(self))
		madvise(p, n * page, advice(self));
	return 0;
}

/* As long as the area, page i at the same place in a page table. */
static char *like_area(void)
{
	char *p = uk_reserve((HUGES + 3) * huge, huge);

	return p ? p + huge - SKEW * page : NULL;
}

static int make_file(struct path_test *self)
{
	self->file = syscall(__NR_memfd_create, "uffd-large", MFD_CLOEXEC);
	if (self->file < 0 || ftruncate(self->file, pages * page))
		return -errno;
	if (self->op != CONTINUE)
		return 0;
	/* Through this one the file gets its pages, huge ones perhaps. */
	self->src = mmap(uk_reserve(pages * page, huge), pages * page,
			 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 self->file, 0);
	if (self->src == MAP_FAILED)
		return -errno;
	if (self->size == LARGE)
		madvise(self->src, pages * page, MADV_HUGEPAGE);
	memcpy(self->src, content, pages * page);
	return 0;
}

static int make_source(struct path_test *self)
{
	if (self->op == COPY)
		self->src = content;
	if (self->op != MOVE)
		return 0;
	self->src = like_area();
	if (!self->src || mprotect(self->src, pages * page,
				   PROT_READ | PROT_WRITE))
		return -errno;
	madvise(self->src, pages * page, advice(self));
	memcpy(self->src, content, pages * page);
	return 0;
}

static __u64 mode_of(struct path_test *self)
{
	return self->op == CONTINUE ? MINOR : MISSING;
}

static int arm(struct path_test *self, __u64 features, __u64 mode)
{
	if (self->fd >= 0)
		close(self->fd);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, features);
	if (self->fd < 0)
		return self->fd;
	return uk_register_mode(self->fd, self->area, pages * page, mode, NULL);
}

/* The whole system's policy, for as long as the test runs. */
static bool set_policy(enum op op, enum size size)
{
	if (size == SMALL)
		return true;
	if (op == CONTINUE)
		return set(THP_SHMEM, "advise");
	if (!set(THP, "madvise"))
		return false;
	return size == LARGE ||
	       (set(THP_PMD, "never") && set(THP_64K, "madvise"));
}

FIXTURE_SETUP(path)
{
	__u64 offered = uk_offered();
	int err;

	self->op = variant->op;
	self->kind = variant->kind;
	self->size = variant->size;
	self->file = -1;
	self->fd = -1;
	if (!content)
		SKIP(return, "huge pages are too huge here");
	if (self->op == MOVE && !(offered & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	if (self->op == CONTINUE && !(offered & UFFD_FEATURE_MINOR_SHMEM))
		SKIP(return, "no minor faults of shmem on this kernel");
	if (!set_policy(self->op, self->size))
		SKIP(return, "no huge pages of this size, or not ours to set");
	self->area = like_area();
	ASSERT_NE(NULL, self->area);
	if (!is_anon(self))
		ASSERT_EQ(0, make_file(self));
	ASSERT_EQ(0, make_source(self));
	ASSERT_EQ(0, map_area(self, 0, pages));
	err = arm(self, 0, mode_of(self));
	if (err == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(path)
{
	close(self->fd);
	uk_swap_off();
	calm_down();
	restore_settings(false);
}

/* Fill n pages from page i on. */
static struct uk_fill fill_mode(struct path_test *self, size_t i, size_t n,
				bool wp)
{
	char *dst = at(self, i), *src = from(self, i);
	size_t len = n * page;

	switch (self->op) {
	case COPY:
		return uk_copy(self->fd, dst, src, len, wp ? COPY_WP : 0);
	case CONTINUE:
		return uk_continue(self->fd, dst, len,
				   wp ? UFFDIO_CONTINUE_MODE_WP : 0);
	default:
		return uk_move(self->fd, dst, src, len, 0);
	}
}

static struct uk_fill fill(struct path_test *self, size_t i, size_t n)
{
	return fill_mode(self, i, n, false);
}

#define EXPECT_ALL(_n, _fill)	UK_EXPECT_FILL(0, (_n) * page, _fill)
#define EXPECT_SOME(_n, _fill)	UK_EXPECT_FILL(-EAGAIN, (_n) * page, _fill)
#define EXPECT_NONE(_err, _fill) UK_EXPECT_FILL(_err, _err, _fill)

/* As it was before the first fill. */
static int again(struct path_test *self)
{
	if (madvise(self->area, pages * page, MADV_DONTNEED))
		return -errno;
	if (self->kind == UK_SHMEM && self->op == COPY &&
	    fallocate(self->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      0, pages * page))
		return -errno;
	if (self->op == MOVE) {
		if (madvise(self->src, pages * page, MADV_DONTNEED))
			return -errno;
		memcpy(self->src, content, pages * page);
	}
	return 0;
}

/* The same, with no page tables either: these stay, and keep huge pages out. */
static int afresh(struct path_test *self)
{
	int err;

	if (munmap(self->area, pages * page))
		return -errno;
	err = map_area(self, 0, pages);
	if (!err)
		err = again(self);
	return err ? err : uk_register_mode(self->fd, self->area, pages * page,
					    mode_of(self), NULL);
}

static bool present(struct path_test *self, size_t i, size_t n)
{
	return uk_pages(at(self, i), n * page, UK_PM_PRESENT) == (long)n;
}

static bool absent(struct path_test *self, size_t i, size_t n)
{
	return !uk_pages(at(self, i), n * page, UK_PM_PRESENT) &&
	       !uk_pages(at(self, i), n * page, UK_PM_SWAP);
}

static bool holds(struct path_test *self, size_t i, size_t n)
{
	return !memcmp(at(self, i), want(i), n * page);
}

/* These pages have come, and nothing but what was there in the source. */
static bool filled(struct path_test *self, size_t i, size_t n)
{
	return present(self, i, n) && holds(self, i, n);
}

/* Of these pages none has been touched, on either side. */
static bool left_alone(struct path_test *self, size_t i, size_t n)
{
	return absent(self, i, n) && !memcmp(from(self, i), want(i), n * page);
}

/* Huge pages of the area are whole. */
static long huges(struct path_test *self)
{
	return uk_huge(self->area, pages * page) / block;
}

TEST_F_TIMEOUT(path, all_of_it, LIMIT)
{
	EXPECT_ALL(pages, fill(self, 0, pages));
	EXPECT_TRUE(filled(self, 0, pages));
	EXPECT_NONE(-EEXIST, fill(self, 0, pages));
	EXPECT_NONE(-EEXIST, fill(self, SKEW, block));
	EXPECT_NONE(-EEXIST, fill(self, SKEW + 9, 1));
	EXPECT_TRUE(holds(self, 0, pages));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
}

/* Nothing comes that was not asked for. */
TEST_F_TIMEOUT(path, in_pieces, LIMIT)
{
	static const size_t steps[] = { 1, 15, 16, 17, 2, 31, 100, 511, 300 };
	size_t n = 0, i;

	for (i = 0; n < pages; i++) {
		size_t step = steps[i % ARRAY_SIZE(steps)];

		if (step > pages - n)
			step = pages - n;
		EXPECT_ALL(step, fill(self, n, step));
		n += step;
		ASSERT_TRUE(present(self, 0, n));
		ASSERT_TRUE(n == pages || left_alone(self, n, pages - n));
	}
	EXPECT_TRUE(filled(self, 0, pages));
}

/* Fills that end, and the threads that wait for what they fill. */
TEST_F_TIMEOUT(path, wakes, LIMIT)
{
	const size_t where[] = { 3, SKEW, SKEW + block - 1, pages - 1 };
	struct uk_thread t[ARRAY_SIZE(where)];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(where); i++)
		ASSERT_EQ(0, uk_start(&t[i], uk_peek, at(self, where[i])));
	ASSERT_TRUE(uk_parked(self->fd, i, i));
	EXPECT_ALL(SKEW + block, fill(self, 0, SKEW + block));
	EXPECT_TRUE(uk_join_all(t, 3));
	EXPECT_TRUE(uk_stays(&t[3]));
	EXPECT_ALL(block + SKEW, fill(self, SKEW + block, block + SKEW));
	EXPECT_TRUE(uk_join(&t[3], UK_SOON));
	for (i = 0; i < ARRAY_SIZE(where); i++)
		EXPECT_EQ((unsigned char)*want(where[i]), t[i].ret);
}

/* Something is in the way. */

/* A page that has come by another way. */
static struct uk_fill put(struct path_test *self, size_t i)
{
	if (self->op == CONTINUE)
		return uk_continue(self->fd, at(self, i), page, 0);
	return uk_copy(self->fd, at(self, i), want((i + 7) % pages), page, 0);
}

static bool still_put(struct path_test *self, size_t i)
{
	size_t k = self->op == CONTINUE ? i : (i + 7) % pages;

	return !memcmp(at(self, i), want(k), page);
}

TEST_F_TIMEOUT(path, page_in_the_middle, LIMIT)
{
	const size_t where[] = { 0, 17, SKEW, SKEW + 32, SKEW + block / 2 + 1,
				 SKEW + block - 1, SKEW + block, pages - 1 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(where); i++) {
		size_t n = where[i], rest = pages - n - 1;

		ASSERT_EQ(0, again(self));
		EXPECT_ALL(1, put(self, n));
		if (n)
			EXPECT_SOME(n, fill(self, 0, pages));
		EXPECT_NONE(-EEXIST, fill(self, n, pages - n));
		EXPECT_TRUE(!n || filled(self, 0, n));
		EXPECT_TRUE(!rest || left_alone(self, n + 1, rest));
		EXPECT_TRUE(still_put(self, n));
		if (rest)
			EXPECT_ALL(rest, fill(self, n + 1, rest));
		EXPECT_TRUE(!rest || filled(self, n + 1, rest));
		EXPECT_TRUE(still_put(self, n));
		EXPECT_TRUE(!n || holds(self, 0, n));
	}
}

/* Marks of write protection are nothing to a copy. */
TEST_F_TIMEOUT(path, marks_in_the_middle, LIMIT)
{
	if (self->op != COPY || !is_anon(self))
		SKIP(return, "copies into anonymous memory only");
	if (!(uk_offered() & UFFD_FEATURE_WP_UNPOPULATED))
		SKIP(return, "no such marks on this kernel");
	ASSERT_EQ(0, arm(self, UFFD_FEATURE_WP_UNPOPULATED, MISSING | WP));
	ASSERT_EQ(0, uk_protect(self->fd, at(self, SKEW + 40), 3 * page,
				UFFDIO_WRITEPROTECT_MODE_WP));
	EXPECT_ALL(pages, fill(self, 0, pages));
	EXPECT_TRUE(filled(self, 0, pages));
	EXPECT_EQ(0, uk_pages(self->area, pages * page, UK_PM_WP));
}

/* The zero page is in the way; poison is for moves, but gives way to copies. */
TEST_F_TIMEOUT(path, other_entries_in_the_middle, LIMIT)
{
	const size_t zero = SKEW + 40, poison = SKEW + block + 70;
	const size_t next = zero + 1, last = poison + 1;

	if (self->op == CONTINUE || self->kind == UK_SHMEM)
		SKIP(return, "anonymous pages only");
	if (!(uk_offered() & UFFD_FEATURE_POISON))
		SKIP(return, "no poison on this kernel");
	EXPECT_ALL(1, uk_zero(self->fd, at(self, zero), page, 0));
	EXPECT_ALL(1, uk_poison(self->fd, at(self, poison), page, 0));
	EXPECT_SOME(zero, fill(self, 0, pages));
	EXPECT_NONE(-EEXIST, fill(self, zero, 5));
	if (self->op == MOVE) {
		EXPECT_SOME(poison - next, fill(self, next, pages - next));
		EXPECT_NONE(-EEXIST, fill(self, poison, 5));
		EXPECT_ALL(pages - last, fill(self, last, pages - last));
		EXPECT_EQ(SIGBUS, uk_catch(uk_peek, at(self, poison), NULL,
					   NULL));
	} else {
		EXPECT_ALL(pages - next, fill(self, next, pages - next));
		EXPECT_TRUE(filled(self, poison, 1));
	}
	EXPECT_TRUE(uk_all_zero(at(self, zero), page));
	EXPECT_TRUE(filled(self, 0, zero));
	EXPECT_TRUE(filled(self, next, poison - next));
	EXPECT_TRUE(filled(self, last, pages - last));
}

/* Limits. */

/*
 * The limit of the cgroup is reached: what fits counts. Between setting it and
 * lifting it, this process must need no memory for itself.
 */
TEST_F_TIMEOUT(path, limit_of_the_cgroup, LIMIT)
{
	size_t room = huge + huge / 2, n = 0;
	struct uk_fill first, res;
	char text[32];
	const char *why;
	long before;
	int max;

	if (self->op != COPY)
		SKIP(return, "only copies need memory");
	why = join_group();
	if (why)
		SKIP(return, "%s", why);
	/* There is nobody whose end would help. */
	ASSERT_TRUE(uk_write_file("/proc/self/oom_score_adj", "-1000"));
	max = open(GROUP "memory.max", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, max);
	before = uk_read_number(GROUP "memory.current");
	snprintf(text, sizeof(text), "%ld", before + (long)room);

	ASSERT_LT(0, write(max, text, strlen(text)));
	first = fill(self, 0, pages);
	for (res = first; res.out > 0 && n < pages; res = fill(self, n,
							      pages - n))
		n += res.out / page;
	ASSERT_EQ(3, pwrite(max, "max", 3, 0));

	EXPECT_EQ(-EAGAIN, first.err);
	EXPECT_LT(0, first.out);
	EXPECT_NONE(-ENOMEM, res);
	/* After a first huge page there is no room for another, but some. */
	EXPECT_LT(SKEW + block + SKEW, n);
	EXPECT_GE((room + group_slack()) / page, n);
	ASSERT_GT(pages, n);
	EXPECT_TRUE(filled(self, 0, n));
	EXPECT_TRUE(left_alone(self, n, pages - n));
	EXPECT_ALL(pages - n, fill(self, n, pages - n));
	EXPECT_TRUE(filled(self, 0, pages));
	if (self->size == LARGE && has_large)
		EXPECT_EQ(1, huges(self));
	close(max);
}

/*
 * The first huge page of a new cgroup. Where each cgroup has a list of its own of huge
 * pages that are to be split, it is made when there is one: else this page goes on its
 * parent's, is taken off its own, and the kernel complains when the cgroup goes.
 */
TEST(first_of_a_cgroup)
{
	static const char group[] = CGROUPS "uffd-large-new/";
	const char *why;
	char *p, *q;
	int fd;

	if (!has_large)
		SKIP(return, "copies get no huge pages here");
	rmdir(group);
	why = join(group);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_TRUE(set(THP, "madvise"));
	p = uk_reserve(huge, huge);
	q = uk_reserve(huge, huge);
	ASSERT_NE(NULL, p);
	ASSERT_NE(NULL, q);
	ASSERT_EQ(0, mprotect(p, huge, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, mprotect(q, huge, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, madvise(p, huge, MADV_HUGEPAGE));
	ASSERT_EQ(0, madvise(q, huge, MADV_HUGEPAGE));
	fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, uk_register(fd, p, huge));

	ASSERT_EQ(0, uk_copy(fd, p, content, huge, 0).err);
	EXPECT_EQ((long)block, uk_huge(p, huge));
	*(volatile char *)q = 1;
	EXPECT_EQ((long)block, uk_huge(q, huge));
	EXPECT_EQ(0, munmap(p, huge));
	EXPECT_EQ(0, munmap(q, huge));
	close(fd);
	EXPECT_EQ(NULL, join(CGROUPS));
	EXPECT_EQ(0, rmdir(group));
}

/* What is filled is charged to whom it belongs. */
TEST_F_TIMEOUT(path, charged, LIMIT)
{
	long len = pages * page, slack = group_slack(), was, stat;
	const char *why = join_group();
	const char *key = self->kind == UK_SHMEM ? "shmem" : "anon";

	if (self->op != COPY)
		SKIP(return, "only copies need memory");
	if (why)
		SKIP(return, "%s", why);
	was = uk_read_number(GROUP "memory.current");
	stat = group_stat(key);
	EXPECT_ALL(pages, fill(self, 0, pages));
	EXPECT_LE(was + len - slack, uk_read_number(GROUP "memory.current"));
	EXPECT_GE(was + len + slack, uk_read_number(GROUP "memory.current"));
	EXPECT_LE(stat + len - slack, group_stat(key));
	EXPECT_GE(stat + len + slack, group_stat(key));
	EXPECT_EQ(huges(self) * (long)huge,
		  uk_smaps(self->area, len, "AnonHugePages"));
	if (has_large && self->size == LARGE)
		EXPECT_EQ(HUGES, huges(self));
	EXPECT_LE(huges(self) * (long)huge - slack, group_stat("anon_thp"));
	EXPECT_GE(huges(self) * (long)huge + slack, group_stat("anon_thp"));

	/* And no longer when it has gone. */
	ASSERT_EQ(0, again(self));
	EXPECT_GE(was + slack, uk_read_number(GROUP "memory.current"));
	EXPECT_EQ(0, uk_smaps(self->area, len, "AnonHugePages"));
}

static bool fail_nth(int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", n);
	return uk_write_file("/proc/thread-self/fail-nth", text);
}

/* One allocation fails, each in its turn. */
TEST_F_TIMEOUT(path, failing_allocations, LIMIT)
{
	unsigned int n, hit = 0;

	if (!set(FAIL_ORDER, "0") || !set(FAIL_WAIT, "N") ||
	    !set(FAIL_HIGHMEM, "N") || !fail_nth(0))
		SKIP(return, "no fault injection");
	set(FAIL_LOUD, "0");
	set(FAIL_SLAB_LOUD, "0");
	for (n = 1;; n += 1 + n / 8) {
		struct uk_fill res;
		size_t got = 0;
		long left;

		ASSERT_EQ(0, again(self));
		ASSERT_TRUE(fail_nth(n));
		res = fill(self, 0, pages);
		left = uk_read_number("/proc/thread-self/fail-nth");
		ASSERT_TRUE(fail_nth(0));
		hit += !left;
		if (res.err == -EAGAIN && res.out > 0)
			got = res.out / page;
		else if (res.err)
			UK_EXPECT_FILL(-ENOMEM, -ENOMEM, res);
		else
			got = pages;
		ASSERT_TRUE(!got || filled(self, 0, got));
		ASSERT_TRUE(got == pages || left_alone(self, got, pages - got));
		if (got < pages)
			EXPECT_ALL(pages - got, fill(self, got, pages - got));
		ASSERT_TRUE(filled(self, 0, pages));
		if (left > 0)
			break;
	}
	TH_LOG("%u allocations failed", hit);
}

/* The source. */

/* A source for copies that only this test uses, and that may go away. */
static char *own_source(struct path_test *self)
{
	char *p = like_area();

	if (!p || mprotect(p, pages * page, PROT_READ | PROT_WRITE))
		return NULL;
	memcpy(p, content, pages * page);
	self->src = p;
	return p;
}

TEST_F_TIMEOUT(path, swapped_source, LIMIT)
{
	const char *why = uk_swap_on(2 * pages * page);
	const size_t where[] = { 5, SKEW + 60, SKEW + block + 100 };
	size_t i;

	if (why)
		SKIP(return, "%s", why);
	if (self->op == COPY)
		ASSERT_NE(NULL, own_source(self));
	for (i = 0; i < ARRAY_SIZE(where); i++)
		ASSERT_TRUE(uk_swap_out(from(self, where[i]), 10 * page));
	EXPECT_ALL(pages, fill(self, 0, pages));
	EXPECT_TRUE(holds(self, 0, pages));
	EXPECT_TRUE(present(self, 0, pages));
}

/* In the page cache, but not in the page table. */
TEST_F_TIMEOUT(path, source_in_a_file, LIMIT)
{
	char *p;
	int fd;

	if (self->op != COPY)
		SKIP(return, "copies only");
	fd = syscall(__NR_memfd_create, "source", MFD_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(pages * page, write(fd, content, pages * page));
	p = mmap(NULL, pages * page, PROT_READ, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	self->src = p;
	/* None of it, then all but something in the middle. */
	EXPECT_ALL(pages, fill(self, 0, pages));
	EXPECT_TRUE(filled(self, 0, pages));
	ASSERT_EQ(0, again(self));
	ASSERT_EQ(0, madvise(p, pages * page, MADV_POPULATE_READ));
	ASSERT_EQ(0, madvise(p + 10 * page, page, MADV_DONTNEED));
	ASSERT_EQ(0, madvise(p + (SKEW + 100) * page, 100 * page,
			     MADV_DONTNEED));
	EXPECT_ALL(pages, fill(self, 0, pages));
	EXPECT_TRUE(filled(self, 0, pages));
	close(fd);
}

TEST_F_TIMEOUT(path, source_that_ends, LIMIT)
{
	const size_t where[] = { 5, SKEW + 60, SKEW + block,
				 SKEW + block + 100 };
	const __s64 odd = 100;
	size_t i;

	for (i = ARRAY_SIZE(where); i--;) {
		size_t n = where[i], len = (pages - n) * page;
		int err = -EFAULT;

		if (self->op == CONTINUE) {
			/* The file has no page. */
			ASSERT_EQ(0, madvise(from(self, n), page, MADV_REMOVE));
		} else if (self->op == MOVE) {
			ASSERT_EQ(0, again(self));
			ASSERT_EQ(0, madvise(from(self, n), len,
					     MADV_DONTNEED));
			err = -ENOENT;
		} else {
			ASSERT_NE(NULL, own_source(self));
			ASSERT_EQ(0, munmap(from(self, n), len));
		}
		EXPECT_SOME(n, fill(self, 0, pages));
		EXPECT_NONE(err, fill(self, n, pages - n));
		EXPECT_TRUE(filled(self, 0, n));
		EXPECT_TRUE(absent(self, n, pages - n));
		ASSERT_EQ(0, madvise(self->area, pages * page, MADV_DONTNEED));
		if (self->op != COPY)
			continue;

		/* And where it begins and ends within a page. */
		ASSERT_EQ(0, again(self));
		EXPECT_SOME(n - 1, uk_copy(self->fd, self->area,
					   self->src + odd, pages * page, 0));
		EXPECT_EQ(0, memcmp(self->area, content + odd, (n - 1) * page));
		EXPECT_TRUE(absent(self, n - 1, pages - n + 1));
		ASSERT_EQ(0, again(self));
	}
}

/* Pages are moved out of one mapping only. */
TEST_F_TIMEOUT(path, source_across_an_edge, LIMIT)
{
	const size_t n = SKEW + 100;

	if (self->op != MOVE)
		SKIP(return, "moves only");
	ASSERT_EQ(0, madvise(from(self, n), (pages - n) * page,
			     MADV_DONTDUMP));
	EXPECT_NONE(-EINVAL, fill(self, 0, pages));
	EXPECT_NONE(-EINVAL, fill(self, n - 1, 2));
	EXPECT_TRUE(left_alone(self, 0, pages));
	EXPECT_ALL(n, fill(self, 0, n));
	EXPECT_ALL(pages - n, fill(self, n, pages - n));
	EXPECT_TRUE(filled(self, 0, pages));
}

/* The destination. */

TEST_F_TIMEOUT(path, edges_of_mappings, LIMIT)
{
	const int err = self->op == MOVE ? -EINVAL : -ENOENT;
	const size_t where[] = { SKEW, SKEW + 100, SKEW + block,
				 SKEW + block + 33 };
	size_t i;

	/* One page more than there is. */
	EXPECT_NONE(err, fill(self, 1, pages));
	EXPECT_TRUE(left_alone(self, 0, pages));
	/* Two mappings, that differ in what does not matter. */
	for (i = 0; i < ARRAY_SIZE(where); i++) {
		size_t n = where[i];

		ASSERT_EQ(0, afresh(self));
		ASSERT_EQ(0, madvise(at(self, n), (pages - n) * page,
				     MADV_DONTDUMP));
		EXPECT_NONE(err, fill(self, 0, pages));
		EXPECT_NONE(err, fill(self, n - 1, 2));
		EXPECT_TRUE(left_alone(self, 0, pages));
		EXPECT_ALL(n, fill(self, 0, n));
		EXPECT_TRUE(left_alone(self, n, pages - n));
		EXPECT_ALL(pages - n, fill(self, n, pages - n));
		EXPECT_TRUE(filled(self, 0, pages));
		if (has_large && self->op == COPY && self->size == LARGE)
			EXPECT_EQ((n - SKEW) % block ? HUGES - 1 : HUGES,
				  huges(self));
	}
}

/* Into memory that its owner may only read, for now. */
TEST_F_TIMEOUT(path, not_writable, LIMIT)
{
	if (self->op == MOVE)
		SKIP(return, "moves need memory that is alike");
	ASSERT_EQ(0, mprotect(self->area, pages * page, PROT_READ));
	EXPECT_ALL(pages, fill(self, 0, pages));
	EXPECT_TRUE(filled(self, 0, pages));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, SKEW + 9), NULL, NULL));
	ASSERT_EQ(0, mprotect(self->area, pages * page,
			      PROT_READ | PROT_WRITE));
	uk_poke(at(self, SKEW + 9));
	EXPECT_EQ(0xa5, uk_peek(at(self, SKEW + 9)));
	EXPECT_TRUE(filled(self, 0, SKEW + 9));
	EXPECT_TRUE(filled(self, SKEW + 10, pages - SKEW - 10));
}

TEST_F_TIMEOUT(path, locked, LIMIT)
{
	if (self->op == MOVE &&
	    mlock2(self->src, pages * page, MLOCK_ONFAULT))
		SKIP(return, "cannot lock memory");
	if (mlock2(self->area, pages * page, MLOCK_ONFAULT))
		SKIP(return, "cannot lock memory");
	EXPECT_ALL(pages, fill(self, 0, pages));
	EXPECT_TRUE(filled(self, 0, pages));
	ASSERT_EQ(0, munlock(self->area, pages * page));
	EXPECT_TRUE(filled(self, 0, pages));
}

/* Overlap. */

/* Each page is the source of one further up, as soon as it is there. */
TEST_F_TIMEOUT(path, copy_of_what_it_copies, LIMIT)
{
	static const size_t by[] = { 1, 5, 16, 17, SKEW, 40, 300 };
	struct uk_thread t;
	size_t i, k;

	if (self->op != COPY)
		SKIP(return, "copies only");
	for (i = 0; i < ARRAY_SIZE(by); i++) {
		size_t n = by[i];
		struct uk_job j = {
			.fd = self->fd,
			.dst = at(self, n),
			.src = self->area,
			.len = (pages - n) * page,
		};

		ASSERT_EQ(0, again(self));
		EXPECT_ALL(n, fill(self, 0, n));
		ASSERT_EQ(0, uk_start(&t, uk_copy_job, &j));
		ASSERT_TRUE(uk_join(&t, UK_SOON)) {
			TH_LOG("a copy to %zu pages further up hangs", n);
		}
		UK_ASSERT_FILL(0, j.len, j.res);
		for (k = 0; k < pages; k++)
			ASSERT_EQ(0, memcmp(at(self, k), want(k % n), page));
	}
}

/* Down, until it meets its source. */
TEST_F_TIMEOUT(path, copy_up_to_its_source, LIMIT)
{
	static const size_t by[] = { 1, 16, 17, SKEW, 300 };
	size_t i;

	if (self->op != COPY)
		SKIP(return, "copies only");
	for (i = 0; i < ARRAY_SIZE(by); i++) {
		size_t n = by[i], k;

		ASSERT_EQ(0, again(self));
		EXPECT_ALL(pages - n, fill(self, n, pages - n));
		EXPECT_SOME(n, uk_copy(self->fd, self->area, at(self, n),
				       (pages - n) * page, 0));
		for (k = 0; k < n; k++)
			ASSERT_EQ(0, memcmp(at(self, k), want(k + n), page));
		EXPECT_TRUE(holds(self, n, pages - n));
	}
}

/* Down, in one mapping; apart from overlap, any page to any place. */
TEST_F_TIMEOUT(path, move_down, LIMIT)
{
	const size_t by[] = { 1, 16, SKEW, block / 2, block, block + 1 };
	size_t i;

	if (self->op != MOVE)
		SKIP(return, "moves only");
	for (i = 0; i < ARRAY_SIZE(by); i++) {
		size_t n = by[i], rest = pages - n;

		ASSERT_EQ(0, again(self));
		EXPECT_ALL(rest, fill(self, n, rest));
		EXPECT_ALL(rest, uk_move(self->fd, self->area, at(self, n),
					 rest * page, 0));
		EXPECT_TRUE(present(self, 0, rest));
		EXPECT_TRUE(absent(self, rest, n));
		EXPECT_EQ(0, memcmp(self->area, want(n), rest * page));
		/* Up again, where the first is in the way of nothing. */
		if (n * 2 < pages)
			continue;
		EXPECT_ALL(rest, uk_move(self->fd, at(self, n), self->area,
					 rest * page, 0));
		EXPECT_TRUE(filled(self, n, rest));
		EXPECT_TRUE(absent(self, 0, n));
	}
}

/* A source that comes late, from another handler. */

#define LATE		(SKEW + 100)

enum change {
	NO_CHANGE,
	ANOTHER_FILL,
	FORBID_HUGE,
	FORK,
	MPROTECT,
	CUT,
	UNMAP,
	UNREGISTER,
	CHANGES,
};

static int nothing(void *arg)
{
	(void)arg;
	return 0;
}

static int change(struct path_test *self, enum change what)
{
	char *p = at(self, LATE + 150);

	switch (what) {
	case ANOTHER_FILL:
		return uk_copy(self->fd, p, want(3), page, 0).err;
	case FORBID_HUGE:
		return madvise(self->area, pages * page, MADV_NOHUGEPAGE);
	case FORK:
		return uk_in_child(nothing, NULL);
	case MPROTECT:
		return mprotect(self->area, pages * page, PROT_READ);
	case CUT:
		return madvise(p, page, MADV_DONTDUMP);
	case UNMAP:
		return munmap(p, page);
	case UNREGISTER:
		return uk_unregister(self->fd, p, page);
	default:
		return 0;
	}
}

/* Starts a copy, and lets it wait for page LATE of its source. */
static bool start_late_copy(struct path_test *self, int *other,
			    struct uk_thread *t, struct uk_job *j)
{
	struct uffd_msg msg;

	if (!own_source(self) ||
	    madvise(from(self, LATE), page, MADV_DONTNEED))
		return false;
	*other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	if (*other < 0 || uk_register(*other, from(self, LATE), page))
		return false;
	*j = (struct uk_job){
		.fd = self->fd,
		.dst = self->area,
		.src = self->src,
		.len = pages * page,
	};
	return !uk_start(t, uk_copy_job, j) && uk_next(*other, &msg) == 1 &&
	       uk_is_fault(&msg, from(self, LATE)) && uk_stays(t);
}

TEST_F_TIMEOUT(path, late_source, LIMIT)
{
	int what, other;

	if (self->op != COPY)
		SKIP(return, "copies only");
	for (what = 0; what < CHANGES; what++) {
		struct uk_thread t;
		struct uk_job j;

		ASSERT_TRUE(start_late_copy(self, &other, &t, &j));
		/* Nothing of that page, or what comes after it, is there. */
		EXPECT_TRUE(absent(self, LATE, pages - LATE));
		ASSERT_EQ(0, change(self, what));
		EXPECT_ALL(1, uk_copy(other, from(self, LATE), want(LATE), page,
				      0));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		switch (what) {
		case ANOTHER_FILL:
			EXPECT_SOME(LATE + 150, j.res);
			EXPECT_TRUE(filled(self, 0, LATE + 150));
			EXPECT_EQ(0, memcmp(at(self, LATE + 150), want(3),
					    page));
			EXPECT_TRUE(absent(self, LATE + 151,
					   pages - LATE - 151));
			break;
		case CUT:
		case UNMAP:
		case UNREGISTER:
			/* What was there before counts, if anything was. */
			if (j.res.err == -EAGAIN) {
				size_t n = j.res.out / page;

				EXPECT_LT(0, j.res.out);
				ASSERT_GE(LATE, n);
				EXPECT_TRUE(filled(self, 0, n));
				EXPECT_TRUE(absent(self, n, LATE + 150 - n));
			} else {
				EXPECT_NONE(-ENOENT, j.res);
				EXPECT_TRUE(absent(self, 0, LATE + 150));
			}
			EXPECT_TRUE(absent(self, LATE + 151,
					   pages - LATE - 151));
			break;
		default:
			UK_EXPECT_FILL(0, j.len, j.res);
			EXPECT_TRUE(filled(self, 0, pages));
		}
		if (what == FORBID_HUGE && has_large && self->size == LARGE) {
			/* It was not too late for the one it waited with. */
			EXPECT_EQ(0, huges(self));
		}
		close(other);
		ASSERT_EQ(0, afresh(self));
	}
}

/* Write protection. */

TEST_F_TIMEOUT(path, protected, LIMIT)
{
	const size_t where[] = { 2, SKEW, SKEW + 77, SKEW + block + 5 };
	struct uffd_msg msg;
	size_t i;

	if (!is_anon(self) &&
	    !(uk_offered() & UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		SKIP(return, "no write protection of files on this kernel");
	if (!(uk_offered() & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		SKIP(return, "no write protection on this kernel");
	ASSERT_EQ(0, arm(self, 0, mode_of(self) | WP));
	/* One in the way, not protected. */
	EXPECT_ALL(1, put(self, SKEW + 40));
	EXPECT_SOME(SKEW + 40, fill_mode(self, 0, pages, true));
	if (self->op == MOVE)
		EXPECT_EQ(0, uk_protect(self->fd, self->area,
					(SKEW + 40) * page,
					UFFDIO_WRITEPROTECT_MODE_WP));
	EXPECT_EQ(SKEW + 40, uk_pages(self->area, pages * page, UK_PM_WP));

	ASSERT_EQ(0, again(self));
	ASSERT_EQ(0, uk_unregister(self->fd, self->area, pages * page));
	ASSERT_EQ(0, arm(self, 0, mode_of(self) | WP));
	EXPECT_ALL(pages, fill_mode(self, 0, pages, true));
	if (self->op == MOVE) {
		EXPECT_EQ(0, uk_pages(self->area, pages * page, UK_PM_WP));
		EXPECT_EQ(0, uk_protect(self->fd, self->area, pages * page,
					UFFDIO_WRITEPROTECT_MODE_WP));
	}
	EXPECT_TRUE(filled(self, 0, pages));
	EXPECT_EQ(pages, uk_pages(self->area, pages * page, UK_PM_WP));
	for (i = 0; i < ARRAY_SIZE(where); i++) {
		char *p = at(self, where[i]);
		struct uk_thread t;

		ASSERT_EQ(0, uk_start(&t, uk_poke, p));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_fault(&msg, p));
		EXPECT_EQ(UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE,
			  msg.arg.pagefault.flags);
		EXPECT_TRUE(uk_stays(&t));
		EXPECT_TRUE(holds(self, where[i], 1));
		EXPECT_EQ(0, uk_protect(self->fd, p, page, 0));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		EXPECT_EQ(0xa5, uk_peek(p));
		EXPECT_EQ(0, memcmp(p + 1, want(where[i]) + 1, page - 1));
	}
	EXPECT_EQ(pages - i, uk_pages(self->area, pages * page, UK_PM_WP));
	EXPECT_EQ(0, uk_protect(self->fd, self->area, pages * page, 0));
	EXPECT_EQ(0, uk_pages(self->area, pages * page, UK_PM_WP));
	memcpy(self->area, content, pages * page);
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
}

/* What becomes of it. */

static struct path_test *forked;

/* In a child: what it got is its own, unless shared. */
static int use_in_child(void *arg)
{
	struct path_test *self = forked;

	UK_CHECK(holds(self, 0, pages));
	if (self->kind != UK_SHMEM) {
		memset(at(self, SKEW + 3), 0x11, page);
		memset(at(self, SKEW + block), 0x22, block / 2 * page);
		UK_CHECK(holds(self, SKEW + 4, block - 4));
	}
	return *(int *)arg;
}

TEST_F_TIMEOUT(path, split_by_fork, LIMIT)
{
	int ret = 7;

	EXPECT_ALL(pages, fill(self, 0, pages));
	forked = self;
	EXPECT_EQ(7, uk_in_child(use_in_child, &ret));
	EXPECT_TRUE(filled(self, 0, pages));
	if (self->kind != UK_SHMEM) {
		uk_poke(at(self, SKEW + 3));
		EXPECT_TRUE(holds(self, SKEW + 4, pages - SKEW - 4));
		EXPECT_TRUE(holds(self, 0, SKEW + 3));
	}
}

TEST_F_TIMEOUT(path, split_by_dropping_a_page, LIMIT)
{
	const size_t where[] = { SKEW, SKEW + 99, SKEW + 2 * block - 1 };
	struct uffd_msg msg;
	struct uk_thread t;
	size_t i;

	EXPECT_ALL(pages, fill(self, 0, pages));
	for (i = 0; i < ARRAY_SIZE(where); i++) {
		size_t n = where[i];

		ASSERT_EQ(0, madvise(at(self, n), page,
				     self->op == COPY &&
				     self->kind == UK_SHMEM ? MADV_REMOVE :
							      MADV_DONTNEED));
		EXPECT_EQ(pages - 1, uk_pages(self->area, pages * page,
					      UK_PM_PRESENT));
		EXPECT_TRUE(holds(self, 0, n));
		EXPECT_TRUE(holds(self, n + 1, pages - n - 1));
		ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, n)));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		EXPECT_TRUE(uk_is_fault(&msg, at(self, n)));
		EXPECT_ALL(1, self->op == CONTINUE ? fill(self, n, 1) :
			   uk_copy(self->fd, at(self, n), want(n), page, 0));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		EXPECT_TRUE(filled(self, 0, pages));
	}
}

TEST_F_TIMEOUT(path, split_by_system_calls, LIMIT)
{
	const size_t n = SKEW + block / 2, m = SKEW + block + 20;
	char *spare = like_area();

	EXPECT_ALL(pages, fill(self, 0, pages));
	/* Half of it with another protection. */
	ASSERT_EQ(0, mprotect(at(self, n), block * page, PROT_READ));
	EXPECT_EQ(SIGSEGV, uk_catch(uk_poke, at(self, n), NULL, NULL));
	EXPECT_TRUE(filled(self, 0, pages));
	ASSERT_EQ(0, mprotect(at(self, n), block * page,
			      PROT_READ | PROT_WRITE));
	/* Some of it elsewhere. */
	ASSERT_NE(MAP_FAILED, mremap(at(self, m), 50 * page, 50 * page,
				     MREMAP_MAYMOVE | MREMAP_FIXED,
				     spare + 3 * page));
	EXPECT_EQ(0, memcmp(spare + 3 * page, want(m), 50 * page));
	ASSERT_NE(MAP_FAILED, mremap(spare + 3 * page, 50 * page, 50 * page,
				     MREMAP_MAYMOVE | MREMAP_FIXED,
				     at(self, m)));
	EXPECT_TRUE(filled(self, 0, pages));
	/* Collapsed, if that is possible. */
	madvise(self->area, pages * page, MADV_COLLAPSE);
	EXPECT_TRUE(holds(self, 0, pages));
	/* And half of it gone. */
	ASSERT_EQ(0, munmap(at(self, n), (pages - n) * page));
	EXPECT_TRUE(filled(self, 0, n));
	uk_paint(self->area, n * page, 5);
	EXPECT_TRUE(uk_painted(self->area, n * page, 5));
}

TEST_F_TIMEOUT(path, swapped_out_after, LIMIT)
{
	const char *why = uk_swap_on(2 * pages * page);

	if (why)
		SKIP(return, "%s", why);
	if (self->op == CONTINUE || self->kind == UK_SHMEM)
		SKIP(return, "anonymous pages only");
	EXPECT_ALL(pages, fill(self, 0, pages));
	ASSERT_TRUE(uk_swap_out(at(self, SKEW + 200), 100 * page));
	EXPECT_NONE(-EEXIST, put(self, SKEW + 200));
	EXPECT_TRUE(holds(self, 0, pages));
	ASSERT_TRUE(uk_swap_out(self->area, pages * page));
	EXPECT_NONE(-EEXIST, put(self, SKEW));
	EXPECT_TRUE(holds(self, 0, pages));
	EXPECT_TRUE(present(self, 0, pages));
}

/* What is large. */

TEST_F_TIMEOUT(path, size_of_folios, LIMIT)
{
	const size_t part = (64 << 10) / page;
	long large;

	if (self->op != COPY || self->size == SMALL)
		SKIP(return, "for copies that may be large");
	if (!needs_large())
		SKIP(return, "copies are small on this kernel");
	if (geteuid())
		SKIP(return, "only root may know");
	EXPECT_ALL(pages, fill(self, 0, pages));
	EXPECT_EQ(self->size == LARGE ? HUGES : 0, huges(self));
	/* As much as is aligned. */
	large = self->size == LARGE ? HUGES * block :
				      HUGES * block + 2 * (SKEW / part * part);
	EXPECT_EQ(large, uk_compound(self->area, pages * page));

	/* Never more than there was to fill. */
	ASSERT_EQ(0, afresh(self));
	EXPECT_ALL(block - 1, fill(self, SKEW, block - 1));
	EXPECT_EQ(0, huges(self));
	EXPECT_EQ(self->size == LARGE ? 0 : block - part,
		  uk_compound(self->area, pages * page));
	ASSERT_EQ(0, afresh(self));
	EXPECT_ALL(1, fill(self, SKEW, 1));
	EXPECT_ALL(block - 1, fill(self, SKEW + 1, block - 1));
	EXPECT_EQ(self->size == LARGE ? 0 : block - part,
		  uk_compound(self->area, pages * page));
	EXPECT_TRUE(filled(self, SKEW, block));

	/* A page in the way concerns what it is in the way of. */
	ASSERT_EQ(0, afresh(self));
	EXPECT_ALL(1, put(self, SKEW + block + part + 1));
	EXPECT_SOME(SKEW + block + part + 1, fill(self, 0, pages));
	EXPECT_ALL(block - part - 2 + SKEW,
		   fill(self, SKEW + block + part + 2,
			block - part - 2 + SKEW));
	EXPECT_EQ(self->size == LARGE ? block : large - part,
		  uk_compound(self->area, pages * page));

	/* Markers of protection count as that. */
	if (!(uk_offered() & UFFD_FEATURE_WP_UNPOPULATED))
		return;
	ASSERT_EQ(0, afresh(self));
	ASSERT_EQ(0, arm(self, UFFD_FEATURE_WP_UNPOPULATED, MISSING | WP));
	ASSERT_EQ(0, uk_protect(self->fd, at(self, SKEW + 2), page,
				UFFDIO_WRITEPROTECT_MODE_WP));
	EXPECT_ALL(pages, fill_mode(self, 0, pages, true));
	EXPECT_EQ(pages, uk_pages(self->area, pages * page, UK_PM_WP));
	EXPECT_EQ(self->size == LARGE ? block : large - part,
		  uk_compound(self->area, pages * page));
}

/* Where a fault would not get a huge page, a copy does not. */

struct policy {
	const char *all;	/* for the system */
	const char *pmd;	/* for this size */
	int advice;		/* for the mapping, or -1 */
	bool disabled;		/* for the process */
	bool huge;
};

static const struct policy policies[] = {
	{ "never", "inherit", MADV_HUGEPAGE, false, false },
	{ "madvise", "inherit", -1, false, false },
	{ "madvise", "inherit", MADV_NOHUGEPAGE, false, false },
	{ "madvise", "inherit", MADV_HUGEPAGE, false, true },
	{ "madvise", "inherit", MADV_HUGEPAGE, true, false },
	{ "always", "inherit", -1, false, true },
	{ "always", "inherit", MADV_NOHUGEPAGE, false, false },
	{ "always", "inherit", -1, true, false },
	{ "always", "never", MADV_HUGEPAGE, false, false },
	{ "never", "always", -1, false, true },
	{ "never", "madvise", -1, false, false },
	{ "never", "madvise", MADV_HUGEPAGE, false, true },
};

TEST(as_policy_says)
{
	size_t len = HUGES * huge;
	unsigned int i;
	int fd;

	if (geteuid() || !content || !set(THP, "madvise") ||
	    !set(THP_PMD, "inherit"))
		SKIP(return, "no huge pages, or not ours to set");
	for (i = 0; i < ARRAY_SIZE(policies); i++) {
		const struct policy *policy = &policies[i];
		char *p = uk_reserve(len, huge);
		long got;

		ASSERT_NE(NULL, p);
		ASSERT_EQ(0, mprotect(p, len, PROT_READ | PROT_WRITE));
		fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
		ASSERT_LE(0, fd);
		ASSERT_TRUE(set(THP, policy->all) && set(THP_PMD, policy->pmd));
		if (policy->advice >= 0)
			ASSERT_EQ(0, madvise(p, len, policy->advice));
		ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, policy->disabled, 0, 0,
				   0));
		ASSERT_EQ(0, uk_register(fd, p, len));
		UK_EXPECT_FILL(0, len, uk_copy(fd, p, content, len, 0));
		got = uk_huge(p, len) / block;
		if (!policy->huge || needs_large()) {
			EXPECT_EQ(policy->huge ? HUGES : 0, got) {
				TH_LOG("policy %u", i);
			}
		}
		EXPECT_EQ(got * (long)huge, uk_smaps(p, len, "AnonHugePages"));
		EXPECT_EQ(0, memcmp(p, content, len));
		close(fd);
		munmap(p, len);
	}
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	restore_settings(false);
}

/* All at once. */

/* The pages that these tests use. */
#define SOME		(SKEW + block + SKEW)
/* The places in a page that are different in each round. */
#define STAMPS		8

struct crew {
	struct path_test *self;
	pthread_barrier_t gate;
	bool stop;
	bool wp;
	char *source[2];
	char *spare;
	bool *dropped;		/* perhaps, in this round */
	int bad;		/* line of what should not be */
	size_t unsound;		/* the page, and its entries here and there */
	__u64 entry[2];
};

struct worker {
	struct crew *crew;
	unsigned long rnd;
	unsigned int nr;
	unsigned long calls, done;
};

static unsigned int next_random(unsigned long *state)
{
	*state = *state * 6364136223846793005UL + 1442695040888963407UL;
	return *state >> 33;
}

/* A range, short as a rule, at times all of it or what a huge page may have. */
static void any_range(unsigned long *rnd, size_t *i, size_t *n)
{
	switch (next_random(rnd) % 8) {
	case 0:
		*i = 0;
		*n = SOME;
		break;
	case 1:
	case 2:
		*i = SKEW;
		*n = block;
		break;
	case 3:
		*i = next_random(rnd) % SOME;
		*n = SOME - *i;
		break;
	default:
		*i = next_random(rnd) % SOME;
		*n = 1 + next_random(rnd) % 40;
		if (*n > SOME - *i)
			*n = SOME - *i;
	}
}

static void note_bad(struct crew *c, int line)
{
	int none = 0;

	__atomic_compare_exchange_n(&c->bad, &none, line, false,
				    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* May a call that has met others end like this? */
static bool plausible(struct crew *c, struct uk_fill res, size_t n)
{
	__s64 len = n * page;

	if (!res.err)
		return res.out == len;
	if (res.err == -EAGAIN && res.out > 0)
		return res.out < len && !(res.out % page);
	if (res.out != res.err)
		return false;
	switch (res.err) {
	case -EAGAIN:
	case -EEXIST:
	case -ENOENT:
		return true;
	case -EFAULT:
		/* No page in the file; or, before the series, a huge page. */
		return true;
	case -EINVAL:
	case -EBUSY:
		return c->self->op == MOVE;
	default:
		return false;
	}
}

static void fill_some(struct worker *w)
{
	struct crew *c = w->crew;
	struct path_test *self = c->self;
	unsigned int k;

	for (k = 0; k < 6; k++) {
		struct uk_fill res;
		size_t i, n;

		any_range(&w->rnd, &i, &n);
		if (self->op == COPY)
			res = uk_copy(self->fd, at(self, i),
				      c->source[w->nr] + i * page, n * page,
				      c->wp && next_random(&w->rnd) % 2 ?
				      COPY_WP : 0);
		else
			res = fill_mode(self, i, n, c->wp &&
					next_random(&w->rnd) % 2);
		if (!plausible(c, res, n)) {
			fprintf(stderr, "# fill of %zu pages at %zu: %d, %lld\n",
				n, i, res.err, (long long)res.out);
			note_bad(c, __LINE__);
		}
		w->calls++;
		w->done += res.out > 0 ? res.out / page : 0;
	}
}

/* The pagemap's entries of the pages that these tests use. */
static bool read_map(const char *addr, __u64 entry[])
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	n = pread(fd, entry, SOME * 8, (unsigned long)addr / page * 8);
	close(fd);
	return n == (ssize_t)(SOME * 8);
}

/*
 * A part of a huge page that is punched out of a file may stay there, and becomes
 * zeros.
 */
static bool is_punched(struct crew *c, size_t i, bool in_child)
{
	struct path_test *self = c->self;

	return self->op == CONTINUE && self->size == LARGE && c->dropped[i] &&
	       (in_child || uk_all_zero(at(self, i), page));
}

/* Each page is absent, or what one of its sources has, whole. */
static bool is_sound(struct crew *c, bool in_child)
{
	struct path_test *self = c->self;
	__u64 there[SOME], left[SOME];
	size_t i;

	if (!read_map(self->area, there) || !read_map(self->src, left))
		return false;
	for (i = 0; i < SOME; i++) {
		bool here = there[i] & UK_PM_PRESENT;

		c->unsound = i;
		c->entry[0] = there[i];
		c->entry[1] = left[i];
		if (here && memcmp(at(self, i), c->source[0] + i * page,
				   page) &&
		    memcmp(at(self, i), c->source[1] + i * page, page) &&
		    !is_punched(c, i, in_child))
			return false;
		if (self->op != MOVE || in_child)
			continue;
		if (left[i] & UK_PM_PRESENT) {
			/* It is not in two places. */
			if (here || memcmp(from(self, i), c->source[0] +
					   i * page, page))
				return false;
		} else if (!here && !c->dropped[i]) {
			return false;
		}
	}
	return true;
}

static struct crew *inherited;

static int look_in_child(void *arg)
{
	(void)arg;
	return !is_sound(inherited, true);
}

static __u64 crew_mode(struct crew *c)
{
	return mode_of(c->self) | (c->wp ? WP : 0);
}

static int rearm(struct crew *c)
{
	return uk_register_mode(c->self->fd, c->self->area, SOME * page,
				crew_mode(c), NULL);
}

static void disturb(struct worker *w)
{
	struct crew *c = w->crew;
	struct path_test *self = c->self;
	unsigned int k;

	for (k = 0; k < 4; k++) {
		size_t i, n, len;
		char *p, *q;
		int ret = 0;

		any_range(&w->rnd, &i, &n);
		p = at(self, i);
		q = c->spare + i * page;
		len = n * page;
		switch (next_random(&w->rnd) % 8) {
		case 0:
		case 1:
			memset(c->dropped + i, 1, n);
			ret = madvise(p, len, MADV_DONTNEED);
			break;
		case 2:
			memset(c->dropped + i, 1, n);
			if (self->kind == UK_SHMEM)
				ret = madvise(p, len, MADV_REMOVE);
			else
				ret = madvise(p, len, MADV_DONTNEED);
			break;
		case 3:
			memset(c->dropped + i, 1, n);
			ret = munmap(p, len);
			sched_yield();
			if (map_area(self, i, n) || rearm(c))
				note_bad(c, __LINE__);
			break;
		case 4:
		case 5:
			/* In between, others find a gap. */
			if (mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
				   q) != q)
				break;
			sched_yield();
			if (mremap(q, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
				   p) != p || rearm(c))
				note_bad(c, __LINE__);
			break;
		case 6:
			if (is_anon(self))
				ret = madvise(p, len, next_random(&w->rnd) % 2 ?
					      MADV_NOHUGEPAGE : MADV_HUGEPAGE);
			break;
		default:
			inherited = c;
			ret = uk_in_child(look_in_child, NULL);
		}
		if (ret) {
			fprintf(stderr, "# disturbed: %d, %s\n", ret,
				strerror(errno));
			note_bad(c, __LINE__);
		}
	}
}

static long work(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		pthread_barrier_wait(&w->crew->gate);
		if (uk_get(&w->crew->stop))
			return 0;
		if (w->nr < 2)
			fill_some(w);
		else
			disturb(w);
		pthread_barrier_wait(&w->crew->gate);
	}
}

/* What was there before is gone, and the sources are what they never were. */
static int next_round(struct crew *c, unsigned long round)
{
	struct path_test *self = c->self;
	size_t i, k, s;

	for (s = 0; s < 2; s++) {
		for (i = 0; i < SOME * STAMPS; i++) {
			__u64 stamp = round << 32 | i << 1 | s;

			memcpy(c->source[s] + i * page / STAMPS, &stamp, 8);
		}
		if (self->op == COPY)
			continue;
		/* There is one only. */
		for (k = 0; !s && k < SOME; k++)
			memcpy(from(self, k), c->source[s] + k * page, page);
	}
	memset(c->dropped, 0, SOME);
	if (munmap(self->area, SOME * page) || map_area(self, 0, SOME) ||
	    (self->op == COPY && self->kind == UK_SHMEM &&
	     fallocate(self->file, FALLOC_FL_PUNCH_HOLE |
		       FALLOC_FL_KEEP_SIZE, 0, pages * page)))
		return -errno;
	return rearm(c);
}

TEST_F_TIMEOUT(path, with_others, LIMIT + 600)
{
	const char *seconds = getenv("UFFD_SECONDS");
	const char *text = getenv("UFFD_SEED");
	unsigned long seed = text ? strtoul(text, NULL, 0) :
				    (unsigned long)time(NULL) ^ getpid();
	long long until = uk_now() + (seconds ? atol(seconds) * 1000 : 1500);
	__u64 offered = uk_offered();
	struct worker w[3] = {};
	struct uk_thread t[3];
	struct crew c = { .self = self };
	unsigned long round = 0;
	int i;

	if (!settings[THP].was[0] && self->size != SMALL)
		SKIP(return, "no huge pages");
	TH_LOG("UFFD_SEED=%lu", seed);
	c.wp = offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP &&
	       (is_anon(self) || offered & UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
	c.spare = like_area();
	c.dropped = calloc(SOME, sizeof(bool));
	ASSERT_NE(NULL, c.spare);
	ASSERT_NE(NULL, c.dropped);
	for (i = 0; i < 2; i++) {
		c.source[i] = uk_buffer(SOME * page);
		ASSERT_NE(NULL, c.source[i]);
		memcpy(c.source[i], content + (self->op == COPY ?
		       i * (pages - SOME) * page : 0), SOME * page);
	}
	/*
	 * khugepaged is one of the others. Not where a page is absent: outside of
	 * what is registered, such as the sources of MOVE, it would put zeros. Nor
	 * where it takes pages of a file out of page tables, as it may: to look at
	 * them would be a minor fault.
	 */
	if (self->op != CONTINUE && set(THP_NONE, "0"))
		set(THP_DAEMON, "100");
	pthread_barrier_init(&c.gate, NULL, 4);
	for (i = 0; i < 3; i++) {
		w[i].crew = &c;
		w[i].nr = i;
		w[i].rnd = seed * 3 + i;
		ASSERT_EQ(0, uk_start(&t[i], work, &w[i]));
	}
	do {
		ASSERT_EQ(0, next_round(&c, ++round));
		pthread_barrier_wait(&c.gate);
		pthread_barrier_wait(&c.gate);
		ASSERT_EQ(0, uk_get(&c.bad));
		ASSERT_TRUE(is_sound(&c, false)) {
			TH_LOG("in round %lu: page %zu is %llx, in the source %llx",
			       round, c.unsound, c.entry[0], c.entry[1]);
			uk_sleep(200);
			TH_LOG("and 0.2 s later %s", is_sound(&c, false) ?
			       "it is not so any more" : "still");
		}
	} while (uk_now() < until);
	uk_set(&c.stop, true);
	pthread_barrier_wait(&c.gate);
	ASSERT_TRUE(uk_join_all(t, 3));
	EXPECT_LT(0, w[0].done + w[1].done);
	TH_LOG("%lu rounds, %lu pages by %lu fills", round,
	       w[0].done + w[1].done, w[0].calls + w[1].calls);
}

TEST_HARNESS_MAIN
