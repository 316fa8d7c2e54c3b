"""Stands for `fairlead` in tests of the supervisor: real processes, nothing in them.

`worker` and `routes` run the target's file as the real ones do, so it may break them. What
happens is appended to the file $FAKE_LOG, one word and its value a line.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import FrameType
from typing import Any


def note(text: str) -> None:
    with Path(os.environ["FAKE_LOG"]).open("a") as log:
        log.write(f"{text}\n")


def load(target: str) -> dict[str, Any]:
    if not Path(target).is_file():
        sys.stderr.write(f"fairlead: TARGET {target!r}: there is no file {target}\n")
        sys.exit(2)
    return runpy.run_path(target)


def serve(role: str, admin_port: int) -> None:
    def stop(_: int, __: FrameType | None) -> None:
        note(f"stopped {role}")
        sys.exit(0)

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    signal.signal(signal.SIGTERM, stop)
    server = HTTPServer(("127.0.0.1", admin_port), Ready)
    note(f"{role} {os.getpid()}")
    sys.stderr.write(f"I am the {role}\n")
    server.serve_forever()


def main() -> None:
    command, *arguments = sys.argv[1:]
    if command == "routes":
        found = load(arguments[0])
        sys.stdout.write("printed by the module\n" + json.dumps(found["ROUTES"]) + "\n")
        return
    note(f"spans of {command} to {os.environ.get('OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'nobody')}")
    if command == "worker":
        found = load(arguments[0])
        note(f"version {found['VERSION']}")
    if command == "console":
        note(f"token {os.environ['FAIRLEAD_TOKEN']}")
    port = "--port" if command == "console" else "--admin-port"
    serve(command, int(arguments[arguments.index(port) + 1]))


if __name__ == "__main__":
    main()
