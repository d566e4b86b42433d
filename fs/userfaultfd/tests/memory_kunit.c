// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for userfaultfd where it meets memory: when a fault sleeps and when
 * it must not, and that a call in flight maps nothing behind an event.
 *
 * Each test has an mm of its own.  Faults and calls are made by kernel threads, at
 * moments that no program can choose.
 */

#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include "../uffd.h"

static unsigned long sleepers(struct uffd_index *index)
{
	unsigned long age;

	return uffd_index_count(index, &age);
}

#define NR_PAGES	8
#define LEN		(NR_PAGES * PAGE_SIZE)
#define PATIENCE	1000

struct memory_fixture {
	struct userfaultfd_ctx ctx;
	struct uffd_event event;
	struct uffd_batch batch;
	unsigned long addr;		/* registered */
	unsigned long src;		/* not, and its pages are there */
};

static unsigned long map(struct kunit *test, unsigned long flags)
{
	unsigned long addr;

	addr = kunit_vm_mmap(test, NULL, 0, LEN, PROT_READ | PROT_WRITE,
			     flags | MAP_ANONYMOUS, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(addr));
	return addr;
}

/* Memory of this kind, private or shared, registered for missing pages. */
static struct memory_fixture *new_memory(struct kunit *test,
					 unsigned long flags)
{
	struct memory_fixture *f = test->priv;
	bool hugetlb = false;

	f->addr = map(test, flags);
	f->src = map(test, MAP_PRIVATE | MAP_POPULATE);
	f->ctx.mm = current->mm;
	KUNIT_ASSERT_EQ(test, 0,
			userfaultfd_register_range(&f->ctx, current->mm,
						   f->addr, f->addr + LEN,
						   VM_UFFD_MISSING, false,
						   &hugetlb));
	return f;
}

static int memory_test_init(struct kunit *test)
{
	struct memory_fixture *f;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	refcount_set(&f->ctx.refs, 1000);
	f->ctx.initialized = true;
	uffd_ctx_init(&f->ctx);
	f->event.ctx = &f->ctx;
	init_completion(&f->event.done);
	test->priv = f;
	return 0;
}

static void a_moment(void)
{
	usleep_range(1000, 2000);
}

static unsigned int nr_messages(struct memory_fixture *f)
{
	uffd_queue_take(&f->ctx.queue, &f->batch, UFFD_BATCH);
	return f->batch.nr;
}

/* Faults */

struct faulter {
	struct vm_fault vmf;
	vm_fault_t ret;
	bool returned;
};

static int fault_fn(void *arg)
{
	struct faulter *faulter = arg;

	mmap_read_lock(faulter->vmf.vma->vm_mm);
	faulter->ret = handle_userfault(&faulter->vmf, VM_UFFD_MISSING);
	if (!(faulter->ret & VM_FAULT_RETRY))
		mmap_read_unlock(faulter->vmf.vma->vm_mm);
	/* Paired with has_returned(). */
	smp_store_release(&faulter->returned, true);
	return 0;
}

static bool has_returned(const bool *returned)
{
	/* What the thread has to say is there, too. */
	return smp_load_acquire(returned);
}

static bool returns(const bool *returned)
{
	unsigned int patience = PATIENCE;

	while (!has_returned(returned) && --patience)
		a_moment();
	return patience;
}

static struct vm_area_struct *vma_of(unsigned long addr)
{
	struct vm_area_struct *vma;

	mmap_read_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	mmap_read_unlock(current->mm);
	return vma;
}

/*
 * A thread that has found a page missing, and has not told anybody yet.  What
 * becomes of the page, or the file, before it does so is up to the test.
 */
static void start_fault(struct kunit *test, struct faulter *faulter,
			unsigned int page)
{
	struct memory_fixture *f = test->priv;
	unsigned long addr = f->addr + page * PAGE_SIZE;
	struct faulter init = {
		.vmf = {
			.vma = vma_of(addr),
			.address = addr,
			.real_address = addr,
			.flags = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE,
		},
	};
	struct task_struct *task;

	KUNIT_ASSERT_NOT_NULL(test, init.vmf.vma);
	memcpy(faulter, &init, sizeof(init));
	task = kthread_run(fault_fn, faulter, "uffd-fault");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
}

