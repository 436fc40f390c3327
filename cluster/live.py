"""What is going on now: open runs with their shards and walkers, the datasets' last runs.

Covers: reading it from the ledger while another process writes there, rates between two looks.
Does not cover: drawing (top_screen), where live streams are asked (LiveSource's makers).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from bacula_bridge.server import StreamProgress
from cluster.settings import Settings
from shards.errors import ForebayError
from shards.ledger import Ledger, Run
from shards.ledger_schema import JobState, RunState
from shards.shard_jobs import ShardJob, ShardJobs
from shards.throughput import open_leases

PENDING_COUNTED_MAX = 100_000
GOOD_STATES = (RunState.COMPLETE.value, RunState.WARNINGS.value)


class LiveSource(Protocol):
    """Whoever knows how far the streams are that are being sent now."""

    def streams(self) -> list[StreamProgress]:
        """Return the live streams; ForebayError if nobody can be asked."""


class NoLiveSource:
    """Nobody can be asked: what the ledger has is all there is."""

    def streams(self) -> list[StreamProgress]:
        return []


@dataclass(frozen=True, slots=True)
class ShardView:
    """One shard's job as it stands."""

    shard: int
    jobid: int
    state: str
    names: int
    total: int | None  # names that it is known to have; None: nobody can be asked
    size_bytes: int
    warnings: int
    names_per_s: float | None
    bytes_per_s: float | None
    seconds: float  # since it began, or that it took
    reason: str | None = None  # why it failed


@dataclass(frozen=True, slots=True)
class WalkerView:
    """A walker that has leases."""

    target: str
    leases: int
    oldest_s: float | None  # how long it has had the oldest


@dataclass(frozen=True, slots=True)
class RunView:
    """An open run."""

    run: int
    dataset: str
    level: str
    shards_count: int
    seconds: float
    scanned: int
    scan_errors: int
    scan_ended: bool
    scanned_per_s: float | None  # None: the scan has ended
    pending: int  # directories; at most PENDING_COUNTED_MAX are counted
    lag: int | None  # names of its live streams that are known and not saved yet
    walkers: tuple[WalkerView, ...]
    shards: tuple[ShardView, ...]


@dataclass(frozen=True, slots=True)
class DatasetView:
    """A dataset and its last runs."""

    dataset: str
    last_run: int | None
    last_state: str | None
    last_age_s: float | None  # since it ended, or began if it has not ended
    good_run: int | None
    good_age_s: float | None  # since it began: what changed later is not in it


@dataclass(frozen=True, slots=True)
class TopView:
    """Everything at one moment."""

    time: float
    runs: tuple[RunView, ...]
    datasets: tuple[DatasetView, ...]
    trouble: str | None = None  # why the live streams are unknown

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Observer:
    """Looks again and again; rates are between two looks, at first since the beginning."""

    def __init__(
        self, settings: Settings, source: LiveSource, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._before: dict[tuple[object, ...], tuple[float, float]] = {}
        self._now: dict[tuple[object, ...], tuple[float, float]] = {}

    def look(self) -> TopView:
        """Return how things stand."""
        now = self._clock()
        if not self._settings.state.ledger.exists():
            return TopView(now, (), ())
        trouble = None
        try:
            streams = self._source.streams()
        except ForebayError as error:
            streams, trouble = [], str(error)
        with closing(Ledger(self._settings.state.ledger, read_only=True)) as ledger:
            runs = [
                self._run(ledger, run, streams, now)
                for dataset in ledger.datasets()
                if (run := ledger.open_run(dataset.name)) is not None
            ]
            datasets = tuple(_datasets(ledger, now))
        self._before, self._now = self._now, {}
        return TopView(now, tuple(runs), datasets, trouble)

    def _run(self, ledger: Ledger, run: Run, streams: list[StreamProgress], now: float) -> RunView:
        number = run.number
        scan = ledger.scan_totals(number)
        live = {(one.shard, one.jobid): one for one in streams if one.run == number}
        jobs = ShardJobs(ledger).jobs(number)
        pending = ledger.query(
            "SELECT COUNT(*) FROM (SELECT 1 FROM directories WHERE run = ? AND lease IS NULL"
            " LIMIT ?)",
            (number, PENDING_COUNTED_MAX),
        )[0][0]
        ended = run.scan_ended is not None
        rate = self._rate((number,), scan.inodes, run.started, now)
        return RunView(
            *(number, run.dataset, run.level, run.shards, max(0.0, now - run.started)),
            *(scan.inodes, scan.errors, ended, None if ended else rate, pending),
            sum(max(0, one.total - one.acknowledged) for one in live.values()) if live else None,
            tuple(_walkers(ledger, number, now)),
            tuple(self._shard(job, live.get((job.shard, job.jobid)), now) for job in jobs),
        )

    def _shard(self, job: ShardJob, live: StreamProgress | None, now: float) -> ShardView:
        summary = job.summary
        if live is not None and job.state is JobState.STREAMING:
            key = (job.run, job.shard, job.jobid)
            return ShardView(
                *(job.shard, job.jobid, "ending" if live.ended else job.state.value),
                *(live.acknowledged, live.total, live.size_bytes, live.warnings),
                self._rate((*key, "names"), live.acknowledged, job.started, now),
                self._rate((*key, "bytes"), live.size_bytes, job.started, now),
                max(0.0, now - job.started),
            )
        names = summary.files + summary.directories
        seconds = max(0.0, (job.ended or now) - job.started)
        over = job.ended is not None and seconds > 0 and job.receipts is not None
        return ShardView(
            *(job.shard, job.jobid, job.state.value, names),
            names if job.receipts is not None else None,
            *(summary.size_bytes, summary.warnings),
            names / seconds if over else None,
            summary.size_bytes / seconds if over else None,
            seconds,
            job.reason,
        )

    def _rate(self, key: tuple[object, ...], value: float, started: float, now: float) -> float:
        self._now[key] = (now, value)
        then, before = self._before.get(key, (started, 0.0))
        return max(0.0, value - before) / (now - then) if now > then else 0.0


def _walkers(ledger: Ledger, run: int, now: float) -> list[WalkerView]:
    taken: dict[str, list[float | None]] = defaultdict(list)
    for role, since in open_leases(ledger.query, run):
        taken[role.removeprefix("walker:")].append(since)
    made = []
    for target, times in taken.items():
        known = [since for since in times if since is not None]
        oldest = max(0.0, now - min(known)) if known else None
        made.append(WalkerView(target, len(times), oldest))
    return made


def _datasets(ledger: Ledger, now: float) -> list[DatasetView]:
    made = []
    for dataset in ledger.datasets():
        last = _newest(ledger, dataset.name, tuple(state.value for state in RunState))
        good = _newest(ledger, dataset.name, GOOD_STATES)
        made.append(
            DatasetView(
                dataset.name,
                last and last.number,
                last and last.state.value,
                max(0.0, now - (last.ended or last.started)) if last else None,
                good and good.number,
                max(0.0, now - good.started) if good else None,
            )
        )
    return made


def _newest(ledger: Ledger, dataset: str, states: tuple[str, ...]) -> Run | None:
    marks = ", ".join("?" * len(states))
    found = ledger.query(
        f"SELECT MAX(number) FROM runs WHERE dataset = ? AND state IN ({marks})",
        (dataset, *states),
    )[0][0]
    return ledger.run(found) if found is not None else None
