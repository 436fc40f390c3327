"""What can go wrong with an archive, each with its sentence."""

from __future__ import annotations

from shards.errors import ForebayError, UsageError


class ArchiveUnavailable(ForebayError):
    """The place itself cannot be used: (URL, what it says)."""

    template = (
        "the archive {0} cannot be used: {1}; check the URL, the keys in archive.options_file and"
        " the network, then give the command again: it goes on where it stopped"
    )


class ArchiveUrlWrong(UsageError):
    """The URL or its options cannot be: (URL, why)."""

    template = "the archive {0} cannot be opened: {1}"


class ObjectMissing(ForebayError):
    """An object that an index names is not there: (name, URL)."""

    template = (
        "{0} is missing from the archive {1}; if the run is still here, `forebay state archive"
        " --verify RUN` puts it back"
    )


class ObjectDamaged(ForebayError):
    """An object is not what was written: (name, URL, why)."""

    template = (
        "{0} in the archive {1} is damaged: {2}; if the run is still here, `forebay state archive"
        " --verify RUN` writes it again"
    )


class IndexNewer(ForebayError):
    """Written by a later Forebay: (name, URL, its version)."""

    template = "{0} in the archive {1} has version {2}, which this Forebay cannot read; update it"


class ArchiveConflict(ForebayError):
    """The archive has another run of that number: (run, URL, where)."""

    template = (
        "run {0} is not the run {0} that the archive {1} has at {2}: two services may have used one"
        " run ledger; nothing is overwritten, choose another archive.url"
    )


class NothingToArchive(UsageError):
    """A run has nothing that is of use later: (run, why)."""

    template = "run {0} is not archived: {1}"


class LocalFileDamaged(ForebayError):
    """A file of the state directory is not what the ledger says: (path, why)."""

    template = (
        "{0} {1}; it does not go to the archive. Check that disk; `forebay state import` brings"
        " the file back if the archive has it and the damaged one is moved away"
    )


class ImportConflict(ForebayError):
    """Something different is there already: (path)."""

    template = (
        "{0} is there and differs from the archive's; nothing is overwritten, move it away if the"
        " archive's is the right one"
    )


class CannotWrite(ForebayError):
    """The state directory does not take a file: (path, why)."""

    template = "{0} cannot be written: {1}; make room, then give the command again"


class NoArchive(UsageError):
    """Nobody said where the archive is."""

    template = (
        "no archive is set up: give --url URL, or put [archive] url = ... into the configuration"
        " file"
    )


class LedgersSeveral(UsageError):
    """It is not clear whose runs are meant: (URL, ids)."""

    template = "the archive {0} has runs of several run ledgers: {1}; choose one with --from"
