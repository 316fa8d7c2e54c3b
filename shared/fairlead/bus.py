"""NATS, as edges, workers and publishers use it: one connection, and what is said and asked over it.

Only this, `interest.py`, `roomstreams.py` and `buckets.py` import `nats`. nats-py keeps the
connection, its reconnects and the JetStream API. The hot way is ours: messages come in as
`interest.py` says, and publishing is a plain call that joins what one turn of the loop has
to say.

What is used of nats-py's inside is pinned by tests/shared/test_bus_contract.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import nats.errors
import nats.js.errors
from nats.js.client import JetStreamContext
from nats.protocol import command

from fairlead import logs, process
from fairlead.credentials import ANONYMOUS, Credentials
from fairlead.errors import TooLarge, Unusable
from fairlead.interest import DirectClient, Handler, Interest
from fairlead.natsheaders import encode_headers, no_responders
from fairlead.protocol.problems import HEADROOM, MAX_MESSAGE
from fairlead.protocol.subjects import Subjects, shortened

log = logs.get("fairlead.bus")

CONGESTED = 1024 * 1024
"""Bytes given to NATS after which its socket is waited for, by those who can wait."""

PING_EVERY = 2.0
"""Seconds between two pings to NATS. After the third without an answer another server is tried: a host
that is cut off says nothing, and all of its clients wait for as long."""

SAY_EVERY = 5.0
"""Seconds between two lines about a NATS that does not answer."""

MEASURE_EVERY = 5.0
"""Seconds between two measured round trips."""

STORAGE_EVERY = 6
"""Of these, how many from one question to the next how full JetStream is."""

MAX_PAYLOAD = MAX_MESSAGE + HEADROOM
"""Bytes that NATS has to take at least."""

_NO_LEADER = 10008
"""nats-server's `JSClusterNotAvailErr`."""


class Storage(NamedTuple):
    """What the account's streams take on disk, in bytes, each replica counted.

    Attributes:
        limit: of the account; -1 for none.
    """

    used: int
    limit: int


class NoResponders(Exception):
    """Nobody listens on the subject of a request (NATS says so at once)."""


@dataclass(frozen=True, slots=True)
class BusOptions:
    """How to connect.

    Attributes:
        role: one of `protocol.permissions.Role`; part of the inbox prefix.
        process: this process' id; the rest of it.
        replicas: copies of each stream that this process creates.
        credentials: who this process is to NATS, and whom it trusts.
    """

    servers: Sequence[str]
    subjects: Subjects
    role: str
    process: str
    replicas: int = 1
    credentials: Credentials = ANONYMOUS


