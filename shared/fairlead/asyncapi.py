"""A project as an AsyncAPI 3.0 document: what clients may send to it, and what they hear.

The specification (asyncapi.com, 3.0.0) tells operations from the application's side, so what a
client sends is what we `receive`. Clients are described as speakers of `fairlead.v1` or readers of
server-sent events; a raw WebSocket is the same data without the frames.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from fairlead.errors import BadDeclaration
from fairlead.inject import Input, Signature
from fairlead.protocol import names
from fairlead.protocol.frames import SUBPROTOCOL
from fairlead.protocol.manifest import Route
from fairlead.workflow import Project, Workflow

Json = dict[str, Any]

REF = "#/components/schemas/{model}"


def document(project: Project, *, title: str, version: str, server: str) -> Json:
    """Describe every endpoint of a project; the same project gives the same document.

    Args:
        server: where its edges are reached, `http://host:port` or `https://host/prefix`.

    Raises:
        BadDeclaration: an input or a `Message[Model]` that JSON schema has no form for.
    """
    found = list(project.workflows())
    schemas = _Schemas([flow for _, flow in found])
    channels: Json = {}
    operations: Json = {}
    for route, flow in found:
        name = f"{route.feature}.{route.workflow}"
        described = _websocket if route.transport == "websocket" else _events
        channels[name], told = described(name, route, flow, schemas)
        operations |= {f"{name}.{verb}": operation for verb, operation in told.items()}
    at = urlsplit(server)
    secure = "s" if at.scheme == "https" else ""
    place = {"host": at.netloc} | ({"pathname": at.path} if at.path.strip("/") else {})
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "servers": {
            "websocket": {**place, "protocol": f"ws{secure}"},
            "events": {**place, "protocol": f"http{secure}"},
        },
        "channels": channels,
        "operations": operations,
        "components": {"schemas": {**_SCHEMAS, **schemas.shared}, "messages": _MESSAGES},
    }


class _Draft7(GenerateJsonSchema):
    """Pydantic writes JSON schema 2020-12, and OpenAPI's words; AsyncAPI's schemas are of draft 7."""

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        made = super().tuple_schema(schema)
        if "prefixItems" in made:
            made["items"] = made.pop("prefixItems")
        return made

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        made = super().tagged_union_schema(schema)
        # An object in OpenAPI, a string here. What it says, `oneOf` and the tags' `const` do, too.
        made.pop("discriminator", None)
        return made


class _Schemas:
    """JSON schemas of what workflows take: inputs by `(flow, name)`, and messages.

    Attributes:
        shared: models that they refer to, under their names.
    """

    def __init__(self, flows: Sequence[Workflow]) -> None:
        adapters: list[tuple[tuple[int, str], Any, TypeAdapter[Any]]] = []
        for number, flow in enumerate(flows):
            signature = flow.signature or Signature()
            adapters += [((number, i.name), "validation", i.adapter) for i in signature.inputs]
            for _, adapter in signature.messages:
                if adapter is not None:
                    adapters.append(((number, ""), "validation", adapter))
        try:
            made, shared = TypeAdapter.json_schemas(
                adapters, ref_template=REF, schema_generator=_Draft7
            )
        except Exception as error:  # pydantic's own, and those of a user's schema hooks
            raise BadDeclaration(f"an input has no JSON schema: {error}") from error
        self.shared: Json = shared.get("$defs", {})
        self._made = {key: schema for (key, _), schema in made.items()}
        self._numbers = {id(flow): number for number, flow in enumerate(flows)}

    def message(self, flow: Workflow) -> Json:
        """Of the data of a message; anything, where the workflow takes a bare one."""
        return self._made.get((self._numbers[id(flow)], ""), {})

    def inputs(self, flow: Workflow, where: str) -> Json:
        """Of the query or the headers, as one object; {} where there are none."""
        found = self._of(flow, where)
        if not found:
            return {}
        properties = {i.key: self._made[self._numbers[id(flow)], i.name] for i in found}
        required = [i.key for i in found if i.required]
        return {"type": "object", "properties": properties} | (
            {"required": required} if required else {}
        )

    def body(self, flow: Workflow) -> Json:
        """Of a request, as members of a message; {} where none is asked for."""
        for entry in self._of(flow, "body"):
            payload = self._made[self._numbers[id(flow)], entry.name]
            plain = {"contentType": _PLAIN[entry.type]} if entry.type in (str, bytes) else {}
            return {"payload": payload, **plain}
        return {}

    def _of(self, flow: Workflow, where: str) -> list[Input]:
        return [i for i in flow.signature.inputs if i.where == where] if flow.signature else []


def _websocket(name: str, route: Route, flow: Workflow, schemas: _Schemas) -> tuple[Json, Json]:
    said = {
        "name": "message",
        "title": "a message of the client",
        "payload": _frame(
            "message",
            {"ref": _REF_OF_OURS, "data": schemas.message(flow), "id": _ID, "encoding": _BASE64,
             "traceparent": _TEXT},
            ("ref", "data"),
        ),
    }  # fmt: skip
    heard = ["welcome", "item", "cursor", "ack", "error", "waiting", "restart", "end", "reconnect"]
    if route.overflow != "disconnect":
        heard.append("gap")
    channel = _channel(route, flow, "websocket", schemas)
    channel["messages"] = {"said": said, "cancel": _message("cancel")}
    channel["messages"] |= {each: _message(each) for each in heard}
    query = schemas.inputs(flow, "query") or {"type": "object", "properties": {}}
    query["properties"] = {"channel": _CHANNEL, "cursor": _BACK, **query["properties"]}
    headers = schemas.inputs(flow, "header") or {"type": "object", "properties": {}}
    headers["properties"] = {"Sec-WebSocket-Protocol": _SPOKEN, **headers["properties"]}
    headers["required"] = ["Sec-WebSocket-Protocol", *headers.get("required", ())]
    channel["bindings"] = {"ws": {"method": "GET", "query": query, "headers": headers}}
    return channel, {
        "receive": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": _RUN[route.run],
            "messages": _of_channel(name, ["said", "cancel"]),
        },
        "send": {
            "action": "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": _DELIVER[route.deliver],
            "messages": _of_channel(name, heard),
        },
    }


def _events(name: str, route: Route, flow: Workflow, schemas: _Schemas) -> tuple[Json, Json]:
    item = "textEvent" if route.format == "text" else "event"
    heard = [item, "base64Event", "errorEvent", "endEvent", "resumedEvent"]
    if route.topic:
        heard.append("cursorEvent")
    if route.on_worker_lost == "restart":
        heard.append("restartEvent")
    if route.resume is not None:
        heard += ["runEvent", "gapEvent"]
    channel = _channel(route, flow, "events", schemas)
    channel["messages"] = {each: _message(each) for each in heard}
    query = schemas.inputs(flow, "query") or {"type": "object", "properties": {}}
    ours = {"cursor": _BACK}
    if route.topic:
        ours["channel"] = _CHANNEL if route.executes else _CHANNELS
    if route.executes:
        ours |= {"run": _ATTACH, "key": _KEY}
    query["properties"] = {**ours, **query["properties"]}
    operations: Json = {}
    for method in route.methods:
        operations[f"stream.{method.lower()}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": "a stream of server-sent events",
            "bindings": {"http": {"method": method, "query": query}},
            "messages": _of_channel(name, heard),
        }
    body, headers = schemas.body(flow), schemas.inputs(flow, "header")
    if body or headers:
        asked: Json = {"name": "request", "title": "the request", **body}
        channel["messages"]["request"] = asked | ({"headers": headers} if headers else {})
        operations["ask"] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": "the request that starts the stream",
            "messages": _of_channel(name, ["request"]),
        }
    return channel, operations


def _channel(route: Route, flow: Workflow, server: str, schemas: _Schemas) -> Json:
    channel: Json = {
        "address": route.endpoint,
        "title": route.label,
        "servers": [{"$ref": f"#/servers/{server}"}],
    }
    documented = inspect.getdoc(flow.execute) if flow.execute is not None else None
    if documented:
        channel["description"] = documented
    if parameters := _parameters(route, flow, schemas):
        channel["parameters"] = parameters
    told: Json = {"topic": route.topic or None, "executes": route.executes, "checked": route.checks}
    if route.transport == "websocket":
        told |= {"run": route.run, "deliver": route.deliver, "window": route.window}
        told["history"] = (
            {"size": route.history.size, "age": route.history.age} if route.history else None
        )
    channel["x-fairlead"] = told
    return channel


def _parameters(route: Route, flow: Workflow, schemas: _Schemas) -> Json:
    """Those of the path. Their schema is an extension: a parameter of AsyncAPI 3 has none."""
    of_topic = names.parameters(names.topic_template(route.topic)) if route.topic else ()
    validated = schemas.inputs(flow, "path").get("properties", {})
    told: Json = {}
    for each in names.parameters(names.path_template(route.endpoint)):
        description, schema = _PARAMETERS["topic" if each in of_topic else "path"]
        told[each] = {
            "description": description,
            "x-fairlead": {"schema": validated.get(each, schema)},
        }
    return told


def _of_channel(name: str, messages: Sequence[str]) -> list[Json]:
    return [{"$ref": f"#/channels/{name}/messages/{each}"} for each in messages]


def _message(name: str) -> Json:
    return {"$ref": f"#/components/messages/{name}"}


def _frame(type: str, members: Json, required: Sequence[str] = ()) -> Json:
    properties = {"type": {"const": type}, **members}
    return {"type": "object", "properties": properties, "required": ["type", *required]}


# What is the same for every project: docs/protocol.md as schemas.

_PLAIN: dict[type, str] = {str: "text/plain", bytes: "application/octet-stream"}
_TEXT: Json = {"type": "string"}
_ID: Json = {"type": "string", "maxLength": 128, "description": "unique by being random"}
_BASE64: Json = {"const": "base64", "description": "how bytes stand in data"}
_REF_OF_OURS: Json = {
    "type": "integer",
    "minimum": 1,
    "description": "grows from message to message",
}
_NUMBER: Json = {"type": "integer", "minimum": 1}
_CURSOR: Json = {"type": ["string", "null"], "description": "opaque; null without history"}
_PROBLEM: Json = {"$ref": REF.format(model="fairlead.Problem")}
_CHANNEL: Json = {
    "type": "string",
    "pattern": f"^{names.TOKEN}$",
    "default": names.DEFAULT_CHANNEL,
    "description": "which room of the topic",
}
_CHANNELS: Json = {
    "type": "array",
    "items": _CHANNEL,
    "description": "repeated, it shows several rooms on one stream, with one cursor",
}
_BACK: Json = {
    "type": "string",
    "description": "the newest cursor that the client was given, to hear what it missed",
}
_ATTACH: Json = {"type": "string", "description": "a run that is there, to read or to DELETE"}
_KEY: Json = {"type": "string", "description": "its token; who began it needs none"}
_SPOKEN: Json = {"const": SUBPROTOCOL}
_PARAMETERS: dict[str, tuple[str, Json]] = {
    "topic": (
        "a part of the topic's name: 1 to 64 letters, digits, - or _",
        {"type": "string", "pattern": f"^{names.TOKEN}$"},
    ),
    "path": ("one segment of the path", {"type": "string"}),
}
_RUN = {
    "message": "executed once per message, on any worker",
    "connection": "read by the run of this connection",
    "topic": "refused with an error: the workflow runs once per room, and takes no messages",
}

_DELIVER = {
    "sender": "what the workflow says goes to the sender",
    "topic": "what the workflow says goes to the room",
    "others": "what the workflow says goes to the others in the room",
}

_SCHEMAS: Json = {
    "fairlead.Problem": {
        "type": "object",
        "description": "RFC 9457",
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "trace": {"type": "string", "description": "32 hex digits, as in traces and logs"},
            "errors": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["type", "title", "status"],
    }
}


def _known(name: str, title: str, payload: Json) -> Json:
    return {"name": name, "title": title, "payload": payload}


_MESSAGES: Json = {
    "welcome": _known(
        "welcome",
        "the first frame",
        _frame(
            "welcome",
            {
                "connection": _TEXT,
                "cursor": _CURSOR,
                "recovered": {"type": ["boolean", "null"]},
                "window": {"type": "integer", "description": "messages that may be unacknowledged"},
            },
            ("connection", "cursor", "recovered", "window"),
        ),
    ),
    "item": _known(
        "message",
        "an answer, or a message of the room",
        _frame(
            "message",
            {"id": _CURSOR, "data": {}, "from": _TEXT, "run": _TEXT, "ref": _NUMBER,
             "encoding": _BASE64, "trace": _TEXT},
            ("id", "data"),
        ),
    ),
    "cursor": _known(
        "cursor", "where the room stands, without a message", _frame("cursor", {"cursor": _TEXT}, ("cursor",))
    ),
    "gap": _known(
        "gap", "messages up to here were dropped, since they were not read",
        _frame("gap", {"cursor": _CURSOR}, ("cursor",)),
    ),
    "ack": _known(
        "ack", "executed, after all its items", _frame("ack", {"ref": _NUMBER, "trace": _TEXT}, ("ref",))
    ),
    "error": _known(
        "error", "instead of the ack", _frame("error", {"ref": _NUMBER, "error": _PROBLEM}, ("error",))
    ),
    "waiting": _known("waiting", "no worker yet, still trying", _frame("waiting", {"ref": _NUMBER}, ("ref",))),
    "restart": _known(
        "restart",
        "discard what came from this run before",
        _frame("restart", {"run": _TEXT, "attempt": _NUMBER, "ref": _NUMBER}, ("run", "attempt")),
    ),
    "end": _known("end", "the run of the connection has ended", _frame("end", {"run": _TEXT}, ("run",))),
    "reconnect": _known(
        "reconnect",
        "the edge is drained",
        _frame("reconnect", {"within": {"type": "integer", "description": "milliseconds"}}, ("within",)),
    ),
    "cancel": _known(
        "cancel",
        "stop a message, the run of the connection, or any other by its token",
        _frame("cancel", {"ref": _NUMBER, "run": _TEXT, "key": _TEXT}),
    ),
    "event": _known("message", "an item", {}),
    "textEvent": {
        **_known("message", "an item: text as it is, anything else as JSON", {}),
        "contentType": _PLAIN[str],
    },
    "base64Event": {
        **_known("base64", "an item of bytes", {"type": "string", "contentEncoding": "base64"}),
        "contentType": _PLAIN[str],
    },
    "resumedEvent": _known(
        "resumed",
        "the first event of a client that came back with a cursor",
        {"type": "object", "properties": {"recovered": {"type": "boolean"}}, "required": ["recovered"]},
    ),
    "cursorEvent": _known(
        "cursor",
        "where the rooms stand, without a message",
        {"type": "object", "properties": {"cursor": _TEXT}, "required": ["cursor"]},
    ),
    "restartEvent": _known(
        "restart",
        "discard what came before",
        {"type": "object", "properties": {"run": _TEXT, "attempt": _NUMBER}},
    ),
    "runEvent": _known(
        "run",
        "the run that is shown, and its token",
        {
            "type": "object",
            "properties": {"run": _TEXT, "key": _TEXT},
            "required": ["run", "key"],
        },
    ),
    "gapEvent": _known(
        "gap",
        "what the run said before is not kept any more",
        {"type": "object", "properties": {"cursor": _TEXT}, "required": ["cursor"]},
    ),
    "errorEvent": _known("error", "the run failed; the stream ends", _PROBLEM),
    "endEvent": _known("end", "the stream has ended", {"type": "object"}),
}  # fmt: skip
