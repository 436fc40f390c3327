"""What walkers and change sources measure."""

import os
import threading

import pytest

from filesystems import lease_loop
from filesystems.change_measures import ChangeMeasures
from filesystems.lease_loop import LeaseLoop
from filesystems.lustre.changelog import Cursor
from filesystems.lustre.log import ChangeLog
from filesystems.lustre.settings import LustreChangelogs
from filesystems.posix import PosixFilesystem
from filesystems.scan_measures import ScanMeasures
from shards.lease import PendingDirectory
from shards.ledger import Lease, LeaseLost
from shards.state import StateDirectory
from tests.support.change_histories import mount, running_reader
from tests.unit.shards.test_measures import values


class OneLease:
    """Gives a lease of the root once, and then ends the loop."""

    def __init__(self, root, stopping, is_lost=False):
        directories = (PendingDirectory(b""),)
        self.lease = Lease(7, 1, 1, os.fsencode(root), 2, 0, directories, True, dataset="d")
        self.stopping, self.is_lost, self.failed = stopping, is_lost, []

    def take(self, wait_s):
        lease, self.lease = self.lease, None
        if lease is None:
            self.stopping.set()
        return lease

    def commit(self, lease, result):
        if self.is_lost:
            raise LeaseLost(lease, "lost")
        self.result = result

    def fail(self, run, reason):
        self.failed.append(reason)


@pytest.fixture
def walk(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_loop, "LEASE_WAIT_S", 0.05)
    state = StateDirectory(tmp_path / "state")
    state.make_run(1)
    root = tmp_path / "root"
    for number in range(3):
        (root / f"d{number}").mkdir(parents=True)
        (root / f"d{number}" / "f").write_bytes(b"x" * 10)

    def walk(root=root, **how):
        stopping = threading.Event()
        source, measures = OneLease(root, stopping, **how), ScanMeasures(3)
        LeaseLoop(source, state, PosixFilesystem, measures=measures).serve(stopping)
        return source, values_of(measures), measures

    return walk


def values_of(measures):
    samples = measures.samples()
    durations = {s.name: s for s in samples if s.name.startswith("forebay_lease_")}
    found = values([s for s in samples if not s.name.startswith("forebay_lease_")])
    return found | {name: sample.labels for name, sample in durations.items()}


def test_what_a_lease_found_counts_once_it_is_committed(walk):
    source, found, measures = walk()
    assert found["scan_inodes_total", "d", "3"] == source.result.inodes == 7
    assert found["scan_directories_total", "d", "3"] == 4
    assert found["scan_bytes_total", "d", "3"] == source.result.size_bytes >= 30
    assert found["scan_leases_total", "d", "3"] == 1
    assert found["scan_segments_total", "d", "3"] == len(source.result.segments) > 0
    assert found["scan_segment_bytes_total", "d", "3"] > 0
    assert found["scan_walk_seconds_total", "d", "3"] > 0
    assert found["scan_threads", "d", "3"] >= 1
    assert found["scan_lease_age_seconds", "d", "3"] == 0
    assert found["forebay_lease_walk_seconds"] == found["forebay_lease_commit_seconds"] == ("3",)
    assert measures.state() == "idle"


def test_a_lost_lease_found_nothing(walk):
    _, found, _ = walk(is_lost=True)
    assert found["scan_leases_lost_total", "d", "3"] == 1
    assert found["scan_inodes_total", "d", "3"] == found["scan_leases_total", "d", "3"] == 0


def test_a_lease_that_fails_is_counted(walk, tmp_path):
    source, found, _ = walk(tmp_path / "none")
    assert source.failed
    assert found["scan_leases_failed_total", "d", "3"] == 1
    assert found["scan_leases_total", "d", "3"] == 0


def test_a_lease_that_takes_long_shows_its_age(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("filesystems.scan_measures.time.monotonic", lambda: clock[0])
    measures = ScanMeasures(0)
    assert measures.state() == ""
    measures.walking(Lease(1, 1, 1, b"/", 1, 0, (), False, dataset="d"))
    clock[0] += 700
    assert values_of(measures)["scan_lease_age_seconds", "d", "0"] == 700
    assert measures.state() == "walking d"
    measures.walked(None)
    assert values_of(measures)["scan_lease_age_seconds", "d", "0"] == 0


def changes(folder):
    return values(ChangeMeasures(folder).samples())


def test_without_change_logs_there_is_nothing(tmp_path):
    assert changes(tmp_path / "none") == {}


def test_a_reader_that_has_ended_is_down(tmp_path):
    (tmp_path / "d").mkdir()
    assert changes(tmp_path)["changelog_up", "d", "fanotify"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount and mark a filesystem")
def test_a_running_reader_is_up(tmp_path):
    mounted, folder = tmp_path / "mounted", tmp_path / "changes"
    mounted.mkdir()
    with mount("ext4", mounted, tmp_path / "image"):
        root = mounted / "tree"
        root.mkdir()
        with running_reader("d", os.fsencode(root), folder / "d"):
            found = changes(folder)
            assert found["changelog_up", "d", "fanotify"] == 1
            assert found["changelog_queued_events", "d", "fanotify"] >= 0
            assert found["changelog_log_bytes", "d", "fanotify"] > 0
        assert changes(folder)["changelog_up", "d", "fanotify"] == 0


def test_a_lustre_log_shows_what_is_in_it(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    settings = LustreChangelogs(b"/lustre/a", b"/lustre", (("scratch-MDT0000", "cl1"),))
    settings.save(folder)
    assert changes(tmp_path)["changelog_up", "d", "lustre"] == 0  # never read
    with ChangeLog(folder, settings.identity()) as log:
        log.keep("scratch-MDT0000", Cursor(index=50, cleared=30, is_begun=True))
    found = changes(tmp_path)
    assert found["changelog_up", "d", "lustre"] == 1
    assert found["changelog_uncleared_records", "d", "scratch-MDT0000"] == 20
    assert found["changelog_places", "d", "lustre"] == 0
    read = os.stat(folder / "lustre.sqlite").st_mtime
    assert found["changelog_read_timestamp_seconds", "d", "lustre"] == pytest.approx(read, abs=60)
