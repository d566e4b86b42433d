/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The userfaultfd ABI.
 *
 * userfaultfd(2), or the USERFAULTFD_IOC_NEW ioctl of /dev/userfaultfd, returns
 * a file descriptor.  UFFDIO_API agrees on features, UFFDIO_REGISTER names the
 * memory whose faults the descriptor receives, read() returns them as struct
 * uffd_msg, and the other ioctls resolve them.
 *
 * See Documentation/admin-guide/mm/userfaultfd.rst.
 */

#ifndef _LINUX_USERFAULTFD_H
#define _LINUX_USERFAULTFD_H

#include <linux/types.h>

/* /dev/userfaultfd; the argument is the flags word of userfaultfd(2) */
#define USERFAULTFD_IOC 0xAA
#define USERFAULTFD_IOC_NEW _IO(USERFAULTFD_IOC, 0x00)

/* userfaultfd(2) flag, beside O_CLOEXEC and O_NONBLOCK */
#define UFFD_USER_MODE_ONLY 1	/* faults of kernel code are not delivered */

/* The only version of the API there is; goes into uffdio_api.api */
#define UFFD_API ((__u64)0xAA)

/* Everything a kernel with all features answers to UFFDIO_API and _REGISTER */
#define UFFD_API_REGISTER_MODES (UFFDIO_REGISTER_MODE_MISSING |	\
				 UFFDIO_REGISTER_MODE_WP |	\
				 UFFDIO_REGISTER_MODE_MINOR |	\
				 UFFDIO_REGISTER_MODE_RWP)
#define UFFD_API_FEATURES (UFFD_FEATURE_PAGEFAULT_FLAG_WP |	\
			   UFFD_FEATURE_EVENT_FORK |		\
			   UFFD_FEATURE_EVENT_REMAP |		\
			   UFFD_FEATURE_EVENT_REMOVE |		\
			   UFFD_FEATURE_EVENT_UNMAP |		\
			   UFFD_FEATURE_EVENT_NOWAIT |		\
			   UFFD_FEATURE_MISSING_HUGETLBFS |	\
			   UFFD_FEATURE_MISSING_SHMEM |		\
			   UFFD_FEATURE_SIGBUS |		\
			   UFFD_FEATURE_ORPHAN_SIGBUS |		\
			   UFFD_FEATURE_THREAD_ID |		\
			   UFFD_FEATURE_MINOR_HUGETLBFS |	\
			   UFFD_FEATURE_MINOR_SHMEM |		\
			   UFFD_FEATURE_EXACT_ADDRESS |		\
			   UFFD_FEATURE_WP_HUGETLBFS_SHMEM |	\
			   UFFD_FEATURE_WP_UNPOPULATED |	\
			   UFFD_FEATURE_POISON |		\
			   UFFD_FEATURE_WP_ASYNC |		\
			   UFFD_FEATURE_MOVE |			\
			   UFFD_FEATURE_RWP |			\
			   UFFD_FEATURE_RWP_ASYNC |		\
			   UFFD_FEATURE_WP_SET_MODE |		\
			   UFFD_FEATURE_EXCHANGE |		\
			   UFFD_FEATURE_WP_LOG)
#define UFFD_API_IOCTLS				\
	((__u64)1 << _UFFDIO_REGISTER |		\
	 (__u64)1 << _UFFDIO_UNREGISTER |	\
	 (__u64)1 << _UFFDIO_SET_MODE |		\
	 (__u64)1 << _UFFDIO_EXCHANGE |		\
	 (__u64)1 << _UFFDIO_LOG |		\
	 (__u64)1 << _UFFDIO_API)
#define UFFD_API_RANGE_IOCTLS			\
	((__u64)1 << _UFFDIO_WAKE |		\
	 (__u64)1 << _UFFDIO_COPY |		\
	 (__u64)1 << _UFFDIO_ZEROPAGE |		\
	 (__u64)1 << _UFFDIO_MOVE |		\
	 (__u64)1 << _UFFDIO_WRITEPROTECT |	\
	 (__u64)1 << _UFFDIO_CONTINUE |		\
	 (__u64)1 << _UFFDIO_POISON |		\
	 (__u64)1 << _UFFDIO_RWPROTECT)
