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
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from fairlead.protocol import durations
from fairlead.protocol.problems import HEADROOM, MAX_MESSAGE
from fairlead.settings import Settings, variable
from fairlead_console.settings import ConsoleSettings
from fairlead_edge.settings import EdgeSettings
from fairlead_edge.sse import PING_EVERY
from fairlead_edge.ws import PING_EVERY as WEBSOCKET_PING
from fairlead_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
NATS_CONF = ROOT / "deploy" / "nats.conf"
HAPROXY = ROOT / "deploy" / "haproxy.cfg"
SETTINGS: dict[str, type[Settings]] = {
    "edge": EdgeSettings, "worker": WorkerSettings, "console": ConsoleSettings,
}  # fmt: skip
LOCKS = {"edge": "process", "worker": "process", "console": "console"}
SERVICES = {
    "edge": "edge", "worker": "worker", "console": "console",
    "edge-alone": "edge", "worker-alone": "worker",
}  # fmt: skip
"""Those of ours, with what each is."""

FOREIGN = (
    "nats-1", "nats-2", "nats-3", "nats", "balancer", "otel-collector", "jaeger", "prometheus", "grafana",
)  # fmt: skip
ADMIN_PORT = {
    "edge": "FAIRLEAD_ADMIN_PORT", "worker": "FAIRLEAD_ADMIN_PORT", "console": "FAIRLEAD_PORT",
}  # fmt: skip
DEADLINE = 60.0  # seconds for any tool below; each takes about one

each_image = pytest.mark.parametrize("role", list(SETTINGS))
each_of_ours = pytest.mark.parametrize("service", list(SERVICES))
each_process = pytest.mark.parametrize(
    "service", [name for name, role in SERVICES.items() if role != "console"]
)

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


def environment(service: str) -> dict[str, str]:
    """What the process sees: the image's variables, and compose's over them."""
    over: dict[str, str] = compose()["services"][service]["environment"]
    return image_environment(SERVICES[service]) | over


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


def mounted(service: str) -> dict[str, str]:
    """Path in the container → what of the repository compose mounts there."""
    mounts = [mount.split(":") for mount in compose()["services"][service].get("volumes", ())]
    return {mount[1]: str(ROOT / mount[0]) for mount in mounts if mount[0].startswith("./")}


