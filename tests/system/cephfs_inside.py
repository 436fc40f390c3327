"""What test_cephfs.py runs in the mount namespace of its cluster.

Covers: the walk's conformance suite on CephFS, whole backups of a CephFS tree.

FOREBAY_CEPH_MOUNTS names the mounts of two clients, separated by a colon.
"""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from filesystems.cephfs.attributes import recursive_change_second
from filesystems.cephfs.client import close_idle_clients
from filesystems.cephfs.filesystem import PIN, CephfsFilesystem
from filesystems.cephfs.rctime import RctimeSource, margin_s
from filesystems.fanotify.mounts import mounts_below
from tests.conformance.changes_suite import ChangesSuite, Site
from tests.conformance.filesystem_suite import FilesystemSuite
from tests.conformance.targets_suite import TargetsSuite
from tests.support.ceph.histories import (
    MARGIN_S,
    SHARDS,
    snapshot_without_sizes,
    with_listed,
)
from tests.support.compare import compare_trees
from tests.support.plain_tree import PlainTree
from tests.system.test_faults import small_tree
from tests.system.test_incremental import check_restore, levels

pytestmark = pytest.mark.bacula

FILES = 80
STRIPED = b"stripe_unit=1048576 stripe_count=2 object_size=4194304 pool=cephfs_other"
LAYOUTS = {
    "striped": {"ceph.file.layout": STRIPED},
    "d2": {"ceph.dir.layout": STRIPED, "ceph.quota.max_files": b"1000", "ceph.dir.pin": b"1"},
}


@pytest.fixture(scope="module")
def clients():
    one, two = os.environ["FOREBAY_CEPH_MOUNTS"].split(":")
    return Path(one), Path(two)


@pytest.fixture
def walked(clients):
    folder = Path(tempfile.mkdtemp(prefix="walk-", dir=clients[0]))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["rm", "-rf", "--", folder], check=True)


class TestCephfsWalk(FilesystemSuite):
    """The walk keeps its contract there, but for the kernel's own bounds, shown on any tree."""

    huge = 9_000
    test_what_waits_does_not_grow_with_the_width_of_a_directory = None
    test_a_slow_consumer_stops_the_threads = None
    test_a_cancelled_walk_raises_and_leaves_nothing_open = None
    test_many_walks_leave_no_memory_descriptors_or_threads_behind = None
    test_deep_trees_need_few_descriptors = None
    test_running_out_of_descriptors_loses_nothing = None
    # Whether one is reopened depends on the order of names, which is CephFS's.
    test_directories_closed_for_want_of_descriptors_are_opened_again = None

    def adapter(self, root):
        return CephfsFilesystem(root)

    @pytest.fixture
    def root(self, walked):
        return walked


class TestCephfsRanks(TargetsSuite):
    """Directories pinned to two metadata servers are walked by two walkers."""

    def placed(self, root, targets):
        for path, rank in targets.items():
            os.setxattr(root / os.fsdecode(path), PIN, b"%d" % rank)
        return CephfsFilesystem(root)

    @pytest.fixture
    def root(self, walked):
        return walked


class TestCephfsChanges(ChangesSuite):
    """Each look waits until change times have settled: all kinds of changes at once."""

    test_a_change_is_covered = None

    @contextmanager
    def open_site(self, base):
        folder = Path(tempfile.mkdtemp(prefix="changes-", dir=base))
        for name in ("root", "outside"):
            (folder / name).mkdir()
        root = bytes(folder / "root")
        yield Site(
            root,
            bytes(folder / "outside"),
            RctimeSource(root, margin_s=MARGIN_S),
            PlainTree(),
            lambda changes, before: with_listed(changes, [before] * SHARDS),
            snapshot_without_sizes,
        )

    @pytest.fixture
    def site(self, clients):
        with self.open_site(clients[0]) as site:
            self.prepare(site)
            yield site


class _Farewell(CephfsFilesystem):
    """A tree whose client leaves the cluster where a test's child ends without any farewell.

    Else the metadata servers wait a minute for it before others may write what it has seen.
    """

    process = os.getpid()

    def walk(self, *arguments, **named):
        walk = super().walk(*arguments, **named)
        close = walk.close

        def close_and_leave():
            close()
            if os.getpid() != self.process:
                close_idle_clients()

        walk.close = close_and_leave
        return walk


