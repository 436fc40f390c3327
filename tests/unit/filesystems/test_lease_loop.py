"""Walkers without Ray: every name once, one lease committed while the next one is walked."""

import os
import threading
import time
from pathlib import Path

import pytest

from bacula_bridge.catalog import Catalog
from bacula_bridge.coordinator import Coordinator
from filesystems import lease_loop
from filesystems.lease_loop import LeaseLoop
from filesystems.posix import PosixFilesystem
from shards.lease import PendingDirectory
from shards.ledger import Lease, LeaseLost, StaleEpoch
from shards.segment import SegmentStore
from shards.state import StateDirectory
from tests.support.targets import PinnedFilesystem

SHARDS = 3
DEADLINE_S = 60.0
WAIT_S = 0.05
# Some lie in one another, and one of them leads back to the root's target.
PINNED = {b"t1": 1, b"t2": 2, b"t1/d3": 2, b"t1/d3/d2": 0, b"t2/d4": 1, b"d1": 3}
TARGETS = 4


class Killed(Exception):
    """The process of a walker ends here."""


class Leases:
    """One walker's leases, straight from a coordinator."""

    def __init__(self, coordinator, target=0):
        self.coordinator, self.target = coordinator, target
        self.role = f"walker:{target}"
        self.epoch = coordinator.take_epoch(self.role)
        self.taken, self.committed, self.failed = [], [], []

    def take(self, wait_s):
        lease = self.coordinator.take_lease(self.target, self.role, self.epoch, wait_s)
        if lease is not None:
            self.taken.append(lease.number)
        return lease

    def commit(self, number, result):
        self.coordinator.commit_lease(number, self.role, self.epoch, result)
        self.committed.append(number)

    def fail(self, run, reason):
        self.failed.append(reason)
        self.coordinator.fail_run(run, reason)


class DiesAtItsThird(Leases):
    """Is killed when it is about to commit its third lease; the second is still being walked."""

    def commit(self, number, result):
        if len(self.committed) == 2:
            raise Killed
        super().commit(number, result)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(lease_loop, "LEASE_WAIT_S", WAIT_S)


