"""What a configuration is: its form, field by field, and the values that the fleet works with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from notify_tasks import countries, durations, rates
from notify_tasks.configuration.origins import Key, Origin, Problem
from notify_tasks.rates import Rate
from notify_tasks.routing import CHANNELS

DEFAULT_TIMEOUT: Final = 10.0
LONGEST_TIMEOUT: Final = 60.0

# --- the form -------------------------------------------------------------------------------------------


def _timeout(value: object) -> float:
    seconds = durations.parse(value)
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise ValueError(
            f"{value!r} is out of range. Write more than 0 and at most {LONGEST_TIMEOUT:g} seconds"
        )
    return seconds


def _weight(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no weight. Write a number, 0 or more")
    return float(value)


def _countries(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not value:
        raise ValueError('it is no list of countries. Write countries = ["DE", "AT"]')
    for each in value:
        if each not in countries.KNOWN:
            meant = str(each).upper()
            remedy = (
                f'Write "{meant}"'
                if meant in countries.KNOWN
                else 'Write codes of ISO 3166: "DE", "AT", "US"'
            )
            raise ValueError(f"{each!r} is no country. {remedy}")
    return frozenset(value)


def _member(value: object) -> object:
    return {"provider": value} if isinstance(value, str) else value


class _Form(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )


class ProviderForm(_Form):
    """`[providers.<name>]`. Keys that are not listed are the provider's own options."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    use: str = Field(description="which provider: `email.smtp` is `channels/email/smtp.py`")
    timeout: Annotated[float, BeforeValidator(_timeout)] = Field(
        DEFAULT_TIMEOUT, description="of one call, from connecting to the answer; at most 60 s"
    )
    rate: Annotated[Rate | None, PlainValidator(Rate.parse)] = Field(
        None, description='how many calls the whole fleet may make: `"50/s"`, `"600/min"`'
    )
    enabled: bool = Field(True, description="false switches the provider off, in running workers too")  # noqa: FBT003 - the default

    def __repr_args__(self) -> Any:
        return [(name, getattr(self, name)) for name in type(self).model_fields]


class MemberForm(_Form):
    """One provider of a pool: `"<name>"`, or `{ provider = "<name>", weight = 90 }`."""

    provider: str
    weight: Annotated[float, BeforeValidator(_weight)] = 1.0


class ChannelForm(_Form):
    """`[channels.<channel>]`."""

    pool: list[Annotated[MemberForm, BeforeValidator(_member)]] = Field(
        description="its providers in fallback order; weights share out the first choice", min_length=1
    )
    sandbox: str | None = Field(
        None, description="the provider of calls with `sandbox=True`; without one they wait"
    )
    per_recipient: Annotated[tuple[Rate, ...], PlainValidator(rates.per_recipient)] = Field(
        (), description='how often one address is written to at most: `["1/min", "5/h", "10/day"]`'
    )
    countries: Annotated[frozenset[str] | None, PlainValidator(_countries)] = Field(
        None, description='of `sms`: the only countries whose numbers are written to: `["DE", "AT"]`'
    )


class Form(_Form):
    """The whole document."""

    providers: dict[str, ProviderForm] = Field(default_factory=dict)
    channels: dict[str, ChannelForm] = Field(default_factory=dict)


# --- the values -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider as it is configured.

    Args:
        timeout: seconds of one call.
        rate: of the whole fleet; None for as many calls as there are.
        options: its own, with `env:NAME` as it is written.
    """

    name: str
    use: str
    timeout: float = DEFAULT_TIMEOUT
    rate: Rate | None = None
    enabled: bool = True
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Pool:
    """The providers of a channel in fallback order, with the weights of the first choice.

    Args:
        sandbox: the provider of sandboxed calls.
    """

    members: tuple[tuple[str, float], ...]
    sandbox: str | None = None

    def names(self) -> tuple[str, ...]:
        """Every provider that it may call."""
        own = tuple(name for name, _ in self.members)
        return own if self.sandbox is None or self.sandbox in own else (*own, self.sandbox)


@dataclass(frozen=True, slots=True)
class Rules:
    """To whom a channel goes, and how often.

    Args:
        per_recipient: how often one address is written to at most; each must hold.
        countries: the only ones whose numbers are written to; None for all.
    """

    per_recipient: tuple[Rate, ...] = ()
    countries: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration without problems. Secrets are still references.

    Args:
        providers: by name, in the file's order.
        pools: by channel.
        origins: where each key stands.
        files: what was read, the base first.
        variables: names of the environment's variables that changed something.
        version: names the files' content; the same in every process that reads the same files.
        warnings: what works and may surprise.
        rules: by channel.
    """

    providers: Mapping[str, ProviderSettings]
    pools: Mapping[str, Pool]
    origins: Mapping[Key, Origin] = field(repr=False)
    files: Sequence[Path] = ()
    variables: Sequence[str] = ()
    version: str = ""
    warnings: Sequence[Problem] = ()
    rules: Mapping[str, Rules] = field(default_factory=dict)

    def origin(self, key: Key) -> Origin:
        """Where a key stands, or else the nearest table around it."""
        while key and key not in self.origins:
            key = key[:-1]
        return self.origins.get(key, Origin("notify.toml"))

    def serving(self, channels: Sequence[str] = CHANNELS) -> list[str]:
        """The providers that a process calls which serves these channels: those that are switched on."""
        names = {name for channel in channels if (pool := self.pools.get(channel)) for name in pool.names()}
        return sorted(name for name in names if self.providers[name].enabled)
