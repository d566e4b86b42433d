// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: what is done to mappings, threads and processes.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "uffd-torture.h"

static void wake_region(struct region *r, char *base)
{
	wake_pages(world->fd[r->fd], r, base, 0, r->pages);
}

/*
 * What a private mapping has found in the file while nobody was told. hugetlb has its
 * own page at once; and a hole in the file takes private pages along.
 */
static void clean_file(struct region *r)
{
	if (r->kind == UK_SHMEM_PRIVATE)
		fallocate(r->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  0, r->len);
}

static void disarm(struct region *r)
{
	uk_add(&r->unarmed, 1);
	uk_add(&r->wp_epoch, 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void rearm(struct region *r)
{
	int err = register_region(r);

	if (err && !uk_get(&world->closed))
		fail(T_CALL, "region %u cannot be registered again: errno %d",
		     r->nr, -err);
	clean_file(r);
	uk_add(&r->wp_epoch, 1);
	uk_add(&r->unarmed, 1);
}

static void expect_unmap(struct region *r, char *start, size_t len)
{
	r->unmap_start = (unsigned long)start;
	r->unmap_end = r->unmap_start + len;
	uk_set(&r->unmap_awaits, EXPECTED);
}

static void check_unmap(struct region *r, bool did)
{
	bool told = has(UFFD_FEATURE_EVENT_UNMAP), came;
	uint32_t awaits;

	came = !told || !did || await(&r->unmap_awaits);
	awaits = uk_get(&r->unmap_awaits);
	uk_set(&r->unmap_awaits, NOTHING);
	if (!told || uk_get(&world->closed))
		return;
	if (!came)
		fail(T_MESSAGE, "region %u: unmapped, and no UNMAP read", r->nr);
	if (!did && awaits == TOLD && setting.ordered)
		fail(T_MESSAGE, "region %u: UNMAP read of what has not happened",
		     r->nr);
}

/* Back to nobody's: what is mapped there next is ours. */
static void reserve(struct region *r, char *at)
{
	if (mmap(at, r->len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		 MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != at)
		fail(T_CALL, "region %u: the place it has left is not free", r->nr);
}

static void check_remap(struct region *r, unsigned int at, int ret)
{
	unsigned int looks = setting.patience / 2;

	while (!ret && uk_get(&r->place) == at && looks-- &&
	       !uk_get(&world->closed))
		uk_sleep(1);
	if (ret ? r->place == at : r->place != at)
		return;
	if (!uk_get(&world->closed))
		fail(T_MESSAGE, "region %u: mremap() returned %d, REMAP %s",
		     r->nr, ret, ret ? "read" : "not read");
}

static void do_mremap(struct region *r)
{
	unsigned int at = r->at;
	char *from = r->arena[at], *to = r->arena[!at];
	bool told = has(UFFD_FEATURE_EVENT_REMAP);
	int ret;

	begin(OP_MREMAP, r->nr, -1);
	expect_unmap(r, from, r->len);
	if (!told)
		disarm(r);
	cause_begin(0, -1ULL);
	ret = mremap(from, r->len, r->len, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
	      MAP_FAILED ? -errno : 0;
	/* Everybody may go there before the handler knows. */
	if (!ret && told && has(UFFD_FEATURE_EVENT_NOWAIT))
		uk_set(&r->at, !at);
	check_unmap(r, !ret);
	if (told)
		check_remap(r, at, ret);
	cause_end();
	if (!ret) {
		reserve(r, from);
		uk_set(&r->place, !at);
		uk_set(&r->at, !at);
		/* Somebody may have gone to sleep since the handler's wake-up. */
		if (!told || !setting.ordered)
			wake_region(r, from);
	}
	if (!told)
		rearm(r);
	end(r->pages, ret);
}

static char *map_part(struct region *r, char *at, size_t len, int flags)
{
	size_t offset = at - r->arena[r->at];
	char *p;

	if (is_anon(r))
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
	else
		flags |= is_shared(r) ? MAP_SHARED : MAP_PRIVATE;
	p = mmap(at, len, PROT_READ | PROT_WRITE, flags, r->memfd,
		 r->memfd < 0 ? 0 : offset);
	if (p != at)
		return NULL;
	if (is_anon(r))
		madvise(at, len, r->kind == UK_ANON ? MADV_HUGEPAGE :
						      MADV_NOHUGEPAGE);
	return p;
}

static void end_unmap(struct region *r)
{
	check_unmap(r, true);
	cause_end();
}

/*
 * The pages are locked. If nobody waits for it the memory may be in use again, and its
 * faults be told, before the UNMAP has been read.
 */
static void map_anew(struct region *r, unsigned int from, unsigned int n)
{
	bool told = has(UFFD_FEATURE_EVENT_UNMAP), hole = chance(&self->random, 50);
	bool early;
	char *at = page_at(r, from);
	size_t len = n * r->unit;

	if (is_shared(r))
		begin_drop(r, from, n, told);
	else if (!begin_empty(r, from, n, told))
		return;
	begin(OP_REMAP_NEW, r->nr, from);
	disarm(r);
	expect_unmap(r, at, len);
	cause_begin((unsigned long)at, (unsigned long)at + len);
	if (hole)
		munmap(at, len);
	else if (!map_part(r, at, len, MAP_FIXED))
		fail(T_CALL, "region %u cannot be mapped anew", r->nr);
	early = told && has(UFFD_FEATURE_EVENT_NOWAIT) && chance(&self->random, 50);
	if (!early)
		end_unmap(r);
	if (hole && !map_part(r, at, len, MAP_FIXED_NOREPLACE))
		fail(T_CALL, "region %u cannot be mapped again", r->nr);
	if (!told)
		wake_pages(world->fd[r->fd], r, at, from, n);
	uk_set(&r->unmap_anew, early);
	rearm(r);
	if (early) {
		/* Of a file that is shared it has what it had, not what is next. */
		if (!is_shared(r))
			look_behind(r, from, n);
		end_unmap(r);
	}
	uk_set(&r->unmap_anew, false);
	if (is_shared(r))
		end_drop(r, from, n, told, true);
	else
		end_empty(r, from, n, told, true);
	end(n, 0);
}

static void do_remap_new(struct region *r)
{
	unsigned int from = below(&self->random, r->pages);
	unsigned int n = 1 + below(&self->random, 32);

	if (n > r->pages - from)
		n = r->pages - from;
	if (!lock_pages(r, from, n))
		return;
	map_anew(r, from, n);
	unlock_pages(r, from, n);
}

/* Those who sleep there go on by themselves; then it is as before. */
static void do_reregister(struct region *r)
{
	char *base = page_at(r, 0);
	int ret;

	begin(OP_REREGISTER, r->nr, -1);
	disarm(r);
	wake_begin(r, 0, r->pages);
	ret = uk_unregister(world->fd[r->fd], base, r->len);
	wake_end(r, 0, r->pages);
	wake_region(r, base);
	if (chance(&self->random, 50))
		uk_sleep(below(&self->random, 10));
	rearm(r);
	end(r->pages, ret);
}

#define ORPHAN_SIGBUS	UK_BIT(34)

/* Registers it with a descriptor that is closed at once. */
static int make_orphan(struct region *r)
{
	__u64 features = world->features & (UFFD_FEATURE_WP_ASYNC |
					    UFFD_FEATURE_WP_UNPOPULATED);
	int fd = uk_new(O_CLOEXEC, features | ORPHAN_SIGBUS), ret;

	if (fd < 0)
		return fd;
	ret = uk_register_mode(fd, page_at(r, 0), r->len, r->mode, NULL);
	if (chance(&self->random, 50))
		uk_sleep(below(&self->random, 4));
	close(fd);
	return ret;
}

/* A child that another thread has made may have a copy of the descriptor. */
static void adopt(struct region *r)
{
	unsigned int looks = setting.patience;

	while (register_region(r) == -EBUSY && looks-- &&
	       !uk_get(&world->closed))
		uk_sleep(1);
}

/* Its handler goes; later another one comes. Meanwhile what is missing is SIGBUS. */
static void do_orphan(struct region *r)
{
	char *base = page_at(r, 0);
	int ret;

	if (!(setting.offered & ORPHAN_SIGBUS))
		return;
	begin(OP_ORPHAN, r->nr, -1);
	disarm(r);
	uk_add(&r->orphaned, 1);
	wake_begin(r, 0, r->pages);
	uk_unregister(world->fd[r->fd], base, r->len);
	wake_end(r, 0, r->pages);
	wake_region(r, base);
	ret = make_orphan(r);
	uk_sleep(below(&self->random, 10));
	adopt(r);
	rearm(r);
	uk_add(&r->orphaned, 1);
	end(r->pages, ret);
}

/*
 * Other modes for a while: some of what it was registered for is gone. (With more modes
 * than before it would keep them.)
 */
static __u64 other_mode(const struct region *r)
{
	__u64 mode = r->mode;

	while (mode == r->mode || !mode || !(r->mode & ~mode)) {
		mode = below(&self->random, 8);
		if (!is_shared(r))
			mode &= ~MINOR;
		if (!(r->mode & WP) && !(setting.offered & (is_anon(r) ?
		      UFFD_FEATURE_PAGEFAULT_FLAG_WP :
		      UFFD_FEATURE_WP_HUGETLBFS_SHMEM)))
			return 0;
	}
	return mode;
}

/* Where a registration cannot lose protection, it has to end first. */
static void let_protection_go(struct region *r, __u64 from, __u64 to)
{
	if (!UK_KEEPS_PROTECTION || !(from & ~to & WP))
		return;
	wake_begin(r, 0, r->pages);
	uk_unregister(world->fd[r->fd], page_at(r, 0), r->len);
	wake_end(r, 0, r->pages);
}

/* Who sleeps for what is not to be told any more is woken by nobody else. */
static void do_other_mode(struct region *r)
{
	__u64 mode = other_mode(r);
	char *base = page_at(r, 0);
	int ret;

	if (!mode)
		return;
	begin(OP_OTHER_MODE, r->nr, -1);
	disarm(r);
	uk_set(&r->modes, r->modes | mode);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	let_protection_go(r, r->mode, mode);
	ret = uk_register_mode(world->fd[r->fd], base, r->len, mode, NULL);
	wake_region(r, base);
	uk_sleep(below(&self->random, 10));
	let_protection_go(r, mode, r->mode);
	rearm(r);
	wake_region(r, base);
	end(r->pages, ret);
}

/* A part of the region, of which the mapping may be cut. */
static char *any_part(struct region *r, size_t *len)
{
	unsigned int from = below(&self->random, r->pages);
	unsigned int n = 1 + below(&self->random, r->pages - from);

	*len = n * r->unit;
	return page_at(r, from);
}

static void do_mprotect(struct region *r)
{
	size_t len;
	char *at = any_part(r, &len);
	int ret;

	begin(OP_MPROTECT, r->nr, -1);
	ret = mprotect(at, len, chance(&self->random, 50) ? PROT_READ : PROT_NONE);
	uk_sleep(below(&self->random, 3));
	ret |= mprotect(at, len, PROT_READ | PROT_WRITE);
	end(0, ret ? -errno : 0);
}

static void do_mlock(struct region *r)
{
	size_t len;
	char *at = any_part(r, &len);
	int ret;

	begin(OP_MLOCK, r->nr, -1);
	if (chance(&self->random, 40))
		ret = syscall(__NR_mlock2, at, len, 1 /* MLOCK_ONFAULT */);
	else if (chance(&self->random, 10))
		ret = mlock(at, len);
	else
		ret = munlock(page_at(r, 0), r->len);
	end(0, ret ? -errno : 0);
}

static void do_advise(struct region *r)
{
	static const int advice[] = {
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_MERGEABLE,
		MADV_UNMERGEABLE, MADV_COLD, MADV_WILLNEED, MADV_DONTDUMP,
		MADV_DODUMP, MADV_SEQUENTIAL, MADV_NORMAL,
	};
	size_t len, n = sizeof(advice) / sizeof(*advice);
	char *at = any_part(r, &len);

	begin(OP_ADVISE, r->nr, -1);
	/* Cut, and in one piece again. */
	if (chance(&self->random, 40)) {
		at = page_at(r, 0);
		len = r->len;
	}
	end(0, madvise(at, len, advice[below(&self->random, n)]) ? -errno : 0);
}

/* At most one signal is under way to a thread, see check_once(). */
static void do_signal(void)
{
	struct worker *w = &world->worker[below(&self->random, MAX_THREADS)];
	uint32_t sent = uk_get(&w->sent);
	pid_t tid = uk_get(&w->tid);

	/* Readers sleep between steps. */
	if (!tid || uk_get(&w->taken) != sent || w->role == 'm' ||
	    (w->role != 's' && !uk_get(&w->since)))
		return;
	if (!__atomic_compare_exchange_n(&w->sent, &sent, sent + 1, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return;
	begin(OP_SIGNAL, -1, -1);
	if (syscall(__NR_tgkill, w->role == 's' && world->external ?
		    world->server[world->serving] : world->pid, tid, SIGUSR1))
		uk_set(&w->taken, sent + 1);
	end(1, 0);
}

/* Processes that share the memory, or have a copy */

struct victim {
	char *at;
	__u64 word;
	bool write;
	int pipe;
};

/* With the stack of its own and nothing else: not even errno. */
static int victim_main(void *arg)
{
	struct victim *v = arg;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (v->pipe >= 0)
		syscall(__NR_write, v->pipe, v->at, 8);
	else if (v->write)
		uk_set((__u64 *)v->at, v->word);
	else
		uk_get((__u64 *)v->at);
	return 0;
}

static void kill_and_reap(pid_t pid)
{
	kill(pid, SIGKILL);
	if (reap(pid) < 0)
		fail(T_ASLEEP, "process %d cannot be killed", pid);
}

/* It may have come to where it sleeps, or not. */
static void let_die(int (*fn)(void *arg), void *arg)
{
	pid_t pid = clone(fn, self->stack, CLONE_VM | SIGCHLD, arg);

	if (pid < 0)
		return;
	if (chance(&self->random, 70))
		sched_yield();
	else
		uk_sleep(below(&self->random, 4));
	kill_and_reap(pid);
}

/* Somebody goes to sleep on a page, and is killed. */
static void do_victim(struct region *r)
{
	unsigned int page = below(&self->random, r->pages);
	struct victim v = { .at = page_at(r, page), .pipe = -1 };
	uint32_t version;

	if (!try_lock(&r->page[page].lock))
		return;
	version = next_version(r, page, false);
	v.write = chance(&self->random, 50);
	v.word = tag(r, page, version);
	if (!v.write && chance(&self->random, 50))
		v.pipe = self->pipe[1];
	begin(OP_VICTIM, r->nr, page);
	if (check_page(r, page)) {
		if (v.write)
			start_write(r, page, version);
		let_die(victim_main, &v);
		if (v.write)
			write_page(r, page, version);
	}
	fcntl(self->pipe[0], F_SETFL, O_NONBLOCK);
	while (read(self->pipe[0], self->buf, 4096) > 0)
		;
	fcntl(self->pipe[0], F_SETFL, 0);
	end(1, 0);
	unlock(&r->page[page].lock);
}

struct dropper {
	char *at;
	size_t len;
};

static int dropper_main(void *arg)
{
	struct dropper *d = arg;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	syscall(__NR_madvise, d->at, d->len, MADV_DONTNEED);
	return 0;
}

/*
 * Somebody drops pages, and is killed while waiting for the event to be read. It may be
 * read still, before that of a second drop, which waits for it. If nobody waits for either
 * both are read before the mark that await_reader() passes.
 */
static void do_kill_drop(struct region *r)
{
	unsigned int from = below(&self->random, r->pages);
	unsigned int n = 1 + below(&self->random, 8), i;
	struct dropper d = { .at = page_at(r, from) };
	int ret;

	if (n > r->pages - from)
		n = r->pages - from;
	d.len = n * r->unit;
	if (!has(UFFD_FEATURE_EVENT_REMOVE) || !world->nonblock ||
	    world->handover || !setting.ordered || is_shared(r) ||
	    !lock_pages(r, from, n))
		return;
	begin_empty(r, from, n, true);
	for (i = from; i < from + n; i++)
		uk_set(&r->page[i].awaits, UNSURE);
	begin(OP_KILL_DROP, r->nr, from);
	cause_begin((unsigned long)d.at, (unsigned long)d.at + d.len);
	let_die(dropper_main, &d);
	ret = madvise(d.at, d.len, MADV_DONTNEED) ? -errno : 0;
	await_reader(r);
	cause_end();
	end_empty(r, from, n, true, !ret);
	end(n, ret);
	unlock_pages(r, from, n);
}

struct lost_reader {
	int fd;
	void *buf;
};

static int reader_main(void *arg)
{
	struct lost_reader *l = arg;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	syscall(__NR_read, l->fd, l->buf, 4 * sizeof(struct uffd_msg));
	return 0;
}

/* All regions of a descriptor are kept where they are; if one cannot be, none is. */
static bool hold_regions(unsigned int fd)
{
	unsigned int i;

	for (i = 0; i < world->regions; i++) {
		if (world->region[i].fd != fd || try_use(&world->region[i].users))
			continue;
		while (i--)
			if (world->region[i].fd == fd)
				unuse(&world->region[i].users);
		return false;
	}
	return true;
}

/* A reader that blocks is killed, and takes along what it has read. */
static void do_kill_read(unsigned int fd)
{
	struct lost_reader l = { world->fd[fd], self->page };
	unsigned int i;

	if (world->nonblock || world->events || uk_get(&world->closed) ||
	    !hold_regions(fd))
		return;
	begin(OP_KILL_READ, -1, -1);
	let_die(reader_main, &l);
	for (i = 0; i < world->regions; i++) {
		struct region *r = &world->region[i];

		if (r->fd != fd)
			continue;
		wake_region(r, page_at(r, 0));
		unuse(&r->users);
	}
	end(1, 0);
}

struct child {
	struct region *r;
	unsigned int from, n;
	char *at;
	bool inherits;		/* its faults are told */
	uint32_t unarmed;	/* of the region, at the fork */
	uint32_t orphans;
};

/*
 * May a child find zeros instead of what was last put there? Its parent may have them
 * still, from a time without registration that nobody has looked at the page since;
 * or get them now, into a file that both map.
 */
static bool zeros_in_child(const struct child *c, unsigned int page)
{
	struct region *r = c->r;

	if (!c->inherits || uk_get(&world->orphans) != c->orphans)
		return true;
	return r->page[page].epoch != c->unarmed ||
	       (is_shared(r) && uk_get(&r->unarmed) != c->unarmed);
}

/* 0: it has all that its parent had. */
static int child_main(void *arg)
{
	struct child *c = arg;
	struct region *r = c->r;
	unsigned int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (i = 0; i < c->n; i++) {
		__u64 want = tag(r, c->from + i, r->page[c->from + i].settled), val;
		char *at = c->at + i * r->unit;

		if (load(at, &val))
			return 2;
		if (val != want && (val || !zeros_in_child(c, c->from + i)))
			return 1;
		/* Its own now; and it may be protected, or shared with the parent. */
		if (is_shared(r))
			continue;
		if (store(at, ~want) || load(at, &val))
			return 2;
		if (val != ~want)
			return 3;
	}
	return 0;
}

static uint32_t forking;

static void fork_locked(struct region *r, struct child *c)
{
	enum op op = c->inherits ? OP_FORK : OP_FORK_QUIET;
	unsigned int i;
	pid_t pid;
	int code;

	begin(op, r->nr, c->from);
	c->at = page_at(r, c->from);
	cause_begin(0, c->inherits ? -1ULL : 0);
	pid = uk_spawn_by_thread(child_main, c, 0);
	cause_end();
	unuse(&r->users);
	if (pid < 0) {
		end(c->n, pid);
		return;
	}
	code = reap(pid);
	if (code < 0) {
		if (!uk_get(&world->stop_servers))
			fail(T_ASLEEP, "region %u page %u: child %d does not end",
			     r->nr, c->from, pid);
		kill(pid, SIGKILL);
	} else if ((code == 1 || code == 3) && !uk_get(&world->closed)) {
		fail(T_CONTENT, "region %u page %u+%u: child has something else (%d)",
		     r->nr, c->from, c->n, code);
	}
	for (i = 0; i < c->n; i++)
		if (!check_page(r, c->from + i))
			break;
	end(c->n, code == 2 ? -EFAULT : 0);
}

/* Called with the region in use; it is let go as soon as the child has its own. */
static void do_fork(struct region *r)
{
	struct child c = {
		.r = r,
		.from = below(&self->random, r->pages),
		.n = 1 + below(&self->random, 3),
		.inherits = has(UFFD_FEATURE_EVENT_FORK),
		.unarmed = uk_get(&r->unarmed),
		.orphans = uk_get(&world->orphans),
	};
	bool locked = false;

	if (c.n > r->pages - c.from)
		c.n = r->pages - c.from;
	/* A child that nobody serves would have a file make pages of zeroes. */
	if (!world->handover && (c.inherits || r->memfd < 0) &&
	    try_lock(&forking)) {
		locked = lock_pages(r, c.from, c.n);
		/* A child that has only a part of its memory served is no use. */
		if (locked && c.unarmed % 2 == 0) {
			fork_locked(r, &c);
			unlock_pages(r, c.from, c.n);
			unlock(&forking);
			return;
		}
		if (locked)
			unlock_pages(r, c.from, c.n);
		unlock(&forking);
	}
	unuse(&r->users);
}

/* What it was sent and had no time to take would keep the file open. */
static void take_back_fds(unsigned int nr)
{
	int sock = pass_sock[nr][1], fd;

	fcntl(sock, F_SETFL, O_NONBLOCK);
	while ((fd = uk_recv_fd(sock)) >= 0)
		close(fd);
}

/* The process that serves is killed, and another takes over. */
static void do_handover(void)
{
	unsigned int now = world->serving;
	static uint32_t lock;

	if (!world->handover || now == MAX_SPARES || !try_lock(&lock))
		return;
	begin(OP_HANDOVER, -1, -1);
	kill_and_reap(world->server[now]);
	take_back_fds(now);
	uk_set(&world->serving, now + 1);
	pass_fds();
	end(1, 0);
	unlock(&lock);
}

/*
 * These may cut the mapping. What madvise() has told of as one range it then drops up to
 * the cut only, without a word: so not while it waits for its REMOVE to be read.
 *
 * And mlock() of what is private, or mprotect() that makes it writable when it is locked,
 * populates it as if it were written: so not between the two looks of act_track().
 */
static void cut(enum op op, struct region *r)
{
	bool alone = has(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_WP_ASYNC |
			 UFFD_FEATURE_WP_SET_MODE);

	if (!(alone ? try_change(&r->users) : try_use(&r->users)))
		return;
	if (op == OP_MPROTECT)
		do_mprotect(r);
	else if (op == OP_ADVISE)
		do_advise(r);
	else if (world->nonblock)
		do_mlock(r);	/* see await_reader() */
	if (alone)
		unchange(&r->users);
	else
		unuse(&r->users);
}

void act_on_map(enum op op, struct region *r)
{
	if (op == OP_SIGNAL)
		return do_signal();
	if (op == OP_HANDOVER)
		return do_handover();
	if (op == OP_KILL_READ)
		return do_kill_read(r->fd);
	if (op == OP_MREMAP || op == OP_REMAP_NEW || op == OP_REREGISTER ||
	    op == OP_OTHER_MODE || op == OP_ORPHAN) {
		if (uk_get(&world->closed) || !try_change(&r->users))
			return;
		if (op == OP_MREMAP)
			do_mremap(r);
		else if (op == OP_REMAP_NEW)
			do_remap_new(r);
		else if (op == OP_OTHER_MODE)
			do_other_mode(r);
		else if (op == OP_ORPHAN)
			do_orphan(r);
		else
			do_reregister(r);
		unchange(&r->users);
		return;
	}
	if (op == OP_MPROTECT || op == OP_MLOCK || op == OP_ADVISE) {
		cut(op, r);
		return;
	}
	if (!try_use(&r->users))
		return;
	if (op == OP_FORK)
		return do_fork(r);
	if (op == OP_VICTIM)
		do_victim(r);
	if (op == OP_KILL_DROP)
		do_kill_drop(r);
	unuse(&r->users);
}
