// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: readers of messages. They wait and read in different ways, check
 * that what they are told is in order, comes once and makes sense, and have the
 * faults resolved.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "uffd-torture.h"

#define BATCH		16
#define MAX_PENDING	128
#define MAX_CHILDREN	8

/* How a reader finds out that there is something, and reads it. */
enum how { HOW_POLL, HOW_EPOLL, HOW_EDGE, HOW_EXCLUSIVE, HOW_RING, NR_HOWS };

struct pending {
	int fd;
	bool child, refused;
	struct uffd_msg msg;
};

struct server {
	enum how how;
	int fd[MAX_FDS];	/* indices */
	unsigned int fds;
	int epoll;
	char *broken;		/* a page, followed by nothing */
	bool nowait;		/* though the descriptor blocks */
	bool exchanges;		/* reads and resolves by UFFDIO_EXCHANGE */
	int child[MAX_CHILDREN];
	unsigned int children;
	struct pending pending[MAX_PENDING];
	unsigned int pendings;
};

int local_fd[MAX_FDS];
int pass_sock[MAX_SPARES + 1][2];

/* What messages must look like */

static struct worker *find_worker(pid_t tid)
{
	unsigned int i;

	for (i = 0; i < MAX_THREADS; i++)
		if (tid && uk_get(&world->worker[i].tid) == tid)
			return &world->worker[i];
	return NULL;
}

/*
 * A thread is told of once for each time it goes to sleep. In one step it does not
 * fault on the page again unless it has been woken, or called away by a signal.
 */
static void check_once(const struct uffd_msg *msg, struct region *r,
		       unsigned int page, uint64_t before)
{
	struct worker *w = find_worker(msg->arg.pagefault.feat.ptid);
	struct page *p = &r->page[page];
	uint32_t steps;

	if (!w || !setting.ordered)
		return;
	steps = uk_get(&w->steps);
	if (w->told_page == p && w->told_step == steps && w->op != OP_FIXED &&
	    w->op != OP_DIRECT && uk_get(&w->since) &&
	    uk_get(&w->sent) == uk_get(&w->taken) &&
	    w->told_taken == uk_get(&w->taken) &&
	    !uk_get(&p->wakers) && uk_get(&p->woken) < w->told &&
	    steps == uk_get(&w->steps) && !uk_get(&world->closed))
		fail(T_MESSAGE, "region %u page %u: thread %d told of twice, in %s",
		     r->nr, page, w->tid, op_name[w->op]);
	w->told_page = p;
	w->told_step = steps;
	w->told_taken = uk_get(&w->taken);
	w->told = before;
}

static void check_fault(const struct uffd_msg *msg, uint64_t before)
{
	__u64 flags = msg->arg.pagefault.flags, addr = msg->arg.pagefault.address;
	unsigned int page, arena;
	struct region *r = find_page(addr, &page, &arena);
	__u64 mode = MISSING;

	if (!r)
		return;
	if (flags & UFFD_PAGEFAULT_FLAG_WP)
		mode = WP;
	else if (flags & UFFD_PAGEFAULT_FLAG_MINOR)
		mode = MINOR;
	if (mode == WP && was_noted(r->fd, before))
		mode = 0;
	if (!(uk_get(&r->modes) & mode))
		fail(T_MESSAGE, "region %u page %u: told with flags %#llx, registered for %#llx",
		     r->nr, page, flags, r->modes);
	if (has(UFFD_FEATURE_THREAD_ID))
		check_once(msg, r, page, before);
	if (!setting.ordered || !world->events)
		return;
	check_behind(msg, r, page);
	if (has(UFFD_FEATURE_EVENT_REMAP) && arena != uk_get(&r->place))
		fail(T_MESSAGE, "region %u page %u: fault read on the wrong side of REMAP",
		     r->nr, page);
	if (uk_get(&r->unmap_awaits) == TOLD && addr >= r->unmap_start &&
	    addr < r->unmap_end && !uk_get(&r->unmap_anew))
		fail(T_MESSAGE, "region %u page %u: fault read after UNMAP",
		     r->nr, page);
}

