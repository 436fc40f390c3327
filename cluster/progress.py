"""Progress on stderr: a live bar for the scan and for each shard.

Covers: drawing. With --quiet, or without a terminal, nothing is drawn but plain lines at the ends.
Does not cover: where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from cluster.output import show_size


class BackupDisplay(Protocol):
    """What a backup or restore tells whoever watches."""

    def say(self, text: str) -> None:
        """A step begins or something happened."""

    def scanned(self, names: int, *, ended: bool) -> None:
        """So many names are known so far."""

    def shard(self, shard: int, done: int, total: int, size_bytes: int, note: str) -> None:
        """A shard's job has done so many of its names."""


class SilentDisplay:
    """Shows nothing."""

    def say(self, text: str) -> None: ...

    def scanned(self, names: int, *, ended: bool) -> None: ...

    def shard(self, shard: int, done: int, total: int, size_bytes: int, note: str) -> None: ...


class LineDisplay(SilentDisplay):
    """One line a step, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


class BarDisplay(LineDisplay):
    """Live bars on a terminal."""

    def __init__(self, console: Console, progress: Progress, verb: str) -> None:
        super().__init__(console)
        self._progress = progress
        self._verb = verb
        self._scan: TaskID | None = None
        self._shards: dict[int, TaskID] = {}

    def scanned(self, names: int, *, ended: bool) -> None:
        if self._scan is None:
            self._scan = self._progress.add_task("scan", total=None, note="")
        self._progress.update(
            self._scan,
            completed=names,
            total=names if ended else None,
            note=f"{names:,} names{'' if ended else ' so far'}",
        )

    def shard(self, shard: int, done: int, total: int, size_bytes: int, note: str) -> None:
        if shard not in self._shards:
            self._shards[shard] = self._progress.add_task(
                f"{self._verb} {shard}", total=None, note=""
            )
        self._progress.update(
            self._shards[shard],
            completed=done,
            total=max(total, done) or None,
            note=f"{done:,}/{total:,} names, {show_size(size_bytes)}{f', {note}' if note else ''}",
        )


@contextmanager
def backup_display(*, quiet: bool, verb: str = "shard") -> Iterator[BackupDisplay]:
    """Yield a display that fits stderr."""
    console = Console(stderr=True)
    if quiet:
        yield SilentDisplay()
    elif not console.is_terminal:
        yield LineDisplay(console)
    else:
        with _progress(console) as progress:
            yield BarDisplay(console, progress, verb)


@contextmanager
def scan_display(*, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told of new rows."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda rows: None
        return
    with _progress(console) as progress:
        task = progress.add_task("scan", total=None, note="")
        total = 0

        def advance(rows: int) -> None:
            nonlocal total
            total += rows
            progress.update(task, completed=total, note=f"{total:,} names")

        yield advance


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
        transient=False,
    )
