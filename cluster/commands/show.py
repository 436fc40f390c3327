"""`forebay show`: one run in full."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from cluster.output import (
    JsonOption,
    plural,
    print_json,
    show_error,
    show_path,
    show_size,
    show_time,
)

WARNINGS_SHOWN = 50


def show(
    run: Annotated[str, typer.Argument(help="Number of the run, or 'latest'.")] = "latest",
    name: Annotated[str | None, typer.Option("--name", help="Dataset, for 'latest'.")] = None,
    all_warnings: Annotated[
        bool, typer.Option("--all-warnings", help=f"List more than {WARNINGS_SHOWN}.")
    ] = False,
    restore_object: Annotated[
        bool,
        typer.Option(
            "--restore-object",
            help="Print what Bacula's catalog has of its files' layouts, as JSON.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show a run: its jobs, what they build on, and each name that was not saved as it is."""
    from cluster.records import attention, find_run, mount_points, run_json
    from cluster.restore_objects import restore_objects
    from cluster.settings import Settings

    settings = Settings.from_environment()
    record = find_run(settings, run, name)
    if restore_object:
        print_json(restore_objects(settings, record))
        return
    names = attention(settings, record)
    if json:
        listed = [
            {
                "path": show_path(item.path),
                "status": item.status.name,
                "errno": item.error,
                "error": show_error(item.error) if item.error else None,
                "shard": item.shard,
            }
            for item in names
        ]
        mounted = [show_path(path) for path in mount_points(settings, record)]
        print_json({**run_json(record), "attention": listed, "mounted": mounted})
        return
    head = record.run
    print(f"run {head.number} of {head.dataset} ({show_path(head.root)}), level {head.level}")
    print(f"state {head.state.value}{f': {head.reason}' if head.reason else ''}")
    if record.how_to_go_on:
        print(record.how_to_go_on)
    if head.note:
        told = "" if head.level == "full" else "the whole tree was looked at: "
        print(f"{told}{head.note}")
    if record.is_pruned:
        print("its manifest and receipts were pruned: it can be neither verified nor restored")
    print(f"from {show_time(head.started)} to {show_time(head.ended)}")
    scan = record.scan
    print(
        f"scanned {plural(scan.inodes, 'name')} in"
        f" {plural(scan.directories, 'directory', 'directories')},"
        f" {show_size(scan.size_bytes)}, {plural(scan.errors, 'error')}"
    )
    for path in mount_points(settings, record):
        print(f"  not part of it, another filesystem is mounted there: {show_path(path)}")
    for job in record.jobs:
        done = f"{job.summary.files:,} files, {job.summary.directories:,} directories"
        if job.summary.deleted:
            done += f", {job.summary.deleted:,} deleted"
        print(
            f"  shard {job.shard}/{head.shards}  JobId {job.jobid}  level {job.level or '-'}"
            f"  status {job.status or '-'}  {done}, {show_size(job.summary.size_bytes)},"
            f" {plural(job.summary.warnings, 'warning')}"
            f"{f'  ({job.reason})' if job.reason else ''}"
        )
        if job.chain:
            print(f"    builds on JobId {', '.join(map(str, job.chain))}")
        if job.note:
            print(f"    {job.note}")
    shown = names if all_warnings else itertools.islice(names, WARNINGS_SHOWN)
    for item in shown:
        print(f"  {item.status.name.lower()}: {show_path(item.path)}: {show_error(item.error)}")
    if not all_warnings and (left := sum(1 for _ in names)):
        print(f"  and {left:,} more; --all-warnings lists them")
