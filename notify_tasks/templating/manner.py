"""Filters that write money, dates, times and numbers as the reader does: Babel, with the CLDR's data.

The words of a file have a language, and a person has a locale. A value is written for the person where that is the
file's language too (a reader in `de-AT` gets German words and Austrian amounts), else for the file's language: an
English mail never holds a German date because its reader set `de` and nobody has translated the type.

Values come as text that loses nothing. An amount of money is a decimal string in whole units of its currency
(`"119.00"` is 119 euros, never cents), since floats round and a bare integer does not say which unit it counts.
Times carry their offset (RFC 3339). A value of another form is refused with the remedy.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.core import get_global
from babel.dates import format_date, format_time, get_datetime_format, get_timezone_name
from babel.numbers import format_currency, format_decimal, list_currencies
from babel.units import format_unit
from jinja2 import StrictUndefined

from notify_tasks.templating.values import Refusal, budget

LANGUAGE: Final = "en"
"""The language of a type's own files where its notification.toml names none."""

MAX_DIGITS: Final = 24
"""Of one number: beyond that Python's decimals begin to round."""
STYLES: Final = ("short", "medium", "long", "full")
SCRIPT_LETTERS: Final = 4
"""In a locale's tag: `Hans`, `Latn`."""
PLURALS: Final = ("zero", "one", "two", "few", "many", "other")
"""The plural categories of the CLDR; a language has some of them, and each has `other`."""

