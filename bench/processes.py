"""The processes of a benchmark: start, talk, look at what they cost, end them by pid."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

START_WITHIN = 30.0
"""Seconds until a process must be ready."""

EVENT_WITHIN = 180.0
"""Seconds for anything that a process is asked for; 9,000 handshakes are the longest."""

STOP_WITHIN = 20.0
"""Seconds from SIGTERM to SIGKILL."""

ROOT = Path(__file__).parents[1]
"""The folder that `python -m bench` runs in."""


class Failed(Exception):
    """A process of the benchmark did not do what it is for; says which, and its last words."""


class Child:
    """A running process.

    Args:
        output: the pipe that tells something: stdout of ours, stderr (its log) of the system's.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], output: IO[str]) -> None:
        self.name = name
        self.process = process
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.last_words: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, **command: Any) -> None:
        """Give a command to a process of ours."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.failure("is gone") from None

    def hear(self, event: str, within: float = EVENT_WITHIN) -> dict[str, Any]:
        """The next event of a process of ours, which must be this one.

        Raises:
            Failed: it says something else, nothing in time, or has ended.
        """
        found: dict[str, Any] = json.loads(self._line(within, event))
        if found.get("event") != event:
            raise self.failure(f"says {found} instead of {event!r}")
        return found

    def logs(self, text: str, within: float = START_WITHIN) -> dict[str, Any]:
        """The next line of a log that holds a text; lines before it are passed over."""
        deadline = time.monotonic() + within
        while True:
            line = self._line(deadline - time.monotonic(), text)
            if text in line:
                found: dict[str, Any] = json.loads(line)
                return found

    def failure(self, what: str) -> Failed:
        return Failed("\n  ".join([f"{self.name} {what}", *self.last_words[-5:]]))

    def stop(self) -> None:
        """SIGTERM and wait; SIGKILL if that does not help."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()

    def _line(self, within: float, wanted: str) -> str:
        try:
            line = self._lines.get(timeout=max(0.0, within))
        except queue.Empty:
            raise self.failure(f"does not say {wanted!r} in {within:.0f} s") from None
        if line is None:
            raise self.failure(f"ended before it said {wanted!r}")
        return line

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self.last_words = [*self.last_words[-20:], line.rstrip()[:2000]]
                self._lines.put(line)
        self._lines.put(None)


@contextmanager
def program(
    name: str, argv: Sequence[str], env: Mapping[str, str] | None = None
) -> Generator[Child]:
    """A process of the system: what it logs on stderr is heard."""
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=_environment(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        with _ended(Child(name, process, process.stderr)) as child:
            yield child


@contextmanager
def helper(module: str, *argv: str | float) -> Generator[Child]:
    """A process of ours, `python -m bench.MODULE`: what it says on stdout is heard."""
    with subprocess.Popen(
        [sys.executable, "-m", f"bench.{module}", *map(str, argv)],
        cwd=ROOT,
        env=_environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        with _ended(Child(module, process, process.stdout)) as child:
            yield child


@contextmanager
def _ended(child: Child) -> Generator[Child]:
    try:
        yield child
    finally:
        child.stop()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would set up the system differently from run to run."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("FAIRLEAD_", "OTEL_"))
    }
    return {**kept, **more}


_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has had with all its threads, in s; steps of 10 ms as a rule."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_bytes(pid: int) -> int:
    """Physical memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


class Meter:
    """CPU seconds of some processes from its making on."""

    def __init__(self, children: Iterable[Child]) -> None:
        self._from = {child.name: (child.pid, cpu_seconds(child.pid)) for child in children}

    def read(self) -> dict[str, float]:
        """CPU seconds so far, by the processes' names."""
        return {name: cpu_seconds(pid) - before for name, (pid, before) in self._from.items()}
