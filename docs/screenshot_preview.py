"""Draws docs/preview.png: the page on which templates are written. Run it from the repository's folder.

`draw` is for a script that draws every picture of the docs with one browser.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from notify_tasks.pages.preview import serving

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
TYPE = "invoice.paid"


def draw(browser: Browser, out: Path = HERE / "preview.png") -> None:
    """Draw the preview of a type with its mails in three languages.

    Args:
        browser: a chromium.
        out: the picture.
    """
    with serving(HERE.parent / "templates", 0) as url:
        context = browser.new_context(viewport={"width": 1280, "height": 860}, reduced_motion="reduce")
        tab = context.new_page()
        tab.goto(f"{url}/types/{TYPE}")
        tab.wait_for_selector("#title .good")
        tab.wait_for_function("() => document.querySelectorAll('#types .good').length === 4")
        for frame in tab.locator("iframe").all():
            frame.content_frame.get_by_role("heading").first.wait_for()
        tab.screenshot(path=out)
        context.close()


def main() -> None:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        sys.exit("the pictures need a browser: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        draw(browser)
        browser.close()


if __name__ == "__main__":
    main()
