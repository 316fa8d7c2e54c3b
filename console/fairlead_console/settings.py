"""What the console can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fairlead.dev.settings import DEFAULT_ADMIN_PORT
from fairlead.settings import (
    AskingSettings,
    Bare,
    Duration,
    Port,
    Positional,
    ProcessSettings,
    Settings,
)

DEV = f"http://127.0.0.1:{DEFAULT_ADMIN_PORT}"
"""Where the console of `fairlead dev` is."""

TRACE_MEMORY = 32 * 1024 * 1024
"""Bytes; about 9,000 chat messages (measured)."""


class ConsoleSettings(ProcessSettings):
    """Settings of one console process. Times are in seconds."""

    host: str = "127.0.0.1"
    """Address of the console; whoever reaches it sees what it shows."""

    port: Port = 8002
    """Port of the console; 0 takes any that is free."""

    token: str = ""
    """What a request must bring (Authorization: Bearer) to change anything; none is read-only."""

    open_publish: bool = False
    """Let whoever reaches the port publish, as on any admin port; else it takes the token."""

    trace_memory: Annotated[int, Field(ge=1024 * 1024)] = TRACE_MEMORY
    """Bytes for traces, about 9,000 chat messages; the oldest go first."""

    ready_grace: Duration = 10.0
    """Time NATS may be away before /readyz says so."""


class TopSettings(AskingSettings):
    """What `top` can be told."""

    once: bool = False
    """Print one picture and leave; so it does where there is no terminal."""

    json_: bool = False
    """Print a line of JSON for each picture, as GET /api/fleet of the console has it."""


Count = Annotated[int | None, Bare("1"), Field(ge=1, le=100, json_schema_extra={"hint": "[N]"})]


class TraceSettings(Settings):
    """What `trace` can be told."""

    trace: Annotated[str, Positional(example="4bf92f35")] = ""
    """A trace's id, or the first digits of it."""

    last: Count = None
    """The last message instead, or a list of the last N."""

    slow: Count = None
    """The slowest message instead, or a list of the slowest N."""

    from_: Annotated[str, Field(json_schema_extra={"hint": "URL"})] = DEV
    """Where the traces are: a console, Jaeger or Tempo."""

    kind: Annotated[
        Literal["auto", "console", "jaeger", "tempo"],
        Field(json_schema_extra={"hint": "auto|console|jaeger|tempo"}),
    ] = "auto"
    """What answers there; auto asks."""

    service: str = "fairlead-edge"
    """The service among whose traces Jaeger and Tempo look for the last and the slowest."""

    since: Duration = 3600.0
    """How far back they look."""

    header: Annotated[str, Field(json_schema_extra={"hint": "NAME:VALUE"})] = ""
    """A header to send there, for a token or a tenant."""

    json_: bool = False
    """Print a line of JSON for each trace."""
