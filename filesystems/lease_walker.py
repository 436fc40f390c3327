"""Walk one lease: enumerate its directories, write segments, say what is left.

Covers: the step from an adapter's batches to durable segments, and how much a lease takes on.
Does not cover: getting and committing leases (actors), listing directories (adapters).
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from filesystems.interface import Filesystem, WalkOptions
from shards.ledger import Lease, LeaseResult
from shards.schema import RowFlag
from shards.segment import SegmentInfo, flush_segments, write_segment

# A lease should take about this long: what a crash can cost, and how soon streams see new rows.
LEASE_TARGET_S = 2.0
BUDGET_ROWS_MIN = 8_192
BUDGET_ROWS_MAX = 2_097_152


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
        segments: list[SegmentInfo] = []
        mount_points = 0
        started = time.monotonic()
        with self._filesystem.walk(
            lease.directories, options, include_root=lease.include_root
        ) as walk:
            for number, found in enumerate(walk):
                flags = found.batch.column("flags").to_numpy()
                mount_points += int(np.count_nonzero(flags & RowFlag.MOUNT_POINT))
                name = f"{lease.number}-{lease.epoch}-{number}.arrow"
                segments.append(
                    write_segment(
                        folder,
                        name,
                        found.batch,
                        found.counts,
                        run=lease.run,
                        lease=lease.number,
                        epoch=lease.epoch,
                    )
                )
            frontier = tuple(walk.frontier)
            stats = walk.stats
        flush_segments(folder)
        self._adapt(sum(info.rows for info in segments), time.monotonic() - started)
        return LeaseResult(
            tuple(segments),
            frontier,
            inodes=stats.entries,
            directories=stats.directories,
            size_bytes=stats.bytes,
            errors=stats.errors,
            mount_points=mount_points,
        )

    def _adapt(self, rows: int, seconds: float) -> None:
        # At most twice the last budget, so that one quick lease does not make a slow one.
        wanted = int(rows / max(seconds, 1e-3) * LEASE_TARGET_S)
        wanted = min(wanted, 2 * self._budget_rows)
        self._budget_rows = max(BUDGET_ROWS_MIN, min(wanted, BUDGET_ROWS_MAX))
