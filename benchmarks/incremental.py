"""What does an incremental of few changes cost, with a change reader and with a scan?

Covers: planning it in one process (opening the run, looking, views, comparison), and the whole
`forebay backup`; a tree of which 200 files were overwritten.
Does not cover: the system calls (incremental_calls), memory (incremental_memory), restores.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.private_bacula import PrivateBacula
from benchmarks.runner import (
    BenchmarkFailed,
    Column,
    Contender,
    Report,
    measure,
    run_process,
    say,
)
from benchmarks.watched_tree import DIRECTORIES, overwrite, watching, why_unwatchable
from tests.support.bulk import make_uniform

QUESTION = "seconds until an incremental of 200 changed files is planned, and is done"
FILES, FILES_QUICK = 198_000, 19_800  # with their directories 200,000 and 20,000 inodes
FILES_PER_DIRECTORY, FILE_BYTES = 100, 4096
CHANGED = 200
SHARDS = 4
ROUNDS, ROUNDS_QUICK = 5, 2
STEPS = ("open", "look", "views", "plan")

COLUMNS = (
    Column("plan_s", "planned s", 2, ratio=True),
    Column("plan_cpu_s", "CPU s", 2, ratio=True),
    *(Column(f"{step}_wall_s", f"{step} s", 3) for step in STEPS),
    Column("command_s", "command s", 1, ratio=True),
)
NOTES = (
    "'planned s' is the sum of its steps, in one process without Ray: open the run and ask the"
    " change source, look (leases and their segments), open the views, compare and write the plan.",
    "CPU is that process's own. What the reader does for it is in the wall time alone.",
    "'command s' is the whole `forebay backup`: Python, Ray's start and end, four jobs.",
    "Each plan, and each backup, must have exactly the files that were overwritten.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Make the tree and Fulls of it, plan and run incrementals in turn, and report."""
    files = FILES_QUICK if quick else FILES
    root = folder / "tree"
    say(f"making {files:,} files of {FILE_BYTES} bytes below {root}")
    inodes = make_uniform(root, files, FILES_PER_DIRECTORY, FILE_BYTES)
    skipped = {}
    with ExitStack() as stack:
        bacula = stack.enter_context(PrivateBacula(folder / "home"))
        contenders = [
            _contender(bacula, root, "scan", "no change reader: the whole tree is walked")
        ]
        if why := why_unwatchable():
            skipped["fanotify"] = why
        else:
            stack.enter_context(watching(root, "fanotify", bacula.environment))
            what = "`forebay watch` has run since before the Full"
            contenders.append(_contender(bacula, root, "fanotify", what))
        for contender in contenders:
            say(f"a Full for {contender.name}")
            bacula.backup(root, contender.name, SHARDS)
        samples = measure(
            contenders,
            rounds or (ROUNDS_QUICK if quick else ROUNDS),
            lambda: overwrite(root, CHANGED),
        )
    return Report(
        benchmark="incremental",
        question=QUESTION,
        setting=f"{inodes:,} inodes, {CHANGED} files of {FILE_BYTES} bytes overwritten in"
        f" {DIRECTORIES} directories, {SHARDS} jobs",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=samples,
        skipped=skipped,
        notes=NOTES,
    )


def _contender(bacula: PrivateBacula, root: Path, dataset: str, what: str) -> Contender:
    """Return an incremental of a dataset; of the same tree there is one per change source."""
    return Contender(dataset, what, _measured(bacula, root, dataset))


def _measured(bacula: PrivateBacula, root: Path, dataset: str) -> Callable[[], dict[str, float]]:
    argv = [
        sys.executable,
        "-m",
        "benchmarks.plan_process",
        bacula.environment["FOREBAY_HOME"],
        dataset,
    ]

    def run_once() -> dict[str, float]:
        planned = json.loads(run_process(argv, capture=True).output)
        _check(f"the plan of {dataset}", planned["names"])
        if planned["everywhere"] != (dataset == "scan"):
            raise BenchmarkFailed(f"{dataset} looked elsewhere than it should: {planned['note']}")
        jobid, started = bacula.last_jobid(), time.perf_counter()
        bacula.backup(root, dataset, SHARDS)
        command_s = time.perf_counter() - started
        _check(f"the backup of {dataset}", bacula.jobs_after(jobid).files)
        return {
            **{f"{step}_wall_s": planned[f"{step}_wall_s"] for step in STEPS},
            "plan_s": sum(planned[f"{step}_wall_s"] for step in STEPS),
            "plan_cpu_s": sum(planned[f"{step}_cpu_s"] for step in STEPS),
            "command_s": command_s,
        }

    return run_once


def _check(what: str, names: int) -> None:
    """An incremental of something else than what changed has no speed."""
    if names != CHANGED:
        raise BenchmarkFailed(f"{what} has {names:,} names, {CHANGED} files were overwritten")
