"""What a dashboard is made of: queries, panels, rows, variables, as Grafana's JSON (schema 39) has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

SOURCE: Final[Json] = {"type": "prometheus", "uid": "${source}"}
WIDTH: Final = 24
"""Columns of Grafana's grid."""

GOOD: Final = "#4cc38a"
GOING: Final = "#7aa7f7"
WAITS: Final = "#e2b341"
DOUBT: Final = "#c79bf2"
BAD: Final = "#f2847c"
QUIET: Final = "#9aa2af"

COLOURS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("sent", "delivered", "accepted", "applied", "send"), GOOD),
    **dict.fromkeys(("queued", "sending", "repeated"), GOING),
    **dict.fromkeys(("held", "retrying", "digested", "hold", "digest", "throttled", "waiting", "try_later"), WAITS),
    **dict.fromkeys(("in_doubt", "uncertain", "unmatched"), DOUBT),
    **dict.fromkeys(
        ("failed", "undelivered", "rejected", "refused", "unavailable", "misconfigured", "conflict"), BAD
    ),
    **dict.fromkeys(("suppressed", "cancelled", "expired", "superseded", "opted_out", "drop", "released"), QUIET),
}  # fmt: skip
"""A state has the same colour in every panel, as on the pages and in the terminal. Its word always stands beside it."""
LANES: Final[Mapping[str, str]] = {"high": BAD, "normal": GOING, "bulk": QUIET, "maintenance": WAITS}


@dataclass(frozen=True, slots=True)
class Query:
    """One expression.

    Args:
        expr: PromQL.
        legend: of each series; `{{label}}` is filled in.
        now: the value now instead of a range: for stats and tables.
    """

    expr: str
    legend: str = ""
    now: bool = False


@dataclass(frozen=True, slots=True)
class Steps:
    """Thresholds: the colour from each value on; the first is that of everything below."""

    base: str
    above: tuple[tuple[float, str], ...] = ()

    def json(self) -> Json:
        """As Grafana has them."""
        first: Json = {"color": self.base, "value": None}
        return {"mode": "absolute", "steps": [first, *({"color": c, "value": v} for v, c in self.above)]}


PLAIN: Final = Steps(GOING)
ANY_IS_BAD: Final = Steps(GOOD, ((1, BAD),))
ANY_WAITS: Final = Steps(GOOD, ((1, WAITS),))


