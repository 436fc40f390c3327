"""A private Ray and Bacula in this process, for many backups and restores one after the other.

Covers: backups of any level, restores by both ways compared with a snapshot, the selection that
Bacula really makes compared with the model's.
Does not cover: the command line (conftest), what changes between the backups (history).
"""

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bacula_bridge.catalog import Catalog
from bacula_bridge.lab import Lab
from cluster import labs
from cluster.backup import plan, run_backup
from cluster.chains import restore_jobids
from cluster.embedded import EmbeddedCluster
from cluster.progress import SilentDisplay
from cluster.records import RunRecord, find_run
from cluster.replace import Replace
from cluster.restore import restore
from cluster.settings import Settings
from tests.support.bulk import remove_tree
from tests.support.change_histories import mount, running_reader
from tests.support.compare import Snapshot, compare_snapshots, format_differences, take_snapshot
from tests.support.model import FileRow, select

ReaderMaker = Callable[[], AbstractContextManager[object]]

DRIVES = 4
RESTORE_TIMEOUT_S = 120.0
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LINK_FI = 13  # its place in LStat


@dataclass
class Site:
    """An installation whose Ray and lab are up."""

    settings: Settings
    cluster: EmbeddedCluster
    lab: Lab

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.lab.catalog)

    def backup(self, root: Path, name: str, shards: int, level: str) -> RunRecord:
        """Make a backup; return its run, whatever came of it."""
        self.lab.set_dataset(name, shards)
        request = plan(self.settings, root, name, shards, level)
        number = run_backup(self.cluster, self.lab, request, SilentDisplay())
        return find_run(self.settings, str(number), name)

    @contextlib.contextmanager
    def place(self, source: str, name: str, folder: Path) -> Iterator[tuple[Path, ReaderMaker]]:
        """Yield a folder for a tree called `tree`, and what runs the change source when entered.

        fanotify marks a whole filesystem: there the folder is one of its own.
        """
        if source == "scan":
            yield folder, contextlib.nullcontext
            return
        if os.geteuid() != 0:
            pytest.skip("only root can mount and mark a filesystem")
        mounted = folder / "mounted"
        mounted.mkdir()
        root = os.fsencode(mounted / "tree")
        log = self.settings.state.changes(name)
        with mount("ext4", mounted, folder / "image"):
            try:
                yield mounted, lambda: running_reader(name, root, log)
            finally:
                remove_tree(mounted / "tree")

    def check(self, record: RunRecord, taken: Snapshot, place: Path) -> None:
        """Restore a run by both ways, and compare each with what the tree was."""
        for way in (self._restore, self._restore_plainly):
            try:
                way(record, place)
                tree = Path(f"{place}{taken.root}")
                differences = compare_snapshots(taken, take_snapshot(tree))
                assert not differences, f"{way.__name__}: {format_differences(differences)}"
            finally:
                remove_tree(place)

    def _restore(self, record: RunRecord, place: Path) -> None:
        done = restore(self.settings, record, place, [], Replace.ALWAYS, SilentDisplay())
        assert done.good, done.jobs
        assert not done.notes, done.notes

    def _restore_plainly(self, record: RunRecord, place: Path) -> None:
        """Restore with bconsole alone, and compare what it selects with the model."""
        jobids = restore_jobids(self.settings, record)
        listed = ",".join(map(str, jobids))
        kept = self.settings.home / "selected.bsr"
        written = self.lab.base / "work" / "director"
        command = f"cat {shlex.quote(str(written))}/*.bsr > {shlex.quote(str(kept))}"
        answer = self.lab.console(
            f'restore client="forebay-fd" jobid={listed} where="{place}" all done\n'
            f"@exec \"sh -c '{command}'\"\n"
            "yes\n"
        )
        found = re.search(r"JobId=(\d+)", answer)
        assert found, answer
        director = self.lab.director()
        (row,) = director.follow([int(found.group(1))], timeout_s=RESTORE_TIMEOUT_S)
        assert row.outcome == "T", director.job_log(row.job_id)
        assert self._selected(kept, jobids) == self._predicted(jobids)

    def file_rows(self, jobids: list[int]) -> list[FileRow]:
        """Return the catalog's rows of these jobs as the model wants them."""
        jobs = self.catalog.jobs(jobids)
        return [
            FileRow(
                row.path,
                jobid,
                jobs[jobid].tdate,
                abs(row.file_index),
                row.file_index < 1,
                _decode(row.lstat.split()[_LINK_FI]),
            )
            for jobid in jobids
            for row in self.catalog.files(jobid)
        ]

    def _predicted(self, jobids: list[int]) -> set[tuple[int, int]]:
        rows = select(self.file_rows(jobids))
        return {(row.jobid, row.file_index) for row in rows.values()}

    def _selected(self, bootstrap: Path, jobids: list[int]) -> set[tuple[int, int]]:
        """Return (JobId, FileIndex) of all that a bootstrap file selects."""
        sessions = {
            (job.session_id, job.session_time): job for job in self.catalog.jobs(jobids).values()
        }
        selected: set[tuple[int, int]] = set()
        for part in bootstrap.read_text().split("Volume=")[1:]:
            session = int(_word(part, "VolSessionId")[0]), int(_word(part, "VolSessionTime")[0])
            job = sessions[session]
            ranges = _word(part, "FileIndex") or [f"1-{job.files}"]
            for each in ranges:
                first, _, last = each.partition("-")
                selected |= {(job.job_id, i) for i in range(int(first), int(last or first) + 1)}
        return selected


def _word(part: str, word: str) -> list[str]:
    return re.findall(rf"^{word}=(\S+)$", part, re.MULTILINE)


def _decode(number: str) -> int:
    value = 0
    for digit in number:
        value = value << 6 | _BASE64.index(digit)
    return value


@contextlib.contextmanager
def running_site(home: Path):
    """Bring up Ray and Bacula, and end both again."""
    settings = Settings(home)
    settings.state.make()
    labs.keep_up(settings, DRIVES, print)
    try:
        lab = labs.known_lab(settings)
        with EmbeddedCluster(settings) as cluster:
            yield Site(settings, cluster, lab)
    finally:
        labs.bring_down(settings)
