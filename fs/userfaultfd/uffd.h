/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fd half of userfaultfd: what its rooms share.  Each calls only those above
 * it, and fs/userfaultfd.c, the face, calls them all.
 *
 *	context.c	what a userfaultfd is made of
 *	orphan.c	what is left of one when its memory stays registered
 *	queue.c		messages, in one order, and the readers that wait for them
 *	log.c		first writes to protected pages, told without a wait
 *	wait.c		threads that sleep on a fault, found by address
 *	gate.c		what an event that has not been read refuses
 *	nowait.c	events that nobody waits for, and how many there may be
 *	event.c		changes of the address space, told to the handler
 *	exchange.c	resolving and waiting in one call
 *
 * Lock order: the fault lock or mmap_lock, a page-table lock, then a shard's lock,
 * then the queue's lock.  Both of ours are taken from process context only, and
 * nothing sleeps under them.  Neither nests with the locks of the wait queues for
 * readers and pollers: aio takes the latter with interrupts off.
 */

#ifndef _FS_USERFAULTFD_UFFD_H
#define _FS_USERFAULTFD_UFFD_H

#include <linux/cache.h>
#include <linux/completion.h>
#include <linux/list.h>
#include <linux/rbtree.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/sched/mm.h>
#include <linux/sched/wake_q.h>
#include <linux/spinlock.h>
#include <linux/stddef.h>
#include <linux/userfaultfd_k.h>
#include <linux/wait.h>

struct iov_iter;

/*
 * Messages: queue.c
 */

/* Where a message is on its way to a reader.  Guarded by the queue's lock. */
enum uffd_item_state {
	UFFD_ITEM_NEW,		/* not queued yet */
	UFFD_ITEM_HELD,		/* queued, but it and all behind it wait */
	UFFD_ITEM_READY,	/* queued */
	UFFD_ITEM_TAKEN,	/* a reader has a copy of it */
	UFFD_ITEM_RETURNING,	/* that reader could not deliver it */
	UFFD_ITEM_GONE,		/* nobody must read it any more */
};

/**
 * struct uffd_item - a message's place in the queue
 * @link: in uffd_queue.items while HELD or READY; in a reader's list, guarded by
 *	the queue's lock all the same, while RETURNING
 * @seq: its place in the order of all messages of the context
 * @state: see enum uffd_item_state; a waker peeks at it unlocked
 * @msg: what read() returns
 */
struct uffd_item {
	struct list_head link;
	unsigned long seq;
	enum uffd_item_state state;
	struct uffd_msg msg;
};

/* In uffd_queue.refused: more threads than one. */
#define UFFD_SEVERAL	((pid_t)-1)

/**
 * struct uffd_queue - messages in the order of their causes, and who waits
 * @lock: guards all but the wait queues, which have locks of their own
 * @readable: the first item is READY; readers and poll() look at it with no lock
 * @refused: the thread whose call, one that does not wait, was refused for an event
 *	that is unread; UFFD_SEVERAL if there are more; 0 if none, or if it has taken
 *	an event since
 * @resume: such a call may be tried again; poll() looks at it with no lock, and the
 *	next reader that finds nothing clears it
 * @held: how many of @items are HELD
 * @carried: how many events are TAKEN and not delivered yet
 * @nr: length of @items
 * @faults: how many of @items are faults, for fdinfo
 * @writes: how many of @items are WRITEs; poll() looks at it and @nr with no lock
 * @watermark: so many WRITEs are worth a wake-up; 0 if there is no log
 * @seq: of the newest message
 * @taken: when a reader last took something, in jiffies; 0 at first
 * @items: messages that no reader has taken, oldest first
 * @readers: readers with nothing to read, the last to come first
 * @pollers: poll(), epoll, aio and io_uring
 *
 * The lock has a cache line of its own: those who spin on it do not take from its
 * holder what it guards, which is one more line.
 */
struct uffd_queue {
	spinlock_t lock ____cacheline_aligned_in_smp;

	bool readable ____cacheline_aligned_in_smp;
	bool resume;
	pid_t refused;
	unsigned int held;
	unsigned int carried;
	unsigned int nr;
	unsigned int writes;
	unsigned int watermark;
	unsigned int faults;
	unsigned long seq;
	unsigned long taken;
	struct list_head items;

