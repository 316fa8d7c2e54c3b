"""What a topic's stream keeps of each room, now and in the time that its messages come from.

Pure. Whether a room still has all that it got since some time depends on the least that it kept
since then: a deploy that lets it keep more brings nothing back of what it had evicted before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.errors import Malformed
from fairlead.protocol.manifest import History

UNLIMITED = 2**63
"""Messages, or seconds, of a stream that has no limit of the kind."""

SETTLES = 10_000
"""Milliseconds after which a change of a stream's options surely holds: those who ask for it wait
5 s, and the clocks of two servers may differ."""

EARLIER = "fairlead-earlier"
"""Key of a stream's metadata: `UNTIL SIZE AGE`, the least that was kept before its newest change."""

FRESH = 0.9
"""The part of the age that a position may have in a room that no longer shows what was before."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a stream keeps of each room: at most `size` messages, none older than `age` seconds.

    Attributes:
        until: server time, in ms, up to which it may have kept less; 0 if it never did.
        least_size, least_age: what it kept until then.
    """

    size: float = UNLIMITED
    age: float = UNLIMITED
    until: int = 0
    least_size: float = UNLIMITED
    least_age: float = UNLIMITED

    @classmethod
    def of(cls, size: int, age: float, metadata: Mapping[str, str] | None) -> Limits:
        """As a stream's configuration has them. Args: size, age: 0 and less is no limit.

        Raises:
            Malformed: the metadata is not what a worker writes.
        """
        now = size if size > 0 else UNLIMITED, age if age > 0 else UNLIMITED
        earlier = (metadata or {}).get(EARLIER)
        if earlier is None:
            return cls(*now)
        try:
            until, least_size, least_age = earlier.split()
            return cls(*now, int(until), float(least_size), float(least_age))
        except ValueError:
            raise Malformed(f"{EARLIER} is {earlier!r}; expected UNTIL SIZE AGE") from None

    def changed(self, to: History, now: int) -> Limits:
        """As they are after a change at this server time in ms; what was before is remembered for
        as long as anything from then can still be asked for."""
        size, age = self.size, self.age
        if self._remembered(now):
            size, age = min(size, self.least_size), min(age, self.least_age)
        return Limits(to.size, to.age, now + SETTLES, size, age)

    def _remembered(self, now: int) -> bool:
        return now - self.until < self.age * 1000

    @property
    def metadata(self) -> dict[str, str]:
        """To be stored with the stream; the inverse of `of`."""
        if not self.until:
            return {}
        return {EARLIER: f"{self.until} {self.least_size:g} {self.least_age:g}"}

    def since(self, time: int) -> tuple[float, float]:
        """(size, age) of the least that was kept since a server time in ms."""
        if time > self.until:
            return self.size, self.age
        return min(self.size, self.least_size), min(self.age, self.least_age)

    def whole(self, messages: int, since: int, now: int) -> bool:
        """Whether a room that has so many messages surely has all that it got since a time.

        Args:
            since, now: server times in ms.
        """
        size, age = self.since(since)
        return messages < size and now - since < age * 1000 * FRESH
