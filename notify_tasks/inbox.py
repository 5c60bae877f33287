"""The in-app inbox, for the services that show it: read, count and mark what a recipient got.

    from notify_tasks import inbox

    page = inbox.messages("user-42", limit=20)             # newest first: page.messages, page.next
    inbox.unread_count("user-42")                          # the number beside the bell
    inbox.mark_read("user-42", [page.messages[0].id])      # None instead of the list: all of them
    inbox.mark_unread("user-42", [page.messages[0].id])
    inbox.delete("user-42", [page.messages[0].id])         # None instead of the list: all of them
    inbox.mark_opened("user-42", [delivery_id])            # what an app has opened: the data of a push names it

Needs the extra `[postgres]` and the setting `database_url`. Each function is one transaction and may be run again after
an error. Where `broker_url` is set as well, live readers are told: subscribe to the Redis channel `topic("user-42")`.
A word there is the id of a new message, or `read`, `unread` or `deleted` when that was done with some; it says that
there is something to fetch, and may be lost, so fetch after each connect, too.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Sequence
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from notify_tasks import redis_place, settings
from notify_tasks.errors import InvalidCall, NotHere
from notify_tasks.notification import DEFAULT_TENANT
from notify_tasks.recipients import text
from notify_tasks.routing import inbox_topic

try:
    from notify_tasks import api_connections
    from notify_tasks.store import inbox as stored
    from notify_tasks.store import openings
    from notify_tasks.store.database import DatabaseAway
    from notify_tasks.store.inbox import InboxCounts, InboxMessage, InboxPage, Mark
except ModuleNotFoundError as error:
    if error.name not in ("psycopg", "psycopg_pool"):
        raise
    raise NotHere(
        f"the in-app inbox needs {error.name}, which is not installed here. Install it: "
        "pip install 'notify-tasks[postgres]'"
    ) from None

__all__ = [
    "DELETED", "READ", "UNREAD", "DatabaseAway", "InboxCounts", "InboxMessage", "InboxPage", "close", "counts",
    "delete", "mark_opened", "mark_read", "mark_unread", "messages", "topic", "unread_count",
]  # fmt: skip

logger = logging.getLogger(__name__)

READ: Final = "read"
"""The word to live readers when messages were marked as read. No message has it as its id."""
UNREAD: Final = "unread"
DELETED: Final = "deleted"
MAX_PAGE: Final = 200
MAX_IDS: Final = 1000
TELL_SECONDS: Final = 1.0
"""To connect to Redis, and as many again for its answer: what marking waits for live readers to be told."""


def messages(
    recipient_id: str,
    *,
    unread: bool = False,
    after: str | None = None,
    limit: int = 50,
    tenant: str = DEFAULT_TENANT,
) -> InboxPage:
    """A recipient's messages, a page at a time, newest first.

    Args:
        recipient_id: the id that producers use.
        unread: only those that are not read.
        after: `next` of the page before; None begins. What arrives meanwhile shifts nothing.
        limit: how many at most, up to 200.
        tenant: whose recipient.

    Returns:
        the page; an empty one where nothing is known of the recipient.

    Raises:
        InvalidCall: an argument is wrong: which, and what to write.
        NotConfigured: no database is set.
        DatabaseAway: it cannot be used now.
    """
    who, whose = text(recipient_id, "recipient_id"), text(tenant, "tenant")
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidCall("limit", f"{limit} is out of range", f"Write 1 to {MAX_PAGE}")
    mark = None if after is None else Mark.read(after)
    if after is not None and mark is None:
        raise InvalidCall("after", "no page ended there", "Write the `next` of the page before, as it is")
    return stored.messages(
        api_connections.database(), who, unread=unread, after=mark, limit=limit, tenant=whose
    )


def unread_count(recipient_id: str, *, tenant: str = DEFAULT_TENANT) -> int:
    """How many messages a recipient has not read.

    Args:
        recipient_id: the id that producers use.
        tenant: whose recipient.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `messages`.
    """
    who, whose = text(recipient_id, "recipient_id"), text(tenant, "tenant")
    return stored.unread_count(api_connections.database(), who, tenant=whose)


def counts(recipient_id: str, *, tenant: str = DEFAULT_TENANT) -> InboxCounts:
    """How many messages a recipient has, and how many of them are not read.

    Args:
        recipient_id: the id that producers use.
        tenant: whose recipient.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `messages`.
    """
    who, whose = text(recipient_id, "recipient_id"), text(tenant, "tenant")
    return stored.counts(api_connections.database(), who, tenant=whose)


def mark_read(recipient_id: str, ids: Sequence[str] | None, *, tenant: str = DEFAULT_TENANT) -> int:
    """Mark a recipient's messages as read. What is read already keeps its time.

    What was read has arrived: its delivery becomes `delivered`, and `notify status` shows when it was read first.

    After the commit live readers are told at best effort, so that a person's other devices follow. A Redis that does
    not answer holds the call up for two seconds or so, and fails nothing.

    Args:
        recipient_id: the id that producers use.
        ids: up to 1,000 messages' ids, or None for all. An id of another recipient's message changes nothing.
        tenant: whose recipient.

    Returns:
        how many were unread until now. Of two calls at once, each message is counted by one.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `messages`.
    """
    who, whose = text(recipient_id, "recipient_id"), text(tenant, "tenant")
    chosen = None if ids is None else _ids(ids)
    marked = stored.mark_read(api_connections.database(), who, chosen, tenant=whose)
    if marked:
        _tell(topic(who, tenant=whose), READ)
    return marked


def mark_opened(recipient_id: str, ids: Sequence[str], *, tenant: str = DEFAULT_TENANT) -> int:
    """Note what a recipient has opened elsewhere: a push, a web push. Steps that go `unless = ["read"]` ask for it.

    Push services do not tell it; the app does, whose data of a push has the `delivery_id`. What was opened has arrived:
    its delivery becomes `delivered`, and `notify status` shows when it was read first. Messages of the inbox are not
    touched.

    Args:
        recipient_id: who is logged in where it was opened.
        ids: up to 1,000 deliveries' ids. An id of another recipient's delivery changes nothing.
        tenant: whose recipient.

    Returns:
        how many were not known as read until now. Of two calls at once, each delivery is counted by one.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `messages`.
    """
    who, whose = text(recipient_id, "recipient_id"), text(tenant, "tenant")
    return openings.mark(api_connections.database(), who, _ids(ids), tenant=whose)


def mark_unread(recipient_id: str, ids: Sequence[str], *, tenant: str = DEFAULT_TENANT) -> int:
    """Mark a recipient's messages as unread, to come back to them. Their deliveries stay `delivered`.

    Args:
        recipient_id: the id that producers use.
        ids: up to 1,000 messages' ids. An id of another recipient's message changes nothing.
        tenant: whose recipient.

    Returns:
        how many were read until now.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `messages`.
    """
    who, whose = text(recipient_id, "recipient_id"), text(tenant, "tenant")
    marked = stored.mark_unread(api_connections.database(), who, _ids(ids), tenant=whose)
    if marked:
        _tell(topic(who, tenant=whose), UNREAD)
    return marked


def delete(recipient_id: str, ids: Sequence[str] | None, *, tenant: str = DEFAULT_TENANT) -> int:
    """Delete a recipient's messages, read or not. What `notify status` tells of them stays.

    Args:
        recipient_id: the id that producers use.
        ids: up to 1,000 messages' ids, or None for all. An id of another recipient's message changes nothing.
        tenant: whose recipient.

    Returns:
        how many are gone.

    Raises:
        InvalidCall, NotConfigured, DatabaseAway: as `messages`.
    """
    who, whose = text(recipient_id, "recipient_id"), text(tenant, "tenant")
    gone = stored.delete(api_connections.database(), who, None if ids is None else _ids(ids), tenant=whose)
    if gone:
        _tell(topic(who, tenant=whose), DELETED)
    return gone


def topic(recipient_id: str, *, tenant: str = DEFAULT_TENANT) -> str:
    """The Redis channel on which live readers of a recipient's inbox are told."""
    return inbox_topic(tenant, recipient_id)


