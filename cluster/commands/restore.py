"""`forebay restore`: bring a run, or some paths of it, back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.output import JsonOption, QuietOption, plural, print_json, show_size
from cluster.replace import Replace

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
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Restore RUN with one Bacula job for each shard, and the directories' attributes last."""
    from cluster import restore as restoring
    from cluster.progress import backup_display
    from cluster.records import find_run
    from cluster.settings import Settings

    settings = Settings.from_environment()
    place = restoring.check_place(to, in_place=in_place, replace=replace)
    record = find_run(settings, run, name)
    note = restoring.incomplete_note(record)
    with backup_display(quiet=quiet, verb="job") as display:
        if note:
            display.say(note)
        result = restoring.restore(
            settings, record, place, path or [], replace or Replace.ALWAYS, display
        )
    warned = result.warned or note is not None
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
                "note": note,
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
        if note:
            print(note)
    raise typer.Exit(0 if result.good and not warned else EXIT_WARNINGS if result.good else 1)
