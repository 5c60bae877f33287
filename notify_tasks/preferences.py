"""What people want to get, and when: read, changed, reset, with every version that there was.

    from notify_tasks import preferences

    preferences.update("user-42", categories={"orders": {"sms": "off"}, "*": {"chat": "off"}})
    preferences.update("user-42", categories={"comments": {"email": "daily"}})    # in a digest, where there is one
    preferences.update("user-42", quiet_hours={"from": "22:00", "to": "07:00"}, changed_by="settings page")
    preferences.update("user-42", vacation={"until": "2030-07-15T08:00:00+02:00", "mode": "drop"})
    preferences.update("user-42", order=["sms", "push"])   # of types with steps; or {"orders": ["email", "sms"]}
    preferences.get("user-42").settings["categories"]      # {"orders": {"sms": "off"}, "*": {"chat": "off"}}
    preferences.history("user-42")                         # newest first: version, settings, changed_by, changed_at

The most specific choice holds: for a category on a channel, for the category, for the channel, for everything; then
the type's default. Types that are `required` ask nobody. A choice holds from its commit on: what waits and has been
switched off is not sent. Quiet hours and vacations hold for what is planned from then on. Needs the extra `[worker]`,
whose libraries know time zones, and the setting `database_url`. Each function is one transaction and may be run again
after an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Any, Final, TypedDict, Unpack

from notify_tasks.choices import ANY, DAYS, DROP, HOLD, SAID
from notify_tasks.errors import InvalidCall, NotHere
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.recipients import meant, safe_name, text

_LIBRARIES: Final = frozenset({"babel", "email_validator", "phonenumbers", "psycopg", "psycopg_pool"})

try:
    from notify_tasks import contacts
    from notify_tasks.api_connections import close, database
    from notify_tasks.store import preferences as stored
    from notify_tasks.store.database import DatabaseAway
    from notify_tasks.store.preferences import Version
except ModuleNotFoundError as error:
    if error.name not in _LIBRARIES:
        raise
    raise NotHere(
        f"preferences need {error.name}, which is not installed here. Install it: "
        "pip install 'notify-tasks[worker]', or use `notify preferences` where it is"
    ) from None

__all__ = ["DatabaseAway", "Fields", "Version", "close", "get", "history", "reset", "update"]

BY_LINK: Final = "link to unsubscribe"
MAX_CATEGORIES: Final = 100
MAX_PAGE: Final = 1000
CHANNELS: Final = (*contacts.CHANNELS, "inapp")
_CATEGORY: Final = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
_TIME: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_NEWEST: Final = 2**31 - 1
_MEANT: Final = {"mail": "email", "phone": "sms", "mobile": "sms", "quiet": "quiet_hours", "away": "vacation"}


QuietHours = TypedDict(
    "QuietHours", {"from": str, "to": str, "days": Sequence[str], "timezone": str}, total=False
)
"""Local times as `22:00`; where `to` is earlier, it is on the next day.

`days` are those on which they begin, all without it; `timezone` is the person's own without it."""
Vacation = TypedDict("Vacation", {"from": datetime | str, "until": datetime | str, "mode": str}, total=False)
"""Instants with a zone, or texts of them (ISO 8601).

`from` is now without it; `mode` is `hold`, or `drop`."""


class Fields(TypedDict, total=False):
    """What `update` takes. What is not named stays as it is; None removes it."""

    categories: Mapping[str, Mapping[str, str | None] | None] | None
    """Category or `*` -> channel or `*` -> `on`, `off`, `daily` or `weekly` (a digest, at the type's time or 08:00), or
    None to take a choice back."""
    quiet_hours: QuietHours | None
    vacation: Vacation | None
    order: Mapping[str, Sequence[str] | None] | Sequence[str] | None
    """Category or `*` -> channels, the one to try first first, or None to take an order back; a list is that for `*`.

    It moves the steps of types that have some. What it does not name goes after what it names."""


def get(
    recipient_id: str,
    *,
    tenant: str = DEFAULT_TENANT,
) -> Version | None:
    """What a person has chosen: version 0 where they have never; None where there is no such person.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `update`.
    """
    return stored.get(database(), text(recipient_id, "recipient_id"), tenant=text(tenant, "tenant"))


