"""Choosing the adapter of a tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from filesystems.detect import detect
from filesystems.errors import RootMissing, RootNotADirectory
from filesystems.lustre.api import Library
from filesystems.mountinfo import mount_point_of, mount_type_of
from tests.conformance.walk_isolated import in_child, mount_tmpfs, needs_root
from tests.support.lustre.targets import library, standin_state


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


@needs_root
def test_a_mount_point_is_found_whatever_is_in_its_name(tmp_path):
    place = tmp_path / "a b\tc\\d"
    place.mkdir()

    def look():
        mount_tmpfs(place)
        (place / "below").mkdir()
        return mount_point_of(bytes(place / "below")), mount_type_of(bytes(place / "below"))

    assert in_child(look) == (bytes(place), "tmpfs")


@pytest.fixture
def on(monkeypatch):
    """Let every tree be on a filesystem of a type."""
    return lambda name: monkeypatch.setattr("filesystems.detect.mount_type", lambda _: name)


@pytest.mark.parametrize("name", ["ceph", "fuse.ceph-fuse", "fuse.ceph"])
def test_cephfs_has_an_adapter_of_its_own(tmp_path, on, name):
    on(name)
    found = detect(tmp_path)
    assert (found.filesystem.name, found.type_name) == ("cephfs", name)


def test_lustre_has_an_adapter_of_its_own_where_its_library_is(tmp_path, on, monkeypatch):
    on("lustre")
    monkeypatch.setattr("filesystems.detect.Library", lambda: Library(library()))
    with standin_state(tmp_path / "state"):
        assert detect(tmp_path).filesystem.name == "lustre"


@pytest.mark.parametrize("call", ["obd_count", "mdtidx"])
def test_lustre_whose_library_fails_is_walked_as_any_tree(tmp_path, on, monkeypatch, call):
    on("lustre")
    monkeypatch.setattr("filesystems.detect.Library", lambda: Library(library()))
    with standin_state(tmp_path / "state") as state:
        (state / "fault").write_text(f"{call} 5 0")
        found = detect(tmp_path)
    assert found.filesystem.name == "posix"
    assert "Input/output error" in found.filesystem.access


def test_lustre_with_an_old_library_is_walked_as_any_tree(tmp_path, on, monkeypatch):
    on("lustre")
    monkeypatch.setattr("filesystems.detect.Library", lambda: Library("libc.so.6"))
    assert "has no llapi_" in detect(tmp_path).filesystem.access


def test_lustre_without_its_library_is_walked_as_any_tree_and_says_so(tmp_path, on, monkeypatch):
    on("lustre")
    monkeypatch.setattr("filesystems.detect.Library", lambda: Library("libnosuch.so.1"))
    found = detect(tmp_path)
    assert found.filesystem.name == "posix"
    assert "one walker for all MDTs: libnosuch.so.1 was not found" in found.filesystem.access
    assert "install lustre-client" in found.filesystem.access
