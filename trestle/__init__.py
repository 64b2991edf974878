"""What a caller of the bridge imports: the generated contract, its errors, and the `trestle` command."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (who runs a checkout was not asked by pip)
    raise ImportError(f"Trestle needs Python 3.11 or later, and this is {sys.version.split()[0]}")

__version__ = "0.1.0"
