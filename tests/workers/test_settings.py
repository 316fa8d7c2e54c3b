from __future__ import annotations

import pytest

from fairlead import settings
from fairlead.settings import WrongUse
from fairlead_worker.settings import WorkerSettings


def test_a_target_is_all_that_is_needed() -> None:
    told = settings.load(WorkerSettings, {"target": "chat.py"})
    assert (told.concurrency, told.replicas, told.allow_shrink) == (1000, 1, False)
    assert (told.admin_host, told.admin_port) == ("127.0.0.1", None)
    assert (told.drain_grace, told.ready_grace) == (30.0, 10.0)


def test_the_target_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_TARGET", "chat.py")
    monkeypatch.setenv("FAIRLEAD_REPLICAS", "3")
    told = settings.load(WorkerSettings, {})
    assert (told.target, told.replicas) == ("chat.py", 3)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("concurrency", "0", "greater than or equal to 1"),
        ("concurrency", "10001", "less than or equal to 10000"),
        ("replicas", "2", "should be 1, 3 or 5"),
    ],
)
def test_what_is_out_of_bounds(field: str, value: str, expected: str) -> None:
    with pytest.raises(WrongUse, match=expected):
        settings.load(WorkerSettings, {"target": "chat.py", field: value})
