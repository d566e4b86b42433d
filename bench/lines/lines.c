// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for qemu-system-x86_64: which cache lines travel between CPUs.
 *
 * Each virtual CPU gets a private cache of its own, and each line of memory a
 * state as in MESI: one CPU has it alone, several share it, or none has it.  An
 * access that another CPU's cache must give up its copy for, or its being alone
 * with it, is a transfer.  Transfers are counted by address, instruction and kind.
 *
 * QEMU runs the CPUs in turns on one thread (-icount), each for as long as it
 * likes: in practice until it has nothing to do.  Here a turn is a short while on
 * a clock that each CPU has, which its instructions and transfers advance.  All get
 * the same while in a round, and who has used up more sits out the next.  What
 * one CPU has written another cannot see before the clock of the first said so,
 * and a line is in one place at a time.  So they contend as if they ran side by
 * side, and the clocks say how long it takes.  No result depends on the host.
 *
 * Until the program under test calls a function of a given address nothing but
 * that is looked for; then all code is translated anew.  From one page fault to a
 * later one it is counted.  Then the result is written, and the guest stands
 * still until somebody has taken it: memory is as the result says.  Then it waits
 * for that function again, for as many cases as the plan has lines: each says how many faults
 * are let pass, and how many are counted.
 *
 * What an instruction costs and what a transfer costs are options, times are in ps.
 * Not modelled: fetching code, the walks of page tables by a CPU, TLBs, a store
 * buffer, misses that overlap, distances, prefetching, false sharing of line pairs.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#include "qemu-plugin-api.h"

#define MAX_CPUS	256
#define WORD		64
#define LINE_SHIFT	6
#define PAGE_SHIFT	12
#define KERNEL		0x8000000000000000UL

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

int qemu_plugin_version = PLUGIN_API_VERSION;

/* The options, see "options" below. */
static unsigned long opt_start;
static unsigned long opt_mem = 2UL << 30;
static unsigned long opt_size = 1UL << 20;
static unsigned long opt_ways = 16;
static unsigned long opt_turn = 100000;
static unsigned long opt_insn = 300;
static unsigned long opt_transfer = 80000;
static unsigned long opt_fetch = 20000;
static unsigned long opt_poll = 1;
static unsigned long opt_hz = 250;
static const char *opt_ram;
static const char *opt_map;
static const char *opt_plan;
static const char *opt_out;

static unsigned long plugin;
static unsigned int nr_cpus;

static void die(const char *what)
{
	fprintf(stderr, "lines: %s\n", what);
	exit(1);
}

/* Memory that is not touched costs nothing. */
static void *reserve(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("out of memory");
	return p;
}

/* Small things that are there until the end. */
static void *keep(size_t len)
{
	static char *pool;
	static size_t left;

	len = (len + 15) & ~15UL;
	if (left < len) {
		left = 1UL << 20;
		pool = reserve(left);
	}
	left -= len;
	return pool + left;
}

/*
 * Symbols of the kernel's text, and those that mean something here.
 */

enum meaning {
	PLAIN,
	LOCKS,		/* takes a spinlock, and returns when it has it */
	FAULT,		/* is called once for a fault */
	TICK,		/* a timer interrupt begins */
	TICK_OVER,
	CALIBRATE,	/* the clock of a timer is to be measured */
};

static const struct {
	const char *name;
	enum meaning meaning;
} meanings[] = {
	{ "_raw_spin_lock", LOCKS },
	{ "_raw_spin_lock_irq", LOCKS },
	{ "_raw_spin_lock_irqsave", LOCKS },
	{ "_raw_spin_lock_bh", LOCKS },
	{ "native_queued_spin_lock_slowpath", LOCKS },
	{ "queued_spin_lock_slowpath", LOCKS },
	{ "handle_userfault", FAULT },
	{ "sysvec_apic_timer_interrupt", TICK },
	{ "irqentry_exit", TICK_OVER },
	{ "setup_boot_APIC_clock", CALIBRATE },
};

struct symbol {
	unsigned long address;
	unsigned long insns;
	unsigned long calls;
	enum meaning meaning;
	char name[48];
};

static struct symbol *symbols;
static size_t nr_symbols;
/* What is not the kernel's. */
static struct symbol user = { .name = "(user)" };

static int by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

