from __future__ import annotations

import pytest

from fairlead.dev import tracing

ENDPOINT = "http://127.0.0.1:8001/v1/traces"


def test_spans_go_to_the_console_and_soon() -> None:
    assert tracing.to_console({}, 8001) == {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ENDPOINT,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


@pytest.mark.parametrize("name", tracing.ELSEWHERE)
def test_who_has_another_collector_keeps_it(name: str) -> None:
    assert tracing.to_console({name: "x"}, 8001) == {}


def test_an_empty_variable_is_not_set() -> None:
    assert "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in tracing.to_console(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, 8001
    )


def test_a_delay_of_the_users_own_is_kept() -> None:
    made = tracing.to_console({"OTEL_BSP_SCHEDULE_DELAY": "5000"}, 8001)
    assert made["OTEL_BSP_SCHEDULE_DELAY"] == "5000"


def test_no_proxy_is_asked_for_what_is_here() -> None:
    made = tracing.to_console({"http_proxy": "http://proxy:3128", "NO_PROXY": "a.test"}, 8001)
    assert made["no_proxy"] == made["NO_PROXY"] == "a.test,127.0.0.1"
    made = tracing.to_console({"HTTP_PROXY": "http://proxy:3128"}, 8001)
    assert made["no_proxy"] == made["NO_PROXY"] == "127.0.0.1"
