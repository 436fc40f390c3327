"""Compare two trees in everything that a restore must bring back.

Covers: names, types, contents, modes, owners, device numbers, sizes, times to the nanosecond,
targets of symbolic links, extended attributes and ACLs of every kind of file, hard-link groups
within the tree, holes, and the two roots themselves.
Does not cover: ctime, birth time, inode numbers and sizes of directories, which no restore can set;
the atime of symbolic links, which reading the target moves and no flag prevents.

It uses nothing of the product. It reads with O_NOATIME where it may, and takes the attributes of
each file before it reads anything of it. What could not be read is a difference.
"""

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

HASH_BLOCK_BYTES = 64 << 10
BLOCKS_SLACK_BYTES = 64 << 10  # extent trees and preallocation differ between two equal files
BLOCKS_SLACK_RATIO = 1 / 32
SHOWN_BYTES_MAX = 48
DIFFERENCES_SHOWN_MAX = 50
TIMES = {"mtime": "st_mtime_ns", "atime": "st_atime_ns"}

TYPE_NAMES = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
ACL_TAGS = {1: "user:", 2: "user:", 4: "group:", 8: "group:", 16: "mask:", 32: "other:"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One aspect of one path in which tree b is not as tree a."""

    path: bytes
    what: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{escape(self.path) or '.'}: {self.what}: {self.a} | {self.b}"


class Content(NamedTuple):
    """What a regular file holds: its hash, and where its data lies as (start, end)."""

    digest: str | None
    extents: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One name with all that is compared of its inode."""

    stat: os.stat_result
    digest: str | None = None
    extents: tuple[tuple[int, int], ...] = ()
    target: bytes | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def type(self) -> int:
        """The type bits of the mode."""
        return stat.S_IFMT(self.stat.st_mode)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A tree as it was read: an entry for each path relative to the root, which itself is b""."""

    root: Path
    block_bytes: int
    entries: dict[bytes, Entry]

    def link_groups(self) -> set[frozenset[bytes]]:
        """Return the sets of two or more paths that are one inode (never directories)."""
        groups: dict[tuple[int, int], set[bytes]] = {}
        for path, entry in self.entries.items():
            if entry.type != stat.S_IFDIR:
                groups.setdefault((entry.stat.st_dev, entry.stat.st_ino), set()).add(path)
        return {frozenset(paths) for paths in groups.values() if len(paths) > 1}


def compare_trees(
    a: Path, b: Path, *, sockets: bool = False, times: Sequence[str] = ("mtime",)
) -> list[Difference]:
    """Read both trees and return every difference, ordered by path.

    Sockets of tree a need not be in tree b, unless `sockets` is set: Bacula does not save them.
    """
    return compare_snapshots(take_snapshot(a), take_snapshot(b), sockets=sockets, times=times)


def compare_snapshots(
    a: Snapshot, b: Snapshot, *, sockets: bool = False, times: Sequence[str] = ("mtime",)
) -> list[Difference]:
    """Compare two trees that were read before; the same tree twice shows what happened to it."""
    if unknown := set(times) - set(TIMES):
        raise ValueError(f"times are {', '.join(TIMES)}, not {', '.join(sorted(unknown))}")
    left_out = set()
    if not sockets:
        left_out = {path for path, entry in a.entries.items() if entry.type == stat.S_IFSOCK}
    block_bytes = max(a.block_bytes, b.block_bytes)
    found: list[Difference] = []
    for path in sorted((a.entries.keys() | b.entries.keys()) - left_out):
        entry_a, entry_b = a.entries.get(path), b.entries.get(path)
        if entry_a is None or entry_b is None:
            what = "missing" if entry_b is None else "extra"
            found.append(Difference(path, what, _show_type(entry_a), _show_type(entry_b)))
        else:
            aspects = _compare_entries(entry_a, entry_b, times, block_bytes)
            found.extend(Difference(path, *aspect) for aspect in aspects)
    found.extend(_compare_links(a, b, left_out))
    return sorted(found, key=lambda difference: difference.path)


def format_differences(
    differences: Sequence[Difference], limit: int = DIFFERENCES_SHOWN_MAX
) -> str:
    """Return the first `limit` differences as lines, and how many more there are of each kind."""
    lines = [str(difference) for difference in differences[:limit]]
    rest: dict[str, int] = {}
    for difference in differences[limit:]:
        rest[difference.what] = rest.get(difference.what, 0) + 1
    if rest:
        kinds = ", ".join(f"{count} x {what}" for what, count in sorted(rest.items()))
        lines.append(f"... and {len(differences) - limit} more: {kinds}")
    return "\n".join(lines)


def escape(name: bytes) -> str:
    """Show bytes as printable ASCII, as in a Python literal; cut when very long."""
    shown = "".join(chr(c) if 32 <= c < 127 and c != 92 else f"\\x{c:02x}" for c in name)
    return shown if len(shown) <= 300 else f"{shown[:60]}...({len(name)} bytes)...{shown[-100:]}"


def _compare_entries(
    a: Entry, b: Entry, times: Iterable[str], block_bytes: int
) -> Iterator[tuple[str, str, str]]:
    """Yield (what, a, b) for each aspect that differs."""
    if a.unread or b.unread:
        yield "unreadable", _show_unread(a), _show_unread(b)
    if a.type != b.type:
        yield "type", _show_type(a), _show_type(b)
        return
    mode_a, mode_b = stat.S_IMODE(a.stat.st_mode), stat.S_IMODE(b.stat.st_mode)
    if mode_a != mode_b:
        yield "mode", f"{mode_a:04o}", f"{mode_b:04o}"
    names = ["st_uid", "st_gid"]
    if a.type in (stat.S_IFREG, stat.S_IFLNK):
        names.append("st_size")
    if a.type in (stat.S_IFCHR, stat.S_IFBLK):
        names.append("st_rdev")
    names += [TIMES[name] for name in times if name != "atime" or a.type != stat.S_IFLNK]
    for name in names:
        value_a, value_b = getattr(a.stat, name), getattr(b.stat, name)
        if value_a != value_b:
            what = name.removeprefix("st_").removesuffix("_ns")
            yield what, str(value_a), str(value_b)
    if a.target != b.target:
        yield "target", _show_bytes(a.target), _show_bytes(b.target)
    if a.digest != b.digest:
        yield "content", f"sha256 {a.digest}", f"sha256 {b.digest}"
    for key in sorted(a.xattrs.keys() | b.xattrs.keys()):
        if a.xattrs.get(key) != b.xattrs.get(key):
            shown = (_show_xattr(key, entry.xattrs.get(key)) for entry in (a, b))
            yield f"xattr {escape(key)}", *shown
    if a.type == stat.S_IFREG:
        yield from _compare_holes(a, b, block_bytes)


def _compare_holes(a: Entry, b: Entry, block_bytes: int) -> Iterator[tuple[str, str, str]]:
    """Yield where data and holes lie otherwise, or where b takes clearly more room than a."""
    extents_a = round_extents(a.extents, block_bytes, a.stat.st_size)
    extents_b = round_extents(b.extents, block_bytes, b.stat.st_size)
    if a.stat.st_size == b.stat.st_size and extents_a != extents_b:
        yield "extents", _show_extents(extents_a), _show_extents(extents_b)
    allocated_a, allocated_b = a.stat.st_blocks * 512, b.stat.st_blocks * 512
    if allocated_b > allocated_a * (1 + BLOCKS_SLACK_RATIO) + BLOCKS_SLACK_BYTES:
        yield "allocated bytes", str(allocated_a), str(allocated_b)


def _compare_links(a: Snapshot, b: Snapshot, left_out: set[bytes]) -> Iterator[Difference]:
    """Yield each set of names that is one inode in one tree and not exactly so in the other."""
    groups_a, groups_b = (
        {group for group in snapshot.link_groups() if not group & left_out} for snapshot in (a, b)
    )
    for group in groups_a - groups_b:
        yield Difference(min(group), "hard links", _show_group(group), "not one inode with these")
    for group in groups_b - groups_a:
        yield Difference(min(group), "hard links", "not one inode with these", _show_group(group))


def take_snapshot(root: Path) -> Snapshot:
    """Read the whole tree below `root`. Holds one descriptor for each level of depth."""
    top = _open(os.fsencode(root), None, os.O_DIRECTORY)
    # Parents stay open while their children are read: (descriptor, path, names still to do).
    levels: list[tuple[int, bytes, list[bytes]]] = [(top, b"", [])]
    entries: dict[bytes, Entry] = {}
    linked: dict[tuple[int, int], Content] = {}
    try:
        status, block_bytes, unread = os.fstat(top), os.fstatvfs(top).f_frsize, []
        xattrs = _read_xattrs(b"/proc/self/fd/%d/." % top, unread)
        entries[b""] = Entry(status, xattrs=xattrs, unread=tuple(unread))
        levels[0] = (top, b"", _list(top))
        while levels:
            parent, path, names = levels[-1]
            if not names:
                os.close(parent)
                levels.pop()
                continue
            name = names.pop()
            child = path + b"/" + name if path else name
            try:
                entries[child], descriptor = _read_entry(parent, name, linked)
            except OSError as error:  # a directory that may be listed but not searched
                why = f"{escape(name)}: {error.strerror}"
                entries[path] = replace(entries[path], unread=(*entries[path].unread, why))
                continue
            if descriptor is not None:
                levels.append((descriptor, child, []))
                levels[-1] = (descriptor, child, _list(descriptor))
    finally:
        for descriptor, _, _ in levels:
            os.close(descriptor)
    return Snapshot(root, block_bytes, entries)


def _read_entry(
    parent: int, name: bytes, linked: dict[tuple[int, int], Content]
) -> tuple[Entry, int | None]:
    """Read one name; for a directory also return an open descriptor of it."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    unread: list[str] = []
    content, target, descriptor = Content(None, ()), None, None
    try:
        if kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=parent)
        elif kind == stat.S_IFDIR:
            descriptor = _open(name, parent, os.O_DIRECTORY)
        elif kind == stat.S_IFREG and (status.st_dev, status.st_ino) in linked:
            content = linked[status.st_dev, status.st_ino]
        elif kind == stat.S_IFREG:
            content = _read_content(parent, name, status.st_size)
            if status.st_nlink > 1:
                linked[status.st_dev, status.st_ino] = content
    except OSError as error:
        unread.append(f"{TYPE_NAMES[kind]}: {error.strerror}")
    xattrs = _read_xattrs(b"/proc/self/fd/%d/%s" % (parent, name), unread)
    return Entry(status, *content, target, xattrs, tuple(unread)), descriptor


