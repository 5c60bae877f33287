"""Providers and pools, as `notify.toml` names them.

A pool's order is its fallback order; its weights share out the first choice. A provider that cannot work (wrong
credentials, down) is left out for a while by its breaker, and asked again later.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from channels.contract import Capability, Inbox, Misconfigured, Provider
from channels.loader import load
from notify_tasks.errors import NotConfigured
from notify_tasks.routing import CHANNELS

DEFAULT_TIMEOUT: Final = 10.0
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
                self._built = load(self.use, self.name, _resolve(self.name, self.options))
            return self._built

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
            for name, table in document.get("providers", {}).items()
        }
        self._pools = {name: self._pool(name, table) for name, table in document.get("channels", {}).items()}

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
                f"there is no provider configuration at {path}; run from the repository's root, or set NOTIFY_CONFIG"
            ) from None
        except tomllib.TOMLDecodeError as error:
            raise NotConfigured(f"{path}: {error}") from None
        return cls(document, inbox=inbox, source=str(path))

    def _configured(self, name: str, table: Mapping[str, Any], inbox: Inbox | None) -> Configured:
        options = dict(table)
        use = options.pop("use", None)
        if not isinstance(use, str) or "." not in use:
            raise NotConfigured(
                f'{self._source}: providers.{name}.use is missing; write use = "email.smtp", say'
            )
        timeout = options.pop("timeout", DEFAULT_TIMEOUT)
        if not isinstance(timeout, (int, float)) or not 0 < timeout <= 60:  # noqa: PLR2004 - the lease's bound
            raise NotConfigured(
                f"{self._source}: providers.{name}.timeout is {timeout!r}; write seconds, 0 to 60"
            )
        if use.startswith("inapp.") and inbox is not None:
            options["inbox"] = inbox
        return Configured(name, use, float(timeout), options)

    def _pool(self, channel: str, table: Mapping[str, Any]) -> Pool:
        if channel not in CHANNELS:
            raise NotConfigured(
                f"{self._source}: channels.{channel} is no channel; they are {', '.join(CHANNELS)}"
            )
        members = []
        for entry in table.get("pool", ()):
            name, weight = (
                (entry, 1.0) if isinstance(entry, str) else (entry.get("provider"), entry.get("weight", 1.0))
            )
            self._must_exist(channel, name)
            members.append((name, float(weight)))
        if not members:
            raise NotConfigured(
                f'{self._source}: channels.{channel}.pool is empty; write pool = ["<a provider>"]'
            )
        sandbox = table.get("sandbox")
        if sandbox is not None:
            self._must_exist(channel, sandbox)
        return Pool(tuple(members), sandbox)

    def _must_exist(self, channel: str, name: object) -> None:
        if name not in self._providers:
            raise NotConfigured(
                f"{self._source}: channels.{channel} names the provider {name!r}, which is not under [providers]; "
                f"there are {', '.join(sorted(self._providers)) or 'none'}"
            )

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
                found = Path(path).read_text(encoding="utf-8").strip()
            if found is None:
                raise Misconfigured(
                    "missing-secret", f"providers.{name}.{key} needs the variable {variable}: set it"
                )
            resolved[key] = found
        else:
            resolved[key] = value
    return resolved
