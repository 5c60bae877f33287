"""From a clone to the first notification on the sandbox page: `python3 -m bench.first_sight`. Needs Python alone.

It clones this repository into a temporary folder and types `make demo` there twice: cold, with nothing prepared, and
warm. What is measured ends when a browser would show the first message.
"""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOOK_EVERY = 0.05
PATIENCE = 600.0


def main() -> None:
    """Measure both, and print them."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        begun = time.monotonic()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        print(f"clone                        {time.monotonic() - begun:6.1f} s")
        for name in ("cold", "warm"):
            seconds = until_seen(clone)
            print(f"`make demo`, {name}: first seen  {seconds:6.1f} s", flush=True)


def until_seen(clone: Path) -> float:
    """Seconds from typing `make demo` until its page has a message."""
    begun = time.monotonic()
    said = clone.parent / "said"
    with said.open("wb") as out:
        demo = subprocess.Popen(["make", "demo"], cwd=clone, stdout=out, stderr=out, start_new_session=True)
    try:
        while time.monotonic() - begun < PATIENCE:
            if demo.poll() is not None:
                raise SystemExit(f"the demo ended by itself:\n{said.read_text()[-2000:]}")
            page = re.search(r"open (http://\S+)", said.read_text())
            if page and shows(page[1]):
                return time.monotonic() - begun
            time.sleep(LOOK_EVERY)
        raise SystemExit(f"nothing to see within {PATIENCE:.0f} s")
    finally:
        with suppress(ProcessLookupError):
            demo.send_signal(signal.SIGINT)
            subprocess.run(["pkill", "-INT", "-s", str(demo.pid), "-f", "notify demo"], check=False)
        demo.wait(60)


def shows(page: str) -> bool:
    """Whether the page's first paint has a message."""
    with suppress(OSError), urllib.request.urlopen(page, timeout=2) as answer:
        return b'href="#/message/' in answer.read()
    return False


if __name__ == "__main__":
    main()
