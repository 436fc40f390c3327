"""Make a deterministic tree that holds every kind of file that a backup must bring back.

Covers: what the tree holds, kind by kind; the summary of what was made and what was refused.
Does not cover: how an inode is made (making.py), uniform trees for benchmarks (bulk.py), comparing
(compare.py).

The same arguments on the same filesystem give the same names, contents, attributes and times.
"""

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.bulk import make_flat, make_uniform, remove_tree
from tests.support.making import (
    ACL_ACCESS,
    ACL_DEFAULT,
    ACL_GROUP,
    ACL_GROUP_OBJ,
    ACL_MASK,
    ACL_NO_ID,
    ACL_OTHER,
    ACL_USER,
    ACL_USER_OBJ,
    SECOND,
    Attributes,
    Maker,
    encode_acl,
)

__all__ = ["TreeSummary", "make_flat", "make_tree", "make_uniform", "remove_tree"]

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
CROWD_FILES = 3000
BULK_FILES_PER_DIRECTORY = 120
ID_MAX = 4294967294  # 2^32 - 1 means "no change" to chown

SIZES = (0, 1, 511, 4 * KIB, 4 * KIB + 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB, 5 * MIB + 17)
CHUNKED_BYTES = 40 * MIB + 12345  # large enough to be read in chunks by several threads

