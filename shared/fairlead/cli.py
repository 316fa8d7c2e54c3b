"""The command line. It returns an exit code, and says what is wrong in one line.

Exit codes: 0 stopped as asked, 1 failed at start or while running (user code included),
2 wrong use. Ctrl-C before a command could listen for it gives the shell's own 130.

The processes register their commands through the entry points `fairlead.commands`, so that
nothing here imports edge or worker, and no command pays for the imports of another.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from types import TracebackType
from typing import Annotated, Any, TypeVar

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape
from typer.core import TyperCommand

from fairlead import loading
from fairlead.errors import BadTarget, Unusable
from fairlead.settings import (
    CannotStart,
    Settings,
    WrongUse,
    bare,
    check_environment,
    flag,
    load,
    positional,
    variable,
)

S = TypeVar("S", bound=Settings)

ENTRY_POINTS = "fairlead.commands"

# Filled by `add_command`: what an environment variable may be meant for.
_known: set[type[Settings]] = set()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: without the program's name; None takes those of the process.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        result = _build(arguments)(args=arguments, prog_name="fairlead", standalone_mode=False)
    except typer.TyperException as exc:
        return _refuse(_usage(exc), exc.exit_code)
    except (WrongUse, BadTarget) as exc:
        return _refuse(str(exc), 2)
    except (CannotStart, Unusable) as exc:
        return _refuse(str(exc), 1)
    except Exception as exc:
        # User code may raise anything at all; its traceback is what its author needs.
        traceback.print_exception(type(exc), exc, _users_part(exc))
        return 1
    return result if isinstance(result, int) else 0


def add_command(
    app: typer.Typer, name: str, kind: type[S], run: Callable[[S], int], help: str
) -> None:
    """Add a command whose flags are the fields of its settings.

    All values reach the settings as text, so that a flag and its variable are validated by
    the same rule. A flag that is absent falls through to the environment, then the default.

    Args:
        run: gets the settings, returns the exit code. It should import what is heavy.
    """
    _known.add(kind)

    def command(**given: object) -> int:
        _check_environment()
        return run(load(kind, {field: v for field, v in given.items() if v is not None}))

    parameters = [_parameter(kind, field, info) for field, info in kind.model_fields.items()]
    # Python wants those without a flag first; typer reads the order as that of the help.
    parameters.sort(key=lambda each: positional(kind, each.name) is None)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # PEP 362
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    app.command(name, help=help, cls=_taking(bare(kind)))(command)


def _taking(bare: Mapping[str, str]) -> type[TyperCommand]:
    """A command whose flags `bare` may stand without a number."""

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            spelled: list[str] = []
            for word, following in zip_longest(args, args[1:], fillvalue=""):
                spelled.append(word)
                if word in bare and not following.isdecimal():
                    spelled.append(bare[word])
            return super().parse_args(ctx, spelled)

    return Command


@contextmanager
def extra(name: str) -> Generator[None]:
    """Turn a failed import within into the command that installs what is missing.

    Raises:
        CannotStart: a package of the extra is not there.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        # A module of our own that is missing is a fault of ours, and shows its traceback.
        if (exc.name or "").split(".")[0].startswith("fairlead"):
            raise
        raise CannotStart(
            f"{exc.name} is not installed; it comes with Fairlead's extra {name} (in a clone: pip install '.[{name}]')"
        ) from exc


def _build(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line.

    Args:
        arguments: if the first is the name of an entry point, that alone is loaded: a process
            starts a tenth sooner.
    """
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
    )
    about = "Realtime for Python teams: edges hold the sockets, workers run your functions."
    app.callback(help=about)(_version_or_command)
    entries = sorted(importlib.metadata.entry_points(group=ENTRY_POINTS))
    named = [entry for entry in entries if arguments and entry.name == arguments[0]]
    if named:
        named[0].load()(app)
        return app
    # They import this module in turn.
    from fairlead import commands
    from fairlead.dev.cli import dev

    dev(app)
    for entry in entries:
        entry.load()(app)
    commands.register(app)
    return app


def _check_environment() -> None:
    try:
        check_environment(os.environ, _known)
    except WrongUse:
        _build()  # a command that was not loaded may know it
        check_environment(os.environ, _known)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fairlead {importlib.metadata.version('fairlead')}")
        raise typer.Exit


def _version_or_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            # Eager, or typer would first miss a command.
            is_eager=True,
            callback=_show_version,
            metavar="",
            help="Show the version and leave.",
        ),
    ] = False,
) -> None:
    """Takes the flags that stand before any command."""


def _parameter(kind: type[Settings], field: str, info: FieldInfo) -> inspect.Parameter:
    """One field as typer sees it: text or a switch, None where it is not given."""
    text = f"{escape(info.description or '')} [dim]({variable(field)}{_default(info)})[/dim]"
    argument = positional(kind, field)
    common: dict[str, Any] = {"help": text, "show_default": False}
    if argument is not None:
        declared: object = Annotated[str | None, typer.Argument(metavar=field.upper(), **common)]
    elif info.annotation is bool:
        switch = f"{flag(field)}/--no-{flag(field)[2:]}"
        declared = Annotated[bool | None, typer.Option(switch, metavar="", **common)]
    else:
        declared = Annotated[str | None, typer.Option(flag(field), metavar=_hint(info), **common)]
    return inspect.Parameter(
        field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=declared
    )


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    value = info.default
    if isinstance(value, bool) or value in (None, ""):
        return f", default {'on' if value is True else 'off' if value is False else 'none'}"
    return f", default {value:g}" if isinstance(value, float) else f", default {value}"


def _hint(info: FieldInfo) -> str:
    """What stands for the value in the help: TIME, PORT, N or TEXT."""
    if isinstance(info.json_schema_extra, dict):
        return str(info.json_schema_extra.get("hint", "TEXT"))
    return "N" if info.annotation is int else "TEXT"


def _usage(exc: typer.TyperException) -> str:
    """What was wrong, where to read what is right."""
    message = exc.format_message().rstrip(".")
    context = getattr(exc, "ctx", None)
    path = context.command_path if context is not None else "fairlead"
    joint = " " if message.endswith("?") else "; "
    return f"{message[:1].lower()}{message[1:]}{joint}see {path} --help"


def _refuse(message: str, code: int) -> int:
    # One line, whatever a value held that is quoted in it.
    sys.stderr.write("fairlead: " + " ".join(message.split()) + "\n")
    return code


def _users_part(exc: BaseException) -> TracebackType | None:
    """The traceback from the user's module on, where the import of it failed.

    The frames above it are ours, typer's and the import system's: nothing in them helps.
    """
    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != loading.__file__:
        trace = trace.tb_next
    if trace is None:
        return exc.__traceback__
    machinery = (loading.__file__, importlib.__file__, "<frozen importlib")
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(machinery):
        trace = trace.tb_next
    return trace
