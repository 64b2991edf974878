"""`python -m gateway --config FILE`: the HTTP edge."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from trestle.config import ConfigError, cannot_listen, read
from trestle.supervise import supervise


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration file")
    parser.add_argument("--listen", metavar="ADDR", help="instead of gateway.listen; port 0 takes a free one")
    parser.add_argument("--metrics", metavar="ADDR", help="where there is no gateway.metrics")
    parser.add_argument("--workers", metavar="NAMES", help="only these of gateway.workers, with commas between")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="so many of them, on one port")
    parser.add_argument("--doctor", action="store_true", help="look at all that it needs (`trestle doctor`), and exit")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the gateway's part and exit")
    options = parser.parse_args()
    if options.config is None and not options.schema:
        parser.error("--config is needed")
    if options.processes < 1:
        parser.error("--processes: at least 1")
    if options.processes > 1 and not (options.check or options.doctor or options.schema):
        try:
            return _several(options)
        except ConfigError as error:
            print(f"gateway: {error}", file=sys.stderr)
            return 2
    from gateway.command import run  # noqa: PLC0415 (who supervises imports no gRPC)

    return run(options)


def _several(options: argparse.Namespace) -> int:
    """Raises `ConfigError`."""
    part = read(options.config).get("gateway") or {}
    with _port(options.listen or str(part.get("listen", "127.0.0.1:8080"))) as listen:
        command = ["gateway", "--config", str(options.config), "--listen", listen]
        if options.metrics:
            command += ["--metrics", options.metrics]
        if options.workers is not None:
            command += ["--workers", options.workers]
        return supervise(command, options.processes, part, service="gateway")


@contextlib.contextmanager
def _port(address: str) -> Iterator[str]:
    """The address, port 0 as the one that is then free for all of them. Raises `ConfigError`."""
    host, _, port = address.rpartition(":")
    if port != "0":
        yield address
        return
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((host, 0))
        except OSError as error:
            raise cannot_listen("gateway.listen", address, error) from None
        yield f"{address.rpartition(':')[0]}:{held.getsockname()[1]}"


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all is closed by now; a database driver's thread must not hold the process's end
