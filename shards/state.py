"""Where Forebay keeps its state.

Covers: the folders of a state directory and their modes.
Does not cover: what is in the files (ledger, segment, receipts).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shards.errors import ForebayError


class StateDirectoryError(ForebayError):
    """The state directory cannot be used."""

    template = "state directory {0}: {1}; choose another with FOREBAY_HOME or mend its permissions"


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """A directory that all data movers see: segments, receipts, the ledger's copy."""

    base: Path

    @property
    def ledger(self) -> Path:
        return self.base / "ledger.sqlite"

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
            self.base.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StateDirectoryError(str(self.base), error.strerror) from error

    def make_run(self, number: int) -> None:
        """Make a run's folders."""
        try:
            self.segments(number).mkdir(parents=True, exist_ok=True, mode=0o700)
            self.receipts(number).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StateDirectoryError(str(self.base), error.strerror) from error
