"""What NATS tells of itself and of an app's streams, and who of the app is there. Changes nothing."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

import orjson

from fairlead.bus import Bus
from fairlead.errors import Malformed, Unusable
from fairlead.interest import Handler
from fairlead.protocol import manifest
from fairlead.protocol.manifest import Beat, Manifest
from fairlead.protocol.timestamps import nanoseconds

WITHIN = 2.0
"""Seconds for NATS to answer a question."""


@dataclass(frozen=True, slots=True)
class Used:
    """How much of something an account has, and may have at most; None is no limit."""

    now: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Account:
    """What JetStream grants; bytes for memory and storage."""

    memory: Used
    storage: Used
    streams: Used
    consumers: Used


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that has a copy of a stream, other than its leader.

    Attributes:
        current: whether it has what the leader has.
        lag: messages that it has yet to take, as far as the leader knows.
        silent: seconds since the leader heard of it; None if it never did.
    """

    name: str
    current: bool
    lag: int
    silent: float | None


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of the app, or of one of its buckets.

    Attributes:
        topic: the template whose rooms it keeps; "" if it keeps something else.
        leader: the server that leads it, "" where it has none; None without a cluster.
        told: when the server told this, in seconds since the epoch; None from a list.
    """

    name: str
    topic: str
    messages: int
    bytes: int
    replicas: int
    leader: str | None
    peers: tuple[Peer, ...]
    told: float | None


async def ask(bus: Bus, subject: str, question: Any = None) -> dict[str, Any]:
    """One question to JetStream; its answer, which may be an error.

    Raises:
        NoResponders: JetStream is not there.
        TimeoutError: no answer in time; so it is, too, if one may not ask, or not hear the answer.
        Malformed: what came is no answer.
    """
    payload = b"" if question is None else orjson.dumps(question)
    said = await bus.request(f"$JS.API.{subject}", payload, within=WITHIN)
    try:
        answer = orjson.loads(said)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"no answer of JetStream: {error}") from error
    if not isinstance(answer, dict):
        raise Malformed("no answer of JetStream")
    return answer


async def account(bus: Bus) -> Account:
    """What JetStream grants this account; raises as `ask`.

    Raises:
        Unusable: it is not on, for this account.
    """
    found = await ask(bus, "INFO")
    if "error" in found:
        raise Unusable(str(found["error"].get("description", "refused")))
    limits = found.get("limits", {})

    def used(name: str, limit: str) -> Used:
        most = int(limits.get(limit, -1))
        return Used(int(found.get(name, 0)), most if most > 0 else None)

    return Account(
        used("memory", "max_memory"),
        used("storage", "max_storage"),
        used("streams", "max_streams"),
        used("consumers", "max_consumers"),
    )


async def streams(bus: Bus) -> tuple[list[Stream], list[str]]:
    """(those of the app, names of those that nobody leads); raises as `ask`."""
    found: list[Stream] = []
    missing: list[str] = []
    offset = 0
    while True:
        page = await ask(bus, "STREAM.LIST", {"offset": offset})
        entries = page.get("streams") or []
        found += [_stream(entry) for entry in entries if _of_app(bus, entry["config"])]
        # Whose they are is not known, only what they are called.
        missing += [name for name in page.get("missing") or [] if name not in missing]
        offset += len(entries)
        if not entries or offset >= page.get("total", 0):
            return found, [name for name in missing if _prefixed(bus, name)]


async def stream(bus: Bus, name: str) -> Stream | None:
    """One stream, or None if there is none of this name; raises as `ask`."""
    found = await ask(bus, f"STREAM.INFO.{name}")
    return None if "error" in found else _stream(found)


def _of_app(bus: Bus, config: dict[str, Any]) -> bool:
    """By its subjects: the name of another app may begin with this one's."""
    own = f"{bus.subjects.root}."
    if any(subject.startswith(own) for subject in config.get("subjects") or []):
        return True
    bucket = config["name"].removeprefix(f"KV_FL_{bus.subjects.app}_")
    return bucket != config["name"] and not bucket.endswith(("_manifests", "_leases"))


def _prefixed(bus: Bus, name: str) -> bool:
    return name.removeprefix("KV_").startswith(f"FL_{bus.subjects.app}_")


def _stream(entry: dict[str, Any]) -> Stream:
    config, state, cluster = entry["config"], entry.get("state") or {}, entry.get("cluster")
    # A server that is alone in no cluster tells of one, too, and leads everything.
    clustered = cluster is not None and "name" in cluster
    peers = (cluster or {}).get("replicas") or []
    return Stream(
        name=config["name"],
        topic=(config.get("metadata") or {}).get("fairlead-topic", ""),
        messages=int(state.get("messages", 0)),
        bytes=int(state.get("bytes", 0)),
        replicas=int(config.get("num_replicas", 1)),
        leader=(cluster or {}).get("leader", "") if clustered else None,
        peers=tuple(_peer(each) for each in peers),
        told=nanoseconds(entry["ts"]) / 1e9 if "ts" in entry else None,
    )  # fmt: skip


def _peer(told: dict[str, Any]) -> Peer:
    current = told.get("current", False) and not told.get("offline", False)
    active = told.get("active", 0)
    silent = active / 1e9 if active or current else None
    return Peer(told["name"], current, told.get("lag", 0), silent)


async def builds(bus: Bus) -> dict[str, tuple[int, Manifest]]:
    """All builds that were ever written: digest → (generation, manifest); raises as `ask`.

    Those of another version of Fairlead, which cannot be read, are left out.
    """
    bucket, prefix = f"KV_{bus.subjects.manifests}", f"$KV.{bus.subjects.manifests}."
    info = await ask(bus, f"STREAM.INFO.{bucket}", {"subjects_filter": prefix + ">"})
    found: dict[str, tuple[int, Manifest]] = {}
    for key in (info.get("state") or {}).get("subjects") or {}:
        answer = await ask(bus, f"STREAM.MSG.GET.{bucket}", {"last_by_subj": key})
        message = answer.get("message")
        if message is None:
            continue
        try:
            read = manifest.decode(base64.b64decode(message.get("data", "")))
        except Malformed:
            continue
        found[key.removeprefix(prefix)] = int(message["seq"]), read
    return found


async def workers(bus: Bus, within: float) -> dict[str, Beat]:
    """The workers that beat within so many seconds: id → what it says of itself."""
    found: dict[str, Beat] = {}

    def heard(_subject: str, _reply: str, data: bytes, _headers: bytes) -> None:
        try:
            beat = manifest.decode_beat(data)
        except Malformed:
            return
        if not beat.leaving:
            found[beat.worker] = beat

    await _listen(bus, bus.subjects.beats, bus.subjects.roll, "", heard, within)
    return found


async def reports(bus: Bus, within: float) -> list[dict[str, Any]]:
    """What edges and workers tell of themselves within so many seconds, if they do."""
    found: list[dict[str, Any]] = []

    def heard(_subject: str, _reply: str, data: bytes, _headers: bytes) -> None:
        try:
            told = orjson.loads(data)
        except orjson.JSONDecodeError:
            return  # or that nobody is there
        if isinstance(told, dict) and isinstance(told.get("role"), str):
            found.append(told)

    inbox = bus.new_inbox
    await _listen(bus, inbox, bus.subjects.report, inbox, heard, within)
    return found


async def _listen(
    bus: Bus, subject: str, question: str, reply: str, heard: Handler, within: float
) -> None:
    interest = bus.subscribe(subject, heard)
    try:
        bus.publish(question, b"", reply)
        await asyncio.sleep(within)
    finally:
        bus.unsubscribe(interest)
