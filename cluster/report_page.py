"""A run's report as one HTML file: no script, nothing from outside, readable on a phone and paper.

Covers: what the page says and in which order.
Does not cover: the figures (report_figures), charts (report_charts), looks (report_style).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cluster.busiest import Directory
from cluster.markup import Markup, bar, element, raw
from cluster.output import (
    plural,
    show_duration,
    show_error,
    show_path,
    show_size,
    show_time,
)
from cluster.report_charts import chart
from cluster.report_figures import (
    DIRECTORIES_SHOWN,
    NamesFigures,
    Report,
    TargetFigures,
    Throughput,
    balance,
    job_seconds,
)
from cluster.report_style import STYLE
from shards.ledger_schema import RunState
from shards.schema import ReceiptStatus
from shards.shard_jobs import ShardJob

# Nothing is loaded, nothing is run: whatever a name may hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
REASON_CHARACTERS_MAX = 2_000
VERDICTS = {
    RunState.OPEN: ("open", "Not ended yet"),
    RunState.COMPLETE: ("good", "Complete"),
    RunState.WARNINGS: ("warn", "Complete, with warnings"),
    RunState.INCOMPLETE: ("bad", "Incomplete: no backup of everything"),
    RunState.FAILED: ("bad", "Failed: no backup"),
    RunState.PRUNED: ("open", "Pruned"),
}
REASONS = {
    ReceiptStatus.CHANGED: "Changed while it was read; saved as it was in that moment",
    ReceiptStatus.UNREADABLE: "Could not be read",
    ReceiptStatus.VANISHED: "Vanished between scan and read",
    ReceiptStatus.REPLACED: "Another file took the name between scan and read",
    ReceiptStatus.SCAN_ERROR: "The scan could not look at it",
    ReceiptStatus.RELEASED: "Released by HSM, and not recalled",
}


def report_page(report: Report) -> str:
    """Return the page."""
    run = report.record.run
    title = f"{run.dataset}, run {run.number}"
    sections = [
        _head(report),
        _throughput(report.throughput),
        _shards(report),
        _targets(report.targets),
        _warnings(report),
        _directories(report.names),
        _notes(report.record.jobs),
        element("footer", f"Made by Forebay at {show_time(report.made)}, local time."),
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="robots", content="noindex"),
        element("title", f"Backup of {title}"),
        element("style", raw(STYLE)),
    )
    body = element("body", element("main", sections))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _head(report: Report) -> Markup:
    record, run = report.record, report.record.run
    style, verdict = VERDICTS[run.state]
    if record.is_pruned and run.state is not RunState.PRUNED:
        verdict += "; pruned since"
    times = f"{show_time(run.started)} to {show_time(run.ended)}"
    if run.ended:
        times += f" ({show_duration(run.ended - run.started)})"
    said: list[Markup] = []
    if run.reason:
        said.append(element("p", run.reason[:REASON_CHARACTERS_MAX], class_="say alarm"))
    if record.how_to_go_on:
        said.append(element("p", record.how_to_go_on, class_="say"))
    if run.note:
        whole = "" if run.level == "full" else "The whole tree was looked at: "
        said.append(element("p", f"{whole}{run.note}", class_="say quiet"))
    return element(
        "header",
        element("p", "Forebay backup report", class_="over"),
        element("h1", f"{run.dataset}, run {run.number}"),
        element("span", verdict, class_=f"verdict {style}"),
        element(
            "p",
            f"{run.level.capitalize()} backup of ",
            element("strong", show_path(run.root)),
            raw("<br>"),
            element("span", times, class_="quiet"),
            class_="lead",
        ),
        said,
        element("div", _tiles(report), class_="tiles"),
    )


def _tiles(report: Report) -> list[Markup]:
    record, run = report.record, report.record.run
    jobs = record.saved_jobs
    size = sum(job.summary.size_bytes for job in jobs)
    files = sum(job.summary.files for job in jobs)
    directories = sum(job.summary.directories for job in jobs)
    deleted = sum(job.summary.deleted for job in jobs)
    skipped = sum(job.summary.skipped for job in jobs)
    warned = sum(job.summary.warnings for job in record.jobs)
    seconds = (run.ended or run.started) - run.started
    rate = f"{show_size(size / seconds)}/s on average" if seconds > 0 else ""
    scan = record.scan
    tiles = [
        ("Data saved", show_size(size), rate),
        ("Files saved", f"{files:,}", f"and {plural(directories, 'directory', 'directories')}"),
        ("Shards saved", f"{len(jobs)} of {run.shards}", f"in {plural(len(record.jobs), 'job')}"),
        ("Names with warnings", f"{warned:,}", "they stay due" if warned else "none"),
        (
            "Names scanned",
            f"{scan.inodes:,}",
            f"{show_size(scan.size_bytes)}, {plural(scan.errors, 'error')}",
        ),
    ]
    if deleted:
        tiles.append(("Deletions recorded", f"{deleted:,}", "names that are gone"))
    if skipped:
        tiles.append(("Sockets left out", f"{skipped:,}", "as Bacula does"))
    if scan.mount_points:
        tiles.append(("Mount points", f"{scan.mount_points:,}", "not part of this run"))
    return [
        element(
            "div",
            element("div", name, class_="name"),
            element("div", value, class_="value"),
            element("div", more, class_="more"),
            class_="tile",
        )
        for name, value, more in tiles
    ]


def _section(title: str, *content: Markup | None, long: bool = False) -> Markup:
    return element("section", element("h2", title), content, class_="long" if long else None)


def _quiet(sentence: str) -> Markup:
    return element("p", sentence, class_="quiet small")


def _throughput(throughput: Throughput | None) -> Markup:
    title = "Throughput over time"
    if throughput is None:
        return _section(title, _quiet("The ledger has no times of this run's scan and streams."))
    scanned, saved = throughput.scanned, throughput.saved
    seconds = scanned.width_s * len(scanned.names)
    lacking = throughput.jobs - throughput.jobs_measured
    told = "A file's data is spread over the time since the receipts before its own."
    if lacking:
        told += f" {plural(lacking, 'job')} of this run left no times."
    return _section(
        title,
        _quiet(f"From {show_time(scanned.start)}. {told}"),
        *(
            chart(
                title, style, [amount / scanned.width_s for amount in amounts], seconds, size=size
            )
            for title, style, amounts, size in (
                ("Data saved", "saved", saved.bytes, True),
                ("Names saved", "saved", saved.names, False),
                ("Names scanned", "scan", scanned.names, False),
            )
        ),
    )


def _table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[Markup]]) -> Markup:
    """Return a table; a head is its text and its class."""
    head = [element("th", name, class_=style or None, scope="col") for name, style in heads]
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", head)),
            element("tbody", [element("tr", row) for row in rows]),
        ),
        class_="wide",
    )


def _shards(report: Report) -> Markup:
    record = report.record
    title = "Balance of the shards"
    if not record.jobs:
        return _section(title, _quiet("No job has asked for a shard of this run."))
    largest = max(job.summary.size_bytes for job in record.jobs)
    rows = [_shard(job, largest) for job in record.jobs]
    heads = (
        *(("Shard", "left"), ("JobId", ""), ("End", "left"), ("Data", ""), ("", "left")),
        *(("Names", ""), ("Time", ""), ("Rate", ""), ("Warnings", "")),
    )
    return _section(title, _quiet(_balance(record.saved_jobs)), _table(heads, rows), long=True)


def _balance(jobs: list[ShardJob]) -> str:
    if not jobs:
        return "No shard was saved."
    factors = {name: f"{factor:.2f}" for name, factor in balance(jobs).items() if factor}
    told = [
        f"{factors[name]} times the mean {name}" for name in ("data", "names") if name in factors
    ]
    largest = f"The largest shard has {' and '.join(told)}" if told else "Nothing was saved"
    slowest = (
        f"; the slowest took {factors['time']} times the mean time" if "time" in factors else ""
    )
    return f"{largest}{slowest}."


def _shard(job: ShardJob, largest: int) -> list[Markup]:
    summary, seconds = job.summary, job_seconds(job)
    part = summary.size_bytes / largest if largest else 0.0
    return [
        element("td", str(job.shard), class_="left"),
        element("td", str(job.jobid)),
        element(
            "td", f"{job.state.value}{f' ({job.status})' if job.status else ''}", class_="left"
        ),
        element("td", show_size(summary.size_bytes)),
        element("td", bar(part, f"{100 * part:.0f} % of the largest"), class_="stretch"),
        element("td", f"{summary.files + summary.directories:,}"),
        element("td", show_duration(seconds) if job.ended else "-"),
        element("td", f"{show_size(summary.size_bytes / seconds)}/s" if seconds else "-"),
        element("td", f"{summary.warnings:,}"),
    ]


def _targets(targets: Sequence[TargetFigures]) -> Markup:
    title = "Metadata targets, slowest first"
    if not targets:
        return _section(title, _quiet("No lease of this run was committed."))
    longest = max((target.seconds or 0.0) for target in targets)
    rows = [
        [
            element("td", target.target, class_="left"),
            element("td", show_duration(target.seconds) if target.seconds is not None else "-"),
            element("td", _time_bar(target, longest), class_="stretch"),
            element("td", f"{target.inodes:,}"),
            element("td", f"{target.inodes / target.seconds:,.0f}/s" if target.seconds else "-"),
            element("td", f"{target.directories:,}"),
            element("td", f"{target.leases:,}"),
            element("td", f"{target.errors:,}"),
        ]
        for target in targets
    ]
    heads = (
        *(("Target", "left"), ("Time in leases", ""), ("", "left"), ("Names", ""), ("Rate", "")),
        *(("Directories", ""), ("Leases", ""), ("Errors", "")),
    )
    told = "From the taking of a lease to its commit, added up; two leases may overlap."
    return _section(title, _quiet(told), _table(heads, rows), long=True)


def _time_bar(target: TargetFigures, longest: float) -> Markup:
    part = (target.seconds or 0.0) / longest if longest else 0.0
    return bar(part, f"{100 * part:.0f} % of the slowest")


def _warnings(report: Report) -> Markup:
    title, names = "Warnings", report.names
    if names is None:
        why = "pruned" if report.record.is_pruned else "not read for this report"
        return _section(title, _quiet(f"The receipts were {why}."))
    if not names.warnings:
        return _section(title, _quiet("Every name was saved as it is."))
    groups = []
    for group in names.warnings:
        error = f": {show_error(group.error)}" if group.error else ""
        more = group.count - len(group.first)
        listed = [element("li", show_path(path), class_="path") for path in group.first]
        if more:
            listed.append(element("li", f"and {more:,} more", class_="quiet small"))
        groups.append(
            element(
                "li",
                element("div", f"{group.count:,}", class_="count"),
                element(
                    "div", f"{REASONS[group.status]}{error}", element("ul", listed, class_="names")
                ),
            )
        )
    rest = names.warnings_ungrouped
    told = f"All of them: forebay show {report.record.run.number} --all-warnings"
    return _section(
        title,
        _quiet(told),
        element("ul", groups, class_="groups"),
        _quiet(f"{rest:,} more for other reasons.") if rest else None,
        long=True,
    )


def _directories(names: NamesFigures | None) -> Markup | None:
    if names is None or not names.total_names:
        return None
    limits = []
    if names.missing_bytes:
        limits.append(f"{show_size(names.missing_bytes)} of data")
    if names.missing_names:
        limits.append(plural(names.missing_names, "name"))
    exact = "exact"
    if limits:
        exact = f"at least so much; up to {' and '.join(limits)} may lack in each"
    told = f"What this run saved directly in them, without their subdirectories; {exact}."
    by_bytes = [(one, show_size(one.amount)) for one in names.by_bytes]
    by_names = [(one, f"{one.amount:,}") for one in names.by_names]
    return _section(
        f"Largest directories, {DIRECTORIES_SHOWN} at most",
        _quiet(told),
        element(
            "div",
            _ranking("By data", "Data", by_bytes, names.total_bytes),
            _ranking("By names", "Names", by_names, names.total_names),
            class_="two",
        ),
        long=True,
    )


def _ranking(title: str, unit: str, ranked: Sequence[tuple[Directory, str]], total: int) -> Markup:
    rows = [
        [
            element("td", show_path(directory.path) or "(the root itself)", class_="path"),
            element("td", shown),
            element("td", f"{100 * directory.amount / total:.1f} %"),
        ]
        for directory, shown in ranked
    ]
    heads = (("Directory", "left"), (unit, ""), ("Share", ""))
    return element("div", element("h3", title), _table(heads, rows))


def _notes(jobs: Sequence[ShardJob]) -> Markup | None:
    """Say what jobs build on and why they failed; those that say the same go together."""

    def said(job: ShardJob) -> str:
        chain = f"builds on JobId {', '.join(map(str, job.chain))}" if len(job.chain) == 1 else ""
        return "; ".join(filter(None, (job.reason, job.note or chain)))

    telling = sorted((job for job in jobs if said(job)), key=lambda job: (said(job), job.jobid))
    if not telling:
        return None
    lines = []
    for what, group in itertools.groupby(telling, key=said):
        listed = ", ".join(f"{job.shard} (JobId {job.jobid})" for job in group)
        lines.append(
            element(
                "li",
                element("div", element("strong", f"Shard {listed}")),
                element("div", what[:REASON_CHARACTERS_MAX], class_="quiet"),
                class_="say",
            )
        )
    return _section("What the jobs said", element("ul", lines, class_="names"), long=True)
