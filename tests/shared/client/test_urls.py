"""URLs, with what the client adds."""

from __future__ import annotations

import pytest

from fairlead.client import urls


def test_parameters_replace_others_of_their_name_and_keep_the_rest() -> None:
    url = "wss://host/room?channel=a&cursor=old&empty="
    assert urls.with_query(url, cursor="k 0/+", run=None) == (
        "wss://host/room?channel=a&empty=&cursor=k+0%2F%2B"
    )


def test_a_parameter_is_there_or_not() -> None:
    url = "http://host/ask?run=&a=key"
    assert [urls.has(url, name) for name in ("run", "a", "key", "ask")] == [
        True,
        True,
        False,
        False,
    ]


def test_one_url_serves_both_transports() -> None:
    assert urls.over_websocket("https://host/a?b=c") == "wss://host/a?b=c"
    assert urls.over_websocket("ws://host/a") == "ws://host/a"
    assert urls.over_http("ws://host/a") == "http://host/a"


@pytest.mark.parametrize("url", ["/support/chat", "host/chat", "ftp://host/", "ws:///chat"])
def test_what_is_no_whole_url_is_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"is no whole URL; expected one that begins with ws://"):
        urls.over_websocket(url)
