from __future__ import annotations

import base64
import gzip
import json
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fairlead_console import otlp
from fairlead_console.otlp import Received, TooLarge, Unreadable
from fairlead_console.spans import Event, Link, Origin, Span
from support.export import export
from support.spans import NOON, TRACE

SPAN = Span(
    id="0aF7651916cd43dd".lower(),
    parent="00f067aa0ba902b7",
    name="receive rooms.{room}",
    start=NOON,
    end=NOON + 5,
    origin=Origin("fairlead-edge", "1f0c22aa", "fairlead"),
    attributes={
        "text": "ü", "whole": 3, "part": 0.5, "flag": True, "list": [1, "a"], "map": {"a": 1},
    },
    events=(Event("first item", NOON + 1, {"n": 1}),),
    links=(Link("f" * 32, "e" * 16, {"why": "replay"}),),
    error=True,
)  # fmt: skip

AS_JSON = {
    "resourceSpans": [
        {
            "resource": {
                "attributes": [
                    {"key": "service.name", "value": {"stringValue": "fairlead-edge"}},
                    {"key": "service.instance.id", "value": {"stringValue": "1f0c22aa"}},
                ]
            },
            "scopeSpans": [
                {
                    "scope": {"name": "fairlead", "version": "1"},
                    "spans": [
                        {
                            "traceId": TRACE.upper(),
                            "spanId": "0AF7651916CD43DD",
                            "parentSpanId": "00f067aa0ba902b7",
                            "name": "receive rooms.{room}",
                            "kind": 2,
                            "startTimeUnixNano": str(NOON),
                            "endTimeUnixNano": NOON + 5,
                            "attributes": [
                                {"key": "text", "value": {"stringValue": "ü"}},
                                {"key": "whole", "value": {"intValue": "3"}},
                                {"key": "part", "value": {"doubleValue": 0.5}},
                                {"key": "flag", "value": {"boolValue": True}},
                                {
                                    "key": "list",
                                    "value": {
                                        "arrayValue": {
                                            "values": [{"intValue": 1}, {"stringValue": "a"}]
                                        }
                                    },
                                },
                                {
                                    "key": "map",
                                    "value": {
                                        "kvlistValue": {
                                            "values": [{"key": "a", "value": {"intValue": 1}}]
                                        }
                                    },
                                },
                            ],
                            "events": [
                                {
                                    "timeUnixNano": str(NOON + 1),
                                    "name": "first item",
                                    "attributes": [{"key": "n", "value": {"intValue": "1"}}],
                                }
                            ],
                            "links": [
                                {
                                    "traceId": "F" * 32,
                                    "spanId": "E" * 16,
                                    "attributes": [
                                        {"key": "why", "value": {"stringValue": "replay"}}
                                    ],
                                }
                            ],
                            "status": {"code": 2, "message": "RuntimeError"},
                            "aFieldOfTomorrow": [1],
                        }
                    ],
                }
            ],
        }
    ]
}


def read(request: ExportTraceServiceRequest) -> list[tuple[str, Span]]:
    found = list(otlp.spans(request))
    assert all(found)
    return [(each.trace, otlp.decode(each.origin, each.wire)) for each in found if each]


def test_protobuf_is_read_whole() -> None:
    assert read(otlp.from_protobuf(export([SPAN]).SerializeToString())) == [(TRACE, SPAN)]


def test_json_is_read_whole() -> None:
    """As the specification writes it: ids in hex of either case, integers also as strings."""
    assert read(otlp.from_json(json.dumps(AS_JSON).encode())) == [(TRACE, SPAN)]


def test_json_with_ids_in_base64_is_read_too() -> None:
    """So Tempo answers, and calls them batches."""
    text = json.dumps({"batches": AS_JSON["resourceSpans"]})
    for hexadecimal in (TRACE.upper(), "0AF7651916CD43DD", "00f067aa0ba902b7", "F" * 32, "E" * 16):
        text = text.replace(hexadecimal, _base64(hexadecimal))
    text = text.replace('"kind": 2', '"kind": "SPAN_KIND_SERVER"')
    text = text.replace('"code": 2', '"code": "STATUS_CODE_ERROR"')
    assert read(otlp.from_json(text.encode())) == [(TRACE, SPAN)]


def _base64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def test_bytes_are_shown_as_base64_and_nothing_as_none() -> None:
    request = export([replace(SPAN, attributes={"raw": b"\xff\x00", "none": None})])
    ((_, span),) = read(request)
    assert span.attributes == {"raw": "/wA=", "none": None}


def test_a_root_may_write_its_parent_as_zeros() -> None:
    request = export([replace(SPAN, parent="0" * 16)])
    assert read(request)[0][1].parent == ""


def test_an_empty_export_is_one() -> None:
    assert read(otlp.from_protobuf(b"")) == read(otlp.from_json(b"{}")) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trace_id", b""),
        ("trace_id", bytes(16)),
        ("trace_id", b"x" * 8),
        ("span_id", b""),
        ("span_id", bytes(8)),
        ("start_time_unix_nano", 0),
        ("start_time_unix_nano", 2**63),
        ("end_time_unix_nano", 2**63),
    ],
)
def test_a_span_that_cannot_be_placed_is_counted(field: str, value: Any) -> None:
    request = export([SPAN, SPAN])
    setattr(request.resource_spans[0].scope_spans[0].spans[0], field, value)
    none, some = otlp.spans(request)
    assert none is None
    assert isinstance(some, Received)


@pytest.mark.parametrize("id", ["z" * 32, "xyz", ""])
def test_an_id_that_is_none_makes_a_span_of_no_use(id: str) -> None:
    text = json.dumps(AS_JSON).replace(TRACE.upper(), id)
    assert list(otlp.spans(otlp.from_json(text.encode()))) == [None]


def test_garbage_in_protobuf() -> None:
    whole = export([SPAN]).SerializeToString()
    for garbage in (b"hello", whole[:-3], b"\xff" * 100):
        with pytest.raises(Unreadable, match="not an ExportTraceServiceRequest"):
            otlp.from_protobuf(garbage)


@pytest.mark.parametrize(
    ("garbage", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "expected an object"),
        (b"null", "expected an object"),
        (b'{"resourceSpans": 1}', "resourceSpans"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": 1}]}]}]}', "name"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "JSON|recursion"),
    ],
)
def test_garbage_in_json(garbage: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        otlp.from_json(garbage)


def test_gzip_in_one_and_in_several_members() -> None:
    assert otlp.gunzip(gzip.compress(b"abc") + gzip.compress(b"def"), 6) == b"abcdef"
    assert otlp.gunzip(b"", 6) == b""


def test_gzip_that_unpacks_to_more_than_is_taken_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            otlp.gunzip(bomb, 1000)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000
    with pytest.raises(TooLarge):
        otlp.gunzip(gzip.compress(b"abc") + gzip.compress(b"d"), 3)


@pytest.mark.parametrize("garbage", [b"hello", gzip.compress(b"abc")[:-3], b"\x1f"])
def test_garbage_for_gzip(garbage: bytes) -> None:
    with pytest.raises(Unreadable, match="gzip"):
        otlp.gunzip(garbage, 1000)
