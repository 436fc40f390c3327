"""Layouts written down by their documents alone, and a filesystem that has them.

Covers: lustre.lov and plugin commands put together independently of the plugin, the FUSE stand-in
(standin_layouts.c), one tree from a backup harness to a restore harness.
Does not cover: the expectations (test_layouts.py).
"""

import contextlib
import os
import shutil
import stat
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.plugin.backup_support import FT_DIREND, FT_REG, Dump, SavedFile, back_up
from tests.plugin.restore_support import CFLAGS, HERE, Outcome, Script
from tests.support.stream_bridge import Stream, entries_of_tree

V1, V3, SPECIFIC, COMPOSITE, FOREIGN = (
    0x0BD10BD0, 0x0BD30BD0, 0x0BD50BD0, 0x0BD60BD0, 0x0BD70BD0,
)  # fmt: skip
RAID0, MDT, OVERSTRIPED, RELEASED = 0x1, 0x100, 0x200, 0x80000000
STALE, PREFER_READ, INIT, NOSYNC, EXTENSION = 0x1, 0x2, 0x10, 0x20, 0x40
LUSTRE_MAGIC = 0x0BD00BD0
MIB = 1 << 20
EOF = 2**64 - 1
ANY = 0xFFFF  # an OST index, a stripe count: whichever, all
DATA_BYTES = 65_536
MOUNT_TIMEOUT_S = 20.0
POLL_S = 0.02


def plain(
    stripes: int = 1,
    *,
    magic: int = V1,
    pattern: int = RAID0,
    size: int = MIB,
    pool: bytes = b"",
    objects: int = 0,
    generation: int = ANY,
    object_id: bytes = bytes(16),
) -> bytes:
    """Return a plain layout; a saved one has objects, a generation and an id."""
    head = struct.pack("<II16sIHH", magic, pattern, object_id, size, stripes, generation)
    head += b"" if magic == V1 else pool.ljust(16, b"\0")
    return head + b"".join(struct.pack("<16sII", b"o" * 16, 7, n) for n in range(objects))


def saved(stripes: int = 1, **changes: object) -> bytes:
    """Return the plain layout of a file that has objects."""
    values = {"objects": stripes, "generation": 3, "object_id": b"i" * 16, **changes}
    return plain(stripes, **values)


@dataclass(frozen=True, slots=True)
class Component:
    start: int
    end: int
    body: bytes
    flags: int = 0
    identity: int = 1
    timestamp: int = 0


def composite(
    *components: Component, mirrors: int = 1, generation: int = 0, flags: int = 0
) -> bytes:
    """Return a composite layout as the kernel puts one together."""
    at = 32 + 48 * len(components)
    entries, bodies = b"", b""
    for one in components:
        entries += struct.pack(
            "<IIQQIIIQ4x", one.identity, one.flags, one.start, one.end, at + len(bodies),
            len(one.body), generation, one.timestamp,
        )  # fmt: skip
        bodies += one.body
    size = at + len(bodies)
    head = struct.pack(
        "<IIIHHH14x", COMPOSITE, size, generation, flags, len(components), mirrors - 1
    )
    return head + entries + bodies


def command(kind: str, ino: int, data: bytes) -> bytes:
    """Return the plugin command that carries a layout."""
    crc = zlib.crc32(data, zlib.crc32(kind.encode() + struct.pack("<Q", ino)))
    return f"forebay:layout=1:{kind}:{ino:016x}:{crc:08x}:{data.hex()}".encode()


def why_no_standin() -> str | None:
    """Return what is missing here for the stand-in, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse that can be opened"
    if shutil.which("pkg-config") is None:
        return "no program `pkg-config`"
    command = ["pkg-config", "--atleast-version=3.14", "fuse3"]
    if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode != 0:
        return "no headers of libfuse 3.14 or later (apt install libfuse3-dev)"
    return None


def build_standin(output: Path) -> Path:
    command = ["pkg-config", "--cflags", "--libs", "fuse3"]
    library = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    source = str(HERE / "standin_layouts.c")
    subprocess.run(["cc", *CFLAGS, source, "-o", str(output), *library], check=True)
    return output


@contextlib.contextmanager
def mounted(program: Path, kind: str, base: Path) -> Iterator[tuple[Path, Path]]:
    """Mount the stand-in; yield the mount and the directory behind it."""
    behind, mount = base / f"{kind}-behind", base / f"{kind}-mount"
    behind.mkdir()
    mount.mkdir()
    process = subprocess.Popen([str(program), kind, str(behind), str(mount)])
    try:
        deadline = time.monotonic() + MOUNT_TIMEOUT_S
        while not os.path.ismount(mount):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(POLL_S)
        yield mount, behind
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=False, stderr=subprocess.DEVNULL)
        process.terminate()
        process.wait(timeout=MOUNT_TIMEOUT_S)


def save(backup_harness: Path, out: Path, root: Path) -> tuple[Dump, Stream]:
    """Back a tree up through the plugin."""
    out.mkdir(parents=True)
    (dump,), (stream,) = back_up(backup_harness, out, root, [list(entries_of_tree(root))])
    return dump, stream


def record_of(one: SavedFile) -> os.stat_result:
    """Return what Bacula's record gives back of a file."""
    head = [one.mode, one.ino, 1, one.nlink, one.uid, one.gid, one.size]
    seconds = [one.atime, one.mtime, one.mtime]
    nanoseconds = [second * 10**9 for second in seconds]
    return os.stat_result([*head, *seconds, *seconds, *nanoseconds, 4096, 0, one.rdev])


def add_saved(script: Script, files: Sequence[SavedFile], root: Path) -> None:
    """Add what the backup harness dumped to a restore job; the data is read from the tree."""
    for one in files:
        below = os.path.relpath(one.fname, os.fsencode(root))
        name = script.where + (b"" if below == b"." else b"/" + below)
        name += b"/" if one.type == FT_DIREND else b""
        link = one.link.replace(os.fsencode(root), script.where, 1) or None
        script.raw(one.type, record_of(one), name, link, one.cmd)
        if one.type == FT_REG:
            content = Path(os.fsdecode(one.fname)).read_bytes()
            for at in range(0, len(content), DATA_BYTES):
                script.lines.append(f"data {at} {content[at : at + DATA_BYTES].hex()}")
        script.lines += [f"blob {part.hex()}" for part in one.blob]
        script.lines.append("end")


def restore(
    harness: Path, dump: Dump, root: Path, target: Path, work: Path, *before: str
) -> Outcome:
    """Restore a dumped tree below target; `before` are lines of the harness's script."""
    work.mkdir(parents=True, exist_ok=True)
    script = Script(bytes(target), bytes(work))
    script.lines += before
    add_saved(script, dump.files, root)
    return script.run(harness)


def same_file(one: Path, other: Path) -> None:
    a, b = one.lstat(), other.lstat()
    assert (a.st_mode, a.st_uid, a.st_gid, a.st_mtime_ns) == (
        *(b.st_mode, b.st_uid, b.st_gid, b.st_mtime_ns),
    ), other
    if stat.S_ISREG(a.st_mode):
        assert one.read_bytes() == other.read_bytes()


def value(path: Path, name: str) -> bytes | None:
    """Return an xattr, None if there is none."""
    try:
        return os.getxattr(path, name)
    except OSError:
        return None
