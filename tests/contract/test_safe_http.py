"""What the HTTP ground of all providers promises: `Client` for configured APIs, `SafeClient` for users' URLs."""

from __future__ import annotations

import gzip
import ipaddress
import itertools
import logging
import os
import re
import socket
import ssl
import struct
import textwrap
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st

from channels import contract, http
from channels._addresses import Resolver, is_public, split_url
from channels._http_pool import Pool
from channels._http_wire import Connection, tls_context
from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    Deadline,
    Misconfigured,
    Refused,
    TextContent,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from channels.http import Answer, Client, SafeClient, SafeRules, Secret
from tests.contract.conformance import a_message
from tests.contract.http_peer import DEAF, HANG, RESET, RESET_FIRST, Drip, HttpPeer, Mishap, Reply, Seen

SECRET = "token-493817"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
ANYWHERE = SafeRules(http=True, ports=None)
AT_HOME = SafeRules(private=LOOPBACK, http=True, ports=None)


_made: list[Client | SafeClient] = []


def api(url: str, **options: Any) -> Client:
    """A client for a configured API, closed after the test."""
    _made.append(client := Client(url, **options))
    return client


def safe(rules: SafeRules | None = None, **options: Any) -> SafeClient:
    """A client for users' URLs, closed after the test."""
    _made.append(client := SafeClient(rules, **options))
    return client


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


def at(*found: str) -> Resolver:
    """A resolver that finds these addresses for any host."""
    return lambda _host, _port: found


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer(Reply(202, {"id": "m-1"})) as running:
        yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("http-ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_tls(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def post(client: Client, seconds: float = 10, target: str = "/v1/messages", body: bytes = b"{}") -> Answer:
    return client.request("POST", target, Deadline(seconds), body=body)


def failure_of(call: Callable[[], object]) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        call()
    return caught.value


def outcome_of(call: Callable[[], object]) -> tuple[type[ChannelError], str]:
    failure = failure_of(call)
    return type(failure), failure.code


def idle_one(client: Client) -> Connection:
    """The only connection that the client keeps."""
    ((_, connection),) = client._pool._idle
    return connection


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about in time"
        threading.Event().wait(0.005)


# --- the good path ----------------------------------------------------------------------------------


def test_a_request_arrives_as_it_was_made_and_its_answer_comes_back(peer: HttpPeer) -> None:
    client = api(peer.url)

    answer = client.request(
        "POST", "/v1/a?b=c%20d", Deadline(5), headers={"X-Key": "k"}, body="Grüße".encode()
    )

    (seen,) = peer.requests
    assert (seen.method, seen.target, seen.body.decode()) == ("POST", "/v1/a?b=c%20d", "Grüße")
    assert seen.headers == {
        "host": f"127.0.0.1:{peer.port}",
        "accept-encoding": "identity",
        "content-length": "7",
        "user-agent": "notify-tasks",
        "x-key": "k",
    }
    assert (answer.status, answer.identifier("id"), answer.failure(Capability.OPAQUE)) == (202, "m-1", None)


def test_an_answer_without_a_body_or_to_the_end_of_the_connection_is_read_too(peer: HttpPeer) -> None:
    client = api(peer.url)
    peer.says(
        Reply(204), b'HTTP/1.0 200 OK\r\n\r\n{"id":"m-2"}', b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    )

    assert [post(client).body for _ in range(3)] == [b"", b'{"id":"m-2"}', b"{}"]


def test_a_chunked_answer_keeps_its_connection(peer: HttpPeer) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    def serve(sock: socket.socket) -> None:
        came = b""
        while data := sock.recv(65536):
            came += data
            if came.endswith(b"{}"):
                sock.sendall(chunked)

    with HttpPeer(handle=serve) as chunky:
        client = api(chunky.url)

        assert [post(client).body for _ in range(3)] == [b"abcde"] * 3
        assert chunky.connections == 1


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"id": 17}, "17"),
        ({"id": "a-b_c.1"}, "a-b_c.1"),
        ({"id": True}, None),
        ({"id": ""}, None),
        ({"id": "two words"}, None),
        ({"id": "x" * 201}, None),
        ({"id": ["x"]}, None),
        (["id"], None),
        ("[" * 100_000, None),
        (b"\xff\xfe", None),
    ],
)
def test_an_id_is_kept_only_if_it_is_one(body: object, found: str | None, peer: HttpPeer) -> None:
    peer.says(Reply(200, body))

    assert post(api(peer.url)).identifier("id") == found


