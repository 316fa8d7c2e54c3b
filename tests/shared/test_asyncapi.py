"""`fairlead asyncapi`: the document is one by the specification's own schema, and says enough."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import jsonschema
import pytest
from pydantic import BaseModel, Field
from pydantic_core import core_schema

from fairlead import (
    SSE,
    WS,
    Body,
    Header,
    History,
    Message,
    Project,
    Query,
    feature,
    inject,
    loading,
    project,
    trigger,
    workflow,
)
from fairlead.asyncapi import document
from fairlead.errors import BadDeclaration
from fairlead.protocol import frames
from fairlead.protocol.envelope import DataType
from fairlead.protocol.problems import problem

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "asyncapi-3.0.0.json").read_text())

Json = dict[str, Any]


class Point(BaseModel):
    x: float


class Drawing(BaseModel):
    points: list[Point]


class Circle(BaseModel):
    kind: Literal["circle"]
    centre: tuple[float, float]


class Route(BaseModel):
    kind: Literal["route"]
    legs: tuple[int, ...]


class Shapes(BaseModel):
    shapes: list[Annotated[Circle | Route, Field(discriminator="kind")]]


class Opaque:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.is_instance_schema(cls)


board = feature("Board")


@board.websocket(
    "rooms.{room}", tag="v1", deliver="others", history=History(size=5, age="1m"), overflow="latest"
)
async def draw(
    ctx: WS,
    message: Message[Drawing],
    level: Annotated[int, Query()],
    x_lang: Annotated[str, Header()],
) -> Drawing:
    """What one draws, the others see."""
    return message.data


@board.websocket("steps", tag="v1")
async def steps(ctx: WS) -> AsyncIterator[str]:
    async for message in ctx.channel:
        yield message.data


@board.sse("/ask", tag="v1")
async def ask(ctx: SSE, question: Annotated[Drawing, Body()]) -> str:
    return "why?"


WATCH = workflow("Watch", tag="v1", trigger=trigger.sse("/watch", topic="steps", method="get"))

app = project(board, feature("Walls", [WATCH]))


def made(of: Project = app, server: str = "http://127.0.0.1:8000") -> Json:
    """A document, checked: so no test is about one that the specification refuses."""
    whole = document(of, title="A board", version="2.1.0", server=server)
    jsonschema.Draft7Validator(SCHEMA).validate(whole)
    return whole


def followed(whole: Json, ref: Json) -> Json:
    """What a `$ref` leads to."""
    found: Any = whole
    while "$ref" in ref:
        found = whole
        for step in ref["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        ref = found
    return cast(Json, found)


def refs(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in refs(value)]
    if isinstance(node, list):
        return [ref for value in node for ref in refs(value)]
    return []


def everything() -> Project:
    return cast(Project, loading.load(str(ROOT / "tests/system/projects/everything.py"), Project))


@pytest.mark.parametrize("of", [app, project(), everything()], ids=["board", "empty", "everything"])
def test_the_document_is_one_by_the_specifications_schema(of: Project) -> None:
    assert made(of)["asyncapi"] == "3.0.0"


def test_that_schema_finds_a_fault() -> None:
    whole = made()
    whole["channels"]["board.draw"]["adress"] = "/typo"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate(whole)


def test_every_reference_leads_somewhere() -> None:
    whole = made()
    for ref in refs(whole):
        assert followed(whole, {"$ref": ref}), ref


def test_a_channel_is_an_endpoint_with_its_parameters_and_what_its_function_says() -> None:
    channel = made()["channels"]["board.draw"]
    assert channel["address"] == "/board/v1/rooms/{room}"
    assert channel["title"] == "Board/draw"
    assert channel["description"] == "What one draws, the others see."
    assert channel["parameters"]["room"]["x-fairlead"]["schema"] == {
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]{1,64}$",
    }
    assert channel["x-fairlead"] == {
        "topic": "rooms.{room}",
        "executes": True,
        "checked": True,
        "run": "message",
        "deliver": "others",
        "window": 1,
        "history": {"size": 5, "age": 60.0},
    }


def test_the_run_of_a_room_refuses_what_clients_send() -> None:
    ticks = feature("Board")

    @ticks.websocket("ticks", tag="v1", run="topic")
    async def tick(ctx: WS) -> AsyncIterator[int]:
        yield 1

    whole = made(project(ticks))
    assert whole["channels"]["board.tick"]["x-fairlead"]["run"] == "topic"
    operations = whole["operations"]
    assert "takes no messages" in operations["board.tick.receive"]["summary"]
    assert "to the room" in operations["board.tick.send"]["summary"]


def test_what_a_client_sends_is_received_and_has_the_schema_of_its_model() -> None:
    whole = made()
    operation = whole["operations"]["board.draw.receive"]
    assert operation["action"] == "receive"
    said = followed(whole, operation["messages"][0])
    assert said["payload"]["properties"]["type"] == {"const": "message"}
    drawing = followed(whole, said["payload"]["properties"]["data"])
    assert drawing["required"] == ["points"]
    point = followed(whole, drawing["properties"]["points"]["items"])
    assert point["properties"]["x"]["type"] == "number"


@pytest.mark.parametrize(
    ("shape", "good"),
    [
        ({"kind": "circle", "centre": [1, 2]}, True),
        ({"kind": "circle", "centre": ["1", 2]}, False),
        ({"kind": "route", "legs": [1, 2, 3]}, True),
        ({"kind": "route", "legs": [1, 2, "3"]}, False),
        ({"kind": "square"}, False),
    ],
)
def test_unions_and_tuples_are_told_in_the_draft_of_the_specification(
    shape: Json, good: bool
) -> None:
    """Pydantic's own words for them are OpenAPI's, which it refuses, and 2020-12's, which it ignores."""
    odd = feature("Odd")

    @odd.websocket("odd", tag="v1")
    async def said(ctx: WS, message: Message[Shapes]) -> None: ...

    whole = made(project(odd))
    shapes = jsonschema.Draft7Validator({**whole, "$ref": "#/components/schemas/Shapes"})
    assert shapes.is_valid({"shapes": [shape]}) is good


