"""The stream of the runs with `resume`: what is stored of a run, read and written over NATS.

What the bytes mean is `fairlead.protocol.runlog`'s business.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import orjson

from fairlead import storing
from fairlead.bus import Bus, NoResponders
from fairlead.errors import BadName, NotStored
from fairlead.protocol import runlog
from fairlead.protocol.runlog import Entry, Opening
from fairlead.storing import ACK_WITHIN, DUPLICATE_WINDOW, OutOfOrder

MAX_AGE = 24 * 3600
"""Seconds after which what a run said is forgotten, whether it still runs or not."""

_IN_USE = 10058
"""nats-server's `JSStreamNameExistErr`: there is a stream of this name, with other options."""


class Found(NamedTuple):
    """A stored message: its place in the stream, and its bytes."""

    sequence: int
    data: bytes


async def ensure(bus: Bus) -> None:
    """Create the stream, or bring it to these options.

    Raises:
        NotStored: JetStream does not answer, or refuses.
    """
    subjects = bus.subjects
    source, destination = subjects.runs_republish
    config: dict[str, Any] = {
        "name": subjects.runs,
        "description": "What Fairlead's runs with resume said",
        "subjects": subjects.runs_stored,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": MAX_AGE * 1_000_000_000,
        "num_replicas": bus.options.replicas,
        "duplicate_window": int(DUPLICATE_WINDOW) * 1_000_000_000,
        "allow_direct": True,
        "republish": {"src": source, "dest": destination},
    }
    answer = await _asked(bus, f"STREAM.CREATE.{subjects.runs}", config)
    if answer.get("error", {}).get("err_code") == _IN_USE:
        now = await _asked(bus, f"STREAM.INFO.{subjects.runs}", {})
        config["num_replicas"] = now["config"]["num_replicas"]
        answer = await _asked(bus, f"STREAM.UPDATE.{subjects.runs}", config)
    _refuse_errors(bus, answer)


# Reading


async def opening(bus: Bus, run: str) -> tuple[int, Opening]:
    """What a run began with, and the sequence of that.

    Raises:
        LookupError: there is no such run, or it is forgotten.
        NotStored: the stream does not answer.
    """
    try:
        found = await _message(bus, {"last_by_subj": bus.subjects.run_open(run)})
    except BadName as error:
        raise LookupError(str(error)) from None
    if found is None:
        raise LookupError(f"run {run} is not known; it is over, or never was")
    return found.sequence, runlog.decode_opening(found.data)


async def first(bus: Bus, run: str) -> tuple[int, Entry] | None:
    """The oldest entry that is there; None if nothing is. Raises as `opening`."""
    return _entry(await _message(bus, {"seq": 1, "next_by_subj": bus.subjects.run_log(run)}))


async def last(bus: Bus, run: str) -> tuple[int, Entry] | None:
    """The newest entry; None if nothing is there. Raises as `opening`."""
    return _entry(await _message(bus, {"last_by_subj": bus.subjects.run_log(run)}))


async def entry(bus: Bus, sequence: int) -> Entry | None:
    """The entry of this sequence; None if it is gone. Raises as `opening`."""
    found = _entry(await _message(bus, {"seq": sequence}))
    return None if found is None else found[1]


def _entry(found: Found | None) -> tuple[int, Entry] | None:
    return None if found is None else (found.sequence, runlog.decode_entry(found.data))


async def _message(bus: Bus, which: dict[str, str | int]) -> Found | None:
    """A message, from the stream's leader; None if there is none."""
    answer = await _asked(bus, f"STREAM.MSG.GET.{bus.subjects.runs}", which)
    if answer.get("error", {}).get("code") == 404:
        return None
    _refuse_errors(bus, answer)
    message = answer["message"]
    return Found(int(message["seq"]), base64.b64decode(message.get("data", "")))


