"""A coordinator and a bridge without Ray, Bacula or a filesystem; two trees to back up.

Covers: runs opened, rows committed as a walker would, jobs served and ended by hand.
Does not cover: the client's side of a stream (plugin_client), rows (rows).
"""

import threading
from contextlib import contextmanager

from bacula_bridge.catalog import FileRow, JobRow
from bacula_bridge.coordinator import Coordinator
from bacula_bridge.protocol import Accept, FrameType
from bacula_bridge.render import job_name
from bacula_bridge.server import JOIN_WAIT_S, BridgeServer
from shards.ledger import LeaseResult
from shards.ledger_schema import RunState
from shards.segment import write_segment
from shards.shard_jobs import CatalogEnd
from shards.state import StateDirectory
from tests.support.plugin_client import PluginClient
from tests.support.rows import directory, grouped, row

ROLE = "walker:0"
PAST = 1_700_000_000
STAMP = 1_600_000_000 * 10**9
READ_NS = (PAST - 10) * 10**9
DEADLINE_S = 20.0
GOOD = CatalogEnd("T", 1, 1, 1.0, 2.0)


class Pause:
    """Stops whoever calls it until the block of `during` has ended."""

    def __init__(self):
        self._asked, self._go_on = threading.Event(), threading.Event()

    def __call__(self):
        self._asked.set()
        assert self._go_on.wait(DEADLINE_S)

    @contextmanager
    def during(self, action, *arguments):
        """Run the block while the action, in a thread of its own, has come to the call."""
        thread = threading.Thread(target=action, args=arguments)
        thread.start()
        try:
            assert self._asked.wait(DEADLINE_S)
            yield
        finally:
            self._go_on.set()
            thread.join(DEADLINE_S)


def check_answered(ask):
    """Check that a question is answered, and not only when something else has ended."""
    answered = threading.Event()

    def asking():
        ask()
        answered.set()

    threading.Thread(target=asking, daemon=True).start()
    assert answered.wait(DEADLINE_S)


class FakeCatalog:
    """What the coordinator and the planner ask of Bacula's catalog."""

    def __init__(self):
        self.rows = []  # oldest first
        self.names = {}  # FileIndex by path, by JobId

    def jobs_named(self, name, limit=100):
        return [row for row in reversed(self.rows) if row.name == name][:limit]

    def jobs(self, job_ids):
        return {row.job_id: row for row in self.rows if row.job_id in job_ids}

    def job(self, job_id):
        return self.jobs([job_id]).get(job_id)

    def files(self, job_id):
        return (FileRow(index, path, "", "") for path, index in self.names[job_id].items())

    def add(self, jobid, level="F", shard=0, tdate=PAST):
        """Let a job have ended well, under the unique name that the client gives itself."""
        made = JobRow(
            *(jobid, f"job.{jobid}", job_name("d", shard), "B", level, "T"),
            *("2026-01-01 00:00:00", "2026-01-01 00:00:01", tdate, 1, 1, 0, 1, 1, ""),
        )
        self.rows.append(made)


class Site:
    """A coordinator and a bridge without Ray, and a hand-driven walker."""

    def __init__(
        self,
        folder,
        shards=1,
        changes=lambda dataset: None,
        service=None,
        join_wait_s=JOIN_WAIT_S,
        socket="b.sock",
        ledger_folder=None,
    ):
        self.state = StateDirectory(folder / "state", ledger_folder)
        self.catalog = FakeCatalog()
        self.coordinator = Coordinator(self.state, self.catalog, changes, service=service)
        self.shards = shards
        self.dataset = self.coordinator.define_dataset("d", "posix", b"/data", shards)
        self.socket = folder / socket
        self.bridge = BridgeServer(
            *(self.socket, self.coordinator, self.state, self.catalog), join_wait_s=join_wait_s
        )
        self.epoch = self.coordinator.take_epoch(ROLE)

    def close(self):
        self.bridge.stop()
        self.coordinator.close()

    def open_run(self, level="full"):
        self.run = self.coordinator.open_run("d", level).number
        return self.run

    def backup(self, rows, jobid, level="F", tdate=PAST, **hello):
        """Run shard 0 of a run of one shard to its good end; return ACCEPT and the entries."""
        self.open_run("full" if level == "F" else "incremental")
        self.commit(rows)
        with self.client() as client:
            accept = client.hello(jobid=jobid, level=level, **hello)
            assert isinstance(accept, Accept), accept
            entries = list(client.entries())
            if entries:
                client.acknowledge_as_scanned(entries, rows, READ_NS)
            client.done()
            assert client.read()[0] is FrameType.DONE_ACK
        self.join_streams()
        self.catalog.add(jobid, level, tdate=tdate)
        self.coordinator.job_ended(self.run, 0, jobid, f"job.{jobid}", GOOD)
        assert self.coordinator.end_run(self.run).state is RunState.COMPLETE
        return accept, entries

    def commit(self, rows, frontier=()):
        lease = self.coordinator.take_lease(0, ROLE, self.epoch, 5)
        batch, counts = grouped(rows, self.shards, self.dataset.seed)
        info = write_segment(
            self.state.segments(lease.run),
            f"{lease.number}.arrow",
            batch,
            counts,
            run=lease.run,
            lease=lease.number,
            epoch=self.epoch,
        )
        result = LeaseResult((info,), tuple(frontier), len(rows), 0, 0, 0, whole=lease.whole)
        self.coordinator.commit_lease(lease.number, ROLE, self.epoch, result)

    def client(self):
        return PluginClient(self.socket)

    def job(self, shard=0):
        return [job for job in self.coordinator.status(self.run).jobs if job.shard == shard][-1]

    def wait_broken(self):
        """Wait for the bridge to have recorded the stream's end."""
        self.join_streams()
        return self.job()

    def join_streams(self):
        for connection in list(self.bridge._connections.values()):
            connection.thread.join(20)


def old(path, ino, **others):
    """Return a row that was as it is long before the first backup."""
    make = directory if others.pop("is_directory", False) else row
    return make(path, ino, **({"mtime": STAMP, "ctime": STAMP} | others))


def first_tree():
    return [
        old(b"", 1, is_directory=True),
        old(b"d", 2, is_directory=True),
        old(b"d/same", 10, size=1),
        old(b"d/changed", 11, size=1),
        old(b"d/gone", 12, size=1),
        old(b"e", 3, is_directory=True),
        old(b"link-a", 13, nlink=2),
        old(b"link-b", 13, nlink=2),
        old(b"stays-a", 14, nlink=2),
        old(b"stays-b", 14, nlink=2),
    ]


def second_tree():
    """Return first_tree() after a write, a new name, two removed ones, a chmod, and an rmdir."""
    now = {"ctime": STAMP + 1}
    return [
        old(b"", 1, is_directory=True, **now),
        old(b"d", 2, is_directory=True, **now),
        old(b"d/same", 10, size=1),
        old(b"d/changed", 11, size=1, **now),
        old(b"d/new", 20, **now),
        old(b"link-a", 13, **now),
        old(b"stays-a", 14, nlink=2, **now),
        old(b"stays-b", 14, nlink=2, **now),
    ]
