// SPDX-License-Identifier: GPL-2.0
/*
 * userfaultfd: the file descriptor.
 *
 * A userfaultfd serves the memory of the process that created it.  It is made
 * by userfaultfd(2) or by an ioctl of /dev/userfaultfd, agrees on features once
 * (UFFDIO_API), and takes ranges under its care (UFFDIO_REGISTER).  From then
 * on read() returns what happens there, and the other ioctls resolve it.
 *
 * This file is the face: what the VFS calls.  Messages, sleepers and events are
 * in fs/userfaultfd/, pages in mm/userfaultfd.c and mm/userfaultfd/.
 */

#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/poll.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/syscalls.h>
#include <linux/sysctl.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/userfaultfd_k.h>
#include <trace/events/userfaultfd.h>
#include "userfaultfd/uffd.h"

#define UFFD_FILE_FLAGS	(O_CLOEXEC | O_NONBLOCK)

/* There is no position, for which readers would take a line from each other. */
#define UFFD_FILE_MODE	(FMODE_NOWAIT | FMODE_STREAM)

#define UFFD_IOCTL(nr)	(1ULL << _UFFDIO_##nr)

/* In fdinfo, UFFDIO_API having succeeded has always been told by this bit. */
#define UFFD_FDINFO_INITIALIZED	(1U << 31)

static int sysctl_unprivileged_userfaultfd __read_mostly;
static const struct file_operations userfaultfd_fops;

/*
 * Help for the calls
 */

static struct userfaultfd_ctx *uffd_ctx_of(const struct file *file)
{
	return file->private_data;
}

static bool uffd_initialized(const struct userfaultfd_ctx *ctx)
{
	/* Paired with uffd_enable(): the features are there. */
	return smp_load_acquire(&ctx->initialized);
}

/**
 * userfaultfd_wp_unpopulated() - are empty anonymous PTEs protected too?
 * @vma: a VMA, locked
 *
 * Return: true if protecting the VMA marks them; false too if not registered.
 */
bool userfaultfd_wp_unpopulated(struct vm_area_struct *vma)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;

	return ctx && uffd_has(ctx, UFFD_FEATURE_WP_UNPOPULATED);
}

/**
 * userfaultfd_wp_async() - do write-protect faults resolve themselves?
 * @vma: a VMA, locked
 *
 * Return: true if they do; false too if the VMA is not registered.
 */
bool userfaultfd_wp_async(struct vm_area_struct *vma)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;

	return ctx && uffd_has(ctx, UFFD_FEATURE_WP_ASYNC);
}

/**
 * userfaultfd_rwp_async() - do faults on tracked pages resolve themselves?
 * @vma: a VMA, locked
 *
 * Return: true if they do; false too if the VMA is not registered.
 */
bool userfaultfd_rwp_async(struct vm_area_struct *vma)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;

	return ctx && uffd_has(ctx, UFFD_FEATURE_RWP_ASYNC);
}

/*
 * read() and poll()
 */

/* Gives back what did not arrive, from message number @whole on: all at once. */
static void uffd_undeliver(struct userfaultfd_ctx *ctx,
			   const struct uffd_batch *batch, unsigned int whole)
{
	LIST_HEAD(returning);
	unsigned int i;

	for (i = whole; i < batch->nr; i++) {
		if (!batch->item[i].event)
			uffd_index_collect(&ctx->index, &ctx->queue,
					   batch->msg[i].arg.pagefault.address,
					   batch->item[i].seq, &returning);
		else if (uffd_msg_is_logged(&batch->msg[i]))
			uffd_log_collect(ctx, batch->item[i].write, &returning);
		else
			uffd_event_collect(batch->item[i].event, &returning);
	}
	uffd_queue_announce(&ctx->queue,
			    uffd_queue_putback(&ctx->queue, &returning), false);
}

static void uffd_trace_deliver(const struct userfaultfd_ctx *ctx,
			       const struct uffd_batch *batch, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		trace_uffd_deliver(ctx->id, &batch->msg[i]);
}

static __always_inline ssize_t
uffd_deliver(struct userfaultfd_ctx *ctx, struct uffd_batch *batch,
	     struct iov_iter *to)
{
	size_t copied = copy_to_iter(batch->msg,
				     batch->nr * sizeof(batch->msg[0]), to);
	unsigned int whole = copied / sizeof(batch->msg[0]);
	bool logged = false;
	unsigned int i;

	if (trace_uffd_deliver_enabled())
		uffd_trace_deliver(ctx, batch, whole);
	for (i = 0; i < whole; i++) {
		if (likely(!batch->item[i].event))
			continue;
		if (uffd_msg_is_logged(&batch->msg[i]))
			logged = true;
		else
			uffd_event_delivered(batch->item[i].event);
	}
	if (logged)
		uffd_log_delivered(ctx, batch, whole);
	if (whole == batch->nr)
		return copied;
	iov_iter_revert(to, copied % sizeof(batch->msg[0]));
	uffd_undeliver(ctx, batch, whole);
	return whole ? whole * sizeof(batch->msg[0]) : -EFAULT;
}

/*
 * A FORK brings a file.  All that can fail comes first; the child's context is
 * attached when the message has arrived.
 */
static ssize_t uffd_deliver_fork(struct uffd_batch *batch, struct file *parent,
				 struct iov_iter *to)
{
	struct uffd_event *event = batch->item[0].event;
	unsigned int flags = event->child->flags & UFFD_FILE_FLAGS;
	struct uffd_msg *msg = batch->msg;
	struct file *file;
	size_t copied;
	int fd;

	fd = get_unused_fd_flags(flags);
	if (fd < 0)
		return fd;
	file = anon_inode_create_getfile("[userfaultfd]", &userfaultfd_fops,
					 NULL, O_RDONLY | flags,
					 file_inode(parent));
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	file->f_mode |= UFFD_FILE_MODE;