#define UFFD_API_RANGE_IOCTLS_BASIC		\
	((__u64)1 << _UFFDIO_WAKE |		\
	 (__u64)1 << _UFFDIO_COPY |		\
	 (__u64)1 << _UFFDIO_WRITEPROTECT |	\
	 (__u64)1 << _UFFDIO_CONTINUE |		\
	 (__u64)1 << _UFFDIO_POISON |		\
	 (__u64)1 << _UFFDIO_RWPROTECT)

/*
 * ioctl numbers: 0x00 to 0x3f, so that a 64-bit mask can tell which of them
 * a range (uffdio_register.ioctls) or the descriptor (uffdio_api.ioctls) takes.
 *
 * UNREGISTER and WAKE are defined as if the kernel wrote their argument,
 * although it only reads it.  That is the ABI now.
 */
#define _UFFDIO_REGISTER		(0x00)
#define _UFFDIO_UNREGISTER		(0x01)
#define _UFFDIO_WAKE			(0x02)
#define _UFFDIO_COPY			(0x03)
#define _UFFDIO_ZEROPAGE		(0x04)
#define _UFFDIO_MOVE			(0x05)
#define _UFFDIO_WRITEPROTECT		(0x06)
#define _UFFDIO_CONTINUE		(0x07)
#define _UFFDIO_POISON			(0x08)
#define _UFFDIO_RWPROTECT		(0x09)
#define _UFFDIO_SET_MODE		(0x0A)
#define _UFFDIO_EXCHANGE		(0x30)
#define _UFFDIO_LOG			(0x31)
#define _UFFDIO_API			(0x3F)

#define UFFDIO 0xAA
#define UFFDIO_API		_IOWR(UFFDIO, _UFFDIO_API,	\
				      struct uffdio_api)
#define UFFDIO_REGISTER		_IOWR(UFFDIO, _UFFDIO_REGISTER, \
				      struct uffdio_register)
#define UFFDIO_UNREGISTER	_IOR(UFFDIO, _UFFDIO_UNREGISTER,	\
				     struct uffdio_range)
#define UFFDIO_WAKE		_IOR(UFFDIO, _UFFDIO_WAKE,	\
				     struct uffdio_range)
#define UFFDIO_COPY		_IOWR(UFFDIO, _UFFDIO_COPY,	\
				      struct uffdio_copy)
#define UFFDIO_ZEROPAGE		_IOWR(UFFDIO, _UFFDIO_ZEROPAGE,	\
				      struct uffdio_zeropage)
#define UFFDIO_MOVE		_IOWR(UFFDIO, _UFFDIO_MOVE,	\
				      struct uffdio_move)
#define UFFDIO_WRITEPROTECT	_IOWR(UFFDIO, _UFFDIO_WRITEPROTECT, \
				      struct uffdio_writeprotect)
#define UFFDIO_CONTINUE		_IOWR(UFFDIO, _UFFDIO_CONTINUE,	\
				      struct uffdio_continue)
#define UFFDIO_POISON		_IOWR(UFFDIO, _UFFDIO_POISON, \
				      struct uffdio_poison)
#define UFFDIO_RWPROTECT	_IOWR(UFFDIO, _UFFDIO_RWPROTECT, \
				      struct uffdio_rwprotect)
#define UFFDIO_SET_MODE		_IOW(UFFDIO, _UFFDIO_SET_MODE, \
				     struct uffdio_set_mode)
#define UFFDIO_EXCHANGE		_IOWR(UFFDIO, _UFFDIO_EXCHANGE, \
				      struct uffdio_exchange)
#define UFFDIO_LOG		_IOWR(UFFDIO, _UFFDIO_LOG, \
				      struct uffdio_log)

/* What read() returns: any number of these, in the order of their causes */
struct uffd_msg {
	__u8	event;		/* UFFD_EVENT_* */

	__u8	reserved1;
	__u16	reserved2;
	__u32	reserved3;

	union {
		struct {
			__u64	flags;		/* UFFD_PAGEFAULT_FLAG_* */
			__u64	address;	/* of the page, or exact */
			union {
				__u32 ptid;	/* with FEATURE_THREAD_ID */
			} feat;
		} pagefault;

		struct {
			__u32	ufd;	/* the child's userfaultfd */
		} fork;

		struct {
			__u64	from;
			__u64	to;
			__u64	len;
		} remap;

		struct {		/* EVENT_REMOVE, _UNMAP and _WRITE */
			__u64	start;
			__u64	end;
		} remove;

		struct {
			__u64	reserved1;
			__u64	reserved2;
			__u64	reserved3;
		} reserved;
	} arg;
} __packed;

