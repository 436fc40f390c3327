"""Whether this process may read what belongs to others (capabilities(7)).

Covers: what /proc says of the capability that a backup needs.
Does not cover: who gives it (systemd, the administrator).
"""

from __future__ import annotations

import os
from pathlib import Path

READ_ALL = "CAP_DAC_READ_SEARCH"
_BITS = {"CAP_DAC_OVERRIDE": 1, READ_ALL: 2}  # linux/capability.h; each of them lets one read


def cannot_read_all(status: Path = Path("/proc/self/status")) -> str:
    """Return what is missing to read every file, in words; empty if nothing is."""
    try:
        text = status.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            if any(effective >> bit & 1 for bit in _BITS.values()):
                return ""
            return f"user {os.geteuid()} has no {READ_ALL}"
    return ""
