"""What a job builds on: the Director's word, the catalog's, and the ledger's, brought together.

Covers: the chain of a job verified in the catalog, the chains of all other shards, what makes an
incremental impossible, the clock.
Does not cover: which runs are open (coordinator), reading what the jobs saved (planner).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bacula_bridge.catalog import Catalog, JobRow
from bacula_bridge.chain import FULL, BaseUnknown, base_chain, current_chain, local_time
from bacula_bridge.protocol import Hello
from bacula_bridge.render import job_name
from bacula_bridge.source import Base, JoinRefused
from shards.ledger import Dataset, Ledger, Run
from shards.shard_jobs import ShardJobs
from shards.view import ChainLink

JOBS_MAX = 100_000  # of one Job resource that are looked at
CLOCK_WAIT_MAX_S = 3.0  # longer than that is no second to wait for, but a wrong clock


class ClockBehind(JoinRefused):
    """Bacula tells newer from older by the clock."""

    template = (
        "the clock says {0}, but JobId {1} ended at {2}: a restore would take that job for the"
        " newer one; set the clock right, or wait until it has passed that time"
    )


@dataclass(frozen=True, slots=True)
class Bases:
    """What a run's job can be compared with."""

    base: Base | None  # None: a Full
    chain: tuple[JobRow, ...]
    newest: int  # JobTDate that this job must end after; 0: it need not end after any


class BaseFinder:
    """Asks the catalog, at every join anew: jobs may have been deleted since."""

    def __init__(self, ledger: Ledger, catalog: Catalog) -> None:
        self._jobs = ShardJobs(ledger)
        self._ledger = ledger
        self._catalog = catalog

    def chains(self, dataset: str, shards: int) -> list[list[JobRow]]:
        """Return each shard's chain as a restore would take it now, oldest job first."""
        return [current_chain(self._rows(dataset, shard)) for shard in range(shards)]

    def _rows(self, dataset: str, shard: int) -> list[JobRow]:
        return self._catalog.jobs_named(job_name(dataset, shard), JOBS_MAX)

    def find(self, run: Run, hello: Hello) -> Bases:
        """Return what a job builds on; JoinRefused if that cannot be told, or must not be."""
        rows = [self._rows(run.dataset, shard) for shard in range(run.shards)]
        currents = [current_chain(own) for own in rows]
        newest = max((row for chain in currents for row in chain), key=_age, default=None)
        if run.level == "full" and hello.level == FULL:
            newest = None  # nothing that was saved before is looked at again
        if newest is not None:
            _check_clock(newest)
        chain = base_chain(rows[hello.shard], hello.level, hello.previous_job)
        base = None
        dataset = self._ledger.dataset(run.dataset)
        assert dataset is not None, "a run's dataset is in the ledger"
        if chain:
            links = tuple(tuple(self.link(dataset, row) for row in own) for own in currents)
            base = Base(tuple(self.link(dataset, row) for row in chain), links)
        return Bases(base, tuple(chain), newest.tdate if newest else 0)

    def link(self, dataset: Dataset, row: JobRow) -> ChainLink:
        """Join the catalog's job with the ledger's; BaseUnknown if it was of another scheme."""
        shard = int(row.name.rpartition("-")[2])
        run = self.run_of(row)
        job = self._jobs.find(row.job_id, row.unique_name)
        if run is None or job is None:
            return ChainLink(0, shard, row.job_id, row.tdate, None, 0)
        for what, then, now in (
            ("dataset", run.dataset, dataset.name),
            ("root", run.root, dataset.root),
            ("number of shards", run.shards, dataset.shards),
            ("shard function's seed", run.seed, dataset.seed),
        ):
            if then != now:
                raise BaseUnknown(
                    f"the {what} was {then} when JobId {row.job_id} ran and is {now} now"
                )
        return ChainLink(run.number, shard, row.job_id, row.tdate, job.receipts, run.margin_ns)

    def why_full(self, dataset: Dataset) -> str | None:
        """Say why the next run had better be a Full; empty when there simply is none yet."""
        chains = self.chains(dataset.name, dataset.shards)
        if not any(chains):
            return ""
        for chain in chains:
            for row in chain:
                if row.purged:
                    return f"the files of JobId {row.job_id} were purged from the catalog"
                try:
                    link = self.link(dataset, row)
                except BaseUnknown as error:
                    return str(error.args[0])
                if link.receipts is None:
                    return f"JobId {row.job_id} is not in the run ledger"
        newest = next((run for run in self._ledger.runs(dataset.name) if run.ended), None)
        if newest is not None and newest.shards != dataset.shards:
            return f"run {newest.number} had {newest.shards} shards, it has {dataset.shards} now"
        return None

    def broken_chain(self, chain: Sequence[JobRow]) -> str | None:
        """Say how a chain differs from the one that its newest job was compared with, if it does.

        What a deleted job saved is missing from the view, and what a job saved that ended late is
        in it, however long ago the names concerned have changed.
        """
        newest = chain[-1]
        job = self._jobs.find(newest.job_id, newest.unique_name)
        if job is None:
            return None
        now = {row.job_id for row in chain[:-1]}
        if gone := sorted(set(job.chain) - now):
            return f"JobId {gone[0]}, on which JobId {newest.job_id} builds, is gone"
        if late := sorted(now - set(job.chain)):
            return f"JobId {late[0]} ended after JobId {newest.job_id} had begun"
        return None

    def run_of(self, row: JobRow) -> Run | None:
        """Return the run that a job belonged to, if its receipts are known."""
        job = self._jobs.find(row.job_id, row.unique_name)
        return self._ledger.run(job.run) if job is not None and job.receipts else None


def _age(row: JobRow) -> tuple[int, int]:
    return row.tdate, row.job_id


def _check_clock(newest: JobRow) -> None:
    now = time.time()
    if newest.tdate + 1 - now > CLOCK_WAIT_MAX_S:
        raise ClockBehind(local_time(int(now)), newest.job_id, local_time(newest.tdate))
