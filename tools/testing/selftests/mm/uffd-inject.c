// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: what is left when something fails in the middle of a call.
 *
 * How it works
 * ------------
 * A scene is one call with what it needs around it.  It is played again and
 * again, and each time the next allocation within the call fails
 * (/proc/thread-self/fail-nth), until the call comes to its end before that.
 * After each the result must be one of those documented, what has not been
 * done must have left no trace, who sleeps must sleep on or have been woken
 * for a reason, and the rest of the work, done without failures, must give
 * what it would have given at once.
 *
 * What that does not reach, limits of cgroups, of descriptors and of mappings,
 * memory that cannot be accessed and processes that are gone, is brought about
 * by its own means further down.
 *
 * Each test runs in a memory cgroup of its own.  A cgroup that has been
 * removed lives on for as long as a page charged to it does: so a single page
 * that has been lost shows.
 */
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/falloc.h>

#include "../kselftest_harness.h"
#include "../../../../mm/gup_test.h"
#include "uffd-kit.h"

#define UNITS		6
#define HUGE_UNITS	2	/* of hugetlb: they are dear */
#define LIMIT		600
/* More failures than any of the calls has allocations. */
#define ENDLESS		5000

/* Far from everything else and from each other: no page tables are shared. */
#define FAR(slot)	((void *)(sizeof(long) > 4 ?			\
			 (8UL + (slot)) << (sizeof(long) * 8 - 24) : 0))

/* Settings of the machine */

#define FAIL_PAGE	"/sys/kernel/debug/fail_page_alloc/"
#define FAIL_SLAB	"/sys/kernel/debug/failslab/"
#define FAIL_CALL	"/sys/kernel/debug/fail_function/"
#define CGROUPS		"/sys/fs/cgroup/"
#define GROUP		CGROUPS "uffd-inject/"
#define MAX_MAPPINGS	"/proc/sys/vm/max_map_count"
#define MAX_FILES	"/proc/sys/fs/file-max"
#define NODES		"/sys/kernel/slab/radix_tree_node/failslab"
#define MTHP		"/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled"

/* The kernel log gets no stack traces, tests/inject-sites counts calls. */
static bool ready_to_fail(void)
{
	return uk_write_file(FAIL_PAGE "ignore-gfp-wait", "N") &&
	       uk_write_file(FAIL_PAGE "ignore-gfp-highmem", "N") &&
	       uk_write_file(FAIL_PAGE "min-order", "0") &&
	       uk_write_file(FAIL_PAGE "verbose", "0") &&
	       uk_write_file(FAIL_SLAB "ignore-gfp-wait", "N") &&
	       uk_write_file(FAIL_SLAB "verbose", "0");
}

/* Every allocation of this kind fails, not only one: there is no way round. */
static bool fail_always(const char *what, const char *probability)
{
	char path[128];
	bool ok;

	snprintf(path, sizeof(path), "%sprobability", what);
	ok = uk_write_file(path, probability);
	snprintf(path, sizeof(path), "%stimes", what);
	ok &= uk_write_file(path, "-1");
	snprintf(path, sizeof(path), "%stask-filter", what);
	ok &= uk_write_file(path, "Y");
	snprintf(path, sizeof(path), "%sverbose", what);
	ok &= uk_write_file(path, "0");
	return ok;
}

static void let_fail(bool on)
{
	uk_write_file("/proc/self/make-it-fail", on ? "1" : "0");
}

/* The thread that fails has it open: no allocation but its own counts. */
static int nth_fd = -1;

static bool nth_open(void)
{
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	return nth_fd >= 0;
}

static bool nth_arm(unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	return pwrite(nth_fd, text, len, 0) == len;
}

/* Has something failed since? */
static bool nth_disarm(void)
{
	char text[16] = {};
	ssize_t n = pread(nth_fd, text, sizeof(text) - 1, 0);

	nth_arm(0);
	return n > 0 && !strtoul(text, NULL, 10);
}

static bool write_number(const char *path, long val)
{
	char text[24];

	snprintf(text, sizeof(text), "%ld", val);
	return uk_write_file(path, text);
}

static long memory_info(const char *key)
{
	return uk_number_of("/proc/meminfo", key);
}

static long dying_groups(void)
{
	return uk_number_of(CGROUPS "cgroup.stat", "nr_dying_descendants");
}

static bool join_group(void)
{
	char pid[16];

	uk_write_file(CGROUPS "cgroup.subtree_control", "+memory");
	uk_write_file(CGROUPS "cgroup.subtree_control", "+hugetlb");
	snprintf(pid, sizeof(pid), "%d", getpid());
	return !mkdir(GROUP, 0700) && uk_write_file(GROUP "cgroup.procs", pid);
}

/* Remove the group, and wait until nothing is charged to it any more. */
static long groups_that_stay(long before)
{
	long long end = uk_now() + UK_SOON;
	long left;

	while (rmdir(GROUP) && errno == EBUSY && uk_now() < end)
		uk_sleep(10);
	for (;;) {
		uk_write_file("/proc/sys/vm/drop_caches", "1");
		left = dying_groups() - before;
		if (left <= 0 || uk_now() > end)
			return left;
		uk_sleep(50);
	}
}

/* The stage */

enum op {
	COPY,
	ZERO,
	CONTINUE,
	POISON,
};

/* Its counts are final when it has been stopped. */
struct server {
	struct uk_thread t;
	int fd;
	bool stop;
	unsigned int forks, remaps, removes, unmaps, faults;
	int child[2];		/* the descriptors of as many FORKs */
};

struct stage {
	enum uk_kind kind;
	enum op op;
	size_t unit;
	unsigned int units;
	size_t len;
	int memfd;		/* or -1 */
	char *area;
	char *more;		/* a second area: where pages or mappings go */
	int fd;
	char *src;		/* unit i is painted with seed i */
	bool late;		/* the source is not resident */
	bool policy;		/* pages come from where a policy says */
	bool may_fault;		/* -EFAULT is one of the results */
	__u64 fill_mode;
	struct uk_thread sleeper;
	struct server server;
	struct uk_fill fill;
	long res;
	bool failed;		/* has something been made to fail? */
	pid_t pid;
	/* of the machine, before the test */
	long max_map_count, file_max;
	char mthp[16];
	long dying;
	long free_huge, reserved_huge, surplus_huge;
};

static size_t page;

static bool is_hugetlb(const struct stage *s)
{
	return s->kind == UK_HUGETLB || s->kind == UK_HUGETLB_PRIVATE;
}

static bool is_anon(const struct stage *s)
{
	return s->kind == UK_ANON || s->kind == UK_ANON_SMALL;
}

static bool is_shared(const struct stage *s)
{
	return s->kind == UK_SHMEM || s->kind == UK_HUGETLB;
}

static char *at(const struct stage *s, unsigned int unit)
{
	return s->area + unit * s->unit;
}

