// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: threads that wait for their fault to be resolved.
 *
 * How it works
 * ------------
 * A thread that faults on registered memory parks: it enters a record, on its
 * stack, into an index by address, looks at the page table once more, queues a
 * message, drops the fault lock and sleeps.  Whoever resolves a range takes the
 * records of that range out of the index and wakes their threads.  It costs
 * O(log n + woken), and nobody is looked at whom the range does not concern.
 *
 * The index is cut into shards by address, so that faults in different places
 * do not meet on one lock.  A shard without sleepers is passed by with one
 * load.  No wake-up is lost in that, because
 *
 *	faulting thread			resolving thread
 *	---------------			----------------
 *	enter the index			set the PTE
 *	smp_mb()			smp_mb()
 *	read the PTE			read the shard's root
 *
 * at least one of the two sees what the other has written.
 *
 * The record belongs to the waker from the moment it is found in the index
 * until ->parked is cleared; from then on the sleeper may return and its stack
 * be anything.  So the waker first takes hold of the task, withdraws the message
 * and unlinks the record; then it clears ->parked; and only then it puts the task
 * on its wake_q.  That one comes last because the task may be on another waker's
 * wake_q already: then that wake-up, which may come any moment, is the only one,
 * and must find the thread free to go.
 *
 * A sleeper holds no reference to the context.  It touches it again only when
 * it finds itself parked still, within an RCU read-side section: release of
 * the file unparks everybody, and frees the context a grace period later.
 */

#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/topology.h>
#include <trace/events/userfaultfd.h>
#include "uffd.h"

/**
 * uffd_index_init() - make an empty index
 * @index: uninitialised memory
 */
void uffd_index_init(struct uffd_index *index)
{
	unsigned int i;

	for (i = 0; i < UFFD_SHARDS; i++) {
		spin_lock_init(&index->shard[i].lock);
		index->shard[i].sleepers = RB_ROOT;
	}
}

/* Hashed, as threads that walk equal parts of memory are equally far apart. */
static struct uffd_shard *uffd_shard(struct uffd_index *index,
				     unsigned long stripe)
{
	return &index->shard[hash_long(stripe, UFFD_SHARD_BITS)];
}

static struct uffd_shard *uffd_shard_of(struct uffd_index *index,
					unsigned long address)
{
	return uffd_shard(index, address >> UFFD_STRIPE_SHIFT);
}

static bool uffd_waiter_less(struct rb_node *a, const struct rb_node *b)
{
	return rb_entry(a, struct uffd_waiter, node)->address <
	       rb_entry(b, struct uffd_waiter, node)->address;
}

/* The first sleeper at or above @address.  The shard is locked. */
static struct uffd_waiter *uffd_shard_find(struct uffd_shard *shard,
					   unsigned long address)
{
	struct rb_node *node = shard->sleepers.rb_node;
	struct uffd_waiter *waiter, *found = NULL;

	while (node) {
		waiter = rb_entry(node, struct uffd_waiter, node);
		if (waiter->address < address) {
			node = node->rb_right;
		} else {
			found = waiter;
			node = node->rb_left;
		}
	}
	return found;
}

static struct uffd_waiter *uffd_waiter_next(struct uffd_waiter *waiter)
{
	struct rb_node *next = rb_next(&waiter->node);

	return next ? rb_entry(next, struct uffd_waiter, node) : NULL;
}

/**
 * uffd_index_park() - enter a thread into the index
 * @index: the index
 * @waiter: its record; @address and @task are set
 *
 * Context: the caller holds the fault lock: release of the file relies on
 * finding everybody who came before it took that lock.
 */
void uffd_index_park(struct uffd_index *index, struct uffd_waiter *waiter)
{
	struct uffd_shard *shard = uffd_shard_of(index, waiter->address);

	waiter->item.state = UFFD_ITEM_NEW;
	waiter->item.seq = 0;	/* the first one queued is 1 */
	waiter->parked = true;
	waiter->since = jiffies;
	spin_lock(&shard->lock);
	rb_add(&waiter->node, &shard->sleepers, uffd_waiter_less);
	spin_unlock(&shard->lock);
}

/*
 * Sees to it that nobody reads the message.  The shard is locked.  A fault holds
 * nothing back, so there is no reader to wake.
 */
static void uffd_waiter_withdraw(struct uffd_queue *queue,
				 struct uffd_waiter *waiter)
{
	spin_lock(&queue->lock);
	__uffd_queue_remove(queue, &waiter->item);
	spin_unlock(&queue->lock);
}

