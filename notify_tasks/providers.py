"""Providers and pools of a running process, which a new configuration changes as one.

A pool's order is its fallback order; its weights share out the first choice. A provider that cannot work
(wrong credentials, down) is left out for a while by its breaker, and asked again later.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from channels.contract import Capability, Inbox, Message, Misconfigured, Prewarmed, Provider, Selective
from channels.loader import load
from notify_tasks.breaker import Breaker
from notify_tasks.configuration import secrets
from notify_tasks.configuration.changes import changes
from notify_tasks.configuration.model import DEFAULT_TIMEOUT, Configuration, Pool, ProviderSettings, Rules
from notify_tasks.configuration.origins import BadConfiguration, Key, Problem, dotted
from notify_tasks.configuration.reading import of_document
from notify_tasks.rates import Rate

LEASE_MARGIN: Final = 30.0
"""Seconds a lease outlives its call's deadline."""
_NO_RULES: Final = Rules()
_OPTION: Final = re.compile(r"(\w+)(?:\[\d+\])? ")


class CannotBuild(Misconfigured):
    """A provider's options are wrong, or a secret is missing.

    Args:
        key: of the option, or of the provider.
        what: what is wrong, without a secret.
        remedy: what to do.
    """

    def __init__(self, code: str, key: Key, what: str, remedy: str) -> None:
        super().__init__(code, f"{dotted(key)}: {what}. {remedy}")
        self.key = key
        self.what = what
        self.remedy = remedy


class NoInbox:
    """Stands in for the fleet's inbox where an in-app provider is only built, to see whether it can be."""

    def put(self, message: Message) -> bool:
        """Nothing is sent through it."""
        raise NotImplementedError(f"no inbox for {message.delivery_id}")


class _Held:
    """A provider itself, built when it is first needed, closed when nobody needs it any more."""

    def __init__(self, settings: ProviderSettings, inbox: Inbox | None) -> None:
        self.settings = settings
        self._inbox = inbox
        self._lock = threading.Lock()
        self._users = 0
        self._retired = False
        self.built: Provider | None = None
        self.resolved: Mapping[str, Any] | None = None
        """The options that it was built with: with its secrets, so never shown."""

    def get(self) -> Provider:
        """The provider.

        Raises:
            Misconfigured: it cannot be built.
        """
        with self._lock:
            return self._get()

    @contextmanager
    def in_use(self) -> Iterator[Provider]:
        """The provider, which stays open until the block has ended, whatever the configuration does meanwhile."""
        with self._lock:
            provider = self._get()
            self._users += 1
        try:
            yield provider
        finally:
            with self._lock:
                self._users -= 1
                if self._retired:
                    self._close_unused()

    def retire(self) -> None:
        """Close it as soon as no call uses it."""
        with self._lock:
            self._retired = True
            self._close_unused()

    def close(self) -> None:
        """Close its connections now."""
        with self._lock:
            if self.built is not None:
                self.built.close()

    def _close_unused(self) -> None:
        if not self._users and self.built is not None:
            self.built.close()
            self.built = None

    def _get(self) -> Provider:
        if self.built is None:
            self.built = self._build()
        return self.built

    def _build(self) -> Provider:
        settings = self.settings
        key: Key = ("providers", settings.name)
        try:
            self.resolved = secrets.resolve(settings.options, os.environ)
            extra = {"inbox": self._inbox} if settings.use.startswith("inapp.") and self._inbox else {}
            return load(settings.use, settings.name, {**self.resolved, **extra})
        except secrets.MissingSecret as missing:
            raise CannotBuild("missing-secret", (*key, *missing.key), missing.what, missing.remedy) from None
        except Misconfigured as error:
            raise _cannot_build(settings, error) from None
        except Exception as error:  # noqa: BLE001 - a missing SDK, say; nothing has been sent yet
            what = f"{settings.use} cannot be built ({type(error).__name__})"
        raise CannotBuild("cannot-build", key, what, "Correct its options, or install what it needs")


@dataclass(frozen=True, slots=True)
class Configured:
    """One provider as the configuration in force has it.

    A new configuration makes new ones. The breaker is the same as long as the provider's own options are.

    Args:
        timeout: seconds of one call.
        rate: of the whole fleet; None for as many calls as there are.
        enabled: False where it is switched off.
    """

    name: str
    use: str
    timeout: float
    rate: Rate | None
    enabled: bool
    breaker: Breaker
    _held: _Held = field(repr=False)

    @property
    def lease(self) -> float:
        """Seconds a delivery is leased for one call."""
        return self.timeout + LEASE_MARGIN

    def provider(self) -> Provider:
        """The provider itself; to call it, take it from `in_use`.

        Raises:
            Misconfigured: its options are wrong or a secret is missing.
        """
        return self._held.get()

    @contextmanager
    def in_use(self) -> Iterator[Provider]:
        """The provider for one call. One that is replaced meanwhile is closed after it.

        Raises:
            Misconfigured: as `provider`.
        """
        with self._held.in_use() as provider:
            yield provider

    def reaches(self, address: str) -> bool:
        """Whether it may have this address: most providers cannot say, and one that cannot be built does not."""
        try:
            provider = self.provider()
        except Misconfigured:
            return True
        return not isinstance(provider, Selective) or provider.reaches(address)

    @property
    def capability(self) -> Capability:
        """What can be learnt of a lost answer; opaque where the provider cannot be built."""
        try:
            return self.provider().capability
        except Misconfigured:
            return Capability.OPAQUE


