"""The page on which templates are written, in a real browser: what it shows, how it follows files and payloads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from channels.contract import ChatContent, Content, DataContent, EmailContent, TextContent
from notify_tasks.pages.preview import serving
from notify_tasks.rendering import Catalog

ROOT = Path(__file__).parents[2]
TYPES = (
    "account.new_sign_in", "account.password_reset", "comment.digest", "comment.mentioned", "invoice.paid",
    "order.shipped",
)  # fmt: skip
COLUMNS = {"default": None, "de": "de", "zh-Hans": "zh-Hans"}
SHIPPED = "order.shipped"

OpenTab = Callable[..., Any]
NO_FRAMES = """sessionStorage.setItem("preview-look", '{"shows": "text"}')"""
ONE_FRAME = """sessionStorage.setItem("preview-look", '{"width": "320"}')"""
"""Frames that nobody looks at need not be drawn."""


@dataclass(frozen=True, slots=True)
class Previewed:
    """A preview that runs, and the folder it follows."""

    url: str
    root: Path

    def write(self, file: str, text: str) -> None:
        """As an editor saves: beside it first, then in its place."""
        path = self.root / file
        beside = path.with_name(f".{path.name}.swp")
        beside.write_text(text)
        beside.replace(path)

    def of(self, name: str) -> str:
        return f"{self.url}/types/{name}"


@pytest.fixture
def previewed(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Previewed]:
    """A preview of a folder with one type in it, or with those that the test's parameter names."""
    root = tmp_path / "types"
    for name in ("_layout", *getattr(request, "param", (SHIPPED,))):
        shutil.copytree(ROOT / "templates" / name, root / name)
    with serving(root, 0) as url:
        yield Previewed(url, root)


def cell(tab: Any, channel: str, column: str = "default") -> Any:
    return tab.locator(f"#cell-{channel}-{column}")


def mail_in(tab: Any, column: str, width: int = 320) -> Any:
    """What is inside a mail's frame."""
    return tab.frame_locator(f"#cell-email-{column} .frame[data-width='{width}'] iframe").locator("body")


def follows(tab: Any) -> None:
    """Wait until the page hears of changes and has checked everything."""
    tab.wait_for_selector("#live[data-live='on']")
    tab.wait_for_selector("#title .good, #title .bad")


def write_payload(tab: Any, text: str) -> None:
    if not tab.locator("#payload").is_visible():
        tab.click("#dock-toggle")
    tab.fill("#payload", text)


# --- what it shows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("previewed", "name"), [((name,), name) for name in TYPES], indirect=["previewed"], ids=TYPES
)
def test_all_channels_and_locales_of_a_type_stand_side_by_side(
    previewed: Previewed, open_tab: OpenTab, name: str
) -> None:
    tab = open_tab(previewed.of(name))
    follows(tab)
    loaded = Catalog(previewed.root).get(name)
    assert loaded is not None
    payload = json.loads(loaded.files.own["example.json"])
    for channel in loaded.available:
        for column, locale in COLUMNS.items():
            # Given what workers would send, then the cell says that
            person = {"id": "user-42", "locale": locale, "timezone": "Europe/Berlin"}
            content = loaded.render(channel, payload, locale, recipient=person).content
            says(cell(tab, channel, column), content)
            if channel == "email":
                for width in (320, 600):
                    mail_in(tab, column, width).get_by_role("heading").first.wait_for()
        # and the row's columns stand beside each other, the mail's frames at their real width
        boxes = [cell(tab, channel, each).bounding_box() for each in COLUMNS]
        assert len({round(box["y"]) for box in boxes}) == 1
        assert [box["x"] for box in boxes] == sorted({box["x"] for box in boxes})
    assert tab.locator(".frame[data-width='320'] .screen").first.bounding_box()["width"] == 320


