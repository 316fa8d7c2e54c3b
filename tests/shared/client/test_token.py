"""The hook that is asked for a token."""

from __future__ import annotations

from fairlead.client import token


async def test_it_may_be_plain_or_async_or_none() -> None:
    async def later() -> str:
        return "later"

    assert [await token.ask(lambda: "now"), await token.ask(later)] == ["now", "later"]
    assert await token.ask(None) is None
