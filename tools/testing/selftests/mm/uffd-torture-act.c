// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: threads that do things to pages: drop, move, protect, poison, swap,
 * migrate, split and collapse them.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <linux/fs.h>

#include "uffd-torture.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif

/* A part of a region: one page, a few, or what a huge page covers. */
struct part {
	struct region *r;
	unsigned int from, n;
};

static struct part choose_part(struct region *r)
{
	struct part p = { .r = r, .from = below(&self->random, r->pages), .n = 1 };
	unsigned int huge = BUF_SIZE / r->unit;
	unsigned int how = below(&self->random, 100);

	if (how < 50)
		return p;
	if (how < 85 || huge < 2 || r->pages < huge) {
		p.n = 1 + below(&self->random, 16);
	} else {
		p.from = p.from / huge * huge;
		p.n = huge;
	}
	if (p.n > r->pages - p.from)
		p.n = r->pages - p.from;
	return p;
}

static char *part_addr(const struct part *p)
{
	return page_at(p->r, p->from);
}

static size_t part_len(const struct part *p)
{
	return p->n * p->r->unit;
}

/* Page by page, up or down: what is not read at once may become one REMOVE. */
static int advise_each(const struct part *p, int advice)
{
	bool down = chance(&self->random, 50);
	unsigned int i;
	int ret = 0;

	for (i = 0; i < p->n; i++) {
		unsigned int page = p->from + (down ? p->n - 1 - i : i);

		if (madvise(page_at(p->r, page), p->r->unit, advice))
			ret = -errno;
	}
	return ret;
}

static int advise(const struct part *p, int advice)
{
	unsigned long start = (unsigned long)part_addr(p);
	int ret;

	cause_begin(start, start + part_len(p));
	if (drops_go_on() && chance(&self->random, 50))
		ret = advise_each(p, advice);
	else
		ret = madvise((void *)start, part_len(p), advice) ? -errno : 0;
	/* Else it refuses calls until it has been read: await_reader(). */
	if (!drops_go_on())
		cause_end();
	return ret;
}

/* Content for what has been emptied, by way of the file: a minor fault to be. */
static void paint_file(const struct part *p)
{
	unsigned int i;
	size_t at;

	for (i = p->from; i < p->from + p->n; i++) {
		__u64 word = tag(p->r, i, p->r->page[i].next);

		for (at = 0; at < p->r->unit; at += p->r->step) {
			if (store(p->r->alias + i * p->r->unit + at, word))
				fail(T_CALL, "region %u page %u: no access by the alias",
				     p->r->nr, i);
		}
	}
}

static void drop(enum op op, const struct part *p, int advice, bool paint_it)
{
	bool told = has(UFFD_FEATURE_EVENT_REMOVE);
	unsigned int i;
	int ret;

	if (!begin_empty(p->r, p->from, p->n, told))
		return;
	begin(op, p->r->nr, p->from);
	ret = advise(p, advice);
	if (!ret && paint_it)
		paint_file(p);
	if (!ret && drops_go_on() && op != OP_FREE && chance(&self->random, 50))
		look_behind(p->r, p->from, p->n);
	for (i = 0; !ret && i < p->n; i++)
		await(&p->r->page[p->from + i].awaits);
	/* What may be freed, or not, is unknown until it is written. */
	end_empty(p->r, p->from, p->n, told, !ret && op != OP_FREE);
	end(p->n, ret);
	if (ret && ret != -EINVAL && ret != -EAGAIN && ret != -ENOMEM)
		fail(T_CALL, "%s of region %u pages %u+%u: errno %d",
		     op_name[op], p->r->nr, p->from, p->n, -ret);
}

static int dontneed(void)
{
	return chance(&self->random, 70) ? MADV_DONTNEED : MADV_DONTNEED_LOCKED;
}

