// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: the file descriptor.
 *
 * Who may have one, the handshake, what read(), poll() and fdinfo say, and
 * what becomes of it in the hands of another process.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define LIMIT		60
#define PAGES		16
#define NOBODY		65534
#define SYSCTL		"/proc/sys/vm/unprivileged_userfaultfd"
#define DEVICE		"/dev/userfaultfd"

static int do_api(int fd, struct uffdio_api *api)
{
	return ioctl(fd, UFFDIO_API, api) ? -errno : 0;
}

static bool is_zeroed(const struct uffdio_api *api)
{
	return uk_all_zero(api, sizeof(*api));
}

/* Who may have one. */

FIXTURE(open)
{
	long sysctl;
};

FIXTURE_SETUP(open)
{
	self->sysctl = uk_read_number(SYSCTL);
	if (geteuid())
		SKIP(return, "needs root");
}

FIXTURE_TEARDOWN(open)
{
	if (self->sysctl >= 0)
		uk_write_file(SYSCTL, self->sysctl ? "1" : "0");
}

TEST_F_TIMEOUT(open, flags, LIMIT)
{
	const int known = O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY;
	int bit, fd;

	for (bit = 0; bit < 32; bit++) {
		int flag = 1U << bit;

		fd = uk_open(flag);
		if (!(flag & known)) {
			EXPECT_EQ(-EINVAL, fd) {
				TH_LOG("flag %#x", flag);
			}
			continue;
		}
		ASSERT_LE(0, fd) {
			TH_LOG("flag %#x", flag);
		}
		EXPECT_EQ(flag == O_CLOEXEC ? FD_CLOEXEC : 0,
			  fcntl(fd, F_GETFD));
		EXPECT_EQ(flag & O_NONBLOCK, fcntl(fd, F_GETFL) & O_NONBLOCK);
		EXPECT_EQ(O_RDONLY, fcntl(fd, F_GETFL) & O_ACCMODE);
		close(fd);
	}
	EXPECT_EQ(-EINVAL, uk_open(O_CLOEXEC | O_RDWR));
	fd = uk_open(known);
	EXPECT_LE(0, fd);
	close(fd);
}

TEST_F_TIMEOUT(open, no_descriptor_left, LIMIT)
{
	struct rlimit lim = { 0, 0 };

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &lim));
	EXPECT_EQ(-EMFILE, uk_open(O_CLOEXEC));
	EXPECT_EQ(-EINVAL, uk_open(0x40));
}

static int become_nobody(void)
{
	/* Changing from uid 0 takes every capability away. */
	return syscall(__NR_setresuid, NOBODY, NOBODY, NOBODY);
}

static int unprivileged_refused(void *arg)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd;

	UK_CHECK(!become_nobody());
	UK_CHECK(uk_open(0) == -EPERM);
	UK_CHECK(uk_open(O_CLOEXEC | O_NONBLOCK) == -EPERM);
	/* Permission is asked before the flags are looked at. */
	UK_CHECK(uk_open(0x40) == -EPERM);
	UK_CHECK(uk_open(0x40 | UFFD_USER_MODE_ONLY) == -EINVAL);
	fd = uk_open(UFFD_USER_MODE_ONLY);
	UK_CHECK(fd >= 0);
	UK_CHECK(!do_api(fd, &api));
	close(fd);
	return 0;
}

static int unprivileged_allowed(void *arg)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd;

	UK_CHECK(!become_nobody());
	UK_CHECK(uk_open(0x40) == -EINVAL);
	fd = uk_open(0);
	UK_CHECK(fd >= 0);

	/* A forked child's memory is another matter. */
	api.features = UFFD_FEATURE_EVENT_FORK;
	UK_CHECK(do_api(fd, &api) == -EPERM);
	UK_CHECK(is_zeroed(&api));
	api.api = UFFD_API;
	UK_CHECK(!do_api(fd, &api));
	UK_CHECK(api.features & UFFD_FEATURE_EVENT_FORK);
	return 0;
}

TEST_F_TIMEOUT(open, sysctl, LIMIT)
{
	int fd;

	ASSERT_LE(0, self->sysctl);
	EXPECT_FALSE(uk_write_file(SYSCTL, "2"));
	EXPECT_FALSE(uk_write_file(SYSCTL, "-1"));

	ASSERT_TRUE(uk_write_file(SYSCTL, "0"));
	EXPECT_EQ(0, uk_read_number(SYSCTL));
	fd = uk_open(0);
	EXPECT_LE(0, fd);
	close(fd);
	EXPECT_EQ(0, uk_in_child(unprivileged_refused, NULL));

	ASSERT_TRUE(uk_write_file(SYSCTL, "1"));
	EXPECT_EQ(1, uk_read_number(SYSCTL));
	EXPECT_EQ(0, uk_in_child(unprivileged_allowed, NULL));
}

static int device_unprivileged(void *arg)
{
	int dev = *(int *)arg, fd;

	UK_CHECK(!become_nobody());
	UK_CHECK(uk_open(0) == -EPERM);
	/* Whoever holds the device was let in when it was opened. */
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
	UK_CHECK(fd >= 0);
	UK_CHECK(!uk_api(fd, 0));
	return 0;
}

