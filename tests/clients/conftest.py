"""The JavaScript client, built."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from support.node import CLIENT, NODE


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built JavaScript client. The build fails where it has grown too large.

    Tests may run in several processes: the first one builds it, for all.
    """
    assert (CLIENT / "node_modules").is_dir(), "no compiler; `make test` installs it"
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    with (tmp_path_factory.getbasetemp().parent / f"javascript-{run}").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.fstat(lock.fileno()).st_size:
            done = subprocess.run([NODE, "build.mjs"], cwd=CLIENT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            lock.write("built")
    return CLIENT / "dist"
