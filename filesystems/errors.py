"""What can be wrong with a tree that is to be walked, each with its sentence.

Covers: the root's errors and what breaks a walk as a whole.
Does not cover: broken files and directories below the root; those are rows (inode-schema.md).
"""

from __future__ import annotations

import errno
import os

from shards.errors import ForebayError, UsageError


class RootMissing(UsageError):
    """There is nothing at the path that is to be the root."""

    template = "{0} does not exist; check the path and that its filesystem is mounted"


class RootNotADirectory(UsageError):
    """The root is a file or the like."""

    template = "{0} is not a directory; name the directory that holds what is to be saved"


class RootUnreadable(ForebayError):
    """The root can't be opened by this user."""

    template = "{0} cannot be opened: {1}; run as a user who may read the whole tree"


class WalkFailed(ForebayError):
    """The walk as a whole broke; what it had given out is not the whole tree."""

    template = "the walk of {0} broke: {1}; {2}"


class WalkCancelled(ForebayError):
    """Somebody cancelled the walk; what it had given out is not the whole tree."""

    template = "the walk of {0} was cancelled before its end; start it again to complete it"


_ADVICE = {
    errno.EMFILE: "raise the limit of open files (ulimit -n) or lower the number of threads",
    errno.ENFILE: "the system has no file descriptors left (fs.file-max); find what holds them",
    errno.ENOMEM: "give the process more memory or lower the number of threads",
    errno.EAGAIN: "raise the limit of processes (ulimit -u) or lower the number of threads",
}


def for_root(root: bytes, code: int) -> ForebayError:
    """Make the error for an errno that opening the root of a walk gave."""
    name = os.fsdecode(root)
    if code == errno.ENOENT:
        return RootMissing(name)
    if code == errno.ENOTDIR:
        return RootNotADirectory(name)
    if code in (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN):
        return for_walk(root, code)
    return RootUnreadable(name, os.strerror(code))


def for_walk(root: bytes, code: int) -> ForebayError:
    """Make the error for an errno that ended a walk."""
    if code == errno.ECANCELED:
        return WalkCancelled(os.fsdecode(root))
    advice = _ADVICE.get(code, "run it again, and report it if it happens again")
    return WalkFailed(os.fsdecode(root), os.strerror(code), advice)
