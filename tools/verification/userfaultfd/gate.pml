/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A fill and an event that concerns it: fs/userfaultfd/gate.c and nowait.c, and
 * userfaultfd_settle() and the span functions in mm/.
 *
 *	dropper		madvise(): prepares a REMOVE, publishes it, waits until it
 *			is read, drops what is mapped
 *	handler		reads the REMOVE: takes it, copies it out, opens the gate
 *	filler		a fill by another thread: begins at any time, copies its source
 *			with no lock held, maps
 *
 * The page may be mapped by a page table or as a huge page, whose entry the dropper
 * looks at with no lock when it is empty.
 *
 * -D NOWAIT: the dropper does not wait.  -D MERGE: nor does he then, and there is a
 * REMOVE of a page beside it, to which his is added if no reader has taken that.
 *
 * What the model claims: a fill that began before the handler had read the REMOVE
 * leaves nothing mapped behind the drop; and a refused fill is refused for an event.
 *
 * -D NAME breaks it: BREAK_LOOK (the fill looks at the gate before it takes the
 * lock), BREAK_HISTORY (it asks for unread events only), BREAK_SETTLE (the dropper
 * does not take the lock of an empty entry), BREAK_PASSING (an event that is read
 * between the call's beginning and its look at the gate is none), BREAK_WIDEN (what
 * is added to an event does not advance the generation), BREAK_TOGETHER (the gate
 * grows first, the message in a hold of the lock of its own), BREAK_TAKEN (it is added
 * to an event that a reader has a copy of).
 */

bit ptl, queue;
byte generation;
byte delivered;
bool beside;			/* an event for another page is unread */
bool taken;			/* a reader has a copy of it */
bool widened, told;		/* it is about ours as well: gate and message */
bool ours;			/* an event for our page is unread */
bool held;			/* queued, not published */
bool remembered;		/* one for our page was read: it is in the history */
bool mapped;
bool stale;			/* what is mapped was filled without knowing */
bool dropped;

#define lock(l)		atomic { l == 0 -> l = 1 }
#define unlock(l)	l = 0
#define unread		(ours || (beside && widened))

#ifdef BREAK_TAKEN
#define may_merge	beside
#else
#define may_merge	(beside && !taken)
#endif

active proctype dropper()
{
	bool none;

#ifdef MERGE
	lock(queue);
	beside = true;
	generation++;
	unlock(queue);
#endif
	lock(queue);
	if
	:: may_merge ->			/* uffd_remove_merge() */
		widened = true;
#ifdef BREAK_TOGETHER
		unlock(queue);
		lock(queue);
#endif
		told = true;
#ifndef BREAK_WIDEN
		generation++
#endif
	:: else ->			/* prepare */
		held = true;
		ours = true;
		generation++
	fi;
	unlock(queue);
#ifndef BREAK_SETTLE
	lock(ptl);			/* settle */
	unlock(ptl);
#endif
	held = false;			/* publish */
#if !defined(NOWAIT) && !defined(MERGE)
	!ours;				/* delivered */
#endif
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
	bool copy;

end:	do
	:: beside ->
		lock(queue);
		taken = true;
		copy = told;
		unlock(queue);
		lock(queue);		/* copied out */
		remembered = remembered || copy;
		delivered++;
		beside = false;
		unlock(queue)
	:: !beside && ours && !held ->
		lock(queue);
		remembered = true;
		delivered++;
		ours = false;
		unlock(queue)
	od
}

active proctype filler()
{
	byte noted, before;
	bool knows, moved, refused;

	atomic {			/* userfaultfd_gate_init() */
		before = delivered;
		knows = remembered
	};
	noted = generation;
	moved = beside || ours;	/* userfaultfd_gate_pass(), with no lock */
#ifndef BREAK_PASSING
	moved = moved || delivered != before;
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
