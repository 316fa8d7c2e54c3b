"""When deploy/k8s starts and stops edges and workers: on figures that exist, with queries that mean what they say."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from fairlead.metrics import Metric
from fairlead.vitals import VITALS
from fairlead_edge.metrics import FIGURES as OF_EDGES
from fairlead_worker.metrics import FIGURES as OF_WORKERS
from support.figures import prometheus_names
from support.manifests import K8S, ROOT, Manifest, named, parse, ports, ran, render
from support.prometheus import executable

FIGURES: list[Metric[Any]] = [*VITALS, *OF_EDGES, *OF_WORKERS]


@functools.cache
def prod() -> list[Manifest]:
    return parse(render(K8S / "overlays/prod"))


def edges() -> dict[str, Any]:
    spec: dict[str, Any] = named(prod(), "HorizontalPodAutoscaler", "edge")["spec"]
    return spec


def workers() -> dict[str, Any]:
    spec: dict[str, Any] = named(prod(), "ScaledObject", "worker")["spec"]
    return spec


def triggers() -> dict[str, dict[str, str]]:
    """The queries of Prometheus, by name."""
    return {each["name"]: each["metadata"] for each in workers()["triggers"] if "name" in each}


def test_each_figure_exists() -> None:
    exported = {
        f"{name}_bucket" if metric.kind == "histogram" else name
        for metric, name in zip(FIGURES, prometheus_names(FIGURES).values(), strict=True)
    }
    queries = " ".join(each["query"] for each in triggers().values())
    asked = set(re.findall(r"\bfairlead_\w+(?=\{)", queries))
    assert asked == {
        "fairlead_worker_queue_wait_seconds_bucket", "fairlead_worker_in_flight", "fairlead_worker_limit"
    }  # fmt: skip
    (connections,) = [
        e["pods"]["metric"]["name"] for e in edges()["metrics"] if e["type"] == "Pods"
    ]
    assert asked | {connections} <= exported
    # prometheus-adapter knows the figure by the rule of the page.
    assert f"'{connections}{{" in (ROOT / "docs/kubernetes.md").read_text()


def test_never_none_and_always_one_to_drain_to() -> None:
    assert edges()["minReplicas"] >= 2
    assert workers()["minReplicaCount"] >= 2


def test_edges_go_slowly_and_come_at_once() -> None:
    down, up = edges()["behavior"]["scaleDown"], edges()["behavior"]["scaleUp"]
    assert down["stabilizationWindowSeconds"] >= 900
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]
    assert up["stabilizationWindowSeconds"] == 0


def test_the_autoscaler_alone_says_how_many() -> None:
    """`replicas` in a manifest would take its word back with each apply."""
    for name, target in (("edge", edges()), ("worker", workers())):
        deployment = named(prod(), "Deployment", name)
        assert "replicas" not in deployment["spec"]
        assert target["scaleTargetRef"]["name"] == name


def test_the_port_that_prometheus_scrapes_is_there() -> None:
    (endpoint,) = named(prod(), "PodMonitor", "fairlead")["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"
    for name in ("edge", "worker"):
        assert ports(named(prod(), "Deployment", name))[endpoint["port"]] == 8001
    # FairleadDown asks for this job.
    (job,) = [
        each["replacement"] for each in endpoint["relabelings"] if each["targetLabel"] == "job"
    ]
    (asked,) = set(re.findall(r'job="(\w+)"', (ROOT / "deploy/prometheus/alerts.yaml").read_text()))
    assert job == asked


def test_queries_look_at_this_installation_alone() -> None:
    (namespace,) = {each["metadata"].get("namespace", "fairlead") for each in prod()}
    for trigger in triggers().values():
        selectors = re.findall(r"\{([^}]*)\}", trigger["query"])
        assert selectors and set(selectors) == {f'namespace="{namespace}"'}


BUSY = 'fairlead_worker_queue_wait_seconds_bucket{namespace="fairlead",le="%s"}'
STREAMS = 'fairlead_worker_%s{namespace="fairlead",fairlead_scope="%s"}'


def asked(tmp_path: Path, name: str, series: dict[str, str]) -> None:
    """Play the series to promtool; `exp` beside them is what the query must answer after 10 min."""
    expected = float(series.pop("exp"))
    case = {
        "interval": "15s",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {
                "expr": triggers()[name]["query"],
                "eval_time": "10m",
                "exp_samples": [{"labels": "{}", "value": expected}],
            }
        ],
    }
    path = tmp_path / "case.yaml"
    path.write_text(json.dumps({"evaluation_interval": "15s", "tests": [case]}))
    done = ran(executable("promtool"), "test", "rules", str(path))
    assert "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_work_that_waits_asks_for_workers(tmp_path: Path) -> None:
    """All of it waits between half a second and a second: 19 of 20 begin within 0.975 s, above the threshold."""
    series = {BUSY % "0.5": "0x60", BUSY % "1.0": "0+10x60", BUSY % "+Inf": "0+10x60"}
    asked(tmp_path, "queue-wait", {**series, "exp": "0.975"})
    assert float(triggers()["queue-wait"]["threshold"]) < 0.975


def test_no_work_is_a_wait_of_nothing(tmp_path: Path) -> None:
    """Series that stand still, as at night; a quantile of nothing would be no number."""
    series = {BUSY % "0.5": "7x60", BUSY % "1.0": "9x60", BUSY % "+Inf": "9x60"}
    asked(tmp_path, "queue-wait", {**series, "exp": "0"})


def test_workers_that_were_never_asked_are_no_error(tmp_path: Path) -> None:
    asked(tmp_path, "queue-wait", {"up": "1x60", "exp": "0"})


def test_what_is_in_hand_is_a_part_of_the_limit(tmp_path: Path) -> None:
    """Of messages a tenth, of streams three quarters: the larger part counts."""
    series = {
        STREAMS % ("in_flight", "messages"): "100x60",
        STREAMS % ("limit", "messages"): "1000x60",
        STREAMS % ("in_flight", "streams"): "7500x60",
        STREAMS % ("limit", "streams"): "10000x60",
    }
    asked(tmp_path, "in-flight", {**series, "exp": "0.75"})
    assert 0 < float(triggers()["in-flight"]["threshold"]) < 0.8  # FairleadWorkersFull
