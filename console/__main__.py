"""The entry point of `agent-console` and of `python -m console`."""

from __future__ import annotations

import sys

from console.commands.root import run


def main() -> int:
    """Run the command line of this process; its exit code."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
