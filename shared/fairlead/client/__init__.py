"""The client of Fairlead for Python programs; needs the extra `client`.

What is not here may change without notice.
"""

from fairlead.client.connection import Connection, ConnectOptions, Status, StatusChange, connect
from fairlead.client.errors import FairleadError
from fairlead.client.retry import Retry
from fairlead.client.run import Item, Run, RunOptions, RunStatus, run, subscribe
from fairlead.client.sent import Ack, Message, Sent, SentState
from fairlead.client.session import End, Gap, Presence, Restart
from fairlead.client.token import TokenHook

__all__ = [
    "Ack",
    "ConnectOptions",
    "Connection",
    "End",
    "FairleadError",
    "Gap",
    "Item",
    "Message",
    "Presence",
    "Restart",
    "Retry",
    "Run",
    "RunOptions",
    "RunStatus",
    "Sent",
    "SentState",
    "Status",
    "StatusChange",
    "TokenHook",
    "connect",
    "run",
    "subscribe",
]
