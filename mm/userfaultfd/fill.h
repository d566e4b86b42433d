/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The memory half of userfaultfd: what its rooms share.
 *
 *	anon.c file.c hugetlb.c		a memory type each
 *	large.c				anonymous memory in large folios
 *	register.c			VMAs in and out
 *	protect.c			write protection
 *	move.c				UFFDIO_MOVE
 *
 * Lock order on a fill: the VMA's lock (or mmap_lock for reading), hugetlb's
 * fault mutex and VMA lock, a folio's lock, a page-table lock.
 */

#ifndef _MM_USERFAULTFD_FILL_H
#define _MM_USERFAULTFD_FILL_H

#include <linux/leafops.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/userfaultfd_k.h>

/* Small folios that are made and mapped together. */
#define UFFD_SPAN_PAGES	16

/*
 * What a span reports beside 0 and -errno.  Most of them mean: let go of the
 * locks, do what it says, look the VMA up and check it again, and go on from
 * where it stopped.
 */
enum uffd_again {
	UFFD_BRING_IN = 1,	/* the source is not resident: fill->kept waits */
	UFFD_CHANGED,		/* page table or gate are not what they were */
	UFFD_SPECIAL,		/* within move.c: needs a way of its own */
	/* From uffd_large_copy(), and locks are kept: do it with small folios. */
	UFFD_SMALL,
};

/**
 * uffd_call_len() - how much of a range one call does
 * @len: the range, in bytes
 *
 * What has been done is told in a ssize_t.
 *
 * Return: bytes, @len or less.
 */
static inline unsigned long uffd_call_len(unsigned long len)
{
	return BITS_PER_LONG == 32 ? min_t(unsigned long, len, SZ_1G) : len;
}

struct uffd_memory;

/**
 * struct uffd_fill - a fill on its way
 * @req: what was asked for
 * @gate: the events it must not overtake
 * @vma: the VMA it fills, locked for reading; NULL between attempts
 * @done: bytes filled so far
 * @kept: a folio for the page at @done that has outlived an attempt, with its
 *	source in it when the next one begins; or NULL
 * @small_end: up to here, small folios are the only ones
 * @memory: NULL in the first attempt; then the type of memory it was made on, and
 *	what else must be the same in all that follow:
 * @page_size: its page size
 * @ops: how that plugs itself in, or NULL
 * @file: what was mapped, a reference; or NULL
 * @index: the page of the file that was mapped at the start of the range
 * @flags: how that was shared and registered
 */
struct uffd_fill {
	const struct uffd_fill_request *req;
	struct uffd_gate gate;
	struct vm_area_struct *vma;
	unsigned long done;
	struct folio *kept;
	unsigned long small_end;
	const struct uffd_memory *memory;
	unsigned long page_size;
	const struct vm_uffd_ops *ops;
	struct file *file;
	pgoff_t index;
	vm_flags_t flags;
};

/**
 * uffd_fill_dst() - the next address to fill
 * @fill: the fill
 *
 * Return: the address, page aligned.
 */
static inline unsigned long uffd_fill_dst(const struct uffd_fill *fill)
{
	return fill->req->dst + fill->done;
}

/**
 * uffd_fill_src() - the address to copy from
 * @fill: the fill
 *
 * Return: the address, in current->mm.
 */
static inline const void __user *uffd_fill_src(const struct uffd_fill *fill)
{
	return (const void __user *)(fill->req->src + fill->done);
}

/**
 * uffd_pte_free() - may a fill put a page into this PTE?
 * @pte: a PTE
 *
 * A marker of ours stands for an empty entry, and gives way.  Others, as those of
 * MADV_GUARD_INSTALL, do not.
 *
 * Return: true if it may.
 */
static inline bool uffd_pte_free(pte_t pte)
{
	return pte_none(pte) || pte_is_uffd_marker(pte);
}

/*
 * A span function fills from uffd_fill_dst() to at most @end, and advances
 * fill->done by what it has filled.  It returns 0 if that was all of it, else
 * -errno or enum uffd_again.
 *
 * Context: fill->vma is locked and has been checked, [dst, end) is in it.
 */
