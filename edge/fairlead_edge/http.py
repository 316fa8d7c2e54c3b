"""An HTTP connection on the wire: uvicorn's, with a bound for heads, and an end for who does not read.

A mounted edge is under the server of its application; what that does about either is done there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fairlead_edge.ws import CLOSE_WITHIN

HEAD = 64 * 1024
"""Bytes of a request line and headers, and one read of the socket more; the parser has no limit."""

EXTENSION = "fairlead.http"
"""Where an ASGI scope has the connection."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\n"
    b"connection: close\r\n"
    b"\r\n"
)


class EdgeHttpProtocol(HttpToolsProtocol):
    """One HTTP connection. `Config(http=EdgeHttpProtocol)` puts it under uvicorn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head = 0
        self._refused = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head = True, 0
        self.scope["extensions"] = {EXTENSION: {"cut": self.cut}}

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head += len(data)
            if self._head > HEAD:
                self._refuse()

    def _refuse(self) -> None:
        """Say so, and read on for 5 s: who is cut off while it sends is reset, and learns nothing."""
        self._refused = True
        self.transport.write(_TOO_LARGE)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(CLOSE_WITHIN, self.transport.abort)

    def cut(self) -> None:
        """End an answer that is not complete; who has not read what was written in 5 s never will."""
        self.cycle.disconnected = True
        self.transport.close()
        self.loop.call_later(CLOSE_WITHIN, self.transport.abort)


def cutter(scope: Scope) -> Callable[[], None]:
    """What ends the connection of a request, where the server leaves that to us."""
    found = scope.get("extensions", {}).get(EXTENSION)
    return found["cut"] if found is not None else lambda: None
