from __future__ import annotations

import secrets
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace

import pytest

from fairlead_console import otlp
from fairlead_console.settings import TRACE_MEMORY
from fairlead_console.spans import Origin, Span
from fairlead_console.store import Store
from support.export import export
from support.spans import CLIENT, EDGE_1, TRACE, WORKER, chat, span


def send(store: Store, spans: Iterable[Span], trace: str) -> None:
    """As a process would: each export is read anew."""
    body = export(spans, trace).SerializeToString()
    for received in otlp.spans(otlp.from_protobuf(body)):
        assert received is not None
        store.add(received)


def ids(*, count: int) -> list[str]:
    return [f"{i:032x}" for i in range(1, count + 1)]


def at(start: float, end: float, name: str = "receive t", origin: Origin = EDGE_1) -> list[Span]:
    return [span("a1", name, start, end, origin)]


def test_what_came_in_parts_is_one_trace() -> None:
    store = Store()
    for each in chat():
        send(store, [each], TRACE)
    (trace,) = store.find(TRACE)
    assert [each.name for each in trace.spans()] == [each.name for each in chat()]
    assert [each.attributes for each in trace.spans()] == [each.attributes for each in chat()]
    assert trace.end - trace.start == 10_000_000


def test_the_first_digits_of_an_id_will_do() -> None:
    store = Store()
    for id in ("aa" + "0" * 30, "ab" + "0" * 30, "bb" + "0" * 30):
        send(store, chat(), id)
    assert [trace.id[:2] for trace in store.find("a")] == ["aa", "ab"]
    assert [trace.id[:2] for trace in store.find("bb")] == ["bb"]
    assert store.find("c") == []


def test_of_many_with_one_beginning_ten_are_named() -> None:
    store = Store()
    for id in ids(count=20):
        send(store, at(0, 1), id)
    assert len(store.find("0")) == 10


def test_the_newest_by_their_start_not_by_their_arrival() -> None:
    store = Store()
    for id, start in zip(ids(count=3), (5, 9, 1), strict=True):
        send(store, at(start, 10), id)
    assert [int(trace.id, 16) for trace in store.best("last", 2)] == [2, 1]


def test_the_slowest_by_all_their_spans() -> None:
    store = Store()
    first, second, third = ids(count=3)
    send(store, at(0, 1), first)
    send(store, at(0, 5), second)
    send(store, at(0, 2), third)
    send(store, at(3, 9, "deliver t"), first)
    assert [trace.id for trace in store.best("slow", 2)] == [first, second]


def test_connections_that_come_and_go_are_in_nobodys_way() -> None:
    """Who has just left is not the last message."""
    store = Store()
    message, connection, foreign = ids(count=3)
    send(store, at(0, 1, "connect /x"), connection)
    assert [trace.id for trace in store.best("last", 5)] == [connection], "if there is no other"
    send(store, at(0, 1), message)
    send(store, at(5, 900, "close /x"), connection)
    send(store, at(2, 3, "close the shop", CLIENT), foreign)
    assert [trace.id for trace in store.best("last", 5)] == [foreign, message]
    assert [trace.id for trace in store.best("slow", 5)] == [message, foreign]


def test_the_oldest_trace_goes_first_and_whole() -> None:
    store = Store(limit=20_000)
    sent = ids(count=100)
    for id in sent:
        send(store, chat(), id)
        assert store.size <= 20_000
    kept = [trace.id for trace in store.best("slow", 100)]
    assert sorted(kept) == sent[-len(kept) :], "the newest, without a hole"
    assert 3 < len(kept) < 20
    assert all(len(store.find(id)[0].spans()) == 6 for id in kept)


def test_of_a_trace_only_so_many_spans_are_kept_and_the_others_counted() -> None:
    store = Store(most_spans=10)
    many = [span(f"{i:x}", "publish t", i, i + 1, WORKER) for i in range(1, 26)]
    send(store, many, TRACE)
    (trace,) = store.find(TRACE)
    assert (len(trace.spans()), trace.more) == (10, 15)
    assert trace.end - trace.start == 25_000_000, "they count for the time"


def test_one_trace_cannot_drive_out_all_others() -> None:
    store = Store(limit=100_000)
    small, large = ids(count=2)
    send(store, chat(), small)
    huge = replace(span("a1", "x", 0, 1, CLIENT), attributes={"x": "y" * 5000})
    send(store, [replace(huge, id=f"{i:x}") for i in range(1, 100)], large)
    assert store.find(small)
    assert 12_500 - 6000 < store.find(large)[0].size <= 12_500


@pytest.mark.parametrize("limit", [4 * 1024 * 1024, TRACE_MEMORY // 4])
def test_the_limit_is_what_python_really_takes(limit: int) -> None:
    store = Store(limit)
    bodies = [export(chat(), secrets.token_hex(16)).SerializeToString() for _ in range(500)]
    tracemalloc.start()
    try:
        while len(store) == 0 or store.size < limit * 0.99:
            for body in bodies:
                for received in otlp.spans(otlp.from_protobuf(body)):
                    assert received is not None
                    received.wire.trace_id = secrets.token_bytes(16)
                    store.add(replace(received, trace=received.wire.trace_id.hex()))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.7 * limit < taken < 1.1 * limit
