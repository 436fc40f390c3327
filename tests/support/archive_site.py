"""A home with three archived-to-be runs, made by a real coordinator and bridge.

Covers: a Full and two incrementals of one dataset, their files and rows, comparing two homes.
Does not cover: archives (test_archive), S3 (test_archive_s3).
"""

from contextlib import closing
from dataclasses import replace

from cluster.archive.index import encode_index, index_name, read_index
from cluster.archive.retention import DAY_S
from cluster.archive.saving import archive_runs
from cluster.archive.store import ArchiveStore
from shards.ledger import Ledger
from shards.run_rows import read_run_rows
from shards.state import StateDirectory
from tests.support.bridge_site import PAST, Site, first_tree, second_tree

RUNS = [1, 2, 3]


def make_home(home):
    """Back up three times; return the state directory, whose ledger is closed."""
    home.mkdir(parents=True, exist_ok=True)
    site = Site(home)
    try:
        site.backup(first_tree(), 101)
        site.backup(second_tree(), 102, "I", PAST + 100, previous_job="job.101")
        site.backup(second_tree(), 103, "I", PAST + 200, previous_job="job.102")
    finally:
        site.close()
    return site.state


def rows_of(state, run):
    with closing(Ledger(state.readable_ledger, read_only=True)) as ledger:
        return read_run_rows(ledger, run)


def files_of(state, run):
    """Return the files that the ledger names, with what is in them."""
    return {
        (file.folder, file.name): (state.run(run) / file.folder / file.name).read_bytes()
        for file in rows_of(state, run).files()
    }


def check_same(one, other, runs=RUNS):
    """Check that runs are the same in two state directories, to the byte."""
    for run in runs:
        ours, theirs = rows_of(one, run), rows_of(other, run)
        assert ours.says_the_same(theirs)
        assert ours.tables["datasets"] == theirs.tables["datasets"]
        files = files_of(one, run)
        assert files
        assert files == files_of(other, run)


def archived(state, url, options=None):
    """Archive everything; return the store."""
    store = ArchiveStore(url, options)
    report = archive_runs(state, store)
    assert report.failed == []
    assert [saved.run for saved in report.saved] == RUNS
    return store


def empty_state(folder):
    return StateDirectory(folder / "state")


def identity(state):
    with closing(Ledger(state.readable_ledger, read_only=True)) as ledger:
        return ledger.identity


class Killed(BaseException):
    pass


def die_after(count, action):
    """Return an action that is killed at its count-th call."""
    left = [count]

    def counted(*arguments, **more):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return action(*arguments, **more)

    return counted


def aged(store, state, run, days):
    """Let an archived run have ended so many days earlier than it did."""
    index = read_index(store, identity(state), run)
    ended = index.head.ended - days * DAY_S
    older = replace(index, head=replace(index.head, ended=ended))
    store.write(index_name(identity(state), run), encode_index(older))
