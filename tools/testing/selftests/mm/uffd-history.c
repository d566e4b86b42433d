// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: faults of the past.
 *
 * Each test plays one that some kernel since 4.3 had, as far as the other programs
 * do not do so already.  Which test looks for which fault is said in
 * Documentation/mm/userfaultfd.rst, "What went wrong before".
 *
 * UFFD_LARGE=1 says that this kernel need not be spared: without it, what hangs
 * or corrupts kernels that are in use is left out.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE	0x08
#endif

#define LIMIT		60
#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define MINOR		UFFDIO_REGISTER_MODE_MINOR
#define WP		UFFDIO_REGISTER_MODE_WP
#define WP_ON		UFFDIO_WRITEPROTECT_MODE_WP

#define PM_SOFT_DIRTY	UK_BIT(55)

FIXTURE(history)
{
	size_t page;
	char *src;		/* PAGES pages, page i painted with seed i */
	int fd;
};

#define PAGES		16

FIXTURE_SETUP(history)
{
	unsigned int i;

	self->page = getpagesize();
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	self->src = uk_buffer(PAGES * self->page);
	ASSERT_NE(NULL, self->src);
	for (i = 0; i < PAGES; i++)
		uk_paint(self->src + i * self->page, self->page, i);
}

FIXTURE_TEARDOWN(history)
{
	close(self->fd);
	uk_swap_off();
}

static char *map_anon(size_t len, void *at)
{
	char *p = mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		       MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static char *map_file(int fd, size_t len, void *at, int flags)
{
	char *p = mmap(at, len, PROT_READ | PROT_WRITE,
		       flags | (at ? MAP_FIXED : 0), fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int new_memfd(size_t len, unsigned int flags)
{
	int fd = syscall(__NR_memfd_create, "uffd-history", MFD_CLOEXEC | flags);

	if (fd >= 0 && ftruncate(fd, len)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Is a fault there told to this descriptor? */
static bool is_served(int fd, char *addr, const void *src, size_t len)
{
	struct uffd_msg msg;
	struct uk_thread t;
	bool told;

	if (uk_start(&t, uk_peek, addr))
		return false;
	/* Who does not fault ends, and no message comes. */
	while (!uk_finished(&t) && !(uk_poll(fd, 1) & POLLIN))
		;
	told = uk_read(fd, &msg, 1) == 1 && uk_is_fault(&msg, addr);
	if (told)
		told = !uk_copy(fd, addr, src, len, 0).err;
	return uk_join(&t, UK_SOON) && told;
}

/*
 * Memory that the kernel may drop when it likes cannot be served: the handler
 * would not know.
 */
TEST_F_TIMEOUT(history, droppable_memory, LIMIT)
{
	size_t len = 4 * self->page;
	char *p;

	p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		 MAP_ANONYMOUS | MAP_DROPPABLE, -1, 0);
	if (p == MAP_FAILED)
		SKIP(return, "no MAP_DROPPABLE on this kernel");
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, len));
	EXPECT_EQ(-EINVAL, uk_register_mode(self->fd, p, len, WP, NULL));
	EXPECT_EQ(0, uk_census(p, len).armed);

	/* Libraries may have some anywhere: it is not in the way, where it never was. */
	ASSERT_EQ(p, map_anon(self->page, p));
	ASSERT_EQ(0, uk_register(self->fd, p, self->page));
	EXPECT_EQ(UK_KEEPS_PROTECTION ? -EINVAL : 0,
		  uk_unregister(self->fd, p, len));
	EXPECT_EQ(UK_KEEPS_PROTECTION ? 1 : 0, uk_census(p, len).armed);
}

/*
 * What mremap() puts beside registered memory loses its own registration, not that
 * of its neighbours, though they could be one mapping.
 */

static bool map_registered(int fd, char *at, size_t len)
{
	return map_anon(len, at) &&
	       !uk_register_mode(fd, at, len, MISSING | WP, NULL);
}

TEST_F_TIMEOUT(history, mremap_beside_registered, LIMIT)
{
	/* Behind a neighbour, before one, between two. */
	static const bool sides[][2] = { { 1, 0 }, { 0, 1 }, { 1, 1 } };
	size_t len = 4 * self->page;
	unsigned int i, side;

	for (i = 0; i < ARRAY_SIZE(sides); i++) {
		char *middle, *from, *p;

		p = uk_reserve(3 * len, len);
		ASSERT_NE(NULL, p);
		middle = p + len;
		from = map_anon(len, NULL);
		ASSERT_NE(NULL, from);
		ASSERT_TRUE(map_registered(self->fd, from, len));
		for (side = 0; side < 2; side++)
			if (sides[i][side])
				ASSERT_TRUE(map_registered(self->fd,
							   p + 2 * side * len,
							   len));
		ASSERT_EQ(middle, mremap(from, len, len, MREMAP_MAYMOVE |
					 MREMAP_FIXED, middle));
		EXPECT_EQ(0, uk_census(middle, len).armed);
		EXPECT_EQ(0, uk_peek(middle));
		for (side = 0; side < 2; side++) {
			char *neighbour = p + 2 * side * len;

			if (!sides[i][side])
				continue;
			EXPECT_EQ(1, uk_census(neighbour, len).armed) {
				TH_LOG("case %u, neighbour %u", i, side);
			}
			EXPECT_TRUE(is_served(self->fd, neighbour, self->src,
					      self->page));
		}
		munmap(p, 3 * len);
	}
}

/*
 * A write that ignores the protection of a private mapping is made to a copy, also
 * if UFFDIO_CONTINUE has mapped the file's page.
 */
TEST_F_TIMEOUT(history, forced_write_is_copied, LIMIT)
{
	unsigned char was, byte = 0x77;
	struct uffd_msg msg;
	struct uk_thread t;
	char *p, *alias;
	int fd, mem, i;

	if (!(uk_offered() & UFFD_FEATURE_MINOR_SHMEM))
		SKIP(return, "no minor faults on this kernel");
	fd = new_memfd(4 * self->page, 0);
	ASSERT_LE(0, fd);
	alias = map_file(fd, 4 * self->page, NULL, MAP_SHARED);
	ASSERT_NE(NULL, alias);
	memcpy(alias, self->src, 4 * self->page);
	was = alias[5];
	p = map_file(fd, 4 * self->page, NULL, MAP_PRIVATE);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, uk_register_mode(self->fd, p, 4 * self->page, MINOR, NULL));
	ASSERT_EQ(0, mprotect(p, 4 * self->page, PROT_READ));
	ASSERT_EQ(0, uk_start(&t, uk_peek, p));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	UK_ASSERT_FILL(0, 4 * self->page,
		       uk_continue(self->fd, p, 4 * self->page, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));

	mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, mem);
	for (i = 0; i < 4; i++) {
		off_t at = (unsigned long)p + i * self->page + 5;

		if (pwrite(mem, &byte, 1, at) != 1)
			SKIP(return, "no writing through /proc/self/mem here");
		EXPECT_EQ(byte, (unsigned char)p[i * self->page + 5]);
	}
	EXPECT_EQ(was, (unsigned char)alias[5]);
	EXPECT_EQ(0, memcmp(alias, self->src, 4 * self->page));
	close(mem);
	close(fd);
}

