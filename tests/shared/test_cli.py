from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer
from pydantic import Field

from fairlead import cli
from fairlead.errors import Unusable
from fairlead.settings import (
    Bare,
    CannotStart,
    Duration,
    OptionalPort,
    Positional,
    Settings,
    WrongUse,
)


class SampleSettings(Settings):
    """Settings of a command of no use."""

    target: Annotated[str, Positional(example="chat.py")]
    """What to [serve]."""
    port: OptionalPort = 8000
    """Where to listen."""
    heartbeat: Duration = 15.0
    """Between pings."""
    dev: bool = False
    """Readable logs."""
    last: Annotated[int | None, Bare("1"), Field(json_schema_extra={"hint": "[N]"})] = None
    """How many."""


Run = Callable[[SampleSettings], int]
Fairlead = Callable[..., tuple[int, str, str]]


@pytest.fixture
def got() -> list[SampleSettings]:
    """The settings that the sample command ran with."""
    return []


@pytest.fixture
def answer() -> list[BaseException | int]:
    """What the sample command does in the end: raise it, or return it."""
    return [0]


@pytest.fixture
def fairlead(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    got: list[SampleSettings],
    answer: list[BaseException | int],
) -> Fairlead:
    """Runs the command line with one command, `sample`; gives code, stdout and stderr."""

    def run(settings: SampleSettings) -> int:
        got.append(settings)
        if isinstance(answer[0], BaseException):
            raise answer[0]
        return answer[0]

    def sample(app: typer.Typer) -> None:
        cli.add_command(app, "sample", SampleSettings, run, "Do nothing.")

    class Entry:
        name = "sample"

        def __lt__(self, _: object) -> bool:
            return False

        def load(self) -> object:
            return sample

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Entry()])
    monkeypatch.setattr(cli, "_known", set[type[Settings]]())
    for name in ("TARGET", "PORT", "HEARTBEAT", "DEV", "LAST"):
        monkeypatch.delenv(f"FAIRLEAD_{name}", raising=False)

    def call(*argv: str) -> tuple[int, str, str]:
        code = cli.main(argv)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_flags_reach_the_settings(fairlead: Fairlead, got: list[SampleSettings]) -> None:
    code, _, err = fairlead("sample", "x.py", "--port", "off", "--heartbeat", "5m", "--dev")
    assert (code, err) == (0, "")
    assert got == [SampleSettings(target="x.py", port=None, heartbeat=300.0, dev=True)]


@pytest.mark.parametrize(
    ("argv", "target", "last"),
    [
        (["x", "--last"], "x", 1),
        (["x", "--last", "5"], "x", 5),
        (["--last", "5", "x"], "x", 5),
        (["--last", "x"], "x", 1),
        (["x", "--last=7", "--dev"], "x", 7),
        (["x", "--last", "--dev"], "x", 1),
    ],
)
def test_a_number_may_be_left_out(
    fairlead: Fairlead, got: list[SampleSettings], argv: list[str], target: str, last: int
) -> None:
    assert fairlead("sample", *argv)[0] == 0
    assert (got[0].target, got[0].last) == (target, last)


