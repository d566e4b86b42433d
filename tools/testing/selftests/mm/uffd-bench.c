// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-bench: what userfaultfd costs, case by case.
 *
 *	uffd-bench --list
 *	uffd-bench [--rounds N] [--repeat N] [CASE[:PARAM]...]
 *
 * Prints lines of CSV: case, parameter, value, unit. A value is the median of
 * the rounds, in nanoseconds of CLOCK_MONOTONIC for one of what the unit names.
 * In a guest that QEMU runs with "-icount shift=0,sleep=off" a nanosecond is an
 * instruction that some CPU of the guest has retired.
 *
 * This compiles with the headers of mainline and runs on any kernel; what a kernel
 * lacks is skipped, or done as mainline does it. Each case has a process to itself,
 * which is just ended when the numbers are there: threads blocked for good need not be freed.
 *
 * No thread is bound to a CPU, unless said so: where the scheduler puts the
 * handler is part of what a fault costs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>

/* What mainline has not: Documentation/admin-guide/mm/userfaultfd.rst. */
#ifndef UFFDIO_EXCHANGE
#define UFFD_FEATURE_EXCHANGE	((__u64)1 << 32)

struct uffdio_op {
	__u32 op;
	__u32 reserved;
	__u64 mode;
	__u64 dst;
	__u64 len;
	__u64 src;
	__s64 result;
};

struct uffdio_exchange {
	__u64 ops;
	__u64 msgs;
	__u32 nr_ops;
	__u32 nr_msgs;
	__s64 deadline;
	__u64 mode;
	__u32 reserved;
	__u32 done;
};

#define UFFDIO_EXCHANGE		_IOWR(UFFDIO, 0x30, struct uffdio_exchange)
#endif

#define EXIT_SKIP	4	/* as in kselftest.h */
#define MAX_ROUNDS	1001
/* Seconds for one case, hung or not. */
#define LIMIT		600

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define MIB		(HUGE / 2)

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* Say what and why, and end the process that runs a case. */
#define leave(status, how, ...)						\
do {									\
	int err_ = errno;						\
									\
	fflush(stdout);							\
	fprintf(stderr, "# " how ": " __VA_ARGS__);			\
	fprintf(stderr, ": %s\n", strerror(err_));			\
	_exit(status);							\
} while (0)

#define die(...)	leave(1, "failed", __VA_ARGS__)
#define skip(...)	leave(EXIT_SKIP, "skipped", __VA_ARGS__)

struct bench {
	const char *name;
	const char *params;	/* what it is run with by default */
	const char *unit;
	void (*setup)(void);
	/* Nanoseconds per unit. The first round is not counted. */
	double (*round)(void);
	const char *what;
};

/* All that a case has: it is alone in its process. */
static struct {
	const char *param;
	size_t n;		/* the parameter, if it is a number */
	int fd;			/* the userfaultfd */
	int file;		/* a memfd */
	int pipe[2][2];
	char *area;
	size_t len;
	char *alias;		/* the file's pages by another address */
	char *src;
	__u64 mode;		/* what the area is registered for */
	void (*resolve)(const struct uffd_msg *msg);
	__u32 op;		/* what UFFDIO_EXCHANGE does for a fault */
	unsigned int threads;
	size_t each;		/* faults for each thread */
	pthread_barrier_t barrier;
	int pagemap;
	int clear_refs;
	size_t told;		/* pages that events have been about */
	clockid_t clock;	/* of the handler's CPU time */
} w;

static double read_clock(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts))
		die("clock_gettime");
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

/*
 * What is measured is what happens between these two. Whoever traces a run can
 * look for their names, if they have not been inlined.
 */
static double now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

static double since(double start)
{
	return read_clock(CLOCK_MONOTONIC) - start;
}

static bool param_is(const char *text)
{
	return !strcmp(w.param, text);
}

static void touch(char *p)
{
	__atomic_store_n(p, 1, __ATOMIC_RELAXED);
}

/* Memory. */

/* Address space at a multiple of 2 MiB, with unused pages around it. */
static char *reserve(size_t len)
{
	char *p, *start;

	p = mmap(NULL, len + 2 * HUGE, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	start = (char *)(((uintptr_t)p + 2 * HUGE - 1) & ~(HUGE - 1));
	return start;
}

static char *map_at(char *addr, size_t len, int file)
{
	int flags = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	char *p;

	p = mmap(addr, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, 0);
	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static void advise(char *p, size_t len, int advice)
{
	if (madvise(p, len, advice))
		die("madvise");
}

/* Huge pages where they are allowed by the system, or only small ones. */
static void allow_huge(char *p, size_t len, bool yes)
{
	/* EINVAL: a kernel without huge pages. */
	if (madvise(p, len, yes ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) &&
	    (errno != EINVAL || yes))
		skip("huge pages");
}

/* Private memory in small pages. */
static char *map_small(size_t len)
{
	char *p = map_at(reserve(len), len, -1);

	allow_huge(p, len, false);
	return p;
}

static void populate(char *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += PAGE)
		touch(p + i);
}

static char *new_source(size_t len)
{
	char *p = map_small(len);

	memset(p, 's', len);
	return p;
}

/* A file in memory of small pages, all there, mapped at w.alias. */
static void new_file(size_t len)
{
	w.file = memfd_create("uffd-bench", MFD_CLOEXEC);
	if (w.file < 0 || ftruncate(w.file, len))
		die("memfd");
	w.alias = map_at(reserve(len), len, w.file);
	allow_huge(w.alias, len, false);
	populate(w.alias, len);
}

/* userfaultfd. */

static void new_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	w.fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	/* Without privilege: no case needs the kernel's own faults. */
	if (w.fd < 0 && errno == EPERM)
		w.fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (w.fd < 0)
		skip("userfaultfd");
	if (ioctl(w.fd, UFFDIO_API, &api))
		skip("UFFDIO_API with features 0x%llx", features);
}

/* What headers of mainline do not have. */
#define WP_LOG		(1ULL << 33)
#define EVENT_NOWAIT	(1ULL << 35)

static bool offers(__u64 feature)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	bool yes;

	if (fd < 0)
		skip("userfaultfd");
	yes = !ioctl(fd, UFFDIO_API, &api) && (api.features & feature);
	close(fd);
	return yes;
}

static int try_register(char *p, size_t len, __u64 mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p, .len = len },
		.mode = mode,
	};

	return ioctl(w.fd, UFFDIO_REGISTER, &reg);
}

static void uffd_register(char *p, size_t len, __u64 mode)
{
	if (try_register(p, len, mode))
		skip("UFFDIO_REGISTER for mode %llu", mode);
}

static void uffd_unregister(char *p, size_t len)
{
	struct uffdio_range range = { .start = (uintptr_t)p, .len = len };

	if (ioctl(w.fd, UFFDIO_UNREGISTER, &range))
		die("UFFDIO_UNREGISTER");
}

