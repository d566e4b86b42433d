// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: memory in and out.
 *
 * What UFFDIO_REGISTER and UFFDIO_UNREGISTER accept, what they do to the
 * mappings, and what becomes of threads and memory when a registration, a
 * descriptor or a process ends.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define UNITS		6
#define LIMIT		60
#define MISSING		UFFDIO_REGISTER_MODE_MISSING

/* FIXTURE_DATA(reg), by a name that reads well in a prototype. */
#define reg_test _test_data_reg

FIXTURE(reg)
{
	struct uk_mem m;
	size_t unit;
	char *src;
	int fd;
};

FIXTURE_VARIANT(reg)
{
	enum uk_kind kind;
};

FIXTURE_VARIANT_ADD(reg, anon)
{
	.kind = UK_ANON,
};

FIXTURE_VARIANT_ADD(reg, anon_small)
{
	.kind = UK_ANON_SMALL,
};

FIXTURE_VARIANT_ADD(reg, shmem)
{
	.kind = UK_SHMEM,
};

FIXTURE_VARIANT_ADD(reg, shmem_private)
{
	.kind = UK_SHMEM_PRIVATE,
};

FIXTURE_VARIANT_ADD(reg, hugetlb)
{
	.kind = UK_HUGETLB,
};

FIXTURE_VARIANT_ADD(reg, hugetlb_private)
{
	.kind = UK_HUGETLB_PRIVATE,
};

FIXTURE_SETUP(reg)
{
	const char *why;

	why = uk_map(&self->m, variant->kind, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->unit = self->m.unit;
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	self->src = uk_buffer(self->unit);
	ASSERT_NE(NULL, self->src);
	uk_paint(self->src, self->unit, 1);
}

FIXTURE_TEARDOWN(reg)
{
	close(self->fd);
}

static char *at(struct reg_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static int armed(struct reg_test *self)
{
	return uk_census(self->m.area, self->m.len).armed;
}

/* Arguments. */

TEST_F_TIMEOUT(reg, arguments, LIMIT)
{
	void *high = UK_KERNEL_SPACE;
	char *p = self->m.area;
	size_t u = self->unit, len = self->m.len;
	__u64 ioctls = 0x5a5a;
	int bit;

	EXPECT_EQ(-EINVAL, uk_register(self->fd, p + 1, u));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, u - 1));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, u + 1));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, 0));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, -u));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, -(unsigned long)p));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, high, u));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, (void *)-u, u));
	EXPECT_EQ(-EINVAL, uk_register_mode(self->fd, p, len, 0, NULL));
	for (bit = 3; bit < 64; bit++) {
		EXPECT_EQ(-EINVAL, uk_register_mode(self->fd, p, len,
						    MISSING | UK_BIT(bit),
						    NULL));
	}
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_REGISTER, NULL));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, armed(self));

	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, p + 1, u));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, p, u - 1));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, p, 0));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, p, -u));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, high, u));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_UNREGISTER, NULL));
	EXPECT_EQ(EFAULT, errno);

	/* The answer is written on success and only then. */
	EXPECT_EQ(-EINVAL, uk_register_mode(self->fd, p, 0, MISSING, &ioctls));
	EXPECT_EQ(0, ioctls);
	EXPECT_EQ(0, uk_register_mode(self->fd, p, len, MISSING, &ioctls));
	EXPECT_NE(0, ioctls);
	EXPECT_EQ(1, armed(self));
}

TEST_F_TIMEOUT(reg, answer_cannot_be_written, LIMIT)
{
	size_t page = getpagesize();
	struct uffdio_register *r;
	char *p = uk_buffer(2 * page);

	ASSERT_NE(NULL, p);
	r = (void *)(p + page - offsetof(struct uffdio_register, ioctls));
	r->range.start = (unsigned long)self->m.area;
	r->range.len = self->m.len;
	r->mode = MISSING;
	ASSERT_EQ(0, mprotect(p + page, page, PROT_NONE));
	EXPECT_EQ(-1, ioctl(self->fd, UFFDIO_REGISTER, r));
	EXPECT_EQ(EFAULT, errno);
	/* It is registered all the same. */
	EXPECT_EQ(1, armed(self));
}

