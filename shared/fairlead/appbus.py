"""Publishing from programs that are no workers: a web application, a cron job, a script.

::

    async with fairlead.connect("nats://…") as bus:
        await bus.topic("chat", channel="blue").publish({"text": "hello"})

`connect_sync` is the same for programs without an event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import threading
import time
import weakref
from collections.abc import Coroutine, Mapping
from typing import Any, Generic, TypeVar

from fairlead import buckets, process, telemetry, values
from fairlead.bus import Bus, BusOptions
from fairlead.credentials import ANONYMOUS, Credentials
from fairlead.errors import NotStored
from fairlead.protocol import manifest, names
from fairlead.protocol.envelope import DataType
from fairlead.protocol.manifest import History
from fairlead.protocol.subjects import Subjects
from fairlead.publisher import Publisher, template_of
from fairlead.telemetry import Tracing

REFRESH = 1.0
"""Seconds, at least, between two looks for topics that were not known."""

GOOD_FOR = 60.0
"""Seconds after which topics that are known are looked for again: a deploy may have given one of them
a history, without which nothing that is published to it is stored, nor known as said before."""

T = TypeVar("T")
B = TypeVar("B", bound="AppBus | SyncAppBus")


class _Topic(Generic[B]):
    """A room of a topic, as publishers see it."""

    def __init__(self, bus: B, name: str, channel: str) -> None:
        self._bus = bus
        self._name = name
        self._channel = channel


class Topic(_Topic["AppBus"]):
    """See `AppBus.topic`."""

    async def publish(self, x: Any, id: str = "") -> str | None:
        """Send `x` to all members of the room; return when it is stored.

        An outage of NATS is waited out, for the `timeout` of the connection at most; what is
        tried again is not stored twice.

        Args:
            x: encoded as what `execute` yields: str is text, bytes are binary, else JSON.
            id: publishing again with the same id within 2 minutes stores nothing new; for a
                room with history.

        Returns:
            The message's cursor, or None for a room without history.

        Raises:
            LookupError: no worker has declared this topic.
            NotStored: NATS did not acknowledge it in time.
            TypeError: `x` has no encoding.
            ValueError: the id holds a line break.
        """
        return await self._bus.publish(self._name, self._channel, x, id)


class SyncTopic(_Topic["SyncAppBus"]):
    """See `SyncAppBus.topic`."""

    def publish(self, x: Any, id: str = "") -> str | None:
        """As `Topic.publish`, and blocks until then; from any thread."""
        made: str | None = self._bus.call(lambda bus: bus.publish(self._name, self._channel, x, id))
        return made


class AppBus:
    """One app's rooms, for publishing. Made by `fairlead.connect`; use it with `async with`."""

    def __init__(
        self, nats_url: str, app: str = "default", timeout: float = 10.0,
        credentials: Credentials = ANONYMOUS,
    ) -> None:  # fmt: skip
        servers = tuple(url.strip() for url in nats_url.split(",") if url.strip())
        process = secrets.token_hex(4)
        self._options = BusOptions(
            servers, Subjects(app), "publisher", process, credentials=credentials
        )
        self._timeout = timeout
        self._bus: Bus | None = None
        self._publisher: LookingPublisher | None = None

    async def __aenter__(self) -> AppBus:
        self._bus = await Bus.within(self._options, self._timeout)
        self._publisher = LookingPublisher(self._bus)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._bus is not None:
            await self._bus.close()
            self._bus = self._publisher = None

    def topic(self, name: str, channel: str | None = None) -> Topic:
        """A room.

        Args:
            name: the topic with its parameters filled in, such as `chat` or `rooms.blue`.
            channel: the room's channel; without it the one of clients that name none.

        Raises:
            BadName: the channel is no channel name.
        """
        return Topic(self, name, _channel(channel))

    async def publish(self, topic: str, channel: str, x: Any, id: str) -> str | None:
        """See `Topic.publish`."""
        publisher = self._publisher
        if publisher is None:
            raise RuntimeError("not connected; use `async with fairlead.connect(…) as bus`")
        data_type, data = values.encode(x)
        if any(c in id for c in "\r\n"):
            raise ValueError(f"id {id[:80]!r} holds a line break")
        try:
            async with asyncio.timeout(self._timeout):
                trace = telemetry.current_traceparent()
                return await publisher.publish(topic, channel, data_type, data, id, trace)
        except TimeoutError:
            raise NotStored(
                f"{topic} ({channel}): NATS did not acknowledge it within {self._timeout:g} s; "
                "it may be stored all the same: try again with the same id"
            ) from None


