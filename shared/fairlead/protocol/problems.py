"""Problem bodies (RFC 9457) and WebSocket close codes: each outcome's one home."""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import Any

MAX_MESSAGE = 1024 * 1024
"""Bytes of user data in one message, POST bodies too."""

HEADROOM = 64 * 1024
"""Bytes that NATS must carry beside a message: prefix, context, headers."""

LONGEST_DETAIL = 8 * 1024
"""Characters of a problem's detail."""

NO_WORKER = 503
CANCELLED = 499
"""Nginx's status for a request whose client gave up; no RFC has one."""

_TITLES = {CANCELLED: "Client Closed Request"}


def problem(status: int, detail: str | None = None, **members: Any) -> dict[str, Any]:
    """The body of an answer that refuses or reports.

    Args:
        status: the HTTP status, also where there is no HTTP answer to carry it.
        detail: for the one who must act on it: what was found, what was expected.
        members: further members (`errors`, `trace`, …); those that are None are left out.
    """
    try:
        title = _TITLES.get(status) or HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    if detail is not None:
        body["detail"] = presentable(detail)
    body.update((key, value) for key, value in members.items() if value is not None)
    return body


def presentable(text: str, longest: int = LONGEST_DETAIL) -> str:
    """A text that fits into an answer: valid UTF-8, where JSON has no other (RFC 8259, 8.1), and no book."""
    short = text if len(text) <= longest else text[:longest] + "…"
    return short.encode(errors="replace").decode()


class Close(enum.IntEnum):
    """Close codes (RFC 6455, 7.4). 4000-4499: reconnect; 4500-4999: do not."""

    ENDED = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED = 1003
    INVALID_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    OVERLOADED = 1013
    SLOW_CONSUMER = 4001
    POSITION_LOST = 4003
    TOKEN = 4500
    LIMIT = 4501