/**
 * uffd_index_unpark() - take a thread out of the index, if no waker has
 * @index: the index
 * @queue: where its message may be
 * @waiter: its record
 */
void uffd_index_unpark(struct uffd_index *index, struct uffd_queue *queue,
		       struct uffd_waiter *waiter)
{
	struct uffd_shard *shard = uffd_shard_of(index, waiter->address);

	spin_lock(&shard->lock);
	if (waiter->parked) {
		uffd_waiter_withdraw(queue, waiter);
		rb_erase(&waiter->node, &shard->sleepers);
		waiter->parked = false;
	}
	spin_unlock(&shard->lock);
}

/* Lets a sleeper go.  The shard is locked, the message out of the way. */
static void uffd_waiter_release(struct uffd_shard *shard,
				struct uffd_waiter *waiter,
				struct wake_q_head *wake)
{
	struct task_struct *task = get_task_struct(waiter->task);

	rb_erase(&waiter->node, &shard->sleepers);
	/* Paired with uffd_sleep(): after this the record is not ours. */
	smp_store_release(&waiter->parked, false);
	wake_q_add_safe(wake, task);
}

/*
 * Lets the sleepers of one shard go.  Only messages that no reader has taken need
 * the queue's lock.  The state is peeked at without it: to make it TAKEN was the
 * reader's last access to the record, and the one way back from there,
 * uffd_index_collect(), needs the shard's lock, which is held here.
 */
static unsigned int uffd_shard_release(struct uffd_shard *shard,
				       struct uffd_queue *queue,
				       unsigned long first, unsigned long last,
				       struct wake_q_head *wake)
{
	struct uffd_waiter *waiter, *next;
	unsigned int nr = 0;

	spin_lock(&shard->lock);
	for (waiter = uffd_shard_find(shard, first);
	     waiter && waiter->address <= last; waiter = next) {
		next = uffd_waiter_next(waiter);
		/* Paired with uffd_queue_take(). */
		if (smp_load_acquire(&waiter->item.state) != UFFD_ITEM_TAKEN)
			uffd_waiter_withdraw(queue, waiter);
		uffd_waiter_release(shard, waiter, wake);
		nr++;
	}
	spin_unlock(&shard->lock);
	return nr;
}

/*
 * Does nobody sleep in it?  Whoever enters or leaves it writes the root with plain
 * stores, under the lock; any value of a pointer will do, for all that counts is
 * whether it is one.  See above for what keeps the answer from coming too early.
 */
static bool uffd_shard_idle(const struct uffd_shard *shard)
{
	/* A race that is meant: see above. */
	return !data_race(READ_ONCE(shard->sleepers.rb_node));
}

/* Of more than one stripe, @first to @last. */
static noinline unsigned int
uffd_stripes_release(struct uffd_index *index, struct uffd_queue *queue,
		     unsigned long first, unsigned long last,
		     struct wake_q_head *wake)
{
	unsigned long stripe = first >> UFFD_STRIPE_SHIFT;
	unsigned long end = (last >> UFFD_STRIPE_SHIFT) + 1;
	struct uffd_shard *shard;
	unsigned int nr = 0;

	if (end - stripe >= UFFD_SHARDS) {
		for (shard = index->shard; shard < index->shard + UFFD_SHARDS;
		     shard++)
			if (!uffd_shard_idle(shard))
				nr += uffd_shard_release(shard, queue, first,
							 last, wake);
		return nr;
	}
	/* A shard that two stripes hash to is passed by the second time. */
	for (; stripe < end; stripe++) {
		shard = uffd_shard(index, stripe);
		if (!uffd_shard_idle(shard))
			nr += uffd_shard_release(shard, queue, first, last,
						 wake);
	}
	return nr;
}

/**
 * uffd_index_release() - let all go who sleep on an address in a range
 * @index: the index
 * @queue: where their messages may be
 * @first: lowest address
 * @last: highest address
 * @wake: gets their threads; to be woken soon, with no locks of ours held
 *
 * Messages not read yet are withdrawn: a fault that is resolved is not read.
 *
 * Context: the page tables have been changed already.  No locks of ours held.
 *
 * Return: how many there are.
 */
