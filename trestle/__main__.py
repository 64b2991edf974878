"""`python -m trestle`: the `trestle` command."""

from __future__ import annotations

import os
import signal
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
    try:
        status = run()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