/* uffd_msg.event; no zero, so that a forgotten message is noticed */
#define UFFD_EVENT_PAGEFAULT	0x12
#define UFFD_EVENT_FORK		0x13
#define UFFD_EVENT_REMAP	0x14
#define UFFD_EVENT_REMOVE	0x15
#define UFFD_EVENT_UNMAP	0x16
/* With FEATURE_WP_LOG; not mainline's */
#define UFFD_EVENT_WRITE	0x20	/* first writes to protected pages */
#define UFFD_EVENT_WRITE_LOST	0x21	/* more than the log could hold */

/* uffd_msg.arg.pagefault.flags; none of the last three: the page is missing */
#define UFFD_PAGEFAULT_FLAG_WRITE	(1<<0)	/* the access was a write */
#define UFFD_PAGEFAULT_FLAG_WP		(1<<1)	/* page is write-protected */
#define UFFD_PAGEFAULT_FLAG_MINOR	(1<<2)	/* in the page cache, not mapped */
#define UFFD_PAGEFAULT_FLAG_RWP		(1<<3)	/* page is inaccessible */

struct uffdio_api {
	__u64 api;		/* in: UFFD_API */
	/*
	 * In: the features wanted, all of which the kernel must have.
	 * Out: all the features the kernel has.
	 */
#define UFFD_FEATURE_PAGEFAULT_FLAG_WP		(1<<0)	/* MODE_WP, anonymous */
#define UFFD_FEATURE_EVENT_FORK			(1<<1)	/* needs CAP_SYS_PTRACE */
#define UFFD_FEATURE_EVENT_REMAP		(1<<2)	/* mremap() */
#define UFFD_FEATURE_EVENT_REMOVE		(1<<3)	/* MADV_DONTNEED, _REMOVE, _FREE */
#define UFFD_FEATURE_MISSING_HUGETLBFS		(1<<4)	/* MODE_MISSING there */
#define UFFD_FEATURE_MISSING_SHMEM		(1<<5)	/* MODE_MISSING there */
#define UFFD_FEATURE_EVENT_UNMAP		(1<<6)	/* munmap() and its like */
#define UFFD_FEATURE_SIGBUS			(1<<7)	/* signal instead of message */
#define UFFD_FEATURE_THREAD_ID			(1<<8)	/* fill in feat.ptid */
#define UFFD_FEATURE_MINOR_HUGETLBFS		(1<<9)	/* MODE_MINOR there */
#define UFFD_FEATURE_MINOR_SHMEM		(1<<10)	/* MODE_MINOR there */
#define UFFD_FEATURE_EXACT_ADDRESS		(1<<11)	/* do not mask the address */
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM		(1<<12)	/* MODE_WP there */
#define UFFD_FEATURE_WP_UNPOPULATED		(1<<13)	/* WP of empty anonymous PTEs */
#define UFFD_FEATURE_POISON			(1<<14)	/* UFFDIO_POISON */
#define UFFD_FEATURE_WP_ASYNC			(1<<15)	/* WP faults resolve themselves */
#define UFFD_FEATURE_MOVE			(1<<16)	/* UFFDIO_MOVE */
#define UFFD_FEATURE_RWP			(1<<17)	/* MODE_RWP */
#define UFFD_FEATURE_RWP_ASYNC			(1<<18)	/* RWP faults resolve themselves */
	/* From here on what mainline does not have. */
#define UFFD_FEATURE_EXCHANGE			((__u64)1<<32)	/* UFFDIO_EXCHANGE */
#define UFFD_FEATURE_WP_LOG			((__u64)1<<33)	/* with WP_ASYNC */
#define UFFD_FEATURE_ORPHAN_SIGBUS		((__u64)1<<34)	/* SIGBUS after close */
#define UFFD_FEATURE_EVENT_NOWAIT		((__u64)1<<35)	/* but for FORK */
#define UFFD_FEATURE_WP_SET_MODE		((__u64)1<<36)	/* of WP_ASYNC too */
	__u64 features;

	__u64 ioctls;		/* out: mask of 1 << _UFFDIO_* of the descriptor */
};

struct uffdio_range {
	__u64 start;
	__u64 len;
};

/*
 * In the structures below the last field is output only: it is not read, so it
 * must stay last.
 */
