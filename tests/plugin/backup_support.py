"""Drive the plugin's backup side as the File Daemon would.

Covers: compiling the harness with sanitizers, running it against tests/support/stream_bridge.py,
reading its dump, comparing a dump with the tree it came from.
Does not cover: the expectations of single cases (test_plugin_backup.py).
"""

import errno
import os
import stat
import struct
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import xxhash

from tests.plugin.restore_support import PLUGIN, RUN_TIMEOUT_S, compile_c
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
WRAPPED = ("pread64", "statx", "fstat64", "flistxattr", "syscall")


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
    mtime: int
    extents: list[tuple[int, int]]
    crc: int
    acl: bytes
    blob: list[bytes]


@dataclass(slots=True)
class Dump:
    """All that one job got, and how it ended: T, f or A."""

    files: list[SavedFile] = field(default_factory=list)
    messages: list[tuple[int, str]] = field(default_factory=list)
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
        elif kind == "E":
            dump.end = words[0]
        else:
            # An aborted file has no xattrs behind its content.
            words += ["-"] * (18 - len(words))
            pairs = (part.split(":") for part in words[14].split(",") if ":" in part)
            extents = [(int(offset), int(size)) for offset, size in pairs if int(size) > 0]
            dump.files.append(
                SavedFile(
                    *(int(words[0]), int(words[1]), unhex(words[2]), unhex(words[3])),
                    *(int(words[4]), int(words[5]), int(words[6], 8)),
                    *map(int, words[7:14]),
                    extents,
                    int(words[15], 16) if words[15] != "-" else 0,
                    unhex(words[16]),
                    [unhex(part) for part in words[17].split(".") if part not in ("", "-")],
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


def check_blob(blob: Sequence[bytes], info: os.stat_result) -> None:
    magic, version, number, _ = struct.unpack_from("<IHHI", blob[0])
    assert (magic, version, number) == (0x31414246, 1, 0)
    mode, nlink, uid, gid, _, size, ino = struct.unpack_from("<IIIIQQQ", blob[0], 24)
    assert (mode, nlink, uid, gid) == (info.st_mode, info.st_nlink, info.st_uid, info.st_gid)
    assert (size, ino) == (info.st_size, info.st_ino)
    mtime_s, _, _, _, mtime_ns = struct.unpack_from("<qqqII", blob[0], 24 + 48)
    assert mtime_s * 10**9 + mtime_ns == info.st_mtime_ns


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
        if entry.flags & FLAG_DELETED:
            assert saved.type == FT_DELETED
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
            if receipt.status == SAVED:
                check_blob(saved.blob, info)
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
