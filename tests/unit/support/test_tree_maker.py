"""The tree maker makes what it says it makes, and the same again for the same seed.

Covers: counts, determinism, the presence of each kind, special times, removal.
Does not cover: finding differences (test_comparer.py).
"""

import os
import stat
from pathlib import Path

import pytest

from tests.support.bulk import make_flat, make_uniform, remove_tree
from tests.support.compare import compare_trees, format_differences, take_snapshot
from tests.support.making import ACL_NO_ID, encode_acl
from tests.support.tree import ODD_NAMES, SPARSE_FILES, SPECIAL_TIMES_NS, make_tree

INODES = 4500
PRIVILEGED = os.geteuid() == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("maker") / "tree"
    summary = make_tree(root, INODES, seed=11, privileged=PRIVILEGED)
    yield root, summary, take_snapshot(root)
    remove_tree(root)


def test_the_summary_counts_what_is_there(made):
    _, summary, snapshot = made
    inodes = {(e.stat.st_dev, e.stat.st_ino): e for e in snapshot.entries.values()}
    assert summary.inodes == len(inodes) >= INODES
    assert summary.names == len(snapshot.entries)
    counted = {
        "directory": sum(stat.S_ISDIR(e.stat.st_mode) for e in inodes.values()),
        "regular": sum(stat.S_ISREG(e.stat.st_mode) for e in inodes.values()),
        "symlink": sum(stat.S_ISLNK(e.stat.st_mode) for e in inodes.values()),
        "fifo": sum(stat.S_ISFIFO(e.stat.st_mode) for e in inodes.values()),
        "socket": sum(stat.S_ISSOCK(e.stat.st_mode) for e in inodes.values()),
    }
    assert {kind: summary.types[kind] for kind in counted} == counted
    groups = snapshot.link_groups()
    assert summary.names - summary.inodes == sum(len(group) - 1 for group in groups)
    assert max(len(group) for group in groups) == 50


def test_the_same_seed_gives_the_same_tree(made, tmp_path):
    root, summary, _ = made
    again = tmp_path / "again"
    try:
        assert make_tree(again, INODES, seed=11, privileged=PRIVILEGED) == summary
        found = compare_trees(root, again, sockets=True, times=("mtime", "atime"))
        assert not found, format_differences(found)
    finally:
        remove_tree(again)


def test_every_kind_was_made_or_is_named_as_skipped(made):
    _, summary, snapshot = made
    names = {path.rpartition(b"/")[2] for path in snapshot.entries}
    assert set(ODD_NAMES) <= names or any(kind.startswith("name ") for kind in summary.skipped)
    for kind in ("hard-linked symlink", "hard-linked FIFO", "socket", "user xattr of 0 bytes"):
        assert summary.kinds.get(kind) or kind in summary.skipped
    privileged = ("character device", "block device", "owners", "trusted xattr", "file mode 0000")
    for kind in privileged:
        assert (kind in summary.kinds) == PRIVILEGED or kind in summary.skipped
    assert max(len(path) for path in snapshot.entries) > 5500
    assert max(path.count(b"/") for path in snapshot.entries) >= 40
    groups = {frozenset(group) for group in snapshot.link_groups()}
    assert any(group & {b"links/symlink"} for group in groups)


def test_sparse_files_have_the_extents_that_were_asked_for(made):
    _, _, snapshot = made
    for name, (size, extents) in SPARSE_FILES.items():
        entry = snapshot.entries[b"sparse/" + name.encode()]
        assert entry.stat.st_size == size
        assert len(entry.extents) == len(extents)
        assert entry.stat.st_blocks * 512 < 4 << 20


def test_special_times_are_kept_or_named_as_skipped(made):
    _, summary, snapshot = made
    kept = 0
    for mtime in SPECIAL_TIMES_NS:
        stored = snapshot.entries[b"times/mtime-%d" % mtime].stat.st_mtime_ns
        if f"time {mtime} ns" not in summary.skipped:
            assert stored == mtime
            kept += 1
    assert kept >= 6


def test_directories_keep_their_own_times_although_they_were_filled(made):
    _, _, snapshot = made
    for path in (b"directories/crowd", b"directories/deep/level-0", b"long-path", b""):
        assert snapshot.entries[path].stat.st_mtime < 1_700_000_000


def test_every_file_has_nanoseconds_of_its_own(made):
    _, _, snapshot = made
    fractions = {e.stat.st_mtime_ns % 10**9 for e in snapshot.entries.values()}
    assert len(fractions) > INODES * 0.95


def test_an_unprivileged_tree_of_another_seed_is_another_and_names_what_it_left_out(made, tmp_path):
    root = tmp_path / "tree"
    try:
        summary = make_tree(root, 1, seed=1, privileged=False)
        assert "device" not in summary.types
        for kind in ("character device", "owners", "trusted xattr", "directory mode 0000"):
            assert summary.skipped[kind] == "needs privilege"
        name = "regular/4096-bytes"
        assert (root / name).read_bytes() != (made[0] / name).read_bytes()
    finally:
        remove_tree(root)


def test_removing_a_tree_leaves_nothing_and_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    root = tmp_path / "tree"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "closed").mkdir()
    (root / "closed/file").touch()
    (root / "closed").chmod(0)
    remove_tree(root)
    remove_tree(root)
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert (outside / "keep").exists()


def test_a_uniform_tree_has_the_files_asked_for_and_no_two_alike(tmp_path):
    root = tmp_path / "uniform"
    inodes = make_uniform(root, files=250, per_directory=100, size_bytes=4096)
    files = [path for path in root.rglob("*") if path.is_file()]
    assert len(files) == 250
    assert inodes == len(list(root.rglob("*"))) + 1
    assert {path.stat().st_size for path in files} == {4096}
    assert len({path.read_bytes() for path in files}) == 250
    flat = tmp_path / "flat"
    assert make_flat(flat, files=30, size_bytes=0) == 31
    assert len(os.listdir(flat)) == 30


def test_an_acl_is_encoded_as_the_kernel_takes_it_and_gives_it_back(tmp_path: Path):
    value = encode_acl(
        [(32, 4, ACL_NO_ID), (2, 5, 1000), (1, 6, ACL_NO_ID), (16, 5, ACL_NO_ID), (4, 4, ACL_NO_ID)]
    )
    assert value[:12].hex() == "0200000001000600ffffffff"
    file = tmp_path / "file"
    file.touch()
    os.setxattr(file, "system.posix_acl_access", value)
    assert os.getxattr(file, "system.posix_acl_access") == value
