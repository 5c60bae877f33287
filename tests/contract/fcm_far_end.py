"""FCM's HTTP v1 API and Google's token endpoint, as their documentation says, for `HttpPeer` to answer with.

`Google` gives a token for an assertion that its service account has signed (RFC 7523), and takes a message that
brings this token, checking what FCM checks. Nothing here is of ours or of the SDK's.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import threading
import time
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.contract.http_peer import Reply, Seen

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
SCOPES = {f"https://www.googleapis.com/auth/{each}" for each in ("firebase.messaging", "cloud-platform")}
"""Either allows to send."""


@functools.cache
def key(number: int = 0) -> rsa.RSAPrivateKey:
    """A key of a service account; made once for a number."""
    return rsa.generate_private_key(65537, 2048)


def pem(number: int = 0) -> str:
    return (
        key(number)
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
    )


def account(token_uri: str, project: str = "shop-1", number: int = 0) -> str:
    """A service account as the console's JSON file has it."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": project,
            "private_key_id": "0f1e2d",
            "private_key": pem(number),
            "client_email": f"sender@{project}.iam.gserviceaccount.com",
            "client_id": "1048",
            "token_uri": token_uri,
        }
    )


def error(status: int, word: str, message: str = "no", *details: dict[str, Any]) -> dict[str, Any]:
    """A body of an error, in the form of Google's APIs."""
    found: dict[str, Any] = {"code": status, "message": message, "status": word}
    if details:
        found["details"] = list(details)
    return {"error": found}


def fcm(code: str) -> dict[str, str]:
    return {"@type": FCM_ERROR, "errorCode": code}


def violation(field: str) -> dict[str, Any]:
    return {"@type": BAD_REQUEST, "fieldViolations": [{"field": field, "description": "Invalid value"}]}


class Google:
    """The two servers of one project.

    Args:
        project: whose messages are taken.
        number: which key its account signs with.
        token_uri: what the assertion must be for; None: whatever it says.
    """

    def __init__(self, project: str = "shop-1", number: int = 0, token_uri: str | None = None) -> None:
        self._project = project
        self._public = key(number).public_key()
        self._token_uri = token_uri
        self._lock = threading.Lock()
        self._tokens: list[str] = []
        self.messages: list[dict[str, Any]] = []

    @property
    def tokens(self) -> int:
        """How many were given."""
        return len(self._tokens)

    def token(self, seen: Seen) -> Reply:
        form = parse_qs(seen.body.decode())
        if form.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"]:
            return Reply(400, {"error": "unsupported_grant_type"})
        try:
            claims = self._claims(form["assertion"][0])
        except (InvalidSignature, KeyError, ValueError):
            return Reply(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        sound = (
            bool(SCOPES & set(claims["scope"].split())) and claims["iat"] <= time.time() + 5 < claims["exp"]
        )
        if not sound or (self._token_uri is not None and claims["aud"] != self._token_uri):
            return Reply(400, {"error": "invalid_grant"})
        with self._lock:
            self._tokens.append(f"ya29.access-{self._project}-{len(self._tokens)}-493817")
            token = self._tokens[-1]
        return Reply(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def send(self, seen: Seen) -> Reply:
        if seen.method != "POST" or seen.target != f"/v1/projects/{self._project}/messages:send":
            return Reply(404, error(404, "NOT_FOUND"))
        if seen.headers.get("authorization", "").removeprefix("Bearer ") not in self._tokens:
            return Reply(401, error(401, "UNAUTHENTICATED"))
        message = json.loads(seen.body)["message"]
        for name, value in message.get("data", {}).items():
            if not isinstance(value, str) or re.fullmatch(r"from|message_type|(google|gcm)(\..*)?", name):
                return Reply(400, error(400, "INVALID_ARGUMENT", "no", violation(f"message.data[{name}]")))
        payload = {part: message.get(part, {}) for part in ("notification", "data")}
        if (
            sum(len(k.encode()) + len(str(v).encode()) for part in payload.values() for k, v in part.items())
            > 4096
        ):
            return Reply(
                400, error(400, "INVALID_ARGUMENT", "Android message is too big", fcm("INVALID_ARGUMENT"))
            )
        if not message.get("token"):
            return Reply(400, error(400, "INVALID_ARGUMENT", "Recipient of the message is not set."))
        with self._lock:
            self.messages.append(message)
            number = len(self.messages)
        return Reply(200, {"name": f"projects/{self._project}/messages/0:{number}"})

    def _claims(self, assertion: str) -> dict[str, Any]:
        signed, _, signature = assertion.rpartition(".")
        self._public.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        claims: dict[str, Any] = json.loads(_decoded(signed.split(".")[1]))
        return claims


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