@pytest.fixture
def settings(service: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that the process has in its container."""
    for name in [name for name in os.environ if name.startswith("FAIRLEAD_")]:
        monkeypatch.delenv(name)
    for name, value in environment(service).items():
        if name.startswith("FAIRLEAD_") and not value.startswith("${"):
            monkeypatch.setenv(name, mounted(service).get(value, value))
    return SETTINGS[SERVICES[service]]().model_dump()


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


@each_image
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


@pytest.mark.parametrize("service", ["nats", "nats-1", "nats-2", "nats-3"])
def test_jetstream_stores_on_the_volume(service: str) -> None:
    """JetStream's store is a volume of its own, and the configuration the one of the repository."""
    nats = compose()["services"][service]
    volumes = dict(mount.split(":")[:2] for mount in nats["volumes"])
    conf = "./deploy/nats.conf" if service == "nats" else "./deploy/nats-cluster.conf"
    (store,) = re.findall(
        r'^jetstream \{.*?^  store_dir: "([^"]+)"$', (ROOT / conf).read_text(), re.M | re.S
    )
    assert volumes[service] == store and service in compose()["volumes"]
    assert nats["command"] == ["nats-server", "--config", volumes[conf]]


def test_each_server_of_the_cluster_has_the_name_that_the_others_know() -> None:
    text = (ROOT / "deploy/nats-cluster.conf").read_text()
    routes = re.findall(r"nats://([\w-]+):6222", text)
    services = compose()["services"]
    assert [services[name]["environment"]["SERVER_NAME"] for name in routes] == routes
    assert routes == ["nats-1", "nats-2", "nats-3"]


@pytest.mark.parametrize("service", ["nats-1", "nats-2", "nats-3"])
def test_a_server_that_stops_says_so_first(service: str) -> None:
    """SIGUSR2 is lame duck: it takes the two times of the configuration, and SIGKILL comes after them."""
    found = compose()["services"][service]
    text = (ROOT / "deploy/nats-cluster.conf").read_text()
    takes = sum(durations.seconds(span) for span in re.findall(r'lame_duck_\w+: "(\d+s)"', text))
    assert found["stop_signal"] == "SIGUSR2"
    assert durations.seconds(found["stop_grace_period"]) >= takes + 5


def test_the_health_check_of_nats_asks_its_monitoring_port() -> None:
    """NATS is healthy when JetStream is, as its monitoring port says."""
    url = urlsplit(compose()["services"]["nats"]["healthcheck"]["test"][-1])
    assert (url.port, url.path) == (nats_setting("http_port"), "/healthz")
    assert url.query == "js-enabled-only=true"


# The images


@each_of_ours
def test_compose_builds_the_dockerfile_of_the_role(service: str) -> None:
    """compose builds each from its Dockerfile, with the repository's root as context."""
    found = compose()["services"][service]
    assert ROOT / found["build"]["context"] / found["build"]["dockerfile"] == dockerfile(
        SERVICES[service]
    )
    assert found["image"] == f"fairlead-{SERVICES[service]}:{version('fairlead')}"


@each_image
def test_an_image_holds_what_the_lock_says(role: str) -> None:
    """Each requirement of pyproject.toml is in the lock, in a version that it allows, with hashes."""
    text = (ROOT / "deploy/locks" / f"{LOCKS[role]}.txt").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.M))
    assert text.count("--hash=sha256:") >= len(locked) > 20
    for wanted in requirements(role):
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            assert wanted.specifier.contains(
                locked[canonicalize_name(wanted.name)], prereleases=True
            )


def requirements(extra: str) -> list[Requirement]:
    """What an extra asks for, and those that it is made of."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [Requirement(each) for each in project["dependencies"]]
    left = [extra]
    while left:
        for each in map(Requirement, project["optional-dependencies"][left.pop()]):
            if each.name == "fairlead":
                left += each.extras
            else:
                found.append(each)
    return found


@each_image
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


@each_image
def test_the_base_image_is_an_argument(role: str) -> None:
    """All stages stand on PYTHON_IMAGE, so that a mirror or another Debian can take its place."""
    found = instructions(role)
    assert found[0] == ("ARG", "PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm")
    bases = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert bases == ["${PYTHON_IMAGE}"] * 3


@each_image
def test_nothing_that_builds_is_left(role: str) -> None:
    """The image takes one venv from the build, without pip, and installs nothing itself."""
    build, image = stages(role)
    install = [rest for word, rest in build if word == "RUN"][-1]
    assert "pip install --no-cache-dir --require-hashes -r /src/lock.txt" in install
    assert install.endswith("pip uninstall --yes setuptools pip")
    taken = [rest for word, rest in image if word == "COPY" and rest.startswith("--from=")]
    assert taken == ["--from=venv /opt/fairlead /opt/fairlead"]
    assert not re.search(r"\b(pip|apt|apt-get)\b", only(role, "RUN"))


@each_image
def test_the_process_is_not_root(role: str) -> None:
    """The image runs as uid 10001, in figures, and becomes it after the last thing root must do."""
    assert only(role, "USER") == "10001:10001"
    words = [word for word, _ in stages(role)[1]]
    assert "RUN" not in words[words.index("USER") :]


@each_image
def test_sigterm_reaches_the_process(role: str) -> None:
    """The entry point is fairlead itself, without a shell, and a stop is SIGTERM."""
    assert json.loads(only(role, "ENTRYPOINT")) == ["fairlead", role]
    assert only(role, "STOPSIGNAL") == "SIGTERM"


@each_image
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_livez(role: str, healthy: bool, admin_port: int) -> None:
    """HEALTHCHECK succeeds on a 200 of /livez on the admin port, past any proxy, and fails else."""
    command = json.loads(only(role, "HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python3"
    done = subprocess.run(
        [sys.executable, *command[1:]],
        env={ADMIN_PORT[role]: str(admin_port), "http_proxy": "http://127.0.0.1:1"},
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode == 0) is healthy, done.stderr


def test_the_worker_carries_the_chat_example() -> None:
    """The worker's default target is the chat example, where the image put it."""
    target = image_environment("worker")["FAIRLEAD_TARGET"]
    assert ("COPY", f"examples/chat/app.py {target}") in stages("worker")[1]


