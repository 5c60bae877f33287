"""The sandbox page in a real browser: what arrives shows up, nothing that arrives gets out, modes do what they say."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from integration.core_world import World, call, world
from pages.peers import Canary, Sender, canary, contrast, letter, tokens

from notify_tasks.event_type import EventType
from notify_tasks.notification import uuid7
from notify_tasks.pages.serving import STATIC
from notify_tasks.sandbox import Sandbox, sandbox_process
from notify_tasks.states import State
from notify_tasks.store import inbox
from notify_tasks.store.migrate import migrate

_numbers = itertools.count(1)
SHIPPED = EventType(name="order.shipped", version="v1", channels=("sms",), on_doubt="resend")


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def seen(tab: Any, condition: str) -> None:
    """Wait until a condition holds on a page. `wait_for_function` cannot: the page's policy forbids eval."""
    until(lambda: tab.evaluate(condition), condition)


# --- the stage --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet_url(postgres_url: str) -> str:
    """The database of a fleet."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE sandbox_page")
    url = urlunsplit(urlsplit(postgres_url)._replace(path="/sandbox_page"))
    migrate(url)
    return url


@pytest.fixture(scope="module")
def far_end(tmp_path_factory: pytest.TempPathFactory, fleet_url: str) -> Iterator[Sandbox]:
    environment = {**os.environ, "NOTIFY_DATABASE_URL": fleet_url}
    with sandbox_process(
        tmp_path_factory.mktemp("sandbox"), page=True, page_port=0, environment=environment
    ) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says."""

    status: int
    headers: http.client.HTTPMessage
    text: str


def ask(sandbox: Sandbox, method: str, path: str, **headers: str) -> Answer:
    """A request to the page's server that no browser made."""
    connection = http.client.HTTPConnection(urlsplit(sandbox.ready.page_url or "").netloc, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode())
    finally:
        connection.close()


@dataclass(slots=True)
class Desk:
    """A far end with nothing in it, its page in a tab, and somebody who sends."""

    sandbox: Sandbox
    sender: Sender
    tab: Any
    url: str
    watcher: Watcher

    def rows(self) -> list[str]:
        return [str(text) for text in self.tab.locator(".row .title").all_inner_texts()]

    def read(self, text: str) -> None:
        """Open the message whose row has this in it."""
        self.tab.locator(".row", has_text=text).first.locator("a").click()
        self.tab.wait_for_selector("#message article")


@pytest.fixture
def empty(far_end: Sandbox) -> Sandbox:
    far_end.clear_modes()
    assert ask(far_end, "DELETE", "/messages").status == 200
    return far_end


