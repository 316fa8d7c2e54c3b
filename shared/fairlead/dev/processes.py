"""Child processes that cannot outlive the supervisor, nor each other's turn to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from io import FileIO

# A line that is longer is shown in pieces; bytes.
LONGEST_LINE = 64 * 1024

# A child's own children may hold its pipe open; seconds that we read on after its end.
LAST_WORDS = 1.0

_PR_SET_PDEATHSIG = 1


class Role(IntEnum):
    """What a child is; they stop in this order, since each stands on those after it."""

    EDGE = 0
    WORKER = 1
    CONSOLE = 2
    NATS = 3


@dataclass(frozen=True, slots=True)
class Spec:
    """How to start one child.

    Attributes:
        name: what people call it, and the prefix of its lines.
        argv: the program and its arguments.
        env: its whole environment.
        grace: seconds from SIGTERM to SIGKILL.
        ready: says whether it serves; asked again and again until it does.
    """

    name: str
    role: Role
    argv: tuple[str, ...]
    env: Mapping[str, str]
    grace: float
    ready: Callable[[], Awaitable[bool]]


Write = Callable[[str, str], None]
"""Takes the name of a child and one line of its output."""


class Child:
    """A started process, its output on the way to `write`.

    Make it with `Children.start`.
    """

    def __init__(
        self, spec: Spec, process: asyncio.subprocess.Process, output: FileIO, write: Write
    ) -> None:
        self.spec = spec
        self.pid = process.pid
        self._process = process
        self._asked = False
        self._started = time.monotonic()
        self._ended: asyncio.Task[float] = asyncio.create_task(self._follow(output, write))

    async def ended(self) -> float:
        """Wait until it is gone and its last line was written.

        A caller that is cancelled leaves it as it is.

        Returns:
            The seconds that it lived.
        """
        return await asyncio.shield(self._ended)

    def when_ended(self, call: Callable[[Child], object]) -> None:
        """Have `call` called with this child, once it is gone."""
        self._ended.add_done_callback(lambda _: call(self))

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def reason(self) -> str:
        """Why it ended: its exit code, or the name of the signal that killed it."""
        return how_it_ended(self._process.returncode)

    async def stop(self) -> None:
        """Ask it to end, wait for its grace, then kill it; returns when it is gone."""
        # Once only, whoever else waits for its end: a second SIGTERM means "now".
        if not self._asked:
            self._asked = True
            with contextlib.suppress(ProcessLookupError):
                # Not by `send_signal`: it polls first, and takes the exit code from asyncio.
                os.kill(self.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(self.spec.grace):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """End it at once, and what it has started itself."""
        if self.running:
            # Its session is its own, so the group is it and its children.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _follow(self, output: FileIO, write: Write) -> float:
        reading = asyncio.create_task(_lines(output, self.spec.name, write))
        try:
            await self._process.wait()
            lived = time.monotonic() - self._started
            await asyncio.wait([reading], timeout=LAST_WORDS)
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        return lived


class Children:
    """All children that are alive, whoever started them and for whatever reason."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._alive: set[Child] = set()
        self._starting: set[asyncio.Task[Child]] = set()
        self._closed = False

    async def start(self, spec: Spec) -> Child:
        """Start one.

        Raises:
            OSError: the program cannot be started.
            RuntimeError: they are being stopped; nothing new begins.
        """
        if self._closed:
            raise RuntimeError(f"{spec.name} is not started: the supervisor stops")
        # A caller that is cancelled between the fork and our note of it would orphan it.
        starting = asyncio.create_task(self._start(spec))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        return await asyncio.shield(starting)

    async def _start(self, spec: Spec) -> Child:
        # A pipe of our own: over one of asyncio's, `wait` of Python 3.11 returns only when
        # nobody holds it any more, and a child of the child may for long.
        ours, theirs = os.pipe()
        output = os.fdopen(ours, "rb", buffering=0)
        try:
            process = await asyncio.create_subprocess_exec(
                *spec.argv,
                env=spec.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C goes to the whole foreground group; they must stop in our order.
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )
        except BaseException:
            output.close()
            raise
        finally:
            os.close(theirs)
        child = Child(spec, process, output, self._write)
        self._alive.add(child)
        child.when_ended(self._alive.discard)
        return child

    async def stop(self) -> None:
        """Stop all, role by role, those of one role at once; nothing starts any more."""
        self._closed = True
        await asyncio.gather(*self._starting, return_exceptions=True)
        for role in Role:
            of_role = [child for child in self._alive if child.spec.role is role]
            await asyncio.gather(*(child.stop() for child in of_role))

    def kill(self) -> None:
        """End all at once; `stop` then returns soon."""
        self._closed = True
        for child in list(self._alive):
            child.kill()


def how_it_ended(returncode: int | None) -> str:
    """`exit code 3`, or `SIGKILL`."""
    if returncode is None:
        return "not ended"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


async def _lines(output: FileIO, name: str, write: Write) -> None:
    """Pass lines on; not by `readline`, which fails at the first line over its limit."""
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), output
    )
    rest = b""
    try:
        while data := await stream.read(LONGEST_LINE):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) >= LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                write(name, line.decode(errors="replace").rstrip("\r"))
    finally:
        if rest:
            write(name, rest.decode(errors="replace"))
        transport.close()


def die_with(parent: int) -> Callable[[], None] | None:
    """What a child runs before its program, so that it dies even when we are killed.

    Linux only; elsewhere a supervisor that is killed with SIGKILL leaves its children.
    """
    if sys.platform != "linux":
        return None
    # Loaded here: between fork and exec nothing should be imported or allocated much.
    libc = ctypes.CDLL(None, use_errno=True)

    def ask_the_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the call above.
        if os.getppid() != parent:
            os._exit(1)

    return ask_the_kernel
