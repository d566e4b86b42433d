/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What lines.c calls of QEMU, which Debian has no header for: the part of the
 * plugin interface, version 1, that it needs, and two functions from outside of
 * it.  The names and arguments are QEMU's; an emulator that has no such symbol
 * refuses to load the plugin, and says which one.
 */
#ifndef BENCH_LINES_QEMU_PLUGIN_API_H
#define BENCH_LINES_QEMU_PLUGIN_API_H

#include <stdbool.h>
#include <stddef.h>

#define PLUGIN_API_VERSION	1

struct qemu_info {
	const char *target_name;
	struct {
		int min;
		int cur;
	} version;
	bool system_emulation;
	int smp_vcpus;
	int max_vcpus;
};

enum plugin_regs {
	PLUGIN_NO_REGS,
	PLUGIN_READ_REGS,
	PLUGIN_WRITE_REGS,
};

enum plugin_mem {
	PLUGIN_MEM_READ = 1,
	PLUGIN_MEM_WRITE,
	PLUGIN_MEM_ANY,
};

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;

/* Looked up by QEMU in the plugin. */
extern int qemu_plugin_version;
int qemu_plugin_install(unsigned long id, const struct qemu_info *info,
			int argc, char **argv);

void qemu_plugin_reset(unsigned long id, void (*done)(unsigned long id));

void qemu_plugin_register_vcpu_tb_trans_cb(unsigned long id,
					   void (*cb)(unsigned long id,
						      struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
					  void (*cb)(unsigned int cpu, void *data),
					  enum plugin_regs regs, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*cb)(unsigned int cpu, void *data),
					    enum plugin_regs regs, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
				      void (*cb)(unsigned int cpu,
						 unsigned int info,
						 unsigned long vaddr, void *data),
				      enum plugin_regs regs,
				      enum plugin_mem rw, void *data);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb,
						 size_t nr);
unsigned long qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);

unsigned int qemu_plugin_mem_size_shift(unsigned int info);
bool qemu_plugin_mem_is_store(unsigned int info);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(unsigned int info,
						  unsigned long vaddr);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *hwaddr);
unsigned long qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *hwaddr);

/* Not of the plugin interface: ends the turn of a virtual CPU. */
struct CPUState;
struct CPUState *qemu_get_cpu(int index);
void cpu_exit(struct CPUState *cpu);

#endif /* BENCH_LINES_QEMU_PLUGIN_API_H */
