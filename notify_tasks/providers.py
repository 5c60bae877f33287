"""Providers and pools, as `notify.toml` names them.

A pool's order is its fallback order; its weights share out the first choice. A provider that cannot work
(wrong credentials, down) is left out for a while by its breaker, and asked again later.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard

from channels.contract import Capability, Inbox, Misconfigured, Provider
from channels.loader import load
from notify_tasks.errors import NotConfigured
from notify_tasks.routing import CHANNELS

DEFAULT_TIMEOUT: Final = 10.0
LONGEST_TIMEOUT: Final = 60
LEASE_MARGIN: Final = 30.0
"""Seconds a lease outlives its call's deadline."""
OPEN_SECONDS: Final = 15.0
"""How long a breaker leaves a provider out before it is tried again."""
FAILURES_TO_OPEN: Final = 5

ENV_PREFIX: Final = "env:"


@dataclass(slots=True)
class Breaker:
    """Leaves a provider out after failures in a row, or at once when it is misconfigured."""

    failures: int = 0
    open_until: float = 0.0

    def closed(self) -> bool:
        """Whether the provider may be called."""
        return time.monotonic() >= self.open_until

    def success(self) -> None:
        """A call worked."""
        self.failures = 0
        self.open_until = 0.0

    def failure(self, *, at_once: bool = False) -> None:
        """A call found the provider down or misconfigured."""
        self.failures += 1
        if at_once or self.failures >= FAILURES_TO_OPEN:
            self.open_until = time.monotonic() + OPEN_SECONDS


@dataclass(slots=True)
class Configured:
    """One provider of the configuration. It is built when it is first needed."""

    name: str
    use: str
    timeout: float
    options: Mapping[str, Any] = field(repr=False)
    breaker: Breaker = field(default_factory=Breaker)
    _built: Provider | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def lease(self) -> float:
        """Seconds a delivery is leased for one call."""
        return self.timeout + LEASE_MARGIN

    def provider(self) -> Provider:
        """The provider itself.

        Raises:
            Misconfigured: its options are wrong or a secret is missing.
        """
        with self._lock:
            if self._built is None:
                self._built = self._build()
            return self._built

    def _build(self) -> Provider:
        try:
            return load(self.use, self.name, _resolve(self.name, self.options))
        except Misconfigured:
            raise
        except Exception as error:  # noqa: BLE001 - a missing SDK, say; nothing has been sent yet
            what = f"{self.name} ({self.use}) cannot be built: {type(error).__name__}"
        raise Misconfigured("cannot-build", f"{what}; correct its options, or install what it needs")

    @property
    def capability(self) -> Capability:
        """What can be learnt of a lost answer; opaque where the provider cannot be built."""
        try:
            return self.provider().capability
        except Misconfigured:
            return Capability.OPAQUE

    def close(self) -> None:
        """Close pooled connections."""
        with self._lock:
            if self._built is not None:
                self._built.close()


@dataclass(frozen=True, slots=True)
class Pool:
    """The providers of a channel in fallback order, with the weights of the first choice."""

    members: tuple[tuple[str, float], ...]
    sandbox: str | None = None


