"""A real Prometheus: the machine's, or Debian's package unpacked into the cache folder.

Covers: finding its programs, running it on a free port of the loopback, asking it.
Does not cover: what it scrapes.
"""

import fcntl
import json
import platform
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil

from bacula_bridge import debian
from bacula_bridge.errors import ProgramsMissing
from bacula_bridge.programs import default_cache

PROGRAMS = ("prometheus", "promtool")
DEADLINE_S = 60.0
POLL_S = 0.1


def programs():
    """Return the paths of prometheus and promtool; the first call may download 70 MB.

    Raises ForebayError or OSError if they cannot be had.
    """
    found = [shutil.which(name) for name in PROGRAMS]
    if all(found):
        return [Path(path) for path in found]
    release = platform.freedesktop_os_release()
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not codename:
        raise ProgramsMissing("there is no prometheus; install it")
    root = default_cache() / f"prometheus-{codename}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            _provide(root.with_suffix(".partial"), root, codename)
    return [root / "usr" / "bin" / name for name in PROGRAMS]


def _provide(partial, root, codename):
    shutil.rmtree(partial, ignore_errors=True)
    scratch, unpacked = partial / "scratch", partial / "root"
    scratch.mkdir(parents=True)
    unpacked.mkdir()
    debian.require_tools()
    configuration = debian.prepare(scratch, debian.configured_mirror(), debian.archive_keyring())
    sources = scratch / "apt" / "sources.list"
    sources.write_text(sources.read_text().replace(f" {debian.SUITE} ", f" {codename} "))
    debian.run_apt(configuration, ["update"], scratch, "the package lists")
    debian.run_apt(configuration, ["download", "prometheus"], scratch, "Prometheus")
    for archive in sorted(scratch.glob("*.deb")):
        debian.unpack(archive, unpacked)
    unpacked.rename(root)
    shutil.rmtree(partial)


class Prometheus:
    """One that runs."""

    def __init__(self, process):
        self._process = process
        self.url = ""

    def wait_listening(self):
        process = psutil.Process(self._process.pid)

        def listening():
            assert self._process.poll() is None, "it has ended; see its log"
            ports = [c.laddr.port for c in process.net_connections("tcp") if c.status == "LISTEN"]
            return ports and self._is_ready(f"http://127.0.0.1:{ports[0]}")

        self.wait(listening)

    def _is_ready(self, url):
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
                self.url = url
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def wait(self, condition):
        deadline = time.monotonic() + DEADLINE_S
        while not (found := condition()):
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(POLL_S)
        return found

    def ask(self, path, **parameters):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def values(self, expression):
        """Return the newest value of each series."""
        found = self.ask("query", query=expression)["result"]
        return [float(series["value"][1]) for series in found]

    def has_data(self, expression, since):
        """Tell whether an expression gave anything at all since a time."""
        times = {"start": since, "end": time.time(), "step": 1}
        return bool(self.ask("query_range", query=expression, **times)["result"])


@contextmanager
def running_prometheus(configuration, folder):
    """Yield a Prometheus that scrapes what a configuration says."""
    program, _ = programs()
    with open(folder / "prometheus.log", "wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        prometheus = Prometheus(process)
        prometheus.wait_listening()
        yield prometheus
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
