"""`forebay prune`: remove what nothing can name any more."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cluster.output import JsonOption, plural, print_json, show_size


def prune(
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove it; without this it is only listed.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Remove manifests, receipts and views of runs whose jobs Bacula has pruned or deleted."""
    from cluster.prune import prune as prune_state
    from cluster.settings import Settings

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    plan = prune_state(Settings.from_environment(), say, apply=apply)
    if json:
        print_json(
            {
                "applied": apply,
                "bytes": plan.size_bytes,
                "items": [
                    {
                        "run": item.run,
                        "dataset": item.dataset,
                        "path": str(item.path),
                        "reason": item.reason,
                        "bytes": item.size_bytes,
                    }
                    for item in plan.items
                ],
                "unknown": [str(path) for path in plan.unknown],
            }
        )
        return
    for item in plan.items:
        what = f"run {item.run} of {item.dataset}" if item.run is not None else str(item.path)
        print(f"{what}: {show_size(item.size_bytes)}: {item.reason}")
    for path in plan.unknown:
        say(f"{path} is of a run that the ledger does not know; it is left alone")
    if not plan.items:
        print("nothing to prune")
    elif apply:
        print(f"removed {plural(len(plan.items), 'item')}, {show_size(plan.size_bytes)}")
    else:
        print(
            f"{plural(len(plan.items), 'item')}, {show_size(plan.size_bytes)}; --apply removes them"
        )
