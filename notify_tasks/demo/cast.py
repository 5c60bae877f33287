"""The demo's people and calls, and how each call must end. Pure: the producer and the verdict both read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from notify_tasks.attaching import Attachment
from notify_tasks.demo.paper import sheet
from notify_tasks.recipients import Recipient
from notify_tasks.sandbox.credentials import webpush_subscription

SHIPPED: Final = "order.shipped"
RESET: Final = "account.password_reset"
PAID: Final = "invoice.paid"
MENTIONED: Final = "comment.mentioned"
SIGN_IN: Final = "account.new_sign_in"
EVENTS: Final = 3
"""So many comments are gathered in the digest."""
LATER_SECONDS: Final = 8
"""So far ahead is the one call with `at=`."""


@dataclass(frozen=True, slots=True)
class Person:
    """A recipient that is stored before anything is sent."""

    id: str
    name: str
    locale: str
    timezone: str
    sms: str
    push: str | None = None
    browser: bool = False
    chat: str | None = None

    def addresses(self, origin: str) -> dict[str, str]:
        """By channel. Domains and numbers are those reserved for examples (RFC 2606, Ofcom).

        Args:
            origin: of the far end, where browsers have subscribed.
        """
        browser = webpush_subscription(origin, f"browser-of-{self.id}") if self.browser else None
        found = {
            "email": f"{self.id}@example.com",
            "sms": self.sms,
            "push": self.push,
            "webpush": browser,
            "chat": self.chat,
        }
        return {channel: address for channel, address in found.items() if address is not None}


PEOPLE: Final = (
    Person("ana", "Ana Silva", "en-GB", "Europe/London", "+447700900101"),
    Person("jonas", "Jonas Weber", "de-DE", "Europe/Berlin", "+447700900102"),
    Person("lina", "李娜", "zh-Hans-CN", "Asia/Shanghai", "+447700900103"),
    Person(
        "tom", "Tom Baker", "en-US", "America/New_York", "+447700900104", push="device-of-tom", browser=True
    ),
    Person(
        "mia", "Mia Schäfer", "de-AT", "Europe/Vienna", "+447700900105", push="device-of-mia", chat="finance"
    ),
    Person("wei", "王伟", "zh-Hans-SG", "Asia/Singapore", "+447700900106"),
    Person("noor", "Noor Haddad", "en-GB", "Europe/Amsterdam", "+447700900107"),
)
_NAMES: Final = {person.id: person.name for person in PEOPLE}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of `send_notification.delay`.

    Args:
        key: its message id is the run's name and this.
        act: 1, or 2 for what is on its way when the worker is killed, or 3 for what happens on the fast clock.
        ends: by channel, the states that a delivery may end in; empty where the call is rejected.
        deliveries: how many it makes.
        later: seconds from the call before which nothing may be sent.
        hours: so many hours ahead is its `at`, on the fast clock.
        digest: as the call says it.
        cancel_key: as the call says it, after the run's name.
        twice: the producer makes the same call again.
        attachments: what goes with its mails.
        about: what it shows, where that is not plain.
    """

    key: str
    event_type: str
    to: str | Recipient | list[str]
    payload: Mapping[str, Any] = field(repr=False)
    ends: Mapping[str, Sequence[str]]
    act: int = 1
    deliveries: int = 1
    channels: tuple[str, ...] | None = None
    priority: str | None = None
    later: float = 0.0
    hours: float = 0.0
    digest: str | None = None
    cancel_key: str | None = None
    twice: bool = False
    attachments: tuple[Attachment, ...] = field(default=(), repr=False)
    about: str = ""

    def message_id(self, run: str) -> str:
        """The id that its producer gives it."""
        return f"{run}-{self.key}"


