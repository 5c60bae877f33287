"""A mail that comes back: a relay takes it, and reports to the envelope's sender that it could not be delivered.

The report is that of RFC 3464, in the `multipart/report` of RFC 6522, sent to our mail hook as `message/rfc822`, as a
mail server's pipe or an inbound-mail service would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email import message_from_bytes, policy
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime
from typing import Final

from notify_tasks.sandbox.reports import DELIVERED, Call, Plan

BOUNCES: Final[Mapping[str, str]] = {
    DELIVERED: "no report",
    "bounced": "a report that it failed, 5.1.1 if no `code` is given",
    "delayed": "a report that it is put off, 4.4.1",
    "complained": "a report that the person calls it spam (RFC 5965)",
}
"""What becomes of a mail that SMTP took."""
WORDS: Final[Mapping[str, str]] = {"latebounce": "bounced", "delayed": "delayed", "complain": "complained"}
"""What an address asks for by its first word."""
_HOST: Final = "sandbox.localhost"
_USUAL: Final[Mapping[str, str]] = {"bounced": "5.1.1", "delayed": "4.4.1", "complained": ""}
_REPLIES: Final[Mapping[str, str]] = {
    "4.4.1": "450 4.4.1 No answer from host",
    "5.1.1": "550 5.1.1 No such user here",
    "5.2.2": "552 5.2.2 Mailbox full",
    "5.7.1": "550 5.7.1 Message refused by policy",
}


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that was taken.

    Args:
        id: of its effect.
        at: when.
        sender: of the envelope; empty for one that nobody wants back.
        to: whom it was for.
        content: as it came.
    """

    id: str
    at: datetime
    sender: str = field(repr=False)
    to: str = field(repr=False)
    content: bytes = field(repr=False)


def comes_back(mail: Mail, plan: Plan) -> bool:
    """Whether anything is told of a mail: nothing is of one that arrives, nor of a report itself (RFC 5321, 6.1)."""
    return _outcome(mail, plan)[0] != DELIVERED and bool(mail.sender) and plan.url is not None


def bounce(mail: Mail, plan: Plan) -> Call:
    """The report that a mail makes which comes back."""
    outcome, code = _outcome(mail, plan)
    code = code or _USUAL[outcome]
    if plan.forged:  # whoever does not know the sender that the envelope had can only guess one
        mail = replace(mail, sender=f"bounce+guessed@{mail.sender.rpartition('@')[2]}")
    made = _complaint(mail) if outcome == "complained" else _failure(mail, outcome, code)
    return Call(plan.url or "", _frame(mail, *made), {"Content-Type": "message/rfc822"})


def _outcome(mail: Mail, plan: Plan) -> tuple[str, str | None]:
    word = mail.to.partition("@")[0].partition("-")[0].partition("+")[0].lower()
    return (WORDS[word], None) if word in WORDS else (plan.outcome, plan.code)


def _frame(mail: Mail, kind: str, human: str, fields: list[dict[str, str]]) -> bytes:
    """The report of a kind: a text for people, the fields for programs, and the mail's own headers."""
    report = MIMEMultipart("report", report_type=kind)
    report["Return-Path"] = "<>"
    report["From"] = f"Mail Delivery System <MAILER-DAEMON@{_HOST}>"
    report["To"] = mail.sender
    report["Subject"] = "Undelivered Mail Returned to Sender"
    report["Date"] = format_datetime(mail.at)
    report["Message-ID"] = f"<{mail.id}-report@{_HOST}>"
    report["Auto-Submitted"] = "auto-replied"
    report.attach(MIMEText(human, "plain", "utf-8"))
    report.attach(_fields(kind, fields))
    returned = MIMENonMultipart("text", "rfc822-headers")
    returned.set_payload(_headers(mail.content))
    report.attach(returned)
    return report.as_bytes(policy=policy.SMTP)


def _fields(kind: str, groups: list[dict[str, str]]) -> Message:
    part = Message()
    part["Content-Type"] = f"message/{kind}"
    for group in groups:
        block = Message()
        for name, value in group.items():
            block[name] = value
        part.attach(block)
    return part


def _failure(mail: Mail, outcome: str, code: str) -> tuple[str, str, list[dict[str, str]]]:
    reply = _REPLIES.get(code, f"550 {code} Refused")
    human = f"The mail could not be delivered to {mail.to}.\n{reply}\n"
    if outcome == "delayed":
        human = f"The mail for {mail.to} is put off, and will be tried again.\n{reply}\n"
    whole = {"Reporting-MTA": f"dns; {_HOST}", "Arrival-Date": format_datetime(mail.at)}
    recipient = {
        "Final-Recipient": f"rfc822; {mail.to}",
        "Action": "delayed" if outcome == "delayed" else "failed",
        "Status": code,
        "Remote-MTA": "dns; mx.example.com",
        "Diagnostic-Code": f"smtp; {reply}",
    }
    return "delivery-status", human, [whole, recipient]


def _complaint(mail: Mail) -> tuple[str, str, list[dict[str, str]]]:
    fields = {
        "Feedback-Type": "abuse",
        "User-Agent": "notify-tasks-sandbox/1",
        "Version": "1",
        "Original-Mail-From": f"<{mail.sender}>",
        "Original-Rcpt-To": f"<{mail.to}>",
        "Arrival-Date": format_datetime(mail.at),
    }
    return "feedback-report", "This is a report of a person who calls the mail spam.\r\n", [fields]


def _headers(content: bytes) -> str:
    head = content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    original = message_from_bytes(head)
    return "".join(f"{name}: {value}\n" for name, value in original.items())
