"""What an archive keeps: the young, the newest, and all that these build on."""

from contextlib import closing

import pytest

from cluster.archive.index import (
    JobHead,
    RunHead,
    index_name,
    indexes,
    run_folder,
)
from cluster.archive.retention import DAY_S, kept_runs, prune_archive
from cluster.archive.saving import archive_run, archive_runs, local_heads
from cluster.archive.store import ArchiveStore
from shards.ledger_home import open_ledger
from shards.ledger_schema import RunState
from tests.support.archive_site import RUNS, Killed, aged, archived, die_after, identity


def head(run, ended_days, jobs, state=RunState.COMPLETE, dataset="d", shards=1, scheme="s"):
    made = tuple(
        JobHead(shard, jobid, f"j.{jobid}", good, tuple(chain))
        for shard, jobid, chain, good in jobs
    )
    at_s = ended_days * DAY_S
    return RunHead(run, dataset, scheme, shards, state, "full", at_s, at_s, made)


def kept(*heads, days=10, now=100):
    return sorted(kept_runs(heads, days, now * DAY_S))


def test_a_run_stays_while_a_younger_one_builds_on_it():
    full, first = head(1, 1, [(0, 11, [], True)]), head(2, 2, [(0, 12, [11], True)])
    old, base = head(3, 3, [(0, 13, [], True)]), head(4, 4, [(0, 14, [], True)])
    young = head(5, 95, [(0, 15, [14], True)])
    assert kept(full, first, old, base, young) == [4, 5]
    assert kept(full, first) == [1, 2]  # the newest stays, with its base
    assert kept_runs([full, first], None, 0) == {1, 2}


def test_the_last_whole_run_stays_though_a_newer_one_is_incomplete():
    whole = head(1, 1, [(0, 11, [], True)])
    partial = head(2, 95, [(0, 12, [], False)], RunState.FAILED, scheme="other")
    assert kept(whole, partial) == [1, 2]


def test_a_shard_without_a_good_job_needs_the_last_good_one_before():
    first = head(1, 1, [(0, 11, [], True), (1, 12, [], True)], shards=2)
    second = head(2, 2, [(0, 13, [11], True), (1, 14, [12], True)], shards=2)
    other = head(3, 3, [(1, 15, [], True)], scheme="other", shards=2)
    third = head(4, 95, [(0, 16, [], True), (1, 17, [], False)], RunState.INCOMPLETE, shards=2)
    whole = head(5, 96, [(0, 18, [], True), (1, 19, [], True)], shards=2)
    assert kept(first, second, other, third, whole) == [1, 2, 4, 5]


def test_datasets_do_not_keep_each_other():
    one = head(1, 1, [(0, 11, [], True)])
    two = head(2, 2, [(0, 12, [], True)])
    other = head(3, 95, [(0, 13, [11], True)], dataset="e")
    assert kept(one, two, other) == [2, 3]


def test_prune_keeps_a_chain_and_removes_what_nothing_needs(state, url, tmp_path):
    store = archived(state, url)
    for run in RUNS:
        aged(store, state, run, 50)
    plan = prune_archive(store, identity(state), [], 10, apply=True)
    assert plan.items == []  # the newest builds on the others
    with closing(open_ledger(state)) as ledger, ledger.transaction() as db:
        db.execute("UPDATE jobs SET chain = '[]' WHERE run = 3")
    archive_run(state, store, 3)
    for run in RUNS:
        aged(store, state, run, 50)
    for apply in (False, True):
        plan = prune_archive(store, identity(state), [], 10, apply=apply)
        assert [item.run for item in plan.items] == [1, 2]
        assert plan.size_bytes > 0
        there = [index.head.run for index in indexes(store, identity(state))]
        assert there == ([3] if apply else RUNS)
    assert not store.objects(run_folder(identity(state), 1))
    assert prune_archive(store, identity(state), [], 10, apply=True).items == []


def test_prune_keeps_what_only_the_ledger_builds_on(state, store):
    store.remove(index_name(identity(state), 3))  # as if it were still to be archived
    for run in (1, 2):
        aged(store, state, run, 50)
    assert prune_archive(store, identity(state), local_heads(state), 10, apply=True).items == []


def test_a_removal_that_was_interrupted_is_finished(state, store, monkeypatch):
    with closing(open_ledger(state)) as ledger, ledger.transaction() as db:
        db.execute("UPDATE jobs SET chain = '[]'")
        db.execute("UPDATE runs SET ended = ended - ? WHERE number < 3", (50 * DAY_S,))
    for run in (1, 2):
        archive_run(state, store, run)
    archive_run(state, store, 3)
    with monkeypatch.context() as patch:
        patch.setattr(ArchiveStore, "remove", die_after(1, ArchiveStore.remove))
        with pytest.raises(Killed):
            prune_archive(store, identity(state), local_heads(state), 10, apply=True)
    assert [index.head.run for index in indexes(store, identity(state))] == [1, 3]
    plan = prune_archive(store, identity(state), local_heads(state), 10, apply=True)
    assert sorted(item.run for item in plan.items) == [1, 2]
    assert set(store.folders(identity(state))) == {"0000000003"}
    # What retention removed is not archived again by --all.
    again = archive_runs(state, store, keep_days=10)
    assert [saved.run for saved in again.saved] == [3]


def test_a_folder_that_nobody_knows_is_left_alone(state, store):
    store.write(f"{run_folder(identity(state), 9)}/segments/x", b"x")
    plan = prune_archive(store, identity(state), local_heads(state), 10, apply=True)
    assert plan.unknown == [run_folder(identity(state), 9)]
    assert store.size(f"{run_folder(identity(state), 9)}/segments/x") == 1