TEST_F_TIMEOUT(open, device, LIMIT)
{
	int dev = open(DEVICE, O_RDWR | O_CLOEXEC);
	int bit, fd;

	if (dev < 0)
		SKIP(return, "%s: %s", DEVICE, strerror(errno));
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	ASSERT_LE(0, fd);
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
	EXPECT_EQ(O_NONBLOCK, fcntl(fd, F_GETFL) & O_NONBLOCK);
	EXPECT_EQ(0, uk_api(fd, 0));
	close(fd);
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, UFFD_USER_MODE_ONLY);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, fcntl(fd, F_GETFD));
	close(fd);

	for (bit = 1; bit < 32; bit++) {
		if (UK_BIT(bit) & (O_CLOEXEC | O_NONBLOCK))
			continue;
		EXPECT_EQ(-1, ioctl(dev, USERFAULTFD_IOC_NEW, UK_BIT(bit)));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(-1, ioctl(dev, _IO(USERFAULTFD_IOC, 1), 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(dev, UFFDIO_API, 0));
	EXPECT_EQ(EINVAL, errno);

	EXPECT_TRUE(uk_write_file(SYSCTL, "0"));
	EXPECT_EQ(0, uk_in_child(device_unprivileged, &dev));
	close(dev);
}

/* The handshake. */

FIXTURE(api)
{
	int fd;
	struct uffdio_api api;
};

FIXTURE_SETUP(api)
{
	self->fd = uk_open(O_CLOEXEC | O_NONBLOCK);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	self->api = (struct uffdio_api){
		.api = UFFD_API,
		.ioctls = ~0ULL,
	};
}

FIXTURE_TEARDOWN(api)
{
	close(self->fd);
}

TEST_F_TIMEOUT(api, offer, LIMIT)
{
	const __u64 ioctls = UK_BIT(_UFFDIO_API) | UK_BIT(_UFFDIO_REGISTER) |
			     UK_BIT(_UFFDIO_UNREGISTER);

	ASSERT_EQ(0, do_api(self->fd, &self->api));
	EXPECT_EQ(UFFD_API, self->api.api);
	EXPECT_EQ(UK_FEATURES, self->api.features & UK_FEATURES);
	EXPECT_EQ(ioctls, self->api.ioctls & ioctls);
}

TEST_F_TIMEOUT(api, wrong_version, LIMIT)
{
	self->api.api = UFFD_API + 1;
	EXPECT_EQ(-EINVAL, do_api(self->fd, &self->api));
	EXPECT_TRUE(is_zeroed(&self->api));
	EXPECT_EQ(-EINVAL, do_api(self->fd, &self->api));

	/* A failed attempt leaves room for a good one. */
	self->api.api = UFFD_API;
	EXPECT_EQ(0, do_api(self->fd, &self->api));
}

/* Features, by bit; of each two the second is not to be had without the first. */
#define RWP		17
#define RWP_ASYNC	18
#define WP_ASYNC	15
#define WP_LOG		33

/* Each bit is either offered and can be had, or refused. */
TEST_F_TIMEOUT(api, each_feature, LIMIT)
{
	__u64 offered = uk_offered();
	int bit;

	if (geteuid())
		SKIP(return, "needs root, for fork events");
	ASSERT_NE(0, offered);
	for (bit = 0; bit < 64; bit++) {
		int fd = uk_open(O_CLOEXEC), err;
		struct uffdio_api api = {
			.api = UFFD_API,
			.features = UK_BIT(bit),
		};

		if (bit == RWP_ASYNC)
			api.features |= UK_BIT(RWP);
		if (bit == WP_LOG)
			api.features |= UK_BIT(WP_ASYNC);
		ASSERT_LE(0, fd);
		err = do_api(fd, &api);
		if (offered & UK_BIT(bit)) {
			EXPECT_EQ(0, err) {
				TH_LOG("feature bit %d", bit);
			}
			EXPECT_EQ(offered, api.features);
		} else {
			EXPECT_EQ(-EINVAL, err) {
				TH_LOG("feature bit %d", bit);
			}
			EXPECT_TRUE(is_zeroed(&api));
			EXPECT_EQ(0, uk_api(fd, 0));
		}
		close(fd);
	}
}

TEST_F_TIMEOUT(api, only_once, LIMIT)
{
	ASSERT_EQ(0, do_api(self->fd, &self->api));
	self->api.features = 0;
	EXPECT_EQ(-EINVAL, do_api(self->fd, &self->api));
	EXPECT_TRUE(is_zeroed(&self->api));
}

static long try_api(void *arg)
{
	return uk_api(*(int *)arg, 0);
}

TEST_F_TIMEOUT(api, only_once_in_a_race, LIMIT)
{
	int i;

	for (i = 0; i < 100; i++) {
		int fd = uk_open(O_CLOEXEC), here;
		struct uk_thread t;

		ASSERT_LE(0, fd);
		ASSERT_EQ(0, uk_start(&t, try_api, &fd));
		here = uk_api(fd, 0);
		ASSERT_TRUE(uk_join(&t, UK_SOON));
		EXPECT_EQ(-EINVAL, here + t.ret);
		close(fd);
	}
}

TEST_F_TIMEOUT(api, bad_pointer, LIMIT)
{
	struct uffdio_api *api = (void *)uk_buffer(getpagesize());

	EXPECT_EQ(-EFAULT, do_api(self->fd, NULL));
	ASSERT_NE(NULL, api);
	*api = self->api;
	/* It can be read and not answered. */
	ASSERT_EQ(0, mprotect(api, getpagesize(), PROT_READ));
	EXPECT_EQ(-EFAULT, do_api(self->fd, api));
	ASSERT_EQ(0, mprotect(api, getpagesize(), PROT_READ | PROT_WRITE));
	api->api = 0;
	ASSERT_EQ(0, mprotect(api, getpagesize(), PROT_READ));
	EXPECT_EQ(-EFAULT, do_api(self->fd, api));

	EXPECT_EQ(0, do_api(self->fd, &self->api));
	EXPECT_EQ(-EFAULT, do_api(self->fd, NULL));
}

TEST_F_TIMEOUT(api, nothing_works_before, LIMIT)
{
	char *page = uk_buffer(getpagesize());
	struct uffd_msg msg;
	struct uk_info info;

	ASSERT_NE(NULL, page);
	EXPECT_EQ(-EINVAL, uk_register(self->fd, page, getpagesize()));
	EXPECT_EQ(-EINVAL, uk_unregister(self->fd, page, getpagesize()));
	EXPECT_EQ(-EINVAL, uk_wake(self->fd, page, getpagesize()));
	EXPECT_EQ(-EINVAL, uk_wake(self->fd, page, 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_copy(self->fd, page, page,
						  getpagesize(), 0));
	UK_EXPECT_FILL(-EINVAL, UK_UNSET, uk_zero(self->fd, page,
						  getpagesize(), 0));
	EXPECT_EQ(-EINVAL, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(-EINVAL, uk_read(self->fd, &msg, 0));
	EXPECT_EQ(POLLERR, uk_poll(self->fd, 0));
	EXPECT_EQ(0, uk_fdinfo(self->fd, &info));
	EXPECT_EQ(0, info.features);

	ASSERT_EQ(0, do_api(self->fd, &self->api));
	EXPECT_EQ(0, uk_register(self->fd, page, getpagesize()));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
}

TEST_F_TIMEOUT(api, unknown_calls, LIMIT)
{
	int i;

	ASSERT_EQ(0, do_api(self->fd, &self->api));
	for (i = 0x3a; i < 0x3f; i++) {
		EXPECT_EQ(-1, ioctl(self->fd, _IO(UFFDIO, i), &self->api));
		EXPECT_EQ(EINVAL, errno);
	}
	/* The right number, of another size. */
	EXPECT_EQ(-1, ioctl(self->fd, _IOWR(UFFDIO, _UFFDIO_COPY, long), NULL));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->fd, _IO(UFFDIO, _UFFDIO_API), NULL));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->fd, USERFAULTFD_IOC_NEW, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(self->fd, &self->api, sizeof(self->api)));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4096, PROT_READ, MAP_SHARED,
				   self->fd, 0));
	EXPECT_EQ(ENODEV, errno);
}

