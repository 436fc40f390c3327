"""`forebay runs`: the runs so far."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.output import JsonOption, plural, print_json, show_size, show_time


def runs(
    name: Annotated[str | None, typer.Option("--name", help="Only this dataset.")] = None,
    json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    from cluster.records import list_runs, run_json
    from cluster.settings import Settings

    records = list_runs(Settings.from_environment(), name)
    if json:
        print_json({"runs": [run_json(record) for record in records]})
        return
    if not records:
        print("no runs yet; start one with `forebay backup DIR`")
    for record in records:
        run = record.run
        saved = record.saved_jobs
        names = sum(job.summary.files + job.summary.directories for job in saved)
        size = show_size(sum(job.summary.size_bytes for job in saved))
        warned = sum(job.summary.warnings for job in record.jobs)
        print(
            f"{run.number:>6}  {run.dataset:<20}  {show_time(run.started)}  {run.level:<5}"
            f" {run.state.value:<11}  {len(saved)}/{run.shards} shards  {names:>12,} names"
            f"  {size:>10}  {plural(warned, 'warning')}"
        )
