"""Whether a process lives and is ready, and the admin port that says so.

Liveness is that the loop runs; NATS has no part in it, or an outage of NATS would
restart every edge and drop every socket. Readiness forgives NATS an absence of some
seconds, or a blip would empty the balancer.

Both are asked on another thread than the loop's, so that there is an answer while it stands still.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fairlead import metrics
from fairlead.bus import Bus
from fairlead.looplag import STUCK_AFTER, LoopLag
from fairlead.metrics import Metrics
from fairlead.publisher import Publisher
from fairlead.vitals import VITALS

WHERE = 5
"""Innermost calls of a loop that stands still that are told."""


class Readiness:
    """The state of one process. Made on its loop.

    Args:
        grace: seconds that NATS may be away before the process counts as not ready.
        lacks: what is missing until it serves, for people.

    Attributes:
        bus: the connection to NATS, once there is one.
        serving: whether routes were read (edge) or work is taken (worker).
        draining: whether the process is on its way out.
        lag: how late its loop is.
    """

    def __init__(self, grace: float, lacks: str = "it does not serve yet") -> None:
        self.grace = grace
        self.bus: Bus | None = None
        self.serving: bool = False
        self.draining: bool = False
        self.lag: LoopLag = LoopLag()
        self._lacks = lacks

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether it is ready, and the state of each part at once; if it is not, why."""
        away = self._nats_away()
        nats: dict[str, Any] = {"connected": self.bus is not None and self.bus.connected}
        if away:
            nats["away_seconds"] = round(away, 3)
        reasons = self._reasons(away)
        body = {
            "ready": not reasons,
            "nats": nats,
            "serving": self.serving,
            "draining": self.draining,
        }
        return not reasons, body | ({"reason": reasons} if reasons else {})

    def _reasons(self, away: float | None) -> list[str]:
        """Why it is not ready, each in a sentence for people."""
        still = self.lag.still()
        checks = {
            "it is being drained; clients belong elsewhere": self.draining,
            self._lacks: not self.serving,
            "NATS was not reached yet": away is None,
            f"NATS has been away for {away or 0:.1f} s, longer than {self.grace:g} s": (
                away is not None and away >= self.grace
            ),
            f"the event loop has stood still for {still:.1f} s": still >= STUCK_AFTER,
        }
        return [reason for reason, holds in checks.items() if holds]

    def life(self) -> tuple[bool, dict[str, Any]]:
        """Whether the loop runs, and how late it was in the last 10 s; else for how long it does not."""
        still = self.lag.still()
        if still < STUCK_AFTER:
            return True, {"live": True, "lag_seconds": round(self.lag.worst(), 3)}
        reason = (
            f"the event loop has stood still for {still:.1f} s, longer than {STUCK_AFTER:g} s; "
            "something blocks in an async function"
        )
        where = [" ".join(call.split()) for call in self.lag.where()[-WHERE:]]
        return False, {
            "live": False, "reason": reason, "still_seconds": round(still, 3), "where": where
        }  # fmt: skip

    def _nats_away(self) -> float | None:
        """Seconds since NATS went away; 0 if it is there, None if it never was."""
        if self.bus is None:
            return None
        since = self.bus.down_since
        # The loop's clock is that of `time.monotonic`.
        return 0.0 if since is None else max(0.001, time.monotonic() - since)

    @asynccontextmanager
    async def admin(
        self, host: str, port: int | None, role: str, process: str
    ) -> AsyncIterator[AdminState]:
        """Keep the admin port open, if there is to be one; the rest is as `exported` says.

        Args:
            port: None opens none.

        Raises:
            OSError: the port cannot be had.
        """
        async with self.exported(role, process, scraped=port is not None) as state:
            if port is None:
                yield state
                return
            from fairlead import admin  # the web server is for those who open a port

            async with admin.serve_apart(admin.build_app(state), host, port, "admin port"):
                yield state

    @asynccontextmanager
    async def exported(self, role: str, process: str, scraped: bool) -> AsyncIterator[AdminState]:
        """Measure the loop, and export the metrics that every process has.

        Args:
            role, process: what the process is, and its id.
            scraped: whether somebody shows the state's `metrics`.
        """
        state = AdminState(self)
        state.loop = asyncio.get_running_loop()
        state.metrics = metrics.setup(role, process, scraped)
        state.metrics.add(VITALS, self)
        self.lag.start()
        try:
            yield state
        finally:
            self.lag.stop()
            await asyncio.to_thread(state.metrics.shutdown)


class AdminState:
    """What the admin port shows and does.

    Attributes:
        publisher: what `POST /publish` uses; None until NATS and the topics are known.
        metrics: what `/metrics` shows.
        loop: that of the publisher; None is that of whoever serves the port.
    """

    def __init__(self, readiness: Readiness) -> None:
        self.readiness = readiness
        self.publisher: Publisher | None = None
        self.metrics = Metrics()
        self.loop: asyncio.AbstractEventLoop | None = None
