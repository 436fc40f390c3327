"""Walk one lease: enumerate its directories, write segments, say what is left.

Covers: the step from an adapter's batches to durable segments, beside the walk; how much a lease
takes on.
Does not cover: getting and committing leases (actors), listing directories (adapters).
"""

from __future__ import annotations

import stat
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from filesystems.interface import Filesystem, WalkBatch, WalkOptions, WalkStats
from filesystems.names import look_at_names
from shards.lease import PendingDirectory
from shards.ledger import Lease, LeaseResult
from shards.schema import RowFlag
from shards.segment import SegmentInfo, flush_segments, write_segment

# A lease should take about this long: what a crash can cost, and how soon streams see new rows.
LEASE_TARGET_S = 2.0
BUDGET_ROWS_MIN = 256  # of the first lease: streams and other targets' walkers wait for it
BUDGET_ROWS_MAX = 2_097_152
PACED_S = 0.25  # a walk that took less has not found out how many threads help
BUDGET_GROWTH_MAX = 8  # from one lease to the next: one quick lease must not make a slow one
# Segments are written and flushed while the walk goes on. A disk that does not keep up holds the
# walk back.
SEGMENT_WRITERS = 2
UNWRITTEN_BATCHES_MAX = 4


class _Writers:
    """Threads that make batches durable segments."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(SEGMENT_WRITERS, thread_name_prefix="segments")
        self._slots = threading.BoundedSemaphore(UNWRITTEN_BATCHES_MAX)

    def write(self, folder: Path, name: str, found: WalkBatch, lease: Lease) -> Future[SegmentInfo]:
        """Begin to write a batch; wait if too many are being written."""
        self._slots.acquire()
        try:
            return self._pool.submit(self._write, folder, name, found, lease)
        except BaseException:
            self._slots.release()
            raise

    def _write(self, folder: Path, name: str, found: WalkBatch, lease: Lease) -> SegmentInfo:
        try:
            return write_segment(
                folder,
                name,
                found.batch,
                found.counts,
                run=lease.run,
                lease=lease.number,
                epoch=lease.epoch,
            )
        finally:
            self._slots.release()

    def close(self) -> None:
        self._pool.shutdown(wait=True)


@dataclass(slots=True)
class WalkedLease:
    """A lease whose walk has ended, while its last segments are perhaps still being written."""

    lease: Lease
    folder: Path
    segments: list[Future[SegmentInfo]] = field(default_factory=list)
    frontier: tuple[PendingDirectory, ...] = ()
    stats: WalkStats = field(default_factory=WalkStats)
    rows: int = 0
    named_rows: int = 0  # of single names; a walk counts its own
    mount_points: int = 0
    named_errors: int = 0  # names that could not be looked at

    def add(self, found: WalkBatch, writers: _Writers) -> None:
        flags = found.batch.column("flags").to_numpy()
        self.mount_points += int(np.count_nonzero(flags & RowFlag.MOUNT_POINT))
        self.rows += found.batch.num_rows
        name = f"{self.lease.number}-{self.lease.epoch}-{len(self.segments)}.arrow"
        self.segments.append(writers.write(self.folder, name, found, self.lease))

    def result(self) -> LeaseResult:
        """Wait until the segments and their names are durable; return what is to be committed."""
        segments = tuple(segment.result() for segment in self.segments)
        flush_segments(self.folder)
        return LeaseResult(
            segments,
            self.frontier,
            inodes=self.stats.entries + self.named_rows,
            directories=self.stats.directories,
            size_bytes=self.stats.bytes,
            errors=self.stats.errors + self.named_errors,
            mount_points=self.mount_points,
            whole=self.lease.whole,
        )


class LeaseWalker:
    """Walks leases of one filesystem; adapts row budget and threads to the filesystem's speed.

    One thread walks; the results may be waited for in another.
    """

    def __init__(self, filesystem: Filesystem, excluded: tuple[tuple[int, int], ...] = ()) -> None:
        self._filesystem = filesystem
        self._threads_start = 0  # of automatic ones: how many the lease before ended with
        self._excluded = excluded
        self._budget_rows = BUDGET_ROWS_MIN
        self._writers = _Writers()

    def close(self) -> None:
        """Wait for what is being written and end the threads."""
        self._writers.close()
        self._filesystem.close()

    def walk(self, lease: Lease, folder: Path) -> WalkedLease:
        """Enumerate a lease into segments in folder; result() tells when they are durable."""
        options = WalkOptions(
            threads=lease.pacing.threads,
            threads_start=self._threads_start,
            latency_target_us=lease.pacing.latency_target_us,
            shards=lease.shards,
            seed=lease.seed,
            budget_rows=self._budget_rows,
            excluded=self._excluded,
            inode_mask=lease.inode_mask,
        )
        started = time.monotonic()
        walked = WalkedLease(lease, folder)
        for batch in look_at_names(self._filesystem.root, lease.names, options):
            walked.add(batch, self._writers)
            walked.named_errors += _errors(batch)
        walked.named_rows = walked.rows
        directories = lease.directories
        if not lease.whole:
            directories, failed = self._still_there(directories)
            walked.named_errors += failed
        with self._filesystem.walk(directories, options, include_root=lease.include_root) as walk:
            for batch in walk:
                walked.add(batch, self._writers)
            walked.frontier, walked.stats = tuple(walk.frontier), walk.stats
        if walked.stats.seconds >= PACED_S:
            self._threads_start = walked.stats.threads_active
        self._adapt(walked.rows, time.monotonic() - started)
        return walked

    def _still_there(
        self, directories: tuple[PendingDirectory, ...]
    ) -> tuple[tuple[PendingDirectory, ...], int]:
        """Leave out what a change source named and what is no directory any more.

        Also returns how many could not be looked at: a run that missed something is no base.
        """
        options = WalkOptions(shards=1, seed=0, excluded=self._excluded)
        paths = [directory.path for directory in directories]
        batches = list(look_at_names(self._filesystem.root, paths, options))
        there = {
            row["path"]
            for batch in batches
            for row in batch.batch.select(["path", "mode", "flags"]).to_pylist()
            if stat.S_ISDIR(row["mode"])
            and not row["flags"] & (RowFlag.MOUNT_POINT | RowFlag.EXCLUDED)
        }
        kept = tuple(directory for directory in directories if directory.path in there)
        return kept, sum(map(_errors, batches))

    def _adapt(self, rows: int, seconds: float) -> None:
        if rows < self._budget_rows and seconds < LEASE_TARGET_S:
            return  # its directories were done before: how fast more of them go, it cannot tell
        wanted = int(rows / max(seconds, 1e-3) * LEASE_TARGET_S)
        wanted = min(wanted, BUDGET_GROWTH_MAX * self._budget_rows)
        self._budget_rows = max(BUDGET_ROWS_MIN, min(wanted, BUDGET_ROWS_MAX))


def _errors(found: WalkBatch) -> int:
    return int(np.count_nonzero(found.batch.column("error").to_numpy()))
