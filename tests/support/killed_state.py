"""`forebay state` in a process that kills itself at one moment: (count, what, arguments...).

Covers: SIGKILL at the count-th call of a method of the archive's store.
Does not cover: who looks at what is left (tests/system/test_archive_s3).
"""

import itertools
import os
import signal
import sys

from cluster.archive.store import ArchiveStore
from cluster.cli import app


def main():
    count, name = int(sys.argv[1]), sys.argv[2]
    action, calls = getattr(ArchiveStore, name), itertools.count(1)

    def counted(*arguments, **more):
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return action(*arguments, **more)

    setattr(ArchiveStore, name, counted)
    app(sys.argv[3:])


if __name__ == "__main__":
    main()