/* With no page tables but those that it shares with nobody. */
static char *map_far(const struct stage *s, unsigned int slot)
{
	int flags = is_shared(s) ? MAP_SHARED : MAP_PRIVATE;
	char *p;

	if (is_anon(s))
		flags |= MAP_ANONYMOUS;
	p = mmap(FAR(slot), s->len, PROT_READ | PROT_WRITE, flags, s->memfd, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (is_anon(s))
		madvise(p, s->len, s->kind == UK_ANON ? MADV_HUGEPAGE :
							 MADV_NOHUGEPAGE);
	return p;
}

static bool empty_file(const struct stage *s)
{
	return s->memfd < 0 ||
	       !fallocate(s->memfd, FALLOC_FL_PUNCH_HOLE |
			  FALLOC_FL_KEEP_SIZE, 0, s->len);
}

/* How much the file has of its own. */
static size_t file_bytes(const struct stage *s)
{
	struct stat st;

	return fstat(s->memfd, &st) ? SIZE_MAX : st.st_blocks * 512UL;
}

static bool fill_file(const struct stage *s)
{
	char *p = mmap(NULL, s->len, PROT_READ | PROT_WRITE, MAP_SHARED,
		       s->memfd, 0);
	unsigned int i;

	if (p == MAP_FAILED)
		return false;
	for (i = 0; i < s->units; i++)
		uk_paint(p + i * s->unit, s->unit, i);
	munmap(p, s->len);
	return true;
}

/* A source whose pages come back from a file when they are needed. */
static char *file_buffer(size_t len)
{
	int fd = syscall(__NR_memfd_create, "source", MFD_CLOEXEC);
	char *p;

	if (fd < 0 || ftruncate(fd, len))
		return NULL;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return p == MAP_FAILED ? NULL : p;
}

/* The handler of events: it reads, counts, and fills with zeroes. */
static void serve(struct server *srv, const struct uffd_msg *msg)
{
	switch (msg->event) {
	case UFFD_EVENT_FORK:
		srv->child[srv->forks++ % ARRAY_SIZE(srv->child)] =
			msg->arg.fork.ufd;
		break;
	case UFFD_EVENT_REMAP:
		srv->remaps++;
		break;
	case UFFD_EVENT_REMOVE:
		srv->removes++;
		break;
	case UFFD_EVENT_UNMAP:
		srv->unmaps++;
		break;
	default:
		uk_zero(srv->fd, (void *)(msg->arg.pagefault.address &
					  -(unsigned long)page), page, 0);
		srv->faults++;
	}
}

static long serve_all(void *arg)
{
	struct server *srv = arg;
	struct uffd_msg msg;

	while (!uk_get(&srv->stop)) {
		if (uk_poll(srv->fd, 20) == POLLIN &&
		    uk_read(srv->fd, &msg, 1) == 1)
			serve(srv, &msg);
	}
	return 0;
}

static bool server_start(struct stage *s)
{
	memset(&s->server, 0, sizeof(s->server));
	s->server.fd = s->fd;
	return !uk_start(&s->server.t, serve_all, &s->server);
}

static bool server_stop(struct stage *s)
{
	uk_set(&s->server.stop, true);
	return uk_join(&s->server.t, UK_SOON);
}

static bool stage_file(struct stage *s)
{
	if (is_anon(s))
		return true;
	s->memfd = syscall(__NR_memfd_create, "uffd-inject", MFD_CLOEXEC |
			   (is_hugetlb(s) ? MFD_HUGETLB : 0));
	return s->memfd >= 0 && !ftruncate(s->memfd, s->len);
}

static void paint_source(struct stage *s)
{
	unsigned int i;

	for (i = 0; i < s->units; i++)
		uk_paint(s->src + i * s->unit, s->unit, i);
}

static void set_up(struct __test_metadata *_metadata, struct stage *s,
		   enum uk_kind kind)
{
	/* Whatever this program may touch is charged to others. */
	mlockall(MCL_CURRENT);
	munlockall();
	page = getpagesize();
	s->kind = kind;
	s->unit = page;
	s->units = UNITS;
	s->memfd = -1;
	s->fd = -1;
	s->max_map_count = uk_read_number(MAX_MAPPINGS);
	s->file_max = uk_read_number(MAX_FILES);
	uk_choice(MTHP, s->mthp, sizeof(s->mthp));
	s->dying = dying_groups();
	s->free_huge = memory_info("HugePages_Free");
	s->reserved_huge = memory_info("HugePages_Rsvd");
	s->surplus_huge = memory_info("HugePages_Surp");
	if (s->kind == UK_ANON)
		s->units = 2 * uk_huge_size() / page;
	if (is_hugetlb(s)) {
		s->unit = memory_info("Hugepagesize") * 1024;
		s->units = HUGE_UNITS;
		if (s->free_huge - s->reserved_huge < 2 * HUGE_UNITS + 2)
			SKIP(return, "too few free huge pages");
	}
	s->len = s->units * s->unit;
	if (!ready_to_fail() || !nth_open())
		SKIP(return, "no fault injection, or not root");
	if (!join_group())
		SKIP(return, "no memory cgroup to be had");
	ASSERT_TRUE(stage_file(s));
	s->src = file_buffer(s->len);
	ASSERT_NE(NULL, s->src);
	paint_source(s);
}

/* In the parent, when the test and all that it had are gone. */
static void tear_down(struct __test_metadata *_metadata, struct stage *s)
{
	/* It may have ended anywhere. */
	fail_always(FAIL_PAGE, "0");
	fail_always(FAIL_SLAB, "0");
	uk_write_file(FAIL_SLAB "cache-filter", "N");
	uk_write_file(NODES, "0");
	uk_write_file(FAIL_CALL "inject", "");
	uk_write_file(MTHP, s->mthp);
	write_number(MAX_MAPPINGS, s->max_map_count);
	write_number(MAX_FILES, s->file_max);

	EXPECT_EQ(0, groups_that_stay(s->dying));
	EXPECT_EQ(s->free_huge, memory_info("HugePages_Free"));
	EXPECT_EQ(s->reserved_huge, memory_info("HugePages_Rsvd"));
	EXPECT_EQ(s->surplus_huge, memory_info("HugePages_Surp"));
}

/* What is tested on memory of each kind that has it, ... */

FIXTURE(memory)
{
	struct stage s;
};

FIXTURE_VARIANT(memory)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(memory, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(memory, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(memory, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(memory, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(memory, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(memory, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

FIXTURE_SETUP(memory)
{
	set_up(_metadata, &self->s, variant->kind);
}

FIXTURE_TEARDOWN_PARENT(memory)
{
	tear_down(_metadata, &self->s);
}

#define HUGETLB_ONLY	"of huge pages of hugetlb only"
#define SHARED_ONLY	"of shared memory only"
#define SMALL_ONLY	"of small pages only"
#define ANON_ONLY	"of anonymous memory only"
#define FILE_ONLY	"of memory that has a file"

/* ... and on one: small pages, those that may be huge, those that are. */

FIXTURE(page_by_page)
{
	struct stage s;
};

FIXTURE_SETUP(page_by_page)
{
	set_up(_metadata, &self->s, UK_ANON_SMALL);
}

FIXTURE_TEARDOWN_PARENT(page_by_page)
{
	tear_down(_metadata, &self->s);
}

FIXTURE(huge)
{
	struct stage s;
};

FIXTURE_SETUP(huge)
{
	set_up(_metadata, &self->s, UK_ANON);
}

FIXTURE_TEARDOWN_PARENT(huge)
{
	tear_down(_metadata, &self->s);
}

FIXTURE(whole_page)
{
	struct stage s;
};

FIXTURE_SETUP(whole_page)
{
	set_up(_metadata, &self->s, UK_HUGETLB);
}

FIXTURE_TEARDOWN_PARENT(whole_page)
{
	tear_down(_metadata, &self->s);
}

/* The play */

typedef void (*part)(struct __test_metadata *_metadata, struct stage *s);

struct scene {
	part enter;		/* sets the stage */
	part act;		/* the call, and nothing but the call */
	part settle;		/* judges, does the rest, and clears the stage */
};

static unsigned int play(struct __test_metadata *_metadata, struct stage *s,
			 const struct scene *scene)
{
	unsigned int n;

	for (n = 1; n < ENDLESS; n++) {
		scene->enter(_metadata, s);
		ASSERT_TRUE(nth_arm(n));
		scene->act(_metadata, s);
		s->failed = nth_disarm();
		scene->settle(_metadata, s);
		/* For what follows the first wrong result, look no further. */
		if (!s->failed || _metadata->exit_code)
			break;
	}
	ASSERT_GT((unsigned int)ENDLESS, n);
	TH_LOG("%u allocations failed in turn%s", n - 1,
	       _metadata->exit_code ? ", then something went wrong" : "");
	return n - 1;
}

/* A call that failed did so for want of memory, and can be made again. */
static void again(struct __test_metadata *_metadata, struct stage *s, part act)
{
	if (!s->res)
		return;
	EXPECT_TRUE(s->failed);
	EXPECT_EQ(-ENOMEM, s->res);
	act(_metadata, s);
	EXPECT_EQ(0, s->res);
}

/* Fills */

static struct uk_fill fill(struct stage *s, unsigned int first)
{
	size_t len = s->len - first * s->unit;
	char *dst = at(s, first), *src = s->src + first * s->unit;

	switch (s->op) {
	case COPY:
		return uk_copy(s->fd, dst, src, len, s->fill_mode);
	case ZERO:
		return uk_zero(s->fd, dst, len, 0);
	case CONTINUE:
		return uk_continue(s->fd, dst, len, s->fill_mode);
	default:
		return uk_poison(s->fd, dst, len, 0);
	}
}

static bool holds(const struct stage *s, unsigned int count)
{
	unsigned int i;
	int code;

	for (i = 0; i < count; i++) {
		switch (s->op) {
		case COPY:
		case CONTINUE:
			if (!uk_painted(at(s, i), s->unit, i))
				return false;
			break;
		case ZERO:
			if (!uk_all_zero(at(s, i), s->unit))
				return false;
			break;
		default:
			if (uk_catch(uk_peek, at(s, i), NULL, &code) != SIGBUS)
				return false;
		}
	}
	return true;
}

static bool still_painted(const struct stage *s, const char *area,
			  unsigned int first, unsigned int count)
{
	unsigned int i;

	for (i = first; i < first + count; i++)
		if (!uk_painted(area + i * s->unit, s->unit, i))
			return false;
	return true;
}

/* From unit @first on there is nothing. */
static bool is_empty(const struct stage *s, unsigned int first)
{
	size_t len = s->len - first * s->unit;

	return !uk_pages(at(s, first), len, UK_PM_PRESENT) &&
	       !uk_pages(at(s, first), len, UK_PM_SWAP);
}

static __u64 modes_for(const struct stage *s)
{
	__u64 mode = s->op == CONTINUE ? UFFDIO_REGISTER_MODE_MINOR :
					 UFFDIO_REGISTER_MODE_MISSING;

	return s->fill_mode ? mode | UFFDIO_REGISTER_MODE_WP : mode;
}

static void enter_fill(struct __test_metadata *_metadata, struct stage *s)
{
	if (s->op != CONTINUE)
		ASSERT_TRUE(empty_file(s));
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	if (s->policy)
		ASSERT_EQ(0, syscall(__NR_mbind, s->area, s->len, 1 /* PREFERRED */,
				     &(unsigned long){ 1 }, 8, 0));
	ASSERT_EQ(0, uk_register_mode(s->fd, s->area, s->len, modes_for(s),
				      NULL));
	/* Who meets poison does not come back. */
	if (s->op != POISON) {
		ASSERT_EQ(0, uk_start(&s->sleeper, uk_peek,
				      at(s, s->units - 1)));
		ASSERT_TRUE(uk_parked(s->fd, 1, 1));
	}
	ASSERT_EQ(0, madvise(s->src, s->len, s->late ? MADV_DONTNEED :
						       MADV_POPULATE_READ));
}

static void act_fill(struct __test_metadata *_metadata, struct stage *s)
{
	s->fill = fill(s, 0);
}

/* How many units have been done, by what the call says? */
static unsigned int progress(struct __test_metadata *_metadata,
			     struct stage *s, struct uk_fill res)
{
	if (!res.err) {
		EXPECT_EQ((__s64)s->len, res.out);
		return s->units;
	}
	EXPECT_TRUE(s->failed);
	if (res.err == -EAGAIN && res.out > 0) {
		EXPECT_GT((__s64)s->len, res.out);
		EXPECT_EQ(0, res.out % (__s64)s->unit);
		return res.out / s->unit;
	}
	if (!s->may_fault || res.err != -EFAULT)
		EXPECT_EQ(-ENOMEM, res.err);
	EXPECT_EQ(res.err, res.out);
	return 0;
}

static void expect_file(struct __test_metadata *_metadata,
			const struct stage *s, unsigned int units)
{
	if (s->memfd >= 0 && (s->op == COPY || s->op == ZERO))
		EXPECT_EQ(is_shared(s) ? units * s->unit : 0, file_bytes(s));
}

static void settle_fill(struct __test_metadata *_metadata, struct stage *s)
{
	unsigned int got = progress(_metadata, s, s->fill);
	bool sleeps = s->op != POISON;

	EXPECT_TRUE(is_empty(s, got));
	expect_file(_metadata, s, got);
	if (got < s->units) {
		if (sleeps)
			EXPECT_TRUE(uk_parked(s->fd, 1, 1));
		UK_EXPECT_FILL(0, s->len - got * s->unit, fill(s, got));
	}
	if (sleeps)
		ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_TRUE(uk_parked(s->fd, 0, 0));
	EXPECT_TRUE(holds(s, s->units));
	expect_file(_metadata, s, s->units);
	ASSERT_EQ(0, munmap(s->area, s->len));
}

static const struct scene filling = { enter_fill, act_fill, settle_fill };

static void play_fill(struct __test_metadata *_metadata, struct stage *s,
		      enum op op)
{
	unsigned int failures;

	s->op = op;
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	if (op == CONTINUE)
		ASSERT_TRUE(fill_file(s));
	failures = play(_metadata, s, &filling);
	/* The sleeper has had the tables made. */
	if (op != CONTINUE || s->kind != UK_HUGETLB)
		EXPECT_LT(0, failures);
	close(s->fd);
}

TEST_F_TIMEOUT(memory, copy, LIMIT)
{
	play_fill(_metadata, &self->s, COPY);
}

TEST_F_TIMEOUT(memory, copy_protected, LIMIT)
{
	self->s.fill_mode = UFFDIO_COPY_MODE_WP;
	play_fill(_metadata, &self->s, COPY);
}

/* The source is brought in with the new page kept aside. */
TEST_F_TIMEOUT(memory, copy_from_what_is_not_resident, LIMIT)
{
	self->s.late = true;
	self->s.may_fault = true;
	play_fill(_metadata, &self->s, COPY);
}

TEST_F_TIMEOUT(memory, copy_by_policy, LIMIT)
{
	if (!is_anon(&self->s))
		SKIP(return, ANON_ONLY);
	self->s.policy = true;
	play_fill(_metadata, &self->s, COPY);
}

TEST_F_TIMEOUT(memory, zeropage, LIMIT)
{
	if (is_hugetlb(&self->s))
		SKIP(return, SMALL_ONLY);
	play_fill(_metadata, &self->s, ZERO);
}

TEST_F_TIMEOUT(memory, continue_, LIMIT)
{
	if (is_anon(&self->s))
		SKIP(return, FILE_ONLY);
	play_fill(_metadata, &self->s, CONTINUE);
}

TEST_F_TIMEOUT(memory, poison, LIMIT)
{
	/* One page after the other is asked for its signal. */
	if (variant->kind == UK_ANON)
		self->s.len = (self->s.units = UNITS) * page;
	play_fill(_metadata, &self->s, POISON);
}

/* Large folios of a smaller size */

TEST_F_TIMEOUT(huge, copy_into_large_folios, LIMIT)
{
	struct stage *s = &self->s;

	if (!uk_write_file(MTHP, "always"))
		SKIP(return, "no large folios of 64 KiB");
	s->len = 64 << 10;
	s->units = s->len / page;
	play_fill(_metadata, s, COPY);
	s->late = true;
	s->may_fault = true;
	play_fill(_metadata, s, COPY);
}

/* Write protection */

static void enter_protect(struct __test_metadata *_metadata, struct stage *s)
{
	ASSERT_TRUE(empty_file(s));
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	*s->area = 1;
	ASSERT_EQ(0, uk_register_mode(s->fd, s->area, s->len,
				      UFFDIO_REGISTER_MODE_WP, NULL));
}

static void act_protect(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = uk_protect(s->fd, s->area, s->len,
			    UFFDIO_WRITEPROTECT_MODE_WP);
}

static long protected_pages(const struct stage *s)
{
	/* pagemap does not show markers of hugetlb. */
	return uk_pages(s->area, is_hugetlb(s) ? s->unit : s->len, UK_PM_WP);
}

static void settle_protect(struct __test_metadata *_metadata, struct stage *s)
{
	long all = (is_hugetlb(s) ? s->unit : s->len) / page;

	again(_metadata, s, act_protect);
	EXPECT_EQ(all, protected_pages(s));
	/* A writer sleeps, and can be let go. */
	ASSERT_EQ(0, uk_start(&s->sleeper, uk_poke, s->area));
	EXPECT_TRUE(uk_parked(s->fd, 1, 1));
	EXPECT_EQ(0, uk_protect(s->fd, s->area, s->len, 0));
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_EQ(0, protected_pages(s));
	ASSERT_EQ(0, munmap(s->area, s->len));
}

static void enter_unprotect(struct __test_metadata *_metadata, struct stage *s)
{
	enter_protect(_metadata, s);
	act_protect(_metadata, s);
	ASSERT_EQ(0, s->res);
	ASSERT_EQ(0, uk_start(&s->sleeper, uk_poke, s->area));
	ASSERT_TRUE(uk_parked(s->fd, 1, 1));
}

static void act_unprotect(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = uk_protect(s->fd, s->area, s->len, 0);
}

static void settle_unprotect(struct __test_metadata *_metadata,
			     struct stage *s)
{
	again(_metadata, s, act_unprotect);
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_EQ(0, protected_pages(s));
	ASSERT_EQ(0, munmap(s->area, s->len));
}

static const struct scene protecting = {
	enter_protect, act_protect, settle_protect,
}, unprotecting = {
	enter_unprotect, act_unprotect, settle_unprotect,
};

TEST_F_TIMEOUT(memory, protect, LIMIT)
{
	struct stage *s = &self->s;

	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, UFFD_FEATURE_WP_UNPOPULATED);
	ASSERT_LE(0, s->fd);
	/* Past the page that is there, tables for markers are made. */
	if (variant->kind == UK_SHMEM || variant->kind == UK_ANON)
		s->len = 2 * uk_huge_size();
	if (variant->kind == UK_SHMEM)
		ASSERT_EQ(0, ftruncate(s->memfd, s->len));
	play(_metadata, s, &protecting);
	play(_metadata, s, &unprotecting);
}

/* Registering */

/* The middle of a mapping, and part of another one behind it. */
static void enter_register(struct __test_metadata *_metadata, struct stage *s)
{
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	ASSERT_EQ(0, mprotect(at(s, s->units / 2), s->len / 2, PROT_READ));
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
}

static size_t part_len(const struct stage *s)
{
	return is_hugetlb(s) ? s->len : s->len - 2 * s->unit;
}

static char *part_of(const struct stage *s)
{
	return is_hugetlb(s) ? s->area : s->area + s->unit;
}

static void act_register(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = uk_register(s->fd, part_of(s), part_len(s));
}

/* It works: a thread sleeps in each half and is let go. */
static void expect_registered(struct __test_metadata *_metadata,
			      struct stage *s)
{
	struct uk_thread t[2];

	ASSERT_EQ(0, uk_start(&t[0], uk_peek, at(s, s->units / 2 - 1)));
	ASSERT_EQ(0, uk_start(&t[1], uk_peek, at(s, s->units / 2)));
	EXPECT_TRUE(uk_parked(s->fd, 2, 2));
	UK_EXPECT_FILL(0, s->unit, uk_copy(s->fd, at(s, s->units / 2 - 1),
					   s->src, s->unit, 0));
	UK_EXPECT_FILL(0, s->unit, uk_copy(s->fd, at(s, s->units / 2),
					   s->src, s->unit, 0));
	EXPECT_TRUE(uk_join_all(t, 2));
}

static void settle_register(struct __test_metadata *_metadata, struct stage *s)
{
	again(_metadata, s, act_register);
	EXPECT_EQ(2, uk_census(s->area, s->len).armed);
	expect_registered(_metadata, s);
	close(s->fd);
	EXPECT_EQ(0, uk_census(s->area, s->len).armed);
	ASSERT_EQ(0, munmap(s->area, s->len));
	ASSERT_TRUE(empty_file(s));
}

/* All of it is registered, and a part is taken out. */
static void enter_unregister(struct __test_metadata *_metadata,
			     struct stage *s)
{
	enter_register(_metadata, s);
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
	ASSERT_EQ(0, uk_start(&s->sleeper, uk_peek, at(s, s->units / 2)));
	ASSERT_TRUE(uk_parked(s->fd, 1, 1));
}

static void act_unregister(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = uk_unregister(s->fd, part_of(s), part_len(s));
}

static void settle_unregister(struct __test_metadata *_metadata,
			      struct stage *s)
{
	again(_metadata, s, act_unregister);
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_EQ(is_hugetlb(s) ? 0 : 2, uk_census(s->area, s->len).armed);
	close(s->fd);
	ASSERT_EQ(0, munmap(s->area, s->len));
	ASSERT_TRUE(empty_file(s));
}

/* All of it is registered for protection, and a part is to be no more. */
static void enter_lift(struct __test_metadata *_metadata, struct stage *s)
{
	ASSERT_TRUE(empty_file(s));
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	memcpy(s->area, s->src, s->len);
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	ASSERT_EQ(0, uk_register_mode(s->fd, s->area, s->len,
				      UFFDIO_REGISTER_MODE_WP, NULL));
	ASSERT_EQ(0, uk_protect(s->fd, s->area, s->len,
				UFFDIO_WRITEPROTECT_MODE_WP));
}

static void act_register_without(struct __test_metadata *_metadata,
				 struct stage *s)
{
	s->res = uk_register(s->fd, part_of(s), part_len(s));
}

/* A registration that stays keeps its protection. */
static void judge_lift(struct __test_metadata *_metadata, struct stage *s,
		       part act, int armed)
{
	if (s->res)
		EXPECT_EQ(s->len / page,
			  (size_t)uk_pages(s->area, s->len, UK_PM_WP));
	again(_metadata, s, act);
	EXPECT_EQ(0, uk_pages(part_of(s), part_len(s), UK_PM_WP));
	EXPECT_EQ((s->len - part_len(s)) / page,
		  (size_t)uk_pages(s->area, s->len, UK_PM_WP));
	EXPECT_EQ(armed, uk_census(s->area, s->len).armed);
	EXPECT_TRUE(still_painted(s, s->area, 0, s->units));
	close(s->fd);
	ASSERT_EQ(0, munmap(s->area, s->len));
}

static void settle_unregister_protected(struct __test_metadata *_metadata,
					struct stage *s)
{
	judge_lift(_metadata, s, act_unregister, 0);
}

static void settle_register_without(struct __test_metadata *_metadata,
				    struct stage *s)
{
	judge_lift(_metadata, s, act_register_without, 1);
}

/* Mappings that have been cut are joined: what fails must not matter. */
static void enter_close(struct __test_metadata *_metadata, struct stage *s)
{
	enter_register(_metadata, s);
	ASSERT_EQ(0, mprotect(s->area, s->len, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, uk_register(s->fd, part_of(s), part_len(s)));
	ASSERT_EQ(0, uk_start(&s->sleeper, uk_peek, at(s, s->units / 2)));
	ASSERT_TRUE(uk_parked(s->fd, 1, 1));
}

static void act_close(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = close(s->fd);
}

static void settle_close(struct __test_metadata *_metadata, struct stage *s)
{
	EXPECT_EQ(0, s->res);
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_EQ(0, uk_census(s->area, s->len).armed);
	ASSERT_EQ(0, munmap(s->area, s->len));
	ASSERT_TRUE(empty_file(s));
}

static const struct scene registering = {
	enter_register, act_register, settle_register,
}, unregistering = {
	enter_unregister, act_unregister, settle_unregister,
}, unregistering_protected = {
	enter_lift, act_unregister, settle_unregister_protected,
}, registering_without = {
	enter_lift, act_register_without, settle_register_without,
}, closing = {
	enter_close, act_close, settle_close,
};

TEST_F_TIMEOUT(memory, register_, LIMIT)
{
	unsigned int failures = play(_metadata, &self->s, &registering);

	if (!is_hugetlb(&self->s))
		EXPECT_LT(0, failures);
}

TEST_F_TIMEOUT(memory, unregister, LIMIT)
{
	unsigned int failures = play(_metadata, &self->s, &unregistering);

	if (!is_hugetlb(&self->s))
		EXPECT_LT(0, failures);
}

TEST_F_TIMEOUT(memory, protected_no_more, LIMIT)
{
	play(_metadata, &self->s, &unregistering_protected);
	play(_metadata, &self->s, &registering_without);
}

TEST_F_TIMEOUT(memory, close, LIMIT)
{
	play(_metadata, &self->s, &closing);
}

/* Moves */

static bool odd_place;		/* not aligned for a huge page */
static bool holes;		/* there is nothing but holes */

static void enter_move(struct __test_metadata *_metadata, struct stage *s)
{
	s->area = map_far(s, 0);
	s->more = map_far(s, 2);
	ASSERT_NE(NULL, s->area);
	ASSERT_NE(NULL, s->more);
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
	if (!holes)
		memcpy(s->more, s->src, s->len);
	ASSERT_EQ(0, uk_start(&s->sleeper, uk_peek, at(s, 3)));
	ASSERT_TRUE(uk_parked(s->fd, 1, 1));
}

static struct uk_fill move_from(struct stage *s, unsigned int first)
{
	size_t off = first * page, skew = odd_place ? page : 0;

	return uk_move(s->fd, s->area + off + skew, s->more + off,
		       s->len - off - skew,
		       holes ? UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES : 0);
}

static void act_move(struct __test_metadata *_metadata, struct stage *s)
{
	s->fill = move_from(s, 0);
}

/* Page i is in one of the two places, and not in the other. */
static bool moved_so_far(const struct stage *s, unsigned int got)
{
	unsigned int i, n = s->units - odd_place;
	char *dst = s->area + odd_place * page;

	for (i = 0; i < n; i++) {
		char *here = i < got ? dst : s->more, *gone = i < got ? s->more :
									 dst;
		if (!uk_painted(here + i * page, page, i) ||
		    uk_pages(gone + i * page, page, UK_PM_PRESENT))
			return false;
	}
	return true;
}

static void settle_move(struct __test_metadata *_metadata, struct stage *s)
{
	size_t len = s->len - odd_place * page;
	unsigned int got = 0;

	if (!s->fill.err)
		got = len / page;
	else if (s->fill.err == -EAGAIN && s->fill.out > 0)
		got = s->fill.out / page;
	else
		UK_EXPECT_FILL(-ENOMEM, -ENOMEM, s->fill);
	if (got < len / page) {
		EXPECT_TRUE(s->failed);
		if (!holes)
			EXPECT_TRUE(moved_so_far(s, got));
		UK_EXPECT_FILL(0, len - got * page, move_from(s, got));
	}
	EXPECT_TRUE(holes ? is_empty(s, 0) : moved_so_far(s, len / page));
	/* It has been woken; but where there is a hole it has come again. */
	if (holes)
		UK_EXPECT_FILL(0, page, uk_zero(s->fd, at(s, 3), page, 0));
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	ASSERT_EQ(0, munmap(s->area, s->len));
	ASSERT_EQ(0, munmap(s->more, s->len));
}

static const struct scene moving = { enter_move, act_move, settle_move };

static void play_move(struct __test_metadata *_metadata, struct stage *s)
{
	unsigned int failures;

	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	failures = play(_metadata, s, &moving);
	/* Whole huge pages bring the tables that they need. */
	if (s->kind != UK_ANON || odd_place || holes)
		EXPECT_LT(0, failures);
	close(s->fd);
}

TEST_F_TIMEOUT(memory, move, LIMIT)
{
	if (!is_anon(&self->s))
		SKIP(return, ANON_ONLY);
	odd_place = false;
	play_move(_metadata, &self->s);
}

TEST_F_TIMEOUT(memory, move_to_an_odd_place, LIMIT)
{
	if (!is_anon(&self->s))
		SKIP(return, ANON_ONLY);
	odd_place = true;
	play_move(_metadata, &self->s);
}

TEST_F_TIMEOUT(memory, move_of_holes, LIMIT)
{
	if (!is_anon(&self->s))
		SKIP(return, ANON_ONLY);
	holes = true;
	play_move(_metadata, &self->s);
}

/* Pages that are swapped out, some of them on their way back. */

static void enter_move_swapped(struct __test_metadata *_metadata,
			       struct stage *s)
{
	enter_move(_metadata, s);
	ASSERT_TRUE(uk_swap_out(s->more, s->len));
	ASSERT_EQ(0, madvise(s->more, s->len / 2, MADV_WILLNEED));
}

static const struct scene moving_swapped = {
	enter_move_swapped, act_move, settle_move,
};

TEST_F_TIMEOUT(page_by_page, move_of_what_is_swapped_out, LIMIT)
{
	struct stage *s = &self->s;
	const char *why = uk_swap_on(8 * s->len);

	if (why)
		SKIP(return, "%s", why);
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	play(_metadata, s, &moving_swapped);
	close(s->fd);
	uk_swap_off();
}

/* A new descriptor */

static void enter_create(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = -1;
}

static void act_create(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = uk_open(O_CLOEXEC);
}

static void act_create_by_device(struct __test_metadata *_metadata,
				 struct stage *s)
{
	s->res = ioctl(s->memfd, USERFAULTFD_IOC_NEW, O_CLOEXEC);
	if (s->res < 0)
		s->res = -errno;
}

static int lowest_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static void settle_create(struct __test_metadata *_metadata, struct stage *s)
{
	static int first = -1;

	if (first < 0)
		first = s->res < 0 ? lowest_fd() : s->res;
	if (s->res < 0) {
		EXPECT_EQ(-ENOMEM, s->res);
		EXPECT_TRUE(s->failed);
	} else {
		EXPECT_EQ(first, s->res);
		EXPECT_EQ(0, uk_api(s->res, 0));
		close(s->res);
	}
	EXPECT_EQ(first, lowest_fd());
}

static const struct scene creating = {
	enter_create, act_create, settle_create,
}, creating_by_device = {
	enter_create, act_create_by_device, settle_create,
};

TEST_F_TIMEOUT(page_by_page, create, LIMIT)
{
	struct stage *s = &self->s;
	int fds[64], n = 0;

	s->memfd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, s->memfd);
	EXPECT_LT(0, play(_metadata, s, &creating));
	EXPECT_LT(0, play(_metadata, s, &creating_by_device));
	/* The table of descriptors has to grow for the next one. */
	do {
		fds[n] = dup(0);
		ASSERT_LE(0, fds[n]);
	} while (fds[n++] < 63);
	EXPECT_TRUE(nth_arm(2));
	s->res = uk_open(O_CLOEXEC);
	s->failed = nth_disarm();
	EXPECT_TRUE(s->failed);
	EXPECT_EQ(-ENOMEM, s->res);
	s->res = uk_open(O_CLOEXEC);
	EXPECT_EQ(64, s->res);
}

/* Events */

#define ALL_EVENTS	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | \
			 UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

static void map_for_events(struct __test_metadata *_metadata, struct stage *s)
{
	ASSERT_TRUE(empty_file(s));
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	memcpy(s->area, s->src, s->len);
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, ALL_EVENTS);
	ASSERT_LE(0, s->fd);
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
}

static void enter_event(struct __test_metadata *_metadata, struct stage *s)
{
	map_for_events(_metadata, s);
	ASSERT_TRUE(server_start(s));
}

/* Who causes an event waits for it: so everything has been read. */
static void leave_event(struct __test_metadata *_metadata, struct stage *s)
{
	struct uffd_msg msg;

	ASSERT_TRUE(server_stop(s));
	EXPECT_EQ(-EAGAIN, uk_read(s->fd, &msg, 1));
	close(s->fd);
}

static int exit_at_once(void *arg)
{
	(void)arg;
	return 0;
}

static void act_fork(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = uk_spawn_by_thread(exit_at_once, NULL, 0);
}

/*
 * The handler is told when memory has been copied. What comes then may still
 * fail: it looks like a child that has exited at once.
 */
static void settle_fork(struct __test_metadata *_metadata, struct stage *s)
{
	unsigned int forks = 1, i;

	if (s->res < 0) {
		EXPECT_TRUE(s->failed);
		EXPECT_TRUE(s->res == -ENOMEM || s->res == -EAGAIN);
		act_fork(_metadata, s);
		forks = 2;
	}
	ASSERT_LT(0, s->res);
	EXPECT_EQ(0, uk_reap(s->res, UK_SOON));
	EXPECT_TRUE(still_painted(s, s->area, 0, s->units));
	leave_event(_metadata, s);
	EXPECT_LE(1, s->server.forks);
	EXPECT_GE(forks, s->server.forks);
	for (i = 0; i < s->server.forks && i < forks; i++) {
		UK_EXPECT_FILL(-ESRCH, UK_UNSET,
			       uk_copy(s->server.child[i], s->area, s->src,
				       s->unit, 0));
		close(s->server.child[i]);
	}
	ASSERT_EQ(0, munmap(s->area, s->len));
}

static void act_remap(struct __test_metadata *_metadata, struct stage *s)
{
	s->more = mremap(s->area, s->len, s->len, MREMAP_MAYMOVE | MREMAP_FIXED,
			 FAR(2));
	s->res = s->more == MAP_FAILED ? -errno : 0;
}

/* There is something in its way, which goes first, and does not come back. */
static void enter_remap_over(struct __test_metadata *_metadata,
			     struct stage *s)
{
	enter_event(_metadata, s);
	s->more = map_far(s, 2);
	ASSERT_NE(NULL, s->more);
	ASSERT_EQ(0, uk_register(s->fd, s->more, s->len));
}

/*
 * A move that fails moves everything back, and nobody hears of it.  When
 * everything has been moved, the old mapping may still fail to go: then it is
 * not told as unmapped.
 */
static void judge_remap(struct __test_metadata *_metadata, struct stage *s,
			unsigned int unmaps)
{
	bool stayed;

	if (s->res)
		EXPECT_TRUE(still_painted(s, s->area, 0, s->units));
	again(_metadata, s, act_remap);
	stayed = uk_census(s->area, s->len).vmas;
	if (stayed)
		EXPECT_TRUE(s->failed);
	EXPECT_TRUE(still_painted(s, s->more, 0, s->units));
	EXPECT_EQ(1, uk_census(s->more, s->len).armed);
	leave_event(_metadata, s);
	EXPECT_EQ(1, s->server.remaps);
	EXPECT_EQ(unmaps + !stayed, s->server.unmaps);
	if (stayed)
		ASSERT_EQ(0, munmap(s->area, s->len));
	ASSERT_EQ(0, munmap(s->more, s->len));
}

static void settle_remap(struct __test_metadata *_metadata, struct stage *s)
{
	judge_remap(_metadata, s, 0);
}

static void settle_remap_over(struct __test_metadata *_metadata,
			      struct stage *s)
{
	judge_remap(_metadata, s, 1);
}

/* The middle: both ends stay, cut off. */
static void act_unmap(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = munmap(at(s, 1), s->len - 2 * s->unit) ? -errno : 0;
}

static void settle_unmap(struct __test_metadata *_metadata, struct stage *s)
{
	if (s->res)
		EXPECT_TRUE(still_painted(s, s->area, 0, s->units));
	again(_metadata, s, act_unmap);
	EXPECT_TRUE(still_painted(s, s->area, 0, 1));
	EXPECT_TRUE(still_painted(s, s->area, s->units - 1, 1));
	EXPECT_EQ(2, uk_census(s->area, s->len).armed);
	leave_event(_metadata, s);
	EXPECT_EQ(1, s->server.unmaps);
	ASSERT_EQ(0, munmap(s->area, s->len));
}

static void act_remove(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = madvise(s->area, s->len, MADV_DONTNEED) ? -errno : 0;
}

static void settle_remove(struct __test_metadata *_metadata, struct stage *s)
{
	EXPECT_EQ(0, s->res);
	if (!is_shared(s))
		EXPECT_TRUE(is_empty(s, 0));
	leave_event(_metadata, s);
	EXPECT_EQ(1, s->server.removes);
	ASSERT_EQ(0, munmap(s->area, s->len));
}

/* A system call that meets missing pages, with somebody who brings them. */
static void enter_populate(struct __test_metadata *_metadata, struct stage *s)
{
	ASSERT_TRUE(empty_file(s));
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
	ASSERT_TRUE(server_start(s));
}

static void act_populate(struct __test_metadata *_metadata, struct stage *s)
{
	s->res = madvise(s->area, UNITS * page, MADV_POPULATE_READ) ? -errno :
								       0;
}

static void settle_populate(struct __test_metadata *_metadata,
			    struct stage *s)
{
	again(_metadata, s, act_populate);
	EXPECT_TRUE(uk_all_zero(s->area, UNITS * page));
	EXPECT_TRUE(uk_parked(s->fd, 0, 0));
	leave_event(_metadata, s);
	EXPECT_EQ(UNITS, s->server.faults);
	ASSERT_EQ(0, munmap(s->area, s->len));
}

static const struct scene forking = {
	enter_event, act_fork, settle_fork,
}, remapping = {
	enter_event, act_remap, settle_remap,
}, remapping_over = {
	enter_remap_over, act_remap, settle_remap_over,
}, unmapping = {
	enter_event, act_unmap, settle_unmap,
}, removing = {
	enter_event, act_remove, settle_remove,
}, populating = {
	enter_populate, act_populate, settle_populate,
};

/*
 * A thread that comes back from a fork() writes on which CPU it is, and dies if
 * the page for that cannot be copied: not what is to be seen here.
 */
static bool forget_rseq(void)
{
	/* What is used of it is told, not what has been registered. */
	unsigned int size = (__rseq_size + 31) & ~31U;

	return !size || !syscall(__NR_rseq, (char *)__builtin_thread_pointer() +
				 __rseq_offset, size, RSEQ_FLAG_UNREGISTER,
				 RSEQ_SIG);
}

TEST_F_TIMEOUT(page_by_page, fork, LIMIT)
{
	ASSERT_TRUE(forget_rseq());
	EXPECT_LT(0, play(_metadata, &self->s, &forking));
}

TEST_F_TIMEOUT(whole_page, fork, LIMIT)
{
	ASSERT_TRUE(forget_rseq());
	EXPECT_LT(0, play(_metadata, &self->s, &forking));
}

TEST_F_TIMEOUT(memory, mremap, LIMIT)
{
	if (is_hugetlb(&self->s))
		SKIP(return, SMALL_ONLY);
	EXPECT_LT(0, play(_metadata, &self->s, &remapping));
}

TEST_F_TIMEOUT(memory, mremap_over_another, LIMIT)
{
	if (is_hugetlb(&self->s))
		SKIP(return, SMALL_ONLY);
	EXPECT_LT(0, play(_metadata, &self->s, &remapping_over));
}

TEST_F_TIMEOUT(memory, munmap, LIMIT)
{
	if (is_hugetlb(&self->s))
		SKIP(return, SMALL_ONLY);
	EXPECT_LT(0, play(_metadata, &self->s, &unmapping));
}

TEST_F_TIMEOUT(memory, madvise, LIMIT)
{
	play(_metadata, &self->s, &removing);
}

TEST_F_TIMEOUT(memory, populate, LIMIT)
{
	if (is_hugetlb(&self->s))
		SKIP(return, SMALL_ONLY);
	EXPECT_LT(0, play(_metadata, &self->s, &populating));
}

/* Reading a FORK makes a file. */

static long fork_and_reap(void *arg)
{
	struct stage *s = arg;
	pid_t pid = uk_spawn_by_thread(exit_at_once, NULL, 0);

	(void)s;
	return pid < 0 ? pid : uk_reap(pid, UK_SOON);
}

static void enter_read_fork(struct __test_metadata *_metadata, struct stage *s)
{
	map_for_events(_metadata, s);
	ASSERT_EQ(0, uk_start(&s->sleeper, fork_and_reap, s));
	ASSERT_EQ(POLLIN, uk_poll(s->fd, UK_SOON));
}

static void act_read_fork(struct __test_metadata *_metadata, struct stage *s)
{
	struct uffd_msg msg;

	s->res = uk_read(s->fd, &msg, 1);
	if (s->res == 1)
		s->pid = msg.event == UFFD_EVENT_FORK ? (int)msg.arg.fork.ufd :
							-1;
}

static void settle_read_fork(struct __test_metadata *_metadata,
			     struct stage *s)
{
	int next = lowest_fd();

	if (s->res < 0) {
		EXPECT_TRUE(s->failed);
		EXPECT_EQ(-ENOMEM, s->res);
		EXPECT_FALSE(uk_finished(&s->sleeper));
		EXPECT_EQ(POLLIN, uk_poll(s->fd, 0));
		act_read_fork(_metadata, s);
		EXPECT_EQ(next, s->pid);
	}
	EXPECT_EQ(1, s->res);
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_EQ(0, s->sleeper.ret);
	close(s->pid);
	close(s->fd);
	ASSERT_EQ(0, munmap(s->area, s->len));
}

static const struct scene reading_fork = {
	enter_read_fork, act_read_fork, settle_read_fork,
};

TEST_F_TIMEOUT(page_by_page, read_of_a_fork, LIMIT)
{
	struct stage *s = &self->s;
	struct rlimit was, low;

	EXPECT_LT(0, play(_metadata, s, &reading_fork));

	/* No descriptor left: what the limit says. */
	enter_read_fork(_metadata, s);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &was));
	low = was;
	low.rlim_cur = lowest_fd();
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &low));
	act_read_fork(_metadata, s);
	EXPECT_EQ(-EMFILE, s->res);
	EXPECT_EQ(POLLIN, uk_poll(s->fd, 0));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &was));
	act_read_fork(_metadata, s);
	EXPECT_EQ(1, s->res);
	settle_read_fork(_metadata, s);

	/* The message does not arrive: its file is gone, and it comes again. */
	enter_read_fork(_metadata, s);
	EXPECT_EQ(-EFAULT, uk_read(s->fd, UK_KERNEL_SPACE, 1));
	act_read_fork(_metadata, s);
	settle_read_fork(_metadata, s);
}

