"""A whole site on this machine: three movers in a Ray cluster, Bacula's daemons, the service.

Covers: setting it up from a configuration file, running jobs as a schedule or bconsole would,
waiting for runs, stopping a mover's File Daemon in the middle of a stream. With hosts, movers have
networks of their own: commands run on the first one, and whoever uses this is on the hub.
Does not cover: the parts (ray_nodes, ray_hosts, site_lab, net_hosts).
"""

import json
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bacula_bridge.catalog import Catalog, JobRow
from bacula_bridge.render import dataset_config, job_name
from cluster.records import RunRecord, list_runs
from cluster.settings import Settings
from cluster.site_config import load
from tests.support.net_hosts import NetHosts, within
from tests.support.open_gate import OpenGate
from tests.support.ray_hosts import RayHosts
from tests.support.ray_nodes import RayNodes
from tests.support.site_lab import SiteLab

MOVERS = ["m1", "m2", "m3"]
SHARDS = 6
WAIT_S = 120.0
COMMAND_S = 180.0
BIG_FILES = 48  # all shards have some
BIG_BYTES = 1 << 20
FOREBAY = Path(sys.executable).with_name("forebay")


def await_true(
    condition: Callable[[], bool], what: Callable[[], object] = str, poll_s: float = 0.1
) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(poll_s)


