"""URLs with what the client adds to them."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit


def with_query(url: str, **members: str | None) -> str:
    """The URL with these query parameters instead of others of their names; None adds nothing."""
    parts = urlsplit(url)
    given = {name: value for name, value in members.items() if value is not None}
    query = [
        each for each in parse_qsl(parts.query, keep_blank_values=True) if each[0] not in given
    ]
    return urlunsplit(parts._replace(query=urlencode([*query, *given.items()])))


def has(url: str, name: str) -> bool:
    """Whether the URL has a query parameter of this name."""
    query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    return any(each == name for each, _ in query)


def over_websocket(url: str) -> str:
    """`http:` becomes `ws:`, `https:` becomes `wss:`.

    Raises:
        ValueError: it is neither of them, nor a WebSocket's already.
    """
    return _with_scheme(url, {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"})


def over_http(url: str) -> str:
    """The other way.

    Raises:
        ValueError: as `over_websocket`.
    """
    return _with_scheme(url, {"ws": "http", "wss": "https", "http": "http", "https": "https"})


def _with_scheme(url: str, schemes: dict[str, str]) -> str:
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.netloc:
        raise ValueError(
            f"{url!r} is no whole URL; expected one that begins with ws://, wss://, http:// "
            "or https:// and a host"
        )
    return urlunsplit(parts._replace(scheme=schemes[parts.scheme]))
