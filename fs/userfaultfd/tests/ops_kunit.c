// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for a type of memory that plugs itself in: a file whose mappings have
 * struct vm_uffd_ops and no other operation, not even one for faults.
 *
 * The calls are made by the test's own thread, on an mm of its own.  What the type
 * is asked for is counted.
 */

#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/pagemap.h>
#include <linux/uaccess.h>
#include "../uffd.h"

#define NR_PAGES	8
#define LEN		(NR_PAGES * PAGE_SIZE)

struct ops_fixture {
	struct userfaultfd_ctx ctx;
	struct file *file;
	unsigned long addr;		/* where it is mapped, and registered */
	unsigned long src;		/* ordinary memory */
	vm_flags_t refused;		/* modes that it cannot be registered for */
	int full;			/* it takes no page any more: the errno */
	unsigned int allocs;
	unsigned int adds;
	unsigned int removes;
	unsigned int lookups;
};

static struct ops_fixture *fixture_of(const struct file *file)
{
	return file->private_data;
}

static bool ops_can_userfault(struct vm_area_struct *vma, vm_flags_t vm_flags)
{
	return !(vm_flags & fixture_of(vma->vm_file)->refused);
}

static struct folio *ops_get_folio(struct inode *inode, pgoff_t pgoff)
{
	struct ops_fixture *f = inode->i_private;

	f->lookups++;
	return filemap_lock_folio(inode->i_mapping, pgoff);
}

static struct folio *ops_alloc_folio(struct vm_area_struct *vma,
				     unsigned long addr)
{
	fixture_of(vma->vm_file)->allocs++;
	return folio_alloc(GFP_KERNEL, 0);
}

static int ops_filemap_add(struct folio *folio, struct vm_area_struct *vma,
			   unsigned long addr)
{
	struct ops_fixture *f = fixture_of(vma->vm_file);

	if (f->full)
		return f->full;
	f->adds++;
	return filemap_add_folio(vma->vm_file->f_mapping, folio,
				 linear_page_index(vma, addr), GFP_KERNEL);
}

static void ops_filemap_remove(struct folio *folio, struct vm_area_struct *vma)
{
	fixture_of(vma->vm_file)->removes++;
	filemap_remove_folio(folio);
	folio_unlock(folio);
}

/* A type that can do all of it, and one that does nothing but admit to it. */

static const struct vm_uffd_ops whole_ops = {
	.can_userfault		= ops_can_userfault,
	.get_folio_noalloc	= ops_get_folio,
	.alloc_folio		= ops_alloc_folio,
	.filemap_add		= ops_filemap_add,
	.filemap_remove		= ops_filemap_remove,
};

static const struct vm_operations_struct whole_vm_ops = {
	.uffd_ops = &whole_ops,
};

static const struct vm_uffd_ops bare_ops = {
	.can_userfault		= ops_can_userfault,
};

static const struct vm_operations_struct bare_vm_ops = {
	.uffd_ops = &bare_ops,
};

static const struct vm_operations_struct no_ops;

static int whole_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &whole_vm_ops;
	return 0;
}

static int bare_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &bare_vm_ops;
	return 0;
}

static int no_ops_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &no_ops;
	return 0;
}

static const struct file_operations whole_fops = { .mmap = whole_mmap };
static const struct file_operations bare_fops = { .mmap = bare_mmap };
static const struct file_operations no_ops_fops = { .mmap = no_ops_mmap };

static int ops_test_init(struct kunit *test)
{
	struct ops_fixture *f;

	f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	refcount_set(&f->ctx.refs, 1000);
	f->ctx.initialized = true;
	uffd_ctx_init(&f->ctx);
	test->priv = f;
	return 0;
}

static unsigned long map(struct kunit *test, struct file *file,
			 unsigned long flags)
{
	unsigned long addr;

	addr = kunit_vm_mmap(test, file, 0, LEN, PROT_READ | PROT_WRITE, flags,
			     0);
	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(addr));
	return addr;
}

static int register_it(struct ops_fixture *f, vm_flags_t modes)
{
	bool hugetlb = false;

	return userfaultfd_register_range(&f->ctx, current->mm, f->addr,
					  f->addr + LEN, modes, false, &hugetlb);
}

