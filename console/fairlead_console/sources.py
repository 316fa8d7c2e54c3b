"""Where traces can be read: the console's own API, Jaeger's and Tempo's, all over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast
from urllib.parse import quote

from fairlead.settings import CannotStart
from fairlead_console import jaeger, otlp
from fairlead_console.asking import Asked, Http, Kind, parsed
from fairlead_console.spans import Matter, Span, operation
from fairlead_console.waterfall import Waterfall, waterfall

LOOKED_AT = 200
"""Traces that Jaeger and Tempo are asked for, to find the slowest or one by its first digits."""

OLD = "; it may be too old, or not sampled: `fairlead trace --last 20` lists what there is"

Order = Literal["last", "slow"]


class Source(Protocol):
    """Something that has traces. Its methods raise CannotStart where there is nothing to show."""

    def one(self, id: str) -> Waterfall:
        """The trace of an id, or of the first digits of one."""
        ...

    def best(self, order: Order, count: int) -> list[Mapping[str, Any]]:
        """The newest or the slowest, best first; their rows may be left out."""
        ...


def connect(asked: Asked) -> tuple[Http, Source]:
    """What answers at an address; close the first when done.

    Raises:
        WrongUse: it is no address.
        CannotStart: nothing answers, or nothing that is known.
    """
    http = Http(asked)
    try:
        kind = kind_of(http) if asked.kind == "auto" else asked.kind
        made = _source(kind, http, asked)
    except BaseException:
        http.close()
        raise
    return http, made


def _source(kind: Kind, http: Http, asked: Asked) -> Source:
    match kind:
        case "jaeger":
            return Foreign(Jaeger(http, asked), http, asked)
        case "tempo":
            return Foreign(Tempo(http, asked), http, asked)
        case _:
            return ConsoleSource(http)


def kind_of(http: Http) -> Kind:
    """Ask what answers: the three have some paths in common, but not what they say there.

    Raises:
        CannotStart: none of the three.
    """
    found = parsed(http.get("/api/traces", limit=1))
    if isinstance(found, dict) and "held" in found:
        return "console"
    if isinstance(found, dict) and "data" in found:
        return "jaeger"  # it says here that it misses a service
    if http.get("/api/echo").text.strip() == "echo":
        return "tempo"
    found = parsed(http.get("/api/search", limit=1))
    if isinstance(found, dict) and "traces" in found:
        return "tempo"
    raise CannotStart(f"{http.shown} is no console, Jaeger or Tempo; if it is, say which by --kind")


class ConsoleSource:
    """The API of `fairlead console`, which `fairlead dev` has on its admin port."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def one(self, id: str) -> Waterfall:
        answer = self._http.get(f"/api/traces/{quote(id, safe='')}")
        found = parsed(answer)
        match answer.status_code, found:
            case 200, {"rows": _}:
                return cast(Waterfall, found)
            case 404, {"detail": detail}:
                raise CannotStart(f"{detail}{OLD}")
            case 409, {"detail": detail, "traces": [*ids]}:
                raise CannotStart(f"{detail}: {', '.join(ids)}")
        raise self._unlike()

    def best(self, order: Order, count: int) -> list[Mapping[str, Any]]:
        found = self._http.json("/api/traces", order=order, limit=count)
        match found:
            case {"traces": []}:
                raise CannotStart(
                    f"no traces at {self._http.shown} yet; send a message first. Spans come here "
                    "from all that `fairlead dev` starts, and from whatever has "
                    f"OTEL_EXPORTER_OTLP_ENDPOINT={self._http.shown}"
                )
            case {"traces": [*traces]} if all("trace" in each for each in traces):
                return traces
        raise self._unlike()

    def _unlike(self) -> CannotStart:
        return CannotStart(f"{self._http.shown} answers, but not as a console does")


OLD = "; it may be too old, or not sampled: fairlead trace --last 20 lists what there is"


@dataclass(frozen=True, slots=True)
class Found:
    """A trace that was found, but not read.

    Attributes:
        start, duration: in one unit, whichever.
        message: whether it is about one, not about a connection.
    """

    id: str
    start: int
    duration: int
    message: bool


class Reader(Protocol):
    """A foreign store of spans."""

    def spans(self, id: str) -> list[Span]:
        """Of a trace with this whole id; none where it is not there."""
        ...

    def recent(self) -> list[Found]:
        """Traces of late, in no order."""
        ...


