"""Every NATS subject of the system; nothing outside this module spells one.

=============================================  ===========================================
in.<feature>.<workflow>.<topic>.<channel>      edge → any one worker: messages and opens
edge.<edge>.<connection>                       worker → the edge that holds the client
edge.<edge>.<connection>.<message>.<attempt>   the same, as the answer to one attempt
edge.<edge>.census                             worker → edge: which of these runs are wanted?
peer.<topic>.<digest>                          worker → the edges where this subject is
worker.<worker>                                edge → one worker: cancel, credit, input
worker.<worker>.in.…                           edge → this worker: work that another did not take
log.<topic>.<channel>                          anyone allowed → a room
live.<topic>.<channel>                         a room's stream → edges, once it is stored
run.<run>.open                                 worker → the runs' stream: what the run began with
run.<run>.log                                  worker → the runs' stream: what it says
run.<run>.live                                 the runs' stream → edges, once that is stored
run.<run>.end                                  worker → the runs' stream: it is over
run.<run>.control                              edge → the worker that has the run
beat.<worker>                                  worker → edges: I live, this is in my hands
roll                                           edge → workers: beat now
seek.<feature>.<workflow>.<topic>.<channel>    edge → any one worker: this room has no runner
want.<feature>.<workflow>.<topic>.<channel>    edge → the runner of a room: members are here
stand.<feature>.<workflow>.<topic>.<channel>   the runner of a room → edges: how it stands
errors                                         workers → whoever streams the fleet's errors
broker                                         nats-server → one edge: how it passed a message on
report                                         console → edges and workers: tell how you stand
inbox.<role>.<id>                              replies
=============================================  ===========================================

`permissions.py` says the same of roles and queue groups, for those who configure NATS.
All stand under `fl.<app>`. A topic may have several levels; feature, workflow and
channel are one each, so a subject can be taken apart from both of its ends.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple

from fairlead.errors import BadName, Malformed
from fairlead.protocol import names

WORKERS = "workers"
"""The queue group in which the workers of an app share the work."""

EDGES = "edges"
"""The queue group in which edges share what is to be told to one of them."""

CONNECTION_SEPARATOR = "-"
"""A connection's id is `<edge>-<number on that edge>`: whoever has it can reach its edge."""

KINDS = frozenset(
    (
        "in", "edge", "peer", "worker", "log", "live", "run", "beat", "roll", "seek", "want",
        "stand", "errors", "broker", "report", "inbox",
    )
)  # fmt: skip
"""What may stand behind `fl.<app>`."""


CENSUS = "census"
"""Stands where a connection's id does; none is without a separator."""


class Answer(NamedTuple):
    """What the end of an `edge.` subject says: whom and what a worker's bytes are for."""

    connection: str
    message: int
    attempt: int


