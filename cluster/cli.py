"""The `forebay` command.

Covers: its sub-commands, and turning errors into one sentence and an exit code.
Does not cover: what they do (commands). Nothing heavy is imported before a command runs: help
must come at once.
"""

from __future__ import annotations

import json
import sys

import typer

from cluster.commands import (
    backup,
    bacula,
    config,
    dashboards,
    doctor,
    lab,
    prune,
    report,
    restore,
    runs,
    scan,
    service,
    show,
    state,
    top,
    verify,
    watch,
)
from shards.errors import ForebayError

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="forebay",
    help="Scan a filesystem in parallel and stream it into concurrent Bacula jobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 complete, 1 failed, 2 usage, 3 complete with warnings.",
)
app.command("backup")(backup.backup)
app.command("restore")(restore.restore)
app.command("scan")(scan.scan)
app.command("runs")(runs.runs)
app.command("show")(show.show)
app.command("report")(report.report)
app.command("top")(top.top)
app.command("watch")(watch.watch)
app.command("verify")(verify.verify)
app.command("prune")(prune.prune)
app.command("doctor")(doctor.doctor)
app.command("serve")(service.serve)
app.command("stop")(service.stop)
app.command("status")(service.status)
app.add_typer(config.app, name="config")
app.add_typer(lab.app, name="lab")
app.add_typer(dashboards.app, name="dashboards")
app.add_typer(bacula.app, name="bacula")
app.add_typer(state.app, name="state")


def main() -> None:
    """Run the command line; every expected failure is one sentence on stderr."""
    try:
        app()
    except ForebayError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
        print(f"forebay: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("forebay: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
