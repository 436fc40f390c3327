"""Which change source a dataset has.

Covers: finding it by what it has left in the state directory.
Does not cover: the sources themselves.
"""

from __future__ import annotations

from pathlib import Path

from shards.changes import ChangeSource
from shards.ledger import Dataset


def change_source(log: Path, runtime: Path, dataset: Dataset) -> ChangeSource | None:
    """Return the dataset's change source; None if none was ever set up."""
    return None
