"""What the client needs, and says if it is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["httpx", "websockets"])
def test_a_library_that_is_missing_is_named_with_the_extra_that_brings_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import fairlead; import fairlead.client"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: fairlead.client needs {missing}, which is not installed; "
        "it comes with Fairlead's extra client (in a clone: pip install '.[client]')"
    )
