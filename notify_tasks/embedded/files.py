"""What both servers keep in their directory: a lock, a password, private files."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from notify_tasks.errors import NotifyError

ENDING_WITHIN: Final = 30.0
"""Seconds to wait for the lock of a server that is about to end."""


class EmbeddedError(NotifyError):
    """A server could not be started or steered; the text says what to do."""


class DirectoryInUse(EmbeddedError):
    """Another process runs a server on this directory; two on the same data would destroy them."""


def lock_directory(base: Path, *, patiently: bool) -> int:
    """Create the directory if need be and take its lock.

    Args:
        base: the directory of one server.
        patiently: wait for the holder's end, because it is known to come; else wait only if the holder's
            starter is dead, since its watchdog is then stopping the server, or if the server itself is dead,
            since its orphans (PostgreSQL has several) are then about to notice.

    Returns:
        A file descriptor. The lock is free when its last copy, in whatever process, is closed.

    Raises:
        DirectoryInUse: with the holder's process id.
    """
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(base / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + ENDING_WITHIN
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        starter, _, server = os.pread(lock, 64, 0).decode().strip().partition(" ")
        ending = patiently or any(pid.isdigit() and not _alive(int(pid)) for pid in (starter, server))
        if not ending or time.monotonic() > deadline:
            os.close(lock)
            raise DirectoryInUse(
                f"{base} is in use: process {starter or '(just starting)'} runs a server there"
                + (f", process {server}" if server else "")
                + ". Stop it first, or name another directory."
            )
        time.sleep(0.02)


def sign_lock(lock: int, server: int | None) -> None:
    """Write into the locked file who holds it, for the next one's error message."""
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {server or ''}\n".encode(), 0)


def password(base: Path) -> str:
    """The directory's own password, made at first use; URL-safe."""
    path = base / "password"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24) + "\n")
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read, at no moment otherwise."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def redacted(base: Path, text: str) -> str:
    """The text without the directory's password."""
    path = base / "password"
    return text.replace(path.read_text().strip(), "***") if path.exists() else text


def log_tail(base: Path, lines: int = 8) -> str:
    """The last lines of the server's log, without the password."""
    with suppress(OSError):
        return redacted(
            base, "\n".join((base / "server.log").read_text(errors="replace").splitlines()[-lines:])
        )
    return "(no log)"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's, and alive
    return True