/* Messages. */

/* FIXTURE_DATA(fd), by a name that reads well in a prototype. */
#define fd_test _test_data_fd

FIXTURE(fd)
{
	struct uk_mem m;
	struct uk_thread t[PAGES];
	char *src;
	int fd;
};

FIXTURE_SETUP(fd)
{
	const char *why;

	why = uk_map(&self->m, UK_ANON_SMALL, PAGES);
	if (why)
		SKIP(return, "%s", why);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	self->src = uk_buffer(self->m.len);
	ASSERT_NE(NULL, self->src);
	uk_paint(self->src, self->m.len, 1);
}

FIXTURE_TEARDOWN(fd)
{
	close(self->fd);
}

/* Thread i blocks on page i. */
static bool block(struct fd_test *self, int i)
{
	struct uk_info info;

	if (uk_fdinfo(self->fd, &info))
		return false;
	return !uk_start(&self->t[i], uk_peek, uk_at(&self->m, i)) &&
	       uk_parked(self->fd, info.pending + 1, info.total + 1);
}

static bool block_first(struct fd_test *self, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		if (!block(self, i))
			return false;
	}
	return true;
}

/* The messages are of the pages from @first on. */
static bool in_order(struct fd_test *self, struct uffd_msg *msg, int first,
		     int n)
{
	int i;

	for (i = 0; i < n; i++) {
		if (!uk_is_fault(&msg[i], uk_at(&self->m, first + i)))
			return false;
	}
	return true;
}

static int resolve(struct fd_test *self, int i)
{
	size_t off = i * self->m.unit;

	return uk_copy(self->fd, self->m.area + off, self->src + off,
		       self->m.unit, 0).err;
}

