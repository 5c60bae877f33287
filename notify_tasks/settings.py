"""The settings, read once from the environment: one frozen value.

Each setting has an environment variable, `NOTIFY_BROKER_URL` for `broker_url`. For a secret from a file there
is the same name with `_FILE` at its end: `NOTIFY_BROKER_URL_FILE=/run/secrets/broker-url`. A program may set
them itself with `configure`, which wins over the environment.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from notify_tasks import durations, redis_place
from notify_tasks.errors import NotConfigured

REDIS: Final = "redis"
POSTGRES: Final = "postgres"
JSON: Final = "json"
PLAIN: Final = "plain"
PROD: Final = "prod"
AUTO: Final = "auto"

BROKER_EXAMPLE: Final = "redis://user:password@redis.internal:6379/0"
DATABASE_EXAMPLE: Final = "postgresql://user:password@db.internal/notify"
NEW_KEY: Final = "openssl rand -base64 32 | tr '+/' '-_'"
"""What to type for a new `secret_key`."""

_PREFIX: Final = "NOTIFY_"
_FILE: Final = "_FILE"
_NO_SETTINGS: Final = ("NOTIFY_HEALTH_FILE",)
"""Variables of ours that look like a setting's."""
_LONGEST_CALL: Final = 60.0
_KEY_BYTES: Final = 32
_HIDDEN: Final = "***"
_SECRET_WORDS: Final = re.compile(r"(?i)(\w*(?:password|secret|token)\w*\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)")


SECONDS: Final = "seconds, or with a unit: `15m`"
PATH: Final = "path"


def _setting(default: Any, meaning: str, unit: str = "") -> Any:
    return field(default=default, metadata={"meaning": meaning, "unit": unit})


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """What a producer and a worker are told. The repr hides passwords.

    Each field says what it means; `notify config reference` prints them all.
    """

    broker_url: str | None = _setting(
        None,
        "the Redis that carries messages: `redis://`, `rediss://`, `unix:///run/redis.sock?db=0`, or "
        "`sentinel://host1:26379/0;sentinel://host2:26379?master=notify`",
    )
    database_url: str | None = _setting(
        None, "the PostgreSQL that keeps them: `postgresql://`, or a libpq connection string"
    )
    intake: str = _setting(REDIS, "where a call is kept before it has returned: `redis` or `postgres`")
    call_timeout: float = _setting(
        2.0, "until a call has returned or raised, whatever its server does; at most 60", SECONDS
    )
    templates: str = _setting("templates", "the folder of the event types", PATH)
    attachments: str | None = _setting(
        None, "the folder of stored attachments, which workers read; unset where there are none", PATH
    )
    config_file: str = _setting("notify.toml", "providers and pools", PATH)
    unknown_type_wait: float = _setting(
        900.0, "how long a notification of an unknown type waits for its type", SECONDS
    )
    intake_notify: bool = _setting(
        True,  # noqa: FBT003 - a default
        "`false` leaves out the NOTIFY after an intake row, which forbids PREPARE TRANSACTION; such a row is "
        "found within two seconds",
    )
    env: str | None = _setting(
        None,
        "`dev`, `test`, `prod` or another word: the overlay of the file, `notify.<env>.toml`, which must exist",
    )
    secret_key: str | None = _setting(
        None,
        "the key that secrets of webhook endpoints are stored under: 32 bytes in URL-safe base64, which "
        f"`{NEW_KEY}` makes. Several, with a space between: the first encrypts, all decrypt",
    )
    public_url: str | None = _setting(
        None,
        "the gateway's URL as people reach it, `https://notify.example.com`: with `secret_key`, mails of types with "
        "`unsubscribe = true` carry a link to it",
    )
    endpoint_failing: float = _setting(
        5 * 86400.0, "for how long a webhook endpoint may fail before it is disabled; `1h` or more", SECONDS
    )
    log_format: str | None = _setting(
        None, "`json`, one object a line, or `plain`; unset means `json` where `env` is `prod`, else `plain`"
    )
    tracing: bool | None = _setting(
        None,
        "`true` sends traces by OpenTelemetry, `false` sends none; unset means `true` where "
        "OTEL_EXPORTER_OTLP_ENDPOINT is set",
    )
    health_port: int | None = _setting(
        None, "the port of `/livez`, `/readyz` and `/health`, of each process; unset means none"
    )
    health_host: str = _setting("0.0.0.0", "the address to which that port belongs")  # noqa: S104 - a probe comes from outside
    metrics_port: int | None = _setting(
        None, "the port of a worker's `/metrics`; `auto` takes a free one, unset or 0 means none"
    )
    metrics_host: str = _setting(
        "127.0.0.1", "the address to which that port belongs; `0.0.0.0` in a container"
    )

    content_kept: float = _setting(
        7 * 86400.0,
        "for how long a notification keeps payload, addresses and attachments once all of it has ended; `1h` or more",
        SECONDS,
    )
    history_kept: float = _setting(
        30 * 86400.0, "for how long what became of a notification is kept; `1d` or more", SECONDS
    )
    inbox_kept: float = _setting(
        90 * 86400.0, "for how long an in-app message stays in its recipient's inbox; `1d` or more", SECONDS
    )

    def __repr__(self) -> str:
        shown = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("broker_url", "database_url"):
            shown[name] = None if shown[name] is None else without_secrets(shown[name])
        shown["secret_key"] = None if self.secret_key is None else _HIDDEN
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def json_logs(self) -> bool:
        """Whether a log line is a JSON object."""
        return (self.log_format or (JSON if self.env == PROD else PLAIN)) == JSON

    def need_broker_url(self) -> str:
        """The broker's URL, which must be set.

        Raises:
            NotConfigured: it is not.
        """
        if self.broker_url is None:
            raise NotConfigured(_unset("broker_url", "no broker is set", BROKER_EXAMPLE))
        return self.broker_url

    def need_secret_key(self) -> str:
        """The keys that secrets are stored under, which must be set.

        Raises:
            NotConfigured: they are not.
        """
        if self.secret_key is None:
            raise NotConfigured(
                f"{_variable('secret_key')}: no key is set, and secrets are stored under one. Make one with "
                f"`{NEW_KEY}`, keep it as you keep passwords, and set it here and at every worker"
            )
        return self.secret_key

    def need_database_url(self) -> str:
        """The database's URL, which must be set.

        Raises:
            NotConfigured: it is not.
        """
        if self.database_url is None:
            raise NotConfigured(_unset("database_url", "no database is set", DATABASE_EXAMPLE))
        return self.database_url


