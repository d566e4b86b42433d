#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""QEMU's two uses of userfaultfd, on the VM of demo/.

usage: qemu.py [--tap FILE] postcopy|snapshot

postcopy: demo/migrate's migration, with and without postcopy-preempt, which
sends the pages that were asked for over a connection of their own, past the
others; then two threads of the destination fill the same memory.

snapshot: the migration capability background-snapshot. QEMU write-protects all
RAM, lets the VM run on, and saves a page before the VM may write to it. So the
file must hold the RAM as it was at one instant, although the VM has changed
every page of it by the time the last is saved. The file is loaded by another
QEMU and each byte compared with what the VM's program had written at that
instant; then both VMs run on, and are checked again.
"""
import argparse
import copy
import os
import pathlib
import platform
import signal
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "demo"))
import migrate  # noqa: E402 (it is in demo/)
import ramcheck  # noqa: E402
from migrate import Failure, Machine, mib, note, say  # noqa: E402

# Type of memory, postcopy-preempt
POSTCOPY = (("ram", False), ("memfd", False), ("ram", True), ("hugetlb", True))
SNAPSHOTS = ("ram", "memfd", "hugetlb")


class Saver(threading.Thread):
    """Writes the migration stream that comes in on a socket to a file.

    Slowly, as a disk would: QEMU itself does not limit the speed of a snapshot,
    and one that is over at once leaves the VM no time to write into it.
    """

    def __init__(self, address, path, speed):
        super().__init__(daemon=True)
        self.path, self.speed = path, speed
        self.size, self.error = 0, None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(address))
        self.listener.listen(1)

    def run(self):
        try:
            stream, _ = self.listener.accept()
            began = time.monotonic()
            with stream, open(self.path, "wb") as file:
                while data := stream.recv(64 << 10):
                    file.write(data)
                    self.size += len(data)
                    early = began + self.size / self.speed - time.monotonic()
                    if early > 0:
                        time.sleep(early)
        except OSError as error:
            self.error = error
        finally:
            self.listener.close()


def vcpu_faults(machine):
    """How many page faults the thread of the VM's processor has taken."""
    thread = machine.qmp("query-cpus-fast")[0]["thread-id"]
    stat = pathlib.Path(f"/proc/{machine.process.pid}/task/{thread}/stat").read_text()
    fields = stat[stat.rindex(")") + 2:].split()
    return int(fields[7]) + int(fields[9])


def check_ram(machine, kind, checker, folder, what):
    """Compare the RAM of a stopped VM; returns the step that it is at."""
    dump = folder / "dump"
    machine.qmp("pmemsave", val=0, size=checker.size, filename=str(dump))
    step, faults = ramcheck.check_file(dump, checker)
    dump.unlink()
    for line in ramcheck.report(faults):
        note(kind, f"RAM of {what}: {line}")
    if faults:
        raise Failure(f"RAM of {what}: {len(faults)} wrong pages")
    note(kind, f"RAM of {what}: all bytes are those of step {step}")
    return step


def run_on(machine, kind, checker, folder, step, what):
    """Let a VM visit each page twice more after a step, and check its RAM."""
    machine.wait_step(step + 2 * checker.pages)
    machine.qmp("stop")
    check_ram(machine, kind, checker, folder, what)


def save(machine, kind, options, folder, file):
    """Take a snapshot of a running VM; returns the steps around it."""
    address = folder / "snapshot.socket"
    saver = Saver(address, file, options.speed << 20)
    saver.start()
    machine.capabilities("background-snapshot")
    before, faults = machine.step(), vcpu_faults(machine)
    began = time.monotonic()
    machine.qmp("migrate", uri=f"unix:{address}")
    first = None
    while machine.migration()[0] != "completed":
        if first is None and saver.size:
            first = machine.step()
        time.sleep(0.05)
    after, faults = machine.step(), vcpu_faults(machine) - faults
    if not machine.qmp("query-status")["running"]:
        raise Failure("the VM does not run any more after the snapshot")
    saver.join(max(machine.left(), 0))
    if saver.error or saver.is_alive():
        raise Failure(f"snapshot not saved: {saver.error or 'the stream does not end'}")
    note(kind, f"snapshot: {mib(saver.size)} in {time.monotonic() - began:.1f} s, meanwhile "
         f"the VM took {faults} faults and went from step {first} to {after}")
    if first is None or after <= first:
        raise Failure("the VM stood still while the snapshot was saved")
    if not faults:
        raise Failure("no fault while the snapshot was saved, so nothing was shown")
    return before, after, faults, saver.size


