"""NATS's own hop tracing in the waterfall: a real nats-server, and three of them, tell what they did."""

from __future__ import annotations

import json
from pathlib import Path

import nats
from nats.aio.msg import Msg

from support.cluster import cluster
from support.otlp import Span
from support.system import CONFIG, NatsServer, nats_server, until
from support.tracing import (
    Traced,
    all_of,
    id_of,
    new_parent,
    new_room,
    one,
    trace_id,
    traced_system,
)

APP = "traced"

# The lines of docs/tracing.md, with room for another account, as format strings.
TELLING = f"""
accounts {{{{
  APP: {{{{
    jetstream: enabled
    users: [ {{{{ user: app, password: app }}}} ]
    msg_trace: {{{{ dest: "fl.{APP}.broker", sampling: 100 }}}}
  }}}}
}}}}
no_auth_user: app
"""

FLAG = "--broker-spans"


def steps(span: Span) -> list[tuple[str, str]]:
    """What happened to a message at a server: (event, with whom)."""
    return [(event.name, event.attributes.get("fairlead.nats.peer", "")) for event in span.events]


async def test_each_way_of_a_sampled_message_through_nats_is_a_span(tmp_path: Path) -> None:
    """Edge → worker, worker → stream: with the server's own times, beneath the span that sent it."""
    config = CONFIG + 'server_name: "n1"\n' + TELLING
    async with (
        nats_server(tmp_path / "nats", config) as server,
        traced_system(server, tmp_path, FLAG, workers=1, name=APP) as traced,
    ):
        first, second = traced.edges
        parent, room = new_parent(), new_room()
        async with first.v1(room) as ann, second.v1(room) as ben:
            await ann.send("hello", traceparent=parent)
            await ben.until("message")
            await ann.until("ack")
            spans = await traced.spans.trace(trace_id(parent), 7)
        await traced.settle()
        spans = traced.spans.of(trace_id(parent))
        names = [f"fairlead-edge-{await id_of(first)}"]
        names.append(f"fairlead-worker-{await id_of(traced.workers[0])}")
    broker = sorted(all_of(spans, "nats"), key=lambda span: span.start)
    assert len(spans) == 7 and len(broker) == 2, "each told once, though two edges listen"
    inbound, stored = broker
    receive, process, publish = (one(spans, each) for each in ("receive", "process", "publish"))
    assert {span.name for span in broker} == {"nats n1"}
    assert [span.parent for span in broker] == [receive.id, publish.id]
    assert steps(inbound) == [("ingress", names[0]), ("egress", names[1])]
    assert steps(stored) == [("ingress", names[1]), ("stored", "")]
    assert stored.events[1].attributes["fairlead.nats.stream"].startswith(f"FL_{APP}_rooms")
    for span in broker:
        assert (span.service, span.instance, span.kind) == ("nats", "n1", "internal")
        assert span.attributes["fairlead.nats.server"] == "n1"
        assert span.attributes["messaging.system"] == "nats"
        assert span.attributes["messaging.message.envelope.size"] > 5
        assert (span.start, span.end) == (span.events[0].at, span.events[-1].at), "the server's"
    name = room.rpartition("/")[2]
    assert inbound.attributes["messaging.destination.name"] == (
        f"fl.{APP}.in.support.everyone.rooms.{name}.-"
    )
    assert stored.attributes["messaging.destination.name"] == f"fl.{APP}.log.rooms.{name}.-"
    assert receive.start < inbound.start < process.start < stored.start < publish.end


async def test_a_connections_run_and_a_letter_pass_nats_too(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path / "nats", CONFIG + TELLING) as server,
        traced_system(server, tmp_path, FLAG, edges=1, workers=1, name=APP) as traced,
    ):
        (edge,) = traced.edges
        said, sent = new_parent(), new_parent()
        async with edge.v1(f"{new_room('talk')}?name=ann") as client:
            await client.send("hello", traceparent=said)
            await client.until("ack")
            talk = await traced.spans.trace(trace_id(said), 7)
        async with edge.v1(f"{new_room('letters')}?name=ann") as client:
            await client.send({"to": "ann", "text": "to myself"}, traceparent=sent)
            await client.until("ack")
            letter = await traced.spans.trace(trace_id(sent), 6)
    for spans in (talk, letter):
        parents = {span.parent for span in all_of(spans, "nats")}
        assert parents == {one(spans, "receive").id, one(spans, "publish").id}


