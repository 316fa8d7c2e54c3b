"""The libraries of the extra `client`: importing `fairlead` does not need them."""

from __future__ import annotations

try:
    import httpx
    import websockets
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"fairlead.client needs {error.name}, which is not installed; "
        "it comes with Fairlead's extra client (in a clone: pip install '.[client]')",
        name=error.name,
    ) from error

__all__ = ["httpx", "websockets"]
