// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: random sequences of calls, and a trace of what came of them.
 *
 * A seed stands for a sequence: memory of some types, a userfaultfd with some
 * features, and a few dozen steps, each of them something that a process can do
 * to such memory or with such a descriptor.  What the kernel answers is printed:
 * return values, output fields, messages, contents, page tables, VMAs.  The same
 * seed gives the same trace each time, so that traces of two kernels can be
 * compared: tests/differ of the series does.
 *
 * How it is made deterministic:
 *  - One thread at a time does something.  The controller, which is the main
 *    thread of a sequence, never touches memory that may fault; it lets an actor
 *    do it, and waits until everybody is at rest: done, or parked in a fault (as
 *    fdinfo counts them), with all messages read.  Then it answers a message, as
 *    the seed will have it, and waits again: after each call that may wake
 *    somebody, also if there is another one to follow.
 *  - All threads of a sequence are on one CPU, since per-CPU batches of the LRU
 *    decide whether a page can be swapped out.  Each has a real-time priority of
 *    its own, if it may: of two that are woken together the same one goes on
 *    first, and nobody before the controller sleeps.
 *  - Addresses are fixed, and are printed as a place in a window.
 *  - Each step draws from a generator of its own.  If two kernels differ in one
 *    step the next one is still the same call.
 *
 * What is left out on purpose, since both kernels may do as they please or are
 * known to differ:
 *  - faults and events unread at the same time;
 *  - calls on ranges that an unread event does not concern;
 *  - the order of the events of one mremap() that moves and shrinks, and of
 *    events of two descriptors; fork() with both of them told of it;
 *  - page tables that are there and empty, which a fill that fails may leave
 *    and PAGEMAP_SCAN tells from none at all;
 *  - who of two that have been woken together comes first: actors that park do
 *    not touch the same words as the first one;
 *  - reads whose buffer is bad while there is a message;
 *  - UFFDIO_MOVE out of huge pages that a fork() has shared: 6.12 looks at the
 *    first page of a folio to find out whether another one is shared, and so
 *    may split the folio before it refuses;
 *  - UFFDIO_MOVE of the huge zero page: 6.12 does not tell of it by the soft-dirty
 *    bit, 7.3 does;
 *  - mremap() of locked memory where events are on, which may deadlock;
 *  - mremap() of registered memory to a place beside more of it: 6.12 merges the
 *    two before it ends the registration of what it has moved, that of the
 *    neighbour with it;
 *  - memory that is registered for write protection, protected, and registered
 *    again without: 6.12 leaves the protection in the page tables, and a write
 *    to such hugetlb memory faults for ever;
 *  - with UNMAP asked for, a range to unmap (by munmap(), mmap() or mremap()) that
 *    ends inside a page of hugetlb memory: this fails, but 6.12 may tell of the
 *    mappings before that one all the same;
 *  - UFFDIO_COPY of a whole aligned 2 MiB into anonymous memory that may have
 *    huge pages: 6.12 puts small ones there.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include "../kselftest.h"
#include "uffd-kit.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif

#define COUNT(array)	(sizeof(array) / sizeof((array)[0]))

#define MS_REST		20000		/* for everybody to come to rest */
#define MS_SEQUENCE	120000		/* for a sequence, before it is killed */

#define TRACE_SIZE	(1UL << 20)

#define HUGE		(2UL << 20)
#define WINDOW		(32UL << 20)
#define ARENA		0x100000000000UL
#define ALIAS		(ARENA + 8 * WINDOW)
#define SOURCE		(ARENA + 10 * WINDOW)
#define SOURCE_LEN	(2 * HUGE + (64UL << 10))
#define NOWHERE		(ARENA - 16 * WINDOW)

/*
 * The trace.  It lies in memory shared with the parent, to which it is left when
 * the sequence dies.
 */
struct trace {
	size_t len;
	unsigned int step;
	char text[TRACE_SIZE];
};

static struct trace *trace;
static bool verbose;
static bool no_soft_dirty;
static size_t page;

static void __printf(1, 2) say(const char *fmt, ...)
{
	size_t room = TRACE_SIZE - trace->len;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(trace->text + trace->len, room, fmt, ap);
	va_end(ap);
	if (n > 0)
		trace->len += (size_t)n < room ? (size_t)n : room - 1;
}

/* 0, a number, or the name of an error. */
static const char *outcome(long ret)
{
	static char buf[4][32];
	static unsigned int turn;
	char *p = buf[turn++ % 4];
	const char *name;

	name = ret < 0 && ret > -4096 ? strerrorname_np(-ret) : NULL;
	if (name)
		snprintf(p, sizeof(buf[0]), "%s", name);
	else
		snprintf(p, sizeof(buf[0]), "%ld", ret);
	return p;
}

/* Chance */

static __u64 state;

static __u64 mix(__u64 x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static unsigned int draw(unsigned int n)
{
	state = mix(state);
	return (state >> 16) % n;
}

static bool percent(unsigned int n)
{
	return draw(100) < n;
}

#define one_of(array)	((array)[draw(COUNT(array))])

/*
 * Windows: pieces of the address space, each for memory of one type.  The third
 * has the type of the first and is empty at the beginning: room to move to.
 */
enum type {
	ANON, ANON_HUGE, SHMEM, SHMEM_PRIVATE, SHMEM_HUGE, HUGETLB,
	HUGETLB_PRIVATE, TYPES
};

static const char * const type_name[TYPES] = {
	"anon", "anon-thp", "shmem", "shmem-private", "shmem-thp", "hugetlb",
	"hugetlb-private",
};

struct window {
	enum type type;
	unsigned long base;
	size_t unit;			/* what a fault asks for */
	unsigned int units;
	int fd;				/* the file, or -1 */
	bool was_locked;
	bool was_forked;
	bool mapped;			/* by and large */
	__u64 modes;			/* it was registered for these last */
	char last[2048];		/* what was printed of it last */
};

#define WINDOWS	3

static struct window win[WINDOWS];
/* VMAs may have changed since they were printed. */
static bool vmas_stale = true;

static bool is_anon(const struct window *w)
{
	return w->type == ANON || w->type == ANON_HUGE;
}

static bool is_hugetlb(const struct window *w)
{
	return w->type == HUGETLB || w->type == HUGETLB_PRIVATE;
}

static bool is_private(const struct window *w)
{
	return is_anon(w) || w->type == SHMEM_PRIVATE ||
	       w->type == HUGETLB_PRIVATE;
}

static bool is_huge(const struct window *w)
{
	return w->type == ANON_HUGE || w->type == SHMEM_HUGE;
}

static size_t window_len(const struct window *w)
{
	return w->units * w->unit;
}

static unsigned long at(const struct window *w, unsigned int unit)
{
	return w->base + unit * w->unit;
}

/* The window that an address belongs to, and where it begins. */
static struct window *window_of(unsigned long addr)
{
	unsigned int i;

	for (i = 0; i < WINDOWS; i++)
		if (addr / WINDOW == win[i].base / WINDOW)
			return &win[i];
	return NULL;
}

/* An address as one that means the same on each kernel. */
static const char *place(unsigned long addr)
{
	static char buf[8][48];
	static unsigned int turn;
	char *p = buf[turn++ % 8];
	struct window *w = window_of(addr);
	size_t n = sizeof(buf[0]);

	if (w && addr >= w->base)
		snprintf(p, n, "w%d:%lu", (int)(w - win),
			 (addr - w->base) / w->unit);
	else if (w)
		snprintf(p, n, "w%d:-%lu", (int)(w - win), w->base - addr);
	else if (addr >= SOURCE && addr < SOURCE + WINDOW)
		snprintf(p, n, "src+%lx", addr - SOURCE);
	else if (addr >= ALIAS && addr < ALIAS + WINDOW)
		snprintf(p, n, "alias+%lx", addr - ALIAS);
	else if (addr < ARENA + 32 * WINDOW || addr >= 1UL << 47)
		snprintf(p, n, "0x%lx", addr);
	else
		snprintf(p, n, "elsewhere");
	if (w && addr >= w->base && (addr - w->base) % w->unit)
		snprintf(p + strlen(p), n - strlen(p), "+%lx",
			 (addr - w->base) % w->unit);
	return p;
}

static int map_flags(const struct window *w)
{
	return (is_private(w) ? MAP_PRIVATE : MAP_SHARED) |
	       (is_anon(w) ? MAP_ANONYMOUS : 0);
}

static int window_advice(const struct window *w)
{
	if (is_huge(w))
		return MADV_HUGEPAGE;
	return is_hugetlb(w) ? -1 : MADV_NOHUGEPAGE;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	say("cannot go on: %s: %s\n", what, strerrorname_np(errno));
	_exit(2);
}

static void window_map(struct window *w)
{
	void *p;

	p = mmap((void *)w->base, window_len(w), PROT_READ | PROT_WRITE,
		 map_flags(w) | MAP_FIXED_NOREPLACE, w->fd, 0);
	must(p == (void *)w->base, "mmap");
	if (window_advice(w) >= 0)
		madvise(p, window_len(w), window_advice(w));
	w->mapped = true;
}

static void window_init(unsigned int i, enum type type)
{
	struct window *w = &win[i];

	memset(w, 0, sizeof(*w));
	w->type = type;
	w->unit = is_hugetlb(w) ? HUGE : page;
	w->units = is_hugetlb(w) ? 4 : is_huge(w) ? 2 * HUGE / page : 16;
	w->base = ARENA + i * WINDOW;
	w->fd = -1;
	if (is_anon(w))
		return;
	w->fd = syscall(__NR_memfd_create, "uffd-trace",
			MFD_CLOEXEC | (is_hugetlb(w) ? MFD_HUGETLB : 0));
	must(w->fd >= 0, "memfd_create");
	must(!ftruncate(w->fd, window_len(w)), "ftruncate");
}

/*
 * Actors: threads that do what may park.  The first one does what the step is
 * about; the others touch one address each, and may sleep for many steps.
 */
struct op {
	long (*fn)(struct op *op);
	unsigned long arg[7];
	long ret;
	int sig;
	int code;
	unsigned long where;
};

struct actor {
	pthread_t id;
	pid_t tid;
	int go;
	bool busy;		/* the controller's: has something to do */
	bool done;
	struct op op;
};

#define ACTORS	3

static struct actor actor[ACTORS];
static int rest_fd = -1;

static __thread sigjmp_buf *landing;
static __thread siginfo_t landed;

static void on_trap(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!landing) {
		say("\ndied of signal %d at %s\n", sig,
		    place((unsigned long)info->si_addr));
		_exit(3);
	}
	landed = *info;
	siglongjmp(*landing, 1);
}

static void run_op(struct op *op)
{
	sigjmp_buf here;

	op->sig = 0;
	op->ret = 0;
	landing = &here;
	if (!sigsetjmp(here, 0)) {
		op->ret = op->fn(op);
	} else {
		op->sig = landed.si_signo;
		op->code = landed.si_code;
		op->where = (unsigned long)landed.si_addr;
	}
	landing = NULL;
}

static void *actor_body(void *arg)
{
	struct actor *a = arg;
	__u64 n = 1;

	uk_set(&a->tid, (pid_t)syscall(__NR_gettid));
	while (read(a->go, &n, sizeof(n)) == sizeof(n)) {
		run_op(&a->op);
		uk_set(&a->done, true);
		n = 1;
		if (write(rest_fd, &n, sizeof(n)) != sizeof(n))
			break;
	}
	return NULL;
}

static void go_ahead_of_others(pid_t tid, int priority)
{
	struct sched_param param = { .sched_priority = priority };

	sched_setscheduler(tid, SCHED_FIFO, &param);
}