@pytest.mark.parametrize(
    ("status", "keyed", "opaque"),
    [
        (200, None, None), (202, None, None), (204, None, None),
        (301, Misconfigured, Misconfigured), (304, Misconfigured, Misconfigured),
        (400, Refused, Refused), (401, Misconfigured, Misconfigured), (402, Misconfigured, Misconfigured),
        (403, Misconfigured, Misconfigured), (404, Misconfigured, Misconfigured),
        (405, Misconfigured, Misconfigured), (408, TryLater, TryLater), (410, Misconfigured, Misconfigured),
        (413, Refused, Refused), (415, Misconfigured, Misconfigured), (422, Refused, Refused),
        (425, TryLater, TryLater), (429, Throttled, Throttled), (500, TryLater, Uncertain),
        (502, TryLater, Uncertain), (503, Unavailable, Unavailable), (504, TryLater, Uncertain),
    ],
)  # fmt: skip
def test_a_status_means_the_same_at_every_api_that_says_nothing_else(
    status: int, keyed: type[ChannelError] | None, opaque: type[ChannelError] | None
) -> None:
    answer = Answer(status)

    for capability, outcome in ((Capability.IDEMPOTENT, keyed), (Capability.OPAQUE, opaque)):
        failure = answer.failure(capability)
        assert (None if failure is None else type(failure)) is outcome
        assert failure is None or (failure.code, bool(failure.detail)) == (str(status), True)


def test_a_providers_own_tables_come_first() -> None:
    answer = Answer(404, {"retry-after": "7"}, b'{"error": 131, "other": [1]}')

    ours = answer.failure(Capability.OPAQUE, {404: (AddressInvalid, "no such number")})
    refusal = answer.refusal(answer.fields().get("error"), {"131": (Throttled, "too fast")})

    assert (type(ours), str(ours)) == (AddressInvalid, "404: no such number")
    assert refusal is not None
    assert (type(refusal), refusal.code, refusal.retry_after) == (Throttled, "131", 7)
    assert answer.refusal("130", {"131": (Throttled, "too fast")}) is None
    assert answer.refusal(answer.fields().get("other"), {"131": (Throttled, "too fast")}) is None


def test_the_example_in_the_docstring_is_a_provider(peer: HttpPeer) -> None:
    (block,) = re.findall(r"reads as one::\n\n(.*?)\n\nThen write", http.__doc__ or "", re.DOTALL)
    made: dict[str, Any] = {**vars(contract), **vars(http)}
    exec(textwrap.dedent(block), made)
    message = a_message("sms", "+491701234567", TextContent("hello"))
    provider = made["build"]("sms-main", {"token": SECRET, "url": peer.url})
    try:
        accepted = provider.send(message, Deadline(5))
        peer.says(Reply(400, {"error": "BAD_NUMBER"}), Reply(402), Reply(500))
        failures = [outcome_of(lambda: provider.send(message, Deadline(5))) for _ in range(3)]
    finally:
        provider.close()

    assert accepted == Accepted("m-1", "202")
    assert failures == [(AddressInvalid, "BAD_NUMBER"), (Misconfigured, "402"), (Uncertain, "500")]
    assert peer.requests[0].body == b'{"text":"hello","to":"+491701234567"}'
    assert peer.requests[0].headers["authorization"] == f"Bearer {SECRET}"


# --- TLS --------------------------------------------------------------------------------------------


def test_tls_is_1_2_or_later_and_checks_names() -> None:
    context = tls_context(None)

    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_tls_is_checked_against_the_ca_file(authority: trustme.CA, ca_file: str) -> None:
    with HttpPeer(tls=server_tls(authority)) as peer:
        assert post(api(peer.url, ca_file=ca_file)).status == 200
        assert outcome_of(partial(post, api(peer.url))) == (Misconfigured, "certificate")
    with HttpPeer(tls=server_tls(authority, "other.example")) as peer:
        assert outcome_of(partial(post, api(peer.url, ca_file=ca_file))) == (Misconfigured, "certificate")
        assert peer.requests == []


