"""What a process shows to NATS; that NATS takes it is seen in tests/system/test_nats_auth.py."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from fairlead import nkeyfiles
from fairlead.credentials import ANONYMOUS, Credentials
from fairlead.errors import Unusable

PLAIN = ["nats://127.0.0.1:4222"]


def test_nothing_is_shown_unless_it_is_asked_for() -> None:
    assert ANONYMOUS.options(PLAIN) == {}


def test_a_seed_is_read_without_its_line_end(tmp_path: Path) -> None:
    nkeyfiles.make(tmp_path)
    file = tmp_path / "edge.nk"
    seed = file.read_text()
    file.write_text(seed + "\n")
    assert Credentials(nkey=file).options(PLAIN) == {"nkeys_seed_str": seed}


def test_a_tls_url_is_enough_for_tls() -> None:
    made = ANONYMOUS.options(["nats://a", "tls://b"])
    assert isinstance(made["tls"], ssl.SSLContext)
    assert made["tls"].verify_mode is ssl.CERT_REQUIRED


def test_a_certificate_of_ones_own_is_loaded_with_its_key(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("edge")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    made = Credentials(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem").options(PLAIN)
    assert isinstance(made["tls"], ssl.SSLContext)


def test_what_cannot_be_used_is_told_by_its_flag(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("neither a seed nor a certificate\n")
    missing = tmp_path / "missing"
    for credentials, words in [
        (Credentials(nkey=missing), "--nats-nkey .*missing: No such file"),
        (Credentials(nkey=other), "--nats-nkey .*other: expected the seed of a user's nkey"),
        (Credentials(creds=missing), "--nats-creds .*missing: No such file"),
        (Credentials(nkey=other, creds=other), "both given"),
        (Credentials(ca=missing), "--nats-ca .*missing: No such file"),
        (Credentials(ca=other), "--nats-ca .*other: no certificate is in it"),
        (Credentials(cert=other), "--nats-cert .*other: it and its key"),
        (Credentials(key=other, ca=None, cert=None), "--nats-key is given without --nats-cert"),
    ]:
        with pytest.raises(Unusable, match=words):
            credentials.options(["tls://127.0.0.1"])