static int resolve_first(struct fd_test *self, int n)
{
	int i, err = 0;

	for (i = 0; i < n && !err; i++)
		err = resolve(self, i);
	return err;
}

/* The same descriptor, blocking or not. */
static int set_nonblock(int fd, bool on)
{
	return fcntl(fd, F_SETFL, on ? O_NONBLOCK : 0);
}

/* It is a stream of messages, as it has always been. */
TEST_F_TIMEOUT(fd, no_position, LIMIT)
{
	struct uffd_msg msg;

	ASSERT_TRUE(block_first(self, 2));
	EXPECT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_EQ(0, lseek(self->fd, 0, SEEK_CUR));
	EXPECT_EQ(0, lseek(self->fd, sizeof(msg), SEEK_SET));
	EXPECT_EQ(-1, pread(self->fd, &msg, sizeof(msg), 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(1, uk_read(self->fd, &msg, 1));
	EXPECT_TRUE(uk_is_fault(&msg, uk_at(&self->m, 1)));
	EXPECT_EQ(0, resolve_first(self, 2));
	EXPECT_TRUE(uk_join_all(self->t, 2));
}

TEST_F_TIMEOUT(fd, read_sizes, LIMIT)
{
	struct uffd_msg msg[4];
	size_t one = sizeof(msg[0]);

	EXPECT_EQ(-1, read(self->fd, msg, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, read(self->fd, msg, one - 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, read(self->fd, msg, one));
	EXPECT_EQ(EAGAIN, errno);

	ASSERT_TRUE(block_first(self, 6));
	/* Too small for one, though some wait. */
	EXPECT_EQ(-1, read(self->fd, msg, one - 1));
	EXPECT_EQ(EINVAL, errno);
	/* Room for one and most of another. */
	memset(msg, 0x77, sizeof(msg));
	EXPECT_EQ(one, read(self->fd, msg, 2 * one - 1));
	EXPECT_TRUE(uk_is_fault(&msg[0], uk_at(&self->m, 0)));
	EXPECT_EQ(0x77, msg[1].event);

	/* Several, in the order in which the threads came. */
	EXPECT_EQ(3, uk_read(self->fd, msg, 3));
	EXPECT_TRUE(in_order(self, msg, 1, 3));
	/* Fewer than there is room for. */
	EXPECT_EQ(2, uk_read(self->fd, msg, 4));
	EXPECT_TRUE(in_order(self, msg, 4, 2));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, msg, 4));

	EXPECT_EQ(0, resolve_first(self, 6));
	EXPECT_TRUE(uk_join_all(self->t, 6));
}

TEST_F_TIMEOUT(fd, read_into_pieces, LIMIT)
{
	struct uffd_msg msg[3];
	char *p = (char *)msg;
	struct iovec iov[] = {
		{ .iov_base = p, .iov_len = 5 },
		{ .iov_base = p + 5, .iov_len = 40 },
		{ .iov_base = p + 45, .iov_len = sizeof(msg) - 45 },
	};

	ASSERT_TRUE(block_first(self, 3));
	EXPECT_EQ(sizeof(msg), readv(self->fd, iov, 3));
	EXPECT_TRUE(in_order(self, msg, 0, 3));
	EXPECT_EQ(0, resolve_first(self, 3));
}

TEST_F_TIMEOUT(fd, read_into_nowhere, LIMIT)
{
	struct uffd_msg msg;

	ASSERT_TRUE(block(self, 0));
	EXPECT_EQ(-EFAULT, uk_read(self->fd, (void *)8, 1));
	EXPECT_EQ(0, resolve(self, 0));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));
}