/*
 * Variables of the kernel that are written from outside: whether CPUs that idle poll,
 * instead of halting; and how far the local timer counts in a tick, if known.
 */
#define FORCE_POLL	"cpu_idle_force_poll"
#define TIMER_PERIOD	"lapic_timer_period"

/* Of what the kernel's image has in it, virtual and physical addresses differ by this. */
#define IMAGE		0xffffffff80000000UL

static unsigned long force_poll, timer_period;

static void read_map(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[512], type;
	struct symbol *s;
	size_t i;

	if (!f)
		die("cannot read the System.map");
	symbols = reserve((1UL << 20) * sizeof(*symbols));
	while (fgets(line, sizeof(line), f) && nr_symbols < 1UL << 20) {
		s = &symbols[nr_symbols];
		if (sscanf(line, "%lx %c %47s", &s->address, &type, s->name) != 3)
			continue;
		if (!strcmp(s->name, FORCE_POLL))
			force_poll = s->address - IMAGE;
		else if (!strcmp(s->name, TIMER_PERIOD))
			timer_period = s->address - IMAGE;
		if (!strchr("tTwW", type))
			continue;
		for (i = 0; i < ARRAY_SIZE(meanings); i++)
			if (!strcmp(s->name, meanings[i].name))
				s->meaning = meanings[i].meaning;
		nr_symbols++;
	}
	fclose(f);
	qsort(symbols, nr_symbols, sizeof(*symbols), by_address);
}

static struct symbol *find_symbol(unsigned long pc)
{
	size_t low = 0, high = nr_symbols, mid;

	if (!(pc & KERNEL) || !nr_symbols || pc < symbols[0].address)
		return &user;
	while (high - low > 1) {
		mid = (low + high) / 2;
		if (symbols[mid].address <= pc)
			low = mid;
		else
			high = mid;
	}
	/* Aliases: one that means something goes first. */
	for (mid = low; mid && symbols[mid].address == symbols[mid - 1].address;)
		if (symbols[--mid].meaning != PLAIN)
			return &symbols[mid];
	return &symbols[low];
}

/*
 * CPUs and their clocks.
 */

#define MAX_HOLDS	16

struct hold {
	unsigned long lock;	/* physical */
	unsigned long wanted;	/* since when */
	unsigned long transfers;
	unsigned long insns;
};

static struct cpu {
	struct CPUState *state;	/* QEMU's */
	unsigned long clock;
	unsigned long insns;	/* all, but for those of ticks */
	unsigned long transfers;
	bool leaving;		/* told to end its turn */
	bool tick;
	unsigned long wanted;	/* the lock it waits for */
	unsigned long wanted_at;
	unsigned long wanted_since;
	unsigned int nr_holds;
	struct hold hold[MAX_HOLDS];
	unsigned int *tags;	/* the cache: lines, by sets */
	unsigned char *hand;	/* which one of a set goes next */
} cpus[MAX_CPUS];

/* The round began here, on all clocks. */
static unsigned long now;
static unsigned int running;

static void next_turn(unsigned int nr)
{
	struct cpu *c = &cpus[nr];

	if (nr <= running)
		now += opt_turn;
	running = nr;
	c->leaving = false;
	/* It had nothing to do, or waited. */
	if (c->clock < now)
		c->clock = now;
}

static void end_turn(unsigned int nr)
{
	struct cpu *c = &cpus[nr];

	if (c->leaving)
		return;
	if (!c->state)
		c->state = qemu_get_cpu(nr);
	c->leaving = true;
	cpu_exit(c->state);
}

/*
 * What is counted.
 */

enum move {
	READ,		/* another CPU had the line alone */
	WRITE,		/* another CPU had a copy */
	FETCH,		/* others have copies, and keep them */
	MEMORY,		/* nobody had it */
	KINDS
};

static const char kind_letter[] = "rwfm";

struct event {
	unsigned long paddr;	/* 0: free */
	unsigned long pc;
	unsigned long vaddr;	/* the first */
	unsigned int kind;
	unsigned int size;
	unsigned long count;
};

#define MAX_EVENTS	0x400000UL

static struct event *events;
static unsigned long nr_events;

struct lock {
	unsigned long paddr;
	unsigned long vaddr;
	unsigned long taken;
	unsigned long waited;	/* ps, by all who waited */
	unsigned long busy;	/* ps: held, or on its way to the next one */
	unsigned long released;	/* when it was last */
	unsigned long transfers;
	unsigned long insns;
};

