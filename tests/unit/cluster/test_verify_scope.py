"""A run that looked at changes only is held to what it looked at."""

import pytest

from cluster.progress import SilentDisplay
from cluster.verify import Findings, NothingToVerify, Verification, _scope
from shards.changes import Position
from shards.keys import name_key
from shards.ledger import Beginning
from shards.ledger_schema import RunState
from tests.unit.cluster.chains_world import World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def begin(world, **beginning):
    with world.ledger() as ledger:
        run = ledger.begin_run("d", "incremental", Beginning(**beginning))
        ledger.end_run(run.number, RunState.COMPLETE, None)
        return run.number


def scope(world, number):
    with world.ledger() as ledger:
        return _scope(ledger, ledger.run(number))


def test_names_are_looked_at_alone_and_subtrees_with_all_below(world):
    position = Position("fanotify", "s", 5)
    run = begin(world, since=position, names=(b"a", b"d/b"), subtrees=(b"e",))
    looked_at = scope(world, run)
    assert looked_at(name_key(b"a", is_directory=False))
    assert looked_at(name_key(b"a", is_directory=True))
    assert looked_at(name_key(b"e/deep/down", is_directory=False))
    assert looked_at(name_key(b"e", is_directory=True))
    assert not looked_at(name_key(b"a/below", is_directory=False))
    assert not looked_at(name_key(b"d", is_directory=True))
    begin(world)
    assert scope(world, run) is None, "a newer run has begun, and the ledger has forgotten"


def test_a_newest_run_that_had_nothing_to_look_at_deleted_nothing(world):
    looked_at = scope(world, begin(world, since=Position("fanotify", "s", 5)))
    assert not looked_at(name_key(b"a", is_directory=False))


def test_a_scan_looks_everywhere(world):
    assert scope(world, begin(world))(name_key(b"a", is_directory=False))


def test_a_run_without_a_good_job_is_not_verified(world):
    findings = Findings(lambda difference: None)
    with pytest.raises(NothingToVerify, match="no good job"):
        Verification(world.settings, world.record(begin(world)), findings, SilentDisplay())
