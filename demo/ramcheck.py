#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Is this memory dump one that ramwriter.S can produce at one instant?

usage: ramcheck.py DUMP         check a dump of all RAM from address 0
       ramcheck.py --self-test  damage dumps; each damage must be reported

ramwriter.S stores its step number t at RECORD, then changes four words of one
page, in order.  So t says how often each page has been visited, all pages but
that of step t have exactly one possible content, and that one has five: 0 to
4 of its words changed.  All 4096 bytes of each page are compared.  Below 1 MiB
RAM is zero but for the record; 640 KiB to 1 MiB is not RAM and is left out.
"""
import array
import mmap
import struct
import sys

# As in ramwriter.S, which explains them.
BASE = 0x100000
RECORD = 0x7000
FILL = 0x85ebca6b
STEP = 0x9e3779b1
STRIDE = 20101

PAGE = 4096
FIRST = BASE // PAGE
LOW_END = 0xa0000
OFFSETS = (0x000, 0x554, 0xaa8, 0xffc)
U32 = 0xffffffff
MAX_REPORTED = 8
MAX_DIAGNOSED = 64


def toggles(frame):
    return frame & 15 == 15


class Checker:
    """The contents that RAM of a given size can have."""

    def __init__(self, size):
        if size % (1 << 20) or size <= BASE:
            raise ValueError(f"{size} bytes: RAM is some MiB, and more than one")
        self.size = size
        self.pages = (size - BASE) // PAGE
        # Word i of frame p is words[p + i], so a page's fill is a slice.
        words = array.array("I", ((x * FILL) & U32 for x in range(size // PAGE + 1024)))
        fill = memoryview(words).cast("B")
        zero = bytes(PAGE)
        self.fill = b"".join(zero if toggles(p) else fill[4 * p:4 * p + PAGE]
                             for p in range(FIRST, size // PAGE))

    def word(self, frame, offset, generation):
        """The touched word at an offset of a page visited so many times."""
        if toggles(frame):
            return frame * PAGE if generation & 1 else 0
        return ((frame + offset // 4) * FILL + generation * STEP) & U32

    def page(self, frame, generations):
        """A whole page; each touched word has a generation of its own."""
        at = frame * PAGE - BASE
        page = bytearray(self.fill[at:at + PAGE])
        for offset, generation in zip(OFFSETS, generations):
            struct.pack_into("<I", page, offset, self.word(frame, offset, generation))
        return page

    def diagnose(self, frame, got, want, generation):
        """Say what is wrong with a page that should hold `want`."""
        if not any(got):
            return "is a zero page"
        # Is the rest untouched, and which generations fit the touched words?
        if toggles(frame):
            near = (generation, generation - 1)
        else:
            near = range(max(generation - 1000, 0), generation + 1000)
        found = []
        for offset in OFFSETS:
            word = struct.unpack_from("<I", got, offset)[0]
            found.append(next((g for g in near if self.word(frame, offset, g) == word), None))
        if None not in found and got == self.page(frame, found):
            if len(set(found)) > 1:
                return f"is torn: its words have generations {found}, it should be {generation}"
            if toggles(frame):
                return "is stale or ahead: it should be a zero page now"
            age = "stale" if found[0] < generation else "ahead"
            return f"is {age}: generation {found[0]}, not {generation}"
        other = (struct.unpack_from("<I", got, 4)[0] * pow(FILL, -1, 1 << 32) - 1) & U32
        if other != frame and FIRST <= other < self.size // PAGE and not toggles(other):
            at = other * PAGE - BASE
            if sum(a != b for a, b in zip(got, self.fill[at:at + PAGE])) <= 4 * len(OFFSETS):
                return f"holds the content of page {other * PAGE:#x}"
        wrong = [i for i in range(PAGE) if got[i] != want[i]]
        return (f"has wrong bytes: {len(wrong)}; at {wrong[0]:#x} stands "
                f"{got[wrong[0]]:#04x}, not {want[wrong[0]]:#04x}")

    def check(self, dump):
        """Returns the step number and what is wrong: [(address, text), ...]."""
        if len(dump) != self.size:
            return None, [(0, f"dump has {len(dump)} bytes, not {self.size}")]
        step = struct.unpack_from("<I", dump, RECORD)[0]
        if step == U32 or step < self.pages:
            return step, [(RECORD, f"record: step {step:#x} is not after the first pass")]
        faults = []

        for at in range(0, LOW_END, PAGE):
            low = bytearray(dump[at:at + PAGE])
            if at == RECORD:
                low[:4] = bytes(4)
            if any(low):
                faults.append((at, "has a byte below 1 MiB that is not zero"))

        # How often each page had been visited when step t began.
        passes, done = divmod(step, self.pages)
        generations = [passes] * self.pages
        index = 0
        for _ in range(done):
            generations[index] += 1
            index = (index + STRIDE) % self.pages
        cursor = FIRST + index

        want = bytearray(self.fill)
        columns = memoryview(want).cast("I")
        for offset in OFFSETS:
            # This is self.word(), but for all pages at once.
            column = array.array("I", ((p * FILL + g * STEP) & U32 for p, g in
                                       enumerate(generations, FIRST + offset // 4)))
            for i in range(15 - FIRST % 16, self.pages, 16):
                column[i] = self.word(FIRST + i, offset, generations[i])
            columns[offset // 4::PAGE // 4] = memoryview(column)
        columns.release()

        # Slices of bytes, not of memoryviews: those compare item by item.
        block = 1 << 20
        for start in range(0, len(want), block):
            if dump[BASE + start:BASE + start + block] == want[start:start + block]:
                continue
            for at in range(start, min(start + block, len(want)), PAGE):
                frame = (BASE + at) // PAGE
                got = dump[BASE + at:BASE + at + PAGE]
                if got == want[at:at + PAGE]:
                    continue
                if len(faults) >= MAX_DIAGNOSED:
                    faults.append((frame * PAGE, "is wrong"))
                    continue
                generation = generations[frame - FIRST]
                # The page of step t may have any number of its words changed.
                most = len(OFFSETS) if frame == cursor else 0
                allowed = [self.page(frame, [generation + (i < n) for i in range(len(OFFSETS))])
                           for n in range(most + 1)]
                if got in allowed:
                    continue
                nearest = min(allowed, key=lambda page: sum(map(int.__ne__, page, got)))
                text = self.diagnose(frame, got, nearest, generation)
                if frame == cursor:
                    text += " (the page of the current step)"
                faults.append((frame * PAGE, text))
        return step, faults


def report(faults):
    """The lines to print for what check() found."""
    lines = [f"page {at:#x} {text}" for at, text in faults[:MAX_REPORTED]]
    if len(faults) > MAX_REPORTED:
        lines.append(f"... {len(faults)} wrong pages in all")
    return lines


def check_file(path, checker=None):
    """Check a dump in a file; returns what Checker.check() does."""
    with open(path, "rb") as file, \
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as dump:
        checker = checker or Checker(len(dump))
        return checker.check(dump)


# --- self-test ---------------------------------------------------------------

def filled(size):
    """RAM as ramwriter.S has filled it, before its first step."""
    ram = bytearray(size)
    for frame in range(FIRST, size // PAGE):
        if not toggles(frame):
            struct.pack_into("<1024I", ram, frame * PAGE,
                             *((frame + i) * FILL & U32 for i in range(1024)))
    return ram


def simulate(start, steps, words):
    """What ramwriter.S does, step by step, not by the checker's closed form."""
    ram = bytearray(start)
    pages = (len(ram) - BASE) // PAGE
    index = 0
    for step in range(steps + 1):
        struct.pack_into("<I", ram, RECORD, step)
        address = BASE + index * PAGE
        for offset in OFFSETS[:words if step == steps else len(OFFSETS)]:
            word = struct.unpack_from("<I", ram, address + offset)[0]
            if toggles(address // PAGE):
                word ^= address
            else:
                word = (word + STEP) & U32
            struct.pack_into("<I", ram, address + offset, word)
        index += STRIDE
        while index >= pages:
            index -= pages
    return ram


def self_test():
    """Returns a list of complaints; empty when the checker does its work."""
    size = 2 << 20
    checker = Checker(size)
    pages = checker.pages
    steps = 2 * pages + pages // 2
    bad = []

    def page_of(step):
        return BASE + step * STRIDE % pages * PAGE

    def next_step(step, toggling):
        while toggles(page_of(step) // PAGE) != toggling:
            step += 1
        return step

    images = {}
    start = filled(size)
    for toggling in False, True:
        step = next_step(steps, toggling)
        for words in range(len(OFFSETS) + 1):
            images[toggling, words] = image = simulate(start, step, words)
            got, faults = checker.check(image)
            if got != step or faults:
                bad.append(f"sound dump (toggling {toggling}, {words} words): {report(faults)}")
    clean = images[False, 2]
    now = next_step(steps, False)
    cursor = page_of(now)
    old = page_of(next_step(now + 5, False))          # generation 2
    new = page_of(next_step(2 * pages + 5, False))    # generation 3
    toggle = page_of(next_step(2 * pages + 5, True))  # generation 3: not zero

    def words(*pairs):
        return b"".join(struct.pack("<I", word) + b"\0" * gap for word, gap in pairs)

    def expect(name, damage, pages_named, says, image=clean):
        ram = bytearray(image)
        damage(ram)
        _, faults = checker.check(ram)
        named = {at for at, _ in faults}
        if named != set(pages_named):
            bad.append(f"{name}: reported {[hex(at) for at in named]}, "
                       f"should be {[hex(at) for at in pages_named]}")
        for _, text in faults:
            if says not in text:
                bad.append(f"{name}: reported as: {text}")

    def put(address, data):
        def damage(ram):
            ram[address:address + len(data)] = data
        return damage

    def flip(address, bits):
        def damage(ram):
            ram[address] ^= bits
        return damage

    def swap(one, two):
        def damage(ram):
            first, second = ram[one:one + PAGE], ram[two:two + PAGE]
            ram[one:one + PAGE], ram[two:two + PAGE] = second, first
        return damage

    def age(address, *generations):
        return put(address, checker.page(address // PAGE, generations))

    def record(step):
        return put(RECORD, words((step, 0)))

    expect("stale page", age(new, 2, 2, 2, 2), [new], "stale: generation 2, not 3")
    expect("page stale since the first pass", age(old, 0, 0, 0, 0), [old], "stale: generation 0")
    expect("stale page that toggles", age(toggle, 2, 2, 2, 2), [toggle], "zero page")
    expect("page ahead", age(old, 3, 3, 3, 3), [old], "ahead: generation 3, not 2")
    expect("page ahead that toggles",
           age(page_of(next_step(now + 5, True)), 3, 3, 3, 3),
           [page_of(next_step(now + 5, True))], "stale or ahead")
    expect("lost write of one word", age(new, 3, 3, 2, 3), [new], "torn")
    expect("zero page", put(new, bytes(PAGE)), [new], "zero page")
    expect("lost half page", put(new + PAGE // 2, bytes(PAGE // 2)), [new], "wrong bytes")
    expect("two swapped pages", swap(old, new), [old, new], "holds the content of page")
    expect("page in place of a zero page", swap(toggle, new), [toggle, new], "")
    for offset in 0, 4, 2047, 0xaa9, PAGE - 5, PAGE - 1:
        expect(f"flipped byte at {offset}", flip(old + offset, 0xff), [old], "wrong bytes: 1;")
        expect(f"flipped bit at {offset}", flip(new + offset, 0x10), [new], "wrong bytes: 1;")
        expect(f"flipped bit at {offset} of a page that toggles",
               flip(toggle + offset, 0x10), [toggle], "wrong bytes: 1;")
    expect("flipped byte in the page of the step", flip(cursor + 100, 1), [cursor], "wrong bytes: 1;")
    expect("second word before the first", age(cursor, 2, 3, 2, 2), [cursor], "torn")
    expect("page of the step too old", age(cursor, 1, 1, 1, 1), [cursor], "stale")
    expect("page of the step too far", age(cursor, 4, 3, 3, 3), [cursor], "torn")
    expect("first page", flip(BASE, 1), [BASE], "wrong bytes: 1;")
    expect("last page", flip(size - 5, 1), [size - PAGE], "wrong bytes: 1;")
    expect("byte below 1 MiB", flip(0x9ffff, 1), [0x9f000], "not zero")
    expect("byte beside the record", flip(RECORD + 4, 1), [RECORD], "not zero")
    expect("record a step behind", record(now - 1), [cursor], "torn")
    expect("record a step ahead", record(now + 1), [cursor], "torn")
    expect("record a pass behind", record(now - pages),
           [BASE + i * PAGE for i in range(pages)], "")
    expect("record lost", record(0), [RECORD], "not after the first pass")
    expect("program not started", record(U32), [RECORD], "not after the first pass")
    expect("short dump", lambda ram: ram.__delitem__(slice(-PAGE, None)), [0], "bytes, not")
    return bad


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        return 2
    if sys.argv[1] == "--self-test":
        bad = self_test()
        for line in bad:
            print(f"ramcheck: {line}")
        print("ramcheck: self-test " + ("FAILED" if bad else "passed"))
        return 1 if bad else 0
    step, faults = check_file(sys.argv[1])
    for line in report(faults):
        print(f"ramcheck: {line}")
    print(f"ramcheck: step {step}: " + ("WRONG" if faults else "sound"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
