"""`fairlead dev` as a newcomer has it: the real command, edge, worker and nats-server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from fairlead.dev import ports
from fairlead.testing.program import DEADLINE, Program, alive, children, running, wait_until_gone

CHAT = Path(__file__).parents[2] / "examples" / "seed.py"

TRY_WEBSOCKET = r"python\S* -m websockets "


class Dev:
    """A running `fairlead dev`.

    Attributes:
        folder: where it runs; holds the project, chat.py.
    """

    def __init__(self, folder: Path, program: Program, port: int, admin_port: int) -> None:
        self.folder = folder
        self.program = program
        self.port = port
        self.admin_port = admin_port

    def children(self, command: str) -> list[int]:
        """The children that run `fairlead {command}` now, or the program of that name."""
        found = [(pid, _arguments(pid)) for pid in children(self.program.process.pid)]
        return [pid for pid, words in found if command in words or words[0].endswith(command)]

    def websocket(self, name: str = "broadcast") -> str:
        """The WebSocket of this name to try, once the table is shown."""
        first = self.program.wait_for("^Try, in another terminal:").string
        # To its end, which is a blank line: nothing of it is to come later.
        self.program.wait_for("^$", self.program.lines.index(first))
        return self.program.wait_for(rf"{TRY_WEBSOCKET}(ws://127\.0\.0\.1:\d+/\S*/{name})$")[1]


def _arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


@contextmanager
def dev(folder: Path, *arguments: str) -> Generator[Dev]:
    port, admin_port = ports.free_port(), ports.free_port()
    told = ["--port", str(port), "--admin-port", str(admin_port), *arguments]
    argv = [sys.executable, "-m", "fairlead", "dev", "chat.py", *told]
    with running(argv, folder) as program:
        yield Dev(folder, program, port, admin_port)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an example in it."""
    shutil.copy(CHAT, tmp_path / "chat.py")
    return tmp_path


def save(folder: Path, text: str) -> None:
    # At once, as an editor does it.
    (folder / "new").write_text(text)
    (folder / "new").rename(folder / "chat.py")


def test_the_table_names_every_endpoint_and_what_to_try(folder: Path) -> None:
    with dev(folder, "--edges", "2", "--workers", "2") as it:
        url = it.websocket()
        assert url.startswith(f"ws://127.0.0.1:{it.port}/")
        it.program.wait_for(r"endpoint +serves +workflow +topic")
        it.program.wait_for(rf"edge-1: http://127\.0\.0\.1:{it.port}, admin port \d+")
        it.program.wait_for(rf"console: http://127\.0\.0\.1:{it.admin_port}/#token=\S+$")
        second = it.program.wait_for(r"edge-2: (http://127\.0\.0\.1:\d+)")[1]
        # What is sent to one edge arrives at the other: the lines are ready to be used.
        with (
            connect(url, open_timeout=DEADLINE) as one,
            connect(
                url.replace(f"ws://127.0.0.1:{it.port}", second.replace("http", "ws"))
            ) as other,
        ):
            one.send("hello")
            for client in (one, other):
                assert "hello" in str(client.recv(timeout=DEADLINE))