/* A file of this type, mapped.  Page i of the source begins with i + 1. */
static struct ops_fixture *new_file(struct kunit *test,
				    const struct file_operations *fops,
				    unsigned long flags)
{
	struct ops_fixture *f = test->priv;
	unsigned int i;

	f->file = anon_inode_create_getfile("[uffd-ops]", fops, f, O_RDWR,
					    NULL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, f->file);
	file_inode(f->file)->i_private = f;
	i_size_write(file_inode(f->file), LEN);
	f->addr = map(test, f->file, flags);
	f->src = map(test, NULL, MAP_PRIVATE | MAP_ANONYMOUS);
	f->ctx.mm = current->mm;
	for (i = 0; i < NR_PAGES; i++)
		KUNIT_ASSERT_EQ(test, 0,
				put_user(i + 1, (u32 __user *)
						(f->src + i * PAGE_SIZE)));
	return f;
}

static struct ops_fixture *new_memory(struct kunit *test,
				      const struct file_operations *fops,
				      unsigned long flags)
{
	struct ops_fixture *f = new_file(test, fops, flags);

	KUNIT_ASSERT_EQ(test, 0, register_it(f, VM_UFFD_MISSING));
	return f;
}

/* By another thread: the mm has gone with the test's. */
static void ops_test_exit(struct kunit *test)
{
	struct ops_fixture *f = test->priv;

	if (f && !IS_ERR_OR_NULL(f->file))
		fput(f->file);
}

static ssize_t fill(struct ops_fixture *f, enum uffd_fill_op op,
		    unsigned int page, unsigned int nr)
{
	struct uffd_fill_request req = {
		.ctx = &f->ctx,
		.mm = f->ctx.mm,
		.op = op,
		.dst = f->addr + page * PAGE_SIZE,
		.src = f->src + page * PAGE_SIZE,
		.len = nr * PAGE_SIZE,
	};

	return userfaultfd_fill(&req);
}

/* What a page that is mapped begins with; nothing but a fill can have mapped it. */
static long begins_with(struct ops_fixture *f, unsigned int page)
{
	u32 val;

	if (get_user(val, (u32 __user *)(f->addr + page * PAGE_SIZE)))
		return -EFAULT;
	return val;
}

static bool in_file(struct ops_fixture *f, unsigned int page)
{
	struct folio *folio = filemap_get_folio(f->file->f_mapping, page);

	if (IS_ERR(folio))
		return false;
	folio_put(folio);
	return true;
}

/* A page of the file that begins with a number. */
static void put_in_file(struct kunit *test, unsigned int page, u32 val)
{
	struct ops_fixture *f = test->priv;
	struct folio *folio = folio_alloc(GFP_KERNEL | __GFP_ZERO, 0);
	u32 *kaddr;

	KUNIT_ASSERT_NOT_NULL(test, folio);
	kaddr = kmap_local_folio(folio, 0);
	*kaddr = val;
	kunmap_local(kaddr);
	__folio_mark_uptodate(folio);
	KUNIT_ASSERT_EQ(test, 0, filemap_add_folio(f->file->f_mapping, folio,
						   page, GFP_KERNEL));
	folio_unlock(folio);
	folio_put(folio);
}

static void ops_copy(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &whole_fops, MAP_SHARED);
	unsigned int i;

	KUNIT_EXPECT_EQ(test, -EFAULT, begins_with(f, 1));
	KUNIT_ASSERT_EQ(test, 6 * PAGE_SIZE, fill(f, UFFD_FILL_COPY, 1, 6));
	for (i = 1; i <= 6; i++) {
		KUNIT_EXPECT_EQ(test, i + 1, begins_with(f, i));
		KUNIT_EXPECT_TRUE(test, in_file(f, i));
	}
	KUNIT_EXPECT_FALSE(test, in_file(f, 0));
	KUNIT_EXPECT_FALSE(test, in_file(f, 7));
	KUNIT_EXPECT_EQ(test, f->allocs, 6);
	KUNIT_EXPECT_EQ(test, f->adds, 6);
	KUNIT_EXPECT_EQ(test, f->removes, 0);
	KUNIT_EXPECT_EQ(test, f->lookups, 0);

	/* What the type says of a page that is there already is the answer. */
	KUNIT_EXPECT_EQ(test, -EEXIST, fill(f, UFFD_FILL_COPY, 2, 1));
	KUNIT_EXPECT_EQ(test, PAGE_SIZE, fill(f, UFFD_FILL_COPY, 0, 3));
	KUNIT_EXPECT_EQ(test, 3, begins_with(f, 2));
}

