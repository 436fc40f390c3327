"""What the plugin's backup side takes of the File Daemon, and whom it waits for.

Covers: descriptors and memory held ahead of Bacula, a limit of descriptors that is reached, leases,
other mounts below the root, names that the scan did not go into; under both sanitizers.
Does not cover: the rest of single files (test_plugin_backup.py), ends of jobs
(test_plugin_endings.py).
"""

import os
import resource
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.plugin.backup_support import (
    FT_DIREND,
    FT_LNKSAVED,
    KEEPALIVE_MS,
    M_ERROR,
    M_FATAL,
    M_INFO,
    Result,
    back_up,
    check_saved,
    entry_of,
    finish,
    leased,
    start,
    statuses,
    write,
)
from tests.support.stream_bridge import (
    FLAG_EXCLUDED,
    FLAG_MOUNT_POINT,
    LINK,
    REPLACED,
    SAVED,
    VANISHED,
    Entry,
    Limits,
    Stream,
    StreamBridge,
)

WAIT_S = 20.0
OPEN_LARGE_MAX = 16
OTHER_DESCRIPTORS_MAX = 24  # of the harness, its dumps, the link, threads in the middle of a path
LARGE_BYTES = 4096


def await_file(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def back_up_paused(
    harness: Path,
    out: Path,
    root: Path,
    entries: list[Entry],
    limits: Limits,
    meanwhile: Callable[[subprocess.Popen], None],
    after: Callable[[subprocess.Popen], None] = lambda process: None,
) -> tuple[Result, Stream]:
    """Run a job that stops before its first file until all that may be ahead is read."""
    with StreamBridge(out / "socket", root, [entries], limits=limits) as bridge:
        process = start(harness, out, 1, {"socket": out / "socket", "pause": 0})
        await_file(out / "waiting")
        heard = bridge.streams[0].keepalives
        deadline = time.monotonic() + WAIT_S
        while bridge.streams[0].keepalives < heard + 4:  # about a second to read ahead
            assert time.monotonic() < deadline
            time.sleep(KEEPALIVE_MS / 1000)
        meanwhile(process)
        (out / "go").touch()
        after(process)
        result = finish(process, out, 1)
        stream = bridge.stream(0)
    assert (result.returncode, result.stderr) == (0, "")
    return result, stream


def make_large(root: Path, count: int) -> list[Entry]:
    for number in range(count):
        with open(root / f"large{number}", "wb") as file:
            file.write(b"%d" % number)
            file.truncate(5 << 20)
    return [entry_of(root, f"large{number}") for number in range(count)]


@pytest.mark.parametrize("size", [None, 0], ids=["as scanned", "grown since"])
def test_few_large_files_are_open_at_a_time(backup_harness, out, root, size):
    entries = make_large(root, 600)
    if size is not None:
        entries = [entry_of(root, os.fsdecode(entry.path), size=size) for entry in entries]
    seen = []

    def count(process: subprocess.Popen) -> None:
        seen.append(len(os.listdir(f"/proc/{process.pid}/fd")))

    limits = Limits(threads=4, large_file_bytes=LARGE_BYTES)
    result, stream = back_up_paused(backup_harness, out, root, entries, limits, count)
    assert seen[0] <= OPEN_LARGE_MAX + OTHER_DESCRIPTORS_MAX
    check_saved(root, entries, result.dumps[0], stream)
    assert statuses(stream) == [SAVED] * 600


def test_a_low_limit_of_descriptors_slows_down_and_loses_nothing(backup_harness, out, root):
    entries = make_large(root, 600)

    def lower(process: subprocess.Popen) -> None:
        # No further descriptor than those of the large files ahead is to be had.
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (12, 4096))

    limits = Limits(threads=4, large_file_bytes=LARGE_BYTES)
    result, stream = back_up_paused(backup_harness, out, root, entries, limits, lower)
    assert result.dumps[0].said(M_ERROR) == []
    check_saved(root, entries, result.dumps[0], stream)
    assert statuses(stream) == [SAVED] * 600


def test_a_limit_of_descriptors_that_passes_is_waited_for(backup_harness, out, root):
    for number in range(40):
        write(root / f"file{number}", 10)
    entries = [entry_of(root, f"file{number}") for number in range(40)]

    def lower(process: subprocess.Popen) -> None:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (5, 4096))

    def lift(process: subprocess.Popen) -> None:
        time.sleep(0.5)  # the harness asks and is refused meanwhile
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (4096, 4096))

    limits = Limits(threads=2, window=4)
    result, stream = back_up_paused(backup_harness, out, root, entries, limits, lower, lift)
    assert result.dumps[0].said(M_ERROR) == []
    assert statuses(stream) == [SAVED] * 40


def test_a_limit_of_descriptors_that_stays_ends_the_job_and_names_it(backup_harness, out, root):
    for number in range(40):
        write(root / f"file{number}", 10)
    entries = [entry_of(root, f"file{number}") for number in range(40)]

    def lower(process: subprocess.Popen) -> None:
        # Below every descriptor that becomes free before the job ends.
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (5, 4096))

    limits = Limits(threads=2, window=4)
    result, stream = back_up_paused(backup_harness, out, root, entries, limits, lower)
    dump = result.dumps[0]
    assert dump.end == "f"
    assert "limit of 5 open files: raise LimitNOFILE" in dump.fatal
    assert dump.said(M_ERROR) == []
    assert set(statuses(stream)) <= {SAVED}


