/* SPDX-License-Identifier: GPL-2.0 */
/*
 * uffd-torture: what is counted, what the log tells, and what a thread may be busy
 * with. Included once for the numbers and once for the names: OP() is what it is to be.
 */

/* Threads that use memory */
OP(WRITE), OP(VERIFY), OP(PEEK), OP(SYS_READ), OP(SYS_WRITE), OP(GUP_READ),
OP(GUP_WRITE), OP(VMSPLICE), OP(DIRECT), OP(FIXED), OP(POPULATE),

/* Threads that serve faults */
OP(READ), OP(FAULT), OP(COPY), OP(ZERO), OP(CONTINUE), OP(MOVE), OP(UNPROTECT),
OP(WAKE), OP(REFUSED), OP(EVENT), OP(BAD_READ), OP(BAD_CALL), OP(PREFILL),
OP(TAKEOVER), OP(EXCHANGE),

/* Threads that change pages */
OP(DISCARD), OP(FREE), OP(PUNCH), OP(REMOVE), OP(TRUNCATE), OP(ZAP), OP(DUEL),
OP(SHIFT), OP(PROTECT), OP(POISON), OP(PAGEOUT), OP(COLLAPSE), OP(SPLIT),
OP(COMPACT), OP(MIGRATE), OP(RECLAIM), OP(SQUEEZE), OP(LOOK), OP(TRACK),
OP(SET_MODE), OP(BEHIND),

/* Threads that change mappings and processes */
OP(MREMAP), OP(REMAP_NEW), OP(REREGISTER), OP(MPROTECT), OP(MLOCK), OP(ADVISE),
OP(SIGNAL), OP(VICTIM), OP(FORK), OP(FORK_QUIET), OP(HANDOVER), OP(OTHER_MODE),
OP(KILL_DROP), OP(KILL_READ), OP(ORPHAN),

OP(FINISH),
