// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: events that nobody waits for (UFFD_FEATURE_EVENT_NOWAIT).
 *
 * A thread that has dropped pages goes on: that does not tell the oracle any more that the
 * REMOVE has been read. But it is in the queue already. So:
 *
 * - whoever faults on a page after it was dropped is told of behind the REMOVE, and finds
 *   what handlers have to fill in from then on, or nothing has kept the order;
 * - to know that it has been read another event is caused, a mark: when that is read, all
 *   that came before has been. A REMOVE that is still awaited then is lost.
 */
#include <unistd.h>
#include <sys/mman.h>

#include "uffd-torture.h"

bool drops_go_on(void)
{
	return has(UFFD_FEATURE_EVENT_NOWAIT) && has(UFFD_FEATURE_EVENT_REMOVE);
}

/* Between two pages that are not registered: a REMOVE beside it would be merged. */
bool map_marks(void)
{
	size_t page = getpagesize();
	unsigned int i;

	for (i = 0; drops_go_on() && i < world->fds; i++) {
		char *at = uk_reserve(3 * page, page);

		if (!at || mprotect(at + page, page, PROT_READ | PROT_WRITE))
			return false;
		world->mark[i] = at + page;
	}
	return true;
}

void register_marks(void)
{
	unsigned int i;
	int err;

	for (i = 0; drops_go_on() && i < world->fds; i++) {
		err = uk_register(world->fd[i], world->mark[i], getpagesize());
		if (err)
			fail(T_CALL, "mark %u not registered: errno %d", i, -err);
	}
}

/*
 * One at a time, or two would be one message. Who has the lock waits for nothing but the
 * reader, and that waits for no actor; so here it may be waited for.
 */
void pass_mark(unsigned int fd)
{
	uint32_t *awaits = &world->mark_awaits[fd];

	while (!try_lock(&world->mark_lock[fd])) {
		if (uk_get(&world->closed))
			return;
		uk_sleep(1);
	}
	uk_set(awaits, EXPECTED);
	if (madvise(world->mark[fd], getpagesize(), MADV_DONTNEED))
		fail(T_CALL, "mark %u cannot be dropped", fd);
	if (!await(awaits) && !uk_get(&world->closed))
		fail(T_MESSAGE, "mark %u was dropped, and no REMOVE read", fd);
	uk_set(awaits, NOTHING);
	unlock(&world->mark_lock[fd]);
}

bool is_mark(const struct uffd_msg *msg)
{
	__u64 start = msg->arg.remove.start;
	unsigned int i;

	for (i = 0; drops_go_on() && i < world->fds; i++) {
		if (start != (unsigned long)world->mark[i])
			continue;
		if (msg->arg.remove.end != start + getpagesize() ||
		    (uk_get(&world->mark_awaits[i]) != EXPECTED &&
		     !world->handover && !uk_get(&world->closed)))
			fail(T_MESSAGE, "REMOVE of mark %u, %#llx to %#llx, is not expected",
			     i, start, msg->arg.remove.end);
		uk_set(&world->mark_awaits[i], TOLD);
		return true;
	}
	return false;
}

#define LOOKS	4

void look_behind(struct region *r, unsigned int from, unsigned int n)
{
	unsigned int i;
	__u64 val;

	for (i = from; i < from + n && i < from + LOOKS; i++) {
		struct page *p = &r->page[i];
		__u64 want = tag(r, i, p->next);
		enum trap trap;

		uk_set(&self->worker->behind, p);
		trap = load(page_at(r, i), &val);
		uk_set(&self->worker->behind, NULL);
		count(OP_BEHIND, r->nr, i, 1, trap);
		if (!trap && val != want && (val || !zeros_are_fine(r, p->epoch)) &&
		    !uk_get(&world->closed))
			fail(T_CONTENT, "region %u page %u was dropped, and has %#llx, not %#llx",
			     r->nr, i, val, want);
	}
}

void check_behind(const struct uffd_msg *msg, struct region *r, unsigned int page)
{
	struct page *p = &r->page[page];
	unsigned int i;

	for (i = 0; drops_go_on() && i < MAX_THREADS; i++) {
		struct worker *w = &world->worker[i];

		if (uk_get(&w->tid) != msg->arg.pagefault.feat.ptid ||
		    uk_get(&w->behind) != p || uk_get(&p->awaits) != EXPECTED ||
		    uk_get(&world->closed))
			continue;
		fail(T_MESSAGE, "region %u page %u: fault of thread %d read before its REMOVE",
		     r->nr, page, w->tid);
	}
}
