"""The JavaScript client by itself; what needs a server is in test_scenarios.py."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support.node import CLIENT, NODE


def test_the_rules_without_a_network() -> None:
    """node's own test runner on clients/js/test/*.test.ts; what it says is in the failure."""
    tests = sorted(map(str, (CLIENT / "test").glob("*.test.ts")))
    told = [NODE, "--test", "--test-reporter=tap", *tests]
    done = subprocess.run(told, capture_output=True, text=True, cwd=CLIENT)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^# pass [1-9]", done.stdout, re.M)


def test_the_types_of_the_sources_and_of_the_tests(built: Path) -> None:
    tsc = CLIENT / "node_modules/typescript/lib/tsc.js"
    for project in (".", "test"):
        told = [NODE, str(tsc), "--noEmit", "-p", project]
        done = subprocess.run(told, capture_output=True, text=True, cwd=CLIENT)
        assert done.returncode == 0, done.stdout


def test_the_lockfile_names_no_registry() -> None:
    assert '"resolved"' not in (CLIENT / "package-lock.json").read_text()


def test_the_chat_s_page_has_the_client_that_is_built(built: Path) -> None:
    mine = Path(__file__).parents[2] / "examples/chat/page/fairlead.min.js"
    assert mine.read_bytes() == (built / "fairlead.min.js").read_bytes(), (
        "the page's copy is another one; copy it: "
        "cp clients/js/dist/fairlead.min.js examples/chat/page/"
    )
