"""`forebay report`: the figures of a run, as a page or as JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.output import JsonOption, print_json


def report(
    run: Annotated[str, typer.Argument(help="Number of the run, or 'latest'.")] = "latest",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML file.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Dataset, for 'latest'.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what takes a pass over all receipts.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Report on a run: throughput over time, balance, slow targets, warnings, large directories."""
    from cluster.records import find_run
    from cluster.report_figures import make_report, report_json
    from cluster.report_file import write_page
    from cluster.report_page import report_page
    from cluster.settings import Settings
    from shards.errors import UsageError

    if html is None and not json:
        raise UsageError("say where the report is to go: --html FILE, or --json for its figures")
    settings = Settings.from_environment()
    made = make_report(settings, find_run(settings, run, name), names=not quick)
    if html is not None:
        write_page(html, report_page(made))
        print(f"wrote {html}", file=sys.stderr)
    if json:
        print_json(report_json(made))
