"""The ledger: leases are exact, old epochs are fenced, one run is open at a time."""

import sqlite3
from contextlib import closing

import pytest

from shards.changes import Position
from shards.lease import Pacing, PendingDirectory
from shards.ledger import (
    LEASE_DIRECTORIES_MAX,
    Beginning,
    Dataset,
    LeaseLost,
    LeaseResult,
    Ledger,
    LedgerBusy,
    LedgerDamaged,
    RunOpen,
    StaleEpoch,
)
from shards.ledger_schema import HsmPolicy, RunState
from shards.segment import SegmentInfo

ROLE = "walker:0"
BIG = (1 << 64) - 3


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put_dataset(Dataset("d", "posix", b"/data/\xff", 4, BIG))
    yield ledger
    ledger.close()


def result(segments=(), frontier=()):
    return LeaseResult(tuple(segments), tuple(frontier), 10, 2, 1000, 0)


def segment(name):
    return SegmentInfo(name, 1, 100, 7, 10, ((3, 2, 1), (2, 1, 1), (0, 0, 0), (0, 0, 0)))


def test_a_dataset_comes_back_as_it_was(ledger):
    dataset = ledger.dataset("d")
    assert (dataset.root, dataset.seed, dataset.shards) == (b"/data/\xff", BIG, 4)
    assert ledger.dataset("e") is None


def test_a_pacing_is_kept_with_its_dataset_and_goes_out_with_each_lease(ledger):
    epoch = ledger.take_epoch(ROLE)
    ledger.begin_run("d", "full")
    lease = ledger.take_lease(0, ROLE, epoch)
    assert lease.pacing == ledger.pacing("d") == Pacing()
    ledger.commit_lease(lease.number, ROLE, epoch, result(frontier=[PendingDirectory(b"a")]))
    ledger.set_pacing("d", Pacing(7))
    ledger.set_pacing("d", Pacing(0, 5_000))
    assert ledger.take_lease(0, ROLE, epoch).pacing == ledger.pacing("d") == Pacing(0, 5_000)


def test_names_are_looked_at_with_the_same_pacing(ledger):
    epoch = ledger.take_epoch(ROLE)
    ledger.set_pacing("d", Pacing(3))
    ledger.begin_run(
        "d", "incremental", Beginning(since=Position("fanotify", "s", 1), names=(b"a",))
    )
    lease = ledger.take_lease(0, ROLE, epoch)
    assert (lease.names, lease.pacing) == ((b"a",), Pacing(3))


def test_a_ledger_from_before_there_were_pacings_is_as_good(tmp_path):
    path = tmp_path / "ledger.sqlite"
    before = Ledger(path)
    before.put_dataset(Dataset("d", "posix", b"/data", 4, BIG))
    with before.transaction() as db:
        db.execute("DROP TABLE pacing")
    before.close()
    ledger = Ledger(path)
    assert ledger.pacing("d") == Pacing()
    ledger.set_pacing("d", Pacing(2))
    assert ledger.pacing("d") == Pacing(2)
    ledger.close()


def test_what_becomes_of_released_files_is_kept_with_the_dataset(ledger):
    assert ledger.hsm("d") is HsmPolicy.SKIP
    ledger.set_hsm("d", HsmPolicy.RECALL)
    ledger.set_hsm("d", HsmPolicy.STUB)
    assert ledger.hsm("d") is HsmPolicy.STUB
    assert ledger.hsm("e") is HsmPolicy.SKIP


def test_a_ledger_from_before_hsm_may_be_read_as_it_is(tmp_path):
    path = tmp_path / "ledger.sqlite"
    before = Ledger(path)
    with before.transaction() as db:
        db.execute("DROP TABLE hsm")
    before.close()
    reader = Ledger(path, read_only=True)
    assert reader.hsm("d") is HsmPolicy.SKIP
    reader.close()


