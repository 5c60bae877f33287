"""The least that SMTP and HTTP far ends can be, over TLS, in a process of their own: what is measured is the client.

`python -m bench.far_end DIRECTORY` prints the two ports and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

CA_NAME: Final = "ca.pem"
_LEAF: Final = "leaf.pem"
_ANSWER: Final = b"HTTP/1.1 202 Accepted\r\nX-Message-Id: bench\r\nContent-Length: 0\r\n\r\n"
_HELLO: Final = b"250-bench\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n"
_REPLIES: Final = {
    b"AUTH": b"235 2.7.0 ok\r\n",
    b"MAIL": b"250 2.1.0 ok\r\n",
    b"RCPT": b"250 2.1.5 ok\r\n",
    b"RSET": b"250 2.0.0 ok\r\n",
    b"NOOP": b"250 2.0.0 ok\r\n",
    b"DATA": b"354 go ahead\r\n",
}


@dataclass(frozen=True, slots=True)
class FarEnd:
    """Where it listens.

    Args:
        ca_file: PEM of the root to trust.
        pid: of its process.
    """

    smtp_url: str
    https_url: str
    ca_file: str
    pid: int


@contextmanager
def running_far_end(directory: Path) -> Iterator[FarEnd]:
    """Start one as a child; it ends with the block, or with this process.

    Args:
        directory: takes its certificates.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.far_end", str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdout:
            smtp, https = json.loads(process.stdout.readline())
        yield FarEnd(
            f"smtp://user:password@localhost:{smtp}",
            f"https://localhost:{https}",
            str(directory / CA_NAME),
            process.pid,
        )
    finally:
        process.stdin.close()
        process.wait(10)


async def _smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext) -> None:
    writer.write(b"220 bench ESMTP\r\n")
    while line := await reader.readline():
        verb = line[:4].upper()
        if verb == b"EHLO":
            writer.write(_HELLO)
        elif verb == b"STAR":
            writer.write(b"220 2.0.0 go ahead\r\n")
            await writer.drain()
            await writer.start_tls(tls)
        elif verb == b"QUIT":
            writer.write(b"221 2.0.0 bye\r\n")
            break
        else:
            writer.write(_REPLIES[verb])
            if verb == b"DATA":
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 2.0.0 Ok: queued as BENCH\r\n")
    writer.close()


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or b"0"))
            writer.write(_ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has left
    finally:
        writer.close()


def _certificates(directory: Path) -> ssl.SSLContext:
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / CA_NAME)
    leaf = directory / _LEAF
    leaf.write_bytes(authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.bytes())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(leaf)
    return tls


async def _serve(tls: ssl.SSLContext) -> None:
    limit = 1 << 20
    smtp = await asyncio.start_server(lambda r, w: _smtp(r, w, tls), "127.0.0.1", 0, limit=limit)
    https = await asyncio.start_server(_http, "127.0.0.1", 0, ssl=tls, limit=limit)
    ports = [server.sockets[0].getsockname()[1] for server in (smtp, https)]
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    over = asyncio.Event()

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            over.set()

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), look)
    await over.wait()


if __name__ == "__main__":
    asyncio.run(_serve(_certificates(Path(sys.argv[1]))))