/*
 * A fork() is killed while a reader has its message already, but cannot put it
 * anywhere yet: the page for it is missing itself.
 */

struct late_reader {
	int fd;			/* that it reads */
	int other;		/* that its buffer is registered with */
	struct uffd_msg *msg;
	struct uk_thread t;
	char *stack;
	pid_t forker;
};

static int fork_one(void *arg)
{
	(void)arg;
	return uk_spawn_by_thread(exit_at_once, NULL, 0) < 0;
}

static long read_into_nothing(void *arg)
{
	struct late_reader *r = arg;

	return uk_read(r->fd, r->msg, 1);
}

static void read_and_kill(struct __test_metadata *_metadata, struct stage *s,
			  struct late_reader *r)
{
	map_for_events(_metadata, s);
	r->fd = s->fd;
	r->other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, r->other);
	r->msg = mmap(NULL, page, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, r->msg);
	ASSERT_EQ(0, uk_register(r->other, r->msg, page));
	r->stack = uk_buffer(65536);
	ASSERT_NE(NULL, r->stack);
	r->forker = clone(fork_one, r->stack + 65536, CLONE_VM | SIGCHLD, NULL);
	ASSERT_LT(0, r->forker);
	ASSERT_EQ(POLLIN, uk_poll(s->fd, UK_SOON));
	ASSERT_EQ(0, uk_start(&r->t, read_into_nothing, r));
	ASSERT_TRUE(uk_parked(r->other, 1, 1));
	ASSERT_EQ(0, kill(r->forker, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, uk_reap(r->forker, UK_SOON));
}

