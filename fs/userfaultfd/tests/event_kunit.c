// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the events of userfaultfd, by the hooks that the memory management
 * calls: what one operation tells, what a failed one takes back, who owns an event
 * that nobody waits for, what is added to it, and how many there may be.
 */

#include <kunit/test.h>
#include <linux/slab.h>
#include "../uffd.h"

#define FIRST	0x100000UL
#define END	0x200000UL

struct event_fixture {
	struct userfaultfd_ctx ctx;
	struct vm_area_struct vma;
	struct uffd_batch batch;
	struct uffd_batch other;
};

static int event_test_init(struct kunit *test)
{
	struct event_fixture *f;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	uffd_ctx_init(&f->ctx);
	/* It is not on the heap, and must never be freed. */
	refcount_set(&f->ctx.refs, 1000);
	f->ctx.features = UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP;
	f->vma.vm_userfaultfd_ctx.ctx = &f->ctx;
	test->priv = f;
	return 0;
}

static unsigned int take(struct event_fixture *f)
{
	uffd_queue_take(&f->ctx.queue, &f->batch, UFFD_BATCH);
	return f->batch.nr;
}

static void deliver(struct event_fixture *f)
{
	unsigned int i;

	for (i = 0; i < f->batch.nr; i++)
		uffd_event_delivered(f->batch.item[i].event);
	f->batch.nr = 0;
}

static void expect_event(struct kunit *test, unsigned int at, unsigned int type)
{
	struct event_fixture *f = test->priv;

	KUNIT_ASSERT_LT(test, at, f->batch.nr);
	KUNIT_EXPECT_EQ(test, f->batch.msg[at].event, type);
}

/* One range with several mappings of one owner: one event. */
static void event_unmap_once(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	LIST_HEAD(events);

	KUNIT_ASSERT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	KUNIT_ASSERT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&events), 1);
	KUNIT_EXPECT_EQ(test, take(f), 0);
	userfaultfd_unmap_publish(&events, FIRST, END);
	KUNIT_ASSERT_EQ(test, take(f), 1);
	expect_event(test, 0, UFFD_EVENT_UNMAP);
	deliver(f);
	userfaultfd_unmap_complete(NULL, &events);
	KUNIT_EXPECT_TRUE(test, list_empty(&events));
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1000);
}

static void event_unmap_fails(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	LIST_HEAD(events);

	KUNIT_ASSERT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	userfaultfd_unmap_fail(&events, FIRST, END);
	KUNIT_EXPECT_TRUE(test, list_empty(&events));
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 0);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.nr, 0);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.held, 0);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1000);
}

/*
 * mremap() has made room at its destination, and fails to move: it unmaps the same
 * range again, which may fail in turn.  The first one has happened.
 */
static void event_unmap_twice(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	LIST_HEAD(events);

	KUNIT_ASSERT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	userfaultfd_unmap_publish(&events, FIRST, END);
	KUNIT_ASSERT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&events), 2);
	userfaultfd_unmap_fail(&events, FIRST, END);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&events), 1);
	KUNIT_ASSERT_EQ(test, take(f), 1);
	expect_event(test, 0, UFFD_EVENT_UNMAP);
	deliver(f);

	/* And if it does not fail both are told, in order. */
	KUNIT_ASSERT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	userfaultfd_unmap_publish(&events, FIRST, END);
	KUNIT_ASSERT_EQ(test, take(f), 1);
	deliver(f);
	userfaultfd_unmap_complete(NULL, &events);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1000);
}

/* A message of one that is not published holds back what comes after. */
static void event_remap_first(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	LIST_HEAD(events);

	mremap_userfaultfd_prep(&f->vma, &events);
	KUNIT_ASSERT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	userfaultfd_unmap_publish(&events, FIRST, END);
	KUNIT_EXPECT_EQ(test, take(f), 0);
	KUNIT_EXPECT_EQ(test, f->ctx.events.everywhere, 1);
	/* Nobody reads: the file is released, as for a thread that is killed. */
	uffd_events_release(&f->ctx);
	mremap_userfaultfd_complete(&events, FIRST, 2 * FIRST, END - FIRST);
	KUNIT_EXPECT_TRUE(test, list_empty(&events));
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 0);
	KUNIT_EXPECT_EQ(test, f->ctx.events.everywhere, 0);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1000);
}

