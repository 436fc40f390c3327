"""What a restore takes from which jobs.

Covers: one merged selection over the chains of all shards, its split into parts that do not
overlap, hard links whose first name is not part of it, what a person should hear of.
Does not cover: running the jobs (restore), the views and the rule of the merge (shards).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from bacula_bridge.bootstrap import Ranges
from bacula_bridge.catalog import Catalog, JobRow
from cluster.chains import OpenChain, chain_notes, open_chains, shard_chains
from cluster.output import show_path
from cluster.records import RunRecord
from cluster.settings import Settings
from shards.errors import UsageError
from shards.index_set import IndexSet
from shards.keys import name_key
from shards.receipts import read_receipts
from shards.selection import JobSelection, Selection, chosen_rows, link_rows, select

NAMES_TOLD_MAX = 20
NAMES_AT_ONCE = 16_384

Part = dict[int, Ranges]  # by JobId


class NothingMatches(UsageError):
    """A path is not in the run."""

    template = "run {0} has nothing at {1}; paths are relative to {2}, or absolute"


@dataclass(slots=True)
class RestorePlan:
    """Parts by JobId: those of a list can be restored at the same time."""

    run: int
    jobs: dict[int, JobRow]
    early: list[Part] = field(default_factory=list)  # of each shard: what contents win over
    contents: list[Part] = field(default_factory=list)  # of each shard
    directories: Part = field(default_factory=dict)  # after all else
    first_names: list[bytes] = field(default_factory=list)  # some that come for their links' sake
    names: int = 0
    size_bytes: int = 0
    notes: list[str] = field(default_factory=list)  # what will not be as one would expect
    sources: list[dict[str, Any]] = field(default_factory=list)  # a row for each job


def relative_paths(root: bytes, paths: Sequence[str]) -> list[bytes] | None:
    """Return paths relative to the root; None if none were given."""
    if not paths:
        return None
    relative = []
    for path in map(os.fsencode, paths):
        if path == root or path.startswith(root.rstrip(b"/") + b"/"):
            path = path[len(root) :]
        relative.append(os.path.normpath(b"/" + path).strip(b"/"))
    return relative


def plan_restore(
    settings: Settings, catalog: Catalog, record: RunRecord, paths: Sequence[str]
) -> RestorePlan:
    """Select a run, or some paths of it, from the chains of all shards."""
    chains = shard_chains(settings, record)
    if not chains:
        raise UsageError(f"run {record.run.number} has no good job: there is nothing to restore")
    opened = open_chains(settings, catalog, record, chains)
    plan = plan_chains(settings, record, opened, paths)
    plan.notes = chain_notes(record, chains)
    return plan


def plan_chains(
    settings: Settings, record: RunRecord, opened: Sequence[OpenChain], paths: Sequence[str]
) -> RestorePlan:
    """Select from these chains."""
    run = record.run
    wanted = relative_paths(run.root, paths)
    selection = select([each.view for each in opened], wanted)
    for given, path in zip(paths, wanted or (), strict=True):
        if path not in selection.matched:
            raise NothingMatches(run.number, given, show_path(run.root))
    plan = RestorePlan(run.number, {row.job_id: row for each in opened for row in each.jobs})
    _FirstNames(settings, opened, selection, plan).add()
    for each in opened:
        own = {row.job_id: selection.jobs.get(row.job_id, JobSelection()) for row in each.jobs}
        plan.contents.append({jobid: _ranges(job.contents) for jobid, job in own.items()})
        plan.directories |= {jobid: _ranges(job.directories) for jobid, job in own.items()}
        plan.sources += [_source(each, row, own[row.job_id]) for row in each.jobs]
    plan.names, plan.size_bytes = selection.names, selection.size_bytes
    return plan


def _ranges(indexes: IndexSet) -> Ranges:
    return Ranges(tuple(indexes.ranges()))


def _source(chain: OpenChain, row: JobRow, selection: JobSelection) -> dict[str, Any]:
    return {
        "shard": chain.chain.shard,
        "jobid": row.job_id,
        "level": row.level,
        "ended": row.end,
        "names": selection.names,
        "bytes": selection.size_bytes,
    }


class _FirstNames:
    """The records of first names that chosen hard links need and that were not chosen.

    Bacula makes a hard link from the path of its inode's first name in the same job. When paths
    are restored that name may lie elsewhere; in an incomplete run another shard's job may have a
    newer word on it, and then the old record and its links go first, so that the newer one wins.
    """

    def __init__(
        self,
        settings: Settings,
        chains: Sequence[OpenChain],
        selection: Selection,
        plan: RestorePlan,
    ) -> None:
        self._settings = settings
        self._chains = chains
        self._selection = selection
        self._plan = plan

    def add(self) -> None:
        """Add them to the selection and the plan."""
        missing = {
            jobid: records
            for jobid, job in self._selection.jobs.items()
            if (records := job.missing_first_names())
        }
        if not missing:
            return
        is_contested = False
        for chunk in _chunks(self._names(missing)):
            is_contested |= self._is_chosen(chunk)
            self._plan.first_names += chunk[: NAMES_TOLD_MAX - len(self._plan.first_names)]
        if is_contested:
            self._put_first(missing)
        for jobid, records in missing.items():
            self._selection.jobs[jobid].names += len(records)
            if not is_contested:
                self._selection.jobs[jobid].contents.update(records)

    def _names(self, missing: dict[int, IndexSet]) -> Iterator[bytes]:
        """Yield the paths of records."""
        for each in self._chains:
            for link in each.view.links:
                if link.jobid in missing and link.receipts is not None:
                    folder = self._settings.state.receipts(link.run)
                    for batch in read_receipts(folder, link.receipts):
                        is_wanted = missing[link.jobid].has(batch.column("file_index").to_numpy())
                        yield from batch.column("path").filter(pa.array(is_wanted)).to_pylist()

    def _is_chosen(self, paths: Sequence[bytes]) -> bool:
        """Tell whether the selection has one of these names, from another record."""
        keys = sorted({name_key(path, is_directory=False) for path in paths})
        for rows in chosen_rows([each.view.lookup(keys) for each in self._chains]):
            for jobid, index in zip(
                rows.column("jobid").to_pylist(), rows.column("file_index").to_pylist(), strict=True
            ):
                job = self._selection.jobs.get(jobid)
                if job is not None and job.contents.has(np.array([index], dtype=np.int32))[0]:
                    return True
        return False

    def _put_first(self, missing: dict[int, IndexSet]) -> None:
        """Have the records, and the links to them, restored before everything else."""
        early = {jobid: IndexSet() for jobid in missing}
        for rows in link_rows([each.view for each in self._chains], missing):
            jobids = rows.column("jobid").to_numpy()
            index = rows.column("file_index").to_numpy()
            for jobid, links in early.items():
                contents = self._selection.jobs[jobid].contents
                own = index[jobids == jobid]
                own = own[contents.has(own)]
                contents.remove(own)
                links.add(own)
        for jobid, records in missing.items():
            early[jobid].update(records)
        for each in self._chains:
            own_jobs = {row.job_id for row in each.jobs} & set(early)
            self._plan.early.append({jobid: _ranges(early[jobid]) for jobid in sorted(own_jobs)})


def _chunks(names: Iterator[bytes]) -> Iterator[list[bytes]]:
    return iter(lambda: list(itertools.islice(names, NAMES_AT_ONCE)), [])
