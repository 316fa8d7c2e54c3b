"""Which span is open for a run: from what it begins with, over each message that it reads, to its end.

What the spans say is in `spans.py`.
"""

from __future__ import annotations

from typing import Protocol

from fairlead import telemetry
from fairlead.protocol.envelope import Work
from fairlead.telemetry import Hop, Tracing, new_trace_id, parent_of
from fairlead_worker import spans
from fairlead_worker.inbox import Inbox
from fairlead_worker.spans import Executed, Processing


class Traced(Executed, Protocol):
    """A run, as far as what is recorded of it tells."""

    work: Work
    inbox: Inbox | None


class Recording:
    """What is recorded of one run.

    Each message that the run of a connection reads is worked on by itself.

    Attributes:
        processing: of what is worked on now; None if that is not sampled, or there is nothing.
    """

    __slots__ = ("_run", "_trace_id", "_tracing", "processing")

    def __init__(self, tracing: Tracing | None, run: Traced) -> None:
        self.processing: Processing | None = None
        self._tracing = tracing
        self._run = run
        self._trace_id = ""

    @property
    def trace_id(self) -> str:
        """Of the trace, or of the log lines where there is none."""
        if self.processing is not None and self._run.inbox is not None:
            return self.processing.hop.parent.trace_id  # of the message in hand
        if not self._trace_id:
            parent = parent_of(self._run.work.trace)
            self._trace_id = parent.trace_id if parent else new_trace_id()
        return self._trace_id

    def begin(self, previous: str = "") -> None:
        """Record it from here on, if it is sampled. Args: previous: trace of the attempt before."""
        tracing, inbox = self._tracing, self._run.inbox
        if tracing is None or self.processing is not None:
            return
        self.processing = spans.process(tracing, self._run, self._run.work, previous)
        if inbox is not None:
            inbox.on_taken, inbox.on_done = self._took, self.done
            telemetry.follow(self.hop_now)
        elif self.processing is not None:
            self.processing.hop.activate()

    def hop_now(self) -> Hop | None:
        return None if self.processing is None else self.processing.hop

    def _took(self, work: Work) -> None:
        """The run of a connection reads a message: a trace that ends when it asks for the next."""
        assert self._tracing is not None
        self.done()  # two may read at once; then the one before is done with
        self.processing = spans.process(self._tracing, self._run, work)

    def done(self) -> None:
        """What it worked on is over."""
        processing, self.processing = self.processing, None
        if processing is not None:
            processing.end()

    def handed_over(self) -> None:
        """It ends here before its end, and goes on elsewhere."""
        if self.processing is not None:
            self.processing.hop.event("handed over")

    def failed(self, status: int, error: BaseException | None) -> None:
        """It ends with a problem of this status; `error` if something was raised that should not be."""
        if self.processing is None and error is not None:
            self.processing = self._broken()
        if self.processing is not None:
            self.processing.failed(status, error)

    def publishing(self, size: int, direct: bool = False) -> Hop | None:
        """The span of something that goes to others, if that is sampled.

        What a run of a connection says by itself, and not of a message, begins a trace.
        """
        tracing = self._tracing
        if self.processing is not None:
            return self.processing.publish(self._run, size, direct)
        if tracing is None or not self._speaks_by_itself or not tracing.sampled(None):
            return None
        return spans.publish(tracing, self._run, None, size, direct)

    @property
    def _speaks_by_itself(self) -> bool:
        inbox = self._run.inbox
        return inbox is not None and not inbox.in_hand

    def _broken(self) -> Processing | None:
        """Where it is recorded that the run of a connection has raised, outside of any message."""
        if self._tracing is None or self._run.inbox is None:
            return None
        return spans.process(self._tracing, self._run, self._run.work, kind="run")


class RoomRecording(Recording):
    """That of a room's run: each item begins a trace, for no span stays open as long as a room."""

    __slots__ = ()

    @property
    def _speaks_by_itself(self) -> bool:
        return True

    def _broken(self) -> Processing | None:
        tracing = self._tracing
        if tracing is None or not tracing.sampled(None):
            return None
        processing = spans.broken(tracing, self._run)
        self._trace_id = processing.hop.parent.trace_id
        return processing
