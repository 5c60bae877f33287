"""Reading metrics as Prometheus does, and checking them as promtool does."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from notify_tasks import metrics

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(url: str, *, seconds: float = 30) -> str:
    """What a process exposes."""
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return str(answer.read().decode())


def series(text: str) -> Series:
    """Every series: name, labels, value. One that stands there twice is wrong."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def total(text: str, name: str, **labels: str) -> float:
    """The sum of the series of this name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (each, has), value in series(text).items() if each == name and wanted <= set(has))


def values_of(text: str, label: str) -> set[str]:
    """Every value of a label."""
    return {dict(has)[label] for _, has in series(text) if label in dict(has)}


def undeclared(text: str) -> set[str]:
    """Families of ours with another name, kind or labels than `metrics` says."""
    known: Mapping[str, metrics.Metric] = {each.name.removesuffix("_total"): each for each in metrics.ALL}
    return {family for family, problem in _families(text, known) if problem}


def _families(text: str, known: Mapping[str, metrics.Metric]) -> Iterator[tuple[str, bool]]:
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("notify_"):
            continue
        metric = known.get(family.name)
        if metric is None or metric.kind != family.type:
            yield family.name, True
            continue
        for sample in family.samples:
            yield family.name, set(sample.labels) - {"le"} != set(metric.labels)


def promtool(text: str) -> str:
    """What `promtool check metrics` has to say; empty where all is well."""
    tool = shutil.which("promtool") or ("/usr/bin/promtool" if Path("/usr/bin/promtool").exists() else None)
    if tool is None:
        pytest.skip("promtool is not here: apt-get install prometheus")
    done = subprocess.run(
        [tool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    # Of the process itself, by prometheus_client's names.
    lines = [line for line in said.splitlines() if not re.match(r"(process|python)_", line)]
    return "\n".join(lines)
