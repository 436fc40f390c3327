"""The jobs of a run: who streams which shard, how each ended, and what that makes of the run.

Covers: the ledger's table of jobs and the verdict over a run.
Does not cover: asking the catalog (bacula_bridge), the receipts themselves.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from shards.errors import ForebayError
from shards.ledger import Ledger, Run
from shards.ledger_schema import JobState, RunState
from shards.throughput import Series, stream_recorded

# What Bacula's catalog calls a good end: terminated normally, or with warnings.
GOOD_STATUSES = frozenset({"T", "W"})


class ShardTaken(ForebayError):
    """A shard goes to one job of a run."""

    template = "shard {0} of run {1} is already served to JobId {2}; wait until that job has ended"


class StreamOver(ForebayError):
    """A job has one stream; when it breaks, the job fails."""

    template = "the stream of JobId {0} has broken: {1}; run the job again"


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What one job's receipts add up to."""

    files: int = 0  # names that are not directories: saved whole or with a warning, links included
    directories: int = 0
    links: int = 0  # names saved as a hard link to the first name of their inode
    skipped: int = 0  # sockets
    warnings: int = 0  # entries that stay due
    size_bytes: int = 0  # bytes of file data sent
    deleted: int = 0  # names sent as deleted
    stubs: int = 0  # files saved without their data, which HSM has released; they stay due


@dataclass(frozen=True, slots=True)
class ReceiptsInfo:
    """A job's durable receipts file."""

    name: str
    size_bytes: int
    checksum: int
    summary: StreamSummary
    series: Series | None = field(default=None, compare=False)  # only on its way to the ledger


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One Bacula job of one shard."""

    run: int
    shard: int
    jobid: int
    job: str
    state: JobState
    status: str
    files: int
    size_bytes: int
    started: float
    ended: float | None
    receipts: ReceiptsInfo | None
    reason: str | None = None
    level: str = ""  # F, D or I, as the Director ran it; empty: it never asked for its stream
    chain: tuple[int, ...] = ()  # JobIds that it builds on, oldest first
    note: str = ""  # what its job log was told about how it works

    @property
    def summary(self) -> StreamSummary:
        """What its receipts add up to; nothing while they are not durable."""
        return self.receipts.summary if self.receipts else StreamSummary()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a job is when it takes its shard."""

    jobid: int
    job: str
    level: str
    chain: tuple[int, ...] = ()
    note: str = ""
    again: bool = False  # it may have the shard already: the answer to its first question was lost


@dataclass(frozen=True, slots=True)
class CatalogEnd:
    """How the catalog says that a job ended."""

    status: str  # Bacula's JobStatus letter
    files: int
    size_bytes: int
    started: float
    ended: float


