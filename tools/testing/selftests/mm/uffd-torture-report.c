// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: what is printed when something is wrong, and the counters of the
 * machine.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "uffd-torture.h"

const char *const op_name[NR_OPS] = {
#define OP(name) #name
#include "uffd-torture-ops.h"
#undef OP
};

const char *const test_name[NR_TESTS] = {
	[T_CONTENT] = "every page holds what was last put there",
	[T_ASLEEP] = "nobody sleeps whose fault is resolved",
	[T_MESSAGE] = "messages come once, in order, and as they must",
	[T_PROTECT] = "protection stays until it is taken off",
	[T_CALL] = "calls return what they may",
	[T_COUNTER] = "all memory comes back",
};

/* What is printed when something is wrong */

static void print_file(const char *path, const char *what)
{
	char text[2048], *line, *save;

	if (uk_read_text(path, text, sizeof(text)) < 0)
		return;
	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		ksft_print_msg("  %s: %s\n", what, line);
}

/* In the page table of the world, as somebody else can see it. */
static void print_page(struct world *w, int region, int page)
{
	struct region *r = &w->region[region];
	struct page *p = &r->page[page];
	__u64 at, entry = 0;
	char path[64];
	int fd;

	at = (unsigned long)r->arena[r->at] + page * r->unit;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", w->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, &entry, 8, at / getpagesize() * 8) != 8)
		entry = 0;
	if (fd >= 0)
		close(fd);
	ksft_print_msg("  region %d page %d at %#llx: %s%s%s\n", region, page, at,
		       entry & UK_PM_PRESENT ? "present" : "not present",
		       entry & UK_PM_SWAP ? ", swapped or a marker" : "",
		       entry & UK_PM_WP ? ", protected" : "");
	ksft_print_msg("  started %u settled %u store %u next %u odd %u epoch %u\n",
		       p->started, p->settled, p->store, p->next, p->odd,
		       p->epoch);
	ksft_print_msg("  wp %u awaits %u lock %u fill %u\n", p->wp, p->awaits,
		       p->lock, p->fill);
}

static void print_worker(struct world *w, struct worker *k)
{
	pid_t pid = k->role == 's' && w->external ? w->server[w->serving] : w->pid;
	char path[96];

	if (!k->tid)
		return;
	ksft_print_msg("thread %d (%c): %s region %d page %d, for %lld ms\n",
		       k->tid, k->role, k->since ? op_name[k->op] : "idle",
		       k->region, k->page, k->since ? uk_now() - k->since : 0);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/wchan", pid, k->tid);
	print_file(path, "wchan");
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stack", pid, k->tid);
	print_file(path, "stack");
	if (k->since && k->region >= 0 && k->page >= 0)
		print_page(w, k->region, k->page);
}

static void print_world(struct world *w)
{
	unsigned int i;
	char path[64];

	ksft_print_msg("world %u (process %d): features %#llx, %s%s%s%s\n",
		       w->nr, w->pid, w->features,
		       w->nonblock ? "nonblocking" : "blocking",
		       w->external ? ", external" : "", w->sloppy ? ", sloppy" : "",
		       w->handover ? ", handover" : "");
	ksft_print_msg("%u fds, %u servers, %u users, %u actors, ending %u\n",
		       w->fds, w->servers, w->users, w->actors, w->ending);
	for (i = 0; i < w->regions; i++) {
		struct region *r = &w->region[i];

		ksft_print_msg("region %u: kind %u mode %#llx pages %u of %zu fd %u\n",
			       i, r->kind, r->mode, r->pages, r->unit, r->fd);
		ksft_print_msg("  at %p and %p, in %u, told %u, unarmed %u\n",
			       r->arena[0], r->arena[1], r->at, r->place,
			       r->unarmed);
	}
	for (i = 0; i < w->fds; i++) {
		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", w->pid, w->fd[i]);
		print_file(path, "fdinfo");
	}
}

static void print_log(struct world *w)
{
	uint32_t next = w->log_next, i = next < LOG_LINES ? 0 : next - LOG_LINES;
	long long last = w->log[(next - 1) % LOG_LINES].when;

	ksft_print_msg("the last steps:\n");
	for (; i != next; i++) {
		struct log_line *l = &w->log[i % LOG_LINES];

		ksft_print_msg("%6lld %6d %-10s region %d pages %d+%d: %d\n",
			       l->when - last, l->tid, op_name[l->op], l->region,
			       l->page, l->pages, l->ret);
	}
}

