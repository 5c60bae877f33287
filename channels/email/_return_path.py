"""The envelope's sender of each mail: an address of its own, signed, at which only its bounces come in (VERP).

`bounce+ID.SIGNATURE@DOMAIN`: our delivery's id, and 100 bits of HMAC-SHA256 over it. Whoever returns it has seen that
one mail: its relay, the other side's server, its reader. So a report that has it can speak of that delivery and of no
other, whoever hands it in; that is all the proof there is, and it is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b32encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from channels._receipt_reading import same
from channels.contract import Refused
from channels.email._mime import domain_name
from channels.provider_options import Options, Secret

_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,35}"
_TAG: Final = 20
"""Letters of base32, 5 bits each. With an id of 36 characters the local part has its 64 (RFC 5321, 4.5.3.1.1)."""
_LEAST_KEY: Final = 16
_MOST_FOUND: Final = 100
"""Addresses of our form that are tried in one report."""


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """Writes the envelope's senders, and finds them again.

    Args:
        domain: whose mail server hands bounces over.
        keys: sign: the first one writes, each is believed.
    """

    domain: str
    keys: tuple[Secret, ...] = field(repr=False)

    def address(self, delivery_id: str) -> str:
        """The address for MAIL FROM.

        Raises:
            Refused: the id does not fit into one.
        """
        if not re.fullmatch(_ID, delivery_id, re.ASCII):
            raise Refused(
                "header",
                "the delivery id does not fit into a return path: 36 letters, digits, _ and -; mend what made it",
            )
        return f"bounce+{delivery_id}.{_tag(delivery_id, self.keys[0])}@{self.domain}"

    def find(self, texts: Iterable[str]) -> str | None:
        """The delivery whose return path stands in one of some texts, rightly signed; the first one."""
        shape = re.compile(
            rf"bounce\+({_ID})\.([a-z2-7]{{{_TAG}}})@{re.escape(self.domain)}(?![\w.-])",
            re.ASCII | re.IGNORECASE,
        )
        tried = 0
        for text in texts:
            for found in shape.finditer(text):
                tried += 1
                if tried > _MOST_FOUND:
                    return None
                delivery_id, tag = found[1], found[2].lower()
                if any(same(tag, _tag(delivery_id, key)) for key in self.keys):
                    return delivery_id
        return None


def _tag(delivery_id: str, key: Secret) -> str:
    # In lower case, and signed so: servers on the way may change a local part's case.
    signed = hmac.digest(
        key.reveal().encode(), b"return path\0" + delivery_id.lower().encode(), hashlib.sha256
    )
    return b32encode(signed).decode("ascii")[:_TAG].lower()


def read_return_path(name: str, options: Mapping[str, Any]) -> ReturnPath | None:
    """The options `bounce_domain` and `bounce_key`; None where both are missing.

    Raises:
        Misconfigured: one of them is missing or wrong.
    """
    both = ("bounce_domain", "bounce_key")
    given = Options("email.smtp", name, {each: options[each] for each in both if each in options}, both)
    text = given.optional_text("bounce_domain")
    if text is None and "bounce_key" not in options:
        return None
    if text is None:
        raise given.wrong("bounce_domain", "is missing beside bounce_key; write bounces.example.com")
    domain = domain_name(text)
    if domain is None:
        raise given.wrong("bounce_domain", "is no domain; write one such as bounces.example.com")
    keys = given.secrets("bounce_key")
    if any(len(key.reveal()) < _LEAST_KEY for key in keys):
        raise given.wrong(
            "bounce_key", f"has fewer than {_LEAST_KEY} characters; type openssl rand -hex 32, and set that"
        )
    return ReturnPath(domain.lower(), keys)