static void told_remove(const struct uffd_msg *msg)
{
	unsigned int from, to, arena;
	struct region *r = find_page(msg->arg.remove.start, &from, &arena);
	struct region *last = find_page(msg->arg.remove.end - 1, &to, &arena);

	if (is_mark(msg))
		return;
	if (!r || r != last) {
		fail(T_MESSAGE, "REMOVE of %#llx to %#llx, which is nobody's",
		     msg->arg.remove.start, msg->arg.remove.end);
		return;
	}
	for (; from <= to; from++) {
		struct page *p = &r->page[from];
		uint32_t awaits = uk_get(&p->awaits);

		/* If the one before was killed it may be late. */
		if ((awaits == NOTHING || awaits == TOLD) && setting.ordered &&
		    !world->handover && !uk_get(&world->closed))
			fail(T_MESSAGE, "region %u page %u: REMOVE %s", r->nr,
			     from, awaits ? "read twice" : "without a cause");
		uk_set(&p->store, uk_get(&p->next));
		if (awaits != UNSURE)
			uk_set(&p->awaits, TOLD);
	}
}

/* Writes to protected pages.  Mappings of two regions may have become one. */
static void told_write(const struct uffd_msg *msg)
{
	__u64 start = msg->arg.remove.start, end = msg->arg.remove.end;
	unsigned int from, to, arena;
	struct region *r = find_page(start, &from, &arena);
	struct region *last = find_page(end - 1, &to, &arena);

	if (!has(UFFD_FEATURE_WP_LOG) || !r || !last || !(r->mode & WP) ||
	    !(last->mode & WP))
		fail(T_MESSAGE, "WRITE of %#llx to %#llx, which is not tracked",
		     start, end);
	else if (start >= end || (start | end) % getpagesize())
		fail(T_MESSAGE, "WRITE of %#llx to %#llx, which are no pages",
		     start, end);
}

static void told_lost(const struct uffd_msg *msg)
{
	if (!has(UFFD_FEATURE_WP_LOG) || msg->arg.remove.start ||
	    msg->arg.remove.end)
		fail(T_MESSAGE, "WRITE_LOST of %#llx to %#llx",
		     msg->arg.remove.start, msg->arg.remove.end);
}

/* It is in use, so another size may be refused. */
static void change_log(int fd)
{
	struct uffdio_log log = {
		.size = chance(&self->random, 30) ? 1 + below(&self->random, 200) : 0,
		.watermark = 1 + below(&self->random, 100),
	};
	int err = ioctl(fd, UFFDIO_LOG, &log) ? -errno : 0;

	/* A watermark above the size is one of these. */
	if (err && err != -EBUSY && err != -ENOMEM && err != -EINVAL)
		fail(T_CALL, "UFFDIO_LOG: errno %d", -err);
	if (!err && (!log.size || !log.watermark || log.watermark > log.size))
		fail(T_CALL, "UFFDIO_LOG: size %llu, watermark %llu", log.size,
		     log.watermark);
}

static void told_unmap(int fd, const struct uffd_msg *msg)
{
	unsigned int page, arena, i, n;
	struct region *r = find_page(msg->arg.remove.start, &page, &arena);

	if (!r || uk_get(&r->unmap_awaits) != EXPECTED ||
	    r->unmap_start != msg->arg.remove.start ||
	    r->unmap_end != msg->arg.remove.end) {
		/* Nobody waits any more when the world ends. */
		if (uk_get(&world->closed))
			return;
		fail(T_MESSAGE, "UNMAP of %#llx to %#llx, which is not expected",
		     msg->arg.remove.start, msg->arg.remove.end);
		return;
	}
	uk_set(&r->unmap_awaits, TOLD);
	n = (r->unmap_end - r->unmap_start) / r->unit;
	for (i = page; i < page + n; i++) {
		if (uk_get(&r->page[i].awaits) != EXPECTED)
			continue;
		uk_set(&r->page[i].store, uk_get(&r->page[i].next));
		uk_set(&r->page[i].awaits, TOLD);
	}
	wake_pages(fd, r, (char *)r->unmap_start, page, n);
}

static void told_remap(int fd, const struct uffd_msg *msg)
{
	unsigned int page, arena;
	struct region *r = find_page(msg->arg.remap.from, &page, &arena);

	if (!r || page || arena != r->place ||
	    msg->arg.remap.to != (unsigned long)r->arena[!arena] ||
	    msg->arg.remap.len != r->len) {
		if (uk_get(&world->closed))
			return;
		fail(T_MESSAGE, "REMAP of %#llx+%#llx to %#llx, which is not expected",
		     msg->arg.remap.from, msg->arg.remap.len, msg->arg.remap.to);
		return;
	}
	uk_set(&r->place, !arena);
	wake_pages(fd, r, r->arena[arena], 0, r->pages);
}