/* The source is not there yet: the page that was made waits for it. */
static void ops_copy_late(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &whole_fops, MAP_SHARED);

	f->src = map(test, NULL, MAP_PRIVATE | MAP_ANONYMOUS);
	KUNIT_EXPECT_EQ(test, LEN, fill(f, UFFD_FILL_COPY, 0, NR_PAGES));
	KUNIT_EXPECT_EQ(test, 0, begins_with(f, 0));
	KUNIT_EXPECT_EQ(test, 0, begins_with(f, NR_PAGES - 1));
	KUNIT_EXPECT_EQ(test, f->allocs, NR_PAGES);
	KUNIT_EXPECT_EQ(test, f->adds, NR_PAGES);
	KUNIT_EXPECT_EQ(test, f->removes, 0);
}

static void ops_zeropage(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &whole_fops, MAP_SHARED);

	KUNIT_EXPECT_EQ(test, 2 * PAGE_SIZE, fill(f, UFFD_FILL_ZEROPAGE, 3, 2));
	KUNIT_EXPECT_EQ(test, 0, begins_with(f, 3));
	KUNIT_EXPECT_EQ(test, 0, begins_with(f, 4));
	KUNIT_EXPECT_TRUE(test, in_file(f, 4));
	KUNIT_EXPECT_EQ(test, f->adds, 2);
	/* It is a page of the file, and may be written. */
	KUNIT_EXPECT_EQ(test, 0, put_user(5, (u32 __user *)
					     (f->addr + 3 * PAGE_SIZE)));
	KUNIT_EXPECT_EQ(test, 5, begins_with(f, 3));
}

static void ops_continue(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &whole_fops, MAP_SHARED);
	unsigned int i;

	for (i = 0; i < 3; i++)
		put_in_file(test, i, 100 + i);
	KUNIT_EXPECT_EQ(test, -EFAULT, fill(f, UFFD_FILL_CONTINUE, 5, 1));
	/* As far as the file has pages. */
	KUNIT_EXPECT_EQ(test, 3 * PAGE_SIZE, fill(f, UFFD_FILL_CONTINUE, 0, 5));
	for (i = 0; i < 3; i++)
		KUNIT_EXPECT_EQ(test, 100 + i, begins_with(f, i));
	KUNIT_EXPECT_EQ(test, -EFAULT, begins_with(f, 3));
	KUNIT_EXPECT_EQ(test, -EEXIST, fill(f, UFFD_FILL_CONTINUE, 1, 1));
	/* Each page is asked for: the file's other pages are none of ours. */
	KUNIT_EXPECT_EQ(test, f->lookups, 1 + 4 + 1);
	KUNIT_EXPECT_EQ(test, f->allocs, 0);
	KUNIT_EXPECT_EQ(test, f->removes, 0);
}

static void ops_poison(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &whole_fops, MAP_SHARED);

	/* Not touched: User Mode Linux does not survive poison. */
	KUNIT_EXPECT_EQ(test, 2 * PAGE_SIZE, fill(f, UFFD_FILL_POISON, 1, 2));
	KUNIT_EXPECT_EQ(test, -EEXIST, fill(f, UFFD_FILL_POISON, 2, 1));
	KUNIT_EXPECT_EQ(test, f->allocs, 0);
	/* It gives way to a page. */
	KUNIT_EXPECT_EQ(test, PAGE_SIZE, fill(f, UFFD_FILL_COPY, 1, 1));
	KUNIT_EXPECT_EQ(test, 2, begins_with(f, 1));
}

/* It has no room left. */
static void ops_add_fails(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &whole_fops, MAP_SHARED);

	f->full = -ENOSPC;
	KUNIT_EXPECT_EQ(test, -ENOSPC, fill(f, UFFD_FILL_COPY, 0, 3));
	KUNIT_EXPECT_EQ(test, -ENOSPC, fill(f, UFFD_FILL_ZEROPAGE, 0, 3));
	KUNIT_EXPECT_FALSE(test, in_file(f, 0));
	KUNIT_EXPECT_EQ(test, f->removes, 0);
	f->full = 0;
	KUNIT_EXPECT_EQ(test, 3 * PAGE_SIZE, fill(f, UFFD_FILL_COPY, 0, 3));
	KUNIT_EXPECT_EQ(test, 3, begins_with(f, 2));
}

/* The file ends before the mapping: what cannot be mapped does not stay in it. */
static void ops_beyond_file(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &whole_fops, MAP_SHARED);

	i_size_write(file_inode(f->file), 2 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, 2 * PAGE_SIZE, fill(f, UFFD_FILL_COPY, 0, 4));
	KUNIT_EXPECT_EQ(test, -EFAULT, fill(f, UFFD_FILL_COPY, 2, 1));
	KUNIT_EXPECT_EQ(test, -EFAULT, fill(f, UFFD_FILL_ZEROPAGE, 3, 1));
	KUNIT_EXPECT_EQ(test, f->adds, 5);
	KUNIT_EXPECT_EQ(test, f->removes, 3);
	KUNIT_EXPECT_FALSE(test, in_file(f, 2));
	KUNIT_EXPECT_FALSE(test, in_file(f, 3));
	KUNIT_EXPECT_EQ(test, 2, begins_with(f, 1));
}