def says(found: Any, content: Content) -> None:
    """A cell shows a message."""
    match content:
        case EmailContent(subject, text):
            assert found.locator(".subject").inner_text() == subject
            assert found.locator(".plain-text").text_content() == text
        case TextContent(text):
            assert found.locator(".bubble").inner_text() == text
            assert "segment" in found.locator(".figures").first.inner_text()
        case ChatContent(markdown):
            first = found.locator(".said strong").first.inner_text()
            assert first in markdown.replace("\\", "")
        case DataContent(data) if found.locator(".title").count():
            assert found.locator(".title").inner_text() == data["title"]
            assert found.locator(".title + p").inner_text() == data["body"]
        case DataContent(data):
            assert json.loads(found.locator(".json").inner_text()) == data


def test_a_file_that_stands_in_for_a_locale_is_marked(previewed: Previewed, open_tab: OpenTab) -> None:
    (previewed.root / SHIPPED / "de" / "sms.txt").unlink()
    tab = open_tab(previewed.of(SHIPPED), before=NO_FRAMES)
    follows(tab)
    assert cell(tab, "sms", "de").locator(".file").inner_text().split() == ["sms.txt", "fallback"]
    assert cell(tab, "sms", "zh-Hans").locator(".fallback").count() == 0
    assert cell(tab, "sms").locator(".fallback").count() == 0

    # When a locale is asked for that has no folder, then its people get the nearest one, and it says so
    tab.fill("#add-locale input", "de-AT")
    tab.press("#add-locale input", "Enter")
    cell(tab, "email", "de-AT").locator(".subject").wait_for()
    assert "Bestellung" in cell(tab, "email", "de-AT").locator(".subject").inner_text()
    names = cell(tab, "email", "de-AT").locator(".file").all_inner_texts()
    assert [it.split() for it in names] == [
        [f"de/{part}", "fallback"] for part in ("email.subject.txt", "email.txt", "email.html")
    ]

    # When locales are put aside, then what is left has room for both widths as they are
    for locale in ("de", "de-AT", "zh-Hans"):
        tab.locator(f"#locales input[value='{locale}']").uncheck()
        cell(tab, "email", locale).wait_for(state="detached")
    tab.keyboard.press("t")
    tab.wait_for_function(
        "() => document.querySelector('.frame[data-width=\"600\"] .screen').clientWidth === 600"
    )


def test_mails_are_shown_light_and_dark_and_without_images(previewed: Previewed, open_tab: OpenTab) -> None:
    pixel = "data:image/gif;base64,R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="
    html = (previewed.root / SHIPPED / "email.html").read_text()
    previewed.write(
        f"{SHIPPED}/email.html",
        html.replace("<p>Hello", f'<img src="{pixel}" alt="a red dot" width="9" height="9"><p>Hello'),
    )
    tab = open_tab(previewed.of(SHIPPED), before=ONE_FRAME)
    follows(tab)
    mail = mail_in(tab, "default")
    loaded = "image => image.complete && image.naturalWidth > 0"
    picture = mail.get_by_alt_text("a red dot")
    picture.wait_for()
    assert picture.evaluate(loaded)
    ground = "body => getComputedStyle(body).backgroundColor"
    light = mail.evaluate(ground)

    with tab.expect_response(lambda it: "scheme=dark" in it.url):
        tab.keyboard.press("d")
    tab.wait_for_function(
        "light => { const body = document.querySelector('#cell-email-default iframe').contentDocument?.body;"
        " return body?.childElementCount && getComputedStyle(body).backgroundColor !== light }",
        arg=light,
    )
    red, green, blue = (int(it) for it in mail.evaluate(ground).removeprefix("rgb(").rstrip(")").split(","))
    assert max(red, green, blue) < 64

    with tab.expect_response(lambda it: "images=off" in it.url):
        tab.locator("input[name='images'][value='off']").check()
    mail.get_by_alt_text("a red dot").wait_for()
    assert not picture.evaluate(loaded)


def test_it_fits_a_narrow_window(previewed: Previewed, open_tab: OpenTab) -> None:
    tab = open_tab(previewed.of(SHIPPED), width=900)
    for width in (900, 390):
        tab.set_viewport_size({"width": width, "height": 844})
        tab.locator("#channel-chat").scroll_into_view_if_needed()
        assert tab.evaluate("[document.scrollingElement.scrollWidth, scrollX]") == [width, 0]
        assert tab.locator("#dock-toggle").is_visible()