static void zap(const struct part *p)
{
	bool told = has(UFFD_FEATURE_EVENT_REMOVE);
	int ret;

	begin_drop(p->r, p->from, p->n, told);
	begin(OP_ZAP, p->r->nr, p->from);
	ret = advise(p, dontneed());
	end_drop(p->r, p->from, p->n, told, !ret);
	end(p->n, ret);
}

static void act_discard(struct region *r)
{
	struct part p = choose_part(r);

	if (!lock_pages(r, p.from, p.n))
		return;
	if (is_shared(r))
		zap(&p);
	else
		drop(OP_DISCARD, &p, dontneed(), false);
	unlock_pages(r, p.from, p.n);
}

static void act_free(struct region *r)
{
	struct part p = choose_part(r);

	if (!is_anon(r) || !lock_pages(r, p.from, p.n))
		return;
	drop(OP_FREE, &p, MADV_FREE, false);
	unlock_pages(r, p.from, p.n);
}

static void act_remove(struct region *r)
{
	struct part p = choose_part(r);

	if (!is_shared(r) || !lock_pages(r, p.from, p.n))
		return;
	drop(OP_REMOVE, &p, MADV_REMOVE, may_be_missing(r) &&
	     chance(&self->random, r->mode & MINOR ? 70 : 5));
	unlock_pages(r, p.from, p.n);
}

static void act_punch(struct region *r)
{
	struct part p = choose_part(r);
	int ret;

	if (!is_shared(r) || !lock_pages(r, p.from, p.n))
		return;
	if (begin_empty(r, p.from, p.n, false)) {
		begin(OP_PUNCH, r->nr, p.from);
		ret = fallocate(r->memfd, FALLOC_FL_PUNCH_HOLE |
				FALLOC_FL_KEEP_SIZE, p.from * r->unit,
				part_len(&p)) ? -errno : 0;
		if (!ret && may_be_missing(r) &&
		    chance(&self->random, r->mode & MINOR ? 70 : 5))
			paint_file(&p);
		end_empty(r, p.from, p.n, false, !ret);
		end(p.n, ret);
	}
	unlock_pages(r, p.from, p.n);
}

/* The end of the file is taken away, and comes back empty. */
static void act_truncate(struct region *r)
{
	struct part p = { .r = r, .n = 1 + below(&self->random, 4) };
	int ret;

	if (r->memfd < 0 || p.n > r->pages)
		return;
	p.from = r->pages - p.n;
	if (!lock_pages(r, p.from, p.n))
		return;
	if (begin_empty(r, p.from, p.n, false)) {
		begin(OP_TRUNCATE, r->nr, p.from);
		uk_add(&r->truncated, 1);
		ret = ftruncate(r->memfd, p.from * r->unit);
		if (chance(&self->random, 50))
			uk_sleep(1);
		ret |= ftruncate(r->memfd, r->len);
		uk_add(&r->truncated, 1);
		/*
		 * Of a private mapping of hugetlb it may have taken nothing: the
		 * kernel passes over one in which a fault is under way.
		 */
		end_empty(r, p.from, p.n, false, r->kind != UK_HUGETLB_PRIVATE);
		end(p.n, ret);
		if (ret)
			fail(T_CALL, "ftruncate of region %u: errno %d", r->nr,
			     errno);
	}
	unlock_pages(r, p.from, p.n);
}

static bool wait_present(const char *addr, size_t len)
{
	long long end = uk_now() + 50;

	while (uk_pages(addr, len, UK_PM_PRESENT) != (long)(len / getpagesize()))
		if (uk_now() > end || uk_get(&world->duel.state) == 3)
			return false;
	return true;
}

/* So many that a fill of them takes long. Others may be at some of them: try again. */
static bool lock_many(struct part *p)
{
	struct region *r = p->r;
	unsigned int tries;

	p->n = r->pages < 256 ? r->pages : 256;
	for (tries = 0; tries < 16; tries++) {
		p->from = below(&self->random, r->pages - p->n + 1);
		if (lock_pages(r, p->from, p->n))
			return true;
	}
	return false;
}

