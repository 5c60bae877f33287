"""Codes that prove an address: made, tried, and what they proved. What comes here has been checked."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from notify_tasks.store.database import Connection, Database

TRIES: Final = 5
SECONDS: Final = 600
"""A code is good for so long, and so long a begun one counts against the limit."""
BEGINS: Final = 3
"""Codes for one address within that time, whoever asks for them."""


@dataclass(frozen=True, slots=True)
class Point:
    """A stored contact point."""

    tenant: str
    recipient_id: str
    channel: str
    address: str

    def __repr__(self) -> str:
        return f"<contact point of {self.recipient_id!r} on {self.channel}>"

    def named(self) -> dict[str, str]:
        """Parameters of the statements."""
        return {
            "tenant": self.tenant,
            "id": self.recipient_id,
            "channel": self.channel,
            "address": self.address,
        }

    def keyed(self, code: str) -> str:
        """A code's hash, which is another one for another row."""
        key = f"{self.tenant}\n{self.recipient_id}\n{self.channel}\n{self.address}"
        return hmac.digest(key.encode(), code.encode(), hashlib.sha256).hex()


_HERE: Final = """
 WHERE tenant = %(tenant)s AND recipient_id = %(id)s AND channel = %(channel)s AND digest = md5(%(address)s)
"""
_KNOWN = f"SELECT 1 AS one FROM notify.contact_point {_HERE} FOR UPDATE"  # noqa: S608 - both parts are ours
_ALONE = """
SELECT pg_advisory_xact_lock(hashtextextended(%(tenant)s || ' ' || %(channel)s || ' ' || md5(%(address)s), 0))
"""
_FORGET = "DELETE FROM notify.verification_begun WHERE at < now() - make_interval(secs => %(seconds)s)"
_BEGUN = """
SELECT count(*) AS n FROM notify.verification_begun
 WHERE tenant = %(tenant)s AND channel = %(channel)s AND digest = md5(%(address)s)
   AND at >= now() - make_interval(secs => %(seconds)s)
"""
_COUNT = """
INSERT INTO notify.verification_begun (tenant, channel, digest) VALUES (%(tenant)s, %(channel)s, md5(%(address)s))
"""
_PUT = """
INSERT INTO notify.verification (tenant, recipient_id, channel, digest, code_hash, tries_left, expires_at)
VALUES (%(tenant)s, %(id)s, %(channel)s, md5(%(address)s), %(code_hash)s, %(tries)s,
        now() + make_interval(secs => %(seconds)s))
ON CONFLICT (tenant, recipient_id, channel, digest) DO UPDATE
   SET code_hash = excluded.code_hash, tries_left = excluded.tries_left, expires_at = excluded.expires_at,
       created_at = now()
"""
# The try is spent by the statement that reads the hash: of many at once, no more than the limit see it.
_TRY = f"""
UPDATE notify.verification SET tries_left = tries_left - 1
{_HERE} AND tries_left > 0 AND expires_at > now()
RETURNING code_hash
"""  # noqa: S608 - as above
_DONE = f"DELETE FROM notify.verification {_HERE}"  # noqa: S608 - as above
_VERIFY = f"UPDATE notify.contact_point SET verified_at = now() {_HERE} RETURNING verified_at"  # noqa: S608 - as above


class Unknown(Exception):
    """The person has no such contact point."""


class TooMany(Exception):
    """As many codes as may be were made for this address lately."""


def begin(database: Database, point: Point, code: str) -> None:
    """Store a code, which takes the place of an older one.

    Raises:
        Unknown, TooMany: nothing was stored.
    """
    wanted = {**point.named(), "code_hash": point.keyed(code), "tries": TRIES, "seconds": SECONDS}

    def run(connection: Connection) -> None:
        if connection.execute(_KNOWN, wanted).fetchone() is None:
            raise Unknown
        connection.execute(_ALONE, wanted)
        connection.execute(_FORGET, wanted)
        counted = connection.execute(_BEGUN, wanted).fetchone()
        if counted is not None and counted["n"] >= BEGINS:
            raise TooMany
        connection.execute(_COUNT, wanted)
        connection.execute(_PUT, wanted)

    database.transact(run)


def confirm(database: Database, point: Point, code: str) -> bool:
    """Try a code. The right one verifies the contact point and is gone; each try is spent, the wrong ones too."""
    wanted = point.named()
    given = point.keyed(code)

    def run(connection: Connection) -> bool:
        row = connection.execute(_TRY, wanted).fetchone()
        if not hmac.compare_digest(row["code_hash"] if row else "", given):
            return False
        connection.execute(_DONE, wanted)
        return connection.execute(_VERIFY, wanted).fetchone() is not None

    return database.transact(run)


def mark(database: Database, point: Point) -> datetime:
    """Verify a contact point without a code.

    Raises:
        Unknown: there is none.
    """

    def run(connection: Connection) -> datetime:
        row = connection.execute(_VERIFY, point.named()).fetchone()
        if row is None:
            raise Unknown
        connection.execute(_DONE, point.named())
        found: datetime = row["verified_at"]
        return found

    return database.transact(run)
