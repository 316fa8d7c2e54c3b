"""How what `execute` returns or yields becomes bytes: one rule for both transports."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel

from fairlead.errors import TooLarge
from fairlead.protocol.envelope import DataType
from fairlead.protocol.problems import MAX_MESSAGE


def _default(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def encode(value: Any) -> tuple[DataType, bytes]:
    """`str` is text, `bytes` is binary, anything else is JSON.

    Raises:
        TooLarge: it has more than 1 MiB.
        TypeError: JSON has no form for it (orjson's rules; pydantic models and
            dataclasses have one), or it is a str that UTF-8 has no form for.
    """
    data_type, data = _encoded(value)
    if len(data) > MAX_MESSAGE:
        raise TooLarge(f"{len(data)} bytes; at most {MAX_MESSAGE} may be sent at once")
    return data_type, data


def _encoded(value: Any) -> tuple[DataType, bytes]:
    if isinstance(value, str):
        try:
            return DataType.TEXT, value.encode()
        except UnicodeEncodeError as error:
            raise TypeError(f"a str with half a surrogate pair cannot be sent: {error}") from error
    if isinstance(value, bytes | bytearray | memoryview):
        return DataType.BINARY, bytes(value)
    try:
        return DataType.JSON, orjson.dumps(value, default=_default)
    except orjson.JSONEncodeError as error:
        raise TypeError(
            f"a {type(value).__name__} cannot be sent: {error}; "
            "return str, bytes, a pydantic model, a dataclass or plain JSON data"
        ) from error


def decode(data_type: DataType, data: bytes) -> Any:
    """The inverse: str, bytes, or the JSON value."""
    if data_type is DataType.TEXT:
        return data.decode()
    if data_type is DataType.BINARY:
        return data
    return orjson.loads(data)
