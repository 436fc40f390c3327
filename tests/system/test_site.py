"""A site: the service in a Ray cluster of three movers, jobs that Bacula starts by itself.

Covers: full, incremental, restore; the service started twice; what its processes listen on; its
coordinator killed, its command ended, a mover's node or its raylet alone killed, in the middle of a
run; stopping.
Does not cover: Bacula's rendered configuration (test_bacula_config), several machines.
"""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys

import psutil
import pytest

from tests.support.compare import compare_trees
from tests.system.site_service import COMMAND_S, MOVERS, SHARDS, SiteService, await_true

pytestmark = [pytest.mark.ray, pytest.mark.bacula, pytest.mark.timeout(900)]


PLAIN = """\
import os, sys, ray
class Plain:
    def pid(self):
        return os.getpid()
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
actor = ray.remote(num_cpus=0)(Plain).remote()
print("pids", os.getpid(), ray.get(actor.pid.remote()), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def site():
    one = SiteService()
    try:
        one.fill()
        yield one
    finally:
        one.close()


def check_restored(site, record, place):
    done = site.forebay("restore", record.run.number, "--to", place)
    assert "restored" in done.stdout
    assert not compare_trees(site.root, f"{place}{site.root}")


@contextlib.contextmanager
def plain_actor(site):
    """Yield the processes of a driver and of an actor that have only what Ray gives all."""
    process = subprocess.Popen(
        [sys.executable, "-c", PLAIN, site.nodes.address],
        env={**site.environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": site.token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        line = next(line for line in process.stdout if line.startswith(b"pids "))
        yield tuple(map(int, line.split()[1:]))
    finally:
        process.communicate(timeout=COMMAND_S)


def listeners(pid):
    """The addresses that a process listens on, or gets datagrams at; ports are by chance."""
    return sorted(
        each.laddr.ip
        for each in psutil.Process(pid).net_connections("inet")
        if each.status == psutil.CONN_LISTEN or (each.type == socket.SOCK_DGRAM and not each.raddr)
    )


def unix_sockets(pid):
    """The names of a process's Unix sockets: those that it listens on have one."""
    return {each.laddr for each in psutil.Process(pid).net_connections("unix") if each.laddr}


def archived(site):
    listed = json.loads(site.forebay("state", "list", "--json").stdout)
    return {run["run"] for run in listed["runs"] if run["archived_bytes"]}


def test_jobs_that_nobody_announced_make_runs_and_restore(site, tmp_path):
    with site.serving():
        full = site.backup("Full")
        (site.root / "d0" / "f0").unlink()
        (site.root / "new").write_text("new")
        incremental = site.backup("Incremental")
        await_true(lambda: archived(site) == {1, 2})
    for record, level in ((full, "full"), (incremental, "incremental")):
        assert (record.run.level, record.run.state.value) == (level, "complete")
    assert sum(job.summary.files for job in incremental.jobs) == 1
    assert {row.client_id for row in site.catalog.jobs([j.jobid for j in full.jobs]).values()} == {
        row.client_id for row in site.catalog.jobs([j.jobid for j in incremental.jobs]).values()
    }
    check_restored(site, incremental, tmp_path / "back")


def test_a_second_service_is_the_first_one(site):
    before = site.actor_pid("CoordinatorActor")
    site.forebay("serve", "--detach")
    assert site.actor_pid("CoordinatorActor") == before


def test_nothing_of_ours_listens_but_the_bridges_on_unix_sockets(site):
    with site.serving() as serve, plain_actor(site) as (driver, plain), site.held() as jobids:
        bridges = site.actor_pids("BridgeActor")
        others = [*site.actor_pids("CoordinatorActor"), *site.actor_pids("WalkerActor")]
        assert len(bridges) == len(MOVERS)
        assert len(others) >= 2
        of_ray = listeners(plain)
        assert {pid: listeners(pid) for pid in bridges + others} == dict.fromkeys(
            bridges + others, of_ray
        )
        assert listeners(serve.pid) == listeners(driver)
        sockets = [unix_sockets(pid) - unix_sockets(plain) for pid in bridges]
        assert sorted(sockets, key=str) == [{str(site.lab.socket(mover))} for mover in MOVERS]
        assert all(unix_sockets(pid) == unix_sockets(plain) for pid in others)
        for mover in MOVERS:
            path = site.lab.socket(mover)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    site.ended(jobids)
    site.closed()


