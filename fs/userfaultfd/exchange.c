// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: resolving and waiting in one call.
 *
 * How it works
 * ------------
 * UFFDIO_EXCHANGE runs an array of operations, each by the code of its own ioctl,
 * wakes for all of them, and then takes messages as read() does.
 *
 * The operations are copied in, and checked, before the first is run.  They stay in
 * the kernel until all have been run: then those who sleep in what has been done are
 * collected, and woken together.  That may be late for one of them.  So an operation
 * that is about to wait for somebody, for an event to be published or for its source,
 * has those woken first who were resolved before it: struct uffd_cursor.
 *
 * When the call is going to sleep and nobody else wants its CPU, one of the threads is
 * woken right there.  That is where its next fault comes from, as a rule, and where it
 * wakes this one again: no other CPU is interrupted for either.
 *
 * Nothing is told to a handler about the caller's arrays, since the handler is most
 * likely the caller.  They are accessed with page faults disabled.  If that fails the
 * page is faulted in by a walk that may not be tried again, which handle_userfault()
 * refuses to put to sleep.
 *
 * Nothing of it is ever restarted.  When a signal comes, what has been done has been
 * written already; the call returns that there are no messages.
 */

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/time_namespace.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include "uffd.h"

/* So many operations need no allocation. */
#define UFFD_FEW_OPS	8

/* What can be faulted in, and cannot be accessed all the same, is given up. */
#define UFFD_MAX_TRIES	16

/**
 * struct uffd_exchange - a call on its way
 * @ctx: the context it was made on
 * @file: its file
 * @calls: what does the work
 * @cursor: what its operations share
 * @arg: its argument
 * @ops: its operations
 * @done: how many have been run
 * @woken: for how many of these everybody has been woken
 * @refused: one of them was refused for an event
 * @failed: one has failed otherwise
 */
struct uffd_exchange {
	struct userfaultfd_ctx *ctx;
	struct file *file;
	const struct uffd_exchange_calls *calls;
	struct uffd_cursor cursor;
	struct uffdio_exchange arg;
	struct uffdio_op *ops;
	unsigned int done;
	unsigned int woken;
	bool refused;
	bool failed;
};

/*
 * The caller's memory
 */

/* Faults a page in.  Fails where a handler would have to be asked. */
static bool uffd_fault_in_page(unsigned long addr, bool write)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	int ret;

	mmap_read_lock(mm);
	addr = untagged_addr_remote(mm, addr);
	vma = vma_lookup(mm, addr);
	/* An array on the stack may be the first to come so far down. */
	if (!vma)
		vma = expand_stack(mm, addr);
	if (!vma)
		return false;	/* the lock has been dropped */
	/* Without a way to tell that the lock was dropped: nothing may wait. */
	ret = fixup_user_fault(mm, addr, write ? FAULT_FLAG_WRITE : 0, NULL);
	mmap_read_unlock(mm);
	return !ret;
}

static bool uffd_fault_in(const void __user *start, size_t len, bool write)
{
	unsigned long addr = (unsigned long)start;
	unsigned long last = PAGE_ALIGN_DOWN(addr + len - 1);

	for (;; addr += PAGE_SIZE) {
		if (!uffd_fault_in_page(addr, write))
			return false;
		if (PAGE_ALIGN_DOWN(addr) == last)
			return true;
	}
}

static int uffd_read_user(void *to, const void __user *from, size_t len)
{
	unsigned int tries;
	unsigned long left;

	for (tries = 0; tries < UFFD_MAX_TRIES; tries++) {
		pagefault_disable();
		left = copy_from_user(to, from, len);
		pagefault_enable();
		if (!left)
			return 0;
		if (!access_ok(from, len) || !uffd_fault_in(from, len, false))
			break;
	}
	return -EFAULT;
}

static int uffd_write_user(void __user *to, const void *from, size_t len)
{
	unsigned int tries;
	unsigned long left;

	for (tries = 0; tries < UFFD_MAX_TRIES; tries++) {
		pagefault_disable();
		left = copy_to_user(to, from, len);
		pagefault_enable();
		if (!left)
			return 0;
		if (!access_ok(to, len) || !uffd_fault_in(to, len, true))
			break;
	}
	return -EFAULT;
}