/* A private mapping gets pages of its own, but continues with those of the file. */
static void ops_private(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &whole_fops, MAP_PRIVATE);

	KUNIT_EXPECT_EQ(test, 2 * PAGE_SIZE, fill(f, UFFD_FILL_COPY, 0, 2));
	KUNIT_EXPECT_EQ(test, PAGE_SIZE, fill(f, UFFD_FILL_ZEROPAGE, 2, 1));
	KUNIT_EXPECT_EQ(test, 2, begins_with(f, 1));
	KUNIT_EXPECT_EQ(test, 0, begins_with(f, 2));
	KUNIT_EXPECT_EQ(test, f->allocs, 0);
	KUNIT_EXPECT_EQ(test, f->adds, 0);
	KUNIT_EXPECT_FALSE(test, in_file(f, 1));

	put_in_file(test, 4, 104);
	KUNIT_EXPECT_EQ(test, PAGE_SIZE, fill(f, UFFD_FILL_CONTINUE, 4, 1));
	KUNIT_EXPECT_EQ(test, 104, begins_with(f, 4));
	KUNIT_EXPECT_EQ(test, f->lookups, 1);
}

/* What it has no operation for cannot be done, but where none is needed. */
static void ops_bare(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &bare_fops, MAP_SHARED);

	KUNIT_EXPECT_EQ(test, -EINVAL, fill(f, UFFD_FILL_COPY, 0, 1));
	KUNIT_EXPECT_EQ(test, -EINVAL, fill(f, UFFD_FILL_ZEROPAGE, 0, 1));
	KUNIT_EXPECT_EQ(test, -EINVAL, fill(f, UFFD_FILL_CONTINUE, 0, 1));
	KUNIT_EXPECT_EQ(test, PAGE_SIZE, fill(f, UFFD_FILL_POISON, 0, 1));
}

static void ops_bare_private(struct kunit *test)
{
	struct ops_fixture *f = new_memory(test, &bare_fops, MAP_PRIVATE);

	KUNIT_EXPECT_EQ(test, PAGE_SIZE, fill(f, UFFD_FILL_COPY, 0, 1));
	KUNIT_EXPECT_EQ(test, 1, begins_with(f, 0));
	KUNIT_EXPECT_EQ(test, -EINVAL, fill(f, UFFD_FILL_CONTINUE, 1, 1));
}

static void ops_register(struct kunit *test)
{
	struct ops_fixture *f = new_file(test, &whole_fops, MAP_SHARED);

	f->refused = VM_UFFD_MISSING;
	KUNIT_EXPECT_EQ(test, -EINVAL, register_it(f, VM_UFFD_MISSING));
	f->refused = 0;
	KUNIT_EXPECT_EQ(test, 0, register_it(f, VM_UFFD_MISSING));
	KUNIT_EXPECT_EQ(test, 0,
			userfaultfd_unregister_range(&f->ctx, current->mm,
						     f->addr, f->addr + LEN,
						     false));
	KUNIT_EXPECT_EQ(test, -ENOENT, fill(f, UFFD_FILL_COPY, 0, 1));
}

static void ops_register_without(struct kunit *test)
{
	struct ops_fixture *f = new_file(test, &no_ops_fops, MAP_SHARED);

	KUNIT_EXPECT_EQ(test, -EINVAL, register_it(f, VM_UFFD_MISSING));
}

static struct kunit_case ops_test_cases[] = {
	KUNIT_CASE(ops_copy),
	KUNIT_CASE(ops_copy_late),
	KUNIT_CASE(ops_zeropage),
	KUNIT_CASE(ops_continue),
	KUNIT_CASE(ops_poison),
	KUNIT_CASE(ops_add_fails),
	KUNIT_CASE(ops_beyond_file),
	KUNIT_CASE(ops_private),
	KUNIT_CASE(ops_bare),
	KUNIT_CASE(ops_bare_private),
	KUNIT_CASE(ops_register),
	KUNIT_CASE(ops_register_without),
	{}
};

static struct kunit_suite ops_test_suite = {
	.name = "userfaultfd_ops",
	.init = ops_test_init,
	.exit = ops_test_exit,
	.test_cases = ops_test_cases,
};

kunit_test_suite(ops_test_suite);
