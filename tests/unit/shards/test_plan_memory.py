"""The memory of a comparison does not grow with the tree."""

import shutil
import subprocess
import sys


def test_memory_of_a_comparison_does_not_grow_with_the_tree(tmp_path):
    def peak(rows):
        folder = tmp_path / str(rows)
        command = [sys.executable, "-m", "tests.support.plan_memory", str(rows), str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        shutil.rmtree(folder)
        return int(done.stdout)

    assert peak(1_000_000) < 1.1 * peak(250_000)