class Subjects:
    """The subjects of one app.

    Args:
        app: 1 to 64 letters, digits, '-' or '_'.
    """

    def __init__(self, app: str) -> None:
        if not names.is_token(app):
            raise BadName(
                f"app {app!r} is not an app's name; expected 1 to 64 letters, digits, '-' or '_'"
            )
        self.app = app
        self.root = f"fl.{app}"
        self._log = f"{self.root}.log."
        self._live = f"{self.root}.live."

    # Work and its answers

    def inbound(self, feature: str, workflow: str, topic: str, channel: str) -> str:
        """Where an edge sends a message or an open; "-" for no topic, no channel."""
        return f"{self.root}.in.{feature}.{workflow}.{topic}.{channel}"

    def inbound_all(self, feature: str, workflow: str) -> str:
        """What a worker subscribes to for one workflow, in the queue group WORKERS."""
        return f"{self.root}.in.{feature}.{workflow}.>"

    @staticmethod
    def workflow_of_inbound(subject: str) -> tuple[str, str]:
        """(feature, workflow) of a subject made by `inbound`."""
        _, _, _, feature, workflow, *_ = subject.split(".")
        return feature, workflow

    @staticmethod
    def room_of_inbound(subject: str) -> tuple[str, str]:
        """(topic, channel) of a subject made by `inbound` or `seek`."""
        return _room_of_inbound(subject)

    def seek(self, feature: str, workflow: str, topic: str, channel: str) -> str:
        """Where an edge asks for a runner of a room."""
        return f"{self.root}.seek.{feature}.{workflow}.{topic}.{channel}"

    def seek_all(self, feature: str, workflow: str) -> str:
        """What a worker subscribes to for a workflow that runs once per room, in WORKERS."""
        return f"{self.root}.seek.{feature}.{workflow}.>"

    def want(self, feature: str, workflow: str, topic: str, channel: str) -> str:
        """Where the runner of a room hears which edges have members in it."""
        return f"{self.root}.want.{feature}.{workflow}.{topic}.{channel}"

    def stand(self, feature: str, workflow: str, topic: str, channel: str) -> str:
        """Where the edges with members in a room hear of its runs, when something changes."""
        return f"{self.root}.stand.{feature}.{workflow}.{topic}.{channel}"

    def connection(self, connection: str) -> str:
        """Where a connection is reached, by its id.

        Raises:
            BadName: it is not a connection's id.
        """
        edge, separator, _ = connection.partition(CONNECTION_SEPARATOR)
        if not edge or not separator or not names.is_token(connection):
            raise BadName(f"{connection[:80]!r} is no connection id")
        return f"{self.root}.edge.{edge}.{connection}"

    def answer(self, edge: str, connection: str, message: int, attempt: int) -> str:
        """Where the answers to one attempt at one message go."""
        return f"{self.root}.edge.{edge}.{connection}.{message}.{attempt}"

    def census(self, edge: str) -> str:
        """Where an edge is asked about runs; no connection's id is without a separator."""
        return f"{self.root}.edge.{edge}.{CENSUS}"

    def peer(self, topic: str, who: str) -> str:
        """Where the connections of a subject are reached, by the subject's id.

        An id may hold anything, so its digest stands for it.
        """
        digest = hashlib.sha256(who.encode(errors="surrogatepass")).hexdigest()[:32]
        return f"{self.root}.peer.{topic}.{digest}"

    def edge_all(self, edge: str) -> str:
        """The one subscription of an edge for all that workers say to its connections."""
        return f"{self.root}.edge.{edge}.>"

    def worker(self, worker: str) -> str:
        return f"{self.root}.worker.{worker}"

    def handed(self, worker: str, inbound: str) -> str:
        """Where one worker gets work that was made for any of them."""
        return f"{self.root}.worker.{worker}{inbound.removeprefix(self.root)}"

    def handed_all(self, worker: str) -> str:
        return f"{self.root}.worker.{worker}.in.>"

    def inbound_of_handed(self, subject: str) -> str:
        """What `handed` was given."""
        return f"{self.root}.{'.'.join(subject.split('.')[4:])}"

    def beat(self, worker: str) -> str:
        return f"{self.root}.beat.{worker}"

    @property
    def beats(self) -> str:
        return f"{self.root}.beat.*"

    @property
    def roll(self) -> str:
        return f"{self.root}.roll"

    @property
    def errors(self) -> str:
        return f"{self.root}.errors"

    @property
    def broker(self) -> str:
        """Where nats-server tells of sampled messages: `msg_trace { dest }` of its account."""
        return f"{self.root}.broker"

    @property
    def report(self) -> str:
        """Where edges and workers are asked how they stand."""
        return f"{self.root}.report"

    def inbox(self, role: str, process: str) -> str:
        """A prefix of its own for each role, so that permissions can tell them apart."""
        return f"{self.root}.inbox.{role}.{process}"

    # Rooms

    def log(self, topic: str, channel: str) -> str:
        """Where a room is published to."""
        return f"{self._log}{topic}.{channel}"

    def live(self, topic: str, channel: str) -> str:
        """Where edges hear of a room's messages once they are stored."""
        return f"{self._live}{topic}.{channel}"

    @property
    def republish(self) -> tuple[str, str]:
        """(source, destination) of the RePublish of each stream."""
        return f"{self._log}>", f"{self._live}>"

    def stream_subject(self, levels: tuple[str, ...]) -> str:
        """All rooms of a topic template."""
        wild = ("*" if level.startswith("{") else level for level in levels)
        return f"{self._log}{'.'.join(wild)}.*"

    def stream(self, topic: str) -> str:
        """The stream that keeps a topic template's rooms; the digest keeps `a.b` and `a-b` apart."""
        digest = hashlib.sha256(f"{self.app}\n{topic}".encode()).hexdigest()[:8]
        readable = "".join("-" if c == "." else c for c in topic if c not in "{}")
        return f"FL_{self.app}_{readable}_{digest}"

    # Runs whose output is kept

    def run_open(self, run: str) -> str:
        """Where the request that began a run is stored.

        Raises:
            BadName: it is no run's id.
        """
        return self._run(run, "open")

    def run_log(self, run: str) -> str:
        """Where what it says is stored."""
        return self._run(run, "log")

    def run_live(self, run: str) -> str:
        """Where edges hear what a run says once it is stored."""
        return self._run(run, "live")

    def run_end(self, run: str) -> str:
        """Where it is stored that it is over."""
        return self._run(run, "end")

    def run_control(self, run: str) -> str:
        """Whoever answers here has the run in hand."""
        return self._run(run, "control")

    def run_all(self, run: str) -> str:
        """All that is stored of one run."""
        return self._run(run, "*")

    def _run(self, run: str, what: str) -> str:
        if not names.is_token(run):
            raise BadName(f"{run[:80]!r} is no run's id")
        return f"{self.root}.run.{run}.{what}"

    @property
    def runs_all(self) -> str:
        return f"{self.root}.run.>"

    @property
    def runs_stored(self) -> list[str]:
        """What the stream of the runs keeps."""
        return [f"{self.root}.run.*.{what}" for what in ("open", "log", "end")]

    @property
    def runs_republish(self) -> tuple[str, str]:
        """(source, destination) of its RePublish."""
        return f"{self.root}.run.*.log", f"{self.root}.run.{{{{wildcard(1)}}}}.live"

    @property
    def runs(self) -> str:
        """The stream of the runs."""
        return f"FL_{self.app}_RUNS"

    @property
    def manifests(self) -> str:
        """The key-value bucket of the manifests."""
        return f"FL_{self.app}_manifests"

    @property
    def leases(self) -> str:
        """The key-value bucket of the leases of rooms' runners."""
        return f"FL_{self.app}_leases"

    def lease(self, feature: str, workflow: str, topic: str, channel: str) -> str:
        """Where the lease of a room's runner is written to: a key of that bucket."""
        return f"$KV.{self.leases}.{feature}.{workflow}.{topic}.{channel}"