async def test_what_is_not_sampled_carries_no_header_and_nats_tells_nothing(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path / "nats", CONFIG + TELLING) as server,
        traced_system(server, tmp_path, FLAG, edges=1, workers=1, name=APP) as traced,
    ):
        heard = []
        listener = await nats.connect(server.url)

        async def hear(message: Msg) -> None:
            heard.append(message)

        await listener.subscribe(f"fl.{APP}.in.>", cb=hear)
        await listener.subscribe(f"fl.{APP}.broker", cb=hear)
        await listener.flush()
        async with traced.edges[0].v1(new_room()) as client:
            await client.send("silent", traceparent=new_parent(sampled=False))
            await client.until("ack")
            await client.send("loud", traceparent=new_parent())
            await client.until("ack")
            await until(lambda: len(heard) == 4, "both messages, and two events of one of them")
        await listener.close()
    silent, loud, *events = sorted(heard, key=lambda message: ".broker" in message.subject)
    assert (silent.headers, list(loud.headers or {})) == (None, ["traceparent"])
    assert all(json.loads(event.data)["events"] for event in events)


async def test_three_servers_tell_of_each_hop(tmp_path: Path) -> None:
    """A worker at one of them, two edges at the others: one publication, a span of each server."""
    async with cluster(tmp_path, TELLING) as servers:
        n1, n2, n3 = servers.servers.values()
        async with traced_system(n1, tmp_path, edges=0, workers=1, name=APP) as traced:
            for server in (n2, n3):
                await traced.edge(FLAG, env={"FAIRLEAD_NATS": server.url})
            first, second = traced.edges
            for edge in (first, second):
                await edge.serves("/support/realtime/echo")
            parent, room = new_parent(), new_room("plain")
            async with first.v1(room) as ann, second.v1(room) as ben:
                await ann.send("hello", traceparent=parent)
                await ben.until("message")
                await ann.until("ack")
                spans = await traced.spans.trace(trace_id(parent), _is_whole)
            edges = {f"fairlead-edge-{await id_of(edge)}" for edge in (first, second)}
    publish = one(spans, "publish")
    hops = [span for span in all_of(spans, "nats") if span.parent == publish.id]
    assert {span.instance for span in hops} == {"n1", "n2", "n3"}
    reached = set()
    for span in hops:
        if span.instance == "n1":
            assert "fairlead.nats.hop" not in span.attributes
            assert {peer for name, peer in steps(span) if name == "egress"} == {"n2", "n3"}
        else:
            assert span.attributes["fairlead.nats.hop"] in ("1", "2")
            (ingress,), (egress,) = (
                [peer for name, peer in steps(span) if name == each]
                for each in ("ingress", "egress")
            )
            assert ingress == "n1"
            reached.add(egress)
    assert reached == edges


def _is_whole(spans: list[Span]) -> bool:
    """Receive, its hops from one server to another, process, publish, its three hops, two delivers."""
    publishes = all_of(spans, "publish")
    hops = (
        [span for span in all_of(spans, "nats") if span.parent == publishes[0].id]
        if publishes
        else []
    )
    return len(hops) == 3 and len(all_of(spans, "deliver")) == 2


async def test_without_tracing_the_flag_is_said_to_be_of_no_use(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with traced_system(nats, tmp_path, edges=0, workers=0) as traced:
        edge = await traced.app.edge(FLAG)
        await edge.says("broker spans are asked for, but nothing is traced")


async def test_what_is_no_event_is_dropped(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path / "nats", CONFIG + TELLING) as server,
        traced_system(server, tmp_path, FLAG, edges=1, workers=1, name=APP) as traced,
    ):
        client = await nats.connect(server.url)
        await client.publish(f"fl.{APP}.broker", b"{}")
        await client.close()
        await traced.edges[0].says(rf"dropped what came on fl\.{APP}\.broker")
        parent = new_parent()
        async with traced.edges[0].v1("/support/realtime/echo") as talker:
            await talker.send("hello", traceparent=parent)
            await talker.until("ack")
            assert await _told(traced, parent)


async def _told(traced: Traced, parent: str) -> list[Span]:
    spans = await traced.spans.trace(trace_id(parent), 3)
    return all_of(spans, "nats")
