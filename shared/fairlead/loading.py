"""Finds what a TARGET names, and imports it.

    shop.realtime:app       an attribute of a module on the path, or in the current folder
    shop.realtime           the same, its attribute `app`
    examples/seed.py:app    an attribute of a file
    examples/seed.py        the same, its attribute `app`
    examples/chat           a folder that holds app.py

A mistake in the TARGET is told in one line. A mistake inside the user's module is the
user's: it passes through with its traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fairlead.errors import BadTarget

ATTRIBUTE = "app"
"""The attribute of a TARGET that names none; a folder's file is called like it, too."""

PAGE = "page"
"""The folder beside a folder's app.py that holds its page."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target is imported from.

    Attributes:
        folder: goes to the front of `sys.path`.
        module: the dotted name of the module, imported from there.
        attribute: name of the attribute; dots lead further in.
        file: the file that was named, or None where a module was.
    """

    folder: Path
    module: str
    attribute: str
    file: Path | None


def load(target: str, kind: type | None = None) -> object:
    """Import a target.

    Changes `sys.path`, as `python file.py` and `python -m module` would.

    Args:
        kind: the class that is expected; None takes anything.

    Raises:
        BadTarget: there is no such file, module or attribute, or it is of another kind.
        Exception: whatever the user's module raises while it is imported.
    """
    place = locate(target)
    sys.path[:] = [str(place.folder), *(p for p in sys.path if p != str(place.folder))]
    # A folder that was just written may not be in the finders' caches.
    importlib.invalidate_caches()
    module = _import(target, place)
    found = _attribute(target, module, place.attribute, kind)
    if kind is not None and not isinstance(found, kind):
        raise BadTarget(
            f"TARGET {target!r}: {place.attribute} is a {type(found).__name__}, "
            f"not a {kind.__name__}{_offers(module, kind)}"
        )
    return found


def locate(target: str) -> Place:
    """Say where a target is, without importing any of it.

    Raises:
        BadTarget: no such file or folder, or it cannot be a target at all. Whether a module
            exists is known only when it is imported.
    """
    path, colon, attribute = target.partition(":")
    # C:\app.py would be split at the drive; nobody has met that yet.
    if not path or (colon and not attribute):
        raise BadTarget(f"TARGET {target!r} is neither module:attr nor path/file.py[:attr]")
    attribute = attribute or ATTRIBUTE
    if path.endswith(".py") or "/" in path or (not _dotted(path) and Path(path).exists()):
        return _place(_file(target, Path(path)), attribute)
    # `fairlead worker chat` next to a folder chat/ with app.py, but without __init__.py.
    if Path(path, f"{ATTRIBUTE}.py").is_file() and not Path(path, "__init__.py").is_file():
        return _place(_file(target, Path(path)), attribute)
    if not _dotted(path):
        raise BadTarget(f"TARGET {target!r}: {path!r} is neither a module nor a file")
    return Place(Path.cwd().resolve(), path, attribute, None)


def page_folder(target: str) -> Path | None:
    """The page of a project that was named by its folder: `chat/page` of `chat`; None without one.

    Raises:
        BadTarget: as `locate`.
    """
    place = locate(target)
    folder = Path(target.partition(":")[0])
    page = folder / PAGE
    return page.resolve() if place.file is not None and folder.is_dir() and page.is_dir() else None


def source_root(target: str) -> Path:
    """The folder whose `*.py` files make the project: its package, or the folder of its file.

    It is absolute and resolved. Imports nothing of it. A module that cannot be found gives the current folder.

    Raises:
        BadTarget: as `locate`.
    """
    place = locate(target)
    top = place.folder / place.module.partition(".")[0]
    if top.with_suffix(".py").is_file() and top.name == place.module:
        return place.folder
    if top.is_dir():
        return top
    # A top-level name is found without importing anything; a dotted one is not.
    spec = importlib.util.find_spec(top.name)
    if spec is None or spec.origin is None:
        return place.folder
    return Path(spec.origin).resolve().parent


def _file(target: str, path: Path) -> Path:
    if path.is_dir():
        inside = path / f"{ATTRIBUTE}.py"
        if not inside.is_file():
            raise BadTarget(f"TARGET {target!r}: the folder {path} holds no {ATTRIBUTE}.py")
        return inside.resolve()
    if not path.is_file():
        raise BadTarget(f"TARGET {target!r}: there is no file {path}")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise BadTarget(f"TARGET {target!r}: {path.name} cannot be imported; name a file.py")
    return path.resolve()


def _place(file: Path, attribute: str) -> Place:
    """A file beside an __init__.py is a module of that package, so that `from . import` works."""
    names = [] if file.stem == "__init__" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.insert(0, folder.name)
        folder = folder.parent
    return Place(folder, ".".join(names), attribute, file)


def _dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _import(target: str, place: Place) -> ModuleType:
    try:
        module = importlib.import_module(place.module)
    except ModuleNotFoundError as exc:
        # Only the target itself, or a package above it; an import inside it is the user's.
        name = exc.name or ""
        if name != place.module and not place.module.startswith(name + "."):
            raise
        raise BadTarget(
            f"TARGET {target!r}: there is no module {name!r} in {place.folder} or on the path"
        ) from None
    found = getattr(module, "__file__", None)
    if place.file is not None and found is not None and Path(found).resolve() != place.file:
        raise BadTarget(
            f"TARGET {target!r}: the name {place.module!r} is taken by {found}; rename the file"
        )
    return module


def _attribute(target: str, module: ModuleType, attribute: str, kind: type | None) -> object:
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise BadTarget(
                f"TARGET {target!r}: {module.__name__} has no attribute "
                f"{attribute!r}{_offers(module, kind)}"
            )
        found = getattr(found, name)
    return found


def _offers(module: ModuleType, kind: type | None) -> str:
    """What could have been meant, as the end of a message."""
    if kind is None:
        return ""
    names = sorted(name for name, value in vars(module).items() if isinstance(value, kind))
    if not names:
        return f"; it holds no {kind.__name__}"
    return f"; it holds {', '.join(names)}"
