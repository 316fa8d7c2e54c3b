"""NATS headers as bytes: read where somebody asks for them, written where a message has some."""

from __future__ import annotations

from collections.abc import Mapping


def parse_headers(raw: bytes) -> dict[str, str]:
    """NATS headers as a dict; the status of a line such as `NATS/1.0 503` is under ""."""
    if not raw:
        return {}
    first, *lines = raw.split(b"\r\n")
    found = {"": first[9:12].decode()} if len(first) > 9 else {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            found[name.strip().decode("ascii", "replace")] = value.strip().decode(
                "utf-8", "replace"
            )
    return found


def no_responders(headers: bytes) -> bool:
    return headers.startswith(b"NATS/1.0 503")


def encode_headers(headers: Mapping[str, str]) -> bytes:
    lines = [b"NATS/1.0\r\n"]
    for name, value in headers.items():
        if "\r" in value or "\n" in value:
            raise ValueError(f"header {name} holds a line break")
        lines.append(f"{name}: {value}\r\n".encode())
    lines.append(b"\r\n")
    return b"".join(lines)
