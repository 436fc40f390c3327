"""A whole backup: scan, N streams, N concurrent Bacula jobs, the verdict.

Covers: the order of the steps, following the jobs, what happens when one of them fails.
Does not cover: printing (commands), Bacula's configuration (bacula_bridge), Ray (embedded).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from actors.calls import ActorGone, answer
from bacula_bridge.catalog import Catalog
from bacula_bridge.director import Director
from bacula_bridge.errors import JobsTimeout
from bacula_bridge.lab import Lab
from bacula_bridge.render import check_dataset_name, check_shards, job_name
from bacula_bridge.server import StreamProgress
from cluster.embedded import EmbeddedCluster
from cluster.labs import BorrowedLab, borrow_lab
from cluster.output import plural
from cluster.progress import BackupDisplay
from cluster.records import RunRecord, datasets, find_run
from cluster.settings import Settings
from filesystems.detect import detect
from shards.errors import ForebayError, UsageError
from shards.ledger import Run
from shards.shard_jobs import CatalogEnd

SHARDS_DEFAULT = 4
LEVEL_FULL = "full"
POLL_S = 0.25
DIRECTOR_CHECK_S = 5.0
CANCEL_WAIT_S = 60.0


class LevelUnsupported(UsageError):
    """Only full backups exist so far."""

    template = "level {0} is not supported by this version; use --level full"


class NameTaken(UsageError):
    """A dataset's root is for ever."""

    template = "dataset {0} is {1}; give {2} another name with --name"


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What is to be backed up, checked as far as it can be without doing anything."""

    dataset: str
    root: Path
    shards: int
    threads: int
    filesystem: str


def plan(
    settings: Settings, directory: Path, name: str | None, shards: int | None, level: str
) -> BackupRequest:
    """Check what was asked for; raises before any work starts."""
    if level != LEVEL_FULL:
        raise LevelUnsupported(level)
    root = directory.resolve()
    detected = detect(root)
    dataset = check_dataset_name(name) if name is not None else _default_name(root)
    known = {d.name: d for d in datasets(settings)}.get(dataset)
    if known is not None and known.root != os.fsencode(root):
        raise NameTaken(dataset, os.fsdecode(known.root), directory)
    if shards is None:
        shards = known.shards if known else SHARDS_DEFAULT
    return BackupRequest(
        dataset,
        root,
        check_shards(shards),
        max(2, min(32, 2 * (os.cpu_count() or 1))),
        f"{detected.filesystem.name}:{detected.type_name}",
    )


def _default_name(root: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", root.name)[:64] or "root"


def back_up(settings: Settings, request: BackupRequest, display: BackupDisplay) -> RunRecord:
    """Make one full backup; return the run as the ledger has it at the end."""
    settings.state.make()
    display.say(f"preparing Bacula and Ray for {request.root}")
    # Bacula's daemons and Ray take seconds each and do not need one another. Ray gets the main
    # thread: it installs signal handlers.
    with ThreadPoolExecutor(max_workers=1) as pool:
        preparing = pool.submit(_prepare_lab, settings, request, display)
        try:
            with EmbeddedCluster(settings, request.threads) as cluster:
                number = _Backup(cluster, preparing.result().lab, request, display).run()
        finally:
            if preparing.exception() is None:
                preparing.result().give_back()
    return find_run(settings, str(number), request.dataset)


def _prepare_lab(settings: Settings, request: BackupRequest, display: BackupDisplay) -> BorrowedLab:
    borrowed = borrow_lab(settings, request.shards, display.say)
    try:
        borrowed.lab.set_dataset(request.dataset, request.shards)
    except BaseException:
        borrowed.give_back()
        raise
    return borrowed


class _Backup:
    """One backup, from the run's opening to its verdict."""

    def __init__(
        self, cluster: EmbeddedCluster, lab: Lab, request: BackupRequest, display: BackupDisplay
    ) -> None:
        self._cluster = cluster
        self._catalog = Catalog(lab.catalog)
        self._director = Director(lab.console, self._catalog)
        self._request = request
        self._display = display
        self._bridge_gone = False

    def run(self) -> int:
        """Run it; return the run's number, whatever came of it."""
        request = self._request
        coordinator = self._cluster.coordinator
        answer(
            coordinator.define_dataset.remote(
                request.dataset, request.filesystem, os.fsencode(request.root), request.shards
            ),
            "the coordinator",
        )
        run = answer(coordinator.open_run.remote(request.dataset, LEVEL_FULL), "the coordinator")
        self._display.say(f"run {run.number} of {request.dataset}: scanning and streaming")
        jobs: list[int] = []
        try:
            jobs = self._start_jobs()
            self._follow(run, jobs)
        except BaseException:
            if jobs:
                self._cancel(jobs)
            raise
        finally:
            self._record(run, jobs)
            self._show(run)
            answer(coordinator.end_run.remote(run.number), "the coordinator")
        return run.number

    def _cancel(self, jobs: list[int]) -> None:
        """End the jobs and wait until the catalog has seen it, for a bounded time."""
        self._director.cancel(jobs)
        with contextlib.suppress(JobsTimeout):
            self._director.follow(jobs, timeout_s=CANCEL_WAIT_S)

    def _start_jobs(self) -> list[int]:
        """Start all jobs in one go; return JobIds in the order of the shards."""
        request = self._request
        names = [job_name(request.dataset, shard) for shard in range(request.shards)]
        return self._director.run_jobs(names, level="Full")

    def _follow(self, run: Run, jobs: list[int]) -> None:
        """Show progress until the catalog has seen all jobs end.

        The Director is asked too, now and then: when it is gone nobody ends the jobs.
        """
        asked = time.monotonic()
        while True:
            self._check_scan(run)
            self._show(run)
            rows = self._catalog.jobs(jobs)
            if len(rows) == len(jobs) and all(row.ended for row in rows.values()):
                return
            if time.monotonic() - asked > DIRECTOR_CHECK_S:
                self._director.progress(jobs)
                asked = time.monotonic()
            time.sleep(POLL_S)

    def _check_scan(self, run: Run) -> None:
        try:
            self._cluster.check_walkers()
        except ForebayError as error:  # it keeps dying: the streams, and so the jobs, end with it
            reason = f"the scan of {self._request.root} failed: {error}"
            reference = self._cluster.coordinator.fail_run.remote(run.number, reason)
            answer(reference, "the coordinator")

    def _show(self, run: Run) -> None:
        status = answer(self._cluster.coordinator.status.remote(run.number), "the coordinator")
        self._display.scanned(status.scan.inodes, ended=status.run.scan_ended is not None)
        for job in status.jobs:
            if job.receipts is not None:  # its stream is over, and the bridge has forgotten it
                names = job.summary.files + job.summary.directories
                note = "saved" if job.ended else "ending"
                self._display.shard(job.shard, names, names, job.summary.size_bytes, note)
        for live in self._streams(run):
            self._display.shard(
                live.shard,
                live.acknowledged,
                live.total,
                live.size_bytes,
                plural(live.warnings, "warning") if live.warnings else "",
            )

    def _streams(self, run: Run) -> list[StreamProgress]:
        if self._bridge_gone:
            return []
        try:
            return answer(self._cluster.bridge.progress.remote(), "the bridge")
        except ActorGone as error:  # its jobs end by themselves: their streams are closed
            self._bridge_gone = True
            reference = self._cluster.coordinator.fail_run.remote(run.number, str(error))
            answer(reference, "the coordinator")
            return []

    def _record(self, run: Run, jobs: list[int]) -> None:
        """Tell the ledger what the catalog shows of each job."""
        rows = self._catalog.jobs(jobs)
        for shard, jobid in enumerate(jobs):
            row = rows.get(jobid)
            if row is None:
                continue
            end = CatalogEnd(
                row.outcome, row.files, row.bytes, _epoch(row.start), row.end_epoch or time.time()
            )
            reference = self._cluster.coordinator.job_ended.remote(
                run.number, shard, jobid, row.unique_name, end
            )
            answer(reference, "the coordinator")


def _epoch(local_time: str) -> float:
    """Read a time of the catalog, which is the Director's local time."""
    return time.mktime(time.strptime(local_time, "%Y-%m-%d %H:%M:%S")) if local_time else 0.0
