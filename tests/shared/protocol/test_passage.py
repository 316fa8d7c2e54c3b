"""What nats-server tells of a message that passed it. The events are its own, of version 2.15.1."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import Malformed
from fairlead.protocol import passage
from fairlead.protocol.passage import Step
from fairlead.protocol.traceparent import Traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

FIRST = 1_795_670_932_488_713_348
"""The time of the first step below: 2026-11-26T05:28:52.488713348Z."""


def event(**changes: Any) -> dict[str, Any]:
    """What the first server of three tells, whose client has published."""
    return {
        "server": {"name": "n1", "host": "127.0.0.1", "id": "NCHL", "ver": "2.15.1"},
        "request": {"header": {"traceparent": [f"00-{TRACE}-{SPAN}-01"]}, "msgsize": 83},
        "hops": 2,
        "events": [
            {"type": "in", "ts": "2026-11-26T05:28:52.488713348Z", "kind": 0, "cid": 25,
             "name": "worker", "acc": "APP", "subj": "plain.a"},
            {"type": "eg", "ts": "2026-11-26T05:28:52.48886923Z", "kind": 1, "cid": 15,
             "name": "n2", "hop": "1"},
            {"type": "eg", "ts": "2026-11-26T05:28:52.488874Z", "kind": 0, "cid": 19,
             "name": "edge", "sub": "plain.>", "queue": "q"},
        ],
        **changes,
    }  # fmt: skip


def decoded(found: dict[str, Any]) -> passage.Passage:
    return passage.decode(json.dumps(found).encode())


def test_a_message_at_one_server() -> None:
    assert decoded(event()) == passage.Passage(
        "n1",
        Traceparent(TRACE, SPAN, True),
        "plain.a",
        83,
        "",
        [
            Step("ingress", FIRST, {"fairlead.nats.peer": "worker", "fairlead.nats.kind": "client"}),
            Step(
                "egress", FIRST + 155_882,
                {"fairlead.nats.peer": "n2", "fairlead.nats.kind": "router", "fairlead.nats.hop": "1"},
            ),
            Step(
                "egress", FIRST + 160_652,
                {
                    "fairlead.nats.peer": "edge", "fairlead.nats.kind": "client",
                    "fairlead.nats.subscription": "plain.>", "fairlead.nats.queue": "q",
                },
            ),
        ],
        "",
    )  # fmt: skip


def test_a_message_that_a_stream_stores() -> None:
    stored = {"type": "js", "ts": "2026-11-26T05:28:52.5Z", "stream": "S", "subject": "log.a"}
    found = decoded(event(events=[*event()["events"][:1], stored]))
    assert found.steps[1] == Step(
        "stored",
        FIRST + 11_286_652,
        {"fairlead.nats.stream": "S", "fairlead.nats.subject": "log.a"},
    )


def test_the_servers_after_the_first_say_which_they_are() -> None:
    headers = {"Nats-Trace-Hop": ["2"], "Traceparent": [f"00-{TRACE}-{SPAN}-01"]}
    assert decoded(event(request={"header": headers, "msgsize": 102})).hop == "2"


def test_the_steps_are_in_the_order_of_their_times() -> None:
    backwards = decoded(event(events=event()["events"][::-1]))
    assert backwards.steps == decoded(event()).steps
    assert backwards.subject == "plain.a"


def test_what_went_no_further_says_why() -> None:
    failed = {**event()["events"][1], "error": "not delivered: client closed"}
    assert decoded(event(events=[failed])).error == "not delivered: client closed"


@pytest.mark.parametrize("flags", ["00", "zz"])
def test_a_message_that_is_not_sampled_is_none_of_ours(flags: str) -> None:
    request = {"header": {"traceparent": [f"00-{TRACE}-{SPAN}-{flags}"]}}
    with pytest.raises(Malformed):
        decoded(event(request=request))


@pytest.mark.parametrize(
    "broken",
    [
        {"request": {}},
        {"request": {"header": {}}},
        {"request": {"header": {"traceparent": []}}},
        {"events": []},
        {"events": [{"type": "in"}]},
        {"events": [{"type": "in", "ts": "yesterday"}]},
        {"events": None},
        {"server": {}},
    ],
)
def test_what_is_no_such_event_is_malformed(broken: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decoded(event(**broken))


@given(st.binary())
def test_no_bytes_are_more_than_malformed(payload: bytes) -> None:
    with contextlib.suppress(Malformed):
        passage.decode(payload)
