"""What a walker does, as metrics.

Covers: totals of committed leases by dataset, how its last walk went, how long leases take.
Does not cover: walking (lease_walker), what is pending (shards.ledger_measures).
"""

from __future__ import annotations

import threading
import time
from collections import Counter

from filesystems.interface import WalkStats
from filesystems.lease_walker import WalkedLease
from shards.ledger import Lease, LeaseResult
from shards.measures import Durations, Sample

# Each is a metric forebay_scan_NAME_total.
TOTALS = (
    *("inodes", "directories", "bytes", "errors", "vanished", "mount_points"),
    *("leases", "leases_lost", "leases_failed", "segments", "segment_bytes"),
    *("walk_seconds", "backoffs", "reopened"),
)


class ScanMeasures:
    """Told by the lease loop; sampled by any thread."""

    def __init__(self, target: int) -> None:
        self._target = str(target)
        self._lock = threading.Lock()
        self._totals: dict[str, Counter[str]] = {}  # by dataset
        self._last: dict[str, WalkStats] = {}
        self._walking: tuple[str, float] | None = None  # dataset, since when
        self._walks = Durations("forebay_lease_walk_seconds", self._target)
        self.commits = Durations("forebay_lease_commit_seconds", self._target)

    def _of(self, dataset: str) -> Counter[str]:
        return self._totals.setdefault(dataset, Counter())

    def walking(self, lease: Lease) -> None:
        """A walk begins."""
        with self._lock:
            self._of(lease.dataset)
            self._walking = (lease.dataset, time.monotonic())

    def walked(self, walked: WalkedLease | None) -> None:
        """The walk has ended; None: it failed."""
        with self._lock:
            assert self._walking is not None, "one began"
            dataset, started = self._walking
            self._walking = None
            seconds = time.monotonic() - started
            self._walks.add(seconds)
            total = self._of(dataset)
            total["walk_seconds"] += seconds
            if walked is None:
                return
            self._last[dataset] = walked.stats
            total["vanished"] += walked.stats.vanished
            total["backoffs"] += walked.stats.backoffs
            total["reopened"] += walked.stats.reopened

    def committed(self, dataset: str, result: LeaseResult) -> None:
        """What a lease found exists."""
        with self._lock:
            self._of(dataset).update(
                inodes=result.inodes,
                directories=result.directories,
                bytes=result.size_bytes,
                errors=result.errors,
                mount_points=result.mount_points,
                leases=1,
                segments=len(result.segments),
                segment_bytes=sum(segment.size_bytes for segment in result.segments),
            )

    def lost(self, dataset: str) -> None:
        """A lease was somebody else's when it was to be committed."""
        with self._lock:
            self._of(dataset)["leases_lost"] += 1

    def failed(self, dataset: str) -> None:
        """A lease could not be walked."""
        with self._lock:
            self._of(dataset)["leases_failed"] += 1

    def state(self) -> str:
        """Say in a word or two what the walker does; nothing before it has done anything."""
        walking = self._walking
        if walking is None:
            return "idle" if self._totals else ""
        return f"walking {walking[0]}"

    def samples(self) -> list[Sample]:
        found = self._walks.samples() + self.commits.samples()
        with self._lock:
            for dataset, totals in self._totals.items():
                labels = (dataset, self._target)
                found += [
                    Sample(f"forebay_scan_{what}_total", totals[what], labels) for what in TOTALS
                ]
                last = self._last.get(dataset, WalkStats())
                age_s = 0.0
                if self._walking is not None and self._walking[0] == dataset:
                    age_s = time.monotonic() - self._walking[1]
                found += [
                    Sample("forebay_scan_threads", last.threads_active or last.threads, labels),
                    Sample("forebay_scan_threads_high", last.threads_high, labels),
                    Sample("forebay_scan_call_latency_seconds", last.latency_s, labels),
                    Sample("forebay_scan_lease_age_seconds", age_s, labels),
                ]
        return found
