"""Events by name, for plain functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

Listener = Callable[[Any], object]


class Emitter:
    """Events by name; what a listener raises goes to the loop's exception handler and harms
    nobody else.

    Args:
        names: those that there are.
    """

    def __init__(self, *names: str) -> None:
        self._listeners: dict[str, list[Listener]] = {name: [] for name in names}

    def on(self, name: str, listener: Listener) -> Callable[[], None]:
        """Have a function called with each event of a name; returns a function that ends it.

        Raises:
            ValueError: there is no such event.
            TypeError: the listener is a coroutine function, which nobody would await.
        """
        if name not in self._listeners:
            known = ", ".join(self._listeners)
            raise ValueError(f"there is no event {name!r}; there are {known}")
        if inspect.iscoroutinefunction(listener):
            raise TypeError(
                f"the listener of {name!r} is a coroutine function, which nobody would await; "
                "give a plain function that starts a task of yours"
            )
        mine = self._listeners[name]
        mine.append(listener)

        def end() -> None:
            if listener in mine:
                mine.remove(listener)

        return end

    def emit(self, name: str, detail: object) -> None:
        for listener in [*self._listeners[name]]:
            try:
                listener(detail)
            except Exception as error:  # the application's code; the connection goes on
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a listener of {name!r} failed", "exception": error}
                )
