"""What deploy/k8s promises.

No cluster is at hand where the tests run: kubectl renders, schemas and linters judge, nats-server and
promtool read what is theirs, and then the manifests are held against each other and against the code.
"""

from __future__ import annotations

import itertools
import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from starlette.routing import Route

from fairlead.admin import routes
from fairlead.natsconfig import OPERATORS, SYSTEM, variable
from fairlead.protocol import durations
from fairlead.protocol.permissions import Role
from fairlead.readiness import AdminState
from fairlead.settings import Settings, check_environment
from fairlead.settings import variable as setting
from fairlead_console.app import build_app as console_app
from fairlead_console.guard import Guard
from fairlead_console.overview import Overview
from fairlead_console.settings import ConsoleSettings
from fairlead_edge.settings import EdgeSettings
from fairlead_worker.settings import WorkerSettings
from support.manifests import (
    CHECKOV,
    K8S,
    ROOT,
    UNPACKED,
    Manifest,
    combined,
    container,
    environment,
    kinds,
    manifests,
    named,
    numbers,
    parse,
    pod,
    ports,
    ran,
    render,
    selects,
    text,
    workloads,
)
from support.node import NODE
from support.prometheus import executable

COMPONENTS = sorted(each.name for each in (K8S / "components").iterdir())
SETTINGS: dict[str, type[Settings]] = {
    "edge": EdgeSettings, "worker": WorkerSettings, "console": ConsoleSettings,
}  # fmt: skip
NATS_PORTS = {"client": 4222, "cluster": 6222, "monitor": 8222}
KUBERNETES = ("1.30", "1.34")  # whose schemas are asked: what the page promises, and a newer one

both = pytest.mark.parametrize("role", ["edge", "worker"])
every = pytest.mark.parametrize("role", list(SETTINGS))
OPERATOR = K8S / "operator.yaml"
overlays = pytest.mark.parametrize("overlay", ["dev", "prod"])


def workload(overlay: str, name: str) -> Manifest:
    kind = "StatefulSet" if name == "nats" else "Deployment"
    return named(manifests(overlay), kind, name)


def config(overlay: str, name: str) -> dict[str, str]:
    """The data of the ConfigMap that is generated under this name."""
    (found,) = [
        each["data"]
        for each in kinds(manifests(overlay), "ConfigMap")
        if re.fullmatch(f"{name}(-[a-z0-9]{{10}})?", each["metadata"]["name"])
    ]
    return dict(found)


# What tools say


