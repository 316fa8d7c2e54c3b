"""What others import: `fairlead.__all__` and that of its client, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import fairlead
import fairlead.client

FACADES = [fairlead, fairlead.client]

TYPES = {"SentState", "Status", "TokenHook"}
"""Names for types, whose docstrings Python does not keep."""


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.__name__)
def test_the_public_names_are_sorted(facade: ModuleType) -> None:
    """As ruff sorts them (RUF022): constants, classes, then functions and modules."""

    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2), name

    assert facade.__all__ == sorted(facade.__all__, key=rank)


@pytest.mark.parametrize(
    ("facade", "name"), [(facade, name) for facade in FACADES for name in facade.__all__]
)
def test_each_public_name_exists_and_has_a_docstring(facade: ModuleType, name: str) -> None:
    found = getattr(facade, name)
    if name in TYPES:
        return
    doc = found.__doc__
    assert doc
    assert not doc.startswith(f"{name}("), "dataclass wrote it, not we"


@pytest.mark.parametrize("facade", FACADES, ids=lambda facade: facade.__name__)
def test_nothing_else_is_public(facade: ModuleType) -> None:
    """Besides the submodules, which Python puts there once somebody imports them."""
    others = {
        name
        for name, value in vars(facade).items()
        # "@…" is pytest's own: it rewrites the asserts of a distribution that brings a plugin.
        if not name.startswith(("_", "@")) and name not in facade.__all__
        if not (isinstance(value, ModuleType) and value.__name__ == f"{facade.__name__}.{name}")
    }
    assert others == set()


def test_the_public_names_are_those_of_section_3() -> None:
    """As far as they are built; a name that goes away breaks every project."""
    assert {
        *[
            "SSE",
            "WS",
            "Message",
            "broadcast",
            "direct",
            "feature",
            "project",
            "reply",
            "trigger",
            "workflow",
        ]
    } <= {*fairlead.__all__}


def test_importing_fairlead_loads_no_server_and_no_client() -> None:
    """Whoever declares workflows pays for neither: a test suite, a script, a type checker."""
    heavy = {"starlette", "uvicorn", "websockets", "httpx", "nats", "opentelemetry", "asyncio"}
    code = f"import sys, fairlead; print(*sorted({heavy!r} & sys.modules.keys()))"
    # -S -I would hide the editable install; -c alone starts with nothing of this process.
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == []
