"""Walkers in a real Ray: the scan is exact, also when a walker is killed on the way."""

import os
import signal
import time

import pytest
import ray

from actors.calls import ActorGone, answer
from benchmarks.latency_mount import LatencyMount, Shape, why_not
from cluster.embedded import EmbeddedCluster, RayNotStarted
from cluster.settings import Settings
from shards.lease import Pacing
from shards.ledger import Ledger, RunOpen
from shards.order import stream_rows
from shards.segment import SegmentStore
from tests.support.targets import top_level

pytestmark = pytest.mark.ray

SHARDS = 3
TARGETS = 2
FILES = 40_000
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def cluster(settings):
    with EmbeddedCluster(settings, TARGETS, top_level) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for number in range(FILES // 100):
        folder = root / f"d{number % 20}" / f"e{number}"
        folder.mkdir(parents=True)
        for name in range(100):
            (folder / f"f{name}").touch()
    return root


def names_of(tree):
    found = [b""]
    for folder, folders, files in os.walk(os.fsencode(tree)):
        found += [os.path.relpath(os.path.join(folder, n), os.fsencode(tree)) for n in folders]
        found += [os.path.relpath(os.path.join(folder, n), os.fsencode(tree)) for n in files]
    return sorted(found)


def wait_scanned(cluster, run):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        cluster.check_walkers()
        page = answer(cluster.coordinator.segments.remote(run, 1 << 40, 0.5), "it", 1)
        if page.scan_ended:
            return
    raise AssertionError("the scan did not end")


def scanned_names(cluster, settings, run, seed):
    store = SegmentStore(settings.state.segments(run))
    infos, after = [], 0
    while page := answer(cluster.coordinator.segments.remote(run, after, 0), "it").infos:
        infos += page
        after = page[-1].number
    names = []
    for shard in range(SHARDS):
        for batch in stream_rows(store, [infos], shard, seed):
            names += batch.column("path").to_pylist()
    return sorted(names)


def open_run(cluster, name, root, pacing=None):
    answer(
        cluster.coordinator.define_dataset.remote(name, "posix", os.fsencode(root), SHARDS, pacing),
        "it",
    )
    return answer(cluster.coordinator.open_run.remote(name, "full"), "it")


def test_a_scan_through_ray_is_exact(cluster, settings, tree):
    run = open_run(cluster, "exact", tree)
    wait_scanned(cluster, run.number)
    assert scanned_names(cluster, settings, run.number, run.seed) == names_of(tree)


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_walker_presses_the_server_as_its_dataset_says(cluster):
    shape = Shape(fanout=10, depth=2, files=50)
    high = {}
    for name, pacing in (("fixed", Pacing(3)), ("automatic", None)):
        with LatencyMount(shape, delay_us=1_000, timeout_s=60.0) as mount:
            run = open_run(cluster, name, mount.path, pacing)
            wait_scanned(cluster, run.number)
            high[name] = mount.operations().in_flight_high
        answer(cluster.coordinator.end_run.remote(run.number), "it")
    assert high["fixed"] <= 3 < 8 < high["automatic"]


def wait_for(condition):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("the condition did not come true")


def leases_by_role(settings, run):
    """Return the states of the leases that each walker had."""
    ledger = Ledger(settings.state.ledger, read_only=True)
    try:
        found = {}
        for row in ledger.query("SELECT role, state FROM leases WHERE run = ?", (run,)):
            found.setdefault(row["role"], set()).add(row["state"])
        return found
    finally:
        ledger.close()


def walker_pid(cluster, target=0):
    try:
        return answer(cluster.walkers[target].pid.remote(), "it")
    except ActorGone:  # it is being started again
        return None


def test_a_killed_walker_costs_nothing_but_its_lease(cluster, settings, tree):
    """It is stopped so that it surely holds a lease when it is killed."""
    pid = walker_pid(cluster)
    os.kill(pid, signal.SIGSTOP)
    run = open_run(cluster, "killed", tree)
    reader = Ledger(settings.state.ledger, read_only=True)
    question = "SELECT number, state FROM leases WHERE run = ?"
    wait_for(lambda: reader.query(question, (run.number,)))
    os.kill(pid, signal.SIGKILL)
    wait_scanned(cluster, run.number)
    assert wait_for(lambda: walker_pid(cluster)) != pid
    states = {row["state"] for row in reader.query(question, (run.number,))}
    assert states == {"lost", "done"}
    reader.close()
    assert scanned_names(cluster, settings, run.number, run.seed) == names_of(tree)


@pytest.fixture(scope="module")
def tree_of_two(tmp_path_factory):
    """t1 is served by the second target, all the rest by the first."""
    root = tmp_path_factory.mktemp("targets")
    for top in range(TARGETS):
        for number in range(FILES // 400):
            folder = root / f"t{top}" / f"d{number}"
            folder.mkdir(parents=True)
            for name in range(100):
                (folder / f"f{name}").touch()
    return root


def test_two_targets_have_a_walker_each(cluster, settings, tree_of_two):
    run = open_run(cluster, "two", tree_of_two)
    wait_scanned(cluster, run.number)
    assert scanned_names(cluster, settings, run.number, run.seed) == names_of(tree_of_two)
    roles = leases_by_role(settings, run.number)
    assert set(roles) == {"walker:0", "walker:1"}
    assert all(states == {"done"} for states in roles.values())


def test_the_walker_of_the_second_target_may_be_killed(cluster, settings, tree_of_two):
    pid = walker_pid(cluster, 1)
    os.kill(pid, signal.SIGSTOP)
    run = open_run(cluster, "two killed", tree_of_two)
    wait_for(lambda: "walker:1" in leases_by_role(settings, run.number))
    os.kill(pid, signal.SIGKILL)
    wait_scanned(cluster, run.number)
    assert scanned_names(cluster, settings, run.number, run.seed) == names_of(tree_of_two)
    assert leases_by_role(settings, run.number) == {
        "walker:0": {"done"},
        "walker:1": {"done", "lost"},
    }


def test_errors_arrive_as_what_they_are(cluster, tree):
    open_run(cluster, "twice", tree)
    with pytest.raises(RunOpen):
        answer(cluster.coordinator.open_run.remote("twice", "full"), "it")


def test_a_root_that_goes_away_fails_its_run(cluster, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    name = "gone"
    answer(cluster.coordinator.define_dataset.remote(name, "posix", os.fsencode(root), 3), "it")
    root.rmdir()
    run = answer(cluster.coordinator.open_run.remote(name, "full"), "it")
    page = answer(cluster.coordinator.segments.remote(run.number, 0, 30.0), "it", 30)
    assert "does not exist" in page.refusal


def test_no_token_no_entry(cluster):
    """Another process without the token cannot join this Ray."""
    address = ray.get_runtime_context().gcs_address
    code = (
        "import ray, sys\n"
        f"ray.init(address={address!r}, namespace='forebay', log_to_driver=False)\n"
    )
    import subprocess
    import sys

    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode != 0
    assert "auth" in done.stderr.lower() or "token" in done.stderr.lower()


def test_a_label_that_no_node_has_is_an_error_not_a_wait(cluster, monkeypatch):
    monkeypatch.setattr("cluster.embedded.target_label", lambda target: "no-such-label")
    with pytest.raises(RayNotStarted, match="no-such-label"):
        cluster._start_walkers()