@pytest.mark.parametrize("service", ["edge", "edge-alone"])
def test_an_edge_serves_the_page_of_the_chat_example(service: str) -> None:
    """Compose mounts the page of the worker's project, read-only, where the edge looks for it."""
    assert compose()["services"][service]["volumes"] == ["./examples/chat/page:/srv/page:ro"]
    page = mounted(service)[environment(service)["FAIRLEAD_PAGES"]]
    assert Path(page, "index.html").is_file()


# Variables and ports


@each_of_ours
def test_each_variable_is_a_setting(service: str) -> None:
    """Each FAIRLEAD_ variable that image or compose sets is a field of the role's settings."""
    used = {name for name in environment(service) if name.startswith("FAIRLEAD_")}
    assert used
    assert used <= {variable(field) for field in SETTINGS[SERVICES[service]].model_fields}


@each_of_ours
def test_the_container_listens_where_it_says(service: str, settings: dict[str, Any]) -> None:
    """Process and EXPOSE agree on the ports, and each is open to other containers."""
    listening = {name: settings[name] for name in ("port", "admin_port") if name in settings}
    exposed = set(only(SERVICES[service], "EXPOSE").split())
    assert {str(port) for port in listening.values()} == exposed
    assert {settings[name] for name in ("host", "admin_host") if name in settings} == {"0.0.0.0"}


def test_only_the_public_port_is_published_to_others() -> None:
    """Clients reach the balancer, or the one edge; pages without a password are for this machine alone."""
    published = {
        name: service["ports"]
        for name, service in compose()["services"].items() if "ports" in service
    }  # fmt: skip
    assert published.pop("balancer") == published.pop("edge-alone") == ["8000:8000"]
    pages = ["jaeger", "console", "prometheus", "grafana"]
    assert sorted(published) == sorted(pages)
    for (port,) in published.values():
        assert port.startswith("127.0.0.1:")


def test_each_profile_is_whole_and_up_starts_everything() -> None:
    services = compose()["services"]
    members = {
        profile: {name for name, service in services.items() if profile in service["profiles"]}
        for profile in ("full", "minimal")
    }
    assert members["minimal"] == {"nats", "edge-alone", "worker-alone", "jaeger"}
    assert members["full"] == services.keys() - {"nats", "edge-alone", "worker-alone"}
    for names in members.values():
        for name in names:
            assert set(services[name].get("depends_on", ())) <= names
    assert "COMPOSE_PROFILES=full" in (ROOT / ".env").read_text().splitlines()


@each_of_ours
def test_nats_is_found_by_its_service_names(service: str) -> None:
    """FAIRLEAD_NATS is the NATS of the service's own profile, on the port of its configuration."""
    port, services = nats_setting("port"), compose()["services"]
    full = "full" in services[service]["profiles"]
    hosts = ["nats-1", "nats-2", "nats-3"] if full else ["nats"]
    assert environment(service)["FAIRLEAD_NATS"] == ",".join(f"nats://{h}:{port}" for h in hosts)


