"""The streams that keep the rooms of topics with history: made by workers, and changed by newer builds."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import nats.js.errors
import orjson
from nats.js.api import RePublish, StreamConfig, StreamInfo

from fairlead.bus import Bus
from fairlead.errors import BadDeclaration
from fairlead.protocol import names
from fairlead.protocol.limits import Limits
from fairlead.protocol.manifest import History
from fairlead.protocol.timestamps import nanoseconds
from fairlead.storing import ACK_WITHIN, DUPLICATE_WINDOW


async def refuse_eviction(bus: Bus, topic: str, history: History) -> None:
    """Look whether a topic's stream keeps more now than it would with these options.

    Raises:
        BadDeclaration: it does, so that they would evict messages at once.
    """
    with contextlib.suppress(nats.js.errors.NotFoundError):
        _refuse_shrinking(topic, await _stream_info(bus, topic), history)


async def ensure(
    bus: Bus, topic: str, history: History, generation: int, allow_shrink: bool
) -> None:
    """Create a topic's stream, or bring it to these options if no newer build did so.

    Args:
        generation: the build's; only a newer one changes the options.
        allow_shrink: a smaller `size` or `age` evicts at once; False refuses it.

    Raises:
        BadDeclaration: it would evict messages, and that was not allowed.
    """
    try:
        info = await _stream_info(bus, topic)
    except nats.js.errors.NotFoundError:
        await bus.jetstream.add_stream(_stream_config(bus, topic, history, generation, {}))
        return
    now = info.config
    if int((now.metadata or {}).get("fairlead-generation", "0")) >= generation:
        return
    if not allow_shrink:
        _refuse_shrinking(topic, info, history)
    limits = _limits_of(now)
    if (limits.size, limits.age) != (history.size, history.age):
        asked = orjson.loads(
            await bus.request(f"$JS.API.STREAM.INFO.{now.name}", b"", within=ACK_WITHIN)
        )
        limits = limits.changed(history, nanoseconds(asked["ts"]) // 1_000_000)
    config = _stream_config(bus, topic, history, generation, limits.metadata)
    config.num_replicas = now.num_replicas
    await bus.jetstream.update_stream(config)


async def _stream_info(bus: Bus, topic: str) -> StreamInfo:
    return await bus.jetstream.stream_info(bus.subjects.stream(topic))


def _stream_config(
    bus: Bus, topic: str, history: History, generation: int, more: Mapping[str, str]
) -> StreamConfig:
    # No per-message TTL, delete, rollup or limit over the whole stream: each would make
    # holes in a room that a resume could not tell from messages that never were.
    source, destination = bus.subjects.republish
    return StreamConfig(
        name=bus.subjects.stream(topic),
        description=f"Fairlead rooms of {topic}",
        subjects=[bus.subjects.stream_subject(names.topic_template(topic))],
        max_msgs_per_subject=history.size,
        max_age=history.age,
        num_replicas=bus.options.replicas,
        # A stream refuses a window longer than its age.
        duplicate_window=min(DUPLICATE_WINDOW, history.age),
        republish=RePublish(src=source, dest=destination),
        allow_direct=True,
        deny_delete=True,
        metadata={"fairlead-generation": str(generation), "fairlead-topic": topic, **more},
    )


def _limits_of(config: StreamConfig) -> Limits:
    return Limits.of(config.max_msgs_per_subject or 0, config.max_age or 0, config.metadata)


def _refuse_shrinking(topic: str, info: StreamInfo, history: History) -> None:
    kept = _limits_of(info.config)
    if kept.size > history.size or kept.age > history.age:
        raise BadDeclaration(
            f"topic {topic!r} keeps {kept.size:g} messages for {kept.age:g} s; "
            f"{history.size} for {history.age:g} s would evict messages at once; "
            "start the worker with --allow-shrink if that is meant"
        )