static void told_fork(struct server *s, const struct uffd_msg *msg)
{
	int fd = msg->arg.fork.ufd;

	if (fcntl(fd, F_SETFL, O_NONBLOCK))
		fail(T_MESSAGE, "FORK with descriptor %d, which is none", fd);
	if (s->children == MAX_CHILDREN) {
		uk_add(&world->orphans, 1);
		close(fd);
		return;
	}
	s->child[s->children++] = fd;
}

static void told(struct server *s, int fd, const struct uffd_msg *msg,
		 uint64_t before)
{
	switch (msg->event) {
	case UFFD_EVENT_PAGEFAULT:
		check_fault(msg, before);
		return;
	case UFFD_EVENT_REMOVE:
		told_remove(msg);
		break;
	case UFFD_EVENT_UNMAP:
		told_unmap(fd, msg);
		break;
	case UFFD_EVENT_REMAP:
		told_remap(fd, msg);
		break;
	case UFFD_EVENT_FORK:
		told_fork(s, msg);
		break;
	case UFFD_EVENT_WRITE:
		told_write(msg);
		return;
	case UFFD_EVENT_WRITE_LOST:
		told_lost(msg);
		return;
	default:
		fail(T_MESSAGE, "message of kind %#x", msg->event);
	}
	count(OP_EVENT, msg->event, -1, 1, 0);
}

/* Resolving */

static void postpone(struct server *s, int fd, bool child, bool refused,
		     const struct uffd_msg *msg)
{
	if (s->pendings == MAX_PENDING) {
		unsigned int page, arena;
		struct region *r = find_page(msg->arg.pagefault.address, &page,
					     &arena);

		/* Let it come again. */
		if (r)
			wake_pages(fd, r, r->arena[arena] + page * r->unit,
				   page, 1);
		return;
	}
	s->pending[s->pendings++] = (struct pending){ fd, child, refused, *msg };
}

static void resolve(struct server *s, int fd, bool child,
		    const struct uffd_msg *msg)
{
	enum verdict v = child ? serve_child(fd, msg) : serve_fault(fd, msg);

	if (v == BUSY || v == REFUSED)
		postpone(s, fd, child, v == REFUSED, msg);
}

static unsigned int index_of(int fd)
{
	unsigned int i;

	for (i = 0; i < world->fds; i++)
		if (local_fd[i] == fd)
			break;
	return i;
}

/*
 * Filling with what is known, while others read, is right only as long as they do
 * not learn more. The reader takes precedence.
 */
static void know_shared(unsigned int i)
{
	while (uk_get(&world->wants[i]) || !try_use(&world->know[i]))
		sched_yield();
}

static void know_alone(unsigned int i)
{
	uk_add(&world->wants[i], 1);
	while (!try_change(&world->know[i]))
		sched_yield();
	uk_add(&world->wants[i], -1);
}

static void serve_message(struct server *s, int fd, bool child,
			  const struct uffd_msg *msg)
{
	unsigned int i = child ? 0 : index_of(fd);

	begin(OP_FAULT, -1, -1);
	if (world->events && !child)
		know_shared(i);
	resolve(s, fd, child, msg);
	if (world->events && !child)
		unuse(&world->know[i]);
	end(1, 0);
}

/* Reading */

/* Into memory that ends in the middle: what was not copied must come again. */
static int read_broken(struct server *s, int fd, struct uffd_msg *msg)
{
	size_t room = below(&self->random, 3) * sizeof(*msg) +
		      below(&self->random, sizeof(*msg));
	char *buf = s->broken + getpagesize() - room;
	int n = read(fd, buf, BATCH * sizeof(*msg));

	count(OP_BAD_READ, -1, -1, n > 0 ? n / 32 : 0, n < 0 ? -errno : 0);
	if (n < 0)
		return errno == EFAULT ? -EAGAIN : -errno;
	memcpy(msg, buf, n);
	return n / sizeof(*msg);
}

static int read_messages(struct server *s, int fd, bool child,
			 struct uffd_msg *msg)
{
	unsigned int want = chance(&self->random, 30) ? 1 :
			    1 + below(&self->random, BATCH);

