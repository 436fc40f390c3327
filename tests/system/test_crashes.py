"""kill -9 of a random process at a random moment: nothing false is said, the next run repairs.

FOREBAY_KILLS=n makes n kills instead of 3, FOREBAY_KILLS_FIRST=s begins with seed s.
"""

import contextlib
import os
import random
import signal

import psutil
import pytest

from cluster.settings import Settings
from tests.support.history import TreeHistory
from tests.system.processes import descendants
from tests.system.test_faults import open_run, streaming_jobs
from tests.system.test_incremental import check_restore

pytestmark = pytest.mark.bacula

FIRST = int(os.environ.get("FOREBAY_KILLS_FIRST", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("FOREBAY_KILLS", "3")))
GOOD_CODES = (0, 3)
GOOD_STATES = ("complete", "warnings")
COMMAND_TIMEOUT_S = 240.0
FILES = 1_500
SHARDS = 3


def ray_process(command, title):
    found = descendants(command.pid, title)
    return found[0].pid if found else None


def raylet(command):
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(command.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.name() == "raylet":
                    return process.pid
    return None


def daemon(name):
    return lambda installation, command: installation.lab["pids"][name]


VICTIMS = {
    "command": lambda installation, command: command.pid,
    "coordinator": lambda _, command: ray_process(command, "ray::CoordinatorActor"),
    "raylet": lambda _, command: raylet(command),
    "bacula-sd": daemon("storage"),
    "bacula-dir": daemon("director"),
    "bridge": lambda _, command: ray_process(command, "ray::BridgeActor"),
    "bacula-fd": daemon("file"),
    "walker": lambda _, command: ray_process(command, "ray::WalkerActor"),
}


def has_begun(installation, name):
    return open_run(installation, name) is not None


def has_segments(installation, name):
    run = open_run(installation, name)
    return run is not None and _files(Settings(installation.home).state.segments(run.number)) > 0


def has_streams(installation, name):
    run = open_run(installation, name)
    return run is not None and bool(streaming_jobs(installation, run.number))


def has_receipts(installation, name):
    """Some receipts are being written, or are there already."""
    run = open_run(installation, name)
    if run is None:
        return False
    folder = Settings(installation.home).state.receipts(run.number)
    with contextlib.suppress(FileNotFoundError):
        return any(entry.stat().st_size for entry in os.scandir(folder))
    return False


def has_a_saved_shard(installation, name):
    run = open_run(installation, name)
    jobs = streaming_jobs(installation, run.number) if run else []
    return any(job.receipts is not None for job in jobs)


MOMENTS = (has_begun, has_segments, has_streams, has_receipts, has_a_saved_shard)


def _files(folder):
    try:
        return len(os.listdir(folder))
    except FileNotFoundError:
        return 0


def kill_at(installation, command, name, victim, moment):
    """Kill the victim at the moment; return whether there was one before the backup had ended."""
    pid = None

    def is_time():
        nonlocal pid
        if command.poll() is not None:
            return True
        # The victim first: looking for it takes longer than the moment may last.
        pid = pid or VICTIMS[victim](installation, command)
        return pid is not None and moment(installation, name)

    installation.wait(is_time)
    if command.poll() is not None or pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@contextlib.contextmanager
def ended(command):
    """Wait for a command; end in the end what it has left behind, for the next run meets that."""
    started = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(command.pid).children(recursive=True)
    try:
        out, err = command.communicate(timeout=COMMAND_TIMEOUT_S)
        yield command.returncode, out, err
    finally:
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def runs_of(installation, name):
    listed = installation.ok("runs", "--json").json["runs"]
    return {run["run"]: run["state"] for run in listed if run["dataset"] == name}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_kill_makes_a_false_backup(installation, tmp_path, seed):
    chosen = random.Random(seed)
    victim = list(VICTIMS)[seed % len(VICTIMS)]
    name = f"kill{seed}"
    tree = tmp_path / "tree"
    (tree / "many").mkdir(parents=True)
    history = TreeHistory(tree / "changing", tmp_path / "outside", seed)
    history.grow(60)
    for number in range(FILES):
        (tree / "many" / f"{number}").write_bytes(chosen.randbytes(2_000))
    level = chosen.choice(("full", "incremental", "incremental"))
    if level == "incremental":
        installation.backup(tree, "--name", name, "--shards", SHARDS)
        history.play(15)
        for number in range(0, FILES, 2):
            (tree / "many" / f"{number}").write_bytes(chosen.randbytes(2_000))
    arguments = ("--name", name, "--shards", SHARDS, "--level", level, "--json", "-q")
    for moment in (chosen.choice(MOMENTS), has_streams, has_begun, has_begun):
        before = runs_of(installation, name)
        command = installation.start("backup", tree, *arguments)
        if kill_at(installation, command, name, victim, moment):
            break
        command.communicate(timeout=COMMAND_TIMEOUT_S)  # it was over before; an earlier moment
    else:
        raise AssertionError(f"seed {seed}: {victim} could not be killed in time")
    with ended(command) as (code, out, err):
        killed = {
            run: state for run, state in runs_of(installation, name).items() if run not in before
        }
        good = [run for run, state in killed.items() if state in GOOD_STATES]
        told = f"seed {seed}: {victim} killed when it {moment.__name__}: {code}, {out}, {err}"
        assert good or code not in GOOD_CODES, told
        for run in good:  # then it must be true
            check_restore(installation, run, tree, tmp_path)

        history.play(10)
        result = installation.run("backup", tree, "--name", name, "--json", "-q")
        assert result.code == 0, f"{told}; then {result}"
        check_restore(installation, result.json["run"], tree, tmp_path)
