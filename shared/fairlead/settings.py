"""What a process can be told: each option is one field here, and nowhere else.

A field is read from the command line (`--worker-wait 5s`), else from the environment
(`FAIRLEAD_WORKER_WAIT=5s`), else it has its default. The flags and their help are made
from the fields (`fairlead.cli`), so a new option is a new field with a sentence under it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fairlead.credentials import Credentials
from fairlead.protocol import durations, names

S = TypeVar("S", bound="Settings")

PREFIX = "FAIRLEAD_"

# Names with our prefix that no process reads.
RESERVED = frozenset({"FAIRLEAD_TESTS_SLOWER"})


class WrongUse(Exception):
    """Told to do what cannot be done; the command ends with one line and exit code 2."""


class CannotStart(Exception):
    """Asked rightly, but the surroundings do not allow it; one line and exit code 1."""


@dataclass(frozen=True, slots=True)
class Positional:
    """Marks a field that is an argument of its command, not a flag."""

    example: str


@dataclass(frozen=True, slots=True)
class Bare:
    """Marks a number whose flag may stand without it: `--last` is `--last 1`."""

    value: str


def _duration(value: object) -> object:
    return durations.seconds(value) if isinstance(value, (str, int, float)) else value


def _port_or_none(value: object) -> object:
    closed = isinstance(value, str) and value.strip().lower() in {"none", "off"}
    return None if closed else value


Duration = Annotated[float, BeforeValidator(_duration), Field(json_schema_extra={"hint": "TIME"})]
"""Seconds; written as "250ms", "60s", "5m", "2h" or a number of seconds."""

Port = Annotated[int, Field(ge=0, le=65535, json_schema_extra={"hint": "PORT"})]
"""A TCP port; 0 takes any that is free."""

OptionalPort = Annotated[
    Port | None,
    BeforeValidator(_port_or_none),
    Field(json_schema_extra={"hint": "PORT|none"}),
]
"""A TCP port; 0 takes any that is free, None (written "none" or "off") opens no port."""


def _is_a_token(value: str) -> str:
    if not names.is_token(value):
        raise ValueError(f"found {value!r}; expected 1 to 64 letters, digits, '-' or '_'")
    return value


Token = Annotated[str, AfterValidator(_is_a_token)]
"""What becomes a token of NATS subjects."""

File = Annotated[Path | None, Field(json_schema_extra={"hint": "FILE"})]
"""The path of a file; it is read when it is needed, which may be again and again."""


class _Keywords(PydanticBaseSettingsSource):
    """Reads the variables of fields that are called like a word of Python: FAIRLEAD_FROM, `from_`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        mine = field_name.endswith("_")
        return (os.environ.get(variable(field_name)) or None) if mine else None, field_name, False

    def __call__(self) -> dict[str, object]:
        fields = self.settings_cls.model_fields.items()
        found = (self.get_field_value(info, name) for name, info in fields)
        return {name: value for value, name, _ in found if value is not None}


