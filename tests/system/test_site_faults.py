"""Faults in the middle of a service's run: what docs/operate/faults.md says is what happens.

Covers: the GCS restarted (with its storage), a bridge, a walker, `forebay serve` and the Director
killed, the coordinator's node lost, a catalog that cannot be read for a while, a state directory
and a ledger's disk that are full.
Does not cover: the coordinator killed, a mover lost (test_site), a GCS without storage and
mistakes at the start (test_site_start), the link of a mover down.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
from contextlib import closing

import psutil
import pytest

from tests.support.compare import compare_trees
from tests.system.site_service import FOREBAY, MOVERS, SHARDS, SiteService, await_true

pytestmark = [pytest.mark.ray, pytest.mark.bacula, pytest.mark.timeout(600)]

STATE_BYTES, LEDGER_BYTES = 48 << 20, 16 << 20
LOOKS = 2  # each of them takes longer than a look of the coordinator at the catalog


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    storage = tmp_path_factory.mktemp("gcs")
    one = SiteService(RAY_gcs_storage="rocksdb", RAY_gcs_storage_path=str(storage))
    with contextlib.ExitStack() as stack:
        stack.callback(one.close)
        if os.geteuid() == 0:
            stack.enter_context(small_filesystem(one.base / "state", STATE_BYTES))
            stack.enter_context(small_filesystem(one.settings.state.ledger.parent, LEDGER_BYTES))
        one.catalog_link = one.base / "catalog.db"
        one.catalog_link.symlink_to(one.lab.lab.catalog)
        text = one.config.read_text()
        one.config.write_text(text.replace(str(one.lab.lab.catalog), str(one.catalog_link)))
        one.fill()
        yield one


@contextlib.contextmanager
def small_filesystem(folder, size):
    folder.mkdir(mode=0o700)
    options = f"size={size},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def filled(folder):
    """Leave no room in a filesystem while the block runs."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass
    try:
        yield
    finally:
        filler.unlink()


def bridge_pid(site, mover):
    """The process that listens on a mover's socket."""
    path = str(site.lab.socket(mover))
    for pid in site.actor_pids("BridgeActor"):
        with contextlib.suppress(psutil.Error):
            if any(each.laddr == path for each in psutil.Process(pid).net_connections("unix")):
                return pid
    return None


def leases_taken(site):
    ledger = site.settings.state.ledger.as_uri() + "?mode=ro"
    with closing(sqlite3.connect(ledger, uri=True)) as database:
        return database.execute(
            "SELECT count(*) FROM leases JOIN runs ON runs.number = run"
            " WHERE leases.state = 'open' AND runs.state = 'open'"
        ).fetchone()[0]


def check_complete(site, jobids, tmp_path):
    """All jobs end well, the run is complete, and gives the tree."""
    rows = site.ended(jobids)
    assert {row.outcome for row in rows} == {"T"}, "\n".join(map(site.log, jobids))
    record = site.closed()
    assert record.run.state.value == "complete", record.run.reason
    assert record.run.number == len(site.runs()), "a run was opened twice"
    site.forebay("restore", record.run.number, "--to", tmp_path / "back")
    assert not compare_trees(site.root, f"{tmp_path}/back{site.root}")
    return record


def test_a_run_outlives_the_gcs_if_that_has_a_storage(site, tmp_path):
    with site.serving() as serve:
        before = site.actor_pid("CoordinatorActor")
        with site.held() as jobids:
            site.nodes.ask("kill-gcs")
            site.nodes.ask("start-gcs")
            (run,) = site.status()["runs"]
        assert run["shards"] == SHARDS
        check_complete(site, jobids, tmp_path)
        assert site.actor_pid("CoordinatorActor") == before
        assert serve.poll() is None


def test_serve_that_is_killed_takes_nothing_with_it(site, tmp_path):
    before = site.actor_pid("CoordinatorActor")
    serve = subprocess.Popen([FOREBAY, "serve"], env=site.environment, stderr=subprocess.PIPE)
    try:
        await_true(lambda: b"serving" in serve.stderr.readline())
        with site.held() as jobids:
            serve.kill()
            serve.wait()
            with site.serving():
                assert site.actor_pid("CoordinatorActor") == before
    finally:
        serve.kill()
        serve.communicate()
    check_complete(site, jobids, tmp_path)


