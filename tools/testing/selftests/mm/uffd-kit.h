/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the userfaultfd selftests have in common: the calls, with results that
 * can be compared in one line; memory of each type; threads that get stuck in
 * a page fault on purpose; and ways to wait for something with a time limit.
 *
 * Nothing here reports to the harness. Helpers return what they found, tests
 * decide. A call that fails returns -errno.
 */
#ifndef UFFD_KIT_H
#define UFFD_KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <pthread.h>
#include <sys/types.h>
#include <linux/types.h>
#include <linux/userfaultfd.h>

/* Milliseconds: what must happen does so within the first ... */
#define UK_SOON		10000
/* ... and what must not happen is given the second to happen in. */
#define UK_PAUSE	40

/* Every kernel with this ABI offers these. */
#define UK_FEATURES	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | \
			 UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | \
			 UFFD_FEATURE_MISSING_HUGETLBFS | \
			 UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_SIGBUS | \
			 UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EXACT_ADDRESS)

/* In what kernels differ that are otherwise the same to a handler. */
#define UK_KEEPS_PROTECTION	false	/* registering again cannot drop it */
#define UK_OWNER_UNREGISTERS	false	/* and no other descriptor */
#define UK_COPY_BEYOND_SHMEM	(-EFAULT)
#define UK_CONTINUE_BEYOND_SHMEM (-EINVAL)

#define UK_BIT(nr)	((__u64)1 << (nr))
/* No process has memory there. */
#define UK_KERNEL_SPACE	((void *)(3UL << (sizeof(long) * 8 - 2)))

/* The calls. */

int uk_open(int flags);
int uk_api(int fd, __u64 features);
/* A descriptor that is ready to register memory: open and handshake. */
int uk_new(int flags, __u64 features);
/* What the kernel offers; 0 if it cannot be asked. */
__u64 uk_offered(void);

int uk_register_mode(int fd, const void *addr, size_t len, __u64 mode,
		     __u64 *ioctls);
int uk_register(int fd, const void *addr, size_t len);
int uk_unregister(int fd, const void *addr, size_t len);
int uk_wake(int fd, const void *addr, size_t len);

/* The output field starts with this, to see whether the kernel wrote it. */
#define UK_UNSET	((__s64)0x5ca1ab1e0ddba11LL)

struct uk_fill {
	int err;
	__s64 out;
};

struct uk_fill uk_copy(int fd, void *dst, const void *src, size_t len,
		       __u64 mode);
struct uk_fill uk_zero(int fd, void *dst, size_t len, __u64 mode);
struct uk_fill uk_continue(int fd, void *dst, size_t len, __u64 mode);
struct uk_fill uk_poison(int fd, void *dst, size_t len, __u64 mode);
struct uk_fill uk_move(int fd, void *dst, void *src, size_t len, __u64 mode);
int uk_protect(int fd, const void *addr, size_t len, __u64 mode);
int uk_set_mode(int fd, __u64 enable, __u64 disable);

/* A copy for a thread of its own: uk_start(&t, uk_copy_job, &job). */
struct uk_job {
	int fd;
	void *dst;
	void *src;
	size_t len;
	struct uk_fill res;
};

long uk_copy_job(void *job);

#define UK_NEEDS_ROOT	"needs root, or vm.unprivileged_userfaultfd"

/* How many messages came; fd decides whether this blocks. */
int uk_read(int fd, struct uffd_msg *msg, unsigned int count);
/* Waits (UK_SOON) for one message on a non-blocking fd: 1, or 0, or -errno. */
int uk_next(int fd, struct uffd_msg *msg);
/* What poll() says about reading, after at most ms. */
int uk_poll(int fd, int ms);

bool uk_is_fault(const struct uffd_msg *msg, const void *addr);
bool uk_is_span(const struct uffd_msg *msg, unsigned int event,
		const void *start, const void *end);
bool uk_is_remap(const struct uffd_msg *msg, const void *from, const void *to,
		 size_t len);

/* Memory. */

enum uk_kind {
	UK_ANON,		/* may use huge pages */
	UK_ANON_SMALL,
	UK_SHMEM,
	UK_SHMEM_PRIVATE,
	UK_HUGETLB,
	UK_HUGETLB_PRIVATE,
};

