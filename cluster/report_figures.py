"""The figures of a run's report, from the ledger and the receipts.

Covers: throughput over time, balance of the shards, metadata targets, warnings in groups, the
largest directories; the same as JSON. Memory is bounded, whatever the number of names.
Does not cover: the page (report_page).
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.busiest import Directory, DirectoryCounts
from cluster.output import show_error, show_path
from cluster.records import RunRecord, run_json
from cluster.settings import Settings
from shards.ledger import Ledger
from shards.receipts import read_receipts
from shards.schema import WARNING_STATUSES, ReceiptStatus
from shards.shard_jobs import ShardJob
from shards.throughput import ScanTimes, Series, on_one_axis, scan_times, stream_times

SAMPLES = 120  # on the axis of time
GROUPS_MAX = 64  # of warnings
GROUP_NAMES_MAX = 5
DIRECTORIES_SHOWN = 20
_SAVED = np.array(
    [ReceiptStatus.SAVED, ReceiptStatus.LINK, ReceiptStatus.CHANGED, ReceiptStatus.STUB],
    dtype=np.uint32,
)


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was done when, on one axis of time; a sample is an amount, not a rate."""

    scanned: Series
    saved: Series
    jobs_measured: int
    jobs: int  # with durable receipts


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """What one walker found, and how long its leases took."""

    target: str
    leases: int
    inodes: int
    directories: int
    size_bytes: int
    errors: int
    seconds: float | None  # None: the ledger has no times of this run


@dataclass(slots=True)
class WarningGroup:
    """Names that were not saved as they are, for one reason."""

    status: ReceiptStatus
    error: int
    count: int = 0
    first: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NamesFigures:
    """What one pass over the receipts gives."""

    warnings: tuple[WarningGroup, ...]
    warnings_ungrouped: int  # of further reasons, past GROUPS_MAX
    by_bytes: tuple[Directory, ...]
    by_names: tuple[Directory, ...]
    missing_bytes: int  # so much may lack in each directory's bytes
    missing_names: int
    total_bytes: int
    total_names: int


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of a run."""

    record: RunRecord
    made: float
    throughput: Throughput | None
    targets: tuple[TargetFigures, ...]
    names: NamesFigures | None  # None: nobody asked for them, or the receipts were pruned


def make_report(settings: Settings, record: RunRecord, *, names: bool = True) -> Report:
    """Gather a run's figures; names takes a pass over all its receipts."""
    number = record.run.number
    with closing(Ledger(settings.state.ledger, read_only=True)) as ledger:
        scans = scan_times(ledger.query, number)
        streams = stream_times(ledger.query, number)
        targets = _targets(ledger, number, scans)
    return Report(
        record,
        time.time(),
        _throughput(record, scans, streams),
        targets,
        _names(settings, record) if names and not record.is_pruned else None,
    )


def _throughput(
    record: RunRecord, scans: list[ScanTimes], streams: dict[tuple[int, int], Series]
) -> Throughput | None:
    wanted = [job for job in record.jobs if job.receipts is not None]
    saved = [streams[(job.shard, job.jobid)] for job in wanted if (job.shard, job.jobid) in streams]
    scanned = [scan.series for scan in scans]
    series = [one for one in (*scanned, *saved) if one.names]
    if not series:
        return None
    start = min(record.run.started, *(one.start for one in series))
    end = max(one.end for one in series)
    return Throughput(
        on_one_axis(scanned, start, end, SAMPLES),
        on_one_axis(saved, start, end, SAMPLES),
        len(saved),
        len(wanted),
    )


def _targets(ledger: Ledger, run: int, scans: list[ScanTimes]) -> tuple[TargetFigures, ...]:
    """Return the metadata targets, those that took longest first."""
    seconds = {scan.role: scan.seconds for scan in scans}
    rows = ledger.query(
        "SELECT role, COUNT(*) AS leases, SUM(inodes) AS inodes, SUM(directories) AS directories,"
        " SUM(bytes) AS bytes, SUM(errors) AS errors"
        " FROM scan JOIN leases ON number = lease WHERE scan.run = ? GROUP BY role ORDER BY role",
        (run,),
    )
    found = [
        TargetFigures(
            row["role"].removeprefix("walker:"),
            *(row["leases"], row["inodes"], row["directories"], row["bytes"], row["errors"]),
            seconds.get(row["role"]),
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda one: -(one.seconds or 0.0)))


