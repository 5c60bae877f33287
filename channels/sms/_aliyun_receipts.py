"""What Aliyun reports: SmsReport and SmsUp, pushed by HTTP in batches (help.aliyun.com/document_detail/101867.html).

Aliyun signs nothing. So the URL that its console is given has a token in its query, `?token=...`, and the token is the
option `callback_token`: give it over https alone, and keep the query out of the proxy's log.

Whether an SMS arrived is `success`, which is true or false. `err_code` is the carrier's, and carriers have hundreds:
the table has those that speak of the number, and the families that are known to be carriers'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from channels._receipt_reading import (
    any_of,
    clock,
    code_of,
    delivery_of,
    digest_of,
    event_id,
    form,
    objects,
    parsed_json,
    same,
    theirs,
    word,
)
from channels.provider_options import Secret
from channels.receipts import Event, Fate, Forged, Receipt, Standing, Unreadable

ANSWER: Final = b'{"code":0,"msg":"OK"}'
"""What Aliyun wants to read, with status 200; otherwise it tells again, after 1, 5 and 10 minutes."""
STANDINGS: Final[Mapping[str, Standing]] = {
    "isv.mobile_number_illegal": Standing.INVALID,
    "isv.phone_number_illegal": Standing.INVALID,
    "mobile_number_illegal": Standing.INVALID,
    "mk:0001": Standing.INVALID,  # China Mobile: no such subscriber
    "cb:0001": Standing.INVALID,
    "cb:0053": Standing.INVALID,
    "db:0101": Standing.INVALID,
}
"""`err_code`s that speak of the number, in lower case."""
CARRIERS: Final = re.compile(
    r"(?i:DELIVE?RE?D|UNDELIV(ERED)?|EXPIRED|REJECTE?D|UNKNOWN|DELETED|ACCEPTD|isv\.\w+|isp\.\w+|[A-Z_]*BLACK[A-Z_]*)"
    r"|[A-Z]{2}:[0-9]{4}|-?[0-9]{1,6}",
    re.ASCII,
)
"""Codes of SMPP and CMPP, of Aliyun, and of carriers: with `success` false, each is a no."""
STOP_WORDS: Final = frozenset({"t", "td", "退订"})
_BEIJING: Final = timedelta(hours=8)
_AROUND_A_WORD: Final = " \t\r\n.,;:!?'\"()。，！？“”（）"  # noqa: RUF001 - as people there write
_CHINESE: Final = re.compile(r"(?:\+?86|0086)?(1[3-9][0-9]{9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets in who knows the token of the URL.

    Args:
        tokens: the option `callback_token`; none: nobody is let in.
    """

    tokens: tuple[Secret, ...] = field(repr=False)

    def verify(self, receipt: Receipt) -> None:
        """Return if the URL was called with the token.

        Raises:
            Forged: it was not.
        """
        if not self.tokens:
            raise Forged(
                "unconfigured", "Aliyun signs nothing; set callback_token, and add ?token=... to the URL"
            )
        given = _token(receipt)
        if given is None:
            raise Forged("token", "the URL has no token, or two; write ?token=... in Aliyun's console")
        if not any_of(same(given, each.reveal()) for each in self.tokens):
            raise Forged("token", "the token is not callback_token; copy it into the URL in Aliyun's console")


def _token(receipt: Receipt) -> str | None:
    try:
        found = [value for name, value in form(receipt.query) if name == "token"]
    except Unreadable:
        return None
    return found[0] if len(found) == 1 else None


def events(receipt: Receipt) -> Sequence[Event]:
    """What a verified receipt says: reports, and people's stops; nothing of other texts of theirs.

    Raises:
        Unreadable: it is no JSON array of objects.
    """
    entries = objects(parsed_json(receipt))
    return [event for each in entries for event in ([_report(each)] if _is_report(each) else _text(each))]


def _is_report(entry: Mapping[str, Any]) -> bool:
    return "content" not in entry or "err_code" in entry


def _report(entry: Mapping[str, Any]) -> Event:
    success, code = entry.get("success"), entry.get("err_code")
    fate = _FATES.get(word(str(success))) if isinstance(success, bool | str) else None
    known = fate is not None and (fate is Fate.DELIVERED or CARRIERS.fullmatch(str(code)) is not None)
    biz_id = theirs(entry.get("biz_id"))
    return Event(
        id=event_id(biz_id, code_of(code), digest_of(entry)[:12]) if biz_id else digest_of(entry),
        code=code_of(code),
        fate=fate,
        standing=STANDINGS.get(word(code)) if fate is Fate.UNDELIVERED else None,
        known=known,
        delivery_id=delivery_of(entry.get("out_id")),
        provider_message_id=biz_id,
        at=clock(entry.get("report_time"), _BEIJING),
        detail=_DETAILS.get(fate, "Aliyun's report has no success; look at its console")
        if known or fate is None
        else "the carrier's code is a new one; add it to the table STANDINGS or CARRIERS",
    )


_FATES: Final[Mapping[str, Fate]] = {"true": Fate.DELIVERED, "false": Fate.UNDELIVERED}
_DETAILS: Final[Mapping[Fate | None, str]] = {
    Fate.DELIVERED: "",
    Fate.UNDELIVERED: "the carrier did not deliver it; Aliyun's list of receipt codes explains this one",
}


def _text(entry: Mapping[str, Any]) -> Sequence[Event]:
    """A person's text (SmsUp, which mainland China alone has)."""
    if word(entry.get("content")).strip(_AROUND_A_WORD) not in STOP_WORDS:
        return []
    number = _CHINESE.fullmatch(word(entry.get("phone_number")))
    return [
        Event(
            id=event_id("up", theirs(entry.get("sequence_id")) or "-", digest_of(entry)[:12]),
            code="TD",
            standing=Standing.OPTED_OUT,
            address=f"+86{number[1]}" if number else None,
            at=clock(entry.get("send_time"), _BEIJING),
            detail="the person answered in a text",
        )
    ]
