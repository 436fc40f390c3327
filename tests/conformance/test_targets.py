"""The stand-in for several targets keeps the contract of adapters that have them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from filesystems import targets
from filesystems.targets import TargetsFilesystem
from tests.conformance.targets_suite import TargetsSuite
from tests.conformance.walk_trees import write
from tests.support.targets import PinnedFilesystem


class TestPinned(TargetsSuite):
    def placed(self, root: Path, targets) -> TargetsFilesystem:
        return PinnedFilesystem(os.fsencode(root), targets)


def test_a_root_that_another_target_serves_is_listed_first_all_the_same(tmp_path):
    for name in ("a", "b/c"):
        (tmp_path / name).mkdir(parents=True)
        write(tmp_path / name / "file")
    suite = TestPinned()
    filesystem = suite.placed(tmp_path, {b"": 1, b"b/c": 0})
    found = suite.walk(filesystem)
    assert set(found) == suite.names(tmp_path)
    assert found[b"a"] == found[b"b"] == found[b"b/c/file"] == [0]
    assert found[b"a/file"] == found[b"b/c"] == [1]


def test_only_directories_near_the_root_are_looked_at(tmp_path):
    deep = tmp_path.joinpath(*"abcd")
    deep.mkdir(parents=True)
    write(deep / "file")
    suite = TestPinned()
    filesystem = suite.placed(tmp_path, {b"a/b/c/d": 1})
    assert filesystem.target_of(b"a/b/c/d") == 1
    assert suite.walk(filesystem)[b"a/b/c/d/file"] == [0]


def test_the_number_of_directories_looked_at_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(targets, "DIRECTORIES_MAX", 10)
    for number in range(30):
        (tmp_path / f"d{number}").mkdir()
    looked = []

    class Counting(PinnedFilesystem):
        def target_of_open(self, descriptor: int, above: int) -> int:
            looked.append(descriptor)
            return super().target_of_open(descriptor, above)

    assert len(Counting(os.fsencode(tmp_path), {}).targets()) == 1
    assert len(looked) == 1 + 10


def test_looking_leaves_access_times_alone(tmp_path):
    place = tmp_path / "a"
    (place / "b").mkdir(parents=True)
    os.utime(place, ns=(1, os.lstat(place).st_mtime_ns))
    TestPinned().placed(tmp_path, {}).targets()
    assert os.lstat(place).st_atime_ns == 1


@pytest.mark.parametrize("highest", [64, 200])
def test_more_targets_than_walkers_share_them(tmp_path, highest):
    (tmp_path / "a").mkdir()
    filesystem = TestPinned().placed(tmp_path, {b"a": highest})
    assert len(filesystem.targets()) == targets.TARGETS_MAX
    assert filesystem.target_of(b"a") == highest % targets.TARGETS_MAX


def test_a_directory_that_goes_while_its_target_is_asked_for_is_left_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    class Vanishing(PinnedFilesystem):
        def target_of_open(self, descriptor: int, above: int) -> int:
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/a"):
                raise FileNotFoundError(errno.ENOENT, "gone")
            return super().target_of_open(descriptor, above)

    filesystem = Vanishing(os.fsencode(tmp_path), {b"b": 1})
    assert len(filesystem.targets()) == 2
    assert TestPinned().walk(filesystem).keys() == {b"", b"a", b"b"}
