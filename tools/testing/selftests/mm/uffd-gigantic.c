// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: pages of 1 GiB.
 *
 * They are mapped one level higher than any other page, where code that walks page
 * tables by hand takes them for a table. Each way to fill one, to protect one, and
 * to be told of its end. Boot with hugepagesz=1G hugepages=2.
 */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <linux/falloc.h>
#include <linux/memfd.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define SIZE		(1UL << 30)
#define LIMIT		300
/* A gigabyte takes its time on an emulated machine. */
#define LONG		60000
#define STEP		(SIZE / 64)

#define POOL		"/sys/kernel/mm/hugepages/hugepages-1048576kB/"

#define EVENTS		(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | \
			 UFFD_FEATURE_EVENT_REMAP)

FIXTURE(gigantic)
{
	int fd;
	int memfd;
	long free;
	char *page;
	char *alias;
	struct uk_thread t;
	struct uk_call call;
};

FIXTURE_VARIANT(gigantic)
{
	int flags;
};

FIXTURE_VARIANT_ADD(gigantic, shared) {
	.flags = MAP_SHARED,
};

FIXTURE_VARIANT_ADD(gigantic, private) {
	.flags = MAP_PRIVATE,
};

FIXTURE_SETUP(gigantic)
{
	self->free = uk_read_number(POOL "free_hugepages");
	if (self->free < 1)
		SKIP(return, "no page of 1 GiB (hugepagesz=1G hugepages=2)");
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, EVENTS);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	self->memfd = syscall(__NR_memfd_create, "uffd-gigantic", MFD_CLOEXEC |
			      MFD_HUGETLB | MFD_HUGE_1GB);
	ASSERT_LE(0, self->memfd);
	ASSERT_EQ(0, ftruncate(self->memfd, SIZE));
	self->page = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, variant->flags,
			  self->memfd, 0);
	ASSERT_NE(MAP_FAILED, self->page);
	self->alias = MAP_FAILED;
	if (variant->flags == MAP_SHARED) {
		self->alias = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				   MAP_SHARED, self->memfd, 0);
		ASSERT_NE(MAP_FAILED, self->alias);
	}
}

FIXTURE_TEARDOWN(gigantic)
{
	if (self->alias != MAP_FAILED)
		munmap(self->alias, SIZE);
	close(self->fd);
	munmap(self->page, SIZE);
	close(self->memfd);
	/* None is lost. */
	EXPECT_EQ(self->free, uk_read_number(POOL "free_hugepages"));
}

static void mark(char *page, unsigned int seed)
{
	unsigned long i;

	for (i = 0; i < SIZE; i += STEP)
		*(unsigned long *)(page + i) = seed + i;
}

static bool marked(const char *page, unsigned int seed)
{
	unsigned long i;

	for (i = 0; i < SIZE; i += STEP)
		if (*(unsigned long *)(page + i) != seed + i)
			return false;
	return true;
}

static bool told_of_fault(int fd, const char *page, __u64 flags)
{
	struct uffd_msg msg;

	return uk_next(fd, &msg) == 1 &&
	       uk_is_fault(&msg, page) &&
	       (msg.arg.pagefault.flags & flags) == flags;
}

/* What is sparse costs nothing to make, and a second to copy. */
static char *source(unsigned int seed)
{
	char *src = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			 MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (src != MAP_FAILED)
		mark(src, seed);
	return src;
}

TEST_F_TIMEOUT(gigantic, copy, LIMIT)
{
	char *src = source(1);

	ASSERT_NE(MAP_FAILED, src);
	ASSERT_EQ(0, uk_register(self->fd, self->page, SIZE));
	ASSERT_EQ(0, uk_start(&self->t, uk_peek, self->page + SIZE / 2));
	ASSERT_TRUE(told_of_fault(self->fd, self->page, 0));
	/* Part of a page cannot be filled. */
	UK_EXPECT_FILL(-EINVAL, -EINVAL,
		       uk_copy(self->fd, self->page, src, 2 << 20, 0));
	EXPECT_TRUE(uk_stays(&self->t));
	UK_EXPECT_FILL(0, SIZE, uk_copy(self->fd, self->page, src, SIZE, 0));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	EXPECT_TRUE(marked(self->page, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_copy(self->fd, self->page, src, SIZE, 0));
	munmap(src, SIZE);
}

/* madvise() of a page that is there, with the handler told of it. */
TEST_F_TIMEOUT(gigantic, remove, LIMIT)
{
	struct uffd_msg msg;

	mark(self->page, 2);
	ASSERT_EQ(0, uk_register(self->fd, self->page, SIZE));
	self->call = (struct uk_call){
		.nr = __NR_madvise,
		.arg = { (unsigned long)self->page, SIZE, MADV_DONTNEED },
	};
	ASSERT_EQ(0, uk_start(&self->t, uk_call, &self->call));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_REMOVE, self->page,
			       self->page + SIZE));
	ASSERT_TRUE(uk_join(&self->t, LONG));
	EXPECT_EQ(0, self->t.ret);
}

