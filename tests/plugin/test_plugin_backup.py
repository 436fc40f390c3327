"""The backup side of the File Daemon plugin, called as the File Daemon calls it.

Covers: every kind of file, hard links, what fails on single files, what ends a job, cancel,
options and commands, bounds; under AddressSanitizer and ThreadSanitizer.
Does not cover: the frame parser on its own (test_frames.py), a real Bacula (tests/system).
"""

import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from tests.plugin.backup_support import (
    CHUNK,
    FO_OFFSETS,
    FT_DELETED,
    FT_LNKSAVED,
    FT_REG,
    FT_REGE,
    KEEPALIVE_MS,
    M_ERROR,
    M_FATAL,
    M_INFO,
    M_WARNING,
    SILENCE_MS,
    back_up,
    check_saved,
    entry_of,
    finish,
    start,
    statuses,
    write,
)
from tests.support.stream_bridge import (
    CHANGED,
    DELETED,
    FLAG_DELETED,
    FLAG_LIST_FAILED,
    FLAG_PATH_TOO_LONG,
    FLAG_STAT_FAILED,
    LINK,
    REPLACED,
    SAVED,
    SCAN_ERROR,
    SKIPPED,
    UNREADABLE,
    VANISHED,
    Entry,
    Limits,
    StreamBridge,
    entries_of_tree,
    split,
)
from tests.support.tree import make_tree, remove_tree

WAIT_S = 20.0
SMALL_WINDOW = Limits(threads=2, window=16, prefetch_bytes=3 << 20, large_file_bytes=4096)
LARGE = Limits(threads=2, prefetch_bytes=8 << 20, large_file_bytes=1 << 20)


