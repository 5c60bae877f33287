"""Stored files: attachments that lie in a folder which the producers' storage and the workers share.

A path comes from a call, so it is not trusted. It is walked part by part from the folder, each part opened relative to
the one before and never through a link (openat(2), O_NOFOLLOW). So nothing leads out of the folder, whatever is moved
about meanwhile. That leaves out links within it as well: put the file itself there.

Write a file under another name and rename it, and no worker will see half of it.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from channels.contract import ChannelError, Refused, TryLater
from notify_tasks.attachments import path_fault

MISSING: Final = "attachment_missing"
NOT_A_FILE: Final = "attachment_not_a_file"
TOO_LARGE: Final = "attachment_too_large"
UNREADABLE: Final = "attachment_unreadable"

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY
_STEP: Final = _FOLDER | os.O_NOFOLLOW
# Without O_NONBLOCK a named pipe would hold the worker until somebody writes into it.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_MEANINGS: Final = {
    errno.ENOENT: (MISSING, "there is no such file under NOTIFY_ATTACHMENTS; put it there and replay"),
    errno.ENAMETOOLONG: (MISSING, "no file can have this path; mend the call"),
    errno.ELOOP: (NOT_A_FILE, "its path leads over a link; put the file itself there and replay"),
    errno.ENOTDIR: (NOT_A_FILE, "its path leads over a link or a file; put it into a folder and replay"),
    errno.ENXIO: (NOT_A_FILE, "it is not a plain file; put one there and replay"),
}


class StoredFiles:
    """The folder that NOTIFY_ATTACHMENTS names.

    Args:
        folder: its path; None where this worker has none.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    def read(self, path: str, limit: int, which: str) -> bytes:
        """A file's bytes.

        Args:
            path: under the folder.
            limit: bytes at most.
            which: what an error calls it (`attachment 2`): its path may be private.

        Raises:
            Refused: there is no such file, it is too large, or it is no plain file of the folder.
            TryLater: it cannot be read now.
        """
        failure: ChannelError
        if self._folder is None:
            raise TryLater(
                UNREADABLE, f"{which}: set NOTIFY_ATTACHMENTS for this worker to the shared folder"
            )
        if path_fault(path):
            raise Refused(NOT_A_FILE, f"{which}: its path is not one under a folder; mend the call")
        try:
            folder = os.open(self._folder, _FOLDER)
        except OSError as error:
            failure = TryLater(
                UNREADABLE, f"{which}: the folder NOTIFY_ATTACHMENTS cannot be opened ({_name(error)})"
            )
        else:
            try:
                return _read(_walk(folder, path), limit, which)
            except OSError as error:
                failure = _meaning(error, which)
        raise failure  # out of the handler: the system's error quotes the path


def _walk(folder: int, path: str) -> int:
    """Open the file at the end of a path; closes the folders on the way, the first one too."""
    *steps, last = path.split("/")
    for step in steps:
        try:
            below = os.open(step, _STEP, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    try:
        return os.open(last, _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _read(descriptor: int, limit: int, which: str) -> bytes:
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(NOT_A_FILE, f"{which}: it is not a plain file; put one there and replay")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise Refused(TOO_LARGE, f"{which}: more than {limit} bytes are left for it; send a link instead")
    return content


def _meaning(error: OSError, which: str) -> ChannelError:
    known = _MEANINGS.get(error.errno or 0)
    if known is not None:
        return Refused(known[0], f"{which}: {known[1]}")
    return TryLater(UNREADABLE, f"{which}: it cannot be read now ({_name(error)}); look at its rights")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
