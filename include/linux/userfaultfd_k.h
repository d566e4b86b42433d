/* SPDX-License-Identifier: GPL-2.0 */
/*
 * userfaultfd: all that the rest of the kernel may call, and all that its two
 * halves may call of each other.
 *
 * The fd half (fs/userfaultfd.c, fs/userfaultfd/) knows messages and sleepers
 * and nothing of pages.  The memory half (mm/userfaultfd.c, mm/userfaultfd/)
 * knows pages and nothing of messages.  struct userfaultfd_ctx belongs to the
 * fd half; everybody else passes pointers to it around.
 *
 * A VMA points to its context without holding a reference.  The pointer is
 * valid while the VMA or the mm is locked: release of the fd takes it out of
 * every VMA, under both locks, before the context may go away.  What it may put
 * in its place, fs/userfaultfd/orphan.c, is there for ever.
 */

#ifndef _LINUX_USERFAULTFD_K_H
#define _LINUX_USERFAULTFD_K_H

#include <linux/userfaultfd.h>	/* the UAPI */

#include <linux/fcntl.h>
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/leafops.h>
#include <asm-generic/pgtable_uffd.h>
#include <linux/hugetlb_inline.h>

/* A registered VMA has at least one of these set. */
#define __VM_UFFD_FLAGS	(VM_UFFD_MISSING | VM_UFFD_WP | VM_UFFD_MINOR | \
			 VM_UFFD_RWP)

/*
 * What kind of userfaults does this VMA take?  None at all, and the compiler
 * knows it, in a kernel without userfaultfd.
 *
 * "A VMA, locked" is one whose lock, or mmap_lock, is held, for reading at
 * least.  Rmap walkers, who hold neither, get an answer that may be out of date.
 * Nothing sleeps unless its description says so.
 */

/**
 * userfaultfd_modes() - which of these modes is the VMA registered for?
 * @vma: a VMA, locked
 * @modes: of __VM_UFFD_FLAGS
 *
 * Return: the modes, a subset of @modes; 0 if it is not registered for any.
 */
static inline vm_flags_t userfaultfd_modes(const struct vm_area_struct *vma,
					   vm_flags_t modes)
{
	return IS_ENABLED(CONFIG_USERFAULTFD) ? vma->vm_flags & modes : 0;
}

/**
 * userfaultfd_missing() - are faults on absent pages of the VMA delivered?
 * @vma: a VMA, locked
 *
 * Return: true if it is registered with UFFDIO_REGISTER_MODE_MISSING.
 */
static inline bool userfaultfd_missing(struct vm_area_struct *vma)
{
	return userfaultfd_modes(vma, VM_UFFD_MISSING);
}

/**
 * userfaultfd_wp() - are writes to protected pages of the VMA delivered?
 * @vma: a VMA, locked
 *
 * With UFFD_FEATURE_WP_ASYNC they are noted in the page table instead: see
 * userfaultfd_wp_async().
 *
 * Return: true if it is registered with UFFDIO_REGISTER_MODE_WP.
 */
static inline bool userfaultfd_wp(struct vm_area_struct *vma)
{
	return userfaultfd_modes(vma, VM_UFFD_WP);
}

/**
 * userfaultfd_minor() - are faults on pages that only the page cache has
 * delivered?
 * @vma: a VMA, locked
 *
 * Return: true if it is registered with UFFDIO_REGISTER_MODE_MINOR.
 */
static inline bool userfaultfd_minor(struct vm_area_struct *vma)
{
	return userfaultfd_modes(vma, VM_UFFD_MINOR);
}

/**
 * userfaultfd_rwp() - are accesses to inaccessible pages of the VMA delivered?
 * @vma: a VMA, locked
 *
 * With UFFD_FEATURE_RWP_ASYNC they are noted in the page table instead: see
 * userfaultfd_rwp_async().
 *
 * Return: true if it is registered with UFFDIO_REGISTER_MODE_RWP.
 */