def test_a_server_without_tls_gets_no_request(peer: HttpPeer) -> None:
    client = api(f"https://127.0.0.1:{peer.port}")
    with HttpPeer(
        b"HTTP/1.1 400 Bad Request\r\n\r\n", handle=lambda sock: sock.sendall(b"220 hello\r\n" * 9)
    ) as odd:
        client = api(f"https://127.0.0.1:{odd.port}")

        assert outcome_of(partial(post, client)) == (Misconfigured, "tls")


def test_a_handshake_that_drips_ends_at_the_deadline_with_nothing_sent() -> None:
    stop = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.recv(1)
        sock.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB, which never ends
        while not stop.wait(0.02):
            sock.sendall(b"\x00")

    with HttpPeer(handle=drip) as peer:
        deadline = Deadline(0.8)
        failure = failure_of(lambda: api(f"https://127.0.0.1:{peer.port}").request("POST", "/", deadline))
        stop.set()

    assert (type(failure), failure.code) == (Unavailable, "handshake")
    assert 0 <= deadline.overdue() < 10


# --- connections ------------------------------------------------------------------------------------


def test_thirty_threads_share_the_pooled_connections(peer: HttpPeer) -> None:
    client = api(peer.url, connections=4)

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda number: post(client, 20, f"/{number}"), range(300)))

    assert {each.status for each in answers} == {202}
    assert sorted(int(each.target[1:]) for each in peer.requests) == list(range(300))
    assert peer.connections <= 4


def test_a_connection_that_the_server_gave_up_is_not_used_again(peer: HttpPeer) -> None:
    client = api(peer.url)
    post(client)
    peer.hang_up()
    until(lambda: not idle_one(client).alive())  # the end has come through; before, the request would race it

    assert post(client).status == 202
    assert [each.connection for each in peer.requests] == [1, 2]


def test_an_idle_connection_is_given_up_in_time_and_all_at_close(peer: HttpPeer) -> None:
    client = api(peer.url)
    post(client)
    client.close()
    post(client)
    client.close()
    client._pool = Pool(4, idle_seconds=0.0)
    post(client)
    post(client)

    assert [each.connection for each in peer.requests] == [1, 2, 3, 4]


def test_a_connection_in_use_when_the_client_closes_is_not_kept(peer: HttpPeer) -> None:
    client, go_on = api(peer.url), threading.Event()

    def when_told(_: Seen) -> Reply:
        assert go_on.wait(30)
        return Reply(200)

    peer.says(when_told, Reply(200))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(post, client)
        peer.until(lambda: peer.requests)
        client.close()
        go_on.set()
        assert call.result(timeout=10).status == 200
    post(client)

    assert [each.connection for each in peer.requests] == [1, 2]


def test_what_is_idle_for_one_host_makes_room_for_another() -> None:
    with HttpPeer() as one, HttpPeer() as other:
        client = safe(AT_HOME, connections=1)
        for each in (one, other, one):
            client.request("POST", each.url, Deadline(5))

        assert (one.connections, other.connections) == (2, 1)
        assert len(client._pool._idle) == 1


def test_a_forked_process_opens_a_connection_of_its_own(peer: HttpPeer) -> None:
    client = api(peer.url)
    post(client)

    child = os.fork()
    if child == 0:
        os._exit(0 if post(client).status == 202 else 1)
    _, status = os.waitpid(child, 0)
    post(client)

    assert status == 0
    assert [each.connection for each in peer.requests] == [1, 2, 1]


def test_when_every_connection_is_busy_the_next_call_waits_no_longer_than_its_deadline(
    peer: HttpPeer,
) -> None:
    peer.says(HANG)
    client, held = api(peer.url, connections=1), Deadline(60)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: failure_of(lambda: client.request("POST", "/", held)))
        peer.until(lambda: peer.requests)
        assert outcome_of(partial(post, client, 0.2)) == (TryLater, "pool")
        assert held.cut()
        assert type(call.result(timeout=10)) is Uncertain

    assert len(peer.requests) == 1


def test_the_environments_proxies_are_ignored(peer: HttpPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpPeer() as canary:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, canary.url)
            monkeypatch.setenv(name.lower(), canary.url)

        post(api(peer.url))
        safe(AT_HOME).request("POST", peer.url, Deadline(5))

        assert len(peer.requests) == 2
        assert canary.connections == 0


