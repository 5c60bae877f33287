"""The sandbox's sockets, certificates and lifetime."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import trustme

from notify_tasks.sandbox import credentials
from notify_tasks.sandbox.control import Control
from notify_tasks.sandbox.http_reading import MAX_HEAD
from notify_tasks.sandbox.kept import Kept
from notify_tasks.sandbox.log import Effects
from notify_tasks.sandbox.modes import SMTP, Modes, parse_mode, targets
from notify_tasks.sandbox.ready import Ready
from notify_tasks.sandbox.reporting import Reporter
from notify_tasks.sandbox.wire_http import HttpEnd
from notify_tasks.sandbox.wire_smtp import PASSWORD, USER, SmtpEnd

LOG_NAME: Final = "requests.jsonl"
CA_NAME: Final = "ca.pem"
_LEAF_NAME: Final = "server.pem"
_BACKLOG: Final = 512
_LISTENERS: Final = ("smtp", "http", "https", "control")
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a client calls instead


class _Port:
    """A port that can refuse connections and come back: it stays bound, so nobody else gets it meanwhile."""

    def __init__(self, host: str, port: int) -> None:
        self._family: socket.AddressFamily
        self._address: tuple[Any, ...]
        self._family, *_, self._address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._bound = self._bind()
        self._address = self._bound.getsockname()
        self.number: int = self._address[1]

    def _bind(self) -> socket.socket:
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(self._address)
        return bound

    def take(self) -> socket.socket:
        """The socket to listen on. Whoever takes it closes it."""
        return self._bound

    def refuse(self) -> None:
        """Hold the port without listening, once its listener is closed."""
        self._bound = self._bind()

    def close(self) -> None:
        self._bound.close()


class SandboxServer:
    """The far end of the wire: SMTP, HTTP, HTTPS and control, on one event loop.

    Args:
        directory: takes the log and the certificates; created if missing. A second start goes on with both.
        host: the address to listen on.
        name: by which clients call it; None for the host.
        hooks: the URL of the fleet's gateway, which receipts go to; None where they go nowhere until they are told.
        smtp_port: 0 for a free one, as the next three.
        http_port: the providers' far end; it answers control requests as well.
        https_port: the same with TLS: trust ca.pem.
        control_port: control only; it listens on when the mode `refuse` closes the HTTP ports.
        seed: of the draws for modes with a rate; drawn itself if None.
        kept: takes what arrives, with its contents; None keeps no contents.
    """

    def __init__(  # noqa: PLR0913 - where each of its ports is
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        name: str | None = None,
        hooks: str | None = None,
        smtp_port: int = 0,
        http_port: int = 0,
        https_port: int = 0,
        control_port: int = 0,
        seed: int | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._directory = directory
        self._host = host
        self._name = name or _EVERYWHERE.get(host, host)
        self._wanted = (smtp_port, http_port, https_port, control_port)
        self._seed = secrets.randbits(32) if seed is None else seed
        self.modes = Modes(self._seed)
        self.kept = kept
        self._hooks = hooks
        self.reporter = Reporter(self.modes, hooks)
        self._servers: dict[str, asyncio.Server] = {}
        self._ports: dict[str, _Port] = {}
        self._shows_wrong = False

    async def start(self, pid: int) -> Ready:
        """Open the ports.

        Args:
            pid: the process id to tell.

        Raises:
            BlockingIOError: another sandbox uses the directory.
            OSError: a port is taken, or the directory cannot be written.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._effects = Effects(self._directory / LOG_NAME)
        right, wrong = self._certificates()
        self._tls = self._web_context(wrong)
        control = Control(self.modes, self.reporter, self._apply)
        self._http = HttpEnd(self._effects, self.modes, control, self.reporter, self.kept)
        self._smtp = SmtpEnd(self._effects, self.modes, right, wrong, self.reporter, self.kept)
        for name, wanted in zip(_LISTENERS, self._wanted, strict=True):
            self._ports[name] = _Port(self._host, wanted)
        for name in self._ports:
            await self._listen(name)
        ready = self._ready(pid)
        credentials.write_files(self._directory, ready.https_url)
        return ready

    def _ready(self, pid: int) -> Ready:
        smtp, http, https, control = (self._ports[name].number for name in _LISTENERS)
        shown = f"[{self._name}]" if ":" in self._name else self._name
        smtp_url = f"smtp://{USER}:{PASSWORD}@{shown}:{smtp}"
        http_url, https_url = f"http://{shown}:{http}", f"https://{shown}:{https}"
        return Ready(
            pid=pid,
            host=self._host,
            smtp_port=smtp,
            http_port=http,
            https_port=https,
            control_port=control,
            smtp_url=smtp_url,
            http_url=http_url,
            https_url=https_url,
            control_url=f"http://{shown}:{control}",
            smtp_user=USER,
            smtp_password=PASSWORD,
            ca_file=str(self._directory / CA_NAME),
            log_path=str(self._directory / LOG_NAME),
            seed=self._seed,
            environment={
                "SANDBOX_SMTP_URL": smtp_url,
                "SANDBOX_CA_FILE": str((self._directory / CA_NAME).absolute()),
                "SANDBOX_HTTP_URL": http_url,
                **credentials.environment(self._directory, https_url, self._hooks or credentials.HOOKS),
            },
        )

    async def stop(self) -> None:
        """Close the ports and the open connections."""
        for server in self._servers.values():
            server.close()
        await self._smtp.drop()
        await self._http.drop(control=True)
        await self.reporter.close()
        for port in self._ports.values():
            port.close()
        self._effects.close()

    @property
    def effects(self) -> Effects:
        """What takes and logs. The server must have been started."""
        return self._effects

    async def set_mode(self, target: str, values: object) -> None:
        """Tell a target how to behave, as the control API does.

        Raises:
            ModeError: the target, a field or a value is wrong.
        """
        self.modes.set(target, parse_mode(target, values))
        await self._apply()

    async def clear_modes(self) -> None:
        """Make every target well again."""
        self.modes.clear()
        await self._apply()

    async def _listen(self, name: str) -> None:
        sock = self._ports[name].take()
        if name == "smtp":
            loop = asyncio.get_running_loop()
            server = await loop.create_server(self._smtp.connection, sock=sock, backlog=_BACKLOG)
        else:
            tls = self._tls if name == "https" else None
            server = await asyncio.start_server(
                self._http.serve, sock=sock, backlog=_BACKLOG, limit=MAX_HEAD, ssl=tls
            )
        self._servers[name] = server

    async def _apply(self) -> None:
        """Close or open the ports as the modes say."""
        http = self.modes.refuses(*(each for each in targets() if each != SMTP))
        for name, refuses in {"smtp": self.modes.refuses(SMTP), "http": http, "https": http}.items():
            listening = name in self._servers
            if refuses and listening:
                self._servers.pop(name).close()
                self._ports[name].refuse()
                if name == "smtp":
                    await self._smtp.drop()
                else:
                    await self._http.drop(control=False)
            elif not refuses and not listening:
                await self._listen(name)
        wrong = self.modes.shows_wrong_certificate()
        if wrong != self._shows_wrong:
            self._shows_wrong = wrong
            await self._http.drop(control=False)  # who is connected has seen the other one

    def _certificates(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """The TLS contexts: the right one, signed by ca.pem, and one of an authority that nobody trusts.

        The files are kept, so that a client's trust outlives a restart.
        """
        names = dict.fromkeys(("localhost", "127.0.0.1", "::1", "sandbox", self._host, self._name))
        leaf = self._directory / _LEAF_NAME
        if not (leaf.exists() and (self._directory / CA_NAME).exists()):
            authority = trustme.CA(organization_name="notify-tasks sandbox")
            issued = authority.issue_cert(*names)
            leaf.touch(mode=0o600)
            leaf.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
            authority.cert_pem.write_to_path(self._directory / CA_NAME)
        right = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        right.load_cert_chain(leaf)
        wrong = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert(*names).configure_cert(wrong)
        return right, wrong

    def _web_context(self, wrong: ssl.SSLContext) -> ssl.SSLContext:
        """The TLS context of HTTPS, which changes to the wrong certificate while a mode says so."""

        def choose(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext) -> None:
            if self._shows_wrong:
                connection.context = wrong

        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        made.load_cert_chain(self._directory / _LEAF_NAME)
        made.sni_callback = choose  # called for each handshake, also of a client that names no server
        return made
