"""For programs that are no workers: `fairlead.connect` and `fairlead.connect_sync`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairlead.appbus import AppBus, SyncAppBus
    from fairlead.credentials import Credentials

_File = str | Path | None


def connect(
    nats_url: str | None = None, app: str | None = None, timeout: float = 10.0, **credentials: _File
) -> AppBus:
    """Publish to an app's rooms: `async with fairlead.connect() as bus: …`.

    Args:
        nats_url: one, or several with commas; FAIRLEAD_NATS by default, or this machine's.
        app: FAIRLEAD_APP by default, or `default`.
        timeout: seconds in which NATS must answer, when connecting and for each message.
        credentials: files, each by default that of its variable: `nkey` (FAIRLEAD_NATS_NKEY),
            `creds`, `ca`, `cert` and `key`. A password or a token stands in the URL.

    Raises (when it is entered):
        Unusable: NATS does not answer in time, or is not as Fairlead needs it; a file is no use.
    """
    from fairlead.appbus import AppBus  # authors of workflows need no NATS client

    return AppBus(nats_url or _nats(), app or _app(), timeout, _credentials(credentials))


def connect_sync(
    nats_url: str | None = None, app: str | None = None, timeout: float = 10.0, **credentials: _File
) -> SyncAppBus:
    """The blocking twin of `connect`, for Django, WSGI and scripts; see `SyncAppBus`."""
    from fairlead.appbus import SyncAppBus

    return SyncAppBus(nats_url or _nats(), app or _app(), timeout, _credentials(credentials))


def _nats() -> str:
    return os.environ.get("FAIRLEAD_NATS", "nats://127.0.0.1:4222")


def _app() -> str:
    return os.environ.get("FAIRLEAD_APP", "default")


def _credentials(given: dict[str, _File]) -> Credentials:
    from fairlead.credentials import Credentials

    named = [field.name for field in dataclasses.fields(Credentials)]
    if unknown := given.keys() - set(named):
        raise TypeError(f"{min(unknown)!r} is no credential; there are {', '.join(named)}")
    files = {
        name: given.get(name) or os.environ.get(f"FAIRLEAD_NATS_{name.upper()}") for name in named
    }
    return Credentials(**{name: Path(file) for name, file in files.items() if file})
