"""What deploy/ has for those on call: alert rules, a scrape configuration, a dashboard.

promtool says what it thinks of the rules, and plays each of them a case in which somebody should
look and one in which nobody need. The dashboard's queries are asked of a real Prometheus that
scrapes a real edge and worker.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fairlead.metrics import Metric
from fairlead.testing.program import DEADLINE
from fairlead.vitals import VITALS
from fairlead_edge.metrics import FIGURES as OF_EDGES
from fairlead_worker.metrics import FIGURES as OF_WORKERS
from support.figures import ON, prometheus_names
from support.prometheus import Prometheus, executable, prometheus
from support.system import LIMITED, Edge, System, nats_server, request, system, until

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yaml"
CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
DASHBOARD = ROOT / "deploy/grafana/fairlead.json"
PAGE = ROOT / "docs/alerts.md"

FIGURES: list[Metric[Any]] = [*VITALS, *OF_EDGES, *OF_WORKERS]


def promtool(*argv: str) -> str:
    ended = subprocess.run(
        [executable("promtool"), *argv], capture_output=True, text=True, timeout=DEADLINE
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def alerts() -> dict[str, dict[str, Any]]:
    """The rules, by name."""
    loaded = YAML(typ="safe", pure=True).load(RULES)
    return {rule["alert"]: rule for group in loaded["groups"] for rule in group["rules"]}


def exported() -> set[str]:
    """Every series that a process has, as Prometheus calls it."""
    names: set[str] = set()
    for metric, name in zip(FIGURES, prometheus_names(FIGURES).values(), strict=True):
        histogram = {f"{name}_bucket", f"{name}_count", f"{name}_sum"}
        names |= histogram if metric.kind == "histogram" else {name}
    return names


def asked_for(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return set(re.findall(r"\b(?:fairlead|process)_[a-z_]+(?=[{\[ )/]|$)", expression)) - {
        label for group in re.findall(r"(?:by \(|\{)([^)}]*)", expression)
        for label in re.findall(r"\bfairlead_[a-z_]+", group)
    }  # fmt: skip


# The rules


def test_the_rules_are_right() -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", str(RULES))


def test_the_scrape_configuration_is_right_and_names_the_rules() -> None:
    assert "1 rule files found" in promtool("check", "config", str(CONFIG))


def test_an_alert_is_about_what_there_is() -> None:
    names = exported()
    for name, rule in alerts().items():
        assert asked_for(rule["expr"]) <= names, name


def test_an_alert_says_what_it_means_and_where_more_is_said() -> None:
    """docs/alerts.md has a section for each, and for no other."""
    sections = re.findall(r"^## (\w+)$", PAGE.read_text(), re.M)
    assert sections == list(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"


EDGE, WORKER = '{instance="e1"}', '{instance="w1"}'


def rate(fast: int, slow: int) -> tuple[str, str]:
    """A counter that grows by so much each 15 s for half an hour: when it should alarm, and not."""
    return f"0+{fast}x120", f"0+{slow}x120"


def level(bad: float, good: float) -> tuple[str, str]:
    return f"{bad}x120", f"{good}x120"


def slow(name: str, labels: str) -> dict[str, tuple[str, str]]:
    """A histogram whose values lie between 1 and 2.5 s, or under 0.1 s."""
    return {
        f'{name}_bucket{{{labels},le="0.1"}}': ("0x120", "0+10x120"),
        f'{name}_bucket{{{labels},le="1.0"}}': ("0x120", "0+10x120"),
        f'{name}_bucket{{{labels},le="2.5"}}': ("0+10x120", "0+10x120"),
        f'{name}_bucket{{{labels},le="+Inf"}}': ("0+10x120", "0+10x120"),
    }


CASES: dict[str, dict[str, tuple[str, str]]] = {
    "FairleadDown": {'up{job="fairlead",instance="e1"}': level(0, 1)},
    "FairleadGone": {'up{job="fairlead"}': ("_x120", "1x120")},
    "FairleadNotReady": {
        f"fairlead_ready{EDGE}": level(0, 0), f"fairlead_draining{EDGE}": level(0, 1)
    },
    "FairleadStuck": {f"fairlead_loop_lag_max_seconds{EDGE}": level(6, 0.2)},
    "FairleadLate": {f"fairlead_loop_lag_max_seconds{EDGE}": level(0.5, 0.1)},
    "FairleadFilesShort": {
        f"process_unix_file_descriptor_count{EDGE}": level(900, 100),
        f"fairlead_file_descriptor_limit{EDGE}": level(1024, 1024),
    },
    "FairleadNatsAway": {f"fairlead_nats_connected{EDGE}": level(0, 1)},
    "FairleadNatsUnsteady": {f"fairlead_nats_reconnects_total{EDGE}": rate(1, 0)},
    "FairleadNatsSlow": {f"fairlead_nats_rtt_seconds{EDGE}": level(0.2, 0.001)},
    "FairleadStorageFull": {
        f"fairlead_jetstream_storage_usage_bytes{EDGE}": level(90, 70),
        f"fairlead_jetstream_storage_limit_bytes{EDGE}": level(100, 100),
    },
    "FairleadRefusesClients": {
        'fairlead_edge_handshakes_total{http_response_status_code="503"}': rate(10, 1),
        'fairlead_edge_handshakes_total{http_response_status_code="101"}': rate(90, 99),
    },
    "FairleadSlowFanOut": slow(
        "fairlead_edge_room_fanout_duration_seconds", 'messaging_destination_template="chat"'
    ),
    "FairleadSlowConsumers": {
        'fairlead_edge_slow_closed_total{fairlead_policy="disconnect"}': rate(10, 1)
    },
    "FairleadBuffersFull": {
        f"fairlead_edge_buffer_usage_bytes{EDGE}": level(90, 10),
        f"fairlead_edge_buffer_limit_bytes{EDGE}": level(100, 100),
    },
    "FairleadMessagesLost": {
        'fairlead_edge_gaps_total{fairlead_outcome="lost",messaging_destination_template="chat"}':
            rate(1, 0),
    },
    "FairleadUnrecovered": {
        'fairlead_edge_replays_total{fairlead_outcome="unrecovered"}': rate(5, 1),
        'fairlead_edge_replays_total{fairlead_outcome="recovered"}': rate(5, 9),
    },
    "FairleadNoWorker": {
        'fairlead_edge_workers{namespace="shop"}': level(0, 1),
        'fairlead_edge_workers{namespace="staging"}': level(3, 3),
    },
    "FairleadWorkWaits": {'fairlead_edge_waiting{fairlead_workflow="F/w"}': level(1, 0)},
    "FairleadWorkersFull": {
        'fairlead_worker_in_flight{fairlead_scope="messages"}': level(9, 1),
        'fairlead_worker_limit{fairlead_scope="messages"}': level(10, 10),
    },
    "FairleadQueueWait": slow("fairlead_worker_queue_wait_seconds", 'fairlead_workflow="F/w"'),
    "FairleadExecuteFails": {
        'fairlead_worker_ended_total{fairlead_outcome="failed"}': rate(10, 1),
        'fairlead_worker_ended_total{fairlead_outcome="done"}': rate(90, 99),
    },
    "FairleadWorkersLost": {'fairlead_edge_attempts_total{fairlead_reason="lost"}': rate(1, 0)},
}  # fmt: skip
"""By alert, the series that it looks at: as they are when it should fire, and when all is well."""


def test_installations_do_not_cover_for_each_other() -> None:
    """One Prometheus may scrape several: whatever is added up is added up by namespace."""
    for name, rule in alerts().items():
        for how in re.findall(r"\b(?:sum|max|min|avg|count)\b(.{0,14})", rule["expr"]):
            assert how.startswith(" by (namespace"), name


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    assert CASES.keys() == alerts().keys()
    tests = []
    for name, series in CASES.items():
        for case, fires in enumerate((True, False)):
            firing = f'count by (alertname) (ALERTS{{alertname="{name}",alertstate="firing"}})'
            samples = [{"labels": f'{{alertname="{name}"}}', "value": 1}] if fires else []
            tests.append(
                {
                    "name": f"{name} {'fires' if fires else 'is silent'}",
                    "interval": "15s",
                    "input_series": [
                        {"series": each, "values": values[case]} for each, values in series.items()
                    ],
                    "promql_expr_test": [
                        {"expr": firing, "eval_time": "29m", "exp_samples": samples}
                    ],
                }
            )
    path = tmp_path / "cases.yaml"
    whole = {"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": tests}
    path.write_text(json.dumps(whole))  # JSON is YAML
    assert "SUCCESS" in promtool("test", "rules", str(path))


# The dashboard


def queries() -> Iterator[tuple[str, str]]:
    """(panel, expression) of all."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def test_the_dashboard_shows_every_figure_and_nothing_else() -> None:
    shown = {name for _, expression in queries() for name in asked_for(expression)}
    names = {name for name in exported() if not name.endswith(("_count", "_sum"))}
    names |= {"process_unix_file_descriptor_count"}
    assert shown == names