class TestLibcephfsWalk(TestCephfsWalk):
    """So does the walk by libcephfs."""

    attributes_come_with_names = True
    test_every_column_is_what_lstat_says = None  # below: sizes of directories come later

    def adapter(self, root):
        filesystem = _Farewell(root)
        if root.is_dir() and not mounts_below(bytes(root)):
            assert filesystem.access.startswith("by libcephfs"), filesystem.access
        return filesystem

    @pytest.fixture
    def root(self, clients):
        folder = Path(tempfile.mkdtemp(prefix="walk-", dir=clients[0]))
        folder.chmod(0o755)
        yield folder
        close_idle_clients()  # what it was granted would have to be taken back for each name
        subprocess.run(["rm", "-rf", "--", folder], check=True)

    def open_descriptors(self):
        close_idle_clients()
        return super().open_descriptors()

    def cookie_device(self, device):
        return device | 1 << 62


@pytest.fixture(scope="module")
def traps(clients):
    """Make a tree, and beside it what will be moved into it, early: change times have to age."""
    place = clients[0] / "backup"
    place.mkdir()
    tree = small_tree(place / "tree", FILES)
    (tree / "deep/er/still").mkdir(parents=True)
    (tree / "deep/er/still/file").write_bytes(b"as it was")
    (tree / "links").mkdir()
    os.link(tree / "d0" / "f0", tree / "links" / "remote")  # its primary name is in d0
    (tree / "striped").touch()
    for name, attributes in LAYOUTS.items():
        for attribute, value in attributes.items():
            os.setxattr(tree / name, attribute, value)
    (tree / "striped").write_bytes(os.urandom(5 << 20))
    for side in ("a", "b"):
        for number in range(4):
            folder = tree / "swapped" / side / f"sub{number}"
            folder.mkdir(parents=True)
            (folder / "f").write_text(f"{side} {number}")
    (place / "outside").mkdir()
    (place / "outside" / "primary").write_bytes(b"its first name is outside")
    os.link(place / "outside" / "primary", tree / "links" / "from-outside")
    for name in ("moved", "later"):
        (place / "outside" / name / "below").mkdir(parents=True)
        (place / "outside" / name / "below" / "old").write_bytes(b"older than the position")
    return place


def swap(tree):
    """Let two directories of the same form take each other's name."""
    one, two, aside = (tree / "swapped" / name for name in ("a", "b", "aside"))
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def check(installation, run, tree, tmp_path):
    """Restore a run in the quicker way and compare it with the tree."""
    check_restore(installation, run, tree, tmp_path, ways=["forebay"])


def check_layouts(installation, run, tree, place):
    """Restore a run onto the CephFS: striping, pool, quota and pin are as they were."""
    result = installation.ok("restore", run, "--to", place, "--json", "-q").json
    restored = Path(result["tree"])
    assert not compare_trees(tree, restored)
    for name, attributes in LAYOUTS.items():
        found = {attribute: os.getxattr(restored / name, attribute) for attribute in attributes}
        assert found == attributes
    # What was created below the directory's layout before it was set keeps the target's default.
    assert os.getxattr(restored / "d2/f2", "ceph.file.layout") == os.getxattr(
        tree / "d2/f2", "ceph.file.layout"
    )


def check_restore_objects(installation, run, tree):
    """Look at what the catalog has of all jobs' layouts: the object is in their last record."""
    shown = installation.ok("show", run, "--restore-object").json
    objects = [found for job in shown["jobs"] for found in job["objects"]]
    fsid = os.getxattr(tree, "ceph.cluster_fsid").decode()
    assert {(each["filesystem"], each["identity"]) for each in objects} == {("ceph", fsid)}
    assert sum(each["directories"] for each in objects) == 1  # d2
    counts = {}
    for each in (layout for found in objects for layout in found["layouts"]):
        pool = each["layout"]["pool"]
        counts[pool] = counts.get(pool, 0) + each["files"]
    files = {os.lstat(path).st_ino for path in tree.rglob("*") if path.is_file()}
    assert counts == {"cephfs_data": len(files) - 1, "cephfs_other": 1}  # striped


def looked_at(installation, result):
    """Return how many names a run looked at; it must not have scanned."""
    log = installation.job_log(result["jobs"][0]["jobid"])
    assert "only what rctime reports since is looked at" in log
    return installation.ok("show", result["run"], "--json").json["scanned"]["inodes"]


def files_of(result):
    return sum(job["files"] for job in result["jobs"])


def test_another_directory_at_the_root_is_scanned(installation, clients, traps, tmp_path):
    root = clients[0] / "swapped"
    small_tree(root)
    installation.backup(root, "--name", "swapped", "--shards", "2")
    root.rename(clients[0] / "swapped-away")
    small_tree(root)
    second = installation.backup(root, "--name", "swapped")
    log = installation.job_log(second["jobs"][0]["jobid"])
    assert "the whole tree is looked at: the change source was not there, or another one" in log
    check(installation, second["run"], root, tmp_path)


