// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers of the userfaultfd selftests; see uffd-kit.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/loop.h>

#include "uffd-kit.h"

/* Time */

long long uk_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

void uk_sleep(int ms)
{
	struct timespec ts = {
		.tv_sec = ms / 1000,
		.tv_nsec = ms % 1000 * 1000000L,
	};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* The calls */

int uk_open(int flags)
{
	int fd = syscall(__NR_userfaultfd, flags);

	return fd < 0 ? -errno : fd;
}

static int do_ioctl(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) < 0 ? -errno : 0;
}

int uk_api(int fd, __u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	return do_ioctl(fd, UFFDIO_API, &api);
}

int uk_new(int flags, __u64 features)
{
	int fd = uk_open(flags);
	int err;

	if (fd < 0)
		return fd;
	err = uk_api(fd, features);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

__u64 uk_offered(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = uk_open(UFFD_USER_MODE_ONLY);

	if (fd < 0)
		return 0;
	if (do_ioctl(fd, UFFDIO_API, &api))
		api.features = 0;
	close(fd);
	return api.features;
}

int uk_register_mode(int fd, const void *addr, size_t len, __u64 mode,
		     __u64 *ioctls)
{
	struct uffdio_register reg = {
		.range.start = (unsigned long)addr,
		.range.len = len,
		.mode = mode,
	};
	int err = do_ioctl(fd, UFFDIO_REGISTER, &reg);

	if (ioctls)
		*ioctls = reg.ioctls;
	return err;
}

int uk_register(int fd, const void *addr, size_t len)
{
	return uk_register_mode(fd, addr, len, UFFDIO_REGISTER_MODE_MISSING,
				NULL);
}

static int on_range(int fd, unsigned long cmd, const void *addr, size_t len)
{
	struct uffdio_range range = {
		.start = (unsigned long)addr,
		.len = len,
	};

	return do_ioctl(fd, cmd, &range);
}

int uk_unregister(int fd, const void *addr, size_t len)
{
	return on_range(fd, UFFDIO_UNREGISTER, addr, len);
}

int uk_wake(int fd, const void *addr, size_t len)
{
	return on_range(fd, UFFDIO_WAKE, addr, len);
}

struct uk_fill uk_copy(int fd, void *dst, const void *src, size_t len,
		       __u64 mode)
{
	struct uffdio_copy copy = {
		.dst = (unsigned long)dst,
		.src = (unsigned long)src,
		.len = len,
		.mode = mode,
		.copy = UK_UNSET,
	};
	struct uk_fill fill;

	fill.err = do_ioctl(fd, UFFDIO_COPY, &copy);
	fill.out = copy.copy;
	return fill;
}

struct uk_fill uk_zero(int fd, void *dst, size_t len, __u64 mode)
{
	struct uffdio_zeropage zero = {
		.range.start = (unsigned long)dst,
		.range.len = len,
		.mode = mode,
		.zeropage = UK_UNSET,
	};
	struct uk_fill fill;

	fill.err = do_ioctl(fd, UFFDIO_ZEROPAGE, &zero);
	fill.out = zero.zeropage;
	return fill;
}

struct uk_fill uk_continue(int fd, void *dst, size_t len, __u64 mode)
{
	struct uffdio_continue cont = {
		.range.start = (unsigned long)dst,
		.range.len = len,
		.mode = mode,
		.mapped = UK_UNSET,
	};
	struct uk_fill fill;

	fill.err = do_ioctl(fd, UFFDIO_CONTINUE, &cont);
	fill.out = cont.mapped;
	return fill;
}

struct uk_fill uk_poison(int fd, void *dst, size_t len, __u64 mode)
{
	struct uffdio_poison poison = {
		.range.start = (unsigned long)dst,
		.range.len = len,
		.mode = mode,
		.updated = UK_UNSET,
	};
	struct uk_fill fill;

	fill.err = do_ioctl(fd, UFFDIO_POISON, &poison);
	fill.out = poison.updated;
	return fill;
}

struct uk_fill uk_move(int fd, void *dst, void *src, size_t len, __u64 mode)
{
	struct uffdio_move move = {
		.dst = (unsigned long)dst,
		.src = (unsigned long)src,
		.len = len,
		.mode = mode,
		.move = UK_UNSET,
	};
	struct uk_fill fill;

	fill.err = do_ioctl(fd, UFFDIO_MOVE, &move);
	fill.out = move.move;
	return fill;
}

int uk_protect(int fd, const void *addr, size_t len, __u64 mode)
{
	struct uffdio_writeprotect wp = {
		.range.start = (unsigned long)addr,
		.range.len = len,
		.mode = mode,
	};

	return do_ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
}

int uk_set_mode(int fd, __u64 enable, __u64 disable)
{
	struct uffdio_set_mode mode = {
		.enable = enable,
		.disable = disable,
	};

	return do_ioctl(fd, UFFDIO_SET_MODE, &mode);
}

long uk_copy_job(void *job)
{
	struct uk_job *j = job;

	j->res = uk_copy(j->fd, j->dst, j->src, j->len, 0);
	return 0;
}

int uk_read(int fd, struct uffd_msg *msg, unsigned int count)
{
	ssize_t n = read(fd, msg, count * sizeof(*msg));

	if (n < 0)
		return -errno;
	return n % sizeof(*msg) ? -EIO : n / sizeof(*msg);
}

int uk_poll(int fd, int ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int n;

	do {
		n = poll(&pfd, 1, ms);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : pfd.revents;
}

int uk_next(int fd, struct uffd_msg *msg)
{
	long long end = uk_now() + UK_SOON;
	int n;

	memset(msg, 0xff, sizeof(*msg));
	do {
		n = uk_poll(fd, UK_SOON);
		if (n < 0)
			return n;
		if (n & POLLERR)
			return -EIO;
		n = uk_read(fd, msg, 1);
	} while (n == -EAGAIN && uk_now() < end);
	return n == -EAGAIN ? 0 : n;
}

bool uk_is_fault(const struct uffd_msg *msg, const void *addr)
{
	return msg->event == UFFD_EVENT_PAGEFAULT &&
	       msg->arg.pagefault.address == (unsigned long)addr;
}

bool uk_is_span(const struct uffd_msg *msg, unsigned int event,
		const void *start, const void *end)
{
	return msg->event == event &&
	       msg->arg.remove.start == (unsigned long)start &&
	       msg->arg.remove.end == (unsigned long)end;
}

bool uk_is_remap(const struct uffd_msg *msg, const void *from, const void *to,
		 size_t len)
{
	return msg->event == UFFD_EVENT_REMAP &&
	       msg->arg.remap.from == (unsigned long)from &&
	       msg->arg.remap.to == (unsigned long)to &&
	       msg->arg.remap.len == len;
}

/*
 * Files, line by line and without stdio: while fork() waits for its event, the
 * C library's locks are not to be had.
 */
struct lines {
	int fd;
	size_t have, at;
	char buf[1024];
	char line[512];
};

static int lines_open(struct lines *l, const char *path)
{
	l->have = 0;
	l->at = 0;
	l->fd = open(path, O_RDONLY | O_CLOEXEC);
	return l->fd < 0 ? -errno : 0;
}

/* The next line without its newline, cut if it is long; closes at the end. */
static char *lines_next(struct lines *l)
{
	size_t n = 0;

	for (;;) {
		char c;

		if (l->at == l->have) {
			ssize_t got = read(l->fd, l->buf, sizeof(l->buf));

			if (got <= 0) {
				close(l->fd);
				return NULL;
			}
			l->have = got;
			l->at = 0;
		}
		c = l->buf[l->at++];
		if (c == '\n')
			break;
		if (n < sizeof(l->line) - 1)
			l->line[n++] = c;
	}
	l->line[n] = 0;
	return l->line;
}

bool uk_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok;
}

ssize_t uk_read_text(const char *path, char *text, size_t size)
{
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, size - 1);
	close(fd);
	if (n <= 0)
		return -1;
	text[n] = 0;
	return n;
}

