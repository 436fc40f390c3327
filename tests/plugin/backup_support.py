"""Drive the plugin's backup side as the File Daemon would.

Covers: compiling the harness with sanitizers, running it against tests/support/stream_bridge.py,
reading its dump, comparing a dump with the tree it came from, a lease on a file.
Does not cover: the expectations of single cases (test_plugin_backup.py).
"""

import contextlib
import errno
import fcntl
import os
import signal
import stat
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import xxhash

from tests.plugin.restore_support import (
    ITEM_END,
    ITEM_STAT,
    ITEM_XATTR,
    PLUGIN,
    RUN_TIMEOUT_S,
    compile_c,
    parse,
    read_xattrs,
    short_rdev,
)
from tests.support.stream_bridge import (
    FLAG_DELETED,
    LINK,
    SAVED,
    Entry,
    Limits,
    Misbehaviour,
    Receipt,
    Stream,
    StreamBridge,
    entry_from,
)

FT_LNKSAVED, FT_REGE, FT_REG, FT_LNK, FT_DIREND, FT_SPEC, FT_DELETED = 1, 2, 3, 4, 5, 6, 23
FO_OFFSETS = 1 << 30
M_FATAL, M_ERROR, M_WARNING, M_INFO = 4, 5, 6, 7
KEEPALIVE_MS, SILENCE_MS, DESCRIPTOR_WAIT_MS = 200, 1500, 3000
CHUNK = 1 << 20
# What the harness stands before, to spoil or to count.
WRAPPED = (
    *("pread64", "statx", "fstat64", "flistxattr", "fgetxattr", "fstatfs64"),
    *("syscall", "pthread_cond_wait", "ioctl", "lseek64"),
)


def compile_harness(output: Path, sanitize: str) -> Path:
    """Compile the whole plugin into the harness, with short times."""
    sources = sorted(path.name for path in PLUGIN.glob("*.c"))
    values = {"KEEPALIVE": KEEPALIVE_MS, "SILENCE": SILENCE_MS}
    values["DESCRIPTOR_WAIT"] = DESCRIPTOR_WAIT_MS
    times = [f"-DFB_{name}_MS={value}" for name, value in values.items()]
    wrapped = [f"-Wl,--wrap={name}" for name in WRAPPED]
    return compile_c(output, "harness_backup.c", sources, sanitize, *times, *wrapped)


@dataclass(frozen=True, slots=True)
class SavedFile:
    """One file as the core of the File Daemon got it."""

    file_index: int
    type: int
    fname: bytes
    link: bytes
    link_index: int
    flags: int
    mode: int
    ino: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime: int
    mtime: int
    cmd: bytes
    extents: list[tuple[int, int]]
    crc: int
    acl: bytes
    blob: list[bytes]


@dataclass(slots=True)
class Dump:
    """All that one job got, and how it ended: T, f or A."""

    files: list[SavedFile] = field(default_factory=list)
    messages: list[tuple[int, str]] = field(default_factory=list)
    objects: list[tuple[bytes, bytes]] = field(default_factory=list)  # name and content
    end: str = ""

    def said(self, kind: int) -> list[str]:
        return [text for found, text in self.messages if found == kind]

    @property
    def fatal(self) -> str:
        """The one fatal message; a job has no second one."""
        (text,) = self.said(M_FATAL)
        return text


@dataclass(slots=True)
class Result:
    dumps: list[Dump]
    returncode: int
    stderr: str


def unhex(text: str) -> bytes:
    return b"" if text == "-" else bytes.fromhex(text)


def read_dump(path: Path) -> Dump:
    dump = Dump()
    for line in (path.read_text() + path.with_suffix(".files").read_text()).splitlines():
        kind, *words = line.split(" ")
        if kind == "M":
            dump.messages.append((int(words[0]), os.fsdecode(unhex(words[1]))))
        elif kind == "O":
            dump.objects.append((unhex(words[0]), unhex(words[1])))
        elif kind == "E":
            dump.end = words[0]
        else:
            # An aborted file has no xattrs behind its content.
            words += ["-"] * (20 - len(words))
            pairs = (part.split(":") for part in words[16].split(",") if ":" in part)
            extents = [(int(offset), int(size)) for offset, size in pairs if int(size) > 0]
            dump.files.append(
                SavedFile(
                    *(int(words[0]), int(words[1]), unhex(words[2]), unhex(words[3])),
                    *(int(words[4]), int(words[5]), int(words[6], 8)),
                    *map(int, words[7:15]),
                    unhex(words[15]),
                    extents,
                    int(words[17], 16) if words[17] != "-" else 0,
                    unhex(words[18]),
                    [unhex(part) for part in words[19].split(".") if part not in ("", "-")],
                )
            )
    return dump


