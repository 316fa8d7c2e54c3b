"""Requests for a run that is there: read on, read it from the beginning, or end it.

::

    POST /answers                        ──▶ begin    a run with `resume`
    GET  /answers, Last-Event-ID: C      ──▶ attach   behind what was seen, on any edge
    GET  /answers?run=R&key=K            ──▶ attach   a second tab
    DELETE /answers?run=R&key=K          ──▶ cancel
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from fairlead import runstore
from fairlead.errors import BadName, NotStored
from fairlead.protocol import envelope, runlog
from fairlead.protocol.cursor import Position, RunPlace
from fairlead.protocol.envelope import Answer, Kind, Wish, decode_work
from fairlead.protocol.manifest import Route
from fairlead.protocol.runlog import Entry, Opening
from fairlead.telemetry import Hop
from fairlead_edge.admission import (
    RUN,
    Check,
    Refused,
    Settled,
    checked,
    given,
)
from fairlead_edge.copies import Copy
from fairlead_edge.host import Host
from fairlead_edge.room import Room
from fairlead_edge.spans import Replaying
from fairlead_edge.sse import Stream, named_event
from fairlead_edge.viewer import Viewer


class Over(Exception):
    """There is nothing more to come: 204, so that an EventSource does not ask again.

    Args:
        how: `seen`, all of it; `forgotten`, what came after the cursor is lost; "" where it was ended.
    """

    def __init__(self, how: Literal["seen", "forgotten", ""] = "") -> None:
        super().__init__(how)
        self.how = how

    @property
    def headers(self) -> dict[str, str]:
        """For clients that may ask: an EventSource hears nothing of a 204."""
        return {"fairlead-run-over": self.how} if self.how else {}


class Asked(NamedTuple):
    """What a request wants of a run.

    Attributes:
        run, key: its id and token, "" where they were not given.
        place: up to where it was seen; None is nothing.
        came_back: a cursor was sent; without a place, it means nothing here.
    """

    run: str
    key: str = ""
    place: RunPlace | None = None
    came_back: bool = False


async def begin(
    host: Host, settled: Settled, body: bytes, trace: str, hop: Hop | None,
    leaving: asyncio.Future[Any], came_back: bool,
) -> Stream:  # fmt: skip
    """Have a worker begin a run whose output is kept; show it.

    Args:
        came_back: a cursor was sent that means nothing here.

    Raises:
        Refused, Left: there is to be no run.
    """
    stream = Stream(host, settled.route)
    stream.key = secrets.token_urlsafe(16)
    stream.run = f"{stream.id}-{RUN}"
    room = await _log(host, stream.run)
    start = room.position  # before anything of it is there
    assert start is not None
    try:
        check = Check(host.relay, stream.id)
        check.ask(settled, Kind.OPEN, host.now(), body, stream.key, trace, hop)
        verdict = await given(check, leaving)
    except BaseException:
        host.hub.close(room)
        raise
    stream.who = verdict.who
    viewer = Viewer(
        host.hub, host.runs, stream, room, stream.run, stream.key, settled.subject, start
    )
    if came_back:
        stream.say(named_event("resumed", {"recovered": False}))
    _say_run(stream, viewer)
    stream.show(viewer)
    return stream


async def attach(
    host: Host, settled: Settled, asked: Asked, leaving: asyncio.Future[Any], hop: Hop | None
) -> Stream:
    """Show a run that is there.

    Raises:
        Refused: 404, it is not, or not for this client; 410, its first part is gone.
        Over: there is nothing more to come. Left: the client is gone.
    """
    who = await _who(host, settled, leaving, hop)
    if settled.route.resume is None:
        return await _copy(host, settled, asked, who)
    begun, opening, first, last = await _found(host, settled, asked, who)
    place = asked.place
    if place is not None and last is not None and _seen_all(place, last):
        raise Over("seen")
    if place is None and first is not None and not first.begins:
        raise Refused(410, f"the first part of run {asked.run} is gone")
    room = await _log(host, asked.run)
    assert room.position is not None
    stream = Stream(host, settled.route)
    stream.run, stream.key, stream.who = asked.run, opening.key, who
    after = Position(room.position.created, begun, int(time.time() * 1000))
    whole = first is None or first.begins
    if place is not None and place.number:
        whole = whole or (first is not None and first.number <= place.number)
        # From the entry of that place on: it may hold more than was seen of it.
        after = replace(after, sequence=place.sequence - 1) if whole else after
    viewer = Viewer(
        host.hub, host.runs, stream, room, asked.run, opening.key, opening.inbound, after, place,
        _replaying(host, settled.route, stream.id, opening, hop),
    )  # fmt: skip
    if place is not None or asked.came_back:
        recovered = place is not None and whole
        stream.say(named_event("resumed", {"recovered": recovered}))
    if place is None:
        _say_run(stream, viewer)
    stream.show(viewer)
    return stream


def _replaying(
    host: Host, route: Route, connection: str, opening: Opening, hop: Hop | None
) -> Replaying | None:
    """The span of what the client is brought up to the present with; it links to the run's trace."""
    if hop is None or host.spans is None:
        return None
    span = host.spans.replay(route, connection, hop.parent)
    span.of(decode_work(opening.work).trace)
    return span


