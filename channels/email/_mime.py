"""Addresses and messages as they go over the wire: checked, encoded, and unable to carry a second header.

Parts are assembled by hand, since the header machinery of `email.message` costs more CPU than sending does.
It would also not protect us: `EmailMessage` decodes an encoded word in a subject and writes the line breaks
inside it as header lines, and it lets a trailing line break through. So whatever comes from outside is
checked against a closed grammar (addresses, ids, media types, URLs) or encoded so that no line break can survive (the
subject, RFC 2047; file names, RFC 2231; the bodies, RFC 2045).
"""

from __future__ import annotations

import binascii
import contextlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.header import Header
from email.utils import format_datetime, formataddr, getaddresses
from urllib.parse import quote

from channels.contract import AddressInvalid, Attachment, EmailContent, Message, Refused

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
# A quoted local part may hold dots anywhere: some old mailboxes do. Anything else between quotes stays out.
_LOCAL = re.compile(rf'[{_ATEXT}]+(?:\.[{_ATEXT}]+)*|"[{_ATEXT}.]+"')
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DELIVERY_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_BREAKS_A_HEADER = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")

_ADDRESS_MAX = 254  # octets: a path is at most 256 with its brackets (RFC 5321 section 4.5.3.1.3)
_LOCAL_MAX = 64  # octets (RFC 5321 section 4.5.3.1.1)
# A token (RFC 2045 section 5.1) on either side of the slash; composite types hold parts, which ours are not.
_TYPE_WORD = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,127}"
_MEDIA_TYPE = re.compile(rf"(?!multipart/|message/){_TYPE_WORD}/{_TYPE_WORD}", re.ASCII | re.IGNORECASE)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9 !#$&+,.;=@^_`{}~()\[\]-]{1,40}", re.ASCII)
_ENCODED_NAME_MAX = 56  # characters of an encoded piece: with ` filename*10*=utf-8''` and `;` within 78

# RFC 3986 without a user or a fragment. A comma and brackets are safe: the field has its URL between < and >.
_ONE_CLICK_URL = re.compile(
    rf"https://{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?(?:[/?][A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]*)?",
    re.ASCII,
)
_URL_MAX = 900  # characters: with its name, within the 998 of one line (RFC 5322, section 2.1.1)

_PLAIN_SUBJECT_MAX = 66  # characters: with "Subject: " within the 78 that RFC 5322 section 2.1.1 recommends


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One checked address: `address` is `local@domain` with the domain in ASCII (IDNA 2008)."""

    address: str = field(repr=False)
    ascii: bool
    """False: the local part needs SMTPUTF8 (RFC 6531)."""

    @property
    def domain(self) -> str:
        """The part after the @."""
        return self.address.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What is the same in every mail of a provider.

    Args:
        sender: the value of From, as `named_mailbox` gives it.
        reply_to: the value of Reply-To, or None.
        message_id_domain: the domain to the right of the @ in each Message-ID.
    """

    sender: str
    reply_to: str | None
    message_id_domain: str

    def compose(self, message: Message, content: EmailContent, to: Mailbox) -> bytes:
        """The message in CRLF lines of at most 78 bytes (an address or a URL may make its own line longer).

        Message-ID depends on the delivery alone, so that a repeated mail is the same mail to its reader.

        Raises:
            Refused: the subject, the delivery id or the URL to unsubscribe cannot stand in a header, or the
                content is not Unicode.
        """
        if not _DELIVERY_ID.fullmatch(message.delivery_id):
            raise Refused("header", "the delivery id cannot stand in a header; mend what made it")
        headers = [
            f"From: {self.sender}",
            f"To: {to.address}",
            f"Subject: {_subject(content.subject)}",
            f"Date: {format_datetime(datetime.now(UTC))}",
            f"Message-ID: <{message.delivery_id}@{self.message_id_domain}>",
            f"X-Notify-Delivery: {message.delivery_id}",
            "Auto-Submitted: auto-generated",  # RFC 3834: keeps out-of-office answers away
            "MIME-Version: 1.0",
        ]
        if self.reply_to is not None:
            headers.insert(1, f"Reply-To: {self.reply_to}")
        headers += [f"{name}: {value}" for name, value in unsubscribing(content).items()]
        head = "\r\n".join(headers).encode()
        body = [_part("plain", content.text)]
        if content.html is not None:
            body = _multipart("alternative", [*body, _part("html", content.html)])
        if content.attachments:
            body = _multipart("mixed", [b"".join(body), *(_attached(each) for each in content.attachments)])
        return b"".join((head, b"\r\n", *body, b"\r\n"))


