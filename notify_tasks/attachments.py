"""Attachments of a notification: their limits, their rules, and what stands for one in the envelope. Pure.

The contents of a small one travel in the call itself. A larger one is a *stored file*: a path under the folder that
NOTIFY_ATTACHMENTS names, which the producers' storage and the workers share; a worker reads it when it sends.

Bytes in calls are kept in Redis (about three times: the message and the ledger, both in base64) until the call is
accepted, and then once in PostgreSQL. That is why they are few.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from notify_tasks.errors import WireError

MAX_ATTACHMENTS: Final = 10
"""Of one notification."""
MAX_CONTENT_BYTES: Final = 256 * 1024
"""Bytes that one call may carry, all its attachments together, before they are encoded."""
MAX_SENT_BYTES: Final = 10 * 1024 * 1024
"""Bytes of all attachments of one message, stored files and contents together. In base64 they are a third more, and
most mail servers take 20 to 35 MB."""
MAX_NAME: Final = 150
"""Characters of a name."""
MAX_NAME_BYTES: Final = 255
"""Bytes of a name in UTF-8: what file systems take."""
MAX_PATH: Final = 500
"""Characters of a stored file's path."""
CARRIED_BY: Final = frozenset({"email"})
"""Channels that carry attachments. The others send their message without."""

DEFAULT_TYPE: Final = "application/octet-stream"

# RFC 6838 section 4.2. Parameters stay out: the only common one is a text's charset, which the mail tells itself.
_TYPE: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII
)
_COMPOSITE: Final = ("multipart/", "message/")
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control and format characters (among them those that turn the direction of a text, so that `fdp.exe` reads as
`exe.pdf`), halves of characters, line and paragraph separators."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Persian, the scripts of India and emoji are written with these format characters."""

Fault: TypeAlias = tuple[str, str]
"""What is wrong, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Attached:
    """One attachment of a notification.

    Its bytes are in `content`, or in the stored file `file`. As a worker reads it with its delivery it may have
    neither: then the bytes are in the database.
    """

    name: str = field(repr=False)
    type: str
    """The media type, such as `application/pdf`."""
    content: bytes | None = field(default=None, repr=False)
    file: str | None = field(default=None, repr=False)
    size: int | None = None
    """Bytes; None for a stored file, which may still grow until it is sent."""

    def about(self) -> dict[str, Any]:
        """All but the contents, as JSON: what stands in the notification's row."""
        if self.file is not None:
            return {"name": self.name, "type": self.type, "file": self.file}
        return {"name": self.name, "type": self.type, "size": self.size}

    def to_wire(self) -> dict[str, Any]:
        wire = {"name": self.name, "type": self.type}
        if self.content is not None:
            wire["content"] = base64.b64encode(self.content).decode()
        elif self.file is not None:
            wire["file"] = self.file
        return wire


def from_about(entries: Iterable[Mapping[str, Any]] | None) -> tuple[Attached, ...]:
    """The attachments that a notification's row tells of."""
    return tuple(
        Attached(entry["name"], entry["type"], file=entry.get("file"), size=entry.get("size"))
        for entry in entries or ()
    )


def from_wire(entries: object) -> tuple[Attached, ...]:
    """Read the envelope's `attachments`, by the same rules as the call's.

    Raises:
        WireError: they are not in order. The text shows neither names nor contents.
    """
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_ATTACHMENTS:
        raise WireError(f"the envelope's 'attachments' is not a list of 1 to {MAX_ATTACHMENTS}")
    read = tuple(_one_from_wire(entry) for entry in entries)
    if sum(each.size or 0 for each in read) > MAX_CONTENT_BYTES:
        raise WireError(f"the envelope's attachments are larger than {MAX_CONTENT_BYTES} bytes")
    return read


def _one_from_wire(entry: object) -> Attached:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise WireError("an attachment in the envelope is not an object of texts")
    name, media_type, content, file = (entry.get(key) for key in ("name", "type", "content", "file"))
    if name_fault(name) or type_fault(media_type):
        raise WireError("an attachment in the envelope has no proper name or type")
    assert name is not None
    assert media_type is not None
    if content is not None and file is None:
        try:
            raw = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise WireError("the content of an attachment in the envelope is not base64") from None
        return Attached(name, media_type, content=raw, size=len(raw))
    if file is None or content is not None or path_fault(file):
        raise WireError("an attachment in the envelope has neither a content nor a proper path, or both")
    return Attached(name, media_type, file=file)


# --- rules ------------------------------------------------------------------------------------------


def name_fault(name: object) -> Fault | None:
    """What is wrong with a name that people will see and save the file under, if anything is."""
    if not isinstance(name, str):
        return (
            f"{type(name).__name__} is not a text",
            'Write the name that people see, as in "invoice-981.pdf"',
        )
    if not name or len(name) > MAX_NAME:
        return f"{len(name)} characters is out of range", f"Write 1 to {MAX_NAME} characters"
    problem, remedy = "", "Write the file's name alone"
    if "/" in name or "\\" in name:
        problem = "it has a / or \\, which separate folders"
    elif any(unicodedata.category(each) in _UNSEEN for each in name if each not in _JOINERS):
        problem, remedy = (
            "it has a character that cannot be seen or turns the text",
            "Leave such characters out",
        )
    elif len(name.encode()) > MAX_NAME_BYTES:
        problem, remedy = f"it is longer than {MAX_NAME_BYTES} bytes in UTF-8", "Write a shorter name"
    elif name != name.strip() or name.endswith("."):
        problem = "it begins or ends with a space, or ends with a dot, which some systems drop"
    return (problem, remedy) if problem else None


def type_fault(media_type: object) -> Fault | None:
    """What is wrong with a media type (RFC 6838, section 4.2), if anything is."""
    remedy = "Write it as in application/pdf, without parameters, or leave it out: the name's ending tells it"
    if not isinstance(media_type, str):
        return f"{type(media_type).__name__} is not a text", remedy
    if not _TYPE.fullmatch(media_type):
        return "it is not a media type", remedy
    if media_type.lower().startswith(_COMPOSITE):
        return "multipart and message types hold other parts", f"Write {DEFAULT_TYPE}"
    return None


def path_fault(path: object) -> Fault | None:
    """What is wrong with a stored file's path, if anything is. Whether there is such a file is the worker's to see."""
    remedy = "Write its path under the folder NOTIFY_ATTACHMENTS, as in terms/2026.pdf"
    if not isinstance(path, str):
        return f"{type(path).__name__} is not a text", remedy
    if not path or len(path) > MAX_PATH:
        return f"{len(path)} characters is out of range", f"Write 1 to {MAX_PATH} characters"
    if path.startswith("/"):
        return "it begins with a /", remedy
    if "\\" in path or any(unicodedata.category(each) in {"Cc", "Cs"} for each in path):
        return "it has a \\ or a control character", remedy
    if any(part in {"", ".", ".."} for part in path.split("/")):
        return "it has an empty part, or one that is . or ..", remedy
    return None
