"""Why changelogs cannot be read, each with its sentence.

Covers: the errors of the library, of the records and of the log.
Does not cover: gaps as a run sees them (shards.changes): the source makes one of each of these.
"""

from __future__ import annotations

import errno
import os

from shards.errors import ForebayError, UsageError


class LibraryMissing(UsageError):
    """There is no Lustre client here."""

    template = "{0} was not found ({1}); install lustre-client on this node"


class LibraryTooOld(UsageError):
    """The client is of a version without a call that is needed."""

    template = "{0} has no {1}; install lustre-client 2.15 or newer on this node"


class LustreFailed(ForebayError):
    """A call of the library returned an error."""

    template = "{0}: {1}: {2}{3}"

    @property
    def errno(self) -> int:
        return int(self.args[4])


class FidMalformed(ForebayError):
    """A text or some bytes are no FID."""

    template = "{0!r} is no FID: [0xSEQUENCE:0xOBJECT:0xVERSION] is meant"


class RecordMalformed(ForebayError):
    """A changelog record is not what the interface says."""

    template = "a changelog record of {0} bytes cannot be understood: {1}"


class BlockMalformed(ForebayError):
    """Some bytes of the change log are no block of places."""

    template = "{0} bytes are no block of {1} places"


class SettingsWrong(UsageError):
    """A dataset's changelog settings cannot be."""

    template = "changelogs of {0}: {1}"


class ConsumerTaken(UsageError):
    """Clearing is by id: two readers would take records from each other."""

    template = (
        "consumer {0} of {1} is the one of dataset {2}; register another one (`lctl --device {1}"
        " changelog_register`)"
    )


class ConsumerGone(ForebayError):
    """Nothing keeps the records for us any more."""

    template = (
        "consumer {0} is not registered on {1} any more; register one again (`lctl --device {1}"
        " changelog_register`) and name it in the dataset"
    )


class RolledBack(ForebayError):
    """The metadata target has lost records that we have read."""

    template = "the changelog of {0} has not come to record {1} again, which was read before"


class ChangelogEndless(ForebayError):
    """Records come faster than they are read."""

    template = "the changelog of {0} did not end within {1:,} records"


class LogBusy(ForebayError):
    """One writer per dataset."""

    template = "the change log {0} is in use by another process for more than {1:g} s"


class LogUnusable(ForebayError):
    """The change log cannot be read or written."""

    template = "the change log {0} cannot be used: {1}; mend the disk, or remove that file"


_ADVICE = {
    errno.EACCES: " (only root may read /dev/changelog-*, and resolve FIDs)",
    errno.EPERM: " (only root may read /dev/changelog-*, and resolve FIDs)",
    errno.EIO: " (the metadata target could not read its changelog; see its console log)",
    errno.ENODEV: " (is the filesystem mounted here?)",
    errno.EXDEV: " (is the filesystem mounted here?)",
    errno.ENODATA: " (this client cannot resolve FIDs in encrypted directories)",
}


def failed(where: str, call: str, code: int) -> LustreFailed:
    """Make the error for a return code; code is positive."""
    advice = _ADVICE.get(code, "")
    if code == errno.ENOENT and call == "llapi_changelog_start":
        advice = " (is the filesystem mounted here?)"
    return LustreFailed(where, call, os.strerror(code), advice, code)
