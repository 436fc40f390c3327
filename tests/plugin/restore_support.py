"""Drive the plugin's restore side as the File Daemon would.

Covers: compiling the C sources with sanitizers, the attributes stream written independently of
the plugin, scripts for harness_restore.c, and a backup of a real tree as such a script.
Does not cover: the expectations (test_plugin_restore.py, test_blob.py).
"""

import errno
import os
import stat
import struct
import subprocess
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLUGIN = HERE.parent.parent / "bacula_bridge" / "plugin"
CFLAGS = (
    *("-std=gnu11", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-O1", "-g", "-fPIC", "-pthread"),
    *("-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer"),
)
RESTORE_SOURCES = (
    "restore.c",
    "restore_attributes.c",
    "restore_directories.c",
    "restore_make.c",
    "restore_object.c",
    "restore_place.c",
    "restore_report.c",
    "layout.c",
    "layout_ceph.c",
    "layout_lustre.c",
    "stripes.c",
    "beneath.c",
    "blob.c",
    "host.c",
)
RUN_TIMEOUT_S = 120

FT_LNKSAVED, FT_REGE, FT_REG, FT_LNK, FT_DIREND, FT_SPEC = 1, 2, 3, 4, 5, 6
CF_SKIP, CF_ERROR, CF_EXTRACT, CF_CREATED = 1, 2, 3, 4
M_FATAL, M_ERROR, M_WARNING, M_INFO, M_SKIPPED = 4, 5, 6, 7, 10
ITEM_STAT, ITEM_XATTR, ITEM_LOST, ITEM_END = 1, 2, 3, 255
CHUNK_BYTES_MAX = 262_144
DATA_BYTES = 65_536
PATH_BYTES_SHORT = 3_500


def compile_c(
    output: Path, harness: str, sources: Sequence[str], sanitize: str, *more: str
) -> Path:
    """Compile a harness of this directory with sources of the plugin."""
    command = ["cc", *CFLAGS, f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", *more]
    command += ["-I", str(PLUGIN), str(HERE / harness), *(str(PLUGIN / s) for s in sources)]
    subprocess.run([*command, "-o", str(output)], check=True, timeout=RUN_TIMEOUT_S)
    return output


def item(tag: int, name: bytes, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, len(name), len(value)) + name + value


def chunk(number: int, items: bytes) -> bytes:
    return struct.pack("<4sHHII", b"FBA1", 1, number, len(items), zlib.crc32(items)) + items


def stat_item(st: os.stat_result) -> bytes:
    seconds = [t // 10**9 for t in (st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns)]
    rests = [t % 10**9 for t in (st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns)]
    head = struct.pack("<IIIIQQQ", st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_rdev,
                       st.st_size, st.st_ino)  # fmt: skip
    return item(ITEM_STAT, b"", head + struct.pack("<qqqqIIIIII", *seconds, 0, *rests, 0, 0, 0))


def stream(items: Sequence[bytes]) -> list[bytes]:
    """Put items and an END item into chunks."""
    chunks, current = [], b""
    for one in [*items, item(ITEM_END, b"", struct.pack("<I", len(items)))]:
        if len(current) + len(one) + 16 > CHUNK_BYTES_MAX:
            chunks.append(chunk(len(chunks), current))
            current = b""
        current += one
    return [*chunks, chunk(len(chunks), current)]


def stream_of(st: os.stat_result, xattrs: Mapping[bytes, bytes] | None = None) -> list[bytes]:
    items = [stat_item(st)]
    items += [item(ITEM_XATTR, name, value) for name, value in sorted((xattrs or {}).items())]
    return stream(items)


def parse(chunks: Sequence[bytes]) -> list[tuple[int, bytes, bytes]]:
    """Read a stream back by the document alone: tag, name and value of each item."""
    items = []
    for number, one in enumerate(chunks):
        magic, version, got_number, length, crc = struct.unpack_from("<4sHHII", one)
        assert (magic, version, got_number, length) == (b"FBA1", 1, number, len(one) - 16)
        assert len(one) <= CHUNK_BYTES_MAX
        assert crc == zlib.crc32(one[16:])
        at = 16
        while at < len(one):
            tag, name_len, value_len = struct.unpack_from("<HHI", one, at)
            at += 8
            value_at = at + name_len
            items.append((tag, one[at:value_at], one[value_at : value_at + value_len]))
            at = value_at + value_len
        assert at == len(one)
    return items


def short_rdev(mtime_ns: int, atime_ns: int) -> int:
    """Return what st_rdev of Bacula's record holds of a file without a stream."""
    return 5 << 60 | mtime_ns << 30 | atime_ns


def short(st: os.stat_result) -> os.stat_result:
    """Return the record of a file without a stream."""
    return with_rdev(st, short_rdev(st.st_mtime_ns % 10**9, st.st_atime_ns % 10**9))


def read_xattrs(path: bytes, *, follow: bool = False) -> dict[bytes, bytes]:
    """All xattrs of the inode at path, of a symlink itself, too, unless follow says otherwise."""
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {os.fsencode(n): os.getxattr(path, n, follow_symlinks=follow) for n in names}


@dataclass(slots=True)
class Outcome:
    """What a harness run printed."""

    created: list[int] = field(default_factory=list)  # create_status per file
    messages: list[tuple[int, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def texts(self, type_: int) -> list[str]:
        return [text for t, text in self.messages if t == type_]


@dataclass(slots=True)
class Script:
    """A restore job for the harness."""

    where: bytes
    work_dir: bytes
    replace: str = "a"
    uid: int | None = None
    lines: list[str] = field(default_factory=list)

    def file(
        self,
        type_: int,
        path: bytes,
        st: os.stat_result | None = None,
        *,
        mode: int | None = None,
        mtime: int = 1_000_000_000,
        link: bytes | None = None,
        data: Sequence[tuple[int, bytes]] = (),
        size: int | None = None,
        blob: Sequence[bytes] | None = None,
        command: bytes | None = None,
        end: str = "end",
    ) -> None:
        """Restore one file; path and the link of hard links are below the place.

        Its saved size is that of the data unless size says otherwise.
        """
        kinds = {FT_LNK: stat.S_IFLNK | 0o777, FT_DIREND: stat.S_IFDIR | 0o755}
        mode = mode if mode is not None else kinds.get(type_, stat.S_IFREG | 0o644)
        if st is None:
            st = make_stat(mode, mtime)
        if size is None and data:
            size = max(offset + len(content) for offset, content in data)
        if size is not None:
            st = with_size(st, size)
        name = self.where + b"/" + path + (b"/" if type_ == FT_DIREND and path else b"")
        if type_ == FT_LNKSAVED and link is not None:
            link = self.where + b"/" + link
        self.raw(type_, st, name, link, command)
        self.lines += [f"data {offset} {content.hex()}" for offset, content in data]
        self.lines += [f"blob {c.hex()}" for c in (stream_of(st) if blob is None else blob)]
        self.lines.append(end)

    def raw(
        self,
        type_: int,
        st: os.stat_result,
        name: bytes,
        link: bytes | None,
        command: bytes | None = None,
    ) -> None:
        self.lines.append(
            f"file {type_} {st.st_mode:o} {st.st_uid} {st.st_gid} {st.st_atime_ns // 10**9}"
            f" {st.st_mtime_ns // 10**9} {st.st_rdev} {st.st_size} {self.replace}"
            f" {name.hex() or '-'} {link.hex() if link else '-'}"
            f" {st.st_ino} {command.hex() if command else '-'}"
        )

    def run(self, harness: Path, *, end_job: bool = True) -> Outcome:
        head = [f"setid {self.uid} {self.uid}"] if self.uid is not None else []
        head.append(f"new {self.where.hex() or '-'} {self.work_dir.hex() or '-'}")
        text = "\n".join([*head, *self.lines, *(["endjob"] if end_job else [])]) + "\n"
        done = subprocess.run(
            [harness], input=text.encode(), capture_output=True, timeout=RUN_TIMEOUT_S
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
        outcome = Outcome(lines=done.stdout.decode().splitlines())
        for line in outcome.lines:
            word, *rest = line.split()
            if word == "create":
                outcome.created.append(int(rest[1]))
            if word == "message":
                body = bytes.fromhex(rest[1]).decode(errors="surrogateescape")
                outcome.messages.append((int(rest[0]), body.rstrip("\n")))
        return outcome


def make_stat(
    mode: int,
    mtime: int = 1_000_000_000,
    *,
    uid: int | None = None,
    gid: int | None = None,
    nanoseconds: int = 123_456_789,
    rdev: int = 0,
    size: int = 0,
) -> os.stat_result:
    """A stat result with these attributes; nanoseconds belong to mtime and atime."""
    uid = os.geteuid() if uid is None else uid
    gid = os.getegid() if gid is None else gid
    ns = mtime * 10**9 + nanoseconds
    values = [mode, 77, 1, 1, uid, gid, size, mtime, mtime, mtime]
    # Positions 16-18 hold the times in nanoseconds, 19-21 block size, blocks and rdev.
    return os.stat_result([*values, mtime, mtime, mtime, ns, ns, ns, 4096, 0, rdev])


def with_size(st: os.stat_result, size: int) -> os.stat_result:
    """The same attributes with another size."""
    return changed(st, size, st.st_rdev)


def with_rdev(st: os.stat_result, rdev: int) -> os.stat_result:
    """The same attributes with another st_rdev."""
    return changed(st, st.st_size, rdev)


def changed(st: os.stat_result, size: int, rdev: int) -> os.stat_result:
    values = [*st[:6], size, *st[7:10], st.st_atime, st.st_mtime, st.st_ctime]
    nanoseconds = [st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns]
    return os.stat_result([*values, *nanoseconds, st.st_blksize, st.st_blocks, rdev])


class Reach:
    """Short paths for names past PATH_MAX, through descriptors of their directories."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.descriptors: dict[bytes, int] = {}

    def __call__(self, path: bytes) -> bytes:
        full = os.path.join(self.root, path) if path else self.root
        if len(full) < PATH_BYTES_SHORT:
            return full
        directory, name = os.path.split(path)
        if directory not in self.descriptors:
            opened = os.open(self(directory), os.O_RDONLY | os.O_DIRECTORY)
            self.descriptors[directory] = opened
        return b"/proc/self/fd/%d/%s" % (self.descriptors[directory], name)

    def close(self) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.descriptors.clear()


def walk_for_backup(reach: Reach) -> Iterator[tuple[bytes, os.stat_result]]:
    """Names below the root in the order of a stream: others first, directories deepest first."""
    others, directories, pending = [], [], [b""]
    while pending:
        directory = pending.pop()
        for name in os.listdir(reach(directory)):
            path = os.path.join(directory, name)
            st = os.lstat(reach(path))
            if stat.S_ISDIR(st.st_mode):
                pending.append(path)
                directories.append((path, st))
            else:
                others.append((path, st))
    yield from sorted(others, key=lambda pair: (pair[1].st_nlink > 1, pair[1].st_ino))
    yield from sorted(directories, key=lambda pair: -pair[0].count(b"/"))
    yield b"", os.lstat(reach.root)


def extents(path: bytes) -> Iterator[tuple[int, bytes]]:
    """The data of a file as FO_OFFSETS sends it; a hole at the end gets one zero byte."""
    with open(path, "rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        sent = 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            while start < at:
                content = os.pread(file.fileno(), min(DATA_BYTES, at - start), start)
                yield start, content
                start += len(content)
                sent = start
        if sent < size:
            yield size - 1, b"\0"


def add_tree(
    script: Script,
    root: bytes,
    below: bytes,
    shard: tuple[int, int] = (1, 1),
    *,
    always_stream: bool = False,
) -> None:
    """Add the entries of one shard (k, N) of a real tree to a restore job.

    They have an attributes stream where they need one, or, as they once did, always.
    """
    seen: dict[int, bytes] = {}
    reach = Reach(root)
    for path, st in walk_for_backup(reach):
        if st.st_ino % shard[1] != shard[0] % shard[1]:
            continue
        full = reach(path)
        target = below + b"/" + path if path else below
        if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1 and st.st_ino in seen:
            script.file(FT_LNKSAVED, target, st, link=seen[st.st_ino], blob=[])
            continue
        seen[st.st_ino] = target
        xattrs = read_xattrs(full)
        is_device = stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode)
        blob = stream_of(st, xattrs)
        if not (xattrs or is_device or always_stream):
            st, blob = short(st), []
        if stat.S_ISDIR(st.st_mode):
            script.file(FT_DIREND, target, st, blob=blob)
        elif stat.S_ISLNK(st.st_mode):
            script.file(FT_LNK, target, st, link=os.readlink(full), blob=blob)
        elif stat.S_ISREG(st.st_mode):
            data = list(extents(full))
            script.file(FT_REG if st.st_size else FT_REGE, target, st, data=data, blob=blob)
        else:
            script.file(FT_SPEC, target, st, blob=blob)
    reach.close()


def names(outcome: Outcome, type_: int) -> str:
    return "\n".join(outcome.texts(type_))


def assert_quiet(outcome: Outcome) -> None:
    assert outcome.messages == []
