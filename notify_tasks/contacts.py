"""Contact points, checked and put into the form in which they are stored: where mail, SMS and the rest can go.

A call is checked for form alone in its caller (`recipients`), which has no libraries for more. What is here is asked
before anything is stored: by `people` and the command line at once, and by intake before it plans.

Numbers and domains that are reserved for tests and fiction are taken everywhere: nobody has them, so a message to
one does no harm, and a fleet can be tried with the rules it will run by. No error repeats an address.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any, Final

import email_validator
import phonenumbers
from babel import Locale, UnknownLocaleError
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from notify_tasks.errors import InvalidCall
from notify_tasks.notification import Notification, RecipientRef
from notify_tasks.recipients import read_recipients

CHANNELS: Final = ("email", "sms", "push", "webpush", "webhook", "chat")
"""Those with addresses; the in-app inbox belongs to the recipient's id."""

_NUMBER: Final = re.compile(r"\+[0-9 ()./-]{6,30}")
"""A country code first; people's spaces and brackets are left out of what is stored."""
_NOBODYS: Final = (
    re.compile(r"\+1555[0-9]{7}"),  # no area code of the North American plan, and what the sandbox plays
    re.compile(r"\+447700900[0-9]{3}"),  # Ofcom: numbers for use in TV and radio drama
)
_NO_SMS: Final[Mapping[int, str]] = {
    PhoneNumberType.FIXED_LINE: "a fixed line",
    PhoneNumberType.PREMIUM_RATE: "a premium-rate service",
    PhoneNumberType.SHARED_COST: "a shared-cost service",
    PhoneNumberType.UAN: "a company's switchboard",
    PhoneNumberType.VOICEMAIL: "a voice mailbox",
}
_NOT_ZONES: Final = frozenset({"Factory", "localtime", "posixrules"})
"""Files of the time zone database that are no place's."""
_VARIANT: Final = 4
"""Subtags of this length or more are no region (BCP 47, section 2.2)."""


# --- one value --------------------------------------------------------------------------------------


def contact_point(channel: str, value: object, where: str) -> str:
    """An address in its stored form.

    Args:
        channel: one of `CHANNELS`.
        value: text, or for `webpush` a browser's subscription.
        where: the field that an error names.

    Raises:
        InvalidCall: nothing can be sent there. The text says why, and never the address.
    """
    if channel == "email":
        return _email(_text(value, where), where)
    if channel == "sms":
        return _sms(_text(value, where), where)
    return _form(channel, value, where)


def locale(tag: str, where: str) -> str:
    """A language tag (BCP 47) of a language, script and region that the CLDR knows, in its usual case.

    Language and region need not be a pair of the CLDR's: phones report `zh-Hans-US`.

    Raises:
        InvalidCall: it is not one.
    """
    known = _known_locale(_form("locale", tag, where))
    if known is None:
        raise InvalidCall(where, "no such language is known", "Write it as in de, pt-BR or zh-Hans-CN")
    return known


def timezone(name: str, where: str) -> str:
    """A name of the time zone database (IANA).

    Raises:
        InvalidCall: it is not one.
    """
    zone = _form("timezone", name, where)
    zones = _zones()
    if zones and zone not in zones:  # a machine without the database cannot judge
        raise InvalidCall(where, "there is no such time zone", "Write it as in Europe/Berlin or UTC")
    return zone


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidCall(where, f"{type(value).__name__} is not a text", "Write a text")
    return value


def _form(key: str, value: object, where: str) -> str:
    """What a call's own check makes of it."""
    entry: dict[str, Any] = {key: value}
    about = key in ("locale", "timezone")
    try:
        (ref,) = read_recipients(entry | {"id": "-"} if about else entry)
    except InvalidCall as error:
        inside = error.field.removeprefix(f"to.{key}")
        raise InvalidCall(where + inside, error.problem, error.remedy) from None
    found: str = getattr(ref, key) if about else ref.addresses[key]
    return found


def _email(address: str, where: str) -> str:
    remedy = "Write one address and nothing else, as in ann@example.com"
    try:
        found = email_validator.validate_email(
            address, check_deliverability=False, test_environment=True, allow_quoted_local=False
        )
    except (email_validator.EmailNotValidError, UnicodeError):
        # The library's own words repeat parts of the address.
        problem, remedy = _wrong_domain(address) or ("it is not an e-mail address", remedy)
        raise InvalidCall(where, problem, remedy) from None
    return found.normalized


