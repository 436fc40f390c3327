"""Runs of a service go to the archive as they end: each once, none left behind by another one.

Does not cover: archiving itself (test_archive); the task in a real cluster (tests/system).
"""

import shutil
from contextlib import closing

import pytest
from ray.exceptions import GetTimeoutError, RayError

import cluster.service_archive
from cluster.archive.index import read_index
from cluster.archive.saving import ended_runs
from cluster.archive.store import ArchiveStore
from cluster.service_archive import PERIOD_S, RETRY_MAX_S, Archiver, archive_ended
from cluster.site_config import SiteConfig
from shards.ledger_home import open_ledger
from shards.ledger_schema import RunState
from tests.support.archive_site import RUNS, aged, identity, rows_of


@pytest.fixture
def config(state, tmp_path):
    """A site whose state directory has three runs, and whose archive is empty."""
    return SiteConfig.model_validate(
        {
            "state": state.base,
            "coordinator": {"ledger": state.base},
            "bacula": {"catalog": "/var/lib/bacula/bacula.db"},
            "archive": {"url": f"file://{tmp_path}/archive"},
            "mover": [{"name": "m1", "client": "m1-fd"}],
            "dataset": [{"name": "d", "root": "/data", "shards": 2}],
        }
    )


def archived(state, config):
    store = ArchiveStore(config.archive.url)
    return {run for run in ended_runs(state) if read_index(store, identity(state), run) is not None}


def change_ledger(state, change):
    with closing(open_ledger(state)) as ledger:
        return change(ledger)


def test_runs_are_archived_once_and_later_ones_as_they_end(state, config):
    done, failed = archive_ended(config, {})
    assert (done, failed) == (ended_runs(state), [])
    assert archived(state, config) == set(RUNS)
    assert archive_ended(config, done) == (done, [])


def test_nothing_but_the_ends_is_read_when_nothing_has_changed(state, config, monkeypatch):
    done, _ = archive_ended(config, {})

    def never(*arguments):
        raise AssertionError("all runs are read")

    monkeypatch.setattr(cluster.service_archive, "worth_archiving", never)
    assert archive_ended(config, done) == (done, [])


def test_runs_that_are_not_worth_it_hold_up_no_others(state, config):
    shutil.rmtree(state.segments(1))  # pruned

    def fail_one(ledger):
        run = ledger.begin_run("d", "full").number
        ledger.end_run(run, RunState.FAILED, "no job")
        return run

    failed_run = change_ledger(state, fail_one)
    done, failed = archive_ended(config, {})
    assert failed == []
    assert archived(state, config) == {2, 3}
    assert failed_run in done


def test_a_run_that_ends_after_a_later_one_is_archived(state, config):
    change_ledger(state, lambda ledger: ledger.end_run(2, RunState.INCOMPLETE, "shard 0: killed"))
    later = {run: ended for run, ended in ended_runs(state).items() if run != 2}
    done, failed = archive_ended(config, later)
    assert (done, failed) == (ended_runs(state), [])
    assert archived(state, config) == {2}


def test_a_run_that_went_on_is_archived_again(state, config):
    done, _ = archive_ended(config, {})
    merkle = rows_of(state, 2).run["merkle"]
    change_ledger(state, lambda ledger: ledger.end_run(2, RunState.WARNINGS, None, merkle))
    again, failed = archive_ended(config, done)
    assert (again, failed) == (ended_runs(state), [])
    head = read_index(ArchiveStore(config.archive.url), identity(state), 2).head
    assert (head.state, head.ended) == (RunState.WARNINGS, again[2])


def test_a_run_that_is_pruned_as_it_is_archived_is_done_with(state, config, monkeypatch):
    def pruned_late(state, keep_days):
        shutil.rmtree(state.run(1))
        return RUNS

    monkeypatch.setattr(cluster.service_archive, "worth_archiving", pruned_late)
    done, failed = archive_ended(config, {})
    assert (done, failed) == (ended_runs(state), [])
    assert archived(state, config) == {2, 3}


