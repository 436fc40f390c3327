"""How jobs of the plugin end: streams that break, cancel, refused commands and settings.

Covers: every misbehaviour of a bridge, under AddressSanitizer and ThreadSanitizer, with a job
beside it that must not notice; what is refused before a connection is opened.
Does not cover: single files (test_plugin_backup.py), a real Bacula (test_plugin_in_bacula.py).
"""

import stat
import time

import pytest

from tests.plugin.backup_support import (
    KEEPALIVE_MS,
    M_FATAL,
    M_INFO,
    SILENCE_MS,
    Dump,
    back_up,
    check_saved,
    finish,
    run,
    start,
    write,
)
from tests.support.stream_bridge import (
    Entry,
    Limits,
    Misbehaviour,
    StreamBridge,
    entries_of_tree,
    split,
)

SMALL_WINDOW = Limits(threads=2, window=16, prefetch_bytes=1 << 20, large_file_bytes=4096)
HARMLESS = {Misbehaviour.NONE, Misbehaviour.SLOW, Misbehaviour.STALL, Misbehaviour.HOLD}
FATAL_WAYS = [way for way in Misbehaviour if way not in HARMLESS]


def assert_fails(dump: Dump) -> str:
    assert dump.end == "f"
    return dump.fatal


@pytest.mark.parametrize("way", FATAL_WAYS, ids=lambda way: way.name.lower())
def test_a_broken_stream_is_one_fatal_message_and_other_jobs_go_on(backup_harness, out, root, way):
    (root / "d").mkdir()
    for number in range(60):
        write(root / f"d/file{number}", number)
    shards = split(entries_of_tree(root), 2)
    ways = {0: way}
    limits = Limits(window=20_000)
    with StreamBridge(
        out / "socket", root, shards, misbehaviour=ways, limits=limits, per_frame=10
    ) as bridge:
        result = run(backup_harness, out, 2, socket=out / "socket")
        bridge.join()
        errors = [stream.error for stream in bridge.streams]
    text = assert_fails(result.dumps[0])
    assert text.startswith("forebay: dataset data, shard 0/2: ")
    assert "bug" not in text
    if way is Misbehaviour.BAD_ROOT:  # both get it
        return
    assert result.dumps[1].end == "T"
    assert errors == [None, None]


def test_the_reason_of_the_bridge_stands_in_the_job_log(backup_harness, out, root):
    (dump,), _ = back_up(backup_harness, out, root, [[]], misbehaviour={0: Misbehaviour.REFUSE})
    assert "the bridge refuses this job: shard 1/2 belongs to another job" in dump.fatal


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(large_file_bytes=0), "files of 0 bytes large"),
        (Limits(large_file_bytes=(64 << 20) + 1), "files of 67108865 bytes large"),
        (Limits(prefetch_bytes=(1 << 20) - 1), "1048575 bytes of prefetch"),
        (Limits(prefetch_bytes=(4 << 30) + 1), "4294967297 bytes of prefetch"),
    ],
)
def test_sizes_that_would_take_the_daemon_down_are_refused(
    backup_harness, out, root, limits, named
):
    with StreamBridge(out / "socket", root, [[]], limits=limits):
        (dump,) = run(backup_harness, out, 1, socket=out / "socket").dumps
    assert named in assert_fails(dump)
    assert "are allowed" in dump.fatal


def test_sizes_at_their_bounds_are_taken(backup_harness, out, root):
    for limits in (
        Limits(large_file_bytes=1, prefetch_bytes=1 << 20),
        Limits(large_file_bytes=64 << 20, prefetch_bytes=4 << 30),
    ):
        (dump,), _ = back_up(backup_harness, out, root, [[]], limits=limits)
        assert dump.end == "T"


def test_the_bridge_hears_why_the_plugin_gave_up(backup_harness, out, root):
    entries = [Entry(b"gone%d" % i, i + 1, 0, stat.S_IFREG, 1) for i in range(4)]
    (dump,), (stream,) = back_up(
        backup_harness, out, root, [entries], misbehaviour={0: Misbehaviour.WRONG_END_COUNT}
    )
    assert stream.abort == "END counts 5 entries, 4 came"
    assert stream.abort in dump.fatal