def test_a_run_outlives_its_coordinator(site, tmp_path):
    with site.serving():
        with site.held() as jobids:
            os.kill(site.actor_pid("CoordinatorActor"), signal.SIGKILL)
        rows = site.ended(jobids)
        assert {row.outcome for row in rows} == {"T"}, "\n".join(map(site.log, jobids))
        record = site.closed()
    assert record.run.state.value == "complete"
    assert record.run.number == len(site.runs())
    check_restored(site, record, tmp_path / "back")


@pytest.mark.parametrize(
    ("killed", "lost", "other"), [("kill", "m3", "m1"), ("kill-raylet", "m2", "m3")]
)
def test_a_mover_that_is_lost_fails_its_shards_and_another_one_saves_them(
    site, tmp_path, killed, lost, other
):
    shards = list(range(MOVERS.index(lost), SHARDS, len(MOVERS)))
    with site.serving():
        with site.held() as jobids:
            site.nodes.ask(killed, lost)
            await_true(lambda: len(site.actor_pids("BridgeActor")) == 2)
        rows = site.ended(jobids)
        assert [k for k in range(SHARDS) if not rows[k].good] == shards
        assert all("the bridge" in site.log(jobids[k]) for k in shards)
        again = site.run_jobs("Full", shards, client=f"{other}-fd")
        assert {row.outcome for row in site.ended(again)} == {"T"}
        record = site.closed()
        site.nodes.ask("add", lost)
        await_true(lambda: all(not mover["trouble"] for mover in site.status()["movers"]))
    assert record.run.state.value == "complete"
    assert {job.jobid for job in record.saved_jobs} >= set(again)
    check_restored(site, record, tmp_path / "back")


def test_forebay_backup_runs_the_same_jobs(site):
    with site.serving():
        done = json.loads(site.forebay("backup", "data", "--level", "full", "--json").stdout)
        assert (done["state"], len(done["jobs"])) == ("complete", SHARDS)
        assert site.runs()[0].run.number == done["run"]
        assert "there are: data" in site.forebay("backup", "other", code=2).stderr
        refused = site.forebay("backup", site.root, "--shards", "2", code=2)
        assert "change them there" in refused.stderr
        screen = json.loads(site.forebay("top", "--json").stdout)
    assert {row["dataset"] for row in screen["datasets"]} == {"data"}


def test_a_shard_that_nobody_saves_leaves_a_run_that_another_mover_can_end(site):
    with site.serving():
        site.ended(site.run_jobs("Full", [0, 1]))
        record = site.closed()
        assert record.run.state.value == "incomplete"
        assert "shard 2: no job saved it" in record.run.reason
        resumed = ["backup", "--resume", record.run.number, "--mover", "m2", "--json"]
        done = json.loads(site.forebay(*resumed).stdout)
    assert (done["run"], done["state"]) == (record.run.number, "complete")
    jobs = {job["shard"]: job["jobid"] for job in done["jobs"]}
    rows = site.catalog.jobs(jobs.values())
    clients = [rows[jobs[shard]].client_id for shard in range(SHARDS)]
    assert set(clients[1:]) == {clients[1]} != {clients[0]}


def test_stop_waits_for_open_runs(site):
    with site.serving():
        with site.held() as jobids:
            done = site.forebay("stop", "--wait", "1", code=1)
            assert "is still open after 1 s" in done.stderr
        assert {row.outcome for row in site.ended(jobids)} == {"T"}
    assert "stopped" in site.forebay("stop").stderr
    assert "no Forebay service runs" in site.forebay("status", code=1).stderr
    (jobid,) = site.run_jobs("Full", [0])
    (row,) = site.ended([jobid])
    assert row.outcome == "f"
    assert "cannot connect to the bridge" in site.log(jobid)
