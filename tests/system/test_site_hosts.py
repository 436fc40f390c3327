"""A site of several hosts: each mover has a network, a File Daemon and a Ray node of its own.

Covers: a run over three hosts; a link that is cut in mid-run and mended, with the host's return;
one that stays cut, with jobs that are cancelled and saved by another mover.
Does not cover: a filesystem that goes away with the link, for all hosts see this machine's; when
Bacula gives a silent link up by itself, which takes longer than a test may.
"""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.compare import compare_trees
from tests.support.net_hosts import NetHosts, why_not
from tests.system.site_service import MOVERS, SHARDS, SiteService, await_true

pytestmark = [pytest.mark.ray, pytest.mark.bacula, pytest.mark.timeout(600)]

LOST = "m3"
OF_LOST = [k for k in range(SHARDS) if MOVERS[k % len(MOVERS)] == LOST]
OF_OTHERS = [k for k in range(SHARDS) if k not in OF_LOST]
CANCEL_S = 120.0  # the Director tries to reach the File Daemon first


@pytest.fixture(scope="module")
def site():
    if reason := why_not():
        pytest.skip(f"no hosts with networks of their own: {reason}")
    with contextlib.ExitStack() as stack:
        hosts = NetHosts(MOVERS)
        stack.callback(hosts.close)
        stack.enter_context(hosts.hub.entered())
        one = SiteService(hosts=hosts)
        stack.callback(one.close)
        one.fill()
        yield one


def check_restored(site, number, place):
    site.forebay("restore", number, "--to", place)
    assert not compare_trees(site.root, f"{place}{site.root}")


def clients(site, jobids):
    rows = site.catalog.jobs(jobids)
    return [rows[jobid].client_id for jobid in jobids]


def is_lost(site):
    """Tell whether Ray has declared the node dead."""
    # As JSON: whatever Ray has to say of it, standard output has nothing but that.
    (lost,) = (mover for mover in site.status()["movers"] if mover["mover"] == LOST)
    return f"no living node of the Ray cluster is mover {LOST}" in (lost["trouble"] or "")


def cut(site):
    site.hosts.cut(LOST)
    await_true(lambda: is_lost(site))


def check_incomplete(site):
    """The run is closed, and lacks what the lost mover was to save; return its number."""
    record = site.closed()
    assert record.run.state.value == "incomplete"
    assert sorted(job.shard for job in record.saved_jobs) == OF_OTHERS
    return record.run.number


def resume(site, number, *options):
    """Go on with a run; return the JobIds of the shards that it lacked."""
    done = json.loads(site.forebay("backup", "--resume", number, "--json", *options).stdout)
    assert (done["run"], done["state"]) == (number, "complete")
    jobs = {job["shard"]: job["jobid"] for job in done["jobs"]}
    return [jobs[shard] for shard in OF_LOST]


def test_jobs_on_three_hosts_make_a_run(site, tmp_path):
    with site.serving():
        record = site.backup("Full")
        assert record.run.state.value == "complete", record.run.reason
        assert len(set(clients(site, [job.jobid for job in record.jobs]))) == len(MOVERS)
        check_restored(site, record.run.number, tmp_path / "back")


def test_a_link_that_was_cut_fails_its_movers_jobs_and_the_mover_can_save_them_later(
    site, tmp_path
):
    with site.serving():
        with site.held() as jobids:
            cut(site)
            site.hosts.mend(LOST)
            await_true(lambda: len(site.actor_pids("BridgeActor")) == len(MOVERS) - 1)
        rows = site.ended(jobids)
        assert [k for k in range(SHARDS) if rows[k].good] == OF_OTHERS
        assert all("the bridge" in site.log(jobids[k]) for k in OF_LOST)
        number = check_incomplete(site)
        site.nodes.add(LOST)
        await_true(lambda: all(not mover["trouble"] for mover in site.status()["movers"]))
        again = resume(site, number)
        assert clients(site, again) == clients(site, [jobids[k] for k in OF_LOST])
        check_restored(site, number, tmp_path / "back")


def test_jobs_behind_a_link_that_stays_cut_run_until_cancelled_and_another_mover_saves_their_shards(
    site, tmp_path
):
    with site.serving():
        with site.held() as jobids:
            cut(site)
        assert {row.outcome for row in site.ended([jobids[k] for k in OF_OTHERS])} == {"T"}
        lost = [jobids[k] for k in OF_LOST]
        assert not any(row.ended for row in site.catalog.jobs(lost).values())
        assert [run["shards"] for run in site.status()["runs"]] == [SHARDS]
        with ThreadPoolExecutor() as pool:
            commands = [f"cancel jobid={jobid} yes\n" for jobid in lost]
            said = list(pool.map(lambda line: site.lab.lab.console(line, CANCEL_S), commands))
        assert all("marked to be canceled" in text for text in said), said
        assert {row.outcome for row in site.ended(lost)} == {"A"}
        number = check_incomplete(site)
        again = resume(site, number, "--mover", "m1")
        assert set(clients(site, again)) == {clients(site, jobids)[MOVERS.index("m1")]}
        check_restored(site, number, tmp_path / "back")
