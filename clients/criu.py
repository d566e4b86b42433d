#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0
"""CRIU's lazy-pages: dump processes, and restore them before their memory.

usage: criu.py [--tap FILE] [--keep DIR] LAZYTREE

LAZYTREE is the program built from lazytree.c, which says what the processes do
once they are restored. Twice:

- From images: the daemon reads the pages from files. The processes fork, unmap,
  move and drop memory.
- From a page server, as in a migration: the dump keeps the pages, the daemon
  asks for them over TCP. The processes fork only: when memory is unmapped that
  CRIU 3.17 has asked for and not yet got, it may ask for it for ever.

A run is good if all processes found all of their memory as it must be, the
daemon ended well, and it has seen faults and each kind of event. --keep copies
CRIU's logs to DIR.
"""
import argparse
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

LIMIT = 150
PAGES = 4096
# The parent and two children, each with the three that it forks.
PROCESSES = 12
PORT = "27000"
# What the log of the daemon says for a message, with -v4.
MESSAGES = {"fault": "#PF at", "fork": "FORK:", "remap": "REMAP:", "remove": "REMOVE:",
            "unmap": "UNMAP:"}


class Failure(Exception):
    """A step of a run, or what it left, is not right."""


class Run:
    """One dump and restore."""

    def __init__(self, program, folder, server):
        self.program, self.server = program, server
        self.work, self.images = folder / "work", folder / "images"
        self.work.mkdir()
        self.images.mkdir()
        self.deadline = time.monotonic() + LIMIT
        self.children = []

    def left(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Failure("time limit reached")
        return left

    def wait_for(self, what, condition, *processes):
        while not condition():
            self.left()
            for process in processes:
                if process.poll():
                    raise Failure(f"{what}: {process.name} ended with status "
                                  f"{process.returncode}")
            time.sleep(0.02)

    def criu(self, command, *options, before=()):
        process = subprocess.Popen(
            [*before, "criu", command, "-D", self.images, "-v4", "-o", f"{command}.log",
             *options], stdin=subprocess.DEVNULL)
        process.name = command
        self.children.append(process)
        return process

    def finish(self, process):
        try:
            status = process.wait(self.left())
        except subprocess.TimeoutExpired:
            raise Failure(f"criu {process.name} does not end") from None
        if status:
            raise Failure(f"criu {process.name} ended with status {status}")

    def results(self):
        try:
            return (self.work / "result").read_text().splitlines()
        except FileNotFoundError:
            return []

    def over(self):
        lines = self.results()
        return any("wrong" in line for line in lines) or len(lines) >= PROCESSES

    def run(self):
        tree = subprocess.Popen([self.program, str(PAGES), *(["fork"] if self.server else [])],
                                cwd=self.work, start_new_session=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        tree.name = "lazytree"
        self.children.append(tree)
        self.wait_for("processes start", lambda: len(list(self.work.glob("ready.*"))) == 3, tree)

        remote = ("--address", "127.0.0.1", "--port", PORT) if self.server else ()
        dump = self.criu("dump", "-t", str(tree.pid), "--manage-cgroups=ignore",
                         *(("--lazy-pages", *remote) if self.server else ()))
        if self.server:
            # It goes on until the last page has been asked for.
            log = self.images / "dump.log"
            self.wait_for("dump", lambda: log.exists() and
                          "Starting lazy pages server" in log.read_text(errors="replace"), dump)
        else:
            self.finish(dump)
            tree.wait(self.left())

        (self.work / "go").touch()
        daemon = self.criu("lazy-pages", *(("--page-server", *remote) if self.server else ()))
        self.wait_for("restore", (self.images / "lazy-pages.socket").exists, daemon)
        began = time.monotonic()
        # The dump keeps its processes, and their numbers, until all is fetched;
        # so beside it the others need numbers of their own.
        apart = ("unshare", "--pid", "--fork", "--mount-proc") if self.server else ()
        restore = self.criu("restore", "--lazy-pages", "--manage-cgroups=ignore", before=apart)
        self.wait_for("restored processes", self.over, daemon, restore)
        wrong = [line for line in self.results() if "wrong" in line]
        if wrong:
            raise Failure("; ".join(wrong))
        seconds = time.monotonic() - began
        self.finish(restore)
        self.finish(daemon)
        if self.server:
            self.finish(dump)

        log = (self.images / "lazy-pages.log").read_text(errors="replace")
        seen = {name: log.count(mark) for name, mark in MESSAGES.items()}
        checked = sum(int(line.split()[-2]) for line in self.results())
        text = ", ".join(f"{count} {name}" for name, count in seen.items())
        if not all(seen[name] for name in (("fault", "fork") if self.server else MESSAGES)):
            raise Failure(f"the daemon has not seen all: {text}")
        return f"{text} messages; {checked} pages checked, {seconds:.1f} s after the restore began"

    def end(self, keep):
        """Leave no process behind; keep the logs."""
        # The last first: a process that CRIU traces cannot be waited for.
        for child in reversed(self.children):
            if child.poll() is None:
                child.kill()
                child.wait()
        for stat in pathlib.Path("/proc").glob("[0-9]*/exe"):
            try:
                if os.readlink(stat) == str(self.program):
                    os.kill(int(stat.parent.name), signal.SIGKILL)
            except OSError:
                pass  # gone by itself
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            for log in self.images.glob("*.log"):
                shutil.copy(log, keep)

    def describe(self):
        """For a failure: the ends of the logs."""
        for log in sorted(self.images.glob("*.log")):
            print(f"# {log.name}:")
            for line in log.read_text(errors="replace").splitlines()[-25:]:
                print(f"#   {line}")
        for line in self.results():
            print(f"# result: {line}")
        for pid in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(pid / "exe") != str(self.program):
                    continue
                for task in (pid / "task").iterdir():
                    stack = [line.split()[-1] for line in (task / "stack").read_text().splitlines()]
                    print(f"# {pid.name}: thread {task.name}: {' '.join(stack)}")
            except OSError:
                pass


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--tap", metavar="FILE", help="write the results as TAP")
    parser.add_argument("--keep", metavar="DIR", type=pathlib.Path)
    options = parser.parse_args()

    print(f"CRIU lazy-pages on Linux {platform.release()}, {os.cpu_count()} CPUs", flush=True)
    lines = ["TAP version 13", "1..2"]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="clients-") as top:
        top = pathlib.Path(top)
        # CRIU opens the program again when it restores it: from a place of ours.
        program = pathlib.Path(shutil.copy(options.program, top))
        for number, source in enumerate(("images", "a page server"), 1):
            folder = top / str(number)
            folder.mkdir()
            run = Run(program, folder, source == "a page server")
            word = "ok"
            try:
                text = run.run()
            except (Failure, OSError, subprocess.SubprocessError) as error:
                word, text = "not ok", str(error)
                failed += 1
                run.describe()
                sys.stdout.flush()
            finally:
                run.end(options.keep / source.split()[-1] if options.keep else None)
            lines += [f"{word} {number} - CRIU lazy-pages, pages from {source}", f"# {text}"]
            print("\n".join(lines[-2:]), flush=True)
    if options.tap:
        pathlib.Path(options.tap).write_text("\n".join(lines) + "\n", encoding="ascii")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
