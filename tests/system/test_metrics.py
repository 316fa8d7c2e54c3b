"""What is counted, by real processes, and seen as Prometheus sees it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from nats import connect
from websockets.exceptions import InvalidStatus

import fairlead
from fairlead.metrics import Metric
from fairlead.testing.program import DEADLINE
from fairlead.vitals import VITALS
from fairlead_edge.metrics import FIGURES as OF_EDGES
from fairlead_worker.metrics import FIGURES as OF_WORKERS
from support.figures import ON, Figures, figures, metrics_url, prometheus_names, until_figures
from support.kick import KICKABLE, kick
from support.otlp import collector
from support.system import (
    LIMITED,
    Edge,
    System,
    Worker,
    nats_server,
    request,
    system,
    until,
    upgraded,
)
from support.tracing import id_of

ECHO, ROOM = "/support/realtime/echo", "/support/realtime/rooms/blue"
TOPIC = {"messaging_destination_template": "rooms.{room}"}
IN, OUT = {"network_io_direction": "receive"}, {"network_io_direction": "transmit"}


async def started(app: System, target: str = "everything.py") -> tuple[Edge, Worker]:
    """An edge that serves the worker's routes; both export."""
    worker, edge = await asyncio.gather(app.worker(target, env=ON), app.edge(env=ON))
    await until_figures(edge, lambda f: f.sum("fairlead_edge_routes"), "the routes are there")
    return edge, worker


# What there is


async def test_every_figure_is_exported_with_the_labels_that_its_table_names(
    tmp_path: Path,
) -> None:
    """... once each kind of thing has happened: a message, a room, a stream."""
    async with nats_server(tmp_path / "nats", LIMITED) as nats, system(nats, tmp_path) as app:
        await every_figure(app)


async def every_figure(app: System) -> None:
    edge, worker = await started(app)
    found = await until_figures(
        edge, lambda f: f.of("fairlead_edge_connections"), "before any is there"
    )
    assert found.sum("fairlead_edge_connections") == 0
    async with edge.v1(ROOM) as client:
        await client.send("hello")
        await client.each("message", "ack")
    await request(edge.http("/support/stream/value"))
    tables: list[tuple[Edge | Worker, list[Metric[Any]]]] = [
        (edge, [*VITALS, *OF_EDGES]), (worker, [*VITALS, *OF_WORKERS])
    ]  # fmt: skip
    for process, table in tables:
        found = await until_figures(
            process, lambda f: f.of("fairlead_jetstream_storage_limit_bytes"), "NATS was asked"
        )
        for metric in table:
            name = prometheus_names([metric])[metric.name]
            series = found.of(name) or found.of(f"{name}_count")
            assert series, f"{metric.name} is {name} to Prometheus, and not there"
            labels = {attribute.replace(".", "_") for attribute in metric.attributes}
            for each in series:
                assert set(each.labels) == labels, metric.name


async def test_names_are_unique_and_no_label_is_without_bound() -> None:
    tables: list[Metric[Any]] = [*VITALS, *OF_EDGES, *OF_WORKERS]
    names = [metric.name for metric in tables]
    assert len(names) == len(set(names))
    assert {attribute for metric in tables for attribute in metric.attributes} == {
        "fairlead.workflow", "messaging.destination.template", "fairlead.transport",
        "fairlead.policy", "fairlead.reason", "fairlead.outcome", "fairlead.scope",
        "network.io.direction", "http.response.status_code",
    }  # fmt: skip


async def test_a_thousand_channels_make_no_more_series_than_one(app: System) -> None:
    edge, worker = await started(app)

    async def visit(first: int, last: int) -> None:
        for number in range(first, last):
            async with edge.raw(f"/support/realtime/volatile?channel=c{number}") as client:
                await client.send("hello")
                assert await client.recv() == "hello"

    await visit(0, 1)
    before = [await figures(process) for process in (edge, worker)]
    await asyncio.gather(*(visit(first, first + 100) for first in range(0, 1000, 100)))
    found = await until_figures(
        edge, lambda f: f.sum("fairlead_edge_room_messages_total") == 1001, "all are counted"
    )
    for then, now in zip(before, [found, await figures(worker)], strict=True):
        series = [
            {(each.name, tuple(each.labels.items())) for each in f.series} for f in (then, now)
        ]
        assert len(series[0]) > 50
        # The round trip to NATS was perhaps not measured yet.
        assert {name for name, _ in series[1] - series[0]} <= {"fairlead_nats_rtt_seconds"}