# --- the proxy that we name -------------------------------------------------------------------------


def tunnel_to(port: int, head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> tuple[HttpPeer, list[bytes]]:
    """A proxy that answers CONNECT with `head`, and then carries bytes."""
    asked: list[bytes] = []

    def carry(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def serve(sock: socket.socket) -> None:
        asked.append(sock.recv(65536))
        sock.sendall(head)
        if b" 200 " in head:
            with socket.create_connection(("127.0.0.1", port)) as onward:
                back = threading.Thread(target=carry, args=(onward, sock), daemon=True)
                back.start()
                carry(sock, onward)
                back.join(30)

    return HttpPeer(handle=serve), asked


def test_the_configured_proxy_carries_tls_that_it_cannot_read(authority: trustme.CA, ca_file: str) -> None:
    with HttpPeer(Reply(202), tls=server_tls(authority, "api.example")) as peer:
        proxy, asked = tunnel_to(peer.port)
        with proxy:
            url = Secret(f"http://fleet:p%40ss@127.0.0.1:{proxy.port}")
            client = api("https://api.example", ca_file=ca_file, proxy=url)

            assert [post(client).status for _ in range(2)] == [202, 202]
            client.close()

    connect = b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n"
    assert asked == [connect + b"Proxy-Authorization: Basic ZmxlZXQ6cEBzcw==\r\n\r\n"]
    assert [each.headers["host"] for each in peer.requests] == ["api.example"] * 2


@pytest.mark.parametrize(
    ("head", "outcome"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", (Misconfigured, "proxy-denies")),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", (Unavailable, "proxy")),
        (b"what?\r\n\r\n", (Unavailable, "proxy")),
        (b"", (Unavailable, "proxy")),
    ],
)
def test_a_proxy_that_gives_no_connection(head: bytes, outcome: tuple[type[ChannelError], str]) -> None:
    proxy, _ = tunnel_to(1, head)
    with proxy:
        client = api("https://api.example", proxy=Secret(f"http://127.0.0.1:{proxy.port}"))

        assert outcome_of(partial(post, client)) == outcome


# --- not sent ---------------------------------------------------------------------------------------


def test_a_closed_port_is_surely_not_sent_to(peer: HttpPeer) -> None:
    client = api(peer.url)
    post(client)
    peer.stop_listening()
    peer.hang_up()
    until(lambda: not idle_one(client).alive())

    assert outcome_of(partial(post, client)) == (Unavailable, "connect")
    assert len(peer.requests) == 1


def no_address(host: str, port: int) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_AGAIN, "try again")


def test_a_name_without_an_address_is_trouble_of_now(peer: HttpPeer) -> None:
    ours = api("http://api.example", resolver=no_address)
    users = safe(AT_HOME, resolver=no_address)

    assert outcome_of(partial(post, ours)) == (Unavailable, "resolve")
    assert outcome_of(lambda: users.request("POST", "http://a.example/", Deadline(5))) == (
        TryLater,
        "resolve",
    )


def test_a_name_server_that_never_answers_holds_nobody_past_the_deadline() -> None:
    answer = threading.Event()

    def tarpit(host: str, port: int) -> Sequence[str]:
        answer.wait(30)
        return ["127.0.0.1"]

    deadline = Deadline(0.3)
    client = safe(AT_HOME, resolver=tarpit)
    found = outcome_of(lambda: client.request("POST", "http://slow.example/", deadline))
    answer.set()

    assert found == (TryLater, "resolve")
    assert deadline.overdue() < 10


def test_without_time_left_nothing_is_sent(peer: HttpPeer) -> None:
    assert outcome_of(partial(post, api(peer.url), 0)) == (TryLater, "deadline")
    assert peer.connections == 0


def test_a_request_that_is_not_read_to_its_end_is_surely_not_taken(peer: HttpPeer) -> None:
    peer.says(DEAF)
    body = b"x" * 30_000_000
    deadline = Deadline(1)

    found = outcome_of(lambda: api(peer.url).request("POST", "/", deadline, body=body))

    assert found == (TryLater, "send")
    assert 0 <= deadline.overdue() < 10


def test_a_connection_that_ends_within_a_long_request_is_surely_not_sent() -> None:
    def reset(sock: socket.socket) -> None:
        sock.recv(1024)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with HttpPeer(handle=reset) as peer:
        body = b"x" * 30_000_000
        assert outcome_of(lambda: post(api(peer.url), body=body)) == (TryLater, "send")