	msg->arg.fork.ufd = fd;
	copied = copy_to_iter(msg, sizeof(*msg), to);
	if (copied != sizeof(*msg)) {
		iov_iter_revert(to, copied);
		fput(file);
		put_unused_fd(fd);
		return -EFAULT;
	}
	event->child->id = file_inode(file)->i_ino;
	file->private_data = event->child;
	event->child = NULL;
	fd_install(fd, file);
	trace_uffd_deliver(event->ctx->id, msg);
	uffd_event_delivered(event);
	return sizeof(*msg);
}

static bool uffd_batch_is_fork(const struct uffd_batch *batch)
{
	return batch->msg[0].event == UFFD_EVENT_FORK;
}

/* Inline in read(), where it is one message at a time that counts. */
static __always_inline ssize_t
uffd_deliver_any(struct userfaultfd_ctx *ctx, struct file *file,
		 struct uffd_batch *batch, struct iov_iter *to)
{
	ssize_t ret;

	if (!uffd_batch_is_fork(batch))
		return uffd_deliver(ctx, batch, to);
	ret = uffd_deliver_fork(batch, file, to);
	if (ret < 0)
		uffd_undeliver(ctx, batch, 0);
	return ret;
}

static ssize_t userfaultfd_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct file *file = iocb->ki_filp;
	struct userfaultfd_ctx *ctx = uffd_ctx_of(file);
	bool nowait = (file->f_flags & O_NONBLOCK) ||
		      (iocb->ki_flags & IOCB_NOWAIT);
	struct uffd_batch batch __uninitialized;	/* large; see ->nr */
	ssize_t done = 0, ret;
	size_t room;

	if (!uffd_initialized(ctx))
		return -EINVAL;

	while ((room = iov_iter_count(to) / sizeof(struct uffd_msg))) {
		uffd_queue_take(&ctx->queue, &batch,
				min_t(size_t, room, UFFD_BATCH));
		if (!batch.nr) {
			/* What it has read may let another go on, who has to be told yet. */
			if (done)
				break;
			uffd_queue_told(&ctx->queue);
			if (nowait)
				return -EAGAIN;
			ret = uffd_queue_wait(&ctx->queue, NULL);
			if (ret)
				return ret;
			continue;
		}
		ret = uffd_deliver_any(ctx, file, &batch, to);
		if (ret < 0)
			return done ? done : ret;
		done += ret;
	}
	if (!done)
		return -EINVAL;
	uffd_queue_pass_on(&ctx->queue);
	return done;
}

static __poll_t userfaultfd_poll(struct file *file, poll_table *wait)
{
	struct userfaultfd_ctx *ctx = uffd_ctx_of(file);

	poll_wait(file, &ctx->queue.pollers, wait);

	/* A blocking read may block, whatever we say: so poll says nothing. */
	if (!uffd_initialized(ctx) || !(file->f_flags & O_NONBLOCK))
		return EPOLLERR;
	/* Paired with uffd_queue_announce() and uffd_queue_nudge(). */
	smp_mb();
	return uffd_queue_due(&ctx->queue) || READ_ONCE(ctx->queue.resume) ?
	       EPOLLIN : 0;
}

/*
 * ioctl()
 */

/* A range that can be one of user memory: page aligned, not empty, no wrap. */
static int uffd_check_range(const struct mm_struct *mm, u64 start, u64 len)
{
	u64 size = mm->task_size;

	if (!len || !IS_ALIGNED(start | len, PAGE_SIZE))
		return -EINVAL;
	return start < size && len <= size - start ? 0 : -EINVAL;
}

/* The same for a source of bytes, which may begin anywhere. */
static int uffd_check_source(const struct mm_struct *mm, u64 start, u64 len)
{
	return uffd_check_range(mm, ALIGN_DOWN(start, PAGE_SIZE), len) ?:
	       (len <= mm->task_size - start ? 0 : -EINVAL);
}

/* Tracking any access takes PROT_NONE and userfaultfd's bit in one entry. */
static bool uffd_has_rwp(void)
{
	return VM_UFFD_RWP && pgtable_supports_uffd();
}

/* What this kernel can do on this machine. */
static u64 uffd_features(void)
{
	u64 features = UFFD_API_FEATURES;

	if (!IS_ENABLED(CONFIG_HAVE_ARCH_USERFAULTFD_MINOR))
		features &= ~(UFFD_FEATURE_MINOR_HUGETLBFS |
			      UFFD_FEATURE_MINOR_SHMEM);
	if (!pgtable_supports_uffd())
		features &= ~UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	if (!uffd_has_rwp())
		features &= ~(UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC);
	if (!uffd_supports_wp_marker())
		features &= ~(UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			      UFFD_FEATURE_WP_UNPOPULATED |
			      UFFD_FEATURE_WP_ASYNC |
			      UFFD_FEATURE_WP_LOG |
			      UFFD_FEATURE_WP_SET_MODE);
	return features;
}

/* Sets the features, once. */
static bool uffd_enable(struct userfaultfd_ctx *ctx, u64 features)
{
	bool first;

	spin_lock(&ctx->queue.lock);
	first = !ctx->initialized;
	if (first) {
		ctx->features = features;
		/* Paired with uffd_initialized(). */
		smp_store_release(&ctx->initialized, true);
	}
	spin_unlock(&ctx->queue.lock);
	return first;
}

