"""A time on the clock of each recipient: a day and a time of day without a zone. Pure."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final

from notify_tasks import choices
from notify_tasks.errors import InvalidCall

FIRST_ZONE: Final = dt.timedelta(hours=14)
"""Ahead of UTC: where a local time comes first (Pacific/Kiritimati)."""
LAST_ZONE: Final = dt.timedelta(hours=12)
"""Behind UTC: where it comes last (Etc/GMT+12)."""
_WRITTEN: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?")
_REMEDY: Final = "Write a day and a time of day, as in LocalTime(2030, 5, 1, 8, 0) or 2030-05-01T08:00"


@dataclass(frozen=True, slots=True, order=True)
class LocalTime:
    """A day and a time of day, to be read on each recipient's own clock.

        send_notification.delay("offer.ends", to=["user-42", "user-43"], at=LocalTime(2030, 5, 1, 8, 0))

    A time that a clock skips is the moment of the change; of one that comes twice it is the first.

    Raises:
        InvalidCall: there is no such day, or no such time of day.
    """

    year: int
    month: int
    day: int
    hour: int = 0
    minute: int = 0
    second: int = 0

    def __post_init__(self) -> None:
        try:
            naive = self._naive
        except (TypeError, ValueError, OverflowError):
            raise InvalidCall("at", "there is no such day or time of day", _REMEDY) from None
        # The first and the last year leave no room for a zone.
        if not dt.MINYEAR < naive.year < dt.MAXYEAR:
            raise InvalidCall("at", "the time is out of range", "Write a time before the year 9999")

    @classmethod
    def parse(cls, text: object, field: str = "at") -> LocalTime:
        """Read `2030-05-01T08:00` or `2030-05-01T08:00:00`.

        Raises:
            InvalidCall: it is not one.
        """
        if not isinstance(text, str) or not _WRITTEN.fullmatch(text):
            zoned = isinstance(text, str) and _WRITTEN.match(text)
            problem = "a local time has no zone" if zoned else "it is not a local time"
            raise InvalidCall(field, problem, "Write it as in 2030-05-01T08:00")
        try:
            read = dt.datetime.fromisoformat(text)
        except ValueError:
            raise InvalidCall(
                field, "there is no such day or time of day", "Write it as in 2030-05-01T08:00"
            ) from None
        return cls(read.year, read.month, read.day, read.hour, read.minute, read.second)

    def __str__(self) -> str:
        return self._naive.isoformat()

    def instant(self, timezone: str | None) -> dt.datetime:
        """When it is on the clock of a zone, in UTC.

        Args:
            timezone: an IANA name; UTC where it is None, or not known on this machine.
        """
        naive = self._naive
        return choices.instant(naive.date(), naive.time(), choices.zone_of(timezone))

    @property
    def earliest(self) -> dt.datetime:
        """When it is anywhere for the first time, in UTC."""
        return self._naive.replace(tzinfo=dt.UTC) - FIRST_ZONE

    @property
    def latest(self) -> dt.datetime:
        """When it is anywhere for the last time, in UTC."""
        return self._naive.replace(tzinfo=dt.UTC) + LAST_ZONE

    @property
    def _naive(self) -> dt.datetime:
        return dt.datetime(self.year, self.month, self.day, self.hour, self.minute, self.second)  # noqa: DTZ001 - each recipient's zone
