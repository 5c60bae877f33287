"""What the children of a prefork worker have counted: in files, which their parent reads, adds up and removes.

Each child writes files of its own (prometheus_client's multiprocess mode). Their folder belongs to one worker tree and
is locked for as long as it lives; a tree that begins removes the folders of those that are gone. What a dead child has
left is added to one file of the parent's, so that totals never fall and files do not pile up, however often children
are replaced.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from notify_tasks.errors import NotConfigured

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client writes: read with each file that it opens, by the children too."""
GATHERED: Final = 0
"""In the place of the process id: what dead children have left. No process has this number."""
GATHER_EVERY: Final = 5.0
"""Seconds between two looks for dead children."""


class Files:
    """The folder of one worker tree.

    Args:
        base: holds the folders of all trees; by default one under the system's folder for temporary files.

    Raises:
        NotConfigured: the folder cannot be made, or belongs to somebody else.
    """

    def __init__(self, base: Path | None = None) -> None:
        base = base or Path(tempfile.gettempdir()) / f"notify-metrics-{os.getuid()}"
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = base.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise NotConfigured(f"{base} belongs to somebody else: remove it, or set TMPDIR")
            self.path = base / str(os.getpid())
            with (base / "starting").open("wb") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)  # nobody takes for abandoned what is being made
                _remove_abandoned(base)
                shutil.rmtree(self.path, ignore_errors=True)
                self.path.mkdir(mode=0o700)
                # Forked children share the lock, so it ends with the last of them.
                self._lock_file = _lock_of(self.path).open("wb")
                fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        except OSError as error:
            raise NotConfigured(
                f"metrics of child processes need a folder under {base} ({error.strerror}): "
                "set TMPDIR to one that this user may write"
            ) from None
        os.environ[VARIABLE] = str(self.path)
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def value(self) -> type[Any]:
        """What keeps a number in this process's files. Each process asks for its own."""
        made: type[Any] = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        return made

    def collect(self) -> Iterator[Any]:
        """As prometheus_client asks a collector: the sums over the whole tree."""
        with self._lock:
            self._gather()
            yield from MultiProcessCollector.merge(_files(self.path), accumulate=True)  # type: ignore[no-untyped-call]

    def gather(self) -> None:
        """Add what dead children have left to one file, and remove theirs."""
        with self._lock:
            self._gather()

    def close(self) -> None:
        """Remove the folder; the parent's to do."""
        if os.getpid() == self._owner:
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock_file.close()

    def _gather(self) -> None:
        for file in _files(self.path):
            kind, _, rest = Path(file).stem.partition("_")
            pid = int(rest.rpartition("_")[2])
            if pid in (GATHERED, self._owner) or _lives(pid):
                continue
            if kind != "gauge":  # what a dead process was like is nobody's state
                self._add(Path(file), self.path / f"{kind}_{GATHERED}.db")
            Path(file).unlink()

    @staticmethod
    def _add(file: Path, to: Path) -> None:
        into = MmapedDict(str(to))  # type: ignore[no-untyped-call]
        try:
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                before, _ = into.read_value(key)  # type: ignore[no-untyped-call]
                into.write_value(key, before + value, 0.0)  # type: ignore[no-untyped-call]
        except (RuntimeError, UnicodeDecodeError, ValueError):
            pass  # killed in the middle of a first write: what came before it counts
        finally:
            into.close()  # type: ignore[no-untyped-call]


def gather_from_now_on(files: Files) -> Callable[[], None]:
    """Look for dead children every few seconds, also while nobody asks for metrics.

    Returns:
        What ends it.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(GATHER_EVERY):
            with suppress(OSError):
                files.gather()

    threading.Thread(target=run, name="notify-metrics-files", daemon=True).start()
    return ended.set


def _files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.db"))


def _lock_of(folder: Path) -> Path:
    return folder / "lock"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove_abandoned(base: Path) -> None:
    """Folders whose trees are gone."""
    for folder in base.iterdir():
        with suppress(OSError), _lock_of(folder).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
