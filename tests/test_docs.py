"""The Python in docs/ and README is Python that works."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

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
