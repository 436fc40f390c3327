"""The whole way, by the commands that a user types: every kind of file goes and comes back."""

import os
import re
import stat
from collections import Counter
from pathlib import Path

import pytest

from cluster.settings import Settings
from tests.support.bulk import make_uniform, remove_tree
from tests.support.compare import (
    compare_snapshots,
    compare_trees,
    format_differences,
    take_snapshot,
)
from tests.support.tree import make_tree

pytestmark = pytest.mark.bacula

INODES = 20_000


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("source") / "tree"
    make_tree(root, INODES, seed=20_261_121, privileged=os.geteuid() == 0)
    yield root
    remove_tree(root)


@pytest.fixture
def place(tmp_path):
    """Where to restore to; trees with paths past PATH_MAX need our own removal."""
    place = tmp_path / "restored"
    yield place
    if place.exists():
        remove_tree(place)


def below(place, tree):
    return Path(f"{place}{tree}")


def assert_same(tree, restored):
    differences = compare_trees(tree, restored, times=("mtime", "atime"))
    assert not differences, format_differences(differences)


def plain_restore(installation, result, place, *more):
    """Restore with bconsole alone; return the job's status letter."""
    jobids = ",".join(str(job["jobid"]) for job in result["jobs"])
    answer = installation.console(
        f"restore client=forebay-fd jobid={jobids} where={place} {' '.join(more)} all done yes\n"
    )
    jobid = int(re.search(r"JobId=(\d+)", answer).group(1))
    return installation.wait_job(jobid), jobid


@pytest.mark.parametrize("shards", [1, 3, 4])
def test_a_tree_of_every_kind_comes_back_exactly(installation, tree, place, shards):
    result = installation.backup(tree, "--name", f"tree{shards}", "--shards", shards)
    assert result["state"] == "complete"
    assert result["files"] + result["directories"] >= INODES
    assert {job["status"] for job in result["jobs"]} == {"T"}
    assert [job["shard"] for job in result["jobs"]] == list(range(shards))

    restored = installation.ok(
        "restore", result["run"], "--name", f"tree{shards}", "--to", place, "--json", "-q"
    ).json
    assert restored["good"]
    assert restored["tree"] == str(below(place, tree))
    assert_same(tree, below(place, tree))

    remove_tree(place)
    status, jobid = plain_restore(installation, result, place)
    assert status == "T", installation.job_log(jobid)
    assert_same(tree, below(place, tree))


def test_plain_bconsole_restores_without_anything_of_ours_running(installation, tree, place):
    result = installation.backup(tree, "--name", "plain", "--shards", "3")
    assert not Settings(installation.home).runtime.exists(), "Ray or the bridge are still there"
    state, jobid = plain_restore(installation, result, place)
    assert state == "T", installation.job_log(jobid)
    assert_same(tree, below(place, tree))


def test_every_name_is_in_one_job_and_names_of_an_inode_are_in_the_same(installation, tree):
    result = installation.backup(tree, "--name", "once", "--shards", "4")
    jobs = {}
    counts = Counter()
    for job in result["jobs"]:
        rows = installation.query(
            "SELECT Path.Path || File.Filename FROM File JOIN Path USING (PathId) WHERE JobId = ?",
            (job["jobid"],),
        )
        for (name,) in rows:
            counts[name] += 1
            jobs[name] = job["jobid"]
    assert set(counts.values()) == {1}
    assert len(counts) == result["files"] + result["directories"]
    assert result["scanned"]["inodes"] == len(counts) + result["skipped"]
    groups = {}
    prefix = str(tree).encode() + b"/"
    snapshot = take_snapshot(tree)
    for name, entry in snapshot.entries.items():
        if entry.stat.st_nlink > 1 and entry.type not in (stat.S_IFDIR, stat.S_IFSOCK):
            groups.setdefault(entry.stat.st_ino, set()).add(jobs[prefix + name])
    assert groups
    assert all(len(jobids) == 1 for jobids in groups.values())


def test_the_source_is_left_as_it_was(installation, tree):
    before = take_snapshot(tree)
    installation.backup(tree, "--name", "untouched", "--shards", "2")
    after = take_snapshot(tree)
    differences = compare_snapshots(before, after, times=("mtime", "atime"))
    assert not differences, format_differences(differences)


def test_paths_bring_themselves_and_the_directories_above(installation, tree, place):
    result = installation.backup(tree, "--name", "paths", "--shards", "3")
    found = sorted(path for path in tree.iterdir() if path.is_dir() and not path.is_symlink())
    first, second = found[0], found[-1]
    arguments = ("--to", place, "--path", first, "--path", second.name)
    installation.ok("restore", result["run"], *arguments, "-q")
    assert_same(first, below(place, first))
    assert_same(second, below(place, second))
    restored = {path.name for path in below(place, tree).iterdir()}
    assert restored == {first.name, second.name} or len(restored) < len(list(tree.iterdir()))
    assert below(place, tree).stat().st_mode == tree.stat().st_mode
    assert below(place, tree).stat().st_mtime_ns == tree.stat().st_mtime_ns


def test_a_shard_of_more_entries_than_the_window_is_saved(installation, tmp_path):
    """65,536 entries may wait for their receipts; this shard has more."""
    root = tmp_path / "many"
    names = make_uniform(root, files=70_000, per_directory=1_000, size_bytes=0)
    result = installation.backup(root, "--name", "many", "--shards", "1")
    assert result["files"] + result["directories"] == names