TEST_F_TIMEOUT(reg, ioctls_of_the_range, LIMIT)
{
	const __u64 all = UK_BIT(_UFFDIO_WAKE) | UK_BIT(_UFFDIO_COPY);
	const __u64 zero = UK_BIT(_UFFDIO_ZEROPAGE);
	const __u64 never = UK_BIT(_UFFDIO_WRITEPROTECT) |
			    UK_BIT(_UFFDIO_CONTINUE);
	__u64 ioctls;

	ASSERT_EQ(0, uk_register_mode(self->fd, self->m.area, self->m.len,
				      MISSING, &ioctls));
	EXPECT_EQ(all, ioctls & all);
	EXPECT_EQ(uk_is_hugetlb(&self->m) ? 0 : zero, ioctls & zero);
	EXPECT_EQ(0, ioctls & never);
}

TEST_F_TIMEOUT(reg, hugetlb_alignment, LIMIT)
{
	size_t small = getpagesize();
	char *p = at(self, 1);

	if (!uk_is_hugetlb(&self->m))
		SKIP(return, "hugetlb only");
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p + small, self->unit));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p + small,
				       self->unit - small));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, small));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, self->unit + small));
	EXPECT_EQ(0, armed(self));
	EXPECT_EQ(0, uk_register(self->fd, p, self->unit));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, p + small, self->unit));
	EXPECT_EQ(1, armed(self));
	/* Nor is what comes before the wrong end forgotten. */
	ASSERT_EQ(0, mprotect(at(self, 0), self->unit, PROT_READ));
	ASSERT_EQ(0, uk_register(self->fd, at(self, 0), self->unit));
	EXPECT_EQ(2, armed(self));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, at(self, 0),
					 self->unit + small));
	EXPECT_EQ(2, armed(self));
	/* An end in what is not registered does no harm. */
	EXPECT_EQ(0, uk_unregister(self->fd, at(self, 0),
				   2 * self->unit + small));
	EXPECT_EQ(0, armed(self));
}

/* What can be registered. */

TEST_F_TIMEOUT(reg, nothing_there, LIMIT)
{
	ASSERT_EQ(0, munmap(self->m.area, self->m.len));
	EXPECT_EQ(-EINVAL, uk_register(self->fd, self->m.area, self->m.len));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, self->m.area, self->m.len));
}

TEST_F_TIMEOUT(reg, range_with_a_hole, LIMIT)
{
	ASSERT_EQ(0, munmap(at(self, 2), self->unit));
	EXPECT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	EXPECT_EQ(2, armed(self));
	/* The hole first. */
	EXPECT_EQ(0, uk_unregister(self->fd, at(self, 2), 2 * self->unit));
	EXPECT_EQ(2, armed(self));
	EXPECT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_EQ(0, armed(self));
	EXPECT_EQ(0, uk_register(self->fd, at(self, 2), 2 * self->unit));
	EXPECT_EQ(1, armed(self));
}

TEST_F_TIMEOUT(reg, protection_does_not_matter, LIMIT)
{
	int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		ASSERT_EQ(0, mprotect(self->m.area, self->m.len, prots[i]));
		EXPECT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
		EXPECT_EQ(1, armed(self));
		EXPECT_EQ(0, uk_unregister(self->fd, self->m.area,
					   self->m.len));
	}
}

