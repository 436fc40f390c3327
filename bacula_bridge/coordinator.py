"""The coordinator: who walks what, which run a job joins, when a run has ended.

Covers: every question that walkers, bridges and the command line ask, answered from the ledger,
and waiting for news. Safe for many threads.
Does not cover: the actor round it (actors), the ledger's own rules (shards).
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from bacula_bridge.bases import BaseFinder, Bases
from bacula_bridge.catalog import Catalog, JobRow
from bacula_bridge.chain import FULL, LEVELS
from bacula_bridge.errors import CatalogUnavailable
from bacula_bridge.events import RunEvents
from bacula_bridge.protocol import Accept, Hello, Hint
from bacula_bridge.run_keeper import JOIN_POLL_S, LEVEL_NAMES, RunKeeper, ServicePolicy
from bacula_bridge.run_snapshots import RunSnapshots
from bacula_bridge.scoping import FULL_LEVEL, Scoping
from bacula_bridge.source import Joined, JoinLater, JoinRefused, Scope, SegmentPage
from shards.changes import ChangeSource
from shards.errors import UsageError
from shards.lease import TARGETS_MAX, Pacing
from shards.ledger import Dataset, Lease, LeaseResult, Run, ScanTotals
from shards.ledger_files import LedgerCopyFailed
from shards.ledger_home import StateOwned, open_ledger, save_copy
from shards.ledger_schema import HsmPolicy, JobState, RunState
from shards.merkle import receipts_root, run_root
from shards.receipts import ReceiptsDamaged, read_receipts
from shards.shard_jobs import (
    CatalogEnd,
    Claim,
    ReceiptsInfo,
    ShardJob,
    ShardJobs,
    ShardTaken,
    StreamOver,
    verdict,
)
from shards.snapshot import Snapshotter
from shards.state import StateDirectory

ROLE = "coordinator"
_LOG = logging.getLogger("forebay.coordinator")
KILLED = "Forebay ended before this run did"


class UnknownRun(UsageError):
    """There is no such run."""

    template = "there is no run {0}; `forebay runs` lists them"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as it stands, for a progress display."""

    run: Run
    scan: ScanTotals
    jobs: tuple[ShardJob, ...]


def catalog_end(row: JobRow) -> CatalogEnd:
    """Return how the catalog says that a job ended."""
    started = time.mktime(time.strptime(row.start, "%Y-%m-%d %H:%M:%S")) if row.start else 0.0
    return CatalogEnd(row.outcome, row.files, row.bytes, started, row.end_epoch or time.time())