static void expect_no_sleep(struct kunit *test, struct faulter *faulter,
			    vm_fault_t ret)
{
	struct memory_fixture *f = test->priv;
	bool returned = returns(&faulter->returned);

	KUNIT_EXPECT_TRUE(test, returned);
	KUNIT_EXPECT_EQ(test, nr_messages(f), 0);
	KUNIT_EXPECT_EQ(test, sleepers(&f->ctx.index), 0);
	/* For the next test: it has our memory. */
	while (!has_returned(&faulter->returned)) {
		userfaultfd_wake_range(&f->ctx, f->addr, LEN);
		a_moment();
	}
	KUNIT_EXPECT_TRUE(test, faulter->ret == ret);
	/* It has let go of the lock. */
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&current->mm->mmap_lock));
}

static ssize_t zero(struct memory_fixture *f, unsigned int page)
{
	struct uffd_fill_request req = {
		.ctx = &f->ctx,
		.mm = f->ctx.mm,
		.op = UFFD_FILL_ZEROPAGE,
		.dst = f->addr + page * PAGE_SIZE,
		.len = PAGE_SIZE,
	};

	return userfaultfd_fill(&req);
}

static void memory_missing(struct kunit *test)
{
	struct memory_fixture *f = new_memory(test, MAP_PRIVATE);
	unsigned int patience = PATIENCE;
	struct faulter faulter;

	start_fault(test, &faulter, 3);
	while (!sleepers(&f->ctx.index) && --patience)
		a_moment();
	KUNIT_EXPECT_NE(test, patience, 0);
	msleep(20);
	KUNIT_EXPECT_FALSE(test, has_returned(&faulter.returned));
	KUNIT_EXPECT_EQ(test, nr_messages(f), 1);
	/* A wake-up that does not concern it. */
	userfaultfd_wake_range(&f->ctx, f->addr, 3 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, sleepers(&f->ctx.index), 1);
	userfaultfd_wake_range(&f->ctx, f->addr + 3 * PAGE_SIZE, PAGE_SIZE);
	expect_no_sleep(test, &faulter, VM_FAULT_RETRY);
}

/* The page has been filled, and who waits been woken, before this one parks. */
static void memory_present(struct kunit *test)
{
	struct memory_fixture *f = new_memory(test, MAP_PRIVATE);
	struct faulter faulter;

	KUNIT_ASSERT_EQ(test, zero(f, 3), PAGE_SIZE);
	start_fault(test, &faulter, 3);
	expect_no_sleep(test, &faulter, VM_FAULT_RETRY);
}

/* The file is going away: nobody is going to read of it. */
static void memory_released(struct kunit *test)
{
	struct memory_fixture *f = new_memory(test, MAP_PRIVATE);
	struct faulter faulter;

	WRITE_ONCE(f->ctx.released, true);
	start_fault(test, &faulter, 3);
	expect_no_sleep(test, &faulter, VM_FAULT_RETRY);
}

/* The file has gone, and has left the memory registered with nobody. */
static void memory_orphaned(struct kunit *test)
{
	struct memory_fixture *f = new_memory(test, MAP_PRIVATE);
	struct faulter faulter;

	f->ctx.features = UFFD_FEATURE_ORPHAN_SIGBUS;
	KUNIT_ASSERT_FALSE(test, userfaultfd_orphaned(vma_of(f->addr)));
	userfaultfd_release_mm(&f->ctx, uffd_heir(&f->ctx), current->mm);
	KUNIT_ASSERT_TRUE(test, userfaultfd_orphaned(vma_of(f->addr)));
	start_fault(test, &faulter, 3);
	expect_no_sleep(test, &faulter, VM_FAULT_SIGBUS);

	/* Another file that goes away is no concern of it. */
	userfaultfd_release_mm(&f->ctx, NULL, current->mm);
	KUNIT_EXPECT_TRUE(test, userfaultfd_orphaned(vma_of(f->addr)));
	KUNIT_EXPECT_EQ(test, 0,
			userfaultfd_unregister_range(&f->ctx, current->mm,
						     f->addr, f->addr + LEN,
						     false));
	KUNIT_EXPECT_FALSE(test, userfaultfd_orphaned(vma_of(f->addr)));
}

/* Calls */

struct call {
	const char *name;
	unsigned long flags;		/* of the mapping */
	enum uffd_fill_op op;		/* or UFFD_FILL_OPS: it is a move */
};

/* Each looks at the gate in a place of its own. */
static const struct call calls[] = {
	{ "copy", MAP_PRIVATE, UFFD_FILL_COPY },
	{ "zeropage", MAP_PRIVATE, UFFD_FILL_ZEROPAGE },
	{ "poison", MAP_PRIVATE, UFFD_FILL_POISON },
	{ "move", MAP_PRIVATE, UFFD_FILL_OPS },
	{ "copy, shared", MAP_SHARED, UFFD_FILL_COPY },
	{ "zeropage, shared", MAP_SHARED, UFFD_FILL_ZEROPAGE },
	{ "poison, shared", MAP_SHARED, UFFD_FILL_POISON },
};

