// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-checkpoint: copies memory while threads write to it.
 *
 * All of the memory is write-protected and copied.  With UFFD_FEATURE_WP_LOG the
 * first write to a protected page leaves a message, and the writer goes on.  The
 * messages tell what to copy again, round by round, until the rest is so small
 * that the writers can be stopped for the time that its copy takes.  Looking for
 * what was written costs as much as has been written, not as much as there is.
 *
 * It all depends on the order: read the log, protect again what it names, and
 * only then copy that.  A write between reading and protecting is not told, but
 * is in the copy; one after the protecting is told.  To copy first and then
 * protect would lose what is written in between.
 *
 * The copier is a thread of the process here, as it is in a VMM.  It may as well
 * be another process, which was sent the descriptor.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <linux/fs.h>
#include "uffd-sample.h"

#define BATCH		512		/* messages taken at a time */
#define MAX_OPS		UFFDIO_EXCHANGE_MAX
#define FOUND		256		/* regions in one go */
#define MAX_ROUNDS	100

static char *memory;
static size_t page_size, pages, len;

/*
 * The writers: most of their work is in a small part of the memory.
 */

#define BURST		16		/* writes, and then a pause */
#define PAUSE_US	1000

struct writer {
	pthread_t thread;
	__u64 random;
};

static atomic_bool stop;

static void *write_all_over(void *arg)
{
	struct writer *w = arg;
	unsigned int i;
	__u64 r;

	while (!stop) {
		for (i = 0; i < BURST; i++) {
			r = next_random(&w->random) / sizeof(r);
			if (i % 8)
				r %= (len / 16 + page_size) / sizeof(r);
			else
				r %= len / sizeof(r);
			__atomic_store_n((__u64 *)memory + r, w->random,
					 __ATOMIC_RELAXED);
		}
		usleep(PAUSE_US);
	}
	return NULL;
}

static struct writer *start_writers(unsigned int threads)
{
	struct writer *writers = calloc(threads, sizeof(*writers));
	unsigned int i;

	if (!writers)
		err(1, "%u threads", threads);
	for (i = 0; i < threads; i++) {
		writers[i].random = i + 1;
		errno = pthread_create(&writers[i].thread, NULL,
				       write_all_over, &writers[i]);
		if (errno)
			err(1, "%u threads", threads);
	}
	return writers;
}

static void stop_writers(struct writer *writers, unsigned int threads)
{
	unsigned int i;

	stop = true;
	for (i = 0; i < threads; i++)
		pthread_join(writers[i].thread, NULL);
	free(writers);
}

/*
 * The copier
 */

struct copier {
	int uffd;
	int pagemap;
	int out;		/* the copy */
	char *dirty;		/* a byte for each page: to be copied */
	size_t nr_dirty;
	bool lost;		/* the log was full */
	__u64 log_size;
	bool bar;
	struct uffdio_op ops[MAX_OPS];
	struct uffd_msg msgs[BATCH];
};

static void mark(struct copier *c, __u64 start, __u64 end)
{
	size_t page = (start - (uintptr_t)memory) / page_size;

	for (; start < end; start += page_size, page++) {
		c->nr_dirty += !c->dirty[page];
		c->dirty[page] = 1;
	}
}

/* Turns messages into operations, behind what is left of others. */
static unsigned int learn(struct copier *c, unsigned int nr_msgs,
			  unsigned int nr_ops)
{
	const struct uffd_msg *m;

	for (m = c->msgs; m < c->msgs + nr_msgs; m++) {
		switch (m->event) {
		case UFFD_EVENT_WRITE:
			mark(c, m->arg.remove.start, m->arg.remove.end);
			c->ops[nr_ops++] = (struct uffdio_op) {
				.op = _UFFDIO_WRITEPROTECT,
				.mode = UFFDIO_WRITEPROTECT_MODE_WP,
				.dst = m->arg.remove.start,
				.len = m->arg.remove.end - m->arg.remove.start,
			};
			break;
		case UFFD_EVENT_WRITE_LOST:
			c->lost = true;
			break;
		default:
			/* An event that was not asked for. */
			errx(1, "message 0x%x", m->event);
		}
	}
	return nr_ops;
}

