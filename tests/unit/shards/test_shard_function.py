"""The shard function's values are fixed for ever."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from shards.shard_function import mix64, mix64_column, shard_of

PAGE = Path(__file__).parents[3] / "docs" / "formats" / "shard-function.md"
GOLDEN = [
    tuple(int(cell, 0) for cell in cells)
    for cells in re.findall(
        r"^\| (\d+) \| (\d+) \| (0x[0-9A-F]+) \| (\d) \| (\d) \|$", PAGE.read_text(), re.M
    )
]


def test_the_page_has_golden_values():
    assert len(GOLDEN) >= 8
    assert (0, 0, 0xE220A8397B1DCDAF, 1, 3) in GOLDEN


@pytest.mark.parametrize(("ino", "seed", "mixed", "mod_3", "mod_4"), GOLDEN)
def test_python_and_numpy_agree_with_the_page(ino, seed, mixed, mod_3, mod_4):
    assert mix64(ino, seed) == mixed
    assert mix64_column(np.array([ino], dtype=np.uint64), seed)[0] == mixed
    assert shard_of(ino, seed, 3) == mod_3
    assert shard_of(ino, seed, 4) == mod_4


def test_consecutive_inodes_spread_evenly():
    counts = Counter(shard_of(ino, 99, 8) for ino in range(80_000))
    assert min(counts.values()) > 9_500
    assert max(counts.values()) < 10_500
