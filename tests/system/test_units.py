"""The commands of the shipped systemd units, as their user with their one capability.

Covers: head and worker start with the token, `forebay serve --check` of the unit gets in and looks
at both; a wrong token does not; nothing says the token.
Does not cover: systemd's own sandbox: there is no systemd to run here.
"""

import os
import random
import re
import secrets
import shlex
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from bacula_bridge.catalog import _JOB_COLUMNS
from bacula_bridge.catalog_sources import VERSION
from cluster.dashboards.files import TOKEN_FILE, write_prometheus
from cluster.site_config import check, load, shown
from cluster.systemd_units import units
from shards.errors import ForebayError
from tests.support.privileges import NOBODY, as_nobody, can_change_user
from tests.support.prometheus import programs

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

WAIT_S = 120.0
COMMAND_S = 120.0
END_S = 30.0
NODE_PORTS, WORKER_PORTS = 10, 60
BLOCK = NODE_PORTS + WORKER_PORTS


def as_the_unit():
    """What makes a command run as a unit's user with what AmbientCapabilities= gives it."""
    return as_nobody("dac_read_search") if can_change_user() else []


def free_block(*others):
    """The first of a row of free ports: a node's own, and behind them its workers'.

    Below those that the kernel gives to others meanwhile (ip_local_port_range).
    """
    while True:
        first = random.randrange(12_000, 32_000 - BLOCK)
        if any(abs(first - other) < BLOCK for other in others):
            continue
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + BLOCK):
                stack.enter_context(socket.socket()).bind(("", port))
            return first


