"""Which saved files make the workers start anew."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

from watchfiles import Change, awatch

IGNORED = frozenset({".venv", "venv", ".fairlead", "__pycache__", "node_modules", ".git"})

# Milliseconds that a burst of changes (an editor's swap file, a formatter) is gathered for.
GATHER = 100


def concerns(root: Path, path: Path) -> bool:
    """Whether a change of `path` is one of the project under `root`."""
    try:
        inside = path.relative_to(root)
    except ValueError:
        return False
    return path.suffix == ".py" and IGNORED.isdisjoint(inside.parts)


async def saved(root: Path) -> AsyncGenerator[list[Path]]:
    """Yield the files of each burst of saves, sorted, relative to `root`.

    What is saved while the caller is busy comes with the next burst. Closing the generator
    ends the watch.

    Args:
        root: resolved, since the paths of changes are.
    """

    def ours(_: Change, path: str) -> bool:
        return concerns(root, Path(path))

    async for changes in awatch(root, watch_filter=ours, debounce=GATHER):
        yield sorted({Path(path).relative_to(root) for _, path in changes})
