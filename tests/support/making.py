"""Make files of every kind below one root, always through directory descriptors.

Covers: creating one inode of each type with its owner, mode, xattrs, ACLs and times; counting what
was made and what the filesystem refused; the encoding of POSIX ACLs as extended attributes.
Does not cover: which files a test tree holds (tree.py), uniform trees for benchmarks (bulk.py).

Every path is relative to the root and walked component by component, so that a path may be longer
than PATH_MAX. Extended attributes and sockets have no call that takes a directory descriptor; they
go through /proc/self/fd/N/NAME, which is short whatever the depth.
"""

import errno
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REFUSALS = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.EINVAL,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.EOVERFLOW,
        errno.EFBIG,
        errno.EILSEQ,
        errno.ENAMETOOLONG,
        errno.EMLINK,
    }
)
# What a filesystem says when an attribute is too large for it; for data, ENOSPC is a real failure.
XATTR_REFUSALS = REFUSALS | {errno.ENOSPC, errno.E2BIG, errno.ERANGE}

SECOND = 10**9
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
SOCKET_NAME_BYTES_MAX = 64  # sun_path holds 108 bytes, and /proc/self/fd/N/ comes first

ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER = 1, 2, 4, 8, 16, 32
ACL_NO_ID = 0xFFFFFFFF
ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"
ACLS = (ACL_ACCESS, ACL_DEFAULT)


