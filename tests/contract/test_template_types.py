"""Every type in templates/ keeps the rules of the house: its policy, its words, how its mails are built."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from channels.contract import ChatContent, DataContent, EmailContent, TextContent
from notify_tasks.event_type import EventType, Step
from notify_tasks.rendering import Catalog, LoadedType, PayloadInvalid, RenderError
from notify_tasks.templates_check import check, preview
from notify_tasks.templating.mail_subset import findings

ROOT = Path(__file__).parents[2] / "templates"
CATALOG = Catalog(ROOT)
LOCALES = ("default", "de", "zh-Hans")
GSM = "@£$¥èéùìòÇ\nØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿\
abcdefghijklmnopqrstuvwxyzäöñüà^{}\\[~]|€"
"""The alphabet of GSM 03.38 with its extension."""

ACTIONS = {
    "account.new_sign_in": "review_url",
    "account.password_reset": "reset_url",
    "comment.digest": "events.0.payload.comment_url",
    "comment.mentioned": "comment_url",
    "invoice.paid": "invoice_url",
    "order.shipped": "tracking_url",
}
"""The field of each type that its one button leads to."""
ATTACHED = [{"name": "invoice-R-2026-0981.pdf", "size": 84_213}]


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


def recipient(locale: str) -> dict[str, Any]:
    return {"id": "user-42", "locale": None if locale == "default" else locale, "timezone": "Europe/Berlin"}


def mail(
    name: str, locale: str, payload: dict[str, Any], attachments: Sequence[dict[str, Any]] = ()
) -> EmailContent:
    content = (
        loaded(name)
        .render("email", payload, locale, recipient=recipient(locale), attachments=attachments)
        .content
    )
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


def test_each_type_is_there() -> None:
    assert set(CATALOG.names()) == set(ACTIONS)


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


def test_a_new_sign_in_goes_as_far_as_it_must_and_no_further() -> None:
    policy = loaded("account.new_sign_in").policy
    assert policy.steps == (
        Step(("push", "inapp")),
        Step(("sms",), 600.0, ("read",)),
        Step(("email",), 3600.0, ("read",)),
    )
    assert (policy.lane, policy.required, policy.category) == ("high", True, "security")
    assert policy.channels == ("push", "inapp", "sms", "email")


def test_an_invoice_and_a_mention_are_sent_as_promised() -> None:
    invoice, mention = loaded("invoice.paid"), loaded("comment.mentioned")
    assert (invoice.policy.category, invoice.policy.channels) == ("billing", ("email", "inapp"))
    assert set(invoice.available) == {"email", "inapp", "push", "chat", "webhook", "sms"}
    assert mention.policy.channels == ("inapp", "push", "webpush", "email")
    assert (mention.policy.category, mention.policy.expires) == ("comments", 86400.0)
    assert set(mention.available) == {"email", "inapp", "push", "webpush", "chat"}


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
        ("invoice.paid", {"total": 119}, "payload.total: is not a string"),
        ("invoice.paid", {"total": "119,00"}, "payload.total: does not match"),
        ("invoice.paid", {"currency": "eur"}, "payload.currency: does not match"),
        ("invoice.paid", {"paid_at": "2026-11-23T14:30:00"}, "payload.paid_at: does not match"),
        ("invoice.paid", {"issued_on": "2026-02-30"}, "payload.issued_on: does not have the format date"),
        ("invoice.paid", {"lines": [{"description": "a"}]}, "payload.lines[0].amount: is missing"),
        ("comment.mentioned", {"comment_url": "http://a.example"}, "payload.comment_url: does not match"),
        ("comment.mentioned", {"text": ""}, "payload.text: is shorter than 1"),
        ("account.new_sign_in", {"signed_in_at": "14:30"}, "payload.signed_in_at: does not match"),
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
            rendered = loaded(name).render(channel, payload, locale, recipient=recipient(locale))
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
    page = str(mail(name, locale, example(name), ATTACHED).html)
    # As it is sent, styles inlined: not as it is written, which the check has looked at.
    assert list(findings("email.html", "email.html", page)) == []
    for tag, attributes in Dom(page).tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "background")]
        # Layout tables say so to screen readers; the others have names for their rows and columns.
        if tag == "table" and attributes.get("role") != "presentation":
            assert attributes["class"] in ("facts", "lines")
        assert tag != "th" or attributes.get("scope") in ("row", "col")


@every_mail
def test_a_mail_is_one_column_that_fits_a_small_phone(name: str, locale: str) -> None:
    page = str(mail(name, locale, example(name)).html)
    dom = Dom(page)
    widths = [attributes.get("width") for _, attributes in dom.tags if "width" in attributes]
    assert set(widths) <= {"100%"}
    assert re.findall(r"max-width: (\d+)px", page.partition("<body")[2]) == ["600"]
    assert not re.search(r"(?<!-)\bwidth: ?\d{3,}px", page)
    assert re.search(r'name="viewport" content="width=device-width', page)


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


def test_every_rule_for_dark_and_small_screens_has_something_to_meet() -> None:
    pages = [str(mail(name, "default", example(name), ATTACHED).html) for name in CATALOG.names()]
    style = pages[0][pages[0].index("<style") : pages[0].index("</style>")]
    classes = {
        word for page in pages for words in re.findall(r'class="([^"]+)"', page) for word in words.split()
    }
    assert set(re.findall(r"\.([a-z]+)", style)) <= classes


@every_mail
def test_a_mail_has_one_action_and_says_it_in_full(name: str, locale: str) -> None:
    content = mail(name, locale, example(name))
    url: Any = example(name)
    for part in ACTIONS[name].split("."):
        url = url[int(part) if part.isdecimal() else part]
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
    # What follows a Latin comma or colon is Latin: Chinese has its own marks.
    assert not re.search("[\u4e00-\u9fff][,:;?()]", " ".join(dom.words))
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
    # The second says where to choose, or that there is no choice.
    assert re.search("Notifications|Benachrichtigungen|通知|switched off|abschalten|无法关闭", last[1])
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
        if "sms" not in loaded(name).available:
            continue
        for locale in LOCALES:
            content = loaded(name).render("sms", example(name), locale, recipient=recipient(locale)).content
            assert isinstance(content, TextContent)
            words = re.sub(r"https://\S+", "", content.text)
            # One segment for the words (GSM 03.38: 160 characters; UCS-2: 70); a link is as long as it is.
            assert len(words) <= (70 if locale == "zh-Hans" else 160)
            # One character outside the alphabet more than halves what a segment holds.
            assert locale == "zh-Hans" or set(words) <= set(GSM), set(words) - set(GSM)


# --- the invoice ---------------------------------------------------------------------------------------


def test_an_invoice_is_written_in_its_readers_manner() -> None:
    written = {locale: mail("invoice.paid", locale, example("invoice.paid")) for locale in LOCALES}
    assert "Total: \u20ac148.75, of which tax: \u20ac23.75" in written["default"].text
    assert "Paid on: November 23, 2026, 2:30\xa0PM GMT+1" in written["default"].text
    assert "Summe: 148,75\xa0\u20ac, darin enthaltene Steuer: 23,75\xa0\u20ac" in written["de"].text
    assert "Bezahlt am: 23. November 2026, 14:30 MEZ" in written["de"].text
    assert "- Welcome discount: -5,00\xa0\u20ac" in written["de"].text
    assert "付款时间\uff1a2026年11月23日 14:30\uff08GMT+1\uff09" in written["zh-Hans"].text
    austrian = loaded("invoice.paid").render(
        "email", example("invoice.paid"), "de-AT", recipient={"id": "u", "locale": "de-AT"}
    )
    assert austrian.locale_used == "de"
    assert isinstance(austrian.content, EmailContent)
    assert "Summe: \u20ac\xa0148,75" in austrian.content.text


@pytest.mark.parametrize(
    ("locale", "said"),
    [("default", "is attached to this mail"), ("de", "im Anhang"), ("zh-Hans", "请见附件")],
)
def test_an_invoice_mentions_its_attachment_when_there_is_one(locale: str, said: str) -> None:
    with_one = mail("invoice.paid", locale, example("invoice.paid"), ATTACHED)
    without = mail("invoice.paid", locale, example("invoice.paid"))
    for part in (with_one.text, str(with_one.html)):
        assert said in part
        assert "invoice-R-2026-0981.pdf" in part
        assert "84 kB" in part.replace("\xa0", " ")
    for part in (without.text, str(without.html)):
        assert said not in part


def test_amounts_stand_at_the_right() -> None:
    dom = Dom(str(mail("invoice.paid", "default", example("invoice.paid")).html))
    cells = [attributes for tag, attributes in dom.tags if "amount" in str(attributes.get("class"))]
    assert len(cells) == 7  # a heading, four lines, the tax, the sum
    assert all(cell["align"] == "right" and "text-align: right" in str(cell["style"]) for cell in cells)


# --- the mention ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("locale", LOCALES)
def test_a_mention_quotes_the_comment_and_shortens_it(locale: str) -> None:
    payload = {**example("comment.mentioned"), "text": "one\n\ntwo\n" + "word " * 2000 + "END"}
    content = mail("comment.mentioned", locale, payload)
    assert "> one\n>\n> two\n> word" in content.text
    assert "word\u2026" in content.text
    assert "END" not in content.text + str(content.html)
    shown = preview_of(payload, locale)
    assert all(len(text) <= 250 for text in shown.values())
    assert len(content.subject) <= 80


def preview_of(payload: dict[str, Any], locale: str) -> dict[str, str]:
    type_ = loaded("comment.mentioned")
    found = {}
    for channel in ("push", "webpush", "inapp"):
        content = type_.render(channel, payload, locale, recipient=recipient(locale)).content
        assert isinstance(content, DataContent)
        found[channel] = content.data["body"]
    return found


# --- hostile values ------------------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "</td></table><img src=x onerror=alert(1)>",
    "<!--[if mso]><script>",
    "{{ payload }}{% raw %}",
    '", "admin": "yes',
    "\\",
    "[x](https://evil.example/) <!channel> @all **b**",
    "a\r\nBcc: eve@example.com",
    "\u202egnp.exe",
    "\x00\x07\x1b[31m",
)


def _with(payload: Any, text: str) -> Any:
    """The payload with a text in every place where a stranger may have written it."""
    if isinstance(payload, dict):
        kept = ("currency", "total", "tax", "amount", "issued_on", "expected_on", "at", "since", "until")
        return {
            key: value
            if key in kept or key.endswith(("_at", "_url"))
            else text + " end"
            if isinstance(value, str)
            else _with(value, text)
            for key, value in payload.items()
        }
    return [_with(entry, text) for entry in payload] if isinstance(payload, list) else payload


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", CATALOG.names())
def test_hostile_values_stay_in_their_places(name: str, text: str) -> None:
    tame, hostile = _with(example(name), "tame"), _with(example(name), text)
    loaded(name).check_payload({**hostile, **{key: "x" for key in ("invoice_number",) if key in hostile}})
    for locale in LOCALES:
        for channel in loaded(name).available:
            try:
                got = loaded(name).render(channel, hostile, locale, recipient=recipient(locale)).content
            except RenderError as error:
                # The one refusal there may be: a subject of several lines, which would be headers.
                assert (error.code, channel) == ("subject", "email")  # noqa: PT017 - both ends are right
                assert "\n" in text or "\x00" in text
                continue
            like = loaded(name).render(channel, tame, locale, recipient=recipient(locale)).content
            assert type(got) is type(like)
            if isinstance(got, EmailContent) and isinstance(like, EmailContent):
                assert shape(str(got.html)) == shape(str(like.html))
                assert "\u202e" not in got.subject or name != "comment.mentioned"
            elif isinstance(got, DataContent) and isinstance(like, DataContent):
                assert keys(got.data) == keys(like.data)
            elif isinstance(got, ChatContent):
                assert not re.search(r"(?<!\\)(<!|\]\(https://evil|@all|\*\*b)", got.markdown)


def shape(page: str) -> list[tuple[str, tuple[str, ...]]]:
    """Tags and names of attributes; the number of lines of a quotation may differ."""
    return [(tag, tuple(attributes)) for tag, attributes in Dom(page).tags if tag != "br"]


def keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    return [keys(entry) for entry in value] if isinstance(value, list) else None
