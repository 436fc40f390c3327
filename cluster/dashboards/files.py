"""Files for Grafana's provisioning and for Prometheus.

Covers: dashboards as JSON, Grafana's provider and a data source, a scrape configuration and rules.
Does not cover: installing through Grafana's API (grafana).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from cluster.dashboards.alerts import rules
from cluster.dashboards.content import DASHBOARDS
from cluster.dashboards.panels import dashboard_json
from cluster.site_config import RayTable
from shards.errors import ForebayError

RAY_FOLDER = Path("/tmp/ray")
DISCOVERY = "prom_metrics_service_discovery.json"  # Ray's, in its temporary folder
DISCOVERY_PATH = "/api/prometheus/sd"  # the same from Ray's dashboard
DISCOVERY_INTERVAL = "30s"
TOKEN_FILE = "forebay-ray.token"  # beside Prometheus's own configuration: Ray's token, for its user
PROMETHEUS_URL = "http://127.0.0.1:9090"
SCRAPE_INTERVAL = "10s"  # as often as Ray passes values on
_FILE_MODE = 0o644  # Grafana and Prometheus read them as users of their own; no secret is in them


class FilesNotWritten(ForebayError):
    """The folder cannot be written to."""

    template = "cannot write {0}: {1}; give another folder, or mend its permissions"


def write_dashboards(folder: Path, prometheus_url: str = PROMETHEUS_URL) -> list[Path]:
    """Write what Grafana's provisioning takes; return the files."""
    dashboards = folder.absolute() / "dashboards"
    provisioning = folder.absolute() / "provisioning"
    provider = {
        "apiVersion": 1,
        "providers": [
            {
                "name": "forebay",
                "folder": "Forebay",
                "folderUid": "forebay",
                "type": "file",
                "allowUiUpdates": False,
                "updateIntervalSeconds": 60,
                "options": {"path": str(dashboards)},
            }
        ],
    }
    source = {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "type": "prometheus",
                "access": "proxy",
                "url": prometheus_url,
                "jsonData": {"timeInterval": SCRAPE_INTERVAL},
            }
        ],
    }
    texts = {
        dashboards / f"{dashboard.uid}.json": json.dumps(dashboard_json(dashboard), indent=1) + "\n"
        for dashboard in DASHBOARDS
    }
    texts[provisioning / "dashboards" / "forebay.yaml"] = _yaml(
        provider, "Copy to /etc/grafana/provisioning/dashboards/ and restart Grafana."
    )
    texts[provisioning / "datasources" / "forebay.yaml"] = _yaml(
        source, "Only for a Grafana without this Prometheus: /etc/grafana/provisioning/datasources/"
    )
    return _write(texts)


def write_prometheus(
    folder: Path, ray_folder: Path = RAY_FOLDER, ray: RayTable | None = None
) -> list[Path]:
    """Write a scrape configuration and the alert rules; return the files.

    ray: a site's Ray, whose dashboard names its nodes; None: a file in ray_folder does.
    """
    folder = folder.absolute()
    comment = "Merge into a Prometheus that is there; the parts are independent."
    if ray is not None and ray.token_file is not None:
        comment += (
            f"\n# {TOKEN_FILE} is a copy of {ray.token_file} beside Prometheus's own"
            "\n# configuration, mode 0400, of the user that it runs as."
            " docs/operate/metrics.md has a way\n# without it."
        )
    configuration = {
        "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": "30s"},
        "rule_files": ["forebay-rules.yml"],
        "scrape_configs": [
            {
                "job_name": "ray",
                **_discovery(ray_folder, ray),
            }
        ],
    }
    return _write(
        {
            folder / "prometheus.yml": _yaml(configuration, comment),
            folder / "forebay-rules.yml": _yaml(
                rules(), "docs/operate/alerts.md has the runbooks."
            ),
        }
    )


def _discovery(ray_folder: Path, ray: RayTable | None) -> dict[str, Any]:
    if ray is None:
        return {"file_sd_configs": [{"files": [str(ray_folder / DISCOVERY)]}]}
    asked: dict[str, Any] = {
        "url": f"{ray.dashboard}{DISCOVERY_PATH}",
        "refresh_interval": DISCOVERY_INTERVAL,
    }
    if ray.token_file is not None:
        asked["authorization"] = {"type": "Bearer", "credentials_file": TOKEN_FILE}
    return {"http_sd_configs": [asked]}


def _yaml(value: dict[str, Any], comment: str) -> str:
    return f"# {comment}\n{yaml.safe_dump(value, sort_keys=False, width=100)}"


def _write(texts: dict[Path, str]) -> list[Path]:
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.new")
            draft.write_text(text, encoding="utf-8")
            draft.chmod(_FILE_MODE)
            os.rename(draft, path)  # Grafana may be reading the one before
        except OSError as error:
            raise FilesNotWritten(str(path), error.strerror) from error
    return list(texts)
