"""The plugin's backup side in a real bacula-fd 15.0, against a bridge that can misbehave.

Covers: what the catalog and the job log say for good jobs, deleted names, single files that fail,
streams that break, refused and cancelled jobs; symlinks out of the root; that the File Daemon
lives on; attributes through Bacula's own record and back.
Does not cover: the product's bridge and its restores (tests/system).
"""

import contextlib
import ctypes
import errno
import os
import re
import shutil
import signal
import sqlite3
import stat
import string
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bacula_bridge import programs
from bacula_bridge.lab import PLUGIN_SOURCE, Lab
from bacula_bridge.render import CLIENT_NAME
from tests.plugin.restore_support import PLUGIN, Reach, read_xattrs, short_rdev
from tests.support.compare import compare_trees, format_differences
from tests.support.stream_bridge import (
    DELETED,
    FLAG_DELETED,
    FLAG_STAT_FAILED,
    REPLACED,
    SAVED,
    SCAN_ERROR,
    VANISHED,
    Entry,
    Misbehaviour,
    StreamBridge,
    entries_of_tree,
    split,
)
from tests.support.tree import DEFAULT_ACL, make_tree, remove_tree

pytestmark = pytest.mark.bacula

SHARDS = 2
WAIT_S = 120.0
POLL_S = 0.1
CANCEL_MAX_S = 5.0
METADATA_CALLS = (
    *("open", "openat", "openat2", "access", "faccessat", "faccessat2", "readlink", "readlinkat"),
    *("stat", "lstat", "fstat", "newfstatat", "statx", "listxattr", "llistxattr", "flistxattr"),
    *("getxattr", "lgetxattr", "fgetxattr"),
)
OTHER_CALLS_MAX = 100  # of the daemon itself for two jobs
STATUS = "select JobStatus from Job where JobId = ?"
RUNNING = frozenset("CRFSMmsjdcptuDBil")
CANCELED = ("A", "I")  # docs/bacula-15.0.3.md says when it is which
BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
RDEV_FIELD = 6  # its place in LStat
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

    def __init__(self, base: Path, plugin: Path = PLUGIN_SOURCE) -> None:
        self.lab = Lab(base / "lab", programs.ensure(), plugin)
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

    def submit(self, level: str = "Full") -> list[int]:
        lines = [f"run job=forebay-data-{k} level={level} yes\n" for k in range(SHARDS)]
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
        level: str = "Full",
    ) -> tuple[list[Job], StreamBridge]:
        with StreamBridge(self.socket, root, shards, misbehaviour={0: way}, per_frame=10) as bridge:
            return [self.job(jobid) for jobid in self.submit(level)], bridge

    def files(self, jobid: int) -> dict[str, int]:
        """Return what the catalog has of a job: FileIndex by name."""
        sql = "select Path || Filename, FileIndex from File join Path using (PathId)"
        return dict(self.query(f"{sql} where JobId = ?", jobid))

    def records(self, jobids: Sequence[int]) -> dict[str, int]:
        """Return st_rdev of the records in the catalog by name."""
        sql = "select Path || Filename, LStat from File join Path using (PathId) where JobId = ?"
        rows = [row for jobid in jobids for row in self.query(sql, jobid)]
        return {name: number_of(record.split()[RDEV_FIELD]) for name, record in rows}

    def restore(self, jobids: Sequence[int], to: Path) -> Job:
        listed = ",".join(map(str, jobids))
        answer = self.lab.console(
            f'restore client="{CLIENT_NAME}" jobid={listed} where="{to}" all done yes\n'
        )
        return self.job(int(re.findall(r"JobId=(\d+)", answer)[-1]))


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
    for job, entries, k in zip(jobs, shards, range(SHARDS), strict=True):
        assert (job.status, job.errors) == ("T", 0), job.log
        receipts = bridge.stream(k).receipts
        names = {
            name_of(tree, entry): receipt.file_index
            for entry, receipt in zip(entries, receipts, strict=True)
            if receipt.file_index
        }
        assert bacula.files(job.jobid) == names
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
    assert canceled.status in CANCELED
    assert "Fatal error: forebay" not in canceled.log
    assert good.status == "T"
    assert bacula.daemon_pid() == pid


def number_of(digits: str) -> int:
    """Return a number as Bacula's record spells it."""
    value = 0
    for digit in digits.removeprefix("-"):
        value = value << 6 | BASE64.index(digit)
    return -value if digits.startswith("-") else value


def test_attributes_come_back_by_the_record_alone_or_with_a_stream(bacula, tmp_path):
    """Of what has no xattrs the nanoseconds are in the record, below a default ACL, too."""
    tree = tmp_path / "tree"
    make_tree(tree, 200, 3, os.geteuid() == 0)
    entries = entries_of_tree(tree)
    jobs, _ = bacula.run(tree, split(entries, SHARDS))
    assert [(job.status, job.errors) for job in jobs] == [("T", 0)] * SHARDS
    records = bacula.records([job.jobid for job in jobs])
    reach = Reach(bytes(tree))
    alone = with_stream = 0
    for entry in entries:
        if (entry.nlink > 1 and not stat.S_ISDIR(entry.mode)) or stat.S_ISSOCK(entry.mode):
            continue
        path = reach(entry.path)
        info, rdev = os.lstat(path), records[name_of(tree, entry)]
        if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) or read_xattrs(path):
            assert rdev == info.st_rdev
            with_stream += 1
        else:
            # To read where a symlink leads has moved its atime.
            symlink = stat.S_ISLNK(info.st_mode)
            atime_ns = rdev % (1 << 30) if symlink else info.st_atime_ns % 10**9
            assert rdev == short_rdev(info.st_mtime_ns % 10**9, atime_ns)
            alone += 1
    reach.close()
    assert min(alone, with_stream) > 20
    place = tmp_path / "to"
    place.mkdir()
    os.setxattr(place, "system.posix_acl_default", DEFAULT_ACL)
    restored = bacula.restore([job.jobid for job in jobs], place)
    assert (restored.status, restored.errors) == ("T", 0), restored.log
    assert "attributes stream" not in restored.log
    differences = compare_trees(tree, Path(f"{place}{tree}"), times=("mtime", "atime"))
    assert not differences, format_differences(differences)
    for made in (tree, place):
        remove_tree(made)


def make_dying(root: Path) -> None:
    """Make what the test removes again: a directory with names of every kind, and a file."""
    (root / "dying" / "below").mkdir(parents=True)
    (root / "dying" / "file").write_bytes(b"file")
    (root / "dying" / "below" / "file").write_bytes(b"file")
    (root / "dying" / "symlink").symlink_to("file")
    (root / "dying" / "link").hardlink_to(root / "dying" / "file")
    os.mkfifo(root / "dying" / "fifo")
    (root / "lone").write_bytes(b"lone")


def test_deleted_names_are_hidden_by_a_restore_and_marked_in_the_catalog(bacula, root, tmp_path):
    make_dying(root)
    gone = [
        replace(entry, flags=FLAG_DELETED)
        for entry in entries_of_tree(root)
        if entry.path.startswith((b"dying", b"lone"))
    ]
    assert len(gone) == 8
    fulls, _ = bacula.run(root, split(entries_of_tree(root), SHARDS))
    shutil.rmtree(root / "dying")
    (root / "lone").unlink()
    # All deleted names, directories among them, come before the directories.
    shards = split([*gone, *entries_of_tree(root)[-1:]], SHARDS)
    incrementals, bridge = bacula.run(root, shards, level="Incremental")
    assert [job.status for job in [*fulls, *incrementals]] == ["T"] * 4
    for job, entries, k in zip(incrementals, shards, range(SHARDS), strict=True):
        files = bacula.files(job.jobid)
        assert len(files) == len(entries)
        for entry, receipt in zip(entries, bridge.stream(k).receipts, strict=True):
            deleted = bool(entry.flags & FLAG_DELETED)
            assert receipt.status == (DELETED if deleted else SAVED)
            index = files[name_of(root, entry)]
            assert index == (-receipt.file_index if deleted else receipt.file_index)
            assert (index < 0) == deleted
    restored = bacula.restore([job.jobid for job in [*fulls, *incrementals]], tmp_path / "to")
    assert restored.status == "T", restored.log
    place = Path(f"{tmp_path}/to{root}")
    assert not compare_trees(root, place)
    only_fulls = bacula.restore([job.jobid for job in fulls], tmp_path / "before")
    assert only_fulls.status == "T", only_fulls.log
    assert os.path.lexists(f"{tmp_path}/before{root}/dying/below/file")