def start(harness: Path, out: Path, jobs: int, settings: Mapping[str, object]) -> subprocess.Popen:
    arguments = [f"{key}={value}" for key, value in settings.items()]
    return subprocess.Popen(
        [str(harness), f"jobs={jobs}", f"out={out}", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, out: Path, jobs: int) -> Result:
    _, stderr = process.communicate(timeout=RUN_TIMEOUT_S)
    dumps = [read_dump(out / f"{k}.dump") for k in range(jobs) if (out / f"{k}.dump").exists()]
    return Result(dumps, process.returncode, stderr)


def run(harness: Path, out: Path, jobs: int = 1, **settings: object) -> Result:
    """Run N jobs to their end; neither sanitizer nor the harness may complain."""
    result = finish(start(harness, out, jobs, settings), out, jobs)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result


def back_up(
    harness: Path,
    out: Path,
    root: Path,
    shards: Sequence[Sequence[Entry]],
    *,
    misbehaviour: Mapping[int, Misbehaviour] | None = None,
    limits: Limits | None = None,
    **settings: object,
) -> tuple[list[Dump], list[Stream]]:
    """Run a job per shard against a bridge that serves these entries."""
    socket = out / "socket"
    with StreamBridge(socket, root, shards, misbehaviour=misbehaviour, limits=limits) as bridge:
        result = run(harness, out, len(shards), socket=socket, **settings)
        streams = [bridge.stream(k) for k in range(len(shards))]
    return result.dumps, streams


def write(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def entry_of(root: Path, name: str, **changes: object) -> Entry:
    return replace(entry_from(os.fsencode(name), os.lstat(root / name)), **changes)


def statuses(stream: Stream) -> list[int]:
    return [receipt.status for receipt in stream.receipts]


def read_at(fd: int, extents: Sequence[tuple[int, int]]) -> bytes:
    return b"".join(os.pread(fd, size, offset) for offset, size in extents)


def open_below(root: Path, path: bytes, flags: int) -> int:
    """Open a path of any length below root, not following a symlink."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    for name in path.split(b"/") if path else ():
        below = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
        os.close(fd)
        fd = below
    if flags != os.O_PATH:
        readable = os.open(f"/proc/self/fd/{fd}", flags)
        os.close(fd)
        fd = readable
    return fd


def check_stream(blob: Sequence[bytes], info: os.stat_result, xattrs: dict[bytes, bytes]) -> None:
    """The stream is whole: all of STAT that a receipt has as well, and every xattr."""
    (tag, _, value), *items, end = parse(blob)
    assert tag == ITEM_STAT
    values = struct.unpack("<IIIIQQQqqqqIIIIII", value)
    assert values[:7] == (
        *(info.st_mode, info.st_nlink, info.st_uid, info.st_gid),
        *(info.st_rdev, info.st_size, info.st_ino),
    )
    assert values[8] * 10**9 + values[12] == info.st_mtime_ns
    assert values[9] * 10**9 + values[13] == info.st_ctime_ns
    assert sorted(items) == sorted((ITEM_XATTR, *pair) for pair in xattrs.items())
    assert end == (ITEM_END, b"", struct.pack("<I", 1 + len(items)))


def check_attributes(saved: SavedFile, receipt: Receipt, info: os.stat_result, fd: int) -> None:
    """All that Bacula's record has no room for is in a stream, or it is times alone."""
    xattrs = read_xattrs(b"/proc/self/fd/%d" % fd, follow=True)
    is_device = stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
    assert (saved.uid, saved.gid, saved.nlink) == (info.st_uid, info.st_gid, info.st_nlink)
    assert (saved.atime, saved.mtime) == (receipt.atime_s, info.st_mtime_ns // 10**9)
    if receipt.status == LINK:
        assert (saved.blob, saved.rdev) == ([], info.st_rdev)
    elif is_device or xattrs:
        check_stream(saved.blob, info, xattrs)
        assert saved.rdev == info.st_rdev
    else:
        assert saved.blob == []
        assert saved.rdev == short_rdev(info.st_mtime_ns % 10**9, receipt.atime_ns)


def check_receipt(receipt: Receipt, info: os.stat_result) -> None:
    assert receipt.error == 0
    assert (receipt.ino, receipt.size, receipt.mode) == (info.st_ino, info.st_size, info.st_mode)
    assert (receipt.uid, receipt.gid, receipt.nlink) == (info.st_uid, info.st_gid, info.st_nlink)
    assert receipt.mtime_s * 10**9 + receipt.mtime_ns == info.st_mtime_ns
    assert receipt.ctime_s * 10**9 + receipt.ctime_ns == info.st_ctime_ns
    assert receipt.rdev == info.st_rdev


def next_data(fd: int, offset: int) -> int:
    """Return where the next data begin; the end of the file if only a hole is left."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(fd).st_size


def check_content(saved: SavedFile, receipt: Receipt, fd: int) -> None:
    """The bytes that were sent are the file's, and all that is left out is holes."""
    size = os.fstat(fd).st_size
    data = read_at(fd, saved.extents)
    assert zlib.crc32(data) == saved.crc
    assert receipt.data_bytes == len(data)
    assert receipt.hash == xxhash.xxh3_128(data).digest()
    if saved.flags & FO_OFFSETS == 0:
        assert len(data) == size
        return
    end = 0
    for offset, length in saved.extents:
        assert offset >= end
        assert offset == end or next_data(fd, end) >= offset
        end = offset + length
    assert end == size  # the last byte fixes the size at restore


def check_saved(root: Path, entries: Sequence[Entry], dump: Dump, stream: Stream) -> None:
    """Compare what Bacula got and what the receipts say with the tree, name by name."""
    base = os.fsencode(root)
    by_index = {saved.file_index: saved for saved in dump.files}
    files = dict(by_index)
    assert len(stream.receipts) == len(entries)
    for entry, receipt in zip(entries, stream.receipts, strict=True):
        if stat.S_ISSOCK(entry.mode) or receipt.file_index == 0:
            continue
        saved = files.pop(receipt.file_index)
        directory = stat.S_ISDIR(entry.mode) and entry.path
        assert saved.fname == base + b"/" + entry.path + (b"/" if directory else b"")
        assert (saved.cmd, saved.acl) == (b"forebay:", b"")
        if entry.flags & FLAG_DELETED:
            assert (saved.type, saved.rdev, saved.blob) == (FT_DELETED, 0, [])
            continue
        assert receipt.status in (SAVED, LINK)
        regular = stat.S_ISREG(entry.mode)
        fd = open_below(root, entry.path, os.O_RDONLY if regular else os.O_PATH)
        try:
            info = os.fstat(fd)
            check_receipt(receipt, info)
            assert (saved.ino, saved.size, saved.mode) == (info.st_ino, info.st_size, info.st_mode)
            check_type(saved, entry, receipt, fd, by_index)
            if regular and receipt.status == SAVED:
                check_content(saved, receipt, fd)
            check_attributes(saved, receipt, info, fd)
        finally:
            os.close(fd)
    assert files == {}


def check_type(
    saved: SavedFile, entry: Entry, receipt: Receipt, fd: int, files: Mapping[int, SavedFile]
) -> None:
    if receipt.status == LINK:
        assert saved.type == FT_LNKSAVED
        first = files[saved.link_index]
        assert (first.fname, first.ino) == (saved.link, saved.ino)
        assert first.type != FT_LNKSAVED
        assert first.file_index < saved.file_index
    elif stat.S_ISREG(entry.mode):
        assert saved.type == (FT_REG if saved.size else FT_REGE)
    elif stat.S_ISDIR(entry.mode):
        assert (saved.type, saved.link) == (FT_DIREND, saved.fname)
    elif stat.S_ISLNK(entry.mode):
        assert saved.type == FT_LNK
        assert saved.link == os.fsencode(os.readlink("", dir_fd=fd))
    else:
        assert saved.type == FT_SPEC


@contextlib.contextmanager
def leased(path: Path, held_s: float) -> Iterator[list[float]]:
    """Hold a write lease and give it up that long after somebody asked; yield when they did."""
    asked: list[float] = []
    timers: list[threading.Timer] = []
    fd = os.open(path, os.O_RDWR)

    def give_up() -> None:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def on_break(number: int, frame: object) -> None:
        if not asked:
            asked.append(time.monotonic())
            timers.append(threading.Timer(held_s, give_up))
            timers[0].start()

    previous = signal.signal(signal.SIGIO, on_break)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    try:
        yield asked
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()
        os.close(fd)
        signal.signal(signal.SIGIO, previous)
