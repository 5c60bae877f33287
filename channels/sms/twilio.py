"""`sms.twilio`: SMS by Twilio's Messages resource (twilio.com/docs/messaging/api/message-resource).

Twilio's SDK makes the request, and this module's connections carry it: an HTTP client of the SDK's own has no
deadline, loses Retry-After, opens a connection for every thread above its pool, and logs URLs and headers.

| Twilio | outcome |
|---|---|
| 201 | Accepted; the id is the message's SID |
| 4xx with a code of `CODES` | as its row says |
| 401, 403, 404 with any other code or none; 3xx | Misconfigured |
| 429 | Throttled: Twilio has not processed it |
| 503 | Unavailable; with Retry-After TryLater |
| 500, 502, 504; no answer; a lost connection | Uncertain: Twilio knows no idempotency keys |
| no connection | Unavailable |
| other 4xx | Refused: Twilio splits codes and adds new ones |

Whatever it is, the error keeps Twilio's code where there is one, and else the status.

A code that says no to one country or one pair of numbers is `Unroutable`, not `Misconfigured`: the account works,
other people's messages must not wait for it, and another provider of the pool may reach the number. The codes 30001
and above come with a receipt, as a rule.

| Twilio reports | fate | address |
|---|---|---|
| accepted, scheduled, queued, sending | accepted | |
| sent | sent | |
| delivered | delivered | |
| read | read | |
| undelivered, failed, canceled | undelivered | invalid or opted out, where `CODES` says so of ErrorCode |
| any other MessageStatus | unknown | |
| a text with OptOutType STOP, or that is STOP, STOPALL, UNSUBSCRIBE, CANCEL, END, QUIT, REVOKE, OPTOUT | | opted out |
| a text with OptOutType START, or that is START, UNSTOP, YES | | opted in |
| any other text | no event | |

Receipts need the option `status_callback`; `channels.sms._twilio_receipts` reads them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from channels._addresses import split_url
from channels._sdk import LazySdk
from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    Deadline,
    Message,
    Misconfigured,
    OptedOut,
    Refused,
    Throttled,
    TryLater,
    Unroutable,
)
from channels.http import CLIENT_OPTIONS, Answer, Client, Meaning, Options, Secret
from channels.receipts import Event, Receipt
from channels.sms import _twilio_receipts
from channels.sms._text import MAX_SEGMENTS, checked_text, number_of

# fmt: off
_TABLE: Final[tuple[tuple[str, type[ChannelError], str], ...]] = (
    # Slow down.
    ("20429 14107", Throttled, "Twilio asks us to slow down"),
    ("63038", Throttled, "the account's daily number of messages is reached; ask Twilio for more"),
    ("30022 30023", Throttled, "the A2P campaign's throughput or daily cap is reached; see its registration"),
    # The account, its keys, its senders: nothing passes.
    ("20003 20005 20006", Misconfigured, "Twilio refuses the account or its keys; check account_sid and the key"),
    ("20404", Misconfigured, "Twilio does not know the account; check account_sid"),
    ("20008", Misconfigured, "these are test credentials, which send nothing; use those of the account"),
    ("21608", Misconfigured, "a trial account sends to verified numbers alone; upgrade it"),
    ("30002", Misconfigured, "the account is suspended; look at the Twilio console"),
    ("21212 21603 21606 21659 21660", Misconfigured, "Twilio refuses the sender; check from"),
    ("21701 21702 21703 21704 21705", Misconfigured,
     "Twilio refuses the messaging service; check messaging_service_sid and its senders"),
    # One country, one sender for it: the account still works for the others.
    ("21408", Unroutable, "the account may not send to this country; see its Messaging Geo Permissions"),
    ("21612", Unroutable, "the sender cannot reach this number; give the messaging service one that can"),
    ("30032 30034 30035", Unroutable, "the sender is not registered for this country; see toll-free and A2P 10DLC"),
    # The number.
    ("21211 21217 21421", AddressInvalid, "the number is not valid"),
    ("21614 21635 30006", AddressInvalid, "the number cannot receive SMS"),
    ("30005", AddressInvalid, "the number is unknown or no longer in service"),
    ("21610", OptedOut, "the person answered STOP to this sender"),
    # The message.
    ("21602", Refused, "the text is empty"),
    ("21617", Refused, "the text is too long; shorten it"),
    ("21619 21620", Refused, "the message has no text, or media that Twilio does not take"),
    ("30004", Refused, "the message is blocked; look at the number's and the carrier's block lists"),
    ("30007", Refused, "a carrier's filter took it for spam; look at the text"),
    # The way to the handset.
    ("30001 30017", TryLater, "Twilio's or the carrier's queue is full"),
    ("30003", TryLater, "the handset cannot be reached now"),
    ("30008 30009", TryLater, "it was lost on its way"),
    ("30036", TryLater, "it waited longer than its validity period"),
)
# fmt: on
CODES: Final[Mapping[str, Meaning]] = {
    code: (error, detail) for codes, error, detail in _TABLE for code in codes.split()
}
"""What a code of Twilio's means (twilio.com/docs/api/errors)."""
WAITS: Final[Mapping[str, float]] = {"63038": 3600.0}
"""Seconds to wait where Twilio says none: its day ends at an hour that it does not tell."""