@pytest.mark.parametrize("previewed", [TYPES[:2]], indirect=True)
def test_it_is_used_by_keyboard(previewed: Previewed, open_tab: OpenTab) -> None:
    tab = open_tab(previewed.of(TYPES[0]))
    follows(tab)
    tab.keyboard.press("t")
    assert cell(tab, "email").locator(".plain-text").is_visible()
    tab.keyboard.press("p")
    assert tab.evaluate("document.activeElement.id") == "payload"
    tab.keyboard.press("Escape")
    with tab.expect_navigation():
        tab.keyboard.press("j")
    assert tab.url == previewed.of(TYPES[1])
    # and the look of mails stays from one type to the next
    assert cell(tab, "email").locator(".plain-text").is_visible()


# --- following the files --------------------------------------------------------------------------------


def test_an_edit_shows_at_its_place_and_leaves_the_rest_alone(
    previewed: Previewed, open_tab: OpenTab
) -> None:
    tab = open_tab(previewed.of(SHIPPED), before=ONE_FRAME)
    follows(tab)
    mail_in(tab, "de").get_by_role("heading").wait_for()
    write_payload(tab, '{"order_id": 4711, "carrier": "Velo"}')
    cell(tab, "sms").get_by_text("4711").wait_for()
    mail_in(tab, "de").get_by_text("Velo bringt sie zu dir").wait_for()
    # Given a place in the page, and marks that a reload of the page, a frame or a cell would wipe away
    tab.evaluate(
        """() => {
          window.same = true;
          document.querySelector("#cell-email-de iframe").contentWindow.same = true;
          document.querySelector("#cell-sms-default-view").firstElementChild.same = true;
          document.querySelector("#board").scrollTop = 300;
        }"""
    )
    # when one file is saved
    previewed.write(f"{SHIPPED}/de/sms.txt", "Neu: {{ payload.order_id }}\n")
    # then its message shows it
    cell(tab, "sms", "de").get_by_text("Neu: 4711").wait_for()
    # and all else is as it was
    assert tab.evaluate(
        """() => [
          window.same,
          document.querySelector("#cell-email-de iframe").contentWindow.same,
          document.querySelector("#cell-sms-default-view").firstElementChild.same,
          document.querySelector("#board").scrollTop,
        ]"""
    ) == [True, True, True, 300]
    assert json.loads(tab.input_value("#payload"))["carrier"] == "Velo"


def test_a_change_of_a_mail_or_its_layout_shows_in_the_frames(
    previewed: Previewed, open_tab: OpenTab
) -> None:
    tab = open_tab(previewed.of(SHIPPED))
    follows(tab)
    html = (previewed.root / SHIPPED / "de" / "email.html").read_text()
    previewed.write(f"{SHIPPED}/de/email.html", html.replace("In diesem Paket:", "Darin liegt:"))
    for width in (320, 600):
        mail_in(tab, "de", width).get_by_text("Darin liegt:").wait_for()
    previewed.write("_layout/brand.txt", "Ganz neu\n")
    for column in COLUMNS:
        mail_in(tab, column).get_by_text("Ganz neu").first.wait_for()


def test_a_broken_edit_shows_its_problem_and_keeps_the_last_good_one(
    previewed: Previewed, open_tab: OpenTab
) -> None:
    tab = open_tab(previewed.of(SHIPPED), before=ONE_FRAME)
    follows(tab)
    file = f"{SHIPPED}/de/email.html"
    good = (previewed.root / file).read_text()
    line = good.count("\n") + 1
    # When an edit breaks one file
    previewed.write(file, good + "{% if %}\n")
    broken = cell(tab, "email", "de")
    broken.locator(".trouble").wait_for()
    # then its own cell says what, where and how to mend it, with the path to copy
    assert f"{file}:{line}" in broken.locator(".trouble").inner_text()
    assert broken.locator(".remedy").inner_text() != ""
    copied = broken.locator(".trouble [data-copy]").get_attribute("data-copy")
    assert copied == f"{previewed.root / file}:{line}"
    # and keeps the last good rendering, greyed, while its neighbours are as before
    assert broken.get_attribute("data-stale") is not None
    mail_in(tab, "de").get_by_role("heading").first.wait_for()
    assert tab.locator(".cell .trouble").count() == 1
    assert cell(tab, "email").get_attribute("data-stale") is None
    tab.locator("#types [aria-current] .bad").wait_for()
    # and so it is for who opens the page only now
    other = open_tab(previewed.of(SHIPPED), before=NO_FRAMES)
    assert other.locator("#cell-email-de[data-stale] .subject").inner_text().startswith("Deine Bestellung")
    # and mending it takes all that away
    previewed.write(file, good)
    broken.locator(".trouble").wait_for(state="detached")
    tab.locator("#title .good").wait_for()
    assert broken.get_attribute("data-stale") is None