static void done_reading(struct __test_metadata *_metadata, struct stage *s,
			 struct late_reader *r)
{
	struct uffd_msg msg;

	/* There is no message any more, and nothing is refused. */
	EXPECT_EQ(-EAGAIN, uk_read(s->fd, &msg, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, uk_copy(s->fd, s->area, s->src, page,
						 0));
	close(r->other);
	close(s->fd);
	munmap(s->area, s->len);
	munmap(r->stack, 65536);
}

TEST_F_TIMEOUT(page_by_page, killed_fork_is_read, LIMIT)
{
	struct stage *s = &self->s;
	struct late_reader r;

	read_and_kill(_metadata, s, &r);
	UK_EXPECT_FILL(0, page, uk_zero(r.other, r.msg, page, 0));
	ASSERT_TRUE(uk_join(&r.t, UK_SOON));
	/* It was under way: there is a descriptor, of a child that was not. */
	EXPECT_EQ(1, r.t.ret);
	EXPECT_EQ(UFFD_EVENT_FORK, r.msg->event);
	UK_EXPECT_FILL(-ESRCH, UK_UNSET, uk_copy(r.msg->arg.fork.ufd, s->area,
						 s->src, page, 0));
	close(r.msg->arg.fork.ufd);
	done_reading(_metadata, s, &r);
}

TEST_F_TIMEOUT(page_by_page, killed_fork_is_not_read_after_all, LIMIT)
{
	struct stage *s = &self->s;
	struct late_reader r;

	read_and_kill(_metadata, s, &r);
	ASSERT_EQ(0, mprotect(r.msg, page, PROT_NONE));
	EXPECT_EQ(0, uk_wake(r.other, r.msg, page));
	ASSERT_TRUE(uk_join(&r.t, UK_SOON));
	EXPECT_EQ(-EFAULT, r.t.ret);
	done_reading(_metadata, s, &r);
}

/* What fail-nth does not reach */

/* The page cache has no room for one more page: its own nodes run out. */
TEST_F_TIMEOUT(memory, no_node_for_the_page_cache, LIMIT)
{
	struct stage *s = &self->s;
	struct uk_fill res;

	if (!is_shared(&self->s))
		SKIP(return, SHARED_ONLY);
	s->op = COPY;
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	enter_fill(_metadata, s);
	if (!uk_write_file(NODES, "1") ||
	    !uk_write_file(FAIL_SLAB "cache-filter", "Y") ||
	    !fail_always(FAIL_SLAB, "100"))
		SKIP(return, "slab caches cannot be chosen");
	/* The first page stands in the root: it needs no node. */
	let_fail(true);
	res = fill(s, 1);
	let_fail(false);
	fail_always(FAIL_SLAB, "0");
	uk_write_file(FAIL_SLAB "cache-filter", "N");
	uk_write_file(NODES, "0");
	UK_EXPECT_FILL(-ENOMEM, -ENOMEM, res);
	EXPECT_TRUE(is_empty(s, 0));
	expect_file(_metadata, s, 0);
	s->fill = fill(s, 0);
	settle_fill(_metadata, s);
	close(s->fd);
}

/*
 * The same by the function that puts a page into the page cache. The kernel makes
 * it fail from within a breakpoint, where it does not know whose task it is: the
 * next call fails, whoever makes it.
 */
#define ADD_FOLIO	"__filemap_add_folio"

static bool next_add_fails(void)
{
	return uk_write_file(FAIL_CALL "inject", ADD_FOLIO) &&
	       uk_write_file(FAIL_CALL ADD_FOLIO "/retval",
			     "0xfffffffffffffff4") &&	/* -ENOMEM */
	       fail_always(FAIL_CALL, "100") &&
	       uk_write_file(FAIL_CALL "task-filter", "N") &&
	       uk_write_file(FAIL_CALL "times", "1");
}

TEST_F_TIMEOUT(whole_page, page_cache_refuses, LIMIT)
{
	struct stage *s = &self->s;
	struct uk_fill res;
	int i;

	s->op = COPY;
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	/* Somebody else may have been in between. */
	for (i = 0; i < 10; i++) {
		enter_fill(_metadata, s);
		if (!next_add_fails())
			SKIP(return, "functions cannot be made to fail");
		res = fill(s, 0);
		uk_write_file(FAIL_CALL "probability", "0");
		uk_write_file(FAIL_CALL "inject", "!" ADD_FOLIO);
		if (res.err)
			break;
		s->fill = res;
		settle_fill(_metadata, s);
	}
	UK_EXPECT_FILL(-ENOMEM, -ENOMEM, res);
	EXPECT_TRUE(is_empty(s, 0));
	expect_file(_metadata, s, 0);
	s->fill = fill(s, 0);
	settle_fill(_metadata, s);
	close(s->fd);
}

/*
 * The limit of the group is what it has: nothing more can be charged. Until it
 * is lifted this process must need no memory for itself.
 */
static int limit_open(void)
{
	/* There is nobody whose end would help. */
	if (!uk_write_file("/proc/self/oom_score_adj", "-1000"))
		return -1;
	uk_write_file(GROUP "memory.swap.max", "0");
	return open(GROUP "memory.max", O_RDWR | O_CLOEXEC);
}

static bool limit(int max, const char *bytes)
{
	ssize_t len = strlen(bytes);

	return pwrite(max, bytes, len, 0) == len;
}

TEST_F_TIMEOUT(memory, memory_limit, LIMIT)
{
	struct stage *s = &self->s;
	unsigned int got;
	int max;

	if (is_hugetlb(&self->s))
		SKIP(return, SMALL_ONLY);
	s->op = COPY;
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	enter_fill(_metadata, s);
	/* The tables are there: it is the page that is refused. */
	UK_EXPECT_FILL(0, page, uk_copy(s->fd, s->area, s->src, page, 0));
	max = limit_open();
	ASSERT_LE(0, max);
	ASSERT_TRUE(limit(max, "0"));
	/* A few pages may have been charged in advance. */
	for (got = 1; got < s->units; got += s->fill.out / page) {
		s->fill = fill(s, got);
		if (s->fill.out <= 0)
			break;
	}
	ASSERT_TRUE(limit(max, "max"));
	close(max);
	UK_EXPECT_FILL(-ENOMEM, -ENOMEM, s->fill);
	ASSERT_GT(s->units, got);
	EXPECT_TRUE(is_empty(s, got));
	UK_EXPECT_FILL(0, s->len - got * page, fill(s, got));
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_TRUE(holds(s, s->units));
	munmap(s->area, s->len);
	close(s->fd);
}

/* A huge page cannot be charged, but small ones can: they are used. */
TEST_F_TIMEOUT(huge, memory_limit_below_a_huge_page, LIMIT)
{
	struct stage *s = &self->s;
	char bytes[24];
	int max;

	s->op = COPY;
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	enter_fill(_metadata, s);
	max = limit_open();
	ASSERT_LE(0, max);
	snprintf(bytes, sizeof(bytes), "%ld", (1 << 20) +
		 uk_read_number(GROUP "memory.current"));
	ASSERT_TRUE(limit(max, bytes));
	s->fill = fill(s, 0);
	ASSERT_TRUE(limit(max, "max"));
	close(max);
	EXPECT_EQ(-EAGAIN, s->fill.err);
	s->failed = true;
	EXPECT_EQ(0, uk_huge(s->area, s->len));
	settle_fill(_metadata, s);
	close(s->fd);
}

static long free_huge(void)
{
	return memory_info("HugePages_Free") - memory_info("HugePages_Rsvd");
}

/* No huge page is left, and none can be made. */
TEST_F_TIMEOUT(memory, no_huge_page, LIMIT)
{
	struct stage *s = &self->s;
	size_t others_len;
	char *others;

	if (!is_hugetlb(&self->s))
		SKIP(return, HUGETLB_ONLY);
	s->op = COPY;
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	enter_fill(_metadata, s);
	others_len = free_huge() * s->unit;
	others = mmap(NULL, others_len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		      MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	ASSERT_NE(MAP_FAILED, others);
	ASSERT_EQ(0, free_huge());
	/* Reserved: but not for the copy that is kept while the source comes. */
	madvise(s->src, s->len, MADV_DONTNEED);
	ASSERT_TRUE(fail_always(FAIL_PAGE, "100"));
	uk_write_file(FAIL_PAGE "min-order", "5");
	let_fail(true);
	s->fill = fill(s, 0);
	let_fail(false);
	fail_always(FAIL_PAGE, "0");
	uk_write_file(FAIL_PAGE "min-order", "0");
	UK_EXPECT_FILL(-ENOMEM, -ENOMEM, s->fill);
	EXPECT_TRUE(is_empty(s, 0));
	EXPECT_TRUE(uk_parked(s->fd, 1, 1));
	munmap(others, others_len);
	s->fill = fill(s, 0);
	settle_fill(_metadata, s);
	close(s->fd);
}

TEST_F_TIMEOUT(memory, huge_page_limit, LIMIT)
{
	struct stage *s = &self->s;
	char path[128];

	if (!is_hugetlb(&self->s))
		SKIP(return, HUGETLB_ONLY);
	snprintf(path, sizeof(path), GROUP "hugetlb.%zuMB.max", s->unit >> 20);
	s->op = COPY;
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	enter_fill(_metadata, s);
	if (!uk_write_file(path, "0"))
		SKIP(return, "no limit for huge pages");
	s->fill = fill(s, 0);
	ASSERT_TRUE(uk_write_file(path, "max"));
	UK_EXPECT_FILL(-ENOMEM, -ENOMEM, s->fill);
	EXPECT_TRUE(is_empty(s, 0));
	EXPECT_TRUE(uk_parked(s->fd, 1, 1));
	s->fill = fill(s, 0);
	settle_fill(_metadata, s);
	close(s->fd);
}

/* As many mappings as there may be. */
TEST_F_TIMEOUT(page_by_page, too_many_mappings, LIMIT)
{
	struct stage *s = &self->s;
	unsigned int i, n;
	char *many;

	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
	n = uk_census(NULL, SIZE_MAX).vmas + 64;
	many = mmap(NULL, 256 * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	ASSERT_NE(MAP_FAILED, many);
	ASSERT_TRUE(write_number(MAX_MAPPINGS, n));
	for (i = 0; i < 256; i += 2)
		if (mprotect(many + i * page, page, PROT_NONE))
			break;
	EXPECT_GT(256, i);
	/* A split makes one more. */
	EXPECT_EQ(-ENOMEM, uk_unregister(s->fd, at(s, 1), page));
	EXPECT_EQ(1, uk_census(s->area, s->len).armed);
	EXPECT_EQ(0, uk_unregister(s->fd, s->area, s->len));
	EXPECT_EQ(-ENOMEM, uk_register(s->fd, at(s, 1), page));
	EXPECT_EQ(0, uk_census(s->area, s->len).armed);
	EXPECT_EQ(0, uk_register(s->fd, s->area, s->len));
	ASSERT_TRUE(write_number(MAX_MAPPINGS, s->max_map_count));
	EXPECT_EQ(0, uk_unregister(s->fd, at(s, 1), page));
}

/* No descriptor for this process, no file for anybody. */

static int drop_privilege(void)
{
	return setgroups(0, NULL) || setresgid(65534, 65534, 65534) ||
	       setresuid(65534, 65534, 65534);
}

static int open_as_nobody(void *arg)
{
	int *expected = arg;

	UK_CHECK(!drop_privilege());
	UK_CHECK(uk_open(UFFD_USER_MODE_ONLY) == *expected);
	return 0;
}

TEST_F_TIMEOUT(page_by_page, no_descriptor_and_no_file, LIMIT)
{
	struct rlimit was, low;
	int expected = -ENFILE;
	int pid, next;

	next = lowest_fd();
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &was));
	low = was;
	low.rlim_cur = next;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &low));
	EXPECT_EQ(-EMFILE, uk_open(0));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &was));

	/* One that may have more is not refused. */
	ASSERT_TRUE(write_number(MAX_FILES, 1));
	pid = uk_spawn(open_as_nobody, &expected);
	EXPECT_EQ(0, uk_reap(pid, UK_SOON));
	ASSERT_TRUE(write_number(MAX_FILES, self->s.file_max));
	EXPECT_EQ(next, lowest_fd());
}

