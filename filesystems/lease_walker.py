"""Walk one lease: enumerate its directories, write segments, say what is left.

Covers: the step from an adapter's batches to durable segments, and how much a lease takes on.
Does not cover: getting and committing leases (actors), listing directories (adapters).
"""

from __future__ import annotations

import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from filesystems.interface import Filesystem, WalkBatch, WalkOptions
from filesystems.names import look_at_names
from shards.lease import PendingDirectory
from shards.ledger import Lease, LeaseResult
from shards.schema import RowFlag
from shards.segment import SegmentInfo, flush_segments, write_segment

# A lease should take about this long: what a crash can cost, and how soon streams see new rows.
LEASE_TARGET_S = 2.0
BUDGET_ROWS_MIN = 8_192
BUDGET_ROWS_MAX = 2_097_152


@dataclass(slots=True)
class _Found:
    """The segments of one lease as they are written."""

    lease: Lease
    folder: Path
    segments: list[SegmentInfo] = field(default_factory=list)
    inodes: int = 0  # of single names; a walk counts its own
    mount_points: int = 0

    def add(self, found: WalkBatch) -> None:
        flags = found.batch.column("flags").to_numpy()
        self.mount_points += int(np.count_nonzero(flags & RowFlag.MOUNT_POINT))
        lease = self.lease
        name = f"{lease.number}-{lease.epoch}-{len(self.segments)}.arrow"
        self.segments.append(
            write_segment(
                self.folder,
                name,
                found.batch,
                found.counts,
                run=lease.run,
                lease=lease.number,
                epoch=lease.epoch,
            )
        )


class LeaseWalker:
    """Walks leases of one filesystem; adapts the row budget to the filesystem's speed."""

    def __init__(
        self, filesystem: Filesystem, threads: int, excluded: tuple[tuple[int, int], ...] = ()
    ) -> None:
        self._filesystem = filesystem
        self._threads = threads
        self._excluded = excluded
        self._budget_rows = BUDGET_ROWS_MIN

    def walk(self, lease: Lease, folder: Path) -> LeaseResult:
        """Enumerate a lease into segments in folder, durable when this returns."""
        options = WalkOptions(
            threads=self._threads,
            shards=lease.shards,
            seed=lease.seed,
            budget_rows=self._budget_rows,
            excluded=self._excluded,
        )
        started = time.monotonic()
        found = _Found(lease, folder)
        for batch in look_at_names(self._filesystem.root, lease.names, options):
            found.add(batch)
            found.inodes += batch.batch.num_rows
        directories = lease.directories if lease.whole else self._still_there(lease.directories)
        with self._filesystem.walk(directories, options, include_root=lease.include_root) as walk:
            for batch in walk:
                found.add(batch)
            frontier = tuple(walk.frontier)
            stats = walk.stats
        flush_segments(folder)
        self._adapt(sum(info.rows for info in found.segments), time.monotonic() - started)
        return LeaseResult(
            tuple(found.segments),
            frontier,
            inodes=stats.entries + found.inodes,
            directories=stats.directories,
            size_bytes=stats.bytes,
            errors=stats.errors,
            mount_points=found.mount_points,
            whole=lease.whole,
        )

    def _still_there(
        self, directories: tuple[PendingDirectory, ...]
    ) -> tuple[PendingDirectory, ...]:
        """Leave out what a change source named and what is no directory any more."""
        options = WalkOptions(shards=1, seed=0, excluded=self._excluded)
        paths = [directory.path for directory in directories]
        there = {
            row["path"]
            for batch in look_at_names(self._filesystem.root, paths, options)
            for row in batch.batch.select(["path", "mode", "flags"]).to_pylist()
            if stat.S_ISDIR(row["mode"])
            and not row["flags"] & (RowFlag.MOUNT_POINT | RowFlag.EXCLUDED)
        }
        return tuple(directory for directory in directories if directory.path in there)

    def _adapt(self, rows: int, seconds: float) -> None:
        # At most twice the last budget, so that one quick lease does not make a slow one.
        wanted = int(rows / max(seconds, 1e-3) * LEASE_TARGET_S)
        wanted = min(wanted, 2 * self._budget_rows)
        self._budget_rows = max(BUDGET_ROWS_MIN, min(wanted, BUDGET_ROWS_MAX))
