"""Reading what has been: runs, their jobs, the names that need attention.

Covers: the ledger opened for reading, runs by number or `latest`, JSON forms.
Does not cover: printing (commands), changing anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from bacula_bridge.coordinator import UnknownRun
from cluster.output import show_path
from cluster.settings import Settings
from shards.errors import UsageError
from shards.ledger import Dataset, Ledger, Run, ScanTotals
from shards.ledger_schema import HsmPolicy, JobState, RunState
from shards.receipts import read_receipts
from shards.schema import WARNING_STATUSES, ReceiptStatus, RowClass, RowFlag
from shards.segment import SegmentStore
from shards.shard_jobs import ShardJob, ShardJobs

LATEST = "latest"
GOOD_RUNS = (RunState.COMPLETE, RunState.WARNINGS)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run with all that the ledger says of it."""

    run: Run
    scan: ScanTotals
    jobs: tuple[ShardJob, ...]
    is_newest: bool  # of its dataset: only such a run can be resumed
    is_pruned: bool  # its manifest and receipts are no more
    is_imported: bool = False  # from an archive: it cannot be resumed

    @property
    def how_to_go_on(self) -> str | None:
        """Say what makes an incomplete run whole, or the next best thing."""
        run = self.run
        if run.state not in (RunState.INCOMPLETE, RunState.FAILED):
            return None
        if self.is_imported and self.is_newest:
            return "it came from an archive and cannot be resumed: make a new backup"
        if self.is_newest and not self.is_pruned:
            return (
                f"to save what is missing from the same scan: forebay backup --resume {run.number}"
            )
        return f"a newer run of {run.dataset} has begun: it saves what is missing here"

    @property
    def saved_jobs(self) -> list[ShardJob]:
        """The good job of each shard that has one."""
        return [job for job in self.jobs if job.state is JobState.GOOD]


@dataclass(frozen=True, slots=True)
class Attention:
    """A name that was not saved as it is."""

    path: bytes
    status: ReceiptStatus
    error: int
    shard: int


def datasets(settings: Settings) -> list[Dataset]:
    """Return all datasets."""
    if not settings.state.readable_ledger.exists():
        return []
    with closing(Ledger(settings.state.readable_ledger, read_only=True)) as ledger:
        return ledger.datasets()


def hsm_policy(settings: Settings, name: str) -> HsmPolicy:
    """Return what becomes of a dataset's files that HSM has released."""
    if not settings.state.readable_ledger.exists():
        return HsmPolicy.SKIP
    with closing(Ledger(settings.state.readable_ledger, read_only=True)) as ledger:
        return ledger.hsm(name)


def list_runs(settings: Settings, name: str | None = None) -> list[RunRecord]:
    """Return runs, newest first; UsageError for an unknown dataset."""
    if not settings.state.readable_ledger.exists():
        if name is not None:
            raise _unknown_dataset(name, [])
        return []
    with closing(Ledger(settings.state.readable_ledger, read_only=True)) as ledger:
        if name is not None and ledger.dataset(name) is None:
            raise _unknown_dataset(name, ledger.datasets())
        return _records(settings, ledger, ledger.runs(name))


def find_run(settings: Settings, run: str, name: str | None = None) -> RunRecord:
    """Return a run by number, or the latest good one of a dataset."""
    records = list_runs(settings, name)
    if run == LATEST:
        return _latest(records, name)
    if not run.isdecimal():
        raise UsageError(f"{run} is not a run: give its number or '{LATEST}'")
    for record in records:
        if record.run.number == int(run):
            return record
    raise UnknownRun(run)


def _latest(records: list[RunRecord], name: str | None) -> RunRecord:
    good = [record for record in records if record.run.state in GOOD_RUNS]
    if not good:
        whose = f"dataset {name}" if name else "any dataset"
        raise UsageError(f"there is no good run of {whose}; `forebay runs` lists what there is")
    names = sorted({record.run.dataset for record in good})
    if name is None and len(names) > 1:
        raise UsageError(f"there are several datasets ({', '.join(names)}); choose with --name")
    return good[0]