class Fields(TypedDict, total=False):
    """What `configure` takes: the fields of `Settings`."""

    broker_url: str | None
    database_url: str | None
    intake: str
    call_timeout: float
    templates: str
    config_file: str
    unknown_type_wait: float
    intake_notify: bool
    env: str | None
    attachments: str | None
    secret_key: str | None
    public_url: str | None
    endpoint_failing: float
    content_kept: float
    history_kept: float
    inbox_kept: float
    log_format: str | None
    tracing: bool | None
    health_port: int | None
    health_host: str
    metrics_port: int | None
    metrics_host: str


def get() -> Settings:
    """The settings in force. The first call reads the environment.

    Raises:
        NotConfigured: a variable has a wrong value: which one, what is wrong, and what to write.
    """
    global _current  # noqa: PLW0603 - read once, by whoever asks first
    current = _current
    if current is None:
        with _lock:
            current = _current = _current or read(os.environ)
    return current


def configure(**changes: Unpack[Fields]) -> Settings:
    """Set settings from the program; what is not named keeps its value.

    Args:
        **changes: fields of `Settings`.

    Raises:
        NotConfigured: an unknown setting or a wrong value.
    """
    global _current  # noqa: PLW0603 - as in `get`
    given: dict[str, Any] = dict(changes)
    checked: dict[str, Any] = {name: _checked(name, value, label=name) for name, value in given.items()}
    before = get()
    with _lock:
        _current = replace(_current or before, **checked)
        return _current


def reset() -> None:
    """Forget everything, so that the next `get` reads the environment again. For tests."""
    global _current  # noqa: PLW0603 - as in `get`
    _current = None


def read(environment: Mapping[str, str]) -> Settings:
    """Settings from variables.

    Raises:
        NotConfigured: as `get`.
    """
    found: dict[str, Any] = {}
    for name in _CHECKS:
        variable = _variable(name)
        text = _value(environment, variable)
        if text is not None:
            found[name] = _checked(name, text, label=variable)
    return Settings(**found)


