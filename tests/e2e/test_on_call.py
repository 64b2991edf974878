"""What the one on call reads when something is broken: which part it is, and what the system says of it."""

from __future__ import annotations

import asyncio
import re
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from support import services
from support.certificates import Authority
from support.chain import model
from support.client import Client, ask
from support.redis import Missing, RedisServer, redis_server
from support.services import Service
from support.upstream import Gate, Reply, ScriptedUpstream, completion, text_stream


@asynccontextmanager
async def failing(folder: Path, base_url: str, **environment: str) -> AsyncIterator[tuple[Client, Service]]:
    """A client of a gateway, and the worker, whose upstream is there."""
    upstreams = {"first": {"base_url": base_url, "retries": 0}}
    async with services.worker("openai", folder, upstreams, environment) as worker:
        settings = {"workers": {"openai": worker.address}, "models": [model("m", "first")]}
        async with services.gateway(settings, folder) as gateway, Client(gateway.address) as client:
            yield client, worker


@pytest.mark.parametrize(
    ("base_url", "cause"),
    [
        ("http://none.invalid/v1", 'cause="gaierror: '),
        ("http://127.0.0.1:1/v1", 'cause="ConnectionRefusedError: Connection refused"'),
    ],
)
async def test_an_upstream_that_cannot_be_reached(tmp_path: Path, base_url: str, cause: str) -> None:
    async with failing(tmp_path, base_url) as (client, worker):
        answer = await client.chat(ask("m"))
        assert (answer.status, answer.error()["code"]) == (503, "upstream_unreachable")
        assert cause in await worker.logged("Chat failed")


async def test_an_upstream_whose_certificate_has_expired(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("127.0.0.1", expired=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, failing(tmp_path, url, SSL_CERT_FILE=str(authority.ca)) as (client, worker):
        assert (await client.chat(ask("m"))).error()["code"] == "upstream_unreachable"
        assert "certificate has expired" in await worker.logged("Chat failed")


async def test_a_worker_that_is_killed_goes_by_the_name_that_grpc_has_for_it(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        services.worker("openai", tmp_path, {"first": {"base_url": upstream.url}}) as worker,
    ):
        settings = {
            "workers": {"openai": worker.address},
            "models": [model("m", "first")],
            "metrics": "127.0.0.1:0",
            "access_log": True,
        }
        async with services.gateway(settings, tmp_path) as gateway, Client(gateway.address) as client:
            metrics = await gateway.other_address("metrics")
            upstream.will(Reply.sse(*text_stream(["Hel", "lo."])[:2], Gate()))
            async with client.open(ask("m")) as stream:
                await stream.text("Hel")
                await worker.kill()
                seen = await stream.rest()
            assert seen.error is not None
            assert (seen.error["code"], seen.done) == ("worker_unavailable", False)
            assert (await client.chat(ask("m"))).error()["code"] == "worker_unavailable"
            log = await gateway.logged("outcome=failed status=503 reason=UNAVAILABLE")
            assert "outcome=failed status=200 reason=UNAVAILABLE" in log
            assert 'status=503 reason=UNAVAILABLE why="' in log
            told = await scraped(metrics)
            assert 'trestle_attempts_total{reason="UNAVAILABLE",upstream="first",worker="openai"} 2.0' in told


async def test_a_worker_that_hangs_is_given_up_with_its_connection(tmp_path: Path) -> None:
    """It takes forty seconds: thirty until gRPC asks whether the other end is there, and ten for the answer."""
    async with (
        services.worker("echo", tmp_path) as worker,
        services.gateway({"workers": {"echo": worker.address}, "timeout": 85}, tmp_path) as gateway,
        Client(gateway.address) as client,
        aiohttp.ClientSession() as patient,
    ):
        assert (await client.chat(ask("echo"))).status == 200
        worker.process.send_signal(signal.SIGSTOP)
        try:
            url = f"http://{gateway.address}/v1/chat/completions"
            async with patient.post(url, json=ask("echo")) as answer:
                error = (await answer.json())["error"]
        finally:
            worker.process.send_signal(signal.SIGCONT)
        assert (answer.status, error["code"]) == (503, "worker_unavailable"), "else its deadline ends it"
        assert "ping timeout" in await gateway.logged("the request failed")


async def scraped(metrics: str) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{metrics}/metrics") as told:
        return (await told.text()).splitlines()


async def test_when_certificates_end_and_whether_one_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    of_worker, of_gateway, of_edge = (authority.issue("127.0.0.1", days=days) for days in (1, 2, 3))
    options = {"metrics": services.FREE_PORT, "tls": of_worker.server()}
    async with services.worker("echo", tmp_path, settings=options) as worker:
        settings = {
            "workers": {"echo": {"address": worker.address, "tls": of_edge.client()}},
            "tls": of_gateway.server(),
            "metrics": services.FREE_PORT,
        }
        async with services.gateway(settings, tmp_path) as gateway:
            metrics = await gateway.other_address("metrics")
            assert days_left(await scraped(metrics)) == {"gateway.tls": 2, "gateway.workers.echo.tls": 3}
            assert days_left(await scraped(await worker.other_address("metrics"))) == {"worker.tls": 1}
            key = of_gateway.key.read_bytes()
            of_gateway.key.write_bytes(b"no key")
            await answers(gateway.address, authority)  # what is shown is looked at with a new connection
            assert "trestle_config_refused 1.0" in await scraped(metrics)
            of_gateway.key.write_bytes(key)
            await answers(gateway.address, authority)
            assert "trestle_config_refused 0.0" in await scraped(metrics)


def days_left(told: list[str]) -> dict[str, int]:
    found = (re.fullmatch(r'trestle_certificate_end_seconds{certificate="(.+)"} (.+)', line) for line in told)
    return {each[1]: round((float(each[2]) - time.time()) / 86400) for each in found if each}


async def answers(address: str, authority: Authority) -> None:
    async with Client(address, context=ssl.create_default_context(cafile=str(authority.ca))) as client:
        assert (await client.chat(ask("echo"))).status == 200


async def test_a_redis_that_is_full_is_told_of_without_what_was_to_go_there(tmp_path: Path) -> None:
    try:
        with redis_server(tmp_path) as redis:
            await full_redis(tmp_path, redis)
    except Missing as missing:
        pytest.skip(str(missing))


async def full_redis(folder: Path, redis: RedisServer) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.always = lambda _: Reply.json(completion())
        async with services.worker("openai", folder, {"first": {"base_url": upstream.url}}) as worker:
            settings = {"workers": {"openai": worker.address}, "models": [model("m", "first")], "redis": redis.url}
            async with services.gateway(settings, folder) as gateway, Client(gateway.address) as client:
                redis.ask("CONFIG SET maxmemory 1")
                assert (await client.chat(ask("m"), x_session_id="a-session-of-somebody")).status == 200
                log = await gateway.logged("session events: Redis cannot be reached (OutOfMemoryError)")
                assert "a-session-of-somebody:" not in log
                assert "XADD" not in log
                redis.ask("CONFIG SET maxmemory 0")
                await gateway.logged("session events: Redis is there again")


async def test_a_database_that_cannot_be_used_is_told_of_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_bytes(b"no database" * 100)
    settings = {"auth": "open", "workers": {"w": "127.0.0.1:1"}, "database": f"sqlite:///{tmp_path}/t.db"}
    with pytest.raises(AssertionError, match=r"gateway.database: [^\n]*file is not a database[^\n]*\n$"):
        await services.start("gateway", "gateway", config={"gateway": settings}, folder=tmp_path)