API: Final = "https://api.twilio.com"
MAX_TEXT: Final = 1600
"""Characters of a body (the Messages resource, `Body`)."""
MAX_VALIDITY: Final = 36_000
"""Seconds (the Messages resource, `ValidityPeriod`)."""


@dataclass(frozen=True, slots=True)
class _Sdk:
    client: Any
    response: Any


def _load() -> _Sdk:
    from twilio.http.response import Response  # noqa: PLC0415 - see LazySdk
    from twilio.rest import Client as SdkClient  # noqa: PLC0415

    SdkClient("AC", "unused", http_client=object()).messages  # noqa: B018 - it imports more when it is first asked
    return _Sdk(SdkClient, Response)


_SDK: Final = LazySdk("twilio", _load, extra="twilio")


@dataclass(frozen=True, slots=True)
class _Account:
    """Who sends.

    Args:
        sid: of the account.
        user: of the requests: the account's SID, or an API key's.
        key: the auth token, or the API key's secret.
    """

    sid: str
    user: Secret
    key: Secret


def build(name: str, options: Mapping[str, Any]) -> Twilio:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `account_sid`, required. `auth_token`, or `api_key` with `api_secret`: who may send.
            `messaging_service_sid` or `from` (a number in E.164, a short code, or an alphanumeric sender):
            one of them. `validity_period`: seconds after which Twilio gives up (1 to 36000, its default).
            `status_callback`: the public https URL for receipts, which gets `delivery_id` into its query.
            `inbound_url`: the public URL that Twilio calls with people's texts, where it is another one.
            `auth_token` beside an API key is for receipts alone; `auth_token_previous` still counts for them
            while the account changes its token.
            `max_segments`: SMS that one text may make (10). And those of `channels.http.CLIENT_OPTIONS`;
            `url` is another far end than Twilio's, or one of its regions.

    Raises:
        Misconfigured: an option is missing, wrong or unknown, or the SDK is not installed.
    """
    known = (
        *CLIENT_OPTIONS,
        *("account_sid", "auth_token", "api_key", "api_secret", "messaging_service_sid", "from"),
        *("validity_period", "status_callback", "inbound_url", "auth_token_previous", "max_segments"),
    )
    given = Options("sms.twilio", name, options, known)
    _SDK.look(given)
    fields = _sender(given)
    if "validity_period" in options:
        fields["validity_period"] = given.whole("validity_period", MAX_VALIDITY, most=MAX_VALIDITY)
    callback = _public_url(given, "status_callback")
    return Twilio(
        name,
        _account(given),
        Client.read(given, API),
        _signer(given, callback),
        fields=fields,
        callback=callback,
        max_segments=given.whole("max_segments", MAX_SEGMENTS),
    )


def _account(given: Options) -> _Account:
    sid = _sid(given, "account_sid", "AC")
    if sid is None:
        raise given.wrong("account_sid", 'is missing; write account_sid = "AC..."')
    if _sid(given, "api_key", "SK") is not None:
        return _Account(sid, given.secret("api_key"), given.secret("api_secret"))
    if given.optional_secret("api_secret") is not None:
        raise given.wrong("api_key", "is missing; write it beside api_secret, or auth_token alone")
    return _Account(sid, Secret(sid), given.secret("auth_token"))


def _sid(given: Options, option: str, prefix: str) -> str | None:
    found = given.optional_text(option)
    if found is not None and not re.fullmatch(f"{prefix}[0-9a-fA-F]{{32}}", found):
        raise given.wrong(option, f"is no SID of its kind; write {prefix} and 32 hexadecimal digits")
    return found


def _sender(given: Options) -> dict[str, Any]:
    service = _sid(given, "messaging_service_sid", "MG")
    sender = given.optional_text("from")
    if service is not None and sender is not None:
        raise given.wrong(
            "from", "is one sender too many beside messaging_service_sid; leave one of them out"
        )
    if service is not None:
        return {"messaging_service_sid": service}
    if sender is None:
        raise given.wrong(
            "messaging_service_sid",
            'is missing; write messaging_service_sid = "MG...", or from = "+15550100"',
        )
    # A short code has digits alone; an alphanumeric sender at most 11 characters and at least one letter.
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 +&_-]{1,11}", sender):
        raise given.wrong(
            "from", "is no sender; write a number in E.164, a short code, or a name of up to 11 characters"
        )
    return {"from_": sender}


def _signer(given: Options, callback: str | None) -> _twilio_receipts.Signer:
    tokens = (given.optional_secret("auth_token"), given.optional_secret("auth_token_previous"))
    if tokens[0] is None and tokens[1] is not None:
        raise given.wrong("auth_token_previous", "is nothing without auth_token; write both, or none")
    return _twilio_receipts.Signer(
        tuple(url for url in (callback, _public_url(given, "inbound_url")) if url is not None),
        tuple(token for token in tokens if token is not None),
    )


def _public_url(given: Options, option: str) -> str | None:
    found = given.optional_text(option)
    if found is None:
        return None
    try:
        origin, _ = split_url(found)
        # A name without a dot is one of an inner network, where a sandbox stands in for Twilio.
        inner = origin.host in {"127.0.0.1", "::1"} or re.fullmatch(r"[a-z0-9-]+", origin.host)
        sound = bool(origin.tls or inner) and "#" not in found
    except ValueError:
        sound = False
    if not sound:
        raise given.wrong(
            option,
            "is no https:// URL; write the one that Twilio reaches, such as https://HOST/hooks/twilio",
        )
    return found


class Twilio:
    """Sends one SMS in one request. Made by `build`.

    Args:
        name: of the provider in the configuration.
        account: who sends.
        client: carries the requests.
        signer: says whether Twilio signed a receipt.
        fields: what the SDK is given for each message: the sender, and perhaps the validity period.
        callback: the URL for receipts.
        max_segments: SMS that one text may make.
    """

    capability = Capability.OPAQUE

    def __init__(
        self,
        name: str,
        account: _Account,
        client: Client,
        signer: _twilio_receipts.Signer,
        *,
        fields: Mapping[str, Any],
        callback: str | None,
        max_segments: int,
    ) -> None:
        self._name = name
        self._account = account
        self._client = client
        self._signer = signer
        self._fields = fields
        self._callback = callback
        self._max_segments = max_segments

    def __repr__(self) -> str:
        return f"<sms.twilio {self._name!r}>"

    def prewarm(self) -> None:
        """Import the SDK now, so that the first message does not wait for it."""
        _SDK.get()

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one SMS to Twilio. See `Provider.send`; the module has the table."""
        text = checked_text(message, most=MAX_TEXT, most_segments=self._max_segments)
        fields = {"to": number_of(message), "body": text, **self._fields}
        if self._callback is not None:
            fields["status_callback"] = with_delivery(self._callback, message.delivery_id)
        answer = self._ask(fields, deadline)
        failure = _failure(answer)
        if failure is not None:
            raise failure
        sid = answer.identifier("sid")
        return Accepted(sid, str(answer.status) if sid else f"{answer.status} unreadable")

    def verify(self, receipt: Receipt) -> None:
        """See `channels.receipts.Reporting`."""
        self._signer.verify(receipt)

    def events(self, receipt: Receipt) -> Sequence[Event]:
        """See `channels.receipts.Reporting`; the module has the table."""
        return _twilio_receipts.events(receipt, CODES)

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _ask(self, fields: Mapping[str, Any], deadline: Deadline) -> Answer:
        sdk = _SDK.get()
        wire = _Wire(self._client, deadline, sdk.response)
        # A client for each call: one that lasts would keep the key in an attribute.
        account = self._account
        client = sdk.client(account.user.reveal(), account.key.reveal(), account.sid, http_client=wire)
        problem = ""
        try:
            client.messages.create(**fields)
        except ChannelError:
            raise
        except Exception as error:  # noqa: BLE001 - what the SDK makes of an answer does not matter: we have it
            problem = type(error).__name__
        if wire.answer is None:
            raise Misconfigured(
                "sdk", f"Twilio's SDK made no request ({problem}); install the version of the requirements"
            )
        return wire.answer