def test_what_check_finds_shows_where_it_belongs(previewed: Previewed, open_tab: OpenTab) -> None:
    # Given a field that may be missing, used without a guard, and a file that nobody reads
    previewed.write(f"{SHIPPED}/sms.txt", "Order with {{ payload.carrier }}\n")
    previewed.write(f"{SHIPPED}/emial.txt", "lost\n")
    tab = open_tab(previewed.of(SHIPPED), before=NO_FRAMES)
    tab.locator("#problems .trouble").wait_for()
    assert "emial.txt" in tab.locator("#problems .trouble").inner_text()
    assert "payload.carrier may be missing" in cell(tab, "sms").locator(".trouble").inner_text()
    # The example renders all the same: nothing is old
    assert cell(tab, "sms").get_attribute("data-stale") is None
    # When the payload lacks the field, the message fails, and shows as it was
    tab.locator("[data-is='Required only']").click()
    tab.wait_for_selector("#cell-sms-default[data-stale]")
    assert cell(tab, "sms").locator(".bubble").inner_text() == "Order with DHL"


def test_a_type_that_was_never_in_order_shows_its_problems(previewed: Previewed, open_tab: OpenTab) -> None:
    home = previewed.root / "a.new"
    home.mkdir()
    (home / "sms.txt").write_text("{{ payload.x")
    (home / "example.json").write_text("{}")
    (home / "notification.toml").write_text('channels = ["sms"]\n')
    tab = open_tab(previewed.of("a.new"))
    cell(tab, "sms").locator(".trouble").wait_for()
    # When it is mended, then it shows
    (home / "sms.txt").write_text("now it is well")
    cell(tab, "sms").get_by_text("now it is well").wait_for()


def test_a_type_that_is_made_meanwhile_is_listed(previewed: Previewed, open_tab: OpenTab) -> None:
    tab = open_tab(previewed.of(SHIPPED), before=NO_FRAMES)
    follows(tab)
    shutil.copytree(previewed.root / SHIPPED, previewed.root / "order.delayed")
    tab.get_by_role("link", name="order.delayed").wait_for()
    # and one that goes away while it is shown says so, with what to type
    shutil.rmtree(previewed.root / SHIPPED)
    tab.get_by_text("There is no type order.shipped").wait_for()


# --- the payload ----------------------------------------------------------------------------------------


def test_a_payload_is_tried_as_it_is_written(previewed: Previewed, open_tab: OpenTab) -> None:
    tab = open_tab(previewed.of(SHIPPED), before=ONE_FRAME)
    follows(tab)
    verdict = tab.locator("#verdict")
    # When it is no JSON, then the line is named and the messages stay
    write_payload(tab, '{\n  "order_id": 7,\n}')
    verdict.get_by_text("line 3").wait_for()
    assert "981" in cell(tab, "sms").locator(".bubble").inner_text()
    # when it does not fit the schema, every field is named
    write_payload(tab, '{"order_id": "seven", "carrier": ""}')
    tab.locator("#faults").get_by_text("payload.order_id").wait_for()
    assert "is not an integer" in tab.locator("#faults").inner_text()
    assert "payload.carrier" in tab.locator("#faults").inner_text()
    # when it fits, every message has it
    write_payload(tab, '{"order_id": 77}')
    verdict.get_by_text("fits the schema").wait_for()
    for column in COLUMNS:
        cell(tab, "sms", column).get_by_text("77").wait_for()
        mail_in(tab, column).get_by_role("heading").get_by_text("77").wait_for()
    # and it is still there after a reload
    tab.reload()
    cell(tab, "sms").get_by_text("77").wait_for()
    # and the example comes back by its button
    tab.locator("[data-is='Example']").click()
    cell(tab, "sms").get_by_text("981").wait_for()


