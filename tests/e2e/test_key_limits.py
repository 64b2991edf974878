"""Limits of keys and accounts, as clients meet them: in one gateway, and over three with one Redis."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import services
from support.accounts import Bridge
from support.chain import model
from support.client import Client, ask
from support.redis import Missing, RedisServer, redis_server
from support.services import Service
from support.upstream import PATIENCE, USAGE, Gate, Reply, ScriptedUpstream, completion, text_stream

KEY = {"authorization": "Bearer the-key"}
TOTAL = USAGE["prompt_tokens"] + USAGE["completion_tokens"]


class Served:
    def __init__(self, gateways: list[Service], upstream: ScriptedUpstream) -> None:
        self.gateways = gateways
        self.upstream = upstream

    def client(self, number: int = 0) -> Client:
        return Client(self.gateways[number].address, KEY)


@asynccontextmanager
async def served(folder: Path, of: dict[str, Any], gateways: int = 1, **settings: Any) -> AsyncIterator[Served]:
    """So many gateways that know one key with these limits."""
    async with ScriptedUpstream() as upstream:
        upstreams = {"first": {"base_url": upstream.url, "retries": 0}}
        async with services.worker("openai", folder, upstreams) as worker:
            config = {
                "gateway": {
                    "keys": [{"name": "k", "key_env": "THE_KEY", "limits": of}],
                    "workers": {"openai": worker.address},
                    "models": [model("scripted", "first")],
                    **settings,
                }
            }
            started = [
                await services.start(
                    f"gateway-{n}", "gateway", config=config, folder=folder, environment={"THE_KEY": "the-key"}
                )
                for n in range(gateways)
            ]
            try:
                yield Served(started, upstream)
            finally:
                for gateway in started:
                    await gateway.stop()


@pytest.fixture
def redis(tmp_path: Path) -> Any:
    try:
        with redis_server(tmp_path) as server:
            yield server
    except Missing as missing:
        pytest.skip(str(missing))


async def test_requests_of_a_minute(tmp_path: Path) -> None:
    async with served(tmp_path, {"requests_per_minute": 2, "tokens_per_minute": 100_000}) as it, it.client() as client:
        it.upstream.will(Reply.json(completion()), Reply.sse(*text_stream(["Hi."])))
        first = await client.chat(ask("scripted"))
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"] == "30s"
        assert first.headers["x-ratelimit-limit-tokens"] == "100000"
        assert 98_000 < int(first.headers["x-ratelimit-remaining-tokens"]) < 99_000
        stream = await client.stream(ask("scripted"))
        assert stream.done
        assert stream.headers["x-ratelimit-remaining-requests"] == "0"
        refused = await client.chat(ask("scripted"))
        error = refused.error()
        assert (refused.status, error["type"], error["code"]) == (429, "rate_limit_exceeded", "rate_limit_exceeded")
        assert "2 requests per minute" in error["message"]
        assert 25 <= int(refused.headers["retry-after"]) <= 30
        assert (await client.chat(ask("nobody"))).status == 404, "what is not there is not counted"


async def test_tokens_are_settled_with_what_was_used(tmp_path: Path) -> None:
    async with served(tmp_path, {"tokens_per_day": 2 * TOTAL, "concurrent": 1}) as it, it.client() as client:
        it.upstream.will(Reply.json(completion()), Reply.json({"error": {"message": "No."}}, 500))
        assert (await client.chat({**ask("scripted"), "max_tokens": 5})).status == 200
        assert (await client.chat({**ask("scripted"), "max_tokens": 1})).status == 502
        it.upstream.will(Reply.sse(*text_stream(["x" * 4 * TOTAL])[:2], Gate()))
        async with client.open({**ask("scripted"), "max_tokens": 1}) as stream:
            await stream.event()
            stream.hang_up()
        await it.upstream.requests[-1].closed()
        code = ""
        async with asyncio.timeout(PATIENCE):
            while code != "insufficient_quota":  # until it is settled it has the key's only place
                refused = await client.chat({**ask("scripted"), "max_tokens": 1})
                code = refused.error()["code"]
                assert code in ("insufficient_quota", "rate_limit_exceeded")
        assert refused.headers["x-should-retry"] == "false"


async def test_requests_at_a_time(tmp_path: Path) -> None:
    async with served(tmp_path, {"concurrent": 1}) as it, it.client() as client:
        gate = Gate()
        it.upstream.will(Reply.sse(*text_stream(["Hi."])[:2], gate, *text_stream(["Hi."])[2:]))
        async with client.open(ask("scripted")) as stream:
            await stream.event()
            assert (await client.chat(ask("scripted"))).status == 429
            gate.set()
            assert (await stream.rest()).done
        it.upstream.will(Reply.json(completion()))
        assert (await client.chat(ask("scripted"))).status == 200


async def test_three_gateways_with_one_redis_let_in_no_more_than_one(tmp_path: Path, redis: RedisServer) -> None:
    limits = {"requests_per_minute": 20, "concurrent": 4}
    async with served(tmp_path, limits, 3, redis=redis.url) as it, AsyncExitStack() as stack:
        it.upstream.always = lambda _: Reply.json(completion())
        clients = [await stack.enter_async_context(it.client(n)) for n in range(3)]
        began = time.monotonic()
        answers = await asyncio.gather(*(client.chat(ask("scripted")) for client in clients for _ in range(20)))
        seen = Counter(answer.status for answer in answers)
        for _ in range(20):
            seen += Counter([(await client.chat(ask("scripted"))).status for client in clients])
        # While the test runs a few come back: one each three seconds.
        assert 20 <= seen[200] <= 21 + (time.monotonic() - began) / 3
        assert seen.total() == seen[200] + seen[429]
        assert len(it.upstream.requests) == seen[200]


async def test_a_killed_gateway_gives_its_places_back(tmp_path: Path, redis: RedisServer) -> None:
    settings: dict[str, Any] = {"redis": redis.url, "limits": {"lease": 0.6}}
    async with served(tmp_path, {"concurrent": 1}, 2, **settings) as it, it.client(0) as dying, it.client(1) as living:
        it.upstream.will(Reply.sse(*text_stream(["Hi."])[:2], Gate()))
        async with dying.open(ask("scripted")) as stream:
            await stream.event()
            for _ in range(20):  # longer than the lease: it is renewed
                assert (await living.chat(ask("scripted"))).status == 429
                await asyncio.sleep(0.05)
            it.gateways[0].process.send_signal(signal.SIGKILL)
            await it.gateways[0].process.wait()
        it.upstream.forget()
        it.upstream.always = lambda _: Reply.json(completion())
        async with asyncio.timeout(PATIENCE):
            while (await living.chat(ask("scripted"))).status != 200:
                pass


@pytest.mark.parametrize(("choice", "status"), [("open", 200), ("closed", 503)])
async def test_redis_is_away_for_a_while(tmp_path: Path, redis: RedisServer, choice: str, status: int) -> None:
    settings: dict[str, Any] = {"redis": redis.url, "limits": {"when_unreachable": choice}}
    async with served(tmp_path, {"requests_per_minute": 1}, **settings) as it, it.client() as client:
        it.upstream.always = lambda _: Reply.json(completion())
        assert [(await client.chat(ask("scripted"))).status for _ in range(2)] == [200, 429]
        redis.stop()
        for _ in range(3):
            answer = await client.chat(ask("scripted"))
            assert answer.status == status
        assert status == 200 or (answer.error()["code"], answer.headers["retry-after"]) == ("limits_unavailable", "1")
        await it.gateways[0].logged("Redis cannot be reached")
        redis.start()
        async with asyncio.timeout(PATIENCE):
            while (await client.chat(ask("scripted"))).headers.get("x-ratelimit-remaining-requests") != "0":
                pass
        assert (await client.chat(ask("scripted"))).status == 429


@pytest.mark.asyncio(loop_scope="session")
async def test_of_an_account_and_its_keys(bridge: Bridge) -> None:
    account = await bridge.account()
    first = await bridge.new_key(account, limits={"requests_per_minute": 1})
    second = await bridge.key(account)
    answer = await bridge.first.manage("PUT", f"/accounts/{account}/limits", {"requests_per_minute": 2})
    assert answer.json["limits"] == {"requests_per_minute": 2}

    async def asked(key: str) -> int:
        bridge.upstream.forget()
        bridge.upstream.will(Reply.json(completion()))
        status = (await bridge.first.ask("POST", "/v1/chat/completions", key, ask("scripted"))).status
        bridge.upstream.forget()
        return status

    assert [await asked(key) for key in (first["key"], first["key"], second, second)] == [200, 429, 200, 429]
    answer = await bridge.first.manage("PUT", f"/accounts/{account}/limits", {})
    assert answer.json["limits"] == {}
    assert await asked(second) == 200
    answer = await bridge.first.manage("PUT", f"/keys/{first['id']}/limits", {"requests_per_minute": 100})
    assert answer.status == 200
    assert await asked(first["key"]) == 200
    wrong = await bridge.first.manage("PUT", f"/keys/{first['id']}/limits", {"requests": 1})
    assert (wrong.status, "requests" in wrong.error()["message"]) == (400, True)
