"""A NATS publisher, a process of its own: `python -m bench.publisher --port P --subject S`.

The NATS protocol by hand over a blocking socket: what is published together is one write,
so that the publisher is never what limits a burst.

For a command `{"first", "count", "rate"?, "acked"?}` it says `published` with `sent`, the
ns at which each message was published, once the server (acked: the stream) has them all.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time

from bench import wire
from bench.lines import say

PIPELINE = 512
"""Publications to a stream that may be unacknowledged at a time."""

READ_WITHIN = 30.0
"""Seconds for anything that the server owes us."""

_INBOX = b"_INBOX.fairlead-bench"


class Publisher:
    """One connection to a nats-server on 127.0.0.1.

    Args:
        sampled: the part of its messages that carry a traceparent, as those do that are traced.
    """

    def __init__(self, port: int, subject: str, sampled: float) -> None:
        self._subject = subject.encode()
        self._traced_every = round(1 / sampled) if sampled else 0
        self._socket = socket.create_connection(("127.0.0.1", port), READ_WITHIN)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read_until(b"\r\n")
        self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
        self._socket.sendall(b"SUB %b 1\r\n" % _INBOX)
        self._round_trip()

    def burst(self, first: int, count: int) -> list[int]:
        """Publish all at once; when each was, in ns."""
        lines = b"".join(self._line(number, b"") for number in range(first, first + count))
        begin = time.monotonic_ns()
        self._socket.sendall(lines)
        self._round_trip()
        return [begin] * count

    def paced(self, first: int, count: int, rate: float) -> list[int]:
        """Publish `rate` messages a second, however long each takes; when each was, in ns."""
        sent = []
        begin = time.monotonic()
        for index in range(count):
            line = self._line(first + index, b"")
            time.sleep(max(0.0, begin + index / rate - time.monotonic()))
            sent.append(time.monotonic_ns())
            self._socket.sendall(line)
        self._round_trip()
        return sent

    def acked(self, first: int, count: int) -> list[int]:
        """Publish to a stream, PIPELINE at a time unacknowledged; when each was, in ns.

        Raises:
            RuntimeError: the stream refused one.
        """
        sent: list[int] = []
        acknowledged = 0
        rest = b""
        while acknowledged < count:
            room = min(count, acknowledged + PIPELINE) - len(sent)
            if room:
                start = first + len(sent)
                lines = [self._line(number, _INBOX + b" ") for number in range(start, start + room)]
                sent += [time.monotonic_ns()] * room
                self._socket.sendall(b"".join(lines))
            rest += self._read()
            if b'"error"' in rest:
                raise RuntimeError(f"the stream refuses: {rest[-200:]!r}")
            whole, _, rest = rest.rpartition(b"\r\n")
            acknowledged += whole.count(b'"seq":')
        return sent

    def _line(self, number: int, reply: bytes) -> bytes:
        if self._traced_every and number % self._traced_every == 0:
            trace = b"NATS/1.0\r\ntraceparent: 00-%032x-%016x-01\r\n\r\n" % (number + 1, 1)
            sizes = len(trace), len(trace) + wire.SIZE
            head = b"HPUB %b %b%d %d\r\n" % (self._subject, reply, *sizes)
            return head + trace + wire.payload(number) + b"\r\n"
        return b"PUB %b %b%d\r\n%b\r\n" % (self._subject, reply, wire.SIZE, wire.payload(number))

    def _round_trip(self) -> None:
        """Wait until the server has read everything."""
        self._socket.sendall(b"PING\r\n")
        self._read_until(b"PONG\r\n")

    def _read_until(self, end: bytes) -> None:
        found = b""
        while not found.endswith(end):
            found += self._read()

    def _read(self) -> bytes:
        """What has come; the server's pings are answered."""
        found = self._socket.recv(65536)
        if not found:
            raise ConnectionError("nats-server has closed the connection")
        if b"PING\r\n" in found:
            self._socket.sendall(b"PONG\r\n")
            found = found.replace(b"PING\r\n", b"")
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--subject", required=True)
    parser.add_argument("--sampled", type=float, default=0.0)
    args = parser.parse_args()
    publisher = Publisher(args.port, args.subject, args.sampled)
    say("open")
    for line in sys.stdin:
        command = json.loads(line)
        first, count = command["first"], command["count"]
        if command.get("acked"):
            sent = publisher.acked(first, count)
        elif command.get("rate"):
            sent = publisher.paced(first, count, command["rate"])
        else:
            sent = publisher.burst(first, count)
        say("published", sent=sent)


if __name__ == "__main__":
    main()
