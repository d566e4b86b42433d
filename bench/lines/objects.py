# SPDX-License-Identifier: GPL-2.0
"""Whose lines they are: run by gdb.

    gdb -batch -nx -ex 'python RESULT, RAM, MAP, CPUS, TYPES, OUT = ...' -x objects.py

RESULT is what the plugin has written, RAM the guest's memory as it was then, MAP the
kernel's System.map, CPUS how many the guest has. The kernel itself knows what lies at an
address: the allocator what it gave away, a task where its stack is, a CPU where its
variables are. TYPES are objects of that kernel, compiled with debugging information:
from them gdb knows which member it is. OUT gets it all as JSON.
"""
import bisect
import collections
import json
import mmap
import struct

import gdb

DIRECT = 0xffff888000000000
IMAGE = 0xffffffff80000000
VMALLOC = 0xffffc90000000000
VMEMMAP = 0xffffea0000000000
USER_END = 1 << 47
LINE = 64

# Caches whose name is not the structure's.
CACHES = {
    "filp": "file", "userfaultfd_ctx_cache": "userfaultfd_ctx", "files_cache": "files_struct",
    "signal_cache": "signal_struct", "sighand_cache": "sighand_struct", "cred_jar": "cred",
    "shmem_inode_cache": "shmem_inode_info", "eventpoll_epi": "epitem",
    "radix_tree_node": "xa_node", "vma_lock": "vma_lock",
}


class Memory:
    """The guest's, by physical address, or by the kernel's."""

    def __init__(self, path, top):
        with open(path, "rb") as file:
            self.ram = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.top = top - IMAGE

    def physical(self, address):
        if DIRECT <= address < DIRECT + len(self.ram):
            return address - DIRECT
        if IMAGE <= address < IMAGE + (1 << 30):
            return address - IMAGE
        table = self.top
        for shift in (39, 30, 21, 12):
            entry = self.word(table + ((address >> shift) & 511) * 8)
            if not entry & 1:
                return None
            table = entry & 0x000ffffffffff000
            if shift in (30, 21) and entry & 0x80:
                mask = (1 << shift) - 1
                return (table & ~mask) | (address & mask)
        return table | (address & 0xfff)

    def word(self, physical):
        return struct.unpack_from("<Q", self.ram, physical)[0]

    def read(self, address, size):
        physical = self.physical(address)
        if physical is None or physical + size > len(self.ram):
            raise ValueError(hex(address))
        return int.from_bytes(self.ram[physical:physical + size], "little")

    def text(self, address, limit=64):
        physical = self.physical(address)
        return self.ram[physical:physical + limit].split(b"\0")[0].decode("ascii", "replace")


def offset_of(kind, path):
    """Offset and size of a member, of however many levels, also unnamed ones."""
    here, start = gdb.lookup_type(kind).strip_typedefs(), 0
    for name in path.split("."):
        found = find_member(here, name)
        if found is None:
            raise KeyError(f"{kind}.{path}")
        start += found[0]
        here = found[1].strip_typedefs()
    return start, here.sizeof


def find_member(kind, name):
    for field in kind.fields():
        if field.name == name:
            return field.bitpos // 8, field.type
        if not field.name:
            found = find_member(field.type.strip_typedefs(), name)
            if found:
                return field.bitpos // 8 + found[0], found[1]
    return None


