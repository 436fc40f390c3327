"""Files that are complete or not there.

Covers: making them for their owner alone, writing with a running CRC-32, flushing a file and its
folder, comparing before use.
Does not cover: formats.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO

_READ_BYTES = 1 << 20


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


def create(path: Path, *, is_new: bool = False) -> BinaryIO:
    """Open a file for writing, made with mode 0600: it has names that others may not list.

    is_new: FileExistsError if it is there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if is_new else os.O_TRUNC)
    return os.fdopen(os.open(path, flags, 0o600), "wb")


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
