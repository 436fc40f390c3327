"""What test_cephfs.py runs in its cluster: walks by libcephfs and through the mount, side by side.

Covers: that both give the same rows, of every kind of inode, while another client writes; what is
left to the mount, and what is said then.

FOREBAY_CEPH_MOUNTS names the mounts of two clients, separated by a colon.
"""

import dataclasses
import errno
import json
import os
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from filesystems.cephfs.client import close_idle_clients
from filesystems.cephfs.filesystem import CephfsFilesystem
from filesystems.cephfs.settings import CephfsSettings
from filesystems.errors import WalkFailed
from filesystems.interface import WalkOptions
from filesystems.posix import PosixFilesystem
from filesystems.report import examine_tree
from shards.lease import PendingDirectory
from shards.schema import INODE_SCHEMA
from tests.conformance.walk_trees import make_chain, make_odd_tree
from tests.support.ceph.packages import ceph_root

pytestmark = pytest.mark.bacula

MANY = 20_000  # names in one directory
SETTLE_TIMEOUT_S = 60.0
OPTIONS = WalkOptions(shards=5, seed=1, threads=4, hands_over=False)  # to other ranks' walkers


@pytest.fixture(scope="module")
def clients():
    one, two = os.environ["FOREBAY_CEPH_MOUNTS"].split(":")
    return Path(one), Path(two)


@pytest.fixture(scope="module")
def tree(clients):
    """Make a tree of which both ranks serve a part."""
    root = clients[0] / "rows"
    for rank in (0, 1):
        (root / f"rank{rank}").mkdir(parents=True)
        os.setxattr(root / f"rank{rank}", "ceph.dir.pin", str(rank).encode())
        make_odd_tree(root / f"rank{rank}")
    make_chain(root, 40, b"d" * 250, siblings=2)
    for number in range(20):  # an inode whose first name is the other rank's
        os.link(root / f"rank0/linked/original{number}", root / f"rank1/from-rank0-{number}")
        os.link(root / f"rank1/linked/original{number}", root / f"rank0/from-rank1-{number}")
    (root / "many").mkdir()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: (root / "many" / f"{number:x}").touch(), range(MANY)))
    yield root
    close_idle_clients()


def rows_of(filesystem, starts=(PendingDirectory(b""),), options=OPTIONS, include_root=True):
    """Return all rows, sorted, and the frontier."""
    rows = []
    with filesystem.walk(list(starts), options, include_root) as walk:
        for found in walk:
            rows += found.batch.to_pylist()
    rows.sort(key=lambda row: row["path"])
    return [tuple(row[name] for name in INODE_SCHEMA.names) for row in rows], walk.frontier


def by_library(root):
    filesystem = CephfsFilesystem(root, CephfsSettings())
    assert filesystem.access.startswith("by libcephfs"), filesystem.access
    return filesystem


