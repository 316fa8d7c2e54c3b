"""Programs that have traces, over real HTTP: they answer in the shapes of Jaeger and Tempo."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.protobuf.json_format import MessageToDict

from fairlead_console.spans import Span
from support.export import export

Query = Mapping[str, str]
Answer = tuple[int, str, Any]
"""Status, content type, and the body: as text, or as what is sent in JSON."""

ANSWERS = Path(__file__).parents[1] / "console" / "answers"

HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


@dataclass
class TraceStore:
    """One that runs.

    Attributes:
        url: where.
        asked: path, query and headers of each request so far.
    """

    url: str
    asked: list[tuple[str, Query, Mapping[str, str]]] = field(default_factory=list)


@contextmanager
def answering(answer: Callable[[str, Query], Answer]) -> Iterator[TraceStore]:
    """Answer GETs, until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            made.asked.append((parts.path, query, dict(self.headers)))
            status, kind, body = answer(parts.path, query)
            raw = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", body)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = TraceStore(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def jaeger(path: str, query: Query) -> Answer:
    """What Jaeger 1.76 answered (answers/jaeger-search.json was recorded), and how it refuses."""
    recorded = json.loads((ANSWERS / "jaeger-search.json").read_text())
    nothing = {"data": None, "total": 0, "limit": 0, "offset": 0}
    if path == "/api/traces":
        if "service" not in query:
            why = {"code": 400, "msg": "parameter 'service' is required"}
            return 400, TEXT, {**nothing, "errors": [why]}
        assert int(query["start"]) < int(query["end"])
        found = [each for each in recorded["data"] if query["service"] in _services(each)]
        return 200, JSON, {**recorded, "data": found[: int(query["limit"])]}
    if path.startswith("/api/traces/"):
        id = path.rpartition("/")[2]
        found = [each for each in recorded["data"] if each["traceID"] == id]
        if not found:
            why = {"code": 404, "msg": "trace not found"}
            return 404, TEXT, {**nothing, "errors": [why]}
        return 200, JSON, {**recorded, "data": found}
    return 200, HTML, "<!DOCTYPE html><title>Jaeger UI</title>"


def _services(trace: Mapping[str, Any]) -> set[str]:
    return {process["serviceName"] for process in trace["processes"].values()}


class Tempo:
    """Tempo's answers, in the shapes of its documentation.

    Its ids are base64 in a trace and hex digits in a search, without the zeros they begin with.
    """

    def __init__(self, traces: Mapping[str, Sequence[Span]], *, echo: bool = True) -> None:
        self._traces = traces
        self._echo = echo

    def __call__(self, path: str, query: Query) -> Answer:
        if path == "/api/echo" and self._echo:
            return 200, TEXT, "echo"
        if path == "/api/search":
            return 200, JSON, {"traces": self._found(query), "metrics": {"totalBlocks": 1}}
        id = path.rpartition("/")[2]
        if path.startswith("/api/traces/") and id in self._traces:
            whole = MessageToDict(export(self._traces[id], id))
            assert base64.b64encode(bytes.fromhex(id)).decode() in json.dumps(whole)
            return 200, JSON, {"batches": whole["resourceSpans"]}
        return 404, TEXT, "404 page not found\n"

    def _found(self, query: Query) -> list[dict[str, Any]]:
        found = []
        for id, spans in self._traces.items():
            first = min(spans, key=lambda span: span.start)
            lasts = (max(span.end for span in spans) - first.start) // 1_000_000
            asked = query.get("q", "")
            if any(f'resource.service.name = "{s.origin.service}"' in asked for s in spans):
                found.append(
                    {
                        "traceID": id.lstrip("0"),
                        "rootServiceName": first.origin.service,
                        "rootTraceName": first.name,
                        "startTimeUnixNano": str(first.start),
                        **({"durationMs": lasts} if lasts else {}),
                    }
                )
        return found[: int(query.get("limit", 20))]
