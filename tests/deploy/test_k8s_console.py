"""What deploy/k8s promises of the console alone; what it has in common with edges and workers is in test_k8s.py."""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path

import pytest

from fairlead import telemetry
from fairlead_console.settings import ConsoleSettings
from support.manifests import (
    K8S,
    ROOT,
    Manifest,
    combined,
    container,
    environment,
    kinds,
    manifests,
    named,
    parse,
    pod,
    ports,
    render,
    workloads,
)

PAGE = (ROOT / "docs/kubernetes.md").read_text()

overlays = pytest.mark.parametrize("overlay", ["dev", "prod"])


@functools.cache
def with_components(*components: str) -> list[Manifest]:
    """The base with these, in this order."""
    with tempfile.TemporaryDirectory() as folder:
        return parse(render(combined(Path(folder, "made"), components)))


def console(every: list[Manifest]) -> Manifest:
    return named(every, "Deployment", "console")


def mebibytes(size: str) -> int:
    assert size.endswith("Mi")
    return int(size[:-2])


def test_whoever_leaves_it_out_has_nothing_of_it() -> None:
    every = with_components(*sorted({each.name for each in (K8S / "components").iterdir()} - {"console"}))  # fmt: skip
    assert not [each for each in every if "console" in each["metadata"]["name"]]


@overlays
def test_its_service_is_for_the_inside_alone(overlay: str) -> None:
    service = named(manifests(overlay), "Service", "console")["spec"]
    assert service["type"] == "ClusterIP"
    (port,) = service["ports"]
    assert port["port"] == 80
    assert ports(console(manifests(overlay)))[port["targetPort"]] == 8002
    spec = pod(console(manifests(overlay)))
    assert not spec.get("hostNetwork")
    assert all("hostPort" not in port for port in container(console(manifests(overlay)))["ports"])


def test_neither_ingress_nor_route_leads_to_it() -> None:
    """With all that lets clients in at once: each backend is the edges' Service, and nothing else is let out."""
    every = with_components("console", "gateway", "ingress")
    (ingress,) = kinds(every, "Ingress")
    (route,) = kinds(every, "HTTPRoute")
    assert "defaultBackend" not in ingress["spec"]
    backends = [
        path["backend"]["service"]["name"]
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    backends += [each["name"] for rule in route["spec"]["rules"] for each in rule["backendRefs"]]
    assert set(backends) == {"edge"}
    assert {each["spec"].get("type", "ClusterIP") for each in kinds(every, "Service")} == {
        "ClusterIP"
    }


@overlays
def test_it_is_read_only_unless_its_secret_is_there(overlay: str) -> None:
    """No Secret, no variable, no token; and publishing takes the token, too."""
    only = container(console(manifests(overlay)))
    (token,) = [each for each in only["env"] if each["name"] == "FAIRLEAD_TOKEN"]
    reference = token["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "console-token", "key": "token", "optional": True}
    given = environment(manifests(overlay), console(manifests(overlay)))
    assert not given.keys() & {"FAIRLEAD_TOKEN", "FAIRLEAD_OPEN_PUBLISH"}
    assert ConsoleSettings.model_fields["token"].default == ""
    assert ConsoleSettings.model_fields["open_publish"].default is False
    making = f"create secret generic {reference['name']} --from-literal={reference['key']}="
    assert making in PAGE


@overlays
def test_there_is_one_and_it_blocks_no_maintenance(overlay: str) -> None:
    assert console(manifests(overlay))["spec"]["replicas"] == 1
    budget = named(manifests(overlay), "PodDisruptionBudget", "console")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@overlays
def test_its_traces_fit_into_its_memory(overlay: str) -> None:
    """The settings' bound, what Python takes (65 MiB, measured), and as much again in the limit."""
    given = environment(manifests(overlay), console(manifests(overlay)))
    assert "FAIRLEAD_TRACE_MEMORY" not in given  # else its word would count here
    traces = ConsoleSettings.model_fields["trace_memory"].default // 1024**2
    resources = container(console(manifests(overlay)))["resources"]
    assert mebibytes(resources["requests"]["memory"]) >= 65 + traces
    assert mebibytes(resources["limits"]["memory"]) >= 2 * (65 + traces)


@overlays
def test_it_has_nothing_to_drain(overlay: str) -> None:
    """So nothing waits for it: neither preStop nor the half minute that Kubernetes gives."""
    assert "lifecycle" not in container(console(manifests(overlay)))
    assert 5 <= pod(console(manifests(overlay)))["terminationGracePeriodSeconds"] < 30


@pytest.mark.parametrize(
    "components", [("console", "tracing"), ("tracing", "console")], ids=["before", "after"]
)
def test_it_looks_for_no_collector(components: tuple[str, str]) -> None:
    """The network does not let it: where others are told to trace, it is told not to."""
    every = with_components(*components)
    of_edges = environment(every, named(every, "Deployment", "edge"))
    assert of_edges["OTEL_TRACES_EXPORTER"] == "otlp"
    given = environment(every, console(every))
    assert given["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert telemetry.setup("console", "0a1b2c3d", given) is None


def test_tls_gives_it_a_key_of_its_own() -> None:
    """Where both are; each alone is whole as well."""
    assert secrets(with_components("console")) == {}
    assert secrets(with_components("console", "tls")) == {"nkey": "console-nkey", "nats-ca": "nats-ca"}  # fmt: skip
    alone = with_components("tls")
    assert "console" not in {each["metadata"]["name"] for each in workloads(alone)}


def secrets(every: list[Manifest]) -> dict[str, str]:
    """Volume → Secret, of those of the console that are mounted."""
    mounted = {each["name"] for each in container(console(every))["volumeMounts"]}
    return {
        each["name"]: each["secret"]["secretName"]
        for each in pod(console(every))["volumes"]
        if "secret" in each and each["name"] in mounted
    }


# The page


def test_the_page_names_each_component() -> None:
    for each in (K8S / "components").iterdir():
        assert f"  components/{each.name}/" in PAGE or f" components/{each.name}/ " in PAGE


def test_what_is_forwarded_is_there() -> None:
    """Each port-forward of the page and of the overlays' heads names a workload and a port of it."""
    heads = "".join(path.read_text() for path in K8S.rglob("*.yaml"))
    commands = re.findall(r"port-forward (\w+)/(\w+) (?:\d+:)?(\d+)\b", PAGE + heads)
    assert ("service", "console", "80") in commands
    for kind, name, number in commands:
        found = named(manifests("prod"), kind.capitalize(), name)
        known = (
            {port["port"] for port in found["spec"]["ports"]}
            if kind == "service"
            else set(ports(found).values())
        )
        assert int(number) in known, (kind, name, number)
