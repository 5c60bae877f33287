"""`notify`, where providers whose name begins with `reporting` are this file's: signed with an HMAC, told in JSON.

What real providers send, and how it is signed, is the contract tests' matter.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from channels import loader
from channels.contract import Accepted, Capability, Deadline, Message, Provider
from channels.receipts import Event, Fate, Forged, Receipt, Standing, Unreadable

SECRET_VARIABLE = "REPORTING_SECRET"
STATUSES = {fate.value: fate for fate in Fate}
STANDINGS = {
    "stop": Standing.OPTED_OUT,
    "start": Standing.OPTED_IN,
    "spam": Standing.COMPLAINED,
    "dead": Standing.INVALID,
}


def signature(secret: str, query: str, body: bytes) -> str:
    """The header `X-Signature`: over the query as it was called and the body, a line each."""
    return hmac.digest(secret.encode(), query.encode() + b"\n" + body, hashlib.sha256).hex()


class ReportingProvider:
    """A provider that reports back."""

    capability = Capability.OPAQUE

    def __init__(self, secret: str, *, newer: bool = False) -> None:
        self._secret = secret
        self._statuses = STATUSES | ({"novel": Fate.DELIVERED} if newer else {})

    def send(self, message: Message, deadline: Deadline) -> Accepted:
        """Nothing is sent through it."""
        raise NotImplementedError(message.delivery_id, deadline)

    def close(self) -> None:
        """There is nothing to close."""

    def verify(self, receipt: Receipt) -> None:
        if receipt.method == "PIPE":
            if b"forged" in receipt.body:
                raise Forged("return_path", "it has no return path of ours")
            return
        right = signature(self._secret, receipt.query, receipt.body)
        given = receipt.header("X-Signature")
        if not given:
            raise Forged("missing_header", "X-Signature is missing")
        if not hmac.compare_digest(right.encode(), given.encode()):
            raise Forged("signature", "the signature is not that of secret")

    def events(self, receipt: Receipt) -> Sequence[Event]:
        if receipt.body == b"a fault of ours":
            raise KeyError("private words")
        try:
            said: list[dict[str, Any]] = json.loads(receipt.body)
        except ValueError:
            raise Unreadable("it is no JSON") from None
        return [self._event(it) for it in said]

    def _event(self, said: Mapping[str, Any]) -> Event:
        status = said.get("status", "")
        return Event(
            id=said["id"],
            code=status or said.get("says", ""),
            fate=self._statuses.get(status),
            standing=STANDINGS.get(said.get("says", "")),
            known=not status or status in self._statuses,
            delivery_id=said.get("delivery"),
            address=said.get("address"),
            at=datetime.fromisoformat(said["at"]) if "at" in said else None,
        )


class AnsweringProvider(ReportingProvider):
    """Wants to read something."""

    receipt_answer = b'{"code":0}'


def patch() -> None:
    """Let the loader build these."""
    real = loader.load

    def load(use: str, name: str, options: Mapping[str, Any]) -> Provider:
        if not name.startswith("reporting"):
            return real(use, name, options)
        kind = AnsweringProvider if name.endswith("answered") else ReportingProvider
        return kind(str(options["secret"]), newer=bool(options.get("newer")))

    loader.load = load


if __name__ == "__main__":
    patch()
    from notify_tasks.cli import main

    sys.exit(main())
