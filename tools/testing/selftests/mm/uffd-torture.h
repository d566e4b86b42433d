/* SPDX-License-Identifier: GPL-2.0 */
/*
 * uffd-torture: what its parts share.
 *
 * A round plays in worlds. A world is a process with a few regions of memory,
 * registered on a few userfaultfds; threads that use the memory, threads or
 * processes that serve its faults, and threads that do to it whatever the
 * system calls for memory allow. All that they know of each other is in one
 * struct world, in memory that every process of the round shares and that is
 * never registered.
 *
 *	uffd-torture.c		rounds, time limits, results
 *	uffd-torture-report.c	what is printed of a failure; counters
 *	uffd-torture-world.c	a world: its memory, its threads, its end
 *	uffd-torture-page.c	the oracle: what a page may hold
 *	uffd-torture-serve.c	readers of messages, and what they must find
 *	uffd-torture-fill.c	the calls that resolve faults
 *	uffd-torture-use.c	threads that use the memory
 *	uffd-torture-act.c	threads that change pages
 *	uffd-torture-map.c	threads that change mappings and processes
 *	uffd-torture-mode.c	writes that are told, or only noted
 *	uffd-torture-nowait.c	events that nobody waits for
 *	uffd-torture-exchange.c	resolving and reading in one call
 *
 * Nobody waits for a lock of the oracle. Who holds one may be asleep before a page,
 * and who wants it may be the one to bring that; so what is taken is passed by.
 */
#ifndef UFFD_TORTURE_H
#define UFFD_TORTURE_H

#include <setjmp.h>
#include <signal.h>

#include "../kselftest.h"
#include "uffd-kit.h"
#include "uffd-torture-ring.h"

#define MAX_WORLDS	3
#define MAX_REGIONS	4
#define MAX_FDS		4
#define MAX_PAGES	1024
#define MAX_THREADS	48
#define LOG_LINES	256
#define MAX_SPARES	3
#define BUF_SIZE	(2UL << 20)

#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define MINOR		UFFDIO_REGISTER_MODE_MINOR
#define WP		UFFDIO_REGISTER_MODE_WP

enum op {
#define OP(name) OP_##name
#include "uffd-torture-ops.h"
#undef OP
	NR_OPS,
};

extern const char *const op_name[NR_OPS];

/* The tests that this program is made of; a failure is one of them. */
enum test {
	T_CONTENT,	/* a page is lost, stale, torn or another's */
	T_ASLEEP,	/* somebody sleeps who should not */
	T_MESSAGE,	/* order, number and meaning of messages */
	T_PROTECT,	/* protection that is lost or stays */
	T_CALL,		/* a call returns what it cannot */
	T_COUNTER,	/* memory that does not come back */
	NR_TESTS,
};

/*
 * What is known of a page. Its versions grow. A writer raises @started, writes,
 * and raises @settled; so whoever looks without a lock must find a version from
 * what was settled before the look to what has been started after it. Versions
 * that are a multiple of ZERO_EVERY are a page of zeros.
 *
 * A page that is emptied gets a new version, @next, which is what handlers are to
 * fill in from then on. If the emptying causes a REMOVE they learn so from that: only
 * by reading it does @next become @store, and until then the kernel has to see to it
 * that a page filled with the old version does not survive. If it causes none
 * fills are kept away by @fill.
 */
struct page {
	uint32_t lock;		/* held by who changes the content */
	uint32_t fill;		/* held by who fills, protects or empties */
	uint32_t started;
	uint32_t settled;
	uint32_t store;		/* what a handler has to fill in */
	uint32_t next;
	uint32_t odd;		/* odd while anything may be read */
	uint32_t epoch;		/* region's @unarmed, at the last look; @lock */
	uint32_t wp;		/* protection() + 1 if protected, or 0 */
	uint32_t awaits;	/* a REMOVE; see enum awaits */
	/* For messages that come twice: see wake_begin(). */
	uint32_t wakers;
	uint64_t woken;
};

