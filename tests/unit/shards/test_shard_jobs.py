"""What the jobs came to decides what the run is."""

import pytest

from shards.errors import ForebayError
from shards.ledger import Dataset, Ledger
from shards.ledger_schema import JobState, RunState
from shards.shard_jobs import (
    CatalogEnd,
    Claim,
    ReceiptsInfo,
    ShardJobs,
    ShardTaken,
    StreamSummary,
    verdict,
)

GOOD = CatalogEnd("T", 10, 1000, 100.0, 200.0)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put_dataset(Dataset("d", "posix", b"/data", 2, 0))
    ledger.begin_run("d", "full")
    yield ledger
    ledger.close()


@pytest.fixture
def jobs(ledger):
    return ShardJobs(ledger)


def receipts(shard, warnings=0):
    return ReceiptsInfo(f"{shard}.arrow", 10, 7, StreamSummary(files=9, warnings=warnings))


def save(jobs, shard, jobid, end=GOOD, warnings=0):
    jobs.claim(1, shard, Claim(jobid, f"job{shard}", "F"), 1)
    jobs.streamed(1, shard, jobid, 1, receipts(shard, warnings))
    return jobs.ended(1, shard, jobid, f"job{shard}", end)


def scanned(ledger):
    ledger._db.execute("UPDATE runs SET scan_ended = 1.0")
    return ledger.run(1)


def test_a_shard_goes_to_one_job(jobs):
    jobs.claim(1, 0, Claim(5, "job0", "F"), 1)
    with pytest.raises(ShardTaken, match="JobId 5"):
        jobs.claim(1, 0, Claim(6, "job0", "F"), 1)


def test_a_shard_whose_job_broke_can_be_claimed_again(jobs):
    jobs.claim(1, 0, Claim(5, "job0", "F"), 1)
    jobs.broken(1, 0, 5, "the bridge went away")
    jobs.claim(1, 0, Claim(6, "job0", "F"), 1)
    assert [job.state for job in jobs.jobs(1)] == [JobState.BAD, JobState.STREAMING]


def test_all_good_is_complete(ledger, jobs):
    save(jobs, 0, 5)
    save(jobs, 1, 6)
    assert verdict(scanned(ledger), jobs.jobs(1)) == (RunState.COMPLETE, None)


def test_a_warning_shows_in_the_run(ledger, jobs):
    save(jobs, 0, 5, warnings=1)
    save(jobs, 1, 6)
    assert verdict(scanned(ledger), jobs.jobs(1))[0] is RunState.WARNINGS


def test_a_job_with_warnings_of_bacula_shows_in_the_run(ledger, jobs):
    save(jobs, 0, 5, CatalogEnd("W", 10, 1000, 100.0, 200.0))
    save(jobs, 1, 6)
    assert verdict(scanned(ledger), jobs.jobs(1))[0] is RunState.WARNINGS


@pytest.mark.parametrize("status", ["f", "E", "A", "e"])
def test_a_bad_status_makes_the_run_incomplete(ledger, jobs, status):
    save(jobs, 0, 5)
    ended = save(jobs, 1, 6, CatalogEnd(status, 10, 1000, 100.0, 200.0))
    assert ended.state is JobState.BAD
    state, reason = verdict(scanned(ledger), jobs.jobs(1))
    assert state is RunState.INCOMPLETE
    assert "shard 1" in reason


def test_a_good_status_without_receipts_is_not_good(ledger, jobs):
    save(jobs, 0, 5)
    jobs.claim(1, 1, Claim(6, "job1", "F"), 1)
    assert jobs.ended(1, 1, 6, "job1", GOOD).state is JobState.BAD
    assert verdict(scanned(ledger), jobs.jobs(1))[0] is RunState.INCOMPLETE


def test_a_job_that_never_asked_is_not_good(ledger, jobs):
    save(jobs, 0, 5)
    assert jobs.ended(1, 1, 6, "job1", GOOD).state is JobState.BAD
    state, reason = verdict(scanned(ledger), jobs.jobs(1))
    assert state is RunState.INCOMPLETE
    assert "before it asked" in reason


def test_nothing_saved_is_failed(ledger, jobs):
    assert verdict(scanned(ledger), jobs.jobs(1))[0] is RunState.FAILED


def test_a_scan_that_did_not_end_is_never_complete(ledger, jobs):
    save(jobs, 0, 5)
    save(jobs, 1, 6)
    assert verdict(ledger.run(1), jobs.jobs(1))[0] is RunState.FAILED


def test_receipts_of_a_job_that_lost_its_shard_do_not_count(jobs):
    jobs.claim(1, 0, Claim(5, "job0", "F"), 1)
    jobs.broken(1, 0, 5, "silent")
    with pytest.raises(ForebayError, match="no longer streams"):
        jobs.streamed(1, 0, 5, 1, receipts(0))


def test_receipts_from_an_older_epoch_do_not_count(jobs):
    jobs.claim(1, 0, Claim(5, "job0", "F"), 2)
    with pytest.raises(ForebayError, match="no longer streams"):
        jobs.streamed(1, 0, 5, 1, receipts(0))