static int uffd_check_api(const struct userfaultfd_ctx *ctx,
			  const struct uffdio_api *api)
{
	if (api->api != UFFD_API)
		return -EINVAL;
	/* The child's memory may have become somebody else's. */
	if ((api->features & UFFD_FEATURE_EVENT_FORK) &&
	    !capable(CAP_SYS_PTRACE))
		return -EPERM;
	if (api->features & ~uffd_features())
		return -EINVAL;
	if ((api->features & UFFD_FEATURE_RWP_ASYNC) &&
	    !(api->features & UFFD_FEATURE_RWP))
		return -EINVAL;
	if ((api->features & UFFD_FEATURE_WP_LOG) &&
	    !(api->features & UFFD_FEATURE_WP_ASYNC))
		return -EINVAL;
	return uffd_initialized(ctx) ? -EINVAL : 0;
}

/* Once in the life of a descriptor: not to weigh on the other calls. */
static noinline int uffd_ioctl_api(struct userfaultfd_ctx *ctx, void __user *arg)
{
	struct uffdio_api api;
	u64 features;
	int ret;

	if (copy_from_user(&api, arg, sizeof(api)))
		return -EFAULT;
	ret = uffd_check_api(ctx, &api);
	if (!ret && (api.features & UFFD_FEATURE_WP_LOG))
		ret = uffd_log_init(ctx);
	if (!ret) {
		features = api.features;
		/* Writes to absent pages must not escape it, be it on now or later. */
		if (features & (UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_SET_MODE))
			features |= UFFD_FEATURE_WP_UNPOPULATED;
		api.features = uffd_features();
		api.ioctls = UFFD_API_IOCTLS;
		if (copy_to_user(arg, &api, sizeof(api)))
			return -EFAULT;
		if (uffd_enable(ctx, features))
			return 0;
		ret = -EINVAL;
	}
	/* On failure the answer is all zeroes. */
	return clear_user(arg, sizeof(api)) ? -EFAULT : ret;
}

/* The VMA flags of UFFDIO_REGISTER_MODE_*, or 0 if that cannot be. */
static vm_flags_t uffd_modes(const struct userfaultfd_ctx *ctx, u64 mode)
{
	vm_flags_t modes = 0;

	if (mode & ~UFFD_API_REGISTER_MODES)
		return 0;
	if (mode & UFFDIO_REGISTER_MODE_MISSING)
		modes |= VM_UFFD_MISSING;
	if (mode & UFFDIO_REGISTER_MODE_WP) {
		if (!pgtable_supports_uffd())
			return 0;
		modes |= VM_UFFD_WP;
	}
	if (mode & UFFDIO_REGISTER_MODE_RWP) {
		/* It takes the same bit of the entries. */
		if (!uffd_has(ctx, UFFD_FEATURE_RWP) || (modes & VM_UFFD_WP))
			return 0;
		modes |= VM_UFFD_RWP;
	}
	if (mode & UFFDIO_REGISTER_MODE_MINOR) {
		if (!IS_ENABLED(CONFIG_HAVE_ARCH_USERFAULTFD_MINOR))
			return 0;
		modes |= VM_UFFD_MINOR;
	}
	return modes;
}

/* The ioctls that a range takes that has been registered for these modes. */
static u64 uffd_range_ioctls(vm_flags_t modes, bool hugetlb)
{
	u64 ioctls = hugetlb ? UFFD_API_RANGE_IOCTLS_BASIC :
			       UFFD_API_RANGE_IOCTLS;

	if (!(modes & VM_UFFD_WP))
		ioctls &= ~UFFD_IOCTL(WRITEPROTECT);
	if (!(modes & VM_UFFD_MINOR))
		ioctls &= ~UFFD_IOCTL(CONTINUE);
	if (!(modes & VM_UFFD_RWP))
		ioctls &= ~UFFD_IOCTL(RWPROTECT);
	return ioctls;
}

/*
 * Is nobody ever told of a write?  Not that nobody is right now: UFFDIO_SET_MODE may
 * change that, before or after the call, or while it is under way.
 */
static bool uffd_always_async(const struct userfaultfd_ctx *ctx)
{
	return uffd_has(ctx, UFFD_FEATURE_WP_ASYNC) &&
	       !uffd_has(ctx, UFFD_FEATURE_WP_SET_MODE);
}

static int uffd_ioctl_register(struct userfaultfd_ctx *ctx, void __user *arg,
			       bool nowait)
{
	struct uffdio_register __user *user = arg;
	struct uffdio_register reg;
	vm_flags_t modes;
	bool hugetlb = false;
	int ret;

	if (copy_from_user(&reg, arg, offsetof(struct uffdio_register, ioctls)))
		return -EFAULT;
	modes = uffd_modes(ctx, reg.mode);
	if (!modes)
		return -EINVAL;
	ret = uffd_check_range(ctx->mm, reg.range.start, reg.range.len);
	if (ret)
		return ret;

	if (!mmget_not_zero(ctx->mm))
		return -ENOMEM;
	ret = userfaultfd_register_range(ctx, ctx->mm, reg.range.start,
					 reg.range.start + reg.range.len, modes,
					 uffd_always_async(ctx), &hugetlb);
	mmput(ctx->mm);
	trace_uffd_register(ctx->id, reg.range.start, reg.range.len, reg.mode,
			    ret);
	if (ret)
		return ret;
	return put_user(uffd_range_ioctls(modes, hugetlb), &user->ioctls);
}

static int uffd_ioctl_unregister(struct userfaultfd_ctx *ctx, void __user *arg,
				 bool nowait)
{
	struct uffdio_range range;
	int ret;

	if (copy_from_user(&range, arg, sizeof(range)))
		return -EFAULT;
	ret = uffd_check_range(ctx->mm, range.start, range.len);
	if (ret)
		return ret;

	if (!mmget_not_zero(ctx->mm))
		return -ENOMEM;
	ret = userfaultfd_unregister_range(ctx, ctx->mm, range.start,
					   range.start + range.len,
					   uffd_always_async(ctx));
	mmput(ctx->mm);
	trace_uffd_unregister(ctx->id, range.start, range.len, ret);
	return ret;
}