#define ZERO_EVERY	8

/* UNSURE: it may be read or not, or twice: somebody has been killed. */
enum awaits { NOTHING, EXPECTED, TOLD, UNSURE };

struct region {
	unsigned int nr;
	enum uk_kind kind;
	size_t unit;
	size_t step;		/* from one tag to the next */
	size_t len;
	unsigned int pages;
	int memfd;
	char *arena[2];		/* where it may lie */
	unsigned int at;	/* in which of them it does */
	char *alias;		/* shared: mapped once more, not registered */
	__u64 mode;
	unsigned int fd;	/* index of the world's */

	uint32_t unarmed;	/* odd while faults are not told of all of it */
	uint32_t wp_epoch;	/* the same, of protection */
	/* Actors that rely on the mapping as it is; -1: one that changes it. */
	int users;
	uint32_t truncated;	/* odd while pages may be past the end */
	uint32_t orphaned;	/* odd while it may be registered with nobody */

	/* What handlers have been told: where it lies, and what is unmapped. */
	unsigned int place;
	uint32_t unmap_awaits;	/* as page.awaits */
	__u64 unmap_start, unmap_end;
	bool unmap_anew;	/* and registered again by now */

	/* All modes that it has been registered for, @mode among them. */
	__u64 modes;

	struct page page[MAX_PAGES];
};

struct worker {
	pid_t tid;		/* 0: slot not in use */
	long long since;	/* ms; 0: not in a step */
	enum op op;
	int region, page;
	char role;		/* u: use, s: serve, a: act, m: main */
	uint32_t steps;
	uint32_t seen_step, seen;	/* by the watch */

	/* An event that this thread is about to cause, and when it was over. */
	bool causing;
	__u64 cause_start, cause_end;
	uint64_t caused;

	/* The last fault that a handler was told of, and of which step. */
	uint64_t told;
	uint32_t told_step;
	struct page *told_page;
	uint32_t told_taken;
	/* Signals: one at a time. */
	uint32_t sent, taken;

	/* A page that it has dropped, and looks at before anybody may know. */
	struct page *behind;
};

struct log_line {
	long long when;
	pid_t tid;
	enum op op;
	int region, page, pages;
	int ret;
};

/*
 * What becomes of a write to a protected page, for each descriptor. State % 4: 0 it is
 * told, 2 it is noted (WP_ASYNC), and the odd ones between: who knows.
 */
struct noting {
	uint32_t lock;
	uint32_t state;
	uint64_t since;		/* when it was switched */
};

/* A fill under way against which a REMOVE is launched; see duel(). */
struct duel {
	uint32_t state;		/* 0 none, 1 prepared, 2 filling, 3 filled */
	unsigned int region, from, pages;
	int filled;
};

struct world {
	unsigned int nr;
	__u64 seed;
	__u64 features;
	pid_t pid, server[MAX_SPARES + 1];
	unsigned int serving;	/* which of them does, from 1 on */
	unsigned int regions, fds, users, servers, actors;
	int fd[MAX_FDS];
	bool nonblock;
	bool external;		/* handlers are in processes of their own */
	bool sloppy;		/* fills do not always wake */
	bool events;		/* some are asked for */
	bool handover;		/* handlers are killed, others take over */
	bool passed;		/* handlers are sent their descriptors */
	unsigned int ending;
	char cgroup[96];

	/* Handlers that fill with what they know; -1: one that is told more. */
	int know[MAX_FDS];
	int wants[MAX_FDS];
	struct noting noting[MAX_FDS];
	/* A page of each that is dropped to see the message: see pass_mark(). */
	char *mark[MAX_FDS];
	uint32_t mark_lock[MAX_FDS];
	uint32_t mark_awaits[MAX_FDS];	/* as page.awaits */
	/* Children that nobody serves: what they miss is zeros to them. */
	uint32_t orphans;

