"""Who may speak with whom in deploy/k8s: asked of the rendered NetworkPolicies, pair by pair."""

from __future__ import annotations

import functools
import itertools

import pytest

from support.manifests import K8S, Network, Peer, kinds, parse, ports, render, workloads

NAMESPACES = {
    "fairlead": {"kubernetes.io/metadata.name": "fairlead"},
    "gateways": {"kubernetes.io/metadata.name": "gateways", "fairlead-clients": "yes"},
    "monitoring": {"kubernetes.io/metadata.name": "monitoring", "fairlead-monitoring": "yes"},
    "kube-system": {"kubernetes.io/metadata.name": "kube-system"},
    "elsewhere": {"kubernetes.io/metadata.name": "elsewhere"},
}

OTHERS = {
    "client": Peer("gateways", {"app": "gateway"}, {}),
    "prometheus": Peer("monitoring", {"app": "prometheus"}, {}),
    "tempo": Peer("monitoring", {"app": "tempo"}, {"otlp": 4318}),
    "dns": Peer("kube-system", {"k8s-app": "kube-dns"}, {}),
    "system": Peer("kube-system", {"app": "something"}, {}),
    "stranger": Peer("elsewhere", {"app.kubernetes.io/name": "edge"}, {}),
    # Ours by namespace, and nothing by its labels.
    "intruder": Peer("fairlead", {"app": "intruder"}, {}),
}

ALLOWED = {
    ("client", "edge", 8000),
    ("prometheus", "edge", 8001),
    ("prometheus", "worker", 8001),
    ("prometheus", "nats", 8222),
    ("tempo", "edge", 8001),
    ("tempo", "worker", 8001),
    ("tempo", "nats", 8222),
    ("edge", "nats", 4222),
    ("worker", "nats", 4222),
    ("console", "nats", 4222),
    ("console", "edge", 8000),
    ("nats", "nats", 6222),
    ("edge", "dns", 53),
    ("worker", "dns", 53),
    ("console", "dns", 53),
    ("nats", "dns", 53),
    ("intruder", "dns", 53),
}
"""All; what is not here is refused. Monitoring is a namespace, so whoever is in it may what Prometheus may.

Nobody reaches the console: a port-forward comes by way of its machine, at which policies do not look.
"""

TRACED = {
    ("edge", "otel-collector", 4318),
    ("worker", "otel-collector", 4318),
    ("otel-collector", "tempo", 4318),
    ("otel-collector", "prometheus", 4318),
    ("otel-collector", "dns", 53),
}
"""With the collector."""


@functools.cache
def network(overlay: str) -> tuple[Network, dict[str, Peer]]:
    """The policies, and all who could speak."""
    manifests = parse(render(K8S / "overlays" / overlay))
    ours = {
        each["metadata"]["name"]: Peer(
            each["metadata"]["namespace"],
            each["spec"]["template"]["metadata"]["labels"],
            ports(each),
        )
        for each in workloads(manifests)
    }
    return Network(kinds(manifests, "NetworkPolicy"), NAMESPACES), ours | OTHERS


@pytest.mark.parametrize(
    ("overlay", "allowed"), [("dev", ALLOWED), ("prod", ALLOWED | TRACED)], ids=["dev", "prod"]
)
def test_exactly_these_reach_each_other(overlay: str, allowed: set[tuple[str, str, int]]) -> None:
    """Every pair of which one is ours, on every port that anything here has, and one that nothing has."""
    net, peers = network(overlay)
    numbers = {53, 4318, 9999} | {port for each in peers.values() for port in each.ports.values()}
    found = {
        (source, target, port)
        for source, target in itertools.product(peers, peers)
        for port in numbers
        if not {source, target} <= OTHERS.keys() - {"intruder"}
        if net.allows(peers[source], peers[target], port)
    }
    assert found == allowed


def test_names_are_asked_over_udp_too() -> None:
    net, peers = network("dev")
    assert net.allows(peers["edge"], peers["dns"], 53, "UDP")
    assert not net.allows(peers["edge"], peers["nats"], 4222, "UDP")


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_whoever_has_no_policy_is_shut_in(overlay: str) -> None:
    """One policy selects all pods, both ways, and allows nothing."""
    net, _ = network(overlay)
    (deny,) = [each for each in net.policies if each["metadata"]["name"] == "default-deny"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
