"""An archive on a real S3 server, by the command line: kills, damage, wrong keys, no network."""

import json
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing
from dataclasses import dataclass

import boto3
import pytest
from moto.server import ThreadedMotoServer

import cluster.archive.store
from cluster.archive.errors import ArchiveUnavailable
from cluster.archive.importing import import_runs
from cluster.archive.index import indexes, run_folder
from cluster.archive.retention import prune_archive
from cluster.archive.saving import archive_run
from cluster.archive.store import ArchiveStore
from cluster.cli import main
from shards.ledger_home import open_ledger
from tests.support.archive_site import (
    RUNS,
    aged,
    archived,
    check_same,
    empty_state,
    identity,
    make_home,
)

COMMAND_TIMEOUT_S = 60.0
BUCKET = "backups"
URL = f"s3://{BUCKET}/site"
KEYS = {"aws_access_key_id": "test-access-key", "aws_secret_access_key": "test-secret-key"}
POLICY = {"Effect": "Allow", "Action": "*", "Resource": "*"}


@dataclass
class Server:
    """A server on a free port, with one bucket that each test finds empty."""

    endpoint: str

    def client(self, service="s3"):
        return boto3.client(service, endpoint_url=self.endpoint, region_name="us-east-1", **KEYS)

    def empty(self):
        client = self.client()
        for row in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=row["Key"])

    def names(self):
        rows = self.client().list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return sorted(row["Key"] for row in rows)

    def options(self, key="test-access-key", secret="test-secret-key", endpoint=None):
        return {"key": key, "secret": secret, "endpoint_url": endpoint or self.endpoint}

    def check_keys(self, after):
        """Let the server check keys after so many calls."""
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth",
            data=str(after).encode(),
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(request, timeout=COMMAND_TIMEOUT_S).close()


@pytest.fixture(scope="module")
def s3():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    made = Server(f"http://{host}:{port}")
    made.client().create_bucket(Bucket=BUCKET)
    yield made
    server.stop()


@pytest.fixture
def server(s3):
    s3.empty()
    yield s3
    s3.check_keys(math.inf)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("origin"))


@pytest.fixture
def home(origin, tmp_path):
    shutil.copytree(origin.base, tmp_path / "home" / "state")
    return tmp_path / "home"


@pytest.fixture
def options_file(server, tmp_path):
    return write_options(tmp_path / "options.json", server.options())


def write_options(path, options):
    path.write_text(json.dumps(options, indent=2))
    path.chmod(0o600)
    return path


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def forebay(monkeypatch, capsys):
    """Run a command of `forebay state`, in this process: starting another one takes seconds."""

    def run(home, *arguments):
        monkeypatch.setenv("FOREBAY_HOME", str(home))
        monkeypatch.setattr(sys, "argv", ["forebay", "state", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return Done(left.value.code or 0, out, err)

    return run


def killed(home, count, what, *arguments):
    """Run a command in a process that kills itself at the count-th call of what."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_state", str(count), what, "state"]
        + [str(argument) for argument in arguments],
        env={**os.environ, "FOREBAY_HOME": str(home)},
        capture_output=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    assert done.returncode == -signal.SIGKILL


def in_s3(options_file):
    return "--url", URL, "--options-file", options_file


def test_from_one_home_to_another_by_the_command_line(
    forebay, home, server, options_file, tmp_path
):
    done = forebay(home, "archive", "--all", "--json", *in_s3(options_file))
    assert done.returncode == 0, done.stderr
    assert [run["run"] for run in json.loads(done.stdout)["runs"]] == RUNS
    new = tmp_path / "new"
    done = forebay(new, "import", "--all", *in_s3(options_file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 runs here")
    check_same(empty_state(home), empty_state(new))
    listed = json.loads(forebay(new, "list", "--json", *in_s3(options_file)).stdout)
    assert [run["run"] for run in listed["runs"]] == RUNS
    assert all(run["local_bytes"] and run["archived_bytes"] for run in listed["runs"])
    done = forebay(new, "prune", "--keep-days", 1, *in_s3(options_file))
    assert done.stdout.startswith("nothing to prune; 3 runs")


@pytest.mark.parametrize(("count", "what"), [(1, "upload"), (3, "upload"), (2, "write")])
def test_an_archive_that_is_killed_is_gone_on_with(
    forebay, home, server, options_file, tmp_path, count, what
):
    killed(home, count, what, "archive", "--all", *in_s3(options_file))
    store = ArchiveStore(URL, server.options())
    state = empty_state(home)
    whole = [index.head.run for index in indexes(store, identity(state))]
    assert whole == RUNS[: len(whole)]
    assert len(whole) < len(RUNS)
    there = set(server.names())
    done = forebay(home, "archive", "--all", "--json", *in_s3(options_file))
    assert done.returncode == 0, done.stderr
    assert there <= set(server.names())
    copied = sum(run["copied"] for run in json.loads(done.stdout)["runs"])
    files = [key for key in server.names() if "/segments/" in key or "/receipts/" in key]
    assert copied == len(files) - len([key for key in there if key in files])
    import_runs(empty_state(tmp_path / "new"), store)
    check_same(state, empty_state(tmp_path / "new"))


@pytest.mark.parametrize("count", [1, 3])
def test_an_import_that_is_killed_is_gone_on_with(
    forebay, home, server, options_file, tmp_path, count
):
    archived(empty_state(home), URL, server.options())
    new = tmp_path / "new"
    killed(new, count, "sums", "import", "--all", *in_s3(options_file))
    done = forebay(new, "import", "--all", *in_s3(options_file))
    assert done.returncode == 0, done.stderr
    check_same(empty_state(home), empty_state(new))


def test_damaged_and_missing_objects_are_named_and_the_rest_comes(
    forebay, home, server, options_file, tmp_path
):
    state = empty_state(home)
    archived(state, URL, server.options())
    damaged = next(key for key in server.names() if f"{2:010d}/receipts" in key)
    missing = next(key for key in server.names() if f"{3:010d}/segments" in key)
    client = server.client()
    body = client.get_object(Bucket=BUCKET, Key=damaged)["Body"].read()
    client.put_object(Bucket=BUCKET, Key=damaged, Body=body[:-1] + b"?")
    client.delete_object(Bucket=BUCKET, Key=missing)
    done = forebay(tmp_path / "new", "import", "--all", "--json", *in_s3(options_file))
    assert done.returncode == 1
    failed = {each["run"]: each["error"] for each in json.loads(done.stdout)["failed"]}
    assert "damaged" in failed[2]
    assert damaged.removeprefix("site/") in failed[2]
    assert "missing" in failed[3]
    assert missing.removeprefix("site/") in failed[3]
    check_same(state, empty_state(tmp_path / "new"), [1])
    done = forebay(home, "archive", "2", "3", "--verify", "--json", *in_s3(options_file))
    assert [run["copied"] for run in json.loads(done.stdout)["runs"]] == [1, 1]
    assert forebay(tmp_path / "new", "import", "--all", *in_s3(options_file)).returncode == 0
    check_same(state, empty_state(tmp_path / "new"))


def refused(done, *told):
    """Check that a command failed with one sentence, and repeats no key."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("forebay: the archive s3://")
    for text in told:
        assert text in line
    assert "test-secret-key" not in line
    assert "test-access-key" not in line


def test_a_missing_bucket_is_named(forebay, home, server, options_file):
    for arguments in (("archive", "--all"), ("import", "--all"), ("list",)):
        done = forebay(home, *arguments, "--url", "s3://nowhere", "--options-file", options_file)
        refused(done, "s3://nowhere", "bucket does not exist")


def test_wrong_keys_are_named_and_not_repeated(forebay, home, server, tmp_path):
    iam = server.client("iam")
    iam.create_user(UserName="forebay")
    iam.put_user_policy(
        UserName="forebay",
        PolicyName="all",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [POLICY]}),
    )
    made = iam.create_access_key(UserName="forebay")["AccessKey"]
    server.check_keys(0)
    right = server.options(made["AccessKeyId"], made["SecretAccessKey"])
    good = write_options(tmp_path / "good.json", right)
    assert forebay(home, "archive", "1", *in_s3(good)).returncode == 0
    for options, told in (
        (server.options(), "does not exist in our records"),
        (right | {"secret": "test-secret-key"}, "signature"),
    ):
        wrong = write_options(tmp_path / "wrong.json", options)
        refused(forebay(home, "list", *in_s3(wrong)), "keys", told)
    assert forebay(home, "list", *in_s3(good)).returncode == 0