def test_what_retention_has_removed_does_not_come_back(state, config):
    archive_ended(config, {})
    store = ArchiveStore(config.archive.url)
    aged(store, state, 1, 900)
    old = ended_runs(state)[1] - 900 * 86_400

    def age(ledger):
        with ledger.transaction() as db:
            db.execute("UPDATE jobs SET chain = '[]'")
            db.execute("UPDATE runs SET ended = ? WHERE number = 1", (old,))

    change_ledger(state, age)
    store.remove(f"{identity(state)}/{1:010d}/index.json")
    kept = config.archive.model_copy(update={"keep_days": 30})
    done, _ = archive_ended(config.model_copy(update={"archive": kept}), {})
    assert done[1] == old
    assert archived(state, config) == {2, 3}


def test_a_damaged_run_is_told_and_tried_again_beside_the_others(state, config):
    (segment, *_) = state.segments(2).iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1] + b"?")
    done, (sentence,) = archive_ended(config, {})
    assert segment.name in sentence
    assert sorted(done) == [1, 3]
    assert archived(state, config) == {1, 3}
    segment.write_bytes(whole)
    assert archive_ended(config, done) == (ended_runs(state), [])


def test_an_archive_that_cannot_be_used_is_one_sentence_and_nothing_is_done(state, config):
    url = f"file://{state.base}/ledger.sqlite/below-a-file"
    no_place = config.archive.model_copy(update={"url": url})
    done, failed = archive_ended(config.model_copy(update={"archive": no_place}), {})
    assert done == {}
    assert len(failed) == 1


class Tasks:
    """Stands for Ray: tasks that wait for the answer that a test gives."""

    def __init__(self):
        self.asked = []
        self.answer = None

    def remote(self, **options):
        return lambda function: self

    def options(self, **options):
        task = Tasks()
        task.remote = self._ask
        return task

    def _ask(self, config, done):
        self.asked.append(done)
        self.answer = None
        return self

    def get(self, reference, timeout):
        if self.answer is None:
            raise GetTimeoutError("not yet")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    now = 1_000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def world(config, monkeypatch):
    tasks, clock, said = Tasks(), Clock(), []
    monkeypatch.setattr(cluster.service_archive, "ray", tasks)
    monkeypatch.setattr(cluster.service_archive, "time", clock)
    return Archiver(config, said.append), tasks, clock, said


def answered(archiver, tasks, answer):
    tasks.answer = answer
    archiver.step()


def test_the_archiver_asks_again_with_what_is_done(world):
    archiver, tasks, clock, said = world
    for _ in range(3):
        archiver.step()  # it waits for one answer at a time
    answered(archiver, tasks, ({1: 5.0}, []))
    archiver.step()
    assert tasks.asked == [{}]
    clock.now += PERIOD_S
    archiver.step()
    assert tasks.asked == [{}, {1: 5.0}]
    assert said == []


def test_trouble_is_said_once_and_tried_less_and_less_often(world):
    archiver, tasks, clock, said = world
    waits = []
    for _ in range(10):
        archiver.step()
        asked = clock.now
        answered(archiver, tasks, ({}, ["the archive is away"]))
        count = len(tasks.asked)
        while len(tasks.asked) == count:
            clock.now += PERIOD_S
            archiver.step()
        waits.append(clock.now - asked)
    assert said == ["the archive is away"]
    assert waits[0] == 2 * PERIOD_S
    assert waits[-1] == RETRY_MAX_S
    answered(archiver, tasks, RayError("gone\nthe node died"))
    clock.now += RETRY_MAX_S
    archiver.step()
    answered(archiver, tasks, ({}, []))
    assert said[1:] == ["runs could not be archived: the node died", "runs are archived again"]
    clock.now += PERIOD_S
    archiver.step()
    assert len(tasks.asked) == 13
