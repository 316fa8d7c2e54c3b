"""A traced system for tests: real edges and workers that export to one collector."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.otlp import Collector, Span, collector
from support.system import Edge, NatsServer, Process, System, Worker, system

TARGET = "traced.py"


@dataclass
class Traced:
    """Edges and workers of tests/system/projects/traced.py."""

    app: System
    spans: Collector
    edges: list[Edge] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    async def edge(self, *flags: str, env: Mapping[str, str] | None = None) -> Edge:
        edge = await self.app.edge(*flags, env={**self.spans.env, **(env or {})})
        self.edges.append(edge)
        return edge

    async def worker(self, env: Mapping[str, str] | None = None) -> Worker:
        worker = await self.app.worker(TARGET, env={**self.spans.env, **(env or {})})
        self.workers.append(worker)
        return worker

    async def settle(self) -> None:
        """Wait until all that was sent before has been exported.

        Spans leave each process in order, so a trace that went through all of them and
        has arrived stands behind whatever was there before.
        """
        room = new_room()
        async with (
            self.edges[0].v1(room) as client,
            self.edges[-1].v1(room) as other,
        ):
            ours = 4 if len(self.edges) == 1 else 5
            done: set[str] = set()
            while len(done) < len(self.workers):
                parent = new_parent()
                await client.send("settle", traceparent=parent)
                await client.until("message")
                await other.until("message")
                spans = await self.spans.trace(
                    # Those of NATS are there, too, where it is asked for them.
                    trace_id(parent),
                    lambda spans: len(spans) - len(all_of(spans, "nats")) >= ours,
                )
                done.add(one(spans, "process").instance)


@asynccontextmanager
async def traced_system(
    nats: NatsServer, folder: Path, *flags: str, edges: int = 2, workers: int = 2, name: str = ""
) -> AsyncIterator[Traced]:
    """An app whose processes export all that is sampled; ratio 1, as the standard sampler has it.

    Args:
        flags: of the edges. name: of the app; "" is one that no other has.
    """
    with collector() as spans:
        async with system(nats, folder) as app:
            app.app = name or app.app
            made = Traced(app, spans)
            await asyncio.gather(
                *(made.edge(*flags) for _ in range(edges)),
                *(made.worker() for _ in range(workers)),
            )
            for edge in made.edges if workers else ():
                # They may have been ready, with no routes, before the workers were.
                await edge.serves("/support/realtime/echo")
            yield made


def new_room(path: str = "rooms") -> str:
    """A room that nobody was in before."""
    return f"/support/realtime/{path}/{secrets.token_hex(4)}"


def new_parent(sampled: bool = True) -> str:
    """A client's own traceparent."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{'01' if sampled else '00'}"


def trace_id(traceparent: str) -> str:
    return traceparent.split("-")[1]


def span_id(traceparent: str) -> str:
    return traceparent.split("-")[2]


def traceparent(span: Span) -> str:
    """What names this span as a parent."""
    return f"00-{span.trace}-{span.id}-01"


def all_of(spans: list[Span], operation: str) -> list[Span]:
    return [span for span in spans if span.operation == operation]


def one(spans: list[Span], operation: str) -> Span:
    """The only span of an operation."""
    (found,) = all_of(spans, operation)
    return found


async def id_of(process: Process) -> str:
    """What an edge or a worker calls itself."""
    return (await process.says(r'"instance":"\w+"')).split('"')[3]