struct uffdio_register {
	struct uffdio_range range;
#define UFFDIO_REGISTER_MODE_MISSING	((__u64)1<<0)
#define UFFDIO_REGISTER_MODE_WP		((__u64)1<<1)
#define UFFDIO_REGISTER_MODE_MINOR	((__u64)1<<2)
#define UFFDIO_REGISTER_MODE_RWP	((__u64)1<<3)	/* not with MODE_WP */
	__u64 mode;

	__u64 ioctls;		/* mask of 1 << _UFFDIO_* that the range takes */
};

struct uffdio_copy {
	__u64 dst;
	__u64 src;
	__u64 len;
#define UFFDIO_COPY_MODE_DONTWAKE		((__u64)1<<0)
#define UFFDIO_COPY_MODE_WP			((__u64)1<<1)	/* map write-protected */
	__u64 mode;

	__s64 copy;		/* bytes copied, or -errno */
};

struct uffdio_zeropage {
	struct uffdio_range range;
#define UFFDIO_ZEROPAGE_MODE_DONTWAKE		((__u64)1<<0)
	__u64 mode;

	__s64 zeropage;		/* bytes mapped, or -errno */
};

struct uffdio_writeprotect {
	struct uffdio_range range;
#define UFFDIO_WRITEPROTECT_MODE_WP		((__u64)1<<0)	/* else: unprotect */
#define UFFDIO_WRITEPROTECT_MODE_DONTWAKE	((__u64)1<<1)	/* only when unprotecting */
	__u64 mode;
};

struct uffdio_rwprotect {
	struct uffdio_range range;
#define UFFDIO_RWPROTECT_MODE_RWP		((__u64)1<<0)	/* else: make accessible */
#define UFFDIO_RWPROTECT_MODE_DONTWAKE		((__u64)1<<1)	/* only in that case */
	__u64 mode;
};

/*
 * Features of the descriptor that may change later on: RWP_ASYNC, and with
 * FEATURE_WP_SET_MODE also WP_ASYNC
 */
struct uffdio_set_mode {
	__u64 enable;
	__u64 disable;
};

/* The write log.  In: 0 leaves a field as it is.  Out: what is in force. */
struct uffdio_log {
	__u64 size;		/* messages it can hold */
	__u64 watermark;	/* unread messages that wake a reader */
};

struct uffdio_continue {
	struct uffdio_range range;
#define UFFDIO_CONTINUE_MODE_DONTWAKE		((__u64)1<<0)
#define UFFDIO_CONTINUE_MODE_WP			((__u64)1<<1)	/* map write-protected */
	__u64 mode;

	__s64 mapped;		/* bytes mapped, or -errno */
};

struct uffdio_poison {
	struct uffdio_range range;
#define UFFDIO_POISON_MODE_DONTWAKE		((__u64)1<<0)
	__u64 mode;

	__s64 updated;		/* bytes poisoned, or -errno */
};

struct uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
#define UFFDIO_MOVE_MODE_DONTWAKE		((__u64)1<<0)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES	((__u64)1<<1)
	__u64 mode;

	__s64 move;		/* bytes moved, or -errno */
};

/* A resolution as a part of UFFDIO_EXCHANGE: what its own ioctl is told */
struct uffdio_op {
	__u32 op;		/* _UFFDIO_COPY, _CONTINUE, ... _WAKE */
	__u32 reserved;		/* 0 */
	__u64 mode;		/* UFFDIO_*_MODE_* of that ioctl */
	__u64 dst;		/* or the start of the range */
	__u64 len;
	__u64 src;		/* of COPY and MOVE, else 0 */

	__s64 result;		/* out: bytes done, or -errno */
};

/*
 * Runs operations in order, wakes once for all of them, and returns messages as
 * read() does: their number is what the ioctl returns.
 */
struct uffdio_exchange {
	__u64 ops;		/* address of struct uffdio_op[] */
	__u64 msgs;		/* address of struct uffd_msg[] */
#define UFFDIO_EXCHANGE_MAX			1024
	__u32 nr_ops;		/* operations to run */
	__u32 nr_msgs;		/* messages that there is room for */
	/*
	 * How long to wait for the first message: nanoseconds of CLOCK_MONOTONIC,
	 * absolute; 0: not at all, negative: for ever
	 */
	__s64 deadline;
#define UFFDIO_EXCHANGE_MODE_GO_ON		((__u64)1<<0)	/* behind what fails */
	__u64 mode;
	__u32 reserved;		/* 0 */

	__u32 done;		/* out: operations that have been run */
};

#endif /* _LINUX_USERFAULTFD_H */