static void event_bound(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	LIST_HEAD(events);

	KUNIT_EXPECT_TRUE(test, mremap_userfaultfd_may_move(&f->vma, 4));
	f->ctx.events.waited = UFFD_MAX_UNREAD - 3;
	KUNIT_EXPECT_TRUE(test, mremap_userfaultfd_may_move(&f->vma, 3));
	KUNIT_EXPECT_FALSE(test, mremap_userfaultfd_may_move(&f->vma, 4));
	f->ctx.events.waited = UFFD_MAX_UNREAD;
	KUNIT_EXPECT_FALSE(test, mremap_userfaultfd_may_move(&f->vma, 1));
	/* The old place may have to be told of, even if the move is not. */
	f->ctx.features &= ~UFFD_FEATURE_EVENT_REMAP;
	KUNIT_EXPECT_FALSE(test, mremap_userfaultfd_may_move(&f->vma, 1));
	f->ctx.features &= ~UFFD_FEATURE_EVENT_UNMAP;
	KUNIT_EXPECT_TRUE(test, mremap_userfaultfd_may_move(&f->vma, 1));
	f->ctx.features |= UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP;
	KUNIT_EXPECT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), -ENOMEM);
	KUNIT_EXPECT_TRUE(test, list_empty(&events));
	f->ctx.features |= UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_FORK;
	KUNIT_EXPECT_EQ(test, userfaultfd_remove(&f->vma, FIRST, END), -EAGAIN);
	KUNIT_EXPECT_EQ(test, dup_userfaultfd(&f->vma, &events), -ENOMEM);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.nr, 0);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1000);
}

static int unmap(struct event_fixture *f, struct list_head *events)
{
	int ret = userfaultfd_unmap_prep(&f->vma, FIRST, END, events);

	if (ret)
		return ret;
	userfaultfd_unmap_publish(events, FIRST, END);
	userfaultfd_unmap_complete(NULL, events);
	return 0;
}

/* The thread goes on, the event is the queue's: for a reader, or for release. */
static void event_nowait(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	LIST_HEAD(returning);
	LIST_HEAD(events);
	LIST_HEAD(moved);

	f->ctx.features |= UFFD_FEATURE_EVENT_NOWAIT;
	KUNIT_ASSERT_EQ(test, unmap(f, &events), 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&events));
	mremap_userfaultfd_prep(&f->vma, &moved);
	KUNIT_ASSERT_EQ(test, unmap(f, &events), 0);
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 3);
	KUNIT_EXPECT_EQ(test, f->ctx.events.waited, 0);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1003);
	mremap_userfaultfd_complete(&moved, FIRST, 2 * FIRST, END - FIRST);

	KUNIT_ASSERT_EQ(test, take(f), 3);
	expect_event(test, 0, UFFD_EVENT_UNMAP);
	expect_event(test, 1, UFFD_EVENT_REMAP);
	expect_event(test, 2, UFFD_EVENT_UNMAP);
	KUNIT_EXPECT_EQ(test, f->batch.msg[1].arg.remap.to, 2 * FIRST);
	/* One arrives, two come back. */
	uffd_event_delivered(f->batch.item[0].event);
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 2);
	uffd_event_collect(f->batch.item[1].event, &returning);
	uffd_event_collect(f->batch.item[2].event, &returning);
	uffd_queue_putback(&f->ctx.queue, &returning);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.carried, 0);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1002);

	uffd_events_release(&f->ctx);
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 0);
	KUNIT_EXPECT_EQ(test, f->ctx.events.everywhere, 0);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.nr, 0);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1000);
}

/* What has not happened is taken back all the same. */
static void event_nowait_fails(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	LIST_HEAD(events);

	f->ctx.features |= UFFD_FEATURE_EVENT_NOWAIT;
	KUNIT_ASSERT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	userfaultfd_unmap_fail(&events, FIRST, END);
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 0);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.nr, 0);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1000);
}

