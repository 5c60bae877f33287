"""DKIM (RFC 6376): a signature on top of a mail, with which its domain answers for the bytes that go out.

Both canonicalizations are relaxed: relays on the way may fold a header anew or cut spaces at the end of a line. The
key is of RSA with 2048 to 4096 bits (RFC 8301, section 3.2) or of Ed25519 (RFC 8463). Its public half stands in the
DNS, in the TXT record `SELECTOR._domainkey.DOMAIN`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

SIGNED: Final = (
    "From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
    "Reply-To", "List-Unsubscribe", "List-Unsubscribe-Post",
)  # fmt: skip
"""The fields that a signature covers where a mail has them. RFC 8058 (section 4) asks for the last two."""

_LEAST_BITS: Final = 2048
_MOST_BITS: Final = 4096  # longer ones a verifier need not be able to read (RFC 8301, section 3.2)
_FIELD_START: Final = re.compile(rb"\r\n(?![ \t])")
_NAMES_A_LINE: Final = 4  # the longest four of SIGNED make 70 characters
_LINE: Final = 72  # characters of the signature a line: with ` b=` within the 78 that RFC 5322 recommends


@dataclass(frozen=True, slots=True)
class Key:
    """A private key that no repr or dump of attributes shows."""

    algorithm: str
    """The tag `a=`: `rsa-sha256` or `ed25519-sha256`."""
    sign: Callable[[bytes], bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs a provider's mails. Many threads may use it at once.

    Args:
        domain: signs, in ASCII. DMARC (RFC 7489, section 3.1.1) counts a signature of the domain in From, or
            of one above it.
        selector: which of the domain's keys this is.
        key: the private half.
    """

    domain: str
    selector: str
    key: Key

    def sign(self, mail: bytes, at: int) -> bytes:
        """The mail with its signature on top.

        Args:
            mail: a head, an empty line, a body; CRLF ends each line. Nobody may change it afterwards.
            at: when it is signed, in seconds since 1970.
        """
        head, _, body = mail.partition(b"\r\n\r\n")
        fields = _FIELD_START.split(head)
        there = {_name(each) for each in fields}
        # From stands there once more than the mail has it: so nobody can add a second one, which a reader might see.
        names = ["From", *(each for each in SIGNED if each.lower().encode() in there)]
        own = self._unsigned(names, body, at)
        signature = b64encode(self.key.sign(signed_data(fields, names, own)))
        lines = [signature[n : n + _LINE] for n in range(0, len(signature), _LINE)]
        return b"".join((own, b"\r\n ".join(lines), b"\r\n", mail))

    def _unsigned(self, names: Sequence[str], body: bytes, at: int) -> bytes:
        """Our field up to `b=`. Nothing comes after that tag, so emptied is what it still is."""
        lines = [":".join(names[n : n + _NAMES_A_LINE]) for n in range(0, len(names), _NAMES_A_LINE)]
        body_hash = b64encode(hashlib.sha256(relaxed_body(body)).digest()).decode()
        tags = (
            f"DKIM-Signature: v=1; a={self.key.algorithm}; c=relaxed/relaxed; t={at}",
            f"d={self.domain}; s={self.selector}",
            "h=" + ":\r\n  ".join(lines),
            f"bh={body_hash}",
            "b=",
        )
        return ";\r\n ".join(tags).encode()


def signed_data(fields: Sequence[bytes], names: Sequence[str], own: bytes) -> bytes:
    """What a signature covers of a head (RFC 6376, sections 3.7 and 5.4.2).

    Args:
        fields: of the head, each without its last line break.
        names: of the fields to cover. One that stands there again takes the next field of that name, from
            the bottom up; one that the head has no more of takes nothing.
        own: the field of the signature, its `b=` empty.
    """
    left: dict[bytes, list[bytes]] = {}
    for each in fields:
        left.setdefault(_name(each), []).append(each)
    same = (left.get(name.lower().encode()) for name in names)
    covered = [each.pop() for each in same if each]
    return b"\r\n".join(relaxed_field(each) for each in (*covered, own))


def relaxed_field(raw: bytes) -> bytes:
    """One field as it is hashed (RFC 6376, section 3.4.2), without a last line break."""
    value = raw.partition(b":")[2].replace(b"\r\n", b"")
    return _name(raw) + b":" + re.sub(rb"[ \t]+", b" ", value).strip(b" ")


def relaxed_body(body: bytes) -> bytes:
    """The body as it is hashed (RFC 6376, section 3.4.4).

    `replace` gives back what has nothing to replace, as base64 has not: an attachment of 25 MB costs no copies.
    """
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    body = body.replace(b"\t", b" ")
    while b"  " in body:
        body = body.replace(b"  ", b" ")
    body = body.replace(b" \r\n", b"\r\n")
    end = len(body)
    while body.endswith(b"\r\n\r\n", 0, end):
        end -= 2
    return b"" if body[:end] == b"\r\n" else body[:end]


def _name(raw: bytes) -> bytes:
    return raw.partition(b":")[0].rstrip(b" \t").lower()


# --- keys -------------------------------------------------------------------------------------------


def installed() -> bool:
    """Whether there is what signs: the package cryptography."""
    return importlib.util.find_spec("cryptography") is not None


def read_key(pem: str) -> Key:
    """Read a private key.

    Args:
        pem: the key, without a passphrase.

    Raises:
        ValueError: it is none, or none that verifiers take. The text goes on from the option's name and does
            not quote the key.
    """
    # Loaded for those who sign: it takes a tenth of a second.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    key, problem = None, ""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        problem = "has a passphrase; take it off with openssl pkey -in KEY.pem"
    except (ValueError, UnsupportedAlgorithm):
        problem = (
            "is no private key in PEM; give the file with its line breaks, by the variable that ends in _FILE"
        )
    if isinstance(key, ed25519.Ed25519PrivateKey):
        own = key
        # RFC 8463, section 3: the hash is what is signed.
        return Key("ed25519-sha256", lambda data: own.sign(hashlib.sha256(data).digest()))
    if isinstance(key, rsa.RSAPrivateKey):
        if _LEAST_BITS <= key.key_size <= _MOST_BITS:
            pair = key
            return Key("rsa-sha256", lambda data: pair.sign(data, padding.PKCS1v15(), hashes.SHA256()))
        problem = (
            f"is an RSA key of {key.key_size} bits; make one of {_LEAST_BITS} to {_MOST_BITS} with openssl genpkey "
            f"-algorithm rsa -pkeyopt rsa_keygen_bits:{_LEAST_BITS}"
        )
    raise ValueError(problem or "is a key of neither RSA nor Ed25519; make one with openssl genpkey")