@dataclass(frozen=True, slots=True)
class _State:
    """One configuration in force."""

    configuration: Configuration
    providers: Mapping[str, Configured]
    pools: Mapping[str, Pool]
    several: dict[tuple[str, ...], bool] = field(default_factory=dict)

    def enabled(self, names: Iterable[str]) -> list[Configured]:
        return [it for name in names if (it := self.providers[name]).enabled]


class Pools:
    """Every provider and pool of the configuration in force.

    It stays the same object for a process's life: `reload` gives it another configuration, in one step.

    Args:
        configuration: checked; or a document as `tomllib` returns it.
        inbox: what in-app providers store into.

    Raises:
        NotConfigured: the document is wrong.
    """

    def __init__(
        self, configuration: Configuration | Mapping[str, Any], *, inbox: Inbox | None = None
    ) -> None:
        if not isinstance(configuration, Configuration):
            configuration = of_document(configuration)
        self._inbox = inbox
        self._state = self._assembled(configuration, {})

    @property
    def configuration(self) -> Configuration:
        """The one in force."""
        return self._state.configuration

    # --- asking -----------------------------------------------------------------------------------------

    def get(self, name: str) -> Configured | None:
        """A provider by its configured name; None where it is gone or switched off."""
        found = self._state.providers.get(name)
        return found if found is not None and found.enabled else None

    def all(self) -> list[Configured]:
        """Every provider, whether or not a pool has it, and switched off or not."""
        return list(self._state.providers.values())

    def candidates(
        self, channel: str, delivery_id: str, *, sandbox: bool = False, address: str = ""
    ) -> list[Configured]:
        """The providers for a delivery: the weighted first choice, then the others in their order.

        The choice depends on the delivery alone, so that every worker makes the same one. Those that are switched
        off are left out, and those that do not reach the address, where some do.
        """
        state = self._state
        pool = state.pools.get(channel)
        if pool is None:
            return []
        if sandbox:
            return state.enabled([pool.sandbox] if pool.sandbox else [])
        members = [(name, weight) for name, weight in pool.members if state.providers[name].enabled]
        if address and len(members) > 1:
            members = [it for it in members if state.providers[it[0]].reaches(address)] or members
        names = [name for name, _ in members]
        total = sum(weight for _, weight in members)
        if len(names) > 1 and total > 0:
            point = int.from_bytes(hashlib.sha256(delivery_id.encode()).digest()[:8]) / 2**64 * total
            for name, weight in members:
                point -= weight
                if point < 0:
                    names.remove(name)
                    names.insert(0, name)
                    break
        return [state.providers[name] for name in names]

    def share(self, channel: str, name: str) -> tuple[float, float]:
        """From where to where, of 0 to 1, a provider's part of its pool's first choices reaches."""
        pool = self._state.pools.get(channel)
        members = [(it, weight) for it, weight in pool.members if self.get(it)] if pool is not None else []
        total = sum(weight for _, weight in members)
        if total <= 0:
            return (0.0, 1.0) if members and members[0][0] == name else (0.0, 0.0)
        low = 0.0
        for it, weight in members:
            if it == name:
                return low, low + weight / total
            low += weight / total
        return 0.0, 0.0

    def rules(self, channel: str) -> Rules:
        """To whom a channel goes, and how often."""
        return self._state.configuration.rules.get(channel, _NO_RULES)

    def of_channels(self, channels: Iterable[str]) -> list[Configured]:
        """Every provider that a process may call which serves these channels."""
        state = self._state
        return [state.providers[name] for name in state.configuration.serving(tuple(channels))]

    def prewarm(self, channels: Iterable[str]) -> None:
        """Load what the providers of these channels load slowly, so that no first message waits for it."""
        for configured in self.of_channels(channels):
            with suppress(Exception):  # whatever is wrong shows when it is used, where it has its name
                provider = configured.provider()
                if isinstance(provider, Prewarmed):
                    provider.prewarm()

    def several(self, channels: Iterable[str]) -> bool:
        """Whether a process that serves these channels has more than one provider to call."""
        state, key = self._state, tuple(channels)
        found = state.several.get(key)
        if found is None:
            found = state.several[key] = len(state.configuration.serving(key)) > 1
        return found

    def knowable(self) -> list[str]:
        """Providers at which a repeated or lost request can be cleared up."""
        return [it.name for it in self.all() if it.capability is not Capability.OPAQUE]

    def longest_lease(self) -> float:
        """Seconds of the longest lease that any provider's call is given."""
        return max((it.lease for it in self.all()), default=DEFAULT_TIMEOUT + LEASE_MARGIN)

    # --- a new configuration --------------------------------------------------------------------------

    def problems(self, channels: Sequence[str]) -> list[Problem]:
        """What keeps a worker of these channels from calling its providers: wrong options, missing secrets."""
        return _problems(self._state, channels)

    def reload(self, configuration: Configuration, channels: Sequence[str]) -> list[str]:
        """Take another configuration. A provider whose options are the same keeps its connections and breaker.

        One thread at a time may call this.

        Args:
            configuration: the new one.
            channels: those that this process serves, whose providers must be ready before the change.

        Returns:
            What is different, in words.

        Raises:
            BadConfiguration: a provider cannot be built; then nothing has changed.
        """
        old = self._state
        new = self._assembled(configuration, old.providers)
        problems = _problems(new, channels)
        if problems:
            _retire(new, but=old)
            raise BadConfiguration(problems)
        self._state = new
        _retire(old, but=new)
        rotated = [
            name
            for name, it in new.providers.items()
            if (before := old.providers.get(name)) is not None
            and before._held is not it._held  # noqa: SLF001 - as `_assembled`
            and _same_options(old.configuration.providers[name], configuration.providers[name])
        ]
        return changes(old.configuration, configuration, rotated=rotated)

    def close(self) -> None:
        """Close every provider's pooled connections."""
        for configured in self.all():
            configured._held.close()  # noqa: SLF001 - as `_assembled`

    def _assembled(self, configuration: Configuration, before: Mapping[str, Configured]) -> _State:
        providers = {}
        for name, settings in configuration.providers.items():
            old = before.get(name)
            if old is not None and not _is_another(old, settings):
                breaker, held = old.breaker, old._held  # noqa: SLF001 - the two classes are one thing
            else:
                breaker, held = Breaker(), _Held(settings, self._inbox)
            providers[name] = Configured(
                name, settings.use, settings.timeout, settings.rate, settings.enabled, breaker, held
            )
        return _State(configuration, providers, configuration.pools)