	if (s->how == HOW_RING && !child) {
		int n = ring_read(&self->ring, fd, msg, want * sizeof(*msg));

		return n < 0 ? n : n / (int)sizeof(*msg);
	}
	/* Kernels before this lose what cannot be copied. */
	if (world->nonblock && setting.ordered && chance(&self->random, 2))
		return read_broken(s, fd, msg);
	if (s->nowait) {
		struct iovec iov = { msg, want * sizeof(*msg) };
		ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

		return n < 0 ? -errno : n / (int)sizeof(*msg);
	}
	return uk_read(fd, msg, want);
}

/* Reads once and takes note of it all; returns how many. */
static int learn(struct server *s, int fd, bool child, struct uffd_msg *msg)
{
	bool alone = world->events && world->nonblock && !child;
	unsigned int idx = child ? 0 : index_of(fd);
	uint64_t before;
	int n, i;

	if (alone)
		know_alone(idx);
	before = tick();
	n = read_messages(s, fd, child, msg);
	for (i = 0; i < n && !child; i++)
		told(s, fd, &msg[i], before);
	if (alone)
		unchange(&world->know[idx]);
	if (n < 0 && n != -EAGAIN && n != -EINTR && !uk_get(&world->over))
		fail(T_MESSAGE, "read: errno %d", -n);
	return n;
}

/* Moves what is postponed, and may be tried now, into a call. */
static void take_orders(struct server *s, struct exchange *x)
{
	unsigned int i, kept = 0;

	for (i = 0; i < s->pendings; i++) {
		struct pending p = s->pending[i];

		if (!p.child && p.fd == x->fd && add_order(x, &p.msg))
			continue;
		if (!p.child && p.fd == x->fd)
			p.refused = false;
		s->pending[kept++] = p;
	}
	s->pendings = kept;
}

/*
 * Whether there is an event to be read that an order was refused for: not if it came with
 * the call. Without a message poll() tells when to go on.
 */
static void put_orders_back(struct server *s, const struct exchange *x, int n)
{
	unsigned int i;

	for (i = 0; i < x->orders; i++) {
		const struct order *o = &x->order[i];

		if (o->verdict == BUSY || o->verdict == REFUSED)
			postpone(s, x->fd, false,
				 o->verdict == REFUSED && n <= 0, &o->msg);
	}
}

/*
 * Resolves what has been put off, reads, and puts off what has been read. It reads and
 * fills, so it is alone for both.
 */
static int exchange_once(struct server *s, int fd)
{
	bool alone = world->events && world->nonblock, patient;
	unsigned int idx = index_of(fd), room = 1 + below(&self->random, BATCH);
	struct exchange x = { .fd = fd };
	struct uffd_msg msg[BATCH];
	uint64_t before;
	int n, i;

	if (alone)
		know_alone(idx);
	take_orders(s, &x);
	/* An edge comes once: what there is must be taken. */
	if (x.orders && s->how != HOW_EDGE && chance(&self->random, 15))
		room = 0;
	/* Who waits with locks held must be the one whom others wait for. */
	patient = !s->pendings && (!x.orders || world->servers <= world->fds);
	before = tick();
	n = exchange(&x, msg, room, patient);
	for (i = 0; i < n; i++)
		told(s, fd, &msg[i], before);
	if (alone)
		unchange(&world->know[idx]);
	put_orders_back(s, &x, n);
	for (i = 0; i < n; i++)
		if (msg[i].event == UFFD_EVENT_PAGEFAULT)
			postpone(s, fd, false, false, &msg[i]);
	if (n < 0 && n != -EAGAIN && !uk_get(&world->over))
		fail(T_MESSAGE, "exchange: errno %d", -n);
	return n;
}

static int serve_once(struct server *s, int fd, bool child)
{
	struct uffd_msg msg[BATCH];
	int n, i;

	if (s->exchanges && !child && chance(&self->random, 80))
		return exchange_once(s, fd);
	n = learn(s, fd, child, msg);
	for (i = 0; i < n; i++)
		if (msg[i].event == UFFD_EVENT_PAGEFAULT)
			serve_message(s, fd, child, &msg[i]);
	return n;
}

static void serve_one_by_one(struct server *s)
{
	unsigned int n = s->pendings;
	struct pending all[MAX_PENDING];

	memcpy(all, s->pending, n * sizeof(*all));
	s->pendings = 0;
	while (n--)
		serve_message(s, all[n].fd, all[n].child, &all[n].msg);
}

