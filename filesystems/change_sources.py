"""Which change source a dataset has.

Covers: finding it by what it has left in the state directory.
Does not cover: the sources themselves.
"""

from __future__ import annotations

from pathlib import Path

from filesystems.fanotify.source import FanotifySource
from shards.changes import ChangeSource
from shards.ledger import Dataset


def change_source(log: Path, runtime: Path, dataset: Dataset) -> ChangeSource | None:
    """Return the dataset's change source; None if none was ever set up.

    log is where a reader keeps what it has seen, runtime where its socket is while it lives.
    """
    if not log.is_dir():
        return None
    return FanotifySource(dataset.name, dataset.root, log)
