"""The state directory full, read-only, or gone in mid-run: loud, and right the next time."""

import contextlib
import os
import shutil
import signal
import subprocess

import pytest

from cluster.settings import Settings
from shards.ledger import Ledger
from tests.support.bulk import make_flat
from tests.support.compare import compare_trees, format_differences
from tests.system.conftest import Installation
from tests.system.test_faults import held_scan, small_tree

pytestmark = pytest.mark.bacula

FILES = 60_000  # a few leases


@pytest.fixture
def site(tmp_path):
    """An installation of its own, whose state is on a small filesystem that can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small filesystem needs root")
    installation = Installation(tmp_path / "home")
    state = Settings(installation.home).state.base
    state.mkdir(parents=True)
    installation.ok("lab", "up", "--drives", "4", "-q")
    yield installation
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["umount", state], check=True, capture_output=True)
    installation.ok("lab", "down")


def mount(installation, options):
    state = Settings(installation.home).state.base
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", state], check=True)


def check_restore(installation, run, tree, to):
    result = installation.ok("restore", run, "--to", to, "--json", "-q").json
    differences = compare_trees(tree, result["tree"])
    assert not differences, format_differences(differences)
    shutil.rmtree(to)


def test_a_full_state_directory_fails_the_run_and_the_next_one_is_right(site, tmp_path):
    mount(site, "size=1m,mode=0700")
    tree = tmp_path / "tree"
    make_flat(tree, 12_000, 100)
    done = site.run("backup", tree, "--json", "-q")
    assert done.code == 1, done
    assert "No space left" in done.out or "full" in done.err, done
    assert site.run("runs").code == 0
    state = Settings(site.home).state.base
    subprocess.run(["mount", "-o", "remount,size=64m", state], check=True)
    good = site.backup(tree)
    check_restore(site, good["run"], tree, tmp_path / "to")


def test_a_read_only_state_directory_is_named(site, tmp_path):
    mount(site, "size=16m,mode=0700")
    tree = small_tree(tmp_path / "tree")
    site.backup(tree)
    state = Settings(site.home).state.base
    subprocess.run(["mount", "-o", "remount,ro", state], check=True)
    done = site.run("backup", tree, "--json", "-q")
    assert done.code == 1, done
    assert str(state) in done.err
    subprocess.run(["mount", "-o", "remount,rw", state], check=True)
    (tree / "more").write_bytes(b"more")
    check_restore(site, site.backup(tree)["run"], tree, tmp_path / "to")


def test_a_state_directory_that_vanishes_fails_the_run(bare, tmp_path):
    bare.ok("lab", "up", "--drives", "4", "-q")
    tree = small_tree(tmp_path / "tree")
    bare.backup(tree, "--name", "gone", "--shards", "4")
    (tree / "d1" / "f1").unlink()
    with held_scan(bare, tree, "gone") as (command, _, _walker):
        state = Settings(bare.home).state.base
        state.rename(tmp_path / "moved")  # or what is still written there is in the way
        shutil.rmtree(tmp_path / "moved")
    out, err = command.communicate(timeout=200)
    assert command.returncode == 1, (out, err)
    good = bare.backup(tree, "--name", "gone")
    check_restore(bare, good["run"], tree, tmp_path / "to")


def segments_of(installation, run):
    ledger = Ledger(Settings(installation.home).state.ledger, read_only=True)
    try:
        return ledger.segments(run)
    finally:
        ledger.close()


def walk_on(installation, command, run, walker):
    """Let a held walker go on until it has committed something; return the run's segments."""
    os.kill(walker, signal.SIGCONT)
    try:
        installation.wait(lambda: segments_of(installation, run) or command.poll() is not None)
    finally:
        os.kill(walker, signal.SIGSTOP)
    return segments_of(installation, run)


def test_a_killed_scan_goes_on_where_it_was(installation, tmp_path):
    tree = tmp_path / "tree"
    make_flat(tree, FILES, 10)
    with held_scan(installation, tree, "killed") as (command, run, walker):
        before = walk_on(installation, command, run, walker)
        assert 0 < sum(info.rows for info in before) < FILES
        command.send_signal(signal.SIGKILL)
    command.communicate(timeout=60)
    done = installation.run("backup", "--resume", run, "--json", "-q")
    assert (done.code, done.json["state"]) == (0, "complete"), done
    after = segments_of(installation, run)
    assert after[: len(before)] == before
    assert sum(info.rows for info in after) == FILES + 1  # nothing was listed twice
    check_restore(installation, run, tree, tmp_path / "to")