def _open(name: bytes, parent: int | None, flags: int = 0) -> int:
    """Open for reading without moving the atime; only the owner may ask for that."""
    flags |= os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if parent is not None:
        flags |= os.O_NOFOLLOW
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=parent)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return os.open(name, flags, dir_fd=parent)


def _list(descriptor: int) -> list[bytes]:
    return sorted((os.fsencode(name) for name in os.listdir(descriptor)), reverse=True)


def _read_content(parent: int, name: bytes, size: int) -> Content:
    """Return the hash of the content and the extents that hold data."""
    descriptor = _open(name, parent)
    try:
        extents = tuple(_data_extents(descriptor, size))
        return Content(_hash_content(descriptor, size, extents), extents)
    finally:
        os.close(descriptor)


def _data_extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what the filesystem says is data."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _hash_content(descriptor: int, size: int, extents: Iterable[tuple[int, int]]) -> str:
    """Hash size, and offset and bytes of every 64-KiB block that is not all zeros.

    So a hole and written zeros give the same hash, and a file of 1 TiB costs only its data.
    """
    digest = hashlib.sha256(struct.pack("<Q", size))
    done = 0
    for start, end in extents:
        first = max(done, start - start % HASH_BLOCK_BYTES)
        for offset in range(first, end, HASH_BLOCK_BYTES):
            block = _read_block(descriptor, offset, min(HASH_BLOCK_BYTES, size - offset))
            if block.count(0) != len(block):
                digest.update(struct.pack("<Q", offset))
                digest.update(block)
            done = offset + HASH_BLOCK_BYTES
    return digest.hexdigest()


