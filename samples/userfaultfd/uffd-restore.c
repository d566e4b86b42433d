// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-restore: lets a process run while its memory is still being restored.
 *
 * There are two processes.  The restored one has the memory, threads that use
 * it from the beginning, and a supervisor, which is its main thread.  The
 * handler has the image, and a userfaultfd that it was sent over a socket.  It
 * answers faults first; while there are none it brings the rest, 2 MiB at a
 * time.
 *
 * Should the handler die, nobody may find zeroes where the image has something
 * else.  With UFFD_FEATURE_ORPHAN_SIGBUS the memory stays registered, with
 * nobody.  Threads that need a page meet SIGBUS, and wait in the signal handler.
 * The supervisor makes a new userfaultfd, which adopts the memory, and starts
 * another handler, which goes on where the last one ended.
 *
 * Nothing drops or moves memory here, so no events are asked for.  If there is a
 * balloon, ask for UFFD_FEATURE_EVENT_REMOVE, and keep what has been dropped
 * where the next handler finds it, as struct progress is kept here; see
 * Documentation/admin-guide/mm/userfaultfd.rst.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <linux/futex.h>
#include "uffd-sample.h"

#define BLOCK		(2 * MIB)	/* brought at a time when nobody waits */
#define BATCH		64		/* messages taken at a time */
/* A thread waits for one page only: there is always room for its fault. */
#define MAX_THREADS	64
#define MAX_OPS		(MAX_THREADS + BATCH)
#define PAUSE_US	200		/* of a thread, between two accesses */
#define MAX_KILLS	8
#define MAX_DEATHS	(MAX_KILLS + 3)	/* then something is wrong with it */

static size_t page_size;

/* What must not be forgotten when a handler dies: it is in shared memory. */
struct progress {
	atomic_ullong restored;	/* bytes from the start, without a gap */
};

/* What a handler is told, and the descriptors that come with it. */
struct order {
	__u64 start;		/* of the memory, in the other process */
	__u64 len;
	__u64 die_at;	/* bytes restored; > len: not on purpose */
};

enum { FD_UFFD, FD_IMAGE, FD_PROGRESS, NR_FDS };

union order_control {
	char buf[CMSG_SPACE(sizeof(int) * NR_FDS)];
	struct cmsghdr align;
};

/*
 * The handler
 */

struct handler {
	struct order order;
	struct progress *progress;
	const char *image;
	int uffd;
	struct uffdio_op faults[MAX_OPS];	/* not answered yet */
	unsigned int nr_faults;
	struct uffd_msg msgs[BATCH];
};

static struct uffdio_op copy_op(const struct handler *h, __u64 offset,
				__u64 len)
{
	return (struct uffdio_op) {
		.op = _UFFDIO_COPY,
		.dst = h->order.start + offset,
		.src = (uintptr_t)h->image + offset,
		.len = len,
	};
}

/* Runs operations; returns how many messages have come with that. */
static unsigned int exchange(struct handler *h, struct uffdio_op *ops,
			     unsigned int nr_ops)
{
	struct uffdio_exchange call = {
		.ops = (uintptr_t)ops,
		.nr_ops = nr_ops,
		.msgs = (uintptr_t)h->msgs,
		.nr_msgs = BATCH,
		.deadline = 0,		/* there is always something to do */
		.mode = UFFDIO_EXCHANGE_MODE_GO_ON,
	};
	int ret = ioctl(h->uffd, UFFDIO_EXCHANGE, &call);

	if (ret < 0)
		err(1, "handler: UFFDIO_EXCHANGE of %u operations", nr_ops);
	return ret;
}

/* For what is neither done nor to be tried again. */
static void fail(const struct uffdio_op *op)
{
	if (op->result == -ESRCH)
		errx(1, "handler: the process is gone");
	errno = -op->result;
	err(1, "handler: operation %u on 0x%llx, %llu bytes", op->op,
	    (unsigned long long)op->dst, (unsigned long long)op->len);
}

