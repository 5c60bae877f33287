"""Draws docs/terminal.png: `notify demo` on a terminal, just after a worker was killed. Needs tmux and chromium.

.venv/bin/python docs/screenshot_terminal.py [FOLDER]
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import screenshot_preview
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE: Final = Path(__file__).parent
WIDTH: Final = 124
HEIGHT: Final = 38
PATIENCE: Final = 120.0
SIGN: Final = "everything runs on until Ctrl-C"
"""What the demo says last."""
THEME: Final = TerminalTheme(
    (27, 30, 36),
    (232, 234, 237),
    [
        *((0, 0, 0), (242, 132, 124), (76, 195, 138), (226, 179, 65)),
        *((122, 167, 247), (199, 155, 242), (102, 200, 210), (232, 234, 237)),
    ],
)  # fmt: skip
PAGE: Final = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 24px; background: #dee1e6; display: inline-block }}
pre {{ margin: 0; padding: 20px 24px; border-radius: 8px; background: #1b1e24; color: #e8eaed;
      font: 13px/1.45 "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace }}
</style><pre>{}</pre>"""


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    picture = out / "terminal.png"
    draw(captured(), picture)
    sys.stdout.write(f"{picture}: {picture.stat().st_size} bytes\n")


def captured() -> str:
    """The demo's screen, with its colours."""
    tmux = [
        shutil.which("tmux") or sys.exit("the picture needs tmux: apt-get install tmux"),
        "-L",
        "notify-picture",
    ]
    notify = Path(sys.executable).with_name("notify")
    with tempfile.TemporaryDirectory() as folder:
        size = ["-x", str(WIDTH), "-y", str(HEIGHT)]
        subprocess.run(
            [*tmux, "new-session", "-d", *size, f"{notify} demo --directory {folder}/demo"],
            cwd=HERE.parent,
            check=True,
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                screen = subprocess.run(
                    [*tmux, "capture-pane", "-e", "-p"], capture_output=True, text=True, check=True
                ).stdout
                if SIGN in screen:
                    return screen
                time.sleep(0.3)
            sys.exit(f"the demo did not say {SIGN!r}")
        finally:
            subprocess.run([*tmux, "send-keys", "C-c"], check=False)
            deadline = time.monotonic() + PATIENCE
            while (
                time.monotonic() < deadline
                and not subprocess.run([*tmux, "has-session"], capture_output=True, check=False).returncode
            ):
                time.sleep(0.3)


def draw(screen: str, picture: Path) -> None:
    """Draw a screen of a terminal."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor", force_terminal=True
    )
    console.print(Text.from_ansi(screen.rstrip()), soft_wrap=True)
    html = console.export_html(theme=THEME, inline_styles=True, code_format="{code}")
    with sync_playwright() as driver:
        path = next(filter(None, map(shutil.which, screenshot_preview.NAMES)))
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1100, "height": 800}, device_scale_factor=1.25)
        page.set_content(PAGE.format(html))
        page.locator("body").screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