def _ids(ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str) or not isinstance(ids, Sequence):
        raise InvalidCall("ids", "it is no list", "Write the messages' ids in a list, or None for all")
    if len(ids) > MAX_IDS:
        raise InvalidCall("ids", f"{len(ids)} are too many", f"Mark {MAX_IDS} at a time, or None for all")
    found = []
    for index, each in enumerate(ids):
        try:
            found.append(str(uuid.UUID(each)))
        except (ValueError, AttributeError, TypeError):
            raise InvalidCall(
                f"ids[{index}]", "it is no message's id", "Write the `id` of a message"
            ) from None
    return found


# --- live readers -----------------------------------------------------------------------------------

_lock: Final = threading.Lock()
_open: tuple[int, str, redis.Redis] | None = None


def _tell(channel: str, word: str) -> None:
    url = settings.get().broker_url
    if url is None:
        return
    try:
        _redis(url).publish(channel, word)
    except (redis.RedisError, ValueError) as error:
        logger.info(
            "no live reader was told that messages are %s: Redis is away (%s)", word, type(error).__name__
        )


def _redis(url: str) -> redis.Redis:
    """The process's own client: a fork opens its own, and so does another setting."""
    global _open  # noqa: PLW0603 - opened by whoever needs it first
    with _lock:
        if _open is None or _open[:2] != (os.getpid(), url):
            _close()
            client = redis_place.client(url, seconds=TELL_SECONDS, retry=Retry(NoBackoff(), 0))
            _open = (os.getpid(), url, client)
        return _open[2]


def close() -> None:
    """Let go of the connections. The next call opens new ones."""
    api_connections.close()
    with _lock:
        _close()


def _close() -> None:
    global _open  # noqa: PLW0603 - as in `_redis`
    if _open is not None and _open[0] == os.getpid():
        _open[2].close()
    _open = None
