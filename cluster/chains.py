"""The chains of jobs that a run is restored from, a chain for each shard.

Covers: which job a shard's chain ends with, also in a run that is incomplete; whether the catalog
still has every job of a chain; the views that the chains add up to.
Does not cover: what is taken from the views (shards.selection), the jobs that restore it (restore).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from bacula_bridge.catalog import Catalog, JobRow
from bacula_bridge.planner import catalog_names
from bacula_bridge.render import job_name
from cluster.records import GOOD_RUNS, RunRecord
from cluster.settings import Settings
from shards.errors import ForebayError
from shards.ledger import Ledger, Run
from shards.ledger_schema import JobState
from shards.shard_jobs import ShardJob, ShardJobs
from shards.view import ChainLink, View, ViewStore


class VolumesGone(ForebayError):
    """A job of a chain cannot be restored any more: (JobId, run, what the catalog says)."""

    template = "JobId {0}, from which run {1} is restored, {2}; restore another run"


@dataclass(frozen=True, slots=True)
class ShardChain:
    """The jobs that a shard is restored from."""

    shard: int
    job: ShardJob  # the good job that the chain ends with; of an older run if this one has none

    @property
    def jobids(self) -> tuple[int, ...]:
        """All of them, oldest first."""
        return (*self.job.chain, self.job.jobid)


@dataclass(frozen=True, slots=True)
class OpenChain:
    """A shard's chain, found in the catalog, with what it adds up to."""

    chain: ShardChain
    jobs: tuple[JobRow, ...]  # oldest first
    view: View


def shard_chains(settings: Settings, record: RunRecord) -> list[ShardChain]:
    """Return the chain of each shard that a restore of the run can bring, by shard.

    A shard without a good job in the run has the chain of its last good job before, of the same
    dataset and scheme.
    """
    found = {job.shard: ShardChain(job.shard, job) for job in record.saved_jobs}
    if len(found) < record.run.shards:
        with closing(Ledger(settings.state.readable_ledger, read_only=True)) as ledger:
            for run in ledger.runs(record.run.dataset):
                if run.number < record.run.number and _same_scheme(run, record.run):
                    for job in ShardJobs(ledger).jobs(run.number):
                        if job.state is JobState.GOOD:
                            found.setdefault(job.shard, ShardChain(job.shard, job))
    return [found[shard] for shard in sorted(found)]


def _same_scheme(one: Run, other: Run) -> bool:
    return (one.root, one.shards, one.seed) == (other.root, other.shards, other.seed)


def restore_jobids(settings: Settings, record: RunRecord) -> list[int]:
    """Return all jobs that plain bconsole needs to restore the run, ascending."""
    chains = shard_chains(settings, record)
    return sorted({jobid for chain in chains for jobid in chain.jobids})


def chain_notes(record: RunRecord, chains: Sequence[ShardChain]) -> list[str]:
    """Say what a restore of an incomplete run brings instead of it."""
    run = record.run
    if run.state in GOOD_RUNS:
        return []
    notes = [f"run {run.number} is {run.state.value}{f': {run.reason}' if run.reason else ''}"]
    older = {chain.shard: chain.job for chain in chains if chain.job.run != run.number}
    notes += [
        f"shard {shard} comes as it was in run {job.run} (JobId {job.jobid})"
        for shard, job in older.items()
    ]
    notes += [
        f"shard {shard} cannot be restored: no run before has a good job of it"
        for shard in sorted(set(range(run.shards)) - {chain.shard for chain in chains})
    ]
    return notes


def open_chains(
    settings: Settings, catalog: Catalog, record: RunRecord, chains: Sequence[ShardChain]
) -> list[OpenChain]:
    """Find the chains in the catalog and open their views; VolumesGone if a job is not there."""
    number = record.run.number
    rows = catalog.jobs(jobid for chain in chains for jobid in chain.jobids)
    root = record.run.root
    store = ViewStore(settings.state, lambda jobid: catalog_names(catalog, root, jobid))
    opened = []
    with closing(Ledger(settings.state.readable_ledger, read_only=True)) as ledger:
        for chain in chains:
            jobs = tuple(_checked(rows, jobid, chain, record) for jobid in chain.jobids)
            if jobs[-1].unique_name != chain.job.job:
                raise VolumesGone(chain.job.jobid, number, _another(jobs[-1]))
            links = tuple(_link(ledger, chain, row, number) for row in jobs)
            opened.append(OpenChain(chain, jobs, store.view(links)))
    return opened


def _checked(rows: dict[int, JobRow], jobid: int, chain: ShardChain, record: RunRecord) -> JobRow:
    row = rows.get(jobid)
    if row is None:
        what = "is no longer in the catalog: it was deleted, or another catalog is in use"
    elif row.name != job_name(record.run.dataset, chain.shard):
        what = _another(row)
    elif row.purged:
        what = "was purged from the catalog"
    elif not row.good:
        what = f"has status {row.status} in the catalog"
    else:
        return row
    raise VolumesGone(jobid, record.run.number, what)


def _another(row: JobRow) -> str:
    return f"is {row.unique_name} in the catalog: another catalog is in use"


def _link(ledger: Ledger, chain: ShardChain, row: JobRow, number: int) -> ChainLink:
    """Join the catalog's job with the ledger's; before a lost ledger there are names only."""
    job = ShardJobs(ledger).find(row.job_id, row.unique_name)
    if job is None and ledger.query("SELECT 1 FROM jobs WHERE jobid = ?", (row.job_id,)):
        raise VolumesGone(row.job_id, number, _another(row))
    if job is None or job.receipts is None:
        return ChainLink(0, chain.shard, row.job_id, row.tdate, None, 0)
    run = ledger.run(job.run)
    assert run is not None, "a job's run is in the ledger"
    return ChainLink(job.run, chain.shard, row.job_id, row.tdate, job.receipts, run.margin_ns)
