"""Recursive change times: forms, positions, gaps, the descent. The real ones: tests/system."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from filesystems.cephfs import attributes, rctime
from filesystems.cephfs.attributes import AttributeUnknown, NoAttributes, cluster_id
from filesystems.cephfs.rctime import MARGIN_S, SETTLE_S, RctimeSource
from shards.changes import Gap, Position
from shards.snapshot import Snapshot

CLUSTER = "5200f8e8-906e-4a14-9c02-3271740f9466"
NOW = 1_800_000_000.0
OLD, NEW = int(NOW) - 10_000, int(NOW) - 5


class Ceph:
    """Virtual attributes beside a real directory tree; a stand-in for what a client answers."""

    def __init__(self, root):
        self.root = bytes(root)
        self.times = {}
        self.cluster = CLUSTER.encode()
        self.errors = {}

    def getxattr(self, path, name, *, follow_symlinks=True):
        relative = (
            os.path.relpath(path, self.root).encode()
            if isinstance(path, str)
            else (os.path.relpath(path, self.root))
        )
        if relative in self.errors:
            raise OSError(self.errors[relative], os.strerror(self.errors[relative]))
        if name == attributes.CLUSTER:
            if self.cluster is None:
                raise OSError(errno.ENODATA, "No data available")
            return self.cluster
        return self.times.get(relative, b"%d.000000001" % OLD)

    def change(self, *relatives):
        for relative in relatives:
            self.times[relative] = b"%d.123456789" % NEW


@pytest.fixture
def ceph(tmp_path, monkeypatch):
    root = tmp_path / "tree"
    for path in ("a/in", "b"):
        (root / path).mkdir(parents=True)
    for path in ("f", "a/f", "a/in/f", "b/f"):
        (root / path).write_bytes(b"")
    stand_in = Ceph(root)
    monkeypatch.setattr(attributes.os, "getxattr", stand_in.getxattr)
    return stand_in


def source(ceph, clock=NOW):
    waited = []
    found = RctimeSource(ceph.root, wait=waited.append, now=lambda: clock)
    found.position()
    return found, waited


def since(ceph, seconds, session=None):
    session = session or f"{CLUSTER}/{os.stat(ceph.root).st_ino}"
    return Position("rctime", session, int((NOW - seconds) * 1e9))


def test_only_directories_with_a_new_time_are_listed(ceph):
    ceph.change(b".", b"a")
    changes = source(ceph)[0].changes(since(ceph, 1000))
    assert sorted(changes.names) == [b"", b"a", b"a", b"a/f", b"a/in", b"b", b"f"]
    listed = {directory.path: directory.subdirectories for directory in changes.directories}
    assert listed.keys() == {b"", b"a"}
    assert listed[b"a"][b"in"].inode == os.stat(os.path.join(ceph.root, b"a/in")).st_ino
    assert not changes.subtrees


def test_nothing_new_is_nothing_to_look_at(ceph):
    changes = source(ceph)[0].changes(since(ceph, 1000))
    assert (changes.names, changes.directories) == ([], [])


def test_a_change_within_the_margin_before_the_position_is_looked_at_again(ceph):
    ceph.times[b"."] = b"%d.5" % int(NOW - 1000 - MARGIN_S)
    assert source(ceph)[0].changes(since(ceph, 1000)).names
    ceph.times[b"."] = b"%d.5" % int(NOW - 1000 - MARGIN_S - 2)
    assert not source(ceph)[0].changes(since(ceph, 1000)).names


def test_it_waits_until_change_times_have_settled(ceph):
    found, waited = source(ceph)
    found.changes(since(ceph, 1000))
    assert waited == [SETTLE_S]


def test_old_releases_that_print_09_before_the_nanoseconds_are_understood(ceph):
    ceph.times[b"."] = b"%d.09123456789" % NEW
    assert source(ceph)[0].changes(since(ceph, 1000)).names


@pytest.mark.parametrize("text", [b"", b"soon", b"1.2.3", b"12345678901234.1", b"7", b"7.\0"])
def test_a_time_of_another_form_is_a_gap(ceph, text):
    ceph.times[b"a"] = text
    ceph.change(b".")
    with pytest.raises(Gap, match=r"ceph\.dir\.rctime of .*/a is"):
        source(ceph)[0].changes(since(ceph, 1000))


def test_positions_of_another_cluster_root_or_source_are_gaps(ceph):
    found = source(ceph)[0]
    for other in (since(ceph, 600, "x/1"), Position("fanotify", "s", 1)):
        with pytest.raises(Gap, match="not of this root"):
            found.changes(other)


def test_a_clock_that_was_set_back_is_a_gap(ceph):
    with pytest.raises(Gap, match="the clock was set back"):
        source(ceph)[0].changes(since(ceph, -1))


def test_a_directory_that_cannot_be_read_is_a_gap(ceph):
    ceph.change(b".")
    ceph.errors[b"a"] = errno.EACCES
    with pytest.raises(Gap, match="Permission denied"):
        source(ceph)[0].changes(since(ceph, 1000))


def test_a_directory_that_vanishes_meanwhile_is_looked_at_with_all_below(ceph):
    ceph.change(b".", b"b")
    ceph.errors[b"a"] = errno.ENOENT
    changes = source(ceph)[0].changes(since(ceph, 1000))
    assert b"b/f" in changes.names
    assert changes.subtrees == [b"a"]


def test_a_subdirectory_that_goes_while_it_is_listed_takes_nothing_else_along(ceph, monkeypatch):
    ceph.change(b".", b"a", b"b")
    real = rctime._directory_status

    class Going:
        """An entry of a listing whose directory has gone since."""

        def __init__(self, entry):
            self.name = entry.name

        def is_dir(self, *, follow_symlinks):
            return True

        def stat(self, *, follow_symlinks):
            raise OSError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(
        rctime, "_directory_status", lambda e: real(Going(e) if e.name == b"in" else e)
    )
    changes = source(ceph)[0].changes(since(ceph, 1000))
    listed = {directory.path: directory.subdirectories for directory in changes.directories}
    assert listed.keys() == {b"", b"a", b"b"}
    assert listed[b"a"] == {}
    assert b"a/in" in changes.names


def test_a_stale_handle_is_a_gap(ceph):
    ceph.change(b".")
    ceph.errors[b"a"] = errno.ESTALE
    with pytest.raises(Gap):
        source(ceph)[0].changes(since(ceph, 1000))


def test_the_margin_may_be_set_by_the_environment(monkeypatch):
    assert rctime.margin_s() == MARGIN_S
    monkeypatch.setenv("FOREBAY_CEPHFS_MARGIN_S", "60")
    assert rctime.margin_s() == 60
    for text in ("", "-1", "soon", "86401", "1.5"):
        monkeypatch.setenv("FOREBAY_CEPHFS_MARGIN_S", text)
        with pytest.raises(rctime.MarginUnusable, match="give seconds"):
            rctime.margin_s()


def test_more_than_a_scan_is_a_gap(ceph, monkeypatch):
    monkeypatch.setattr(rctime, "CHANGES_MAX", 2)
    ceph.change(b".")
    with pytest.raises(Gap, match="a scan costs less"):
        source(ceph)[0].changes(since(ceph, 1000))


def test_a_client_without_the_cluster_identity_is_named(ceph):
    ceph.cluster = None
    with pytest.raises(NoAttributes, match=r"has no ceph\.cluster_fsid: No data"):
        cluster_id(ceph.root)
    with pytest.raises(Gap, match=r"ceph\.cluster_fsid"):
        RctimeSource(ceph.root).position()
    ceph.cluster = b"not one"
    with pytest.raises(AttributeUnknown):
        cluster_id(ceph.root)


@pytest.fixture
def snapped(ceph, monkeypatch):
    """A snapshot of the tree, in which every directory has the live one's inode number."""
    shown = ceph.root + b"-snapshot"
    shutil.copytree(ceph.root, shown)
    inodes = {}
    real = os.lstat

    def lstat(path, **named):
        if named:  # shutil's
            return real(path, **named)
        relative = os.path.relpath(path, shown if path.startswith(shown) else ceph.root)
        status = real(path)
        inode = inodes.get(path, 1000 + len(relative))
        return os.stat_result([status[0], inode, *status[2:]])

    monkeypatch.setattr(rctime.os, "lstat", lstat)
    return Snapshot(shown, shown, 0, 1), inodes