class Pools:
    """Every provider and pool of a configuration.

    Args:
        document: the parsed `notify.toml`.
        inbox: what in-app providers store into.
    """

    def __init__(
        self, document: Mapping[str, Any], *, inbox: Inbox | None = None, source: str = "notify.toml"
    ) -> None:
        self._source = source
        self._providers = {
            name: self._configured(name, table, inbox)
            for name, table in self._tables(document, "providers").items()
        }
        self._pools = {
            name: self._pool(name, table) for name, table in self._tables(document, "channels").items()
        }

    @classmethod
    def read(cls, path: Path, *, inbox: Inbox | None = None) -> Pools:
        """Read a configuration file.

        Raises:
            NotConfigured: there is no such file, or it is wrong; the text names the key and the remedy.
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotConfigured(
                f"there is no provider configuration at {path}; "
                "run from the repository's root, or set NOTIFY_CONFIG"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise NotConfigured(f"{path}: {error}") from None
        return cls(document, inbox=inbox, source=str(path))

    def _tables(self, document: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
        tables = document.get(key, {})
        if not isinstance(tables, dict):
            raise self._wrong(key, "is no table", f"write [{key}.<name>]")
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise self._wrong(f"{key}.{name}", "is no table", f"write [{key}.{name}]")
        return tables

    def _wrong(self, key: str, problem: str, remedy: str) -> NotConfigured:
        return NotConfigured(f"{self._source}: {key} {problem}; {remedy}")

    def _configured(self, name: str, table: Mapping[str, Any], inbox: Inbox | None) -> Configured:
        options = dict(table)
        key = f"providers.{name}"
        use = options.pop("use", None)
        if not isinstance(use, str) or "." not in use:
            raise self._wrong(f"{key}.use", "is missing", 'write use = "email.smtp", say')
        timeout = options.pop("timeout", DEFAULT_TIMEOUT)
        if not _is_number(timeout) or not 0 < timeout <= LONGEST_TIMEOUT:
            raise self._wrong(f"{key}.timeout", f"is {timeout!r}", f"write seconds, 0 to {LONGEST_TIMEOUT}")
        if "rate" in options:
            raise self._wrong(f"{key}.rate", "is not there yet", "leave it out")
        if use.startswith("inapp.") and inbox is not None:
            options["inbox"] = inbox
        return Configured(name, use, float(timeout), options)

    def _pool(self, channel: str, table: Mapping[str, Any]) -> Pool:
        key = f"channels.{channel}"
        if channel not in CHANNELS:
            raise self._wrong(key, "is no channel", f"they are {', '.join(CHANNELS)}")
        pool = table.get("pool")
        if not isinstance(pool, list) or not pool:
            raise self._wrong(f"{key}.pool", "is no list of providers", 'write pool = ["<a provider>"]')
        members: dict[str, float] = {}
        for entry in pool:
            one = {"provider": entry} if isinstance(entry, str) else entry
            if not isinstance(one, dict):
                raise self._wrong(
                    f"{key}.pool", f"has {entry!r}", 'write { provider = "<name>", weight = 1 }'
                )
            name, weight = self._existing(channel, one.get("provider")), one.get("weight", 1.0)
            if name in members:
                raise self._wrong(f"{key}.pool", f"names {name!r} twice", "name it once, with one weight")
            if not _is_number(weight) or not 0 <= weight < math.inf:
                raise self._wrong(f"{key}.pool", f"gives {name!r} the weight {weight!r}", "write 0 or more")
            members[name] = float(weight)
        sandbox = table.get("sandbox")
        if sandbox is not None:
            sandbox = self._existing(channel, sandbox)
        return Pool(tuple(members.items()), sandbox)

    def _existing(self, channel: str, name: object) -> str:
        if not isinstance(name, str) or name not in self._providers:
            there = ", ".join(sorted(self._providers)) or "none"
            raise self._wrong(
                f"channels.{channel}.pool",
                f"names the provider {name!r}, which is not under [providers]",
                f"there are {there}",
            )
        return name

    def get(self, name: str) -> Configured | None:
        """A provider by its configured name."""
        return self._providers.get(name)

    def candidates(self, channel: str, delivery_id: str, *, sandbox: bool = False) -> list[Configured]:
        """The providers for a delivery: the weighted first choice, then the others in their order.

        The choice depends on the delivery alone, so that every worker makes the same one.
        """
        pool = self._pools.get(channel)
        if pool is None:
            return []
        if sandbox:
            return [self._providers[pool.sandbox]] if pool.sandbox else []
        names = [name for name, _ in pool.members]
        total = sum(weight for _, weight in pool.members)
        if len(names) > 1 and total > 0:
            point = int.from_bytes(hashlib.sha256(delivery_id.encode()).digest()[:8]) / 2**64 * total
            for name, weight in pool.members:
                point -= weight
                if point < 0:
                    names.remove(name)
                    names.insert(0, name)
                    break
        return [self._providers[name] for name in names]

    def of_channels(self, channels: Iterable[str]) -> list[Configured]:
        """Every provider that a process may call which serves these channels."""
        names = {
            name
            for channel in channels
            if (pool := self._pools.get(channel))
            for name in (*(member for member, _ in pool.members), *((pool.sandbox,) if pool.sandbox else ()))
        }
        return [self._providers[name] for name in sorted(names)]

    def knowable(self) -> list[str]:
        """Providers at which a repeated or lost request can be cleared up."""
        return [name for name, it in self._providers.items() if it.capability is not Capability.OPAQUE]

    def longest_lease(self) -> float:
        """Seconds of the longest lease that any provider's call is given."""
        return max((it.lease for it in self._providers.values()), default=DEFAULT_TIMEOUT + LEASE_MARGIN)

    def close(self) -> None:
        """Close every provider's pooled connections."""
        for configured in self._providers.values():
            configured.close()


def _resolve(
    name: str, options: Mapping[str, Any], read: Callable[[str], str | None] = os.environ.get
) -> dict[str, Any]:
    """Options with `env:NAME` replaced by the environment's value (or that of the file in NAME_FILE)."""
    resolved = {}
    for key, value in options.items():
        if isinstance(value, str) and value.startswith(ENV_PREFIX):
            variable = value.removeprefix(ENV_PREFIX)
            found = read(variable)
            if found is None and (path := read(f"{variable}_FILE")):
                found = _read_secret(name, f"{variable}_FILE", path)
            if found is None:
                raise Misconfigured(
                    "missing-secret", f"providers.{name}.{key} needs the variable {variable}: set it"
                )
            resolved[key] = found
        else:
            resolved[key] = value
    return resolved


def _read_secret(name: str, variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = type(error).__name__
    raise Misconfigured(
        "missing-secret", f"providers.{name}: the file of {variable} cannot be read ({problem})"
    )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
