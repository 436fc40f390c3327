"""What is in the state directory and what is in the archive, side by side.

Covers: runs with their sizes and ages in both, the rest of the state directory by kind.
Does not cover: printing (commands).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from cluster.archive.importing import local_identity
from cluster.archive.index import RunHead, RunIndex, indexes, ledgers
from cluster.archive.saving import local_heads
from cluster.archive.store import ArchiveStore
from shards.state import StateDirectory


@dataclass(frozen=True, slots=True)
class RunPlaces:
    """A run, and where it is."""

    run: int
    ledger: str
    dataset: str
    state: str
    level: str
    ended: float
    local_bytes: int | None  # None: its manifest and receipts are not here
    archived_bytes: int | None  # None: it is not in the archive
    archived: float | None


@dataclass(slots=True)
class StateListing:
    """All of it."""

    ledger: str
    runs: list[RunPlaces] = field(default_factory=list)
    ledger_bytes: int = 0
    copy_bytes: int = 0
    views_bytes: int = 0
    changes_bytes: int = 0


def list_state(state: StateDirectory, store: ArchiveStore | None) -> StateListing:
    """Look at both; where nothing is local, at the runs of all ledgers in the archive."""
    own = local_identity(state)
    listing = StateListing(own)
    archived: dict[tuple[str, int], RunIndex] = {}
    if store is not None:
        for ledger in [own] if own else ledgers(store):
            archived |= {(ledger, index.head.run): index for index in indexes(store, ledger)}
    local = {(own, head.run): head for head in local_heads(state)}
    for key in sorted(local.keys() | archived.keys()):
        index = archived.get(key)
        listing.runs.append(_places(state, key[0], local.get(key), index))
    listing.ledger_bytes = size_of(state.ledger)
    listing.copy_bytes = size_of(state.ledger_copy)
    listing.views_bytes = size_of(state.views)
    listing.changes_bytes = size_of(state.base / "changes")
    return listing


def size_of(path: Path) -> int:
    """Return the bytes in a file or below a folder; 0 if there is none."""
    if path.is_file():
        return path.stat().st_size
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )


def _places(
    state: StateDirectory, ledger: str, local: RunHead | None, index: RunIndex | None
) -> RunPlaces:
    head = local or (index.head if index else None)
    assert head is not None, "it is in one of them"
    here = None
    if local is not None and state.segments(local.run).is_dir():
        here = size_of(state.run(local.run))
    return RunPlaces(
        *(head.run, ledger, head.dataset, head.state.value, head.level, head.ended, here),
        *((index.size_bytes, index.archived) if index else (None, None)),
    )