@each_process
def test_traces_go_where_they_are_kept_under_the_name_of_the_role(service: str) -> None:
    """Over OTLP/HTTP: to the collector, which decides what Jaeger gets; alone, straight to Jaeger."""
    found = {k: v for k, v in environment(service).items() if k.startswith("OTEL_")}
    full = "full" in compose()["services"][service]["profiles"]
    assert found == {
        "OTEL_SERVICE_NAME": f"fairlead-{SERVICES[service]}",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{'otel-collector' if full else 'jaeger'}:4318",
    }


def test_prometheus_scrapes_the_admin_ports() -> None:
    scraped: Any = YAML(typ="safe", pure=True).load(ROOT / "deploy/prometheus/prometheus.yml")
    (job,) = scraped["scrape_configs"]
    assert job["dns_sd_configs"] == [{"names": ["edge", "worker"], "type": "A", "port": 8001}]


def test_what_is_mounted_is_in_the_repository() -> None:
    for name in compose()["services"]:
        for source in mounted(name).values():
            assert Path(source).exists(), f"{name}: {source}"


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    yaml = YAML(typ="safe", pure=True)
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.load(provisioning / "datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.load(provisioning / "dashboards/fairlead.yaml")["providers"]
    assert f"{provider['options']['path']}/fairlead.json" in mounted("grafana")


# The balancer


def test_haproxy_accepts_its_configuration(tmp_path: Path) -> None:
    """As in compose, where its name server is the engine's."""
    run("haproxy", "-c", "-f", str(HAPROXY))


def test_the_balancer_knows_the_edges_and_asks_their_admin_ports() -> None:
    text = HAPROXY.read_text()
    assert re.findall(r"^    server-template edge- \d+ (\S+) resolvers", text, re.M) == [
        "edge:8000"
    ]
    assert "check port 8001" in text and "uri /readyz" in text


def test_an_image_is_built_by_one_service_of_a_profile() -> None:
    """Two that build one tag at once can fail: `image … already exists`."""
    for profile in ("full", "minimal"):
        built = [
            service["image"]
            for service in compose()["services"].values()
            if profile in service["profiles"] and "build" in service
        ]
        assert built and len(built) == len(set(built))


def test_the_balancer_is_more_patient_than_the_edges_are_silent() -> None:
    """A ping each 25 s, a comment each 15 s: its patience is longer, or it would cut off who is quiet."""
    patience = dict(re.findall(r"^    timeout (\S+) (\d+)s$", HAPROXY.read_text(), re.M))
    for name in ("client", "server", "tunnel"):
        assert int(patience[name]) > 2 * max(PING_EVERY, WEBSOCKET_PING)


# Running and ending


@each_process
def test_a_drain_is_not_cut_short(service: str, settings: dict[str, Any]) -> None:
    """SIGKILL comes after the drain is over, with time to say goodbye to NATS and send the last spans."""
    grace = durations.seconds(compose()["services"][service]["stop_grace_period"])
    assert grace >= settings["drain_grace"] + 5


@each_process
def test_what_a_drain_still_needs_is_stopped_after_it(service: str) -> None:
    """NATS, and where spans go."""
    found = compose()["services"][service]
    nats = {name for name in found["depends_on"] if name.startswith("nats")}
    assert len(nats) == len(environment(service)["FAIRLEAD_NATS"].split(","))
    assert set(found["depends_on"]) - nats <= {"otel-collector", "jaeger"}


@pytest.mark.parametrize("service", [*SERVICES, *FOREIGN])
def test_each_container_is_confined(service: str) -> None:
    """Each container has a read-only root with a bounded /tmp, no capability, no way to gain one."""
    found = compose()["services"][service]
    assert found["read_only"] is True
    assert found["tmpfs"] == ["/tmp:size=16m,mode=1777"]
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]


def test_each_service_is_known_here() -> None:
    assert compose()["services"].keys() == {*SERVICES, *FOREIGN}


@pytest.mark.parametrize("service", FOREIGN)
def test_a_foreign_image_is_pinned(service: str) -> None:
    """An image that is not ours has a version in its tag."""
    assert re.search(r":v?\d+\.\d+[\w.-]*$", compose()["services"][service]["image"])