async def stored(bus: Bus) -> dict[str, set[str]]:
    """All runs of which something is stored: id → what (`open`, `log`, `end`).

    Raises:
        NotStored: the stream does not answer, or is not there.
    """
    asked = {"subjects_filter": bus.subjects.runs_all}
    answer = await _asked(bus, f"STREAM.INFO.{bus.subjects.runs}", asked)
    _refuse_errors(bus, answer)
    runs: dict[str, set[str]] = {}
    for subject in (answer.get("state") or {}).get("subjects") or {}:
        *_, run, what = subject.split(".")
        runs.setdefault(run, set()).add(what)
    return runs


async def due(bus: Bus, run: str) -> float | None:
    """Seconds since the epoch after which an ended run may be forgotten; None if it has not ended.

    Raises:
        NotStored: the stream does not answer.
    """
    found = await _message(bus, {"last_by_subj": bus.subjects.run_end(run)})
    return None if found is None else runlog.decode_end(found.data)


# Writing


async def open_run(bus: Bus, run: str, kept: Opening) -> None:
    """Store what a run begins with; storing it again changes nothing.

    Raises:
        NotStored: it could not be.
    """
    headers = {"Nats-Msg-Id": f"{run}:open"}
    await storing.store(bus, bus.subjects.run_open(run), runlog.encode_opening(kept), headers)


async def append(bus: Bus, run: str, entry: Entry, after: int) -> int:
    """Store an entry if the one before it has this sequence; 0 if it is to be the first.

    Returns:
        Its sequence.

    Raises:
        OutOfOrder: another has written: it has the run now.
        NotStored: it could not be.
    """
    subject, data = bus.subjects.run_log(run), runlog.encode_entry(entry)
    headers = {
        "Nats-Msg-Id": f"{run}:{entry.attempt}:{entry.number}",
        "Nats-Expected-Last-Subject-Sequence": str(after),
    }
    if entry.begins:
        # Two may begin the same attempt, on one worker even: they must not be taken for one.
        start = runlog.decode_start(entry.said[0])
        headers["Nats-Msg-Id"] += f":{start.worker}:{start.at}"
    try:
        return (await storing.store(bus, subject, data, headers)).sequence
    except OutOfOrder:
        # It may be ours that is there: stored before a leader went, and tried again after.
        newest = await storing.answered(bus, lambda: _message(bus, {"last_by_subj": subject}))
        if newest is not None and newest.sequence > after and newest.data == data:
            return newest.sequence
        raise


async def end(bus: Bus, run: str, ended: float, resume: float) -> None:
    """Store that a run is over, and when it may be forgotten.

    Args:
        ended: seconds since the epoch; resume: seconds.
    """
    headers = {"Nats-Msg-Id": f"{run}:end"}
    await storing.store(bus, bus.subjects.run_end(run), runlog.encode_end(ended, resume), headers)


async def forget(bus: Bus, run: str) -> None:
    """Remove all that is stored of a run.

    Raises:
        NotStored: the stream does not answer.
    """
    await _purge(bus, {"filter": bus.subjects.run_all(run)})


async def shorten(bus: Bus, run: str, before: int) -> None:
    """Remove the entries of a run's log that are older than this sequence.

    Raises:
        NotStored: the stream does not answer.
    """
    await _purge(bus, {"filter": bus.subjects.run_log(run), "seq": before})


async def _purge(bus: Bus, which: dict[str, str | int]) -> None:
    _refuse_errors(bus, await _asked(bus, f"STREAM.PURGE.{bus.subjects.runs}", which))


def _refuse_errors(bus: Bus, answer: dict[str, Any]) -> None:
    if "error" in answer:
        raise NotStored(f"stream {bus.subjects.runs}: {answer['error'].get('description')}")


async def _asked(bus: Bus, what: str, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of the JetStream API.

    Raises:
        NotStored: there is none.
    """
    try:
        asked = orjson.dumps(question)
        answer = await bus.request(f"$JS.API.{what}", asked, within=ACK_WITHIN)
        found: dict[str, Any] = orjson.loads(answer)
        return found
    except (TimeoutError, NoResponders, orjson.JSONDecodeError) as error:
        raise NotStored(f"stream {bus.subjects.runs} does not answer") from error