/*
 * A fork() that fails half-way, for want of memory that may be committed: it is not
 * told, and refuses nothing.
 */

/* fork() finds the registered memory first: it lies lower. */
static int fork_in_vain(void *arg)
{
	size_t page = getpagesize(), large = 256 << 20, i;
	char *big, *p, *src, limit[32];
	struct uffd_msg msg;
	pid_t pid;
	int fd;

	fd = uk_new(O_CLOEXEC | O_NONBLOCK, UFFD_FEATURE_EVENT_FORK);
	UK_CHECK(fd >= 0);
	p = uk_reserve(large + 8 * page, page);
	UK_CHECK(p);
	UK_CHECK(map_anon(4 * page, p));
	big = map_anon(large, p + 8 * page);
	src = uk_buffer(page);
	UK_CHECK(big && src);
	UK_CHECK(!uk_register(fd, p, 4 * page));

	snprintf(limit, sizeof(limit), "%ld",
		 uk_number_of("/proc/meminfo", "Committed_AS") +
		 (long)(large / 2048));
	UK_CHECK(uk_write_file("/proc/sys/vm/overcommit_kbytes", limit));
	UK_CHECK(uk_write_file("/proc/sys/vm/overcommit_memory", "2"));
	for (i = 0; i < 50; i++) {
		pid = syscall(__NR_clone, SIGCHLD, 0, 0, 0, 0);
		if (!pid)
			_exit(0);
		UK_CHECK(pid < 0 && errno == ENOMEM);
	}
	UK_CHECK(uk_write_file("/proc/sys/vm/overcommit_memory", arg));
	UK_CHECK(uk_poll(fd, 0) == 0);
	UK_CHECK(uk_read(fd, &msg, 1) == -EAGAIN);
	UK_CHECK(!uk_copy(fd, p, src, page, 0).err);
	UK_CHECK(is_served(fd, p + page, src, page));
	return 0;
}

TEST_F_TIMEOUT(history, fork_that_fails, LIMIT)
{
	long was = uk_read_number("/proc/sys/vm/overcommit_memory");
	char mode[24];

	if (geteuid() || was < 0 ||
	    uk_number_of("/proc/meminfo", "Committed_AS") < 0)
		SKIP(return, "needs root, and vm.overcommit_memory");
	snprintf(mode, sizeof(mode), "%ld", was);
	EXPECT_EQ(0, uk_in_child(fork_in_vain, mode));
	uk_write_file("/proc/sys/vm/overcommit_memory", mode);
	uk_write_file("/proc/sys/vm/overcommit_ratio", "50");
}

/* A process that dumps its core does not wait for pages that nobody brings. */
static int crash(void *arg)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct uk_mem *m = arg;
	int fd = uk_new(O_CLOEXEC, 0);

	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_register(fd, m->area, m->len));
	UK_CHECK(!chdir("/tmp"));
	UK_CHECK(!setrlimit(RLIMIT_CORE, &unlimited));
	abort();
}

TEST_F_TIMEOUT(history, core_dump_does_not_wait, LIMIT)
{
	struct uk_mem m;
	char name[32];
	pid_t pid;

	ASSERT_EQ(NULL, uk_map(&m, UK_SHMEM, 4));
	pid = uk_spawn(crash, &m);
	ASSERT_LT(0, pid);
	EXPECT_EQ(128 + SIGABRT, uk_reap(pid, UK_SOON));
	kill(pid, SIGKILL);
	snprintf(name, sizeof(name), "/tmp/core.%d", pid);
	if (unlink("/tmp/core") && unlink(name))
		SKIP(return, "cores do not go to where the process is");
}

/* Nor does a thread that exits, whose last act is a write to user memory. */
static long exit_to(void *addr)
{
	syscall(__NR_set_tid_address, addr);
	syscall(__NR_exit, 0);
	return 0;
}

