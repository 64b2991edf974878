"""`trestle accounts` and `trestle keys`: the gateway's admin API, from the terminal."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from trestle.cli.admin import Admin, Object, command

_COUNTS: Final = ("requests_per_minute", "tokens_per_minute", "concurrent", "tokens_per_day", "tokens_per_month")
_AMOUNTS: Final = ("cost_per_day", "cost_per_month")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add(commands: Any) -> None:
    """Adds both commands to the parser's; `trestle.cli.admin.run` runs them."""
    accounts = commands.add_parser("accounts", help="look after accounts").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command(accounts, "create", _create_account, "make an account", "name")
    command(accounts, "list", _list_accounts, "list the accounts")
    command(accounts, "get", _get_account, "show an account, by name or id", "account")
    command(accounts, "disable", _disable_account, "close an account: its keys open nothing", "account")
    command(accounts, "enable", _enable_account, "open an account again", "account")

    _add_limits(command(accounts, "limit", _limit_account, "set what all its keys may use together", "account"))

    keys = commands.add_parser("keys", help="look after the keys of accounts").add_subparsers(
        required=True, metavar="COMMAND"
    )
    parser = command(keys, "create", _create_key, "make a key and print it, this once", "account")
    parser.add_argument("--name", required=True, help="what the key is for")
    scopes = ("chat", "embeddings", "manage")
    parser.add_argument("--scope", action="append", choices=scopes, help="again for more; default: the first two")
    parser.add_argument("--model", action="append", help="a model that it may ask for, again for more; default: all")
    parser.add_argument("--expires-in", type=_seconds, metavar="TIME", help="like 90d, 12h, 30m; default: never")
    command(keys, "list", _list_keys, "list an account's keys", "account")
    _add_limits(command(keys, "limit", _limit_key, "set what a key may use", "key"))
    command(keys, "disable", _disable_key, "disable a key", "key")
    command(keys, "enable", _enable_key, "enable a key again", "key")
    parser = command(keys, "expire", _expire_key, "let a key end", "key")
    parser.add_argument("--in", dest="within", type=_seconds, default=0, metavar="TIME", help="default: now")
    parser = command(keys, "rotate", _rotate_key, "make a key in the place of another and print it, this once", "key")
    parser.add_argument(
        "--overlap", type=_seconds, default=3600, metavar="TIME", help="how long the old one goes on (default: 1h)"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.description = "What is not named is no longer limited."
    for name in _COUNTS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N")
    for name in _AMOUNTS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="AMOUNT")


def _limits(options: argparse.Namespace) -> Object:
    asked = {name: getattr(options, name) for name in (*_COUNTS, *_AMOUNTS)}
    return {name: value for name, value in asked.items() if value is not None}


def _create_account(admin: Admin, options: argparse.Namespace) -> None:
    _show_accounts([admin.post("/accounts", {"name": options.name})])


def _list_accounts(admin: Admin, options: argparse.Namespace) -> None:
    _show_accounts(admin.pages("/accounts", "name"))


def _get_account(admin: Admin, options: argparse.Namespace) -> None:
    _show_accounts([admin.get(_account(options))])


def _disable_account(admin: Admin, options: argparse.Namespace) -> None:
    _show_accounts([admin.post(f"{_account(options)}/disable")])


def _enable_account(admin: Admin, options: argparse.Namespace) -> None:
    _show_accounts([admin.post(f"{_account(options)}/enable")])


def _limit_account(admin: Admin, options: argparse.Namespace) -> None:
    _show_accounts([admin.put(f"{_account(options)}/limits", _limits(options))])


def _limit_key(admin: Admin, options: argparse.Namespace) -> None:
    _show_keys([admin.put(f"{_key(options)}/limits", _limits(options))])


def _create_key(admin: Admin, options: argparse.Namespace) -> None:
    asked = {"name": options.name, "scopes": options.scope, "models": options.model, "expires_in": options.expires_in}
    _show_new(admin.post(f"{_account(options)}/keys", {name: value for name, value in asked.items() if value}))


def _list_keys(admin: Admin, options: argparse.Namespace) -> None:
    _show_keys(admin.pages(f"{_account(options)}/keys", "id"))


def _disable_key(admin: Admin, options: argparse.Namespace) -> None:
    _show_keys([admin.post(f"{_key(options)}/disable")])


def _enable_key(admin: Admin, options: argparse.Namespace) -> None:
    _show_keys([admin.post(f"{_key(options)}/enable")])


def _expire_key(admin: Admin, options: argparse.Namespace) -> None:
    _show_keys([admin.post(f"{_key(options)}/expire", {"in": options.within})])


def _rotate_key(admin: Admin, options: argparse.Namespace) -> None:
    _show_new(admin.post(f"{_key(options)}/rotate", {"overlap": options.overlap}))


def _account(options: argparse.Namespace) -> str:
    return f"/accounts/{quote(options.account, safe='')}"


def _key(options: argparse.Namespace) -> str:
    return f"/keys/{quote(options.key, safe='')}"


def _show_new(key: Object) -> None:
    """The key alone on the output, for whoever catches it there; what it is beside it."""
    print(key["key"])
    print(f"{key['id']} ({key['name']}): it is shown this once", file=sys.stderr)


def _show_accounts(accounts: Any) -> None:
    for account in accounts:
        state = "disabled" if account["disabled"] else "open"
        print(account["id"], account["name"], state, _instant(account["created"]), *_shown(account), sep="\t")


def _show_keys(keys: Any) -> None:
    for key in keys:
        end = _instant(key["expires"]) if key["expires"] else "never"
        models = "all" if key["models"] is None else ",".join(key["models"])
        state = "disabled" if key["disabled"] else "open"
        print(key["id"], key["name"], state, ",".join(key["scopes"]), models, f"expires={end}", *_shown(key), sep="\t")


def _shown(limited: Object) -> list[str]:
    """Its limits, where there are some."""
    return [f"{name}={value:.15g}" for name, value in limited.get("limits", {}).items()]


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str) -> int:
    """`90d`, `12h`, `30m`, `10s` or plain seconds."""
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90d, 12h, 30m or 10s")
    return int(number) * unit
