"""What a server says of a failure, as an exception."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from fairlead import errors


class FairleadError(errors.FairleadError):
    """Whatever failed, on the server or on the way.

    Attributes:
        status: of the server's problem, or 0 for what went wrong on this side of the network.
        detail: the problem in words.
        errors: the inputs that were not what the workflow's annotations say, as
            `{"loc": [...], "msg": str, "type": str}`.
        trace: the trace id that stands in the worker's log, too.
        ref, id: of the message that failed: as in its frame, and as the application knows it.
        code: the close code, where a connection was closed for good.
        retry_after: seconds before the same request may be made again, where the server said so.
    """

    def __init__(
        self,
        problem: Mapping[str, Any],
        *,
        ref: int | None = None,
        id: str | None = None,
        code: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status: int = problem.get("status", 0)
        self.detail: str = (
            problem.get("detail") or problem.get("title") or f"failed with status {self.status}"
        )
        super().__init__(self.detail)
        self.errors: list[dict[str, Any]] = problem.get("errors", [])
        self.trace: str | None = problem.get("trace")
        self.ref = ref
        self.id = id
        self.code = code
        self.retry_after = retry_after

    def of(self, id: str) -> FairleadError:
        """The same failure, of one message."""
        problem = {
            "status": self.status,
            "detail": self.detail,
            "errors": self.errors,
            "trace": self.trace,
        }
        return FairleadError(problem, id=id, code=self.code, retry_after=self.retry_after)


def ours(detail: str, **more: Any) -> FairleadError:
    """What went wrong on this side of the network."""
    return FairleadError({"detail": detail}, **more)


def refused(status: int, headers: Mapping[str, str], body: bytes) -> FairleadError:
    """The error of an HTTP answer that is none of those that were asked for."""
    problem: dict[str, Any] = {}
    if "json" in headers.get("content-type", ""):
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = None
        if isinstance(found, dict):
            problem = found
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:  # none, or a date
        seconds = None
    return FairleadError({**problem, "status": status}, retry_after=seconds)