/*
 * Drops pages of a range while a fill of it is under way that began before, and that
 * does not know. What it puts in place after its pages have been dropped would stay.
 */
static void act_duel(struct region *r)
{
	struct duel *d = &world->duel;
	struct part whole = { .r = r }, half;
	uint32_t none = 0;
	bool told = has(UFFD_FEATURE_EVENT_REMOVE);
	unsigned int i;
	int ret = -EBUSY;

	if (is_shared(r) || is_hugetlb(r) || !told || !may_be_missing(r) ||
	    r->pages < 32 || !world->nonblock || world->servers < 2 * world->fds ||
	    world->handover)
		return;
	if (!__atomic_compare_exchange_n(&d->state, &none, 4, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return;
	if (!lock_many(&whole)) {
		uk_set(&d->state, 0);
		return;
	}
	drop(OP_DISCARD, &whole, dontneed(), false);
	begin(OP_DUEL, r->nr, whole.from);
	d->region = r->nr;
	d->from = whole.from;
	d->pages = whole.n;
	uk_set(&d->state, 1);
	half.r = r;
	half.n = whole.n / 2;
	half.from = whole.from + whole.n - half.n;
	if (wait_present(part_addr(&whole), r->unit) &&
	    begin_empty(r, half.from, half.n, true)) {
		ret = advise(&half, MADV_DONTNEED);
		end_empty(r, half.from, half.n, true, !ret);
	}
	none = 1;
	if (!__atomic_compare_exchange_n(&d->state, &none, 3, false,
					 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		while (uk_get(&d->state) != 3)
			uk_sleep(1);
	}
	for (i = whole.from; i < whole.from + whole.n; i++)
		if (!check_page(r, i))
			break;
	end(half.n, ret);
	uk_set(&d->state, 0);
	unlock_pages(r, whole.from, whole.n);
}

/* From one place of a region to another that is empty, and back. */
static int shift(struct region *r, unsigned int from, unsigned int to)
{
	unsigned int tries = setting.patience;
	struct uk_fill fill;
	int fd = world->fd[r->fd];

	fill = uk_move(fd, page_at(r, to), page_at(r, from), r->unit, 0);
	if (fill.err)
		return fill.err;
	do {
		fill = uk_move(fd, page_at(r, from), page_at(r, to), r->unit, 0);
	} while (fill.err == -EAGAIN && tries--);
	/* Pinned by somebody's glance? Then it is missing here, like any other. */
	return fill.err;
}

static void act_shift(struct region *r)
{
	unsigned int from = below(&self->random, r->pages);
	struct part to = { .r = r, .from = below(&self->random, r->pages), .n = 1 };
	struct page *p = &r->page[from];
	bool told = has(UFFD_FEATURE_EVENT_REMOVE);
	int ret;

	if (!is_anon(r) || from == to.from || !may_be_missing(r) ||
	    !try_lock(&p->lock))
		return;
	if (!try_lock(&r->page[to.from].lock))
		goto unlock_one;
	if (!check_page(r, from) || !begin_empty(r, to.from, 1, told))
		goto unlock_both;
	begin(OP_SHIFT, r->nr, from);
	ret = advise(&to, MADV_DONTNEED);
	/* Whatever comes of the moves, this has been told. */
	if (!ret)
		await(&r->page[to.from].awaits);
	if (!ret && (!told || try_lock(&r->page[to.from].fill))) {
		if (try_lock(&p->fill)) {
			uk_add(&p->odd, 1);
			uk_set(&p->wp, 0);
			wake_begin(r, from, 1);
			wake_begin(r, to.from, 1);
			ret = shift(r, from, to.from);
			wake_end(r, from, 1);
			wake_end(r, to.from, 1);
			uk_set(&p->store, p->settled);
			uk_set(&p->next, p->settled);
			unlock(&p->fill);
			check_page(r, from);
			uk_add(&p->odd, 1);
		}
		if (told)
			unlock(&r->page[to.from].fill);
	}
	end_empty(r, to.from, 1, told, !ret);
	end(1, ret);
unlock_both:
	unlock(&r->page[to.from].lock);
unlock_one:
	unlock(&p->lock);
}

static bool present_all(const struct part *p)
{
	unsigned int i;

	for (i = p->from; i < p->from + p->n; i++)
		if (!check_page(p->r, i))
			return false;
	return true;
}

static void act_protect(struct region *r)
{
	struct part p = choose_part(r);
	uint32_t epoch = protection(r);
	unsigned int i;
	int ret;

	if (!(r->mode & WP) || world->closed)
		return;
	if (p.n > 16)
		p.n = 16;
	if (!lock_pages(r, p.from, p.n))
		return;
	begin(OP_PROTECT, r->nr, p.from);
	/* What is missing is passed over in anonymous memory, and told as missing. */
	if ((may_be_missing(r) || present_all(&p)) &&
	    lock_fills(r, p.from, p.n)) {
		for (i = p.from; i < p.from + p.n; i++)
			uk_set(&r->page[i].wp, 0);
		ret = uk_protect(world->fd[r->fd], part_addr(&p), part_len(&p),
				 UFFDIO_WRITEPROTECT_MODE_WP);
		for (i = p.from; !ret && i < p.from + p.n; i++)
			uk_set(&r->page[i].wp, epoch + 1);
		unlock_fills(r, p.from, p.n);
		end(p.n, ret);
		if (ret && ret != -EAGAIN && ret != -ENOMEM &&
		    !uk_get(&world->closed))
			fail(T_CALL, "region %u pages %u+%u cannot be protected: errno %d",
			     r->nr, p.from, p.n, -ret);
	} else {
		end(p.n, -EBUSY);
	}
	unlock_pages(r, p.from, p.n);
}

/* Does the kernel count a page as written since it was protected? */
static bool is_written(struct region *r, unsigned int page)
{
	struct page_region found;
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = (unsigned long)page_at(r, page),
		.end = (unsigned long)page_at(r, page + 1),
		.vec = (unsigned long)&found,
		.vec_len = 1,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), n;

	n = ioctl(fd, PAGEMAP_SCAN, &scan);
	close(fd);
	return n > 0;
}

/* The page is there, and its locks are held; that of fills is let go of. */
static int track(struct region *r, unsigned int page)
{
	int ret = uk_protect(world->fd[r->fd], page_at(r, page), r->unit,
			     UFFDIO_WRITEPROTECT_MODE_WP);

	if (!ret && is_written(r, page))
		fail(T_PROTECT, "region %u page %u was protected, and counts as written",
		     r->nr, page);
	unlock(&r->page[page].fill);
	if (!ret && write_page(r, page, next_version(r, page, false)) &&
	    !is_written(r, page))
		fail(T_PROTECT, "region %u page %u was written, and is not counted",
		     r->nr, page);
	return ret;
}

/* Writes can be asked for; they need not be told. */
static void act_track(struct region *r)
{
	unsigned int page = below(&self->random, r->pages);
	int ret = -EBUSY;

	if (!(r->mode & WP) ||
	    !has(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_SET_MODE) ||
	    !try_lock(&r->page[page].lock))
		return;
	begin(OP_TRACK, r->nr, page);
	if (check_page(r, page) && try_lock(&r->page[page].fill))
		ret = track(r, page);
	end(1, ret);
	unlock(&r->page[page].lock);
}

/* Poison what has been emptied, see that it bites, and take it away. */
static int poison(const struct part *p, bool told)
{
	char *at = part_addr(p);
	struct uk_fill fill;
	__u64 val;

	wake_begin(p->r, p->from, 1);
	fill = uk_poison(world->fd[p->r->fd], at, p->r->unit, 0);
	wake_end(p->r, p->from, 1);
	if (fill.err)
		return fill.err;
	if (!load(at, &val) && !uk_get(&world->closed))
		fail(T_CONTENT, "region %u page %u is poisoned, and was read",
		     p->r->nr, p->from);
	uk_set(&p->r->page[p->from].awaits, told ? EXPECTED : NOTHING);
	/* Locked or not: it must not stay. */
	return advise(p, MADV_DONTNEED_LOCKED);
}

static void act_poison(struct region *r)
{
	struct part p = { .r = r, .from = below(&self->random, r->pages), .n = 1 };
	bool told = has(UFFD_FEATURE_EVENT_REMOVE);
	int ret;

	if (is_shared(r) || !may_be_missing(r) || !lock_pages(r, p.from, 1))
		return;
	if (begin_empty(r, p.from, 1, told)) {
		begin(OP_POISON, r->nr, p.from);
		ret = advise(&p, MADV_DONTNEED);
		/* There will be a second. */
		if (!ret)
			await(&r->page[p.from].awaits);
		if (!ret && (!told || try_lock(&r->page[p.from].fill))) {
			ret = poison(&p, told);
			if (told)
				unlock(&r->page[p.from].fill);
			if (ret == -EEXIST || ret == -EAGAIN || ret == -ENOENT)
				uk_set(&r->page[p.from].awaits, TOLD);
		}
		end_empty(r, p.from, 1, told, !ret);
		end(1, ret);
	}
	unlock_pages(r, p.from, 1);
}

/* What leaves the content alone */

static void quiet(enum op op, struct region *r, int advice)
{
	struct part p = choose_part(r);

	begin(op, r->nr, p.from);
	end(p.n, madvise(part_addr(&p), part_len(&p), advice) ? -errno : 0);
}

static void act_collapse(struct region *r)
{
	begin(OP_COLLAPSE, r->nr, 0);
	end(r->pages, madvise(page_at(r, 0), r->len, MADV_COLLAPSE) ? -errno : 0);
}

static void act_split(struct region *r)
{
	char text[96];

	begin(OP_SPLIT, r->nr, 0);
	snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", world->pid,
		 (unsigned long)page_at(r, 0), (unsigned long)page_at(r, 0) + r->len);
	end(r->pages, uk_write_file("/sys/kernel/debug/split_huge_pages", text) ?
	    0 : -EINVAL);
}

static void act_compact(struct region *r)
{
	begin(OP_COMPACT, -1, -1);
	end(0, uk_write_file("/proc/sys/vm/compact_memory", "1") ? 0 : -EINVAL);
}

static void act_migrate(struct region *r)
{
	struct part p = choose_part(r);
	void *at[64];
	int node[64], status[64];
	unsigned int i, n = p.n < 64 ? p.n : 64;

	if (!setting.nodes)
		return;
	begin(OP_MIGRATE, r->nr, p.from);
	for (i = 0; i < n; i++) {
		at[i] = part_addr(&p) + i * r->unit;
		node[i] = below(&self->random, 2);
	}
	end(n, syscall(__NR_move_pages, 0, (long)n, at, node, status, 2) < 0 ?
	    -errno : 0);
}

static void cgroup_set(const char *file, const char *text)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", world->cgroup, file);
	uk_write_file(path, text);
}

