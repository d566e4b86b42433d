#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Postcopy migrations of a running VM; demo/migrate says what for."""
import argparse
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import ramcheck

HERE = pathlib.Path(__file__).resolve().parent
QEMU = "qemu-system-x86_64"
HUGE = 2 << 20
BEGAN = time.monotonic()

BACKENDS = {
    "ram": "memory-backend-ram",
    "memfd": "memory-backend-memfd,share=on",
    "hugetlb": "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize=2M",
}


class Failure(Exception):
    """The migration, or what it left, is not right."""


def say(text):
    print(text, flush=True)


def note(kind, text):
    """A line of progress."""
    say(f"{time.monotonic() - BEGAN:6.1f} s  {kind}: {text}")


def mib(count):
    return f"{count / (1 << 20):.1f} MiB"


class Machine:
    """A QEMU process and its QMP socket."""

    def __init__(self, name, kind, options, rom, folder, deadline, extra=()):
        self.name, self.deadline = name, deadline
        self.socket = self.lines = None
        self.log = folder / f"{kind}-{name}.log"
        self.path = folder / f"{kind}-{name}.qmp"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [QEMU, "-nodefaults", "-no-user-config", "-display", "none",
                 "-name", f"{kind}-{name}", "-accel", "tcg,tb-size=32",
                 "-machine", "pc,memory-backend=mem", "-m", f"{options.mem}M",
                 "-object", f"{BACKENDS[kind]},id=mem,size={options.mem}M",
                 "-bios", str(rom), "-qmp", f"unix:{self.path},server=on,wait=off", *extra],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def left(self):
        """Seconds to the deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Failure("time limit reached")
        if self.process.poll() is not None:
            raise Failure(f"the {self.name}'s QEMU ended with status {self.process.returncode}")
        return left

    def connect(self):
        while True:
            left = self.left()
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(left)
            try:
                self.socket.connect(str(self.path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                self.socket.close()
                time.sleep(0.05)
        self.lines = self.socket.makefile("rb")
        self.receive()
        self.qmp("qmp_capabilities")

    def receive(self):
        self.socket.settimeout(self.left())
        try:
            line = self.lines.readline()
        except OSError as error:
            raise Failure(f"the {self.name}'s QMP does not answer: {error}") from error
        if not line:
            raise Failure(f"the {self.name}'s QEMU closed its QMP socket")
        return json.loads(line)

    def qmp(self, command, **arguments):
        message = {"execute": command, "arguments": arguments}
        try:
            self.socket.sendall(json.dumps(message).encode())
        except OSError as error:
            raise Failure(f"the {self.name}'s QMP is gone: {error}") from error
        while True:
            answer = self.receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failure(f"{self.name}: {command}: {answer['error']['desc']}")

    def capabilities(self, *names):
        self.qmp("migrate-set-capabilities",
                 capabilities=[{"capability": name, "state": True} for name in names])

    def migration(self):
        """query-migrate; a migration that failed is a failure."""
        info = self.qmp("query-migrate")
        status = info.get("status", "none")
        if status in ("failed", "cancelled") or "paused" in status:
            raise Failure(f"the {self.name}'s migration is {status}: {info.get('error-desc', '')}")
        return status, info

    def step(self):
        """How far the program in the VM is (see ramwriter.S)."""
        answer = self.qmp("human-monitor-command",
                          **{"command-line": f"xp /1wx {ramcheck.RECORD:#x}"})
        step = int(answer.split()[-1], 16)
        return 0 if step == ramcheck.U32 else step

    def wait_step(self, step):
        while (now := self.step()) < step:
            time.sleep(0.1)
        return now

    def describe(self):
        """For a failure: what QEMU and the kernel know about this side."""
        try:
            status = self.process.wait(1)
        except subprocess.TimeoutExpired:
            status = None
        say(f"# {self.name}: QEMU's output:")
        say(self.log.read_text(errors="replace").strip() or "(none)")
        if status is not None:
            say(f"# {self.name}: QEMU has ended with status {status}")
            return
        # QEMU may be stuck in a fault; ask, but do not wait long.
        self.deadline = time.monotonic() + 5
        for command in "query-status", "query-migrate":
            try:
                say(f"# {self.name}: {command}: {json.dumps(self.qmp(command))}")
            except (Failure, AttributeError, ValueError) as error:
                say(f"# {self.name}: {command}: {error}")
        for task in sorted(pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()):
            try:
                stack = [line.split()[-1] for line in (task / "stack").read_text().splitlines()]
                say(f"# {self.name}: thread {(task / 'comm').read_text().strip()}: {' '.join(stack)}")
            except OSError:
                pass  # gone, or a kernel that keeps no stacks

    def end(self):
        if self.socket:
            self.socket.close()
        self.process.kill()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            raise Failure(f"the {self.name}'s QEMU cannot be killed") from None


def switch_over(kind, options, source, destination, address):
    """Migrate; returns what the source knows about it at the end."""
    preempt = ["postcopy-preempt"] if options.preempt else []
    source.capabilities("postcopy-ram", *preempt)
    # The destination can also tell how long the vCPU stood still in faults.
    destination.capabilities("postcopy-ram", "postcopy-blocktime", *preempt)
    destination.qmp("migrate-incoming", uri=address)

    # Precopy with limited bandwidth, so that most pages remain.  After the
    # switch the source pushes pages unasked within a limit too, so that many
    # must be asked for; those that are asked for are never held back.
    source.qmp("migrate-set-parameters", **{"max-bandwidth": options.bandwidth << 20,
                                            "max-postcopy-bandwidth": options.push << 20})
    source.qmp("migrate", uri=address)
    while True:
        status, info = source.migration()
        if status == "completed":
            raise Failure("precopy came to an end before postcopy could start")
        sent = info.get("ram", {}).get("transferred", 0)
        if status == "active" and sent >= options.precopy << 20:
            break
        time.sleep(0.05)
    note(kind, f"precopy: {mib(sent)} sent; now the switch to postcopy")
    source.qmp("migrate-start-postcopy")
    # With huge pages QEMU first ends its pass over all of RAM: hurry it.
    source.qmp("migrate-set-parameters", **{"max-bandwidth": 4 << 30})

    spoken = time.monotonic()
    while True:
        status, info = source.migration()
        arrived, other = destination.migration()
        if status == arrived == "completed":
            break
        if time.monotonic() - spoken >= 1:
            spoken = time.monotonic()
            ram = info.get("ram", {})
            note(kind, f"{status}: {mib(ram.get('remaining', 0))} remain, "
                f"{ram.get('postcopy-requests', 0)} pages requested")
        time.sleep(0.1)
    return info, other


def migrate_once(kind, options, rom, folder, checker):
    """One migration and its RAM check; returns the result's fields."""
    began = time.monotonic()
    deadline = began + options.limit
    result = {"type": kind, "passed": False, "ram_check": False, "error": None}
    machines = []
    pages = checker.pages
    try:
        source = Machine("source", kind, options, rom, folder, deadline)
        machines.append(source)
        destination = Machine("destination", kind, options, rom, folder, deadline,
                              ("-incoming", "defer"))
        machines.append(destination)
        note(kind, "source and destination start")
        source.connect()
        destination.connect()
        step = source.wait_step(pages)
        note(kind, f"the VM runs at the source, all of its {pages} pages are in use")

        info, other = switch_over(kind, options, source, destination,
                                  f"unix:{folder}/{kind}.migrate")
        ram = info["ram"]
        result.update(
            requests=ram["postcopy-requests"], downtime_ms=info["downtime"],
            total_ms=info["total-time"], blocked_ms=other.get("postcopy-blocktime"),
            transferred=ram["transferred"], zero_pages=ram["duplicate"],
            normal_pages=ram["normal"])
        note(kind, f"completed on both sides, {result['requests']} pages requested by faults, "
            f"downtime {info['downtime']} ms, total {info['total-time']} ms")

        # Each page must be visited twice more where the VM is now.
        left_off = source.step()
        if source.qmp("query-status")["running"]:
            raise Failure("the VM still runs at the source")
        if left_off < step:
            raise Failure(f"the source's program went back from step {step} to {left_off}")
        step = destination.wait_step(left_off + 2 * pages)
        note(kind, f"the VM runs at the destination: pass {left_off // pages} at the switch, "
            f"now {step // pages}")

        destination.qmp("stop")
        dump = folder / f"{kind}.dump"
        destination.qmp("pmemsave", val=0, size=options.mem << 20, filename=str(dump))
        dumped, faults = ramcheck.check_file(dump, checker)
        dump.unlink()
        if dumped is not None and dumped < step:
            faults.append((ramcheck.RECORD, f"record: step {dumped} after step {step}"))
        for line in ramcheck.report(faults):
            note(kind, f"RAM check: {line}")
        if faults:
            raise Failure(f"RAM check: {len(faults)} wrong pages")
        result["ram_check"] = True
        note(kind, f"RAM check: all bytes are those of step {dumped}")
        if result["requests"] <= 0:
            raise Failure("no page was requested by a fault, so nothing was shown")
        result["passed"] = True
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
                result.update(passed=False, error=result["error"] or str(failure))
                note(kind, f"FAILED: {failure}")
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def assemble(folder):
    """The program of the VM, as a ROM image."""
    obj, elf, rom = (folder / f"ramwriter.{end}" for end in ("o", "elf", "rom"))
    for command in (["as", "--32", "-o", obj, HERE / "ramwriter.S"],
                    ["ld", "-m", "elf_i386", "-Ttext=0xffff0000", "-o", elf, obj],
                    ["objcopy", "-O", "binary", "-j", ".text", elf, rom]):
        subprocess.run(command, check=True)
    return rom


