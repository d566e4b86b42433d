/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A fault from parking to waking: fs/userfaultfd/wait.c and queue.c.
 *
 *	sleeper		handle_userfault()
 *	handler		reads the message, fills the page, wakes
 *	stranger	fills the page at any time, or does not, and wakes
 *
 * The sleeper's record is on its stack: nobody may touch it when the sleeper has
 * returned.  What the model claims:
 *
 * - nobody touches the record when it is gone (the assertions);
 * - the sleeper returns, whatever the order of events (an end state in which it
 *   does not is an error): no wake-up is lost, no message that could not be copied
 *   to the handler is lost, nobody sleeps before a page that is there;
 * - no message is read after its fault has been resolved.
 *
 * A store that the CPU lets wait while it goes on to a load is modelled as the two
 * in the other order; so a missing barrier is a choice of both orders.
 *
 * With -D SIGNAL a signal may come as well: the sleeper may always go then, so that
 * is for the first claim and the last.
 *
 * -D NAME breaks it: BREAK_PARK_BARRIER, BREAK_WAKE_BARRIER, BREAK_RECHECK,
 * BREAK_LAST_ACCESS, BREAK_TAKEN, BREAK_PUTBACK.
 */

mtype = { NEW, READY, TAKEN, RETURNING, GONE }

bit shard, queue;		/* the locks */
bool present;			/* the page is there */

/* The record. */
bool alive;
bool indexed;
bool parked;
mtype state = NEW;

bool queued;			/* the message is in the queue */
bool resolved;			/* somebody has woken the sleeper */

#define lock(l)		atomic { l == 0 -> l = 1 }
#define unlock(l)	l = 0
#define touch		assert(alive)

inline withdraw()
{
	lock(queue);
	touch;
	queued = false;
	state = GONE;
	unlock(queue)
}

/* uffd_index_wake(): the page is there, now look who sleeps. */
inline wake(seen)
{
	if
	:: seen ->
		lock(shard);
		if
		:: indexed ->
			touch;
			if
			:: state != TAKEN -> withdraw()
			:: else
			fi;
			resolved = true;
#ifdef BREAK_LAST_ACCESS
			parked = false;
			touch;
			indexed = false;
#else
			indexed = false;
			touch;
			parked = false;
#endif
		:: else
		fi;
		unlock(shard)
	:: else
	fi
}

/* A page that is there already is -EEXIST, and wakes nobody. */
inline fill(seen)
{
#ifdef BREAK_WAKE_BARRIER
	if
	:: seen = indexed; atomic { done = present; present = true }
	:: atomic { done = present; present = true }; seen = indexed
	fi;
#else
	atomic { done = present; present = true };
	seen = indexed;
#endif
	if
	:: !done -> wake(seen)
	:: else
	fi
}

active proctype sleeper()
{
	bool open;

	alive = true;
	parked = true;
#ifdef BREAK_PARK_BARRIER
	if
	:: open = !present; lock(shard); indexed = true; unlock(shard)
	:: lock(shard); indexed = true; unlock(shard); open = !present
	fi;
#else
	lock(shard);
	indexed = true;
	unlock(shard);
	open = !present;
#endif
#ifdef BREAK_RECHECK
	open = true;
#endif
	if
	:: open ->
		lock(queue);
		if
		:: state == NEW -> state = READY; queued = true
		:: else
		fi;
		unlock(queue);
		if
		:: !parked		/* woken */
#ifdef SIGNAL
		:: true			/* a signal */
#endif
		fi
	:: else
	fi;
	if
	:: parked ->			/* uffd_index_unpark() */
		lock(shard);
		if
		:: parked -> withdraw(); indexed = false; parked = false
		:: else
		fi;
		unlock(shard)
	:: else
	fi;
	alive = false
}

active proctype handler()
{
	bool seen, done, have, tried;

again:
end:	queued;				/* read() waits */
	lock(queue);
	have = queued;
	if
	:: have ->
		assert(!resolved);
		queued = false;
#ifdef BREAK_TAKEN
		state = TAKEN;
		unlock(queue);
		touch;			/* copies the message */
		lock(queue);
#else
		touch;
		state = TAKEN;
#endif
	:: else
	fi;
	unlock(queue);
	if
	:: !have -> goto again
	:: else
	fi;
	if
	:: !tried ->			/* the copy to user memory fails */
		tried = true;
#ifndef BREAK_PUTBACK
		lock(shard);
		if
		:: indexed && state == TAKEN ->
			lock(queue);
			touch;
			state = RETURNING;
			unlock(queue)
		:: else
		fi;
		unlock(shard);
		lock(queue);
		if
		:: state == RETURNING -> touch; state = READY; queued = true
		:: else
		fi;
		unlock(queue);
#endif
		goto again
	:: true
	fi;
	fill(seen)
}

active proctype stranger()
{
	bool seen, done;

	if
	:: fill(seen)
	:: true
	fi
}
