// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-example: a small but complete userfaultfd handler.
 *
 * Some memory is registered. When a page of it is touched for the first time,
 * one thread, the handler, brings it in from a store. This store is made up on
 * the spot; it could be a file, or another machine. The other threads use the
 * memory and know nothing of all this.
 *
 * They also drop pages with madvise(). A dropped page is zero when it is
 * touched again, so what the store has of it is out of date. That is why the
 * handler asks for REMOVE events.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#define PAGES	512
#define BATCH	16	/* messages to read at once */

static size_t page_size;
static char *memory;	/* registered: the handler must never touch it */
static char *buffer;	/* where the handler gets a page ready */
static int uffd;

/* What the handler knows of a page. No other thread looks at this. */
static struct {
	bool wanted;	/* somebody waits for it */
	bool dropped;	/* the store is out of date: it is zero now */
} pages[PAGES];

static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

static char content(unsigned int nr)
{
	return 1 + nr % 100;
}

/* Tries to bring a page in. False: not yet. */
static bool resolve(unsigned int nr)
{
	struct uffdio_range range = {
		.start = (uintptr_t)memory + nr * page_size,
		.len = page_size,
	};
	struct uffdio_copy copy = {
		.dst = range.start,
		.src = (uintptr_t)buffer,
		.len = range.len,
	};
	struct uffdio_zeropage zero = { .range = range };
	int ret;

	if (pages[nr].dropped) {
		ret = ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
	} else {
		memset(buffer, content(nr), page_size);
		ret = ioctl(uffd, UFFDIO_COPY, &copy);
	}
	if (!ret)
		return true;	/* it is there, and who waited for it runs */

	/* Of one page nothing can be half done: the errno says it all. */
	switch (errno) {
	case EAGAIN:	/* an event that concerns the page has not been read */
		return false;
	case EEXIST:	/* it has come by other means */
	case ENOENT:	/* it is unmapped, moved or not registered any more */
		if (ioctl(uffd, UFFDIO_WAKE, &range))
			die("UFFDIO_WAKE");
		return true;	/* who waited tries again, and finds out */
	case ESRCH:	/* the process is gone, and who waited with it */
		return true;
	default:
		die("UFFDIO_COPY or UFFDIO_ZEROPAGE");
		return false;
	}
}

static unsigned int page_at(__u64 addr)
{
	return (addr - (uintptr_t)memory) / page_size;
}

static void learn(const struct uffd_msg *msg)
{
	unsigned int nr;

	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		pages[page_at(msg->arg.pagefault.address)].wanted = true;
		break;
	case UFFD_EVENT_REMOVE:
		for (nr = page_at(msg->arg.remove.start);
		     nr < page_at(msg->arg.remove.end); nr++)
			pages[nr].dropped = true;
		break;
	default:
		errno = EPROTO;	/* we have not asked for others */
		die("message");
	}
}

static void *handler(void *quit)
{
	struct pollfd fds[] = {
		{ .fd = uffd, .events = POLLIN },
		{ .fd = *(int *)quit, .events = POLLIN },
	};
	struct uffd_msg msg[BATCH];
	bool refused = false;
	unsigned int nr;
	ssize_t i, len;

	for (;;) {
		/*
		 * After EAGAIN there is something to read, so this returns at
		 * once. On older kernels there may be nothing, and nobody says
		 * when the refusal is over: it takes a time limit there.
		 */
		if (poll(fds, 2, refused ? 1 : -1) < 0 && errno != EINTR)
			die("poll");
		if (fds[1].revents)
			return NULL;

		/* EAGAIN: the fault was resolved before we could read it. */
		len = read(uffd, msg, sizeof(msg));
		if (len < 0 && errno != EAGAIN && errno != EINTR)
			die("read");
		for (i = 0; i < len / (ssize_t)sizeof(msg[0]); i++)
			learn(&msg[i]);

		refused = false;
		for (nr = 0; nr < PAGES; nr++) {
			if (!pages[nr].wanted)
				continue;
			if (resolve(nr))
				pages[nr].wanted = false;
			else
				refused = true;
		}
	}
}

/* Uses half of the memory. Returns how often it found something else. */
static void *use(void *half)
{
	const unsigned int first = half ? PAGES / 2 : 0, at_once = 8;
	uintptr_t wrong = 0;
	unsigned int i, j;
	char *p;

	for (i = 0; i < PAGES / 2; i++)
		wrong += memory[(first + i) * page_size] != content(first + i);
	for (i = 0; i < PAGES / 2; i += at_once) {
		p = memory + (first + i) * page_size;
		if (madvise(p, at_once * page_size, MADV_DONTNEED))
			die("madvise");
		for (j = 0; j < at_once; j++) {
			wrong += p[j * page_size] != 0;
			p[j * page_size] = 'x';
		}
	}
	return (void *)wrong;
}

static void set_up(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_REMOVE,
	};
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	/* With UFFD_USER_MODE_ONLY it takes no privilege. */
	uffd = syscall(SYS_userfaultfd,
		       O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (uffd < 0 && access("/proc/sys/vm/unprivileged_userfaultfd", F_OK)) {
		printf("1..0 # SKIP this kernel has no userfaultfd\n");
		exit(4);
	}
	if (uffd < 0)
		die("userfaultfd");
	if (ioctl(uffd, UFFDIO_API, &api))
		die("UFFDIO_API");

	page_size = sysconf(_SC_PAGESIZE);
	buffer = malloc(page_size);
	memory = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!buffer || memory == MAP_FAILED)
		die("memory");
	reg.range.start = (uintptr_t)memory;
	reg.range.len = PAGES * page_size;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		die("UFFDIO_REGISTER");
}

int main(void)
{
	int quit = eventfd(0, EFD_CLOEXEC);
	pthread_t server, user[2];
	uintptr_t wrong = 0;
	void *ret;
	long i;

	printf("TAP version 13\n");
	set_up();
	if (quit < 0 || pthread_create(&server, NULL, handler, &quit))
		die("handler");
	for (i = 0; i < 2; i++)
		if (pthread_create(&user[i], NULL, use, (void *)i))
			die("user");
	for (i = 0; i < 2; i++) {
		pthread_join(user[i], &ret);
		wrong += (uintptr_t)ret;
	}
	/* Nobody uses the memory any more: now the handler may go. */
	if (eventfd_write(quit, 1))
		die("eventfd_write");
	pthread_join(server, NULL);
	close(uffd);	/* this ends the registration */

	printf("1..1\n%sok 1 each page was what it should be\n",
	       wrong ? "not " : "");
	return wrong != 0;
}