	wait_queue_head_t readers ____cacheline_aligned_in_smp;
	wait_queue_head_t pollers;
};

/* Messages taken, and copied to userland, at a time. */
#define UFFD_BATCH	16

/**
 * struct uffd_batch - messages on their way to a reader's memory
 * @nr: how many
 * @msg: copies, since a sleeper may wake and take the original with it
 * @item: what is needed to give back those that could not be delivered
 * @item.seq: its place
 * @item.event: the event, or NULL if it is a fault
 * @item.write: instead of it the message of the log, if it is one of that
 */
struct uffd_batch {
	unsigned int nr;
	struct uffd_msg msg[UFFD_BATCH];
	struct {
		unsigned long seq;
		union {
			struct uffd_event *event;
			struct uffd_item *write;
		};
	} item[UFFD_BATCH];
};

void uffd_queue_init(struct uffd_queue *q);
unsigned int uffd_queue_add(struct uffd_queue *q, struct uffd_item *item);
unsigned int __uffd_queue_append(struct uffd_queue *q, struct uffd_item *item,
				 enum uffd_item_state state);
unsigned int __uffd_queue_publish(struct uffd_queue *q, struct uffd_item *item);
unsigned int __uffd_queue_remove(struct uffd_queue *q, struct uffd_item *item);
struct uffd_item *__uffd_queue_newest(struct uffd_queue *q, u8 type,
				      unsigned long start, unsigned long end);
void __uffd_queue_collect(struct uffd_queue *q, struct uffd_item *item,
			  struct list_head *returning);
unsigned int uffd_queue_putback(struct uffd_queue *q,
				struct list_head *returning);
void uffd_queue_take(struct uffd_queue *q, struct uffd_batch *batch,
		     unsigned int max);
void uffd_queue_told(struct uffd_queue *q);
int uffd_queue_wait(struct uffd_queue *q, ktime_t *deadline);
void uffd_queue_announce(struct uffd_queue *q, unsigned int nr, bool leaving);
void __uffd_queue_refuse(struct uffd_queue *q);
bool __uffd_queue_go_on(struct uffd_queue *q);
void uffd_queue_nudge(struct uffd_queue *q);

/**
 * uffd_item_linked() - can the message still be taken back?
 * @item: a message; the queue is locked
 *
 * Return: true if it is in the queue, or on its way back there.
 */
static inline bool uffd_item_linked(const struct uffd_item *item)
{
	return item->state == UFFD_ITEM_HELD ||
	       item->state == UFFD_ITEM_READY ||
	       item->state == UFFD_ITEM_RETURNING;
}

/**
 * uffd_item_is_fault() - is this the message of a fault, or of an event?
 * @item: a message
 *
 * Return: true if it is a fault's.
 */
static inline bool uffd_item_is_fault(const struct uffd_item *item)
{
	return item->msg.event == UFFD_EVENT_PAGEFAULT;
}

/**
 * uffd_msg_is_logged() - is this a message of the write log?
 * @msg: a message
 *
 * Return: true if it is.
 */
static inline bool uffd_msg_is_logged(const struct uffd_msg *msg)
{
	return msg->event == UFFD_EVENT_WRITE ||
	       msg->event == UFFD_EVENT_WRITE_LOST;
}

/**
 * uffd_item_is_logged() - is this a message of the write log?
 * @item: a message
 *
 * Return: true if it is.
 */
static inline bool uffd_item_is_logged(const struct uffd_item *item)
{
	return uffd_msg_is_logged(&item->msg);
}

/**
 * uffd_item_is_event() - is this the message of an event?
 * @item: a message
 *
 * Return: true if it is.
 */
static inline bool uffd_item_is_event(const struct uffd_item *item)
{
	return !uffd_item_is_fault(item) && !uffd_item_is_logged(item);
}

/**
 * uffd_queue_due() - is there something worth a wake-up?
 * @q: the queue; if it is not locked, whoever is to be woken is in its wait queue
 *
 * Who looks with no lock may see counts that do not belong together; but then the
 * one who changes them sees that somebody waits, and wakes it.
 *
 * Return: true if there is, and a reader may take it.
 */
