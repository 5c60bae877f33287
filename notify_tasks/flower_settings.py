"""What Flower may show, and to whom. One command starts it everywhere: `celery -A notify_tasks flower`.

Flower's own defaults let everybody who reaches its port read every task, and stop workers. Here it asks for a
password or does not start, and it only shows: every page and every call that would change something is refused.
Flower reads FLOWER_* variables, its arguments and a `flowerconfig.py` first; these rules come after all of them.
`flower_guard` asks for the password before every path, Flower's own `/metrics` and `/healthcheck` included: a probe
asks at NOTIFY_HEALTH_PORT, or types `notify health`.

    FLOWER_PASSWORD, or FLOWER_PASSWORD_FILE    of the one user; required
    FLOWER_USER                                 its name: oncall by default
    FLOWER_ADDRESS, FLOWER_PORT                 127.0.0.1:5555 by default
    FLOWER_URL_PREFIX                           `flower` for https://ops.example.com/flower/
    FLOWER_DB                                   the file in which rows outlive a restart; under systemd it is `flower`
                                                in the unit's StateDirectory. Without either they are in memory

Flower's own FLOWER_BASIC_AUTH (`user:password`, several by commas) and its OAuth (FLOWER_AUTH) work, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from notify_tasks.errors import NotConfigured

PASSWORD: Final = "FLOWER_PASSWORD"  # noqa: S105 - the name of a variable
USER: Final = "FLOWER_USER"
DEFAULT_USER: Final = "oncall"
SHORTEST: Final = 8
STATE_DIRECTORY: Final = "STATE_DIRECTORY"
"""Set by systemd where a unit has `StateDirectory=` (systemd.exec(5))."""
SAVE_MILLISECONDS: Final = 60_000
"""Between two writings of the rows: a kill costs those of the last minute."""
MAX_TASKS: Final = 20_000
"""Rows kept in memory, about 3 KB each: Flower's own 100,000 would take as much as five workers."""
FLOWERS_DB: Final = "flower"
COLUMNS: Final = "name,uuid,state,result,exception,received,args,worker,runtime,retries"
_FLOWERS_OWN: Final[Mapping[str, object]] = {
    "max_tasks": 100_000,
    "tasks_columns": "name,uuid,state,received,runtime,worker",
    "address": "",
}
_OURS: Final[Mapping[str, object]] = {
    "max_tasks": MAX_TASKS,
    "tasks_columns": COLUMNS,
    "address": "127.0.0.1",
}


def apply(options: Any, environment: Mapping[str, str]) -> None:
    """Bring Flower's options to these rules.

    Args:
        options: Flower's, as it read them.
        environment: where the password is named.

    Raises:
        NotConfigured: there is no password, or one that protects nothing.
    """
    options.read_only = True
    options.debug = False  # its error pages would show the settings
    for name, own in _FLOWERS_OWN.items():
        if getattr(options, name) == own and not (name == "address" and options.unix_socket):
            setattr(options, name, _OURS[name])
    _persist(options, environment)
    if not options.basic_auth and not options.auth:
        options.basic_auth = [f"{environment.get(USER) or DEFAULT_USER}:{_password(environment)}"]
    _check(options.basic_auth or ())


def _persist(options: Any, environment: Mapping[str, str]) -> None:
    """Keep the rows where a place for them is named."""
    directory = environment.get(STATE_DIRECTORY, "").partition(":")[0]
    if options.db == FLOWERS_DB and directory:
        options.db = str(Path(directory) / FLOWERS_DB)
    if options.db != FLOWERS_DB:
        options.persistent = True
        if not options.state_save_interval:
            options.state_save_interval = SAVE_MILLISECONDS
    if not options.persistent:
        return
    place = Path(options.db).absolute().parent
    with suppress(OSError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(place, os.W_OK):
        raise NotConfigured(
            f"FLOWER_DB: no file can be written in {place}. Name a file in a folder of this user"
        )


def _password(environment: Mapping[str, str]) -> str:
    file = environment.get(f"{PASSWORD}_FILE")
    try:
        found = Path(file).read_text(encoding="utf-8").strip() if file else environment.get(PASSWORD, "")
    except (OSError, UnicodeDecodeError) as error:
        raise NotConfigured(
            f"{PASSWORD}_FILE: the file {file!r} cannot be read ({type(error).__name__}). "
            "Name a text file that this process may read"
        ) from None
    if not found:
        raise NotConfigured(
            f"Flower shows every task to everybody who reaches its port, so it needs a password: "
            f"set {PASSWORD} or {PASSWORD}_FILE"
        )
    return found


def _check(accounts: Sequence[str]) -> None:
    for account in accounts:
        user, colon, password = account.partition(":")
        if not user or not colon or len(password) < SHORTEST or not account.isascii():
            raise NotConfigured(
                f"Flower's password protects nothing: write {SHORTEST} ASCII characters or more in {PASSWORD}, "
                "or user:password in FLOWER_BASIC_AUTH"
            )
