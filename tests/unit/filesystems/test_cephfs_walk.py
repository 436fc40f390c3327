"""Choosing between libcephfs and the mount, with a stand-in for the library (standin.c).

Covers: finding and proving the root, falling back and what is said then, how long a client stays.
Does not cover: what CephFS itself does (tests/system/cephfs_walks.py).
"""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
import time

import pytest

from filesystems.cephfs import client as client_module
from filesystems.cephfs import filesystem as filesystem_module
from filesystems.cephfs import proof
from filesystems.cephfs.client import CephfsClient, close_idle_clients
from filesystems.cephfs.filesystem import CephfsFilesystem
from filesystems.cephfs.settings import CephfsSettings, CephfsSettingUnusable
from filesystems.errors import RootMissing, WalkFailed
from filesystems.interface import WalkOptions
from filesystems.kernel.cephfs_mount import CephfsMount
from filesystems.mountinfo import MountInfo
from filesystems.posix import PosixFilesystem
from shards.lease import PendingDirectory
from tests.conformance.walk_trees import make_flat, make_odd_tree
from tests.support.ceph.standin import compile_standin

CLUSTER = "11111111-2222-3333-4444-555555555555"
OPTIONS = WalkOptions(shards=3, seed=1, threads=2)
DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return str(compile_standin(tmp_path_factory.mktemp("standin") / "libcephfs.so.2"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A tree of which the stand-in is the cluster, and whose path in CephFS is the one here."""
    monkeypatch.setattr(proof, "cluster_id", lambda path: CLUSTER)
    monkeypatch.setattr(proof, "mount_of", lambda _: MountInfo(b"/", b"/", "fuse", b"ceph", ()))
    monkeypatch.setattr(filesystem_module, "client_of", CephfsClient)  # none is left over
    monkeypatch.setenv("STANDIN_FSID", CLUSTER)
    root = tmp_path / "root"
    root.mkdir()
    return root


def rows_of(filesystem, starts=(PendingDirectory(b""),), options=OPTIONS):
    rows = []
    with filesystem.walk(list(starts), options) as walk:
        for found in walk:
            batch = found.batch.drop_columns(["btime", "atime"])  # this one reads with other times
            rows += batch.to_pylist()
    return sorted(rows, key=lambda row: row["path"]), walk.frontier


def adapter(root, library, **settings):
    return CephfsFilesystem(root, CephfsSettings(library=library, **settings))


def reason(root, library, **settings):
    """Return why the mount is walked; it is, all the same."""
    filesystem = adapter(root, library, **settings)
    said = filesystem.access
    assert said.startswith("through the mount: libcephfs cannot be used: ")
    assert rows_of(filesystem) == rows_of(PosixFilesystem(root))
    return said.removeprefix("through the mount: libcephfs cannot be used: ")


def test_the_tree_is_walked_by_the_library(root, library):
    make_odd_tree(root)
    filesystem = adapter(root, library)
    assert filesystem.access == "by libcephfs 99.1.2"
    assert rows_of(filesystem)[0] == rows_of(PosixFilesystem(root))[0]


def test_another_cluster_is_refused(root, library, monkeypatch):
    monkeypatch.setenv("STANDIN_FSID", CLUSTER.replace("1", "a"))
    assert reason(root, library).startswith(f"the mount is of cluster {CLUSTER}, ceph.conf names a")


def test_another_directory_at_the_path_is_refused(root, library, monkeypatch, tmp_path):
    """As of a filesystem of the same cluster, which has the same inode numbers."""
    (root / "file").touch()
    (tmp_path / "other").mkdir()
    elsewhere = os.fsencode(tmp_path / "other")
    monkeypatch.setattr(client_module, "paths_in_cephfs", lambda *_: [elsewhere, elsewhere])
    assert "is another directory than the mount shows" in reason(root, library)
    status = os.stat(root)
    os.utime(tmp_path / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    real = proof.CephfsMount.attributes
    monkeypatch.setattr(
        proof.CephfsMount,
        "attributes",
        lambda mount: dataclasses.replace(real(mount), inode=status.st_ino),
    )
    assert "is another directory than the mount shows" in reason(root, library)


def test_a_mount_that_shows_other_inode_numbers_is_refused(root, library, monkeypatch):
    (root / "file").touch()
    monkeypatch.setenv("STANDIN_OTHER_INODES", "1")
    assert "is another directory than the mount shows" in reason(root, library)


def test_a_mount_that_fails_is_said_and_not_tried_again_for_each_walk(root, library, monkeypatch):
    monkeypatch.setenv("STANDIN_MOUNT", str(errno.ETIMEDOUT))
    filesystem = adapter(root, library)
    assert filesystem.access.endswith(f"mounting {root}: {os.strerror(errno.ETIMEDOUT)}")
    monkeypatch.delenv("STANDIN_MOUNT")
    assert filesystem.access.startswith("through the mount")
    monkeypatch.setattr(client_module, "RETRY_S", 0.0)
    assert filesystem.access.startswith("by libcephfs")


def test_a_path_that_may_not_be_mounted_is_not_the_last_one_tried(root, library, monkeypatch):
    assert adapter(root, library, path=b"/no/such").access.startswith("by libcephfs")


def test_a_mount_that_never_ends_is_left_alone(root, library, monkeypatch):
    monkeypatch.setenv("STANDIN_MOUNT", "0")
    monkeypatch.setattr(client_module, "PATIENCE_S", 0.1)
    began = time.monotonic()
    assert reason(root, library, timeout_s=1) == "the cluster did not answer within 1 s"
    assert time.monotonic() - began < DEADLINE_S


def test_a_mount_that_comes_too_late_is_given_back(monkeypatch, root, library):
    go, closed = threading.Event(), threading.Event()

    class Late(CephfsMount):
        def __init__(self, *arguments):
            assert go.wait(DEADLINE_S)

        def close(self):
            closed.set()

    monkeypatch.setattr(client_module, "CephfsMount", Late)
    monkeypatch.setattr(client_module, "PATIENCE_S", 0.0)
    assert "did not answer" in reason(root, library, timeout_s=0)
    assert not closed.is_set()
    go.set()
    assert closed.wait(DEADLINE_S)


def test_without_a_library_or_with_an_old_one_the_mount_is_walked(root):
    assert "cannot open shared object file" in reason(root, "libnosuch.so.2")
    assert reason(root, "libc.so.6") == "libc.so.6 has no ceph_version; Ceph 16 or later has"


def test_a_client_that_is_shut_out_breaks_its_walk_and_the_next_one_mounts(
    root, library, monkeypatch
):
    make_flat(root, 100)
    filesystem = adapter(root, library)
    assert filesystem.access.startswith("by libcephfs")
    filesystem.close()
    names = 32 + 50  # those of the proof, which come in one buffer, and some more
    monkeypatch.setenv("STANDIN_SHUTDOWN_AFTER", str(100 + names))
    with pytest.raises(WalkFailed, match="shutdown"):
        rows_of(filesystem)
    monkeypatch.delenv("STANDIN_SHUTDOWN_AFTER")
    assert len(rows_of(filesystem)[0]) == 100
    assert filesystem.access.startswith("by libcephfs")


def test_a_cookie_says_whose_it_is(root, library):
    make_flat(root, 3000)
    few = WalkOptions(shards=1, seed=0, threads=1, budget_rows=1)
    filesystem = adapter(root, library)
    begun, frontier = rows_of(filesystem, options=few)
    assert 0 < len(begun) < 3000
    assert frontier[0].device == os.stat(root).st_dev | 1 << 62
    assert len(rows_of(filesystem, frontier)[0]) == 3000 - len(begun)
    assert len(rows_of(PosixFilesystem(root), frontier)[0]) == 3000  # from the beginning


def test_a_client_is_shared_and_unmounted_when_idle(root, library, monkeypatch):
    monkeypatch.setattr(client_module, "IDLE_S", 0.05)
    closed = []
    real = client_module.CephfsMount.close
    monkeypatch.setattr(
        client_module.CephfsMount, "close", lambda mount: (closed.append(mount), real(mount))
    )
    make_flat(root, 50)
    filesystem = adapter(root, library)
    with filesystem.walk([PendingDirectory(b"")], OPTIONS) as first:
        with filesystem.walk([PendingDirectory(b"")], OPTIONS) as second:
            list(second)
        filesystem.close()
        assert not closed
        list(first)
    deadline = time.monotonic() + DEADLINE_S
    while not closed:
        assert time.monotonic() < deadline, "it is still mounted"
        time.sleep(0.01)
    assert filesystem.access.startswith("by libcephfs")
    filesystem.close()
    assert len(closed) == 2
    close_idle_clients()


def test_another_directory_at_the_root_is_mounted_anew(root, library, tmp_path):
    make_flat(root, 3)
    filesystem = adapter(root, library)
    assert len(rows_of(filesystem)[0]) == 3
    root.rename(tmp_path / "before")
    root.mkdir()
    make_flat(root, 5)
    assert len(rows_of(filesystem)[0]) == 5
    assert filesystem.access.startswith("by libcephfs")
    (root / "file-0000000").rename(tmp_path / "elsewhere")
    root.rename(tmp_path / "gone")
    with pytest.raises(RootMissing):
        rows_of(filesystem)


@pytest.mark.parametrize(
    ("mount", "settings", "expected"),
    [
        (("/", "/mnt", "ceph", "a:6789,b:6789:/sub"), {}, [b"/sub/tree/x", b"/tree/x"]),
        (("/", "/mnt", "ceph", "[::1]:6789:/"), {}, [b"/tree/x"]),
        (("/", "/mnt", "ceph", "u@11-22.fs=/a:/b"), {}, [b"/a:/b/tree/x", b"/tree/x"]),
        (("/", "/mnt", "fuse.ceph-fuse", "ceph-fuse"), {}, [b"/tree/x"]),
        (("/up", "/mnt", "fuse.ceph-fuse", "ceph-fuse"), {}, [b"/up/tree/x"]),
        (("/", "/mnt/tree/x", "fuse", "ceph-fuse"), {"path": b"/p"}, [b"/p", b"/"]),
    ],
)
def test_the_path_in_cephfs_is_what_the_mount_says_a_setting_or_the_one_from_the_root(
    monkeypatch, tmp_path, mount, settings, expected
):
    root, point, type_name, source = mount
    info = MountInfo(root.encode(), point.encode(), type_name, source.encode(), ())
    monkeypatch.setattr(proof, "mount_of", lambda _: info)
    monkeypatch.setattr(proof.os, "readlink", lambda _: b"/mnt/tree/x")
    chosen = CephfsSettings(any_client=True, **settings)
    assert proof.paths_in_cephfs(bytes(tmp_path), chosen) == expected


def test_inode_numbers_of_32_bits_are_refused(root, library, monkeypatch):
    info = MountInfo(b"/", b"/", "ceph", b"m:/", (b"rw", b"ino32"))
    monkeypatch.setattr(proof, "mount_of", lambda _: info)
    assert "ino32" in reason(root, library)


def test_settings_come_from_the_environment():
    read = CephfsSettings.from_environment
    assert read({}) == CephfsSettings()
    assert read({"FOREBAY_CEPHFS_WALK": "mount"}) == CephfsSettings(by_library=False)
    assert read({"FOREBAY_CEPHFS_WALK": "libcephfs"}) == CephfsSettings(any_client=True)
    assert read(
        {
            "FOREBAY_CEPHFS_PATH": "/volumes/a",
            "FOREBAY_CEPHFS_ID": "backup",
            "FOREBAY_CEPHFS_TIMEOUT_S": "3",
            "CEPH_ARGS": "--id other",
        }
    ) == CephfsSettings(path=b"/volumes/a", user="backup", timeout_s=3)
    for arguments in ("--id b", "-n client.b", "--name=client.b --keyring /k", "--user b"):
        assert read({"CEPH_ARGS": arguments}).user == "b"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FOREBAY_CEPHFS_WALK", "fuse"),
        ("FOREBAY_CEPHFS_PATH", "relative"),
        ("FOREBAY_CEPHFS_PATH", "/a/../b"),
        ("FOREBAY_CEPHFS_TIMEOUT_S", "0"),
        ("FOREBAY_CEPHFS_TIMEOUT_S", "301"),
        ("FOREBAY_CEPHFS_TIMEOUT_S", "soon"),
        ("CEPH_ARGS", "--id 'open"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_a_sentence(variable, value):
    with pytest.raises(CephfsSettingUnusable, match=f"^{variable} is .*; give "):
        CephfsSettings.from_environment({variable: value})
