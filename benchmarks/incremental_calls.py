"""How many metadata system calls does an incremental make for each changed file?

Covers: all processes of `forebay backup` with the fanotify change source: the command, Ray with
its actors, the change reader, the daemons of Bacula; what each changed file adds.
Does not cover: reading and sending contents; the time that the calls take.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.runner import Column, Contender, Report, say
from benchmarks.system_calls import ELSEWHERE, KINDS, Call, count, trace, why_untraceable
from benchmarks.watched_tree import DIRECTORIES, why_unwatchable
from tests.support.bulk import remove_tree

QUESTION = "metadata system calls per changed file of an incremental, all processes"
FILES, FILES_QUICK = 198_000, 19_800  # with their directories 200,000 and 20,000 inodes
FEW, MANY = 200, 1_200
ROUNDS = 1
TREE, ROOT, HOME = "tree", "root", "home"

# By the name of the process, of which the kernel keeps 15 letters.
PROGRAMS = {
    "forebay": "reader and command",
    "ray::Coordinato": "coordinator",
    "ray::WalkerActo": "walker",
}
BACULA = "Bacula"
BELOW, ITSELF, STATE = "below the root", "the root itself", "state and lab"
WHAT = {
    BELOW: "names in the tree, by all processes",
    **{f"... {name}": f"of these, by {name}" for name in (*PROGRAMS.values(), BACULA)},
    ITSELF: "by all processes, as all that follows",
    STATE: "ledger, segments, receipts, change log; catalog, volumes, spool",
    ELSEWHERE: "Python's modules, /proc, Ray's own files, events outside the tree",
}

COLUMNS = (
    *(Column(kind, kind, 2) for kind in KINDS),
    Column("each", "all, per changed file", 2),
    Column("constant", "constant"),
)
NOTES = (
    "Counted: the families of stat, open, getdents64, readlink, xattr, name_to_handle_at and"
    " open_by_handle_at.",
    f"Per changed file: (calls with {MANY:,} - mean of the calls with {FEW} before and after) /"
    f" {MANY - FEW:,}; the constant is what is left with {FEW}.",
    "The reader asks for the root, the state is polled, at so many times a second: those depend on"
    " how long a run takes. Elsewhere are Python's modules, /proc, and what the reader must ask of"
    " events outside the tree, which depends on what else runs on the machine. Their figures per"
    " file are noise.",
)


@dataclass(slots=True)
class Cost:
    """Calls for one changed file more, and those that are left with none."""

    each: dict[Call, float] = field(default_factory=dict)
    constant: dict[Call, float] = field(default_factory=dict)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Trace a Full and the incrementals; each round is one with many changes between two others."""
    files = FILES_QUICK if quick else FILES
    samples: dict[str, list[dict[str, float]]] = {row: [] for row in WHAT}
    skipped = {}
    if why := why_unwatchable() or why_untraceable():
        skipped["the trace"] = why
    else:
        for cost in traced(folder / "traced", files, FEW, MANY, rounds or ROUNDS):
            for row in WHAT:
                samples[row].append(_figures(cost, row))
    return Report(
        benchmark="incremental-calls",
        question=QUESTION,
        setting=f"{files:,} files of 4 KiB, {FEW} and {MANY:,} of them overwritten in"
        f" {DIRECTORIES} directories, 4 jobs, fanotify",
        machine=machine,
        columns=COLUMNS,
        contenders=[Contender(row, what, dict) for row, what in WHAT.items()],
        samples=samples,
        skipped=skipped,
        notes=NOTES,
    )


def traced(folder: Path, files: int, few: int, many: int, rounds: int) -> list[Cost]:
    """Trace incrementals of few and many files in turn; return what each round cost.

    The chain of jobs grows from run to run, so a run of many is compared with the ones of few
    before and after it.
    """
    folder.mkdir()
    try:
        say(f"a Full of {files:,} files and {2 * rounds + 1} incrementals under strace")
        log = folder / "calls"
        trace("benchmarks.traced_backups", [folder, files, few, *[many, few] * rounds], log)
        places = {TREE: f"{folder}/tree/", ROOT: f"{folder}/tree", HOME: f"{folder}/home"}
        windows = count(log, places)
    finally:
        remove_tree(folder)
    return [
        _cost((windows[middle - 1], windows[middle + 1]), windows[middle], few, many)
        for middle in range(1, len(windows), 2)
    ]


def _cost(
    beside: tuple[Counter[Call], Counter[Call]], between: Counter[Call], few: int, many: int
) -> Cost:
    cost = Cost()
    for call in {*between, *beside[0], *beside[1]}:
        low = (beside[0][call] + beside[1][call]) / 2
        cost.each[call] = (between[call] - low) / (many - few)
        cost.constant[call] = low - few * cost.each[call]
    return cost


def _rows_of(call: Call) -> tuple[str, ...]:
    """Return the rows of the table that count a call."""
    if call.place == TREE:
        return BELOW, f"... {PROGRAMS.get(call.program, BACULA)}"
    return ({ROOT: ITSELF, HOME: STATE}.get(call.place, ELSEWHERE),)


def _figures(cost: Cost, row: str) -> dict[str, float]:
    calls = [call for call in cost.each if row in _rows_of(call)]
    figures = {kind: sum(cost.each[call] for call in calls if call.kind == kind) for kind in KINDS}
    figures["each"] = sum(figures.values())
    figures["constant"] = sum(cost.constant[call] for call in calls)
    return figures
