"""List the benchmarks, or run one.

Covers: `python -m benchmarks [NAME] [--quick] [--json] [--rounds N] [--folder DIR]`.
Does not cover: the benchmarks themselves (a module each).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import backup, incremental, incremental_calls, incremental_memory, machine, scan
from benchmarks.runner import BenchmarkFailed, as_json, print_table
from tests.support.bulk import remove_tree

BENCHMARKS = {
    "scan": scan,
    "backup": backup,
    "incremental": incremental,
    "incremental-calls": incremental_calls,
    "incremental-memory": incremental_memory,
}
ROUNDS_MAX = 100


def main() -> int:
    """Run what was asked for; 0 done, 1 a contender failed, 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), help="what to measure")
    parser.add_argument("--quick", action="store_true", help="a small tree and fewer rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, help="rounds that count")
    parser.add_argument("--folder", type=Path, help="make the trees below this folder")
    arguments = parser.parse_args()
    if arguments.name is None:
        for name, module in BENCHMARKS.items():
            print(f"{name:18} {module.QUESTION}")
        return 0
    if arguments.rounds is not None and not 1 <= arguments.rounds <= ROUNDS_MAX:
        parser.error(f"--rounds must be 1 to {ROUNDS_MAX}")
    if arguments.folder is not None and not arguments.folder.is_dir():
        parser.error(f"--folder {arguments.folder} is not a directory")
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="forebay-benchmark-", dir=arguments.folder))
    try:
        described = machine.describe(folder)
        module = BENCHMARKS[arguments.name]
        report = module.run(folder, described, quick=arguments.quick, rounds=arguments.rounds)
    except BenchmarkFailed as error:
        print(f"benchmark {arguments.name}: {error}", file=sys.stderr)
        return 1
    finally:
        remove_tree(folder)
    if arguments.json:
        print(json.dumps(as_json(report)))
    else:
        print_table(report, machine.describe_line(described))
    return 0


if __name__ == "__main__":
    sys.exit(main())
