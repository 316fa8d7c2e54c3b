"""What a client's frames mean: the rules of `fairlead.v1`, without a socket.

A frame goes in; a message to run, a cancel, or an error to send comes out. What ends the
connection is raised as `Violation`.
"""

from __future__ import annotations

from fairlead.errors import BadFrame
from fairlead.protocol import frames
from fairlead.protocol.frames import Cancel, ClientMessage
from fairlead.protocol.problems import MAX_MESSAGE, Close, problem

MAX_REASON = 123
"""Bytes of a close frame's reason (RFC 6455, 5.5); a longer one can't be sent at all."""


class Violation(Exception):
    """The client broke a rule that ends its connection.

    Attributes: code: for the close frame; reason: likewise, cut to MAX_REASON bytes.
    """

    def __init__(self, code: Close, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:MAX_REASON].decode(errors="ignore")


class Session:
    """The state of one `fairlead.v1` client.

    Attributes:
        unacknowledged: refs that were neither acknowledged nor answered with an error.
    """

    __slots__ = ("_last_ref", "_malformed", "unacknowledged")

    def __init__(self) -> None:
        self.unacknowledged: set[int] = set()
        self._last_ref = 0
        self._malformed = 0

    def frame_received(self, text: bool, data: bytes) -> ClientMessage | Cancel | bytes:
        """Read one frame.

        Returns:
            A message, a cancel, or the bytes of an error frame to send.

        Raises:
            Violation: 1003 for a binary frame, 1008 for the tenth malformed one in a row,
                1009 for more than 1 MiB of data, 4501 for more than WINDOW messages.
        """
        if not text:
            raise Violation(Close.UNSUPPORTED, "fairlead.v1 takes text frames; send base64")
        try:
            frame = frames.parse(data)
            if isinstance(frame, ClientMessage):
                self._check(frame)
        except BadFrame as error:
            return self._refused(error)
        self._malformed = 0
        if isinstance(frame, ClientMessage):
            self._last_ref = frame.ref
            self.unacknowledged.add(frame.ref)
            if len(self.unacknowledged) > frames.WINDOW:
                raise Violation(
                    Close.LIMIT, f"more than {frames.WINDOW} messages are unacknowledged"
                )
            return frame
        if isinstance(frame, Cancel):
            return frame
        return frames.error(problem(400, "this edge checks no tokens, so it refreshes none"))

    def _check(self, message: ClientMessage) -> None:
        if len(message.data) > MAX_MESSAGE:
            raise Violation(
                Close.TOO_BIG, f"{len(message.data)} bytes of data; at most {MAX_MESSAGE}"
            )
        if message.ref <= self._last_ref:
            raise BadFrame(
                f"ref {message.ref} does not grow: {self._last_ref} was there", message.ref
            )

    def _refused(self, error: BadFrame) -> bytes:
        self._malformed += 1
        if self._malformed >= frames.MALFORMED_LIMIT:
            raise Violation(
                Close.POLICY,
                f"{self._malformed} malformed frames in a row; the last: {error}",
            )
        return frames.error(problem(error.status, str(error)), error.ref)
