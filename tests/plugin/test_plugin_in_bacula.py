"""The plugin's backup side in a real bacula-fd 15.0, against a bridge that can misbehave.

Covers: what the catalog and the job log say for good jobs, single files that fail, streams that
break, refused jobs; that the File Daemon lives on.
Does not cover: the product's bridge and restores (tests/system).
"""

import errno
import os
import re
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bacula_bridge import programs
from bacula_bridge.lab import Lab
from tests.plugin.restore_support import PLUGIN
from tests.support.stream_bridge import (
    FLAG_STAT_FAILED,
    SCAN_ERROR,
    VANISHED,
    Entry,
    Misbehaviour,
    StreamBridge,
    entries_of_tree,
    split,
)
from tests.support.tree import make_tree, remove_tree

pytestmark = pytest.mark.bacula

SHARDS = 2
WAIT_S = 120.0
POLL_S = 0.2
RUNNING = frozenset("CRFSMmsjdcptuDBil")
BROKEN_WAYS = [
    Misbehaviour.REFUSE,
    Misbehaviour.CUT_FRAME,
    Misbehaviour.CLOSE_IN_STREAM,
    Misbehaviour.WRONG_CRC,
    Misbehaviour.WRONG_END_CRC,
    Misbehaviour.CLOSE_INSTEAD_OF_ACK,
]


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Job:
    jobid: int
    status: str
    errors: int
    files: int
    log: str


class Bacula:
    """A lab with one dataset, `data`, of two shards."""

    def __init__(self, base: Path) -> None:
        self.lab = Lab(base / "lab", programs.ensure())
        self.socket = base / "s"
        self.lab.up(devices=SHARDS + 1, socket=str(self.socket))
        self.lab.set_dataset("data", SHARDS)

    def daemon_pid(self) -> int:
        (pid,) = [daemon.pid for daemon in self.lab.status().daemons if daemon.name == "file"]
        return pid

    def query(self, sql: str, *values: object) -> list[tuple]:
        catalog = sqlite3.connect(f"file:{self.lab.catalog}?mode=ro", uri=True, timeout=WAIT_S)
        catalog.text_factory = os.fsdecode
        try:
            return catalog.execute(sql, values).fetchall()
        finally:
            catalog.close()

    def submit(self) -> list[int]:
        lines = [f"run job=forebay-data-{k} level=Full yes\n" for k in range(SHARDS)]
        jobids = re.findall(r"JobId=(\d+)", self.lab.console("".join(lines)))
        assert len(jobids) == SHARDS
        return [int(jobid) for jobid in jobids]

    def job(self, jobid: int) -> Job:
        sql = "select JobStatus, JobErrors, JobFiles from Job where JobId = ?"
        await_true(lambda: self.query(sql, jobid)[0][0] not in RUNNING)
        log = self.query("select LogText from Log where JobId = ? order by LogId", jobid)
        return Job(jobid, *self.query(sql, jobid)[0], "".join(text for (text,) in log))

    def run(
        self,
        root: Path,
        shards: Sequence[Sequence[Entry]],
        way: Misbehaviour = Misbehaviour.NONE,
    ) -> tuple[list[Job], StreamBridge]:
        with StreamBridge(self.socket, root, shards, misbehaviour={0: way}, per_frame=10) as bridge:
            return [self.job(jobid) for jobid in self.submit()], bridge


@pytest.fixture(scope="module")
def bacula(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bacula]:
    subprocess.run(["make", "-s", "-C", str(PLUGIN)], check=True)
    one = Bacula(tmp_path_factory.mktemp("bacula"))
    yield one
    one.lab.down()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    for number in range(120):
        (path / f"file{number}").write_bytes(b"x" * number)
    return path


def name_of(root: Path, entry: Entry) -> str:
    """Return the name in the catalog; a directory's ends in a slash."""
    slash = "/" if stat.S_ISDIR(entry.mode) and entry.path else ""
    return f"{root}/{os.fsdecode(entry.path)}{slash}"


