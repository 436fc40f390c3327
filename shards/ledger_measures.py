"""What the run ledger says, as metrics.

Covers: datasets, the newest run of each, the last ones that ended, leases, jobs, epochs; read
through a connection of its own, so that whoever writes the ledger never waits for it.
Does not cover: what walkers and bridges know and the ledger does not (their own measures).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from shards.ledger import Ledger, Run
from shards.ledger_schema import JobState, RunState
from shards.measures import Sample
from shards.shard_jobs import ShardJob, ShardJobs

GOOD_RUNS = (RunState.COMPLETE, RunState.WARNINGS)
LEASE_STATES = ("open", "done", "lost")
PENDING_MAX = 1_000_000  # counted at most: 10^9 rows would take minutes


class LedgerMeasures:
    """Samples a ledger. What an ended run came to is computed once."""

    def __init__(self, path: Path, datasets: Collection[str] | None = None) -> None:
        """datasets: those that are configured, no others; None: all that the ledger has."""
        self._path = path
        self._datasets = datasets
        self._ended: dict[str, tuple[object, list[Sample]]] = {}  # by dataset

    def samples(self) -> list[Sample]:
        """Return what the ledger says now; nothing while there is none."""
        if not self._path.exists():
            return []
        with closing(Ledger(self._path, read_only=True)) as ledger:
            return list(self._samples(ledger))

    def _samples(self, ledger: Ledger) -> Iterator[Sample]:
        for row in ledger.query("SELECT role, epoch FROM roles"):
            yield Sample("forebay_actor_starts_total", row["epoch"], (row["role"],))
        held = _counts(
            ledger.query(
                "SELECT dataset, count(*) FROM snapshots JOIN runs ON runs.number = run"
                " GROUP BY dataset"
            )
        )
        for dataset in ledger.datasets():
            name = dataset.name
            if self._datasets is not None and name not in self._datasets:
                continue  # nobody backs it up any more, and its age is no news
            runs = ledger.runs(name)
            yield Sample("forebay_dataset_shards", dataset.shards, (name,))
            yield Sample("forebay_snapshots", held.get(name, 0), (name,))
            for state in RunState:
                count = sum(run.state is state for run in runs)
                yield Sample("forebay_runs", count, (name, state.value))
            yield from _open_run(ledger, name, runs)
            yield from _positions(name, runs)
            if runs and runs[0].state is RunState.OPEN:
                yield from _newest(ledger, runs[0])
            ended = [run for run in runs if run.ended is not None]
            if ended:
                run = max(ended, key=lambda run: run.ended or 0.0)
                yield from self._last(ledger, run, is_newest=run is runs[0])

    def _last(self, ledger: Ledger, run: Run, *, is_newest: bool) -> list[Sample]:
        key = (run.number, run.ended, is_newest)
        if run.dataset not in self._ended or self._ended[run.dataset][0] != key:
            found = list(_last_run(run, ShardJobs(ledger).jobs(run.number)))
            if is_newest:
                found += _newest(ledger, run)
            self._ended[run.dataset] = key, found
        return self._ended[run.dataset][1]


def _counts(rows: list[sqlite3.Row]) -> dict[Any, int]:
    return {row[0]: row[1] for row in rows}


def _open_run(ledger: Ledger, name: str, runs: list[Run]) -> Iterator[Sample]:
    run = next((run for run in runs if run.state is RunState.OPEN), None)
    since = 0.0 if run is None else max(0.0, time.time() - run.started)
    yield Sample("forebay_run_open", run is not None, (name,))
    yield Sample("forebay_run_open_seconds", since, (name,))
    is_scanning = run is not None and run.scan_ended is None
    yield Sample("forebay_run_scanning", is_scanning, (name,))
    number = run.number if run is not None else -1
    pending = _counts(
        ledger.query(
            "SELECT target, count(*) FROM"
            " (SELECT target FROM directories WHERE run = ? LIMIT ?) GROUP BY target",
            (number, PENDING_MAX),
        )
    )
    for target in sorted({0, *pending}):
        labels = (name, str(target))
        yield Sample("forebay_pending_directories", pending.get(target, 0), labels)
    ((names,),) = ledger.query(
        "SELECT count(*) FROM (SELECT 1 FROM names WHERE run = ? AND state = 'free' LIMIT ?)",
        (number, PENDING_MAX),
    )
    yield Sample("forebay_pending_names", names, (name,))


def _positions(name: str, runs: list[Run]) -> Iterator[Sample]:
    good = [run for run in runs if run.state in GOOD_RUNS]
    newest = max((run.started for run in good), default=0.0)
    yield Sample("forebay_last_good_backup_timestamp_seconds", newest, (name,))
    placed = [run for run in good if run.position is not None]
    if placed:
        run = max(placed, key=lambda run: run.started)
        assert run.position is not None
        labels = (name, run.position.source)
        yield Sample("forebay_change_position_timestamp_seconds", run.started, labels)
    gaps = sum(run.level != "full" and run.since is None for run in runs)
    yield Sample("forebay_change_gaps_total", gaps, (name,))


def _newest(ledger: Ledger, run: Run) -> Iterator[Sample]:
    name = run.dataset
    leases = _counts(
        ledger.query(
            "SELECT state, count(*) FROM leases WHERE run = ? GROUP BY state", (run.number,)
        )
    )
    for state in LEASE_STATES:
        yield Sample("forebay_leases", leases.get(state, 0), (name, state))
    ((segments, rows, size_bytes),) = ledger.query(
        "SELECT count(*), COALESCE(SUM(rows), 0), COALESCE(SUM(size_bytes), 0)"
        " FROM segments WHERE run = ?",
        (run.number,),
    )
    yield Sample("forebay_run_segments", segments, (name,))
    yield Sample("forebay_run_entries", rows, (name,))
    yield Sample("forebay_run_segment_bytes", size_bytes, (name,))
    jobs = ShardJobs(ledger).jobs(run.number)
    for state in JobState:
        count = sum(job.state is state for job in jobs)
        yield Sample("forebay_run_jobs", count, (name, state.value))


def _last_run(run: Run, jobs: list[ShardJob]) -> Iterator[Sample]:
    name, ended = (run.dataset,), run.ended or run.started
    good = [job.summary for job in jobs if job.state is JobState.GOOD]
    warnings = sum(job.summary.warnings for job in jobs)
    values = {
        "good": run.state in GOOD_RUNS,
        "duration_seconds": ended - run.started,
        "scan_seconds": max(0.0, (run.scan_ended or ended) - run.started),
        "files": sum(summary.files for summary in good),
        "bytes": sum(summary.size_bytes for summary in good),
        "deleted": sum(summary.deleted for summary in good),
        "warnings": warnings,
        "due_entries": warnings + sum(job.summary.stubs for job in jobs),
    }
    for what, value in values.items():
        yield Sample(f"forebay_last_run_{what}", value, name)
