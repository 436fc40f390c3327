"""What nothing can name any more goes, and nothing else."""

import pytest

from bacula_bridge.errors import CatalogUnavailable
from cluster.prune import CatalogForeign, plan_prune
from shards.ledger import Dataset
from shards.ledger_schema import RunState
from shards.shard_jobs import ShardJobs
from shards.view import ChainLink, ViewStore
from tests.support.receipts import receipt
from tests.unit.cluster.chains_world import World

SAVED = [receipt(b"a", file_index=1)]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def planned(world):
    with world.ledger() as ledger:
        return plan_prune(world.state, ledger, world.catalog)


def runs(world):
    return sorted(item.run for item in planned(world).items)


def test_a_run_goes_when_all_its_jobs_are_gone_and_a_newer_one_is_there(world):
    world.run("full", {0: (1, (), SAVED), 1: (2, (), SAVED)})
    world.run("full", {0: (3, (), SAVED), 1: (4, (), SAVED)})
    assert runs(world) == []
    world.forget(1)
    assert runs(world) == []
    world.forget(2)
    assert runs(world) == [1]
    (item,) = planned(world).items
    assert item.path == world.state.run(1)
    assert item.size_bytes == sum(p.stat().st_size for p in item.path.rglob("*") if p.is_file())
    assert "2 jobs gone from the catalog: 1, 2" in item.reason


def test_the_newest_run_of_each_dataset_stays_whatever_became_of_its_jobs(world):
    world.run("full", {0: (1, (), SAVED)})
    world.run("full", {0: (2, (), SAVED)})
    with world.ledger() as ledger:
        ledger.put_dataset(Dataset("other", "posix", b"/other", 1, 7))
        run = ledger.begin_run("other", "full")
        world.state.make_run(run.number)
        ledger.end_run(run.number, RunState.FAILED, "no job")
    world.forget(2)
    assert runs(world) == []


def test_a_run_stays_while_a_job_that_is_there_builds_on_it(world):
    world.run("full", {0: (1, (), SAVED)})
    world.run("incremental", {0: (2, (1,), SAVED)})
    world.run("incremental", {0: (3, (1, 2), SAVED)})
    world.run("full", {0: (4, (), SAVED)})
    world.forget(1, 2)
    assert runs(world) == []
    world.forget(3)
    assert runs(world) == [1, 2, 3]


def test_a_failed_job_in_the_catalog_keeps_its_run(world):
    world.run("full", {0: (1, (), None)}, state=RunState.FAILED)
    world.run("full", {0: (2, (), SAVED)})
    assert runs(world) == []
    world.forget(1)
    assert runs(world) == [1]


def test_purged_and_renamed_jobs_are_gone(world):
    world.run("full", {0: (1, (), SAVED)})
    world.run("full", {0: (2, (), SAVED)})
    world.run("full", {0: (3, (), SAVED)})
    world.change_catalog("UPDATE Job SET PurgedFiles = 1 WHERE JobId = 1")
    world.change_catalog("UPDATE Job SET Job = 'forebay-d-0.new' WHERE JobId = 2")
    assert runs(world) == [1, 2]


def test_a_catalog_that_knows_nothing_or_cannot_be_read_is_not_believed(world):
    world.run("full", {0: (1, (), SAVED)})
    world.run("full", {0: (2, (), SAVED)})
    world.forget(1, 2)
    with pytest.raises(CatalogForeign, match="none of the 2 jobs"):
        planned(world)
    world.path.write_bytes(b"not a database" * 500)
    with pytest.raises(CatalogUnavailable):
        planned(world)
    world.path.unlink()
    with pytest.raises(CatalogUnavailable):
        planned(world)


def test_runs_without_any_job_are_no_sign_of_another_catalog(world):
    world.run("full", {}, state=RunState.FAILED)
    world.run("full", {}, state=RunState.FAILED)
    assert [item.reason for item in planned(world).items] == ["no job of it ever began"]


def test_a_run_folder_that_the_ledger_does_not_know_is_left_alone_and_named(world):
    world.run("full", {0: (1, (), SAVED)})
    world.state.make_run(99)
    plan = planned(world)
    assert not plan.items
    assert plan.unknown == [world.state.run(99)]


def test_folded_views_go_with_any_job_that_they_are_made_of(world):
    world.run("full", {0: (1, (), SAVED)})
    for jobid in range(2, 12):
        world.run("incremental", {0: (jobid, tuple(range(1, jobid)), SAVED)})
    links = []
    with world.ledger() as ledger:
        for number in range(1, 12):
            (job,) = ShardJobs(ledger).jobs(number)
            links.append(ChainLink(number, 0, job.jobid, 1000 + job.jobid, job.receipts, 0))
    ViewStore(world.state).view(links)
    lost = ChainLink(0, 0, 50, 1, None, 0)
    ViewStore(world.state, lambda jobid: iter([(b"a", False, 1)])).view([lost])
    views = sorted(world.state.views.iterdir())
    layers = sorted(world.state.receipts(0).iterdir())
    assert views
    assert layers

    def paths():
        return [item.path for item in planned(world).items if item.run is None]

    assert paths() == layers, "JobId 50 is not in the catalog"
    world.forget(10, 11)
    assert paths() == layers, "the folds are of JobIds 2 to 9"
    world.forget(5)
    assert paths() == [*views, *layers]
    views[0].write_bytes(views[0].read_bytes()[:-1])
    assert {item.reason for item in planned(world).items} >= {"it is damaged"}