static void actors_init(void)
{
	unsigned int i;

	rest_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(rest_fd >= 0, "eventfd");
	for (i = 0; i < ACTORS; i++) {
		memset(&actor[i], 0, sizeof(actor[i]));
		actor[i].go = eventfd(0, EFD_CLOEXEC);
		must(actor[i].go >= 0, "eventfd");
		must(!pthread_create(&actor[i].id, NULL, actor_body, &actor[i]),
		     "pthread_create");
	}
	for (i = 0; i < ACTORS; i++)
		while (!uk_get(&actor[i].tid))
			sched_yield();
	/* Whoever may not do this sees more traces differ. */
	for (i = 0; i < ACTORS; i++)
		go_ahead_of_others(actor[i].tid, ACTORS - i);
	go_ahead_of_others(0, ACTORS + 1);
}

static void actor_go(struct actor *a, const struct op *op)
{
	__u64 n = 1;

	a->op = *op;
	a->busy = true;
	uk_set(&a->done, false);
	must(write(a->go, &n, sizeof(n)) == sizeof(n), "starting an actor");
}

static bool at_work(const struct actor *a)
{
	return a->busy && !uk_get(&a->done);
}

static void say_op(const struct op *op)
{
	if (op->sig)
		say("%s code %d at %s",
		    op->sig == SIGBUS ? "SIGBUS" : "SIGSEGV", op->code,
		    place(op->where));
	else
		say("%s", outcome(op->ret));
}

static long do_call(struct op *op)
{
	long ret = syscall(op->arg[0], op->arg[1], op->arg[2], op->arg[3],
			   op->arg[4], op->arg[5], op->arg[6]);

	return ret == -1 ? -errno : ret;
}

/* arg: address, how many, how far apart, value */
static long do_load(struct op *op)
{
	__u64 *p = (__u64 *)op->arg[0];
	__u64 sum = 0;
	unsigned long i;

	for (i = 0; i < op->arg[1]; i++)
		sum = mix(sum ^ uk_get(&p[i * op->arg[2] / sizeof(*p)]));
	return sum & 0xffffff;
}

static long do_store(struct op *op)
{
	__u64 *p = (__u64 *)op->arg[0];
	unsigned long i;

	for (i = 0; i < op->arg[1]; i++)
		uk_set(&p[i * op->arg[2] / sizeof(*p)], op->arg[3] + i);
	return 0;
}

/* A call on a range, in the terms that all of them share. */
struct call {
	unsigned int nr;
	int to;			/* which descriptor */
	unsigned long start;
	unsigned long len;
	unsigned long src;	/* copy, move */
	__u64 mode;
};

union any_arg {
	struct uffdio_range range;
	struct uffdio_register reg;
	struct uffdio_copy copy;
	struct uffdio_zeropage zero;
	struct uffdio_writeprotect wp;
	struct uffdio_move move;
	__u64 word[6];
};

/*
 * A child, by fork(): it touches memory, and leaves what it found where the
 * parent finds it.
 */
#define TOUCHES	3

struct heir {
	pid_t pid;
	struct op op[TOUCHES];
	/* Or a call on the parent's descriptor, which is for the parent's memory. */
	struct call call[TOUCHES];
	union any_arg arg[TOUCHES];
	unsigned int nr;
	bool done[TOUCHES];
	unsigned char bits[WINDOWS][16];
};

static struct heir *heir;

/* The descriptors: two of our own, and a child's that came with a FORK. */
enum { FIRST, SECOND, CHILD, UFFDS };

static const char * const uffd_name[UFFDS] = { "u0", "u1", "child" };
static int uffd[UFFDS];
static __u64 features[UFFDS];
static __u64 offered;

/* Kernels differ in what came after UFFDIO_MOVE.  It is neither played nor shown. */
#define PLAYED_FEATURES	(2ULL * UFFD_FEATURE_MOVE - 1)
#define PLAYED_IOCTLS	(1ULL << _UFFDIO_API | ((2ULL << _UFFDIO_POISON) - 1))
#define LATER_FEATURES	(3ULL << 17 | 0x1fULL << 32)
static int pagemap_fd;

/* Messages that have been read and not been answered. */
#define MESSAGES	64

struct letter {
	int from;
	struct uffd_msg msg;
};

static struct letter letters[MESSAGES];
static unsigned int nr_letters;
/* Events of an operation whose order is not to be looked at. */
static struct letter events[MESSAGES];
static unsigned int nr_events;
static bool any_order;

static __u64 parked_total(void)
{
	struct uk_info info;
	__u64 total = 0;
	unsigned int i;

	for (i = 0; i < UFFDS; i++)
		if (uffd[i] >= 0 && !uk_fdinfo(uffd[i], &info))
			total += info.total;
	return total;
}

/* Does a thread sleep?  Who is counted as parked may still be on the way. */
static bool sleeps(const char *dir, pid_t tid)
{
	char path[64], buf[256], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%s%d/stat", dir, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	buf[n > 0 ? n : 0] = 0;
	p = strrchr(buf, ')');
	return !p || p[2] != 'R';
}

static bool at_rest(void)
{
	unsigned int i, n = 0;

	for (i = 0; i < ACTORS; i++)
		n += at_work(&actor[i]);
	if (!n)
		return true;
	if (parked_total() != n)
		return false;
	for (i = 0; i < ACTORS; i++)
		if (at_work(&actor[i]) && !sleeps("self/task/", actor[i].tid))
			return false;
	return !uk_get(&heir->pid) || sleeps("", heir->pid);
}

/* Which actor has this thread id; ACTORS if none has. */
static unsigned int actor_of(__u32 tid)
{
	unsigned int i;

	for (i = 0; i < ACTORS; i++)
		if ((__u32)actor[i].tid == tid)
			break;
	return i;
}

static const char *who(__u32 tid)
{
	static char buf[16];
	unsigned int i = actor_of(tid);

	if (i == ACTORS)
		return tid ? "other" : "0";
	snprintf(buf, sizeof(buf), "actor%u", i);
	return buf;
}

static void say_message(const struct letter *l)
{
	const struct uffd_msg *m = &l->msg;

	say("    %s ", uffd_name[l->from]);
	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		say("fault %s%s%s%s tid=%s", place(m->arg.pagefault.address),
		    m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE ?
		    " write" : "",
		    m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP ?
		    " wp" : "",
		    m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR ?
		    " minor" : "", who(m->arg.pagefault.feat.ptid));
		if (m->arg.pagefault.flags & ~7ULL)
			say(" flags=%llx", m->arg.pagefault.flags);
		break;
	case UFFD_EVENT_FORK:
		say("fork");
		break;
	case UFFD_EVENT_REMAP:
		say("remap %s to %s len %llx", place(m->arg.remap.from),
		    place(m->arg.remap.to), m->arg.remap.len);
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		say("%s %s-%s",
		    m->event == UFFD_EVENT_REMOVE ? "remove" : "unmap",
		    place(m->arg.remove.start), place(m->arg.remove.end));
		break;
	default:
		say("event %x", m->event);
	}
	if (m->reserved1 || m->reserved2 || m->reserved3)
		say(" reserved fields set");
	say("\n");
}

/* Of faults that came while nobody looked. */
static int by_order(const void *va, const void *vb)
{
	const struct letter *a = va, *b = vb;

	if (a->from != b->from)
		return a->from - b->from;
	if (a->msg.arg.pagefault.address != b->msg.arg.pagefault.address)
		return a->msg.arg.pagefault.address <
		       b->msg.arg.pagefault.address ? -1 : 1;
	if (a->msg.arg.pagefault.flags != b->msg.arg.pagefault.flags)
		return (int)a->msg.arg.pagefault.flags -
		       (int)b->msg.arg.pagefault.flags;
	return (int)actor_of(a->msg.arg.pagefault.feat.ptid) -
	       (int)actor_of(b->msg.arg.pagefault.feat.ptid);
}

static int by_event(const void *va, const void *vb)
{
	const struct letter *a = va, *b = vb;

	return a->from != b->from ? a->from - b->from :
	       memcmp(&a->msg, &b->msg, sizeof(a->msg));
}

/* How many messages are read at once. */
static unsigned int batch;

#define BATCH	4

static void take_message(int from, const struct uffd_msg *msg)
{
	struct letter l = { .from = from, .msg = *msg };

	if (msg->event == UFFD_EVENT_PAGEFAULT) {
		if (nr_letters == MESSAGES)
			say("    too many messages\n");
		else
			letters[nr_letters++] = l;
		return;
	}
	if (any_order && nr_events < MESSAGES)
		events[nr_events++] = l;
	else
		say_message(&l);
	if (msg->event == UFFD_EVENT_FORK) {
		if (uffd[CHILD] >= 0)
			close(uffd[CHILD]);
		uffd[CHILD] = msg->arg.fork.ufd;
		features[CHILD] = features[from];
	}
}

/* Read what there is.  Events are printed, faults kept. */
static unsigned int drain(void)
{
	struct uffd_msg msg[BATCH];
	unsigned int i, n = 0;
	int j, ret;

	for (i = 0; i < UFFDS; i++) {
		while (uffd[i] >= 0) {
			memset(msg, 0, sizeof(msg));
			ret = uk_read(uffd[i], msg, batch);
			if (ret == -EAGAIN)
				break;
			n++;
			if (ret <= 0) {
				say("    %s read = %s\n", uffd_name[i],
				    outcome(ret));
				break;
			}
			for (j = 0; j < ret; j++)
				take_message(i, &msg[j]);
		}
	}
	return n;
}

static void stuck(void)
{
	unsigned int i;

	say("\nstuck:");
	for (i = 0; i < ACTORS; i++)
		if (at_work(&actor[i]))
			say(" actor%u", i);
	say(" at work, %llu parked\n", parked_total());
	_exit(4);
}

