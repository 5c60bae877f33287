"""Rendering: from a type's folder and a payload to what a channel takes."""

from __future__ import annotations

import logging
import shutil
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from channels.contract import ChatContent, DataContent, EmailContent, TextContent
from notify_tasks.errors import NotConfigured
from notify_tasks.rendering import BrokenType, Catalog, LoadedType, Rendered, RenderError

NAME = "order.shipped"
POLICY = 'channels = ["email"]\n'
MAIL = {
    "notification.toml": POLICY,
    "email.subject.txt": "Order {{ payload.order_id }}",
    "email.txt": "Order {{ payload.order_id }} left.",
    "email.html": "<p>Order {{ payload.order_id }} left.</p>",
}
CANARY = "canary-4711-secret"


def write(root: Path, files: Mapping[str, str], name: str = NAME) -> Path:
    """Write a type's folder; a path that begins with _layout/ goes beside it."""
    for path, text in files.items():
        target = root / path if path.startswith("_layout/") else root / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # As editors do: whole, under another name, then moved into place.
        spare = target.with_name(f".{target.name}.new")
        spare.write_text(text, encoding="utf-8")
        spare.replace(target)
    return root


def load(root: Path, files: Mapping[str, str]) -> LoadedType:
    loaded = Catalog(write(root, files), recheck=0).get(NAME)
    assert loaded is not None
    return loaded


def only(channel: str, part: str, template: str, **more: str) -> dict[str, str]:
    return {"notification.toml": f'channels = ["{channel}"]\n', part: template, **more}


def render(
    loaded: LoadedType, channel: str, payload: Mapping[str, Any], locale: str | None = None
) -> Rendered:
    return loaded.render(channel, payload, locale, recipient={"id": "user-42", "locale": locale})


def sms(root: Path, template: str, payload: Mapping[str, Any]) -> str:
    content = render(load(root, only("sms", "sms.txt", template)), "sms", payload).content
    assert isinstance(content, TextContent)
    return content.text


# --- each channel gets its own content -----------------------------------------------------------------


def test_a_mail_has_a_subject_a_text_and_html(tmp_path: Path) -> None:
    rendered = render(load(tmp_path, MAIL), "email", {"order_id": 981})
    assert isinstance(rendered.content, EmailContent)
    assert rendered.content.subject == "Order 981"
    assert rendered.content.text == "Order 981 left.\n"
    assert "<p>Order 981 left.</p>" in str(rendered.content.html)


def test_a_mail_may_have_no_html(tmp_path: Path) -> None:
    files = {name: text for name, text in MAIL.items() if name != "email.html"}
    content = render(load(tmp_path, files), "email", {"order_id": 981}).content
    assert content == EmailContent("Order 981", "Order 981 left.\n", None)


@pytest.mark.parametrize("channel", ["push", "webpush", "inapp", "webhook"])
def test_json_channels_get_an_object(tmp_path: Path, channel: str) -> None:
    template = (
        '{"title": "Order {{ payload.order_id }}", "tags": {{ payload.tags | tojson }}, "n": {{ payload.n }}}'
    )
    loaded = load(tmp_path, only(channel, f"{channel}.json", template))
    content = render(loaded, channel, {"order_id": 9, "tags": ["a", None], "n": 1.5}).content
    assert content == DataContent({"title": "Order 9", "tags": ["a", None], "n": 1.5})


def test_a_chat_post_is_markdown(tmp_path: Path) -> None:
    content = render(
        load(tmp_path, only("chat", "chat.md", "**Order {{ payload.n }}**\n")), "chat", {"n": 1}
    ).content
    assert content == ChatContent("**Order 1**\n")


def test_a_call_may_name_a_channel_the_type_does_not_list(tmp_path: Path) -> None:
    loaded = load(tmp_path, {**MAIL, "sms.txt": "Order {{ payload.order_id }}\n"})
    assert loaded.policy.channels == ("email",)
    assert loaded.available == ("email", "sms")
    assert render(loaded, "sms", {"order_id": 1}).content == TextContent("Order 1")
    with pytest.raises(RenderError, match=r"no-files: .*'push'.*email, sms"):
        render(loaded, "push", {"order_id": 1})


def test_a_field_is_a_field_even_if_dictionaries_have_a_method_of_that_name(tmp_path: Path) -> None:
    template = "{% for item in payload.items %}{{ item.keys }} {% endfor %}{{ payload['get'] }}"
    assert sms(tmp_path, template, {"items": [{"keys": "a"}, {"keys": "b"}], "get": "c"}) == "a b c"


