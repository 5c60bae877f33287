"""What a sandbox's provider accounts are called and opened with. All of it is public, and none of it guards anything.

Texts and keys are made from their own names and so are the same everywhere: a compose file can write them down, and a
sandbox that starts anew still knows those who were told earlier. What depends on where a sandbox listens (URLs, the
service account's token endpoint) is made for its origin. `environment` gives everything as variables.

Names of variables: `notify sandbox` prints them, `notify.dev.toml` reads them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa


def _made(name: str) -> bytes:
    """32 bytes for a name."""
    return hashlib.sha256(f"notify-tasks sandbox: {name}".encode()).digest()


def _url64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


HOOKS: Final = "http://127.0.0.1:8080/hooks"
"""Where a fleet's gateway takes receipts in, as `notify gateway` does by itself."""

# --- texts --------------------------------------------------------------------------------------------

TWILIO_ACCOUNT_SID: Final = "AC" + _made("twilio account").hex()[:32]
TWILIO_AUTH_TOKEN: Final = _made("twilio token").hex()[:32]
TWILIO_FROM: Final = "+15005550006"
"""The sender that Twilio itself gives to those who test."""

BOUNCE_KEY: Final = _made("bounce").hex()
"""What return paths are signed with (`email.smtp`, `bounce_key`)."""

SENDGRID_API_KEY: Final = "SG.sandbox." + _url64(_made("sendgrid"))

ALIYUN_ACCESS_KEY_ID: Final = "SANDBOX" + _made("aliyun id").hex()[:16].upper()
ALIYUN_ACCESS_KEY_SECRET: Final = _made("aliyun secret").hex()[:30]

FCM_PROJECT: Final = "notify-sandbox"
FCM_CLIENT_EMAIL: Final = f"sandbox@{FCM_PROJECT}.iam.gserviceaccount.com"
FCM_TOKEN_PATH: Final = "/token"  # noqa: S105 - where tokens are asked for
FCM_FILE: Final = "fcm-service-account.json"

VAPID_SUBJECT: Final = "mailto:sandbox@example.com"
WEBPUSH_PATH: Final = "/webpush/"
"""What the path of each push subscription begins with; what follows names the browser."""

WEBHOOK_SECRET: Final = "whsec_" + base64.b64encode(_made("webhook")).decode("ascii")
WEBHOOK_PATH: Final = "/webhooks/"
"""What the path of each customer's endpoint begins with; what follows names the customer."""

SLACK_TOKEN: Final = "xoxb-sandbox-" + _made("slack token").hex()[:24]
SLACK_HOOK_PATH: Final = f"/services/TSANDBOX/BSANDBOX/{_made('slack hook').hex()[:24]}"
TEAMS_WORKFLOW: Final = _made("teams workflow").hex()[:32]
TEAMS_SIGNATURE: Final = _url64(_made("teams signature"))
DINGTALK_TOKEN: Final = _made("dingtalk token").hex()
DINGTALK_SECRET: Final = "SEC" + _made("dingtalk secret").hex()
FEISHU_TOKEN: Final = _made("feishu token").hex()[:36]
FEISHU_SECRET: Final = _url64(_made("feishu secret"))[:22]
WECOM_KEY: Final = _made("wecom key").hex()[:36]


def chat_hooks(origin: str, room: str = "") -> dict[str, str]:
    """The hook of each chat service, by its wire's name.

    Args:
        origin: of the sandbox, `https://HOST:PORT`.
        room: that it posts into; one such as `bounce-1` behaves as its first word says.
    """
    room = room and f"-{room}"
    teams = f"/workflows/{TEAMS_WORKFLOW}{room}/triggers/manual/paths/invoke"
    paths = {
        "slack": f"{SLACK_HOOK_PATH}{room}",
        "teams": f"{teams}?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={TEAMS_SIGNATURE}",
        "dingtalk": f"/robot/send?access_token={DINGTALK_TOKEN}{room}",
        "feishu": f"/open-apis/bot/v2/hook/{FEISHU_TOKEN}{room}",
        "wecom": f"/cgi-bin/webhook/send?key={WECOM_KEY}{room}",
    }
    return {name: origin + path for name, path in paths.items()}


# --- keys ---------------------------------------------------------------------------------------------

# The two primes of the service account's RSA key.
_P: Final = int(
    "c874cf49daa3b47a2522d5f33598ef6a2ec79cee96e9750bd6e310cb23628dc4a13d1971c894e21b0f4b9e"
    "b75c2b78e65c3505cfe55c2e2f8cbd8edfa022b53f261a212eb21d7e3e3b6b8ea0516d800e7a591ad660ac"
    "e415dbd261e97a6057d489b30bbcc173d0896381468d9bcd40606aa25abe78ebe31e944b649eca74dc63",
    16,
)
_Q: Final = int(
    "c5323511f8588227e15434c9fbc1d7356fb3141c83556579d253d6b9d5c82c717c661728502bf5bbd70d55"
    "1a71f713ccbba6374f65b3c10440122c4657149f3d03abcfb3fe8aef67721867df7feb11af5d68dc1f8406"
    "33ee8f960d4fcf26fce46c07bb981a5183398c086683a2a3617ae5a35a79f82ec3e2b0700b34f0e29a05",
    16,
)
_E: Final = 65537


def _curve_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(_made(name)), ec.SECP256R1())


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


