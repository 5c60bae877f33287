"""`notify demo` as a stranger meets it: it works, says so, and leaves nothing running.

The whole demo takes most of a minute, in which it mostly waits. It runs beside the other tests, in a folder of its own.
"""

from __future__ import annotations

import base64
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
NOTIFY = (sys.executable, "-c", "import sys; from notify_tasks.cli import main; sys.exit(main())")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("NOTIFY_")},
    "PYTHONPATH": str(ROOT),
    "TERM": "xterm-256color",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where somebody types `notify`. The tests of this file run one after the other in it, as people do."""
    made = tmp_path_factory.mktemp("demo")
    yield made
    assert wait_for_nobody(made) == []


@dataclass(frozen=True)
class ByItself:
    """A whole demo, which nobody watches."""

    folder: Path
    process: subprocess.Popen[bytes]
    out: Path
    errors: Path


@pytest.fixture(scope="module", autouse=True)
def by_itself(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByItself]:
    """Started before the other tests of this file, without a terminal. The last one reads what it said."""
    told = tmp_path_factory.mktemp("told")
    folder = tmp_path_factory.mktemp("by-itself")
    with (told / "out").open("wb") as out, (told / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [*NOTIFY, "demo", "--once"],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
        )
    yield ByItself(folder, process, told / "out", told / "errors")
    if process.poll() is None:
        process.terminate()
    process.wait(60)


def still_running(folder: Path) -> list[str]:
    """Processes that were started for a demo in this folder: by their arguments or their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            words = [*process.cmdline(), *process.environ().values()]
            if any(str(folder) in word for word in words):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


def wait_for_nobody(folder: Path, seconds: float = 30) -> list[str]:
    """What is left after so many seconds."""
    ends = time.monotonic() + seconds
    while (left := still_running(folder)) and time.monotonic() < ends:
        time.sleep(0.1)
    return left


