"""WebSocket bytes: uvicorn's sans-I/O protocol class, with the way to the application cut short.

uvicorn calls the ASGI application for the handshake, as usual. When that has accepted,
it hands the socket over to a `Connection`: from then on frames arrive there by a plain
call and leave from there as bytes, there is no task and no queue, and nothing of the
handshake is kept (9.4 KB a connection instead of 20-24, 5.5 µs a frame instead of 8.8).

What is used of uvicorn's private class is pinned by tests/edge/test_uvicorn_contract.py.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol

from fairlead import logs
from fairlead.protocol.problems import Close

if TYPE_CHECKING:
    from fairlead_edge.connection import Connection

log = logs.get("fairlead.edge")
_failed = logs.Seldom(log.error, "a handshake failed", burst=5)

HIGH_WATER = 64 * 1024
"""Bytes that the transport gets at a time; what is more waits with its connection."""

PING_EVERY, PONG_WITHIN = 25.0, 10.0
"""Seconds, for uvicorn's keepalive."""

CLOSE_WITHIN = 5.0
"""Seconds to read on after our close frame; closing with input unread resets, and eats the frame."""

CUT = 1006
"""The close code of a connection that ended without one (RFC 6455, 7.1.5); in no frame."""

LOOK_EVERY = 1.0
"""Seconds between two looks whether the peer of a paused connection has left."""

EXTENSION = "fairlead.protocol"
"""Under this name the scope's extensions hold the protocol object."""

# What only the handshake needs.
_HANDSHAKE = (
    "scope",
    "request",
    "response",
    "queue",
    "app",
    "app_state",
    "default_headers",
    "config",
)


class EdgeWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket on the wire. `Config(ws=EdgeWebSocketProtocol)` puts it under uvicorn."""

    connection: Connection | None = None
    """Whom it was handed over to."""

    _looking: asyncio.TimerHandle | None = None
    _lost = False
    _peer_left = False

    # The handshake

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"] = {
                **(self.scope.get("extensions") or {}),
                EXTENSION: {"it": self},
            }

    def hand_over(self, connection: Connection, max_size: int) -> None:
        """Give the socket to `connection`; call it after the accept was sent.

        Frames that came meanwhile are its first ones.

        Args:
            max_size: bytes of one message; more closes with 1009.
        """
        waiting = []
        while not self.queue.empty():
            waiting.append(self.queue.get_nowait())
        self.conn.max_message_size = max_size
        self.connection = connection
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        for name in _HANDSHAKE:
            self.__dict__.pop(name, None)
        self._slim(self.conn)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        for event in waiting:
            if event["type"] == "websocket.receive":
                text = event.get("text")
                data = text.encode() if text is not None else event["bytes"] or b""
                connection.frame_received(text is not None, data)
            elif event["type"] == "websocket.disconnect":
                self._gone()

    @staticmethod
    def _slim(conn: ServerProtocol) -> None:
        """Drop what a server's protocol object keeps for the handshake, too.

        Its parser is a generator that has the request among its locals; the one for frames,
        which it has come to by now, is the base class' own. No frame can have come before our 101.
        """
        if not conn.reader.buffer and conn.state is OPEN:
            conn.parser = Protocol.parse(conn)
            next(conn.parser)
        for name in ("origins", "available_extensions", "available_subprotocols", "id"):
            conn.__dict__.pop(name, None)

    async def run_asgi(self) -> None:
        """As uvicorn's, but a connection that was handed over outlives the application's call."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except BaseException as error:
            _failed(exc_info=error)
            self.send_500_response()
            if self.connection is not None:
                self.close(Close.INTERNAL, "")
                return
        if self.connection is None and self.close_timer is None:
            self.transport.close()

    # In

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        if connection is None:
            super().data_received(data)
            return
        conn = self.conn
        conn.receive_data(data)
        for frame in conn.events_received():
            if self.close_sent:
                if frame.opcode is Opcode.CLOSE:  # type: ignore[union-attr]  # past the handshake: frames
                    self.transport.close()
                continue
            self._frame(connection, frame)  # type: ignore[arg-type]  # likewise
        if conn.writes and not self.transport.is_closing():
            if self.clogged and conn.parser_exc is None:
                # Pongs, for one who does not read. The last ping alone may be answered (RFC 6455, 5.5.3).
                conn.data_to_send()
            else:
                self._write_out()
        if conn.parser_exc is not None and not self.close_sent:
            self._failed()

    def _frame(self, connection: Connection, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self.curr_msg_data_type = "text" if opcode is Opcode.TEXT else "bytes"
            if frame.fin:
                self._message(connection, bytes(frame.data))
            else:
                self.frames = [bytes(frame.data)]
        elif opcode is Opcode.CONT:
            self.frames.append(bytes(frame.data))
            if frame.fin:
                parts, self.frames = self.frames, []
                self._message(connection, b"".join(parts))
        elif opcode is Opcode.PONG:
            self.handle_pong(frame)
        elif opcode is Opcode.CLOSE:
            self._write_out()
            self._wait_for_close()
            self.transport.close()

    def _message(self, connection: Connection, data: bytes) -> None:
        text = self.curr_msg_data_type == "text"
        if text and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                self.close(Close.INVALID_DATA, "a text message is not UTF-8")
                return
        connection.frame_received(text, data)

    def _failed(self) -> None:
        """The peer broke RFC 6455 (or 1 MiB); websockets has made the close frame for it."""
        self._write_out()
        # The peer's close frame would not be read any more (7.1.7): the end of our side tells
        # it to close TCP, and what it still sends is read until then.
        self.transport.write_eof()
        self._wait_for_close()

    # Reading, and not

    def pause_reading(self) -> None:
        """Let TCP hold the peer back; look once a second whether it has left meanwhile."""
        if not self.read_paused and not self._peer_left and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()
            self._looking = self.loop.call_later(LOOK_EVERY, self._look)

    def resume_reading(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()
            if self.pong_timer is not None:
                # The pong may have waited unread: its time begins now.
                self.pong_timer.cancel()
                self.pong_timer = self.loop.call_later(PONG_WITHIN, self.keepalive_timeout)

    def _look(self) -> None:
        """A paused transport doesn't notice that its peer left; what it sent is still read."""
        self._looking = None
        found = self.transport.get_extra_info("socket")
        if found is not None and _peer_left(found.fileno()):
            # To the end, without a pause: that is at most what the kernel has of it by now.
            self._peer_left = True
            self.resume_reading()
            return
        self._looking = self.loop.call_later(LOOK_EVERY, self._look)

    def keepalive_timeout(self) -> None:
        if self.read_paused:
            self.pong_timer = self.loop.call_later(PONG_WITHIN, self.keepalive_timeout)
            return
        # uvicorn's would wait, perhaps for minutes, until a dead peer has read what is written.
        self.pong_timer = self.pending_ping_payload = None
        self.close(Close.INTERNAL, "no pong in time")

    # Out

    @property
    def open(self) -> bool:
        """Whether frames may be sent."""
        return self.conn.state is OPEN and not self.close_sent and not self.transport.is_closing()

    @property
    def clogged(self) -> bool:
        """Whether the transport has its 64 KiB, so that more has to wait."""
        return not self.writable.is_set()

    @property
    def close_code(self) -> int:
        """What the connection was closed with, by whoever was first; 1006 if nobody said good-bye."""
        sent, received = self.conn.close_sent, self.conn.close_rcvd
        first = received if received and self.conn.close_rcvd_then_sent in (True, None) else sent
        return int(first.code) if first is not None else CUT

    def write(self, frames: bytes) -> None:
        """Send encoded frames."""
        self.transport.write(frames)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.connection is not None:
            self.connection.writable()

    def _write_out(self) -> None:
        self.transport.write(b"".join(self.conn.data_to_send()))

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and read on until the peer's, or 5 s."""
        if not self.open:
            return
        try:
            self.conn.send_close(code, reason)
        except InvalidState:
            return
        self._write_out()
        self._wait_for_close()

    def _wait_for_close(self) -> None:
        self.close_sent = True
        self.stop_keepalive()
        self.resume_reading()
        self.close_timer = self.loop.call_later(CLOSE_WITHIN, self.transport.abort)
        self._gone()

    def shutdown(self) -> None:
        """uvicorn stops. What is handed over was closed by the drain before; this is the rest."""
        if self.connection is None:
            super().shutdown()
        else:
            self.close(Close.RESTART, "")

    # The end

    def _gone(self) -> None:
        if self.connection is not None and not self._lost:
            self._lost = True
            self.connection.closed()

    def eof_received(self) -> None:
        # None: the transport closes itself, as uvicorn's does. But first it writes what waits, and who
        # has said good-bye and does not read would stay for ever.
        if self.connection is not None and not self.close_sent:
            self._wait_for_close()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connection is None:
            super().connection_lost(exc)
            return
        self.stop_keepalive()
        self.connections.discard(self)
        self.disconnected = True
        self.writable.set()
        for timer in (self.close_timer, self._looking):
            if timer is not None:
                timer.cancel()
        self.close_timer = self._looking = None
        self._gone()


def _peer_left(descriptor: int) -> bool:
    """Whether the peer has closed its side, also while bytes of it are unread."""
    hung_up = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only resets are seen
    poll = select.poll()
    poll.register(descriptor, hung_up)
    return any(event & (hung_up | select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