# Clients


async def test_messages_and_their_bytes_are_counted_on_both_sides(app: System) -> None:
    edge, worker = await started(app)
    async with edge.raw(ECHO) as client:
        for said in ("a", "bc", "def"):
            await client.send(said)
            assert await client.recv() == said
        during = await figures(edge)
        assert during.sum("fairlead_edge_connections", fairlead_transport="websocket") == 1
    found = await until_figures(
        edge, lambda f: f.sum("fairlead_edge_connections") == 0, "the client is gone"
    )
    echo = {"fairlead_workflow": "Support/echo"}
    assert found.sum("fairlead_edge_messages_total", **echo, **IN) == 3
    assert found.sum("fairlead_edge_messages_total", **echo, **OUT) == 3
    assert found.sum("fairlead_edge_io_bytes_total", **echo, **IN) == 6
    assert found.sum("fairlead_edge_io_bytes_total", **echo, **OUT) == 6
    assert found.sum("fairlead_edge_attempts_total", **echo, fairlead_reason="first") == 3
    assert found.sum("fairlead_edge_outstanding") == 0
    ran = await figures(worker)
    assert ran.sum("fairlead_worker_ended_total", **echo, fairlead_outcome="done") == 3
    assert ran.sum("fairlead_worker_execute_duration_seconds_count", **echo) == 3
    assert ran.sum("fairlead_worker_queue_wait_seconds_count", **echo) == 3
    assert ran.sum("fairlead_worker_items_total", **echo) == 3


async def test_who_is_answered_is_counted_by_how_and_why(app: System) -> None:
    edge, _ = await started(app)
    async with edge.raw(ECHO):
        pass
    with pytest.raises(InvalidStatus):
        await edge.raw("/nothing")
    with pytest.raises(InvalidStatus):
        await edge.raw(f"{ECHO}?channel=not+a+name")
    await request(edge.http("/support/stream/value"))
    await request(edge.http("/support/stream/value"), method="POST", data=b"")
    await request(edge.http(ECHO))
    await request(edge.http("/support/stream/raises?when=reject"))
    await request(edge.http("/support/stream/raises?when=before"))
    found = await figures(edge)
    told = {
        (s.labels["fairlead_transport"], s.labels["http_response_status_code"],
         s.labels["fairlead_reason"]): s.value
        for s in found.of("fairlead_edge_handshakes_total")
    }  # fmt: skip
    assert told == {
        ("websocket", "101", "accepted"): 1,
        ("websocket", "404", "unknown"): 1,
        ("websocket", "400", "request"): 1,
        ("sse", "200", "accepted"): 3,
        ("sse", "405", "method"): 1,
        ("sse", "426", "upgrade"): 1,
    }


async def test_runs_that_fail_are_refused_or_cancelled_are_told_apart(
    app: System, tmp_path: Path
) -> None:
    edge, worker = await started(app)
    async with edge.v1("/support/realtime/raises") as client:
        await client.send("before")
        await client.until("error")
        await client.send("reject")
        await client.until("error")
    async with edge.v1("/support/realtime/endless") as client:
        ref = await client.send(str(tmp_path / "note"))
        await client.until("message")
        running = await figures(worker)
        assert running.sum("fairlead_worker_runs", fairlead_workflow="Support/endless") == 1
        assert running.sum("fairlead_worker_in_flight", fairlead_scope="messages") == 1
        assert (await figures(edge)).sum("fairlead_edge_outstanding") == 1
        await client.say(type="cancel", ref=ref)
        await client.until("error")
    found = await until_figures(
        worker, lambda f: f.sum("fairlead_worker_runs") == 0, "nothing is in hand"
    )
    ended = {
        (s.labels["fairlead_workflow"], s.labels["fairlead_outcome"]): s.value
        for s in found.of("fairlead_worker_ended_total")
        if s.value
    }
    assert ended == {
        ("Support/raises", "failed"): 1,
        ("Support/raises", "refused"): 1,
        ("Support/endless", "cancelled"): 1,
    }
    assert (await figures(edge)).sum("fairlead_edge_failed_total") == 3


