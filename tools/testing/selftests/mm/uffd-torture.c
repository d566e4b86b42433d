// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: everything that can be done to registered memory, at once, with an
 * oracle that knows what each page must hold.
 *
 * It runs rounds of a few seconds until the time is over, each with worlds of its own
 * (see uffd-torture.h) that are drawn from the seed. A round fails if a page holds
 * what it must not, a message is wrong, somebody sleeps for too long, or memory does
 * not come back. Threads race, so a seed gives the same worlds again, but not the
 * same race.
 *
 * Environment:
 *	TORTURE=seconds		how long (30)
 *	SEED=number		where to begin (the time)
 *	TORTURE_OPS=A,B,...	actors do only these, by the names of OPS
 *	TORTURE_ROUND=ms	how long a round is (3000)
 *	TORTURE_PATIENCE=ms	within which a step is over (40000)
 *	TORTURE_ORDER=0|1	what to expect of order; else it is found out
 *
 * To know what uffd means: Documentation/admin-guide/mm/userfaultfd.rst.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/fs.h>

#include "uffd-torture.h"

struct setting setting = { .direct_fd = -1, .patience = 40000 };
/* How often worlds are looked at, in ms. */
#define TURN	10

static struct world *worlds;
static bool failed[NR_TESTS], any_failed;
static uint64_t done[NR_OPS], refused[NR_OPS];

/* What the threads of worlds call */

void fail(enum test what, const char *fmt, ...)
{
	va_list args;

	if (__atomic_exchange_n(&world->failed, true, __ATOMIC_SEQ_CST))
		return;
	va_start(args, fmt);
	vsnprintf(world->why, sizeof(world->why), fmt, args);
	va_end(args);
	uk_set(&world->what, what);
}

uint64_t tick(void)
{
	return __atomic_add_fetch(&world->clock, 1, __ATOMIC_SEQ_CST);
}

void begin(enum op op, int region, int page)
{
	struct worker *w = self->worker;

	w->op = op;
	w->region = region;
	w->page = page;
	uk_add(&w->steps, 1);
	uk_set(&w->since, uk_now());
}

static void write_log(enum op op, int region, int page, int pages, int ret)
{
	uint32_t at = __atomic_fetch_add(&world->log_next, 1, __ATOMIC_RELAXED);

	world->log[at % LOG_LINES] = (struct log_line){
		uk_now(), self->worker->tid, op, region, page, pages, ret,
	};
}

void count(enum op op, int region, int page, int pages, int ret)
{
	uint64_t *what = ret < 0 ? world->refused : world->done;

	__atomic_fetch_add(&what[op], 1, __ATOMIC_RELAXED);
	write_log(op, region, page, pages, ret);
}

void end(int pages, int ret)
{
	struct worker *w = self->worker;

	if (w->op != OP_FAULT || ret)
		count(w->op, w->region, w->page, pages, ret);
	else
		__atomic_fetch_add(&world->done[OP_FAULT], 1, __ATOMIC_RELAXED);
	uk_set(&w->since, 0);
}

static void note_failure(enum test what)
{
	any_failed = true;
	failed[what] = true;
}

/* Rounds */