def member_at(kind, offset, depth=0):
    """The name of what lies OFFSET bytes into a structure."""
    kind = kind.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_ARRAY:
        size = kind.target().sizeof
        if not size:
            return ""
        return "[]" + member_at(kind.target(), offset % size, depth)
    if kind.code not in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION) or depth > 6:
        return ""
    best = None
    for field in kind.fields():
        if not hasattr(field, "bitpos"):
            continue
        start = field.bitpos // 8
        if start <= offset < start + max(field.type.sizeof, 1):
            if best is None or kind.code == gdb.TYPE_CODE_STRUCT or \
               field.type.sizeof > best.type.sizeof:
                best = field
            if kind.code == gdb.TYPE_CODE_STRUCT:
                break
    if best is None:
        return ""
    # What a lock is made of says less than what it is called.
    inner = ""
    if str(best.type) not in ("spinlock_t", "raw_spinlock_t", "atomic_t", "atomic64_t",
                              "refcount_t", "atomic_long_t", "struct list_head"):
        inner = member_at(best.type, offset - best.bitpos // 8, depth + 1)
    name = best.name or ""
    if not name:
        return inner
    return "." + name + inner


class Symbols:
    def __init__(self, path):
        self.names = {}
        rows = []
        with open(path) as file:
            for text in file:
                address, kind, name = text.split()[:3]
                address = int(address, 16)
                self.names.setdefault(name, address)
                if kind not in "UN":
                    rows.append((address, name))
        rows.sort()
        self.addresses = [row[0] for row in rows]
        self.rows = rows

    def at(self, address):
        index = bisect.bisect_right(self.addresses, address) - 1
        if index < 0:
            return "?", 0
        start = self.rows[index][0]
        # Of several names the first.
        index = bisect.bisect_left(self.addresses, start)
        names = [row[1] for row in self.rows[index:index + 4] if row[0] == start]
        plain = [name for name in names if not name.startswith("__")]
        return (plain or names)[0], start


class Kernel:
    def __init__(self, memory, symbols):
        self.memory, self.symbols = memory, symbols
        self.page_size = gdb.lookup_type("struct page").sizeof
        self.types = {}
        self.offsets = {}
        names = symbols.names
        self.percpu = names["__per_cpu_start"], names["__per_cpu_end"]
        base = names["__per_cpu_offset"]
        self.cpu_offset = [memory.read(base + 8 * cpu, 8) for cpu in range(CPUS)]
        self.page_types = {field.name: field.enumval
                           for field in gdb.lookup_type("enum pagetype").fields()}
        self.stacks = self.find_stacks()

    def member(self, kind, path, address):
        key = kind, path
        if key not in self.offsets:
            self.offsets[key] = offset_of(*key)
        offset, size = self.offsets[key]
        return self.memory.read(address + offset, size)

    def offset(self, kind, path):
        return offset_of(kind, path)[0]

    def find_stacks(self):
        stacks = []
        head = self.symbols.names["init_task"] + self.offset("struct task_struct", "tasks")
        tasks = self.offset("struct task_struct", "tasks")
        node = self.offset("struct task_struct", "thread_node")
        comm = self.offset("struct task_struct", "comm")
        first = self.offset("struct signal_struct", "thread_head")
        link, seen = head, 0
        while seen < 10000:
            seen += 1
            leader = link - tasks
            signal = self.member("struct task_struct", "signal", leader)
            thread = self.memory.read(signal + first, 8)
            while thread != signal + first and seen < 10000:
                seen += 1
                task = thread - node
                stacks.append((self.member("struct task_struct", "stack", task),
                               self.memory.text(task + comm, 16)))
                thread = self.memory.read(thread, 8)
            link = self.memory.read(link, 8)
            if link == head:
                break
        stacks.append((self.member("struct task_struct", "stack",
                                   self.symbols.names["init_task"]), "swapper/0"))
        return sorted(stacks)

    def structure(self, name):
        if name not in self.types:
            try:
                self.types[name] = gdb.lookup_type("struct " + name)
            except gdb.error:
                self.types[name] = None
        return self.types[name]

    def variable(self, name):
        key = "var " + name
        if key not in self.types:
            symbol = gdb.lookup_global_symbol(name) or gdb.lookup_static_symbol(name)
            self.types[key] = symbol.type if symbol else None
        return self.types[key]

    def page(self, physical):
        """The head of the page's folio, its type, and its offset in there."""
        address = VMEMMAP + (physical >> 12) * self.page_size
        head = self.member("struct page", "compound_head", address)
        if head & 1:
            address = head & ~1
        kind = self.member("struct page", "page_type", address) >> 24
        first = (address - VMEMMAP) // self.page_size << 12
        return address, kind, physical - first

    def named(self, group, name, kind, offset):
        """What is told of an address: group, object, its line, the member."""
        member = member_at(kind, offset) if kind else ""
        return group, name, offset // LINE, member or f"+{offset:#x}"

    def slab_object(self, page, offset):
        cache = self.member("struct slab", "slab_cache", page)
        name = self.memory.text(self.member("struct kmem_cache", "name", cache))
        size = self.member("struct kmem_cache", "size", cache)
        inside = offset % size
        structure = CACHES.get(name, name)
        return self.named(GROUPS.get(structure, "other objects"), structure,
                          self.structure(structure), inside)

    def of_page_struct(self, address):
        index = (address - VMEMMAP) // self.page_size
        page, kind, _ = self.page(index << 12)
        offset = (address - VMEMMAP) % self.page_size
        if kind == self.page_types.get("PGTY_table"):
            return self.named("page table", "ptdesc", self.structure("ptdesc"), offset)
        if kind == self.page_types.get("PGTY_slab"):
            return self.named("allocator", "slab", self.structure("slab"), offset)
        del page
        return self.named("page", "page", self.structure("page"), offset)

    def classify(self, virtual, physical):
        for cpu, offset in enumerate(self.cpu_offset):
            inside = (virtual - offset) & (1 << 64) - 1
            if self.percpu[0] <= inside < self.percpu[1]:
                name, start = self.symbols.at(inside)
                group = "run queue" if name == "runqueues" else "CPU's variables"
                return self.named(group, name, self.variable(name), inside - start)
        if virtual < USER_END:
            return "user memory", "user memory", 0, ""
        if VMEMMAP <= virtual < VMEMMAP + (1 << 40):
            return self.of_page_struct(virtual)
        index = bisect.bisect_right(self.stacks, (virtual, "~")) - 1
        if index >= 0 and 0 <= virtual - self.stacks[index][0] < 16384:
            comm = self.stacks[index][1].split("/")[0]
            return "stack", f"stack of a {comm}", 0, ""
        if virtual >= IMAGE:
            name, start = self.symbols.at(virtual)
            return self.named("static", name, self.variable(name), virtual - start)
        if not DIRECT <= virtual < VMALLOC:
            return "vmalloc", "vmalloc", 0, ""
        page, kind, offset = self.page(physical)
        if kind == self.page_types.get("PGTY_slab"):
            return self.slab_object(page, offset)
        if kind == self.page_types.get("PGTY_table"):
            return "page table", "page table", 0, ""
        return "page contents", "page contents", 0, ""


GROUPS = {
    "userfaultfd_ctx": "context", "vm_area_struct": "VMA", "vma_lock": "VMA", "mm_struct": "mm",
    "task_struct": "task", "file": "file", "signal_struct": "task", "sighand_struct": "task",
}


def main():
    gdb.execute("set confirm off")
    for path in TYPES:
        gdb.execute(f"add-symbol-file {path} 0", to_string=True)
    symbols = Symbols(MAP)
    memory = Memory(RAM, symbols.names["init_top_pgt"])
    kernel = Kernel(memory, symbols)
    out = {"total": {}, "insns": {}, "locks": [], "events": []}
    failed = collections.Counter()

    def classify(virtual, physical):
        try:
            return kernel.classify(virtual, physical)
        except (ValueError, KeyError, gdb.error) as error:
            failed[str(error)] += 1
            return "unknown", "unknown", 0, ""

    with open(RESULT) as file:
        for text in file:
            word = text.split()
            if word[0] == "total":
                out["total"][word[1]] = int(word[2])
            elif word[0] == "insns":
                out["insns"][word[1]] = int(word[2]), int(word[3])
            elif word[0] == "lock":
                physical, virtual = int(word[1], 16), int(word[2], 16)
                out["locks"].append(classify(virtual, physical) + (physical,) +
                                    tuple(int(value) for value in word[3:]))
            else:
                physical, virtual, pc = (int(value, 16) for value in word[1:4])
                if pc < USER_END:
                    where, symbol = ("user memory", "user memory", 0, ""), "(user)"
                else:
                    where, symbol = classify(virtual, physical), symbols.at(pc)[0]
                out["events"].append(where + (physical, symbol, pc, word[4], int(word[6])))
    out["failed"] = dict(failed)
    with open(OUT, "w") as file:
        json.dump(out, file)


main()
