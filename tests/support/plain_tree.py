"""Changes of a tree by the system's own calls, as LustreTree has them with its records."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class PlainTree:
    """A tree on any filesystem."""

    def create(self, path: bytes, content: bytes = b"") -> None:
        with open(path, "xb") as stream:
            stream.write(content)

    def write(self, path: bytes, content: bytes) -> None:
        with open(path, "ab") as stream:
            stream.write(content)

    def set_attribute(self, path: bytes, name: bytes, value: bytes) -> None:
        os.setxattr(path, name, value, follow_symlinks=False)

    def set_times(self, path: bytes, when: int) -> None:
        os.utime(path, (when, when), follow_symlinks=False)

    def remove_tree(self, path: bytes) -> None:
        shutil.rmtree(path)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, path)

    def fifo(self, path: bytes) -> None:
        os.mkfifo(path)

    def link(self, old: bytes, new: bytes) -> None:
        os.link(old, new, follow_symlinks=False)

    def mkdir(self, path: bytes) -> None:
        Path(os.fsdecode(path)).mkdir()

    truncate = staticmethod(os.truncate)
    chmod = staticmethod(os.chmod)
    unlink = staticmethod(os.unlink)
    rmdir = staticmethod(os.rmdir)
    rename = staticmethod(os.rename)
