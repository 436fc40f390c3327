"""A private Bacula in one folder, without root: Director, Storage Daemon, File Daemon, console.

Covers: start, stop and state of the three daemons, their configuration, ports and passwords, the
catalog file, the plugin's copy, the datasets' jobs; what a crash leaves behind.
Does not cover: Bacula's programs (programs), the text of the configuration (render), jobs
(director), the bridge at the other end of the plugin's socket.

The daemons outlive the process that started them. Everything in the folder is readable by its owner
alone; nothing listens but on one address, which is the loopback one if not said otherwise.
"""

from __future__ import annotations

import filecmp
import os
import re
import secrets
import shutil
import sqlite3
import time
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

from bacula_bridge import console, processes, render
from bacula_bridge.catalog import Catalog
from bacula_bridge.director import Director
from bacula_bridge.errors import (
    BadValue,
    ConfigurationRefused,
    DaemonFailed,
    DaemonStuck,
    LabBusy,
    LabNotRunning,
    LabUnusable,
    PortsTaken,
)
from bacula_bridge.lab_state import (
    DaemonStatus,
    LabStatus,
    load_settings,
    read_text,
    save_settings,
    write_private,
)
from bacula_bridge.locks import locked
from bacula_bridge.processes import Daemon
from bacula_bridge.programs import Programs
from bacula_bridge.render import LabSettings, Passwords, Ports
from shards.ledger_schema import HsmPolicy

DEVICES_MIN = 8
"""Drives cost nothing, a restart to add some costs a wait; restores need drives too."""

PORT_ATTEMPTS = 5
START_WAIT_S = 30.0
LOCK_WAIT_S = 120.0
CONSOLE_TIMEOUT_S = 60.0
POLL_S = 0.02
PLUGIN_SOURCE = Path(__file__).parent / "plugin" / "forebay-fd.so"

_FOLDERS = (
    *("conf", "conf/jobs", "conf/plain", "work", "work/director", "work/storage", "work/file"),
    *("run", "log", "volumes", "restore", "plugins"),
)
# Bacula expands folder names as a shell does.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\"'`\\$*?\[\]{}~;&|<>()!#]")
# Restored folders are made under the File Daemon's umask, which is a system service's elsewhere.
_UMASKS = {"storage": 0o077, "file": 0o022, "director": 0o077}


class _PortTaken(Exception):
    """Somebody else listens on a port that a daemon was to get; new ones are picked."""


def default_base() -> Path:
    """Return the user's folder for the lab."""
    configured = os.environ.get("XDG_DATA_HOME", "")
    data = Path(configured) if configured.startswith("/") else Path.home() / ".local" / "share"
    return data / "forebay" / "lab"


def catalog_path(base: Path) -> Path:
    """Return where the catalog of the lab in this folder is, or will be."""
    return base / "work" / "director" / f"{render.DATABASE_NAME}.db"


