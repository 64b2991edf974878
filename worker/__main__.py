"""`python -m worker FAMILY --config FILE`: one family, served over gRPC."""

from __future__ import annotations

import os

# Before grpc is imported, as in the gateway: its older poller costs no more here, and less where calls are made.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import argparse
import sys
from pathlib import Path

import msgspec
import uvloop

from trestle import logs, traces
from trestle.config import ConfigError, load
from trestle.tls import ServerFiles
from worker import registry
from worker.callers import Callers
from worker.parameters import table
from worker.server import probe, serve
from worker.settings import MissingCredential, check, settings_type, upstreams_of
from worker.vault import vault_of


def main() -> int:
    """Runs the command; returns its exit status."""
    known = registry.names()
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("family", nargs="?", choices=known, help="which family to serve")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration file")
    parser.add_argument("--listen", metavar="ADDR", help="instead of worker.listen; port 0 takes a free one")
    parser.add_argument("--health", metavar="ADDR", help="instead of worker.health; empty: nowhere")
    parser.add_argument(
        "--if-configured", action="store_true", help="end in peace, status 0, when a credential is not set"
    )
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the worker's part and exit")
    parser.add_argument("--parameters", action="store_true", help="print what families make of parameters and exit")
    parser.add_argument("--probe", metavar="ADDR", help="ask the worker at ADDR whether it serves, and exit")
    options = parser.parse_args()
    if options.schema:
        settings_class = settings_type({name: registry.family(name) for name in known})
        print(msgspec.json.format(msgspec.json.encode(msgspec.json.schema(settings_class))).decode())
        return 0
    if options.parameters:
        print(table((name, registry.family(name).params) for name in known), end="")
        return 0
    if options.probe:
        return 0 if uvloop.run(probe(options.probe)) else 1
    if options.family is None or options.config is None:
        parser.error("FAMILY and --config are needed")
    family = registry.family(options.family)
    try:
        # Other families' blocks may stand in the file; they are checked by their own workers.
        others = dict.fromkeys(known)
        settings = load(options.config, "worker", settings_type({**others, options.family: family}))
        check(settings)
        if options.check:
            Callers(settings.callers)
            if settings.tls is not None:
                ServerFiles("worker.tls", settings.tls)
            if hasattr(family, "upstream_type"):
                upstreams_of(settings, family)
            vault_of(settings.name, settings.seal_key_envs)
            if settings.traces is not None:
                traces.check("worker.traces", settings.traces)
            print(f"{options.config}: the {options.family} worker's part is right")
            return 0
        if options.listen:
            settings = msgspec.structs.replace(settings, listen=options.listen)
        if options.health is not None:
            settings = msgspec.structs.replace(settings, health=options.health)
        logs.configure(settings.log_format, settings.log_level, service="worker", family=options.family)
        uvloop.run(serve(family, settings))
    except MissingCredential as error:
        print(f"worker {options.family}: {error}", file=sys.stderr)
        return 0 if options.if_configured else 2
    except ConfigError as error:
        print(f"worker {options.family}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
