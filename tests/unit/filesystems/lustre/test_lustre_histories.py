"""Random histories on the stand-in: whatever differs is in the change set.

FOREBAY_LUSTRE_HISTORIES plays more of them than these few.
"""

from __future__ import annotations

import os

import pytest

from tests.support.lustre.history import play

HISTORIES = int(os.environ.get("FOREBAY_LUSTRE_HISTORIES", "20"))


@pytest.mark.usefixtures("machine_fits")
@pytest.mark.parametrize("seed", range(HISTORIES))
def test_what_differs_is_in_the_change_set(seed, tmp_path):
    assert play(tmp_path, seed) == []
