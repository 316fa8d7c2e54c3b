"""What `execute` is given, by annotation: the context, the message, and validated inputs.

A signature is read once, when the workflow is declared; what contradicts itself is refused then.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from fairlead.context import SSE, WS, Message
from fairlead.errors import BadDeclaration, Invalid
from fairlead.protocol.envelope import DataType
from fairlead.protocol.problems import presentable

MOST_ERRORS = 100
"""Of one input or message, that are listed."""

LONGEST_MESSAGE, LONGEST_STEP = 1000, 200
"""Characters of what is said of one, and of each key on the way to where it is."""

Where = Literal["query", "path", "header", "body"]


@dataclass(frozen=True, slots=True)
class Query:
    """`Annotated[int, Query()]`: of the URL's query; a list takes every value of the name.

    Attributes:
        alias: the name in the query; the parameter's own by default.
    """

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """`Annotated[int, Path()]`: one of the path's `{parameters}`.

    Attributes:
        alias: the name in the path; the parameter's own by default.
    """

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """`Annotated[str, Header()]`: a request header.

    Attributes:
        alias: its name; by default the parameter's own with `-` for `_`.
    """

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """`Annotated[Model, Body()]`: the body of an SSE request, as JSON.

    `bytes` takes it as it is, `str` as UTF-8 text.
    """


_MARKERS: dict[type, Where] = {Query: "query", Path: "path", Header: "header", Body: "body"}
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Input:
    """A parameter that is filled from the request.

    Attributes:
        name: of the parameter; key: its name in the request.
        many: whether it takes every value of a repeated name.
        type: what its value is validated against.
    """

    name: str
    where: Where
    key: str
    type: Any
    many: bool
    required: bool
    adapter: TypeAdapter[Any]

    def value(self, ctx: WS | SSE) -> Any:
        """Its validated value; _MISSING where the default is to be used.

        Raises:
            ValidationError: it is missing, or not what it should be.
        """
        if self.where == "body":
            return self._body(ctx)
        found = self._found(ctx)
        if found is _MISSING:
            if not self.required:
                return _MISSING
            raise ValidationError.from_exception_data(
                self.key, [{"type": "missing", "loc": (), "input": None}]
            )
        return self.adapter.validate_python(found)

    def _found(self, ctx: WS | SSE) -> Any:
        if self.where == "query":
            found: Any = ctx.queries.get(self.key, _MISSING)
            if found is _MISSING or self.many:
                return found
            return found[-1]
        fields = ctx.headers if self.where == "header" else ctx.path
        return fields.get(self.key, _MISSING)

    def _body(self, ctx: WS | SSE) -> Any:
        assert isinstance(ctx, SSE), "a handshake has no body, so none is declared"
        if not ctx.body and not self.required:
            return _MISSING
        if self.type is bytes:
            return ctx.body
        if self.type is str:
            return self.adapter.validate_python(ctx.body)
        return self.adapter.validate_json(ctx.body)


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of one `execute`.

    Attributes:
        ctx: names of those that take the context.
        messages: names of those that take the message, and what its data is validated against.
        inputs: those that are filled from the request.
    """

    ctx: tuple[str, ...] = ()
    messages: tuple[tuple[str, TypeAdapter[Any] | None], ...] = ()
    inputs: tuple[Input, ...] = ()

    @property
    def per_message(self) -> bool:
        """Whether it is called once a message."""
        return bool(self.messages)

    @property
    def headers(self) -> frozenset[str]:
        """Names of the request headers that it takes, in lower case."""
        return frozenset(each.key.lower() for each in self.inputs if each.where == "header")

    def connection_arguments(self, ctx: WS | SSE) -> dict[str, Any]:
        """The context, and what the request holds.

        Raises:
            Invalid: something is missing or not what it should be; all of it is listed.
        """
        arguments: dict[str, Any] = dict.fromkeys(self.ctx, ctx)
        if not self.inputs:
            return arguments
        wrong: list[dict[str, Any]] = []
        for entry in self.inputs:
            try:
                value = entry.value(ctx)
            except ValidationError as error:
                place: list[str] = [entry.where]
                if entry.where != "body":
                    place.append(entry.key)
                wrong += _errors(error, place)
            else:
                if value is not _MISSING:
                    arguments[entry.name] = value
        if wrong:
            raise Invalid("the request's inputs are not valid", wrong)
        return arguments

    def message_argument(self, message: Message[Any]) -> dict[str, Any]:
        """The message, its data validated.

        Raises:
            Invalid: its data is not what the annotation says.
        """
        arguments: dict[str, Any] = {}
        for name, adapter in self.messages:
            if adapter is not None:
                message.data = _validated(message, adapter)
            arguments[name] = message
        return arguments


def _validated(message: Message[Any], adapter: TypeAdapter[Any]) -> Any:
    try:
        if message.type is DataType.BINARY:
            return adapter.validate_python(message.raw)
        if message.type is DataType.TEXT and adapter.core_schema["type"] == "str":
            return adapter.validate_python(message.raw.decode())
        return adapter.validate_json(message.raw)
    except ValidationError as error:
        raise Invalid("the message's data is not valid", _errors(error, [])) from None