def make_catalog(path):
    """Make a catalog that no job is in yet, as far as `forebay serve --check` looks at one."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"CREATE TABLE Job ({_JOB_COLUMNS})")
        database.execute("CREATE TABLE Version (VersionId)")
        database.execute("INSERT INTO Version VALUES (?)", (VERSION,))
        database.commit()
    path.chmod(0o644)  # the unit's user reads it


class Units:
    """The units' processes; close() ends them."""

    def __init__(self):
        self.base = Path(tempfile.mkdtemp(prefix="fbu-"))
        self.base.chmod(0o755)
        self.tree = self.base / "tree"
        (self.tree / "closed").mkdir(parents=True)
        (self.tree / "closed").chmod(0)
        self.token = f"{secrets.token_hex(16)}"
        self.token_file = self.base / "ray.token"
        self.token_file.touch(0o600)
        self.token_file.write_text(self.token)
        head = free_block()
        self.blocks = {"forebay-ray-head.service": head}
        self.blocks["forebay-ray-worker@.service"] = free_block(head)
        self.port, self.dashboard = head + 7, head + 8
        self.config = self.base / "forebay.toml"
        self.catalog = self.base / "catalog.db"
        make_catalog(self.catalog)
        for name in ("state", "ledger"):
            (self.base / name).mkdir(mode=0o700)
        (self.base / "run").mkdir(mode=0o700)
        if as_the_unit():
            for name in ("state", "ledger", "run"):
                os.chown(self.base / name, NOBODY, NOBODY)
        self.values = {
            "state": f"{self.base}/state",
            "runtime": f"{self.base}/run/{{mover}}",
            "coordinator": {"ledger": f"{self.base}/ledger"},
            "ray": {
                "address": f"127.0.0.1:{self.port}",
                "dashboard": f"http://127.0.0.1:{self.dashboard}",
                "token_file": str(self.token_file),
            },
            "bacula": {"catalog": str(self.catalog)},
            "mover": [{"name": name, "client": f"{name}-fd"} for name in ("m1", "m2")],
            "dataset": [{"name": "data", "root": str(self.tree), "shards": 2}],
        }
        self.config.write_text(shown(check(self.values, "f").model_dump(mode="json")))
        # A unit's folder for sockets is below /run; two movers on one machine are this test's own.
        site = check({**self.values, "runtime": "/run/forebay"}, "f")
        self.units = units(site, self.config, "forebay")
        self.processes = []
        self.said = b""

    def command(self, unit, key="ExecStart"):
        text = self.units[unit].replace("%i", "m2")
        # The nodes share a machine, and perhaps one with a Forebay of its own.
        text = text.replace(f"--address={socket.getfqdn()}:", "--address=127.0.0.1:")
        text = text.replace(
            "--temp-dir=" + f"{self.base}/ledger/ray", f"--temp-dir={self.base}/ledger/{unit[12]}"
        )
        first = self.blocks.get(unit, 0)
        text = re.sub(r"=11000\b", f"={first + NODE_PORTS}", text)
        text = re.sub(r"=11999\b", f"={first + BLOCK - 1}", text)
        for number in range(7):
            text = text.replace(f"-port={6380 + number} ", f"-port={first + number} ")
        lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]
        small = "--num-cpus=1 --object-store-memory=80000000"
        return [shlex.split(line.replace("$RAY_OPTIONS", small)) for line in lines]

    def environment(self, unit):
        lines = [line for line in self.units[unit].splitlines() if line.startswith("Environment=")]
        pairs = (line.removeprefix("Environment=").partition("=") for line in lines)
        return {name: value for name, _, value in pairs} | {
            "PATH": "/usr/bin:/bin",
            "HOME": f"{self.base}/ledger",
        }

    def start(self, unit):
        for before in self.command(unit, "ExecStartPre"):
            subprocess.run([*as_the_unit(), *before], check=True, timeout=COMMAND_S, umask=0o077)
        (command,) = self.command(unit)
        log = (self.base / f"{unit}.log").open("wb")
        with log:
            self.processes.append(
                subprocess.Popen(
                    [*as_the_unit(), *command],
                    env=self.environment(unit),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    umask=0o077,
                    cwd="/",
                )
            )

    def check(self, **more):
        """The command of forebay-serve.service, with --check."""
        (command,) = self.command("forebay-serve.service")
        done = subprocess.run(
            [*as_the_unit(), *command, "--check"],
            env=self.environment("forebay-serve.service") | more,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            umask=0o077,
            cwd="/",
            check=False,
        )
        self.said += (done.stdout + done.stderr).encode()
        return done

    def pids(self):
        """Our processes: their Ray session is below our folder, or they were started here."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if os.fsencode(self.base) in command + (folder / "environ").read_bytes():
                    found[int(folder.name)] = command
        return found

    def close(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        shutil.rmtree(self.base)


@pytest.fixture(scope="module")
def running():
    one = Units()
    try:
        one.start("forebay-ray-head.service")
        one.start("forebay-ray-worker@.service")
        yield one
    finally:
        one.close()


def test_the_service_of_the_unit_finds_both_movers(running):
    deadline = time.monotonic() + WAIT_S
    while (done := running.check()).returncode != 0:  # as Restart= does
        assert done.returncode == 1, done.stderr
        logs = [path.read_text()[-1500:] for path in running.base.glob("*.log")]
        assert time.monotonic() < deadline, (done.stderr, *logs)
        assert all(process.poll() is None for process in running.processes), logs
        time.sleep(0.5)
    assert re.fullmatch(r"(m[12]: .*: good\n){2}", done.stdout), done.stdout


def test_they_run_as_the_user_with_one_capability(running):
    if not as_the_unit():
        pytest.skip("needs root and setpriv")
    (raylet, *_) = [pid for pid, command in running.pids().items() if b"/raylet\0" in command]
    status = Path(f"/proc/{raylet}/status").read_text()
    assert re.search(rf"^Uid:\s+{NOBODY}\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0000000000000004$", status, re.MULTILINE)


def test_nobody_gets_in_with_another_token(running):
    deadline = time.monotonic() + END_S
    while running.check().returncode != 0:  # both movers are there, and have read their token
        assert time.monotonic() < deadline
    kept = running.token_file.read_text()
    running.token_file.write_text("0" * 32)
    try:
        done = running.check()
    finally:
        running.token_file.write_text(kept)
    assert done.returncode == 1
    assert "refuses the token" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def answer(url, token="", data=None):
    """Return the status of an answer; whoever is asked may still be starting."""
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=COMMAND_S) as answered:
                return answered.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except urllib.error.URLError:
            assert time.monotonic() < deadline, url
            time.sleep(0.2)


@pytest.mark.parametrize("path", ["/api/jobs/", "/api/prometheus/sd"])
def test_the_dashboard_asks_for_the_token(running, path):
    url = f"http://127.0.0.1:{running.dashboard}{path}"
    assert answer(url) == 401
    assert answer(url, running.token) == 200


def test_prometheus_finds_the_nodes_through_the_dashboard(running, tmp_path):
    try:
        _, promtool = programs()
    except (ForebayError, OSError) as error:
        pytest.skip(f"Prometheus cannot be had: {error}")
    configuration, _ = write_prometheus(tmp_path, ray=load(running.config).ray)
    ports = {first + 5 for first in running.blocks.values()}

    def discovered(token):
        (tmp_path / TOKEN_FILE).write_text(token)
        done = subprocess.run(
            [promtool, "check", "service-discovery", "--timeout=5s", configuration, "ray"],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        found = re.findall(r'"__address__": "([^"]+):(\d+)"', done.stdout)
        return {int(port) for _, port in found}, done.stdout + done.stderr

    deadline = time.monotonic() + WAIT_S
    while not ports <= (found := discovered(running.token))[0]:
        assert time.monotonic() < deadline, found
    assert discovered("0" * 32)[0] == set()


def test_so_do_the_agents_of_the_nodes(running):
    """A job started here would run as the unit's user."""
    for block in running.blocks.values():
        url = f"http://127.0.0.1:{block + 2}/api/job_agent/jobs/"
        assert answer(url, data=b'{"entrypoint": "true"}') == 401


def test_the_token_is_in_no_command_line_no_log_and_no_answer(running):
    token = running.token.encode()
    commands = running.pids()
    assert len(commands) > 8
    assert not [command for command in commands.values() if token in command]
    assert token not in running.said
    read = 0
    for path in [
        *running.base.rglob("*.log"),
        *running.base.rglob("*.out"),
        *running.base.rglob("*.err"),
    ]:
        if path.is_file():
            read += 1
            assert token not in path.read_bytes(), path
    assert read > 10


def test_what_ray_and_the_service_leave_on_disk_is_for_their_user_alone(running):
    """Ray opens its own folder to all: what is above it must not."""
    for name in ("state", "ledger"):
        assert not (running.base / name).lstat().st_mode & 0o077, name
    gcs = [path for path in (running.base / "ledger" / "ray-gcs").rglob("*") if path.is_file()]
    assert gcs
    assert not [path for path in gcs if path.stat().st_mode & 0o077]
