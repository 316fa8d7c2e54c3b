"""shared/fairlead/protocol/cursor.py is tested by tests/shared/protocol/test_cursor.py, and so on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PACKAGES = {
    "shared": ROOT / "shared/fairlead",
    "edge": ROOT / "edge/fairlead_edge",
    "workers": ROOT / "workers/fairlead_worker",
    "console": ROOT / "console/fairlead_console",
}

NO_TEST_OF_THEIR_OWN = {
    # The way of a message and of a room: only real sockets, a real NATS and real processes
    # can show that nothing is lost. The rules themselves are in modules that have tests.
    "shared/bus.py": "the NATS client: tests/system, all of it",
    "shared/interest.py": "how a message comes in: tests/shared/test_bus_contract.py",
    "shared/storing.py": "what a real stream acknowledges: tests/shared/test_bus_contract.py",
    "shared/roomlog.py": "reads the streams of a real NATS: tests/system/test_rooms.py",
    "shared/roomstreams.py": "the rooms' streams on a real NATS: tests/system/test_builds.py",
    "shared/buckets.py": "manifests and leases on a real NATS: tests/system/test_builds.py",
    "edge/broker.py": "what a real nats-server tells: tests/system/test_broker_spans.py",
    "shared/reporting.py": "what a report has of its process: tests/system/test_console_page.py",
    "edge/requested.py": "what is refused: tests/system/test_outcomes.py, test_hostile.py, test_runs.py",
    "edge/http.py": "what a client may do to it: tests/system/test_hostile.py, test_uvicorn_contract.py",
    "edge/report.py": "an edge's report: tests/system/test_console_page.py",
    "workers/report.py": "a worker's report: tests/system/test_console_page.py",
    "console/top.py": "the shell of board.py: tests/system/test_top.py",
    "console/live.py": "the shell of fleet.py: tests/system/test_console_page.py",
    "console/overview.py": "the page and its API: tests/system/test_console_page.py",
    "console/tryit.py": "a socket to an edge: tests/system/test_console_page.py",
    "edge/opened.py": "the state of hub.py: tests/edge/test_rooms_model.py",
    "edge/questions.py": "tests/system/test_rooms.py, and tests/edge/test_rooms_model.py",
    "edge/runs.py": "tests/system/test_runs.py",
    "edge/copies.py": "tests/system/test_runs.py: runs without resume",
    "workers/logged.py": "tests/system/test_runs.py",
    "edge/relay.py": "the shell of protocol/delivery.py: tests/system/test_failures.py",
    "edge/gathering.py": "tests/system/test_resume.py: several rooms on one stream",
    "edge/replay.py": "the shell of ring.py: tests/system/test_resume.py",
    "edge/fleet.py": "the shell of routes.py: tests/system/test_builds.py",
    "edge/host.py": "what those share: tests/system, all of it",
    "workers/hands.py": "tests/system/test_failures.py",
    "workers/runner.py": "tests/system/test_declaring.py",
    "workers/calling.py": "execute in all its forms: tests/system/test_declaring.py",
    "workers/peers.py": "tests/system/test_policies.py: direct, over two edges",
    "workers/recording.py": "tests/system/test_tracing.py and test_connection_spans.py",
    "workers/tools.py": "what those share: tests/system, all of it",
    "workers/topics.py": "the shell of protocol/lease.py: tests/system/test_topic_runs.py",
    "workers/topicrun.py": "the shell of protocol/lease.py: tests/system/test_topic_runs.py",
    "workers/leases.py": "the leases on a real NATS: tests/system/test_topic_runs.py",
    "workers/watchdog.py": "a stuck loop needs a process: tests/system/test_failures.py",
    # The way of a request: tested as clients see it.
    "edge/joining.py": "tests/system/test_rooms.py and test_resume.py",
    "edge/flight.py": "what relay.py moves: tests/system/test_failures.py",
    "edge/app.py": "tests/system/test_outcomes.py",
    "edge/attach.py": "tests/system/test_runs.py",
    "edge/connection.py": "the shell of session.py: tests/system/test_protocols.py",
    "edge/scopes.py": "tests/system/test_connections.py and test_failures.py",
    "edge/shared_runs.py": "tests/system/test_topic_runs.py; its times: protocol/lease.py",
    "edge/admission.py": "tests/system/test_policies.py and test_inputs.py",
    "edge/peers.py": "tests/system/test_policies.py: direct, over two edges",
    "edge/mount.py": "tests/system/test_mount.py",
    "edge/ws.py": "tests/system/test_protocols.py",
    "edge/sse.py": "tests/system/test_protocols.py and test_backpressure.py",
    # Processes: their start, their readiness, their end.
    "edge/serve.py": "tests/system",
    "shared/admin.py": "the admin port, as its users see it: tests/system",
    "shared/readiness.py": "what the admin port says: tests/system",
    "shared/metricreaders.py": "both ways out: tests/shared/test_metrics.py",
    "shared/vitals.py": "tests/system/test_metrics.py: what a real process says of itself",
    "edge/metrics.py": "tests/system/test_metrics.py: every figure, from a real edge",
    "workers/metrics.py": "tests/system/test_metrics.py: every figure, from a real worker",
    "shared/outside.py": "the way to appbus.py: tests/system/test_publishers.py",
    # The test kit; every test under tests/system stands on it.
    "shared/testing/program.py": "tests/system and tests/shared/dev",
    "shared/testing/waiting.py": "tests/system",
    "shared/testing/system.py": "tests/system; as its users see it: tests/shared/testing/test_plugin.py",
    # Commands.
    "shared/doctor.py": "what it sees of real servers: tests/system/test_doctor.py",
    "shared/natsinfo.py": "what real servers tell: tests/system/test_doctor.py",
    "shared/__main__.py": "two lines that call cli.py",
    "shared/commands.py": "tests/shared/test_cli.py and tests/system",
    "edge/cli.py": "the command that starts serve.py: tests/shared/test_cli.py",
    "workers/cli.py": "the command that starts serve.py: tests/shared/test_cli.py",
    "console/rows.py": "tests/console/test_waterfall.py, where they are told whole",
    # The console: a process whose ports are what it is for.
    "console/app.py": "tests/system/test_console.py",
    "console/serve.py": "tests/system/test_console.py",
    "console/collector.py": "tests/system/test_traces.py: as OTLP programs see it",
    "console/cli.py": "the command that starts serve.py: tests/system/test_console.py",
}
"""Module → where it is tested instead, or why it is not."""


def _modules() -> set[str]:
    return {
        f"{top}/{path.relative_to(package).as_posix()}"
        for top, package in PACKAGES.items()
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }


def _tested(module: str) -> bool:
    path = ROOT / "tests" / module
    return path.with_name(f"test_{path.name}").is_file()


def test_every_module_has_its_test_module() -> None:
    """A new module without one fails here, and so does an exception that is none any more."""
    without = {module for module in _modules() if not _tested(module)}
    assert without == set(NO_TEST_OF_THEIR_OWN)


@pytest.mark.parametrize("top", PACKAGES)
def test_every_package_is_found(top: str) -> None:
    """So that a folder that was moved does not leave the rule with nothing to check."""
    assert sum(module.startswith(f"{top}/") for module in _modules()) >= 5


@pytest.mark.parametrize(
    "path",
    [path for package in PACKAGES.values() for path in package.rglob("__init__.py")],
    ids=str,
)
def test_a_package_holds_no_code_of_its_own(path: Path) -> None:
    """Docstrings, imports and `__all__`: so they need no test but test_exports."""
    for statement in ast.parse(path.read_text()).body:
        match statement:
            case ast.Expr(ast.Constant(str())) | ast.Import() | ast.ImportFrom():
                pass
            case ast.Assign([ast.Name("__all__")]):
                pass
            case _:
                pytest.fail(f"{path}:{statement.lineno} is code")