#define MAX_LOCKS	0x10000UL

static struct lock *locks;

static bool translated;
static bool active;
static bool counting;
static unsigned long skipped, counted;	/* of the plan */
static unsigned long faults;
static unsigned long began;
static unsigned long totals[KINDS];
static unsigned long tick_totals[KINDS];
static unsigned long ticks;
static unsigned long tick_insns;

static unsigned long hash(unsigned long a, unsigned long b)
{
	a = (a ^ b * 0x9e3779b97f4a7c15UL) * 0xff51afd7ed558ccdUL;
	return a ^ a >> 32;
}

static void count_event(unsigned long paddr, unsigned long vaddr,
			unsigned long pc, enum move kind, unsigned int size)
{
	unsigned long i = hash(paddr * 4 + kind, pc) % MAX_EVENTS;
	struct event *e;

	for (;; i = (i + 1) % MAX_EVENTS) {
		e = &events[i];
		if (!e->count)
			break;
		if (e->paddr == paddr && e->pc == pc && e->kind == kind) {
			e->count++;
			return;
		}
	}
	if (++nr_events > MAX_EVENTS / 2)
		die("too many different transfers");
	*e = (struct event){ .paddr = paddr, .pc = pc, .vaddr = vaddr,
			     .kind = kind, .size = size, .count = 1 };
}

static struct lock *find_lock(unsigned long paddr)
{
	unsigned long i = hash(paddr, 0) % MAX_LOCKS, n;

	for (n = 0; n < MAX_LOCKS; n++, i = (i + 1) % MAX_LOCKS) {
		if (!locks[i].paddr)
			locks[i].paddr = paddr;
		if (locks[i].paddr == paddr)
			return &locks[i];
	}
	die("too many locks");
	return NULL;
}

/*
 * Spinlocks.  They are taken by an instruction with a lock prefix in a function
 * that does nothing else, held once that function and those that it calls are
 * left, and released by a store of one byte.
 */

static void lock_wanted(struct cpu *c, unsigned long paddr, unsigned long vaddr,
			unsigned long since)
{
	/* Spinning writes other words, too: the first is the lock. */
	if (c->wanted)
		return;
	c->wanted = paddr;
	c->wanted_at = vaddr;
	c->wanted_since = since;
}

static void lock_taken(struct cpu *c)
{
	struct lock *lock = find_lock(c->wanted);

	lock->vaddr = c->wanted_at;
	if (counting) {
		lock->taken++;
		lock->waited += c->clock - c->wanted_since;
	}
	/* One that was never seen to be released makes room. */
	if (c->nr_holds == MAX_HOLDS)
		memmove(c->hold, c->hold + 1, --c->nr_holds * sizeof(c->hold[0]));
	c->hold[c->nr_holds++] = (struct hold){
		.lock = c->wanted,
		.wanted = c->wanted_since,
		.transfers = c->transfers,
		.insns = c->insns,
	};
	c->wanted = 0;
}

static void lock_released(struct cpu *c, unsigned long paddr)
{
	unsigned int i = c->nr_holds;
	unsigned long since;
	struct hold *hold;
	struct lock *lock;

	while (i-- && c->hold[i].lock != paddr)
		;
	if (i == -1U)
		return;
	hold = &c->hold[i];
	lock = find_lock(paddr);
	if (counting && hold->wanted >= began) {
		/* Whoever waited got it when it was free: how it got there counts. */
		since = hold->wanted > lock->released ? hold->wanted : lock->released;
		if (c->clock > since)
			lock->busy += c->clock - since;
		lock->transfers += c->transfers - hold->transfers;
		lock->insns += c->insns - hold->insns;
	}
	lock->released = c->clock;
	memmove(hold, hold + 1, (--c->nr_holds - i) * sizeof(*hold));
}

/*
 * Lines.
 */

struct line {
	unsigned long holders[MAX_CPUS / WORD];
	unsigned long ready;	/* from when on others can have it */
	unsigned int alone;	/* 1 + the only CPU that has it, if it may write; or 0 */
};

static struct line *lines;

static bool holds(const struct line *l, unsigned int nr)
{
	return l->holders[nr / WORD] >> nr % WORD & 1;
}

static bool any_holder(const struct line *l)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(l->holders); i++)
		if (l->holders[i])
			return true;
	return false;
}

