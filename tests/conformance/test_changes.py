"""Fanotify and Lustre's changelogs (on the stand-in) keep the contract of change sources.

CephFS's recursive change times do so on a real cluster (tests/system/cephfs_inside.py).
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

import pytest

from filesystems.lustre.settings import LustreChangelogs
from filesystems.lustre.source import LustreSource
from tests.conformance.changes_suite import ChangesSuite, Site
from tests.support.change_histories import running_reader
from tests.support.lustre.targets import library, standin_state
from tests.support.lustre.tree import OPEN, LustreTree
from tests.support.plain_tree import PlainTree


@pytest.mark.skipif(os.geteuid() != 0, reason="fanotify marks filesystems for root")
class TestFanotify(ChangesSuite):
    @contextmanager
    def open_site(self, base):
        for name in ("root", "outside"):
            (base / name).mkdir()
        with running_reader("set", bytes(base / "root"), base / "log") as source:
            yield Site(bytes(base / "root"), bytes(base / "outside"), source, PlainTree())


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the stand-in")
class TestLustreChangelogs(ChangesSuite):
    targets = 2

    @contextmanager
    def open_site(self, base):
        if not 12 <= base.stat().st_ino < 1 << 32:
            pytest.skip(f"the stand-in needs inode numbers of 32 bits: {base} has others")
        mount = base / "mount"
        mount.mkdir()
        with standin_state(base / "state") as state:
            tree = LustreTree(mount, state, self.targets)
            for name in ("root", "outside"):
                tree.mkdir(bytes(mount / name))
            consumers = tuple((target.name, target.register("backup")) for target in tree.targets)
            for target in tree.targets:
                target.append(OPEN)
            root = bytes(mount / "root")
            settings = LustreChangelogs(root, bytes(mount), consumers)
            source = LustreSource("set", settings, base / "log", library())
            yield Site(root, bytes(mount / "outside"), source, tree)
