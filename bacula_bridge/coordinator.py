"""The coordinator: who walks what, which run a job joins, when a run has ended.

Covers: every question that walkers, bridges and the command line ask, answered from the ledger,
and waiting for news. Safe for many threads.
Does not cover: the actor round it (actors), the ledger's own rules (shards).
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from bacula_bridge.protocol import Accept, Hello
from bacula_bridge.source import Joined, JoinRefused, SegmentPage
from shards.errors import ForebayError, UsageError
from shards.ledger import Dataset, Lease, LeaseResult, Ledger, Run, ScanTotals
from shards.ledger_schema import RunState
from shards.shard_jobs import (
    CatalogEnd,
    ReceiptsInfo,
    ShardJob,
    ShardJobs,
    ShardTaken,
    StreamOver,
    verdict,
)
from shards.state import StateDirectory

ROLE = "coordinator"
LEVEL_FULL = "F"


class UnknownRun(UsageError):
    """There is no such run."""

    template = "there is no run {0}; `forebay runs` lists them"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as it stands, for a progress display."""

    run: Run
    scan: ScanTotals
    jobs: tuple[ShardJob, ...]


class Coordinator:
    """One per ledger. Every change is committed there before anybody is told."""

    def __init__(self, state: StateDirectory) -> None:
        state.make()
        self._state = state
        self._ledger = Ledger(state.ledger)
        self._jobs = ShardJobs(self._ledger)
        self._news = threading.Condition()
        self._closed = False
        self._refusals: dict[int, str] = {}  # open runs whose scan cannot go on
        self._epoch = self._ledger.take_epoch(ROLE)
        self._end_abandoned_runs()

    def _end_abandoned_runs(self) -> None:
        for run in self._ledger.runs():
            if run.state is RunState.OPEN:
                self._ledger.end_run(
                    run.number, RunState.FAILED, "Forebay ended before this run did"
                )

    def close(self) -> None:
        """Let waiters go and release the ledger."""
        with self._news:
            self._closed = True
            self._news.notify_all()
            self._ledger.close()

    # Datasets and runs

    def define_dataset(self, name: str, filesystem: str, root: bytes, shards: int) -> Dataset:
        """Create a dataset or change its number of shards; its root is for ever."""
        with self._news:
            known = self._ledger.dataset(name)
            if known is None:
                # SQLite has no unsigned integers and the ledger stores all 64 bits.
                seed = secrets.randbits(64)
                self._ledger.put_dataset(Dataset(name, filesystem, root, shards, seed))
            elif known.root != root:
                raise UsageError(
                    f"dataset {name} is {known.root.decode('utf-8', 'backslashreplace')};"
                    " give another --name for another directory"
                )
            elif known.shards != shards:
                self._ledger.set_shards(name, shards)
            dataset = self._ledger.dataset(name)
        assert dataset is not None
        return dataset

    def open_run(self, dataset: str, level: str) -> Run:
        """Open a run; the walkers find its root among the pending directories."""
        with self._news:
            run = self._ledger.begin_run(dataset, level)
            self._state.make_run(run.number)
            self._news.notify_all()
        return run

    def end_run(self, number: int) -> Run:
        """Close a run by what its jobs came to."""
        with self._news:
            run = self._ledger.run(number)
            if run is None:
                raise UnknownRun(number)
            state, reason = verdict(run, self._jobs.jobs(number))
            self._ledger.end_run(number, state, self._refusals.pop(number, None) or reason)
            self._remove_leftovers(number)
            self._news.notify_all()
            ended = self._ledger.run(number)
        assert ended is not None
        return ended

    def fail_run(self, number: int, reason: str) -> None:
        """Stop a run's scan; its streams break with the reason."""
        with self._news:
            self._refusals[number] = reason
            self._news.notify_all()

    def status(self, number: int) -> RunStatus:
        with self._news:
            run = self._ledger.run(number)
            if run is None:
                raise UnknownRun(number)
            return RunStatus(run, self._ledger.scan_totals(number), tuple(self._jobs.jobs(number)))

    def job_ended(self, run: int, shard: int, jobid: int, job: str, end: CatalogEnd) -> ShardJob:
        """Record what the catalog shows of a job."""
        with self._news:
            return self._jobs.ended(run, shard, jobid, job, end)

    def _remove_leftovers(self, number: int) -> None:
        named: set[str] = set()
        after = 0
        while page := self._ledger.segments(number, after):
            named.update(info.name for info in page)
            after = page[-1].number
        folder = self._state.segments(number)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in named:
                path.unlink(missing_ok=True)

    # Walkers

    def take_epoch(self, role: str) -> int:
        """Give a starting actor its epoch; leases of its predecessor are pending again."""
        with self._news:
            epoch = self._ledger.take_epoch(role)
            self._news.notify_all()
        return epoch

    def take_lease(self, target: int, role: str, epoch: int, wait_s: float) -> Lease | None:
        """Lease directories of a target, waiting up to wait_s for some."""
        with self._news:
            self._news.wait_for(lambda: self._closed or self._has_work(target), timeout=wait_s)
            if self._closed:
                return None
            return self._ledger.take_lease(target, role, epoch)

    def _has_work(self, target: int) -> bool:
        return bool(
            self._ledger.query(
                "SELECT 1 FROM directories JOIN runs ON runs.number = run"
                " WHERE lease IS NULL AND target = ? AND state = 'open' LIMIT 1",
                (target,),
            )
        )

    def commit_lease(self, number: int, role: str, epoch: int, result: LeaseResult) -> None:
        """Make what was found under a lease exist."""
        with self._news:
            self._ledger.commit_lease(number, role, epoch, result)
            self._news.notify_all()

    # Streams: RunSource

    def join(self, hello: Hello) -> Joined:
        """Give a job its shard of the dataset's open run."""
        with self._news:
            run = self._joinable(hello)
            try:
                self._jobs.claim(run.number, hello.shard, hello.jobid, hello.job, self._epoch)
            except (ShardTaken, StreamOver) as error:
                raise JoinRefused(str(error)) from error
        accept = Accept(run.number, self._epoch, f"{run.dataset}.{run.number}", run.root)
        return Joined(accept, run.seed)

    def _joinable(self, hello: Hello) -> Run:
        dataset = self._ledger.dataset(hello.dataset)
        if dataset is None:
            known = ", ".join(d.name for d in self._ledger.datasets()) or "none"
            raise JoinRefused(
                f"there is no dataset {hello.dataset} (known: {known}); correct dataset= in the"
                " FileSet's Plugin line"
            )
        if hello.shards != dataset.shards or not 0 <= hello.shard < hello.shards:
            raise JoinRefused(
                f"dataset {dataset.name} has {dataset.shards} shards, numbered from 0; the"
                f" FileSet asks for shard {hello.shard}/{hello.shards}"
            )
        if hello.level != LEVEL_FULL:
            raise JoinRefused(
                f"level {hello.level} is not supported by this version; run the job with level=Full"
            )
        run = self._ledger.open_run(dataset.name)
        if run is None:
            raise JoinRefused(
                f"dataset {dataset.name} has no open run; start one with `forebay backup`"
            )
        return run

    def segments(self, run: int, after: int, wait_s: float) -> SegmentPage:
        """Return segments committed after a number, waiting up to wait_s for news."""

        def page() -> SegmentPage:
            # The order matters: what is committed before the scan ends is seen before its end.
            row = None if self._closed else self._ledger.run(run)
            if row is None or row.state is not RunState.OPEN:
                return SegmentPage((), False, f"run {run} is not open any more")
            ended = row.scan_ended is not None
            infos = tuple(self._ledger.segments(run, after))
            return SegmentPage(infos, ended, self._refusals.get(run))

        def news() -> bool:
            nonlocal current
            current = page()
            return bool(current.infos or current.scan_ended or current.refusal)

        current = SegmentPage((), False)
        with self._news:
            self._news.wait_for(news, timeout=wait_s)
        return current

    def streamed(self, run: int, shard: int, jobid: int, receipts: ReceiptsInfo) -> None:
        """Record durable receipts."""
        with self._news:
            self._jobs.streamed(run, shard, jobid, self._epoch, receipts)

    def broken(self, run: int, shard: int, jobid: int, reason: str) -> None:
        """Record that a stream ended before its end."""
        with self._news:
            if self._closed:
                raise ForebayError("the coordinator has been closed")
            self._jobs.broken(run, shard, jobid, reason)