TEST_F_TIMEOUT(fd, read_without_waiting, LIMIT)
{
	struct uffd_msg msg;
	struct iovec iov = { .iov_base = &msg, .iov_len = sizeof(msg) };

	ASSERT_EQ(0, set_nonblock(self->fd, false));
	EXPECT_EQ(-1, preadv2(self->fd, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_TRUE(block(self, 0));
	EXPECT_EQ(sizeof(msg), preadv2(self->fd, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_TRUE(uk_is_fault(&msg, uk_at(&self->m, 0)));
	EXPECT_EQ(0, resolve(self, 0));
}

struct reader {
	int fd;
	unsigned int want;
	int done;
	struct uffd_msg msg[PAGES];
};

static long read_some(void *arg)
{
	struct reader *r = arg;
	int got = uk_read(r->fd, r->msg, r->want);

	if (got > 0)
		uk_add(&r->done, 1);
	return got;
}

TEST_F_TIMEOUT(fd, blocking_read, LIMIT)
{
	struct reader r = { .fd = self->fd, .want = 3 };
	struct uk_thread t;

	ASSERT_EQ(0, set_nonblock(self->fd, false));
	ASSERT_EQ(0, uk_start(&t, read_some, &r));
	EXPECT_TRUE(uk_stays(&t));
	/* It waits for the first, not for as many as it could take. */
	ASSERT_EQ(0, uk_start(&self->t[5], uk_peek, uk_at(&self->m, 5)));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(1, t.ret);
	EXPECT_TRUE(uk_is_fault(&r.msg[0], uk_at(&self->m, 5)));
	EXPECT_EQ(0, resolve(self, 5));

	/* What is there already is taken at once, all of it. */
	ASSERT_TRUE(block(self, 0));
	ASSERT_TRUE(block(self, 1));
	EXPECT_EQ(2, uk_read(self->fd, r.msg, 3));
	EXPECT_EQ(0, resolve(self, 0));
	EXPECT_EQ(0, resolve(self, 1));
}

static int hits;

static void on_usr1(int sig)
{
	uk_add(&hits, 1);
}

TEST_F_TIMEOUT(fd, blocking_read_and_signals, LIMIT)
{
	struct sigaction act = { .sa_handler = on_usr1 };
	struct reader r = { .fd = self->fd, .want = 1 };
	struct uk_thread t;

	ASSERT_EQ(0, set_nonblock(self->fd, false));
	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	ASSERT_EQ(0, uk_start(&t, read_some, &r));
	ASSERT_TRUE(uk_asleep(t.tid));
	ASSERT_EQ(0, pthread_kill(t.id, SIGUSR1));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(-EINTR, t.ret);
	EXPECT_EQ(1, hits);

	act.sa_flags = SA_RESTART;
	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	ASSERT_EQ(0, uk_start(&t, read_some, &r));
	ASSERT_TRUE(uk_asleep(t.tid));
	ASSERT_EQ(0, pthread_kill(t.id, SIGUSR1));
	EXPECT_TRUE(uk_stays(&t));
	EXPECT_EQ(2, hits);
	ASSERT_EQ(0, uk_start(&self->t[0], uk_peek, uk_at(&self->m, 0)));
	ASSERT_TRUE(uk_join(&t, UK_SOON));
	EXPECT_EQ(1, t.ret);
	EXPECT_TRUE(uk_is_fault(r.msg, uk_at(&self->m, 0)));
	EXPECT_EQ(0, resolve(self, 0));
}

static bool one_has_read(const struct reader *r, unsigned int ms)
{
	long long until = uk_now() + ms;

	while (!uk_get(&r[0].done) && !uk_get(&r[1].done)) {
		if (uk_now() > until)
			return false;
		uk_sleep(1);
	}
	return true;
}

/* A reader that is interrupted passes on what had woken it. */
TEST_F_TIMEOUT(fd, interrupted_reader_among_others, LIMIT)
{
	struct sigaction act = { .sa_handler = on_usr1 };
	struct reader r[2];
	struct uk_thread t[2];
	int i, round;

	ASSERT_EQ(0, set_nonblock(self->fd, false));
	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	for (round = 0; round < PAGES; round++) {
		int got = 0;

		for (i = 0; i < 2; i++) {
			r[i] = (struct reader){ .fd = self->fd, .want = 1 };
			ASSERT_EQ(0, uk_start(&t[i], read_some, &r[i]));
			ASSERT_TRUE(uk_asleep(t[i].tid));
		}
		/* The signal and the message at the same time. */
		ASSERT_EQ(0, uk_start(&self->t[round], uk_peek,
				      uk_at(&self->m, round)));
		pthread_kill(t[round & 1].id, SIGUSR1);
		/* Not by fdinfo: it has parked a moment before it can be read. */
		ASSERT_TRUE(one_has_read(r, UK_SOON)) {
			TH_LOG("round %d: nobody reads", round);
		}
		EXPECT_EQ(0, resolve(self, round));
		ASSERT_TRUE(uk_join(&self->t[round], UK_SOON));
		for (i = 0; i < 2; i++) {
			if (!uk_finished(&t[i]))
				uk_sleep(10);
			while (!uk_finished(&t[i])) {
				pthread_kill(t[i].id, SIGUSR1);
				uk_sleep(1);
			}
			ASSERT_TRUE(uk_join(&t[i], UK_SOON));
			got += t[i].ret == 1;
		}
		EXPECT_EQ(1, got);
	}
}

/* Many readers, many faults: each fault has exactly one reader. */

#define READERS 4

static int seen[PAGES];

static long read_until_told(void *arg)
{
	struct fd_test *self = arg;
	struct uffd_msg msg;
	int n = 0, i;

	while (uk_read(self->fd, &msg, 1) == 1) {
		i = (msg.arg.pagefault.address - (unsigned long)self->m.area) /
		    self->m.unit;
		/* The last page says that it is over. */
		if (i == PAGES - 1)
			break;
		uk_add(&seen[i], 1);
		n++;
		resolve(self, i);
	}
	return n;
}

TEST_F_TIMEOUT(fd, many_readers, LIMIT)
{
	struct uk_thread r[READERS], last[READERS];
	int i, round, sum = 0;

	ASSERT_EQ(0, set_nonblock(self->fd, false));
	for (i = 0; i < READERS; i++) {
		ASSERT_EQ(0, uk_start(&r[i], read_until_told, self));
		ASSERT_TRUE(uk_asleep(r[i].tid));
	}
	for (round = 0; round < 20; round++) {
		memset(seen, 0, sizeof(seen));
		for (i = 0; i < PAGES - 1; i++) {
			ASSERT_EQ(0, uk_start(&self->t[i], uk_peek,
					      uk_at(&self->m, i)));
		}
		for (i = 0; i < PAGES - 1; i++) {
			ASSERT_TRUE(uk_join(&self->t[i], UK_SOON));
			EXPECT_EQ(1, uk_get(&seen[i]));
			sum += seen[i];
		}
		ASSERT_EQ(0, madvise(self->m.area, self->m.len, MADV_DONTNEED));
	}
	for (i = 0; i < READERS; i++) {
		ASSERT_EQ(0, uk_start(&last[i], uk_peek,
				      uk_at(&self->m, PAGES - 1)));
	}
	for (i = 0; i < READERS; i++) {
		ASSERT_TRUE(uk_join(&r[i], UK_SOON));
		sum -= r[i].ret;
	}
	EXPECT_EQ(0, sum);
	EXPECT_EQ(0, resolve(self, PAGES - 1));
	EXPECT_TRUE(uk_join_all(last, READERS));
}

/* poll() and epoll */

TEST_F_TIMEOUT(fd, poll, LIMIT)
{
	struct uffd_msg msg;

	EXPECT_EQ(0, uk_poll(self->fd, 0));
	EXPECT_EQ(0, uk_poll(self->fd, 20));
	ASSERT_EQ(0, uk_start(&self->t[0], uk_peek, uk_at(&self->m, 0)));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, UK_SOON));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	EXPECT_EQ(1, uk_read(self->fd, &msg, 1));
	/* Read is read, resolved or not. */
	EXPECT_EQ(0, uk_poll(self->fd, 0));

	/* Resolved and never read. */
	ASSERT_TRUE(block(self, 1));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	EXPECT_EQ(0, resolve(self, 1));
	EXPECT_TRUE(uk_join(&self->t[1], UK_SOON));
	EXPECT_EQ(0, uk_poll(self->fd, 0));
	EXPECT_EQ(-EAGAIN, uk_read(self->fd, &msg, 1));

	/* On a blocking descriptor it is an error. */
	ASSERT_EQ(0, set_nonblock(self->fd, false));
	EXPECT_EQ(POLLERR, uk_poll(self->fd, 0));
	EXPECT_EQ(POLLERR, uk_poll(self->fd, UK_SOON));
	ASSERT_TRUE(block(self, 2));
	EXPECT_EQ(POLLERR, uk_poll(self->fd, 0));
	ASSERT_EQ(0, set_nonblock(self->fd, true));
	EXPECT_EQ(POLLIN, uk_poll(self->fd, 0));
	EXPECT_EQ(0, resolve(self, 0));
	EXPECT_EQ(0, resolve(self, 2));
}

static long wait_readable(void *arg)
{
	return uk_poll(*(int *)arg, UK_SOON);
}

TEST_F_TIMEOUT(fd, poll_is_woken, LIMIT)
{
	struct uk_thread t[3];
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, uk_start(&t[i], wait_readable, &self->fd));
		ASSERT_TRUE(uk_asleep(t[i].tid));
	}
	/* All of them: who polls has not promised to read. */
	ASSERT_EQ(0, uk_start(&self->t[0], uk_peek, uk_at(&self->m, 0)));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(uk_join(&t[i], UK_SOON));
		EXPECT_EQ(POLLIN, t[i].ret);
	}
	EXPECT_EQ(0, resolve(self, 0));
}

