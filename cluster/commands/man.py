"""`forebay man`: the manual page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.init import write_file

NAME = "forebay.1"
FILE_MODE = 0o644


def man(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            help="Write it there, as man expects it: /usr/local/share/man/man1 for all users.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the manual page, or install it: forebay man | man -l -"""
    from cluster.manual import manual

    text = manual(context.find_root().command)
    if folder is None:
        print(text, end="")
        return
    write_file(folder / NAME, text, force=True, mode=FILE_MODE)
    print(folder / NAME)