static void serve_pending(struct server *s)
{
	unsigned int i;

	if (!s->pendings)
		return;
	if (!s->exchanges || chance(&self->random, 20))
		serve_one_by_one(s);
	else
		for (i = 0; i < s->fds; i++)
			exchange_once(s, local_fd[s->fd[i]]);
	if (s->pendings)
		sched_yield();
}

static void forget_child(struct server *s, unsigned int i)
{
	unsigned int kept = 0, k;
	int fd = s->child[i];

	for (k = 0; k < s->pendings; k++)
		if (!s->pending[k].child || s->pending[k].fd != fd)
			s->pending[kept++] = s->pending[k];
	s->pendings = kept;
	close(fd);
	s->child[i] = s->child[--s->children];
}

static void serve_children(struct server *s)
{
	unsigned int i;

	for (i = 0; i < s->children; i++) {
		serve_once(s, s->child[i], true);
		/* The child is gone when its memory is. */
		if (uk_zero(s->child[i], NULL, getpagesize(), 0).err == -ESRCH)
			forget_child(s, i--);
	}
}

/* Says if there is something to read, as poll() or epoll see it. */
static bool wait_for_message(struct server *s, int ms)
{
	struct pollfd pfd[MAX_FDS + MAX_CHILDREN];
	struct epoll_event event;
	unsigned int i, n = 0;

	if (s->how != HOW_POLL && s->how != HOW_RING && !s->children)
		return epoll_wait(s->epoll, &event, 1, ms) > 0;
	for (i = 0; i < s->fds; i++)
		pfd[n++] = (struct pollfd){ local_fd[s->fd[i]], POLLIN };
	for (i = 0; i < s->children; i++)
		pfd[n++] = (struct pollfd){ s->child[i], POLLIN };
	return poll(pfd, n, ms) > 0;
}

static void read_all(struct server *s)
{
	unsigned int i;

	for (i = 0; i < s->fds; i++) {
		/* An edge comes once; and others need not read all. */
		while (serve_once(s, local_fd[s->fd[i]], false) > 0 &&
		       s->how == HOW_EDGE)
			;
	}
	serve_children(s);
}

static void volunteer(struct server *s)
{
	unsigned int i = s->fd[below(&self->random, s->fds)];

	if (chance(&self->random, 3))
		bad_call(i);
	if (has(UFFD_FEATURE_WP_LOG) && chance(&self->random, 3))
		change_log(local_fd[i]);
	if (!chance(&self->random, 10))
		return;
	know_shared(i);
	prefill(i);
	unuse(&world->know[i]);
}

/*
 * Has everything that is left been refused, with nobody else to read? Then the kernel
 * says when to go on.
 */
static bool only_refused(const struct server *s)
{
	unsigned int i;

	if (!setting.ordered || world->servers > world->fds || s->children)
		return false;
	for (i = 0; i < s->pendings; i++)
		if (!s->pending[i].refused)
			return false;
	return true;
}

/*
 * It reads only when it is called: a call that is lost leaves somebody asleep, and
 * that is noticed.
 */
static void serve_nonblocking(struct server *s)
{
	bool first = true, ready, wait;
	int ms;

	while (!uk_get(&world->stop_servers)) {
		wait = only_refused(s);
		ms = wait ? 50 : s->children ? 5 : 1;
		/* What it has just read it has put off. */
		if (s->exchanges && s->pendings && !wait)
			ms = 0;
		ready = wait_for_message(s, ms) || first;
		if (ready || s->children)
			read_all(s);
		first = false;
		if (ready || !wait)
			serve_pending(s);
		volunteer(s);
		fill_duel();
	}
}

static bool any_refused(const struct server *s)
{
	unsigned int i;

	for (i = 0; i < s->pendings; i++)
		if (s->pending[i].refused)
			return true;
	return false;
}

/*
 * One descriptor that blocks. If there are events this is the only reader; so when a
 * call has been refused there is something to read.
 */
static void serve_blocking(struct server *s)
{
	int fd = local_fd[s->fd[0]];

	/* It waits by itself, or is back soon. */
	while (s->exchanges && !uk_get(&world->stop_servers)) {
		exchange_once(s, fd);
		if (chance(&self->random, 10))
			prefill(s->fd[0]);
	}
	while (!uk_get(&world->stop_servers)) {
		s->nowait = s->pendings && !(any_refused(s) && setting.ordered);
		if (s->pendings && !s->nowait)
			begin(OP_READ, -1, -1);
		serve_once(s, fd, false);
		serve_pending(s);
		if (s->nowait)
			uk_sleep(1);
		if (chance(&self->random, 10))
			prefill(s->fd[0]);
	}
}