def update(
    recipient_id: str,
    *,
    changed_by: str = "api",
    if_version: int | None = None,
    tenant: str = DEFAULT_TENANT,
    **fields: Unpack[Fields],
) -> Version:
    """Change what is named, and keep everything else. A change that changes nothing makes no version.

    Args:
        recipient_id: whose; a person who is stored.
        changed_by: who changes it, 1 to 200 characters, for the history.
        if_version: change it only where this is still the stored version.
        tenant: whose the person is.
        **fields: see `Fields`. `categories` is merged choice by choice and `order` category by category, the other two
            are taken whole.

    Returns:
        the preferences as they are stored now.

    Raises:
        InvalidCall: a field is wrong: which, what is wrong with it, and what to write; nobody has this id; or
            the version is another one. Nothing was stored.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now.
    """
    checked = _checked(dict(fields))

    def merged(present: Mapping[str, Any]) -> Mapping[str, Any]:
        settings = {**present, **checked}
        if checked.get("categories"):
            settings["categories"] = _merged(present.get("categories", {}), checked["categories"])
        if checked.get("order"):
            both = {**present.get("order", {}), **checked["order"]}
            settings["order"] = {name: channels for name, channels in both.items() if channels}
        return {name: value for name, value in settings.items() if value}

    return _change(recipient_id, merged, changed_by, if_version, tenant)


def reset(
    recipient_id: str,
    *,
    changed_by: str = "api",
    if_version: int | None = None,
    tenant: str = DEFAULT_TENANT,
) -> Version:
    """Take every choice back, so that the types' defaults hold. The history stays.

    Args:
        recipient_id: whose.
        changed_by: who does it.
        if_version: only where this is still the stored version.
        tenant: whose the person is.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `update`.
    """
    return _change(recipient_id, lambda _: {}, changed_by, if_version, tenant)