static void act_reclaim(struct region *r)
{
	if (!world->cgroup[0])
		return;
	begin(OP_RECLAIM, -1, -1);
	cgroup_set("memory.reclaim", chance(&self->random, 50) ? "1M" : "256K");
	end(0, 0);
}

/* Less memory than is in use, for a moment: reclaim, and throttling. */
static void act_squeeze(struct region *r)
{
	if (!world->cgroup[0] || !setting.swap)
		return;
	begin(OP_SQUEEZE, -1, -1);
	if (chance(&self->random, 80)) {
		cgroup_set("memory.high", "2M");
		uk_sleep(5);
		cgroup_set("memory.high", "max");
	} else {
		/* Hard: who cannot get below it is killed, with all of the world. */
		cgroup_set("memory.oom.group", "1");
		cgroup_set("memory.max", "32M");
		uk_sleep(5);
		cgroup_set("memory.max", "max");
	}
	end(0, 0);
}

static void act_look(struct region *r)
{
	struct page_region found[16];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.vec = (unsigned long)found,
		.vec_len = 16,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
	};
	struct uk_info info;
	int fd;

	begin(OP_LOOK, r->nr, -1);
	if (!uk_get(&world->closed) && uk_fdinfo(world->fd[r->fd], &info))
		fail(T_CALL, "fdinfo cannot be read");
	uk_census(page_at(r, 0), r->len);
	scan.start = (unsigned long)page_at(r, 0);
	scan.end = scan.start + r->len;
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ioctl(fd, PAGEMAP_SCAN, &scan);
	close(fd);
	end(1, 0);
}

