// SPDX-License-Identifier: GPL-2.0
/*
 * lazytree: the processes that CRIU dumps and restores with lazy pages.
 *
 * usage: lazytree PAGES [fork], in an empty folder
 *
 * A parent and two children, each with PAGES pages of private memory; what a
 * page holds, no other page of any process ever holds.  They create ready.NAME
 * and wait.  Now they are dumped.  Restored, they see the file "go", and at
 * once, while their memory has not arrived, do all that the kernel must tell
 * the handler about: fork, so that memory is shared that neither side has got
 * yet, and from the forked process once more; unmap; map over what was there;
 * move and grow by mremap; drop by madvise while another thread reads; exit
 * with pages that never came.  With "fork" they fork, read and write only.
 *
 * Each process checks all of its memory, in scattered order so that the handler
 * cannot guess it: each word of a page must be what was last written, each page
 * that was dropped must be zero.  Then it adds a line to the file "result":
 * "NAME: sound, N pages" or "NAME: wrong: ...".  The parent's comes last.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE	4096UL
#define WORDS	(PAGE / sizeof(uint64_t))
#define PARTS	8
#define CHILDREN 2
/* A prime that divides no number of pages in use here. */
#define STRIDE	7919

/* A run of pages, and what each of them was filled with; 0: it is zero. */
struct area {
	uint64_t *memory;
	size_t pages;
	uint64_t *keys;
};

static char who[32];
static int fork_only;
static unsigned long checked;

/* One write for a line, so that the lines of two processes do not mix. */
static void say(const char *format, ...)
{
	char line[256];
	va_list args;
	int fd, used;

	used = snprintf(line, sizeof(line), "%s: ", who);
	va_start(args, format);
	used += vsnprintf(line + used, sizeof(line) - used - 1, format, args);
	va_end(args);
	line[used++] = '\n';
	fd = open("result", O_WRONLY | O_APPEND | O_CREAT, 0644);
	if (fd < 0 || write(fd, line, used) != used)
		_exit(3);
	close(fd);
}

