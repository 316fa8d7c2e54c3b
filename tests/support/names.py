"""A name server as a container engine has one: `edge` is the addresses of all that go by that name.

    python names.py ADDRESS FILE

answers on ADDRESS, port 53, with the addresses in FILE, a line each, as they are when it is asked.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

A = 1
"""The kind of question that is about IPv4 addresses (RFC 1035, 3.2.2)."""

FOR = 600
"""Seconds for which an answer may be kept, as Docker says it."""


def answer(query: bytes, addresses: list[str]) -> bytes:
    """The answer to a query of one question: the addresses if it is for A, nothing if it is for another kind."""
    end = query.index(b"\0", 12) + 5  # of the question: labels, a zero byte, kind, class
    found = addresses if int.from_bytes(query[end - 4 : end - 2]) == A else []
    head = query[:2] + b"\x85\x80\0\1" + len(found).to_bytes(2) + bytes(4)
    records = (
        b"\xc0\x0c\0\1\0\1" + FOR.to_bytes(4) + b"\0\4" + bytes(map(int, each.split(".")))
        for each in found
    )
    return head + query[12:end] + b"".join(records)


def tell(address: str, file: Path) -> None:
    """Answer until the process is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind((address, 53))
        print("names are told", flush=True)  # noqa: T201 -- who starts it waits for that
        while True:
            query, who = asked.recvfrom(512)
            asked.sendto(answer(query, file.read_text().split()), who)


if __name__ == "__main__":
    tell(sys.argv[1], Path(sys.argv[2]))
