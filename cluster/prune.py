"""Removing what no future backup, restore or verification can name any more.

Covers: which runs' segments, plans, receipts and layers, and which folded views, that is; removing
them.
Does not cover: Bacula's own volumes and catalog, whose retention decides; the ledger's history of
runs, which stays; logs of change readers, which clear themselves.

A run is kept while the catalog has any of its jobs, while a job that the catalog has builds on one
of its jobs, and while it is the newest of its dataset.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bacula_bridge.catalog import Catalog
from cluster.bacula import the_catalog
from cluster.output import plural
from cluster.settings import Settings
from shards.errors import ForebayError, UsageError
from shards.ledger import Ledger, Run
from shards.ledger_home import open_ledger
from shards.shard_jobs import ShardJob, ShardJobs
from shards.sorted_file import SortedFile, SortedFileDamaged
from shards.state import StateDirectory
from shards.view import JOBIDS

JOBS_TOLD_MAX = 8
_LOST_LEDGER = 0  # the run number under which layers are kept of jobs that the ledger lost


class CatalogForeign(ForebayError):
    """Every job is gone: more likely it is the wrong catalog."""

    template = (
        "the catalog {0} knows none of the {1} jobs in the run ledger: it is another catalog, or a"
        " new one; nothing is removed"
    )


@dataclass(frozen=True, slots=True)
class Prunable:
    """A folder or file that nothing can name any more."""

    path: Path
    run: int | None  # None: a folded view, or a layer of a job from before a lost ledger
    dataset: str | None
    reason: str
    size_bytes: int


@dataclass(slots=True)
class PrunePlan:
    """What is to go, and what was left alone though nobody knows it."""

    items: list[Prunable] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)  # run folders that the ledger does not have

    @property
    def size_bytes(self) -> int:
        return sum(item.size_bytes for item in self.items)


def prune(settings: Settings, say: Callable[[str], None], *, apply: bool) -> PrunePlan:
    """Find what can go, and remove it if told to.

    The ledger is locked while something is removed: no backup runs meanwhile.
    """
    if not settings.state.ledger.exists():
        raise UsageError(f"there is no run ledger in {settings.state.base}: nothing to prune")
    catalog = the_catalog(settings, say)
    state = settings.state
    opened = open_ledger(state) if apply else Ledger(state.ledger, read_only=True)
    with closing(opened) as ledger:
        plan = plan_prune(settings.state, ledger, catalog)
        if apply:
            # Views first: a run is looked for by its folder, and is found again after a crash.
            for item in sorted(plan.items, key=lambda item: item.run is not None):
                _remove(item.path)
    return plan


def plan_prune(state: StateDirectory, ledger: Ledger, catalog: Catalog) -> PrunePlan:
    """Return what nothing can name any more."""
    runs = ledger.runs()
    jobs = {run.number: ShardJobs(ledger).jobs(run.number) for run in runs}
    every = [job for of_run in jobs.values() for job in of_run]
    is_kept = _kept_jobs(catalog, every)
    if every and not any(is_kept(job.jobid, job.job) for job in every):
        raise CatalogForeign(catalog.name, len(every))
    named = {jobid for job in every if is_kept(job.jobid, job.job) for jobid in job.chain}
    plan = PrunePlan()
    newest: set[str] = set()
    for run in runs:  # newest first
        own = jobs[run.number]
        can_go = run.dataset in newest and not any(
            is_kept(job.jobid, job.job) or job.jobid in named for job in own
        )
        newest.add(run.dataset)
        folder = state.run(run.number)
        if can_go and folder.exists():
            plan.items.append(_run_item(run, own, folder))
    plan.items += _view_items(state, catalog)
    plan.unknown = _unknown_runs(state, {run.number for run in runs})
    return plan


def _kept_jobs(catalog: Catalog, jobs: list[ShardJob]) -> Callable[[int, str], bool]:
    """Return what tells whether the catalog still has a job, with its files."""
    names = {
        row.job_id: row.unique_name
        for row in catalog.jobs(job.jobid for job in jobs).values()
        if not row.purged
    }
    return lambda jobid, name: names.get(jobid) == name


def _run_item(run: Run, jobs: list[ShardJob], folder: Path) -> Prunable:
    if not jobs:
        reason = "no job of it ever began"
    else:
        jobids = ", ".join(str(job.jobid) for job in jobs[:JOBS_TOLD_MAX])
        more = f" and {len(jobs) - JOBS_TOLD_MAX} more" if len(jobs) > JOBS_TOLD_MAX else ""
        reason = f"{plural(len(jobs), 'job')} gone from the catalog: {jobids}{more}"
    return Prunable(folder, run.number, run.dataset, reason, _size(folder))


def _view_items(state: StateDirectory, catalog: Catalog) -> Iterator[Prunable]:
    """Yield folded views, and layers from before a lost ledger, of jobs that are gone."""
    folders = (state.views, state.receipts(_LOST_LEDGER))
    made_of = {path: _jobids(path) for folder in folders for path in _files(folder)}
    rows = catalog.jobs(jobid for jobids in made_of.values() for jobid in jobids)
    there = {row.job_id for row in rows.values() if not row.purged}
    for path, jobids in made_of.items():
        gone = [jobid for jobid in jobids if jobid not in there]
        if gone or not jobids:
            reason = f"JobId {gone[0]} is gone from the catalog" if gone else "it is damaged"
            yield Prunable(path, None, None, reason, _size(path))


def _jobids(path: Path) -> list[int]:
    """Return which jobs a file follows from; none if it cannot be read, and so is made again."""
    try:
        jobids: list[int] = json.loads(SortedFile(path).metadata[JOBIDS])
    except (SortedFileDamaged, KeyError):
        return []
    return jobids


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder but those that somebody is writing."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix != ".partial")


def _unknown_runs(state: StateDirectory, known: set[int]) -> list[Path]:
    folders = state.runs.iterdir() if state.runs.is_dir() else iter(())
    return sorted(
        folder
        for folder in folders
        if folder.name.isdecimal() and int(folder.name) not in known | {_LOST_LEDGER}
    )


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ForebayError(
            f"{error.filename or path} cannot be removed: {error.strerror}"
        ) from error
