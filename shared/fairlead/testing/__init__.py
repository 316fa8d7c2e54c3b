"""For the tests of those who write workflows: `from fairlead import testing`."""

from fairlead.testing.contexts import collect, message, room, sse, ws

__all__ = ["collect", "message", "room", "sse", "ws"]
