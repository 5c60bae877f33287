"""The forms of `to`, checked: who a call names, as text, dictionary or list. Pure.

What is checked here is form alone. Whether an address exists, only its provider knows. No error shows an
address, nor a key that may be one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeAlias, TypedDict
from urllib.parse import urlsplit

from notify_tasks.errors import InvalidCall
from notify_tasks.notification import EVERY_TENANT, MAX_RECIPIENTS, RecipientRef, canonical


class Subscription(TypedDict, total=False):
    """A browser's push subscription, as `PushSubscription.toJSON()` gives it (W3C Push API)."""

    endpoint: str
    expirationTime: float | None
    keys: Mapping[str, str]


class Recipient(TypedDict, total=False):
    """A recipient by known id, by bare addresses, or both: then the addresses are stored under the id."""

    id: str
    locale: str
    """A language tag (BCP 47): `de`, `zh-Hans-CN`."""
    timezone: str
    """A name of the IANA time zone database: `Europe/Berlin`."""
    email: str
    sms: str
    """A phone number in E.164 form: `+4915112345678`."""
    phone: str
    """The same as `sms`."""
    push: str
    webpush: str | Subscription
    webhook: str
    chat: str


To: TypeAlias = str | Recipient | Sequence[str | Recipient]
"""Whom a call names: a known id, a `Recipient`, or up to 100 of them in a list."""

MAX_TEXT: Final = 200
MAX_EMAIL: Final = 254
"""Octets (RFC 5321, section 4.5.3.1.3, less the angle brackets)."""
MAX_LOCAL_PART: Final = 64
"""Octets (RFC 5321, section 4.5.3.1.1)."""
MAX_URL: Final = 2048
MAX_TOKEN: Final = 4096
MAX_LOCALE: Final = 35

_LOCALE: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_TIMEZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_PHONE: Final = re.compile(r"\+[1-9][0-9]{6,14}")  # E.164: a country code, 15 digits at most
_ATOM: Final = r"[^\s\x00-\x20\x7f()<>\[\]:;@\\,.\"]+"  # RFC 5322 and, for other scripts, RFC 6531
_LOCAL_PART: Final = re.compile(rf"{_ATOM}(\.{_ATOM})*")
_LABEL: Final = r"[^\W_](([^\W_]|-){0,61}[^\W_])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")

_MEANT: Final = {
    "inapp": "id",
    "language": "locale",
    "mail": "email",
    "mobile": "sms",
    "recipient": "id",
    "slack": "chat",
    "subscription": "webpush",
    "tel": "sms",
    "token": "push",
    "tz": "timezone",
    "url": "webhook",
    "user": "id",
    "user_id": "id",
}
_EXAMPLE: Final = 'Write to="user-42" for a known id, or to={"email": "ann@example.com"} for an address'


def read_recipients(to: object) -> tuple[RecipientRef, ...]:
    """The recipients that `to` names.

    Raises:
        InvalidCall: one of them is wrong. The call is refused whole, since its author can mend it.
    """
    if not isinstance(to, list | tuple):
        return (_recipient(to, "to"),)
    if not to:
        raise InvalidCall("to", "the list is empty", _EXAMPLE)
    if len(to) > MAX_RECIPIENTS:
        raise InvalidCall(
            "to",
            f"{len(to)} recipients are more than the {MAX_RECIPIENTS} that one call may name",
            f"Make one call for each {MAX_RECIPIENTS}",
        )
    return tuple(_recipient(entry, f"to[{index}]") for index, entry in enumerate(to))


def text(value: object, field: str, *, longest: int = MAX_TEXT) -> str:
    """A printable text of 1 to `longest` characters.

    Raises:
        InvalidCall: it is not.
    """
    if not isinstance(value, str):
        raise InvalidCall(field, f"{type(value).__name__} is not a text", "Write a text")
    if not value or len(value) > longest:
        raise InvalidCall(
            field, f"{len(value)} characters is out of range", f"Write 1 to {longest} characters"
        )
    if not value.isprintable():
        raise InvalidCall(field, "it has a character that cannot be printed", "Leave such characters out")
    return str.__str__(value)  # the plain text of a text-like enumeration


def tenant(value: object) -> str:
    """The name of one tenant: a text, and not `*`, which is every tenant's.

    Raises:
        InvalidCall: it is not.
    """
    name = text(value, "tenant")
    if name == EVERY_TENANT:
        raise InvalidCall("tenant", "* is no tenant's name", "Write the name of one tenant")
    return name


def locale(value: object, field: str) -> str:
    """A language tag.

    Raises:
        InvalidCall: it does not look like one.
    """
    tag = text(value, field, longest=MAX_LOCALE)
    if not _LOCALE.fullmatch(tag):
        raise InvalidCall(field, "it is not a language tag", "Write it as in de, pt-BR or zh-Hans-CN")
    return tag


def safe_name(key: object, position: int) -> str:
    """A key of the caller's as it may be shown: itself if it is a plain name, else its place."""
    if isinstance(key, str) and _NAME.fullmatch(key):
        return key
    return f"[key {position + 1}]"


