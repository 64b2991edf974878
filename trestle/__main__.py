"""`python -m trestle`: the `trestle` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command; returns its exit status. Who has installed the client alone is told what else it takes."""
    try:
        from trestle.cli import main as run  # noqa: PLC0415 (it may lack what it imports)
    except ModuleNotFoundError as error:
        if error.name not in ("msgspec", "yaml"):
            raise
        print("trestle: the command needs more than the client does: pip install 'trestle[cli]'", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
