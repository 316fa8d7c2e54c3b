"""Type checkers find a user's mistakes in the lines where they are, and none elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent

RIGHT, WRONG = HERE / "right.py", HERE / "wrong.py"


def mypy(file: Path, scratch: Path) -> set[int]:
    """The lines of a file that mypy refuses, set up as a user has it: strict, with no more."""
    told = ["mypy", "--strict", "--config-file=", f"--cache-dir={scratch}", str(file)]
    ran = subprocess.run([sys.executable, "-m", *told], capture_output=True, text=True, cwd=scratch)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    return {int(line) for line in re.findall(rf"{file.name}:(\d+): error", ran.stdout)}


def pyright(file: Path, scratch: Path) -> set[int]:
    """The lines of a file that pyright refuses in its strict mode."""
    shutil.copy(file, scratch)
    (scratch / "pyrightconfig.json").write_text(json.dumps({"strict": ["."]}))
    told = ["pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(scratch)]
    ran = subprocess.run([sys.executable, "-m", *told], capture_output=True, text=True, cwd=scratch)
    found = json.loads(ran.stdout)
    assert found["summary"]["filesAnalyzed"] == 1, ran.stdout
    return {
        1 + each["range"]["start"]["line"]
        for each in found["generalDiagnostics"]
        if each["severity"] == "error"
    }


CHECKERS = [mypy, pyright]
Checker = Callable[[Path, Path], set[int]]


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_program_that_is_right_has_no_errors(checker: Checker, tmp_path: Path) -> None:
    assert checker(RIGHT, tmp_path) == set()


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_mistake_is_an_error_in_its_line(checker: Checker, tmp_path: Path) -> None:
    lines = WRONG.read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert checker(WRONG, tmp_path) == marked
