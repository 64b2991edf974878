"""The `trestle` command. It knows the services as processes, over HTTP and by their words, never by their code."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trestle import __version__
from trestle.cli import accounts, admin, chat, doctor, services, up, usage
from trestle.config import ConfigError

_DEFAULT_CONFIG = Path("trestle.yaml")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line given, or the process's own; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        match options.command:
            case "up":
                return up.up(options.config, options.listen)
            case "chat":
                return chat.chat(options.url, options.model, options.system)
            case "admin":
                return admin.run(options)
            case "seal-keys":
                return services.seal_keys()
            case "doctor":
                return doctor.doctor(options.config, ask=options.ask, as_json=options.json)
            case "config check":
                return services.check(options.config)
            case "config reference":
                return services.reference()
            case _:
                return services.schema()
    except ConfigError as error:
        print(f"trestle: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trestle", description="An OpenAI-compatible bridge to many model families.")
    parser.add_argument("--version", action="version", version=f"trestle {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("up", help="serve the gateway and its workers on this machine")
    command.set_defaults(command="up")
    _add_config(command)
    command.add_argument("--listen", metavar="ADDR", help="where the gateway listens, instead of gateway.listen")

    command = commands.add_parser("chat", help="talk to a model in the terminal")
    command.set_defaults(command="chat")
    command.add_argument("--url", default="http://127.0.0.1:8080", help="the gateway (default: %(default)s)")
    command.add_argument("--model", help="which model answers (default: the gateway's first)")
    command.add_argument("--system", metavar="TEXT", help="a system message to begin with")
    command.epilog = "The key is taken from the environment variable TRESTLE_KEY."

    command = commands.add_parser("doctor", help="look at all that a configuration needs, and say what to do")
    command.set_defaults(command="doctor")
    _add_config(command)
    command.add_argument("--ask", action="store_true", help="also ask upstreams for their models, with our credentials")
    command.add_argument("--json", action="store_true", help="a line of JSON for each finding")

    accounts.add(commands)
    usage.add(commands)

    command = commands.add_parser("seal-keys", help="make a pair for sealing credentials of accounts")
    command.set_defaults(command="seal-keys")

    config = commands.add_parser("config", help="look after the configuration file").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = config.add_parser("check", help="check every service's part of the file")
    command.set_defaults(command="config check")
    _add_config(command)
    command = config.add_parser("schema", help="print the JSON Schema of the file")
    command.set_defaults(command="config schema")
    command = config.add_parser("reference", help="print a page of every key of the file")
    command.set_defaults(command="config reference")
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=_DEFAULT_CONFIG, metavar="FILE", help="the configuration (default: %(default)s)"
    )
