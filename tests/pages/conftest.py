"""A real browser for the pages' tests: the system's chromium, driven by playwright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from support.browser import running_browser

WIDTH: Final = 1280
HEIGHT: Final = 900


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for one module."""
    with running_browser() as browser:
        yield browser


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
        tab.set_default_timeout(30_000)
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