def history(
    recipient_id: str,
    *,
    before: int | None = None,
    limit: int = 100,
    tenant: str = DEFAULT_TENANT,
) -> tuple[Version, ...]:
    """Every version that there was, newest first.

    Args:
        recipient_id: whose.
        before: those below this version; None begins with the newest.
        limit: how many at most, up to 1,000.
        tenant: whose the person is.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `update`.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidCall("limit", f"{limit} is out of range", f"Write 1 to {MAX_PAGE}")
    who, whose = text(recipient_id, "recipient_id"), text(tenant, "tenant")
    return stored.history(
        database(), who, before=_NEWEST if before is None else before, limit=limit, tenant=whose
    )


def switched(category: str, channel: str, said: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """The change by which a category is `on` or `off` on a channel, for `store.preferences.change`."""

    def make(present: Mapping[str, Any]) -> Mapping[str, Any]:
        categories = {name: dict(ways) for name, ways in present.get("categories", {}).items()}
        categories.setdefault(category, {})[channel] = said
        return {**present, "categories": categories}

    return make


def _change(
    recipient_id: str,
    make: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    by: str,
    if_version: int | None,
    tenant: str,
) -> Version:
    done = stored.change(
        database(),
        text(recipient_id, "recipient_id"),
        make,
        by=text(by, "changed_by"),
        if_version=if_version,
        tenant=text(tenant, "tenant"),
    )
    if done.now is None:
        raise InvalidCall("recipient_id", "nobody has this id", "Store the person first: people.upsert")
    if if_version is not None and not done.changed and done.now.version != if_version:
        raise InvalidCall(
            "if_version",
            f"the stored version is {done.now.version}, not {if_version}",
            "Read the preferences again, and change those",
        )
    return done.now


# --- checks -----------------------------------------------------------------------------------------


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    checks: dict[str, Callable[[Any], Any]] = {
        "categories": _categories,
        "quiet_hours": _quiet_hours,
        "vacation": _vacation,
        "order": _order,
    }
    found: dict[str, Any] = {}
    for position, (name, value) in enumerate(fields.items()):
        if name not in checks:
            known = dict.fromkeys(checks)
            raise InvalidCall(safe_name(name, position), "there is no such field", meant(name, known, _MEANT))
        found[name] = None if value is None else checks[name](value)
    return found


def _categories(value: object) -> dict[str, dict[str, str | None] | None]:
    found: dict[str, dict[str, str | None] | None] = {}
    for position, (category, ways) in enumerate(_table(value, "categories").items()):
        where = _category(category, position, "categories")
        if ways is None:
            found[category] = None
            continue
        chosen = _table(ways, where)
        for channel, said in chosen.items():
            if channel != ANY and channel not in CHANNELS:
                known = dict.fromkeys((*CHANNELS, ANY))
                problem = "it names a channel that does not exist"
                raise InvalidCall(where, problem, meant(channel, known, _MEANT))
            if said is not None and said not in SAID:
                raise InvalidCall(
                    f"{where}.{channel}",
                    "it is neither on nor off, nor a digest",
                    f"Write one of {', '.join(SAID)}",
                )
        found[category] = chosen
    return found


def _category(name: object, position: int, where: str) -> str:
    """The path of one category in what was given."""
    path = f"{where}.{ANY if name == ANY else safe_name(name, position)}"
    if name != ANY and not (isinstance(name, str) and _CATEGORY.fullmatch(name)):
        raise InvalidCall(path, "it is no category", "Write a plain word in small letters, or *")
    return path


def _order(value: object) -> dict[str, list[str] | None]:
    table = {ANY: value} if isinstance(value, list | tuple) else _table(value, "order")
    if len(table) > MAX_CATEGORIES:
        raise InvalidCall("order", f"{len(table)} are too many", f"Keep at most {MAX_CATEGORIES}")
    return {
        name: None if channels is None else _in_order(channels, _category(name, position, "order"))
        for position, (name, channels) in enumerate(table.items())
    }


def _in_order(value: object, where: str) -> list[str]:
    if not isinstance(value, list | tuple) or not value:
        raise InvalidCall(where, "it is no list of channels", 'Write them as in ["sms", "push"]')
    for channel in value:
        if channel not in CHANNELS:
            problem = "it names a channel that does not exist"
            raise InvalidCall(where, problem, meant(channel, dict.fromkeys(CHANNELS), _MEANT))
    if len(set(value)) < len(value):
        raise InvalidCall(where, "it names a channel twice", "Name each one once")
    return list(value)


def _merged(
    present: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str | None] | None]
) -> dict[str, dict[str, str]]:
    merged: dict[str, dict[str, str]] = {name: dict(ways) for name, ways in present.items()}
    for category, ways in new.items():
        both = {} if ways is None else {**merged.get(category, {}), **ways}
        merged[category] = {channel: said for channel, said in both.items() if said is not None}
    merged = {name: ways for name, ways in merged.items() if ways}
    if len(merged) > MAX_CATEGORIES:
        raise InvalidCall("categories", f"{len(merged)} are too many", f"Keep at most {MAX_CATEGORIES}")
    return merged


def _quiet_hours(value: object) -> dict[str, Any]:
    table = _table(value, "quiet_hours", ("from", "to", "days", "timezone"))
    times = [table.get(name) for name in ("from", "to")]
    for name, at in zip(("from", "to"), times, strict=True):
        if isinstance(at, time):
            at = f"{at:%H:%M}"  # noqa: PLW2901 - the same in words
        if not isinstance(at, str) or not _TIME.fullmatch(at):
            raise InvalidCall(f"quiet_hours.{name}", "it is no time of day", "Write it as in 22:00")
        table[name] = at
    if table["from"] == table["to"]:
        raise InvalidCall(
            "quiet_hours.to",
            "it is the same as from",
            "For a whole day, switch categories off or set a vacation",
        )
    days = table.get("days")
    if days is None:
        days = DAYS
    if not isinstance(days, list | tuple) or not days or any(day not in DAYS for day in days):
        raise InvalidCall("quiet_hours.days", "they are no days", f"Write some of {', '.join(DAYS)}")
    made = {"from": table["from"], "to": table["to"], "days": [day for day in DAYS if day in days]}
    if table.get("timezone") is not None:
        made["timezone"] = contacts.timezone(table["timezone"], "quiet_hours.timezone")
    return made


def _vacation(value: object) -> dict[str, Any]:
    table = _table(value, "vacation", ("from", "until", "mode"))
    begin = _instant(table["from"], "vacation.from") if table.get("from") else datetime.now(UTC)
    until = _instant(table.get("until"), "vacation.until")
    if until <= begin:
        raise InvalidCall("vacation.until", "it is not after from", "Write the instant of the return")
    mode = table.get("mode", HOLD)
    if mode not in (HOLD, DROP):
        raise InvalidCall("vacation.mode", "it is neither hold nor drop", "Write hold or drop")
    return {"from": begin.isoformat(), "until": until.isoformat(), "mode": mode}


def _instant(value: object, where: str) -> datetime:
    found: datetime | None = value if isinstance(value, datetime) else None
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            found = None
    if found is None or found.utcoffset() is None:
        raise InvalidCall(where, "it is no instant with a zone", "Write it as in 2030-07-15T08:00:00+02:00")
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise InvalidCall(where, "it is out of range", "Write a year from 1970 to 9000") from None


def _table(value: object, where: str, keys: Sequence[str] = ()) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise InvalidCall(where, f"{type(value).__name__} is not a table", "Write names and values")
    for position, name in enumerate(value):
        if keys and name not in keys:
            raise InvalidCall(
                f"{where}.{safe_name(name, position)}",
                "there is no such key",
                meant(name, dict.fromkeys(keys), {}),
            )
    return dict(value)