static void uffd_copy(char *dst, size_t len)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)w.src,
		.len = len,
	};

	if (ioctl(w.fd, UFFDIO_COPY, &copy) || copy.copy != (__s64)len)
		die("UFFDIO_COPY");
}

static void uffd_continue(char *p, size_t len)
{
	struct uffdio_continue cont = {
		.range = { .start = (uintptr_t)p, .len = len },
	};

	if (ioctl(w.fd, UFFDIO_CONTINUE, &cont) || cont.mapped != (__s64)len)
		die("UFFDIO_CONTINUE");
}

static void uffd_protect(char *p, size_t len, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)p, .len = len },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	if (ioctl(w.fd, UFFDIO_WRITEPROTECT, &wp))
		die("UFFDIO_WRITEPROTECT");
}

static void uffd_wake(char *p, size_t len)
{
	struct uffdio_range range = { .start = (uintptr_t)p, .len = len };

	if (ioctl(w.fd, UFFDIO_WAKE, &range))
		die("UFFDIO_WAKE");
}

/*
 * The same addresses anew: not even a page table is there. What is registered
 * for is up to w.mode.
 */
static void renew(bool huge)
{
	w.area = map_at(w.area, w.len, w.mode & UFFDIO_REGISTER_MODE_MINOR ?
				       w.file : -1);
	allow_huge(w.area, w.len, huge);
	uffd_register(w.area, w.len, w.mode);
}

/* Threads. */

static void start_thread(void *(*fn)(void *), void *arg)
{
	pthread_t id;

	errno = pthread_create(&id, NULL, fn, arg);
	if (errno)
		die("pthread_create");
	pthread_detach(id);
}

/* Many of them, with stacks as small as can be, all in one mapping. */
static void start_crowd(void *(*fn)(void *), unsigned int count)
{
	const size_t size = 16 * PAGE;
	/* One more: there may be none to start. */
	char *stacks = map_small((count + 1) * size);
	pthread_attr_t attr;
	pthread_t id;
	size_t i;

	pthread_attr_init(&attr);
	for (i = 0; i < count; i++) {
		errno = pthread_attr_setstack(&attr, stacks + i * size, size);
		if (errno)
			die("pthread_attr_setstack");
		errno = pthread_create(&id, &attr, fn, (void *)i);
		if (errno)
			skip("%zu threads", i + 1);
		pthread_detach(id);
	}
}

/* On one CPU: threads inherit where they may run. */
static void stay_here(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		die("sched_setaffinity");
}

static char *fault_page(const struct uffd_msg *msg)
{
	if (msg->event != UFFD_EVENT_PAGEFAULT)
		die("event %d", msg->event);
	return (char *)(uintptr_t)(msg->arg.pagefault.address & ~(PAGE - 1));
}

static void resolve_copy(const struct uffd_msg *msg)
{
	uffd_copy(fault_page(msg), PAGE);
}

static void resolve_continue(const struct uffd_msg *msg)
{
	uffd_continue(fault_page(msg), PAGE);
}

static void resolve_protect(const struct uffd_msg *msg)
{
	uffd_protect(fault_page(msg), PAGE, false);
}

/* The simplest handler: blocks in read(), one message, one call. */
static void *reader(void *unused)
{
	struct uffd_msg msg;

	for (;;) {
		if (read(w.fd, &msg, sizeof(msg)) != sizeof(msg))
			die("read");
		w.resolve(&msg);
	}
	return unused;
}

static void start_readers(unsigned int count)
{
	while (count--)
		start_thread(reader, NULL);
	/* Let them get to where they block. */
	usleep(20000);
}

/*
 * The same by UFFDIO_EXCHANGE: what has come is resolved, and what is next waited for,
 * in one call.
 */
#define EXCHANGED	16

static void exchange(struct uffdio_exchange *call, const struct uffdio_op *ops)
{
	int got = ioctl(w.fd, UFFDIO_EXCHANGE, call);
	unsigned int i;

	if (got < 0 || call->done != call->nr_ops)
		die("UFFDIO_EXCHANGE: %u of %u", call->done, call->nr_ops);
	for (i = 0; i < call->done; i++) {
		errno = -ops[i].result;
		if (ops[i].result != (__s64)ops[i].len)
			die("operation %u of UFFDIO_EXCHANGE", i);
	}
	call->nr_ops = got;
}

static void fill_in(struct uffdio_op *op, char *dst)
{
	*op = (struct uffdio_op){
		.op = w.op,
		.dst = (uintptr_t)dst,
		.len = PAGE,
		.src = w.op == _UFFDIO_COPY ? (uintptr_t)w.src : 0,
	};
}

static void *exchanger(void *unused)
{
	struct uffd_msg msgs[EXCHANGED];
	struct uffdio_op ops[EXCHANGED];
	struct uffdio_exchange call = {
		.ops = (uintptr_t)ops,
		.msgs = (uintptr_t)msgs,
		.nr_msgs = EXCHANGED,
		.deadline = -1,
	};
	unsigned int i;

	for (;;) {
		exchange(&call, ops);
		for (i = 0; i < call.nr_ops; i++)
			fill_in(&ops[i], fault_page(&msgs[i]));
	}
	return unused;
}

static void start_exchangers(unsigned int count)
{
	while (count--)
		start_thread(exchanger, NULL);
	usleep(20000);
}

/* Write to each page of the area, in order: so many faults. */
static double touch_area(void)
{
	double start = now();

	populate(w.area, w.len);
	return since(start) / (w.len / PAGE);
}

/*
 * fault-missing: private memory, small pages. From before the first to after the
 * last of 512 writes, each of which finds no page, blocks this thread, has one
 * of the blocked readers, as many as the parameter says, read its message and
 * COPY a page, and goes on; divided by 512. The page tables are there already.
 */
static void setup_missing(void)
{
	new_uffd(0);
	w.len = 2 * MIB;
	w.area = map_small(w.len);
	w.src = new_source(PAGE);
	w.resolve = resolve_copy;
	uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_MISSING);
	start_readers(w.n);
}

static double round_dropped(void)
{
	advise(w.area, w.len, MADV_DONTNEED);
	return touch_area();
}

/*
 * fault-minor: the same with a shared file in memory. Its pages are in the page
 * cache, but not mapped here; the reader's call is CONTINUE.
 */
static void setup_minor(void)
{
	new_uffd(0);
	w.len = 2 * MIB;
	new_file(w.len);
	w.area = map_at(reserve(w.len), w.len, w.file);
	w.resolve = resolve_continue;
	uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_MINOR);
	start_readers(1);
}

/*
 * fault-wp: the same with pages that are there and write-protected; the
 * reader's call is WRITEPROTECT, which takes the protection off one page.
 */
static void setup_wp(void)
{
	new_uffd(0);
	w.len = 2 * MIB;
	w.area = map_small(w.len);
	populate(w.area, w.len);
	w.resolve = resolve_protect;
	uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_WP);
	start_readers(1);
}

static double round_wp(void)
{
	uffd_protect(w.area, w.len, true);
	return touch_area();
}

