"""Runs of a service: opened for the jobs that ask, closed by what the catalog shows.

Covers: which run a job waits for, opening one in the background, taking the ends of jobs from the
catalog, when a run has nothing more to wait for.
Does not cover: a run's own rules (coordinator, shards), when jobs run (Bacula's schedule).

Nobody has to tell it anything: a hook that comes twice, late or never changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from bacula_bridge.catalog import Catalog, JobRow
from bacula_bridge.chain import LEVELS
from bacula_bridge.protocol import Hello
from bacula_bridge.render import job_name
from bacula_bridge.source import JoinLater, JoinRefused
from shards.errors import ForebayError
from shards.ledger import Ledger, Run, RunOpen
from shards.ledger_schema import JobState
from shards.shard_jobs import CatalogEnd, ShardJob, ShardJobs

LEVEL_NAMES = {"F": "full", "D": "differential", "I": "incremental"}
JOIN_POLL_S = 1.0  # how long one call of a job waits for news
WAITING_S = 30.0  # a job that has not asked for so long waits no more
RECENT_JOBS = 20  # of a Job resource, in which one that is not over is looked for
_ACTIVE = frozenset({JobState.STREAMING, JobState.STREAMED})


class RunImpossible(ForebayError):
    """No run could be opened: (dataset, why)."""

    template = "no run of {0} can be opened: {1}"


@dataclass(frozen=True, slots=True)
class ServicePolicy:
    """What the service is told of its datasets, and how long it waits."""

    margins_ns: Mapping[str, int]  # by dataset: how far apart two changes may be with one ctime
    run_idle_s: float = 300.0  # a run waits so long for shards that no job is saving


class Runs(Protocol):
    """What the keeper asks of the coordinator."""

    def open_run(self, dataset: str, level: str, margin_ns: int = 0) -> Run: ...
    def end_run(self, number: int, unless: Callable[[], bool]) -> Run: ...
    def job_ended(self, run: int, shard: int, jobid: int, job: str, end: CatalogEnd) -> object: ...


@dataclass(slots=True)
class _Opening:
    """A run that is being opened; a change source may take hours."""

    thread: threading.Thread | None = None
    error: ForebayError | None = None
    failed: float = 0.0
    told: set[int] = field(default_factory=set)  # JobIds that know of the error


class RunKeeper:
    """One per coordinator of a service. All but tick() is called with the coordinator's lock."""

    def __init__(
        self,
        runs: Runs,
        ledger: Ledger,
        catalog: Catalog,
        policy: ServicePolicy,
        news: threading.Condition,
        catalog_end: Callable[[JobRow], CatalogEnd],
    ) -> None:
        self._runs = runs
        self._ledger = ledger
        self._jobs = ShardJobs(ledger)
        self._catalog = catalog
        self._policy = policy
        self._news = news
        self._catalog_end = catalog_end
        self._openings: dict[str, _Opening] = {}
        self._waiting: dict[int, float] = {}  # when a job last asked in vain, by JobId
        self._placed: dict[int, int] = {}  # runs that jobs are about to join, by JobId
        self._seen: dict[int, float] = {}  # when something last happened in a run
        self.draining = False

    # A job's place

    @contextmanager
    def placed(self, hello: Hello) -> Iterator[None]:
        """Find an open run of the dataset with the job's shard to be had.

        It stays open until the block has ended, which may let go of the lock: what claims the
        shard belongs there. Raises JoinLater while there is none, JoinRefused if there will be
        none.
        """
        try:
            run = self._place(hello)
        except JoinLater:
            self._waiting[hello.jobid] = time.monotonic()
            raise
        self._waiting.pop(hello.jobid, None)
        self._placed[hello.jobid] = run.number
        try:
            yield
        finally:
            self._placed.pop(hello.jobid, None)

    def _place(self, hello: Hello) -> Run:
        run = self._ledger.open_run(hello.dataset)
        if run is None:
            self._open(hello)
            self._news.wait_for(
                lambda: self._ledger.open_run(hello.dataset) is not None, timeout=JOIN_POLL_S
            )
            run = self._ledger.open_run(hello.dataset)
        if run is None:
            raise JoinLater(f"a run of {hello.dataset} is being opened")
        holder = self._holder(run, hello.shard)
        if holder is None or holder.jobid == hello.jobid:
            return run
        self._news.wait(timeout=JOIN_POLL_S)
        raise JoinLater(
            f"run {run.number} of {hello.dataset} has its shard {hello.shard} from JobId"
            f" {holder.jobid}, and is not over"
        )

    def _holder(self, run: Run, shard: int) -> ShardJob | None:
        jobs = self._jobs.jobs(run.number)
        return next((j for j in jobs if j.shard == shard and j.state is not JobState.BAD), None)

    def _open(self, hello: Hello) -> None:
        if self.draining:
            raise JoinRefused(
                "the Forebay service is being stopped; run the job again when it is up"
            )
        if hello.dataset not in self._policy.margins_ns or hello.level not in LEVELS:
            raise JoinRefused(
                f"dataset {hello.dataset} is not in the configuration of the Forebay service;"
                " add it there and run `forebay serve` again"
            )
        opening = self._openings.get(hello.dataset)
        if opening is not None and opening.error is not None:
            is_news = time.monotonic() - opening.failed < WAITING_S
            if is_news and hello.jobid not in opening.told:
                opening.told.add(hello.jobid)
                raise JoinRefused(str(opening.error))
            opening = None  # another night, or the same job again: try anew
        if opening is None or (opening.thread is not None and not opening.thread.is_alive()):
            opening = _Opening()
            self._openings[hello.dataset] = opening
            opening.thread = threading.Thread(
                target=self._do_open,
                args=(opening, hello.dataset, LEVEL_NAMES[hello.level]),
                name=f"open-{hello.dataset}",
                daemon=True,
            )
            opening.thread.start()

    def _do_open(self, opening: _Opening, dataset: str, level: str) -> None:
        error: ForebayError | None = RunImpossible(dataset, "a bug; the coordinator's log has it")
        try:
            self._runs.open_run(dataset, level, self._policy.margins_ns[dataset])
            error = None
        except RunOpen:  # somebody else has opened one
            error = None
        except OSError as caught:
            error = RunImpossible(dataset, str(caught))
        except ForebayError as caught:
            error = caught
        finally:
            if error is not None:
                with self._news:
                    opening.error, opening.failed = error, time.monotonic()
                    self._news.notify_all()

    # The ends

    def happened(self, run: int) -> None:
        """Note that a run goes on."""
        self._seen[run] = time.monotonic()

    def tick(self) -> None:
        """Look at the catalog once; close what is over. CatalogUnavailable: look again later."""
        with self._news:
            opened = self._ledger.open_runs()
            open_jobs = {run.number: self._jobs.jobs(run.number) for run in opened}
        for run in opened:
            self._settle(run, open_jobs[run.number])
            if self._is_over(run):
                # A job may have come since the catalog was asked.
                self._runs.end_run(run.number, unless=partial(self._is_joined, run))
                self._seen.pop(run.number, None)

    def _settle(self, run: Run, jobs: list[ShardJob]) -> None:
        active = {job.jobid: job for job in jobs if job.state in _ACTIVE}
        if not active:
            return
        rows = self._catalog.jobs(active)
        for jobid, job in active.items():
            row = rows.get(jobid)
            if row is not None and row.unique_name == job.job and row.ended:
                self.happened(run.number)
                self._runs.job_ended(run.number, job.shard, jobid, job.job, self._catalog_end(row))

    def _is_joined(self, run: Run) -> bool:
        """Tell whether a job saves a shard of a run, or is about to. Called with the lock."""
        return run.number in self._placed.values() or any(
            job.state in _ACTIVE for job in self._jobs.jobs(run.number)
        )

    def _is_over(self, run: Run) -> bool:
        """Tell whether a run has all its shards, or will get no more of them."""
        with self._news:
            jobs = self._jobs.jobs(run.number)
            joined = self._is_joined(run)
        if joined:
            self.happened(run.number)
            return False
        if {job.shard for job in jobs if job.state is JobState.GOOD} == set(range(run.shards)):
            return True
        if self._has_jobs_to_come(run, {job.jobid for job in jobs}):
            self.happened(run.number)
            return False
        last = self._seen.setdefault(run.number, time.monotonic())
        return time.monotonic() - last >= self._policy.run_idle_s

    def _has_jobs_to_come(self, run: Run, known: set[int]) -> bool:
        """Tell whether Bacula has jobs of the dataset that are not over and wait for nothing."""
        horizon = time.monotonic() - WAITING_S
        with self._news:
            waiting = {jobid for jobid, asked in self._waiting.items() if asked > horizon}
            self._waiting = {jobid: self._waiting[jobid] for jobid in waiting}
        for shard in range(run.shards):
            for row in self._catalog.jobs_named(job_name(run.dataset, shard), RECENT_JOBS):
                if not row.ended and row.job_id not in known and row.job_id not in waiting:
                    return True
        return False
