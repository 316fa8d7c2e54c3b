"""Everything a workflow author imports. What is not here may change without notice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fairlead import trigger
from fairlead.context import SSE, WS, Event, Message, broadcast, direct, reply
from fairlead.errors import BadDeclaration, FairleadError, NoSuchPeer, Reject
from fairlead.inject import Body, Header, Path, Query
from fairlead.trigger import History
from fairlead.workflow import Feature, Project, Workflow, feature, project, workflow

if TYPE_CHECKING:
    from fairlead.outside import AppBus, SyncAppBus

__all__ = [
    "SSE",
    "WS",
    "BadDeclaration",
    "Body",
    "Event",
    "FairleadError",
    "Feature",
    "Header",
    "History",
    "Message",
    "NoSuchPeer",
    "Path",
    "Project",
    "Query",
    "Reject",
    "Workflow",
    "broadcast",
    "connect",
    "connect_sync",
    "direct",
    "feature",
    "project",
    "reply",
    "trigger",
    "workflow",
]


def connect(nats_url: str | None = None, app: str = "default", timeout: float = 10.0) -> AppBus:
    """Publish to an app's rooms: `async with fairlead.connect() as bus: …`.

    Args:
        nats_url: one, or several with commas; FAIRLEAD_NATS by default.
        timeout: seconds in which NATS must answer, when connecting and for each message.

    Raises (when it is entered):
        Unusable: NATS does not answer in time, or is not as Fairlead needs it.
    """
    from fairlead.outside import AppBus  # authors of workflows need no NATS client

    return AppBus(nats_url or _nats(), app, timeout)


def connect_sync(
    nats_url: str | None = None, app: str = "default", timeout: float = 10.0
) -> SyncAppBus:
    """The blocking twin of `connect`, for Django, WSGI and scripts; see `SyncAppBus`."""
    from fairlead.outside import SyncAppBus

    return SyncAppBus(nats_url or _nats(), app, timeout)


def _nats() -> str:
    return os.environ.get("FAIRLEAD_NATS", "nats://127.0.0.1:4222")
