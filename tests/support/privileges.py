"""Commands as another user with chosen capabilities.

Does not cover: what they may do then (tests).
"""

import os
import shutil

import pytest

NOBODY = 65534


def can_change_user() -> bool:
    return os.geteuid() == 0 and shutil.which("setpriv") is not None


def as_nobody(*capabilities: str) -> list[str]:
    """What goes before a command: user nobody with these capabilities and no others."""
    if not can_change_user():
        pytest.skip("needs root and setpriv")
    only = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    return [
        "setpriv",
        *ids,
        f"--bounding-set={only}",
        f"--inh-caps={only}",
        f"--ambient-caps={only}",
    ]
