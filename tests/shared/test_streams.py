"""Operators on streams: what they yield, how far they read ahead, and that they close everything."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from fairlead import streams
from fairlead.streams import Subject


class Source:
    """Numbers from 0; tells how many were asked for, and when it was closed."""

    def __init__(
        self, count: int | None = None, *, pause: float = 0.0, fails: bool = False
    ) -> None:
        self.count = count
        self.pause = pause
        self.fails = fails
        self.made = 0
        self.closed = False

    async def __aiter__(self) -> AsyncGenerator[int]:
        try:
            while self.count is None or self.made < self.count:
                await asyncio.sleep(self.pause)
                self.made += 1
                yield self.made - 1
            if self.fails:
                raise LookupError("the source failed")
        finally:
            await asyncio.sleep(0)  # closing may take a turn
            self.closed = True


class Held:
    """An iterator with an `aclose` of its own: so many numbers at once, more when it is `let`.

    Attributes:
        asked: how many items were asked for; waits: that one is asked for which it does not give.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked = 0
        self.closed = 0
        self.waits = asyncio.Event()
        self.let = asyncio.Event()

    def __aiter__(self) -> Held:
        return self

    async def __anext__(self) -> int:
        self.asked += 1
        if self.asked > self.count:
            self.waits.set()
            await self.let.wait()
        return self.asked - 1

    async def aclose(self) -> None:
        self.closed += 1


class Foreign:
    """An iterator of another library: no generator, nothing to close."""

    def __init__(self, *items: Any) -> None:
        self._items = iter(items)

    def __aiter__(self) -> Foreign:
        return self

    async def __anext__(self) -> Any:
        for item in self._items:
            return item
        raise StopAsyncIteration


Operator = Callable[[Any], AsyncGenerator[Any]]

OPERATORS: dict[str, Operator] = {
    "map": lambda s: streams.map(s, lambda x: x),
    "filter": lambda s: streams.filter(s, lambda x: True),
    "tap": lambda s: streams.tap(s, lambda x: None),
    "take": lambda s: streams.take(s, 1000),
    "timeout": lambda s: streams.timeout(s, 10),
    "throttle": lambda s: streams.throttle(s, 0),
    "merge": lambda s: streams.merge(s),
    "debounce": lambda s: streams.debounce(s, 0),
    "buffer": lambda s: streams.buffer(s, 1),
}

each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """No operator leaves a task behind."""
    before = asyncio.all_tasks()
    yield
    ours = asyncio.current_task()
    left = {task for task in asyncio.all_tasks() - before if not task.done() and task is not ours}
    assert left == set()