TEST_F_TIMEOUT(reg, file_that_may_not_be_written, LIMIT)
{
	char path[64], *p;
	int ro;

	if (uk_is_anon(&self->m))
		SKIP(return, "no file behind this memory");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->m.fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, ro);

	p = mmap(self->m.area, self->m.len, PROT_READ, MAP_SHARED | MAP_FIXED,
		 ro, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(-EPERM, uk_register(self->fd, p, self->m.len));
	EXPECT_EQ(0, armed(self));

	/* The private pages of a private mapping are one's own. */
	p = mmap(self->m.area, self->m.len, PROT_READ, MAP_PRIVATE | MAP_FIXED,
		 ro, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(0, uk_register(self->fd, p, self->m.len));
	EXPECT_EQ(1, armed(self));
	close(ro);
}

TEST_F_TIMEOUT(reg, memory_of_another_sort, LIMIT)
{
	size_t page = getpagesize();
	char *p, *after = self->m.area + self->m.len;
	int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	ASSERT_LE(0, exe);
	p = mmap(after, page, PROT_READ, MAP_PRIVATE | MAP_FIXED, exe, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(-EINVAL, uk_register(self->fd, p, page));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, p, page));

	/* All or nothing. */
	EXPECT_EQ(-EINVAL, uk_register(self->fd, self->m.area,
				       self->m.len + page));
	EXPECT_EQ(0, armed(self));
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, self->m.area,
					 self->m.len + page));
	EXPECT_EQ(1, armed(self));
	close(exe);
}

TEST_F_TIMEOUT(reg, one_owner, LIMIT)
{
	int other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);

	ASSERT_LE(0, other);
	ASSERT_EQ(0, uk_register(self->fd, at(self, 2), self->unit));
	EXPECT_EQ(-EBUSY, uk_register(other, at(self, 2), self->unit));
	/* All or nothing, again. */
	EXPECT_EQ(-EBUSY, uk_register(other, self->m.area, self->m.len));
	EXPECT_EQ(1, armed(self));
	EXPECT_EQ(0, uk_register(other, self->m.area, 2 * self->unit));
	EXPECT_EQ(2, armed(self));
	EXPECT_EQ(-EBUSY, uk_register(self->fd, at(self, 1), self->unit));

	ASSERT_EQ(0, uk_unregister(self->fd, at(self, 2), self->unit));
	EXPECT_EQ(0, uk_register(other, at(self, 2), self->unit));
	/* A descriptor that is closed owns nothing. */
	close(other);
	EXPECT_EQ(0, armed(self));
	EXPECT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
}

/* Mappings are cut and joined. */

static struct uk_census census(struct reg_test *self)
{
	return uk_census(self->m.area, self->m.len);
}

#define EXPECT_CENSUS(_vmas, _armed)					\
do {									\
	struct uk_census c_ = census(self);				\
	EXPECT_EQ(_vmas, c_.vmas);					\
	EXPECT_EQ(_armed, c_.armed);					\
} while (0)

TEST_F_TIMEOUT(reg, split_and_merge, LIMIT)
{
	/* Huge page mappings are cut but never joined. */
	bool joins = !uk_is_hugetlb(&self->m);
	char *p = self->m.area;
	size_t u = self->unit, len = self->m.len;

	EXPECT_CENSUS(1, 0);
	ASSERT_EQ(0, uk_register(self->fd, p + 2 * u, u));
	EXPECT_CENSUS(3, 1);
	ASSERT_EQ(0, uk_register(self->fd, p, u));
	EXPECT_CENSUS(4, 2);
	/* Everything, part of which is done already. */
	ASSERT_EQ(0, uk_register(self->fd, p, len));
	EXPECT_CENSUS(joins ? 1 : 4, joins ? 1 : 4);
	ASSERT_EQ(0, uk_register(self->fd, p, len));
	EXPECT_CENSUS(joins ? 1 : 4, joins ? 1 : 4);

	ASSERT_EQ(0, uk_unregister(self->fd, p + u, u));
	EXPECT_CENSUS(joins ? 3 : 4, joins ? 2 : 3);
	ASSERT_EQ(0, uk_unregister(self->fd, p + len - u, u));
	EXPECT_CENSUS(joins ? 4 : 5, joins ? 2 : 3);
	ASSERT_EQ(0, uk_unregister(self->fd, p, len));
	EXPECT_CENSUS(joins ? 1 : 5, 0);
	ASSERT_EQ(0, uk_unregister(self->fd, p, len));
	EXPECT_CENSUS(joins ? 1 : 5, 0);

	ASSERT_EQ(0, uk_register(self->fd, p + u, 2 * u));
	close(self->fd);
	self->fd = -1;
	EXPECT_CENSUS(joins ? 1 : 5, 0);
}