def test_no_panel_lies_on_another_and_each_has_a_name_of_its_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@asynccontextmanager
async def busy(edge: Edge) -> AsyncIterator[None]:
    """A bit of everything that users do, again and again, until the end of the block."""
    room = "/support/realtime/rooms/blue"

    async def once() -> None:
        async with edge.raw("/support/realtime/echo") as echo:
            await echo.send("hello")
            await echo.recv()
        async with edge.v1(room) as client, edge.v1(room) as other:
            await client.send("to all")
            await client.each("message", "ack")
            await client.cut()
            await other.send("missed")
            await other.until("ack")
        async with edge.v1(f"{room}?cursor={client.cursor}") as back:
            await back.until("message")
        await request(edge.http("/support/stream/value"))
        await request(edge.http("/nothing"))

    async def again() -> None:
        while True:
            await once()
            await asyncio.sleep(0.1)

    task = asyncio.create_task(again())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_prometheus_answers_every_query_of_the_dashboard(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats", LIMITED) as nats, system(nats, tmp_path) as app:
        await _ask(app, tmp_path)


async def _ask(app: System, tmp_path: Path) -> None:
    worker, edge = await app.worker(env=ON), await app.edge(env=ON)
    await edge.serves("/support/stream/value")
    targets = [f"127.0.0.1:{process.admin_port}" for process in (edge, worker)]
    async with prometheus(tmp_path / "prometheus", targets) as asked, busy(edge):
        await until(lambda: _up(asked), "both are scraped")
        assert set(await asked.labels("instance", "fairlead_ready")) == set(targets)
        unanswered = dict.fromkeys(queries())

        async def all_answered() -> bool:
            for panel, expression in list(unanswered):
                if await _answered(asked, expression):
                    del unanswered[panel, expression]
            return not unanswered

        try:
            await until(all_answered, "every query of the dashboard has data")
        except AssertionError as error:
            raise AssertionError(f"{error}; without are {list(unanswered)}") from None


async def _up(asked: Prometheus) -> bool:
    return [each["value"][1] for each in await asked.query('up{job="fairlead"}')] == ["1", "1"]


async def _answered(asked: Prometheus, expression: str) -> bool:
    """Whether there is a number for it."""
    for variable, value in {"$__rate_interval": "5s", "$instance": ".*"}.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    found = await asked.query(expression)
    return any(math.isfinite(float(each["value"][1])) for each in found)
