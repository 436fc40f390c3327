"""The Lustre adapter keeps the contract, on the stand-in for the client's library."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from filesystems.interface import Filesystem
from filesystems.lustre.api import Library
from filesystems.lustre.errors import LustreFailed
from filesystems.lustre.filesystem import LustreFilesystem
from tests.conformance.filesystem_suite import FilesystemSuite
from tests.conformance.targets_suite import TargetsSuite
from tests.support.lustre.targets import library, standin_state

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(autouse=True)
def state(tmp_path_factory):
    with standin_state(tmp_path_factory.mktemp("standin")) as folder:
        (folder / "placed").mkdir()
        (folder / "mdts").write_text("1")
        yield folder


class TestLustre(FilesystemSuite):
    # The kernel's own bounds are the same on every mounted tree (test_posix).
    test_what_waits_does_not_grow_with_the_width_of_a_directory = None
    test_a_slow_consumer_stops_the_threads = None
    test_many_walks_leave_no_memory_descriptors_or_threads_behind = None
    test_one_huge_directory_is_shared_among_threads = None

    def adapter(self, root: Path) -> Filesystem:
        return LustreFilesystem(root, Library(library()))

    def test_one_mdt_is_one_target(self, root):
        assert [target.name for target in self.adapter(root).targets()] == ["MDT0000"]


class TestMdts(TargetsSuite):
    def placed(self, root: Path, targets) -> Filesystem:
        state = Path(os.environ["FOREBAY_LUSTRE_STANDIN"])
        (state / "mdts").write_text("2")
        placed = {}
        for folder, folders, _ in os.walk(os.fsencode(root)):  # each directory is on one of its own
            for name in folders:
                path = os.path.join(folder, name)
                relative = os.path.relpath(path, os.fsencode(root))
                above = placed.get(os.path.dirname(relative), 0)
                placed[relative] = targets.get(relative, above)
                (state / "placed" / str(os.lstat(path).st_ino)).write_text(str(placed[relative]))
        return LustreFilesystem(root, Library(library()))

    def test_the_targets_are_the_mdts(self, tree):
        assert [target.name for target in self.placed(tree, {}).targets()] == ["MDT0000", "MDT0001"]


@pytest.mark.parametrize("call", ["obd_count", "mdtidx"])
def test_what_the_library_says_against_it_is_told(tmp_path, state, call):
    (state / "fault").write_text(f"{call} 5 0")
    with pytest.raises(LustreFailed, match="Input/output error"):
        LustreFilesystem(tmp_path, Library(library())).check()


def test_a_directory_whose_mdt_is_not_told_is_its_parents(tmp_path, state):
    (tmp_path / "a").mkdir()
    (state / "fault").write_text("mdtidx 5 0")
    assert LustreFilesystem(tmp_path, Library(library())).target_of(b"a") == 0
