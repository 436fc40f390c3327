"""The attributes stream and the resolution of paths below a root, as C makes them.

Covers: fb_blob_build and the times without a stream against docs/formats/attributes.md,
fb_blob_check and fb_blob_item on damaged chunks, CRC-32, fb_open_beneath, fb_open_parent,
fb_make_parent with and without openat2.
Does not cover: how a stream is applied (test_plugin_restore.py), or times without one
(test_plugin_short.py).
"""

import errno
import os
import random
import stat
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from tests.plugin.restore_support import (
    FT_REG,
    ITEM_END,
    ITEM_LOST,
    ITEM_STAT,
    ITEM_XATTR,
    RESTORE_SOURCES,
    Script,
    compile_c,
    item,
    make_stat,
    parse,
    read_xattrs,
    stat_item,
    stream_of,
)
from tests.support.making import encode_acl

ANYBODY = 0xFFFFFFFF
ACL = encode_acl([(1, 7, ANYBODY), (2, 6, 77), (4, 5, ANYBODY), (16, 7, ANYBODY), (32, 0, ANYBODY)])
CAPABILITY = struct.pack("<IIIII", 0x02000001, 0x2000, 0, 0, 0)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("harness") / "blob"
    return compile_c(output, "harness_blob.c", ("beneath.c", "blob.c"), "address,undefined")


@pytest.fixture(scope="session")
def harness_without_openat2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("harness") / "blob"
    sources = ("beneath.c", "blob.c")
    more = "-DFB_TEST_WITHOUT_OPENAT2"
    return compile_c(output, "harness_blob.c", sources, "address,undefined", more)


@pytest.fixture(params=["openat2", "component by component"])
def resolver(request, harness, harness_without_openat2) -> Path:
    return harness if request.param == "openat2" else harness_without_openat2


def call(harness: Path, *arguments: str | Path | int, stdin: bytes = b"") -> list[str]:
    done = subprocess.run(
        [harness, *map(str, arguments)], input=stdin.hex().encode(), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="surrogateescape").splitlines()


def build(harness: Path, path: Path) -> tuple[str, list[bytes]]:
    lost, *chunks = call(harness, "build", path)
    return lost, [bytes.fromhex(line.removeprefix("chunk ")) for line in chunks]


def test_a_stream_holds_stat_then_xattrs_then_the_count(harness, tmp_path):
    path = tmp_path / "file"
    path.write_text("12345")
    path.chmod(0o4751)
    os.utime(path, ns=(-(10**18) - 1, 2**33 * 10**9 + 999_999_999))
    os.setxattr(path, "user.a", b"x" * 255)
    os.setxattr(path, "user.b", b"y" * 257)
    lost, chunks = build(harness, path)
    assert lost == "lost 0 0"
    items = parse(chunks)
    st = path.stat()
    assert items[0][:2] == (ITEM_STAT, b"")
    values = struct.unpack("<IIIIQQQqqqqIIIIII", items[0][2])
    assert values[:7] == (
        *(st.st_mode, st.st_nlink, st.st_uid, st.st_gid),
        *(st.st_rdev, 5, st.st_ino),
    )
    times = [values[7 + i] * 10**9 + values[11 + i] for i in range(3)]
    assert times == [st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns]
    assert values[15:] == ((1 if values[10] else 0), 0)
    xattrs = {name: value for tag, name, value in items if tag == ITEM_XATTR}
    assert xattrs == read_xattrs(bytes(path))
    assert items[-1] == (ITEM_END, b"", struct.pack("<I", len(items) - 1))


def test_without_xattrs_there_is_no_stream(harness, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, *tmp_path.iterdir()):
        assert build(harness, path) == ("lost 0 0", [])


@needs_root
def test_a_device_always_has_a_stream(harness, tmp_path):
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    _, chunks = build(harness, tmp_path / "device")
    assert [tag for tag, _, _ in parse(chunks)] == [ITEM_STAT, ITEM_END]


KINDS = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK]
DEVICES = [stat.S_IFCHR, stat.S_IFBLK]


@pytest.mark.parametrize(
    ("mtime_ns", "atime_ns", "rdev"),
    [
        (0, 0, "5000000000000000"),
        (1, 0, "5000000040000000"),
        (0, 1, "5000000000000001"),
        (123_456_789, 987_654_321, "51d6f3457ade68b1"),
        (999_999_999, 999_999_999, "5ee6b27ffb9ac9ff"),
    ],
)
def test_nanoseconds_go_where_devices_have_a_number(harness, mtime_ns, atime_ns, rdev):
    assert int(rdev, 16) < 1 << 63  # what Bacula's record holds
    for kind in KINDS:
        mode = f"{kind | 0o644:o}"
        assert call(harness, "short", mode, mtime_ns, atime_ns) == [f"fits 1 {rdev}"]
        assert call(harness, "take", mode, rdev) == [f"{mtime_ns} {atime_ns}"]
    for kind in DEVICES:
        assert call(harness, "short", f"{kind:o}", mtime_ns, atime_ns) == [f"fits 0 {rdev}"]
        assert call(harness, "take", f"{kind:o}", rdev) == ["none"]