/*
 * fault-exchange: fault-missing, fault-minor and fault-wp with a handler that makes one
 * system call for each fault instead of two.
 */
static void setup_fault_exchange(void)
{
	new_uffd(UFFD_FEATURE_EXCHANGE);
	w.len = 2 * MIB;
	if (param_is("minor")) {
		w.op = _UFFDIO_CONTINUE;
		w.mode = UFFDIO_REGISTER_MODE_MINOR;
		new_file(w.len);
		w.area = map_at(reserve(w.len), w.len, w.file);
	} else if (param_is("missing")) {
		w.op = _UFFDIO_COPY;
		w.mode = UFFDIO_REGISTER_MODE_MISSING;
		w.area = map_small(w.len);
		w.src = new_source(PAGE);
	} else if (param_is("wp")) {
		w.op = _UFFDIO_WRITEPROTECT;
		w.mode = UFFDIO_REGISTER_MODE_WP;
		w.area = map_small(w.len);
		populate(w.area, w.len);
	} else {
		die("no fault called %s", w.param);
	}
	uffd_register(w.area, w.len, w.mode);
	start_exchangers(1);
}

static double round_fault_exchange(void)
{
	return param_is("wp") ? round_wp() : round_dropped();
}

/*
 * fault-huge: private memory that may use huge pages, of which nothing is
 * there, no page table either. From before the first to after the last of 64
 * writes, one in each 2 MiB, each of them served with a COPY of 4 KiB by a
 * blocked reader; divided by 64. fault-first is the same, but for small pages.
 */
static void setup_first(void)
{
	new_uffd(0);
	w.len = 64 * HUGE;
	w.area = reserve(w.len);
	w.src = new_source(PAGE);
	w.mode = UFFDIO_REGISTER_MODE_MISSING;
	w.resolve = resolve_copy;
	start_readers(1);
}

static double touch_stripes(void)
{
	double start = now();
	size_t i;

	for (i = 0; i < w.len; i += HUGE)
		touch(w.area + i);
	return since(start) / (w.len / HUGE);
}

static double round_huge(void)
{
	renew(true);
	return touch_stripes();
}

static double round_first(void)
{
	renew(false);
	return touch_stripes();
}

/*
 * storm: threads that write to missing pages, each to its own, and readers that
 * COPY. From the first thread's first write to the last thread's last, divided
 * by the number of all writes. The parameter is threads/readers.
 */
struct span {
	pthread_t id;
	size_t nr;
	double start;
	double end;
};

static void map_storm(unsigned int threads, __u64 features)
{
	w.threads = threads;
	new_uffd(features);
	w.each = w.threads > 32 ? 64 : 2048 / w.threads;
	if (w.each > 512)
		w.each = 512;
	w.len = w.threads * w.each * PAGE;
	w.area = map_small(w.len);
	w.src = new_source(PAGE);
	uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_MISSING);
}

/* Returns the number of readers. */
static unsigned int map_storm_param(__u64 features)
{
	unsigned int threads, readers;

	errno = EINVAL;
	if (sscanf(w.param, "%u/%u", &threads, &readers) != 2 || !threads)
		die("%s is not THREADS/READERS", w.param);
	map_storm(threads, features);
	return readers;
}

static void setup_storm(void)
{
	w.resolve = resolve_copy;
	start_readers(map_storm_param(0));
}

/* The same by UFFDIO_EXCHANGE. */
static void setup_storm_exchange(void)
{
	w.op = _UFFDIO_COPY;
	start_exchangers(map_storm_param(UFFD_FEATURE_EXCHANGE));
}

static void *storm_thread(void *arg)
{
	struct span *span = arg;
	char *p = w.area + span->nr * w.each * PAGE;

	pthread_barrier_wait(&w.barrier);
	span->start = now();
	populate(p, w.each * PAGE);
	span->end = span->start + since(span->start);
	return NULL;
}

static double round_storm(void)
{
	struct span span[w.threads];
	double start, end;
	size_t i;

	advise(w.area, w.len, MADV_DONTNEED);
	pthread_barrier_init(&w.barrier, NULL, w.threads);
	for (i = 0; i < w.threads; i++) {
		span[i].nr = i;
		errno = pthread_create(&span[i].id, NULL, storm_thread, &span[i]);
		if (errno)
			die("pthread_create");
	}
	for (i = 0; i < w.threads; i++)
		pthread_join(span[i].id, NULL);
	pthread_barrier_destroy(&w.barrier);
	start = span[0].start;
	end = span[0].end;
	for (i = 1; i < w.threads; i++) {
		if (span[i].start < start)
			start = span[i].start;
		if (span[i].end > end)
			end = span[i].end;
	}
	return (end - start) / (w.threads * w.each);
}

/*
 * handler: the CPU time that one handler takes for each fault of a storm of four
 * threads; what these take is not counted. "poll" has the shape of QEMU's: poll() for
 * the descriptor and for another one, by which it is told to leave; read() of one
 * message; COPY of a page. "exchange" does all by that call (and would be told to
 * leave by a signal). They are on one CPU: with icount a CPU's clock goes on while
 * another one runs.
 */
static void *poller(void *unused)
{
	struct pollfd fds[] = {
		{ .fd = w.fd, .events = POLLIN },
		{ .fd = w.pipe[0][0], .events = POLLIN },
	};
	struct uffd_msg msg;

	errno = pthread_getcpuclockid(pthread_self(), &w.clock);
	if (errno || fcntl(w.fd, F_SETFL, O_NONBLOCK))
		die("poller");
	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) != 1)
			die("poll");
		if (read(w.fd, &msg, sizeof(msg)) == sizeof(msg))
			resolve_copy(&msg);
		else if (errno != EAGAIN)
			die("read");
	}
	return unused;
}

static void *timed_exchanger(void *unused)
{
	errno = pthread_getcpuclockid(pthread_self(), &w.clock);
	if (errno)
		die("pthread_getcpuclockid");
	return exchanger(unused);
}

static void setup_handler(void)
{
	bool poll = param_is("poll");

	stay_here();
	if (pipe(w.pipe[0]))
		die("pipe");
	w.op = _UFFDIO_COPY;
	map_storm(4, poll ? 0 : UFFD_FEATURE_EXCHANGE);
	start_thread(poll ? poller : timed_exchanger, NULL);
	usleep(20000);
}

static double round_handler(void)
{
	double start = read_clock(w.clock);

	round_storm();
	return (read_clock(w.clock) - start) / (w.threads * w.each);
}

/*
 * wake: so many threads are blocked, each on a page of its own, every second
 * one, and their messages have been read. From before the first to after the
 * last of 1,024 calls that wake a page between theirs, where nobody waits;
 * divided by 1,024.
 */
static void *blocked_thread(void *nr)
{
	for (;;)
		touch(w.area + 2 * (size_t)nr * PAGE);
	return NULL;
}

static void setup_blocked(size_t count)
{
	new_uffd(0);
	w.threads = count;
	w.len = 2 * (count + 1) * PAGE;
	w.area = map_small(w.len);
	uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_MISSING);
	start_crowd(blocked_thread, count);
}

