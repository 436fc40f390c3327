"""What the plugin's receipts say of the reading itself, and what the bridge says in ACCEPT.

Covers: read_ns, the mode of entries of which nothing was read, the note for the job log, versions;
under AddressSanitizer and ThreadSanitizer.
Does not cover: the rest of receipts (test_plugin_backup.py), what is made of them (tests/unit).
"""

import errno
import os
import stat
import time

import pytest

from tests.plugin.backup_support import (
    CHUNK,
    M_INFO,
    back_up,
    entry_of,
    run,
    statuses,
    write,
)
from tests.support.stream_bridge import (
    CHANGED,
    DELETED,
    FLAG_DELETED,
    FLAG_LIST_FAILED,
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
    StreamBridge,
    entries_of_tree,
)

LARGE = Limits(threads=2, prefetch_bytes=8 << 20, large_file_bytes=1 << 20)
FILE, DIRECTORY, SOCKET = (kind | 0o640 for kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFSOCK))


@pytest.mark.parametrize("size", [1, 5000, 3 * CHUNK + 5], ids=["byte", "small", "large"])
def test_read_ns_is_before_the_first_read_and_within_the_job(backup_harness, out, root, size):
    entry = entry_of(root, write(root / "file", size).name)
    began = time.time_ns()
    _, (stream,) = back_up(
        backup_harness, out, root, [[entry]], limits=LARGE, fault=f"mark:{entry.ino}:0"
    )
    (receipt,) = stream.receipts
    first_read = int((out / "read_ns").read_text())
    assert began <= receipt.read_ns <= first_read <= time.time_ns()


def test_everything_that_was_saved_says_when_it_was_read(backup_harness, out, root):
    write(root / "file", 10)
    (root / "empty").touch()
    (root / "symlink").symlink_to("file")
    os.mkfifo(root / "fifo")
    (root / "d").mkdir()
    began = time.time_ns()
    entries = entries_of_tree(root)
    _, (stream,) = back_up(backup_harness, out, root, [entries])
    assert statuses(stream) == [SAVED] * 6
    for receipt in stream.receipts:
        assert began <= receipt.read_ns <= time.time_ns()


def test_a_link_says_when_its_first_name_was_read(backup_harness, out, root):
    write(root / "a", 10)
    (root / "b").hardlink_to(root / "a")
    entries = [entry_of(root, name) for name in "ab"]
    _, (stream,) = back_up(backup_harness, out, root, [entries])
    assert statuses(stream) == [SAVED, LINK]
    assert stream.receipts[0].read_ns == stream.receipts[1].read_ns > 0


def test_a_part_of_a_file_was_read_as_well(backup_harness, out, root):
    entry = entry_of(root, write(root / "bad", 3 * CHUNK).name)
    _, (stream,) = back_up(
        backup_harness, out, root, [[entry]], limits=LARGE, fault=f"eio:{entry.ino}:{CHUNK}"
    )
    (receipt,) = stream.receipts
    assert (receipt.status, receipt.file_index) == (UNREADABLE, 1)
    assert receipt.read_ns > 0


