"""How the processes of a benchmark talk: one JSON object a line, over stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


def say(event: str, **members: Any) -> None:
    """Tell the process that started this one."""
    sys.stdout.write(json.dumps({"event": event, **members}) + "\n")
    sys.stdout.flush()


class Commands:
    """What the process that started this one tells; iterate, the end is its wish that we end."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    @classmethod
    async def open(cls) -> Commands:
        reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        return cls(reader)

    async def next(self) -> dict[str, Any] | None:
        """The next command; None at the end."""
        line = await self._reader.readline()
        found: dict[str, Any] | None = json.loads(line) if line else None
        return found