def test_large_attributes_count_as_memory(backup_harness, out, root):
    names = [f"file{number}" for number in range(500)]
    for name in names:
        (root / name).touch()
        os.setxattr(root / name, "user.much", os.urandom(3500))
    entries = [entry_of(root, name) for name in names]

    def remove(process: subprocess.Popen) -> None:
        for name in names:
            (root / name).unlink()

    # A third of it is for content and attributes, a blob takes some 4 KiB.
    limits = Limits(prefetch_bytes=3 << 20)
    _, stream = back_up_paused(backup_harness, out, root, entries, limits, remove)
    ahead = statuses(stream).count(SAVED)
    assert statuses(stream) == [SAVED] * ahead + [VANISHED] * (500 - ahead)
    assert 100 < ahead < 300


def test_a_link_whose_inode_moves_is_a_link_with_what_was_sent(backup_harness, out, root):
    write(root / "a", 10)
    (root / "b").hardlink_to(root / "a")
    entries = [entry_of(root, name) for name in "ab"]
    before = os.stat(root / "a")

    def touch(process: subprocess.Popen) -> None:
        os.utime(root / "a", ns=(1, 1))

    # The one entry of the window is read before the change, the other one after it.
    limits = Limits(window=1)
    result, stream = back_up_paused(backup_harness, out, root, entries, limits, touch)
    assert statuses(stream) == [SAVED, LINK]
    assert result.dumps[0].files[1].type == FT_LNKSAVED
    for receipt in stream.receipts:
        assert receipt.mtime_s * 10**9 + receipt.mtime_ns == before.st_mtime_ns
        assert receipt.ctime_s * 10**9 + receipt.ctime_ns == before.st_ctime_ns
    (text,) = result.dumps[0].said(M_ERROR)
    assert f"{root}/b" in text
    assert "changed while it was read" in text


@pytest.mark.parametrize("first", [True, False])
def test_a_file_under_a_lease_is_read_when_its_holder_lets_go(backup_harness, out, root, first):
    for name in ("leased", "a", "b"):
        write(root / name, 1000)
    names = ("leased", "a", "b") if first else ("a", "leased", "b")
    entries = [entry_of(root, name) for name in names]
    with leased(root / "leased", 0.5) as asked:
        (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    assert len(asked) == 1
    assert statuses(stream) == [SAVED] * 3
    check_saved(root, entries, dump, stream)


def test_a_job_that_waits_for_a_lease_can_be_cancelled(backup_harness, out, root):
    write(root / "a", 10)
    write(root / "leased", 10)
    entries = [entry_of(root, name) for name in ("a", "leased")]
    began = time.monotonic()
    with (
        leased(root / "leased", 3.0),
        StreamBridge(out / "socket", root, [entries]) as bridge,
    ):
        process = start(backup_harness, out, 1, {"socket": out / "socket", "cancel": 1})
        result = finish(process, out, 1)
        bridge.join()
        assert time.monotonic() - began < 2.5
    assert (result.returncode, result.stderr, result.dumps[0].end) == (0, "", "A")


@pytest.fixture
def bound(root: Path, tmp_path: Path) -> Iterator[Path]:
    """A bind mount of the same filesystem: device and inode numbers tell nothing."""
    source, target = tmp_path / "source", root / "mounted"
    source.mkdir()
    target.mkdir()
    write(source / "file", 10)
    command = ["mount", "--bind", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot bind-mount here: {done.stderr.strip()}")
    yield target
    subprocess.run(["umount", str(target)], check=True)


def test_only_what_the_scan_found_mounted_is_saved_of_another_mount(
    backup_harness, out, root, bound
):
    entries = [
        entry_of(root, "mounted/file"),
        entry_of(root, "mounted/file", flags=FLAG_MOUNT_POINT),
        entry_of(root, "mounted"),
        entry_of(root, "mounted", flags=FLAG_MOUNT_POINT),
    ]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    assert statuses(stream) == [REPLACED, SAVED, REPLACED, SAVED]
    assert dump.files[-1].type == FT_DIREND


def test_what_the_scan_did_not_go_into_is_said_once_and_saved(backup_harness, out, root):
    (root / "other").mkdir()
    (root / "state").mkdir()
    entries = [
        entry_of(root, "other", flags=FLAG_MOUNT_POINT),
        entry_of(root, "state", flags=FLAG_EXCLUDED),
        entry_of(root, ".", path=b""),
    ]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    said = dump.said(M_INFO)
    mounted = "another filesystem is mounted here and is not part of this backup"
    assert f"forebay: {root}/other/: {mounted}\n" in said
    assert f"forebay: {root}/state/: left out, it holds Forebay's own state\n" in said
    assert statuses(stream) == [SAVED] * 3
    check_saved(root, entries, dump, stream)
    assert stream.done == (3, 0, 0)


def test_a_hundred_names_that_were_not_gone_into_are_said_and_then_a_count(
    backup_harness, out, root
):
    directory = stat.S_IFDIR | 0o755
    entries = [Entry(b"d%d" % i, i + 1, 0, directory, 2, 0, FLAG_EXCLUDED) for i in range(130)]
    (dump,), _ = back_up(backup_harness, out, root, [entries])
    said = [text for text in dump.said(M_INFO) if "left out, it holds" in text]
    assert len(said) == 100
    assert [text for text in dump.said(M_INFO) if ": 30 more mount points" in text]
    assert dump.said(M_FATAL) == []
