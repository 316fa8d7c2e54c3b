from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import Malformed
from fairlead.protocol import manifest
from fairlead.protocol.manifest import Beat, History, Manifest, Route, decode_beat

ECHO = Route(
    feature="support",
    workflow="echo",
    label="Support/Echo",
    transport="websocket",
    endpoint="/support/realtime/echo",
    topic="chat",
    history=History(10, 60.0),
    deliver="others",
    window=4,
    run="connection",
    checks=True,
)
LOGS = Route(
    feature="support",
    workflow="logs",
    label="Support/Logs",
    transport="sse",
    endpoint="/support/realtime/logs/{id}",
    methods=("GET", "POST"),
    format="text",
    on_disconnect="continue",
    on_worker_lost="restart",
    executes=False,
)

TEXTS = st.text(max_size=10)
HISTORIES = st.builds(History, st.integers(1, 2**31), st.floats(1, 1e9))
ROUTES = st.builds(
    Route,
    TEXTS,
    TEXTS,
    TEXTS,
    st.sampled_from(["websocket", "sse"]),
    TEXTS,
    st.lists(TEXTS, max_size=2).map(tuple),
    TEXTS,
    st.none() | HISTORIES,
    st.sampled_from(["sender", "topic", "others"]),
    st.integers(1, 1000),
    st.sampled_from(["json", "text"]),
    st.sampled_from(["cancel", "continue"]),
    st.sampled_from(["error", "restart"]),
    st.booleans(),
    st.sampled_from(["message", "connection", "topic"]),
    st.booleans(),
)
MANIFESTS = st.builds(
    Manifest,
    st.lists(ROUTES, max_size=3).map(tuple),
    st.dictionaries(TEXTS, st.none() | HISTORIES, max_size=3),
)


def test_a_manifest_on_the_wire() -> None:
    """A promise to edges that run already; the digest is the name of the build."""
    build = Manifest((ECHO,), {"chat": ECHO.history, "a": None})
    assert build.encode() == (
        b'{"routes":[{"checks":true,"deliver":"others","endpoint":"/support/realtime/echo","executes":true,'
        b'"feature":"support","format":"json","history":{"age":60.0,"size":10},'
        b'"label":"Support/Echo","methods":[],"on_disconnect":"cancel","on_worker_lost":"error","overflow":"disconnect",'
        b'"resume":null,"run":"connection","topic":"chat","transport":"websocket","window":4,"workflow":"echo"}],'
        b'"topics":{"a":null,"chat":{"age":60.0,"size":10}},"version":3}'
    )
    assert build.digest == "5a4430de7fd5b868ca6376fc92b27d8a"


@given(MANIFESTS)
def test_round_trip(build: Manifest) -> None:
    assert manifest.decode(build.encode()) == build


@given(MANIFESTS)
def test_the_same_project_has_the_same_digest_whatever_process_made_it(build: Manifest) -> None:
    backwards = Manifest(build.routes, dict(reversed(build.topics.items())))
    assert backwards.digest == build.digest
    assert manifest.decode(build.encode()).digest == build.digest
    assert len(build.digest) == 32


@pytest.mark.parametrize(
    "other",
    [
        Manifest((ECHO, LOGS), {"chat": ECHO.history, "a": None}),
        Manifest((LOGS,), {"chat": ECHO.history}),
        Manifest((ECHO,), {"chat": History(11, 60.0)}),
        Manifest((ECHO,), {"chat": None}),
        Manifest((), {}),
    ],
)
def test_another_project_has_another_digest(other: Manifest) -> None:
    assert other.digest != Manifest((ECHO,), {"chat": ECHO.history}).digest


def test_a_route_is_named_for_spans_by_its_topic_or_endpoint() -> None:
    assert ECHO.name == "chat"
    assert LOGS.name == "/support/realtime/logs/{id}"


def test_another_version_is_malformed() -> None:
    with pytest.raises(Malformed, match="a manifest of version 1; expected 3"):
        manifest.decode(b'{"version":1,"routes":[],"topics":{}}')


def _with(**members: Any) -> bytes:
    return orjson.dumps({"version": 3, "routes": [], "topics": {}, **members})


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"version":3}',
        _with(routes=None),
        _with(routes=[1]),
        _with(routes=["x"]),
        _with(routes=[{}]),
        _with(routes=[{"history": None, "methods": []}]),
        _with(routes=[{"history": None, "methods": None}]),
        _with(routes=[{"history": None, "methods": [], "unknown": 1}]),
        _with(topics=[]),
        _with(topics={"a": 5}),
        _with(topics={"a": 0}),
        _with(topics={"a": {"sizes": 1}}),
    ],
)
def test_what_is_no_manifest_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed, match="not a manifest"):
        manifest.decode(payload)


NEARLY: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            TEXTS | st.sampled_from(["version", "routes", "topics", "history", "methods"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.one_of(st.binary(), NEARLY.map(orjson.dumps), st.builds(_with, routes=NEARLY)))
def test_no_bytes_are_anything_but_a_manifest_or_malformed(payload: bytes) -> None:
    with contextlib.suppress(Malformed):
        manifest.decode(payload)


def test_a_beat_on_the_wire() -> None:
    assert Beat("w1", "abc").encode() == b'["w1","abc",[],false]'
    assert Beat("w1", "abc", ("e1-7.3.1", "e1-8.1.2"), True).encode() == (
        b'["w1","abc",["e1-7.3.1","e1-8.1.2"],true]'
    )


@given(st.builds(Beat, TEXTS, TEXTS, st.lists(TEXTS).map(tuple), st.booleans()))
def test_beat_round_trip(beat: Beat) -> None:
    assert decode_beat(beat.encode()) == beat


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'"abcd"',
        b'["w","b",[]]',
        b'["w","b",[],true,1]',
        b'["w","b","hands",true]',
        b'["w","b",[[1]],true]',
        b'["w",1,[],true]',
        b'[{},"b",[],0]',
    ],
)
def test_what_is_no_beat_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed, match="not a beat"):
        decode_beat(payload)


@given(st.one_of(st.binary(), NEARLY.map(orjson.dumps), st.lists(NEARLY).map(orjson.dumps)))
def test_no_bytes_are_anything_but_a_beat_or_malformed(payload: bytes) -> None:
    try:
        beat = decode_beat(payload)
    except Malformed:
        return
    assert all(isinstance(text, str) for text in (beat.worker, beat.build, *beat.hands))
