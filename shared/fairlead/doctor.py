"""`fairlead doctor`: looks at NATS, at what an app has there, and at this machine. Changes nothing."""

from __future__ import annotations

import asyncio
import logging
import resource
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairlead import findings, grants, natsinfo
from fairlead.bus import Bus, BusOptions, NoResponders
from fairlead.credentials import ANONYMOUS, Credentials
from fairlead.errors import Malformed, Unusable
from fairlead.findings import Finding, State
from fairlead.natsinfo import Stream
from fairlead.protocol.manifest import Manifest
from fairlead.protocol.permissions import Role
from fairlead.protocol.subjects import Subjects
from fairlead.settings import without_credentials

WITHIN = 3.0
"""Seconds for a server to be connected to, and to answer."""

LISTEN = 2.5
"""Seconds in which every worker beats; who is asked to (`roll`) does so at once."""

SETTLE = 1.0
"""Seconds after which copies that were behind are looked at again."""

_SILENT = (TimeoutError, NoResponders, Malformed)


class Doctor:
    """One examination.

    Args:
        roles: whose permissions are tried; the first one's inbox is used for replies.
        times: settings of edges and workers that are said here, by field, in seconds.
        listen: seconds for edges and workers to be heard of.
        credentials: who it is to NATS: the role's own, to see what that may.
    """

    def __init__(
        self,
        servers: Sequence[str],
        subjects: Subjects,
        roles: Sequence[Role],
        times: Mapping[str, float],
        listen: float = LISTEN,
        credentials: Credentials = ANONYMOUS,
    ) -> None:  # fmt: skip
        self._servers = servers
        self._subjects = subjects
        self._roles = roles
        self._times = times
        self._listen = listen
        self._credentials = credentials
        self._found: list[Finding] = []

    async def examine(self) -> list[Finding]:
        """All that was found, in the order of what depends on what."""
        # What NATS complains of is what we ask for, and told by ourselves.
        logging.getLogger("fairlead").addHandler(logging.NullHandler())
        self._found = []
        buses = [await self._connect(server) for server in self._servers]
        bus = next(filter(None, buses), None)
        try:
            if bus is None:
                why = "NATS cannot be reached"
                self._found.append(findings.not_asked("jetstream", why))
            else:
                await self._look(bus)
        finally:
            for each in filter(None, buses):
                await each.close()
        self._found.append(findings.open_files(*resource.getrlimit(resource.RLIMIT_NOFILE)))
        self._found += findings.patience(self._times)
        return self._found

    async def _connect(self, server: str) -> Bus | None:
        name = without_credentials(server)
        options = BusOptions(
            [server], self._subjects, str(self._roles[0]), f"doctor{secrets.token_hex(4)}",
            credentials=self._credentials,
        )  # fmt: skip
        try:
            bus = await Bus.once(options, WITHIN, lambda _: None)
        except Unusable as error:
            self._found.append(findings.unreached(name, str(error)))
            return None
        try:
            rtt = min([await bus.ping(WITHIN) for _ in range(3)])
        except Unusable as error:
            self._found.append(findings.unreached(name, str(error)))
            await bus.close()
            return None
        self._found.append(findings.reached(name, rtt))
        self._found.append(findings.version(name, bus.server_info))
        self._found.append(findings.payload(name, bus.server_info))
        return bus

    async def _look(self, bus: Bus) -> None:
        denied = {role: await grants.denied(bus, role, WITHIN) for role in self._roles}
        if await self._hears(bus):
            await self._look_at_jetstream(bus)
        else:
            why = f"this user hears no replies: its inbox, {bus.subjects.inbox(bus.options.role, '>')}, is not allowed"
            self._found.append(findings.not_asked("jetstream", why))
        self._found += (findings.permitted(role, found) for role, found in denied.items())

    async def _hears(self, bus: Bus) -> bool:
        try:
            await bus.round_trip(WITHIN)
        except TimeoutError:
            return False
        return True

    async def _look_at_jetstream(self, bus: Bus) -> None:
        try:
            account = await natsinfo.account(bus)
        except (NoResponders, Unusable) as error:
            reason = str(error) if isinstance(error, Unusable) else "nobody answers for it"
            self._found.append(findings.no_jetstream(reason))
            return
        except (TimeoutError, Malformed):
            why = "it did not answer; see the permissions of this user, and the server's log"
            self._found.append(findings.not_asked("jetstream", why))
            return
        self._found += findings.space(account)
        builds: findings.Builds | None
        builds, workers, reports = await asyncio.gather(
            self._or(None, natsinfo.builds(bus)),
            natsinfo.workers(bus, self._listen),
            natsinfo.reports(bus, self._listen),
        )
        served = findings.served(builds or {}, workers)
        streams, leaderless, whole = await self._settled_streams(bus, served.values())
        await self._look_at_the_clock(bus, streams)
        self._found += findings.copies(streams, leaderless, _servers(bus, streams))
        if whole and builds is not None:
            self._found += findings.leftovers(bus.subjects, streams, list(served.values()))
        else:
            why = (
                "those of nobody are not seen: $JS.API.STREAM.LIST, or the bucket of the builds, "
                "did not answer; this user may not ask, or JetStream has no leader just now"
            )
            self._found.append(findings.not_asked("streams", why))
        edges = [each for each in reports if each["role"] == Role.EDGE]
        self._found += findings.alive(builds, workers, len(edges) if reports else None)

    async def _settled_streams(
        self, bus: Bus, served: Iterable[Manifest]
    ) -> tuple[list[Stream], list[str], bool]:
        """As `_streams`; a copy that is behind for a moment is no finding."""
        found = await self._streams(bus, served)
        if found[1] or any(not peer.current for stream in found[0] for peer in stream.peers):
            await asyncio.sleep(SETTLE)
            found = await self._streams(bus, served)
        return found

    async def _streams(self, bus: Bus, served: Any) -> tuple[list[Stream], list[str], bool]:
        """(streams of the app, those without a leader, whether these are all)."""
        try:
            return *(await natsinfo.streams(bus)), True
        except _SILENT:
            pass
        subjects = bus.subjects
        names = {
            subjects.stream(topic)
            for build in served
            for topic, kept in build.topics.items()
            if kept
        }
        names |= {subjects.runs, f"KV_{subjects.manifests}", f"KV_{subjects.leases}"}
        found = [await self._or(None, natsinfo.stream(bus, name)) for name in sorted(names)]
        return [stream for stream in found if stream is not None], [], False

    async def _look_at_the_clock(self, bus: Bus, streams: Sequence[Stream]) -> None:
        if not streams:
            self._found.append(findings.not_asked("clock", "there is no stream yet to ask"))
            return
        asked = time.time()
        stream = await self._or(None, natsinfo.stream(bus, streams[0].name))
        if stream is not None and stream.told is not None:
            self._found.append(findings.clock(stream.told, asked, time.time()))

    @staticmethod
    async def _or(otherwise: Any, question: Any) -> Any:
        try:
            return await question
        except _SILENT:
            return otherwise


