"""Hosts on a network of their own: Linux network namespaces, joined by a bridge in one more of them.

The machine's own network is not touched: its addresses, routes and firewall stay as they are. What
is done to a host's line (a cut, loss, a rate) is done in its namespace, by what a kernel does it with.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
"""Of `setns(2)`: the kind of a network namespace."""

NET = "10.77.0"
"""Of addresses; none of them is seen outside."""


def _do(*command: str) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{' '.join(command)}: {found.stderr.strip()}"


class Host:
    """A machine: a namespace with one line to the bridge.

    Attributes:
        address: of its line.
    """

    def __init__(self, network: str, name: str, number: int) -> None:
        self.name = name
        self.address = f"{NET}.{number}"
        self._namespace = f"{network}-{name}"
        self._switch = f"{network}-switch"
        self._line = f"to-{number}"  # at most 15 letters
        _do("ip", "netns", "add", self._namespace)
        line = ("type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _do("ip", "-n", self._switch, "link", "add", self._line, *line)
        _do("ip", "-n", self._switch, "link", "set", self._line, "master", "bridge", "up")
        _do("ip", "-n", self._namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _do("ip", "-n", self._namespace, "link", "set", device, "up")

    @property
    def prefix(self) -> list[str]:
        """Before a command line, to run it here."""
        return ["ip", "netns", "exec", self._namespace]

    def cut(self) -> None:
        """Nothing comes through any more, and nobody is told: a pulled cable."""
        _do("ip", "-n", self._switch, "link", "set", self._line, "down")

    def mend(self) -> None:
        _do("ip", "-n", self._switch, "link", "set", self._line, "up")

    def lose(self, share: float) -> None:
        """Drop this share of the packets that come in; 0 drops none."""
        _do(*self.prefix, "iptables", "--wait", "--flush", "INPUT")
        if share:
            rule = ("-m", "statistic", "--mode", "random", "--probability", f"{share:.4f}")
            _do(*self.prefix, "iptables", "--wait", "-A", "INPUT", *rule, "-j", "DROP")

    def limit(self, rate: str | None) -> None:
        """Let out so much, such as `20mbit`; None is no limit."""
        qdisc = ("tc", "qdisc")
        if rate is None:
            _do(*self.prefix, *qdisc, "del", "dev", "eth0", "root")
        else:
            how = ("tbf", "rate", rate, "burst", "64kb", "latency", "400ms")
            _do(*self.prefix, *qdisc, "replace", "dev", "eth0", "root", *how)

    def call(self, what: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on a loop of its own here: the sockets that it opens are this host's."""
        result: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                with open(f"/run/netns/{self._namespace}") as namespace:
                    _enter(namespace.fileno())
                result.append(asyncio.run(what()))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, name=self.name)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return result[0]

    def close(self) -> None:
        _do("ip", "netns", "del", self._namespace)


def _enter(descriptor: int) -> None:
    """Of this thread alone; `os.setns` comes with Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Network:
    """The hosts, by name."""

    def __init__(self) -> None:
        self._name = f"fl{secrets.token_hex(3)}"
        self.hosts: dict[str, Host] = {}
        switch = f"{self._name}-switch"
        _do("ip", "netns", "add", switch)
        _do("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _do("ip", "-n", switch, "link", "set", "bridge", "up")

    def host(self, name: str) -> Host:
        """One more."""
        made = Host(self._name, name, len(self.hosts) + 1)
        self.hosts[name] = made
        return made

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
        _do("ip", "netns", "del", f"{self._name}-switch")


@contextmanager
def network() -> Generator[Network]:
    """An empty one; it is gone at the end, and whatever ran in it has to be by then."""
    for needed in ("ip", "iptables", "tc", "haproxy"):
        assert shutil.which(needed), f"{needed} is not there; `make .venv/network` installs it"
    made = Network()
    try:
        yield made
    finally:
        made.close()