static int exit_with_registered_tid(void *arg)
{
	size_t page = getpagesize();
	long long end = uk_now() + UK_SOON / 2;
	struct uk_thread t;
	struct uk_info info;
	char path[64], *p;
	int fd;

	fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	UK_CHECK(fd >= 0);
	p = map_anon(page, NULL);
	UK_CHECK(p);
	UK_CHECK(!uk_register(fd, p, page));
	UK_CHECK(!uk_start(&t, exit_to, p));
	snprintf(path, sizeof(path), "/proc/self/task/%d", t.tid);
	while (!access(path, F_OK)) {
		UK_CHECK(uk_now() < end);
		uk_sleep(1);
	}
	UK_CHECK(!uk_fdinfo(fd, &info));
	UK_CHECK(info.pending == 0 && info.total == 0);
	return 0;
}

TEST_F_TIMEOUT(history, exit_does_not_wait, LIMIT)
{
	EXPECT_EQ(0, uk_in_child(exit_with_registered_tid, NULL));
}

/* Who may not trace others must not be given a descriptor for a child's memory. */
static int ask_for_forks(void *arg)
{
	int fd;

	UK_CHECK(!syscall(__NR_setresuid, 65534, 65534, 65534));
	fd = uk_open(UFFD_USER_MODE_ONLY | O_CLOEXEC);
	UK_CHECK(fd >= 0);
	UK_CHECK(uk_api(fd, UFFD_FEATURE_EVENT_FORK) == -EPERM);
	UK_CHECK(uk_api(fd, UFFD_FEATURE_EVENT_REMAP) == 0);
	return 0;
}

TEST_F_TIMEOUT(history, fork_events_need_privilege, LIMIT)
{
	if (geteuid())
		SKIP(return, "needs root, to give it up");
	EXPECT_EQ(0, uk_in_child(ask_for_forks, NULL));
}

/*
 * Two handshakes at once: the first is stopped when it has found that there was none
 * yet, for its answer goes to a page that is protected.
 */
TEST_F_TIMEOUT(history, two_handshakes_at_once, LIMIT)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = uk_open(O_CLOEXEC);
	struct uk_call call = {
		.nr = __NR_ioctl,
		.arg = { fd, UFFDIO_API },
	};
	struct uffd_msg msg;
	struct uk_thread t;
	char *p;

	if (!(uk_offered() & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		SKIP(return, "no write protection on this kernel");
	ASSERT_LE(0, fd);
	p = map_anon(self->page, NULL);
	ASSERT_NE(NULL, p);
	call.arg[2] = (unsigned long)p;
	ASSERT_EQ(0, uk_register_mode(self->fd, p, self->page, MISSING | WP,
				      NULL));
	memcpy(self->src, &api, sizeof(api));
	UK_ASSERT_FILL(0, self->page, uk_copy(self->fd, p, self->src, self->page,
					      UFFDIO_COPY_MODE_WP));
	ASSERT_EQ(0, uk_start(&t, uk_call, &call));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, p));
	EXPECT_EQ(0, uk_api(fd, UFFD_FEATURE_EVENT_REMAP));
	ASSERT_EQ(0, uk_protect(self->fd, p, self->page, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(-EINVAL, t.ret);
	close(fd);
}

/* aio polls with interrupts off: lockdep says if a lock of ours minds. */
TEST_F_TIMEOUT(history, aio_poll, LIMIT)
{
	struct timespec soon = { .tv_sec = UK_SOON / 1000 };
	struct iocb cb = {}, *cbs = &cb;
	struct io_event ev;
	aio_context_t ctx = 0;
	struct uffd_msg msg;
	struct uk_thread t;
	char *p;
	int i;

	if (syscall(__NR_io_setup, 4, &ctx))
		SKIP(return, "no aio on this kernel");
	p = map_anon(PAGES * self->page, NULL);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, uk_register(self->fd, p, PAGES * self->page));
	cb.aio_lio_opcode = IOCB_CMD_POLL;
	cb.aio_fildes = self->fd;
	cb.aio_buf = POLLIN;
	for (i = 0; i < PAGES; i++) {
		char *addr = p + i * self->page;

		/* Before the fault, and after it. */
		if (!(i & 1))
			ASSERT_EQ(1, syscall(__NR_io_submit, ctx, 1, &cbs));
		ASSERT_EQ(0, uk_start(&t, uk_peek, addr));
		if (i & 1) {
			ASSERT_TRUE(uk_parked(self->fd, 1, 1));
			ASSERT_EQ(1, syscall(__NR_io_submit, ctx, 1, &cbs));
		}
		ASSERT_EQ(1, syscall(__NR_io_getevents, ctx, 1, 1, &ev, &soon));
		EXPECT_EQ(POLLIN, ev.res & POLLIN);
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		UK_EXPECT_FILL(0, self->page,
			       uk_copy(self->fd, addr, self->src, self->page, 0));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
	}
	/* One that is left when the file goes away. */
	ASSERT_EQ(1, syscall(__NR_io_submit, ctx, 1, &cbs));
	syscall(__NR_io_destroy, ctx);
}

/* Pages that fallocate() has set aside have no content yet: zeroes, then. */
TEST_F_TIMEOUT(history, continue_of_fallocated_pages, LIMIT)
{
	size_t len = 32 << 20, junk = 256 << 20;
	char *p;
	int fd;

	if (!(uk_offered() & UFFD_FEATURE_MINOR_SHMEM))
		SKIP(return, "no minor faults on this kernel");
	/* What the pages had before shows if nobody clears them. */
	p = uk_buffer(junk);
	ASSERT_NE(NULL, p);
	memset(p, 0x5a, junk);
	ASSERT_EQ(0, munmap(p, junk));

	fd = new_memfd(len, 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fallocate(fd, 0, 0, len));
	p = map_file(fd, len, NULL, MAP_SHARED);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, uk_register_mode(self->fd, p, len, MINOR, NULL));
	UK_EXPECT_FILL(0, len, uk_continue(self->fd, p, len, 0));
	EXPECT_TRUE(uk_all_zero(p, len));
	close(fd);
}

