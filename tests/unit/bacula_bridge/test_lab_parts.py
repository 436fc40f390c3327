"""The lab's parts that need no Bacula: state, processes, programs, locks, the doctor."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bacula_bridge import doctor, errors, processes, programs
from bacula_bridge.errors import BadValue, DaemonFailed, LabNotRunning, LabUnusable, LockTimeout
from bacula_bridge.lab import Lab
from bacula_bridge.lab_state import load_settings, save_settings, write_private
from bacula_bridge.locks import locked
from bacula_bridge.processes import Daemon
from bacula_bridge.programs import Programs, here_document, parse_version
from bacula_bridge.render import LabSettings, Passwords, Ports

NO_PROGRAMS = Programs("15.0.3", False, ("d",), ("s",), ("f",), ("c",), (), Path("/none"))


def test_settings_survive_and_only_their_owner_reads_them(tmp_path: Path):
    file = tmp_path / "settings.json"
    words = Passwords("a", "b", "c")
    settings = LabSettings(tmp_path, Ports(1, 2, 3), words, 4, "/s", "198.51.100.1")
    save_settings(file, settings)
    assert load_settings(file, tmp_path) == settings
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "ports": {}}'])
def test_a_settings_file_of_no_use_counts_as_none(tmp_path: Path, text: str):
    write_private(tmp_path / "settings.json", text)
    assert load_settings(tmp_path / "settings.json", tmp_path) is None


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sleeper(tmp_path: Path, *, stubborn: bool = False) -> tuple[Daemon, int]:
    """Start a script that looks like a daemon on the command line."""
    program = tmp_path / "bacula-xd"
    trap = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else ""
    program.write_text(f"import signal, sys\n{trap}\nopen('ready', 'w').close()\nsignal.pause()\n")
    daemon = Daemon("x", program.name, tmp_path / "x.conf")
    argv = [sys.executable, str(program), "-f", "-c", str(daemon.configuration)]
    pid = processes.start(argv, tmp_path / "log", tmp_path)
    wait_until((tmp_path / "ready").exists)
    return daemon, pid


def test_a_daemon_is_found_by_its_command_line_and_ended(tmp_path: Path):
    daemon, pid = sleeper(tmp_path)
    assert processes.find(daemon) == [pid]
    assert os.getsid(pid) != os.getsid(0)
    other = Daemon("y", daemon.program, tmp_path / "y.conf")
    assert processes.find(other) == []
    assert processes.end_all([(other, pid)]) == []
    assert processes.find(daemon) == [pid], "a process that is not ours is left alone"
    assert processes.end_all([(daemon, pid)]) == []
    assert processes.find(daemon) == []


def test_a_daemon_that_ignores_the_polite_signal_is_killed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(processes, "TERM_WAIT_S", 0.1)
    daemon, pid = sleeper(tmp_path, stubborn=True)
    assert processes.end_all([(daemon, pid)]) == []
    assert not processes.is_daemon(pid, daemon)


def test_a_process_that_is_gone_or_somebody_elses_is_not_signalled(tmp_path: Path):
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        daemon = Daemon("x", "bacula-xd", tmp_path / "x.conf")
        assert processes.end_all([(daemon, stranger.pid)]) == []
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()
    assert processes.end_all([(daemon, stranger.pid)]) == []


def test_what_a_daemon_says_before_it_fails_is_in_its_log(tmp_path: Path):
    pid = processes.start([str(tmp_path / "missing"), "-f", "-c", "x"], tmp_path / "log", tmp_path)
    wait_until(lambda: not processes.command_line(pid))
    assert "missing" in (tmp_path / "log").read_text()


def test_who_listens_on_a_port_is_known():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert processes.listens(os.getpid(), port)
        assert not processes.listens(os.getppid(), port)
    assert not processes.listeners(port)


def test_a_lock_is_exclusive_and_its_wait_is_bounded(tmp_path: Path):
    with (
        locked(tmp_path / "lock", 1),
        pytest.raises(LockTimeout, match="lock"),
        locked(tmp_path / "lock", 0.05),
    ):
        pytest.fail("two hold the lock")
    with locked(tmp_path / "lock", 0):
        pass


def test_a_lab_that_never_was_up_says_so_and_makes_nothing(tmp_path: Path):
    lab = Lab(tmp_path / "lab", NO_PROGRAMS)
    status = lab.status().to_json()
    assert status["running"] is False
    assert status["pids"] == {"storage": 0, "file": 0, "director": 0}
    lab.down()
    with pytest.raises(LabNotRunning):
        lab.console("version")
    with pytest.raises(LabNotRunning):
        lab.set_dataset("x", 1)
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("name", ['a"b', "a$b", "a`b", "a*b", "a\nb", "a'b"])
def test_a_folder_that_bacula_would_expand_is_refused(tmp_path: Path, name: str):
    with pytest.raises(BadValue):
        Lab(tmp_path / name, NO_PROGRAMS)


def test_nothing_is_made_when_up_is_asked_for_the_impossible(tmp_path: Path):
    lab = Lab(tmp_path / "lab", NO_PROGRAMS)
    for devices, socket in ((0, "/s"), (10_000, "/s"), (1, "relative"), (1, "/" + "x" * 200)):
        with pytest.raises(BadValue):
            lab.up(devices=devices, socket=socket)
    assert not lab.base.exists()


def test_the_version_and_the_catalogs_tables_are_found_in_what_bacula_ships():
    assert parse_version("Copyright\n\nVersion: 15.0.3 (25 March 2025)\n") == (15, 0, 3)
    assert parse_version("no such program") is None
    script = (
        "#!/bin/sh\ncd /x\nsqlite3 $* ${db}.db <<END-OF-DATA\nCREATE 1;\n-- 2\nEND-OF-DATA\nexit\n"
    )
    assert here_document(script) == "CREATE 1;\n-- 2\n"
    with pytest.raises(errors.ProvisioningFailed):
        here_document("nothing")


@pytest.mark.parametrize(
    ("version", "sqlite", "script", "found"),
    [
        ("15.0.3", True, True, True),
        ("15.0.3", False, True, False),
        ("15.0.3", True, False, False),
        ("13.0.4", True, True, False),
    ],
)
def test_an_installed_bacula_is_used_if_it_is_new_and_complete(
    tmp_path: Path, monkeypatch, version: str, sqlite: bool, script: bool, found: bool
):
    for name in ("bacula-dir", "bacula-sd", "bacula-fd", "bconsole"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho\necho 'Version: {version} (today)'\n")
        (tmp_path / name).chmod(0o755)
    if script:
        (tmp_path / "make_sqlite3_tables").touch()
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(programs, "_FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(programs, "_SCRIPT_FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(programs, "_uses_sqlite", lambda director: sqlite)
    result = programs.installed()
    assert (result is not None) == found
    if result:
        assert result.version == "15.0.3"
        assert result.file_daemon == (str(tmp_path / "bacula-fd"),)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(LabUnusable, match="Not a directory"):
        Lab(tmp_path / "file" / "lab", NO_PROGRAMS).up(devices=1, socket="/s")


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x/cache")
    assert programs.default_cache() == Path("/x/cache/forebay")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/u")
    assert programs.default_cache() == Path("/home/u/.cache/forebay")


def test_every_error_survives_pickling_with_its_sentence():
    for error in (DaemonFailed("a", "b", "c"), errors.JobsTimeout("1, 2", 3.0)):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_doctor_gives_a_remedy_for_what_is_missing(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(programs, "installed", lambda: None)
    checks = {
        check.name: check
        for check in doctor.examine(tmp_path / "cache", tmp_path, tmp_path / "forebay-fd.so")
    }
    for name in ("C compiler", "make", "apt-get", "File Daemon plugin"):
        assert not checks[name].ok
        assert checks[name].fix
    assert checks["loopback ports"].ok
    assert checks["kernel"].ok == (doctor.kernel_version(os.uname().release) >= (5, 6))
    assert not (tmp_path / "cache").exists()


def test_kernel_releases_are_compared_as_numbers():
    assert doctor.kernel_version("5.10.0-30-amd64") == (5, 10) > doctor.KERNEL_MIN
    assert doctor.kernel_version("5.5.19") < doctor.KERNEL_MIN
    assert doctor.kernel_version("odd") == (0, 0)