/* Arguments that cannot be read, and answers that cannot be written */

/* @size bytes of which all but the last @out can be accessed; these read-only. */
static void *edge(size_t size, size_t out, bool readable)
{
	char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (mprotect(p + page, page, readable ? PROT_READ : PROT_NONE))
		return NULL;
	return p + page - (size - out);
}

static const struct call {
	unsigned long cmd;
	size_t size;
	size_t out;		/* the size of its output field */
} calls[] = {
	{ UFFDIO_REGISTER, sizeof(struct uffdio_register), 8 },
	{ UFFDIO_COPY, sizeof(struct uffdio_copy), 8 },
	{ UFFDIO_ZEROPAGE, sizeof(struct uffdio_zeropage), 8 },
	{ UFFDIO_CONTINUE, sizeof(struct uffdio_continue), 8 },
	{ UFFDIO_POISON, sizeof(struct uffdio_poison), 8 },
	{ UFFDIO_MOVE, sizeof(struct uffdio_move), 8 },
	{ UFFDIO_UNREGISTER, sizeof(struct uffdio_range), 0 },
	{ UFFDIO_WAKE, sizeof(struct uffdio_range), 0 },
	{ UFFDIO_WRITEPROTECT, sizeof(struct uffdio_writeprotect), 0 },
};

