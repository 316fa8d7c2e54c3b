"""OTLP, as any program exports it: protobuf or JSON, to spans.

JSON is the protobuf's own JSON mapping, but for the ids, which are hex digits. Tempo answers with
the plain mapping, where they are base64; both are read.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from fairlead_console.spans import LATEST, Event, Link, Origin, Span

_IDS = {"traceId": 16, "trace_id": 16, "spanId": 8, "span_id": 8, "parentSpanId": 8, "parent_span_id": 8}  # fmt: skip


class Unreadable(Exception):
    """What was sent is no OTLP; its text says why."""


class TooLarge(Exception):
    """What was sent is more than is taken."""


@dataclass(frozen=True, slots=True)
class Received:
    """One span as it came.

    Attributes:
        wire: the span in protobuf; to be read by `decode`.
    """

    trace: str
    origin: Origin
    wire: trace_pb2.Span


def gunzip(body: bytes, limit: int) -> bytes:
    """What was compressed.

    Raises:
        Unreadable: it is no gzip, or not whole.
        TooLarge: it is more than `limit` bytes.
    """
    whole = b""
    while body:
        part = zlib.decompressobj(wbits=31)
        try:
            # One byte more than is allowed shows that there is more.
            whole += part.decompress(body, limit + 1 - len(whole))
        except zlib.error as error:
            raise Unreadable(f"not gzip: {error}") from None
        if len(whole) > limit:
            raise TooLarge
        if not part.eof:
            raise Unreadable("the gzip ends in the middle")
        body = part.unused_data
    return whole


def from_protobuf(body: bytes) -> ExportTraceServiceRequest:
    """Read an export.

    Raises:
        Unreadable: it is none.
    """
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        raise Unreadable("not an ExportTraceServiceRequest in protobuf") from None


def from_json(body: bytes) -> ExportTraceServiceRequest:
    """Read an export.

    Raises:
        Unreadable: it is none.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error}") from None
    return from_value(found)


def from_value(value: Any) -> ExportTraceServiceRequest:
    """As `from_json`, for what has been parsed already.

    Raises:
        Unreadable: it is no export.
    """
    if not isinstance(value, dict):
        raise Unreadable('expected an object: {"resourceSpans": […]}')
    if "batches" in value and "resourceSpans" not in value:  # so Tempo calls them
        value = {"resourceSpans": value["batches"]}
    try:
        return ParseDict(_ids_as_base64(value), ExportTraceServiceRequest(), True)
    except (ParseError, RecursionError) as error:
        raise Unreadable(str(error)) from None


def _ids_as_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_ids_as_base64(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _id_as_base64(each, _IDS[key])
        if key in _IDS and isinstance(each, str)
        else _ids_as_base64(each)
        for key, each in value.items()
    }


def _id_as_base64(text: str, size: int) -> str:
    if len(text) != 2 * size:
        return text  # base64 already, or wrong in either form
    try:
        return base64.b64encode(bytes.fromhex(text)).decode()
    except ValueError:
        return text


def spans(request: ExportTraceServiceRequest) -> Iterator[Received | None]:
    """The spans of an export; None for one that cannot be used (`usable`)."""
    for of_process in request.resource_spans:
        resource = {pair.key: pair.value for pair in of_process.resource.attributes}
        service = resource.get("service.name", AnyValue()).string_value
        instance = resource.get("service.instance.id", AnyValue()).string_value
        for of_scope in of_process.scope_spans:
            origin = Origin(service, instance, of_scope.scope.name)
            for span in of_scope.spans:
                usable = (
                    len(span.trace_id) == 16
                    and len(span.span_id) == 8
                    and any(span.trace_id)
                    and any(span.span_id)
                    and 0 < span.start_time_unix_nano < LATEST
                    and span.end_time_unix_nano < LATEST
                )
                yield Received(span.trace_id.hex(), origin, span) if usable else None


def decode(origin: Origin, wire: trace_pb2.Span) -> Span:
    """A span that came, for its picture."""
    parent = wire.parent_span_id
    return Span(
        id=wire.span_id.hex(),
        parent=parent.hex() if any(parent) else "",
        name=wire.name,
        start=wire.start_time_unix_nano,
        end=wire.end_time_unix_nano,
        origin=origin,
        attributes=_attributes(wire.attributes),
        events=tuple(
            Event(event.name, event.time_unix_nano, _attributes(event.attributes))
            for event in wire.events
        ),
        links=tuple(
            Link(link.trace_id.hex(), link.span_id.hex(), _attributes(link.attributes))
            for link in wire.links
        ),
        error=wire.status.code == Status.STATUS_CODE_ERROR,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(each) for each in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case "bytes_value":
            return binascii.b2a_base64(value.bytes_value, newline=False).decode()
        case kind:
            return getattr(value, kind)