typedef int (*uffd_span_fn)(struct uffd_fill *fill, unsigned long end);

/**
 * struct uffd_memory - how a type of memory is filled
 * @span: for each operation the function, or NULL if it cannot be done
 */
struct uffd_memory {
	uffd_span_fn span[UFFD_FILL_OPS];
};

extern const struct uffd_memory uffd_anon;
extern const struct uffd_memory uffd_file;
extern const struct uffd_memory uffd_file_private;
extern const struct uffd_memory uffd_hugetlb;

/* userfaultfd.c */
const struct vm_uffd_ops *uffd_ops_of(struct vm_area_struct *vma);
int uffd_lock_vmas(struct mm_struct *mm, unsigned long dst, unsigned long src,
		   struct vm_area_struct **dst_vma,
		   struct vm_area_struct **src_vma);
void uffd_unlock_vmas(struct vm_area_struct *dst_vma,
		      struct vm_area_struct *src_vma);
void uffd_cursor_rest(struct uffd_cursor *cursor);
pmd_t *uffd_alloc_pmd(struct mm_struct *mm, unsigned long addr);
struct folio *uffd_fill_take_kept(struct uffd_fill *fill);
bool uffd_fill_read(struct uffd_fill *fill, struct folio *folio,
		    const void __user *src);
int uffd_fill_keep(struct uffd_fill *fill, struct folio *folio, bool ready);
void uffd_fill_go_small(struct uffd_fill *fill, struct folio *folio);
int uffd_fill_table(struct uffd_fill *fill, pmd_t **pmdp);
bool uffd_fill_beyond_file(const struct uffd_fill *fill, unsigned long addr);

/**
 * uffd_enter() - may a call, alone or one of several, go on?
 * @gate: of the call
 * @cursor: of the calls, or NULL
 *
 * Context: as of userfaultfd_gate_pass(), but for the lock of the VMA of @cursor.
 *
 * Return: as of userfaultfd_gate_pass().
 */
static inline int uffd_enter(struct uffd_gate *gate, struct uffd_cursor *cursor)
{
	if (!cursor)
		return userfaultfd_gate_pass(gate);
	/*
	 * One look: with a second one behind it, an event that comes in between would
	 * be waited for with the VMA locked, and its thread may want to lock that.
	 */
	if (userfaultfd_gate_quiet(gate))
		return 0;
	uffd_cursor_rest(cursor);
	return userfaultfd_gate_pass(gate);
}

/* protect.c */
void uffd_lift_protection(struct vm_area_struct *vma, unsigned long start,
			  unsigned long len);

/* anon.c: for all memory that is mapped with small pages */
int uffd_pte_copy_private(struct uffd_fill *fill, unsigned long end);
int uffd_pte_zeropage(struct uffd_fill *fill, unsigned long end);
int uffd_pte_poison(struct uffd_fill *fill, unsigned long end);

/* large.c */
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
int uffd_large_copy(struct uffd_fill *fill, unsigned long end);
#else
static inline int uffd_large_copy(struct uffd_fill *fill, unsigned long end)
{
	return UFFD_SMALL;
}
#endif

/**
 * uffd_present_open() - does an access fault where a page is mapped?
 * @protected: the entry has the uffd bit
 * @none: it allows no access at all
 * @reason: why there was a fault: one of __VM_UFFD_FLAGS
 *
 * Return: true if the fault that was remains one.
 */
static inline bool uffd_present_open(bool protected, bool none,
				     vm_flags_t reason)
{
	if (!protected)
		return false;
	if (reason == VM_UFFD_WP)
		return true;
	/* Without the bit PROT_NONE is for NUMA balancing, or mprotect(). */
	return VM_UFFD_RWP && reason == VM_UFFD_RWP && none;
}

/* hugetlb.c */
#ifdef CONFIG_HUGETLB_PAGE
bool uffd_hugetlb_fault_open(struct vm_fault *vmf, vm_flags_t reason);
#else
static inline bool uffd_hugetlb_fault_open(struct vm_fault *vmf,
					   vm_flags_t reason)
{
	return false;
}
#endif

#endif /* _MM_USERFAULTFD_FILL_H */
