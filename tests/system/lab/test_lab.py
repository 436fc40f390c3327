"""The private Bacula, for real: start, stop, crash, jobs with stock means."""

from __future__ import annotations

import filecmp
import json
import os
import select
import signal
import socket as sockets
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from bacula_bridge import processes
from bacula_bridge.bootstrap import Ranges, bootstrap
from bacula_bridge.catalog import Catalog
from bacula_bridge.errors import (
    ConfigurationRefused,
    JobRefused,
    JobsTimeout,
    LabBusy,
    LabNotRunning,
)
from bacula_bridge.lab import Lab
from tests.support.lab_fixture import LabMaker

pytestmark = pytest.mark.bacula

END_S = 120.0


def pids(lab: Lab) -> dict[str, int]:
    return {daemon.name: daemon.pid for daemon in lab.status().daemons}


def source_tree(folder: Path, files: int = 40) -> Path:
    folder.mkdir()
    for number in range(files):
        sub = folder / f"d{number % 4}"
        sub.mkdir(exist_ok=True)
        (sub / f"f{number}").write_bytes(os.urandom(20_000 + number))
    return folder


def same(left: Path, right: Path) -> bool:
    compared = filecmp.dircmp(left, right)
    if compared.left_only or compared.right_only or compared.funny_files:
        return False
    names = compared.common_files
    if filecmp.cmpfiles(left, right, names, shallow=False)[0] != names:
        return False
    return all(same(left / name, right / name) for name in compared.common_dirs)