/* Two owners side by side are two mappings. */
TEST_F_TIMEOUT(reg, owners_are_kept_apart, LIMIT)
{
	int other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	size_t half = UNITS / 2 * self->unit;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, half));
	ASSERT_EQ(0, uk_register(other, self->m.area + half,
				 self->m.len - half));
	EXPECT_CENSUS(2, 2);
	close(other);
	EXPECT_CENSUS(2, 1);
}

TEST_F_TIMEOUT(reg, mprotect_keeps_the_registration, LIMIT)
{
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	ASSERT_EQ(0, mprotect(at(self, 1), self->unit, PROT_READ));
	EXPECT_CENSUS(3, 3);
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 1)));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 1)));
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, at(self, 1), self->src,
					      self->unit, 0));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(uk_painted(at(self, 1), self->unit, 1));
}

/* Pages that were there when the memory was registered stay. */
TEST_F_TIMEOUT(reg, populated_memory, LIMIT)
{
	struct uffd_msg msg;

	memcpy(at(self, 1), self->src, self->unit);
	if (self->m.kind == UK_ANON) {
		/* That may have brought in a whole huge page. */
		ASSERT_EQ(0, madvise(at(self, 2), self->unit, MADV_DONTNEED));
	}
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(uk_painted(at(self, 1), self->unit, 1));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	UK_EXPECT_FILL(-EEXIST, -EEXIST, uk_copy(self->fd, at(self, 1),
						 self->src, self->unit, 0));
	UK_EXPECT_FILL(0, self->unit, uk_copy(self->fd, at(self, 2), self->src,
					      self->unit, 0));
	EXPECT_TRUE(uk_painted(at(self, 2), self->unit, 1));
}

/* The end of a registration. */

TEST_F_TIMEOUT(reg, unregister_lets_threads_run, LIMIT)
{
	struct uk_thread t[3];
	struct uffd_msg msg;
	int i;

	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, uk_start(&t[i], i == 1 ? uk_poke : uk_peek,
				      at(self, i)));
		ASSERT_TRUE(uk_parked(self->fd, i + 1, i + 1));
	}
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));

	/* Its part of them: one that was read and one that was not. */
	EXPECT_EQ(0, uk_unregister(self->fd, self->m.area, 2 * self->unit));
	ASSERT_TRUE(uk_join(&t[0], UK_SOON));
	ASSERT_TRUE(uk_join(&t[1], UK_SOON));
	EXPECT_EQ(0, t[0].ret);
	EXPECT_EQ(0xa5, uk_peek(at(self, 1)));
	EXPECT_TRUE(uk_stays(&t[2]));

	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(uk_is_fault(&msg, at(self, 2)));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(0, uk_unregister(self->fd, self->m.area, self->m.len));
	EXPECT_TRUE(uk_join(&t[2], UK_SOON));
	EXPECT_TRUE(uk_parked(self->fd, 0, 0));
}

/* Any descriptor of the process may end the registration of any other, or none. */
TEST_F_TIMEOUT(reg, unregister_by_another_descriptor, LIMIT)
{
	int other = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	struct uk_thread t;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	ASSERT_EQ(0, uk_start(&t, uk_peek, at(self, 0)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	if (UK_OWNER_UNREGISTERS) {
		EXPECT_EQ(-EINVAL, uk_unregister(other, self->m.area,
						 self->m.len));
		EXPECT_TRUE(uk_stays(&t));
		EXPECT_EQ(1, armed(self));
		other = self->fd;
	}
	EXPECT_EQ(0, uk_unregister(other, self->m.area, self->m.len));
	EXPECT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(0, armed(self));
	if (other != self->fd)
		close(other);
}

TEST_F_TIMEOUT(reg, close_lets_threads_run, LIMIT)
{
	struct uk_thread t[4];
	struct uffd_msg msg;
	int i;

	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, uk_start(&t[i], i & 1 ? uk_poke : uk_peek,
				      at(self, i)));
	}
	ASSERT_TRUE(uk_parked(self->fd, 4, 4));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	ASSERT_EQ(1, uk_read(self->fd, &msg, 1));
	close(self->fd);
	self->fd = -1;
	for (i = 0; i < 4; i++) {
		ASSERT_TRUE(uk_join(&t[i], UK_SOON));
		EXPECT_EQ(0, t[i].ret);
	}
	EXPECT_EQ(0, armed(self));
	EXPECT_EQ(0xa5, uk_peek(at(self, 3)));
	EXPECT_EQ(0, uk_peek(at(self, 5)));
}