/* The same for a single value, which is nearly always there. */
static int uffd_put_s64(s64 __user *to, s64 value)
{
	int ret;

	pagefault_disable();
	ret = put_user(value, to);
	pagefault_enable();
	return ret ? uffd_write_user(to, &value, sizeof(value)) : 0;
}

static int uffd_put_u32(u32 __user *to, u32 value)
{
	int ret;

	pagefault_disable();
	ret = put_user(value, to);
	pagefault_enable();
	return ret ? uffd_write_user(to, &value, sizeof(value)) : 0;
}

/* An address in a field of 64 bits, which is all there is room for on 32-bit machines. */
static bool uffd_is_pointer(u64 addr)
{
	return addr == (unsigned long)addr;
}

/*
 * The operations
 */

static struct uffdio_op __user *uffd_user_ops(const struct uffd_exchange *x)
{
	return u64_to_user_ptr(x->arg.ops);
}

static bool uffd_op_known(const struct uffd_exchange *x,
			  const struct uffdio_op *op)
{
	if (op->reserved || op->op >= BITS_PER_TYPE(x->calls->known) ||
	    !(x->calls->known & BIT_ULL(op->op)))
		return false;
	if (op->src && op->op != _UFFDIO_COPY && op->op != _UFFDIO_MOVE)
		return false;
	return !op->mode || op->op != _UFFDIO_WAKE;
}

static int uffd_write_result(const struct uffd_exchange *x, unsigned int i)
{
	return uffd_put_s64(&uffd_user_ops(x)[i].result, x->ops[i].result);
}

/* Is there a place for the results?  One try for each page of them. */
static int uffd_probe_results(const struct uffd_exchange *x)
{
	const struct uffdio_op __user *user = uffd_user_ops(x);
	unsigned long page, last = 0;
	unsigned int i;
	int ret;

	for (i = 0; i < x->arg.nr_ops; i++) {
		page = PAGE_ALIGN_DOWN((unsigned long)&user[i].result);
		if (i && page == last)
			continue;
		ret = uffd_write_result(x, i);
		if (ret)
			return ret;
		last = page;
	}
	return 0;
}

static int uffd_read_ops(struct uffd_exchange *x)
{
	unsigned int i;
	int ret;

	if (!uffd_is_pointer(x->arg.ops))
		return -EFAULT;
	ret = uffd_read_user(x->ops, uffd_user_ops(x),
			     x->arg.nr_ops * sizeof(x->ops[0]));
	if (ret)
		return ret;
	for (i = 0; i < x->arg.nr_ops; i++)
		if (!uffd_op_known(x, &x->ops[i]))
			return -EINVAL;
	return uffd_probe_results(x);
}

/* Nearly always they can all be written at once.  Returns how many were. */
static unsigned int uffd_write_fast(const struct uffd_exchange *x)
{
	struct uffdio_op __user *user = uffd_user_ops(x);
	unsigned int i = 0;

	pagefault_disable();
	if (user_write_access_begin(user, x->done * sizeof(*user))) {
		for (; i < x->done; i++)
			unsafe_put_user(x->ops[i].result, &user[i].result, out);
out:
		user_write_access_end();
	}
	pagefault_enable();
	return i;
}

static int uffd_write_results(const struct uffd_exchange *x)
{
	unsigned int i;
	int ret;

	for (i = uffd_write_fast(x); i < x->done; i++) {
		ret = uffd_write_result(x, i);
		if (ret)
			return ret;
	}
	return 0;
}

/* Up to where are operations the same ioctl as the next one? */
static unsigned int uffd_ops_alike(const struct uffd_exchange *x)
{
	unsigned int end = x->done + 1;

	while (end < x->arg.nr_ops && x->ops[end].op == x->ops[x->done].op)
		end++;
	return end;
}

