"""Nothing can be written any more, of what a service says and logs: it starts, serves and ends as ever."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import services
from support.client import Client, ask
from support.ports import free_port
from support.upstream import PATIENCE


async def start(folder: Path, *command: str, config: dict[str, Any]) -> tuple[asyncio.subprocess.Process, str]:
    """A service whose lines go to a disk that is full, and where it listens."""
    file = folder / f"{command[0]}.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(
            *(*services.run(*command), "--config", str(file), "--listen", address),
            cwd=services.ROOT,
            stdout=full,
            stderr=full,
        )
    finally:
        os.close(full)
    return process, address


async def end(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        return await process.wait()


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_they_start_serve_and_end(tmp_path: Path, processes: str) -> None:
    worker, worker_address = await start(tmp_path, "worker", "echo", "--processes", processes, config={"worker": {}})
    settings = {"auth": "open", "workers": {"echo": worker_address}, "access_log": True}
    gateway, address = await start(tmp_path, "gateway", "--processes", processes, config={"gateway": settings})
    try:
        async with asyncio.timeout(PATIENCE), Client(address) as client:
            while not await serves(client):
                assert gateway.returncode is None
                assert worker.returncode is None
                await asyncio.sleep(0.02)
    finally:
        statuses = await end(gateway), await end(worker)
    assert statuses == (0, 0)


async def serves(client: Client) -> bool:
    try:
        return (await client.chat(ask("echo"))).status == 200
    except aiohttp.ClientConnectionError:
        return False