unsigned int uffd_index_release(struct uffd_index *index,
				struct uffd_queue *queue, unsigned long first,
				unsigned long last, struct wake_q_head *wake)
{
	struct uffd_shard *shard;

	/* Paired with the barrier in handle_userfault(), see above. */
	smp_mb();

	if (first >> UFFD_STRIPE_SHIFT != last >> UFFD_STRIPE_SHIFT)
		return uffd_stripes_release(index, queue, first, last, wake);
	shard = uffd_shard_of(index, first);
	if (uffd_shard_idle(shard))
		return 0;
	return uffd_shard_release(shard, queue, first, last, wake);
}

/**
 * uffd_index_wake() - wake all who sleep on an address in a range
 * @index: the index
 * @queue: where their messages may be
 * @first: lowest address
 * @last: highest address
 *
 * As uffd_index_release(), but they are woken at once.
 *
 * Return: how many threads have been woken.
 */
unsigned int uffd_index_wake(struct uffd_index *index,
			     struct uffd_queue *queue, unsigned long first,
			     unsigned long last)
{
	DEFINE_WAKE_Q(wake);
	unsigned int nr;

	nr = uffd_index_release(index, queue, first, last, &wake);
	if (nr)
		wake_up_q(&wake);
	return nr;
}

/**
 * uffd_wake_here() - wake a thread on this CPU, if that is a good place for it
 * @wake: threads, the first of which is the one; or none
 *
 * The caller is about to sleep.  The CPU is a good place if nobody else wants it, and
 * if its caches are those that the thread has used.
 *
 * It is not taken out of @wake: waking it once more does no harm.
 */
void uffd_wake_here(struct wake_q_head *wake)
{
	DECLARE_WAIT_QUEUE_HEAD_ONSTACK(alone);
	struct wait_queue_entry entry = {
		.func = default_wake_function,
	};
	struct task_struct *task;

	/* Whoever is being woken by others already is not in there. */
	if (wake_q_empty(wake))
		return;
	task = container_of(wake->first, struct task_struct, wake_q);
	if (!single_task_running() ||
	    !cpus_share_cache(task_cpu(task), raw_smp_processor_id()))
		return;
	entry.private = task;
	/* This is how code outside of the scheduler names the CPU. */
	__add_wait_queue(&alone, &entry);
	__wake_up_on_current_cpu(&alone, TASK_NORMAL, NULL);
}

/**
 * uffd_index_collect() - the message of a fault could not be delivered
 * @index: the index
 * @queue: the queue it was taken from
 * @address: as in the message
 * @seq: its place in the queue
 * @returning: messages on their way back; it becomes the last one, if its thread
 *	still sleeps
 *
 * To be followed by uffd_queue_putback().
 */
void uffd_index_collect(struct uffd_index *index, struct uffd_queue *queue,
			unsigned long address, unsigned long seq,
			struct list_head *returning)
{
	struct uffd_shard *shard = uffd_shard_of(index, address);
	struct uffd_waiter *waiter;

	spin_lock(&shard->lock);
	for (waiter = uffd_shard_find(shard, address);
	     waiter && waiter->address == address;
	     waiter = uffd_waiter_next(waiter)) {
		/* It was TAKEN by the caller, so it does not change. */
		if (READ_ONCE(waiter->item.state) != UFFD_ITEM_TAKEN ||
		    waiter->item.seq != seq)
			continue;
		spin_lock(&queue->lock);
		__uffd_queue_collect(queue, &waiter->item, returning);
		spin_unlock(&queue->lock);
		break;
	}
	spin_unlock(&shard->lock);
}

/* Those of one shard.  @age becomes that of the oldest, if it is older. */
static unsigned long uffd_shard_count(struct uffd_shard *shard,
				      unsigned long *age)
{
	struct uffd_waiter *waiter;
	unsigned long nr = 0;

	spin_lock(&shard->lock);
	for (waiter = uffd_shard_find(shard, 0); waiter;
	     waiter = uffd_waiter_next(waiter)) {
		*age = max(*age, jiffies - waiter->since);
		nr++;
	}
	spin_unlock(&shard->lock);
	return nr;
}

/**
 * uffd_index_count() - count the sleepers
 * @index: the index
 * @age: how long the first of them to come has slept, in jiffies; 0 if there is none
 *
 * Walks them all: for fdinfo.
 *
 * Return: how many threads sleep, whether their message has been read or not.
 */
unsigned long uffd_index_count(struct uffd_index *index, unsigned long *age)
{
	unsigned long nr = 0;
	unsigned int i;

	*age = 0;
	for (i = 0; i < UFFD_SHARDS; i++)
		nr += uffd_shard_count(&index->shard[i], age);
	return nr;
}

