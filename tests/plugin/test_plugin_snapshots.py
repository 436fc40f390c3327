"""What the plugin reads of a snapshot, and what Bacula and the bridge are told of it."""

import os
import time
from dataclasses import replace

import pytest

from tests.plugin.backup_support import M_FATAL, back_up, run, statuses, write
from tests.support.stream_bridge import LINK, REPLACED, SAVED, Limits, StreamBridge, entries_of_tree

LIVE = b"/no/such/live/root"
MASK = (1 << 40) - 1
THEN = 1_700_000_000 * 10**9


def entries_in(root, mask=MASK):
    return [replace(one, ino=one.ino & mask) for one in entries_of_tree(root)]


@pytest.fixture
def shown(tmp_path):
    """A snapshot: its names go by the live root, which is another place."""
    root = tmp_path / "shown"
    (root / "d").mkdir(parents=True)
    write(root / "small", 100)
    write(root / "large", 3 << 20)
    os.symlink("small", root / "symlink")
    os.link(root / "small", root / "d" / "second")
    return root


def served(harness, out, entries, snapshot):
    limits = Limits(snapshot=snapshot)
    socket = out / "socket"
    with StreamBridge(socket, os.fsdecode(LIVE), [entries], limits=limits) as bridge:
        result = run(harness, out, 1, socket=socket)
        return result.dumps[0], bridge.stream(0)


def test_names_are_live_and_content_is_the_snapshots(backup_harness, out, shown):
    mask = 0xFFFF
    entries = entries_in(shown, mask)
    dump, stream = served(backup_harness, out, entries, (bytes(shown), mask, THEN))
    assert dump.end == "T"
    assert set(statuses(stream)) == {SAVED, LINK}
    found = {one.fname.rstrip(b"/"): one for one in dump.files}
    assert set(found) == {os.path.join(LIVE, one.path) if one.path else LIVE for one in entries}
    for name, one in found.items():
        path = shown / os.path.relpath(os.fsdecode(name), os.fsdecode(LIVE))
        assert one.ino == path.lstat().st_ino & mask
    assert {receipt.read_ns for receipt in stream.receipts} == {THEN}


def test_what_is_read_before_a_snapshot_of_later_is_of_now(backup_harness, out, shown):
    later = time.time_ns() + 10**12
    before = time.time_ns()
    _, stream = served(backup_harness, out, entries_in(shown), (bytes(shown), 0, later))
    assert all(before <= receipt.read_ns <= time.time_ns() for receipt in stream.receipts)


def test_another_inode_there_is_not_what_the_scan_saw(backup_harness, out, shown):
    entries = [replace(one, ino=one.ino + 1) for one in entries_in(shown) if one.path == b"large"]
    _, stream = served(backup_harness, out, entries, (bytes(shown), MASK, THEN))
    assert statuses(stream) == [REPLACED]


@pytest.mark.parametrize("read_root", [b"", b"relative", b"/no/such/snapshot"])
def test_a_snapshot_that_is_none_ends_the_job(backup_harness, out, shown, read_root):
    dump, _ = served(backup_harness, out, entries_in(shown), (read_root, 0, THEN))
    assert dump.end == "f"
    (text,) = dump.said(M_FATAL)
    assert "snapshot" in text


def test_without_one_nothing_is_masked(backup_harness, out, shown):
    (dump,), _ = back_up(backup_harness, out, shown, [list(entries_of_tree(shown))])
    found = {one.fname: one.ino for one in dump.files}
    assert found[os.fsencode(shown / "large")] == (shown / "large").stat().st_ino