class Watcher:
    """Opens tabs, and keeps what goes wrong on them."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.contexts: list[Any] = []
        self.problems: list[str] = []
        self.elsewhere: list[str] = []
        self.policy: list[str] = []
        """What the browser refused to load or to run, by a policy of ours."""

    def open(self, url: str, *, width: int = 1280, height: int = 800, color_scheme: str = "light") -> Any:
        origin = "{0.scheme}://{0.netloc}/".format(urlsplit(url))
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=color_scheme, reduced_motion="reduce"
        )
        self.contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.on("console", self._hear)
        tab.on("pageerror", lambda error: self.problems.append(str(error)))
        tab.on("response", lambda it: it.url.startswith((origin, "data:")) or self.elsewhere.append(it.url))
        tab.goto(url)
        tab.wait_for_selector("body[data-live]")
        return tab

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            refused = re.search(r"Content Security Policy|sandboxed|ERR_BLOCKED_BY_CSP|cid:", message.text)
            (self.policy if refused else self.problems).append(message.text)


@pytest.fixture
def watcher(browser: Any) -> Iterator[Watcher]:
    """At the end nothing may have gone wrong, and nothing may have come from elsewhere."""
    made = Watcher(browser)
    yield made
    for context in made.contexts:
        context.close()
    assert made.problems == []
    assert made.elsewhere == []


@pytest.fixture
def desk(empty: Sandbox, watcher: Watcher) -> Desk:
    url = empty.ready.page_url or ""
    return Desk(empty, Sender(empty), watcher.open(url), url, watcher)


# --- arriving ---------------------------------------------------------------------------------------------


def test_what_arrives_shows_up_without_a_reload(desk: Desk) -> None:
    # Given a page that teaches the next step, since nothing has arrived
    assert "Nothing has arrived yet" in desk.tab.inner_text("#empty-list")
    assert "notify send" in desk.tab.inner_text("#empty-list .command >> nth=0")
    desk.tab.evaluate("window.same = true")

    # When a mail, a text message and a chat post are sent
    desk.sender.mail(letter("Your order 981 is on its way"))
    desk.sender.post("sms", "+447700900101", {"text": "Order 981 is on its way"})
    desk.sender.post("chat", "#warehouse", {"markdown": "**Order 981** is packed"})

    # Then they are there, the newest first, each with its channel, and nobody has reloaded anything
    desk.tab.wait_for_selector(".row >> nth=2")
    assert desk.rows() == ["Order 981 is packed", "Order 981 is on its way", "Your order 981 is on its way"]
    assert desk.tab.locator(".row").evaluate_all("all => all.map(it => it.dataset.channel)") == [
        "chat",
        "sms",
        "email",
    ]
    assert desk.tab.inner_text("#total") == "3 messages"
    assert not desk.tab.is_visible("#empty-list")
    assert desk.tab.evaluate("window.same")
    assert desk.tab.locator(".row time").first.inner_text() in {"now", "2 s ago", "3 s ago"}


def test_the_page_comes_with_what_is_there(desk: Desk) -> None:
    desk.sender.mail(letter("Before anybody looked"))

    html = ask(desk.sandbox, "GET", "/").text

    assert "Before anybody looked" in html  # without a script having run


def test_a_burst_is_shown_and_counted(desk: Desk) -> None:
    for n in range(130):
        desk.sender.post("sms", "+447700900101", {"text": f"number {n}"})

    seen(desk.tab, "document.querySelector('#total').innerText === '130 messages'")
    seen(desk.tab, "document.querySelector('.row .title').innerText === 'number 129'")
    # One who comes later gets the newest ones first
    desk.tab.reload()
    assert desk.tab.locator(".row").count() == 100
    desk.tab.click("[data-older]")
    seen(desk.tab, "document.querySelectorAll('.row').length === 130")
    assert desk.rows() == [f"number {n}" for n in reversed(range(130))]


def test_a_search_looks_everywhere_and_a_filter_counts(desk: Desk) -> None:
    desk.sender.mail(letter("Invoice 7", "Thank you, Anna"), to="billing@example.com")
    desk.sender.post("sms", "+447700900101", {"text": "Your code is 4711"}, delivery_id="d-code")
    desk.sender.post("chat", "#warehouse", {"markdown": "nothing of interest"})
    desk.tab.wait_for_selector(".row >> nth=2")
    found = {
        "billing@": ["Invoice 7"],
        "invoice": ["Invoice 7"],
        "thank anna": ["Invoice 7"],
        "4711": ["Your code is 4711"],
        "D-CODE": ["Your code is 4711"],
        "#ware": ["nothing of interest"],
        "chat": ["nothing of interest"],
    }
    for words, titles in found.items():
        desk.tab.fill("#search", words)
        until(lambda: desk.rows() == titles, words)  # noqa: B023 - called at once

    # And what arrives meanwhile is only shown where it matches
    desk.tab.fill("#search", "invoice")
    desk.sender.mail(letter("Invoice 8"))
    desk.sender.mail(letter("A newsletter"))
    seen(desk.tab, "document.querySelectorAll('.row').length === 2")
    assert desk.rows() == ["Invoice 8", "Invoice 7"]

    desk.tab.fill("#search", "no such thing")
    desk.tab.click("#search-clear")
    desk.tab.wait_for_selector(".row >> nth=4")
    assert desk.tab.inner_text("#filters").split() == ["All", "5", "3", "1", "1"]
    desk.tab.get_by_role("radio", name="SMS, 1").check()
    seen(desk.tab, "document.querySelectorAll('.row').length === 1")
    assert desk.rows() == ["Your code is 4711"]


def test_the_list_can_be_emptied_and_the_log_stays(desk: Desk) -> None:
    desk.sender.post("sms", "+447700900101", {"text": "one"})
    desk.read("one")
    logged = len(desk.sandbox.requests())

    desk.tab.click("#clear")

    desk.tab.wait_for_selector("#empty-list:not([hidden])")
    assert desk.tab.locator(".row").count() == 0
    assert desk.tab.evaluate("location.hash") == "#/"
    assert len(desk.sandbox.requests()) == logged
    assert "text" not in desk.sandbox.log_path.read_text().splitlines()[-1]


# --- one message ------------------------------------------------------------------------------------------

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_a_mail_can_be_looked_at_in_every_way(desk: Desk) -> None:
    message = letter("Grüße", "Hello in text", "<h1>Hello in HTML</h1><p style='width:100%'>wide</p>")
    message.add_attachment(
        b"%PDF-1.7 invoice", maintype="application", subtype="pdf", filename="Rechnung 7.pdf"
    )
    desk.sender.mail(message)
    desk.read("Grüße")
    tab = desk.tab

    frame = tab.frame_locator(".mail-frame")
    assert frame.locator("h1").inner_text() == "Hello in HTML"
    for width, pixels in (("320", 320), ("600", 600)):
        tab.get_by_role("radio", name=width).check()
        until(lambda: frame.locator("body").evaluate("innerWidth") == pixels, f"{width} px")  # noqa: B023 - called at once
    tab.get_by_role("tab", name="Text").click()
    assert tab.inner_text("#panel-text").strip() == "Hello in text"
    tab.get_by_role("tab", name="Source").click()
    assert "Content-Type: application/pdf" in tab.inner_text("#panel-source pre")
    tab.get_by_role("tab", name="Headers").click()
    assert "Example Shop <hello@shop.example>" in tab.inner_text("#panel-headers")
    assert "Grüße" in tab.inner_text("#panel-headers")  # decoded
    tab.get_by_role("tab", name="Attachments 1").click()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Save Rechnung 7.pdf").click()
    assert download.value.suggested_filename == "Rechnung 7.pdf"
    assert Path(download.value.path()).read_bytes() == b"%PDF-1.7 invoice"


def test_a_mail_is_shown_dark_light_and_without_images(desk: Desk) -> None:
    message = letter(
        "Colours",
        "text",
        "<style>:root{color-scheme:light dark} p{color:#111111}"
        " @media (prefers-color-scheme: dark){p{color:#eeeeee}}</style>"
        "<p>Hello</p><img src='cid:logo' alt='Our logo' width='40'>",
    )
    message.get_payload()[1].add_related(  # type: ignore[index, union-attr] # the HTML part
        __import__("base64").b64decode(PIXEL), "image", "png", cid="<logo>"
    )
    desk.sender.mail(message)
    desk.read("Colours")
    tab, frame = desk.tab, desk.tab.frame_locator(".mail-frame")
    colour = "it => getComputedStyle(it).color"
    shown = "it => it.complete && it.naturalWidth"

    assert frame.locator("p").evaluate(colour) == "rgb(17, 17, 17)"
    until(lambda: frame.locator("img").evaluate(shown) == 1, "the mail's own picture")
    tab.get_by_role("radiogroup", name="Colour scheme of the mail").get_by_role("radio", name="Dark").check()
    until(lambda: frame.locator("p").evaluate(colour) == "rgb(238, 238, 238)", "dark")
    tab.get_by_role("checkbox", name="Images").uncheck()
    until(lambda: frame.locator("img").evaluate("it => it.naturalWidth") == 0, "no picture")
    assert frame.locator("p").evaluate(colour) == "rgb(238, 238, 238)"


def hostile(canary: Canary) -> str:
    """Everything that a mail has tried so far."""
    at = canary.url
    return f"""<html><head><meta http-equiv="refresh" content="0;url={at}/refresh">
