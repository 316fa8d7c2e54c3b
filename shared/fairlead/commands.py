"""Commands that are no process of their own: they ask, tell, and end."""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

import orjson
import typer
from pydantic import Field
from rich.console import Console
from rich.table import Table

from fairlead import loading
from fairlead.cli import add_command
from fairlead.natsconfig import Cluster, Tls
from fairlead.protocol import names
from fairlead.protocol.envelope import DataType
from fairlead.protocol.manifest import History, Route
from fairlead.settings import (
    AskingSettings,
    CannotStart,
    Duration,
    Positional,
    Settings,
    Token,
    WrongUse,
)
from fairlead.workflow import Project

PATIENCE = 10.0
"""Seconds that `publish` waits for NATS."""

TIMES = ("drain_grace", "worker_wait", "ready_grace", "policy_timeout")
"""Settings of edges and workers that `doctor` looks at."""


class RoutesSettings(Settings):
    """What `routes` can be told."""

    target: Annotated[str, Positional(example="examples/chat")]
    """The project: module:attr or path/file.py[:attr]; attr defaults to app."""

    json_: bool = False
    """Print one line of JSON."""


class AsyncApiSettings(Settings):
    """What `asyncapi` can be told."""

    target: Annotated[str, Positional(example="examples/chat")]
    """The project: module:attr or path/file.py[:attr]; attr defaults to app."""

    server: str = "http://127.0.0.1:8000"
    """Where clients reach the edges."""

    title: str = ""
    """Of the document; the TARGET by default."""

    api_version: str = "1.0.0"
    """Of the interface that the document describes."""


class PublishSettings(AskingSettings):
    """What `publish` can be told."""

    topic: Annotated[str, Positional(example="chat")]
    """The topic, its parameters filled in."""

    data: Annotated[str, Positional(example="hello")]
    """What to send, as text."""

    channel: str = "-"
    """The room of the topic."""


class NatsConfigSettings(Settings):
    """What `nats-config` can be told."""

    app: Token = "default"
    """Name of the app whose NATS subjects are allowed."""

    auth: Literal["none", "nkeys"] = "nkeys"
    """Whether each role has a key and permissions of its own, or whoever reaches the port may all."""

    cluster: Annotated[str, Field(json_schema_extra={"hint": "NAME@HOST,..."})] = ""
    """Name of the cluster, and the hosts of all of its servers; empty for a server alone."""

    tls: Annotated[str, Field(json_schema_extra={"hint": "CERT,KEY,CA"})] = ""
    """Paths as nats-server sees them; empty for none."""

    store: str = "/data"
    """Folder of JetStream's files, as nats-server sees it."""

    file_store: Annotated[
        str, Field(pattern=r"(?i)^(\d+[KMGT]?B?)?$", json_schema_extra={"hint": "SIZE"})
    ] = ""
    """What they may take, such as 10GB; empty for three quarters of the disk."""

    broker_spans: Annotated[int, Field(ge=0, le=100)] = 0
    """Percent of the traced messages of which nats-server tells, for `fairlead edge --broker-spans`."""

    keys: Annotated[Path | None, Field(json_schema_extra={"hint": "DIR"})] = None
    """Make a key for each role in this folder and print what nats-server is told of them, nothing else."""


class DoctorSettings(AskingSettings):
    """What `doctor` can be told."""

    role: Annotated[
        Literal["edge", "worker", "publisher", "console"] | None,
        Field(json_schema_extra={"hint": "edge|worker|publisher|console"}),
    ] = None
    """Whose permissions the NATS user must have; else those of an edge and of a worker."""

    json_: bool = False
    """Print one line of JSON."""

    drain_grace: Duration | None = None
    """As edges and workers are told; looked at for sense, as the next ones are."""

    worker_wait: Duration | None = None
    """As edges are told."""

    ready_grace: Duration | None = None
    """As edges and workers are told."""

    policy_timeout: Duration | None = None
    """As workers are told."""


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    add_command(app, "routes", RoutesSettings, routes, "List the endpoints of a project.")
    add_command(app, "asyncapi", AsyncApiSettings, asyncapi, "Describe a project as AsyncAPI 3.0.")
    add_command(app, "publish", PublishSettings, publish, "Send a text to a room.")
    add_command(
        app, "nats-config", NatsConfigSettings, nats_config,
        "Print nats-server's configuration, with what each role may say and hear.",
    )  # fmt: skip
    about = "Look at NATS, and at what the app has there; say what is wrong, and what to do."
    add_command(app, "doctor", DoctorSettings, doctor, about)


def routes(settings: RoutesSettings) -> int:
    """Print the endpoints; loads the project and needs no NATS."""
    project = cast(Project, loading.load(settings.target, Project))
    found = project.manifest().routes
    if settings.json_:
        sys.stdout.write(orjson.dumps([_as_json(route) for route in found]).decode() + "\n")
        return 0
    table = Table(box=None, pad_edge=False)
    for heading in ("endpoint", "by", "topic", "deliver", "workflow"):
        table.add_column(heading, overflow="fold")
    for route in found:
        by = "WS" if route.transport == "websocket" else " ".join(route.methods)
        deliver = route.deliver if route.transport == "websocket" else "-"
        table.add_row(route.endpoint, by, route.topic or "-", deliver, route.label)
    Console().print(table)
    return 0