static void choose_fds(struct server *s)
{
	unsigned int i;

	if (world->servers >= world->fds) {
		s->fd[s->fds++] = self->nr % world->fds;
		return;
	}
	for (i = self->nr; i < world->fds; i += world->servers)
		s->fd[s->fds++] = i;
}

static void open_epoll(struct server *s)
{
	struct epoll_event event = { .events = EPOLLIN };
	unsigned int i;

	if (s->how == HOW_EDGE)
		event.events |= EPOLLET;
	if (s->how == HOW_EXCLUSIVE)
		event.events |= EPOLLEXCLUSIVE;
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	for (i = 0; i < s->fds; i++)
		epoll_ctl(s->epoll, EPOLL_CTL_ADD, local_fd[s->fd[i]], &event);
}

void *serve(void *arg)
{
	struct server s = { .epoll = -1 };
	struct self *me = arg;

	if (!enter_self(me))
		return NULL;
	choose_fds(&s);
	s.broken = me->page;
	s.how = below(&me->random, NR_HOWS);
	if (!world->nonblock || (s.how == HOW_RING && me->ring.fd < 0))
		s.how = HOW_POLL;
	s.exchanges = has(UFFD_FEATURE_EXCHANGE) && chance(&me->random, 70);
	open_epoll(&s);
	if (world->nonblock)
		serve_nonblocking(&s);
	else
		serve_blocking(&s);
	while (s.children)
		forget_child(&s, 0);
	close(s.epoll);
	leave_self();
	return NULL;
}

/* Handlers in a process of their own */

/* What the one before has left undone when it was killed. */
static void take_over(void)
{
	unsigned int i, k;

	begin(OP_TAKEOVER, -1, -1);
	for (i = 0; i < world->fds; i++) {
		uk_set(&world->know[i], 0);
		uk_set(&world->wants[i], 0);
		if (uk_get(&world->mark_awaits[i]) == EXPECTED)
			uk_set(&world->mark_awaits[i], UNSURE);
	}
	for (i = 0; i < world->regions; i++) {
		struct region *r = &world->region[i];

		for (k = 0; k < r->pages; k++) {
			struct page *p = &r->page[k];
			struct worker *w = find_worker(uk_get(&p->fill));

			if (w && w->role == 's')
				unlock(&p->fill);
			if (uk_get(&p->awaits) == EXPECTED)
				uk_set(&p->awaits, UNSURE);
			/* Else nobody waits for us: it is set already. */
			if (has(UFFD_FEATURE_EVENT_REMOVE))
				uk_set(&p->store, uk_get(&p->next));
		}
	}
	for (i = 0; i < MAX_THREADS; i++)
		if (world->worker[i].role == 's')
			uk_set(&world->worker[i].tid, 0);
	for (i = 0; i < world->regions; i++) {
		struct region *r = &world->region[i];

		/* What has been read and not resolved is to be told again. */
		wake_pages(local_fd[r->fd], r, page_at(r, 0), 0, r->pages);
	}
	end(1, 0);
}

static bool fetch_fds(int sock)
{
	int pidfd = syscall(__NR_pidfd_open, world->pid, 0);
	unsigned int i;

	for (i = 0; i < world->fds; i++) {
		local_fd[i] = world->passed ? uk_recv_fd(sock) :
			      syscall(__NR_pidfd_getfd, pidfd, world->fd[i], 0);
		if (local_fd[i] < 0)
			return false;
	}
	close(pidfd);
	return true;
}

/* One of several such processes; it waits for its turn. */
int server_main(void *arg)
{
	unsigned int nr = (unsigned long)arg, i;
	struct self *me[MAX_THREADS];
	pthread_t thread[MAX_THREADS];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (uk_get(&world->serving) != nr) {
		if (uk_get(&world->over))
			return 0;
		uk_sleep(2);
	}
	if (!fetch_fds(pass_sock[nr][1]))
		return 1;
	for (i = 0; i < world->servers; i++)
		me[i] = new_self('s', i);
	if (!enter_self(new_self('m', nr)))
		return 1;
	if (nr > 1)
		take_over();
	for (i = 0; i < world->servers; i++)
		pthread_create(&thread[i], NULL, serve, me[i]);
	for (i = 0; i < world->servers; i++)
		pthread_join(thread[i], NULL);
	leave_self();
	return 0;
}
