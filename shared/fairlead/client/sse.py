"""Server-sent events, from bytes in whatever pieces they come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True)
class ServerEvent:
    """One event.

    Attributes:
        id: None unless this event has one of its own.
    """

    event: str
    data: str
    id: str | None = None


class EventParser:
    """Reads one stream.

    Attributes:
        retry: seconds, of the last `retry:`.
    """

    def __init__(self) -> None:
        self.retry: float | None = None
        self._rest = b""
        self._after_return = False
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """The events that this piece completes."""
        if not piece:
            return
        # A "\r" may have been the first half of "\r\n".
        more = piece[1:] if self._after_return and piece.startswith(b"\n") else piece
        self._after_return = piece.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(self._rest + more)
        for line in lines:
            if line:
                self._field(line.decode(errors="replace"))
            else:
                yield from self._end()

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value) / 1000

    def _end(self) -> Iterator[ServerEvent]:
        if self._data:
            yield ServerEvent(self._event or "message", "\n".join(self._data), self._id)
        self._event, self._data, self._id = "", [], None
