"""Keys for the roles: a file with a seed for each, which the process shows to NATS (`--nats-nkey`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nkeys

from fairlead.natsconfig import OPERATORS, SYSTEM, variable
from fairlead.protocol.permissions import Role
from fairlead.settings import CannotStart


def make(folder: Path) -> dict[str, str]:
    """Write `edge.nk`, `worker.nk`, …, `operator.nk` and `system.nk` into a folder, readable by their owner alone.

    Returns:
        variable of nats-server's environment → public nkey.

    Raises:
        CannotStart: a file is there already; a key that is in use is never written over.
    """
    variables = {role.value: variable(role) for role in Role}
    variables |= {"operator": OPERATORS, "system": SYSTEM}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = {name: folder / f"{name}.nk" for name in variables}
    there = [str(file) for file in files.values() if file.exists()]
    if there:
        raise CannotStart(f"{there[0]} is there already; remove it, or name another folder")
    return {variables[name]: _write(file) for name, file in files.items()}


def _write(file: Path) -> str:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(seed)
    return public_of(seed)


def public_of(seed: bytes) -> str:
    """The public half of a seed, as nats-server knows it."""
    public: Any = nkeys.from_seed(bytearray(seed)).public_key  # bytes, whatever it is declared as
    return str(public, "ascii")
