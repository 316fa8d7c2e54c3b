from __future__ import annotations

import pytest

from fairlead.natsheaders import encode_headers, no_responders, parse_headers


def test_headers_are_these_bytes_and_come_back() -> None:
    raw = encode_headers({"Nats-Msg-Id": "a:b", "Fl-From": "grüße"})
    assert raw == "NATS/1.0\r\nNats-Msg-Id: a:b\r\nFl-From: grüße\r\n\r\n".encode()
    assert parse_headers(raw) == {"Nats-Msg-Id": "a:b", "Fl-From": "grüße"}


def test_no_headers_are_none() -> None:
    assert parse_headers(b"") == {}
    assert not no_responders(b"")


def test_a_status_is_told_under_no_name() -> None:
    raw = b"NATS/1.0 503\r\n\r\n"
    assert parse_headers(raw) == {"": "503"}
    assert no_responders(raw)


def test_what_is_no_header_is_left_out() -> None:
    assert parse_headers(b"NATS/1.0\r\nnonsense\r\nA:\xff\r\n\r\n") == {"A": "\ufffd"}


@pytest.mark.parametrize("value", ["a\r\nNats-Msg-Id: b", "a\n", "\ra"])
def test_a_value_cannot_become_a_header_of_its_own(value: str) -> None:
    with pytest.raises(ValueError, match="Fl-From"):
        encode_headers({"Fl-From": value})
