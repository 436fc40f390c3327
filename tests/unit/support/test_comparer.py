"""The comparer finds each kind of difference, and nothing where there is none.

Covers: one planted difference per aspect; equality of a tree with itself, with a copy, with a
second make of the same tree.
Does not cover: which kinds of file the tree maker makes (test_tree_maker.py).
"""

import errno
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.bulk import remove_tree
from tests.support.compare import (
    Difference,
    compare_snapshots,
    compare_trees,
    escape,
    format_differences,
    round_extents,
    take_snapshot,
)
from tests.support.making import (
    ACL_ACCESS,
    ACL_GROUP_OBJ,
    ACL_MASK,
    ACL_NO_ID,
    ACL_OTHER,
    ACL_USER,
    ACL_USER_OBJ,
    Attributes,
    Maker,
    encode_acl,
)

privileged = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices, trusted.*")


def acl(named_user: int, permissions: int) -> bytes:
    return encode_acl(
        [
            (ACL_USER_OBJ, 6, ACL_NO_ID),
            (ACL_USER, permissions, named_user),
            (ACL_GROUP_OBJ, 4, ACL_NO_ID),
            (ACL_MASK, 6, ACL_NO_ID),
            (ACL_OTHER, 0, ACL_NO_ID),
        ]
    )


def make_small(root: Path) -> Path:
    """Make a tree of a dozen files; every call makes the same one."""
    maker = Maker(root, seed=5, privileged=os.geteuid() == 0)
    try:
        maker.directory(b"d", Attributes(mode=0o750))
        maker.directory(b"d/below", Attributes(mode=0o555))
        maker.file(b"d/below/file", 300)
        maker.file(b"plain", 100_000, Attributes(mode=0o640, xattrs={b"user.x": b"value"}))
        maker.file(b"other", 100_000, Attributes(mode=0o640))
        maker.file(b"with-acl", 10, Attributes(mode=0o660, xattrs={ACL_ACCESS: acl(1000, 6)}))
        maker.file(b"sparse", 3 << 20, extents=[(1 << 20, 100_000)])
        maker.file(b"zeros", 1 << 20, zeros=True)
        maker.file(b"one-inode", 5)
        maker.link(b"one-inode", b"d/second-name")
        maker.link(b"one-inode", b"third-name")
        maker.symlink(b"symlink", b"plain")
        maker.fifo(b"fifo", Attributes(mode=0o622))
        maker.socket(b"socket")
        maker.file(b"\xff\n name", 1)
        if maker.privileged:
            maker.device(b"device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        maker.finish()
    finally:
        maker.close()
    return root


@contextmanager
def pair(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    a, b = make_small(tmp_path / "a"), make_small(tmp_path / "b")
    yield a, b
    remove_tree(a)
    remove_tree(b)


@contextmanager
def keeping_times(*paths: Path) -> Iterator[None]:
    """Put the times of what a change touches back, so that only the change itself can be found."""
    before = {path: os.lstat(path) for path in paths if os.path.lexists(path)}
    yield
    for path, status in before.items():
        if os.path.lexists(path):
            times = (status.st_atime_ns, status.st_mtime_ns)
            os.utime(path, ns=times, follow_symlinks=False)


def planted(tmp_path: Path, name: str, change: Callable[[Path], None]) -> list[tuple[bytes, str]]:
    """Make the small tree twice, change one file in the second, and return what is found."""
    with pair(tmp_path) as (a, b):
        target = b / name
        with keeping_times(target.parent, target):
            change(target)
        return [(d.path, d.what) for d in compare_trees(a, b)]


def shift_times(path: Path, atime: int = 0, mtime: int = 0) -> None:
    status = os.lstat(path)
    times = (status.st_atime_ns + atime, status.st_mtime_ns + mtime)
    os.utime(path, ns=times, follow_symlinks=False)


def test_a_tree_equals_itself_and_reading_it_moves_no_time(tmp_path):
    with pair(tmp_path) as (a, _):
        first, second = take_snapshot(a), take_snapshot(a)
        assert compare_snapshots(first, second, sockets=True, times=("mtime", "atime")) == []


def test_the_same_tree_made_twice_is_equal(tmp_path):
    with pair(tmp_path) as (a, b):
        assert compare_trees(a, b, sockets=True, times=("mtime", "atime")) == []


def test_a_copy_by_cp_is_equal(tmp_path):
    with pair(tmp_path) as (a, b):
        remove_tree(b)
        subprocess.run(["cp", "-a", "--sparse=auto", a, b], check=True)
        assert compare_trees(a, b, sockets=True) == []


def test_a_copy_that_turned_zeros_into_a_hole_differs_in_extents_alone(tmp_path):
    with pair(tmp_path) as (a, b):
        remove_tree(b)
        subprocess.run(["cp", "-a", "--sparse=always", a, b], check=True)
        assert [(d.path, d.what) for d in compare_trees(a, b)] == [(b"zeros", "extents")]


def test_a_missing_and_an_extra_name_are_found(tmp_path):
    assert planted(tmp_path, "other", os.unlink) == [(b"other", "missing")]
    assert planted(tmp_path, "new", Path.touch) == [(b"new", "extra")]


def test_a_renamed_file_is_one_missing_and_one_extra(tmp_path):
    found = planted(tmp_path, "other", lambda p: p.rename(p.with_name("other2")))
    assert found == [(b"other", "missing"), (b"other2", "extra")]


def test_another_type_is_found(tmp_path):
    def change(path: Path) -> None:
        os.unlink(path)
        os.mkfifo(path, 0o640)

    assert planted(tmp_path, "other", change) == [(b"other", "type")]


def test_one_changed_byte_is_found(tmp_path):
    def change(path: Path) -> None:
        with open(path, "r+b") as file:
            byte = os.pread(file.fileno(), 1, 99_999)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), 99_999)

    assert planted(tmp_path, "plain", change) == [(b"plain", "content")]


