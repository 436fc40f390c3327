"""The restore side of the File Daemon plugin, called as the File Daemon calls it.

Covers: every kind of file, replace modes, the borders of the restore place, what stands in the
way, deferred attributes of directories, damaged attributes, unprivileged restores, messages.
Does not cover: the stream of attributes and path resolution alone (test_blob.py), a real Bacula.
"""

import errno
import os
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from tests.plugin.restore_support import (
    CF_CREATED,
    CF_ERROR,
    CF_EXTRACT,
    FT_DIREND,
    FT_LNK,
    FT_LNKSAVED,
    FT_REG,
    FT_REGE,
    FT_SPEC,
    ITEM_LOST,
    ITEM_XATTR,
    M_ERROR,
    M_INFO,
    M_SKIPPED,
    M_WARNING,
    RESTORE_SOURCES,
    Script,
    add_tree,
    assert_quiet,
    chunk,
    compile_c,
    item,
    make_stat,
    names,
    read_xattrs,
    stat_item,
    stream,
    stream_of,
)
from tests.support.compare import compare_trees, format_differences
from tests.support.making import encode_acl
from tests.support.tree import make_tree, remove_tree

NOBODY = 65534
ACCESS_ACL, DEFAULT_ACL = b"system.posix_acl_access", b"system.posix_acl_default"
# user::rwx user:1234:rwx group::r-x mask::rwx other::---
ACL = encode_acl(
    [(1, 7, 0xFFFFFFFF), (2, 7, 1234), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_a_file_comes_back_with_data_mode_owner_and_nanoseconds(harness, script, place):
    st = make_stat(0o100640, -1_000_000_000, nanoseconds=999_999_999)
    data = [(0, b"hello "), (6, b"world")]
    script.file(FT_REG, b"a/file", st, data=data)
    outcome = script.run(harness)
    assert outcome.created == [CF_EXTRACT]
    assert "size 11" in outcome.lines
    got = (place / "a" / "file").stat()
    assert (place / "a" / "file").read_bytes() == b"hello world"
    assert stat.S_IMODE(got.st_mode) == 0o640
    assert got.st_mtime_ns == got.st_atime_ns == -1_000_000_000 * 10**9 + 999_999_999
    assert_quiet(outcome)


def test_holes_stay_holes_and_the_end_is_told(harness, script, place):
    data = [(4 << 20, b"x" * 4096), ((100 << 20) - 1, b"\0")]
    script.file(FT_REG, b"sparse", data=data)
    outcome = script.run(harness)
    assert f"seek {4 << 20}" in outcome.lines
    assert f"size {100 << 20}" in outcome.lines
    got = (place / "sparse").stat()
    assert got.st_size == 100 << 20
    assert got.st_blocks * 512 < 1 << 20


def test_a_hole_at_the_end_takes_no_block(harness, script, place):
    script.file(FT_REG, b"hole", data=[((1 << 30) - 1, b"\0")])
    script.file(FT_REG, b"byte", data=[((1 << 30) - 1, b"\1")])
    script.run(harness)
    assert [(place / n).stat().st_size for n in ("hole", "byte")] == [1 << 30] * 2
    assert (place / "hole").stat().st_blocks == 0
    with open(place / "byte", "rb") as file:
        assert os.pread(file.fileno(), 2, (1 << 30) - 2) == b"\0\1"


# A file that does not have its saved size.


def assert_left_as_failed(path: Path) -> None:
    got = path.stat()
    assert stat.S_IMODE(got.st_mode) == 0o600
    assert got.st_mtime > 1_100_000_000


@pytest.mark.parametrize("stream_came", [True, False])
@pytest.mark.parametrize(
    ("data", "came"),
    [
        ([], 0),
        ([(0, b"x" * 4096)], 4096),
        ([(1 << 20, b"x" * 10)], (1 << 20) + 10),
        ([((1 << 20) + 99, b"\0")], (1 << 20) + 100),
    ],
    ids=["nothing", "the beginning", "a hole and data", "a hole"],
)
def test_a_file_shorter_than_it_was_saved_is_an_error_and_does_not_look_whole(
    harness, script, place, data, came, stream_came
):
    saved = 5 << 20
    blob = None if stream_came else []
    script.file(FT_REG, b"d/short", mode=0o100755, data=data, size=saved, blob=blob)
    script.file(FT_REG, b"d/whole", mode=0o100755, data=[(0, b"x")])
    outcome = script.run(harness)
    assert outcome.texts(M_ERROR) == [
        f"{place}/d/short: the backup of this file is incomplete: {came} of {saved} bytes came;"
        " take it from another run"
    ]
    assert outcome.texts(M_WARNING) == []
    assert (place / "d/short").stat().st_size == came
    assert_left_as_failed(place / "d/short")
    assert stat.S_IMODE((place / "d/whole").stat().st_mode) == 0o755


def test_a_file_longer_than_it_was_saved_is_an_error_too(harness, script, place):
    script.file(FT_REG, b"long", mode=0o100755, data=[(0, b"hello")], size=4)
    outcome = script.run(harness)
    assert "long: the backup of this file is damaged: 5 of 4 bytes came" in names(outcome, M_ERROR)
    assert_left_as_failed(place / "long")


def test_the_size_of_the_stream_counts_not_that_of_the_record(harness, script, place):
    st = make_stat(0o100755, size=5)
    script.file(FT_REG, b"file", st, data=[(0, b"hello")], size=99, blob=stream_of(st))
    assert_quiet(script.run(harness))
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o755


def test_empty_files_sparse_ends_and_zeros_for_what_shrank_have_their_size(harness, script, place):
    whole = {
        b"empty": (FT_REGE, []),
        b"hole": (FT_REG, [((1 << 20) - 1, b"\0")]),
        b"data and hole": (FT_REG, [(0, b"x" * 4096), ((1 << 20) - 1, b"\0")]),
        b"shrunk": (FT_REG, [(0, b"x" * 10), (10, b"\0" * 4086)]),
        b"one zero": (FT_REG, [(0, b"\0")]),
    }
    for name, (kind, data) in whole.items():
        script.file(kind, name, mode=0o100755, data=data)
    assert_quiet(script.run(harness))
    for name in whole:
        got = (place / name.decode()).stat()
        assert stat.S_IMODE(got.st_mode) == 0o755
        assert got.st_mtime_ns == make_stat(0).st_mtime_ns


def test_symlinks_fifos_and_hard_links_come_back(harness, script, place):
    script.file(FT_REG, b"one", data=[(0, b"1")])
    script.file(FT_LNKSAVED, b"d/two", link=b"one", blob=[])
    script.file(FT_LNK, b"link", link=b"../nowhere/at all")
    script.file(FT_SPEC, b"fifo", make_stat(stat.S_IFIFO | 0o620))
    outcome = script.run(harness)
    assert outcome.created == [CF_EXTRACT, CF_CREATED, CF_CREATED, CF_EXTRACT]
    assert (place / "one").stat().st_ino == (place / "d" / "two").stat().st_ino
    assert os.readlink(place / "link") == "../nowhere/at all"
    assert (place / "link").lstat().st_mtime_ns == make_stat(0).st_mtime_ns
    assert stat.S_ISFIFO((place / "fifo").lstat().st_mode)
    assert (place / "fifo").lstat().st_mode & 0o7777 == 0o620
    assert (place / "one").stat().st_mtime_ns == make_stat(0).st_mtime_ns
    assert_quiet(outcome)


@needs_root
def test_devices_and_sockets_come_back(harness, script, place):
    kinds = {b"null": (stat.S_IFCHR, os.makedev(1, 3)), b"disk": (stat.S_IFBLK, os.makedev(7, 99))}
    for name, (kind, rdev) in kinds.items():
        script.file(FT_SPEC, name, make_stat(kind | 0o640, rdev=rdev, uid=12))
    script.file(FT_SPEC, b"socket", make_stat(stat.S_IFSOCK | 0o600))
    assert_quiet(script.run(harness))
    for name, (kind, rdev) in kinds.items():
        got = (place / name.decode()).lstat()
        assert (stat.S_IFMT(got.st_mode), got.st_rdev, got.st_uid) == (kind, rdev, 12)
        assert got.st_mtime_ns == make_stat(0).st_mtime_ns
    assert stat.S_ISSOCK((place / "socket").lstat().st_mode)


@needs_root
def test_owners_up_to_the_largest_id_and_xattrs_of_every_space_come_back(harness, script, place):
    xattrs = {
        b"user.long": b"v" * 3000,
        b"user.empty": b"",
        b"trusted.secret": b"\0\xff",
        b"security.capability": CAPABILITY,
        ACCESS_ACL: ACL,
    }
    st = make_stat(0o104770, uid=2**32 - 2, gid=2**32 - 2, size=1)
    script.file(FT_REG, b"file", st, blob=stream_of(st, xattrs), data=[(0, b"x")])
    outcome = script.run(harness)
    got = (place / "file").stat()
    assert (got.st_uid, got.st_gid) == (2**32 - 2, 2**32 - 2)
    assert stat.S_IMODE(got.st_mode) == 0o4770
    assert read_xattrs(bytes(place / "file")) == xattrs
    assert_quiet(outcome)


@needs_root
@pytest.mark.parametrize("always_stream", [False, True], ids=["as needed", "as it once was"])
def test_every_kind_of_tree_comes_back_without_a_difference(
    harness, script, place, tmp_path, always_stream
):
    source = tmp_path / "source"
    make_tree(source, 600, 1, True)
    add_tree(script, bytes(source), b"data/tree", always_stream=always_stream)
    outcome = script.run(harness)
    differences = compare_trees(source, place / "data" / "tree")
    assert not differences, format_differences(differences)
    assert names(outcome, M_ERROR) == ""
    assert names(outcome, M_WARNING) == ""
    for tree in (source, place):  # with paths that pytest could not remove
        remove_tree(tree)


# Directories.


def test_parents_without_an_entry_become_0700_and_the_others_what_was_saved(harness, script, place):
    script.file(FT_REG, b"a/b/c/file")
    script.file(FT_DIREND, b"a/b", mode=0o40751)
    script.run(harness)
    modes = [stat.S_IMODE((place / p).stat().st_mode) for p in ("a", "a/b", "a/b/c")]
    assert modes == [0o700, 0o751, 0o700]


@pytest.mark.parametrize("replace", ["a", "w", "o", "n"])
def test_a_later_job_gives_directories_that_earlier_ones_made_their_attributes(
    harness, script, place, replace
):
    """The shards are restored by a job each, their directories by one more."""
    script.replace = replace
    for shard in range(2):
        script.lines.clear()
        script.file(FT_REG, b"a/b/file %d" % shard, data=[(0, b"x")])
        assert_quiet(script.run(harness))
        left = stat.S_IMODE((place / "a/b").stat().st_mode)
        assert left == (0o700 if replace == "a" else 0o4700)
    script.lines.clear()
    for path in (b"a/b", b"a"):
        script.file(FT_DIREND, path, mode=0o40555)
    outcome = script.run(harness)
    assert outcome.created == [CF_CREATED] * 2
    for path in ("a", "a/b"):
        got = (place / path).stat()
        assert stat.S_IMODE(got.st_mode) == 0o555
        assert got.st_mtime_ns == make_stat(0).st_mtime_ns
    assert_quiet(outcome)


def test_the_later_of_two_entries_of_a_directory_wins(harness, script, place):
    first = make_stat(0o40700)
    script.file(FT_DIREND, b"d", first, blob=stream_of(first, {b"user.a": b"1"}))
    second = make_stat(0o40711, 77)
    script.file(FT_DIREND, b"d", second, blob=stream_of(second, {b"user.b": b"2"}))
    script.run(harness)
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o711
    assert (place / "d").stat().st_mtime_ns == second.st_mtime_ns
    assert read_xattrs(bytes(place / "d")) == {b"user.b": b"2"}


def test_attributes_of_directories_come_after_a_cancel_too(harness, script, place):
    script.file(FT_DIREND, b"d", mode=0o40511)
    script.lines.append("cancel")
    script.file(FT_REG, b"e/cut", mode=0o100755, data=[(0, b"x")])
    script.run(harness)
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o511
    assert stat.S_IMODE((place / "e").stat().st_mode) == 0o700
    # The file may be cut off: it must not look like the whole one.
    got = (place / "e/cut").stat()
    assert stat.S_IMODE(got.st_mode) == 0o600
    assert got.st_mtime > 1_100_000_000


@pytest.mark.parametrize(
    "uid", [pytest.param(0, marks=needs_root), pytest.param(NOBODY, marks=needs_root)]
)
def test_two_shards_share_read_only_directories_with_default_acls(
    harness, script, place, tmp_path, uid
):
    source = tmp_path / "source"
    for i in range(4):
        directory = source / f"d{i}" / "e"
        directory.mkdir(parents=True)
        for j in range(6):
            (directory / f"f{j}").write_text(f"{i} {j}")
            (directory.parent / f"g{j}").write_text(f"{i} {j}")
        for path in (directory, directory.parent):
            os.setxattr(path, DEFAULT_ACL, ACL)
            os.setxattr(path, ACCESS_ACL, ACL)
            os.setxattr(path, "user.note", b"x")
    for path in [source, *source.rglob("*")]:
        os.chown(path, uid, uid)
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
        os.utime(path, ns=(10**18 + 1, 10**18 + 3))
    os.chown(place, uid, uid)
    script.uid = uid
    add_tree(script, bytes(source), b"", (0, 2))
    script.lines = [
        line.replace(script.where.hex() + "2f2f", script.where.hex() + "2f")
        for line in script.lines
    ]
    other = Script(script.where, script.work_dir, uid=uid)
    add_tree(other, bytes(source), b"", (1, 2))
    script.lines += [
        line.replace(script.where.hex() + "2f2f", script.where.hex() + "2f") for line in other.lines
    ]
    for _ in range(2):  # into the empty place, then over itself
        outcome = script.run(harness)
        assert_quiet(outcome)
        differences = compare_trees(source, place)
        assert not differences, format_differences(differences)


@needs_root
def test_directories_that_their_owner_may_not_enter_are_done_deepest_first(harness, script, place):
    os.chown(place, NOBODY, NOBODY)
    script.uid = NOBODY
    modes = {b"d": 0o40000, b"d/e": 0o40600, b"d/e/f": 0o40444}
    script.file(FT_REG, b"d/e/f/file", make_stat(0o100644, uid=NOBODY, gid=NOBODY))
    for path, mode in modes.items():
        st = make_stat(mode, uid=NOBODY, gid=NOBODY)
        script.file(FT_DIREND, path, st, blob=stream_of(st, {b"user.a": path}))
    for _ in range(2):
        assert_quiet(script.run(harness))
        for path, mode in modes.items():
            got = os.stat(bytes(place) + b"/" + path)
            assert stat.S_IMODE(got.st_mode) == stat.S_IMODE(mode)
            assert got.st_mtime_ns == make_stat(0).st_mtime_ns
            assert read_xattrs(bytes(place) + b"/" + path) == {b"user.a": path}


@needs_root
def test_a_read_only_directory_outside_of_the_selection_gets_its_mode_back(harness, script, place):
    (place / "d").mkdir()
    for path in (place / "d", place):
        os.chown(path, NOBODY, NOBODY)
    (place / "d").chmod(0o555)
    script.uid = NOBODY
    script.file(FT_REG, b"d/e/file", make_stat(0o100644, uid=NOBODY, gid=NOBODY))
    outcome = script.run(harness)
    assert outcome.created == [CF_EXTRACT]
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o555
    assert_quiet(outcome)


def test_a_default_acl_of_the_place_leaves_nothing_on_what_is_restored(harness, script, place):
    os.setxattr(place, DEFAULT_ACL, ACL)
    script.file(FT_REG, b"file", mode=0o100640)
    script.file(FT_REG, b"bare", mode=0o100640, blob=[])
    script.file(FT_SPEC, b"fifo", make_stat(stat.S_IFIFO | 0o640))
    script.file(FT_DIREND, b"d", mode=0o40750)
    script.run(harness)
    for name in ("file", "bare", "fifo", "d"):
        assert read_xattrs(bytes(place / name)) == {}
        assert stat.S_IMODE((place / name).stat().st_mode) in (0o640, 0o750)


def test_xattrs_that_were_not_saved_go_but_lost_ones_stay(harness, script, place):
    (place / "d").mkdir()
    for name in ("user.old", "user.lost", "user.kept"):
        os.setxattr(place / "d", name, b"there")
    st = make_stat(0o40755)
    items = [
        stat_item(st),
        item(ITEM_XATTR, b"user.kept", b"saved"),
        item(ITEM_LOST, b"user.lost", struct.pack("<i", errno.EIO)),
    ]
    script.file(FT_DIREND, b"d", st, blob=stream(items))
    outcome = script.run(harness)
    assert read_xattrs(bytes(place / "d")) == {b"user.kept": b"saved", b"user.lost": b"there"}
    assert outcome.texts(M_WARNING) == [
        "1 xattrs are not in the backup, because they could not be read then."
    ]


def test_without_room_for_notes_directories_are_set_at_once(harness, script, place):
    script.work_dir = bytes(place) + b"/no/such/folder"
    script.file(FT_DIREND, b"d", mode=0o40711)
    outcome = script.run(harness)
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o711
    assert "/no/such/folder" in names(outcome, M_WARNING)
    assert "could not be kept for the end of the job" in names(outcome, M_ERROR)


# Attributes that are damaged, missing, or cannot be set.


def damaged_streams() -> dict[str, list[bytes]]:
    st = make_stat(0o100640, size=1)
    stat_one = stat_item(st)
    xattrs = [item(ITEM_XATTR, b"user.%d" % i, bytes([i]) * 60_000) for i in range(10)]
    whole = stream([stat_one, *xattrs])
    assert len(whole) == 3
    one = stream_of(st, {b"user.a": b"1"})[0]
    end = item(255, b"", struct.pack("<I", 2))
    return {
        "missing": [],
        "empty": [b""],
        "cut chunk": [one[:-1]],
        "longer chunk": [one + b"\0"],
        "flipped bit": [one[:40] + bytes([one[40] ^ 4]) + one[41:]],
        "wrong magic": [b"XBA1" + one[4:]],
        "wrong version": [one[:4] + b"\2" + one[5:]],
        "no end": [whole[0], whole[1]],
        "chunk left out": [whole[0], whole[2]],
        "swapped chunks": [whole[1], whole[0], whole[2]],
        "repeated chunk": [whole[0], whole[0], whole[1], whole[2]],
        "after the end": [*whole, chunk(3, xattrs[0])],
        "item after the end": [chunk(0, stat_one + xattrs[0] + end + xattrs[1])],
        "wrong count": [chunk(0, stat_one + xattrs[0] + item(255, b"", struct.pack("<I", 7)))],
        "no STAT": [chunk(0, xattrs[0] + item(255, b"", struct.pack("<I", 1)))],
        "two STAT": [chunk(0, stat_one + stat_one + end)],
        "short STAT": [chunk(0, item(1, b"", b"\0" * 95) + xattrs[0] + end)],
        "impossible time": [chunk(0, item(1, b"", b"\xff" * 96) + xattrs[0] + end)],
        "NUL in a name": [chunk(0, stat_one + item(2, b"user.\0x", b"") + end)],
        "long name": [chunk(0, stat_one + item(2, b"user." + b"x" * 300, b"") + end)],
        "length past the end": [
            chunk(0, stat_one + struct.pack("<HHI", 2, 5, 2**32 - 1) + b"user.")
        ],
    }


@pytest.mark.parametrize("what", sorted(damaged_streams()))
def test_of_a_damaged_stream_nothing_but_stat_is_applied(harness, script, place, what):
    script.file(FT_REG, b"file", mode=0o100640, data=[(0, b"x")], blob=damaged_streams()[what])
    script.file(FT_DIREND, b"d", mode=0o40711, blob=damaged_streams()[what])
    outcome = script.run(harness)
    got = (place / "file").stat()
    assert stat.S_IMODE(got.st_mode) == 0o640
    assert int(got.st_mtime) == 1_000_000_000
    assert read_xattrs(bytes(place / "file")) == read_xattrs(bytes(place / "d")) == {}
    warnings = outcome.texts(M_WARNING)
    assert len(warnings) == 2
    assert f"{place}/file: its attributes stream" in warnings[0]
    assert warnings[1].startswith("2 files in all")


def test_several_chunks_in_one_record_are_taken_apart(harness, script, place):
    st = make_stat(0o100640)
    items = [item(ITEM_XATTR, b"user.%d" % i, b"v" * 900) for i in range(3)]
    whole = stream([stat_item(st), *items])
    parts = [chunk(0, stat_item(st)), chunk(1, whole[0][16 + len(stat_item(st)) :])]
    script.file(FT_REG, b"file", st, blob=[b"".join(parts)])
    assert_quiet(script.run(harness))
    assert len(read_xattrs(bytes(place / "file"))) == 3


def test_a_stream_beyond_the_bound_is_refused(harness, script, place):
    st = make_stat(0o100640)
    xattrs = {b"user.%03d" % i: b"v" * 65_536 for i in range(340)}
    script.file(FT_REG, b"file", st, blob=stream_of(st, xattrs))
    outcome = script.run(harness)
    assert "is longer than any that a backup makes" in names(outcome, M_WARNING)
    assert read_xattrs(bytes(place / "file")) == {}


@needs_root
def test_an_unprivileged_restore_sums_up_what_it_may_not_set(harness, script, place):
    os.chown(place, NOBODY, NOBODY)
    script.uid = NOBODY
    st = make_stat(0o106755, uid=1000, gid=1000)
    xattrs = {b"trusted.t": b"1", b"security.capability": CAPABILITY, b"user.u": b"1"}
    for i in range(300):
        script.file(FT_REG, b"f%d" % i, st, blob=stream_of(st, xattrs))
    outcome = script.run(harness)
    assert outcome.created == [CF_EXTRACT] * 300
    assert len(outcome.messages) == 2
    assert outcome.texts(M_WARNING)[0].startswith("300 files could not be given their owner")
    assert outcome.texts(M_WARNING)[1].startswith("600 trusted. and security. xattrs")
    got = (place / "f7").stat()
    # A setuid file of another user must not become one of ours.
    assert (got.st_uid, stat.S_IMODE(got.st_mode)) == (NOBODY, 0o755)
    assert read_xattrs(bytes(place / "f7")) == {b"user.u": b"1"}


@needs_root
def test_an_unprivileged_restore_reports_each_device_it_cannot_make(harness, script, place):
    os.chown(place, NOBODY, NOBODY)
    script.uid = NOBODY
    script.file(FT_SPEC, b"null", make_stat(stat.S_IFCHR | 0o666, rdev=os.makedev(1, 3)))
    outcome = script.run(harness)
    assert outcome.created == [CF_ERROR]
    assert f"{place}/null: could not be made" in names(outcome, M_ERROR)


def test_messages_about_single_files_are_capped_and_counted(harness, script, place):
    (place / "d").mkdir()
    for i in range(130):
        script.file(FT_LNKSAVED, b"l%d" % i, link=b"missing", blob=[])
    script.replace = "n"
    for _ in range(120):
        script.file(FT_DIREND, b"d")
    outcome = script.run(harness)
    assert len(outcome.texts(M_ERROR)) == 101
    assert outcome.texts(M_ERROR)[-1] == "30 more errors were left out of this log."
    assert len(outcome.texts(M_SKIPPED)) == 100
    assert outcome.texts(M_INFO) == ["20 more files were skipped, as the replace mode says."]


def test_a_failed_write_is_told_and_leaves_no_file_that_looks_whole(
    harness, script, place, tmp_path
):
    script.file(FT_REG, b"file", mode=0o100755, data=[(2**63 - 3, b"beyond any file")])
    outcome = script.run(harness)
    assert any(line.startswith("io 3 failed") for line in outcome.lines)
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o600


def test_a_file_that_the_daemon_gives_up_gets_no_attributes(harness, script, place):
    script.file(FT_REG, b"file", mode=0o100755, data=[(0, b"x")], end="abandon")
    assert_quiet(script.run(harness))
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o600


def test_the_end_without_any_call_between_leaks_nothing(harness, script, place):
    script.file(FT_REG, b"file", data=[(0, b"x")], end="")
    script.run(harness)
    script.run(harness, end_job=False)


def test_two_restore_jobs_share_a_place_without_a_data_race(script, place, tmp_path):
    racing = compile_c(tmp_path / "racing", "harness_restore.c", RESTORE_SOURCES, "thread")
    done = subprocess.run(
        [racing, "threads", place, script.work_dir, "300"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("message")]
    assert "create failed" not in done.stdout
    assert not [line for line in lines if "failed" in line]
    files = [p for p in place.rglob("f*") if p.is_file()]
    assert len(files) == 400
    assert all(p.stat().st_mode & 0o7777 in (0o644, 0o600) for p in files)
    assert all(not p.stat().st_mode & 0o4000 for p in place.rglob("*") if p.is_dir())