@pytest.mark.parametrize("previewed", [("invoice.paid",)], indirect=True)
def test_the_recipient_can_be_another(previewed: Previewed, open_tab: OpenTab) -> None:
    tab = open_tab(previewed.of("invoice.paid"), before=ONE_FRAME)
    follows(tab)
    mail_in(tab, "default").get_by_text("2:30 PM").wait_for()
    tab.fill("#timezone", "Asia/Shanghai")
    tab.press("#timezone", "Enter")
    mail_in(tab, "default").get_by_text("9:30 PM").wait_for()
    tab.fill("#timezone", "Asia/Shanhai")
    tab.press("#timezone", "Enter")
    tab.locator("#verdict").get_by_text("did you mean Asia/Shanghai").wait_for()


HOSTILE = '<script>top.hacked = 1</script><img src=x onerror="top.hacked = 2"></textarea><svg onload="top.hacked = 3">'


def test_a_hostile_payload_runs_nothing(previewed: Previewed, open_tab: OpenTab) -> None:
    # Given a template that hands a script on as well, beside a payload that is one
    html = (previewed.root / SHIPPED / "de" / "email.html").read_text()
    script = "<script>top.hacked = 4</script><p onclick='top.hacked = 5'>click</p>"
    previewed.write(f"{SHIPPED}/de/email.html", html.replace("<p>Hallo", f"{script}<p>Hallo"))
    tab = open_tab(previewed.of(SHIPPED), before=ONE_FRAME)
    follows(tab)
    payload = {"order_id": 66, "carrier": HOSTILE[:60], "customer_name": HOSTILE[24:104]}
    payload["items"] = [{"name": HOSTILE}]
    write_payload(tab, json.dumps(payload))
    cell(tab, "sms").get_by_text("66").wait_for()
    # then every message shows it as text
    mail_in(tab, "default").get_by_text(HOSTILE).wait_for()
    assert HOSTILE[:60] in cell(tab, "sms").locator(".bubble").inner_text()
    assert HOSTILE[:60] in cell(tab, "chat").locator(".said").inner_text()
    assert HOSTILE[:60] in cell(tab, "push").locator(".note").inner_text()
    # and none of it ran, not even when it is clicked
    mail_in(tab, "de").get_by_role("heading").get_by_text("66").wait_for()
    mail_in(tab, "de").get_by_text("click", exact=True).click()
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("body script, .view img, .view svg").count() == 0
    # nor where the mail is opened by itself, without the frame around it
    digest = tab.locator("#cell-email-de iframe").first.get_attribute("data-mail")
    tab.goto(f"{previewed.url}/mail/{digest}")
    tab.get_by_text("click", exact=True).click()
    assert tab.evaluate("window.hacked") is None


def test_a_request_that_is_not_the_pages_own_is_refused(previewed: Previewed) -> None:
    for body in (b"[]", b"{", b'{"hidden": "de"}', b'{"payload": 1}', b"x" * 300_000):
        request = urllib.request.Request(previewed.of(SHIPPED), data=body, method="POST")
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            urllib.request.urlopen(request, timeout=10)
        refused.value.close()


# --- as a program ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_with_one_line(tmp_path: Path, number: signal.Signals) -> None:
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "import sys; from notify_tasks.cli import main; sys.exit(main())"),
            *("templates", "preview", SHIPPED, "--port", "0"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().split()[0]
        assert address.endswith(f"/types/{SHIPPED}")
        # Given a page that listens, when it is ended, then it says so in one line
        stream = urllib.request.urlopen(address.rpartition("/types/")[0] + "/events", timeout=10)
        with stream:
            assert stream.readline()
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "stopped\n", "")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