# Rooms


async def test_a_delivery_is_a_message_to_a_member(app: System) -> None:
    """Excluded members get none; the fan-out is timed once a message."""
    edge, worker = await started(app)
    others = "/support/others/rooms/blue"
    async with AsyncExitStack() as stack:
        ann, *rest = [await stack.enter_async_context(edge.v1(ROOM)) for _ in range(4)]
        zoe = await stack.enter_async_context(edge.v1(others))
        assert (await figures(edge)).sum("fairlead_edge_members", **TOPIC) == 5
        await ann.send("four bytes and more")
        for client in (ann, *rest, zoe):
            assert await client.hears() == "four bytes and more"
        await zoe.send("not to me")
        for client in (ann, *rest):
            assert await client.hears() == "not to me"
        found = await figures(edge)
        assert found.sum("fairlead_edge_rooms", **TOPIC) == 1
        assert found.sum("fairlead_edge_room_messages_total", **TOPIC) == 2
        assert found.sum("fairlead_edge_room_deliveries_total", **TOPIC) == 5 + 4
        assert found.sum("fairlead_edge_room_io_bytes_total", **TOPIC) == 19 * 5 + 9 * 4
        assert found.sum("fairlead_edge_room_fanout_duration_seconds_count", **TOPIC) == 2
    await until_figures(edge, lambda f: f.sum("fairlead_edge_members", **TOPIC) == 0, "all left")
    await until_figures(edge, lambda f: f.sum("fairlead_edge_rooms", **TOPIC) == 0, "it is let go")
    assert (await figures(worker)).sum("fairlead_worker_published_total") == 2


async def test_who_comes_back_is_counted_with_where_it_was_read(app: System) -> None:
    one, _ = await started(app)
    two = await app.edge(env=ON)
    await two.serves(ROOM)
    async with one.v1(ROOM) as client, one.v1(ROOM) as other:
        await client.send("heard")
        await client.each("message", "ack")
        await client.cut()
        for word in ("missed", "and this"):
            await other.send(word)
            await other.until("ack")
    for edge, hits, misses in ((one, 1, 0), (two, 0, 1)):
        async with edge.v1(f"{ROOM}?cursor={client.cursor}") as back:
            assert [await back.hears(), await back.hears()] == ["missed", "and this"]
        async with edge.v1(f"{ROOM}?cursor=nonsense") as lost:
            assert lost.welcome["recovered"] is False
        found = await figures(edge)
        assert found.sum("fairlead_edge_replays_total", fairlead_outcome="recovered") == 1
        assert found.sum("fairlead_edge_replays_total", fairlead_outcome="unrecovered") == 1
        assert found.sum("fairlead_edge_replay_messages_total", **TOPIC) == 2
        assert found.sum("fairlead_edge_ring_lookups_total", fairlead_outcome="hit") == hits
        assert found.sum("fairlead_edge_ring_lookups_total", fairlead_outcome="miss") == misses