def test_an_answer_before_the_end_of_a_long_request_is_heard() -> None:
    def refuse(sock: socket.socket) -> None:
        sock.recv(1024)
        sock.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)

    with HttpPeer(handle=refuse) as peer:
        assert post(api(peer.url), body=b"x" * 30_000_000).status == 413


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("a", {}),
        ("http://evil.example/", {}),
        ("/ü", {}),
        ("/", {"X-A": "b\r\nX-C: d"}),
        ("/", {"X-A": "b\n"}),
        ("/", {"X-A": "ü"}),
        ("/", {"X A": "b"}),
        ("/", {"X-A:": "b"}),
        ("/", {"Host": "evil.example"}),
        ("/", {"content-length": "3"}),
        ("/", {"Transfer-Encoding": "chunked"}),
    ],
)
def test_nothing_can_be_smuggled_into_a_request(target: str, headers: dict[str, str], peer: HttpPeer) -> None:
    client = api(peer.url)

    failure = failure_of(lambda: client.request("POST", target, Deadline(5), headers=headers))

    assert type(failure) is Refused
    assert peer.connections == 0


# --- sent, and no answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("harmless", [False, True])
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (HANG, "timeout"),
        (Drip(Reply(200, {"id": "m"}), 0.05), "timeout"),
        (RESET, "connection-lost"),
        (b"", "connection-lost"),
        (b"HTTP/1.1 banana\r\n\r\n", "garbled"),
        (b"SSH-2.0-OpenSSH\r\n", "garbled"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "garbled"),
    ],
)
def test_a_lost_answer_leaves_it_uncertain_unless_repeating_is_harmless(
    answer: Mishap | Drip | bytes,
    code: str,
    harmless: bool,  # noqa: FBT001 - a parameter of pytest's
    peer: HttpPeer,
) -> None:
    client = api(peer.url)
    post(client)
    peer.says(answer)
    deadline = Deadline(0.5)

    failure = failure_of(lambda: client.request("POST", "/", deadline, harmless=harmless))

    assert (type(failure), failure.code) == (TryLater if harmless else Uncertain, code)
    assert deadline.overdue() < 10
    assert len(peer.requests) == 2


def test_a_connection_reset_before_the_request_was_read_is_never_a_yes_or_a_no(peer: HttpPeer) -> None:
    peer.says(RESET_FIRST)

    assert type(failure_of(partial(post, api(peer.url)))) in {Uncertain, TryLater, Unavailable}
    assert peer.requests == []


def test_in_tls_a_connection_reset_before_the_request_was_read_is_surely_not_sent() -> None:
    with HttpPeer(RESET_FIRST) as peer:
        client = api(f"https://127.0.0.1:{peer.port}")

        assert type(failure_of(partial(post, client))) is Unavailable  # at connect or at the handshake


@pytest.mark.parametrize(
    "answer",
    [
        Reply(202, b"x" * 70_000),
        Reply(202, b"{}", length=500),
        Drip(Reply(202, b"x" * 100), 0.05, after=90),
        Reply(202, gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}),
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nbanana\r\n",
    ],
)
def test_a_status_holds_though_its_body_cannot_be_read(answer: Reply | Drip | bytes, peer: HttpPeer) -> None:
    peer.says(answer, Reply(200))
    client = api(peer.url)

    first, second = post(client, 1), post(client, 1)

    assert (first.status, first.body, first.fields(), first.text()) == (202, None, {}, "")
    assert second.status == 200
    assert [each.connection for each in peer.requests] == [1, 2]


def test_a_connection_whose_answer_was_broken_is_not_used_again() -> None:
    broken = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nbanana\r\n"

    def serve(sock: socket.socket) -> None:
        came = b""
        while data := sock.recv(65536):  # it stays open, as if all were well
            came += data
            if came.endswith(b"{}"):
                sock.sendall(broken)

    with HttpPeer(handle=serve) as peer:
        client = api(peer.url)

        assert [post(client).body for _ in range(2)] == [None, None]
        assert peer.connections == 2


def endless(head: bytes, again: bytes) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(head)
        while True:
            sock.sendall(again)

    return serve