class Settings(BaseSettings):
    """Base of the settings of every command. Times are in seconds."""

    model_config = SettingsConfigDict(
        # A process uses one of the classes; each takes 10 ms to build.
        defer_build=True,
        env_prefix=PREFIX,
        # `FAIRLEAD_APP=` in a compose file or a shell means "not set".
        env_ignore_empty=True,
        frozen=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _Keywords(settings_cls)


class NatsSettings(Settings):
    """What every process that speaks to NATS is told."""

    nats: Annotated[str, Field(json_schema_extra={"hint": "URL,..."})] = "nats://127.0.0.1:4222"
    """NATS servers to connect to, separated by commas."""

    app: Token = "default"
    """Name of the app; apps that share a NATS do not see each other."""

    nats_nkey: File = None
    """File with the seed of this process' nkey; `fairlead nats-config --keys DIR` makes one per role."""

    nats_creds: File = None
    """File with a JWT and its seed, where NATS is in operator mode."""

    nats_ca: File = None
    """File with the certificates that the server's must be signed by; turns TLS on."""

    nats_cert: File = None
    """File with this process' own certificate, for servers that verify their clients."""

    nats_key: File = None
    """File with the key of that certificate."""

    dev: bool = False
    """Write readable logs, and tell clients what an exception says."""

    @field_validator("nats")
    @classmethod
    def _names_a_server(cls, value: str) -> str:
        if not _split(value):
            raise ValueError(f"found {value!r}; name a server, for example nats://127.0.0.1:4222")
        for url in _split(value):
            if not _is_a_server(url):
                raise ValueError(
                    f"found {without_credentials(url)!r}; expected nats://HOST:PORT or tls://HOST:PORT"
                )
        return value

    @property
    def servers(self) -> list[str]:
        """The NATS URLs one by one, at least one."""
        return _split(self.nats)

    @property
    def credentials(self) -> Credentials:
        """Who this process is to NATS."""
        return Credentials(
            self.nats_nkey, self.nats_creds, self.nats_ca, self.nats_cert, self.nats_key
        )


class AskingSettings(NatsSettings):
    """What commands are told that ask, tell, and end."""

    @property
    def servers(self) -> list[str]:
        """As told; else the server of the `fairlead dev` that runs in this folder, if one does."""
        from fairlead.dev import nats_server  # which reads settings, in turn

        here = None if "nats" in self.model_fields_set else nats_server.running_here()
        return [here] if here else super().servers


class ProcessSettings(NatsSettings):
    """What every process that goes on until it is stopped is told."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(json_schema_extra={"hint": "debug|info|warning|error"}),
    ] = "info"
    """Log nothing that matters less."""

    exception_messages: bool = False
    """Log what exceptions say, too, as in dev; they may quote what a client sent."""


def without_credentials(url: str) -> str:
    """A URL to be shown: the user and password, or the token, cut out."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2] if separator else url.rpartition("@")[2]


def _is_a_server(url: str) -> bool:
    """As nats-py reads one: nats:// and port 4222 may be left out."""
    try:
        found = urlsplit(url if "://" in url else f"nats://{url}")
        return found.scheme in ("nats", "tls") and bool(found.hostname) and found.port != 0
    except ValueError:  # a port that is none, half of an IPv6 address
        return False


def _split(urls: str) -> list[str]:
    return [url for part in urls.split(",") if (url := part.strip())]


def variable(field: str) -> str:
    """The environment variable of a field: `worker_wait` is FAIRLEAD_WORKER_WAIT."""
    return PREFIX + field.rstrip("_").upper()


def flag(field: str) -> str:
    """The flag of a field: `worker_wait` is `--worker-wait`, `json_` is `--json`."""
    return "--" + field.rstrip("_").replace("_", "-")


def check_environment(environ: Mapping[str, str], known: Iterable[type[Settings]]) -> None:
    """Refuse variables with our prefix that no command reads, for they are misspelled.

    Args:
        known: the settings of all commands; one environment may serve several processes,
            so a variable of another command is not a mistake.

    Raises:
        WrongUse: names the variable and the nearest right one.
    """
    read = RESERVED.union(variable(field) for each in known for field in each.model_fields)
    for name in sorted(environ):
        # pydantic-settings reads names in either case.
        if not name.upper().startswith(PREFIX) or name.upper() in read:
            continue
        near = difflib.get_close_matches(name.upper(), sorted(read), n=1)
        advice = f"did you mean {near[0]}?" if near else "unset it, or see the --help of a command"
        raise WrongUse(f"{name} names no setting; {advice}")


def load(kind: type[S], given: Mapping[str, object]) -> S:
    """Make settings from the flags that were given, the environment and the defaults.

    Raises:
        WrongUse: the first value that does not fit, by the name it was given under.
    """
    try:
        return kind(**given)
    except ValidationError as exc:
        raise WrongUse(_complaint(kind, exc.errors()[0], given)) from None


def _complaint(kind: type[Settings], error: ErrorDetails, given: Mapping[str, object]) -> str:
    field = str(error["loc"][0])
    argument = positional(kind, field)
    on_command_line = field.upper() if argument else flag(field)
    if error["type"] == "missing":
        example = f", for example {argument.example}" if argument else ""
        return (
            f"{on_command_line} is missing; give it on the command line "
            f"or as {variable(field)}{example}"
        )
    name = on_command_line if field in given else variable(field)
    own_words = error.get("ctx", {}).get("error")
    if error["type"] == "value_error":
        return f"{name}: {own_words}"
    expected = error["msg"][0].lower() + error["msg"][1:]
    return f"{name}: found {error['input']!r}, but {expected}"


def positional(kind: type[Settings], field: str) -> Positional | None:
    """The mark of a field that is an argument, or None where it is a flag."""
    marks = (m for m in kind.model_fields[field].metadata if isinstance(m, Positional))
    return next(marks, None)


def bare(kind: type[Settings]) -> dict[str, str]:
    """What stands for the number, by the flags that may stand without one."""
    return {
        flag(field): mark.value
        for field, info in kind.model_fields.items()
        for mark in info.metadata
        if isinstance(mark, Bare)
    }
