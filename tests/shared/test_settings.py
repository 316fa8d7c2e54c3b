from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pytest

from fairlead import settings
from fairlead.settings import (
    Bare,
    Duration,
    NatsSettings,
    OptionalPort,
    Positional,
    WrongUse,
    without_credentials,
)


class Sample(NatsSettings):
    """A command's settings."""

    target: Annotated[str, Positional(example="chat.py")] = "chat.py"
    """What to serve."""
    heartbeat: Duration = 15.0
    """Between pings."""
    admin_port: OptionalPort = 8001
    """Health."""


class Asking(settings.Settings):
    """Settings with fields that Python has other words for."""

    from_: str = "here"
    """Where to look."""
    last: Annotated[int | None, Bare("1")] = None
    """How many."""


class Needy(settings.Settings):
    """Settings that cannot be had without being told."""

    target: Annotated[str, Positional(example="chat.py")]
    """What to serve."""


def make(**given: object) -> Sample:
    return settings.load(Sample, given)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NATS", "APP", "DEV", "TARGET", "HEARTBEAT", "ADMIN_PORT", "FROM", "LAST"):
        monkeypatch.delenv(f"FAIRLEAD_{name}", raising=False)


def test_the_command_line_goes_before_the_environment_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert make().heartbeat == 15.0
    monkeypatch.setenv("FAIRLEAD_HEARTBEAT", "5m")
    assert make().heartbeat == 300.0
    assert make(heartbeat="250ms").heartbeat == 0.25


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_HEARTBEAT", "")
    assert make().heartbeat == 15.0


@pytest.mark.parametrize(("written", "port"), [("none", None), ("OFF", None), ("0", 0), (7, 7)])
def test_a_port_may_be_none(written: object, port: int | None) -> None:
    assert make(admin_port=written).admin_port == port


def test_a_field_that_is_called_like_a_word_of_python_is_told_without_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.load(Asking, {}).from_ == "here"
    monkeypatch.setenv("FAIRLEAD_FROM", "there")
    settings.check_environment({"FAIRLEAD_FROM": "there"}, [Asking])
    assert settings.load(Asking, {}).from_ == "there"
    assert settings.load(Asking, {"from_": "elsewhere"}).from_ == "elsewhere"
    monkeypatch.setenv("FAIRLEAD_FROM", "")
    assert settings.load(Asking, {}).from_ == "here"
    with pytest.raises(WrongUse, match=r"did you mean FAIRLEAD_FROM\?"):
        settings.check_environment({"FAIRLEAD_FROM_": "there"}, [Asking])


def test_flags_that_may_stand_without_their_number() -> None:
    assert settings.bare(Asking) == {"--last": "1"}
    assert settings.bare(Sample) == {}


def test_nats_is_a_list() -> None:
    assert make().servers == ["nats://127.0.0.1:4222"]
    assert make(nats="nats://a:1, nats://b:2,").servers == ["nats://a:1", "nats://b:2"]
    assert make(nats="a,b:2,tls://u:p@[::1]:3").servers == ["a", "b:2", "tls://u:p@[::1]:3"]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make().app = "other"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"heartbeat": "5x"}, "--heartbeat: found '5x' where a duration belongs; write it as"),
        ({"heartbeat": []}, "--heartbeat: found [], but input should be a valid number"),
        ({"admin_port": "70000"}, "--admin-port: found '70000', but input should be less than"),
        ({"admin_port": "x"}, "--admin-port: found 'x', but input should be a valid integer"),
        ({"app": "a.b"}, "--app: found 'a.b'; expected 1 to 64 letters, digits, '-' or '_'"),
        ({"nats": " , "}, "--nats: found ' , '; name a server"),
        *(
            (
                {"nats": f"nats://a:1,{url}"},
                f"--nats: found {url!r}; expected nats://HOST:PORT or tls",
            )
            for url in (
                "http://b:1",
                "ws://b",
                "nats://",
                "nats://b:x",
                "nats://b:70000",
                "nats://[b",
            )
        ),
        (
            {"nats": "http://ann:s3cret@b:1"},
            "--nats: found 'http://b:1'; expected nats://HOST:PORT",
        ),
        ({"target": 5}, "TARGET: found 5, but input should be a valid string"),
    ],
)
def test_a_bad_value_is_told_with_the_name_it_came_by(
    given: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(WrongUse) as refused:
        make(**given)
    assert str(refused.value).startswith(message)


def test_a_bad_variable_is_told_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_HEARTBEAT", "5x")
    with pytest.raises(WrongUse, match=r"^FAIRLEAD_HEARTBEAT: found '5x'"):
        make()


def test_what_is_missing_is_told_with_an_example() -> None:
    with pytest.raises(WrongUse) as refused:
        settings.load(Needy, {})
    assert str(refused.value) == (
        "TARGET is missing; give it on the command line or as FAIRLEAD_TARGET, for example chat.py"
    )


@pytest.mark.parametrize("name", ["FAIRLEAD_HEARTBEAT", "fairlead_app", "FAIRLEAD_TESTS_SLOWER"])
def test_known_variables_pass(name: str) -> None:
    settings.check_environment({name: "1", "PATH": "/bin"}, [Sample])


def test_a_variable_of_another_command_passes() -> None:
    settings.check_environment({"FAIRLEAD_HEARTBEAT": "5s"}, [Needy, Sample])


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("FAIRLEAD_HEARBEAT", "did you mean FAIRLEAD_HEARTBEAT?"),
        ("FAIRLEAD_QQQQQQQQQQQQQQQQQQ", "unset it, or see the --help of a command"),
    ],
)
def test_an_unknown_variable_stops_the_start(name: str, advice: str) -> None:
    with pytest.raises(WrongUse) as refused:
        settings.check_environment({name: "1"}, [Sample])
    assert str(refused.value) == f"{name} names no setting; {advice}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://ann:s3cret@10.0.0.1:4222", "nats://10.0.0.1:4222"),
        ("tls://t0ken@nats.example.com", "tls://nats.example.com"),
        ("nats://ann:a/b@c@10.0.0.1", "nats://10.0.0.1"),
        ("ann:s3cret@10.0.0.1:4222", "10.0.0.1:4222"),
        ("nats://10.0.0.1:4222", "nats://10.0.0.1:4222"),
    ],
)
def test_a_url_is_shown_without_who_and_what_for(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