def test_a_network_that_is_down_is_named(forebay, home, server, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else gets it
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        down = write_options(tmp_path / "down.json", server.options(endpoint=endpoint))
        refused(forebay(home, "archive", "--all", *in_s3(down)), "network", "endpoint")


def test_an_options_file_that_others_may_read_is_refused(forebay, home, server, options_file):
    options_file.chmod(0o640)
    done = forebay(home, "list", *in_s3(options_file))
    assert done.returncode == 1
    assert "0640 lets others in" in done.stderr
    options_file.chmod(0o600)
    options_file.write_text('{"secret": "test-secret-key"')
    done = forebay(home, "list", *in_s3(options_file))
    assert "one JSON object" in done.stderr
    assert "test-secret-key" not in done.stderr


def test_large_objects_go_in_parts_and_a_broken_upload_leaves_nothing(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster.archive.store, "PART_BYTES", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(11 << 20))
    store = ArchiveStore(URL, server.options())
    store.upload(path, "large")
    with path.open("rb") as stream:
        assert store.sums("large") == cluster.archive.store.sums(stream)

    def broken():
        with store._telling(), store._writing("torn") as stream:
            stream.write(path.read_bytes()[: 6 << 20])
            raise OSError("it broke")

    with pytest.raises(ArchiveUnavailable, match="it broke"):
        broken()
    assert server.names() == ["site/large"]
    assert "Uploads" not in server.client().list_multipart_uploads(Bucket=BUCKET)


def test_pruning_removes_the_objects(home, server):
    state = empty_state(home)
    with closing(open_ledger(state)) as ledger, ledger.transaction() as db:
        db.execute("UPDATE jobs SET chain = '[]' WHERE run = 3")
    store = archived(state, URL, server.options())
    for run in RUNS:
        aged(store, state, run, 50)
    plan = prune_archive(store, identity(state), [], 1, apply=True)
    assert [item.run for item in plan.items] == [1, 2]
    assert all(run_folder(identity(state), 3) in name for name in server.names())
    assert [index.head.run for index in indexes(store, identity(state))] == [3]


def test_an_index_that_is_gone_is_written_again_without_copies(home, server):
    state = empty_state(home)
    store = archived(state, URL, server.options())
    store.remove(f"{run_folder(identity(state), 1)}/index.json")
    assert archive_run(state, store, 1).copied == 0
    assert [index.head.run for index in indexes(store, identity(state))] == RUNS