class Lab:
    """One private Bacula. Any number of objects and processes may stand for the same folder."""

    def __init__(
        self,
        base: Path,
        programs: Programs,
        plugin: Path = PLUGIN_SOURCE,
        address: str = render.LOOPBACK,
    ) -> None:
        """Take the folder, which need not exist; plugin is the built shared object to load.

        address: of a new lab's daemons, one of this machine; what a lab was made with stays.
        """
        self.base = Path(os.path.realpath(base))
        if _UNUSABLE.search(str(self.base)):
            raise BadValue("lab folder", str(self.base), "Bacula takes no shell characters in it")
        self.programs = programs
        self.plugin = plugin
        self.address = address
        self.catalog = catalog_path(self.base)
        self.volumes = self.base / "volumes"
        conf = self.base / "conf"
        self._console_file = conf / "bconsole.conf"
        self._settings_file = self.base / "settings.json"
        self._daemons = {
            "storage": Daemon("storage", "bacula-sd", conf / "sd.conf"),
            "file": Daemon("file", "bacula-fd", conf / "fd.conf"),
            "director": Daemon("director", "bacula-dir", conf / "dir.conf"),
        }

    def up(self, *, devices: int, socket: str) -> LabStatus:
        """Bring the lab up with at least so many drives; what runs and fits is left alone.

        Raise LabBusy if jobs run and a daemon would have to be restarted.
        """
        render.check_socket(socket)
        if not 1 <= devices <= render.DRIVES_MAX:
            raise BadValue("number of drives", devices, f"1 to {render.DRIVES_MAX}")
        try:
            self.base.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                for name in _FOLDERS:
                    (self.base / name).mkdir(exist_ok=True, mode=0o700)
                self._up_locked(self._settings_for(devices, socket))
                return self.status()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise LabUnusable(str(self.base), reason) from error

    def down(self) -> None:
        """End the daemons, running jobs included; nothing to do if there are none."""
        if not self.base.is_dir():
            return
        with self._locked():
            self._end(self._running())

    def status(self) -> LabStatus:
        """Look at the lab without changing or locking anything."""
        settings = load_settings(self._settings_file, self.base)
        running = self._running()
        ports = _ports_by_daemon(settings.ports) if settings else dict.fromkeys(self._daemons, 0)
        daemons = tuple(
            DaemonStatus(
                name=name,
                pid=pids[0] if (pids := running.get(name, [])) else 0,
                port=ports[name],
                ready=bool(pids) and processes.listens(pids[0], ports[name]),
            )
            for name in self._daemons
        )
        plugin = self._plugin_copy()
        return LabStatus(
            base=str(self.base),
            running=all(daemon.ready for daemon in daemons),
            daemons=daemons,
            devices=settings.devices if settings else 0,
            socket=settings.socket if settings else "",
            catalog=str(self.catalog),
            volumes=str(self.volumes),
            logs=str(self.base / "log"),
            plugin=str(plugin) if plugin.exists() else "",
            configuration={
                **{name: str(daemon.configuration) for name, daemon in self._daemons.items()},
                "console": str(self._console_file),
                "jobs": str(self.base / "conf" / "jobs"),
            },
            bconsole=(*self.programs.console, "-c", str(self._console_file)),
            programs_version=self.programs.version,
        )

    def console(self, commands: str, timeout_s: float = CONSOLE_TIMEOUT_S) -> str:
        """Pass commands to bconsole and return all that it prints."""
        if not processes.find(self._daemons["director"]):
            raise LabNotRunning(str(self.base))
        argv = [*self.programs.console, "-c", str(self._console_file)]
        return console.run(argv, commands, home=self.base, timeout_s=timeout_s)

    def director(self) -> Director:
        """Return a client of this lab's Director."""
        return Director(self.console, Catalog(self.catalog))

    def set_dataset(self, name: str, shards: int, hsm: HsmPolicy = HsmPolicy.SKIP) -> None:
        """Give the Director the FileSets and Jobs of a dataset; no-op if it has them."""
        self._set_jobs("jobs", name, render.dataset_config(name, shards, hsm=hsm))

    def set_plain_job(self, name: str, directory: str) -> str:
        """Give the Director a Job that saves a directory by stock means; return its name."""
        self._set_jobs("plain", name, render.plain_job_config(name, directory))
        return render.plain_job_name(name)

    def _up_locked(self, settings: LabSettings) -> None:
        for _ in range(PORT_ATTEMPTS):
            try:
                self._converge(settings)
                return
            except _PortTaken:
                self._stop(self._running(), "a port that another program took")
                settings = replace(settings, ports=_pick_ports())
        raise PortsTaken(PORT_ATTEMPTS)

    def _set_jobs(self, folder: str, name: str, text: str) -> None:
        """Put a jobs file in place once the Director's own check accepts it, then reload.

        The marker tells after a crash that a file may be in place which was not loaded yet.
        """
        path = self.base / "conf" / folder / f"{name}.conf"
        marker = self.base / "conf" / "reload-pending"
        if not processes.find(self._daemons["director"]):
            raise LabNotRunning(str(self.base))
        with self._locked():
            settings = load_settings(self._settings_file, self.base)
            if settings is None:
                raise LabNotRunning(str(self.base))
            if read_text(path) == text and not marker.exists():
                return
            refused = self._check_jobs(settings, path, text)
            if refused:
                raise ConfigurationRefused(str(path), refused)
            write_private(marker, "")
            write_private(path, text)
            main = self._daemons["director"].configuration
            write_private(main, render.director_config(settings, self._jobs_files()))
            refused = console.reload_refusal(self.console("reload"))
            if refused:
                raise ConfigurationRefused(str(path), refused)
            marker.unlink()

    def _check_jobs(self, settings: LabSettings, path: Path, text: str) -> str:
        """Let a second Director parse drafts: the reload itself does not say what is wrong."""
        draft = path.with_name(f"{path.name}.draft")
        main = self.base / "conf" / "dir.conf.draft"
        jobs = [each for each in self._jobs_files() if each != path]
        try:
            write_private(draft, text)
            write_private(main, render.director_config(settings, [*jobs, draft]))
            return console.check_configuration([*self.programs.director, "-t", "-c", str(main)])
        finally:
            draft.unlink(missing_ok=True)
            main.unlink(missing_ok=True)

    def _jobs_files(self) -> list[Path]:
        conf = self.base / "conf"
        return [*sorted(conf.glob("jobs/*.conf")), *sorted(conf.glob("plain/*.conf"))]

    def _settings_for(self, devices: int, socket: str) -> LabSettings:
        known = load_settings(self._settings_file, self.base)
        if known is None:
            words = Passwords(*(secrets.token_urlsafe(32) for _ in range(3)))
            count = max(devices, DEVICES_MIN)
            return LabSettings(self.base, _pick_ports(), words, count, socket, self.address)
        ports = known.ports if self._running() else _pick_ports()
        drives = max(devices, known.devices)
        return replace(known, ports=ports, devices=drives, socket=socket)

    def _converge(self, settings: LabSettings) -> None:
        """Restart what must change, start what is missing, wait until all three answer."""
        texts = self._texts(settings)
        running = self._running()
        stale = {
            name: running[name]
            for name in running
            if len(running[name]) > 1
            or read_text(self._daemons[name].configuration) != texts[name]
            or (name == "file" and self._plugin_differs())
            or not self._uses_programs(name, running[name][0])
        }
        self._stop(stale, "a new configuration or plugin")
        save_settings(self._settings_file, settings)
        write_private(self._console_file, render.console_config(settings))
        self._make_catalog()
        pids = {name: running[name][0] for name in running if name not in stale}
        ports = _ports_by_daemon(settings.ports)
        for name, daemon in self._daemons.items():
            if name in pids:
                continue
            if processes.listeners(ports[name]):
                raise _PortTaken
            if name == "file":
                self._install_plugin()
            write_private(daemon.configuration, texts[name])
            self._remove_leftovers(name)
            argv = [*self._argv(name), "-f", "-c", self._conf(name)]
            pids[name] = processes.start(argv, self._log(name), self.base, _UMASKS[name])
        self._await_ready(pids, ports)

    def _await_ready(self, pids: dict[str, int], ports: dict[str, int]) -> None:
        deadline = time.monotonic() + START_WAIT_S
        for name, pid in pids.items():
            while not processes.listens(pid, ports[name]):
                if processes.listeners(ports[name]) and not processes.listens(pid, ports[name]):
                    raise _PortTaken
                # Between fork and exec the command line is still the shell's.
                ended = not processes.command_line(pid)
                if ended or time.monotonic() > deadline:
                    what = "it ended" if ended else f"no answer within {START_WAIT_S:.0f} s"
                    words = console.last_line(self._log(name)) or what
                    raise DaemonFailed(self._daemons[name].program, words, str(self._log(name)))
                time.sleep(POLL_S)
        questions = (".status dir header", f".status client={render.CLIENT_NAME} header")
        question = "\n".join((*questions, f".status storage={render.STORAGE_NAME} header"))
        answer = self.console(".api 2 api_opts=j\n" + question, START_WAIT_S)
        if answer.count('{"header":') != 3:
            words = console.last_text(answer)
            raise DaemonFailed("one of the daemons", words, str(self.base / "log"))

    def _stop(self, running: dict[str, list[int]], reason: str) -> None:
        if not running:
            return
        # Without a Director that answers there is nothing that a job could report to.
        if "director" in self._running() and (jobs := self._jobs_running()):
            raise LabBusy(reason, jobs)
        self._end(running)

    def _jobs_running(self) -> int:
        answer = self.console(".api 2 api_opts=j\n.status dir running", CONSOLE_TIMEOUT_S)
        return len(console.json_lists(answer, "running"))

    def _end(self, running: dict[str, list[int]]) -> None:
        ends = [(self._daemons[name], pid) for name, pids in running.items() for pid in pids]
        for daemon, pid in processes.end_all(ends):
            raise DaemonStuck(daemon.program, pid)
        for name in running:
            self._remove_leftovers(name)

    def _running(self) -> dict[str, list[int]]:
        return processes.find_all(self._daemons)

    def _texts(self, settings: LabSettings) -> dict[str, str]:
        return {
            "storage": render.storage_config(settings),
            "file": render.file_daemon_config(settings),
            "director": render.director_config(settings, self._jobs_files()),
        }

    def _argv(self, name: str) -> tuple[str, ...]:
        return {
            "storage": self.programs.storage_daemon,
            "file": self.programs.file_daemon,
            "director": self.programs.director,
        }[name]

    def _conf(self, name: str) -> str:
        return str(self._daemons[name].configuration)

    def _uses_programs(self, name: str, pid: int) -> bool:
        """Tell whether the daemon runs from our copy; an installed one may be a script's child."""
        if not self.programs.private:
            return True
        return tuple(processes.command_line(pid)[:-3]) == self._argv(name)

    def _log(self, name: str) -> Path:
        return self.base / "log" / f"{name}.log"

    def _plugin_copy(self) -> Path:
        return self.base / "plugins" / "forebay-fd.so"

    def _plugin_differs(self) -> bool:
        copy = self._plugin_copy()
        if not self.plugin.exists():
            return False
        return not copy.exists() or not filecmp.cmp(self.plugin, copy, shallow=False)

    def _install_plugin(self) -> None:
        """Replace the copy by rename: a running File Daemon crashes when it is overwritten."""
        if not self._plugin_differs():
            return
        draft = self._plugin_copy().with_name(".forebay-fd.so.new")
        shutil.copyfile(self.plugin, draft)
        draft.chmod(0o700)
        draft.rename(self._plugin_copy())

    def _make_catalog(self) -> None:
        if self.catalog.exists():
            return
        draft = self.catalog.with_name(f".{self.catalog.name}.new")
        for leftover in (draft, draft.with_name(draft.name + "-journal")):
            leftover.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(draft)) as database:
            database.executescript(self.programs.catalog_sql())
        draft.rename(self.catalog)

    def _remove_leftovers(self, name: str) -> None:
        """Remove what a dead daemon left: its pid file and its list of past jobs."""
        program = self._daemons[name].program
        for path in (self.base / "run").glob(f"{program}.*.pid"):
            path.unlink(missing_ok=True)
        for path in (self.base / "work" / name).glob(f"{program}.*.state"):
            path.unlink(missing_ok=True)

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.base / "lab.lock", LOCK_WAIT_S)


def _pick_ports() -> Ports:
    return Ports(*processes.free_ports(3))


def _ports_by_daemon(ports: Ports) -> dict[str, int]:
    return {"storage": ports.storage, "file": ports.file, "director": ports.director}
