"""What `fairlead doctor` makes of what it saw: found, expected, and what to do about it. Asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fairlead.grants import Denied
from fairlead.natsinfo import Account, Peer, Stream, Used
from fairlead.protocol.manifest import Beat, Manifest
from fairlead.protocol.permissions import Role
from fairlead.protocol.problems import HEADROOM, MAX_MESSAGE
from fairlead.protocol.subjects import Subjects

OLDEST_SERVER = (2, 11)
"""Batched direct gets, by which rooms are read, came with it."""

SLOW = 0.05
"""Seconds to a server and back above which it is worth a look: each message makes several such ways."""

NEARLY_FULL, FULL = 0.75, 0.9
"""Parts of a limit of JetStream. Room for what is written until somebody has acted is needed."""

SKEW, BAD_SKEW = 1.0, 10.0
"""Seconds between two clocks. Queue waits and when a run is forgotten are told by a worker's own."""

FEW_FILES, TOO_FEW_FILES = 10_000, 256
"""Open files of a process. Each client of an edge is one; a worker needs a few dozen."""

LEADER_CHANGE = 5.0
"""Seconds for which a stream has no leader after its server was lost (measured)."""


Builds = Mapping[str, tuple[int, Manifest]]
"""Digest → (generation, manifest)."""


class State(StrEnum):
    """OK: as it should be. NOTE: worth knowing. WRONG: to be mended. UNKNOWN: not looked at."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at something brought.

    Attributes:
        check: a word for what was looked at; programs may rely on it.
        expected, advice: "" where all is well.
    """

    check: str
    state: State
    found: str
    expected: str = ""
    advice: str = ""


def _ok(check: str, found: str) -> Finding:
    return Finding(check, State.OK, found)


def _note(check: str, found: str, expected: str, advice: str) -> Finding:
    return Finding(check, State.NOTE, found, expected, advice)


def _wrong(check: str, found: str, expected: str, advice: str) -> Finding:
    return Finding(check, State.WRONG, found, expected, advice)


# Servers


def reached(server: str, rtt: float) -> Finding:
    found = f"{server} answers in {rtt * 1000:.1f} ms"
    if rtt < SLOW:
        return _ok("nats", found)
    return _note(
        "nats",
        found,
        f"less than {SLOW * 1000:g} ms",
        "run edges and workers near their NATS servers: each message goes there and back several times",
    )


def unreached(server: str, reason: str) -> Finding:
    advice = "start it, or name others with --nats (FAIRLEAD_NATS)"
    lowered = reason.lower()
    # A server that refuses a user hangs up, and may be quicker with that than with its reason.
    if any(word in lowered for word in ("authorization", "authentication", "reset by peer")):
        advice = "give the user and password, or the token, that the server's configuration has"
    elif "certificate" in lowered or "ssl" in lowered or "tls" in lowered:
        advice = "look at the certificates of both sides, and whether the URL begins with tls://"
    return _wrong("nats", f"{server} cannot be reached: {reason}", "it answers", advice)


def version(server: str, info: Mapping[str, Any]) -> Finding:
    text = str(info.get("version", ""))
    found = f"{server} is nats-server {text or 'of a version that it does not tell'}"
    expected = ".".join(map(str, OLDEST_SERVER))
    try:
        known = tuple(int(part) for part in text.split(".")[:2])
    except ValueError:
        known = ()
    if known >= OLDEST_SERVER:
        return _ok("version", found)
    return _wrong(
        "version", found, f"{expected} or newer", "update the server, one of a cluster at a time"
    )


def payload(server: str, info: Mapping[str, Any]) -> Finding:
    most, needed = int(info.get("max_payload", 0)), MAX_MESSAGE + HEADROOM
    found = f"{server} takes messages of {most} bytes"
    if most >= needed:
        return _ok("max_payload", found)
    return _wrong(
        "max_payload",
        found,
        f"at least {needed} bytes: 1 MiB of user data and 64 KiB beside it; edges and workers refuse to start",
        "set max_payload: 2097152 in the server's configuration, and reload it",
    )


# JetStream


def no_jetstream(reason: str) -> Finding:
    return _wrong(
        "jetstream",
        f"not there for this account: {reason}",
        "JetStream: rooms with history, builds and kept runs live in it",
        "start nats-server with -js, or put jetstream { store_dir: … } into its configuration, and "
        "jetstream: enabled into the account",
    )


def not_asked(check: str, why: str) -> Finding:
    return Finding(check, State.UNKNOWN, why)


_MORE_SPACE = {
    "storage": "raise max_file of the account, keep less history, or remove streams of nobody",
    "memory": "raise max_mem of the account; Fairlead's own streams are files",
    "streams": "raise max_streams of the account: each topic with history needs one",
    "consumers": "raise max_consumers of the account; Fairlead makes none, so they are others'",
}