static void draw_features(struct world *w, struct random *rnd, __u64 offered)
{
	static const __u64 events[] = {
		UFFD_FEATURE_EVENT_FORK, UFFD_FEATURE_EVENT_REMAP,
		UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_EVENT_UNMAP,
	};
	unsigned int i;

	if (chance(rnd, 75))
		w->features |= UFFD_FEATURE_THREAD_ID;
	if (chance(rnd, 20))
		w->features |= UFFD_FEATURE_EXACT_ADDRESS;
	if (chance(rnd, 30))
		w->features |= UFFD_FEATURE_WP_UNPOPULATED;
	if (chance(rnd, 20))
		w->features |= UFFD_FEATURE_WP_ASYNC |
			       UFFD_FEATURE_WP_UNPOPULATED;
	if ((w->features & UFFD_FEATURE_WP_ASYNC) && chance(rnd, 60))
		w->features |= UFFD_FEATURE_WP_LOG;
	if (chance(rnd, 30))
		w->features |= UFFD_FEATURE_WP_SET_MODE |
			       UFFD_FEATURE_WP_UNPOPULATED;
	if (chance(rnd, 40))
		w->features |= UFFD_FEATURE_EXCHANGE;
	if (chance(rnd, 75)) {
		for (i = 0; i < 4; i++)
			if (chance(rnd, 65))
				w->features |= events[i];
		if (chance(rnd, 40))
			w->features |= UFFD_FEATURE_EVENT_NOWAIT;
	}
	/* A child is served beside its parent, by a reader that does not block. */
	if (!w->nonblock)
		w->features &= ~UFFD_FEATURE_EVENT_FORK;
	if (w->handover)
		w->features &= ~(UFFD_FEATURE_EVENT_FORK |
				 UFFD_FEATURE_EVENT_REMAP |
				 UFFD_FEATURE_EVENT_UNMAP);
	w->features &= offered;
	for (i = 0; i < 4; i++)
		w->events |= !!(w->features & events[i]);
}

static __u64 draw_mode(enum uk_kind kind, struct random *rnd, __u64 offered)
{
	bool anon = kind == UK_ANON || kind == UK_ANON_SMALL;
	bool shared = kind == UK_SHMEM || kind == UK_HUGETLB;
	__u64 mode = 0;

	if (!(offered & (anon ? UFFD_FEATURE_PAGEFAULT_FLAG_WP :
				UFFD_FEATURE_WP_HUGETLBFS_SHMEM)))
		return MISSING;
	if (chance(rnd, 50))
		mode |= WP;
	if (shared && chance(rnd, 50))
		mode |= MINOR;
	if (!mode || chance(rnd, 80))
		mode |= MISSING;
	return mode;
}

static void draw_region(struct region *r, struct random *rnd, __u64 offered)
{
	static const unsigned int sizes[] = { 8, 64, 512, 1024 };
	bool hugetlb = read_meminfo("HugePages_Free") >= 128;

	r->kind = below(rnd, hugetlb ? 6 : 4);
	r->unit = getpagesize();
	r->pages = sizes[below(rnd, 4)];
	r->step = r->unit / 8;
	if (is_hugetlb(r)) {
		r->unit = read_meminfo("Hugepagesize") * 1024;
		r->pages = 2 + below(rnd, 3);
		r->step = r->unit / 32;
	} else if (r->kind == UK_ANON && r->pages < 512) {
		r->pages = 1024;
	}
	r->len = r->pages * r->unit;
	r->mode = draw_mode(r->kind, rnd, offered);
	r->modes = r->mode;
}

static void draw_world(struct world *w, unsigned int nr, __u64 seed)
{
	struct random rnd = { seed * 2862933555777941757ULL + 3037000493ULL };
	unsigned int i;

	memset(w, 0, sizeof(*w));
	any(&rnd);
	w->nr = nr;
	w->seed = seed;
	w->nonblock = chance(&rnd, 80);
	w->external = chance(&rnd, 30);
	w->handover = w->external && chance(&rnd, 50);
	w->passed = w->external && chance(&rnd, 50);
	w->sloppy = chance(&rnd, 15);
	draw_features(w, &rnd, setting.offered);
	w->fds = 1 + below(&rnd, MAX_FDS);
	w->servers = w->fds * (1 + below(&rnd, 3));
	if (w->nonblock && chance(&rnd, 25))
		w->servers = 1;		/* one for all */
	if (!w->nonblock && w->events)
		w->servers = w->fds;
	w->users = 2 + below(&rnd, 7);
	w->actors = 1 + below(&rnd, 4);
	for (i = 0; i < w->fds && (w->features & UFFD_FEATURE_WP_ASYNC); i++)
		w->noting[i].state = 2;
	w->ending = chance(&rnd, 50) ? END_ORDERLY : below(&rnd, NR_ENDINGS);
	w->regions = 1 + below(&rnd, MAX_REGIONS);
	for (i = 0; i < w->regions; i++) {
		w->region[i].nr = i;
		w->region[i].fd = i % w->fds;
		draw_region(&w->region[i], &rnd, setting.offered);
	}
}