def encode_acl(entries: Sequence[tuple[int, int, int]]) -> bytes:
    """Encode (tag, permissions, id) triples as linux/posix_acl_xattr.h lays them out."""
    ordered = sorted(entries, key=lambda entry: (entry[0], entry[2]))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ordered)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a new inode is to carry; None means: as it comes, but always with times of its own."""

    mode: int | None = None
    owner: tuple[int, int] | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    times_ns: tuple[int, int] | None = None


PLAIN = Attributes()


class Maker:
    """Make inodes below `root`, which it creates; directories get their attributes in `finish`."""

    def __init__(self, root: Path, seed: int, privileged: bool) -> None:
        os.mkdir(root)
        self.random = random.Random(seed)
        self.privileged = privileged
        self.kinds: Counter[str] = Counter()
        self.types: Counter[str] = Counter(directory=1)
        self.links = 0
        self.data_bytes = 0
        self.skipped: dict[str, str] = {}
        self._root = os.open(root, DIRECTORY_FLAGS)
        self._directories: list[tuple[bytes, Attributes]] = [(b"", PLAIN)]
        self._parent = b""
        self._parent_descriptor = self._root

    def close(self) -> None:
        """Give the descriptors back."""
        if self._parent_descriptor != self._root:
            os.close(self._parent_descriptor)
        os.close(self._root)

    @property
    def inodes(self) -> int:
        """How many inodes there are so far, the root included."""
        return sum(self.types.values())

    @contextmanager
    def kind(self, name: str, refusals: frozenset[int] = REFUSALS) -> Iterator[None]:
        """Count one success of this kind, or note why the filesystem refused it."""
        try:
            yield
        except OSError as error:
            if error.errno not in refusals:
                raise
            self.skipped[name] = str(error.strerror)
        else:
            self.kinds[name] += 1

    def needs_privilege(self, *names: str) -> bool:
        """Tell whether these kinds can be made; note them as skipped if not."""
        if not self.privileged:
            self.skipped.update(dict.fromkeys(names, "needs privilege"))
        return self.privileged

    def _at(self, path: bytes) -> tuple[int, bytes]:
        """Return a descriptor of the parent directory of `path`, and the name in it."""
        parent, _, name = path.rpartition(b"/")
        if parent != self._parent:
            descriptor = os.dup(self._root)
            for component in parent.split(b"/") if parent else ():
                try:
                    below = os.open(component, DIRECTORY_FLAGS, dir_fd=descriptor)
                finally:
                    os.close(descriptor)
                descriptor = below
            if self._parent_descriptor != self._root:
                os.close(self._parent_descriptor)
            self._parent, self._parent_descriptor = parent, descriptor
        return self._parent_descriptor, name

    def _own_times(self) -> tuple[int, int]:
        """Draw an access and a modification time, each with nanoseconds of its own."""
        start = 1_000_000_000 * SECOND
        return (
            start + self.random.randrange(600_000_000 * SECOND),
            start + self.random.randrange(600_000_000 * SECOND),
        )

    def _apply(self, path: bytes, attributes: Attributes) -> None:
        """Set `attributes`: the owner first since it clears setuid and capabilities, times last."""
        parent, name = self._at(path)
        name = name or b"."
        if attributes.owner is not None:
            os.chown(name, *attributes.owner, dir_fd=parent, follow_symlinks=False)
        # The mode after user.* attributes, which need write permission; before ACLs, which set it.
        acls = {key: attributes.xattrs[key] for key in attributes.xattrs if key in ACLS}
        others = {key: attributes.xattrs[key] for key in attributes.xattrs if key not in ACLS}
        self._set_xattrs(parent, name, others)
        if attributes.mode is not None:
            os.chmod(name, attributes.mode, dir_fd=parent)
        self._set_xattrs(parent, name, acls)
        times = attributes.times_ns or self._own_times()
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        if attributes.times_ns is not None:
            self._check_times(path, times)

    def _set_xattrs(self, parent: int, name: bytes, xattrs: Mapping[bytes, bytes]) -> None:
        for key, value in xattrs.items():
            with self.kind(_xattr_kind(key, value), XATTR_REFUSALS):
                os.setxattr(_through_proc(parent, name), key, value, follow_symlinks=False)

    def _check_times(self, path: bytes, times: tuple[int, int]) -> None:
        """Note a time that the filesystem does not hold; it stores the nearest one that it can."""
        parent, name = self._at(path)
        stored = os.stat(name or b".", dir_fd=parent, follow_symlinks=False)
        kind = f"time {times[1]} ns"
        if (stored.st_atime_ns, stored.st_mtime_ns) == times:
            self.kinds[kind] += 1
        else:
            self.skipped[kind] = f"stored as {stored.st_mtime_ns} ns"

    def directory(self, path: bytes, attributes: Attributes = PLAIN) -> bytes:
        """Make a directory; its attributes are set by `finish`. Return its path."""
        parent, name = self._at(path)
        os.mkdir(name, dir_fd=parent)
        self.types["directory"] += 1
        self._directories.append((path, attributes))
        return path

    def root_attributes(self, attributes: Attributes) -> None:
        """Say what the root itself is to carry."""
        self._directories[0] = (b"", attributes)

    def file(
        self,
        path: bytes,
        size: int = 0,
        attributes: Attributes = PLAIN,
        extents: Sequence[tuple[int, int]] | None = None,
        zeros: bool = False,
    ) -> None:
        """Make a regular file: random data in `extents` (offset, length), by default all of it."""
        parent, name = self._at(path)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=parent)
        try:
            os.ftruncate(descriptor, size)
            for offset, length in [(0, size)] if extents is None else extents:
                data = bytes(length) if zeros else self.random.randbytes(length)
                written = os.pwrite(descriptor, data, offset) if length else 0
                assert written == length, (path, written, length)
                self.data_bytes += length
        except OSError:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(descriptor)
        self.types["regular"] += 1
        self._apply(path, attributes)

    def symlink(self, path: bytes, target: bytes, attributes: Attributes = PLAIN) -> None:
        """Make a symbolic link."""
        parent, name = self._at(path)
        os.symlink(target, name, dir_fd=parent)
        self.types["symlink"] += 1
        self._apply(path, attributes)

    def fifo(self, path: bytes, attributes: Attributes = PLAIN) -> None:
        """Make a FIFO."""
        parent, name = self._at(path)
        os.mkfifo(name, 0o644, dir_fd=parent)
        self.types["fifo"] += 1
        self._apply(path, attributes)

    def device(self, path: bytes, mode: int, device: int, attributes: Attributes = PLAIN) -> None:
        """Make a device node; `mode` carries S_IFCHR or S_IFBLK."""
        parent, name = self._at(path)
        os.mknod(name, mode, device, dir_fd=parent)
        self.types["device"] += 1
        self._apply(path, attributes)

    def socket(self, path: bytes, attributes: Attributes = PLAIN) -> None:
        """Make a socket by binding it; a long name is given to it afterwards."""
        parent, name = self._at(path)
        bound = name if len(name) <= SOCKET_NAME_BYTES_MAX else b"to-be-renamed.socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(_through_proc(parent, bound))
        if bound != name:
            os.rename(bound, name, src_dir_fd=parent, dst_dir_fd=parent)
        self.types["socket"] += 1
        self._apply(path, attributes)

    def link(self, path: bytes, new_path: bytes) -> None:
        """Give the inode at `path` one more name; a symbolic link itself is linked."""
        source, name = self._at(path)
        source = os.dup(source)  # the next call of _at may close it
        try:
            parent, new_name = self._at(new_path)
            os.link(name, new_name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)
        self.links += 1

    def finish(self) -> None:
        """Set the attributes of all directories, when nothing more is put into them."""
        while self._directories:
            path, attributes = self._directories.pop()
            self._apply(path, attributes)


def _through_proc(directory: int, name: bytes) -> bytes:
    return b"/proc/self/fd/%d/%s" % (directory, name)


def _xattr_kind(key: bytes, value: bytes) -> str:
    """Name an attribute's kind for the summary: its namespace, or the whole name."""
    if key.startswith((b"system.", b"security.")):
        return key.decode("ascii", "backslashreplace")
    namespace = key.partition(b".")[0].decode()
    if len(value) > 2000:
        return f"{namespace} xattr of {len(value)} bytes"
    return f"{namespace} xattr" + ("" if value else " of 0 bytes")
