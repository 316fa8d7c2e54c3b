"""What the collector's configuration promises; and that it speaks of spans as Fairlead makes them.

No collector is at hand where the tests run, so the file is read. It was run once, as it is, with a
collector of these components: the versions stand in docs/tracing.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fairlead_edge.spans import DELIVERED_WITHIN

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "otel-collector.yaml"
TEXT = FILE.read_text()

KINDS = ("receivers", "processors", "exporters")

EXPORTED_WITHIN = 1.0
"""Seconds that a process waits to export (telemetry.py), and that the tail sampler has to spare for it."""


def config() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(TEXT)
    return loaded


def pipeline() -> dict[str, list[str]]:
    (found,) = config()["service"]["pipelines"].values()
    return dict(found)


def policies() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in config()["processors"]["tail_sampling"]["policies"]}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_used_is_defined_and_what_is_defined_is_used(kind: str) -> None:
    assert set(pipeline()[kind]) == set(config()[kind])


def test_its_extensions_are_defined_and_used() -> None:
    assert set(config()["service"]["extensions"]) == set(config()["extensions"])


def test_memory_is_looked_at_first_then_whole_traces_are_judged_and_then_batched() -> None:
    assert pipeline()["processors"] == ["memory_limiter", "tail_sampling", "batch"]
    assert list(config()["service"]["pipelines"]) == ["traces"]


def test_it_takes_what_our_processes_send() -> None:
    assert config()["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")


def test_a_trace_is_waited_for_until_its_slowest_span_can_have_come() -> None:
    wait = float(config()["processors"]["tail_sampling"]["decision_wait"].removesuffix("s"))
    assert wait > DELIVERED_WITHIN + EXPORTED_WITHIN


def test_so_many_traces_may_wait_as_come_in_that_time() -> None:
    sampling = config()["processors"]["tail_sampling"]
    wait = float(sampling["decision_wait"].removesuffix("s"))
    assert sampling["num_traces"] >= wait * sampling["expected_new_traces_per_sec"]


def test_what_may_come_between_two_looks_is_a_part_of_the_limit() -> None:
    limiter = config()["processors"]["memory_limiter"]
    assert limiter["spike_limit_mib"] == limiter["limit_mib"] // 5


def test_errors_and_slow_messages_are_kept_and_a_part_of_the_rest() -> None:
    found = policies()
    assert found["errors"]["status_code"]["status_codes"] == ["ERROR"]
    slow = {each["type"]: each for each in found["slow"]["and"]["and_sub_policy"]}
    assert slow["latency"]["latency"]["threshold_ms"] == 1000
    assert slow["string_attribute"]["string_attribute"]["values"] == ["message"]
    assert found["rest"]["type"] == "probabilistic"
    assert set(found) == {"errors", "retried", "dropped", "slow", "rest"}


def test_a_policy_has_the_settings_of_its_type() -> None:
    def check(policy: dict[str, Any]) -> None:
        assert set(policy) == {"name", "type", policy["type"]}
        for part in policy.get("and", {}).get("and_sub_policy", ()):
            check(part)

    for policy in policies().values():
        check(policy)


def test_the_attributes_that_it_looks_at_are_ours() -> None:
    """As docs/tracing.md lists them."""
    known = set(re.findall(r"`(fairlead\.[a-z.]+)`", (ROOT / "docs" / "tracing.md").read_text()))
    asked = set(re.findall(r"key: (fairlead\.[a-z.]+)", TEXT))
    assert {"fairlead.attempt", "fairlead.dropped", "fairlead.kind"} == asked <= known


def test_each_variable_is_explained_and_has_a_default() -> None:
    used = re.findall(r"\$\{env:(\w+)(:-[^}]+)?\}", TEXT)
    head = TEXT.partition("receivers:")[0]
    assert {name for name, _ in used} == {"TRACES_ENDPOINT", "KEEP_PERCENT"}
    for name, default in used:
        assert default
        assert f"#   {name} " in head


def test_beside_each_number_stands_why() -> None:
    """A comment directly above the number, or above the first of those that belong together."""
    lines = TEXT.splitlines()
    commented = False
    for number, line in enumerate(lines):
        if line.strip().startswith("#"):
            commented = True
        elif not line.strip():
            commented = False
        elif re.search(r": .*\d", line):
            assert commented, f"line {number + 1}: {line.strip()}"
