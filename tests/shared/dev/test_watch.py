from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from fairlead.dev import watch
from fairlead.testing.program import DEADLINE


@pytest.mark.parametrize(
    ("path", "concerns"),
    [
        ("app.py", True),
        ("deep/er/app.py", True),
        ("app.txt", False),
        ("app.pyc", False),
        (".venv/lib/x.py", False),
        ("deep/__pycache__/x.py", False),
        (".fairlead/dev/x.py", False),
        ("../other.py", False),
    ],
)
def test_which_files_concern_the_project(path: str, concerns: bool) -> None:
    root = Path("/project/.venv-of-others") if path.startswith("..") else Path("/project")
    assert watch.concerns(root, Path(f"/project/{path}")) is concerns


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".venv").mkdir()
    return tmp_path.resolve()


async def test_saved_files_are_told(root: Path) -> None:
    async with aclosing(watch.saved(root)) as bursts:
        first = asyncio.ensure_future(anext(bursts))
        async with asyncio.timeout(DEADLINE):
            # The watch begins at some moment of the first step: save until it sees one.
            while not first.done():
                (root / ".venv" / "not.py").write_text("x")
                (root / "app.py").write_text("x")
                await asyncio.wait([first], timeout=0.05)
        assert first.result() == [Path("app.py")]
