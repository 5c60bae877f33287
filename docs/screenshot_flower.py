"""Draws Flower as on-call sees it while the demo's fleet is at work: `.venv/bin/python docs/screenshot_flower.py`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, sync_playwright

from notify_tasks import send_notification, settings
from notify_tasks.demo.cast import PEOPLE
from notify_tasks.demo.stage import Flower, Stage, open_stage
from notify_tasks.sandbox import Sandbox
from notify_tasks.store import recipients

HERE: Final = Path(__file__).parent
TYPES: Final = HERE.parent / "templates"
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
ROUNDS: Final = 12
WIDTH, HEIGHT = 1900, 790
EVENTS_SECONDS: Final = 7.0
"""Flower switches the workers' events on every five seconds."""


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        sys.exit("the picture needs a browser: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        open_stage(
            Path(folder), say, lambda _: None, lambda name, status: say(f"{name} ended: {status}")
        ) as stage,
        sync_playwright() as driver,
    ):
        os.environ.update(stage.environment)
        settings.reset()
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        draw(browser, stage, out / "flower.png")
        browser.close()


def say(line: Any) -> None:
    words = line if isinstance(line, str) else "".join(it if isinstance(it, str) else it.text for it in line)
    sys.stdout.write(f"{words}\n")


def draw(browser: Browser, stage: Stage, out: Path) -> None:
    """Send a few hundred notifications and look at the tasks while the last ones are on their way."""
    for person in PEOPLE:
        recipients.upsert(
            stage.database, person.id, person.addresses(stage.sandbox.https_url), locale=person.locale
        )
    time.sleep(EVENTS_SECONDS)
    send_many(stage.sandbox)
    flower: Flower = stage.flower
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT},
        http_credentials={"username": flower.user, "password": flower.password},
        locale="en-GB",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(f"{flower.url}/tasks")
    page.wait_for_selector("#tasks-table tbody tr:nth-child(10)")
    page.locator("input[type=search], .dt-search input, .dataTables_filter input").first.fill("deliver")
    page.mouse.move(WIDTH - 1, HEIGHT - 1)
    page.wait_for_timeout(1500)  # the table is asked again and fades in
    page.screenshot(path=out)
    context.close()


def send_many(sandbox: Sandbox) -> None:
    """Mail, text messages and more; some of them in trouble."""
    sandbox.set_mode("twilio", "503", rate=0.1)
    sandbox.set_mode("smtp", "450", rate=0.1)
    people = [person.id for person in PEOPLE]
    shipped = json.loads((TYPES / "order.shipped" / "example.json").read_text())
    for number in range(ROUNDS):  # what fails comes between what does not
        for event_type in ("order.shipped", "account.password_reset", "comment.mentioned"):
            payload = json.loads((TYPES / event_type / "example.json").read_text())
            for person in people[:4]:
                send_notification.delay(event_type, to=person, payload=payload)
        payload = json.loads((TYPES / "account.password_reset" / "example.json").read_text())
        send_notification.delay("account.password_reset", to=f"nobody-{number}", payload=payload)
        both = {"email": "reject@example.com", "sms": "+15554000001"}
        send_notification.delay("order.shipped", to=both, payload=shipped)
    time.sleep(2)


if __name__ == "__main__":
    main()