def mailbox(address: str) -> Mailbox:
    """Check one address: a single addr-spec without display name, comments, spaces or control characters.

    Raises:
        AddressInvalid: it is not one. The error does not quote it.
    """
    local, at, domain = address.rpartition("@")
    if at and len(address) <= _ADDRESS_MAX:
        ascii_domain = domain_name(domain)
        # A printable character beyond ASCII may stand wherever a letter may (RFC 6531 section 3.3).
        shape = local if local.isascii() else "".join("x" if _is_letter(each) else each for each in local)
        if ascii_domain and _LOCAL.fullmatch(shape):
            whole = f"{local}@{ascii_domain}"
            if len(local.encode()) <= _LOCAL_MAX and len(whole.encode()) <= _ADDRESS_MAX:
                return Mailbox(whole, ascii=local.isascii())
    raise AddressInvalid("syntax", "this is not one e-mail address; correct it where the recipient is kept")


def _is_letter(character: str) -> bool:
    return not character.isascii() and character.isprintable()


def unsubscribing(content: EmailContent) -> dict[str, str]:
    """The header fields with which a mail program unsubscribes in one click (RFC 2369, RFC 8058).

    Empty where there is no URL: a one-time code, say, is no subscription.

    Raises:
        Refused: the URL is not https, or cannot stand in a header. The error does not quote it: it has a token.
    """
    url = content.unsubscribe
    if url is None:
        return {}
    if len(url) > _URL_MAX or not _ONE_CLICK_URL.fullmatch(url):
        raise Refused(
            "header",
            f"content.unsubscribe is no https:// URL of {_URL_MAX} ASCII characters at most; mend what made it",
        )
    return {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}


def domain_name(domain: str) -> str | None:
    """The domain in ASCII (IDNA 2008 after the mapping of UTS 46), or None where it is not a domain."""
    if not domain.isascii():
        # Not Python's own "idna" codec: it follows IDNA 2003 and would send strasse.example the mail of
        # straße.example. Imported here because its tables are large and few addresses need them.
        import idna  # noqa: PLC0415

        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError:
            return None
    return domain if _DOMAIN.fullmatch(domain) else None


def named_mailbox(text: str) -> tuple[str, Mailbox]:
    """Read `Name <addr>` or a bare address. Returns it as a header value, and the address alone.

    Raises:
        ValueError: it is not exactly one address, or has control characters.
    """
    found = getaddresses([text])
    if len(found) != 1 or _BREAKS_A_HEADER.search(text):
        raise ValueError("not exactly one address; put quotes around a name that holds a comma")
    name, address = found[0]
    try:
        box = mailbox(address)
    except AddressInvalid:
        box = Mailbox("", ascii=False)
    if not box.ascii:
        raise ValueError("not an address that every mail server takes")
    if name.isascii():
        return formataddr((name, box.address)), box
    return f"{Header(name, 'utf-8', header_name='Reply-To').encode(linesep=_FOLD)} <{box.address}>", box


_FOLD = "\r\n"


def _subject(subject: str) -> str:
    """The subject as a header value; encoded words of RFC 2047 unless it is short, plain ASCII."""
    if _BREAKS_A_HEADER.search(subject):
        raise Refused("header", "the subject has a line break or control character; mend its template")
    subject = subject.strip()
    # "=?" would be taken for an encoded word by the reader: so it becomes part of one.
    if subject.isascii() and "=?" not in subject and len(subject) <= _PLAIN_SUBJECT_MAX:
        return subject
    return Header(subject, "utf-8", header_name="Subject").encode(linesep=_FOLD)


