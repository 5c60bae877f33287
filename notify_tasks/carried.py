"""What a delivery carries besides its text: the bytes of its attachments, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from channels.contract import Attachment, Refused
from notify_tasks.attachments import MAX_SENT_BYTES, Attached
from notify_tasks.stored_files import TOO_LARGE, StoredFiles


def gather(
    attachments: Sequence[Attached], kept: Callable[[], Mapping[int, bytes]], files: StoredFiles
) -> tuple[Attachment, ...]:
    """Get the bytes of each.

    Args:
        attachments: of the delivery's notification.
        kept: reads those that are in the database, by their place; called only where there are any.
        files: the stored files.

    Raises:
        Refused: an attachment is gone or too large.
        TryLater: a stored file cannot be read now.
    """
    rows: Mapping[int, bytes] = {}
    if any(each.content is None and each.file is None for each in attachments):
        rows = kept()
    left = MAX_SENT_BYTES
    found = []
    for position, each in enumerate(attachments):
        which = f"attachment {position + 1}"
        if each.file is not None:
            content: bytes | None = files.read(each.file, left, which)
        else:
            content = rows.get(position) if each.content is None else each.content
        if content is None:
            raise Refused(
                "attachment_removed", f"{which}: its bytes are deleted; send a new notification with them"
            )
        left -= len(content)
        if left < 0:
            raise Refused(TOO_LARGE, f"{which}: all together have more than {MAX_SENT_BYTES} bytes")
        found.append(Attachment(each.name, each.type, content))
    return tuple(found)


def described(attachments: Sequence[Attached], gathered: Sequence[Attachment]) -> list[dict[str, Any]]:
    """What templates are told: `name`, and `size` in bytes.

    The size of a stored file is known where the channel carries attachments, and None elsewhere.
    """
    if gathered:
        return [{"name": each.name, "size": len(each.content)} for each in gathered]
    return [{"name": each.name, "size": each.size} for each in attachments]