static void make_cgroup(struct world *w)
{
	static unsigned int nr;

	if (!setting.cgroup[0])
		return;
	snprintf(w->cgroup, sizeof(w->cgroup), "%s/%u", setting.cgroup, nr++);
	if (mkdir(w->cgroup, 0755))
		w->cgroup[0] = 0;
}

static void kill_cgroup(struct world *w)
{
	char path[160];

	if (!w->cgroup[0])
		return;
	snprintf(path, sizeof(path), "%s/cgroup.kill", w->cgroup);
	uk_write_file(path, "1");
}

static void remove_cgroup(struct world *w)
{
	int tries = 100;

	while (w->cgroup[0] && rmdir(w->cgroup) && errno == EBUSY && tries--)
		uk_sleep(20);
}

/*
 * A thread is in one step for too long. What counts is not time but turns of this
 * watch: on a machine that is overloaded, or stands still, those are late too.
 */
static void watch(struct world *w)
{
	unsigned int i;

	if (uk_get(&w->over))
		return;
	for (i = 0; i < MAX_THREADS; i++) {
		struct worker *k = &w->worker[i];
		uint32_t steps = uk_get(&k->steps);

		if (!uk_get(&k->tid) || !uk_get(&k->since) ||
		    steps != k->seen_step) {
			k->seen_step = steps;
			k->seen = 0;
			continue;
		}
		if (++k->seen < setting.patience / TURN)
			continue;
		world = w;
		fail(T_ASLEEP, "thread %d has been in %s of region %d page %d for %lld ms",
		     k->tid, op_name[k->op], k->region, k->page,
		     uk_now() - k->since);
		return;
	}
}

static bool oom_killed(struct world *w)
{
	char path[160], text[256], *at;
	int fd, n;

	snprintf(path, sizeof(path), "%s/memory.events", w->cgroup);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	at = strstr(text, "oom_kill ");
	return at && strtol(at + 9, NULL, 10) > 0;
}

/* Has it ended? And was it to? */
static bool has_ended(struct world *w, pid_t *pid)
{
	int status;

	if (*pid <= 0)
		return true;
	if (waitpid(*pid, &status, WNOHANG) != *pid)
		return false;
	*pid = 0;
	world = w;
	if (!uk_get(&w->over) && !oom_killed(w))
		fail(T_CALL, "the world ended by itself, with status %#x", status);
	uk_set(&w->over, true);
	return true;
}

static bool all_ended(pid_t *pid, unsigned int n)
{
	bool all = true;
	unsigned int i;

	for (i = 0; i < n; i++)
		all &= has_ended(&worlds[i], &pid[i]);
	return all;
}

static bool all_well(unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		watch(&worlds[i]);
		if (uk_get(&worlds[i].failed))
			return false;
	}
	return true;
}

static void collect(unsigned int n)
{
	unsigned int i, op;

	for (i = 0; i < n; i++) {
		for (op = 0; op < NR_OPS; op++) {
			done[op] += worlds[i].done[op];
			refused[op] += worlds[i].refused[op];
		}
	}
}

static void play(pid_t *pid, unsigned int n, int ms)
{
	unsigned int i, left = 2 * setting.patience / TURN;
	long long until = uk_now() + ms;

	while (!all_ended(pid, n) && all_well(n)) {
		if (uk_now() > until) {
			for (i = 0; i < n; i++)
				uk_set(&worlds[i].finish, true);
			left--;
		}
		if (!left) {
			world = &worlds[0];
			for (i = 0; i < n; i++)
				if (pid[i])
					world = &worlds[i];
			fail(T_ASLEEP, "the world does not end");
		}
		uk_sleep(TURN);
	}
	if (all_well(n))
		return;
	uk_sleep(100);	/* for the text of it */
	for (i = 0; i < n; i++) {
		if (!worlds[i].failed)
			continue;
		note_failure(worlds[i].what);
		report(&worlds[i]);
	}
}