static inline bool userfaultfd_rwp(struct vm_area_struct *vma)
{
	/* Callers go on to use PAGE_NONE, which is not there without. */
	return IS_ENABLED(CONFIG_ARCH_HAS_PTE_PROTNONE) &&
	       userfaultfd_modes(vma, VM_UFFD_RWP);
}

/**
 * userfaultfd_protected() - does the uffd bit of PTEs mean anything in the VMA?
 * @vma: a VMA, locked
 *
 * Return: true if it is registered for one of the two modes that use it.
 */
static inline bool userfaultfd_protected(struct vm_area_struct *vma)
{
	return userfaultfd_wp(vma) || userfaultfd_rwp(vma);
}

/**
 * userfaultfd_armed() - is the VMA registered at all?
 * @vma: a VMA, locked
 *
 * Return: true if it is, for whatever mode.
 */
static inline bool userfaultfd_armed(struct vm_area_struct *vma)
{
	return userfaultfd_modes(vma, __VM_UFFD_FLAGS);
}

/**
 * userfaultfd_pte_wp() - does a write through this PTE have to be delivered?
 * @vma: the VMA that maps it, locked
 * @pte: a present PTE
 *
 * Return: true if it is protected and the VMA registered for that.
 */
static inline bool userfaultfd_pte_wp(struct vm_area_struct *vma, pte_t pte)
{
	return pte_uffd(pte) && userfaultfd_wp(vma);
}

/**
 * userfaultfd_huge_pmd_wp() - does a write through this PMD have to be
 * delivered?
 * @vma: the VMA that maps it, locked
 * @pmd: a present huge PMD
 *
 * Return: true if it is protected and the VMA registered for that.
 */
static inline bool userfaultfd_huge_pmd_wp(struct vm_area_struct *vma,
					   pmd_t pmd)
{
	return pmd_uffd(pmd) && userfaultfd_wp(vma);
}

/**
 * userfaultfd_pte_rwp() - does any access through this PTE have to be delivered?
 * @vma: the VMA that maps it, locked
 * @pte: a present PTE
 *
 * Return: true if it is tracked and the VMA registered for that.
 */
static inline bool userfaultfd_pte_rwp(struct vm_area_struct *vma, pte_t pte)
{
	return pte_uffd(pte) && userfaultfd_rwp(vma);
}

/**
 * userfaultfd_huge_pmd_rwp() - does any access through this PMD have to be
 * delivered?
 * @vma: the VMA that maps it, locked
 * @pmd: a present huge PMD
 *
 * Return: true if it is tracked and the VMA registered for that.
 */
static inline bool userfaultfd_huge_pmd_rwp(struct vm_area_struct *vma,
					    pmd_t pmd)
{
	return pmd_uffd(pmd) && userfaultfd_rwp(vma);
}

/**
 * uffd_disable_huge_pmd_share() - must hugetlb keep its own PMDs for the VMA?
 * @vma: a VMA, locked
 *
 * A shared page table would show one mapping's protection in the other, and
 * would let one mapping's faults fill the other behind the handler's back.
 *
 * Return: true if the VMA is registered for minor faults or for protection.
 */
static inline bool uffd_disable_huge_pmd_share(struct vm_area_struct *vma)
{
	return userfaultfd_modes(vma, VM_UFFD_MINOR | VM_UFFD_WP | VM_UFFD_RWP);
}

/**
 * uffd_disable_fault_around() - may a fault map only the page it hit?
 * @vma: a VMA, locked
 *
 * Mapping a neighbour would resolve a minor fault that was never delivered,
 * could pass over a write-protect marker, and would count as an access of its
 * own where accesses are tracked.
 *
 * Return: true if the VMA is registered for minor faults or for protection.
 */
static inline bool uffd_disable_fault_around(struct vm_area_struct *vma)
{
	return userfaultfd_modes(vma, VM_UFFD_MINOR | VM_UFFD_WP | VM_UFFD_RWP);
}

/*
 * Has a mapping of a file ever been registered for missing pages?  Set for good, before
 * the VMA is; read without a lock, by those who can live with an answer that is late.
 */