static inline bool uffd_queue_due(const struct uffd_queue *q)
{
	unsigned int writes = READ_ONCE(q->writes);

	return READ_ONCE(q->readable) &&
	       /* A race that is meant: see above. */
	       (!writes || data_race(q->nr) > writes ||
		writes >= READ_ONCE(q->watermark));
}

/**
 * uffd_queue_pass_on() - a reader leaves, with messages
 * @q: the queue
 *
 * One message has woken it.  It may have read nothing but WRITEs before that, which had
 * not woken anybody, and had no room for the rest.
 */
static inline void uffd_queue_pass_on(struct uffd_queue *q)
{
	if (READ_ONCE(q->watermark) && uffd_queue_due(q))
		uffd_queue_announce(q, 1, false);
}

/*
 * Sleepers: wait.c
 */

/* Addresses are spread over shards by stripes of this size, as a power of 2. */
#define UFFD_STRIPE_SHIFT	21
#define UFFD_SHARD_BITS		6
#define UFFD_SHARDS		(1U << UFFD_SHARD_BITS)

/**
 * struct uffd_waiter - a thread that waits for its fault to be resolved
 * @node: in the shard of @address, ordered by address; shard's lock
 * @address: as in the message: that is what a wake-up is matched against
 * @parked: it is in the shard.  Cleared, with release, by the waker as the last
 *	thing it does with this record, which is on the sleeper's stack; the
 *	task is woken after that
 * @since: when it was entered, in jiffies
 * @task: the sleeper
 * @item: its message
 */
struct uffd_waiter {
	struct rb_node node;
	unsigned long address;
	bool parked;
	unsigned long since;
	struct task_struct *task;
	struct uffd_item item;
};

/**
 * struct uffd_shard - the sleepers of those stripes that hash to it
 * @lock: guards @sleepers and the link of each record in it
 * @sleepers: struct uffd_waiter by address; wakers peek at the root unlocked
 */
struct uffd_shard {
	spinlock_t lock;
	struct rb_root sleepers;
} ____cacheline_aligned_in_smp;

struct uffd_index {
	struct uffd_shard shard[UFFD_SHARDS];
};

void uffd_index_init(struct uffd_index *index);
void uffd_index_park(struct uffd_index *index, struct uffd_waiter *waiter);
void uffd_index_unpark(struct uffd_index *index, struct uffd_queue *queue,
		       struct uffd_waiter *waiter);
unsigned int uffd_index_release(struct uffd_index *index,
				struct uffd_queue *queue, unsigned long first,
				unsigned long last, struct wake_q_head *wake);
unsigned int uffd_index_wake(struct uffd_index *index,
			     struct uffd_queue *queue, unsigned long first,
			     unsigned long last);
void uffd_wake_here(struct wake_q_head *wake);
void uffd_index_collect(struct uffd_index *index, struct uffd_queue *queue,
			unsigned long address, unsigned long seq,
			struct list_head *returning);
unsigned long uffd_index_count(struct uffd_index *index, unsigned long *age);

/*
 * The write log: log.c
 */

/* As it is to begin with, and at most. */
#define UFFD_LOG_SIZE		4096
#define UFFD_LOG_WATERMARK	64
#define UFFD_LOG_MAX		65536

int uffd_log_init(struct userfaultfd_ctx *ctx);
int uffd_log_inherit(struct userfaultfd_ctx *ctx,
		     struct userfaultfd_ctx *parent);
void uffd_log_free(struct userfaultfd_ctx *ctx);
int uffd_log_set(struct userfaultfd_ctx *ctx, u64 *size, u64 *watermark);
void uffd_log_delivered(struct userfaultfd_ctx *ctx,
			const struct uffd_batch *batch, unsigned int nr);
void uffd_log_collect(struct userfaultfd_ctx *ctx, struct uffd_item *item,
		      struct list_head *returning);

/*
 * Events and the gate: gate.c, nowait.c, event.c
 */

/* Events read lately that a call in flight is still measured against. */
#define UFFD_HISTORY	16

/*
 * Of unread events that nobody waits for, and again of those whose threads wait or
 * were killed while they did: see nowait.c.
 */
#define UFFD_MAX_UNREAD	4096