def test_a_bare_message_may_be_anything() -> None:
    said = made()["channels"]["board.steps"]["messages"]["said"]
    assert said["payload"]["properties"]["data"] == {}


def test_the_handshake_has_the_query_and_the_headers_that_are_asked_for() -> None:
    binding = made()["channels"]["board.draw"]["bindings"]["ws"]
    assert binding["query"]["properties"]["level"] == {"type": "integer"}
    assert binding["query"]["properties"]["channel"]["default"] == "-"
    assert binding["query"]["required"] == ["level"]
    assert binding["query"]["properties"]["cursor"]["type"] == "string"
    assert binding["headers"]["properties"] == {
        "Sec-WebSocket-Protocol": {"const": "fairlead.v1"},
        "x-lang": {"type": "string"},
    }
    assert binding["headers"]["required"] == ["Sec-WebSocket-Protocol", "x-lang"]


def test_an_event_stream_is_told_by_method_and_what_is_posted() -> None:
    whole = made()
    operations = whole["operations"]
    methods = [
        operations[f"board.ask.stream.{each}"]["bindings"]["http"]["method"]
        for each in ("get", "post")
    ]
    assert methods == ["GET", "POST"]
    asked = followed(whole, operations["board.ask.ask"]["messages"][0])
    assert followed(whole, asked["payload"])["title"] == "Drawing"
    assert "walls.watch.stream.post" not in operations
    assert whole["channels"]["walls.watch"]["x-fairlead"]["executes"] is False