static void play_round(__u64 seed, int ms)
{
	struct counters was = read_counters();
	struct random rnd = { seed * 6364136223846793005ULL + 1 };
	pid_t pid[MAX_WORLDS];
	unsigned int n, i;

	any(&rnd);
	n = 1 + below(&rnd, MAX_WORLDS);
	for (i = 0; i < n; i++) {
		draw_world(&worlds[i], i, seed * MAX_WORLDS + i);
		make_cgroup(&worlds[i]);
	}
	for (i = 0; i < n; i++)
		pid[i] = uk_spawn(world_main, &worlds[i]);
	play(pid, n, ms);
	for (i = 0; i < n; i++) {
		kill_cgroup(&worlds[i]);
		if (pid[i] > 0) {
			kill(pid[i], SIGKILL);
			reap(pid[i]);
		}
	}
	collect(n);
	if (!any_failed && !check_counters(&was, worlds, n))
		note_failure(T_COUNTER);
	for (i = 0; i < n; i++)
		remove_cgroup(&worlds[i]);
}

/* What the machine has */

static long drop_page(void *arg)
{
	return madvise(arg, getpagesize(), MADV_DONTNEED);
}

/*
 * Is there one order of faults and events, as this kernel's documentation promises? If
 * so a REMOVE that came first is read first.
 */
static bool probe_order(void)
{
	size_t page = getpagesize();
	struct uk_thread event, fault;
	struct uffd_msg msg;
	struct uk_mem m;
	bool ordered = false;
	int fd;

	fd = uk_new(O_CLOEXEC | O_NONBLOCK, UFFD_FEATURE_EVENT_REMOVE);
	if (fd < 0 || uk_map(&m, UK_ANON_SMALL, 4) ||
	    uk_register(fd, m.area, m.len))
		return false;
	uk_start(&event, drop_page, m.area);
	uk_asleep(event.tid);
	uk_start(&fault, uk_peek, m.area + 2 * page);
	uk_asleep(fault.tid);
	if (uk_next(fd, &msg) == 1)
		ordered = msg.event == UFFD_EVENT_REMOVE;
	uk_next(fd, &msg);
	close(fd);
	uk_join(&event, UK_SOON);
	uk_join(&fault, UK_SOON);
	munmap(m.area, m.len);
	return ordered;
}

static void open_cgroup(void)
{
	snprintf(setting.cgroup, sizeof(setting.cgroup),
		 "/sys/fs/cgroup/uffd-torture-%d", getpid());
	uk_write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	if (mkdir(setting.cgroup, 0755)) {
		setting.cgroup[0] = 0;
		return;
	}
	strcat(setting.cgroup, "/cgroup.subtree_control");
	if (!uk_write_file(setting.cgroup, "+memory")) {
		*strrchr(setting.cgroup, '/') = 0;
		rmdir(setting.cgroup);
		setting.cgroup[0] = 0;
		return;
	}
	*strrchr(setting.cgroup, '/') = 0;
}

static void choose_ops(char *list)
{
	char *name, *save;
	unsigned int i;

	for (name = strtok_r(list, ",", &save); name;
	     name = strtok_r(NULL, ",", &save)) {
		for (i = 0; i < NR_OPS && strcmp(op_name[i], name); i++)
			;
		if (i == NR_OPS)
			ksft_exit_fail_msg("there is no %s\n", name);
		setting.only[i] = true;
	}
	setting.some = true;
}

/*
 * What is set for as long as this lasts: the kernel's own threads are to be busy, and
 * huge pages to be had in several sizes.
 */
struct knob {
	const char *path, *value;
	char was[32];
};

