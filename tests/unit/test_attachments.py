"""What a call may attach: each wrong one is refused in the caller, with its place and the remedy."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import group
from hypothesis import given
from hypothesis import strategies as st

from notify_tasks import Attachment, InvalidCall, send_notification, settings
from notify_tasks.attaching import guessed_type
from notify_tasks.attachments import (
    MAX_ATTACHMENTS,
    MAX_CONTENT_BYTES,
    Attached,
    from_about,
    from_wire,
    name_fault,
    path_fault,
)
from notify_tasks.calls import build_notification
from notify_tasks.cli import send
from notify_tasks.errors import WireError
from notify_tasks.keeping.redis import message_of
from notify_tasks.messages import build as message_form
from notify_tasks.notification import Notification
from notify_tasks.recipients import To
from notify_tasks.testing import Outbox, outbox

__all__ = ["outbox"]

NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)
PDF = b"%PDF-1.7 \x00\xff"
CANARY = "ann.secret"
TO: To = {"email": "ann@example.com"}


def build(*attached: Any, **options: Any) -> Notification:
    given: dict[str, Any] = {"to": TO, "message_id": "m-1", "attachments": list(attached), **options}
    return build_notification("invoice.paid", now=NOW, **given)


def entry(**changes: Any) -> dict[str, Any]:
    given = {"name": "invoice.pdf", "content": PDF, **changes}
    return {key: value for key, value in given.items() if value is not ...}


def test_bytes_and_stored_files_become_values() -> None:
    call = build(
        Attachment(name="invoice-981.pdf", content=PDF),
        {"name": "terms.pdf", "file": "terms/2026.pdf", "type": "application/x-terms"},
    )

    assert call.attachments == (
        Attached("invoice-981.pdf", "application/pdf", content=PDF, size=len(PDF)),
        Attached("terms.pdf", "application/x-terms", file="terms/2026.pdf"),
    )


@pytest.mark.parametrize("content", [PDF, bytearray(PDF), memoryview(PDF), memoryview(PDF + PDF)[: len(PDF)]])
def test_whatever_holds_bytes_is_copied(content: Any) -> None:
    (attached,) = build(entry(content=content)).attachments
    assert type(attached.content) is bytes
    assert (attached.content, attached.size) == (PDF, len(PDF))


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_no_attachments_are_no_attachments(nothing: Any) -> None:
    plain = build_notification("invoice.paid", now=NOW, to=TO, message_id="m-1")
    assert build(attachments=nothing) == plain


@pytest.mark.parametrize(
    ("attached", "field", "said"),
    [
        (["invoice.pdf"], "attachments[0]", "Write attachments="),
        ([PDF], "attachments[0]", "Write attachments="),
        ([entry(), entry(filename="x", name=...)], "attachments[1].filename", "Did you mean name"),
        ([entry(mimetype="x")], "attachments[0].mimetype", "Did you mean type"),
        ([entry(path="x", content=...)], "attachments[0].path", "Did you mean file"),
        ([{f"{CANARY}@": 1}], "attachments[0].[key 1]", "There are name, content"),
        ([{7: 1}], "attachments[0].[key 1]", "There are name, content"),
        ([entry(content=...)], "attachments[0]", "neither content nor file"),
        ([entry(file="a.pdf")], "attachments[0]", "both content and file"),
        # names
        ([entry(name=...)], "attachments[0].name", "Write the name that people see"),
        ([entry(name=b"a.pdf")], "attachments[0].name", "bytes is not a text"),
        ([entry(name="")], "attachments[0].name", "1 to 150 characters"),
        ([entry(name="a" * 147 + ".pdf")], "attachments[0].name", "1 to 150 characters"),
        ([entry(name="票" * 100)], "attachments[0].name", "255 bytes"),
        ([entry(name="../etc/passwd")], "attachments[0].name", "name alone"),
        ([entry(name="a\\b.pdf")], "attachments[0].name", "name alone"),
        ([entry(name="a\r\nBcc: x@example.com")], "attachments[0].name", "cannot be seen"),
        ([entry(name="a\x00.pdf")], "attachments[0].name", "cannot be seen"),
        ([entry(name="invoice-\u202efdp.exe")], "attachments[0].name", "turns the text"),
        ([entry(name="a\u2066.pdf")], "attachments[0].name", "turns the text"),
        ([entry(name="a\u200b.pdf")], "attachments[0].name", "cannot be seen"),
        ([entry(name="a\u2028.pdf")], "attachments[0].name", "cannot be seen"),
        ([entry(name="\ud800.pdf")], "attachments[0].name", "cannot be seen"),
        ([entry(name=" a.pdf")], "attachments[0].name", "begins or ends"),
        ([entry(name="evil.exe.")], "attachments[0].name", "begins or ends"),
        ([entry(name="..")], "attachments[0].name", "ends with a dot"),
        ([entry(name="A.pdf"), entry(name="a.PDF")], "attachments[1].name", "name of its own"),
        # types
        ([entry(type="pdf")], "attachments[0].type", "application/pdf"),
        ([entry(type="text/plain; charset=x")], "attachments[0].type", "without parameters"),
        ([entry(type="a/b\r\nBcc: x")], "attachments[0].type", "not a media type"),
        ([entry(type="a/b\n")], "attachments[0].type", "not a media type"),
        ([entry(type="a/" + "b" * 128)], "attachments[0].type", "not a media type"),
        ([entry(type="Multipart/mixed")], "attachments[0].type", "hold other parts"),
        ([entry(type="message/rfc822")], "attachments[0].type", "application/octet-stream"),
        ([entry(type=3)], "attachments[0].type", "int is not a text"),
        # contents
        ([entry(content="JVBERi0=")], "attachments[0].content", "base64"),
        ([entry(content=Path("a.pdf"))], "attachments[0].content", "read_bytes()"),
        ([entry(content=io.BytesIO(PDF))], "attachments[0].content", "read()"),
        ([entry(content=[1, 2])], "attachments[0].content", "Write bytes"),
        ([entry(content=bytes(MAX_CONTENT_BYTES + 1))], "attachments[0].content", "NOTIFY_ATTACHMENTS"),
        (
            [entry(content=bytes(MAX_CONTENT_BYTES)), entry(name="b", content=b"1")],
            "attachments",
            "NOTIFY_ATTACHMENTS",
        ),
        # paths
        ([entry(content=..., file=Path("a"))], "attachments[0].file", "PosixPath is not a text"),
        ([entry(content=..., file="")], "attachments[0].file", "1 to 500"),
        ([entry(content=..., file="/etc/passwd")], "attachments[0].file", "begins with a /"),
        ([entry(content=..., file="../secret")], "attachments[0].file", "NOTIFY_ATTACHMENTS"),
        ([entry(content=..., file="a/../../secret")], "attachments[0].file", "NOTIFY_ATTACHMENTS"),
        ([entry(content=..., file="a//b")], "attachments[0].file", "empty part"),
        ([entry(content=..., file="./a")], "attachments[0].file", "is . or .."),
        ([entry(content=..., file="a/")], "attachments[0].file", "empty part"),
        ([entry(content=..., file="a\\b")], "attachments[0].file", "has a \\"),
        ([entry(content=..., file="a\x00b")], "attachments[0].file", "control character"),
        ([entry(content=..., file="a" * 501)], "attachments[0].file", "1 to 500"),
        ([entry(name=f"{n}") for n in range(MAX_ATTACHMENTS + 1)], "attachments", "one archive"),
    ],
)
def test_a_wrong_one_is_refused_with_its_place_and_the_remedy(
    attached: list[Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidCall) as refused:
        build(*attached)

    assert refused.value.field == field
    assert said in str(refused.value)


@pytest.mark.parametrize("value", [entry(), "a.pdf", PDF, {1}, 7])
def test_something_else_than_a_list_is_refused(value: Any) -> None:
    with pytest.raises(InvalidCall, match=r"attachments: .* is not a list"):
        build(attachments=value)


@pytest.mark.parametrize(
    "name",
    [
        "Rechnung für Jörg.pdf",
        "发票.pdf",
        "می‌خواهم.pdf",
        "👩‍👧.png",
        "Bild um 9.41\u202fAM.png",
        ".env",
        'a"b.pdf',
    ],
)
def test_names_of_every_script_are_taken(name: str) -> None:
    assert build(entry(name=name)).attachments[0].name == name


@pytest.mark.parametrize(
    ("name", "guessed"),
    [
        ("a.pdf", "application/pdf"),
        ("A.PDF", "application/pdf"),
        ("a.csv", "text/csv"),
        ("a.ics", "text/calendar"),
        ("a.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("a.tar.gz", "application/gzip"),
        ("a.eml", "application/octet-stream"),  # message/rfc822 may not be sent in base64
        ("a", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
    ],
)
def test_the_type_follows_from_the_name(name: str, guessed: str) -> None:
    assert build(entry(name=name)).attachments[0].type == guessed == guessed_type(name)


def test_it_never_shows_in_a_repr_or_an_error() -> None:
    call = build(entry(name=f"{CANARY}.pdf", content=b"canary-bytes"), entry(content=..., file=f"{CANARY}/x"))
    shown = f"{call!r} {call.attachments!r}"
    for bad in ({"content": CANARY}, {"file": f"../{CANARY}", "content": ...}, {"name": f"{CANARY}/x"}):
        with pytest.raises(InvalidCall) as refused:
            build(entry(**bad))
        shown += f"{refused.value!r} {refused.value}"

    assert "secret" not in shown
    assert "canary" not in shown


# --- the same call, another call -----------------------------------------------------------------------


def test_a_call_without_attachments_is_hashed_as_before_there_were_any() -> None:
    call = build_notification("order.shipped", now=NOW, to="user-42", payload={"order_id": 981})
    assert call.hash == "103d0f9fa05a56bcac74834d5848ce8b"


def test_the_same_attachments_are_the_same_call_and_others_are_another() -> None:
    assert build(entry()).hash == build(entry(content=bytearray(PDF))).hash
    others = [
        build(),
        build(entry()),
        build(entry(name="other.pdf")),
        build(entry(content=PDF + b".")),
        build(entry(type="application/x-pdf")),
        build(entry(content=..., file="invoice.pdf")),
        build(entry(content=..., file="invoice2.pdf")),
        build(entry(), entry(name="b.pdf")),
        build(entry(name="b.pdf"), entry()),
    ]
    assert len({each.hash for each in others}) == len(others)


def test_a_guessed_type_is_no_part_of_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(entry())
    monkeypatch.setattr("notify_tasks.attaching.guessed_type", lambda _: "application/x-newer-python")
    again = build(entry())

    assert again.attachments[0].type != first.attachments[0].type
    assert again.hash == first.hash


# --- over the wire -------------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=80).filter(lambda name: name_fault(name) is None)
paths = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4).map("/".join)
kinds = st.sampled_from(["application/pdf", "text/csv", "image/png", "application/vnd.x+json"])
attached = st.builds(
    lambda name, kind, content: Attached(name, kind, content=content, size=len(content)),
    names,
    kinds,
    st.binary(max_size=200),
) | st.builds(
    lambda name, kind, path: Attached(name, kind, file=path),
    names,
    kinds,
    paths.filter(lambda path: path_fault(path) is None),
)
many = st.lists(attached, min_size=1, max_size=MAX_ATTACHMENTS).map(tuple)


@given(many)
def test_attachments_survive_their_way_over_the_wire(attachments: tuple[Attached, ...]) -> None:
    call = replace(build(), attachments=attachments)
    wire = json.loads(json.dumps(call.to_wire()))

    assert wire["v"] == 2
    assert Notification.from_wire(wire) == call


@given(many)
def test_the_row_tells_all_but_the_bytes(attachments: tuple[Attached, ...]) -> None:
    told = from_about(json.loads(json.dumps([each.about() for each in attachments])))
    assert told == tuple(replace(each, content=None) for each in attachments)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@given(
    json_values
    | st.lists(st.fixed_dictionaries({"name": json_values, "type": json_values, "content": json_values}))
)
def test_anything_else_on_the_wire_is_refused_without_being_shown(value: object) -> None:
    try:
        read = from_wire(value)
    except WireError:
        return
    assert all(isinstance(each.content, bytes) for each in read)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a/b"},
        {"name": "a\r\nBcc: canary@example.com"},
        {"name": None},
        {"type": "message/rfc822"},
        {"type": "a/b\r\nX: canary"},
        {"content": "canary!"},
        {"content": None},
        {"content": base64.b64encode(bytes(MAX_CONTENT_BYTES + 1)).decode()},
        {"content": None, "file": "../canary"},
        {"file": "canary.pdf"},
    ],
)
def test_the_wire_keeps_the_rules_of_the_call(change: dict[str, Any]) -> None:
    wire = build(entry()).to_wire()
    changed = {**wire["attachments"][0], **change}
    wire["attachments"] = [{key: value for key, value in changed.items() if value is not None}]

    with pytest.raises(WireError) as refused:
        Notification.from_wire(wire)
    assert "canary" not in str(refused.value)


def test_a_call_without_attachments_goes_as_version_1_and_byte_for_byte_as_ever() -> None:
    call = build_notification(
        "order.shipped", now=NOW, to="user-42", payload={"order_id": 981}, message_id="m-1"
    )
    assert json.dumps(call.to_wire(), separators=(",", ":")) == (
        '{"v":1,"message_id":"m-1","hash":"' + call.hash + '","event_type":"order.shipped",'
        '"timestamp":"2030-01-31T09:00:00+00:00","tenant":"default","to":[{"id":"user-42"}],'
        '"payload":{"order_id":981}}'
    )


def test_version_2_without_attachments_is_no_envelope() -> None:
    wire = build(entry()).to_wire()
    del wire["attachments"]
    with pytest.raises(WireError, match="attachments"):
        Notification.from_wire(wire)


# --- every way of calling ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_settings() -> Iterator[None]:
    settings.reset()
    yield
    settings.reset()


def test_every_way_of_calling_carries_them(outbox: Outbox) -> None:
    some: list[Attachment] = [{"name": "invoice.pdf", "content": PDF}]
    send_notification.delay("invoice.paid", to=TO, attachments=some)
    send_notification.apply_async(("invoice.paid",), {"to": TO, "attachments": some})
    group(send_notification.s("invoice.paid", to=TO, attachments=some) for _ in range(2))()

    assert [each.attachments[0].content for each in outbox.notifications] == [PDF] * 4


def test_the_message_and_its_ledger_entry_carry_them_and_what_flower_shows_does_not() -> None:
    call = build(entry(name=f"{CANARY}.pdf"))
    message = message_of(call, {})
    built = message_form(message, bucket=0)

    assert Notification.from_wire(json.loads(str(message.ledger_value))["envelope"]) == call
    body = json.loads(base64.b64decode(json.loads(built.commands[-1][-1])["body"]))
    assert Notification.from_wire(body[0][0]) == call
    assert "secret" not in f"{message!r} {built.headers!r}"


# --- the command line ----------------------------------------------------------------------------------


def test_the_command_line_attaches_files_and_stored_files(tmp_path: Path) -> None:
    (tmp_path / "invoice.pdf").write_bytes(PDF)

    found = send.attachments([str(tmp_path / "invoice.pdf")], ["terms/2026.pdf"])

    assert found == [
        {"name": "invoice.pdf", "content": PDF},
        {"name": "2026.pdf", "file": "terms/2026.pdf"},
    ]
    assert send.attachments(None, None) is None


def test_the_command_line_says_what_to_do_with_a_file_it_cannot_attach(tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(MAX_CONTENT_BYTES + 1))

    with pytest.raises(InvalidCall, match=r"--attach: .* cannot be read \(FileNotFoundError\)"):
        send.attachments([str(tmp_path / "missing.pdf")], None)
    with pytest.raises(InvalidCall, match="write --attach-stored PATH"):
        send.attachments([str(tmp_path / "large.bin")], None)
