"""Choosing the adapter of a tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from filesystems.detect import detect
from filesystems.errors import RootMissing, RootNotADirectory


def test_a_directory_gets_the_posix_adapter_and_the_name_of_its_filesystem(tmp_path):
    found = detect(tmp_path)
    assert found.filesystem.name == "posix"
    assert found.filesystem.root == bytes(tmp_path)
    mounts = Path("/proc/mounts").read_text().splitlines()
    assert found.type_name in {line.split()[2] for line in mounts}


def test_proc_is_called_proc():
    assert detect("/proc").type_name == "proc"


@pytest.mark.parametrize("root", ["/no/such/place", b"/tmp\0/x"])
def test_a_missing_root_is_refused_in_a_sentence(root):
    with pytest.raises(RootMissing, match="does not exist; check the path"):
        detect(root)


def test_a_file_is_refused_as_a_root(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RootNotADirectory):
        detect(tmp_path / "file")


def test_detecting_leaves_no_descriptor_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    detect(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
