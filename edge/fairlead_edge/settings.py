"""What an edge can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import DirectoryPath, Field, ValidationInfo, field_validator

from fairlead.settings import Duration, OptionalPort, Port, ProcessSettings


class EdgeSettings(ProcessSettings):
    """Settings of one edge process. Times are in seconds."""

    host: str = "127.0.0.1"
    """Address that clients connect to."""

    port: Port = 8000
    """Port that clients connect to; 0 takes any that is free."""

    admin_host: str = "127.0.0.1"
    """Address of the admin port; whoever reaches it can publish."""

    admin_port: OptionalPort = 8001
    """Port of /livez, /readyz, /metrics and /publish; 0 takes any that is free, none opens none."""

    drain_grace: Duration = 30.0
    """Time to bring clients elsewhere on SIGTERM; keep it under the orchestrator's kill delay."""

    worker_wait: Duration = 10.0
    """Time a message or an open waits for a worker before it is answered with 503."""

    ready_grace: Duration = 10.0
    """Time NATS may be away before /readyz says so, so that a blip does not empty the balancer."""

    buffer_limit: Annotated[int, Field(ge=1024 * 1024)] = 256 * 1024 * 1024
    """Bytes that may wait for all slow clients together; with more, the worst are dropped first."""

    broker_spans: bool = False
    """Join NATS's own hop tracing into the traces; its account must have msg_trace for it."""

    pages: Annotated[DirectoryPath | None, Field(json_schema_extra={"hint": "DIR"})] = None
    """Folder of files to serve where no route is; for development and small installations."""

    @field_validator("admin_port", mode="after")
    @classmethod
    def _is_another(cls, value: int | None, others: ValidationInfo) -> int | None:
        if value and value == others.data.get("port"):
            raise ValueError(f"found {value}, which is --port, too; choose two")
        return value
