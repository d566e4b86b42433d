// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: the oracle. What a page may hold at any time, and how to look at
 * it without being killed.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

#include "uffd-torture.h"

/* Accesses that may trap */

static void on_trap(int sig, siginfo_t *info, void *context)
{
	if (self && uk_get(&self->armed))
		siglongjmp(self->trap, sig == SIGBUS ? TRAP_BUS : TRAP_SEGV);
	/* It is the program's own: happen again, and be fatal. */
	signal(sig, SIG_DFL);
}

void catch_traps(void)
{
	struct sigaction action = {
		.sa_sigaction = on_trap,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

/* The compiler is not to move the access to the other side of it. */
static void arm(bool on)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	uk_set(&self->armed, on);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

enum trap load(const char *at, __u64 *val)
{
	int trap = sigsetjmp(self->trap, 0);

	if (!trap) {
		arm(true);
		*val = uk_get((const __u64 *)at);
	}
	arm(false);
	return trap;
}

enum trap store(char *at, __u64 val)
{
	int trap = sigsetjmp(self->trap, 0);

	if (!trap) {
		arm(true);
		uk_set((__u64 *)at, val);
	}
	arm(false);
	return trap;
}

/* Locks, never waited for */

bool try_lock(uint32_t *lock)
{
	uint32_t free = 0;

	return __atomic_compare_exchange_n(lock, &free, self->worker->tid, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

void unlock(uint32_t *lock)
{
	__atomic_store_n(lock, 0, __ATOMIC_SEQ_CST);
}

bool try_use(int *users)
{
	int now = uk_get(users);

	while (now >= 0) {
		if (__atomic_compare_exchange_n(users, &now, now + 1, false,
						__ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST))
			return true;
	}
	return false;
}

void unuse(int *users)
{
	uk_add(users, -1);
}

bool try_change(int *users)
{
	int none = 0;

	return __atomic_compare_exchange_n(users, &none, -1, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

void unchange(int *users)
{
	__atomic_store_n(users, 0, __ATOMIC_SEQ_CST);
}

static bool lock_range(struct region *r, unsigned int from, unsigned int n,
		       size_t which)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (try_lock((uint32_t *)((char *)&r->page[from + i] + which)))
			continue;
		while (i--)
			unlock((uint32_t *)((char *)&r->page[from + i] + which));
		return false;
	}
	return true;
}

bool lock_pages(struct region *r, unsigned int from, unsigned int n)
{
	return lock_range(r, from, n, offsetof(struct page, lock));
}

void unlock_pages(struct region *r, unsigned int from, unsigned int n)
{
	while (n--)
		unlock(&r->page[from + n].lock);
}

bool lock_fills(struct region *r, unsigned int from, unsigned int n)
{
	return lock_range(r, from, n, offsetof(struct page, fill));
}

void unlock_fills(struct region *r, unsigned int from, unsigned int n)
{
	while (n--)
		unlock(&r->page[from + n].fill);
}

/* Places */

bool is_shared(const struct region *r)
{
	return r->kind == UK_SHMEM || r->kind == UK_HUGETLB;
}

bool is_hugetlb(const struct region *r)
{
	return r->kind == UK_HUGETLB || r->kind == UK_HUGETLB_PRIVATE;
}

bool is_anon(const struct region *r)
{
	return r->kind == UK_ANON || r->kind == UK_ANON_SMALL;
}

char *page_at(struct region *r, unsigned int page)
{
	return r->arena[uk_get(&r->at)] + page * r->unit;
}

struct region *find_page(__u64 addr, unsigned int *page, unsigned int *arena)
{
	unsigned int i, a;

	for (i = 0; i < world->regions; i++) {
		struct region *r = &world->region[i];

		for (a = 0; a < 2; a++) {
			__u64 start = (unsigned long)r->arena[a];

			if (addr >= start && addr < start + r->len) {
				*page = (addr - start) / r->unit;
				*arena = a;
				return r;
			}
		}
	}
	return NULL;
}

/* Content */

bool is_zero(uint32_t version)
{
	return version % ZERO_EVERY == 0;
}

__u64 tag(struct region *r, unsigned int page, uint32_t version)
{
	if (is_zero(version))
		return 0;
	return (__u64)(world->nr + 1) << 60 | (__u64)(r->nr + 1) << 56 |
	       (__u64)page << 32 | version;
}

void paint(struct region *r, unsigned int page, uint32_t version, char *buf)
{
	__u64 word = tag(r, page, version);
	size_t at;

	memset(buf, 0, r->unit);
	for (at = 0; at < r->unit; at += r->step)
		memcpy(buf + at, &word, sizeof(word));
}

bool may_be_missing(struct region *r)
{
	return r->mode & MISSING;
}

uint32_t next_version(struct region *r, unsigned int page, bool zero)
{
	uint32_t next = r->page[page].started + 1;

	if (zero)
		return (next + ZERO_EVERY - 1) / ZERO_EVERY * ZERO_EVERY;
	return is_zero(next) ? next + 1 : next;
}

void glance(struct glance *g, struct region *r, unsigned int page)
{
	struct page *p = &r->page[page];

	g->region = r;
	g->page = page;
	g->odd = uk_get(&p->odd);
	g->epoch = uk_get(&p->epoch);
	g->settled = uk_get(&p->settled);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool zeros_are_fine(struct region *r, uint32_t epoch)
{
	uint32_t now = uk_get(&r->unarmed);

	return now != epoch || now % 2;
}

void judge(const struct glance *g, __u64 val, const char *how)
{
	struct region *r = g->region;
	struct page *p = &r->page[g->page];
	uint32_t started, version = val;
	bool zero_was;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	started = uk_get(&p->started);
	zero_was = started / ZERO_EVERY * ZERO_EVERY >= g->settled;
	if (!val && (zero_was || zeros_are_fine(r, g->epoch)))
		return;
	if (val && val == tag(r, g->page, version) &&
	    version >= g->settled && version <= started)
		return;
	if (g->odd % 2 || uk_get(&p->odd) != g->odd || uk_get(&world->closed))
		return;
	fail(T_CONTENT, "%s: region %u page %u has %#llx, not a version from %u to %u",
	     how, r->nr, g->page, val, g->settled, started);
}

/*
 * Do it until it is done or the world ends. A mapping that is moving, cannot be
 * accessed or is an orphan is back soon.
 */
static bool insist(struct region *r, unsigned int page, size_t offset,
		   __u64 *val, bool write)
{
	for (;;) {
		uint32_t truncated = uk_get(&r->truncated);
		uint32_t orphaned = uk_get(&r->orphaned);
		char *at = page_at(r, page) + offset;
		enum trap trap = write ? store(at, *val) : load(at, val);

		if (!trap)
			return true;
		if (uk_get(&world->stop_users) || uk_get(&world->closed))
			return false;
		if (trap == TRAP_BUS && truncated == uk_get(&r->truncated) &&
		    orphaned == uk_get(&r->orphaned) && orphaned % 2 == 0) {
			fail(T_CONTENT, "%s of region %u page %u: SIGBUS",
			     write ? "write" : "read", r->nr, page);
			return false;
		}
		uk_sleep(1);
	}
}

void start_write(struct region *r, unsigned int page, uint32_t version)
{
	uk_set(&r->page[page].started, version);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* A write to the page has gone through: has it been told of if it had to be? */
static void check_written(struct region *r, unsigned int page)
{
	uint32_t wp = uk_get(&r->page[page].wp), epoch = protection(r);

	if (wp && wp == epoch + 1 && epoch % 2 == 0 && !uk_get(&world->closed))
		fail(T_PROTECT, "region %u page %u was protected, and written without a word",
		     r->nr, page);
}

void settle_write(struct region *r, unsigned int page, uint32_t version)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	uk_set(&r->page[page].settled, version);
	check_written(r, page);
}

bool write_page(struct region *r, unsigned int page, uint32_t version)
{
	__u64 word = tag(r, page, version);
	size_t at;

	start_write(r, page, version);
	for (at = 0; at < r->unit; at += r->step) {
		if (!insist(r, page, at, &word, true))
			return false;
	}
	settle_write(r, page, version);
	return true;
}

bool check_page(struct region *r, unsigned int page)
{
	struct page *p = &r->page[page];
	uint32_t epoch = uk_get(&r->unarmed);
	__u64 want = tag(r, page, p->settled), val, first = 0;
	unsigned int looks = 0;
	bool zeroed;
	size_t at;

again:
	zeroed = false;
	for (at = 0; at < r->unit; at += r->step) {
		if (!insist(r, page, at, &val, false))
			return false;
		if (!at)
			first = val;
		if (val == want && !zeroed)
			continue;
		/*
		 * Zeros of the file behind a private mapping may be taken out of the page
		 * table at any time, for reclaim or khugepaged, and what is absent there
		 * a server fills. A page that is torn stays so.
		 */
		if (val == want && looks++ < 3)
			goto again;
		/* The kernel may even fill it in between two looks. */
		if (!val && zeros_are_fine(r, p->epoch)) {
			zeroed = true;
			continue;
		}
		if (uk_get(&world->closed))
			return false;
		fail(T_CONTENT, "region %u page %u: %#llx at %#zx, %#llx at 0, not %#llx (odd %u)",
		     r->nr, page, val, at, first, want, p->odd);
		return false;
	}
	/* Nobody ever writes between the tags. */
	at = below(&self->random, r->unit / r->step) * r->step + 8 +
	     below(&self->random, r->step / 8 - 1) * 8;
	if (!insist(r, page, at, &val, false))
		return false;
	if (val) {
		fail(T_CONTENT, "region %u page %u has %#llx between its tags, at %#zx",
		     r->nr, page, val, at);
		return false;
	}
	if (zeroed && !write_page(r, page, next_version(r, page, false)))
		return false;
	/* Odd: the kernel may fill in zeros still. */
	uk_set(&p->epoch, epoch);
	return true;
}

bool check_copy(struct region *r, unsigned int page, const char *buf,
		const char *how)
{
	struct page *p = &r->page[page];
	__u64 want = tag(r, page, p->settled), val;
	size_t at;

	for (at = 0; at < r->unit; at += 8) {
		memcpy(&val, buf + at, 8);
		if (val == (at % r->step ? 0 : want))
			continue;
		if (!val && zeros_are_fine(r, p->epoch))
			continue;
		if (uk_get(&world->closed))
			return false;
		fail(T_CONTENT, "%s: region %u page %u has %#llx at %#zx, not %#llx",
		     how, r->nr, page, val, at, at % r->step ? 0 : want);
		return false;
	}
	return true;
}

/* Emptying */

bool begin_empty(struct region *r, unsigned int from, unsigned int n, bool told)
{
	unsigned int i;

	if (!told && !lock_fills(r, from, n))
		return false;
	for (i = from; i < from + n; i++) {
		struct page *p = &r->page[i];
		bool zero = !may_be_missing(r) || chance(&self->random, 25);

		uk_add(&p->odd, 1);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		uk_set(&p->wp, 0);
		uk_set(&p->next, next_version(r, i, zero));
		start_write(r, i, p->next);
		uk_set(&p->awaits, told ? EXPECTED : NOTHING);
		if (!told)
			uk_set(&p->store, p->next);
	}
	return true;
}

/*
 * The kernel lets the thread run when the message has been copied out; the reader has
 * to come back from read() still.
 */
bool await(uint32_t *awaits)
{
	unsigned int looks = setting.patience / 2;

	while (uk_get(awaits) == EXPECTED) {
		if (!looks-- || uk_get(&world->closed))
			return false;
		uk_sleep(1);
	}
	return true;
}

static void check_told(struct region *r, unsigned int page)
{
	struct page *p = &r->page[page];
	bool came;

	/* Behind a mark nothing is on its way any more; unless that went with its reader. */
	if (drops_go_on() && !world->handover)
		came = uk_get(&p->awaits) != EXPECTED;
	else
		came = await(&p->awaits);
	if (!came && !uk_get(&world->closed))
		fail(T_MESSAGE, "region %u page %u was dropped, and no REMOVE read",
		     r->nr, page);
}

/*
 * A call that has failed may have been told of before, and the reader be on the way back
 * with that. In worlds that block nothing is locked, so such calls do not fail.
 *
 * If nobody waits for what is dropped it may even be unread, of a call that has not failed
 * as well; and for that long other calls may be refused for it.
 */
void await_reader(struct region *r)
{
	if (drops_go_on()) {
		if (self->worker->causing) {
			pass_mark(r->fd);
			cause_end();
		}
		return;
	}
	while (uk_get(&world->know[r->fd]) < 0 && !uk_get(&world->closed))
		sched_yield();
}

void end_empty(struct region *r, unsigned int from, unsigned int n, bool told,
	       bool did)
{
	unsigned int i;

	if (told && (!did || drops_go_on()))
		await_reader(r);
	for (i = from; i < from + n; i++) {
		if (told && did)
			check_told(r, i);
		uk_set(&r->page[i].awaits, NOTHING);
		uk_set(&r->page[i].store, r->page[i].next);
	}
	if (!told)
		unlock_fills(r, from, n);
	for (i = from; i < from + n; i++) {
		struct page *p = &r->page[i];

		/* Old or empty, who knows: make it something. */
		if (did)
			uk_set(&p->settled, p->started);
		else if (!write_page(r, i, next_version(r, i, false)))
			continue;
		uk_add(&p->odd, 1);
	}
}

void begin_drop(struct region *r, unsigned int from, unsigned int n, bool told)
{
	unsigned int i;

	for (i = from; told && i < from + n; i++) {
		uk_set(&r->page[i].next, r->page[i].store);
		uk_set(&r->page[i].awaits, EXPECTED);
	}
}

void end_drop(struct region *r, unsigned int from, unsigned int n, bool told,
	      bool did)
{
	unsigned int i;

	if (told && (!did || drops_go_on()))
		await_reader(r);
	for (i = from; told && i < from + n; i++) {
		if (did)
			check_told(r, i);
		uk_set(&r->page[i].awaits, NOTHING);
	}
}

/*
 * A thread that is told of twice in one step, for one page, must have been woken
 * in between, by a call that may have woken who sleeps on it.
 */
void wake_begin(struct region *r, unsigned int from, unsigned int n)
{
	while (n--)
		uk_add(&r->page[from + n].wakers, 1);
}

void wake_end(struct region *r, unsigned int from, unsigned int n)
{
	uint64_t now = tick();

	while (n--) {
		uk_set(&r->page[from + n].woken, now);
		uk_add(&r->page[from + n].wakers, -1);
	}
}

void cause_begin(__u64 start, __u64 end)
{
	self->worker->cause_start = start;
	self->worker->cause_end = end;
	uk_set(&self->worker->causing, true);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void cause_end(void)
{
	uk_set(&self->worker->caused, tick());
	uk_set(&self->worker->causing, false);
}
