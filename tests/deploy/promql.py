"""The names in a PromQL expression: its metrics, and the labels of each. No full parser: promtool is one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from notify_tasks import metrics
from notify_tasks.metrics import Kind

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules"

_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(?P<matchers>[^}]*)\})?\s*(?P<call>\()?")
_MATCHER = re.compile(r"\s*(?P<label>[a-zA-Z_]\w*)\s*(?P<op>=~|!~|!=|=)\s*(?P<n>\d+)\s*")
_OPERATORS = {"and", "or", "unless", "bool", "offset"}
_DURATION = re.compile(r"\[[^\]]*\]|\boffset\s+\w+|\b\d[\w.]*")

TARGET = frozenset({"job", "instance", "service"})
"""Labels that Prometheus gives to whatever it scrapes: service is the name of the process's service."""
_FOREIGN: Mapping[str, frozenset[str]] = {
    "up": TARGET,
    "process_start_time_seconds": TARGET,
    "process_resident_memory_bytes": TARGET,
    "process_cpu_seconds_total": TARGET,
    "process_open_fds": TARGET,
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
}


@dataclass(slots=True)
class Named:
    """One metric in an expression, with the labels by which it is selected, and what they are compared with."""

    metric: str
    labels: set[str] = field(default_factory=set)
    values: list[tuple[str, str, str]] = field(default_factory=list)


def selectors(expression: str) -> Iterator[Named]:
    """Every metric of an expression."""
    strings: list[str] = []

    def keep(match: re.Match[str]) -> str:
        strings.append(match[0][1:-1].replace("\\\\", "\\"))
        return str(len(strings) - 1)

    text = _STRING.sub(keep, expression)
    text = _GROUPING.sub(" ", text)
    inner = re.sub(r"\{[^}]*\}", lambda it: it[0].replace("[", "").replace("]", ""), text)
    text = _outside_braces(_DURATION, inner)
    for match in _SELECTOR.finditer(text):
        if match["call"] or match["name"] in _OPERATORS:
            continue
        found = Named(match["name"])
        for each in _MATCHER.finditer(match["matchers"] or ""):
            found.labels.add(each["label"])
            found.values.append((each["label"], each["op"], strings[int(each["n"])]))
        yield found


def groupings(expression: str) -> set[str]:
    """The labels by which an expression groups and matches."""
    text = _STRING.sub("", expression)
    return {
        word.strip() for match in _GROUPING.finditer(text) for word in match[2].split(",") if word.strip()
    }


def _outside_braces(pattern: re.Pattern[str], text: str) -> str:
    return "".join(
        part if part.startswith("{") else pattern.sub(" ", part) for part in re.split(r"(\{[^}]*\})", text)
    )


def known() -> dict[str, frozenset[str]]:
    """Every series that there can be, with its labels: ours, the recording rules', and those of prometheus_client."""
    found = dict(_FOREIGN)
    for metric in metrics.ALL:
        labels = frozenset(metric.labels) | TARGET
        if metric.kind is Kind.HISTOGRAM:
            found[f"{metric.name}_bucket"] = labels | {"le"}
            found[f"{metric.name}_sum"] = found[f"{metric.name}_count"] = labels
        else:
            found[metric.name] = labels
    for rule in recording():
        found[rule["record"]] = frozenset(groupings(rule["expr"])) | frozenset(rule.get("labels", {}))
    return found


def recording() -> list[dict[str, Any]]:
    """The recording rules."""
    return [
        rule
        for file in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]


def problems(expression: str) -> list[str]:
    """What an expression asks for that no process tells."""
    names, wrong, labels = known(), [], {"le"}
    for each in selectors(expression):
        if each.metric not in names:
            wrong.append(f"there is no metric {each.metric}")
            continue
        labels |= names[each.metric]
        wrong += [f"{each.metric} has no label {label}" for label in each.labels - names[each.metric]]
        wrong += _never(each)
    wrong += [f"no metric of it has a label {label}" for label in groupings(expression) - labels]
    return wrong


def _never(named: Named) -> Iterator[str]:
    """Comparisons with values that a label never has, where its values are listed."""
    for label, op, value in named.values:
        words = _values(named.metric, label)
        if words is None or "$" in value:
            continue
        fits = {word for word in words if (re.fullmatch(value, word) if "~" in op else word == value)}
        alternatives = value.split("|") if "~" in op and re.fullmatch(r"[\w|]+", value) else []
        for it in alternatives:
            if it not in words:
                yield f"{named.metric}: {label} is never {it}"
        if not fits:
            yield f"{named.metric}: {label} is never {value}"


def _values(metric: str, label: str) -> frozenset[str] | None:
    """The values that a label of a metric may have, by its list or the metric's help; None where that is open."""
    found = next((it for it in metrics.ALL if metric.removesuffix("_bucket") == it.name), None)
    if found is None or label in {"provider", "type", "le", *TARGET}:
        return None
    said = frozenset(re.findall(r"\w+", found.help))
    if label in metrics._VALUES:
        return metrics._VALUES[label] | said
    return said | metrics.REASONS | {""} if label == "reason" else said
