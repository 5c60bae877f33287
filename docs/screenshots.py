"""Draws the pictures of the docs from a fleet that really runs: `.venv/bin/python docs/screenshots.py [FOLDER]`.

It starts what `notify demo` starts, in a temporary folder and on free ports, sends the same notifications, and looks
at them with the system's chromium. Look at the pictures before you commit them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import screenshot_flower
import screenshot_preview
from playwright.sync_api import Browser, Page, sync_playwright

from notify_tasks import send_notification, settings
from notify_tasks.demo.cast import PEOPLE
from notify_tasks.demo.stage import open_stage
from notify_tasks.sandbox import Sandbox
from notify_tasks.store import recipients, watching
from notify_tasks.store.database import Database

HERE: Final = Path(__file__).parent
TYPES: Final = HERE.parent / "templates"
SCALE: Final = 1
"""Of the page's pictures. A larger one makes files that nobody wants in a repository."""
SIDE_BY_SIDE: Final = """\
body { margin: 0; display: flex; align-items: flex-start; gap: 24px; padding: 20px; background: #dfe2e7 }
img { border-radius: 6px }"""
MOST_BYTES: Final = 250_000
PAUSE: Final = 1.6
"""Seconds between calls, so that times in the list differ."""


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    browser_path = next(filter(None, map(shutil.which, screenshot_preview.NAMES)), None)
    if browser_path is None:
        sys.exit("the pictures need a browser: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        open_stage(Path(folder), say, lambda _: None, restarted) as stage,
    ):
        os.environ.update(stage.environment)
        settings.reset()
        send_everything(stage.database, stage.sandbox)
        stage.sandbox.set_mode("twilio", "429", retry_after="2")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
            )
            draw(browser, str(stage.sandbox.ready.page_url), out, stage.sandbox)
            screenshot_preview.draw(browser, out / "preview.png")
            screenshot_flower.draw(browser, stage, out / "flower.png")
            browser.close()
    for picture in sorted(out.glob("*.png")):
        size = picture.stat().st_size
        say(f"{picture} {size / 1000:.0f} kB{'  TOO LARGE' if size > MOST_BYTES else ''}")


def say(line: Any) -> None:
    words = line if isinstance(line, str) else "".join(it if isinstance(it, str) else it.text for it in line)
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def restarted(name: str, status: int) -> None:
    say(f"{name} ended with {status} and was started again")


# --- what is sent -----------------------------------------------------------------------------------------


def example(event_type: str, **changes: Any) -> dict[str, Any]:
    """A type's example payload."""
    found: dict[str, Any] = json.loads((TYPES / event_type / "example.json").read_text())
    return found | changes


def invoice() -> bytes:
    """A PDF that viewers open, if an empty one."""
    return (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n%%EOF\n"
        * 80
    )


def send_everything(database: Database, sandbox: Sandbox) -> None:
    origin = sandbox.https_url
    for person in PEOPLE:
        recipients.upsert(database, person.id, person.addresses(origin), locale=person.locale)
    names = {person.id: person.name for person in PEOPLE}
    send = send_notification.delay
    sent = []

    def shipped(order: int, to: Any, *channels: str) -> None:
        payload = example(
            "order.shipped", order_id=order, tracking_url=f"https://track.example.com/parcel?id={order}"
        )
        payload["customer_name"] = names.get(to, "Ana Silva") if isinstance(to, str) else "Ana Silva"
        sent.append(send("order.shipped", to=to, payload=payload, channels=list(channels) or None).id)
        time.sleep(PAUSE)

    def mentioned(to: str, *channels: str) -> None:
        sent.append(
            send("comment.mentioned", to=to, payload=example("comment.mentioned"), channels=list(channels)).id
        )
        time.sleep(PAUSE)

    def password(to: str) -> None:
        payload = {"reset_url": "https://shop.example.com/reset/7hM2qL", "expires_minutes": 10}
        sent.append(send("account.password_reset", to=to, payload=payload).id)
        time.sleep(PAUSE)

    def paid(to: str) -> None:
        attached = [{"name": "Invoice R-2026-0981.pdf", "content": invoice()}]
        payload = example("invoice.paid", customer_name=names[to])
        sent.append(send("invoice.paid", to=to, payload=payload, attachments=attached).id)
        time.sleep(PAUSE)

    shipped(4696, "tom", "sms")
    mentioned("mia", "chat")
    shipped(4697, {"webhook": f"{origin}/webhooks/orders"}, "webhook")
    password("jonas")
    shipped(4698, "wei", "email")
    shipped(4699, {"webhook": f"{origin}/webhooks/flaky-7"}, "webhook")
    mentioned("jonas", "email", "inapp")
    shipped(4700, {"chat": "warehouse", "locale": "de"}, "chat")
    shipped(4705, {"chat": "hangzhou", "locale": "zh-Hans"}, "chat")
    shipped(4701, "lina", "sms")
    paid("mia")
    mentioned("tom", "push", "webpush")
    password("lina")
    wait_for(database, sent)
    sandbox.set_mode("smtp", "drop_before_data", times=2)  # so that there is something to tell
    shipped(4703, "ana")
    wait_for(database, sent)