@pytest.fixture(scope="module")
def combinations(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Nothing, each component alone, each two together, all but one, and all."""
    folder = tmp_path_factory.mktemp("combinations")
    sizes = (0, 1, 2, len(COMPONENTS) - 1, len(COMPONENTS))
    chosen = [each for size in sizes for each in itertools.combinations(COMPONENTS, size)]
    assert len(chosen) > len(COMPONENTS) ** 2 / 2
    return "\n---\n".join(
        render(combined(folder / str(number), components))
        for number, components in enumerate(chosen)
    )


def strictly_valid(path: Path) -> None:
    for version in KUBERNETES:
        done = ran(
            str(Path(sys.executable).with_name("kubernetes-validate")),
            "--strict", "-k", version, str(path),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        unknown = set(re.findall(r"schema for kind (\w+)", done.stdout + done.stderr))
        assert unknown <= {"HTTPRoute", "ScaledObject", "PodMonitor", "PrometheusRule"}


def test_the_oldest_version_that_is_asked_is_the_one_that_the_page_promises() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    assert f"needs Kubernetes {KUBERNETES[0]} or newer" in page


@overlays
def test_kubernetes_knows_every_field(overlay: str, tmp_path: Path) -> None:
    (path := tmp_path / "all.yaml").write_text(text(overlay))
    strictly_valid(path)


def test_every_combination_of_components_is_rendered_and_valid(
    combinations: str, tmp_path: Path
) -> None:
    """Each distinct object once: the same edge in thirty combinations is one question."""
    distinct = set(re.split(r"^---\n", combinations, flags=re.M)) - {"", "\n"}
    judged = [each for each in distinct if "kind: PrometheusRule" not in each]
    (path := tmp_path / "all.yaml").write_text("---\n".join(judged))
    strictly_valid(path)
    assert {each["kind"] for each in parse("---\n".join(judged))} >= {"Ingress", "HTTPRoute"}


PACKAGES = {"gateway.networking.k8s.io": "gateway-api", "keda.sh": "keda", "monitoring.coreos.com": "prometheus-operator"}  # fmt: skip
"""Of npm, by the group of the resources whose schemas and types they have."""


def custom_resources() -> list[Manifest]:
    found = [each for each in manifests("prod") if each["apiVersion"].partition("/")[0] in PACKAGES]
    assert {each["kind"] for each in found} == {
        "HTTPRoute", "ScaledObject", "PodMonitor", "PrometheusRule"
    }  # fmt: skip
    return found


def test_custom_resources_follow_their_schemas() -> None:
    custom = custom_resources()
    done = judged(custom)
    assert done.returncode == 0, done.stdout + done.stderr
    # That it can say no, as well: of each kind one that is wrong.
    done = judged([each | {"spec": "wrong"} for each in custom])
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {e["kind"] for e in custom}


def test_custom_resources_have_no_field_that_nobody_knows(tmp_path: Path) -> None:
    """The schemas let one pass; TypeScript, to whom each resource is a literal of its type, does not."""
    lines: list[str] = []
    for number, each in enumerate(custom_resources()):
        package = f"@kubernetes-models/{PACKAGES[each['apiVersion'].partition('/')[0]]}"
        lines.append(f'import type {{ I{each["kind"]} }} from "{package}/{each["apiVersion"]}";')
        lines.append(f"export const of{number}: I{each['kind']} = {json.dumps(each)};")
    (tmp_path / "node_modules").symlink_to(UNPACKED / "node_modules")
    (tmp_path / "all.mts").write_text("\n".join(lines))
    compiler = ROOT / "clients/js/node_modules/typescript/lib/tsc.js"
    options = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext")
    done = ran(NODE, str(compiler), *options, "all.mts", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def judged(custom: list[Manifest]) -> subprocess.CompletedProcess[str]:
    """What the schemas of custom resources say."""
    script = (ROOT / "tests/support/kubernetes/validate.mjs").read_text()
    argv = [NODE, "--input-type=module", "--eval", script]
    return ran(*argv, given=json.dumps(custom), cwd=UNPACKED)


def test_checkov_finds_what_is_explained_and_nothing_else(tmp_path: Path) -> None:
    """policy-exceptions.yaml names each finding with its reason, and none that is no finding any more."""
    judged = [each for each in manifests("prod") if each["kind"] not in ("PrometheusRule",)]
    (path := tmp_path / "all.yaml").write_text(
        "---\n".join(json.dumps(each) + "\n" for each in judged)
    )
    done = ran(
        str(CHECKOV), "-f", str(path), "--framework", "kubernetes", "-o", "json", "--quiet",
        "--compact", "--skip-download", "--soft-fail",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 300 and report["summary"]["parsing_errors"] == 0
    found: dict[str, set[str]] = {}
    for failed in report["results"]["failed_checks"]:
        kind, _, name = failed["resource"].split(".")
        found.setdefault(failed["check_id"], set()).add(f"{kind} {name}")
    explained = YAML(typ="safe").load(K8S / "policy-exceptions.yaml")
    assert found == {check: set(each["resources"]) for check, each in explained.items()}
    assert all(len(each["why"]) > 50 for each in explained.values())


def test_yamllint_finds_nothing() -> None:
    done = ran(
        str(Path(sys.executable).with_name("yamllint")),
        "--strict", "-c", str(K8S / ".yamllint.yaml"), str(ROOT / "deploy"), str(ROOT / "docker-compose.yml"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_beside_each_number_stands_why() -> None:
    """On its line, or above it; ports, users, versions of APIs and tags of images say it themselves."""
    obvious = re.compile(
        r"apiVersion|value: (\"\d|0\.0\.0\.0)|[pP]ort: \d|, port: \d+}|newTag|FAIRLEAD_|runAs|fsGroup|replacement|url|OTEL|server"
    )
    for path in K8S.rglob("*.yaml"):
        if path.name in ("prometheusrule.yaml", "otel-collector.yaml", "policy-exceptions.yaml"):
            continue
        for place, line, explained in numbers(path.read_text()):
            assert explained or obvious.search(line), f"{path.name}:{place}: {line}"


# What is copied is as it was


def test_generated_files_are_up_to_date() -> None:
    """Else run deploy/k8s/generate.py. NATS's configurations are what `fairlead nats-config` prints."""
    made: dict[Path, str] = runpy.run_path(str(K8S / "generate.py"))["generated"]()
    assert len(made) == 5
    for path, expected in made.items():
        assert path.read_text() == expected, f"{path} is old; run deploy/k8s/generate.py"


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_nats_config_prints_what_the_servers_read(overlay: str) -> None:
    """The command that stands in the file's head gives the file, permissions and all."""
    conf = config(overlay, "nats-config")["nats.conf"]
    command = conf.splitlines()[1].removeprefix("#   fairlead ").split()
    done = ran(sys.executable, "-m", "fairlead", *command)
    assert done.stdout == conf


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_nats_server_accepts_its_configuration(overlay: str, tmp_path: Path) -> None:
    """With certificates where they are mounted, and keys in its environment."""
    import trustme

    conf = config(overlay, "nats-config")["nats.conf"]
    assert conf.count('store_dir: "/data"') == 1
    conf = conf.replace('"/data"', json.dumps(str(tmp_path / "store")))
    authority = trustme.CA()
    certificate = authority.issue_cert("nats-0.nats")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    certificate.private_key_pem.write_to_path(tmp_path / "tls.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "nats.conf").write_text(conf.replace("/etc/nats-tls", str(tmp_path)))
    keys = ran(sys.executable, "-m", "fairlead", "nats-config", "--keys", str(tmp_path / "keys"))
    done = ran(
        "env", *keys.stdout.split(), "SERVER_NAME=nats-0",
        str(Path(sys.executable).with_name("nats-server")), "-t", "-c", str(tmp_path / "nats.conf"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules_of_prometheusrule(tmp_path: Path) -> None:
    spec = kinds(manifests("prod"), "PrometheusRule")[0]["spec"]
    alerts = YAML(typ="safe").load(ROOT / "deploy/prometheus/alerts.yaml")
    assert spec == alerts
    (path := tmp_path / "rules.yaml").write_text(json.dumps(spec))
    done = ran(executable("promtool"), "check", "rules", str(path))
    count = sum(len(group["rules"]) for group in alerts["groups"])
    assert f"SUCCESS: {count} rules found" in done.stdout


def test_the_dashboard_is_that_of_the_repository() -> None:
    """And small enough for `kubectl apply`, which keeps a copy in an annotation of at most 256 KiB."""
    data = config("prod", "fairlead-dashboard")
    assert data == {"fairlead.json": (ROOT / "deploy/grafana/fairlead.json").read_text()}
    assert len(json.dumps(data)) < 262_144


# All of it together


@overlays
def test_everything_is_in_one_namespace_and_says_what_it_is_part_of(overlay: str) -> None:
    for each in manifests(overlay):
        metadata = each["metadata"]
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "fairlead", metadata
        assert each["kind"] == "Namespace" or metadata["namespace"] == "fairlead", metadata
    for each in workloads(manifests(overlay)):
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "fairlead"


@overlays
def test_each_selector_means_one_workload(overlay: str) -> None:
    """Its own pods, of Deployments, StatefulSets, Services, budgets and spreads: all of them and no others."""
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in workloads(manifests(overlay))
    }

    def meant(selector: Manifest) -> list[str]:
        return [name for name, labels in pods.items() if selects(selector, labels)]

    for each in workloads(manifests(overlay)):
        name = each["metadata"]["name"]
        assert meant(each["spec"]["selector"]) == [name]
        for spread in pod(each).get("topologySpreadConstraints", ()):
            assert meant(spread["labelSelector"]) == [name]
    for each in kinds(manifests(overlay), "PodDisruptionBudget"):
        assert meant(each["spec"]["selector"]) == [each["metadata"]["name"]]
    for each in kinds(manifests(overlay), "Service"):
        assert meant({"matchLabels": each["spec"]["selector"]}) == [each["metadata"]["name"]]
    for each in kinds(manifests(overlay), "PodMonitor"):
        assert meant(each["spec"]["selector"]) == ["edge", "worker"]


@overlays
def test_each_workload_has_a_budget_that_lets_machines_be_emptied(overlay: str) -> None:
    budgets = {
        each["metadata"]["name"]: each["spec"]["maxUnavailable"]
        for each in kinds(manifests(overlay), "PodDisruptionBudget")
    }
    assert budgets.keys() == {each["metadata"]["name"] for each in workloads(manifests(overlay))}
    assert set(budgets.values()) <= {1, "25%"}
    assert budgets["nats"] == 1  # of three: the majority stays


@overlays
def test_what_is_referred_to_is_there(overlay: str) -> None:
    """ConfigMaps, ServiceAccounts, mounts, target ports. Secrets are not: they are named, never shown."""
    every = manifests(overlay)
    assert not kinds(every, "Secret")
    there = {(each["kind"], each["metadata"]["name"]) for each in every}
    for each in workloads(every):
        spec = pod(each)
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        claims = each["spec"].get("volumeClaimTemplates", ())
        mounted = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"]}
        assert mounted == set(volumes) | {claim["metadata"]["name"] for claim in claims}
        assert ("ServiceAccount", spec["serviceAccountName"]) in there
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
        for source in container(each).get("envFrom", ()):
            name = source["configMapRef"]["name"]
            assert ("ConfigMap", name) in there or name == "nats-nkeys"
    for each in kinds(every, "Service"):
        name = each["metadata"]["name"]
        made = ports(workload(overlay, name))
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= made.keys()


def test_the_secrets_are_those_that_the_page_makes() -> None:
    found = {
        volume["secret"]["secretName"]
        for each in workloads(manifests("prod"))
        for volume in pod(each)["volumes"]
        if "secret" in volume
    }
    found |= {
        entry["valueFrom"]["secretKeyRef"]["name"]
        for each in workloads(manifests("prod"))
        for entry in container(each).get("env", ())
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert found == {
        "nats-tls", "nats-ca", "edge-nkey", "worker-nkey", "console-nkey", "console-token"
    }  # fmt: skip
    page = (ROOT / "docs/kubernetes.md").read_text()
    made = set(re.findall(r"create secret (?:generic|tls) ([\w-]+)", page))
    assert made == found | {"operator-nkey"}, "and that of the pod that is in no overlay"
    assert "create configmap nats-nkeys --from-env-file=nats.env" in page
    conf = config("prod", "nats-config")["nats.conf"]
    assert set(re.findall(r"\$(NATS_\w+)", conf)) == {*map(variable, Role), OPERATORS, SYSTEM}


@overlays
@pytest.mark.parametrize("tier", ["nats", "worker", "edge"])
def test_a_tier_can_be_applied_by_its_label(overlay: str, tier: str) -> None:
    """As docs/kubernetes.md has it for upgrades: with what its pods stand on."""
    labelled = {
        (each["kind"], each["metadata"]["name"])
        for each in manifests(overlay)
        if each["metadata"]["labels"].get("app.kubernetes.io/name") in (tier, "fairlead-env")
    }
    made = workload(overlay, tier)
    needed = {(made["kind"], tier), ("ServiceAccount", pod(made)["serviceAccountName"])}
    needed |= {
        ("ConfigMap", source["configMapRef"]["name"])
        for source in container(made).get("envFrom", ())
        if source["configMapRef"]["name"].startswith("fairlead")
    }
    needed |= {
        ("ConfigMap", volume["configMap"]["name"])
        for volume in pod(made).get("volumes", ())
        if "configMap" in volume
    }
    assert needed <= labelled


def test_the_operator_s_pod_is_as_confined_as_the_others(tmp_path: Path) -> None:
    """It is in no overlay, so what is asked of those is asked of it here."""
    strictly_valid(OPERATOR)
    box, to_it, to_nats = parse(OPERATOR.read_text())
    spec = box["spec"]
    (only,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v} == {
        "operator-nkey", "nats-ca"
    }  # fmt: skip
    urls = environment(manifests("prod"), workload("prod", "edge"))["FAIRLEAD_NATS"]
    assert {"name": "NATS_URL", "value": urls} in only["env"]
    labels = box["metadata"]["labels"]
    assert to_it["spec"]["podSelector"]["matchLabels"] == labels
    (let_in,) = to_nats["spec"]["ingress"]
    assert let_in["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert {each["metadata"]["namespace"] for each in (box, to_it, to_nats)} == {"fairlead"}


def test_traffic_goes_to_the_public_port(combinations: str) -> None:
    """Route and Ingress lead to the edges' Service, and that to the port for clients; nothing is sticky."""
    (service,) = [e for e in kinds(manifests("prod"), "Service") if e["metadata"]["name"] == "edge"]
    (port,) = service["spec"]["ports"]
    assert service["spec"]["sessionAffinity"] == "None"
    assert ports(workload("prod", "edge"))[port["targetPort"]] == 8000
    route = named(manifests("prod"), "HTTPRoute", "edge")
    (rule,) = route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "edge", "port": port["port"]}]
    assert "sessionPersistence" not in rule
    ingress = named(parse(re.findall(r"^apiVersion[^\n]+\nkind: Ingress\n.*?(?=^---|\Z)", combinations, re.M | re.S)[0]), "Ingress", "edge")  # fmt: skip
    (host,) = ingress["spec"]["rules"]
    assert host["http"]["paths"][0]["backend"]["service"] == {"name": "edge", "port": {"name": port["name"]}}  # fmt: skip
    assert "annotations" not in ingress["metadata"]


# Images


@overlays
def test_images_have_the_versions_of_the_repository(overlay: str) -> None:
    """Ours that of pyproject.toml, NATS's that of compose, the collector's the one that its file was tried with."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    compose = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    expected = {
        "edge": f"fairlead-edge:{version}",
        "worker": f"fairlead-worker:{version}",
        "console": f"fairlead-console:{version}",
        "nats": compose["services"]["nats"]["image"],
    }
    (tried,) = re.findall(r"with collector ([\d.]+)", (ROOT / "docs/tracing.md").read_text())
    collector = f"docker.io/otel/opentelemetry-collector-contrib:{tried}"
    assert compose["services"]["otel-collector"]["image"] == collector
    if overlay == "prod":
        expected["otel-collector"] = collector
    found = {e["metadata"]["name"]: container(e)["image"] for e in workloads(manifests(overlay))}
    assert found == expected
    beside = {e["image"] for each in workloads(manifests(overlay)) for e in pod(each)["containers"]}
    assert beside == set(expected.values())


# Edges, workers and the console, against the code


@overlays
@every
def test_each_variable_is_a_setting_and_its_value_is_one(
    overlay: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process would start with them, too: all roles read one ConfigMap."""
    given = environment(manifests(overlay), workload(overlay, role))
    ours = {name: value for name, value in given.items() if name.startswith("FAIRLEAD_")}
    check_environment(ours, SETTINGS.values())
    own = {each["name"] for each in container(workload(overlay, role))["env"]}
    assert {name for name in own if name.startswith("FAIRLEAD_")} <= {
        setting(field) for field in SETTINGS[role].model_fields
    }
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    if role == "worker":
        monkeypatch.setenv("FAIRLEAD_TARGET", "/srv/app/app.py")  # as the image has it
    settings = SETTINGS[role]().model_dump()
    names = {"port": "http", "admin_port": "admin"}
    listening = {name: settings[field] for field, name in names.items() if field in settings}
    assert ports(workload(overlay, role)) == listening
    assert {settings[name] for name in ("host", "admin_host") if name in settings} == {"0.0.0.0"}
    servers = workload(overlay, "nats")["spec"]["replicas"]
    scheme = "tls" if overlay == "prod" else "nats"
    assert settings["nats"].split(",") == [
        f"{scheme}://nats-{number}.nats:4222" for number in range(servers)
    ]
    assert SETTINGS["worker"](target="x").model_dump()["replicas"] == servers  # type: ignore[call-arg]


@overlays
@every
def test_no_service_becomes_a_variable(overlay: str, role: str) -> None:
    """FAIRLEAD_EDGE_PORT and the like: names that no setting has end the start."""
    assert pod(workload(overlay, role))["enableServiceLinks"] is False


def probed(role: str) -> tuple[str, set[str]]:
    """The port that is asked, and the paths that the code serves there. The console has one port for all."""
    state = AdminState.__new__(AdminState)
    if role != "console":
        return "admin", {route.path for route in routes(state)}
    app = console_app(ConsoleSettings(), state, Overview(Guard("")))
    return "http", {route.path for route in app.routes if isinstance(route, Route)}


@overlays
@every
def test_probes_ask_three_different_questions(overlay: str, role: str) -> None:
    """Has it begun, does it live, may somebody come: liveness never looks at NATS."""
    port, served = probed(role)
    probes = {
        name: container(workload(overlay, role))[f"{name}Probe"]
        for name in ("startup", "liveness", "readiness")
    }
    asked = {name: probe["httpGet"] for name, probe in probes.items()}
    assert {each["path"] for each in asked.values()} <= served
    assert {each["port"] for each in asked.values()} == {port}
    assert [asked[name]["path"] for name in asked] == ["/livez", "/livez", "/readyz"]

    def patience(name: str) -> int:
        return int(probes[name]["periodSeconds"] * probes[name]["failureThreshold"])

    assert patience("readiness") < patience("liveness") <= patience("startup")


@overlays
@both
def test_a_drain_is_not_cut_short(overlay: str, role: str) -> None:
    """SIGKILL comes after preStop and drain, with time to say goodbye; an edge waits for its balancers first."""
    each = workload(overlay, role)
    drain = durations.seconds(environment(manifests(overlay), each)["FAIRLEAD_DRAIN_GRACE"])
    pause = container(each).get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
    wait = pause["sleep"]["seconds"]
    assert (wait > 0) is (role == "edge")
    assert pod(each)["terminationGracePeriodSeconds"] >= wait + drain + 10


@overlays
@every
def test_a_rollout_takes_nobody_away_before_another_is_there(overlay: str, role: str) -> None:
    spec = workload(overlay, role)["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert spec["strategy"]["rollingUpdate"]["maxSurge"] in (1, "25%")
    assert spec["minReadySeconds"] >= 5


def test_edges_drain_one_after_another() -> None:
    """A rollout does not wait for pods that end, only for new ones: those wait for longer than a drain lasts."""
    each = workload("prod", "edge")
    drain = durations.seconds(environment(manifests("prod"), each)["FAIRLEAD_DRAIN_GRACE"])
    wait = container(each)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert each["spec"]["minReadySeconds"] >= wait + drain
    assert each["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 1


@overlays
def test_each_pod_is_confined(overlay: str) -> None:
    """As Pod Security's `restricted` wants it, which the namespace enforces, and a read-only root besides."""
    namespace = named(manifests(overlay), "Namespace", "fairlead")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for each in workloads(manifests(overlay)):
        spec = pod(each)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in spec["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert one["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in one["resources"]["limits"]
    for each in kinds(manifests(overlay), "ServiceAccount"):
        assert each["automountServiceAccountToken"] is False


@every
def test_pods_run_as_the_user_of_their_image(role: str) -> None:
    dockerfile = (ROOT / f"deploy/{role}.Dockerfile").read_text()
    context = pod(workload("prod", role))["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
    assert context["fsGroup"] == context["runAsGroup"]  # else it could not read its Secrets


@both
def test_a_slow_client_costs_memory_that_is_there(role: str) -> None:
    """The limit is above what the settings let an edge keep, beside 256 MiB for the rest."""
    limit = container(workload("prod", role))["resources"]["limits"]["memory"]
    size = int(limit[:-2]) * {"Mi": 1024**2, "Gi": 1024**3}[limit[-2:]]
    assert size >= EdgeSettings.model_fields["buffer_limit"].default + 256 * 1024**2


@every
def test_credentials_are_where_the_settings_look(role: str) -> None:
    """In prod: each path that a setting names is a file of a mounted Secret, of this role's own."""
    each = workload("prod", role)
    given = environment(manifests("prod"), each)
    mounts = {m["mountPath"]: m["name"] for m in container(each)["volumeMounts"]}
    secrets = {v["name"]: v["secret"] for v in pod(each)["volumes"] if "secret" in v}
    for name, secret in (
        ("FAIRLEAD_NATS_NKEY", f"{role}-nkey"),
        ("FAIRLEAD_NATS_CA", "nats-ca"),
    ):
        folder = str(Path(given[name]).parent)
        assert secrets[mounts[folder]]["secretName"] == secret
        assert secrets[mounts[folder]]["defaultMode"] == 0o440
        file = Path(given[name]).name
        page = (ROOT / "docs/kubernetes.md").read_text()
        assert re.search(rf"create secret generic {secret} --from-file={re.escape(file)}=", page)


# NATS


@overlays
def test_nats_finds_what_its_configuration_names(overlay: str) -> None:
    """Ports, the store on a volume that is larger, the certificate, its own name, its neighbours."""
    each = workload(overlay, "nats")
    conf = config(overlay, "nats-config")["nats.conf"]
    assert ports(each) == NATS_PORTS
    assert "\nport: 4222\n" in conf and "\nhttp_port: 8222\n" in conf
    mounts = {mount["mountPath"] for mount in container(each)["volumeMounts"]}
    assert {"/data", "/etc/nats", "/var/run/nats"} <= mounts
    command = container(each)["command"]
    assert "--config=/etc/nats/nats.conf" in command
    (claim,) = each["spec"]["volumeClaimTemplates"]
    volume = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) * 1024**3
    (store,) = re.findall(r"max_file_store: (\d+)GB", conf)
    assert int(store) * 1024**3 <= 0.8 * volume  # nats-server reads GB as GiB
    servers = each["spec"]["replicas"]
    routes_of = re.findall(r"(?:nats|tls)://([\w.-]+):6222", conf)
    expected = [f"{each['metadata']['name']}-{n}.{each['spec']['serviceName']}" for n in range(servers)]  # fmt: skip
    assert routes_of == (expected if servers > 1 else [])
    assert ("/etc/nats-tls" in mounts) is ("/etc/nats-tls" in conf) is (overlay == "prod")
    service = named(manifests(overlay), "Service", each["spec"]["serviceName"])
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_nats_is_a_lame_duck_before_it_goes() -> None:
    """The pid file of its command is the one that preStop signals, and SIGKILL comes after the last client went."""
    each = workload("prod", "nats")
    (pid,) = [a.partition("=")[2] for a in container(each)["command"] if a.startswith("--pid=")]
    stop = container(each)["lifecycle"]["preStop"]["exec"]["command"]
    assert stop == ["nats-server", f"--signal=ldm={pid}"]
    conf = config("prod", "nats-config")["nats.conf"]
    takes = sum(int(each) for each in re.findall(r'^lame_duck_\w+: "(\d+)s"', conf, re.M))
    assert takes > 0
    assert pod(each)["terminationGracePeriodSeconds"] >= takes + 10


@overlays
def test_nats_keeps_its_memory_under_the_limit(overlay: str) -> None:
    """GOMEMLIMIT is four fifths of it, rounded down."""
    each = workload(overlay, "nats")
    limit = container(each)["resources"]["limits"]["memory"]
    mebibytes = int(limit[:-2]) * (1024 if limit.endswith("Gi") else 1)
    assert environment(manifests(overlay), each)["GOMEMLIMIT"] == f"{mebibytes * 4 // 5}MiB"


def test_probes_of_nats_know_what_a_restart_can_cure() -> None:
    only = container(workload("prod", "nats"))
    paths = {name: only[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {each["port"] for each in paths.values()} == {"monitor"}
    assert paths["startup"]["path"] == "/healthz"
    assert paths["liveness"]["path"] == "/healthz?js-enabled-only=true"
    assert paths["readiness"]["path"] == "/healthz?js-server-only=true"


# The collector


def test_spans_go_to_the_collector() -> None:
    collector: dict[str, Any] = YAML(typ="safe").load(
        config("prod", "otel-collector")["otel-collector.yaml"]
    )
    made = ports(workload("prod", "otel-collector"))
    listens = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert listens == f"0.0.0.0:{made['otlp-http']}"
    assert collector["extensions"]["health_check"]["endpoint"] == f"0.0.0.0:{made['health']}"
    for role in ("edge", "worker"):
        given = environment(manifests("prod"), workload("prod", role))
        assert given["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector:4318"
        assert given["OTEL_SERVICE_NAME"] == f"fairlead-{role}"
    given = environment(manifests("prod"), workload("prod", "otel-collector"))
    used = set(
        re.findall(r"\$\{env:(\w+)", config("prod", "otel-collector")["otel-collector.yaml"])
    )
    assert given.keys() == used
