// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: what can be seen of it, in fdinfo and by its tracepoints.
 *
 * - fdinfo: who waits, for how long, since when nobody has read, which features.
 * - Tracepoints: each tells of its cause, with the numbers that it should have, in
 *   the order in which things happen.
 * - What the documentation tells to do when a program hangs finds the reason.
 *
 * The tracepoints are looked at in an instance of tracefs of their own.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "uffd-kit.h"

#define TRACEFS		"/sys/kernel/tracing"
#define INSTANCE	TRACEFS "/instances/uffd-observe"
#define EVENTS		INSTANCE "/events/userfaultfd"

#define UNITS		8
#define DELAY		30	/* ms */

#define REMAP		UFFD_FEATURE_EVENT_REMAP
#define REMOVE		UFFD_FEATURE_EVENT_REMOVE
#define UNMAP		UFFD_FEATURE_EVENT_UNMAP

/* FIXTURE_DATA(observe), by a name that reads well in a prototype. */
#define observe_test _test_data_observe

FIXTURE(observe)
{
	struct uk_mem m;
	char *src;
	int fd;
	char id[32];		/* as it begins each line */
	char *text;		/* what has been traced */
	size_t room;
	bool traced;
	struct uk_thread t;
	struct uk_call call;
};

/* Returns why there is nothing to be seen. */
static const char *trace_on(void)
{
	if (access(TRACEFS "/instances", F_OK))
		mount("tracefs", TRACEFS, "tracefs", 0, NULL);
	if (mkdir(INSTANCE, 0700) && errno != EEXIST)
		return "needs tracefs, and root";
	if (access(EVENTS, F_OK)) {
		rmdir(INSTANCE);
		return "this kernel has no tracepoints of userfaultfd";
	}
	if (!uk_write_file(INSTANCE "/trace", "") ||
	    !uk_write_file(EVENTS "/enable", "1"))
		return "cannot trace";
	return NULL;
}

FIXTURE_SETUP(observe)
{
	const char *why;
	struct stat st;

	why = uk_map(&self->m, UK_ANON_SMALL, UNITS);
	if (why)
		SKIP(return, "%s", why);
	self->fd = uk_new(O_CLOEXEC | O_NONBLOCK, REMAP | REMOVE | UNMAP);
	if (self->fd == -EPERM)
		SKIP(return, UK_NEEDS_ROOT);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, fstat(self->fd, &st));
	snprintf(self->id, sizeof(self->id), "uffd=%lu ",
		 (unsigned long)st.st_ino);
	self->src = uk_buffer(self->m.unit);
	self->room = 1 << 20;
	self->text = malloc(self->room);
	ASSERT_NE(NULL, self->src);
	ASSERT_NE(NULL, self->text);
	uk_paint(self->src, self->m.unit, 1);
}

FIXTURE_TEARDOWN(observe)
{
	close(self->fd);
	if (!self->traced)
		return;
	uk_write_file(EVENTS "/enable", "0");
	rmdir(INSTANCE);
}

/* False if the test has been skipped. */
static bool trace_began(struct __test_metadata *_metadata,
			struct observe_test *self)
{
	const char *why = trace_on();

	if (why)
		SKIP(return false, "%s", why);
	self->traced = true;
	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	return true;
}

static char *at(struct observe_test *self, unsigned int unit)
{
	return uk_at(&self->m, unit);
}

static struct uk_fill copy(struct observe_test *self, unsigned int unit)
{
	return uk_copy(self->fd, at(self, unit), self->src, self->m.unit, 0);
}

/* Tracefs gives a page at a time. */
static bool read_all(struct observe_test *self, const char *path)
{
	size_t done = 0;
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	do {
		n = read(fd, self->text + done, self->room - 1 - done);
		done += n > 0 ? n : 0;
	} while (n > 0);
	close(fd);
	self->text[done] = '\0';
	return !n;
}

static bool look(struct observe_test *self)
{
	return read_all(self, INSTANCE "/trace");
}

/*
 * The line of this userfaultfd, after @from in what look() has read, that the event
 * has left and that goes on like this; or NULL.
 */
