"""For programs that are no workers: `fairlead.connect` and `fairlead.connect_sync`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairlead.appbus import AppBus, SyncAppBus


def connect(nats_url: str | None = None, app: str | None = None, timeout: float = 10.0) -> AppBus:
    """Publish to an app's rooms: `async with fairlead.connect() as bus: …`.

    Args:
        nats_url: one, or several with commas; FAIRLEAD_NATS by default, or this machine's.
        app: FAIRLEAD_APP by default, or `default`.
        timeout: seconds in which NATS must answer, when connecting and for each message.

    Raises (when it is entered):
        Unusable: NATS does not answer in time, or is not as Fairlead needs it.
    """
    from fairlead.appbus import AppBus  # authors of workflows need no NATS client

    return AppBus(nats_url or _nats(), app or _app(), timeout)


def connect_sync(
    nats_url: str | None = None, app: str | None = None, timeout: float = 10.0
) -> SyncAppBus:
    """The blocking twin of `connect`, for Django, WSGI and scripts; see `SyncAppBus`."""
    from fairlead.appbus import SyncAppBus

    return SyncAppBus(nats_url or _nats(), app or _app(), timeout)


def _nats() -> str:
    return os.environ.get("FAIRLEAD_NATS", "nats://127.0.0.1:4222")


def _app() -> str:
    return os.environ.get("FAIRLEAD_APP", "default")
