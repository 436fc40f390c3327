"""What does a hook cost a job when the service is up?

Covers: `forebay hook before` and `after`, from their start to their end, against a bridge that
answers, beside a Python that does nothing.
Does not cover: a hook that starts the service; what Bacula adds to run a program.
"""

import sys
from pathlib import Path

from bacula_bridge.run_keeper import ServicePolicy
from benchmarks.private_bacula import FOREBAY
from benchmarks.runner import Column, Contender, Report, measure, run_process
from tests.support.bridge_site import Site

QUESTION = "milliseconds of a RunScript hook when the service is up"
ROUNDS, ROUNDS_QUICK = 30, 10
COLUMNS = (
    Column("wall_ms", "wall ms", 1, ratio=True),
    Column("cpu_ms", "CPU ms", 1),
    Column("rss_mib", "RSS MiB", 1),
)
NOTES = ("The bound is 150 ms of wall clock on an idle machine: N hooks run at once.",)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Run hooks against a bridge in this process, and report."""
    site = Site(folder, service=ServicePolicy({"d": 0}), socket="bridge.sock")
    config = folder / "forebay.toml"
    config.write_text(f'runtime = "{folder}"\n')
    about = ["--jobid", "7", "--job", "job.7", "--config", str(config)]
    contenders = [_contender("python", [sys.executable, "-c", "pass"])]
    for when in ("before", "after"):
        contenders.append(_contender(f"forebay, {when}", [FOREBAY, "hook", when, *about]))
    try:
        samples = measure(contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS))
    finally:
        site.close()
    return Report(
        benchmark="hook",
        question=QUESTION,
        setting="one hook at a time, a bridge that answers",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=samples,
        notes=NOTES,
    )


def _contender(name: str, argv: list[str | Path]) -> Contender:
    def run_once() -> dict[str, float]:
        done = run_process(argv)
        return {
            "wall_ms": done.wall_s * 1000,
            "cpu_ms": done.cpu_s * 1000,
            "rss_mib": done.peak_rss_bytes / (1 << 20),
        }

    return Contender(name, " ".join(map(str, argv)), run_once)
