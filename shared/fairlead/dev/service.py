"""A place in the system that a child always fills: kept alive, replaced without a gap."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from fairlead.dev.processes import Child, Children, Spec, Write

# Seconds between two looks whether a child is ready.
LOOK = 0.05

# The supervisor's own name in front of its lines.
US = "dev"


@dataclass(slots=True)
class Backoff:
    """How long to wait before a child is started again; all in seconds.

    Doubles from `first` to `most`; starts anew after a child that lived for `healthy`.
    """

    first: float = 0.5
    most: float = 5.0
    healthy: float = 10.0
    _next: float = 0.0

    def after(self, lived: float) -> float:
        """The pause after a child that lived so long."""
        if lived >= self.healthy or self._next == 0.0:
            self._next = self.first
        pause = self._next
        self._next = min(self._next * 2, self.most)
        return pause


class Service:
    """Runs `spec()` and, whenever the child dies, runs it again.

    Args:
        spec: how to start the next child; called for each, since two of them may be alive
            at once and cannot share a port.
        patience: seconds that a new child has to become ready.
    """

    def __init__(
        self,
        spec: Callable[[], Spec],
        children: Children,
        write: Write,
        *,
        patience: float = 30.0,
        backoff: Backoff | None = None,
    ) -> None:
        self._spec = spec
        self._children = children
        self._write = write
        self._patience = patience
        self._backoff = backoff or Backoff()
        self._child: Child | None = None
        self._replaced = asyncio.Event()
        self._swap = asyncio.Lock()

    @property
    def child(self) -> Child | None:
        """The child that fills the place; the one before it may still be stopping."""
        return self._child

    async def keep(self) -> None:
        """Start the child, and start it again with the reason told, until cancelled.

        The child itself is left running then; `Children.stop` ends it in its turn.
        """
        while True:
            async with self._swap:
                if self._child is None or not self._child.running:
                    self._child = await self._children.start(self._spec())
            child = self._child
            lived = await child.ended()
            if self._child is not child:
                continue
            pause = self._backoff.after(lived)
            self._write(
                US,
                f"{child.spec.name} (process {child.pid}) ended: {child.reason()}; "
                f"it starts again in {pause:g} s",
            )
            await self._pause(pause)

    async def ready(self) -> None:
        """Wait until the place is filled by a child that serves, however many it takes."""
        while True:
            child = self._child
            if child is not None:
                if await serves(child, self._patience):
                    return
                if child.running:
                    self._write(US, f"{child.spec.name} is not ready after {self._patience:g} s")
            await asyncio.sleep(LOOK)

    async def replace(self) -> bool:
        """Start a new child, and when it serves, stop the old one.

        A caller that is cancelled may leave both; `Children.stop` ends them.

        Returns:
            False if the new one did not become ready; the old one then goes on.
        """
        new = await self._children.start(self._spec())
        if not await serves(new, self._patience):
            why = f"not ready in {self._patience:g} s" if new.running else new.reason()
            await new.stop()
            self._write(US, f"the new {new.spec.name} did not start: {why}; {self._instead()}")
            return False
        async with self._swap:
            old, self._child = self._child, new
            self._replaced.set()
        if old is not None:
            await old.stop()
        return True

    def _instead(self) -> str:
        goes_on = self._child is not None and self._child.running
        return "the old one goes on" if goes_on else "save again when it is mended"

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless somebody fills the place meanwhile."""
        self._replaced.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._replaced.wait()


async def serves(child: Child, patience: float) -> bool:
    """Wait until a child is ready; False if it ended or `patience` seconds went by."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while child.running:
                if await child.spec.ready():
                    return True
                await asyncio.sleep(LOOK)
    return False
