"""What the preview shows and tries, without a browser: payloads at a template's edges, inbox lines, whose desktop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from notify_tasks.cli.preview import has_desktop
from notify_tasks.pages import preview_payload
from notify_tasks.pages.preview_looks import SNIPPET, inbox_line
from notify_tasks.pages.preview_sheet import Previewer
from notify_tasks.pages.preview_values import Asked, Sheet
from notify_tasks.rendering import Catalog, LoadedType

TEMPLATES = Path(__file__).parents[2] / "templates"
TYPES = (
    "account.new_sign_in", "account.password_reset", "comment.digest", "comment.mentioned", "invoice.paid",
    "order.shipped",
)  # fmt: skip
SHIPPED = "order.shipped"


def load(name: str) -> LoadedType:
    loaded = Catalog(TEMPLATES).get(name)
    assert loaded is not None
    return loaded


def example(loaded: LoadedType) -> dict[str, Any]:
    value = json.loads(loaded.files.own["example.json"])
    assert isinstance(value, dict)
    return value


def sheet(root: Path, asked: Asked | None = None, name: str = SHIPPED) -> Sheet:
    made = Previewer(root).sheet(name, asked or Asked())
    assert made is not None
    return made


# --- payloads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPES)
def test_long_values_are_as_long_as_the_schema_lets_them_be(name: str) -> None:
    loaded = load(name)
    before = example(loaded)
    long = preview_payload.long_values(loaded, before)
    loaded.check_payload(long)
    assert len(json.dumps(long)) > len(json.dumps(before))
    assert long.keys() == before.keys()
    assert before == example(loaded)


def test_a_long_value_stops_where_the_schema_does() -> None:
    long = preview_payload.long_values(load(SHIPPED), example(load(SHIPPED)))
    assert 55 <= len(long["carrier"]) <= 60  # maxLength = 60; a space at the end is not written
    assert long["tracking_url"].startswith("https://")
    assert " " not in long["tracking_url"]
    assert len(long["items"]) == preview_payload.LONGEST_LIST


@pytest.mark.parametrize("name", TYPES)
def test_required_only_is_what_the_schema_demands(name: str) -> None:
    loaded = load(name)
    least = preview_payload.required_only(loaded, example(loaded))
    loaded.check_payload(least)
    assert least.keys() <= example(loaded).keys()
    assert set(preview_payload.required_only(load(SHIPPED), example(load(SHIPPED)))) == {"order_id"}


@pytest.mark.parametrize(
    ("text", "where", "line"),
    [
        ('{\n "order_id": 1,\n "x"\n}', "line 4, column 1", 4),
        ("[1]", "payload", 1),
        ("[" * 50_000, "payload", None),
        ('{"order_id": ' + "9" * 5000 + "}", "payload", None),
        (json.dumps({"order_id": 1, "note": "x" * 70_000}), "payload", None),
        ('{"order_id": "1"}', "payload.order_id", None),
        ('{"order_id": 1, "items": [{"quantity": 1}]}', "payload.items[0].name", None),
    ],
)
def test_what_cannot_be_used_says_where(text: str, where: str, line: int | None) -> None:
    written = preview_payload.read(text, load(SHIPPED))
    assert written.value is None
    assert (written.faults[0].where, written.faults[0].line) == (where, line)


def test_every_field_that_does_not_fit_is_named() -> None:
    written = preview_payload.read('{"carrier": "", "items": [{}]}', load(SHIPPED))
    assert {it.where for it in written.faults} == {
        "payload.order_id",
        "payload.carrier",
        "payload.items[0].name",
    }


# --- the sheet ------------------------------------------------------------------------------------------


def test_the_last_usable_payload_is_shown_while_another_is_written() -> None:
    shown = sheet(TEMPLATES, Asked(payload='{"order_id": ', last='{"order_id": 5150}'))
    (sms,) = (row for row in shown.rows if row.channel == "sms")
    assert sms.cells[0].view is not None
    assert "5150" in sms.cells[0].view["text"]
    assert shown.written.faults


def test_a_bare_address_has_no_id_and_no_time_zone(tmp_path: Path) -> None:
    home = tmp_path / "a.type"
    home.mkdir()
    (home / "notification.toml").write_text('channels = ["sms"]\n')
    (home / "example.json").write_text("{}")
    (home / "sms.txt").write_text(
        "{{ recipient.id or 'nobody' }} {{ recipient.timezone or 'nowhere' }} {{ attachments | length }}"
    )

    def text(**asked: Any) -> str:
        view = sheet(tmp_path, Asked(**asked), "a.type").rows[0].cells[0].view
        assert view is not None
        return str(view["text"])

    assert text() == "user-42 Europe/Berlin 0"
    assert text(timezone="Asia/Tokyo", attachment=True) == "user-42 Asia/Tokyo 1"
    assert text(bare=True) == "nobody nowhere 0"


def test_locales_of_the_neighbours_can_be_switched_on(tmp_path: Path) -> None:
    shutil.copytree(TEMPLATES, tmp_path / "types")
    shutil.rmtree(tmp_path / "types" / SHIPPED / "de")
    columns = {it.key: it.shown for it in sheet(tmp_path / "types").columns}
    assert columns == {"default": True, "zh-Hans": True, "de": False}
    columns = {it.key: it.shown for it in sheet(tmp_path / "types", Asked(added=("de", "no path/"))).columns}
    assert columns == {"default": True, "zh-Hans": True, "de": True}


def test_a_problem_of_the_layout_shows_at_every_mail_that_uses_it(tmp_path: Path) -> None:
    root = tmp_path / "types"
    shutil.copytree(TEMPLATES, root)
    previewer = Previewer(root)
    assert previewer.sheet(SHIPPED, Asked()) is not None
    with (root / "_layout" / "parts.html").open("a") as file:
        file.write("{% if %}\n")
    previewer.check(SHIPPED)
    shown = previewer.sheet(SHIPPED, Asked())
    assert shown is not None
    for row in shown.rows:
        for cell in row.cells:
            assert bool(cell.problems) == (row.channel == "email")
            assert cell.stale == (row.channel == "email")
    assert (shown.wrong, shown.problems, shown.broken) == (1, (), True)


# --- an inbox, a desktop ----------------------------------------------------------------------------------


def test_an_inbox_line_begins_with_what_is_hidden_for_it() -> None:
    html = (
        "<html><head><title>no</title><style>p {}</style></head><body>"
        '<div class="preview">Your parcel&nbsp;left &amp; flies</div>\u200c\u200c <p>Hello,</p></body></html>'
    )
    assert inbox_line(html, "text") == "Your parcel left & flies Hello,"
    assert inbox_line(None, "The text\n\nof it") == "The text of it"
    assert len(inbox_line(None, "word " * 100)) <= SNIPPET + 1


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "linux", False),
        ({}, "darwin", True),
        ({"CI": "true", "DISPLAY": ":0"}, "linux", False),
        ({"CI": "true"}, "darwin", False),
    ],
)
def test_a_browser_is_opened_only_where_it_is_seen(
    environment: dict[str, str], platform: str, *, expected: bool
) -> None:
    assert has_desktop(environment, platform) is expected
