"""A sign of life in a file: a process writes what it does, and `notify health` judges whether it still does it.

The file is named by NOTIFY_HEALTH_FILE; under systemd it is `health` in the unit's runtime directory; with neither
there is none. It holds no secret. Its time is the monotonic clock of the machine, which every process shares, so
that a step of the wall clock makes nobody ill.

Under systemd's `Type=notify` the same sign of life is sent to systemd (sd_notify(3)): `READY=1` with the first, and
`WATCHDOG=1` while nothing is wrong, so that `WatchdogSec=` restarts a process that is alive but stuck.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

FILE_VARIABLE: Final = "NOTIFY_HEALTH_FILE"
RUN_DIRECTORY_VARIABLE: Final = "RUNTIME_DIRECTORY"
"""Set by systemd where a unit has `RuntimeDirectory=` (systemd.exec(5))."""
SYSTEMD_VARIABLE: Final = "NOTIFY_SOCKET"
EVERY_SECONDS: Final = 3.0
"""Between two signs of life."""
MAX_AGE_SECONDS: Final = 30.0
"""A sign older than this is none."""


def file_of(environment: Mapping[str, str]) -> Path | None:
    """Where a process writes its sign of life; None where nobody asked for one."""
    if named := environment.get(FILE_VARIABLE):
        return Path(named)
    directory = environment.get(RUN_DIRECTORY_VARIABLE, "").partition(":")[0]
    return Path(directory) / "health" if directory else None


@dataclass(frozen=True, slots=True)
class Sign:
    """What a process says of itself.

    Args:
        pid: its process id.
        at: the machine's monotonic clock, seconds.
        doing: what it does, in words.
        problem: what is wrong, in words; None while nothing is.
    """

    pid: int
    at: float
    doing: str
    problem: str | None = None


class Pulse:
    """Writes the signs of life of this process. A disk that refuses is told once and stops nothing.

    Args:
        environment: where the file and systemd's socket are named.
        asked: whether this process itself answers for its health, besides (`health_server`).
    """

    def __init__(self, environment: Mapping[str, str], *, asked: bool = False) -> None:
        self.last: Sign | None = None
        """The newest sign, for who asks inside this process."""
        self._asked = asked
        self._file = file_of(environment)
        self._socket = environment.get(SYSTEMD_VARIABLE)
        self._ready = False
        self._refused = False

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return self._asked or self._file is not None or self._socket is not None

    def beat(self, doing: str, problem: str | None = None) -> None:
        """Give a sign of life.

        Args:
            doing: what the process does: nothing personal, no secret.
            problem: why it should be replaced; None while it is well.
        """
        self.last = Sign(os.getpid(), time.monotonic(), doing, problem)
        if self._file is not None:
            self._write(self._file, self.last)
        if self._socket is not None:
            self._tell_systemd(self._socket, doing, problem)

    def _write(self, file: Path, sign: Sign) -> None:
        draft = file.with_name(f"{file.name}.{sign.pid}")  # a reader must never see half a sign
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(
                json.dumps(
                    {"pid": sign.pid, "at": sign.at, "doing": sign.doing, "problem": sign.problem},
                )
            )
            draft.replace(file)
        except OSError as error:
            if not self._refused:
                logger.warning(
                    "no sign of life can be written to %s (%s); name a file that this user may write in %s",
                    file, type(error).__name__, FILE_VARIABLE,
                )  # fmt: skip
            self._refused = True
        else:
            self._refused = False

    def _tell_systemd(self, address: str, doing: str, problem: str | None) -> None:
        lines = [f"STATUS={problem or doing}"]
        if not self._ready:
            lines.append("READY=1")
        if problem is None:
            lines.append("WATCHDOG=1")
        place = "\0" + address[1:] if address.startswith("@") else address  # an abstract socket
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.sendto("\n".join(lines).encode(), place)
            self._ready = True


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a process is well, and what is known of it, in words."""

    well: bool
    said: str


def judge(file: Path, *, max_age: float = MAX_AGE_SECONDS) -> Judgement:
    """Read a sign of life.

    Args:
        file: where it is written.
        max_age: seconds; an older sign is none.
    """
    try:
        found = json.loads(file.read_text())
        sign = Sign(int(found["pid"]), float(found["at"]), str(found["doing"]), found["problem"])
    except FileNotFoundError:
        return Judgement(
            well=False, said=f"there is no sign of life in {file}: it has not started, or writes elsewhere"
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Judgement(well=False, said=f"{file} holds no sign of life ({type(error).__name__})")
    return judge_sign(sign, max_age=max_age)


def judge_sign(sign: Sign, *, max_age: float = MAX_AGE_SECONDS) -> Judgement:
    """Judge a process by its newest sign of life.

    Args:
        sign: it.
        max_age: seconds; an older sign is none.
    """
    age = time.monotonic() - sign.at
    if not _runs(sign.pid):
        return Judgement(well=False, said=f"process {sign.pid} has ended; it was {sign.doing}")
    if not 0 <= age <= max_age:
        since = f"{age:.0f} s" if age >= 0 else "a restart of the machine"
        return Judgement(
            well=False, said=f"process {sign.pid} gives no sign since {since}; it was {sign.doing}"
        )
    if sign.problem is not None:
        return Judgement(well=False, said=f"process {sign.pid}: {sign.problem}")
    return Judgement(well=True, said=f"process {sign.pid} is {sign.doing}")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
