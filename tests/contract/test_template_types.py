"""Every type in templates/ keeps the rules of the house: its policy, its words, how its mails are built."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from channels.contract import ChatContent, DataContent, EmailContent, TextContent
from notify_tasks.event_type import EventType
from notify_tasks.rendering import Catalog, LoadedType, PayloadInvalid
from notify_tasks.templates_check import check, preview

ROOT = Path(__file__).parents[2] / "templates"
CATALOG = Catalog(ROOT)
LOCALES = ("default", "de", "zh-Hans")

# Elements that mail clients know (caniemail.com): no forms, scripts or frames, and nothing to be fetched.
MAIL_TAGS = frozenset(
    "html head meta title style body div table tbody tr td h1 p ul li a br".split()  # noqa: SIM905 - a table of words
)


def loaded(name: str) -> LoadedType:
    found = CATALOG.get(name)
    assert found is not None
    return found


def example(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((ROOT / name / "example.json").read_text(encoding="utf-8"))
    return value


def minimal(name: str) -> dict[str, Any]:
    """The smallest payload that the type takes."""
    full = example(name)
    return loaded(name).schema.minimal(full) or full


def mail(name: str, locale: str, payload: dict[str, Any]) -> EmailContent:
    content = loaded(name).render("email", payload, locale, recipient={"id": "user-42"}).content
    assert isinstance(content, EmailContent)
    assert content.html is not None
    return content


class Dom(HTMLParser):
    """What there is to look at in a mail."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"style", "title"} & set(self._inside):
            self.words.append(" ".join(data.split()))

    @property
    def links(self) -> list[str | None]:
        return [attributes.get("href") for tag, attributes in self.tags if tag == "a"]


every_mail = pytest.mark.parametrize(
    ("name", "locale"), [(name, locale) for name in CATALOG.names() for locale in LOCALES]
)


def test_all_types_pass_the_check() -> None:
    assert check(ROOT) == []


def test_the_two_types_are_there() -> None:
    assert set(CATALOG.names()) >= {"order.shipped", "account.password_reset"}


def test_order_shipped_is_sent_as_promised() -> None:
    policy = loaded("order.shipped").policy
    assert policy == EventType(
        "order.shipped", policy.version, ("email", "inapp", "sms"), category="orders", expires=3 * 86400.0
    )
    assert set(loaded("order.shipped").available) == {"email", "inapp", "sms", "push", "webhook", "chat"}


def test_a_password_reset_is_urgent_short_lived_and_never_sent_twice_in_doubt() -> None:
    policy = loaded("account.password_reset").policy
    assert (policy.lane, policy.expires, policy.channels) == ("high", 600.0, ("email",))
    assert policy.on_doubt_for("email") == "hold"
    assert set(loaded("account.password_reset").available) == {"email", "sms"}


def test_the_smallest_order_is_enough() -> None:
    loaded("order.shipped").check_payload({"order_id": 981})
    assert minimal("order.shipped") == {"order_id": 981}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("order.shipped", {"order_id": "981"}, "payload.order_id: is not an integer"),
        ("order.shipped", {"tracking_url": "javascript:alert(1)"}, "payload.tracking_url: does not match"),
        ("order.shipped", {"items": [{"quantity": 1}]}, "payload.items[0].name: is missing"),
        ("account.password_reset", {"reset_url": "http://a.example"}, "payload.reset_url: does not match"),
        ("account.password_reset", {"expires_minutes": 1}, "payload.expires_minutes: is less than 2"),
    ],
)
def test_payloads_that_make_no_sense_are_refused(name: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        loaded(name).check_payload({**example(name), **change})
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("name", CATALOG.names())
@pytest.mark.parametrize("locale", LOCALES)
def test_every_channel_renders_in_every_locale(name: str, locale: str) -> None:
    kinds = {"email": EmailContent, "sms": TextContent, "chat": ChatContent}
    for channel in loaded(name).available:
        for payload in (example(name), minimal(name)):
            rendered = loaded(name).render(channel, payload, locale, recipient={"id": "user-42"})
            assert isinstance(rendered.content, kinds.get(channel, DataContent))
            # A webhook is read by machines and has one language.
            assert rendered.locale_used == ("default" if channel == "webhook" else locale)


@pytest.mark.parametrize("name", CATALOG.names())
def test_nobody_is_shouted_at(name: str) -> None:
    for locale in LOCALES:
        shown = preview(ROOT, name, locale=locale)["channels"]
        shown["email"]["html"] = " ".join(Dom(shown["email"]["html"]).words)
        assert not re.search("[!\uff01]", json.dumps(shown, ensure_ascii=False))


# --- mails ---------------------------------------------------------------------------------------------


@every_mail
def test_a_mail_is_built_of_what_mail_clients_know(name: str, locale: str) -> None:
    dom = Dom(str(mail(name, locale, example(name)).html))
    assert {tag for tag, _ in dom.tags} <= MAIL_TAGS
    for tag, attributes in dom.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "background")]
        # Layout tables say so to screen readers.
        assert tag != "table" or attributes.get("role") == "presentation"