def attention(settings: Settings, record: RunRecord) -> Iterator[Attention]:
    """Yield the names of a run that were not saved as they are, shard by shard."""
    wanted = np.array(sorted(WARNING_STATUSES), dtype=np.uint32)
    for job in record.jobs:
        if job.receipts is None or record.is_pruned:
            continue
        folder = settings.state.receipts(record.run.number)
        for batch in read_receipts(folder, job.receipts):
            status = batch.column("status").to_numpy()
            for row in np.flatnonzero(np.isin(status, wanted)).tolist():
                yield Attention(
                    batch.column("path")[row].as_py(),
                    ReceiptStatus(int(status[row])),
                    batch.column("error")[row].as_py(),
                    job.shard,
                )


def mount_points(settings: Settings, record: RunRecord) -> Iterator[bytes]:
    """Yield the paths at which other filesystems are mounted; they are not part of the run."""
    if not record.scan.mount_points or record.is_pruned:
        return
    store = SegmentStore(settings.state.segments(record.run.number))
    with closing(Ledger(settings.state.readable_ledger, read_only=True)) as ledger:
        after = 0
        while page := ledger.segments(record.run.number, after):
            after = page[-1].number
            for info, shard in itertools.product(page, range(record.run.shards)):
                for row_class in (RowClass.PLAIN, RowClass.LINKED, RowClass.DIRECTORY):
                    batch = store.rows(info, shard, row_class)
                    flags = batch.column("flags").to_numpy() & RowFlag.MOUNT_POINT
                    for row in np.flatnonzero(flags).tolist():
                        yield batch.column("path")[row].as_py()


def run_json(record: RunRecord) -> dict[str, Any]:
    """Return a run as JSON says it."""
    run = record.run
    jobs = record.saved_jobs
    return {
        "run": run.number,
        "dataset": run.dataset,
        "root": show_path(run.root),
        "level": run.level,
        "state": run.state.value,
        "reason": run.reason,
        "note": run.note,
        "pruned": record.is_pruned,
        "resume": record.how_to_go_on,
        "shards": run.shards,
        "started": run.started,
        "ended": run.ended,
        "seconds": round((run.ended or run.started) - run.started, 3),
        "scanned": {
            "inodes": record.scan.inodes,
            "directories": record.scan.directories,
            "bytes": record.scan.size_bytes,
            "errors": record.scan.errors,
            "mount_points": record.scan.mount_points,
        },
        "files": sum(job.summary.files for job in jobs),
        "directories": sum(job.summary.directories for job in jobs),
        "bytes": sum(job.summary.size_bytes for job in jobs),
        "skipped": sum(job.summary.skipped for job in jobs),
        "stubs": sum(job.summary.stubs for job in jobs),
        "warnings": sum(job.summary.warnings for job in record.jobs),
        "jobs": [job_json(job) for job in record.jobs],
    }


def job_json(job: ShardJob) -> dict[str, Any]:
    """Return a job as JSON says it."""
    return {
        "job": job.job,
        "jobid": job.jobid,
        "shard": job.shard,
        "level": job.level,
        "chain": list(job.chain),
        "note": job.note,
        "status": job.status,
        "state": job.state.value,
        "files": job.files,
        "bytes": job.size_bytes,
        "warnings": job.summary.warnings,
        "started": job.started,
        "ended": job.ended,
        "reason": job.reason,
    }


def _records(settings: Settings, ledger: Ledger, runs: list[Run]) -> list[RunRecord]:
    newest = {run.dataset: run.number for run in reversed(runs)}
    return [
        RunRecord(
            run,
            ledger.scan_totals(run.number),
            tuple(ShardJobs(ledger).jobs(run.number)),
            is_newest=run.number == newest[run.dataset],
            is_pruned=not settings.state.run(run.number).exists(),
            is_imported=ledger.is_imported(run.number),
        )
        for run in runs
    ]


def _unknown_dataset(name: str, known: list[Dataset]) -> UsageError:
    names = ", ".join(dataset.name for dataset in known) or "none yet"
    return UsageError(f"there is no dataset {name} (known: {names})")
