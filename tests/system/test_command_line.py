"""What a user may type wrongly is one sentence, an exit code, and nothing left behind."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.conftest import FOREBAY, Installation

HELP_SECONDS_MAX = 0.5


@pytest.fixture
def nowhere(tmp_path):
    return Installation(tmp_path / "home")


def one_sentence(done, code):
    assert done.code == code, done
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("forebay: ")
    return lines[0]


def usage(done):
    """Typer's own complaints: a box, exit code 2."""
    assert done.code == 2, done
    return done.err


def test_help_imports_neither_ray_nor_arrow():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(FOREBAY), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"ray", "pyarrow", "numpy", "cffi"}


def test_help_comes_at_once():
    times = []
    for _ in range(5):
        started = time.monotonic()
        subprocess.run([FOREBAY, "--help"], capture_output=True, check=True)
        times.append(time.monotonic() - started)
    assert min(times) < HELP_SECONDS_MAX


@pytest.mark.parametrize(
    "command", ["backup", "restore", "scan", "runs", "show", "doctor", "lab", "lab up"]
)
def test_every_command_has_help(nowhere, command):
    assert "Usage" in nowhere.ok(*command.split(), "--help").out


@pytest.mark.parametrize("command", ["backup", "scan"])
def test_a_directory_that_is_missing_or_none(nowhere, tmp_path, command):
    assert "does not exist" in one_sentence(nowhere.run(command, tmp_path / "no"), 2)
    (tmp_path / "file").touch()
    assert "not a directory" in one_sentence(nowhere.run(command, tmp_path / "file"), 2)
    assert not nowhere.home.exists()


def test_a_directory_that_cannot_be_read(tmp_path):
    prefix = []
    closed = tmp_path / "closed"
    closed.mkdir()
    if os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        os.chown(closed, 1234, 1234)
    closed.chmod(0)
    installation = Installation(tmp_path / "home", prefix=prefix)
    assert "Permission denied" in one_sentence(installation.run("backup", closed), 1)
    assert "Permission denied" in one_sentence(installation.run("scan", closed), 1)
    closed.chmod(0o700)


@pytest.mark.parametrize("shards", ["0", "-1", "x"])
def test_a_number_of_shards_that_cannot_be(nowhere, tmp_path, shards):
    assert "--shards" in usage(nowhere.run("backup", tmp_path, "--shards", shards))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threads", "0"], "use auto or 1 to 256"),
        (["--threads", "257"], "use auto or 1 to 256"),
        (["--threads", "many"], "use auto or 1 to 256"),
        (["--latency-target", "-1"], "0 to 2000 milliseconds"),
        (["--latency-target", "2001"], "0 to 2000 milliseconds"),
        (["--latency-target", "nan"], "0 to 2000 milliseconds"),
        (["--threads", "4", "--latency-target", "5"], "leave one of them out"),
    ],
)
@pytest.mark.parametrize("command", ["backup", "scan"])
def test_threads_and_latency_targets_that_cannot_be(nowhere, tmp_path, command, options, said):
    assert said in one_sentence(nowhere.run(command, tmp_path, *options), 2)


def test_a_scan_says_how_many_threads_it_took(nowhere, tmp_path):
    (tmp_path / "file").touch()
    for options, expected in (
        (["--threads", "3"], {3}),
        (["--threads", "auto", "--latency-target", "5"], set(range(1, 129))),
        ([], set(range(1, 129))),
    ):
        assert nowhere.ok("scan", tmp_path, "--json", *options).json["threads"] in expected


def test_too_many_shards(nowhere, tmp_path):
    assert "shards" in one_sentence(nowhere.run("backup", tmp_path, "--shards", "100000"), 2)


def test_a_dataset_name_that_bacula_could_not_hold(nowhere, tmp_path):
    assert "name" in one_sentence(nowhere.run("backup", tmp_path, "--name", 'a"b'), 2)


def test_unknown_datasets_and_runs(nowhere, tmp_path):
    assert "no dataset x" in one_sentence(nowhere.run("runs", "--name", "x"), 2)
    assert "no good run" in one_sentence(nowhere.run("show"), 2)
    assert "no run 7" in one_sentence(nowhere.run("show", "7"), 2)
    assert "seven is not a run" in one_sentence(nowhere.run("show", "seven"), 2)
    done = nowhere.run("restore", "7", "--to", tmp_path / "place")
    assert "no run 7" in one_sentence(done, 2)
    assert "no runs yet" in nowhere.ok("runs").out
    assert nowhere.ok("runs", "--json").json == {"runs": []}


