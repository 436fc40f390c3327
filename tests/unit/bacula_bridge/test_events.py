"""Each event that an operator can act on is one line in the log, with its fields."""

import logging
import threading

import pytest

from bacula_bridge.coordinator import KILLED, Coordinator
from bacula_bridge.server import BridgeServer
from filesystems.interface import Filesystem
from filesystems.lease_loop import LeaseLoop
from shards.receipts import ReceiptsWriter
from shards.shard_jobs import CatalogEnd, Claim
from shards.state import StateDirectory
from tests.support.bridge_site import GOOD, PAST, FakeCatalog, Site, first_tree, old
from tests.support.plugin_client import PluginClient


@pytest.fixture(autouse=True)
def _level(caplog):
    caplog.set_level(logging.INFO, logger="forebay")


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.close()


def told(caplog, words):
    """Return level, part and fields of the one line that has these words."""
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    found = [record for record in records if words in record.getMessage()]
    assert len(found) == 1, [record.getMessage() for record in records]
    fields = ("run", "dataset", "shard", "jobid")
    record = found[0]
    part = record.name.removeprefix("forebay.")
    return record.levelname, part, *(getattr(record, name, None) for name in fields)


def test_a_good_run_from_its_opening_to_its_verdict(site, caplog):
    site.backup(first_tree(), 5)
    run = site.run
    job = (run, "d", 0, 5)
    assert told(caplog, "coordinator starts with epoch 1")[:2] == ("INFO", "coordinator")
    assert told(caplog, "walker:0 starts with epoch 1")[:2] == ("INFO", "coordinator")
    assert told(caplog, f"run {run} of d opened: full") == (
        *("INFO", "coordinator", run, "d", None, None),
    )
    assert told(caplog, "JobId 5 (job.5) joined run") == ("INFO", "coordinator", *job)
    assert told(caplog, "JobId 5 has streamed shard 0: 7 files") == ("INFO", "coordinator", *job)
    assert told(caplog, "JobId 5 ended with status T") == ("INFO", "coordinator", *job)
    assert told(caplog, f"run {run} of d closed: complete")[:2] == ("INFO", "coordinator")


def test_why_a_run_looks_everywhere_is_said_as_in_the_job_log(site, caplog):
    site.backup(first_tree(), 5)
    accept, _ = site.backup(first_tree(), 6, level="I", previous_job="job.5", since=PAST)
    note = site.coordinator.status(site.run).run.note
    assert note
    assert note in accept.note
    assert told(caplog, f"run {site.run} of d opened: incremental; {note}")[0] == "INFO"
    assert told(caplog, f"level I; {accept.note}")[0] == "INFO"


def test_a_refused_job_is_logged_with_the_sentence_of_its_job_log(site, caplog):
    with site.client() as client:
        reason = client.hello(jobid=9, dataset="nosuch")
    level, part, *fields = told(caplog, f"refused JobId 9 (job.9): {reason}")
    assert (level, part, fields) == ("ERROR", "bridge", [None, "nosuch", 0, 9])


def test_a_stream_that_breaks_and_a_run_that_is_no_backup_are_errors(site, caplog):
    run = site.open_run()
    site.commit([old(b"", 1, is_directory=True)])
    with site.client() as client:
        client.hello(jobid=6)
    site.wait_broken()
    assert told(caplog, "the stream of JobId 6 broke: ") == (
        *("ERROR", "coordinator", run, "d", 0, 6),
    )
    site.coordinator.job_ended(run, 0, 6, "job.6", CatalogEnd("E", 0, 0, 1.0, 2.0))
    assert told(caplog, "JobId 6 ended with status E and does not count: ")[0] == "ERROR"
    site.coordinator.end_run(run)
    assert told(caplog, f"run {run} of d closed: failed: shard 0: ")[0] == "ERROR"
    site.coordinator.reopen_run(run)
    assert told(caplog, f"run {run} of d opened again")[0] == "INFO"


def test_a_scan_that_cannot_go_on_is_an_error(site, caplog):
    run = site.open_run()
    site.coordinator.fail_run(run, "the disk is gone")
    assert told(caplog, f"run {run} cannot go on: the disk is gone") == (
        *("ERROR", "coordinator", run, "d", None, None),
    )


def test_what_a_killed_forebay_left_open_is_settled_and_said(tmp_path, caplog):
    state, catalog = StateDirectory(tmp_path), FakeCatalog()
    for jobid in (8, 9):
        before = Coordinator(state, catalog)
        before.define_dataset("d", "posix", b"/data", 1)
        run = before.open_run("d", "full").number
        before._jobs.claim(run, 0, Claim(jobid, f"job.{jobid}", "F"), before._epoch)
        if jobid == 9:
            receipts = ReceiptsWriter(state.receipts(run), 0, jobid).commit()
            before.streamed(run, 0, jobid, receipts)
            catalog.add(jobid)
        before.close()
    Coordinator(state, catalog).close()
    assert told(caplog, f"JobId 8 of run 1 was left open: {KILLED}") == (
        *("WARNING", "coordinator", 1, "d", 0, 8),
    )
    assert told(caplog, "JobId 9 of run 2 was left open: the catalog shows status T")[0] == (
        "WARNING"
    )
    assert told(caplog, f"run 1 of d closed: failed: {KILLED}")[0] == "ERROR"


def test_the_bridge_says_where_it_listens_whom_it_refuses_and_that_it_stops(tmp_path, caplog):
    site = Site(tmp_path)
    path = tmp_path / "other.sock"
    nobody = frozenset({4_000_000})
    other = BridgeServer(path, site.coordinator, site.state, site.catalog, nobody)
    assert told(caplog, f"listening on {path}")[:2] == ("INFO", "bridge")
    with PluginClient(path) as client:
        assert client.read()[0] is None
    assert told(caplog, "refused a connection from uid ")[:2] == ("WARNING", "bridge")
    other.stop()
    assert told(caplog, f"stopping on {path}: 0 streams end")[:2] == ("INFO", "bridge")
    site.close()


def test_stopping_under_streams_is_a_warning(site, caplog):
    site.open_run()
    with site.client() as client:
        client.hello(jobid=3)
        site.bridge.stop()
    assert told(caplog, "1 streams end")[0] == "WARNING"


def test_a_walker_that_fails_says_where(site, caplog):
    run = site.open_run()
    stopping = threading.Event()

    class Leases:
        def take(self, wait_s):
            return site.coordinator.take_lease(0, "walker:0", site.epoch, wait_s)

        def fail(self, run, reason):
            site.coordinator.fail_run(run, reason)
            stopping.set()

    def broken(root: bytes) -> Filesystem:
        raise OSError(5, "the disk is gone")

    LeaseLoop(Leases(), site.state, broken).serve(stopping)
    level, part, *fields = told(caplog, "lease 1: the scan of /data failed: ")
    assert (level, part, fields[0]) == ("ERROR", "walker", run)


def test_jobs_of_others_do_not_count(site, caplog):
    run = site.open_run()
    site.coordinator.job_ended(run, 0, 77, "job.77", GOOD)
    assert told(caplog, "JobId 77 ended with status T and does not count: ")[0] == "ERROR"