#define fail(...) do { say("wrong: " __VA_ARGS__); _exit(1); } while (0)
#define must(condition) \
	do { \
		if (!(condition)) \
			fail("%s: %s", #condition, strerror(errno)); \
	} while (0)

static uint64_t mix(uint64_t key, size_t word)
{
	uint64_t x = key + word * 0x9e3779b97f4a7c15;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	return x ^ (x >> 27);
}

static void fill(struct area *area, size_t index, uint64_t key)
{
	uint64_t *word = area->memory + index * WORDS;

	for (size_t i = 0; i < WORDS; i++)
		word[i] = mix(key, i);
	area->keys[index] = key;
}

static void check(struct area *area, size_t index)
{
	const uint64_t *word = area->memory + index * WORDS;
	uint64_t key = area->keys[index];

	for (size_t i = 0; i < WORDS; i++) {
		uint64_t want = key ? mix(key, i) : 0;

		if (word[i] != want)
			fail("page %zu of %zu at %p, key %#lx: word %zu is %#lx, not %#lx",
			     index, area->pages, (void *)area->memory, key, i, word[i], want);
	}
	__atomic_add_fetch(&checked, 1, __ATOMIC_RELAXED);
}

/* Check all pages; write new contents to every nth one, if n is not 0. */
static void visit(struct area *area, size_t nth, size_t start)
{
	for (size_t i = 0; i < area->pages; i++) {
		size_t index = (start + i * STRIDE) % area->pages;

		check(area, index);
		if (nth && index % nth == 0)
			fill(area, index, (area->keys[index] + 1) * 0xd1342543de82ef95 + getpid());
	}
}

static uint64_t *map(void *where, size_t pages, int flags)
{
	void *memory = mmap(where, pages * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	must(memory != MAP_FAILED);
	return memory;
}

static void forget(struct area *area)
{
	memset(area->keys, 0, area->pages * sizeof(*area->keys));
}

static void cut(struct area *area, size_t part, struct area *out)
{
	size_t pages = area->pages / PARTS;

	out->memory = area->memory + part * pages * WORDS;
	out->keys = area->keys + part * pages;
	out->pages = pages;
}

static void sound(void)
{
	say("sound, %lu pages", checked);
}

static void wait_for(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	if (status)
		fail("process %d ended with status %#x", pid, status);
}

/* Fork a process that checks, changes and in part unmaps all of the memory. */
static pid_t spawn(struct area *area, int depth)
{
	size_t half = area->pages / PARTS / 2;
	struct area rest = *area;
	pid_t pid = fork(), other = 0;

	must(pid >= 0);
	if (pid)
		return pid;
	snprintf(who + strlen(who), sizeof(who) - strlen(who), ".%d", depth);
	checked = 0;
	if (depth > 1)
		other = spawn(area, depth - 1);
	/* Half of its first part it never sees. */
	if (!fork_only) {
		must(munmap(area->memory, half * PAGE) == 0);
		rest.memory += half * WORDS;
		rest.keys += half;
		rest.pages -= half;
	}
	visit(&rest, 3, depth * 100);
	visit(&rest, 0, 0);
	if (other)
		wait_for(other);
	sound();
	_exit(0);
}

static void *reader(void *area)
{
	visit(area, 5, 11);
	return NULL;
}

/* What was at PART moves away and grows; returns where it is now. */
static struct area move(struct area *part)
{
	struct area grown = *part;

	grown.keys = calloc(2 * part->pages, sizeof(*grown.keys));
	must(grown.keys);
	memcpy(grown.keys, part->keys, part->pages * sizeof(*grown.keys));
	grown.memory = map(NULL, part->pages, 0);
	must(mremap(part->memory, part->pages * PAGE, part->pages * PAGE,
		    MREMAP_MAYMOVE | MREMAP_FIXED, grown.memory) == grown.memory);
	/* What is mapped at the old place is another thing. */
	map(part->memory, part->pages, MAP_FIXED_NOREPLACE);
	forget(part);
	for (size_t i = 0; i < grown.pages; i += 50)
		check(&grown, i);
	/* Moved again, with what has come by now and what has not. */
	grown.memory = mremap(grown.memory, grown.pages * PAGE, 2 * grown.pages * PAGE,
			      MREMAP_MAYMOVE);
	must(grown.memory != MAP_FAILED);
	grown.pages *= 2;
	return grown;
}

static void change(struct area *part, struct area *grown)
{
	/* Dropped piece by piece, each piece used again. */
	for (size_t i = 0; i + 16 <= part[5].pages; i += 16) {
		must(madvise(part[5].memory + i * WORDS, 16 * PAGE, MADV_DONTNEED) == 0);
		memset(part[5].keys + i, 0, 16 * sizeof(*part[5].keys));
		check(&part[5], i + 3);
		fill(&part[5], i + 4, (uint64_t)getpid() << 32 | i);
	}
	/* Unmapped, and mapped anew at the same place. */
	must(munmap(part[1].memory, part[1].pages * PAGE) == 0);
	map(part[1].memory, part[1].pages, MAP_FIXED_NOREPLACE);
	forget(&part[1]);
	/* Mapped over. */
	map(part[2].memory, part[2].pages, MAP_FIXED);
	forget(&part[2]);
	*grown = move(&part[3]);
	/* A hole in the middle. */
	must(munmap(part[6].memory + 8 * WORDS, 8 * PAGE) == 0);
	map(part[6].memory + 8 * WORDS, 8, MAP_FIXED_NOREPLACE);
	memset(part[6].keys + 8, 0, 8 * sizeof(*part[6].keys));
}

static void live(struct area *area)
{
	struct area part[PARTS], grown = { 0 };
	pthread_t thread;
	pid_t pid;

	for (int i = 0; i < PARTS; i++)
		cut(area, i, &part[i]);
	pid = spawn(area, 2);
	/* One thread waits for pages all the time that the other changes things. */
	must(pthread_create(&thread, NULL, reader, &part[7]) == 0);
	if (!fork_only)
		change(part, &grown);
	visit(&grown, 2, 1);
	must(pthread_join(thread, NULL) == 0);
	visit(area, 3, 17);
	/* And now that most has come, once more. */
	wait_for(spawn(area, 1));
	visit(area, 0, 0);
	visit(&grown, 0, 0);
	wait_for(pid);
}

int main(int argc, char **argv)
{
	struct timespec moment = { .tv_nsec = 1000000 };
	struct area area;
	pid_t child[CHILDREN];
	int me = 0;
	char ready[sizeof(who) + 8];

	strcpy(who, "parent");
	fork_only = argc == 3 && !strcmp(argv[2], "fork");
	area.pages = argc - fork_only == 2 ? strtoul(argv[1], NULL, 10) : 0;
	if (area.pages < 16 * PARTS || area.pages % (16 * PARTS)) {
		fprintf(stderr, "usage: lazytree PAGES [fork], PAGES a multiple of %d\n", 16 * PARTS);
		return 2;
	}
	for (int i = 0; i < CHILDREN; i++) {
		child[i] = fork();
		must(child[i] >= 0);
		if (!child[i]) {
			me = i + 1;
			snprintf(who, sizeof(who), "child %d", me);
			break;
		}
	}
	area.memory = map(NULL, area.pages, 0);
	area.keys = calloc(area.pages, sizeof(*area.keys));
	must(area.keys);
	for (size_t i = 0; i < area.pages; i++)
		fill(&area, i, (uint64_t)(me + 1) << 48 | (i + 1) << 16);

	snprintf(ready, sizeof(ready), "ready.%s", who);
	must(close(open(ready, O_WRONLY | O_CREAT, 0644)) == 0);
	while (access("go", F_OK))
		nanosleep(&moment, NULL);

	live(&area);
	if (!me)
		for (int i = 0; i < CHILDREN; i++)
			wait_for(child[i]);
	sound();
	return 0;
}