/* So many need not wait, so many more may, and that is all. */
static void event_nowait_bound(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	unsigned int i;
	LIST_HEAD(events);

	f->ctx.features |= UFFD_FEATURE_EVENT_NOWAIT;
	for (i = 0; i < UFFD_MAX_UNREAD; i++)
		KUNIT_ASSERT_EQ(test, unmap(f, &events), 0);
	KUNIT_EXPECT_EQ(test, f->ctx.events.waited, 0);
	KUNIT_ASSERT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	KUNIT_EXPECT_EQ(test, f->ctx.events.waited, 1);
	f->ctx.events.waited = UFFD_MAX_UNREAD;
	KUNIT_EXPECT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END + FIRST,
						     &events), -ENOMEM);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.nr, UFFD_MAX_UNREAD + 1);
	f->ctx.events.waited = 1;

	/* Nobody reads: the file is released. */
	uffd_events_release(&f->ctx);
	userfaultfd_unmap_complete(NULL, &events);
	KUNIT_EXPECT_EQ(test, f->ctx.events.waited, 0);
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 0);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1000);
}

/* As userfaultfd_remove() does, but for the memory. */
static void remove_range(struct event_fixture *f, struct uffd_event *event,
			 unsigned long start, unsigned long end)
{
	init_completion(&event->done);
	/* One that is never dropped: it is not on the heap. */
	refcount_set(&event->refs, 1000);
	event->ctx = &f->ctx;
	event->item.msg.event = UFFD_EVENT_REMOVE;
	event->item.msg.arg.remove.start = start;
	event->item.msg.arg.remove.end = end;
	spin_lock(&f->ctx.queue.lock);
	__uffd_event_admit(event);
	__uffd_queue_append(&f->ctx.queue, &event->item, UFFD_ITEM_HELD);
	__uffd_gate_close(event);
	spin_unlock(&f->ctx.queue.lock);
}

static void publish(struct event_fixture *f, struct uffd_event *event)
{
	spin_lock(&f->ctx.queue.lock);
	__uffd_queue_publish(&f->ctx.queue, &event->item);
	spin_unlock(&f->ctx.queue.lock);
}

static struct uffd_event *new_events(struct kunit *test, unsigned int nr)
{
	struct uffd_event *event;

	event = kunit_kcalloc(test, nr, sizeof(*event), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, event);
	return event;
}

static bool concerns(struct event_fixture *f, unsigned long start,
		     unsigned long end)
{
	struct uffd_gate gate;

	userfaultfd_gate_init(&gate, &f->ctx, start, end - start, true);
	return userfaultfd_gate_pass(&gate) == -EAGAIN;
}

