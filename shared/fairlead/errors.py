"""Every error that a caller of Fairlead may meet.

FairleadError
├── BadDeclaration    a project, feature, workflow or trigger contradicts itself
├── BadName           a name holds what may not stand in a NATS subject or a path
├── BadTarget         the TARGET of a command leads nowhere
├── Malformed         bytes from a peer are not what the protocol says
│   └── BadFrame      a client's `fairlead.v1` frame
├── NoSuchPeer        `direct` to a connection that is not there
├── NotStored         a room message was not acknowledged by its stream
├── TooLarge          a message is larger than 1 MiB, or than NATS takes
├── Unusable          NATS is there, but not as Fairlead needs it
└── Reject            what user code raises to answer with a status of its choice
    ├── Invalid       inputs or a message that are not what the annotations say
    └── Missing       a query or path parameter that user code looked up is not there
"""

from __future__ import annotations

from typing import Any


class FairleadError(Exception):
    """Base of every error of ours; its text is written for the one who must act on it."""


class BadDeclaration(FairleadError):
    """A project, feature, workflow or trigger contradicts itself or another one."""


class BadName(FairleadError, ValueError):
    """A name holds what may not stand in a NATS subject or a path."""


class BadTarget(FairleadError):
    """The TARGET of a command leads nowhere; wrong use, exit code 2."""


class Malformed(FairleadError, ValueError):
    """Bytes from a peer are not what the protocol says."""


class BadFrame(Malformed):
    """A client's frame is malformed; answered by an error frame, the connection stays.

    Attributes:
        ref: the frame's own number where it could be read, else None.
        status: HTTP status of the error frame.
    """

    def __init__(self, detail: str, ref: int | None = None, status: int = 400) -> None:
        super().__init__(detail)
        self.ref = ref
        self.status = status


class NoSuchPeer(FairleadError):
    """`direct` named a connection that is not there, or not in this topic."""

    def __init__(self, peer: str) -> None:
        super().__init__(f"no connection {peer!r} in this topic; it may have left")
        self.peer = peer


class NotStored(FairleadError):
    """A room message was not acknowledged by its stream, after every retry."""


class TooLarge(FairleadError, ValueError):
    """A message has more than 1 MiB, or is larger than NATS takes, which would end the connection."""


class Unusable(FairleadError):
    """NATS answers, but not as Fairlead needs it (no JetStream, a small max_payload)."""


class Reject(FairleadError):
    """Raise it in `execute` to answer with a status and a text of your own.

    Args:
        status: an HTTP status from 400 to 599.
        detail: goes to the client as it is; None sends the status' own phrase.
    """

    def __init__(self, status: int, detail: str | None = None) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"Reject takes a status from 400 to 599, not {status}")
        super().__init__(detail or f"status {status}")
        self.status = status
        self.detail = detail


class Invalid(Reject):
    """Inputs of a request, or the data of a message, are not what the annotations say.

    Attributes:
        errors: `{"loc": [...], "msg": str, "type": str}` for each; never the value itself.
    """

    def __init__(self, detail: str, errors: list[dict[str, Any]]) -> None:
        super().__init__(400, detail)
        self.errors = errors


class Missing(Reject, KeyError):
    """A query or path parameter that user code looked up is not there."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(400, f"{what} {name!r} is missing")