def _cannot_build(settings: ProviderSettings, error: Misconfigured) -> CannotBuild:
    """A provider's refusal: of an option it says `name: option what is wrong; what to write`."""
    key: Key = ("providers", settings.name)
    said = error.detail.removeprefix(f"{settings.name}: ") or error.code
    named = _OPTION.match(said) if error.code == "option" else None
    if named is not None:
        key, said = (*key, named[1]), said[named.end() :]
    what, _, remedy = said.partition("; ")
    raw = settings.options.get(named[1]) if named is not None else None
    if isinstance(raw, str) and raw.startswith(secrets.PREFIX):
        what = f"{what} (it is what {raw.removeprefix(secrets.PREFIX)} holds)"
    remedy = f"{remedy[:1].upper()}{remedy[1:]}" if remedy else "Correct it"
    return CannotBuild(error.code, key, what, remedy)


def _problems(state: _State, channels: Sequence[str]) -> list[Problem]:
    found: list[Problem] = []
    configuration = state.configuration

    def add(key: Key, error: CannotBuild | secrets.MissingSecret) -> None:
        found.append(Problem(configuration.origin(key), dotted(key), error.what, error.remedy))

    for name in configuration.serving(channels):
        absent = list(secrets.missing(configuration.providers[name].options, os.environ))
        for each in absent:
            add(("providers", name, *each.key), each)
        try:
            state.providers[name].provider()
        except CannotBuild as error:
            if not absent:  # which is why it cannot be built
                add(error.key, error)
    return sorted(found, key=lambda problem: (problem.origin.source, problem.origin.line or 0))


def _retire(state: _State, *, but: _State) -> None:
    """Close what the other state does not hold."""
    kept = {id(it._held) for it in but.providers.values()}  # noqa: SLF001 - as `_assembled`
    for it in state.providers.values():
        if id(it._held) not in kept:  # noqa: SLF001 - as `_assembled`
            it._held.retire()  # noqa: SLF001 - as `_assembled`


def _same_options(old: ProviderSettings, new: ProviderSettings) -> bool:
    return old.use == new.use and old.options == new.options


def _is_another(old: Configured, new: ProviderSettings) -> bool:
    """Whether the provider must be built anew: for other options, or for a secret that is another one now."""
    held = old._held  # noqa: SLF001 - as `_assembled`
    if not _same_options(held.settings, new):
        return True
    if held.resolved is None:
        return False
    try:
        return bool(secrets.resolve(new.options, os.environ) != held.resolved)
    except secrets.MissingSecret:
        return True
