"""What the gateway finds when it looks at itself: its listeners, certificates, workers, database and Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from gateway.settings import GatewaySettings, endpoints
from gateway.workers import Link, Worker, read_links
from trestle import findings
from trestle.config import ConfigError
from trestle.errors import CallError
from trestle.findings import Finding
from trestle.logs import first_line

_PATIENCE: Final = 5.0


async def look(settings: GatewaySettings) -> list[Finding]:
    """settings: that are right so far. Raises `ConfigError` where they turn out not to be."""
    found = [findings.port("gateway.listen", settings.listen)]
    found += [
        findings.port(f"gateway.{name}", address)
        for name, address in (("health", settings.health), ("metrics", settings.metrics), ("grpc", settings.grpc))
        if address
    ]
    if settings.admin is not None:
        found.append(findings.port("gateway.admin.listen", settings.admin.listen))
    if settings.tls is not None:
        found.append(findings.certificate("gateway.tls.certificate", settings.tls.certificate, settings.tls.key))
    for name, endpoint in endpoints(settings).items():
        if endpoint.tls is not None and endpoint.tls.certificate:
            where = f"gateway.workers.{name}.tls.certificate"
            found.append(findings.certificate(where, endpoint.tls.certificate, endpoint.tls.key))
    found.append(findings.open_files("gateway.max_connections", settings.max_connections))
    found += await asyncio.gather(*(_worker(name, link) for name, link in read_links(settings).items()))
    if settings.database:
        found += await _database(settings)
    if settings.redis:
        found.append(await _redis(settings.redis))
    return found


async def _worker(name: str, link: Link) -> Finding:
    what = f"gateway.workers.{name}"
    worker = Worker(name, link)
    address = worker.link.endpoint.address
    try:
        models = list(await worker.list_models(_PATIENCE))
    except CallError as error:
        if error.reason.value.startswith("UPSTREAM_"):
            said = f"{address} answers, but cannot list its upstream's models: {error.message} ({error.reason.value})"
            return Finding("fail", what, said, "look at worker.FAMILY.upstreams of its configuration, and at its log")
        todo = (
            "is it running there (`trestle up` starts those on loopback), and may it be reached from here? "
            "TLS and tokens must be as it asks for them"
        )
        said = error.message if error.message.startswith(f"{address}: ") else f"{address}: {error.message}"
        return Finding("fail", what, said, todo)
    finally:
        await worker.close()
    some = ", ".join(model.id for model in models[:3])
    return Finding("ok", what, f"{address} serves {findings.count(models)}{': ' + some if some else ''}")


async def _database(settings: GatewaySettings) -> list[Finding]:
    from gateway.accounts import outbox_folder  # noqa: PLC0415 (what it needs is there with accounts only)
    from gateway.store.database import Database, parse  # noqa: PLC0415
    from gateway.store.migrate import is_up_to_date  # noqa: PLC0415

    database = Database(parse(settings.database))
    where = database.url.render_as_string()
    found = [findings.folder("gateway.ledger.outbox", outbox_folder(settings, database))]
    try:
        file = Path(database.url.database or "")
        if database.url.get_backend_name() == "sqlite" and not await asyncio.to_thread(file.exists):
            return [*found, findings.folder("gateway.database", file.parent)]  # the gateway makes it
        known = await is_up_to_date(database)
    except CallError as error:
        todo = "is it running, and are its name, user and PGPASSWORD right? Known keys go on working meanwhile"
        said = f"{where}: {error.message} ({first_line(error.__cause__)})"
        return [*found, Finding("fail", "gateway.database", said, todo)]
    finally:
        await database.close()
    if not known:
        todo = "nothing: the next gateway that starts brings it up to date"
        return [*found, Finding("warn", "gateway.database", f"{where}: is of another version", todo)]
    return [*found, Finding("ok", "gateway.database", f"{where} is up to date")]


async def _redis(url: str) -> Finding:
    from gateway.redis import UNREACHABLE, connect  # noqa: PLC0415 (what it needs is there with Redis only)

    client = connect(url)
    host = url.rpartition("@")[2]
    try:
        await client.ping()
    except UNREACHABLE as error:
        todo = "is it running, and is REDIS_PASSWORD right? docs/accounts.md says what happens to limits meanwhile"
        return Finding("fail", "gateway.redis", f"{host}: {type(error).__name__}", todo)
    except ConfigError as error:
        return Finding("fail", "gateway.redis", str(error), "put it right in the file")
    finally:
        await client.aclose()
    return Finding("ok", "gateway.redis", f"{host} answers")