def late(warning: float, bad: float) -> Steps:
    """Seconds: fine, late, too late."""
    return Steps(GOOD, ((warning, WAITS), (bad, BAD)))


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Args:
        kind: stat, timeseries, table, state-timeline, bargauge.
        title: what it shows.
        description: how to read it, and what to do when it looks bad.
        queries: its expressions.
        width: in columns of 24.
        height: in rows of 30 px.
        unit: Grafana's name: s, percentunit, ops, bytes, short.
        steps: thresholds.
        link: (title, URL) to drill down.
        stack: whether areas stand on each other.
        more: of the kind, merged into the panel.
    """

    kind: str
    title: str
    description: str
    queries: Sequence[Query]
    width: int = 8
    height: int = 8
    unit: str = "short"
    steps: Steps = PLAIN
    link: tuple[str, str] | None = None
    stack: bool = False
    colours: Mapping[str, str] = field(default_factory=lambda: COLOURS)
    more: Json = field(default_factory=dict)

    def json(self, number: int, x: int, y: int) -> Json:
        """As Grafana has it, at a place of the grid."""
        defaults: Json = {
            "unit": self.unit,
            "min": 0,
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
            "thresholds": self.steps.json(),
            "custom": self._custom(),
        }
        if self.unit == "percentunit":
            defaults["max"] = 1
        if self.link is not None:
            defaults["links"] = [{"title": self.link[0], "url": self.link[1]}]
        made: Json = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [_target(query, index) for index, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": defaults, "overrides": list(_overrides(self.colours))},
            "options": self._options(),
        }
        return _merged(made, self.more)

    def _custom(self) -> Json:
        if self.kind != "timeseries":
            return {}
        limits = {"thresholdsStyle": {"mode": "dashed"}} if self.steps.above else {}
        return {
            "lineWidth": 1,
            "fillOpacity": 30 if self.stack else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if self.stack else "none"},
            **limits,
        }

    def _options(self) -> Json:
        match self.kind:
            case "timeseries":
                legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
                return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
            case "stat":
                reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
                return {
                    "reduceOptions": reduce,
                    "colorMode": "value",
                    "graphMode": "area",
                    "textMode": "auto",
                }
            case "state-timeline":
                return {"showValue": "never", "mergeValues": True, "rowHeight": 0.8,
                        "legend": {"displayMode": "list", "placement": "bottom"}}  # fmt: skip
            case "table":
                return {"cellHeight": "sm", "showHeader": True}
            case _:
                return {"orientation": "horizontal", "displayMode": "basic",
                        "reduceOptions": {"calcs": ["lastNotNull"], "values": False}}  # fmt: skip


def stat(title: str, description: str, expr: str, **more: Any) -> Panel:
    """One number, with its colour."""
    size: Json = {"width": 4, "height": 4}
    return Panel("stat", title, description, [Query(expr)], **{**size, **more})


def lines(title: str, description: str, *queries: Query, **more: Any) -> Panel:
    """Values over time."""
    return Panel("timeseries", title, description, queries, **more)


def table(
    title: str, description: str, columns: Mapping[str, tuple[str, str, Steps | None]], by: str, **more: Any
) -> Panel:
    """A row for each value of a label.

    Args:
        title: what it shows.
        description: how to read it.
        columns: by title: expression, unit, thresholds.
        by: the label.
        more: of the panel.
    """
    letters = [chr(ord("A") + n) for n in range(len(columns))]
    names = dict(zip((f"Value #{letter}" for letter in letters), columns, strict=True))
    overrides = [
        {
            "matcher": {"id": "byName", "options": column},
            "properties": [
                {"id": "unit", "value": unit},
                *([{"id": "thresholds", "value": steps.json()},
                   {"id": "custom.cellOptions", "value": {"type": "color-text"}}] if steps else []),
            ],
        }
        for column, (_, unit, steps) in columns.items()
    ]  # fmt: skip
    transformations = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {**names, by: by}}},
    ]
    queries = [Query(expr, now=True) for expr, _, _ in columns.values()]
    return Panel(
        "table", title, description, queries, colours={},
        **{"more": {"transformations": transformations, "fieldConfig": {"overrides": overrides}}, **more},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard.

    Args:
        name: as queries call it.
        label: as people read it.
        query: `label_values(metric, label)`.
        all_: whether all may be chosen at once.
    """

    name: str
    label: str
    query: str
    all_: bool = True

    def json(self) -> Json:
        """As Grafana has it."""
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": SOURCE,
            "query": {"query": self.query, "refId": "values"},
            "definition": self.query,
            "refresh": 2,
            "sort": 1,
            "includeAll": self.all_,
            "multi": self.all_,
            "current": {"text": "All", "value": "$__all"} if self.all_ else {},
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page.

    Args:
        uid: its name in URLs.
        title: its name for people.
        description: who looks at it, and when.
        rows: by their headings.
        variables: the choices at its top.
    """

    uid: str
    title: str
    description: str
    rows: Mapping[str, Sequence[Panel]]
    variables: Sequence[Variable] = ()

    def json(self) -> Json:
        """As Grafana loads it."""
        source: Json = {
            "type": "datasource", "name": "source", "label": "Prometheus", "query": "prometheus", "current": {},
        }  # fmt: skip
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["notify"],
            "schemaVersion": 39,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,  # one crosshair through all panels
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "utc",
            "templating": {"list": [source, *(it.json() for it in self.variables)]},
            "annotations": {"list": [_FIRING]},
            "links": [
                {
                    "type": "dashboards", "title": "Dashboards", "tags": ["notify"], "asDropdown": False,
                    "includeVars": False, "keepTime": True, "icon": "external link", "targetBlank": False,
                }
            ],
            "panels": list(self._panels()),
        }  # fmt: skip

    def _panels(self) -> Iterable[Json]:
        number, y = 0, 0
        for heading, panels in self.rows.items():
            number += 1
            yield {
                "id": number, "type": "row", "title": heading, "collapsed": False, "panels": [],
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
            }  # fmt: skip
            y, x, tallest = y + 1, 0, 0
            for panel in panels:
                if x + panel.width > WIDTH:
                    x, y, tallest = 0, y + tallest, 0
                number += 1
                yield panel.json(number, x, y)
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest


_FIRING: Final[Json] = {
    "name": "Alerts",
    "enable": True,
    "datasource": SOURCE,
    "iconColor": BAD,
    "expr": 'ALERTS{alertstate="firing", severity="critical"}',
    "titleFormat": "{{alertname}}",
    "textFormat": "docs/operations.md has its entry",
    "step": "30s",
}


def quantiles(
    metric: str, by: str, *, only: str = "", which: Sequence[float] = (0.5, 0.95, 0.99)
) -> list[Query]:
    """Quantiles of a histogram over the panel's interval, one query each."""
    selector = f"{metric}_bucket{{{only}}}" if only else f"{metric}_bucket"
    return [
        Query(
            f"histogram_quantile({q}, sum by (le, {by}) (rate({selector}[$__rate_interval])))",
            f"{{{{{by}}}}} p{round(q * 100)}",
        )
        for q in which
    ]


def _target(query: Query, index: int) -> Json:
    made: Json = {
        "refId": chr(ord("A") + index),
        "datasource": SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
    }
    return made | ({"instant": True, "format": "table"} if query.now else {"range": True})


def _overrides(colours: Mapping[str, str]) -> Iterable[Json]:
    by_colour: dict[str, list[str]] = {}
    for word, colour in colours.items():
        by_colour.setdefault(colour, []).append(word)
    for colour, words in by_colour.items():
        yield {
            "matcher": {"id": "byRegexp", "options": f"/^({'|'.join(words)})( p\\d+)?$/"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }


def _merged(into: Json, more: Json) -> Json:
    made = dict(into)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = _merged(made[key], value) if both else value
    return made