static void wait_a_bit(void)
{
	struct pollfd pfd[UFFDS + 1];
	unsigned int i;
	__u64 n;

	for (i = 0; i < UFFDS; i++) {
		pfd[i].fd = uffd[i];
		pfd[i].events = POLLIN;
	}
	pfd[UFFDS].fd = rest_fd;
	pfd[UFFDS].events = POLLIN;
	poll(pfd, UFFDS + 1, 10);
	if (read(rest_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		must(false, "eventfd");
}

/* Let everybody come to rest; the messages that came are printed. */
static void settle(void)
{
	long long end = uk_now() + MS_REST;
	unsigned int i, first = nr_letters;

	for (;;) {
		drain();
		if (at_rest() && !drain())
			break;
		if (uk_now() > end)
			stuck();
		wait_a_bit();
	}
	qsort(events, nr_events, sizeof(events[0]), by_event);
	for (i = 0; i < nr_events; i++)
		say_message(&events[i]);
	nr_events = 0;
	qsort(letters + first, nr_letters - first, sizeof(letters[0]),
	      by_order);
	for (i = first; i < nr_letters; i++)
		say_message(&letters[i]);
}

/*
 * Calls.  Their structures lie in a page of their own, before one that can only
 * be read.
 */
static char *desk;

static const struct call_name {
	unsigned int nr;
	const char *name;
	size_t out;		/* where its output field is; 0 if it has none */
} call_names[] = {
	{ UFFDIO_API,		"api",		0 },
	{ UFFDIO_REGISTER,	"register",
	  offsetof(struct uffdio_register, ioctls) },
	{ UFFDIO_UNREGISTER,	"unregister",	0 },
	{ UFFDIO_WAKE,		"wake",		0 },
	{ UFFDIO_COPY,		"copy",
	  offsetof(struct uffdio_copy, copy) },
	{ UFFDIO_ZEROPAGE,	"zeropage",
	  offsetof(struct uffdio_zeropage, zeropage) },
	{ UFFDIO_CONTINUE,	"continue",
	  offsetof(struct uffdio_continue, mapped) },
	{ UFFDIO_WRITEPROTECT,	"writeprotect",	0 },
	{ UFFDIO_POISON,	"poison",
	  offsetof(struct uffdio_poison, updated) },
	{ UFFDIO_MOVE,		"move",
	  offsetof(struct uffdio_move, move) },
};

static const struct call_name *call_of(unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < COUNT(call_names); i++)
		if (call_names[i].nr == nr)
			return &call_names[i];
	return NULL;
}

static void call_fill(const struct call *c, union any_arg *arg)
{
	const struct call_name *name = call_of(c->nr);
	__s64 unset = UK_UNSET;

	memset(arg, 0, sizeof(*arg));
	switch (c->nr) {
	case UFFDIO_COPY:
	case UFFDIO_MOVE:
		arg->copy.dst = c->start;
		arg->copy.src = c->src;
		arg->copy.len = c->len;
		arg->copy.mode = c->mode;
		break;
	default:
		/* The others begin alike. */
		arg->reg.range.start = c->start;
		arg->reg.range.len = c->len;
		arg->reg.mode = c->mode;
	}
	if (name && name->out)
		memcpy((char *)arg + name->out, &unset, sizeof(unset));
}

static size_t call_size(const struct call *c)
{
	return _IOC_SIZE(c->nr);
}

static void say_len(const struct call *c)
{
	struct window *w = window_of(c->start);

	if (w && c->len && !(c->len % w->unit) && c->len < WINDOW)
		say("*%lu", c->len / w->unit);
	else
		say("*0x%lx", c->len);
}

static void say_call(const struct call *c)
{
	const struct call_name *name = call_of(c->nr);

	say("%s %s %s", uffd_name[c->to], name ? name->name : "ioctl",
	    place(c->start));
	say_len(c);
	if (c->nr == UFFDIO_COPY || c->nr == UFFDIO_MOVE)
		say(" from %s", place(c->src));
	if (c->mode)
		say(" mode %llx", c->mode);
}

static void say_output(const struct call *c, const void *arg)
{
	const struct call_name *name = call_of(c->nr);
	__s64 out;

	if (!name || !name->out)
		return;
	memcpy(&out, (const char *)arg + name->out, sizeof(out));
	if (out == UK_UNSET)
		say(" out unset");
	else if (c->nr == UFFDIO_REGISTER)
		say(" out %llx", (unsigned long long)out);
	else
		say(" out %s", outcome(out));
}

/* Has anything been registered for write protection? */
static bool protected;

/* Keep an eye on who is registered, so that most calls make sense. */
static void note_call(const struct call *c, long ret)
{
	unsigned int i;

	if (c->nr == UFFDIO_REGISTER || c->nr == UFFDIO_UNREGISTER)
		vmas_stale = true;
	/* Done, too, when the answer could not be written. */
	if (c->nr == UFFDIO_REGISTER && c->mode & UFFDIO_REGISTER_MODE_WP &&
	    (!ret || ret == -EFAULT))
		protected = true;
	if (ret || c->to == CHILD)
		return;
	for (i = 0; i < WINDOWS; i++) {
		if (at(&win[i], 0) < c->start ||
		    at(&win[i], 0) >= c->start + c->len)
			continue;
		if (c->nr == UFFDIO_REGISTER)
			win[i].modes = c->mode;
		else if (c->nr == UFFDIO_UNREGISTER)
			win[i].modes = 0;
	}
}

/* Out of huge pages that a child has, or had, too? */
static bool moves_shared(const struct call *c)
{
	const struct window *w = window_of(c->src);

	return c->nr == UFFDIO_MOVE && w && w->type == ANON_HUGE &&
	       w->was_forked;
}

static bool moves_huge_zero(const struct call *c)
{
	struct page_region found;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = c->src,
		.end = c->src + c->len,
		.vec = (unsigned long)&found,
		.vec_len = 1,
		.category_mask = PAGE_IS_HUGE | PAGE_IS_PFNZERO,
		.return_mask = PAGE_IS_HUGE,
	};

	return c->nr == UFFDIO_MOVE && ioctl(pagemap_fd, PAGEMAP_SCAN, &arg) > 0;
}

