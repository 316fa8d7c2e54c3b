"""What the container files promise.

No engine is at hand where the tests run, so the files are read: by a schema, a linter and
nats-server itself, and then held against each other and against the settings they name.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from fairlead.protocol import durations
from fairlead.protocol.problems import HEADROOM, MAX_MESSAGE
from fairlead.settings import Settings, variable
from fairlead_edge.settings import EdgeSettings
from fairlead_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
NATS_CONF = ROOT / "deploy" / "nats.conf"
SETTINGS: dict[str, type[Settings]] = {"edge": EdgeSettings, "worker": WorkerSettings}
DEADLINE = 60.0  # seconds for any tool below; each takes about one

both = pytest.mark.parametrize("role", ["edge", "worker"])

Instruction = tuple[str, str]


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(COMPOSE)
    return loaded


def dockerfile(role: str) -> Path:
    return ROOT / "deploy" / f"{role}.Dockerfile"


def instructions(role: str) -> list[Instruction]:
    """Each instruction with its arguments, continued lines joined, comments left out."""
    lines = [line for line in dockerfile(role).read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line)
    ]


def stages(role: str) -> tuple[list[Instruction], list[Instruction]]:
    """What only builds, and what the image is made of."""
    found = instructions(role)
    last = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    return found[:last], found[last:]


def only(role: str, word: str) -> str:
    """The arguments of the one such instruction in the image's own stage."""
    (rest,) = [rest for name, rest in stages(role)[1] if name == word]
    return rest


def image_environment(role: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in shlex.split(only(role, "ENV")))
    return {name: value for name, _, value in pairs}


def environment(role: str) -> dict[str, str]:
    """What the process sees: the image's variables, and compose's over them."""
    over: dict[str, str] = compose()["services"][role]["environment"]
    return image_environment(role) | over


def copied(role: str) -> set[str]:
    """What the build takes from the repository."""
    sources: set[str] = set()
    for word, rest in instructions(role):
        if word == "COPY" and not rest.startswith("--from="):
            sources.update(rest.split()[:-1])
    return sources


def nats_setting(name: str) -> int:
    (figure,) = re.findall(rf"^{name}: (\d+)$", NATS_CONF.read_text(), re.MULTILINE)
    return int(figure)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def beside_python(tool: str) -> str:
    """The tool that the dev group installed, not one that happens to be on the PATH."""
    return str(Path(sys.executable).with_name(tool))


def mounted(role: str) -> dict[str, str]:
    """Path in the container → what of the repository compose mounts there."""
    mounts = [mount.split(":") for mount in compose()["services"][role].get("volumes", ())]
    return {target: str(ROOT / source) for source, target, _ in mounts}


