"""How a browser opens a web push message: one record of aes128gcm (RFC 8188), keyed as RFC 8291 says."""

from __future__ import annotations

import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SALT: Final = 16
_HEAD: Final = 21
"""Bytes of salt, record size and the length of the sender's key."""
_LAST: Final = 2
"""The delimiter that ends the last record's text, before its padding."""


def opened(body: bytes, key: ec.EllipticCurvePrivateKey, auth: bytes) -> bytes | None:
    """The text of a message; None where these keys do not open it.

    Args:
        body: of the request.
        key: the browser's.
        auth: the secret that the browser shares with the sender.
    """
    if len(body) < _HEAD:
        return None
    salt, (size, length) = body[:_SALT], struct.unpack("!LB", body[_SALT:_HEAD])
    sender, record = body[_HEAD : _HEAD + length], body[_HEAD + length :]
    if len(record) > size:  # a push message has one record (RFC 8291, section 4)
        return None
    try:
        other = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        own = key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        shared = _derived(
            key.exchange(ec.ECDH(), other), auth, b"WebPush: info\0" + own + sender, hashes.SHA256.digest_size
        )
        content = _derived(shared, salt, b"Content-Encoding: aes128gcm\0", 16)
        nonce = _derived(shared, salt, b"Content-Encoding: nonce\0", 12)
        padded = AESGCM(content).decrypt(nonce, record, None).rstrip(b"\0")
    except (InvalidTag, ValueError):
        return None
    return padded[:-1] if padded[-1:] == bytes([_LAST]) else None


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)
