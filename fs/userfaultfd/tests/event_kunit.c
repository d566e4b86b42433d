// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the events of userfaultfd, by the hooks that the memory management
 * calls: what one operation tells, what a failed one takes back, how many events
 * nobody waits for.
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
};

static int event_test_init(struct kunit *test)
{
	struct event_fixture *f;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	uffd_events_init(&f->ctx.events);
	uffd_queue_init(&f->ctx.queue);
	uffd_index_init(&f->ctx.index);
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

	KUNIT_EXPECT_TRUE(test, mremap_userfaultfd_may_move(&f->vma));
	f->ctx.events.abandoned = UFFD_MAX_ABANDONED;
	KUNIT_EXPECT_FALSE(test, mremap_userfaultfd_may_move(&f->vma));
	KUNIT_EXPECT_EQ(test, userfaultfd_unmap_prep(&f->vma, FIRST, END,
						     &events), -ENOMEM);
	KUNIT_EXPECT_TRUE(test, list_empty(&events));
	f->ctx.features |= UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_FORK;
	KUNIT_EXPECT_EQ(test, userfaultfd_remove(&f->vma, FIRST, END), -EAGAIN);
	KUNIT_EXPECT_EQ(test, dup_userfaultfd(&f->vma, &events), -ENOMEM);
	KUNIT_EXPECT_EQ(test, f->ctx.queue.nr, 0);
	KUNIT_EXPECT_EQ(test, refcount_read(&f->ctx.refs), 1000);
}

static struct kunit_case event_cases[] = {
	KUNIT_CASE(event_unmap_once),
	KUNIT_CASE(event_unmap_fails),
	KUNIT_CASE(event_unmap_twice),
	KUNIT_CASE(event_remap_first),
	KUNIT_CASE(event_bound),
	{}
};

static struct kunit_suite event_suite = {
	.name = "userfaultfd_event",
	.init = event_test_init,
	.test_cases = event_cases,
};
kunit_test_suite(event_suite);