def test_a_paragraph_that_is_left_out_leaves_no_hole(tmp_path: Path) -> None:
    files = {**MAIL, "email.txt": "One.\n\n{% if payload.two %}\nTwo.\n{% endif %}\n\n\nThree.\n"}
    content = render(load(tmp_path, files), "email", {"order_id": 1, "two": False}).content
    assert isinstance(content, EmailContent)
    assert content.text == "One.\n\nThree.\n"


def test_templates_see_what_is_handed_in_of_the_recipient_and_no_more(tmp_path: Path) -> None:
    loaded = load(tmp_path, only("sms", "sms.txt", "{{ recipient.id }} {{ recipient.phone }}"))
    with pytest.raises(RenderError, match=r"recipient\.phone is missing"):
        loaded.render("sms", {}, None, recipient={"id": "user-42"})


def test_private_contents_are_not_in_the_repr(tmp_path: Path) -> None:
    assert CANARY not in repr(render(load(tmp_path, MAIL), "email", {"order_id": CANARY}))


# --- locales -------------------------------------------------------------------------------------------

LOCALES = {
    **only("sms", "sms.txt", "default"),
    "de/sms.txt": "de",
    "de-AT/sms.txt": "de-AT",
    "pt_BR/sms.txt": "pt_BR",
    "zh-Hans/sms.txt": "zh-Hans",
}


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        (None, "default"),
        ("", "default"),
        ("fr", "default"),
        ("de", "de"),
        ("DE", "de"),
        ("de_DE", "de"),
        ("de-DE-1996", "de"),
        ("de_DE.UTF-8@euro", "de"),
        ("de_at", "de-AT"),
        ("pt-BR", "pt_BR"),
        ("pt", "default"),
        ("zh-Hans-CN", "zh-Hans"),
        ("zh_hans", "zh-Hans"),
        ("zh-CN", "zh-Hans"),
        ("zh", "zh-Hans"),
        ("../../etc", "default"),
        ("x" * 5000, "default"),
    ],
)
def test_the_nearest_locale_is_taken(tmp_path: Path, asked: str | None, used: str) -> None:
    rendered = render(load(tmp_path, LOCALES), "sms", {}, asked)
    assert (rendered.content, rendered.locale_used) == (TextContent(used), used)


def test_each_file_of_a_mail_falls_back_by_itself(tmp_path: Path) -> None:
    files = {**MAIL, "de/email.txt": "Bestellung", "de-AT/email.subject.txt": "Servus"}
    rendered = render(load(tmp_path, files), "email", {"order_id": 1}, "de-AT")
    assert isinstance(rendered.content, EmailContent)
    assert (rendered.content.subject, rendered.content.text) == ("Servus", "Bestellung\n")
    assert "left" in str(rendered.content.html)
    assert rendered.locale_used == "de-AT"


# --- what fails, fails with file, line and remedy, and without a value ----------------------------------


def test_a_missing_variable_is_named_with_file_and_line(tmp_path: Path) -> None:
    files = {**MAIL, "de/email.txt": "Hallo,\n\ndeine {{ payload.order.total }} Euro"}
    with pytest.raises(RenderError) as caught:
        render(load(tmp_path, files), "email", {"order_id": 1, "order": {}}, "de")
    assert caught.value.code == "missing-value"
    assert (caught.value.problem.file, caught.value.problem.line) == ("order.shipped/de/email.txt", 3)
    assert "payload.order.total is missing" in caught.value.detail
    assert "default" in caught.value.problem.remedy


def test_an_error_in_the_layout_names_the_layout(tmp_path: Path) -> None:
    files = {
        **only("sms", "sms.txt", '{% extends "_layout/s.txt" %}{% block a %}x{% endblock %}'),
        "_layout/s.txt": "one\n{{ payload.gone }}{% block a %}{% endblock %}",
    }
    with pytest.raises(RenderError, match=r"_layout/s\.txt, line 2: payload\.gone is missing"):
        render(load(tmp_path, files), "sms", {})


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{{ payload.table[payload.secret] }}", "missing-value"),
        ("{{ payload.secret.gone }}", "unsafe"),
        ("{{ payload.secret.upper() }}", "unsafe"),
        ("{{ payload.secret() }}", "unsafe"),
        ("{{ payload.secret + 1 }}", "template"),
        ("{{ payload.secret | round }}", "template"),
        ("{{ payload.secret | sum }}", "template"),
        ("{{ 1 // payload.zero }}", "template"),
        ("{{ payload.secret | link }}", "unsafe-link"),
        ("{{ payload.list }}", "template"),
        ("{{ payload.none }}", "template"),
        ("{{ payload.list | map('upper') }}", "template"),
        ("{% for a in payload.zero %}{% endfor %}", "template"),
        ("{{ payload.half }}", "not-text"),
        ("{% if payload.zero %}{{ payload.secret }}{% endif %}", "empty"),
    ],
)
def test_no_failure_shows_a_value(tmp_path: Path, template: str, code: str) -> None:
    payload = {"secret": CANARY, "table": {CANARY: 1, "a": 2}, "zero": 0, "none": None}
    payload |= {"list": [CANARY], "half": CANARY + "\ud800"}
    del payload["table"][CANARY]  # type: ignore[attr-defined]
    with pytest.raises(RenderError) as caught:
        sms(tmp_path, template, payload)
    assert caught.value.code == code
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(caught.value.problem)
    assert CANARY not in said
    assert caught.value.problem.remedy


