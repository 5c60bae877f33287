"""A configuration for people: every value, without secrets, and where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from notify_tasks import durations
from notify_tasks.configuration import secrets
from notify_tasks.configuration.model import Configuration, ProviderSettings
from notify_tasks.configuration.origins import DEFAULT, Key, Origin, dotted


@dataclass(frozen=True, slots=True)
class Row:
    """One value.

    Args:
        key: `providers.smtp-main.rate`.
        value: fit to be shown.
        origin: where it stands.
    """

    key: str
    value: str
    origin: Origin


def rows(configuration: Configuration, environment: Mapping[str, str]) -> Iterator[Row]:
    """Every value of a configuration.

    Args:
        configuration: it.
        environment: the variables; only whether a secret is there is said of them.
    """
    for name, provider in configuration.providers.items():
        for part, value in _values(provider, environment):
            key: Key = ("providers", name, part)
            yield Row(dotted(key), value, configuration.origins.get(key, DEFAULT))
    for channel, pool in configuration.pools.items():
        for index, (name, weight) in enumerate(pool.members):
            member: Key = ("channels", channel, "pool", index)
            yield Row(dotted(member), f"{name}, weight {weight:g}", configuration.origin(member))
        sandbox: Key = ("channels", channel, "sandbox")
        yield Row(dotted(sandbox), pool.sandbox or "none", configuration.origins.get(sandbox, DEFAULT))


def _values(provider: ProviderSettings, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "use", provider.use
    yield "enabled", "true" if provider.enabled else "false"
    yield "timeout", durations.text(provider.timeout)
    yield "rate", str(provider.rate) if provider.rate else "none"
    for option, value in provider.options.items():
        yield option, _option(option, value, environment)


def _option(option: str, value: Any, environment: Mapping[str, str]) -> str:
    if isinstance(value, str) and value.startswith(secrets.PREFIX):
        return f"{value} ({secrets.state(value.removeprefix(secrets.PREFIX), environment)})"
    shown = secrets.masked((option,), value)
    return ("true" if shown else "false") if isinstance(shown, bool) else str(shown)
