from __future__ import annotations

import pytest

from fairlead.settings import CannotStart, WrongUse
from fairlead_console.asking import Asked, Http
from support.tracestores import HTML, JSON, TEXT, Answer, Query, answering


def says(answer: Answer) -> object:
    """The JSON of the one answer, or what is said instead."""
    with answering(lambda path, query: answer) as it:
        http = Http(Asked(it.url))
        try:
            return http.json("/x", a=1)
        except CannotStart as error:
            return str(error).replace(it.url, "URL")
        finally:
            http.close()


def test_answers_in_json_whatever_they_say_they_are() -> None:
    assert says((200, JSON, {"a": 1})) == {"a": 1}
    assert says((200, TEXT, "[1]")) == [1]
    assert says((404, TEXT, "nothing here")) is None


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ((200, HTML, "<html>"), "URL answers, but not in JSON; is --kind right?"),
        ((503, TEXT, "no\n  ingesters"), "URL answers with status 503: no ingesters"),
        ((401, TEXT, ""), "URL refuses with status 401; give it what it asks for in the URL"),
        ((403, TEXT, ""), "URL refuses with status 403; give it what it asks for in the URL"),
    ],
)
def test_what_is_no_use_is_one_line(answer: Answer, line: str) -> None:
    assert str(says(answer)).startswith(line)


def test_nobody_there_is_one_line() -> None:
    http = Http(Asked("http://127.0.0.1:9"))
    with pytest.raises(CannotStart) as said:
        http.get("/x")
    assert str(said.value).startswith("nothing answers at http://127.0.0.1:9 (")
    assert "--from" in str(said.value)
    http.close()


def test_who_goes_elsewhere_is_followed() -> None:
    def answer(path: str, query: Query) -> Answer:
        return (200, JSON, [path]) if path == "/there" else (302, TEXT, "/there")

    with answering(answer) as it:
        http = Http(Asked(it.url))
        assert http.json("/here") == ["/there"]
        http.close()


def test_a_path_before_the_api_is_kept() -> None:
    with answering(lambda path, query: (200, JSON, [path])) as it:
        for url in (f"{it.url}/jaeger", f"{it.url}/jaeger/"):
            http = Http(Asked(url))
            assert http.json("/api/traces") == ["/jaeger/api/traces"]
            assert http.shown == f"{it.url}/jaeger"
            http.close()


def test_credentials_are_sent_and_never_shown() -> None:
    with answering(lambda path, query: (403, TEXT, "")) as it:
        url = it.url.replace("//", "//ann:secret@")
        http = Http(Asked(url, header="X-Scope-OrgID: team"))
        with pytest.raises(CannotStart) as said:
            http.json("/x")
        http.close()
    assert "secret" not in str(said.value)
    _, _, headers = it.asked[0]
    assert headers["Authorization"] == "Basic YW5uOnNlY3JldA=="
    assert headers["X-Scope-OrgID"] == "team"


@pytest.mark.parametrize("url", ["", "x", "ftp://x", "http://", "http://[", "http://x:y"])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(WrongUse, match="--from: expected http"):
        Http(Asked(url))


@pytest.mark.parametrize("header", ["x", "x: ü", "x: a\nb"])
def test_what_is_no_header_is_told(header: str) -> None:
    with pytest.raises(WrongUse, match="--header: expected NAME:VALUE"):
        Http(Asked("http://x", header=header))
