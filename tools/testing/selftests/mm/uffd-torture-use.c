// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: threads that use the memory, by plain accesses and by all the ways in
 * which the kernel accesses it for them.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "uffd-torture.h"

/*
 * A system call may fail because the mapping is just not there, or not accessible;
 * it may be cut short by a signal. Anything else is wrong.
 */
static bool may_fail(int err)
{
	return err == -EFAULT || err == -EINTR || err == -EAGAIN ||
	       err == -ENOMEM;
}

static int checked(ssize_t ret, const char *what)
{
	int err = ret < 0 ? -errno : 0;

	if (ret >= 0)
		return ret;
	if (!may_fail(err) && !uk_get(&world->closed))
		fail(T_CALL, "%s: errno %d", what, -err);
	return err;
}

static int do_write(struct region *r, unsigned int page)
{
	if (!check_page(r, page))
		return -EINTR;
	write_page(r, page, next_version(r, page, chance(&self->random, 10)));
	return 0;
}

static int do_verify(struct region *r, unsigned int page)
{
	return check_page(r, page) ? 0 : -EINTR;
}

/* The page's lock is not held: anybody may be at it. */
static int do_peek(struct region *r, unsigned int page)
{
	unsigned int step = below(&self->random, r->unit / r->step);
	struct glance g;
	__u64 val;

	glance(&g, r, page);
	if (load(page_at(r, page) + step * r->step, &val))
		return -EFAULT;
	judge(&g, val, "peek");
	return 0;
}

static int do_gup_read(struct region *r, unsigned int page)
{
	unsigned int step = below(&self->random, r->unit / r->step);
	struct iovec to = { .iov_len = 8 }, from = { .iov_len = 8 };
	struct glance g;
	__u64 val;
	int ret;

	to.iov_base = &val;
	glance(&g, r, page);
	from.iov_base = page_at(r, page) + step * r->step;
	ret = checked(process_vm_readv(world->pid, &to, 1, &from, 1, 0),
		      "process_vm_readv");
	if (ret != 8)
		return ret < 0 ? ret : -EFAULT;
	judge(&g, val, "process_vm_readv");
	return 0;
}

/* How much of a page goes through a pipe, which has 16 pages. */
static size_t piped(struct region *r)
{
	return r->unit < 32768 ? r->unit : 32768;
}

static void drain(int fd, size_t len)
{
	ssize_t n;

	while (len) {
		n = read(fd, self->buf, len);
		if (n > 0)
			len -= n;
		else if (n == 0 || errno != EINTR)
			break;
	}
}

static bool whole(struct region *r, unsigned int page, ssize_t n,
		  const char *how)
{
	/* What was not asked for is as it should be. */
	if (n != (ssize_t)r->unit)
		paint(r, page, r->page[page].settled, self->buf + BUF_SIZE / 2);
	if (r->unit == BUF_SIZE)
		return true;
	memcpy(self->buf + n, self->buf + BUF_SIZE / 2 + n, r->unit - n);
	return check_copy(r, page, self->buf, how);
}

/* In parts of a huge page: only the part is looked at. */
static bool check_part(struct region *r, unsigned int page, size_t offset,
		       size_t len, const char *how)
{
	__u64 want = tag(r, page, r->page[page].settled), val;
	size_t at;

	if (r->unit <= BUF_SIZE / 2)
		return whole(r, page, len, how);
	for (at = (offset + r->step - 1) / r->step * r->step; at + 8 <= offset + len;
	     at += r->step) {
		memcpy(&val, self->buf + at - offset, 8);
		if (val == want || (!val && zeros_are_fine(r, r->page[page].epoch)))
			continue;
		if (uk_get(&world->closed))
			return false;
		fail(T_CONTENT, "%s: region %u page %u has %#llx at %#zx, not %#llx",
		     how, r->nr, page, val, at, want);
		return false;
	}
	return true;
}

