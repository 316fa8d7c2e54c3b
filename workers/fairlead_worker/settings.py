"""What a worker can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from fairlead.settings import Duration, OptionalPort, Positional, ProcessSettings


def _whole(value: object) -> object:
    # `Literal` compares without converting, and the environment holds only text.
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class WorkerSettings(ProcessSettings):
    """Settings of one worker process. Times are in seconds."""

    target: Annotated[str, Positional(example="examples/chat")]
    """The project to serve: module:attr or path/file.py[:attr]; attr defaults to app."""

    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Messages executed at once; at this many the worker leaves its share to others."""

    streams: Annotated[int, Field(ge=1, le=30_000)] = 10_000
    """Runs of connections and event streams at once; at this many it leaves its share to others."""

    policy_timeout: Duration = 5.0
    """Time for the policies of one request; after it the client is refused with 503."""

    admin_host: str = "127.0.0.1"
    """Address of the admin port; whoever reaches it can publish."""

    admin_port: OptionalPort = None
    """Port of /livez, /readyz, /metrics and /publish; 0 takes any that is free, none opens none."""

    drain_grace: Duration = 30.0
    """Time for runs in hand on SIGTERM; keep it under the orchestrator's kill delay."""

    ready_grace: Duration = 10.0
    """Time NATS may be away before /readyz says so."""

    replicas: Annotated[
        Literal[1, 3, 5], BeforeValidator(_whole), Field(json_schema_extra={"hint": "1|3|5"})
    ] = 1
    """Copies of each stream; as many NATS servers with JetStream must be there."""

    allow_shrink: bool = False
    """Let a smaller history evict at once what no longer fits."""