extern bool userfaultfd_awaits_files;

#ifdef CONFIG_USERFAULTFD

/*
 * The fault path.  Functions that are only declared here are described where they
 * are defined.
 */

vm_fault_t handle_userfault(struct vm_fault *vmf, unsigned long reason);

/**
 * struct vm_uffd_ops - how a type of memory plugs itself in
 * @can_userfault: may the VMA be registered for these of __VM_UFFD_FLAGS?
 * @get_folio_noalloc: the folio of a page that the file has, locked and with a
 *	reference; an ERR_PTR() or NULL if it has none.  Without this there is no
 *	UFFDIO_CONTINUE.
 * @alloc_folio: a new folio for a page that the file lacks, or NULL.  Nobody else
 *	knows of it yet.  Without this a shared mapping cannot be filled.
 * @filemap_add: put what @alloc_folio has made, filled by now, into the file, and
 *	leave it locked.  Whoever pays has been charged now at the latest.  Returns
 *	0, or -errno with the folio as it was.
 * @filemap_remove: undo that, and unlock the folio
 *
 * Private mappings get pages of their own and need none of the last three.
 */
struct vm_uffd_ops {
	bool (*can_userfault)(struct vm_area_struct *vma, vm_flags_t vm_flags);
	struct folio *(*get_folio_noalloc)(struct inode *inode, pgoff_t pgoff);
	struct folio *(*alloc_folio)(struct vm_area_struct *vma,
				     unsigned long addr);
	int (*filemap_add)(struct folio *folio, struct vm_area_struct *vma,
			   unsigned long addr);
	void (*filemap_remove)(struct folio *folio,
			       struct vm_area_struct *vma);
};

/*
 * What else hangs on the context of a VMA.
 */

/**
 * is_mergeable_vm_userfaultfd_ctx() - as far as userfaultfd goes, may the VMA
 * be merged with one of this context?
 * @vma: a VMA, locked
 * @vm_ctx: the other's context, or one without a context
 *
 * Their modes are compared with the rest of their flags, not here.
 *
 * Return: true if both are registered with the same context, or neither is.
 */
static inline bool
is_mergeable_vm_userfaultfd_ctx(struct vm_area_struct *vma,
				struct vm_userfaultfd_ctx vm_ctx)
{
	return vm_ctx.ctx == vma->vm_userfaultfd_ctx.ctx;
}

bool userfaultfd_orphaned(const struct vm_area_struct *vma);
bool userfaultfd_forgets_remap(const struct userfaultfd_ctx *ctx);
bool userfaultfd_wp_unpopulated(struct vm_area_struct *vma);
bool userfaultfd_wp_async(struct vm_area_struct *vma);
void userfaultfd_log_write(struct vm_area_struct *vma, unsigned long address,
			   unsigned long size);
bool userfaultfd_rwp_async(struct vm_area_struct *vma);

/**
 * vma_has_uffd_without_event_remap() - will mremap() take this VMA's
 * registration away?
 * @vma: a VMA, locked
 *
 * If so, what is moved must not keep its write protection either.
 *
 * Return: true if it is registered, and its handler has not asked for
 * UFFD_FEATURE_EVENT_REMAP.
 */
static inline bool vma_has_uffd_without_event_remap(struct vm_area_struct *vma)
{
	struct userfaultfd_ctx *ctx = vma->vm_userfaultfd_ctx.ctx;

	return ctx && userfaultfd_forgets_remap(ctx);
}

/*
 * Events: changes of the address space that a handler asked to hear of.
 *
 * A prepare hook runs under the lock that makes the change atomic, and gives
 * the event its place among the messages; the matching complete hook, with no
 * lock held, publishes it and waits until a handler has read it.  In between
 * nothing may fault on registered memory: fills wait for the event, and the
 * handler may be in one of them.
 */

int dup_userfaultfd(struct vm_area_struct *vma, struct list_head *events);
void dup_userfaultfd_complete(struct list_head *events);
void dup_userfaultfd_fail(struct list_head *events);