def notify(folder: Path, *arguments: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    """A command typed in the folder, without a terminal."""
    return subprocess.run(
        [*NOTIFY, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


ITS_SESSION = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A command that believes in its terminal."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process, self._side = _on_a_terminal([*NOTIFY, *arguments], folder)
        self.said = ""

    def read(self, seconds: float) -> str:
        """What it has shown until now, and within so many seconds."""
        ready, _, _ = select.select([self._side], [], [], seconds)
        if ready:
            with suppress(OSError):  # Linux: the other side is closed
                self.said += os.read(self._side, 65536).decode(errors="replace")
        return self.said

    def until(self, pattern: str, seconds: float) -> str:
        """Read until it shows this."""
        ends = time.monotonic() + seconds
        while not re.search(pattern, plain(self.said)):
            assert time.monotonic() < ends, (
                f"{pattern!r}: not within {seconds} s in\n{plain(self.said)[-3000:]}"
            )
            assert self.process.poll() is None or re.search(pattern, plain(self.read(0.5))), plain(self.said)
            self.read(0.2)
        return plain(self.said)

    def ctrl_c(self) -> None:
        """As a person types it: for the whole foreground process group."""
        os.write(self._side, b"\x03")

    def wait(self, seconds: float) -> int:
        """Read to its end."""
        ends = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < ends:
            self.read(0.1)
        self.read(0.1)
        return self.process.wait(1)

    def close(self) -> None:
        """Let go of it."""
        if self.process.poll() is None:
            self.process.terminate()
            self.wait(30)
        os.close(self._side)


def _on_a_terminal(command: Sequence[str], folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ITS_SESSION, *command],
        cwd=folder,
        env={**ENVIRONMENT, "COLUMNS": "120", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return process, ours


def plain(text: str) -> str:
    """Without the terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


# --- the story ------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_a_demo_that_is_killed_takes_everything_with_it(folder: Path) -> None:
    process = subprocess.Popen(
        [*NOTIFY, "demo"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if "up in" in line:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_for_nobody(folder, seconds=45) == []


@pytest.mark.timeout(300)
def test_on_a_terminal_other_commands_speak_to_it_until_ctrl_c(folder: Path) -> None:
    used_before = (folder / ".notify" / "postgres" / "data").exists()
    terminal = Terminal(folder, "demo")
    try:
        # Given a demo, which takes over what an earlier one in the same folder has left,
        said = terminal.until(r"up in \d+\.\d s", 90)
        assert "schema: up to date" in said or not used_before
        terminal.until(r"SIGKILL to worker email", 90)
        assert len(still_running(folder)) > 10

        # when somebody types in another terminal,
        sent = notify(
            folder, "send", "order.shipped", "--to", "wei", "--payload", '{"order_id": 1}', "--wait", "20"
        )
        known = notify(folder, "status", sent.stdout.strip())
        second = notify(folder, "demo")

        # then it is the demo that answers, and says so;
        assert sent.returncode == 0, sent.stderr
        assert "using the demo that runs in .notify" in sent.stderr
        assert "inapp wei" in known.stdout
        assert second.returncode == 1
        assert f"a demo runs in .notify already (process {terminal.process.pid})" in second.stderr
        assert (folder / ".notify" / "demo.env").stat().st_mode & 0o077 == 0
        flower_lets_in_whoever_knows_the_password(folder)

        # and Ctrl-C, however often, stops everything in order.
        terminal.ctrl_c()
        time.sleep(0.3)
        terminal.ctrl_c()
        assert terminal.wait(60) == 130
        assert "nothing is left running" in plain(terminal.said)
    finally:
        terminal.close()
    assert wait_for_nobody(folder) == []
    assert not (folder / ".notify" / "demo.env").exists()
    assert notify(folder, "status", "x").returncode == 1  # and no demo is found any more


def flower_lets_in_whoever_knows_the_password(folder: Path) -> None:
    remark = (folder / ".notify" / "demo.env").read_text()
    found = re.search(r"Flower: http://(\S+), user (\S+), password (\S+)", remark)
    assert found
    place, user, password = found.groups()
    assert place.startswith("127.0.0.1:")
    assert not any(password in line for line in still_running(folder))  # an argument is for everybody to read
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    for headers, expected in (({}, 401), ({"Authorization": f"Basic {basic}"}, 200)):
        connection = HTTPConnection(place, timeout=10)
        connection.request("GET", "/workers", headers=headers)
        assert connection.getresponse().status == expected
        connection.close()


@pytest.mark.timeout(120)
def test_ctrl_c_while_it_starts_leaves_nothing(folder: Path) -> None:
    terminal = Terminal(folder, "demo")
    try:
        terminal.until(r"9 processes", 60)
        terminal.ctrl_c()
        assert terminal.wait(60) == 130
    finally:
        terminal.close()
    assert wait_for_nobody(folder) == []


@pytest.mark.timeout(240)
def test_it_ends_well_by_itself_without_a_terminal(by_itself: ByItself) -> None:
    status = by_itself.process.wait(220)
    said, errors = by_itself.out.read_text(), by_itself.errors.read_text()

    assert status == 0, said + errors
    assert errors == ""
    assert "\x1b" not in said  # no terminal, no colours

    # Given servers and processes of its own,
    assert re.search(r"Valkey on 127\.0\.0\.1:\d+, PostgreSQL on 127\.0\.0\.1:\d+", said)
    assert re.search(r"up in \d+\.\d s", said)
    # when a producer sends its notifications and a worker is killed,
    assert re.search(r"producer \(process \d+\): send_notification\.delay\(\.\.\.\) 23 times", said)
    assert re.search(r"SIGKILL to worker email \(process \d+\): it had [1-4] mails? in its hands", said)
    assert "email ended by SIGKILL: its supervisor has started another" in said
    assert re.search(r"waiting for the lease of \d deliver(y|ies) to end, \d+ s left", said)
    # then each has a timeline and its own end,
    assert (
        len(re.findall(r"^demo-[0-9a-f]{4}-\d\d  (order|account|invoice|comment)\.", said, re.MULTILINE))
        == 28
    )
    assert re.search(r"✖ (failed .*550 5\.1\.1|undelivered .*reported)", said)
    assert re.search(r"✔ delivered +sms \w+ +reported: delivered", said)
    assert re.search(r"✖ undelivered .*reported: ", said)
    assert re.search(r"✔ receipts: \d+ deliveries confirmed", said)
    assert re.search(r"✖ rejected +unknown_recipient", said)
    assert re.search(r"↻ retrying .*attempt 1 via webhooks: 503", said)
    assert re.search(r"called twice with one id: one delivery, one mail", said)
    # what is due later has its time on a fast clock, and is explained,
    assert "cancel_all(...): 1 delivery cancelled" in said
    assert len(re.findall(r"the clock jumps .* ahead: .* have passed", said)) >= 4
    assert re.search(r"✔ \S+, asked for 2 h later: sent after 2 h", said)
    assert re.search(r"✔ \S+, held by quiet hours: sent after (6 h 5\d min|7 h)", said)
    assert "✔ cancelled by its key: 1 delivery, and nothing was sent" in said
    assert re.search(r"✔ 3 comments in 1 mail: digest-", said)
    assert "✔ read in the app: no SMS; not read: an SMS after 10 min" in said
    assert re.search(r"✔ every hour: 1 occurrence sent once", said)
    for sentence in (
        "because the call asked for this time",
        "It was cancelled at .*: by its cancel_key",
        "It went out in a digest at .*: digest-",
        "because the recipient does not want to be disturbed at this time",
        "It was not needed any more at .*, because an earlier step was read",
        "It was made by the recurring schedule demo-",
    ):
        assert re.search(sentence, said), sentence
    assert re.search(r"asked for 8 s later: sent not before its time", said)
    assert "none missing, none unknown" in said
    assert "✔ every notification ended as it should" in said
    # and nothing private is shown, nothing left.
    assert "ana@example.com" not in said
    assert "+447700900101" not in said
    assert "nothing is left running" in said
    assert wait_for_nobody(by_itself.folder) == []


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_whole_second_run_in_the_same_folder_ends_well_too(by_itself: ByItself) -> None:
    by_itself.process.wait(220)
    done = notify(by_itself.folder, "demo", "--once", seconds=220)
    assert done.returncode == 0, done.stdout
    assert "schema: up to date" in done.stdout
    assert "✔ every notification ended as it should" in done.stdout