/* True if the operation has to be run again, as it is now. */
static bool unanswered(struct uffdio_op *op)
{
	if (op->result == (__s64)op->len)
		return false;	/* the page is there, and who waited runs */
	switch (op->result) {
	case -EAGAIN:
		/* An event concerns it.  We read on with the next call. */
		return true;
	case -EEXIST:
		/*
		 * Another fault has brought it, or the background.  Who has
		 * begun to wait since must not be forgotten.
		 */
		op->op = _UFFDIO_WAKE;
		op->mode = 0;
		op->src = 0;
		return true;
	default:
		fail(op);
		return false;
	}
}

static unsigned int answer_faults(struct handler *h)
{
	unsigned int i, left = 0;
	unsigned int n = exchange(h, h->faults, h->nr_faults);

	for (i = 0; i < h->nr_faults; i++)
		if (unanswered(&h->faults[i]))
			h->faults[left++] = h->faults[i];
	h->nr_faults = left;
	return n;
}

/*
 * Brings the rest of a block, up to the first page that is there already: that
 * ends the copy, and is passed over with the next call.
 */
static unsigned int bring_block(struct handler *h)
{
	__u64 from = h->progress->restored, to = from + BLOCK;
	struct uffdio_op op;
	unsigned int n;

	/* Up to where a huge page would end. */
	to -= (h->order.start + to) % BLOCK;
	if (to > h->order.len)
		to = h->order.len;
	op = copy_op(h, from, to - from);
	n = exchange(h, &op, 1);

	if (op.result > 0)
		h->progress->restored += op.result;
	else if (op.result == -EEXIST)
		h->progress->restored += page_size;
	else if (op.result != -EAGAIN)
		fail(&op);
	return n;
}

static void learn(struct handler *h, unsigned int nr_msgs)
{
	__u64 addr;
	unsigned int i;

	for (i = 0; i < nr_msgs; i++) {
		/* An event that was not asked for must not be overlooked. */
		if (h->msgs[i].event != UFFD_EVENT_PAGEFAULT)
			errx(1, "handler: message 0x%x", h->msgs[i].event);
		if (h->nr_faults == MAX_OPS)
			errx(1, "handler: more than %u faults", MAX_OPS);
		addr = h->msgs[i].arg.pagefault.address;
		h->faults[h->nr_faults++] =
			copy_op(h, addr - h->order.start, page_size);
	}
}

/*
 * For --kill.  At the worst moment: threads wait for what only this handler has
 * read of.  If there are none, at the very end.
 */
static void maybe_die(const struct handler *h)
{
	__u64 restored = h->progress->restored;

	if (restored >= h->order.die_at &&
	    (h->nr_faults || restored == h->order.len))
		raise(SIGKILL);
}

static void serve(struct handler *h)
{
	unsigned int n;

	for (;;) {
		maybe_die(h);
		if (h->nr_faults)
			n = answer_faults(h);
		else if (h->progress->restored < h->order.len)
			n = bring_block(h);
		else
			break;
		learn(h, n);
	}
}

static void receive_order(struct handler *h, int sock, int fds[NR_FDS])
{
	struct iovec iov = { &h->order, sizeof(h->order) };
	union order_control control;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg;
	ssize_t len = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

	if (len < 0)
		err(1, "handler: order");
	cmsg = CMSG_FIRSTHDR(&msg);
	if (len != sizeof(h->order) || !cmsg ||
	    cmsg->cmsg_type != SCM_RIGHTS ||
	    cmsg->cmsg_len != CMSG_LEN(sizeof(int) * NR_FDS))
		errx(1, "handler: this is no order");
	memcpy(fds, CMSG_DATA(cmsg), sizeof(int) * NR_FDS);
}