@dataclass(frozen=True, slots=True)
class Described:
    """One setting, for people.

    Args:
        variable: of the environment.
        value: fit to be shown: without passwords.
        source: the variable or file that it comes from, `default`, or `the program`.
    """

    name: str
    variable: str
    value: str
    source: str
    meaning: str
    unit: str


def describe(current: Settings, environment: Mapping[str, str]) -> list[Described]:
    """Every setting: its value, where that comes from, and what it means.

    Args:
        current: as `get` returns them.
        environment: the variables.
    """
    from_environment = read(environment)
    found = []
    for each in fields(Settings):
        variable = _variable(each.name)
        value = getattr(current, each.name)
        sources = [name for name in (variable, variable + _FILE) if environment.get(name)]
        source = sources[0] if sources else "default"
        if value != getattr(from_environment, each.name):
            source = "the program"
        said = each.metadata
        shown = _HIDDEN if each.name == "secret_key" and value is not None else _described(value)
        found.append(Described(each.name, variable, shown, source, said["meaning"], said["unit"]))
    return found


def misspelt(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that are none of ours and look like one, each with the one that was probably meant."""
    known = [_variable(name) + ending for name in _CHECKS for ending in ("", _FILE)]
    found = []
    for name in sorted(environment):
        if name.startswith(_PREFIX) and "__" not in name and name not in (*known, *_NO_SETTINGS):
            near = get_close_matches(name, known, n=1, cutoff=0.85)
            found += [(name, near[0])] if near else []
    return found


def _described(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return durations.text(value)
    return "" if value is None else without_secrets(str(value))


def without_secrets(url: str) -> str:
    """The URL or connection string with `***` for each password, fit to be shown."""
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    if ":" in credentials:
        credentials = credentials.partition(":")[0] + ":***"
    shown = scheme + separator + credentials + at + host
    return _SECRET_WORDS.sub(r"\1***", shown)


# --- checks -----------------------------------------------------------------------------------------


class _Wrong(ValueError):
    """`problem. remedy`."""


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Wrong("not a text. Write a text that is not empty")
    return value.strip()


def _broker_url(value: object) -> str | None:
    url = _optional_text(value)
    if url is not None and not url.startswith(
        ("redis://", "rediss://", "unix://", "redis+socket://", "sentinel://")
    ):
        scheme = url.partition("://")[0] if "://" in url else ""
        shown = f"the scheme {scheme!r}" if scheme.isalnum() else "no scheme"
        raise _Wrong(
            f"{shown} is not supported. Use redis://, rediss://, unix:// or sentinel://, as in "
            f"{BROKER_EXAMPLE}"
        )
    try:
        redis_place.sentinels(url or "")
    except NotConfigured as error:
        raise _Wrong(str(error).partition(": ")[2]) from None
    return url


def _path(value: object) -> str:
    return _text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _optional_path(value: object) -> str | None:
    return None if value is None else _path(value)


def _intake(value: object) -> str:
    if value not in (REDIS, POSTGRES):
        raise _Wrong(f"{_shown(value)} is neither. Write redis or postgres")
    return str(value)


def _seconds(value: object) -> float:
    try:
        return durations.parse(value)
    except ValueError as error:
        raise _Wrong(str(error)) from None


def _call_timeout(value: object) -> float:
    seconds = _seconds(value)
    if not 0 < seconds <= _LONGEST_CALL:
        most = f"{_LONGEST_CALL:.0f} seconds"
        raise _Wrong(f"{_shown(value)} is out of range. Write more than 0 and at most {most}")
    return seconds


def _endpoint_failing(value: object) -> float:
    return _at_least(value, 3600.0, "an hour or more, as in 5d")


def _at_least(value: object, least: float, remedy: str) -> float:
    seconds = _seconds(value)
    if seconds < least:
        raise _Wrong(f"{_shown(value)} is out of range. Write {remedy}")
    return seconds


def _secret_key(value: object) -> str | None:
    """Checked for form; no error shows any of it."""
    text = _optional_text(value)
    if text is None:
        return None
    keys = text.replace(",", " ").split()
    for place, key in enumerate(keys, 1):
        try:
            sound = len(base64.b64decode(key.encode(), altchars=b"-_", validate=True)) == _KEY_BYTES
        except (binascii.Error, ValueError):
            sound = False
        if not sound:
            which = "it" if len(keys) == 1 else f"number {place}"
            raise _Wrong(f"{which} is not 32 bytes in URL-safe base64. Make a key with `{NEW_KEY}`")
    return " ".join(keys)


def _public_url(value: object) -> str | None:
    url = _optional_text(value)
    if url is not None and not re.fullmatch(
        r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", url
    ):
        raise _Wrong(
            "it is no https:// URL of a host and perhaps a path. Write it as in https://notify.example.com"
        )
    return None if url is None else url.rstrip("/")


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise _Wrong(f"{_shown(value)} is neither. Write true or false")


def _env(value: object) -> str | None:
    env = _optional_text(value)
    if env is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", env):
        raise _Wrong(f"{_shown(env)} is not one plain word. Write dev, test, prod or the like")
    return env


def _log_format(value: object) -> str | None:
    if value not in (JSON, PLAIN, None):
        raise _Wrong(f"{_shown(value)} is neither. Write json or plain")
    return None if value is None else str(value)


def _optional_switch(value: object) -> bool | None:
    return None if value is None else _switch(value)


def _optional_port(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        port = value
    else:
        port = int(value) if isinstance(value, str) and value.isdecimal() else -1
    if port is not None and not 0 <= port <= 65535:  # noqa: PLR2004 - 16 bits
        raise _Wrong(f"{_shown(value)} is no port. Write a number up to 65535, as in 8086")
    return port


def _metrics_port(value: object) -> int | None:
    """0, as a variable says it, is none; `auto` is the 0 of sockets."""
    if value == AUTO:
        return 0
    try:
        return _optional_port(value) or None
    except _Wrong as wrong:
        raise _Wrong(f"{wrong}, or auto") from None


_CHECKS: Final[dict[str, Callable[[object], object]]] = {
    "broker_url": _broker_url,
    "database_url": _optional_text,
    "intake": _intake,
    "call_timeout": _call_timeout,
    "templates": _path,
    "config_file": _path,
    "unknown_type_wait": _seconds,
    "intake_notify": _switch,
    "env": _env,
    "attachments": _optional_path,
    "secret_key": _secret_key,
    "public_url": _public_url,
    "endpoint_failing": _endpoint_failing,
    "content_kept": lambda value: _at_least(value, 3600.0, "an hour or more, as in 7d"),
    "history_kept": lambda value: _at_least(value, 86400.0, "a day or more, as in 30d"),
    "inbox_kept": lambda value: _at_least(value, 86400.0, "a day or more, as in 90d"),
    "log_format": _log_format,
    "tracing": _optional_switch,
    "health_port": _optional_port,
    "health_host": _text,
    "metrics_port": _metrics_port,
    "metrics_host": _text,
}

_current: Settings | None = None
_lock: Final = threading.Lock()


def _checked(name: str, value: object, *, label: str) -> object:
    check = _CHECKS.get(name)
    if check is None:
        near = get_close_matches(name, _CHECKS, n=1, cutoff=0.5)
        remedy = f"Did you mean {near[0]}?" if near else f"There are {', '.join(_CHECKS)}."
        raise NotConfigured(f"{name}: there is no such setting. {remedy}")
    try:
        return check(value)
    except _Wrong as wrong:
        raise NotConfigured(f"{label}: {wrong}") from None


def _variable(name: str) -> str:
    return _PREFIX + {"config_file": "CONFIG"}.get(name, name.upper())


def _value(environment: Mapping[str, str], variable: str) -> str | None:
    """An empty variable counts as unset: that is what `NAME=` in a compose file means."""
    text, file = environment.get(variable) or None, environment.get(variable + _FILE) or None
    if file is None:
        return text
    if text is not None:
        raise NotConfigured(f"{variable}: {variable}{_FILE} is set as well. Keep one of them")
    try:
        return Path(file).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise NotConfigured(
            f"{variable}{_FILE}: the file {file!r} cannot be read ({type(error).__name__}). "
            "Name a text file that this process may read"
        ) from None


def _unset(name: str, problem: str, example: str) -> str:
    return (
        f"{_variable(name)}: {problem}. Set it in the environment ({_variable(name)}={example}) "
        f"or in the program (notify_tasks.configure({name}={example!r}))"
    )


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
