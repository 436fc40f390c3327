"""`forebay restore`: bring a run, or some paths of it, back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.output import JsonOption, QuietOption, plural, print_json, show_path, show_size
from cluster.replace import Replace

if TYPE_CHECKING:
    from cluster.restore_plan import RestorePlan

EXIT_WARNINGS = 3


def restore(
    run: Annotated[str, typer.Argument(help="Number of the run, or 'latest'.")] = "latest",
    name: Annotated[str | None, typer.Option("--name", help="Dataset, for 'latest'.")] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="DIR", help="Restore below DIR, under the full original path."
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option("--path", help="Only this file or directory; may be given several times."),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Restore to where it came from.")
    ] = False,
    replace: Annotated[
        Replace | None,
        typer.Option("--replace", help="Allow a place that is not empty; what to overwrite."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would come from which jobs.")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Restore RUN with one Bacula job for each shard, and the directories' attributes last."""
    from cluster import restore as restoring
    from cluster.progress import backup_display
    from cluster.records import find_run
    from cluster.settings import Settings

    settings = Settings.from_environment()
    if dry_run:
        with backup_display(quiet=quiet) as display:
            plan = restoring.dry_run(settings, find_run(settings, run, name), path or [], display)
        _tell_plan(plan, json=json)
        raise typer.Exit(EXIT_WARNINGS if plan.notes else 0)
    place = restoring.check_place(to, in_place=in_place, replace=replace)
    record = find_run(settings, run, name)
    with backup_display(quiet=quiet, verb="job") as display:
        result = restoring.restore(
            settings, record, place, path or [], replace or Replace.ALWAYS, display
        )
    if json:
        print_json(
            {
                "run": result.run,
                "to": str(result.to),
                "tree": str(result.tree),
                "names": result.names,
                "bytes": result.size_bytes,
                "seconds": round(result.seconds, 3),
                "good": result.good,
                "notes": result.notes,
                "jobs": result.jobs,
            }
        )
    else:
        print(
            f"run {result.run}: {plural(result.names, 'name')}, {show_size(result.size_bytes)},"
            f" restored in {result.seconds:.1f} s to {result.tree}"
            if result.good
            else f"run {result.run}: the restore failed"
        )
        for job in result.jobs:
            if job["missing"]:
                print(f"  JobId {job['jobid']}: {plural(job['missing'], 'name')} did not come")
            if job["log"]:
                print(f"  JobId {job['jobid']}, status {job['status']}:")
                for line in job["log"]:
                    print(f"    {line}")
    for note in result.notes:
        print(note, file=sys.stderr)
    raise typer.Exit(
        0 if result.good and not result.warned else EXIT_WARNINGS if result.good else 1
    )


def _tell_plan(plan: RestorePlan, *, json: bool) -> None:
    for note in plan.notes:
        print(note, file=sys.stderr)
    if json:
        print_json(
            {
                "run": plan.run,
                "names": plan.names,
                "bytes": plan.size_bytes,
                "jobids": sorted(plan.jobs),
                "jobs": plan.sources,
                "first_names": [show_path(path) for path in plan.first_names],
                "notes": plan.notes,
            }
        )
        return
    print(f"run {plan.run}: {plural(plan.names, 'name')}, {show_size(plan.size_bytes)}, from")
    for source in plan.sources:
        print(
            f"  shard {source['shard']}  JobId {source['jobid']}  level {source['level']}"
            f"  ended {source['ended']}  {plural(source['names'], 'name')},"
            f" {show_size(source['bytes'])}"
        )
