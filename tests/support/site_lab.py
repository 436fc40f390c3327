"""A site in one place: Director, Storage Daemon, and a File Daemon for each of several movers.

Covers: the lab's daemons standing for the site's, a File Daemon and a folder for each mover, the
site's configuration file. Movers may be hosts of their own; then the Director is to be on the hub.
Does not cover: Ray (ray_nodes, ray_hosts), the hosts (net_hosts).
"""

import os
import secrets
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from bacula_bridge import processes, programs
from bacula_bridge.lab import PLUGIN_SOURCE, Lab
from bacula_bridge.lab_state import load_settings
from bacula_bridge.render import DIRECTOR_NAME, LOOPBACK, plugin_options, quote
from tests.support.net_hosts import NetHosts, within

CONCURRENT = 40
START_S = 30.0


@dataclass
class FileDaemon:
    """A mover's File Daemon."""

    name: str
    folder: Path
    address: str
    port: int
    password: str

    @property
    def configuration(self) -> Path:
        return self.folder / "bacula-fd.conf"


@dataclass
class SiteLab:
    """The site's Bacula; close() ends what was started."""

    base: Path
    movers: list[str]
    drives: int
    hosts: NetHosts | None = None
    lab: Lab = field(init=False)
    daemons: dict[str, FileDaemon] = field(default_factory=dict)
    _processes: list[subprocess.Popen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.programs = programs.ensure()
        address = self.hosts.hub.address if self.hosts else LOOPBACK
        self.lab = Lab(self.base / "lab", self.programs, address=address)
        self.up()
        for mover in self.movers:
            self.daemons[mover] = self._start(mover)
        self.set_resources("clients", "".join(map(self._client, self.daemons.values())))

    def up(self) -> None:
        """Start what is not running of Director, Storage Daemon and the lab's own File Daemon."""
        self.lab.up(devices=self.drives, socket=str(self.base / "none.sock"))

    def socket(self, mover: str) -> Path:
        return self.base / f"run-{mover}" / "bridge.sock"

    def _start(self, mover: str) -> FileDaemon:
        folder = self.base / mover
        for name in ("work", "plugins"):
            (folder / name).mkdir(parents=True)
        (port,) = processes.free_ports(1)
        host = self.hosts.others[mover] if self.hosts else None
        address = host.address if host else LOOPBACK
        one = FileDaemon(f"{mover}-fd", folder, address, port, secrets.token_urlsafe(16))
        os.link(PLUGIN_SOURCE, folder / "plugins" / "forebay-fd.so")
        one.configuration.write_text(
            f"""\
FileDaemon {{
  Name = {quote(one.name)}
  FDAddress = {address}
  FDport = {port}
  Plugin Directory = {quote(str(folder / "plugins"))}
  Plugin Options = {quote(plugin_options(str(self.socket(mover))))}
  WorkingDirectory = {quote(str(folder / "work"))}
  Pid Directory = {quote(str(folder / "work"))}
  Maximum Concurrent Jobs = {CONCURRENT}
}}
Director {{ Name = {quote(DIRECTOR_NAME)}; Password = {quote(one.password)} }}
Messages {{ Name = "m"; director = {quote(DIRECTOR_NAME)} = all, !skipped, !restored }}
"""
        )
        argv = [*(host.prefix if host else []), *self.programs.file_daemon]
        argv += ["-f", "-c", str(one.configuration)]
        with (folder / "fd.log").open("wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=0o022, cwd=folder
            )
        self._processes.append(process)
        pid = within(process).pid if host else process.pid
        deadline = time.monotonic() + START_S
        while not processes.listens(pid, port):
            assert process.poll() is None, (folder / "fd.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return one

    def _client(self, one: FileDaemon) -> str:
        return f"""\
Client {{
  Name = {quote(one.name)}
  Address = {one.address}
  FDPort = {one.port}
  Password = {quote(one.password)}
  Catalog = "forebay"
  AutoPrune = no
  Maximum Concurrent Jobs = {CONCURRENT}
}}
"""

    def set_resources(self, name: str, text: str) -> None:
        """Let the Director include these resources."""
        self.lab._set_jobs("jobs", name, text)

    def include(self, path: Path) -> None:
        """Let the Director include a file of rendered resources, as its administrator would."""
        text = f"@{quote(str(path))}\n"
        self.set_resources("included", text)

    @property
    def bconsole(self) -> Path:
        """A program that stands for an installed bconsole."""
        path = self.base / "bconsole"
        if not path.exists():
            line = " ".join(self.programs.console)
            path.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
            path.chmod(0o700)
        return path

    def configuration(self, **about: object) -> str:
        """Return the site's configuration file."""
        settings = load_settings(self.lab.base / "settings.json", self.lab.base)
        assert settings is not None
        movers = "".join(
            f'[[mover]]\nname = "{mover}"\nclient = "{mover}-fd"\n' for mover in self.movers
        )
        return f"""\
state = "{about["state"]}"
runtime = "{self.base}/run-{{mover}}"
[coordinator]
ledger = "{self.base}/ledger"
[ray]
address = "{about["address"]}"
dashboard = "{about["dashboard"]}"
token_file = "{about["token_file"]}"
[bacula]
catalog = "{self.lab.catalog}"
bconsole = "{self.bconsole}"
bconsole_config = "{self.lab.base}/conf/bconsole.conf"
messages = "forebay"
[archive]
url = "file://{self.base}/archive"
[limits]
run_idle_s = {about.get("run_idle_s", 10)}
{movers}
[[dataset]]
name = "data"
root = "{about["root"]}"
shards = {about["shards"]}
"""

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.lab.down()