async def test_holes_that_nats_leaves_are_counted_as_filled_or_lost(tmp_path: Path) -> None:
    """A room that keeps enough, and one that keeps five, while the edge loses NATS."""
    async with (
        nats_server(tmp_path / "nats", KICKABLE) as nats,
        system(nats, tmp_path) as app,
    ):
        edge, _ = await started(app, "logs.py")
        name = await id_of(edge)
        system_account = await connect(nats.url.replace("//", "//sys:sys@"))

        async def cut_off_while_it_goes_on(topic: str, outcome: str) -> None:
            labels = {"messaging_destination_template": topic, "fairlead_outcome": outcome}
            async with fairlead.connect(nats.url, app=app.app) as bus, edge.v1(f"/logs/v1/{topic}"):
                while not (await figures(edge)).sum("fairlead_edge_gaps_total", **labels):
                    await kick(system_account, f"fairlead-edge-{name}")
                    for _ in range(10):
                        await bus.topic(topic).publish("word")
                    await until_figures(
                        edge, lambda f: f.sum("fairlead_nats_connected") == 1, "NATS is back"
                    )

        async with asyncio.timeout(2 * DEADLINE):
            await cut_off_while_it_goes_on("large", "filled")
            await cut_off_while_it_goes_on("small", "lost")
        assert (await figures(edge)).sum("fairlead_nats_reconnects_total") >= 2
        await system_account.close()


@pytest.mark.parametrize(
    ("topic", "policy"), [("strict", "disconnect"), ("feed", "drop_oldest"), ("prices", "latest")]
)
async def test_slow_clients_are_counted_by_what_becomes_of_them(
    app: System, topic: str, policy: str
) -> None:
    edge, _ = await started(app, "overflow.py")
    path, label = f"/busy/rooms/{topic}", {"fairlead_policy": policy}

    def given_up(f: Figures) -> bool:
        of = "slow_closed" if policy == "disconnect" else "dropped"
        return f.sum(f"fairlead_edge_{of}_total", **label) > 0

    def slow(f: Figures) -> bool:
        waits = f.sum("fairlead_edge_buffer_usage_bytes") > 0
        return waits and f.sum("fairlead_edge_slow_consumers", **label) == 1

    async with (
        upgraded(edge, path, receive_buffer=32 * 1024, subprotocol="fairlead.v1"),
        fairlead.connect(app.nats.url, app=app.app) as bus,
        asyncio.timeout(2 * DEADLINE),
    ):
        for condition in (slow, given_up):
            while not condition(await figures(edge)):
                for _ in range(20):
                    await bus.topic(topic).publish("x" * 4096)
    found = await until_figures(
        edge, lambda f: f.sum("fairlead_edge_buffer_usage_bytes") == 0, "nothing waits any more"
    )
    assert found.sum("fairlead_edge_slow_consumers") == 0


# When things go wrong


async def test_attempts_are_counted_by_why_there_was_another(app: System, tmp_path: Path) -> None:
    edge, first = await started(app)
    async with edge.v1("/support/realtime/slow") as client:
        await client.send(str(tmp_path / "go"))
        await client.until("message")
        second = await app.worker("everything.py", "--drain-grace", "100ms", env=ON)
        first.kill()
        await client.until("restart")
        await client.until("message")
        third = await app.worker(env=ON)
        assert await second.stop() == 0
        await client.until("restart")
        (tmp_path / "go").touch()
        await client.until("ack")
    found = await figures(edge)
    attempts = {
        s.labels["fairlead_reason"]: s.value for s in found.of("fairlead_edge_attempts_total")
    }
    assert attempts["first"] == 1
    assert attempts["lost"] >= 1
    assert (await figures(third)).sum("fairlead_worker_repeats_total") == 1


async def test_what_finds_no_worker_waits_and_is_counted(app: System) -> None:
    edge, worker = await started(app)
    async with edge.v1(ECHO) as client:
        worker.kill()
        await client.send("is anybody there?")
        await client.until("waiting")
        found = await until_figures(
            edge, lambda f: f.sum("fairlead_edge_waiting", fairlead_reason="worker"), "it waits"
        )
        assert found.sum("fairlead_edge_waited_total") == 1
        assert found.sum("fairlead_edge_outstanding") == 1
        await app.worker()
        await client.until("ack")
    found = await until_figures(edge, lambda f: f.sum("fairlead_edge_waiting") == 0, "it is done")
    assert found.sum("fairlead_edge_waited_total") == 1