/**
 * userfaultfd_wake_range() - wake those who sleep on a range
 * @ctx: their context
 * @start: first byte
 * @len: bytes, not zero
 *
 * Context: may be called with mmap_lock and VMA locks held, of any mm.
 */
void userfaultfd_wake_range(struct userfaultfd_ctx *ctx, unsigned long start,
			    unsigned long len)
{
	uffd_index_wake(&ctx->index, &ctx->queue, start, start + len - 1);
}

static void uffd_fault_message(struct uffd_msg *msg,
			       const struct userfaultfd_ctx *ctx,
			       const struct vm_fault *vmf, unsigned long reason)
{
	__u64 flags = 0;

	if (vmf->flags & FAULT_FLAG_WRITE)
		flags |= UFFD_PAGEFAULT_FLAG_WRITE;
	if (reason == VM_UFFD_WP)
		flags |= UFFD_PAGEFAULT_FLAG_WP;
	else if (VM_UFFD_RWP && reason == VM_UFFD_RWP)
		flags |= UFFD_PAGEFAULT_FLAG_RWP;
	else if (reason == VM_UFFD_MINOR)
		flags |= UFFD_PAGEFAULT_FLAG_MINOR;

	/* All of it goes to userland: no byte may stay uninitialised. */
	memset(msg, 0, sizeof(*msg));
	msg->event = UFFD_EVENT_PAGEFAULT;
	msg->arg.pagefault.flags = flags;
	msg->arg.pagefault.address = uffd_has(ctx, UFFD_FEATURE_EXACT_ADDRESS) ?
				     vmf->real_address : vmf->address;
	if (uffd_has(ctx, UFFD_FEATURE_THREAD_ID))
		msg->arg.pagefault.feat.ptid = task_pid_vnr(current);
}

static unsigned int uffd_sleep_state(const struct vm_fault *vmf)
{
	if (vmf->flags & FAULT_FLAG_INTERRUPTIBLE)
		return TASK_INTERRUPTIBLE;
	return vmf->flags & FAULT_FLAG_KILLABLE ? TASK_KILLABLE :
						  TASK_UNINTERRUPTIBLE;
}

/*
 * Sleeps until a waker has cleared ->parked, or a signal comes.  Signals are
 * looked for after the CPU has been offered to others, not before: a kernel access
 * that is not allowed to act on a signal comes again at once, and with one CPU
 * the handler would never run.
 *
 * It has come again already if a signal is pending and the fault has been tried
 * before.  Then sleep for a moment all the same, in vain or not, instead of
 * spending a CPU on faults that end before they begin.
 */
static void uffd_sleep(struct uffd_waiter *waiter, const struct vm_fault *vmf,
		       unsigned int state)
{
	long left = MAX_SCHEDULE_TIMEOUT;

	if ((vmf->flags & FAULT_FLAG_TRIED) &&
	    signal_pending_state(state, current)) {
		state = TASK_KILLABLE;
		left = 1;
	}
	do {
		set_current_state(state);
		/* Paired with uffd_waiter_release(). */
		if (!smp_load_acquire(&waiter->parked))
			break;
		left = schedule_timeout(left);
	} while (left && !signal_pending_state(state, current));
	__set_current_state(TASK_RUNNING);
}

/*
 * The page ought to be there.  For user space, go back to the access, which will
 * tell; there is no need to take mmap_lock and walk the page tables to see it.
 * NOPAGE is for those callers who would look for a page, MAJOR has it counted as
 * the second walk would be.  The kernel's own accesses take that walk, as they
 * look for signals before it.
 */
static vm_fault_t uffd_woken(const struct vm_fault *vmf)
{
	vm_fault_t ret = VM_FAULT_COMPLETED | VM_FAULT_NOPAGE;

	if (!(vmf->flags & FAULT_FLAG_USER))
		return VM_FAULT_RETRY;
	return vmf->flags & FAULT_FLAG_VMA_LOCK ? ret : ret | VM_FAULT_MAJOR;
}

/*
 * What is to be told of a fault when it is over, if anybody wants to know: by then
 * the context may have gone.
 */
struct uffd_lapse {
	u64 since;		/* ns; 0 if nobody wants to know */
	unsigned long uffd;
};