@every_mail
def test_a_mail_is_one_column_that_fits_a_small_phone(name: str, locale: str) -> None:
    page = str(mail(name, locale, example(name)).html)
    dom = Dom(page)
    widths = [attributes.get("width") for _, attributes in dom.tags if "width" in attributes]
    assert set(widths) <= {"100%"}
    assert re.findall(r"max-width: (\d+)px", page) == ["600"]
    assert not re.search(r"(?<!-)\bwidth: ?\d{3,}px", page)
    assert re.search(r'name="viewport" content="width=device-width', page)
    row: list[str] = [tag for tag, _ in dom.tags if tag in ("tr", "td")]
    assert row == ["tr", "td"] * (len(row) // 2)


@every_mail
def test_a_mail_needs_nothing_from_elsewhere(name: str, locale: str) -> None:
    page = str(mail(name, locale, example(name)).html)
    assert not re.search(r"<img|<link|url\(|@import|@font-face", page)


@every_mail
def test_a_mail_reads_in_light_and_dark(name: str, locale: str) -> None:
    page = str(mail(name, locale, example(name)).html)
    assert '<meta name="color-scheme" content="light dark">' in page
    dark = page[page.index("prefers-color-scheme: dark") :]
    # Every rule outranks the inlined styles, or dark text stays on dark ground.
    rules = re.findall(r"color: #\w+[^;]*;", dark[: dark.index("</style>")])
    assert rules
    assert all("!important" in rule for rule in rules)
    # And each of them has something to meet in the mail.
    for used in re.findall(r"\.(\w+)", dark[: dark.index("</style>")]):
        assert f'class="{used}"' in page


@every_mail
def test_a_mail_has_one_action_and_says_it_in_full(name: str, locale: str) -> None:
    content = mail(name, locale, example(name))
    url = example(name).get("tracking_url") or example(name)["reset_url"]
    dom = Dom(str(content.html))
    assert set(dom.links) == {url}
    assert url in dom.words
    assert url in content.text


def test_an_order_without_a_link_has_no_button() -> None:
    content = mail("order.shipped", "default", {"order_id": 981})
    assert Dom(str(content.html)).links == []
    assert "Track" not in content.text


@every_mail
def test_a_mail_speaks_the_language_it_says(name: str, locale: str) -> None:
    dom = Dom(str(mail(name, locale, example(name)).html))
    assert dict(dom.tags)["html"] == {"lang": {"default": "en"}.get(locale, locale)}
    chinese = re.search("[\u4e00-\u9fff]", " ".join(dom.words)) is not None
    assert chinese == (locale == "zh-Hans")


@every_mail
def test_the_foot_of_a_mail_says_why_it_came(name: str, locale: str) -> None:
    reason = {
        "default": "You get this mail because",
        "de": "Du erhältst diese Mail, weil",
        "zh-Hans": "您收到这封邮件",
    }
    content = mail(name, locale, example(name))
    last = Dom(str(content.html)).words[-2:]
    assert last[0].startswith(reason[locale])
    # The text part ends with the same two sentences, after the mark that mail programs know as a signature's.
    foot = content.text.split("\n-- \n")[1].strip().splitlines()
    assert foot == ["Example Shop", *last]


@every_mail
def test_the_text_of_a_mail_is_written_for_reading(name: str, locale: str) -> None:
    for payload in (example(name), minimal(name)):
        text = mail(name, locale, payload).text
        assert not re.search(r"<\w|&\w+;|[{}]|\n{3,}|\t| \n(?<!-- \n)", text)
        assert text.endswith("\n")


@every_mail
def test_a_subject_fits_a_phone(name: str, locale: str) -> None:
    assert len(mail(name, locale, example(name)).subject) <= 50


def test_a_long_order_shows_twenty_lines_and_says_how_many_more() -> None:
    items = [{"name": f"Thing {number}"} for number in range(50)]
    content = mail("order.shipped", "default", {"order_id": 1, "items": items})
    assert "Thing 19" in content.text
    assert "Thing 20" not in content.text
    assert "and 30 more" in content.text


def test_a_text_message_is_short() -> None:
    for name in CATALOG.names():
        for locale in LOCALES:
            content = loaded(name).render("sms", example(name), locale, recipient={}).content
            assert isinstance(content, TextContent)
            words = re.sub(r"https://\S+", "", content.text)
            # One segment for the words (GSM 03.38: 160 characters; UCS-2: 70); a link is as long as it is.
            assert len(words) <= (70 if locale == "zh-Hans" else 160)
