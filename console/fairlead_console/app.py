"""What the console's port answers."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead import admin
from fairlead.admin import problem_response
from fairlead.readiness import AdminState
from fairlead_console.collector import Collector
from fairlead_console.guard import Guard, from_elsewhere
from fairlead_console.overview import Overview
from fairlead_console.settings import ConsoleSettings
from fairlead_console.store import Store

LOOPBACK = ["127.0.0.1", "localhost"]


def build_app(settings: ConsoleSettings, state: AdminState, overview: Overview) -> Starlette:
    """The application of one console.

    Args:
        state: what the console has in common with an admin port.
    """
    guard = Guard(settings.token)
    collector = Collector(Store(settings.trace_memory))

    async def publish(request: Request) -> Response:
        if from_elsewhere(request.headers):
            return problem_response(403, "a page of another origin may not publish")
        refused = None if settings.open_publish else guard.refusal(request)
        return refused or await admin.publish(state, request)

    return Starlette(
        routes=[
            Route("/publish", publish, methods=["POST"]),
            *collector.routes(),
            *admin.routes(state),
            *overview.routes(),
        ],
        middleware=_middleware(settings.host),
    )


def _middleware(host: str) -> list[Middleware]:
    """On loopback no other name is ours: a page whose name leads here (DNS rebinding) reads nothing."""
    if host not in LOOPBACK:
        return []
    return [Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)]
