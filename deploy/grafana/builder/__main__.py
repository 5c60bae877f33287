"""Writes the dashboards."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.grafana.builder.details import CHANNEL_PAGE, PROVIDER_PAGE, TIME_PAGE, WORKERS_PAGE
from deploy.grafana.builder.overview import OVERVIEW

FOLDER: Final = Path(__file__).parents[1] / "dashboards"
PAGES: Final = {
    "overview": OVERVIEW,
    "channel": CHANNEL_PAGE,
    "provider": PROVIDER_PAGE,
    "time": TIME_PAGE,
    "workers": WORKERS_PAGE,
}


def files() -> Mapping[Path, str]:
    """Every dashboard's file with its content."""
    return {
        FOLDER / f"{name}.json": json.dumps(page.json(), indent=1, ensure_ascii=False) + "\n"
        for name, page in PAGES.items()
    }


def main() -> int:
    """Write them all."""
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.name}: {len(text) // 1024} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
