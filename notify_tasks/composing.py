"""What is sent: a claimed delivery's type, rendered for its person, with what it carries. And how often it may be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from channels.contract import Attachment, Content, EmailContent, Refused, TryLater
from notify_tasks import carried
from notify_tasks.attachments import CARRIED_BY
from notify_tasks.event_type import EventType
from notify_tasks.rates import Rate
from notify_tasks.rendering import BrokenType, Catalog, RenderError
from notify_tasks.store.deliveries import Claimed
from notify_tasks.stored_files import StoredFiles
from notify_tasks.unsubscribing import Link, Links

logger = logging.getLogger(__name__)

EMAIL: Final = "email"
_told: Final[set[str]] = set()
"""Types whose mails carry no link though they should: each is told once."""


def limits(catalog: Catalog, event_type: str) -> tuple[Rate, ...]:
    """How often a type may write to one recipient. A broken folder shows when it is rendered, not here."""
    try:
        loaded = catalog.get(event_type)
    except BrokenType:
        return ()
    return loaded.policy.per_recipient if loaded is not None else ()


def compose(
    catalog: Catalog,
    claimed: Claimed,
    kept: Callable[[], Mapping[int, bytes]],
    files: StoredFiles,
    links: Links | None = None,
) -> tuple[Content, str]:
    """Render a delivery.

    Args:
        catalog: the types.
        claimed: the delivery.
        kept: reads its attachments that are in the database; called only where it carries some.
        files: stored attachments.
        links: makes links to unsubscribe; None where no key is set.

    Returns:
        The content, and the version of the template.

    Raises:
        ChannelError: nothing can be sent, or not yet.
    """
    try:
        loaded = catalog.get(claimed.event_type)
    except BrokenType:
        raise TryLater("broken_type", "the type's folder is broken; see `notify templates check`") from None
    if loaded is None:
        raise TryLater("unknown_type", "the type's folder is gone")
    attachments: tuple[Attachment, ...] = ()
    if claimed.attachments and claimed.channel in CARRIED_BY:
        attachments = carried.gather(claimed.attachments, kept, files)
    unsubscribe = _unsubscribe(links, loaded.policy, claimed)
    try:
        rendered = loaded.render(
            claimed.channel,
            claimed.payload,
            claimed.locale,
            recipient={
                "id": claimed.recipient_id,
                "locale": claimed.locale,
                "timezone": claimed.timezone,
            },
            attachments=carried.described(claimed.attachments, attachments),
            unsubscribe_url=unsubscribe,
        )
    except RenderError as error:
        raise Refused("render_failed", str(error)[:500]) from None
    except Exception as error:  # noqa: BLE001 - a bug of ours; nothing has been sent, so it may be mended
        problem = type(error).__name__
        raise TryLater("render_bug", problem) from None
    content = rendered.content
    if isinstance(content, EmailContent) and (attachments or unsubscribe):
        content = replace(content, attachments=attachments, unsubscribe=unsubscribe)
    return content, rendered.version


def _unsubscribe(links: Links | None, event_type: EventType, claimed: Claimed) -> str | None:
    """Where the person ends these mails. A bare address is nobody's whose choice could be kept."""
    if not event_type.unsubscribe or claimed.channel != EMAIL or claimed.recipient_id is None:
        return None
    link = Link(claimed.tenant, claimed.recipient_id, event_type.category, claimed.channel)
    made = links.url(link) if links is not None else None
    if made is None and event_type.name not in _told:
        _told.add(event_type.name)
        logger.warning(
            "mails of the type %s carry no link to unsubscribe: set NOTIFY_SECRET_KEY and NOTIFY_PUBLIC_URL, "
            "here and at the gateway",
            event_type.name,
        )
    return made