static int call_errno(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) ? -errno : 0;
}

TEST_F_TIMEOUT(page_by_page, arguments_out_of_reach, LIMIT)
{
	struct stage *s = &self->s;
	struct uffdio_api *api;
	size_t i;

	s->fd = uk_open(O_CLOEXEC | O_NONBLOCK);
	ASSERT_LE(0, s->fd);
	/* Not to be read; to be read, but not written; neither succeeded. */
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_API, UK_KERNEL_SPACE));
	api = mmap(NULL, page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	api->api = UFFD_API;
	ASSERT_EQ(0, mprotect(api, page, PROT_READ));
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_API, api));
	ASSERT_EQ(0, mprotect(api, page, PROT_READ | PROT_WRITE));
	api->api = 0;
	ASSERT_EQ(0, mprotect(api, page, PROT_READ));
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_API, api));
	EXPECT_EQ(0, uk_api(s->fd, 0));
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		EXPECT_EQ(-EFAULT, call_errno(s->fd, calls[i].cmd,
					      UK_KERNEL_SPACE));
}

/* The call is made, and tells so by nothing but its effect. */
TEST_F_TIMEOUT(page_by_page, answers_out_of_reach, LIMIT)
{
	struct stage *s = &self->s;
	struct uffdio_register *reg = edge(sizeof(*reg), 8, true);
	struct uffdio_copy *copy = edge(sizeof(*copy), 8, true);
	struct uffdio_zeropage *zero = edge(sizeof(*zero), 8, true);
	struct uffdio_continue *cont = edge(sizeof(*cont), 8, false);
	struct uffdio_poison *poison = edge(sizeof(*poison), 8, true);
	struct uffdio_move *move = edge(sizeof(*move), 8, true);

	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	reg->range.start = (unsigned long)s->area;
	reg->range.len = s->len;
	reg->mode = UFFDIO_REGISTER_MODE_MISSING;
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_REGISTER, reg));
	EXPECT_EQ(1, uk_census(s->area, s->len).armed);

	copy->dst = (unsigned long)s->area;
	copy->src = (unsigned long)s->src;
	copy->len = page;
	ASSERT_EQ(0, uk_start(&s->sleeper, uk_peek, s->area));
	ASSERT_TRUE(uk_parked(s->fd, 1, 1));
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_COPY, copy));
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_TRUE(uk_painted(s->area, page, 0));

	zero->range.start = (unsigned long)at(s, 1);
	zero->range.len = page;
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_ZEROPAGE, zero));
	EXPECT_TRUE(uk_all_zero(at(s, 1), page));

	poison->range.start = (unsigned long)at(s, 2);
	poison->range.len = page;
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_POISON, poison));
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, at(s, 2), NULL, &(int){ 0 }));

	move->dst = (unsigned long)at(s, 3);
	move->src = (unsigned long)at(s, 0);
	move->len = page;
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_MOVE, move));
	if (is_anon(s))
		EXPECT_TRUE(uk_painted(at(s, 3), page, 0));

	cont->range.start = (unsigned long)at(s, 4);
	cont->range.len = page;
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_CONTINUE, cont));
	EXPECT_EQ(0, uk_pages(at(s, 4), page, UK_PM_PRESENT));
}

