"""`email.sendgrid`: mail through Twilio SendGrid, Mail Send of its v3 API.

| SendGrid answers | outcome |
|---|---|
| 202 (200: its sandbox mode) | Accepted; the id is X-Message-Id |
| 400 about `personalizations.0.to` | AddressInvalid |
| 400 `Does not contain a valid address` about no field | AddressInvalid |
| 400 about `from` or `reply_to` | Misconfigured: the option sender or reply_to |
| any other 400 | Refused |
| 401, 403: the key, its scopes, the sender's identity, an address of ours, credits | Misconfigured |
| 404, 405, 415 | Misconfigured |
| 413 | Refused |
| 429 | Throttled until X-RateLimit-Reset, or as Retry-After says |
| 500, 502, 504 | Uncertain |
| 503 | Unavailable; TryLater where Retry-After says when |
| no answer in time, a lost connection | Uncertain: there is no idempotency key |

(twilio.com/docs/sendgrid/api-reference: mail-send/errors, mail-send/limitations, how-to-use/rate-limits)

| our field | theirs |
|---|---|
| the address | `personalizations[0].to[0].email`: one recipient a request |
| the delivery's id | `custom_args.delivery_id`, which every event repeats; `Message-ID`, `X-Notify-Delivery` |
| the event type | `categories[0]` |
| `subject`, `text`, `html` | `subject`, `content` |
| `attachments` | `attachments`, in base64 |
| `unsubscribe` | `headers`: List-Unsubscribe, List-Unsubscribe-Post; leave Subscription Tracking off beside it |
| options `sender`, `reply_to` | `from`, `reply_to` |

| SendGrid reports | fate | address |
|---|---|---|
| processed, deferred | accepted | |
| delivered; open by a machine | delivered | |
| open, click | read | |
| bounce, type blocked | undelivered | |
| bounce: status 5.1.1 and its like, or classified as Invalid Address, or not at all | undelivered | invalid |
| bounce classified otherwise, or unclassified with a status beyond 5.0 and 5.1 | undelivered | |
| dropped: Bounced Address, Invalid | undelivered | invalid |
| dropped: Unsubscribed Address | undelivered | opted out |
| dropped: Spam Reporting Address | undelivered | complained |
| dropped for any other reason | undelivered | |
| spamreport | delivered | complained |
| unsubscribe, group_unsubscribe | delivered | opted out |
| group_resubscribe | delivered | opted in |
| any other event | unknown | |

Receipts need the option `webhook_key`; `channels.email._sendgrid_events` reads them.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from email.utils import getaddresses
from http import HTTPStatus
from typing import Any, Final

from channels._http_outcomes import LONGEST_RETRY_AFTER, identifier
from channels.contract import (
    Accepted,
    AddressInvalid,
    Attachment,
    Capability,
    ChannelError,
    Deadline,
    EmailContent,
    Message,
    Misconfigured,
    Refused,
    Throttled,
)
from channels.email import _sendgrid_events
from channels.email._mime import domain_name, mailbox, named_mailbox, unsubscribing
from channels.http import CLIENT_OPTIONS, Answer, Client, Meaning, Options, Secret, carried, to_json
from channels.receipts import Event, Receipt

STATUSES: Final[Mapping[int, Meaning]] = {
    401: (Misconfigured, "SendGrid refused the key, or the account is out of credits; look at api_key"),
    403: (
        Misconfigured,
        "SendGrid does not let us send: the key lacks the scope Mail Send, or sender is no verified identity",
    ),
}
_TO: Final = r"personalizations\.0\.to(\..*)?"
FIELDS: Final[Mapping[str, Meaning]] = {
    r"(from|reply_to)(\..*)?": (Misconfigured, "SendGrid does not take the option sender or reply_to"),
    _TO: (AddressInvalid, "SendGrid says that this is no address of mail"),
}
"""What a 400 means by the fields that it names; the first that fits, so that a sender of ours suppresses nobody."""
_NO_ADDRESS: Final = "does not contain a valid address"

MAX_BYTES: Final = 30 * 1000 * 1000
"""A whole request has fewer, attachments in base64 included: SendGrid says less than 30 MB."""
_MAX_CATEGORY: Final = 255
_FIRST_UNUSABLE: Final = "\x20"
_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}", re.ASCII)


def build(name: str, options: Mapping[str, Any]) -> SendGridProvider:
    """Build the provider.

    Args:
        name: its name in the configuration.
        options: `api_key`, required, with the scope Mail Send. `sender`, required: `Name <addr>`, of an
            authenticated domain or a verified identity. `reply_to`. `message_id_domain` (the default is
            the sender's). `webhook_key`: the public key of the Signed Event Webhook, two in a list while one
            replaces the other. And those of `channels.http.CLIENT_OPTIONS`; `url` is `https://api.sendgrid.com`,
            or `https://api.eu.sendgrid.com` for an account in the European Union.

    Raises:
        Misconfigured: an option is missing, wrong or unknown.
    """
    known = (*CLIENT_OPTIONS, "api_key", "message_id_domain", "reply_to", "sender", "webhook_key")
    given = Options("email.sendgrid", name, options, known)
    key = given.secret("api_key")
    given.text("sender", write="'Name <name@example.com>'")
    sender = _party(given, "sender")
    assert sender is not None
    own = sender["email"].rpartition("@")[2]
    domain = domain_name(given.optional_text("message_id_domain") or own)
    if domain is None:
        raise given.wrong("message_id_domain", "is no domain; write one such as mail.example.com")
    head = {"from": sender}
    reply_to = _party(given, "reply_to")
    if reply_to is not None:
        head["reply_to"] = reply_to
    signer = _sendgrid_events.Signer(_sendgrid_events.read_keys(given, options.get("webhook_key")))
    client = Client.read(given, "https://api.sendgrid.com")
    return SendGridProvider(name, key, client, head, domain, signer)


class SendGridProvider:
    """Sends one mail to one recipient in one request. Made by `build`.

    Args:
        name: of the provider in the configuration.
        key: of the API.
        client: sends.
        head: `from` and `reply_to` of every mail.
        domain: to the right of the @ in each Message-ID.
        signer: says whether SendGrid signed a receipt.
    """

    capability = Capability.OPAQUE

    def __init__(
        self,
        name: str,
        key: Secret,
        client: Client,
        head: Mapping[str, Mapping[str, str]],
        domain: str,
        signer: _sendgrid_events.Signer,
    ) -> None:
        self._name = name
        self._key = key
        self._client = client
        self._head = head
        self._domain = domain
        self._signer = signer

    def __repr__(self) -> str:
        return f"<email.sendgrid {self._name!r}>"

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Hand one mail to SendGrid. See `Provider.send`; the module has the tables."""
        content = carried(message, EmailContent)
        body = to_json({**self._head, **self._mail(message, content)})
        if len(body) >= MAX_BYTES:
            raise _too_long(content, len(body))
        answer = self._client.request(
            "POST",
            "/v3/mail/send",
            deadline,
            headers={"Authorization": f"Bearer {self._key.reveal()}", "Content-Type": "application/json"},
            body=body,
        )
        failure = judge(answer)
        if failure is not None:
            raise failure
        return Accepted(identifier(answer.headers.get("x-message-id")), str(answer.status))

    def verify(self, receipt: Receipt) -> None:
        """See `channels.receipts.Reporting`."""
        self._signer.verify(receipt)

    def events(self, receipt: Receipt) -> Sequence[Event]:
        """See `channels.receipts.Reporting`; the module has the table."""
        return _sendgrid_events.events(receipt)

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _mail(self, message: Message, content: EmailContent) -> dict[str, Any]:
        _check(content)
        to = _alone(message.address)
        delivery = message.delivery_id
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", delivery):
            raise Refused("header", "the delivery id cannot stand in a header; mend what made it")
        mail: dict[str, Any] = {
            "personalizations": [{"to": [{"email": to}]}],
            "subject": content.subject,
            "content": [{"type": "text/plain", "value": content.text}],
            "categories": [message.event_type[:_MAX_CATEGORY]],
            "custom_args": {"delivery_id": delivery},
            "headers": {
                # The same for a repetition: to its reader, a repeated mail is the same mail.
                "Message-ID": f"<{delivery}@{self._domain}>",
                "X-Notify-Delivery": delivery,
                "Auto-Submitted": "auto-generated",  # RFC 3834: keeps out-of-office answers away
                **unsubscribing(content),
            },
        }
        if content.html:
            mail["content"].append({"type": "text/html", "value": content.html})
        if content.attachments:
            mail["attachments"] = [_attached(each) for each in content.attachments]
        return mail


# --- answers ----------------------------------------------------------------------------------------


def judge(answer: Answer) -> ChannelError | None:
    """What SendGrid's answer means; None where it took the mail."""
    if answer.status == HTTPStatus.BAD_REQUEST:
        return _bad_request(answer)
    failure = answer.failure(Capability.OPAQUE, STATUSES)
    if isinstance(failure, Throttled) and failure.retry_after is None:
        return Throttled(failure.code, failure.detail, retry_after=_until_reset(answer, time.time()))
    return failure


def _bad_request(answer: Answer) -> ChannelError:
    errors = answer.fields().get("errors")
    found = [each for each in (errors if isinstance(errors, list) else []) if isinstance(each, dict)]
    names = [each["field"] for each in found if isinstance(each.get("field"), str)]
    for pattern in FIELDS:
        if any(re.fullmatch(pattern, each) for each in names):
            return _meant(pattern)
    if not names and any(_NO_ADDRESS in str(each.get("message")).lower() for each in found):
        return _meant(_TO)
    fields = ", ".join(each for each in names if re.fullmatch(r"[A-Za-z0-9_.\[\]]{1,80}", each))
    return Refused(
        "400", f"SendGrid refused the mail ({fields or 'no field named'}); correct its template or call"
    )


def _meant(pattern: str) -> ChannelError:
    outcome, detail = FIELDS[pattern]
    return outcome("400", detail)


def _until_reset(answer: Answer, now: float) -> float | None:
    """Seconds until SendGrid's limit begins anew: its header has them since 1970."""
    reset = answer.headers.get("x-ratelimit-reset", "")
    if not re.fullmatch(r"[0-9]{1,12}", reset):
        return None
    return min(max(int(reset) - now, 0.0), LONGEST_RETRY_AFTER)


# --- mails ------------------------------------------------------------------------------------------


def _party(given: Options, option: str) -> dict[str, str] | None:
    """`Name <addr>` as SendGrid writes it; None where the option is missing."""
    text = given.optional_text(option)
    if text is None:
        return None
    box, problem = None, ""
    try:
        box = named_mailbox(text)[1]
    except ValueError as error:
        problem = str(error)
    if box is None:
        raise given.wrong(option, f"is {problem}; write 'Name <name@example.com>'")
    display = getaddresses([text])[0][0]
    return {"email": box.address, "name": display} if display else {"email": box.address}


def _alone(address: str) -> str:
    box = mailbox(address)
    if not box.ascii:
        raise AddressInvalid(
            "smtputf8", "SendGrid takes ASCII addresses alone; ask the recipient for another"
        )
    return box.address


def _check(content: EmailContent) -> None:
    """What SendGrid would refuse, or could take for a second header."""
    if not content.subject.strip() or any(each < _FIRST_UNUSABLE for each in content.subject):
        raise Refused("header", "content.subject is empty or has a line break; mend its template")
    if not content.text:
        raise Refused("content", "content.text is empty, which SendGrid does not take; mend its template")


def _attached(attachment: Attachment) -> dict[str, str]:
    if not _TYPE.fullmatch(attachment.type):
        raise Refused("header", "the media type of an attachment cannot stand in a header; mend the call")
    if any(each < _FIRST_UNUSABLE for each in attachment.name):
        raise Refused("header", "the name of an attachment has a line break; mend the call")
    return {
        "content": b64encode(attachment.content).decode("ascii"),
        "disposition": "attachment",
        "filename": attachment.name,
        "type": attachment.type,
    }


def _too_long(content: EmailContent, size: int) -> Refused:
    parts = {
        "content.attachments": sum(len(each.content) for each in content.attachments),
        "content.html": len(content.html or ""),
        "content.text": len(content.text),
    }
    longest = max(parts, key=lambda part: parts[part])
    return Refused(
        "too-long",
        f"the mail makes {size} bytes and SendGrid carries less than {MAX_BYTES}; shorten {longest} first",
    )