def space(account: Account) -> list[Finding]:
    """How much of what JetStream grants is used."""
    return [_space(name, getattr(account, name)) for name in _MORE_SPACE]


def _space(name: str, used: Used) -> Finding:
    check = f"jetstream {name}"
    shown = size if name in ("storage", "memory") else str
    if used.most is None:
        return _ok(check, f"{shown(used.now)} used; the account has no limit of its own")
    part = used.now / used.most
    found = f"{shown(used.now)} of {shown(used.most)} used ({part:.0%})"
    if part < NEARLY_FULL:
        return _ok(check, found)
    state = State.WRONG if part >= FULL else State.NOTE
    what = "at the limit nothing more is stored, and messages fail with 503"
    return Finding(check, state, found, f"less than {NEARLY_FULL:.0%}; {what}", _MORE_SPACE[name])


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


# Permissions, clocks, limits of this machine, times


def permitted(role: Role, denied: Denied) -> Finding:
    check = f"permissions {role}"
    if not denied.count:
        return _ok(check, f"this user may say and hear all that {_a(role)} needs")
    parts = []
    if denied.publish:
        parts.append(f"publish to {', '.join(denied.publish)}")
    if denied.subscribe:
        parts.append(f"subscribe to {', '.join(denied.subscribe)}")
    return _wrong(
        check,
        f"this user may not {'; may not '.join(parts)}",
        f"all that {_a(role)} needs (fairlead/protocol/permissions.py)",
        "allow these in the user's permissions; if it is no user of this role, name its own with --role",
    )


def _a(role: Role) -> str:
    return f"an {role}" if role is Role.EDGE else f"a {role}"


def clock(told: float, asked: float, answered: float) -> Finding:
    """Args: told: the server's time, between the other two by this machine's clock; in seconds."""
    ahead = told - (asked + answered) / 2
    off = max(0.0, abs(ahead) - (answered - asked) / 2)
    found = f"the server's clock is {abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if off < SKEW:
        return _ok("clock", found)
    state = State.WRONG if off >= BAD_SKEW else State.NOTE
    return Finding(
        "clock",
        state,
        found,
        f"less than {SKEW:g} s",
        "let both machines follow a time server (chrony, systemd-timesyncd)",
    )


def open_files(soft: int, hard: int) -> Finding:
    """Args: -1 is no limit."""
    found = f"{_limit(soft)} open files for a process that is started here, {_limit(hard)} at most"
    if soft < 0 or soft >= FEW_FILES:
        return _ok("open files", found)
    state = State.WRONG if soft < TOO_FEW_FILES else State.NOTE
    return Finding(
        "open files",
        state,
        found,
        f"one for each client of an edge: {FEW_FILES} is a usual figure",
        "raise it where edges are started: ulimit -n 16384, LimitNOFILE= of systemd, ulimits.nofile of a container",
    )


def _limit(value: int) -> str:
    return "any number of" if value < 0 else str(value)


_SANE = {
    "drain_grace": (
        6.0,
        "an edge waits up to 5 s for acknowledgements before it moves its clients",
    ),
    "worker_wait": (
        3.0,
        "a worker that is restarted is away for that long; it would be 503 each time",
    ),
    "ready_grace": (
        6.0,
        "a lost server is missed for 5 s; all edges would leave the balancer at once",
    ),
    "policy_timeout": (0.5, "policies ask databases; who waits longer is refused with 503"),
}
"""Field → (seconds that it should have at least, why)."""


def patience(times: Mapping[str, float]) -> list[Finding]:
    """Args: times: in seconds, of those fields that are said here; the defaults are sane."""
    return [_patience(name, value) for name, value in times.items()]


def _patience(name: str, value: float) -> Finding:
    least, why = _SANE[name]
    variable = f"FAIRLEAD_{name.upper()}"
    found = f"{variable} is {value:g} s"
    if value >= least:
        return _ok("times", found)
    advice = f"set {variable} to {least:g}s or more, or leave it out"
    return _note("times", found, f"{least:g} s or more: {why}", advice)


# Streams, builds, processes


def leftovers(
    subjects: Subjects, streams: Sequence[Stream], served: Sequence[Manifest]
) -> list[Finding]:
    """Streams that no build which is served has any use for, and buckets of nobody."""
    topics = {t for build in served for t, history in build.topics.items() if history is not None}
    keeps_runs = any(route.resume is not None for build in served for route in build.routes)
    buckets = {f"KV_{subjects.manifests}", f"KV_{subjects.leases}"}

    def useless(stream: Stream) -> str:
        if stream.name == subjects.runs:
            return "" if keeps_runs else "keeps runs, and no live build has resume="
        if stream.name.startswith("KV_"):
            return "" if stream.name in buckets else "is a bucket that this version does not know"
        if stream.topic in topics:
            return ""
        return f"keeps rooms of {stream.topic!r}, which no live build has with history"

    found = [(stream, why) for stream in streams if (why := useless(stream))]
    if not found:
        return [_ok("streams", f"{len(streams)} streams and buckets, each of them in use")]
    return [
        _note(
            "streams",
            f"{stream.name} {why}: {stream.messages} messages, {size(stream.bytes)}",
            "streams of what live builds declare",
            f"if no older build is to come back: nats stream rm {stream.name}",
        )
        for stream, why in found
    ]