def kind_of(subject: str) -> str:
    """What a subject is for, as a log may tell it: further levels hold names that clients choose."""
    levels = subject.split(".", 3)
    return levels[2] if len(levels) > 2 and levels[0] == "fl" and levels[2] in KINDS else "other"


def as_made(run: str) -> str:
    """A run's id if it is one that an edge makes, for a log; whoever may store can name others."""
    return run if _RUN.fullmatch(run) else "other"


_RUN = re.compile(r"[0-9a-f]{8}-\d+[0-9a-f]{8}-\d+")

_WITH_NAMES = re.compile(r"""(\bfl\.[\w-]+\.[a-z]+|\$KV\.[\w-]+)\.[^\s"']*?(?=:?[\s"']|:?$)""")


def shortened(text: str) -> str:
    """A text of NATS, or of ours, without those levels of the subjects in it."""
    return _WITH_NAMES.sub(r"\1.…", text)


@lru_cache(maxsize=4096)  # a room's messages come many at a time
def _room_of_inbound(subject: str) -> tuple[str, str]:
    tokens = subject.split(".")
    if len(tokens) < 7:
        raise Malformed(f"{subject!r} is no subject of a message")
    return ".".join(tokens[5:-1]), tokens[-1]


def parse_answer(subject: str) -> Answer | str:
    """What follows `fl.<app>.edge.<edge>.`: the answer to an attempt, or just a connection.

    Raises:
        Malformed: it is neither.
    """
    tokens = subject.split(".")
    if len(tokens) == 5:
        return tokens[4]
    try:
        _, _, _, _, connection, message, attempt = tokens
        return Answer(connection, int(message), int(attempt))
    except ValueError:
        raise Malformed(f"{subject!r} is no subject of an answer") from None
