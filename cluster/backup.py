"""A whole backup: scan, N streams, N concurrent Bacula jobs, the verdict.

Covers: the order of the steps, following the jobs, what happens when one of them fails.
Does not cover: printing (commands), Bacula's configuration (bacula_bridge), Ray (embedded).
"""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from actors.calls import ActorGone, answer
from bacula_bridge.catalog import Catalog
from bacula_bridge.coordinator import catalog_end
from bacula_bridge.director import Director, Level
from bacula_bridge.errors import JobsTimeout
from bacula_bridge.lab import Lab
from bacula_bridge.render import check_dataset_name, check_shards, job_name
from bacula_bridge.scoping import FULL_LEVEL
from bacula_bridge.server import StreamProgress
from cluster.embedded import EmbeddedCluster
from cluster.labs import BorrowedLab, borrow_lab
from cluster.output import plural
from cluster.progress import BackupDisplay
from cluster.records import RunRecord, datasets, find_run, hsm_policy
from cluster.settings import Settings, default_dataset_name
from filesystems.cephfs.attributes import MOUNT_TYPES as CEPHFS_TYPES
from filesystems.cephfs.rctime import SETTLE_S
from filesystems.detect import Detected, detect, timestamp_margin_ns
from shards.errors import ForebayError, UsageError
from shards.lease import Pacing
from shards.ledger import NotResumable, Run
from shards.ledger_schema import HsmPolicy, JobState, RunState
from shards.state import StateDirectoryError

SHARDS_DEFAULT = 4
LEVELS: dict[str, Level] = {
    "full": "Full",
    "differential": "Differential",
    "incremental": "Incremental",
}
LEVEL_DEFAULT = "incremental"  # the Director makes it a Full where there is none yet
POLL_S = 0.25
DIRECTOR_CHECK_S = 5.0
CANCEL_WAIT_S = 60.0
OPEN_WAIT_S = 6 * 3600.0  # a change source may have days of records to read


class LevelUnknown(UsageError):
    """There are three levels."""

    template = "level {0} is unknown; use full, differential or incremental"


