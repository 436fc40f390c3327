"""`forebay scan`: the scan alone, without Bacula and without Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.pacing import LatencyTargetOption, ThreadsOption, parse_pacing
from cluster.output import JsonOption, QuietOption, plural, print_json, show_path, show_size
from shards.lease import Pacing


def scan(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", readable=False, help="Directory to scan.")
    ],
    threads: ThreadsOption = None,
    latency_target: LatencyTargetOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write every row to this Parquet file.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Enumerate DIR: inodes, bytes, seconds, inodes per second, errors."""
    from cluster.progress import scan_display
    from cluster.scanning import scan_directory

    pacing = parse_pacing(threads, latency_target) or Pacing()
    with scan_display(quiet=quiet) as advance:
        result = scan_directory(directory, pacing, out, advance)
    if json:
        print_json(
            {
                "root": show_path(os.fsencode(result.root)),
                "inodes": result.inodes,
                "directories": result.directories,
                "bytes": result.size_bytes,
                "seconds": round(result.seconds, 6),
                "inodes_per_second": round(result.inodes / result.seconds, 1),
                "errors": result.errors,
                "threads": result.threads,
                "backoffs": result.backoffs,
                "out": str(out) if out else None,
            }
        )
    else:
        print(
            f"{plural(result.inodes, 'name')} in"
            f" {plural(result.directories, 'directory', 'directories')},"
            f" {show_size(result.size_bytes)}, in {result.seconds:.2f} s"
            f" ({result.inodes / result.seconds:,.0f}/s) with {plural(result.threads, 'thread')},"
            f" {plural(result.errors, 'error')}"
        )
    raise typer.Exit(3 if result.errors else 0)