OK_HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("head", "again", "status"),
    [
        (OK_HEAD + b"Content-Length: 99999999999\r\n\r\n", b"x" * 65536, 200),
        (OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", b"x" * 65536, 200),
        (OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: y\r\n" * 999, 200),
        (OK_HEAD, b"X-Header: y\r\n" * 999, None),
        (OK_HEAD + b"X-Header: ", b"x" * 65536, None),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999, None),
        (OK_HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"\0" * 10_000_000), 200),
    ],
)
def test_an_endless_answer_is_given_up_with_little_memory(
    head: bytes, again: bytes, status: int | None
) -> None:
    deadline = Deadline(30)
    with HttpPeer(handle=endless(head, again)) as peer:
        client = api(peer.url)
        tracemalloc.start()
        try:
            if status is None:
                assert type(failure_of(lambda: client.request("POST", "/", deadline))) is Uncertain
            else:
                answer = client.request("POST", "/", deadline)
                assert (answer.status, answer.body) == (status, None)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert deadline.overdue() < 0  # given up for its length, not for the time it takes
    assert peak < 20 * 1024 * 1024


# --- nothing private --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [Reply(500, SECRET), HANG, RESET, b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"]
)
def test_nothing_private_is_told(
    answer: Reply | Mishap | bytes, peer: HttpPeer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = api(peer.url)
    post(client)
    peer.says(answer)
    headers = {"Authorization": f"Bearer {SECRET}"}

    def call() -> Answer:
        return client.request("POST", f"/{SECRET}", Deadline(0.5), headers=headers, body=SECRET.encode())

    chain: tuple[BaseException | None, ...] = ()
    try:
        told = repr(call())
    except ChannelError as error:
        chain = (error.__cause__, error.__context__)
        told = repr(error) + "".join(traceback.format_exception(error))

    assert set(chain) <= {None}

    assert SECRET in peer.requests[-1].target
    for text in (told, caplog.text, repr(client), repr(vars(client)), repr(Secret(SECRET))):
        assert SECRET not in text


# --- users' URLs: what is refused -------------------------------------------------------------------

FORBIDDEN_HOSTS = [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "100.64.0.1", "100.100.100.200", "169.254.169.254", "168.63.129.16", "192.0.0.192", "198.18.0.1",
    "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::]", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fec0::1]",
    "[ff02::1]", "[2001:db8::1]", "[3fff::1]", "[5f00::1]", "[100::1]",
    "localhost", "LOCALHOST", "localhost.", "ⓛocalhost", "①②⑦.0.0.1.",
]  # fmt: skip
MALFORMED_HOSTS = [
    "2130706433", "0x7f.1", "127.1", "0", "0177.0.0.1", "017700000001", "0x7f000001", "127.0.0.01", "1.2.3",
    "127.0.0.1.5", "256.0.0.1", "[fe80::1%25lo]", "[::1", "::1", "[::1]x", "[v1.x]", "[127.0.0.1]",
    "", ".", "a..b", "-a.example", "a b.example", "a\\b.example", "a\tb.example", "user@127.0.0.1",
    "user:pass@example.com", "example.com@127.0.0.1", "a" * 64 + ".example", "a.example:99999", "a.example:0",
    "a.example:http", "%31%32%37.0.0.1", "a%00.example",
]  # fmt: skip


@pytest.fixture
def canaries() -> Iterator[list[HttpPeer]]:
    """Listeners on this machine's loopback addresses, on one port."""
    with HttpPeer() as four, HttpPeer(host="::1", port=four.port) as six:
        yield [four, six]


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
def test_a_host_that_is_not_on_the_public_internet_is_refused(host: str, canaries: list[HttpPeer]) -> None:
    url = f"http://{host}:{canaries[0].port}/hook"

    assert outcome_of(lambda: safe(ANYWHERE).request("POST", url, Deadline(5))) == (
        Refused,
        "forbidden",
    )
    assert sum(each.connections for each in canaries) == 0


