"""`process_errors("fleet")` over processes: what goes wrong anywhere, and never its own doing."""

from __future__ import annotations

import json

from support.system import PROJECTS, System


async def test_broken_readers_do_not_feed_each_other(app: System) -> None:
    """Two of them, in two workers: one failure of a workflow is one event for each."""
    (edge,) = await app.run(str(PROJECTS / "feed.py"), workers=2)
    async with (
        edge.events("/support/feed/errors") as one,
        edge.events("/support/feed/errors") as two,
        edge.v1("/support/feed/fail") as client,
    ):
        for stream in (one, two):
            assert json.loads((await stream.next())["data"]) == "listening"
            assert json.loads((await stream.next())["data"]) == {"alive": 0}
        for said in ("first", "second", "third"):
            await client.send(said)
            await client.until("error")
            for stream in (one, two):
                found = json.loads((await stream.next())["data"])
                assert (found["type"], found["message"]) == ("ValueError", said)