long uk_read_number(const char *path)
{
	char line[32];

	if (uk_read_text(path, line, sizeof(line)) < 0)
		return -1;
	return strtol(line, NULL, 10);
}

long uk_number_of(const char *path, const char *key)
{
	size_t n = strlen(key);
	struct lines l;
	long val = -1;
	char *line;

	if (lines_open(&l, path))
		return -1;
	while ((line = lines_next(&l))) {
		if (!strncmp(line, key, n) && line[n] && strchr(": ", line[n]))
			val = strtol(line + n + 1, NULL, 10);
	}
	return val;
}

static long from_meminfo(const char *key)
{
	return uk_number_of("/proc/meminfo", key);
}

bool uk_choice(const char *path, char *word, size_t size)
{
	char text[128], *from, *end;

	if (uk_read_text(path, text, sizeof(text)) < 0)
		return false;
	from = strchr(text, '[');
	from = from ? from + 1 : text;
	end = strpbrk(from, "]\n");
	snprintf(word, size, "%.*s", end ? (int)(end - from) : (int)size, from);
	return true;
}

/* Memory */

bool uk_is_shared(const struct uk_mem *mem)
{
	return mem->kind == UK_SHMEM || mem->kind == UK_HUGETLB;
}

bool uk_is_hugetlb(const struct uk_mem *mem)
{
	return mem->kind == UK_HUGETLB || mem->kind == UK_HUGETLB_PRIVATE;
}