@pytest.mark.parametrize("host", MALFORMED_HOSTS)
def test_a_url_that_nobody_could_send_to_is_an_invalid_address(host: str, canaries: list[HttpPeer]) -> None:
    port = (
        "" if host[-5:].rpartition(":")[1] and "[" not in host and host != "::1" else f":{canaries[0].port}"
    )

    failure = failure_of(lambda: safe(ANYWHERE).request("POST", f"http://{host}{port}/", Deadline(5)))

    assert (type(failure), failure.code) == (AddressInvalid, "url")
    assert sum(each.connections for each in canaries) == 0
    assert host not in failure.detail or len(host) < 3


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://a.example/", "url"), ("file:///etc/passwd", "url"), ("gopher://a.example/", "url"),
        ("//a.example/", "url"), ("a.example", "url"), ("", "url"), ("https:a.example", "url"),
        ("https:///x", "url"), (" https://a.example", "url"), ("https://a.example/\r\nX: y", "url"),
        ("https://a.example/" + "x" * 2100, "url"), ("https://a.example/\ud800", "url"),
        ("http://a.example/", "http"), ("https://a.example:22/", "port"), ("https://a.example:6379/", "port"),
        ("https://b.example/", "host"), ("https://a.example.evil.example/", "host"),
        ("https://push.example/", "host"), ("https://evilpush.example/", "host"),
    ],
)  # fmt: skip
def test_a_url_outside_the_rules_is_refused_before_any_lookup(url: str, code: str) -> None:
    asked: list[str] = []

    def ask(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return []

    client = safe(SafeRules(hosts=("a.example", "*.push.example")), resolver=ask)

    failure = failure_of(lambda: client.request("POST", url, Deadline(5)))

    assert (type(failure), failure.code) == (AddressInvalid if code == "url" else Refused, code)
    assert asked == []
    assert outcome_of(lambda: client.request("POST", "https://x.push.example/", Deadline(5)))[1] == "resolve"


def test_a_name_server_that_changes_its_mind_changes_nothing() -> None:
    # The public server of this story is 127.0.0.2, the only address that is allowed; 127.0.0.1 is ours.
    rules = SafeRules(private=(ipaddress.ip_network("127.0.0.2/32"),), http=True, ports=None)
    with HttpPeer(host="127.0.0.2") as public, HttpPeer(port=public.port) as canary:
        answers = itertools.cycle([["127.0.0.2"], ["127.0.0.1"]])
        client = safe(rules, resolver=lambda _host, _port: next(answers))
        url = f"http://rebind.example:{public.port}/"

        for _ in range(5):
            client.request("POST", url, Deadline(5))
            client.close()
            assert outcome_of(lambda: client.request("POST", url, Deadline(5))) == (Refused, "forbidden")

        assert (public.connections, canary.connections) == (5, 0)


def test_one_forbidden_address_of_a_host_is_enough() -> None:
    rules = SafeRules(private=(ipaddress.ip_network("127.0.0.2/32"),), http=True, ports=None)
    with HttpPeer(host="127.0.0.2") as public, HttpPeer(port=public.port) as canary:
        for found in (["127.0.0.2", "127.0.0.1"], ["127.0.0.2", "::1"], ["fe80::1%1", "127.0.0.2"]):
            client = safe(rules, resolver=at(*found))
            url = f"http://mixed.example:{public.port}/"

            assert outcome_of(partial(client.request, "POST", url, Deadline(5))) == (
                Refused,
                "forbidden",
            )

        assert (public.connections, canary.connections) == (0, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(status: int) -> None:
    with HttpPeer() as canary, HttpPeer(Reply(status, headers={"Location": canary.url})) as peer:
        assert safe(AT_HOME).request("POST", peer.url, Deadline(5)).status == status
        assert post(api(peer.url)).status == status
        assert canary.connections == 0


def test_tls_proves_the_name_in_the_url_and_not_the_address(authority: trustme.CA, ca_file: str) -> None:
    rules = SafeRules(private=LOOPBACK, ports=None)
    client = safe(rules, ca_file=ca_file, resolver=at("127.0.0.1"))
    with HttpPeer(tls=server_tls(authority, "hooks.example")) as peer:
        assert client.request("POST", f"https://hooks.example.:{peer.port}/", Deadline(5)).status == 200
        assert [each.headers["host"] for each in peer.requests] == [f"hooks.example:{peer.port}"]
    with HttpPeer(tls=server_tls(authority, "127.0.0.1")) as peer:
        url = f"https://hooks.example:{peer.port}/"
        assert outcome_of(lambda: client.request("POST", url, Deadline(5))) == (TryLater, "certificate")
        assert peer.requests == []


def test_one_users_server_never_speaks_for_the_provider(peer: HttpPeer) -> None:
    client = safe(AT_HOME)
    peer.stop_listening()

    assert outcome_of(lambda: client.request("POST", peer.url, Deadline(5))) == (TryLater, "connect")


# --- users' URLs, by the thousand -------------------------------------------------------------------

IPV4 = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([each for each in FORBIDDEN_HOSTS if each.isascii() and each[0].isdigit()]).map(
        lambda text: int(ipaddress.IPv4Address(text))
    ),
).map(ipaddress.IPv4Address)


OURS_ALONE = {  # global to Python 3.11, and still nobody's web server
    *ipaddress.ip_network("192.0.0.0/24"),
    *ipaddress.ip_network("192.88.99.0/24"),
    ipaddress.ip_address("168.63.129.16"),
}


@settings(max_examples=1000, deadline=None)
@given(IPV4)
def test_a_public_address_is_global_to_python_too(address: ipaddress.IPv4Address) -> None:
    special = not address.is_global or address.is_multicast or address.is_reserved or address.is_link_local

    assert not (is_public(address) and special)
    if not special:
        assert is_public(address) or address in OURS_ALONE


@settings(max_examples=1000, deadline=None)
@given(IPV4)
def test_an_address_is_judged_alike_in_every_disguise(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    disguises = [
        ipaddress.IPv6Address(0xFFFF << 32 | number),  # mapped
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1),
    ]

    assert {is_public(each) for each in disguises} == {is_public(address)}
    for odd in (f"{number}", f"0x{number:x}", f"0{number:o}", f"{number >> 24}.{number & 0xFFFFFF}"):
        with pytest.raises(ValueError, match="four plain numbers"):
            split_url(f"https://{odd}/")


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address))
@example(ipaddress.IPv6Address("fec0::1"))
def test_a_public_ipv6_address_is_a_global_unicast_one(address: ipaddress.IPv6Address) -> None:
    if is_public(address) and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert address in ipaddress.ip_network("2000::/3")
        assert address.is_global


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "223.255.255.255",
                                     "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"])  # fmt: skip
