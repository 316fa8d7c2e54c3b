from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from textwrap import dedent

import pytest

from fairlead import loading
from fairlead.errors import BadTarget


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """An empty current folder; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: str, text: str = "app = 'here'\nother = 'there'\n") -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(text))


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("flows", "here"),
        ("flows:other", "there"),
        ("flows.py", "here"),
        ("flows.py:other", "there"),
        ("./flows.py", "here"),
        ("shop", "here"),
        ("shop/app.py", "here"),
        ("shop/", "here"),
        ("pack.inner", "here"),
        ("pack/inner.py:other", "there"),
        ("pack:sub.app", "deep"),
    ],
)
def test_every_form(target: str, found: str) -> None:
    write("flows.py")
    write("shop/app.py")
    write("pack/__init__.py", "class sub:\n    app = 'deep'\n")
    write("pack/inner.py", "from . import sub\napp = 'here'\nother = 'there'\n")
    assert loading.load(target) == found


def test_an_absolute_path(folder: Path) -> None:
    write("far/flows.py")
    assert loading.load(f"{folder}/far/flows.py") == "here"
    assert sys.path[0] == str(folder / "far")


def test_a_file_imports_its_neighbours() -> None:
    write("far/flows.py", "from neighbour import app\n")
    write("far/neighbour.py")
    assert loading.load("far/flows.py") == "here"


def test_the_init_file_of_a_package() -> None:
    write("pack/__init__.py")
    assert loading.load("pack/__init__.py") == "here"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nix.py", "there is no file nix.py"),
        ("far/nix.py", "there is no file far/nix.py"),
        ("nix", "there is no module 'nix' in"),
        ("flows.nix", "there is no module 'flows.nix' in"),
        ("nix.flows", "there is no module 'nix' in"),
        ("empty/", "the folder empty holds no app.py"),
        ("notes.txt", "there is no module 'notes' in"),
        ("a-b.py", "a-b.py cannot be imported"),
        ("a b", "'a b' is neither a module nor a file"),
        ("", "is neither module:attr nor path/file.py[:attr]"),
        (":app", "is neither module:attr nor path/file.py[:attr]"),
        ("flows:", "is neither module:attr nor path/file.py[:attr]"),
        ("flows:nix", "flows has no attribute 'nix'"),
        ("flows:app.nix", "flows has no attribute 'app.nix'"),
    ],
)
def test_a_target_that_leads_nowhere(target: str, message: str) -> None:
    write("flows.py")
    write("a-b.py")
    Path("empty").mkdir()
    with pytest.raises(BadTarget) as refused:
        loading.load(target)
    assert message in str(refused.value)
    assert repr(target) in str(refused.value)


def test_what_could_have_been_meant_is_told() -> None:
    write("flows.py", "chat = 'x'\nshop = 'y'\nnumber = 5\n")
    with pytest.raises(BadTarget, match=r"has no attribute 'app'; it holds chat, shop$"):
        loading.load("flows", _Name)
    with pytest.raises(BadTarget, match=r"number is a int, not a _Name; it holds chat, shop$"):
        loading.load("flows:number", _Name)


def test_nothing_could_have_been_meant() -> None:
    write("flows.py", "app = 5\n")
    with pytest.raises(BadTarget, match=r"app is a int, not a _Name; it holds no _Name$"):
        loading.load("flows", _Name)


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, str) and instance in {"x", "y"}


class _Name(metaclass=_Kind):
    """Stands for the project's class: what the names above are instances of."""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import nix\n", ModuleNotFoundError),
        ("from flows2 import nix\n", ModuleNotFoundError),
        ("from sys import nix\n", ImportError),
        ("1 / 0\n", ZeroDivisionError),
        ("def f(:\n", SyntaxError),
    ],
)
def test_an_error_inside_the_users_module_passes_through(text: str, error: type[Exception]) -> None:
    write("flows.py", text)
    with pytest.raises(error):
        loading.load("flows.py")


def test_a_file_whose_name_is_taken() -> None:
    """`json.py` beside the standard library's: the wrong module would be served."""
    write("json.py")
    with pytest.raises(BadTarget, match=r"the name 'json' is taken by .*; rename the file"):
        loading.load("json.py")


@pytest.mark.parametrize(
    ("target", "root"),
    [
        ("flows.py", "."),
        ("flows", "."),
        ("far/flows.py", "far"),
        ("shop/", "shop"),
        ("pack.inner", "pack"),
        ("pack/sub/deep.py", "pack"),
        ("nix.nowhere", "."),
    ],
)
def test_the_folder_to_watch(folder: Path, target: str, root: str) -> None:
    write("flows.py")
    write("flows/unrelated.py")
    write("far/flows.py")
    write("shop/app.py")
    write("pack/__init__.py", "1 / 0  # nobody imports it\n")
    write("pack/inner.py")
    write("pack/sub/__init__.py")
    write("pack/sub/deep.py")
    assert loading.source_root(target) == (folder / root).resolve()


def test_the_folder_to_watch_of_an_installed_package() -> None:
    assert loading.source_root("fairlead.loading:load") == Path(loading.__file__).parent


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("shop", True),
        ("shop/", True),
        ("shop:other", True),
        ("shop/app.py", False),
        ("bare", False),
        ("pack", False),
        ("page", False),
    ],
)
def test_the_page_of_a_folder(folder: Path, target: str, found: bool) -> None:
    """Of a folder that was named as one: nobody who names a file means to serve what is beside it."""
    for name in ("shop", "bare", "page"):
        write(f"{name}/app.py")
    write("pack/__init__.py")
    for name in ("shop", "pack"):
        (folder / name / "page").mkdir()
    page = folder.resolve() / "shop" / "page" if found else None
    assert loading.page_folder(target) == page
