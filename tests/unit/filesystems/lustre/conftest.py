"""A stand-in filesystem with one target or more, and its change source."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from filesystems.lustre.api import Library
from filesystems.lustre.settings import LustreChangelogs
from filesystems.lustre.source import LustreSource
from shards.changes import ChangeSet
from tests.support.change_histories import missed, snapshot
from tests.support.lustre.targets import Target, library, standin_state
from tests.support.lustre.tree import LustreTree


@dataclass
class Mounted:
    """A filesystem with a dataset's root and a directory beside it, consumers registered."""

    base: Path
    tree: LustreTree
    settings: LustreChangelogs
    library: Library

    @property
    def root(self) -> bytes:
        return self.settings.root

    @property
    def outside(self) -> bytes:
        return self.settings.mount + b"/outside"

    @property
    def target(self) -> Target:
        return self.tree.targets[0]

    @property
    def source(self) -> LustreSource:
        return LustreSource("set", self.settings, self.base / "log", library())

    def now(self):
        return self.source.position(), snapshot(self.root)

    def since(self, before, state) -> ChangeSet:
        """Return the changes since a position; nothing that differs may be missed."""
        changes = self.source.changes(before)
        assert missed(state, snapshot(self.root), changes) == []
        return changes


def mounted(base: Path, state: Path, targets: int) -> Mounted:
    mount = base / "mount"
    mount.mkdir()
    tree = LustreTree(mount, state, targets)
    root = bytes(mount / "root")
    tree.mkdir(root)
    tree.mkdir(bytes(mount / "outside"))
    consumers = tuple((target.name, target.register("backup")) for target in tree.targets)
    settings = LustreChangelogs(root, bytes(mount), consumers)
    return Mounted(base, tree, settings, Library(library()))


def _check_machine(folder: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("the stand-in needs a C compiler: no program `cc` here")
    if not 12 <= folder.stat().st_ino < 1 << 32:
        pytest.skip(f"the stand-in needs inode numbers of 32 bits: {folder} has others")


@pytest.fixture
def lustre(tmp_path):
    _check_machine(tmp_path)
    with standin_state(tmp_path / "state") as state:
        yield mounted(tmp_path, state, 1)


@pytest.fixture
def machine_fits(tmp_path):
    """Skip where the stand-in cannot run."""
    _check_machine(tmp_path)


@pytest.fixture
def two_targets(tmp_path):
    _check_machine(tmp_path)
    with standin_state(tmp_path / "state") as state:
        yield mounted(tmp_path, state, 2)
