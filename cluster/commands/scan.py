"""`forebay scan`: the scan alone, without Bacula and without Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cluster.output import JsonOption, QuietOption, plural, print_json, show_path, show_size

THREADS_MAX = 1024


def scan(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", readable=False, help="Directory to scan.")
    ],
    threads: Annotated[
        int,
        typer.Option("--threads", min=1, max=THREADS_MAX, help="Threads that list and stat."),
    ] = min(32, 2 * (os.cpu_count() or 1)),
    out: Annotated[
        Path | None, typer.Option("--out", help="Write every row to this Parquet file.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Enumerate DIR: inodes, bytes, seconds, inodes per second, errors."""
    from cluster.progress import scan_display
    from cluster.scanning import scan_directory

    with scan_display(quiet=quiet) as advance:
        result = scan_directory(directory, threads, out, advance)
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
                "threads": threads,
                "out": str(out) if out else None,
            }
        )
    else:
        print(
            f"{plural(result.inodes, 'name')} in"
            f" {plural(result.directories, 'directory', 'directories')},"
            f" {show_size(result.size_bytes)}, in {result.seconds:.2f} s"
            f" ({result.inodes / result.seconds:,.0f}/s), {plural(result.errors, 'error')}"
        )
    raise typer.Exit(3 if result.errors else 0)
