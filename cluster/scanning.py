"""The scan alone: one directory, one process, optionally into a Parquet file.

Covers: what `forebay scan` does.
Does not cover: scans of a run (actors.walker).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from filesystems.detect import detect
from filesystems.interface import WalkOptions
from shards.errors import ForebayError
from shards.lease import Pacing, PendingDirectory
from shards.schema import INODE_SCHEMA


class OutputUnusable(ForebayError):
    """The Parquet file cannot be written."""

    template = "cannot write {0}: {1}"


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan found."""

    root: Path
    inodes: int
    directories: int
    size_bytes: int
    errors: int
    seconds: float
    threads: int  # most that worked at once
    backoffs: int  # times their number was halved because calls took too long


def scan_directory(
    directory: Path, pacing: Pacing, out: Path | None, advance: Callable[[int], None]
) -> ScanResult:
    """Scan a directory; advance is told of rows as they come."""
    root = directory.resolve()
    filesystem = detect(root).filesystem
    options = WalkOptions(
        shards=1,
        seed=0,
        threads=pacing.threads,
        latency_target_us=pacing.latency_target_us,
        hands_over=False,
    )
    partial = out.with_name(f"{out.name}.partial") if out else None
    started = time.monotonic()
    with ExitStack() as stack:
        walk = stack.enter_context(
            filesystem.walk([PendingDirectory(b"")], options, include_root=True)
        )
        writer = None
        try:
            if partial is not None:
                writer = stack.enter_context(
                    pq.ParquetWriter(partial, INODE_SCHEMA, compression="zstd")
                )
            for found in walk:
                if writer is not None:
                    writer.write_batch(found.batch)
                advance(found.batch.num_rows)
        except OSError as error:
            if partial is not None:
                partial.unlink(missing_ok=True)
            raise OutputUnusable(str(out), error.strerror or str(error)) from error
        stats = walk.stats
    if partial is not None and out is not None:
        partial.replace(out)
    seconds = max(time.monotonic() - started, 1e-6)
    return ScanResult(
        root,
        stats.entries,
        stats.directories,
        stats.bytes,
        stats.errors,
        seconds,
        stats.threads_high,
        stats.backoffs,
    )
