"""Run a module and note where its CPU time goes: `python -m bench.sampler OUT MODULE [ARG ...]`.

Each millisecond of CPU time a signal looks at the main thread's stack. What C does (the
event loop, system calls, orjson) counts for the Python line that called it. Unlike
cProfile this costs the same whatever the code is, so that many small calls don't look
worse than they are. SIGUSR1 forgets what was before, such as the imports.
"""

from __future__ import annotations

import collections
import json
import runpy
import signal
import sys
from pathlib import Path
from types import FrameType

EVERY = 0.001
"""Seconds of CPU time between two looks; the kernel's tick may make it 4 ms."""

own: collections.Counter[str] = collections.Counter()
"""Looks by the function that was running."""

total: collections.Counter[str] = collections.Counter()
"""Looks by each function that was on the stack."""


def _look(_number: int, frame: FrameType | None) -> None:
    on_stack = set()
    innermost = True
    while frame is not None:
        code = frame.f_code
        name = f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}"
        if innermost:
            own[name] += 1
            innermost = False
        on_stack.add(name)
        frame = frame.f_back
    total.update(on_stack)


def _forget(_number: int, _frame: FrameType | None) -> None:
    own.clear()
    total.clear()


def main() -> None:
    out, module, *argv = sys.argv[1:]
    sys.argv = [module, *argv]
    signal.signal(signal.SIGPROF, _look)
    signal.signal(signal.SIGUSR1, _forget)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(out).write_text(json.dumps({"own": own, "total": total}))


if __name__ == "__main__":
    main()
