"""Incrementals by hand: what goes, what a chain gives back, what happens when its base is gone."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from cluster.chains import restore_jobids
from cluster.records import find_run
from cluster.settings import Settings
from tests.support.compare import compare_trees, format_differences
from tests.system.test_faults import finish, held_scan, small_tree

pytestmark = pytest.mark.bacula


@pytest.fixture
def tree(tmp_path):
    root = small_tree(tmp_path / "tree")
    os.link(root / "d0" / "f0", root / "d1" / "link")
    (root / "d2" / "socketless").symlink_to("f2")
    return root


def check_restore(installation, run, tree, tmp_path, ways=("forebay", "bconsole")):
    """Restore a run both ways and compare each with the tree."""
    for way in ways:
        to = tmp_path / f"{way}-{run}"
        if way == "forebay":
            result = installation.ok("restore", run, "--to", to, "--json", "-q").json
            place = Path(result["tree"])
        else:
            settings = Settings(installation.home)
            jobids = ",".join(map(str, restore_jobids(settings, find_run(settings, str(run)))))
            answer = installation.console(
                f'restore client="forebay-fd" jobid={jobids} where="{to}" all done yes\n'
            )
            jobid = int(answer.rpartition("JobId=")[2].split()[0])
            assert installation.wait_job(jobid) == "T", installation.job_log(jobid)
            place = Path(f"{to}{tree}")
        differences = compare_trees(tree, place)
        assert not differences, f"{way}: {format_differences(differences)}"
        shutil.rmtree(to)


def change(tree):
    """Change a little of everything; return how many names go for it, deletions included."""
    (tree / "d0" / "new").write_bytes(b"new")  # and d0 itself
    (tree / "d1" / "f1").unlink()  # a deletion, and d1
    (tree / "d1" / "f5").rename(tree / "d2" / "moved")  # a deletion, the new name, and d2
    os.chmod(tree / "d3" / "f3", 0o600)
    return 8


def levels(installation, result):
    return [job["level"] for job in installation.ok("show", result["run"], "--json").json["jobs"]]


def test_an_incremental_saves_what_has_changed(installation, tree, tmp_path):
    first = installation.backup(tree, "--name", "inc", "--shards", "3")
    assert levels(installation, first) == ["F"] * 3
    check_restore(installation, first["run"], tree, tmp_path)
    expected = change(tree)
    second = installation.backup(tree, "--name", "inc")
    assert levels(installation, second) == ["I"] * 3
    assert sum(job["files"] for job in second["jobs"]) == expected
    log = installation.job_log(second["jobs"][0]["jobid"])
    assert f"incremental on JobId {first['jobs'][0]['jobid']}" in log
    assert "the whole tree is looked at: no change reader is set up" in log
    check_restore(installation, second["run"], tree, tmp_path)
    third = installation.backup(tree, "--name", "inc", "--level", "differential")
    assert levels(installation, third) == ["D"] * 3
    assert sum(job["files"] for job in third["jobs"]) == expected
    fourth = installation.backup(tree, "--name", "inc")
    assert sum(job["files"] for job in fourth["jobs"]) == 0
    check_restore(installation, fourth["run"], tree, tmp_path)


def test_a_job_deleted_from_the_catalog_leaves_no_hole(installation, tree, tmp_path):
    installation.backup(tree, "--name", "deleted", "--shards", "2")
    change(tree)
    second = installation.backup(tree, "--name", "deleted")
    (tree / "d0" / "later").write_bytes(b"later")
    installation.backup(tree, "--name", "deleted")
    for job in second["jobs"]:
        installation.console(f"delete jobid={job['jobid']} yes\n")
    last = installation.backup(tree, "--name", "deleted")
    check_restore(installation, last["run"], tree, tmp_path)


def test_another_number_of_shards_makes_a_full_and_says_so(installation, tree):
    installation.backup(tree, "--name", "shards", "--shards", "2")
    second = installation.backup(tree, "--name", "shards", "--shards", "3")
    assert levels(installation, second) == ["F"] * 3
    assert "shards" in installation.ok("show", second["run"]).out
    again = installation.backup(tree, "--name", "shards", "--shards", "2")
    assert levels(installation, again) == ["F"] * 2  # though the Director knows that FileSet
    note = installation.ok("show", again["run"], "--json").json["note"]
    assert "full backup instead of an incremental" in note


def test_a_lost_ledger_costs_a_full(bare, tree, tmp_path):
    bare.ok("lab", "up", "--drives", "4", "-q")
    bare.backup(tree, "--name", "lost", "--shards", "2")
    state = Settings(bare.home).state
    for path in state.base.glob("ledger.sqlite*"):
        path.unlink()
    (tree / "d1" / "f1").unlink()
    second = bare.backup(tree, "--name", "lost", "--shards", "2")
    assert second["run"] == 2  # the lost one's folder is not used again
    assert levels(bare, second) == ["F"] * 2
    check_restore(bare, second["run"], tree, tmp_path)


def test_a_clock_that_was_set_back_is_named(installation, tree):
    first = installation.backup(tree, "--name", "clock", "--shards", "2")
    jobid = first["jobs"][0]["jobid"]

    def move(seconds):
        path = installation.home / "lab" / "work" / "director" / "bacula.db"
        with sqlite3.connect(path, timeout=30) as database:
            database.execute(
                "UPDATE Job SET JobTDate = JobTDate + ? WHERE JobId = ?", (seconds, jobid)
            )

    move(3600)  # as if the clock had been set back by an hour since
    result = installation.backup(tree, "--name", "clock", code=1)
    assert result["state"] == "failed"
    assert "the clock says" in installation.job_log(result["jobs"][1]["jobid"])
    move(-3600)
    installation.backup(tree, "--name", "clock")


def cancelled(installation, tree, name):
    """Return a run of which one of four jobs was cancelled."""
    with held_scan(installation, tree, name) as (command, _, _walker):
        rows = installation.query(
            "SELECT JobId FROM Job WHERE JobStatus = 'R' AND Name = ?", (f"forebay-{name}-2",)
        )
        installation.console(f"cancel jobid={rows[-1][0]} yes\n")
        assert installation.wait_job(rows[-1][0]) in ("A", "I")
    return finish(command, code=1)


def test_an_incomplete_run_is_resumed_with_its_own_scan(installation, tree, tmp_path):
    run = cancelled(installation, tree, "resumed")
    assert run["state"] == "incomplete"
    assert "incomplete" in installation.ok("runs").out
    state = Settings(installation.home).state
    segments = sorted(os.listdir(state.segments(run["run"])))
    result = installation.run("backup", "--resume", run["run"], "--json", "-q")
    assert (result.code, result.json["state"]) == (0, "complete"), result
    assert result.json["run"] == run["run"]
    assert sorted(os.listdir(state.segments(run["run"]))) == segments
    assert len(result.json["jobs"]) == 5  # only the one that was missing ran again
    check_restore(installation, run["run"], tree, tmp_path)


def test_what_an_incomplete_run_lacks_comes_with_the_next(installation, tree, tmp_path):
    installation.backup(tree, "--name", "next")
    change(tree)
    run = cancelled(installation, tree, "next")
    (tree / "d3" / "f7").unlink()
    result = installation.backup(tree, "--name", "next")
    check_restore(installation, result["run"], tree, tmp_path)
    refused = installation.run("backup", "--resume", run["run"])
    assert refused.code == 2
    assert f"run {result['run']} of next began after it" in refused.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--level", "never"], "full, differential or incremental"),
        (["--resume", "99999"], "no run 99999"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(installation, tree, arguments, words):
    where = [] if "--resume" in arguments else [tree]
    refused = installation.run("backup", *where, *arguments)
    assert refused.code == 2
    assert words in refused.err