/* A line comes into a cache, and may push another one out. */
static void cache_insert(struct cpu *c, unsigned int nr, unsigned long index)
{
	unsigned long sets = opt_size / opt_ways >> LINE_SHIFT;
	unsigned long set = index % sets, i;
	unsigned int *tag = &c->tags[set * opt_ways];
	struct line *old;

	/* It has been here and was taken away: its place is still there. */
	for (i = 0; i < opt_ways; i++)
		if (tag[i] == index)
			return;
	tag += c->hand[set];
	c->hand[set] = (c->hand[set] + 1) % opt_ways;
	if (*tag) {
		old = &lines[*tag];
		old->holders[nr / WORD] &= ~(1UL << nr % WORD);
		if (old->alone == nr + 1)
			old->alone = 0;
	}
	*tag = index;
}

/* It takes time, and the line is nowhere else meanwhile. */
static void spend(struct cpu *c, struct line *l, enum move kind)
{
	bool moves = kind == READ || kind == WRITE;

	if (c->tick)
		return;
	if (moves && c->clock < l->ready)
		c->clock = l->ready;
	c->clock += moves ? opt_transfer : opt_fetch;
	if (moves) {
		l->ready = c->clock;
		c->transfers++;
	}
}

struct site {
	unsigned long pc;
	bool atomic;	/* asks for the line to write it, and reads it then */
	bool locks;	/* may take a spinlock */
};

static void note(struct cpu *c, enum move kind, unsigned long paddr,
		 unsigned long vaddr, const struct site *site, unsigned int size)
{
	if (!counting)
		return;
	if (c->tick) {
		tick_totals[kind]++;
		return;
	}
	totals[kind]++;
	if (kind != MEMORY)
		count_event(paddr, vaddr, site->pc, kind, size);
}

static void miss(unsigned int nr, unsigned long paddr, unsigned long vaddr,
		 bool store, const struct site *site, unsigned int size)
{
	unsigned long bit = 1UL << nr % WORD;
	struct line *l = &lines[paddr >> LINE_SHIFT];
	struct cpu *c = &cpus[nr];
	bool mine = holds(l, nr), others;
	enum move kind = MEMORY;

	l->holders[nr / WORD] &= ~bit;
	others = any_holder(l);
	if (others)
		kind = store ? WRITE : l->alone ? READ : FETCH;
	if (store)
		memset(l->holders, 0, sizeof(l->holders));
	l->holders[nr / WORD] |= bit;
	l->alone = store || !others ? nr + 1 : 0;
	if (!mine)
		cache_insert(c, nr, paddr >> LINE_SHIFT);
	/* Alone with a line that others had, too, some time: nobody to ask. */
	if (mine && !others)
		return;
	spend(c, l, kind);
	note(c, kind, paddr, vaddr, site, size);
}

static void access_line(unsigned int nr, unsigned long paddr, unsigned long vaddr,
			bool store, const struct site *site, unsigned int size)
{
	struct line *l = &lines[paddr >> LINE_SHIFT];

	if (l->alone != nr + 1 && (store || !holds(l, nr)))
		miss(nr, paddr, vaddr, store, site, size);
	if (store && l->ready < cpus[nr].clock && !cpus[nr].tick)
		l->ready = cpus[nr].clock;
}

/*
 * Physical addresses.  What the kernel maps stays where it is while it is counted:
 * asking QEMU once a page will do.
 */

#define KNOWN_PAGES	0x10000UL

static struct {
	unsigned long vpage;
	unsigned long ppage;
} known[KNOWN_PAGES];

static unsigned long physical(unsigned int info, unsigned long vaddr)
{
	unsigned long vpage = vaddr >> PAGE_SHIFT, paddr;
	struct qemu_plugin_hwaddr *hw;

	if ((vaddr & KERNEL) && known[vpage % KNOWN_PAGES].vpage == vpage)
		return known[vpage % KNOWN_PAGES].ppage << PAGE_SHIFT |
		       (vaddr & ((1UL << PAGE_SHIFT) - 1));
	hw = qemu_plugin_get_hwaddr(info, vaddr);
	if (!hw || qemu_plugin_hwaddr_is_io(hw))
		return 0;
	paddr = qemu_plugin_hwaddr_phys_addr(hw);
	if (paddr >= opt_mem)
		return 0;
	if (vaddr & KERNEL) {
		known[vpage % KNOWN_PAGES].vpage = vpage;
		known[vpage % KNOWN_PAGES].ppage = paddr >> PAGE_SHIFT;
	}
	return paddr;
}

