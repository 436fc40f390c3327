"""What Bacula does with the jobs of N shards, and a slow fold of receipts to compare ours with.

Covers: which jobs of a resource form a chain, the Director's upgrade to Full, the selection of a
restore over any jobs, what a restore makes of hard links; layers and views as dictionaries.
Does not cover: the tree (model_tree), scanning and backing up (model_run).

Nothing of the product is used here but the numbers of its formats. The selection is compared with
Bacula's own in tests/system/test_histories.py.
"""

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shards.schema import ReceiptStatus
from shards.view_schema import NameState


class FileRow(NamedTuple):
    """One row of the catalog's File table, with what it needs of its job."""

    name: bytes  # with a slash behind a directory
    jobid: int
    tdate: int  # JobTDate: when the job ended, in seconds
    file_index: int  # as it was sent; deleted ones are negative in the catalog itself
    deleted: bool
    link_index: int  # LinkFI: FileIndex of the first name, for a name sent as a link


def select(rows: Iterable[FileRow]) -> dict[bytes, FileRow]:
    """Return what a restore over the jobs of these rows takes of each name.

    The job that ended last has the word; in the same second a live row beats a deleted one and
    the larger FileIndex wins. Inside one job a later row replaces an earlier one unless it is a
    link.
    """
    newest: dict[bytes, int] = {}
    rows = list(rows)
    for row in rows:
        newest[row.name] = max(row.tdate, newest.get(row.name, row.tdate))
    live = [row for row in rows if not row.deleted and row.tdate == newest[row.name]]
    chosen: dict[bytes, FileRow] = {}
    for row in sorted(live, key=lambda row: (row.tdate, row.file_index)):
        before = chosen.get(row.name)
        if before is not None and before.jobid == row.jobid and row.link_index:
            continue
        chosen[row.name] = row
    return chosen


@dataclass(slots=True)
class Payload:
    """What one record on a volume brings back."""

    attributes: tuple[int, ...]
    content: int


@dataclass(slots=True)
class ModelJob:
    """One Bacula job of one shard."""

    jobid: int
    shard: int
    level: str  # as it ran: F, D or I
    run: int
    built_on: tuple[int, ...] = ()  # JobIds, oldest first
    tdate: int = 0
    good: bool = False
    files: list[tuple[bytes, int, bool, int]] = field(default_factory=list)  # as in FileRow
    payloads: dict[int, Payload] = field(default_factory=dict)  # by FileIndex
    receipts: "list[Receipt]" = field(default_factory=list)
    receipts_lost: bool = False

    def rows(self) -> list[FileRow]:
        """Return its part of the File table."""
        return [
            FileRow(name, self.jobid, self.tdate, index, deleted, link)
            for name, index, deleted, link in self.files
        ]


def chain(jobs: Iterable[ModelJob], shard: int) -> list[ModelJob]:
    """Return the good jobs that a restore of one resource takes together, oldest first."""
    good = [job for job in jobs if job.shard == shard and job.good]
    good.sort(key=lambda job: job.jobid)
    fulls = [job for job in good if job.level == "F"]
    if not fulls:
        return []
    found = fulls[-1:]
    found += [job for job in good if job.level == "D" and job.jobid > found[-1].jobid][-1:]
    return found + [job for job in good if job.level == "I" and job.jobid > found[-1].jobid]


def base(jobs: Iterable[ModelJob], shard: int, level: str) -> tuple[str, list[ModelJob]]:
    """Return the level at which the Director runs a job, and the chain that it builds on."""
    whole = chain(jobs, shard)
    if level == "F" or not whole:
        return "F", []
    return level, whole[:1] if level == "D" else whole


class Restored(NamedTuple):
    """What one name is after a restore."""

    payload: Payload | None  # None: its first name did not come back, so it is no link of anything
    group: tuple[int, int]  # names with the same one are one inode


def restore(jobs: Sequence[ModelJob]) -> dict[bytes, Restored]:
    """Restore everything that the selection over these jobs gives."""
    rows = select(row for job in jobs for row in job.rows())
    by_id = {job.jobid: job for job in jobs}
    chosen = {(row.jobid, row.file_index) for row in rows.values()}
    result = {}
    for name, row in rows.items():
        group = (row.jobid, row.link_index or row.file_index)
        # A link is made by name. If its first name comes back as something else, or not at all,
        # this one would be a link to that.
        whole = group in chosen
        payload = by_id[row.jobid].payloads[group[1]] if whole else None
        result[name] = Restored(payload, group)
    return result


# Receipts, layers and views


