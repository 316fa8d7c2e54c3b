"""`fairlead top`: how all stands, in the terminal, each second anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import orjson
from rich.console import Console
from rich.live import Live as Screen

from fairlead import process
from fairlead.bus import Bus, BusOptions
from fairlead.protocol.subjects import Subjects
from fairlead_console.board import draw
from fairlead_console.live import EVERY, Live
from fairlead_console.settings import TopSettings

WITHIN = 5.0
"""Seconds for NATS to answer at the start; when it goes away later, the picture says so."""

WIDE = 140
"""Columns where there is no terminal to ask."""

QUIT = "qQ\x04"
"""Keys that end it, beside Ctrl-C."""


def run(settings: TopSettings) -> int:
    """Show it until told to stop, or once; the answer is the exit code."""
    # The screen is the picture's: what is wrong with NATS stands in it.
    logging.getLogger("fairlead").addHandler(logging.NullHandler())
    asyncio.run(_run(settings))
    return 0


async def _run(settings: TopSettings) -> None:
    async with _live(settings) as live:
        console = Console(highlight=False)
        if settings.json_ and settings.once:
            _write(await _rated(live))
        elif settings.json_:
            await _go_on(live, _write)
        elif settings.once or not console.is_terminal:
            wide = console if console.is_terminal else Console(highlight=False, width=WIDE)
            wide.print(draw(await _rated(live), wide, None))
        else:
            screen = Screen(console=console, screen=True, auto_refresh=False)
            with screen:
                await _go_on(
                    live,
                    lambda found: screen.update(draw(found, console, console.height), refresh=True),
                )


@asynccontextmanager
async def _live(settings: TopSettings) -> AsyncIterator[Live]:
    """Whoever of the app answers.

    Raises:
        Unusable: NATS does not.
    """
    options = BusOptions(
        settings.servers, Subjects(settings.app), "console", f"top{secrets.token_hex(4)}",
        credentials=settings.credentials,
    )  # fmt: skip
    bus = await Bus.within(options, WITHIN)
    live = Live(bus)
    try:
        yield live
    finally:
        await live.close()
        await bus.close()


async def _rated(live: Live) -> dict[str, Any]:
    """One picture with rates: those are of two looks."""
    await live.once()
    await asyncio.sleep(EVERY)
    return await live.once()


def _write(picture: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(picture).decode() + "\n")
    sys.stdout.flush()


async def _go_on(live: Live, show: Callable[[dict[str, Any]], None]) -> None:
    """Show each picture until told to stop, or nobody reads any more."""
    stop, _ = process.signals()
    pictures = live.pictures()
    with _keys(stop.set), contextlib.suppress(BrokenPipeError):
        async with contextlib.aclosing(pictures):
            while True:
                coming = asyncio.ensure_future(anext(pictures))
                if not await process.unless(coming, stop):
                    return
                show(coming.result())


@contextmanager
def _keys(quit: Callable[[], None]) -> Iterator[None]:
    """Call it when a key is pressed that ends a program of this kind."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    loop, keyboard = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def pressed() -> None:
        if sys.stdin.read(1) in QUIT:
            quit()

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, pressed)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