_TAG: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_NUMBER: Final = re.compile(r"-?[0-9]{1,24}(\.[0-9]{1,12})?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_ABBREVIATION: Final = re.compile(r"[A-Z]{2,5}")
_TOUCHING: Final = re.compile(r"(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Z])")
"""Where a code touches a digit the CLDR asks for a space (currencySpacing), which Babel does not put there."""
_CURRENCIES: Final = frozenset(list_currencies())

_AMOUNT_REMEDY: Final = (
    'Send it as text in whole units: "119.00"; demand it in the schema with '
    r"type = 'string' and pattern = '^-?[0-9]{1,12}(\.[0-9]{1,3})?$'"
)
_MOMENT_REMEDY: Final = 'Send it with its offset: "2026-11-23T14:30:00+01:00"'
_DATE_REMEDY: Final = 'Send "2026-11-23", or a time with its offset: "2026-11-23T14:30:00+01:00"'


@dataclass(frozen=True, slots=True)
class Manner:
    """How one file writes values for one person.

    Args:
        locale: of the formats.
        zone: the person's time zone; None where it is not known: a time then keeps its own offset.
    """

    locale: Locale
    zone: ZoneInfo | None = None


manner: ContextVar[Manner] = ContextVar("notify_tasks_render_manner")


def known_locale(tag: str) -> Locale | None:
    """The CLDR's locale for a tag such as `de-AT`, or for the part of it that the CLDR knows; else None."""
    subtags = tag.replace("_", "-").split("-")
    while subtags:
        name = "-".join(subtags)
        if _TAG.fullmatch(name):
            try:
                return Locale.parse(name, sep="-")
            except (UnknownLocaleError, ValueError):
                pass
        subtags.pop()
    return None


@functools.lru_cache(maxsize=512)
def locale_for(words: str, person: str | None) -> Locale:
    """The locale in which values are written.

    Args:
        words: language of the file's words: its folder (`de`, `zh-Hans`), or the type's own language.
        person: the recipient's locale in any spelling (`de_AT.UTF-8`); None where it is not known.
    """
    base = known_locale(words) or Locale(LANGUAGE)
    theirs = known_locale(re.split(r"[.@]", person, maxsplit=1)[0]) if person else None
    if theirs is None or theirs.language != base.language or _script(theirs) != _script(base):
        return base
    # A folder for a region is more than a person's bare language: de-AT/ stays Austrian for a reader of "de".
    return theirs if theirs.territory or not base.territory else base


def _script(locale: Locale) -> str:
    """The script that goes without saying (CLDR, likely subtags): zh-TW is written in Hant."""
    if locale.script:
        return locale.script
    likely: Mapping[str, str] = get_global("likely_subtags")
    whole = likely.get(f"{locale.language}_{locale.territory}") or likely.get(locale.language) or ""
    return next((part for part in whole.split("_")[1:] if len(part) == SCRIPT_LETTERS), "")


@functools.lru_cache(maxsize=512)
def zone_for(name: str | None) -> ZoneInfo | None:
    """A time zone by its IANA name; None where it is not known here."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # unknown, the name of a folder, no name at all
        return None


def manner_for(words: str, recipient: Mapping[str, Any]) -> Manner:
    """How a file whose words are in one language writes for one recipient (`locale`, `timezone`)."""
    return Manner(locale_for(words, recipient.get("locale")), zone_for(recipient.get("timezone")))


# --- numbers and money ---------------------------------------------------------------------------------


def money(amount: object, currency: object) -> str:
    """Write an amount with its currency: €1,234.50 in English, 1.234,50 € in German.

    At least the decimals that the currency has, more where the amount has more: nothing is rounded.
    """
    if isinstance(amount, (int, float)):
        raise Refusal("template", "money is a number, which does not say its unit", _AMOUNT_REMEDY)
    value = _decimal(amount, "money", _AMOUNT_REMEDY)
    code = _said(currency)
    if code not in _CURRENCIES:
        raise Refusal(
            "template",
            "the currency is no code of ISO 4217",
            'Write | money("EUR"), or send the code of three capital letters in the payload',
        )
    written = format_currency(value, code, locale=_now().locale, decimal_quantization=False)
    return _TOUCHING.sub("\xa0", written)


def number(value: object) -> str:
    """A number: 1,234.5 or 1.234,5. An integer, a number, or a decimal string."""
    remedy = 'Send a number, or a decimal as text: "1234.5"'
    return format_decimal(_decimal(value, "number", remedy), locale=_now().locale, decimal_quantization=False)


def filesize(value: object) -> str:
    """A count of bytes: 84 kB, 1.2 MB (units of 1000, as mail programs count)."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _said(value)
        raise Refusal("template", "filesize is no count of bytes", "Send the size in bytes, as an integer")
    unit, count = "kilobyte", Decimal(max(1, round(value / 1000)) if value else 0)
    if count >= 1000:  # noqa: PLR2004 - a megabyte
        unit, count = "megabyte", round(Decimal(min(value, 10**18)) / 10**6, 1)
    # German has another word for a single one ("1 kByte"), which reads oddly among the others.
    plain = format_unit(2, f"digital-{unit}", length="short", locale=_now().locale)
    return plain.replace("2", format_decimal(count, locale=_now().locale))


def plural(value: object, **forms: object) -> str:
    """Choose the words that go with a count.

    In a template: `{{ n | plural(one="item", other="items") }}`. The language's own rules choose (CLDR): English and
    German have `one` and `other`, Chinese has `other`.
    """
    strange = [name for name in forms if name not in PLURALS]
    if strange or "other" not in forms:
        problem = f"plural has no form {strange[0]!r}" if strange else "plural has no form for other"
        raise Refusal("template", problem, f"Forms are {', '.join(PLURALS)}; other is always needed")
    count = _decimal(value, "plural", "Send the count as an integer")
    return _said(forms.get(_now().locale.plural_form(abs(count)), forms["other"]))


def _decimal(value: object, name: str, remedy: str) -> Decimal:
    budget.get().step()
    if isinstance(value, bool):
        text = ""
    elif isinstance(value, float):
        text = format(Decimal(str(value)), "f")
    else:
        text = _said(value)
    if _NUMBER.fullmatch(text) is None or sum(map(str.isdigit, text)) > MAX_DIGITS:
        raise Refusal("template", f"{name} is no plain number of at most {MAX_DIGITS} digits", remedy)
    # Adding zero takes the sign off a negative zero.
    return Decimal(text) + 0


# --- dates and times -----------------------------------------------------------------------------------


def date(value: object, style: str = "long") -> str:
    """A day: 23 November 2026. A time with an offset is first taken to the person's zone.

    Styles, for English: short 11/23/26, medium Nov 23, 2026, long November 23, 2026, full Monday, November 23, 2026.
    """
    text = _said(value)
    if _DATE.fullmatch(text):
        budget.get().step()
        try:
            day = dt.date.fromisoformat(text)
        except ValueError:
            raise Refusal("template", "date is no day of the calendar", _DATE_REMEDY) from None
    else:
        day = _local(text, "date", _DATE_REMEDY).date()
    return format_date(day, _style(style), locale=_now().locale)


def time(value: object, *, zone: bool = True) -> str:
    """A time of day with the zone's short name: 14:30 MEZ, 2:30 PM EST, 14:30 GMT+5:30.

    It is in the person's zone, or where that is not known at the offset it came with.
    """
    return _clock(_local(_said(value), "time", _MOMENT_REMEDY), zone=zone)


def datetime(value: object, style: str = "long", *, zone: bool = True) -> str:
    """A day and a time of day: November 23, 2026, 2:30 PM EST. Styles as those of `date`."""
    moment = _local(_said(value), "datetime", _MOMENT_REMEDY)
    locale = _now().locale
    pattern = str(get_datetime_format(_style(style), locale=locale))
    day = format_date(moment.date(), _style(style), locale=locale)
    return pattern.replace("'", "").replace("{0}", _clock(moment, zone=zone)).replace("{1}", day)


def _local(text: str, name: str, remedy: str) -> dt.datetime:
    budget.get().step()
    moment: dt.datetime | None = None
    if _MOMENT.fullmatch(text):
        try:
            moment = dt.datetime.fromisoformat(text)
            zone = _now().zone
            moment = moment.astimezone(zone) if zone else moment
        except (ValueError, OverflowError):
            moment = None
    if moment is None:
        raise Refusal("template", f"{name} is no time with an offset", remedy)
    return moment


def _clock(moment: dt.datetime, *, zone: bool) -> str:
    locale = _now().locale
    # The CLDR's narrow space is missing in many a font, and "2:30PM" is what is left.
    clock = format_time(moment.time(), "short", locale=locale).replace("\u202f", "\xa0")
    if not zone:
        return clock
    # The CLDR's Chinese pattern puts the zone first, as no Chinese reader would.
    pattern = "{}\uff08{}\uff09" if locale.language == "zh" else "{} {}"
    return pattern.format(clock, _zone_name(moment, locale))


def _zone_name(moment: dt.datetime, locale: Locale) -> str:
    """`MEZ` where the language has a short name for it, else `GMT+8`; a long name would drown the time."""
    name = get_timezone_name(moment, width="short", locale=locale) if _now().zone else ""
    if _ABBREVIATION.fullmatch(name):
        return name
    minutes = int((moment.utcoffset() or dt.timedelta()).total_seconds()) // 60
    if minutes == 0:
        return "UTC"
    hours, rest = divmod(abs(minutes), 60)
    return f"GMT{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02}" if rest else "")


def _style(style: object) -> Any:
    if style not in STYLES:
        raise Refusal("template", "there is no such style", f"Styles are {', '.join(STYLES)}")
    return style


def _now() -> Manner:
    return manner.get()


def _said(value: object) -> str:
    """Text, or a number's; a missing value says its name."""
    if isinstance(value, (str, StrictUndefined)):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        raise Refusal("template", "a value is null", "Write {% if %} around it")
    raise Refusal("template", "a value is no text", "Send it as text; the schema can demand that")


FILTERS: Final[Mapping[str, Callable[..., str]]] = {
    "money": money,
    "number": number,
    "filesize": filesize,
    "plural": plural,
    "date": date,
    "time": time,
    "datetime": datetime,
}
"""What templates may write after `|`."""