class ShardJobs:
    """The jobs' part of the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def adopt(self, epoch: int) -> None:
        """Let streams that another epoch's coordinator accepted go on under this one."""
        with self._ledger.transaction() as db:
            db.execute("UPDATE jobs SET epoch = ? WHERE state = 'streaming'", (epoch,))

    def claim(self, run: int, shard: int, claim: Claim, epoch: int) -> None:
        """Give a shard to a job; ShardTaken while another one has it or has saved it.

        A job that asks once more, because the answer to its first question was lost, has it still.
        """
        jobid = claim.jobid
        with self._ledger.transaction() as db:
            row = db.execute(
                "SELECT jobid, job, state FROM jobs WHERE run = ? AND shard = ? AND state != 'bad'",
                (run, shard),
            ).fetchone()
            if row and claim.again and tuple(row) == (jobid, claim.job, "streaming"):
                return
            if row:
                raise ShardTaken(shard, run, row[0])
            row = db.execute(
                "SELECT reason FROM jobs WHERE run = ? AND shard = ? AND jobid = ?",
                (run, shard, jobid),
            ).fetchone()
            if row:
                raise StreamOver(jobid, row[0])
            db.execute(
                "INSERT INTO jobs"
                " (run, shard, jobid, job, level, chain, note, epoch, state, started)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'streaming', ?)",
                (
                    run,
                    shard,
                    jobid,
                    claim.job,
                    claim.level,
                    json.dumps(claim.chain),
                    claim.note,
                    epoch,
                    time.time(),
                ),
            )

    def streamed(
        self, run: int, shard: int, jobid: int, epoch: int, receipts: ReceiptsInfo
    ) -> None:
        """Record that a job's receipts are durable; only then may the job end well."""
        with self._ledger.transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'streamed', receipts = ?, receipts_bytes = ?,"
                " receipts_checksum = ?, summary = ?"
                " WHERE run = ? AND shard = ? AND jobid = ? AND epoch = ? AND state = 'streaming'",
                (
                    receipts.name,
                    receipts.size_bytes,
                    receipts.checksum,
                    _summary_json(receipts.summary),
                    run,
                    shard,
                    jobid,
                    epoch,
                ),
            ).rowcount
            if changed != 1 and not self._is_known(run, shard, jobid, receipts):
                raise ForebayError(
                    f"JobId {jobid} no longer streams shard {shard} of run {run}: its receipts"
                    " do not count"
                )
            stream_recorded(db, run, shard, jobid, receipts.series)

    def _is_known(self, run: int, shard: int, jobid: int, receipts: ReceiptsInfo) -> bool:
        """Tell whether just these receipts have been recorded already: the answer got lost."""
        rows = self._ledger.query(
            "SELECT 1 FROM jobs WHERE run = ? AND shard = ? AND jobid = ? AND receipts = ?"
            " AND receipts_checksum = ? AND state IN ('streamed', 'good')",
            (run, shard, jobid, receipts.name, receipts.checksum),
        )
        return bool(rows)

    def broken(self, run: int, shard: int, jobid: int, reason: str) -> None:
        """Record that a stream ended before its end; a job that has streamed is left alone."""
        with self._ledger.transaction() as db:
            db.execute(
                "UPDATE jobs SET state = 'bad', reason = ?, ended = ?"
                " WHERE run = ? AND shard = ? AND jobid = ? AND state = 'streaming'",
                (reason, time.time(), run, shard, jobid),
            )

    def ended(self, run: int, shard: int, jobid: int, job: str, end: CatalogEnd) -> ShardJob:
        """Record what the catalog shows. Good takes both: a good status and durable receipts."""
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT INTO jobs"
                " (run, shard, jobid, job, level, chain, note, epoch, state, started, reason)"
                " VALUES (?, ?, ?, ?, '', '[]', '', 0, 'bad', ?,"
                " 'the job ended before it asked for its stream')"
                " ON CONFLICT DO NOTHING",
                (run, shard, jobid, job, end.started),
            )
            good = end.status in GOOD_STATUSES
            db.execute(
                "UPDATE jobs SET status = ?, files = ?, bytes = ?, started = ?, ended = ?,"
                " state = CASE WHEN ? AND state IN ('streamed', 'good') THEN 'good' ELSE 'bad' END,"
                " reason = CASE WHEN ? THEN reason"
                "  ELSE COALESCE(reason, 'the catalog shows status ' || ?) END"
                " WHERE run = ? AND shard = ? AND jobid = ?",
                (
                    end.status,
                    end.files,
                    end.size_bytes,
                    end.started,
                    end.ended,
                    good,
                    good,
                    end.status,
                    run,
                    shard,
                    jobid,
                ),
            )
        return next(job for job in self.jobs(run) if job.jobid == jobid and job.shard == shard)

    def find(self, jobid: int, job: str) -> ShardJob | None:
        """Return a job by its JobId and unique name."""
        rows = self._ledger.query("SELECT * FROM jobs WHERE jobid = ? AND job = ?", (jobid, job))
        return _job(rows[-1]) if rows else None

    def jobs(self, run: int) -> list[ShardJob]:
        """Return all jobs of a run, by shard, then by JobId."""
        rows = self._ledger.query("SELECT * FROM jobs WHERE run = ? ORDER BY shard, jobid", (run,))
        return [_job(row) for row in rows]


def verdict(run: Run, jobs: Sequence[ShardJob]) -> tuple[RunState, str | None]:
    """Say what a run is once all its jobs have ended, and why it is no more."""
    good = {job.shard for job in jobs if job.state is JobState.GOOD}
    missing = [shard for shard in range(run.shards) if shard not in good]
    if missing:
        reasons = {job.shard: job.reason for job in jobs if job.reason}
        told = "; ".join(
            f"shard {shard}: {reasons.get(shard) or 'no job saved it'}" for shard in missing
        )
        return (RunState.INCOMPLETE if good else RunState.FAILED), told
    if run.scan_ended is None:
        return RunState.FAILED, "the scan did not end"
    warned = any(job.summary.warnings or job.status == "W" for job in jobs if job.shard in good)
    return (RunState.WARNINGS if warned else RunState.COMPLETE), None


def _summary_json(summary: StreamSummary) -> str:
    return json.dumps({name: getattr(summary, name) for name in StreamSummary.__slots__})


def _job(row: sqlite3.Row) -> ShardJob:
    receipts = None
    if row["receipts"]:
        receipts = ReceiptsInfo(
            row["receipts"],
            row["receipts_bytes"],
            row["receipts_checksum"],
            StreamSummary(**json.loads(row["summary"])),
        )
    return ShardJob(
        row["run"],
        row["shard"],
        row["jobid"],
        row["job"],
        JobState(row["state"]),
        row["status"],
        row["files"],
        row["bytes"],
        row["started"],
        row["ended"],
        receipts,
        row["reason"],
        row["level"],
        tuple(json.loads(row["chain"])),
        row["note"],
    )
