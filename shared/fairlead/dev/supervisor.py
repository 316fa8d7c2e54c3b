"""Runs nats-server, a console, edges and workers as children; replaces workers as files are saved."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from fairlead import loading
from fairlead.dev import nats_server, output, ports, routes, tracing, watch
from fairlead.dev.processes import Children, Role, Spec
from fairlead.dev.service import US, Service
from fairlead.dev.settings import DevSettings
from fairlead.settings import CannotStart, WrongUse, flag, variable

CONSOLE = "console"

COMMAND = (sys.executable, "-m", "fairlead")

# Seconds past its drain grace that a child has to close the rest, before SIGKILL.
MARGIN = 2.0


def run(settings: DevSettings, command: Sequence[str] = COMMAND) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP.

    Args:
        command: starts `fairlead`.

    Returns:
        The exit code.

    Raises:
        WrongUse, BadTarget: told wrongly; nothing was started.
        CannotStart: a port is taken, a program is missing, or the project does not load.
    """
    loading.locate(settings.target)
    _check_ports(settings)
    nats_server.executable()
    with nats_server.locked_folder() as folder:
        return asyncio.run(Supervisor(settings, folder, command).run())


class Supervisor:
    """One run of `fairlead dev`."""

    def __init__(self, settings: DevSettings, folder: Path, command: Sequence[str]) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._page = loading.page_folder(settings.target)
        self._env: dict[str, str] = {
            **os.environ,
            "FAIRLEAD_DEV": "1",
            "PYTHONUNBUFFERED": "1",
            # A .pyc holds the second and the size of its source: of two saves within a second
            # that keep the size, the new worker would run the first.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._overview, traced = _overview(settings, os.environ)
        self._env |= traced
        edges = _names("edge", settings.edges)
        workers = _names("worker", settings.workers)
        self._edges = [_listening(name, i, settings) for i, name in enumerate(edges)]
        self._output = output.Output(output.console(), max(map(len, [*edges, *workers, CONSOLE])))
        self._children = Children(self._write)
        self._nats = nats_server.NatsServer(folder)
        self._nats_service = self._service(self._nats.spec)
        self._console_service = self._service(self._console)
        self._edge_services = [self._service(partial(self._edge, each)) for each in self._edges]
        self._worker_services = [self._service(partial(self._worker, name)) for name in workers]
        self._serving = asyncio.Event()
        self._asked = asyncio.Event()
        self._shown: list[routes.Route] = []

    async def run(self) -> int:
        """Start everything, keep it running, and stop it in order; leaves nothing behind."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)
        working = asyncio.create_task(self._work())
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, asked):
                task.cancel()
            await asyncio.gather(working, asked, return_exceptions=True)
            await self._children.stop()
            self._nats.forget()
        if not self._asked.is_set():
            working.result()  # it ends by itself only when it fails
        self._say("stopped")
        return 0

    def _signalled(self) -> None:
        if self._asked.is_set():
            self._children.kill()
            return
        self._asked.set()
        self._say("stopping edges, then workers, the rest last; Ctrl-C again ends them at once")

    async def _work(self) -> None:
        """Bring up what others stand on first; then watch, until cancelled."""
        self._shown = await self._first_routes()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._nats_service.keep())
            await self._nats_service.ready()
            # From here on, for a file that is saved while the worker imports it.
            tasks.create_task(self._reload())
            services = [self._console_service, *self._edge_services, *self._worker_services]
            for service in services:
                tasks.create_task(service.keep())
            await asyncio.gather(*(service.ready() for service in services))
            self._show()
            self._serving.set()

    async def _first_routes(self) -> list[routes.Route]:
        """The routes, before anything starts: a target that does not load ends us at once."""
        target = self._settings.target
        try:
            return await routes.read(self._command, target, self._env)
        except routes.RoutesFailed as exc:
            if exc.code == 2:
                raise WrongUse(exc.said.strip().removeprefix("fairlead: ")) from None
            sys.stderr.write(exc.said)
            raise CannotStart(f"{target} does not load; mend what is told above") from None

    async def _reload(self) -> None:
        """Replace the workers, one after the other, each time a file of the project is saved."""
        root = loading.source_root(self._settings.target)
        async for files in watch.saved(root):
            await self._serving.wait()
            started = time.monotonic()
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            self._say(f"{files[0]}{more} saved; starting the new worker")
            if all([await service.replace() for service in self._worker_services]):
                self._say(f"the new worker serves, after {time.monotonic() - started:.1f} s")
                await self._show_if_new()

    async def _show_if_new(self) -> None:
        try:
            now = await routes.read(self._command, self._settings.target, self._env)
        except routes.RoutesFailed:
            return  # saved again meanwhile, with a mistake in it; the next round tells
        if now != self._shown:
            self._shown = now
            self._show()

    def _show(self) -> None:
        self._output.table(
            self._shown, self._edges, self._overview, self._nats.url, self._page is not None
        )

    def _say(self, text: str) -> None:
        self._output.line(US, text)

    def _write(self, name: str, line: str) -> None:
        if name != "nats" or nats_server.worth_showing(line):
            self._output.line(name, line)

    def _service(self, spec: Callable[[], Spec]) -> Service:
        return Service(spec, self._children, self._write)

    def _console(self) -> Spec:
        port = self._overview.port
        where = ("--host", ports.LOOPBACK, "--port", str(port), "--open-publish")
        return Spec(
            name=CONSOLE,
            role=Role.CONSOLE,
            argv=(*self._command, "console", "--nats", self._nats.url, *where),
            # Not on the command line, where everybody on this machine may read it.
            env={**self._env, variable("token"): self._overview.token},
            grace=MARGIN,
            ready=partial(ports.is_ready, port),
        )

    def _edge(self, listening: output.Listening) -> Spec:
        # The port stays the same for each start: it stands in the table.
        where = ("--host", ports.LOOPBACK, "--port", str(listening.port))
        page = ("--pages", str(self._page)) if self._page is not None else ()
        return self._child(listening.name, Role.EDGE, ("edge", *where, *page), listening.admin_port)

    def _worker(self, name: str) -> Spec:
        # Two of them are alive while one replaces the other: a port for each.
        arguments = ("worker", self._settings.target)
        return self._child(name, Role.WORKER, arguments, ports.free_port())

    def _child(self, name: str, role: Role, arguments: tuple[str, ...], admin_port: int) -> Spec:
        grace = self._settings.drain_grace
        common = ("--nats", self._nats.url, "--admin-host", ports.LOOPBACK)
        limits = ("--admin-port", str(admin_port), "--drain-grace", f"{grace}s")
        return Spec(
            name=name,
            role=role,
            argv=(*self._command, *arguments, *common, *limits),
            env=self._env,
            grace=grace + MARGIN,
            ready=partial(ports.is_ready, admin_port),
        )


def _names(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind}-{i}" for i in range(1, count + 1)]


def _listening(name: str, index: int, settings: DevSettings) -> output.Listening:
    """The first edge listens where it was told, the others where there is room."""
    port = settings.port if index == 0 else 0
    return output.Listening(name, port or ports.free_port(), ports.free_port())


def _overview(
    settings: DevSettings, environ: Mapping[str, str]
) -> tuple[output.Overview, dict[str, str]]:
    """The console, and the variables that send it the spans of all others."""
    port = settings.admin_port or ports.free_port()
    token = environ.get(variable("token")) or secrets.token_urlsafe(12)
    traced = tracing.to_console(environ, port)
    return output.Overview(port, token, bool(traced)), traced


def _check_ports(settings: DevSettings) -> None:
    if settings.port == settings.admin_port != 0:
        raise WrongUse(f"--port and --admin-port are both {settings.port}; choose two")
    for field in ("port", "admin_port"):
        port: int = getattr(settings, field)
        if port and ports.taken(port):
            raise CannotStart(
                f"port {port} of {ports.LOOPBACK} is in use; "
                f"stop what listens there, or choose another with {flag(field)}"
            )
