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
    Dump,
    back_up,
    check_saved,
    compile_harness,
    finish,
    run,
    start,
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
    Misbehaviour,
    Stream,
    StreamBridge,
    entries_of_tree,
    split,
)
from tests.support.tree import make_tree, remove_tree

WAIT_S = 20.0
SMALL_WINDOW = Limits(threads=2, window=16, prefetch_bytes=1, large_file_bytes=4096)
LARGE = Limits(threads=2, prefetch_bytes=8 << 20, large_file_bytes=1 << 20)
HARMLESS = {Misbehaviour.NONE, Misbehaviour.SLOW, Misbehaviour.STALL}
FATAL_WAYS = [way for way in Misbehaviour if way not in HARMLESS]


@pytest.fixture(scope="session", params=["address,undefined", "thread"])
def harness(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_harness(tmp_path_factory.mktemp("harness") / "backup", request.param)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def big_tree(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "tree"
    make_tree(path, 1_500, 1, os.geteuid() == 0)
    yield path
    remove_tree(path)


def write(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def entry_of(root: Path, name: str, **changes: object) -> Entry:
    info = os.lstat(root / name)
    fields = {
        "path": os.fsencode(name),
        "ino": info.st_ino,
        "size": info.st_size,
        "mode": info.st_mode,
        "nlink": info.st_nlink,
    }
    return Entry(**(fields | changes))


def statuses(stream: Stream) -> list[int]:
    return [receipt.status for receipt in stream.receipts]


def assert_fails(dump: Dump, stream: Stream | None = None) -> str:
    assert dump.end == "f"
    if stream is not None:
        assert stream.done is None or len(stream.receipts) == stream.done[0]
    return dump.fatal


@pytest.mark.parametrize("limits", [Limits(), SMALL_WINDOW, LARGE], ids=["wide", "narrow", "large"])
def test_every_kind_of_file_goes_to_bacula_as_it_is(harness, out, big_tree, limits):
    shards = split(entries_of_tree(big_tree), 3)
    dumps, streams = back_up(harness, out, big_tree, shards, limits=limits)
    for dump, stream, entries in zip(dumps, streams, shards, strict=True):
        assert dump.end == "T"
        assert dump.said(M_FATAL) + dump.said(M_ERROR) == []
        assert stream.done == (len(entries), sum(r.data_bytes for r in stream.receipts), 0)
        assert set(statuses(stream)) <= {SAVED, LINK, SKIPPED}
        check_saved(big_tree, entries, dump, stream)


def test_read_sizes_that_divide_nothing_change_no_byte(harness, out, root):
    for number, size in enumerate((1, 4095, 70_001, 3 * CHUNK + 17)):
        write(root / f"file{number}", size)
    with open(root / "sparse", "wb") as file:
        for offset in (5_000_000, 9_000_000, 12_345_678):
            file.seek(offset)
            file.write(b"data")
        file.truncate(20_000_001)
    entries = entries_of_tree(root)
    dumps, streams = back_up(harness, out, root, [entries], limits=LARGE, count=7777)
    check_saved(root, entries, dumps[0], streams[0])


def test_holes_of_small_and_large_files_are_left_out(harness, out, root):
    for name, size in (("small", 600_000), ("large", 64 << 20)):
        with open(root / name, "wb") as file:
            file.seek(200_000)
            file.write(b"x" * 4096)
            file.truncate(size)
    (root / "hole").touch()
    os.truncate(root / "hole", 1 << 40)
    entries = entries_of_tree(root)
    dumps, streams = back_up(harness, out, root, [entries], limits=LARGE)
    check_saved(root, entries, dumps[0], streams[0])
    sent = {saved.fname.rpartition(b"/")[2]: saved for saved in dumps[0].files}
    for name in (b"small", b"large", b"hole"):
        assert sent[name].flags == FO_OFFSETS
        assert sum(size for _, size in sent[name].extents) < 20_000


def test_a_root_directory_of_slash_gives_single_slashes(harness, out, root):
    name = os.fsencode(write(root / "file", 10))[1:]
    entry = entry_of(root, "file", path=name)
    dumps, _ = back_up(harness, out, Path("/"), [[entry]])
    assert [saved.fname for saved in dumps[0].files] == [b"/" + name]


def test_an_empty_shard_is_a_good_job(harness, out, root):
    dumps, streams = back_up(harness, out, root, [[]])
    assert (dumps[0].end, dumps[0].files, streams[0].done) == ("T", [], (0, 0, 0))


def test_hello_tells_the_bridge_who_asks(harness, out, root):
    _, (stream,) = back_up(harness, out, root, [[]], level="I", dataset="scratch.1")
    assert (stream.shard, stream.shards, stream.jobid) == (0, 1, 100)
    assert (stream.level, stream.since) == ("I", 1_700_000_000)
    job, previous = "job0.2026-02-03_04.05.06_07", "previous.2026-01-01_00.00.00_03"
    assert stream.names == ("scratch.1", job, previous, "mover-fd")


def test_what_fails_on_one_file_is_one_warning_and_a_receipt(harness, out, root):
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
    (dump,), (stream,) = back_up(harness, out, root, [entries])
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


def test_a_symlink_in_place_of_a_directory_is_not_followed(harness, out, root, tmp_path):
    (root / "d").mkdir()
    entry = entry_of(root, "d/f") if write(root / "d/f", 10) else None
    (root / "d").rename(tmp_path / "elsewhere")
    (root / "d").symlink_to(tmp_path / "elsewhere")
    (dump,), (stream,) = back_up(harness, out, root, [[entry]])
    assert (statuses(stream), dump.files) == ([REPLACED], [])


def test_names_with_control_bytes_cannot_forge_lines_in_the_job_log(harness, out, root):
    entry = Entry(b"a\nbacula: fake\x1b[0m", 5, 0, stat.S_IFREG, 1)
    (dump,), _ = back_up(harness, out, root, [[entry]])
    (text,) = dump.said(M_ERROR)
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "a\\012bacula: fake\\033[0m" in text


def test_only_a_hundred_files_are_named_in_the_job_log(harness, out, root):
    entries = [Entry(b"gone%d" % i, i + 1, 0, stat.S_IFREG, 1) for i in range(150)]
    (dump,), (stream,) = back_up(harness, out, root, [entries])
    assert len(dump.said(M_ERROR)) == 100
    assert len(dump.said(M_WARNING)) == 1
    assert statuses(stream) == [VANISHED] * 150
    assert stream.done == (150, 0, 150)


def test_deleted_names_are_sent_as_such(harness, out, root):
    entries = [
        Entry(b"gone", 5, 7, stat.S_IFREG | 0o644, 1, 0, FLAG_DELETED),
        Entry(b"gone-too", 6, 0, stat.S_IFDIR | 0o755, 2, 0, FLAG_DELETED),
        entry_of(root, ".", path=b""),
    ]
    (dump,), (stream,) = back_up(harness, out, root, [entries], level="I")
    assert statuses(stream) == [DELETED, DELETED, SAVED]
    assert [saved.type for saved in dump.files[:2]] == [FT_DELETED] * 2
    base = os.fsencode(root)
    assert [saved.fname for saved in dump.files] == [
        base + b"/gone",
        base + b"/gone-too/",
        base + b"/",
    ]


@pytest.mark.parametrize("size", [0, 1000, 3 * CHUNK + 5])
def test_the_next_name_becomes_the_first_when_the_first_is_gone(harness, out, root, size):
    write(root / "a", size)
    for name in ("b", "c", "d"):
        (root / name).hardlink_to(root / "a")
    entries = [entry_of(root, name) for name in "abcd"]
    (root / "a").unlink()
    (root / "c").unlink()
    (dump,), (stream,) = back_up(harness, out, root, [entries], limits=LARGE)
    assert statuses(stream) == [VANISHED, SAVED, VANISHED, LINK]
    first, second = dump.files
    assert first.type == (FT_REG if size else FT_REGE)
    assert (second.type, second.link, second.link_index) == (FT_LNKSAVED, first.fname, 1)
    assert stream.receipts[1].hash == xxhash.xxh3_128((root / "b").read_bytes()).digest()


def test_a_group_whose_first_name_is_gone_takes_nothing_from_the_group_before(harness, out, root):
    for first, second in ("ab", "cd"):
        write(root / first, 10)
        (root / second).hardlink_to(root / first)
    entries = [entry_of(root, name) for name in "abcd"]
    (root / "c").unlink()
    (dump,), (stream,) = back_up(harness, out, root, [entries])
    assert statuses(stream) == [SAVED, LINK, VANISHED, SAVED]
    assert [saved.type for saved in dump.files] == [FT_REG, FT_LNKSAVED, FT_REG]


def test_a_further_name_that_is_another_inode_now_is_not_linked(harness, out, root):
    write(root / "a", 10)
    (root / "b").hardlink_to(root / "a")
    entries = [entry_of(root, name) for name in "ab"]
    (root / "b").unlink()
    write(root / "b", 10)
    (dump,), (stream,) = back_up(harness, out, root, [entries])
    assert statuses(stream) == [SAVED, REPLACED]
    assert len(dump.files) == 1


def test_a_read_error_in_a_small_file_sends_nothing_of_it(harness, out, root):
    write(root / "bad", 5000)
    write(root / "good", 5000)
    entries = [entry_of(root, "bad"), entry_of(root, "good")]
    fault = f"eio:{entries[0].ino}:1000"
    (dump,), (stream,) = back_up(harness, out, root, [entries], fault=fault)
    assert statuses(stream) == [UNREADABLE, SAVED]
    assert stream.receipts[0].error == errno.EIO
    assert len(dump.files) == 1
    assert len(dump.said(M_ERROR)) == 1


def test_a_read_error_in_a_large_file_stops_it_and_not_the_job(harness, out, root):
    write(root / "bad", 5 * CHUNK)
    write(root / "good", 5000)
    entries = [entry_of(root, "bad"), entry_of(root, "good")]
    fault = f"eio:{entries[0].ino}:{2 * CHUNK + 100}"
    (dump,), (stream,) = back_up(harness, out, root, [entries], limits=LARGE, fault=fault)
    assert statuses(stream) == [UNREADABLE, SAVED]
    assert (stream.receipts[0].error, stream.receipts[0].file_index) == (errno.EIO, 1)
    assert dump.files[0].extents == [(0, 2 * CHUNK + 100)]
    (text,) = dump.said(M_ERROR)
    assert f"{root}/bad" in text
    assert dump.end == "T"


def test_a_large_file_that_cannot_be_read_does_not_become_the_first_name(harness, out, root):
    write(root / "a", 2 * CHUNK)
    (root / "b").hardlink_to(root / "a")
    entries = [entry_of(root, "a"), entry_of(root, "b")]
    fault = f"eio:{entries[0].ino}:{CHUNK}"
    (dump,), (stream,) = back_up(harness, out, root, [entries], limits=LARGE, fault=fault)
    assert statuses(stream) == [UNREADABLE, UNREADABLE]
    assert [saved.type for saved in dump.files] == [FT_REG, FT_REG]


@pytest.mark.parametrize("left", [0, 1, 3000])
def test_a_small_file_that_shrinks_is_saved_with_the_size_that_was_read(harness, out, root, left):
    write(root / "log", 5000)
    entries = [entry_of(root, "log")]
    fault = f"shrink:{entries[0].ino}:{left}"
    (dump,), (stream,) = back_up(harness, out, root, [entries], fault=fault)
    assert statuses(stream) == [CHANGED]
    (saved,) = dump.files
    assert (saved.size, sum(size for _, size in saved.extents)) == (left, left)
    assert stream.receipts[0].size == left
    assert stream.receipts[0].hash == xxhash.xxh3_128((root / "log").read_bytes()).digest()
    (text,) = dump.said(M_ERROR)
    assert "changed while it was read" in text


@pytest.mark.parametrize("left", [0, 3 * CHUNK - 5])
def test_a_large_file_that_shrinks_is_filled_with_zeros(harness, out, root, left):
    data = write(root / "log", 6 * CHUNK).read_bytes()
    entries = [entry_of(root, "log")]
    fault = f"shrink:{entries[0].ino}:{left}"
    limits = Limits(threads=1, prefetch_bytes=1, large_file_bytes=CHUNK)
    (dump,), (stream,) = back_up(harness, out, root, [entries], limits=limits, fault=fault)
    assert statuses(stream) == [CHANGED]
    assert (dump.files[0].size, dump.files[0].extents) == (6 * CHUNK, [(0, 6 * CHUNK)])
    sent = data[:left].ljust(6 * CHUNK, b"\0")
    assert stream.receipts[0].hash == xxhash.xxh3_128(sent).digest()
    assert len(dump.said(M_ERROR)) == 1


def test_a_sparse_file_that_shrinks_gets_one_byte_at_its_end(harness, out, root):
    with open(root / "image", "wb") as file:
        file.write(os.urandom(2 * CHUNK))
        file.truncate(1 << 30)
    entries = [entry_of(root, "image")]
    fault = f"shrink:{entries[0].ino}:{CHUNK}"
    (dump,), (stream,) = back_up(harness, out, root, [entries], limits=LARGE, fault=fault)
    assert statuses(stream) == [CHANGED]
    assert dump.files[0].extents == [(0, CHUNK), ((1 << 30) - 1, 1)]


def await_file(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_large_file_that_grows_is_sent_in_the_size_it_had(harness, out, root):
    write(root / "log", 3 * CHUNK)
    entries = [entry_of(root, "log")]
    with StreamBridge(out / "socket", root, [entries], limits=LARGE) as bridge:
        process = start(harness, out, 1, {"socket": out / "socket", "pause": 0})
        await_file(out / "waiting")
        with open(root / "log", "ab") as file:
            file.write(b"more")
        (out / "go").touch()
        result = finish(process, out, 1)
        stream = bridge.stream(0)
    assert (result.returncode, result.stderr) == (0, "")
    assert statuses(stream) == [CHANGED]
    assert result.dumps[0].files[0].extents == [(0, 3 * CHUNK)]


def test_keepalives_go_out_in_time_while_the_daemon_is_busy(harness, out, root):
    write(root / "file", 100)
    entries = [entry_of(root, "file")]
    with StreamBridge(out / "socket", root, [entries]) as bridge:
        process = start(harness, out, 1, {"socket": out / "socket", "pause": 0})
        await_file(out / "waiting")
        deadline = time.monotonic() + 5 * SILENCE_MS / 1000
        while bridge.streams[0].keepalives < 10:
            assert time.monotonic() < deadline
            time.sleep(KEEPALIVE_MS / 1000)
        (out / "go").touch()
        assert finish(process, out, 1).dumps[0].end == "T"


def test_keepalives_go_out_in_time_while_the_bridge_is_silent(harness, out, root):
    ways = {0: Misbehaviour.SILENCE}
    (dump,), (stream,) = back_up(harness, out, root, [[]], misbehaviour=ways)
    assert "silent" in dump.fatal
    assert stream.keepalives >= SILENCE_MS / KEEPALIVE_MS / 2


def test_long_paths_wait_in_the_socket_and_that_is_not_silence(harness, out, root):
    write(root / "file", 100)
    long_path = b"/".join([b"x" * 200] * 320)
    gone = [Entry(long_path + b"%d" % i, i + 1, 0, stat.S_IFREG, 1) for i in range(1300)]
    entries = [entry_of(root, "file"), *gone]
    assert sum(len(entry.path) for entry in entries) > 72 << 20
    with StreamBridge(out / "socket", root, [entries]) as bridge:
        process = start(harness, out, 1, {"socket": out / "socket", "pause": 0})
        await_file(out / "waiting")
        deadline = time.monotonic() + WAIT_S
        while bridge.streams[0].keepalives < 2 * SILENCE_MS / KEEPALIVE_MS:
            assert time.monotonic() < deadline
            time.sleep(KEEPALIVE_MS / 1000)
        (out / "go").touch()
        result = finish(process, out, 1)
        assert (result.returncode, result.stderr, result.dumps[0].end) == (0, "", "T")
        assert statuses(bridge.stream(0)) == [SAVED] + [VANISHED] * len(gone)


@pytest.mark.parametrize("way", FATAL_WAYS, ids=lambda way: way.name.lower())
def test_a_broken_stream_is_one_fatal_message_and_the_other_jobs_go_on(harness, out, root, way):
    (root / "d").mkdir()
    for number in range(60):
        write(root / f"d/file{number}", number)
    shards = split(entries_of_tree(root), 2)
    ways = {0: way}
    limits = Limits(window=20_000)
    with StreamBridge(
        out / "socket", root, shards, misbehaviour=ways, limits=limits, per_frame=10
    ) as bridge:
        result = run(harness, out, 2, socket=out / "socket")
        bridge.join()
        errors = [stream.error for stream in bridge.streams]
    text = assert_fails(result.dumps[0])
    assert text.startswith("forebay: dataset data, shard 0/2: ")
    assert "bug" not in text
    if way is Misbehaviour.BAD_ROOT:  # both get it
        return
    assert result.dumps[1].end == "T"
    assert errors == [None, None]


def test_the_reason_of_the_bridge_stands_in_the_job_log(harness, out, root):
    (dump,), _ = back_up(harness, out, root, [[]], misbehaviour={0: Misbehaviour.REFUSE})
    assert "the bridge refuses this job: shard 1/2 belongs to another job" in dump.fatal


def test_the_bridge_hears_why_the_plugin_gave_up(harness, out, root):
    entries = [Entry(b"gone%d" % i, i + 1, 0, stat.S_IFREG, 1) for i in range(4)]
    (dump,), (stream,) = back_up(
        harness, out, root, [entries], misbehaviour={0: Misbehaviour.WRONG_END_COUNT}
    )
    assert stream.abort == "END counts 5 entries, 4 came"
    assert stream.abort in dump.fatal


def test_without_a_bridge_the_job_fails_and_names_the_socket(harness, out):
    result = run(harness, out, 1, socket=out / "none")
    assert f"{out}/none: No such file or directory" in assert_fails(result.dumps[0])


def test_a_slow_bridge_is_waited_for(harness, out, root):
    for number in range(100):
        write(root / f"file{number}", 10)
    entries = entries_of_tree(root)
    dumps, streams = back_up(
        harness, out, root, [entries], misbehaviour={0: Misbehaviour.SLOW}, limits=SMALL_WINDOW
    )
    check_saved(root, entries, dumps[0], streams[0])


@pytest.mark.parametrize("way", [Misbehaviour.STALL, Misbehaviour.SLOW, Misbehaviour.NONE])
@pytest.mark.parametrize("files", [0, 1, 20])
def test_a_cancelled_job_ends_at_once_and_says_nothing(harness, out, root, way, files):
    for number in range(60):
        write(root / f"file{number}", 1000)
    entries = entries_of_tree(root)
    began = time.monotonic()
    with StreamBridge(out / "socket", root, [entries], misbehaviour={0: way}) as bridge:
        (dump,) = run(harness, out, 1, socket=out / "socket", cancel=files).dumps
        bridge.join()
        assert all(stream.done is None for stream in bridge.streams)
    assert time.monotonic() - began < 5
    assert dump.end == "A"
    assert dump.said(M_FATAL) == []


def test_a_file_index_that_bacula_did_not_use_is_never_promised(harness, out, root):
    write(root / "file", 10)
    (dump,), (stream,) = back_up(harness, out, root, [entries_of_tree(root)], skew=1)
    assert "another FileIndex" in assert_fails(dump)
    assert stream.receipts == []


@pytest.mark.parametrize(
    "command",
    [
        "forebay:",
        "forebay:dataset=d",
        "forebay:shard=0/1",
        "forebay:dataset=:shard=0/1",
        "forebay:dataset=d:shard=1/1",
        "forebay:dataset=d:shard=0/0",
        "forebay:dataset=d:shard=0/1025",
        "forebay:dataset=d:shard=-0/1",
        "forebay:dataset=d:shard= 0/1",
        "forebay:dataset=d:shard=0/1x",
        "forebay:dataset=d:shard=0",
        "forebay:dataset=d:shard=4294967296/4294967297",
        "forebay:dataset=d:dataset=d:shard=0/1",
        "forebay:dataset=d:shard=0/1:",
        "forebay:dataset=d:shard=0/1:colour=red",
        "forebay:dataset=d:shard=0/1:socket=relative",
        "forebay:dataset=d:shard=0/1:socket=/" + "x" * 108,
        "forebay:dataset=" + "d" * 256 + ":shard=0/1",
    ],
)
def test_a_command_that_is_not_understood_fails_and_names_the_form(harness, out, command):
    result = run(harness, out, 1, command=command)
    assert "forebay:dataset=NAME:shard=K/N[:socket=PATH]" in assert_fails(result.dumps[0])


def test_accurate_jobs_are_refused_with_the_reason(harness, out):
    result = run(harness, out, 1, socket="/nowhere", accurate=1)
    assert "set Accurate = no in the Job" in assert_fails(result.dumps[0])


def test_other_levels_are_refused(harness, out):
    result = run(harness, out, 1, socket="/nowhere", level="V")
    assert "level is not supported" in assert_fails(result.dumps[0])


def test_an_estimate_opens_no_connection_and_gives_no_files(harness, out):
    result = run(harness, out, 1, socket="/nowhere", jobid=0)
    (dump,) = result.dumps
    assert (dump.end, dump.files, len(dump.said(M_INFO))) == ("T", [], 1)


def test_the_socket_comes_from_the_plugin_options(harness, out, root):
    with StreamBridge(out / "s", root, [[]]) as bridge:
        result = run(harness, out, 1, options=f"forebay:socket={out}/s")
        assert bridge.stream(0).done == (0, 0, 0)
    assert result.dumps[0].end == "T"


def test_plugin_options_that_are_not_understood_fail_the_job(harness, out):
    result = run(harness, out, 1, options="forebay:colour=red")
    assert "forebay:socket=PATH" in assert_fails(result.dumps[0])


def test_another_interface_version_is_refused_at_load(harness, out):
    result = finish(start(harness, out, 1, {"version": 22}), out, 1)
    assert result.returncode == 3
    assert "install the plugin built for this release" in result.stderr


def test_eight_jobs_at_once_share_nothing(harness, out, root):
    for number in range(400):
        write(root / f"file{number}", 37 * number)
    shards = split(entries_of_tree(root), 8)
    dumps, streams = back_up(harness, out, root, shards, limits=SMALL_WINDOW)
    for dump, stream, entries in zip(dumps, streams, shards, strict=True):
        check_saved(root, entries, dump, stream)