def test_a_run_begins_with_its_root_pending(ledger):
    run = ledger.begin_run("d", "full")
    epoch = ledger.take_epoch(ROLE)
    lease = ledger.take_lease(0, ROLE, epoch)
    assert lease.directories == (PendingDirectory(b""),)
    assert (lease.run, lease.root, lease.seed, lease.include_root) == (
        run.number,
        b"/data/\xff",
        BIG,
        True,
    )
    assert ledger.take_lease(0, ROLE, epoch) is None


def test_a_dataset_has_one_open_run(ledger):
    run = ledger.begin_run("d", "full")
    with pytest.raises(RunOpen, match=str(run.number)):
        ledger.begin_run("d", "full")
    ledger.end_run(run.number, RunState.COMPLETE)
    assert ledger.begin_run("d", "full").number == run.number + 1


def test_segments_exist_once_their_lease_is_committed(ledger):
    run = ledger.begin_run("d", "full")
    epoch = ledger.take_epoch(ROLE)
    lease = ledger.take_lease(0, ROLE, epoch)
    assert ledger.segments(run.number) == []
    frontier = [PendingDirectory(b"a", BIG, 0, BIG - 1, BIG - 2), PendingDirectory(b"b\n")]
    ended = ledger.commit_lease(
        lease.number, ROLE, epoch, result([segment("x"), segment("y")], frontier)
    )
    assert not ended
    assert ledger.run(run.number).scan_ended is None
    found = ledger.segments(run.number)
    assert [info.name for info in found] == ["x", "y"]
    assert found[0].counts == segment("x").counts
    assert [info.name for info in ledger.segments(run.number, found[0].number)] == ["y"]
    rest = [ledger.take_lease(0, ROLE, epoch) for _ in frontier]
    assert {each.directories[0] for each in rest} == set(frontier)
    assert not any(each.include_root for each in rest)
    assert not ledger.commit_lease(rest[0].number, ROLE, epoch, result())
    assert ledger.commit_lease(rest[1].number, ROLE, epoch, result())
    assert ledger.run(run.number).scan_ended is not None
    assert ledger.scan_totals(run.number).inodes == 30


def test_the_scan_has_not_ended_while_another_lease_is_open(ledger):
    run = ledger.begin_run("d", "full")
    epoch = ledger.take_epoch(ROLE)
    lease = ledger.take_lease(0, ROLE, epoch)
    two = [PendingDirectory(b"a"), PendingDirectory(b"b")]
    ledger.commit_lease(lease.number, ROLE, epoch, result(frontier=two))
    one = ledger.take_lease(0, ROLE, epoch)
    two = ledger.take_lease(0, ROLE, epoch)
    assert not ledger.commit_lease(one.number, ROLE, epoch, result())
    assert ledger.run(run.number).scan_ended is None
    assert ledger.commit_lease(two.number, ROLE, epoch, result())


@pytest.mark.parametrize(
    ("pending", "first", "second"),
    [(1, 1, 0), (2, 1, 1), (3, 2, 1), (8, 6, 1), (100, 75, 18), (4 * 1024, 1024, 1024)],
)
def test_a_lease_leaves_something_for_the_one_that_is_walked_meanwhile(
    ledger, pending, first, second
):
    ledger.begin_run("d", "full")
    epoch = ledger.take_epoch(ROLE)
    root = ledger.take_lease(0, ROLE, epoch)
    frontier = [PendingDirectory(b"%d" % number) for number in range(pending)]
    ledger.commit_lease(root.number, ROLE, epoch, result(frontier=frontier))
    found = [ledger.take_lease(0, ROLE, epoch) for _ in range(2)]
    assert [len(lease.directories) if lease else 0 for lease in found] == [first, second]
    newest = [b"%d" % number for number in range(pending)][::-1]
    assert [d.path for lease in found if lease for d in lease.directories] == newest[
        : first + second
    ]
    assert max(first, second) <= LEASE_DIRECTORIES_MAX == 1024


