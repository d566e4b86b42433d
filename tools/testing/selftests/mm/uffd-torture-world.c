// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: a world. What it is made of is drawn from its seed; then its threads
 * run until the round is over; then it ends in one of several ways.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/memfd.h>

#include "uffd-torture.h"

struct world *world;
__thread struct self *self;

bool has(__u64 feature)
{
	return world->features & feature;
}

int reap(pid_t pid)
{
	unsigned int looks = setting.patience;
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (!looks--)
			return -1;
		uk_sleep(1);
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Threads */

static char *memory(size_t len)
{
	char *p = uk_reserve(len, BUF_SIZE);

	if (!p || mprotect(p, len, PROT_READ | PROT_WRITE))
		return NULL;
	return p;
}

struct self *new_self(char role, unsigned int nr)
{
	size_t page = getpagesize();
	struct self *me = calloc(1, sizeof(*me));

	if (!me)
		return NULL;
	me->nr = nr;
	me->role = role;
	me->random.state = world->seed * 1000003 + role * 1009 + nr + 1;
	any(&me->random);
	me->buf = memory(BUF_SIZE);
	me->page = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	me->stack = memory(65536);
	if (!me->buf || me->page == MAP_FAILED || !me->stack ||
	    mprotect(me->page + page, page, PROT_NONE) ||
	    pipe2(me->pipe, O_CLOEXEC))
		return NULL;
	me->stack += 65536;
	if (ring_open(&me->ring))
		me->ring.fd = -1;
	return me;
}

bool enter_self(struct self *me)
{
	unsigned int i;

	self = me;
	for (i = 0; i < MAX_THREADS; i++) {
		struct worker *w = &world->worker[i];
		pid_t free = 0;

		if (!__atomic_compare_exchange_n(&w->tid, &free, gettid(), false,
						 __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			continue;
		w->since = 0;
		w->role = me->role;
		w->sent = 0;
		w->taken = 0;
		me->worker = w;
		while (!uk_get(&world->go))
			uk_sleep(1);
		return true;
	}
	fail(T_CALL, "too many threads");
	return false;
}

void leave_self(void)
{
	uk_set(&self->worker->since, 0);
	uk_set(&self->worker->tid, 0);
}

static void on_signal(int sig)
{
	if (self && self->worker)
		uk_set(&self->worker->taken, uk_get(&self->worker->sent));
}

/* What there is in it */

/* The layout of a region is drawn by the one who begins the round. */
static bool map_region(struct region *r)
{
	int flags = MAP_FIXED, hugetlb = is_hugetlb(r);
	unsigned int i;
	char *p;

	for (i = 0; i < 2; i++) {
		r->arena[i] = uk_reserve(r->len + BUF_SIZE, BUF_SIZE);
		if (!r->arena[i])
			return false;
	}
	r->memfd = -1;
	if (is_anon(r)) {
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
	} else {
		flags |= is_shared(r) ? MAP_SHARED : MAP_PRIVATE;
		r->memfd = syscall(__NR_memfd_create, "uffd-torture",
				   MFD_CLOEXEC | (hugetlb ? MFD_HUGETLB : 0));
		if (r->memfd < 0 || ftruncate(r->memfd, r->len))
			return false;
	}
	p = mmap(r->arena[0], r->len, PROT_READ | PROT_WRITE, flags, r->memfd, 0);
	if (p == MAP_FAILED)
		return false;
	if (is_anon(r))
		madvise(p, r->len, r->kind == UK_ANON ? MADV_HUGEPAGE :
							MADV_NOHUGEPAGE);
	if (is_shared(r)) {
		r->alias = mmap(NULL, r->len, PROT_READ | PROT_WRITE, MAP_SHARED,
				r->memfd, 0);
		if (r->alias == MAP_FAILED)
			return false;
	}
	for (i = 0; i < r->pages; i++) {
		struct page *pg = &r->page[i];

		/* What nobody fills in is zeroes. */
		pg->started = may_be_missing(r) ? 1 : ZERO_EVERY;
		pg->settled = pg->started;
		pg->store = pg->started;
		pg->next = pg->started;
	}
	return true;
}

int register_region(struct region *r)
{
	return uk_register_mode(world->fd[r->fd], page_at(r, 0), r->len, r->mode,
				NULL);
}

static bool open_fds(void)
{
	unsigned int i;

	for (i = 0; i < world->fds; i++) {
		world->fd[i] = uk_new(O_CLOEXEC | (world->nonblock ? O_NONBLOCK : 0),
				      world->features);
		local_fd[i] = world->fd[i];
		if (world->fd[i] < 0)
			return false;
	}
	return true;
}

static void start_servers(void)
{
	unsigned long i;

	for (i = 1; world->external && i <= MAX_SPARES; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
			       pass_sock[i]))
			fail(T_CALL, "no socket: errno %d", errno);
		world->server[i] = uk_spawn(server_main, (void *)i);
	}
}

/* Not before: what is on its way keeps the file open. */
void pass_fds(void)
{
	unsigned int i;

	for (i = 0; world->passed && i < world->fds; i++)
		if (uk_send_fd(pass_sock[world->serving][0], world->fd[i]))
			fail(T_CALL, "descriptor %u cannot be sent", i);
}

static void enter_cgroup(void)
{
	char path[128];

	if (!world->cgroup[0])
		return;
	snprintf(path, sizeof(path), "%s/cgroup.procs", world->cgroup);
	uk_write_file(path, "0");
}

static void catch_signals(void)
{
	struct sigaction act = { .sa_handler = on_signal };

	/* Half of them have system calls begun again. */
	if (world->seed & 1)
		act.sa_flags = SA_RESTART;
	/* A reader that blocks has to come back when it is to leave. */
	if (!world->nonblock)
		act.sa_flags = 0;
	sigaction(SIGUSR1, &act, NULL);
	catch_traps();
}

/* Endings */

struct threads {
	pthread_t user[MAX_THREADS], server[MAX_THREADS], actor[MAX_THREADS];
};

static void join(pthread_t *thread, unsigned int n)
{
	while (n--)
		pthread_join(thread[n], NULL);
}

static bool servers_left(void)
{
	unsigned int i;

	for (i = 0; i < MAX_THREADS; i++)
		if (world->worker[i].role == 's' && uk_get(&world->worker[i].tid))
			return true;
	return false;
}

/* Readers that block are called out of it. */
static void stop_servers(struct threads *t)
{
	pid_t pid = world->external ? world->server[world->serving] : world->pid;
	unsigned int i;

	uk_set(&world->stop_servers, true);
	while (servers_left()) {
		for (i = 0; i < MAX_THREADS; i++) {
			struct worker *w = &world->worker[i];

			if (w->role == 's' && uk_get(&w->tid) && !world->nonblock)
				syscall(__NR_tgkill, pid, w->tid, SIGUSR1);
		}
		uk_sleep(5);
	}
	if (world->external)
		reap(pid);
	else
		join(t->server, world->servers);
}

/* The locks of all pages are free now. */
static void verify(void)
{
	unsigned int i, k;

	for (i = 0; i < world->regions; i++) {
		struct region *r = &world->region[i];

		for (k = 0; k < r->pages; k++) {
			begin(OP_FINISH, i, k);
			if (!try_lock(&r->page[k].lock))
				fail(T_ASLEEP, "region %u page %u: a lock is left",
				     i, k);
			check_page(r, k);
			end(1, 0);
		}
	}
}

static void close_fds(void)
{
	unsigned int i;

	uk_set(&world->closed, true);
	for (i = 0; i < world->fds; i++)
		close(world->fd[i]);
}

static void unmap_regions(void)
{
	unsigned int i;

	for (i = 0; i < world->regions; i++) {
		struct region *r = &world->region[i];

		munmap(page_at(r, 0), r->len);
		if (r->alias)
			munmap(r->alias, r->len);
		if (r->memfd >= 0)
			close(r->memfd);
	}
}

static void finish(struct threads *t)
{
	static char *const argv[] = { "true", NULL };

	if (world->ending == END_EXIT || world->ending == END_KILL ||
	    world->ending == END_EXEC) {
		uk_set(&world->closed, true);
		uk_set(&world->over, true);
		if (world->ending == END_KILL)
			kill(world->pid, SIGKILL);
		if (world->ending == END_EXEC)
			execv("/bin/true", argv);
		_exit(0);
	}
	uk_set(&world->stop_actors, true);
	join(t->actor, world->actors);
	if (world->ending == END_CLOSE) {
		/* Some sleep, and nobody comes any more. */
		uk_set(&world->closed, true);
		stop_servers(t);
		uk_sleep(10);
		close_fds();
		uk_sleep(10);
	}
	uk_set(&world->stop_users, true);
	join(t->user, world->users);
	if (world->ending == END_ORDERLY) {
		uk_set(&world->stop_users, false);
		verify();
		stop_servers(t);
		close_fds();
	}
	uk_set(&world->over, true);
	leave_self();
	unmap_regions();
	_exit(0);
}

static void start_threads(pthread_t *thread, unsigned int n, char role,
			  void *(*fn)(void *))
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct self *me = new_self(role, i);

		if (!me || pthread_create(&thread[i], NULL, fn, me)) {
			fail(T_CALL, "cannot start a thread");
			_exit(1);
		}
	}
}