	/* Each says that all of the kind are to leave. */
	bool stop_actors, stop_users, stop_servers;
	bool go;		/* all threads are there: begin */
	bool finish;		/* the round's time is over */
	bool closed;		/* the descriptors are: nothing is promised */
	bool over;		/* the process may be killed by now */
	bool failed;
	enum test what;
	char why[512];

	uint64_t clock;
	struct worker worker[MAX_THREADS];
	uint64_t done[NR_OPS];
	uint64_t refused[NR_OPS];
	uint32_t log_next;
	struct log_line log[LOG_LINES];
	struct duel duel;
	struct region region[MAX_REGIONS];
};

enum ending { END_ORDERLY, END_CLOSE, END_EXIT, END_KILL, END_EXEC, NR_ENDINGS };

/* The world of this process; not that of the process which runs the rounds. */
extern struct world *world;

/* What the machine has and the kernel keeps to. */
struct setting {
	__u64 offered;		/* features */
	bool ordered;		/* the promises of order hold: see probe_order() */
	bool swap;
	bool root_cgroup;
	bool nodes;		/* more than one */
	char cgroup[64];
	int direct_fd;		/* a device or file opened O_DIRECT, or -1 */
	unsigned int patience;	/* ms within which a step is over */
	bool only[NR_OPS];	/* of the actors: from TORTURE_OPS */
	bool some;
};

extern struct setting setting;

struct random {
	__u64 state;
};

static inline __u64 any(struct random *r)
{
	r->state ^= r->state << 13;
	r->state ^= r->state >> 7;
	r->state ^= r->state << 17;
	return r->state * 0x2545f4914f6cdd1dULL >> 11;
}

static inline unsigned int below(struct random *r, unsigned int n)
{
	return any(r) % n;
}

static inline bool chance(struct random *r, unsigned int percent)
{
	return below(r, 100) < percent;
}

/* Each thread has one. */
struct self {
	struct worker *worker;
	struct random random;
	unsigned int nr;	/* of its kind */
	char role;
	sigjmp_buf trap;
	sig_atomic_t armed;	/* a trap may be caught */
	/* Memory of its own, BUF_SIZE long, a step is free to use. */
	char *buf;
	char *page;		/* a page, with nothing behind it */
	char *stack;		/* top of one for a child that shares the memory */
	int pipe[2];
	struct ring ring;	/* for registered buffers */
};

extern __thread struct self *self;

/* uffd-torture-report.c */

extern const char *const test_name[NR_TESTS];

struct counters {
	long free, reserved, surplus, anon_huge;
};

/* A line of /proc/meminfo. */
long read_meminfo(const char *key);
struct counters read_counters(void);
void report(struct world *w);
/* Waits for what was used to be free again, and says so if it is not. */
bool check_counters(const struct counters *was, struct world *worlds,
		    unsigned int n);

/* uffd-torture.c */

__printf(2, 3) void fail(enum test what, const char *fmt, ...);
void begin(enum op op, int region, int page);
/* Counts and logs; a result below zero is one that was refused. */
void end(int pages, int ret);
/* What is counted inside another step. */
void count(enum op op, int region, int page, int pages, int ret);
uint64_t tick(void);

/* uffd-torture-world.c */

int world_main(void *arg);
/* Memory of a thread, made before anything is registered. */
struct self *new_self(char role, unsigned int nr);
bool enter_self(struct self *me);
void leave_self(void);
bool has(__u64 feature);
int register_region(struct region *r);
/* Sends the descriptors to the handler whose turn it is, if they are to be sent. */
void pass_fds(void);

/* As uk_reap(), but with a number of looks for a limit. */
int reap(pid_t pid);

/* uffd-torture-page.c */

/* Why an access did not end. */
enum trap { TRAP_NONE, TRAP_SEGV, TRAP_BUS };

