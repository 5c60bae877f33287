"""Secrets: what looks like one may not stand in a file, and is shown nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from notify_tasks.configuration.origins import Key
from notify_tasks.settings import without_secrets

PREFIX: Final = "env:"
FILE: Final = "_FILE"
MASK: Final = "***"

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMES: Final = re.compile(
    r"password|passwd|passphrase|secret|token|credential|(api|access|account|auth|bounce|dkim|private|secret|signing)[_-]?key",
    re.IGNORECASE,
)
_PLACES: Final = re.compile(r"[_-](file|path|url)$", re.IGNORECASE)
"""An option such as `private_key_file` or `token_url` says where a secret is, and is none itself."""

_PLACEHOLDER: Final = re.compile(r"\{\w+\}")
"""A gateway's `api_key = "{token}"`: the place where a secret goes."""
ROOMS: Final = "rooms"
"""The option whose URLs let whoever knows them post: hooks of chat services."""


class MissingSecret(Exception):
    """A secret that an option names cannot be had.

    Args:
        key: the option, with a path inside it.
        what: what is wrong, without the secret.
        remedy: what to do.
    """

    def __init__(self, key: Key, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}")
        self.key = key
        self.what = what
        self.remedy = remedy


def references(options: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    """The variables that options name with `env:`, each with its key."""
    for key, value in _leaves(options):
        if isinstance(value, str) and value.startswith(PREFIX):
            yield key, value.removeprefix(PREFIX)


def is_variable(name: str) -> bool:
    """Whether a variable may have this name."""
    return _VARIABLE.fullmatch(name) is not None


def literals(options: Mapping[str, Any]) -> Iterator[Key]:
    """The keys of secrets that are written out."""
    for key, value in _leaves(options):
        if is_secret(key, value):
            yield key


def is_secret(key: Key, value: object) -> bool:
    """Whether a value is a secret: by its option's name, as a hook, or because it is a URL with a password in it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return False
    text = str(value)
    if text.startswith(PREFIX) or _PLACEHOLDER.fullmatch(text):
        return False
    return has_secret_name(key) or _is_hook(key, text) or without_secrets(text) != text


def _is_hook(key: Key, text: str) -> bool:
    return ROOMS in key and "://" in text


def has_secret_name(key: Key) -> bool:
    """Whether an option's name says that its value is a secret."""
    name = next((part for part in reversed(key) if isinstance(part, str)), "")
    return bool(_NAMES.search(name)) and not _PLACES.search(name)


def masked(key: Key, value: object) -> object:
    """The value, fit to be shown."""
    if isinstance(value, Mapping):
        return {name: masked((*key, name), each) for name, each in value.items()}
    if isinstance(value, list):
        return [masked((*key, index), each) for index, each in enumerate(value)]
    if not is_secret(key, value):
        return value
    whole = has_secret_name(key) or _is_hook(key, str(value))
    return MASK if whole else without_secrets(str(value))


def resolve(value: Any, environment: Mapping[str, str], key: Key = ()) -> Any:
    """A value with each `env:NAME` in it replaced by what NAME holds, or by the file that NAME_FILE names.

    An empty variable counts as unset, as everywhere.

    Raises:
        MissingSecret: a variable is not set, or its file cannot be read.
    """
    if isinstance(value, Mapping):
        return {name: resolve(each, environment, (*key, name)) for name, each in value.items()}
    if isinstance(value, list):
        return [resolve(each, environment, (*key, index)) for index, each in enumerate(value)]
    if isinstance(value, str) and value.startswith(PREFIX):
        return _read(value.removeprefix(PREFIX), environment, key)
    return value


def missing(options: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[MissingSecret]:
    """Every secret that cannot be had."""
    for key, variable in references(options):
        try:
            _read(variable, environment, key)
        except MissingSecret as error:
            yield error


def state(variable: str, environment: Mapping[str, str]) -> str:
    """Where a variable's value would come from, in words, without the value."""
    if environment.get(variable):
        return "set"
    if environment.get(variable + FILE):
        return f"from {variable}{FILE}"
    return "not set"


def files(options: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Path]:
    """The files from which secrets are read."""
    for _, variable in references(options):
        if path := environment.get(variable + FILE):
            yield Path(path)


def _read(variable: str, environment: Mapping[str, str], key: Key) -> str:
    found, path = environment.get(variable), environment.get(variable + FILE)
    if found and path:
        raise MissingSecret(key, f"{variable} and {variable}{FILE} are both set", "Keep one of them")
    if found:
        return found
    if not path:
        from_file = (
            "" if variable.endswith(FILE) else f", or {variable}{FILE} to the path of a file that holds it"
        )
        raise MissingSecret(key, f"the variable {variable} is not set", f"Set {variable}{from_file}")
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = type(error).__name__
    else:
        if text:
            return text
        problem = "it is empty"
    raise MissingSecret(
        key,
        f"the file {path!r} of {variable}{FILE} cannot be read ({problem})",
        "Name a text file that this process may read",
    )


def _leaves(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _leaves(each, (*key, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(each, (*key, index))
    else:
        yield key, value
