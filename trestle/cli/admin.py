"""The gateway's admin API as commands ask it: its address, its key, its pages."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlencode

from trestle.cli.http import GatewayError, request

KEY_VARIABLE: Final = "TRESTLE_ADMIN_KEY"
_URL: Final = "http://127.0.0.1:8081"
_TIMEOUT: Final = 30.0
_PAGE: Final = 1000
Object = Mapping[str, Any]


def run(options: argparse.Namespace) -> int:
    """Runs the command that was parsed. Returns 1 when the gateway refuses it or cannot be reached."""
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        todo = "it holds the key that the gateway knows by gateway.admin.key_env"
        print(f"trestle: the environment variable {KEY_VARIABLE} is not set: {todo}", file=sys.stderr)
        return 2
    try:
        options.action(Admin(options.url.rstrip("/"), key), options)
    except GatewayError as error:
        todo = f" The key is taken from the environment variable {KEY_VARIABLE}." if error.status == 401 else ""
        print(f"trestle: {error}{todo}", file=sys.stderr)
        return 1
    return 0


class Admin:
    """The admin API at a URL. Every method raises `GatewayError`."""

    def __init__(self, url: str, key: str) -> None:
        self._url = f"{url}/admin/v1"
        self._key = key

    def get(self, path: str) -> Any:
        """The answer's JSON; path: behind /admin/v1."""
        return self._ask(path, None)

    def post(self, path: str, body: Object | None = None) -> Any:
        """As `get`."""
        return self._ask(path, body or {})

    def put(self, path: str, body: Object) -> Any:
        """As `get`."""
        return self._ask(path, body, "PUT")

    def pages(self, path: str, after: str) -> Iterator[Object]:
        """All of a list. after: the member that the next page begins behind."""
        query: dict[str, Any] = {"limit": _PAGE}
        while True:
            page = self.get(f"{path}?{urlencode(query)}")
            yield from page["data"]
            if not page["has_more"]:
                return
            query["after"] = page["data"][-1][after]

    def _ask(self, path: str, body: Object | None, method: str | None = None) -> Any:
        with request(self._url + path, self._key, body, _TIMEOUT, method) as answer:
            try:
                return json.load(answer)
            except (ValueError, OSError, HTTPException):
                raise GatewayError(f"{self._url}{path}: the answer is not JSON") from None


def command(
    commands: Any, name: str, action: Callable[[Admin, argparse.Namespace], None], about: str, *names: str
) -> argparse.ArgumentParser:
    """A command of the admin API; names: its arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about)
    for each in names:
        parser.add_argument(each, metavar=each.upper())
    parser.add_argument("--url", default=_URL, help="the gateway's admin listener (default: %(default)s)")
    parser.epilog = f"The admin key is taken from the environment variable {KEY_VARIABLE}."
    parser.set_defaults(command="admin", action=action)
    return parser