/* What is left of operations that have been run. */
static unsigned int refused(struct copier *c, unsigned int nr_ops)
{
	unsigned int i, left = 0;
	struct uffdio_op *op;

	for (i = 0; i < nr_ops; i++) {
		op = &c->ops[i];
		if (op->result == (__s64)op->len)
			continue;
		if (op->result != -EAGAIN) {
			errno = -op->result;
			err(1, "UFFDIO_WRITEPROTECT of %llu bytes at 0x%llx",
			    (unsigned long long)op->len,
			    (unsigned long long)op->dst);
		}
		/*
		 * An event concerns it: read on, then try again.  No events
		 * were asked for here, but they may be in your program.
		 */
		c->ops[left++] = *op;
	}
	return left;
}

/*
 * When the log was full the page tables still know: what is not protected has
 * been written.  Finds that, and protects it again in the same step.
 */
static void scan(struct copier *c)
{
	struct page_region found[FOUND];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (uintptr_t)memory,
		.end = (uintptr_t)memory + len,
		.vec = (uintptr_t)found,
		.vec_len = FOUND,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	int i, n;

	while (arg.start < arg.end) {
		n = ioctl(c->pagemap, PAGEMAP_SCAN, &arg);
		if (n < 0)
			err(1, "PAGEMAP_SCAN");
		for (i = 0; i < n; i++)
			mark(c, found[i].start, found[i].end);
		arg.start = arg.walk_end;
	}
}

/*
 * Reads the log, some @most messages of it, and protects again what they name.
 * Each call protects what the one before has read.
 */
static void collect(struct copier *c, size_t most)
{
	struct uffdio_exchange call = {
		.ops = (uintptr_t)c->ops,
		.msgs = (uintptr_t)c->msgs,
		.deadline = 0,		/* whatever there is */
	};
	unsigned int left = 0;
	size_t read = 0;
	int n;

	c->lost = false;
	do {
		/* Enough: protect what we know of, and read no more. */
		call.nr_msgs = read < most || left ? BATCH : 0;
		if (call.nr_msgs > MAX_OPS - left)
			call.nr_msgs = MAX_OPS - left;
		n = ioctl(c->uffd, UFFDIO_EXCHANGE, &call);
		if (n < 0)
			err(1, "UFFDIO_EXCHANGE of %u operations", call.nr_ops);
		read += n;
		left = refused(c, call.nr_ops);
		call.nr_ops = learn(c, n, left);
	} while (call.nr_ops);
	if (c->lost)
		scan(c);
}

static void copy_pages(struct copier *c, size_t first, size_t end)
{
	size_t from = first * page_size, to = end * page_size;
	ssize_t n;

	for (; from < to; from += n) {
		n = pwrite(c->out, memory + from, to - from, from);
		if (n <= 0)
			err(1, "writing %zu bytes of the copy", to - from);
	}
}

/* In one call what lies together, but not more than @most pages. */
static void copy_dirty(struct copier *c, bool bar)
{
	const size_t most = 2 * MIB / page_size;
	char *dirty = c->dirty, *end = dirty + pages;
	size_t n;

	while ((dirty = memchr(dirty, 1, end - dirty))) {
		for (n = 0; n < most && dirty + n < end && dirty[n]; n++)
			;
		memset(dirty, 0, n);
		copy_pages(c, dirty - c->dirty, dirty - c->dirty + n);
		dirty += n;
		if (bar)
			draw_bar("copying", dirty - c->dirty, pages);
	}
	if (bar)
		draw_bar("", 0, 0);
	c->nr_dirty = 0;
}

static void print_round(const char *name, const struct copier *c, size_t copied,
			__u64 ns)
{
	char time[TIME_LEN];

	printf("%8s %10zu %10zu KiB %10s%s\n", name, copied,
	       copied * page_size / 1024, duration(time, ns),
	       c->lost ? "   the log was full" : "");
}

/* Copies what is dirty, and tells how that went. */
static void finish_round(struct copier *c, const char *name, __u64 began,
			 bool bar)
{
	size_t copied = c->nr_dirty;

	copy_dirty(c, bar);
	print_round(name, c, copied, now_ns() - began);
}

