"""`forebay watch`: the change reader of a directory, and what the readers are doing."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.output import JsonOption, plural, print_json, show_path, show_time
from shards.errors import UsageError

if TYPE_CHECKING:
    from cluster.watching import ReaderStatus


class OneThing(UsageError):
    """Too much, or nothing, was asked for."""

    template = "give a DIR to watch, or --stop DATASET, or --status; --changelog goes with a DIR"


def watch(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", readable=False, help="Directory to watch.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Dataset; as `forebay backup` names it if not given."),
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Return once it watches; it goes on alone.")
    ] = False,
    changelog: Annotated[
        list[str] | None,
        typer.Option(
            "--changelog",
            metavar="MDT=CONSUMER",
            help="Lustre: let backups read this changelog; once for each MDT. Nothing runs then.",
        ),
    ] = None,
    stop: Annotated[
        str | None, typer.Option("--stop", metavar="DATASET", help="End the reader of a dataset.")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="List the readers.")] = False,
    json: JsonOption = False,
) -> None:
    """Note what changes in DIR (root, local filesystems), so that incrementals need no scan."""
    if [directory is not None, stop is not None, status].count(True) != 1:
        raise OneThing
    if changelog and (directory is None or background):
        raise OneThing
    from cluster import watching
    from cluster.settings import Settings

    settings = Settings.from_environment()
    if status:
        _print(watching.statuses(settings), json)
    elif stop is not None:
        ended = watching.stop(settings, stop)
        print(f"no longer watching {ended.root}; the next incremental backup scans it")
        for word in ended.changelogs:
            target, _, consumer = word.partition("=")
            print(f"on the MDS: lctl --device {target} changelog_deregister {consumer}")
    elif directory is not None:
        request = watching.plan_watch(settings, directory, name)
        if changelog:
            _print([watching.read_changelogs(settings, request, changelog)], json)
        elif background:
            _print([watching.watch_in_background(settings, request)], json)
        else:
            watching.watch(settings, request, lambda text: print(text, file=sys.stderr, flush=True))


def _print(readers: list[ReaderStatus], json: bool) -> None:
    if json:
        print_json({"readers": [_json(reader) for reader in readers]})
        return
    if not readers:
        print("nothing is watched; start with `forebay watch DIR`")
    for reader in readers:
        if reader.reason is not None:
            print(f"{reader.dataset}: {reader.reason}")
            continue
        if reader.changelogs:
            where = show_path(os.fsencode(reader.root))
            print(f"{reader.dataset}: {where}: backups read {', '.join(reader.changelogs)}")
            continue
        print(
            f"{reader.dataset}: watching {show_path(os.fsencode(reader.root))} since"
            f" {show_time(reader.started)}, pid {reader.pid}, at {reader.sequence:,}:"
            f" {plural(reader.places, 'place')} to look at,"
            f" {plural(reader.queued, 'event')} waiting"
        )


def _json(reader: ReaderStatus) -> dict[str, object]:
    return {
        **dataclasses.asdict(reader),
        "root": show_path(os.fsencode(reader.root)),
        "watching": reader.reason is None,
    }