def test_a_lab_comes_up_tells_about_itself_and_goes_without_a_trace(make_lab: LabMaker):
    lab = make_lab(up=False)
    assert not lab.status().running
    with pytest.raises(LabNotRunning):
        lab.console("version")

    status = lab.up(devices=2, socket="/tmp/none.sock")
    assert status.running
    data = json.loads(json.dumps(status.to_json()))
    assert all(pid > 0 for pid in data["pids"].values())
    assert len(set(data["ports"].values())) == 3
    assert "15." in lab.console("version")
    for path in (lab.base, lab.volumes):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in [*lab.base.glob("conf/*.conf"), lab.catalog, lab.base / "settings.json"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    before = pids(lab)
    lab.down()
    assert not lab.status().running
    assert all(not processes.command_line(pid) for pid in before.values())
    assert not list((lab.base / "run").iterdir())
    lab.down()


def test_up_again_leaves_running_daemons_alone_and_more_drives_restart_only_the_sd(lab: Lab):
    first = pids(lab)
    socket = lab.status().socket
    lab.up(devices=2, socket=socket)
    assert pids(lab) == first

    lab.up(devices=lab.status().devices + 1, socket=socket)
    second = pids(lab)
    assert second["storage"] != first["storage"]
    assert (second["file"], second["director"]) == (first["file"], first["director"])


def test_two_that_bring_the_same_lab_up_at_once_get_the_same_daemons(make_lab: LabMaker):
    labs = [make_lab("shared", up=False) for _ in range(3)]
    with ThreadPoolExecutor(len(labs)) as pool:
        states = list(pool.map(lambda lab: lab.up(devices=2, socket="/tmp/none.sock"), labs))
    assert states[0] == states[1] == states[2]
    assert all(len(found) == 1 for found in labs[0]._running().values())


def test_a_new_build_of_the_plugin_restarts_the_file_daemon_with_it(
    make_lab: LabMaker, tmp_path: Path
):
    plugin = tmp_path / "built.so"
    lab = make_lab(plugin=plugin)
    first = pids(lab)
    assert lab.status().plugin == ""
    # The File Daemon refuses to load it, and runs on.
    plugin.write_bytes(b"not a shared object")
    lab.up(devices=2, socket=lab.status().socket)
    second = pids(lab)
    assert second["file"] != first["file"]
    assert second["director"] == first["director"]
    assert filecmp.cmp(plugin, lab.status().plugin, shallow=False)


@pytest.mark.parametrize("killed", ["director", "storage", "file"])
def test_up_repairs_a_lab_of_which_a_daemon_was_killed(lab: Lab, killed: str):
    before = pids(lab)
    os.kill(before[killed], signal.SIGKILL)
    wait_gone(before[killed])
    assert not lab.status().running
    stale = next((lab.base / "run").glob(f"*.{port_of(lab, killed)}.pid"))
    assert stale.exists()

    lab.up(devices=2, socket=lab.status().socket)
    after = pids(lab)
    assert lab.status().running
    assert after[killed] != before[killed]
    assert {name for name in after if after[name] == before[name]} == set(after) - {killed}


def test_up_takes_other_ports_when_a_stranger_took_one_meanwhile(lab: Lab):
    before = lab.status()
    port = port_of(lab, "file")
    lab.down()
    with closing(sockets.create_server(("127.0.0.1", port))):
        lab.up(devices=2, socket=before.socket)
        assert port not in [daemon.port for daemon in lab.status().daemons]

    victim = pids(lab)["file"]
    port = port_of(lab, "file")
    os.kill(victim, signal.SIGKILL)
    wait_gone(victim)
    with closing(sockets.create_server(("127.0.0.1", port))):
        assert not lab.status().running
        assert lab.up(devices=2, socket=before.socket).running
        assert port_of(lab, "file") != port


def test_two_labs_run_side_by_side(make_lab: LabMaker):
    one, two = make_lab("one"), make_lab("two words")
    assert not set(pids(one).values()) & set(pids(two).values())
    one.down()
    assert two.status().running
    assert "forebay-dir" in two.console("version")


def test_a_stock_job_saves_and_restores_a_tree(lab: Lab, tmp_path: Path):
    source = source_tree(tmp_path / 'source "quoted"')
    job = lab.set_plain_job("stock", str(source))
    director = lab.director()
    seen = []
    [row] = director.follow(director.run_jobs([job]), seen.append, timeout_s=END_S)
    assert (row.status, row.files, row.errors) == ("T", 45, 0)
    assert seen[-1].files == 45
    assert seen[-1].bytes == row.bytes > 40 * 20_000
    assert "Backup OK" in director.job_log(row.job_id)
    paths = {file.path for file in Catalog(lab.catalog).files(row.job_id)}
    assert len(paths) == 45
    assert os.fsencode(source / "d1" / "f1") in paths

    target = tmp_path / "target"
    [back] = director.follow([director.restore_jobs([row.job_id], str(target))], timeout_s=END_S)
    assert back.status == "T"
    assert same(source, target / source.relative_to("/"))


def test_a_bootstrap_file_restores_exactly_the_files_that_it_names(lab: Lab, tmp_path: Path):
    source = source_tree(tmp_path / "source")
    # Several spans: a volume's file is 64 MiB.
    (source / "big").write_bytes(os.urandom(1 << 20) * 150)
    job = lab.set_plain_job("stock", str(source))
    director, catalog = lab.director(), Catalog(lab.catalog)
    [row] = director.follow(director.run_jobs([job]), timeout_s=END_S)
    spans = catalog.spans(row.job_id)
    assert len(spans) >= 3

    files = [file for file in catalog.files(row.job_id) if not file.path.endswith(b"/")]
    halves = (files[::2], files[1::2])
    written = []
    for number, half in enumerate(halves):
        ranges = Ranges.of(file.file_index for file in half)
        text = bootstrap({row.job_id: ranges}, {row.job_id: row}, {row.job_id: spans})
        written.append(tmp_path / f"{number}.bsr")
        written[-1].write_text("".join(text))
    targets = [tmp_path / "target 0", tmp_path / "target 1"]
    jobs = [director.run_restores([written[n]], str(targets[n]))[0] for n in (0, 1)]
    ends = director.follow(jobs, timeout_s=END_S)
    assert [end.status for end in ends] == ["T", "T"]
    for half, target in zip(halves, targets, strict=True):
        restored = {
            os.fsencode(path)[len(os.fsencode(target)) :]
            for path in target.rglob("*")
            if path.is_file()
        }
        assert restored == {file.path for file in half}
        for file in half:
            copy = target / os.fsdecode(file.path).lstrip("/")
            assert filecmp.cmp(os.fsdecode(file.path), copy, shallow=False)


def test_set_dataset_gives_the_director_its_jobs_and_takes_another_number_of_shards(lab: Lab):
    lab.set_dataset("tree.1", 3)
    lab.set_dataset("tree.1", 3)
    names = lab.console(".jobs").split()
    assert [f"forebay-tree.1-{shard}" in names for shard in range(4)] == [True] * 3 + [False]
    lab.set_dataset("tree.1", 4)
    assert "dataset=tree.1:shard=3/4" in lab.console("show fileset=forebay-tree.1-3")
    before = pids(lab)
    lab.down()
    lab.up(devices=2, socket="/tmp/none.sock")
    assert "forebay-tree.1-3" in lab.console(".jobs").split()
    assert pids(lab) != before


def test_a_configuration_that_the_director_refuses_changes_nothing_and_is_explained(lab: Lab):
    (lab.base / "conf" / "jobs" / "broken.conf").write_text("Job { Name = x; Colour = red }\n")
    with pytest.raises(ConfigurationRefused, match="Colour"):
        lab.set_dataset("fine", 2)
    assert not (lab.base / "conf" / "jobs" / "fine.conf").exists()
    (lab.base / "conf" / "jobs" / "broken.conf").unlink()
    lab.set_dataset("fine", 2)
    assert "forebay-fine-1" in lab.console(".jobs").split()


def test_jobs_at_once_get_a_volume_each_and_a_busy_lab_is_not_restarted(lab: Lab, tmp_path: Path):
    # A hole reads slowly enough for the looks below and costs no disk; a FIFO stops a stock FD.
    (tmp_path / "source").mkdir()
    with (tmp_path / "source" / "hole").open("wb") as stream:
        stream.truncate(6 << 30)
    names = [lab.set_plain_job(f"big{number}", str(tmp_path / "source")) for number in range(3)]
    director = lab.director()
    ids = director.run_jobs(names)
    with pytest.raises(LabBusy):
        lab.up(devices=lab.status().devices + 1, socket=lab.status().socket)
    with pytest.raises(JobRefused, match="no-such-job"):
        director.run_jobs(["no-such-job"])
    with pytest.raises(JobsTimeout):
        director.follow(ids, timeout_s=0.1)
    wait_running(lab, ids)
    director.cancel(ids)
    rows = director.follow(ids, timeout_s=END_S)
    assert all(row.status in ("A", "I") for row in rows)
    volumes = [path for path in lab.volumes.iterdir() if path.name.startswith("forebay-")]
    assert len(volumes) == 3


def port_of(lab: Lab, name: str) -> int:
    return next(daemon.port for daemon in lab.status().daemons if daemon.name == name)


def wait_gone(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        assert poller.poll(10_000), f"process {pid} did not end"
    finally:
        os.close(handle)


def wait_running(lab: Lab, ids: list[int]) -> None:
    """Wait until the File Daemon sends data of every job."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = lab.director().progress(ids)
        if len(seen) == len(ids) and all(each.bytes > 0 for each in seen.values()):
            return
    pytest.fail(f"not all of {ids} ran at once")