/* Protects everything, so that from now on each first write is told. */
static void begin(struct copier *c, __u64 log_size)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)memory, .len = len },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	struct uffdio_log log = { .size = log_size };

	c->uffd = new_uffd(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_LOG |
			   UFFD_FEATURE_EXCHANGE,
			   "WP_ASYNC, WP_LOG, EXCHANGE");
	c->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (c->pagemap < 0)
		err(1, "/proc/self/pagemap");
	c->dirty = calloc(pages, 1);
	if (!c->dirty)
		err(1, "memory for %zu pages", pages);
	register_memory(c->uffd, memory, len, UFFDIO_REGISTER_MODE_WP);
	/* Before anything is protected: then there are no messages yet. */
	if (ioctl(c->uffd, UFFDIO_LOG, &log))
		err(1, "UFFDIO_LOG, %llu messages",
		    (unsigned long long)log_size);
	c->log_size = log.size;
	if (ioctl(c->uffd, UFFDIO_WRITEPROTECT, &wp))
		err(1, "UFFDIO_WRITEPROTECT");
	mark(c, wp.range.start, wp.range.start + len);
}

/* Rounds with the writers at work.  Ends when the rest is small. */
static void copy_live(struct copier *c, unsigned int rounds, size_t small)
{
	__u64 began = now_ns();
	unsigned int round;
	char name[16];

	finish_round(c, "0", began, c->bar);
	for (round = 1; round <= rounds; round++) {
		began = now_ns();
		/*
		 * New messages come while we read.  What the log can hold is
		 * a round: the rest is for the next one.
		 */
		collect(c, c->log_size);
		if (c->nr_dirty <= small)
			return;		/* goes with what is still to come */
		snprintf(name, sizeof(name), "%u", round);
		finish_round(c, name, began, false);
	}
	printf("still more than %zu pages a round after %u rounds\n", small,
	       rounds);
}

struct options {
	const char *out;
	unsigned long threads;
	unsigned long rounds;
	unsigned long small;
	unsigned long log_size;
	bool quiet;
};

static void print_usage(void)
{
	puts("usage: uffd-checkpoint [OPTION]... [COPY]\n"
	     "\n"
	     "Copies memory to the file COPY, or to memory, while threads write to it,\n"
	     "and compares the copy with the memory.\n"
	     "\n"
	     "  -s, --size MIB     how much memory (256)\n"
	     "  -t, --threads N    threads that write (4)\n"
	     "  -r, --rounds N     stop the writers after so many rounds (20)\n"
	     "  -m, --small PAGES  or when no more than so many are to be copied (128)\n"
	     "  -l, --log N        messages that the log can hold (16384)\n"
	     "  -q, --quiet        no progress bar, which is there on terminals only\n"
	     "  -h, --help         this text");
}

static void parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "size", required_argument, NULL, 's' },
		{ "threads", required_argument, NULL, 't' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "small", required_argument, NULL, 'm' },
		{ "log", required_argument, NULL, 'l' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int c;

	while ((c = getopt_long(argc, argv, "s:t:r:m:l:qh", longs, NULL)) != -1) {
		switch (c) {
		case 's':
			len = number(optarg, "--size", 1, MAX_SIZE) * MIB;
			break;
		case 't':
			o->threads = number(optarg, "--threads", 1, 256);
			break;
		case 'r':
			o->rounds = number(optarg, "--rounds", 0, MAX_ROUNDS);
			break;
		case 'm':
			o->small = number(optarg, "--small", 0, 1 << 20);
			break;
		case 'l':
			o->log_size = number(optarg, "--log", 1, 65536);
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
		errx(1, "one copy only; see --help");
	o->out = argv[optind];
}

static int open_copy(const char *name)
{
	int fd;

	if (!name)
		return new_file("copy", len);
	fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, len))
		err(1, "%s", name);
	return fd;
}

int main(int argc, char **argv)
{
	static struct copier c;
	struct options o = {
		.threads = 4,
		.rounds = 20,
		.small = 128,
		.log_size = 16384,
	};
	struct writer *writers;
	__u64 began;

	len = 256 * MIB;
	parse(argc, argv, &o);
	page_size = sysconf(_SC_PAGESIZE);
	pages = len / page_size;
	c.bar = !o.quiet && isatty(STDOUT_FILENO);
	c.out = open_copy(o.out);
	memory = new_memory(len);
	memset(memory, 'x', len);
	writers = start_writers(o.threads);

	printf("   round      pages         copied       time\n");
	begin(&c, o.log_size);
	copy_live(&c, o.rounds, o.small);

	began = now_ns();
	stop_writers(writers, o.threads);
	collect(&c, SIZE_MAX);
	finish_round(&c, "stopped", began, false);

	if (!same_memory(map_file(c.out, len, PROT_READ), memory, 0, len))
		errx(1, "checkpoint of %zu MiB: NOT identical", len / MIB);
	printf("checkpoint of %zu MiB: identical\n", len / MIB);
	return 0;
}
