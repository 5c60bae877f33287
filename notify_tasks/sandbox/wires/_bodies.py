"""What several wires read and write alike: JSON bodies, one value of a query, plain answers, signed tokens."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature

from notify_tasks.sandbox.wires.wire import Reply, Request

_PARTS_OF_A_TOKEN: Final = 3


def json_object(body: bytes) -> dict[str, Any] | None:
    """The object that a body is; None where it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def one(request: Request, name: str) -> str:
    """The first value of a name in the query; empty where it has none."""
    return next(iter(request.query.get(name, ())), "")


def plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer in plain text."""
    return Reply(status, text.encode(), {"Content-Type": "text/plain; charset=utf-8", **(headers or {})})


def decoded(text: str) -> bytes:
    """Base64url without its padding (RFC 7515, section 2).

    Raises:
        ValueError: it is none.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("this is no base64url") from None


def claims(token: str, algorithm: str, verify: Callable[[bytes, bytes], None]) -> dict[str, Any] | None:
    """What a signed token says (RFC 7519, in the compact form of RFC 7515); None where it is none, or not signed so.

    Args:
        token: as it came.
        algorithm: that its header must name. What the token itself asks for is not obeyed.
        verify: raises InvalidSignature or ValueError unless its first argument is the signature of its second.
    """
    parts = token.split(".")
    if len(parts) != _PARTS_OF_A_TOKEN:
        return None
    try:
        header, payload, signature = (decoded(part) for part in parts)
        verify(signature, f"{parts[0]}.{parts[1]}".encode())
    except (InvalidSignature, ValueError):
        return None
    head, found = json_object(header), json_object(payload)
    return found if head is not None and head.get("alg") == algorithm else None