async def cancel(
    host: Host, settled: Settled, asked: Asked, leaving: asyncio.Future[Any], hop: Hop | None
) -> None:
    """End a run, wherever it is.

    Raises:
        Refused: 404, it is not there, or not for this client; 503, nobody could end it.
        Left: the client is gone.
    """
    who = await _who(host, settled, leaving, hop)
    if settled.route.resume is None:
        if not await host.runs.wish(asked.run, asked.key, who, Wish.CANCEL, settled.route):
            raise _unknown(asked.run)
        return
    _, opening, _, last = await _found(host, settled, asked, who)
    if last is not None and last.ends:
        return
    failure = await host.runs.cancel(asked.run, settled.route, opening.inbound)
    if failure is not None:
        raise Refused.by_worker(failure)


async def cancel_anywhere(host: Host, context: bytes, run: str, key: str) -> None:
    """End a run of any workflow, for a connection that names it: as a DELETE of its endpoint.

    Who the client is elsewhere counts for nothing. The policies of the run's own workflow are
    asked, with the query and the headers of the connection, whose `context` this is, and with the
    path that the run was begun at.

    Raises:
        Refused: as `cancel`.
    """
    inbound, path = await _place(host, run)
    named = host.bus.subjects.workflow_of_inbound(inbound)
    route = next((r for r in host.fleet.table if (r.feature, r.workflow) == named), None)
    if route is None:
        raise _unknown(run)
    theirs = replace(envelope.decode_context(context), path=path, subject=None)
    settled = Settled(route, inbound, envelope.encode_context(theirs))
    never = asyncio.get_running_loop().create_future()  # it is ended also for who leaves meanwhile
    await cancel(host, settled, Asked(run, key), never, None)


async def _place(host: Host, run: str) -> tuple[str, dict[str, str]]:
    """NATS subject and path parameters of a run: of an edge's own, or of one that is kept.

    Raises:
        Refused: 404, 503.
    """
    found = await host.runs.place(run)
    if found is not None:
        return found
    try:
        async with asyncio.timeout(host.settings.worker_wait):
            _, opening = await runstore.opening(host.bus, run)
    except LookupError:
        raise _unknown(run) from None
    except (NotStored, TimeoutError) as error:
        raise Refused.without_nats("the run cannot be read", error) from None
    return opening.inbound, envelope.decode_context(envelope.decode_work(opening.work).context).path


def _may(opening: Opening, key: str, who: str) -> bool:
    """Whether this is who began it, or has its token."""
    if key:
        return secrets.compare_digest(key.encode(), opening.key.encode())
    return bool(who) and who == opening.who