class Foreign:
    """A source whose pictures are made here, of the spans that a reader finds."""

    def __init__(self, reader: Reader, http: Http, asked: Asked) -> None:
        self._reader = reader
        self._where = http.shown
        self._asked = asked

    def one(self, id: str) -> Waterfall:
        whole = id if len(id) == 32 else self._whole(id)
        spans = self._reader.spans(whole)
        if not spans:
            raise CannotStart(f"{self._where} has no trace {whole}{OLD}")
        return waterfall(whole, spans)

    def best(self, order: Order, count: int) -> list[Mapping[str, Any]]:
        found = [each for each in self._reader.recent() if each.message]
        found.sort(key=_newest if order == "last" else _slowest, reverse=True)
        made = [
            waterfall(each.id, spans)
            for each in found[:count]
            if (spans := self._reader.spans(each.id))
        ]
        if not made:
            raise CannotStart(
                f"{self._where} has no message of {self._asked.service} in the last "
                f"{self._asked.since:g} s; look further back with --since, or name another --service"
            )
        return [*made]

    def _whole(self, prefix: str) -> str:
        """The id that begins so, of those of late."""
        found = sorted({each.id for each in self._reader.recent() if each.id.startswith(prefix)})
        if not found:
            raise CannotStart(
                f"none of the last {LOOKED_AT} traces of {self._asked.service} at {self._where} "
                f"begins with {prefix}; give the whole id, or look with --last 20"
            )
        if len(found) > 1:
            raise CannotStart(f"several traces begin with {prefix}: {', '.join(found[:10])}")
        return found[0]


class Jaeger:
    """Jaeger's HTTP API, the one that its own page reads."""

    def __init__(self, http: Http, asked: Asked) -> None:
        self._http = http
        self._asked = asked

    def spans(self, id: str) -> list[Span]:
        # Raw: its own correction of clocks would hide what ours tells.
        found = self._http.json(f"/api/traces/{id}", raw="true")
        return dict(self._read(found)).get(id, []) if found else []

    def recent(self) -> list[Found]:
        end = round(time.time() * 1e6)
        start = end - round(self._asked.since * 1e6)
        found = self._http.json(
            "/api/traces", service=self._asked.service, limit=LOOKED_AT, raw="true", start=start,
            end=end,
        )  # fmt: skip
        return [
            Found(
                id,
                first := min(span.start for span in spans),
                max(span.end for span in spans) - first,
                _is_message(span.operation for span in spans),
            )
            for id, spans in self._read(found)
        ]

    def _read(self, found: Any) -> list[tuple[str, list[Span]]]:
        try:
            return jaeger.traces(found)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise CannotStart(f"{self._http.shown} answers, but not as Jaeger does") from None


class Tempo:
    """Tempo's HTTP API."""

    def __init__(self, http: Http, asked: Asked) -> None:
        self._http = http
        self._asked = asked

    def spans(self, id: str) -> list[Span]:
        found = self._http.json(f"/api/traces/{id}")
        try:
            received = otlp.spans(otlp.from_value(found or {}))
        except otlp.Unreadable:
            raise self._unlike() from None
        return [otlp.decode(each.origin, each.wire) for each in received if each is not None]

    def recent(self) -> list[Found]:
        end = round(time.time()) + 1
        name = self._asked.service.replace("\\", "\\\\").replace('"', '\\"')
        found = self._http.json(
            "/api/search", q=f'{{ resource.service.name = "{name}" }}', limit=LOOKED_AT,
            start=end - round(self._asked.since), end=end,
        )  # fmt: skip
        try:
            return [
                Found(
                    jaeger.padded(each["traceID"], 32),
                    int(each.get("startTimeUnixNano", 0)),
                    int(each.get("durationMs", 0)),  # left out where it is less than one
                    _is_message([operation(each.get("rootTraceName", ""), "", "nats")]),
                )
                for each in (found or {}).get("traces") or []
            ]
        except (AttributeError, LookupError, TypeError, ValueError):
            raise self._unlike() from None

    def _unlike(self) -> CannotStart:
        return CannotStart(f"{self._http.shown} answers, but not as Tempo does")


def _is_message(operations: Iterable[str]) -> bool:
    matter = Matter()
    for each in operations:
        matter.add(each)
    return matter.message


def _newest(trace: Found) -> int:
    return trace.start


def _slowest(trace: Found) -> int:
    return trace.duration