TEST_F_TIMEOUT(gigantic, remove_by_punching_a_hole, LIMIT)
{
	struct uffd_msg msg;

	if (variant->flags != MAP_SHARED)
		SKIP(return, "not for private mappings");
	mark(self->page, 3);
	ASSERT_EQ(0, uk_register(self->fd, self->page, SIZE));
	self->call = (struct uk_call){
		.nr = __NR_madvise,
		.arg = { (unsigned long)self->page, SIZE, MADV_REMOVE },
	};
	ASSERT_EQ(0, uk_start(&self->t, uk_call, &self->call));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_EQ(UFFD_EVENT_REMOVE, msg.event);
	ASSERT_TRUE(uk_join(&self->t, LONG));
	EXPECT_EQ(0, self->t.ret);
}

TEST_F_TIMEOUT(gigantic, unmap, LIMIT)
{
	struct uffd_msg msg;

	mark(self->page, 4);
	ASSERT_EQ(0, uk_register(self->fd, self->page, SIZE));
	self->call = (struct uk_call){
		.nr = __NR_munmap,
		.arg = { (unsigned long)self->page, SIZE },
	};
	ASSERT_EQ(0, uk_start(&self->t, uk_call, &self->call));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_span(&msg, UFFD_EVENT_UNMAP, self->page,
			       self->page + SIZE));
	ASSERT_TRUE(uk_join(&self->t, LONG));
	EXPECT_EQ(0, self->t.ret);
}

TEST_F_TIMEOUT(gigantic, protect, LIMIT)
{
	mark(self->page, 5);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->page, SIZE,
				      UFFDIO_REGISTER_MODE_WP, NULL));
	ASSERT_EQ(0, uk_protect(self->fd, self->page, SIZE,
				UFFDIO_WRITEPROTECT_MODE_WP));
	EXPECT_TRUE(marked(self->page, 5));
	ASSERT_EQ(0, uk_start(&self->t, uk_poke, self->page + SIZE / 2));
	ASSERT_TRUE(told_of_fault(self->fd, self->page,
				  UFFD_PAGEFAULT_FLAG_WP));
	EXPECT_TRUE(uk_stays(&self->t));
	ASSERT_EQ(0, uk_protect(self->fd, self->page, SIZE, 0));
	ASSERT_TRUE(uk_join(&self->t, LONG));
}

/* Who waits for it goes on when writes are noted; the next one is told again. */
TEST_F_TIMEOUT(gigantic, protect_and_switch, LIMIT)
{
	close(self->fd);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, UFFD_FEATURE_WP_SET_MODE);
	if (self->fd == -EINVAL)
		SKIP(return, "no WP_SET_MODE on this kernel");
	mark(self->page, 9);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->page, SIZE,
				      UFFDIO_REGISTER_MODE_WP, NULL));
	ASSERT_EQ(0, uk_protect(self->fd, self->page, SIZE,
				UFFDIO_WRITEPROTECT_MODE_WP));
	ASSERT_EQ(0, uk_start(&self->t, uk_poke, self->page + SIZE / 2));
	ASSERT_TRUE(told_of_fault(self->fd, self->page,
				  UFFD_PAGEFAULT_FLAG_WP));
	ASSERT_EQ(0, uk_set_mode(self->fd, UFFD_FEATURE_WP_ASYNC, 0));
	ASSERT_TRUE(uk_join(&self->t, LONG));
	EXPECT_EQ(0xa5, uk_peek(self->page + SIZE / 2));
	EXPECT_EQ(0, uk_pages(self->page, SIZE, UK_PM_WP));

	ASSERT_EQ(0, uk_protect(self->fd, self->page, SIZE,
				UFFDIO_WRITEPROTECT_MODE_WP));
	ASSERT_EQ(0, uk_set_mode(self->fd, 0, UFFD_FEATURE_WP_ASYNC));
	ASSERT_EQ(0, uk_start(&self->t, uk_poke, self->page));
	ASSERT_TRUE(told_of_fault(self->fd, self->page,
				  UFFD_PAGEFAULT_FLAG_WP));
	EXPECT_TRUE(uk_stays(&self->t));
	ASSERT_EQ(0, uk_protect(self->fd, self->page, SIZE, 0));
	ASSERT_TRUE(uk_join(&self->t, LONG));
}

