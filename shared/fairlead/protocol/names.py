"""Names: what may stand in a NATS subject, and how an endpoint is made of them.

Everything that becomes a token of a NATS subject is checked here, never
interpolated raw: "." starts a level, "*" and ">" are wildcards, and white space
ends a subject on the wire, so that a name that held it could smuggle in a command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fairlead.errors import BadName

DEFAULT_CHANNEL = "-"
"""The channel of a client that names none; it can be named, too."""

TOKEN = "[A-Za-z0-9_-]{1,64}"
"""The pattern of channel names and of the values of topic parameters."""

_token = re.compile(TOKEN)
_name = re.compile(r"[A-Za-z][A-Za-z0-9 ._-]*")
_parameter = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_segment = re.compile(r"[A-Za-z0-9._~-]+")
_hump = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def is_token(text: str) -> bool:
    """Whether `text` may be a channel name or the value of a topic parameter."""
    return _token.fullmatch(text) is not None


def channel(text: str) -> str:
    """Return `text` if it is a channel name.

    Raises:
        BadName: it is not; the text says which characters are.
    """
    if not is_token(text):
        raise BadName(
            f"channel {text[:80]!r} is not a channel name; "
            "expected 1 to 64 letters, digits, '-' or '_'"
        )
    return text


def name(kind: str, text: str) -> str:
    """Return `text` if a feature, tag or workflow may be called so."""
    if not isinstance(text, str) or _name.fullmatch(text) is None:
        raise BadName(
            f"{kind} {text!r} is not a name; expected a letter, then letters, digits, "
            "blanks, '.', '_' or '-'"
        )
    return text


def _words(text: str, joint: str) -> str:
    words = re.split(r"[ ._-]+", _hump.sub("-", text))
    return joint.join(word.lower() for word in words if word)


def kebab_case(text: str) -> str:
    """`UsersFeature` → `users-feature`, `HTTPServer` → `http-server`."""
    return _words(text, "-")


def snake_case(text: str) -> str:
    """`RealTime` → `real_time`, `real-time` → `real_time`."""
    return _words(text, "_")


def topic_template(text: str) -> tuple[str, ...]:
    """Return the levels of a topic such as `rooms.{room}`; each is a token or one `{parameter}`.

    Raises:
        BadName: a level is neither, or a parameter stands twice.
    """
    levels = tuple(text.split(".")) if isinstance(text, str) else ()
    parameters = [m[1] for level in levels if (m := _parameter.fullmatch(level))]
    good = all(_parameter.fullmatch(level) or is_token(level) for level in levels)
    if not levels or not good or len(set(parameters)) < len(parameters):
        raise BadName(
            f"topic {text!r} is not a topic; expected names of letters, digits, '-' and '_' "
            "joined by '.', where a whole level may be a {parameter}, each once"
        )
    return levels


def parameters(levels: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the `{parameters}` among the levels of a topic or the segments of a path."""
    return tuple(m[1] for level in levels if (m := _parameter.fullmatch(level)))


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one name can match both topic templates."""
    return len(one) == len(other) and all(
        a == b or a.startswith("{") or b.startswith("{") for a, b in zip(one, other, strict=True)
    )


def fill(levels: tuple[str, ...], values: Mapping[str, str]) -> str:
    """The topic's name for these parameter values.

    Raises:
        BadName: a value may not stand in a NATS subject.
    """
    filled = []
    for level in levels:
        if found := _parameter.fullmatch(level):
            value = values[found[1]]
            if not is_token(value):
                raise BadName(
                    f"{found[1]} {value[:80]!r} may not stand in a topic; "
                    "expected 1 to 64 letters, digits, '-' or '_'"
                )
            filled.append(value)
        else:
            filled.append(level)
    return ".".join(filled)


def path_template(path: str) -> tuple[str, ...]:
    """Return the segments of a trigger's path, such as `/logs/{id}`; `/` has none.

    Raises:
        BadName: no leading slash, a trailing one, `..`, or a segment with other characters.
    """
    if path == "/":
        return ()
    absolute = isinstance(path, str) and path.startswith("/")
    segments = tuple(path[1:].split("/")) if absolute else ("",)
    for segment in segments:
        dots = segment in (".", "..")
        if dots or not (_parameter.fullmatch(segment) or _segment.fullmatch(segment)):
            raise BadName(
                f"path {path!r} is not a path; expected '/' or segments such as '/logs/{{id}}' "
                "of letters, digits, '-', '_', '.' and '~', without '..' or a trailing slash"
            )
    if len(set(parameters(segments))) < len(parameters(segments)):
        raise BadName(f"path {path!r} names a parameter twice; give each a name of its own")
    return segments


def endpoint(feature: str, tag: str, path: str) -> str:
    """`/{feature in kebab-case}/{tag in snake_case}{path}`, without a trailing slash.

    >>> endpoint("HTTPServer", "RealTime", "/logs/{id}")
    '/http-server/real_time/logs/{id}'
    """
    segments = path_template(path)
    start = f"/{kebab_case(name('feature', feature))}/{snake_case(name('tag', tag))}"
    return "/".join((start, *segments))