/* A process of its own; the socket is its standard input. */
static int handler_main(void)
{
	static struct handler h;
	struct uffdio_range range;
	int fds[NR_FDS];

	receive_order(&h, STDIN_FILENO, fds);
	h.uffd = fds[FD_UFFD];
	h.image = map_file(fds[FD_IMAGE], h.order.len, PROT_READ);
	h.progress = map_file(fds[FD_PROGRESS], sizeof(*h.progress),
			      PROT_READ | PROT_WRITE);
	serve(&h);

	/* Without this the end of a handler, too, would leave an orphan. */
	range.start = h.order.start;
	range.len = h.order.len;
	if (ioctl(h.uffd, UFFDIO_UNREGISTER, &range))
		err(1, "handler: UFFDIO_UNREGISTER");
	return 0;
}

/*
 * The restored process: its threads
 */

struct user {
	pthread_t thread;
	__u64 random;
	__u64 *latency;	/* of each access that had to wait, in ns */
	size_t faults;
};

static char *memory, *image;
static size_t len;
static atomic_bool done;
static atomic_uint adoptions;	/* a futex */

static long futex(atomic_uint *word, int op, __u32 val,
		  const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, val, timeout,
		       NULL, 0);
}

/*
 * When this returns the access is made again.  If the memory was adopted before
 * we could look at the futex, nobody wakes us: so there is a time limit.
 */
static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	const struct timespec limit = { .tv_nsec = 5000000 };
	uintptr_t offset = (uintptr_t)info->si_addr - (uintptr_t)memory;
	int saved = errno;

	(void)context;
	if (info->si_code != BUS_ADRERR || offset >= len)
		signal(sig, SIG_DFL);	/* not ours: the next one is the last */
	else
		futex(&adoptions, FUTEX_WAIT, adoptions, &limit);
	errno = saved;
}

static bool is_missing(char *page)
{
	unsigned char there;

	if (mincore(page, page_size, &there))
		err(1, "mincore");
	return !(there & 1);
}

/* Uses pages all over the memory, and insists on what is in them. */
static void *use(void *arg)
{
	struct user *u = arg;
	size_t pages = len / page_size, offset;
	__u64 began;
	bool missing;

	while (!done) {
		offset = next_random(&u->random) % pages * page_size;
		missing = is_missing(memory + offset);
		began = now_ns();
		__atomic_load_n(memory + offset, __ATOMIC_RELAXED);
		if (missing && u->faults < pages)
			u->latency[u->faults++] = now_ns() - began;
		if (!same_memory(memory, image, offset, offset + page_size))
			errx(1, "found while it was being restored");
		/* The handler, too, wants a CPU. */
		usleep(PAUSE_US);
	}
	return NULL;
}

static struct user *start_users(unsigned int threads)
{
	struct user *users = calloc(threads, sizeof(*users));
	unsigned int i;

	for (i = 0; users && i < threads; i++) {
		users[i].random = i + 1;
		users[i].latency = calloc(len / page_size, sizeof(__u64));
		if (!users[i].latency)
			break;
		errno = pthread_create(&users[i].thread, NULL, use, &users[i]);
		if (errno)
			break;
	}
	if (i < threads)
		err(1, "%u threads", threads);
	return users;
}

/*
 * The restored process: its supervisor
 */

struct options {
	unsigned int threads;
	unsigned long kills[MAX_KILLS];	/* percent */
	unsigned int nr_kills;
	bool quiet;
};

static void send_order(int sock, const struct order *order, int fds[NR_FDS])
{
	struct iovec iov = { (void *)order, sizeof(*order) };
	union order_control control = { };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int) * NR_FDS);
	memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * NR_FDS);
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		err(1, "order to the handler");
}

static pid_t start_handler(const struct order *order, int fds[NR_FDS])
{
	static char *const argv[] = { "uffd-restore", "--handler", NULL };
	posix_spawn_file_actions_t actions;
	int sock[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock))
		err(1, "socketpair");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, sock[1], STDIN_FILENO);
	errno = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv,
			    environ);
	if (errno)
		err(1, "a handler cannot be started");
	posix_spawn_file_actions_destroy(&actions);
	close(sock[1]);
	send_order(sock[0], order, fds);
	close(sock[0]);
	return pid;
}

