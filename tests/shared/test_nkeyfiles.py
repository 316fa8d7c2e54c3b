from __future__ import annotations

from pathlib import Path

import pytest

from fairlead import cli, nkeyfiles
from fairlead.settings import CannotStart


def test_each_role_has_a_file_that_its_owner_alone_reads(tmp_path: Path) -> None:
    public = nkeyfiles.make(tmp_path / "keys")
    names = ["console", "edge", "operator", "publisher", "system", "worker"]
    assert sorted(path.stem for path in (tmp_path / "keys").iterdir()) == names
    assert sorted(public) == [f"NATS_NKEY_{name.upper()}" for name in names]
    for file in (tmp_path / "keys").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        assert nkeyfiles.public_of(file.read_bytes()) == public[f"NATS_NKEY_{file.stem.upper()}"]
    assert len(set(public.values())) == 6


def test_a_key_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "worker.nk").write_text("in use")
    with pytest.raises(CannotStart, match=r"worker\.nk is there already; remove it, or name"):
        nkeyfiles.make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["worker.nk"]


def test_the_command_prints_the_environment_of_nats_server_and_no_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["nats-config", "--keys", str(tmp_path / "keys")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("NATS_NKEY_") and "=U" in line for line in lines)
    assert "SU" not in [line.partition("=")[2][:2] for line in lines]