bool uk_is_anon(const struct uk_mem *mem)
{
	return mem->kind == UK_ANON || mem->kind == UK_ANON_SMALL;
}

size_t uk_huge_size(void)
{
	long n = uk_read_number("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");

	return n > 0 ? n : 2 << 20;
}

char *uk_reserve(size_t len, size_t align)
{
	unsigned long at;
	char *p;

	p = mmap(NULL, len + align, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	at = ((unsigned long)p + align - 1) & ~(align - 1);
	return (char *)at;
}

const char *uk_map(struct uk_mem *mem, enum uk_kind kind, unsigned int units)
{
	int flags = MAP_FIXED;
	size_t align, pmd = uk_huge_size();
	char *p;

	memset(mem, 0, sizeof(*mem));
	mem->kind = kind;
	mem->fd = -1;
	mem->unit = getpagesize();
	mem->units = units;
	align = pmd;

	if (uk_is_hugetlb(mem)) {
		long kb = from_meminfo("Hugepagesize");

		if (kb <= 0)
			return "no huge pages in this kernel";
		/* Some to spare, for the copies that the kernel sets aside. */
		if (from_meminfo("HugePages_Free") - from_meminfo("HugePages_Rsvd") <
		    (long)units * 2 + 2)
			return "too few free huge pages (vm.nr_hugepages)";
		mem->unit = kb * 1024;
		align = mem->unit;
	}
	/* Some architectures have huge pages too huge to play with. */
	if (kind == UK_ANON && units * mem->unit < 2 * pmd && pmd <= 32 << 20)
		mem->units = 2 * pmd / mem->unit;
	mem->len = mem->units * mem->unit;

	/* A guard on both sides, of the size that the type needs. */
	p = uk_reserve(mem->len + 2 * align, align);
	if (!p)
		return "no address space";
	mem->area = p + align;

	if (uk_is_anon(mem)) {
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
	} else {
		mem->fd = syscall(__NR_memfd_create, "uffd-kit", MFD_CLOEXEC |
				  (uk_is_hugetlb(mem) ? MFD_HUGETLB : 0));
		if (mem->fd < 0)
			return "no memfd of this type";
		if (ftruncate(mem->fd, mem->len))
			return "memfd does not take the size";
		flags |= uk_is_shared(mem) ? MAP_SHARED : MAP_PRIVATE;
	}
	if (mmap(mem->area, mem->len, PROT_READ | PROT_WRITE, flags, mem->fd,
		 0) == MAP_FAILED)
		return "no memory of this type";
	if (kind == UK_ANON)
		madvise(mem->area, mem->len, MADV_HUGEPAGE);
	if (kind == UK_ANON_SMALL)
		madvise(mem->area, mem->len, MADV_NOHUGEPAGE);
	return NULL;
}

char *uk_alias(const struct uk_mem *mem)
{
	char *p = mmap(NULL, mem->len, PROT_READ | PROT_WRITE, MAP_SHARED,
		       mem->fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

int uk_drop(const struct uk_mem *mem, char *addr, size_t len)
{
	if (uk_is_shared(mem)) {
		if (fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE |
			      FALLOC_FL_KEEP_SIZE, addr - mem->area, len))
			return -errno;
		return 0;
	}
	return madvise(addr, len, MADV_DONTNEED) ? -errno : 0;
}

int uk_vacate(const struct uk_mem *mem, char *addr, size_t len)
{
	int err = uk_drop(mem, addr, len);

	if (!err && mem->fd >= 0 &&
	    fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      addr - mem->area, len))
		err = -errno;
	return err;
}

char *uk_buffer(size_t len)
{
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static __u64 paint_word(unsigned long seed, size_t i)
{
	__u64 x = (seed + 1) * 0x9e3779b97f4a7c15ULL + i;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9ULL;
	return x ^ x >> 32;
}

void uk_paint(void *buf, size_t len, unsigned long seed)
{
	char *p = buf;
	size_t i;

	for (i = 0; i < len / sizeof(__u64); i++) {
		__u64 w = paint_word(seed, i);

		memcpy(p + i * sizeof(w), &w, sizeof(w));
	}
}

bool uk_painted(const void *buf, size_t len, unsigned long seed)
{
	const char *p = buf;
	size_t i;

	for (i = 0; i < len / sizeof(__u64); i++) {
		__u64 w = paint_word(seed, i);

		if (memcmp(p + i * sizeof(w), &w, sizeof(w)))
			return false;
	}
	return true;
}

bool uk_all_zero(const void *buf, size_t len)
{
	const char *p = buf;

	return !len || (!*p && !memcmp(p, p + 1, len - 1));
}

long uk_pages(const void *addr, size_t len, __u64 bits)
{
	size_t page = getpagesize(), at = (unsigned long)addr / page;
	size_t end = at + len / page;
	long n = 0;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (at < end) {
		__u64 entry[64];
		size_t want = end - at < 64 ? end - at : 64, i;

		if (pread(fd, entry, want * 8, at * 8) != (ssize_t)want * 8) {
			n = -EIO;
			break;
		}
		for (i = 0; i < want; i++)
			n += (entry[i] & bits) == bits;
		at += want;
	}
	close(fd);
	return n;
}

long uk_huge(const void *addr, size_t len)
{
	struct page_region out;
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = (unsigned long)addr,
		.end = (unsigned long)addr + len,
		.vec = (unsigned long)&out,
		.vec_len = 1,
		.category_mask = PAGE_IS_HUGE,
		.return_mask = PAGE_IS_HUGE,
	};
	long n = 0;
	int fd, got;

	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while ((got = ioctl(fd, PAGEMAP_SCAN, &scan)) > 0) {
		n += (out.end - out.start) / getpagesize();
		scan.start = scan.walk_end;
		if (scan.start >= scan.end)
			break;
	}
	if (got < 0)
		n = -errno;
	close(fd);
	return n;
}

/* Of /proc/kpageflags: KPF_COMPOUND_HEAD and KPF_COMPOUND_TAIL. */
#define KPF_COMPOUND	(UK_BIT(15) | UK_BIT(16))
#define PM_PFN		(UK_BIT(55) - 1)

long uk_compound(const void *addr, size_t len)
{
	size_t page = getpagesize(), at = (unsigned long)addr / page, i;
	int map, flags;
	long n = 0;

	map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	for (i = 0; i < len / page && n >= 0; i++) {
		__u64 entry, flag;

		if (pread(map, &entry, 8, (at + i) * 8) != 8) {
			n = -EIO;
		} else if (entry & UK_PM_PRESENT) {
			if (pread(flags, &flag, 8, (entry & PM_PFN) * 8) != 8)
				n = -EPERM;
			else
				n += !!(flag & KPF_COMPOUND);
		}
	}
	close(map);
	close(flags);
	return n;
}

/* Disks in memory */

int uk_direct(size_t len)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), nr, fd;
	char path[32];

	nr = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	if (control >= 0)
		close(control);
	config.fd = syscall(__NR_memfd_create, "uffd-direct", MFD_CLOEXEC);
	if (nr < 0 || ftruncate(config.fd, len))
		return -1;
	snprintf(path, sizeof(path), "/dev/loop%d", nr);
	fd = open(path, O_RDWR | O_CLOEXEC | O_DIRECT);
	if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config)) {
		close(fd);
		fd = -1;
	}
	close(config.fd);
	return fd;
}

