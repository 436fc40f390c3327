"""How change sources are doing, as metrics.

Covers: fanotify's readers, asked through their sockets; Lustre's change logs, read from their
files. CephFS keeps nothing; the age of its position is in the ledger.
Does not cover: how many records wait on Lustre's metadata targets, which clients cannot see.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from filesystems.fanotify.asking import ask
from filesystems.fanotify.log import LOG_NAME as FANOTIFY_LOG
from filesystems.lustre.log import LOG_NAME as LUSTRE_LOG
from filesystems.lustre.settings import LustreChangelogs
from shards.changes import Gap
from shards.errors import ForebayError
from shards.measures import Sample

ASK_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 2.0
DATASETS_MAX = 256
_FANOTIFY, _LUSTRE = "fanotify", "lustre"


class ChangeMeasures:
    """Samples all change logs of a state directory."""

    def __init__(self, folder: Path) -> None:
        """folder has one folder for each dataset."""
        self._folder = folder

    def samples(self) -> list[Sample]:
        if not self._folder.is_dir():
            return []
        folders = sorted(path for path in self._folder.iterdir() if path.is_dir())
        return [
            sample for folder in folders[:DATASETS_MAX] for sample in _dataset(folder.name, folder)
        ]


def _dataset(dataset: str, folder: Path) -> Iterator[Sample]:
    try:
        changelogs = LustreChangelogs.load(folder)
    except ForebayError:  # they are set up and cannot be used
        yield Sample("forebay_changelog_up", 0, (dataset, _LUSTRE))
        return
    if changelogs is not None:
        yield from _lustre(dataset, folder)
    else:
        yield from _fanotify(dataset, folder)


def _fanotify(dataset: str, folder: Path) -> Iterator[Sample]:
    labels = (dataset, _FANOTIFY)
    yield Sample("forebay_changelog_log_bytes", _size(folder / FANOTIFY_LOG), labels)
    try:
        answer = ask(folder, {"ask": "status"}, ASK_TIMEOUT_S)
        queued, unseen = float(answer["queued"]), float(answer["unseen"])
    except (Gap, KeyError, TypeError, ValueError):
        yield Sample("forebay_changelog_up", 0, labels)
        return
    yield Sample("forebay_changelog_up", 1, labels)
    yield Sample("forebay_changelog_queued_events", queued, labels)
    yield Sample("forebay_changelog_unseen_processes", unseen, labels)


def _lustre(dataset: str, folder: Path) -> Iterator[Sample]:
    labels, path = (dataset, _LUSTRE), folder / LUSTRE_LOG
    yield Sample("forebay_changelog_log_bytes", _size(path), labels)
    try:
        read = max(
            os.stat(f"{path}{suffix}").st_mtime for suffix in ("", "-wal") if _there(path, suffix)
        )
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=READ_TIMEOUT_S)) as log:
            ((places,),) = log.execute("SELECT COALESCE(SUM(places), 0) FROM blocks")
            cursors = log.execute("SELECT target, position - cleared FROM cursors").fetchall()
    except (OSError, ValueError, sqlite3.Error):
        yield Sample("forebay_changelog_up", 0, labels)
        return
    yield Sample("forebay_changelog_up", 1, labels)
    yield Sample("forebay_changelog_places", places, labels)
    yield Sample("forebay_changelog_read_timestamp_seconds", read, labels)
    for target, uncleared in cursors:
        yield Sample("forebay_changelog_uncleared_records", max(0, uncleared), (dataset, target))


def _there(path: Path, suffix: str) -> bool:
    return os.path.exists(f"{path}{suffix}")


def _size(path: Path) -> int:
    """Return the bytes of a log with what SQLite keeps beside it."""
    found = [f"{path}{suffix}" for suffix in ("", "-wal") if _there(path, suffix)]
    try:
        return sum(os.stat(name).st_size for name in found)
    except FileNotFoundError:  # a reader begins a new one
        return 0
