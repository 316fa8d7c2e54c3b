"""In dev every message is traced, and the console has the spans; unless they are to go elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.dev.ports import LOOPBACK

ELSEWHERE = (
    "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER",
)  # fmt: skip
"""With one of them the user's environment has its own say."""

PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")

SOON = 200
"""Milliseconds until a span is exported; whoever looks at a message has just sent it."""


def to_console(environ: Mapping[str, str], port: int) -> dict[str, str]:
    """The variables that send the spans of children to the console; none if they go elsewhere."""
    if any(environ.get(name) for name in ELSEWHERE):
        return {}
    made = {
        # For traces alone: metrics and logs of the user's own have no taker there.
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{LOOPBACK}:{port}/v1/traces",
        "OTEL_BSP_SCHEDULE_DELAY": environ.get("OTEL_BSP_SCHEDULE_DELAY") or str(SOON),
    }
    if any(environ.get(name) for name in PROXIES):
        known = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        for name in ("no_proxy", "NO_PROXY"):
            made[name] = ",".join(host for host in (known, LOOPBACK) if host)
    return made