/*
 * Resolutions.  Each can be asked for by an ioctl of its own, and as an operation of
 * UFFDIO_EXCHANGE.  struct uffdio_op says the same for both.
 *
 * uffd_do_*() runs @nr of them, at least the first, and returns how many have a result
 * now.  If the first cannot even be tried it returns -errno, and the ioctl does not
 * write its output field.
 *
 * They are inline in their ioctls: to pass the structures around is a measurable part of
 * what it takes to fill a page, and so is to fill those with zeroes that are about to be
 * written.
 */

/*
 * Tells how far an ioctl came, when those who wait for what it has resolved have been
 * woken: not even a bad address for the answer may leave somebody asleep before a page
 * that is there.
 */
static __always_inline int uffd_answer(struct userfaultfd_ctx *ctx,
				       const struct uffdio_op *op,
				       __s64 __user *answer)
{
	if (uffd_op_wakes(op))
		userfaultfd_wake_range(ctx, op->dst, op->result);
	if (put_user(op->result, answer))
		return -EFAULT;
	if (op->result < 0)
		return op->result;
	return op->result == op->len ? 0 : -EAGAIN;
}

/*
 * A range or a mode that cannot be.  While an event is unread it may be one that
 * the caller has not heard of, so that comes first.
 */
static __always_inline int uffd_invalid(const struct userfaultfd_ctx *ctx,
					struct uffdio_op *op)
{
	if (!uffd_gate_any_unread(ctx))
		return -EINVAL;
	op->result = -EAGAIN;
	return 1;
}

/* An argument that cannot be read, as far as it is needed: the same. */
static noinline int uffd_unreadable(const struct userfaultfd_ctx *ctx,
				    __s64 __user *answer)
{
	if (!uffd_gate_any_unread(ctx) || put_user(-EAGAIN, answer))
		return -EFAULT;
	return -EAGAIN;
}

static int uffd_do_wake(struct userfaultfd_ctx *ctx, struct uffdio_op *op,
			unsigned int nr, struct uffd_cursor *cursor, bool nowait)
{
	int ret = uffd_check_range(ctx->mm, op->dst, op->len);

	if (ret)
		return ret;
	op->result = op->len;
	return 1;
}

static int uffd_ioctl_wake(struct userfaultfd_ctx *ctx, void __user *arg,
			   bool nowait)
{
	struct uffdio_range range;
	int ret;

	if (copy_from_user(&range, arg, sizeof(range)))
		return -EFAULT;
	ret = uffd_check_range(ctx->mm, range.start, range.len);
	if (!ret)
		userfaultfd_wake_range(ctx, range.start, range.len);
	return ret;
}

/* @modes: what uffdio_op.mode may have, the bits for DONTWAKE and WP being the same. */
static __always_inline int uffd_fill(struct userfaultfd_ctx *ctx,
				     struct uffdio_op *op,
				     struct uffd_cursor *cursor, bool nowait,
				     enum uffd_fill_op kind, u64 modes)
{
	struct uffd_fill_request req __uninitialized;

	if (uffd_check_range(ctx->mm, op->dst, op->len) || (op->mode & ~modes))
		return uffd_invalid(ctx, op);
	req = (struct uffd_fill_request) {
		.ctx = ctx,
		.mm = ctx->mm,
		.cursor = cursor,
		.op = kind,
		.dst = op->dst,
		.src = op->src,
		.len = op->len,
		.wp = op->mode & UFFDIO_COPY_MODE_WP,
		.nowait = nowait,
	};
	if (!uffd_get_mm(ctx->mm))
		return -ESRCH;
	op->result = userfaultfd_fill(&req);
	uffd_put_mm(ctx->mm);
	return 1;
}

static __always_inline int
uffd_do_copy(struct userfaultfd_ctx *ctx, struct uffdio_op *op, unsigned int nr,
	     struct uffd_cursor *cursor, bool nowait)
{
	if (uffd_check_source(ctx->mm, op->src, op->len))
		return uffd_invalid(ctx, op);
	return uffd_fill(ctx, op, cursor, nowait, UFFD_FILL_COPY,
			 UFFDIO_COPY_MODE_DONTWAKE | UFFDIO_COPY_MODE_WP);
}

static int uffd_ioctl_copy(struct userfaultfd_ctx *ctx, void __user *arg,
			   bool nowait)
{
	struct uffdio_copy __user *user = arg;
	struct uffdio_copy copy __uninitialized;
	struct uffdio_op op __uninitialized;
	int ret;

	if (copy_from_user(&copy, arg, offsetof(struct uffdio_copy, copy)))
		return uffd_unreadable(ctx, &user->copy);
	op = (struct uffdio_op) {
		.op = _UFFDIO_COPY,
		.mode = copy.mode,
		.dst = copy.dst,
		.len = copy.len,
		.src = copy.src,
	};
	ret = uffd_do_copy(ctx, &op, 1, NULL, nowait);
	return ret < 0 ? ret : uffd_answer(ctx, &op, &user->copy);
}

typedef int uffd_resolve_fn(struct userfaultfd_ctx *ctx, struct uffdio_op *op,
			    unsigned int nr, struct uffd_cursor *cursor,
			    bool nowait);