static void on_access(unsigned int nr, unsigned int info, unsigned long vaddr,
		      void *data)
{
	unsigned long paddr = physical(info, vaddr);
	bool store = qemu_plugin_mem_is_store(info);
	unsigned int size = 1U << qemu_plugin_mem_size_shift(info);
	const struct site *site = data;
	struct cpu *c = &cpus[nr];
	unsigned long before = c->clock;

	if (!paddr || !active)
		return;
	access_line(nr, paddr, vaddr, store || site->atomic, site, size);
	if (c->tick)
		return;
	/* The load of a compare-and-exchange comes first. */
	if (site->locks)
		lock_wanted(c, paddr, vaddr, before);
	else if (store && size == 1 && c->nr_holds)
		lock_released(c, paddr);
}

/*
 * Code.
 */

struct block {
	struct symbol *symbol;
	unsigned long pc;
	unsigned int nr;
};

static void on_block(unsigned int nr, void *data)
{
	const struct block *b = data;
	struct cpu *c = &cpus[nr];

	if (!active)
		return;
	if (nr != running || c->leaving)
		next_turn(nr);
	if (c->wanted && b->symbol->meaning != LOCKS && !c->tick)
		lock_taken(c);
	if (c->tick) {
		if (counting)
			tick_insns += b->nr;
		return;
	}
	c->clock += b->nr * opt_insn;
	c->insns += b->nr;
	if (counting) {
		b->symbol->insns += b->nr;
		b->symbol->calls += b->pc == b->symbol->address;
	}
	if (c->clock >= now + opt_turn)
		end_turn(nr);
}

static void poke(unsigned long paddr, int value)
{
	int fd = open(opt_ram, O_WRONLY);

	if (!paddr || fd < 0 || pwrite(fd, &value, sizeof(value), paddr) != sizeof(value))
		die("cannot write a variable of the kernel");
	close(fd);
}

/*
 * A CPU that halts is woken by an interrupt; one that waits for a write to a line, as
 * real ones do (mwait), is not.  Here those poll, but not before it is of use:
 * while they halt, time passes at once.
 */
static void let_poll(bool yes)
{
	if (opt_poll)
		poke(force_poll, yes);
}

static void write_result(void)
{
	static const char * const names[KINDS] = { "read", "write", "fetch", "memory" };
	char path[4096];
	unsigned long i;
	FILE *f;

	snprintf(path, sizeof(path), "%s.new", opt_out);
	f = fopen(path, "w");
	if (!f)
		die("cannot write the result");
	fprintf(f, "total faults %lu\ntotal ps %lu\n", counted, now - began);
	for (i = 0; i < KINDS; i++)
		fprintf(f, "total %s %lu\ntotal tick_%s %lu\n", names[i],
			totals[i], names[i], tick_totals[i]);
	fprintf(f, "total ticks %lu\ntotal tick_insns %lu\n", ticks, tick_insns);
	if (user.insns)
		fprintf(f, "insns %s %lu 0\n", user.name, user.insns);
	for (i = 0; i < nr_symbols; i++)
		if (symbols[i].insns)
			fprintf(f, "insns %s %lu %lu\n", symbols[i].name,
				symbols[i].insns, symbols[i].calls);
	for (i = 0; i < MAX_LOCKS; i++)
		if (locks[i].taken)
			fprintf(f, "lock %lx %lx %lu %lu %lu %lu %lu\n",
				locks[i].paddr, locks[i].vaddr, locks[i].taken,
				locks[i].waited, locks[i].busy,
				locks[i].transfers, locks[i].insns);
	for (i = 0; i < MAX_EVENTS; i++)
		if (events[i].count)
			fprintf(f, "event %lx %lx %lx %c %u %lu\n",
				events[i].paddr, events[i].vaddr, events[i].pc,
				kind_letter[events[i].kind], events[i].size,
				events[i].count);
	if (fclose(f) || rename(path, opt_out))
		die("cannot write the result");
	/* As it is now memory can be looked at. */
	while (!access(opt_out, F_OK))
		usleep(20000);
}

