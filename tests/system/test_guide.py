"""docs/guide.md, followed from top to bottom as a newcomer would: files, terminals, outputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from fairlead.dev import ports
from fairlead.testing.program import DEADLINE, Program, running

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide.md").read_text()

BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.S | re.M)


def like(shown: str, found: str) -> bool:
    """Whether the output is what the page shows; `…` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, found.strip(), re.S) is not None


class Newcomer:
    """Someone with the page in front of them, in a folder of their own.

    The ports of the page may be taken on this machine, so free ones stand for them.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.done = 0
        self._stack = stack
        self._ports = {"8000": str(ports.free_port()), "8001": str(ports.free_port())}
        self._dev: tuple[Program, ExitStack] | None = None
        self._clients: dict[str, ClientConnection] = {}
        self._output = ""

    def follow(self, language: str, title: str, text: str) -> None:
        """Do what a block of the page says, or compare what it shows."""
        self.done += 1
        if title == "dev":
            self._start_dev(text)
        elif language in ("python", "ini"):
            self._save(title, text)
        elif language == "sh":
            self._output = self._type(text)
        elif title:
            self._talk(title, text)
        else:
            assert like(text, self._output), f"shown:\n{text}\nfound:\n{self._output}"

    def _start_dev(self, command: str) -> None:
        if self._dev is not None:
            self._dev[1].close()
        own = self._stack.enter_context(ExitStack())
        told = [*command.split(), "--port", self._ports["8000"]]
        told += ["--admin-port", self._ports["8001"]]
        assert told[0] == "fairlead"
        argv = [sys.executable, "-m", *told]
        program = own.enter_context(running(argv, self.folder, self._env()))
        self._dev = (program, own)
        program.wait_for("endpoint +serves")

    def _save(self, name: str, text: str) -> None:
        seen = len(self._dev[0].lines) if self._dev else 0
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(self.folder / name)
        # Only what the project imports makes `fairlead dev` start the worker anew.
        if self._dev and name == "chat.py":
            self._dev[0].wait_for("the new worker serves", seen)

    def _type(self, command: str) -> str:
        ran = subprocess.run(
            self._here(command), shell=True, cwd=self.folder, env=self._env(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2 * DEADLINE,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout
        return ran.stdout

    def _talk(self, terminal: str, text: str) -> None:
        for line in text.splitlines():
            if line.startswith("$ python -m websockets "):
                url = self._here(line.split("'")[1])
                opened = connect(url, open_timeout=DEADLINE)
                self._clients[terminal] = self._stack.enter_context(opened)
            elif line.startswith("> "):
                self._clients[terminal].send(line[2:])
            else:
                assert line.startswith("< "), line
                found = str(self._clients[terminal].recv(timeout=DEADLINE))
                assert like(line[2:], found), f"shown: {line}\nfound: < {found}"

    def _here(self, text: str) -> str:
        return re.sub("800[01]", lambda found: self._ports[found[0]], text)

    def _env(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path}


@contextmanager
def newcomer(folder: Path) -> Generator[Newcomer]:
    with ExitStack() as stack:
        yield Newcomer(folder, stack)


def blocks() -> Iterator[tuple[str, str, str]]:
    yield from BLOCK.findall(GUIDE)


def test_the_guide_leads_to_a_chat_that_works(tmp_path: Path) -> None:
    install, *steps = blocks()
    assert "pip install" in install[2]
    with newcomer(tmp_path) as person:
        for step in steps:
            person.follow(*step)
        assert person.done == GUIDE.count("\n```") // 2 - 1


def test_what_the_guide_installs_is_there(tmp_path: Path) -> None:
    """The environment of these tests is made by the same names."""
    extras = re.search(r"pip install -e '\.\[(.*?)\]' (\S+)\n", GUIDE)
    assert extras
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(extras[1].split(",")) <= set(declared["project"]["optional-dependencies"])
    assert extras[2] in declared["dependency-groups"]["dev"]


@pytest.mark.parametrize(("shown", "found"), [("a…c", "a-b"), ("ab", "abc"), ("[a]", "a")])
def test_an_output_that_is_not_as_shown_is_noticed(shown: str, found: str) -> None:
    assert not like(shown, found)