def _wrong_domain(address: str) -> tuple[str, str] | None:
    domain = address.rpartition("@")[2].lower()
    if domain.rpartition(".")[2] in email_validator.SPECIAL_USE_DOMAIN_NAMES:
        return "no mail can go to its domain, which is reserved", "Write an address that gets mail"
    if "@" in address and re.fullmatch(r"[a-z0-9-]+", domain):
        return "its domain is not a full one", "Write the domain to its end, as in example.com"
    return None


def _sms(text: str, where: str) -> str:
    remedy = "Write + and the country code, then the rest, as in +4915112345678"
    if not _NUMBER.fullmatch(text):
        raise InvalidCall(where, "it is not a phone number in E.164 form", remedy)
    digits = "+" + re.sub(r"[^0-9]", "", text)
    if any(numbers.fullmatch(digits) for numbers in _NOBODYS):
        return digits
    try:
        number = phonenumbers.parse(text)
    except phonenumbers.NumberParseException:
        raise InvalidCall(where, "no country has its country code", remedy) from None
    kind = phonenumbers.number_type(number)  # of a number that is not valid it is unknown
    if kind == PhoneNumberType.UNKNOWN:
        raise InvalidCall(
            where,
            f"the country of +{number.country_code} has no such number",
            "Compare it with the person's, digit by digit",
        )
    if kind in _NO_SMS:
        raise InvalidCall(
            where, f"it is the number of {_NO_SMS[kind]}, which gets no SMS", "Write a mobile number"
        )
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


@lru_cache(maxsize=512)
def _known_locale(tag: str) -> str | None:
    first, *rest = tag.split("-")
    words = [first.lower()]
    try:
        Locale.parse(words[0])
    except (UnknownLocaleError, ValueError):
        return None
    english = Locale("en")
    if rest and len(rest[0]) == _VARIANT and rest[0].isalpha():
        words.append(rest.pop(0).title())
        if words[-1] not in english.scripts:
            return None
    if rest and len(rest[0]) in (2, 3):
        words.append(rest.pop(0).upper())
        if words[-1] not in english.territories:
            return None
    return "-".join([*words, *rest])


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _NOT_ZONES


# --- the recipients of a call -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Vetted:
    """A call whose contact points were checked.

    Args:
        notification: the call with its contact points in stored form; those of refused recipients are gone.
        refused: what is wrong with a recipient, by its place in `to`.
        ignored: places and names of what is left out because it is not known: `(0, "locale")`.
    """

    notification: Notification
    refused: Mapping[int, InvalidCall] = field(default_factory=dict)
    ignored: tuple[tuple[int, str], ...] = ()

    def explained(self) -> dict[str, Any]:
        """What was left out, as it is stored beside the plan."""
        return {"ignored": [{"to": at, "field": name} for at, name in self.ignored]} if self.ignored else {}


def vet(notification: Notification) -> Vetted:
    """Check the contact points that a call brings with it.

    A bad address refuses its recipient and nobody else. An unknown locale or time zone is left out: the person then
    gets the stored or the type's own, and not nothing.
    """
    refused: dict[int, InvalidCall] = {}
    ignored: list[tuple[int, str]] = []
    to: list[RecipientRef] = []
    for index, ref in enumerate(notification.to):
        if not (ref.addresses or ref.locale or ref.timezone):
            to.append(ref)
            continue
        where = "to" if len(notification.to) == 1 else f"to[{index}]"
        about, unknown = _about(ref, where)
        ignored += [(index, name) for name in unknown]
        addresses: dict[str, str] = {}
        try:
            for channel, value in ref.addresses.items():
                if channel not in CHANNELS:
                    raise InvalidCall(where, "it names a channel that does not exist", "Leave it out")  # noqa: TRY301
                addresses[channel] = contact_point(channel, value, f"{where}.{channel}")
        except InvalidCall as error:
            refused[index] = error
            addresses = {}
        to.append(RecipientRef(id=ref.id, addresses=addresses, **about))
    vetted = notification if tuple(to) == notification.to else replace(notification, to=tuple(to))
    return Vetted(vetted, refused, tuple(ignored))


def _about(ref: RecipientRef, where: str) -> tuple[dict[str, str | None], list[str]]:
    known: dict[str, str | None] = {"locale": None, "timezone": None}
    unknown: list[str] = []
    for name, check in (("locale", locale), ("timezone", timezone)):
        value = getattr(ref, name)
        if value is None:
            continue
        try:
            known[name] = check(value, f"{where}.{name}")
        except InvalidCall:
            unknown.append(name)
    return known, unknown