static char *read_smaps(void)
{
	static char text[1 << 16];
	size_t len = 0;
	ssize_t got;
	int fd;

	fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	must(fd >= 0, "smaps");
	while ((got = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += got;
	close(fd);
	text[len] = 0;
	return text;
}

static bool says_number(const char *text, unsigned long number)
{
	return strtoul(text, NULL, 10) == number;
}

/* Any of the modes that memory can be registered for. */
static bool says_registered(const char *text, unsigned long unused)
{
	static const char *const mode[] = { " um", " uw", " ui" };
	const char *end = strchr(text, '\n'), *hit;
	int i;

	for (i = 0; i < 3; i++) {
		hit = strstr(text, mode[i]);
		if (hit && hit < end)
			return true;
	}
	return false;
}

/* Is there a VMA in this range of which @field says so? */
static bool any_vma(unsigned long start, unsigned long end, const char *field,
		    bool (*says)(const char *text, unsigned long number),
		    unsigned long number)
{
	unsigned long from, to;
	bool inside = false;
	char *line, *p;

	for (line = read_smaps(); line; line = strchr(line, '\n')) {
		line += *line == '\n';
		from = strtoul(line, &p, 16);
		if (p != line && *p == '-') {
			to = strtoul(p + 1, NULL, 16);
			inside = from < end && to > start;
		} else if (inside && !strncmp(line, field, strlen(field)) &&
			   says(line + strlen(field), number)) {
			return true;
		}
	}
	return false;
}

static bool any_registered(unsigned long start, unsigned long end)
{
	return any_vma(start, end, "VmFlags:", says_registered, 0);
}

/* Is this address within a page of hugetlb? */
static bool within_hugetlb(unsigned long addr)
{
	return addr % HUGE && any_vma(addr, addr + 1, "KernelPageSize:",
				      says_number, HUGE >> 10);
}

/* It is refused, but by the base after part of it has been done. */
static bool unregisters_half(const struct call *c)
{
	return c->nr == UFFDIO_UNREGISTER && within_hugetlb(c->start + c->len);
}

static bool may_call(const struct call *c)
{
	return !moves_shared(c) && !moves_huge_zero(c) && !unregisters_half(c);
}

/* Where it could be one huge page that is filled. */
static bool fills_huge(const struct call *c)
{
	unsigned long first = (c->start + HUGE - 1) & ~(HUGE - 1);
	unsigned long end = (c->start + c->len) & ~(HUGE - 1);

	return c->nr == UFFDIO_COPY && c->len < 8 * WINDOW && first < end &&
	       any_vma(first, end, "THPeligible:", says_number, 1);
}

/* By the controller: nothing that it touches may fault. */
static void call_now(const struct call *c)
{
	union any_arg arg;
	long ret;

	if (uffd[c->to] < 0 || !may_call(c) || fills_huge(c))
		return;
	call_fill(c, &arg);
	say("      ");
	say_call(c);
	ret = ioctl(uffd[c->to], c->nr, &arg);
	say(" = %s", outcome(ret < 0 ? -errno : ret));
	note_call(c, ret);
	say_output(c, &arg);
	say("\n");
}

/*
 * Answers
 */

#define PM_PRESENT	(1ULL << 63)
#define PM_SWAP		(1ULL << 62)
#define PM_FILE		(1ULL << 61)
#define PM_UFFD_WP	(1ULL << 57)
#define PM_EXCLUSIVE	(1ULL << 56)
#define PM_SOFT_DIRTY	(1ULL << 55)

static __u64 entry_at(unsigned long addr)
{
	__u64 entry = 0;

	if (pread(pagemap_fd, &entry, sizeof(entry),
		  addr / page * sizeof(entry)) != sizeof(entry))
		entry = 0;
	return entry;
}

static unsigned long some_unit(const struct window *w)
{
	static const unsigned int near[] = {
		0, 1, 2, 3, 510, 511, 512, 513, 514, 1022, 1023,
	};
	unsigned int n = draw(w->units);

	if (is_huge(w) && percent(85))
		n = one_of(near);
	return n;
}

/* What a unit should be like for a call to do something. */
enum want { WHATEVER, EMPTY, PRESENT, SWAPPED, PROTECTED };

/* With some luck. */
static unsigned long wanted_unit(const struct window *w, enum want want)
{
	unsigned int i, unit = some_unit(w);
	bool ok = false;
	__u64 entry;

	for (i = 0; i < 12 && !ok; i++) {
		unit = some_unit(w);
		entry = entry_at(at(w, unit));
		switch (want) {
		case EMPTY:
			ok = !(entry & (PM_PRESENT | PM_SWAP));
			break;
		case PRESENT:
			ok = entry & PM_PRESENT;
			break;
		case SWAPPED:
			ok = entry & PM_SWAP;
			break;
		case PROTECTED:
			ok = entry & PM_UFFD_WP;
			break;
		default:
			ok = true;
		}
	}
	return unit;
}

static unsigned long some_source(size_t len)
{
	unsigned long room = len < SOURCE_LEN ? SOURCE_LEN - len : 0;

	return SOURCE + draw(room / page + 1) * page;
}

static void close_uffd(int i)
{
	struct window *w;

	if (uffd[i] < 0)
		return;
	close(uffd[i]);
	uffd[i] = -1;
	vmas_stale = true;
	for (w = win; i != CHILD && w < win + WINDOWS; w++)
		w->modes = 0;
	say("      %s closed\n", uffd_name[i]);
}

/* Nothing of it can be answered any more, so nothing must be left to answer. */
static void forget_letters(int from)
{
	unsigned int i, n = 0;

	for (i = 0; i < nr_letters; i++)
		if (letters[i].from != from)
			letters[n++] = letters[i];
	nr_letters = n;
}

/* What a handler would do about it. */
static void good_answer(struct call *c, const struct uffd_msg *m,
			const struct window *w)
{
	__u64 flags = m->arg.pagefault.flags;

	if (flags & UFFD_PAGEFAULT_FLAG_WP) {
		c->nr = UFFDIO_WRITEPROTECT;
	} else if (flags & UFFD_PAGEFAULT_FLAG_MINOR) {
		c->nr = UFFDIO_CONTINUE;
	} else if (is_hugetlb(w) || percent(70)) {
		c->nr = UFFDIO_COPY;
		c->src = some_source(c->len);
	} else {
		c->nr = UFFDIO_ZEROPAGE;
	}
}

static void any_answer(struct call *c, const struct window *w)
{
	static const unsigned int nr[] = {
		UFFDIO_WAKE, UFFDIO_COPY, UFFDIO_COPY, UFFDIO_ZEROPAGE,
		UFFDIO_CONTINUE, UFFDIO_WRITEPROTECT, UFFDIO_POISON,
		UFFDIO_MOVE, UFFDIO_UNREGISTER,
	};

	c->nr = one_of(nr);
	c->mode = percent(80) ? 0 : 1 + draw(3);
	if (c->nr == UFFDIO_WRITEPROTECT && percent(70))
		c->mode &= ~1;
	if (percent(25))
		c->len *= 1 + draw(3);
	if (c->nr == UFFDIO_COPY)
		c->src = some_source(c->len);
	if (c->nr == UFFDIO_MOVE)
		c->src = at(w, wanted_unit(w, PRESENT));
}

static void answer(const struct letter *l, bool good)
{
	unsigned long addr = l->msg.arg.pagefault.address;
	struct window *w = window_of(addr);
	struct call c = { .to = l->from };

	if (!w) {
		say("      fault outside of the windows\n");
		return;
	}
	c.start = addr & ~(w->unit - 1);
	c.len = w->unit;
	if (good || percent(65))
		good_answer(&c, &l->msg, w);
	else
		any_answer(&c, w);
	call_now(&c);
	if (c.nr != UFFDIO_WAKE && c.mode & 3 && percent(50)) {
		settle();
		c.nr = UFFDIO_WAKE;
		c.mode = 0;
		call_now(&c);
	}
}

/*
 * The first actor does not go on.  Do more and more about it.
 */
static void insist(unsigned int round)
{
	struct call c = { .nr = round < 4 ? UFFDIO_WAKE : UFFDIO_UNREGISTER };
	unsigned int i, j;

	say("    round %u\n", round);
	if (round >= 6) {
		for (i = 0; i < UFFDS; i++) {
			close_uffd(i);
			settle();
		}
		nr_letters = 0;
		return;
	}
	for (i = 0; i < WINDOWS; i++) {
		for (j = 0; j < UFFDS; j++) {
			c.to = j;
			c.start = win[i].base;
			c.len = window_len(&win[i]);
			call_now(&c);
			settle();
			if (c.nr == UFFDIO_WAKE)
				continue;
			c.nr = UFFDIO_WAKE;
			call_now(&c);
			settle();
			c.nr = UFFDIO_UNREGISTER;
		}
	}
}

/* Serve until the first actor is done, and nothing is unanswered. */
static void serve(unsigned int leave)
{
	unsigned int round = 0, served = 0;
	struct letter l;

	settle();
	while (nr_letters || at_work(&actor[0])) {
		if (!nr_letters) {
			insist(round++);
		} else if (served > 40) {
			/* To be closed has no effect on who is in a call on it. */
			insist(served++ < 44 ? 4 : 6);
			nr_letters = 0;
		} else {
			l = letters[0];
			memmove(letters, letters + 1,
				--nr_letters * sizeof(letters[0]));
			served++;
			if (percent(leave))
				say("      left\n");
			else
				answer(&l, round);
		}
		settle();
	}
}

/* The step's call, by the first actor. */
static void perform(struct op *op)
{
	actor_go(&actor[0], op);
	serve(5);
	*op = actor[0].op;
	actor[0].busy = false;
}

static long act(long nr, unsigned long a, unsigned long b, unsigned long c,
		unsigned long d, unsigned long e)
{
	struct op op = { .fn = do_call, .arg = { nr, a, b, c, d, e } };

	perform(&op);
	say("  = ");
	say_op(&op);
	say("\n");
	return op.ret;
}

/* An ioctl by the first actor, its argument at @arg. */
static long act_call(const struct call *c, char *arg, bool writable)
{
	struct op op = {
		.fn = do_call,
		.arg = { __NR_ioctl, uffd[c->to], c->nr, (unsigned long)arg },
	};
	union any_arg any;

	if (writable) {
		call_fill(c, &any);
		memcpy(arg, &any, call_size(c));
	}
	perform(&op);
	say("  = ");
	say_op(&op);
	note_call(c, op.ret);
	if (writable)
		say_output(c, arg);
	say("\n");
	return op.ret;
}

/*
 * Ranges
 */

struct span {
	unsigned long start;
	unsigned long len;
};

static struct window *some_window(void)
{
	static const int which[] = { 0, 0, 0, 0, 0, 1, 1, 2 };
	struct window *w = &win[one_of(which)];

	return w->mapped || percent(5) ? w : &win[0];
}

/* One that is registered for @modes, if there is any. */
static struct window *registered_window(__u64 modes)
{
	struct window *w = some_window();
	unsigned int i;

	for (i = 0; i < 12 && !(w->modes & modes); i++)
		w = some_window();
	return w;
}

static struct span wanted_span(const struct window *w, enum want want)
{
	static const unsigned int lens[] = { 1, 1, 1, 2, 2, 3, 4, 8 };
	unsigned int unit = wanted_unit(w, want), n = one_of(lens);

	if (percent(8)) {
		unit = 0;
		n = w->units;
	} else if (is_huge(w) && percent(25)) {
		unit = draw(2) * 512;
		n = 512;
	} else if (n > w->units - unit && percent(90)) {
		n = w->units - unit;
	}
	return (struct span){ at(w, unit), n * w->unit };
}

static struct span some_span(const struct window *w)
{
	return wanted_span(w, WHATEVER);
}

/* One that is not right, in one of many ways. */
static struct span odd_span(const struct window *w)
{
	struct span s = some_span(w);

	switch (draw(12)) {
	case 0:
		s.start += 8;
		break;
	case 1:
		s.len += 8;
		break;
	case 2:
		s.len = 0;
		break;
	case 3:
		s.len = -s.start;
		break;
	case 4:
		s.len = -s.start - page;
		break;
	case 5:
		s.len = -s.start + page;
		break;
	case 6:
		s.len = -page;
		break;
	case 7:
		s.start = w->base + window_len(w);
		break;
	case 8:
		s.start = 0xffff800000000000UL;
		break;
	case 9:
		/* From one window into the next ones. */
		s.len = win[1 + draw(2)].base + page - s.start;
		break;
	case 10:
		/* Units are halved. */
		s.start += w->unit / 2 & ~(page - 1);
		s.len -= w->unit / 2 & ~(page - 1);
		break;
	case 11:
		s.start = w->base - page;
		break;
	}
	return s;
}

static struct span any_span(const struct window *w)
{
	return percent(94) ? some_span(w) : odd_span(w);
}

/*
 * Where in a unit it is that the first actor touches, and the controller looks.
 * The others have a place of their own.
 */
static unsigned long byte_of(const struct window *w, unsigned int i)
{
	return i * (w->unit / 4 + 8);
}

static unsigned long some_byte(const struct window *w)
{
	return byte_of(w, draw(2));
}

static bool anybody_parked(void)
{
	unsigned int i;

	for (i = 1; i < ACTORS; i++)
		if (actor[i].busy)
			return true;
	return false;
}

static int some_uffd(void)
{
	if (uffd[SECOND] >= 0 && percent(15))
		return SECOND;
	return FIRST;
}

static bool any_events(void)
{
	const __u64 events = UFFD_FEATURE_EVENT_FORK |
			     UFFD_FEATURE_EVENT_REMAP |
			     UFFD_FEATURE_EVENT_REMOVE |
			     UFFD_FEATURE_EVENT_UNMAP;

	return (features[FIRST] | features[SECOND]) & events;
}

/*
 * Steps: touching memory
 */

static void draw_touch(struct op *op, const char *by)
{
	static const enum want wants[] = {
		WHATEVER, EMPTY, EMPTY, PRESENT, SWAPPED, PROTECTED,
	};
	struct window *w = percent(50) ? some_window() : registered_window(7);
	unsigned int unit = wanted_unit(w, one_of(wants));
	bool store = percent(60);

	memset(op, 0, sizeof(*op));
	op->fn = store ? do_store : do_load;
	op->arg[0] = at(w, unit) + some_byte(w);
	op->arg[1] = 1;
	op->arg[2] = w->unit;
	op->arg[3] = draw(1 << 30);
	if (percent(20) && unit + 3 <= w->units)
		op->arg[1] = 2 + draw(2);
	say("%s%s %s*%lu", by, store ? "store" : "load", place(op->arg[0]),
	    op->arg[1]);
}

static void step_touch(void)
{
	struct op op;

	draw_touch(&op, "");
	say("\n");
	perform(&op);
	say("  = ");
	say_op(&op);
	say("\n");
}

/* Somebody who may stay parked for a while. */
static void step_park(void)
{
	unsigned int i = 1 + draw(ACTORS - 1);
	char by[16];
	struct op op;

	snprintf(by, sizeof(by), "actor%u ", i);
	draw_touch(&op, by);
	if (actor[i].busy) {
		say(" is busy\n");
		return;
	}
	say("\n");
	op.arg[0] += byte_of(window_of(op.arg[0]), 1 + i) -
		     op.arg[0] % window_of(op.arg[0])->unit;
	op.arg[1] = 1;
	actor_go(&actor[i], &op);
	serve(75);
}

/* By the kernel: get_user_pages() in kernel mode. */
static void step_vm(void)
{
	struct window *w = some_window();
	struct span s = some_span(w);
	bool store = percent(50) && !anybody_parked();
	struct iovec local, remote;

	if (s.len > 3 * page)
		s.len = 3 * page;
	s.start += some_byte(w) & (page - 1);
	s.len -= 16;
	local.iov_base = (void *)(store ? some_source(s.len) :
				  (unsigned long)desk + page / 2);
	local.iov_len = store ? s.len : 8;
	remote.iov_base = (void *)s.start;
	remote.iov_len = s.len;
	memcpy(desk + 1024, &local, sizeof(local));
	memcpy(desk + 1024 + sizeof(local), &remote, sizeof(remote));
	if (!store)
		memset(desk + page / 2, 0xee, 8);
	say("process_vm_%s %s*0x%lx\n", store ? "writev" : "readv",
	    place(s.start), s.len);
	act(store ? __NR_process_vm_writev : __NR_process_vm_readv,
	    getpid(), (unsigned long)desk + 1024, 1,
	    (unsigned long)desk + 1024 + sizeof(local), 1);
	if (!store)
		say("  data %016llx\n",
		    *(unsigned long long *)(desk + page / 2));
}

/* By the kernel: copy_to_user() and copy_from_user(). */
static void step_copy_user(void)
{
	struct window *w = some_window();
	unsigned long addr = at(w, some_unit(w)) + some_byte(w);
	bool store = percent(50);
	char buf[64];
	int pipefd[2];
	ssize_t n;

	must(!pipe2(pipefd, O_NONBLOCK | O_CLOEXEC), "pipe");
	say("%s pipe %s\n", store ? "read" : "write", place(addr));
	if (store) {
		memset(buf, draw(255), 16);
		must(write(pipefd[1], buf, 16) == 16, "pipe");
		act(__NR_read, pipefd[0], addr, 16, 0, 0);
	} else {
		act(__NR_write, pipefd[1], addr, 16, 0, 0);
		n = read(pipefd[0], buf, 8);
		if (n == 8)
			say("  data %016llx\n", *(unsigned long long *)buf);
	}
	close(pipefd[0]);
	close(pipefd[1]);
}

/*
 * Steps: calls on the descriptor
 */

static unsigned long odd_source(void)
{
	switch (draw(5)) {
	case 0:
		return some_source(HUGE) + 8 * (1 + draw(300));
	case 1:
		return NOWHERE;
	case 2:
		return (unsigned long)UK_KERNEL_SPACE;
	case 3:
		return SOURCE + SOURCE_LEN - page * draw(4);
	default:
		return at(&win[draw(WINDOWS)], 0) + draw(2) * 16;
	}
}

static __u64 some_mode(unsigned int nr)
{
	if (percent(4))
		return 1ULL << draw(64);
	switch (nr) {
	case UFFDIO_REGISTER:
		return percent(95) ? 1 + draw(7) : draw(9);
	case UFFDIO_WRITEPROTECT:
		return percent(70) ? draw(2) : draw(4);
	case UFFDIO_UNREGISTER:
	case UFFDIO_WAKE:
		return 0;
	default:
		return (percent(20) ? 1 : 0) | (percent(30) ? 2 : 0);
	}
}

static __u64 good_modes(const struct window *w)
{
	__u64 mode = 1 + draw(7);

	if (is_anon(w))
		mode &= ~UFFDIO_REGISTER_MODE_MINOR;
	return mode ? mode : UFFDIO_REGISTER_MODE_MISSING;
}

/* What memory stays registered for: see above. */
static __u64 lasting_modes(void)
{
	return protected ? UFFDIO_REGISTER_MODE_WP : 0;
}

/* Where a call of this kind can do something. */
static struct window *fit_window(unsigned int nr)
{
	struct window *w;
	unsigned int i;

	for (i = 0; i < 6; i++) {
		switch (nr) {
		case UFFDIO_REGISTER:
		case UFFDIO_UNREGISTER:
		case UFFDIO_WAKE:
			return some_window();
		case UFFDIO_WRITEPROTECT:
			w = registered_window(UFFDIO_REGISTER_MODE_WP);
			break;
		case UFFDIO_CONTINUE:
			w = registered_window(UFFDIO_REGISTER_MODE_MINOR);
			if (!is_anon(w))
				return w;
			continue;
		case UFFDIO_MOVE:
			w = registered_window(7);
			if (is_anon(w))
				return w;
			continue;
		default:
			w = registered_window(7);
		}
		return w;
	}
	return some_window();
}

static struct span fit_span(const struct window *w, unsigned int nr)
{
	static const enum want present[] = { PRESENT, PRESENT, SWAPPED, EMPTY };

	if (percent(6))
		return odd_span(w);
	switch (nr) {
	case UFFDIO_COPY:
	case UFFDIO_ZEROPAGE:
	case UFFDIO_CONTINUE:
	case UFFDIO_POISON:
	case UFFDIO_MOVE:
		return wanted_span(w, EMPTY);
	case UFFDIO_WRITEPROTECT:
		return wanted_span(w, one_of(present));
	default:
		return some_span(w);
	}
}

static void draw_call(struct call *c, unsigned int nr)
{
	struct window *w = fit_window(nr), *from;
	struct span s = fit_span(w, nr);

	c->nr = nr;
	c->to = some_uffd();
	c->start = s.start;
	c->len = s.len;
	c->src = 0;
	c->mode = some_mode(nr);
	if (c->mode & 2 && (nr == UFFDIO_COPY || nr == UFFDIO_CONTINUE) &&
	    !(w->modes & UFFDIO_REGISTER_MODE_WP) && percent(80))
		c->mode &= ~2;
	if (nr == UFFDIO_REGISTER && percent(60)) {
		c->start = w->base;
		c->len = window_len(w);
		c->mode = good_modes(w);
	}
	if (nr == UFFDIO_REGISTER)
		c->mode |= lasting_modes();
	if (nr == UFFDIO_COPY)
		/* What is parked might write to another source in the meantime. */
		c->src = percent(85) || anybody_parked() ? some_source(s.len) :
			 percent(70) ? at(some_window(), some_unit(w)) :
				       odd_source();
	if (fills_huge(c))
		c->len = ((c->start - 1) & ~(HUGE - 1)) + 2 * HUGE - page -
			 c->start;
	if (nr == UFFDIO_MOVE) {
		from = is_anon(&win[1]) ? some_window() : w;
		c->src = percent(93) ?
			 at(from, wanted_unit(from, percent(75) ? PRESENT :
							  SWAPPED)) :
			 odd_source();
		if (is_huge(w) && percent(40)) {
			c->src &= ~(HUGE - 1);
			if (percent(60)) {
				c->start &= ~(HUGE - 1);
				c->len = HUGE;
			}
		}
	}
}

/* Is the answer to be written where nothing can be? */
static char *some_desk(const struct call *c, bool *writable)
{
	const struct call_name *name = call_of(c->nr);

	*writable = true;
	if (percent(96))
		return desk;
	*writable = false;
	switch (draw(3)) {
	case 0:
		say("  argument nowhere\n");
		return (char *)NOWHERE;
	case 1:
		say("  argument in the kernel\n");
		return (char *)UK_KERNEL_SPACE;
	}
	/* Filled, but not woken: left out while somebody waits. */
	if (anybody_parked())
		return (char *)NOWHERE;
	say("  answer read-only\n");
	if (name->out) {
		union any_arg any;

		call_fill(c, &any);
		memcpy(desk + page - name->out, &any, name->out);
		return desk + page - name->out;
	}
	return desk + page;
}

/* So that there is something to continue with. */
static void fill_file(const struct call *c)
{
	struct window *w = window_of(c->start);
	struct op op = { .fn = do_store };

	if (w != win || w->fd < 0 || c->start < w->base ||
	    c->len > window_len(w))
		return;
	op.arg[0] = (ALIAS + c->start - w->base) & ~(page - 1);
	op.arg[1] = c->len / w->unit;
	op.arg[2] = w->unit;
	op.arg[3] = draw(1 << 30);
	say("file filled: ");
	perform(&op);
	say_op(&op);
	say("; ");
}

static void step_ioctl(void)
{
	static const unsigned int nr[] = {
		UFFDIO_REGISTER, UFFDIO_REGISTER, UFFDIO_UNREGISTER,
		UFFDIO_WAKE, UFFDIO_COPY, UFFDIO_COPY, UFFDIO_COPY,
		UFFDIO_ZEROPAGE, UFFDIO_ZEROPAGE, UFFDIO_CONTINUE,
		UFFDIO_CONTINUE, UFFDIO_WRITEPROTECT, UFFDIO_WRITEPROTECT,
		UFFDIO_WRITEPROTECT, UFFDIO_POISON, UFFDIO_MOVE, UFFDIO_MOVE,
		UFFDIO_MOVE,
	};
	bool writable;
	struct call c;
	char *arg;

	draw_call(&c, one_of(nr));
	if (uffd[c.to] < 0) {
		say("ioctl without a descriptor\n");
		return;
	}
	if (!may_call(&c)) {
		say("call left out\n");
		return;
	}
	if (c.nr == UFFDIO_CONTINUE && percent(60))
		fill_file(&c);
	say_call(&c);
	say("\n");
	arg = some_desk(&c, &writable);
	act_call(&c, arg, writable);
}

static int new_uffd(int i, int flags, __u64 want)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd, ret;

	if (i == SECOND)
		want &= ~UFFD_FEATURE_EVENT_FORK;
	api.features = want;
	fd = uk_open(flags | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		say("%s cannot be opened: %s\n", uffd_name[i], outcome(fd));
		return fd;
	}
	ret = ioctl(fd, UFFDIO_API, &api) ? -errno : 0;
	say("%s flags %x features %llx = %s api %llx offers %llx ioctls %llx\n",
	    uffd_name[i], flags, want, outcome(ret), api.api,
	    api.features & PLAYED_FEATURES, api.ioctls & PLAYED_IOCTLS);
	uffd[i] = fd;
	features[i] = want;
	return fd;
}

static __u64 some_features(void)
{
	__u64 some = 0, rare = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_ASYNC;
	unsigned int i, chance = draw(4) * 25;

	for (i = 0; i < 64; i++)
		if (percent(chance))
			some |= 1ULL << i;
	if (percent(80))
		some &= ~rare;
	return some & offered;
}

/* Handshakes of all kinds, on a descriptor of their own. */
static void step_handshake(void)
{
	struct uffdio_api api;
	unsigned int i, n = 1 + draw(3);
	char *arg = desk;
	int fd;

	fd = uk_open(O_NONBLOCK | O_CLOEXEC | (percent(20) ? 1 : 0));
	say("handshake: fd %s, ", fd < 0 ? outcome(fd) : "ok");
	if (percent(20)) {
		api.api = ioctl(fd, UFFDIO_WAKE, desk);
		say("wake before it %s, ", outcome(-errno));
		api.api = read(fd, desk, 64);
		say("read %s, ", outcome(-errno));
		say("poll %x, ", uk_poll(fd, 0));
	}
	for (i = 0; i < n; i++) {
		memset(&api, 0, sizeof(api));
		api.api = percent(85) ? UFFD_API : draw(0x200);
		api.features = some_features();
		if (percent(25))
			api.features |= (1ULL << draw(64)) & ~LATER_FEATURES;
		api.ioctls = UK_UNSET;
		if (percent(10))
			arg = (char *)NOWHERE;
		else
			memcpy(desk, &api, sizeof(api));
		say("api %llx features %llx", api.api, api.features);
		say(" = %s", outcome(ioctl(fd, UFFDIO_API, arg) ? -errno : 0));
		if (arg == desk) {
			memcpy(&api, desk, sizeof(api));
			say(" %llx %llx %llx", api.api,
			    api.features & PLAYED_FEATURES,
			    api.ioctls & PLAYED_IOCTLS);
		}
		say("; ");
		arg = desk;
	}
	say("poll %x\n", uk_poll(fd, 0));
	close(fd);
}

/* Odds and ends that must not matter. */
static void step_misc(void)
{
	int i = some_uffd(), fd = uffd[i];
	struct uffd_msg msg[2];
	long ret;

	if (fd < 0) {
		say("nothing without a descriptor\n");
		return;
	}
	say("%s ", uffd_name[i]);
	switch (draw(6)) {
	case 0:
		ret = ioctl(fd, _IOWR(UFFDIO, 0x20 + draw(8), struct uffdio_api),
			    desk);
		say("unknown ioctl = %s\n", outcome(ret ? -errno : 0));
		break;
	case 1:
		ret = ioctl(fd, UFFDIO_COPY ^ (1 << 16), desk);
		say("ioctl of another size = %s\n", outcome(ret ? -errno : 0));
		break;
	case 2:
		ret = read(fd, msg, draw(32));
		say("short read = %s\n", outcome(ret < 0 ? -errno : ret));
		break;
	case 3:
		ret = read(fd, (void *)NOWHERE, sizeof(msg));
		say("read to nowhere = %s\n", outcome(ret < 0 ? -errno : ret));
		break;
	case 4:
		ret = write(fd, msg, sizeof(msg));
		say("write = %s\n", outcome(ret < 0 ? -errno : ret));
		break;
	case 5:
		ret = lseek(fd, 0, SEEK_SET);
		say("lseek = %s\n", outcome(ret < 0 ? -errno : ret));
		break;
	}
}

static void step_close(void)
{
	int i = some_uffd();

	say("close %s\n", uffd_name[i]);
	if (uffd[i] >= 0) {
		forget_letters(i);
		close_uffd(i);
		serve(0);
	}
	new_uffd(i, percent(20) ? UFFD_USER_MODE_ONLY : 0, some_features());
}

/*
 * Steps: other calls on the memory
 */

static const struct advice {
	int nr;
	const char *name;
	unsigned int weight;
} advices[] = {
	{ MADV_DONTNEED,	"DONTNEED",		6 },
	{ MADV_REMOVE,		"REMOVE",		4 },
	{ MADV_FREE,		"FREE",			3 },
	{ MADV_PAGEOUT,		"PAGEOUT",		6 },
	{ MADV_COLD,		"COLD",			1 },
	{ MADV_WILLNEED,	"WILLNEED",		1 },
	{ MADV_COLLAPSE,	"COLLAPSE",		2 },
	{ MADV_HUGEPAGE,	"HUGEPAGE",		1 },
	{ MADV_NOHUGEPAGE,	"NOHUGEPAGE",		1 },
	{ MADV_POPULATE_READ,	"POPULATE_READ",	3 },
	{ MADV_POPULATE_WRITE,	"POPULATE_WRITE",	3 },
	{ MADV_DONTFORK,	"DONTFORK",		1 },
	{ MADV_DOFORK,		"DOFORK",		1 },
	{ MADV_WIPEONFORK,	"WIPEONFORK",		1 },
	{ MADV_KEEPONFORK,	"KEEPONFORK",		1 },
};

static const struct advice *some_advice(void)
{
	unsigned int i, sum = 0, n;

	for (i = 0; i < COUNT(advices); i++)
		sum += advices[i].weight;
	n = draw(sum);
	for (i = 0; n >= advices[i].weight; i++)
		n -= advices[i].weight;
	return &advices[i];
}

static void step_madvise(void)
{
	const struct advice *a = some_advice();
	struct window *w = some_window();
	struct span s = any_span(w);

	if (a->nr == MADV_COLLAPSE && percent(85)) {
		if (!is_huge(w))
			w = &win[0];
		if (!is_huge(w))
			a = &advices[0];
		s.start = w->base + (is_huge(w) ? draw(2) * HUGE : 0);
		s.len = is_huge(w) ? HUGE : page;
	}
	if (a->nr == MADV_REMOVE && is_private(w) && percent(85))
		a = &advices[0];
	if (a->nr == MADV_FREE && !is_anon(w) && percent(85))
		a = &advices[0];
	if (a->nr == MADV_PAGEOUT && percent(70)) {
		if (is_hugetlb(w))
			a = &advices[0];
		else
			s = wanted_span(w, PRESENT);
	}
	if ((a->nr == MADV_POPULATE_READ || a->nr == MADV_POPULATE_WRITE) &&
	    s.len > 4 * w->unit)
		s.len = 4 * w->unit;
	/* That much would reach our own memory. */
	if (s.len > 8 * WINDOW)
		s.len = page;
	say("madvise %s %s*0x%lx\n", a->name, place(s.start), s.len);
	act(__NR_madvise, s.start, s.len, a->nr, 0, 0);
}

/* Does it fail, after some mappings may have been told of? */
static bool unmaps_half(unsigned long end)
{
	return (features[FIRST] | features[SECOND]) & UFFD_FEATURE_EVENT_UNMAP &&
	       within_hugetlb(end);
}

/* Could it grow together with what is registered at its new place, and forget that? */
static bool forgets_neighbours(struct span s, unsigned long target,
			       unsigned long len)
{
	return target && any_registered(s.start, s.start + s.len + 1) &&
	       (any_registered(target - 1, target) ||
		any_registered(target + len, target + len + 1));
}

static void step_mremap(void)
{
	struct window *w = some_window();
	struct window *to = w == &win[1] ? w : &win[w == win ? 2 : 0];
	struct span s = some_span(w);
	unsigned long len = s.len, target = 0;
	int flags = 0;

	/* In place, but not over what is there. */
	switch (draw(10)) {
	case 0:
		len = (1 + draw(4)) * w->unit;
		break;
	case 1:
		s.start = w->base + window_len(w) - w->unit;
		s.len = w->unit;
		len = (1 + draw(3)) * w->unit;
		break;
	case 2:
		flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
		target = at(to, some_unit(to));
		break;
	case 3:
		flags = MREMAP_MAYMOVE | MREMAP_FIXED;
		target = at(to, some_unit(to)) + (percent(20) ? 8 : 0);
		s.len = percent(20) ? 0 : s.len;
		break;
	case 4:
		s = odd_span(w);
		len = s.len;
		flags = MREMAP_MAYMOVE | MREMAP_FIXED;
		target = to->base;
		if (len > WINDOW)
			len = w->unit;
		break;
	default:
		flags = MREMAP_MAYMOVE | MREMAP_FIXED;
		if (percent(25))
			len = (1 + draw(5)) * w->unit;
		target = percent(50) ? s.start - w->base + to->base :
				       at(to, some_unit(to));
	}
	if ((w->was_locked || to->was_locked) && any_events()) {
		say("mremap of locked memory left out\n");
		return;
	}
	if (unmaps_half(s.start + s.len) ||
	    (target && unmaps_half(target + len))) {
		say("mremap to within a huge page left out\n");
		return;
	}
	if (forgets_neighbours(s, target, len)) {
		say("mremap beside what is registered left out\n");
		return;
	}
	say("mremap %s*0x%lx to 0x%lx flags %x at %s\n", place(s.start), s.len,
	    len, flags, place(target));
	to->was_forked |= w->was_forked;
	any_order = uffd[SECOND] >= 0 || (target && len < s.len);
	if (act(__NR_mremap, s.start, s.len, len, flags, target) > 0 && target)
		to->mapped = true;
}

static void step_munmap(void)
{
	struct window *w = some_window();
	struct span s = any_span(w);

	if (s.len > 8 * WINDOW)
		s.len = page;
	if (unmaps_half(s.start + s.len)) {
		say("munmap to within a huge page left out\n");
		return;
	}
	say("munmap %s*0x%lx\n", place(s.start), s.len);
	act(__NR_munmap, s.start, s.len, 0, 0, 0);
}

/* A new mapping over what is there, of the window's type or another one. */
static void step_mmap(void)
{
	struct window *w = some_window();
	struct window *like = percent(75) ? w : &win[draw(2)];
	struct span s = some_span(w);
	unsigned long offset = s.start - w->base;
	int prot = percent(80) ? PROT_READ | PROT_WRITE : PROT_READ;
	struct op op = { .fn = do_call };

	if (percent(40)) {
		s.start = w->base;
		s.len = window_len(w);
		offset = 0;
	}
	if (unmaps_half(s.start + s.len)) {
		say("mmap to within a huge page left out\n");
		return;
	}
	say("mmap %s*0x%lx as %s prot %d\n", place(s.start), s.len,
	    type_name[like->type], prot);
	op.arg[0] = __NR_mmap;
	op.arg[1] = s.start;
	op.arg[2] = s.len;
	op.arg[3] = prot;
	op.arg[4] = map_flags(like) | MAP_FIXED;
	op.arg[5] = like->fd;
	op.arg[6] = is_anon(like) ? 0 : offset;
	perform(&op);
	say("  = %s\n", op.ret >= 0 || op.ret < -4095 ? place(op.ret) :
							outcome(op.ret));
	if (op.ret > 0 && is_huge(like))
		act(__NR_madvise, s.start, s.len, MADV_HUGEPAGE, 0, 0);
}

/* After much has been unmapped and moved: a window as in the beginning. */
static void step_renew(void)
{
	struct window *w = some_window();
	struct call c = { .nr = UFFDIO_REGISTER, .to = some_uffd() };
	struct op op = { .fn = do_call };

	say("renew w%d\n", (int)(w - win));
	op.arg[0] = __NR_mmap;
	op.arg[1] = w->base;
	op.arg[2] = window_len(w);
	op.arg[3] = PROT_READ | PROT_WRITE;
	op.arg[4] = map_flags(w) | MAP_FIXED;
	op.arg[5] = w->fd;
	perform(&op);
	say("  = %s\n", outcome(op.ret < 0 ? op.ret : 0));
	w->mapped = true;
	w->was_locked = false;
	w->was_forked = false;
	w->modes = 0;
	if (window_advice(w) >= 0)
		act(__NR_madvise, w->base, window_len(w), window_advice(w), 0,
		    0);
	if (w->fd >= 0)
		act(__NR_ftruncate, w->fd, window_len(w), 0, 0, 0);
	if (percent(50)) {
		/* Let there be something. */
		op.fn = do_store;
		op.arg[0] = at(w, some_unit(w));
		op.arg[1] = 1 + draw(3);
		op.arg[2] = w->unit;
		op.arg[3] = draw(1 << 30);
		perform(&op);
		say("  store %s*%lu = ", place(op.arg[0]), op.arg[1]);
		say_op(&op);
		say("\n");
	}
	if (uffd[c.to] < 0 || percent(10))
		return;
	c.start = w->base;
	c.len = window_len(w);
	c.mode = good_modes(w) | lasting_modes();
	say("  ");
	say_call(&c);
	say("\n");
	act_call(&c, desk, true);
}

static void step_mprotect(void)
{
	static const int prots[] = {
		PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ,
		PROT_READ, PROT_NONE, PROT_READ | PROT_EXEC,
	};
	struct window *w = some_window();
	struct span s = any_span(w);
	int prot = one_of(prots);

	if (percent(50)) {
		s = (struct span){ w->base, window_len(w) };
		prot = PROT_READ | PROT_WRITE;
	}
	if (s.len > 8 * WINDOW)
		s.len = page;
	say("mprotect %s*0x%lx %d\n", place(s.start), s.len, prot);
	act(__NR_mprotect, s.start, s.len, prot, 0, 0);
}

static void step_mlock(void)
{
	struct window *w = some_window();
	struct span s = any_span(w);
	unsigned int how = draw(4);

	if (s.len > 4 * w->unit)
		s.len = 4 * w->unit;
	if (how < 2) {
		say("mlock%s %s*0x%lx\n", how ? " onfault" : "",
		    place(s.start), s.len);
		w->was_locked = true;
		act(__NR_mlock2, s.start, s.len, how, 0, 0);
	} else {
		say("munlock %s*0x%lx\n", place(s.start), s.len);
		act(__NR_munlock, s.start, s.len, 0, 0, 0);
	}
}

/* The file behind a window changes. */
static void step_file(void)
{
	struct window *w = &win[draw(2)];
	struct span s = some_span(w);
	unsigned long offset = s.start - w->base;
	struct op op = { .fn = do_store };

	if (w->fd < 0) {
		say("no file\n");
		return;
	}
	switch (draw(5)) {
	case 0:
		say("punch hole %s*0x%lx\n", place(s.start), s.len);
		act(__NR_fallocate, w->fd,
		    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, s.len,
		    0);
		break;
	case 1:
		say("fallocate %s*0x%lx\n", place(s.start), s.len);
		if (s.len > 8 * w->unit)
			s.len = 8 * w->unit;
		act(__NR_fallocate, w->fd, 0, offset, s.len, 0);
		break;
	case 2:
		if (percent(50))
			offset = window_len(w);
		say("truncate %s\n", place(w->base + offset));
		act(__NR_ftruncate, w->fd, offset, 0, 0, 0);
		break;
	default:
		if (w != win) {
			say("no alias\n");
			return;
		}
		/* Through another mapping, for minor faults to find. */
		op.arg[0] = ALIAS + offset + some_byte(w);
		op.arg[1] = 1 + draw(2);
		op.arg[2] = w->unit;
		op.arg[3] = draw(1 << 30);
		say("store %s*%lu\n", place(op.arg[0]), op.arg[1]);
		perform(&op);
		say("  = ");
		say_op(&op);
		say("\n");
	}
}

/*
 * Fork
 */

static unsigned char bits_of(__u64 entry)
{
	/* Swapped, present, then the high half of the soft bits. */
	return entry >> 61 << 4 | (entry >> 55 & 7);
}

static void heir_look(void)
{
	unsigned int i, j;
	__u64 entry;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	for (i = 0; i < WINDOWS; i++) {
		for (j = 0; j < 16 && j < win[i].units; j++) {
			entry = 0;
			if (pread(fd, &entry, sizeof(entry),
				  at(&win[i], j) / page * sizeof(entry)) !=
			    sizeof(entry))
				entry = 0;
			heir->bits[i][j] = bits_of(entry) &
					   ~(no_soft_dirty ? 1 : 0);
		}
	}
	close(fd);
}

static int heir_body(void *arg)
{
	unsigned int i;

	(void)arg;
	uk_set(&heir->pid, getpid());
	heir_look();
	for (i = 0; i < heir->nr; i++) {
		run_op(&heir->op[i]);
		heir->done[i] = true;
	}
	return 7;
}

static long do_fork(struct op *op)
{
	int status;
	pid_t pid;

	(void)op;
	pid = uk_spawn_by_thread(heir_body, NULL, 0);
	if (pid < 0)
		return pid;
	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			return -errno;
	uk_set(&heir->pid, 0);
	return status;
}

static void say_heir(void)
{
	unsigned int i, j;

	for (i = 0; i < heir->nr; i++) {
		bool call = heir->op[i].fn == do_call;

		say("  child ");
		if (call)
			say_call(&heir->call[i]);
		else
			say("%s %s",
			    heir->op[i].fn == do_store ? "store" : "load",
			    place(heir->op[i].arg[0]));
		say(" = ");
		if (heir->done[i])
			say_op(&heir->op[i]);
		else
			say("not done");
		if (call && heir->done[i]) {
			note_call(&heir->call[i], heir->op[i].ret);
			say_output(&heir->call[i], &heir->arg[i]);
		}
		say("\n");
	}
	for (i = 0; i < WINDOWS; i++) {
		say("  child w%u", i);
		for (j = 0; j < 16 && j < win[i].units; j++)
			say(" %x", heir->bits[i][j]);
		say("\n");
	}
}

/* Is there no way to ask it not to wake? */
static bool only_wakes(const struct call *c)
{
	return c->nr == UFFDIO_WAKE || c->nr == UFFDIO_UNREGISTER;
}

static void draw_heir_call(unsigned int i)
{
	static const unsigned int nr[] = {
		UFFDIO_COPY, UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_CONTINUE,
		UFFDIO_WRITEPROTECT, UFFDIO_POISON, UFFDIO_MOVE,
		UFFDIO_UNREGISTER, UFFDIO_WAKE,
	};
	struct call *c = &heir->call[i];
	struct op *op = &heir->op[i];

	do {
		draw_call(c, one_of(nr));
	} while (!may_call(c) || (anybody_parked() && only_wakes(c)));
	c->to = FIRST;
	/* What is parked in the parent would not be waited for. */
	if (c->nr == UFFDIO_COPY)
		c->src = some_source(c->len);
	if (anybody_parked())
		c->mode |= c->nr == UFFDIO_WRITEPROTECT ?
			   UFFDIO_WRITEPROTECT_MODE_DONTWAKE :
			   UFFDIO_COPY_MODE_DONTWAKE;
	call_fill(c, &heir->arg[i]);
	op->fn = do_call;
	op->arg[0] = __NR_ioctl;
	op->arg[1] = uffd[FIRST];
	op->arg[2] = c->nr;
	op->arg[3] = (unsigned long)&heir->arg[i];
}

static void draw_heir(void)
{
	struct op *op = heir->op;
	unsigned int i;

	for (i = 0; i < WINDOWS; i++)
		win[i].was_forked = true;
	memset(heir, 0, sizeof(*heir));
	for (heir->nr = 0; heir->nr < TOUCHES && percent(75); heir->nr++, op++) {
		struct window *w = some_window();

		if (percent(30) && uffd[FIRST] >= 0) {
			draw_heir_call(heir->nr);
			continue;
		}
		op->fn = percent(50) ? do_store : do_load;
		op->arg[0] = at(w, some_unit(w)) + some_byte(w);
		op->arg[1] = 1;
		op->arg[2] = w->unit;
		op->arg[3] = draw(1 << 30);
	}
}

static void step_fork(void)
{
	struct op op = { .fn = do_fork };
	struct call c = { .nr = UFFDIO_COPY, .to = CHILD };

	draw_heir();
	say("fork\n");
	perform(&op);
	say("  = ");
	say_op(&op);
	say("\n");
	if (op.ret >= 0)
		say_heir();
	if (uffd[CHILD] >= 0) {
		/* Whose memory is gone. */
		c.start = win[0].base;
		c.len = win[0].unit;
		c.src = some_source(c.len);
		if (percent(50))
			c.nr = one_of(((unsigned int[]){
				UFFDIO_ZEROPAGE, UFFDIO_CONTINUE,
				UFFDIO_WRITEPROTECT, UFFDIO_POISON,
				UFFDIO_MOVE, UFFDIO_WAKE, UFFDIO_UNREGISTER }));
		call_now(&c);
		forget_letters(CHILD);
		close_uffd(CHILD);
	}
}

/*
 * An event, a call that it concerns before it is read, and one after.
 */
static bool event_waits(void)
{
	long long end = uk_now() + MS_REST;
	struct uk_info info;

	while (at_work(&actor[0])) {
		if (uk_poll(uffd[FIRST], 5) == POLLIN) {
			uk_fdinfo(uffd[FIRST], &info);
			return !info.pending;
		}
		if (uk_now() > end)
			stuck();
	}
	return false;
}

static void step_gate(void)
{
	static const unsigned int nr[] = {
		UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_CONTINUE,
		UFFDIO_WRITEPROTECT, UFFDIO_POISON, UFFDIO_MOVE,
	};
	struct window *w = &win[0];
	struct op op = { .fn = do_call };
	struct call c = { .to = FIRST };
	unsigned int i, unit = some_unit(w);
	static unsigned int moved;
	unsigned long to;
	unsigned char in[HUGE / 4096];

	c.start = at(w, unit);
	if (uffd[FIRST] < 0 || uffd[SECOND] >= 0 || w->was_locked ||
	    win[2].was_locked) {
		say("no gate\n");
		return;
	}
	op.arg[1] = at(w, unit);
	op.arg[2] = w->unit;
	/* Where nothing is, for which there would be an event first. */
	to = at(&win[2], win[2].units + moved);
	switch (draw(moved < 8 && mincore((void *)to, w->unit, in) ? 4 : 3)) {
	case 0:
		say("gate: DONTNEED");
		op.arg[0] = __NR_madvise;
		op.arg[3] = is_private(w) ? MADV_DONTNEED : MADV_REMOVE;
		break;
	case 1:
		say("gate: munmap");
		op.arg[0] = __NR_munmap;
		break;
	case 3:
		say("gate: mremap");
		op.arg[0] = __NR_mremap;
		op.arg[3] = w->unit;
		op.arg[4] = MREMAP_MAYMOVE | MREMAP_FIXED;
		op.arg[5] = to;
		moved++;
		break;
	case 2:
		say("gate: fork");
		draw_heir();
		op.fn = do_fork;
		break;
	}
	say(" %s\n", place(op.arg[1]));
	w->was_forked |= op.fn == do_fork;
	win[2].was_forked |= w->was_forked;
	actor_go(&actor[0], &op);
	if (event_waits()) {
		for (i = 0; i < 2; i++) {
			c.nr = one_of(nr);
			c.len = w->unit;
			c.mode = 0;
			c.src = c.nr == UFFDIO_MOVE ? at(&win[1], 0) :
						      some_source(c.len);
			call_now(&c);
		}
	}
	serve(5);
	say("  = ");
	say_op(&actor[0].op);
	say("\n");
	actor[0].busy = false;
	if (op.fn == do_fork)
		say_heir();
	forget_letters(CHILD);
	close_uffd(CHILD);
}

/*
 * A fault that is resolved before its message is read.
 */
static void step_before_read(void)
{
	struct window *w = some_window();
	struct op op = { .fn = do_store };
	struct call c = { .to = FIRST };
	long long end = uk_now() + MS_REST;
	struct uk_info info;
	unsigned int i, nr;

	if (uffd[FIRST] < 0 || uffd[SECOND] >= 0) {
		say("nothing before a read\n");
		return;
	}
	op.arg[0] = at(w, some_unit(w));
	op.arg[1] = 1;
	op.arg[2] = w->unit;
	op.arg[3] = draw(1 << 30);
	nr = draw(4);
	say("store %s before it is read\n", place(op.arg[0]));
	actor_go(&actor[0], &op);
	while (at_work(&actor[0]) && uk_poll(uffd[FIRST], 5) != POLLIN)
		if (uk_now() > end)
			stuck();
	if (at_work(&actor[0])) {
		uk_fdinfo(uffd[FIRST], &info);
		say("    pending %lu total %lu\n", info.pending, info.total);
		for (i = 0; i < nr; i++) {
			c.nr = i ? UFFDIO_WRITEPROTECT :
			       is_hugetlb(w) || percent(60) ? UFFDIO_COPY :
							      UFFDIO_ZEROPAGE;
			c.start = op.arg[0] & ~(w->unit - 1);
			c.len = w->unit;
			c.src = some_source(c.len);
			c.mode = percent(30);
			/* The first one may have let it go on. */
			if (i)
				settle();
			call_now(&c);
		}
	}
	serve(5);
	say("  = ");
	say_op(&actor[0].op);
	say("\n");
	actor[0].busy = false;
}

/*
 * Looking
 */

#define REGIONS	64

static void do_scan(struct span s, __u64 flags, __u64 mask, __u64 inverted,
		    __u64 max)
{
	static struct page_region vec[REGIONS];
	__u64 known = PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN | PAGE_IS_FILE |
		      PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO |
		      PAGE_IS_HUGE;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = flags,
		.start = s.start,
		.end = s.start + s.len,
		.vec = (unsigned long)vec,
		.vec_len = REGIONS,
		.max_pages = max,
		.category_inverted = inverted,
		.category_mask = mask,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = known,
	};
	long i, n;

#ifdef PAGE_IS_SOFT_DIRTY
	if (!no_soft_dirty)
		arg.return_mask |= PAGE_IS_SOFT_DIRTY;
#endif
	n = ioctl(pagemap_fd, PAGEMAP_SCAN, &arg);
	say("  scan %s*0x%lx = %s to %s:", place(s.start), s.len,
	    outcome(n < 0 ? -errno : n), place(arg.walk_end));
	for (i = 0; i < n; i++)
		say(" %s*%llu:%llx", place(vec[i].start),
		    (vec[i].end - vec[i].start) / page, vec[i].categories);
	say("\n");
}

