"""The program `forebay`: hooks at once, everything else through the command line.

Does not cover: the commands (cli), the hooks (bacula_bridge.hook).
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run a hook without importing more than it needs, or the command line."""
    if sys.argv[1:2] == ["hook"]:
        from bacula_bridge.hook import main as hook

        sys.exit(hook(sys.argv[2:]))
    from cluster.cli import main as command_line

    command_line()
