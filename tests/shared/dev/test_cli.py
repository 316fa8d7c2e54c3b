from __future__ import annotations

import subprocess
import sys

import pytest

from fairlead import cli


def test_the_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dev", "--help"]) == 0
    out = capsys.readouterr().out
    for flag in ("--port", "--admin-port", "--edges", "--workers"):
        assert flag in out


def test_without_its_extra_it_says_how_to_get_it() -> None:
    program = (
        "import sys; sys.modules['watchfiles'] = None\n"
        "from fairlead import cli; sys.exit(cli.main(['dev', 'chat.py']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "fairlead: watchfiles is not installed; it comes with Fairlead's extra dev (in a clone: pip install '.[dev]')\n"
    )
