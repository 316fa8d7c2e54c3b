"""A thread that notices when the event loop is stuck, and takes the worker out of the way.

A queue group goes on feeding a worker whose loop does not run. After 5 s its NATS socket
is shut, so that the server stops, and the log shows where it is stuck.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fairlead import logs
from fairlead.looplag import STUCK_AFTER, stack_of

log = logs.get("fairlead.worker")

LOOK_EVERY = 0.5


class Watchdog:
    """Watches the thread that makes it.

    Args:
        ticked: when the loop last ticked, on the clock of `time.monotonic` (the loop's own).
        cut: shuts the NATS socket; called from the watchdog's thread.
    """

    def __init__(self, ticked: Callable[[], float], cut: Callable[[], None]) -> None:
        self._ticked = ticked
        self._cut = cut
        self._watched = threading.get_ident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        bitten_at = -1.0
        while not self._stop.wait(LOOK_EVERY):
            ticked = self._ticked()
            still = time.monotonic() - ticked
            if still < STUCK_AFTER or bitten_at == ticked:
                continue
            bitten_at = ticked
            stack = "".join(stack_of(self._watched)) or "unknown\n"
            log.error(
                "the loop has been stuck; leaving NATS until it runs again. Something blocks in an "
                "async function; make it a plain def, which runs in a thread",
                seconds=round(still, 1),
                stack=stack,
            )
            try:
                self._cut()
            except OSError as error:
                log.warning("the NATS socket could not be shut", reason=str(error))
