// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: UFFDIO_EXCHANGE, which runs what several faults need, and takes the next
 * messages. What each operation returns is judged like the ioctl that it stands for.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>

#include "uffd-torture.h"

#define GO_ON	UFFDIO_EXCHANGE_MODE_GO_ON

static int exchange_on(int fd, struct uffdio_exchange *call)
{
	int ret = ioctl(fd, UFFDIO_EXCHANGE, call);

	return ret < 0 ? -errno : ret;
}

/* What is to be done */

static void add_op(struct exchange *x, const struct order *o, __u32 op,
		   __u64 mode, const char *src)
{
	x->ops[x->call.nr_ops++] = (struct uffdio_op){
		.op = op,
		.mode = mode,
		.dst = (unsigned long)job_addr(&o->j),
		.len = job_len(&o->j),
		.src = (unsigned long)src,
		.result = UK_UNSET,
	};
}

/* The operation for a fault, by what is wrong with the page. */
static __u32 choose_op(struct order *o)
{
	__u64 flags = o->msg.arg.pagefault.flags;

	o->protect = false;
	if (flags & UFFD_PAGEFAULT_FLAG_WP) {
		o->op = OP_UNPROTECT;
		return _UFFDIO_WRITEPROTECT;
	}
	if (flags & UFFD_PAGEFAULT_FLAG_MINOR) {
		o->op = OP_CONTINUE;
		o->protect = (o->j.r->mode & WP) && chance(&self->random, 30);
		return _UFFDIO_CONTINUE;
	}
	o->op = choose_fill(&o->j, &o->protect);
	return o->op == OP_ZERO ? _UFFDIO_ZEROPAGE :
	       o->op == OP_MOVE ? _UFFDIO_MOVE : _UFFDIO_COPY;
}

/* COPY, CONTINUE and the others have the same bits for the same thing, but for one. */
static __u64 choose_mode(struct order *o)
{
	__u64 mode = o->protect ? UFFDIO_COPY_MODE_WP : 0;

	o->silent = world->sloppy && chance(&self->random, 50);
	if (o->silent)
		mode |= o->op == OP_UNPROTECT ?
			UFFDIO_WRITEPROTECT_MODE_DONTWAKE :
			UFFDIO_COPY_MODE_DONTWAKE;
	return mode;
}

/* A page, or some, of which the first is what it is about. */
static bool claim_pages(struct job *j)
{
	j->n = chance(&self->random, 70) ? 1 : 1 + below(&self->random, MAX_WIDE);
	if (is_hugetlb(j->r) || j->n > j->r->pages - j->from)
		j->n = 1;
	if (lock_fills(j->r, j->from, j->n))
		return true;
	j->n = 1;
	return lock_fills(j->r, j->from, 1);
}

bool add_order(struct exchange *x, const struct uffd_msg *msg)
{
	struct order *o = &x->order[x->orders];
	char *src = NULL;
	__u32 op;

	if (x->orders == MAX_ORDERS)
		return false;
	*o = (struct order){ .msg = *msg, .account.odd = o->odd };
	if (!find_job(&o->j, x->fd, msg))
		return true;	/* and it has failed */
	if (x->used + MAX_WIDE * o->j.r->unit > BUF_SIZE && x->orders)
		return false;
	if (!claim_pages(&o->j))
		return false;
	op = choose_op(o);
	if (o->op == OP_COPY || o->op == OP_MOVE) {
		src = self->buf + x->used;
		paint_job(&o->j, src);
		x->used += job_len(&o->j);
	}
	o->truncated = uk_get(&o->j.r->truncated);
	o->at = x->call.nr_ops;
	add_op(x, o, op, choose_mode(o), src);
	if (o->silent)
		add_op(x, o, _UFFDIO_WAKE, 0, NULL);
	begin_job(&o->j);
	open_account(&o->account, &o->j);
	x->orders++;
	return true;
}

/* What has come of it */

static bool has_run(const struct exchange *x, unsigned int i)
{
	return i < x->call.done;
}

static bool has_failed(const struct uffdio_op *op)
{
	return op->result != (__s64)op->len && op->result != -EAGAIN;
}

/* They are run in order, up to the first failure, or all. */
static void check_array(const struct exchange *x)
{
	bool go_on = x->call.mode & GO_ON, failed = false;
	unsigned int i, nr = x->call.nr_ops;

	for (i = 0; i < nr; i++) {
		__s64 result = x->ops[i].result;

		if (!has_run(x, i) && result == UK_UNSET)
			continue;
		if (!has_run(x, i) || result == UK_UNSET || !result ||
		    (failed && !go_on))
			break;
		failed |= has_failed(&x->ops[i]);
	}
	if (i < nr || x->call.done > nr ||
	    (x->call.done < nr && (go_on || !failed)))
		fail(T_CALL, "exchange: %u of %u run, mode %llu, operation %u returned %lld",
		     x->call.done, nr, x->call.mode, i,
		     i < nr ? x->ops[i].result : 0);
}

/* As its own ioctl would tell it. */
static struct uk_fill as_fill(const struct uffdio_op *op)
{
	if (op->result < 0)
		return (struct uk_fill){ op->result, op->result };
	if (op->result == (__s64)op->len)
		return (struct uk_fill){ 0, op->result };
	return (struct uk_fill){ -EAGAIN, op->result };
}

static void settle_wake(const struct exchange *x, const struct order *o)
{
	const struct uffdio_op *wake = &x->ops[o->at + 1];

	if (!has_run(x, o->at + 1)) {
		/* What was done in silence, and ended the array, is still to be told. */
		wake_job(&o->j);
		return;
	}
	count(OP_WAKE, o->j.r->nr, o->j.from, o->j.n,
	      wake->result < 0 ? wake->result : 0);
	if (has_failed(wake) && !uk_get(&world->closed))
		fail(T_CALL, "exchange: WAKE returned %lld", wake->result);
}

