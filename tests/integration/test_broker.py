"""A call ends within its budget and says what is known, whatever Redis does."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis
import trustme

from notify_tasks import (
    MaybeAccepted,
    NotAccepted,
    NotConfigured,
    configure,
    producer,
    send_notification,
    settings,
)
from notify_tasks.broker import Broker, Outgoing, Refused, Unanswered, Unreachable
from notify_tasks.embedded import Server
from notify_tasks.embedded.valkey import binary

BUDGET = 0.6
SLACK = 0.5
"""Seconds: what the promise allows on top of the budget."""
CANARY = "canary@private.example"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    settings.reset()
    yield
    producer.close()
    settings.reset()


@contextmanager
def within_budget() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started <= BUDGET + SLACK


def freeze(server: Server) -> None:
    """Stop the server's process, and see that it has stopped."""
    server.kill(signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while psutil.Process(server.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@contextmanager
def dripping_server() -> Iterator[str]:
    """Answers each connection with one byte after another that never become an answer."""
    ended = threading.Event()

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    def drip(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while not ended.wait(0.05):
                connection.sendall(b"+")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield f"redis://:password@127.0.0.1:{server.getsockname()[1]}/0"
        ended.set()


@contextmanager
def closed_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"redis://127.0.0.1:{port}/0"


@pytest.mark.parametrize("away", [silent_server, dripping_server, closed_port])
def test_a_redis_that_is_not_there_costs_the_budget_at_most(away: Callable[[], Iterator[str]]) -> None:
    with away() as url:  # type: ignore[attr-defined]  # a context manager
        configure(broker_url=url, call_timeout=BUDGET)
        send = {"to": {"email": CANARY}, "payload": {"name": CANARY}, "message_id": "id-1"}

        with within_budget(), pytest.raises(MaybeAccepted) as doubt:
            send_notification.delay("order.shipped", **send)

        assert doubt.value.message_id == "id-1"
        assert "message_id='id-1'" in str(doubt.value)
        assert CANARY not in str(doubt.value)


def test_a_frozen_redis_costs_the_budget_at_most_and_the_repeated_call_gets_through(
    start_redis: Callable[[], Server],
) -> None:
    # Given a connection that has worked, and a Redis that freezes
    server = start_redis()
    configure(broker_url=server.url, call_timeout=BUDGET)
    send_notification.delay("order.shipped", to="user-1")
    freeze(server)
    try:
        # When calls are made, on the old connection and on new ones
        for _ in range(2):
            with within_budget(), pytest.raises(MaybeAccepted) as doubt:
                send_notification.delay("order.shipped", to="user-1")
        with within_budget(), pytest.raises(MaybeAccepted):
            asyncio.run(send_notification.adelay("order.shipped", to="user-1"))
    finally:
        server.kill(signal.SIGCONT)

    # Then the same id gets through once Redis goes on
    again = send_notification.delay("order.shipped", to="user-1", message_id=doubt.value.message_id)
    assert again.id == doubt.value.message_id


def test_hundreds_of_frozen_asyncio_calls_all_end_within_the_budget() -> None:
    with silent_server() as url:
        configure(broker_url=url, call_timeout=BUDGET)

        async def all_of_them() -> list[object]:
            calls = [send_notification.adelay("order.shipped", to="user-1") for _ in range(300)]
            return await asyncio.gather(*calls, return_exceptions=True)

        started = time.monotonic()
        outcomes = asyncio.run(all_of_them())

        assert {type(outcome) for outcome in outcomes} == {MaybeAccepted}
        # Three hundred calls are checked one after the other on the loop before the last one waits.
        assert time.monotonic() - started <= BUDGET + SLACK + 2


def test_a_full_redis_refuses_and_takes_nothing(start_redis: Callable[[], Server]) -> None:
    server = start_redis()
    configure(broker_url=server.url)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)

        with pytest.raises(NotAccepted, match=r"out of memory \(OOM\)"):
            send_notification.delay("order.shipped", to="user-1")
        assert client.dbsize() == 0

        # The connection is still good
        client.config_set("maxmemory", 0)
        send_notification.delay("order.shipped", to="user-1")
        assert client.llen("notify.intake") == 1


def test_a_replica_refuses(start_redis: Callable[[], Server]) -> None:
    server = start_redis()
    configure(broker_url=server.url)
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", 1)

        with pytest.raises(NotAccepted, match="name the primary"):
            send_notification.delay("order.shipped", to="user-1")
        assert client.dbsize() == 0


def test_a_restart_between_two_calls_is_not_noticed(start_redis: Callable[[], Server]) -> None:
    server = start_redis()
    configure(broker_url=server.url)
    send_notification.delay("order.shipped", to="user-1")

    server.restart()

    send_notification.delay("order.shipped", to="user-1")
    with redis.Redis.from_url(server.url) as client:
        assert client.llen("notify.intake") == 2


def test_a_connection_that_dies_under_a_call_is_replaced_and_the_message_is_there_once_at_least(
    broker: str,
) -> None:
    # Given a proxy that ends every connection it has when the next bytes come
    with cutting_proxy(broker) as (url, cut):
        configure(broker_url=url)
        send_notification.delay("order.shipped", to="user-1")

        cut.set()
        send_notification.delay("order.shipped", to="user-2", message_id="id-2")

    with redis.Redis.from_url(broker, decode_responses=True) as client:
        assert "id-2" in "".join(client.lrange("notify.intake", 0, -1))


def test_a_transaction_that_ran_in_part_is_in_doubt(broker: str) -> None:
    with redis.Redis.from_url(broker) as client:
        client.set("notify.intake", "not a list")  # the entry is written, the message cannot be
    configure(broker_url=broker)

    with pytest.raises(MaybeAccepted, match="WRONGTYPE"):
        send_notification.delay("order.shipped", to="user-1")


def test_all_messages_of_a_publish_go_together_or_not_at_all(start_redis: Callable[[], Server]) -> None:
    server = start_redis()
    broker = Broker(server.url, timeout=5)
    messages = [Outgoing("task", [n], "queue", f"id-{n}") for n in range(50)]
    with redis.Redis.from_url(server.url) as client:
        broker.publish(messages)
        assert client.llen("queue") == 50

        client.config_set("maxmemory", 1)
        with pytest.raises(Refused):
            broker.publish(messages)
        assert client.llen("queue") == 50
    broker.close()


def test_what_was_never_sent_is_told_apart_from_what_got_no_answer(start_redis: Callable[[], Server]) -> None:
    message = [Outgoing("task", [], "queue", "id")]
    with closed_port() as url, pytest.raises(Unreachable):
        Broker(url, timeout=BUDGET).publish(message)

    server = start_redis()
    broker = Broker(server.url, timeout=BUDGET)
    broker.publish(message)
    freeze(server)
    try:
        with within_budget(), pytest.raises(Unanswered):
            broker.publish(message)
    finally:
        server.kill(signal.SIGCONT)
    broker.close()


def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    path = tmp_path / "s"
    process = subprocess.Popen(
        [binary(), "--port", "0", "--unixsocket", path, "--save", "", "--dir", tmp_path],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for url in (f"unix://{path}?db=3", f"redis+socket://{path}?virtual_host=3"):
            configure(broker_url=url)
            send_notification.delay("order.shipped", to="user-1")
        with redis.Redis(unix_socket_path=str(path), db=3) as client:
            assert client.llen("notify.intake") == 2
    finally:
        process.terminate()
        process.wait(30)


def test_tls_verifies_the_certificate_unless_the_url_says_otherwise(broker: str, tmp_path: Path) -> None:
    authority, foreign = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    foreign.cert_pem.write_to_path(tmp_path / "foreign.pem")
    with tls_proxy(broker, authority) as url:
        configure(broker_url=f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}")
        send_notification.delay("order.shipped", to="user-1")

        for untrusted in (url, f"{url}?ssl_ca_certs={tmp_path / 'foreign.pem'}"):
            configure(broker_url=untrusted)
            with pytest.raises(MaybeAccepted, match="certificate"):
                send_notification.delay("order.shipped", to="user-1")

        configure(broker_url=f"{url}?ssl_cert_reqs=CERT_NONE")
        send_notification.delay("order.shipped", to="user-1")

    with redis.Redis.from_url(broker) as client:
        assert client.llen("notify.intake") == 2


@pytest.mark.parametrize(
    "url", ["redis://localhost:port/0", "rediss://localhost/0?ssl_cert_reqs=perhaps", "redis://[::1"]
)
def test_a_url_that_cannot_be_read_says_how_to_write_it(url: str) -> None:
    with pytest.raises(NotConfigured, match="Write"):
        Broker(url, timeout=1)


def test_the_repr_shows_no_password() -> None:
    broker = Broker("redis://user:s3cret@localhost:1/0", timeout=1)
    assert "s3cret" not in repr(broker)
    assert "s3cret" not in repr(Outgoing("task", ["s3cret"], "q", "id", ledger_value="s3cret"))


# --- proxies ----------------------------------------------------------------------------------------


@contextmanager
def cutting_proxy(broker: str) -> Iterator[tuple[str, threading.Event]]:
    """Hands bytes on. Once `cut` is set, the next bytes of a connection end it, unanswered."""
    cut = threading.Event()

    def spoil(data: bytes) -> bool:
        if cut.is_set() and b"LPUSH" in data:
            cut.clear()
            return True
        return False

    with _proxy(broker, spoil=spoil) as port:
        yield broker.replace(f":{urlsplit(broker).port}/", f":{port}/"), cut


@contextmanager
def tls_proxy(broker: str, authority: trustme.CA) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with _proxy(broker, wrap=lambda plain: context.wrap_socket(plain, server_side=True)) as port:
        yield broker.replace("redis://", "rediss://").replace(f":{urlsplit(broker).port}/", f":{port}/")


@contextmanager
def _proxy(
    broker: str,
    *,
    wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain,
    spoil: Callable[[bytes], bool] = lambda _: False,
) -> Iterator[int]:
    target = ("127.0.0.1", urlsplit(broker).port or 0)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if spoil(data):
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve_one(plain: socket.socket) -> None:
        with suppress(OSError), closing(wrap(plain)) as client, socket.create_connection(target) as server:
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()
        plain.close()

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