def test_a_stream_of_rooms_takes_several_and_says_where_they_stand() -> None:
    whole = made()
    watch = whole["operations"]["walls.watch.stream.get"]
    query = watch["bindings"]["http"]["query"]["properties"]
    assert (query["channel"]["type"], query["cursor"]["type"]) == ("array", "string")
    assert "cursor" in heard(whole, "walls.watch.stream.get")
    assert "cursor" not in heard(whole, "board.ask.stream.get")


def test_a_parameter_that_is_validated_has_its_schema() -> None:
    odd = feature("Odd")

    @odd.sse("/logs/{day}/{name}", tag="v1")
    async def logs(ctx: SSE, day: Annotated[int, inject.Path()]) -> None: ...

    parameters = made(project(odd))["channels"]["odd.logs"]["parameters"]
    assert parameters["day"]["x-fairlead"]["schema"] == {"type": "integer"}
    assert parameters["name"]["x-fairlead"]["schema"] == {"type": "string"}


@pytest.mark.parametrize(
    ("type", "content"), [(str, "text/plain"), (bytes, "application/octet-stream"), (Point, None)]
)
def test_a_body_of_text_or_bytes_is_no_json(type: Any, content: str | None) -> None:
    async def execute(ctx: Any, body: Any) -> None: ...

    execute.__annotations__.update(ctx=SSE, body=Annotated[type, Body()])
    flow = workflow("Ask", tag="v1", trigger=trigger.sse(method="post"), execute=execute)
    whole = made(project(feature("Odd", [flow])))
    assert whole["channels"]["odd.ask"]["messages"]["request"].get("contentType") == content
    assert whole["defaultContentType"] == "application/json"


def test_a_stream_of_text_is_told_from_one_of_json() -> None:
    async def execute(ctx: SSE) -> None: ...

    flow = workflow("Ask", tag="v1", trigger=trigger.sse(format="text"), execute=execute)
    whole = made(project(feature("Odd", [flow])))
    item = followed(whole, whole["operations"]["odd.ask.stream.get"]["messages"][0])
    assert (item["name"], item["contentType"]) == ("message", "text/plain")
    whole = made()
    item = followed(whole, whole["operations"]["board.ask.stream.get"]["messages"][0])
    assert item["name"] == "message" and "contentType" not in item


def test_a_restart_is_an_event_only_where_the_trigger_says_so() -> None:
    async def execute(ctx: SSE) -> None: ...

    again = trigger.sse("/again", on_worker_lost="restart")
    whole = made(project(feature("Odd", [workflow("Again", tag="v1", trigger=again)(execute)])))
    assert "restart" in heard(whole, "odd.again.stream.get")
    assert "restart" not in heard(made(), "board.ask.stream.get")


def test_runs_that_are_kept_say_their_names_and_gaps() -> None:
    async def execute(ctx: SSE) -> None: ...

    kept = trigger.sse("/kept", resume="5m")
    whole = made(project(feature("Odd", [workflow("Kept", tag="v1", trigger=kept)(execute)])))
    assert {"run", "gap", "restart", "resumed"} <= heard(whole, "odd.kept.stream.get")
    query = whole["operations"]["odd.kept.stream.get"]["bindings"]["http"]["query"]["properties"]
    assert {"run", "key", "cursor"} <= query.keys()
    assert not {"run", "gap"} & heard(made(), "board.ask.stream.get")


def heard(whole: Json, operation: str) -> set[str]:
    """The types of the frames, or events, of an operation."""
    return {followed(whole, ref)["name"] for ref in whole["operations"][operation]["messages"]}