/* Not even that a call is refused can be said. */
TEST_F_TIMEOUT(page_by_page, refusals_out_of_reach, LIMIT)
{
	struct uffdio_copy *copy = edge(sizeof(*copy), 8, true);
	struct stage *s = &self->s;
	struct uk_call drop;
	struct uffd_msg msg;

	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, UFFD_FEATURE_EVENT_REMOVE);
	ASSERT_LE(0, s->fd);
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
	drop = (struct uk_call) { __NR_madvise, {
		(unsigned long)s->area, page, MADV_DONTNEED,
	} };
	ASSERT_EQ(0, uk_start(&s->sleeper, uk_call, &drop));
	ASSERT_EQ(POLLIN, uk_poll(s->fd, UK_SOON));
	copy->dst = (unsigned long)s->area;
	copy->src = (unsigned long)s->src;
	copy->len = page;
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_COPY, copy));
	copy->len = 1;
	EXPECT_EQ(-EFAULT, call_errno(s->fd, UFFDIO_COPY, copy));
	EXPECT_EQ(1, uk_read(s->fd, &msg, 1));
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_EQ(0, s->sleeper.ret);
	EXPECT_TRUE(is_empty(s, 0));
}

/* Messages that do not arrive: all, or all but some. */
TEST_F_TIMEOUT(page_by_page, messages_out_of_reach, LIMIT)
{
	struct stage *s = &self->s;
	struct uk_thread t[4];
	struct uffd_msg *msg, good[4];
	unsigned int i;

	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
	/* The last two wait for the same page. */
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, uk_start(&t[i], uk_peek, at(s, i < 3 ? i : 2)));
		ASSERT_TRUE(uk_parked(s->fd, i + 1, i + 1));
	}
	EXPECT_EQ(-EFAULT, uk_read(s->fd, UK_KERNEL_SPACE, 4));
	EXPECT_TRUE(uk_parked(s->fd, 4, 4));
	/* Two and a half. */
	msg = edge(3 * sizeof(*msg), sizeof(*msg) / 2, false);
	EXPECT_EQ(2, uk_read(s->fd, msg, 4));
	EXPECT_TRUE(uk_parked(s->fd, 2, 4));
	EXPECT_EQ(2, uk_read(s->fd, good, 4));
	EXPECT_TRUE(uk_is_fault(&good[0], at(s, 2)));
	EXPECT_TRUE(uk_is_fault(&good[1], at(s, 2)));
	UK_EXPECT_FILL(0, s->len, uk_zero(s->fd, s->area, s->len, 0));
	EXPECT_TRUE(uk_join_all(t, 4));
}

/* The source of a copy cannot be read, at its beginning or behind it. */
TEST_F_TIMEOUT(memory, source_out_of_reach, LIMIT)
{
	struct stage *s = &self->s;
	char *nothing;

	s->op = COPY;
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	enter_fill(_metadata, s);
	nothing = uk_reserve(s->len, page);
	ASSERT_NE(NULL, nothing);
	UK_EXPECT_FILL(-EFAULT, -EFAULT, uk_copy(s->fd, s->area, nothing,
						 s->len, 0));
	ASSERT_EQ(0, mprotect(s->src + s->unit, s->unit, PROT_NONE));
	UK_EXPECT_FILL(-EAGAIN, (__s64)s->unit, fill(s, 0));
	EXPECT_TRUE(is_empty(s, 1));
	expect_file(_metadata, s, 1);
	UK_EXPECT_FILL(-EFAULT, -EFAULT, fill(s, 1));
	ASSERT_EQ(0, mprotect(s->src + s->unit, s->unit,
			      PROT_READ | PROT_WRITE));
	UK_EXPECT_FILL(0, s->len - s->unit, fill(s, 1));
	ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
	EXPECT_TRUE(holds(s, s->units));
	munmap(s->area, s->len);
	close(s->fd);
}

/* There is no page to go on with. */
TEST_F_TIMEOUT(memory, nothing_in_the_file, LIMIT)
{
	struct stage *s = &self->s;

	if (is_anon(&self->s))
		SKIP(return, FILE_ONLY);
	s->op = CONTINUE;
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	ASSERT_EQ(0, uk_register_mode(s->fd, s->area, s->len, modes_for(s),
				      NULL));
	UK_EXPECT_FILL(-EFAULT, -EFAULT, fill(s, 0));
	EXPECT_TRUE(is_empty(s, 0));
	EXPECT_EQ(0, file_bytes(s));
}

/* The process that the descriptor serves is no more. */

struct owner {
	struct stage *s;
	int sock;
};

static int own_and_leave(void *arg)
{
	struct owner *o = arg;
	int fd = uk_new(O_CLOEXEC | O_NONBLOCK, ALL_EVENTS);

	o->s->area = map_far(o->s, 0);
	UK_CHECK(fd >= 0 && o->s->area);
	UK_CHECK(!uk_register(fd, o->s->area, o->s->len));
	UK_CHECK(!uk_send_fd(o->sock, fd));
	return 0;
}