def _read_block(descriptor: int, offset: int, length: int) -> bytes:
    block = os.pread(descriptor, length, offset)
    if len(block) != length:
        raise OSError(errno.EIO, f"read {len(block)} of {length} bytes at {offset}")
    return block


def _read_xattrs(path: bytes, unread: list[str]) -> dict[bytes, bytes]:
    """Return all extended attributes, ACLs among them; trusted ones are seen by root alone."""
    found: dict[bytes, bytes] = {}
    try:
        keys = [os.fsencode(key) for key in os.listxattr(path, follow_symlinks=False)]
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            unread.append(f"xattrs: {error.strerror}")
        return found
    for key in keys:
        try:
            found[key] = os.getxattr(path, key, follow_symlinks=False)
        except OSError as error:
            unread.append(f"xattr {escape(key)}: {error.strerror}")
    return found


def round_extents(
    extents: Iterable[tuple[int, int]], block_bytes: int, size: int
) -> list[tuple[int, int]]:
    """Widen extents to whole blocks, join those that then touch, cut at the file's size."""
    rounded: list[tuple[int, int]] = []
    for start, end in extents:
        start -= start % block_bytes
        end = min(end + -end % block_bytes, size)
        if rounded and start <= rounded[-1][1]:
            rounded[-1] = (rounded[-1][0], max(end, rounded[-1][1]))
        else:
            rounded.append((start, end))
    return rounded


def _show_type(entry: Entry | None) -> str:
    return "absent" if entry is None else TYPE_NAMES[entry.type]


def _show_unread(entry: Entry) -> str:
    more = f"; and {len(entry.unread) - 3} more" if len(entry.unread) > 3 else ""
    return ("; ".join(entry.unread[:3]) or "read") + more


def _show_bytes(value: bytes | None) -> str:
    return "unread" if value is None else f"'{escape(value)}'"


def _show_group(group: frozenset[bytes]) -> str:
    names = [escape(path) for path in sorted(group)]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _show_extents(extents: Sequence[tuple[int, int]]) -> str:
    shown = " ".join(f"{start}-{end}" for start, end in extents[:8])
    return f"{len(extents)} extents {shown}{' ...' if len(extents) > 8 else ''}".strip()


def _show_xattr(key: bytes, value: bytes | None) -> str:
    """Show ACLs as getfacl does and everything else as hexadecimal digits."""
    if value is None:
        return "absent"
    if key.startswith(b"system.posix_acl_") and len(value) % 8 == 4:
        return _show_acl(value)
    shown = value[:SHOWN_BYTES_MAX].hex()
    return f"{len(value)} bytes {shown}{'...' if len(value) > SHOWN_BYTES_MAX else ''}"


def _show_acl(value: bytes) -> str:
    entries = []
    for tag, permissions, number in struct.iter_unpack("<HHI", value[4:]):
        who = ACL_TAGS.get(tag, f"tag {tag}:") + (str(number) if tag in (2, 8) else "")
        letters = "".join(
            letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
        )
        entries.append(f"{who}:{letters}")
    return ",".join(entries)