@pytest.mark.parametrize(("operation", "side"), [("receive", "client"), ("send", "server")])
def test_the_frames_are_those_of_the_protocols_page(operation: str, side: str) -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    rows = re.findall(rf"^\| {side} \| (.*)$", page, re.MULTILINE)
    listed = {type for row in rows for type in re.findall(r'`{"type":"(\w+)"', row)}
    assert heard(made(), f"board.draw.{operation}") == listed


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        ("welcome", frames.welcome("c-1", "C", None, frames.WINDOW)),
        ("welcome", frames.welcome("c-1", None, False, frames.WINDOW)),
        ("item", frames.message(DataType.JSON, b"[1]", id=None)),
        (
            "item",
            frames.message(
                DataType.BINARY, b"\0", id="C", sender="c-1", run="r", ref=1, trace="00-1-2-01"
            ),
        ),
        ("cursor", frames.cursor("C")),
        ("ack", frames.ack(1)),
        ("ack", frames.ack(1, "00-1-2-01")),
        ("error", frames.error(problem(400, "so", errors=[{"loc": ["x"]}], trace="f00"), 1)),
        ("error", frames.error(problem(500))),
        ("waiting", frames.waiting(1)),
        ("restart", frames.restart("r", 2, None)),
        ("restart", frames.restart("r", 2, 1)),
        ("end", frames.end("r")),
        ("reconnect", frames.reconnect(500)),
    ],
)
def test_each_frame_that_is_sent_is_as_the_document_says(message: str, wire: bytes) -> None:
    """And has no member that the document does not name."""
    whole = made()
    payload = whole["components"]["messages"][message]["payload"]
    frame = json.loads(wire)
    jsonschema.Draft7Validator({**whole, **payload}).validate(frame)
    assert frame.keys() <= payload["properties"].keys()
    del frame[payload["required"][-1]]
    assert not jsonschema.Draft7Validator({**whole, **payload}).is_valid(frame)


@pytest.mark.parametrize(
    ("server", "host", "protocols"),
    [
        ("http://127.0.0.1:8000", {"host": "127.0.0.1:8000"}, ["ws", "http"]),
        ("https://a.example/rt", {"host": "a.example", "pathname": "/rt"}, ["wss", "https"]),
    ],
)
def test_the_servers_are_where_the_user_says(server: str, host: Json, protocols: list[str]) -> None:
    servers = made(server=server)["servers"]
    assert [servers[each].pop("protocol") for each in ("websocket", "events")] == protocols
    assert servers == {"websocket": host, "events": host}


def test_an_input_that_json_schema_has_no_form_for_is_named() -> None:
    odd = feature("Odd")

    @odd.websocket("odd", tag="v1")
    async def said(ctx: WS, message: Message[Opaque]) -> None: ...

    with pytest.raises(BadDeclaration, match="JSON schema"):
        made(project(odd))


def fairlead(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    told = [sys.executable, "-m", "fairlead", "asyncapi", *argv]
    return subprocess.run(told, cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("target", ["examples/chat", "examples/seed.py", "examples/tokens.py"])
def test_the_command_prints_the_document_of_a_project_and_nothing_else(target: str) -> None:
    ran = fairlead(target, "--title", "An example", "--api-version", "3.0")
    assert ran.returncode == 0, ran.stderr
    whole = json.loads(ran.stdout)
    jsonschema.Draft7Validator(SCHEMA).validate(whole)
    assert whole["info"] == {"title": "An example", "version": "3.0"}
    assert whole["channels"]
    assert fairlead(target, "--title", "An example", "--api-version", "3.0").stdout == ran.stdout


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere.py"], "nowhere.py"),
        (["examples/chat", "--server", "127.0.0.1:8000"], "expected http://host:port"),
        (["examples/chat", "--server", "http://[::1"], "expected http://host:port"),
    ],
)
def test_wrong_use_is_said(argv: list[str], said: str) -> None:
    ran = fairlead(*argv)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert said in ran.stderr


def test_what_the_project_prints_while_it_is_imported_is_not_in_the_document(
    tmp_path: Path,
) -> None:
    (tmp_path / "chatty.py").write_text(
        'from fairlead import project\nprint("hello")\napp = project()\n'
    )
    ran = fairlead("chatty.py", cwd=tmp_path)
    assert json.loads(ran.stdout)["asyncapi"] == "3.0.0"
    assert ran.stderr == "hello\n"
