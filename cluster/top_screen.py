"""The screen of `forebay top`, from 80 columns up, and the same as plain text.

Covers: tables, bars, what is left out where there is little room.
Does not cover: the figures (live).
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cluster.live import PENDING_COUNTED_MAX, DatasetView, RunView, ShardView, TopView
from cluster.output import plural, show_duration, show_size, show_time
from shards.ledger_schema import JobState, RunState

WIDE_COLUMNS = 132  # from here on there is room for all columns
OTHER_COLUMNS = 112  # what all of them but the bar take at most
SHARDS_SHOWN = 32  # of a run
MILLIONS_FROM = 10_000_000  # such counts are shown in millions
BAR_COLUMNS = 14
BAR_COLUMNS_MAX = 30
STYLES = {
    JobState.STREAMED.value: "cyan",
    JobState.GOOD.value: "green",
    JobState.BAD.value: "bold red",
    RunState.COMPLETE.value: "green",
    RunState.WARNINGS.value: "yellow",
    RunState.INCOMPLETE.value: "bold red",
    RunState.FAILED.value: "bold red",
    RunState.OPEN.value: "cyan",
}


def screen(view: TopView, width: int) -> RenderableType:
    """Return the screen at a moment."""
    head = Text.assemble(
        ("forebay", "bold"), f"  {plural(len(view.runs), 'open run')}  {show_time(view.time)}"
    )
    parts: list[RenderableType] = [head]
    if view.trouble:
        parts.append(Text(f"the live streams are unknown: {view.trouble}", style="yellow"))
    for run in view.runs:
        parts += [Text(), *_run(run, width)]
    parts += [Text(), _heading("datasets"), _datasets(view.datasets)]
    return Group(*parts)


def _heading(title: str | Text) -> Rule:
    return Rule(title, align="left", characters="─", style="dim")


def _run(run: RunView, width: int) -> list[RenderableType]:
    title = Text.assemble(
        (f"{run.dataset}, run {run.run}", "bold"),
        f"  {run.level}, {show_duration(run.seconds)}",
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("scan", _scan(run))
    if run.walkers:
        facts.add_row("walkers", _walkers(run))
    if run.lag is not None:
        facts.add_row("lag", f"{plural(run.lag, 'name')} scanned and not saved yet")
    parts: list[RenderableType] = [_heading(title), facts]
    if run.shards:
        parts.append(_shards(run, width))
        for shard in run.shards[:SHARDS_SHOWN]:
            if shard.reason:
                parts.append(Text(f"shard {shard.shard}, JobId {shard.jobid}: {shard.reason}"))
    else:
        parts.append(Text("no job has asked for its shard yet", style="dim"))
    return parts


def _scan(run: RunView) -> Text:
    told = [plural(run.scanned, "name")]
    if run.scanned_per_s is not None:
        told.append(f"{run.scanned_per_s:,.0f}/s")
        more = "more than " if run.pending >= PENDING_COUNTED_MAX else ""
        told.append(f"{more}{plural(run.pending, 'directory', 'directories')} pending")
    else:
        told.append("ended")
    text = Text(", ".join(told))
    if run.scan_errors:
        text.append(f", {plural(run.scan_errors, 'error')}", style="yellow")
    return text


def _walkers(run: RunView) -> str:
    told = []
    for walker in run.walkers:
        age = f" for {show_duration(walker.oldest_s)}" if walker.oldest_s is not None else ""
        told.append(f"{walker.target}: {plural(walker.leases, 'lease')}{age}")
    return "   ".join(told)


def _shards(run: RunView, width: int) -> RenderableType:
    wide = width >= WIDE_COLUMNS
    bar = min(BAR_COLUMNS_MAX, width - OTHER_COLUMNS) if wide else BAR_COLUMNS
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("shard", justify="right", no_wrap=True)
    table.add_column("JobId", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("", width=bar, no_wrap=True)
    table.add_column("names", justify="right", no_wrap=True)
    if wide:
        table.add_column("of", justify="right", no_wrap=True)
        table.add_column("names/s", justify="right", no_wrap=True)
    table.add_column("data", justify="right", no_wrap=True)
    table.add_column("rate", justify="right", no_wrap=True)
    if wide:
        table.add_column("time", justify="right", no_wrap=True)
    table.add_column("warnings" if wide else "warn", justify="right", no_wrap=True)
    for shard in run.shards[:SHARDS_SHOWN]:
        table.add_row(*_shard(shard, bar, wide))
    left = len(run.shards) - SHARDS_SHOWN
    return Group(table, Text(f"and {left:,} more", style="dim")) if left > 0 else table


def _shard(shard: ShardView, bar: int, wide: bool) -> list[RenderableType]:
    warned = Text(f"{shard.warnings:,}", style="yellow" if shard.warnings else "")
    total = shard.total
    cells: list[RenderableType] = [
        str(shard.shard),
        str(shard.jobid),
        Text(shard.state, style=STYLES.get(shard.state, "")),
        _bar(shard, bar),
        "-" if total is None else _count(shard.names),
    ]
    if wide:
        cells.append("-" if total is None else _count(total))
        cells.append("-" if shard.names_per_s is None else f"{shard.names_per_s:,.0f}")
    cells.append("-" if total is None else show_size(shard.size_bytes))
    cells.append("-" if shard.bytes_per_s is None else f"{show_size(shard.bytes_per_s)}/s")
    if wide:
        cells.append(show_duration(shard.seconds))
    return [*cells, warned]


def _bar(shard: ShardView, width: int) -> RenderableType:
    """Return a bar with its percentage; nothing where nobody knows how far the stream is."""
    if shard.total is None:
        return Text("")
    part = shard.names / shard.total if shard.total else 1.0
    made = Table.grid(padding=(0, 1, 0, 0))
    made.add_column(width=width - 5)
    made.add_column(width=4, justify="right")
    style = "green" if shard.state == JobState.GOOD.value else "cyan"
    drawn = ProgressBar(1.0, part, complete_style=style, finished_style=style)
    made.add_row(drawn, f"{int(100 * part)}%")
    return made


def _datasets(datasets: tuple[DatasetView, ...]) -> RenderableType:
    if not datasets:
        return Text("none yet; `forebay backup DIR` makes one", style="dim")
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("dataset", overflow="fold")
    for head, justify in (("last run", "right"), ("state", "left"), ("ago", "right")):
        table.add_column(head, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("good run", justify="right", no_wrap=True)
    table.add_column("its age", justify="right", no_wrap=True)
    for one in datasets:
        table.add_row(
            Text(one.dataset),
            _or_dash(one.last_run),
            Text(one.last_state or "-", style=STYLES.get(one.last_state or "", "")),
            "-" if one.last_age_s is None else show_duration(one.last_age_s),
            _or_dash(one.good_run),
            Text("never", style="bold red")
            if one.good_age_s is None
            else show_duration(one.good_age_s),
        )
    return table


def _count(count: int) -> str:
    """Return a count in ten columns at most, below 10^12."""
    return f"{count:,}" if count < MILLIONS_FROM else f"{count / 1e6:,.1f} M"


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)