@pytest.mark.parametrize(
    "way", [Misbehaviour.NO_ANSWER, Misbehaviour.SILENCE, Misbehaviour.STALL, Misbehaviour.NO_ACK]
)
def test_cancel_ends_a_job_that_waits_for_the_bridge_and_no_other(bacula, root, way):
    """The bridge does not answer HELLO; accepts and says nothing; keeps alive only; ends so."""
    entries = split(entries_of_tree(root), SHARDS)
    waits_at_once = way in (Misbehaviour.SILENCE, Misbehaviour.STALL)
    shards = [[] if waits_at_once else entries[0], entries[1]]
    ways = {0: way, 1: Misbehaviour.HOLD}
    with StreamBridge(bacula.socket, root, shards, misbehaviour=ways, per_frame=10) as bridge:
        jobids = bacula.submit()
        await_true(lambda: {stream.shard for stream in bridge.streams} == {0, 1})
        waiting, other = sorted(bridge.streams, key=lambda stream: stream.shard)
        if way is Misbehaviour.NO_ACK:
            await_true(lambda: waiting.done is not None)
        await_true(lambda: len(other.receipts) == len(entries[1]) // 2)
        began = time.monotonic()
        bacula.lab.console(f"cancel jobid={jobids[0]} yes\n")
        canceled = bacula.job(jobids[0])
        assert time.monotonic() - began < CANCEL_MAX_S
        assert canceled.status in CANCELED
        assert "Fatal error: forebay" not in canceled.log
        assert bacula.query(STATUS, jobids[1])[0][0] in RUNNING
        assert other.done is None
        bridge.go.set()
        good = bacula.job(jobids[1])
        assert (good.status, good.files) == ("T", len(entries[1]))


@contextlib.contextmanager
def counted_calls(pid: int, report: Path) -> Iterator[dict[str, int]]:
    """Count a process's system calls while the block runs; the answer is there afterwards."""
    command = ["strace", "-f", "-c", "-o", str(report), "-p", str(pid)]
    strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    calls: dict[str, int] = {}
    try:
        first = strace.stderr.readline()
        if "attached" not in first:
            pytest.skip(f"strace cannot attach here: {first.strip()}")
        yield calls
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=WAIT_S)
    for line in report.read_text().splitlines():
        words = line.split()
        if len(words) >= 5 and words[3].isdigit():
            calls[words[-1]] = int(words[3])


def test_a_small_file_costs_three_calls_for_its_metadata(bacula, tmp_path):
    """One to open it, one for its attributes, one for the names of its xattrs."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    root = tmp_path / "root"
    root.mkdir()
    count = 1000
    for number in range(count):
        (root / f"file{number}").write_bytes(b"x" * (number + 1))
    with counted_calls(bacula.daemon_pid(), tmp_path / "calls") as calls:
        jobs, _ = bacula.run(root, split(entries_of_tree(root), SHARDS))
    assert [job.status for job in jobs] == ["T"] * SHARDS
    assert calls["read"] + calls["pread64"] >= count
    metadata = {name: calls[name] for name in METADATA_CALLS if name in calls}
    assert metadata["openat2"] == count  # each was opened, and opened once
    assert sum(metadata.values()) <= 3 * count + OTHER_CALLS_MAX, metadata


class Watch:
    """Tells whether anything in a directory was opened or read, by inotify."""

    IN_ACCESS, IN_OPEN = 0x1, 0x20

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        path = os.fsencode(directory)
        assert libc.inotify_add_watch(self.fd, path, self.IN_ACCESS | self.IN_OPEN) > 0

    def events(self) -> bytes:
        try:
            return os.read(self.fd, 65_536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.fd)


def test_what_is_swapped_for_a_symlink_after_the_scan_leads_nowhere(bacula, root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    for name in ("d", "d/e"):
        (root / name).mkdir()
        (root / name / "file").write_bytes(b"public")
    (root / "swapped").write_bytes(b"public")
    entries = entries_of_tree(root)
    # The inodes live on: it is not their numbers that tell.
    (root / "d").rename(tmp_path / "kept")
    (root / "d").symlink_to(outside)
    (tmp_path / "kept" / "e").rename(outside / "e")
    (root / "swapped").rename(tmp_path / "kept-file")
    (root / "swapped").symlink_to(outside / "file")
    watches = [Watch(outside), Watch(outside / "e")]
    try:
        jobs, bridge = bacula.run(root, split(entries, SHARDS))
        assert [watch.events() for watch in watches] == [b"", b""]
        (outside / "file").read_bytes()
        (outside / "e" / "file").read_bytes()
        assert all(watch.events() for watch in watches), "the watches see nothing"
    finally:
        for watch in watches:
            watch.close()
    found = {}
    for k, shard in enumerate(split(entries, SHARDS)):
        for entry, receipt in zip(shard, bridge.stream(k).receipts, strict=True):
            found[entry.path] = receipt.status, receipt.file_index
    swapped = {path for path in found if path.startswith(b"d/")} | {b"d", b"swapped"}
    assert len(swapped) == 5
    assert {found[path] for path in swapped} == {(REPLACED, 0)}
    assert {status for path, (status, _) in found.items() if path not in swapped} == {SAVED}
    names = {name for job in jobs for name in bacula.files(job.jobid)}
    assert not names & {f"{root}/{os.fsdecode(path)}" for path in swapped}
    assert sum(job.errors for job in jobs) == 5


def test_an_estimate_leaves_the_bridge_alone(bacula):
    answer = bacula.lab.console("estimate job=forebay-data-0\n")
    assert "2000 OK estimate files=0" in answer
    assert "forebay scan" in answer
