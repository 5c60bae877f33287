"""Draws docs/top.png: `notify top` beside `notify demo`, under load and with a pause. Needs tmux and chromium.

.venv/bin/python docs/screenshot_top.py [FOLDER]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import screenshot_terminal
from screenshot_terminal import HERE, PATIENCE, SIGN

from notify_tasks.demo.running import read_environment

WIDTH: Final = 124
HEIGHT: Final = 36
WATCHED: Final = 14.0
"""Seconds: rates are of the last ten."""
PAUSED: Final = ("--queue", "chat", "--reason", "incident 7: the room asks for quiet")
LOAD: Final = """
import time
from notify_tasks import send_notification
until = time.monotonic() + 60
n = 0
while time.monotonic() < until:
    n += 1
    to = {"email": f"reader-{n}@example.com", "sms": f"+491511234{n % 10000:04}", "chat": "orders"}
    channels = (["email"], ["sms"], ["email", "sms"], ["email"], ["chat"])[n % 5]
    send_notification.delay("order.shipped", to=to, channels=channels, payload={"order_id": n, "carrier": "Post"})
    time.sleep(0.03)
"""


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    picture = out / "top.png"
    with tempfile.TemporaryDirectory() as folder:
        screenshot_terminal.draw(captured(Path(folder)), picture)
    sys.stdout.write(f"{picture}: {picture.stat().st_size} bytes\n")


def captured(folder: Path) -> str:
    """The screen of `notify top`, with its colours."""
    tmux = [
        shutil.which("tmux") or sys.exit("the picture needs tmux: apt-get install tmux"),
        "-L",
        folder.name,
    ]
    notify = Path(sys.executable).with_name("notify")

    def typed(*words: str) -> str:
        return subprocess.run(
            [*tmux, *words], cwd=HERE.parent, capture_output=True, text=True, check=False
        ).stdout

    def shown(window: str) -> str:
        return typed("capture-pane", "-e", "-p", "-t", window)

    demo = folder / "demo"
    typed(
        "new-session",
        "-d",
        "-x",
        str(WIDTH),
        "-y",
        str(HEIGHT),
        "-n",
        "demo",
        f"{notify} demo --directory {demo}",
    )
    try:
        _until(lambda: SIGN in shown("demo"), f"the demo says {SIGN!r}")
        environment = os.environ | read_environment(demo)
        subprocess.run([notify, "pause", *PAUSED], env=environment, cwd=HERE.parent, check=True)
        with subprocess.Popen([sys.executable, "-c", LOAD], env=environment, cwd=HERE.parent) as load:
            given = [f"-e{name}={value}" for name, value in read_environment(demo).items()]
            typed("new-window", *given, "-n", "top", f"{notify} top")
            time.sleep(WATCHED)
            screen = shown("top")
            load.terminate()
        return screen
    finally:
        typed("send-keys", "-t", "top", "q")
        typed("send-keys", "-t", "demo", "C-c")
        _until(lambda: not typed("list-sessions"), "the demo ends")


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.3)


if __name__ == "__main__":
    main()
