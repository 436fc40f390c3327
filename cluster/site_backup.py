"""`forebay backup` at a site: the same jobs that its schedule starts, started now and followed.

Covers: starting a dataset's jobs, following them to the end of their run, going on with a run.
Does not cover: opening and closing runs (bacula_bridge.run_keeper), printing (commands).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.calls import COORDINATOR, ActorGone, ActorStarting, NamedActor
from bacula_bridge.catalog import JobRow
from bacula_bridge.coordinator import RunStatus
from bacula_bridge.director import Level
from bacula_bridge.errors import CatalogUnavailable
from bacula_bridge.render import job_name
from cluster.progress import BackupDisplay
from cluster.records import RunRecord, find_run, list_runs
from cluster.service import bridges, open_runs
from cluster.settings import Settings
from cluster.site_config import DatasetTable, SiteConfig
from cluster.sites import site_catalog, site_director
from shards.errors import ForebayError, UsageError
from shards.ledger_schema import JobState, RunState

POLL_S = 1.0
# A job that ended is in its run's books a look of the keeper later.
CLOSE_WAIT_S = 60.0
# So long the catalog may be away while jobs are followed; they go on in any case.
CATALOG_WAIT_S = 3600.0


class NotInAnyRun(ForebayError):
    """The jobs ended without a run: (JobIds, the first job's last words)."""

    template = "JobId {0} ended without a place in a run: {1}"


class NotHere(UsageError):
    """The ledger lies on another node: (ledger, mover)."""

    template = "the run ledger {0} is not on this node; run this on mover {1}"


@dataclass(frozen=True, slots=True)
class SiteRequest:
    """What is to be run."""

    dataset: DatasetTable
    shards: tuple[int, ...]
    level: Level
    client: str | None = None  # the Client resource instead of the shard's own
    resume: int | None = None


def request(site: SiteConfig, what: str, level: Level, mover: str | None = None) -> SiteRequest:
    """Return the jobs of a dataset, named by its name or its root."""
    paths = {str(dataset.root): dataset for dataset in site.dataset}
    found = paths.get(str(Path(what).absolute())) or site.dataset_named(what)
    return SiteRequest(found, tuple(range(found.shards)), level, _client(site, mover))


def resume_request(
    settings: Settings, site: SiteConfig, number: int, mover: str | None
) -> SiteRequest:
    """Return the jobs that a run lacks."""
    record = find_run(settings, str(number))
    dataset = site.dataset_named(record.run.dataset)
    saved = {job.shard for job in record.jobs if job.state is JobState.GOOD}
    missing = tuple(shard for shard in range(record.run.shards) if shard not in saved)
    level: Level = "Full" if record.run.level == "full" else "Incremental"
    return SiteRequest(dataset, missing, level, _client(site, mover), number)


def _client(site: SiteConfig, mover: str | None) -> str | None:
    if mover is None:
        return None
    for each in site.mover:
        if each.name == mover:
            return each.client
    raise UsageError(
        f"there is no mover {mover}; there are {', '.join(m.name for m in site.mover)}"
    )


def back_up(settings: Settings, wanted: SiteRequest, display: BackupDisplay) -> RunRecord:
    """Run the jobs and follow them until their run is closed; return it as the ledger has it."""
    site = settings.site
    assert site is not None, "this is a site"
    if not settings.state.ledger.exists():
        raise NotHere(str(settings.state.ledger), site.coordinator_mover)
    open_runs(site)  # NotServing, before a job starts that could not have a stream
    if wanted.resume is not None:
        NamedActor(COORDINATOR, "the coordinator").ask("reopen_run", wanted.resume)
    director = site_director(site)
    names = [job_name(wanted.dataset.name, shard) for shard in wanted.shards]
    jobids = director.run_jobs(names, wanted.level, wanted.client) if names else []
    display.say(f"JobId {', '.join(map(str, jobids))} of {wanted.dataset.name} started")
    try:
        rows = _Following(site, jobids, display).rows()
    except (KeyboardInterrupt, SystemExit):  # SIGINT, and what Ray's driver makes of SIGTERM
        director.cancel(jobids)
        raise
    return _closed(settings, wanted, rows)


class _Following:
    """Shows progress until the catalog has seen all jobs end.

    Jobs go on while service or catalog are away for a while, and so does this.
    """

    def __init__(self, site: SiteConfig, jobids: Sequence[int], display: BackupDisplay) -> None:
        self._site = site
        self._jobids = tuple(jobids)
        self._display = display
        self._catalog = site_catalog(site)
        self._coordinator = NamedActor(COORDINATOR, "the coordinator")
        self._told: dict[str, str] = {}  # what was said last of the service, of the catalog

    def rows(self) -> list[JobRow]:
        """Return the jobs as they ended; CatalogUnavailable if it stays away."""
        deadline = time.monotonic() + CATALOG_WAIT_S
        while True:
            try:
                rows = self._catalog.jobs(self._jobids)
            except CatalogUnavailable as error:
                if time.monotonic() >= deadline:
                    raise
                self._tell("the catalog", str(error))
            else:
                self._tell("the catalog", "")
                deadline = time.monotonic() + CATALOG_WAIT_S
                if len(rows) == len(self._jobids) and all(row.ended for row in rows.values()):
                    return [rows[jobid] for jobid in self._jobids]
            try:
                self._show()
            except (ActorGone, ActorStarting) as error:
                self._tell("the service", str(error))
            else:
                self._tell("the service", "")
            time.sleep(POLL_S)

    def _show(self) -> None:
        statuses: list[RunStatus] = self._coordinator.ask("open_runs")
        for status in statuses:
            if any(job.jobid in self._jobids for job in status.jobs):
                scan_ended = status.run.scan_ended is not None
                self._display.scanned(status.scan.inodes, ended=scan_ended)
        for bridge in bridges(self._site):
            for live in bridge.streams:
                if live.jobid in self._jobids:
                    self._display.shard(
                        live.shard, live.acknowledged, live.total, live.size_bytes, bridge.mover
                    )

    def _tell(self, whom: str, trouble: str) -> None:
        """Say once that somebody is away, and once that they are there again."""
        if bool(trouble) != bool(self._told.get(whom)):
            gone = f"no news from {whom}: {trouble}; the jobs are followed further"
            self._display.say(gone if trouble else f"{whom} answers again")
        self._told[whom] = trouble


def _closed(settings: Settings, wanted: SiteRequest, rows: Sequence[JobRow]) -> RunRecord:
    """Wait until the jobs' run is closed; return it."""
    jobids = {row.job_id for row in rows}
    assert settings.site is not None
    deadline = time.monotonic() + settings.site.limits.run_idle_s + CLOSE_WAIT_S
    while True:
        for record in list_runs(settings, wanted.dataset.name):
            is_ours = record.run.number == wanted.resume or any(
                job.jobid in jobids for job in record.jobs
            )
            if is_ours and record.run.state is not RunState.OPEN:
                return record
            if is_ours:
                break
        else:
            words = [line.text for line in site_catalog(settings.site).log(min(jobids))]
            told = next((line for line in words if "forebay" in line.lower()), "see its job log")
            raise NotInAnyRun(", ".join(map(str, sorted(jobids))), told)
        if time.monotonic() > deadline:
            return record
        time.sleep(POLL_S)
