"""Who may change anything through the console: those who bring its token."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from fairlead.admin import problem_response


class Guard:
    """The console's token.

    Args:
        token: "" makes the console read-only.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    @property
    def read_only(self) -> bool:
        return not self._token

    def allows(self, token: str) -> bool:
        """Whether this is the token."""
        # As bytes: `compare_digest` takes no text beyond ASCII.
        given, known = token.encode(errors="replace"), self._token.encode()
        return not self.read_only and secrets.compare_digest(given, known)

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request that may not change anything; None lets it."""
        if self.read_only:
            return problem_response(403, "this console is read-only; start it with --token")
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.allows(given.strip()):
            return None
        return problem_response(
            401, "bring the console's token: Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )  # fmt: skip


def from_elsewhere(headers: Headers) -> bool:
    """Whether a page of another origin has a browser ask this: it names its own."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")