class Coordinator:
    """One per ledger. Every change is committed there before anybody is told."""

    def __init__(
        self,
        state: StateDirectory,
        catalog: Catalog,
        change_source: Callable[[Dataset], ChangeSource | None] = lambda dataset: None,
        targets: int = TARGETS_MAX,
        snapshotter: Snapshotter | None = None,
        service: ServicePolicy | None = None,
    ) -> None:
        """targets: so many metadata targets have a walker. Without a snapshotter runs read live.

        With a service runs open and close by themselves, by what jobs ask and the catalog shows,
        and those that were open when the one before ended go on.
        """
        self._state = state
        self._catalog = catalog
        self._targets = targets
        self._ledger = open_ledger(state)
        self._identity = self._ledger.identity
        self._copying = threading.Lock()
        self._jobs = ShardJobs(self._ledger)
        self._events = RunEvents(self._ledger)
        self._snapshots = RunSnapshots(self._ledger, snapshotter, self._others_may_go_on)
        self._finder = BaseFinder(self._ledger, catalog)
        self._scoping = Scoping(
            self._ledger, state, self._finder, change_source, self._others_may_go_on
        )
        self._news = threading.Condition()
        self._closed = False
        self._refusals: dict[int, str] = {}  # open runs whose scan cannot go on
        self._epoch = self._ledger.take_epoch(ROLE)
        self._events.epoch(ROLE, self._epoch)
        self._keeper: RunKeeper | None = None
        if service is None:
            self._settle_old_runs()
        else:
            self._keeper = RunKeeper(self, self._ledger, catalog, service, self._news, catalog_end)
            self._jobs.adopt(self._epoch)
            self._snapshots.release()

    def _settle_old_runs(self) -> None:
        """Close what a killed Forebay left open, by what the catalog says of its jobs."""
        for run in self._ledger.runs():
            settled = [self._settle(run, job) for job in self._jobs.jobs(run.number)]
            if run.state is RunState.OPEN:
                self._close_run(run.number, KILLED)
            elif any(settled):
                self._close_run(run.number, run.reason)
        self._snapshots.release()

    def _settle(self, run: Run, job: ShardJob) -> bool:
        """Take a job's end from the catalog that nobody was there to see; True if there was one."""
        if job.state is JobState.STREAMING:
            self._jobs.broken(run.number, job.shard, job.jobid, KILLED)
            self._events.settled(job, KILLED)
            return True
        if job.state is not JobState.STREAMED:
            return False
        try:
            row = self._catalog.job(job.jobid)
        except CatalogUnavailable:  # a Bacula that is set up anew has none yet
            return False
        if row is None or row.unique_name != job.job or not row.ended:
            return False  # it may be about to end: the next start looks again
        self._jobs.ended(run.number, job.shard, job.jobid, job.job, catalog_end(row))
        self._events.settled(job, f"the catalog shows status {row.outcome}")
        return True

    def close(self) -> None:
        """Let waiters go and release the ledger."""
        with self._news:
            self._closed = True
            self._news.notify_all()
            self._ledger.close()

    @contextmanager
    def _others_may_go_on(self) -> Iterator[None]:
        """Let go of the lock, which is held once, while a change source takes its time."""
        self._news.release()
        try:
            yield
        finally:
            self._news.acquire()

    # As a service

    def tick(self) -> None:
        """Close runs that are over. CatalogUnavailable: nothing was done that cannot wait."""
        assert self._keeper is not None, "this is no service"
        self._keeper.tick()

    def drain(self, draining: bool = True) -> list[int]:
        """Open no more runs, or some again; return those that are open."""
        with self._news:
            assert self._keeper is not None, "this is no service"
            self._keeper.draining = draining
            return [run.number for run in self._ledger.open_runs()]

    @property
    def draining(self) -> bool:
        """Tell whether no new run is opened."""
        return self._keeper is not None and self._keeper.draining

    def open_runs(self) -> list[RunStatus]:
        """Return the runs that are open, for whoever looks at the service."""
        with self._news:
            return [self.status(run.number) for run in self._ledger.open_runs()]

    def targets_with_work(self) -> list[int]:
        """Return the metadata targets that a walker is needed for."""
        with self._news:
            return [target for target in range(self._targets) if self._has_work(target)]

    def walkers_ended(self) -> None:
        """Let what walkers have leased be pending again: there are none any more."""
        with self._news:
            for row in self._ledger.query("SELECT DISTINCT role FROM leases WHERE state = 'open'"):
                self._ledger.take_epoch(row["role"])
            self._news.notify_all()

    # Datasets and runs

    def define_dataset(
        self,
        name: str,
        filesystem: str,
        root: bytes,
        shards: int,
        pacing: Pacing | None = None,
        hsm: HsmPolicy | None = None,
        snapshot: bool | None = None,
    ) -> Dataset:
        """Create a dataset or change how it is read; its root is for ever.

        What is None stays as it was. snapshot: whether its runs read one.
        """
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
            if pacing is not None:
                self._ledger.set_pacing(name, pacing)
            if hsm is not None and hsm is not self._ledger.hsm(name):
                self._ledger.set_hsm(name, hsm)
            if snapshot is not None:
                self._snapshots.store.want(name, snapshot)
            dataset = self._ledger.dataset(name)
        assert dataset is not None
        return dataset

    def open_run(self, dataset: str, level: str, margin_ns: int = 0) -> Run:
        """Open a run; the walkers find where it looks among what is pending.

        margin_ns is how far apart two changes of a file may be and still have the same ctime.
        """
        with self._news:
            known = self._ledger.dataset(dataset)
            assert known is not None, "it was defined before"
            why_full = self._finder.why_full(known) if level != FULL_LEVEL else None
            if why_full is not None:
                level = FULL_LEVEL
            with self._snapshots.reading(known) as reading:
                beginning = self._scoping.begin(known, level, margin_ns, reading.take)
                if why_full:
                    why = f"it is a full backup instead of an incremental: {why_full}"
                    beginning = dataclasses.replace(beginning, note=why)
                run = self._ledger.begin_run(dataset, level, beginning)
                self._state.make_run(run.number)
                reading.begin(run.number)
            self._events.opened(run)
            self._news.notify_all()
        return run

    def reopen_run(self, number: int) -> Run:
        """Open a run again that was left incomplete, as long as no newer one began."""
        with self._news:
            if (before := self._ledger.run(number)) is None:
                raise UnknownRun(number)
            known = self._ledger.dataset(before.dataset)
            assert known is not None, "runs have datasets"
            with self._snapshots.reading(known) as reading:
                reading.take()
                run = self._ledger.reopen_run(number, self._targets)
                self._refusals.pop(number, None)
                self._state.make_run(run.number)
                reading.begin(run.number, ", taken when the run was resumed")
            self._events.reopened(run)
            if run.scan_ended is not None:  # it may have been killed before it did this
                self._scoping.complete(run.number)
            self._news.notify_all()
        return run

    def end_run(self, number: int, unless: Callable[[], bool] = lambda: False) -> Run:
        """Close a run by what its jobs came to, unless something, asked under the lock, is so."""
        with self._news:
            run = self._ledger.run(number)
            if run is None:
                raise UnknownRun(number)
            if unless():
                return run
            ended = self._close_run(number, self._refusals.pop(number, None))
            self._news.notify_all()
        self.copy_ledger()
        return ended

    def copy_ledger(self) -> None:
        """Copy the ledger to the state directory; call without the lock, for it takes a while.

        A run is as good without it, so that a failure is only said.
        """
        with self._copying:
            try:
                save_copy(self._state, self._identity)
            except (LedgerCopyFailed, StateOwned) as error:
                _LOG.warning("%s", error)

    def _close_run(self, number: int, why: str | None) -> Run:
        run = self._ledger.run(number)
        assert run is not None
        jobs = self._jobs.jobs(number)
        state, reason = verdict(run, jobs)
        merkle = None
        if state in (RunState.COMPLETE, RunState.WARNINGS):
            try:
                merkle = self._merkle(number, jobs)
            except ReceiptsDamaged as error:
                state, reason = RunState.INCOMPLETE, str(error)
        elif why is not None:
            reason = why if reason is None else f"{why} ({reason})"
        self._ledger.end_run(number, state, reason, merkle)
        self._events.closed(self._ledger.run(number))
        self._remove_leftovers(number)
        self._snapshots.release()
        if merkle is not None:
            self._scoping.forget(run)
        ended = self._ledger.run(number)
        assert ended is not None
        return ended

    def _merkle(self, number: int, jobs: list[ShardJob]) -> bytes:
        good = {job.shard: job for job in jobs if job.state is JobState.GOOD}
        folder = self._state.receipts(number)
        return run_root(
            [
                receipts_root(read_receipts(folder, job.receipts))
                for _, job in sorted(good.items())
                if job.receipts is not None
            ]
        )

    def fail_run(self, number: int, reason: str) -> None:
        """Stop a run's scan; its streams break with the reason."""
        with self._news:
            self._refusals[number] = reason
            self._events.scan_failed(number, reason)
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
            ended = self._jobs.ended(run, shard, jobid, job, end)
            self._events.ended(ended)
            return ended

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
        shutil.rmtree(self._state.plans(number), ignore_errors=True)  # can be made again

    # Walkers

    def take_epoch(self, role: str) -> int:
        """Give a starting actor its epoch; leases of its predecessor are pending again."""
        with self._news:
            epoch = self._ledger.take_epoch(role)
            self._events.epoch(role, epoch)
            self._news.notify_all()
        return epoch

    def take_lease(self, target: int, role: str, epoch: int, wait_s: float) -> Lease | None:
        """Lease directories of a target, waiting up to wait_s for some."""
        with self._news:
            self._news.wait_for(lambda: self._closed or self._has_work(target), timeout=wait_s)
            if self._closed:
                return None
            lease = self._ledger.take_lease(target, role, epoch)
            snapshot = self._snapshots.of(lease.run) if lease is not None else None
        if lease is None or snapshot is None:
            return lease
        return dataclasses.replace(lease, read_root=snapshot.root, inode_mask=snapshot.inode_mask)

    def _has_work(self, target: int) -> bool:
        return bool(
            self._ledger.query(
                "SELECT 1 FROM directories JOIN runs ON runs.number = run"
                " WHERE lease IS NULL AND target = ? AND runs.state = 'open' UNION ALL"
                " SELECT 1 FROM names JOIN runs ON runs.number = run"
                " WHERE lease IS NULL AND names.state = 'free' AND runs.state = 'open' LIMIT 1",
                (target,),
            )
        )

    def commit_lease(self, number: int, role: str, epoch: int, result: LeaseResult) -> None:
        """Make what was found under a lease exist."""
        result = result.among(self._targets)
        with self._news:
            run = self._ledger.commit_lease(number, role, epoch, result)
            if run is not None and not result.whole:
                self._scoping.complete(run)
            self._news.notify_all()

    # Streams: RunSource

    def hint(self, hint: Hint) -> None:
        """Take note of what a hook says."""
        job = {"jobid": int(hint.jobid), "job": hint.job}
        if hint.when == "before":
            _LOG.info("JobId %s (%s) begins", hint.jobid, hint.job, extra=job)
        else:
            _LOG.info("JobId %s (%s) ends: %s", hint.jobid, hint.job, hint.status, extra=job)

    def join(self, hello: Hello, again: bool = False) -> Joined:
        """Give a job its shard of the dataset's open run, and what it is compared with.

        again: it asks once more, since the answer was lost.
        """
        placed = self._keeper.placed(hello) if self._keeper is not None else nullcontext()
        with self._news, placed:
            run, found = self._find(hello)
            while (left := found.newest + 1 - time.time()) > 0:
                # Two jobs that end in the same second have no order: this one is to end later.
                self._news.wait(timeout=left)
                run, found = self._find(hello)
            run = self._scoping.check(run, hello, found)
            snapshot = self._snapshots.of(run.number)
            said = (self._note(run, hello, found), self._snapshots.said(run.number))
            note = "; ".join(filter(None, said))
            chain = tuple(row.job_id for row in found.chain)
            claim = Claim(hello.jobid, hello.job, hello.level, chain, note, again)
            try:
                self._jobs.claim(run.number, hello.shard, claim, self._epoch)
            except (ShardTaken, StreamOver) as error:
                raise JoinRefused(str(error)) from error
            self._events.joined(run, hello, note)
            self._news.notify_all()
        name = f"{run.dataset}.{run.number}"
        accept = Accept(run.number, self._epoch, name, run.root, note=note)
        if snapshot is not None:
            accept = dataclasses.replace(
                accept,
                read_root=snapshot.root,
                inode_mask=snapshot.inode_mask,
                snapshot_ns=snapshot.time_ns,
            )
        return Joined(accept, run.seed, run.shards, run.margin_ns, found.base)

    def _find(self, hello: Hello) -> tuple[Run, Bases]:
        run = self._joinable(hello)
        try:
            return run, self._finder.find(run, hello)
        except CatalogUnavailable as error:
            if self._keeper is None:
                raise
            self._news.wait(timeout=JOIN_POLL_S)
            raise JoinLater(str(error)) from error

    def _note(self, run: Run, hello: Hello, found: Bases) -> str:
        if hello.level == FULL:
            return run.note or ""
        listed = ", ".join(str(row.job_id) for row in found.chain)
        kind = f"{LEVEL_NAMES[hello.level]} on JobId {listed}"
        if run.since is None:
            return f"{kind}; the whole tree is looked at: {run.note}"
        return f"{kind}; only what {run.since.source} reports since is looked at"

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
        if hello.level not in LEVELS:
            raise JoinRefused(
                f"level {hello.level} is unknown; use Full, Differential or Incremental"
            )
        run = self._ledger.open_run(dataset.name)
        if run is None:
            raise JoinRefused(
                f"dataset {dataset.name} has no open run; start one with `forebay backup`"
            )
        if hello.shards != run.shards:
            raise JoinRefused(
                f"run {run.number} of {dataset.name} began with {run.shards} shards; resume it"
                " with as many, or make a new backup"
            )
        return run

    def scope(self, run: int) -> Scope:
        """Return what a run looks at that does not look everywhere."""
        with self._news:
            return Scope(
                tuple(self._ledger.scope(run, "names")), tuple(self._ledger.scope(run, "subtrees"))
            )

    def segments(self, run: int, after: int, wait_s: float) -> SegmentPage:
        """Return segments committed after a number, waiting up to wait_s for news."""

        def page() -> SegmentPage:
            # The order matters: what is committed before the scan ends is seen before its end.
            row = self._ledger.run(run)
            if row is None or row.state is not RunState.OPEN:
                return SegmentPage((), False, refusal=f"run {run} is not open any more")
            ended, everywhere = row.scan_ended is not None, row.since is None
            infos = tuple(self._ledger.segments(run, after, whole=everywhere))
            return SegmentPage(infos, ended, everywhere, self._refusals.get(run))

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
            self._snapshots.check(run)
            self._jobs.streamed(run, shard, jobid, self._epoch, receipts)
            self._events.streamed(run, shard, jobid, receipts)

    def broken(self, run: int, shard: int, jobid: int, reason: str) -> None:
        """Record that a stream ended before its end."""
        with self._news:
            self._jobs.broken(run, shard, jobid, reason)
            self._events.broken(run, shard, jobid, reason)
