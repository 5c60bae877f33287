"""Mails as a browser draws them: on the smallest phone nothing is cut off, and dark is as readable as light."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from support.browser import running_browser

from channels.contract import EmailContent
from notify_tasks.rendering import Catalog

ROOT = Path(__file__).parents[2] / "templates"
CATALOG = Catalog(ROOT)
LOCALES = ("en", "de", "zh-Hans")
COMPOUND = "Rindfleischetikettierungsueberwachungsge"
LONG = {
    "text": f"{COMPOUND} {'x' * 200}\n\n{COMPOUND * 3}",
    "url": "https://shop.example.com/" + "a" * 300,
    "currency": "KWD",
    **dict.fromkeys(("amount", "tax", "total"), "-999999999999.999"),
}
ATTACHED = [{"name": "R" * 140 + ".pdf", "size": 84_213}]

RIGHTMOST = """
Math.max(...[...document.querySelectorAll("td, th, p, h1, a")].map((e) => e.getBoundingClientRect().right))
"""
CONTRAST = """
() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const parse = (s) => s.match(/[\\d.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || e.offsetParent === null) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    found.push([walker.currentNode.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return found;
}
"""


class Window:
    """One window for all mails: a new one for each costs more than drawing it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))

    def show(self, mail: str, width: int, scheme: Any = "light") -> Page:
        self.page.set_viewport_size({"width": width, "height": 700})
        self.page.emulate_media(color_scheme=scheme)
        self.page.set_content(mail)
        return self.page


@pytest.fixture(scope="module")
def window() -> Iterator[Window]:
    with running_browser() as browser:
        yield Window(browser.new_page())


def example(name: str) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads((ROOT / name / "example.json").read_text(encoding="utf-8"))
    return payload


def lengthened(value: Any, key: str = "") -> Any:
    """The payload with the longest that each field may hold, and words without a space."""
    if isinstance(value, dict):
        return {name: lengthened(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [lengthened(entry, key) for entry in value]
    if not isinstance(value, str) or key.endswith(("_at", "_on")) or key in ("at", "since", "until"):
        return value
    kind = "url" if key.endswith("_url") else key
    return LONG.get(kind, COMPOUND)


def page_of(name: str, locale: str, payload: dict[str, Any]) -> str:
    loaded = CATALOG.get(name)
    assert loaded is not None
    loaded.check_payload(payload)
    content = loaded.render(
        "email",
        payload,
        locale,
        recipient={"id": "user-42", "locale": locale, "timezone": "Asia/Kolkata"},
        attachments=ATTACHED,
    ).content
    assert isinstance(content, EmailContent)
    return str(content.html)


every_mail = pytest.mark.parametrize(
    ("name", "locale"), [(name, locale) for name in CATALOG.names() for locale in LOCALES]
)


@every_mail
def test_nothing_is_wider_than_the_smallest_phone(window: Window, name: str, locale: str) -> None:
    for payload in (example(name), lengthened(example(name))):
        page = window.show(page_of(name, locale, payload), 320)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        assert page.evaluate(RIGHTMOST) <= 320


@every_mail
def test_a_wide_window_gets_one_column_of_600_pixels(window: Window, name: str, locale: str) -> None:
    for payload in (example(name), lengthened(example(name))):
        box = window.show(page_of(name, locale, payload), 1200).locator(".column").bounding_box()
        assert box is not None
        assert (box["width"], box["x"]) == (600, 300)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", CATALOG.names())
def test_every_word_can_be_read_in_light_and_dark(window: Window, name: str, scheme: str) -> None:
    found = window.show(page_of(name, "en", example(name)), 640, scheme).evaluate(CONTRAST)
    assert len(found) > 5
    assert [(words, round(ratio, 1)) for words, ratio in found if ratio < 4.5] == []


@every_mail
def test_nothing_is_fetched(window: Window, name: str, locale: str) -> None:
    # Given a window that does notice what a mail asks for
    window.show('<img src="http://127.0.0.1:9/canary.png">', 640)
    assert window.asked == ["http://127.0.0.1:9/canary.png"]
    window.asked.clear()
    window.show(page_of(name, locale, example(name)), 640)
    assert window.asked == []
