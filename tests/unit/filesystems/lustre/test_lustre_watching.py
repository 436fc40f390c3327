"""Naming changelogs for a dataset: whose consumers they are, what is left of a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster import watching
from cluster.settings import Settings
from cluster.watching import ChangelogsUnusable, WatchRequest, read_changelogs
from filesystems.lustre.errors import ConsumerTaken
from filesystems.lustre.source import LustreSource
from tests.support.lustre.targets import library


@pytest.fixture
def settings(lustre, monkeypatch):
    """An installation whose client library is the stand-in."""

    def source(dataset, changelogs, folder):
        return LustreSource(dataset, changelogs, folder, library())

    monkeypatch.setattr(watching, "LustreSource", source)
    monkeypatch.setattr(watching, "mount_point_of", lambda root: lustre.settings.mount)
    return Settings(lustre.base / "home")


def read(settings, lustre, dataset, consumer):
    request = WatchRequest(dataset, Path(os.fsdecode(lustre.root)))
    return read_changelogs(settings, request, [f"{lustre.target.name}={consumer}"])


def test_a_consumer_is_for_one_dataset_alone(settings, lustre):
    read(settings, lustre, "one", "cl1-backup")
    read(settings, lustre, "one", "cl1-backup")
    for consumer in ("cl1-backup", "cl1"):
        with pytest.raises(
            ConsumerTaken, match=f"{consumer} of scratch-MDT0000 is the one of dataset one;"
        ):
            read(settings, lustre, "two", consumer)
    assert not settings.state.changes("two").exists()
    assert read(settings, lustre, "two", lustre.target.register()).changelogs


def test_nothing_is_left_of_a_failure(settings, lustre):
    with pytest.raises(ChangelogsUnusable, match="cl9 is not registered"):
        read(settings, lustre, "one", "cl9")
    assert not settings.state.changes("one").exists()


def test_what_was_there_before_a_failure_stays(settings, lustre):
    folder = settings.state.changes("one")
    folder.mkdir(parents=True)
    (folder / "reader.log").write_text("said")
    with pytest.raises(ChangelogsUnusable):
        read(settings, lustre, "one", "cl9")
    assert [path.name for path in folder.iterdir()] == ["reader.log"]
