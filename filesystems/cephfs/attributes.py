"""CephFS's virtual extended attributes: what a client tells of a directory (ceph.com/docs: cephfs).

Covers: which mounts have them, the recursive change time, the cluster's identity.
Does not cover: layouts and quotas (bacula_bridge/plugin).
"""

from __future__ import annotations

import errno
import os
import re

from shards.errors import ForebayError

# As /proc/self/mountinfo names the kernel's client and the one in user space.
MOUNT_TYPES = frozenset({"ceph", "fuse.ceph-fuse", "fuse.ceph"})

RCTIME, CLUSTER = b"ceph.dir.rctime", b"ceph.cluster_fsid"
# SECONDS.NANOSECONDS. Some releases print "09" in front of the nanoseconds, for want of a "%": so
# only the seconds are used.
_RCTIME_FORM = re.compile(rb"(-?[0-9]{1,12})\.[0-9]{1,11}")
_CLUSTER_FORM = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class AttributeUnknown(ForebayError):
    """A virtual attribute does not have the form that it should have."""

    template = "{0} of {1} is {2!r}, which this release does not understand"


class NoAttributes(ForebayError):
    """The client does not have a virtual attribute."""

    template = "{0} has no {1}: {2}; CephFS 16 or later, mounted by ceph-fuse or Linux 5.8, has"


def recursive_change_second(path: bytes) -> int:
    """Return the newest change of a directory and of all below it, in whole seconds, rounded down.

    It lags behind what was done (docs/filesystems/cephfs.md). Raises OSError as getxattr does.
    """
    text = os.getxattr(path, RCTIME, follow_symlinks=False)
    match = _RCTIME_FORM.fullmatch(text)
    if match is None:
        raise AttributeUnknown(RCTIME.decode(), os.fsdecode(path), text)
    return int(match[1])


def cluster_id(path: bytes) -> str:
    """Return the identity of the Ceph cluster that a directory is on."""
    try:
        text = os.getxattr(path, CLUSTER)
    except OSError as error:
        why = os.strerror(error.errno or errno.EIO)
        raise NoAttributes(os.fsdecode(path), CLUSTER.decode(), why) from error
    if _CLUSTER_FORM.fullmatch(text) is None:
        raise AttributeUnknown(CLUSTER.decode(), os.fsdecode(path), text)
    return text.decode()