/* A poller and a reader of the same file each get what they wait for. */
TEST_F_TIMEOUT(fd, poll_and_blocking_read, LIMIT)
{
	struct reader r = { .fd = self->fd, .want = 1 };
	struct uk_thread poller, reader;
	int i;

	for (i = 0; i < 8; i++) {
		/* Whether a read blocks is settled when it begins. */
		ASSERT_EQ(0, set_nonblock(self->fd, true));
		ASSERT_EQ(0, uk_start(&poller, wait_readable, &self->fd));
		ASSERT_TRUE(uk_asleep(poller.tid));
		ASSERT_EQ(0, set_nonblock(self->fd, false));
		ASSERT_EQ(0, uk_start(&reader, read_some, &r));
		ASSERT_TRUE(uk_asleep(reader.tid));

		ASSERT_EQ(0, uk_start(&self->t[i], uk_peek,
				      uk_at(&self->m, i)));
		ASSERT_TRUE(uk_join(&reader, UK_SOON));
		EXPECT_EQ(1, reader.ret);
		EXPECT_TRUE(uk_is_fault(r.msg, uk_at(&self->m, i)));
		EXPECT_EQ(0, resolve(self, i));
		/* The poller looks at the file anew, and it blocks now. */
		ASSERT_TRUE(uk_join(&poller, UK_SOON));
		EXPECT_EQ(POLLERR, poller.ret);
	}
}

struct epoller {
	int fd;
	unsigned int flags;
	int served;
	struct fd_test *self;
};