void catch_traps(void);
bool try_lock(uint32_t *lock);
void unlock(uint32_t *lock);
/* One of many with the number at hand, and the one alone. */
bool try_use(int *users);
void unuse(int *users);
bool try_change(int *users);
void unchange(int *users);

bool is_shared(const struct region *r);
bool is_hugetlb(const struct region *r);
bool is_anon(const struct region *r);
char *page_at(struct region *r, unsigned int page);
/* The region and page of an address in any arena, or NULL. */
struct region *find_page(__u64 addr, unsigned int *page, unsigned int *arena);
/* What a page looks like in this version, in memory that cannot fault. */
void paint(struct region *r, unsigned int page, uint32_t version, char *buf);
__u64 tag(struct region *r, unsigned int page, uint32_t version);
bool is_zero(uint32_t version);
bool may_be_missing(struct region *r);

enum trap load(const char *at, __u64 *val);
enum trap store(char *at, __u64 val);

/* For a look without the lock: note first, access, then judge. */
struct glance {
	struct region *region;
	unsigned int page;
	uint32_t settled, odd, epoch;
};

void glance(struct glance *g, struct region *r, unsigned int page);
/* Has the kernel been allowed to fill in zeros since @epoch was noted? */
bool zeros_are_fine(struct region *r, uint32_t epoch);
void judge(const struct glance *g, __u64 val, const char *how);
/* Is a page in this buffer what it must be, the page's lock held? */
bool check_copy(struct region *r, unsigned int page, const char *buf,
		const char *how);

/*
 * With the page's lock held. check_page() looks at every tag and at some of what
 * is between them, and puts right what a time without registration has emptied;
 * false if the world ends meanwhile.
 */
bool check_page(struct region *r, unsigned int page);
uint32_t next_version(struct region *r, unsigned int page, bool zero);
/* Writes a version by plain stores; false if the world ends meanwhile. */
bool write_page(struct region *r, unsigned int page, uint32_t version);
/* The same in two halves, for who writes in another way. */
void start_write(struct region *r, unsigned int page, uint32_t version);
void settle_write(struct region *r, unsigned int page, uint32_t version);

/* Locks of a range of pages, all or none. */
bool lock_pages(struct region *r, unsigned int from, unsigned int n);
void unlock_pages(struct region *r, unsigned int from, unsigned int n);
bool lock_fills(struct region *r, unsigned int from, unsigned int n);
void unlock_fills(struct region *r, unsigned int from, unsigned int n);

/*
 * Around what empties pages whose locks are held. If handlers are not told by an
 * event it takes the locks of fills too, and fails if they are not free.
 */
bool begin_empty(struct region *r, unsigned int from, unsigned int n, bool told);
void end_empty(struct region *r, unsigned int from, unsigned int n, bool told,
	       bool did);
/* Around what must cause REMOVE but leaves the content. */
void begin_drop(struct region *r, unsigned int from, unsigned int n, bool told);
void end_drop(struct region *r, unsigned int from, unsigned int n, bool told,
	      bool did);

/* Waits for a handler to take note of an event; false if it does not come. */
bool await(uint32_t *awaits);
/* Waits for a reader that may be on the way back with what has been caused. */
void await_reader(struct region *r);

/* Around a call that may wake who sleeps on these pages. */
void wake_begin(struct region *r, unsigned int from, unsigned int n);
void wake_end(struct region *r, unsigned int from, unsigned int n);
/* Around a call that causes an event. */
void cause_begin(__u64 start, __u64 end);
void cause_end(void);

/* uffd-torture-serve.c */

/* The world's descriptors, by the numbers that they have in this process. */
extern int local_fd[MAX_FDS];
/* Where a handler in another process is sent them, both ends. */
extern int pass_sock[MAX_SPARES + 1][2];
void *serve(void *self);
int server_main(void *arg);

/* uffd-torture-fill.c */

/* What became of a fault. */
enum verdict { SERVED, GONE, BUSY, REFUSED };

