"""What `python -m worker` does in a process that serves, checks or asks."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec
import uvloop

from trestle import findings, logs, traces
from trestle.config import ConfigError, load
from trestle.files import connections
from trestle.schema import schema
from trestle.supervise import divided, share, shifted
from trestle.tls import ServerFiles
from worker import registry
from worker.callers import Callers
from worker.parameters import table
from worker.server import probe, serve
from worker.settings import MissingCredential, WorkerSettings, check, settings_type, upstreams_of
from worker.vault import vault_of


def run(options: argparse.Namespace) -> int:
    """options: as `worker.__main__` has them. Returns the exit status."""
    if options.schema:
        settings_class = settings_type({name: registry.family(name) for name in registry.names()})
        print(schema(settings_class).decode())
        return 0
    if options.parameters:
        print(table((name, registry.family(name).params) for name in registry.names()), end="")
        return 0
    if options.probe:
        return 0 if uvloop.run(probe(options.probe)) else 1
    family = registry.family(options.family)
    try:
        settings = _read(options, family)
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
        if options.doctor:
            from worker.doctor import look  # noqa: PLC0415 (for who looks alone)

            findings.tell(uvloop.run(look(settings, family, ask=options.ask)))
            return 0
        logs.configure(settings.log_format, settings.log_level, service="worker", family=options.family)
        again = lambda: _bounded(_read(options, family), family)  # noqa: E731
        uvloop.run(serve(family, _bounded(settings, family), options.config, again))
    except MissingCredential as error:
        print(f"worker {options.family}: {error}", file=sys.stderr)
        return 0 if options.if_configured else 2
    except ConfigError as error:
        print(f"worker {options.family}: {error}", file=sys.stderr)
        return 2
    return 0


def _read(options: argparse.Namespace, family: Any) -> WorkerSettings:
    """The settings as the file, the command's options, and this process's share say. Raises `ConfigError`."""
    # Other families' blocks may stand in the file; they are checked by their own workers.
    others = dict.fromkeys(registry.names())
    settings = load(options.config, "worker", settings_type({**others, options.family: family}))
    check(settings)
    if options.listen:
        settings = msgspec.structs.replace(settings, listen=options.listen)
    if options.health is not None:
        settings = msgspec.structs.replace(settings, health=options.health)
    index, of = (0, options.processes) if options.check else share()
    return settings if of == 1 else shared(settings, options.family, index, of)


def _bounded(settings: WorkerSettings, family: Any) -> WorkerSettings:
    """Each call of a family that has upstreams takes a connection to one."""
    if not hasattr(family, "upstream_type"):
        return settings
    return msgspec.structs.replace(settings, max_calls=connections(settings.max_calls))


def shared(settings: WorkerSettings, family: str, index: int, of: int) -> WorkerSettings:
    """The settings of one process of several on this machine: ports of its own, and a share of each limit. Raises
    `ConfigError` for what cannot be shared."""
    block: Any = getattr(settings, family, None)
    try:
        own = {}
        if block is not None:
            upstreams = {
                name: msgspec.structs.replace(
                    each, max_calls=divided(f"worker.{family}.upstreams.{name}.max_calls", each.max_calls, of)
                )
                for name, each in block.upstreams.items()
            }
            own[family] = msgspec.structs.replace(block, upstreams=upstreams)
        return msgspec.structs.replace(
            settings,
            listen=shifted(settings.listen, index),
            health=shifted(settings.health, index),
            metrics=shifted(settings.metrics, index),
            max_calls=divided("worker.max_calls", settings.max_calls, of),
            **own,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