static void read_all(unsigned int at_once)
{
	struct uffd_msg msg[at_once];
	ssize_t len;
	size_t got;

	for (got = 0; got < w.threads; got += len / sizeof(msg[0])) {
		len = read(w.fd, msg, sizeof(msg));
		if (len <= 0)
			die("read");
	}
}

static void setup_wake(void)
{
	setup_blocked(w.n);
	read_all(16);
	/* A message may be read before its thread sleeps. */
	usleep(20000);
}

static double round_wake(void)
{
	char *between = w.area + (2 * (w.threads / 2) + 1) * PAGE;
	const int calls = 1024;
	double start = now();
	int i;

	for (i = 0; i < calls; i++)
		uffd_wake(between, PAGE);
	return since(start) / calls;
}

/*
 * read: 1,024 threads are blocked and none of their messages has been read.
 * From before the first to after the last of the calls that read all of them,
 * as many at a time as the parameter says; divided by 1,024.
 */
static void setup_read(void)
{
	setup_blocked(1024);
}

static void await_pending(unsigned int count)
{
	unsigned int pending = 0;
	char path[64], line[128];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", w.fd);
	while (pending != count) {
		usleep(5000);
		file = fopen(path, "r");
		if (!file)
			die("%s", path);
		while (fgets(line, sizeof(line), file))
			sscanf(line, "pending: %u", &pending);
		fclose(file);
	}
}

static double round_read(void)
{
	double start, cost;

	await_pending(w.threads);
	start = now();
	read_all(w.n);
	cost = since(start);
	/* They fault again, and this is a new message for each. */
	uffd_wake(w.area, w.len);
	return cost / w.threads;
}

/*
 * copy: from before the first to after the last COPY into 16 MiB of private
 * memory, small pages, as many bytes a call as the parameter says; divided by
 * 4,096, the number of pages. Not even the page tables are there before.
 */
static void setup_fill(__u64 mode)
{
	errno = EINVAL;
	if (!w.n || w.n % PAGE || w.n > 16 * MIB || 16 * MIB % w.n)
		die("bytes a call: %s", w.param);
	new_uffd(0);
	w.len = 16 * MIB;
	w.area = reserve(w.len);
	w.mode = mode;
}

static void setup_copy(void)
{
	setup_fill(UFFDIO_REGISTER_MODE_MISSING);
	/*
	 * Not aligned as the destination is: in an emulator, page i of the one
	 * and of the other could keep throwing each other out of its TLB.
	 */
	w.src = new_source(w.n + 64 * PAGE) + 37 * PAGE;
}

static double fill_area(void (*fill)(char *, size_t))
{
	double start = now();
	size_t i;

	for (i = 0; i < w.len; i += w.n)
		fill(w.area + i, w.n);
	return since(start) / (w.len / PAGE);
}

static double round_copy(void)
{
	renew(false);
	return fill_area(uffd_copy);
}

/*
 * copy-huge: the same where huge pages are allowed. A page is one of 4 KiB here
 * as well.
 */
static double round_copy_huge(void)
{
	renew(true);
	return fill_area(uffd_copy);
}

/*
 * continue: the same with a shared file in memory, its pages small and in the
 * page cache, and CONTINUE.
 */
static void setup_continue(void)
{
	setup_fill(UFFDIO_REGISTER_MODE_MINOR);
	new_file(w.len);
}

static double round_continue(void)
{
	renew(false);
	return fill_area(uffd_continue);
}

/*
 * move: the same, with MOVE from 16 MiB of private memory in small pages, all
 * of them there.
 */
#ifdef UFFDIO_MOVE
static void setup_move(void)
{
	setup_fill(UFFDIO_REGISTER_MODE_MISSING);
	w.src = map_small(w.len);
}

static void uffd_move(char *dst, size_t len)
{
	struct uffdio_move move = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)w.src + (dst - w.area),
		.len = len,
	};

	if (ioctl(w.fd, UFFDIO_MOVE, &move)) {
		if (errno == EINVAL)
			skip("UFFDIO_MOVE");
		die("UFFDIO_MOVE");
	}
}

static double round_move(void)
{
	renew(false);
	populate(w.src, w.len);
	return fill_area(uffd_move);
}
#else
static void setup_move(void)
{
	errno = EOPNOTSUPP;
	skip("the headers have no UFFDIO_MOVE");
}

static double round_move(void)
{
	return 0;
}
#endif

/*
 * protect, unprotect: one WRITEPROTECT over 256 MiB of private memory, small
 * pages, all there; divided by the number of pages. unprotect takes off what
 * protect has put on.
 */
static void setup_protect(void)
{
	new_uffd(0);
	w.len = 256 * MIB;
	w.area = map_small(w.len);
	populate(w.area, w.len);
	uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_WP);
}

static double protect_area(bool on)
{
	double start = now();

	uffd_protect(w.area, w.len, on);
	return since(start) / (w.len / PAGE);
}

static double round_protect(void)
{
	uffd_protect(w.area, w.len, false);
	return protect_area(true);
}

static double round_unprotect(void)
{
	uffd_protect(w.area, w.len, true);
	return protect_area(false);
}

/*
 * register, unregister: from before the first to after the last of as many
 * calls as there are mappings, 128, each of 16 pages, apart from one another;
 * divided by 128. "whole": each as it is; "part": the inner half of each, so
 * that a mapping is cut in three and becomes one again.
 */
#define VMAS	128UL
#define VMA_LEN	(16 * PAGE)

static void setup_register(void)
{
	size_t i;

	new_uffd(0);
	w.area = reserve(2 * VMAS * VMA_LEN);
	for (i = 0; i < VMAS; i++)
		map_at(w.area + 2 * i * VMA_LEN, VMA_LEN, -1);
}

static double each_mapping(bool on)
{
	size_t off = param_is("part") ? VMA_LEN / 4 : 0, i;
	double start = now();
	char *p;

	for (i = 0; i < VMAS; i++) {
		p = w.area + 2 * i * VMA_LEN + off;
		if (on)
			uffd_register(p, VMA_LEN - 2 * off,
				      UFFDIO_REGISTER_MODE_MISSING);
		else
			uffd_unregister(p, VMA_LEN - 2 * off);
	}
	return since(start) / VMAS;
}

static double round_register(void)
{
	double cost = each_mapping(true);

	each_mapping(false);
	return cost;
}

static double round_unregister(void)
{
	each_mapping(true);
	return each_mapping(false);
}

/*
 * Memory that userfaultfd has nothing to do with must not pay for it.
 *
 * fault-plain: from before the first to after the last of 4,096 writes, each to
 * a missing page of private memory ("anon"), or to one that is in the page
 * cache of a file in memory ("shmem"); divided by 4,096.
 */
static void setup_plain(void)
{
	w.len = 16 * MIB;
	if (param_is("shmem")) {
		new_file(w.len);
		w.area = map_at(reserve(w.len), w.len, w.file);
	} else {
		w.area = map_small(w.len);
	}
}