static char *line_of(struct observe_test *self, char *from, const char *event,
		     const char *text)
{
	char want[256];

	if (!from)
		return NULL;
	snprintf(want, sizeof(want), " uffd_%s: %s%s", event, self->id, text);
	return strstr(from, want);
}

/* The same for the address of a unit, or what begins with it. */
static char *line_at(struct observe_test *self, char *from, const char *event,
		     const char *key, unsigned int unit, const char *rest)
{
	char text[128];

	snprintf(text, sizeof(text), "%s=0x%lx%s", key,
		 (unsigned long)at(self, unit), rest);
	return line_of(self, from, event, text);
}

static unsigned long long number_behind(const char *line, const char *key)
{
	const char *p = line ? strstr(line, key) : NULL;

	return p ? strtoull(p + strlen(key), NULL, 0) : 0;
}

/* The thread, and nobody else, that a line says it comes from. */
static pid_t line_tid(struct observe_test *self, char *line)
{
	char *p = line;

	while (p > self->text && p[-1] != '\n')
		p--;
	p = strchr(p, '-');
	while (p && p < line && !(p[1] >= '0' && p[1] <= '9'))
		p = strchr(p + 1, '-');
	return p ? atoi(p + 1) : 0;
}

TEST_F(observe, fault_is_traced)
{
	struct uffd_msg msg;
	char *line;

	if (!trace_began(_metadata, self))
		return;
	ASSERT_EQ(0, uk_start(&self->t, uk_poke, at(self, 1)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	uk_sleep(DELAY);
	UK_ASSERT_FILL(0, self->m.unit, copy(self, 1));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));

	ASSERT_TRUE(look(self));
	line = line_at(self, self->text, "fault", "address", 1, " flags=write\n");
	ASSERT_NE(NULL, line);
	EXPECT_EQ(self->t.tid, line_tid(self, line));
	line = line_at(self, line, "deliver", "type=fault start", 1, " ");
	ASSERT_NE(NULL, line);
	EXPECT_EQ(getpid(), line_tid(self, line));
	line = line_at(self, line, "resolve", "address", 1,
		       " flags=write latency=");
	ASSERT_NE(NULL, line);
	EXPECT_LE(DELAY * 1000000ULL, number_behind(line, "latency="));
	EXPECT_NE(NULL, strstr(line, "by=handler"));
}

static void nothing(int sig)
{
}

