"""Recursive change times: forms, positions, gaps, the descent. The real ones: tests/system."""

import errno
import os

import pytest

from filesystems.cephfs import attributes, rctime
from filesystems.cephfs.attributes import AttributeUnknown, NoAttributes, cluster_id
from filesystems.cephfs.rctime import MARGIN_S, SETTLE_S, RctimeSource
from shards.changes import Gap, Position

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
    changes = source(ceph)[0].changes(since(ceph, 600))
    assert sorted(changes.names) == [b"", b"a", b"a", b"a/f", b"a/in", b"b", b"f"]
    listed = {directory.path: directory.subdirectories for directory in changes.directories}
    assert listed.keys() == {b"", b"a"}
    assert listed[b"a"][b"in"].inode == os.stat(os.path.join(ceph.root, b"a/in")).st_ino
    assert not changes.subtrees


def test_nothing_new_is_nothing_to_look_at(ceph):
    changes = source(ceph)[0].changes(since(ceph, 600))
    assert (changes.names, changes.directories) == ([], [])


def test_a_change_within_the_margin_before_the_position_is_looked_at_again(ceph):
    ceph.times[b"."] = b"%d.5" % int(NOW - 600 - MARGIN_S)
    assert source(ceph)[0].changes(since(ceph, 600)).names
    ceph.times[b"."] = b"%d.5" % int(NOW - 600 - MARGIN_S - 2)
    assert not source(ceph)[0].changes(since(ceph, 600)).names


def test_it_waits_until_change_times_have_settled(ceph):
    found, waited = source(ceph)
    found.changes(since(ceph, 600))
    assert waited == [SETTLE_S]


def test_old_releases_that_print_09_before_the_nanoseconds_are_understood(ceph):
    ceph.times[b"."] = b"%d.09123456789" % NEW
    assert source(ceph)[0].changes(since(ceph, 600)).names


@pytest.mark.parametrize("text", [b"", b"soon", b"1.2.3", b"12345678901234.1", b"7", b"7.\0"])
def test_a_time_of_another_form_is_a_gap(ceph, text):
    ceph.times[b"a"] = text
    ceph.change(b".")
    with pytest.raises(Gap, match=r"ceph\.dir\.rctime of .*/a is"):
        source(ceph)[0].changes(since(ceph, 600))


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
        source(ceph)[0].changes(since(ceph, 600))


def test_a_directory_that_vanishes_meanwhile_is_left_out(ceph):
    ceph.change(b".", b"b")
    ceph.errors[b"a"] = errno.ENOENT
    changes = source(ceph)[0].changes(since(ceph, 600))
    assert b"b/f" in changes.names
    assert b"a" not in {directory.path for directory in changes.directories}


def test_more_than_a_scan_is_a_gap(ceph, monkeypatch):
    monkeypatch.setattr(rctime, "NAMES_MAX", 2)
    ceph.change(b".")
    with pytest.raises(Gap, match="a scan costs less"):
        source(ceph)[0].changes(since(ceph, 600))


def test_a_client_without_the_cluster_identity_is_named(ceph):
    ceph.cluster = None
    with pytest.raises(NoAttributes, match=r"has no ceph\.cluster_fsid: No data"):
        cluster_id(ceph.root)
    with pytest.raises(Gap, match=r"ceph\.cluster_fsid"):
        RctimeSource(ceph.root).position()
    ceph.cluster = b"not one"
    with pytest.raises(AttributeUnknown):
        cluster_id(ceph.root)