struct churn {
	struct reg_test *self;
	int stop;
};

static long touch_all(void *arg)
{
	struct churn *c = arg;
	unsigned int i = 0;

	while (!uk_get(&c->stop)) {
		uk_poke(at(c->self, i % UNITS));
		uk_drop(&c->self->m, at(c->self, i % UNITS), c->self->unit);
		i++;
	}
	return i;
}

/* Close and register again under the feet of faulting threads. */
TEST_F_TIMEOUT(reg, close_in_a_storm, LIMIT)
{
	struct churn c = { .self = self };
	int rounds = uk_is_hugetlb(&self->m) ? 20 : 100;
	struct uk_thread t[3];
	int i;

	/*
	 * Kernels up to 6.12 without preemption may never come back from this:
	 * faults are retried without end, and when they have all the CPUs the
	 * one who closes never runs.
	 */
	if (sysconf(_SC_NPROCESSORS_ONLN) <= (long)ARRAY_SIZE(t) &&
	    !getenv("UFFD_STORM"))
		SKIP(return, "may hang a machine of so few CPUs (UFFD_STORM=1)");

	ASSERT_EQ(0, uk_start(&t[0], touch_all, &c));
	ASSERT_EQ(0, uk_start(&t[1], touch_all, &c));
	ASSERT_EQ(0, uk_start(&t[2], touch_all, &c));
	for (i = 0; i < rounds; i++) {
		struct uffd_msg msg[2];

		ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
		if (i & 1)
			uk_poll(self->fd, 2);
		if (i & 2)
			uk_read(self->fd, msg, 2);
		if (i & 4) {
			EXPECT_EQ(0, uk_unregister(self->fd, self->m.area,
						   self->m.len));
		} else {
			close(self->fd);
			self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
			ASSERT_LE(0, self->fd);
		}
		sched_yield();
	}
	EXPECT_EQ(0, armed(self));
	uk_set(&c.stop, 1);
	EXPECT_TRUE(uk_join_all(t, 3));
}

/* The end of a process. */

enum ending { BY_EXIT, BY_EXEC, BY_KILL, ENDINGS };

struct owner {
	struct reg_test *self;
	enum ending how;
	int sock;
};

static int own_and_end(void *arg)
{
	struct owner *o = arg;
	struct uk_mem *m = &o->self->m;
	struct uk_thread t[2];
	char byte;
	int fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);

	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_register(fd, m->area, m->len));
	UK_CHECK(!uk_send_fd(o->sock, fd));
	close(fd);
	UK_CHECK(!uk_start(&t[0], uk_peek, uk_at(m, 1)));
	UK_CHECK(!uk_start(&t[1], uk_poke, uk_at(m, 2)));
	UK_CHECK(read(o->sock, &byte, 1) == 1);
	if (o->how == BY_EXEC)
		execl("/bin/sleep", "sleep", "100", NULL);
	if (o->how != BY_KILL)
		return 0;
	for (;;)
		pause();
}