struct uk_mem {
	enum uk_kind kind;
	int fd;			/* the memfd, or -1 */
	size_t unit;		/* what one fault asks for */
	size_t units;
	size_t len;
	char *area;		/* between two inaccessible mappings */
};

/*
 * At least @units units, none of them populated. Returns NULL, or why this
 * type of memory is not to be had here.
 */
const char *uk_map(struct uk_mem *mem, enum uk_kind kind, unsigned int units);
/* The file behind the memory, mapped shared a second time. */
char *uk_alias(const struct uk_mem *mem);
bool uk_is_shared(const struct uk_mem *mem);
bool uk_is_hugetlb(const struct uk_mem *mem);
bool uk_is_anon(const struct uk_mem *mem);
/* Forget the content of a range, by means that cause no event. */
int uk_drop(const struct uk_mem *mem, char *addr, size_t len);
/* The same, and the file behind a private mapping forgets it too. */
int uk_vacate(const struct uk_mem *mem, char *addr, size_t len);

static inline char *uk_at(const struct uk_mem *mem, unsigned int unit)
{
	return mem->area + unit * mem->unit;
}

/* Ordinary memory, populated. */
char *uk_buffer(size_t len);
/* Address space that nobody uses: PROT_NONE, aligned to @align. */
char *uk_reserve(size_t len, size_t align);
/* A disk of this size in memory, to be read and written past the page cache. */
int uk_direct(size_t len);
/* Content that is different for each seed and each place. */
void uk_paint(void *buf, size_t len, unsigned long seed);
bool uk_painted(const void *buf, size_t len, unsigned long seed);
bool uk_all_zero(const void *buf, size_t len);

/*
 * How many pages of a range have all of these bits in /proc/self/pagemap, or
 * -errno. A page is one of the smallest kind, also in huge pages.
 */
#define UK_PM_WP	UK_BIT(57)
#define UK_PM_SWAP	UK_BIT(62)	/* or a marker */
#define UK_PM_PRESENT	UK_BIT(63)

long uk_pages(const void *addr, size_t len, __u64 bits);
/* How many pages of a range are mapped by a PMD, or -errno. */
long uk_huge(const void *addr, size_t len);
/* The size of these, and of the alignment that they need. */
size_t uk_huge_size(void);
/*
 * How many pages of a range belong to a folio of more than one page, or -errno;
 * only root may know.
 */
long uk_compound(const void *addr, size_t len);
/* A line of smaps in bytes, summed up over the mappings that meet a range. */
long uk_smaps(const void *addr, size_t len, const char *key);

/*
 * See that there is swap space for this many bytes; returns why not. What the
 * machine has is used, else a loop device over memory, until uk_swap_off() or
 * the end of the process that opened it.
 */
const char *uk_swap_on(size_t bytes);
void uk_swap_off(void);
/*
 * Swap a range out; false if some page of it is still there after UK_SOON, as
 * pages of nothing but zeros may be that were part of a huge page.
 */
bool uk_swap_out(void *addr, size_t len);

struct uk_census {
	int vmas;		/* mappings that meet the range */
	int armed;		/* of these, registered for missing pages */
	int orphans;		/* of all, registered with nobody */
};

struct uk_census uk_census(const void *addr, size_t len);

/* Threads. */

struct uk_thread {
	pthread_t id;
	pid_t tid;
	bool done;
	bool joined;
	long (*fn)(void *arg);
	void *arg;
	long ret;
};

int uk_start(struct uk_thread *t, long (*fn)(void *arg), void *arg);
bool uk_finished(struct uk_thread *t);
/* Wait for it to end and join it; false if it did not in time. */
bool uk_join(struct uk_thread *t, int ms);
/* Wait (UK_SOON) for each of several. */
bool uk_join_all(struct uk_thread *t, unsigned int n);
/* Still not finished after UK_PAUSE? */
bool uk_stays(struct uk_thread *t);
/* Wait until the thread sleeps in the kernel and goes on sleeping. */
bool uk_asleep(pid_t tid);

/*
 * The flags of the fault at an address in the memory that a thread reports on a
 * descriptor before it ends; or that there was none, or another message.
 */