/*
 * fork: one fork() of a process with 64 MiB of private memory, small pages, all
 * there, from before the call until it has returned in the parent; the child
 * blocks until then. "plain", "missing" and "wp" say what the memory is
 * registered for. munmap: one munmap() of 16 MiB of such memory, divided by the
 * number of pages.
 */
static void setup_memory(size_t len)
{
	w.len = len;
	w.area = map_small(w.len);
	if (!param_is("plain")) {
		w.mode = param_is("wp") ? UFFDIO_REGISTER_MODE_WP :
					  UFFDIO_REGISTER_MODE_MISSING;
		new_uffd(0);
	}
}

static void occupy(void)
{
	populate(w.area, w.len);
	if (w.mode)
		uffd_register(w.area, w.len, w.mode);
}

static void setup_fork(void)
{
	if (pipe(w.pipe[0]))
		die("pipe");
	setup_memory(64 * MIB);
	occupy();
}

static double round_fork(void)
{
	double start, cost;
	char c = 0;
	int status;
	pid_t pid;

	start = now();
	pid = fork();
	if (!pid)
		_exit(read(w.pipe[0][0], &c, 1) != 1);
	cost = since(start);
	if (pid < 0 || write(w.pipe[0][1], &c, 1) != 1 ||
	    waitpid(pid, &status, 0) != pid || status)
		die("fork");
	return cost;
}

static void setup_munmap(void)
{
	setup_memory(16 * MIB);
}

static double round_munmap(void)
{
	double start;

	map_at(w.area, w.len, -1);
	allow_huge(w.area, w.len, false);
	occupy();
	start = now();
	if (munmap(w.area, w.len))
		die("munmap");
	return since(start) / (w.len / PAGE);
}

/*
 * balloon: from before the first to after the last madvise() of a thread that drops
 * 20,000 single pages, while another reads of it, up to 64 messages at a time; divided
 * by 20,000. The pages are there, and do not touch the one before, but for "next".
 * "wait" is what mainline has; the others ask for events that nobody waits for, where
 * there are such, and then the reader lets them gather for a millisecond. "plain" is
 * not registered.
 */
#define BALLOON		20000UL

static void *balloon_reader(void *unused)
{
	struct uffd_msg msg[64];
	size_t pages;
	ssize_t len;
	int i;

	for (;;) {
		len = read(w.fd, msg, sizeof(msg));
		if (len <= 0)
			die("read");
		pages = 0;
		for (i = 0; i < (int)(len / sizeof(msg[0])); i++)
			pages += (msg[i].arg.remove.end -
				  msg[i].arg.remove.start) / PAGE;
		__atomic_add_fetch(&w.told, pages, __ATOMIC_RELEASE);
		if (len < (ssize_t)sizeof(msg) && w.mode & EVENT_NOWAIT)
			usleep(1000);
	}
	return unused;
}

static void setup_balloon(void)
{
	__u64 nowait = param_is("wait") || !offers(EVENT_NOWAIT) ? 0 : EVENT_NOWAIT;

	w.mode = nowait;
	new_uffd(UFFD_FEATURE_EVENT_REMOVE | nowait);
	w.len = BALLOON * PAGE;
	w.area = map_small(w.len);
	w.src = new_source(MIB);
	if (param_is("plain"))
		return;
	uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_MISSING);
	start_thread(balloon_reader, NULL);
}

static double round_balloon(void)
{
	/* No divisor of the number of pages, and far enough away. */
	size_t step = param_is("next") ? 1 : 7919;
	size_t i, len, page = 0;
	double start, cost;

	for (i = 0; i < w.len; i += len) {
		len = w.len - i < MIB ? w.len - i : MIB;
		if (param_is("plain"))
			populate(w.area + i, len);
		else
			uffd_copy(w.area + i, len);
	}
	w.told = 0;
	start = now();
	for (i = 0; i < BALLOON; i++) {
		advise(w.area + page * PAGE, PAGE, MADV_DONTNEED);
		page = (page + step) % BALLOON;
	}
	cost = since(start);
	/* The next one fills it again, which unread events would refuse. */
	while (!param_is("plain") &&
	       __atomic_load_n(&w.told, __ATOMIC_ACQUIRE) != BALLOON)
		usleep(1000);
	return cost / BALLOON;
}

/*
 * What can be had without userfaultfd.
 *
 * segv-missing: as fault-missing, with memory that is not accessible and a
 * handler of SIGSEGV that makes one page of it so and fills it. (Another thread
 * can see the page before it is filled, and a system call that meets such a
 * page fails: this is cheaper than what it stands for.) segv-wp: as fault-wp,
 * with memory that is not writable and a handler that makes a page so.
 */
static void on_segv(int sig, siginfo_t *info, void *context)
{
	char *page = (char *)((uintptr_t)info->si_addr & ~(PAGE - 1));

	if (page < w.area || page >= w.area + w.len ||
	    mprotect(page, PAGE, PROT_READ | PROT_WRITE)) {
		signal(sig, SIG_DFL);
		return;
	}
	if (w.src)
		memcpy(page, w.src, PAGE);
	(void)context;
}

static void catch_segv(void)
{
	struct sigaction action = {
		.sa_sigaction = on_segv,
		.sa_flags = SA_SIGINFO,
	};

	if (sigaction(SIGSEGV, &action, NULL))
		die("sigaction");
}

static void protect_by_mm(int prot)
{
	if (mprotect(w.area, w.len, prot))
		die("mprotect");
}

static void setup_segv_missing(void)
{
	w.len = 2 * MIB;
	w.area = map_small(w.len);
	w.src = new_source(PAGE);
	catch_segv();
}

static double round_segv_missing(void)
{
	advise(w.area, w.len, MADV_DONTNEED);
	protect_by_mm(PROT_NONE);
	return touch_area();
}

static void setup_segv_wp(void)
{
	w.len = 2 * MIB;
	w.area = map_small(w.len);
	populate(w.area, w.len);
	catch_segv();
}

static double round_segv_wp(void)
{
	protect_by_mm(PROT_READ);
	return touch_area();
}

/*
 * Which pages have been written to? 64 MiB of private memory, small pages, all
 * there; 256 of them, every 64th, are written to.
 *
 * dirty-write: the writes, divided by 256. dirty-collect: finding out, and
 * making ready for the next time; divided by the number of all pages, 16,384.
 *
 *	async	UFFD_FEATURE_WP_ASYNC; PAGEMAP_SCAN finds and protects
 *	sync	write protection and a reader; WRITEPROTECT of everything
 *	soft	soft-dirty bits; PAGEMAP_SCAN finds, clear_refs clears
 *	segv	mprotect() and SIGSEGV; mprotect() of everything
 */
#define DIRTY_STEP	(64 * PAGE)

