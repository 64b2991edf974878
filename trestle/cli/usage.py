"""`trestle usage`: what was used, from the gateway's ledger, as a table or CSV."""

from __future__ import annotations

import argparse
import csv
import sys
from typing import Any, Final
from urllib.parse import urlencode

from trestle.cli.admin import Admin, command

_SHOWN: Final = ("requests", "failed", "input_tokens", "output_tokens", "cost")


def add(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = command(commands, "usage", _usage, "show what was used")
    parser.add_argument("--by", default="day", metavar="NAMES", help="with commas between (default: %(default)s)")
    parser.add_argument("--from", dest="since", metavar="DAY", help="default: 30 days ago")
    parser.add_argument("--to", dest="until", metavar="DAY", help="not included; default: now")
    for name in ("account", "model", "key", "user", "session"):
        parser.add_argument(f"--{name}", help="of this one alone")
    parser.add_argument("--csv", action="store_true", help="every sum, as CSV")


def _usage(admin: Admin, options: argparse.Namespace) -> None:
    asked = {"group_by": options.by, "from": options.since, "to": options.until, "limit": 100_000}
    for name in ("account", "model", "key", "user", "session"):
        asked[name] = getattr(options, name)
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    found = admin.get(f"/usage?{query}")
    rows = found["data"]
    if found["has_more"]:
        print(f"trestle: there are more than these {len(rows)} groups", file=sys.stderr)
    if options.csv:
        if rows:
            writer = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return
    groups = [name for name in options.by.split(",") if name]
    head = [*groups, *_SHOWN[:-1], f"cost ({found['currency']})"]
    table = [[*(str(row[name]) for name in groups), *(_number(row[name]) for name in _SHOWN)] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *table, strict=True)]
    for line in (head, *table):
        texts = zip(line, widths, strict=True)
        print("  ".join(t.ljust(w) if i < len(groups) else t.rjust(w) for i, (t, w) in enumerate(texts)).rstrip())


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
