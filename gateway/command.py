"""What `python -m gateway` does in a process that serves, or checks."""

from __future__ import annotations

import argparse
import sys

import msgspec
import uvloop

from gateway.auth import admin_keys, configured_keys
from gateway.limits.policy import Limits
from gateway.process import serve, server_files
from gateway.settings import (
    GatewaySettings,
    check,
    endpoints,
    only_workers,
)
from gateway.workers import read_links
from trestle import findings, logs, traces
from trestle.config import ConfigError, load
from trestle.files import connections
from trestle.schema import schema
from trestle.supervise import divided, share, shifted


def run(options: argparse.Namespace) -> int:
    """options: as `gateway.__main__` has them. Returns the exit status."""
    if options.schema:
        print(schema(GatewaySettings).decode())
        return 0
    try:
        settings = _read(options)
        if options.check:
            _check(settings)
            print(f"{options.config}: the gateway's part is right")
            return 0
        if options.doctor:
            from gateway.doctor import look  # noqa: PLC0415 (for who looks alone)

            _check(settings)
            findings.tell(uvloop.run(look(settings)))
            return 0
        logs.configure(settings.log_format, settings.log_level, service="gateway")
        uvloop.run(serve(_bounded(settings), options.config, lambda: _bounded(_read(options))))
    except ConfigError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    return 0


def _check(settings: GatewaySettings) -> None:
    """What only shows when it is used. Raises `ConfigError`."""
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


def _read(options: argparse.Namespace) -> GatewaySettings:
    """The settings as the file, the command's options, and this process's share say. Raises `ConfigError`."""
    settings = load(options.config, "gateway", GatewaySettings)
    if options.listen:
        settings = msgspec.structs.replace(settings, listen=options.listen)
    if options.metrics and not settings.metrics:
        settings = msgspec.structs.replace(settings, metrics=options.metrics)
    if options.workers is not None:
        settings = only_workers(settings, [name for name in options.workers.split(",") if name])
    check(settings)
    index, of = (0, options.processes) if options.check else share()
    return settings if of == 1 else shared(settings, index, of)


def _bounded(settings: GatewaySettings) -> GatewaySettings:
    return msgspec.structs.replace(settings, max_connections=connections(settings.max_connections))


def shared(settings: GatewaySettings, index: int, of: int) -> GatewaySettings:
    """The settings of one process of several on this machine: one port for all, a share of each limit, and listeners
    that there can be but one of with the first. Raises `ConfigError` for what cannot be shared."""
    if not settings.redis:
        if settings.database:
            raise ConfigError(
                f"gateway.database: with {of} processes it needs gateway.redis: limits of accounts and keys are else "
                "counted in each process by itself"
            )
        for i, key in enumerate(settings.keys):
            if key.limits != Limits():
                raise ConfigError(f"gateway.keys[{i}].limits: {of} processes need gateway.redis to count together")
        if settings.grpc:
            raise ConfigError(f"gateway.grpc: session events of {of} processes need gateway.redis")
    try:
        workers = {
            name: msgspec.structs.replace(
                endpoint, max_calls=divided(f"gateway.workers.{name}.max_calls", endpoint.max_calls, of)
            )
            for name, endpoint in endpoints(settings).items()
        }
        return msgspec.structs.replace(
            settings,
            reuse_port=True,
            workers=workers,
            max_requests=divided("gateway.max_requests", settings.max_requests, of),
            max_connections=divided("gateway.max_connections", settings.max_connections, of),
            metrics=shifted(settings.metrics, index),
            admin=settings.admin if index == 0 else None,
            grpc=settings.grpc if index == 0 else "",
            health=settings.health if index == 0 else "",
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