<meta http-equiv="Content-Security-Policy" content="default-src *"><base href="{at}/">
<link rel="preconnect" href="{at}"><link rel="stylesheet" href="{at}/css"><LINK/REL=prefetch href="{at}/prefetch">
<style>@import "{at}/import"; body {{ background: url({at}/background) }}
@font-face {{ font-family: x; src: url({at}/font) }} p {{ font-family: x }}</style>
<script>parent.document.title = "taken"; fetch("{at}/fetch")</script><script src="{at}/script"></script></head>
<body onload="top.taken = 1; location = '{at}/onload'" background="{at}/body"><p>Hello</p>
<img src="{at}/img" srcset="{at}/set 2x" onerror="top.taken = 2">
<svg onload="top.taken = 3"><image href="{at}/svg"/></svg>
<iframe src="{at}/frame" srcdoc="<script>top.taken = 4</script>"></iframe><object data="{at}/object"></object>
<embed src="{at}/embed"><video src="{at}/video" poster="{at}/poster" autoplay></video><audio src="{at}/audio" autoplay>
</audio><form action="{at}/form" id="f"><input autofocus onfocus="f.submit()"></form>
<table background="{at}/table"></table>
<a href="javascript:top.taken=5" id="go">go</a><details open ontoggle="top.taken = 6"><summary>x</summary></details>
<p>{{{{ 7 * 7 }}}}</p></body></html>"""


def test_a_hostile_mail_runs_nothing_and_reaches_nobody(desk: Desk) -> None:
    with canary() as listening:
        subject = "<img src=x onerror='top.taken=7'><script>top.taken=8</script>"
        desk.sender.mail(
            letter(subject, "<script>top.taken=9</script>", hostile(listening)), to="<b>@example.com"
        )
        desk.sender.post("sms", "<script>top.taken=10</script>", {"text": "<img src=x onerror=top.taken=11>"})
        desk.sender.post(
            "chat",
            "#room",
            {
                "markdown": f"<img src=x onerror=top.taken=12> ![x]({listening.url}/chat) [go](javascript:top.taken=13)"
            },
        )
        desk.sender.post("push", "device", {"title": "<script>top.taken=14</script>", "url": "javascript:1"})
        desk.sender.post("webhook", "https://a.example", {"type": "</pre><script>top.taken=15</script>"})
        desk.tab.wait_for_selector(".row >> nth=4")
        title = desk.tab.title()
        for n in range(5):
            desk.tab.locator(".row a").nth(n).click()
            desk.tab.wait_for_selector(
                f"article[data-id='{desk.tab.locator('.row').nth(n).get_attribute('data-id')}']"
            )
        frame = desk.tab.frame_locator(".mail-frame")
        assert frame.locator("p").first.inner_text() == "Hello"
        frame.locator("#go").click()
        for key in "2345":
            desk.tab.keyboard.press(key)
        # A picture of the page's own, asked for last, has come: what was going to be asked for has been by then
        desk.tab.evaluate("fetch('/static/sandbox/icon.svg?last')")
        desk.tab.wait_for_load_state("networkidle")

        assert listening.heard == []
    assert desk.tab.evaluate("window.taken") is None
    assert desk.tab.title() == title
    assert desk.tab.locator("script").count() == 2  # our own
    assert desk.watcher.policy  # it tried


def test_the_frame_has_nothing_of_the_page(desk: Desk) -> None:
    desk.sender.mail(letter("Hello", "text", "<p>Hello</p>"))
    desk.read("Hello")

    answer = ask(desk.sandbox, "GET", desk.tab.get_attribute(".mail-frame", "src"))

    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox allow-popups" in policy
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "allow-s" not in desk.tab.get_attribute(".mail-frame", "sandbox")


def test_a_text_message_is_seen_on_a_phone_and_counted(desk: Desk) -> None:
    desk.sender.post("sms", "+447700900103", {"text": "您的订单 4703 已发货" * 8})
    desk.read("您的订单")

    assert "您的订单 4703 已发货" in desk.tab.inner_text(".phone .bubble")
    sums = desk.tab.inner_text(".sums")
    assert re.search(r"Segments\s+2\s", sums)
    assert "UCS-2" in sums
    assert desk.tab.locator(".foreign span").first.inner_text() == "您"
    desk.tab.keyboard.press("2")
    assert desk.tab.locator(".segments li").count() == 2


def test_every_other_channel_has_its_view(desk: Desk) -> None:
    desk.sender.post(
        "push", "device-1", {"title": "On its way", "body": "DHL has it", "url": "https://a.example/1"}
    )
    desk.sender.post("webhook", "https://shop.example/hook", {"type": "order.shipped", "order_id": 981})
    desk.sender.post("chat", "#warehouse", {"markdown": "**Packed** by [Tom](https://a.example/tom)"})
    desk.sender.post("email", "ann@example.com", {"subject": "By HTTP", "text": "Hi", "html": "<h1>Hi</h1>"})

    desk.read("On its way")
    assert desk.tab.inner_text(".push-card .push-text") == "DHL has it"
    desk.read("order.shipped")
    assert '"order_id": 981' in desk.tab.inner_text("#panel-view pre")
    desk.tab.get_by_role("tab", name="Headers").click()
    assert "idempotency-key" not in desk.tab.inner_text("#panel-headers")
    assert "content-length" in desk.tab.inner_text("#panel-headers")
    desk.read("Packed by Tom")
    desk.tab.get_by_role("tab", name="Post").click()
    assert desk.tab.inner_text(".markdown strong") == "Packed"
    assert desk.tab.locator(".markdown a").get_attribute("rel") == "noopener noreferrer"
    desk.read("By HTTP")
    assert desk.tab.frame_locator(".mail-frame").locator("h1").inner_text() == "Hi"


# --- the fleet --------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(fleet_url: str) -> Iterator[World]:
    with world(fleet_url, connections=2) as made:
        yield made


def test_a_timeline_appears_and_moves(desk: Desk, fleet: World) -> None:
    # Given a delivery that a worker has claimed, and whose message has arrived
    notification = call(f"order-{next(_numbers)}", event_type="order.shipped")
    claimed = fleet.claimed(fleet.accept(notification, event_type=SHIPPED), "sms-main")
    desk.sender.post(
        "sms", "+4915112345678", {"text": "Order 981 is on its way"}, delivery_id=str(claimed.id)
    )
    desk.read("Order 981")
    story = desk.tab.locator("#story")

    # Then the page says so, and whose it is
    desk.tab.wait_for_selector("#story .standing .state[data-state='sending']")
    assert "attempt 1 via sms-main" in story.inner_text()
    assert "order.shipped" in story.inner_text()
    desk.tab.wait_for_selector(".row .state[data-state='sending']")

    # When the worker gets its answer, then the open timeline and the row move
    fleet.record(claimed, "accepted", State.SENT, code="202")
    desk.tab.wait_for_selector("#story .standing .state[data-state='sent']")
    desk.tab.wait_for_selector(".row .state[data-state='sent']")
    assert story.locator(".timeline li").last.get_attribute("data-state") == "sent"

    # When a receipt follows that final state, then both move again
    fleet.rows("UPDATE notify.delivery SET state = 'delivered', updated_at = now() WHERE id = %s", claimed.id)
    desk.tab.wait_for_selector("#story .standing .state[data-state='delivered']")
    desk.tab.wait_for_selector(".row .state[data-state='delivered']")

    # And its message id can be searched for, and copied
    desk.tab.fill("#search", notification.message_id)
    seen(desk.tab, "document.querySelectorAll('.row').length === 1")
    copies = story.locator("[data-copy]").evaluate_all("all => all.map(it => it.dataset.copy)")
    assert copies == [notification.message_id, str(claimed.id), f"notify status {notification.message_id}"]


def test_in_app_messages_come_from_the_database(desk: Desk, fleet: World) -> None:
    inbox.put(
        fleet.db,
        delivery_id=str(uuid7()),
        tenant="default",
        recipient_id="ana",
        event_type="order.shipped",
        data={
            "title": "On its way",
            "body": "DHL has it",
            "action": {"label": "Track it", "url": "https://a.example"},
        },
    )

    desk.tab.wait_for_selector(".row[data-channel='inapp']")
    desk.read("On its way")
    assert desk.tab.inner_text(".card-title") == "On its way"
    assert desk.tab.inner_text(".card-action") == "Track it"


def test_without_a_database_the_page_says_what_is_missing(
    tmp_path: Path, open_tab: Callable[..., Any]
) -> None:
    with sandbox_process(tmp_path, page=True, page_port=0) as alone:
        tab = open_tab(alone.ready.page_url)
        assert "not connected" in tab.inner_text("#ends")
        assert "NOTIFY_DATABASE_URL" in tab.inner_text("#empty-list")
        Sender(alone).post("sms", "+447700900101", {"text": "Hello"})
        tab.locator(".row a").click()
        assert "NOTIFY_DATABASE_URL" in tab.inner_text("#story")
        assert "taken" in tab.inner_text("#story")

        # And when the far end ends, the page says that as well, and comes back with it
        alone.stop()
        tab.wait_for_selector("#gone:not([hidden])")
        port = urlsplit(alone.ready.page_url or "").port or 0
    with sandbox_process(tmp_path, page=True, page_port=port):
        tab.wait_for_selector("#empty-list:not([hidden])")
        tab.wait_for_selector("body[data-live]")
        assert not tab.is_visible("#gone")
    assert (tmp_path / "sandbox.log").read_text() == ""


def test_the_databases_address_may_come_later(
    tmp_path: Path, fleet_url: str, open_tab: Callable[..., Any]
) -> None:
    file = tmp_path / "database.url"
    environment = {**os.environ, "NOTIFY_DATABASE_URL_FILE": str(file)}
    with sandbox_process(tmp_path, page=True, page_port=0, environment=environment) as running:
        tab = open_tab(running.ready.page_url)
        assert "waits for its database" in tab.inner_text("#ends")
        file.write_text(fleet_url)
        seen(tab, "document.querySelector('.fleet .state').innerText === 'connected'")


# --- modes ------------------------------------------------------------------------------------------------


def test_the_mode_buttons_change_what_the_far_end_does(desk: Desk) -> None:
    tab = desk.tab
    assert "all well" in tab.inner_text("#trouble")
    tab.keyboard.press("m")
    tab.get_by_role("radiogroup", name="SMS").get_by_role("radio", name="429").check()

    tab.wait_for_selector("#trouble .loud")
    assert "SMS: 429" in tab.inner_text("#trouble")
    answer = desk.sender.post("sms", "+447700900101", {"text": "no"})
    assert (answer.status, answer.headers["Retry-After"]) == (429, "2")
    seen(tab, "document.querySelector('[data-target=sms] .counted').innerText.includes('1 refused')")
    assert desk.rows() == []

    # One request only
    tab.get_by_role("checkbox", name="Next request only").check()
    tab.get_by_role("radiogroup", name="Chat").get_by_role("radio", name="503").check()
    tab.wait_for_selector("[data-target=chat][data-bad]")
    assert [desk.sender.post("chat", "#a", {"markdown": "hi"}).status for _ in range(2)] == [503, 202]
    tab.wait_for_selector("[data-target=chat]:not([data-bad])")

    # A closed port, and all well again; also what is not on the buttons
    tab.get_by_label("More modes of Push").select_option("garbage_json")
    tab.wait_for_selector("[data-target=push][data-bad]")
    tab.get_by_role("radiogroup", name="Mail (SMTP)").get_by_role("radio", name="refuse").check()
    tab.wait_for_selector("[data-target=smtp][data-bad]")
    with pytest.raises(ConnectionRefusedError):
        desk.sender.mail(letter("no"))
    tab.locator(".pop-head [data-all-well]").click()
    tab.wait_for_selector("#trouble .calm")
    assert {mode["mode" if "mode" in mode else "name"] for mode in desk.sandbox.modes().values()} == {"ok"}
    desk.sender.mail(letter("yes"))
    tab.wait_for_selector(".row:has-text('yes')")


def test_modes_that_somebody_else_sets_are_seen(desk: Desk) -> None:
    desk.sandbox.set_mode("smtp", "slow", delay=3)

    desk.tab.wait_for_selector("#trouble .loud:has-text('Mail (SMTP): slow')")


# --- by keyboard, on any screen, by anybody ----------------------------------------------------------------


def test_everything_can_be_done_with_the_keyboard(desk: Desk) -> None:
    for n in range(3):
        desk.sender.mail(letter(f"mail {n}", f"text {n}", f"<p>html {n}</p>"))
    desk.tab.wait_for_selector(".row >> nth=2")
    tab, press = desk.tab, desk.tab.keyboard.press
    title = "(document.querySelector('#message h1')?.innerText ?? '')"

    press("j")
    seen(tab, f"{title} === 'mail 2'")
    press("j")
    seen(tab, f"{title} === 'mail 1'")
    press("ArrowUp")
    seen(tab, f"{title} === 'mail 2'")
    press("2")
    assert tab.inner_text("#panel-text").strip() == "text 2"
    press("k")  # there is none above
    press("j")
    seen(tab, f"{title} === 'mail 1'")
    assert tab.inner_text("#panel-text").strip() == "text 1"  # the tab stays
    tab.get_by_role("tab", name="Text").focus()
    press("ArrowRight")
    assert tab.evaluate("document.activeElement.id") == "tab-source"
    press("/")
    tab.keyboard.type("mail 0")
    seen(tab, "document.querySelectorAll('.row').length === 1")
    press("Enter")
    seen(tab, f"{title} === 'mail 0'")
    press("Escape")
    seen(tab, f"{title} === ''")
    assert tab.evaluate("document.activeElement.closest('.row') !== null")
    press("?")
    assert tab.is_visible("#help")
    press("Escape")
    assert not tab.is_visible("#help")
    # Focus can be seen wherever it goes
    for _ in range(12):
        press("Tab")
        outline = tab.evaluate(
            "(() => { const it = document.activeElement; const drawn = it.matches('input[type=radio]')"
            " ? it.nextElementSibling : it; return getComputedStyle(drawn).outlineStyle })()"
        )
        if tab.evaluate("document.activeElement === document.body"):
            continue  # the end of the page
        assert outline == "solid", tab.evaluate("document.activeElement.outerHTML")


def test_a_link_leads_to_its_message(desk: Desk) -> None:
    desk.sender.mail(letter("Find me"))
    desk.tab.wait_for_selector(".row")
    link = desk.tab.locator(".row a").get_attribute("href")

    other = desk.watcher.open(f"{desk.url}/{link}")

    other.wait_for_selector("#message h1:has-text('Find me')")
    lost = desk.watcher.open(f"{desk.url}/#/message/email-999999")
    lost.wait_for_selector("text=not here any more")
    desk.watcher.problems.clear()  # the browser reports the 404


NAMELESS = """all => all.filter(it => it.checkVisibility() && !(
    it.getAttribute('aria-label') || it.innerText?.trim() || it.title || it.labels?.[0]?.innerText.trim()
    || document.getElementById(it.getAttribute('aria-labelledby'))?.innerText.trim())).map(it => it.outerHTML)"""


@pytest.mark.parametrize("width", [1280, 900, 390])
def test_it_fits_every_window_and_every_control_has_a_name(desk: Desk, width: int) -> None:
    message = letter("A" * 200, "text", "<p>html</p>")
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename="a" * 120 + ".pdf")
    desk.sender.mail(message, to="a" * 60 + "@example.com")
    desk.sender.post("webhook", "https://shop.example/" + "a" * 200, {"type": "x", "url": "b" * 300})
    tab = desk.watcher.open(desk.url, width=width, height=844)
    tab.wait_for_selector(".row >> nth=1")
    controls = tab.locator(
        "button, input, select, a[href], iframe, [role=tab], [role=radiogroup], [tabindex='0']"
    )

    for channel in ("email", "webhook"):
        tab.locator(f".row[data-channel={channel}] a").click()
        tab.wait_for_selector("#message article")
        for key in "12345":
            tab.keyboard.press(key)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert controls.evaluate_all(NAMELESS) == []
        if width < 760:
            assert not tab.is_visible(".list")
            tab.get_by_role("link", name="Back to the list", exact=True).click()
    tab.keyboard.press("m")
    assert tab.is_visible("#behaviour")
    box = tab.locator("#behaviour").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert controls.evaluate_all(NAMELESS) == []


def test_dark_and_light_follow_the_system_and_the_reader(desk: Desk) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(246, 247, 249)", "rgb(19, 22, 25)"
    assert desk.tab.evaluate(ground) == light

    tab = desk.watcher.open(desk.url, color_scheme="dark")
    assert tab.evaluate(ground) == dark
    tab.keyboard.press("t")
    assert tab.evaluate(ground) == light
    tab.reload()  # and it stays
    assert tab.evaluate(ground) == light


def test_every_text_can_be_read_on_its_ground() -> None:
    colours = tokens((STATIC / "base.css").read_text())
    states = ("good", "moving", "waiting", "doubt", "bad", "stopped")
    pairs = [
        (text, ground)
        for text in ("ink", "muted", "accent")
        for ground in ("page", "surface", "sunken", "chosen")
    ]
    pairs += [(state, ground) for state in states for ground in ("page", "surface", "chosen")]
    pairs += [("on-accent", "accent"), *(("on-state", state) for state in states)]

    weak = {
        (text, ground, scheme): round(found, 2)
        for text, ground in pairs
        for scheme in (0, 1)
        if (found := contrast(colours[text][scheme], colours[ground][scheme])) < 4.5
    }

    assert weak == {}
    for scheme in (0, 1):
        assert contrast(colours["edge"][scheme], colours["surface"][scheme]) >= 3  # WCAG 1.4.11


# --- other pages of the same browser -----------------------------------------------------------------------


def test_names_that_are_not_ours_and_other_origins_are_refused(empty: Sandbox) -> None:
    own = urlsplit(empty.ready.page_url or "").netloc
    port = own.rpartition(":")[2]

    assert ask(empty, "GET", "/", Host="evil.example").status == 403  # DNS rebinding
    assert ask(empty, "GET", "/", Host=f"localhost.evil.example:{port}").status == 403
    assert ask(empty, "GET", "/", Host=f"localhost:{port}").status == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},  # a frame of a mail
        {"Origin": f"http://127.0.0.1:{int(port) - 1}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert ask(empty, "DELETE", "/messages", **headers).status == 403, headers
    assert ask(empty, "DELETE", "/messages", Origin=f"http://{own}").status == 200


def test_a_page_has_a_policy_without_exceptions(empty: Sandbox) -> None:
    answer = ask(empty, "GET", "/")

    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    html = answer.text
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", html)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", html)
    assert ask(empty, "PUT", "/modes/sms").status == 400  # not JSON