/* Queues the message.  Returns how many readers there is work for. */
static __always_inline unsigned int uffd_tell(struct userfaultfd_ctx *ctx,
					      struct uffd_waiter *waiter,
					      struct uffd_lapse *lapse)
{
	trace_uffd_fault(ctx->id, &waiter->item.msg);
	lapse->since = 0;
	if (trace_uffd_resolve_enabled()) {
		lapse->since = ktime_get_ns();
		lapse->uffd = ctx->id;
	}
	return uffd_queue_add(&ctx->queue, &waiter->item);
}

static __always_inline void uffd_lapse_end(const struct uffd_lapse *lapse,
					   const struct uffd_msg *msg,
					   bool woken)
{
	if (trace_uffd_resolve_enabled() && lapse->since)
		trace_uffd_resolve(lapse->uffd, msg,
				   ktime_get_ns() - lapse->since, woken);
}

/* May this fault be told to a handler, as opposed to raise SIGBUS? */
static bool uffd_deliverable(const struct userfaultfd_ctx *ctx,
			     const struct vm_fault *vmf)
{
	if (uffd_has(ctx, UFFD_FEATURE_SIGBUS))
		return false;
	if ((ctx->flags & UFFD_USER_MODE_ONLY) &&
	    !(vmf->flags & FAULT_FLAG_USER))
		return false;
	/* The caller cannot go back and fault again, so it cannot wait. */
	return vmf->flags & FAULT_FLAG_ALLOW_RETRY;
}

/**
 * handle_userfault() - hand a fault to the handler and wait for it
 * @vmf: the fault, on registered memory
 * @reason: one of __VM_UFFD_FLAGS
 *
 * Context: called with the fault lock (the VMA's, or mmap_lock for reading) and
 * no page-table lock held.  Sleeps.
 *
 * Return: VM_FAULT_COMPLETED or VM_FAULT_RETRY, with the fault lock dropped, when
 * the handler has resolved the fault, a signal came, the page is there already or
 * the file is going away: the access is to be made again.  With
 * FAULT_FLAG_RETRY_NOWAIT, VM_FAULT_RETRY at once, with the lock held.
 * VM_FAULT_SIGBUS, with the lock held, when nobody can be asked.
 */
vm_fault_t handle_userfault(struct vm_fault *vmf, unsigned long reason)
{
	struct userfaultfd_ctx *ctx = vmf->vma->vm_userfaultfd_ctx.ctx;
	unsigned int state = uffd_sleep_state(vmf);
	struct uffd_waiter waiter __uninitialized;
	struct uffd_lapse lapse __uninitialized;
	unsigned int readers = 0;
	bool open, woken, leaving;

	/* A task that is being torn down or dumped has nobody to wait for. */
	if (current->flags & (PF_EXITING | PF_DUMPCORE))
		return VM_FAULT_SIGBUS;

	assert_fault_locked(vmf);
	if (!ctx || !uffd_deliverable(ctx, vmf))
		return VM_FAULT_SIGBUS;
	if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT)
		return VM_FAULT_RETRY;
	/*
	 * The file is being released, and release waits for our lock: let go of
	 * it, even for GUP, which would otherwise keep it and come again.  And
	 * of the CPU, or this thread comes again before release can run.
	 */
	if (READ_ONCE(ctx->released)) {
		release_fault_lock(vmf);
		cond_resched();
		return VM_FAULT_RETRY;
	}

	uffd_fault_message(&waiter.item.msg, ctx, vmf, reason);
	waiter.address = waiter.item.msg.arg.pagefault.address;
	waiter.task = current;
	uffd_index_park(&ctx->index, &waiter);
	/* Paired with the barrier in uffd_index_wake(), see above. */
	smp_mb();
	open = userfaultfd_fault_open(vmf, reason);
	if (open)
		readers = uffd_tell(ctx, &waiter, &lapse);

	/*
	 * From here on release of the file can go ahead.  RCU keeps the context
	 * while the readers are told.
	 */
	leaving = !signal_pending_state(state, current);
	rcu_read_lock();
	release_fault_lock(vmf);
	uffd_queue_announce(&ctx->queue, readers, leaving);
	rcu_read_unlock();

	if (open)
		uffd_sleep(&waiter, vmf, state);

	rcu_read_lock();
	/* Paired with uffd_waiter_release(): if not, no waker has the record. */
	woken = !smp_load_acquire(&waiter.parked);
	if (!woken)
		uffd_index_unpark(&ctx->index, &ctx->queue, &waiter);
	rcu_read_unlock();
	if (open)
		uffd_lapse_end(&lapse, &waiter.item.msg, woken);
	return woken ? uffd_woken(vmf) : VM_FAULT_RETRY;
}
