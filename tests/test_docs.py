"""The Python in docs/ and README is Python that works."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

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
