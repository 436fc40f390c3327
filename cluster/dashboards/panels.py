"""How a dashboard is said in Grafana's JSON.

Covers: panels in rows of 24 columns, queries, units, variables for data source and dataset.
Does not cover: what is shown (content), bringing it to a Grafana (grafana, files).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SCHEMA_VERSION = 36
TAG = "forebay"
COLUMNS = 24
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and how its series are called."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. The unit is Grafana's name of it."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    help: str = ""
    kind: str = "timeseries"  # or stat
    columns: int = 12
    rows: int = 8
    red_below: float | None = None  # stat: from this value on it is green


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; its uid is for ever, so that installing it again is an update."""

    uid: str
    title: str
    help: str
    panels: tuple[Panel, ...]


def one(expression: str, legend: str) -> tuple[Query, ...]:
    """Return the queries of a panel with one."""
    return (Query(expression, legend),)


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana wants it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.help,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "links": [
            {
                "title": "Forebay",
                "type": "dashboards",
                "tags": [TAG],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "panels": list(_placed(dashboard.panels)),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "hide": 0,
            "refresh": 1,
            "multi": False,
            "includeAll": False,
        },
        {
            "name": "dataset",
            "label": "Dataset",
            "type": "query",
            "datasource": _DATASOURCE,
            "query": {
                "query": "label_values(ray_forebay_dataset_shards, dataset)",
                "refId": "dataset",
            },
            "hide": 0,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        },
    ]


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """Put panels side by side, and below one another where a row is full."""
    left = top = height = 0
    for number, panel in enumerate(panels, start=1):
        if left + panel.columns > COLUMNS:
            left, top, height = 0, top + height, 0
        place = {"x": left, "y": top, "w": panel.columns, "h": panel.rows}
        left, height = left + panel.columns, max(height, panel.rows)
        yield _panel_json(number, panel, place)


def _panel_json(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    options: dict[str, Any] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    if panel.kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value" if panel.red_below is None else "background",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
        }
        steps: list[dict[str, Any]] = [{"color": "text", "value": None}]
        if panel.red_below is not None:
            steps = [
                {"color": "red", "value": None},
                {"color": "green", "value": panel.red_below},
            ]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    else:
        defaults["min"] = 0
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "expr": query.expression,
                "legendFormat": query.legend,
                "datasource": _DATASOURCE,
                "range": True,
                "instant": False,
            }
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }
