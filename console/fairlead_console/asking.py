"""Asking a program that has traces, over HTTP; and what to say when it does not answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import httpx

from fairlead.settings import CannotStart, WrongUse

TIMEOUT = 10.0
"""Seconds for each answer."""

Kind = Literal["auto", "console", "jaeger", "tempo"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to ask, and how.

    Attributes:
        service: among whose traces Jaeger and Tempo look.
        since: seconds that they look back.
        header: `Name: value`, or "".
    """

    url: str
    kind: Kind = "auto"
    service: str = "fairlead-edge"
    since: float = 3600.0
    header: str = ""


class Http:
    """GETs below one address, and what to say when they fail."""

    def __init__(self, asked: Asked) -> None:
        host, self.shown = _address(asked.url)
        self._client = httpx.Client(
            base_url=asked.url,
            headers={"Accept": "application/json", **_header(asked.header)},
            timeout=TIMEOUT,
            follow_redirects=True,
            # A proxy is not asked for what is on this machine.
            trust_env=host not in ("127.0.0.1", "localhost", "::1"),
        )

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> httpx.Response:
        """The answer, whatever its status.

        Raises:
            CannotStart: there is none, or it wants somebody else to ask.
        """
        try:
            answer = self._client.get(path, params=query)
        except httpx.TimeoutException:
            raise CannotStart(f"{self.shown} did not answer within {TIMEOUT:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CannotStart(
                f"nothing answers at {self.shown} ({_words(error)}); is `fairlead dev` running? "
                "name a console, Jaeger or Tempo with --from"
            ) from None
        if answer.status_code in (401, 403):
            raise CannotStart(
                f"{self.shown} refuses with status {answer.status_code}; give it what it asks for "
                "in the URL (http://user:password@host) or with --header"
            )
        return answer

    def json(self, path: str, **query: str | int) -> Any:
        """What a successful answer says; None for a 404.

        Raises:
            CannotStart: it is another one, or no JSON.
        """
        answer = self.get(path, **query)
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            said = " ".join(answer.text.split())[:200]
            raise CannotStart(f"{self.shown} answers with status {answer.status_code}: {said}")
        found = parsed(answer)
        if found is None:
            raise CannotStart(f"{self.shown} answers, but not in JSON; is --kind right?")
        return found


def _address(url: str) -> tuple[str, str]:
    """The host of a URL, and the URL without what is nobody's business."""
    wrong = WrongUse("--from: expected http://host:port or https://host")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # half of an IPv6 address, or a port that is none
        raise wrong from None
    if not host or parts.scheme not in ("http", "https"):
        raise wrong
    netloc = parts.netloc.rpartition("@")[2]
    return host, urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def _header(text: str) -> dict[str, str]:
    name, colon, value = text.partition(":")
    if text and not (name.strip().isascii() and value.isascii() and text.isprintable() and colon):
        raise WrongUse("--header: expected NAME:VALUE, for example 'X-Scope-OrgID: team'")
    return {name.strip(): value.strip()} if text else {}


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def parsed(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
