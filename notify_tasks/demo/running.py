"""The demo's folder: its lock, and the environment file by which other commands find a running demo."""

from __future__ import annotations

import fcntl
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from notify_tasks.errors import NotifyError

DIRECTORY: Final = ".notify"
ENV_FILE: Final = "demo.env"
LOCK_FILE: Final = "demo.lock"
LOCK_TRIES: Final = 5


class DemoError(NotifyError):
    """The demo cannot go on; the text says what to do."""


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Hold the folder: one demo at a time.

    Raises:
        DemoError: another one runs in it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _taken(lock):
            pid = os.pread(lock, 32, 0).decode().strip()
            raise DemoError(
                f"a demo runs in {directory} already (process {pid}): end it with Ctrl-C there, "
                f"or with `kill {pid}`, or name another --directory"
            )
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)  # `runs` holds it for a moment while it looks
    return False


def runs(directory: Path) -> int | None:
    """The process id of the demo that runs in a folder, None where none does."""
    try:
        lock = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with suppress(ValueError):
            return int(os.pread(lock, 32, 0))
    finally:
        os.close(lock)
    return None


def write_environment(directory: Path, variables: Mapping[str, str], remarks: str) -> None:
    """Write the file that a shell can read: `set -a; . .notify/demo.env; set +a`. It holds passwords."""
    lines = [f"# {line}\n" for line in remarks.splitlines()]
    lines += [f"{name}={shlex.quote(value)}\n" for name, value in variables.items()]
    path = directory / ENV_FILE
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(lines)
    draft.replace(path)


def read_environment(directory: Path) -> dict[str, str]:
    """The variables of a demo that runs; none where the file is missing."""
    try:
        lines = (directory / ENV_FILE).read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}
