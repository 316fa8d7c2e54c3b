"""A program under test, as a person at a terminal has it: its lines, its signals, its end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SLOWER = float(os.environ.get("FAIRLEAD_TESTS_SLOWER", "1"))
"""How much more time this machine is given."""

DEADLINE = 30.0 * SLOWER
"""Seconds that anything may take before a test fails."""


class Program:
    """A running program; what it writes on stdout and stderr is gathered line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._closed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """The first line from number `after` on that holds `pattern`, once it is there."""
        deadline = time.monotonic() + DEADLINE
        seen = after
        with self._news:
            while True:
                for line in self.lines[seen:]:
                    seen += 1
                    if match := re.search(pattern, line):
                        return match
                left = deadline - time.monotonic()
                closed = self._closed and seen == len(self.lines)
                if left <= 0 or closed:
                    what = "the program ended without" if closed else "the program does not say"
                    said = "\n".join(self.lines[after:])
                    raise AssertionError(f"{what} {pattern!r}; it said:\n{said}")
                self._news.wait(left)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end and its last line; its exit code."""
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()


@contextmanager
def running(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None
) -> Generator[Program]:
    """Run a program; kill it at the end if it still runs."""
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        program = Program(process)
        try:
            yield program
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            program.ended()


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pids: Sequence[int]) -> None:
    """Wait until none of the processes runs."""
    deadline = time.monotonic() + DEADLINE
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The children of a process that run now."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]
