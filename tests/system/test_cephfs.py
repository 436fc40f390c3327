"""A real CephFS, two active metadata servers, two clients: walks, change times as a source.

Each test is a process in the mount namespace of the cluster (cephfs_inside.py, cephfs_walks.py,
histories); what is a client itself, by libcephfs, is in its network namespace, too.
"""

import os
import subprocess
import sys

import pytest

from tests.support.ceph.cluster import Unavailable, ceph_cluster

pytestmark = pytest.mark.bacula

HISTORIES = int(os.environ.get("FOREBAY_CEPH_HISTORIES", "4"))
TIMEOUT_S = 900.0
# One of the six walks in steps is enough: to make their tree takes half a minute.
WALKS = "(TestCephfsWalk or TestCephfsRanks) and not (frontiers and not 4-300)"
BACKUPS = "not (TestCephfs or TestLibcephfs)"
# Of the walks by libcephfs those of large trees are left out (FOREBAY_CEPH_WALKS=all: none is):
# cephfs_walks.py has one.
LIBRARY_WALKS = "TestLibcephfsWalk"
if os.environ.get("FOREBAY_CEPH_WALKS") != "all":
    LIBRARY_WALKS += " and not (frontiers or huge or another_directory or too_long)"


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


def start_inside(prefix, *command, **environment):
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", *map(str, command)],
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


def start_tests(prefix, mounts, module, which, folder, **environment):
    return start_inside(
        prefix,
        *("pytest", "-q", "-p", "no:cacheprovider", "--basetemp", folder, "-k", which),
        f"tests/system/{module}",
        FOREBAY_CEPH_MOUNTS=":".join(map(str, mounts)),
        FOREBAY_CEPHFS_MARGIN_S="60",  # less than usual: the tests wait until it has passed
        **environment,
    )


@pytest.fixture(scope="module")
def library(cluster):
    """What a client by libcephfs needs in its environment, or why it cannot be had."""
    try:
        return cluster.library_environment()
    except Unavailable as error:
        return str(error)


@pytest.fixture(scope="module")
def processes(cluster, mounts, library, tmp_path_factory):
    """What runs at the same time, because all of it waits: for change times, for metadata."""
    seeds = ("--first", 100, "--seeds", HISTORIES)
    inside = (mounts, "cephfs_inside.py")
    folder = tmp_path_factory.mktemp
    # Backups are made by libcephfs where it is to be had.
    prefix, variables = cluster.prefix, {}
    if not isinstance(library, str):
        prefix, variables = cluster.library_prefix, library
    found = {
        "histories": start_inside(cluster.prefix, "tests.support.ceph.histories", *mounts, *seeds),
        "walks": start_tests(cluster.prefix, *inside, WALKS, folder("walks")),
        "changes": start_tests(cluster.prefix, *inside, "TestCephfsChanges", folder("changes")),
        "backups": start_tests(prefix, *inside, BACKUPS, folder("backups"), **variables),
    }
    if not isinstance(library, str):
        for which, module, chosen in (
            ("rows", "cephfs_walks.py", ""),
            ("library walks", "cephfs_inside.py", LIBRARY_WALKS),
        ):
            where = (prefix, mounts, module, chosen, folder(which.replace(" ", "-")))
            found[which] = start_tests(*where, **library)
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


@pytest.mark.parametrize("which", ["rows", "library walks"])
def test_libcephfs_gives_the_rows_of_the_mount(processes, library, which):
    if isinstance(library, str):
        pytest.skip(library)
    finish(processes[which])