void report(struct world *w)
{
	unsigned int i;

	ksft_print_msg("FAILED: %s\n", test_name[w->what]);
	ksft_print_msg("world %u, seed %llu: %s\n", w->nr, w->seed, w->why);
	print_world(w);
	for (i = 0; i < MAX_THREADS; i++)
		print_worker(w, &w->worker[i]);
	print_log(w);
}

/* Counters of the whole machine */

long read_meminfo(const char *key)
{
	char line[128];
	long val = 0;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
			val = strtol(line + strlen(key) + 1, NULL, 10);
	if (f)
		fclose(f);
	return val;
}

struct counters read_counters(void)
{
	return (struct counters){
		.free = read_meminfo("HugePages_Free"),
		.reserved = read_meminfo("HugePages_Rsvd"),
		.surplus = read_meminfo("HugePages_Surp"),
		.anon_huge = read_meminfo("AnonHugePages"),
	};
}

static long cgroup_stat(const struct world *w, const char *key)
{
	char path[160], line[128];
	long val = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/memory.stat", w->cgroup);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ' ')
			val = strtol(line + strlen(key) + 1, NULL, 10);
	if (f)
		fclose(f);
	return val;
}

/*
 * Swap space that is charged to it. A page that was being written out when its process
 * ended is nobody's, but keeps its place until reclaim comes by; so that is called.
 */
static long swap_left(const struct world *w)
{
	/* Each CPU keeps some slots that are free, but charged still. */
	long kept = sysconf(_SC_NPROCESSORS_CONF) * 64 * getpagesize(), n;
	char path[160];

	snprintf(path, sizeof(path), "%s/memory.swap.current", w->cgroup);
	n = uk_read_number(path);
	if (n <= kept)
		return 0;
	snprintf(path, sizeof(path), "%s/memory.reclaim", w->cgroup);
	uk_write_file(path, "64M");
	return n;
}

/* What is charged to a world whose processes are gone; NULL: nothing. */
static const char *left_charged(const struct world *w)
{
	static const char *const keys[] = {
		"anon", "anon_thp", "shmem", "shmem_thp", "pagetables",
	};
	static char text[96];
	unsigned int i;
	long n;

	if (!w->cgroup[0])
		return NULL;
	for (i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		n = cgroup_stat(w, keys[i]);
		if (!n)
			continue;
		snprintf(text, sizeof(text), "memory.stat %s %ld", keys[i], n);
		return text;
	}
	n = swap_left(w);
	if (!n)
		return NULL;
	snprintf(text, sizeof(text), "memory.swap.current %ld, %ld of it in the swap cache",
		 n, cgroup_stat(w, "swapcached"));
	return text;
}

static const char *off(const struct counters *was, const struct world *worlds,
		       unsigned int n)
{
	struct counters now = read_counters();
	const char *left;
	static char text[160];
	unsigned int i;

	for (i = 0; i < n; i++) {
		left = left_charged(&worlds[i]);
		if (left)
			return left;
	}
	if (now.free == was->free && now.reserved == was->reserved &&
	    now.surplus == was->surplus && now.anon_huge <= was->anon_huge)
		return NULL;
	snprintf(text, sizeof(text),
		 "huge pages free %ld (were %ld), reserved %ld (%ld), surplus %ld (%ld), AnonHugePages %ld (%ld)",
		 now.free, was->free, now.reserved, was->reserved, now.surplus,
		 was->surplus, now.anon_huge, was->anon_huge);
	return text;
}

bool check_counters(const struct counters *was, struct world *worlds,
		    unsigned int n)
{
	unsigned int looks = setting.patience / 40;
	const char *what;

	while ((what = off(was, worlds, n)) && looks--)
		uk_sleep(20);
	if (!what)
		return true;
	ksft_print_msg("FAILED: %s\n", test_name[T_COUNTER]);
	ksft_print_msg("after a round: %s\n", what);
	while (n--) {
		print_world(&worlds[n]);
		print_log(&worlds[n]);
	}
	return false;
}
