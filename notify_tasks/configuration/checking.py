"""Every problem of a merged document at once, each with its place and its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from channels import loader
from notify_tasks.configuration import secrets
from notify_tasks.configuration.layers import PREFIX, TABLES, Layers
from notify_tasks.configuration.model import Form
from notify_tasks.configuration.origins import Key, Problem, dotted, nearest
from notify_tasks.routing import CHANNELS

REMEDIES: Final[Mapping[tuple[str, ...], str]] = {
    ("providers",): "Write [providers.<name>]",
    ("providers", "*"): "Write [providers.<name>], with its keys below it",
    ("providers", "*", "use"): 'Write the name of a file in channels/: use = "email.smtp"',
    ("providers", "*", "enabled"): "Write true or false, without quotes",
    ("channels",): "Write [channels.<channel>]",
    ("channels", "*"): "Write [channels.<channel>], with its pool below it",
    ("channels", "*", "pool"): 'Write pool = ["<a provider>"]',
    ("channels", "*", "pool", "*"): 'Write "<a provider>", or { provider = "<a provider>", weight = 1 }',
    ("channels", "*", "pool", "*", "provider"): 'Write provider = "<a provider>"',
    ("channels", "*", "per_recipient"): 'Write per_recipient = ["1/min", "5/h", "10/day"]',
    ("channels", "*", "countries"): 'Write countries = ["DE", "AT"]',
    ("channels", "*", "sandbox"): 'Write sandbox = "<a provider>"',
}
_NOT: Final = {
    "string_type": "no text",
    "bool_type": "neither true nor false",
    "list_type": "no list",
    "dict_type": "no table",
    "model_type": "no table",
    "model_attributes_type": "no table",
}
_SETTINGS_WORDS: Final = ("broker", "database", "intake", "templates", "env")


def validate(layers: Layers) -> tuple[Form | None, list[Problem]]:
    """Check a document's form and what its parts say of each other.

    Returns:
        The form, None where there is a problem, and the problems.
    """
    form = None
    problems = []
    try:
        form = Form.model_validate(layers.values)
    except ValidationError as error:
        problems = [_translated(layers, each) for each in error.errors(include_url=False)]
    problems += [*_providers(layers), *_channels(layers)]
    return (None if problems else form), problems


def warnings(layers: Layers, form: Form) -> list[Problem]:
    """What works and may surprise."""
    found = []
    used = {
        name
        for channel in form.channels.values()
        for name in (*(member.provider for member in channel.pool), channel.sandbox)
    }
    for name in form.providers:
        if name not in used:
            channel = form.providers[name].use.partition(".")[0]
            found.append(
                _problem(
                    layers, ("providers", name), "it is in no pool", f"Name it in channels.{channel}.pool"
                )
            )
    for channel, table in form.channels.items():
        if not any(form.providers[member.provider].enabled for member in table.pool):
            found.append(
                _problem(
                    layers,
                    ("channels", channel, "pool"),
                    f"every provider in it is switched off, and what is sent by {channel} waits",
                    "Switch one on (enabled = true), or add one",
                )
            )
    return found


# --- form -----------------------------------------------------------------------------------------------


def _translated(layers: Layers, error: Any) -> Problem:
    """An error of pydantic's in our words."""
    key: Key = tuple(part for part in error["loc"])
    kind = error["type"]
    if kind == "missing":
        return _missing(layers, key)
    if kind == "extra_forbidden":
        return _unknown(layers, key)
    if kind == "value_error":
        what, _, remedy = str(error["ctx"]["error"]).partition(". ")
        return _problem(layers, key, what, remedy)
    if kind == "too_short":
        return _problem(layers, key, "it names no provider", _remedy(key))
    return _problem(layers, key, f"{_shown(key, error['input'])} is {_NOT.get(kind, 'wrong')}", _remedy(key))


def _missing(layers: Layers, key: Key) -> Problem:
    if key[0] == "providers":
        others = [name for name in layers.values["providers"] if name != key[1]]
        near = nearest(str(key[1]), others, example="[providers.{}]")
        if near.startswith("Did"):  # an overlay that misspells what it means to change
            return _problem(layers, key, "it is missing", f"{near} Or write {_remedy(key)[6:]}")
    return _problem(layers, key, "it is missing", _remedy(key))


def _unknown(layers: Layers, key: Key) -> Problem:
    name = str(key[-1])
    if len(key) == 1:
        if any(word in name for word in _SETTINGS_WORDS):
            remedy = f"Settings come from the environment: set {PREFIX}{name.upper()}"
        else:
            remedy = nearest(name, TABLES, example="[{}.<name>]")
        return _problem(layers, key, "there is no such table", remedy)
    known = ("provider", "weight") if "pool" in key else TABLES["channels"]
    return _problem(layers, key, "there is no such key", nearest(name, known))


