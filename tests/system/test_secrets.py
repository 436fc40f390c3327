"""No secret of a site is in a command line, an answer, an error or a log.

Covers: every command of a site with marked secrets, where everything that they ask for is down or
answers with what it was sent; files that are damaged or readable by others.
Does not cover: a running service (test_units.py, test_site.py), the volumes' contents.
"""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from bacula_bridge.processes import free_ports

pytestmark = pytest.mark.timeout(240)

FOREBAY = Path(sys.executable).with_name("forebay")
COMMAND_S = 90.0
LOOK_S = 0.01
MARK = "MARK3Dsecret"
COMMANDS = [
    *("config check", "config show", "config show --json", "serve", "serve --check", "stop"),
    *(
        "status --json",
        "bacula config",
        "bacula check",
        "bacula check --json",
        "dashboards install",
    ),
    *("runs", "runs --json", "show 1", "verify 1", "prune", "top --once", "state list"),
    *("state archive --all", "restore latest --to /nowhere", "doctor --json", "init --out -"),
    *("hook before --jobid 1 --job a", "hook after --jobid 1 --job a --status T", "man"),
]


class Echo(BaseHTTPRequestHandler):
    """The worst of servers: its errors have in them what it was sent."""

    def answer(self):
        body = json.dumps({"message": f"no: {self.headers}", "error": str(self.headers)}).encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def echo():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Secrets:
    """A configuration whose secrets all begin with the mark."""

    def __init__(self, folder, echo):
        self.folder = folder
        self.files = {
            "token_file": self.secret("ray.token", f"{MARK}-ray"),
            "password_file": self.secret("catalog.password", f"{MARK}-catalog"),
            "options_file": self.secret(
                "archive.json", json.dumps({"key": f"{MARK}-key", "secret": f"{MARK}-archive"})
            ),
            "grafana_file": self.secret("grafana.token", f"{MARK}-grafana"),
        }
        console = self.secret("bconsole.conf", f'Director {{ Name=d; Password="{MARK}-console" }}')
        program = folder / "bconsole"
        program.write_text("#!/bin/sh\necho cannot connect to the Director >&2\nexit 1\n")
        program.chmod(0o755)
        postgres, ray = free_ports(2)
        self.config = folder / "forebay.toml"
        self.config.write_text(f"""\
state = "{folder}/state"
runtime = "{folder}/run"
[coordinator]
ledger = "{folder}/ledger"
[ray]
address = "127.0.0.1:{ray}"
dashboard = "{echo}"
token_file = "{self.files["token_file"]}"
[bacula]
catalog = "postgresql://forebay@127.0.0.1:{postgres}/bacula"
catalog_password_file = "{self.files["password_file"]}"
bconsole = "{program}"
bconsole_config = "{console}"
[archive]
url = "s3://bucket/forebay"
options_file = "{self.files["options_file"]}"
[grafana]
url = "{echo}"
token_file = "{self.files["grafana_file"]}"
[[mover]]
name = "m1"
client = "m1-fd"
[[dataset]]
name = "data"
root = "{folder}"
shards = 2
""")

    def secret(self, name, text):
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)
        return path

    def run(self, command, **more):
        """Run a command; return all that it said, and all command lines while it ran."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        home = {"HOME": str(self.folder), "FOREBAY_CONFIG": str(self.config)}
        process = subprocess.Popen(
            [FOREBAY, *command.split()],
            env=kept | home | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        lines = set()
        ended = threading.Event()

        def look():
            while not ended.wait(LOOK_S):
                with suppress(psutil.Error):
                    one = psutil.Process(process.pid)
                    for each in [one, *one.children(recursive=True)]:
                        with suppress(psutil.Error):
                            lines.add(" ".join(each.cmdline()))

        looker = threading.Thread(target=look)
        looker.start()
        try:
            said, _ = process.communicate(timeout=COMMAND_S)
        finally:
            process.kill()
            process.wait()
            ended.set()
            looker.join()
        return process.returncode, said.decode(errors="replace"), lines


@pytest.fixture(scope="module")
def secrets(tmp_path_factory, echo):
    return Secrets(tmp_path_factory.mktemp("secrets"), echo)


def test_no_command_says_a_secret(secrets):
    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(COMMANDS, pool.map(secrets.run, COMMANDS), strict=True))
    for command, (_, said, lines) in done.items():
        assert "Traceback" not in said, (command, said)
        assert MARK not in said, (command, said)
        assert not [line for line in lines if MARK in line], command
        assert said.strip() or command.startswith("hook after"), command
    assert sum(len(lines) for _, _, lines in done.values()) >= len(COMMANDS)
    # They came as far as a secret is used: to who is asked with it.
    assert done["config check"][0] == 0
    assert "cannot be asked" in done["bacula check"][1]
    assert done["dashboards install"][0] == done["serve"][0] == 1
    assert done["hook before --jobid 1 --job a"][0] == 1


def test_nothing_that_they_leave_behind_has_one(secrets):
    kept = {*secrets.files.values(), secrets.folder / "bconsole.conf"}
    for path in secrets.folder.rglob("*"):
        if path.is_file() and path not in kept:
            assert MARK.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("name", ["token_file", "password_file", "options_file", "grafana_file"])
def test_a_file_that_others_may_read_is_refused_without_what_is_in_it(secrets, name):
    path = secrets.files[name]
    path.chmod(0o644)
    try:
        code, said, _ = secrets.run("config check")
    finally:
        path.chmod(0o600)
    assert code == 1
    assert f"{path}: its mode 0644 lets others in" in said
    assert MARK not in said


@pytest.mark.parametrize("command", ["config check", "state archive --all"])
def test_damaged_options_are_not_shown(secrets, command):
    path = secrets.files["options_file"]
    before = path.read_text()
    path.write_text(f'{{"key": {MARK}')
    try:
        _, said, _ = secrets.run(command)
    finally:
        path.write_text(before)
    assert MARK not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "line",
    [
        f'password = "{MARK}"',
        f'catalog = "postgresql://u:{MARK}@h/d"',
        f'catalog = "postgresql://u@h/d?password={MARK}"',
        f'catalog = "{MARK}',
    ],
)
def test_a_secret_in_the_configuration_is_refused_and_not_repeated(secrets, line, tmp_path):
    path = tmp_path / "f.toml"
    text = secrets.config.read_text()
    key = line.partition(" =")[0]
    lines = [each for each in text.splitlines() if not each.startswith(f"{key} = ")]
    place = lines.index("[bacula]") + 1
    path.write_text("\n".join([*lines[:place], line, *lines[place:]]))
    for command in ("config check", "config show"):
        code, said, _ = secrets.run(command, FOREBAY_CONFIG=str(path))
        assert code == 2
        assert MARK not in said