@pytest.mark.parametrize("times", [(-1, 0), (0, -1), (10**9, 0), (0, 10**9), (2**30, 0)])
def test_nanoseconds_that_are_none_need_a_stream(harness, times):
    (line,) = call(harness, "short", f"{stat.S_IFREG:o}", *times)
    assert line.startswith("fits 0 ")


@pytest.mark.parametrize("mark", [mark for mark in range(16) if mark != 5])
def test_no_other_mark_is_taken_for_times(harness, mark):
    assert call(harness, "take", f"{stat.S_IFREG:o}", f"{mark << 60:x}") == ["none"]


@pytest.mark.parametrize("times", [10**9 << 30, 10**9, (2**30 - 1) << 30, 2**30 - 1])
def test_nanoseconds_beyond_a_second_are_not_taken(harness, times):
    assert call(harness, "take", f"{stat.S_IFREG:o}", f"{5 << 60 | times:x}") == ["none"]


@needs_root
def test_xattrs_of_symlinks_and_special_files_are_read_through_proc(harness, tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        os.setxattr(tmp_path / name, "trusted.x", name.encode(), follow_symlinks=False)
        _, chunks = build(harness, tmp_path / name)
        assert (ITEM_XATTR, b"trusted.x", name.encode()) in parse(chunks)


def test_a_long_stream_is_cut_into_chunks_at_items(harness, tmp_path):
    path = Path("/dev/shm") / f"forebay-blob-{os.getpid()}"  # ext4 holds no such xattrs
    path.write_text("")
    try:
        for i in range(9):
            os.setxattr(path, f"user.{i}", bytes([i]) * 65_536)
    except OSError as error:
        pytest.skip(f"/dev/shm takes no large user xattrs: {error}")
    else:
        _, chunks = build(harness, path)
        assert len(chunks) == 3
        assert len([i for i in parse(chunks) if i[0] == ITEM_XATTR]) == 9
    finally:
        path.unlink()


def test_many_xattr_names_are_listed_in_whole(harness, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    names = [f"user.{i:02d}{'n' * 60}" for i in range(40)]
    for name in names:
        os.setxattr(path, name, b"v")
    _, chunks = build(harness, path)
    assert len([i for i in parse(chunks) if i[0] == ITEM_XATTR]) == 40


@needs_root
def test_what_was_built_comes_back_the_same(harness, tmp_path):
    restorer = compile_c(
        tmp_path / "restorer", "harness_restore.c", RESTORE_SOURCES, "address,undefined"
    )
    source, place = tmp_path / "source", tmp_path / "place"
    source.write_text("x")
    os.chown(source, 4_000_000_000, 77)
    source.chmod(0o2750)
    xattrs = {
        b"user.u": b"\0" * 100,
        b"user." + b"n" * 250: b"",
        b"trusted.t": bytes(range(256)),
        b"security.capability": CAPABILITY,
        b"system.posix_acl_access": ACL,
    }
    for name, value in xattrs.items():
        os.setxattr(source, name, value)
    os.utime(source, ns=(1, 10**18 + 999_999_999))
    _, chunks = build(harness, source)
    script = Script(bytes(place), bytes(tmp_path))
    script.file(FT_REG, b"file", make_stat(0o100000), data=[(0, b"x")], blob=chunks)
    assert script.run(restorer).messages == []
    before, after = source.stat(), (place / "file").stat()
    for field in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_atime_ns"):
        assert getattr(after, field) == getattr(before, field), field
    assert read_xattrs(bytes(place / "file")) == xattrs


def test_the_crc_is_zlibs(harness):
    for data in (b"", b"123456789", bytes(range(256)) * 5):
        assert call(harness, "crc", stdin=data) == [str(zlib.crc32(data))]


def test_no_flipped_bit_passes_the_check(harness):
    one = stream_of(make_stat(0o100644), {b"user.a": b"1"})[0]
    assert call(harness, "check", 0, stdin=one)[0] == "check 0"
    assert call(harness, "check", 1, stdin=one)[0] == f"check -{errno.EBADMSG}"
    for bit in random.Random(5).sample(range(len(one) * 8), 60):
        damaged = bytearray(one)
        damaged[bit // 8] ^= 1 << bit % 8
        assert call(harness, "check", 0, stdin=bytes(damaged)) == [f"check -{errno.EBADMSG}"], bit
    for size in (0, 1, 15, 16, len(one) - 1):
        assert call(harness, "check", 0, stdin=one[:size]) == [f"check -{errno.EBADMSG}"], size


def test_unknown_items_are_passed_over(harness):
    items = stat_item(make_stat(0o100644)) + item(77, b"what", b"ever")
    items += item(ITEM_LOST, b"user.x", b"\5\0\0\0") + item(ITEM_END, b"", b"\3\0\0\0")
    one = struct.pack("<4sHHII", b"FBA1", 1, 0, len(items), zlib.crc32(items)) + items
    lines = call(harness, "check", 0, stdin=one)
    assert lines[0] == "check 0"
    assert lines[2:4] == ["item 77 what 65766572", "item 3 user.x 05000000"]
    assert lines[-1] == "items end 0"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_chunks_never_crash_the_reader(harness, seed):
    (line,) = call(harness, "fuzz", 100_000, seed)
    good, items = int(line.split()[1]), int(line.split()[3])
    assert good > 10
    assert items > 100


# Paths below a root.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "b" / "file").write_text("x")
    (path / "out").symlink_to(tmp_path)
    (path / "a" / "in").symlink_to("b")
    (tmp_path / "victim").write_text("x")
    return path


@pytest.mark.parametrize(
    ("path", "how", "expected"),
    [
        (b"", "dir", "/"),
        (b"a/b", "dir", "/a/b"),
        (b"a/b/file", "file", "/a/b/file"),
        (b"a/in", "path", "/a/in"),
        (b"a/in", "dir", errno.ELOOP),
        (b"a/in", "file", errno.ELOOP),
        (b"a/in/file", "file", errno.ELOOP),
        (b"out/victim", "file", errno.ELOOP),
        (b"out", "dir", errno.ELOOP),
        (b"..", "dir", errno.EXDEV),
        (b"../victim", "file", errno.EXDEV),
        (b"a/../a", "dir", errno.EXDEV),
        (b"/etc", "dir", errno.EXDEV),
        (b"a//b", "dir", errno.EINVAL),
        (b"a/./b", "dir", errno.EINVAL),
        (b"a/", "dir", errno.EINVAL),
        (b"a\0b", "dir", errno.EINVAL),
        (b"a/b/file", "dir", errno.ENOTDIR),
        (b"a/b/file/x", "file", errno.ENOTDIR),
        (b"a/c", "dir", errno.ENOENT),
        (b"a/" + b"n" * 256, "dir", errno.ENAMETOOLONG),
    ],
)
def test_paths_are_resolved_below_the_root_only(resolver, root, path, how, expected):
    (line,) = call(resolver, "open", root, how, stdin=path)
    if isinstance(expected, int):
        assert line == str(-expected)
    else:
        assert line == f"0 {root}{expected}".rstrip("/")


def test_a_path_of_20000_bytes_is_resolved_and_made(resolver, root):
    parts = [b"%03d" % i + b"d" * 200 for i in range(98)]
    path = b"/".join(parts)
    assert len(path) > 19_900
    name, line = call(resolver, "make", root, "4700", 0, stdin=path + b"/file")
    assert (name, line[:2]) == ("name file", "0 ")
    descriptor = os.open(root, os.O_RDONLY)
    for part in parts:
        descriptor = os.open(part, os.O_RDONLY, dir_fd=descriptor)
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o4700
    os.symlink("..", b"link", dir_fd=descriptor)
    # A descriptor's path may be longer than readlink gives: what counts is the 0.
    assert call(resolver, "open", root, "dir", stdin=path)[0].startswith("0 ")
    assert call(resolver, "open", root, "dir", stdin=path + b"/x") == [f"-{errno.ENOENT}"]
    assert call(resolver, "open", root, "dir", stdin=path + b"/link/x") == [f"-{errno.ELOOP}"]
    subprocess.run(["rm", "-rf", root], check=True)


def test_the_parent_is_opened_and_the_name_told(resolver, root):
    assert call(resolver, "parent", root, stdin=b"a/b/new") == ["name new", f"0 {root}/a/b"]
    assert call(resolver, "parent", root, stdin=b"new") == ["name new", f"0 {root}"]
    assert call(resolver, "parent", root, stdin=b"") == [f"-{errno.EINVAL}"]
    assert call(resolver, "parent", root, stdin=b"out/x") == [f"-{errno.ELOOP}"]
    assert call(resolver, "parent", root, stdin=b"a/..") == [f"-{errno.EXDEV}"]


def test_a_symlink_on_the_way_is_replaced_only_on_demand(resolver, root, tmp_path):
    assert call(resolver, "make", root, "700", 0, stdin=b"out/x/y") == [f"-{errno.ELOOP}"]
    assert (root / "out").is_symlink()
    assert call(resolver, "make", root, "700", 1, stdin=b"out/x/y")[1] == f"0 {root}/out/x"
    assert not (root / "out").is_symlink()
    assert stat.S_IMODE((root / "out/x").stat().st_mode) == 0o700
    assert not (tmp_path / "x").exists()
    # A file is not removed: that is for the caller to decide.
    expected = [f"-{errno.ENOTDIR}"]
    assert call(resolver, "make", root, "700", 1, stdin=b"a/b/file/x") == expected
