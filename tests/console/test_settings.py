from __future__ import annotations

import pytest

from fairlead_console.settings import ConsoleSettings


def test_it_is_on_loopback_and_read_only_unless_told() -> None:
    told = ConsoleSettings()
    assert (told.host, told.port, told.token, told.open_publish) == ("127.0.0.1", 8002, "", False)


def test_every_setting_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_PORT", "0")
    monkeypatch.setenv("FAIRLEAD_TOKEN", "secret")
    told = ConsoleSettings()
    assert (told.port, told.token) == (0, "secret")