int world_main(void *arg)
{
	struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	static struct threads t;
	struct self *me;
	unsigned int i;

	world = arg;
	world->pid = getpid();
	enter_cgroup();
	setrlimit(RLIMIT_MEMLOCK, &none);
	catch_signals();
	for (i = 0; i < world->regions; i++)
		if (!map_region(&world->region[i])) {
			fail(T_CALL, "no memory for region %u (kind %u): errno %d",
			     i, world->region[i].kind, errno);
			return 1;
		}
	if (!map_marks()) {
		fail(T_CALL, "no memory for marks");
		return 1;
	}
	/* These must not inherit what they are to be given. */
	start_servers();
	if (!open_fds()) {
		fail(T_CALL, "no userfaultfd: %d", world->fd[0]);
		return 1;
	}
	if (!world->external)
		start_threads(t.server, world->servers, 's', serve);
	start_threads(t.user, world->users, 'u', use);
	start_threads(t.actor, world->actors, 'a', act);
	for (i = 0; i < world->regions; i++) {
		int err = register_region(&world->region[i]);

		if (err)
			fail(T_CALL, "region %u (kind %u, mode %#llx) not registered: errno %d",
			     i, world->region[i].kind, world->region[i].mode, -err);
	}
	register_marks();
	/* From here on nothing is mapped but by actors, who leave holes. */
	me = new_self('m', 0);
	uk_set(&world->serving, 1);
	pass_fds();
	uk_set(&world->go, true);
	enter_self(me);
	while (!uk_get(&world->finish))
		uk_sleep(5);
	finish(&t);
	return 0;
}
