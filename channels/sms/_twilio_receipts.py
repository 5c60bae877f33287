"""What Twilio reports: status callbacks and inbound texts, both signed (twilio.com/docs/usage/security).

The signature is Twilio's X-Twilio-Signature: HMAC-SHA1, by the account's auth token, over the public URL as it was
called and each field of the form, sorted. The scheme has no clock: a receipt told again has the same event id. Its
few lines stand here and not in a call of the SDK, which takes a quarter of a second to import; tests hold them
against the SDK's `RequestValidator`.

Fields are signed without a mark between a name and its value, so a body that is no strict form is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from channels._receipt_reading import (
    any_of,
    code_of,
    delivery_of,
    event_id,
    fields,
    form,
    number,
    query,
    same,
    theirs,
)
from channels.contract import AddressInvalid, ChannelError, OptedOut
from channels.provider_options import Secret
from channels.receipts import Event, Fate, Forged, Receipt, Standing, Unreadable

STATUSES: Final[Mapping[str, Fate]] = {
    "accepted": Fate.ACCEPTED,
    "scheduled": Fate.ACCEPTED,
    "queued": Fate.ACCEPTED,
    "sending": Fate.ACCEPTED,
    "sent": Fate.SENT,
    "undelivered": Fate.UNDELIVERED,
    "failed": Fate.UNDELIVERED,
    "canceled": Fate.UNDELIVERED,
    "delivered": Fate.DELIVERED,
    "read": Fate.READ,
}
"""`MessageStatus` (twilio.com/docs/messaging/api/message-resource#message-status-values)."""
STANDINGS: Final[Mapping[type[ChannelError], Standing]] = {
    AddressInvalid: Standing.INVALID,
    OptedOut: Standing.OPTED_OUT,
}
"""What the table of codes says of the address, where it says something."""
STOP_WORDS: Final = frozenset(
    "stop stopall unsubscribe cancel end quit revoke optout".split()  # noqa: SIM905 - as Twilio lists them
)
START_WORDS: Final = frozenset({"start", "unstop", "yes"})
"""A whole text that is one of these says so (twilio.com/docs/messaging/tutorials/advanced-opt-out)."""
_SAYS: Final[Mapping[str, Standing | None]] = {
    "STOP": Standing.OPTED_OUT,
    "START": Standing.OPTED_IN,
    "HELP": None,
}
"""`OptOutType`, where Advanced Opt-Out reads the texts."""
_AROUND_A_WORD: Final = " \t\r\n.,;:!?'\"()*-"


@dataclass(frozen=True, slots=True)
class Signer:
    """Says whether Twilio signed a receipt.

    Args:
        urls: the public ones that Twilio calls; their queries do not count, since that of the call does.
        tokens: auth tokens of the account: the one in use, and the one before it while they change.
    """

    urls: tuple[str, ...]
    tokens: tuple[Secret, ...] = field(repr=False)

    def verify(self, receipt: Receipt) -> None:
        """Return if Twilio sent it.

        Raises:
            Forged: it did not, or we cannot know.
        """
        if not self.tokens:
            raise Forged("unconfigured", "an API key signs no receipts; write auth_token beside it")
        if not self.urls:
            raise Forged("unconfigured", "status_callback is missing; write the URL that Twilio calls")
        given = receipt.header("x-twilio-signature")
        if not given:
            raise Forged("missing_header", "X-Twilio-Signature is missing; let the proxy in front pass it")
        signed = _signed_fields(receipt)
        # Twilio signs a port, or leaves it out, as it pleases.
        urls = [url for each in self.urls for url in _with_and_without_port(each, receipt.query)]
        right = (signature(url + signed, token) for url in urls for token in self.tokens)
        if not any_of(same(given, each) for each in right):
            raise Forged(
                "signature",
                "neither auth_token and auth_token_previous nor status_callback and inbound_url fit; compare them "
                "with the account's token and the URL in Twilio's console",
            )


def signature(signed: str, token: Secret) -> str:
    """X-Twilio-Signature for a URL with the fields behind it."""
    return base64.b64encode(hmac.digest(token.reveal().encode(), _bytes(signed), hashlib.sha1)).decode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _signed_fields(receipt: Receipt) -> str:
    """Each name and each of its values, sorted, a repeated pair once."""
    try:
        pairs = form(receipt.body)
    except Unreadable:
        raise Forged(
            "body", "Twilio sends forms in UTF-8, and this is none; look for what changes it"
        ) from None
    return "".join(name + value for name, value in sorted(set(pairs)))


def _with_and_without_port(url: str, called: str) -> Sequence[str]:
    parts = urlsplit(url)._replace(query="", fragment="")
    bare = parts.netloc if parts.port is None else parts.netloc.rpartition(":")[0]
    port = parts.port or (443 if parts.scheme == "https" else 80)
    behind = f"?{called}" if called else ""
    # Not put together by `geturl`, which drops what it takes for empty: a signature is about letters.
    return [
        f"{parts.scheme}://{netloc}{parts.path}{behind}"
        for netloc in dict.fromkeys((parts.netloc, bare, f"{bare}:{port}"))
    ]


# --- what they say ----------------------------------------------------------------------------------


def events(receipt: Receipt, codes: Mapping[str, tuple[type[ChannelError], str]]) -> Sequence[Event]:
    """What a verified receipt says; nothing where a person wrote something else than a stop or a start.

    Args:
        receipt: a status callback, or an inbound text.
        codes: what Twilio's codes mean.

    Raises:
        Unreadable: it is neither.
    """
    told = fields(receipt)
    sid = told.get("MessageSid") or told.get("SmsSid") or ""
    if re.fullmatch(r"[A-Za-z]{2}[0-9a-fA-F]{32}", sid) is None:
        raise Unreadable("it has no MessageSid")
    if "MessageStatus" in told:
        return [_status(receipt, told, sid, codes)]
    if "Body" in told or "OptOutType" in told:
        return _inbound(told, sid)
    raise Unreadable("it is neither a status callback nor a text: MessageStatus and Body are missing")


def _status(
    receipt: Receipt,
    told: Mapping[str, str],
    sid: str,
    codes: Mapping[str, tuple[type[ChannelError], str]],
) -> Event:
    status = told["MessageStatus"]
    fate = STATUSES.get(status)
    # Twilio puts 0 where there is none.
    error = told.get("ErrorCode", "") if fate is Fate.UNDELIVERED else ""
    outcome, detail = codes.get(error, (None, ""))
    return Event(
        id=event_id(sid, status),
        code=code_of(status if error in {"", "0"} else error),
        fate=fate,
        standing=STANDINGS.get(outcome) if outcome else None,
        known=fate is not None,
        delivery_id=delivery_of(query(receipt).get("delivery_id")),
        provider_message_id=theirs(sid),
        address=number(told.get("To")),
        detail=detail or ("" if fate else "Twilio has a new MessageStatus; update the table STATUSES"),
    )


def _inbound(told: Mapping[str, str], sid: str) -> Sequence[Event]:
    said = told.get("OptOutType", "")
    word = told.get("Body", "").strip(_AROUND_A_WORD).casefold()
    if not said:
        said = "STOP" if word in STOP_WORDS else "START" if word in START_WORDS else ""
    standing = _SAYS.get(said)
    if said in _SAYS or not said:
        return [] if standing is None else [_opting(told, sid, said, standing)]
    return [_opting(told, sid, said, None)]


def _opting(told: Mapping[str, str], sid: str, said: str, standing: Standing | None) -> Event:
    return Event(
        id=event_id(sid, said),
        code=code_of(said),
        standing=standing,
        known=standing is not None,
        provider_message_id=theirs(sid),
        address=number(told.get("From")),
        detail="the person answered in a text" if standing else "Twilio has a new OptOutType; update _SAYS",
    )