def wait_for(database: Database, message_ids: list[str]) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        rows = watching.seen(database, message_ids)
        if len({row.message_id for row in rows}) == len(message_ids) and all(
            row.state in {"sent", "delivered"} for row in rows
        ):
            return
        time.sleep(0.2)
    sys.exit("not everything was sent within 60 s; look at the fleet")


# --- what is drawn ----------------------------------------------------------------------------------------


def draw(browser: Browser, url: str, out: Path, sandbox: Sandbox) -> None:
    with opened(browser, url, "dark") as page:
        choose(page, ".row[data-channel=email]:has-text('R-2026')")
        page.screenshot(path=out / "sandbox-dark.png")
    sandbox.clear_modes()
    with opened(browser, url, "light") as page:
        choose(page, ".row[data-channel=email]:has-text('4703')")
        page.screenshot(path=out / "sandbox-light.png")
        address = page.locator(".mail-frame").get_attribute("data-src")
    with opened(browser, url, "light") as page:
        choose(page, ".row[data-channel=sms]:has-text('4701')")
        page.screenshot(path=out / "sandbox-phone.png")
    draw_mail(browser, f"{url}{address}", out / "mail-320.png")


@contextlib.contextmanager
def opened(browser: Browser, url: str, scheme: Any) -> Any:
    context = browser.new_context(
        viewport={"width": 1280, "height": 800},
        color_scheme=scheme,
        device_scale_factor=SCALE,
        reduced_motion="reduce",
        locale="en-GB",
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("body[data-live]")
    page.wait_for_selector(".row .state[data-state=sent]")
    yield page
    context.close()


def choose(page: Page, row: str) -> None:
    """Open a message by a click, and take the pointer out of the picture."""
    page.locator(row).first.locator("a").click()
    page.wait_for_selector("#story .timeline")
    frame = page.locator(".mail-frame")
    if frame.count():
        frame.content_frame.get_by_role("heading").first.wait_for()
    page.mouse.move(1279, 799)
    page.wait_for_timeout(300)  # a selected row has scrolled into view


def draw_mail(browser: Browser, address: str, out: Path) -> None:
    """One mail at 320 px, light and dark, side by side."""
    pictures = []
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 320, "height": 480}, device_scale_factor=2)
        page = context.new_page()
        page.goto(f"{address}?scheme={scheme}")
        pictures.append(base64.b64encode(page.screenshot(full_page=True)).decode())
        context.close()
    context = browser.new_context(viewport={"width": 704, "height": 480}, device_scale_factor=2)
    page = context.new_page()
    images = "".join(f'<img width="320" src="data:image/png;base64,{picture}">' for picture in pictures)
    page.set_content(f"<!DOCTYPE html><style>{SIDE_BY_SIDE}</style><body>{images}")
    page.wait_for_timeout(200)
    page.screenshot(path=out, full_page=True)
    context.close()


if __name__ == "__main__":
    main()
