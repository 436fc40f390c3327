"""Metadata targets of the stand-in: changelogs, consumers, faults.

Covers: the files that standin.c reads, and compiling it.
"""

from __future__ import annotations

import errno
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.lustre.encoding import NO_FID, encode

SOURCE = Path(__file__).with_name("standin.c")
STATE_VARIABLE = "FOREBAY_LUSTRE_STANDIN"
FLAGS = ("-std=gnu11", "-O2", "-g", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror")
START, FINI, PURGE = 0x10000, 0x20000, 0x40000
_LEFT_OUT = (17, 18, 19)  # MTIME, CTIME, ATIME


@functools.cache
def library() -> str:
    """Compile the stand-in, once for each process."""
    folder = tempfile.TemporaryDirectory(prefix="forebay-lustre-")
    _KEPT.append(folder)
    path = Path(folder.name, "liblustreapi-standin.so")
    subprocess.run(["cc", *FLAGS, "-o", path, SOURCE], check=True, timeout=120)
    return str(path)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


class Target:
    """One metadata target's changelog."""

    def __init__(self, state: Path, name: str, *, marks: bool = False) -> None:
        self.name = name
        self.folder = state / name
        self.folder.mkdir()
        self.records = self.folder / "records"
        self.records.touch()
        (self.folder / "users").touch()
        self.marks = marks
        if marks:
            (self.folder / "marks").touch()
        self._newest = self._size = 0
        self.registered = 0
        self._last_data: dict[bytes, int] = {}

    def append(self, kind: int, target: bytes = NO_FID, *args: bytes, **fields: object) -> int:
        """Store a record; returns its index."""
        index = self.newest + 1
        self.append_raw(encode(kind, index, target, *args, time=index << 30, **fields))
        self._newest = index
        return index

    def append_raw(self, record: bytes) -> None:
        with self.records.open("ab") as stream:
            stream.write(record)
        self._size += len(record)

    @property
    def newest(self) -> int:
        """Return the newest index, with the marks that the library stores when all is cleared."""
        size = self.records.stat().st_size
        self._newest += (size - self._size) // 64
        self._size = size
        return self._newest

    def mark(self, flags: int) -> int:
        return self.append(0, flags.to_bytes(4, "little") + bytes(12))

    def data(self, kind: int, target: bytes, **fields: object) -> None:
        """Store a record of an object, unless the server leaves it out."""
        if kind in _LEFT_OUT and self._last_data.get(target, 0) > self.purged()[1]:
            return
        self._last_data[target] = self.append(kind, target, **fields)

    def register(self, name: str = "") -> str:
        """Register a consumer; returns its id."""
        if self.marks and not (self.folder / "users").read_text():
            self.mark(START)
        self.registered += 1
        with (self.folder / "users").open("a") as stream:
            stream.write(f"cl{self.registered} {self.newest}\n")
        return f"cl{self.registered}" + (f"-{name}" if name else "")

    def deregister(self, consumer: str) -> None:
        users = self.users()
        del users[consumer.partition("-")[0]]
        lines = "".join(f"{name} {index}\n" for name, index in users.items())
        (self.folder / "users").write_text(lines)

    def users(self) -> dict[str, int]:
        lines = (self.folder / "users").read_text().splitlines()
        return {name: int(index) for name, index in (line.split() for line in lines)}

    def purged(self) -> tuple[int, int]:
        """Return up to where records were purged, and the newest one when anybody cleared."""
        try:
            upto, newest = (self.folder / "purged").read_text().split()
        except FileNotFoundError:
            return 0, 0
        return int(upto), int(newest)

    def purge(self, upto: int) -> None:
        """Drop records whatever the consumers have cleared, as garbage collection does."""
        (self.folder / "purged").write_text(f"{upto} {self.newest}\n")

    def hide(self, index: int, readings: int) -> None:
        """Let the next readings not see a record that is still being written."""
        (self.folder / "hidden").write_text(f"{index} {readings}")

    @contextmanager
    def fault(self, call: str, code: int, after: int = 0) -> Iterator[None]:
        assert code in errno.errorcode
        path = self.folder / "fault"
        path.write_text(f"{call} {code} {after}")
        try:
            yield
        finally:
            path.unlink()


@contextmanager
def standin_state(folder: Path) -> Iterator[Path]:
    """Let the library, in this process and its children, find its state in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get(STATE_VARIABLE)
    os.environ[STATE_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            del os.environ[STATE_VARIABLE]
        else:
            os.environ[STATE_VARIABLE] = before