static char swap_path[32];
static int swap_loop = -1;

/* What mkswap writes, as far as the kernel reads it. */
static bool make_swap(int fd, size_t bytes)
{
	size_t page = getpagesize();
	__u32 info[3] = { 1, bytes / page - 1, 0 };

	return !ftruncate(fd, bytes) &&
	       pwrite(fd, info, sizeof(info), 1024) == sizeof(info) &&
	       pwrite(fd, "SWAPSPACE2", 10, page - 10) == 10;
}

const char *uk_swap_on(size_t bytes)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control, nr, mem;

	if (from_meminfo("SwapFree") >= (long)(bytes / 1024))
		return NULL;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return "no swap space, no loop device to make some";
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	if (nr < 0)
		return "no swap space, no free loop device";
	mem = syscall(__NR_memfd_create, "uffd-swap", MFD_CLOEXEC);
	if (mem < 0 || !make_swap(mem, bytes + (1 << 20)))
		return "no memory to swap to";
	config.fd = mem;
	snprintf(swap_path, sizeof(swap_path), "/dev/loop%d", nr);
	swap_loop = open(swap_path, O_RDWR | O_CLOEXEC);
	if (swap_loop < 0 || ioctl(swap_loop, LOOP_CONFIGURE, &config))
		return "cannot set up a loop device to swap to";
	close(mem);
	if (swapon(swap_path, 0)) {
		close(swap_loop);
		swap_loop = -1;
		return "cannot use a loop device as swap space";
	}
	return NULL;
}

