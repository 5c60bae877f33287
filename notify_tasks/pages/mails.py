"""A mail for the eye: its parts, and its HTML made safe to show.

What keeps a hostile mail in its frame is the policy that the frame is served with (`serving.framed_policy`): no
script, no network, an origin of its own. Here only is cut what that policy does not cover, and what a reader asks for
is put in: pictures that the mail itself carries, one colour scheme or the other, pictures switched off.
"""

from __future__ import annotations

import base64
import email
import email.policy
import json
import re
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Final

# "<link" opens connections before any policy is asked (preconnect); "<base" and "<meta" turn links, charset and
# colour scheme. Without the name right after "<" there is no such tag, whatever tricks follow.
_CUT: Final = re.compile(r"<(?=(?:link|base|meta|portal|fencedframe)\b)", re.IGNORECASE)
_SCHEME: Final = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)", re.IGNORECASE)
_CID: Final = re.compile(r"(?<=[\"'(=])\s*cid:([^\"')\s>]+)", re.IGNORECASE)
_REMOTE: Final = re.compile(
    r"""(?:<img\b[^<>]*?\bsrc\s*=\s*["']?|\burl\(\s*["']?|\bbackground\s*=\s*["']?)(?:https?:)?//""",
    re.IGNORECASE,
)
_SHOWN_PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})
_HEAD: Final = (
    '<!DOCTYPE html><meta charset="utf-8"><base target="_blank"><style>:root{{color-scheme:{scheme}}}</style>'
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a mail."""

    name: str
    kind: str
    data: bytes = field(repr=False)
    content_id: str | None = None


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail's parts.

    Args:
        headers: in their order, decoded.
        html: None where there is none.
        text: None where there is none.
        attachments: every part that is a file, also the pictures that `html` shows.
    """

    subject: str = field(repr=False)
    sender: str = field(repr=False)
    to: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    text: str | None = field(repr=False)
    html: str | None = field(repr=False)
    attachments: tuple[Attachment, ...] = ()

    @property
    def remote_pictures(self) -> int:
        """How many pictures `html` would load from elsewhere."""
        return len(_REMOTE.findall(self.html or ""))

    @property
    def knows_dark(self) -> bool:
        """Whether `html` has colours for a dark scheme. One that has none stays light, as most clients show it."""
        return "color-scheme" in (self.html or "").lower()


def parse_mail(raw: bytes) -> Mail:
    """Read a mail as it came over SMTP (RFC 5322). Whatever is broken in it, there is something to show."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    headers = tuple((name, _safely(message, name, value)) for name, value in message.raw_items())
    by_name = {name.lower(): value for name, value in reversed(headers)}
    text = html = None
    attachments: list[Attachment] = []
    for part in message.walk():
        if part.is_multipart():
            continue
        kind = part.get_content_type()
        file = part.get_filename()
        body = (
            kind in {"text/plain", "text/html"}
            and file is None
            and part.get_content_disposition() != "attachment"
        )
        if body and kind == "text/html" and html is None:
            html = _decoded(part)
        elif body and kind == "text/plain" and text is None:
            text = _decoded(part)
        else:
            attachments.append(_attachment(part, kind, file, len(attachments) + 1))
    return Mail(
        subject=by_name.get("subject", ""),
        sender=by_name.get("from", ""),
        to=by_name.get("to", ""),
        headers=headers,
        text=text,
        html=html,
        attachments=tuple(attachments),
    )


def mail_of_request(to: str, body: dict[str, Any], headers: tuple[tuple[str, str], ...]) -> Mail:
    """A mail that came to the HTTP far end, as `email.sandbox` sends it."""
    content = body.get("content")
    content = content if isinstance(content, dict) else {}
    html, text = content.get("html"), content.get("text")
    given = content.get("attachments")
    return Mail(
        subject=str(content.get("subject") or ""),
        sender="",
        to=to,
        headers=headers,
        text=None if text is None else str(text),
        html=None if html is None else str(html),
        attachments=tuple(
            _attached(each) for each in (given if isinstance(given, list) else ()) if isinstance(each, dict)
        ),
    )


def framed(mail: Mail, *, scheme: str, pictures: bool) -> str:
    """The HTML to serve into the frame.

    Args:
        mail: the mail; one without HTML gives an empty document.
        scheme: `light` or `dark`: what the mail's own media queries are answered.
        pictures: show the ones that the mail carries. Those of elsewhere are never loaded.
    """
    scheme = scheme if mail.knows_dark else "light"
    html = _CUT.sub("<no-", mail.html or "")
    html = _SCHEME.sub(lambda found: "(min-width:0)" if found[1].lower() == scheme else "(max-width:0)", html)
    if pictures:
        carried = {
            it.content_id: it for it in mail.attachments if it.content_id and it.kind in _SHOWN_PICTURES
        }
        html = _CID.sub(lambda found: _data_url(carried.get(found[1]), found[0]), html)
    # The doctype comes first, so that the mail's own one is ignored and standards mode is sure.
    return _HEAD.format(scheme=scheme) + html


def _safely(message: EmailMessage, name: str, raw: str) -> str:
    """A header decoded; one that cannot be is shown as it came."""
    try:
        return str(message.policy.header_fetch_parse(name, raw))
    except Exception:  # noqa: BLE001 - the standard library's parser raises whatever it likes for broken headers
        return raw.replace("\r", "").replace("\n", "")


def _decoded(part: EmailMessage) -> str:
    data = part.get_payload(decode=True)
    raw = data if isinstance(data, bytes) else b""
    try:
        return raw.decode(part.get_content_charset("utf-8"), "replace").replace("\r\n", "\n")
    except LookupError:  # a charset that nobody knows
        return raw.decode("utf-8", "replace").replace("\r\n", "\n")


def _attachment(part: EmailMessage, kind: str, name: str | None, number: int) -> Attachment:
    data = part.get_payload(decode=True)
    content_id = part.get("Content-ID")
    return Attachment(
        name=name or f"part-{number}",
        kind=kind,
        data=data if isinstance(data, bytes) else b"",
        content_id=str(content_id).strip().strip("<>") if content_id else None,
    )


def _attached(values: dict[str, Any]) -> Attachment:
    """One of a request's JSON: its bytes travel in base64."""
    try:
        raw = base64.b64decode(str(values.get("content") or ""), validate=True)
    except ValueError:
        raw = b""
    return Attachment(
        str(values.get("name") or "attachment"), str(values.get("type") or "application/octet-stream"), raw
    )


def _data_url(attachment: Attachment | None, otherwise: str) -> str:
    if attachment is None:
        return otherwise
    return f"data:{attachment.kind};base64,{base64.b64encode(attachment.data).decode()}"


def parse_json(raw: bytes) -> dict[str, Any]:
    """The object in a request's body; an empty one where it is none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
