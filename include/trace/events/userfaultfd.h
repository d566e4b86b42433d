/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What happens on a userfaultfd, from the fault to the thread that goes on.
 *
 * Each event names its userfaultfd by the inode number of the file, which is the
 * "ino" of /proc/PID/fdinfo/FD.  A child's, of which no FORK message has been read
 * yet, is 0.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM userfaultfd

#if !defined(_TRACE_USERFAULTFD_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_USERFAULTFD_H

#include <linux/tracepoint.h>
#include <linux/userfaultfd.h>

#define uffd_show_flags(flags)					\
	__print_flags(flags, "|",				\
		{ UFFD_PAGEFAULT_FLAG_WRITE,	"write" },	\
		{ UFFD_PAGEFAULT_FLAG_WP,	"wp" },		\
		{ UFFD_PAGEFAULT_FLAG_MINOR,	"minor" },	\
		{ UFFD_PAGEFAULT_FLAG_RWP,	"rwp" })

#define uffd_show_modes(modes)					\
	__print_flags(modes, "|",				\
		{ UFFDIO_REGISTER_MODE_MISSING,	"missing" },	\
		{ UFFDIO_REGISTER_MODE_WP,	"wp" },		\
		{ UFFDIO_REGISTER_MODE_MINOR,	"minor" },	\
		{ UFFDIO_REGISTER_MODE_RWP,	"rwp" })

#define uffd_show_message(type)					\
	__print_symbolic(type,					\
		{ UFFD_EVENT_PAGEFAULT,		"fault" },	\
		{ UFFD_EVENT_FORK,		"fork" },	\
		{ UFFD_EVENT_REMAP,		"remap" },	\
		{ UFFD_EVENT_REMOVE,		"remove" },	\
		{ UFFD_EVENT_UNMAP,		"unmap" },	\
		{ UFFD_EVENT_WRITE,		"write" },	\
		{ UFFD_EVENT_WRITE_LOST,	"write-lost" })

/* A thread has faulted, and a message about it is being queued. */
TRACE_EVENT(uffd_fault,
	TP_PROTO(unsigned long uffd, const struct uffd_msg *msg),
	TP_ARGS(uffd, msg),

	TP_STRUCT__entry(
		__field(unsigned long, uffd)
		__field(unsigned long, address)
		__field(unsigned long, flags)
	),
	TP_fast_assign(
		__entry->uffd = uffd;
		__entry->address = msg->arg.pagefault.address;
		__entry->flags = msg->arg.pagefault.flags;
	),
	TP_printk("uffd=%lu address=0x%lx flags=%s", __entry->uffd,
		  __entry->address, uffd_show_flags(__entry->flags))
);

/* It goes on, in that thread: @latency is since its message was queued. */
TRACE_EVENT(uffd_resolve,
	TP_PROTO(unsigned long uffd, const struct uffd_msg *msg, u64 latency,
		 bool woken),
	TP_ARGS(uffd, msg, latency, woken),

	TP_STRUCT__entry(
		__field(unsigned long, uffd)
		__field(unsigned long, address)
		__field(unsigned long, flags)
		__field(u64, latency)
		__field(bool, woken)
	),
	TP_fast_assign(
		__entry->uffd = uffd;
		__entry->address = msg->arg.pagefault.address;
		__entry->flags = msg->arg.pagefault.flags;
		__entry->latency = latency;
		__entry->woken = woken;
	),
	TP_printk("uffd=%lu address=0x%lx flags=%s latency=%llu ns by=%s",
		  __entry->uffd, __entry->address,
		  uffd_show_flags(__entry->flags), __entry->latency,
		  __entry->woken ? "handler" : "signal")
);

/*
 * @start and @end are the address of a fault, the range of a REMOVE, UNMAP or WRITE,
 * or the old place of a REMAP, of which @to is the new one.
 */
DECLARE_EVENT_CLASS(uffd_message,
	TP_PROTO(unsigned long uffd, const struct uffd_msg *msg),
	TP_ARGS(uffd, msg),

	TP_STRUCT__entry(
		__field(unsigned long, uffd)
		__field(unsigned int, type)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(unsigned long, to)
	),
	TP_fast_assign(
		__entry->uffd = uffd;
		__entry->type = msg->event;
		__entry->start = 0;
		__entry->end = 0;
		__entry->to = 0;
		switch (msg->event) {
		case UFFD_EVENT_PAGEFAULT:
			__entry->start = msg->arg.pagefault.address;
			__entry->end = msg->arg.pagefault.address;
			break;
		case UFFD_EVENT_REMOVE:
		case UFFD_EVENT_UNMAP:
		case UFFD_EVENT_WRITE:
			__entry->start = msg->arg.remove.start;
			__entry->end = msg->arg.remove.end;
			break;
		case UFFD_EVENT_REMAP:
			__entry->start = msg->arg.remap.from;
			__entry->end = msg->arg.remap.from + msg->arg.remap.len;
			__entry->to = msg->arg.remap.to;
			break;
		}
	),
	TP_printk("uffd=%lu type=%s start=0x%lx end=0x%lx to=0x%lx",
		  __entry->uffd, uffd_show_message(__entry->type),
		  __entry->start, __entry->end, __entry->to)
);

