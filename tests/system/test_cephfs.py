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


@pytest.fixture(scope="module")
def histories(cluster, mounts):
    """Histories that are played meanwhile: they mostly wait for change times to settle."""
    process = start_inside(
        cluster, "tests.support.ceph.histories", *mounts, "--first", 100, "--seeds", HISTORIES
    )
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(
    "name",
    [
        "test_a_full_three_incrementals_and_restores",
        "test_another_directory_at_the_root_is_scanned",
    ],
)
def test_backups(cluster, mounts, histories, name, tmp_path):
    finish(
        start_inside(
            cluster,
            *("pytest", "-q", "-x", "-p", "no:cacheprovider", "--basetemp", tmp_path / "inside"),
            f"tests/system/cephfs_inside.py::{name}",
            FOREBAY_CEPH_MOUNTS=":".join(map(str, mounts)),
        )
    )


def test_change_times_cover_random_histories_of_two_clients(histories):
    finish(histories)