/**
 * struct uffd_events - what fills are measured against
 * @generation: number of the newest event; fills read it with no lock
 * @nr_unread: events that have not reached a reader's memory; fills read it with
 *	no lock
 * @everywhere: how many of them concern every call
 * @ranges: the others, by range
 * @waited: how many of them some thread waits for, or did when it was killed; FORKs
 *	do not count.  Read with no lock
 * @delivered: how many have reached a reader's memory, ever; fills read it with no
 *	lock
 * @gate: fills that wait for a held event to be published
 * @history: those delivered last; number n is in slot n modulo UFFD_HISTORY
 *
 * All of it is guarded by the queue's lock, and written only when there is an
 * event, so that it stays shared in the caches of those who only fill.
 */
struct uffd_events {
	unsigned long generation;
	unsigned int nr_unread;
	unsigned int everywhere;
	unsigned int waited;
	unsigned long delivered;
	struct rb_root_cached ranges;
	wait_queue_head_t gate;
	struct uffd_msg history[UFFD_HISTORY];
};

/**
 * struct uffd_event - a change of the address space, told to the handler
 * @item: its message
 * @refs: one of the thread that caused it, one of the queue until it is
 *	delivered or withdrawn
 * @ctx: the context it is told to; a reference
 * @child: of a FORK, the context of the child's mm; a reference, handed over
 *	to the child's file when the event is delivered
 * @node: in uffd_events.ranges, if it has a range, while @unread; queue's lock
 * @subtree_last: of the interval tree
 * @batch: in the list that the hooks pass from prepare to complete
 * @done: delivered, or never going to be
 * @unread: not delivered yet, and going to be; queue's lock
 * @withdrawn: its change has not happened, but a reader had it; queue's lock
 * @nowait: its thread does not wait for it; set before it is queued
 * @counted: it is one of uffd_events.waited; set before it is queued
 * @unmapped: of an UNMAP: its range has no VMAs any more; of that thread
 */
struct uffd_event {
	struct uffd_item item;
	refcount_t refs;
	struct userfaultfd_ctx *ctx;
	struct userfaultfd_ctx *child;
	struct rb_node node;
	unsigned long subtree_last;
	struct list_head batch;
	struct completion done;
	bool unread;
	bool withdrawn;
	bool nowait;
	bool counted;
	bool unmapped;
};

void uffd_events_init(struct uffd_events *events);
void __uffd_gate_close(struct uffd_event *event);
void __uffd_gate_widen(struct uffd_event *event, unsigned long start,
		       unsigned long end);
void __uffd_gate_open(struct uffd_event *event, bool delivered);
bool uffd_gate_any_unread(const struct userfaultfd_ctx *ctx);

bool uffd_events_full(const struct userfaultfd_ctx *ctx, unsigned int room);
bool __uffd_event_admit(struct uffd_event *event);
bool uffd_remove_merge(struct userfaultfd_ctx *ctx, unsigned long start,
		       unsigned long end);

void uffd_events_release(struct userfaultfd_ctx *ctx);
void uffd_event_delivered(struct uffd_event *event);
void uffd_event_collect(struct uffd_event *event, struct list_head *returning);

/**
 * uffd_event_is_fork() - is it a FORK?
 * @event: an event
 *
 * Return: true if it is.
 */
static inline bool uffd_event_is_fork(const struct uffd_event *event)
{
	return event->item.msg.event == UFFD_EVENT_FORK;
}

/*
 * The context: context.c
 */

/**
 * struct userfaultfd_ctx - a userfaultfd
 * @mm: whose memory it serves; a reference that keeps the struct (mmgrab())
 * @id: inode number of the file, for traces; 0 as long as a child has none
 * @refs: one of the file, one of each event that is under way
 * @flags: of userfaultfd(2)
 * @initialized: UFFDIO_API has succeeded, @features are there
 * @features: UFFD_FEATURE_*, valid once @initialized.  UFFDIO_SET_MODE changes some,
 *	with mmap_lock and the locks of all VMAs of the context held for writing
 * @released: the file is going away: no fault parks any more
 * @log: with UFFD_FEATURE_WP_LOG, its messages; set before @initialized, and
 *	replaced under the queue's lock
 * @orphan: it is nobody's, and has nothing but @head; see orphan.c.  Never changes
 * @rcu: sleepers and fault paths touch the context without a reference
 * @head: all of the above: what an orphan has
 * @events: what has changed
 * @queue: what to read
 * @index: who sleeps
 *
 * The parts that different threads write do not share cache lines.
 */
