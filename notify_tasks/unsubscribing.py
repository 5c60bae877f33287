"""Links by which a person ends what they get: opaque, and nobody can make one or change one.

A link's token says whose choice it is and about what, encrypted and signed (Fernet) under keys that are derived from
the setting `secret_key` for this purpose alone. The first key makes links, all keys read them. A link has no end, since
mails are kept: it works for as long as its key is in the setting.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Final

from notify_tasks.secret_box import CannotOpen, SecretBox

PATH: Final = "/u/"
MAX_URL: Final = 900
"""Characters; a longer one does not fit into a header line (RFC 5322, section 2.1.1)."""
_PURPOSE: Final = b"notify_tasks: links to unsubscribe"


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is about: a category on a channel, for one person."""

    tenant: str
    recipient_id: str = field(repr=False)
    category: str
    channel: str


class Links:
    """Makes and reads links.

    Args:
        keys: the setting `secret_key`.
        public_url: the setting of that name; None where no links are made.
    """

    def __init__(self, keys: str, public_url: str | None) -> None:
        self._box = SecretBox(" ".join(_derived(key) for key in keys.split()))
        self._public_url = public_url

    def __repr__(self) -> str:
        return "<Links>"

    def url(self, link: Link) -> str | None:
        """The address of a link; None where no public URL is set, or it would be too long for a mail's header."""
        if self._public_url is None:
            return None
        said = json.dumps(
            [link.tenant, link.recipient_id, link.category, link.channel],
            ensure_ascii=False,
            separators=(",", ":"),
        )
        made = self._public_url + PATH + self._box.close(said).decode().rstrip("=")
        return made if len(made) <= MAX_URL else None

    def read(self, token: str) -> Link | None:
        """What a token says; None for one that is not ours."""
        if not token.isascii() or len(token) > MAX_URL:
            return None
        try:
            said = self._box.open((token + "=" * (-len(token) % 4)).encode())
        except CannotOpen:
            return None
        return Link(*json.loads(said))


def links(secret_key: str | None, public_url: str | None) -> Links | None:
    """The links of these settings; None where no key is set."""
    return None if secret_key is None else Links(secret_key, public_url)


def _derived(key: str) -> str:
    made = hmac.digest(base64.urlsafe_b64decode(key), _PURPOSE, hashlib.sha256)
    return base64.urlsafe_b64encode(made).decode()
