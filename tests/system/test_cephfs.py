"""A real CephFS, two active metadata servers, two clients: recursive change times as a source.

Each test is a process in the mount namespace of the cluster (cephfs_inside.py, histories).
"""

import os
import subprocess
import sys

import pytest

from tests.support.ceph.cluster import Unavailable, ceph_cluster

pytestmark = pytest.mark.bacula

HISTORIES = int(os.environ.get("FOREBAY_CEPH_HISTORIES", "8"))
TIMEOUT_S = 900.0
# One of the six walks in steps is enough: to make their tree takes half a minute.
WALKS = "(TestCephfsWalk or TestCephfsRanks) and not (frontiers and not 4-300)"


@pytest.fixture(scope="module")
def cluster():
    try:
        with ceph_cluster() as cluster:
            cluster.mount("two")
            yield cluster
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def mounts(cluster):
    return cluster.mnt("one"), cluster.mnt("two")


def start_inside(cluster, *command, **environment):
    return subprocess.Popen(
        [*cluster.prefix, sys.executable, "-m", *map(str, command)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    try:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said


def start_tests(cluster, mounts, which, folder):
    return start_inside(
        cluster,
        *("pytest", "-q", "-p", "no:cacheprovider", "--basetemp", folder, "-k", which),
        "tests/system/cephfs_inside.py",
        FOREBAY_CEPH_MOUNTS=":".join(map(str, mounts)),
        FOREBAY_CEPHFS_MARGIN_S="60",  # less than usual: the tests wait until it has passed
    )


@pytest.fixture(scope="module")
def processes(cluster, mounts, tmp_path_factory):
    """What runs at the same time, because all of it waits: for change times, for metadata."""
    seeds = ("--first", 100, "--seeds", HISTORIES)
    found = {
        "histories": start_inside(cluster, "tests.support.ceph.histories", *mounts, *seeds),
        "walks": start_tests(cluster, mounts, WALKS, tmp_path_factory.mktemp("walks")),
        "changes": start_tests(
            cluster, mounts, "TestCephfsChanges", tmp_path_factory.mktemp("changes")
        ),
        "backups": start_tests(
            cluster,
            mounts,
            "not TestCephfs",
            tmp_path_factory.mktemp("backups"),
        ),
    }
    yield found
    for process in found.values():
        process.kill()
        process.wait()
        process.stdout.close()


def test_change_times_cover_random_histories_of_two_clients(processes):
    finish(processes["histories"])


def test_change_times_keep_the_contract_of_change_sources(processes):
    finish(processes["changes"])


def test_the_walk_keeps_its_contract(processes):
    finish(processes["walks"])


def test_incrementals_and_restores(processes):
    finish(processes["backups"])