def test_where_nothing_was_read_there_is_no_time_and_the_mode_is_the_entrys(
    backup_harness, out, root
):
    """Whether the name is a directory's must be known of each: a view has other keys for those."""
    write(root / "taken", 10)
    expected = [
        (VANISHED, Entry(b"gone", 2, 0, FILE, 1)),
        (VANISHED, Entry(b"gone-too/below", 3, 0, FILE, 1)),
        (REPLACED, entry_of(root, "taken", mode=DIRECTORY)),
        (REPLACED, entry_of(root, "taken", ino=1, mode=FILE)),
        (UNREADABLE, entry_of(root, write(root / "bad", 5000).name, mode=FILE)),
        (SCAN_ERROR, Entry(b"listed", 4, 0, DIRECTORY, 2, errno.EACCES, FLAG_LIST_FAILED)),
        (SKIPPED, Entry(b"socket", 5, 0, SOCKET, 1)),
        (DELETED, Entry(b"deleted", 6, 0, FILE, 1, 0, FLAG_DELETED)),
        (DELETED, Entry(b"deleted-too", 7, 0, DIRECTORY, 2, 0, FLAG_DELETED)),
        (VANISHED, Entry(b"gone-directory", 8, 0, DIRECTORY, 2)),
    ]
    entries = [entry for _, entry in expected]
    # The directory that has been replaced would not be followed by files in a stream.
    entries.sort(key=lambda entry: entry.mode == DIRECTORY and not entry.flags)
    wanted = {entry.path + b"%o" % entry.mode: status for status, entry in expected}
    bad = os.lstat(root / "bad").st_ino
    _, (stream,) = back_up(backup_harness, out, root, [entries], fault=f"eio:{bad}:0")
    for entry, receipt in zip(entries, stream.receipts, strict=True):
        assert receipt.status == wanted[entry.path + b"%o" % entry.mode], entry
        assert (receipt.mode, receipt.read_ns, receipt.ino) == (entry.mode, 0, entry.ino), entry
        assert (receipt.size, receipt.ctime_s, receipt.nlink) == (0, 0, 0), entry


def test_a_name_that_was_saved_has_the_mode_that_was_sent(backup_harness, out, root):
    entry = entry_of(root, write(root / "file", 10).name)
    os.chmod(root / "file", 0o600)
    _, (stream,) = back_up(backup_harness, out, root, [[entry]])
    assert stream.receipts[0].mode == stat.S_IFREG | 0o600


def test_a_mode_that_moves_while_the_file_is_read_is_changed(backup_harness, out, root):
    entry = entry_of(root, write(root / "file", 3 * CHUNK).name)
    (dump,), (stream,) = back_up(
        backup_harness, out, root, [[entry]], limits=LARGE, fault=f"chmod:{entry.ino}:{0o400}"
    )
    assert statuses(stream) == [CHANGED]
    assert dump.files[0].mode == entry.mode


def test_the_note_of_the_bridge_stands_in_the_job_log(backup_harness, out, root):
    limits = Limits(note=b"incremental on JobId 3\nbacula: fake\x1b[0m \xff")
    (dump,), _ = back_up(backup_harness, out, root, [[]], limits=limits)
    label = "forebay: dataset data, shard 0/1: "
    assert dump.said(M_INFO)[:2] == [
        f"{label}joined run 7 (run-7)\n",
        f"{label}incremental on JobId 3\\012bacula: fake\\033[0m \udcff\n",
    ]


def test_without_a_note_nothing_is_said(backup_harness, out, root):
    (dump,), _ = back_up(backup_harness, out, root, [[]])
    said = dump.said(M_INFO)
    assert len(said) == 2
    assert "joined run" in said[0]
    assert "complete" in said[1]


def test_a_note_at_its_bound_is_said_whole_and_a_longer_one_is_refused(backup_harness, out, root):
    (dump,), _ = back_up(backup_harness, out, root, [[]], limits=Limits(note=b"n" * 1500))
    assert dump.said(M_INFO)[1].endswith(": " + "n" * 1500 + "\n")
    with StreamBridge(out / "again", root, [[]], limits=Limits(note=b"n" * 1501)):
        (dump,) = run(backup_harness, out, 1, socket=out / "again").dumps
    assert "the strings of ACCEPT do not fit its length" in dump.fatal


def test_a_bridge_of_version_1_is_refused_and_both_versions_are_named(backup_harness, out, root):
    ways = {0: Misbehaviour.WRONG_VERSION}
    (dump,), (stream,) = back_up(backup_harness, out, root, [[]], misbehaviour=ways)
    sentence = (
        "the bridge speaks version 1 of the stream protocol, this plugin 2: install the same"
        " release of Forebay on both sides"
    )
    assert dump.fatal == f"forebay: dataset data, shard 0/1: {sentence}\n"
    assert stream.abort == sentence