class Site:
    """A coordinator and walkers in threads."""

    def __init__(self, folder):
        self.state = StateDirectory(folder / "state")
        self.coordinator = Coordinator(self.state, Catalog(folder / "none"))
        self.stopping = threading.Event()
        self.threads = []

    def open_run(self, root):
        dataset = self.coordinator.define_dataset("d", "posix", os.fsencode(root), SHARDS)
        self.seed = dataset.seed
        self.run = self.coordinator.open_run("d", "full").number

    def start(self, leases, filesystem):
        loop = LeaseLoop(leases, self.state, lambda root: filesystem)

        def serve():
            try:
                loop.serve(self.stopping)
            except (Killed, StaleEpoch):
                return

        self.threads.append(threading.Thread(target=serve))
        self.threads[-1].start()
        return self.threads[-1]

    def wait_scanned(self):
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            page = self.coordinator.segments(self.run, 1 << 40, 0.5)
            assert page.refusal is None, page.refusal
            if page.scan_ended:
                return
        raise AssertionError("the scan did not end")

    def rows(self):
        """Return (path, target) of every row that the ledger names."""
        store, found, after = SegmentStore(self.state.segments(self.run)), [], 0
        while infos := self.coordinator.segments(self.run, after, 0).infos:
            after = infos[-1].number
            for info in infos:
                for shard in range(SHARDS):
                    for row_class in range(3):
                        batch = store.rows(info, shard, row_class)
                        columns = batch.column("path"), batch.column("target")
                        found += zip(*(column.to_pylist() for column in columns), strict=True)
        return sorted(found)

    def close(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        self.coordinator.close()


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.close()


def make_files(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"f{number}").touch()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Nearly 11,000 names, so that every walker has several leases."""
    root = tmp_path_factory.mktemp("tree")
    make_files(root, 30)
    for top in ("t1", "t2", "t3", "d1"):
        make_files(root / top, 20)
        for middle in range(6):
            for leaf in range(4):
                make_files(root / top / f"d{middle}" / f"d{leaf}", 110)
    return root


def targets_of_names(root):
    """Return (path, target whose walker makes its row) of everything."""
    root = os.fsencode(root)
    found = [(b"", 0)]
    below = {b"": 0}
    for folder, folders, files in os.walk(root):
        path = os.path.relpath(folder, root)
        path = b"" if path == b"." else path
        target = below[path]
        for name in folders + files:
            full = os.path.join(path, name)
            found.append((full, target))
            below[full] = PINNED.get(full, target)
    return sorted(found)


def test_four_walkers_find_every_name_once_each_its_own(site, tree):
    site.open_run(tree)
    filesystem = PinnedFilesystem(os.fsencode(tree), PINNED)
    assert len(filesystem.targets()) == TARGETS
    leases = [Leases(site.coordinator, target) for target in range(TARGETS)]
    for each in leases:
        site.start(each, filesystem)
    site.wait_scanned()
    assert site.rows() == targets_of_names(tree)
    assert all(each.committed == each.taken for each in leases)
    assert all(each.committed for each in leases)


@pytest.mark.parametrize("victim", range(TARGETS))
def test_a_killed_walker_costs_nothing_but_its_leases(site, tree, victim):
    site.open_run(tree)
    filesystem = PinnedFilesystem(os.fsencode(tree), PINNED)
    dying = DiesAtItsThird(site.coordinator, victim)
    thread = site.start(dying, filesystem)
    for target in range(TARGETS):
        if target != victim:
            site.start(Leases(site.coordinator, target), filesystem)
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert len(dying.committed) == 2
    assert len(dying.taken) >= 3
    again = Leases(site.coordinator, victim)
    site.start(again, filesystem)
    site.wait_scanned()
    assert site.rows() == targets_of_names(tree)
    assert again.committed


def test_a_walker_that_was_replaced_commits_nothing_more(site, tree):
    """It hangs in a commit while another one takes over, and wakes up afterwards."""
    site.open_run(tree)
    hanging, replaced = threading.Event(), threading.Event()

    class Hangs(Leases):
        def commit(self, number, result):
            if len(self.committed) == 2:
                hanging.set()
                assert replaced.wait(DEADLINE_S)
            super().commit(number, result)

    zombie = Hangs(site.coordinator)
    thread = site.start(zombie, PosixFilesystem(tree))
    assert hanging.wait(DEADLINE_S)
    successor = Leases(site.coordinator)
    replaced.set()
    thread.join(DEADLINE_S)
    assert len(zombie.committed) == 2
    site.start(successor, PosixFilesystem(tree))
    site.wait_scanned()
    assert [path for path, _ in site.rows()] == [path for path, _ in targets_of_names(tree)]
    assert successor.committed


def test_the_next_lease_is_walked_while_one_is_committed(site, tree):
    """Commits wait here until the lease after them has been walked, once there can be one."""
    site.open_run(tree)
    overlaps = []

    class Waits(Leases):
        committing = 0

        def commit(self, number, result):
            self.committing += 1
            assert self.committing == 1, "two commits at once"
            assert number == self.taken[len(self.committed)], "out of order"
            deadline = time.monotonic() + (DEADLINE_S if len(self.committed) == 1 else 0)
            walked = self.taken[len(self.committed) + 1 :]
            while time.monotonic() < deadline and not walked:
                walked = self.taken[len(self.committed) + 1 :]
            overlaps.extend(walked)
            super().commit(number, result)
            self.committing -= 1

    leases = Waits(site.coordinator)
    site.start(leases, PosixFilesystem(tree))
    site.wait_scanned()
    assert overlaps, leases.taken
    assert leases.committed == leases.taken


def test_what_is_committed_is_durable(site, tree, monkeypatch):
    site.open_run(tree)
    flushed, fsync = [], os.fsync
    segments = site.state.segments(site.run)

    def record(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        size_bytes = os.fstat(descriptor).st_size
        fsync(descriptor)
        flushed.append((path, size_bytes))

    class Notes(Leases):
        def commit(self, number, result):
            commits.append((result.segments, list(flushed)))
            super().commit(number, result)

    commits = []
    monkeypatch.setattr(os, "fsync", record)
    site.start(Notes(site.coordinator), PosixFilesystem(tree))
    site.wait_scanned()
    assert len(commits) > 2
    for infos, before in commits:
        files = [(segments / info.name, info.size_bytes) for info in infos]
        folder = max(place for place, (path, _) in enumerate(before) if path == segments)
        assert all(before.index(file) < folder for file in files)


def test_a_segment_that_cannot_be_written_fails_the_run(site, tree):
    site.open_run(tree)
    site.state.segments(site.run).rmdir()
    leases = Leases(site.coordinator)
    site.start(leases, PosixFilesystem(tree))
    page = site.coordinator.segments(site.run, 0, DEADLINE_S)
    assert "No such file" in page.refusal
    assert not leases.committed


def test_a_lease_of_an_ended_run_is_dropped(site, tree):
    site.open_run(tree)
    ended = threading.Event()

    class EndsTheRun(Leases):
        def commit(self, number, result):
            self.coordinator.end_run(site.run)
            try:
                super().commit(number, result)
            except LeaseLost:
                ended.set()
                raise

    leases = EndsTheRun(site.coordinator)
    thread = site.start(leases, PosixFilesystem(tree))
    assert ended.wait(DEADLINE_S)
    assert thread.is_alive()
    assert not leases.committed
    assert not leases.failed


def test_a_snapshot_is_walked_in_the_roots_place_without_forebays_own_folder(tmp_path):
    """What the folder is called there has to be found: inode numbers of a snapshot are others."""
    root, shown, opened = tmp_path / "root", tmp_path / "shown", []
    for place in (root, shown):
        (place / "home/state").mkdir(parents=True)
        (place / "data").mkdir()
    lease = Lease(
        1, 1, 1, bytes(root), 1, 0, (PendingDirectory(b""),), True, True, read_root=bytes(shown)
    )

    class OneLease:
        def __init__(self):
            self.left, self.results = [lease], []

        def take(self, wait_s):
            if not self.left:
                stopping.set()
            return self.left.pop() if self.left else None

        def commit(self, number, result):
            self.results.append(result)

    def open_it(path):
        opened.append(path)
        return PosixFilesystem(path)

    stopping, leases = threading.Event(), OneLease()
    state = StateDirectory(tmp_path / "state")
    state.make()
    state.make_run(1)
    LeaseLoop(leases, state, open_it, (str(root / "home"), str(tmp_path / "else"))).serve(stopping)
    assert opened == [bytes(shown)]
    (result,) = leases.results
    assert result.inodes == 3  # the root, home, data; and not home/state


def test_a_snapshot_that_goes_in_the_midst_of_a_lease_fails_the_run(tmp_path):
    """Names in it then looked gone that are not, and would be deleted in the backup."""
    root, shown = tmp_path / "root", tmp_path / "shown"
    for place in (root, shown):
        place.mkdir()
    lease = Lease(1, 1, 1, bytes(root), 1, 0, (), False, False, (b"name",), read_root=bytes(shown))
    failed, left = [], [lease]

    class OneLease:
        def take(self, wait_s):
            if not left:
                stopping.set()
            return left.pop() if left else None

        def commit(self, number, result):
            raise AssertionError("nothing is to be committed")

        def fail(self, run, reason):
            failed.append(reason)

    class Going(PosixFilesystem):
        def walk(self, directories, options, include_root=False):
            walk = super().walk(directories, options, include_root)
            shown.rmdir()
            return walk

    stopping = threading.Event()
    state = StateDirectory(tmp_path / "state")
    state.make()
    state.make_run(1)
    LeaseLoop(OneLease(), state, Going).serve(stopping)
    (reason,) = failed
    assert str(shown) in reason
