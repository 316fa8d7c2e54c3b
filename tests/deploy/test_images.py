"""The images, built from their Dockerfiles and run: `make soak`, since it takes minutes.

The base is made of Debian's packages, since the official one is not to be had everywhere: it has
Debian's Python 3.11 instead of Docker's.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fairlead.dev import ports
from fairlead.testing import clients
from fairlead.testing.program import running
from support.system import NatsServer, Process, until_ready

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[2]
BASE = "localhost/fairlead-test-base"
PAGE = ROOT / "docs" / "containers.md"
OWN = """
import tabulate

from fairlead import WS, Message, feature, project

shop = feature("Shop")


@shop.websocket("echo", tag="v1")
async def echo(ctx: WS, message: Message) -> str:
    return tabulate.tabulate([[message.data]])


app = project(shop)
"""
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def seen() -> list[str]:
    """What this machine needs to reach a package index, which is its own, and not part of an image."""
    mounts = ["/etc/ssl/certs/ca-certificates.crt"]
    mounts += ["/etc/pip.conf"] if Path("/etc/pip.conf").exists() else []
    return [word for path in mounts for word in ("--volume", f"{path}:{path}:ro")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with a Python and pip, as python:3.11-slim is one."""
    for needed in ("buildah", "mmdebstrap"):
        assert shutil.which(needed), f"{needed} is not there; `make .venv/buildah` installs it"
    root = tmp_path_factory.mktemp("base") / "root.tar"
    run("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root))
    container = run("buildah", "from", "scratch")
    run("buildah", "add", container, str(root))
    run("buildah", "commit", "--rm", container, BASE)
    yield BASE
    run("buildah", "rmi", "--force", BASE)


@pytest.fixture(scope="module")
def images(base: str) -> Iterator[dict[str, str]]:
    """Edge, worker and console, built as the comments of their Dockerfiles say."""
    made: dict[str, str] = {}
    for role in ("edge", "worker", "console"):
        made[role] = f"localhost/fairlead-test-{role}"
        run(
            "buildah", "bud", "--isolation", "chroot", "--pull-never", *seen(),
            "--build-arg", f"PYTHON_IMAGE={base}", "--file", f"deploy/{role}.Dockerfile",
            "--tag", made[role], ".",
        )  # fmt: skip
    yield made
    for image in made.values():
        run("buildah", "rmi", "--force", image)


@pytest.fixture
def containers(images: dict[str, str]) -> Iterator[dict[str, str]]:
    made = {role: run("buildah", "from", "--pull-never", image) for role, image in images.items()}
    yield made
    for container in made.values():
        run("buildah", "rm", container)


@pytest.mark.parametrize("role", ["edge", "worker", "console"])
def test_an_image_has_fairlead_and_nothing_that_installs(
    containers: dict[str, str], role: str
) -> None:
    def inside(*command: str) -> str:
        return run("buildah", "run", "--isolation", "chroot", containers[role], "--", *command)

    assert inside("fairlead", "--version").startswith("fairlead ")
    assert inside("id", "-u") == "10001"
    assert inside("sh", "-c", "ls /opt/fairlead/bin | grep -c pip || true") == "0"
    assert inside("sh", "-c", "ls -d /src /wheels /build 2>/dev/null || true") == ""


async def test_a_message_through_edge_and_worker_from_their_images(
    containers: dict[str, str], fairlead_nats: NatsServer, tmp_path: Path
) -> None:
    """And both end with exit code 0 when they are told to."""
    port, admin, worker_admin = ports.free_port(), ports.free_port(), ports.free_port()
    told = {
        "FAIRLEAD_NATS": fairlead_nats.url, "FAIRLEAD_APP": f"images{secrets.token_hex(3)}",
        "OTEL_SDK_DISABLED": "true",
    }  # fmt: skip
    own = {
        "edge": {"FAIRLEAD_PORT": str(port), "FAIRLEAD_ADMIN_PORT": str(admin)},
        "worker": {"FAIRLEAD_ADMIN_PORT": str(worker_admin)},
    }
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        for role in ("worker", "edge"):
            env = [
                word for each in {**told, **own[role]}.items() for word in ("--env", "=".join(each))
            ]
            command = [
                "buildah", "run", "--isolation", "chroot", *env, containers[role], "--", "fairlead", role,
            ]  # fmt: skip
            program = stack.enter_context(running(command, tmp_path, dict(os.environ)))
            processes[role] = Process(program)
        await until_ready(f"http://127.0.0.1:{admin}/readyz")
        await until_ready(f"http://127.0.0.1:{worker_admin}/readyz")
        await processes["edge"].says('"routes":2')
        url = f"ws://127.0.0.1:{port}/support/realtime/chat?user=ann"
        async with clients.v1(url) as client:
            await client.send({"text": "from an image"})
            heard = await client.until("message")
            assert heard["data"]["text"] == "from an image" and heard["from"] == "ann"
        for process in processes.values():
            os.kill(
                within(process.pid), signal.SIGTERM
            )  # as an engine does to a container's process
            assert await process.ended() == 0


def example() -> str:
    """The Dockerfile of docs/containers.md for a worker of one's own."""
    found = re.search(r"```dockerfile\n(FROM fairlead-worker.*?)```", PAGE.read_text(), re.S)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [("tabulate", True), ("pydantic<2", False)],
    ids=["more", "another pydantic"],
)
def test_an_image_with_packages_of_one_s_own(
    base: str, images: dict[str, str], tmp_path: Path, wanted: str, fits: bool
) -> None:
    """As docs/containers.md has it. What would take the place of Fairlead's own ends the build."""
    text = example().replace("fairlead-worker:0.1.0", images["worker"])
    # Debian has its pip elsewhere than Docker's image.
    (tmp_path / "Dockerfile").write_text(
        text.replace("/usr/local/bin/pip", "/usr/bin/python3 -m pip")
    )
    (tmp_path / "requirements.txt").write_text(wanted)
    (tmp_path / "my_project.py").write_text(OWN)
    tag = "localhost/fairlead-test-own"
    done = subprocess.run(
        ["buildah", "bud", "--isolation", "chroot", "--pull-never", *seen(), "--tag", tag, "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not fits:
        assert done.returncode != 0 and "conflict" in done.stdout + done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    container = run("buildah", "from", "--pull-never", tag)
    try:
        said = run(
            "buildah", "run", "--isolation", "chroot", container, "--",
            "fairlead", "routes", "/srv/app/my_project.py",
        )  # fmt: skip
        assert "/shop/v1/echo" in said
    finally:
        run("buildah", "rm", container)
        run("buildah", "rmi", "--force", tag)


def within(pid: int) -> int:
    """The process that a `buildah run` has started, which is the last of a line of its own."""
    while children := [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]:
        (pid,) = children
    assert "/opt/fairlead/bin/fairlead" in Path(f"/proc/{pid}/cmdline").read_text()
    return pid
