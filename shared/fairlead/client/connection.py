"""One `fairlead.v1` connection that comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack, overload

import orjson

from fairlead.client import frames, token, urls
from fairlead.client.clock import Moment
from fairlead.client.emitter import Emitter, Listener
from fairlead.client.errors import FairleadError, ours, refused
from fairlead.client.libraries import websockets
from fairlead.client.queue import Queue
from fairlead.client.retry import Backoff, Retry, is_final, may_return
from fairlead.client.sent import Message, Sent
from fairlead.client.session import EVENTS, End, Gap, Presence, Restart, Session
from fairlead.client.token import TokenHook
from fairlead.errors import TooLarge
from fairlead.protocol.frames import SUBPROTOCOL

PATIENCE = 20.0
"""Seconds for a handshake: policies and a worker are asked in it."""

FAREWELL = 2.0
"""Seconds that a server has to answer our close."""

SETTLED = 5.0
"""So many seconds up, and the next loss begins with the first pause again."""

_NO_CLOSE_FRAME = 1006

Status = Literal["connecting", "open", "waiting", "reconnecting", "closed"]
"""
- connecting, reconnecting: not there yet, not there any more
- open: the server has said welcome
- waiting: open, but there is no worker for a message yet
- closed: for good
"""


@dataclass(frozen=True)
class StatusChange:
    """How a connection is.

    Attributes:
        pause: seconds until the next attempt, when reconnecting.
        error: why it is closed, unless that was asked for or the run has ended.
    """

    status: Status
    pause: float | None = None
    error: FairleadError | None = None


class ConnectOptions(TypedDict, total=False):
    """Of `connect`.

    Attributes:
        token: asked before each attempt, so that it is fresh; it travels as `?access_token=`.
        cursor: begin where an earlier connection was: its `cursor`.
        headers: of the handshake.
        queue: messages that may be on their way at once, sent or not; 1000. Beyond that `send`
            fails.
        buffer: messages that may wait to be read; 1000. Beyond that the oldest are dropped, with
            a `gap`.
        retry: the pauses between attempts.
    """

    token: TokenHook | None
    cursor: str | None
    headers: Mapping[str, str]
    queue: int
    buffer: int
    retry: Retry


class _Over(Exception):
    """There is no use in coming back; `error` says why, None after the end of the run."""

    def __init__(self, error: FairleadError | None) -> None:
        super().__init__(error)
        self.error = error


class Connection:
    """One connection that comes back by itself; made by `connect`, used with `async with`.

    Iterating over it yields what the room and the connection's run say; each message is read by
    one reader. The loop ends with the connection, and raises where that was refused.
    """

    def __init__(self, url: str, options: ConnectOptions) -> None:
        self._url = urls.over_websocket(url)
        self._options = options
        self._buffer = options.get("buffer", 1000)
        self._events = Emitter("status", *EVENTS)
        self._messages: Queue[Message] = Queue(
            self._buffer, lambda: self.emit("gap", Gap(self.cursor, "unread"))
        )
        self._session = Session(self, options.get("cursor"))
        self._backoff = Backoff(options.get("retry"))
        self._status: Status = "connecting"
        self._error: FairleadError | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._at_once = asyncio.Event()
        self._socket: websockets.ClientConnection | None = None
        # A welcome's window bounds it: each message, and its cancel, stand in it once.
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"fairlead {self._url}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def status(self) -> Status:
        return self._status

    @property
    def id(self) -> str | None:
        """The connection's id, once the server has said welcome; another after each reconnect."""
        return self._session.connection

    @property
    def cursor(self) -> str | None:
        """Of the newest message that came, read or not: where the next attempt goes on.

        A program that keeps its place for a later `connect`, over its own end, keeps instead the
        `id` of the last message that it has handled: what waits to be read is lost with it.
        """
        return self._session.cursor

    @overload
    def on(
        self, name: Literal["status"], listener: Callable[[StatusChange], object]
    ) -> Callable[[], None]: ...
    @overload
    def on(self, name: Literal["gap"], listener: Callable[[Gap], object]) -> Callable[[], None]: ...
    @overload
    def on(
        self, name: Literal["restart"], listener: Callable[[Restart], object]
    ) -> Callable[[], None]: ...
    @overload
    def on(
        self, name: Literal["presence"], listener: Callable[[Presence], object]
    ) -> Callable[[], None]: ...
    @overload
    def on(
        self, name: Literal["waiting"], listener: Callable[[Sent], object]
    ) -> Callable[[], None]: ...
    @overload
    def on(self, name: Literal["end"], listener: Callable[[End], object]) -> Callable[[], None]: ...
    @overload
    def on(
        self, name: Literal["error"], listener: Callable[[FairleadError], object]
    ) -> Callable[[], None]: ...
    def on(self, name: str, listener: Listener) -> Callable[[], None]:
        """Have a plain function called with each event of a name; returns one that ends it.

        `error` is what failed and belongs to no message, or to one that nobody awaits or iterates
        over.

        Raises:
            ValueError: there is no such event.
            TypeError: the listener is a coroutine function, which nobody would await.
        """
        return self._events.on(name, listener)

    def send(self, data: Any, *, id: str | None = None, traceparent: str | None = None) -> Sent:
        """Have a message executed, however many connections that takes.

        A str stays text, bytes stay bytes, anything else is JSON. It never waits for the
        connection; what is too large, or too much, fails without being sent.

        Args:
            id: unique among all messages, at most 128 characters; a random one by default.
            traceparent: of the trace that this message belongs to (W3C Trace Context).

        Raises:
            TypeError: JSON has no form for the data.
        """
        if self._task is None:
            raise RuntimeError("not connected; use `async with connect(…) as connection`")
        id = id or frames.random_id()
        limit = self._options.get("queue", 1000)
        failure: dict[str, Any] = {}
        members = b""
        try:
            members = frames.encoded(data)
        except TooLarge as error:
            failure = {"status": 413, "detail": str(error)}
        if traceparent:
            members += b',"traceparent":' + orjson.dumps(traceparent)
        if self._status == "closed":
            failure = {"detail": "the connection is closed"}
        elif self._session.pending >= limit:
            failure = {"detail": f"{limit} messages are on their way already"}
        sent = Sent(id, members, self._buffer, self._session.cancel)
        if failure:
            self._fail(sent, FairleadError(failure, id=id))
        else:
            self._session.send(sent)
        return sent

    def _fail(self, sent: Sent, error: FairleadError) -> None:
        def tell_whoever_listens() -> None:
            if not sent.watched:
                self.emit("error", error)

        sent.failed(error)
        # Not before the caller had the time to await it.
        asyncio.get_running_loop().call_soon(tell_whoever_listens)

    async def cancel(self, run: str, key: str | None = None) -> None:
        """Stop a run that this connection may stop: its own, or with the key of another's.

        Where the server refuses it, an `error` event says so.

        Raises:
            FairleadError: the connection is not open, so the server was not told.
        """
        if not await self._say(frames.cancel(run=run, key=key)):
            raise ours(
                f"the connection is not open, so nobody was told to stop run {run}: the run may "
                "go on; once it is open again, cancel it again"
            )

    async def refresh(self, token: str | None = None) -> None:
        """Give the server a new token before the old one expires; without one, the option
        `token` is asked."""
        fresh = token or await self._ask()
        # While away there is nothing to do: the next attempt asks for a token of its own.
        if fresh is not None:
            await self._say(frames.refresh(fresh))

    def reconnect(self) -> None:
        """Do not wait for the end of the pause."""
        self._at_once.set()

    async def close(self) -> None:
        """Close for good. What is not acknowledged by now fails, though it may have been
        executed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        # A task that was cancelled before its first step has not said it.
        self._finish(None)

    async def wait_closed(self) -> FairleadError | None:
        """Wait until it is closed for good; the reason if there is one."""
        await self._ended.wait()
        return self._error

    def __aiter__(self) -> Queue[Message]:
        return self._messages

    # What the session decides; see session.Host.

    def write(self, frame: str) -> None:
        self._outgoing.put_nowait(frame)

    def deliver(self, message: Message) -> None:
        self._messages.push(message)

    def discard(self, run: str) -> None:
        self._messages.remove(lambda message: message.run == run)

    def emit(self, name: str, detail: object) -> None:
        self._events.emit(name, detail)

    def now(self) -> Moment:
        return Moment.now()

    # The connections, one after the other.

    async def _run(self) -> None:
        error: FairleadError | None = None
        try:
            while True:
                code = await self._attempt()
                pause = self._backoff.next(code)
                self._at_once.clear()
                self._become(StatusChange("reconnecting", pause))
                await self._wait(pause)
        except _Over as over:
            error = over.error
        except Exception as unexpected:  # such as a port or a host that there cannot be
            error = ours(f"no connection can be made to {self._url}: {unexpected!r}")
            error.__cause__ = unexpected
        finally:
            self._finish(error)

    async def _attempt(self) -> int | None:
        """One connection, from the question for a token to its loss.

        Returns:
            The close code, or None where it did not come so far.

        Raises:
            _Over: it was the last one.
        """
        try:
            access_token = await self._ask()
        except Exception as error:  # the application's code: it may know better next time
            self.emit("error", ours(f"no token: {error}"))
            return None
        url = urls.with_query(self._url, cursor=self.cursor, access_token=access_token)
        self._outgoing = asyncio.Queue()
        try:
            async with (
                asyncio.timeout(PATIENCE) as patience,
                websockets.connect(
                    url,
                    subprotocols=[websockets.Subprotocol(SUBPROTOCOL)],
                    additional_headers=self._options.get("headers"),
                    compression=None,
                    open_timeout=None,
                    close_timeout=FAREWELL,
                    max_size=None,  # how large a room's message may be, its publisher's NATS says
                ) as socket,
            ):
                return await self._converse(socket, patience)
        except websockets.InvalidStatus as error:
            self._refused(error)
        except (OSError, websockets.WebSocketException):
            pass  # nobody is there, or what is there is no edge: maybe later
        return None

    def _refused(self, error: websockets.InvalidStatus) -> None:
        answer = error.response
        why = refused(answer.status_code, answer.headers, bytes(answer.body))
        if is_final(why.status):
            raise _Over(why)
        self._backoff.after = why.retry_after

    async def _converse(
        self, socket: websockets.ClientConnection, patience: asyncio.Timeout
    ) -> int:
        if socket.subprotocol != SUBPROTOCOL:
            raise _Over(ours(f"{self._url} does not speak {SUBPROTOCOL}: is it a websocket "
                             "workflow of Fairlead?"))  # fmt: skip
        malformed: FairleadError | None = None
        up_since: Moment | None = None
        self._socket = socket
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(socket))
                try:
                    async for frame in self._frames(socket):
                        self._session.received(orjson.loads(frame))
                        if self._session.open:
                            if up_since is None:
                                patience.reschedule(None)
                                up_since = self.now()
                            waits = self._session.waiting
                            self._become(StatusChange("waiting" if waits else "open"))
                except websockets.ConnectionClosed:
                    pass  # how, the socket's close code says
                except Exception as error:  # it lacks something, or that is of another kind
                    malformed = ours(
                        f"the server said what is no frame of {SUBPROTOCOL}: {error!r}"
                    )
                writer.cancel()
        except asyncio.CancelledError:
            await socket.close()  # with 1000; the end of `async with` would say 1011
            raise
        finally:
            self._socket = None
            self._session.lost()
        if malformed is not None:
            raise _Over(malformed)
        if up_since is not None and self.now().since(up_since) >= SETTLED:
            self._backoff.settled()
        return self._lost(
            socket.close_code or _NO_CLOSE_FRAME, socket.close_reason or "", up_since is not None
        )

    async def _frames(self, socket: websockets.ClientConnection) -> AsyncIterator[str | bytes]:
        """Each frame; whoever reads what they bring has a turn before that can be too much.

        What came in one piece from the network is handed out without a turn of the loop.
        """
        turn = max(1, self._buffer // 2)
        number = 0
        async for frame in socket:
            yield frame
            number += 1
            if number % turn == 0:
                await asyncio.sleep(0)

    def _lost(self, code: int, reason: str, opened: bool) -> int:
        if opened and code == websockets.CloseCode.NORMAL_CLOSURE:
            raise _Over(None)
        if not may_return(code):
            raise _Over(ours(reason or f"closed with {code}", code=code))
        # Of this loss only: the attempts that follow may be lost before they hear anything.
        self._backoff.within, self._session.within = self._session.within, None
        return code

    async def _write(self, socket: websockets.ClientConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await socket.send(await self._outgoing.get())

    async def _say(self, frame: str) -> bool:
        """Send a frame that is of this moment; whether there was anybody to send it to."""
        if self._socket is not None and self._session.open:
            with contextlib.suppress(websockets.ConnectionClosed):
                await self._socket.send(frame)
                return True
        return False

    async def _ask(self) -> str | None:
        return await token.ask(self._options.get("token"))

    async def _wait(self, pause: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._at_once.wait()

    def _finish(self, error: FairleadError | None) -> None:
        if self._status == "closed":
            return
        self._error = error
        self._become(StatusChange("closed", error=error))
        self._session.ended(error or ours("the connection was closed before the answer came"))
        self._messages.end(error)
        self._ended.set()

    def _become(self, change: StatusChange) -> None:
        if change.status != self._status or change.pause is not None:
            self._status = change.status
            self.emit("status", change)


def connect(url: str, **options: Unpack[ConnectOptions]) -> Connection:
    """Open a `fairlead.v1` connection: `async with connect(url) as room: …`.

    It is there at once, and says how it is by its `status`. The options are those of
    `ConnectOptions`.

    Args:
        url: with `ws:`, `wss:`, `http:` or `https:`.

    Raises:
        ValueError: the URL is none of these.
    """
    return Connection(url, options)