async def collected(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


# What all have in common


@each_operator
async def test_all_that_a_source_has_comes_out_and_then_it_is_closed(operator: Operator) -> None:
    source = Source(3, pause=0.001)
    found = await collected(operator(source))
    assert [item[0] if isinstance(item, list) else item for item in found] == [0, 1, 2]
    assert source.closed


@each_operator
async def test_an_object_of_another_library_is_a_source(operator: Operator) -> None:
    found = await collected(operator(Foreign("a")))
    assert found in (["a"], [["a"]])


@each_operator
async def test_a_reader_that_leaves_early_closes_the_source(operator: Operator) -> None:
    source = Source(pause=0.001)
    stream = operator(source)
    await anext(stream)
    await stream.aclose()
    assert source.closed


@each_operator
async def test_a_cancelled_reader_closes_a_source_that_never_ends(operator: Operator) -> None:
    """No generator, which a cancellation would have closed already."""
    source, heard = Held(1), asyncio.Event()

    async def read() -> None:
        async for _ in operator(source):
            heard.set()

    reading = asyncio.ensure_future(read())
    async with asyncio.timeout(10):
        await heard.wait()
        await source.waits.wait()
    assert source.closed == 0
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.closed == 1


@each_operator
async def test_an_error_of_the_source_is_raised_and_it_is_closed(operator: Operator) -> None:
    source = Source(1, fails=True)
    with pytest.raises(LookupError, match="the source failed"):
        await collected(operator(source))
    assert source.closed


# map, filter, tap, take


async def test_functions_may_be_plain_or_async() -> None:
    async def double(x: int) -> int:
        return 2 * x

    async def odd(x: int) -> bool:
        return x % 2 == 1

    assert await collected(streams.map(Source(3), double)) == [0, 2, 4]
    assert await collected(streams.map(Source(3), str)) == ["0", "1", "2"]
    assert await collected(streams.filter(Source(4), odd)) == [1, 3]
    assert await collected(streams.filter(Source(4), lambda x: x > 2)) == [3]


async def test_tap_sees_each_item_before_it_goes_on() -> None:
    seen: list[int] = []
    stream = streams.tap(Source(2), seen.append)
    assert await anext(stream) == 0
    assert seen == [0]
    assert await collected(stream) == [1]


@pytest.mark.parametrize("operator", [streams.map, streams.filter, streams.tap])
async def test_an_error_of_the_function_closes_the_source(operator: Any) -> None:
    def fails(item: int) -> None:
        raise ValueError("the function failed")

    source = Source()
    with pytest.raises(ValueError, match="the function failed"):
        await collected(operator(source, fails))
    assert source.closed


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_take_asks_for_no_more_than_it_gives(number: int) -> None:
    source = Source()
    assert await collected(streams.take(source, number)) == list(range(number))
    assert source.made == number


# merge


async def test_merge_yields_from_all_and_ends_with_the_last() -> None:
    found = await collected(streams.merge(Source(3), Foreign("a", "b"), Source(0)))
    assert sorted(map(str, found)) == ["0", "1", "2", "a", "b"]
    assert [item for item in found if isinstance(item, int)] == [0, 1, 2]
    assert await collected(streams.merge()) == []


async def test_merge_reads_one_item_of_each_ahead() -> None:
    quick, slow = Source(), Source(pause=3600)
    stream = streams.merge(quick, slow)
    for _ in range(5):
        await anext(stream)
    for _ in range(10):
        await asyncio.sleep(0)
    assert quick.made <= 6
    await stream.aclose()
    assert quick.closed
    assert slow.closed


@pytest.mark.parametrize(
    ("operator", "gives", "asked"),
    [
        (lambda s: streams.merge(s), 0, 1),
        (lambda s: streams.debounce(s, 0.01), 2, 4),
        (lambda s: streams.buffer(s, 3), [0, 1, 2], 4),
        (lambda s: streams.buffer(s, 100, 0.01), [0, 1, 2], 4),
    ],
    ids=["merge", "debounce", "buffer", "buffer of time"],
)
async def test_no_more_is_read_ahead_than_one_item_until_the_next_is_asked_for(
    operator: Operator, gives: Any, asked: int
) -> None:
    source = Held(3)
    stream = operator(source)
    assert await anext(stream) == gives
    source.let.set()  # it would give as many as are asked for
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert source.asked == asked
    await stream.aclose()
    assert source.closed == 1


async def test_sources_that_began_are_closed_when_a_later_one_is_none() -> None:
    """One reads already when it is found that the next cannot be read."""
    source = Held(0)
    with pytest.raises(TypeError, match="async"):
        await collected(streams.merge(source, 5))  # type: ignore[arg-type]
    assert source.closed == 1


async def test_the_first_error_of_a_merge_wins_and_all_others_are_closed() -> None:
    failing, endless, quiet = Source(1, fails=True), Source(), Source(pause=3600)
    with pytest.raises(LookupError):
        await collected(streams.merge(failing, endless, quiet))
    assert failing.closed
    assert endless.closed
    assert quiet.closed


async def test_one_source_that_fails_to_close_does_not_keep_the_others_open() -> None:
    async def awkward() -> AsyncGenerator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        finally:
            raise RuntimeError("would not close")

    other = Source(pause=3600)
    stream = streams.merge(awkward(), other)
    assert await anext(stream) == 1
    with pytest.raises(RuntimeError, match="would not close"):
        await stream.aclose()
    assert other.closed


# Time


async def test_interval_counts_from_zero_at_once() -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    stream = streams.interval("20ms")
    assert [await anext(stream) for _ in range(4)] == [0, 1, 2, 3]
    assert clock() - began >= 0.059
    await stream.aclose()


async def test_an_interval_whose_reader_was_late_goes_on_from_there() -> None:
    """Numbers that nobody could take are not made up for, one right after the other."""
    clock = asyncio.get_running_loop().time
    stream = streams.interval("20ms")
    assert await anext(stream) == 0
    await asyncio.sleep(0.2)
    assert await anext(stream) == 1
    late = clock()
    assert [await anext(stream) for _ in range(3)] == [2, 3, 4]
    assert clock() - late >= 0.059
    await stream.aclose()


async def test_an_item_that_takes_too_long_is_a_timeout_and_closes_the_source() -> None:
    source = Source(pause=0.001)
    stream = streams.timeout(source, 0.05)
    assert await anext(stream) == 0
    source.pause = 3600
    with pytest.raises(TimeoutError):
        await collected(stream)
    assert source.closed


async def test_throttle_drops_what_comes_too_soon() -> None:
    subject: Subject[int] = Subject()
    stream = streams.throttle(subject, 0.05)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    for number in range(3):
        subject.push(number)
    assert await first == 0
    second = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.06)
    subject.push(3)
    assert await second == 3
    await stream.aclose()