/* The plan's next line. */
static bool next_case(void)
{
	static FILE *plan;

	if (!plan)
		plan = fopen(opt_plan, "r");
	if (!plan)
		die("cannot read the plan");
	return fscanf(plan, "%lu %lu", &skipped, &counted) == 2;
}

static void empty(void *p, size_t len)
{
	if (madvise(p, len, MADV_DONTNEED))
		die("madvise");
}

static void forget(void)
{
	unsigned long ways = opt_size >> LINE_SHIFT;
	struct cpu *c, old;
	size_t i;

	for (c = cpus; c < cpus + nr_cpus; c++) {
		old = *c;
		*c = (struct cpu){ .state = old.state, .tags = old.tags, .hand = old.hand };
		empty(c->tags, ways * sizeof(*c->tags));
		empty(c->hand, ways / opt_ways);
	}
	for (i = 0; i < nr_symbols; i++) {
		symbols[i].insns = 0;
		symbols[i].calls = 0;
	}
	user.insns = 0;
	empty(lines, (opt_mem >> LINE_SHIFT) * sizeof(*lines));
	empty(events, MAX_EVENTS * sizeof(*events));
	empty(locks, MAX_LOCKS * sizeof(*locks));
	memset(known, 0, sizeof(known));
	memset(totals, 0, sizeof(totals));
	memset(tick_totals, 0, sizeof(tick_totals));
	nr_events = 0;
	ticks = 0;
	tick_insns = 0;
	faults = 0;
	now = 0;
	running = 0;
	counting = false;
}

static void on_fault(unsigned int nr, void *data)
{
	(void)nr;
	(void)data;
	if (!active)
		return;
	faults++;
	if (faults == skipped) {
		counting = true;
		began = now;
	} else if (faults == skipped + counted) {
		write_result();
		active = false;
		forget();
		let_poll(false);
	}
}

static void on_tick(unsigned int nr, void *data)
{
	cpus[nr].tick = data;
	if (data && counting)
		ticks++;
}

static void start(unsigned long id);

static void on_start(unsigned int nr, void *data)
{
	(void)nr;
	(void)data;
	if (active || !next_case())
		return;
	let_poll(true);
	/*
	 * All code has to be translated anew, once.  That cannot be undone: QEMU 7.2
	 * goes on to call what is there no longer.
	 */
	if (translated)
		active = true;
	else
		qemu_plugin_reset(plugin, start);
}

/* With a lock prefix, or xchg, which needs none. */
static bool is_atomic(const unsigned char *code, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		if (code[i] == 0xf0)
			return true;
		if (code[i] == 0x86 || code[i] == 0x87)
			return true;
		/* Prefixes: operand size, segments, repeat, REX. */
		if (code[i] != 0x66 && code[i] != 0x65 && code[i] != 0x64 &&
		    code[i] != 0x2e && code[i] != 0x3e &&
		    code[i] != 0xf2 && code[i] != 0xf3 && code[i] >> 4 != 4)
			return false;
	}
	return false;
}

static void instrument(struct qemu_plugin_insn *insn, const struct symbol *symbol)
{
	struct site *site = keep(sizeof(*site));
	void (*cb)(unsigned int nr, void *data) = NULL;

	site->pc = qemu_plugin_insn_vaddr(insn);
	site->atomic = is_atomic(qemu_plugin_insn_data(insn),
				 qemu_plugin_insn_size(insn));
	site->locks = symbol->meaning == LOCKS && site->atomic;
	if (site->pc == symbol->address) {
		if (symbol->meaning == FAULT)
			cb = on_fault;
		else if (symbol->meaning == TICK || symbol->meaning == TICK_OVER)
			cb = on_tick;
	}
	if (site->pc == opt_start)
		cb = on_start;
	if (cb)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, cb, PLUGIN_NO_REGS,
						       symbol->meaning == TICK ? site : NULL);
	qemu_plugin_register_vcpu_mem_cb(insn, on_access, PLUGIN_NO_REGS,
					 PLUGIN_MEM_ANY, site);
}

static void on_translated(unsigned long id, struct qemu_plugin_tb *tb)
{
	struct block *b = keep(sizeof(*b));
	size_t i;

	(void)id;
	b->nr = qemu_plugin_tb_n_insns(tb);
	b->pc = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
	b->symbol = find_symbol(b->pc);
	qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, PLUGIN_NO_REGS, b);
	/* A block does not go on into another function. */
	for (i = 0; i < b->nr; i++)
		instrument(qemu_plugin_tb_get_insn(tb, i), b->symbol);
}