@cache
def fcm_key() -> rsa.RSAPrivateKey:
    """The service account's key: signs what is given for an access token (RS256)."""
    d = pow(_E, -1, (_P - 1) * (_Q - 1))
    public = rsa.RSAPublicNumbers(_E, _P * _Q)
    numbers = rsa.RSAPrivateNumbers(
        _P, _Q, d, rsa.rsa_crt_dmp1(d, _P), rsa.rsa_crt_dmq1(d, _Q), rsa.rsa_crt_iqmp(_P, _Q), public
    )
    # They are right, and checking them takes as long as all the rest of a start.
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@cache
def sendgrid_webhook_key() -> ec.EllipticCurvePrivateKey:
    """The key that SendGrid's events are signed with."""
    return _curve_key("sendgrid webhook")


@cache
def vapid_key() -> ec.EllipticCurvePrivateKey:
    """The key that web push messages are signed with (RFC 8292)."""
    return _curve_key("vapid")


@cache
def browser_key() -> ec.EllipticCurvePrivateKey:
    """The key of every browser that the sandbox plays: it opens what is sent to `webpush_subscription`."""
    return _curve_key("browser")


BROWSER_AUTH: Final = _made("browser auth")[:16]
"""The secret that those browsers share with the sender (RFC 8291, section 3.2)."""


def sendgrid_webhook_public_key() -> str:
    """The verification key as SendGrid's console shows it: DER in base64."""
    der = (
        sendgrid_webhook_key()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return base64.b64encode(der).decode("ascii")


def vapid_private_key() -> str:
    """The 32 bytes of the key, base64url, as tools for VAPID write them."""
    return _url64(vapid_key().private_numbers().private_value.to_bytes(32))


def vapid_public_key() -> str:
    """What a browser subscribes with (`applicationServerKey`): the point, base64url."""
    return _url64(_point(vapid_key().public_key()))


def webpush_subscription(origin: str, browser: str) -> str:
    """The address of a browser that the sandbox plays, as `PushSubscription.toJSON()` writes it.

    Args:
        origin: of the sandbox, `https://HOST:PORT`.
        browser: its name; one such as `bounce-1` behaves as its first word says.
    """
    return json.dumps(
        {
            "endpoint": f"{origin}{WEBPUSH_PATH}{browser}",
            "expirationTime": None,
            "keys": {"p256dh": _url64(_point(browser_key().public_key())), "auth": _url64(BROWSER_AUTH)},
        }
    )


def fcm_service_account(origin: str) -> dict[str, Any]:
    """The document that the Firebase console would give, with the sandbox's token endpoint in it."""
    pem = fcm_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": FCM_PROJECT,
        "private_key_id": _made("fcm key id").hex()[:40],
        "private_key": pem.decode("ascii"),
        "client_email": FCM_CLIENT_EMAIL,
        "client_id": "100000000000000000000",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": origin + FCM_TOKEN_PATH,
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "universe_domain": "googleapis.com",
    }


# --- variables ----------------------------------------------------------------------------------------


def write_files(directory: Path, origin: str) -> None:
    """Write the files that variables name.

    Args:
        directory: of the sandbox.
        origin: `https://HOST:PORT` under which clients call it.
    """
    path = directory / FCM_FILE
    path.touch(mode=0o600)
    path.write_text(json.dumps(fcm_service_account(origin), indent=2) + "\n", encoding="ascii")


def environment(directory: Path, origin: str, hooks: str = HOOKS) -> Mapping[str, str]:
    """The variables of the accounts, by name.

    Args:
        directory: where `write_files` wrote.
        origin: `https://HOST:PORT` under which clients call the sandbox.
        hooks: of the fleet's gateway, which receipts go to.
    """
    rooms = {f"SANDBOX_{name.upper()}_HOOK": url for name, url in chat_hooks(origin).items()}
    return {
        "SANDBOX_URL": origin,
        "SANDBOX_BOUNCE_KEY": BOUNCE_KEY,
        "SANDBOX_SENDGRID_API_KEY": SENDGRID_API_KEY,
        "SANDBOX_SENDGRID_WEBHOOK_KEY": sendgrid_webhook_public_key(),
        "SANDBOX_TWILIO_ACCOUNT_SID": TWILIO_ACCOUNT_SID,
        "SANDBOX_TWILIO_AUTH_TOKEN": TWILIO_AUTH_TOKEN,
        "SANDBOX_TWILIO_CALLBACK": f"{hooks}/twilio",
        "SANDBOX_ALIYUN_ACCESS_KEY_ID": ALIYUN_ACCESS_KEY_ID,
        "SANDBOX_ALIYUN_ACCESS_KEY_SECRET": ALIYUN_ACCESS_KEY_SECRET,
        "SANDBOX_FCM_CREDENTIALS_FILE": str((directory / FCM_FILE).absolute()),
        "SANDBOX_VAPID_PRIVATE_KEY": vapid_private_key(),
        "SANDBOX_VAPID_PUBLIC_KEY": vapid_public_key(),
        "SANDBOX_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "SANDBOX_SLACK_TOKEN": SLACK_TOKEN,
        **rooms,
        "SANDBOX_DINGTALK_SECRET": DINGTALK_SECRET,
        "SANDBOX_FEISHU_SECRET": FEISHU_SECRET,
    }