void uk_swap_off(void)
{
	if (swap_loop < 0)
		return;
	swapoff(swap_path);
	close(swap_loop);
	swap_loop = -1;
}

bool uk_swap_out(void *addr, size_t len)
{
	long long end = uk_now() + UK_SOON;

	while (uk_pages(addr, len, UK_PM_PRESENT)) {
		if (uk_now() > end)
			return false;
		madvise(addr, len, MADV_PAGEOUT);
		uk_sleep(1);
	}
	return true;
}

struct uk_census uk_census(const void *addr, size_t len)
{
	unsigned long first = (unsigned long)addr, last = first + len;
	struct uk_census census = {};
	bool inside = false;
	struct lines l;
	char *line;

	if (lines_open(&l, "/proc/self/smaps"))
		return (struct uk_census){ -1, -1, -1 };
	while ((line = lines_next(&l))) {
		unsigned long from, to;
		char *end;

		from = strtoul(line, &end, 16);
		if (end != line && *end == '-') {
			to = strtoul(end + 1, NULL, 16);
			inside = from < last && to > first;
			census.vmas += inside;
		} else if (inside && !strncmp(line, "VmFlags:", 8)) {
			census.armed += !!strstr(line, " um");
			census.orphans += !!strstr(line, " uo");
		}
	}
	return census;
}

long uk_smaps(const void *addr, size_t len, const char *key)
{
	unsigned long first = (unsigned long)addr, last = first + len;
	size_t n = strlen(key);
	bool inside = false;
	struct lines l;
	long sum = 0;
	char *line;

	if (lines_open(&l, "/proc/self/smaps"))
		return -ENOENT;
	while ((line = lines_next(&l))) {
		char *end;
		unsigned long from = strtoul(line, &end, 16);

		if (end != line && *end == '-')
			inside = from < last &&
				 strtoul(end + 1, NULL, 16) > first;
		else if (inside && !strncmp(line, key, n) && line[n] == ':')
			sum += strtol(line + n + 1, NULL, 10) * 1024;
	}
	return sum;
}

/* Threads */

static void *thread_body(void *arg)
{
	struct uk_thread *t = arg;

	uk_set(&t->tid, (pid_t)syscall(__NR_gettid));
	t->ret = t->fn(t->arg);
	uk_set(&t->done, true);
	return NULL;
}

int uk_start(struct uk_thread *t, long (*fn)(void *arg), void *arg)
{
	int err;

	memset(t, 0, sizeof(*t));
	t->fn = fn;
	t->arg = arg;
	err = pthread_create(&t->id, NULL, thread_body, t);
	if (err) {
		t->joined = true;
		return -err;
	}
	while (!uk_get(&t->tid))
		sched_yield();
	return 0;
}

bool uk_finished(struct uk_thread *t)
{
	return uk_get(&t->done);
}

