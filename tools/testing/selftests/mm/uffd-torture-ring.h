/* SPDX-License-Identifier: GPL-2.0 */
/*
 * uffd-torture: as much of io_uring as it takes to run one request at a time.
 */
#ifndef UFFD_TORTURE_RING_H
#define UFFD_TORTURE_RING_H

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <linux/fs.h>
#include <linux/io_uring.h>

struct ring {
	int fd;
	char *map;
	size_t len;
	struct io_uring_sqe *sqe;
	struct io_uring_params params;
};

static inline void ring_close(struct ring *ring)
{
	munmap(ring->map, ring->len);
	munmap(ring->sqe, 4096);
	close(ring->fd);
}

static inline int ring_open(struct ring *ring)
{
	struct io_uring_params *p = &ring->params;

	memset(ring, 0, sizeof(*ring));
	ring->fd = syscall(__NR_io_uring_setup, 2, p);
	if (ring->fd < 0)
		return -errno;
	ring->len = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	if (ring->len < p->sq_off.array + p->sq_entries * 4)
		ring->len = p->sq_off.array + p->sq_entries * 4;
	ring->map = mmap(NULL, ring->len, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
	ring->sqe = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
	if (ring->map == MAP_FAILED || ring->sqe == MAP_FAILED) {
		close(ring->fd);
		return -ENOMEM;
	}
	return 0;
}

/* Runs one request to its end, whatever signals come, and returns its result. */
static inline int ring_run(struct ring *ring, const struct io_uring_sqe *sqe)
{
	struct io_uring_params *p = &ring->params;
	unsigned int *sq_tail = (unsigned int *)(ring->map + p->sq_off.tail);
	unsigned int *sq_mask = (unsigned int *)(ring->map + p->sq_off.ring_mask);
	unsigned int *array = (unsigned int *)(ring->map + p->sq_off.array);
	unsigned int *cq_head = (unsigned int *)(ring->map + p->cq_off.head);
	unsigned int *cq_tail = (unsigned int *)(ring->map + p->cq_off.tail);
	unsigned int *cq_mask = (unsigned int *)(ring->map + p->cq_off.ring_mask);
	struct io_uring_cqe *cqe = (struct io_uring_cqe *)(ring->map + p->cq_off.cqes);
	unsigned int head = *cq_head, submit = 1;
	int ret;

	ring->sqe[*sq_tail & *sq_mask] = *sqe;
	array[*sq_tail & *sq_mask] = *sq_tail & *sq_mask;
	__atomic_store_n(sq_tail, *sq_tail + 1, __ATOMIC_RELEASE);
	while (submit || __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE) == head) {
		ret = syscall(__NR_io_uring_enter, ring->fd, submit, 1,
			      IORING_ENTER_GETEVENTS, NULL, 0);
		if (ret == 1)
			submit = 0;
		else if (ret < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
	}
	ret = cqe[head & *cq_mask].res;
	__atomic_store_n(cq_head, head + 1, __ATOMIC_RELEASE);
	return ret;
}

/* Fails with -EAGAIN rather than to wait. */
static inline int ring_read(struct ring *ring, int fd, void *buf, size_t len)
{
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_READ,
		.fd = fd,
		.addr = (unsigned long)buf,
		.len = len,
		.off = -1,
		/* O_NONBLOCK does not say that to it, for such a file. */
		.rw_flags = RWF_NOWAIT,
	};

	return ring_run(ring, &sqe);
}

#endif /* UFFD_TORTURE_RING_H */
