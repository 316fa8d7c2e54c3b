"""The frames of a `fairlead.v1` client, as docs/protocol.md says them."""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from fairlead import values
from fairlead.protocol import frames

MAX_MESSAGE = 1024 * 1024
"""Bytes of user data in one message."""


def random_id() -> str:
    """128 random bits as hex, which is what makes a message's repetition known as one."""
    return secrets.token_hex(16)


def encoded(data: Any) -> bytes:
    """The members of a message frame that hold its data, as they stand in the frame: so it is
    encoded once, and a later change of the value changes nothing that was said.

    Raises:
        TypeError: JSON has no form for it.
        TooLarge: it has more than 1 MiB.
    """
    data_type, found = values.encode(data)
    value, is_base64 = frames.json_value(data_type, found)
    return b'"data":%b%b' % (value, b',"encoding":"base64"' if is_base64 else b"")


def message(ref: int, id: str, members: bytes) -> str:
    return (b'{"type":"message","ref":%d,"id":%b,%b}' % (ref, orjson.dumps(id), members)).decode()


def cancel(**members: int | str | None) -> str:
    """Of a message (`ref`), or of a run (`run`, and the `key` of another's)."""
    given = {name: value for name, value in members.items() if value is not None}
    return orjson.dumps({"type": "cancel", **given}).decode()


def refresh(token: str) -> str:
    return orjson.dumps({"type": "refresh", "token": token}).decode()
