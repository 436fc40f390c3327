"""Why changes cannot be watched, or are not watched any more, each with its sentence.

Covers: the errors of the reader. Does not cover: gaps (shards.changes), which end no backup.
"""

from __future__ import annotations

import errno
import os

from shards.errors import ForebayError, UsageError


class WatchForbidden(UsageError):
    """The reader lacks a privilege."""

    template = (
        "{0} cannot be watched: {1} is not permitted; run `forebay watch` as root (it needs"
        " CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH)"
    )


class WatchUnsupported(UsageError):
    """This filesystem or this kernel has no such events."""

    template = "{0} cannot be watched: {1}; its incremental backups scan instead"


class WatchFailed(ForebayError):
    """The kernel refused for a reason of the moment."""

    template = "{0} cannot be watched: {1}; {2}"


class WatchEnded(ForebayError):
    """What was watched is not there any more; no later change would be seen."""

    template = "{0} is not watched any more: {1}; start `forebay watch` again"


class EventsDamaged(ForebayError):
    """What the kernel gave is not what its manual says."""

    template = "an event of the kernel cannot be understood at byte {0} of {1}: {2}"


class ReaderBusy(UsageError):
    """One reader per dataset."""

    template = "dataset {0} is watched already; `forebay watch --stop {0}` ends that reader"


class LogUnusable(ForebayError):
    """The change log cannot be written."""

    template = (
        "the change log {0} cannot be written: {1}; free space or mend the disk, then start"
        " `forebay watch` again"
    )


_UNSUPPORTED = {
    errno.ENODEV: "its filesystem has no identifier, as FUSE filesystems have none",
    errno.EOPNOTSUPP: "its filesystem has no file handles that can be opened again",
    errno.EXDEV: "it is on a btrfs subvolume, and Linux reports changes for whole filesystems only"
    " from their top-level subvolume (mount it with subvolid=5 and name the directory there)",
    errno.EINVAL: "this kernel has no FAN_RENAME (Linux 5.17 has)",
    errno.ENOSYS: "this kernel was built without fanotify",
}
_ADVICE = {
    errno.EMFILE: "too many watchers: raise fs.fanotify.max_user_groups or the limit of open files",
    errno.ENFILE: "the system has no file descriptors left (fs.file-max)",
    errno.ENOMEM: "give it more memory",
    errno.ENOSPC: "too many marks: raise fs.fanotify.max_user_marks",
}


def for_call(root: bytes, call: str, code: int) -> ForebayError:
    """Make the error for an errno of one of the calls that set the reader up."""
    name = os.fsdecode(root)
    if code in (errno.EPERM, errno.EACCES):
        return WatchForbidden(name, call)
    if code in _UNSUPPORTED:
        return WatchUnsupported(name, _UNSUPPORTED[code])
    return WatchFailed(name, f"{call}: {os.strerror(code)}", _ADVICE.get(code, "try it again"))