/* Returns true if the next one may be run. */
static bool uffd_judge_op(struct uffd_exchange *x, const struct uffdio_op *op)
{
	if (op->result > 0 && op->result == op->len)
		return true;
	if (op->result == -EAGAIN) {
		x->refused = true;
		return true;
	}
	x->failed = true;
	return x->arg.mode & UFFDIO_EXCHANGE_MODE_GO_ON;
}

static void uffd_run_ops(struct uffd_exchange *x)
{
	struct uffd_cursor *cursor = &x->cursor;
	unsigned int end = 0;
	bool go_on;

	do {
		if (x->done == end) {
			userfaultfd_cursor_release(cursor);
			end = uffd_ops_alike(x);
		}
		x->done += x->calls->resolve(x->ctx, &x->ops[x->done],
					     end - x->done, cursor,
					     x->file->f_flags & O_NONBLOCK);
		go_on = uffd_judge_op(x, &x->ops[x->done - 1]);
	} while (go_on && x->done < x->arg.nr_ops &&
		 !fatal_signal_pending(current));
	userfaultfd_cursor_release(cursor);
}

/* Wakes those whose faults have been resolved and who have not been woken. */
static void uffd_exchange_wake(struct uffd_exchange *x, bool leaving)
{
	struct userfaultfd_ctx *ctx = x->ctx;
	DEFINE_WAKE_Q(wake);
	unsigned int nr = 0;

	for (; x->woken < x->done; x->woken++) {
		const struct uffdio_op *op = &x->ops[x->woken];

		if (uffd_op_wakes(op))
			nr += uffd_index_release(&ctx->index, &ctx->queue,
						 op->dst,
						 op->dst + op->result - 1,
						 &wake);
	}
	if (!nr)
		return;
	if (leaving)
		uffd_wake_here(&wake);
	wake_up_q(&wake);
	/*
	 * If it is to run here, let it: the message that it brings spares this thread
	 * from going to sleep, and it from waking this thread.
	 */
	if (leaving)
		cond_resched();
}

static void uffd_cursor_wake(struct uffd_cursor *cursor)
{
	uffd_exchange_wake(container_of(cursor, struct uffd_exchange, cursor),
			   false);
}

/* If there is no message, is the first to be waited for? */
static bool uffd_exchange_waits(const struct uffd_exchange *x)
{
	return x->arg.nr_msgs && x->arg.deadline && !x->refused && !x->failed &&
	       !(x->file->f_flags & O_NONBLOCK);
}

/* Runs all that may be run, and tells what has come of it. */
static int uffd_exchange_ops(struct uffd_exchange *x,
			     struct uffdio_exchange __user *user)
{
	struct mm_struct *mm = x->ctx->mm;
	/* For as long as a VMA is locked; without it each operation fails. */
	bool alive = uffd_get_mm(mm);
	int ret;

	uffd_run_ops(x);
	if (alive)
		uffd_put_mm(mm);
	uffd_exchange_wake(x, uffd_exchange_waits(x) &&
			      !READ_ONCE(x->ctx->queue.readable));
	ret = uffd_write_results(x);
	return uffd_put_u32(&user->done, x->done) ?: ret;
}

/* With the operations in memory of the kernel's.  That is off the stack again soon. */
static noinline int uffd_exchange_resolve(struct uffd_exchange *x,
					  struct uffdio_exchange __user *user)
{
	struct uffdio_op few[UFFD_FEW_OPS] __uninitialized;
	int ret;

	if (x->arg.nr_ops <= UFFD_FEW_OPS)
		x->ops = few;
	else
		x->ops = kvmalloc_array(x->arg.nr_ops, sizeof(x->ops[0]),
					GFP_KERNEL_ACCOUNT);
	if (!x->ops)
		return -ENOMEM;
	ret = uffd_read_ops(x) ?: uffd_exchange_ops(x, user);
	if (x->ops != few)
		kvfree(x->ops);
	x->ops = NULL;
	return ret;
}

/*
 * The messages
 */

static int uffd_exchange_wait(struct uffd_exchange *x)
{
	ktime_t deadline = ns_to_ktime(x->arg.deadline);

	if (x->arg.deadline < 0)
		return uffd_queue_wait(&x->ctx->queue, NULL);
	deadline = timens_ktime_to_host(CLOCK_MONOTONIC, deadline);
	return uffd_queue_wait(&x->ctx->queue, &deadline);
}

