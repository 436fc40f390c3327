"""How often the plugin looks at a file.

Covers: the single look at a small file that nobody has touched since the scan, what makes it look
twice; under both sanitizers.
Does not cover: the rest of what is sent of a file (test_plugin_backup.py, test_plugin_receipts.py).
"""

import os
import shutil
import stat
import subprocess
import time

import pytest
import xxhash

from tests.plugin.backup_support import (
    CHUNK,
    FO_OFFSETS,
    back_up,
    check_saved,
    entry_of,
    finish,
    statuses,
    write,
)
from tests.support.stream_bridge import CHANGED, REPLACED, SAVED, StreamBridge

FILES = 50
UNKNOWN = {"mtime_ns": 0, "ctime_ns": 0}
PATHS = [pytest.param({}, id="one look"), pytest.param(UNKNOWN, id="two looks")]


def calls(out):
    """Return how often the plugin made each of the counted system calls."""
    return {name: int(count) for name, count in map(str.split, (out / "calls").open())}


def make_files(root, count=FILES):
    for number in range(count):
        write(root / f"file{number}", 100 * number)
    return [entry_of(root, f"file{number}") for number in range(count)]


def test_a_small_file_as_scanned_takes_three_looks_at_metadata(backup_harness, out, root):
    entries = make_files(root)
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    check_saved(root, entries, dump, stream)
    assert statuses(stream) == [SAVED] * FILES
    # One statx and the statfs are those of the root, when the job begins.
    expected = {"openat2": FILES, "statx": FILES + 1, "fstat": 0, "flistxattr": FILES}
    assert calls(out) == {**expected, "fgetxattr": 0, "fstatfs": 1, "ioctl": 0}


@pytest.mark.parametrize(
    "changes",
    [UNKNOWN, {"mtime_ns": 0}, {"ctime_ns": 0}, {"mtime_ns": 5}, {"ctime_ns": 5}, {"size": 8}],
    ids=["no times", "no mtime", "no ctime", "other mtime", "other ctime", "other size"],
)
def test_a_file_that_is_not_as_the_entry_says_is_looked_at_twice(
    backup_harness, out, root, changes
):
    write(root / "file", 100)
    entries = [entry_of(root, "file", **changes)]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    check_saved(root, entries, dump, stream)
    assert statuses(stream) == [SAVED]
    counted = calls(out)
    assert counted["openat2"] == counted["flistxattr"] == counted["fstat"] == 1


@pytest.mark.parametrize("known", PATHS)
def test_what_is_written_behind_the_read_is_never_missed(backup_harness, out, root, known):
    """In the same size and with its mtime put back: only the ctime tells."""
    old = write(root / "file", 5000).read_bytes()
    entries = [entry_of(root, "file", **known)]
    fault = f"rewrite:{entries[0].ino}:5000"
    _, (stream,) = back_up(backup_harness, out, root, [entries], fault=fault)
    assert (root / "file").read_bytes() == b"z" * 5000
    (receipt,) = stream.receipts
    sent = {SAVED: b"z" * 5000, CHANGED: old}[receipt.status]
    assert receipt.status == (CHANGED if known else SAVED)
    assert receipt.hash == xxhash.xxh3_128(sent).digest()
    ctime_ns = receipt.ctime_s * 10**9 + receipt.ctime_ns
    assert (ctime_ns == os.stat(root / "file").st_ctime_ns) == (receipt.status == SAVED)


@pytest.mark.parametrize("left", [0, 1, 3000])
def test_a_file_that_shrinks_under_its_only_look_is_read_again(backup_harness, out, root, left):
    write(root / "log", 5000)
    entries = [entry_of(root, "log")]
    fault = f"shrink:{entries[0].ino}:{left}"
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], fault=fault)
    assert statuses(stream) == [SAVED]
    check_saved(root, entries, dump, stream)
    assert dump.files[0].size == left


def test_a_file_that_grew_since_the_scan_is_saved_whole(backup_harness, out, root):
    write(root / "log", 5000)
    entries = [entry_of(root, "log")]
    with open(root / "log", "ab") as file:
        file.write(b"more" * CHUNK)
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    assert statuses(stream) == [SAVED]
    check_saved(root, entries, dump, stream)


def test_holes_are_found_though_the_file_is_as_scanned(backup_harness, out, root):
    with open(root / "image", "wb") as file:
        file.seek(300_000)
        file.write(b"x" * 4096)
        file.truncate(600_000)
    entries = [entry_of(root, "image")]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    check_saved(root, entries, dump, stream)
    assert dump.files[0].flags == FO_OFFSETS


@pytest.mark.parametrize("known", PATHS)
def test_the_atime_of_before_the_read_is_saved_where_reading_moves_it(
    backup_harness, out, root, known
):
    """A daemon that is neither the owner nor may act as such cannot read without that."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    write(root / "file", 100)
    os.chown(root / "file", 1000, 1000)
    os.utime(root / "file", ns=(10**18, 2 * 10**18))  # so old that relatime moves it
    entries = [entry_of(root, "file", **known)]
    with StreamBridge(out / "socket", root, [entries]) as bridge:
        command = ["setpriv", "--bounding-set=-fowner", backup_harness]
        process = subprocess.Popen(
            [*command, f"out={out}", f"socket={out}/socket"], stderr=subprocess.PIPE, text=True
        )
        result = finish(process, out, 1)
        (receipt,) = bridge.stream(0).receipts
    assert (result.returncode, result.stderr, receipt.status) == (0, "", SAVED)
    assert (receipt.atime_s, receipt.atime_ns) == (10**9, 0)
    assert os.stat(root / "file").st_atime_ns > 10**18, "reading does not move the atime here"


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR], ids=["fifo", "device"])
def test_what_is_no_file_any_more_is_not_sent(backup_harness, out, root, kind):
    if kind == stat.S_IFCHR and os.geteuid() != 0:
        pytest.skip("making a device needs root")
    write(root / "file", 100)
    entry = entry_of(root, "file")
    (root / "file").rename(root / "kept")
    os.mknod(root / "file", kind | 0o600, os.makedev(1, 5))  # /dev/zero
    if kind == stat.S_IFCHR and os.statvfs(root).f_flag & os.ST_NODEV:
        pytest.skip("devices cannot be opened on this filesystem")
    (dump,), (stream,) = back_up(backup_harness, out, root, [[entry]])
    assert (statuses(stream), dump.files) == ([REPLACED], [])


@pytest.mark.parametrize("known", PATHS)
def test_another_inode_that_looks_the_same_is_not_sent(backup_harness, out, root, known):
    write(root / "file", 100)
    entry = entry_of(root, "file", ino=1, **known)
    (dump,), (stream,) = back_up(backup_harness, out, root, [[entry]])
    assert (statuses(stream), dump.files) == ([REPLACED], [])


@pytest.mark.parametrize("known", PATHS)
def test_a_time_is_taken_before_the_read_however_often_it_is_looked_at(
    backup_harness, out, root, known
):
    write(root / "file", 100)
    entries = [entry_of(root, "file", **known)]
    began = time.time_ns()
    _, (stream,) = back_up(backup_harness, out, root, [entries], fault=f"mark:{entries[0].ino}:0")
    assert began < stream.receipts[0].read_ns <= int((out / "read_ns").read_text())