def test_other_commands_of_the_folder_find_its_nats(folder: Path) -> None:
    """Without being told where it is; what they are told comes first."""

    def ask(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fairlead", *argv],
            cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip

    with dev(folder) as it, connect(it.websocket(), open_timeout=DEADLINE) as client:
        told = ask("publish", "chat", "from a terminal")
        assert told.returncode == 0, told.stderr
        assert "from a terminal" in str(client.recv(timeout=DEADLINE))
        assert len(json.loads(ask("top", "--once", "--json").stdout)["edges"]) == 1
        elsewhere = ask("doctor", FAIRLEAD_NATS="nats://127.0.0.1:1")
        assert "nats://127.0.0.1:1 cannot be reached" in elsewhere.stdout
    assert "127.0.0.1:4222" in ask("doctor").stdout, "it is gone, and so is its address"


def test_a_saved_file_makes_a_new_worker_and_drops_no_connection(folder: Path) -> None:
    with dev(folder) as it, connect(it.websocket(), open_timeout=DEADLINE) as client:
        (old,) = it.children("worker")
        seen = len(it.program.lines)
        save(folder, CHAT.read_text() + "\n# saved\n")
        it.program.wait_for("the new worker serves", seen)
        wait_until_gone([old])
        client.send("still here")
        assert "still here" in str(client.recv(timeout=DEADLINE))
        # The routes are the same: no second table.
        assert not [line for line in it.program.lines[seen:] if re.search(TRY_WEBSOCKET, line)]


def test_what_a_workflow_prints_is_seen_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (folder / "chat.py").write_text(CHAT.read_text() + "\nprint(f'loaded by {__name__}')\n")
    with dev(folder) as it:
        it.program.wait_for(r"worker +│ loaded by ")


def test_a_syntax_error_leaves_the_old_worker_at_work(folder: Path) -> None:
    with dev(folder) as it, connect(it.websocket(), open_timeout=DEADLINE) as client:
        save(folder, "def f(:\n")
        it.program.wait_for("SyntaxError")
        it.program.wait_for("the new worker did not start: exit code 1; the old one goes on")
        client.send("still here")
        assert "still here" in str(client.recv(timeout=DEADLINE))


def test_who_publishes_on_the_admin_port_needs_no_token(folder: Path) -> None:
    """`curl 127.0.0.1:8001/publish`, as the README has it."""
    with dev(folder) as it, connect(it.websocket(), open_timeout=DEADLINE) as client:
        message = {"topic": "chat", "data": "from cron"}
        asked = Request(f"http://127.0.0.1:{it.admin_port}/publish", json.dumps(message).encode())
        with urlopen(asked, timeout=DEADLINE) as answer:
            assert answer.status == 200
        assert "from cron" in str(client.recv(timeout=DEADLINE))


def test_where_the_last_messages_time_went(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fairlead trace --last`, with nothing set up."""
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    with (
        dev(folder, "--edges", "2") as it,
        connect(it.websocket(), open_timeout=DEADLINE) as client,
    ):
        client.send("hello")
        assert "hello" in str(client.recv(timeout=DEADLINE))
        command = it.program.wait_for(r"^  fairlead (trace --last --from \S+)$")[1].split()
        lines: list[str] = []
        while not any(line.startswith("      deliver chat ") for line in lines):
            argv = [sys.executable, "-m", "fairlead", *command]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE)
            lines = done.stdout.splitlines()
    assert [line[:16].rstrip() for line in lines[3:9]] == [
        "receive chat",
        "  queue",
        "  process chat",
        "    publish chat",
        "      broker",
        "      deliver ch",
    ]


@pytest.mark.parametrize("command", ["edge", "worker", "console", "nats-server"])
def test_a_killed_child_is_started_again_with_the_reason(folder: Path, command: str) -> None:
    with dev(folder) as it:
        url = it.websocket()
        (pid,) = it.children(command)
        seen = len(it.program.lines)
        os.kill(pid, signal.SIGKILL)
        it.program.wait_for(rf"\(process {pid}\) ended: SIGKILL; it starts again in 0\.5 s", seen)
        _wait_for_chat(url)


def _wait_for_chat(url: str) -> None:
    """Try as a client would, again and again, until a message goes round."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            with connect(url, open_timeout=DEADLINE) as client:
                client.send("hello")
                if "hello" in str(client.recv(timeout=1)):
                    return
        except (OSError, TimeoutError, EOFError, WebSocketException):
            time.sleep(0.02)  # refused at once while the port is closed
    raise AssertionError(f"no message goes round at {url}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process_no_port_and_only_the_store(
    folder: Path, number: signal.Signals
) -> None:
    with dev(folder) as it:
        url = it.websocket()
        pids = children(it.program.process.pid)
        with connect(url, open_timeout=DEADLINE) as client:
            it.program.send(number)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=DEADLINE)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012, "it is drained"
            assert it.program.ended() == 0
        assert not [pid for pid in pids if alive(pid)]
        assert not ports.taken(it.port)
        assert not ports.taken(it.admin_port)
    left = {path.name for path in (folder / ".fairlead" / "dev").iterdir()}
    assert left == {".gitignore", "jetstream"}
    assert not list(folder.rglob("__pycache__"))


def test_rooms_survive_a_stop(folder: Path) -> None:
    """The store of one run is the store of the next."""
    for _ in range(2):
        with dev(folder) as it, connect(it.websocket(), open_timeout=DEADLINE) as client:
            client.send("hello")
            assert "hello" in str(client.recv(timeout=DEADLINE))
            it.program.send(signal.SIGINT)
            assert it.program.ended() == 0


def test_even_sigkill_of_the_supervisor_leaves_no_process(folder: Path) -> None:
    with dev(folder) as it:
        it.websocket()
        pids = children(it.program.process.pid)
        it.program.send(signal.SIGKILL)
        it.program.ended()
        wait_until_gone(pids)


def test_a_port_in_use_is_one_line_and_exit_code_1(folder: Path) -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as taken:
        port: int = taken.getsockname()[1]
        argv = [sys.executable, "-m", "fairlead", "dev", "chat.py", "--port", str(port)]
        with running([*argv, "--admin-port", "0"], folder) as program:
            assert program.ended() == 1
            (line,) = program.lines
            assert line.startswith(f"fairlead: port {port} of 127.0.0.1 is in use")


def test_a_target_that_does_not_exist_is_one_line_and_exit_code_2(folder: Path) -> None:
    for target, told in [("nix.py", "there is no file nix.py"), ("chat.py:nix", "'nix'")]:
        argv = [sys.executable, "-m", "fairlead", "dev", target, "--port", "0", "--admin-port", "0"]
        with running(argv, folder) as program:
            assert program.ended() == 2
            (line,) = program.lines
            assert line.startswith("fairlead: TARGET")
            assert told in line


def test_a_folder_has_its_page_served_by_every_edge(tmp_path: Path) -> None:
    """`fairlead dev chat`: the URLs are printed, and what is saved is seen at the next reload."""
    shutil.copytree(CHAT.parent / "chat", tmp_path / "chat")
    argv = [sys.executable, "-m", "fairlead", "dev", "chat", "--edges", "2"]
    with running([*argv, "--port", "0", "--admin-port", "0"], tmp_path) as program:
        line = program.wait_for(r"Open in two windows: (\S+) (\S+)$")
        for text in ("<title>Fairlead chat", "<title>Another chat"):
            for url in line.groups():
                with urlopen(url, timeout=DEADLINE) as answer:
                    assert answer.headers["content-type"] == "text/html; charset=utf-8"
                    assert text in answer.read().decode()
            index = tmp_path / "chat" / "page" / "index.html"
            index.write_text(index.read_text().replace("Fairlead chat", "Another chat"))