@pytest.fixture
def settings(role: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that the process has in its container."""
    for name in [name for name in os.environ if name.startswith("FAIRLEAD_")]:
        monkeypatch.delenv(name)
    for name, value in environment(role).items():
        if name.startswith("FAIRLEAD_"):
            monkeypatch.setenv(name, mounted(role).get(value, value))
    return SETTINGS[role]().model_dump()


class _Admin(BaseHTTPRequestHandler):
    """An admin port: /livez answers as told, and nothing else exists."""

    status: int

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/livez" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def admin_port(status: int) -> Iterator[int]:
    handler = type("Admin", (_Admin,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(DEADLINE)


# The tools' own judgement


def test_the_compose_file_follows_the_compose_specification() -> None:
    """docker-compose.yml is valid against the schema of the Compose specification."""
    run(
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(COMPOSE),
    )


@both
def test_hadolint_finds_nothing(role: str) -> None:
    """Both Dockerfiles are clean by hadolint's rules, none switched off."""
    assert "hadolint ignore" not in dockerfile(role).read_text()
    run(beside_python("hadolint"), "--no-color", str(dockerfile(role)))


def test_nats_server_accepts_its_configuration(tmp_path: Path) -> None:
    """deploy/nats.conf is valid to the real server: no unknown word, no wrong unit."""
    conf = tmp_path / "nats.conf"
    text = NATS_CONF.read_text()
    assert text.count('store_dir: "/data"') == 1
    conf.write_text(text.replace('"/data"', json.dumps(str(tmp_path / "store"))))
    run(beside_python("nats-server"), "-t", "-c", str(conf))


# NATS


def test_nats_takes_the_largest_message() -> None:
    """max_payload leaves 64 KiB beside the largest message, and max_pending holds several."""
    assert nats_setting("max_payload") >= MAX_MESSAGE + HEADROOM
    assert nats_setting("max_pending") >= 16 * nats_setting("max_payload")


def test_jetstream_stores_on_the_volume() -> None:
    """JetStream is on, and its store and its configuration are what compose mounts."""
    (store,) = re.findall(
        r'^jetstream \{.*?^  store_dir: "([^"]+)"$', NATS_CONF.read_text(), re.M | re.S
    )
    nats = compose()["services"]["nats"]
    mounts = dict(mount.split(":")[:2] for mount in nats["volumes"])
    assert mounts["nats-data"] == store
    assert "nats-data" in compose()["volumes"]
    assert nats["command"] == ["nats-server", "--config", mounts["./deploy/nats.conf"]]


def test_the_health_check_of_nats_asks_its_monitoring_port() -> None:
    """NATS is healthy when JetStream is, as its monitoring port says."""
    url = urlsplit(compose()["services"]["nats"]["healthcheck"]["test"][-1])
    assert (url.port, url.path) == (nats_setting("http_port"), "/healthz")
    assert url.query == "js-enabled-only=true"


# The images


@both
def test_compose_builds_the_dockerfile_of_the_role(role: str) -> None:
    """compose builds each role from its Dockerfile, with the repository's root as context."""
    build = compose()["services"][role]["build"]
    assert ROOT / build["context"] / build["dockerfile"] == dockerfile(role)
    assert dockerfile(role).is_file()


@both
def test_what_a_build_copies_is_there_and_not_ignored(role: str) -> None:
    """Each path that a Dockerfile copies exists, and .dockerignore lets it through."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    for source in copied(role):
        assert (ROOT / source).exists(), source
        assert f"!{source.split('/')[0]}" in rules, source


def test_a_build_sees_only_what_it_copies() -> None:
    """.dockerignore shuts everything out and lets in nothing that no Dockerfile copies."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    wanted = {source.split("/")[0] for role in SETTINGS for source in copied(role)}
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == wanted


@both
def test_the_base_image_is_an_argument(role: str) -> None:
    """Both stages stand on PYTHON_IMAGE, so that a mirror or another Debian can take its place."""
    found = instructions(role)
    assert found[0] == ("ARG", "PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm")
    bases = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert bases == ["${PYTHON_IMAGE}"] * 2


@both
def test_nothing_that_builds_is_left(role: str) -> None:
    """The image takes one venv from the build, without pip, and installs nothing itself."""
    build, image = stages(role)
    (install,) = [rest for word, rest in build if word == "RUN"]
    assert f'pip install --no-cache-dir ".[{role}]"' in install
    assert install.endswith("pip uninstall --yes setuptools pip")
    taken = [rest for word, rest in image if word == "COPY" and rest.startswith("--from=")]
    assert taken == ["--from=build /opt/fairlead /opt/fairlead"]
    assert not re.search(r"\b(pip|apt|apt-get)\b", only(role, "RUN"))


@both
def test_the_process_is_not_root(role: str) -> None:
    """The image runs as uid 10001, in figures, and becomes it after the last thing root must do."""
    assert only(role, "USER") == "10001:10001"
    words = [word for word, _ in stages(role)[1]]
    assert "RUN" not in words[words.index("USER") :]


@both
def test_sigterm_reaches_the_process(role: str) -> None:
    """The entry point is fairlead itself, without a shell, and a stop is SIGTERM."""
    assert json.loads(only(role, "ENTRYPOINT")) == ["fairlead", role]
    assert only(role, "STOPSIGNAL") == "SIGTERM"


@both
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_livez(role: str, healthy: bool, admin_port: int) -> None:
    """HEALTHCHECK succeeds on a 200 of /livez on the admin port, past any proxy, and fails else."""
    command = json.loads(only(role, "HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python3"
    done = subprocess.run(
        [sys.executable, *command[1:]],
        env={"FAIRLEAD_ADMIN_PORT": str(admin_port), "http_proxy": "http://127.0.0.1:1"},
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode == 0) is healthy, done.stderr


def test_the_worker_carries_the_chat_example() -> None:
    """The worker's default target is the chat example, where the image put it."""
    target = image_environment("worker")["FAIRLEAD_TARGET"]
    assert ("COPY", f"examples/chat/app.py {target}") in stages("worker")[1]


def test_the_edge_serves_the_page_of_the_chat_example() -> None:
    """Compose mounts the page of the worker's project, read-only, where the edge looks for it."""
    assert compose()["services"]["edge"]["volumes"] == ["./examples/chat/page:/srv/page:ro"]
    page = mounted("edge")[environment("edge")["FAIRLEAD_PAGES"]]
    assert Path(page, "index.html").is_file()


# Variables and ports


@both
def test_each_variable_is_a_setting(role: str) -> None:
    """Each FAIRLEAD_ variable that image or compose sets is a field of the role's settings."""
    used = {name for name in environment(role) if name.startswith("FAIRLEAD_")}
    assert used
    assert used <= {variable(field) for field in SETTINGS[role].model_fields}


@both
def test_the_container_listens_where_it_says(role: str, settings: dict[str, Any]) -> None:
    """Process and EXPOSE agree on the ports, and each is open to other containers."""
    listening = {name: settings[name] for name in ("port", "admin_port") if name in settings}
    assert {str(port) for port in listening.values()} == set(only(role, "EXPOSE").split())
    assert {settings[name] for name in ("host", "admin_host") if name in settings} == {"0.0.0.0"}


@pytest.mark.parametrize("role", ["edge"])
def test_only_the_public_port_is_published(settings: dict[str, Any]) -> None:
    """Clients reach the edge's public port; admin port, worker and NATS are not published at all."""
    services = compose()["services"]
    assert services["edge"]["ports"] == [f"{settings['port']}:{settings['port']}"]
    assert [name for name, service in services.items() if "ports" in service] == ["edge", "jaeger"]


def test_the_trace_page_is_for_this_machine() -> None:
    """Jaeger's page, which has no password, is published on loopback only."""
    assert compose()["services"]["jaeger"]["ports"] == ["127.0.0.1:16686:16686"]


@both
def test_nats_is_found_by_its_service_name(role: str) -> None:
    """FAIRLEAD_NATS is the nats service, on the port of its configuration."""
    assert environment(role)["FAIRLEAD_NATS"] == f"nats://nats:{nats_setting('port')}"


@both
def test_traces_go_to_jaeger_under_the_name_of_the_role(role: str) -> None:
    """Edge and worker export over OTLP/HTTP to Jaeger, each under its own name."""
    found = {k: v for k, v in environment(role).items() if k.startswith("OTEL_")}
    assert found == {
        "OTEL_SERVICE_NAME": f"fairlead-{role}",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318",
    }


# Running and ending


@both
def test_a_drain_is_not_cut_short(role: str, settings: dict[str, Any]) -> None:
    """SIGKILL comes after the drain is over, with time to say goodbye to NATS and send the last spans."""
    grace = durations.seconds(compose()["services"][role]["stop_grace_period"])
    assert grace >= settings["drain_grace"] + 5


@both
def test_nats_and_jaeger_outlive_the_drain(role: str) -> None:
    """What a drain still needs is stopped after it."""
    services = compose()["services"]
    assert services[role]["depends_on"] == ["nats", "jaeger"]
    assert set(services) == {"nats", "edge", "worker", "jaeger"}


@pytest.mark.parametrize("service", ["nats", "edge", "worker", "jaeger"])
def test_each_container_is_confined(service: str) -> None:
    """Each container has a read-only root with a bounded /tmp, no capability, no way to gain one."""
    found = compose()["services"][service]
    assert found["read_only"] is True
    assert found["tmpfs"] == ["/tmp:size=16m,mode=1777"]
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("service", ["nats", "jaeger"])
def test_a_foreign_image_is_pinned(service: str) -> None:
    """An image that is not ours has a version in its tag."""
    assert re.search(r":\d+\.\d+[\w.-]*$", compose()["services"][service]["image"])