bool uk_join(struct uk_thread *t, int ms)
{
	long long end = uk_now() + ms;

	while (!uk_finished(t)) {
		if (uk_now() > end)
			return false;
		uk_sleep(1);
	}
	if (!t->joined)
		pthread_join(t->id, NULL);
	t->joined = true;
	return true;
}

bool uk_join_all(struct uk_thread *t, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (!uk_join(&t[i], UK_SOON))
			return false;
	}
	return true;
}

bool uk_stays(struct uk_thread *t)
{
	uk_sleep(UK_PAUSE);
	return !uk_finished(t);
}

__u64 uk_fault_flags(int fd, const struct uk_mem *mem, struct uk_thread *t,
		     const char *addr)
{
	const char *base = addr - (addr - mem->area) % mem->unit;
	long long end = uk_now() + UK_SOON;
	struct uffd_msg msg;

	while (uk_now() < end) {
		bool done = uk_finished(t);

		if (uk_read(fd, &msg, 1) == 1)
			return uk_is_fault(&msg, base) ?
			       msg.arg.pagefault.flags : UK_STRANGE;
		if (done)
			return UK_NO_FAULT;
		uk_sleep(1);
	}
	return UK_STRANGE;
}

long uk_count_up(void *counter)
{
	struct uk_counter *c = counter;
	unsigned int i;

	for (i = 0; !uk_get(&c->stop); i = (i + 1) % UK_COUNTED) {
		unsigned int *p = (unsigned int *)uk_at(c->mem, i);

		uk_set(p, uk_get(p) + 1);
		c->sum[i]++;
	}
	return 0;
}

long uk_by_read(void *arg)
{
	struct uk_access *a = arg;
	ssize_t n = read(a->pipe[0], a->addr, 8);

	return n < 0 ? -errno : n;
}

long uk_by_write(void *arg)
{
	struct uk_access *a = arg;
	ssize_t n = write(a->pipe[1], a->addr, 8);

	return n < 0 ? -errno : n;
}

long uk_by_vmsplice(void *arg)
{
	struct uk_access *a = arg;
	struct iovec iov = { .iov_base = a->addr, .iov_len = 8 };
	ssize_t n = vmsplice(a->pipe[1], &iov, 1, 0);

	return n < 0 ? -errno : n;
}

long uk_by_vm_readv(void *arg)
{
	struct uk_access *a = arg;
	struct iovec there = { .iov_base = a->addr, .iov_len = 8 };
	struct iovec here = { .iov_base = a->out, .iov_len = 8 };
	ssize_t n = process_vm_readv(getpid(), &here, 1, &there, 1, 0);

	return n < 0 ? -errno : n;
}

long uk_by_vm_writev(void *arg)
{
	struct uk_access *a = arg;
	struct iovec there = { .iov_base = a->addr, .iov_len = 8 };
	struct iovec here = { .iov_base = a->out, .iov_len = 8 };
	ssize_t n = process_vm_writev(getpid(), &here, 1, &there, 1, 0);

	return n < 0 ? -errno : n;
}

long uk_by_populate(void *arg)
{
	struct uk_access *a = arg;

	return madvise(a->addr, a->len, MADV_POPULATE_WRITE) ? -errno : 0;
}

static char thread_state(pid_t tid)
{
	char path[64], *p, *line;
	struct lines l;
	char state = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	if (lines_open(&l, path))
		return 0;
	while ((line = lines_next(&l))) {
		p = strrchr(line, ')');
		if (p && p[1])
			state = p[2];
	}
	return state;
}

bool uk_asleep(pid_t tid)
{
	long long end = uk_now() + UK_SOON;
	int seen = 0;

	while (seen < 8) {
		char state = thread_state(tid);

		if (!state || uk_now() > end)
			return false;
		seen = state == 'S' || state == 'D' ? seen + 1 : 0;
		uk_sleep(2);
	}
	return true;
}

long uk_peek(void *addr)
{
	return uk_get((unsigned char *)addr);
}

long uk_poke(void *addr)
{
	/* A plain store: anything stronger may be emulated with a load first. */
	uk_set((unsigned char *)addr, 0xa5);
	return 0;
}

long uk_call(void *call)
{
	struct uk_call *c = call;
	long ret;

	ret = syscall(c->nr, c->arg[0], c->arg[1], c->arg[2], c->arg[3],
		      c->arg[4], c->arg[5]);
	return ret == -1 ? -errno : ret;
}

