"""The private Bacula of one benchmark: start, stop, run a stock job, read catalog and CPU times.

Covers: what the backup benchmark needs of the daemons, through `forebay lab` and the catalog.
Does not cover: `forebay backup` itself, which the benchmark runs as a user would.
"""

import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.job_clock import JobClock
from benchmarks.runner import CHECKOUT, PROCESS_TIMEOUT_S, BenchmarkFailed, run_process

FOREBAY = CHECKOUT / ".venv" / "bin" / "forebay"
COMMAND_TIMEOUT_S = 900.0  # the first start fetches Bacula
GOOD_ENDS = ("T", "W")
WARM_READ_BYTES = 1 << 20
# The daemons, and the keys of their CPU time in figures().
DAEMONS = {"file": "client_us", "storage": "sd_us", "director": "dir_us"}


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs that ended since a JobId, as the catalog has them; Bacula keeps whole seconds."""

    files: int
    data_bytes: int
    seconds: float
    count: int


class PrivateBacula:
    """A Bacula in a home of its own; use it as a context manager."""

    def __init__(self, home: Path) -> None:
        if not FOREBAY.exists():
            raise BenchmarkFailed(f"{FOREBAY} is missing; make the environment first")
        self.environment = {"FOREBAY_HOME": str(home)}

    def __enter__(self) -> "PrivateBacula":
        try:
            self._forebay("up")
        except BaseException:  # what did come up must not outlive the benchmark
            self._forebay("down")
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._forebay("down")

    def status(self) -> dict[str, Any]:
        """Return what `forebay lab status --json` says."""
        return json.loads(self._forebay("status", "--json"))

    def add_plain_job(self, name: str, directory: Path) -> str:
        """Define a job that saves `directory` with the stock File Daemon; return its name."""
        # Imported here: listing the benchmarks needs no product.
        from bacula_bridge.lab import Lab
        from bacula_bridge.programs import ensure

        return Lab(Path(self.status()["base"]), ensure()).set_plain_job(name, str(directory))

    def run_plain_job(self, name: str, console: Sequence[str]) -> None:
        """Run a job by the console and wait for its end; the catalog tells how it ended."""
        commands = f"run job={name} level=Full yes\nwait\nquit\n"
        self._run(console, commands, PROCESS_TIMEOUT_S)

    def backup(
        self, root: Path, name: str, shards: int, level: str = "incremental"
    ) -> dict[str, Any]:
        """Run `forebay backup` and return what it says of itself."""
        options = ["--name", name, "--shards", str(shards), "--level", level, "--json", "-q"]
        measured = run_process(
            [FOREBAY, "backup", root, *options],
            capture=True,
            environment=self.environment,
        )
        return json.loads(measured.output)

    def clock(self) -> JobClock:
        """Return a clock for the jobs that come from now on."""
        status = self.status()
        return JobClock(Path(status["catalog"]), Path(status["volumes"]), self.last_jobid())

    def figures(self, action: Callable[[], object], files: int) -> dict[str, float]:
        """Run what runs jobs; return their figures. They must have saved `files` names."""
        jobid, before = self.last_jobid(), self.cpu_seconds()
        started = time.perf_counter()
        with self.clock() as clock:
            action()
        wall_s = time.perf_counter() - started
        jobs, after = self.jobs_after(jobid), self.cpu_seconds()
        if jobs.files != files:
            raise BenchmarkFailed(f"{jobs.count} jobs saved {jobs.files:,} of {files:,} files")
        return {
            "wall_s": wall_s,
            "jobs_s": clock.seconds,
            "files_per_s": files / clock.seconds,
            "mib_per_s": jobs.data_bytes / clock.seconds / 2**20,
            **{key: spent(before, after, daemon) * 1e6 / files for daemon, key in DAEMONS.items()},
        }

    def last_jobid(self) -> int:
        """Return the greatest JobId of the catalog."""
        return self._query("SELECT coalesce(max(JobId), 0) FROM Job")[0][0]

    def jobs_after(self, jobid: int) -> Jobs:
        """Return what ran after `jobid`; anything but a good end is an error."""
        rows = self._query(
            "SELECT JobId, JobStatus, StartTime, EndTime, JobFiles, JobBytes, JobErrors"
            f" FROM Job WHERE JobId > {jobid:d} AND Type = 'B'"
        )
        for number, status, *_, errors in rows:
            if status not in GOOD_ENDS or errors:
                raise BenchmarkFailed(f"job {number} ended with status {status}, {errors} errors")
        if not rows:
            raise BenchmarkFailed("no job is in the catalog")
        starts, ends = ([datetime.fromisoformat(row[part]) for row in rows] for part in (2, 3))
        seconds = (max(ends) - min(starts)).total_seconds()
        return Jobs(sum(r[4] for r in rows), sum(r[5] for r in rows), seconds, len(rows))

    def cpu_seconds(self) -> dict[str, dict[int, float]]:
        """Return user and system time so far of each daemon, by its name and process id."""
        pids = self.status()["pids"]
        return {name: {pid: cpu_seconds_of(pid)} for name, pid in pids.items() if pid}

    def _query(self, statement: str) -> list[tuple]:
        catalog = sqlite3.connect(f"file:{self.status()['catalog']}?mode=ro", uri=True)
        try:
            return catalog.execute(statement).fetchall()
        finally:
            catalog.close()

    def _forebay(self, *arguments: str) -> str:
        return self._run([str(FOREBAY), "lab", *arguments], "", COMMAND_TIMEOUT_S)

    def _run(self, argv: Sequence[str], stdin: str, timeout_s: float) -> str:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            cwd=CHECKOUT,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise BenchmarkFailed(f"`{' '.join(argv)}` ended with {done.returncode}: {said}")
        return done.stdout


def spent(
    before: dict[str, dict[int, float]], after: dict[str, dict[int, float]], daemon: str
) -> float:
    """Return the CPU seconds a daemon used in between; one that was started anew counts from 0."""
    known = before.get(daemon, {})
    return sum(value - known.get(pid, 0.0) for pid, value in after.get(daemon, {}).items())


def cpu_seconds_of(pid: int) -> float:
    """Return utime + stime of all threads of a process, from /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def warm(root: Path) -> None:
    """Read every file once and flush everything that is dirty.

    The stock File Daemon drops each file that it read from the page cache; without this, whoever
    comes after it would read from the disk.
    """
    os.sync()
    for folder, _, files in os.walk(root):
        for name in files:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
            while os.read(descriptor, WARM_READ_BYTES):
                pass
            os.close(descriptor)