/*
 * What a copy has brought is nowhere else: reclaim must write it out, also if no
 * mapping may write to the page.
 */
TEST_F_TIMEOUT(history, read_only_page_survives_reclaim, LIMIT)
{
	static const enum uk_kind kinds[] = {
		UK_ANON_SMALL, UK_SHMEM, UK_SHMEM_PRIVATE
	};
	const char *why;
	unsigned int i;

	why = uk_swap_on(4 * PAGES * self->page);
	if (why)
		SKIP(return, "%s", why);
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct uk_mem m;

		ASSERT_EQ(NULL, uk_map(&m, kinds[i], PAGES));
		ASSERT_EQ(0, uk_register(self->fd, m.area, m.len));
		ASSERT_EQ(0, mprotect(m.area, m.len, PROT_READ));
		UK_ASSERT_FILL(0, m.len, uk_copy(self->fd, m.area, self->src,
						 m.len, 0));
		ASSERT_EQ(0, uk_unregister(self->fd, m.area, m.len));
		EXPECT_TRUE(uk_swap_out(m.area, m.len));
		EXPECT_EQ(0, memcmp(m.area, self->src, m.len)) {
			TH_LOG("kind %d", kinds[i]);
		}
		munmap(m.area, m.len);
	}
}

/*
 * Two mappings of anonymous memory without huge pages, the first painted. Apart, so
 * that their pages have different reverse mappings.
 */
static bool move_setup(char **dst, char **src, size_t len, int fd)
{
	char *p = uk_reserve(3 * len, getpagesize());

	*src = map_anon(len, p);
	*dst = map_anon(len, p + 2 * len);
	if (!p || !*src || !*dst || madvise(*src, len, MADV_NOHUGEPAGE) ||
	    madvise(*dst, len, MADV_NOHUGEPAGE))
		return false;
	uk_paint(*src, len, 3);
	return !uk_register(fd, *dst, len);
}

/*
 * A page that has been swapped out, and waits in the swap cache, moves as well: its
 * reverse mapping goes along, or it could never be swapped out or migrated again.
 */