class _Wire:
    """The SDK's HTTP client, for one call: our connections, the call's deadline, and the whole answer kept."""

    def __init__(self, client: Client, deadline: Deadline, response: Any) -> None:
        self._client = client
        self._deadline = deadline
        self._response = response
        self.answer: Answer | None = None

    def request(
        self,
        method: str,
        url: str,
        *,
        data: Mapping[str, Any],
        headers: Mapping[str, str],
        auth: tuple[str, str],
        **_: object,
    ) -> Any:
        """Make the SDK's request, at the far end that the options name."""
        login = base64.b64encode(":".join(auth).encode()).decode("ascii")
        answer = self._client.request(
            method,
            urlsplit(url).path,
            self._deadline,
            headers={**headers, "Authorization": f"Basic {login}"},
            body=urlencode(data).encode("ascii"),
        )
        self.answer = answer
        return self._response(answer.status, answer.text(), dict(answer.headers))


def with_delivery(url: str, delivery_id: str) -> str:
    """A URL that gets our delivery's id into its query, beside what is there."""
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, urlencode({"delivery_id": delivery_id}))))
    return parts._replace(query=query).geturl()


def _failure(answer: Answer) -> ChannelError | None:
    code = answer.fields().get("code")
    raw = str(code) if isinstance(code, int) and 10_000 <= code < 100_000 else ""  # noqa: PLR2004 - its codes
    known = answer.refusal(raw, CODES) if 400 <= answer.status < 500 else None  # noqa: PLR2004 - RFC 9110
    failure = known or answer.failure(Capability.OPAQUE)
    if failure is None or not raw:
        return failure
    wait = WAITS.get(raw) if failure.retry_after is None else failure.retry_after
    return type(failure)(raw, failure.detail, retry_after=wait)