def reserve_huge(pages):
    """See that so many huge pages are free."""
    counts = {}
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        counts[name] = int(value.split()[0])
    missing = pages - counts.get("HugePages_Free", 0)
    if missing > 0:
        setting = pathlib.Path("/proc/sys/vm/nr_hugepages")
        total = counts["HugePages_Total"] + missing
        setting.write_text(f"{total}\n")
        if int(setting.read_text()) < total:
            raise Failure(f"the kernel cannot reserve {missing} more huge pages of 2 MiB")


def write_tap(path, results, self_test):
    with open(path, "w", encoding="ascii") as tap:
        tap.write(f"TAP version 13\n1..{len(results) + 1}\n")
        tap.write(f"{'ok' if self_test else 'not ok'} 1 - demo: the RAM check reports damage\n")
        for number, result in enumerate(results, 2):
            tap.write(f"{'ok' if result['passed'] else 'not ok'} {number} - "
                      f"demo: postcopy migration, {result['type']}, RAM check\n")
            if result["error"]:
                tap.write(f"# {result['error']}\n")


def table(results):
    row = "{:<8} {:>15} {:>10} {:>11} {:>13}   {}"
    say(row.format("memory", "pages requested", "downtime", "total time", "vCPU blocked", "RAM check"))

    def ms(result, field):
        value = result.get(field)
        return "-" if value is None else f"{value} ms"

    for result in results:
        say(row.format(result["type"], result.get("requests", "-"), ms(result, "downtime_ms"),
                       ms(result, "total_ms"), ms(result, "blocked_ms"),
                       "passed" if result["passed"] else f"FAILED ({result['error']})"))