class LookingPublisher(Publisher):
    """A publisher that finds out by itself what workers have declared, once it is asked to.

    Args:
        good_for: seconds after which what was found is looked for again, before the next message.
        tracing: as that of `Publisher`.
    """

    def __init__(
        self, bus: Bus, good_for: float = GOOD_FOR, tracing: Tracing | None = None
    ) -> None:
        super().__init__(bus, lambda: self._known, tracing)
        self._good_for = max(REFRESH, good_for)
        self._known: dict[str, History | None] = {}
        self._looked = -REFRESH
        self._due = 0.0
        self._looking = asyncio.Lock()

    async def publish(
        self, topic: str, channel: str, data_type: DataType, data: bytes, id: str = "",
        trace: str = "",
    ) -> str | None:  # fmt: skip
        """As `Publisher.publish`; also waits for NATS, if it is asked."""
        if template_of(topic, self._known) is None:
            await self._look()
        elif time.monotonic() >= self._due:
            await self._look_again()
        return await super().publish(topic, channel, data_type, data, id, trace)

    async def _look(self) -> None:
        async with self._looking:  # one look is enough for all who wait
            if time.monotonic() - self._looked >= REFRESH:
                await self._read()

    async def _look_again(self) -> None:
        """Look for what has changed; where nobody says it now, what is known will do meanwhile."""
        async with self._looking:
            if time.monotonic() < self._due:
                return
            try:
                await self._read()
            except Exception:  # whatever NATS says: a room without history needs no JetStream
                self._due = time.monotonic() + REFRESH

    async def _read(self) -> None:
        await self._bus.ready()
        self._known = await declared(self._bus)
        self._looked = time.monotonic()
        self._due = self._looked + self._good_for


async def declared(bus: Bus) -> dict[str, History | None]:
    """The topics of all builds that ever were, as the newest that has them declares them."""
    topics: dict[str, History | None] = {}
    for _, raw in sorted((await buckets.manifests(bus)).values(), reverse=True):
        topics = {**_topics_of(raw), **topics}
    return topics


def _topics_of(raw: bytes) -> Mapping[str, History | None]:
    try:
        return manifest.decode(raw).topics
    except ValueError:
        return {}  # of another version of Fairlead: its topics are not ours to judge


class SyncAppBus:
    """The blocking twin of `AppBus`, for Django, WSGI and scripts. Made by `fairlead.connect_sync`.

    It connects when it is first used, in a thread of its own, and again in a forked process, so
    it can stand in a module. All threads share it. `close` it, or leave that to the end of the
    process.
    """

    def __init__(
        self, nats_url: str, app: str = "default", timeout: float = 10.0,
        credentials: Credentials = ANONYMOUS,
    ) -> None:  # fmt: skip
        self._arguments = nats_url, app, timeout, credentials
        AppBus(*self._arguments)  # a wrong name is an error here, not at the first message
        self._lock = threading.Lock()
        self._running: _Thread | None = None
        _at_exit(self)

    def __enter__(self) -> SyncAppBus:
        self.call(_nothing)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def topic(self, name: str, channel: str | None = None) -> SyncTopic:
        """As `AppBus.topic`."""
        return SyncTopic(self, name, _channel(channel))

    def call(self, what: Any) -> Any:
        """Have an async call run on the bus, and wait for it.

        Raises:
            RuntimeError: called on an event loop, which this would block.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("connect_sync would block this event loop; use fairlead.connect")
        return self._thread().run(what)

    def _thread(self) -> _Thread:
        with self._lock:
            running = self._running
            if running is None or running.process != os.getpid():
                # After a fork the old one's thread is not here, and its socket is the parent's.
                self._running = running = _Thread(AppBus(*self._arguments))
                try:
                    running.start()
                except BaseException:
                    self._running = None
                    raise
            return running

    def close(self) -> None:
        """Disconnect. Using it again connects anew."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None and running.process == os.getpid():
            running.stop()


class _Thread:
    """An event loop in a thread, with one AppBus on it."""

    def __init__(self, bus: AppBus) -> None:
        self.process = os.getpid()
        self._bus = bus
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fairlead", daemon=True)

    def start(self) -> None:
        self._thread.start()
        try:
            self._wait(self._bus.__aenter__())
        except BaseException:
            self._end()
            raise

    def run(self, what: Any) -> Any:
        return self._wait(what(self._bus))

    def stop(self) -> None:
        self._wait(self._bus.__aexit__())
        self._end()

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _end(self) -> None:
        self._wait(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _nothing(bus: AppBus) -> None: ...


async def _end_all() -> None:
    """As `asyncio.run` does at its end: nats-py cancels its tasks, and does not wait for their end."""
    await process.end(*asyncio.all_tasks() - {asyncio.current_task()})


def _at_exit(bus: SyncAppBus) -> None:
    """Disconnect when the process ends, if it is still there by then."""
    found = weakref.ref(bus)

    def close() -> None:
        if (still := found()) is not None:
            still.close()

    atexit.register(close)


def _channel(channel: str | None) -> str:
    return names.DEFAULT_CHANNEL if channel is None else names.channel(channel)
