"""docs/operations.md as its readers and the alerts find their way in it."""

from __future__ import annotations

import re
from pathlib import Path

FILE = Path(__file__).parents[2] / "docs/operations.md"
ALERTS = "## Alerts"


def sections() -> dict[str, str]:
    """The text below each heading, by heading."""
    text = FILE.read_text()
    parts = re.split(r"^(#{2,3} .+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries() -> dict[str, str]:
    """What there is on each alert, by its name."""
    after = FILE.read_text().partition(f"\n{ALERTS}\n")[2]
    parts = re.split(r"^### (\w+)$", after, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands() -> list[str]:
    """Every `notify ...` that stands in the text or in a block of code, as somebody would copy it."""
    text = FILE.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(notify [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [*[line for line in lines if line.startswith("notify ")], *inline]