def _remedy(key: Key) -> str:
    general = tuple("*" if index in (1, 3) else str(part) for index, part in enumerate(key))
    return REMEDIES.get(general, "Correct it")


def _shown(key: Key, value: object) -> str:
    if isinstance(value, str | int | float):
        return repr(secrets.masked(key, value))
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a date or time"


def _problem(layers: Layers, key: Key, what: str, remedy: str) -> Problem:
    return Problem(layers.origin(key), dotted(key), what, remedy)


# --- what the parts say of each other ---------------------------------------------------------------------


def _providers(layers: Layers) -> Iterator[Problem]:
    known = loader.names()
    for name, table in _tables(layers, "providers"):
        key: Key = ("providers", name)
        use = table.get("use")
        if isinstance(use, str) and use not in known:
            near = nearest(use, known, example='use = "{}"')
            yield _problem(layers, (*key, "use"), f"there is no provider {use!r}", near)
        options = {option: value for option, value in table.items() if option not in TABLES["providers"]}
        yield from _secrets(layers, key, options)


def _secrets(layers: Layers, key: Key, options: Mapping[str, Any]) -> Iterator[Problem]:
    for inner in secrets.literals(options):
        whole = (*key, *inner)
        if layers.origin(whole).line is None:
            continue  # from the environment, where secrets may be
        variable = _variable(whole)
        remedy = f'Write "env:{variable}" and set that variable, or {variable}_FILE to a file that holds it'
        yield _problem(layers, whole, "a secret does not belong into a file", remedy)
    for inner, variable in secrets.references(options):
        if not secrets.is_variable(variable):
            suggested = _variable((*key, *inner))
            yield _problem(
                layers,
                (*key, *inner),
                f"{variable!r} is no name of a variable" if variable else "the variable has no name",
                f'Write "env:{suggested}"',
            )


def _variable(key: Key) -> str:
    words = "_".join(str(part) for part in key[1:] if isinstance(part, str))
    return "".join(each if each.isascii() and each.isalnum() else "_" for each in words.upper())


def _channels(layers: Layers) -> Iterator[Problem]:
    if layers.values.get("channels", {}) == {}:
        yield _problem(
            layers,
            ("channels",),
            "no channel has a pool",
            'Write, say, [channels.email] and pool = ["<a provider>"]',
        )
    for channel, table in _tables(layers, "channels"):
        key: Key = ("channels", channel)
        if channel not in CHANNELS:
            near = nearest(channel, CHANNELS, example="[channels.{}]")
            yield _problem(layers, key, f"{channel!r} is no channel", near)
            continue
        if "countries" in table and channel != "sms":
            what = f"{channel} has no phone numbers, and so no countries"
            yield _problem(layers, (*key, "countries"), what, "Take it out, or write it under [channels.sms]")
        pool = table.get("pool")
        yield from _pool(layers, channel, pool if isinstance(pool, list) else [])
        if isinstance(table.get("sandbox"), str):
            yield from _named(layers, channel, (*key, "sandbox"), table["sandbox"])


def _pool(layers: Layers, channel: str, pool: list[Any]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, member in enumerate(pool):
        name = member.get("provider") if isinstance(member, dict) else member
        if not isinstance(name, str):
            continue
        key: Key = ("channels", channel, "pool", index)
        if name in seen:
            yield _problem(layers, key, f"{name!r} is in the pool twice", "Name it once, with one weight")
        seen.add(name)
        yield from _named(layers, channel, (*key, "provider") if isinstance(member, dict) else key, name)


def _named(layers: Layers, channel: str, key: Key, name: str) -> Iterator[Problem]:
    """What is wrong with a provider's name in a pool."""
    tables = dict(_tables(layers, "providers"))
    everything = layers.values.get("providers", {})
    if not isinstance(everything, dict):
        return
    if name not in everything:
        near = nearest(name, everything)
        if not near.startswith("Did"):
            near = f"Add [providers.{name}]. {near}"
        yield _problem(layers, key, f"there is no provider named {name!r}", near)
        return
    use = tables.get(name, {}).get("use")
    if isinstance(use, str) and use in loader.names() and use.partition(".")[0] != channel:
        yield _problem(
            layers,
            key,
            f"{name} is {use}, which carries {use.partition('.')[0]}",
            f'Name a provider whose use begins with "{channel}."',
        )


def _tables(layers: Layers, table: str) -> list[tuple[str, dict[str, Any]]]:
    found = layers.values.get(table, {})
    if not isinstance(found, dict):
        return []
    return [(name, value) for name, value in found.items() if isinstance(value, dict)]
