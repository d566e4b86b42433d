/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A fill and an event that concerns it: fs/userfaultfd/gate.c, and userfaultfd_settle()
 * and the span functions in mm/.
 *
 *	dropper		madvise(): prepares a REMOVE, publishes it, waits until it
 *			is read, drops what is mapped
 *	handler		reads the REMOVE
 *	filler		a fill by another thread: begins at any time, copies its source
 *			with no lock held, maps
 *
 * The page may be mapped by a page table or as a huge page, whose entry the dropper
 * looks at with no lock when it is empty.
 *
 * What the model claims: a fill that began before the handler had read the REMOVE
 * leaves nothing mapped behind the drop; and a refused fill is refused for an event.
 *
 * -D NAME breaks it: BREAK_LOOK (the fill looks at the gate before it takes the
 * lock), BREAK_HISTORY (it asks for unread events only), BREAK_SETTLE (the dropper
 * does not take the lock of an empty entry), BREAK_PASSING (an event that is read
 * between the call's beginning and its look at the gate is none).
 */

bit ptl, queue;
byte generation;
bool unread;
bool remembered;		/* read, and in the history */
bool held;			/* queued, not published */
bool mapped;
bool stale;			/* what is mapped was filled without knowing */
bool dropped;

#define lock(l)		atomic { l == 0 -> l = 1 }
#define unlock(l)	l = 0

active proctype dropper()
{
	bool none;

	lock(queue);			/* prepare */
	held = true;
	unread = true;
	generation++;
	unlock(queue);
#ifndef BREAK_SETTLE
	lock(ptl);			/* settle */
	unlock(ptl);
#endif
	held = false;			/* publish */
	!unread;			/* delivered */
	none = !mapped;		/* with no lock */
	if
	:: none
	:: else ->
		lock(ptl);
		mapped = false;
		unlock(ptl)
	fi;
	dropped = true
}

active proctype handler()
{
end:	(unread && !held);
	lock(queue);
	remembered = true;
	unread = false;
	unlock(queue)
}

active proctype filler()
{
	byte noted;
	bool knows, moved, refused;

	knows = remembered;		/* userfaultfd_gate_init() */
	noted = generation;
	moved = unread;			/* userfaultfd_gate_pass(), with no lock */
#ifndef BREAK_PASSING
	moved = moved || remembered != knows;
#endif
	moved = moved || generation != noted;
	if
	:: moved ->			/* uffd_gate_judge() */
		lock(queue);
		refused = unread || (remembered && !knows);
		noted = generation;
		unlock(queue)
	:: else
	fi;
	if
	:: refused -> goto out
	:: else
	fi;
	skip;				/* the source is copied */
#ifdef BREAK_LOOK
	moved = generation != noted;
	lock(ptl);
#else
	lock(ptl);
	moved = generation != noted;
#endif
	if
	:: moved ->			/* uffd_gate_judge() */
		lock(queue);
#ifdef BREAK_HISTORY
		refused = unread;
#else
		refused = unread || (remembered && !knows);
#endif
		unlock(queue)
	:: else
	fi;
	if
	:: !refused -> mapped = true; stale = !knows
	:: else
	fi;
	unlock(ptl);
out:
	assert(!refused || generation > 0)
}

active proctype judge()
{
	timeout;
	assert(!dropped || !mapped || !stale)
}