@pytest.fixture
def big_tree(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "tree"
    make_tree(path, 1_500, 1, os.geteuid() == 0)
    yield path
    remove_tree(path)


@pytest.mark.parametrize("limits", [Limits(), SMALL_WINDOW, LARGE], ids=["wide", "narrow", "large"])
def test_every_kind_of_file_goes_to_bacula_as_it_is(backup_harness, out, big_tree, limits):
    shards = split(entries_of_tree(big_tree), 3)
    dumps, streams = back_up(backup_harness, out, big_tree, shards, limits=limits)
    for dump, stream, entries in zip(dumps, streams, shards, strict=True):
        assert dump.end == "T"
        assert dump.said(M_FATAL) + dump.said(M_ERROR) == []
        assert stream.done == (len(entries), sum(r.data_bytes for r in stream.receipts), 0)
        assert set(statuses(stream)) <= {SAVED, LINK, SKIPPED}
        check_saved(big_tree, entries, dump, stream)


def test_read_sizes_that_divide_nothing_change_no_byte(backup_harness, out, root):
    for number, size in enumerate((1, 4095, 70_001, 3 * CHUNK + 17)):
        write(root / f"file{number}", size)
    with open(root / "sparse", "wb") as file:
        for offset in (5_000_000, 9_000_000, 12_345_678):
            file.seek(offset)
            file.write(b"data")
        file.truncate(20_000_001)
    entries = entries_of_tree(root)
    dumps, streams = back_up(backup_harness, out, root, [entries], limits=LARGE, count=7777)
    check_saved(root, entries, dumps[0], streams[0])


def test_holes_of_small_and_large_files_are_left_out(backup_harness, out, root):
    for name, size in (("small", 600_000), ("large", 64 << 20)):
        with open(root / name, "wb") as file:
            file.seek(200_000)
            file.write(b"x" * 4096)
            file.truncate(size)
    (root / "hole").touch()
    os.truncate(root / "hole", 1 << 40)
    entries = entries_of_tree(root)
    dumps, streams = back_up(backup_harness, out, root, [entries], limits=LARGE)
    check_saved(root, entries, dumps[0], streams[0])
    sent = {saved.fname.rpartition(b"/")[2]: saved for saved in dumps[0].files}
    for name in (b"small", b"large", b"hole"):
        assert sent[name].flags == FO_OFFSETS
        assert sum(size for _, size in sent[name].extents) < 20_000


def test_a_root_directory_of_slash_gives_single_slashes(backup_harness, out, root):
    name = os.fsencode(write(root / "file", 10))[1:]
    entry = entry_of(root, "file", path=name)
    dumps, _ = back_up(backup_harness, out, Path("/"), [[entry]])
    assert [saved.fname for saved in dumps[0].files] == [b"/" + name]


def test_an_empty_shard_is_a_good_job(backup_harness, out, root):
    dumps, streams = back_up(backup_harness, out, root, [[]])
    assert (dumps[0].end, dumps[0].files, streams[0].done) == ("T", [], (0, 0, 0))


def test_hello_tells_the_bridge_who_asks(backup_harness, out, root):
    _, (stream,) = back_up(backup_harness, out, root, [[]], level="I", dataset="scratch.1")
    assert (stream.shard, stream.shards, stream.jobid) == (0, 1, 100)
    assert (stream.level, stream.since) == ("I", 1_700_000_000)
    job, previous = "job0.2026-02-03_04.05.06_07", "previous.2026-01-01_00.00.00_03"
    assert stream.names == ("scratch.1", job, previous, "mover-fd")


def test_what_fails_on_one_file_is_one_warning_and_a_receipt(backup_harness, out, root):
    for name in ("gone", "swapped", "retyped", "directory-swapped", "good"):
        write(root / name, 100)
    names = ("gone", "swapped", "retyped", "good")
    entries = [entry_of(root, name) for name in names]
    (root / "gone").unlink()
    (root / "keep").hardlink_to(root / "swapped")  # so that its inode number is not used again
    (root / "swapped").unlink()
    write(root / "swapped", 5)
    (root / "retyped").unlink()
    (root / "retyped").symlink_to("/etc/passwd")
    (root / "socket").touch()
    entries += [
        Entry(b"unlisted", 5, 0, stat.S_IFDIR | 0o755, 2, errno.EACCES, FLAG_LIST_FAILED),
        Entry(b"unknown", 6, 0, 0, 0, errno.EIO, FLAG_STAT_FAILED),
        Entry(b"x/" * 32767 + b"x", 7, 0, 0, 0, errno.ENAMETOOLONG, FLAG_PATH_TOO_LONG),
        Entry(b"retyped/below", 8, 0, stat.S_IFREG | 0o644, 1),
        Entry(b"s", 9, 0, stat.S_IFSOCK | 0o644, 1),
    ]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    expected = [VANISHED, REPLACED, REPLACED, SAVED, *[SCAN_ERROR] * 3, REPLACED, SKIPPED]
    assert statuses(stream) == expected
    assert stream.done == (9, 100, 7)
    assert dump.end == "T"
    warnings = dump.said(M_ERROR)
    assert len(warnings) == 7
    for name, text in zip(
        ("gone", "swapped", "retyped", "unlisted", "unknown"), warnings[:5], strict=False
    ):
        assert f"{root}/{name}" in text
    assert "No such file or directory" in warnings[0]
    assert "Permission denied" in warnings[3]
    assert "Input/output error" in warnings[4]
    assert "65,535" in warnings[5]
    assert "1 sockets" in dump.said(M_INFO)[-1]
    for receipt in stream.receipts:
        assert (receipt.file_index > 0) == (receipt.status == SAVED)


def test_a_symlink_in_place_of_a_directory_is_not_followed(backup_harness, out, root, tmp_path):
    (root / "d").mkdir()
    entry = entry_of(root, "d/f") if write(root / "d/f", 10) else None
    (root / "d").rename(tmp_path / "elsewhere")
    (root / "d").symlink_to(tmp_path / "elsewhere")
    (dump,), (stream,) = back_up(backup_harness, out, root, [[entry]])
    assert (statuses(stream), dump.files) == ([REPLACED], [])


def test_names_with_control_bytes_cannot_forge_lines_in_the_job_log(backup_harness, out, root):
    entry = Entry(b"a\nbacula: fake\x1b[0m", 5, 0, stat.S_IFREG, 1)
    (dump,), _ = back_up(backup_harness, out, root, [[entry]])
    (text,) = dump.said(M_ERROR)
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "a\\012bacula: fake\\033[0m" in text


def test_only_a_hundred_files_are_named_in_the_job_log(backup_harness, out, root):
    entries = [Entry(b"gone%d" % i, i + 1, 0, stat.S_IFREG, 1) for i in range(150)]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    assert len(dump.said(M_ERROR)) == 100
    assert len(dump.said(M_WARNING)) == 1
    assert statuses(stream) == [VANISHED] * 150
    assert stream.done == (150, 0, 150)


def test_deleted_names_are_sent_as_such(backup_harness, out, root):
    entries = [
        Entry(b"gone", 5, 7, stat.S_IFREG | 0o644, 1, 0, FLAG_DELETED),
        Entry(b"gone-too", 6, 0, stat.S_IFDIR | 0o755, 2, 0, FLAG_DELETED),
        entry_of(root, ".", path=b""),
    ]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], level="I")
    assert statuses(stream) == [DELETED, DELETED, SAVED]
    assert [saved.type for saved in dump.files[:2]] == [FT_DELETED] * 2
    base = os.fsencode(root)
    assert [saved.fname for saved in dump.files] == [
        base + b"/gone",
        base + b"/gone-too/",
        base + b"/",
    ]


