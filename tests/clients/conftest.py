"""The JavaScript client, built."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.node import CLIENT, NODE


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the built JavaScript client. The build fails where it has grown too large."""
    assert (CLIENT / "node_modules").is_dir(), "no compiler; `make test` installs it"
    done = subprocess.run([NODE, "build.mjs"], cwd=CLIENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return CLIENT / "dist"