static void step_scan(void)
{
	struct window *w = some_window();
	struct span s = some_span(w);
	__u64 flags = draw(4);

	say("scan flags %llx\n", flags);
	do_scan(s, flags, percent(50) ? 0 : 1 << draw(7),
		percent(80) ? 0 : 1 << draw(3), percent(70) ? 0 : 1 + draw(6));
}

static void step_clear_refs(void)
{
	say("clear soft-dirty bits\n");
	if (!no_soft_dirty)
		uk_write_file("/proc/self/clear_refs", "4");
}

/*
 * Contents of a unit that is present, or false if it may not be read.  Where
 * small pages have come to lie in a window of huge ones some may be missing.
 */
static bool digest(const struct window *w, unsigned int unit, __u64 *sum)
{
	__u64 *p;
	unsigned int i;
	sigjmp_buf here;
	bool ok = false;

	landing = &here;
	if (!sigsetjmp(here, 0)) {
		for (i = 0; i < 4; i++) {
			p = (__u64 *)(at(w, unit) +
				      (i * (w->unit / 4 + 8) & (w->unit - 1)));
			if (w->unit == page ||
			    entry_at((unsigned long)p) & PM_PRESENT)
				*sum = mix(*sum ^ uk_get(p));
		}
		ok = true;
	}
	landing = NULL;
	return ok;
}

