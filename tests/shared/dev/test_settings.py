from __future__ import annotations

from fairlead import settings
from fairlead.dev.settings import DevSettings


def test_one_of_each_on_the_ports_of_the_readme() -> None:
    told = settings.load(DevSettings, {"target": "chat.py"})
    assert (told.port, told.admin_port, told.edges, told.workers) == (8000, 8001, 1, 1)


def test_text_as_it_comes_from_the_command_line() -> None:
    told = settings.load(DevSettings, {"target": "chat.py", "edges": "2", "drain_grace": "250ms"})
    assert (told.edges, told.drain_grace) == (2, 0.25)
