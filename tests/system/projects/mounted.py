"""An application of a user's own with an edge mounted in it, for tests/system/test_mount.py."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from fairlead_edge.mount import Edge

realtime = Edge()  # FAIRLEAD_NATS and FAIRLEAD_APP say where


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


app = Starlette(
    routes=[
        Route("/hello", hello),
        Route("/metrics", realtime.metrics),
        Mount("/realtime", app=realtime),
    ],
    lifespan=realtime.lifespan,
)