static size_t describe_run(char *buf, size_t room, const struct window *w,
			   unsigned int from, unsigned int to, __u64 entry)
{
	bool readable = true;
	unsigned int i;
	__u64 sum = 0;
	int n;

	n = snprintf(buf, room, " %u", from);
	if (to - from > 1)
		n += snprintf(buf + n, room - n, "-%u", to - 1);
	n += snprintf(buf + n, room - n, ":%s%s%s%s%s%s",
		      entry & PM_PRESENT ? "P" : "",
		      entry & PM_SWAP ? "S" : "",
		      entry & PM_FILE ? "f" : "",
		      entry & PM_UFFD_WP ? "w" : "",
		      entry & PM_EXCLUSIVE ? "x" : "",
		      entry & PM_SOFT_DIRTY ? "d" : "");
	if (entry & PM_PRESENT) {
		for (i = from; i < to && readable; i++)
			readable = digest(w, i, &sum);
		if (readable)
			n += snprintf(buf + n, room - n, "/%08llx",
				      sum & 0xffffffff);
		else
			n += snprintf(buf + n, room - n, "/-");
	}
	return n;
}

/* All units of a window: runs of those that are alike, empty ones left out. */
static void describe(const struct window *w, char *buf, size_t room)
{
	__u64 keep = PM_PRESENT | PM_SWAP | PM_FILE | PM_UFFD_WP |
		     PM_EXCLUSIVE | PM_SOFT_DIRTY;
	static __u64 map[2 * HUGE / 4096];
	unsigned int i, from;
	size_t len = 0;

	if (no_soft_dirty)
		keep &= ~PM_SOFT_DIRTY;
	memset(map, 0, sizeof(map));
	if (w->unit == page) {
		must(pread(pagemap_fd, map, w->units * sizeof(map[0]),
			   w->base / page * sizeof(map[0])) >= 0, "pagemap");
	} else {
		for (i = 0; i < w->units; i++)
			must(pread(pagemap_fd, &map[i], sizeof(map[i]),
				   at(w, i) / page * sizeof(map[0])) >= 0,
			     "pagemap");
	}
	buf[0] = 0;
	for (i = 0; i < w->units && room - len > 160; ) {
		from = i;
		map[i] &= keep;
		do {
			i++;
		} while (!verbose && i < w->units &&
			 (map[i] & keep) == map[from]);
		if (map[from])
			len += describe_run(buf + len, room - len, w, from, i,
					    map[from]);
	}
}