def arguments():
    parser = argparse.ArgumentParser(prog="demo/migrate", description=__doc__)
    parser.add_argument("--type", action="append", choices=list(BACKENDS), dest="types",
                        help="only this type of memory; may be repeated")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="do all of it N times")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--tap", metavar="FILE", help="write the results as TAP")
    parser.add_argument("--mem", type=int, default=128, metavar="MIB", help="the VM's memory (128)")
    parser.add_argument("--precopy", type=int, default=16, metavar="MIB",
                        help="switch to postcopy after so much precopy (16)")
    parser.add_argument("--bandwidth", type=int, default=32, metavar="MIB",
                        help="limit of precopy per second (32)")
    parser.add_argument("--preempt", action="store_true",
                        help="a second channel for pages that were asked for")
    parser.add_argument("--push", type=int, default=32, metavar="MIB",
                        help="limit of pages sent unasked after the switch, per second; 0: none (32)")
    parser.add_argument("--limit", type=int, default=180, metavar="SECONDS",
                        help="time limit of one migration (180)")
    options = parser.parse_args()
    if not 32 <= options.mem <= 2048 or options.mem % 2:
        parser.error("--mem: an even number from 32 to 2048")
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for tool in QEMU, "as", "ld", "objcopy":
        if not shutil.which(tool):
            say(f"demo: {tool} is missing; make -f Makefile.patches deps installs it")
            return 1
    say(f"demo: postcopy migration on Linux {platform.release()}, {os.cpu_count()} CPUs")
    results = []
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        folder = pathlib.Path(name)
        # A check that cannot fail shows nothing: let it prove itself meanwhile.
        self_test = subprocess.Popen([sys.executable, "-B", HERE / "ramcheck.py", "--self-test"])
        rom = assemble(folder)
        checker = ramcheck.Checker(options.mem << 20)
        for _ in range(options.repeat):
            for kind in options.types or BACKENDS:
                try:
                    if kind == "hugetlb":
                        reserve_huge(2 * (options.mem << 20) // HUGE + 4)
                    results.append(migrate_once(kind, options, rom, folder, checker))
                except (Failure, OSError) as error:
                    note(kind, f"FAILED: {error}")
                    results.append({"type": kind, "passed": False, "error": str(error)})
        try:
            noticed = self_test.wait(60) == 0
        except subprocess.TimeoutExpired:
            self_test.kill()
            noticed = False
    seconds = round(time.monotonic() - BEGAN, 1)

    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            json.dump({"kernel": platform.release(), "mem_mib": options.mem, "seconds": seconds,
                       "self_test": noticed, "results": results}, file, indent=1)
            file.write("\n")
    if options.tap:
        write_tap(options.tap, results, noticed)
    say("")
    table(results)
    say("")
    if not noticed:
        say("demo: the self-test of the RAM check FAILED")
    passed = sum(result["passed"] for result in results)
    say(f"demo: {passed} of {len(results)} RAM checks passed, in {seconds:.0f} s")
    return 0 if noticed and passed == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
