"""The Python in docs/ and README is Python that works."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.scheduler import NewThreadScheduler

from fairlead import streams, testing
from support import metrics_page

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _snippets() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, code in enumerate(
            re.findall(r"```python.*?\n(.*?)```", page.read_text(), re.S)
        ):
            found.append((f"{page.name}-{number}", code))
    return found


def _imports(code: str) -> list[ast.stmt]:
    return [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize(("name", "code"), _snippets(), ids=[name for name, _ in _snippets()])
def test_a_snippet_parses_and_what_it_imports_of_ours_is_there(name: str, code: str) -> None:
    ours = [node for node in _imports(code) if "fairlead" in ast.unparse(node)]
    exec(compile(ast.Module(ours, []), name, "exec"), {})


PROJECTS = [(name, code) for name, code in _snippets() if "app = project(" in code]


@pytest.mark.parametrize(("name", "code"), PROJECTS, ids=[name for name, _ in PROJECTS])
def test_a_snippet_that_is_a_project_can_be_served(name: str, code: str) -> None:
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(code, name, "exec"), names)
    assert names["app"].manifest().routes


LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)|(?:src|href)=\"(?!https?:|#)([^\"]+)\"")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for found in LINK.finditer(page.read_text()):
        target = found[1] or found[2]
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


RECORDING = [
    "edge/fairlead_edge/*.py",
    "workers/fairlead_worker/*.py",
    "shared/fairlead/telemetry.py",
    "shared/fairlead/publisher.py",
]
"""Where spans are made, or told something."""

ATTRIBUTE = re.compile(
    r"""(?:set|set_attribute)\("([a-z_.]+)"|"((?:fairlead|messaging|network|http|error)\.[a-z_.]+)"(?:: |\])"""
)
"""As it is set, or the key of a dict."""


def test_each_attribute_of_a_span_is_listed_and_there_are_no_others() -> None:
    """docs/tracing.md, against the code; those of NATS are put together there, piece by piece."""
    files = [path for pattern in RECORDING for path in ROOT.glob(pattern)]
    made = {name for path in files for pair in ATTRIBUTE.findall(path.read_text()) for name in pair}
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "tracing.md").read_text(), re.M)
    listed = {name for row in rows for name in re.findall(r"`([a-z_]+\.[a-z_.]+)`", row)}
    of_nats = {name for name in made | listed if name.startswith("fairlead.nats.")}
    assert listed - of_nats - {"service.name", "service.instance.id"} == made - of_nats - {""}


TESTS = [
    code
    for name, code in _snippets()
    if "async def test_" in code and not name.startswith("guide.md")  # tests/system/test_guide.py
]


@pytest.mark.parametrize("code", TESTS)
async def test_the_tests_that_the_pages_show_pass(
    code: str, request: pytest.FixtureRequest
) -> None:
    names: dict[str, Any] = {}
    exec(compile(code, "snippet", "exec"), names)
    tests = [each for name, each in names.items() if name.startswith("test_")]
    assert tests
    for each in tests:
        fixtures = inspect.signature(each).parameters
        await each(**{name: request.getfixturevalue(name) for name in fixtures})


def test_the_tables_of_metrics_are_those_of_the_code() -> None:
    """`python tests/support/metrics_page.py` writes them."""
    page = metrics_page.PAGE.read_text()
    assert page == metrics_page.written(page)


def _bridge() -> Callable[[rx.Observable[Any]], AsyncGenerator[Any]]:
    """The one of docs/reference/streams.md, from an observable to a source."""
    code = next(code for name, code in _snippets() if "observable.subscribe" in code)
    names: dict[str, Any] = {}
    exec(compile(code, "streams.md", "exec"), names)
    found: Callable[[rx.Observable[Any]], AsyncGenerator[Any]] = names["observed"]
    return found


async def test_an_observable_becomes_a_source_whatever_thread_it_speaks_in() -> None:
    for items in (rx.of(1, 2, 3), rx.of(1, 2, 3).pipe(ops.observe_on(NewThreadScheduler()))):
        async with asyncio.timeout(10):
            assert [item async for item in _bridge()(items)] == [1, 2, 3]


async def test_an_error_of_an_observable_is_raised_where_it_is_iterated() -> None:
    failing = rx.concat(rx.of(1), rx.throw(LookupError("of the observable")))
    read: list[Any] = []
    with pytest.raises(LookupError, match="of the observable"):
        async with asyncio.timeout(10):
            async for _ in streams.tap(_bridge()(failing), read.append):
                pass
    assert read == [1]


async def test_an_observable_is_disposed_of_with_its_reader() -> None:
    disposed: list[str] = []
    source = rx.never().pipe(
        ops.start_with("first"), ops.finally_action(lambda: disposed.append(""))
    )
    stream = _bridge()(source)
    assert await anext(stream) == "first"
    assert not disposed
    await stream.aclose()
    assert disposed


def test_the_site_can_be_built(tmp_path: Path) -> None:
    """`make docs`: a warning, such as a link or a name that leads nowhere, is an error.

    Not with `--quiet`, which keeps warnings from those who count them.
    """
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    for page, names in REFERENCE.items():
        text = (tmp_path / "reference" / page / "index.html").read_text()
        assert [name for name in names if f'id="{name}"' not in text] == []


REFERENCE = {
    "workflows": ["fairlead.workflow.workflow", "fairlead.trigger.sse", "fairlead.context.Channel"],
    "streams": [f"fairlead.streams.{name}" for name in streams.__all__ if name != "process_errors"],
    "publishing": ["fairlead.outside.connect", "fairlead.appbus.SyncTopic"],
    "client": ["fairlead.client.connect"],
    "testing": [
        *(f"fairlead.testing.{name}" for name in testing.__all__),
        "fairlead.testing.plugin.fairlead_system",
        "fairlead.testing.system.System",
        "fairlead.testing.clients.V1",
    ],
    "mounting": ["fairlead_edge.mount.Edge"],
}
"""What of the public API is on which page."""
