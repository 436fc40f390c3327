"""What goes wrong is said by name, and a broken backup is never called good."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from cluster.settings import Settings
from shards.ledger import Ledger
from shards.shard_jobs import ShardJobs
from tests.support.compare import compare_trees, format_differences
from tests.system.conftest import Installation
from tests.system.processes import stopped, wait_for_actor

pytestmark = pytest.mark.bacula

HOLD_TRIES_MAX = 6


def small_tree(root, files=40):
    root.mkdir(exist_ok=True)
    for number in range(files):
        folder = root / f"d{number % 4}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(os.urandom(1000 + number))
    return root


def file_daemon(installation):
    return installation.lab["pids"]["file"]


def open_run(installation, name):
    """Return the open run of a dataset, if there is one."""
    state = Settings(installation.home).state
    if not state.ledger.exists():
        return None
    ledger = Ledger(state.ledger, read_only=True)
    try:
        return ledger.open_run(name)
    finally:
        ledger.close()


def streaming_jobs(installation, run):
    ledger = Ledger(Settings(installation.home).state.ledger, read_only=True)
    try:
        return ShardJobs(ledger).jobs(run)
    finally:
        ledger.close()


def finish(command, code):
    out, err = command.communicate(timeout=200)
    assert command.returncode == code, (out, err)
    return json.loads(out)


def shown(installation, result):
    listed = installation.ok("show", result["run"], "--json").json["attention"]
    return {(item["path"], item["status"], item["error"]) for item in listed}


def wait_for_run(installation, command, name):
    """Return the open run of a backup, or None if the backup has ended."""
    installation.wait(lambda: open_run(installation, name) or command.poll() is not None)
    return open_run(installation, name)


def wait_for_streams(installation, run, count):
    installation.wait(lambda: len(streaming_jobs(installation, run)) == count)


@contextlib.contextmanager
def held_scan(installation, tree, name):
    """Yield (command, run, walker's pid) of a backup whose scan is held in its middle.

    The walker is stopped as soon as it is seen. On a tree this small it may have ended by then:
    such a backup is let go, and another one is tried.
    """
    for _ in range(HOLD_TRIES_MAX):
        command = installation.start("backup", tree, "--name", name, "--json", "-q")
        try:
            walker = wait_for_actor(installation, command, "WalkerActor")
            with stopped(walker):
                run = wait_for_run(installation, command, name)
                if run is not None:
                    wait_for_streams(installation, run.number, 4)
                    # A commit that was on its way when the walker was stopped has come by now.
                    run = open_run(installation, name)
                if run is not None and run.scan_ended is None:
                    yield command, run.number, walker
                    return
            command.communicate(timeout=200)
        except BaseException:
            command.terminate()  # or the next test finds it running
            command.communicate(timeout=200)
            raise
    raise AssertionError("the scan could not be held")


def without_privileges():
    """Permission bits hold for root too without these capabilities."""
    if os.geteuid() != 0:
        return []
    caps = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"]


def test_what_cannot_be_read_is_listed_and_all_else_is_saved(tmp_path):
    installation = Installation(tmp_path / "home", prefix=without_privileges())
    tree = small_tree(tmp_path / "tree")
    secret, closed = tree / "d1" / "secret\n", tree / "closed"
    secret.write_text("x")
    closed.mkdir()
    (closed / "hidden").write_text("x")
    if os.geteuid() == 0:
        os.chown(secret, 1234, 1234)
        os.chown(closed, 1234, 1234)
    secret.chmod(0)
    closed.chmod(0)
    try:
        result = installation.backup(tree, "--shards", "3", code=3)
        assert result["state"] == "warnings"
        assert result["warnings"] == 2
        assert "W" in {job["status"] for job in result["jobs"]}
        assert shown(installation, result) == {
            ("d1/secret\\n", "UNREADABLE", "Permission denied"),
            ("closed", "SCAN_ERROR", "Permission denied"),
        }
        logs = "".join(installation.job_log(job["jobid"]) for job in result["jobs"])
        assert logs.count("secret") == 1
        assert "Permission denied" in logs
        assert "Backup OK -- with warnings" in logs
        place = tmp_path / "restored"
        installation.ok("restore", "--to", place, "-q")
        secret.unlink()
        shutil.rmtree(closed)
        differences = compare_trees(tree / "d1", place / str(tree / "d1").lstrip("/"), times=())
        assert {d.what for d in differences} <= {"mtime"}, format_differences(differences)
    finally:
        installation.run("lab", "down")


def test_names_that_vanish_or_are_replaced_after_the_scan(installation, tmp_path):
    tree = small_tree(tmp_path / "tree")
    gone, swapped, turned = tree / "d0" / "gone", tree / "d1" / "swapped", tree / "d2" / "turned"
    for path in (gone, swapped, turned):
        path.write_text("before")
    daemon = file_daemon(installation)
    command = installation.start("backup", tree, "--name", "moving", "--json", "-q")
    run = installation.wait(lambda: open_run(installation, "moving"))
    with stopped(daemon):
        installation.wait(lambda: open_run(installation, "moving").scan_ended)
        gone.unlink()
        (tree / "d1" / "new").write_text("after")
        os.rename(tree / "d1" / "new", swapped)
        turned.unlink()
        turned.symlink_to("/etc/passwd")
    result = finish(command, 3)
    assert run.number == result["run"]
    assert {(path, status) for path, status, _ in shown(installation, result)} == {
        ("d0/gone", "VANISHED"),
        ("d1/swapped", "REPLACED"),
        ("d2/turned", "REPLACED"),
    }
    logs = "".join(installation.job_log(job["jobid"]) for job in result["jobs"])
    for path in (gone, swapped, turned):
        assert logs.count(str(path)) == 1, logs
    place = tmp_path / "restored"
    done = installation.run("restore", "--name", "moving", "--to", place, "-q")
    assert done.code == 0, done
    assert not (place / str(turned).lstrip("/")).is_symlink()


def test_files_that_grow_or_shrink_while_they_are_read(installation, tmp_path):
    tree = small_tree(tmp_path / "tree")
    size = 96 << 20
    paths = [tree / "grows", tree / "shrinks"]
    for path in paths:
        path.write_bytes(os.urandom(size))
    ending = threading.Event()

    def change():
        with paths[0].open("ab") as grows, paths[1].open("r+b") as shrinks:
            while not ending.is_set():
                grows.write(b"x" * 100)
                grows.flush()
                shrinks.truncate(size // 2)
                shrinks.truncate(size)
                time.sleep(0.001)  # the rate of change, not a wait

    thread = threading.Thread(target=change)
    thread.start()
    try:
        result = installation.backup(tree, "--name", "changing", "--shards", "2", code=3)
    finally:
        ending.set()
        thread.join()
    statuses = {(path, status) for path, status, _ in shown(installation, result)}
    assert statuses == {("grows", "CHANGED"), ("shrinks", "CHANGED")}
    assert result["files"] == 42
    logs = "".join(installation.job_log(job["jobid"]) for job in result["jobs"])
    for path in paths:
        assert logs.count(str(path)) == 1, logs
    place = tmp_path / "restored"
    done = installation.run("restore", "--name", "changing", "--to", place, "--json", "-q")
    assert done.code == 0, done
    restored = place / str(tree).lstrip("/")
    assert (restored / "grows").stat().st_size >= size
    assert (restored / "shrinks").stat().st_size <= size
    assert (restored / "d0" / "f0").read_bytes() == (tree / "d0" / "f0").read_bytes()


def test_a_bridge_killed_in_mid_stream_fails_its_jobs(installation, tmp_path):
    tree = small_tree(tmp_path / "tree")
    daemon = file_daemon(installation)
    with held_scan(installation, tree, "orphan") as (command, run, _):
        os.kill(wait_for_actor(installation, command, "BridgeActor"), signal.SIGKILL)
        out, err = command.communicate(timeout=200)
    assert command.returncode == 1, (out, err)
    rows = installation.query(
        "SELECT JobStatus, JobId FROM Job WHERE Name LIKE 'forebay-orphan%'"
        " ORDER BY JobId DESC LIMIT 4"
    )
    assert [status for status, _ in rows] == [b"f"] * 4
    assert "bridge" in installation.job_log(rows[0][1])
    shown = installation.ok("show", run, "--json").json
    assert shown["state"] == "failed"
    assert file_daemon(installation) == daemon
    assert installation.backup(tree, "--name", "orphan")["state"] == "complete"


def test_a_walker_killed_in_the_scan_costs_nothing(installation, tmp_path):
    tree = small_tree(tmp_path / "tree")
    with held_scan(installation, tree, "walker") as (command, _, walker):
        os.kill(walker, signal.SIGKILL)
    result = finish(command, 0)
    assert result["files"] == 40
    place = tmp_path / "restored"
    installation.ok("restore", "--name", "walker", "--to", place, "-q")
    differences = compare_trees(tree, place / str(tree).lstrip("/"))
    assert not differences, format_differences(differences)


def test_jobs_overlap_and_each_writes_its_own_volume(installation, tmp_path):
    tree = small_tree(tmp_path / "tree")
    with held_scan(installation, tree, "overlap") as (command, _, _):
        started = time.time()
        installation.wait(lambda: time.time() > started + 1)  # the catalog has whole seconds
    result = finish(command, 0)
    jobids = [job["jobid"] for job in result["jobs"]]
    marks = ",".join("?" * 4)
    times = installation.query(
        f"SELECT StartTime, EndTime FROM Job WHERE JobId IN ({marks})", jobids
    )
    assert max(start for start, _ in times) < min(end for _, end in times)
    volumes = installation.query(
        f"SELECT DISTINCT JobId, MediaId FROM JobMedia WHERE JobId IN ({marks})", jobids
    )
    assert len({volume for _, volume in volumes}) == 4
    assert len(volumes) == 4


def test_a_job_without_a_bridge_fails_and_says_so(installation, tmp_path):
    installation.backup(small_tree(tmp_path / "tree"), "--name", "alone", "--shards", "1")
    answer = installation.console("run job=forebay-alone-0 level=Full yes\n")
    jobid = int(answer.split("JobId=")[1].split()[0].rstrip("."))
    assert installation.wait_job(jobid) == "f"
    log = installation.job_log(jobid)
    assert "bridge" in log
    assert str(Settings(installation.home).socket) in log


def test_a_second_backup_from_the_same_home_is_refused_and_harms_nothing(installation, tmp_path):
    tree = small_tree(tmp_path / "tree")
    with held_scan(installation, tree, "twice") as (command, _, _):
        second = installation.run("backup", tree, "--name", "other", "-q")
    assert second.code == 1
    assert "another forebay backup runs" in second.err
    assert finish(command, 0)["state"] == "complete"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_backup_cancels_its_jobs_and_leaves_nothing(installation, tmp_path, number):
    tree = small_tree(tmp_path / "tree")
    name = f"stopped-{number.name}"
    with held_scan(installation, tree, name) as (command, run, _):
        command.send_signal(number)
        command.communicate(timeout=120)
    assert command.returncode not in (0, 3)
    rows = installation.query(
        "SELECT JobStatus FROM Job WHERE Name LIKE ? ORDER BY JobId DESC LIMIT 4",
        (f"forebay-{name}-%",),
    )
    assert len(rows) == 4
    assert not {status for (status,) in rows} & {b"T", b"W", b"R"}
    assert installation.ok("show", run, "--json").json["state"] == "failed"
    assert not Settings(installation.home).runtime.exists()
    assert installation.backup(tree, "--name", name)["state"] == "complete"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a filesystem")
def test_a_mounted_filesystem_is_left_out_and_named(installation, tmp_path):
    tree = small_tree(tmp_path / "tree")
    (tree / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tree / "mounted"], check=True)
    try:
        (tree / "mounted" / "elsewhere").touch()
        result = installation.backup(tree, "--name", "mounts", "--shards", "2")
        assert result["scanned"]["mount_points"] == 1
        assert result["files"] == 40
        assert installation.ok("show", result["run"], "--json").json["mounted"] == ["mounted"]
        logs = "".join(installation.job_log(job["jobid"]) for job in result["jobs"])
        assert f"{tree}/mounted" in logs
    finally:
        subprocess.run(["umount", tree / "mounted"], check=True)