def _multipart(subtype: str, parts: list[bytes]) -> list[bytes]:
    """Parts in one (RFC 2046 section 5.1), in pieces, so that attachments are copied once only."""
    # "=_" occurs in neither encoding, so no part can contain the boundary (RFC 2045 section 6.7).
    mark = b"=_" + secrets.token_hex(12).encode()
    pieces = [b"Content-Type: multipart/" + subtype.encode() + b'; boundary="' + mark + b'"\r\n']
    for part in parts:
        pieces += (b"\r\n--" + mark + b"\r\n", part)
    pieces.append(b"\r\n--" + mark + b"--")
    return pieces


def _attached(attachment: Attachment) -> bytes:
    """One attachment as a part (RFC 2183), its bytes kept as they are."""
    if not _MEDIA_TYPE.fullmatch(attachment.type):
        raise Refused("header", "the media type of an attachment cannot stand in a header; mend the call")
    charset = ""
    if attachment.type.lower().startswith("text/"):
        with contextlib.suppress(
            UnicodeDecodeError
        ):  # without a charset, a reader takes it for ASCII or guesses
            attachment.content.decode()
            charset = "; charset=utf-8"
    head = (
        f"Content-Type: {attachment.type}{charset}\r\n"
        f"Content-Disposition: attachment;{_file_name(attachment.name)}\r\n"
        "Content-Transfer-Encoding: base64\r\n\r\n"
    )
    return head.encode() + _base64_lines(attachment.content)


def _file_name(name: str) -> str:
    """The parameter `filename`, on lines of its own: quoted where it is plain, else by RFC 2231.

    A long name goes in numbered pieces (section 3), each in whole characters, since readers decode them one by one.
    """
    if _PLAIN_NAME.fullmatch(name):
        return f'{_FOLD} filename="{name}"'
    pieces = [""]
    try:
        for character in name:
            encoded = quote(character, safe="!#$&+-.^_`|~")
            if len(pieces[-1]) + len(encoded) > _ENCODED_NAME_MAX:
                pieces.append("")
            pieces[-1] += encoded
    except UnicodeEncodeError:
        pieces = []
    if not pieces:  # here, so that the error with the name in it does not become the context of ours
        raise Refused("header", "the name of an attachment has half a character; mend the call")
    if len(pieces) == 1:
        return f"{_FOLD} filename*=utf-8''{pieces[0]}"
    pieces[0] = f"utf-8''{pieces[0]}"
    return ";".join(f"{_FOLD} filename*{n}*={each}" for n, each in enumerate(pieces))


def _base64_lines(raw: bytes) -> bytes:
    """Base64 in lines of 76 characters (RFC 2045 section 6.8)."""
    wrapped = binascii.b2a_base64(raw, newline=False)
    return b"\r\n".join(wrapped[at : at + 76] for at in range(0, len(wrapped), 76))


def _part(subtype: str, body: str) -> bytes:
    """One text part with its headers; without the line break that belongs to the boundary."""
    lines = body.replace("\r\n", "\n").replace("\r", "\n")
    raw = None
    with contextlib.suppress(UnicodeEncodeError):
        raw = lines.encode()
    if raw is None:
        raise Refused(
            "content", f"the {subtype} part has half a character (a lone surrogate); mend the payload"
        )
    # Base64 is the shorter one where many characters are not ASCII; else quoted-printable stays readable.
    if len(raw) > len(lines) * 1.15:
        encoding = b"base64"
        data = _base64_lines(raw.replace(b"\n", b"\r\n"))
    else:
        encoding = b"quoted-printable"
        data = binascii.b2a_qp(raw, istext=True).replace(b"\n", b"\r\n")
    return b"".join(
        (
            b"Content-Type: text/" + subtype.encode() + b"; charset=utf-8\r\nContent-Transfer-Encoding: ",
            encoding + b"\r\n\r\n" + data,
        )
    )
