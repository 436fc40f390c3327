"""Where a run looks, and every reason to look everywhere after all."""

import pytest

from filesystems.cephfs.rctime import RctimeSource
from shards.changes import ChangedDirectory, ChangeSet, Gap, Position, Subdirectory
from shards.ledger_schema import RunState
from shards.schema import RowFlag
from tests.support.bridge_site import (
    PAST,
    ROLE,
    Pause,
    Site,
    check_answered,
    first_tree,
    old,
    second_tree,
)


class Scripted:
    """A change source that says what its test lets it say."""

    def __init__(self, name="scripted"):
        self.name = name
        self.sequence = 0
        self.said = ChangeSet()
        self.before_it_answers = lambda: None

    def position(self):
        self.sequence += 1
        return Position(self.name, "session", self.sequence)

    def changes(self, since, snapshot=None):
        self.before_it_answers()
        return self.said

    def forget(self, before):
        pass


@pytest.fixture
def source():
    return Scripted()


@pytest.fixture
def site(tmp_path, source):
    site = Site(tmp_path, changes=lambda dataset: source)
    yield site
    site.close()


def names_leased(site):
    return set(site.coordinator.take_lease(0, ROLE, site.epoch, 5).names)


def run_of(site):
    return site.coordinator.status(site.run).run


def is_widened(site, rows):
    """Commit what a run found, and tell whether it looks everywhere from then on."""
    assert run_of(site).since is not None
    site.commit(rows)
    return run_of(site).since is None


@pytest.fixture
def listed(site, source):
    """A run of a source that lists directories; it is to look at the name d alone."""
    source.name = RctimeSource.name
    site.backup(first_tree(), 7)
    source.said = ChangeSet(names=[b"d"])
    site.open_run("incremental")
    return site


def test_a_directory_that_no_job_has_widens_a_run_that_lists(listed):
    """What is below it was looked at by nobody, and would pass for known from then on."""
    assert is_widened(listed, [old(b"d", 99, is_directory=True)])
    assert "a directory was replaced while the run looked at it" in run_of(listed).note


def test_a_directory_that_the_jobs_have_does_not(listed):
    assert not is_widened(listed, [old(b"d", 2, is_directory=True)])


@pytest.mark.parametrize("flag", [RowFlag.MOUNT_POINT, RowFlag.EXCLUDED])
def test_a_directory_that_nobody_would_enter_does_not(listed, flag):
    assert not is_widened(listed, [old(b"d", 99, is_directory=True, flags=int(flag))])


def test_sources_that_see_what_was_done_need_no_such_care(site, source):
    site.backup(first_tree(), 7)
    source.said = ChangeSet(names=[b"d"])
    site.open_run("incremental")
    assert not is_widened(site, [old(b"d", 99, is_directory=True)])


@pytest.mark.parametrize("elsewhere", [True, False])
def test_names_of_files_that_have_others_outside_are_looked_at_where_the_source_says_so(
    site, source, elsewhere
):
    site.backup([*first_tree(), old(b"half", 15, nlink=2)], 7)
    source.said = ChangeSet(names=[b"d/changed"], has_links_elsewhere=elsewhere)
    site.open_run("incremental")
    assert names_leased(site) == {b"d/changed"} | ({b"half"} if elsewhere else set())


LISTED = ChangeSet(
    names=[b"d", b"d/changed"],
    directories=[
        ChangedDirectory(b"", {b"d": Subdirectory(2, True), b"e": Subdirectory(3, False)})
    ],
)


@pytest.mark.parametrize("level", ["incremental", "differential"])
def test_a_differential_looks_below_what_changed_itself(site, source, level):
    """Incrementals before it may have said of a directory that it went; it came again since."""
    site.backup(first_tree(), 7)
    source.said = ChangeSet(names=[b"d/changed"])
    site.backup([old(b"d/changed", 11, size=2)], 8, "I", PAST + 1, previous_job="job.7")
    source.said = LISTED
    site.open_run(level)
    scope = site.coordinator.scope(site.run)
    assert (b"d" in scope.subtrees) == (level == "differential")


def test_others_are_answered_while_a_source_takes_its_time(site, source):
    site.backup(first_tree(), 7)
    pause = Pause()
    source.before_it_answers = pause

    def ask():
        assert site.coordinator.status(site.run).run.state is RunState.COMPLETE

    with pause.during(site.open_run, "incremental"):
        check_answered(ask)
    assert run_of(site).since is not None


def test_damage_that_is_met_when_names_are_completed_widens_the_run(site, source):
    site.backup(first_tree(), 7)
    receipts = site.state.receipts(site.run)
    name = site.job().receipts.name
    source.said = ChangeSet(names=[b"link-a"])
    site.open_run("incremental")
    (receipts / name).write_bytes(b"")
    for layer in receipts.glob("*.layer*"):
        layer.unlink()
    assert is_widened(site, [old(b"link-a", 13, nlink=2)])
    assert name in run_of(site).note


def test_a_gap_is_the_note_of_a_run_that_looks_everywhere(site, source):
    def gap():
        raise Gap("the reader was away")

    site.backup(first_tree(), 7)
    source.before_it_answers = gap
    accept, _ = site.backup(second_tree(), 8, "I", PAST + 1, previous_job="job.7")
    assert accept.note.endswith("the whole tree is looked at: the reader was away")


def test_what_was_planned_for_a_part_is_not_sent_when_the_whole_is_looked_at(site, source):
    """A run is widened by a job that needs more; the plan that was made before lacks the rest."""
    site.backup(first_tree(), 7)
    source.said = ChangeSet(names=[b"d/changed"])
    site.open_run("incremental")
    site.commit([old(b"d/changed", 11, size=2)])
    with site.client() as client:
        client.hello(jobid=8, level="I", previous_job="job.7")
        entries = list(client.entries())
        assert [path for _, path in entries] == [b"d/changed"]
    assert site.wait_broken().jobid == 8
    site.coordinator._ledger.widen(site.run, "the test wants it")
    site.commit(second_tree())
    with site.client() as client:
        client.hello(jobid=9, level="I", previous_job="job.7")
        paths = {path for _, path in client.entries()}
    assert {b"d/new", b"d/gone"} <= paths
