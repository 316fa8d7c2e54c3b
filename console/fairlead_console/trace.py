"""`fairlead trace`: one message's way, drawn in the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson
from rich.console import Console

from fairlead.settings import WrongUse
from fairlead_console.asking import Asked
from fairlead_console.settings import TraceSettings
from fairlead_console.sources import Source, connect
from fairlead_console.terminal import draw, draw_list
from fairlead_console.waterfall import Waterfall

SETTLED = 1.5
"""Seconds after its last span until all processes have exported what they know of a trace."""

WIDE = 120
"""Columns where there is no terminal to ask."""


def run(settings: TraceSettings) -> int:
    """Print what was asked for; the answer is the exit code."""
    id = _id(settings)
    asked = Asked(settings.from_, settings.kind, settings.service, settings.since, settings.header)
    http, source = connect(asked)
    with contextlib.closing(http):
        found = _find(source, id, settings)
    if settings.json_:
        sys.stdout.writelines(orjson.dumps(each).decode() + "\n" for each in found)
    elif len(found) == 1 and "rows" in found[0]:
        draw(_console(), cast(Waterfall, found[0]))
    else:
        draw_list(_console(), found)
    return 0


def _id(settings: TraceSettings) -> str:
    """Of the trace that is named, or "" where another way was chosen."""
    ways = [settings.trace, settings.last, settings.slow]
    if sum(way not in ("", None) for way in ways) != 1:
        raise WrongUse("name a trace by its id or its first digits, or ask for --last or --slow")
    id = settings.trace.lower()
    if set(id) - set("0123456789abcdef") or len(id) > 32:
        raise WrongUse(f"TRACE: found {settings.trace!r}; a trace has an id of 32 hex digits")
    return id


def _find(source: Source, id: str, settings: TraceSettings) -> Sequence[Mapping[str, Any]]:
    """What is to be shown; whole where it is one, or JSON."""
    if id:
        return [_settled(source, source.one(id))]
    if settings.last:
        found = source.best("last", settings.last)
    else:
        found = source.best("slow", settings.slow or 1)
    if max(settings.last or 0, settings.slow or 0) > 1 and not settings.json_:
        return found
    return [_settled(source, _whole(source, each)) for each in found]


def _whole(source: Source, trace: Mapping[str, Any]) -> Waterfall:
    return cast(Waterfall, trace) if "rows" in trace else source.one(trace["trace"])


def _settled(source: Source, trace: Waterfall) -> Waterfall:
    """The trace once more, if it is so young that spans of it may still be under way."""
    age = time.time() - trace["start"] / 1e9 - trace["duration"]
    if not 0 <= age < SETTLED:
        return trace
    time.sleep(SETTLED - age)
    return source.one(trace["trace"])


def _console() -> Console:
    made = Console(highlight=False)
    narrow = made.is_terminal or "COLUMNS" in os.environ
    return made if narrow else Console(highlight=False, width=WIDE)