def snapshot_once(kind, options, rom, folder, checker):
    """One snapshot, restored and checked; returns the result's fields."""
    began = time.monotonic()
    deadline = began + options.limit
    result = {"name": f"snapshot, {kind}", "error": None}
    machines = []
    try:
        source = Machine("source", kind, options, rom, folder, deadline)
        machines.append(source)
        source.connect()
        source.wait_step(checker.pages)
        note(kind, f"the VM runs, all of its {checker.pages} pages are in use")
        file = folder / "snapshot"
        before, after, faults, size = save(source, kind, options, folder, file)

        restored = Machine("restored", kind, options, rom, folder, deadline,
                           ("-incoming", "defer", "-S"))
        machines.append(restored)
        restored.connect()
        restored.qmp("migrate-incoming", uri=f"exec:cat {file}")
        while restored.migration()[0] != "completed":
            time.sleep(0.05)
        step = check_ram(restored, kind, checker, folder, "the snapshot")
        if not before <= step <= after:
            raise Failure(f"the snapshot is of step {step}, it was taken from {before} to {after}")
        if step == after:
            raise Failure("the VM has written nothing since the snapshot")
        restored.qmp("cont")
        run_on(restored, kind, checker, folder, step, "the restored VM, two passes on")
        run_on(source, kind, checker, folder, after, "the VM that was saved, two passes on")
        result["text"] = (f"{faults} faults of the VM while it was saved, "
                          f"{after - step} pages written, {mib(size)}")
    except Failure as failure:
        result["error"] = str(failure)
        note(kind, f"FAILED: {failure}")
        for machine in machines:
            machine.describe()
    finally:
        for machine in machines:
            try:
                machine.end()
            except Failure as failure:
                result["error"] = result["error"] or str(failure)
    result["seconds"] = time.monotonic() - began
    return result


def postcopy_once(kind, options, rom, folder, checker):
    """One migration, as in the demo."""
    name = f"postcopy{' with preempt' if options.preempt else ''}, {kind}"
    result = migrate.migrate_once(kind, options, rom, folder, checker)
    return {"name": name, "error": result["error"], "seconds": result["seconds"],
            "text": f"{result.get('requests')} pages requested by faults, "
                    f"{result.get('total_ms')} ms, downtime {result.get('downtime_ms')} ms"}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("postcopy", "snapshot"))
    parser.add_argument("--tap", metavar="FILE", help="write the results as TAP")
    parser.add_argument("--speed", type=int, default=32, metavar="MIB",
                        help="save so much of a snapshot in a second (32)")
    chosen = parser.parse_args()
    # The demo's own settings, but for preempt.
    sys.argv[1:] = []
    options = migrate.arguments()
    options.speed = chosen.speed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    if chosen.what == "postcopy":
        once, runs = postcopy_once, POSTCOPY
    else:
        once, runs = snapshot_once, [(kind, False) for kind in SNAPSHOTS]
    say(f"QEMU, {chosen.what}, on Linux {platform.release()}, {os.cpu_count()} CPUs")
    results = []
    with tempfile.TemporaryDirectory(prefix="clients-") as top:
        top = pathlib.Path(top)
        rom = migrate.assemble(top)
        checker = ramcheck.Checker(options.mem << 20)
        for number, (kind, preempt) in enumerate(runs):
            folder = top / str(number)
            folder.mkdir()
            options = copy.copy(options)
            options.preempt = preempt
            if kind == "hugetlb":
                migrate.reserve_huge(2 * (options.mem << 20) // migrate.HUGE + 4)
            results.append(once(kind, options, rom, folder, checker))

    lines = ["TAP version 13", f"1..{len(results)}"]
    for number, result in enumerate(results, 1):
        lines.append(f"{'not ok' if result['error'] else 'ok'} {number} - QEMU {result['name']}")
        lines.append(f"# {result['error'] or result['text']}; {result['seconds']:.1f} s")
    if chosen.tap:
        pathlib.Path(chosen.tap).write_text("\n".join(lines) + "\n", encoding="ascii")
    say("\n".join(lines[2:]))
    return int(any(result["error"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
