"""The JSON of Jaeger's HTTP API, as its page reads it: from it to spans.

Times are in µs. What OpenTelemetry calls resource, scope, status and links, it writes as the tags
of a process, as the tags `otel.scope.name` and `error`, and as references.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairlead_console.spans import Event, Link, Origin, Span


def traces(found: Any) -> list[tuple[str, list[Span]]]:
    """Each trace of an answer, with its id in full.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is not of that form.
    """
    data = found.get("data") if isinstance(found, dict) else None
    made: list[tuple[str, list[Span]]] = []
    for trace in data or []:
        processes = trace.get("processes") or {}
        spans = [_span(span, processes.get(span.get("processID"), {})) for span in trace["spans"]]
        if spans:
            made.append((padded(trace["traceID"], 32), spans))
    return made


def _span(span: Mapping[str, Any], process: Mapping[str, Any]) -> Span:
    tags = _tags(span.get("tags"))
    mine = padded(span["traceID"], 32)
    parent = padded(span["parentSpanID"], 16) if span.get("parentSpanID") else ""
    links: list[Link] = []
    for reference in span.get("references") or []:
        trace, id = padded(reference["traceID"], 32), padded(reference["spanID"], 16)
        if not parent and trace == mine and reference.get("refType") == "CHILD_OF":
            parent = id
        elif (trace, id) != (mine, parent):
            links.append(Link(trace, id))
    start = int(span["startTime"]) * 1000
    return Span(
        id=padded(span["spanID"], 16),
        parent=parent,
        name=str(span.get("operationName", "")),
        start=start,
        end=start + int(span.get("duration", 0)) * 1000,
        origin=Origin(
            str(process.get("serviceName", "")),
            str(_tags(process.get("tags")).get("service.instance.id", "")),
            str(tags.pop("otel.scope.name", "") or tags.pop("otel.library.name", "")),
        ),
        attributes=tags,
        events=tuple(_event(log) for log in span.get("logs") or []),
        links=tuple(links),
        error=tags.get("error") in (True, "true"),
    )


def _event(log: Mapping[str, Any]) -> Event:
    fields = _tags(log.get("fields"))
    return Event(str(fields.pop("event", "")), int(log["timestamp"]) * 1000, fields)


def _tags(pairs: Iterable[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {str(pair["key"]): pair.get("value") for pair in pairs or []}


def padded(text: str, digits: int) -> str:
    """An id in full; zeros that it begins with may be left out."""
    return str(text).lower().rjust(digits, "0")