static void act_pageout(struct region *r)
{
	quiet(OP_PAGEOUT, r, chance(&self->random, 80) ? MADV_PAGEOUT :
	      chance(&self->random, 50) ? MADV_COLD : MADV_WILLNEED);
}

struct deed {
	enum op op;
	unsigned int weight;
	void (*fn)(struct region *r);	/* or it is act_on_map()'s */
};

static const struct deed deeds[] = {
	{ OP_DISCARD, 30, act_discard },
	{ OP_FREE, 4, act_free },
	{ OP_REMOVE, 10, act_remove },
	{ OP_PUNCH, 10, act_punch },
	{ OP_TRUNCATE, 3, act_truncate },
	{ OP_DUEL, 8, act_duel },
	{ OP_SHIFT, 6, act_shift },
	{ OP_PROTECT, 20, act_protect },
	{ OP_POISON, 4, act_poison },
	{ OP_PAGEOUT, 10, act_pageout },
	{ OP_COLLAPSE, 2, act_collapse },
	{ OP_SPLIT, 2, act_split },
	{ OP_COMPACT, 1, act_compact },
	{ OP_MIGRATE, 6, act_migrate },
	{ OP_RECLAIM, 3, act_reclaim },
	{ OP_SQUEEZE, 1, act_squeeze },
	{ OP_LOOK, 2, act_look },
	{ OP_TRACK, 10, act_track },
	{ OP_SET_MODE, 4, act_set_mode },
	{ OP_MREMAP, 4, NULL },
	{ OP_REMAP_NEW, 4, NULL },
	{ OP_REREGISTER, 3, NULL },
	{ OP_MPROTECT, 3, NULL },
	{ OP_MLOCK, 3, NULL },
	{ OP_ADVISE, 4, NULL },
	{ OP_SIGNAL, 15, NULL },
	{ OP_VICTIM, 3, NULL },
	{ OP_FORK, 3, NULL },
	{ OP_HANDOVER, 1, NULL },
	{ OP_OTHER_MODE, 3, NULL },
	{ OP_ORPHAN, 3, NULL },
	{ OP_KILL_DROP, 5, NULL },
	{ OP_KILL_READ, 3, NULL },
};

static const struct deed *choose(void)
{
	unsigned int i, sum = 0, at;

	for (i = 0; i < sizeof(deeds) / sizeof(*deeds); i++)
		sum += deeds[i].weight;
	at = below(&self->random, sum);
	for (i = 0; at >= deeds[i].weight; i++)
		at -= deeds[i].weight;
	return &deeds[i];
}

void *act(void *arg)
{
	struct self *me = arg;

	if (!enter_self(me))
		return NULL;
	while (!uk_get(&world->stop_actors)) {
		struct region *r;
		const struct deed *deed = choose();

		r = &world->region[below(&me->random, world->regions)];
		if (setting.some && !setting.only[deed->op])
			continue;
		if (!deed->fn) {
			act_on_map(deed->op, r);
		} else if (try_use(&r->users)) {
			deed->fn(r);
			unuse(&r->users);
		}
		if (chance(&me->random, 20))
			uk_sleep(below(&me->random, 5));
	}
	leave_self();
	return NULL;
}