bool mremap_userfaultfd_may_move(const struct vm_area_struct *vma,
				 unsigned int room);
void mremap_userfaultfd_prep(struct vm_area_struct *vma,
			     struct list_head *events);
void mremap_userfaultfd_complete(struct list_head *events, unsigned long from,
				 unsigned long to, unsigned long len);

int userfaultfd_remove(struct vm_area_struct *vma, unsigned long start,
		       unsigned long end);

int userfaultfd_unmap_prep(struct vm_area_struct *vma, unsigned long start,
			   unsigned long end, struct list_head *events);
void userfaultfd_unmap_fail(struct list_head *events, unsigned long start,
			    unsigned long end);
void userfaultfd_unmap_publish(struct list_head *events, unsigned long start,
			       unsigned long end);
void userfaultfd_unmap_complete(struct mm_struct *mm, struct list_head *events);

/*
 * What the memory half may call of the fd half.
 */

/**
 * struct uffd_gate - a fill, move or protect call on its way past the events
 * @ctx: the context it was called on
 * @generation: number of the newest event when it was last looked
 * @delivered: how many events had been delivered then, or when the call began
 * @range: what the call touches; the second one is UFFDIO_MOVE's source, else
 *	empty
 * @range.start: first byte
 * @range.end: byte after the last
 * @nowait: the call must not wait for an event to be published
 *
 * An event that was queued after the call began means that the caller acts on
 * stale knowledge.  See fs/userfaultfd/gate.c.
 *
 * It lives on the caller's stack, and is used as follows:
 * userfaultfd_gate_init() when the call begins; userfaultfd_gate_pass() before
 * it takes a lock, which may sleep and may refuse; userfaultfd_gate_moved()
 * under each page-table lock, before it changes anything.  When that says yes it
 * lets go of all locks and starts over from userfaultfd_gate_pass().
 */
struct uffd_gate {
	struct userfaultfd_ctx *ctx;
	unsigned long generation;
	unsigned long delivered;
	struct {
		unsigned long start;
		unsigned long end;
	} range[2];
	bool nowait;
};

void userfaultfd_gate_init(struct uffd_gate *gate, struct userfaultfd_ctx *ctx,
			   unsigned long start, unsigned long len, bool nowait);
bool userfaultfd_gate_quiet(const struct uffd_gate *gate);
int userfaultfd_gate_pass(struct uffd_gate *gate);
bool userfaultfd_gate_moved(struct uffd_gate *gate);

void userfaultfd_wake_range(struct userfaultfd_ctx *ctx, unsigned long start,
			    unsigned long len);

/*
 * What the fd half, and fs/proc/, may call of the memory half.
 */

bool userfaultfd_fault_open(struct vm_fault *vmf, vm_flags_t reason);
void userfaultfd_settle(struct vm_area_struct *vma, unsigned long start,
			unsigned long end);

/**
 * struct uffd_cursor - what calls that follow each other hand on to the next
 * @vma: the VMA that the last one has filled, still locked for reading, or NULL; no
 *	lock that comes before a VMA's may be taken while it is
 * @filled: bytes asked for since such a VMA was let go of for who may wait for it
 * @wake: wakes those whose faults have been resolved by the calls so far
 *
 * Who makes several calls on one mm for one caller, and keeps the mm in use all
 * along, gives them the same one, and wakes when the last one is done.  A call that
 * is about to wait for somebody lets go of the VMA, and calls @wake with no lock
 * held: it may be one of these that it waits for.
 */
struct uffd_cursor {
	struct vm_area_struct *vma;
	unsigned long filled;
	void (*wake)(struct uffd_cursor *cursor);
};

void userfaultfd_cursor_release(struct uffd_cursor *cursor);

/**
 * enum uffd_fill_op - how a fill makes its pages
 * @UFFD_FILL_COPY: it copies them from the caller's memory
 * @UFFD_FILL_ZEROPAGE: they are zeroes
 * @UFFD_FILL_CONTINUE: they are those that the page cache has
 * @UFFD_FILL_POISON: it makes none; an access is to raise SIGBUS
 * @UFFD_FILL_OPS: how many there are
 */