def test_a_restore_says_where_to(nowhere, tmp_path):
    assert "--to DIR" in one_sentence(nowhere.run("restore"), 2)
    done = nowhere.run("restore", "--to", tmp_path / "x", "--in-place")
    assert "--to DIR" in one_sentence(done, 2)
    (tmp_path / "file").touch()
    done = nowhere.run("restore", "--to", tmp_path / "file")
    assert "not a directory" in one_sentence(done, 2)


def test_errors_are_json_where_json_was_asked_for(nowhere, tmp_path):
    done = nowhere.run("scan", tmp_path / "no", "--json")
    assert done.json["exit_code"] == done.code == 2
    assert "does not exist" in done.json["error"]


def test_a_scan_counts_and_writes_parquet(nowhere, tmp_path):
    import pyarrow.parquet as pq

    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "file").write_bytes(b"x" * 100)
    (tree / "bad\n").symlink_to("nowhere")
    found = nowhere.ok("scan", tree, "--json", "--out", tmp_path / "rows.parquet").json
    assert (found["inodes"], found["directories"], found["bytes"]) == (4, 2, 100)
    assert found["errors"] == 0
    rows = pq.read_table(tmp_path / "rows.parquet")
    assert sorted(rows.column("path").to_pylist()) == [b"", b"bad\n", b"d", b"d/file"]
    assert not list(tmp_path.glob("*.partial"))
    done = nowhere.run("scan", tree, "--out", tmp_path / "no" / "rows.parquet")
    assert "cannot write" in one_sentence(done, 1)


def test_no_bacula_to_be_had_is_one_sentence_and_nothing_is_left(tmp_path):
    installation = Installation(
        tmp_path / "home",
        environment={
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "FOREBAY_DEBIAN_MIRROR": "http://127.0.0.1:9/debian",
        },
    )
    (tmp_path / "tree").mkdir()
    done = installation.run("backup", tmp_path / "tree", "-q")
    assert "FOREBAY_DEBIAN_MIRROR" in one_sentence(done, 1)
    cache = tmp_path / "cache" / "forebay"
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_a_plugin_that_is_not_built_is_named(tmp_path, monkeypatch):
    from cluster import settings

    monkeypatch.setattr("bacula_bridge.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(settings.PluginMissing, match="make plugin"):
        settings.Settings(tmp_path).plugin()


def test_make_says_what_is_missing(tmp_path):
    """Without a compiler in PATH make stops with one sentence, before it makes anything."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "make"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").symlink_to(os.path.realpath(sys.executable))
    top = Path(__file__).parents[2]
    done = subprocess.run(
        [tools / "make", "--file", top / "Makefile", f"VENV={tmp_path / 'venv'}", "all"],
        cwd=top,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "a C compiler is missing" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_doctor_looks_at_this_machine(nowhere):
    done = nowhere.run("doctor", "--json")
    checks = json.loads(done.out)["checks"]
    assert {"name", "ok", "detail", "fix"} <= set(checks[0])
    assert done.code == (0 if all(check["ok"] for check in checks) else 1)


def test_doctor_says_what_it_makes_of_a_tree(nowhere, tmp_path):
    tree = nowhere.run("doctor", tmp_path, "--json").json["tree"]
    assert tree["root"] == str(tmp_path)
    assert (tree["adapter"], tree["targets"]) == ("posix", ["posix"])
    assert tree["change_source"] == "scan"
    assert tree["reason"] == "no change reader is set up"
    said = nowhere.run("doctor", tmp_path).out
    assert "incrementals  scan the whole tree: no change reader is set up" in said
    assert f"better        `forebay watch {tmp_path}`" in said
    missing = tmp_path / "missing"
    assert "does not exist" in one_sentence(nowhere.run("doctor", missing), 2)


def test_the_lab_that_is_down_says_so(nowhere):
    assert nowhere.ok("lab", "status", "--json").json["running"] is False
    done = nowhere.run("lab", "console", stdin="status dir\n")
    assert "forebay lab up" in one_sentence(done, 1)
    nowhere.ok("lab", "down")


def test_a_runtime_folder_that_somebody_else_prepared_is_refused(nowhere, tmp_path):
    from cluster.settings import RuntimeFolderUnsafe, Settings

    settings = Settings(nowhere.home)
    settings.runtime.mkdir(mode=0o755)
    settings.runtime.chmod(0o755)
    try:
        with pytest.raises(RuntimeFolderUnsafe):
            settings.make_runtime()
    finally:
        settings.runtime.rmdir()
