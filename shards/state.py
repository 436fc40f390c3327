"""Where Forebay keeps its state.

Covers: the folders of a state directory and their modes, where its ledger is.
Does not cover: what is in the files (ledger, segment, receipts).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shards.errors import ForebayError
from shards.files import make_private_folder

LEDGER_COPY = "ledger.copy.sqlite"


class StateDirectoryError(ForebayError):
    """The state directory cannot be used."""

    template = "state directory {0}: {1}; choose another with FOREBAY_HOME or mend its permissions"


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """A directory that all data movers see: segments, receipts, the ledger's copy."""

    base: Path
    ledger_folder: Path | None = None  # on a node's own disk; None: the ledger is in it as well

    @property
    def ledger(self) -> Path:
        return (self.ledger_folder or self.base) / "ledger.sqlite"

    @property
    def ledger_copy(self) -> Path:
        """Made after each run of a ledger that lies elsewhere."""
        return self.base / LEDGER_COPY

    @property
    def readable_ledger(self) -> Path:
        """The ledger; on a node that does not have it, its copy."""
        if not self.ledger.exists() and self.ledger_copy.exists():
            return self.ledger_copy
        return self.ledger

    @property
    def owner(self) -> Path:
        """Names the ledger that the directory belongs to."""
        return self.base / "owner"

    @property
    def runs(self) -> Path:
        return self.base / "runs"

    @property
    def views(self) -> Path:
        """Folds of long chains, made again when they are missing."""
        return self.base / "views"

    def changes(self, dataset: str) -> Path:
        """Where a change reader keeps its log."""
        return self.base / "changes" / dataset

    def run(self, number: int) -> Path:
        return self.runs / str(number)

    def plans(self, number: int) -> Path:
        """What incremental jobs of a run send; made again when it is missing."""
        return self.run(number) / "plans"

    def segments(self, number: int) -> Path:
        return self.run(number) / "segments"

    def receipts(self, number: int) -> Path:
        return self.run(number) / "receipts"

    def make(self) -> None:
        """Make the directory, readable by its owner alone."""
        try:
            make_private_folder(self.base)
            if self.ledger_folder is not None:
                make_private_folder(self.ledger_folder)
        except OSError as error:
            raise StateDirectoryError(str(self.base), error.strerror) from error

    def make_run(self, number: int) -> None:
        """Make a run's folders."""
        try:
            make_private_folder(self.segments(number))
            make_private_folder(self.receipts(number))
        except OSError as error:
            raise StateDirectoryError(str(self.base), error.strerror) from error
