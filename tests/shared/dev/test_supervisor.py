"""The whole supervisor over a real nats-server, with stand-ins for edge and worker."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fairlead.dev import ports, supervisor
from fairlead.dev.settings import DevSettings
from fairlead.errors import BadTarget
from fairlead.settings import CannotStart, WrongUse
from fairlead.testing.program import Program, alive, children, running, wait_until_gone

FAKE = Path(__file__).with_name("fake_fairlead.py")

# As `fairlead dev` does it, but with the stand-in.
PROGRAM = f"""
import sys
from fairlead import cli
from fairlead.dev import supervisor
command = (sys.executable, {str(FAKE)!r})
run = supervisor.run
supervisor.run = lambda settings: run(settings, command)
sys.exit(cli.main(sys.argv[1:]))
"""

TABLE = "curl -N 'http://127.0.0.1"
ROUTES = (
    '[{"workflow": "W", "feature": "F", "transport": "sse", "methods": ["GET"],'
    ' "endpoint": "/f/t/%s", "topic": None, "history": None, "deliver": None}]'
)


class Dev:
    """A running `fairlead dev` and what its children noted."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.folder = folder
        self.program = program

    def notes(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def pids(self, role: str) -> list[int]:
        """Of all children of a role so far, in the order of their start."""
        return [int(n.split()[1]) for n in self.notes() if n.startswith(f"{role} ")]


def save(folder: Path, version: int, endpoint: str = "ticks") -> None:
    # At once, as an editor does it: half a file would be one more version.
    (folder / "new").write_text(f"VERSION = {version}\nROUTES = {ROUTES % endpoint}\n")
    (folder / "new").rename(folder / "chat.py")


@contextmanager
def dev(folder: Path, *arguments: str) -> Generator[Dev]:
    argv = [sys.executable, "-c", PROGRAM, "dev", "chat.py", "--port", "0", "--admin-port", "0"]
    with running([*argv, *arguments], folder, {"FAKE_LOG": str(folder / "log")}) as program:
        yield Dev(folder, program)


def test_it_starts_shows_the_endpoints_and_stops_in_order(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with dev(tmp_path, "--edges", "2", "--workers", "2") as it:
        it.program.wait_for(r"/f/t/ticks +SSE GET +F / W")
        it.program.wait_for(r"edge-1: http://127\.0\.0\.1:\d+, admin port \d+")
        it.program.wait_for(r"edge-2: http://127\.0\.0\.1:\d+, admin port \d+")
        token = it.program.wait_for(r"console: http://127\.0\.0\.1:\d+/#token=(\S{16})$")[1]
        assert f"token {token}" in it.notes()
        it.program.wait_for(TABLE)
        it.program.wait_for(r"^worker-2 │ I am the worker$")
        pids = children(it.program.process.pid)
        assert len(pids) == 6
        it.program.send(signal.SIGINT)
        assert it.program.ended() == 0
        assert it.program.lines[-1] == "dev      │ stopped"
        assert [n for n in it.notes() if n.startswith("stopped")] == [
            *["stopped edge"] * 2,
            *["stopped worker"] * 2,
            "stopped console",
        ]
        assert not [pid for pid in pids if alive(pid)]
    left = {path.name for path in (tmp_path / ".fairlead" / "dev").iterdir()}
    assert left == {".gitignore", "jetstream"}


def test_a_saved_file_makes_a_new_worker_and_a_new_table_only_for_new_routes(
    tmp_path: Path,
) -> None:
    save(tmp_path, 1)
    with dev(tmp_path) as it:
        it.program.wait_for(TABLE)
        (old,) = it.pids("worker")

        seen = len(it.program.lines)
        save(tmp_path, 2)
        it.program.wait_for(r"chat\.py saved; starting the new worker", seen)
        it.program.wait_for("the new worker serves", seen)
        assert it.notes()[-3:-1] == ["version 2", f"worker {it.pids('worker')[1]}"]
        assert it.notes()[-1] == "stopped worker"
        wait_until_gone([old])

        save(tmp_path, 3, endpoint="tocks")
        it.program.wait_for("/f/t/tocks", seen)
        # Between the two there was no table.
        shown = [line for line in it.program.lines[seen:] if line.strip().startswith("curl")]
        assert all("tocks" in line for line in shown)


def test_a_mistake_in_the_project_leaves_the_old_worker(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with dev(tmp_path) as it:
        it.program.wait_for(TABLE)
        (worker,) = it.pids("worker")
        (tmp_path / "chat.py").write_text("def f(:\n")
        it.program.wait_for("worker  │ SyntaxError")
        it.program.wait_for("the new worker did not start: exit code 1; the old one goes on")
        assert alive(worker)


def test_all_send_their_spans_to_the_console(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with dev(tmp_path) as it:
        it.program.wait_for(TABLE)
        port = it.program.wait_for(r"console: http://127\.0\.0\.1:(\d+)/")[1]
        for role in ("edge", "worker"):
            assert f"spans of {role} to http://127.0.0.1:{port}/v1/traces" in it.notes()
        it.program.wait_for(rf"^  fairlead trace --last --from http://127\.0\.0\.1:{port}$")


def test_spans_go_where_the_user_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    save(tmp_path, 1)
    with dev(tmp_path) as it:
        it.program.wait_for(TABLE)
        it.program.wait_for("^$", len(it.program.lines) - 2)
        assert {"spans of edge to nobody", "spans of worker to nobody"} <= {*it.notes()}
        assert not [line for line in it.program.lines if "fairlead trace" in line]


@pytest.mark.parametrize("role", ["edge", "worker", "console"])
def test_a_child_that_dies_is_started_again_with_the_reason(tmp_path: Path, role: str) -> None:
    save(tmp_path, 1)
    with dev(tmp_path) as it:
        it.program.wait_for(TABLE)
        (pid,) = it.pids(role)
        seen = len(it.program.lines)
        os.kill(pid, signal.SIGKILL)
        it.program.wait_for(
            rf"{role} \(process {pid}\) ended: SIGKILL; it starts again in 0\.5 s", seen
        )
        it.program.wait_for(f"I am the {role}", seen)


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with dev(tmp_path) as it:
        it.program.wait_for(TABLE)
        (edge,) = it.pids("edge")
        os.kill(edge, signal.SIGSTOP)  # it cannot hear SIGTERM
        it.program.send(signal.SIGTERM)
        it.program.wait_for("Ctrl-C again ends them at once")
        it.program.send(signal.SIGTERM)
        assert it.program.ended() == 0
        wait_until_gone([edge])


def test_it_can_be_stopped_before_it_serves(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text("import time; print('asleep'); time.sleep(600)\n")
    with dev(tmp_path) as it:
        while not children(it.program.process.pid):
            pass
        it.program.send(signal.SIGTERM)
        assert it.program.ended() == 0


def test_a_project_that_does_not_load_ends_it_with_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text("1 / 0\n")
    with dev(tmp_path) as it:
        assert it.program.ended() == 1
        assert "ZeroDivisionError: division by zero" in it.program.lines
        assert it.program.lines[-1].startswith("fairlead: chat.py does not load")
        assert it.notes() == []


def test_a_target_that_only_the_project_can_tell_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(
        "import sys; sys.stderr.write('fairlead: no app\\n'); sys.exit(2)"
    )
    with dev(tmp_path) as it:
        assert it.program.ended() == 2
        assert it.program.lines == ["fairlead: no app"]


def settings(target: str, port: int, admin_port: int) -> DevSettings:
    return DevSettings(target=target, port=port, admin_port=admin_port)


def test_a_target_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadTarget, match="there is no file nix"):
        supervisor.run(settings("nix.py", 0, 0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--port", "--admin-port"])
def test_a_port_in_use_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path, 1)
    with closing(socket.create_server((ports.LOOPBACK, 0))) as server:
        port: int = server.getsockname()[1]
        told = (port, 0) if flag == "--port" else (0, port)
        with pytest.raises(
            CannotStart, match=rf"^port {port} of 127\.0\.0\.1 is in use; .* {flag}$"
        ):
            supervisor.run(settings("chat.py", *told))


def test_one_port_for_both_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path, 1)
    with pytest.raises(WrongUse, match="both 8000"):
        supervisor.run(settings("chat.py", 8000, 8000))
