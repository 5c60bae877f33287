"""Why a database cannot be used, in words: for the start of a process and for whoever asks on a terminal.

The driver knows by text alone why a connection failed. Its text may name users and hosts, so it is matched
and never passed on.
"""

from __future__ import annotations

from typing import Final

import psycopg

CONNECT_SECONDS: Final = 3
_SET: Final = "or set NOTIFY_DATABASE_URL to the right one"

_WHY: Final = (
    ("password authentication failed", f"it refuses the user or the password; correct them, {_SET}"),
    ("no password supplied", "it wants a password; write one into NOTIFY_DATABASE_URL"),
    ('role "', f"it does not know the user; create it, {_SET}"),
    ('database "', f"it has no such database; create it, {_SET}"),
    ("no pg_hba.conf entry", "it does not let this user in from here; allow it in pg_hba.conf"),
    ("starting up", "it is starting; try again in a moment"),
    ("shutting down", "it is shutting down; start it again"),
    ("too many", "it has no connection left; end some, or raise max_connections"),
    ("remaining connection slots", "it has no connection left; end some, or raise max_connections"),
    ("connection refused", f"nobody listens there; start it, {_SET}"),
    ("timeout", f"it gives no answer; look at the network, {_SET}"),
    ("resolve", f"there is no such host; {_SET.removeprefix('or ')}"),
    ("translate host name", f"there is no such host; {_SET.removeprefix('or ')}"),
    ("no such file or directory", f"there is no such socket; start it, {_SET}"),
    ("invalid", "the URL cannot be read; write it as in postgresql://user:password@db.internal/notify"),
    ("missing", "the URL cannot be read; write it as in postgresql://user:password@db.internal/notify"),
)
"""What the driver says (in lower case), what it means and what to do. The first that fits counts."""


def why_away(url: str) -> str | None:
    """One sentence on why there is no connection; None if there is one.

    Args:
        url: the database's. Neither its password nor its user is in the sentence.
    """
    try:
        psycopg.connect(url, connect_timeout=CONNECT_SECONDS, application_name="notify-check").close()
    except psycopg.Error as error:
        said = str(error).lower()
        place = _place(url)
        for words, meaning in _WHY:
            if words in said:
                return f"PostgreSQL{place} cannot be used: {meaning}"
        return f"PostgreSQL{place} cannot be used ({type(error).__name__}); look at its log, {_SET}"
    return None


def _place(url: str) -> str:
    try:
        known = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return ""
    host, port = known.get("host"), known.get("port", 5432)
    return f" at {host}:{port}" if host else ""
