"""Runs that read snapshots: taken before anything is read, released whatever happens."""

import pytest

from bacula_bridge.coordinator import Coordinator
from bacula_bridge.protocol import Accept
from shards.changes import Gap
from shards.ledger_schema import RunState
from shards.snapshots import Snapshot, SnapshotRefused
from tests.support.bridge_site import PAST, ROLE, Site, first_tree, second_tree

MASK = (1 << 48) - 1


class Taken:
    """Snapshots that are only names."""

    def __init__(self):
        self.there = []
        self.calls = []
        self.refuses = self.stays = False

    def path(self, root, name):
        self.calls.append(("path", root, name))
        return root + b"/.snap/" + name.encode()

    def take(self, root, path):
        self.calls.append(("take", root, path))
        self.there.append(path)
        if self.refuses:
            raise SnapshotRefused("it has other inode numbers")
        return Snapshot(path, path, MASK, 1234)

    def release(self, path):
        if self.stays:
            raise SnapshotRefused("it is busy")
        self.there = [each for each in self.there if each != path]


@pytest.fixture
def taken():
    return Taken()


@pytest.fixture
def site(tmp_path, taken):
    site = Site(tmp_path)
    site.coordinator._snapshotter = taken
    site.coordinator.define_dataset("d", "posix", b"/data", 1, snapshot=True)
    yield site
    site.close()


def test_a_run_reads_its_snapshot_and_gives_it_back(site, taken):
    run = site.open_run()
    path = b"/data/.snap/forebay-d-%d" % run
    assert taken.there == [path]
    lease = site.coordinator.take_lease(0, ROLE, site.epoch, 0)
    assert (lease.root, lease.read_root, lease.inode_mask) == (b"/data", path, MASK)
    with site.client() as client:
        accept = client.hello(jobid=1)
        assert isinstance(accept, Accept)
        assert (accept.root, accept.read_root) == (b"/data", path)
        assert (accept.inode_mask, accept.snapshot_ns) == (MASK, 1234)
        assert accept.note == f"read from the snapshot {path.decode()}"
    site.wait_broken()
    assert taken.there == [path]
    site.coordinator.end_run(run)
    assert taken.there == []


def test_an_incremental_says_it_beside_what_it_builds_on(site, taken):
    site.backup(first_tree(), 7)
    accept, _ = site.backup(second_tree(), 8, "I", PAST + 1, previous_job="job.7")
    assert accept.note.startswith("incremental on JobId 7; ")
    assert accept.note.endswith(f"; read from the snapshot /data/.snap/forebay-d-{site.run}")
    assert taken.there == []


def test_it_is_taken_after_the_position_and_before_any_lease(site, taken):
    class Source:
        name = "scripted"

        def position(self):
            taken.calls.append(("position",))
            raise Gap("the test has none")

    site.coordinator._scoping._change_source = lambda dataset: Source()
    site.open_run()
    assert [call[0] for call in taken.calls] == ["position", "path", "take"]


def test_a_dataset_that_does_not_want_one_reads_live(site, taken):
    site.coordinator.define_dataset("d", "posix", b"/data", 1, snapshot=False)
    site.open_run()
    assert site.coordinator.take_lease(0, ROLE, site.epoch, 0).read_root == b""
    assert taken.calls == []


def test_where_there_is_none_the_run_reads_live_and_says_why(site, taken):
    taken.refuses = True
    run = site.open_run()
    lease = site.coordinator.take_lease(0, ROLE, site.epoch, 0)
    assert (lease.read_root, lease.inode_mask) == (b"", 0)
    with site.client() as client:
        accept = client.hello(jobid=1)
        assert accept.read_root == b""
        assert accept.note == "read live, without a snapshot: it has other inode numbers"
    site.wait_broken()
    site.coordinator.end_run(run)
    assert taken.there == []  # it was taken, and could not be used


def test_one_that_cannot_be_released_is_tried_again_with_the_next_run(site, taken):
    site.open_run()
    taken.stays = True
    site.coordinator.end_run(site.run)
    assert len(taken.there) == 1
    taken.stays = False
    site.open_run()
    site.coordinator.end_run(site.run)
    assert taken.there == []


def test_a_killed_coordinator_leaves_none_behind(site, taken):
    run = site.open_run()
    site.close()
    again = Coordinator(site.state, site.catalog, snapshotter=taken)
    try:
        assert again.status(run).run.state is RunState.FAILED
        assert taken.there == []
        again.reopen_run(run)
        assert taken.there == [b"/data/.snap/forebay-d-%d" % run]
        again.end_run(run)
        assert taken.there == []
    finally:
        again.close()
        site.coordinator = Coordinator(site.state, site.catalog)


def test_one_that_was_about_to_be_taken_is_not_left_behind(site, taken):
    class Killed(BaseException):
        pass

    def die(root, path):
        taken.there.append(path)
        raise Killed

    taken.take = die
    with pytest.raises(Killed):
        site.open_run()
    assert len(taken.there) == 1
    site.close()
    Coordinator(site.state, site.catalog, snapshotter=taken).close()
    assert taken.there == []
    site.coordinator = Coordinator(site.state, site.catalog)
