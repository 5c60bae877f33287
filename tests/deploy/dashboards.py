"""The committed dashboards, and their queries as Grafana would ask them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "deploy/grafana/dashboards"
CHOSEN: Mapping[str, str] = {
    "__rate_interval": "40s",
    "channel": ".+",
    "provider": ".+",
    "service": ".+",
}
"""What stands for Grafana's variables: everything is chosen."""


def dashboards() -> dict[str, dict[str, Any]]:
    """By file name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its pictures, without the headings."""
    return [it for it in dashboard["panels"] if it["type"] != "row"]


def filled(expression: str, chosen: Mapping[str, str] = CHOSEN) -> str:
    """The expression with the variables filled in."""
    return re.sub(r"\$\{?(\w+)\}?", lambda it: chosen[it[1]], expression)


def queries() -> Iterator[tuple[str, str]]:
    """(where, expression) of every query: panels, variables, annotations."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']} {target['refId']}", filled(target["expr"])
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                metric = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert metric
                yield f"{name}: ${variable['name']}", f"count by ({metric[2]}) ({metric[1]})"
        for annotation in dashboard["annotations"]["list"]:
            yield f"{name}: annotation {annotation['name']}", annotation["expr"]
