"""Publishing to a room from outside a run: `POST /publish` and `fairlead publish`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping

from fairlead import roomlog, storing, telemetry
from fairlead.bus import Bus
from fairlead.errors import BadName, NotStored
from fairlead.protocol import cursor, names
from fairlead.protocol.envelope import DataType
from fairlead.protocol.manifest import History
from fairlead.telemetry import Tracing

Topics = Callable[[], Mapping[str, History | None]]


def template_of(topic: str, templates: Mapping[str, History | None]) -> str | None:
    """The declared topic that `topic` is a name of, or None."""
    levels = tuple(topic.split("."))
    if not all(names.is_token(level) for level in levels):
        return None
    for template in templates:
        if names.overlap(names.topic_template(template), levels):
            return template
    return None


class Publisher:
    """Publishes to the rooms of an app.

    Args:
        topics: the declared topics and their history, as they are now.
        tracing: of this process; None where what is published is traced by who calls, or not at all.
    """

    def __init__(self, bus: Bus, topics: Topics, tracing: Tracing | None = None) -> None:
        self._bus = bus
        self._topics = topics
        self._tracing = tracing

    async def publish(
        self, topic: str, channel: str, data_type: DataType, data: bytes, id: str = "",
        trace: str = "",
    ) -> str | None:  # fmt: skip
        """Publish; return the message's cursor, or None for a room without history.

        Args:
            id: publishing again with the same id within 2 minutes stores nothing new.
            trace: traceparent of what publishes, or "".

        Raises:
            BadName: the channel is no channel name.
            LookupError: no such topic is declared.
            NotStored: the room's stream did not acknowledge it; without history, NATS did not.
        """
        names.channel(channel)
        template = template_of(topic, self._topics())
        if template is None:
            known = ", ".join(sorted(self._topics())) or "none"
            raise LookupError(f"topic {topic[:80]!r} is not declared; declared: {known}")
        headers = {"Fl-Type": str(data_type)}
        parent = telemetry.parent_of(trace)
        if self._tracing is None or not self._tracing.sampled(parent):
            if parent is not None and parent.sampled and self._tracing is None:
                headers["traceparent"] = trace
            return await self._publish(template, topic, channel, data, id, headers)
        attributes: dict[str, str | int] = {
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.template": template,
            "messaging.destination.name": f"{topic}.{channel}",
            "messaging.message.body.size": len(data),
        }
        hop = self._tracing.start(f"publish {template}", "producer", parent, attributes)
        with hop.ending():
            headers["traceparent"] = str(hop.parent)
            return await self._publish(template, topic, channel, data, id, headers)

    async def _publish(
        self, template: str, topic: str, channel: str, data: bytes, id: str,
        headers: dict[str, str],
    ) -> str | None:  # fmt: skip
        subject = self._bus.subjects.log(topic, channel)
        deadline = asyncio.get_running_loop().time() + storing.STORE_PATIENCE
        if self._topics()[template] is None:
            await self._say(subject, data, headers, deadline)
            return None
        # Asked first: what is stored must not be told as not stored, or who has no id of their own
        # says it twice. A position may be older than its message, it only counts for less long.
        stream = self._bus.subjects.stream(template)
        state = await storing.answered(
            self._bus, lambda: roomlog.state(self._bus, stream), deadline
        )
        headers["Nats-Msg-Id"] = _message_id(subject, id)
        stored = await storing.store(self._bus, subject, data, headers, deadline)
        position = cursor.Position(state.created, stored.sequence, state.time)
        return cursor.encode(position, subject)

    async def _say(
        self, subject: str, data: bytes, headers: dict[str, str], deadline: float
    ) -> None:
        """Publish to a room without history; return when NATS has it."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._bus.ready()
                self._bus.publish(subject, data, headers=headers)
                await self._bus.round_trip()
        except TimeoutError:
            raise NotStored(f"{subject}: NATS does not answer; it may have been said") from None


def _message_id(subject: str, id: str) -> str:
    # Per room, since a stream holds many; and apart from those of runs.
    return f"{subject} {id}" if id else secrets.token_urlsafe(12)


def parse_data(value: object) -> tuple[DataType, bytes]:
    """A string is text, anything else is JSON."""
    from fairlead import values

    return values.encode(value)


def channel_or_default(value: object) -> str:
    """The channel of a request's body.

    Raises:
        BadName: it is no string, or no channel name.
    """
    if value is None:
        return names.DEFAULT_CHANNEL
    if not isinstance(value, str):
        raise BadName(f"channel must be a string, not {type(value).__name__}")
    return names.channel(value)
