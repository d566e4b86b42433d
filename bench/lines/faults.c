// SPDX-License-Identifier: GPL-2.0
/*
 * faults: threads that fault on one userfaultfd, and handlers.
 *
 *	faults KIND/HOW/THREADS/HANDLERS/PAGES...
 *
 * KIND	missing: private memory; a handler's call is COPY
 *	minor: a file in memory, all there but not mapped; CONTINUE
 *	gup: as minor, but the kernel touches the page for the thread, by
 *	get_user_pages(), as it does for a virtual CPU
 * HOW	read: handlers sleep in read(), a message a call
 *	batch: the same, up to 16 messages a call
 *	poll: they sleep in poll(), and read a message a call without blocking
 *
 * Each is bound to a CPU, those that fault to the first, handlers to those that are
 * left, if there are any, and then to the first again.  Each thread has 2 MiB of its
 * own, and touches the first PAGES in order.  All wait in a loop until begin() has been
 * called, and in another one when done, so that the kernel has nothing to do meanwhile.
 * Each case has a process of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/userfaultfd.h>

#define PAGE	4096UL
#define HUGE	(2UL << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif

static unsigned int threads, handlers, cpus;
static unsigned long pages;
static bool minor, gup, polls;
static unsigned int batch = 1;
static int fd;
static char *area;
static char *source;

/* Lines of their own. */
#define AWAY	32

static unsigned int words[4 * AWAY];
#define go	(words[1 * AWAY])
#define ready	(words[2 * AWAY])
#define done	(words[3 * AWAY])

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static char *map(size_t len, int file)
{
	int flags = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	char *p, *start;

	/* At a multiple of 2 MiB. */
	p = mmap(NULL, len + 2 * HUGE, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	start = (char *)(((unsigned long)p + 2 * HUGE - 1) & ~(HUGE - 1));
	if (mmap(start, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, 0) !=
	    start)
		die("mmap");
	if (madvise(start, len, MADV_NOHUGEPAGE) && errno != EINVAL)
		die("madvise");
	return start;
}

static void touch(char *p)
{
	__atomic_store_n(p, 1, __ATOMIC_RELAXED);
}

static void map_area(void)
{
	struct uffdio_register reg = { };
	size_t len = threads * HUGE, i;
	unsigned int thread;
	int file = -1;
	char *alias;

	if (minor) {
		file = memfd_create("faults", MFD_CLOEXEC);
		if (file < 0 || ftruncate(file, len))
			die("memfd");
		alias = map(len, file);
		for (thread = 0; thread < threads; thread++)
			for (i = 0; i < pages; i++)
				touch(alias + thread * HUGE + i * PAGE);
	}
	area = map(len, file);
	/* Page tables are there: the last page of each is used for that. */
	if (!minor)
		for (thread = 0; thread < threads; thread++)
			touch(area + (thread + 1) * HUGE - PAGE);
	reg.range.start = (unsigned long)area;
	reg.range.len = len;
	reg.mode = minor ? UFFDIO_REGISTER_MODE_MINOR : UFFDIO_REGISTER_MODE_MISSING;
	if (ioctl(fd, UFFDIO_REGISTER, &reg))
		die("UFFDIO_REGISTER");
}

static void pause_cpu(void)
{
	__builtin_ia32_pause();
}

static void begin_here(const char *name, unsigned int cpu)
{
	cpu_set_t set;

	prctl(PR_SET_NAME, name);
	CPU_ZERO(&set);
	CPU_SET(cpu % cpus, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static void get_ready(void)
{
	__atomic_add_fetch(&ready, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE))
		pause_cpu();
}

static void *fault(void *nr)
{
	char *p = area + (unsigned long)nr * HUGE;
	unsigned long i;

	begin_here("faulter", (unsigned long)nr);
	get_ready();
	for (i = 0; i < pages; i++, p += PAGE) {
		if (!gup)
			touch(p);
		else if (madvise(p, PAGE, MADV_POPULATE_WRITE))
			die("MADV_POPULATE_WRITE");
	}
	__atomic_add_fetch(&done, 1, __ATOMIC_RELEASE);
	for (;;)
		pause_cpu();
	return NULL;
}

static void resolve(const struct uffd_msg *msg)
{
	unsigned long page = msg->arg.pagefault.address & ~(PAGE - 1);
	struct uffdio_continue cont = { .range = { .start = page, .len = PAGE } };
	struct uffdio_copy copy = {
		.dst = page, .src = (unsigned long)source, .len = PAGE
	};

	if (msg->event != UFFD_EVENT_PAGEFAULT)
		die("event");
	if (minor ? ioctl(fd, UFFDIO_CONTINUE, &cont) : ioctl(fd, UFFDIO_COPY, &copy))
		die("resolve");
}

static void *handle(void *nr)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	struct uffd_msg msg[16];
	ssize_t len;
	size_t i;

	begin_here("handler", threads + (unsigned long)nr);
	get_ready();
	for (;;) {
		if (polls && poll(&pfd, 1, -1) != 1)
			die("poll");
		len = read(fd, msg, batch * sizeof(msg[0]));
		if (len < 0 && errno == EAGAIN)
			continue;
		if (len < 0 || len % sizeof(msg[0]))
			die("read");
		for (i = 0; i < len / sizeof(msg[0]); i++)
			resolve(&msg[i]);
	}
	return NULL;
}

/* The plugin looks for its address: compiled with -fno-inline. */
void begin(void)
{
	__atomic_store_n(&go, 1, __ATOMIC_RELEASE);
}

static void start(void *(*fn)(void *), unsigned int count)
{
	unsigned long nr;
	pthread_t id;

	for (nr = 0; nr < count; nr++) {
		errno = pthread_create(&id, NULL, fn, (void *)nr);
		if (errno)
			die("pthread_create");
	}
}

static void run_case(const char *text)
{
	struct uffdio_api api = { .api = UFFD_API };
	char kind[16], how[16];

	if (sscanf(text, "%15[^/]/%15[^/]/%u/%u/%lu", kind, how, &threads, &handlers,
		   &pages) != 5 || !threads || !handlers || !pages ||
	    pages >= HUGE / PAGE) {
		fprintf(stderr, "%s is not KIND/HOW/THREADS/HANDLERS/PAGES\n", text);
		exit(1);
	}
	gup = !strcmp(kind, "gup");
	minor = gup || !strcmp(kind, "minor");
	polls = !strcmp(how, "poll");
	if (!strcmp(how, "batch"))
		batch = 16;

	fd = syscall(SYS_userfaultfd, O_CLOEXEC | (polls ? O_NONBLOCK : 0));
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		die("userfaultfd");
	source = map(PAGE, -1);
	memset(source, 's', PAGE);
	map_area();
	start(handle, handlers);
	start(fault, threads);
	while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) < threads + handlers)
		usleep(1000);
	begin();
	while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < threads)
		usleep(2000);
	exit(0);
}

int main(int argc, char **argv)
{
	int i, status;
	pid_t pid;

	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	for (i = 1; i < argc; i++) {
		pid = fork();
		if (!pid)
			run_case(argv[i]);
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			die("fork");
		if (status) {
			fprintf(stderr, "%s: status %d\n", argv[i], status);
			return 1;
		}
	}
	return 0;
}