TEST_F_TIMEOUT(memory, owner_is_gone, LIMIT)
{
	struct stage *s = &self->s;
	struct owner o = { .s = s };
	struct uk_fill gone = { -ESRCH, UK_UNSET };
	struct uffd_msg msg;
	int sv[2], fd;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	o.sock = sv[1];
	pid = uk_spawn(own_and_leave, &o);
	fd = uk_recv_fd(sv[0]);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, uk_reap(pid, UK_SOON));
	/* The process has been reaped; its memory may take a moment more. */
	while (uk_wake(fd, s->area, s->len))
		;
	s->fd = fd;
	for (s->op = COPY; s->op <= POISON; s->op++)
		UK_EXPECT_FILL(gone.err, gone.out, fill(s, 0));
	EXPECT_EQ(-ESRCH, uk_protect(fd, s->area, s->len, 0));
	EXPECT_EQ(-ENOMEM, uk_register(fd, s->area, s->len));
	EXPECT_EQ(-ENOMEM, uk_unregister(fd, s->area, s->len));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_move(fd, s->area, s->src, s->len,
						  0));
	EXPECT_EQ(0, uk_wake(fd, s->area, s->len));
	EXPECT_EQ(-EAGAIN, uk_read(fd, &msg, 1));
	close(fd);
}

/* There is no mapping at the one place or at the other. */
TEST_F_TIMEOUT(page_by_page, nothing_is_mapped, LIMIT)
{
	struct stage *s = &self->s;
	char *nothing;

	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	nothing = s->area + s->len;
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_copy(s->fd, nothing, s->src, page, 0));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_move(s->fd, s->area, nothing, page, 0));
	UK_EXPECT_FILL(-ENOENT, -ENOENT,
		       uk_move(s->fd, nothing, s->area, page, 0));
	EXPECT_EQ(-ENOENT, uk_protect(s->fd, nothing, page, 0));
	EXPECT_EQ(-EINVAL, uk_register(s->fd, nothing, page));
	EXPECT_EQ(-EINVAL, uk_unregister(s->fd, nothing, page));
	EXPECT_EQ(0, uk_wake(s->fd, nothing, page));
}

/* Accesses that cannot wait: they fail, and nobody is told. */

#define GUP_TEST	"/sys/kernel/debug/gup_test"
#define FOLL_WRITE	(1 << 0)	/* of the kernel's own */
#define FOLL_NOWAIT	(1 << 4)

static long pages_got(int fd, void *addr, unsigned int flags)
{
	struct gup_test gup = {
		.addr = (unsigned long)addr,
		.size = page,
		.nr_pages_per_call = 1,
		.gup_flags = flags,
	};

	return ioctl(fd, GUP_BASIC_TEST, &gup) ? -errno : (long)gup.size;
}

TEST_F_TIMEOUT(memory, pages_taken_without_waiting, LIMIT)
{
	int gup = open(GUP_TEST, O_RDWR | O_CLOEXEC);
	struct stage *s = &self->s;
	struct uffd_msg msg;

	if (gup < 0)
		SKIP(return, "no " GUP_TEST);
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
	EXPECT_EQ(0, pages_got(gup, s->area, FOLL_WRITE | FOLL_NOWAIT));
	EXPECT_EQ(0, pages_got(gup, s->area, FOLL_WRITE));
	EXPECT_EQ(-EAGAIN, uk_read(s->fd, &msg, 1));
	EXPECT_TRUE(is_empty(s, 0));
	UK_EXPECT_FILL(0, s->len, fill(s, 0));
	EXPECT_EQ(page, pages_got(gup, s->area, FOLL_WRITE | FOLL_NOWAIT));
	EXPECT_EQ(page, pages_got(gup, s->area, FOLL_WRITE));
	munmap(s->area, s->len);
	close(s->fd);
}

/* The kernel looks for a list of locks when a thread ends. */
static long leave_a_list(void *list)
{
	return syscall(__NR_set_robust_list, list, 3 * sizeof(long));
}

TEST_F_TIMEOUT(page_by_page, thread_that_ends, LIMIT)
{
	struct stage *s = &self->s;
	struct uffd_msg msg;
	struct uk_thread t;

	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, s->fd);
	s->area = map_far(s, 0);
	ASSERT_NE(NULL, s->area);
	ASSERT_EQ(0, uk_register(s->fd, s->area, s->len));
	ASSERT_EQ(0, uk_start(&t, leave_a_list, s->area));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, t.ret);
	EXPECT_EQ(-EAGAIN, uk_read(s->fd, &msg, 1));
	EXPECT_TRUE(uk_parked(s->fd, 0, 0));
	EXPECT_TRUE(is_empty(s, 0));
}

static int dump_core(void *arg)
{
	struct rlimit some = { 1 << 20, 1 << 20 };
	struct stage *s = arg;
	int fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);

	s->area = map_far(s, 0);
	UK_CHECK(fd >= 0 && s->area);
	*at(s, 1) = 1;
	UK_CHECK(!uk_register(fd, s->area, s->len));
	UK_CHECK(!setrlimit(RLIMIT_CORE, &some));
	UK_CHECK(!chdir("/tmp"));
	unlink("core");
	abort();
}

TEST_F_TIMEOUT(page_by_page, process_that_dumps_core, LIMIT)
{
	struct stat st;
	pid_t pid;

	if (!uk_write_file("/proc/sys/kernel/core_pattern", "core"))
		SKIP(return, "no core dumps");
	uk_write_file("/proc/sys/kernel/core_uses_pid", "0");
	pid = uk_spawn(dump_core, &self->s);
	ASSERT_LT(0, pid);
	EXPECT_EQ(128 + SIGABRT, uk_reap(pid, UK_SOON));
	EXPECT_EQ(0, stat("/tmp/core", &st));
	EXPECT_LT(0, st.st_size);
	unlink("/tmp/core");
}

/* Signals */

static void on_signal(int sig)
{
	(void)sig;
}

static long read_one(void *arg)
{
	struct uffd_msg msg;

	return uk_read((long)arg, &msg, 1);
}

TEST_F_TIMEOUT(page_by_page, signal_to_a_reader, LIMIT)
{
	struct sigaction act = { .sa_handler = on_signal };
	struct uk_thread t;
	long fd;

	fd = uk_new(O_CLOEXEC, 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	ASSERT_EQ(0, uk_start(&t, read_one, (void *)fd));
	ASSERT_TRUE(uk_asleep(t.tid));
	ASSERT_EQ(0, pthread_kill(t.id, SIGUSR1));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(-EINTR, t.ret);
	close(fd);
}

/*
 * fork() of much memory takes its time, and the copy waits for it.  Killed, it
 * has done nothing, and the fork() does not notice.
 */

#define MUCH	(384UL << 20)

static int copy_for_ever(void *arg)
{
	struct stage *s = arg;

	/* Nothing is mapped there in this process: that does not matter. */
	for (;;)
		uk_copy(s->fd, s->area, s->src, page, 0);
	return 0;
}

static bool waits_in(pid_t tid, const char *function)
{
	char path[64], name[64];

	snprintf(path, sizeof(path), "/proc/%d/wchan", tid);
	return uk_read_text(path, name, sizeof(name)) > 0 &&
	       !strcmp(name, function);
}

/* False if the fork() is over before the copier is at the gate. */
static bool kill_at_the_gate(struct stage *s, pid_t copier)
{
	bool there = false;

	while (!there && !waits_in(s->sleeper.tid, "dup_userfaultfd_complete"))
		there = waits_in(copier, "userfaultfd_gate_pass");
	kill(copier, SIGKILL);
	return there;
}

TEST_F_TIMEOUT(page_by_page, killed_at_the_gate, LIMIT)
{
	struct stage *s = &self->s;
	bool killed = false;
	struct uffd_msg msg;
	pid_t copier;
	int i;
	char *much;

	/* Behind what is registered, so that fork() comes by there first. */
	s->area = mmap((void *)(1UL << 32), page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ASSERT_NE(MAP_FAILED, s->area);
	much = mmap(NULL, MUCH, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		    MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, much);
	ASSERT_LT(s->area, much);
	/* Not for the copiers, who are forked off as well. */
	ASSERT_EQ(0, madvise(much, MUCH, MADV_DONTFORK));
	ASSERT_EQ(0, madvise(much, MUCH, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, madvise(much, MUCH, MADV_POPULATE_WRITE));
	for (i = 0; i < 20 && !killed; i++) {
		s->fd = uk_new(O_CLOEXEC, UFFD_FEATURE_EVENT_FORK);
		ASSERT_LE(0, s->fd);
		copier = uk_spawn(copy_for_ever, s);
		ASSERT_LT(0, copier);
		ASSERT_EQ(0, uk_register(s->fd, s->area, page));
		ASSERT_EQ(0, madvise(much, MUCH, MADV_DOFORK));
		ASSERT_EQ(0, uk_start(&s->sleeper, fork_and_reap, s));
		killed = kill_at_the_gate(s, copier);
		EXPECT_EQ(128 + SIGKILL, uk_reap(copier, UK_SOON));
		EXPECT_EQ(1, uk_read(s->fd, &msg, 1));
		EXPECT_EQ(UFFD_EVENT_FORK, msg.event);
		close(msg.arg.fork.ufd);
		ASSERT_TRUE(uk_join(&s->sleeper, UK_SOON));
		EXPECT_EQ(0, s->sleeper.ret);
		ASSERT_EQ(0, madvise(much, MUCH, MADV_DONTFORK));
		close(s->fd);
	}
	EXPECT_TRUE(killed);
}

/* A copy is killed while it waits for its source: nothing is left of it. */

static int copy_and_wait(void *arg)
{
	struct stage *s = arg;
	int other = uk_new(O_CLOEXEC, 0);

	UK_CHECK(other >= 0);
	s->area = map_far(s, 0);
	s->src = mmap(NULL, s->len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(s->src, s->len, MADV_NOHUGEPAGE);
	UK_CHECK(s->area && s->src != MAP_FAILED);
	UK_CHECK(!uk_register(s->fd, s->area, s->len));
	UK_CHECK(!uk_register(other, s->src, s->len));
	uk_set(&s->pid, getpid());
	fill(s, 0);
	return 1;
}

static int copy_from_the_dead(void *arg)
{
	struct stage *s = arg;

	/* A descriptor belongs to the process that has made it. */
	s->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	UK_CHECK(s->fd >= 0);
	return copy_and_wait(s);
}

TEST_F_TIMEOUT(memory, killed_in_a_copy, LIMIT)
{
	struct stage *s = &self->s;
	pid_t pid;
	int i;

	s->op = COPY;
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(empty_file(s));
		pid = uk_spawn(copy_from_the_dead, s);
		ASSERT_LT(0, pid);
		while (uk_get(&s->pid) != pid)
			uk_sleep(1);
		uk_sleep(UK_PAUSE);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		EXPECT_EQ(128 + SIGKILL, uk_reap(pid, UK_SOON));
		expect_file(_metadata, s, 0);
	}
}

TEST_HARNESS_MAIN