def _ends(channels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """How deliveries end that go well: a mail or an SMS may be reported on, by the provider that took it."""
    reported = {"email", "sms"}
    return {it: ("delivered", "sent") if it in reported else ("sent",) for it in channels}


def _order(number: int) -> dict[str, Any]:
    return {
        "order_id": number,
        "carrier": "DHL",
        "tracking_url": f"https://track.example.com/parcel?id={number}",
        "items": [
            {"name": "Coffee grinder", "quantity": 1},
            {"name": "Paper filters, size 4", "quantity": 3},
        ],
    }


SCHEDULED_PAYLOAD: Final = _order(4790)
"""Of what is told every hour."""


def _shipped(
    key: str, to: str | Recipient | list[str], channels: tuple[str, ...] | None = None, **more: Any
) -> Call:
    payload = _order(4700 + int(key))
    if isinstance(to, str) and to in _NAMES:
        payload["customer_name"] = _NAMES[to]
    more.setdefault("ends", _ends(channels or ("email", "inapp", "sms")))
    more.setdefault("deliveries", len(more["ends"]))
    return Call(key, SHIPPED, to, payload, channels=channels, **more)


def _reset(key: str, to: str | Recipient, **more: Any) -> Call:
    payload = {"reset_url": f"https://shop.example/reset/{key}", "expires_minutes": 10}
    more.setdefault("ends", _ends(("email",)))
    return Call(key, RESET, to, payload, **more)


def _paid(key: str, to: str, **more: Any) -> Call:
    number = f"R-2026-{900 + int(key)}"
    payload = {
        "invoice_number": number,
        "total": "148.75",
        "tax": "23.75",
        "currency": "EUR",
        "issued_on": "2026-11-20",
        "paid_at": "2026-11-23T14:30:00+01:00",
        "paid_with": "Visa 4242",
        "invoice_url": f"https://shop.example/invoices/{number}",
        "customer_name": _NAMES[to],
        "lines": [
            {"description": "Coffee grinder", "amount": "129.00"},
            {"description": "Paper filters, size 4", "quantity": 3, "amount": "14.85"},
            {"description": "Measuring spoon", "amount": "9.90"},
            {"description": "Welcome discount", "amount": "-5.00"},
        ],
    }
    paper: Attachment = {"name": f"{number}.pdf", "content": sheet(f"Invoice {number}", "Paid: EUR 148.75")}
    ends = _ends(("email", "inapp"))
    return Call(key, PAID, to, payload, ends=ends, deliveries=2, attachments=(paper,), **more)


def _mentioned(key: str, to: str, channels: tuple[str, ...], **more: Any) -> Call:
    more.setdefault("ends", _ends(channels))
    payload = {
        "author": _NAMES["ana"],
        "text": f"@{_NAMES[to]}, could you look at the price of the grinder again?",
        "comment_url": f"https://wiki.example/pages/winter-menu#comment-{key}",
        "place": "Winter menu",
        "written_at": "2026-11-23T14:30:00+01:00",
    }
    return Call(key, MENTIONED, to, payload, deliveries=len(channels), channels=channels, **more)


def _signed_in(key: str, to: str, *, read: bool, **more: Any) -> Call:
    """A sign-in from a new device: told in the app; by SMS and by mail, each some time later, unless it was read."""
    payload = {
        "device": "Firefox on Windows",
        "place": "Lisbon",
        "signed_in_at": "2026-11-23T14:30:00+01:00",
        "review_url": "https://shop.example/account/sign-ins",
    }
    further = dict.fromkeys(("sms", "email"), ("superseded",)) if read else _ends(("sms", "email"))
    ends = _ends(("push",)) | {"inapp": ("delivered",) if read else ("sent",)} | further
    return Call(key, SIGN_IN, to, payload, ends=ends, deliveries=len(ends), **more)


def calls(run: str, origin: str) -> tuple[Call, ...]:
    """What the producer calls for, over every channel.

    Args:
        run: a name that no earlier run in this folder had: bad addresses are remembered, so they are new each time.
        origin: of the far end, where customers have their endpoints.
    """
    mail = ("email",)
    return (
        _shipped("01", "ana"),
        _shipped("02", "jonas"),
        _paid("03", "lina"),
        _shipped("04", "jonas", mail, later=LATER_SECONDS, about=f"at= {LATER_SECONDS} s ahead"),
        _shipped(
            "05",
            {"webhook": f"{origin}/webhooks/flaky-{run}"},
            ("webhook",),
            about="its endpoint is down for a moment: retried",
        ),
        _shipped(
            "06",
            {"email": f"bounce-{run}@example.com"},
            mail,
            ends={"email": ("failed", "undelivered")},  # one relay says so at once, the other one later
            about="a bad address",
        ),
        _shipped("07", "mia", mail, twice=True, about="called twice with one id"),
        _reset("08", "ana"),
        _reset("09", "lina"),
        _mentioned("10", "tom", ("push", "webpush")),
        _mentioned("11", "mia", ("email", "push", "chat")),
        _shipped("12", "wei", ("sms",)),
        _shipped("13", ["ana", "tom", "wei"], mail, deliveries=3, about="three people in one call"),
        _shipped("14", {"webhook": f"{origin}/webhooks/orders"}, ("webhook",)),
        _shipped("15", {"chat": "warehouse", "locale": "de"}, ("chat",)),
        _paid("16", "jonas", about="with its invoice attached"),
        _mentioned("17", "wei", ("inapp",)),
        _shipped(
            "18", "nobody", mail, ends={}, deliveries=0, about="no such recipient: rejected, with its reason"
        ),
        _reset(
            "19",
            "mia",
            act=2,
            priority="normal",
            ends={"email": ("delivered", "sent", "in_doubt")},
            about="its type holds what is in doubt",
        ),
        *(
            _shipped(str(20 + n), person, mail, act=2)
            for n, person in enumerate(("tom", "wei", "ana", "jonas", "lina"))
        ),
        _shipped(
            "25",
            {"email": f"latebounce-{run}@example.com"},
            mail,
            ends={"email": ("undelivered",)},
            about="taken, and bounced later: the bounce comes back to its own return path",
        ),
        *(
            _shipped(str(26 + n), {"chat": room, "locale": "zh-Hans"}, ("chat",))
            for n, room in enumerate(("hangzhou", "shenzhen", "guangzhou"))
        ),
        *later_calls(),
    )


def later_calls() -> tuple[Call, ...]:
    """What happens later: act 3, on the fast clock."""
    mail = ("email",)
    gathered = {"email": ("digested",)}
    return (
        _shipped("31", "ana", mail, act=3, hours=2, about="at= 2 h ahead"),
        _shipped(
            "32",
            "ana",
            mail,
            act=3,
            hours=2,
            cancel_key="order",
            ends={"email": ("cancelled",)},
            about="at= 2 h ahead, and cancelled by its key",
        ),
        *(
            _mentioned(
                str(33 + n), "lina", mail, act=3, digest="hourly", ends=gathered, about='digest="hourly"'
            )
            for n in range(EVENTS)
        ),
        _mentioned("36", "noor", mail, act=3, about="in her quiet hours"),
        _signed_in("37", "tom", read=True, act=3, about="read in the app: no SMS follows"),
        _signed_in("38", "mia", read=False, act=3, about="not read: an SMS follows, then a mail"),
    )