static void start(unsigned long id)
{
	translated = true;
	active = true;
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
}

/*
 * To measure it takes 100 million instructions, nearly all of them "pause", each of
 * which QEMU takes for a reason to ask all other CPUs whether they have something to
 * do.  The clock is that of the instructions.
 */
static void on_calibrate(unsigned int nr, void *data)
{
	(void)nr;
	(void)data;
	poke(timer_period, 1000000000 / opt_hz);
}

static void look_for_start(unsigned long id, struct qemu_plugin_tb *tb)
{
	size_t i, nr = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, 0);
	unsigned long pc = qemu_plugin_insn_vaddr(insn);
	const struct symbol *symbol = find_symbol(pc);

	(void)id;
	if (symbol->meaning == CALIBRATE && symbol->address == pc)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_calibrate,
						       PLUGIN_NO_REGS, NULL);
	if (pc & KERNEL)
		return;
	for (i = 0; i < nr; i++) {
		insn = qemu_plugin_tb_get_insn(tb, i);
		if (qemu_plugin_insn_vaddr(insn) == opt_start)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_start,
							       PLUGIN_NO_REGS,
							       NULL);
	}
}

static const struct {
	const char *name;
	unsigned long *number;
	const char **text;
} options[] = {
	{ "start", .number = &opt_start },	/* address of a function: begin with it */
	{ "plan", .text = &opt_plan },	/* lines of two numbers, see above */
	{ "mem", .number = &opt_mem },		/* bytes that the guest has, from 0 on */
	{ "size", .number = &opt_size },		/* bytes of each cache */
	{ "ways", .number = &opt_ways },
	{ "turn", .number = &opt_turn },		/* ps */
	{ "insn", .number = &opt_insn },		/* ps that an instruction takes */
	{ "transfer", .number = &opt_transfer },	/* ps that a transfer takes */
	{ "fetch", .number = &opt_fetch },	/* ps: what no other cache must give up */
	{ "poll", .number = &opt_poll },	/* CPUs that idle poll */
	{ "hz", .number = &opt_hz },		/* the kernel's */
	{ "ram", .text = &opt_ram },	/* the guest's memory, a file */
	{ "map", .text = &opt_map },	/* System.map */
	{ "out", .text = &opt_out },	/* the result */
};

static bool set_option(const char *arg)
{
	size_t i, len;

	for (i = 0; i < ARRAY_SIZE(options); i++) {
		len = strlen(options[i].name);
		if (strncmp(arg, options[i].name, len) || arg[len] != '=')
			continue;
		if (options[i].text)
			*options[i].text = strdup(arg + len + 1);
		else
			*options[i].number = strtoul(arg + len + 1, NULL, 0);
		return true;
	}
	return false;
}

int qemu_plugin_install(unsigned long id, const struct qemu_info *info,
			int argc, char **argv)
{
	unsigned long ways;
	unsigned int nr;
	int i;

	for (i = 0; i < argc; i++) {
		if (!set_option(argv[i])) {
			fprintf(stderr, "lines: no option %s\n", argv[i]);
			return -1;
		}
	}
	nr_cpus = info->max_vcpus;
	ways = opt_size >> LINE_SHIFT;
	if (!opt_start || !opt_plan || !opt_map || !opt_ram || !opt_out) {
		fprintf(stderr, "lines: start=, plan=, map=, ram= and out= are needed\n");
		return -1;
	}
	if (!info->system_emulation || nr_cpus > MAX_CPUS || !opt_turn ||
	    !opt_hz || !opt_ways || opt_ways > 255 || ways < opt_ways) {
		fprintf(stderr, "lines: no such machine; at most %d CPUs\n", MAX_CPUS);
		return -1;
	}
	plugin = id;
	read_map(opt_map);
	lines = reserve((opt_mem >> LINE_SHIFT) * sizeof(*lines));
	events = reserve(MAX_EVENTS * sizeof(*events));
	locks = reserve(MAX_LOCKS * sizeof(*locks));
	for (nr = 0; nr < nr_cpus; nr++) {
		cpus[nr].tags = reserve(ways * sizeof(*cpus[nr].tags));
		cpus[nr].hand = reserve(ways / opt_ways);
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, look_for_start);
	return 0;
}
