"""`forebay verify`: do manifest, receipts, catalog and volumes agree?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.output import JsonOption, QuietOption, plural, print_json, show_path, show_size

if TYPE_CHECKING:
    from cluster.verify import Difference, Verified
    from cluster.verify_data import DataCounts

DIFFERENCES_SHOWN = 50


def verify(
    run: Annotated[str, typer.Argument(help="Number of the run, or 'latest'.")] = "latest",
    name: Annotated[str | None, typer.Option("--name", help="Dataset, for 'latest'.")] = None,
    data: Annotated[
        bool, typer.Option("--data", help="Read the volumes back too, and compare contents.")
    ] = False,
    scratch: Annotated[
        Path | None,
        typer.Option("--scratch", metavar="DIR", help="Where --data restores to for a while."),
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help=f"List more than {DIFFERENCES_SHOWN} differences.")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check that manifest, receipts and Bacula's catalog of RUN agree exactly, name by name."""
    from cluster.progress import backup_display
    from cluster.records import find_run
    from cluster.settings import Settings
    from cluster.verify import Findings, Verification

    settings = Settings.from_environment()
    record = find_run(settings, run, name)
    teller = _Teller(json=json, limit=None if show_all else DIFFERENCES_SHOWN)
    findings = Findings(teller.tell)
    read: DataCounts | None = None
    with backup_display(quiet=quiet, verb="job") as display:
        verification = Verification(settings, record, findings, display)
        verification.run()
        if data and verification.chains:
            from cluster.verify_data import read_back

            chains = verification.chains
            read = read_back(settings, record, chains, scratch, findings, display)
    if json:
        print_json(
            {
                "run": record.run.number,
                "state": record.run.state.value,
                "good": not findings.total,
                "differences": findings.total,
                "kinds": dict(findings.counts),
                "listed": teller.listed,
                "checked": verification.done.to_json(),
                "data": read.to_json() if read else None,
            }
        )
    else:
        if findings.total > teller.told:
            print(f"and {findings.total - teller.told:,} more; --all lists them")
        _tell_counts(record.run.number, verification.done, read)
        print(f"{plural(findings.total, 'difference')}" if findings.total else "no differences")
    raise typer.Exit(1 if findings.total else 0)


class _Teller:
    """Prints differences as they come, or keeps them for JSON."""

    def __init__(self, *, json: bool, limit: int | None) -> None:
        self._json = json
        self._limit = limit
        self.told = 0
        self.listed: list[dict[str, str | None]] = []

    def tell(self, difference: Difference) -> None:
        if self._limit is not None and self.told >= self._limit:
            return
        self.told += 1
        path = None if difference.path is None else show_path(difference.path) or "."
        if self._json:
            self.listed.append({"kind": difference.kind, "path": path, "text": difference.text})
        else:
            print(f"{difference.kind}: {'' if path is None else f'{path}: '}{difference.text}")


def _tell_counts(run: int, done: Verified, read: DataCounts | None) -> None:
    names = done.names
    print(
        f"run {run}: {plural(names.names, 'name')} of the manifest compared with what would be"
        f" restored; {plural(done.segments, 'segment')}, {plural(done.receipts, 'receipts file')},"
        f" {plural(done.jobs, 'job')} in the catalog"
    )
    for count, what in (
        (names.due, "due: not saved as they are in the tree, the next run sends them again"),
        (names.moved, "changed after they were listed, saved as they were read"),
        (names.sockets, "sockets, left out as Bacula does"),
        (names.scan_errors, "could not be looked at by the scan"),
        (names.hidden, "kept from older jobs, below what could not be looked at"),
        (names.not_saved, "of shards without a good job, not compared"),
    ):
        if count:
            print(f"  {count:,} {what}")
    for note in done.notes:
        print(f"  {note}")
    if read is None:
        return
    print(
        f"  read back {plural(read.files, 'file')}, {show_size(read.bytes)}, and compared their"
        f" content; {plural(read.links, 'hard link')} by size, {read.others:,} others by type"
    )
    if read.sparse:
        print(f"  {plural(read.sparse, 'sparse file')} among them, compared extent by extent")
    if read.by_size:
        print(f"  {plural(read.by_size, 'sparse file')} compared by size only: other extents here")
    if read.due:
        print(f"  {read.due:,} came back otherwise, and are due")