struct userfaultfd_ctx {
	struct_group_tagged(uffd_ctx_head, head,
		struct mm_struct *mm;
		unsigned long id;
		refcount_t refs;
		unsigned int flags;
		bool initialized;
		bool released;
		bool orphan;
		u64 features;
		struct uffd_log *log;
		struct rcu_head rcu;
	);

	struct uffd_events events ____cacheline_aligned_in_smp;
	struct uffd_queue queue ____cacheline_aligned_in_smp;
	struct uffd_index index;
};

void uffd_ctx_init(struct userfaultfd_ctx *ctx);
struct userfaultfd_ctx *uffd_ctx_alloc(struct mm_struct *mm,
				       unsigned int flags, u64 features);
void uffd_ctx_get(struct userfaultfd_ctx *ctx);
void uffd_ctx_put(struct userfaultfd_ctx *ctx);
void uffd_ctx_init_cache(void);

/**
 * uffd_has() - was this feature asked for?
 * @ctx: a context that is initialized: every registered VMA's is
 * @feature: UFFD_FEATURE_*
 *
 * Return: true if it was.
 */
static inline bool uffd_has(const struct userfaultfd_ctx *ctx, u64 feature)
{
	/* UFFDIO_SET_MODE may be changing one. */
	return READ_ONCE(ctx->features) & feature;
}

/*
 * Memory that is registered with nobody: orphan.c
 */

struct userfaultfd_ctx *uffd_heir(const struct userfaultfd_ctx *ctx);
void uffd_init_orphans(void);

/*
 * Calls on the memory of a context.
 */

/**
 * uffd_get_mm() - keep an mm in use
 * @mm: of a context
 *
 * The caller's own is in use anyway: that spares two writes all would share.
 *
 * Return: false if it has gone.
 */
static inline bool uffd_get_mm(struct mm_struct *mm)
{
	return mm == current->mm || mmget_not_zero(mm);
}

/**
 * uffd_put_mm() - undo uffd_get_mm()
 * @mm: of a context
 */
static inline void uffd_put_mm(struct mm_struct *mm)
{
	if (mm != current->mm)
		mmput(mm);
}

/**
 * uffd_op_wakes() - is anybody to be woken for an operation?
 * @op: an operation that has been run
 *
 * Return: true if the threads are that sleep in what it has done.
 */
static inline bool uffd_op_wakes(const struct uffdio_op *op)
{
	switch (op->op) {
	case _UFFDIO_WAKE:
		return op->result > 0;
	case _UFFDIO_WRITEPROTECT:
	case _UFFDIO_RWPROTECT:
		/* Protecting resolves nothing. */
		return op->result > 0 &&
		       !(op->mode & (UFFDIO_WRITEPROTECT_MODE_WP |
				     UFFDIO_WRITEPROTECT_MODE_DONTWAKE));
	default:
		/* It is the same bit for all. */
		return op->result > 0 &&
		       !(op->mode & UFFDIO_COPY_MODE_DONTWAKE);
	}
}

/*
 * UFFDIO_EXCHANGE: exchange.c
 */

/**
 * struct uffd_exchange_calls - what it takes from the face
 * @known: mask of 1 << uffdio_op.op
 * @resolve: run @nr operations that are alike, at least the first: up to one that is
 *	not whole.  Returns how many have been run, and have a result
 * @deliver: bring a batch to a reader's memory.  Returns how many bytes have arrived, or
 *	-errno; what has not arrived has been given back
 */
struct uffd_exchange_calls {
	u64 known;
	unsigned int (*resolve)(struct userfaultfd_ctx *ctx,
				struct uffdio_op *op, unsigned int nr,
				struct uffd_cursor *cursor, bool nowait);
	ssize_t (*deliver)(struct userfaultfd_ctx *ctx, struct file *file,
			   struct uffd_batch *batch, struct iov_iter *to);
};

int uffd_exchange_run(struct userfaultfd_ctx *ctx, struct file *file,
		      struct uffdio_exchange __user *user,
		      const struct uffd_exchange_calls *calls);

#endif /* _FS_USERFAULTFD_UFFD_H */
