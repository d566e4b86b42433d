/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the samples of userfaultfd have in common: memory and a descriptor for
 * it, options, and what is shown to people.
 */
#ifndef UFFD_SAMPLE_H
#define UFFD_SAMPLE_H

#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
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
#include <linux/userfaultfd.h>

#define MIB		(1024UL * 1024)
#define MAX_SIZE	(SIZE_MAX / 4 / MIB)	/* for --size */
#define BAR_CELLS	40
#define TIME_LEN	24

static inline __u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* xorshift64: quick, and good enough to jump around in memory */
static inline __u64 next_random(__u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/*
 * A descriptor for the memory of this process.  UFFD_USER_MODE_ONLY because it
 * takes no privilege, and the samples touch their memory themselves.  A VMM has
 * to leave it out, since KVM touches the memory of the guest in the kernel, and
 * needs CAP_SYS_PTRACE or /dev/userfaultfd instead.
 *
 * O_CLOEXEC matters: whoever inherits a copy keeps the descriptor alive, and
 * then nobody notices when the handler dies.
 */
static inline int new_uffd(__u64 features, const char *names)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (uffd < 0)
		err(1, "userfaultfd");
	if (ioctl(uffd, UFFDIO_API, &api)) {
		if (errno == EINVAL)
			errx(1, "UFFDIO_API: this kernel lacks some of %s",
			     names);
		err(1, "UFFDIO_API");
	}
	return uffd;
}

static inline void register_memory(int uffd, void *start, size_t len,
				   __u64 mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)start, .len = len },
		.mode = mode,
	};

	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		err(1, "UFFDIO_REGISTER of %zu bytes at %p", len, start);
}

/*
 * Anonymous memory that begins where a huge page can: a copy of 2 MiB at an
 * address like that takes one, if the system has it to give.
 */
static inline char *new_memory(size_t len)
{
	size_t align = 2 * MIB;
	char *p = mmap(NULL, len + align, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap of %zu bytes", len + align);
	return p + (-(uintptr_t)p & (align - 1));
}

static inline void *map_file(int fd, size_t len, int prot)
{
	void *p = mmap(NULL, len, prot, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		err(1, "mmap of a file, %zu bytes", len);
	return p;
}

static inline int new_file(const char *name, size_t len)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, len))
		err(1, "memory for the %s, %zu bytes", name, len);
	return fd;
}

static inline unsigned long number(const char *text, const char *what,
				   unsigned long min, unsigned long max)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || !isdigit(*text) || *end || n < min || n > max)
		errx(1, "%s: \"%s\" is no number from %lu to %lu", what, text,
		     min, max);
	return n;
}

/* Compares from one offset to another, page by page, so as to tell where. */
static inline bool same_memory(const char *memory, const char *copy,
			       size_t from, size_t to)
{
	size_t page = sysconf(_SC_PAGESIZE), at, n, bad = 0;

	for (at = from; at < to; at += n) {
		n = to - at < page ? to - at : page;
		if (!memcmp(memory + at, copy + at, n) || bad++)
			continue;
		while (memory[at] == copy[at])
			at++, n--;
		warnx("page %zu differs: byte %zu is 0x%02x, should be 0x%02x",
		      at / page, at, memory[at] & 0xff, copy[at] & 0xff);
	}
	if (bad > 1)
		warnx("%zu of %zu pages differ", bad,
		      (to - from + page - 1) / page);
	return !bad;
}

static inline const char *duration(char buf[TIME_LEN], __u64 ns)
{
	if (ns < 10000)
		snprintf(buf, TIME_LEN, "%u ns", (unsigned int)ns);
	else if (ns < 10000000)
		snprintf(buf, TIME_LEN, "%u us", (unsigned int)(ns / 1000));
	else
		snprintf(buf, TIME_LEN, "%llu ms", (unsigned long long)ns / 1000000);
	return buf;
}

/* A line that is drawn over again; done == 0 && total == 0 wipes it out. */
static inline void draw_bar(const char *what, __u64 done, __u64 total)
{
	char cells[BAR_CELLS + 1];
	unsigned int full = total ? done * BAR_CELLS / total : 0;

	if (!total) {
		printf("\r\033[K");
	} else {
		memset(cells, '.', BAR_CELLS);
		memset(cells, '#', full);
		cells[BAR_CELLS] = '\0';
		printf("\r%s [%s] %3u %%", what, cells,
		       (unsigned int)(done * 100 / total));
	}
	fflush(stdout);
}

#endif