/* ZEROPAGE, CONTINUE and POISON: their structures say the same. */
static __always_inline int uffd_ioctl_fill(struct userfaultfd_ctx *ctx,
					   void __user *arg, u32 nr,
					   uffd_resolve_fn *resolve, bool nowait)
{
	struct uffdio_zeropage __user *user = arg;
	struct uffdio_zeropage fill __uninitialized;
	struct uffdio_op op __uninitialized;
	int ret;

	static_assert(sizeof(struct uffdio_continue) == sizeof(fill));
	static_assert(sizeof(struct uffdio_poison) == sizeof(fill));
	static_assert(offsetof(struct uffdio_continue, mapped) ==
		      offsetof(struct uffdio_zeropage, zeropage));
	static_assert(offsetof(struct uffdio_poison, updated) ==
		      offsetof(struct uffdio_zeropage, zeropage));
	if (copy_from_user(&fill, arg,
			   offsetof(struct uffdio_zeropage, zeropage)))
		return uffd_unreadable(ctx, &user->zeropage);
	op = (struct uffdio_op) {
		.op = nr,
		.mode = fill.mode,
		.dst = fill.range.start,
		.len = fill.range.len,
	};
	ret = resolve(ctx, &op, 1, NULL, nowait);
	return ret < 0 ? ret : uffd_answer(ctx, &op, &user->zeropage);
}

static __always_inline int
uffd_do_zeropage(struct userfaultfd_ctx *ctx, struct uffdio_op *op, unsigned int nr,
		 struct uffd_cursor *cursor, bool nowait)
{
	return uffd_fill(ctx, op, cursor, nowait, UFFD_FILL_ZEROPAGE,
			 UFFDIO_ZEROPAGE_MODE_DONTWAKE);
}

static int uffd_ioctl_zeropage(struct userfaultfd_ctx *ctx, void __user *arg,
			       bool nowait)
{
	return uffd_ioctl_fill(ctx, arg, _UFFDIO_ZEROPAGE, uffd_do_zeropage, nowait);
}

static __always_inline int
uffd_do_continue(struct userfaultfd_ctx *ctx, struct uffdio_op *op, unsigned int nr,
		 struct uffd_cursor *cursor, bool nowait)
{
	static_assert(UFFDIO_CONTINUE_MODE_WP == UFFDIO_COPY_MODE_WP);
	return uffd_fill(ctx, op, cursor, nowait, UFFD_FILL_CONTINUE,
			 UFFDIO_CONTINUE_MODE_DONTWAKE | UFFDIO_CONTINUE_MODE_WP);
}

static int uffd_ioctl_continue(struct userfaultfd_ctx *ctx, void __user *arg,
			       bool nowait)
{
	return uffd_ioctl_fill(ctx, arg, _UFFDIO_CONTINUE, uffd_do_continue, nowait);
}

static __always_inline int
uffd_do_poison(struct userfaultfd_ctx *ctx, struct uffdio_op *op, unsigned int nr,
	       struct uffd_cursor *cursor, bool nowait)
{
	return uffd_fill(ctx, op, cursor, nowait, UFFD_FILL_POISON,
			 UFFDIO_POISON_MODE_DONTWAKE);
}

static int uffd_ioctl_poison(struct userfaultfd_ctx *ctx, void __user *arg,
			     bool nowait)
{
	return uffd_ioctl_fill(ctx, arg, _UFFDIO_POISON, uffd_do_poison, nowait);
}

static __always_inline int
uffd_do_move(struct userfaultfd_ctx *ctx, struct uffdio_op *op, unsigned int nr,
	     struct uffd_cursor *cursor, bool nowait)
{
	struct uffd_move_request req __uninitialized;

	/* Pages do not go from one process to another. */
	if (ctx->mm != current->mm ||
	    uffd_check_range(ctx->mm, op->dst, op->len) ||
	    uffd_check_range(ctx->mm, op->src, op->len) ||
	    (op->mode & ~(UFFDIO_MOVE_MODE_DONTWAKE |
			  UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES)))
		return uffd_invalid(ctx, op);

	req = (struct uffd_move_request) {
		.ctx = ctx,
		.mm = ctx->mm,
		.cursor = cursor,
		.dst = op->dst,
		.src = op->src,
		.len = op->len,
		.allow_holes = op->mode & UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES,
		.nowait = nowait,
	};
	/* It is the caller's own, and so in use. */
	op->result = userfaultfd_move(&req);
	return 1;
}

static int uffd_ioctl_move(struct userfaultfd_ctx *ctx, void __user *arg,
			   bool nowait)
{
	struct uffdio_move __user *user = arg;
	struct uffdio_move move __uninitialized;
	struct uffdio_op op __uninitialized;
	int ret;

	if (copy_from_user(&move, arg, offsetof(struct uffdio_move, move)))
		return uffd_unreadable(ctx, &user->move);
	op = (struct uffdio_op) {
		.op = _UFFDIO_MOVE,
		.mode = move.mode,
		.dst = move.dst,
		.len = move.len,
		.src = move.src,
	};
	ret = uffd_do_move(ctx, &op, 1, NULL, nowait);
	return ret < 0 ? ret : uffd_answer(ctx, &op, &user->move);
}

/* Protecting resolves nothing, so there is nobody to wake, or not. */
static bool uffd_protect_valid(const struct userfaultfd_ctx *ctx,
			       const struct uffdio_op *op)
{
	const u64 both = UFFDIO_WRITEPROTECT_MODE_WP |
			 UFFDIO_WRITEPROTECT_MODE_DONTWAKE;

	return !uffd_check_range(ctx->mm, op->dst, op->len) &&
	       !(op->mode & ~both) && op->mode != both;
}

static int uffd_protect(struct userfaultfd_ctx *ctx, struct uffdio_op *op,
			unsigned int nr, struct uffd_cursor *cursor,
			vm_flags_t kind, bool nowait)
{
	struct uffd_protect_request req = {
		.ctx = ctx,
		.mm = ctx->mm,
		.mode = kind,
		.op = op,
		.nowait = nowait,
		.cursor = cursor,
	};
	int ret;

	while (req.nr < nr && uffd_protect_valid(ctx, &op[req.nr]))
		req.nr++;
	if (!req.nr)
		return uffd_gate_any_unread(ctx) ? -EAGAIN : -EINVAL;
	if (!uffd_get_mm(ctx->mm))
		return -ESRCH;
	ret = userfaultfd_protect(&req);
	uffd_put_mm(ctx->mm);
	return ret;
}