/* Waits for the end of a handler, and returns its status. */
static int watch(pid_t pid, const struct progress *progress, bool bar)
{
	struct pollfd pidfd = { .events = POLLIN };
	int ret, status;

	pidfd.fd = syscall(SYS_pidfd_open, pid, 0);
	if (pidfd.fd < 0)
		err(1, "pidfd_open");
	do {
		ret = poll(&pidfd, 1, bar ? 100 : -1);
		if (ret < 0 && errno != EINTR)
			err(1, "poll");
		if (bar)
			draw_bar("restoring", progress->restored, len);
	} while (ret <= 0);
	close(pidfd.fd);
	if (waitpid(pid, &status, 0) < 0)
		err(1, "waitpid");
	if (bar)
		draw_bar("", 0, 0);
	return status;
}

/*
 * One handler: true if it came to the end.  Its userfaultfd is the handler's
 * alone: a copy of it here would keep it alive without the handler.
 */
static bool restore(const struct options *o, int fds[NR_FDS],
		    const struct progress *progress, unsigned int deaths,
		    struct user **users)
{
	struct order order = {
		.start = (uintptr_t)memory,
		.len = len,
		.die_at = ULLONG_MAX,
	};
	int status;
	pid_t pid;

	if (deaths < o->nr_kills)
		order.die_at = len * o->kills[deaths] / 100;
	fds[FD_UFFD] = new_uffd(UFFD_FEATURE_EXCHANGE |
				UFFD_FEATURE_ORPHAN_SIGBUS,
				"EXCHANGE, ORPHAN_SIGBUS");
	register_memory(fds[FD_UFFD], memory, len,
			UFFDIO_REGISTER_MODE_MISSING);
	adoptions++;
	futex(&adoptions, FUTEX_WAKE, INT_MAX, NULL);
	if (!*users)
		*users = start_users(o->threads);
	pid = start_handler(&order, fds);
	close(fds[FD_UFFD]);

	status = watch(pid, progress, !o->quiet && isatty(STDOUT_FILENO));
	if (WIFEXITED(status) && WEXITSTATUS(status))
		errx(1, "handler %u has failed", deaths + 1);
	if (WIFSIGNALED(status) && !o->quiet)
		printf("handler %u died of signal %d with %u %% restored\n",
		       deaths + 1, WTERMSIG(status),
		       (unsigned int)(progress->restored * 100 / len));
	return WIFEXITED(status);
}

static int by_size(const void *a, const void *b)
{
	__u64 x = *(const __u64 *)a, y = *(const __u64 *)b;

	return x < y ? -1 : x > y;
}

static void print_table(const struct user *users, unsigned int threads,
			__u64 ns)
{
	char median[TIME_LEN], most[TIME_LEN], longest[TIME_LEN];
	__u64 *all;
	size_t n = 0;
	unsigned int i;

	for (i = 0; i < threads; i++)
		n += users[i].faults;
	all = calloc(n + 1, sizeof(*all));
	if (!all)
		err(1, "memory for %zu figures", n);
	n = 0;
	for (i = 0; i < threads; i++) {
		memcpy(all + n, users[i].latency,
		       users[i].faults * sizeof(*all));
		n += users[i].faults;
	}
	qsort(all, n, sizeof(*all), by_size);
	printf("    faults     median  99th perc.    longest   bytes a second\n");
	printf("%10zu %10s %11s %10s %16.0f\n", n,
	       duration(median, all[n / 2]), duration(most, all[n * 99 / 100]),
	       duration(longest, all[n ? n - 1 : 0]), len * 1e9 / ns);
	free(all);
}

/* Something to restore, if there is no file: no page is like another. */
static int make_up_image(void)
{
	int fd = new_file("image", len);
	__u64 *word = map_file(fd, len, PROT_READ | PROT_WRITE);
	__u64 state = 1;
	size_t i;

	for (i = 0; i < len / sizeof(*word); i++)
		word[i] = next_random(&state);
	munmap(word, len);
	return fd;
}

