"""`python -m worker FAMILY --config FILE`: one family, served over gRPC."""

from __future__ import annotations

import os

# Before grpc is imported, which would write lines of its own.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import argparse
import sys
from pathlib import Path

from trestle.config import ConfigError, read
from trestle.supervise import supervise
from worker import registry


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("family", nargs="?", help=f"which family to serve: {', '.join(registry.names())}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration file")
    parser.add_argument("--listen", metavar="ADDR", help="instead of worker.listen; port 0 takes a free one")
    parser.add_argument("--health", metavar="ADDR", help="instead of worker.health; empty: nowhere")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="so many of them, each on its own port")
    parser.add_argument(
        "--if-configured", action="store_true", help="end in peace, status 0, when a credential is not set"
    )
    parser.add_argument("--ask", action="store_true", help="with --doctor: ask upstreams for their models")
    parser.add_argument("--doctor", action="store_true", help="look at all that it needs (`trestle doctor`), and exit")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the worker's part and exit")
    parser.add_argument("--parameters", action="store_true", help="print what families make of parameters and exit")
    parser.add_argument("--probe", metavar="ADDR", help="ask the worker at ADDR whether it serves, and exit")
    options = parser.parse_args()
    if not (options.schema or options.parameters or options.probe) and None in (options.family, options.config):
        parser.error("FAMILY and --config are needed")
    if options.family not in (None, *registry.names()):
        there = ", ".join(registry.names())
        todo = "`trestle up` takes a worker's name for its family, where its address is on loopback"
        print(f"worker {options.family}: there is no such family; there are {there}. {todo}", file=sys.stderr)
        return 2
    if options.processes < 1:
        parser.error("--processes: at least 1")
    if options.processes > 1 and not (options.check or options.doctor):
        try:
            return _several(options)
        except ConfigError as error:
            print(f"worker {options.family}: {error}", file=sys.stderr)
            return 2
    from worker.command import run  # noqa: PLC0415 (who supervises imports no gRPC)

    return run(options)


def _several(options: argparse.Namespace) -> int:
    """Raises `ConfigError`."""
    part = read(options.config).get("worker") or {}
    command = ["worker", options.family, "--config", str(options.config)]
    for name, value in (("--listen", options.listen), ("--health", options.health)):
        if value is not None:
            command += [name, value]
    if options.if_configured:
        command.append("--if-configured")
    return supervise(command, options.processes, part, service="worker", family=options.family)


if __name__ == "__main__":
    sys.exit(main())