/* WRITEPROTECT and RWPROTECT: struct uffdio_rwprotect says the same. */
static int uffd_ioctl_protect(struct userfaultfd_ctx *ctx, void __user *arg,
			      unsigned int nr, vm_flags_t kind, bool nowait)
{
	struct uffdio_writeprotect wp __uninitialized;
	struct uffdio_op op __uninitialized;
	int ret;

	static_assert(sizeof(struct uffdio_rwprotect) == sizeof(wp));
	static_assert(offsetof(struct uffdio_rwprotect, mode) ==
		      offsetof(struct uffdio_writeprotect, mode));
	static_assert(UFFDIO_RWPROTECT_MODE_RWP == UFFDIO_WRITEPROTECT_MODE_WP);
	static_assert(UFFDIO_RWPROTECT_MODE_DONTWAKE ==
		      UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
	/* There is no answer to write, so an unread event comes before all else. */
	if (copy_from_user(&wp, arg, sizeof(wp)))
		return uffd_gate_any_unread(ctx) ? -EAGAIN : -EFAULT;
	op = (struct uffdio_op) {
		.op = nr,
		.mode = wp.mode,
		.dst = wp.range.start,
		.len = wp.range.len,
	};
	ret = uffd_protect(ctx, &op, 1, NULL, kind, nowait);
	if (ret < 0)
		return ret;
	if (uffd_op_wakes(&op))
		userfaultfd_wake_range(ctx, op.dst, op.len);
	return op.result < 0 ? op.result : 0;
}

static int uffd_do_writeprotect(struct userfaultfd_ctx *ctx,
				struct uffdio_op *op, unsigned int nr,
				struct uffd_cursor *cursor, bool nowait)
{
	return uffd_protect(ctx, op, nr, cursor, VM_UFFD_WP, nowait);
}

static int uffd_ioctl_writeprotect(struct userfaultfd_ctx *ctx,
				   void __user *arg, bool nowait)
{
	return uffd_ioctl_protect(ctx, arg, _UFFDIO_WRITEPROTECT, VM_UFFD_WP,
				  nowait);
}

static int uffd_do_rwprotect(struct userfaultfd_ctx *ctx, struct uffdio_op *op,
			     unsigned int nr, struct uffd_cursor *cursor,
			     bool nowait)
{
	return uffd_protect(ctx, op, nr, cursor, VM_UFFD_RWP, nowait);
}

static int uffd_ioctl_rwprotect(struct userfaultfd_ctx *ctx, void __user *arg,
				bool nowait)
{
	return uffd_ioctl_protect(ctx, arg, _UFFDIO_RWPROTECT, VM_UFFD_RWP,
				  nowait);
}

/* Features that may come and go while the descriptor is in use. */
static u64 uffd_switchable(const struct userfaultfd_ctx *ctx)
{
	u64 features = UFFD_FEATURE_RWP_ASYNC;

	if (uffd_has(ctx, UFFD_FEATURE_WP_SET_MODE))
		features |= UFFD_FEATURE_WP_ASYNC;
	return features & uffd_features();
}

static int uffd_ioctl_set_mode(struct userfaultfd_ctx *ctx, void __user *arg,
			       bool nowait)
{
	struct uffdio_set_mode mode;

	if (copy_from_user(&mode, arg, sizeof(mode)))
		return -EFAULT;
	if ((mode.enable & mode.disable) ||
	    ((mode.enable | mode.disable) & ~uffd_switchable(ctx)))
		return -EINVAL;
	if ((mode.enable & UFFD_FEATURE_RWP_ASYNC) &&
	    !uffd_has(ctx, UFFD_FEATURE_RWP))
		return -EINVAL;

	if (!mmget_not_zero(ctx->mm))
		return -ESRCH;
	userfaultfd_exclude_faults(ctx, ctx->mm);
	WRITE_ONCE(ctx->features,
		   (ctx->features | mode.enable) & ~mode.disable);
	userfaultfd_admit_faults(ctx->mm);
	/* Those who wait would wait for an answer that is not needed any more. */
	if (mode.enable)
		uffd_index_wake(&ctx->index, &ctx->queue, 0, ULONG_MAX);
	mmput(ctx->mm);
	return 0;
}

/* What each ioctl is, and what runs it as an operation of UFFDIO_EXCHANGE. */
static const struct uffd_ioctl {
	unsigned int cmd;
	int (*run)(struct userfaultfd_ctx *ctx, void __user *arg, bool nowait);
	uffd_resolve_fn *resolve;
} uffd_ioctls[] = {
	[_UFFDIO_REGISTER]	= { UFFDIO_REGISTER,	 uffd_ioctl_register },
	[_UFFDIO_UNREGISTER]	= { UFFDIO_UNREGISTER,	 uffd_ioctl_unregister },
	[_UFFDIO_WAKE]		= { UFFDIO_WAKE,	 uffd_ioctl_wake,
				    uffd_do_wake },
	[_UFFDIO_COPY]		= { UFFDIO_COPY,	 uffd_ioctl_copy,
				    uffd_do_copy },
	[_UFFDIO_ZEROPAGE]	= { UFFDIO_ZEROPAGE,	 uffd_ioctl_zeropage,
				    uffd_do_zeropage },
	[_UFFDIO_MOVE]		= { UFFDIO_MOVE,	 uffd_ioctl_move,
				    uffd_do_move },
	[_UFFDIO_WRITEPROTECT]	= { UFFDIO_WRITEPROTECT, uffd_ioctl_writeprotect,
				    uffd_do_writeprotect },
	[_UFFDIO_CONTINUE]	= { UFFDIO_CONTINUE,	 uffd_ioctl_continue,
				    uffd_do_continue },
	[_UFFDIO_POISON]	= { UFFDIO_POISON,	 uffd_ioctl_poison,
				    uffd_do_poison },
	[_UFFDIO_RWPROTECT]	= { UFFDIO_RWPROTECT,	 uffd_ioctl_rwprotect,
				    uffd_do_rwprotect },
	[_UFFDIO_SET_MODE]	= { UFFDIO_SET_MODE,	 uffd_ioctl_set_mode },
};

static unsigned int uffd_resolve(struct userfaultfd_ctx *ctx,
				 struct uffdio_op *op, unsigned int nr,
				 struct uffd_cursor *cursor, bool nowait)
{
	unsigned int i = array_index_nospec(op->op, ARRAY_SIZE(uffd_ioctls));
	int ret = uffd_ioctls[i].resolve(ctx, op, nr, cursor, nowait);

	if (ret > 0)
		return ret;
	op->result = ret;
	return 1;
}

static noinline int uffd_ioctl_exchange(struct file *file, void __user *arg)
{
	struct userfaultfd_ctx *ctx = uffd_ctx_of(file);
	const struct uffd_exchange_calls calls = {
		.known = UFFD_API_RANGE_IOCTLS,
		.resolve = uffd_resolve,
		.deliver = uffd_deliver_any,
	};

	if (!uffd_has(ctx, UFFD_FEATURE_EXCHANGE))
		return -EINVAL;
	return uffd_exchange_run(ctx, file, arg, &calls);
}

static int uffd_ioctl_log(struct userfaultfd_ctx *ctx, void __user *arg)
{
	struct uffdio_log log;
	int ret;

	if (!uffd_has(ctx, UFFD_FEATURE_WP_LOG))
		return -EINVAL;
	if (copy_from_user(&log, arg, sizeof(log)))
		return -EFAULT;
	ret = uffd_log_set(ctx, &log.size, &log.watermark);
	if (ret)
		return ret;
	return copy_to_user(arg, &log, sizeof(log)) ? -EFAULT : 0;
}

/* Those that are not mainline's have numbers far above its own. */
static long uffd_ioctl_beyond(struct file *file, unsigned int cmd, void __user *arg)
{
	switch (cmd) {
	case UFFDIO_EXCHANGE:
		return uffd_ioctl_exchange(file, arg);
	case UFFDIO_LOG:
		return uffd_ioctl_log(uffd_ctx_of(file), arg);
	default:
		return -EINVAL;
	}
}

static long userfaultfd_ioctl(struct file *file, unsigned int cmd,
			      unsigned long arg)
{
	struct userfaultfd_ctx *ctx = uffd_ctx_of(file);
	unsigned int nr = _IOC_NR(cmd);

	if (cmd == UFFDIO_API)
		return uffd_ioctl_api(ctx, (void __user *)arg);
	if (!uffd_initialized(ctx))
		return -EINVAL;
	if (nr >= ARRAY_SIZE(uffd_ioctls))
		return uffd_ioctl_beyond(file, cmd, (void __user *)arg);
	nr = array_index_nospec(nr, ARRAY_SIZE(uffd_ioctls));
	if (uffd_ioctls[nr].cmd != cmd)
		return -EINVAL;
	return uffd_ioctls[nr].run(ctx, (void __user *)arg,
				   file->f_flags & O_NONBLOCK);
}

/*
 * The file
 */

#ifdef CONFIG_PROC_FS
/* As in the header, in the order of their bits. */
static const char * const uffd_feature_names[64] = {
#define UFFD_NAME(feature)	\
	[ilog2(UFFD_FEATURE_##feature)] = #feature
	UFFD_NAME(PAGEFAULT_FLAG_WP),
	UFFD_NAME(EVENT_FORK),
	UFFD_NAME(EVENT_REMAP),
	UFFD_NAME(EVENT_REMOVE),
	UFFD_NAME(MISSING_HUGETLBFS),
	UFFD_NAME(MISSING_SHMEM),
	UFFD_NAME(EVENT_UNMAP),
	UFFD_NAME(SIGBUS),
	UFFD_NAME(THREAD_ID),
	UFFD_NAME(MINOR_HUGETLBFS),
	UFFD_NAME(MINOR_SHMEM),
	UFFD_NAME(EXACT_ADDRESS),
	UFFD_NAME(WP_HUGETLBFS_SHMEM),
	UFFD_NAME(WP_UNPOPULATED),
	UFFD_NAME(POISON),
	UFFD_NAME(WP_ASYNC),
	UFFD_NAME(MOVE),
	UFFD_NAME(RWP),
	UFFD_NAME(RWP_ASYNC),
	UFFD_NAME(EXCHANGE),
	UFFD_NAME(WP_LOG),
	UFFD_NAME(ORPHAN_SIGBUS),
	UFFD_NAME(EVENT_NOWAIT),
	UFFD_NAME(WP_SET_MODE),
#undef UFFD_NAME
};

static void uffd_show_features(struct seq_file *m, u64 features)
{
	const char *before = "features:\t";
	unsigned int bit;

	if (!features)
		seq_puts(m, before);
	for (bit = 0; bit < ARRAY_SIZE(uffd_feature_names); bit++) {
		if (!(features & BIT_ULL(bit)) || !uffd_feature_names[bit])
			continue;
		seq_printf(m, "%s%s", before, uffd_feature_names[bit]);
		before = " ";
	}
	seq_putc(m, '\n');
}

/* A look at numbers that change: each is right, together they need not be. */
static void userfaultfd_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct userfaultfd_ctx *ctx = uffd_ctx_of(file);
	u64 features = uffd_initialized(ctx) ? READ_ONCE(ctx->features) : 0;
	unsigned long total, age, taken;
	unsigned int faults, events;

	total = uffd_index_count(&ctx->index, &age);
	spin_lock(&ctx->queue.lock);
	faults = ctx->queue.faults;
	events = ctx->events.nr_unread;
	taken = ctx->queue.taken;
	spin_unlock(&ctx->queue.lock);

	seq_printf(m, "pending:\t%u\ntotal:\t%lu\n", faults, total);
	seq_printf(m, "API:\t%llx:%llx:%llx\n", UFFD_API,
		   uffd_initialized(ctx) ? features | UFFD_FDINFO_INITIALIZED : 0,
		   UFFD_API_IOCTLS | UFFD_API_RANGE_IOCTLS);
	seq_printf(m, "events:\t%u\noldest:\t%llu ms\n", events,
		   jiffies64_to_msecs(age));
	if (taken)
		seq_printf(m, "read:\t%llu ms ago\n",
			   jiffies64_to_msecs(jiffies - taken));
	else
		seq_puts(m, "read:\tnever\n");
	uffd_show_features(m, features);
}
#endif

static int userfaultfd_release(struct inode *inode, struct file *file)
{
	struct userfaultfd_ctx *ctx = uffd_ctx_of(file);
	unsigned int sleepers;

	/* A child's file whose FORK could not be delivered has no context. */
	if (!ctx)
		return 0;
	/*
	 * Faults that come from here on do not park.  Those that did not see it
	 * have parked when release_mm() gets the locks that they hold.
	 */
	WRITE_ONCE(ctx->released, true);
	userfaultfd_release_mm(ctx, uffd_heir(ctx), ctx->mm);
	sleepers = uffd_index_wake(&ctx->index, &ctx->queue, 0, ULONG_MAX);
	trace_uffd_release(ctx->id, sleepers,
			   READ_ONCE(ctx->events.nr_unread));
	uffd_events_release(ctx);
	wake_up_poll(&ctx->queue.pollers, EPOLLHUP);
	uffd_ctx_put(ctx);
	return 0;
}

static const struct file_operations userfaultfd_fops = {
	.llseek		= noop_llseek,
	.read_iter	= userfaultfd_read_iter,
	.poll		= userfaultfd_poll,
	.unlocked_ioctl	= userfaultfd_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.release	= userfaultfd_release,
#ifdef CONFIG_PROC_FS
	.show_fdinfo	= userfaultfd_show_fdinfo,
#endif
};

static int uffd_create(unsigned int flags)
{
	struct userfaultfd_ctx *ctx;
	struct file *file;
	int fd;

	BUILD_BUG_ON(UFFD_USER_MODE_ONLY & UFFD_FILE_FLAGS);
	BUILD_BUG_ON(sizeof(struct uffd_msg) != 32);

	if (flags & ~(UFFD_FILE_FLAGS | UFFD_USER_MODE_ONLY))
		return -EINVAL;
	ctx = uffd_ctx_alloc(current->mm, flags, 0);
	if (!ctx)
		return -ENOMEM;

	fd = get_unused_fd_flags(flags & UFFD_FILE_FLAGS);
	if (fd < 0)
		goto put_ctx;
	/* An inode of its own, so that a security module can have a say. */
	file = anon_inode_create_getfile("[userfaultfd]", &userfaultfd_fops,
					 ctx, O_RDONLY | (flags & UFFD_FILE_FLAGS),
					 NULL);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		fd = PTR_ERR(file);
		goto put_ctx;
	}
	file->f_mode |= UFFD_FILE_MODE;
	ctx->id = file_inode(file)->i_ino;
	fd_install(fd, file);
	return fd;

put_ctx:
	uffd_ctx_put(ctx);
	return fd;
}

/*
 * Who can hold up kernel code in the middle of an access to user memory widens
 * the window of any race there.  That takes privilege, or an administrator who
 * has waived it.
 */
static bool uffd_may_create(unsigned int flags)
{
	return (flags & UFFD_USER_MODE_ONLY) ||
	       sysctl_unprivileged_userfaultfd || capable(CAP_SYS_PTRACE);
}

SYSCALL_DEFINE1(userfaultfd, int, flags)
{
	return uffd_may_create(flags) ? uffd_create(flags) : -EPERM;
}

/* Whoever may open /dev/userfaultfd may have any userfaultfd. */
static long userfaultfd_dev_ioctl(struct file *file, unsigned int cmd,
				  unsigned long flags)
{
	return cmd == USERFAULTFD_IOC_NEW ? uffd_create(flags) : -EINVAL;
}

static const struct file_operations userfaultfd_dev_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= userfaultfd_dev_ioctl,
	.compat_ioctl	= userfaultfd_dev_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice userfaultfd_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "userfaultfd",
	.fops	= &userfaultfd_dev_fops,
};

#ifdef CONFIG_SYSCTL
static struct ctl_table userfaultfd_sysctls[] = {
	{
		.procname	= "unprivileged_userfaultfd",
		.mode		= 0644,
		.data		= &sysctl_unprivileged_userfaultfd,
		.maxlen		= sizeof(sysctl_unprivileged_userfaultfd),
		.proc_handler	= proc_dointvec_minmax,
		.extra1		= SYSCTL_ZERO,
		.extra2		= SYSCTL_ONE,
	},
};

static void __init uffd_init_sysctl(void)
{
	register_sysctl_init("vm", userfaultfd_sysctls);
}
#else
static void __init uffd_init_sysctl(void)
{
}
#endif

static int __init userfaultfd_init(void)
{
	uffd_ctx_init_cache();
	uffd_init_orphans();
	uffd_init_sysctl();
	return misc_register(&userfaultfd_misc);
}
__initcall(userfaultfd_init);
