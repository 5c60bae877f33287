"""What a new configuration changes, in words. Pure; no value of an option is shown."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from notify_tasks import durations
from notify_tasks.configuration.model import Configuration, Pool, ProviderSettings, Rules


def changes(old: Configuration, new: Configuration, *, rotated: Collection[str] = ()) -> list[str]:
    """What is different.

    Args:
        old: in force until now.
        new: in force from now on.
        rotated: providers whose secrets have other values now.
    """
    said: list[str] = []
    for name in sorted({*old.providers, *new.providers}):
        said += _provider(name, old.providers.get(name), new.providers.get(name))
        if name in rotated:
            said.append(f"a secret of {name} is another one")
    for channel in sorted({*old.pools, *new.pools}):
        said += _pool(channel, old.pools.get(channel), new.pools.get(channel))
    for channel in sorted({*old.rules, *new.rules}):
        said += _rules(channel, old.rules.get(channel, Rules()), new.rules.get(channel, Rules()))
    return said


def _provider(name: str, old: ProviderSettings | None, new: ProviderSettings | None) -> Iterator[str]:
    if old is None or new is None:
        yield f"{name} is {'gone' if new is None else 'new'}"
        return
    if old.use != new.use:
        yield f"{name} uses {old.use} -> {new.use}"
    if old.enabled != new.enabled:
        yield f"{name} switched {'on' if new.enabled else 'off'}"
    if old.rate != new.rate:
        yield f"rate of {name} {old.rate or 'none'} -> {new.rate or 'none'}"
    if old.timeout != new.timeout:
        yield f"timeout of {name} {durations.text(old.timeout)} -> {durations.text(new.timeout)}"
    names = sorted({*old.options, *new.options})
    if other := [option for option in names if old.options.get(option) != new.options.get(option)]:
        yield f"{', '.join(other)} of {name} changed"


def _pool(channel: str, old: Pool | None, new: Pool | None) -> Iterator[str]:
    if old is None or new is None:
        yield f"the pool of {channel} is {'gone' if new is None else f'new: {_members(new)}'}"
        return
    if old.members != new.members:
        yield f"pool of {channel} {_members(old)} -> {_members(new)}"
    if old.sandbox != new.sandbox:
        yield f"sandbox of {channel} {old.sandbox or 'none'} -> {new.sandbox or 'none'}"


def _rules(channel: str, old: Rules, new: Rules) -> Iterator[str]:
    if old.per_recipient != new.per_recipient:
        yield f"limits of a recipient by {channel} {_limits(old)} -> {_limits(new)}"
    if old.countries != new.countries:
        yield f"countries of {channel} {_countries(old)} -> {_countries(new)}"


def _limits(rules: Rules) -> str:
    return ", ".join(map(str, rules.per_recipient)) or "none"


def _countries(rules: Rules) -> str:
    return "all" if rules.countries is None else ", ".join(sorted(rules.countries))


def _members(pool: Pool) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in pool.members)