TEST_F_TIMEOUT(reg, owner_is_gone, LIMIT)
{
	struct owner o = { .self = self };
	char *p = self->m.area;
	int sv[2], fd;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	o.sock = sv[1];
	for (o.how = 0; o.how < ENDINGS; o.how++) {
		struct uffd_msg msg;
		struct uk_fill fill;
		pid_t pid;
		int i;

		if (o.how == BY_EXEC && access("/bin/sleep", X_OK))
			continue;
		ASSERT_EQ(0, uk_drop(&self->m, p, self->m.len));
		pid = uk_spawn(own_and_end, &o);
		ASSERT_LT(0, pid);
		fd = uk_recv_fd(sv[0]);
		ASSERT_LE(0, fd);
		ASSERT_TRUE(uk_parked(fd, 2, 2));
		ASSERT_EQ(1, uk_read(fd, &msg, 1));
		/* Alive, it can be filled from here. */
		UK_EXPECT_FILL(0, self->unit,
			       uk_copy(fd, p, self->src, self->unit, 0));

		ASSERT_EQ(1, write(sv[0], "x", 1));
		if (o.how == BY_EXEC) {
			/* The process lives on, its memory does not. */
			for (i = 0; i < UK_SOON; i++) {
				fill = uk_copy(fd, p, self->src, self->unit, 0);
				if (fill.err == -ESRCH)
					break;
				uk_sleep(1);
			}
			EXPECT_EQ(0, kill(pid, 0));
			kill(pid, SIGKILL);
		}
		if (o.how == BY_KILL)
			kill(pid, SIGKILL);
		EXPECT_EQ(o.how == BY_EXIT ? 0 : 128 + SIGKILL,
			  uk_reap(pid, UK_SOON));

		UK_EXPECT_FILL(-ESRCH, UK_UNSET,
			       uk_copy(fd, p, self->src, self->unit, 0));
		UK_EXPECT_FILL(-ESRCH, UK_UNSET,
			       uk_zero(fd, p, self->unit, 0));
		/* What is wrong anyway is wrong first. */
		UK_EXPECT_FILL(-EINVAL, UK_UNSET,
			       uk_copy(fd, p + 1, self->src, self->unit, 0));
		EXPECT_EQ(-ENOMEM, uk_register(fd, p, self->m.len));
		EXPECT_EQ(-ENOMEM, uk_unregister(fd, p, self->m.len));
		EXPECT_EQ(-EINVAL, uk_register(fd, p, 0));
		EXPECT_EQ(0, uk_wake(fd, p, self->m.len));
		EXPECT_EQ(-EAGAIN, uk_read(fd, &msg, 1));
		EXPECT_EQ(0, uk_poll(fd, 0));
		EXPECT_TRUE(uk_parked(fd, 0, 0));
		close(fd);
	}
}

/* exit() with every event asked for and nobody to hear of them. */
static int exit_unheard(void *arg)
{
	struct reg_test *self = arg;
	int fd = uk_new(O_CLOEXEC, UFFD_FEATURE_EVENT_REMAP |
			UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP);
	struct uk_thread t;

	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_register(fd, self->m.area, self->m.len));
	UK_CHECK(!uk_start(&t, uk_peek, at(self, 0)));
	UK_CHECK(uk_parked(fd, 1, 1));
	return 0;
}

TEST_F_TIMEOUT(reg, exit_is_no_event, LIMIT)
{
	EXPECT_EQ(0, uk_in_child(exit_unheard, self));
}

/* Not tied to a memory type. */

FIXTURE(misc)
{
	int fd;
};

