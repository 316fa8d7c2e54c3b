"""Opens a WebSocket or an event stream to a route, for somebody at the page.

The browser speaks with the console alone, over one WebSocket, so nothing has to be said about CORS
and edges need not be reachable from where the browser is. It goes to edges that have told of
themselves, and nowhere else.

What the browser says first: `{"token","edge","path","transport":"raw"|"v1"|"sse","method"?,"body"?}`;
then `{"send":text}`. What it hears: `{"open":{…}}`, `{"in":text,"event"?,"id"?}`, `{"closed":{…}}`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import orjson
import websockets
from pydantic import TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from fairlead.client.sse import EventParser
from fairlead.protocol.frames import SUBPROTOCOL
from fairlead_console.guard import Guard
from fairlead_console.live import Live

ASKED_WITHIN = 10.0
"""Seconds in which the browser must say what it wants, and an edge must answer."""

MOST = 256 * 1024
"""Characters of one message that are shown; the rest is cut off and said to be."""


@dataclass(frozen=True)
class Wish:
    """What is to be tried."""

    edge: str
    path: str
    transport: Literal["raw", "v1", "sse"]
    token: str = ""
    method: Literal["GET", "POST"] = "GET"
    body: str = ""


_WISH = TypeAdapter(Wish)


class Refused(Exception):
    """It is not to be, or the edge said no: what the browser is told."""


async def serve(socket: WebSocket, guard: Guard, live: Live | None) -> None:
    """One connection of the page."""
    await socket.accept()
    try:
        wish = await _wish(socket)
        if not guard.allows(wish.token):
            raise Refused("this takes the console's token; give it at the top of the page")
        address = live.fleet.address(wish.edge) if live is not None else None
        if address is None:
            raise Refused(f"edge {wish.edge[:20]!r} is not known, or has no port of its own")
        if not wish.path.startswith("/"):
            raise Refused("a path begins with /")
        trying = _stream if wish.transport == "sse" else _talk
        await trying(socket, address, wish)
    except Refused as refused:
        await _say(socket, closed={"reason": str(refused)})
    except WebSocketDisconnect:
        return
    with contextlib.suppress(RuntimeError):  # the browser was quicker
        await socket.close()


async def _wish(socket: WebSocket) -> Wish:
    try:
        async with asyncio.timeout(ASKED_WITHIN):
            return _WISH.validate_json(await socket.receive_text())
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except TimeoutError:
        raise Refused("nothing was asked for") from None


async def _say(socket: WebSocket, **told: Any) -> None:
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the browser has gone
        await socket.send_text(orjson.dumps(told).decode())


def _shown(data: str | bytes | bytearray) -> str:
    if not isinstance(data, str):
        data = f"(binary) {base64.b64encode(data[:MOST]).decode()}"
    return data if len(data) <= MOST else f"{data[:MOST]} … ({len(data)} characters)"


async def _talk(socket: WebSocket, address: str, wish: Wish) -> None:
    """A WebSocket, both ways, until either side ends it."""
    protocols = [websockets.Subprotocol(SUBPROTOCOL)] if wish.transport == "v1" else None
    try:
        edge = await websockets.connect(
            f"ws://{address}{wish.path}", subprotocols=protocols, open_timeout=ASKED_WITHIN,
            max_size=None, compression=None,
        )  # fmt: skip
    except websockets.InvalidStatus as error:
        body = _shown((error.response.body or b"").decode(errors="replace"))
        raise Refused(f"{error.response.status_code} {body}") from None
    except (OSError, TimeoutError, websockets.InvalidHandshake) as error:
        raise Refused(f"the edge does not answer: {error}") from None
    async with edge:
        await _say(socket, open={"protocol": edge.subprotocol or "raw"})
        saying = asyncio.ensure_future(_pass_on(socket, edge))
        try:
            async for data in edge:
                await _say(socket, **{"in": _shown(data)})
        except websockets.ConnectionClosedError:
            pass  # its code is told below
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)
        await _say(socket, closed={"code": edge.close_code, "reason": edge.close_reason or ""})


async def _pass_on(socket: WebSocket, edge: websockets.ClientConnection) -> None:
    """What the browser says; its end ends the connection to the edge."""
    try:
        async for text in _said(socket):
            await edge.send(text)
    except websockets.ConnectionClosed:
        return
    await edge.close()


async def _said(socket: WebSocket) -> AsyncIterator[str]:
    while True:
        try:
            frame = orjson.loads(await socket.receive_text())
        except (WebSocketDisconnect, orjson.JSONDecodeError, KeyError):
            return
        if isinstance(frame, dict) and isinstance(frame.get("send"), str):
            yield frame["send"]
        else:
            return  # `{"close": true}`


async def _stream(socket: WebSocket, address: str, wish: Wish) -> None:
    """An event stream, until it ends or the browser goes."""
    reading = asyncio.ensure_future(_read(socket, address, wish))
    leaving = asyncio.ensure_future(anext(_said(socket), None))
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reading, leaving):
            task.cancel()
        results = await asyncio.gather(reading, leaving, return_exceptions=True)
    if isinstance(results[0], Refused):
        raise results[0]


async def _read(socket: WebSocket, address: str, wish: Wish) -> None:
    body = wish.body.encode() if wish.method == "POST" else None
    timeout = httpx.Timeout(None, connect=ASKED_WITHIN)
    try:
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
            client.stream(wish.method, f"http://{address}{wish.path}", content=body) as answer,
        ):
            if answer.status_code != 200:
                said = _shown((await answer.aread()).decode(errors="replace"))
                raise Refused(f"{answer.status_code} {said}")
            head = {name: answer.headers.get(f"fairlead-{name}", "") for name in ("run", "trace")}
            await _say(socket, open={"protocol": "sse", **head})
            parser = EventParser()
            async for piece in answer.aiter_raw():
                for event in parser.feed(piece):
                    shown = _shown(event.data)
                    await _say(socket, event=event.event, id=event.id, **{"in": shown})
        await _say(socket, closed={"reason": "the stream ended"})
    except httpx.HTTPError as error:
        raise Refused(f"the edge does not answer: {error or type(error).__name__}") from None