/* Returns how many pages were found. */
static size_t scan(__u64 category, __u64 flags)
{
	static struct page_region found[1024];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = flags,
		.start = (uintptr_t)w.area,
		.end = (uintptr_t)w.area + w.len,
		.vec = (uintptr_t)found,
		.vec_len = ARRAY_SIZE(found),
		.category_mask = category,
		.return_mask = category,
	};
	long count = ioctl(w.pagemap, PAGEMAP_SCAN, &arg);

	if (count < 0)
		skip("PAGEMAP_SCAN");
	return count;
}

static size_t collect_soft(void)
{
	size_t count = scan(PAGE_IS_SOFT_DIRTY, 0);

	if (write(w.clear_refs, "4", 1) != 1)
		die("clear_refs");
	return count;
}

/* As many as there must be: read() would wait for more. */
static size_t collect_log(size_t dirty)
{
	struct uffd_msg msg[64];
	size_t found = 0;
	ssize_t len;
	char *p;
	int i;

	while (found < dirty) {
		len = read(w.fd, msg, sizeof(msg));
		if (len <= 0)
			die("read");
		for (i = 0; i < (int)(len / sizeof(msg[0])); i++) {
			p = (char *)(uintptr_t)msg[i].arg.remove.start;
			uffd_protect(p, msg[i].arg.remove.end -
					msg[i].arg.remove.start, true);
			found++;
		}
	}
	return found;
}

static void setup_dirty(void)
{
	w.len = 64 * MIB;
	w.area = map_small(w.len);
	populate(w.area, w.len);
	w.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (w.pagemap < 0)
		skip("/proc/self/pagemap");
	if (param_is("async") || param_is("log")) {
		new_uffd(UFFD_FEATURE_WP_ASYNC |
			 (param_is("log") ? WP_LOG : 0));
		uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_WP);
		uffd_protect(w.area, w.len, true);
	} else if (param_is("sync")) {
		new_uffd(0);
		uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_WP);
		w.resolve = resolve_protect;
		uffd_protect(w.area, w.len, true);
		start_readers(1);
	} else if (param_is("soft")) {
		w.clear_refs = open("/proc/self/clear_refs",
				    O_WRONLY | O_CLOEXEC);
		if (w.clear_refs < 0)
			skip("clear_refs");
		collect_soft();
		touch(w.area);
		errno = EOPNOTSUPP;
		if (collect_soft() != 1)
			skip("soft-dirty bits");
	} else if (param_is("segv")) {
		catch_segv();
		protect_by_mm(PROT_READ);
	} else {
		die("no way to find out called %s", w.param);
	}
}

static double collect(void)
{
	const size_t dirty = w.len / DIRTY_STEP;
	size_t found = dirty;
	double start = now(), cost;

	if (param_is("async"))
		found = scan(PAGE_IS_WRITTEN,
			     PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC);
	else if (param_is("log"))
		found = collect_log(dirty);
	else if (param_is("soft"))
		found = collect_soft();
	else if (param_is("sync"))
		uffd_protect(w.area, w.len, true);
	else
		protect_by_mm(PROT_READ);
	cost = since(start) / (w.len / PAGE);
	if (found != dirty) {
		errno = ERANGE;
		die("found %zu of %zu pages", found, dirty);
	}
	return cost;
}

static double make_dirty(void)
{
	double start = now();
	size_t i;

	for (i = 0; i < w.len; i += DIRTY_STEP)
		touch(w.area + i);
	return since(start) / (w.len / DIRTY_STEP);
}

static double round_dirty_write(void)
{
	double cost = make_dirty();

	collect();
	return cost;
}

static double round_dirty_collect(void)
{
	make_dirty();
	return collect();
}

/*
 * exchange: no faults; 64 operations of one page each, every other page of 128, in one
 * UFFDIO_EXCHANGE; divided by 64. ioctls: the same by 64 calls.
 */
#define ROW	64

static void setup_row(void)
{
	new_uffd(strstr(w.param, "-ioctls") ? 0 : UFFD_FEATURE_EXCHANGE);
	w.len = 2 * ROW * PAGE;
	w.area = map_small(w.len);
	w.src = new_source(PAGE);
	if (!strncmp(w.param, "copy", 4)) {
		w.op = _UFFDIO_COPY;
		w.mode = UFFDIO_REGISTER_MODE_MISSING;
	} else if (!strncmp(w.param, "protect", 7)) {
		w.op = _UFFDIO_WRITEPROTECT;
		w.mode = UFFDIO_REGISTER_MODE_WP;
		populate(w.area, w.len);
	} else {
		die("no operation called %s", w.param);
	}
	uffd_register(w.area, w.len, w.mode);
}

static double round_row(void)
{
	struct uffdio_op ops[ROW];
	struct uffdio_exchange call = { .ops = (uintptr_t)ops, .nr_ops = ROW };
	double start;
	int i;

	if (w.op == _UFFDIO_COPY)
		advise(w.area, w.len, MADV_DONTNEED);
	else
		uffd_protect(w.area, w.len, false);
	for (i = 0; i < ROW; i++) {
		fill_in(&ops[i], w.area + 2 * i * PAGE);
		if (w.op == _UFFDIO_WRITEPROTECT)
			ops[i].mode = UFFDIO_WRITEPROTECT_MODE_WP;
	}
	start = now();
	if (!strstr(w.param, "-ioctls")) {
		exchange(&call, ops);
		return since(start) / ROW;
	}
	for (i = 0; i < ROW; i++) {
		char *p = (char *)(uintptr_t)ops[i].dst;

		if (w.op == _UFFDIO_COPY)
			uffd_copy(p, PAGE);
		else
			uffd_protect(p, PAGE, true);
	}
	return since(start) / ROW;
}

/*
 * rearm-*: of so many MiB of private memory, small pages, all there, so many pages have
 * been written to, at equal distances: the parameter is PAGES/MIB. What it takes, for all
 * of them together, to find them and to protect them again.
 *
 *	scan		PAGEMAP_SCAN does both
 *	log		read() of the write log, 64 messages a call; WRITEPROTECT of each
 *	exchange	UFFDIO_EXCHANGE protects what the last call has brought, up to 64,
 *			and brings the next
 */
static void setup_rearm(__u64 features)
{
	unsigned int mib;

	if (sscanf(w.param, "%zu/%u", &w.each, &mib) != 2 || !w.each || !mib)
		die("%s is not PAGES/MIB", w.param);
	new_uffd(UFFD_FEATURE_WP_ASYNC | features);
	w.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (w.pagemap < 0)
		skip("/proc/self/pagemap");
	w.len = mib * MIB;
	w.area = map_small(w.len);
	populate(w.area, w.len);
	uffd_register(w.area, w.len, UFFDIO_REGISTER_MODE_WP);
	uffd_protect(w.area, w.len, true);
}

static void setup_rearm_scan(void)
{
	setup_rearm(0);
}

static void setup_rearm_log(void)
{
	setup_rearm(WP_LOG);
}

static void setup_rearm_exchange(void)
{
	setup_rearm(WP_LOG | UFFD_FEATURE_EXCHANGE);
}

