"""The state directory is lost; what the archive brings back shows, verifies, restores, goes on."""

import os
import shutil
import stat

import pytest

from tests.support.compare import compare_trees, format_differences

pytestmark = pytest.mark.bacula


def write_tree(root):
    for number in range(200):
        path = root / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number * 11))


def change_tree(root):
    (root / "d1" / "new").write_text("new")
    (root / "d2" / "f2").unlink()
    os.rename(root / "d3" / "f3", root / "d4" / "f3")


def test_imported_runs_are_as_good_as_those_that_were_lost(installation, tmp_path):
    tree = tmp_path / "tree"
    write_tree(tree)
    full = installation.backup(tree, "--shards", 2, "--name", "kept")
    change_tree(tree)
    incremental = installation.backup(tree, "--name", "kept")
    archive = ("--url", f"file://{tmp_path}/archive")
    assert installation.ok("state", "archive", "--all", *archive).out.startswith("2 runs")
    state = installation.home / "state"
    shutil.rmtree(state)
    assert installation.ok("state", "import", "--all", *archive).out.startswith("2 runs here")
    for path in (state, *state.rglob("*")):
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path
    for run in (full["run"], incremental["run"]):
        shown = installation.ok("show", run, "--json").json
        assert (shown["run"], shown["state"]) == (run, "complete")
        installation.ok("verify", run)
    place = tmp_path / "restored"
    installation.ok("restore", incremental["run"], "--to", place, "-q")
    differences = compare_trees(tree, f"{place}{tree}")
    assert not differences, format_differences(differences)
    (tree / "d5" / "newer").write_text("newer")
    third = installation.backup(tree, "--name", "kept")
    assert third["run"] == incremental["run"] + 1
    assert {job["level"] for job in third["jobs"]} == {"I"}
    assert third["files"] < 20  # it built on what was imported
    assert installation.ok("state", "archive", "--all", *archive).out.startswith("3 runs")
