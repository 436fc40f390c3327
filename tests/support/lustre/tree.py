"""A real tree whose changes leave records, as on a Lustre filesystem with several targets.

Covers: FIDs and link names of all objects for the stand-in library, and one method for each change.
Does not cover: which changes (history).

A FID here is an IGIF: its sequence is the inode number that stat shows, its object id counts up,
so that a FID is never used again though inode numbers are. A directory is on a target of its own;
names in it are recorded there, and its files' data as well.
"""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

from tests.support.lustre.encoding import NO_FID, fid
from tests.support.lustre.targets import Target

CREAT, MKDIR, HLINK, SLINK, MKNOD, UNLNK, RMDIR, RENME, RNMTO = range(1, 10)
OPEN, CLOSE, LYOUT, TRUNC, SATTR, XATTR, HSM, MTIME, CTIME, ATIME, MIGRT = range(10, 21)
LAST = 0x1


class LustreTree:
    """A mounted filesystem."""

    def __init__(self, mount: Path, state: Path, targets: int = 1, seed: int = 0) -> None:
        self.mount, self.state = bytes(mount), state
        self.random = random.Random(seed)
        self.targets = [
            Target(state, f"scratch-MDT{number:04x}", marks=bool(seed % 2))
            for number in range(targets)
        ]
        for target in self.targets:  # one that never had a record is a case of its own
            target.append(OPEN)
        self.folders = {name: state / name for name in ("inodes", "links")}
        for folder in self.folders.values():
            folder.mkdir()
        self.fids: dict[int, bytes] = {}  # by inode number
        self.links: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self.on: dict[bytes, int] = {}  # which target a FID is on
        self.count = 0
        self._adopt(self.mount, 0)
        (state / "root").write_bytes(self.fid(self.mount))

    # What the library is to find.

    def fid(self, path: bytes) -> bytes:
        return self.fids[os.lstat(path).st_ino]

    def _adopt(self, path: bytes, target: int) -> bytes:
        inode = os.lstat(path).st_ino
        self.count += 1
        new = fid(inode, self.count)
        assert 12 <= inode < 1 << 32
        self.fids[inode] = new
        self.on[new] = target
        (self.folders["inodes"] / str(inode)).write_bytes(new)
        return new

    def _relink(self, what: bytes) -> None:
        path = self.folders["links"] / what.hex()
        links = self.links.get(what)
        if links:
            path.write_bytes(
                b"".join(parent + len(n).to_bytes(2, "little") + n for parent, n in links)
            )
        else:
            path.unlink(missing_ok=True)

    def _link(self, what: bytes, parent: bytes, name: bytes) -> None:
        self.links.setdefault(what, []).append((parent, name))
        self._relink(what)

    def _unlink(self, what: bytes, parent: bytes, name: bytes) -> bool:
        self.links[what].remove((parent, name))
        self._relink(what)
        if not self.links[what]:
            del self.links[what]
            return True
        return False

    # What is recorded.

    def _fields(self) -> dict[str, object]:
        fields: dict[str, object] = {}
        if self.random.random() < 0.7:
            fields["job"] = b"cp.%d" % self.random.randrange(1000)
        if self.random.random() < 0.7:
            fields["extra"] = {1: bytes(16), 2: bytes(24)}
        return fields

    def _place(self, path: bytes) -> tuple[bytes, bytes, Target]:
        parent, name = os.path.split(path)
        found = self.fid(parent)
        return found, name, self.targets[self.on[found]]

    def _names(self, kind: int, path: bytes, what: bytes, flags: int = 0) -> None:
        parent, name, target = self._place(path)
        target.append(kind, what, parent, name, flags=flags, **self._fields())

    def _made(self, kind: int, path: bytes) -> bytes:
        parent, name, target = self._place(path)
        on = self.targets.index(target)
        if kind == MKDIR:
            on = self.random.randrange(len(self.targets))
        what = self._adopt(path, on)
        self._link(what, parent, name)
        self._names(kind, path, what)
        return what

    def data(self, kind: int, what: bytes) -> None:
        """Record a change of an object."""
        self.targets[self.on[what]].data(kind, what, **self._fields())

    # Changes.

    def create(self, path: bytes, content: bytes = b"") -> None:
        with open(path, "xb") as stream:
            stream.write(content)
        what = self._made(CREAT, path)
        if content:
            self.data(CLOSE, what)

    def mkdir(self, path: bytes) -> None:
        os.mkdir(path)
        self._made(MKDIR, path)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, path)
        self._made(SLINK, path)

    def fifo(self, path: bytes) -> None:
        os.mkfifo(path)
        self._made(MKNOD, path)

    def link(self, old: bytes, new: bytes) -> None:
        what = self.fid(old)
        os.link(old, new, follow_symlinks=False)
        parent, name, _ = self._place(new)
        self._link(what, parent, name)
        self._names(HLINK, new, what)

    def unlink(self, path: bytes) -> None:
        what = self.fid(path)
        os.unlink(path)
        parent, name, _ = self._place(path)
        self._names(UNLNK, path, what, LAST if self._unlink(what, parent, name) else 0)

    def rmdir(self, path: bytes) -> None:
        what = self.fid(path)
        os.rmdir(path)
        parent, name, _ = self._place(path)
        self._unlink(what, parent, name)
        self._names(RMDIR, path, what, LAST)

    def remove_tree(self, path: bytes) -> None:
        for folder, below, names in os.walk(path, topdown=False):
            for name in names:
                self.unlink(os.path.join(folder, name))
            for name in below:
                inner = os.path.join(folder, name)
                (self.unlink if os.path.islink(inner) else self.rmdir)(inner)
        self.rmdir(path)

    def write(self, path: bytes, content: bytes) -> None:
        assert stat.S_ISREG(os.lstat(path).st_mode)
        with open(path, "ab") as stream:
            stream.write(content)
        self.data(CLOSE, self.fid(path))

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(path, size)
        self.data(TRUNC, self.fid(path))

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(path, mode)
        self.data(SATTR, self.fid(path))

    def set_attribute(self, path: bytes, name: bytes, value: bytes) -> None:
        os.setxattr(path, name, value, follow_symlinks=False)
        self.data(XATTR, self.fid(path))

    def set_times(self, path: bytes, when: int) -> None:
        os.utime(path, (when, when), follow_symlinks=False)
        self.data(MTIME, self.fid(path))

    def rename(self, old: bytes, new: bytes) -> None:
        """Rename; between two targets it is recorded on both, on one, or as old servers did."""
        what = self.fid(old)
        gone = self.fid(new) if os.path.lexists(new) else NO_FID
        if gone == what:  # two names of one inode: nothing happens
            return
        os.rename(old, new)
        parent, name, target = self._place(new)
        old_parent, old_name, source = self._place(old)
        flags = 0
        if gone != NO_FID:
            flags = LAST if self._unlink(gone, parent, name) else 0
        self._unlink_moved(what, (old_parent, old_name), (parent, name))
        style = self.random.choice(["one", "both", "pair"])
        moved = (what, old_parent, old_name)
        if style == "pair":  # before 2.5: two records without the rename's extension
            source.append(RENME, what, old_parent, old_name, **self._fields())
            target.append(RNMTO, gone, parent, name, flags=flags, **self._fields())
            return
        fields = self._fields()
        target.append(RENME, gone, parent, name, moved=moved, flags=flags, **fields)
        if style == "both" and source is not target:
            source.append(RENME, gone, parent, name, moved=moved, flags=flags, **fields)

    def _unlink_moved(
        self, what: bytes, old: tuple[bytes, bytes], new: tuple[bytes, bytes]
    ) -> None:
        links = self.links[what]
        links[links.index(old)] = new
        self._relink(what)
