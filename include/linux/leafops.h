/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The words in which later kernels speak of what a page table entry holds that
 * maps nothing, and of userfaultfd's bit in an entry; and what the kernel's own
 * code still calls by the old ones.
 */

#ifndef _LINUX_LEAFOPS_H
#define _LINUX_LEAFOPS_H

#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <asm-generic/pgtable_uffd.h>

/* Tracking of any access is not there, and what it needs not everywhere. */
#define VM_UFFD_RWP			VM_NONE
#ifndef PAGE_NONE
#define PAGE_NONE			__pgprot(0)
#endif
#define MM_CP_UFFD_RWP			0UL
#define MM_CP_UFFD_RWP_RESOLVE		0UL

/* The bit is there, or it is not: that does not depend on the machine. */
#define pgtable_supports_uffd()		IS_ENABLED(CONFIG_HAVE_ARCH_USERFAULTFD_WP)
#define uffd_supports_wp_marker()	IS_ENABLED(CONFIG_PTE_MARKER_UFFD_WP)

/* It means write protection and nothing else. */
#define pte_uffd(pte)			pte_uffd_wp(pte)
#define pte_mkuffd(pte)			pte_mkuffd_wp(pte)
#define pmd_uffd(pmd)			pmd_uffd_wp(pmd)
#define pmd_mkuffd(pmd)			pmd_mkuffd_wp(pmd)
#define pmd_clear_uffd(pmd)		pmd_clear_uffd_wp(pmd)
#define pte_swp_uffd(pte)		pte_swp_uffd_wp(pte)
#define pte_swp_mkuffd(pte)		pte_swp_mkuffd_wp(pte)
#define pte_swp_clear_uffd(pte)		pte_swp_clear_uffd_wp(pte)
#define huge_pte_uffd(pte)		huge_pte_uffd_wp(pte)
#define huge_pte_mkuffd(pte)		huge_pte_mkuffd_wp(pte)

/* What an entry holds that is neither none nor present. */
typedef swp_entry_t softleaf_t;

#define softleaf_from_pte(pte)		pte_to_swp_entry(pte)
#define softleaf_is_swap(entry)		(!non_swap_entry(entry))
#define softleaf_is_migration(entry)	is_migration_entry(entry)
#define pmd_is_migration_entry(pmd)	is_pmd_migration_entry(pmd)

/**
 * pte_is_uffd_marker() - does the PTE hold a marker that only userfaultfd sets?
 * @pte: any PTE
 *
 * There are no others: it is protection, or UFFDIO_POISON, or the poison that
 * swap has left behind, which a fill may repair like the second.
 *
 * Return: true if it does.
 */
static inline bool pte_is_uffd_marker(pte_t pte)
{
	return is_pte_marker(pte);
}

/**
 * pte_marker_entry_uffd_wp() - is this a marker that protects?
 * @entry: what a non-present PTE holds
 *
 * Return: true if it is a marker and says so.
 */
static inline bool pte_marker_entry_uffd_wp(swp_entry_t entry)
{
	return uffd_supports_wp_marker() && is_pte_marker_entry(entry) &&
	       (pte_marker_get(entry) & PTE_MARKER_UFFD_WP);
}

/**
 * pte_is_uffd_wp_marker() - does the PTE hold a marker that protects?
 * @pte: any PTE
 *
 * Return: true if it maps nothing, and a write is to be delivered.
 */
static inline bool pte_is_uffd_wp_marker(pte_t pte)
{
	return uffd_supports_wp_marker() && is_swap_pte(pte) &&
	       pte_marker_entry_uffd_wp(pte_to_swp_entry(pte));
}

#define pte_marker_uffd_wp(pte)		pte_is_uffd_wp_marker(pte)
#define pte_swp_uffd_wp_any(pte)	pte_swp_uffd_any(pte)

#endif /* _LINUX_LEAFOPS_H */
