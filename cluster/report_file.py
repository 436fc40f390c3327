"""Writing a report where nobody else reads it: it has names of files.

Covers: mode 0600, the whole page or none of it.
Does not cover: what is in it (report_page).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from shards.errors import UsageError


class ReportUnwritable(UsageError):
    """The file cannot be made."""

    template = "cannot write the report {0}: {1}; choose another file with --html"


def write_page(path: Path, page: str) -> None:
    """Write a page under its name in one step, readable by its owner alone."""
    try:
        descriptor, draft = tempfile.mkstemp(prefix=".forebay-report-", dir=path.parent)
    except OSError as error:
        raise ReportUnwritable(str(path), error.strerror) from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # made with mode 0600
            file.write(page)
        os.rename(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise ReportUnwritable(str(path), error.strerror) from error
