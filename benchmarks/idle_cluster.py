"""A cluster as `forebay backup` starts one, that does nothing.

Covers: giving a contender without Ray the machine that Forebay's own job finds: the same processes,
the same memory taken.
Does not cover: using it.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.runner import CHECKOUT, BenchmarkFailed

UP = b"up\n"
END_TIMEOUT_S = 60.0


@contextmanager
def idle_cluster(home: Path) -> Iterator[None]:
    """Keep coordinator, bridge and walker up meanwhile, in a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.idle_cluster", home],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout, process.stdin:
        try:
            if process.stdout.readline() != UP:
                raise BenchmarkFailed("the idle cluster did not start")
            yield
        finally:
            process.stdin.close()
            process.wait(END_TIMEOUT_S)


def main() -> None:
    """Be up until standard input ends."""
    from cluster.ray_token import prepare_private_ray

    prepare_private_ray()
    from cluster.embedded import EmbeddedCluster
    from cluster.settings import Settings

    settings = Settings(Path(sys.argv[1]))
    settings.state.make()
    with EmbeddedCluster(settings):
        sys.stdout.buffer.write(UP)
        sys.stdout.buffer.flush()
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
