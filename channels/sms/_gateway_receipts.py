"""What a gateway of `sms.http` reports, as the configuration describes it.

An example::

    [providers.sms-acme.receipts]
    format = "json"                  # or "form", or "query": where a report's fields are; it comes by POST
    list = "results"                 # where the reports are; without it the body is one, or an array of them
    id = "reference"                 # our {id}, as the gateway repeats it; "query.NAME" is in the URL's query
    message_id = "messageId"         # its own
    status = "status.name"
    address = "to"
    token = "env:ACME_RECEIPTS"      # the URL that the gateway is given ends in ?token=...; or, instead of it:
    # signature = "X-Acme-Signature" # a header with HMAC-SHA256 of the body, in hexadecimal digits or base64
    # secret = "env:ACME_RECEIPTS"
    [providers.sms-acme.receipts.statuses]
    DELIVERED = "delivered"
    REJECTED = "undelivered"
    NO_SUCH_NUMBER = "undelivered address-invalid"
    STOP = "opted-out"

A status is a fate, a standing of the address, or both: `accepted`, `sent`, `delivered`, `read`, `undelivered`;
`address-invalid`, `opted-out`, `opted-in`, `complained`. One that the table lacks is unknown, and so is seen.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from channels._receipt_reading import (
    any_of,
    code_of,
    delivery_of,
    digest_of,
    event_id,
    fields,
    form,
    number,
    objects,
    parsed_json,
    same,
    theirs,
)
from channels.http import Options, Secret
from channels.receipts import Event, Fate, Forged, Receipt, Standing, Unreadable
from channels.sms._gateway import read_path, walk

FATES: Final[Mapping[str, Fate]] = {each.value: each for each in Fate}
STANDINGS: Final[Mapping[str, Standing]] = {each.value.replace("_", "-"): each for each in Standing}
_FORMATS: Final = ("json", "form", "query")
_PATHS: Final = ("list", "id", "message_id", "status", "address")
_KNOWN: Final = (*_PATHS, "format", "token", "signature", "secret", "statuses")
_WRITE: Final = 'write statuses = { DELIVERED = "delivered", NO_SUCH_NUMBER = "undelivered address-invalid" }'

Told = tuple[Fate | None, Standing | None]


@dataclass(frozen=True, slots=True)
class Reports:
    """How the gateway reports.

    Args:
        kind: where a report's fields are: `json`, `form` or `query`.
        paths: into a report, by what is there; `list` into the body.
        statuses: what they mean.
        tokens: of the URL; none where the gateway signs.
        header: with the signature; its name in lower case.
        secrets: sign.
    """

    kind: str
    paths: Mapping[str, str | None]
    statuses: Mapping[str, Told]
    tokens: tuple[Secret, ...] = field(default=(), repr=False)
    header: str = ""
    secrets: tuple[Secret, ...] = field(default=(), repr=False)

    def verify(self, receipt: Receipt) -> None:
        """Return if the gateway sent it.

        Raises:
            Forged: it did not.
        """
        if self.header:
            given = receipt.header(self.header)
            if not given:
                raise Forged(
                    "missing_header", "the header of receipts.signature is missing; let proxies pass it"
                )
            right = [text for key in self.secrets for text in _signatures(key, receipt.body)]
            if not any_of(same(given.removeprefix("sha256="), each) for each in right):
                raise Forged(
                    "signature", "the signature is not that of receipts.secret; compare it with theirs"
                )
            return
        found = [value for name, value in _query(receipt) if name == "token"]
        if len(found) != 1 or not any_of(same(found[0], each.reveal()) for each in self.tokens):
            raise Forged(
                "token", "the URL's token is not receipts.token; give the gateway the URL with ?token=..."
            )

    def events(self, receipt: Receipt) -> Sequence[Event]:
        """What a verified receipt says.

        Raises:
            Unreadable: it is not of the format that the option says.
        """
        called = {name: value for name, value in _query(receipt) if name != "token"}
        return [self._event({**each, "query": called}) for each in self._entries(receipt)]

    def _entries(self, receipt: Receipt) -> Sequence[Mapping[str, Any]]:
        if self.kind == "form":
            return [fields(receipt)]
        if self.kind == "query":
            return [{name: value for name, value in form(receipt.query) if name != "token"}]
        return objects(walk(parsed_json(receipt), self.paths["list"] or ""))

    def _event(self, entry: Mapping[str, Any]) -> Event:
        status, delivery, message, address = (
            walk(entry, path) if path is not None else None
            for path in (self.paths[each] for each in ("status", "id", "message_id", "address"))
        )
        text = str(status) if isinstance(status, str | int) and not isinstance(status, bool) else ""
        told = self.statuses.get(text)
        fate, standing = told or (None, None)
        digits = str(address) if isinstance(address, str | int) else ""
        return Event(
            id=event_id(theirs(message) or "-", code_of(status), digest_of(entry)[:16]),
            code=code_of(status),
            fate=fate,
            standing=standing,
            known=told is not None,
            delivery_id=delivery_of(delivery),
            provider_message_id=theirs(message),
            address=number(digits if digits.startswith("+") else f"+{digits}"),
            detail="" if told else "receipts.statuses does not have this status; add it",
        )


def _query(receipt: Receipt) -> list[tuple[str, str]]:
    try:
        return form(receipt.query)
    except Unreadable:
        return []


def _signatures(key: Secret, body: bytes) -> tuple[str, str]:
    signed = hmac.digest(key.reveal().encode(), body, hashlib.sha256)
    return signed.hex(), b64encode(signed).decode()


# --- options ----------------------------------------------------------------------------------------


def read_reports(name: str, table: object) -> Reports | None:
    """The option `receipts`; None where it is missing.

    Args:
        name: of the provider in the configuration.
        table: what the option has.

    Raises:
        Misconfigured: it is wrong.
    """
    if table is None:
        return None
    flat = {f"receipts.{each}": value for each, value in table.items()} if isinstance(table, Mapping) else {}
    given = Options("sms.http", name, flat, [f"receipts.{each}" for each in _KNOWN])
    if not isinstance(table, Mapping):
        raise given.wrong("receipts", 'is no table; write [providers.NAME.receipts] with status = "..."')
    paths = {each: read_path(given, f"receipts.{each}") for each in _PATHS}
    if paths["status"] is None:
        raise given.wrong("receipts.status", 'is missing; write where a report has it: status = "status"')
    if paths["id"] is None and paths["address"] is None:
        raise given.wrong(
            "receipts.id", 'is missing; write where a report repeats our {id}: id = "reference"'
        )
    kind = given.choice("receipts.format", _FORMATS, "json")
    statuses = _statuses(given, table.get("statuses"))
    header = given.optional_text("receipts.signature") or ""
    secret = given.secrets("receipts.secret") if "secret" in table else ()
    token = given.secrets("receipts.token") if "token" in table else ()
    if bool(header) != bool(secret):
        raise given.wrong("receipts.secret", "and receipts.signature go together; write both, or token alone")
    if bool(header) == bool(token):
        raise given.wrong(
            "receipts.token", "or receipts.signature with receipts.secret: write one of the two"
        )
    if header and (kind == "query" or not re.fullmatch(r"[A-Za-z0-9-]{1,60}", header)):
        raise given.wrong(
            "receipts.signature", "is no header, or there is no body to sign; write token instead"
        )
    return Reports(kind, paths, statuses, token, header.lower(), secret)


def _statuses(given: Options, table: object) -> dict[str, Told]:
    if not isinstance(table, Mapping) or not table:
        raise given.wrong("receipts.statuses", f"is no table, or empty; {_WRITE}")
    return {str(status): _told(given, words) for status, words in table.items()}


def _told(given: Options, words: object) -> Told:
    each = words.split() if isinstance(words, str) else []
    fates = [FATES[one] for one in each if one in FATES]
    standings = [STANDINGS[one] for one in each if one in STANDINGS]
    if not each or len(fates) + len(standings) != len(each) or len(fates) > 1 or len(standings) > 1:
        there_are = ", ".join((*FATES, *STANDINGS))
        raise given.wrong(
            "receipts.statuses",
            f"has words that are not one fate, one standing, or both: {there_are}; {_WRITE}",
        )
    return fates[0] if fates else None, standings[0] if standings else None
