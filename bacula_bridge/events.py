"""What the log is told of runs and jobs: one line an event, with run, dataset, shard and JobId.

Covers: the events' sentences, levels and fields.
Does not cover: where the lines go (actors.logs).
"""

from __future__ import annotations

import logging

from bacula_bridge.protocol import Hello
from shards.ledger import Ledger, Run
from shards.ledger_schema import JobState, RunState
from shards.shard_jobs import ReceiptsInfo, ShardJob

_COORDINATOR = logging.getLogger("forebay.coordinator")
_BRIDGE = logging.getLogger("forebay.bridge")
_CLOSED = {RunState.COMPLETE: logging.INFO, RunState.WARNINGS: logging.WARNING}


class RunEvents:
    """The coordinator's events. Its callers hold the coordinator's lock: the ledger is asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def epoch(self, role: str, epoch: int) -> None:
        """An actor has started, or started again: leases of the one before are pending again."""
        _COORDINATOR.info("%s starts with epoch %d", role, epoch)

    def opened(self, run: Run) -> None:
        how = f"{run.level}; {run.note}" if run.note else run.level
        _say(logging.INFO, run, f"run {run.number} of {run.dataset} opened: {how}")

    def reopened(self, run: Run) -> None:
        _say(logging.INFO, run, f"run {run.number} of {run.dataset} opened again: {run.level}")

    def closed(self, run: Run | None) -> None:
        """Say the verdict; a run that is no backup is an error."""
        assert run is not None, "it was closed in the ledger before"
        verdict = f"{run.state.value}: {run.reason}" if run.reason else run.state.value
        level = _CLOSED.get(run.state, logging.ERROR)
        _say(level, run, f"run {run.number} of {run.dataset} closed: {verdict}")

    def scan_failed(self, run: int, reason: str) -> None:
        self._say(logging.ERROR, run, f"run {run} cannot go on: {reason}")

    def joined(self, run: Run, hello: Hello, note: str) -> None:
        told = f"JobId {hello.jobid} ({hello.job}) joined run {run.number} of {run.dataset}"
        shard = f"shard {hello.shard}/{hello.shards}, level {hello.level}"
        said = f"{told}: {shard}{f'; {note}' if note else ''}"
        _say(logging.INFO, run, said, hello.shard, hello.jobid)

    def streamed(self, run: int, shard: int, jobid: int, receipts: ReceiptsInfo) -> None:
        summary = receipts.summary
        told = (
            f"{summary.files:,} files, {summary.size_bytes:,} bytes, {summary.warnings:,} warned of"
        )
        said = f"JobId {jobid} has streamed shard {shard}: {told}"
        self._say(logging.INFO, run, said, shard, jobid)

    def broken(self, run: int, shard: int, jobid: int, reason: str) -> None:
        self._say(logging.ERROR, run, f"the stream of JobId {jobid} broke: {reason}", shard, jobid)

    def ended(self, job: ShardJob) -> None:
        """Say what the catalog shows; a job that does not count is an error."""
        said = f"JobId {job.jobid} ended with status {job.status}"
        if job.state is not JobState.GOOD:
            said += f" and does not count: {job.reason or 'its receipts are not durable'}"
        level = logging.INFO if job.state is JobState.GOOD else logging.ERROR
        self._say(level, job.run, said, job.shard, job.jobid)

    def settled(self, job: ShardJob, how: str) -> None:
        """A Forebay that was killed left this open."""
        said = f"JobId {job.jobid} of run {job.run} was left open: {how}"
        self._say(logging.WARNING, job.run, said, job.shard, job.jobid)

    def _say(
        self, level: int, run: int, said: str, shard: int | None = None, jobid: int | None = None
    ) -> None:
        if _COORDINATOR.isEnabledFor(level):
            _say(level, self._ledger.run(run), said, shard, jobid)


def _say(
    level: int, run: Run | None, said: str, shard: int | None = None, jobid: int | None = None
) -> None:
    fields = {
        "run": run.number if run else None,
        "dataset": run.dataset if run else None,
        "shard": shard,
        "jobid": jobid,
    }
    _COORDINATOR.log(level, "%s", said, extra=fields)


def refused_job(hello: Hello | None, reason: object) -> None:
    """The bridge has refused a job, with the sentence that is in its job log."""
    if hello is None:
        _BRIDGE.error("refused a connection: %s", reason)
        return
    fields = {"dataset": hello.dataset, "shard": hello.shard, "jobid": hello.jobid}
    _BRIDGE.error("refused JobId %d (%s): %s", hello.jobid, hello.job, reason, extra=fields)


def refused_peer(uid: int, why: str) -> None:
    """Somebody connected who may not, or for whom there is no room."""
    _BRIDGE.warning("refused a connection from uid %d: %s", uid, why)


def listening(path: object) -> None:
    _BRIDGE.info("listening on %s", path)


def stopping(path: object, streams: int) -> None:
    """All streams that are left end, and their jobs fail."""
    _BRIDGE.log(
        logging.WARNING if streams else logging.INFO,
        "stopping on %s: %d streams end",
        path,
        streams,
    )
