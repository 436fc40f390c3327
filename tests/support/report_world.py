"""A state directory with a run in it, made without Bacula, Ray or a filesystem.

Covers: leases of several targets, jobs with receipts, all at times that a clock by hand says.
Does not cover: rows in segments, which no report reads.
"""

from types import SimpleNamespace

from cluster.settings import Settings
from shards import ledger as ledger_module
from shards import receipts as receipts_module
from shards import shard_jobs as jobs_module
from shards import throughput as throughput_module
from shards.lease import PendingDirectory
from shards.ledger import Dataset, LeaseResult, Ledger
from shards.receipts import ReceiptsWriter
from shards.shard_jobs import CatalogEnd, Claim, ShardJobs, verdict
from tests.support.receipts import receipts_batch

START = 1_790_000_000.0
EPOCH = 1


class ReportWorld:
    """One dataset, one run at a time; a context manager."""

    def __init__(self, folder, monkeypatch, shards=2, name="home", root=b"/srv/home"):
        self.settings = Settings(folder)
        self.now = START
        clock = SimpleNamespace(time=lambda: self.now)
        for module in (ledger_module, receipts_module, jobs_module, throughput_module):
            monkeypatch.setattr(module, "time", clock)
        self.settings.state.make()
        self.ledger = Ledger(self.settings.state.ledger)
        self.jobs = ShardJobs(self.ledger)
        self.shards = shards
        self.name = name
        self.ledger.put_dataset(Dataset(name, "posix", root, shards, 0))
        self._writers = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.ledger.close()

    def open_run(self, level="full", targets=1):
        self.run = self.ledger.begin_run(self.name, level).number
        self.settings.state.make_run(self.run)
        self.epochs = {target: self._epoch(target) for target in range(targets)}
        return self.run

    def _epoch(self, target):
        return self.ledger.take_epoch(f"walker:{target}")

    def walk(self, target, seconds, inodes, frontier=(), **others):
        """Let a walker take and commit a lease that took so long."""
        lease = self.ledger.take_lease(target, f"walker:{target}", self.epochs[target])
        assert lease is not None, f"nothing is pending for target {target}"
        self.now += seconds
        found = {"directories": 1, "size_bytes": 0, "errors": 0} | others
        pending = tuple(PendingDirectory(b"d%d" % n, 0, n) for n in frontier)
        result = LeaseResult((), pending, inodes, **found)
        self.ledger.commit_lease(lease.number, f"walker:{target}", self.epochs[target], result)

    def join(self, shard, jobid, **claim):
        values = {"job": f"job.{jobid}", "level": "F"} | claim
        self.jobs.claim(self.run, shard, Claim(jobid, **values), EPOCH)
        folder = self.settings.state.receipts(self.run)
        self._writers[jobid] = ReceiptsWriter(folder, shard, jobid)

    def receive(self, jobid, receipts):
        self._writers[jobid].write(receipts_batch(receipts))

    def finish(self, shard, jobid, status="T", started=None):
        info = self._writers.pop(jobid).commit()
        self.jobs.streamed(self.run, shard, jobid, EPOCH, info)
        summary = info.summary
        end = CatalogEnd(
            status,
            summary.files,
            summary.size_bytes,
            START if started is None else started,
            self.now,
        )
        self.jobs.ended(self.run, shard, jobid, f"job.{jobid}", end)

    def end_run(self):
        state, reason = verdict(self.ledger.run(self.run), self.jobs.jobs(self.run))
        self.ledger.end_run(self.run, state, reason)
