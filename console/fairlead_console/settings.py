"""What the console can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.settings import Duration, NatsSettings, Port

TRACE_MEMORY = 32 * 1024 * 1024
"""Bytes; about 9,000 chat messages (measured)."""


class ConsoleSettings(NatsSettings):
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
