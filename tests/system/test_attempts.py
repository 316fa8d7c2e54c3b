"""A message that comes to a worker again, as a newer attempt, while the older one is in its hands.

An edge sends it again when it has not heard who has it: its question, or the answer, was lost. Here
the test is the edge.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from nats import connect
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from fairlead.protocol import envelope
from fairlead.protocol.envelope import Answer, DataType, Kind, Work
from fairlead.protocol.subjects import Subjects
from fairlead.testing.program import DEADLINE
from support.system import NatsServer, system, until

CONNECTION = "test-1"


class Asking(NamedTuple):
    """An edge, as far as one message is concerned."""

    client: Client
    subjects: Subjects
    answers: Subscription
    folder: Path

    async def send(self, workflow: str, attempt: int) -> None:
        work = envelope.encode_work(Work(Kind.MESSAGE, DataType.TEXT, b"hello"))
        inbound = self.subjects.inbound("attempts", workflow, "-", "-")
        await self.client.publish(inbound, work, self.answer(attempt))

    def answer(self, attempt: int) -> str:
        return self.subjects.answer("test", CONNECTION, 1, attempt)

    async def hear(self, attempt: int, answer: Answer) -> bytes:
        """The next answer has to be this one, to that attempt; what comes with it."""
        said = await self.answers.next_msg(timeout=DEADLINE)
        assert (said.subject, said.data[0]) == (self.answer(attempt), answer), said.data
        return said.data[1:]

    async def noted(self, *lines: str) -> None:
        notes = self.folder / "notes"
        await until(
            lambda: notes.exists() and notes.read_text().split("\n")[:-1] == [*lines],
            f"the notes are {lines}",
        )

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest_asyncio.fixture
async def edge(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Asking]:
    monkeypatch.setenv("NOTES", str(tmp_path))
    async with system(nats, tmp_path) as app:
        await app.worker("attempts.py")
        client, subjects = await connect(app.nats.url), Subjects(app.app)
        try:
            answers = await client.subscribe(f"{subjects.root}.edge.test.{CONNECTION}.1.*")
            yield Asking(client, subjects, answers, tmp_path)
        finally:
            await client.close()


async def test_what_has_said_nothing_is_the_newer_attempt_itself(edge: Asking) -> None:
    """It runs once, and answers where it is waited for now."""
    await edge.send("quiet", 1)
    await edge.noted("began 1")
    await edge.hear(1, Answer.TAKEN)
    await edge.send("quiet", 2)
    await edge.hear(2, Answer.TAKEN)
    edge.go()
    assert await edge.hear(2, Answer.RESULT) == b"tsaid by 1"
    await edge.noted("began 1")


async def test_what_has_spoken_ends_in_silence_and_begins_anew(edge: Asking) -> None:
    """The edge has told its client to forget the first words, so they have to be said again."""
    await edge.send("talks", 1)
    await edge.hear(1, Answer.TAKEN)
    assert await edge.hear(1, Answer.ITEM) == b"tfirst word of 1"
    await edge.send("talks", 2)
    await edge.hear(2, Answer.TAKEN)
    assert await edge.hear(2, Answer.ITEM) == b"tfirst word of 2"
    await edge.noted("began 1", "finally 1", "began 2")
    edge.go()
    assert await edge.hear(2, Answer.ITEM) == b"tlast word of 2"
    await edge.hear(2, Answer.DONE)


async def test_an_older_attempt_that_comes_late_is_not_heeded(edge: Asking) -> None:
    await edge.send("talks", 2)
    await edge.hear(2, Answer.TAKEN)
    await edge.hear(2, Answer.ITEM)
    await edge.send("talks", 1)
    await edge.send("talks", 2)
    edge.go()
    assert await edge.hear(2, Answer.ITEM) == b"tlast word of 2"
    await edge.hear(2, Answer.DONE)
    await edge.noted("began 2", "finally 2")