def _say_run(stream: Stream, viewer: Viewer) -> None:
    """An EventSource reads no headers: it learns here what it needs to come back elsewhere."""
    stream.say(named_event("run", {"run": stream.run, "key": stream.key}, viewer.place))


def _unknown(run: str) -> Refused:
    """One answer for what is not there and for what is somebody else's."""
    return Refused(404, f"run {run[:80]!r} is not known here, or needs its token as ?key=")


async def _who(host: Host, settled: Settled, leaving: asyncio.Future[Any], hop: Hop | None) -> str:
    """The policies' answer for this request."""
    if not settled.route.checks:
        return ""
    verdict = await checked(
        host.relay, host.new_id(), settled, leaving, host.now(), kind=Kind.ADMIT, hop=hop
    )
    return verdict.who


async def _found(
    host: Host, settled: Settled, asked: Asked, who: str
) -> tuple[int, Opening, Entry | None, Entry | None]:
    """The opening's sequence, the opening, the oldest and the newest entry of the log.

    Raises:
        Refused: 404, 503. Over: it was there once, and this client had seen some of it.
    """
    try:
        async with asyncio.timeout(host.settings.worker_wait):
            begun, opening = await runstore.opening(host.bus, asked.run)
            _permit(host, settled, asked, opening, who)
            first, last = await asyncio.gather(
                runstore.first(host.bus, asked.run), runstore.last(host.bus, asked.run)
            )
    except LookupError:
        if asked.place is not None:
            raise Over("forgotten") from None
        raise _unknown(asked.run) from None
    except (NotStored, TimeoutError) as error:
        raise Refused.without_nats("the run cannot be read", error) from None
    return begun, opening, first and first[1], last and last[1]


def _permit(host: Host, settled: Settled, asked: Asked, opening: Opening, who: str) -> None:
    """Let in who began it, or has its token; who has seen some of it, if it is nobody's.

    Raises:
        Refused: 404.
    """
    workflow = host.bus.subjects.workflow_of_inbound(opening.inbound)
    if workflow != (settled.route.feature, settled.route.workflow):
        raise _unknown(asked.run)
    place = asked.place
    viewed = place is not None and place.proof == runlog.proof(opening.key)
    nobodys = not opening.who and not asked.key
    if not _may(opening, asked.key, who) and not (nobodys and viewed):
        raise _unknown(asked.run)


def _seen_all(place: RunPlace, last: Entry) -> bool:
    """Whether nothing but the end of an ended run is to come after a place."""
    items = sum(1 for answer in last.said if answer[0] not in (Answer.DONE, Answer.ERROR))
    return last.ends and (place.number, place.index) >= (last.number, items)


async def _log(host: Host, run: str) -> Room:
    """Listen to a run's log.

    Raises:
        Refused: 404, no run has such an id; 503, the runs' stream or NATS does not answer.
    """
    try:
        async with asyncio.timeout(host.settings.worker_wait):
            await host.bus.ready()
            room = await host.hub.open_run(run)
            await host.hub.located(room)
            return room
    except BadName:
        raise _unknown(run) from None
    except (NotStored, TimeoutError) as error:
        raise Refused.without_nats("the run cannot be read", error) from None


async def _copy(host: Host, settled: Settled, asked: Asked, who: str) -> Stream:
    """Show what a run without `resume`, on whatever edge, says from now on.

    Raises:
        Refused: 404.
    """
    stream = Stream(host, settled.route)
    stream.run, stream.key, stream.who = asked.run, asked.key, who
    try:
        copy = Copy(host.bus, host.runs, stream, asked.run, asked.key, who)
    except BadName:
        raise _unknown(asked.run) from None
    try:
        if not await copy.granted():
            raise _unknown(asked.run)
    except BaseException:
        copy.left()
        raise
    stream.show(copy)
    return stream
