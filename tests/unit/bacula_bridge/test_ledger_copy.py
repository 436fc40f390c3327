"""A coordinator whose ledger lies elsewhere: copied when a run has ended, taken back when lost."""

import logging
import shutil
from contextlib import closing

import pytest

from shards.ledger import Ledger
from shards.ledger_home import StateOwned
from shards.ledger_schema import RunState
from tests.support.bridge_site import PAST, Site, first_tree, second_tree


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path, ledger_folder=tmp_path / "local")
    yield site
    site.close()


def copied_runs(site):
    with closing(Ledger(site.state.ledger_copy, read_only=True)) as ledger:
        return [(run.number, run.state) for run in ledger.runs()]


def test_the_copy_has_a_run_as_soon_as_it_has_ended(site):
    assert copied_runs(site) == []
    site.backup(first_tree(), 7)
    assert copied_runs(site) == [(1, RunState.COMPLETE)]


def test_a_run_is_good_though_the_copy_fails_and_the_next_one_copies_again(site, caplog):
    site.state.ledger_copy.unlink()
    site.state.ledger_copy.mkdir()
    with caplog.at_level(logging.WARNING):
        site.backup(first_tree(), 7)
    assert "could not be copied" in caplog.text
    site.state.ledger_copy.rmdir()
    site.backup(second_tree(), 8, "I", PAST + 1, previous_job="job.7")
    assert copied_runs(site)[0] == (2, RunState.COMPLETE)


def test_a_lost_ledger_goes_on_and_what_runs_after_the_copy_saved_is_sent_again(tmp_path):
    local = tmp_path / "local"
    site = Site(tmp_path, ledger_folder=local)
    site.backup(first_tree(), 7)
    older = site.state.ledger_copy.read_bytes()
    _, sent = site.backup(second_tree(), 8, "I", PAST + 1, previous_job="job.7")
    site.close()
    catalog = site.catalog
    shutil.rmtree(local)
    site.state.ledger_copy.write_bytes(older)
    site = Site(tmp_path, ledger_folder=local)
    try:
        site.catalog.rows = catalog.rows
        there = {row["path"] for row in second_tree()}
        saved = [path for _, path in sent if path in there]
        site.catalog.names = {8: {b"/data/" + path: at for at, path in enumerate(saved, 1)}}
        accept, entries = site.backup(second_tree(), 9, "I", PAST + 2, previous_job="job.8")
        assert site.run == 3
        assert "JobId 8 is not in the run ledger" in accept.note
        assert b"d/changed" in saved
        assert {path for _, path in entries} >= set(saved)
    finally:
        site.close()


def test_a_second_coordinator_elsewhere_is_refused(site, tmp_path):
    with pytest.raises(StateOwned):
        Site(tmp_path, ledger_folder=tmp_path / "other")
