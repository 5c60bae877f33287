"""An HTTP proxy and a private CA, with which an SDK that nobody changed talks to a far end on this machine.

The SDK keeps its real URL, TLS and Host header::

    private = private_ca(tmp_path, "api.acme.example")
    with HttpPeer(Reply(201), tls=private.server) as peer, ConnectProxy(peer.port) as proxy:
        environment = {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": private.ca_file}
        ...  # or the options proxy and ca_file of one of our providers
        assert proxy.asked_for == ["api.acme.example:443"]

Every host that is asked for leads to the one far end: nothing leaves this machine, whatever an SDK wants.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme


@dataclass(frozen=True)
class PrivateCa:
    """A CA of this test's own.

    Args:
        server: for the far end, with a certificate for the hosts.
        ca_file: PEM of the CA, which clients are to trust.
    """

    server: ssl.SSLContext
    ca_file: str


def private_ca(folder: Path, *hosts: str) -> PrivateCa:
    """Make a CA in a folder, and a server's certificate for some hosts."""
    authority = trustme.CA()
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(server)
    return PrivateCa(server, str(path))


class ConnectProxy:
    """A proxy on this machine that answers CONNECT (RFC 9110, section 9.3.6), and nothing else.

    Args:
        port: of the far end on 127.0.0.1, which each tunnel leads to.
    """

    def __init__(self, port: int) -> None:
        self._far_end = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopped = False
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked_for: list[str] = []
        """`HOST:PORT` of each tunnel, in order."""

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stopped = True
            ends = [self._listener, *self._open]
        for each in ends:
            _shut(each)
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a thread of the proxy did not end"
        for each in ends:
            each.close()

    def _start(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _held(self, sock: socket.socket) -> bool:
        """Whether the proxy still runs; then it closes the socket when it stops."""
        with self._lock:
            if not self._stopped:
                self._open.append(sock)
            return not self._stopped

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if not self._held(sock):
                sock.close()
                return
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:  # a client waits for the answer, so nothing comes behind it
                if not (data := sock.recv(4096)):
                    return
                head += data
            method, target, _ = head.decode("latin-1").split(" ", 2)
            self.asked_for.append(target)
            if method != "CONNECT":
                sock.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
                _shut(sock)
                return
            far = socket.create_connection(self._far_end, timeout=5)
            far.settimeout(None)
            if not self._held(far):
                far.close()
                return
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._start(_pump, far, sock)
            _pump(sock, far)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _shut(source)
    _shut(sink)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
