"""Objects at an fsspec URL: whole, summed up, with errors as sentences.

Covers: reading, writing, listing and removing objects below one URL; the sums of a file and of an
object; options with keys, which no message repeats.
Does not cover: what the objects are (index, saving, importing).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
import xxhash

from cluster.archive.errors import (
    ArchiveUnavailable,
    ArchiveUrlWrong,
    CannotWrite,
    ObjectDamaged,
    ObjectMissing,
)
from shards.files import create_private, flush_directory, make_private_folder

CHUNK_BYTES = 4 << 20
PART_BYTES = 16 << 20  # S3 takes 10,000 parts: 160 GB for an object
SECRET_CHARACTERS_MIN = 4
LOCAL = ("file", "local")
# botocore's own would wait for minutes; whoever wants that can say so in the options.
S3_DEFAULTS: dict[str, Any] = {
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 60,
        "retries": {"max_attempts": 3, "mode": "standard"},
    }
}


@dataclass(frozen=True, slots=True)
class Sums:
    """What a file or an object is."""

    size_bytes: int
    xxh3: str  # XXH3-128
    crc32: int  # which the ledger keeps


def sums(stream: IO[bytes], target: IO[bytes] | None = None) -> Sums:
    """Read a stream to its end, and copy it if there is a target."""
    size_bytes, crc, hasher = 0, 0, xxhash.xxh3_128()
    while chunk := stream.read(CHUNK_BYTES):
        size_bytes += len(chunk)
        crc = zlib.crc32(chunk, crc)
        hasher.update(chunk)
        if target is not None:
            try:
                target.write(chunk)
            except OSError as error:
                raise CannotWrite(target.name, error.strerror) from error
    return Sums(size_bytes, hasher.hexdigest(), crc)


class ArchiveStore:
    """The objects below a URL; names are relative to it."""

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        self.url = url.rstrip("/")
        self._secrets = sorted(_texts(options or {}), key=len, reverse=True)
        self._is_local = fsspec.core.split_protocol(url)[0] in (*LOCAL, None)
        given = dict(options or {})
        if fsspec.core.split_protocol(url)[0] in ("s3", "s3a"):
            given = {"use_listings_cache": False} | S3_DEFAULTS | given
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **given)
        except (ImportError, ValueError, TypeError) as error:
            raise ArchiveUrlWrong(self.url, self._clean(error)) from error
        self._root = self._root.rstrip("/")

    def size(self, name: str) -> int | None:
        """Return an object's size, None if there is none."""
        with self._telling():
            try:
                size: int = self._fs.info(self._path(name))["size"]
            except FileNotFoundError:
                return None
            return size

    def read(self, name: str, bytes_max: int) -> bytes | None:
        """Return a small object, None if there is none."""
        with self._telling():
            try:
                with self._fs.open(self._path(name), "rb") as stream:
                    data: bytes = stream.read(bytes_max + 1)
            except FileNotFoundError:
                return None
        if len(data) > bytes_max:
            raise ObjectDamaged(name, self.url, f"it has more than {bytes_max} bytes")
        return data

    def sums(self, name: str, target: IO[bytes] | None = None) -> Sums:
        """Read an object back, and copy it if there is a target."""
        with self._telling():
            try:
                stream = self._fs.open(self._path(name), "rb", block_size=CHUNK_BYTES)
                with stream:
                    return sums(stream, target)
            except FileNotFoundError as error:
                raise ObjectMissing(name, self.url) from error

    def write(self, name: str, data: bytes) -> None:
        """Write a small object."""
        with self._telling(), self._writing(name) as stream:
            stream.write(data)

    def upload(self, path: Path, name: str) -> None:
        """Write a file as an object."""
        with path.open("rb") as source, self._telling(), self._writing(name) as stream:
            while chunk := source.read(CHUNK_BYTES):
                stream.write(chunk)

    def folders(self, name: str = "") -> list[str]:
        """Return the names of the folders in a folder, ascending; none if it is not there."""
        with self._telling():
            try:
                rows = self._fs.ls(self._path(name), detail=True)
            except FileNotFoundError:
                self._fs.find(self._path(name))  # says so if the bucket is missing
                return []
        return sorted(
            posixpath.basename(row["name"].rstrip("/"))
            for row in rows
            if row["type"] == "directory"
        )

    def objects(self, name: str) -> dict[str, int]:
        """Return all objects below a folder, with their sizes."""
        with self._telling():
            found = self._fs.find(self._path(name), detail=True)
        start = len(self._path("x")) - 1
        return {path[start:]: row["size"] for path, row in found.items()}

    def remove(self, name: str) -> None:
        """Remove an object; harmless if it is gone."""
        with self._telling(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def remove_folder(self, name: str) -> None:
        """Remove what a folder leaves behind when its objects are gone."""
        with self._telling(), contextlib.suppress(FileNotFoundError):
            if self._is_local and self._fs.isdir(self._path(name)):
                self._fs.rm(self._path(name), recursive=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[IO[bytes]]:
        if self._is_local:
            with _local_file(Path(self._path(name))) as stream:
                yield stream
            return
        stream = self._fs.open(self._path(name), "wb", block_size=PART_BYTES)
        try:
            yield stream
        except BaseException:
            # Closing would make an object of the part that there is.
            with contextlib.suppress(OSError, AttributeError, NotImplementedError):
                stream.discard()
            stream.closed = True
            raise
        stream.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (OSError, *_library_errors()) as error:
            raise ArchiveUnavailable(self.url, self._clean(error)) from None

    def _clean(self, error: BaseException) -> str:
        text = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            text = error.strerror
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _library_errors() -> tuple[type[Exception], ...]:
    """What libraries raise that is no OSError; they are asked only if something has loaded them."""
    found: list[type[Exception]] = []
    for module, names in (
        ("botocore.exceptions", ("BotoCoreError", "ClientError")),
        ("aiohttp", ("ClientError",)),
    ):
        if module in sys.modules:
            found += [getattr(sys.modules[module], name) for name in names]
    return tuple(found)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in ("endpoint_url", "region_name"):
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and len(value) >= SECRET_CHARACTERS_MIN:
        yield value


@contextlib.contextmanager
def _local_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that is complete or not there, for its owner alone."""
    make_private_folder(path.parent)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with create_private(partial) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    flush_directory(path.parent)