KUNIT_ARRAY_PARAM_DESC(calls, calls, name);

static ssize_t make_call(struct memory_fixture *f, const struct call *call)
{
	struct uffd_fill_request fill = {
		.ctx = &f->ctx,
		.mm = f->ctx.mm,
		.op = call->op,
		.dst = f->addr + 3 * PAGE_SIZE,
		.src = f->src,
		.len = PAGE_SIZE,
	};
	struct uffd_move_request move = {
		.ctx = fill.ctx,
		.mm = fill.mm,
		.dst = fill.dst,
		.src = fill.src,
		.len = fill.len,
	};

	return call->op == UFFD_FILL_OPS ? userfaultfd_move(&move) :
					   userfaultfd_fill(&fill);
}

struct caller {
	struct memory_fixture *f;
	const struct call *call;
	ssize_t ret;
	bool returned;
};

static int caller_fn(void *arg)
{
	struct caller *caller = arg;
	struct mm_struct *mm = caller->f->ctx.mm;

	kthread_use_mm(mm);
	caller->ret = make_call(caller->f, caller->call);
	kthread_unuse_mm(mm);
	/* Paired with has_returned(). */
	smp_store_release(&caller->returned, true);
	return 0;
}

/* A REMOVE of the page comes, and is read at once. */
static void remove_page(struct kunit *test, unsigned int page)
{
	struct memory_fixture *f = test->priv;
	struct uffd_event *event = &f->event;

	event->item.msg.event = UFFD_EVENT_REMOVE;
	event->item.msg.arg.remove.start = f->addr + page * PAGE_SIZE;
	event->item.msg.arg.remove.end = f->addr + (page + 1) * PAGE_SIZE;
	/* One that is never dropped: it is not on the heap. */
	refcount_set(&event->refs, 1000);
	spin_lock(&f->ctx.queue.lock);
	__uffd_queue_append(&f->ctx.queue, &event->item, UFFD_ITEM_READY);
	__uffd_gate_close(event);
	spin_unlock(&f->ctx.queue.lock);
	KUNIT_ASSERT_EQ(test, nr_messages(f), 1);
	uffd_event_delivered(event);
}

/* Until it waits for a lock that we hold; it has no other reason to sleep. */
static bool sleeps(struct task_struct *task)
{
	unsigned int patience = PATIENCE;

	while (task_is_running(task) && --patience)
		a_moment();
	return patience;
}

/*
 * The call has passed the gate, and waits for the lock that we hold, when the event
 * comes.  There is nothing unread when it goes on; but what it was about to put
 * there is what was there before.
 */
static void memory_overtaken(struct kunit *test)
{
	const struct call *call = test->param_value;
	struct memory_fixture *f;
	struct caller caller = { .call = call };
	struct mm_struct *mm;
	struct task_struct *task;
	bool slept;

	if ((call->flags & MAP_SHARED) && !IS_ENABLED(CONFIG_SHMEM))
		kunit_skip(test, "no shared memory without CONFIG_SHMEM");
	f = new_memory(test, call->flags);
	caller.f = f;
	mm = f->ctx.mm;
	task = kthread_create(caller_fn, &caller, "uffd-caller");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	get_task_struct(task);

	mmap_write_lock(mm);
	vma_start_write(vma_lookup(mm, f->addr));
	wake_up_process(task);
	slept = sleeps(task);
	remove_page(test, 3);
	mmap_write_unlock(mm);
	put_task_struct(task);

	/* What it writes its result to is on our stack. */
	while (!has_returned(&caller.returned))
		a_moment();
	KUNIT_EXPECT_TRUE(test, slept);
	KUNIT_EXPECT_EQ(test, caller.ret, -EAGAIN);
	/* So the place is free, for one that knows. */
	KUNIT_EXPECT_EQ(test, make_call(f, call), PAGE_SIZE);
}

static struct kunit_case memory_cases[] = {
	KUNIT_CASE(memory_missing),
	KUNIT_CASE(memory_present),
	KUNIT_CASE(memory_released),
	KUNIT_CASE(memory_orphaned),
	KUNIT_CASE_PARAM(memory_overtaken, calls_gen_params),
	{}
};

static struct kunit_suite memory_suite = {
	.name = "userfaultfd_memory",
	.init = memory_test_init,
	.test_cases = memory_cases,
};

kunit_test_suite(memory_suite);
