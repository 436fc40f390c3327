"""Dropping what is outside the root, before it goes to the log.

Covers: which looks of a batch can be dropped without missing anything inside.
Does not cover: what is outside only later; it is left out when changes are looked up (source).

A mark is on a whole filesystem, the root is often a part of it. Every verdict is about this
moment, which is later than all events of the batch; whatever comes inside later makes an event of
its own (TREE or ENTRY, with a newer sequence).
"""

from __future__ import annotations

import os

from filesystems.fanotify.events import Place
from filesystems.fanotify.looks import Batch, Kind
from filesystems.fanotify.tree import Tree, leads_to

_INODE = (b"", Kind.INODE)


def drop_outside(batch: Batch, tree: Tree) -> None:
    """Drop the looks that cannot concern a name below the root."""
    root_path = tree.path()
    inodes: dict[bytes, list[tuple[bytes, bytes]]] = {}  # directory: names, inodes seen by them
    for handle, places in batch.found.items():
        through: Place | None = places.get(_INODE, (0, None))[1]
        if through is not None and through.name != b".":
            inodes.setdefault(through.directory, []).append((through.name, handle))
    droppable: list[bytes] = []
    for directory in {*inodes, *(h for h, places in batch.found.items() if _INODE not in places)}:
        with tree.directory(directory, root_path) as found:
            if found is None or found.path is not None:
                # Gone: its DELETE_SELF will drop it, or has. Inside: kept.
                continue
            droppable.append(directory)
            droppable += [
                inode
                for name, inode in inodes.get(directory, [])
                if _is_only_name(found.descriptor, name, inode)
            ]
    if tree.path() == root_path:  # else directories above the root move: no verdict holds
        for handle in droppable:
            batch.drop(handle)


def _is_only_name(directory: int, name: bytes, inode: bytes) -> bool:
    """Tell whether an inode has no name but this one, which is outside."""
    if leads_to(directory, name) != inode:
        return False
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:  # removed at this moment
        return False
    # Had it been replaced in between, the inode would have been left without a name, or with
    # one that is an event of its own.
    return status.st_nlink == 1