@pytest.mark.parametrize("size", [0, 1000, 3 * CHUNK + 5])
def test_the_next_name_becomes_the_first_when_the_first_is_gone(backup_harness, out, root, size):
    write(root / "a", size)
    for name in ("b", "c", "d"):
        (root / name).hardlink_to(root / "a")
    entries = [entry_of(root, name) for name in "abcd"]
    (root / "a").unlink()
    (root / "c").unlink()
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], limits=LARGE)
    assert statuses(stream) == [VANISHED, SAVED, VANISHED, LINK]
    first, second = dump.files
    assert first.type == (FT_REG if size else FT_REGE)
    assert (second.type, second.link, second.link_index) == (FT_LNKSAVED, first.fname, 1)
    assert stream.receipts[1].hash == xxhash.xxh3_128((root / "b").read_bytes()).digest()


def test_a_group_without_its_first_name_takes_nothing_from_the_one_before(
    backup_harness, out, root
):
    for first, second in ("ab", "cd"):
        write(root / first, 10)
        (root / second).hardlink_to(root / first)
    entries = [entry_of(root, name) for name in "abcd"]
    (root / "c").unlink()
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    assert statuses(stream) == [SAVED, LINK, VANISHED, SAVED]
    assert [saved.type for saved in dump.files] == [FT_REG, FT_LNKSAVED, FT_REG]


def test_a_further_name_that_is_another_inode_now_is_not_linked(backup_harness, out, root):
    write(root / "a", 10)
    (root / "b").hardlink_to(root / "a")
    entries = [entry_of(root, name) for name in "ab"]
    (root / "b").unlink()
    write(root / "b", 10)
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    assert statuses(stream) == [SAVED, REPLACED]
    assert len(dump.files) == 1


def test_a_read_error_in_a_small_file_sends_nothing_of_it(backup_harness, out, root):
    write(root / "bad", 5000)
    write(root / "good", 5000)
    entries = [entry_of(root, "bad"), entry_of(root, "good")]
    fault = f"eio:{entries[0].ino}:1000"
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], fault=fault)
    assert statuses(stream) == [UNREADABLE, SAVED]
    assert stream.receipts[0].error == errno.EIO
    assert len(dump.files) == 1
    assert len(dump.said(M_ERROR)) == 1


def test_a_read_error_in_a_large_file_stops_it_and_not_the_job(backup_harness, out, root):
    write(root / "bad", 5 * CHUNK)
    write(root / "good", 5000)
    entries = [entry_of(root, "bad"), entry_of(root, "good")]
    fault = f"eio:{entries[0].ino}:{2 * CHUNK + 100}"
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], limits=LARGE, fault=fault)
    assert statuses(stream) == [UNREADABLE, SAVED]
    assert (stream.receipts[0].error, stream.receipts[0].file_index) == (errno.EIO, 1)
    assert dump.files[0].extents == [(0, 2 * CHUNK + 100)]
    (text,) = dump.said(M_ERROR)
    assert f"{root}/bad" in text
    assert dump.end == "T"


def test_a_large_file_that_cannot_be_read_does_not_become_the_first_name(backup_harness, out, root):
    write(root / "a", 2 * CHUNK)
    (root / "b").hardlink_to(root / "a")
    entries = [entry_of(root, "a"), entry_of(root, "b")]
    fault = f"eio:{entries[0].ino}:{CHUNK}"
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], limits=LARGE, fault=fault)
    assert statuses(stream) == [UNREADABLE, UNREADABLE]
    assert [saved.type for saved in dump.files] == [FT_REG, FT_REG]


@pytest.mark.parametrize("left", [0, 1, 3000])
def test_a_small_file_that_shrinks_is_saved_in_the_size_that_was_read(
    backup_harness, out, root, left
):
    write(root / "log", 5000)
    entries = [entry_of(root, "log", ctime_ns=0)]  # else it would be read again
    fault = f"shrink:{entries[0].ino}:{left}"
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], fault=fault)
    assert statuses(stream) == [CHANGED]
    (saved,) = dump.files
    assert (saved.size, sum(size for _, size in saved.extents)) == (left, left)
    assert stream.receipts[0].size == left
    assert stream.receipts[0].hash == xxhash.xxh3_128((root / "log").read_bytes()).digest()
    (text,) = dump.said(M_ERROR)
    assert "changed while it was read" in text


