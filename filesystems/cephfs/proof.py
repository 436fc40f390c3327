"""Whether what libcephfs mounted is what the system's mount shows at the root of a tree.

Covers: paths in CephFS that may be the root's, proving one.
Does not cover: mounts below the root, and what happens to the root later (client).

A wrong tree must never be walked, also not that of another filesystem of the same cluster, whose
inode numbers are the same ones. So the cluster is compared, and the root's inode number with its
times, which are in nanoseconds. A client may be told to show other inode numbers than CephFS has;
therefore some names' are compared, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from typing import Any

from filesystems.cephfs.attributes import CLUSTER, cluster_id
from filesystems.cephfs.settings import BY_LIBRARY, WALK_VARIABLE, CephfsSettings
from filesystems.interface import WalkOptions
from filesystems.kernel.cephfs_mount import (
    CephfsAttributes,
    CephfsMount,
    CephfsUnusable,
    CephfsView,
)
from filesystems.kernel.native import NativeWalk
from filesystems.mountinfo import mount_of
from shards.errors import ForebayError
from shards.lease import PendingDirectory

PROOFS_MAX = 5  # a tree may change while it is looked at
SAMPLE_MAX = 32  # names
_KERNEL_CLIENT = "ceph"
# MONITORS:/path, or USER@FSID.NAME=/path (mount.ceph(8)).
_SOURCE = re.compile(rb"[^/]*[:=](/.*)", re.DOTALL)


def paths_in_cephfs(root: bytes, settings: CephfsSettings) -> list[bytes]:
    """Return what the path of the root may be in CephFS, the likeliest first.

    Linux's client says what it has mounted; ceph-fuse does not. Raises CephfsUnusable, OSError.
    """
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount = mount_of(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}".encode())
    finally:
        os.close(descriptor)
    if mount is None:
        raise CephfsUnusable("/proc does not tell what is mounted")
    if b"ino32" in mount.options:
        raise CephfsUnusable("the mount has inode numbers of its own (ino32)")
    if mount.type_name == _KERNEL_CLIENT and not settings.any_client:
        raise CephfsUnusable(
            f"beside Linux's client it was not tried; {WALK_VARIABLE}={BY_LIBRARY} takes it"
        )
    if b".snap" in path.split(b"/"):
        raise CephfsUnusable("inode numbers in a snapshot are the mount's own")
    inside = os.path.relpath(path, mount.point)
    if inside.split(b"/")[0] == b"..":
        raise CephfsUnusable("/proc does not tell where the root is in its mount")
    bases = [settings.path] if settings.path is not None else []
    if mount.type_name == _KERNEL_CLIENT and (source := _SOURCE.fullmatch(mount.source)):
        bases.append(source[1])
    bases.append(b"/")
    paths = (os.path.normpath(b"/".join([base, mount.root, inside])) for base in bases)
    return list(dict.fromkeys(b"/" + path.lstrip(b"/") for path in paths))


def prove(root: bytes, mount: CephfsMount) -> tuple[CephfsView, int]:
    """Return how the system's mount shows a mounted directory, and its inode number.

    Raises CephfsUnusable unless that is the root.
    """
    try:
        theirs = mount.attribute(CLUSTER).decode(errors="replace")
        ours = cluster_id(root)
        if ours != theirs:
            raise CephfsUnusable(f"the mount is of cluster {ours}, ceph.conf names {theirs}")
        for _ in range(PROOFS_MAX):
            view = CephfsView(mount, os.stat(root).st_dev, _has_birth_times(root))
            before = _attributes(root)
            found = mount.attributes()
            if before == found and _are_same(root, view):
                return view, found.inode
            if before.inode != found.inode:
                break
    except OSError as error:
        raise CephfsUnusable(f"it cannot be compared with the mount: {error}") from error
    except CephfsUnusable:
        raise
    except ForebayError as error:
        raise CephfsUnusable(f"it cannot be compared with the mount: {error}") from error
    raise CephfsUnusable(
        "what libcephfs finds at the root's path is another directory than the mount shows;"
        " FOREBAY_CEPHFS_PATH names the mount's path in CephFS",
        errno.ENOENT,
    )


def _attributes(root: bytes) -> CephfsAttributes:
    status = os.stat(root)
    # libcephfs and ceph-fuse show the greater of ctime and mtime, Linux's client does not.
    changed_ns = max(status.st_ctime_ns, status.st_mtime_ns)
    return CephfsAttributes(
        status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, changed_ns
    )


def _has_birth_times(root: bytes) -> bool:
    """Tell whether the mount's rows have them."""
    options = WalkOptions(shards=1, seed=0, threads=1)
    with NativeWalk(root, [], options, include_root=True) as walk:
        return all(found.batch.column("btime").null_count == 0 for found in walk)


def _are_same(root: bytes, view: CephfsView) -> bool:
    """Compare the inode numbers and types of some names in the root."""
    options = WalkOptions(shards=1, seed=0, threads=1, budget_rows=1)
    names: list[dict[str, Any]] = []
    with NativeWalk(root, [PendingDirectory(b"")], options, cephfs=view) as walk:
        for found in walk:
            names += found.batch.select(["path", "ino", "mode"]).slice(0, SAMPLE_MAX).to_pylist()
    for name in names[:SAMPLE_MAX]:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(os.path.join(root, name["path"]))
            if (status.st_ino, stat.S_IFMT(status.st_mode)) != (
                name["ino"],
                stat.S_IFMT(name["mode"]),
            ):
                return False
    return True
