"""The page behind a link to unsubscribe, as a person sees it: one button, and one to take it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from integration.test_unsubscribing import Door, chosen, door, token

OpenTab = Callable[..., Any]
__all__ = ["door"]


def test_a_person_unsubscribes_with_one_button_and_takes_it_back(door: Door, open_tab: OpenTab) -> None:
    for width, scheme in ((1280, "light"), (320, "dark")):
        tab = open_tab(f"http://127.0.0.1:{door.port}/u/{token()}", width=width, color_scheme=scheme)
        assert tab.locator("h1").inner_text() == "Unsubscribe?"
        assert tab.evaluate("document.documentElement.scrollWidth") <= width

        tab.get_by_role("button", name="Unsubscribe").click()
        tab.get_by_role("heading", name="You are unsubscribed").wait_for()
        assert chosen() == {"news": {"email": "off"}}

        tab.get_by_role("button", name="subscribe again").click()
        tab.get_by_role("heading", name="Unsubscribe?").wait_for()
        assert chosen() == {"news": {"email": "on"}}

    tab = open_tab(f"http://127.0.0.1:{door.port}/u/nothing")
    assert tab.locator("h1").inner_text() == "This page does not exist"
    assert tab.get_by_role("button").count() == 0