def in_snapshot(path):
    return os.path.join(b"../tree-snapshot", path)


def listed_in(ceph, snapshot):
    changes = source(ceph)[0].changes(since(ceph, 1000), snapshot)
    return {directory.path for directory in changes.directories}, set(changes.names)


def test_names_come_from_the_snapshot(ceph, snapped):
    snapshot, _ = snapped
    (Path(os.fsdecode(ceph.root)) / "a" / "f").rename(Path(os.fsdecode(ceph.root)) / "a" / "moved")
    ceph.change(b".", b"a")
    directories, names = listed_in(ceph, snapshot)
    assert directories == {b"", b"a"}
    assert b"a/f" in names
    assert b"a/moved" not in names


def test_a_change_shows_in_the_live_directories_or_in_the_snapshots(ceph, snapped):
    snapshot, inodes = snapped
    assert listed_in(ceph, snapshot) == (set(), set())
    ceph.change(b".", in_snapshot(b"a"))
    assert listed_in(ceph, snapshot)[0] == {b"", b"a"}
    # One that another has taken the place of, or that is gone, tells nothing.
    inodes[os.path.join(ceph.root, b"b")] = 7
    assert listed_in(ceph, snapshot)[0] == {b"", b"a", b"b"}
    shutil.rmtree(os.path.join(ceph.root, b"a/in"))
    assert listed_in(ceph, snapshot)[0] == {b"", b"a", b"a/in", b"b"}