/* The kernel reads the page for write(). */
static int do_sys_read(struct region *r, unsigned int page)
{
	size_t len = piped(r);
	int ret;

	ret = checked(write(self->pipe[1], page_at(r, page), len), "write");
	if (ret <= 0)
		return ret;
	drain(self->pipe[0], ret);
	return check_part(r, page, 0, ret, "write") ? 0 : -EINTR;
}

/* The kernel writes the page for read(). */
static int do_sys_write(struct region *r, unsigned int page)
{
	uint32_t version = next_version(r, page, false);
	size_t len = piped(r), done = 0;
	ssize_t n;
	int ret = 0;

	if (!check_page(r, page))
		return -EINTR;
	paint(r, page, version, self->buf);
	if (write(self->pipe[1], self->buf, len) != (ssize_t)len)
		return -EINTR;
	start_write(r, page, version);
	while (done < len) {
		n = read(self->pipe[0], page_at(r, page) + done, len - done);
		if (n <= 0) {
			ret = checked(n, "read");
			break;
		}
		done += n;
	}
	/* What is left goes by hand. */
	if (done < len)
		drain(self->pipe[0], len - done);
	write_page(r, page, version);
	return ret < 0 ? ret : 0;
}

static int do_gup_write(struct region *r, unsigned int page)
{
	uint32_t version = next_version(r, page, false);
	struct iovec to = { .iov_len = r->unit };
	struct iovec from = { self->buf, r->unit };
	int ret;

	if (!check_page(r, page))
		return -EINTR;
	paint(r, page, version, self->buf);
	to.iov_base = page_at(r, page);
	start_write(r, page, version);
	ret = checked(process_vm_writev(world->pid, &from, 1, &to, 1, 0),
		      "process_vm_writev");
	if (ret == (int)r->unit)
		settle_write(r, page, version);
	write_page(r, page, version);
	return ret < 0 ? ret : 0;
}

/* The page itself goes into the pipe, and stays there for a while. */
static int do_vmsplice(struct region *r, unsigned int page)
{
	size_t len = piped(r);
	struct iovec iov = { .iov_len = len };
	int ret;

	if (!check_page(r, page))
		return -EINTR;
	iov.iov_base = page_at(r, page);
	ret = checked(vmsplice(self->pipe[1], &iov, 1, 0), "vmsplice");
	if (ret <= 0)
		return ret;
	if (chance(&self->random, 30))
		uk_sleep(below(&self->random, 20));
	drain(self->pipe[0], ret);
	return check_part(r, page, 0, ret, "vmsplice") ? 0 : -EINTR;
}

/* Each thread has a place of its own on the device. */
static off_t direct_offset(void)
{
	return (off_t)(self->worker - world->worker + world->nr * MAX_THREADS) *
	       65536;
}

static size_t direct_len(struct region *r)
{
	return r->unit < 65536 ? r->unit : 65536;
}

/* To the disk and back again, into memory that is pinned for it. */
static int do_direct(struct region *r, unsigned int page)
{
	uint32_t version = next_version(r, page, false);
	size_t len = direct_len(r);
	int ret;

	if (setting.direct_fd < 0 || !check_page(r, page))
		return -EINTR;
	ret = checked(pwrite(setting.direct_fd, page_at(r, page), len,
			     direct_offset()), "direct write");
	if (ret != (int)len)
		return ret < 0 ? ret : -EINTR;
	ret = checked(pread(setting.direct_fd, self->buf, len, direct_offset()),
		      "direct read");
	if (ret != (int)len)
		return -EINTR;
	if (!check_part(r, page, 0, len, "direct write"))
		return -EINTR;

	paint(r, page, version, self->buf);
	if (pwrite(setting.direct_fd, self->buf, len, direct_offset()) != len)
		return -EINTR;
	start_write(r, page, version);
	ret = checked(pread(setting.direct_fd, page_at(r, page), len,
			    direct_offset()), "direct read");
	write_page(r, page, version);
	return ret < 0 ? ret : 0;
}