static double round_rearm(size_t (*rearm)(void))
{
	size_t i, found = 0, n;
	double start;

	for (i = 0; i < w.each; i++)
		touch(w.area + i * (w.len / w.each));
	start = now();
	while (found < w.each && (n = rearm()))
		found += n;
	if (found != w.each)
		die("found %zu of %zu pages", found, w.each);
	return since(start);
}

static size_t rearm_by_scan(void)
{
	return scan(PAGE_IS_WRITTEN, PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC);
}

static double round_rearm_scan(void)
{
	return round_rearm(rearm_by_scan);
}

static size_t rearm_by_log(void)
{
	return collect_log(w.each);
}

static double round_rearm_log(void)
{
	return round_rearm(rearm_by_log);
}

static size_t rearm_by_exchange(void)
{
	static struct uffdio_op ops[ROW];
	static struct uffd_msg msgs[ROW];
	struct uffdio_exchange call = {
		.ops = (uintptr_t)ops,
		.msgs = (uintptr_t)msgs,
		.nr_msgs = ROW,
	};
	size_t found = 0;
	unsigned int i;

	do {
		exchange(&call, ops);
		for (i = 0; i < call.nr_ops; i++) {
			ops[i] = (struct uffdio_op){
				.op = _UFFDIO_WRITEPROTECT,
				.mode = UFFDIO_WRITEPROTECT_MODE_WP,
				.dst = msgs[i].arg.remove.start,
				.len = msgs[i].arg.remove.end -
				       msgs[i].arg.remove.start,
			};
		}
		found += call.nr_ops;
	} while (call.nr_ops);
	return found;
}

static double round_rearm_exchange(void)
{
	return round_rearm(rearm_by_exchange);
}

/*
 * What cannot be beaten.
 *
 * floor-pipe: a byte through a pipe to another thread and one back through
 * another pipe, both blocking; 512 times, divided by 512. "free": wherever the
 * scheduler puts them, as in all other cases; "together": both on one CPU, so
 * that none goes idle and none has to be woken from there.
 */
static void *echo(void *unused)
{
	char c;

	while (read(w.pipe[0][0], &c, 1) == 1 && write(w.pipe[1][1], &c, 1) == 1)
		;
	die("pipe");
	return unused;
}

static void setup_pipe(void)
{
	if (pipe(w.pipe[0]) || pipe(w.pipe[1]))
		die("pipe");
	if (param_is("together"))
		stay_here();
	start_thread(echo, NULL);
	usleep(20000);
}

static double round_pipe(void)
{
	const int times = 512;
	double start = now();
	char c = 0;
	int i;

	for (i = 0; i < times; i++) {
		if (write(w.pipe[0][1], &c, 1) != 1 ||
		    read(w.pipe[1][0], &c, 1) != 1)
			die("pipe");
	}
	return since(start) / times;
}

/*
 * floor-ioctl: a call that reaches userfaultfd and is refused there because
 * there is none of this number.
 */
static void setup_ioctl(void)
{
	new_uffd(0);
}

static double round_ioctl(void)
{
	const int calls = 1024;
	double start = now();
	int i;

	for (i = 0; i < calls; i++) {
		if (ioctl(w.fd, _IO(UFFDIO, 0x2f)) != -1)
			die("the kernel has an ioctl 0x2f");
	}
	return since(start) / calls;
}

/*
 * floor-copy: 4 KiB from user space into the kernel, by its own means, as COPY
 * must: "kernel" is the difference between 1,024 times pwrite() of 4,096 bytes
 * and of 64 to a page of a file in memory, scaled to 4,096; "user" is memcpy().
 */
static void setup_floor_copy(void)
{
	w.src = new_source(PAGE);
	w.area = new_source(PAGE);
	new_file(PAGE);
}

static double write_page(size_t len)
{
	const int calls = 1024;
	double start = now();
	int i;

	for (i = 0; i < calls; i++) {
		if (pwrite(w.file, w.src, len, 0) != (ssize_t)len)
			die("pwrite");
	}
	return since(start) / calls;
}

static double round_floor_copy(void)
{
	const size_t least = 64;
	double start;
	int i;

	if (param_is("kernel"))
		return (write_page(PAGE) - write_page(least)) *
		       PAGE / (PAGE - least);
	start = now();
	for (i = 0; i < 1024; i++) {
		memcpy(w.area, w.src, PAGE);
		/* Or it would be done once. */
		__asm__ volatile("" : : "r"(w.area), "r"(w.src) : "memory");
	}
	return since(start) / 1024;
}

#define REARM	"64/16 64/64 64/256 64/1024 1/256 16/256 256/256 1024/256"