#define MM "/sys/kernel/mm/"
static struct knob knobs[] = {
	{ MM "ksm/run", "1" },
	{ MM "ksm/sleep_millisecs", "5" },
	{ MM "transparent_hugepage/khugepaged/scan_sleep_millisecs", "20" },
	{ MM "transparent_hugepage/khugepaged/alloc_sleep_millisecs", "20" },
	{ MM "transparent_hugepage/khugepaged/pages_to_scan", "4096" },
	{ MM "transparent_hugepage/hugepages-16kB/enabled", "always" },
	{ MM "transparent_hugepage/hugepages-64kB/enabled", "madvise" },
	{ MM "transparent_hugepage/hugepages-512kB/enabled", "madvise" },
};

/* Its value; of several words, the one in brackets. */
static void read_knob(struct knob *k)
{
	char text[128], *from, *to;

	if (uk_read_text(k->path, text, sizeof(text)) < 0)
		return;
	from = strchr(text, '[');
	from = from ? from + 1 : text;
	to = strpbrk(from, "]\n");
	if (to && to - from < (long)sizeof(k->was)) {
		*to = 0;
		memcpy(k->was, from, to - from + 1);
	}
}

static void turn_knobs(bool back)
{
	unsigned int i;

	for (i = 0; i < sizeof(knobs) / sizeof(*knobs); i++) {
		if (!back)
			read_knob(&knobs[i]);
		if (knobs[i].was[0])
			uk_write_file(knobs[i].path,
				      back ? knobs[i].was : knobs[i].value);
	}
}

static long from_env(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text ? strtol(text, NULL, 10) : otherwise;
}

static void prepare(void)
{
	const char *why = uk_swap_on(256 << 20);

	setting.offered = uk_offered();
	setting.patience = from_env("TORTURE_PATIENCE", setting.patience);
	setting.ordered = from_env("TORTURE_ORDER", -1) < 0 ? probe_order() :
			  from_env("TORTURE_ORDER", 0);
	setting.swap = !why;
	if (why)
		ksft_print_msg("%s\n", why);
	open_cgroup();
	if (!setting.cgroup[0])
		ksft_print_msg("no memory cgroup\n");
	setting.direct_fd = uk_direct(MAX_WORLDS * MAX_THREADS * 65536);
	setting.nodes = !access("/sys/devices/system/node/node1", F_OK);
	if (getenv("TORTURE_OPS"))
		choose_ops(strdup(getenv("TORTURE_OPS")));
	turn_knobs(false);
	worlds = mmap(NULL, MAX_WORLDS * sizeof(*worlds), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (worlds == MAP_FAILED)
		ksft_exit_fail_msg("no memory\n");
}

static void print_counts(unsigned int rounds, __u64 seed)
{
	uint64_t all = 0;
	unsigned int i;

	for (i = 0; i < NR_OPS; i++) {
		all += done[i] + refused[i];
		if (done[i] + refused[i])
			ksft_print_msg("%-10s %10llu  refused %10llu\n", op_name[i],
				       (unsigned long long)done[i],
				       (unsigned long long)refused[i]);
	}
	ksft_print_msg("%u rounds, %llu operations, seed %llu to %llu\n", rounds,
		       (unsigned long long)all, seed, seed + rounds - 1);
}

int main(void)
{
	long seconds = from_env("TORTURE", 30);
	__u64 seed = from_env("SEED", time(NULL));
	long long until;
	unsigned int i, rounds = 0;

	ksft_print_header();
	if (uk_new(O_CLOEXEC, 0) == -EPERM)
		ksft_exit_skip(UK_NEEDS_ROOT "\n");
	ksft_set_plan(NR_TESTS);
	prepare();
	ksft_print_msg("seed %llu, %ld s, order is %spromised\n", seed, seconds,
		       setting.ordered ? "" : "not ");
	until = uk_now() + seconds * 1000;
	do {
		play_round(seed + rounds, from_env("TORTURE_ROUND", 3000));
		rounds++;
	} while (uk_now() < until && !any_failed);
	print_counts(rounds, seed);
	if (setting.cgroup[0])
		rmdir(setting.cgroup);
	turn_knobs(true);
	for (i = 0; i < NR_TESTS; i++)
		ksft_test_result(!failed[i], "%s\n", test_name[i]);
	ksft_finished();
}
