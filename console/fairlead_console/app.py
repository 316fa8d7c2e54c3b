"""What the console's port answers."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead import admin
from fairlead.readiness import AdminState
from fairlead_console.collector import Collector
from fairlead_console.guard import Guard
from fairlead_console.settings import ConsoleSettings
from fairlead_console.store import Store


def build_app(settings: ConsoleSettings, state: AdminState) -> Starlette:
    """The application of one console.

    Args:
        state: what the console has in common with an admin port.
    """
    guard = Guard(settings.token)
    collector = Collector(Store(settings.trace_memory))

    async def publish(request: Request) -> Response:
        refused = None if settings.open_publish else guard.refusal(request)
        return refused or await admin.publish(state, request)

    return Starlette(
        routes=[
            Route("/publish", publish, methods=["POST"]),
            *collector.routes(),
            *admin.routes(state),
        ]
    )
