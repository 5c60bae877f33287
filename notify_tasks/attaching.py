"""What a call says about attachments: checked, and made into values. Pure."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Required, TypedDict

from notify_tasks import attachments
from notify_tasks.attachments import DEFAULT_TYPE, MAX_ATTACHMENTS, MAX_CONTENT_BYTES, Attached, Fault
from notify_tasks.errors import InvalidCall
from notify_tasks.recipients import meant, safe_name


class Attachment(TypedDict, total=False):
    """A file that goes with a mail: its name, and either its bytes or where it is stored."""

    name: Required[str]
    """What people see and save it under: `invoice-981.pdf`."""
    content: bytes
    """Its bytes. All contents of a call may have 256 KiB together."""
    file: str
    """For a larger one: its path under the folder that NOTIFY_ATTACHMENTS names to the workers, `terms/2026.pdf`. It
    is read when it is sent, so it stays there until then. 10 MiB at most, all attachments together."""
    type: str | None
    """Its media type (RFC 6838); the default follows from the name's ending."""


_KEYS: Final = dict.fromkeys(Attachment.__annotations__)
_MEANT: Final = {
    "bytes": "content",
    "content_type": "type",
    "data": "content",
    "filename": "name",
    "media_type": "type",
    "mimetype": "type",
    "path": "file",
    "url": "file",
}
_EXAMPLE: Final = 'Write attachments=[{"name": "invoice-981.pdf", "content": b"..."}]'
_LARGE: Final = (
    'Put the file under the folder NOTIFY_ATTACHMENTS and write {"name": ..., "file": "its/path.pdf"}'
)

# Python's own table alone. The machine's (/etc/mime.types) differs from machine to machine.
_GUESSER: Final = mimetypes.MimeTypes(())
_MORE_TYPES: Final = {
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".ics": "text/calendar",
    ".md": "text/markdown",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
for _ending, _type in _MORE_TYPES.items():
    _GUESSER.add_type(_type, _ending)
_PACKED: Final = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


def read_attachments(value: object) -> tuple[Attached, ...]:
    """The attachments of a call.

    Raises:
        InvalidCall: one of them is wrong: which one, what is wrong with it, and what to write instead.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InvalidCall("attachments", f"{type(value).__name__} is not a list", _EXAMPLE)
    if len(value) > MAX_ATTACHMENTS:
        raise InvalidCall(
            "attachments",
            f"{len(value)} are more than the {MAX_ATTACHMENTS} that one call may have",
            "Put them into one archive, or send links",
        )
    read = tuple(_attachment(entry, f"attachments[{index}]") for index, entry in enumerate(value))
    _refuse_twins(read)
    size = sum(each.size or 0 for each in read)
    if size > MAX_CONTENT_BYTES:
        raise InvalidCall("attachments", f"{size} bytes of content are more than {MAX_CONTENT_BYTES}", _LARGE)
    return read


def as_written(value: Sequence[Mapping[str, Any]] | None, read: Sequence[Attached]) -> list[Any] | None:
    """What of them is hashed, to tell a repeated call from another one: contents by their digest, types as given.

    A type that was guessed stays out: another version of Python may guess another one.
    """
    found = []
    for given, each in zip(value or (), read, strict=True):
        entry = {"name": each.name}
        if given.get("type") is not None:
            entry["type"] = each.type
        if each.content is not None:
            entry["sha256"] = hashlib.sha256(each.content).hexdigest()
        else:
            entry["file"] = each.file or ""
        found.append(entry)
    return found or None


def _attachment(entry: object, field: str) -> Attached:
    if not isinstance(entry, Mapping):
        raise InvalidCall(field, f"{type(entry).__name__} is not an attachment", _EXAMPLE)
    for position, key in enumerate(entry):
        if key not in _KEYS:
            place = f"{field}.{safe_name(key, position)}"
            raise InvalidCall(place, "there is no such key", meant(key, _KEYS, _MEANT))
    name = _sound(entry.get("name"), f"{field}.name", attachments.name_fault)
    media_type = entry.get("type")
    if media_type is None:
        media_type = guessed_type(name)
    media_type = _sound(media_type, f"{field}.type", attachments.type_fault)
    content, file = entry.get("content"), entry.get("file")
    if (content is None) == (file is None):
        problem = "it has neither content nor file" if content is None else "it has both content and file"
        raise InvalidCall(field, problem, "Write its bytes as content, or the path of a stored file as file")
    if file is not None:
        return Attached(name, media_type, file=_sound(file, f"{field}.file", attachments.path_fault))
    raw = _bytes(content, f"{field}.content")
    return Attached(name, media_type, content=raw, size=len(raw))


def _sound(value: object, field: str, fault_of: Any) -> str:
    fault: Fault | None = fault_of(value)
    if fault is not None:
        raise InvalidCall(field, *fault)
    return str.__str__(value)


def _bytes(value: object, field: str) -> bytes:
    if isinstance(value, bytes | bytearray):
        size = len(value)
    elif isinstance(value, memoryview):
        size = value.nbytes
    else:
        raise InvalidCall(field, f"{type(value).__name__} is not bytes", _bytes_remedy(value))
    if size > MAX_CONTENT_BYTES:  # before it is copied
        raise InvalidCall(field, f"{size} bytes are more than the {MAX_CONTENT_BYTES} of a call", _LARGE)
    return bytes(value)


def _bytes_remedy(value: object) -> str:
    if isinstance(value, str):
        return "Encode the text, as in text.encode(), or decode the base64"
    if isinstance(value, os.PathLike):
        return "Write its read_bytes()"
    if hasattr(value, "read"):
        return "Write its read(), of a file opened with mode rb"
    return "Write bytes"


def guessed_type(name: str) -> str:
    """The media type that a name's ending tells; `application/octet-stream` where it tells none that may be sent."""
    found, packed = _GUESSER.guess_type(name)
    if packed is not None:
        return _PACKED.get(packed, DEFAULT_TYPE)
    return DEFAULT_TYPE if found is None or attachments.type_fault(found) else found


def _refuse_twins(read: Sequence[Attached]) -> None:
    names = [each.name.casefold() for each in read]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidCall(
                f"attachments[{index}].name",
                "another attachment has this name",
                "Give each a name of its own: people save them into one folder",
            )
