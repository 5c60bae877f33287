"""The README says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from channels.loader import describe
from notify_tasks.cli import providers
from notify_tasks.configuration import reference

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{it.name}" for it in ROOT.glob("docs/*.md")),
]


def test_its_table_of_settings_is_the_codes() -> None:
    text = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- notify config reference -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found
    assert found[1].strip() == reference.markdown().strip(), "type `notify config reference` and paste it"


def test_its_table_of_providers_is_the_files() -> None:
    text = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- notify providers --markdown -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found
    assert found[1].strip() == providers.markdown(describe()), (
        "type `notify providers --markdown` and paste it"
    )


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_every_folder_of_the_map_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    map_ = text[text.index("## Where things are") : text.index("## Configuration")]
    folder = ""
    for cell in re.findall(r"^\| (`.*?`) \|", map_, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", cell):
            place = ROOT / name
            if not place.exists():
                place = ROOT / folder / name
            assert place.exists(), name
            folder = str(Path(name).parent)
