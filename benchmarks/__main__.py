"""List the benchmarks, or run one.

Covers: `python -m benchmarks [NAME | all] [--quick] [--json] [--rounds N] [--folder DIR]`.
Does not cover: the benchmarks themselves (a module each).
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import (
    backup,
    bridge,
    cephfs,
    changelog,
    first_byte,
    hook,
    incremental,
    incremental_calls,
    incremental_memory,
    large,
    latency,
    machine,
    scan,
    scan_memory,
    scan_targets,
    stream,
    whole_scan,
)
from benchmarks.runner import BenchmarkFailed, Report, as_json, print_table, say
from tests.support.bulk import remove_tree

BENCHMARKS = {
    "scan": scan,
    "latency": latency,
    "whole-scan": whole_scan,
    "scan-targets": scan_targets,
    "scan-memory": scan_memory,
    "backup": backup,
    "stream": stream,
    "large": large,
    "first-byte": first_byte,
    "bridge": bridge,
    "hook": hook,
    "changelog": changelog,
    "cephfs": cephfs,
    "incremental": incremental,
    "incremental-calls": incremental_calls,
    "incremental-memory": incremental_memory,
}
ALL = "all"
ROUNDS_MAX = 100


def main() -> int:
    """Run what was asked for; 0 done, 1 a contender failed, 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=[*BENCHMARKS, ALL], help="what to measure")
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
    names = list(BENCHMARKS) if arguments.name == ALL else [arguments.name]
    return max([_run(name, arguments) for name in names])


def _run(name: str, arguments: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="forebay-benchmark-", dir=arguments.folder))
    started = time.monotonic()
    say(f"benchmark {name}")
    try:
        described = machine.describe(folder)
        module = BENCHMARKS[name]
        found = module.run(folder, described, quick=arguments.quick, rounds=arguments.rounds)
    except BenchmarkFailed as error:
        print(f"benchmark {name}: {error}", file=sys.stderr)
        return 1
    finally:
        remove_tree(folder)
    say(f"benchmark {name} took {time.monotonic() - started:.0f} s")
    for report in [found] if isinstance(found, Report) else found:
        if arguments.json:
            print(json.dumps(as_json(report)), flush=True)
        else:
            print_table(report, machine.describe_line(described))
    return 0


if __name__ == "__main__":
    sys.exit(main())
