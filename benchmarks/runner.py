"""Run contenders in turn, round after round, and say how they compare.

Covers: measuring a process and its waited-for children; interleaved rounds after one that is not
counted; medians, spreads and ratios; the table and the JSON object.
Does not cover: what is compared (one module per benchmark).

Contenders run A B C, A B C, ..., so that a slow minute of the machine falls on all of them. A ratio
is the median over the rounds of (contender / first contender) within the same round; it stands more
noise than the ratio of two medians.
"""

import os
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

CHECKOUT = Path(__file__).resolve().parent.parent
PROCESS_TIMEOUT_S = 3600.0
RSS_INTERVAL_MS = 10
OUTPUT_BYTES_MAX = 8 << 20
STDERR_SHOWN_BYTES = 2000


class BenchmarkFailed(Exception):
    """A contender did not do its work, so there is no figure."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a process: its cost, and the beginning of what it printed."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    output: bytes


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to measure: `run` does it once and returns its figures by column key."""

    name: str
    what: str
    run: Callable[[], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of the table; with `ratio` also its ratio to the first contender."""

    key: str
    title: str
    digits: int = 0
    ratio: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark found: samples are by contender, one dictionary per counted round."""

    benchmark: str
    question: str
    setting: str
    machine: dict[str, str]
    columns: Sequence[Column]
    contenders: Sequence[Contender]
    samples: dict[str, list[dict[str, float]]]
    skipped: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def run_process(
    argv: Sequence[str | os.PathLike[str]],
    *,
    capture: bool = False,
    environment: dict[str, str] | None = None,
) -> Measured:
    """Run a process to its end; its CPU time includes the children that it waited for."""
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output if capture else subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            cwd=CHECKOUT,
        )
        peak_rss_bytes = _watch(process, started + PROCESS_TIMEOUT_S)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(max(0, os.fstat(errors.fileno()).st_size - STDERR_SHOWN_BYTES))
            said = errors.read(STDERR_SHOWN_BYTES).decode(errors="replace").strip()
            command = " ".join(map(str, argv))
            raise BenchmarkFailed(f"`{command}` ended with {process.returncode}: {said}")
        output.seek(0)
        text = output.read(OUTPUT_BYTES_MAX)
    cpu_s = usage.ru_utime + usage.ru_stime
    return Measured(wall_s, cpu_s, peak_rss_bytes, text)


def _watch(process: subprocess.Popen[bytes], deadline: float) -> int:
    """Wait until the process ended, kill it at the deadline; return the greatest RSS seen.

    The kernel's ru_maxrss starts at the size of whoever started the process. VmHWM does not, but
    is gone with the process, so it is read every few milliseconds.
    """
    peak_kib, killed = 0, False
    handle = os.pidfd_open(process.pid)
    try:
        waiter = select.poll()
        waiter.register(handle, select.POLLIN)
        while True:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if match := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
                peak_kib = max(peak_kib, int(match.group(1)))
            if waiter.poll(RSS_INTERVAL_MS):
                return peak_kib * 1024
            if time.perf_counter() > deadline and not killed:
                process.kill()
                killed = True
    finally:
        os.close(handle)


def measure(
    contenders: Sequence[Contender],
    rounds: int,
    prepare: Callable[[], None] = lambda: None,
    *,
    warm_up: bool = True,
) -> dict[str, list[dict[str, float]]]:
    """Run all contenders in turn: one round that is not counted, then `rounds` that are.

    Without warm_up all are: for contenders that find nothing of the round before.
    """
    samples: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
    for number in range(0 if warm_up else 1, rounds + 1):
        for contender in contenders:
            say(f"{'warm-up' if number == 0 else f'round {number}/{rounds}'}: {contender.name}")
            prepare()
            figures = contender.run()
            if number > 0:
                samples[contender.name].append(figures)
    return samples


def say(text: str) -> None:
    """Tell people what is going on; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def summarize(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(report: Report, name: str, key: str) -> float | None:
    """Return the median over the rounds of this contender's figure by the first contender's."""
    base = report.samples[report.contenders[0].name]
    pairs = zip(report.samples[name], base, strict=True)
    quotients = [a[key] / b[key] for a, b in pairs if key in a and b.get(key)]
    return statistics.median(quotients) if quotients else None


def as_json(report: Report) -> dict[str, Any]:
    """Return everything that was measured, every sample included."""
    contenders = []
    for contender in report.contenders:
        samples = report.samples[contender.name]
        figures: dict[str, Any] = {}
        for key in sorted({key for sample in samples for key in sample}):
            values = [sample[key] for sample in samples if key in sample]
            figures[key] = {
                **summarize(values),
                "samples": values,
                "ratio": ratio(report, contender.name, key),
            }
        contenders.append({"name": contender.name, "what": contender.what, "figures": figures})
    return {
        "benchmark": report.benchmark,
        "question": report.question,
        "setting": report.setting,
        "machine": report.machine,
        "rounds": len(report.samples[report.contenders[0].name]),
        "contenders": contenders,
        "skipped": report.skipped,
        "notes": list(report.notes),
    }


def print_table(report: Report, machine_line: str) -> None:
    """Print the report for people."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(f"[bold]{report.benchmark}[/bold]: {report.question}", highlight=False)
    console.print(f"{report.setting}\n{machine_line}", highlight=False)
    rounds = len(report.samples[report.contenders[0].name])
    table = Table(
        caption=f"median of {rounds} rounds, in turn; ± half of (greatest - least);"
        " x: ratio to the first row"
    )
    table.add_column("contender")
    for column in report.columns:
        table.add_column(column.title, justify="right")
        if column.ratio:
            table.add_column("x", justify="right")
    for contender in report.contenders:
        table.add_row(contender.name, *_cells(report, contender.name))
    console.print(table)
    for contender in report.contenders:
        console.print(f"  {contender.name}: {contender.what}", highlight=False, markup=False)
    for name, why in report.skipped.items():
        console.print(f"  left out: {name}: {why}", highlight=False, markup=False)
    for note in report.notes:
        console.print(f"  {note}", highlight=False, markup=False)


def _cells(report: Report, name: str) -> list[str]:
    cells = []
    for column in report.columns:
        values = [sample[column.key] for sample in report.samples[name] if column.key in sample]
        if values:
            found = summarize(values)
            spread = (found["max"] - found["min"]) / 2 / found["median"] if found["median"] else 0
            cells.append(f"{found['median']:,.{column.digits}f} ±{spread:.0%}")
        else:
            cells.append("-")
        if column.ratio:
            quotient = ratio(report, name, column.key)
            cells.append("-" if quotient is None else f"{quotient:.2f}")
    return cells
