"""Certificates for NATS as docs/kubernetes.md makes them without cert-manager; a server reads a renewed one."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from fairlead.dev import ports
from fairlead.dev.nats_server import executable
from fairlead.testing.program import DEADLINE, Program, running
from support.manifests import K8S, ROOT, manifests, named, pod

SERVERS = ("nats-0.nats", "nats-1.nats", "nats-2.nats")
FILES = ("tls.crt", "tls.key", "ca.crt")
FOLDER = "/etc/nats-tls"
PID = "/var/run/nats/nats.pid"

KUBECTL = """#!/bin/sh
printf '%s\\n' "$*" >> kubectl.log
"""


def on_the_page() -> str:
    page = (ROOT / "docs/kubernetes.md").read_text()
    (script,) = re.findall(r"```sh\n(openssl req -x509.*?)```", page, re.S)
    return str(script)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page's commands were given, as they stand there."""
    folder = tmp_path_factory.mktemp("made")
    script = on_the_page()
    (folder / "kubectl").write_text(KUBECTL)
    (folder / "kubectl").chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-ec", script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_secret_has_the_files_that_servers_read(made: Path) -> None:
    (said,) = (made / "kubectl.log").read_text().splitlines()
    assert said.startswith("-n fairlead create secret generic nats-tls ")
    assert re.findall(r"--from-file=(\S+)", said) == list(FILES)
    conf = (K8S / "components/tls/nats.conf").read_text()
    assert {Path(path).name for path in re.findall(r'_file: "(.*)"', conf)} == set(FILES)


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
@pytest.mark.parametrize("name", SERVERS)
def test_a_server_proves_itself_to_clients_and_to_the_others(
    made: Path, name: str, purpose: str
) -> None:
    command = ["openssl", "verify", "-CAfile", "ca.crt", "-purpose", purpose, "-verify_hostname"]
    done = subprocess.run(
        [*command, name, "tls.crt"], cwd=made, capture_output=True, text=True, check=False
    )
    assert done.stdout == "tls.crt: OK\n", done.stderr


@pytest.fixture
def volume(made: Path, tmp_path: Path) -> Path:
    """The Secret as a pod sees it."""
    (folder := tmp_path / "nats-tls").mkdir()
    show(made, folder)
    return folder


@pytest.fixture
def server(volume: Path, tmp_path: Path) -> Iterator[tuple[Program, int]]:
    port = ports.free_port()
    files = [
        f'{kind}_file: "{volume / name}"'
        for kind, name in zip(("cert", "key", "ca"), FILES, strict=True)
    ]
    (tmp_path / "nats.conf").write_text(
        f"listen: 127.0.0.1:{port}\npid_file: {tmp_path / 'nats.pid'}\n"
        "tls {\n" + "\n".join(files) + "\n}\n"
    )
    with running([executable(), "-c", str(tmp_path / "nats.conf")], tmp_path) as program:
        program.wait_for("Server is ready")
        yield program, port


async def test_nats_serves_with_it(made: Path, server: tuple[Program, int]) -> None:
    _, port = server
    trusted = ssl.create_default_context(cafile=str(made / "ca.crt"))
    client = await nats.connect(
        f"tls://127.0.0.1:{port}", tls=trusted, tls_hostname=SERVERS[1], allow_reconnect=False
    )
    await client.flush()
    await client.close()


def test_a_renewed_one_is_served_before_long(
    made: Path, volume: Path, server: tuple[Program, int], tmp_path: Path
) -> None:
    """What the container `reloader` runs, looking more often; its server may also be another by then."""
    program, port = server
    with running(["sh", "-c", reloader(volume, tmp_path)], tmp_path, path()) as beside:
        program.wait_for("Reloaded: tls")
        first, before = served(made, port), len(program.lines)
        renew(made)
        assert served(made, port) == first, "a file that is replaced is not looked at"
        show(made, volume)
        program.wait_for("Reloaded: tls", before)
        assert served(made, port) != first
        assert beside.process.poll() is None


def test_nobody_to_tell_is_told_when_there_is_somebody(
    volume: Path, server: tuple[Program, int], tmp_path: Path
) -> None:
    """The pid file is of a server that is gone until the next one has written its own."""
    program, _ = server
    pid = (tmp_path / "nats.pid").read_text()
    (tmp_path / "nats.pid").unlink()
    with running(["sh", "-c", reloader(volume, tmp_path)], tmp_path, path()) as beside:
        beside.wait_for("nats.pid")
        (tmp_path / "nats.pid").write_text(pid)
        program.wait_for("Reloaded: tls")


def test_the_reloader_reads_what_the_server_reads() -> None:
    assert nats_pod()["shareProcessNamespace"] is True
    main, beside = nats_pod()["containers"]
    mounts = [{m["name"]: m["mountPath"] for m in each["volumeMounts"]} for each in (main, beside)]
    assert mounts[1].items() <= mounts[0].items()
    assert f"--pid={PID}" in main["command"]
    (script,) = beside["args"]
    assert f"--signal=reload={PID}" in script
    conf = (K8S / "components/tls/nats.conf").read_text()
    assert set(re.findall(r'_file: "(.*)"', conf)) == set(re.findall(rf"{FOLDER}/\S+", script))


def nats_pod() -> dict[str, Any]:
    return pod(named(manifests("prod"), "StatefulSet", "nats"))


def reloader(volume: Path, folder: Path) -> str:
    """Its script, for a volume and a pid file that are elsewhere."""
    (script,) = nats_pod()["containers"][1]["args"]
    for there, here in (
        (FOLDER, str(volume)),
        (PID, str(folder / "nats.pid")),
        ("sleep 30", "sleep 0.1"),
    ):
        assert there in script
        script = script.replace(there, here)
    return str(script)


def path() -> dict[str, str]:
    """With nats-server on it, as in its image."""
    return {"PATH": f"{Path(executable()).parent}:{os.environ['PATH']}"}


def show(made: Path, volume: Path) -> None:
    """As the kubelet does: files are links into a folder, which is another one from one moment to the next."""
    (new := volume / f"..{len(list(volume.iterdir()))}").mkdir()
    for name in FILES:
        shutil.copy(made / name, new)
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    (volume / "..new").symlink_to(new.name)
    (volume / "..new").rename(volume / "..data")


def renew(made: Path) -> None:
    """Sign another certificate, as the page did the first."""
    lines = on_the_page().replace("\\\n", "").splitlines()
    (sign,) = [line for line in lines if line.startswith("openssl x509 -req")]
    subprocess.run(["sh", "-ec", sign], cwd=made, capture_output=True, check=True)


def served(made: Path, port: int) -> bytes:
    """The certificate that a client is shown: NATS speaks first, in plain text, and then turns to TLS."""
    trusted = ssl.create_default_context(cafile=str(made / "ca.crt"))
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as plain:
        plain.recv(4096)
        with trusted.wrap_socket(plain, server_hostname=SERVERS[1]) as secure:
            return secure.getpeercert(binary_form=True) or b""