/* Takes a batch to the caller's memory.  Returns bytes; 0 if there is no message. */
static noinline ssize_t uffd_exchange_take(struct uffd_exchange *x,
					   struct iov_iter *to)
{
	struct uffd_batch batch __uninitialized;	/* large; see ->nr */
	ssize_t ret;

	uffd_queue_take(&x->ctx->queue, &batch,
			min_t(size_t, iov_iter_count(to) / sizeof(batch.msg[0]),
			      UFFD_BATCH));
	if (!batch.nr)
		return 0;
	pagefault_disable();
	ret = x->calls->deliver(x->ctx, x->file, &batch, to);
	pagefault_enable();
	return ret;
}

/* Returns the number of messages, or -errno if there is none for that reason. */
static int uffd_exchange_messages(struct uffd_exchange *x)
{
	const size_t size = sizeof(struct uffd_msg);
	void __user *msgs = u64_to_user_ptr(x->arg.msgs);
	bool waits = uffd_exchange_waits(x);
	unsigned int tries = 0;
	struct iov_iter to;
	size_t done = 0;
	ssize_t ret;

	if (!uffd_is_pointer(x->arg.msgs))
		return -EFAULT;
	ret = import_ubuf(ITER_DEST, msgs, x->arg.nr_msgs * size, &to);
	while (!ret && iov_iter_count(&to)) {
		if (!READ_ONCE(x->ctx->queue.readable)) {
			if (done || !waits)
				break;
			/* Whatever comes later, there are no messages then. */
			if (uffd_exchange_wait(x))
				return 0;
		}
		ret = uffd_exchange_take(x, &to);
		if (ret > 0) {
			done += ret;
			tries = 0;
			ret = 0;
		} else if (ret == -EFAULT && tries++ < UFFD_MAX_TRIES &&
			   uffd_fault_in(msgs + done, size, true)) {
			ret = 0;
		}
	}
	/*
	 * Who has been refused, be it in the middle, has not been told to go on: not by
	 * this call.
	 */
	if (!done && !ret && !x->refused && !x->failed)
		uffd_queue_told(&x->ctx->queue);
	if (done)
		uffd_queue_pass_on(&x->ctx->queue);
	return done ? done / size : ret;
}

static int uffd_exchange_check(const struct uffdio_exchange *arg)
{
	if (arg->reserved || (arg->mode & ~UFFDIO_EXCHANGE_MODE_GO_ON) ||
	    arg->nr_ops > UFFDIO_EXCHANGE_MAX ||
	    arg->nr_msgs > UFFDIO_EXCHANGE_MAX)
		return -EINVAL;
	return 0;
}

/**
 * uffd_exchange_run() - resolve faults, then wait for the next messages
 * @ctx: a context that is initialized
 * @file: its file
 * @user: what to do
 * @calls: what does the work
 *
 * Context: process context, no locks held.  Sleeps.
 *
 * Return: how many messages there are, or -errno: see
 * Documentation/admin-guide/mm/userfaultfd.rst.
 */
int uffd_exchange_run(struct userfaultfd_ctx *ctx, struct file *file,
		      struct uffdio_exchange __user *user,
		      const struct uffd_exchange_calls *calls)
{
	struct uffd_exchange x = {
		.ctx = ctx,
		.file = file,
		.calls = calls,
		.cursor.wake = uffd_cursor_wake,
	};
	int ret;

	ret = uffd_read_user(&x.arg, user, offsetof(struct uffdio_exchange, done));
	/* Also to see, before anything is run, that it can be written. */
	ret = ret ?: uffd_put_u32(&user->done, 0);
	ret = ret ?: uffd_exchange_check(&x.arg);
	if (!ret && x.arg.nr_ops)
		ret = uffd_exchange_resolve(&x, user);
	if (!ret && x.arg.nr_msgs)
		ret = uffd_exchange_messages(&x);
	return ret;
}
