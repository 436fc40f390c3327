"""What a restore takes from which jobs: chains, incomplete runs, links without a first name."""

import pytest

from cluster import restore_plan
from cluster.chains import VolumesGone, restore_jobids, shard_chains
from cluster.restore_plan import NothingMatches, plan_restore
from shards.errors import UsageError
from shards.ledger_schema import RunState
from shards.schema import ReceiptStatus
from tests.support.receipts import DIRECTORY, receipt
from tests.unit.cluster.chains_world import World

LINK, DELETED = ReceiptStatus.LINK, ReceiptStatus.DELETED


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def saved(*names, start=1):
    return [receipt(name, file_index=index, ino=index) for index, name in enumerate(names, start)]


def directory(name, index):
    return receipt(name, file_index=index, mode=DIRECTORY, ino=900 + index)


@pytest.fixture
def chain(world):
    """A full run of JobIds 1 and 2, an incremental of 3 and 4."""
    full = world.run(
        "full",
        {0: (1, (), [*saved(b"a", b"b"), directory(b"", 3)]), 1: (2, (), saved(b"c", b"e"))},
    )
    changed = [receipt(b"b", DELETED, 1), receipt(b"n", file_index=2, ino=77)]
    incremental = world.run("incremental", {0: (3, (1,), changed), 1: (4, (2,), saved(b"c"))})
    return full, incremental


def plan(world, run, *paths):
    return plan_restore(world.settings, world.catalog, world.record(run), list(paths))


def taken(parts):
    return [
        {jobid: ranges.pairs for jobid, ranges in part.items() if ranges.pairs} for part in parts
    ]


def test_each_shard_s_part_has_what_its_chain_is_the_newest_of(world, chain):
    full, incremental = chain
    assert restore_jobids(world.settings, world.record(incremental)) == [1, 2, 3, 4]
    assert restore_jobids(world.settings, world.record(full)) == [1, 2]
    found = plan(world, incremental)
    assert taken(found.contents) == [{1: ((1, 1),), 3: ((2, 2),)}, {2: ((2, 2),), 4: ((1, 1),)}]
    assert taken([found.directories]) == [{1: ((3, 3),)}]
    assert not found.early
    assert not found.notes
    assert [(each["jobid"], each["names"]) for each in found.sources] == [
        (1, 2),
        (3, 1),
        (2, 1),
        (4, 1),
    ]
    assert taken(plan(world, full).contents) == [{1: ((1, 2),)}, {2: ((1, 2),)}]


def test_a_name_that_the_run_deleted_is_not_there(world, chain):
    full, incremental = chain
    assert plan(world, full, "b").names == 2
    assert plan(world, full, "/data/b").names == 2
    with pytest.raises(NothingMatches, match="nothing at b"):
        plan(world, incremental, "a", "b")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DELETE FROM Job WHERE JobId = 1", "JobId 1.*no longer in the catalog"),
        ("UPDATE Job SET PurgedFiles = 1 WHERE JobId = 1", "JobId 1.*purged"),
        ("UPDATE Job SET JobStatus = 'f' WHERE JobId = 1", "JobId 1.*status f"),
        ("UPDATE Job SET Job = 'forebay-d-0.other' WHERE JobId = 1", "another catalog"),
        ("UPDATE Job SET Job = 'forebay-d-0.other' WHERE JobId = 3", "another catalog"),
        ("UPDATE Job SET Name = 'forebay-e-0' WHERE JobId = 1", "another catalog"),
    ],
)
def test_a_chain_with_a_job_that_is_not_there_is_not_restored(world, chain, change, words):
    world.change_catalog(change)
    with pytest.raises(VolumesGone, match=words):
        plan(world, chain[1])


def test_an_incomplete_run_takes_the_last_good_chain_of_the_other_shard(world, chain):
    _, incremental = chain
    run = world.run(
        "incremental",
        {0: (5, (1, 3), saved(b"new")), 1: (6, (2, 4), None)},
        state=RunState.INCOMPLETE,
    )
    assert world.record(run).how_to_go_on.endswith(f"--resume {run}")
    world.run("full", {0: (7, (), saved(b"new")), 1: (8, (), saved(b"newest"))})
    record = world.record(run)
    assert [each.jobids for each in shard_chains(world.settings, record)] == [(1, 3, 5), (2, 4)]
    assert restore_jobids(world.settings, record) == [1, 2, 3, 4, 5]
    assert any(
        f"shard 1 comes as it was in run {incremental} (JobId 4)" in note
        for note in plan(world, run).notes
    )
    assert "newer run" in record.how_to_go_on
    assert world.record(incremental).how_to_go_on is None


def test_a_shard_that_no_run_ever_saved_is_said_to_be_missing(world):
    run = world.run("full", {0: (1, (), saved(b"a")), 1: (2, (), None)}, state=RunState.INCOMPLETE)
    assert any("shard 1 cannot be restored" in note for note in plan(world, run).notes)
    nothing = world.run("full", {0: (3, (), None)}, state=RunState.FAILED)
    world.change_catalog("DELETE FROM Job WHERE JobId < 3")
    assert restore_jobids(world.settings, world.record(nothing)) == [1]
    with pytest.raises(VolumesGone):
        plan(world, nothing)


def test_a_run_of_another_scheme_lends_nothing(world):
    world.run("full", {0: (1, (), saved(b"a")), 1: (2, (), saved(b"b"))})
    with world.ledger() as ledger:
        ledger.set_shards("d", 3)
    run = world.run("full", {0: (3, (), None)}, state=RunState.FAILED)
    with pytest.raises(UsageError, match="nothing to restore"):
        plan(world, run)


LINKED = [
    receipt(b"first", file_index=1, ino=50, nlink=2),
    receipt(b"sub/second", LINK, 2, ino=50, nlink=2),
    directory(b"sub", 3),
    directory(b"", 4),
]


def test_a_link_brings_its_first_name_along(world):
    run = world.run("full", {0: (1, (), LINKED), 1: (2, (), saved(b"other"))})
    found = plan(world, run, "sub")
    assert taken(found.contents) == [{1: ((1, 2),)}, {}]
    assert found.first_names == [b"first"]
    assert found.names == 4
    assert not found.early
    assert not plan(world, run).first_names


def test_a_first_name_that_another_shard_has_taken_over_comes_before_it(world, monkeypatch):
    """Shard 0 failed after its inode had lost a name to one of shard 1."""
    monkeypatch.setattr(restore_plan, "NAMES_AT_ONCE", 1)
    world.run("full", {0: (1, (), LINKED), 1: (2, (), saved(b"other"))})
    run = world.run(
        "incremental",
        {0: (3, (1,), None), 1: (4, (2,), saved(b"first"))},
        state=RunState.INCOMPLETE,
    )
    found = plan(world, run)
    assert taken(found.early) == [{1: ((1, 2),)}, {}]
    assert taken(found.contents) == [{}, {2: ((1, 1),), 4: ((1, 1),)}]
    assert found.first_names == [b"first"]


def test_a_first_name_that_is_gone_is_told(world):
    """As above, but the name is deleted: it comes back for the sake of the other one."""
    world.run("full", {0: (1, (), LINKED), 1: (2, (), saved(b"other"))})
    run = world.run(
        "incremental",
        {0: (3, (1,), None), 1: (4, (2,), [receipt(b"first", DELETED, 1)])},
        state=RunState.INCOMPLETE,
    )
    found = plan(world, run)
    assert not found.early
    assert taken(found.contents) == [{1: ((1, 2),)}, {2: ((1, 1),)}]
    assert found.first_names == [b"first"]