def test_swapped_contents_are_found(tmp_path):
    def change(path: Path) -> None:
        other = path.with_name("other")
        first, second = path.read_bytes(), other.read_bytes()
        with keeping_times(other):
            path.write_bytes(second)
            other.write_bytes(first)

    assert planted(tmp_path, "plain", change) == [(b"other", "content"), (b"plain", "content")]


def test_data_moved_inside_a_sparse_file_is_found(tmp_path):
    def change(path: Path) -> None:
        data = path.read_bytes()[1 << 20 :][:100_000]
        with open(path, "r+b") as file:
            file.truncate(0)
            file.truncate(3 << 20)
            os.pwrite(file.fileno(), data, 2 << 20)

    assert planted(tmp_path, "sparse", change) == [(b"sparse", "content"), (b"sparse", "extents")]


def test_a_file_longer_by_a_hole_is_found(tmp_path):
    found = planted(tmp_path, "sparse", lambda p: os.truncate(p, (3 << 20) + 1))
    assert found == [(b"sparse", "size"), (b"sparse", "content")]


def test_a_mode_bit_is_found(tmp_path):
    assert planted(tmp_path, "plain", lambda p: p.chmod(0o4640)) == [(b"plain", "mode")]
    assert planted(tmp_path, "d/below", lambda p: p.chmod(0o755)) == [(b"d/below", "mode")]
    assert planted(tmp_path, "fifo", lambda p: p.chmod(0o600)) == [(b"fifo", "mode")]


@privileged
def test_owners_are_found_on_files_and_symbolic_links(tmp_path):
    def owner(path: Path) -> None:
        os.chown(path, 1, -1, follow_symlinks=False)

    def group(path: Path) -> None:
        os.chown(path, -1, 4294967294, follow_symlinks=False)

    assert planted(tmp_path, "plain", owner) == [(b"plain", "uid")]
    assert planted(tmp_path, "symlink", group) == [(b"symlink", "gid")]


