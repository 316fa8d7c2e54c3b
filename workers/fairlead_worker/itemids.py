"""By what a room's stream knows an item again that an earlier attempt has said already."""

from __future__ import annotations

import base64
import hashlib
from typing import Protocol

from fairlead.protocol.envelope import Work
from fairlead_worker.inbox import Inbox


class Speaker(Protocol):
    """A run, as far as the ids of its items tell of it."""

    work: Work
    connection: str
    message: int
    attempt: int
    inbox: Inbox | None

    @property
    def sender(self) -> str: ...


class ItemIds:
    """The ids of what one run says to its room.

    Args:
        cause: what all of its items come of; "" if that is what a client said, or its connection.
    """

    __slots__ = ("_all_of", "_number", "_of", "_run")

    def __init__(self, run: Speaker, cause: str = "") -> None:
        self._run = run
        self._all_of = cause
        self._number = 0
        self._of = 0  # the message of which `_number` counts

    def next(self, subject: str, data: bytes) -> str:
        """The same for each attempt at this item, so that the stream stores it once.

        A hash, since ids are known per stream, which holds many rooms.
        """
        self._number += 1
        name = f"{subject}\n{self._all_of or self._cause()}\n{self._number}"
        digest = hashlib.sha256(name.encode())
        if self._run.inbox is not None:
            # Another attempt may say something else here, from another source: that is no repeat.
            digest.update(data)
        return base64.b85encode(digest.digest()[:15]).decode()

    def _cause(self) -> str:
        """What an item of a room comes of: of that, the item's number counts.

        The client's own id counts per room and subject, whatever connection it comes through;
        without one the connection and its message's number stand for it.
        """
        run = self._run
        if run.inbox is None:
            return self._said(run.work.id) or f"at {run.connection} {run.message}"
        read = run.inbox.in_hand
        if read != self._of:
            self._of, self._number = read, 1
        if read and run.inbox.message is not None and run.inbox.message.id:
            return self._said(run.inbox.message.id)
        return f"in {run.connection} {read or f'attempt {run.attempt}'}"

    def _said(self, id: str) -> str:
        """A client's message by its own id; "" without one."""
        sender = self._run.sender
        who = sender if sender != self._run.connection else ""
        return f"id {who} {id}" if id else ""
