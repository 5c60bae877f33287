"""deploy/prometheus: every alert fires when it should, is quiet when all is well, and has its runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.promql import RULES, problems
from deploy.runbook import entries

FOLDER = RULES.parent
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
CONFIGURATION = FOLDER / "prometheus.yml"


def rules(kind: str) -> list[dict[str, Any]]:
    return [
        rule
        for file in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed here (Debian, Ubuntu: apt install prometheus)")
    return subprocess.run(
        ["promtool", *map(str, words)], text=True, capture_output=True, timeout=110, check=False
    )


def test_prometheus_understands_the_configuration_and_the_rules(tmp_path: Path) -> None:
    # Where compose puts them; promtool looks the rules up beside the file.
    shutil.copytree(RULES, tmp_path / "rules")
    shutil.copy(CONFIGURATION, tmp_path)
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


@pytest.mark.parametrize("file", TESTS, ids=lambda it: it.stem)
def test_every_alert_fires_when_it_should_and_is_quiet_when_all_is_well(file: Path) -> None:
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways() -> None:
    asked: dict[str, set[bool]] = defaultdict(set)
    for file in TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for each in test.get("promql_expr_test", []):
                for name in re.findall(r'alertname="(\w+)"', each["expr"]):
                    asked[name].add(bool(each["exp_samples"]))
    assert asked == {name: {True, False} for name in ALERTS}


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_go_on(name: str) -> None:
    rule = ALERTS[name]
    assert name.startswith("Notify")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "description", "runbook"} <= set(rule["annotations"])
    assert "!" not in rule["annotations"]["summary"] + rule["annotations"]["description"]
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert file == "docs/operations.md"
    assert anchor == name.lower()


def test_the_runbook_has_an_entry_for_every_alert_and_no_other() -> None:
    found = entries()
    assert set(found) == set(ALERTS)
    for name, text in found.items():
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in text, f"{name} lacks {part}"


@pytest.mark.parametrize(
    "rule", [*rules("alert"), *rules("record")], ids=lambda it: str(it.get("alert") or it["record"])
)
def test_a_rule_asks_for_nothing_that_no_process_tells(rule: dict[str, Any]) -> None:
    assert problems(rule["expr"]) == []


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("sum(rate(notify_attempt_total[5m]))", "there is no metric notify_attempt_total"),
        ('notify_up{piece="broker"} == 0', "notify_up has no label piece"),
        ('notify_up{part="redis"} == 0', "notify_up: part is never redis"),
        ('notify_slo_sent{window="6h"}', "notify_slo_sent: window is never 6h"),
        ('notify_attempts_total{outcome=~"accepted|fine"}', "notify_attempts_total: outcome is never fine"),
        ("sum by (host) (notify_threads)", "no metric of it has a label host"),
        ('notify_queue_messages{queue="notify.fax"}', "notify_queue_messages: queue is never notify.fax"),
    ],
)
def test_a_name_that_is_wrong_would_be_found(expression: str, wrong: str) -> None:
    assert problems(expression) == [wrong]


def test_every_scraped_process_has_a_job_that_alerts_know() -> None:
    jobs = {it["job_name"] for it in yaml.safe_load(CONFIGURATION.read_text())["scrape_configs"]}
    asked = set(re.findall(r'job="([\w-]+)"', RULES.joinpath("alerts.yml").read_text()))
    assert {"notify-worker", "notify-gateway", "notify-exporter", "prometheus"} == jobs
    assert asked <= jobs