async def test_throttle_makes_a_pause_after_each_item_also_after_a_silence() -> None:
    """What was not said in time is no credit for a burst."""
    subject: Subject[int] = Subject()
    stream = streams.throttle(subject, 0.05)
    found = asyncio.ensure_future(collected(stream))
    await asyncio.sleep(0)
    subject.push(0)
    await asyncio.sleep(0.3)
    for number in range(1, 5):
        subject.push(number)
    await asyncio.sleep(0.06)
    subject.push(5)
    subject.close()
    assert await found == [0, 1, 5]


@pytest.mark.parametrize(
    "operator",
    [lambda s: streams.filter(s, lambda x: False), lambda s: streams.throttle(s, 3600)],
    ids=["filter", "throttle"],
)
async def test_what_drops_many_items_lets_others_have_their_turn(operator: Operator) -> None:
    """A source that never waits, and of which little comes out, would hold the loop."""
    turns = 0

    async def quick() -> AsyncGenerator[int]:
        for number in range(10_000):
            yield number

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    assert len(await collected(operator(quick()))) <= 1
    beside.cancel()
    assert turns > 100
    await asyncio.wait([beside])


async def test_debounce_waits_until_it_is_quiet_and_keeps_the_last() -> None:
    subject: Subject[int] = Subject()
    stream = streams.debounce(subject, 0.03)
    found = asyncio.ensure_future(collected(stream))
    await asyncio.sleep(0)
    for number in range(3):
        subject.push(number)
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    subject.push(7)
    await asyncio.sleep(0)
    subject.close()
    assert await found == [2, 7]


async def test_buffer_fills_lists_and_gives_the_rest_at_the_end() -> None:
    assert await collected(streams.buffer(Source(5), 2)) == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="expected 1 or more"):
        await collected(streams.buffer(Source(5), 0))


async def test_buffer_gives_what_it_has_when_its_time_is_over() -> None:
    subject: Subject[int] = Subject()
    stream = streams.buffer(subject, 100, "30ms")
    found = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    subject.push(1)
    subject.push(2)
    assert await found == [1, 2]
    await stream.aclose()


# Subject


async def test_a_subject_tells_every_reader_what_comes_after_it_began_to_read() -> None:
    subject: Subject[str] = Subject()
    subject.push("before")
    one = aiter(subject)
    subject.push("a")
    two = aiter(subject)
    subject.push("b")
    subject.close()
    assert await collected(one) == ["a", "b"]
    assert await collected(two) == ["b"]
    with pytest.raises(RuntimeError, match="closed"):
        subject.push("after")


async def test_a_reader_that_is_too_far_behind_loses_the_oldest_and_they_are_counted() -> None:
    subject: Subject[int] = Subject(bound=2)
    reader = aiter(subject)
    for number in range(5):
        subject.push(number)
    subject.close()
    assert await collected(reader) == [3, 4]
    assert subject.dropped == 3
    with pytest.raises(ValueError, match="expected 1 or more"):
        Subject(bound=0)


async def test_a_subject_feeds_operators_and_forgets_readers_that_left() -> None:
    subject: Subject[int] = Subject(bound=1)
    stream = streams.map(subject, lambda x: x + 1)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    subject.push(1)
    assert await first == 2
    await stream.aclose()
    subject.push(1)
    subject.push(2)
    assert subject.dropped == 0


async def test_a_reader_that_was_dropped_without_a_word_is_forgotten() -> None:
    subject: Subject[int] = Subject(bound=1)
    reader = aiter(subject)
    del reader
    gc.collect()
    subject.push(1)
    subject.push(2)
    assert subject.dropped == 0
