"""Streams of server-sent events: runs, and rooms that are only read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import orjson

from fairlead import values
from fairlead.client import token, urls
from fairlead.client.emitter import Emitter, Listener
from fairlead.client.errors import FairleadError, ours, refused
from fairlead.client.libraries import httpx
from fairlead.client.retry import Backoff, Retry, is_final
from fairlead.client.session import Gap, Restart
from fairlead.client.sse import EventParser, ServerEvent
from fairlead.client.token import TokenHook
from fairlead.protocol.envelope import DataType

PATIENCE = 20.0
"""Seconds to reach a server."""

SILENCE = 45.0
"""Seconds without a byte, after which the stream is taken for cut: a server says something each
15 s."""

TIMEOUT = httpx.Timeout(PATIENCE, read=SILENCE)
"""Of each request, whoever's client makes it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One item of a stream.

    Attributes:
        data: a str, bytes, or what JSON said.
        event: "message", or the name that the workflow gave it.
        id: its cursor, where the stream can be resumed.
        attempt: 1; more after a restart, when what the earlier attempts said is to be discarded.
    """

    data: Any
    event: str = "message"
    id: str | None = None
    attempt: int = 1


@dataclass(frozen=True)
class RunStatus:
    """How a stream is.

    Attributes:
        pause: seconds until the next attempt, when reconnecting.
    """

    status: Literal["open", "reconnecting", "closed"]
    pause: float | None = None


class RunOptions(TypedDict, total=False):
    """Of `run` and `subscribe`.

    Attributes:
        method: GET, or POST where there is a body.
        body: a str or bytes as they are, anything else as JSON.
        headers: of each request.
        cursor: begin after this one: the `id` of an earlier item.
        format: as the trigger says it; "text" leaves the data as it is.
        token: asked before each request; it travels as `Authorization: Bearer`.
        retry: the pauses between attempts.
        client: an httpx client of yours, for a proxy or certificates; it stays open. Its timeouts
            are not used: they are too short for a workflow that thinks.
    """

    method: str
    body: Any
    headers: Mapping[str, str]
    cursor: str | None
    format: Literal["json", "text"]
    token: TokenHook | None
    retry: Retry
    client: httpx.AsyncClient


class Run:
    """A stream of server-sent events; made by `run` or `subscribe`, read with `async for`, once.

    It is asked for when it is first read, and read as fast as the loop goes, so that a slow
    reader slows the workflow down. A loop that is left early closes the stream, and the workflow's
    `on_disconnect` decides what becomes of the run. It ends with the run, and raises a
    FairleadError where that failed. After a cut it goes on by itself where the server keeps the
    run's output, and raises where that is kept no longer (410); another run is never begun.

    Attributes:
        id, key: of the run; with them others attach to it and cancel it. None until known.
        trace: a whole traceparent.
        cursor: of the newest item.
        attempt: 1; more after a restart.
    """

    def __init__(self, url: str, options: RunOptions, persistent: bool) -> None:
        self.id: str | None = None
        self.key: str | None = None
        self.trace: str | None = None
        self.cursor = options.get("cursor")
        self.attempt = 1
        self._url = urls.over_http(url)
        self._options = options
        self._persistent = persistent
        self._events = Emitter("status", "gap", "restart")
        self._backoff = Backoff(options.get("retry"))
        # What the application attaches to has begun already: to ask again begins nothing.
        self._attached = urls.has(self._url, "run")
        self._kept = False
        self._begun = False
        self._over = False
        self._interruptible: asyncio.Timeout | None = None
        self._asked: asyncio.Task[httpx.Response] | None = None

    @overload
    def on(
        self, name: Literal["status"], listener: Callable[[RunStatus], object]
    ) -> Callable[[], None]: ...
    @overload
    def on(self, name: Literal["gap"], listener: Callable[[Gap], object]) -> Callable[[], None]: ...
    @overload
    def on(
        self, name: Literal["restart"], listener: Callable[[Restart], object]
    ) -> Callable[[], None]: ...
    def on(self, name: str, listener: Listener) -> Callable[[], None]:
        """Have a plain function called with each event of a name; returns one that ends it."""
        return self._events.on(name, listener)

    def __aiter__(self) -> AsyncGenerator[Item, None]:
        if self._begun:
            raise RuntimeError("a stream is read once; call run() or subscribe() again")
        self._begun = True
        # Held by nobody but the loop: so that to leave the loop is to close it, at once.
        return self._read()

    async def cancel(self) -> None:
        """Stop the run on the server, wherever it is; the loop then ends, and yields nothing more.

        Which run it is, the head of the answer says: until that has come, it is waited for. What
        nobody has begun to read was not asked for, and never is.

        Raises:
            FairleadError: the server refuses, or was not reached: the run may go on.
        """
        self._over = True
        failure: FairleadError | None = None
        if self.id is None and self._asked is not None:
            failure = await self._failure_of(self._asked)
        self._leave()
        # A room has no run, and what was refused has begun none.
        if failure is not None and not failure.status and not self._persistent:
            raise failure
        if self.id is None:
            return
        async with self._client() as client:
            try:
                answer = await client.delete(
                    self._place(), headers=await self._headers(), timeout=TIMEOUT
                )
            except httpx.HTTPError as error:
                raise _unreached(error) from error
        # 404, 410: it is gone. 405: it lives no longer than its stream.
        if not answer.is_success and answer.status_code not in {404, 405, 410}:
            raise refused(answer.status_code, answer.headers, answer.content)

    async def _failure_of(self, asked: asyncio.Task[httpx.Response]) -> FairleadError | None:
        """Wait until a request for the stream is answered; why it was not, if so."""
        await asyncio.wait([asked], timeout=PATIENCE)
        if not asked.done() or asked.cancelled():
            error: BaseException | None = TimeoutError("it was not waited for any longer")
        else:
            error = asked.exception()
        if error is None or isinstance(error, FairleadError):
            return error
        return _unreached(error)

    def _leave(self) -> None:
        self._over = True
        if self._interruptible is not None:
            self._interruptible.reschedule(0)

    async def _unless_left(self, awaitable: Awaitable[T]) -> T:
        """What is awaited, unless somebody leaves meanwhile.

        Raises:
            TimeoutError: it was left.
        """
        try:
            async with asyncio.timeout(None) as self._interruptible:
                return await awaitable
        finally:
            self._interruptible = None

    async def _read(self) -> AsyncGenerator[Item, None]:
        first = True
        try:
            async with self._client() as client:
                while not self._over:
                    answer = await self._answer(client, first)
                    async with contextlib.aclosing(answer):
                        if self._over or answer.status_code == httpx.codes.NO_CONTENT:
                            return
                        # Without a cursor nobody is asked whether anything was missed.
                        if not first and not self._kept and self.cursor is None:
                            self._missed("reconnect")
                        self._events.emit("status", RunStatus("open"))
                        async with contextlib.aclosing(self._body(answer)) as items:
                            async for item in items:
                                yield item
                    first = False
        except (TimeoutError, FairleadError):
            if not self._over:
                raise
        finally:
            self._over = True
            self._events.emit("status", RunStatus("closed"))

    async def _body(self, answer: httpx.Response) -> AsyncGenerator[Item, None]:
        """The items of one answer; it is over where that was the end, else it broke."""
        parser = EventParser()
        pieces = answer.aiter_bytes()
        while True:
            try:
                piece = await self._unless_left(anext(pieces, b""))
            except httpx.HTTPError:
                break
            if not piece:
                break
            for event in parser.feed(piece):
                if event.id is not None:
                    self.cursor = event.id
                self._backoff.settled()
                if event.event == "end":
                    self._over = True
                elif item := self._received(event):
                    yield item
                if self._over:
                    return
        # A cursor says nothing: that of a room beside the run would begin another one.
        if not (self._kept or self._persistent or self._attached):
            raise ours("the stream broke before its end, and the server does not keep it")
        self._backoff.within = parser.retry

    def _received(self, event: ServerEvent) -> Item | None:
        said = orjson.loads
        match event.event:
            case "error":
                raise FairleadError(said(event.data))
            case "run":
                found = said(event.data)
                self.id, self.key = found["run"], found["key"]
                self._kept = True
            case "restart":
                found = said(event.data)
                self.attempt = found["attempt"]
                self._events.emit("restart", Restart(found["run"], self.attempt))
            case "resumed":
                if said(event.data)["recovered"]:
                    self._kept = True  # found by a cursor: no run was begun for this answer
                else:
                    self._missed("reconnect")
            case "cursor":
                self.cursor = said(event.data)["cursor"]
            case "gap":
                self.cursor = said(event.data)["cursor"]
                self._kept = True  # only what is kept has such a hole
                self._missed("history")
            case "base64":
                return Item(base64.b64decode(event.data), "message", event.id, self.attempt)
            case name:
                text = self._options.get("format") == "text"
                data = event.data if text else said(event.data)
                return Item(data, name, event.id, self.attempt)
        return None

    def _missed(self, reason: Literal["reconnect", "history"]) -> None:
        self._events.emit("gap", Gap(self.cursor, reason))

    async def _answer(self, client: httpx.AsyncClient, first: bool) -> httpx.Response:
        """The next answer that can be read, however many requests that takes."""
        at_once = first
        while True:
            if not at_once:
                pause = self._backoff.next()
                self._events.emit("status", RunStatus("reconnecting", pause))
                await self._unless_left(asyncio.sleep(pause))
            try:
                self._asked = asyncio.create_task(self._request(client))
                return await self._unless_left(self._asked)
            except httpx.HTTPError as error:
                failure = ours(f"the server was not reached: {error!r}")
                failure.__cause__ = error
            except FairleadError as error:
                if is_final(error.status):
                    raise
                failure = error
                self._backoff.after = error.retry_after
            # What was never begun is begun again for a room only: a run might then be there twice.
            if self._over or (at_once and not self._persistent):
                raise failure
            at_once = False

    async def _request(self, client: httpx.AsyncClient) -> httpx.Response:
        answer = await client.send(await self._next(client), stream=True)
        self.id = self.id or answer.headers.get("fairlead-run")
        self.key = self.key or answer.headers.get("fairlead-run-token")
        self.trace = self.trace or answer.headers.get("fairlead-trace")
        try:
            await self._check(answer)
        except BaseException:
            await answer.aclose()
            raise
        return answer

    async def _next(self, client: httpx.AsyncClient) -> httpx.Request:
        """The first request, or the one that goes on from where the last answer broke."""
        headers = await self._headers()
        headers["accept"] = "text/event-stream"
        if self.cursor is not None:
            headers["last-event-id"] = self.cursor
        if self._kept and self.id is not None:
            return client.build_request("GET", self._place(), headers=headers, timeout=TIMEOUT)
        kind, content = _encoded(self._options.get("body"))
        if kind and "content-type" not in headers:
            headers["content-type"] = kind
        method = self._options.get("method", "GET" if content is None else "POST")
        return client.build_request(
            method, self._url, headers=headers, content=content, timeout=TIMEOUT
        )

    async def _check(self, answer: httpx.Response) -> None:
        """See that it can be read, or says that all was (204).

        Raises:
            FairleadError: neither of them.
        """
        if answer.headers.get("fairlead-run-over") == "forgotten":
            detail = f"the run is no longer kept; what it said after {self.cursor} is lost"
            raise FairleadError({"status": 410, "detail": detail})
        if not answer.is_success:
            raise refused(answer.status_code, answer.headers, await answer.aread())
        kind = answer.headers.get("content-type", "")
        over = answer.status_code == httpx.codes.NO_CONTENT
        if not over and not kind.startswith("text/event-stream"):
            raise ours("the answer is no event stream")

    def _place(self) -> str:
        """Where this run is, once it has begun."""
        return urls.with_query(self._url, run=self.id, key=self.key)

    async def _headers(self) -> httpx.Headers:
        headers = httpx.Headers({"cache-control": "no-store"})
        headers.update(self._options.get("headers"))
        bearer = await token.ask(self._options.get("token"))
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        return headers

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        if "client" in self._options:
            yield self._options["client"]
        else:
            async with httpx.AsyncClient() as client:
                yield client


def _unreached(error: BaseException) -> FairleadError:
    return ours(f"the run may go on, as no answer came: {error!r}")


def _encoded(body: Any) -> tuple[str, bytes | None]:
    """(content type or "", bytes or None) of a request's body."""
    if body is None:
        return "", None
    data_type, data = values.encode(body)
    return ("application/json" if data_type is DataType.JSON else ""), data


def run(url: str, **options: Unpack[RunOptions]) -> Run:
    """Start a run, or attach to one with `?run=` in the URL, and read what it yields.

    The options are those of `RunOptions`.

    Raises:
        ValueError: the URL is none of HTTP.
    """
    return Run(url, options, persistent=False)


def subscribe(url: str, **options: Unpack[RunOptions]) -> Run:
    """Read a room over server-sent events: as `run`, but it is asked again until it is there,
    and after each cut."""
    return Run(url, options, persistent=True)
