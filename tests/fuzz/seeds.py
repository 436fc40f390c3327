"""Write the inputs that a target of libFuzzer begins with.

Covers: `python -m tests.fuzz.seeds TARGET DIR`, from the examples of the plugin's tests.
Does not cover: targets without examples, which begin with nothing.
"""

import sys
from pathlib import Path

from tests.plugin.layout_examples import BAD, CEPH_DEFAULT, CEPH_STRIPED, GOOD, INO
from tests.plugin.layout_support import command, plain


def layouts() -> list[bytes]:
    """lustre.lov behind a zero, commands behind a one."""
    lovs = [lov for lov, _ in (*GOOD.values(), *BAD.values())]
    commands = [command("l", INO, plain(2)), command("c", INO, CEPH_STRIPED)]
    return [*(b"\0" + lov for lov in lovs), *(b"\1" + text for text in (*commands, *lovs))]


def ceph() -> list[bytes]:
    """Texts of layouts, and a number."""
    return [CEPH_DEFAULT, CEPH_STRIPED + b" pool=a pool_namespace=b", b"12"]


SEEDS = {"fuzz_layouts": layouts, "fuzz_ceph": ceph}


def main() -> None:
    target, folder = sys.argv[1:]
    for number, seed in enumerate(SEEDS[target]() if target in SEEDS else []):
        (Path(folder) / f"seed{number}").write_bytes(seed)


if __name__ == "__main__":
    main()