static const struct bench benches[] = {
	{ "floor-pipe", "free together", "ns/round trip", setup_pipe, round_pipe,
	  "a byte to another thread and back, through pipes" },
	{ "floor-ioctl", "", "ns/call", setup_ioctl, round_ioctl,
	  "an ioctl that returns at once" },
	{ "floor-copy", "kernel user", "ns/page",
	  setup_floor_copy, round_floor_copy,
	  "copying 4 KiB and nothing else" },
	{ "fault-missing", "1 2 4 8 16", "ns/fault",
	  setup_missing, round_dropped,
	  "fault to resolved, missing, so many blocked readers" },
	{ "fault-minor", "", "ns/fault", setup_minor, round_dropped,
	  "fault to resolved, minor, shmem" },
	{ "fault-wp", "", "ns/fault", setup_wp, round_wp,
	  "fault to resolved, write-protected" },
	{ "fault-exchange", "minor missing wp", "ns/fault",
	  setup_fault_exchange, round_fault_exchange,
	  "such a fault, by UFFDIO_EXCHANGE" },
	{ "fault-first", "", "ns/fault", setup_first, round_first,
	  "as fault-missing, first in each 2 MiB" },
	{ "fault-huge", "", "ns/fault", setup_first, round_huge,
	  "as fault-first, huge pages allowed" },
	{ "wake", "0 1 4 16 64 256 1024 4096", "ns/call",
	  setup_wake, round_wake,
	  "UFFDIO_WAKE for nobody, so many threads blocked elsewhere" },
	{ "read", "1 8 64", "ns/message", setup_read, round_read,
	  "read() with 1,024 pending, so many messages a call" },
	{ "copy", "4096 16384 65536 262144 1048576 2097152", "ns/page",
	  setup_copy, round_copy, "UFFDIO_COPY, so many bytes a call" },
	{ "copy-huge", "4096 16384 65536 262144 1048576 2097152", "ns/page",
	  setup_copy, round_copy_huge,
	  "the same where huge pages are allowed" },
	{ "continue", "4096 2097152", "ns/page", setup_continue, round_continue,
	  "UFFDIO_CONTINUE, shmem, so many bytes a call" },
	{ "move", "4096 2097152", "ns/page", setup_move, round_move,
	  "UFFDIO_MOVE, so many bytes a call" },
	{ "protect", "", "ns/page", setup_protect, round_protect,
	  "UFFDIO_WRITEPROTECT, 256 MiB in one call" },
	{ "unprotect", "", "ns/page", setup_protect, round_unprotect,
	  "and the same back" },
	{ "storm", "1/1 2/1 4/1 8/2 16/4 32/8 64/16", "ns/fault",
	  setup_storm, round_storm, "threads/readers, missing" },
	{ "storm-exchange", "1/1 4/1 16/4 32/8", "ns/fault",
	  setup_storm_exchange, round_storm, "the same by UFFDIO_EXCHANGE" },
	{ "handler", "poll exchange", "ns/fault", setup_handler, round_handler,
	  "CPU time of one handler, 4 threads, missing" },
	{ "exchange", "copy copy-ioctls protect protect-ioctls", "ns/page",
	  setup_row, round_row, "64 operations in one call, or by 64" },
	{ "register", "whole part", "ns/call", setup_register, round_register,
	  "UFFDIO_REGISTER of a mapping or a part of it" },
	{ "unregister", "whole part", "ns/call",
	  setup_register, round_unregister, "and UFFDIO_UNREGISTER" },
	{ "fault-plain", "anon shmem", "ns/fault", setup_plain, round_dropped,
	  "a fault in memory that is not registered" },
	{ "fork", "plain missing wp", "ns/fork", setup_fork, round_fork,
	  "fork() with 64 MiB, registered for that" },
	{ "munmap", "plain missing wp", "ns/page", setup_munmap, round_munmap,
	  "munmap() of 16 MiB, registered for that" },
	{ "balloon", "wait nowait next plain", "ns/page",
	  setup_balloon, round_balloon,
	  "MADV_DONTNEED of single pages, with REMOVE events" },
	{ "segv-missing", "", "ns/fault",
	  setup_segv_missing, round_segv_missing,
	  "as fault-missing, by mprotect() and SIGSEGV" },
	{ "segv-wp", "", "ns/fault", setup_segv_wp, round_segv_wp,
	  "as fault-wp, by mprotect() and SIGSEGV" },
	{ "dirty-write", "async log sync soft segv", "ns/write",
	  setup_dirty, round_dirty_write,
	  "first write to each of 256 tracked pages" },
	{ "dirty-collect", "async log sync soft segv", "ns/page",
	  setup_dirty, round_dirty_collect,
	  "which of 16,384 pages were they? and again" },
	{ "rearm-scan", REARM, "ns",
	  setup_rearm_scan, round_rearm_scan,
	  "find dirty pages and protect them again, PAGES/MIB" },
	{ "rearm-log", REARM, "ns",
	  setup_rearm_log, round_rearm_log,
	  "the same by read() and WRITEPROTECT" },
	{ "rearm-exchange", REARM, "ns",
	  setup_rearm_exchange, round_rearm_exchange,
	  "the same by UFFDIO_EXCHANGE" },
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *value, int count)
{
	qsort(value, count, sizeof(*value), compare);
	if (count % 2)
		return value[count / 2];
	return (value[count / 2 - 1] + value[count / 2]) / 2;
}

static void run_here(const struct bench *bench, int rounds)
{
	double value[MAX_ROUNDS];
	int i;

	alarm(LIMIT);
	bench->setup();
	for (i = -1; i < rounds; i++) {
		double cost = bench->round();

		if (i >= 0)
			value[i] = cost;
	}
	printf("%s,%s,%.1f,%s\n", bench->name, w.param, median(value, rounds),
	       bench->unit);
	fflush(stdout);
	_exit(0);
}

/* Returns its exit status: 0, 1, or EXIT_SKIP. */
static int run_one(const struct bench *bench, const char *param, int rounds)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		w.param = param;
		w.n = strtoul(param, NULL, 10);
		run_here(bench, rounds);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("fork");
	if (WIFEXITED(status))
		status = WEXITSTATUS(status);
	else
		fprintf(stderr, "# ended by signal %d\n", WTERMSIG(status));
	if (status)
		fprintf(stderr, "# %s %s: %s\n", bench->name, param,
			status == EXIT_SKIP ? "skipped" : "failed");
	return status == EXIT_SKIP ? EXIT_SKIP : !!status;
}

struct tally {
	int passed;
	int failed;
	int skipped;
};

static void count(struct tally *tally, int status)
{
	if (!status)
		tally->passed++;
	else if (status == EXIT_SKIP)
		tally->skipped++;
	else
		tally->failed++;
}

static void run_bench(const struct bench *bench, const char *param, int rounds,
		      struct tally *tally)
{
	char params[128], *p, *rest;

	if (param || !*bench->params) {
		count(tally, run_one(bench, param ? param : "", rounds));
		return;
	}
	snprintf(params, sizeof(params), "%s", bench->params);
	for (p = strtok_r(params, " ", &rest); p; p = strtok_r(NULL, " ", &rest))
		count(tally, run_one(bench, p, rounds));
}

static void run_named(char *name, int rounds, struct tally *tally)
{
	char *param = strchr(name, ':');
	size_t i, len = param ? (size_t)(param - name) : strlen(name);

	for (i = 0; i < ARRAY_SIZE(benches); i++) {
		if (strlen(benches[i].name) == len &&
		    !strncmp(benches[i].name, name, len)) {
			run_bench(&benches[i], param ? param + 1 : NULL, rounds,
				  tally);
			return;
		}
	}
	fprintf(stderr, "# there is no case %s; see --list\n", name);
	tally->failed++;
}

static void list(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(benches); i++)
		printf("%-14s %-14s %s%s%s%s\n", benches[i].name,
		       benches[i].unit, benches[i].what,
		       *benches[i].params ? " (" : "", benches[i].params,
		       *benches[i].params ? ")" : "");
}

static int parse(const char *text, int max)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || n < 1 || n > max) {
		fprintf(stderr, "# %s: a number from 1 to %d\n", text, max);
		exit(1);
	}
	return n;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "list", no_argument, NULL, 'l' },
		{ "rounds", required_argument, NULL, 'n' },
		{ "repeat", required_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int rounds = 5, repeat = 1, c, i;
	struct tally tally = { };
	size_t j;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'l':
			list();
			return 0;
		case 'n':
			rounds = parse(optarg, MAX_ROUNDS);
			break;
		case 'r':
			repeat = parse(optarg, INT_MAX);
			break;
		default:
			fprintf(c == 'h' ? stdout : stderr,
				"usage: %s --list\n       %s [--rounds N] [--repeat N] [CASE[:PARAM]...]\n",
				argv[0], argv[0]);
			return c != 'h';
		}
	}
	if (sysconf(_SC_PAGESIZE) != PAGE) {
		fprintf(stderr, "# skipped: the cases are made for pages of 4 KiB\n");
		return EXIT_SKIP;
	}
	printf("case,param,value,unit\n");
	while (repeat--) {
		if (optind == argc) {
			for (j = 0; j < ARRAY_SIZE(benches); j++)
				run_bench(&benches[j], NULL, rounds, &tally);
		}
		for (i = optind; i < argc; i++)
			run_named(argv[i], rounds, &tally);
	}
	if (tally.failed)
		return 1;
	return tally.passed ? 0 : EXIT_SKIP;
}