def test_an_absent_flag_falls_through_to_the_environment(
    fairlead: Fairlead, got: list[SampleSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_TARGET", "env.py")
    monkeypatch.setenv("FAIRLEAD_PORT", "9")
    monkeypatch.setenv("FAIRLEAD_DEV", "1")
    assert fairlead("sample", "--no-dev", "--port", "7")[0] == 0
    assert got == [SampleSettings(target="env.py", port=7, heartbeat=15.0, dev=False)]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--nix"], "no such option: --nix; see fairlead --help"),
        ([], "missing command; see fairlead --help"),
        (["sampel"], "no such command 'sampel'. Did you mean 'sample'? see fairlead --help"),
        (["sample", "x", "--prt", "1"], "no such option: --prt (Possible options: --port); see "),
        (["sample", "x", "--port"], "option '--port' requires an argument; see fairlead"),
        (["sample", "x", "y"], "got unexpected extra argument(s) (y); see fairlead sample --help"),
        (["sample", "x", "--port", "y"], "--port: found 'y', but input should be a valid integer"),
        (["sample", "x", "--heartbeat", "1\n2"], "--heartbeat: found '1\\n2' where a duration"),
        (["sample"], "TARGET is missing; give it on the command line or as FAIRLEAD_TARGET"),
        (["dev", "nix.py"], "TARGET 'nix.py': there is no file nix.py"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    fairlead: Fairlead, argv: list[str], line: str
) -> None:
    code, out, err = fairlead(*argv)
    assert (code, out) == (2, "")
    assert err.startswith(f"fairlead: {line}")
    assert err.count("\n") == 1


def test_a_misspelled_variable_stops_the_start(
    fairlead: Fairlead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_HEARBEAT", "5s")
    assert fairlead("sample", "x.py") == (
        2,
        "",
        "fairlead: FAIRLEAD_HEARBEAT names no setting; did you mean FAIRLEAD_HEARTBEAT?\n",
    )


def test_a_variable_of_another_command_does_not(
    fairlead: Fairlead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_WORKERS", "3")  # of `fairlead dev`
    assert fairlead("sample", "x.py")[0] == 0


@pytest.mark.parametrize(
    ("end", "code", "err"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (WrongUse("both\nat once"), 2, "fairlead: both at once\n"),
        (CannotStart("port 1 is in use"), 1, "fairlead: port 1 is in use\n"),
        (Unusable("no JetStream"), 1, "fairlead: no JetStream\n"),
    ],
)
def test_how_a_command_ends(
    fairlead: Fairlead,
    answer: list[BaseException | int],
    end: BaseException | int,
    code: int,
    err: str,
) -> None:
    answer[0] = end
    assert fairlead("sample", "x.py") == (code, "", err)


def test_what_user_code_raises_is_shown_with_its_traceback(
    fairlead: Fairlead, answer: list[BaseException | int]
) -> None:
    answer[0] = LookupError("nobody")
    code, _, err = fairlead("sample", "x.py")
    assert code == 1
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith("LookupError: nobody\n")


def test_help_is_made_of_the_fields(fairlead: Fairlead) -> None:
    code, out, err = fairlead("sample", "--help")
    assert (code, err) == (0, "")
    words = " ".join(out.replace("│", " ").split())
    assert "What to [serve]. (FAIRLEAD_TARGET)" in words
    assert "--port PORT|none Where to listen. (FAIRLEAD_PORT, default 8000)" in words
    assert "--heartbeat TIME Between pings. (FAIRLEAD_HEARTBEAT, default 15)" in words
    assert "--dev --no-dev Readable logs. (FAIRLEAD_DEV, default off)" in words


def test_help_lists_the_commands(fairlead: Fairlead) -> None:
    code, out, _ = fairlead("--help")
    assert code == 0
    assert "sample" in out
    assert "dev" in out


def test_version(fairlead: Fairlead) -> None:
    code, out, err = fairlead("--version")
    assert (code, err) == (0, "")
    assert out.startswith("fairlead 0.")


def test_a_missing_extra_is_told_by_the_command_that_installs_it() -> None:
    with pytest.raises(CannotStart) as refused, cli.extra("edge"):
        raise ModuleNotFoundError(name="nix.deep")
    assert str(refused.value) == (
        "nix.deep is not installed; it comes with Fairlead's extra edge (in a clone: pip install '.[edge]')"
    )


def test_a_missing_module_of_our_own_is_not_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError), cli.extra("edge"):
        raise ModuleNotFoundError(name="fairlead_edge.serve")


def python(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_installed_commands(tmp_path: Path) -> None:
    """`python -m fairlead` finds the processes and their commands by their entry points."""
    done = python("-m", "fairlead", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in ("console", "dev", "edge", "trace", "worker"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize(
    ("argv", "heavy"),
    [
        pytest.param(
            ["--version"],
            {"starlette", "uvicorn", "nats", "watchfiles", "opentelemetry", "httpx", "google"},
            id="for the servers",
        ),
        pytest.param(
            ["worker", "--help"],
            {"fairlead_edge.cli", "fairlead_console.cli", "fairlead.dev.cli", "fairlead.commands"},
            id="for other commands",
        ),
    ],
)
def test_a_command_does_not_pay(tmp_path: Path, argv: list[str], heavy: set[str]) -> None:
    done = python(
        "-c",
        f"import sys; from fairlead.cli import main; main({argv}); "
        f"print(sorted({heavy} & set(sys.modules)))",
        cwd=tmp_path,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_traceback_begins_in_the_users_module(tmp_path: Path) -> None:
    """What stands above is the machinery that imported it: nothing that its author can mend."""
    (tmp_path / "flows.py").write_text("1 / 0\n")
    program = (
        "import sys; from fairlead import cli, loading\n"
        "cli._build = lambda _: lambda **_: loading.load('flows.py')\n"
        "sys.exit(cli.main([]))"
    )
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 1
    first, second, *_ = done.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert second == f'  File "{tmp_path}/flows.py", line 1, in <module>'


def test_a_syntax_error_shows_its_line_alone(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text("def f(:\n")
    program = (
        "import sys; from fairlead import cli, loading\n"
        "cli._build = lambda _: lambda **_: loading.load('flows.py')\n"
        "sys.exit(cli.main([]))"
    )
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f'  File "{tmp_path}/flows.py", line 1'
