"""The restore object: what the files of a job have in common (docs/formats/restore-object.md).

Covers: reading what the plugin wrote (restore_object.c), from Bacula's catalog.
Does not cover: what is in a layout (filesystems).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from shards.errors import ForebayError

NAME = "forebay.layouts"
_HEAD = b"forebay-layouts 1\n"
_END = re.compile(rb"end ([0-9a-f]{8})\n")
_BODY = re.compile(
    rb"filesystem (ceph|lustre) ([0-9a-f-]+)\n"
    rb"directories ([0-9]+)\n"
    rb"((?:layout [0-9]+ [0-9]+ [0-9a-f]+\n)*)"
    rb"others ([0-9]+) ([0-9]+)\n"
)


class RestoreObjectDamaged(ForebayError):
    """A restore object is not what the plugin wrote."""

    template = "the restore object of JobId {0} cannot be read: {1}"


@dataclass(frozen=True, slots=True)
class LayoutCount:
    """A layout, as the filesystem has it, and how many files were saved with it."""

    layout: bytes
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RestoreObject:
    """What one job saved of layouts."""

    filesystem: str  # ceph or lustre
    identity: str  # of the cluster; empty where it is not known
    directories: int  # with a default layout, a quota or a pin of their own
    layouts: tuple[LayoutCount, ...]
    other_files: int  # whose layouts found no room
    other_bytes: int


def parse(job_id: int, text: bytes) -> RestoreObject:
    """Read a restore object; RestoreObjectDamaged if it is not whole, or of a later release."""
    text = text.rstrip(b"\0")
    if not text.startswith(_HEAD):
        raise RestoreObjectDamaged(job_id, "its version is not known here")
    body, end = text[: -len(b"end 00000000\n")], text[-len(b"end 00000000\n") :]
    match = _END.fullmatch(end)
    if match is None or int(match[1], 16) != zlib.crc32(body):
        raise RestoreObjectDamaged(job_id, "its checksum does not match")
    found = _BODY.fullmatch(body, len(_HEAD))
    if found is None:
        raise RestoreObjectDamaged(job_id, "it has not the form that it should have")
    kind, identity, directories, lines, other_files, other_bytes = found.groups()
    layouts = []
    for line in lines.splitlines():
        _, files, size_bytes, data = line.split(b" ")
        layouts.append(LayoutCount(bytes.fromhex(data.decode()), int(files), int(size_bytes)))
    return RestoreObject(
        kind.decode(),
        "" if identity == b"-" else identity.decode(),
        int(directories),
        tuple(layouts),
        int(other_files),
        int(other_bytes),
    )