async def test_a_worker_at_its_limit_says_so_and_both_count_it(app: System) -> None:
    worker = await app.worker("everything.py", "--concurrency", "1", env=ON)
    edge = await app.edge(env=ON)
    await edge.serves(ECHO)
    async with edge.v1("/support/realtime/wide") as client:
        for _ in range(4):
            await client.send("0.05")
        for _ in range(4):
            await client.until("ack")
    declined = (await figures(worker)).sum("fairlead_worker_busy_total")
    assert declined >= 1
    assert (await figures(edge)).sum("fairlead_edge_busy_total") == declined
    assert (await figures(worker)).sum("fairlead_worker_limit", fairlead_scope="messages") == 1


@pytest.mark.parametrize(
    ("target", "path", "scope"),
    [
        ("connections.py", "/support/realtime/counter", "connection"),
        ("topics.py", "/support/realtime/ticks/blue", "topic"),
        ("runs.py", "/runs/kept/count", "stream"),
    ],
)
async def test_a_run_that_another_worker_takes_over_is_counted(
    app: System, tmp_path: Path, target: str, path: str, scope: str
) -> None:
    env = {**ON, "NOTES": str(tmp_path), "RUNS_LOG": str(tmp_path / "runs.log")}
    first = await app.worker(target, "--drain-grace", "500ms", env=env)  # for the stream to end
    edge = await app.edge(env=ON)
    await edge.serves(path)
    opened = edge.events(path) if scope == "stream" else edge.raw(path)
    async with opened:
        await until_figures(
            first, lambda f: f.sum("fairlead_worker_runs", fairlead_scope=scope) == 1, "it runs"
        )
        second = await app.worker(target, env=env)
        stopping = asyncio.create_task(first.stop())
        await until_figures(
            second,
            lambda f: f.sum("fairlead_worker_takeovers_total", fairlead_scope=scope) == 1,
            "the second has it",
        )
        assert await stopping == 0
        found = await figures(second)
        assert found.sum("fairlead_worker_runs", fairlead_scope=scope) == 1


async def test_a_drain_shows_while_it_lasts(app: System, tmp_path: Path) -> None:
    edge, _ = await started(app)
    async with edge.v1("/support/realtime/slow") as client:
        await client.send(str(tmp_path / "go"))
        await client.until("message")
        stopping = asyncio.create_task(edge.stop())
        # One after the other while the loop goes on: a single scrape may see the half of it.
        await until_figures(
            edge,
            lambda f: (
                f.sum("fairlead_edge_drained_total") == 1
                and f.sum("fairlead_draining") == 1
                and f.sum("fairlead_ready") == 0
            ),
            "it drains",
        )
        (tmp_path / "go").touch()
        await client.until("ack")
        assert await stopping == 0


# The ways out


async def test_metrics_are_not_pushed_where_only_traces_are_asked_for(app: System) -> None:
    """`OTEL_EXPORTER_OTLP_ENDPOINT` alone; the standard says it is for all signals."""
    often = {"OTEL_METRIC_EXPORT_INTERVAL": "50"}
    with collector() as taken:
        edge = await app.edge(env={**taken.env, **often})
        await edge.says("routes are served")
        pushing = await app.edge(env={**taken.env, **often, "OTEL_METRICS_EXPORTER": "otlp"})
        name = await id_of(pushing)
        await until(lambda: len(taken.metrics) >= 3, "metrics are pushed")
        assert {pushed.resource["service.instance.id"] for pushed in taken.metrics} == {name}
        assert taken.metrics[-1].values["fairlead.nats.connected"] == 1
        assert sum(taken.metrics[-1].histograms["fairlead.loop.lag"][0]) > 0
        # The one that was not asked has its endpoint all the same.
        assert (await figures(edge)).sum("fairlead_nats_connected") == 1


async def test_with_the_sdk_disabled_there_are_none_and_the_port_says_so(app: System) -> None:
    edge = await app.edge(env={"OTEL_SDK_DISABLED": "true"})
    status, headers, body = await request(metrics_url(edge))
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert b"OTEL_SDK_DISABLED" in body