@privileged
def test_another_device_number_and_kind_are_found(tmp_path):
    def device(kind: int, minor: int) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            os.unlink(path)
            os.mknod(path, kind | 0o600, os.makedev(1, minor))

        return change

    assert planted(tmp_path, "device", device(stat.S_IFCHR, 5)) == [(b"device", "rdev")]
    assert planted(tmp_path, "device", device(stat.S_IFBLK, 3)) == [(b"device", "type")]


@pytest.mark.parametrize("name", ["plain", "d", "symlink", "fifo", "d/below/file"])
def test_one_nanosecond_of_mtime_is_found(tmp_path, name):
    with pair(tmp_path) as (a, b):
        shift_times(b / name, mtime=1)
        assert [(d.path, d.what) for d in compare_trees(a, b)] == [(name.encode(), "mtime")]


def test_one_nanosecond_of_atime_is_found_when_asked_for(tmp_path):
    with pair(tmp_path) as (a, b):
        shift_times(b / "d/below", atime=-1)
        assert compare_trees(a, b) == []
        found = compare_trees(a, b, times=("mtime", "atime"))
        assert [(d.path, d.what) for d in found] == [(b"d/below", "atime")]


def test_an_unknown_time_is_refused(tmp_path):
    with pair(tmp_path) as (a, b), pytest.raises(ValueError, match="not ctime"):
        compare_trees(a, b, times=("ctime",))


def test_another_target_of_the_same_length_is_found(tmp_path):
    def change(path: Path) -> None:
        os.unlink(path)
        path.symlink_to("plaiN")

    assert planted(tmp_path, "symlink", change) == [(b"symlink", "target")]


def test_one_byte_of_an_xattr_is_found(tmp_path):
    found = planted(tmp_path, "plain", lambda p: os.setxattr(p, "user.x", b"valuE"))
    assert found == [(b"plain", "xattr user.x")]


def test_a_lost_and_an_added_xattr_are_found(tmp_path):
    found = planted(tmp_path, "plain", lambda p: os.removexattr(p, "user.x"))
    assert found == [(b"plain", "xattr user.x")]
    found = planted(tmp_path, "d", lambda p: os.setxattr(p, "user.empty", b""))
    assert found == [(b"d", "xattr user.empty")]


@privileged
@pytest.mark.parametrize("name", ["symlink", "fifo", "device", "plain"])
def test_a_trusted_xattr_is_found_on_every_kind_of_file(tmp_path, name):
    def change(path: Path) -> None:
        os.setxattr(path, "trusted.t", b"1", follow_symlinks=False)

    assert planted(tmp_path, name, change) == [(name.encode(), "xattr trusted.t")]


def test_another_permission_and_another_user_in_an_acl_are_found(tmp_path):
    expected = [(b"with-acl", "xattr system.posix_acl_access")]
    for changed in (acl(1000, 4), acl(1001, 6)):
        found = planted(tmp_path, "with-acl", lambda p, v=changed: os.setxattr(p, ACL_ACCESS, v))
        assert found == expected


def test_a_lost_acl_is_found(tmp_path):
    found = planted(tmp_path, "with-acl", lambda p: os.removexattr(p, ACL_ACCESS))
    assert (b"with-acl", "xattr system.posix_acl_access") in found


def test_an_inherited_default_acl_is_found(tmp_path):
    found = planted(tmp_path, "d", lambda p: os.setxattr(p, "system.posix_acl_default", acl(1, 7)))
    assert found == [(b"d", "xattr system.posix_acl_default")]


def test_a_broken_hard_link_is_found(tmp_path):
    def change(path: Path) -> None:
        data, status = path.read_bytes(), os.stat(path)
        os.unlink(path)
        path.write_bytes(data)
        path.chmod(stat.S_IMODE(status.st_mode))

    found = planted(tmp_path, "third-name", change)
    assert {what for _, what in found} == {"hard links"}


