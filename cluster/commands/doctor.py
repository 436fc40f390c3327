"""`forebay doctor`: what is missing on this machine, and how to fix it."""

from __future__ import annotations

import dataclasses

import typer

from cluster.output import JsonOption, print_json


def doctor(json: JsonOption = False) -> None:
    """Check this machine; exit code 1 if something is missing."""
    from bacula_bridge.doctor import examine
    from cluster.settings import Settings

    settings = Settings.from_environment()
    checks = examine(data=settings.home)
    good = all(check.ok for check in checks)
    if json:
        print_json({"good": good, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        for check in checks:
            print(f"{'ok     ' if check.ok else 'MISSING'}  {check.name}: {check.detail}")
            if not check.ok:
                print(f"         {check.fix}")
    raise typer.Exit(0 if good else 1)