/* A change of the address space is complete, and can be read of. */
DEFINE_EVENT(uffd_message, uffd_event,
	TP_PROTO(unsigned long uffd, const struct uffd_msg *msg),
	TP_ARGS(uffd, msg)
);

/* A message, of either kind, has reached the memory of a reader. */
DEFINE_EVENT(uffd_message, uffd_deliver,
	TP_PROTO(unsigned long uffd, const struct uffd_msg *msg),
	TP_ARGS(uffd, msg)
);

/* Why a call has not been let through. */
#define UFFD_REFUSED_UNREAD	0	/* an event on the range is unread */
#define UFFD_REFUSED_ALL	1	/* so is one that concerns every call */
#define UFFD_REFUSED_READ	2	/* it was read after the call began */
#define UFFD_REFUSED_FORGOTTEN	3	/* too many were, to know of each */
#define UFFD_REFUSED_INVALID	4	/* any is unread, the arguments cannot be */

#define uffd_show_why(why)						\
	__print_symbolic(why,						\
		{ UFFD_REFUSED_UNREAD,		"unread" },		\
		{ UFFD_REFUSED_ALL,		"unread-fork-or-remap" }, \
		{ UFFD_REFUSED_READ,		"read-meanwhile" },	\
		{ UFFD_REFUSED_FORGOTTEN,	"many-read-meanwhile" },	\
		{ UFFD_REFUSED_INVALID,		"invalid-while-unread" })

/*
 * A call on @start to @end gets -EAGAIN, or @waits until the event is published; the
 * event, if it is one with a range, is of @event_start to @event_end.
 */
TRACE_EVENT(uffd_refuse,
	TP_PROTO(unsigned long uffd, unsigned long start, unsigned long end,
		 unsigned int why, const struct uffd_msg *event, bool waits),
	TP_ARGS(uffd, start, end, why, event, waits),

	TP_STRUCT__entry(
		__field(unsigned long, uffd)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(unsigned int, why)
		__field(unsigned int, type)
		__field(unsigned long, event_start)
		__field(unsigned long, event_end)
		__field(bool, waits)
	),
	TP_fast_assign(
		__entry->uffd = uffd;
		__entry->start = start;
		__entry->end = end;
		__entry->why = why;
		__entry->type = event ? event->event : 0;
		__entry->event_start = 0;
		__entry->event_end = 0;
		if (event && (event->event == UFFD_EVENT_REMOVE ||
			      event->event == UFFD_EVENT_UNMAP)) {
			__entry->event_start = event->arg.remove.start;
			__entry->event_end = event->arg.remove.end;
		}
		__entry->waits = waits;
	),
	TP_printk("uffd=%lu start=0x%lx end=0x%lx why=%s event=%s event_start=0x%lx event_end=0x%lx%s",
		  __entry->uffd, __entry->start, __entry->end,
		  uffd_show_why(__entry->why), uffd_show_message(__entry->type),
		  __entry->event_start, __entry->event_end,
		  __entry->waits ? " waits" : "")
);

/* UFFDIO_REGISTER of a sound range and mode, and what became of it. */
TRACE_EVENT(uffd_register,
	TP_PROTO(unsigned long uffd, unsigned long start, unsigned long len,
		 u64 modes, int ret),
	TP_ARGS(uffd, start, len, modes, ret),

	TP_STRUCT__entry(
		__field(unsigned long, uffd)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(unsigned long, modes)
		__field(int, ret)
	),
	TP_fast_assign(
		__entry->uffd = uffd;
		__entry->start = start;
		__entry->end = start + len;
		__entry->modes = modes;
		__entry->ret = ret;
	),
	TP_printk("uffd=%lu start=0x%lx end=0x%lx modes=%s ret=%d",
		  __entry->uffd, __entry->start, __entry->end,
		  uffd_show_modes(__entry->modes), __entry->ret)
);

/* The same for UFFDIO_UNREGISTER. */
TRACE_EVENT(uffd_unregister,
	TP_PROTO(unsigned long uffd, unsigned long start, unsigned long len,
		 int ret),
	TP_ARGS(uffd, start, len, ret),

	TP_STRUCT__entry(
		__field(unsigned long, uffd)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(int, ret)
	),
	TP_fast_assign(
		__entry->uffd = uffd;
		__entry->start = start;
		__entry->end = start + len;
		__entry->ret = ret;
	),
	TP_printk("uffd=%lu start=0x%lx end=0x%lx ret=%d", __entry->uffd,
		  __entry->start, __entry->end, __entry->ret)
);

/* The last descriptor of it has been closed; so many threads slept. */
TRACE_EVENT(uffd_release,
	TP_PROTO(unsigned long uffd, unsigned int sleepers,
		 unsigned int unread),
	TP_ARGS(uffd, sleepers, unread),

	TP_STRUCT__entry(
		__field(unsigned long, uffd)
		__field(unsigned int, sleepers)
		__field(unsigned int, unread)
	),
	TP_fast_assign(
		__entry->uffd = uffd;
		__entry->sleepers = sleepers;
		__entry->unread = unread;
	),
	TP_printk("uffd=%lu sleepers=%u unread=%u", __entry->uffd,
		  __entry->sleepers, __entry->unread)
);

#endif /* _TRACE_USERFAULTFD_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