TEST_F(observe, signal_is_told_from_handler)
{
	struct sigaction act = { .sa_handler = nothing };
	char *line;

	if (!trace_began(_metadata, self))
		return;
	sigaction(SIGUSR1, &act, NULL);
	ASSERT_EQ(0, uk_start(&self->t, uk_peek, at(self, 2)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	ASSERT_EQ(0, pthread_kill(self->t.id, SIGUSR1));
	do {
		uk_sleep(1);
		ASSERT_TRUE(look(self));
		line = line_at(self, self->text, "resolve", "address", 2, " ");
	} while (!line);
	EXPECT_NE(NULL, strstr(line, "by=signal"));
	UK_ASSERT_FILL(0, self->m.unit, copy(self, 2));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	ASSERT_TRUE(look(self));
	EXPECT_NE(NULL, strstr(line, "by=handler"));
}

static bool drop_waits(struct observe_test *self, unsigned int unit)
{
	self->call = (struct uk_call){ SYS_madvise,
		{ (unsigned long)at(self, unit), self->m.unit, MADV_DONTNEED } };
	return !uk_start(&self->t, uk_call, &self->call) &&
	       uk_asleep(self->t.tid);
}

/* By the name of the function that has sent the thread to sleep. */
static bool waits_in(struct observe_test *self, const char *function)
{
	char path[64], text[128];

	snprintf(path, sizeof(path), "/proc/self/task/%d/wchan", self->t.tid);
	return uk_read_text(path, text, sizeof(text)) > 0 &&
	       !strcmp(text, function);
}

TEST_F(observe, event_and_refusal_are_traced)
{
	struct uffd_msg msg;
	char *line, *first;

	if (!trace_began(_metadata, self))
		return;
	ASSERT_TRUE(drop_waits(self, 3));
	EXPECT_TRUE(waits_in(self, "uffd_event_wait"));
	UK_ASSERT_FILL(-EAGAIN, -EAGAIN, copy(self, 3));
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	UK_ASSERT_FILL(0, self->m.unit, copy(self, 3));

	ASSERT_TRUE(look(self));
	line = line_at(self, self->text, "event", "type=remove start", 3, " ");
	ASSERT_NE(NULL, line);
	EXPECT_EQ((unsigned long)at(self, 4), number_behind(line, "end="));
	EXPECT_EQ(self->t.tid, line_tid(self, line));
	line = line_at(self, line, "refuse", "start", 3, " ");
	ASSERT_NE(NULL, line);
	first = line;
	EXPECT_EQ((unsigned long)at(self, 4), number_behind(line, "end="));
	EXPECT_NE(NULL, strstr(line, "why=unread event=remove"));
	EXPECT_EQ((unsigned long)at(self, 3), number_behind(line, "event_start="));
	EXPECT_EQ((unsigned long)at(self, 4), number_behind(line, "event_end="));
	EXPECT_EQ(getpid(), line_tid(self, line));
	line = line_at(self, line, "deliver", "type=remove start", 3, " ");
	ASSERT_NE(NULL, line);
	/* Once; and the second time it was let through. */
	EXPECT_EQ(NULL, line_of(self, first + 1, "refuse", ""));
}

TEST_F(observe, remap_refuses_all)
{
	struct uffd_msg msg;
	char *place = uk_reserve(self->m.unit, self->m.unit);
	char *line;

	if (!trace_began(_metadata, self))
		return;
	ASSERT_NE(NULL, place);
	self->call = (struct uk_call){ SYS_mremap,
		{ (unsigned long)at(self, 7), self->m.unit, self->m.unit,
		  MREMAP_MAYMOVE | MREMAP_FIXED, (unsigned long)place } };
	ASSERT_EQ(0, uk_start(&self->t, uk_call, &self->call));
	ASSERT_TRUE(uk_asleep(self->t.tid));
	UK_ASSERT_FILL(-EAGAIN, -EAGAIN, copy(self, 0));
	while (!uk_finished(&self->t))
		ASSERT_LE(0, uk_next(self->fd, &msg));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));

	ASSERT_TRUE(look(self));
	line = line_at(self, self->text, "event", "type=remap start", 7, " ");
	ASSERT_NE(NULL, line);
	EXPECT_EQ((unsigned long)place, number_behind(line, "to="));
	line = line_at(self, self->text, "refuse", "start", 0, " ");
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "why=unread-fork-or-remap"));
}

TEST_F(observe, registration_is_traced)
{
	char *line, *hole = uk_reserve(self->m.unit, self->m.unit);
	char want[160];
	__u64 ioctls;

	if (!trace_began(_metadata, self))
		return;
	ASSERT_NE(NULL, hole);
	munmap(hole, self->m.unit);
	EXPECT_EQ(-EINVAL, uk_register(self->fd, hole, self->m.unit));
	EXPECT_EQ(0, uk_register_mode(self->fd, at(self, 1), self->m.unit,
				      UFFDIO_REGISTER_MODE_MISSING |
				      UFFDIO_REGISTER_MODE_WP, &ioctls));
	EXPECT_EQ(0, uk_unregister(self->fd, at(self, 0), self->m.unit));

	ASSERT_TRUE(look(self));
	line = line_at(self, self->text, "register", "start", 0, " ");
	ASSERT_NE(NULL, line);
	snprintf(want, sizeof(want), "end=0x%lx modes=missing ret=0\n",
		 (unsigned long)self->m.area + self->m.len);
	EXPECT_NE(NULL, strstr(line, want));
	line = line_of(self, line + 1, "register", "start=");
	ASSERT_NE(NULL, line);
	EXPECT_EQ((unsigned long)hole, number_behind(line, "start="));
	EXPECT_EQ((unsigned long)-EINVAL, number_behind(line, "ret="));
	line = line_at(self, line, "register", "start", 1, " ");
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "modes=missing|wp ret=0\n"));
	line = line_at(self, line, "unregister", "start", 0, " ");
	ASSERT_NE(NULL, line);
	EXPECT_EQ((unsigned long)at(self, 1), number_behind(line, "end="));
}