def settled(root):
    """Return the rows of both walks once directories' sizes (rbytes) are the same to both."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        found = [rows_of(by_library(root))[0], rows_of(PosixFilesystem(root))[0]]
        if found[0] == found[1] or time.monotonic() > deadline:
            return found


def differing(found, expected):
    """Return the first few columns that differ, by path."""
    assert [row[0] for row in found] == [row[0] for row in expected]
    return [
        (mine[0][-40:], name, left, right)
        for mine, theirs in zip(found, expected, strict=True)
        for name, left, right in zip(INODE_SCHEMA.names, mine, theirs, strict=True)
        if left != right
    ][:8]


def test_rows_are_those_of_the_mount(tree):
    found, expected = settled(tree)
    assert len(found) > MANY
    assert not differing(found, expected)
    place = INODE_SCHEMA.names.index("mode")
    assert {stat.S_IFMT(row[place]) for row in found} == {
        *(stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO),
        *(stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK),
    }


def test_a_subtree_and_a_bind_mount_are_found_in_the_filesystem(tree, tmp_path):
    subprocess.run(["mount", "--bind", tree / "rank1", tmp_path], check=True)
    try:
        found, expected = settled(tmp_path)
        assert not differing(found, expected)
        assert len(found) > 100
    finally:
        close_idle_clients()
        subprocess.run(["umount", tmp_path], check=True)


def test_what_another_client_has_written_and_not_flushed_is_seen(clients):
    """The metadata server does not know it until it is asked, with the name or after it."""
    root = clients[0] / "unflushed"
    root.mkdir()
    paths = [root / f"f{number}" for number in range(40)]
    for path in paths:
        path.write_bytes(b"as it was")
    os.sync()
    rows_of(by_library(root))
    writers = [
        os.open(clients[1] / "unflushed" / path.name, os.O_WRONLY | os.O_APPEND) for path in paths
    ]
    for writer in writers:
        os.write(writer, b", and more")
    found, _ = rows_of(by_library(root))
    expected, _ = rows_of(PosixFilesystem(root))
    for writer in writers:
        os.close(writer)
    compared = [
        INODE_SCHEMA.names.index(name) for name in ("path", "ino", "size", "mtime", "ctime")
    ]
    files = [row for row in found if row[0]]
    assert {row[compared[2]] for row in files} == {len(b"as it was, and more")}
    assert [[row[place] for place in compared] for row in files] == [
        [row[place] for place in compared] for row in expected if row[0]
    ]
    close_idle_clients()


@pytest.mark.parametrize("begun_by_library", [True, False])
def test_a_directory_begun_in_one_way_and_continued_in_the_other_loses_nothing(
    tree, begun_by_library
):
    root = tree / "many"
    ways = [by_library(root), PosixFilesystem(root)]
    first, second = ways if begun_by_library else ways[::-1]
    few = dataclasses.replace(OPTIONS, threads=1, budget_rows=1)
    begun, frontier = rows_of(first, options=few, include_root=False)
    assert frontier[0].cookie
    assert 1 < len(begun) < MANY
    rest, _ = rows_of(second, frontier, include_root=False)
    assert {row[0] for row in begun + rest} == {b"%x" % number for number in range(MANY)}
    # In the same way it goes on where it was.
    rest, _ = rows_of(first, frontier, include_root=False)
    assert len(begun) + len(rest) == MANY


def why_not(root, **settings):
    filesystem = CephfsFilesystem(root, CephfsSettings(**settings))
    said = filesystem.access
    assert said.startswith("through the mount: "), said
    assert rows_of(filesystem) == rows_of(PosixFilesystem(root))
    return said


def test_another_directory_is_never_taken_for_the_root(clients, tree, tmp_path):
    (clients[0] / "wrong" / "rows").mkdir(parents=True)
    # The path leads to another directory; "/" is tried next, and it is the right one.
    filesystem = CephfsFilesystem(tree / "rank1/dirs", CephfsSettings(path=b"/wrong"))
    assert filesystem.access.startswith("by libcephfs")
    # Below a bind mount of a directory the same path is another one.
    (clients[0] / "wrong" / "wrong").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        said = why_not(tmp_path)
        assert "ceph.cluster_fsid" in said or "another directory" in said or "No such" in said
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_what_is_mounted_below_the_root_is_left_to_the_mount(clients):
    root = clients[0] / "covered"
    (root / "place").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "place"], check=True)
    try:
        assert "something else is mounted below the root, at place" in why_not(root)
    finally:
        subprocess.run(["umount", root / "place"], check=True)
    assert by_library(root)


def test_a_snapshot_is_left_to_the_mount_which_has_other_inode_numbers_there(clients):
    root = clients[0] / "snapped"
    (root / "below").mkdir(parents=True)
    (root / "below/file").write_bytes(b"as it was")
    (root / ".snap/one").mkdir()
    assert "libcephfs cannot be used" in why_not(root / ".snap/one")
    assert by_library(root)
    (root / ".snap/one").rmdir()


def test_without_a_cluster_that_answers_the_mount_is_walked(clients, monkeypatch, tmp_path):
    root = clients[0] / "alone"
    (root / "below").mkdir(parents=True)
    conf = Path(os.environ["CEPH_CONF"]).read_text()
    (tmp_path / "ceph.conf").write_text(conf.replace("13300", "13999").replace("16789", "16999"))
    monkeypatch.setenv("CEPH_CONF", str(tmp_path / "ceph.conf"))
    began = time.monotonic()
    assert os.strerror(errno.ETIMEDOUT) in why_not(root, timeout_s=2)
    assert time.monotonic() - began < 10  # and not again for the walk
    monkeypatch.setenv("CEPH_CONF", str(tmp_path / "none"))
    assert "no usable ceph.conf" in why_not(root, timeout_s=3)
    assert "FOREBAY_CEPHFS_WALK says so" in why_not(root, by_library=False)


def test_doctor_says_how_the_tree_is_walked(clients, tmp_path):
    report = examine_tree(clients[0], tmp_path, "ceph")
    assert report.adapter == "cephfs"
    assert report.walk.startswith("by libcephfs 1")


def test_an_idle_client_gives_back_what_it_was_granted(clients):
    """Nothing of it is left at the metadata servers when the process goes on."""
    root = clients[0] / "idle"
    (root / "below").mkdir(parents=True)
    before = set(os.listdir("/proc/self/task"))
    rows_of(by_library(root))
    assert len(set(os.listdir("/proc/self/task")) - before) > 3
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while set(os.listdir("/proc/self/task")) - before:
        assert time.monotonic() < deadline, "its threads are still there"
        time.sleep(0.05)


def session_of(path):
    """Return the session of the client that has mounted a path; there is one."""
    known = json.loads(ceph("tell", "mds.0", "session", "ls"))
    (found,) = [each["id"] for each in known if each["client_metadata"].get("root") == path]
    return found


def ceph(*arguments):
    """Run a command of the cluster, whose programs and paths are those of its own root."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CEPH_CONF": "/forebay/ceph.conf"}
    command = ["chroot", ceph_root(), "ceph", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    return done.stdout


def test_a_client_that_is_evicted_breaks_its_walk_and_the_next_one_mounts_anew(clients):
    root = clients[0] / "evicted"
    for number in range(10):
        (root / f"d{number}").mkdir(parents=True)
        for name in range(50):
            (root / f"d{number}" / f"f{name}").touch()
    filesystem = by_library(root)
    held = dataclasses.replace(OPTIONS, threads=1, batch_rows=10)
    with filesystem.walk([PendingDirectory(b"")], held) as walk:
        next(walk)
        ceph("tell", "mds.0", "session", "evict", f"id={session_of('/evicted')}")
        with pytest.raises(WalkFailed, match="shutdown"):
            list(walk)
    assert by_library(root)
    assert len(rows_of(filesystem)[0]) == 1 + 10 + 500