/* Message and gate grow together, to whichever side. */
static void event_merge(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	struct uffd_event *event = new_events(test, 1);
	const unsigned long size = 0x1000;
	struct uffd_gate gate;

	f->ctx.features |= UFFD_FEATURE_EVENT_NOWAIT;
	KUNIT_EXPECT_FALSE(test, uffd_remove_merge(&f->ctx, FIRST, FIRST + size));
	remove_range(f, event, FIRST, FIRST + size);
	/* Not before it is published: whoever did that may be late. */
	KUNIT_EXPECT_FALSE(test, uffd_remove_merge(&f->ctx, FIRST + size,
						   FIRST + 2 * size));
	publish(f, event);
	userfaultfd_gate_init(&gate, &f->ctx, FIRST + size, size, true);
	KUNIT_EXPECT_EQ(test, userfaultfd_gate_pass(&gate), 0);
	KUNIT_EXPECT_FALSE(test, userfaultfd_gate_moved(&gate));

	KUNIT_EXPECT_TRUE(test, uffd_remove_merge(&f->ctx, FIRST + size,
						  FIRST + 2 * size));
	/* Also for a call that has passed. */
	KUNIT_EXPECT_TRUE(test, userfaultfd_gate_moved(&gate));
	KUNIT_EXPECT_TRUE(test, concerns(f, FIRST + size, FIRST + 2 * size));
	KUNIT_EXPECT_TRUE(test, uffd_remove_merge(&f->ctx, FIRST - size, FIRST));
	KUNIT_EXPECT_TRUE(test, concerns(f, FIRST - size, FIRST));
	/* What it has already, and what is not next to it. */
	KUNIT_EXPECT_TRUE(test, uffd_remove_merge(&f->ctx, FIRST, FIRST + size));
	KUNIT_EXPECT_FALSE(test, uffd_remove_merge(&f->ctx, FIRST + 3 * size,
						   FIRST + 4 * size));
	KUNIT_EXPECT_FALSE(test, uffd_remove_merge(&f->ctx, FIRST - 3 * size,
						   FIRST - 2 * size));
	KUNIT_EXPECT_FALSE(test, concerns(f, FIRST + 2 * size, END));
	KUNIT_EXPECT_FALSE(test, concerns(f, 0, FIRST - size));
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 1);

	KUNIT_ASSERT_EQ(test, take(f), 1);
	KUNIT_EXPECT_EQ(test, f->batch.msg[0].arg.remove.start, FIRST - size);
	KUNIT_EXPECT_EQ(test, f->batch.msg[0].arg.remove.end, FIRST + 2 * size);
	/* Once a reader has a copy it is too late. */
	KUNIT_EXPECT_FALSE(test, uffd_remove_merge(&f->ctx, FIRST + 2 * size,
						   FIRST + 3 * size));
	deliver(f);
	/* A call that began before is measured against all of it. */
	KUNIT_EXPECT_TRUE(test, userfaultfd_gate_moved(&gate));
	KUNIT_EXPECT_TRUE(test, RB_EMPTY_ROOT(&f->ctx.events.ranges.rb_root));
}

/* Whatever came in between keeps them apart, wherever it is by now. */
static void event_merge_newest(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	struct uffd_event *event = new_events(test, 2);
	const unsigned long size = 0x1000;
	struct uffd_item fault = {};
	LIST_HEAD(returning);
	LIST_HEAD(events);

	f->ctx.features |= UFFD_FEATURE_EVENT_NOWAIT;
	remove_range(f, &event[0], FIRST, FIRST + size);
	publish(f, &event[0]);
	fault.msg.event = UFFD_EVENT_PAGEFAULT;
	uffd_queue_add(&f->ctx.queue, &fault);
	KUNIT_EXPECT_FALSE(test, uffd_remove_merge(&f->ctx, FIRST, FIRST + size));
	spin_lock(&f->ctx.queue.lock);
	__uffd_queue_remove(&f->ctx.queue, &fault);
	spin_unlock(&f->ctx.queue.lock);

	/* Two readers; the one with the older message gives it back. */
	remove_range(f, &event[1], FIRST + size, FIRST + 2 * size);
	publish(f, &event[1]);
	uffd_queue_take(&f->ctx.queue, &f->batch, 1);
	uffd_queue_take(&f->ctx.queue, &f->other, 1);
	KUNIT_ASSERT_PTR_EQ(test, f->batch.item[0].event, &event[0]);
	KUNIT_ASSERT_PTR_EQ(test, f->other.item[0].event, &event[1]);
	uffd_event_collect(&event[0], &returning);
	uffd_queue_putback(&f->ctx.queue, &returning);
	KUNIT_EXPECT_FALSE(test, uffd_remove_merge(&f->ctx, FIRST, FIRST + size));
	/* But with the younger one, once that has come back too. */
	uffd_event_collect(&event[1], &returning);
	uffd_queue_putback(&f->ctx.queue, &returning);
	KUNIT_EXPECT_TRUE(test, uffd_remove_merge(&f->ctx, FIRST + 2 * size,
						  FIRST + 3 * size));
	KUNIT_EXPECT_EQ(test, event[1].item.msg.arg.remove.end, FIRST + 3 * size);

	/* An UNMAP of the same place is something else. */
	KUNIT_ASSERT_EQ(test, unmap(f, &events), 0);
	KUNIT_EXPECT_FALSE(test, uffd_remove_merge(&f->ctx, FIRST, FIRST + size));
	KUNIT_ASSERT_EQ(test, take(f), 3);
	deliver(f);
	KUNIT_EXPECT_EQ(test, f->ctx.events.nr_unread, 0);
}