def test_two_jobs_at_once_save_a_tree_under_the_file_indexes_of_their_receipts(bacula, tmp_path):
    tree = tmp_path / "tree"
    make_tree(tree, 1_500, 2, os.geteuid() == 0)
    shards = split(entries_of_tree(tree), SHARDS)
    jobs, bridge = bacula.run(tree, shards)
    sql = "select FileIndex, Path || Filename from File join Path using (PathId) where JobId = ?"
    for job, entries, k in zip(jobs, shards, range(SHARDS), strict=True):
        assert (job.status, job.errors) == ("T", 0), job.log
        receipts = bridge.stream(k).receipts
        names = {
            name_of(tree, entry): receipt.file_index
            for entry, receipt in zip(entries, receipts, strict=True)
            if receipt.file_index
        }
        assert {name: index for index, name in bacula.query(sql, job.jobid)} == names
        assert job.files == len(names)
    remove_tree(tree)


def test_a_file_that_fails_makes_the_job_end_with_warnings(bacula, root):
    shards = split(entries_of_tree(root), SHARDS)
    shards[0] = [
        Entry(b"gone", 2, 0, stat.S_IFREG, 1),
        Entry(b"unknown", 4, 0, 0, 0, errno.EIO, FLAG_STAT_FAILED),
        *shards[0],
    ]
    (first, second), bridge = bacula.run(root, shards)
    assert (first.status, first.errors) == ("T", 2)
    assert "Backup OK -- with warnings" in first.log
    assert f"{root}/gone: No such file or directory" in first.log
    assert f"{root}/unknown: Input/output error" in first.log
    assert (second.status, second.errors) == ("T", 0)
    statuses = [receipt.status for receipt in bridge.stream(0).receipts]
    assert statuses[:2] == [VANISHED, SCAN_ERROR]


@pytest.mark.parametrize("way", BROKEN_WAYS, ids=lambda way: way.name.lower())
def test_a_broken_stream_ends_its_job_in_error_and_the_daemon_lives_on(bacula, root, way):
    pid = bacula.daemon_pid()
    (broken, good), _ = bacula.run(root, split(entries_of_tree(root), SHARDS), way)
    assert broken.status == "f"
    assert broken.log.count("Fatal error: forebay: dataset data, shard 0/2: ") == 1
    assert "Backup OK" not in broken.log
    assert (good.status, good.errors) == ("T", 0)
    assert bacula.daemon_pid() == pid


def test_without_a_bridge_the_job_ends_in_error(bacula):
    for jobid in bacula.submit():
        job = bacula.job(jobid)
        assert job.status == "f"
        assert "cannot connect to the bridge" in job.log


def test_a_cancelled_job_lets_go_of_the_bridge_and_the_daemon_lives_on(bacula, root):
    pid = bacula.daemon_pid()
    shards = split(entries_of_tree(root), SHARDS)
    ways = {0: Misbehaviour.STALL}
    with StreamBridge(bacula.socket, root, shards, misbehaviour=ways, per_frame=10) as bridge:
        jobids = bacula.submit()
        # Half of the entries come; how many that are depends on the inode numbers.
        some = len(shards[0]) // 4
        await_true(lambda: any(s.shard == 0 and len(s.receipts) > some for s in bridge.streams))
        bacula.lab.console(f"cancel jobid={jobids[0]} yes\n")
        assert bridge.stream(0).done is None
        canceled, good = (bacula.job(jobid) for jobid in jobids)
    assert canceled.status in ("A", "I")
    assert "Fatal error: forebay" not in canceled.log
    assert good.status == "T"
    assert bacula.daemon_pid() == pid


def test_an_estimate_leaves_the_bridge_alone(bacula):
    answer = bacula.lab.console("estimate job=forebay-data-0\n")
    assert "2000 OK estimate files=0" in answer
    assert "forebay scan" in answer
