"""Kubernetes manifests as kubectl renders them, and what a cluster would make of them, in so far as it can be told without one."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
UNPACKED = Path(sys.prefix, "kubernetes")
"""Where tests/support/kubernetes/install.sh has put its things."""

CHECKOV = Path(sys.prefix, "checkov", "bin", "checkov")
"""In an environment of its own: it pins what others need newer."""

DEADLINE = 60.0  # seconds for any tool here; the slowest takes about five

Manifest = dict[str, Any]


def ran(*argv: str, given: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What a tool says, whatever that is."""
    return subprocess.run(
        argv, input=given, capture_output=True, text=True, timeout=DEADLINE, cwd=cwd, check=False
    )


def kubectl() -> str:
    """The path of a kubectl that knows components."""
    found = shutil.which("kubectl", path=UNPACKED) or shutil.which("kubectl")
    assert found is not None, "kubectl is not there; `make .venv/kubernetes/installed` installs it"
    return found


def render(folder: Path) -> str:
    """The manifests of a kustomization, as `kubectl apply -k` would send them."""
    done = ran(kubectl(), "kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def text(overlay: str) -> str:
    """What an overlay of the repository renders to."""
    return render(K8S / "overlays" / overlay)


@functools.cache
def manifests(overlay: str) -> list[Manifest]:
    return parse(text(overlay))


def combined(folder: Path, components: Iterable[str]) -> Path:
    """A kustomization of the prod overlay's images with other components, in an empty folder."""
    prod: dict[str, Any] = YAML(typ="safe", pure=True).load(
        K8S / "overlays/prod/kustomization.yaml"
    )
    prod["resources"] = [os.path.relpath(K8S / "base", folder)]
    prod["components"] = [os.path.relpath(K8S / "components" / each, folder) for each in components]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(json.dumps(prod))  # JSON is YAML
    return folder


def parse(text: str) -> list[Manifest]:
    # Not the pure loader: the dashboard alone takes it seconds.
    return list(YAML(typ="safe").load_all(text))


def kinds(manifests: Iterable[Manifest], *kind: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] in kind]


def named(manifests: Iterable[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [each for each in kinds(manifests, kind) if each["metadata"]["name"] == name]
    return found


def workloads(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Whatever makes pods."""
    return [each for each in manifests if "template" in each.get("spec", {})]


def pod(workload: Manifest) -> dict[str, Any]:
    """The spec of its pods."""
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Manifest) -> dict[str, Any]:
    """The one that its pods are there for, which has its name."""
    name = workload["metadata"]["name"]
    (found,) = (each for each in pod(workload)["containers"] if each["name"] == name)
    only: dict[str, Any] = found
    return only


def ports(workload: Manifest) -> dict[str, int]:
    """Name → number."""
    return {each["name"]: each["containerPort"] for each in container(workload)["ports"]}


def environment(manifests: list[Manifest], workload: Manifest) -> dict[str, str]:
    """The variables of its container that the manifests themselves know."""
    made: dict[str, str] = {}
    for source in container(workload).get("envFrom", ()):
        name = source["configMapRef"]["name"]
        made |= next(
            (each["data"] for each in kinds(manifests, "ConfigMap") if each["metadata"]["name"] == name), {}
        )  # fmt: skip
    return made | {
        each["name"]: each["value"]
        for each in container(workload).get("env", ())
        if "value" in each
    }


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector means something with these labels; an empty one means everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", ()):
        assert each["operator"] == "In", each  # the only one that is used
        if labels.get(each["key"]) not in each["values"]:
            return False
    return True


class Peer(NamedTuple):
    """A pod, as a NetworkPolicy sees it. Attributes: ports: name → number."""

    namespace: str
    labels: Mapping[str, str]
    ports: Mapping[str, int]


@dataclass(frozen=True)
class Network:
    """Who reaches whom. Attributes: namespaces: name → labels."""

    policies: list[Manifest]
    namespaces: Mapping[str, Mapping[str, str]]

    def allows(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection is let out of its source and into its target."""
        return self._passes("Egress", source, target, target, port, protocol) and self._passes(
            "Ingress", target, source, target, port, protocol
        )

    def _passes(
        self, way: str, whose: Peer, other: Peer, target: Peer, port: int, protocol: str
    ) -> bool:
        about = [
            each
            for each in self.policies
            if each["metadata"]["namespace"] == whose.namespace
            and way in each["spec"]["policyTypes"]
            and selects(each["spec"]["podSelector"], whose.labels)
        ]
        return not about or any(
            self._matches(peer, policy, other)
            and any(_port(each, target, port, protocol) for each in rule["ports"])
            for policy in about
            for rule in policy["spec"].get(way.lower(), ())
            for peer in rule["from" if way == "Ingress" else "to"]
        )

    def _matches(self, peer: Manifest, policy: Manifest, other: Peer) -> bool:
        if "namespaceSelector" in peer:
            there = selects(peer["namespaceSelector"], self.namespaces[other.namespace])
        else:
            there = other.namespace == policy["metadata"]["namespace"]
        return there and selects(peer.get("podSelector", {}), other.labels)


def _port(rule: Manifest, target: Peer, port: int, protocol: str) -> bool:
    number = rule["port"]
    if isinstance(number, str):
        number = target.ports.get(number)
    return bool(number == port and rule["protocol"] == protocol)


def numbers(text: str) -> Iterator[tuple[int, str, bool]]:
    """Each line of YAML that sets a number: its place, the line, and whether a comment explains it.

    One does on the line itself, or above it: for the key under it with all that is in that, and for
    the keys beside that one. The head of a file explains nothing.
    """
    explained: dict[int, bool] = {}
    """Indentation of a comment → whether its own key is the one that we are in."""
    fresh = False
    for place, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        depth = len(line) - len(line.lstrip())
        if not bare:
            explained.clear()
            continue
        explained = {at: own for at, own in explained.items() if at <= depth}
        if bare.startswith("#"):
            if depth:
                explained[depth] = fresh = True
            continue
        if depth in explained:
            explained[depth], fresh = fresh, False
        value = bare.partition("#")[0].partition(": ")[2] or bare.partition("- ")[2]
        told = "#" in bare or depth in explained or any(explained.values())
        if any(mark.isdigit() for mark in value):
            yield place, bare, told
