"""Files that are complete or not there.

Covers: writing with a running CRC-32, flushing a file and its folder, comparing before use; modes
that let nobody else in.
Does not cover: formats.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO

_READ_BYTES = 1 << 20


def open_private(path: str, flags: int) -> int:
    """Open a file as open()'s opener; if it is made, only its owner may read it."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def create_private(path: Path) -> BinaryIO:
    """Open a file for writing, made anew, for its owner alone."""
    return os.fdopen(open_private(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")


def make_private_folder(path: Path) -> None:
    """Make a folder and those above it, each for its owner alone."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def flush_directory(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_checksum(path: Path) -> tuple[int, int]:
    """Return length in bytes and CRC-32 (zlib's) of a file."""
    size_bytes = 0
    checksum = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_READ_BYTES):
            checksum = zlib.crc32(chunk, checksum)
            size_bytes += len(chunk)
    return size_bytes, checksum


class ChecksumWriter:
    """A binary file object that counts and checksums what passes; enough for pyarrow's writers."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size_bytes = 0
        self.checksum = 0
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        self._stream.write(data)
        self.checksum = zlib.crc32(data, self.checksum)
        length = memoryview(data).nbytes
        self.size_bytes += length
        return length

    def tell(self) -> int:
        return self.size_bytes

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def sync(self) -> None:
        """Flush to disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self.closed = True
        self._stream.close()