TEST_F_TIMEOUT(gigantic, minor, LIMIT)
{
	if (variant->flags != MAP_SHARED)
		SKIP(return, "not for private mappings");
	mark(self->alias, 6);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->page, SIZE,
				      UFFDIO_REGISTER_MODE_MINOR, NULL));
	ASSERT_EQ(0, uk_start(&self->t, uk_peek, self->page + SIZE / 2));
	ASSERT_TRUE(told_of_fault(self->fd, self->page,
				  UFFD_PAGEFAULT_FLAG_MINOR));
	UK_EXPECT_FILL(-EINVAL, -EINVAL,
		       uk_continue(self->fd, self->page, 2 << 20, 0));
	UK_EXPECT_FILL(0, SIZE, uk_continue(self->fd, self->page, SIZE, 0));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	EXPECT_TRUE(marked(self->page, 6));
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_continue(self->fd, self->page, SIZE, 0));
}

TEST_F_TIMEOUT(gigantic, poison, LIMIT)
{
	void *where;
	int code;

	ASSERT_EQ(0, uk_register(self->fd, self->page, SIZE));
	UK_EXPECT_FILL(0, SIZE, uk_poison(self->fd, self->page, SIZE, 0));
	EXPECT_EQ(SIGBUS, uk_catch(uk_peek, self->page + SIZE / 2, &where,
				   &code));
	UK_EXPECT_FILL(-EEXIST, -EEXIST,
		       uk_poison(self->fd, self->page, SIZE, 0));
}

/* The pages stay, and so does what they hold. */
/* Pages that have been used for something else: the child's page tables are next. */
static bool dirty_free_pages(void)
{
	char buf[1 << 16] = { };
	int fd = memfd_create("uffd-gigantic", MFD_CLOEXEC), i;
	bool ok = fd >= 0;

	for (i = 0; ok && i < 128; i++)
		ok = write(fd, buf, sizeof(buf)) == sizeof(buf);
	close(fd);
	return ok;
}

static int finds_mark(void *page)
{
	return *(unsigned long *)page != 1;
}

/*
 * What is left of their past in page tables of this level was taken for a count of
 * those who share them: the child of every tenth fork() or so had no page.
 */
TEST_F_TIMEOUT(gigantic, child_has_the_page, LIMIT)
{
	unsigned int i;

	if (variant->flags == MAP_SHARED)
		SKIP(return, "nothing is copied for a child");
	*(unsigned long *)self->page = 1;
	for (i = 0; i < 100; i++) {
		ASSERT_TRUE(dirty_free_pages());
		ASSERT_EQ(0, uk_reap(uk_spawn(finds_mark, self->page), LONG)) {
			TH_LOG("fork %u", i);
		}
	}
}

TEST_F_TIMEOUT(gigantic, unregister_and_close, LIMIT)
{
	mark(self->page, 7);
	ASSERT_EQ(0, uk_register_mode(self->fd, self->page, SIZE,
				      UFFDIO_REGISTER_MODE_MISSING |
				      UFFDIO_REGISTER_MODE_WP, NULL));
	ASSERT_EQ(0, uk_protect(self->fd, self->page, SIZE,
				UFFDIO_WRITEPROTECT_MODE_WP));
	ASSERT_EQ(0, uk_unregister(self->fd, self->page, SIZE));
	EXPECT_TRUE(marked(self->page, 7));
	mark(self->page, 8);
	ASSERT_EQ(0, uk_register(self->fd, self->page, SIZE));
	close(self->fd);
	self->fd = -1;
	EXPECT_TRUE(marked(self->page, 8));
}

TEST_HARNESS_MAIN