def _servers(bus: Bus, streams: Sequence[Stream]) -> int:
    """Of the cluster, as far as is known: it tells their addresses, unless that is switched off."""
    told = len(set(bus.server_info.get("connect_urls") or ()))
    return max([told, 1, *(1 + len(stream.peers) for stream in streams)])


_SIGNS = {State.OK: ("✓", "green"), State.NOTE: ("!", "yellow"), State.WRONG: ("✗", "red"), State.UNKNOWN: ("?", "dim")}  # fmt: skip


def healthy(found: Sequence[Finding]) -> bool:
    return all(finding.state is not State.WRONG for finding in found)


def as_json(found: Sequence[Finding]) -> str:
    """`{"healthy": …, "findings": [{"check", "state", "found", "expected", "advice"}]}`."""
    told = {"healthy": healthy(found), "findings": [asdict(finding) for finding in found]}
    return orjson.dumps(told).decode()


def show(found: Sequence[Finding], console: Console) -> None:
    """What was found, what was expected, and what to do, for people."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        sign, colour = _SIGNS[finding.state]
        said = Text(finding.found)
        if finding.expected:
            said.append(f"\nexpected: {finding.expected}", "dim")
        if finding.advice:
            said.append(f"\nto do: {finding.advice}", "bold")
        table.add_row(Text(sign, colour), Text(finding.check, colour), said)
    console.print(table)
    counts = {state: sum(each.state is state for each in found) for state in State}
    text = (
        f"{counts[State.WRONG]} wrong, {counts[State.NOTE]} worth a look, {counts[State.OK]} well"
    )
    if counts[State.UNKNOWN]:
        text += f", {counts[State.UNKNOWN]} not looked at"
    console.print(Text(text, "bold green" if healthy(found) else "bold red"))
