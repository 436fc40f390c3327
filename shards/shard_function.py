"""Which shard an inode belongs to: mix64(ino, seed) mod N.

Covers: the function, for one inode and for a column of them (docs/formats/shard-function.md).
Does not cover: the walker kernel's own copy in C, which a test compares with this one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SHARDS_MAX = 1024

_MASK = (1 << 64) - 1
# SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) with Stafford's mixing constants, variant 13.
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLY_1 = 0xBF58476D1CE4E5B9
_MULTIPLY_2 = 0x94D049BB133111EB


def mix64(ino: int, seed: int) -> int:
    """Mix one inode number (unsigned 64 bit) with the dataset's seed."""
    z = (ino + seed + _GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * _MULTIPLY_1) & _MASK
    z = ((z ^ (z >> 27)) * _MULTIPLY_2) & _MASK
    return z ^ (z >> 31)


def mix64_column(ino: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Mix a column of inode numbers; same values as mix64."""
    with np.errstate(over="ignore"):
        z = ino + np.uint64((seed + _GAMMA) & _MASK)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MULTIPLY_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MULTIPLY_2)
    return z ^ (z >> np.uint64(31))


def shard_of(ino: int, seed: int, shards: int) -> int:
    """Return the shard (0 to shards - 1) of an inode."""
    return mix64(ino, seed) % shards
