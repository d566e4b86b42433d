// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: the calls that resolve faults, of every kind and size, and what
 * they may return.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#include "uffd-torture.h"

void begin_job(struct job *j)
{
	j->since = tick();
	j->unarmed = uk_get(&j->r->unarmed);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Has the region been registered in another way meanwhile, or mapped anew? */
static bool registered_anew(const struct job *j)
{
	return j->unarmed % 2 || j->unarmed != uk_get(&j->r->unarmed);
}

char *job_addr(const struct job *j)
{
	return j->base + j->from * j->r->unit;
}

size_t job_len(const struct job *j)
{
	return j->n * j->r->unit;
}

int wake_job(const struct job *j)
{
	return wake_pages(j->fd, j->r, job_addr(j), j->from, j->n);
}

int wake_pages(int fd, struct region *r, char *addr, unsigned int from,
	       unsigned int n)
{
	int ret;

	wake_begin(r, from, n);
	ret = uk_wake(fd, addr, n * r->unit);
	wake_end(r, from, n);
	count(OP_WAKE, r->nr, from, n, ret);
	return ret;
}

/*
 * A call that has been refused must have met an event that concerns it: one that
 * some thread is causing, or was while the call lasted.
 */
static void check_refused(const struct job *j)
{
	__u64 start = (unsigned long)job_addr(j), end = start + job_len(j);
	unsigned int i;

	/* One with a range that cannot be is concerned by all. */
	if (!j->n) {
		start = 0;
		end = -1ULL;
	}
	count(OP_REFUSED, j->r->nr, j->from, j->n, -EAGAIN);
	if (!setting.ordered || registered_anew(j) || uk_get(&world->closed))
		return;
	for (i = 0; i < MAX_THREADS; i++) {
		struct worker *w = &world->worker[i];

		if (uk_get(&w->caused) >= j->since)
			return;
		if (uk_get(&w->causing) && w->cause_start < end &&
		    w->cause_end > start)
			return;
		/* It may have ended between the two looks. */
		if (uk_get(&w->caused) >= j->since)
			return;
	}
	fail(T_MESSAGE, "call on region %u pages %u+%u refused, and no event concerns it",
	     j->r->nr, j->from, j->n);
}

/*
 * What a call has returned. SERVED if the first page is what it should be; BUSY
 * or, for an event, REFUSED if it has to be tried later; GONE if there is nothing to
 * resolve any more.
 */
enum verdict outcome(const struct job *j, int err, __s64 out,
		     uint32_t truncated)
{
	bool past_end = truncated % 2 || truncated != uk_get(&j->r->truncated);

	switch (-err) {
	case 0:
		return SERVED;
	case EAGAIN:
		if (out > 0 && out % j->r->unit == 0 && out < job_len(j))
			return SERVED;
		if (out != -EAGAIN && out)
			break;
		check_refused(j);
		return REFUSED;
	case EEXIST:
		/*
		 * Who put it there has woken who waits; but not if that was done
		 * to the file, or by a call that was not to wake.
		 */
		if (is_shared(j->r) || world->sloppy || !setting.ordered)
			wake_job(j);
		return SERVED;
	case ENOENT:
		wake_job(j);
		return GONE;
	case ESRCH:
		return GONE;
	case ENOMEM:
		uk_sleep(1);
		return BUSY;
	case EFAULT:
	case EINVAL:
		if (!past_end && !registered_anew(j))
			break;
		wake_job(j);
		uk_sleep(1);
		return GONE;
	}
	if (!uk_get(&world->closed))
		fail(T_CALL, "call on region %u pages %u+%u: errno %d, output %lld",
		     j->r->nr, j->from, j->n, -err, out);
	return GONE;
}

static bool out_ok(const struct job *j, struct uk_fill fill)
{
	if (!fill.err)
		return fill.out == (__s64)job_len(j);
	return fill.err == -EAGAIN || fill.err == -ESRCH || fill.err == -EFAULT ||
	       fill.out == fill.err;
}

void open_account(struct account *a, const struct job *j)
{
	struct page *p = &j->r->page[j->from];
	unsigned int i;

	a->epoch = protection(j->r);
	for (i = 0; i < j->n; i++, p++) {
		a->odd[i] = uk_get(&p->odd);
		uk_set(&p->wp, 0);
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	wake_begin(j->r, j->from, j->n);
}

void close_account(enum op op, const struct account *a, const struct job *j,
		   struct uk_fill fill, bool protect)
{
	struct page *p = &j->r->page[j->from];
	unsigned int i, done;

	wake_end(j->r, j->from, j->n);
	if (!out_ok(j, fill) && !uk_get(&world->closed))
		fail(T_CALL, "%s of region %u pages %u+%u: errno %d but output %lld",
		     op_name[op], j->r->nr, j->from, j->n, -fill.err, fill.out);
	done = fill.out > 0 && fill.out != UK_UNSET ? fill.out / j->r->unit : 0;
	for (i = 0; protect && i < done; i++, p++) {
		/* Emptied meanwhile, and the protection with it? */
		uk_set(&p->wp, a->epoch + 1);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (a->odd[i] % 2 || uk_get(&p->odd) != a->odd[i])
			uk_set(&p->wp, 0);
	}
	count(op, j->r->nr, j->from, done, fill.err);
}

/* Does it, with what the oracle has to know of it; @protect: the pages are. */
static struct uk_fill run(enum op op, const struct job *j, const char *src,
			  __u64 mode, bool protect)
{
	uint32_t odd[j->n];
	struct account account = { .odd = odd };
	struct uk_fill fill = {};

	open_account(&account, j);
	if (op == OP_COPY)
		fill = uk_copy(j->fd, job_addr(j), src, job_len(j), mode);
	else if (op == OP_ZERO)
		fill = uk_zero(j->fd, job_addr(j), job_len(j), mode);
	else if (op == OP_CONTINUE)
		fill = uk_continue(j->fd, job_addr(j), job_len(j), mode);
	else if (op == OP_MOVE)
		fill = uk_move(j->fd, job_addr(j), (void *)src, job_len(j), mode);
	close_account(op, &account, j, fill, protect);
	return fill;
}

static bool all_zero(const struct job *j)
{
	unsigned int i;

	for (i = 0; i < j->n; i++)
		if (!is_zero(uk_get(&j->r->page[j->from + i].store)))
			return false;
	return true;
}

void paint_job(const struct job *j, char *buf)
{
	unsigned int i;

	for (i = 0; i < j->n; i++)
		paint(j->r, j->from + i, uk_get(&j->r->page[j->from + i].store),
		      buf + i * j->r->unit);
}

/*
 * A page that is shared, pinned or locked in another way does not move. And neither of
 * the other two replaces an absent page that is protected.
 */
bool only_copy_can(enum op op, int err)
{
	if (op == OP_COPY)
		return false;
	return err == -EEXIST || (op == OP_MOVE && (err == -EBUSY ||
			err == -EINVAL || err == -ENOENT));
}

enum op choose_fill(const struct job *j, bool *protect)
{
	struct random *rnd = &self->random;

	*protect = false;
	if (all_zero(j) && !is_hugetlb(j->r) && chance(rnd, 50))
		return OP_ZERO;
	if (is_anon(j->r) && !world->external && chance(rnd, 15))
		return OP_MOVE;
	*protect = (j->r->mode & WP) && chance(rnd, 30);
	return OP_COPY;
}

/* The pages' fill locks are held. */
static enum verdict fill_job(struct job *j)
{
	uint32_t truncated = uk_get(&j->r->truncated);
	bool silent = world->sloppy && chance(&self->random, 50), protect;
	enum op op = choose_fill(j, &protect);
	struct uk_fill fill;
	__u64 mode = 0;

	if (op != OP_ZERO)
		paint_job(j, self->buf);
	if (protect)
		mode |= UFFDIO_COPY_MODE_WP;
	if (silent)
		mode |= UFFDIO_COPY_MODE_DONTWAKE;	/* all have the same bit */
	begin_job(j);
	fill = run(op, j, self->buf, mode, protect);
	if (only_copy_can(op, fill.err)) {
		paint_job(j, self->buf);
		fill = run(OP_COPY, j, self->buf, 0, false);
	}
	if (silent && (!fill.err || (fill.err == -EAGAIN && fill.out > 0)))
		wake_job(j);
	return outcome(j, fill.err, fill.out, truncated);
}

/* How much to do at once: what it is about, alone or with its neighbours. */
static void widen(struct job *j)
{
	struct region *r = j->r;
	unsigned int max = BUF_SIZE / r->unit, page = j->from;
	unsigned int how = below(&self->random, 100);

	if (how < 60 || max < 2)
		return;
	if (how < 80)
		max = 2 + below(&self->random, 16);
	if (how >= 95 && r->pages >= max)
		j->from = page / max * max;	/* as a huge page lies */
	j->n = r->pages - j->from < max ? r->pages - j->from : max;
	/* What others are at is left out. */
	while (j->n > 1 && !lock_fills(r, j->from, j->n)) {
		j->from = page;
		j->n /= 2;
		if (page + j->n > r->pages)
			j->n = r->pages - page;
	}
	if (j->n == 1)
		j->from = page;
}

/* Takes locks for more than one page, or for the one; false: try later. */
static bool claim(struct job *j)
{
	j->n = 1;
	widen(j);
	return j->n > 1 || lock_fills(j->r, j->from, 1);
}

static enum verdict serve_missing(struct job *j)
{
	unsigned int page = j->from;
	enum verdict v;

	if (!claim(j))
		return BUSY;
	v = fill_job(j);
	unlock_fills(j->r, j->from, j->n);
	if (j->n == 1 || v == BUSY || v == REFUSED)
		return v;
	/* Whatever has become of the others, do the one. */
	j->from = page;
	j->n = 1;
	if (!lock_fills(j->r, page, 1))
		return BUSY;
	v = fill_job(j);
	unlock_fills(j->r, page, 1);
	return v;
}

static enum verdict serve_minor(struct job *j)
{
	bool protect = (j->r->mode & WP) && chance(&self->random, 30);
	uint32_t truncated = uk_get(&j->r->truncated);
	struct uk_fill fill;
	unsigned int page = j->from;
	enum verdict v;

	if (!claim(j))
		return BUSY;
	begin_job(j);
	fill = run(OP_CONTINUE, j, NULL,
		   protect ? UFFDIO_CONTINUE_MODE_WP : 0, protect);
	/* The file's page may have been dropped since the fault. */
	if (fill.err == -EFAULT) {
		wake_pages(j->fd, j->r, j->base + page * j->r->unit, page, 1);
		v = GONE;
	} else {
		v = outcome(j, fill.err, fill.out, truncated);
	}
	if (v == SERVED && j->n > 1)
		v = BUSY;	/* for the one: it may have been done, or not */
	unlock_fills(j->r, j->from, j->n);
	return v;
}

static enum verdict serve_protected(struct job *j)
{
	struct region *r = j->r;
	__u64 mode = world->sloppy && chance(&self->random, 50) ?
		     UFFDIO_WRITEPROTECT_MODE_DONTWAKE : 0;
	unsigned int i;
	int err;

	if (!claim(j))
		return BUSY;
	for (i = 0; i < j->n; i++)
		uk_set(&r->page[j->from + i].wp, 0);
	begin_job(j);
	wake_begin(r, j->from, j->n);
	err = uk_protect(j->fd, job_addr(j), job_len(j), mode);
	wake_end(r, j->from, j->n);
	count(OP_UNPROTECT, r->nr, j->from, j->n, err);
	if (mode && !err)
		wake_job(j);
	unlock_fills(r, j->from, j->n);
	return outcome(j, err, err, 0);
}

static void check_address(struct region *r, __u64 addr)
{
	if (!has(UFFD_FEATURE_EXACT_ADDRESS) &&
	    (addr - (unsigned long)r->arena[0]) % r->unit &&
	    (addr - (unsigned long)r->arena[1]) % r->unit)
		fail(T_MESSAGE, "region %u: fault at %#llx, which no page begins at",
		     r->nr, addr);
}

bool find_job(struct job *j, int fd, const struct uffd_msg *msg)
{
	__u64 addr = msg->arg.pagefault.address;
	unsigned int arena;

	j->fd = fd;
	j->n = 1;
	j->r = find_page(addr, &j->from, &arena);
	if (!j->r) {
		fail(T_MESSAGE, "fault at %#llx, where nothing was registered", addr);
		return false;
	}
	check_address(j->r, addr);
	j->base = j->r->arena[arena];
	return true;
}

enum verdict serve_fault(int fd, const struct uffd_msg *msg)
{
	__u64 flags = msg->arg.pagefault.flags;
	struct job j;

	if (!find_job(&j, fd, msg))
		return GONE;
	if (flags & UFFD_PAGEFAULT_FLAG_WP)
		return serve_protected(&j);
	if (flags & UFFD_PAGEFAULT_FLAG_MINOR)
		return serve_minor(&j);
	return serve_missing(&j);
}

/*
 * A child is at pages only whose locks its parent holds, and its faults are what its
 * parent had missing: it gets what is settled.
 */
enum verdict serve_child(int fd, const struct uffd_msg *msg)
{
	__u64 addr = msg->arg.pagefault.address, flags = msg->arg.pagefault.flags;
	unsigned int page, arena;
	struct uk_fill fill = {};
	struct region *r = find_page(addr, &page, &arena);
	char *at;

	if (!r) {
		fail(T_MESSAGE, "child's fault at %#llx, where nothing was registered",
		     addr);
		return GONE;
	}
	if (!lock_fills(r, page, 1))
		return BUSY;
	at = r->arena[arena] + page * r->unit;
	paint(r, page, uk_get(&r->page[page].settled), self->buf);
	if (flags & UFFD_PAGEFAULT_FLAG_WP)
		fill.err = uk_protect(fd, at, r->unit, 0);
	else if (flags & UFFD_PAGEFAULT_FLAG_MINOR)
		fill = uk_continue(fd, at, r->unit, 0);
	else
		fill = uk_copy(fd, at, self->buf, r->unit, 0);
	unlock_fills(r, page, 1);
	count(OP_FAULT, r->nr, page, 1, fill.err);
	if (fill.err == -EAGAIN || fill.err == -ENOMEM)
		return BUSY;
	if (fill.err)
		uk_wake(fd, at, r->unit);
	return fill.err ? GONE : SERVED;
}

/* Without being asked. */
void prefill(unsigned int fd)
{
	struct region *r = &world->region[below(&self->random, world->regions)];
	struct job j = { .r = r, .base = r->arena[uk_get(&r->place)] };

	if (r->fd != fd || !may_be_missing(r))
		return;
	j.fd = local_fd[fd];
	j.from = below(&self->random, r->pages);
	if (!claim(&j))
		return;
	begin(OP_PREFILL, r->nr, j.from);
	fill_job(&j);
	end(j.n, 0);
	unlock_fills(r, j.from, j.n);
}

/* Arguments that cannot be: they change nothing, whatever else is going on. */
void bad_call(unsigned int fd)
{
	struct region *r = &world->region[below(&self->random, world->regions)];
	char *at = r->arena[uk_get(&r->place)];
	struct job j = { .fd = local_fd[fd], .r = r, .base = at };
	int err;

	begin(OP_BAD_CALL, r->nr, -1);
	begin_job(&j);
	switch (below(&self->random, 7)) {
	case 0:
		err = uk_copy(j.fd, at, self->buf, 0, 0).err;
		break;
	case 1:
		err = uk_copy(j.fd, at + 8, self->buf, r->unit, 0).err;
		break;
	case 2:
		err = uk_zero(j.fd, at, r->unit - 8, 0).err;
		break;
	case 3:
		err = uk_copy(j.fd, at, self->buf, r->unit, UK_BIT(63)).err;
		break;
	case 4:
		err = uk_continue(j.fd, at, -(unsigned long)at, 0).err;
		break;
	case 5:
		err = uk_protect(j.fd, at, r->unit,
				 UFFDIO_WRITEPROTECT_MODE_WP |
				 UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
		break;
	default:
		err = uk_wake(j.fd, at + 8, r->unit);
		if (err == -EAGAIN)
			err = 0;
	}
	if (err == -EAGAIN)
		check_refused(&j);
	else if (err != -EINVAL && err != -ESRCH && !uk_get(&world->closed))
		fail(T_CALL, "a call that cannot be returned %d", err);
	end(1, err);
}

/*
 * A long fill, with what is known when it begins, on pages some of which are dropped
 * while it lasts; the REMOVE may be read before it is over. See duel().
 */
void fill_duel(void)
{
	struct duel *d = &world->duel;
	struct job j = {};
	uint32_t prepared = 1;

	if (uk_get(&d->state) != 1)
		return;
	if (!__atomic_compare_exchange_n(&d->state, &prepared, 2, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return;
	j.r = &world->region[d->region];
	j.base = j.r->arena[uk_get(&j.r->place)];
	j.from = d->from;
	j.n = d->pages;
	j.fd = local_fd[j.r->fd];
	d->filled = -EBUSY;
	if (lock_fills(j.r, j.from, j.n)) {
		begin(OP_DUEL, j.r->nr, j.from);
		paint_job(&j, self->buf);
		d->filled = run(OP_COPY, &j, self->buf, 0, false).err;
		end(j.n, d->filled);
		unlock_fills(j.r, j.from, j.n);
	}
	uk_set(&d->state, 3);
}
