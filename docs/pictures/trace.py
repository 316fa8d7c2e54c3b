"""Takes the picture of docs/tracing.md: `make pictures`.

A real message over two edges, one member of which does not keep up, as `fairlead trace --last`
shows it.
"""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast
from urllib.request import Request, urlopen

from rich.console import Console
from websockets.sync.client import ClientConnection, connect

from fairlead_console.terminal import draw
from fairlead_console.waterfall import Waterfall

HERE = Path(__file__).parent

PROJECT = """
import asyncio
from opentelemetry import trace
from fairlead import WS, History, Message, feature, project

tracer = trace.get_tracer("chat")
support = feature("Support")

@support.websocket(
    "rooms.{room}", tag="realtime", deliver="topic", history=History(1000, "5m"),
    overflow="drop_oldest",
)
async def chat(ctx: WS, message: Message) -> str:
    with tracer.start_as_current_span("SELECT sender"):
        await asyncio.sleep(0.004)
    return str(message.data)

app = project(support)
"""

MUCH = 60
"""Messages of 100 KB: more than kernels take for one client that does not read."""

SOON = 0.004
"""Seconds until the slow member reads on."""


@contextmanager
def system() -> Generator[tuple[list[int], str]]:
    """Run it under `fairlead dev`; yields the ports of its edges and the URL of its console."""
    told = ["--edges", "2", "--port", "0", "--admin-port", "0"]
    argv = [sys.executable, "-m", "fairlead", "dev", "chat.py", *told]
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "chat.py").open("w") as file,
    ):
        file.write(PROJECT)
        file.flush()
        with subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, text=True) as dev:
            try:
                yield _table(cast(IO[str], dev.stdout))
            finally:
                dev.terminate()
                dev.communicate()


def _table(lines: Iterator[str]) -> tuple[list[int], str]:
    ports: list[int] = []
    console = ""
    for line in lines:
        if found := re.match(r"edge-\d: http://127\.0\.0\.1:(\d+)", line):
            ports.append(int(found[1]))
        elif found := re.match(r"console: (http://[^/]+)", line):
            console = found[1]
        elif line.startswith("Try"):
            return ports, console
    raise SystemExit("`fairlead dev` did not start")


@contextmanager
def member(port: int, sock: socket.socket | None = None) -> Generator[ClientConnection]:
    """One who keeps up, or has a socket of its own."""
    url = f"ws://127.0.0.1:{port}/support/realtime/rooms/blue"
    with connect(url, sock=sock, compression=None, max_queue=1) as made:
        yield made


def reluctant(port: int) -> socket.socket:
    """A socket for which the kernel takes little."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    # Segments as over Ethernet: with loopback's of 64 KiB the edge's kernel takes megabytes.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)
    made.connect(("127.0.0.1", port))
    return made


def publish(console: str, data: str) -> None:
    body = json.dumps({"topic": "rooms.blue", "data": data}).encode()
    with urlopen(Request(f"{console}/publish", body)) as answer:
        answer.read()


def take(ports: list[int], console: str) -> Waterfall:
    """Send the message, and wait for all its spans."""
    with (
        member(ports[0]) as ann,
        member(ports[1]) as ben,
        member(ports[1], reluctant(ports[1])) as cat,
    ):
        for number in range(MUCH):
            publish(console, f"{number} " + "x" * 100_000)
            ann.recv()
            ben.recv()
        ann.send("Lunch at one?")
        assert ann.recv() == ben.recv() == "Lunch at one?"
        time.sleep(SOON)
        while cat.recv() != "Lunch at one?":
            pass
        while True:
            with urlopen(f"{console}/api/traces?limit=1") as answer:
                (last,) = json.load(answer)["traces"]
            if last["parts"]["slow"] and last["spans"] == 6:
                with urlopen(f"{console}/api/traces/{last['trace']}") as answer:
                    return cast(Waterfall, json.load(answer))
            time.sleep(0.1)


def main() -> None:
    with system() as (ports, console):
        trace = take(ports, console)
    terminal = Console(record=True, width=120, file=io.StringIO(), force_terminal=True)
    terminal.print("[bold]$[/] fairlead trace --last")
    draw(terminal, trace)
    svg = terminal.export_svg(title="fairlead trace", unique_id="trace")
    # A page of ours fetches nothing from elsewhere: whatever monospace there is will do.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (HERE / "trace.svg").write_text(svg)


if __name__ == "__main__":
    main()
