"""`forebay state`: the archive of runs, and what is where."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.output import JsonOption, plural, print_json, show_size, show_time

app = typer.Typer(help="Copy runs to an archive, list what is where, bring runs back.")

RunsArgument = Annotated[list[int] | None, typer.Argument(metavar="[RUN]...", min=1)]
AllOption = Annotated[bool, typer.Option("--all", help="All runs.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The site's configuration file.")
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The archive: file://, s3://, any fsspec URL."),
]
OptionsOption = Annotated[
    Path | None,
    typer.Option("--options-file", metavar="FILE", help="JSON with keys and endpoint, mode 0600."),
]


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _chosen(runs: list[int] | None, everything: bool) -> list[int] | None:
    from shards.errors import UsageError

    if bool(runs) == everything:
        raise UsageError("give either run numbers or --all")
    return runs or None


@app.command("archive")
def archive(
    runs: RunsArgument = None,
    everything: AllOption = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read back what is there, and mend it.")
    ] = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    options_file: OptionsOption = None,
    json: JsonOption = False,
) -> None:
    """Copy manifests and receipts of ended runs to the archive; what is there is left."""
    from dataclasses import asdict

    from cluster.archive.saving import archive_runs
    from cluster.archive.setup import find_setup

    chosen = _chosen(runs, everything)
    setup = find_setup(config, url, options_file)
    report = archive_runs(
        setup.state,
        setup.store(),
        chosen,
        keep_days=setup.keep_days,
        verify=verify,
        say=_say,
    )
    if json:
        failed = [{"run": run, "error": error} for run, error in report.failed]
        print_json({"runs": [asdict(saved) for saved in report.saved], "failed": failed})
    else:
        size = show_size(sum(saved.size_bytes for saved in report.saved))
        print(f"{plural(len(report.saved), 'run')} in the archive, {size}")
    _leave(len(report.failed))


@app.command("import")
def import_(
    runs: RunsArgument = None,
    everything: AllOption = False,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="LEDGER", help="Of this run ledger, if there are several."),
    ] = None,
    config: ConfigOption = None,
    url: UrlOption = None,
    options_file: OptionsOption = None,
    json: JsonOption = False,
) -> None:
    """Bring archived runs back into the state directory; nothing there is overwritten."""
    from dataclasses import asdict

    from cluster.archive.importing import import_runs
    from cluster.archive.setup import find_setup

    chosen = _chosen(runs, everything)
    setup = find_setup(config, url, options_file)
    report = import_runs(setup.state, setup.store(), chosen, source=source, say=_say)
    if json:
        failed = [{"run": run, "error": error} for run, error in report.failed]
        print_json(
            {
                "ledger": report.ledger,
                "runs": [asdict(imported) for imported in report.imported],
                "failed": failed,
            }
        )
    else:
        size = show_size(sum(imported.size_bytes for imported in report.imported))
        print(f"{plural(len(report.imported), 'run')} here, {size}")
    _leave(len(report.failed))


@app.command("list")
def list_(
    config: ConfigOption = None,
    url: UrlOption = None,
    options_file: OptionsOption = None,
    json: JsonOption = False,
) -> None:
    """List runs with their sizes here and in the archive, and the rest of the state."""
    import time
    from dataclasses import asdict

    from cluster.archive.listing import list_state
    from cluster.archive.setup import find_setup

    setup = find_setup(config, url, options_file)
    listing = list_state(setup.state, setup.store() if setup.url else None)
    if json:
        print_json(asdict(listing) | {"state": str(setup.state.base), "archive": setup.url})
        return
    several = len({run.ledger for run in listing.runs}) > 1
    for run in listing.runs:
        here = "-" if run.local_bytes is None else show_size(run.local_bytes)
        there = "-" if run.archived_bytes is None else show_size(run.archived_bytes)
        days = max(0, int((time.time() - run.ended) / 86_400))
        print(
            f"{run.run:>6}  {run.dataset:<20}  {show_time(run.ended)}  {days:>4} d"
            f"  {run.level:<12} {run.state:<11}  here {here:>10}  archived {there:>10}"
            + (f"  {run.ledger}" if several else "")
        )
    here = sum(run.local_bytes or 0 for run in listing.runs)
    there = sum(run.archived_bytes or 0 for run in listing.runs)
    print(
        f"{plural(len(listing.runs), 'run')}: {show_size(here)} here, {show_size(there)} archived;"
        f" ledger {show_size(listing.ledger_bytes)}, its copy {show_size(listing.copy_bytes)},"
        f" views {show_size(listing.views_bytes)}, change logs {show_size(listing.changes_bytes)}"
    )


@app.command("prune")
def prune(
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove it; without this it is only listed.")
    ] = False,
    keep_days: Annotated[
        int | None,
        typer.Option("--keep-days", min=1, help="Instead of archive.keep_days of the site."),
    ] = None,
    config: ConfigOption = None,
    url: UrlOption = None,
    options_file: OptionsOption = None,
    json: JsonOption = False,
) -> None:
    """Remove old runs from the archive that no younger run builds on."""
    from dataclasses import asdict

    from cluster.archive.importing import source_ledger
    from cluster.archive.retention import prune_archive
    from cluster.archive.saving import local_heads
    from cluster.archive.setup import find_setup
    from shards.errors import UsageError

    setup = find_setup(config, url, options_file)
    days = keep_days or setup.keep_days
    if days is None:
        raise UsageError("give --keep-days, or set archive.keep_days in the configuration file")
    store = setup.store()
    ledger = source_ledger(setup.state, store, None)
    plan = prune_archive(store, ledger, local_heads(setup.state), days, apply=apply)
    if json:
        print_json(asdict(plan) | {"applied": apply, "bytes": plan.size_bytes})
        return
    for item in plan.items:
        print(f"run {item.run} of {item.dataset}: {show_size(item.size_bytes)}: {item.reason}")
    for name in plan.unknown:
        _say(f"{name} has no index and is of a run that nobody knows; it is left alone")
    what = f"{plural(len(plan.items), 'run')}, {show_size(plan.size_bytes)}"
    stays = f"{plural(plan.kept, 'run')}, {show_size(plan.kept_bytes)} stay"
    if not plan.items:
        print(f"nothing to prune; {stays}")
    elif apply:
        print(f"removed {what}; {stays}")
    else:
        print(f"{what}; --apply removes them; {stays}")


def _leave(failures: int) -> None:
    if failures:
        raise typer.Exit(1)