static int open_image(const char *name)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		err(1, "%s", name);
	if (!st.st_size)
		errx(1, "%s is empty", name);
	/* What is behind the end of the file, in its last page, is zero. */
	len = (st.st_size + page_size - 1) & -page_size;
	return fd;
}

static void print_usage(void)
{
	puts("usage: uffd-restore [OPTION]... [IMAGE]\n"
	     "\n"
	     "Restores memory from the file IMAGE, or from made-up content, while\n"
	     "threads use it, and compares it with the image.\n"
	     "\n"
	     "  -s, --size MIB      how much to make up (256)\n"
	     "  -t, --threads N     threads that use the memory (4)\n"
	     "  -k, --kill PERCENT  the handler dies when so much is restored.  Given\n"
	     "                      again, the next one dies, too\n"
	     "  -q, --quiet         no progress bar, which is there on terminals only\n"
	     "  -h, --help          this text");
}

static const char *parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "size", required_argument, NULL, 's' },
		{ "threads", required_argument, NULL, 't' },
		{ "kill", required_argument, NULL, 'k' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int c;

	while ((c = getopt_long(argc, argv, "s:t:k:qh", longs, NULL)) != -1) {
		switch (c) {
		case 's':
			len = number(optarg, "--size", 1, MAX_SIZE) * MIB;
			break;
		case 't':
			o->threads = number(optarg, "--threads", 1,
					    MAX_THREADS);
			break;
		case 'k':
			if (o->nr_kills == MAX_KILLS)
				errx(1, "--kill: at most %d times", MAX_KILLS);
			o->kills[o->nr_kills++] = number(optarg, "--kill", 0,
							 100);
			break;
		case 'q':
			o->quiet = true;
			break;
		case 'h':
			print_usage();
			exit(0);
		default:
			errx(1, "see --help");
		}
	}
	if (argc - optind > 1)
		errx(1, "one image only; see --help");
	return argv[optind];
}

static void catch_sigbus(void)
{
	struct sigaction act = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO,
	};

	if (sigaction(SIGBUS, &act, NULL))
		err(1, "sigaction");
}

int main(int argc, char **argv)
{
	struct options o = { .threads = 4 };
	unsigned int deaths = 0, i;
	struct progress *progress;
	struct user *users = NULL;
	int fds[NR_FDS];
	const char *name;
	__u64 began;

	page_size = sysconf(_SC_PAGESIZE);
	if (argc == 2 && !strcmp(argv[1], "--handler"))
		return handler_main();

	len = 256 * MIB;
	name = parse(argc, argv, &o);
	fds[FD_IMAGE] = name ? open_image(name) : make_up_image();
	fds[FD_PROGRESS] = new_file("progress", sizeof(*progress));
	image = map_file(fds[FD_IMAGE], len, PROT_READ);
	progress = map_file(fds[FD_PROGRESS], sizeof(*progress),
			    PROT_READ | PROT_WRITE);
	memory = new_memory(len);
	catch_sigbus();

	began = now_ns();
	while (!restore(&o, fds, progress, deaths, &users))
		if (++deaths > MAX_DEATHS)
			errx(1, "%u handlers have died", deaths);
	began = now_ns() - began;
	done = true;
	for (i = 0; i < o.threads; i++)
		pthread_join(users[i].thread, NULL);

	print_table(users, o.threads, began);
	if (deaths < o.nr_kills)
		errx(1, "%u handlers were to die, %u did", o.nr_kills, deaths);
	if (!same_memory(memory, image, 0, len))
		errx(1, "restored %zu KiB: NOT identical", len / 1024);
	if (len % MIB)
		printf("restored %zu KiB: identical\n", len / 1024);
	else
		printf("restored %zu MiB: identical\n", len / MIB);
	return 0;
}