def test_a_full_three_incrementals_and_restores(installation, clients, traps, tmp_path):
    one, two = traps, clients[1] / "backup"
    tree = one / "tree"
    report = installation.ok("doctor", tree, "--json").json["tree"]
    assert (report["mount_type"], report["change_source"]) == ("fuse.ceph-fuse", "rctime")
    assert (report["adapter"], report["targets"]) == ("cephfs", ["rank 0", "rank 1"])
    way = "by libcephfs" if "CEPH_CONF" in os.environ else "through the mount"
    assert report["walk"].startswith(way)
    first = installation.backup(tree, "--name", "ceph", "--shards", "3")
    assert levels(installation, first) == ["F"] * 3
    check(installation, first["run"], tree, tmp_path)
    check_layouts(installation, first["run"], tree, clients[0] / "restored")
    check_restore_objects(installation, first["run"], tree)

    # By one client: a subtree is moved in, a file gets a new name.
    (one / "outside" / "moved").rename(tree / "d1" / "moved")
    os.link(tree / "d2" / "f2", tree / "links" / "new")
    # By the other: an append that is not flushed, through the name that does not count; times that
    # are far off.
    other = two / "tree"
    unflushed = os.open(other / "links" / "remote", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    os.write(unflushed, b"appended")
    os.utime(other / "d3" / "f3", (2_208_988_800, 2_208_988_800))  # 2040
    os.utime(other / "d3" / "f7", (978_307_200, 978_307_200))  # 2001
    (other / "d1" / "f1").unlink()
    swap(tree)
    second = installation.backup(tree, "--name", "ceph")
    os.close(unflushed)
    assert levels(installation, second) == ["I"] * 3
    assert looked_at(installation, second) > FILES  # all of this is within the margin
    assert 0 < files_of(second) < 50  # not all of it
    check(installation, second["run"], tree, tmp_path)

    # From here on the margin leaves out what was not touched since the beginning.
    newest = max(recursive_change_second(bytes(path)) for path in (tree / "d2", one / "outside"))
    while time.time() - newest < margin_s() + 2:
        time.sleep(1)
    third = installation.backup(tree, "--name", "ceph")
    assert files_of(third) == 2  # the one from the future, which is not trusted; its restore object

    # A subtree older than the position, names that other directories take over, and a change deep
    # below nothing else that changed.
    (one / "outside" / "later").rename(tree / "links" / "later")
    (other / "deep" / "er").rename(other / "d1" / "er")
    (other / "d1" / "er" / "still" / "file").write_bytes(b"changed where it is now")
    assert recursive_change_second(bytes(tree / "links/later/below")) <= newest
    # What the jobs of other shards still have of the directories that were swapped is not news.
    swap(tree)
    with open(two / "outside" / "primary", "ab") as stream:
        stream.write(b", and changed there")
    shutil.rmtree(tree / "d0")
    fourth = installation.backup(tree, "--name", "ceph")
    # d2 is left out, and d1 with what was moved there before is not.
    assert looked_at(installation, fourth) < FILES
    check_restore(installation, fourth["run"], tree, tmp_path)


def test_a_run_reads_a_snapshot_and_leaves_none(installation, clients, tmp_path):
    """Inode numbers, layouts and times in it are the live ones: the next run sends no file."""
    root = small_tree(clients[0] / "snapped")
    (root / "striped").touch()
    os.setxattr(root / "striped", "ceph.file.layout", STRIPED)
    (root / "striped").write_bytes(os.urandom(5 << 20))
    os.link(root / "d0" / "f0", root / "second-name")
    first = installation.backup(root, "--name", "snapped", "--shards", "2", "--snapshot")
    for job in first["jobs"]:
        log = installation.job_log(job["jobid"])
        assert f"read from the snapshot {root}/.snap/forebay-snapped-" in log
    assert os.listdir(root / ".snap") == []
    check(installation, first["run"], root, tmp_path)
    (root / "d1" / "f1").write_bytes(b"changed since")
    second = installation.backup(root, "--name", "snapped", "--no-snapshot")
    assert "snapshot" not in installation.job_log(second["jobs"][0]["jobid"])
    assert installation.ok("show", second["run"], "--json").json["files"] == 1
    third = installation.backup(root, "--name", "snapped", "--snapshot")
    assert installation.ok("show", third["run"], "--json").json["files"] == 0
    for words in ([], ["--data"]):
        found = installation.ok("verify", third["run"], "--json", *words).json
        assert found["differences"] == 0
    check(installation, third["run"], root, tmp_path)
