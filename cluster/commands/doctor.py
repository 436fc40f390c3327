"""`forebay doctor`: what is missing on this machine, what Forebay makes of a tree."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.output import JsonOption, plural, print_json

if TYPE_CHECKING:
    from filesystems.report import TreeReport


def doctor(
    directory: Annotated[
        Path | None, typer.Argument(help="A tree that is to be backed up.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check this machine, and a tree if one is named; exit code 1 if something is missing."""
    from bacula_bridge.doctor import examine
    from cluster.settings import Settings
    from cluster.watching import plan_watch
    from filesystems.report import examine_tree

    settings = Settings.from_environment()
    tree = None
    if directory is not None:
        request = plan_watch(settings, directory, None)
        tree = examine_tree(request.root, settings.state.changes(request.dataset), request.dataset)
    checks = examine(data=settings.home)
    good = all(check.ok for check in checks)
    if json:
        answer = {"good": good, "checks": [dataclasses.asdict(check) for check in checks]}
        if tree is not None:
            answer["tree"] = dataclasses.asdict(tree)
        print_json(answer)
    else:
        for check in checks:
            print(f"{'ok     ' if check.ok else 'MISSING'}  {check.name}: {check.detail}")
            if not check.ok:
                print(f"         {check.fix}")
        if tree is not None:
            _print_tree(tree)
    raise typer.Exit(0 if good else 1)


def _print_tree(tree: TreeReport) -> None:
    print(f"\n{tree.root}")
    print(f"  filesystem    {tree.mount_type}, walked as {tree.adapter}, {tree.walk}")
    print(
        f"  served by     {plural(len(tree.targets), 'metadata target')}: {', '.join(tree.targets)}"
    )
    if tree.reason:
        print(f"  incrementals  scan the whole tree: {tree.reason}")
    else:
        print(f"  incrementals  look only at what {tree.change_source} reports")
    if tree.better:
        print(f"  better        {tree.better}")
    if tree.layouts:
        print(f"  layouts       {tree.layouts}: saved with each file, restored before its data")
