"""`forebay watch`: readers as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import watching
from cluster.settings import Settings
from filesystems.errors import RootMissing
from filesystems.fanotify.source import FanotifySource
from shards.changes import Gap
from shards.ledger import Dataset, Ledger

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="fanotify marks filesystems for root")


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "my tree").mkdir()
    return Settings(tmp_path / "home")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "my tree"


def forebay(settings, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "cluster.cli", *map(str, arguments)],
        env={**os.environ, "FOREBAY_HOME": str(settings.home)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def source(settings, root, dataset="my_tree"):
    return FanotifySource(dataset, bytes(root), settings.state.changes(dataset))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_says_when_it_watches_and_ends_at_a_signal(settings, root, number):
    with forebay(settings, "watch", root) as process:
        said = ""
        while "watching" not in said:
            said = process.stderr.readline()
            assert said
        assert said == f"watching {root} as my_tree\n"
        before = source(settings, root).position()
        (root / "x").touch()
        assert source(settings, root).changes(before).names == [b"", b"x"]
        process.send_signal(number)
        assert process.wait() == 0
        assert "no longer watching" in process.stderr.read()
    with pytest.raises(Gap, match="no change reader is running"):
        source(settings, root).position()


def test_in_the_background_it_outlives_its_command_until_it_is_stopped(settings, root):
    request = watching.plan_watch(settings, root, None)
    started = watching.watch_in_background(settings, request)
    try:
        (status,) = watching.statuses(settings)
        assert (status.pid, status.session) == (started.pid, started.session)
        assert (status.dataset, status.root, status.reason) == ("my_tree", str(root), None)
        with pytest.raises(watching.ReaderNotStarted, match="dataset my_tree is watched already"):
            watching.watch_in_background(settings, request)
        assert os.readlink(f"/proc/{started.pid}/cwd") == "/"
        with forebay(settings, "watch", "--status", "--json") as process:
            (told,) = json.loads(process.stdout.read())["readers"]
        assert (told["watching"], told["pid"]) == (True, started.pid)
    finally:
        watching.stop(settings, "my_tree")
    (status,) = watching.statuses(settings)
    assert "no change reader is running" in status.reason
    with pytest.raises(watching.NotWatched):
        watching.stop(settings, "my_tree")


def test_the_root_of_a_dataset_has_its_name_and_no_other(settings, root):
    settings.state.make()
    ledger = Ledger(settings.state.ledger)
    ledger.put_dataset(Dataset("known", "posix:ext4", bytes(root), 2, 1))
    ledger.close()
    assert watching.plan_watch(settings, root, None).dataset == "known"
    with pytest.raises(watching.RootDiffers, match=f"dataset known is {root}"):
        watching.plan_watch(settings, Path("/tmp"), "known")


def test_what_cannot_be_watched_is_refused_before_anything_is_made(settings, root):
    with pytest.raises(RootMissing):
        watching.plan_watch(settings, root / "none", None)
    with forebay(settings, "watch", "/proc") as process:
        assert process.wait() == 2
        assert "/proc cannot be watched" in process.stderr.read()
    assert watching.statuses(settings) == []


@pytest.mark.parametrize("arguments", [[], ["/tmp", "--status"], ["--status", "--stop", "x"]])
def test_one_thing_is_asked_for(settings, arguments):
    with forebay(settings, "watch", *arguments) as process:
        assert process.wait() == 2
        assert "give a DIR to watch" in process.stderr.read()