def _names(settings: Settings, record: RunRecord) -> NamesFigures:
    groups: dict[tuple[int, int], WarningGroup] = {}
    counts = DirectoryCounts()
    ungrouped = 0
    warned = np.array(sorted(WARNING_STATUSES), dtype=np.uint32)
    for job in record.jobs:
        if job.receipts is None:
            continue
        for batch in read_receipts(settings.state.receipts(record.run.number), job.receipts):
            status = batch.column("status").to_numpy()
            ungrouped += _group(batch, np.flatnonzero(np.isin(status, warned)), groups)
            saved = np.flatnonzero(np.isin(status, _SAVED))
            rows = pa.array(saved)
            counts.add(
                batch.column("path").take(rows), batch.column("sent_bytes").to_numpy()[saved]
            )
    return NamesFigures(
        tuple(sorted(groups.values(), key=lambda group: (-group.count, group.status, group.error))),
        ungrouped,
        tuple(counts.bytes.largest(DIRECTORIES_SHOWN)),
        tuple(counts.names.largest(DIRECTORIES_SHOWN)),
        counts.bytes.missing,
        counts.names.missing,
        counts.bytes.total,
        counts.names.total,
    )


def _group(batch: pa.RecordBatch, rows: Any, groups: dict[tuple[int, int], WarningGroup]) -> int:
    """Add a batch's warnings to their groups; return how many found no place in one."""
    if not len(rows):
        return 0
    ungrouped = 0
    keys = np.stack(
        [
            batch.column("status").to_numpy()[rows].astype(np.int64),
            batch.column("error").to_numpy()[rows].astype(np.int64),
        ]
    )
    kinds, inverse, amounts = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    for place, count in enumerate(amounts.tolist()):
        status, error = int(kinds[0, place]), int(kinds[1, place])
        group = groups.get((status, error))
        if group is None:
            if len(groups) >= GROUPS_MAX:
                ungrouped += count
                continue
            group = groups[(status, error)] = WarningGroup(ReceiptStatus(status), error)
        group.count += count
        for row in rows[inverse == place][: GROUP_NAMES_MAX - len(group.first)].tolist():
            group.first.append(batch.column("path")[row].as_py())
    return ungrouped


def balance(jobs: list[ShardJob]) -> dict[str, float | None]:
    """Return how much more than the mean the largest shard has; 1 is a perfect balance."""
    measures = {
        "data": [job.summary.size_bytes for job in jobs],
        "names": [job.summary.files + job.summary.directories for job in jobs],
        "time": [job_seconds(job) for job in jobs],
    }
    return {
        name: round(max(values) * len(values) / sum(values), 3) if any(values) else None
        for name, values in measures.items()
    }


def job_seconds(job: ShardJob) -> float:
    """Return how long a job took; 0 while it has not ended."""
    return max(0.0, job.ended - job.started) if job.ended else 0.0


def report_json(report: Report) -> dict[str, Any]:
    """Return the figures as JSON says them."""
    record = report.record
    return {
        **run_json(record),
        "made": report.made,
        "throughput": _throughput_json(report.throughput),
        "balance": balance(record.saved_jobs),
        "targets": [
            {
                "target": one.target,
                "leases": one.leases,
                "inodes": one.inodes,
                "directories": one.directories,
                "bytes": one.size_bytes,
                "errors": one.errors,
                "seconds": None if one.seconds is None else round(one.seconds, 3),
            }
            for one in report.targets
        ],
        "names": _names_json(report.names),
    }


def _throughput_json(throughput: Throughput | None) -> dict[str, Any] | None:
    if throughput is None:
        return None
    scanned, saved = throughput.scanned, throughput.saved
    return {
        "started": scanned.start,
        "sample_seconds": round(scanned.width_s, 6),
        "scanned_names": [round(value, 3) for value in scanned.names],
        "saved_names": [round(value, 3) for value in saved.names],
        "saved_bytes": [round(value) for value in saved.bytes],
        "jobs_measured": throughput.jobs_measured,
        "jobs": throughput.jobs,
    }


def _names_json(names: NamesFigures | None) -> dict[str, Any] | None:
    if names is None:
        return None
    return {
        "warnings": [
            {
                "status": group.status.name,
                "errno": group.error,
                "error": show_error(group.error) if group.error else None,
                "count": group.count,
                "first": [show_path(path) for path in group.first],
            }
            for group in names.warnings
        ],
        "warnings_ungrouped": names.warnings_ungrouped,
        "directories_by_bytes": [
            {"path": show_path(one.path), "bytes": one.amount} for one in names.by_bytes
        ],
        "directories_by_names": [
            {"path": show_path(one.path), "names": one.amount} for one in names.by_names
        ],
        "missing_bytes": names.missing_bytes,
        "missing_names": names.missing_names,
    }