/* A call on pages of a region where it lies, or lay when somebody faulted. */
struct job {
	int fd;
	struct region *r;
	char *base;
	unsigned int from, n;
	uint64_t since;		/* when it began */
	uint32_t unarmed;	/* of the region, then */
};

/* What the oracle has noted of its pages before a call. */
struct account {
	uint32_t epoch;		/* see protection() */
	uint32_t *odd;		/* of each */
};

/* What a fault is about; false if that cannot be. */
bool find_job(struct job *j, int fd, const struct uffd_msg *msg);
void begin_job(struct job *j);
char *job_addr(const struct job *j);
size_t job_len(const struct job *j);
int wake_job(const struct job *j);
/* How a page is to be filled in, its fill lock held; @protect: and left protected. */
enum op choose_fill(const struct job *j, bool *protect);
void paint_job(const struct job *j, char *buf);
/* Around the call. @protect: it is to leave protected what it fills in. */
void open_account(struct account *a, const struct job *j);
void close_account(enum op op, const struct account *a, const struct job *j,
		   struct uk_fill fill, bool protect);
bool only_copy_can(enum op op, int err);
enum verdict outcome(const struct job *j, int err, __s64 out,
		     uint32_t truncated);
enum verdict serve_fault(int fd, const struct uffd_msg *msg);
enum verdict serve_child(int fd, const struct uffd_msg *msg);
void prefill(unsigned int fd);
void bad_call(unsigned int fd);
int wake_pages(int fd, struct region *r, char *addr, unsigned int from,
	       unsigned int n);
void fill_duel(void);

/* uffd-torture-exchange.c */

#define MAX_ORDERS	16
#define MAX_WIDE	8

/* A fault that is to be resolved by one operation of several. */
struct order {
	struct uffd_msg msg;
	struct job j;
	enum op op;
	bool protect, silent;
	unsigned int at;	/* in the array; what wakes, if it is silent, behind it */
	uint32_t truncated, odd[MAX_WIDE];
	struct account account;
	enum verdict verdict;
};

struct exchange {
	int fd;
	struct order order[MAX_ORDERS];
	unsigned int orders;
	size_t used;		/* of the thread's buffer */
	struct uffdio_op ops[2 * MAX_ORDERS];
	struct uffdio_exchange call;
};

/* Adds a fault; false if somebody is at its page, or there is no room. */
bool add_order(struct exchange *x, const struct uffd_msg *msg);
/*
 * Runs it all, judges what has come of each order, and takes up to @room messages; @patient:
 * nothing is lost if it waits for these. Returns how many, or -errno.
 */
int exchange(struct exchange *x, struct uffd_msg *msg, unsigned int room,
	     bool patient);

/* uffd-torture-use.c, uffd-torture-act.c, uffd-torture-map.c */

void *use(void *self);
void *act(void *self);
/* One step of those that change mappings; @op is from MREMAP on. */
void act_on_map(enum op op, struct region *r);

/* uffd-torture-mode.c */

void act_set_mode(struct region *r);
/*
 * Changes with all that ends what is known of protection: odd while writes to what is
 * protected may go through without a word.
 */
uint32_t protection(struct region *r);
/* Have writes been noted, and not told, all the time since then? */
bool was_noted(unsigned int fd, uint64_t since);

/* uffd-torture-nowait.c */

/* Does a thread that drops memory go on before that has been read? */
bool drops_go_on(void);
bool map_marks(void);
void register_marks(void);
/* All that this thread has caused on a descriptor has been read when it returns. */
void pass_mark(unsigned int fd);
bool is_mark(const struct uffd_msg *msg);
/* Who has dropped pages looks at them at once. */
void look_behind(struct region *r, unsigned int from, unsigned int n);
/* A fault has been read: has the event that it stands behind? */
void check_behind(const struct uffd_msg *msg, struct region *r, unsigned int page);

#endif /* UFFD_TORTURE_H */
