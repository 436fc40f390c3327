"""A service that is replaced, stopped or started again while runs go on.

Covers: a new configuration under streams and under a scan, `forebay serve` after another one took
over or after `forebay stop`, a stop that was given up, actors that Ray starts again while nobody
looks after them.
Does not cover: what dies otherwise (test_site, test_site_faults).
"""

import contextlib
import os
import signal

import pytest

from tests.support.compare import compare_trees
from tests.system.site_service import MOVERS, SiteService, await_true
from tests.system.test_site_faults import bridge_pid, leases_taken

pytestmark = [pytest.mark.ray, pytest.mark.bacula, pytest.mark.timeout(600)]

KINDS = ("CoordinatorActor", "BridgeActor", "WalkerActor")


@pytest.fixture(scope="module")
def site():
    one = SiteService()
    try:
        one.fill()
        yield one
    finally:
        one.close()


def configure(site, **changes):
    """Change the configuration, and start the service anew; return what serve said."""
    site.write_config(**changes)
    return site.forebay("serve", "--detach").stderr


def check_complete(site, jobids, tmp_path):
    rows = site.ended(jobids)
    assert {row.outcome for row in rows} == {"T"}, "\n".join(map(site.log, jobids))
    record = site.closed()
    assert record.run.state.value == "complete", record.run.reason
    assert {job.jobid for job in record.saved_jobs} == set(jobids)
    site.forebay("restore", record.run.number, "--to", tmp_path / "back")
    assert not compare_trees(site.root, f"{tmp_path}/back{site.root}")


def test_streams_outlive_a_new_configuration(site, tmp_path):
    with site.serving() as old:
        before = site.actor_pid("CoordinatorActor")
        with site.held() as jobids:
            said = configure(site, run_idle_s=11)
            assert "the coordinator is of another program or configuration" in said
            assert said.count("replaces it when they have ended") == len(MOVERS)
            assert site.actor_pids("CoordinatorActor") != [before]
        check_complete(site, jobids, tmp_path)
        await_true(lambda: old.poll() is not None)  # it does not fight the new one
        assert b"has taken over" in (site.base / "serve.log").read_bytes()
    bridges = {bridge_pid(site, mover) for mover in MOVERS}
    with site.serving():
        await_true(lambda: not bridges & {bridge_pid(site, mover) for mover in MOVERS})


def test_a_scan_outlives_a_new_configuration(site, tmp_path):
    configure(site, run_idle_s=12)
    site.backup("Full")  # then there is a walker
    before = site.actor_pid("WalkerActor")
    os.kill(before, signal.SIGSTOP)
    try:
        jobids = site.run_jobs("Full")
        await_true(lambda: leases_taken(site) > 0)
        configure(site, run_idle_s=13)
    finally:
        os.kill(before, signal.SIGCONT)
    check_complete(site, jobids, tmp_path)
    # Ray has forgotten the stopped one: it ends when its question to the coordinator before does.
    with contextlib.suppress(ProcessLookupError):
        os.kill(before, signal.SIGKILL)


def test_actors_that_die_are_there_again_when_nobody_looks(site, tmp_path):
    configure(site)
    coordinator, bridge = site.actor_pid("CoordinatorActor"), bridge_pid(site, "m2")
    os.kill(coordinator, signal.SIGKILL)
    os.kill(bridge, signal.SIGKILL)
    await_true(lambda: bridge_pid(site, "m2") not in (None, bridge))
    await_true(lambda: site.run("status").returncode == 0)
    check_complete(site, site.run_jobs("Full"), tmp_path)


def test_a_stop_that_was_given_up_is_shown_and_taken_back(site, tmp_path):
    with site.serving():
        with site.held() as jobids:
            done = site.forebay("stop", "--wait", 0, code=1)
            assert "still open after 0 s" in done.stderr
            assert site.status()["draining"] is True
            assert "`forebay serve` takes it back" in site.forebay("status").stdout
        check_complete(site, jobids, tmp_path)
        assert site.forebay("serve", "--detach").returncode == 0
        assert site.status()["draining"] is False
        check_complete(site, site.run_jobs("Incremental"), tmp_path / "then")


@pytest.mark.parametrize("how", [[], ["--now"]])
def test_what_is_stopped_stays_so_and_serve_ends(site, how):
    with site.serving() as serve:
        site.ended(site.run_jobs("Incremental"))
        site.closed()
        site.forebay("stop", *how)
        await_true(lambda: serve.poll() is not None)
        assert serve.returncode == 0
        assert b"there is nothing to look after" in (site.base / "serve.log").read_bytes()
    assert "no Forebay service runs" in site.forebay("status", code=1).stderr
    await_true(lambda: not any(site.actor_pids(kind) for kind in KINDS))
