"""One server process: started, watched, stopped, and for fault tests killed, frozen and restarted."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, Protocol

from notify_tasks.embedded.files import DirectoryInUse, EmbeddedError, lock_directory, log_tail, sign_lock

__all__ = ["HOST", "DirectoryInUse", "Engine", "Server"]

HOST: Final = "127.0.0.1"
PORTS: Final = range(15_000, 32_000)
"""Below every usual range of outgoing ports. A client that calls a port of that range again and again while
the server is away can be given that very port as its own, and then talks to itself and blocks the server."""

START_WITHIN: Final = 60.0
"""Seconds until a server must answer; recovery after a crash is part of it."""
STOP_WITHIN: Final = 40.0
"""Seconds; longer than the watchdog's own patience."""
TRIES: Final = 5

WATCHDOG: Final = Path(__file__).with_name("watchdog.py")


class Engine(Protocol):
    """One kind of server on one directory."""

    name: str
    base: Path
    stop_signal: signal.Signals
    abrupt_signal: signal.Signals

    def prepare(self) -> None:
        """Make the directory ready for a start; called with its lock held.

        Raises:
            EmbeddedError: it cannot be; the text says why and what to do.
        """

    def command(self, port: int) -> list[str]:
        """The server's command line; every user of the machine can read it, so no secret."""
        ...

    def ready(self, port: int, pid: int) -> bool:
        """Whether this very process answers on this port."""
        ...

    def url(self, port: int) -> str:
        """The URL with the password."""
        ...


class Server:
    """A running server, or one that the environment names.

    Attributes:
        url: with the password: never log it.
        port: on 127.0.0.1, the same after `restart`; None if the environment names the server.
        pid: the server's process, another one after `restart`; None while there is none.
    """

    def __init__(self, engine: Engine | None, url: str = "") -> None:
        self.url = url
        self.port: int | None = None
        self.pid: int | None = None
        self._engine = engine
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._reins: int | None = None

    def __repr__(self) -> str:
        if self._engine is None:
            return "<server named by the environment>"
        state = f"process {self.pid}" if self.running else "not running"
        return f"<{self._engine.name} on {HOST}:{self.port}, {state}, in {self._engine.base}>"

    @property
    def directory(self) -> Path | None:
        """Where its data, password and `server.log` are; None if the environment names the server."""
        return self._engine.base if self._engine else None

    @property
    def running(self) -> bool:
        """Whether it was started here and has not ended."""
        return self._watchdog is not None and self._watchdog.poll() is None

    def start(self) -> None:
        """Start the server, on the port it had before if there was one, and wait until it answers.

        Raises:
            EmbeddedError: it does not start, or the environment names the server.
            DirectoryInUse: another server runs on the directory.
        """
        engine = self._engine
        if engine is None:
            raise EmbeddedError(f"{self!r} is not ours to start; start it where it runs")
        if self.running:
            return
        lock = lock_directory(engine.base, patiently=self.port is not None)
        try:
            sign_lock(lock, None)
            engine.prepare()
            if not any(self._launch(engine, self.port or _free_port(), lock) for _ in range(TRIES)):
                raise EmbeddedError(
                    f"{engine.name} did not start in {engine.base}. Mend what its log says and start again:\n"
                    + log_tail(engine.base)
                )
            sign_lock(lock, self.pid)
        finally:
            os.close(lock)  # from here on the watchdog and the server hold it, or nobody

    def stop(self) -> None:
        """Stop the server in order and wait until it is gone. Nothing happens if it is not ours."""
        self._let_go()
        if self._watchdog is not None:
            self._watchdog.wait(STOP_WITHIN)
            if self._watchdog.stdout is not None:
                self._watchdog.stdout.close()
        self._watchdog = self.pid = None

    def kill(self, number: signal.Signals) -> None:
        """Send the server process itself a signal and wait for its effect: that it stands still, or is gone.

        Args:
            number: SIGKILL for a crash, SIGSTOP and SIGCONT for a freeze and its end.

        Raises:
            EmbeddedError: the server is not running, or not ours.
        """
        if self._reins is None or self._watchdog is None or not self.running:
            raise EmbeddedError(f"{self!r} takes no signal; start it first, or steer it where it runs")
        with suppress(BrokenPipeError):  # it ended while we looked
            os.write(self._reins, bytes([number]))
            assert self._watchdog.stdout is not None
            self._watchdog.stdout.readline()  # empty if the server, and so the watchdog, ended
        if number == signal.SIGKILL:
            self._watchdog.wait(STOP_WITHIN)
            self.stop()

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and start it on the same port with the same data, so that clients reconnect.

        Args:
            mode: "fast" stops in order, "immediate" crashes it, so that it has to recover. A server that has
                ended already is started either way.

        Raises:
            EmbeddedError: it does not come back, or is not ours.
        """
        if mode == "immediate" and self._engine is not None and self.running:
            self.kill(self._engine.abrupt_signal)
            with suppress(EmbeddedError):  # it has ended by now, or was frozen and hears nothing else
                self.kill(signal.SIGCONT)
            if self._watchdog is not None:
                self._watchdog.wait(STOP_WITHIN)
        self.stop()
        self.start()

    def _launch(self, engine: Engine, port: int, lock: int) -> bool:
        theirs, self._reins = os.pipe()
        watchdog = [sys.executable, "-I", "-S", str(WATCHDOG)]
        arguments = [str(int(engine.stop_signal)), str(engine.base / "server.log"), str(lock)]
        try:
            self._watchdog = subprocess.Popen(
                [*watchdog, *arguments, *engine.command(port)],
                stdin=theirs,
                stdout=subprocess.PIPE,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for the starter, which stops its servers last
            )
        finally:
            os.close(theirs)
        _started_here.add(self)
        assert self._watchdog.stdout is not None
        pid = int(self._watchdog.stdout.readline() or 0)
        deadline = time.monotonic() + START_WITHIN
        while self.running:
            if engine.ready(port, pid):
                self.port, self.pid, self.url = port, pid, engine.url(port)
                return True
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedError(
                    f"{engine.name} gave no answer within {START_WITHIN:.0f} s in {engine.base}. "
                    f"See what its log says:\n{log_tail(engine.base)}"
                )
            time.sleep(0.01)
        self.stop()
        time.sleep(0.2)  # most likely the port was taken after we looked; its user may leave
        return False

    def _let_go(self) -> None:
        if self._reins is not None:
            os.close(self._reins)
            self._reins = None

    def _disown(self) -> None:
        self._let_go()
        if self._watchdog is not None:
            self._watchdog.returncode = 0  # it is not this process's child


_started_here: weakref.WeakSet[Server] = weakref.WeakSet()


def _disown_all() -> None:
    # A forked child must neither hold the pipes open nor take the servers for its own.
    for server in list(_started_here):
        server._disown()  # noqa: SLF001 - the class's own bookkeeping


os.register_at_fork(after_in_child=_disown_all)


def _free_port() -> int:
    for port in random.sample(PORTS, 50):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise EmbeddedError(
        f"no free port on {HOST} between {PORTS.start} and {PORTS.stop}; stop what holds them"
    )