/* Where a thread goes on after a signal that it expects. */
struct landing {
	sigjmp_buf here;
	siginfo_t info;
};

static __thread struct landing *landing;

static void on_trap(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!landing) {
		signal(sig, SIG_DFL);
		raise(sig);
		return;
	}
	landing->info = *info;
	siglongjmp(landing->here, 1);
}

int uk_catch(long (*fn)(void *arg), void *arg, void **where, int *code)
{
	struct sigaction act = {
		.sa_sigaction = on_trap,
		.sa_flags = SA_SIGINFO,
	};
	struct sigaction old_bus, old_segv;
	struct landing l = {};

	sigaction(SIGBUS, &act, &old_bus);
	sigaction(SIGSEGV, &act, &old_segv);
	landing = &l;
	if (!sigsetjmp(l.here, 1))
		fn(arg);
	landing = NULL;
	if (l.info.si_signo && where)
		*where = l.info.si_addr;
	if (l.info.si_signo && code)
		*code = l.info.si_code;
	sigaction(SIGBUS, &old_bus, NULL);
	sigaction(SIGSEGV, &old_segv, NULL);
	return l.info.si_signo;
}

int uk_fdinfo(int fd, struct uk_info *info)
{
	char path[64], *line, *p;
	struct lines l;
	int seen = 0, err;

	memset(info, 0, sizeof(*info));
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	err = lines_open(&l, path);
	if (err)
		return err;
	while ((line = lines_next(&l))) {
		if (!strncmp(line, "pending:\t", 9)) {
			info->pending = strtoul(line + 9, NULL, 10);
			seen |= 1;
		} else if (!strncmp(line, "total:\t", 7)) {
			info->total = strtoul(line + 7, NULL, 10);
			seen |= 2;
		} else if (!strncmp(line, "API:\t", 5)) {
			info->api = strtoull(line + 5, &p, 16);
			if (*p != ':')
				continue;
			info->features = strtoull(p + 1, &p, 16);
			if (*p != ':')
				continue;
			info->ioctls = strtoull(p + 1, &p, 16);
			if (!*p)
				seen |= 4;
		}
	}
	return seen == 7 ? 0 : -ENOENT;
}

bool uk_parked(int fd, unsigned int pending, unsigned int total)
{
	long long end = uk_now() + UK_SOON;
	struct uk_info info;

	for (;;) {
		if (uk_fdinfo(fd, &info))
			return false;
		if (info.pending == pending && info.total == total)
			return true;
		if (uk_now() > end)
			return false;
		uk_sleep(1);
	}
}

/* Processes */

pid_t uk_spawn(int (*fn)(void *arg), void *arg)
{
	pid_t pid;

	fflush(stdout);
	fflush(stderr);
	pid = fork();
	if (pid)
		return pid < 0 ? -errno : pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	_exit(fn(arg));
}

pid_t uk_spawn_by_thread(int (*fn)(void *arg), void *arg, int flags)
{
	pid_t pid = syscall(__NR_clone, flags | SIGCHLD, 0, 0, 0, 0);

	if (pid)
		return pid < 0 ? -errno : pid;
	_exit(fn(arg));
}

int uk_reap(pid_t pid, int ms)
{
	long long end = uk_now() + ms;
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (uk_now() > end)
			return -1;
		uk_sleep(1);
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) :
				     WEXITSTATUS(status);
}

int uk_in_child(int (*fn)(void *arg), void *arg)
{
	pid_t pid = uk_spawn(fn, arg);
	int ret;

	if (pid < 0)
		return pid;
	ret = uk_reap(pid, UK_SOON);
	if (ret < 0)
		kill(pid, SIGKILL);
	return ret;
}

void uk_die(const char *file, int line, const char *what)
{
	fprintf(stderr, "# %s:%d: in child: %s\n", file, line, what);
	_exit(1);
}

int uk_send_fd(int sock, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {};
	char byte = 'f';
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	return sendmsg(sock, &mh, 0) == 1 ? 0 : -errno;
}

int uk_recv_fd(int sock)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {};
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(sock, &mh, MSG_CMSG_CLOEXEC) != 1)
		return -EIO;
	cmsg = CMSG_FIRSTHDR(&mh);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -EIO;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}
