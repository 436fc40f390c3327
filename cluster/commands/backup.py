"""`forebay backup`: save a directory through N concurrent Bacula jobs."""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands.pacing import LatencyTargetOption, ThreadsOption, parse_pacing
from cluster.output import (
    JsonOption,
    QuietOption,
    plural,
    print_json,
    show_error,
    show_path,
    show_size,
)
from shards.errors import UsageError
from shards.ledger_schema import HsmPolicy

if TYPE_CHECKING:
    from cluster.records import RunRecord
    from cluster.settings import Settings

WARNINGS_SHOWN = 20
EXIT_WARNINGS = 3


def backup(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", readable=False, help="Directory to back up.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Dataset; the directory's own name if not given.")
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option("--shards", min=1, help="Number of concurrent jobs; 4 for a new dataset."),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            "--level",
            help="full, differential or incremental; incremental if not given, which Bacula makes"
            " a full one where there is none yet.",
        ),
    ] = None,
    resume: Annotated[
        int | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with a run that is incomplete, instead of a new one: with its scan and"
            " the shards that it lacks.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    latency_target: LatencyTargetOption = None,
    hsm: Annotated[
        HsmPolicy | None,
        typer.Option(
            "--hsm",
            help="Files that HSM has released (Lustre): skip leaves them out and says how many,"
            " stub saves all but their data, recall reads them; skip for a new dataset.",
        ),
    ] = None,
    snapshot: Annotated[
        bool | None,
        typer.Option(
            "--snapshot/--no-snapshot",
            help="Read a snapshot that is taken for the run (CephFS); the dataset remembers it.",
            show_default=False,
        ),
    ] = None,
    mover: Annotated[
        str | None,
        typer.Option(
            "--mover",
            help="At a site: let this data mover read, not each shard's own. Bacula builds on jobs"
            " of one client: the next backup of those shards by their own has to be a full one.",
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Back DIR up through N concurrent Bacula jobs; at a site DIR may be a dataset's name.

    The number of shards, the threads, the latency target and what becomes of files that HSM has
    released are remembered with the dataset.
    """
    from cluster.settings import Settings

    settings = Settings.from_environment()
    if (directory is None) == (resume is None):
        raise UsageError("say what to back up: DIR, or --resume RUN to go on with a run")
    pacing = parse_pacing(threads, latency_target)
    fixed = (name, shards, pacing, hsm, snapshot)
    if resume is not None and any(option is not None for option in (*fixed, level)):
        raise UsageError("--resume goes on as the run began: leave the other options out")
    if settings.site is not None:
        if any(option is not None for option in fixed):
            raise UsageError("a site's datasets are as its configuration says: change them there")
        record = _at_site(settings, directory, level, resume, mover, quiet)
        _print(record, json)
        raise typer.Exit(exit_code(record))
    if mover is not None:
        raise UsageError("--mover is for a site: name its configuration in FOREBAY_CONFIG")
    from cluster.ray_token import prepare_private_ray

    prepare_private_ray()
    from cluster.backup import LEVEL_DEFAULT, back_up, plan, plan_resume
    from cluster.progress import backup_display

    if directory is None:
        request = plan_resume(settings, resume or 0)
    else:
        request = plan(
            settings, directory, name, shards, level or LEVEL_DEFAULT, pacing, hsm, snapshot
        )
    # Ray's own messages go to standard output, which is for data.
    with contextlib.redirect_stdout(sys.stderr), backup_display(quiet=quiet) as display:
        record = back_up(settings, request, display)
    _print(record, json)
    raise typer.Exit(exit_code(record))


def _at_site(
    settings: Settings,
    directory: Path | None,
    level: str | None,
    resume: int | None,
    mover: str | None,
    quiet: bool,
) -> RunRecord:
    """Run a dataset's jobs at a site, or those that a run lacks."""
    from cluster.progress import backup_display
    from cluster.site_ray import connected

    assert settings.site is not None
    connected(settings.site)
    from cluster.backup import LEVEL_DEFAULT, LEVELS, LevelUnknown
    from cluster.site_backup import back_up, request, resume_request

    if (level or LEVEL_DEFAULT) not in LEVELS:
        raise LevelUnknown(level)
    if resume is not None:
        wanted = resume_request(settings, settings.site, resume, mover)
    else:
        wanted = request(settings.site, str(directory), LEVELS[level or LEVEL_DEFAULT], mover)
    with contextlib.redirect_stdout(sys.stderr), backup_display(quiet=quiet) as display:
        return back_up(settings, wanted, display)


def _print(record: RunRecord, json: bool) -> None:
    if json:
        from cluster.records import run_json

        print_json(run_json(record))
    else:
        _tell(record)


def exit_code(record: RunRecord) -> int:
    """0 complete, 3 complete with warnings, 1 anything else."""
    return {"complete": 0, "warnings": EXIT_WARNINGS}.get(record.run.state.value, 1)


def _tell(record: RunRecord) -> None:
    run = record.run
    jobs = record.saved_jobs
    files = sum(job.summary.files for job in jobs)
    folders = sum(job.summary.directories for job in jobs)
    size = show_size(sum(job.summary.size_bytes for job in jobs))
    seconds = (run.ended or run.started) - run.started
    deleted = sum(job.summary.deleted for job in jobs)
    gone = f", {plural(deleted, 'deletion')}" if deleted else ""
    print(
        f"run {run.number} of {run.dataset}: {plural(files, 'file')} and"
        f" {plural(folders, 'directory', 'directories')}"
        f"{gone}, {size},"
        f" in {seconds:.1f} s,"
        f" through {len(jobs)} of {run.shards} jobs"
    )
    for job in record.jobs:
        print(
            f"  shard {job.shard}/{run.shards}  JobId {job.jobid} {job.level or '-'}"
            f"  status {job.status or '-'}"
            f"  {job.files:,} names, {show_size(job.size_bytes)}"
            f"{f'  ({job.reason})' if job.reason else ''}"
        )
    if skipped := sum(job.summary.skipped for job in jobs):
        print(f"{plural(skipped, 'socket')} left out, as Bacula does")
    if stubs := sum(job.summary.stubs for job in jobs):
        print(f"{plural(stubs, 'file')} saved without data, since HSM has released them")
    if record.scan.mount_points:
        print(
            f"{plural(record.scan.mount_points, 'mount point')} of other filesystems not descended"
            f" into: `forebay show {run.number}` names them, back them up on their own"
        )
    _tell_warnings(record)
    if run.note:
        print(run.note if run.level == "full" else f"the whole tree was looked at: {run.note}")
    if run.reason:
        print(f"{run.state.value}: {run.reason}")
    if run.state.value == "incomplete":
        print(f"to go on with what is missing: forebay backup --resume {run.number}")
    if run.state.value in ("complete", "warnings"):
        _tell_where(record)


def _tell_warnings(record: RunRecord) -> None:
    from cluster.records import attention
    from cluster.settings import Settings

    warned = sum(job.summary.warnings for job in record.jobs)
    if not warned:
        return
    print(f"{plural(warned, 'name')} not saved, or not as it is now:")
    names = attention(Settings.from_environment(), record)
    for item in itertools.islice(names, WARNINGS_SHOWN):
        print(f"  {item.status.name.lower()}: {show_path(item.path)}: {show_error(item.error)}")
    if warned > WARNINGS_SHOWN:
        print(f"  ... `forebay show {record.run.number} --all-warnings` lists all")


def _tell_where(record: RunRecord) -> None:
    from bacula_bridge.director import restore_command
    from cluster.chains import restore_jobids
    from cluster.settings import Settings

    settings = Settings.from_environment()
    command = restore_command(restore_jobids(settings, record), "DIR")
    print(f"to restore it: forebay restore {record.run.number} --to DIR")
    if settings.site is not None:
        return
    print(f"it is on Bacula volumes in {settings.lab / 'volumes'}")
    print(f"or with Bacula alone, in `forebay lab up` and `forebay lab console`: {command}")
