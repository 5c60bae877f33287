"""Rooms behind the hooks of chat services.

A hook's URL has a token in it. The sandbox's services know one token each, `credentials` has them; a token with a name
behind it, `TOKEN-ops`, leads to the room of that name. A name such as `bounce-1` behaves as its first word says.

A robot of DingTalk or Feishu wants signatures. One in a room whose name is `keyword-` and a word wants that word in
each post instead.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

GENERAL: Final = "general"
"""The room of a token by itself."""
_KEYWORD: Final = "keyword-"


def room_of(token: str, known: str) -> str | None:
    """The room that a token leads to; None where the service does not know it.

    Args:
        token: as it came in the URL.
        known: the service's.
    """
    if token == known:
        return GENERAL
    name = token.removeprefix(f"{known}-")
    return name if name != token and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) else None


def keyword_of(room: str) -> str | None:
    """The word that each post to a room must have; None where signatures are wanted."""
    return room.removeprefix(_KEYWORD) if room.startswith(_KEYWORD) else None


def is_signed(given: str, key: str, signed: str) -> bool:
    """Whether a signature is base64 of HMAC-SHA256, as DingTalk and Feishu have it."""
    made = hmac.digest(key.encode(), signed.encode(), hashlib.sha256)
    return hmac.compare_digest(given.encode(), base64.b64encode(made))