def test_the_jobs_of_a_bridge_that_is_killed_fail_and_their_shards_are_saved_by_others(
    site, tmp_path
):
    with site.serving():
        with site.held() as jobids:
            before = bridge_pid(site, "m3")
            os.kill(before, signal.SIGKILL)
        rows = site.ended(jobids)
        assert [row.good for row in rows] == [k % len(MOVERS) != 2 for k in range(SHARDS)]
        assert "the bridge" in site.log(jobids[2])
        await_true(lambda: bridge_pid(site, "m3") not in (None, before))
        again = site.run_jobs("Full", [2, 5])
        record = check_complete(site, again, tmp_path)
    assert {job.jobid for job in record.saved_jobs} >= set(again)


def test_the_lease_of_a_walker_that_is_killed_is_walked_again(site, tmp_path):
    with site.serving():
        before = site.actor_pid("WalkerActor")  # of the run before; it waits for work
        os.kill(before, signal.SIGSTOP)
        try:
            jobids = site.run_jobs("Full")
            await_true(lambda: leases_taken(site) > 0)
        finally:
            os.kill(before, signal.SIGKILL)
        check_complete(site, jobids, tmp_path)
        assert site.actor_pid("WalkerActor") != before


def test_a_catalog_that_cannot_be_read_keeps_a_run_open(site, tmp_path):
    with site.serving():
        with site.held() as jobids:
            site.catalog_link.unlink()
        await_true(lambda: not site.streaming())
        for _ in range(LOOKS):
            assert [run["shards"] for run in site.status()["runs"]] == [SHARDS]
        site.catalog_link.symlink_to(site.lab.lab.catalog)
        check_complete(site, jobids, tmp_path)


def test_jobs_of_a_director_that_is_killed_fail_and_the_next_run_is_right(site, tmp_path):
    with site.serving():
        with site.held() as jobids:
            daemons = {daemon.name: daemon.pid for daemon in site.lab.lab.status().daemons}
            os.kill(daemons["director"], signal.SIGKILL)
        await_true(lambda: not site.streaming())
        assert [run["shards"] for run in site.status()["runs"]] == [SHARDS]
        site.lab.up()
        assert not any(row.good for row in site.ended(jobids))
        again = site.run_jobs("Full")
        record = check_complete(site, again, tmp_path)
        assert {job.jobid for job in record.saved_jobs} == set(again)


def test_runs_go_on_when_the_coordinators_node_is_back(site, tmp_path):
    with site.serving():
        with site.held() as jobids:
            site.nodes.ask("kill", "m1")
            await_true(lambda: not site.actor_pids("CoordinatorActor"))
        assert not any(row.good for row in site.ended(jobids))
        site.nodes.ask("add", "m1")
        await_true(lambda: site.run("status").returncode == 0)
        await_true(lambda: all(not mover["trouble"] for mover in site.status()["movers"]))
        check_complete(site, site.run_jobs("Full"), tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small filesystem")
def test_a_full_state_directory_fails_jobs_with_its_name_and_the_next_run_is_right(site, tmp_path):
    with site.serving():
        with filled(site.base / "state"):
            jobids = site.run_jobs("Full")
            assert all(not row.good for row in site.ended(jobids))
        assert any("No space left" in site.log(j) or "full" in site.log(j) for j in jobids)
        site.closed()
        check_complete(site, site.run_jobs("Full"), tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small filesystem")
def test_a_coordinator_comes_back_when_the_ledgers_disk_has_room_again(site, tmp_path):
    with site.serving():
        before = site.actor_pid("CoordinatorActor")
        with contextlib.ExitStack() as full:
            with site.held() as jobids:
                full.enter_context(filled(site.settings.state.ledger.parent))
            assert not any(row.good for row in site.ended(jobids))
            await_true(lambda: before not in site.actor_pids("CoordinatorActor"))
            await_true(lambda: b"is full" in (site.base / "serve.log").read_bytes())
        await_true(lambda: site.run("status").returncode == 0)
        check_complete(site, site.run_jobs("Full"), tmp_path)
