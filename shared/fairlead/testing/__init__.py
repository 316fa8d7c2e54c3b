"""For the tests of those who write workflows: `from fairlead import testing`."""

from fairlead.testing.contexts import collect, message, sse, ws

__all__ = ["collect", "message", "sse", "ws"]
