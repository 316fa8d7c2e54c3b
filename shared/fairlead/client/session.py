"""What frames mean, without a socket and without a clock: the messages that are on their way, the
cursor to come back with, and what the application is told."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fairlead.client import frames
from fairlead.client.clock import Moment
from fairlead.client.errors import FairleadError, ours
from fairlead.client.sent import Message, Sent

REMEMBERED = 115.0
"""Seconds for which a message that is sent again with its id is known as the same; the server's
two minutes, less the time on the way."""

EVENTS = ("gap", "restart", "presence", "waiting", "end", "error")


@dataclass(frozen=True)
class Gap:
    """Messages may be missing before `cursor`.

    Attributes:
        reason: "reconnect" (what was said meanwhile could not be had), "history" (the room no
            longer keeps it), "unread" (more waited for the loop than may).
    """

    cursor: str | None
    reason: Literal["reconnect", "history", "unread"]


@dataclass(frozen=True)
class Restart:
    """Discard what came from this run before.

    Attributes:
        id: of the message that it answers, if there is one.
    """

    run: str
    attempt: int
    id: str | None = None


@dataclass(frozen=True)
class Presence:
    """Who came to the room and who left it."""

    join: list[str]
    leave: list[str]


@dataclass(frozen=True)
class End:
    """The run of the connection has ended; a close follows."""

    run: str


class Host(Protocol):
    """Carries out what the session decides."""

    def write(self, frame: str) -> None: ...
    def deliver(self, message: Message) -> None: ...
    def discard(self, run: str) -> None:
        """Forget what nobody has read of this run."""

    def emit(self, name: str, detail: object) -> None: ...
    def now(self) -> Moment: ...


class Session:
    """One application's part in a room or a run, over all its connections.

    Attributes:
        cursor: where to go on after a reconnect; None where the room has no history.
        connection: the id of the connection that is, or was last.
        within: seconds within which to come back, if the server said so before it closed.
        open: the server has said welcome, and is still there.
    """

    def __init__(self, host: Host, cursor: str | None) -> None:
        self.cursor = cursor
        self.connection: str | None = None
        self.within: float | None = None
        self.open = False
        self._host = host
        self._before = False
        self._window = 0
        self._ref = 0
        self._outbox: list[Sent] = []
        self._attempts: dict[str, int] = {}
        self._meanings: dict[str, Callable[[dict[str, Any]], None]] = {
            "welcome": self._welcomed,
            "message": self._message,
            "ack": self._acknowledged,
            "error": self._refused,
            "waiting": self._waits,
            "restart": self._restarted,
            "end": lambda frame: host.emit("end", End(frame["run"])),
            "cursor": self._moved,
            "gap": self._lacks,
            "presence": lambda frame: host.emit(
                "presence", Presence(frame["join"], frame["leave"])
            ),
            "reconnect": self._returns,
        }

    @property
    def pending(self) -> int:
        """Messages that are neither acknowledged nor failed."""
        return len(self._outbox)

    @property
    def waiting(self) -> bool:
        """Whether a message waits for a worker."""
        return any(sent.state == "waiting" for sent in self._outbox)

    def send(self, sent: Sent) -> None:
        self._outbox.append(sent)
        self._pump()

    def cancel(self, sent: Sent) -> None:
        sent.cancelled = True
        if self.open and sent.ref is not None:
            self._host.write(frames.cancel(ref=sent.ref))
        else:
            self._failed(sent, FairleadError({"status": 499, "detail": "cancelled"}, id=sent.id))

    def lost(self) -> None:
        """The socket is gone: what it has not acknowledged is to be said again, unless it was
        cancelled: nobody knows whether the server has heard that."""
        self.open = False
        for sent in self._outbox:
            sent.ref = None
            sent.state = "queued"
        for sent in [sent for sent in self._outbox if sent.cancelled]:
            sent.cancel()

    def ended(self, error: FairleadError) -> None:
        """There will be no other connection."""
        self.lost()
        while self._outbox:
            self._failed(self._outbox[0], error.of(self._outbox[0].id))

    def received(self, frame: dict[str, Any]) -> None:
        """Take in a server's frame.

        Raises:
            Exception: it lacks what the protocol says, or that is of another kind.
        """
        # Whatever else a later server says is none of an older client's business.
        if meaning := self._meanings.get(frame["type"]):
            meaning(frame)

    def _welcomed(self, frame: dict[str, Any]) -> None:
        self.open = True
        self._window = frame["window"]
        self.connection = frame["connection"]
        self.within = None
        recovered = frame["recovered"]
        # While what was missed is still being replayed, a loss must go on from where we were.
        if recovered is not True:
            self.cursor = frame["cursor"]
        missed = recovered is False or (self._before and recovered is None)
        self._before = True
        if missed:
            self._host.emit("gap", Gap(frame["cursor"], "reconnect"))
        self._pump()

    def _message(self, frame: dict[str, Any]) -> None:
        data, id, run = frame["data"], frame.get("id"), frame.get("run")
        message = Message(
            data=base64.b64decode(data) if frame.get("encoding") == "base64" else data,
            id=id,
            attempt=self._attempts.get(run, 1) if run else 1,
            sender=frame.get("from"),
            run=run,
            trace=frame.get("trace"),
        )
        if "ref" in frame:
            if sent := self._find(frame["ref"]):
                sent.replied(message)
            return
        if id:
            self.cursor = id
        self._host.deliver(message)

    def _acknowledged(self, frame: dict[str, Any]) -> None:
        if sent := self._find(frame["ref"]):
            self._outbox.remove(sent)
            sent.acknowledged(frame.get("trace"))
        self._pump()

    def _refused(self, frame: dict[str, Any]) -> None:
        ref = frame.get("ref")
        if sent := self._find(ref):
            self._failed(sent, FairleadError(frame["error"], ref=ref, id=sent.id))
            self._pump()
        else:
            self._host.emit("error", FairleadError(frame["error"], ref=ref))

    def _waits(self, frame: dict[str, Any]) -> None:
        if sent := self._find(frame["ref"]):
            sent.state = "waiting"
            self._host.emit("waiting", sent)

    def _restarted(self, frame: dict[str, Any]) -> None:
        run, attempt = frame["run"], frame["attempt"]
        sent = self._find(frame.get("ref"))
        if "ref" not in frame:
            self._attempts = {run: attempt}
            self._host.discard(run)
        if sent:
            sent.restarted()
        self._host.emit("restart", Restart(run, attempt, sent.id if sent else None))

    def _moved(self, frame: dict[str, Any]) -> None:
        self.cursor = frame["cursor"]

    def _lacks(self, frame: dict[str, Any]) -> None:
        self.cursor = frame["cursor"]
        self._host.emit("gap", Gap(self.cursor, "history"))

    def _returns(self, frame: dict[str, Any]) -> None:
        self.within = frame["within"] / 1000

    def _find(self, ref: int | None) -> Sent | None:
        return next((sent for sent in self._outbox if ref is not None and sent.ref == ref), None)

    def _failed(self, sent: Sent, error: FairleadError) -> None:
        self._outbox.remove(sent)
        sent.failed(error)
        if not sent.watched:
            self._host.emit("error", error)

    def _pump(self) -> None:
        """Send what is queued, in order, as much as may be unacknowledged."""
        if not self.open:
            return
        self._give_up_what_is_old()
        now = self._host.now()
        # Nobody is called from here on, so nothing comes between that would be counted twice.
        free = self._window - sum(sent.ref is not None for sent in self._outbox)
        for sent in self._outbox:
            if free <= 0:
                return
            if sent.ref is not None:
                continue
            if sent.since is None:
                sent.since = now
            else:
                sent.restarted()
            free -= 1
            self._ref += 1
            sent.ref = self._ref
            sent.state = "sent"
            self._host.write(frames.message(sent.ref, sent.id, sent.members))

    def _give_up_what_is_old(self) -> None:
        """Fail what can't be said again without a double; a listener may send or cancel then."""
        now = self._host.now()
        old = [
            sent
            for sent in self._outbox
            if sent.ref is None and sent.since is not None and now.since(sent.since) >= REMEMBERED
        ]
        detail = (
            "the connection was lost before the answer came, too long ago to ask again "
            "without a double"
        )
        for sent in old:
            if not sent.settled:
                self._failed(sent, ours(detail, id=sent.id))
