"""What a person wants: which categories on which channels, when not to be disturbed, when they are away. Pure.

Stored as JSON, which `Choices.stored` makes and `read` takes:

    {"categories": {"orders": {"email": "daily", "*": "off"}, "*": {"sms": "off"}},
     "quiet_hours": {"from": "22:00", "to": "07:00", "days": ["mon", "tue"], "timezone": "Europe/Berlin"},
     "vacation": {"from": "2030-07-01T00:00:00+00:00", "until": "2030-07-15T00:00:00+00:00", "mode": "hold"},
     "order": {"orders": ["sms", "push"], "*": ["email"]}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

ANY: Final = "*"
"""Stands for every category, or every channel."""
ON: Final = "on"
OFF: Final = "off"
DAILY: Final = "daily"
WEEKLY: Final = "weekly"
SAID: Final = (ON, OFF, DAILY, WEEKLY)
"""What a person may say of a category on a channel. `daily` and `weekly` want it gathered, where its type can be."""
HOLD: Final = "hold"
DROP: Final = "drop"
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""As `datetime.weekday` counts them."""
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """When a person is not to be disturbed.

    Args:
        begin: local time at which they begin.
        end: local time at which they end; where it is earlier than `begin`, on the next day.
        days: the days on which they begin, 0 for Monday.
        timezone: an IANA name; None for the person's own, which is UTC where it is not known.
    """

    begin: time
    end: time
    days: frozenset[int] = frozenset(range(7))
    timezone: str | None = None

    def ends(self, at: datetime, timezone: str | None) -> datetime | None:
        """When the quiet hours are over that `at` lies in; None where it lies in none.

        A local time that a clock skips is the moment after the gap. One that comes twice begins quiet hours the first
        time and ends them the second.

        Args:
            at: an instant.
            timezone: the person's own zone.
        """
        zone = zone_of(self.timezone or timezone)
        today = at.astimezone(zone).date()
        for day in (today - timedelta(days=1), today):
            if day.weekday() not in self.days:
                continue
            last = day if self.end > self.begin else day + timedelta(days=1)
            if instant(day, self.begin, zone) <= at < (end := instant(last, self.end, zone, fold=1)):
                return end
        return None


@dataclass(frozen=True, slots=True)
class Vacation:
    """When a person is away. `mode` says what becomes of their notifications: `hold` until they are back, or `drop`."""

    begin: datetime
    until: datetime
    mode: str = HOLD

    def covers(self, at: datetime) -> bool:
        """Whether they are away at an instant."""
        return self.begin <= at < self.until


@dataclass(frozen=True, slots=True)
class Choices:
    """Everything that one person has chosen. What is not in it follows the types' defaults.

    Args:
        categories: category or `*` -> channel or `*` -> `on`, `off`, `daily` or `weekly`.
        order: category or `*` -> channels, the one to try first first.
    """

    categories: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    quiet_hours: QuietHours | None = None
    vacation: Vacation | None = None
    order: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def wants(self, category: str, channel: str, *, default: bool) -> bool:
        """Whether the person wants a category on a channel.

        The most specific choice holds: for both, for the category, for the channel, for everything.
        """
        said = self._said(category, channel)
        return default if said is None else said != OFF

    def gathered(self, category: str, channel: str) -> str | None:
        """How often the person wants a digest of a category on a channel, `daily` or `weekly`; None for no digest."""
        said = self._said(category, channel)
        return said if said in (DAILY, WEEKLY) else None

    def _said(self, category: str, channel: str) -> str | None:
        for group, way in ((category, channel), (category, ANY), (ANY, channel), (ANY, ANY)):
            said = self.categories.get(group, {}).get(way)
            if said is not None:
                return said
        return None

    def order_for(self, category: str) -> tuple[str, ...]:
        """In which order the person wants channels to be tried; empty where they have not said."""
        return self.order.get(category) or self.order.get(ANY, ())

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        made: dict[str, Any] = {}
        if self.categories:
            made["categories"] = {name: dict(ways) for name, ways in self.categories.items()}
        if self.quiet_hours is not None:
            quiet = self.quiet_hours
            made["quiet_hours"] = {
                "from": f"{quiet.begin:%H:%M}",
                "to": f"{quiet.end:%H:%M}",
                "days": [DAYS[day] for day in sorted(quiet.days)],
                **({"timezone": quiet.timezone} if quiet.timezone else {}),
            }
        if self.vacation is not None:
            away = self.vacation
            made["vacation"] = {
                "from": away.begin.astimezone(UTC).isoformat(),
                "until": away.until.astimezone(UTC).isoformat(),
                "mode": away.mode,
            }
        if self.order:
            made["order"] = {name: list(channels) for name, channels in self.order.items()}
        return made


NO_CHOICES: Final = Choices()


def read(stored: Mapping[str, Any] | None) -> Choices:
    """What `Choices.stored` has made."""
    if not stored:
        return NO_CHOICES
    quiet, away = stored.get("quiet_hours"), stored.get("vacation")
    return Choices(
        stored.get("categories", {}),
        None
        if quiet is None
        else QuietHours(
            time.fromisoformat(quiet["from"]),
            time.fromisoformat(quiet["to"]),
            frozenset(DAYS.index(day) for day in quiet["days"]),
            quiet.get("timezone"),
        ),
        None
        if away is None
        else Vacation(
            datetime.fromisoformat(away["from"]), datetime.fromisoformat(away["until"]), away["mode"]
        ),
        {name: tuple(channels) for name, channels in stored.get("order", {}).items()},
    )


# --- local time ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def zone_of(name: str | None) -> tzinfo:
    """A time zone; UTC for one that this machine does not know."""
    try:
        return ZoneInfo(name) if name else UTC
    except (
        OSError,
        ValueError,
        KeyError,
    ):  # ZoneInfoNotFoundError is a KeyError; a directory's name an OSError
        return UTC


def instant(day: date, at: time, zone: tzinfo, *, fold: int = 0) -> datetime:
    """The instant, in UTC, of a local time.

    Args:
        day: the local day.
        at: the local time.
        zone: where.
        fold: which one is meant of a time that comes twice, 0 or 1 (PEP 495). A time that is skipped is the instant of
            the change.
    """
    local = datetime.combine(day, at, tzinfo=zone).replace(fold=fold)
    found = local.astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return found
    # PEP 495: in a gap, fold=0 counts with the offset before it, fold=1 with the one after, which is larger.
    before, after = local.replace(fold=1).astimezone(UTC), local.replace(fold=0).astimezone(UTC)
    old = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + timedelta(seconds=(after - before) // _SECOND // 2)
        if middle.astimezone(zone).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after
