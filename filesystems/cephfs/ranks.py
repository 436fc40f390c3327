"""CephFS: which metadata server's rank serves a directory, by its pins.

Covers: pins (docs.ceph.com/en/latest/cephfs/multimds: Manually pinning directory trees).
Does not cover: subtrees that the balancer moved, ephemeral pins: only the cluster's administrator
sees those, and they change by themselves.
"""

from __future__ import annotations

import errno
import os
import re

from filesystems.targets import TargetsFilesystem

PIN = b"ceph.dir.pin"  # the rank; -1: as the directory above
_PIN_FORM = re.compile(rb"-1|[0-9]{1,3}")
_NONE = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


class CephfsFilesystem(TargetsFilesystem):
    """A tree on a mounted CephFS; directories that are pinned to a rank have a walker of theirs."""

    name = "cephfs"

    def names_of_targets(self, highest: int) -> list[str]:
        return [f"rank {index}" for index in range(highest + 1)]

    def target_of_open(self, descriptor: int, above: int) -> int:
        try:
            pin = os.getxattr(descriptor, PIN)
        except OSError as error:
            if error.errno in _NONE:
                return above
            raise
        if _PIN_FORM.fullmatch(pin) is None or pin == b"-1":
            return above
        return int(pin)
