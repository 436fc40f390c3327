"""How fast is a backup of many small files, beside the stock File Daemon, restic and borg?

Covers: `forebay backup` with 1 and 4 shards, and the stock File Daemon with a plain FileSet
(`File = DIR`, no signature), in the same private Bacula; restic and borg into new repositories;
files in the page cache.
Does not cover: restores, incrementals, large files and slow filesystems (stream, large).
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.private_bacula import PrivateBacula, warm
from benchmarks.runner import Column, Contender, Report, measure, run_process, say
from tests.support.bulk import make_uniform, remove_tree

QUESTION = "files per second of `forebay backup` beside the stock File Daemon, restic and borg"
FILES, FILES_QUICK = 200_000, 40_000
FILES_PER_DIRECTORY = 100
FILE_BYTES = 4096
ROUNDS, ROUNDS_QUICK = 5, 2
SHARDS = (1, 4)
SECRET = {"RESTIC_PASSWORD": "benchmark", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

COLUMNS = (
    Column("files_per_s", "files/s"),
    Column("jobs_s", "jobs s", 2, ratio=True),
    Column("wall_s", "command s", 1, ratio=True),
    Column("client_us", "client CPU us/file", 1, ratio=True),
    Column("sd_us", "SD CPU us/file", 1, ratio=True),
    Column("dir_us", "Director CPU us/file", 1),
)
NOTES = (
    "'jobs s' is from the start of the first job to the end of the last one in the catalog, seen"
    " within 20 ms; of restic and borg the whole command.",
    "'client' is the File Daemon, or restic's or borg's process with all that it does.",
    "'command s' is the whole command: of forebay with Python, Ray and the scan, of the stock job"
    " with the console's `wait`.",
    "Before each run everything dirty is flushed and every file is read, so that it is in the page"
    " cache for all.",
    "Volumes, catalog and tree are on one filesystem. The forebay jobs hash every file, the stock"
    " job does not; restic encrypts, borg does not; neither compresses.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Make the tree and a private Bacula, run all contenders in turn, and report."""
    files = FILES_QUICK if quick else FILES
    root = folder / "tree"
    say(f"making {files:,} files of {FILE_BYTES} bytes below {root}")
    inodes = make_uniform(root, files, FILES_PER_DIRECTORY, FILE_BYTES)
    with PrivateBacula(folder / "home") as bacula:
        job = bacula.add_plain_job("bench", root)
        console = bacula.status()["bconsole"]
        contenders = [
            Contender(
                "stock FD",
                "FileSet with File = DIR and no signature, one job",
                lambda: bacula.figures(lambda: bacula.run_plain_job(job, console), inodes),
            )
        ]
        contenders += [_forebay(bacula, inodes, root, shards) for shards in SHARDS]
        peers, skipped = _peers(folder / "repository", root, inodes)
        contenders += peers
        samples = measure(
            contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS), lambda: warm(root)
        )
    return Report(
        benchmark="backup",
        question=QUESTION,
        setting=f"{files:,} files of {FILE_BYTES} incompressible bytes, {inodes - files:,}"
        " directories, full backups",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=samples,
        skipped=skipped,
        notes=NOTES,
    )


def _forebay(bacula: PrivateBacula, inodes: int, root: Path, shards: int) -> Contender:
    # A dataset for each number of shards: a change of it would make Bacula change the FileSet.
    name = f"bench-{shards}"
    what = f"forebay backup DIR --name {name} --shards {shards} --level full --json"

    def run_once() -> dict[str, float]:
        return bacula.figures(lambda: bacula.backup(root, name, shards, "full"), inodes)

    return Contender(f"forebay, {shards} job{'s' if shards > 1 else ''}", what, run_once)


def _peers(repository: Path, root: Path, inodes: int) -> tuple[list[Contender], dict[str, str]]:
    """Return restic and borg as far as they are installed, and those that are not."""
    commands = {
        "restic": (
            ("init", "-q", "--repo", repository),
            ("backup", "-q", "--no-cache", "--force", "--repo", repository, root),
        ),
        "borg": (
            ("init", "--encryption", "none", repository),
            ("create", "--compression", "none", f"{repository}::archive", root),
        ),
    }
    contenders: list[Contender] = []
    skipped: dict[str, str] = {}
    for name, (make, save) in commands.items():
        program = shutil.which(name)
        if program is None:
            skipped[name] = f"no program `{name}` on this machine"
            continue
        contenders.append(
            Contender(
                name,
                f"{name} {' '.join(map(str, save))}, into a new repository",
                _saved([program, *make], [program, *save], repository, inodes),
            )
        )
    return contenders, skipped


def _saved(
    make: Sequence[str | os.PathLike[str]],
    save: Sequence[str | os.PathLike[str]],
    repository: Path,
    inodes: int,
) -> Callable[[], dict[str, float]]:
    environment = {**SECRET, "BORG_BASE_DIR": str(repository.with_suffix(".borg"))}

    def run_once() -> dict[str, float]:
        run_process(make, environment=environment)
        try:
            measured = run_process(save, environment=environment)
        finally:
            remove_tree(repository)
        return {
            "files_per_s": inodes / measured.wall_s,
            "jobs_s": measured.wall_s,
            "wall_s": measured.wall_s,
            "client_us": measured.cpu_s * 1e6 / inodes,
        }

    return run_once
