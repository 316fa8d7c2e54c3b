"""One message on its way to be executed: the state machine behind "nothing is lost".

An edge keeps a message until a worker says it is done. Every state change of that way
lives here, as a table; the clock and the dice come in as arguments.

::

    HELD ──send──▶ SENT ──taken──▶ TAKEN ──done──▶ DONE
      ▲             │ │ │            │
      │        busy │ │ │ lost       │ lost          lost: no `taken` in 1 s, or two
      │             ▼ │ └───▶ SENT ◀─┘                     beats missed: attempt + 1
      │           BUSY│no responders
      │             │ ▼
      └── (NATS) ── WAITING ──expired──▶ FAILED
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from fairlead.errors import Malformed

TAKEN_WITHIN = 1.0
"""Seconds in which a worker must answer; it does so in 250 ms if its loop runs."""

BEAT = 2.0
"""Seconds between two beats of a worker."""

LOST_AFTER = 2 * BEAT + 0.5
"""Seconds without a beat that lists the message: two beats missed, and a margin for the net."""

BUSY_RETRY = (0.005, 0.1)
"""Seconds, from and to, after which a message that met a busy worker is tried again."""

WAITING_RETRY = 0.25
"""Seconds between two tries while no worker listens."""

MAX_LOST = 10
"""Workers that may be lost with one message in hand before it counts as their killer."""

INNOCENT_AFTER = 60.0
"""Seconds in one worker's hands after which its loss is not held against what it had."""


class State(enum.Enum):
    """Where a message stands."""

    # By identity: Enum's own hashes a name, in Python, and the table is asked on each step.
    __hash__ = object.__hash__

    HELD = "held"  # not sent: NATS is away, or its turn has not come
    SENT = "sent"  # with some worker, unanswered
    BUSY = "busy"  # declined; goes out again in a moment
    WAITING = "waiting"  # nobody listens; tried again until it expires
    TAKEN = "taken"  # in a worker's hands, listed in its beats
    DONE = "done"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in (State.DONE, State.FAILED)


class Happening(enum.Enum):
    """What moves it."""

    __hash__ = object.__hash__  # as State

    SEND = "send"
    TAKEN = "taken"
    BUSY = "busy"
    NO_RESPONDERS = "no responders"
    DONE = "done"
    LOST = "lost"
    EXPIRED = "expired"
    CUT = "cut"  # NATS went away while nobody had the message


NEXT: Mapping[tuple[State, Happening], State] = {
    (State.HELD, Happening.SEND): State.SENT,
    (State.HELD, Happening.EXPIRED): State.FAILED,
    (State.SENT, Happening.TAKEN): State.TAKEN,
    (State.SENT, Happening.BUSY): State.BUSY,
    (State.SENT, Happening.NO_RESPONDERS): State.WAITING,
    (State.SENT, Happening.DONE): State.DONE,
    (State.SENT, Happening.LOST): State.SENT,
    (State.SENT, Happening.EXPIRED): State.FAILED,
    (State.BUSY, Happening.SEND): State.SENT,
    (State.BUSY, Happening.EXPIRED): State.FAILED,
    (State.BUSY, Happening.CUT): State.HELD,
    (State.WAITING, Happening.SEND): State.SENT,
    (State.WAITING, Happening.EXPIRED): State.FAILED,
    (State.WAITING, Happening.CUT): State.HELD,
    (State.TAKEN, Happening.TAKEN): State.TAKEN,
    (State.TAKEN, Happening.DONE): State.DONE,
    (State.TAKEN, Happening.LOST): State.SENT,
    (State.TAKEN, Happening.EXPIRED): State.FAILED,
}


def step(state: State, happening: Happening) -> State:
    """The state after `happening`.

    Raises:
        Malformed: it cannot happen in this state; the caller drops what it received.
    """
    try:
        return NEXT[state, happening]
    except KeyError:
        raise Malformed(f"{happening.value} cannot happen to a {state.value} message") from None


class Delivery:
    """Where one message stands.

    Attributes:
        attempt: 1, 2, …; answers to an earlier one are dropped.
        worker: who has it in hand, or "".
        due: loop time at which `overdue` has something to say; in seconds.
        waiting_since: loop time at which it was first found that no worker listens, or None.
        taken_at: loop time at which `worker` took it.
        losses: workers that were lost with the message in hand, one soon after the other.
        cancelled: the client does not want it any more.
    """

    __slots__ = (
        "attempt", "cancelled", "due", "losses", "number", "state", "taken_at", "waiting_since",
        "worker",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.attempt = 1
        self.state = State.HELD
        self.worker = ""
        self.due = 0.0
        self.waiting_since: float | None = None
        self.taken_at = 0.0
        self.losses = 0
        self.cancelled = False

    def send(self, now: float) -> None:
        """It goes out now, for the first time or again."""
        self.state = step(self.state, Happening.SEND)
        self.due = now + TAKEN_WITHIN

    def taken(self, worker: str, now: float) -> None:
        self.state = step(self.state, Happening.TAKEN)
        self.worker = worker
        self.taken_at = now
        self.due = now + LOST_AFTER
        self.waiting_since = None

    def busy(self, now: float, dice: float) -> None:
        """Args: dice: from 0 to 1, where in BUSY_RETRY the next try falls."""
        self.state = step(self.state, Happening.BUSY)
        self.waiting_since = None  # somebody listens
        soonest, latest = BUSY_RETRY
        self.due = now + soonest + dice * (latest - soonest)

    def no_responders(self, now: float) -> bool:
        """Nobody listens. Returns whether that is news for the client."""
        self.state = step(self.state, Happening.NO_RESPONDERS)
        self.due = now + WAITING_RETRY
        if self.waiting_since is None:
            self.waiting_since = now
            return True
        return False

    def beat(self, now: float) -> None:
        """A beat of its worker lists it."""
        if self.state is State.TAKEN:
            self.due = now + LOST_AFTER

    def lost(self, now: float) -> None:
        """Whoever had it is gone: the next attempt goes out now."""
        if self.state is State.TAKEN:
            self.losses = self.losses + 1 if now - self.taken_at < INNOCENT_AFTER else 1
        self._again(now)

    def handed_over(self, now: float) -> None:
        """Its worker stops, and says so: the next attempt goes out now."""
        self._again(now)

    def _again(self, now: float) -> None:
        self.state = step(self.state, Happening.LOST)
        self.attempt += 1
        self.worker = ""
        self.due = now + TAKEN_WITHIN

    def done(self) -> None:
        self.state = step(self.state, Happening.DONE)

    def fail(self) -> None:
        self.state = step(self.state, Happening.EXPIRED)

    def cut(self) -> None:
        """NATS went away: what nobody has is held, what somebody may have keeps its state."""
        if self.state in (State.BUSY, State.WAITING):
            self.state = step(self.state, Happening.CUT)

    def back(self, now: float) -> None:
        """NATS is back: answers may have been lost meanwhile, so every clock starts anew."""
        if self.state is State.SENT:
            self.due = now + TAKEN_WITHIN
        elif self.state is State.TAKEN:
            self.due = now + LOST_AFTER

    def expired(self, now: float, patience: float) -> bool:
        """Whether no worker listened for `patience` seconds."""
        return self.waiting_since is not None and now - self.waiting_since >= patience

    @property
    def deadly(self) -> bool:
        """Whether it was in hand each time so many workers died that it must be the reason."""
        return self.losses >= MAX_LOST