enum uffd_fill_op {
	UFFD_FILL_COPY,
	UFFD_FILL_ZEROPAGE,
	UFFD_FILL_CONTINUE,
	UFFD_FILL_POISON,
	UFFD_FILL_OPS,
};

/**
 * struct uffd_fill_request - what to fill
 * @ctx: the context that the call came in on
 * @mm: its mm, which the caller keeps in use
 * @op: how to make the pages
 * @dst: first address to fill, page aligned
 * @src: for UFFD_FILL_COPY the address in current->mm to copy from, which need
 *	not be aligned; else not used
 * @len: bytes, a multiple of the page size, not zero, not wrapping
 * @wp: for UFFD_FILL_COPY and UFFD_FILL_CONTINUE: map them write-protected
 * @nowait: do not wait for an event to be published
 * @cursor: of the calls that this is one of, or NULL if it is alone
 */
struct uffd_fill_request {
	struct userfaultfd_ctx *ctx;
	struct mm_struct *mm;
	struct uffd_cursor *cursor;
	enum uffd_fill_op op;
	unsigned long dst;
	unsigned long src;
	unsigned long len;
	bool wp;
	bool nowait;
};

ssize_t userfaultfd_fill(const struct uffd_fill_request *req);

/**
 * struct uffd_move_request - what to move
 * @ctx: the context that the call came in on
 * @mm: its mm, which is current's, and in use for as long as the call takes
 * @dst: first address to move to, page aligned
 * @src: first address to move from, page aligned
 * @len: bytes, a multiple of the page size, not zero, not wrapping
 * @allow_holes: pass over what is missing in the source
 * @nowait: do not wait for an event to be published
 * @cursor: of the calls that this is one of, or NULL if it is alone
 */
struct uffd_move_request {
	struct userfaultfd_ctx *ctx;
	struct mm_struct *mm;
	struct uffd_cursor *cursor;
	unsigned long dst;
	unsigned long src;
	unsigned long len;
	bool allow_holes;
	bool nowait;
};

ssize_t userfaultfd_move(const struct uffd_move_request *req);

int userfaultfd_register_range(struct userfaultfd_ctx *ctx,
			       struct mm_struct *mm, unsigned long start,
			       unsigned long end, vm_flags_t modes,
			       bool wp_async, bool *hugetlb);
int userfaultfd_unregister_range(struct userfaultfd_ctx *ctx,
				 struct mm_struct *mm, unsigned long start,
				 unsigned long end, bool wp_async);
void userfaultfd_release_mm(struct userfaultfd_ctx *ctx,
			    struct userfaultfd_ctx *heir, struct mm_struct *mm);
void userfaultfd_reset_ctx(struct vm_area_struct *vma);

/**
 * struct uffd_protect_request - ranges whose protection is to change
 * @ctx: the context that the call came in on
 * @mm: its mm, which the caller keeps in use
 * @mode: VM_UFFD_WP or VM_UFFD_RWP: against writes, or any access
 * @op: the ranges: page aligned, not empty, not wrapping.  With
 *	UFFDIO_WRITEPROTECT_MODE_WP one is to be protected, else unprotected
 * @nr: how many; not zero
 * @nowait: do not wait for an event to be published
 * @cursor: of the calls that this is one of, or NULL if it is alone
 */
struct uffd_protect_request {
	struct userfaultfd_ctx *ctx;
	struct mm_struct *mm;
	vm_flags_t mode;
	struct uffdio_op *op;
	unsigned int nr;
	bool nowait;
	struct uffd_cursor *cursor;
};

unsigned int userfaultfd_protect(const struct uffd_protect_request *req);
void userfaultfd_lock_vmas(struct userfaultfd_ctx *ctx, struct mm_struct *mm);
void userfaultfd_exclude_faults(struct userfaultfd_ctx *ctx,
				struct mm_struct *mm);
