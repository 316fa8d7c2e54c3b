"""Whether a process lives and is ready, and the admin port that says so.

Liveness is that the loop answers; NATS has no part in it, or an outage of NATS would
restart every edge and drop every socket. Readiness forgives NATS an absence of some
seconds, or a blip would empty the balancer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fairlead.bus import Bus
from fairlead.publisher import Publisher


class Readiness:
    """The state of one process.

    Args:
        grace: seconds that NATS may be away before the process counts as not ready.

    Attributes:
        bus: the connection to NATS, once there is one.
        serving: whether routes were read (edge) or work is taken (worker).
        draining: whether the process is on its way out.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.bus: Bus | None = None
        self.serving = False
        self.draining = False

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether it is ready, and the state of each part at once."""
        away = self._nats_away()
        ready = self.serving and not self.draining and away is not None and away < self.grace
        nats: dict[str, Any] = {"connected": self.bus is not None and self.bus.connected}
        if away:
            nats["away_seconds"] = round(away, 3)
        return ready, {
            "ready": ready,
            "nats": nats,
            "serving": self.serving,
            "draining": self.draining,
        }

    def _nats_away(self) -> float | None:
        """Seconds since NATS went away; 0 if it is there, None if it never was."""
        if self.bus is None:
            return None
        if self.bus.down_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self.bus.down_since

    @asynccontextmanager
    async def admin(self, host: str, port: int | None) -> AsyncIterator[AdminState]:
        """Keep the admin port open; None opens none.

        Raises:
            OSError: the port cannot be had.
        """
        state = AdminState(self)
        if port is None:
            yield state
            return
        from fairlead import admin  # the web server is for those who open a port

        async with admin.serve(admin.build_app(state), host, port, "admin port"):
            yield state


class AdminState:
    """What the admin port shows and does.

    Attributes:
        publisher: what `POST /publish` uses; None until NATS and the topics are known.
    """

    def __init__(self, readiness: Readiness) -> None:
        self.readiness = readiness
        self.publisher: Publisher | None = None