/* Registered with io_uring, the page is pinned until it is not any more. */
static int fixed(struct ring *ring, char *at, size_t len)
{
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_WRITE_FIXED,
		.fd = self->pipe[1],
		.addr = (unsigned long)at,
		.len = len,
		.off = -1,
	};

	return ring_run(ring, &sqe);
}

static int do_fixed(struct region *r, unsigned int page)
{
	struct iovec iov = { .iov_len = r->unit };
	size_t len = piped(r);
	int ret;

	if (self->ring.fd < 0 || !check_page(r, page))
		return -EINTR;
	iov.iov_base = page_at(r, page);
	ret = checked(syscall(__NR_io_uring_register, self->ring.fd,
			      IORING_REGISTER_BUFFERS, &iov, 1), "fixed buffer");
	if (ret < 0)
		return ret;
	if (chance(&self->random, 30))
		uk_sleep(below(&self->random, 20));
	/* The page may be written meanwhile, and must be the same. */
	if (chance(&self->random, 50))
		write_page(r, page, next_version(r, page, false));
	ret = fixed(&self->ring, iov.iov_base, len);
	if (ret > 0)
		drain(self->pipe[0], ret);
	syscall(__NR_io_uring_register, self->ring.fd, IORING_UNREGISTER_BUFFERS,
		NULL, 0);
	if (ret <= 0)
		return ret;
	return check_part(r, page, 0, ret, "fixed buffer") ? 0 : -EINTR;
}

static int do_populate(struct region *r, unsigned int page)
{
	unsigned int n = 1 + below(&self->random, 16);
	int advice = MADV_POPULATE_READ;

	if (page + n > r->pages)
		n = r->pages - page;
	/* It counts as a write, which only who has the page may do if it is counted. */
	if (!has(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_SET_MODE) &&
	    chance(&self->random, 50))
		advice = MADV_POPULATE_WRITE;
	return madvise(page_at(r, page), n * r->unit, advice) ? -errno : 0;
}

struct way {
	enum op op;
	unsigned int weight;
	bool locked;
	int (*fn)(struct region *r, unsigned int page);
};

static const struct way ways[] = {
	{ OP_WRITE, 30, true, do_write },
	{ OP_VERIFY, 15, true, do_verify },
	{ OP_PEEK, 25, false, do_peek },
	{ OP_GUP_READ, 6, false, do_gup_read },
	{ OP_GUP_WRITE, 6, true, do_gup_write },
	{ OP_SYS_READ, 6, true, do_sys_read },
	{ OP_SYS_WRITE, 6, true, do_sys_write },
	{ OP_VMSPLICE, 3, true, do_vmsplice },
	{ OP_DIRECT, 3, true, do_direct },
	{ OP_FIXED, 2, true, do_fixed },
	{ OP_POPULATE, 1, false, do_populate },
};

static const struct way *choose(void)
{
	unsigned int i, sum = 0, at;

	for (i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		sum += ways[i].weight;
	at = below(&self->random, sum);
	for (i = 0; at >= ways[i].weight; i++)
		at -= ways[i].weight;
	return &ways[i];
}

static void step(void)
{
	struct region *r = &world->region[below(&self->random, world->regions)];
	unsigned int page = below(&self->random, r->pages);
	const struct way *way = choose();
	int ret;

	/* Some places are hot. */
	if (chance(&self->random, 30))
		page %= 4;
	if (way->locked && !try_lock(&r->page[page].lock))
		return;
	begin(way->op, r->nr, page);
	ret = way->fn(r, page);
	end(1, ret);
	if (way->locked)
		unlock(&r->page[page].lock);
}

void *use(void *arg)
{
	struct self *me = arg;

	if (!enter_self(me))
		return NULL;
	while (!uk_get(&world->stop_users)) {
		step();
		if (chance(&me->random, 5))
			uk_sleep(1);
	}
	leave_self();
	return NULL;
}
