"""A real browser for the pages' tests: the system's chromium, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET: Final = (
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTH: Final = 1280
HEIGHT: Final = 900


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser; skips where there is none, but for CI, where it must be.

    One a module: playwright's loop would stand in the way of asyncio in the modules after this one.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the pages' tests need playwright: pip install -r requirements/dev.txt"
    )
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        missing = "the pages' tests need a browser: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=list(QUIET))
        yield started
        started.close()


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a tab of its own: `open_tab(url, width=390, color_scheme="dark")`.

    `before` is a script that runs before any of the page's own.

    At the end no tab may have met an error of its scripts, or asked anybody but the page's own server.
    """
    opened = []
    wrong: list[str] = []

    def open_(
        url: str,
        *,
        width: int = WIDTH,
        height: int = HEIGHT,
        color_scheme: str = "light",
        before: str = "",
    ) -> Any:
        origin = "/".join(url.split("/", 3)[:3])
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=color_scheme, reduced_motion="reduce"
        )
        opened.append(context)
        if before:
            context.add_init_script(before)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        tab.on("request", lambda it: is_ours(it.url, origin) or wrong.append(f"asked for {it.url}"))
        tab.goto(url)
        return tab

    yield open_
    for context in opened:
        context.close()
    assert wrong == []


def is_ours(url: str, origin: str) -> bool:
    return url.startswith((f"{origin}/", "data:", "about:"))
