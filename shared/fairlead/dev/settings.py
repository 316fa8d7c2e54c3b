"""What `fairlead dev` can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.settings import Duration, Port, Positional, Settings

DEFAULT_ADMIN_PORT = 8001
"""Where `fairlead trace` looks, too, if it is not told."""


class DevSettings(Settings):
    """Settings of the supervisor. Times are in seconds."""

    target: Annotated[str, Positional(example="examples/chat")]
    """The project to serve: module:attr, path/file.py[:attr] or a folder with app.py (and page/)."""

    port: Port = 8000
    """Port that clients connect to; 0 takes any that is free, as further edges do."""

    admin_port: Port = DEFAULT_ADMIN_PORT
    """Port of the console, which also publishes; 0 takes any that is free."""

    edges: Annotated[int, Field(ge=1, le=16)] = 1
    """Number of edges."""

    workers: Annotated[int, Field(ge=1, le=16)] = 1
    """Number of workers."""

    drain_grace: Duration = 5.0
    """Time each edge and worker has to finish when it is stopped."""
