"""What the core measures: the catalogue, durations, the ledger, the state directory, a process."""

import os
import re
import threading
import time
import types

import pytest

from shards import state_measures
from shards.changes import Position
from shards.ledger import Beginning, Dataset, Ledger
from shards.ledger_measures import LedgerMeasures
from shards.ledger_schema import RunState
from shards.measures import DURATIONS_MAX, Durations, Kind, Sample
from shards.metric_catalogue import METRICS
from shards.process_measures import ProcessMeasures
from shards.shard_jobs import CatalogEnd, Claim, ReceiptsInfo, ShardJobs, StreamSummary
from shards.state import StateDirectory
from shards.state_measures import StateMeasures

UNITS = ("seconds", "bytes")
DEADLINE_S = 20.0
BOUNDED = {"dataset", "target", "shard", "state", "part", "source", "role", "actor"}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_metric_is_named_as_prometheus_wants_it(metric):
    assert re.fullmatch(r"forebay_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    if metric.unit in UNITS:
        assert f"_{metric.unit}" in metric.name
    assert set(metric.labels) <= BOUNDED
    assert metric.help


def test_there_are_enough_of_them():
    assert len(METRICS) >= 40


def check_known(samples):
    for sample in samples:
        assert len(sample.labels) == len(METRICS[sample.name].labels), sample


def values(samples):
    check_known(samples)
    found = {(s.name.removeprefix("forebay_"), *s.labels): s.value for s in samples}
    assert len(found) == len(samples), "a sample is there twice"
    return found


def test_durations_are_given_once_and_only_so_many():
    durations = Durations("forebay_join_seconds")
    with pytest.raises(ValueError, match="no"), durations.measure():
        raise ValueError("no")  # what fails takes its time too
    (sample,) = durations.samples()
    assert sample.name == "forebay_join_seconds"
    assert 0 <= sample.value < 60
    assert durations.samples() == []
    for number in range(DURATIONS_MAX + 5):
        durations.add(float(number))
    assert [s.value for s in durations.samples()] == list(range(5, DURATIONS_MAX + 5))


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put_dataset(Dataset("d", "posix", b"/data", 2, 0))
    yield ledger
    ledger.close()


def sample(ledger):
    return values(LedgerMeasures(ledger.path).samples())


def save(ledger, run, shard, jobid, summary):
    jobs = ShardJobs(ledger)
    jobs.claim(run, shard, Claim(jobid, f"job{jobid}", "F"), 1)
    jobs.streamed(run, shard, jobid, 1, ReceiptsInfo(f"{jobid}.arrow", 10, 7, summary))
    jobs.ended(run, shard, jobid, f"job{jobid}", CatalogEnd("T", 10, 1000, 100.0, 200.0))


def test_without_a_ledger_there_is_nothing(tmp_path):
    assert LedgerMeasures(tmp_path / "none").samples() == []
    assert not (tmp_path / "none").exists()


def test_a_dataset_without_a_backup_says_so(ledger):
    found = sample(ledger)
    assert found["last_good_backup_timestamp_seconds", "d"] == 0
    assert found["run_open", "d"] == 0
    assert found["dataset_shards", "d"] == 2
    assert ("last_run_good", "d") not in found


def test_a_dataset_that_is_configured_no_more_is_not_there(ledger):
    ledger.put_dataset(Dataset("gone", "posix", b"/gone", 1, 0))
    assert {key[1] for key in sample(ledger)} == {"d", "gone"}
    found = values(LedgerMeasures(ledger.path, {"d", "new"}).samples())
    assert {key[1] for key in found} == {"d"}


def test_an_open_run_shows_what_is_pending_and_leased(ledger):
    ledger.begin_run("d", "full")
    epoch = ledger.take_epoch("walker:0")
    assert sample(ledger)["pending_directories", "d", "0"] == 1
    lease = ledger.take_lease(0, "walker:0", epoch)
    assert lease.dataset == "d"  # what the walker's metrics say it is of
    found = sample(ledger)
    assert found["pending_directories", "d", "0"] == 1  # until the lease is committed
    assert found["leases", "d", "open"] == 1
    assert found["run_open", "d"] == found["run_scanning", "d"] == 1
    assert found["runs", "d", "open"] == 1
    assert found["actor_starts_total", "walker:0"] == 1
    ledger.take_epoch("walker:0")
    found = sample(ledger)
    assert found["leases", "d", "lost"] == 1
    assert found["leases", "d", "open"] == 0
    assert found["actor_starts_total", "walker:0"] == 2


def test_names_of_a_change_source_are_pending_too(ledger):
    position = Position("fanotify", "s", 7)
    ledger.begin_run("d", "incremental", Beginning(position, position, (b"a", b"b"), (b"c",)))
    found = sample(ledger)
    assert found["pending_names", "d"] == 3  # a subtree's own name is looked at as well
    assert found["change_gaps_total", "d"] == 0
    epoch = ledger.take_epoch("walker:0")
    leases = [ledger.take_lease(0, "walker:0", epoch) for _ in range(2)]
    assert [bool(lease.names) for lease in leases] == [False, True]
    assert {lease.dataset for lease in leases} == {"d"}


def test_an_ended_run_shows_what_it_saved_and_what_is_due(ledger):
    position = Position("rctime", "s", 7)
    run = ledger.begin_run("d", "full", Beginning(position))
    ledger._db.execute("UPDATE runs SET scan_ended = started + 3")
    save(ledger, 1, 0, 5, StreamSummary(files=4, size_bytes=10, warnings=1, stubs=2))
    save(ledger, 1, 1, 6, StreamSummary(files=3, size_bytes=20, deleted=1))
    ledger.end_run(1, RunState.WARNINGS)
    found = sample(ledger)
    assert found["run_jobs", "d", "good"] == 2
    assert found["last_run_files", "d"] == 7
    assert found["last_run_bytes", "d"] == 30
    assert found["last_run_deleted", "d"] == 1
    assert found["last_run_warnings", "d"] == 1
    assert found["last_run_due_entries", "d"] == 3
    assert found["last_run_good", "d"] == 1
    assert found["last_run_scan_seconds", "d"] == pytest.approx(3, abs=0.01)
    assert found["last_good_backup_timestamp_seconds", "d"] == run.started
    assert found["change_position_timestamp_seconds", "d", "rctime"] == run.started
    assert found["run_open", "d"] == 0


def test_the_last_run_is_looked_at_anew_when_another_one_has_ended(ledger):
    measures = LedgerMeasures(ledger.path)
    ledger.begin_run("d", "full")
    save(ledger, 1, 0, 5, StreamSummary(files=4))
    ledger.end_run(1, RunState.INCOMPLETE, "shard 1: no job saved it")
    found = values(measures.samples())
    assert (found["last_run_good", "d"], found["last_run_files", "d"]) == (0, 4)
    ledger.begin_run("d", "incremental", Beginning(note="no reader"))
    found = values(measures.samples())
    assert found["last_run_files", "d"] == 4
    assert found["run_jobs", "d", "good"] == 0  # of the newest run
    save(ledger, 2, 0, 6, StreamSummary(files=9))
    ledger.end_run(2, RunState.COMPLETE)
    found = values(measures.samples())
    assert (found["last_run_good", "d"], found["last_run_files", "d"]) == (1, 9)
    assert found["change_gaps_total", "d"] == 1


def test_the_writer_of_a_ledger_does_not_wait_for_who_samples_it(ledger):
    with ledger.transaction() as db:
        db.execute("UPDATE datasets SET shards = 5")
        assert sample(ledger)["dataset_shards", "d"] == 2
    assert sample(ledger)["dataset_shards", "d"] == 5


def counted(measures):
    """Let it count, if that is due, and return what it found."""
    measures.samples()
    measures._counting.join(DEADLINE_S)
    assert not measures._counting.is_alive()
    return values(measures.samples())


def test_sizes_of_the_state_directory(tmp_path, monkeypatch):
    state = StateDirectory(tmp_path)
    state.make_run(1)
    (state.segments(1) / "a").write_bytes(b"x" * 100)
    (state.receipts(1) / "b").write_bytes(b"x" * 50)
    state.ledger.write_bytes(b"x" * 7)
    measures = StateMeasures(state)
    found = counted(measures)
    assert found["state_bytes", "runs"] == 150
    assert found["state_files", "runs"] == 2
    assert found["state_bytes", "ledger"] == 7
    assert found["state_bytes", "views"] == 0
    assert 0 < found["state_free_bytes",] <= found["state_size_bytes",]
    (state.segments(1) / "c").write_bytes(b"x")
    assert counted(measures)["state_files", "runs"] == 2  # not counted again so soon
    measures._due = 0.0
    assert counted(measures)["state_files", "runs"] == 3
    monkeypatch.setattr(state_measures, "FILES_MAX", 1)
    measures._due = 0.0
    assert counted(measures)["state_files", "runs"] == 1


def test_the_ledgers_own_disk_is_looked_at(tmp_path, monkeypatch):
    disks = {tmp_path / "state": (1000, 10), tmp_path / "own": (500, 3)}

    def statvfs(folder):
        size, free = disks[folder]
        return types.SimpleNamespace(f_blocks=size, f_bavail=free, f_frsize=4096, f_favail=7)

    monkeypatch.setattr(state_measures.os, "statvfs", statvfs)
    found = values(StateMeasures(StateDirectory(tmp_path / "state", tmp_path / "own")).samples())
    assert (found["state_size_bytes",], found["state_free_bytes",]) == (4096_000, 40_960)
    assert (found["ledger_size_bytes",], found["ledger_free_bytes",]) == (2048_000, 12_288)


def test_a_slow_count_holds_up_nothing_and_is_made_seldom(tmp_path, monkeypatch):
    go_on, clock = threading.Event(), [100.0]

    def slow(folder):
        assert go_on.wait(DEADLINE_S)
        if folder.is_relative_to(tmp_path):  # not a thread that another test has left
            clock[0] += 10.0
        return 1, 1

    monkeypatch.setattr(state_measures, "_tree_size", slow)
    monkeypatch.setattr(state_measures.time, "monotonic", lambda: clock[0])
    measures = StateMeasures(StateDirectory(tmp_path))
    for _ in range(2):
        found = values(measures.samples())
        assert found["state_free_bytes",] > 0
        assert ("state_files", "runs") not in found
    go_on.set()
    assert counted(measures)["state_files", "runs"] == 1
    assert clock[0] == 130.0
    assert measures._due == 100.0 + 30.0 * state_measures.COUNT_SHARE


def test_a_count_that_fails_says_so_once(tmp_path, monkeypatch):
    def failing(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(state_measures, "_tree_size", failing)
    measures = StateMeasures(StateDirectory(tmp_path))
    with pytest.raises(PermissionError):
        counted(measures)
    assert values(measures.samples())["state_free_bytes",] > 0


def test_a_process_measures_itself():
    before = values(ProcessMeasures("a").samples())
    descriptors = [os.open("/", os.O_RDONLY) for _ in range(3)]
    try:
        found = values(ProcessMeasures("a").samples())
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert found["process_open_fds", "a"] == before["process_open_fds", "a"] + 3
    assert found["process_resident_bytes", "a"] > 1 << 20
    assert found["process_threads", "a"] >= 1
    assert found["process_start_timestamp_seconds", "a"] == pytest.approx(time.time(), abs=60)


def test_a_sample_has_no_labels_unless_given():
    assert Sample("x", 1.0).labels == ()