#define UK_NO_FAULT	((__u64)-1)
#define UK_STRANGE	((__u64)-2)
__u64 uk_fault_flags(int fd, const struct uk_mem *mem, struct uk_thread *t,
		     const char *addr);

/* Bodies for threads: a byte read, a byte written, a system call. */
long uk_peek(void *addr);
long uk_poke(void *addr);

struct uk_call {
	long nr;
	unsigned long arg[6];
};

long uk_call(void *call);

/* Counts in the first word of each of some units, until it is stopped. */
#define UK_COUNTED	6
struct uk_counter {
	struct uk_mem *mem;
	bool stop;
	unsigned int sum[UK_COUNTED];	/* what its unit should say */
};

long uk_count_up(void *counter);

/*
 * Accesses of the kernel's to 8 bytes, or to @len where it populates. They return how
 * many, or -errno.
 */
struct uk_access {
	char *addr;
	size_t len;
	int pipe[2];
	char *out;		/* the other side of what is no pipe */
};

long uk_by_read(void *access);
long uk_by_write(void *access);
long uk_by_vmsplice(void *access);
long uk_by_vm_readv(void *access);
long uk_by_vm_writev(void *access);
long uk_by_populate(void *access);

/* Run fn and return the SIGBUS or SIGSEGV that it died of, or 0. */
int uk_catch(long (*fn)(void *arg), void *arg, void **where, int *code);

/* The numbers of fdinfo. */
struct uk_info {
	unsigned long pending;
	unsigned long total;
	unsigned long long api;
	unsigned long long features;
	unsigned long long ioctls;
};

int uk_fdinfo(int fd, struct uk_info *info);
/* Wait until fdinfo has these counts. */
bool uk_parked(int fd, unsigned int pending, unsigned int total);

/* Processes. */

/* Fork; the child runs fn, exits with what it returns, dies with its parent. */
pid_t uk_spawn(int (*fn)(void *arg), void *arg);
/*
 * The same without the C library, whose locks would be held for as long as the
 * fork waits for its event, and without the tie to the parent, which would be
 * one to the thread. The child must be content with system calls. The flags
 * are clone()'s: CLONE_FILES for one.
 */
pid_t uk_spawn_by_thread(int (*fn)(void *arg), void *arg, int flags);
/* Its exit code, or 128 + signal, or -1 if it did not end in time. */
int uk_reap(pid_t pid, int ms);
int uk_in_child(int (*fn)(void *arg), void *arg);
void uk_die(const char *file, int line, const char *what);

int uk_send_fd(int sock, int fd);
int uk_recv_fd(int sock);

bool uk_write_file(const char *path, const char *text);
/* The beginning of a small file, as a string; how much of it, or -1. */
ssize_t uk_read_text(const char *path, char *text, size_t size);
long uk_read_number(const char *path);
/* The number behind a word at the beginning of a line, or -1. */
long uk_number_of(const char *path, const char *key);
/* The choice that is in brackets, or all of the first line. */
bool uk_choice(const char *path, char *word, size_t size);
void uk_sleep(int ms);
long long uk_now(void);

#define uk_get(p)	__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define uk_set(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define uk_add(p, v)	__atomic_add_fetch((p), (v), __ATOMIC_ACQ_REL)

/* For code that runs in a child: say what is wrong, and leave. */
#define UK_CHECK(cond)							\
do {									\
	bool ok_ = (cond);						\
									\
	if (!ok_)							\
		uk_die(__FILE__, __LINE__, #cond);			\
} while (0)

#define UK_EXPECT_FILL(_err, _out, _fill)				\
do {									\
	struct uk_fill fill_ = (_fill);					\
	EXPECT_EQ(_err, fill_.err);					\
	EXPECT_EQ((__s64)(_out), fill_.out);				\
} while (0)

#define UK_ASSERT_FILL(_err, _out, _fill)				\
do {									\
	struct uk_fill fill_ = (_fill);					\
	ASSERT_EQ(_err, fill_.err);					\
	ASSERT_EQ((__s64)(_out), fill_.out);				\
} while (0)

#endif /* UFFD_KIT_H */
