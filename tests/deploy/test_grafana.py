"""deploy/grafana: what is committed is what the builder makes, and every query asks for something that there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.dashboards import FOLDER, dashboards, filled, panels, queries
from deploy.promql import problems, selectors

from deploy.grafana.builder.__main__ import files
from deploy.grafana.builder.panels import COLOURS
from notify_tasks import metrics
from notify_tasks.states import State

PAGES = dashboards()
PROVISIONING = FOLDER.parent / "provisioning"


def test_what_is_committed_is_what_the_builder_makes() -> None:
    made = files()
    assert {it.name for it in FOLDER.iterdir()} == {it.name for it in made}
    for path, text in made.items():
        assert path.read_text() == text, "type: python -m deploy.grafana.builder"


@pytest.mark.parametrize(("where", "expression"), list(queries()), ids=lambda it: it[:60])
def test_a_query_asks_for_nothing_that_no_process_tells(where: str, expression: str) -> None:
    assert problems(expression) == []


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed here (Debian, Ubuntu: apt install prometheus)")
    rules = [{"record": f"query:{n}", "expr": expr} for n, (_, expr) in enumerate(queries())]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yml")],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_query_that_prometheus_does_not_understand_would_be_found(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed here (Debian, Ubuntu: apt install prometheus)")
    rules = [{"record": "query:wrong", "expr": "sum by (state) (rate(notify_deliveries_total))"}]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, check=False
    )
    assert done.returncode != 0


@pytest.mark.parametrize("name", PAGES)
def test_every_panel_says_how_to_read_it_and_stands_by_itself(name: str) -> None:
    page = PAGES[name]
    taken: set[tuple[int, int]] = set()
    for panel in panels(page):
        assert panel["title"], name
        assert re.search(r"\w{3,}.*[.?]$", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another"
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in page["panels"]]
    assert len(ids) == len(set(ids))


def test_the_pages_lead_to_each_other_and_their_names_are_theirs() -> None:
    uids = {page["uid"] for page in PAGES.values()}
    assert len(uids) == len({page["title"] for page in PAGES.values()}) == 5
    for page in PAGES.values():
        assert page["links"][0]["tags"] == page["tags"] == ["notify"]
        names = {variable["name"] for variable in page["templating"]["list"]}
        text = json.dumps(page["panels"])
        for uid, variable in re.findall(r"/d/([\w-]+)\?(?:var-(\w+)=)?", text):
            assert uid in uids
            target = next(it for it in PAGES.values() if it["uid"] == uid)
            assert not variable or variable in {it["name"] for it in target["templating"]["list"]}
        assert set(re.findall(r"\$(?!__|\{)(\w+)", text)) <= names


def test_a_duration_is_shown_as_one_and_so_is_a_share() -> None:
    for page in PAGES.values():
        for panel in panels(page):
            if panel["type"] == "table":
                continue
            unit = panel["fieldConfig"]["defaults"]["unit"]
            for target in panel["targets"]:
                expression = filled(target["expr"])
                named = {it.metric for it in selectors(expression)}
                if expression.startswith("histogram_quantile") or any(
                    it.endswith("_seconds") for it in named
                ):
                    assert unit == "s" or "changes(" in expression, panel["title"]
                if "ratio_rate" in expression:
                    assert unit == "percentunit", panel["title"]


def test_every_state_has_its_colour() -> None:
    shown = {str(state) for state in State}
    assert shown <= set(COLOURS)


def test_every_metric_of_the_fleet_is_used_somewhere() -> None:
    """One that nobody looks at is a cost; the list is of those that are for looking something up by hand."""
    by_hand = {
        metrics.SAMPLE_SECONDS, metrics.NOTIFICATIONS, metrics.REDIS_CLIENTS, metrics.SLO_IN_TIME,
        metrics.RESULTS,
    }  # fmt: skip
    rules = (FOLDER.parents[1] / "prometheus/rules").glob("*.yml")
    text = "".join(expression for _, expression in queries()) + "".join(it.read_text() for it in rules)
    unused = {it.name for it in metrics.ALL if it.name not in text}
    assert unused <= {it.name for it in by_hand}


def test_grafana_is_provisioned_with_what_the_dashboards_ask() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())["datasources"]
    (folder,) = yaml.safe_load((PROVISIONING / "dashboards/notify.yml").read_text())["providers"]
    prometheus: dict[str, Any] = yaml.safe_load((FOLDER.parents[1] / "prometheus/prometheus.yml").read_text())
    assert source["isDefault"] is True
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    assert folder["options"]["path"] == "/etc/grafana/dashboards"
    for page in PAGES.values():
        assert page["templating"]["list"][0]["type"] == "datasource"