def copies(streams: Sequence[Stream], leaderless: Iterable[str], servers: int) -> list[Finding]:
    """Leaders, and copies on other servers.

    Args:
        leaderless: names of streams that did not answer.
        servers: of the cluster, as far as is known; 1 without one.
    """
    nobody_leads = [*leaderless, *(stream.name for stream in streams if stream.leader == "")]
    findings = [_no_leader(name) for name in nobody_leads]
    behind: dict[str, list[tuple[str, Peer]]] = {}
    for stream in streams:
        for peer in stream.peers:
            if not peer.current:
                behind.setdefault(peer.name, []).append((stream.name, peer))
    findings += (_behind(name, copies) for name, copies in behind.items())
    single = sorted(stream.name for stream in streams if stream.replicas < 3 <= servers)
    if single:
        findings.append(_few_copies(single, servers))
    if not findings and streams:
        each = " or ".join(map(str, sorted({stream.replicas for stream in streams})))
        found = f"{each} of each stream, on {servers} server{'s' * (servers > 1)}"
        findings.append(_ok("replicas", found))
    return findings


def _few_copies(names: Sequence[str], servers: int) -> Finding:
    return _note(
        "replicas",
        f"fewer than 3 copies on a cluster of {servers} servers: {', '.join(names)}",
        "3 copies: a server that is lost takes the others with it until it is back",
        "start workers with --replicas 3, for new streams; for each of these: "
        "nats stream edit NAME --replicas 3",
    )


def _behind(name: str, copies: Sequence[tuple[str, Peer]]) -> Finding:
    lag = max(peer.lag for _, peer in copies)
    silent = [peer.silent for _, peer in copies]
    ago = min((each for each in silent if each is not None), default=None)
    heard = "have not heard of it" if ago is None else f"heard of it {ago:.0f} s ago"
    streams = ", ".join(stream for stream, _ in copies[:3]) + ", …" * (len(copies) > 3)
    return _wrong(
        "replicas",
        f"{name} does not keep up with {len(copies)} streams ({streams}): up to {lag} messages "
        f"behind; their leaders {heard}",
        "all copies keep up: the next server that is lost may be the last with the newest messages",
        f"start {name}, or look at its disk, its network and its log",
    )


def _no_leader(name: str) -> Finding:
    return _wrong(
        "leader",
        f"{name} has no leader: nothing can be stored in it, or read",
        f"a leader, {LEADER_CHANGE:g} s after a server was lost at the latest",
        "start the servers that have its copies; most of them must be there (nats stream report)",
    )


def served(builds: Builds, workers: Mapping[str, Beat]) -> dict[str, Manifest]:
    """Of which builds edges serve the routes: those with a live worker, or the newest."""
    live = {beat.build for beat in workers.values()} & builds.keys()
    if not live and builds:
        live = {max(builds, key=lambda digest: builds[digest][0])}
    return {digest: builds[digest][1] for digest in live}


def alive(builds: Builds | None, workers: Mapping[str, Beat], edges: int | None) -> list[Finding]:
    """Who is there.

    Args:
        builds: None where they cannot be read.
        edges: how many answered; None where nobody did.
    """
    known = not_asked("builds", "the bucket of the builds cannot be read")
    seen = [known] if builds is None else _builds(builds, workers)
    return [*seen, _workers(len(workers)), *_edges(edges)]


def _builds(builds: Builds, workers: Mapping[str, Beat]) -> Iterator[Finding]:
    live = {beat.build for beat in workers.values()}
    if unknown := sorted(live - builds.keys()):
        yield _wrong(
            "builds",
            f"workers run builds whose manifest is missing, or cannot be read: {', '.join(unknown)}",
            "the manifest of each live build, in the bucket: edges serve none without",
            "restart these workers; if they are of another version of Fairlead, update the older side",
        )
    if builds:
        yield _ok("builds", f"{len(builds)} known, {len(live & builds.keys())} with live workers")
    else:
        advice = "start a worker, or name another --app"
        yield _note("builds", "no worker was ever here", "a build", advice)


def _workers(count: int) -> Finding:
    if count:
        return _ok("workers", f"{count} live")
    expected = "a worker: messages wait, and are answered 503 after FAIRLEAD_WORKER_WAIT"
    return _note("workers", "none is there", expected, "start one: fairlead worker TARGET")


def _edges(count: int | None) -> Iterator[Finding]:
    if count:
        yield _ok("edges", f"{count} live")
    elif count is not None:
        yield _note(
            "edges", "none has answered", "an edge: nobody can connect", "start one: fairlead edge"
        )
