"""One installation for the system tests: the real command line, Ray and Bacula."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FOREBAY = Path(sys.executable).with_name("forebay")
COMMAND_TIMEOUT_S = 300.0


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@dataclass
class Installation:
    """A FOREBAY_HOME of its own."""

    home: Path
    prefix: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments, stdin=subprocess.DEVNULL):
        return subprocess.Popen(
            [*self.prefix, str(FOREBAY), *map(str, arguments)],
            env={**os.environ, **self.environment, "FOREBAY_HOME": str(self.home)},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments, stdin=None):
        process = self.start(*arguments, stdin=subprocess.PIPE)
        out, err = process.communicate(stdin, timeout=COMMAND_TIMEOUT_S)
        return Done(process.returncode, out, err)

    def ok(self, *arguments, stdin=None):
        done = self.run(*arguments, stdin=stdin)
        assert done.code == 0, f"{arguments}: {done}"
        return done

    def backup(self, source, *arguments, code=0):
        done = self.run("backup", source, "--json", "-q", *arguments)
        assert done.code == code, done
        return done.json

    def console(self, commands):
        return self.ok("lab", "console", stdin=commands).out

    @property
    def lab(self):
        return self.ok("lab", "status", "--json").json

    def query(self, sql, parameters=()):
        """Ask the catalog."""
        path = self.home / "lab" / "work" / "director" / "bacula.db"
        if not path.exists():
            path = Path(self.lab["catalog"])
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as database:
            database.text_factory = bytes
            return database.execute(sql, parameters).fetchall()

    def job_log(self, jobid):
        rows = self.query("SELECT LogText FROM Log WHERE JobId = ? ORDER BY LogId", (jobid,))
        return b"".join(text for (text,) in rows).decode("utf-8", "surrogateescape")

    def wait_job(self, jobid, timeout_s=120.0):
        """Return the status letter of a job that was started by hand."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            rows = self.query("SELECT JobStatus FROM Job WHERE JobId = ?", (jobid,))
            if rows and rows[0][0].decode() in "TWEefAID":
                return rows[0][0].decode()
            time.sleep(0.1)
        raise AssertionError(f"JobId {jobid} did not end")

    def wait(self, condition, timeout_s=120.0):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.01)
        raise AssertionError("the condition did not come true")


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """An installation whose lab is up for the whole module."""
    home = tmp_path_factory.mktemp("forebay")
    installation = Installation(home)
    installation.ok("lab", "up", "--drives", "8", "-q")
    yield installation
    installation.ok("lab", "down")
    shutil.rmtree(home)


@pytest.fixture
def bare(tmp_path):
    """An installation where nothing runs yet."""
    installation = Installation(tmp_path / "home")
    yield installation
    if (tmp_path / "home" / "lab").exists():
        installation.ok("lab", "down")