def _errors(error: ValidationError, place: list[str]) -> list[dict[str, Any]]:
    """What is wrong, without the value: it may be a secret."""
    if (count := error.error_count()) > MOST_ERRORS:
        # pydantic makes all of them or none: 200,000, of 1 MiB, would hold the loop for a second.
        said = f"{count} errors, which are too many to be listed; at most {MOST_ERRORS} are"
        return [{"loc": place, "msg": said, "type": "too_many_errors"}]
    return [
        {
            "loc": [*place, *map(_step, found["loc"])],
            "msg": presentable(found["msg"], LONGEST_MESSAGE),
            "type": found["type"],
        }
        for found in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _step(step: int | str) -> int | str:
    """A key may be as long as the message is."""
    return presentable(step, LONGEST_STEP) if isinstance(step, str) else step


# Reading a signature


def signature(
    execute: Callable[..., Any],
    *,
    transport: Literal["websocket", "sse"],
    path: Collection[str],
    label: str,
) -> Signature:
    """Which parameter gets what.

    Args:
        path: names of the path's parameters.
        label: the workflow, for messages.

    Raises:
        BadDeclaration: a parameter that cannot be filled.
    """
    return _Reader(transport, path, label).read(execute)


class _Reader:
    def __init__(
        self, transport: Literal["websocket", "sse"], path: Collection[str], label: str
    ) -> None:
        self._context = WS if transport == "websocket" else SSE
        self._path = path
        self._label = label
        self._ctx: list[str] = []
        self._messages: list[tuple[str, TypeAdapter[Any] | None]] = []
        self._inputs: list[Input] = []

    def read(self, execute: Callable[..., Any]) -> Signature:
        try:
            hints = typing.get_type_hints(execute, include_extras=True)
        except (NameError, AttributeError, TypeError) as error:  # TypeError: no function at all
            raise self._bad(f"the annotations of execute cannot be read: {error}") from None
        for parameter in inspect.signature(execute).parameters.values():
            self._parameter(parameter, hints.get(parameter.name))
        return Signature(tuple(self._ctx), tuple(self._messages), tuple(self._inputs))

    def _bad(self, detail: str) -> BadDeclaration:
        return BadDeclaration(f"workflow {self._label!r}: {detail}")

    def _parameter(self, parameter: inspect.Parameter, hint: Any) -> None:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return
        by_name = parameter.kind is not parameter.POSITIONAL_ONLY  # arguments are passed by name
        if hint is None and parameter.name == "ctx":
            hint = self._context
        marker = _marker(hint)
        if by_name and hint is self._context:
            self._ctx.append(parameter.name)
        elif by_name and _is_message(hint):
            self._message(parameter.name, hint)
        elif by_name and marker is not None:
            self._input(parameter, hint, marker)
        elif parameter.default is parameter.empty:
            expected = [f"ctx: {self._context.__name__}"]
            if self._context is WS:
                expected.append("message: Message or Message[Model]")
            expected.append("Annotated[type, Query() | Path() | Header() | Body()]")
            raise self._bad(
                f"parameter {parameter.name!r} cannot be filled; expected one of "
                + ", ".join(expected)
            )

    def _message(self, name: str, hint: Any) -> None:
        if self._context is SSE:
            raise self._bad(f"{name!r} takes a message, but event streams take none; use Body()")
        model = typing.get_args(hint)
        self._messages.append((name, self._adapter(name, model[0]) if model else None))

    def _input(self, parameter: inspect.Parameter, hint: Any, marker: Any) -> None:
        name, where = parameter.name, _MARKERS[type(marker)]
        wanted = typing.get_args(hint)[0]
        key = getattr(marker, "alias", None) or name
        if where == "header" and marker.alias is None:
            key = name.replace("_", "-")
        if where == "path" and key not in self._path:
            known = ", ".join(sorted(self._path)) or "none"
            raise self._bad(f"{key!r} is no parameter of the path; it has {known}")
        if where == "body" and self._context is WS:
            raise self._bad(f"{name!r} takes a body, but a WebSocket's handshake has none")
        self._inputs.append(
            Input(
                name=name,
                where=where,
                key=key,
                type=wanted,
                many=typing.get_origin(wanted) in (list, set, tuple, frozenset),
                required=parameter.default is parameter.empty,
                adapter=self._adapter(name, hint),
            )
        )

    def _adapter(self, name: str, hint: Any) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(hint)
        except Exception as error:  # whatever pydantic, or a user's own schema hook, raises
            raise self._bad(f"{name!r} cannot be validated: {error}") from error


def _is_message(hint: Any) -> bool:
    return hint is Message or typing.get_origin(hint) is Message


def _marker(hint: Any) -> Any:
    """The Query, Path, Header or Body of an Annotated hint; None without one."""
    for extra in getattr(hint, "__metadata__", ()):
        made = extra() if isinstance(extra, type) and extra in _MARKERS else extra
        if type(made) in _MARKERS:
            return made
    return None