/* What has changed since it was printed last. */
static void say_windows(void)
{
	char buf[sizeof(win[0].last)];
	unsigned int i;

	for (i = 0; i < WINDOWS; i++) {
		describe(&win[i], buf, sizeof(buf));
		if (!strcmp(buf, win[i].last))
			continue;
		snprintf(win[i].last, sizeof(win[i].last), "%s", buf);
		say("  w%u%s\n", i, buf);
	}
}

static char vmas[4096];

/* The VMAs of the windows, if they have changed. */
static void say_vmas(void)
{
	static char buf[sizeof(vmas)];
	unsigned long from = 0, to;
	char *line, *next, *end;
	size_t n = 0;

	buf[0] = 0;
	for (line = read_smaps(); line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		to = strtoul(line, &end, 16);
		if (end != line && *end == '-') {
			from = to;
			to = strtoul(end + 1, &end, 16);
			if (!window_of(from)) {
				from = 0;
				continue;
			}
			n += snprintf(buf + n, sizeof(buf) - n,
				      "  vma %s*0x%lx %.5s", place(from),
				      to - from, end);
		} else if (from && !strncmp(line, "VmFlags:", 8)) {
			char *sd = strstr(line, " sd");

			if (sd && no_soft_dirty)
				memmove(sd, sd + 3, strlen(sd + 3) + 1);
			n += snprintf(buf + n, sizeof(buf) - n, "%s\n",
				      line + 8);
		}
		if (n > sizeof(buf) - 256)
			break;
	}
	if (!strcmp(buf, vmas))
		return;
	snprintf(vmas, sizeof(vmas), "%s", buf);
	say("%s", buf);
}

