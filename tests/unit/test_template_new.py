"""A new type is in order from the start, and what cannot be made is refused with the remedy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from notify_tasks.errors import InvalidCall, NotConfigured
from notify_tasks.rendering import Catalog
from notify_tasks.routing import CHANNELS
from notify_tasks.templates_check import check, preview
from notify_tasks.templates_new import create

TEMPLATES = Path(__file__).parents[2] / "templates"
NAME = "order.cancelled"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(TEMPLATES / "_layout", tmp_path / "templates" / "_layout")
    return tmp_path / "templates"


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_new_type_of_one_channel_passes_the_check(root: Path, channel: str) -> None:
    create(root, NAME, channels=[channel])
    assert check(root) == []
    loaded = Catalog(root).get(NAME)
    assert loaded is not None
    assert loaded.policy.channels == (channel,)


def test_a_new_type_of_every_channel_speaks_its_languages(root: Path) -> None:
    files = create(root, NAME, channels=CHANNELS, locales=["de", "zh_hans", "pt-br", "de"])

    assert check(root) == []
    loaded = Catalog(root).get(NAME)
    assert loaded is not None
    assert set(loaded.locales.values()) == {"de", "zh-Hans", "pt-BR"}
    assert all(file.is_file() for file in files)
    assert sorted(files) == sorted(path for path in (root / NAME).rglob("*") if path.is_file())
    titles = {
        tag: preview(root, NAME, "push", tag)["channels"]["push"]["data"]["title"]
        for tag in ("en", "de", "zh")
    }
    assert titles == {
        "en": "News about Order 981",
        "de": "Neues zu Order 981",
        "zh": "Order 981 有新动态",
    }


def test_what_is_not_translated_says_so(root: Path) -> None:
    create(root, NAME, channels=["sms"], locales=["de", "pt-BR"])
    assert "Translate this file" in (root / NAME / "pt-BR" / "sms.txt").read_text()
    assert "Translate this file" not in (root / NAME / "de" / "sms.txt").read_text()


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Order Cancelled", "Write order.cancelled"),
        ("order..cancelled", "Write order.cancelled"),
        ("../order", "Write order"),
        ("_layout", "Write layout"),
        ("", "Write it as order.shipped"),
        ("///", "Write it as order.shipped"),
    ],
)
def test_a_name_that_no_type_can_have_is_refused(root: Path, name: str, remedy: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        create(root, name)
    assert caught.value.remedy == remedy
    assert {path.name for path in root.iterdir()} == {"_layout"}


def test_a_type_that_exists_is_left_alone(root: Path) -> None:
    create(root, NAME)
    (root / NAME / "email.txt").write_text("mine")
    with pytest.raises(InvalidCall, match="exists already"):
        create(root, NAME)
    assert (root / NAME / "email.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"channels": ["emial"]}, "Did you mean 'email'?"),
        ({"channels": ["fax"]}, "Channels are: email, sms"),
        ({"channels": []}, "Write --channels email"),
        ({"locales": ["xx"]}, "Write a language tag"),
        ({"locales": ["de-XX"]}, "Did you mean 'de'?"),
        ({"locales": ["en"]}, "en-GB"),
        ({"locales": ["../de"]}, "Write a language tag"),
    ],
)
def test_an_unknown_channel_or_locale_is_refused(
    root: Path, arguments: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(InvalidCall) as caught:
        create(root, NAME, **arguments)
    assert said in caught.value.remedy
    assert {path.name for path in root.iterdir()} == {"_layout"}


def test_mails_need_the_shared_layout(tmp_path: Path) -> None:
    with pytest.raises(InvalidCall, match=r"mail.html.*Copy templates/_layout"):
        create(tmp_path, NAME)
    create(tmp_path, NAME, channels=["push"])
    assert check(tmp_path) == []
    with pytest.raises(NotConfigured, match="create it"):
        create(tmp_path / "nowhere", NAME)


def test_nothing_is_left_where_it_cannot_be_finished(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    # The disk cannot be filled here, so the one call that would notice is made to.
    monkeypatch.setattr(Path, "write_text", no_space)
    with pytest.raises(OSError, match="No space"):
        create(root, NAME)
    assert {path.name for path in root.iterdir()} == {"_layout"}
