"""Everything a workflow author imports. What is not here may change without notice."""

from fairlead import trigger
from fairlead.context import (
    SSE,
    WS,
    Broadcast,
    Channel,
    Direct,
    Event,
    Message,
    Reply,
    broadcast,
    direct,
    reply,
)
from fairlead.errors import BadDeclaration, FairleadError, NoSuchPeer, Reject
from fairlead.inject import Body, Header, Path, Query
from fairlead.outside import connect, connect_sync
from fairlead.trigger import History
from fairlead.workflow import Feature, Project, Workflow, feature, project, workflow

__all__ = [
    "SSE",
    "WS",
    "BadDeclaration",
    "Body",
    "Broadcast",
    "Channel",
    "Direct",
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
    "Reply",
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
