"""The console's HTTP interface for traces: takes spans of any OTLP program, shows their pictures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead import logs
from fairlead.admin import json_response, problem_response, read_body
from fairlead_console import otlp
from fairlead_console.store import Order, Store, Trace
from fairlead_console.waterfall import Waterfall, waterfall

log = logs.get("fairlead.console")
_refused = logs.Seldom(log.warning, "an export was refused", ["status"])
_of_no_use = logs.Seldom(log.warning, "spans of an export were of no use: ids or times are wrong")

MAX_BODY = 8 * 1024 * 1024
"""Bytes of one export, unpacked: some 20,000 spans."""

MOST = 100
"""Traces in one answer."""

ORDERS: dict[str, Order] = {"last": "last", "slow": "slow"}

INVALID_ARGUMENT, RESOURCE_EXHAUSTED = 3, 8
"""Codes of google.rpc.Status, which is how OTLP says what is wrong."""


@dataclass(frozen=True, slots=True)
class _Encoding:
    """One of the two in which OTLP comes over HTTP, and is answered."""

    media_type: str
    read: Callable[[bytes], ExportTraceServiceRequest]
    write: Callable[[Message], bytes]
    status: Callable[[int, str], bytes]


def _as_json(message: Message) -> bytes:
    return orjson.dumps(MessageToDict(message))


def _status_as_json(code: int, text: str) -> bytes:
    return orjson.dumps({"code": code, "message": text})


def _as_protobuf(message: Message) -> bytes:
    return message.SerializeToString()


def _status_as_protobuf(code: int, text: str) -> bytes:
    # Two fields of a message whose package nobody else here needs; lengths below 128 are a byte.
    said = text.encode("ascii", "replace")[:120]
    return bytes([1 << 3, code, 2 << 3 | 2, len(said)]) + said


ENCODINGS = {
    each.media_type: each
    for each in (
        _Encoding("application/x-protobuf", otlp.from_protobuf, _as_protobuf, _status_as_protobuf),
        _Encoding("application/json", otlp.from_json, _as_json, _status_as_json),
    )
}


class Collector:
    """Takes spans into a store, and shows what is there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        return [
            Route("/v1/traces", self.take, methods=["POST"]),
            Route("/api/traces", self.list),
            Route("/api/traces/{id}", self.show),
        ]

    async def take(self, request: Request) -> Response:
        """`POST /v1/traces`: an export in protobuf or JSON, plain or as gzip."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = ENCODINGS.get(media_type)
        packed = request.headers.get("content-encoding", "identity").lower()
        if encoding is None or packed not in ("identity", "gzip"):
            # Others would also let any page of a browser send here, unasked.
            return problem_response(
                415, f"takes {' or '.join(ENCODINGS)}, plain or with Content-Encoding: gzip"
            )

        def refuse(status: int, code: int, text: str) -> Response:
            # Not the text: it may quote what was sent.
            _refused(status=status)
            return Response(encoding.status(code, text), status, media_type=media_type)

        try:
            body = await read_body(request, MAX_BODY)
            if body is None:
                raise otlp.TooLarge
            if packed == "gzip":
                body = otlp.gunzip(body, MAX_BODY)
            export = encoding.read(body)
        except ClientDisconnect:
            return Response(status_code=400)
        except otlp.TooLarge:
            return refuse(413, RESOURCE_EXHAUSTED, f"an export is at most {MAX_BODY} bytes")
        except otlp.Unreadable as error:
            return refuse(400, INVALID_ARGUMENT, str(error))
        answer = encoding.write(self._keep(export))
        return Response(answer, media_type=media_type)

    def _keep(self, export: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        answer = ExportTraceServiceResponse()
        refused = 0
        for received in otlp.spans(export):
            if received is None:
                refused += 1
            else:
                self._store.add(received)
        if refused:
            _of_no_use(spans=refused)
            answer.partial_success.rejected_spans = refused
            answer.partial_success.error_message = (
                "trace_id must have 16 bytes, span_id 8, not all of them 0; the times are ns since "
                "1970, the start not 0"
            )
        return answer

    async def list(self, request: Request) -> Response:
        """`GET /api/traces?order=last|slow&limit=N`: pictures without their rows, best first."""
        order = ORDERS.get(request.query_params.get("order", "last"))
        if order is None:
            return problem_response(400, "order is last or slow")
        limit = 20
        with contextlib.suppress(ValueError):
            limit = int(request.query_params.get("limit", limit))
        found = self._store.best(order, min(max(limit, 1), MOST))
        made = await asyncio.to_thread(lambda: [_summary(trace) for trace in found])
        return json_response(200, {"traces": made, "held": len(self._store)})

    async def show(self, request: Request) -> Response:
        """`GET /api/traces/{id}`: the picture of a trace; the first digits of its id will do."""
        prefix = request.path_params["id"].lower()
        if not 1 <= len(prefix) <= 32 or set(prefix) - set("0123456789abcdef"):
            return problem_response(400, "a trace has an id of 32 hex digits")
        match self._store.find(prefix):
            case []:
                return problem_response(
                    404, f"no trace begins with {prefix}; the newest {len(self._store)} are here"
                )
            case [trace]:
                return json_response(200, await asyncio.to_thread(picture, trace))
            case several:
                ids = [trace.id for trace in several]
                return problem_response(409, f"several traces begin with {prefix}", traces=ids)


def picture(trace: Trace) -> Waterfall:
    return waterfall(trace.id, trace.spans(), trace.more)


def _summary(trace: Trace) -> dict[str, Any]:
    made = picture(trace)
    return {key: value for key, value in made.items() if key not in ("rows", "notes")}
