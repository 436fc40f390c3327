"""How results are printed: JSON for programs, sentences for people.

Covers: sizes, times, paths that may be any bytes.
Does not cover: progress while something runs (progress).
"""

from __future__ import annotations

import json
import os
import time
from typing import Annotated, Any

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(value))


def show_path(path: bytes) -> str:
    """Make a path printable on one line; what is not text is escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_size(size_bytes: float) -> str:
    """Return a size with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size_bytes) < 1024 or unit == "TiB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    raise AssertionError("the last unit takes everything")


def show_time(seconds: float | None) -> str:
    """Return a local time, or a dash."""
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def show_duration(seconds: float) -> str:
    """Return a length of time with its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds else "0 s"
    whole = round(seconds)
    for unit, smaller, size, part in (
        ("d", "h", 86_400, 3_600),
        ("h", "min", 3_600, 60),
        ("min", "s", 60, 1),
    ):
        if whole >= size:
            more = whole % size // part
            return f"{whole // size} {unit}" + (f" {more:02d} {smaller}" if more else "")
    return f"{whole} s"


def plural(count: int, word: str, words: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{count:,} {word if count == 1 else (words or word + 's')}"


def show_error(error: int) -> str:
    """Return an errno in words."""
    return os.strerror(error) if error else "-"
