"""Taking snapshots of a filesystem that shows them, its inode numbers checked."""

import os

import pytest

from filesystems import snapshots
from filesystems.snapshots import SETTLE_S, Snapshots
from shards.snapshot import SnapshotRefused


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A tree that passes for one on CephFS; mkdir in .snap makes an ordinary directory."""
    monkeypatch.setattr(snapshots, "mount_type_of", lambda root: "ceph")
    (tmp_path / ".snap").mkdir()
    return bytes(tmp_path)


@pytest.fixture
def shows(monkeypatch):
    """Let the snapshot have an inode number made from the live one."""

    def set_to(change):
        real = os.stat

        def stat(path, **named):
            status = real(path, **named)
            if isinstance(path, bytes) and b"/.snap/" in path:
                live = real(path.split(b"/.snap/")[0]).st_ino
                return os.stat_result([status[0], change(live), *status[2:]])
            return status

        monkeypatch.setattr(snapshots.os, "stat", stat)

    return set_to


@pytest.mark.parametrize(
    ("change", "mask"),
    [(lambda ino: ino, 0), (lambda ino: ino | 2 << 48, (1 << 48) - 1)],
    ids=["the kernel's client", "ceph-fuse"],
)
def test_one_is_taken_checked_and_released(root, shows, change, mask):
    shows(change)
    waited = []
    taker = Snapshots(waited.append)
    path = taker.path(root, "forebay-d-1")
    assert path == root + b"/.snap/forebay-d-1"
    taken = taker.take(root, path)
    assert (taken.path, taken.root, taken.inode_mask) == (path, path, mask)
    assert abs(taken.time_ns - os.lstat(path).st_mtime_ns) < 10**10
    assert waited == [SETTLE_S]
    taker.release(path)
    assert not os.path.exists(path)
    taker.release(path)


def test_one_with_strange_inode_numbers_is_refused(root, shows):
    shows(lambda ino: ino + 1)
    taker = Snapshots(lambda _: None)
    path = taker.path(root, "s")
    with pytest.raises(SnapshotRefused, match="files would move to other shards"):
        taker.take(root, path)
    assert os.path.exists(path)
    taker.release(path)
    assert not os.path.exists(path)


def test_a_filesystem_without_is_named(tmp_path):
    with pytest.raises(SnapshotRefused, match="whose snapshots are not used"):
        Snapshots().path(bytes(tmp_path), "s")


def test_what_the_filesystem_answers_is_told(root, monkeypatch):
    taker = Snapshots(lambda _: None)
    with pytest.raises(SnapshotRefused, match="No such file or directory"):
        taker.take(root, root + b"/.snap/no/such")

    def refuse(path):
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(snapshots.os, "mkdir", refuse)
    with pytest.raises(SnapshotRefused, match="allow_new_snaps"):
        taker.take(root, root + b"/.snap/x")
    monkeypatch.setattr(snapshots.os, "rmdir", refuse)
    with pytest.raises(SnapshotRefused, match="could not be removed"):
        taker.release(root + b"/.snap/x")
