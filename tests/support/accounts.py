"""Gateways that know accounts: one database, one worker before a scripted upstream, and the API that makes keys."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support import services
from support.chain import model
from support.client import Answer, Client
from support.services import Service
from support.upstream import PATIENCE, ScriptedUpstream

ADMIN_KEY: Final = "the-admin-key-of-these-tests"
FILE_KEY: Final = "sk-a-file-key-that-manages"
CHAT_FILE_KEY: Final = "sk-a-file-key-that-does-not"
_names: Iterator[int] = itertools.count()


@dataclass
class Gateway:
    """One gateway. admin: where its admin API listens."""

    service: Service
    admin: str

    async def ask(self, method: str, path: str, key: str, body: Any = None, **headers: str) -> Answer:
        """One request with a key (empty: none) and a body of JSON."""
        return await _ask(self.service.address, method, path, key, body, headers)

    async def manage(self, method: str, path: str, body: Any = None, key: str = ADMIN_KEY) -> Answer:
        """One request to the admin API; path: behind /admin/v1."""
        return await _ask(self.admin, method, "/admin/v1" + path, key, body, {})

    async def until(self, key: str, status: int) -> Answer:
        """Asks with the key until it is answered so: a change is known soon, not at once."""
        async with asyncio.timeout(PATIENCE):
            while (answer := await self.ask("GET", "/v1/models", key)).status != status:
                pass
        return answer


@dataclass
class Bridge:
    """Two gateways over one database. upstream: behind the public model `scripted`."""

    first: Gateway
    second: Gateway
    upstream: ScriptedUpstream
    accounts: dict[str, str] = field(default_factory=dict)

    async def account(self) -> str:
        """A new account's name."""
        name = f"account-{next(_names)}"
        answer = await self.first.manage("POST", "/accounts", {"name": name})
        assert answer.status == 200, answer.body
        self.accounts[name] = answer.json["id"]
        return name

    async def key(self, account: str = "", **members: Any) -> str:
        """A key of the account (empty: of a new one); members: as the admin API takes them."""
        return str((await self.new_key(account, **members))["key"])

    async def new_key(self, account: str = "", **members: Any) -> dict[str, Any]:
        """As the admin API answers."""
        account = account or await self.account()
        body = {"name": "k", "scopes": ["chat", "embeddings", "manage"], **members}
        answer = await self.first.manage("POST", f"/accounts/{account}/keys", body)
        assert answer.status == 200, answer.body
        return dict(answer.json)


@asynccontextmanager
async def gateway(settings: dict[str, Any], folder: Path, name: str) -> AsyncIterator[Gateway]:
    """A gateway with these settings, its admin API included."""
    admin = {"listen": services.FREE_PORT, "key_env": "ADMIN_KEY"}
    environment = {"ADMIN_KEY": ADMIN_KEY}
    async with services.gateway({**settings, "admin": admin}, folder, name, environment) as service:
        assert service.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = (await service.process.stdout.readline()).decode()
        assert line.startswith("admin API listening on ")
        yield Gateway(service, line.split()[-1])


@asynccontextmanager
async def bridge(folder: Path, database: str) -> AsyncIterator[Bridge]:
    """Both gateways ask for keys, and look for changes twenty times a second."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream())
        upstreams = {"first": {"base_url": upstream.url, "retries": 0}}
        worker = await stack.enter_async_context(services.worker("openai", folder, upstreams))
        settings = {
            "auth": "keys",
            "keys": [_file_key("a", FILE_KEY, ["chat", "manage"]), _file_key("b", CHAT_FILE_KEY, ["chat"])],
            "database": database,
            "directory": {"interval": 0.05},
            # By itself one folder for all on this machine, whatever their databases.
            "ledger": {"outbox": str(folder / "outbox")},
            "workers": {"openai": worker.address},
            "models": [model("scripted", "first"), model("other", "first")],
        }
        first = await stack.enter_async_context(gateway(settings, folder, "first"))
        second = await stack.enter_async_context(gateway(settings, folder, "second"))
        yield Bridge(first, second, upstream)


def _file_key(name: str, key: str, scopes: list[str]) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": scopes}


async def _ask(address: str, method: str, path: str, key: str, body: Any, headers: dict[str, str]) -> Answer:
    shown = {"authorization": f"Bearer {key}"} if key else {}
    async with Client(address, shown) as client:
        return await client.ask(method, path, None if body is None else json.dumps(body).encode(), **headers)


async def trestle(*arguments: str, key: str = ADMIN_KEY) -> tuple[int, str, str]:
    """Runs the command; its exit status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *services.run("trestle", *arguments),
        cwd=services.ROOT,
        env={"TRESTLE_ADMIN_KEY": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()