/* Serve faults as long as they come; how many were seen in @served. */
static long epoll_serve(void *arg)
{
	struct epoller *e = arg;
	struct epoll_event ev = { .events = EPOLLIN | e->flags };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	long ret = 0;

	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, e->fd, &ev))
		return -errno;
	uk_set(&e->served, 0);
	for (;;) {
		struct uffd_msg msg;
		int n = epoll_wait(ep, &ev, 1, UK_SOON);

		if (n <= 0) {
			ret = n ? -errno : -ETIME;
			break;
		}
		do {
			int i;

			n = uk_read(e->fd, &msg, 1);
			if (n != 1)
				break;
			i = (msg.arg.pagefault.address -
			     (unsigned long)e->self->m.area) / e->self->m.unit;
			if (i == PAGES - 1)
				goto out;
			uk_add(&e->served, 1);
			resolve(e->self, i);
		} while (e->flags & EPOLLET);
	}
out:
	close(ep);
	return ret;
}

static void epoll_round(struct __test_metadata *_metadata,
			struct fd_test *self, unsigned int flags, int pollers)
{
	struct epoller e[3];
	struct uk_thread t[3], last[3];
	int i, round, sum = 0;

	for (i = 0; i < pollers; i++) {
		e[i] = (struct epoller){
			.fd = self->fd,
			.flags = flags,
			.self = self,
			.served = -1,
		};
		ASSERT_EQ(0, uk_start(&t[i], epoll_serve, &e[i]));
		ASSERT_TRUE(uk_asleep(t[i].tid));
		ASSERT_EQ(0, uk_get(&e[i].served));
	}
	for (round = 0; round < 30; round++) {
		i = round % (PAGES - 1);
		ASSERT_EQ(0, uk_start(&self->t[i], uk_peek,
				      uk_at(&self->m, i)));
		ASSERT_TRUE(uk_join(&self->t[i], UK_SOON)) {
			TH_LOG("round %d of %#x: nobody woke up", round, flags);
		}
		ASSERT_EQ(0, madvise(uk_at(&self->m, i), self->m.unit,
				     MADV_DONTNEED));
	}
	for (i = 0; i < pollers; i++) {
		ASSERT_EQ(0, uk_start(&last[i], uk_peek,
				      uk_at(&self->m, PAGES - 1)));
	}
	for (i = 0; i < pollers; i++) {
		ASSERT_TRUE(uk_join(&t[i], UK_SOON));
		EXPECT_EQ(0, t[i].ret);
		sum += e[i].served;
	}
	EXPECT_EQ(30, sum);
	ASSERT_EQ(0, resolve(self, PAGES - 1));
	ASSERT_TRUE(uk_join_all(last, pollers));
	ASSERT_EQ(0, madvise(self->m.area, self->m.len, MADV_DONTNEED));
}

TEST_F_TIMEOUT(fd, epoll, LIMIT)
{
	epoll_round(_metadata, self, 0, 1);
	epoll_round(_metadata, self, 0, 3);
}

TEST_F_TIMEOUT(fd, epoll_exclusive, LIMIT)
{
	epoll_round(_metadata, self, EPOLLEXCLUSIVE, 1);
	epoll_round(_metadata, self, EPOLLEXCLUSIVE, 3);
}

TEST_F_TIMEOUT(fd, epoll_edge_triggered, LIMIT)
{
	epoll_round(_metadata, self, EPOLLET, 1);
}

/* A blocked reader must not lose its message to an exclusive poller. */
TEST_F_TIMEOUT(fd, epoll_exclusive_and_blocking_read, LIMIT)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	struct reader r = { .fd = self->fd, .want = 1 };
	struct uk_thread reader, poller;
	int ep, i;

	for (i = 0; i < 8; i++) {
		ep = epoll_create1(EPOLL_CLOEXEC);
		ASSERT_LE(0, ep);
		ASSERT_EQ(0, set_nonblock(self->fd, true));
		ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->fd, &ev));
		ASSERT_EQ(0, uk_start(&poller, wait_readable, &ep));
		ASSERT_TRUE(uk_asleep(poller.tid));
		ASSERT_EQ(0, set_nonblock(self->fd, false));
		ASSERT_EQ(0, uk_start(&reader, read_some, &r));
		ASSERT_TRUE(uk_asleep(reader.tid));
		ASSERT_EQ(0, uk_start(&self->t[i], uk_peek,
				      uk_at(&self->m, i)));
		ASSERT_TRUE(uk_join(&reader, UK_SOON));
		EXPECT_EQ(1, reader.ret);
		EXPECT_EQ(0, resolve(self, i));
		ASSERT_TRUE(uk_join(&poller, UK_SOON));
		close(ep);
	}
}

/* fdinfo */

