"""`forebay top`: what is going on, on a screen that stays up to date."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from cluster.output import JsonOption, print_json

INTERVAL_MIN_S = 0.2
INTERVAL_MAX_S = 3600.0


def top(
    interval: Annotated[
        float,
        typer.Option(
            "--interval", help="Seconds between two looks.", min=INTERVAL_MIN_S, max=INTERVAL_MAX_S
        ),
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look once; so it is where stdout is no terminal.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the open runs with their shards and walkers, and each dataset's last runs."""
    from rich.console import Console
    from rich.live import Live

    from cluster.live import Observer
    from cluster.live_sources import live_source
    from cluster.settings import Settings
    from cluster.top_screen import screen

    settings = Settings.from_environment()
    observer = Observer(settings, live_source(settings))
    if json:
        print_json(observer.look().as_json())
        return
    console = Console(highlight=False)
    if once or not console.is_terminal:
        console.print(screen(observer.look(), console.width))
        return
    leaving = _leaving()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not leaving.is_set():
            live.update(screen(observer.look(), console.width), refresh=True)
            leaving.wait(interval)


def _leaving() -> threading.Event:
    """Return what Ctrl-C sets: an exception in the middle of a screen could leave it half done.

    The second Ctrl-C is such an exception, for a look that takes too long.
    """
    leaving = threading.Event()

    def leave(number: int, _frame: object) -> None:
        leaving.set()
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    return leaving
