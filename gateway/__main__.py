"""`python -m gateway --config FILE`: the HTTP edge."""

from __future__ import annotations

import os

# Before grpc is imported: its older poller costs who calls about a quarter less CPU (docs/performance.md).
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# So that a worker's address can be chosen by the session, without xDS.
os.environ.setdefault("GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY", "true")

import argparse
import sys
from pathlib import Path

import msgspec
import uvloop

from gateway.process import serve, server_files
from gateway.settings import GatewaySettings, admin_keys, check, configured_keys, only_workers
from gateway.workers import read_links
from trestle import logs, traces
from trestle.config import ConfigError, load


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration file")
    parser.add_argument("--listen", metavar="ADDR", help="instead of gateway.listen; port 0 takes a free one")
    parser.add_argument("--workers", metavar="NAMES", help="only these of gateway.workers, with commas between")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the gateway's part and exit")
    options = parser.parse_args()
    if options.schema:
        print(msgspec.json.format(msgspec.json.encode(msgspec.json.schema(GatewaySettings))).decode())
        return 0
    if options.config is None:
        parser.error("--config is needed")
    try:
        settings = _read(options)
        if options.check:
            configured_keys(settings)
            read_links(settings)
            if settings.tls is not None:
                server_files(settings.tls)
            if settings.admin is not None:
                admin_keys(settings.admin)
            if settings.traces is not None:
                traces.check("gateway.traces", settings.traces)
            if settings.database:
                from gateway.store.database import parse  # noqa: PLC0415 (what it needs is there with accounts only)

                parse(settings.database)
            print(f"{options.config}: the gateway's part is right")
            return 0
        logs.configure(settings.log_format, settings.log_level, service="gateway")
        uvloop.run(serve(settings, options.config, lambda: _read(options)))
    except ConfigError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    return 0


def _read(options: argparse.Namespace) -> GatewaySettings:
    """The settings as the file and the command's options say. Raises `ConfigError`."""
    settings = load(options.config, "gateway", GatewaySettings)
    if options.listen:
        settings = msgspec.structs.replace(settings, listen=options.listen)
    if options.workers is not None:
        settings = only_workers(settings, [name for name in options.workers.split(",") if name])
    check(settings)
    return settings


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all is closed by now; a database driver's thread must not hold the process's end