class SiteService:
    """The site; close() ends all of it."""

    def __init__(
        self,
        movers: list[str] = MOVERS,
        with_jobs: bool = True,
        hosts: NetHosts | None = None,
        **environment: str,
    ) -> None:
        """with_jobs: the Director has the dataset's jobs, without hooks, and there is a file."""
        self.movers = movers
        self.hosts = hosts
        # Unix sockets have room for 107 bytes: pytest's own folders are too deep.
        self.base = Path(tempfile.mkdtemp(prefix="fbs-"))
        self.root = self.base / "tree"
        self.root.mkdir()
        self.token = secrets.token_hex(16)
        self.token_file = self.base / "token"
        self.token_file.touch(0o600)
        self.token_file.write_text(self.token)
        self.config = self.base / "forebay.toml"
        self._serving: subprocess.Popen | None = None
        self.lab: SiteLab | None = None
        self._prefix = hosts.others[movers[0]].prefix if hosts else []
        if hosts:
            self.nodes = RayHosts(self.base, self.token, hosts, **environment)
        else:
            self.nodes = RayNodes(self.base, self.token, movers, **environment)
        try:
            self.lab = SiteLab(self.base / "site", movers, SHARDS + 2, hosts)
            if with_jobs:
                self.write_config()
                self.lab.set_resources("data", self._jobs())
        except BaseException:
            self.close()
            raise

    def write_config(self, **changes: object) -> None:
        about = {
            "state": self.base / "state",
            "address": self.nodes.address,
            "dashboard": self.nodes.dashboard,
            "token_file": self.token_file,
            "root": self.root,
            "shards": SHARDS,
        }
        self.config.write_text(self.lab.configuration(**(about | changes)))

    def _jobs(self) -> str:
        """The dataset's resources, shard k on the Client of mover k."""
        head, *jobs = dataset_config("data", SHARDS).split("\nJob {\n")
        clients = [f'  Client = "{MOVERS[k % len(MOVERS)]}-fd"\n' for k in range(SHARDS)]
        return head + "".join(
            f"\nJob {{\n{client}{job}" for client, job in zip(clients, jobs, strict=True)
        )

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
        return {**kept, "FOREBAY_CONFIG": str(self.config)}

    @property
    def settings(self) -> Settings:
        return Settings.of_site(load(self.config))

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.lab.lab.catalog)

    def forebay(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        """Run a command as a user would; it ends with this exit code."""
        done = self.run(*arguments)
        assert done.returncode == code, (done.args, done.stdout, done.stderr)
        return done

    def run(self, *arguments: object) -> subprocess.CompletedProcess:
        """Run a command, whatever comes of it."""
        return subprocess.run(
            [*self._prefix, FOREBAY, *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def status(self) -> dict:
        return json.loads(self.forebay("status", "--json").stdout)

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen]:
        """`forebay serve` in the foreground while the block runs; the service stays."""
        log = self.base / "serve.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*self._prefix, FOREBAY, "serve"],
                env=self.environment,
                stdout=stream,
                stderr=stream,
            )
        try:
            await_true(lambda: b"serving" in log.read_bytes(), log.read_text)
            yield process
        finally:
            (within(process) if self._prefix else process).terminate()
            assert process.wait(WAIT_S) == 0, log.read_text()

    # Jobs and runs

    def run_jobs(self, level: str, shards: list[int] | None = None, **options: str) -> list[int]:
        """Start jobs as bconsole does; return their JobIds."""
        more = "".join(f" {name}={value}" for name, value in options.items())
        names = [job_name("data", k) for k in (range(SHARDS) if shards is None else shards)]
        answer = self.lab.lab.console(
            "".join(f"run job={name} level={level}{more} yes\n" for name in names)
        )
        jobids = [int(jobid) for jobid in re.findall(r"JobId=(\d+)", answer)]
        assert len(jobids) == len(names), answer
        return jobids

    def ended(self, jobids: list[int]) -> list[JobRow]:
        """Wait for the jobs' ends; return their rows in the same order."""

        def rows() -> dict[int, JobRow]:
            return self.catalog.jobs(jobids)

        await_true(
            lambda: len(rows()) == len(jobids) and all(row.ended for row in rows().values()),
            lambda: (rows(), self.forebay("status").stdout),
        )
        return [rows()[jobid] for jobid in jobids]

    def log(self, jobid: int) -> str:
        return "\n".join(line.text for line in self.catalog.log(jobid))

    def runs(self) -> list[RunRecord]:
        return list_runs(self.settings)

    def closed(self) -> RunRecord:
        """Wait until no run is open; return the newest one."""
        await_true(
            lambda: all(r.run.state.value != "open" for r in self.runs()), lambda: self.status()
        )
        return self.runs()[0]

    def backup(self, level: str) -> RunRecord:
        jobids = self.run_jobs(level)
        rows = self.ended(jobids)
        assert {row.outcome for row in rows} == {"T"}, [self.log(jobid) for jobid in jobids]
        return self.closed()

    def fill(self) -> None:
        """Let the tree have names of all kinds of shards, and data that takes its time."""
        for number in range(60):
            (self.root / f"d{number % 7}").mkdir(exist_ok=True)
            (self.root / f"d{number % 7}" / f"f{number}").write_bytes(b"x" * number)
        for number in range(BIG_FILES):
            (self.root / f"big{number}").write_bytes(os.urandom(BIG_BYTES))

    def streaming(self) -> list[int]:
        """The shards that stream at this moment."""
        ledger = self.settings.state.ledger.as_uri() + "?mode=ro"
        with closing(sqlite3.connect(ledger, uri=True)) as database:
            rows = database.execute("SELECT shard FROM jobs WHERE state = 'streaming'")
            return sorted(shard for (shard,) in rows)

    @contextmanager
    def held(self, level: str = "Full") -> Iterator[list[int]]:
        """Run jobs, and hold all streams in their middle by files that cannot be opened."""
        with OpenGate(self.root.glob("big*")) as gate:
            jobids = self.run_jobs(level)
            await_true(lambda: len(self.streaming()) == SHARDS and gate.waiting > 0, self.status)
            yield jobids

    def actor_pid(self, kind: str) -> int:
        (pid,) = self.actor_pids(kind)
        return pid

    def actor_pids(self, kind: str) -> list[int]:
        """The processes of actors of ours: their Ray session is below our folder."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if (
                command.startswith(f"ray::{kind}".encode())
                and os.fsencode(self.base) in environment
            ):
                found.append(int(folder.name))
        return found

    def close(self) -> None:
        if self.lab is not None:
            self.lab.close()
        self.nodes.__exit__()
        shutil.rmtree(self.base)