static void say_uffds(void)
{
	static char last[UFFDS][80];
	struct uk_info info;
	char buf[80];
	unsigned int i;

	for (i = 0; i < UFFDS; i++) {
		if (uffd[i] < 0 || uk_fdinfo(uffd[i], &info))
			continue;
		snprintf(buf, sizeof(buf),
			 "pending %lu total %lu %llx:%llx:%llx poll %x",
			 info.pending, info.total, info.api, info.features,
			 info.ioctls & PLAYED_IOCTLS, uk_poll(uffd[i], 0));
		if (!strcmp(buf, last[i]))
			continue;
		snprintf(last[i], sizeof(last[i]), "%s", buf);
		say("  %s %s\n", uffd_name[i], buf);
	}
}

static void say_parked(void)
{
	unsigned int i;

	for (i = 1; i < ACTORS; i++) {
		if (!actor[i].busy || at_work(&actor[i]))
			continue;
		actor[i].busy = false;
		say("  actor%u = ", i);
		if (!actor[i].op.sig)
			actor[i].op.ret = 0;
		say_op(&actor[i].op);
		say("\n");
	}
}

/*
 * A sequence
 */

static const struct step {
	void (*run)(void);
	unsigned int weight;
	bool splits;		/* may change VMAs */
} steps[] = {
	{ step_touch,		22, false },
	{ step_park,		10, false },
	{ step_vm,		4, false },
	{ step_copy_user,	3, false },
	{ step_ioctl,		40, false },
	{ step_handshake,	1, false },
	{ step_misc,		1, false },
	{ step_close,		1, true },
	{ step_madvise,		14, true },
	{ step_mremap,		5, true },
	{ step_munmap,		2, true },
	{ step_mmap,		2, true },
	{ step_renew,		4, true },
	{ step_mprotect,	4, true },
	{ step_mlock,		2, true },
	{ step_file,		5, false },
	{ step_fork,		4, false },
	{ step_gate,		5, true },
	{ step_before_read,	3, false },
	{ step_scan,		4, false },
	{ step_clear_refs,	1, false },
};

static void some_step(void)
{
	unsigned int i, sum = 0, n;

	for (i = 0; i < COUNT(steps); i++)
		sum += steps[i].weight;
	n = draw(sum);
	for (i = 0; n >= steps[i].weight; i++)
		n -= steps[i].weight;
	vmas_stale = steps[i].splits;
	/* Of two descriptors, both may tell of the same thing. */
	any_order = uffd[SECOND] >= 0;
	steps[i].run();
}

static void look(void)
{
	say_parked();
	say_uffds();
	say_windows();
	if (vmas_stale)
		say_vmas();
	vmas_stale = false;
}

static enum type some_type(void)
{
	static const enum type types[] = {
		ANON, ANON, ANON, ANON_HUGE, ANON_HUGE, SHMEM, SHMEM, SHMEM,
		SHMEM_PRIVATE, SHMEM_PRIVATE, SHMEM_HUGE, HUGETLB, HUGETLB,
		HUGETLB_PRIVATE,
	};

	return one_of(types);
}

static void prepare(void)
{
	enum type type = some_type();
	unsigned int i, n;
	struct call c = { .nr = UFFDIO_REGISTER };
	struct op op;

	window_init(0, type);
	window_init(1, percent(70) ? type : some_type());
	window_init(2, type);
	/* A neighbour that the first one may be merged with. */
	if (percent(50))
		win[0].base = win[1].base - window_len(&win[0]);
	window_map(&win[0]);
	window_map(&win[1]);
	if (percent(30))
		window_map(&win[2]);
	if (win[0].fd >= 0)
		must(mmap((void *)ALIAS, window_len(&win[0]),
			  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
			  win[0].fd, 0) != MAP_FAILED, "mmap of the alias");
	say("%s, %s%s\n", type_name[win[0].type], type_name[win[1].type],
	    win[0].base % WINDOW ? ", adjacent" : "");

	new_uffd(FIRST, percent(10) ? UFFD_USER_MODE_ONLY : 0,
		 some_features());
	if (percent(20))
		new_uffd(SECOND, 0, some_features());

	/* Something that is there already. */
	for (i = 0, n = draw(7); i < n; i++) {
		draw_touch(&op, "before: ");
		say("\n");
		perform(&op);
	}
	if (win[0].fd >= 0) {
		for (i = 0, n = draw(5); i < n; i++) {
			memset(&op, 0, sizeof(op));
			op.fn = do_store;
			op.arg[0] = ALIAS + some_unit(&win[0]) * win[0].unit;
			op.arg[1] = 1;
			op.arg[3] = draw(1 << 30);
			perform(&op);
		}
	}
	for (i = 0; i < WINDOWS; i++) {
		if (!percent(i ? 40 : 93) || !win[i].mapped)
			continue;
		c.start = win[i].base;
		c.len = window_len(&win[i]);
		c.mode = good_modes(&win[i]) | lasting_modes();
		call_now(&c);
	}
	look();
}

/* Everybody is let go, and all that is left is read. */
static void finish(void)
{
	struct op op = { .fn = do_load, .arg = { 0, 1, 0 } };
	unsigned int i, j;

	say("end\n");
	/* What was of one may be of another one by now. */
	for (i = 0; i < UFFDS; i++) {
		close_uffd(i);
		settle();
	}
	nr_letters = 0;
	serve(0);
	look();
	for (i = 0; i < WINDOWS; i++) {
		do_scan((struct span){ win[i].base, window_len(&win[i]) }, 0,
			0, 0, 0);
		say("  read w%u", i);
		for (j = 0; j < win[i].units; j += is_huge(&win[i]) ? 31 : 1) {
			op.arg[0] = at(&win[i], j);
			run_op(&op);
			say(" ");
			if (op.sig)
				say("%d/%d", op.sig, op.code);
			else
				say("%lx", op.ret);
		}
		say("\n");
	}
	look();
}

static void sequence(__u64 seed, unsigned int stop)
{
	struct sigaction act = {
		.sa_sigaction = on_trap,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};
	unsigned int i, n;

	sigaction(SIGBUS, &act, NULL);
	sigaction(SIGSEGV, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	for (i = 0; i < UFFDS; i++)
		uffd[i] = -1;
	pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	must(pagemap_fd >= 0, "pagemap");
	desk = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(desk != MAP_FAILED, "mmap");
	must(!mprotect(desk + page, page, PROT_READ), "mprotect");
	heir = mmap(NULL, sizeof(*heir), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(heir != MAP_FAILED, "mmap");
	actors_init();

	state = mix(seed);
	batch = 1 + draw(BATCH);
	prepare();
	n = 20 + draw(30);
	for (i = 1; i <= n && i <= stop; i++) {
		trace->step = i;
		state = mix(seed ^ mix(i));
		say("%u ", i);
		some_step();
		look();
	}
	finish();
}

/*
 * The parent of all sequences
 */

static void run_seed(__u64 seed, unsigned int stop, FILE *to)
{
	long long end = uk_now() + MS_SEQUENCE;
	bool late = false;
	int status;
	pid_t pid;

	trace->len = 0;
	trace->step = 0;
	say("== seed %llu\n", seed);
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sequence(seed, stop);
		_exit(0);
	}
	setpgid(pid, pid);
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (uk_now() > end && !late) {
			say("\ntoo long\n");
			kill(-pid, SIGKILL);
			late = true;
			end += MS_REST;
		} else if (uk_now() > end) {
			say("\nand cannot be killed\n");
			status = 0;
			break;
		}
		uk_sleep(1);
	}
	kill(-pid, SIGKILL);
	if (WIFSIGNALED(status))
		say("\nkilled by signal %d in step %u\n", WTERMSIG(status),
		    trace->step);
	else if (WEXITSTATUS(status))
		say("\nended with %d in step %u\n", WEXITSTATUS(status),
		    trace->step);
	fwrite(trace->text, 1, trace->len, to);
	fflush(to);
}

static void make_source(void)
{
	__u64 *p;
	size_t i;

	p = mmap((void *)SOURCE, SOURCE_LEN, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	must(p == (void *)SOURCE, "mmap of the source");
	for (i = 0; i < SOURCE_LEN / sizeof(*p); i++)
		p[i] = mix(i / 512) + i;
}

static void stay_on(unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static int explain(void)
{
	fprintf(stderr,
"usage: uffd-trace [-s SEED] [-c COUNT] [-b BY] [-n STEPS] [-p CPU] [-o FILE]\n"
"                  [-d] [-v]\n"
"  -s  the first seed (1)\n"
"  -c  how many sequences (1)\n"
"  -b  from one seed to the next (1)\n"
"  -n  stop each one after so many steps\n"
"  -p  the CPU to run on (0)\n"
"  -o  where the trace goes (standard output)\n"
"  -d  do not look at soft-dirty bits\n"
"  -v  print each page by itself\n");
	return 1;
}

int main(int argc, char **argv)
{
	__u64 seed = 1, count = 1, by = 1, i;
	unsigned int stop = -1, cpu = 0;
	FILE *to = stdout;
	int opt;

	while ((opt = getopt(argc, argv, "s:c:b:n:p:o:dv")) != -1) {
		switch (opt) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			count = strtoull(optarg, NULL, 0);
			break;
		case 'b':
			by = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			stop = strtoul(optarg, NULL, 0);
			break;
		case 'p':
			cpu = strtoul(optarg, NULL, 0);
			break;
		case 'o':
			to = fopen(optarg, "w");
			break;
		case 'd':
			no_soft_dirty = true;
			break;
		case 'v':
			verbose = true;
			break;
		default:
			return explain();
		}
	}
	if (optind != argc || !to)
		return explain();

	page = getpagesize();
	trace = mmap(NULL, sizeof(*trace), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (trace == MAP_FAILED)
		return 1;
	stay_on(cpu);
	make_source();
	offered = uk_offered() & PLAYED_FEATURES;
	for (i = 0; i < count; i++)
		run_seed(seed + i * by, stop, to);
	return 0;
}
