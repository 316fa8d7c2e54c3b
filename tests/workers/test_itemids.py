from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fairlead.context import Message
from fairlead.protocol.envelope import DataType, Kind, Work
from fairlead_worker.inbox import Inbox
from fairlead_worker.itemids import ItemIds

SUBJECT = "fl.shop.log.chat.-"


def said(id: str) -> Work:
    return Work(Kind.MESSAGE, DataType.TEXT, b"hi", id=id)


@dataclass
class Run:
    """As much of a run as the ids tell of."""

    work: Work = field(default_factory=lambda: said(""))
    connection: str = "e-1"
    message: int = 7
    attempt: int = 1
    inbox: Inbox | None = None
    sender: str = "e-1"


def ids(run: Run, number: int = 2, cause: str = "") -> list[str]:
    made = ItemIds(run, cause)
    return [made.next(SUBJECT, b"x") for _ in range(number)]


def test_each_attempt_gives_its_items_the_same_ids() -> None:
    assert ids(Run()) == ids(Run(attempt=2))
    assert len({*ids(Run(), 100)}) == 100
    assert ids(Run()) != ids(Run(message=8))


def test_an_item_of_another_room_is_another() -> None:
    assert ItemIds(Run()).next("one", b"") != ItemIds(Run()).next("other", b"")


def test_a_clients_own_id_counts_whatever_connection_it_comes_through() -> None:
    first = Run(said("mine"), "e-1", 7, sender="ann")
    again = Run(said("mine"), "f-9", 1, sender="ann")
    assert ids(first) == ids(again)
    assert ids(first) != ids(Run(said("mine"), "e-1", 7, sender="bob"))
    # Without a subject nobody knows whose it is: then it is anybody's.
    assert ids(Run(said("mine"), "e-1", sender="e-1")) == ids(Run(said("mine"), "f", sender="f"))


def test_a_cause_that_is_given_stands_for_all_items() -> None:
    assert ids(Run(), cause="runner 5") == ids(Run(said("mine"), "f-9", 1), cause="runner 5")
    assert ids(Run(), cause="runner 5") != ids(Run(), cause="runner 6")


async def read(*messages: tuple[int, str]) -> AsyncIterator[Run]:
    """The run of a connection, after each message that it reads."""

    async def trusted() -> None:
        pass

    inbox = Inbox(trusted, lambda _: None)
    for number, id in messages:
        work = said(id)
        inbox.put(number, Message(work.type, work.data, "e-1", id, None), work)
        await anext(inbox)
        yield Run(inbox=inbox)


async def test_a_runs_items_count_from_the_message_that_it_read() -> None:
    """So they are the same where another attempt reads on from there."""
    through, last = ItemIds(made := Run()), [""]
    async for run in read((1, ""), (2, "b")):
        made.inbox = run.inbox
        last = [through.next(SUBJECT, b"x") for _ in range(2)]
    async for run in read((2, "b")):
        assert ids(run) == last


async def test_what_differs_is_no_repeat_where_a_run_may_have_other_sources() -> None:
    async for run in read((1, "")):
        assert ItemIds(run).next(SUBJECT, b"one") != ItemIds(run).next(SUBJECT, b"other")
    assert ItemIds(Run()).next(SUBJECT, b"one") == ItemIds(Run()).next(SUBJECT, b"other")


def test_what_a_connections_run_says_by_itself_is_its_attempts() -> None:
    async def trusted() -> None:
        pass

    inbox = Inbox(trusted, lambda _: None)
    assert ids(Run(inbox=inbox)) != ids(Run(inbox=inbox, attempt=2))