/* What is left of a context: the features that VMAs are asked for, and no more. */
static void event_heir(struct kunit *test)
{
	const u64 kept[] = {
		UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_RWP_ASYNC,
		UFFD_FEATURE_WP_UNPOPULATED, UFFD_FEATURE_EVENT_FORK,
	};
	struct event_fixture *f = test->priv;
	const struct userfaultfd_ctx *heir, *other;
	unsigned int set, i;
	u64 features;

	f->ctx.features = ~UFFD_FEATURE_ORPHAN_SIGBUS;
	KUNIT_EXPECT_NULL(test, uffd_heir(&f->ctx));
	for (set = 0; set < 1 << ARRAY_SIZE(kept); set++) {
		features = 0;
		for (i = 0; i < ARRAY_SIZE(kept); i++)
			if (set & (1 << i))
				features |= kept[i];
		f->ctx.features = features | UFFD_FEATURE_ORPHAN_SIGBUS;
		heir = uffd_heir(&f->ctx);
		KUNIT_ASSERT_NOT_NULL(test, heir);
		KUNIT_EXPECT_TRUE(test, heir->orphan);
		KUNIT_EXPECT_NULL(test, heir->mm);
		KUNIT_EXPECT_EQ(test, heir->features,
				features | UFFD_FEATURE_SIGBUS |
				UFFD_FEATURE_EVENT_REMAP);
		/* All else makes no difference: such VMAs can be merged. */
		f->ctx.features |= UFFD_FEATURE_EVENT_REMOVE |
				   UFFD_FEATURE_THREAD_ID;
		other = uffd_heir(&f->ctx);
		KUNIT_EXPECT_PTR_EQ(test, other, heir);
	}
}

/* Nobody is told of what becomes of it, and it stays what it is. */
static void event_orphan(struct kunit *test)
{
	struct event_fixture *f = test->priv;
	struct userfaultfd_ctx *heir;
	LIST_HEAD(events);

	f->ctx.features = ~UFFD_FEATURE_EVENT_REMAP;
	heir = uffd_heir(&f->ctx);
	KUNIT_ASSERT_NOT_NULL(test, heir);
	f->vma.vm_userfaultfd_ctx.ctx = heir;
	KUNIT_EXPECT_TRUE(test, userfaultfd_orphaned(&f->vma));
	KUNIT_EXPECT_TRUE(test, mremap_userfaultfd_may_move(&f->vma, ~0U));
	KUNIT_EXPECT_FALSE(test, vma_has_uffd_without_event_remap(&f->vma));
	mremap_userfaultfd_prep(&f->vma, &events);
	KUNIT_EXPECT_EQ(test, dup_userfaultfd(&f->vma, &events), 0);
	KUNIT_EXPECT_EQ(test, userfaultfd_remove(&f->vma, FIRST, END), 0);
	KUNIT_EXPECT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&events));
	KUNIT_EXPECT_PTR_EQ(test, f->vma.vm_userfaultfd_ctx.ctx, heir);
}

static struct kunit_case event_cases[] = {
	KUNIT_CASE(event_unmap_once),
	KUNIT_CASE(event_unmap_fails),
	KUNIT_CASE(event_unmap_twice),
	KUNIT_CASE(event_remap_first),
	KUNIT_CASE(event_bound),
	KUNIT_CASE(event_nowait),
	KUNIT_CASE(event_nowait_fails),
	KUNIT_CASE(event_nowait_bound),
	KUNIT_CASE(event_merge),
	KUNIT_CASE(event_merge_newest),
	KUNIT_CASE(event_heir),
	KUNIT_CASE(event_orphan),
	{}
};

static struct kunit_suite event_suite = {
	.name = "userfaultfd_event",
	.init = event_test_init,
	.test_cases = event_cases,
};
kunit_test_suite(event_suite);