@pytest.mark.parametrize(
    "ending", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\x00", "\x1e"]
)
def test_a_subject_with_a_line_break_from_the_payload_is_refused(tmp_path: Path, ending: str) -> None:
    loaded = load(tmp_path, MAIL)
    with pytest.raises(RenderError) as caught:
        render(loaded, "email", {"order_id": f"1{ending}Bcc: {CANARY}@example.com"})
    assert caught.value.code == "subject"
    assert CANARY not in str(caught.value)


def test_a_subject_is_one_stripped_line(tmp_path: Path) -> None:
    files = {
        **MAIL,
        "email.subject.txt": "\n{% if payload.order_id %}\n  Order {{ payload.order_id }}\n{% endif %}\n",
    }
    content = render(load(tmp_path, files), "email", {"order_id": 1}).content
    assert isinstance(content, EmailContent)
    assert content.subject == "Order 1"
    with pytest.raises(RenderError, match=r"subject: .*empty"):
        render(load(tmp_path, files), "email", {"order_id": 0})


# --- the catalog ---------------------------------------------------------------------------------------


def text_of(catalog: Catalog, payload: Mapping[str, Any] | None = None) -> str:
    loaded = catalog.get(NAME)
    assert loaded is not None
    content = render(loaded, "sms", payload or {}).content
    assert isinstance(content, TextContent)
    return content.text


def test_an_unknown_type_is_none_and_a_path_is_no_name(tmp_path: Path) -> None:
    catalog = Catalog(write(tmp_path, MAIL))
    (tmp_path / "notes").mkdir()
    for name in (
        "gone",
        "notes",
        "_layout",
        "..",
        ".",
        "",
        "../order.shipped",
        "order.shipped/",
        "a\0b",
        "Order",
    ):
        assert catalog.get(name) is None
    assert catalog.names() == (NAME,)


def test_a_templates_folder_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="create it"):
        Catalog(tmp_path / "gone")


def test_a_broken_type_is_refused_while_others_work(tmp_path: Path) -> None:
    write(tmp_path, {**MAIL, "email.txt": "one\n{% if %}"}, "broken.one")
    catalog = Catalog(write(tmp_path, MAIL))
    with pytest.raises(BrokenType) as caught:
        catalog.get("broken.one")
    assert str(caught.value).startswith(
        "the notification type 'broken.one' is broken:\n  broken.one/email.txt, line 2"
    )
    assert catalog.get(NAME) is not None
    assert catalog.names() == ("broken.one", NAME)


def test_an_edit_is_picked_up(tmp_path: Path) -> None:
    catalog = Catalog(write(tmp_path, only("sms", "sms.txt", "one")), recheck=0)
    assert text_of(catalog) == "one"
    write(tmp_path, {"sms.txt": "two"})
    assert text_of(catalog) == "two"


def test_an_edit_of_the_layout_is_picked_up(tmp_path: Path) -> None:
    files = {**only("sms", "sms.txt", '{% include "_layout/a.txt" %}'), "_layout/a.txt": "one"}
    catalog = Catalog(write(tmp_path, files), recheck=0)
    assert text_of(catalog) == "one"
    write(tmp_path, {"_layout/a.txt": "two"})
    assert text_of(catalog) == "two"


def test_files_are_looked_at_only_when_it_is_time(tmp_path: Path) -> None:
    catalog = Catalog(write(tmp_path, only("sms", "sms.txt", "one")), recheck=3600)
    assert text_of(catalog) == "one"
    write(tmp_path, {"sms.txt": "two"})
    assert text_of(catalog) == "one"


def test_templates_are_compiled_once(tmp_path: Path) -> None:
    catalog = Catalog(write(tmp_path, MAIL), recheck=0)
    assert catalog.get(NAME) is catalog.get(NAME)


