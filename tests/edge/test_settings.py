from __future__ import annotations

from pathlib import Path

import pytest

from fairlead import settings
from fairlead.settings import WrongUse
from fairlead_edge.settings import EdgeSettings


def test_the_defaults_listen_on_loopback_only() -> None:
    told = settings.load(EdgeSettings, {})
    assert (told.host, told.port) == ("127.0.0.1", 8000)
    assert (told.admin_host, told.admin_port) == ("127.0.0.1", 8001)
    assert (told.drain_grace, told.worker_wait, told.ready_grace) == (30.0, 10.0, 10.0)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_WORKER_WAIT", "250ms")
    monkeypatch.setenv("FAIRLEAD_READY_GRACE", "1m")
    monkeypatch.setenv("FAIRLEAD_ADMIN_PORT", "none")
    told = settings.load(EdgeSettings, {})
    assert (told.worker_wait, told.ready_grace, told.admin_port) == (0.25, 60.0, None)


def test_a_port_that_is_none_is_refused_where_clients_connect() -> None:
    with pytest.raises(
        WrongUse, match=r"--port: found 'none', but input should be a valid integer"
    ):
        settings.load(EdgeSettings, {"port": "none"})


def test_clients_and_operators_have_a_port_each() -> None:
    with pytest.raises(WrongUse, match=r"--admin-port: found 9000, which is --port, too; choose"):
        settings.load(EdgeSettings, {"port": "9000", "admin_port": "9000"})
    assert settings.load(EdgeSettings, {"port": "0", "admin_port": "0"}).admin_port == 0


def test_pages_are_a_folder_that_is_there(tmp_path: Path) -> None:
    assert settings.load(EdgeSettings, {}).pages is None
    assert settings.load(EdgeSettings, {"pages": str(tmp_path)}).pages == tmp_path
    with pytest.raises(WrongUse, match=r"--pages: found '/nix', but path does not point to a dir"):
        settings.load(EdgeSettings, {"pages": "/nix"})