class Bus:
    """One connection to NATS. Make it with `Bus.connect`.

    Attributes:
        subjects: every NATS subject of the app.
        connected: whether NATS answers, as far as is known; a frozen server shows in 15 s.
        down_since: loop time since which it does not, or None.
        jetstream: its API as nats-py has it, for streams and buckets.
        reconnects: how often it came back. rtt: seconds of the last round trip, or None.
        storage: of JetStream, or None while it is not known.
    """

    def __init__(self, options: BusOptions) -> None:
        self.options = options
        self.subjects = options.subjects
        self.connected = False
        self.on_down: list[Callable[[], None]] = []
        self.on_up: list[Callable[[], None]] = []
        self.on_error: list[Callable[[str], None]] = []
        self._loop = asyncio.get_running_loop()
        self.down_since: float | None = self._loop.time()
        self.reconnects = 0
        self.rtt: float | None = None
        self.storage: Storage | None = None
        self._client = DirectClient()
        self.jetstream: JetStreamContext = self._client.jetstream(timeout=5)
        self._up = asyncio.Event()
        self._flushing = False
        self._written = 0  # bytes, since somebody last waited for NATS to take them
        self._inbox = options.subjects.inbox(options.role, options.process)
        self._tokens = itertools.count(1)
        self._replies: dict[str, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._interests: dict[int, Interest] = {}
        self._closing = False
        self._starting_over: asyncio.Task[None] | None = None
        self._said = 0.0

    @classmethod
    async def connect(
        cls, options: BusOptions, on_error: Callable[[str], None] = lambda reason: None
    ) -> Bus:
        """Connect, however long it takes; say every 5 s which server does not answer.

        Args:
            on_error: told of each attempt that fails, and later what the server complains of.

        Raises:
            Unusable: the server is no use: its `max_payload` is too small, or it has no JetStream.
        """
        bus = cls(options)
        bus.on_error.append(on_error)
        await bus._open()
        bus._set_up()
        bus.subscribe(f"{bus._inbox}.r.*", bus._replied)
        try:
            bus._check_payload()
            await bus._check_jetstream()
        except BaseException:
            await bus.close()
            raise
        return bus

    @classmethod
    async def within(cls, options: BusOptions, seconds: float) -> Bus:
        """Connect, for a program that somebody waits for.

        Raises:
            Unusable: it took longer than so many seconds, or the server is no use.
        """
        reasons = ["no answer"]
        connecting = asyncio.ensure_future(cls.connect(options, reasons.append))
        try:
            await asyncio.wait({connecting}, timeout=seconds)
        finally:
            await process.end(connecting)
        if not connecting.cancelled():
            return connecting.result()
        raise Unusable(
            f"NATS at {_shown(options)} could not be used within {seconds:g} s: {reasons[-1]}; "
            "is it running, and are the credentials right? `fairlead doctor` tells more"
        )

    @classmethod
    async def once(cls, options: BusOptions, within: float, on_error: Callable[[str], None]) -> Bus:
        """Connect to look at a server, which may be of no use: one try, and no other later.

        Args:
            on_error: told what the server, or the attempt to connect, complains of.

        Raises:
            Unusable: it does not answer within so many seconds, or does not let us in.
        """
        bus, reasons = cls(options), [f"no answer within {within:g} s"]
        bus.on_error += [on_error, reasons.append]
        bus._closing = True
        told = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.1}
        try:
            await asyncio.wait_for(bus._open(connect_timeout=within, **told), within)
        except (OSError, nats.errors.Error) as error:
            await bus.close()
            raise Unusable(reasons[-1]) from error
        bus._set_up()
        bus.subscribe(f"{bus._inbox}.r.*", bus._replied)
        return bus

    async def _open(self, **others: Any) -> None:
        """Have the client connect, and come back by itself from then on."""
        told: dict[str, Any] = {
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,  # passed to asyncio.sleep: a float will do
            "ping_interval": PING_EVERY,  # passed to asyncio.sleep, likewise
            "max_outstanding_pings": 2,
            "pending_size": -1,  # bounded by those who publish: they wait for `ready`
        }
        await self._client.connect(
            servers=list(self.options.servers),
            name=f"fairlead-{self.options.role}-{self.options.process}",
            inbox_prefix=f"{self._inbox}.js",
            error_cb=self._error,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._closed,
            **self.options.credentials.options(list(self.options.servers)),
            **{**told, **others},
        )

    # The state of the connection

    def _check_payload(self) -> None:
        found, needed = self._client.max_payload, MAX_PAYLOAD
        if found < needed:
            raise Unusable(
                f"NATS at {self.server} has max_payload {found} bytes; Fairlead needs at least "
                f"{needed} bytes (1 MiB of user data and 64 KiB beside it); "
                "set max_payload: 2097152 in the server's configuration"
            )

    async def _check_jetstream(self) -> None:
        """Wait until JetStream answers: servers of a cluster that come up together choose a leader first."""
        while True:
            try:
                await self.jetstream.account_info()
                return
            except (nats.errors.TimeoutError, nats.errors.ConnectionClosedError):
                reason = "no answer; look at its log, and at the permissions of this user"
            except (nats.js.errors.APIError, nats.errors.NoRespondersError) as error:
                reason = str(error) or "nobody answers for it"
                if getattr(error, "err_code", 0) != _NO_LEADER:
                    raise Unusable(
                        f"NATS at {self.server} has no JetStream for this account ({reason}); "
                        "start it with -js, or put a jetstream { } block into its configuration"
                    ) from error
            log.warning("JetStream does not answer; trying on", server=self.server, reason=reason)
            await asyncio.sleep(1)

    @property
    def server(self) -> str:
        """The server connected to, or the ones tried; without credentials."""
        url = self._client.connected_url
        if url is not None and url.hostname:
            return f"{url.hostname}:{url.port}"
        return _shown(self.options)

    @property
    def server_info(self) -> Mapping[str, Any]:
        """What the server said of itself when it was connected to."""
        return self._client._server_info

    async def ping(self, within: float) -> float:
        """Seconds that the server takes to answer; no permission is needed for it.

        Raises:
            Unusable: it does not answer in time, or is gone.
        """
        asked = self._loop.time()
        self._flush()
        try:
            await self._client.flush(timeout=within)  # type: ignore[arg-type]  # to asyncio.wait_for
        except nats.errors.Error as error:
            raise Unusable(str(error)) from error
        return self._loop.time() - asked

    async def _error(self, error: Exception) -> None:
        # nats-py's read loop ends if this raises.
        for call in self.on_error:
            call(str(error) or type(error).__name__)
        now = time.monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            what = shortened(str(error)) or type(error).__name__
            if self.connected:
                event = "NATS reports an error"
            elif "authorization" in what.lower():
                event = "NATS does not let this process in; trying on"
            else:
                event = "NATS does not answer; trying on"
            log.warning(event, server=_shown(self.options), reason=what)

    async def _disconnected(self) -> None:
        if self.connected:
            self.connected = False
            self.down_since = self._loop.time()
            self._up.clear()
            log.warning("NATS is away; sockets stay, work waits", server=self.server)
            for call in self.on_down:
                call()

    async def _closed(self) -> None:
        """nats-py gives up for good on an error of the server that it doesn't know. We do not."""
        if not self._closing:
            self._starting_over = self._loop.create_task(self._start_over())

    async def _start_over(self) -> None:
        reason = shortened(str(self._client.last_error))
        log.error("NATS ended the connection; connecting anew", server=self.server, reason=reason)
        await asyncio.sleep(1)  # whatever it was may need a moment
        old, self._client = self._client, DirectClient()
        # At once: who subscribes while NATS is away must not get a number that is taken.
        self._client._sid = old._sid
        self.jetstream = self._client.jetstream(timeout=5)
        await self._open_again()
        for sid, interest in self._interests.items():
            self._client._subs[sid] = interest  # type: ignore[assignment]  # duck-typed, see Interest
            self._send(command.sub_cmd(interest._subject, interest._queue, sid))
        for line in old._pending:
            self._send(line)
        await self._reconnected()

    async def _open_again(self) -> None:
        while True:
            try:
                return await self._open()
            except Unusable as error:  # a file of credentials is being replaced, or is gone
                log.error("NATS cannot be connected to", reason=str(error))
                await asyncio.sleep(SAY_EVERY)

    async def _reconnected(self) -> None:
        if self._client.max_payload < MAX_PAYLOAD:
            log.error(
                "NATS came back with a small max_payload", max_payload=self._client.max_payload
            )
        log.info("NATS is back", server=self.server)
        self.reconnects += 1
        self._set_up()
        for call in self.on_up:
            call()

    def _set_up(self) -> None:
        self.connected = True
        self.down_since = None
        self._up.set()

    async def ready(self) -> None:
        """Wait until NATS answers."""
        await self._up.wait()

    async def close(self) -> None:
        """Say what is left to say, and go."""
        self.connected = False  # or the end would be told as an outage
        self._closing = True
        if self._starting_over is not None:
            self._starting_over.cancel()
        for future in self._replies.values():
            future.cancel()
        if self._client.is_connected:
            self._flush()
        # NATS is away: there is nobody to say good-bye to. nats-py writes what waits to its socket all
        # the same, and uvloop raises RuntimeError where that is closed.
        with contextlib.suppress(OSError, RuntimeError):
            await self._client.close()
        if self._client._reconnection_task is not None:
            await process.end(self._client._reconnection_task)

    # Publishing

    def publish(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send, with whatever else this turn of the loop sends. Never waits.

        While NATS is away the message is kept and goes out when it is back; those who
        could publish without end wait for `ready` first.

        Args:
            subject: made by `Subjects`, which lets nothing through that could forge a command.

        Raises:
            TooLarge: NATS would end the connection, and with it everybody's.
        """
        encoded = b"" if headers is None else encode_headers(headers)
        size = len(encoded) + len(payload)
        if size > MAX_PAYLOAD and size > self._client.max_payload:
            raise TooLarge(f"a message of {size} bytes; NATS takes {self._client.max_payload}")
        if headers is None:
            line = command.pub_cmd(subject, reply, payload)
        else:
            line = command.hpub_cmd(subject, reply, encoded, payload)
        self._send(line)

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call something of ours from any thread.

        Raises:
            RuntimeError: our loop has ended.
        """
        self._loop.call_soon_threadsafe(call, *arguments)

    def _send(self, line: bytes) -> None:
        client = self._client
        client._pending.append(line)
        client._pending_data_size += len(line)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    @property
    def _writer(self) -> asyncio.StreamWriter | None:
        return getattr(self._client._transport, "_io_writer", None)

    def _flush(self) -> None:
        self._flushing = False
        client = self._client
        writer = self._writer
        if writer is not None and writer.is_closing():
            return  # what waits goes out when nats-py is back
        if client.is_connected and client._pending and client._transport is not None:
            lines, client._pending = client._pending, []
            self._written += client._pending_data_size
            client._pending_data_size = 0
            client._transport.writelines(lines)

    @property
    def congested(self) -> bool:
        """Whether so much waits for NATS that whoever can wait should: see `drained`."""
        return self._client._pending_data_size > CONGESTED or self._written > CONGESTED

    async def drained(self) -> None:
        """Wait until NATS has taken most of what waits for it."""
        transport = self._client._transport
        if transport is not None and self._client.is_connected:
            self._flush()
            self._written = 0
            try:
                await transport.drain()  # type: ignore[no-untyped-call]  # nats-py's
            except OSError:
                await self.ready()

    # Subscribing

    def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Interest:
        """Call `handler` for each message from now on, also after a reconnect.

        It is in force for whatever is sent on this connection afterwards;
        `round_trip` makes sure for others.
        """
        client = self._client
        client._sid += 1
        interest = Interest(client._sid, subject, queue, handler)
        self._interests[client._sid] = interest
        client._subs[client._sid] = interest  # type: ignore[assignment]  # duck-typed, see Interest
        self._send(command.sub_cmd(subject, queue, client._sid))
        return interest

    def unsubscribe(self, interest: Interest) -> None:
        """Stop; messages that are on their way are dropped."""
        if self._interests.pop(interest._id, None) is not None:
            self._client._subs.pop(interest._id, None)
            self._send(command.unsub_cmd(interest._id, 0))

    async def leave(self, interests: Sequence[Interest]) -> None:
        """Stop, but handle what is on its way: returns when nothing more can come.

        Messages that a queue group has already given to us would be lost otherwise.
        """
        for interest in interests:
            self._send(command.unsub_cmd(interest._id, 0))
        try:
            await self.round_trip()
        finally:
            for interest in interests:
                self.unsubscribe(interest)  # once more: a reconnect may have repeated it

    def cut(self) -> None:
        """Shut the socket, from any thread: the server takes us for gone, and nats-py comes back."""
        found = self._writer and self._writer.get_extra_info("socket")
        if found and found.fileno() >= 0:
            with socket.socket(fileno=os.dup(found.fileno())) as ours:
                ours.shutdown(socket.SHUT_RDWR)

    @property
    def own_address(self) -> str:
        """This machine's, on the network that NATS is on; "" while NATS is away."""
        name = self._writer and self._writer.get_extra_info("sockname")
        return str(name[0]) if name else ""

    # Asking

    @property
    def new_inbox(self) -> str:
        """A subject of this process alone, never used before, for replies that are several."""
        return f"{self._inbox}.m.{next(self._tokens)}"

    def _replied(self, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        future = self._replies.get(subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result((data, headers))

    async def request(
        self,
        subject: str,
        payload: bytes,
        *,
        within: float,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send and wait for the reply.

        Args:
            within: seconds to wait.

        Raises:
            NoResponders: nobody listens.
            TimeoutError: no reply in time.
        """
        token = str(next(self._tokens))
        future: asyncio.Future[tuple[bytes, bytes]] = self._loop.create_future()
        self._replies[token] = future
        timer = self._loop.call_later(within, _time_out, future)
        try:
            self.publish(subject, payload, f"{self._inbox}.r.{token}", headers)
            data, raw = await future
        finally:
            timer.cancel()
            del self._replies[token]
        if not data and no_responders(raw):
            raise NoResponders(subject)
        return data

    async def round_trip(self, within: float = 5.0) -> None:
        """Wait until the server has read all that was sent before.

        Raises:
            TimeoutError: it did not in time.
        """
        token = str(next(self._tokens))
        future: asyncio.Future[tuple[bytes, bytes]] = self._loop.create_future()
        self._replies[token] = future
        timer = self._loop.call_later(within, _time_out, future)
        try:
            self.publish(f"{self._inbox}.r.{token}", b"")
            await future
        finally:
            timer.cancel()
            del self._replies[token]

    async def measure(self) -> None:
        """Time a round trip now and then, and ask how full JetStream is, until cancelled."""
        for turn in itertools.count():
            if self.connected:
                began = time.perf_counter()
                with contextlib.suppress(TimeoutError):
                    await self.round_trip()
                    self.rtt = time.perf_counter() - began
                if turn % STORAGE_EVERY == 0:
                    await self._measure_storage()
            await asyncio.sleep(MEASURE_EVERY)

    async def _measure_storage(self) -> None:
        with contextlib.suppress(nats.errors.Error):  # the next time, then
            info = await self.jetstream.account_info()
            self.storage = Storage(info.storage, info.limits.max_storage)


def _shown(options: BusOptions) -> str:
    """The servers, without credentials."""
    return ", ".join(server.rpartition("@")[2] for server in options.servers)


def _time_out(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(TimeoutError("no reply in time"))