TEST_F_TIMEOUT(history, move_of_pages_in_the_swap_cache, LIMIT)
{
	size_t len = 64 * self->page;
	const char *why;
	char *src, *dst;
	long copies;

	if (!(uk_offered() & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	why = uk_swap_on(4 * len);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_TRUE(move_setup(&dst, &src, len, self->fd));
	ASSERT_TRUE(uk_swap_out(src, len));
	ASSERT_EQ(0, madvise(src, len, MADV_WILLNEED));
	ASSERT_EQ(64, uk_pages(src, len, UK_PM_SWAP));
	copies = uk_number_of("/proc/vmstat", "ksm_swpin_copy");
	UK_ASSERT_FILL(0, len, uk_move(self->fd, dst, src, len, 0));
	EXPECT_EQ(0, uk_pages(src, len, UK_PM_SWAP));
	EXPECT_TRUE(uk_painted(dst, len, 3));
	/* With KSM what does not fit its place is copied when it comes in. */
	EXPECT_EQ(copies, uk_number_of("/proc/vmstat", "ksm_swpin_copy"));
	uk_paint(dst, len, 4);
	EXPECT_TRUE(uk_swap_out(dst, len));
	EXPECT_TRUE(uk_painted(dst, len, 4));
}

/*
 * Who tracks writes by soft-dirty bits sees that pages have come: written ones,
 * swapped ones, and those that were swapped in for reading, which are clean.
 */
TEST_F_TIMEOUT(history, moved_pages_are_soft_dirty, LIMIT)
{
	size_t part = 32 * self->page, len = 3 * part;
	char *src, *dst;
	int i;

	if (!(uk_offered() & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	ASSERT_TRUE(move_setup(&dst, &src, len, self->fd));
	if (uk_pages(src, len, PM_SOFT_DIRTY) != 96)
		SKIP(return, "no soft-dirty bits on this kernel");
	if (!uk_swap_on(4 * len)) {
		EXPECT_TRUE(uk_swap_out(src + part, 2 * part));
		for (i = 64; i < 96; i++)
			uk_peek(src + i * self->page);
	}
	ASSERT_TRUE(uk_write_file("/proc/self/clear_refs", "4"));
	ASSERT_EQ(0, uk_pages(src, len, PM_SOFT_DIRTY));
	UK_ASSERT_FILL(0, len, uk_move(self->fd, dst, src, len, 0));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(32, uk_pages(dst + i * part, part, PM_SOFT_DIRTY)) {
			TH_LOG("part %d", i);
		}
	}
	EXPECT_TRUE(uk_painted(dst, len, 3));
}

TEST_F_TIMEOUT(history, moved_huge_zero_page_is_soft_dirty, LIMIT)
{
	size_t len = uk_huge_size();
	char *p = len ? uk_reserve(3 * len, len) : NULL;
	char *src, *dst;

	if (!(uk_offered() & UFFD_FEATURE_MOVE) || !p)
		SKIP(return, "no UFFDIO_MOVE, or no huge pages");
	src = map_anon(len, p);
	dst = map_anon(len, p + 2 * len);
	ASSERT_TRUE(src && dst && !madvise(src, len, MADV_HUGEPAGE) &&
		    !madvise(dst, len, MADV_HUGEPAGE));
	uk_peek(src);
	if (uk_pages(src, len, UK_PM_PRESENT) != (long)(len / self->page) ||
	    uk_pages(src, len, PM_SOFT_DIRTY) != (long)(len / self->page))
		SKIP(return, "no huge zero page, or no soft-dirty bits");
	ASSERT_EQ(0, uk_register(self->fd, dst, len));
	ASSERT_TRUE(uk_write_file("/proc/self/clear_refs", "4"));
	ASSERT_EQ(0, uk_pages(src, len, PM_SOFT_DIRTY));
	UK_ASSERT_FILL(0, len, uk_move(self->fd, dst, src, len, 0));
	EXPECT_EQ((long)(len / self->page), uk_pages(dst, len, PM_SOFT_DIRTY));
}

/* While a copy waits for its source, its destination becomes something else. */

enum change {
	UNREGISTERED,
	OTHER_MODES,
	SHARED_TO_PRIVATE,
	PRIVATE_TO_SHARED,
	ANON_TO_SHMEM,
	SHMEM_TO_ANON,
	CHANGES,
};

static const char * const change_names[] = {
	"unregistered", "other modes", "shared to private",
	"private to shared", "anonymous to shmem", "shmem to anonymous",
};

/* What it is in the beginning, and with @after what becomes of it. */
static bool arrange(enum change what, char *p, size_t len, int file, bool after)
{
	switch (what) {
	case UNREGISTERED:
	case OTHER_MODES:
		return after || map_anon(len, p);
	case SHARED_TO_PRIVATE:
		return map_file(file, len, p, after ? MAP_PRIVATE : MAP_SHARED);
	case PRIVATE_TO_SHARED:
		return map_file(file, len, p, after ? MAP_SHARED : MAP_PRIVATE);
	case ANON_TO_SHMEM:
		return after ? map_file(file, len, p, MAP_SHARED) :
			       map_anon(len, p);
	default:
		return after ? map_anon(len, p) :
			       map_file(file, len, p, MAP_SHARED);
	}
}

TEST_F_TIMEOUT(history, destination_changes_during_the_copy, LIMIT)
{
	struct uk_job j = { .fd = self->fd, .len = self->page };
	struct uffd_msg msg;
	struct uk_thread t;
	enum change what;
	int file, err;
	char *p;

	if (!getenv("UFFD_LARGE"))
		SKIP(return, "kernels up to 6.12 fill what has come there");
	file = new_memfd(self->page, 0);
	ASSERT_LE(0, file);
	p = uk_reserve(2 * self->page, self->page);
	ASSERT_NE(NULL, p);
	j.dst = p;
	for (what = 0; what < CHANGES; what++) {
		ASSERT_TRUE(arrange(what, p, self->page, file, false));
		ASSERT_EQ(0, uk_register(self->fd, p, self->page));
		j.src = map_anon(self->page, NULL);
		ASSERT_NE(NULL, j.src);
		ASSERT_EQ(0, uk_register(self->fd, j.src, self->page));

		ASSERT_EQ(0, uk_start(&t, uk_copy_job, &j));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		ASSERT_TRUE(uk_is_fault(&msg, j.src));
		ASSERT_TRUE(arrange(what, p, self->page, file, true));
		if (what == UNREGISTERED) {
			ASSERT_EQ(0, uk_unregister(self->fd, p, self->page));
		} else {
			ASSERT_EQ(0, uk_register_mode(self->fd, p, self->page,
						      what == OTHER_MODES ?
						      MISSING | WP : MISSING,
						      NULL));
		}
		UK_ASSERT_FILL(0, self->page, uk_copy(self->fd, j.src,
						      self->src, self->page, 0));
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		err = what == UNREGISTERED ? -ENOENT : -EAGAIN;
		EXPECT_EQ(err, j.res.err) {
			TH_LOG("%s", change_names[what]);
		}
		EXPECT_EQ(err, j.res.out);
		EXPECT_EQ(0, uk_pages(p, self->page, UK_PM_PRESENT));
		munmap(j.src, self->page);
	}
	close(file);
}

/* Whatever becomes of a copy, no huge page and no reservation is lost. */

struct huge_pool {
	long free;
	long reserved;
	long surplus;
};

static struct huge_pool huge_pool(size_t size)
{
	static const char * const names[] = {
		"free_hugepages", "resv_hugepages", "surplus_hugepages"
	};
	long n[3];
	int i;

	for (i = 0; i < 3; i++) {
		char path[96];

		snprintf(path, sizeof(path),
			 "/sys/kernel/mm/hugepages/hugepages-%zukB/%s",
			 size >> 10, names[i]);
		n[i] = uk_read_number(path);
	}
	return (struct huge_pool){ n[0], n[1], n[2] };
}

/* The source is not resident; meanwhile somebody fills or unmaps the destination. */
static bool late_copy(int fd, char *dst, size_t len, const char *src, bool unmap)
{
	struct uk_job j = { .fd = fd, .dst = dst, .len = len };
	struct uffd_msg msg;
	struct uk_thread t;
	bool ok;

	j.src = map_anon(len, NULL);
	if (!j.src || uk_register(fd, j.src, len) ||
	    uk_start(&t, uk_copy_job, &j) || uk_next(fd, &msg) != 1)
		return false;
	if (unmap)
		ok = !munmap(dst, len);
	else
		ok = !uk_copy(fd, dst, src, len, 0).err;
	ok = ok && !uk_copy(fd, j.src, src, len, 0).err;
	ok = uk_join(&t, UK_SOON) && ok;
	munmap(j.src, len);
	return ok && j.res.err == (unmap ? -ENOENT : -EEXIST);
}

TEST_F_TIMEOUT(history, hugetlb_pool_is_balanced, LIMIT)
{
	static const enum uk_kind kinds[] = { UK_HUGETLB, UK_HUGETLB_PRIVATE };
	struct huge_pool before, after;
	unsigned int i, round;
	struct uk_mem m;
	const char *why;
	char *src, *cold;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		why = uk_map(&m, kinds[i], 6);
		if (why)
			SKIP(return, "%s", why);
		src = uk_buffer(m.unit);
		ASSERT_NE(NULL, src);
		before = huge_pool(m.unit);
		for (round = 0; round < 3; round++) {
			ASSERT_EQ(0, uk_register(self->fd, m.area, m.len));
			UK_EXPECT_FILL(-EFAULT, -EFAULT,
				       uk_copy(self->fd, m.area, m.area - m.unit,
					       m.unit, 0));
			cold = map_anon(m.unit, NULL);
			ASSERT_NE(NULL, cold);
			UK_EXPECT_FILL(0, m.unit, uk_copy(self->fd, m.area, cold,
							  m.unit, 0));
			UK_EXPECT_FILL(-EEXIST, -EEXIST,
				       uk_copy(self->fd, m.area, cold, m.unit, 0));
			EXPECT_TRUE(late_copy(self->fd, uk_at(&m, 1), m.unit,
					      src, false));
			EXPECT_TRUE(late_copy(self->fd, uk_at(&m, 5), m.unit,
					      src, true));
			munmap(cold, m.unit);
			/* As it was in the beginning. */
			ASSERT_EQ(0, munmap(m.area, m.len));
			ASSERT_EQ(0, ftruncate(m.fd, 0));
			ASSERT_EQ(0, ftruncate(m.fd, m.len));
			ASSERT_NE(NULL, map_file(m.fd, m.len, m.area,
						 uk_is_shared(&m) ? MAP_SHARED :
						 MAP_PRIVATE));
			after = huge_pool(m.unit);
			EXPECT_EQ(before.free, after.free);
			EXPECT_EQ(before.reserved, after.reserved);
			EXPECT_EQ(before.surplus, after.surplus);
		}
		munmap(m.area, m.len);
		close(m.fd);
	}
}

/*
 * Two mappings of a hugetlb file share page tables; not so if one of them is
 * protected.
 */
TEST_F_TIMEOUT(history, shared_page_tables, LIMIT)
{
	size_t len = 1UL << 30;
	struct uffd_msg msg;
	struct uk_thread t;
	char *area, *a, *b;
	int fd;

	if (!(uk_offered() & UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		SKIP(return, "no write protection of hugetlb on this kernel");
	if (sizeof(long) < 8 || huge_pool(2 << 20).free < 8)
		SKIP(return, "no huge pages of 2 MiB");
	fd = new_memfd(len, MFD_HUGETLB);
	ASSERT_LE(0, fd);
	area = uk_reserve(2 * len, len);
	ASSERT_NE(NULL, area);
	a = map_file(fd, len, area, MAP_SHARED | MAP_NORESERVE);
	b = map_file(fd, len, area + len, MAP_SHARED | MAP_NORESERVE);
	ASSERT_NE(NULL, a);
	ASSERT_NE(NULL, b);
	uk_poke(a);
	EXPECT_EQ(0xa5, uk_peek(b));
	uk_poke(b);

	ASSERT_EQ(0, uk_register_mode(self->fd, a, len, WP, NULL));
	ASSERT_EQ(0, uk_protect(self->fd, a, len, WP_ON));
	/* The one that is not registered is written to as ever. */
	ASSERT_EQ(0, uk_start(&t, uk_poke, b));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	/* The other one is protected, and stays so. */
	ASSERT_EQ(0, uk_start(&t, uk_poke, a));
	EXPECT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, a));
	ASSERT_EQ(0, uk_protect(self->fd, a, len, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	munmap(area, 2 * len);
	close(fd);
}

/* A huge page would fill the holes that the handler waits for: none is made. */
TEST_F_TIMEOUT(history, collapse_keeps_holes, LIMIT)
{
	static const enum uk_kind kinds[] = { UK_ANON, UK_SHMEM };
	size_t huge = uk_huge_size();
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct uk_mem m;
		char *p;

		ASSERT_EQ(NULL, uk_map(&m, kinds[i], 2 * huge / self->page));
		ASSERT_EQ(0, uk_register(self->fd, m.area, m.len));
		UK_ASSERT_FILL(0, self->page, uk_copy(self->fd, m.area, self->src,
						      self->page, 0));
		p = m.area;
		if (kinds[i] == UK_SHMEM) {
			p = uk_reserve(m.len, huge);
			ASSERT_NE(NULL, p);
			ASSERT_NE(NULL, map_file(m.fd, m.len, p, MAP_SHARED));
			EXPECT_EQ(0, memcmp(p, self->src, self->page));
		}
		EXPECT_NE(0, madvise(p, huge, MADV_COLLAPSE)) {
			TH_LOG("%s", i ? "shmem" : "anonymous");
		}
		EXPECT_TRUE(is_served(self->fd, m.area + 9 * self->page,
				      self->src, self->page));
		munmap(m.area, m.len);
	}
}

/*
 * A page that a file has because its neighbour was written must not count as present
 * where a handler waits for it: a folio of shmem is not larger than what is written.
 */
TEST_F_TIMEOUT(history, neighbour_in_the_file_is_missing, LIMIT)
{
	static const char path[] =
		"/sys/kernel/mm/transparent_hugepage/shmem_enabled";
	size_t huge = uk_huge_size();
	char *alias, *next, was[64];
	struct uk_mem m;
	FILE *f;

	if (!getenv("UFFD_LARGE"))
		SKIP(return, "kernels up to 7.3 make huge pages there");
	f = fopen(path, "r");
	if (!f || !fgets(was, sizeof(was), f) || !uk_write_file(path, "always"))
		SKIP(return, "no huge pages of shmem, or not ours to ask for");
	fclose(f);
	ASSERT_EQ(NULL, uk_map(&m, UK_SHMEM, 2 * huge / self->page));
	alias = uk_reserve(m.len, huge);
	ASSERT_NE(NULL, alias);
	ASSERT_NE(NULL, map_file(m.fd, m.len, alias, MAP_SHARED));
	/* Only the first half: in the second one huge pages are welcome. */
	ASSERT_EQ(0, uk_register(self->fd, m.area, huge));
	memcpy(alias + 3 * self->page, self->src, self->page);
	EXPECT_EQ(self->page, pwrite(m.fd, self->src, self->page,
				     9 * self->page));
	memcpy(alias + huge, self->src, self->page);
	next = strchr(was, '[');
	if (next) {
		next[strcspn(next, "]")] = 0;
		uk_write_file(path, next + 1);
	}

	EXPECT_EQ(0, memcmp(m.area + 3 * self->page, self->src, self->page));
	EXPECT_EQ(0, memcmp(m.area + 9 * self->page, self->src, self->page));
	EXPECT_TRUE(is_served(self->fd, m.area + 4 * self->page, self->src,
			      self->page));
	EXPECT_TRUE(is_served(self->fd, m.area + 8 * self->page, self->src,
			      self->page));
	EXPECT_LT(1, uk_compound(alias + huge, 4 * self->page)) {
		TH_LOG("no huge page was to be had at all");
	}
	munmap(alias, m.len);
}

/* A fill of a page that a huge page has. */
TEST_F_TIMEOUT(history, fill_where_a_huge_page_is, LIMIT)
{
	struct uk_mem m;
	char *p;

	ASSERT_EQ(NULL, uk_map(&m, UK_ANON, 2));
	uk_paint(m.area, m.len, 5);
	if (uk_huge(m.area, m.len) <= 0)
		SKIP(return, "no huge page was to be had");
	ASSERT_EQ(0, uk_register(self->fd, m.area, m.len));
	p = m.area + 7 * self->page;
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_copy(self->fd, p, self->src, 2 * self->page, 0));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, uk_zero(self->fd, p, self->page, 0));
	if (uk_offered() & UFFD_FEATURE_POISON)
		UK_EXPECT_FILL(-EEXIST, -EEXIST,
			       uk_poison(self->fd, p, self->page, 0));
	EXPECT_TRUE(uk_painted(m.area, m.len, 5));
}

/*
 * A page is filled at the moment when somebody faults on it, by one who reads no
 * messages.  Who fills it again is told that it is there, and wakes nobody; so nobody
 * must sleep before it.
 */

#define RACES		512

struct race {
	char *area;
	size_t page;
	unsigned int turn;	/* the page that is raced for, from 1 on */
	unsigned int done;
	bool stop;
};

static long race_to_fault(void *arg)
{
	struct race *r = arg;
	unsigned int turn = 0, spins = 0;

	while (!uk_get(&r->stop)) {
		if (uk_get(&r->turn) == turn) {
			if (++spins % 4096 == 0)
				sched_yield();
			continue;
		}
		turn = uk_get(&r->turn);
		uk_peek(r->area + turn % RACES * r->page);
		uk_set(&r->done, turn);
	}
	return 0;
}

/* @replaced: it is the zero page, which a write replaces at once. */
static void race_to_fill(int fd, char *p, char *src, size_t page, bool replaced)
{
	if (replaced) {
		uk_zero(fd, p, page, 0);
		uk_poke(p);
	} else {
		uk_copy(fd, p, src, page, 0);
	}
}

/* The page before which somebody sleeps though it is there, or 0. */
static unsigned int race(int fd, struct race *r, char *src, bool replaced)
{
	long long end = uk_now() + 10000, late;
	unsigned int turn, asleep = 0, delay;

	for (turn = 1; uk_now() < end && !asleep; turn++) {
		char *p = r->area + turn % RACES * r->page;

		if (turn % RACES == 0)
			madvise(r->area, RACES * r->page, MADV_DONTNEED);
		uk_set(&r->turn, turn);
		/* All phases of a fault are to be met. */
		for (delay = turn * 7 % 512; delay; delay--)
			asm volatile("" ::: "memory");
		race_to_fill(fd, p, src, r->page, replaced);
		if (uk_copy(fd, p, src, r->page, 0).err != -EEXIST)
			asleep = turn;
		late = uk_now() + 3000;
		while (uk_get(&r->done) != turn && !asleep) {
			sched_yield();
			if (uk_now() > late)
				asleep = turn;
		}
	}
	printf("# %u pages\n", turn);
	return asleep;
}

static unsigned int race_for_pages(int fd, char *src, size_t page,
				   bool replaced)
{
	struct race r = { .page = page };
	size_t len = RACES * page;
	unsigned int asleep;
	struct uk_thread t;

	r.area = map_anon(len, NULL);
	if (!r.area || madvise(r.area, len, MADV_NOHUGEPAGE) ||
	    uk_register(fd, r.area, len) || uk_start(&t, race_to_fault, &r))
		return -1;
	asleep = race(fd, &r, src, replaced);
	uk_set(&r.stop, true);
	uk_wake(fd, r.area, len);
	return uk_join(&t, UK_SOON) ? asleep : -1;
}

TEST_F_TIMEOUT(history, filled_while_it_parks, LIMIT)
{
	EXPECT_EQ(0, race_for_pages(self->fd, self->src, self->page, false));
}

/* The same, and when it looks again the page is being replaced by another. */
TEST_F_TIMEOUT(history, replaced_while_it_parks, LIMIT)
{
	EXPECT_EQ(0, race_for_pages(self->fd, self->src, self->page, true));
}

/* With WP_ASYNC any memory can be protected, but not what the kernel shares. */
TEST_F_TIMEOUT(history, special_memory, LIMIT)
{
	struct io_uring_params params = {};
	size_t len = self->page;
	int ring, fd;
	char *p;

	fd = uk_new(O_CLOEXEC, UFFD_FEATURE_WP_ASYNC);
	ring = syscall(__NR_io_uring_setup, 4, &params);
	if (fd < 0 || ring < 0)
		SKIP(return, "no WP_ASYNC or no io_uring on this kernel");
	p = map_file(ring, len, NULL, MAP_SHARED);
	if (!p)
		SKIP(return, "the ring cannot be mapped");
	EXPECT_EQ(-EINVAL, uk_register_mode(fd, p, len, WP, NULL));
	EXPECT_EQ(-EINVAL, uk_register(fd, p, len));
	close(ring);
	close(fd);
}

/* What has been moved is not protected, whether it was there or swapped out. */
TEST_F_TIMEOUT(history, moved_pages_are_not_protected, LIMIT)
{
	size_t len = 64 * self->page, half = len / 2;
	struct uk_thread t;
	char *src, *dst;
	int fd;

	if (!(uk_offered() & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	if (!getenv("UFFD_LARGE"))
		SKIP(return, "kernels up to 7.3 leave the bits of swapped pages");
	ASSERT_TRUE(move_setup(&dst, &src, len, self->fd));
	fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, uk_register_mode(fd, src, len, WP, NULL));
	ASSERT_EQ(0, uk_protect(fd, src, len, WP_ON));
	if (!uk_swap_on(4 * len))
		EXPECT_TRUE(uk_swap_out(src, half));
	ASSERT_EQ(64, uk_pages(src, len, UK_PM_WP));
	UK_ASSERT_FILL(0, len, uk_move(self->fd, dst, src, len, 0));
	EXPECT_EQ(0, uk_pages(dst, len, UK_PM_WP));
	EXPECT_TRUE(uk_painted(dst, len, 3));
	ASSERT_EQ(0, uk_register_mode(self->fd, dst, len, MISSING | WP, NULL));
	ASSERT_EQ(0, uk_start(&t, uk_poke, dst));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	close(fd);
}

/* Huge pages that migrate while they are moved. */

struct migration {
	char *area;
	size_t len;
	size_t page;
	bool stop;
};

static long migrate(void *arg)
{
	struct migration *g = arg;
	int node = 0, status[2];
	long n = 0;

	while (!uk_get(&g->stop)) {
		void *pages[2] = { g->area, g->area + g->len };
		int nodes[2] = { node, node };

		n += !syscall(__NR_move_pages, 0, 2, pages, nodes, status, 2);
		node = !node;
	}
	return n;
}

TEST_F_TIMEOUT(history, move_of_migrating_huge_pages, LIMIT)
{
	size_t huge = uk_huge_size();
	struct migration g = { .len = huge, .page = self->page };
	long long end = uk_now() + 5000;
	struct uk_thread t;
	long n = 0;
	char *p;

	if (!(uk_offered() & UFFD_FEATURE_MOVE))
		SKIP(return, "no UFFDIO_MOVE on this kernel");
	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "needs two NUMA nodes");
	p = uk_reserve(2 * huge, huge);
	ASSERT_NE(NULL, p);
	ASSERT_NE(NULL, map_anon(2 * huge, p));
	madvise(p, 2 * huge, MADV_HUGEPAGE);
	uk_paint(p, huge, 6);
	if (uk_huge(p, huge) <= 0)
		SKIP(return, "no huge page was to be had");
	ASSERT_EQ(0, uk_register(self->fd, p, 2 * huge));
	g.area = p;
	ASSERT_EQ(0, uk_start(&t, migrate, &g));
	while (uk_now() < end) {
		bool there = n & 1;
		struct uk_fill res;

		res = uk_move(self->fd, there ? p : p + huge,
			      there ? p + huge : p, huge, 0);
		/* A reference of the migration's may be in the way. */
		if (res.err == -EBUSY)
			continue;
		UK_ASSERT_FILL(0, huge, res);
		n++;
	}
	uk_set(&g.stop, true);
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(uk_painted(n & 1 ? p + huge : p, huge, 6));
	TH_LOG("%ld moves, %ld migrations", n, t.ret);
}

/* The file goes away under accesses that the kernel makes for others. */

struct reader {
	char *addr;
	size_t len;
	bool stop;
};

static long read_and_drop(void *arg)
{
	struct reader *r = arg;
	char buf[8];
	long n = 0;

	while (!uk_get(&r->stop)) {
		struct iovec here = { buf, sizeof(buf) };
		struct iovec there = { r->addr, sizeof(buf) };

		if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) !=
		    sizeof(buf))
			return -errno;
		madvise(r->addr, r->len, MADV_DONTNEED);
		n++;
	}
	return n;
}

TEST_F_TIMEOUT(history, close_under_gup, LIMIT)
{
	struct reader r[2];
	struct uk_thread t[2];
	int fd, i, rounds;
	char *p;

	if (!getenv("UFFD_LARGE"))
		SKIP(return, "kernels up to 6.14 may hang");
	p = map_anon(4 * self->page, NULL);
	ASSERT_NE(NULL, p);
	for (i = 0; i < 2; i++) {
		r[i].addr = p + i * self->page;
		r[i].len = self->page;
		r[i].stop = false;
		ASSERT_EQ(0, uk_start(&t[i], read_and_drop, &r[i]));
	}
	for (rounds = 0; rounds < 200; rounds++) {
		fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
		ASSERT_LE(0, fd);
		ASSERT_EQ(0, uk_register(fd, p, 4 * self->page));
		if (rounds & 1)
			uk_poll(fd, 5);
		close(fd);
	}
	for (i = 0; i < 2; i++)
		uk_set(&r[i].stop, true);
	ASSERT_TRUE(uk_join_all(t, 2));
	EXPECT_LT(0, t[0].ret);
	EXPECT_LT(0, t[1].ret);
}

TEST_HARNESS_MAIN
