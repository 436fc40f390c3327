"""What an administrator may say about libcephfs, in the environment of whoever walks.

Covers: reading the variables, and what is wrong with them.
Does not cover: the cluster and the keyring; libcephfs finds them itself (CEPH_CONF, CEPH_ARGS).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from filesystems.kernel.cephfs_mount import LIBRARY
from shards.errors import UsageError

WALK_VARIABLE = "FOREBAY_CEPHFS_WALK"
PATH_VARIABLE = "FOREBAY_CEPHFS_PATH"
USER_VARIABLE = "FOREBAY_CEPHFS_ID"
TIMEOUT_VARIABLE = "FOREBAY_CEPHFS_TIMEOUT_S"
BY_LIBRARY, BY_MOUNT = "libcephfs", "mount"
TIMEOUT_S, TIMEOUT_S_MAX = 10, 300


class CephfsSettingUnusable(UsageError):
    """A variable has a value that it cannot have."""

    template = "{0} is {1!r}; give {2}"


@dataclass(frozen=True, slots=True)
class CephfsSettings:
    """How a CephFS tree is to be walked."""

    by_library: bool = True
    any_client: bool = False  # also beside Linux's client, which it was never tried with
    path: bytes | None = None  # of the mount's root in CephFS; None: as the mount says, or "/"
    user: str | None = None  # of Ceph, without "client."; None: libcephfs's default
    timeout_s: int = TIMEOUT_S  # for the cluster to answer a mount
    library: str = LIBRARY

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> CephfsSettings:
        """Read the variables. Raises CephfsSettingUnusable."""
        walk = environment.get(WALK_VARIABLE)
        if walk not in (None, BY_LIBRARY, BY_MOUNT):
            raise CephfsSettingUnusable(WALK_VARIABLE, walk, f"{BY_LIBRARY} or {BY_MOUNT}")
        path = environment.get(PATH_VARIABLE)
        if path is not None and (not path.startswith("/") or ".." in path.split("/")):
            raise CephfsSettingUnusable(PATH_VARIABLE, path, "an absolute path in CephFS")
        timeout = environment.get(TIMEOUT_VARIABLE, str(TIMEOUT_S))
        if not (timeout.isascii() and timeout.isdigit() and 1 <= int(timeout) <= TIMEOUT_S_MAX):
            wanted = f"seconds from 1 to {TIMEOUT_S_MAX}"
            raise CephfsSettingUnusable(TIMEOUT_VARIABLE, timeout, wanted)
        return cls(
            walk != BY_MOUNT,
            walk == BY_LIBRARY,
            None if path is None else os.fsencode(path),
            environment.get(USER_VARIABLE) or _user_of(environment.get("CEPH_ARGS", "")),
            int(timeout),
        )


def _user_of(arguments: str) -> str | None:
    """Return the user that CEPH_ARGS names, which libcephfs leaves to the program to find."""
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise CephfsSettingUnusable("CEPH_ARGS", arguments, f"ceph's options ({error})") from None
    found = None
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option not in ("--id", "-i", "--user", "--name", "-n"):
            continue
        value = value if equals else words[place + 1] if place + 1 < len(words) else ""
        found = value.removeprefix("client.") or None
    return found