void userfaultfd_admit_faults(struct mm_struct *mm);
long uffd_wp_range(struct vm_area_struct *vma, unsigned long start,
		   unsigned long len, bool enable_wp);

#else /* CONFIG_USERFAULTFD */

static inline bool userfaultfd_orphaned(const struct vm_area_struct *vma)
{
	return false;
}

static inline bool userfaultfd_wp_async(struct vm_area_struct *vma)
{
	return false;
}

static inline void userfaultfd_log_write(struct vm_area_struct *vma,
					 unsigned long address,
					 unsigned long size)
{
}

static inline bool userfaultfd_rwp_async(struct vm_area_struct *vma)
{
	return false;
}

static inline int dup_userfaultfd(struct vm_area_struct *vma,
				  struct list_head *events)
{
	return 0;
}

static inline void dup_userfaultfd_complete(struct list_head *events)
{
}

static inline int userfaultfd_remove(struct vm_area_struct *vma,
				     unsigned long start, unsigned long end)
{
	return 0;
}

static inline void userfaultfd_unmap_complete(struct mm_struct *mm,
					      struct list_head *events)
{
}

static inline bool vma_has_uffd_without_event_remap(struct vm_area_struct *vma)
{
	return false;
}

static inline void mremap_userfaultfd_complete(struct list_head *events,
					       unsigned long from,
					       unsigned long to,
					       unsigned long len)
{
}

static inline bool
is_mergeable_vm_userfaultfd_ctx(struct vm_area_struct *vma,
				struct vm_userfaultfd_ctx vm_ctx)
{
	return true;
}

static inline bool
mremap_userfaultfd_may_move(const struct vm_area_struct *vma, unsigned int room)
{
	return true;
}

static inline void mremap_userfaultfd_prep(struct vm_area_struct *vma,
					   struct list_head *events)
{
}

static inline int userfaultfd_unmap_prep(struct vm_area_struct *vma,
					 unsigned long start, unsigned long end,
					 struct list_head *events)
{
	return 0;
}

static inline bool userfaultfd_wp_unpopulated(struct vm_area_struct *vma)
{
	return false;
}

static inline void dup_userfaultfd_fail(struct list_head *events)
{
}

static inline void userfaultfd_unmap_fail(struct list_head *events,
					  unsigned long start,
					  unsigned long end)
{
}

static inline void userfaultfd_unmap_publish(struct list_head *events,
					     unsigned long start,
					     unsigned long end)
{
}

static inline long uffd_wp_range(struct vm_area_struct *vma,
				 unsigned long start, unsigned long len,
				 bool enable_wp)
{
	return 0;
}

static inline vm_fault_t handle_userfault(struct vm_fault *vmf,
					  unsigned long reason)
{
	return VM_FAULT_SIGBUS;	/* no VMA is registered: not reached */
}

#endif /* CONFIG_USERFAULTFD */

/*
 * PTE markers: how a PTE that maps nothing remembers its write protection.
 */

/**
 * userfaultfd_wp_use_markers() - does protecting the VMA mark empty PTEs?
 * @vma: a VMA, locked
 *
 * In file mappings always, since a page can be dropped and found again behind
 * the handler's back; in anonymous memory only if the handler asked for it.
 *
 * Return: true if it does; false too if it is not registered for protection.
 */
static inline bool userfaultfd_wp_use_markers(struct vm_area_struct *vma)
{
	return userfaultfd_wp(vma) &&
	       (!vma_is_anonymous(vma) || userfaultfd_wp_unpopulated(vma));
}

/**
 * pte_swp_uffd_any() - is the page behind this non-present PTE protected or
 * tracked, be it swapped out or absent?
 * @pte: any PTE
 *
 * Return: true if it is; false if the PTE is present, whatever its bits.
 */
static inline bool pte_swp_uffd_any(pte_t pte)
{
	return pgtable_supports_uffd() && !pte_none(pte) &&
	       !pte_present(pte) &&
	       (pte_swp_uffd(pte) || pte_is_uffd_wp_marker(pte));
}

#endif /* _LINUX_USERFAULTFD_K_H */