@pytest.mark.parametrize("joined", ["a", "b"])
def test_two_files_joined_by_a_hard_link_in_one_tree_alone_are_found(tmp_path, joined):
    with pair(tmp_path) as roots:
        for root in roots:
            (root / "twin-1").write_bytes(b"same")
            if root.name == joined:
                os.link(root / "twin-1", root / "twin-2")
            else:
                (root / "twin-2").write_bytes(b"same")
            for name in ("twin-1", "twin-2", "."):
                os.utime(root / name, ns=(1, 1))
        found = compare_trees(*roots)
        assert [(d.path, d.what) for d in found] == [(b"twin-1", "hard links")]
        shown = found[0].a if joined == "a" else found[0].b
        assert shown == "twin-1, twin-2"


def test_a_filled_hole_is_found_by_its_extents_and_its_blocks(tmp_path):
    def change(path: Path) -> None:
        with open(path, "r+b") as file:
            os.pwrite(file.fileno(), bytes(1 << 20), 0)

    found = planted(tmp_path, "sparse", change)
    assert found == [(b"sparse", "extents"), (b"sparse", "allocated bytes")]


def test_a_filled_hole_of_one_block_is_found(tmp_path):
    def change(path: Path) -> None:
        with open(path, "r+b") as file:
            os.pwrite(file.fileno(), b"\0", 2 << 20)

    assert planted(tmp_path, "sparse", change) == [(b"sparse", "extents")]


def test_the_roots_own_attributes_are_compared(tmp_path):
    with pair(tmp_path) as (a, b):
        with keeping_times(b):
            os.chmod(b, 0o700)
            os.setxattr(b, "user.root", b"1")
        shift_times(b, mtime=1)
        found = compare_trees(a, b)
        assert [(d.path, d.what) for d in found] == [
            (b"", "mode"),
            (b"", "mtime"),
            (b"", "xattr user.root"),
        ]


def test_sockets_of_the_source_may_be_missing_unless_asked_for(tmp_path):
    with pair(tmp_path) as (a, b):
        with keeping_times(b):
            (b / "socket").unlink()
        assert compare_trees(a, b) == []
        found = compare_trees(a, b, sockets=True)
        assert [(d.path, d.what) for d in found] == [(b"socket", "missing")]


def test_a_socket_that_only_the_second_tree_has_is_found(tmp_path):
    with pair(tmp_path) as (a, b):
        with keeping_times(b), socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fspath(b / "new-socket"))
        assert [(d.path, d.what) for d in compare_trees(a, b)] == [(b"new-socket", "extra")]


@pytest.mark.parametrize(
    ("call", "name"), [("readlink", b"symlink"), ("pread", b"plain"), ("getxattr", b"with-acl")]
)
def test_what_cannot_be_read_in_either_tree_is_a_difference(tmp_path, monkeypatch, call, name):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pair(tmp_path) as (a, b):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            found = compare_trees(a, b)
        assert (name, "unreadable") in [(d.path, d.what) for d in found]


def test_differences_are_printed_escaped_and_capped():
    found = [Difference(b"\xff\n\\%d" % n, "mode", "0644", "0600") for n in range(3)]
    found.append(Difference(b"", "uid", "0", "1"))
    assert format_differences(found, limit=2).splitlines() == [
        r"\xff\x0a\x5c0: mode: 0644 | 0600",
        r"\xff\x0a\x5c1: mode: 0644 | 0600",
        "... and 2 more: 1 x mode, 1 x uid",
    ]
    assert format_differences([]) == ""
    assert format_differences(found[3:]) == ".: uid: 0 | 1"
    assert len(escape(b"\xff" * 5000)) < 300


def test_extents_are_widened_to_blocks_and_joined():
    assert round_extents([(5, 10), (4090, 4100), (20_000, 20_001)], 4096, 20_001) == [
        (0, 8192),
        (16_384, 20_001),
    ]
    assert round_extents([], 4096, 100) == []