class NameTaken(UsageError):
    """A dataset's root is for ever."""

    template = "dataset {0} is {1}; give {2} another name with --name"


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What is to be backed up, checked as far as it can be without doing anything."""

    dataset: str
    root: Path
    shards: int
    filesystem: str  # the adapter
    mount_type: str  # as Linux calls it
    targets: int  # metadata targets, each with a walker
    margin_ns: int  # how far apart two changes may be and still have one ctime
    pacing: Pacing | None = None  # None: as the dataset has it
    hsm: HsmPolicy = HsmPolicy.SKIP
    snapshot: bool | None = None  # whether a snapshot is read; None: as the dataset has it
    level: str = LEVEL_DEFAULT
    resume: int | None = None  # the run that is to go on


def plan(
    settings: Settings,
    directory: Path,
    name: str | None,
    shards: int | None,
    level: str,
    pacing: Pacing | None = None,
    hsm: HsmPolicy | None = None,
    snapshot: bool | None = None,
) -> BackupRequest:
    """Check what was asked for; raises before any work starts."""
    if level not in LEVELS:
        raise LevelUnknown(level)
    root = directory.resolve()
    detected = detect(root)
    dataset = check_dataset_name(name) if name is not None else default_dataset_name(root)
    known = {d.name: d for d in datasets(settings)}.get(dataset)
    if known is not None and known.root != os.fsencode(root):
        raise NameTaken(dataset, os.fsdecode(known.root), directory)
    if shards is None:
        shards = known.shards if known else SHARDS_DEFAULT
    request = _request(dataset, root, detected, shards, level)
    return replace(
        request, pacing=pacing, hsm=hsm or hsm_policy(settings, dataset), snapshot=snapshot
    )


def plan_resume(settings: Settings, number: int) -> BackupRequest:
    """Check that a run can be resumed; raises before any work starts."""
    run = find_run(settings, str(number)).run
    if run.state not in (RunState.INCOMPLETE, RunState.FAILED, RunState.OPEN):
        raise NotResumable(number, f"it is {run.state.value}")
    root = Path(os.fsdecode(run.root))
    request = _request(run.dataset, root, detect(root), run.shards, run.level)
    return replace(request, resume=number, hsm=hsm_policy(settings, run.dataset))


def _request(
    dataset: str, root: Path, detected: Detected, shards: int, level: str
) -> BackupRequest:
    return BackupRequest(
        dataset,
        root,
        check_shards(shards),
        detected.filesystem.name,
        detected.type_name,
        len(detected.filesystem.targets()),
        timestamp_margin_ns(detected.type_name),
        level=level,
    )


def back_up(settings: Settings, request: BackupRequest, display: BackupDisplay) -> RunRecord:
    """Make one backup; return the run as the ledger has it at the end."""
    settings.state.make()
    display.say(f"preparing Bacula and Ray for {request.root}")
    # Bacula's daemons and Ray take seconds each and do not need one another. Ray gets the main
    # thread: it installs signal handlers.
    with ThreadPoolExecutor(max_workers=1) as pool:
        preparing = pool.submit(_prepare_lab, settings, request, display)
        try:
            with EmbeddedCluster(settings, request.targets) as cluster:
                number = run_backup(cluster, preparing.result().lab, request, display)
        finally:
            if preparing.exception() is None:
                preparing.result().give_back()
    if not settings.state.ledger.exists():
        raise StateDirectoryError(str(settings.state.base), "it vanished while the backup ran")
    return find_run(settings, str(number), request.dataset)


def run_backup(
    cluster: EmbeddedCluster, lab: Lab, request: BackupRequest, display: BackupDisplay
) -> int:
    """Make one backup in a cluster that is up; return the number of its run."""
    return _Backup(cluster, lab, request, display).run()


def _prepare_lab(settings: Settings, request: BackupRequest, display: BackupDisplay) -> BorrowedLab:
    borrowed = borrow_lab(settings, request.shards, display.say)
    try:
        borrowed.lab.set_dataset(request.dataset, request.shards, request.hsm)
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
                request.dataset,
                f"{request.filesystem}:{request.mount_type}",
                os.fsencode(request.root),
                request.shards,
                request.pacing,
                request.hsm,
                request.snapshot,
            ),
            "the coordinator",
        )
        run = self._open_run()
        self._display.say(f"run {run.number} of {request.dataset}: scanning and streaming")
        jobs: dict[int, int] = {}
        try:
            jobs = self._start_jobs(run)
            self._follow(run, list(jobs.values()))
        except BaseException:
            if jobs:
                self._cancel(list(jobs.values()))
            raise
        finally:
            self._record(run, jobs)
            self._show(run)
            answer(coordinator.end_run.remote(run.number), "the coordinator")
        return run.number

    def _open_run(self) -> Run:
        """Open a run, or one again that was left incomplete."""
        request, coordinator = self._request, self._cluster.coordinator
        if request.resume is not None:
            return answer(coordinator.reopen_run.remote(request.resume), "the coordinator")
        if request.level != FULL_LEVEL and request.mount_type in CEPHFS_TYPES:
            self._display.say(
                f"an incremental of a CephFS waits {SETTLE_S:.0f} s for change times to settle"
            )
        reference = coordinator.open_run.remote(request.dataset, request.level, request.margin_ns)
        return answer(reference, "the coordinator", OPEN_WAIT_S)

    def _cancel(self, jobs: list[int]) -> None:
        """End the jobs and wait until the catalog has seen it, for a bounded time."""
        self._director.cancel(jobs)
        with contextlib.suppress(JobsTimeout):
            self._director.follow(jobs, timeout_s=CANCEL_WAIT_S)

    def _start_jobs(self, run: Run) -> dict[int, int]:
        """Start all jobs that the run still needs in one go; return JobIds by shard."""
        status = answer(self._cluster.coordinator.status.remote(run.number), "the coordinator")
        saved = {job.shard for job in status.jobs if job.state is JobState.GOOD}
        shards = [shard for shard in range(run.shards) if shard not in saved]
        if not shards:
            return {}
        names = [job_name(run.dataset, shard) for shard in shards]
        jobids = self._director.run_jobs(names, level=LEVELS[run.level])
        return dict(zip(shards, jobids, strict=True))

    def _follow(self, run: Run, jobs: list[int]) -> None:
        """Show progress until the catalog has seen all jobs end.

        The Director is asked too, now and then: when it is gone nobody ends the jobs.
        """
        asked = time.monotonic()
        while True:
            self._cluster.check_interruption()
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

    def _record(self, run: Run, jobs: dict[int, int]) -> None:
        """Tell the ledger what the catalog shows of each job."""
        rows = self._catalog.jobs(jobs.values())
        for shard, jobid in jobs.items():
            if (row := rows.get(jobid)) is None:
                continue
            reference = self._cluster.coordinator.job_ended.remote(
                run.number, shard, jobid, row.unique_name, catalog_end(row)
            )
            answer(reference, "the coordinator")
