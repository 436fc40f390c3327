"""A made-up installation: a ledger, receipts and a catalog of two shards, without Bacula."""

import sqlite3
from contextlib import closing

from bacula_bridge.catalog import Catalog
from cluster.records import find_run
from cluster.settings import Settings
from shards.ledger import Dataset, Ledger
from shards.ledger_schema import RunState
from shards.receipts import ReceiptsWriter
from shards.shard_jobs import CatalogEnd, Claim, ShardJobs
from tests.support.receipts import receipts_batch

ROOT = b"/data"
NAME = "d"

_JOB = """CREATE TABLE Job (JobId INTEGER PRIMARY KEY, Job TEXT, Name TEXT, Type TEXT, Level TEXT,
  JobStatus TEXT, StartTime TEXT, EndTime TEXT, JobTDate INTEGER, JobFiles INTEGER,
  JobBytes INTEGER, JobErrors INTEGER, VolSessionId INTEGER, VolSessionTime INTEGER, PriorJob TEXT,
  FileSetId INTEGER, ClientId INTEGER, PurgedFiles INTEGER)"""


class World:
    """Runs of dataset d; a job's JobTDate is 1000 and its JobId."""

    def __init__(self, home):
        self.settings = Settings(home)
        self.state = self.settings.state
        self.state.make()
        self.path = home / "catalog.db"
        self.catalog = Catalog(self.path)
        self.change_catalog(_JOB)
        with self.ledger() as ledger:
            ledger.put_dataset(Dataset(NAME, "posix", ROOT, 2, 7))

    def ledger(self):
        return closing(Ledger(self.state.ledger))

    def change_catalog(self, statement, *parameters):
        with closing(sqlite3.connect(self.path)) as database:
            database.execute(statement, parameters)
            database.commit()

    def run(self, level, jobs, state=RunState.COMPLETE):
        """Add a run; jobs are {shard: (JobId, chain, receipts)}, receipts None: the job failed."""
        with self.ledger() as ledger:
            run = ledger.begin_run(NAME, level)
            self.state.make_run(run.number)
            for shard, (jobid, chain, receipts) in jobs.items():
                self._job(ledger, run.number, shard, jobid, chain, receipts)
            ledger.end_run(run.number, state, None)
        return run.number

    def _job(self, ledger, run, shard, jobid, chain, receipts):
        unique = f"forebay-d-{shard}.{jobid}"
        letter = "I" if chain else "F"
        shard_jobs = ShardJobs(ledger)
        shard_jobs.claim(run, shard, Claim(jobid, unique, letter, tuple(chain)), 1)
        if receipts is not None:
            writer = ReceiptsWriter(self.state.receipts(run), shard, jobid)
            writer.write(receipts_batch(receipts))
            shard_jobs.streamed(run, shard, jobid, 1, writer.commit())
        status = "f" if receipts is None else "T"
        end = CatalogEnd(status, 1, 1, 0.0, 1.0)
        shard_jobs.ended(run, shard, jobid, unique, end)
        self.change_catalog(
            "INSERT INTO Job VALUES (?, ?, ?, 'B', ?, ?, '', '', ?, 1, 1, 0, 1, 1, '', 1, 1, 0)",
            jobid,
            unique,
            f"forebay-d-{shard}",
            letter,
            status,
            1000 + jobid,
        )

    def forget(self, *jobids):
        """Delete jobs from the catalog."""
        for jobid in jobids:
            self.change_catalog("DELETE FROM Job WHERE JobId = ?", jobid)

    def record(self, run):
        return find_run(self.settings, str(run))
