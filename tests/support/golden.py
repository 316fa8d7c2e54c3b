"""Pictures that are compared with files in the repository."""

from __future__ import annotations

from pathlib import Path


def same(file: Path, made: str) -> None:
    """Assert that a file holds what was made; one that is missing is written, to be looked at."""
    if not file.exists():
        file.write_text(made)
        raise AssertionError(f"{file.name} was missing; it is written: look at it, and run again")
    assert made == file.read_text(), (
        f"delete {file.name} and run again, if this is how it should be"
    )
