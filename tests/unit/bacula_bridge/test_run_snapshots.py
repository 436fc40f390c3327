"""Runs that read snapshots: taken before anything is read, released whatever happens."""

import os
import re
from contextlib import suppress

import pytest

from bacula_bridge.coordinator import Coordinator
from bacula_bridge.protocol import Accept, FrameType, decode_reason
from shards.changes import ChangeSet, Gap, Position
from shards.ledger import RunOpen
from shards.ledger_schema import JobState, RunState
from shards.snapshot import Snapshot, SnapshotRefused
from tests.support.bridge_site import (
    PAST,
    ROLE,
    Pause,
    Site,
    check_answered,
    first_tree,
    second_tree,
)

MASK = (1 << 48) - 1


class Taken:
    """Snapshots that are empty directories."""

    def __init__(self, base):
        self.base = base
        self.calls = []
        self.refuses = self.stays = False

    @property
    def there(self):
        return sorted(self.base.iterdir())

    def path(self, root, name):
        assert root == b"/data"
        self.calls.append(("path",))
        return bytes(self.base / name)

    def take(self, root, path):
        self.calls.append(("take",))
        os.mkdir(path)
        if self.refuses:
            raise SnapshotRefused("it has other inode numbers")
        return Snapshot(path, path, MASK, 1234)

    def release(self, path):
        if self.stays:
            raise SnapshotRefused("it is busy")
        with suppress(FileNotFoundError):
            os.rmdir(path)


@pytest.fixture
def taken(tmp_path):
    (tmp_path / "snap").mkdir()
    return Taken(tmp_path / "snap")


@pytest.fixture
def site(tmp_path, taken):
    site = Site(tmp_path)
    site.coordinator._snapshots._snapshotter = taken
    site.coordinator.define_dataset("d", "posix", b"/data", 1, snapshot=True)
    yield site
    site.close()


def test_a_run_reads_its_snapshot_and_gives_it_back(site, taken):
    run = site.open_run()
    (path,) = map(bytes, taken.there)
    assert re.fullmatch(rb".*/snap/forebay-d-[0-9a-f]{8}", path)
    lease = site.coordinator.take_lease(0, ROLE, site.epoch, 0)
    assert (lease.root, lease.read_root, lease.inode_mask) == (b"/data", path, MASK)
    with site.client() as client:
        accept = client.hello(jobid=1)
        assert isinstance(accept, Accept)
        assert (accept.root, accept.read_root) == (b"/data", path)
        assert (accept.inode_mask, accept.snapshot_ns) == (MASK, 1234)
        assert accept.note == f"read from the snapshot {path.decode()}"
    site.wait_broken()
    assert list(map(bytes, taken.there)) == [path]
    site.coordinator.end_run(run)
    assert taken.there == []


def test_an_incremental_says_it_beside_what_it_builds_on(site, taken):
    site.backup(first_tree(), 7)
    accept, _ = site.backup(second_tree(), 8, "I", PAST + 1, previous_job="job.7")
    assert accept.note.startswith("incremental on JobId 7; ")
    assert re.search(r"; read from the snapshot /.*/snap/forebay-d-[0-9a-f]{8}$", accept.note)
    assert taken.there == []


class Source:
    """A change source that notes what is asked of it."""

    name = "scripted"

    def __init__(self, calls, gap=False):
        self.calls, self.gap, self.count = calls, gap, 0

    def position(self):
        self.calls.append(("position",))
        if self.gap:
            raise Gap("the test has none")
        self.count += 1
        return Position(self.name, "session", self.count)

    def changes(self, since, snapshot):
        self.calls.append(("changes", snapshot.root))
        return ChangeSet(names=[b"d/changed"])

    def forget(self, before):
        pass


def test_it_is_taken_between_the_position_and_what_is_listed(site, taken):
    """A file that moves between listing and snapshot would be nowhere."""
    source = Source(taken.calls)
    site.coordinator._scoping._change_source = lambda dataset: source
    site.backup(first_tree(), 7)
    assert taken.calls == [("position",), ("path",), ("take",)]
    del taken.calls[:]
    site.open_run("incremental")
    (path,) = map(bytes, taken.there)
    assert taken.calls == [("position",), ("path",), ("take",), ("changes", path)]
    assert site.coordinator.take_lease(0, ROLE, site.epoch, 0).read_root == path


def test_a_gap_takes_one_all_the_same(site, taken):
    site.coordinator._scoping._change_source = lambda dataset: Source(taken.calls, gap=True)
    site.open_run()
    assert taken.calls == [("position",), ("path",), ("take",)]


def test_others_are_answered_while_it_is_taken(site, taken):
    run = site.open_run()
    site.coordinator.end_run(run)
    pause, take = Pause(), taken.take

    def paused(root, path):
        pause()
        return take(root, path)

    def ask():
        site.coordinator.status(run)
        site.coordinator._snapshots.release()  # as another run's end does

    taken.take = paused
    with pause.during(site.open_run):
        check_answered(ask)
    assert len(taken.there) == 1


def test_one_that_somebody_removed_fails_the_jobs_that_read_it(site, taken):
    site.open_run()
    site.commit(first_tree())
    (path,) = taken.there
    with site.client() as client:
        client.hello(jobid=1)
        entries = list(client.entries())
        path.rmdir()
        client.acknowledge(len(entries))
        client.done()
        kind, payload = client.read()
    assert kind is FrameType.ABORT
    assert f"the snapshot {path} is gone" in decode_reason(payload)
    assert site.wait_broken().state is JobState.BAD


def test_a_run_that_cannot_begin_leaves_none(site, taken):
    site.open_run()
    with pytest.raises(RunOpen):
        site.coordinator.open_run("d", "full")
    assert len(taken.there) == 1  # the open run's


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
        assert len(taken.there) == 1
        assert again._snapshots.said(run).endswith(", taken when the run was resumed")
        again.end_run(run)
        assert taken.there == []
    finally:
        again.close()
        site.coordinator = Coordinator(site.state, site.catalog)


def test_one_that_was_about_to_be_taken_is_not_left_behind(site, taken):
    class Killed(BaseException):
        pass

    def die(root, path):
        os.mkdir(path)
        taken.stays = True
        raise Killed

    taken.take = die
    with pytest.raises(Killed):
        site.open_run()
    assert len(taken.there) == 1
    site.close()
    taken.stays = False
    Coordinator(site.state, site.catalog, snapshotter=taken).close()
    assert taken.there == []
    site.coordinator = Coordinator(site.state, site.catalog)
