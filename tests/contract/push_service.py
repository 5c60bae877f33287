"""A browser and its push service, written from RFC 8030, 8188, 8291 and 8292, and from nothing of ours.

`Browser` subscribes and reads what it is sent; `PushService` answers for an `HttpPeer` and takes what is signed
for it alone.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import threading
import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.contract.http_peer import Reply, Seen


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


class Browser:
    """One browser with one subscription."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._auth = bytes(range(16))

    def subscription(self, endpoint: str) -> str:
        """As `PushSubscription.toJSON()` gives it."""
        keys = {"p256dh": b64(point(self._key)), "auth": b64(self._auth)}
        return json.dumps({"endpoint": endpoint, "expirationTime": None, "keys": keys})

    def read(self, body: bytes) -> bytes:
        """Decrypt one message: a single record of aes128gcm (RFC 8188, section 2; RFC 8291, section 3)."""
        salt, (size, length) = body[:16], struct.unpack("!LB", body[16:21])
        sender, record = body[21 : 21 + length], body[21 + length :]
        assert len(record) <= size, "more than one record"
        shared = self._key.exchange(
            ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        )
        info = b"WebPush: info\0" + point(self._key) + sender
        ikm = HKDF(hashes.SHA256(), 32, self._auth, info).derive(shared)
        key = HKDF(hashes.SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(ikm)
        nonce = HKDF(hashes.SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(ikm)
        plain = AESGCM(key).decrypt(nonce, record, None).rstrip(b"\0")
        assert plain[-1:] == b"\2", "not the last record"
        return plain[:-1]


class PushService:
    """Takes messages that a server signed for this service, with the key that the browser subscribed for.

    Args:
        server_key: the public key that the page gave to `pushManager.subscribe`, base64url.
    """

    def __init__(self, server_key: str) -> None:
        self._server_key = server_key
        self._lock = threading.Lock()
        self.signatures: list[dict[str, Any]] = []

    def __call__(self, seen: Seen) -> Reply:
        if seen.method != "POST" or not re.fullmatch(r"[0-9]+", seen.headers.get("ttl", "")):
            return Reply(400, "TTL is missing")
        if seen.headers.get("content-encoding") != "aes128gcm" or len(seen.body) > 4096:
            return Reply(413 if len(seen.body) > 4096 else 415)
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", seen.headers.get("topic", "a")):
            return Reply(400, "the topic is none")
        claims = self._claims(seen)
        if claims is None:
            return Reply(403, "the VAPID credentials do not correspond to the subscription")
        with self._lock:
            self.signatures.append(claims)
            number = len(self.signatures)
        return Reply(201, headers={"Location": f"http://{seen.headers['host']}/message/m-{number}"})

    def _claims(self, seen: Seen) -> dict[str, Any] | None:
        """What the token says, where its signature, its audience and its end are right."""
        match = re.fullmatch(r"vapid t=([^,]+), ?k=([^,]+)", seen.headers.get("authorization", ""))
        if match is None or match[2].rstrip("=") != self._server_key:
            return None
        signed, _, signature = match[1].rpartition(".")
        raw = unb64(signature)
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), unb64(match[2]))
        try:
            public.verify(
                encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")),
                signed.encode(),
                ec.ECDSA(hashes.SHA256()),
            )
        except InvalidSignature:
            return None
        header, claims = (json.loads(unb64(part)) for part in signed.split("."))
        sound = header["alg"] == "ES256" and time.time() < claims["exp"] <= time.time() + 24 * 3600
        sound = sound and claims["sub"].startswith(("mailto:", "https:"))
        return claims if sound and claims["aud"] == f"http://{seen.headers['host']}" else None
