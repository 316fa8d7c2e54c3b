"""The traces of the last minutes, in memory and within bounds.

Spans are kept as they came, in protobuf: about a tenth of what they are as objects. When there
is no room for a new one, whole traces go, the one that began to arrive first.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from opentelemetry.proto.trace.v1 import trace_pb2

from fairlead_console.otlp import Received, decode
from fairlead_console.settings import TRACE_MEMORY
from fairlead_console.spans import Matter, Origin, Span, operation

MOST_SPANS = 1000
"""Of one trace; further ones are counted only."""

LARGEST_PART = 8
"""A trace has at most this part of all the room, so that one cannot drive out all others."""

_SPAN = 100
"""Bytes that Python takes beside those of a span (measured; tests/console/test_store.py)."""

_TRACE = 560
"""Bytes that it takes for a trace beside its spans."""

Order = Literal["last", "slow"]


@dataclass(slots=True)
class Trace:
    """What is known of a trace without looking at its spans.

    Attributes:
        start, end: of all its spans, in ns since the epoch.
        more: spans that were not kept.
        matter: whether it is about a message.
        size: bytes that it takes.
    """

    id: str
    start: int
    end: int
    more: int = 0
    size: int = _TRACE
    matter: Matter = field(default_factory=Matter)
    _spans: list[tuple[Origin, bytes]] = field(default_factory=list)

    def spans(self) -> list[Span]:
        """Its spans, read anew each time."""
        return [decode(origin, trace_pb2.Span.FromString(wire)) for origin, wire in self._spans]


class Store:
    """Spans by trace.

    Args:
        limit: bytes, Python's own share included.

    Attributes:
        size: bytes that are taken.
    """

    def __init__(self, limit: int = TRACE_MEMORY, most_spans: int = MOST_SPANS) -> None:
        self._limit = limit
        self._most_spans = most_spans
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._origins: dict[Origin, Origin] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, received: Received) -> None:
        """Keep a span, and forget old traces for it if need be."""
        wire = received.wire
        start = wire.start_time_unix_nano
        end = max(start, wire.end_time_unix_nano)
        trace = self._traces.get(received.trace)
        if trace is None:
            trace = self._traces[received.trace] = Trace(received.trace, start, end)
            self.size += trace.size
        trace.start = min(trace.start, start)
        trace.end = max(trace.end, end)
        trace.matter.add(operation(wire.name, received.origin.scope))
        encoded = wire.SerializeToString()
        size = len(encoded) + _SPAN
        full = trace.size + size > self._limit // LARGEST_PART
        if full or len(trace._spans) == self._most_spans:
            trace.more += 1
        else:
            trace._spans.append((self._same(received.origin), encoded))
            trace.size += size
            self.size += size
        while self.size > self._limit:
            _, oldest = self._traces.popitem(last=False)
            self.size -= oldest.size

    def _same(self, origin: Origin) -> Origin:
        """One object for all spans of a process; there are few."""
        if len(self._origins) > 1000:
            self._origins.clear()
        return self._origins.setdefault(origin, origin)

    def find(self, prefix: str) -> list[Trace]:
        """The trace of an id, or those whose ids begin so; 10 at most."""
        exact = self._traces.get(prefix)
        if exact is not None:
            return [exact]
        found: list[Trace] = []
        for id, trace in self._traces.items():
            if id.startswith(prefix):
                found.append(trace)
                if len(found) == 10:
                    break
        return found

    def best(self, order: Order, count: int) -> list[Trace]:
        """The newest or the slowest, best first; those of connections only if there is no other.

        Looks at all of them: 4 ms where the store is full of small ones (measured).
        """
        messages: Iterable[Trace] = [each for each in self._traces.values() if each.matter.message]
        return heapq.nlargest(count, messages or self._traces.values(), key=_KEYS[order])


def _newest(trace: Trace) -> int:
    return trace.start


def _slowest(trace: Trace) -> int:
    return trace.end - trace.start


_KEYS: dict[Order, Callable[[Trace], int]] = {"last": _newest, "slow": _slowest}