# name: size, extents as (offset, length)
SPARSE_FILES: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "hole-first": (MIB + 100 * KIB, [(MIB, 100 * KIB)]),
    "hole-last": (5 * MIB + 123, [(0, 64 * KIB)]),
    "hole-only": (3 * MIB, []),
    "hole-only-odd": (12345, []),
    "hole-in-small": (20 * KIB, [(8 * KIB, 4 * KIB)]),
    "hole-between": (300 * KIB, [(0, 100 * KIB), (200 * KIB, 100 * KIB)]),
    "extents-unaligned": (100_003, [(5_000, 1_000), (50_001, 9_999), (100_002, 1)]),
    "extents-many": (20 * MIB, [(i * MIB + i * 4 * KIB, 12 * KIB + i) for i in range(18)]),
    "one-byte-past-4g": (4 * GIB + 1, [(4 * GIB, 1)]),
    "tebibyte": (TIB, [(0, 9), (TIB // 2 + 12 * KIB, 300 * KIB), (TIB - 4 * KIB, 4 * KIB)]),
}

ODD_NAMES = (
    b"new\nline",
    b"\n",
    b"tab\tname",
    b" leading and trailing ",
    b" ",
    b"-rf",
    b"--",
    b"quote's",
    b'double"quote',
    b"back\\slash",
    b"trailing\\",
    b"*?[",
    b"[a-z]*",
    b"$(true) `true` ${HOME}",
    b"a;b|c&d<e>f",
    b"%s%n%%",
    b"@list",
    b"|pipe",
    b"#comment",
    b"...",
    b".hidden",
    b"~",
    b"a:b=c,d",
    b"\x01\x02\x1b[31m\x7f",
    b"carriage\rreturn",
    b"\xff\xfe",
    b"latin1-\xe9",
    b"\xc0\xaf-overlong",
    b"\xed\xa0\x80-surrogate",
    "größe-文件-🌊".encode(),
    b"e\xcc\x81-decomposed",
    b"\xc3\xa9-composed",
    b"n" * 255,
    b"\xff" * 255,
    "é".encode() * 127,
)

# Seconds and nanoseconds of atime and mtime; the summary tells which of them the filesystem holds.
SPECIAL_TIMES_NS = (
    -2_145_916_800 * SECOND + 123_456_789,  # 1902
    -2_147_483_648 * SECOND,  # 1901-12-13, the least that 32 bits hold
    -1,
    0,
    1,
    999_999_999,
    2_147_483_647 * SECOND + 999_999_999,  # the last of 2038 that 32 bits hold
    2_147_483_648 * SECOND + 1,
    4_102_444_800 * SECOND + 100_000_001,  # 2100
    13_569_465_600 * SECOND + 7,  # 2400
)

DEFAULT_ACL = encode_acl(
    [
        (ACL_USER_OBJ, 7, ACL_NO_ID),
        (ACL_USER, 7, 777),
        (ACL_GROUP_OBJ, 5, ACL_NO_ID),
        (ACL_MASK, 7, ACL_NO_ID),
        (ACL_OTHER, 1, ACL_NO_ID),
    ]
)
# cap_net_raw+ep, as `struct vfs_cap_data` of revision 2 holds it.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def access_acl(mode: int) -> bytes:
    """Encode an ACL with named entries whose owner, mask and other bits are those of `mode`."""
    return encode_acl(
        [
            (ACL_USER_OBJ, mode >> 6 & 7, ACL_NO_ID),
            (ACL_USER, 5, 1234),
            (ACL_USER, 0, ID_MAX),
            (ACL_GROUP_OBJ, 4, ACL_NO_ID),
            (ACL_GROUP, 7, 4321),
            (ACL_MASK, mode >> 3 & 7, ACL_NO_ID),
            (ACL_OTHER, mode & 7, ACL_NO_ID),
        ]
    )


@dataclass(frozen=True, slots=True)
class TreeSummary:
    """What a tree holds. A backup has `names - types["socket"]` files to save."""

    inodes: int
    names: int
    data_bytes: int
    types: dict[str, int]
    kinds: dict[str, int]
    skipped: dict[str, str]


def make_tree(root: Path, inodes: int, seed: int, privileged: bool) -> TreeSummary:
    """Make `root` with at least `inodes` inodes of every kind; `privileged` needs to be root."""
    maker = Maker(root, seed, privileged)
    try:
        for part in (
            _regular_files,
            _sparse_files,
            _directories,
            _odd_names,
            _symlinks,
            _hard_links,
            _special_files,
            _modes_and_owners,
            _xattrs,
            _acls,
            _times,
            _long_path,
        ):
            part(maker)
        _bulk(maker, inodes)
        maker.root_attributes(Attributes(mode=0o751, xattrs={b"user.of-the-root": b"1"}))
        maker.finish()
    finally:
        maker.close()
    return TreeSummary(
        inodes=maker.inodes,
        names=maker.inodes + maker.links,
        data_bytes=maker.data_bytes,
        types=dict(maker.types),
        kinds=dict(sorted(maker.kinds.items())),
        skipped=dict(sorted(maker.skipped.items())),
    )


def _regular_files(maker: Maker) -> None:
    maker.directory(b"regular")
    for size in (*SIZES, CHUNKED_BYTES):
        with maker.kind("regular file"):
            maker.file(b"regular/%d-bytes" % size, size)
    with maker.kind("allocated zeros"):
        maker.file(b"regular/zeros-that-are-data", 256 * KIB, zeros=True)


def _sparse_files(maker: Maker) -> None:
    maker.directory(b"sparse")
    for name, (size, extents) in SPARSE_FILES.items():
        with maker.kind(f"sparse file {name}"):
            maker.file(b"sparse/" + name.encode(), size, extents=extents)


def _directories(maker: Maker) -> None:
    maker.directory(b"directories")
    maker.directory(b"directories/empty")
    crowd = maker.directory(b"directories/crowd")
    for number in range(CROWD_FILES):
        maker.file(crowd + b"/entry-%05d" % number, number % 3)
    path = b"directories/deep"
    maker.directory(path)
    for level in range(40):
        path = maker.directory(path + b"/level-%d" % level)
        maker.file(path + b"/file", level)
    modes = [0o555, 0o700, 0o1777, 0o2775, 0o2555, 0o6711]
    if maker.needs_privilege("directory mode 0000"):
        modes.append(0o000)
    for mode in modes:
        with maker.kind(f"directory mode {mode:04o}"):
            path = maker.directory(b"directories/mode-%04o" % mode, Attributes(mode=mode))
            maker.file(path + b"/file", 100)
            maker.directory(path + b"/below", Attributes(mode=0o555))
            maker.file(path + b"/below/file", 100)


def _odd_names(maker: Maker) -> None:
    maker.directory(b"names")
    for kind in (b"files", b"directories", b"symlinks"):
        maker.directory(b"names/" + kind)
    for name in ODD_NAMES:
        with maker.kind(f"name {name[:24]!r} of {len(name)} bytes"):
            maker.file(b"names/files/" + name, len(name))
            maker.file(maker.directory(b"names/directories/" + name) + b"/" + name, 3)
            maker.symlink(b"names/symlinks/" + name, b"../files/" + name)


def _symlinks(maker: Maker) -> None:
    maker.directory(b"symlinks")
    maker.directory(b"symlinks/directory")
    targets = {
        b"relative": b"../regular/1-bytes",
        b"absolute": b"/etc/hostname",
        b"dangling": b"no/such/file",
        b"to-directory": b"directory",
        b"to-parent": b"..",
        b"to-itself": b"to-itself",
        b"one-byte": b"x",
        b"odd-bytes": b"\xff\xfe \n'\"\\",
        b"of-255-bytes": b"t" * 255,
        b"of-4000-bytes": b"/".join([b"t" * 99] * 40),
        b"of-4095-bytes": b"/".join([b"t" * 255] * 16)[:4095],
    }
    for name, target in targets.items():
        with maker.kind(f"symlink {name.decode()}"):
            maker.symlink(b"symlinks/" + name, target)
    if maker.needs_privilege("symlink with owner", "symlink with trusted xattr"):
        with maker.kind("symlink with owner"):
            maker.symlink(b"symlinks/owned", b"relative", Attributes(owner=(1001, ID_MAX)))
        with maker.kind("symlink with trusted xattr"):
            attributes = Attributes(xattrs={b"trusted.of-a-symlink": b"\0\1\2"})
            maker.symlink(b"symlinks/with-xattr", b"relative", attributes)


def _hard_links(maker: Maker) -> None:
    maker.directory(b"links")
    for folder in range(5):
        maker.directory(b"links/folder-%d" % folder)
    for names, size in ((2, 0), (2, 10), (3, 4096), (7, 100_000), (50, 1000), (2, 3 * MIB)):
        first = b"links/%d-names-%d-bytes" % (names, size)
        maker.file(first, size, Attributes(xattrs={b"user.names": b"%d" % names}))
        _spread(maker, first, names)
    with maker.kind("hard-linked sparse file"):
        maker.file(b"links/sparse", 9 * MIB, extents=[(MIB, 5000), (4 * MIB, 70_000)])
        _spread(maker, b"links/sparse", 3)
    with maker.kind("hard-linked symlink"):
        maker.symlink(b"links/symlink", b"dangling target")
        _spread(maker, b"links/symlink", 3)
    with maker.kind("hard-linked FIFO"):
        maker.fifo(b"links/fifo")
        _spread(maker, b"links/fifo", 2)
    if maker.needs_privilege("hard-linked device"):
        with maker.kind("hard-linked device"):
            maker.device(b"links/device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
            _spread(maker, b"links/device", 2)


def _spread(maker: Maker, first: bytes, names: int) -> None:
    """Give an inode `names` names in all, over several directories."""
    for number in range(1, names):
        folder = b"links/folder-%d/" % (number % 5)
        maker.link(first, folder + first.rpartition(b"/")[2] + b"-%02d" % number)
    maker.kinds["hard-link group"] += 1


def _special_files(maker: Maker) -> None:
    maker.directory(b"special")
    for mode in (0o644, 0o000, 0o1622):
        with maker.kind("FIFO"):
            maker.fifo(b"special/fifo-%04o" % mode, Attributes(mode=mode))
    for name in (b"socket", b"socket-" + b"s" * 248):
        with maker.kind("socket"):
            maker.socket(b"special/" + name, Attributes(mode=0o755))
    if not maker.needs_privilege("character device", "block device", "FIFO with trusted xattr"):
        return
    with maker.kind("FIFO with trusted xattr"):
        maker.fifo(b"special/fifo-xattr", Attributes(xattrs={b"trusted.of-a-fifo": b"yes"}))
    numbers = [(1, 3), (5, 1), (259, 70_000), (4095, 1_048_575)]
    for kind, bits in (("character device", stat.S_IFCHR), ("block device", stat.S_IFBLK)):
        for major, minor in numbers:
            path = f"special/{kind}-{major}-{minor}".replace(" ", "-").encode()
            with maker.kind(kind):
                attributes = Attributes(mode=0o640, owner=(0, 6))
                maker.device(path, bits | 0o600, os.makedev(major, minor), attributes)


def _modes_and_owners(maker: Maker) -> None:
    maker.directory(b"modes")
    modes = [0o400, 0o444, 0o600, 0o755, 0o4755, 0o2755, 0o6711, 0o1644, 0o2644, 0o7777]
    if maker.needs_privilege("file mode 0000"):
        modes.append(0o000)
    for mode in modes:
        with maker.kind(f"file mode {mode:04o}"):
            maker.file(b"modes/%04o" % mode, 500, Attributes(mode=mode))
    if not maker.needs_privilege("owners"):
        return
    maker.directory(b"owners", Attributes(mode=0o2770, owner=(ID_MAX, 2_147_483_648)))
    for uid, gid in ((0, 1), (1, 0), (65534, 65534), (100_000, 65_536), (2**31, 2**31 - 1)):
        maker.file(b"owners/%d-%d" % (uid, gid), 77, Attributes(owner=(uid, gid)))
    with maker.kind("owners"):
        attributes = Attributes(mode=0o6755, owner=(ID_MAX, ID_MAX))
        maker.file(b"owners/largest-setuid", 77, attributes)


def _xattrs(maker: Maker) -> None:
    maker.directory(b"xattrs", Attributes(xattrs={b"user.of-a-directory": b"\xff" * 10}))
    cases: dict[bytes, dict[bytes, bytes]] = {
        b"one": {b"user.one": b"value"},
        b"empty-value": {b"user.empty": b""},
        b"many": {b"user.n%02d" % n: maker.random.randbytes(n) for n in range(40)},
        b"large": {b"user.large": maker.random.randbytes(3500)},
        b"largest": {b"user.largest": maker.random.randbytes(60_000)},
        b"odd-names": {
            b"user.\xff\xfe \n=\"'\\": b"\0",
            b"user." + b"n" * 250: b"x",
        },
        b"binary": {b"user.binary": bytes(range(256))},
    }
    if maker.needs_privilege("trusted xattr", "security.capability", "security xattr"):
        cases[b"trusted"] = {b"trusted.one": b"1", b"trusted.two": b"", b"user.beside": b"3"}
        cases[b"capability"] = {b"security.capability": CAPABILITY}
        cases[b"security"] = {b"security.tests": b"label\0"}
    for name, xattrs in cases.items():
        maker.file(b"xattrs/" + name, 64, Attributes(mode=0o755, xattrs=xattrs))
    if maker.privileged:
        attributes = Attributes(
            mode=0o755, owner=(7, 8), xattrs={b"security.capability": CAPABILITY}
        )
        maker.file(b"xattrs/capability-and-owner", 64, attributes)


def _acls(maker: Maker) -> None:
    maker.directory(b"acls")
    access = Attributes(mode=0o650, xattrs={ACL_ACCESS: access_acl(0o650)})
    maker.file(b"acls/file", 10, access)
    maker.file(b"acls/file-setgid", 10, replace(access, mode=0o2650))
    maker.fifo(b"acls/fifo", access)
    for mode in (0o750, 0o555):
        for name, keys in (
            (b"access", (ACL_ACCESS,)),
            (b"default", (ACL_DEFAULT,)),
            (b"both", (ACL_ACCESS, ACL_DEFAULT)),
        ):
            values = {ACL_ACCESS: access_acl(mode), ACL_DEFAULT: DEFAULT_ACL}
            xattrs = {key: values[key] for key in keys}
            # Children have plain modes and no ACL: a restore must not let them inherit one.
            path = b"acls/%s-%o" % (name, mode)
            maker.directory(path, Attributes(mode=mode, xattrs=xattrs))
            maker.file(path + b"/without-acl", 10, Attributes(mode=0o640))
            maker.directory(path + b"/without-acl.d", Attributes(mode=0o750))
            maker.file(path + b"/without-acl.d/file", 10)
            maker.symlink(path + b"/symlink", b"without-acl")


def _times(maker: Maker) -> None:
    maker.directory(b"times")
    for number, mtime in enumerate(SPECIAL_TIMES_NS):
        atime = SPECIAL_TIMES_NS[(number + 1) % len(SPECIAL_TIMES_NS)]
        # Where the filesystem holds only one of two times, the other file still tries that one.
        for name, times in ((b"both", (atime, mtime)), (b"mtime", (SECOND + 1, mtime))):
            attributes = Attributes(times_ns=times)
            maker.file(b"times/%s-%d" % (name, mtime), 5, attributes)
        attributes = Attributes(times_ns=(SECOND + 1, mtime))
        maker.directory(b"times/directory-%d" % mtime, attributes)
        maker.symlink(b"times/symlink-%d" % mtime, b"target", attributes)
        maker.fifo(b"times/fifo-%d" % mtime, attributes)


def _long_path(maker: Maker) -> None:
    """Make a chain of directories whose path is longer than PATH_MAX, with files at its end."""
    path = maker.directory(b"long-path")
    for level in range(22):
        path = maker.directory(path + b"/%02d-" % level + b"d" * 247)
        maker.file(path + b"/file", 40 + level)
    with maker.kind(f"path of {len(path)} bytes"):
        maker.file(path + b"/" + b"f" * 255, 70_000)
        maker.symlink(path + b"/symlink", b"file")
        maker.fifo(path + b"/fifo")
        maker.socket(path + b"/socket")
        maker.file(path + b"/sparse", MIB, extents=[(512 * KIB, 4 * KIB)])
        maker.file(path + b"/linked", 1000, Attributes(xattrs={b"user.deep": b"1"}))
        maker.link(path + b"/linked", b"long-path/linked-from-above")
        maker.directory(path + b"/read-only", Attributes(mode=0o555))
        maker.file(path + b"/read-only/file", 3)


def _bulk(maker: Maker, inodes: int) -> None:
    """Fill up with ordinary small files of varied attributes, until there are `inodes` inodes."""
    maker.directory(b"bulk")
    while maker.inodes < inodes:
        folder = maker.directory(b"bulk/%04d" % (maker.inodes // BULK_FILES_PER_DIRECTORY))
        for number in range(min(BULK_FILES_PER_DIRECTORY, inodes - maker.inodes)):
            draw = maker.random.random()
            owner = None
            if maker.privileged and draw < 0.3:
                owner = (maker.random.randrange(70_000), maker.random.randrange(70_000))
            xattrs = {b"user.draw": b"%.17g" % draw} if draw > 0.9 else {}
            attributes = Attributes(
                mode=maker.random.choice((0o644, 0o600, 0o755, 0o440)), owner=owner, xattrs=xattrs
            )
            size = maker.random.choice(
                (0, maker.random.randrange(200), maker.random.randrange(9000))
            )
            maker.file(folder + b"/%05d" % number, size, attributes)