static void settle(const struct exchange *x, struct order *o)
{
	const struct uffdio_op *op = &x->ops[o->at];
	struct uk_fill fill = as_fill(op);

	o->verdict = BUSY;
	if (!has_run(x, o->at)) {
		wake_end(o->j.r, o->j.from, o->j.n);
		unlock_fills(o->j.r, o->j.from, o->j.n);
		return;
	}
	close_account(o->op, &o->account, &o->j, fill, o->protect);
	if (o->op == OP_UNPROTECT && op->result > 0 && has_failed(op))
		fail(T_CALL, "exchange: %lld of %llu bytes unprotected",
		     op->result, op->len);
	if (o->silent)
		settle_wake(x, o);
	/* The file's page may have been dropped since the fault. */
	if (o->op == OP_CONTINUE && fill.err == -EFAULT) {
		wake_job(&o->j);
		o->verdict = GONE;
	} else if (o->op == OP_UNPROTECT || !only_copy_can(o->op, fill.err) ||
		   o->op == OP_CONTINUE) {
		o->verdict = outcome(&o->j, fill.err, fill.out, o->truncated);
	}
	unlock_fills(o->j.r, o->j.from, o->j.n);
}

/* The call */

static __s64 choose_deadline(bool patient)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	/* Which does not wait whatever it is told. */
	if ((patient || world->nonblock) && chance(&self->random, 60))
		return -1;
	if (chance(&self->random, 20))
		return 0;
	/* Some are over already. */
	return now.tv_sec * 1000000000LL + now.tv_nsec +
	       ((int)below(&self->random, 4) - 1) * 1000000LL;
}

/* Up to the end of a page with nothing behind it, or beyond. */
static char *at_edge(size_t len, size_t beyond)
{
	return self->page + getpagesize() - len + beyond;
}

/* With what it cannot read, or what cannot be, nothing is run and nothing is lost. */
static void exchange_badly(struct exchange *x)
{
	unsigned int i, nr = x->call.nr_ops, how = below(&self->random, 3);
	size_t size = sizeof(x->ops[0]), len = nr * size;
	struct uffdio_exchange bad = x->call;
	char *edge = at_edge(len, how ? 0 : 1 + below(&self->random, size));
	int ret, want = how ? -EINVAL : -EFAULT;

	memcpy(edge, x->ops, how ? len : len - size);
	bad.ops = (unsigned long)edge;
	if (how == 1)
		bad.mode = UK_BIT(1 + below(&self->random, 63));
	if (how == 2)
		((struct uffdio_op *)edge)[nr - 1].op = _UFFDIO_REGISTER;
	ret = exchange_on(x->fd, &bad);
	count(OP_BAD_CALL, -1, how, nr, ret);
	if (uk_get(&world->closed))
		return;
	if (ret != want || bad.done)
		fail(T_CALL, "exchange that cannot be: %d, %u run", ret, bad.done);
	for (i = 0; i + 1 < nr; i++)
		if (((struct uffdio_op *)edge)[i].result != UK_UNSET)
			fail(T_CALL, "exchange that cannot be: operation %u run", i);
}

/* Messages into memory that ends early: what does not fit comes again. */
static int exchange_broken(struct exchange *x, struct uffd_msg *msg,
			   unsigned int room)
{
	size_t len = below(&self->random, 3) * sizeof(*msg) +
		     below(&self->random, sizeof(*msg));
	char *edge = at_edge(len, 0);
	int n;

	x->call.ops = (unsigned long)x->ops;
	x->call.msgs = (unsigned long)edge;
	n = exchange_on(x->fd, &x->call);
	count(OP_BAD_READ, -1, -1, n > 0 ? n : 0, n < 0 ? n : 0);
	if (n > (int)(len / sizeof(*msg)))
		fail(T_MESSAGE, "exchange: %d messages in %zu bytes", n, len);
	else if (n > 0)
		memcpy(msg, edge, n * sizeof(*msg));
	return n == -EFAULT ? -EAGAIN : n;
}

static int exchange_well(struct exchange *x, struct uffd_msg *msg)
{
	size_t len = x->call.nr_ops * sizeof(x->ops[0]);
	char *edge = at_edge(len, 0);
	int n;

	memcpy(edge, x->ops, len);
	x->call.ops = (unsigned long)edge;
	x->call.msgs = (unsigned long)msg;
	n = exchange_on(x->fd, &x->call);
	memcpy(x->ops, edge, len);
	return n;
}

int exchange(struct exchange *x, struct uffd_msg *msg, unsigned int room,
	     bool patient)
{
	unsigned int i;
	bool sleeps;
	int n;

	x->call.nr_msgs = room;
	x->call.deadline = choose_deadline(patient);
	x->call.mode = chance(&self->random, 50) ? GO_ON : 0;
	/* Else it is no step, or who has nothing to do would be found asleep. */
	sleeps = !world->nonblock && x->call.deadline < 0;
	if (!sleeps)
		begin(OP_EXCHANGE, -1, -1);
	if (x->orders && chance(&self->random, 2))
		exchange_badly(x);
	if (room && chance(&self->random, 2))
		n = exchange_broken(x, msg, room);
	else
		n = exchange_well(x, msg);
	if (n >= 0 || n == -EAGAIN)
		check_array(x);
	for (i = 0; i < x->orders; i++)
		settle(x, &x->order[i]);
	if (sleeps)
		count(OP_EXCHANGE, -1, -1, x->call.nr_ops, n);
	else
		end(x->call.nr_ops, n);
	return n;
}
