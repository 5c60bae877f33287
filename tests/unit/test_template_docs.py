"""The guide for template authors says what is true: its filters are run, its commands are parsed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from channels.contract import TextContent
from notify_tasks.cli.parser import build
from notify_tasks.rendering import Catalog
from notify_tasks.templating import folder
from notify_tasks.templating.compiling import VARIABLES
from notify_tasks.templating.manner import FILTERS

GUIDE = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in GUIDE.splitlines()
    if line.startswith("| `{{")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_filter_of_the_guide_writes_what_the_guide_says(tmp_path: Path, row: list[str]) -> None:
    template, *written = row
    for place in ("", "de", "zh-Hans"):
        (tmp_path / "a.type" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "a.type" / place / "sms.txt").write_text(template.strip("`"))
    (tmp_path / "a.type" / "notification.toml").write_text('channels = ["sms"]\n')
    loaded = Catalog(tmp_path).get("a.type")
    assert loaded is not None
    found = []
    for locale in ("en", "de-AT", "zh-CN"):
        person = {"id": "user-42", "locale": locale, "timezone": "Europe/Berlin"}
        content = loaded.render("sms", {}, locale, recipient=person).content
        assert isinstance(content, TextContent)
        found.append(content.text)
    assert found == written


def test_the_guide_names_every_filter_variable_key_and_file() -> None:
    shown = " ".join(row[0] for row in ROWS)
    assert [name for name in FILTERS if not re.search(rf"\| {name}\b", shown)] == []
    assert [name for name in VARIABLES if f"`{name}" not in GUIDE] == []
    assert [name for name in folder._READERS if f"`{name}`" not in GUIDE and f"`[{name}]`" not in GUIDE] == []
    assert [name for name in folder.ALL_PARTS if f"`{name}`" not in GUIDE] == []


def test_the_commands_of_the_guide_can_be_typed() -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 5
    for program, *words in commands:
        assert program == "notify"
        build().parse_args(words)


def test_the_guide_is_short() -> None:
    assert len(GUIDE.splitlines()) < 150
