"""Who a process is to NATS, and whom it trusts: files, read anew for each connection that is made."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fairlead.errors import Unusable


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is shown to NATS. A user and a password, or a token, stand in its URL instead.

    Attributes:
        nkey: file with the seed of an nkey, `SU…`.
        creds: file with a JWT and its seed, of a server in operator mode.
        ca: file with the certificates that the server's must be signed by; the system's without it.
        cert, key: files with this process' own certificate and its key, for servers that verify.
    """

    nkey: Path | None = None
    creds: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def options(self, servers: list[str]) -> dict[str, Any]:
        """The arguments of nats-py's `connect`; TLS where a file or a `tls://` URL asks for it.

        Raises:
            Unusable: a file cannot be read, or is not what it should be, or they contradict.
        """
        made: dict[str, Any] = {}
        if self.nkey is not None and self.creds is not None:
            raise Unusable("--nats-nkey and --nats-creds are both given; NATS takes one of them")
        if self.key is not None and self.cert is None:
            raise Unusable("--nats-key is given without --nats-cert, the certificate that it is of")
        if self.nkey is not None:
            made["nkeys_seed_str"] = _seed(self.nkey)
        if self.creds is not None:
            _readable(self.creds, "--nats-creds")
            made["user_credentials"] = str(self.creds)
        if self.ca or self.cert or any(urlsplit(server).scheme == "tls" for server in servers):
            made["tls"] = self._tls()
        return made

    def _tls(self) -> ssl.SSLContext:
        if self.ca is not None:
            _readable(self.ca, "--nats-ca")
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
        except ssl.SSLError as error:
            raise Unusable(
                f"--nats-ca {self.ca}: no certificate is in it ({error.reason})"
            ) from None
        if self.cert is not None:
            for file in (self.cert, self.key):
                if file is not None:
                    _readable(file, "--nats-cert and --nats-key")
            try:
                context.load_cert_chain(self.cert, self.key)
            except ssl.SSLError as error:
                raise Unusable(
                    f"--nats-cert {self.cert}: it and its key (--nats-key) do not belong together, "
                    f"or are not in PEM form ({error.reason})"
                ) from None
        return context


ANONYMOUS = Credentials()


def _seed(file: Path) -> str:
    found = _readable(file, "--nats-nkey").decode("ascii", "replace").strip()
    # A user's: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth
    if not (found.startswith("SU") and len(found) == 58):
        raise Unusable(
            f"--nats-nkey {file}: expected the seed of a user's nkey, 58 characters that begin with SU; "
            "`fairlead nats-config --keys DIR` makes some"
        )
    return found


def _readable(file: Path, flag: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Unusable(f"{flag} {file}: {error.strerror or error}") from None