TEST_F(observe, release_is_traced)
{
	if (!trace_began(_metadata, self))
		return;
	ASSERT_EQ(0, uk_start(&self->t, uk_peek, at(self, 5)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	close(self->fd);
	self->fd = -1;
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	ASSERT_TRUE(look(self));
	EXPECT_NE(NULL, line_of(self, self->text, "release",
				"sleepers=1 unread=0\n"));
}

/* As the documentation has it, and as perf would ask for it. */
TEST_F(observe, latency_has_a_histogram)
{
	const char *trigger = EVENTS "/uffd_resolve/trigger";
	const char *hist = EVENTS "/uffd_resolve/hist";
	struct uffd_msg msg;
	unsigned int i;
	char *p;

	if (!trace_began(_metadata, self))
		return;
	if (!uk_write_file(trigger, "hist:keys=latency.log2"))
		SKIP(return, "needs CONFIG_HIST_TRIGGERS");
	for (i = 0; i < UNITS; i++) {
		ASSERT_EQ(0, uk_start(&self->t, uk_peek, at(self, i)));
		ASSERT_EQ(1, uk_next(self->fd, &msg));
		UK_ASSERT_FILL(0, self->m.unit, copy(self, i));
		ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	}
	/* Three keys are all that the kernel takes. */
	EXPECT_TRUE(uk_write_file(EVENTS "/uffd_refuse/trigger",
				  "hist:keys=common_pid,type,why"));
	EXPECT_TRUE(uk_write_file(EVENTS "/uffd_deliver/trigger",
				  "hist:keys=uffd,common_pid,type"));
	ASSERT_TRUE(read_all(self, hist));
	uk_write_file(trigger, "!hist:keys=latency.log2");
	p = strstr(self->text, "Hits: ");
	ASSERT_NE(NULL, p);
	EXPECT_EQ(UNITS, atoi(p + 6));
	EXPECT_NE(NULL, strstr(self->text, "latency: ~ 2^"));
}

/* One line of fdinfo, from behind its key. */
static bool info_line(int fd, const char *key, char *value, size_t size)
{
	char path[64], text[1024], *p, *end;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	if (uk_read_text(path, text, sizeof(text)) < 0)
		return false;
	p = strstr(text, key);
	if (!p)
		return false;
	p += strlen(key);
	end = strchr(p, '\n');
	if (!end)
		return false;
	*end = '\0';
	snprintf(value, size, "%s", p);
	return true;
}

TEST_F(observe, fdinfo_keeps_its_lines)
{
	char path[64], text[1024], *p;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", self->fd);
	ASSERT_LT(0, uk_read_text(path, text, sizeof(text)));
	p = strstr(text, "\npending:\t0\ntotal:\t0\nAPI:\taa:");
	ASSERT_NE(NULL, p);
	EXPECT_LT(p, strstr(text, "\nevents:\t0\noldest:\t0 ms\nread:\tnever\nfeatures:\t"));
}

TEST_F(observe, fdinfo_names_features)
{
	char value[512];
	int fd;

	ASSERT_TRUE(info_line(self->fd, "\nfeatures:\t", value, sizeof(value)));
	EXPECT_STREQ("EVENT_REMAP EVENT_REMOVE EVENT_UNMAP", value);

	fd = uk_open(O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_TRUE(info_line(fd, "\nfeatures:\t", value, sizeof(value)));
	EXPECT_STREQ("", value);
	close(fd);

	/* Each that there is has a name. */
	fd = uk_new(O_CLOEXEC, uk_offered() & UK_BIT(8));
	ASSERT_LE(0, fd);
	ASSERT_TRUE(info_line(fd, "\nfeatures:\t", value, sizeof(value)));
	EXPECT_STREQ("THREAD_ID", value);
	close(fd);
}

TEST_F(observe, every_feature_has_a_name)
{
	__u64 offered = uk_offered(), bit;
	char value[512];
	int fd;

	for (bit = 1; bit; bit <<= 1) {
		if (!(offered & bit))
			continue;
		fd = uk_new(O_CLOEXEC, bit);
		if (fd < 0)	/* takes another one, or root */
			continue;
		EXPECT_TRUE(info_line(fd, "\nfeatures:\t", value,
				      sizeof(value)));
		EXPECT_NE(0, strlen(value));
		close(fd);
	}
}

TEST_F(observe, fdinfo_counts_events)
{
	struct uffd_msg msg;
	char value[64];

	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	ASSERT_TRUE(drop_waits(self, 1));
	ASSERT_TRUE(info_line(self->fd, "\nevents:\t", value, sizeof(value)));
	EXPECT_STREQ("1", value);
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	ASSERT_TRUE(info_line(self->fd, "\nevents:\t", value, sizeof(value)));
	EXPECT_STREQ("0", value);
}

TEST_F(observe, fdinfo_knows_the_oldest)
{
	struct uk_thread late;
	struct uffd_msg msg;
	char value[64];
	int ms;

	ASSERT_EQ(0, uk_register(self->fd, self->m.area, self->m.len));
	ASSERT_EQ(0, uk_start(&self->t, uk_peek, at(self, 1)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	uk_sleep(10 * DELAY);
	ASSERT_EQ(0, uk_start(&late, uk_peek, at(self, 2)));
	ASSERT_TRUE(uk_parked(self->fd, 2, 2));
	ASSERT_TRUE(info_line(self->fd, "\noldest:\t", value, sizeof(value)));
	ms = atoi(value);
	EXPECT_LE(9 * DELAY, ms);
	ASSERT_TRUE(info_line(self->fd, "\nread:\t", value, sizeof(value)));
	EXPECT_STREQ("never", value);

	/* Whoever has come last is younger. */
	ASSERT_EQ(1, uk_next(self->fd, &msg));
	UK_ASSERT_FILL(0, self->m.unit, copy(self, 1));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	ASSERT_TRUE(info_line(self->fd, "\noldest:\t", value, sizeof(value)));
	EXPECT_GT(ms, atoi(value));
	ASSERT_TRUE(info_line(self->fd, "\nread:\t", value, sizeof(value)));
	EXPECT_NE(NULL, strstr(value, " ms ago"));
	UK_ASSERT_FILL(0, self->m.unit, copy(self, 2));
	ASSERT_TRUE(uk_join(&late, UK_SOON));
}

/*
 * The documentation's steps from "it hangs" to "nobody has read since": a handler
 * answers once, and never again.
 */
static int answers_once(void *arg)
{
	struct observe_test *self = arg;
	struct uffd_msg msg;

	UK_CHECK(uk_next(self->fd, &msg) == 1);
	UK_CHECK(!copy(self, 1).err);
	for (;;)
		pause();
	return 0;
}

TEST_F(observe, a_stuck_handler_shows)
{
	struct uk_info info;
	char value[64];
	pid_t handler;
	char *line, *last = NULL;

	if (!trace_began(_metadata, self))
		return;
	handler = uk_spawn(answers_once, self);
	ASSERT_LT(0, handler);
	ASSERT_EQ(0, uk_start(&self->t, uk_peek, at(self, 1)));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
	ASSERT_EQ(0, uk_start(&self->t, uk_peek, at(self, 2)));
	ASSERT_TRUE(uk_parked(self->fd, 1, 1));
	uk_sleep(10 * DELAY);

	/* 1. The thread waits for a page. */
	EXPECT_TRUE(waits_in(self, "handle_userfault"));
	/* 2. It has been told, and nobody has read that. */
	ASSERT_EQ(0, uk_fdinfo(self->fd, &info));
	EXPECT_EQ(1, info.pending);
	EXPECT_EQ(1, info.total);
	ASSERT_TRUE(info_line(self->fd, "\noldest:\t", value, sizeof(value)));
	EXPECT_LE(9 * DELAY, atoi(value));
	ASSERT_TRUE(info_line(self->fd, "\nread:\t", value, sizeof(value)));
	EXPECT_LE(9 * DELAY, atoi(value));
	/* 3. Who was the last to read? */
	ASSERT_TRUE(look(self));
	line = self->text;
	while ((line = line_of(self, line, "deliver", "")))
		last = line++;
	ASSERT_NE(NULL, last);
	EXPECT_EQ(handler, line_tid(self, last));

	kill(handler, SIGKILL);
	uk_reap(handler, UK_SOON);
	UK_ASSERT_FILL(0, self->m.unit, copy(self, 2));
	ASSERT_TRUE(uk_join(&self->t, UK_SOON));
}

TEST_HARNESS_MAIN
