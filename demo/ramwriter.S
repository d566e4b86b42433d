/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The program that runs in the migrated machine.  It is the machine's whole
 * firmware (qemu -bios), so no other code ever touches the RAM, and what the
 * RAM holds at any instant follows from one number.
 *
 * First, every page from 1 MiB to the end of RAM is filled with words that
 * depend on the page and on the place in the page.  Then, for ever, step by
 * step (t = 0, 1, 2, ...):
 *
 *	store t in RECORD;
 *	change four words of one page, in the order of their addresses.
 *
 * Each pass of N steps (N: the number of pages) visits each page once, STRIDE
 * pages apart, so that after the switch nearly each step needs a page that
 * the source has not sent yet.  A visit reads what it changes: the words are
 * added to, never just overwritten, so a page that was once stale stays wrong
 * for ever.  Every sixteenth page goes the other way: its words toggle between
 * zero and not zero, so that half of the time the whole page is zero, and
 * QEMU migrates it as a zero page (UFFDIO_ZEROPAGE).  (Such a page tells stale
 * from fresh only by odd and even; the others count.)
 *
 * ramcheck.py knows the same rules; keep the constants in step.
 */
	.set	BASE,	0x100000	/* first page, 1 MiB */
	.set	RECORD,	0x7000		/* where t is kept; the rest below 1 MiB stays zero */
	.set	FILL,	0x85ebca6b	/* word i of page frame p is (p + i) * FILL */
	.set	STEP,	0x9e3779b1	/* what a visit adds to each of the four words */
	.set	STRIDE,	20101		/* a prime, so it is coprime to N */

	.code16
	.globl	_start
_start:
	cli
	cld
	lgdtl	%cs:gdtr - _start
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$8, $flat

	.code32
flat:
	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$~0, RECORD		/* not started */
	inb	$0x92, %al		/* open the A20 gate */
	orb	$2, %al
	andb	$~1, %al		/* bit 0 is reset */
	outb	%al, $0x92

	/* RAM size: CMOS 0x35:0x34 counts the 64 KiB units above 16 MiB. */
	xorl	%eax, %eax
	movb	$0x35, %al
	outb	%al, $0x70
	inb	$0x71, %al
	movb	%al, %ah
	movb	$0x34, %al
	outb	%al, $0x70
	inb	$0x71, %al
	shll	$4, %eax
	leal	((16 << 20) - BASE) >> 12(%eax), %ebp	/* %ebp = N */

	/* Fill.  The pages that toggle start as the zero pages they are. */
	movl	$BASE, %edi
	movl	%ebp, %edx
fill_page:
	movl	%edi, %eax
	shrl	$12, %eax
	movl	%eax, %ecx
	notl	%ecx
	testb	$15, %cl
	jz	skip_page
	imull	$FILL, %eax, %eax
	movl	$1024, %ecx
1:	stosl
	addl	$FILL, %eax
	loop	1b
	jmp	2f
skip_page:
	addl	$4096, %edi
2:	decl	%edx
	jnz	fill_page

	xorl	%ecx, %ecx		/* %ecx = t */
	xorl	%ebx, %ebx		/* %ebx = page of this step = t * STRIDE mod N */
step:
	movl	%ecx, RECORD
	movl	%ebx, %edi
	shll	$12, %edi
	addl	$BASE, %edi
	movl	%edi, %eax
	notl	%eax
	testl	$0xf000, %eax
	jz	toggle
	addl	$STEP, 0x000(%edi)
	addl	$STEP, 0x554(%edi)
	addl	$STEP, 0xaa8(%edi)
	addl	$STEP, 0xffc(%edi)
	jmp	next
toggle:
	xorl	%edi, 0x000(%edi)
	xorl	%edi, 0x554(%edi)
	xorl	%edi, 0xaa8(%edi)
	xorl	%edi, 0xffc(%edi)
next:
	incl	%ecx
	addl	$STRIDE, %ebx
1:	cmpl	%ebp, %ebx
	jb	step
	subl	%ebp, %ebx
	jmp	1b

	.balign	8
gdt:	.quad	0
	.quad	0x00cf9a000000ffff	/*  8: code, 4 GiB */
	.quad	0x00cf92000000ffff	/* 16: data, 4 GiB */
gdtr:	.word	. - gdt - 1
	.long	gdt

	/* The ROM ends at 4 GiB; the processor starts 16 bytes below. */
	.org	0xfff0
	.code16
	jmp	_start
	.org	0x10000