TEST_F_TIMEOUT(fd, fdinfo, LIMIT)
{
	const __u64 ioctls = UK_BIT(_UFFDIO_API) | UK_BIT(_UFFDIO_REGISTER) |
			     UK_BIT(_UFFDIO_UNREGISTER) | UK_BIT(_UFFDIO_WAKE) |
			     UK_BIT(_UFFDIO_COPY) | UK_BIT(_UFFDIO_ZEROPAGE);
	const __u64 features = UFFD_FEATURE_EVENT_UNMAP |
			       UFFD_FEATURE_THREAD_ID;
	struct uffd_msg msg[2];
	struct uk_info info;
	int fd;

	ASSERT_EQ(0, uk_fdinfo(self->fd, &info));
	EXPECT_EQ(0, info.pending);
	EXPECT_EQ(0, info.total);
	EXPECT_EQ(UFFD_API, info.api);
	/* Bit 31 says that the handshake was made. */
	EXPECT_EQ(UK_BIT(31), info.features);
	EXPECT_EQ(ioctls, info.ioctls & ioctls);

	ASSERT_TRUE(block(self, 0));
	ASSERT_TRUE(block(self, 1));
	ASSERT_TRUE(block(self, 2));
	EXPECT_TRUE(uk_parked(self->fd, 3, 3));
	EXPECT_EQ(2, uk_read(self->fd, msg, 2));
	EXPECT_TRUE(uk_parked(self->fd, 1, 3));
	EXPECT_EQ(0, resolve(self, 2));
	EXPECT_TRUE(uk_parked(self->fd, 0, 2));
	EXPECT_EQ(0, resolve(self, 0));
	EXPECT_TRUE(uk_parked(self->fd, 0, 1));
	EXPECT_EQ(0, resolve(self, 1));
	EXPECT_TRUE(uk_parked(self->fd, 0, 0));

	fd = uk_new(O_CLOEXEC, features);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, uk_fdinfo(fd, &info));
	EXPECT_EQ(features | UK_BIT(31), info.features);
	close(fd);
}

/* In other hands. */

struct pager {
	int sock;
	struct uk_mem *m;
};

/* Serves the faults of the process that sends a descriptor. */
static int foreign_pager(void *arg)
{
	struct pager *p = arg;
	char *src = uk_buffer(p->m->len);
	int fd = uk_recv_fd(p->sock), n;
	struct uffd_msg msg;

	UK_CHECK(src && fd >= 0);
	uk_paint(src, p->m->len, 77);
	for (n = 0; n < PAGES; n++) {
		unsigned long off;

		UK_CHECK(uk_next(fd, &msg) == 1);
		UK_CHECK(msg.event == UFFD_EVENT_PAGEFAULT);
		off = msg.arg.pagefault.address - (unsigned long)p->m->area;
		UK_CHECK(off < p->m->len);
		UK_CHECK(!uk_copy(fd, p->m->area + off, src + off, p->m->unit,
				  0).err);
	}
	UK_CHECK(write(p->sock, "x", 1) == 1);
	/* Registering is done for the mm that opened it as well. */
	UK_CHECK(!uk_unregister(fd, p->m->area, p->m->len));
	return 0;
}

TEST_F_TIMEOUT(fd, served_by_another_process, LIMIT)
{
	struct pager p = { .m = &self->m };
	char byte;
	int sv[2];
	pid_t pid;

	/* The pager is older than the descriptor and has other memory. */
	close(self->fd);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	p.sock = sv[1];
	pid = uk_spawn(foreign_pager, &p);
	ASSERT_LT(0, pid);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, 0);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	ASSERT_EQ(0, uk_send_fd(sv[0], self->fd));
	close(self->fd);

	EXPECT_TRUE(uk_painted(self->m.area, self->m.len, 77));
	EXPECT_EQ(1, read(sv[0], &byte, 1));
	EXPECT_EQ(0, uk_reap(pid, UK_SOON));
	EXPECT_EQ(0, uk_census(self->m.area, self->m.len).armed);
}

/* The last one to close it closes it. */
TEST_F_TIMEOUT(fd, duplicate, LIMIT)
{
	struct uffd_msg msg;
	int dup_fd = fcntl(self->fd, F_DUPFD_CLOEXEC, 0);

	ASSERT_LE(0, dup_fd);
	ASSERT_TRUE(block(self, 0));
	close(self->fd);
	self->fd = dup_fd;
	EXPECT_TRUE(uk_stays(&self->t[0]));
	EXPECT_EQ(1, uk_read(dup_fd, &msg, 1));
	EXPECT_EQ(1, uk_census(self->m.area, self->m.len).armed);
	EXPECT_EQ(0, resolve(self, 0));
	EXPECT_TRUE(uk_join(&self->t[0], UK_SOON));
}

/* What these modes need is offered, or else the modes are refused. */
TEST_F_TIMEOUT(fd, modes_and_features_agree, LIMIT)
{
	__u64 offered = uk_offered();
	struct uk_mem m;
	int err;

	ASSERT_EQ(NULL, uk_map(&m, UK_SHMEM, 1));
	err = uk_register_mode(self->fd, m.area, m.len,
			       UFFDIO_REGISTER_MODE_MINOR, NULL);
	EXPECT_EQ(offered & UFFD_FEATURE_MINOR_SHMEM ? 0 : -EINVAL, err);
	ASSERT_EQ(NULL, uk_map(&m, UK_ANON_SMALL, 1));
	err = uk_register_mode(self->fd, m.area, m.len,
			       UFFDIO_REGISTER_MODE_WP, NULL);
	EXPECT_EQ(offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP ? 0 : -EINVAL, err);
}

TEST_HARNESS_MAIN
