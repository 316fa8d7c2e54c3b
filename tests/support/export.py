"""What OTLP programs send, for the tests of those who take it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from fairlead_console.spans import Span
from support.spans import TRACE


def export(spans: Iterable[Span], trace: str = TRACE) -> ExportTraceServiceRequest:
    """An export that holds these spans."""
    made = ExportTraceServiceRequest()
    for span in spans:
        of_process = made.resource_spans.add()
        of_process.resource.attributes.extend(
            _pairs(
                {
                    "service.name": span.origin.service,
                    "service.instance.id": span.origin.instance,
                    "telemetry.sdk.name": "opentelemetry",
                }
            )
        )
        of_scope = of_process.scope_spans.add()
        of_scope.scope.name = span.origin.scope
        wire = of_scope.spans.add()
        wire.trace_id = bytes.fromhex(trace)
        wire.span_id = _id(span.id)
        wire.parent_span_id = _id(span.parent) if span.parent else b""
        wire.name = span.name
        wire.start_time_unix_nano, wire.end_time_unix_nano = span.start, span.end
        wire.attributes.extend(_pairs(span.attributes))
        wire.status.code = Status.STATUS_CODE_ERROR if span.error else Status.STATUS_CODE_UNSET
        for event in span.events:
            said = wire.events.add(name=event.name, time_unix_nano=event.time)
            said.attributes.extend(_pairs(event.attributes))
        for link in span.links:
            to = wire.links.add(
                trace_id=bytes.fromhex(link.trace), span_id=bytes.fromhex(link.span)
            )
            to.attributes.extend(_pairs(link.attributes))
    return made


def _id(short: str) -> bytes:
    return bytes.fromhex(short.rjust(16, "0"))


def _pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    made = AnyValue()
    match value:
        case bool():
            made.bool_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case str():
            made.string_value = value
        case bytes():
            made.bytes_value = value
        case list():
            made.array_value.values.extend(map(_value, value))
        case dict():
            made.kvlist_value.values.extend(_pairs(value))
    return made