def test_the_public_internet_can_be_sent_to(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_private_networks_can_be_allowed_one_by_one() -> None:
    allowed = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32"))

    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5"):
        assert is_public(ipaddress.ip_address(address), allowed)
    for address in ("10.2.0.1", "::ffff:10.2.0.1", "fd00:2::5", "127.0.0.1", "::1"):
        assert not is_public(ipaddress.ip_address(address), allowed)


PIECES = st.sampled_from(
    ["http://", "https://", "//", "/", "\\", "@", ":", "#", "?", "%00", "%2e", "[", "]", ".", "..", "\t", "\r\n",
     " ", "127.0.0.1", "localhost", "::1", "a.example", "0x7f.1", "2130706433", "80", "443", "0", "é", "\u3002",
     "\ud800", "\u2100", "x" * 70, "%"]
)  # fmt: skip


@settings(max_examples=700, deadline=None)
@given(
    st.one_of(
        st.lists(PIECES, max_size=8).map("".join),
        st.text(max_size=60),
        st.text(max_size=40).map("https://".__add__),
    )
)
def test_any_text_is_a_url_or_none_and_never_aims_at_us(url: str) -> None:
    reached: list[str] = []

    def here(host: str, port: int) -> Sequence[str]:
        reached.append(host)
        return ["127.0.0.1"]

    failure = failure_of(lambda: safe(ANYWHERE, resolver=here).request("POST", url, Deadline(5)))

    assert (type(failure), failure.code) in {(AddressInvalid, "url"), (Refused, "forbidden")}
    assert all(each.isascii() and not set(each) & set("/@:?#\\ \r\n") for each in reached)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.text(max_size=30))
def test_a_path_arrives_without_changing_the_request(path: str, query: str) -> None:
    try:
        origin, target = split_url(f"https://a.example/{path}?{query}")
    except ValueError:
        return
    assert (origin.host, origin.port) == ("a.example", 443)
    assert target.isascii()
    assert target.startswith("/")
    assert not set(target) & set(" \r\n\t#")


def test_ca_files_are_read_when_a_client_is_made(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file"):
        safe(ca_file=str(tmp_path / "none.pem"))
