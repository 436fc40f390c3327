"""What a restore does with what is there already; Bacula's own words.

Covers: the modes. Does not cover: what they do to a file (FD plugin).
"""

from __future__ import annotations

import enum


class Replace(enum.StrEnum):
    """Bacula's replace modes."""

    ALWAYS = "always"
    IFNEWER = "ifnewer"
    IFOLDER = "ifolder"
    NEVER = "never"