FIXTURE_SETUP(misc)
{
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(misc)
{
	close(self->fd);
}

/* Several memory types in one range. */
TEST_F_TIMEOUT(misc, mixed_range, LIMIT)
{
	const __u64 zero = UK_BIT(_UFFDIO_ZEROPAGE);
	struct uk_mem huge, shm;
	size_t page = getpagesize();
	char *end, *p;
	const char *why;
	__u64 ioctls;

	why = uk_map(&huge, UK_HUGETLB, 2);
	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(NULL, uk_map(&shm, UK_SHMEM, 4));
	end = huge.area + huge.len;
	p = mmap(end, page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_EQ(end, p);
	p = mmap(end + page, page, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, shm.fd, 0);
	ASSERT_EQ(end + page, p);

	ASSERT_EQ(0, uk_register_mode(self->fd, end, 2 * page, MISSING,
				      &ioctls));
	EXPECT_EQ(zero, ioctls & zero);
	ASSERT_EQ(0, uk_unregister(self->fd, end, 2 * page));
	/* What is promised holds for all of it. */
	ASSERT_EQ(0, uk_register_mode(self->fd, huge.area, huge.len + 2 * page,
				      MISSING, &ioctls));
	EXPECT_EQ(0, ioctls & zero);
	EXPECT_NE(0, ioctls & UK_BIT(_UFFDIO_COPY));
	EXPECT_EQ(3, uk_census(huge.area, huge.len + 2 * page).armed);
	/* Small memory first: the huge part need not begin the range. */
	EXPECT_EQ(0, uk_unregister(self->fd, huge.area, huge.len + 2 * page));
	EXPECT_EQ(0, uk_census(huge.area, huge.len + 2 * page).armed);
}

TEST_F_TIMEOUT(misc, sealed_memfd, LIMIT)
{
	size_t page = getpagesize();
	char *p;
	int fd;

	fd = syscall(__NR_memfd_create, "sealed", MFD_ALLOW_SEALING |
		     MFD_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, page));
	ASSERT_EQ(0, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	p = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		SKIP(return, "cannot map a sealed memfd");
	EXPECT_EQ(-EPERM, uk_register(self->fd, p, page));
	p = mmap(NULL, page, PROT_READ, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(0, uk_register(self->fd, p, page));
}

/* A seal is refused while the memory could be filled. */
TEST_F_TIMEOUT(misc, seal_on_registered_memory, LIMIT)
{
	size_t page = getpagesize();
	char *p;
	int fd;

	fd = syscall(__NR_memfd_create, "sealed", MFD_ALLOW_SEALING |
		     MFD_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, page));
	p = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, uk_register(self->fd, p, page));
	EXPECT_EQ(-1, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ(EBUSY, errno);
}

/* SysV and MAP_SHARED | MAP_ANONYMOUS memory are shmem too. */
TEST_F_TIMEOUT(misc, shared_anonymous_memory, LIMIT)
{
	size_t page = getpagesize();
	struct uk_thread t;
	struct uffd_msg msg;
	char *p, *src = uk_buffer(page);

	ASSERT_NE(NULL, src);
	uk_paint(src, page, 4);
	p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		 -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, uk_register(self->fd, p, page));
	ASSERT_EQ(0, uk_start(&t, uk_peek, p));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, p));
	UK_EXPECT_FILL(0, page, uk_copy(self->fd, p, src, page, 0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(uk_painted(p, page, 4));
}

TEST_F_TIMEOUT(misc, kernel_mappings, LIMIT)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], *end;
	int n = 0;

	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (!strstr(line, "[vdso]") && !strstr(line, "[vvar]"))
			continue;
		from = strtoul(line, &end, 16);
		to = strtoul(end + 1, NULL, 16);
		EXPECT_EQ(-EINVAL, uk_register(self->fd, (void *)from,
					       to - from));
		n++;
	}
	fclose(f);
	if (!n)
		SKIP(return, "no mappings of the kernel's here");
}

/* The heap and the stack are anonymous memory like any other. */
TEST_F_TIMEOUT(misc, heap, LIMIT)
{
	size_t page = getpagesize();
	char *brk = sbrk(0), *src = uk_buffer(page);
	struct uk_thread t;
	struct uffd_msg msg;

	ASSERT_NE(NULL, src);
	brk = (char *)(((unsigned long)brk + page - 1) & ~(page - 1));
	if (syscall(__NR_brk, brk + 8 * page) != (long)(brk + 8 * page))
		SKIP(return, "the heap does not grow");
	uk_paint(src, page, 9);
	ASSERT_EQ(0, uk_register(self->fd, brk + page, 4 * page));
	ASSERT_EQ(0, uk_start(&t, uk_peek, brk + 2 * page));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	EXPECT_TRUE(uk_is_fault(&msg, brk + 2 * page));
	UK_EXPECT_FILL(0, page, uk_copy(self->fd, brk + 2 * page, src, page,
					0));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_TRUE(uk_painted(brk + 2 * page, page, 9));
	EXPECT_EQ(0, uk_unregister(self->fd, brk + page, 4 * page));
}

TEST_HARNESS_MAIN