@pytest.mark.parametrize("left", [0, 3 * CHUNK - 5])
def test_a_large_file_that_shrinks_is_filled_with_zeros(backup_harness, out, root, left):
    data = write(root / "log", 6 * CHUNK).read_bytes()
    entries = [entry_of(root, "log")]
    fault = f"shrink:{entries[0].ino}:{left}"
    limits = Limits(threads=1, prefetch_bytes=1 << 20, large_file_bytes=CHUNK)
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], limits=limits, fault=fault)
    assert statuses(stream) == [CHANGED]
    assert (dump.files[0].size, dump.files[0].extents) == (6 * CHUNK, [(0, 6 * CHUNK)])
    sent = data[:left].ljust(6 * CHUNK, b"\0")
    assert stream.receipts[0].hash == xxhash.xxh3_128(sent).digest()
    assert len(dump.said(M_ERROR)) == 1


def test_a_sparse_file_that_shrinks_gets_one_byte_at_its_end(backup_harness, out, root):
    with open(root / "image", "wb") as file:
        file.write(os.urandom(2 * CHUNK))
        file.truncate(1 << 30)
    entries = [entry_of(root, "image")]
    fault = f"shrink:{entries[0].ino}:{CHUNK}"
    # One thread: another one could have read the second chunk before the file shrinks.
    limits = replace(LARGE, threads=1)
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], limits=limits, fault=fault)
    assert statuses(stream) == [CHANGED]
    assert dump.files[0].extents == [(0, CHUNK), ((1 << 30) - 1, 1)]


def await_file(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_large_file_that_grows_is_sent_in_the_size_it_had(backup_harness, out, root):
    write(root / "log", 3 * CHUNK)
    entries = [entry_of(root, "log")]
    with StreamBridge(out / "socket", root, [entries], limits=LARGE) as bridge:
        process = start(backup_harness, out, 1, {"socket": out / "socket", "pause": 0})
        await_file(out / "waiting")
        with open(root / "log", "ab") as file:
            file.write(b"more")
        (out / "go").touch()
        result = finish(process, out, 1)
        stream = bridge.stream(0)
    assert (result.returncode, result.stderr) == (0, "")
    assert statuses(stream) == [CHANGED]
    assert result.dumps[0].files[0].extents == [(0, 3 * CHUNK)]


def test_keepalives_go_out_in_time_while_the_daemon_is_busy(backup_harness, out, root):
    write(root / "file", 100)
    entries = [entry_of(root, "file")]
    with StreamBridge(out / "socket", root, [entries]) as bridge:
        process = start(backup_harness, out, 1, {"socket": out / "socket", "pause": 0})
        await_file(out / "waiting")
        deadline = time.monotonic() + 5 * SILENCE_MS / 1000
        while bridge.streams[0].keepalives < 10:
            assert time.monotonic() < deadline
            time.sleep(KEEPALIVE_MS / 1000)
        (out / "go").touch()
        assert finish(process, out, 1).dumps[0].end == "T"


def test_long_paths_wait_in_the_socket_and_that_is_not_silence(backup_harness, out, root):
    write(root / "file", 100)
    long_path = b"/".join([b"x" * 200] * 320)
    gone = [Entry(long_path + b"%d" % i, i + 1, 0, stat.S_IFREG, 1) for i in range(1300)]
    entries = [entry_of(root, "file"), *gone]
    assert sum(len(entry.path) for entry in entries) > 72 << 20
    with StreamBridge(out / "socket", root, [entries]) as bridge:
        process = start(backup_harness, out, 1, {"socket": out / "socket", "pause": 0})
        await_file(out / "waiting")
        deadline = time.monotonic() + WAIT_S
        while bridge.streams[0].keepalives < 2 * SILENCE_MS / KEEPALIVE_MS:
            assert time.monotonic() < deadline
            time.sleep(KEEPALIVE_MS / 1000)
        (out / "go").touch()
        result = finish(process, out, 1)
        assert (result.returncode, result.stderr, result.dumps[0].end) == (0, "", "T")
        assert statuses(bridge.stream(0)) == [SAVED] + [VANISHED] * len(gone)


def test_eight_jobs_at_once_share_nothing(backup_harness, out, root):
    for number in range(400):
        write(root / f"file{number}", 37 * number)
    shards = split(entries_of_tree(root), 8)
    dumps, streams = back_up(backup_harness, out, root, shards, limits=SMALL_WINDOW)
    for dump, stream, entries in zip(dumps, streams, shards, strict=True):
        check_saved(root, entries, dump, stream)