def meant(word: object, names: Mapping[str, object], known: Mapping[str, str]) -> str:
    """The remedy for a name that does not exist: the one that was probably meant, or all of them."""
    key = word.lower() if isinstance(word, str) else ""
    near = [known[key]] if key in known else get_close_matches(key, names, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else f"There are {', '.join(names)}"


# --- one recipient ----------------------------------------------------------------------------------


def _recipient(entry: object, field: str) -> RecipientRef:
    if isinstance(entry, str):
        if "@" in entry or entry.startswith("+"):
            key = "email" if "@" in entry else "sms"
            to = "to=" if field == "to" else ""
            raise InvalidCall(
                field,
                "it looks like an address, and a text is a recipient's id",
                f'Write {to}{{"{key}": ...}} for an address, or {to}{{"id": ...}} if it is an id',
            )
        return RecipientRef(id=text(entry, field))
    if not isinstance(entry, Mapping):
        raise InvalidCall(field, f"{type(entry).__name__} names no recipient", _EXAMPLE)
    return _from_mapping(entry, field)


def _from_mapping(entry: Mapping[Any, Any], field: str) -> RecipientRef:
    about: dict[str, str] = {}
    addresses: dict[str, str] = {}
    for position, (key, value) in enumerate(entry.items()):
        place = f"{field}.{safe_name(key, position)}"
        if key in _ABOUT:
            if value is not None:
                about[key] = _ABOUT[key](value, place)
        elif key in _ADDRESSES:
            channel = "sms" if key == "phone" else key
            if channel in addresses:
                raise InvalidCall(place, "sms and phone are the same thing", "Keep one of them")
            addresses[channel] = _ADDRESSES[key](value, place)
        else:
            raise InvalidCall(place, "there is no such key", meant(key, _KEYS, _MEANT))
    if "id" not in about and not addresses:
        raise InvalidCall(field, "it has neither an id nor an address", _EXAMPLE)
    return RecipientRef(
        id=about.get("id"),
        locale=about.get("locale"),
        timezone=about.get("timezone"),
        addresses=addresses,
    )


def _timezone(value: object, field: str) -> str:
    name = text(value, field)
    if not _TIMEZONE.fullmatch(name):
        raise InvalidCall(field, "it is not the name of a time zone", "Write it as in Europe/Berlin or UTC")
    return name


# --- addresses --------------------------------------------------------------------------------------


def _email(value: object, field: str) -> str:
    remedy = "Write one address and nothing else, as in ann@example.com"
    address = text(value, field, longest=MAX_EMAIL)
    local_part, at, domain = address.rpartition("@")
    if not at or not _LOCAL_PART.fullmatch(local_part) or not _DOMAIN.fullmatch(domain):
        raise InvalidCall(field, "it is not an e-mail address", remedy)
    if len(address.encode()) > MAX_EMAIL or len(local_part.encode()) > MAX_LOCAL_PART:
        raise InvalidCall(field, "it is longer than an e-mail address may be", remedy)
    return address


def _sms(value: object, field: str) -> str:
    number = text(value, field)
    if not _PHONE.fullmatch(number):
        raise InvalidCall(
            field,
            "it is not a phone number in E.164 form",
            "Write + and the country code, then digits alone, as in +4915112345678",
        )
    return number


def _token(value: object, field: str) -> str:
    token = text(value, field, longest=MAX_TOKEN)
    if " " in token:
        raise InvalidCall(field, "a device token has no spaces", "Write the token as the device gave it")
    return token


def _url(value: object, field: str, schemes: tuple[str, ...] = ("http", "https")) -> str:
    url = text(value, field, longest=MAX_URL)
    try:
        parts = urlsplit(url)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        sound = False
    if not sound or any(character.isspace() for character in url):
        raise InvalidCall(
            field, f"it is not an {schemes[-1]} URL", "Write it as in https://example.com/notifications"
        )
    return url


def _webpush(value: object, field: str) -> str:
    remedy = "Write the browser's PushSubscription.toJSON(), with endpoint, keys.p256dh and keys.auth"
    subscription = value
    if isinstance(value, str):
        try:
            subscription = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidCall(field, "it is not JSON", remedy) from None
    if not isinstance(subscription, Mapping):
        raise InvalidCall(field, "it is not a push subscription", remedy)
    keys = subscription.get("keys")
    if not isinstance(keys, Mapping):
        raise InvalidCall(f"{field}.keys", "they are missing", remedy)
    plain = {
        "endpoint": _url(subscription.get("endpoint"), f"{field}.endpoint", ("https",)),
        "keys": {name: _token(keys.get(name), f"{field}.keys.{name}") for name in ("auth", "p256dh")},
    }
    return canonical(plain).decode()


def _chat(value: object, field: str) -> str:
    return text(value, field, longest=MAX_URL)


_Check: TypeAlias = Callable[[object, str], str]
_ABOUT: Final[dict[str, _Check]] = {"id": text, "locale": locale, "timezone": _timezone}
_ADDRESSES: Final[dict[str, _Check]] = {
    "email": _email,
    "sms": _sms,
    "phone": _sms,
    "push": _token,
    "webpush": _webpush,
    "webhook": _url,
    "chat": _chat,
}
_KEYS: Final = {**_ABOUT, **_ADDRESSES}