def asyncapi(settings: AsyncApiSettings) -> int:
    """Print the document; loads the project and needs no NATS."""
    from fairlead.asyncapi import document

    if not _is_web_address(settings.server):
        raise WrongUse(f"--server {settings.server}: expected http://host:port or https://host")
    # What the user's module prints while it is imported would stand before the document.
    with redirect_stdout(sys.stderr):
        project = cast(Project, loading.load(settings.target, Project))
    made = document(
        project,
        title=settings.title or settings.target,
        version=settings.api_version,
        server=settings.server,
    )
    sys.stdout.write(orjson.dumps(made, option=orjson.OPT_INDENT_2).decode() + "\n")
    return 0


def _is_web_address(url: str) -> bool:
    try:
        found = urlsplit(url)
    except ValueError:  # half of an IPv6 address
        return False
    return found.scheme in ("http", "https") and bool(found.netloc)


def _as_json(route: Route) -> dict[str, Any]:
    feature, _, workflow = route.label.partition("/")
    return {
        "feature": feature,
        "workflow": workflow,
        "transport": route.transport,
        "methods": list(route.methods) or ["GET"],
        "endpoint": route.endpoint,
        "topic": route.topic or None,
        "history": _shown(route.history),
        "deliver": route.deliver if route.transport == "websocket" else None,
        "checks": route.checks,
    }


def _shown(history: History | None) -> str | None:
    return f"{history.size} for {history.age:g} s" if history else None


def publish(settings: PublishSettings) -> int:
    """Send to a room; the topics are those of the newest build that a worker ever wrote."""
    return asyncio.run(_publish(settings))


async def _publish(settings: PublishSettings) -> int:
    from fairlead.appbus import declared
    from fairlead.bus import Bus, BusOptions
    from fairlead.errors import BadName, NotStored
    from fairlead.protocol.subjects import Subjects
    from fairlead.publisher import Publisher

    process = secrets.token_hex(4)
    options = BusOptions(
        settings.servers,
        Subjects(settings.app),
        "publisher",
        process,
        credentials=settings.credentials,
    )
    bus = await Bus.within(options, PATIENCE)
    try:
        topics = await declared(bus)
        if not topics:
            raise CannotStart(
                f"app {settings.app!r} has no topics yet; start a worker first, or name another --app"
            )
        made = await Publisher(bus, lambda: topics).publish(
            settings.topic, settings.channel, DataType.TEXT, settings.data.encode()
        )
    except (BadName, LookupError) as error:
        raise WrongUse(str(error.args[0])) from None
    except NotStored as error:
        raise CannotStart(str(error)) from None
    finally:
        await bus.close()
    sys.stdout.write(f"{made or 'sent'}\n")
    return 0


def nats_config(settings: NatsConfigSettings) -> int:
    """Print a configuration, or make the keys for one."""
    from fairlead import natsconfig, nkeyfiles

    if settings.keys is not None:
        for name, public in nkeyfiles.make(settings.keys).items():
            sys.stdout.write(f"{name}={public}\n")
        return 0
    options = natsconfig.Options(
        app=settings.app,
        store=settings.store,
        file_store=settings.file_store,
        auth=settings.auth == "nkeys",
        tls=_tls_files(settings.tls),
        cluster=_cluster(settings.cluster),
        broker_spans=settings.broker_spans,
    )
    sys.stdout.write(natsconfig.config(options))
    return 0


def _tls_files(text: str) -> Tls | None:
    if not text:
        return None
    try:
        return Tls(*text.split(","))
    except TypeError:
        raise WrongUse(f"--tls {text}: expected three paths, CERT,KEY,CA") from None


def _cluster(text: str) -> Cluster | None:
    if not text:
        return None
    name, at, hosts = text.partition("@")
    if not (at and names.is_token(name) and hosts):
        raise WrongUse(
            f"--cluster {text}: expected a name and hosts, such as main@nats-0,nats-1,nats-2"
        )
    return Cluster(name, hosts.split(","))


def doctor(settings: DoctorSettings) -> int:
    """Examine; 0 where nothing is wrong, 1 where something is."""
    from fairlead import doctor
    from fairlead.protocol.permissions import Role
    from fairlead.protocol.subjects import Subjects

    # A worker hears and says the most, so its inbox comes first.
    roles = [Role(settings.role)] if settings.role else [Role.WORKER, Role.EDGE]
    told = {name: getattr(settings, name) for name in TIMES}
    times = {name: value for name, value in told.items() if value is not None}
    examination = doctor.Doctor(
        settings.servers, Subjects(settings.app), roles, times, credentials=settings.credentials
    )
    found = asyncio.run(examination.examine())
    if settings.json_:
        sys.stdout.write(doctor.as_json(found) + "\n")
    else:
        doctor.show(found, Console(highlight=False))
    return 0 if doctor.healthy(found) else 1
