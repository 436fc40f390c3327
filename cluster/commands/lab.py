"""`forebay lab`: the private Bacula."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from cluster.output import JsonOption, QuietOption, print_json

DRIVES_DEFAULT = 8
CONSOLE_TIMEOUT_S = 3600.0

app = typer.Typer(help="The private Bacula of this installation.", no_args_is_help=True)


@app.command()
def up(
    drives: Annotated[
        int, typer.Option("--drives", min=1, help="At least so many drives.")
    ] = DRIVES_DEFAULT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Start Director, Storage Daemon and File Daemon; what runs is left alone."""
    from cluster.labs import keep_up
    from cluster.settings import Settings

    status = keep_up(Settings.from_environment(), drives, _say(quiet))
    if json:
        print_json(status.to_json())
    else:
        print(f"Bacula {status.programs_version} is up in {status.base}")


@app.command()
def down() -> None:
    """Stop the daemons; catalog and volumes stay."""
    from cluster.labs import bring_down
    from cluster.settings import Settings

    lab = bring_down(Settings.from_environment())
    print(f"Bacula in {lab.base} is down")


@app.command()
def status(json: JsonOption = False) -> None:
    """Show pids, ports, catalog, volumes, configuration and the bconsole command line."""
    from cluster.labs import known_lab
    from cluster.settings import Settings

    state = known_lab(Settings.from_environment()).status()
    if json:
        print_json(state.to_json())
        return
    print(f"{'up' if state.running else 'down'}: Bacula {state.programs_version} in {state.base}")
    for daemon in state.daemons:
        where = f"pid {daemon.pid}, port {daemon.port}" if daemon.pid else "not running"
        print(f"  {daemon.name:<13} {where}")
    for name, path in (("catalog", state.catalog), ("volumes", state.volumes)):
        print(f"  {name:<13} {path}")
    for name, path in state.configuration.items():
        print(f"  {name:<8} conf {path}")
    print(f"  {'bconsole':<13} {shlex.join(state.bconsole)}")


@app.command()
def console() -> None:
    """Pass bconsole commands from standard input; print what it answers."""
    from cluster.labs import known_lab
    from cluster.settings import Settings

    lab = known_lab(Settings.from_environment())
    sys.stdout.write(lab.console(sys.stdin.read(), CONSOLE_TIMEOUT_S))


def _say(quiet: bool) -> Callable[[str], None]:
    return (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))
