/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Readers that wait for messages: uffd_queue_wait() and uffd_queue_announce().
 *
 * Two readers sleep as exclusive waiters; two threads queue a message each and wake
 * one reader; a reader may be killed at any time.  A reader that has taken a message
 * comes back for more.  What the model claims: when nothing moves any more, no
 * message is left while a reader sleeps.
 *
 * -D NAME breaks it: BREAK_PASS_ON (a reader that is killed does not pass the
 * wake-up on), BREAK_ENTER_BARRIER and BREAK_ANNOUNCE_BARRIER (a load overtakes the
 * store before it), BREAK_CAPTIVE (a reader is chosen first and woken later, by a
 * thread that may never come to it, as it was once).
 */

#define READERS		2

byte messages;			/* ->readable is that there are any */
bit wq;				/* lock of the wait queue */
bool waiting[READERS];		/* in the wait queue */
bool asleep[READERS];
bool killed[READERS];
bool gone[READERS];
byte stuck;			/* threads that will never run again */

#define lock(l)		atomic { l == 0 -> l = 1 }
#define unlock(l)	l = 0

/* Takes a waiter off the queue and wakes it, under the lock. */
inline wake_one()
{
	lock(wq);
	if
	:: waiting[0] -> waiting[0] = false; asleep[0] = false
	:: !waiting[0] && waiting[1] -> waiting[1] = false; asleep[1] = false
	:: else
	fi;
	unlock(wq)
}

proctype reader(byte i)
{
	bool readable;

again:
	do
	::
#ifdef BREAK_ENTER_BARRIER
		if
		:: readable = messages > 0; lock(wq); waiting[i] = true;
		   asleep[i] = true; unlock(wq)
		:: lock(wq); waiting[i] = true; asleep[i] = true; unlock(wq);
		   readable = messages > 0
		fi;
#else
		lock(wq);
		waiting[i] = true;
		asleep[i] = true;
		unlock(wq);
		readable = messages > 0;
#endif
		if
		:: !readable && !killed[i] ->
end:			!asleep[i] || killed[i];	/* schedule() */
		:: else
		fi;
		asleep[i] = false;
		readable = messages > 0;
		if
		:: readable || killed[i] -> break
		:: else
		fi
	od;
	lock(wq);			/* finish_wait() */
	waiting[i] = false;
	unlock(wq);
	if
	:: killed[i] ->
#ifndef BREAK_PASS_ON
		if
		:: messages > 0 -> wake_one()
		:: else
		fi;
#endif
		gone[i] = true
	:: else ->
		atomic {		/* the queue's lock */
			if
			:: messages > 0 -> messages--
			:: else
			fi
		};
		goto again
	fi
}

proctype faulter()
{
	byte chosen = READERS;

#ifdef BREAK_CAPTIVE
	messages++;
	lock(wq);
	if
	:: waiting[0] -> waiting[0] = false; chosen = 0
	:: !waiting[0] && waiting[1] -> waiting[1] = false; chosen = 1
	:: else
	fi;
	unlock(wq);
	if
	:: chosen < READERS -> asleep[chosen] = false
	:: stuck == 0 -> stuck++	/* preempted for good */
	:: chosen == READERS
	fi
#else
	bool someone;

#ifdef BREAK_ANNOUNCE_BARRIER
	if
	:: someone = waiting[0] || waiting[1]; messages++
	:: messages++; someone = waiting[0] || waiting[1]
	fi;
#else
	messages++;
	someone = waiting[0] || waiting[1];
#endif
	if
	:: someone -> wake_one()
	:: else
	fi
#endif
}

proctype killer()
{
	if
	:: killed[0] = true
	:: true
	fi
}

/* When nothing else can move. */
proctype judge()
{
	timeout;
	assert(messages == 0 || (gone[0] && gone[1]) ||
	       (!(asleep[0] && !gone[0]) && !(asleep[1] && !gone[1])))
}

init
{
	atomic {
		run reader(0);
		run reader(1);
		run faulter();
		run faulter();
		run killer();
		run judge()
	}
}