def test_a_broken_edit_keeps_the_last_good_version_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a type in force
    catalog = Catalog(write(tmp_path, only("sms", "sms.txt", "one")), recheck=0)
    assert text_of(catalog) == "one"
    with caplog.at_level(logging.ERROR):
        # when it is broken and asked for again and again
        write(tmp_path, {"sms.txt": "{{ payload.order_id }"})
        assert [text_of(catalog) for _ in range(5)] == ["one"] * 5
        assert len(caplog.records) == 1
        assert "order.shipped/sms.txt, line 1" in caplog.text
        assert "stays in force" in caplog.text
        # and broken in another way, which is another change
        write(tmp_path, {"sms.txt": "one", "notification.toml": "channels = 1\n"})
        assert [text_of(catalog) for _ in range(5)] == ["one"] * 5
        assert len(caplog.records) == 2
        # and mended
        write(tmp_path, {"sms.txt": "three", "notification.toml": 'channels = ["sms"]\n'})
        assert text_of(catalog) == "three"
    assert len(caplog.records) == 2


def test_a_broken_layout_keeps_the_last_good_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {**only("sms", "sms.txt", '{% include "_layout/a.txt" %}'), "_layout/a.txt": "one"}
    catalog = Catalog(write(tmp_path, files), recheck=0)
    assert text_of(catalog) == "one"
    write(tmp_path, {"_layout/a.txt": "{% endif %}"})
    assert text_of(catalog) == "one"
    assert "_layout/a.txt, line 1" in caplog.text


def test_a_lost_policy_file_keeps_the_last_good_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = Catalog(write(tmp_path, only("sms", "sms.txt", "one")), recheck=0)
    assert text_of(catalog) == "one"
    (tmp_path / NAME / "notification.toml").unlink()
    assert text_of(catalog) == "one"
    assert "the file is missing" in caplog.text


def test_a_type_that_was_never_in_order_works_once_mended(tmp_path: Path) -> None:
    catalog = Catalog(write(tmp_path, only("sms", "sms.txt", "{{")), recheck=0)
    with pytest.raises(BrokenType):
        catalog.get(NAME)
    write(tmp_path, {"sms.txt": "one"})
    assert text_of(catalog) == "one"


def test_a_type_can_come_and_go(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, recheck=0)
    assert catalog.get(NAME) is None
    write(tmp_path, only("sms", "sms.txt", "one"))
    assert text_of(catalog) == "one"
    shutil.rmtree(tmp_path / NAME)
    assert catalog.get(NAME) is None


def test_the_version_is_the_content(tmp_path: Path) -> None:
    def version(**changes: str) -> str:
        return load(tmp_path, changes).policy.version

    first = version(**MAIL, **{"_layout/a.txt": "one"})
    seen = {first}
    # Every file counts, the example and the layout too.
    for path in (*MAIL, "example.json", "de/email.txt", "_layout/a.txt"):
        changed = version(**{path: MAIL.get(path, "{}") + "\n"})
        assert changed not in seen
        seen.add(changed)
    # The same content is the same version, wherever and whenever it was written.
    for path in ("example.json", "de/email.txt"):
        (tmp_path / NAME / path).unlink()
    assert version(**MAIL, **{"_layout/a.txt": "one"}) == first
    assert first == load(tmp_path / "elsewhere", {**MAIL, "_layout/a.txt": "one"}).policy.version


def test_editors_leftovers_change_nothing(tmp_path: Path) -> None:
    before = load(tmp_path, MAIL).policy.version
    after = load(tmp_path, {".email.txt.swp": "x", "email.txt~": "{{", "#email.txt#": "{{"}).policy.version
    assert after == before


def test_many_threads_render_while_files_change(tmp_path: Path) -> None:
    # Given two versions that take turns, seen by four threads
    catalog = Catalog(write(tmp_path, only("sms", "sms.txt", "0 {{ payload.a }}")), recheck=0)
    seen: dict[str, set[str]] = {}
    failures: list[BaseException] = []
    done = threading.Event()

    def use() -> None:
        try:
            while not done.is_set():
                loaded = catalog.get(NAME)
                assert loaded is not None
                rendered = render(loaded, "sms", {"a": "b"})
                assert isinstance(rendered.content, TextContent)
                seen.setdefault(rendered.version, set()).add(rendered.content.text)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    # when the files change and break under them
    for turn in range(15):
        write(tmp_path, {"sms.txt": "{{" if turn % 5 == 4 else f"{turn % 2} {{{{ payload.a }}}}"})
        catalog.get(NAME)
    done.set()
    for thread in threads:
        thread.join()
    # then nobody failed, and each version is one content
    assert failures == []
    assert all(len(texts) == 1 for texts in seen.values())
    assert set().union(*seen.values()) <= {"0 b", "1 b"}