def test_without_a_bridge_the_job_fails_and_names_the_socket(backup_harness, out):
    result = run(backup_harness, out, 1, socket=out / "none")
    assert f"{out}/none: No such file or directory" in assert_fails(result.dumps[0])


def test_a_slow_bridge_is_waited_for(backup_harness, out, root):
    for number in range(100):
        write(root / f"file{number}", 10)
    entries = entries_of_tree(root)
    dumps, streams = back_up(
        backup_harness,
        out,
        root,
        [entries],
        misbehaviour={0: Misbehaviour.SLOW},
        limits=SMALL_WINDOW,
    )
    check_saved(root, entries, dumps[0], streams[0])


@pytest.mark.parametrize("way", [Misbehaviour.STALL, Misbehaviour.SLOW, Misbehaviour.NONE])
@pytest.mark.parametrize("files", [0, 1, 20])
def test_a_cancelled_job_ends_at_once_and_says_nothing(backup_harness, out, root, way, files):
    for number in range(60):
        write(root / f"file{number}", 1000)
    entries = entries_of_tree(root)
    began = time.monotonic()
    with StreamBridge(out / "socket", root, [entries], misbehaviour={0: way}) as bridge:
        (dump,) = run(backup_harness, out, 1, socket=out / "socket", cancel=files).dumps
        bridge.join()
        assert all(stream.done is None for stream in bridge.streams)
    assert time.monotonic() - began < 5
    assert dump.end == "A"
    assert dump.said(M_FATAL) == []


def test_a_file_index_that_bacula_did_not_use_is_never_promised(backup_harness, out, root):
    write(root / "file", 10)
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries_of_tree(root)], skew=1)
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
        "forebay:dataset=d:shard=0/1:hsm=",
        "forebay:dataset=d:shard=0/1:hsm=stubs",
        "forebay:dataset=d:shard=0/1:hsm=stub:hsm=skip",
        "forebay:dataset=d:shard=0/1:socket=/" + "x" * 108,
        "forebay:dataset=" + "d" * 256 + ":shard=0/1",
    ],
)
def test_a_command_that_is_not_understood_fails_and_names_the_form(backup_harness, out, command):
    result = run(backup_harness, out, 1, command=command)
    form = "forebay:dataset=NAME:shard=K/N[:socket=PATH][:hsm=skip|stub|recall]"
    assert form in assert_fails(result.dumps[0])


def test_accurate_jobs_are_refused_with_the_reason(backup_harness, out):
    result = run(backup_harness, out, 1, socket="/nowhere", accurate=1)
    assert "set Accurate = no in the Job" in assert_fails(result.dumps[0])


def test_other_levels_are_refused(backup_harness, out):
    result = run(backup_harness, out, 1, socket="/nowhere", level="V")
    assert "level is not supported" in assert_fails(result.dumps[0])


def test_an_estimate_opens_no_connection_and_gives_no_files(backup_harness, out):
    result = run(backup_harness, out, 1, socket="/nowhere", jobid=0)
    (dump,) = result.dumps
    assert (dump.end, dump.files, len(dump.said(M_INFO))) == ("T", [], 1)


def test_the_socket_comes_from_the_plugin_options(backup_harness, out, root):
    with StreamBridge(out / "s", root, [[]]) as bridge:
        result = run(backup_harness, out, 1, options=f"forebay:socket={out}/s")
        assert bridge.stream(0).done == (0, 0, 0)
    assert result.dumps[0].end == "T"


def test_plugin_options_that_are_not_understood_fail_the_job(backup_harness, out):
    result = run(backup_harness, out, 1, options="forebay:colour=red")
    assert "forebay:socket=PATH" in assert_fails(result.dumps[0])


def test_another_interface_version_is_refused_at_load(backup_harness, out):
    result = finish(start(backup_harness, out, 1, {"version": 22}), out, 1)
    assert result.returncode == 3
    assert "install the plugin built for this release" in result.stderr


def test_keepalives_go_out_in_time_while_the_bridge_is_silent(backup_harness, out, root):
    ways = {0: Misbehaviour.SILENCE}
    (dump,), (stream,) = back_up(backup_harness, out, root, [[]], misbehaviour=ways)
    assert "silent" in dump.fatal
    assert stream.keepalives >= SILENCE_MS / KEEPALIVE_MS / 2
