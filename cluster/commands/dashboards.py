"""`forebay dashboards`: dashboards for Grafana, rules for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.output import JsonOption, print_json
from shards.errors import UsageError

app = typer.Typer(help="Dashboards for Grafana, alert rules for Prometheus.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(help="Folder to write to; it is made.")]


class GrafanaUnknown(UsageError):
    """There is nothing to say which Grafana."""

    template = "{0}; `forebay dashboards write DIR` makes files without one"


@app.command("install")
def install(
    config: Annotated[
        Path | None, typer.Option("--config", help="The site's configuration file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Install the dashboards in the Grafana of the configuration, or bring them up to date."""
    from cluster.dashboards.grafana import install as install_dashboards
    from cluster.site_config import DEFAULT_PATH, configured_path, load

    path = configured_path(config)
    if path is None:
        raise GrafanaUnknown(f"there is no configuration file {DEFAULT_PATH}, and no --config")
    table = load(path).grafana
    if table is None:
        raise GrafanaUnknown(f"{path} has no table [grafana] with url and token_file")
    installed = install_dashboards(table)
    if json:
        print_json({"folder": table.folder, "dashboards": installed})
        return
    for dashboard in installed:
        print(f"{dashboard['title']}: {dashboard['url']}")


@app.command("write")
def write(
    folder: FolderArgument,
    prometheus: Annotated[
        str, typer.Option("--prometheus", help="URL for the data source file.")
    ] = "http://127.0.0.1:9090",
    json: JsonOption = False,
) -> None:
    """Write the dashboards as files for Grafana's provisioning."""
    from cluster.dashboards.files import write_dashboards

    _say(write_dashboards(folder, prometheus), json=json)


@app.command("prometheus")
def prometheus(
    folder: FolderArgument,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The site's configuration file: its dashboard is asked."),
    ] = None,
    ray_folder: Annotated[
        Path | None,
        typer.Option("--ray-temp-dir", help="Ask a file in Ray's --temp-dir on the head instead."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a scrape configuration and the alert rules for Prometheus."""
    from cluster.dashboards.files import RAY_FOLDER, write_prometheus
    from cluster.site_config import configured_path, load

    path = configured_path(config) if ray_folder is None else None
    ray = None if path is None else load(path).ray
    _say(write_prometheus(folder, ray_folder or RAY_FOLDER, ray), json=json)


def _say(paths: list[Path], *, json: bool) -> None:
    if json:
        print_json({"files": [str(path) for path in paths]})
        return
    for path in paths:
        print(path)