class Receipt(NamedTuple):
    """What a plugin reports of one entry; times in ns, unlike in the product's records."""

    path: bytes
    ino: int
    mode: int
    status: ReceiptStatus
    file_index: int = 0
    uid: int = 0
    gid: int = 0
    nlink: int = 0
    size: int = 0
    mtime: int = 0
    ctime: int = 0
    rdev: int = 0
    read_ns: int = 0


class ViewRow(NamedTuple):
    """A row of a view, as in shards/view_schema.py but for what a comparison does not need."""

    ino: int
    size: int
    mtime: int
    ctime: int
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    jobid: int
    file_index: int
    first_index: int
    state: NameState
    due: bool
    tdate: int


Layer = dict[bytes, ViewRow]


def key_of(path: bytes, mode: int) -> bytes:
    """Return the key of a name."""
    return path.replace(b"/", b"\0") + (b"\0" if stat.S_ISDIR(mode) else b"")


def layer_of(job: ModelJob, margin_ns: int) -> Layer:
    """Fold one job's receipts, one after the other."""
    if job.receipts_lost:
        return _layer_from_catalog(job)
    layer: Layer = {}
    first_ino, first_index = -1, 0
    twice = _inodes_saved_twice(job.receipts)
    for receipt in job.receipts:
        if receipt.status is ReceiptStatus.SKIPPED:
            continue
        key = key_of(receipt.path, receipt.mode)
        is_link = receipt.status is ReceiptStatus.LINK
        if receipt.status in (ReceiptStatus.SAVED, ReceiptStatus.CHANGED):
            first_ino, first_index = receipt.ino, receipt.file_index
        is_of_first = is_link and first_ino == receipt.ino
        deleted = receipt.status is ReceiptStatus.DELETED
        live = receipt.file_index > 0 and not deleted
        young = receipt.ctime > receipt.read_ns - margin_ns
        sound = receipt.status is ReceiptStatus.SAVED or is_of_first
        state = NameState.LIVE if live else NameState.ABSENT
        if deleted:
            state = NameState.DELETED
        row = ViewRow(
            receipt.ino,
            receipt.size,
            receipt.mtime,
            receipt.ctime,
            receipt.mode,
            receipt.uid,
            receipt.gid,
            receipt.nlink,
            receipt.rdev,
            job.jobid,
            receipt.file_index if live else 0,
            first_index if is_of_first else 0,
            state,
            not deleted and (young or not sound or (live and receipt.ino in twice)),
            job.tdate,
        )
        before = layer.get(key)
        if before is None:
            layer[key] = row
        else:
            layer[key] = _same_job(before, row, is_link=is_link)
    return layer


def _inodes_saved_twice(receipts: Iterable[Receipt]) -> set[int]:
    """Return inodes that got another name during the scan, and so went as two files."""
    seen: set[int] = set()
    twice: set[int] = set()
    for receipt in receipts:
        is_file = receipt.file_index > 0 and not stat.S_ISDIR(receipt.mode)
        is_file &= receipt.status not in (ReceiptStatus.LINK, ReceiptStatus.DELETED)
        if is_file and receipt.nlink > 1:
            (twice if receipt.ino in seen else seen).add(receipt.ino)
    return twice


def _same_job(before: ViewRow, row: ViewRow, *, is_link: bool) -> ViewRow:
    """Fold two rows that one job has of one name; what is due stays due."""
    order = (NameState.ABSENT, NameState.DELETED, NameState.LIVE)
    if before.state is row.state is NameState.LIVE:
        kept = before if is_link else row
    else:
        kept = row if order.index(row.state) >= order.index(before.state) else before
    return kept._replace(due=before.due or row.due)


def _layer_from_catalog(job: ModelJob) -> Layer:
    """Make a layer of what the catalog knows: the names, which are all due."""
    layer: Layer = {}
    for row in job.rows():
        mode = stat.S_IFDIR if row.name.endswith(b"/") else stat.S_IFREG
        key = key_of(row.name.removesuffix(b"/"), mode)
        if row.deleted:
            layer.setdefault(key, _known_by_name(job, 0, NameState.DELETED))
        else:
            layer[key] = _known_by_name(job, row.file_index, NameState.LIVE)
    return layer


def _known_by_name(job: ModelJob, index: int, state: NameState) -> ViewRow:
    due = state is NameState.LIVE
    return ViewRow(0, 0, 0, 0, 0, 0, 0, 0, 0, job.jobid, index, 0, state, due, job.tdate)


def fold_layers(layers: Iterable[Mapping[bytes, ViewRow]]) -> Layer:
    """Fold layers, the oldest job first."""
    view: Layer = {}
    for layer in layers:
        for key, row in layer.items():
            before = view.get(key)
            if row.state == NameState.ABSENT and before is not None:
                kept = row if before.state == NameState.ABSENT else before
                view[key] = kept._replace(due=True)
            else:
                view[key] = row
    return view