def test_a_new_epoch_takes_the_leases_back_and_fences_the_old_walker(ledger):
    run = ledger.begin_run("d", "full")
    old = ledger.take_epoch(ROLE)
    lease = ledger.take_lease(0, ROLE, old)
    new = ledger.take_epoch(ROLE)
    assert new == old + 1
    with pytest.raises(StaleEpoch):
        ledger.commit_lease(lease.number, ROLE, old, result([segment("x")]))
    with pytest.raises(StaleEpoch):
        ledger.take_lease(0, ROLE, old)
    with pytest.raises(LeaseLost):
        ledger.commit_lease(lease.number, ROLE, new, result([segment("x")]))
    assert ledger.segments(run.number) == []
    again = ledger.take_lease(0, ROLE, new)
    assert again.directories == lease.directories
    assert again.include_root


def test_a_commit_that_fails_leaves_nothing(ledger):
    run = ledger.begin_run("d", "full")
    epoch = ledger.take_epoch(ROLE)
    lease = ledger.take_lease(0, ROLE, epoch)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.commit_lease(lease.number, ROLE, epoch, result([segment("x"), segment("x")]))
    assert ledger.segments(run.number) == []
    assert not ledger.commit_lease(
        lease.number, ROLE, epoch, result([segment("x")], [PendingDirectory(b"a")])
    )


def test_leases_of_an_ended_run_cannot_be_committed(ledger):
    run = ledger.begin_run("d", "full")
    epoch = ledger.take_epoch(ROLE)
    lease = ledger.take_lease(0, ROLE, epoch)
    ledger.end_run(run.number, RunState.FAILED, "why not")
    with pytest.raises(LeaseLost):
        ledger.commit_lease(lease.number, ROLE, epoch, result())
    assert ledger.take_lease(0, ROLE, epoch) is None


def test_one_process_writes_and_others_read(ledger):
    with pytest.raises(LedgerBusy):
        Ledger(ledger.path)
    run = ledger.begin_run("d", "full")
    reader = Ledger(ledger.path, read_only=True)
    assert [r.number for r in reader.runs()] == [run.number]
    with pytest.raises(LedgerDamaged, match="readonly"):
        reader.put_dataset(Dataset("e", "posix", b"/", 1, 0))
    reader.close()


def test_what_was_committed_is_there_after_reopening(tmp_path):
    first = Ledger(tmp_path / "l")
    first.put_dataset(Dataset("d", "posix", b"/", 1, 0))
    number = first.begin_run("d", "full").number
    first.close()
    second = Ledger(tmp_path / "l")
    assert second.open_run("d").number == number
    second.close()


def test_a_ledger_appears_whole(tmp_path, monkeypatch):
    """Killed while it is made, nothing is there under its name."""
    monkeypatch.setattr("shards.ledger_files.TABLES", "CREATE TABLE meta (x); syntax error;")
    with pytest.raises(LedgerDamaged, match="syntax"):
        Ledger(tmp_path / "l")
    assert not (tmp_path / "l").exists()
    monkeypatch.undo()
    Ledger(tmp_path / "l").close()


def test_a_damaged_ledger_is_named(tmp_path):
    (tmp_path / "l").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(LedgerDamaged, match="not a database"):
        Ledger(tmp_path / "l")


def test_a_ledger_of_another_making_is_named(tmp_path):
    path = tmp_path / "l"
    Ledger(path).close()
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE runs")
    ledger = Ledger(path)
    with pytest.raises(LedgerDamaged, match="no such table"):
        ledger.runs()
    with pytest.raises(LedgerDamaged, match="no such table"):
        ledger.end_run(1, RunState.FAILED)
    ledger.close()


def test_a_damaged_page_is_named(tmp_path):
    path = tmp_path / "l"
    first = Ledger(path)
    first.put_dataset(Dataset("d", "posix", b"/", 1, 0))
    for _ in range(200):
        first.end_run(first.begin_run("d", "full").number, RunState.FAILED, "x" * 500)
    first.close()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2  # of whichever tables those pages are: runs have most of them
    data[middle:] = b"\xff" * (len(data) - middle)
    path.write_bytes(data)
    with pytest.raises(LedgerDamaged, match="malformed"), closing(Ledger(path)) as ledger:
        ledger.runs()


def test_the_ledger_is_for_its_owner_alone(ledger):
    assert ledger.path.stat().st_mode & 0o777 == 0o600
