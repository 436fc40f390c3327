"""The POSIX adapter keeps the contract of every filesystem."""

from __future__ import annotations

from pathlib import Path

from filesystems.interface import Filesystem
from filesystems.posix import PosixFilesystem
from tests.conformance.filesystem_suite import FilesystemSuite


class TestPosix(FilesystemSuite):
    def adapter(self, root: Path) -> Filesystem:
        return PosixFilesystem(root)

    def test_it_has_one_metadata_target(self, tmp_path):
        assert [target.index for target in self.adapter(tmp_path).targets()] == [0]
